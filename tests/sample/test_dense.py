"""Dense text tables: which axis, which columns, which names; every malformed table one message."""

from __future__ import annotations

import csv
import gzip
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from immunomod.errors import UserError
from immunomod.sample.readers.dense import ANTIBODY, DENSE
from immunomod.sample.readers.dense_columns import describes_cells, is_summary
from immunomod.sample.readers.features import GENE_EXPRESSION
from immunomod.sample.readers.library import LibraryFiles
from immunomod.sample.readers.sniff import sniff

GENES = ["ACTB", "GAPDH", "CD3D", "B2M", "LYZ", "COL1A1", "IDO1", "CD74", "NKG7", "RPL3"]
IDS = [f"ENSG{number:011d}.{number % 3 + 1}" for number in range(1, 11)]
CELLS = ["AAACCTGAGAAACCAT-1", "AAACCTGAGAAACCGC-1", "AAACCTGAGAAACCTA-1", "AAACCTGAGAAACGAG-1"]
COUNTS = np.random.default_rng(5).poisson(1.5, size=(10, 4)) * np.array([1, 1, 300, 1])


def files_of(path, cells=()):
    return LibraryFiles("S", (sniff(path),), cells=tuple(cells))


def read(path, cells=()):
    files = files_of(path, cells)
    assert DENSE.recognise(files) == list(files.own)
    return DENSE.run(files.own[0], files)


def peek(path, cells=()):
    files = files_of(path, cells)
    return DENSE.peek(files.own[0], files)


def table(names=GENES, cells=CELLS, counts=COUNTS, label="gene"):
    """A frame of genes x cells whose first column names the genes."""
    frame = pd.DataFrame(counts, columns=cells)
    frame.insert(0, label, names)
    return frame


def with_columns(frame, place, **columns):
    for number, (name, values) in enumerate(columns.items()):
        frame.insert(place + number, name, values)
    return frame


def write(put, frame, name="GSM1_x.tsv", sep="\t"):
    return put(name, frame.to_csv(sep=sep, index=False))


def assert_counts(library, cells=CELLS, names=GENES, counts=COUNTS):
    assert list(library.barcodes) == list(cells)
    assert list(library.features["gene_symbol"]) == list(names)
    assert library.matrix.dtype == np.int32
    assert library.matrix.has_canonical_format
    np.testing.assert_array_equal(library.matrix.toarray(), np.asarray(counts).T)


# ------------------------------------------------------------------------------------------ annotation columns

LENGTHS = np.arange(900, 1900, 100)
ANNOTATION = {
    "length": {"Length": LENGTHS},
    "featureCounts": {
        "Chr": ["chr1", "2", *["X"] * 8],
        "Start": LENGTHS,
        "End": LENGTHS + 50,
        "Strand": ["+", "-"] * 5,
        "Length": LENGTHS,
    },
    "biomart": {
        "Chromosome/scaffold name": range(1, 11),
        "Gene start (bp)": LENGTHS,
        "Gene end (bp)": LENGTHS,
        "Gene % GC content": [41.5] * 10,
        "Gene type": ["protein_coding"] * 10,
    },
    "entrez": {"entrezgene_id": [60, 2597, 915, 567, 4069, 1277, 3620, 972, 4818, 6122]},
    "totals": {"n_cells": [4] * 10, "total_counts": LENGTHS, "mean": [0.5] * 10},
    "description": {"description": [f"a long, long name {i}" for i in range(10)]},
    "accession": {"accession": [f"NM_{i:06d}" for i in range(10)]},
    "strand as numbers": {"strand": [1, -1] * 5},
}


@pytest.mark.parametrize("place", [1, 5], ids=["before", "behind"])
@pytest.mark.parametrize("columns", ANNOTATION.values(), ids=ANNOTATION)
def test_annotation_beside_the_counts_is_no_cell(columns, place, put):
    frame = with_columns(table(), place, **columns)
    library = read(write(put, frame))
    assert_counts(library)
    note = next(one for one in library.decisions if "dropped" in one)
    assert f"dropped {len(columns)} columns that are no counts" in note
    assert all(name in note for name in columns)


@pytest.mark.parametrize("order", [["id", "symbol"], ["symbol", "id"], ["id", "accession", "symbol", "biotype"]])
def test_ids_and_symbols_are_both_kept(order, put):
    names = {
        "id": IDS,
        "symbol": GENES,
        "accession": [f"NM_{i:06d}" for i in range(10)],
        "biotype": ["protein_coding"] * 10,
    }
    frame = with_columns(table().drop(columns="gene"), 0, **{name: names[name] for name in order})
    library = read(write(put, frame))
    assert_counts(library)
    assert list(library.features["gene_id"]) == IDS


def test_a_column_of_row_numbers_before_the_genes(put):
    frame = with_columns(table(), 0, **{"": range(10)})
    library = read(write(put, frame, sep=","))
    assert_counts(library)
    assert "numbers of the rows" in library.decisions[-1]


def test_a_column_that_may_be_a_cell_is_never_guessed_at(put):
    path = write(put, with_columns(table(), 1, Bulk=LENGTHS))
    with pytest.raises(UserError, match=r"GSM1_x.tsv: 'Bulk' may be cells or annotation; .*column `barcodes` \(\*"):
        read(path)
    with pytest.raises(UserError, match="'Bulk' may be cells"):
        peek(path)
    assert_counts(read(path, cells=["AAAC*"]))
    whole = read(path, cells=["*"])
    assert_counts(whole, cells=["Bulk", *CELLS], counts=np.column_stack([LENGTHS, COUNTS]))


def test_a_pattern_makes_a_cell_of_a_column_named_like_annotation(put):
    cells = ["total", "mean", "sum"]
    path = write(put, table(cells=cells, counts=COUNTS[:, :3]))
    assert DENSE.recognise(files_of(path)) == []
    library = DENSE.run(sniff(path), files_of(path, ["total", "mean", "su?"]))
    assert_counts(library, cells=cells, counts=COUNTS[:, :3])


def test_other_libraries_cells_are_left_to_the_selection_of_cells(put):
    cells = ["D1_AAACCTGAGAAACCAT", "D1_AAACCTGAGAAACCGC", "D2_AAACCTGAGAAACCTA", "D2_AAACCTGAGAAACGAG"]
    assert_counts(read(write(put, table(cells=cells)), cells=["D1_*"]), cells=cells)


def test_fractions_beside_whole_numbers_are_no_cell(put):
    library = read(write(put, with_columns(table(), 1, silhouette=LENGTHS / 7)))
    assert_counts(library)
    assert "silhouette (fractions where the others hold whole numbers)" in library.decisions[-1]


def test_cells_of_any_making_are_kept(put):
    cells = ["LPS1h_S1", "Unstim-S2", "cell 3", "T;x"]
    assert_counts(read(write(put, table(cells=cells))), cells=cells)


def test_numbered_cells(put):
    assert_counts(read(write(put, table(cells=["1", "2", "3", "4"]))), cells=["1", "2", "3", "4"])


CELL_ANNOTATION = {
    "cluster": [1, 2, 1, 3],
    "sample": ["a", "a", "b", "b"],
    "nUMI": [5123, 6123, 7123, 8123],
    "percent.mito": [0.1, 0.2, 0.05, 0.3],
    "nCount_RNA": [1, 2, 3, 4],
    "tSNE_1": [-1.5, 2.25, 0.1, 3.0],
    "RNA_snn_res.0.8": [0, 1, 2, 3],
    "seurat_clusters": [0, 1, 2, 3],
}


@pytest.mark.parametrize("place", [1, 11], ids=["before", "behind"])
def test_annotation_of_cells_beside_their_genes(place, put):
    frame = pd.DataFrame(COUNTS.T, columns=GENES)
    frame.insert(0, "cell", CELLS)
    library = read(write(put, with_columns(frame, place, **CELL_ANNOTATION)))
    assert_counts(library)
    note = next(one for one in library.decisions if "dropped" in one)
    assert "dropped 8 columns" in note


def test_the_cells_are_named_by_the_text_that_is_unique(put):
    frame = pd.DataFrame(COUNTS.T, columns=GENES)
    frame = with_columns(frame, 0, sample=["a", "a", "b", "b"], barcode=CELLS)
    assert_counts(read(write(put, frame)))


def test_genes_named_like_annotation_are_genes(put):
    genes = ["ACTB", "B2M", "MAX", "GC", "PRPF8", "PHB", "ICA1", "PROP1", "SUMO1", "PCTP"]
    frame = pd.DataFrame(COUNTS.T, columns=genes)
    frame.insert(0, "", CELLS)
    assert_counts(read(write(put, frame)), names=genes)
    assert_counts(read(write(put, table(names=genes))), names=genes)


def test_no_current_symbol_is_taken_for_a_description(repository):
    for path in (repository / "resources" / "genes").glob("*.tsv.gz"):
        frame = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, comment="#")
        for column in [name for name in frame.columns if "symbol" in name]:
            names = {name for field in frame[column] for name in field.split("|") if name}
            assert {name for name in names if is_summary(name)} == set()
            if column == "symbol":
                assert {name for name in names if describes_cells(name)} == set()


SUMMARIES = {
    "STAR": ["N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous"],
    "htseq": ["__no_feature", "__ambiguous", "__too_low_aQual", "__not_aligned", "__alignment_not_unique"],
    "old htseq": ["no_feature", "ambiguous", "too_low_aQual", "not_aligned", "alignment_not_unique"],
}


@pytest.mark.parametrize("names", SUMMARIES.values(), ids=SUMMARIES)
@pytest.mark.parametrize("orientation", ["genes x cells", "cells x genes"])
def test_summaries_of_read_counters_are_no_genes(names, orientation, put):
    counts = np.vstack([COUNTS[:5], np.full((len(names), 4), 777), COUNTS[5:]])
    frame = table(names=[*GENES[:5], *names, *GENES[5:]], counts=counts)
    if orientation == "cells x genes":
        frame = frame.set_index("gene").T.reset_index(names="cell")
    library = read(write(put, frame))
    assert_counts(library)
    assert any(f"dropped {len(names)} " in one and names[0] in one for one in library.decisions)


def test_rows_that_describe_cells_are_no_genes(put):
    counts = np.vstack([np.full((2, 4), 9), COUNTS])
    library = read(write(put, table(names=["nUMI", "cluster", *GENES], counts=counts)))
    assert_counts(library)
    assert any("dropped 2 rows" in one and "nUMI, cluster" in one for one in library.decisions)


# ------------------------------------------------------------------------------------------ header and shape

SHAPES = {
    "short header": lambda t: t.removeprefix("gene,"),
    "empty first name": lambda t: t.removeprefix("gene"),
    "quoted": lambda t: "\n".join(",".join(f'"{f}"' for f in line.split(",")) for line in t.splitlines()),
    "trailing delimiter in the header": lambda t: t.replace("\n", ",\n", 1),
    "trailing delimiter in the rows": lambda t: "".join(
        line + (",\n" if number else "\n") for number, line in enumerate(t.splitlines())
    ),
    "trailing delimiters everywhere": lambda t: t.replace("\n", ",,\n"),
    "short header and trailing delimiters": lambda t: t.removeprefix("gene,").replace("\n", ",\n"),
    "byte-order mark": lambda t: "\ufeff" + t,
    "comments": lambda t: "# counts, by hand\n% of, four, cells\n\n" + t,
    "many comments": lambda t: "# line\n" * 500 + t,
    "commented header": lambda t: "## counts\n#" + t,
    "title": lambda t: "Table S1: counts\n\n" + t,
    "empty lines": lambda t: t.replace("\n", "\n\n"),
    "empty rows at the end": lambda t: t + ",,,,\n,,,,\n",
    "no last line end": lambda t: t.rstrip("\n"),
    "CRLF": lambda t: t.replace("\n", "\r\n"),
    "CR": lambda t: t.replace("\n", "\r"),
    "CR CR LF": lambda t: t.replace("\n", "\r\r\n"),
    "decimals": lambda t: "\n".join(
        [
            t.splitlines()[0],
            *(",".join([g, *(f"{v}.0" for v in vs)]) for g, *vs in (r.split(",") for r in t.splitlines()[1:])),
        ]
    ),
}


@pytest.mark.parametrize("change", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("packed", ["", ".gz"], ids=["plain", "gzip"])
def test_shapes_of_header_and_lines(change, packed, put):
    text = change(table().to_csv(index=False))
    path = put(f"GSM1_x.csv{packed}", text)
    assert_counts(read(path))
    head = peek(path)
    assert (head.n_cells, head.n_features) == (4, 10)
    assert list(head.barcodes) == CELLS
    assert list(head.features["gene_symbol"]) == GENES


def test_names_are_kept_exactly(put):
    genes = ["ACTB", "GAPDH", "007", "1e3", "NA", " a b ", "gene,1", 'the "x"', "NaN", "1-Mar"]
    cells = ["1E5", "D1,a", 'q"q', "é "]
    path = put("m.csv", table(names=genes, cells=cells).to_csv(index=False))
    assert_counts(read(path), names=genes, cells=cells)


def test_spaces_of_any_number(put):
    lines = [
        " ".join(CELLS),
        *("   ".join([f"{g:<9}", *map(str, r)]) + "  " for g, r in zip(GENES, COUNTS, strict=True)),
    ]
    assert_counts(read(put("m.txt", "\n".join(lines))))


def test_two_cells_are_a_matrix(put):
    assert_counts(read(write(put, table(cells=CELLS[:2], counts=COUNTS[:, :2]))), cells=CELLS[:2], counts=COUNTS[:, :2])


def test_a_header_longer_than_the_sniffers_look(put):
    rng = np.random.default_rng(1)
    cells = [f"experiment_of_2019_plate_{i:05d}_AAACCTGAGAAACCAT" for i in range(5000)]
    counts = rng.poisson(0.2, size=(10, 5000))
    path = write(put, table(cells=cells, counts=counts), "m.csv.gz", sep=",")
    assert len(sniff(path).lines) < 2
    assert_counts(read(path), cells=cells, counts=counts)
    assert peek(path).n_cells == 5000


def test_peek_of_a_table_too_large_to_look_through(put, monkeypatch):
    monkeypatch.setattr("immunomod.sample.readers.dense.PEEK_BYTES", 10)
    head = peek(write(put, table()))
    assert (head.n_cells, head.n_features, head.features) == (4, None, None)
    assert list(head.barcodes) == CELLS
    frame = pd.DataFrame(COUNTS.T, columns=GENES)
    frame.insert(0, "cell", CELLS)
    head = peek(write(put, frame, "n.tsv"))
    assert (head.n_cells, head.n_features) == (None, 10)
    assert list(head.features["gene_symbol"]) == GENES


# ------------------------------------------------------------------------------------------ axes


def test_axes_that_names_do_not_tell(put):
    frame = table(names=[f"r{i}" for i in range(10)], cells=["s1", "s2", "s3", "s4"])
    path = write(put, frame)
    with pytest.raises(UserError, match=r"neither rows \(r0, r1, r2, ...\) nor columns \(s1, s2, s3, ...\)"):
        read(path)
    with pytest.raises(UserError, match="neither rows"):
        peek(path)
    assert_counts(read(path, cells=["s*"]), cells=["s1", "s2", "s3", "s4"], names=[f"r{i}" for i in range(10)])
    library = read(path, cells=["r*"])
    assert list(library.barcodes) == [f"r{i}" for i in range(10)]
    np.testing.assert_array_equal(library.matrix.toarray(), COUNTS)


def test_genes_on_both_axes_are_refused(put):
    path = write(put, table(cells=["ACTB", "B2M", "GAPDH", "CD74"]))
    with pytest.raises(UserError, match="neither rows"):
        DENSE.run(sniff(path), files_of(path))


@pytest.mark.parametrize("genes_are_rows", [True, False])
def test_versioned_ids_tell_the_axis(genes_are_rows, put):
    frame = table(names=IDS, cells=["a1", "a2", "b1", "b2"])
    if not genes_are_rows:
        frame = frame.set_index("gene").T.reset_index()
    assert_counts(read(write(put, frame)), cells=["a1", "a2", "b1", "b2"], names=IDS)


# ------------------------------------------------------------------------------------------ antibodies

ADT = ["CD11b.IH", "I.A.I.E.IHM", "PE.IH", "APC.IH"]


def test_a_table_of_antibodies_is_told_by_its_names(put):
    library = read(write(put, table(names=ADT, counts=COUNTS[:4]), "GSM1_x.csv", sep=","))
    assert set(library.features["feature_type"]) == {ANTIBODY}
    assert_counts(library, names=ADT, counts=COUNTS[:4])
    assert any("none is a known gene" in one for one in library.decisions)


def test_a_file_named_after_antibodies_holds_them(put):
    names = ["CD4", "CD19", "ACTB", "B2M"]
    library = read(write(put, table(names=names, counts=COUNTS[:4]), "GSM1_wt_adt.csv", sep=","))
    assert set(library.features["feature_type"]) == {ANTIBODY}
    library = read(write(put, table(names=names, counts=COUNTS[:4]), "GSM1_wt.csv", sep=","))
    assert set(library.features["feature_type"]) == {""}


def test_hashtags_among_genes_are_marked_by_their_names(put):
    names = [*GENES[:6], "HTO1", "ADT_CD3", "CD4-TGTTCCCGCTCAACT", "CD19_protein"]
    library = read(write(put, table(names=names)))
    assert list(library.features["feature_type"]) == [GENE_EXPRESSION] * 6 + [ANTIBODY] * 4


def test_genes_are_not_taken_for_antibodies(put):
    names = ["ACTB", "B2M", "AB033515", "IGHG1", "CMOS", "HTOL", "ABCA1", "ADTRP", "CITED2", "PROTEIN1"]
    assert set(read(write(put, table(names=names))).features["feature_type"]) == {""}


# ------------------------------------------------------------------------------------------ what is no matrix

OTHERS = {
    "markers": "p_val,avg_logFC,pct.1,pct.2,p_val_adj,cluster,gene\n"
    + "".join(f"0.001,1.5,0.{i},0.2,0.01,{i},{gene}\n" for i, gene in enumerate(GENES)),
    "differential expression": "gene\tbaseMean\tlog2FoldChange\tlfcSE\tstat\tpvalue\tpadj\n"
    + "".join(f"{gene}\t{i}.5\t0.1\t0.2\t3.1\t0.01\t0.1\n" for i, gene in enumerate(GENES)),
    "cells": "cell,sample,nUMI,nGene,percent_mito,cell_type\n" + "".join(f"{c},D0,5000,2000,0.01,T\n" for c in CELLS),
    "embedding": "cell,tSNE_1,tSNE_2,cluster\n" + "".join(f"{c},1.5,{i},3\n" for i, c in enumerate(CELLS)),
    "scores": "cell,alpha,beta\n" + "".join(f"{c},1.5,-0.{i}\n" for i, c in enumerate(CELLS)),
    "barcodes": "".join(f"{c}\n" for c in CELLS),
    "features": "".join(f"{i}\t{g}\tGene Expression\n" for i, g in zip(IDS, GENES, strict=True)),
    "features with coordinates": "".join(
        f"{i}\t{g}\tGene Expression\tchr1\t{n}00\t{n}50\n" for n, (i, g) in enumerate(zip(IDS, GENES, strict=True))
    ),
    "genes": "".join(f"{gene}\n" for gene in GENES),
    "prose": "These are the counts, of cells.\nThey were made by hand, in 2019, by us.\n",
    "one line": "gene,a,b,c\n",
}


@pytest.mark.parametrize("text", OTHERS.values(), ids=OTHERS)
def test_other_tables_are_not_claimed(text, put):
    assert DENSE.recognise(files_of(put("GSM1_x.txt", text))) == []


def test_one_number_a_gene_is_refused_in_words(put):
    path = write(put, table(cells=["x"], counts=COUNTS[:, :1]))
    with pytest.raises(UserError, match="holds one number a gene: a bulk sample, or one cell in a file of its own"):
        read(path)
    matrix = sniff(write(put, table(), "m.tsv"))
    assert DENSE.recognise(LibraryFiles("S", (sniff(path), matrix))) == [matrix]


MISTAKES = {
    "no header": ("\n".join(f"{g},0,1,0,{i}" for i, g in enumerate(GENES)), "has no header: its first line holds"),
    "no names of rows": ("ACTB,B2M,CD74\n" + "1,0,2\n0,0,1\n1,1,1\n" * 3, "its rows have no names: the first column"),
    "unnamed cell": ("gene,c1,,c3\n" + "".join(f"{g},1,2,3\n" for g in GENES), "column 3 has numbers but no name"),
    "header too long": ("gene,c1,c2,c3,c4\n" + "".join(f"{g},1,2\n" for g in GENES), r"\(line 1\) names 5 columns"),
    "header too short": ("c1,c2\n" + "".join(f"{g},1,2,3,4\n" for g in GENES), "names 2 columns and the rows have 5"),
    "header alone": ("gene,c1,c2\n", "is no table with a header"),
    "missing value": (
        "gene,c1,c2\n" + "".join(f"{g},1,2\n" for g in GENES) + "X,NA,1\n",
        r"line 12 \(X\), column 'c1'",
    ),
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_named(text, message, put):
    path = put("m.csv", text)
    with pytest.raises(UserError, match=message) as caught:
        DENSE.run(sniff(path), files_of(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_truncated_gzip(put):
    rng = np.random.default_rng(1)
    cells = [f"AAACCTGAGAAAC{''.join(rng.choice(list('ACGT'), 6))}-{i}" for i in range(3000)]
    frame = table(names=GENES * 20, cells=cells, counts=rng.poisson(3, size=(200, 3000)))
    path = write(put, frame, "m.tsv.gz")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])
    files = files_of(path)
    assert DENSE.recognise(files) == list(files.own)
    for reader in (DENSE.run, DENSE.peek):
        with pytest.raises(UserError, match=r"m\.tsv\.gz: the compressed data are truncated or corrupt"):
            reader(files.own[0], files)


# ------------------------------------------------------------------------------------------ genuine files


def reference(path, delimiter):
    with gzip.open(path, "rt", newline="") as handle:
        header, *rows = csv.reader(handle, delimiter=delimiter)
    header = header if len(header) == len(rows[0]) else ["", *header]
    return header[1:], [row[0] for row in rows], np.array([[float(value) for value in row[1:]] for row in rows])


def test_genuine_table_with_a_short_header(shared):
    path = shared / "data" / "geo_verbatim" / "GSM3502579_AB127.txt.gz"
    cells, genes, counts = reference(path, "\t")
    assert_counts(read(path), cells=cells, names=genes, counts=counts)
    head = peek(path)
    assert (head.n_cells, head.n_features) == (192, 27_389)


def test_genuine_table_of_antibodies(shared):
    path = shared / "data" / "geo_verbatim" / "GSM3832736_wt_naive_adt.csv.gz"
    cells, names, counts = reference(path, ",")
    library = read(path)
    assert_counts(library, cells=cells, names=names, counts=counts)
    assert set(library.features["feature_type"]) == {ANTIBODY}


def test_genuine_bulk_sample_is_refused(shared):
    with pytest.raises(UserError, match="one number a gene"):
        read(shared / "data" / "geo_verbatim" / "GSM3832743_beadneg_dc1_1.csv.gz")


@pytest.mark.parametrize("name", ["GSE123392_metadata.txt", "GSE143435_metadata.csv", "features.tsv.gz"])
def test_genuine_tables_that_are_no_matrices(name, shared):
    assert DENSE.recognise(files_of(shared / "data" / "geo_verbatim" / name)) == []


# ------------------------------------------------------------------------------------------ random tables


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_random_tables_agree_with_pandas(tmp_path_factory, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n_genes, n_cells = data.draw(st.integers(4, 30)), data.draw(st.integers(2, 12))
    genes = ["ACTB", "B2M", *(f"GENE{i}" for i in range(n_genes - 2))]
    cells = ["".join(rng.choice(list("ACGT"), 12)) + f"-{i}" for i in range(n_cells)]
    counts = rng.poisson(0.8, size=(n_genes, n_cells)) * rng.choice([1, 200, 70_000], size=(n_genes, n_cells))
    frame = table(names=genes, cells=cells, counts=counts)
    for name in data.draw(st.lists(st.sampled_from(["length", "chr", "description"]), unique=True)):
        frame.insert(1, name, [f"a {i}, b" if name == "description" else i % 7 + 3 for i in range(n_genes)])
    if data.draw(st.booleans()):
        frame = table(names=genes, cells=cells, counts=counts).set_index("gene").T.reset_index(names="cell")
    path = tmp_path_factory.mktemp("t") / data.draw(st.sampled_from(["m.txt", "m.txt.gz", "m.txt.bz2", "m.txt.xz"]))
    options = {
        "sep": data.draw(st.sampled_from([",", "\t", ";"])),
        "quoting": data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC, csv.QUOTE_ALL])),
        "lineterminator": data.draw(st.sampled_from(["\n", "\r\n", "\r"])),
    }
    frame.to_csv(path, index=False, **options)
    assert_counts(read(path), cells=cells, names=genes, counts=counts)


# ------------------------------------------------------------------------------------------ memory

MEASURE = """
import resource, sys
from pathlib import Path
from immunomod.sample.readers.dense import DENSE
from immunomod.sample.readers.library import LibraryFiles
from immunomod.sample.readers.sniff import sniff
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def read(path):
    files = LibraryFiles("S", (sniff(Path(path)),))
    assert DENSE.recognise(files)
    return DENSE.run(files.own[0], files)
read(sys.argv[1])
start = peak()
library = read(sys.argv[2])
print(library.matrix.shape[0], library.matrix.shape[1], library.matrix.nnz, int(library.matrix.sum()), peak() - start)
"""


@pytest.mark.slow
@pytest.mark.parametrize("genes_are_rows", [True, False], ids=["genes x cells", "cells x genes"])
def test_a_gigabyte_is_read_in_bounded_memory(genes_are_rows, put, tmp_path):
    """1.1 GB of text and 1.1 million counts: the whole table as numbers would take 2 to 4 GB."""
    n_rows, n_columns = 22_000, 25_000
    small = write(put, table())
    rows = ["ACTB", "B2M", *(f"GENE{i}" for i in range(n_rows - 2))]
    columns = [f"{'AC' * 8}-{i}" for i in range(n_columns)]
    if not genes_are_rows:
        rows, columns = [f"{'AC' * 8}-{i}" for i in range(n_rows)], ["ACTB", "B2M", *map(str, range(n_columns - 2))]
        columns[2:] = [f"GENE{i}" for i in range(n_columns - 2)]
    zeros = ["0"] * n_columns
    path, total, size = tmp_path / "large.csv.gz", 0, 0
    with gzip.open(path, "wb", compresslevel=1) as handle:
        handle.write(",".join(["", *columns]).encode() + b"\n")
        for number, name in enumerate(rows):
            if number % 100 == 0:
                values = zeros.copy()
                places = range(number // 100, n_columns, 500)
                for place in places:
                    values[place] = str(1 + place % 9)
                line, sums = "," + ",".join(values) + "\n", sum(1 + place % 9 for place in places)
            size += handle.write((name + line).encode())
            total += sums
    assert size > 1 << 30
    output = subprocess.run(
        [sys.executable, "-c", MEASURE, small, path], check=True, capture_output=True, text=True
    ).stdout.split()
    shape = (n_columns, n_rows) if genes_are_rows else (n_rows, n_columns)
    assert tuple(map(int, output[:4])) == (*shape, 50 * n_rows, total)
    assert float(output[4]) < 200  # MB; the result takes 9
