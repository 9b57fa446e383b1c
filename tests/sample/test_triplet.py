"""Triplets: which table is which, which goes with which matrix, and which way round a matrix lies."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from immunomod.errors import UserError
from immunomod.sample.readers import stream, tables
from immunomod.sample.readers.library import LibraryFiles
from immunomod.sample.readers.sniff import sniff
from immunomod.sample.readers.triplet import TRIPLET, peek_triplet, read_triplet


def library(own: list[Path], shared: list[Path] | None = None, **settings) -> LibraryFiles:
    own_files = tuple(sniff(path) for path in own)
    return LibraryFiles("S1", own_files, tuple(sniff(path) for path in shared or []), **settings)


def read(own: list[Path], shared: list[Path] | None = None, matrix: int = 0, **settings):
    """Counts of the ``matrix``-th own file; what a peek says must agree."""
    files = library(own, shared, **settings)
    counts = read_triplet(files.own[matrix], files)
    head = peek_triplet(files.own[matrix], files)
    assert (head.n_cells, head.n_features) == counts.matrix.shape
    assert list(head.barcodes) == list(counts.barcodes)
    pd.testing.assert_frame_equal(head.features, counts.features)
    assert head.used == counts.used
    return counts


def features_text(genes: pd.DataFrame) -> str:
    return "".join(f"{one.gene_id}\t{one.gene_symbol}\n" for one in genes.itertuples())


def lines(names) -> str:
    return "".join(f"{name}\n" for name in names)


OTHER = [f"{'TTGC' * 3}{a}{b}AA-1" for a in "ACGT" for b in "ACGT"][:7]

NAMES = {
    "v3": ("matrix.mtx.gz", "features.tsv.gz", "barcodes.tsv.gz"),
    "v2": ("matrix.mtx", "genes.tsv", "barcodes.tsv"),
    "prefix, underscore": ("GSM1_A_matrix.mtx.gz", "GSM1_A_features.tsv.gz", "GSM1_A_barcodes.tsv.gz"),
    "prefix, dot": ("GSM1.A.matrix.mtx.gz", "GSM1.A.genes.tsv.gz", "GSM1.A.barcodes.tsv.gz"),
    "name after the fixed name": ("matrix_A.mtx.gz", "features_A.tsv.gz", "barcodes_A.tsv.gz"),
    "name glued to the fixed name": ("matrixA.mtx.gz", "genesA.tsv.gz", "barcodesA.tsv.gz"),
    "shorter companions": ("GSM1_A_2.1.mtx.gz", "GSM1_A_genes.tsv.gz", "GSM1_A_barcodes.tsv.gz"),
    "matrix named txt": ("A_counts.txt.gz", "A_genes.txt.gz", "A_cells.txt.gz"),
    "matrix named mat": ("A.mat.gz", "A_genes.tsv.gz", "A_barcodes.tsv.gz"),
    "folders": ("A/matrix.mtx.gz", "A/features.tsv.gz", "A/barcodes.tsv.gz"),
    "folders and names": ("A/x/matrix.mtx.gz", "A/features.tsv.gz", "A/barcodes.tsv.gz"),
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_companions_are_those_named_like_the_matrix(names, triplet, put, counts, barcodes, genes):
    files = triplet(*names)
    if "A" in names[0]:
        files += triplet(*(name.replace("A", "B") for name in names))
        put(names[2].replace("A", "B"), lines(OTHER))
        other = read(files, matrix=3)
        assert list(other.barcodes) == OTHER
    found = read(files)
    assert list(found.barcodes) == barcodes
    assert list(found.features["gene_id"]) == list(genes["gene_id"])
    np.testing.assert_array_equal(found.matrix.toarray(), counts.toarray())
    assert [file.path for file in found.used] == files[:3]
    assert list(found.used.values()) == ["matrix", "features", "barcodes"]


def test_candidates_that_names_do_not_tell_apart_are_listed(triplet, put):
    files = triplet("GSM1_x.mtx.gz", "GSM1_genes.tsv.gz", "GSM1_p_barcodes.tsv.gz")
    files.append(put("GSM1_q_barcodes.tsv.gz", lines(OTHER)))
    with pytest.raises(UserError, match=r"barcodes: GSM1_p_barcodes\S+, GSM1_q_barcodes\S+; .*column `files`"):
        read(files)
    assert list(read(files, patterns=("*_q_*",)).barcodes) == OTHER


def test_candidates_that_hold_the_same_need_no_choice(triplet, put, genes):
    files = triplet("GSM1_x.mtx.gz", "GSE1_batch1.genes.tsv.gz", "GSM1_barcodes.tsv.gz")
    shared = [
        files.pop(1),
        put(
            "GSE1_batch2.genes.tsv.gz",
            "".join(f"{g.gene_id}\t{g.gene_symbol}\tGene Expression\n" for g in genes.itertuples()),
        ),
    ]
    found = read(files, shared)
    assert "hold the same" in found.decisions[0]
    put("GSE1_batch2.genes.tsv.gz", features_text(genes.iloc[::-1]))
    with pytest.raises(UserError, match="several tables could be its features: GSE1_batch1"):
        read(files, shared)


def test_own_features_win_over_shared_ones(triplet, put, genes):
    files = triplet("S1_matrix.mtx.gz", "zz.tsv.gz", "S1_barcodes.tsv.gz")
    shared = put("S1_features.tsv.gz", features_text(genes.iloc[::-1]))
    found = read(files, [shared])
    assert list(found.features["gene_symbol"]) == list(genes["gene_symbol"])


def test_barcodes_of_another_matrix_are_not_borrowed(triplet):
    files = triplet("A_matrix.mtx.gz", "features.tsv.gz", "B_barcodes.tsv.gz")
    files += triplet("B_matrix.mtx.gz", "features.tsv.gz", "B_barcodes.tsv.gz")[:1]
    with pytest.raises(UserError, match=r"A_matrix\.mtx\.gz: no barcodes table"):
        read(files)


def test_a_feature_table_named_after_another_matrix_may_be_everybodys(triplet, barcodes):
    files = triplet("A_matrix.mtx.gz", "B_features.tsv.gz", "A_barcodes.tsv.gz")
    files += triplet("B_matrix.mtx.gz", "B_features.tsv.gz", "B_barcodes.tsv.gz")[::2]
    assert list(read(files).barcodes) == barcodes


FEATURES = {
    "one column of ids": lambda g: lines(g["gene_id"]),
    "versioned, header": lambda g: "id\tname\n" + "".join(f"{i}.{n}\t{s}\n" for n, (i, s) in enumerate(g.to_numpy())),
    "torn type": lambda g: "".join(f"{i}\t{s}\tGene\tExpression\n" for i, s in g.to_numpy()),
    "torn types of several lengths": lambda g: "".join(
        f"{i}\t{s}\t{'CRISPR Guide Capture' if n < 3 else 'Gene Expression'}\n".replace(" ", "\t")
        for n, (i, s) in enumerate(g.to_numpy())
    ),
    "torn type and coordinates": lambda g: "".join(
        f"{i}\t{s}\tGene\tExpression\tchr1\t{n}\t{n + 5}\n" for n, (i, s) in enumerate(g.to_numpy())
    ),
    "seven columns and a header": lambda g: (
        "chrom\tstart\tid\tname\ttype\tp\tq\n"
        + "".join(f"chr1\t{n}\t{i}\t{s}\tGene Expression\tx\ty\n" for n, (i, s) in enumerate(g.to_numpy()))
    ),
    "row numbers and quotes, as R writes": lambda g: (
        '"","id","symbol"\n' + "".join(f'"{n}","{i}","{s}"\n' for n, (i, s) in enumerate(g.to_numpy(), 1))
    ),
    "symbols before ids": lambda g: "".join(f"{s}\t{i}\n" for i, s in g.to_numpy()),
    "byte-order mark": lambda g: "\ufeff" + features_text(g),
    "Windows line ends": lambda g: features_text(g).replace("\n", "\r\n"),
    "old Mac line ends": lambda g: features_text(g).replace("\n", "\r"),
    "no end of the last line": lambda g: features_text(g).rstrip("\n"),
}


@pytest.mark.parametrize("make", FEATURES.values(), ids=FEATURES)
def test_feature_tables(make, triplet, put, genes):
    files = triplet()
    files[1] = put("features.tsv.gz", make(genes))
    found = read(files).features
    assert [name.split(".")[0] for name in found["gene_id"]] == list(genes["gene_id"])
    if "one column" not in make(genes) and "\t" in make(genes):
        assert list(found["gene_symbol"]) == list(genes["gene_symbol"])
    if "CRISPR" in make(genes):
        assert list(found["feature_type"]) == ["CRISPR Guide Capture"] * 3 + ["Gene Expression"] * 9
    elif "Expression" in make(genes):
        assert set(found["feature_type"]) == {"Gene Expression"}


def test_dropped_columns_of_a_feature_table_are_told(triplet, put, genes):
    files = triplet()
    files[1] = put("features.tsv.gz", FEATURES["seven columns and a header"](genes))
    assert any("chrom" in sentence for sentence in read(files).decisions)


def test_a_feature_table_of_types_alone_is_named(triplet, put):
    files = triplet()
    files[1] = put("features.tsv.gz", "Gene Expression\n" * 12)
    with pytest.raises(UserError, match=r"features\.tsv\.gz: .*no genes"):
        read(files)


BARCODES = {
    "header": lambda names: "barcode\n" + lines(names),
    "R's header": lambda names: '"x"\n' + "".join(f'"{name}"\n' for name in names),
    "several columns": lambda names: "".join(f"{n}\tlane1\t{name}\n" for n, name in enumerate(names)),
    "several columns, header": lambda names: (
        "cell,barcode,n\n" + "".join(f"c{n},{name},9\n" for n, name in enumerate(names))
    ),
    "row numbers": lambda names: ",x\n" + "".join(f"{n},{name}\n" for n, name in enumerate(names, 1)),
    "blank line at the end": lambda names: lines(names) + "\n\n",
}


@pytest.mark.parametrize("make", BARCODES.values(), ids=BARCODES)
def test_barcode_tables(make, triplet, put, barcodes):
    files = triplet()
    files[2] = put("barcodes.tsv.gz", make(barcodes))
    assert list(read(files).barcodes) == barcodes


def test_names_of_cells_that_are_no_barcodes(triplet, put):
    files = triplet()
    files[2] = put("barcodes.tsv.gz", "n\tcell_name\n" + "".join(f"{n}\twell_{n}\n" for n in range(5, 12)))
    assert list(read(files).barcodes) == [f"well_{n}" for n in range(5, 12)]


def test_repeated_barcodes_are_left_to_be_refused_with_the_sheet_column(triplet, put, barcodes):
    files = triplet()
    files[2] = put("barcodes.tsv.gz", lines([*barcodes[:6], barcodes[0]]))
    assert read(files).barcodes.duplicated().sum() == 1


STRONG = ["ACTB", "B2M", "MALAT1", "TMSB4X", "RPL3", "RPS6", "FTL", "EEF1A1"]


def square(n: int = 30) -> tuple[np.ndarray, list[str], list[str]]:
    """Cells x genes, names of genes, barcodes: strong genes are strong, and the first cells are, too."""
    rng = np.random.default_rng(4)
    symbols = [f"GENE{k}" for k in range(n - len(STRONG))] + STRONG
    level = np.where(np.isin(symbols, STRONG), 8.0, 0.7)
    names = ["".join(rng.choice(list("ACGT"), 16)) + "-1" for _ in range(n)]
    return rng.poisson(level * np.linspace(2, 0.5, n)[:, None]), symbols, names


def write_square(put, matrix_market, counts, symbols, names, transposed: bool, comment: str = "") -> list[Path]:
    text = matrix_market(sparse.csr_matrix(counts if transposed else counts.T)).decode()
    banner, rest = text.split("\n", 1)
    return [
        put("matrix.mtx.gz", "\n".join([banner, *([comment] if comment else []), rest])),
        put("features.tsv.gz", lines(symbols)),
        put("barcodes.tsv.gz", lines(names)),
    ]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("prefix", ["", "hg19_"])
def test_square_matrices_are_told_by_genes_that_all_cells_express(transposed, prefix, put, matrix_market):
    counts, symbols, names = square()
    files = write_square(put, matrix_market, counts, [prefix + one for one in symbols], names, transposed)
    found = read(files)
    np.testing.assert_array_equal(found.matrix.toarray(), counts)
    assert "square" in found.decisions[0]
    assert ("transposed" in found.decisions[0]) == transposed


def test_cellrangers_comment_tells_a_square_matrix(put, matrix_market):
    counts, symbols, names = square()
    symbols = [f"GENE{k}" for k in range(len(symbols))]
    comment = '%metadata_json: {"software_version": "cellranger-6", "format_version": 2}'
    found = read(write_square(put, matrix_market, counts, symbols, names, False, comment))
    np.testing.assert_array_equal(found.matrix.toarray(), counts)
    assert "CellRanger" in found.decisions[0]


@pytest.mark.parametrize("why", ["no such genes", "not expressed"])
def test_a_square_matrix_that_nothing_tells_is_refused(why, put, matrix_market):
    counts, symbols, names = square()
    if why == "no such genes":
        symbols = [f"GENE{k}" for k in range(len(symbols))]
    else:
        counts = np.random.default_rng(0).poisson(1.0, size=counts.shape)
    files = write_square(put, matrix_market, counts, symbols, names, False)
    with pytest.raises(UserError, match=r"as many rows as columns \(30\).*%metadata_json"):
        read_triplet(library(files).own[0], library(files))


@pytest.mark.parametrize("seed", range(40))
def test_square_matrices_of_chance_are_never_turned(seed, put, matrix_market):
    """Genes of one level and random cells: either refused or right, whichever way round the file lies."""
    rng = np.random.default_rng(seed)
    counts, symbols, names = square()
    counts = rng.poisson(rng.gamma(1.0, 1.0, size=(1, 30)) * rng.gamma(2.0, 1.0, size=(30, 1)))
    files = write_square(put, matrix_market, counts, symbols, names, bool(seed % 2))
    try:
        found = read_triplet(library(files).own[0], library(files))
    except UserError:
        return
    np.testing.assert_array_equal(found.matrix.toarray(), counts)


@pytest.mark.parametrize("more", [-1, 1])
def test_nearly_square_matrices_are_told_by_headers(more, put, matrix_market):
    counts, symbols, names = square()
    wide = counts[: 30 + min(more, 0)] if more < 0 else np.vstack([counts, counts[:1]])
    cells = [*names, OTHER[0]][: len(wide)]
    for transposed in (False, True):
        files = write_square(put, matrix_market, wide, symbols, cells, transposed)
        np.testing.assert_array_equal(read(files).matrix.toarray(), wide)


def test_wide_and_long_tables_are_not_read(triplet, put, monkeypatch, barcodes):
    files = triplet()
    wide = put("dense.csv.gz", "gene," + ",".join(f"c{k}" for k in range(100)) + "\n" + ("A," + "1," * 99 + "1\n") * 12)
    long = put("meta_barcodes.tsv", lines(barcodes[0] for _ in range(300_000)))
    seen: dict[str, int] = {}

    def spy(path, block_bytes=1 << 20):
        for block in stream.read_blocks(path, block_bytes):
            seen[path.name] = seen.get(path.name, 0) + len(block)
            yield block

    monkeypatch.setattr(tables, "read_blocks", spy)
    assert list(read([*files, wide, long]).barcodes) == barcodes
    assert wide.name not in seen
    assert seen.get(long.name, 0) <= 4 << 20


def test_a_damaged_shared_table_that_is_not_needed_does_no_harm(triplet, put, barcodes):
    files = triplet()
    shared = put("GSE1_metadata.tsv.gz", lines(f"{k}\t{name}" for k, name in enumerate(OTHER * 20_000)))
    shared.write_bytes(shared.read_bytes()[:-3000])
    assert list(read(files, [shared]).barcodes) == barcodes


def test_a_damaged_own_table_is_named(triplet):
    files = triplet()
    files[2].write_bytes(files[2].read_bytes()[:-9])
    with pytest.raises(UserError, match=r"barcodes\.tsv\.gz: .*(truncated|corrupt)"):
        read(files)


def test_one_dimension_without_a_table(triplet, put):
    files = triplet()
    files[2] = put("barcodes.tsv.gz", lines(f"{'ACGT' * 4}-{k}" for k in range(12)))
    with pytest.raises(UserError, match="fit the same dimension"):
        peek_triplet(library(files).own[0], library(files))


def test_peek_reads_no_counts(triplet):
    files = triplet()
    text = gzip.decompress(files[0].read_bytes())
    files[0].write_bytes(gzip.compress(text[: len(text) // 2]))
    head = TRIPLET.peek(library(files).own[0], library(files))
    assert (head.n_cells, head.n_features) == (7, 12)
