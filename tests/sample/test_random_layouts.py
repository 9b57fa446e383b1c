"""Random libraries in random layouts are read exactly, and damaged text never gives a wrong matrix or a traceback."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from immunomod.errors import UserError
from immunomod.sample.read import read_sample
from support.layouts import HUMAN, gene_pairs, make_barcodes, market, put

GENES = gene_pairs(HUMAN)
COMPRESSIONS = ["", ".gz", ".bz2", ".xz"]
LINE_ENDS = ["\n", "\r\n", "\r"]
# The same examples in every run: what CI says must not depend on luck.
FAST = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
LONG = settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@dataclass
class Library:
    counts: np.ndarray
    genes: pd.DataFrame
    barcodes: list[str]


@st.composite
def libraries(draw: st.DrawFn) -> Library:
    """1 to 12 cells, 8 to 31 known genes, counts from 0 to millions; no cell without a count."""
    n_cells, n_genes = draw(st.integers(1, 12)), draw(st.integers(8, len(GENES)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    counts = rng.poisson(draw(st.sampled_from([0.3, 2.0, 40.0])), size=(n_cells, n_genes))
    counts[:, rng.integers(n_genes)] += draw(st.sampled_from([1, 7, 65_536, 3_000_000]))
    chosen = GENES.iloc[rng.permutation(len(GENES))[:n_genes]].reset_index(drop=True)
    shape = draw(st.sampled_from([("", "-1"), ("", ""), ("D1_", ""), ("GSM1.lane2:", "-1"), ("", ".1")]))
    return Library(counts, chosen, make_barcodes(n_cells, int(rng.integers(1 << 30)), *shape))


def manifest(paths: list[Path]) -> pd.DataFrame:
    rows = [{"dataset": "D", "sample": "S1", "file": path.name, "path": str(path), "role": "counts"} for path in paths]
    return pd.DataFrame(rows).assign(url="", bytes="", sha256="", retrieved="")


def read(paths: list[Path]) -> tuple:
    names = [
        "sample",
        "dataset",
        "source",
        "condition",
        "donor",
        "organism",
        "files",
        "cells",
        "cells_lane",
        "barcodes",
    ]
    row = pd.Series(["S1", "D", "x", "a", "d", "human", "", "", "", ""], index=names)
    return read_sample(row, manifest(paths))


def assert_equals(adata: object, library: Library) -> None:
    assert list(adata.obs["barcode"]) == library.barcodes
    assert list(adata.var["gene_symbol"]) == list(library.genes["gene_symbol"])
    assert adata.X.dtype == np.int32
    np.testing.assert_array_equal(adata.X.toarray(), library.counts)


def write_triplet(draw: st.DrawFn, library: Library, folder: Path) -> list[Path]:
    """A triplet with any names, order of entries, feature table, line ends and compression."""
    end, pack = draw(st.sampled_from(LINE_ENDS)), draw(st.sampled_from(COMPRESSIONS))
    order, field = draw(st.sampled_from(["columns", "rows", "shuffled"])), draw(st.sampled_from(["integer", "real"]))
    square = library.counts.shape[0] == library.counts.shape[1]
    matrix = library.counts if not square and draw(st.booleans()) else library.counts.T
    header = "%" if not square else '%metadata_json: {"software_version": "1"}'
    ids, symbols = library.genes["gene_id"].tolist(), library.genes["gene_symbol"].tolist()
    if draw(st.booleans()):
        ids = [f"{name}.{number % 7}" for number, name in enumerate(ids)]
    columns = draw(st.sampled_from([[ids, symbols], [symbols, ids], [ids, symbols, ["Gene Expression"] * len(ids)]]))
    prefix = draw(st.sampled_from(["", "GSM1_", "GSM1.a.", "x_"]))
    texts = {
        f"{prefix}matrix.mtx": market(matrix, field, header, order),
        f"{prefix}{draw(st.sampled_from(['genes', 'features']))}.tsv": "".join(
            "\t".join(row) + "\n" for row in zip(*columns, strict=True)
        ),
        f"{prefix}barcodes.tsv": "".join(f"{name}\n" for name in library.barcodes),
    }
    return [put(folder / (name + pack), text.replace("\n", end)) for name, text in texts.items()]


def write_dense(draw: st.DrawFn, library: Library, folder: Path) -> list[Path]:
    """A dense table with any delimiter, quoting, orientation, header, line end, number format and compression."""
    delimiter = draw(st.sampled_from([",", "\t", ";"]))
    genes_are_rows = draw(st.booleans())
    rows, columns = library.genes["gene_symbol"].tolist(), library.barcodes
    values = library.counts.T
    if not genes_are_rows:
        rows, columns, values = columns, rows, library.counts
    number = {"whole": str, "decimal": lambda v: f"{v}.0", "exponent": lambda v: f"{v:.8e}"}[
        draw(st.sampled_from(["whole", "decimal", "exponent"]))
    ]
    corner = draw(st.sampled_from([[""], ["gene"], []]))
    trailing = [""] if corner and draw(st.booleans()) else []
    buffer = io.StringIO()
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    writer = csv.writer(buffer, delimiter=delimiter, quoting=quoting, lineterminator=draw(st.sampled_from(LINE_ENDS)))
    writer.writerow([*corner, *columns, *trailing])
    for name, row in zip(rows, values, strict=True):
        writer.writerow([name, *map(number, row), *trailing])
    comments = draw(st.sampled_from(["", "# made by hand\n"]))
    return [put(folder / f"counts.txt{draw(st.sampled_from(COMPRESSIONS))}", comments + buffer.getvalue())]


def check_triplet(data: st.DataObject, library: Library, folder: Path) -> None:
    paths = write_triplet(data.draw, library, folder)
    assert_equals(read(paths)[0], library)


def check_dense(data: st.DataObject, library: Library, folder: Path) -> None:
    if len(library.barcodes) < 2:  # a lone column of numbers is no single-cell matrix
        return
    paths = write_dense(data.draw, library, folder)
    assert_equals(read(paths)[0], library)


@FAST
@given(st.data(), libraries())
def test_random_triplets(tmp_path_factory, data, library):
    check_triplet(data, library, tmp_path_factory.mktemp("triplet"))


@FAST
@given(st.data(), libraries())
def test_random_dense_tables(tmp_path_factory, data, library):
    check_dense(data, library, tmp_path_factory.mktemp("dense"))


@pytest.mark.slow
@LONG
@given(st.data(), libraries())
def test_many_random_triplets(tmp_path_factory, data, library):
    check_triplet(data, library, tmp_path_factory.mktemp("triplet"))


@pytest.mark.slow
@LONG
@given(st.data(), libraries())
def test_many_random_dense_tables(tmp_path_factory, data, library):
    check_dense(data, library, tmp_path_factory.mktemp("dense"))


# ---------------------------------------------------------------------------------------------- damage


@st.composite
def damages(draw: st.DrawFn) -> list[tuple[str, float, bytes]]:
    """One to three changes to a file: where (as a share of its length), and which bytes."""
    kinds = st.sampled_from(["overwrite", "insert", "delete", "cut", "repeat"])
    bytes_ = st.one_of(
        st.binary(min_size=1, max_size=4),
        st.sampled_from(
            [b"\n", b"\t", b",", b'"', b"-", b".", b"e", b"NA", b"1e99", b"\x00", b"%", b"\r", b" ", b"9" * 30]
        ),
    )
    return draw(st.lists(st.tuples(kinds, st.floats(0, 1), bytes_), min_size=1, max_size=3))


def damage(content: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    for kind, share, part in changes:
        at = int(share * len(content))
        match kind:
            case "overwrite":
                content = content[:at] + part + content[at + len(part) :]
            case "insert":
                content = content[:at] + part + content[at:]
            case "delete":
                content = content[:at] + content[at + len(part) :]
            case "cut":
                content = content[:at]
            case "repeat":
                content = content[: at + 40] + content[at:]
    return content


def reference_market(content: bytes) -> sparse.csr_matrix | None:
    """A strict reader of a MatrixMarket coordinate text, line by line; None where it breaks the format."""
    try:
        text = content.decode("ascii").replace("\r\n", "\n").replace("\r", "\n")
        lines = text.split("\n")
        head = lines[0].lower().split()
        if head[:4] != ["%%matrixmarket", "matrix", "coordinate", head[3]] or head[3] not in ("integer", "real"):
            return None
        if head[4:] != ["general"]:
            return None
        body = [line.split() for line in lines[1:] if line.strip() and not line.startswith("%")]
        n_rows, n_columns, n_entries = map(int, body[0])
        entries = [(int(r), int(c), float(v)) for r, c, v in body[1:]]
        if len(entries) != n_entries or not all(1 <= r <= n_rows and 1 <= c <= n_columns for r, c, _ in entries):
            return None
    except (ValueError, IndexError):
        return None
    out = np.zeros((n_columns, n_rows))
    for r, c, v in entries:
        out[c - 1, r - 1] += v
    return sparse.csr_matrix(out)


def reference_dense(content: bytes) -> pd.DataFrame | None:
    """A strict reader of a comma-separated table of genes x cells; None where it breaks the format."""

    def name(field: str) -> str:  # UTF-8, or Latin-1 where it is none: each name for itself
        try:
            return field.encode("latin-1").decode("utf-8")
        except UnicodeDecodeError:
            return field

    try:
        text = content.removeprefix(codecs.BOM_UTF8).decode("latin-1").replace("\r\n", "\n").replace("\r", "\n")
        # A line of nothing but delimiters, quotes and white space holds no name and no value: it is no row.
        lines = [line for line in text.split("\n") if line.strip(' \t,;"')]
        rows = list(csv.reader(lines, strict=True))
        while len(rows[0]) == 1:  # a title above the header
            rows = rows[1:]
        if len(rows) == 1:  # a header alone: a table without genes
            return pd.DataFrame(columns=[name(field) for field in rows[0][1:]], dtype=float)
        names = [name(field) for field in (rows[0] if len(rows[0]) == len(rows[1]) - 1 else rows[0][1:])]
        values = [[float(value) for value in row[1:]] for row in rows[1:]]
        if any(len(row) != len(names) for row in values):
            return None
        return pd.DataFrame(values, index=[name(row[0]) for row in rows[1:]], columns=names)
    except (ValueError, IndexError, csv.Error):
        return None


def small_library(seed: int) -> Library:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(1.0, size=(6, 20))
    counts[:, 3] += 1
    return Library(counts, GENES.iloc[:20].reset_index(drop=True), make_barcodes(6, seed))


def read_damaged(paths: list[Path]) -> object | None:
    """What is read, or None where one clear message is given; anything else fails the test."""
    try:
        adata, _ = read(paths)
    except UserError as error:
        assert str(error)
        assert "\n" not in str(error)
        return None
    return adata


def check_damaged_market(folder: Path, seed: int, changes: list, zipped: bool) -> None:
    library = small_library(seed)
    content = damage(market(library.counts.T).encode(), changes)
    genes = "".join(f"{a}\t{b}\n" for a, b in library.genes.to_numpy())
    paths = [
        folder / "matrix.mtx",
        put(folder / "genes.tsv", genes),
        put(folder / "barcodes.tsv", "".join(f"{name}\n" for name in library.barcodes)),
    ]
    paths[0].write_bytes(gzip.compress(content) if zipped else content)
    adata = read_damaged(paths)
    if adata is None:
        return
    reference = reference_market(content)
    assert reference is not None, "a matrix was made of a file that breaks the format"
    expected = pd.DataFrame(reference.toarray(), index=library.barcodes, columns=library.genes["gene_symbol"])
    expected = expected[expected.sum(axis=1) > 0]
    assert list(adata.obs["barcode"]) == list(expected.index)
    np.testing.assert_array_equal(adata.X.toarray(), expected.to_numpy())


def check_damaged_dense(folder: Path, seed: int, changes: list) -> None:
    library = small_library(seed)
    frame = pd.DataFrame(library.counts.T, index=library.genes["gene_symbol"], columns=library.barcodes)
    content = damage(frame.to_csv(index_label="gene").encode(), changes)
    path = folder / "counts.csv"
    path.write_bytes(content)
    adata = read_damaged([path])
    if adata is None:
        return
    reference = reference_dense(content)
    if reference is None:  # the format is broken, yet no value: what was read must be the whole matrix as it was
        assert list(adata.obs["barcode"]) == library.barcodes, content
        np.testing.assert_array_equal(adata.X.toarray(), library.counts)
        return
    # Names may be cleaned, columns dropped with a reason and duplicates summed: the counts of what is left must agree.
    total = reference.loc[:, reference.columns.isin(adata.obs["barcode"].astype(str))].to_numpy().sum()
    assert adata.X.sum() <= total
    for name, symbol in zip(adata.var["gene_symbol_given"], adata.var["gene_symbol"], strict=True):
        same = reference.loc[[name in (row, symbol) for row in reference.index]]
        if len(same) == 1 and name == symbol:
            column = adata.X[:, list(adata.var["gene_symbol"]).index(symbol)].toarray().ravel()
            np.testing.assert_array_equal(column, same.iloc[0][list(adata.obs["barcode"].astype(str))].to_numpy())


@settings(FAST, max_examples=80)
@given(st.integers(0, 50), damages(), st.booleans())
def test_damaged_triplets(tmp_path_factory, seed, changes, zipped):
    check_damaged_market(tmp_path_factory.mktemp("market"), seed, changes, zipped)


@settings(FAST, max_examples=80)
@given(st.integers(0, 50), damages())
def test_damaged_dense_tables(tmp_path_factory, seed, changes):
    check_damaged_dense(tmp_path_factory.mktemp("dense"), seed, changes)


@pytest.mark.slow
@LONG
@given(st.integers(0, 1000), damages(), st.booleans())
def test_many_damaged_triplets(tmp_path_factory, seed, changes, zipped):
    check_damaged_market(tmp_path_factory.mktemp("market"), seed, changes, zipped)


@pytest.mark.slow
@LONG
@given(st.integers(0, 1000), damages())
def test_many_damaged_dense_tables(tmp_path_factory, seed, changes):
    check_damaged_dense(tmp_path_factory.mktemp("dense"), seed, changes)
