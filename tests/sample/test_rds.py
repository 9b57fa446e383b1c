"""R files: every kind of object gives the matrix that R put in, and what is none is refused in words.

The files in data/r were written by data/make_rds.R; where R is installed they are written anew and compared too.
"""

from __future__ import annotations

import gzip
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from immunomod.errors import UserError
from immunomod.sample.readers import r_objects
from immunomod.sample.readers.counts import ReadingSettings, integer_counts
from immunomod.sample.readers.library import LibraryCounts, LibraryFiles
from immunomod.sample.readers.rds import RDS
from immunomod.sample.readers.sniff import Kind, sniff

DATA = Path(__file__).parent / "data"
SYMBOLS = ["ACTB", "GAPDH", "CD3D", "MT-CO1", "B2M", "LYZ", "COL1A1", "IDO1", "CD74", "NKG7", "RPL3", "HBB"]
IDS = [f"ENSG{number:011d}" for number in range(1, 13)]
CELLS = [f"AAACCTGAGAAA{end}-1" for end in ("CC", "CG", "CT", "GA", "GC", "GG", "GT")]


def expected() -> pd.DataFrame:
    """The counts that make_rds.R puts into every object: cells x genes."""
    rows = [[(5 * g + 3 * c) % 7 if (g + c) % 2 == 0 else 0 for g in range(12)] for c in range(7)]
    return pd.DataFrame(rows, index=CELLS, columns=SYMBOLS)


def read(path: Path) -> LibraryCounts:
    file = sniff(path)
    files = LibraryFiles("S1", own=(file,))
    assert RDS.recognise(files) == [file]
    library = RDS.run(file, files)
    head = RDS.peek(file, files)
    assert (head.n_cells, head.n_features) == library.matrix.shape
    assert list(head.barcodes) == list(library.barcodes)
    pd.testing.assert_frame_equal(head.features, library.features)
    assert head.decisions == library.decisions
    return library


def refusal(path: Path) -> str:
    file = sniff(path)
    assert file.kind is Kind.R_OBJECT
    with pytest.raises(UserError) as refused:
        RDS.run(file, LibraryFiles("S1", own=(file,)))
    assert str(path) in str(refused.value)
    return str(refused.value)


@pytest.fixture(scope="session")
def r_packages(tmp_path_factory):
    """R with the packages that make_rds.R needs."""
    if shutil.which("Rscript") is None:
        pytest.skip("needs R, which is not installed")
    names = ("Matrix", "SeuratObject", "SingleCellExperiment")
    test = " && ".join(f"requireNamespace('{name}', quietly = TRUE)" for name in names)
    if subprocess.run(["Rscript", "-e", f"q(status = !({test}))"], capture_output=True).returncode:
        pytest.skip(f"needs the R packages {', '.join(names)}")


@pytest.fixture(scope="session")
def made_now(r_packages, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("r")
    subprocess.run(["Rscript", DATA / "make_rds.R", folder], check=True, capture_output=True)
    return folder


SAME = {
    "dgCMatrix.rds": [],
    "plain_file.rds": [],
    "bzip2.rds": [],
    "xz.rds": [],
    "version2.rds": [],
    "text.rds": [],
    "native.rds": [],
    "dgTMatrix.rds": [],
    "dgRMatrix.rds": [],
    "dgeMatrix.rds": [],
    "double.rds": [],
    "integer.rds": [],
    "data_frame.rds": [],
    "data_frame_column.rds": [],
    "transposed.rds": ["the matrix is cells x genes (its names say so)"],
    "one_matrix.RData": ["objects not used: note"],
    "text.RData": ["objects not used: note"],
    "list_of_one.rds": [],
    "seurat2.rds": ["Seurat object, version 2"],
    "seurat4.rds": ["Seurat object, Assay RNA", "assays not read: ADT"],
    "seurat5.rds": ["Seurat object, Assay5 RNA"],
    "sce.rds": ["SingleCellExperiment object"],
    "sce_ids.rds": ["SingleCellExperiment object"],
    "sce_barcode_column.rds": ["SingleCellExperiment object"],
    "summarized_experiment.rds": ["SummarizedExperiment object"],
}


def assert_expected(name: str, path: Path) -> None:
    library = read(path)
    np.testing.assert_array_equal(library.matrix.toarray(), expected().to_numpy())
    assert library.matrix.dtype == np.int32
    assert list(library.barcodes) == CELLS
    with_ids = name in ("sce_ids.rds", "sce_barcode_column.rds")
    assert list(library.features["gene_symbol"]) == SYMBOLS
    assert list(library.features["gene_id"]) == (IDS if with_ids else [""] * 12)
    assert library.decisions[:-1] == SAME[name]
    assert library.decisions[-1].startswith("counts taken from ")


@pytest.mark.parametrize("name", SAME)
def test_objects_written_by_r(name):
    assert_expected(name, DATA / "r" / name)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAME)
def test_objects_that_this_machines_r_writes(name, made_now):
    assert_expected(name, made_now / name)


def test_feature_types_of_droplet_utils():
    assert set(read(DATA / "r" / "sce_ids.rds").features["feature_type"]) == {"Gene Expression"}


def test_split_layers_of_seurat_5_are_joined_by_cell_and_gene():
    library = read(DATA / "r" / "seurat5_split.rds")
    found = pd.DataFrame(library.matrix.toarray(), index=library.barcodes, columns=library.features["gene_symbol"])
    want = expected()
    want.loc[[CELLS[i] for i in (1, 3, 5, 6)], [SYMBOLS[4], SYMBOLS[8]]] = 0
    assert list(found.index) == [CELLS[i] for i in (0, 2, 4, 1, 3, 5, 6)]
    pd.testing.assert_frame_equal(found.loc[CELLS, SYMBOLS], want, check_names=False, check_dtype=False)
    assert library.decisions[-1] == "counts taken from assays$RNA layers counts.1, counts.2"


def test_cells_without_names_are_numbered():
    library = read(DATA / "r" / "no_cells.rds")
    assert list(library.barcodes) == [f"cell{i}" for i in range(1, 8)]
    assert library.decisions[0] == "the cells have no names in the file: numbered"


def test_missing_values_are_named_by_gene_and_cell():
    library = read(DATA / "r" / "missing.rds")
    with pytest.raises(UserError, match=f"nan for GAPDH in cell {CELLS[2]}"):
        integer_counts(library, "x", ReadingSettings())


def test_fractions_are_left_to_the_check_of_counts():
    library = read(DATA / "r" / "fractions.rds")
    with pytest.raises(UserError, match="round_fractions"):
        integer_counts(library, "x", ReadingSettings())
    integer_counts(library, "x", ReadingSettings(round_fractions=True))
    np.testing.assert_array_equal(library.matrix.toarray(), expected().to_numpy())


LOGGED = "log1p of counts scaled to 1e+04 per cell"
REFUSED = {
    "logged.rds": ("no raw counts in the matrix", LOGGED, "DropletUtils::write10xCounts("),
    "seurat4_data_only.rds": ("no raw counts in assays$RNA@data", LOGGED, "x@assays$RNA@counts"),
    "sce_logged.rds": ("no raw counts in assay logcounts", LOGGED),
    "seurat4_no_rna.rds": ("assays SCT, ADT and none is called RNA",),
    "seurat5_on_disk.rds": ("RenameDims (package BPCells), which keeps its values in another file", "JoinLayers"),
    "delayed.rds": ("DelayedMatrix (package DelayedArray), which keeps its values in another file",),
    "two_matrices.RData": ("several matrices: counts (dgCMatrix (package Matrix)), logged (", "saveRDS("),
    "list_of_two.rds": ("several matrices: a (dgCMatrix (package Matrix)), b (",),
    "no_names.rds": ("no names of genes",),
    "function.rds": ("found a function",),
    "environment.rds": ("found an environment",),
    "sequence.rds": ("found 10 numbers",),
    "model.rds": ("found lm",),
    "letters.rds": ("found texts",),
    "raw.rds": ("found RAW",),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_matrix_of_counts_is_refused_in_words(name):
    message = refusal(DATA / "r" / name)
    for words in REFUSED[name]:
        assert words in message


def test_every_file_is_tested_and_small():
    tested = {*SAME, *REFUSED, "seurat5_split.rds", "no_cells.rds", "missing.rds", "fractions.rds"}
    assert {path.name for path in (DATA / "r").iterdir()} == tested
    assert max(path.stat().st_size for path in (DATA / "r").iterdir()) < 20_000


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dgCMatrix", "dgTMatrix", "matrix", "seurat", "data.frame"])
def test_random_counts_agree_with_what_r_prints(kind, r_packages, tmp_path):
    make = {
        "dgCMatrix": "x",
        "dgTMatrix": "as(x, 'TsparseMatrix')",
        "matrix": "as.matrix(x)",
        "seurat": "suppressWarnings(SeuratObject::CreateSeuratObject(x))",
        "data.frame": "data.frame(as.matrix(x), check.names = FALSE)",
    }[kind]
    script = f"""
      set.seed(7); suppressMessages(library(Matrix))
      x <- rsparsematrix(400, 90, 0.2, rand.x = function(n) rpois(n, 3) + 1 + (runif(n) < 0.01) * 5e6)
      dimnames(x) <- list(c("ACTB", "GAPDH", "caf\\u00e9", paste0("Gene", 4:400)), paste0("cell_", 1:90))
      saveRDS({make}, "x.rds"); write.csv(as.matrix(x), "x.csv")
    """
    subprocess.run(["Rscript", "-e", script], check=True, cwd=tmp_path, capture_output=True)
    library = read(tmp_path / "x.rds")
    printed = pd.read_csv(tmp_path / "x.csv", index_col=0)
    np.testing.assert_array_equal(library.matrix.toarray(), printed.T.to_numpy())
    assert list(library.barcodes) == list(printed.columns)
    assert list(library.features["gene_symbol"]) == list(printed.index)


# hostile files, written by hand: X, format version 3 would need an encoding, so 2
HEAD = b"X\n" + struct.pack(">iii", 2, 0x040202, 0x020300)
REAL, INT, STR, VEC, LIST, NULL, CHAR = 14, 13, 16, 19, 2, 254, 9


def ints(*values: int) -> bytes:
    return struct.pack(f">{len(values)}i", *values)


HOSTILE = {
    "numbers that are not there": HEAD + ints(REAL, 2**31 - 1) + b"\0" * 800,
    "a long vector that is not there": HEAD + ints(REAL, -1, 2**20, 0),
    "a negative length": HEAD + ints(REAL, -5),
    "a list that is not there": HEAD + ints(VEC, 2**31 - 1) + ints(NULL) * 10,
    "texts that are not there": HEAD + ints(STR, 2**31 - 1) + (ints(CHAR, 1) + b"a") * 10,
    "a long text": HEAD + ints(STR, 1, CHAR, 2**31 - 1),
    "a text of negative length": HEAD + ints(STR, 1, CHAR, -7),
    "lists in lists": HEAD + ints(VEC, 1) * 100_000,
    "a long pairlist": HEAD + ints(LIST, NULL) * 100_000,
    "a kind that does not exist": HEAD + ints(77),
    "a reference to nothing": HEAD + ints(0xFF + (9 << 8)),
    "an unknown version": b"X\n" + ints(3, 0, 0) + ints(2**31 - 1),
    "nothing behind the head": HEAD,
    "text that lies": b"A\n2\n262657\n131840\n14\n999999999\n1\n2\n",
    "text that ends": b"A\n2\n262657\n131840\n14\n",
    "text of no numbers": b"A\n2\n262657\n131840\n14\n2\nfoo\nbar\n",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_hostile_files_are_refused_in_words(content, packed, tmp_path):
    path = tmp_path / "a.rds"
    path.write_bytes(gzip.compress(content) if packed else content)
    limit = sys.getrecursionlimit()
    refusal(path)
    assert sys.getrecursionlimit() == limit


def test_a_bomb_of_objects_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(r_objects, "_MAX_OBJECTS", 1_000)
    path = tmp_path / "a.rds"
    path.write_bytes(gzip.compress(HEAD + ints(VEC, 5_000) + ints(NULL) * 5_000))
    assert "holds more than 1,000 objects" in refusal(path)


def test_a_bomb_of_numbers_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(r_objects, "_UNPACKED_BYTES", 1 << 16)
    path = tmp_path / "a.rds"
    path.write_bytes(gzip.compress(HEAD + ints(REAL, 200_000) + b"\0" * 1_600_000))
    assert "declares 200,000 numbers where at most" in refusal(path)


def test_a_sequence_stored_as_its_ends_may_not_expand_without_bound(tmp_path):
    """ALTREP: 10^12 numbers in a hundred bytes."""
    symbol = ints(1) + ints(CHAR, 15) + b"compact_realseq"
    info = ints(LIST) + symbol + ints(LIST) + ints(1) + ints(CHAR, 4) + b"base" + ints(LIST, INT, 1, 14, NULL)
    state = ints(REAL, 3) + struct.pack(">ddd", 1e12, 1.0, 1.0)
    (tmp_path / "a.rds").write_bytes(HEAD + ints(238) + info + state + ints(NULL))
    assert "a sequence of 1,000,000,000,000 numbers" in refusal(tmp_path / "a.rds")
    small = ints(REAL, 3) + struct.pack(">ddd", 10.0, 1.0, 1.0)
    (tmp_path / "a.rds").write_bytes(HEAD + ints(238) + info + small + ints(NULL))
    assert "found 10 numbers" in refusal(tmp_path / "a.rds")


def test_nested_lists_as_deep_as_people_make_them_are_read(tmp_path):
    path = tmp_path / "a.rds"
    path.write_bytes(HEAD + ints(VEC, 1) * 2_000 + ints(NULL))
    assert "found a list" in refusal(path)


@pytest.mark.parametrize(
    "name", ["dgCMatrix.rds", "integer.rds", "seurat4.rds", "sce_ids.rds", "seurat5.rds", "text.rds"]
)
def test_damaged_bytes_give_a_message_or_a_sound_matrix(name, tmp_path):
    with r_objects.open_bytes(DATA / "r" / name) as stream:
        whole = stream.read()
    rng = np.random.default_rng(1)
    outcomes = {"read": 0, "refused": 0}
    path = tmp_path / "a.rds"
    for turn in range(200):
        content = bytearray(whole)
        for place in rng.integers(14, len(content), size=rng.integers(1, 6)):
            content[place] = rng.integers(0, 256)
        path.write_bytes(bytes(content[: rng.integers(14, len(content)) if turn % 5 == 0 else None]))
        file = sniff(path)
        try:
            library = RDS.run(file, LibraryFiles("S1", own=(file,)))
            assert library.matrix.shape == (len(library.barcodes), len(library.features))
            library.matrix.check_format(full_check=True)
            outcomes["read"] += 1
        except UserError as error:
            assert "a.rds" in str(error)
            outcomes["refused"] += 1
    assert outcomes["read"] and outcomes["refused"], outcomes


def test_a_text_table_whose_first_line_is_a_is_no_r_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("A\nACTB\nGAPDH\n")
    assert sniff(path).kind is Kind.TABLE
