"""Names of real series, and which of their files a row of the sheet means."""

import pytest

from immunomod.acquire.geo import RemoteFile
from immunomod.acquire.select import (
    ChoiceError,
    Role,
    choose_for_sample,
    choose_for_series,
    companions,
    counts_names,
    list_names,
    matches,
    role_of,
    split_patterns,
)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("GSM2560248_2.1.mtx.gz", Role.MATRIX),
        ("GSM2560245_A.mat.gz", Role.MATRIX),
        ("GSM3000_matrix.txt.gz", Role.MATRIX),
        ("GSM1_raw_feature_bc_matrix.h5", Role.MATRIX),
        ("GSM1_gene_counts.csv.gz", Role.MATRIX),
        ("GSE1_genes_x_cells_umi.tsv", Role.MATRIX),
        ("GSM3502579_AB127.txt.gz", Role.MATRIX),
        ("GSM3832743_beadneg_dc1_1.csv.gz", Role.MATRIX),
        ("GSE1_clustered.counts.csv.gz", Role.MATRIX),
        ("GSE1_seurat.rds", Role.MATRIX),
        ("GSE96583_batch2.genes.tsv.gz", Role.FEATURES),
        ("GSE96583_genes.txt.gz", Role.FEATURES),
        ("features.tsv.gz", Role.FEATURES),
        ("GSM1_Features.csv", Role.FEATURES),
        ("genes.tsv", Role.FEATURES),
        ("GSE161529_features.tsv.gz", Role.FEATURES),
        ("GSM2560248_barcodes.tsv.gz", Role.BARCODES),
        ("barcodes_sample1.tsv", Role.BARCODES),
        ("GSE96583_batch2.total.tsne.df.tsv.gz", Role.ANNOTATION),
        ("GSE143435_metadata.csv", Role.ANNOTATION),
        ("GSM1_s1.tar.gz", Role.ARCHIVE),
        ("GSE1_RAW.tar", Role.ARCHIVE),
        ("GSM1_possorted.bam", Role.OTHER),
        ("GSM1_atac_fragments.tsv.gz", Role.OTHER),
        ("GSM1_s_R1.fastq.gz", Role.OTHER),
    ],
)
def test_roles(name: str, role: Role) -> None:
    assert role_of(name) is role


def remote(*names: str) -> list[RemoteFile]:
    return [RemoteFile(name, f"u/{name}", None, name.replace(".", "_").split("_")[0]) for name in names]


def chosen(files: list[RemoteFile]) -> list[str]:
    return sorted(file.name for file in files)


# The series-level files of the real GSE96583, which holds two batches.
KANG = remote(
    "GSE96583_RAW.tar",
    "GSE96583_batch1.genes.tsv.gz",
    "GSE96583_batch1.total.tsne.df.tsv.gz",
    "GSE96583_batch2.genes.tsv.gz",
    "GSE96583_batch2.total.tsne.df.tsv.gz",
    "GSE96583_genes.txt.gz",
)
LANE = remote("GSM2560248_2.1.mtx.gz", "GSM2560248_barcodes.tsv.gz")
OTHER = remote("GSM2560249_2.2.mtx.gz", "GSM2560249_barcodes.tsv.gz")


def test_a_lane_takes_the_only_genes_table_of_its_series() -> None:
    assert chosen(choose_for_sample(LANE, [KANG[0], *KANG[3:5]], ())) == [
        "GSE96583_batch2.genes.tsv.gz",
        "GSM2560248_2.1.mtx.gz",
        "GSM2560248_barcodes.tsv.gz",
    ]


def test_several_genes_tables_are_not_guessed_among() -> None:
    with pytest.raises(ChoiceError, match=r"batch1\.genes.*batch2\.genes.*GSE96583_genes.*column files"):
        choose_for_sample(LANE, KANG, ())
    expected = ["GSE96583_batch2.genes.tsv.gz", "GSM2560248_2.1.mtx.gz", "GSM2560248_barcodes.tsv.gz"]
    assert chosen(choose_for_sample(LANE, KANG, ("*batch2.genes*",))) == expected
    assert chosen(choose_for_sample(LANE, KANG, ("GSM2560248_*", "*batch2.genes*"))) == expected


def test_a_dense_matrix_needs_no_companions() -> None:
    assert chosen(choose_for_sample(remote("GSM1_x.csv.gz"), KANG, ())) == ["GSM1_x.csv.gz"]
    assert companions(remote("GSM1_x.h5"), KANG) == []


def test_patterns_choose_among_own_files() -> None:
    own = remote("GSM1_rna.csv.gz", "GSM1_adt.csv.gz", "GSM1_s.tar.gz")
    assert chosen(choose_for_sample(own, [], ("*rna*",))) == ["GSM1_rna.csv.gz"]
    assert chosen(choose_for_sample(own, [], ("*inside/matrix*",))) == ["GSM1_s.tar.gz"]  # looked for in the archive
    with pytest.raises(ChoiceError, match=r"no file fits \*hto\*; there are GSM1_rna\.csv\.gz"):
        choose_for_sample(own[:1], [], ("*hto*",))


def test_a_sample_without_files_falls_back_to_its_series() -> None:
    assert chosen(choose_for_sample([], remote("GSE1_all.csv.gz", "GSE1_metadata.csv.gz"), ())) == ["GSE1_all.csv.gz"]
    with pytest.raises(ChoiceError, match=r"a\.csv, GSE1_b\.csv"):
        choose_for_sample([], remote("GSE1_a.csv", "GSE1_b.csv"), ())
    assert chosen(choose_for_sample([], remote("GSE1_a.csv", "GSE1_b.csv"), ("*_b*",))) == ["GSE1_b.csv"]


def test_a_series_with_one_matrix_is_unambiguous() -> None:
    triplet = remote("GSE1_matrix.mtx.gz", "GSE1_genes.tsv.gz", "GSE1_barcodes.tsv.gz", "GSE1_annotation.csv")
    assert chosen(choose_for_series(triplet, [], (), ())) == chosen(triplet[:3])
    assert chosen(choose_for_series([KANG[0], KANG[3]], LANE, (), ())) == chosen([KANG[3], *LANE])


def test_a_series_with_several_matrices_needs_a_name_or_a_pattern() -> None:
    own, members = [KANG[0], KANG[3]], [*LANE, *OTHER]
    with pytest.raises(ChoiceError, match=r"GSM2560248_2\.1\.mtx\.gz, GSM2560249_2\.2\.mtx\.gz\. Say in column files"):
        choose_for_series(own, members, (), ())
    expected = chosen([*OTHER, KANG[3]])
    assert chosen(choose_for_series(own, members, (), ("GSM2560249",))) == expected
    assert chosen(choose_for_series(own, members, ("GSM2560249_*",), ())) == expected
    assert chosen(choose_for_series(own, members, ("*_2.2.mtx.gz",), ())) == expected  # its barcodes come along
    with pytest.raises(ChoiceError, match="matrices of several samples"):
        choose_for_series(own, members, ("*.mtx.gz",), ())
    both = choose_for_series(own, members, ("*_2.1.mtx.gz", "*_2.2.mtx.gz"), ())
    assert {"GSM2560248_2.1.mtx.gz", "GSM2560249_2.2.mtx.gz"} <= set(chosen(both))
    with pytest.raises(ChoiceError, match="no file fits"):
        choose_for_series([KANG[3]], members, ("GSM7_*",), ())


def test_the_raw_archive_is_the_last_resort() -> None:
    raw = [KANG[0]]
    assert choose_for_series(raw, [], ("GSM1_*",), ()) == raw
    assert choose_for_series(raw, [], (), ()) == raw
    assert KANG[0] not in choose_for_series([*raw, KANG[3]], LANE, (), ())


def test_patterns() -> None:
    assert split_patterns(" a*, ,b?.gz ") == ("a*", "b?.gz")
    assert matches("dir/x.csv", ["x.*"]) and matches("dir/x.csv", ["dir/*"]) and not matches("dir/x.csv", ["X.*"])


def test_names_that_hold_no_counts_are_left_unless_there_is_nothing_else() -> None:
    assert counts_names(["a.csv", "d/genes.tsv", "metadata.csv", "a.bam"]) == ["a.csv", "d/genes.tsv"]
    assert counts_names(["clusters.csv", "a.bam"]) == ["clusters.csv"]
    assert counts_names(["a.bam"]) == []


def test_long_lists_are_cut() -> None:
    assert list_names(f"{i:02}" for i in range(20)).endswith("11 and 8 more")
    assert list_names([]) == "no files"
