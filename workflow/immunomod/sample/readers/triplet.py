"""Matrix, barcodes and features in three files (CellRanger v2 and v3, and all that GEO makes of their names).

Roles are told by content: the matrix by its MatrixMarket header, the tables by their number of rows against the
matrix's two dimensions, and by what they hold where that does not decide. Names only break ties.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd
from scipy import io, sparse

from immunomod.errors import UserError
from immunomod.sample.readers.features import feature_columns, looks_like_barcodes, looks_like_genes
from immunomod.sample.readers.library import Layout, LibraryCounts, LibraryFiles
from immunomod.sample.readers.sniff import Kind, SniffedFile, open_bytes, reading
from immunomod.sample.readers.tables import count_rows, read_columns

Role = Literal["barcodes", "features"]


@dataclass(frozen=True)
class _Header:
    rows: int
    columns: int


@dataclass(frozen=True)
class _Companion:
    """A table whose number of rows fits a dimension of the matrix: 0 its rows, 1 its columns."""

    file: SniffedFile
    table: pd.DataFrame
    axes: frozenset[int]
    role: Role | None
    own: bool

    def values(self, length: int) -> pd.DataFrame:
        """The table without its header, where it has one row more than ``length``."""
        return self.table.iloc[len(self.table) - length :].reset_index(drop=True)


def _header(file: SniffedFile) -> _Header:
    banner = file.lines[0].lower().split()
    size = next((line.split() for line in file.lines[1:] if line.strip() and not line.startswith("%")), [])
    if file.damage and not size:
        raise UserError(file.damage)
    if "pattern" in banner or "complex" in banner:
        raise UserError(f"{file.path}: the MatrixMarket file holds no numbers that could be counts ({file.lines[0]})")
    if len(size) < 2 or not all(part.isdigit() for part in size):
        raise UserError(f"{file.path}: the MatrixMarket file has no size line; fetch it again")
    return _Header(int(size[0]), int(size[1]))


def _read_matrix(file: SniffedFile) -> sparse.coo_matrix:
    with reading(file.path), open_bytes(file.path) as stream:
        return sparse.coo_matrix(io.mmread(stream))


def _role(file: SniffedFile, table: pd.DataFrame) -> Role | None:
    """What a companion holds: by its content, and by its name where the content does not tell."""
    columns = [table.iloc[:, i].astype(str) for i in range(table.shape[1])]
    if any(looks_like_barcodes(column) for column in columns):
        return "barcodes"
    if any(looks_like_genes(column) for column in columns):
        return "features"
    if re.search(r"barcode|cells?[._]", file.name, re.IGNORECASE):
        return "barcodes"
    return "features" if re.search(r"gene|feature", file.name, re.IGNORECASE) else None


def _companions(matrix: SniffedFile, header: _Header, files: LibraryFiles) -> list[_Companion]:
    found = []
    sizes = (header.rows, header.columns)
    for file in (*files.own, *files.shared):
        if file.kind not in (Kind.TABLE, Kind.EMPTY) or file.path == matrix.path:
            continue
        if file.damage:
            if file in files.own:
                raise UserError(file.damage)
            continue
        rows = count_rows(file.path, limit=max(sizes) + 2)
        axes = frozenset(axis for axis, size in enumerate(sizes) if rows in (size, size + 1))
        if axes:
            table = read_columns(file.path, file.lines)
            found.append(_Companion(file, table, axes, _role(file, table), own=file in files.own))
    return found


def _choose(role: Role, candidates: Sequence[_Companion], matrix: SniffedFile, files: LibraryFiles) -> _Companion:
    """The companion of a role: named by ``files``, then the library's own, then named most like the matrix."""
    fitting = [one for one in candidates if one.role == role]
    if not fitting:
        fitting = [one for one in candidates if one.role is None]
    if not fitting:
        header = _header(matrix)
        raise UserError(
            f"{matrix.path}: no {role} table beside this {header.rows:,} x {header.columns:,} matrix; a text table "
            f"with as many rows as one of its dimensions is needed. Found: {files.describe()}. Put the missing file "
            "beside the matrix, or name it in `files`"
        )

    def rank(one: _Companion) -> tuple[bool, bool, int]:
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one.file.name, matrix.name, strict=False))
        return (files.is_named(one.file), one.own, sum(1 for _ in same))

    best = max(fitting, key=rank)
    tied = [one for one in fitting if rank(one) == rank(best)]
    if len(tied) > 1:
        raise UserError(
            f"{matrix.path}: several tables could be its {role}: {', '.join(one.file.name for one in tied)}; "
            "keep one, or name the library's files by a pattern in the column `files`"
        )
    return best


def _axes(features: _Companion, barcodes: _Companion, matrix: SniffedFile) -> tuple[int, int, str]:
    """Which dimension of the matrix holds features and which cells, and how it was told."""
    options = [(f, b) for f in features.axes for b in barcodes.axes if f != b]
    if not options:
        raise UserError(
            f"{matrix.path}: {features.file.name} and {barcodes.file.name} fit the same dimension of the matrix; the "
            "other has no table"
        )
    if len(options) == 2:
        return 0, 1, "the matrix is square: features taken as rows, as CellRanger writes them"
    feature_axis, cell_axis = options[0]
    return feature_axis, cell_axis, "" if feature_axis == 0 else "the matrix is cells x features (transposed)"


def _barcode_column(table: pd.DataFrame) -> pd.Index:
    columns = [table.iloc[:, i].astype(str) for i in range(table.shape[1])]
    return pd.Index(next((column for column in columns if looks_like_barcodes(column)), columns[0]))


def read_triplet(matrix: SniffedFile, files: LibraryFiles) -> LibraryCounts:
    """Read a MatrixMarket file with its barcodes and features, wherever among the library's files they are."""
    header = _header(matrix)
    companions = _companions(matrix, header, files)
    features = _choose("features", companions, matrix, files)
    barcodes = _choose("barcodes", [one for one in companions if one is not features], matrix, files)
    feature_axis, cell_axis, note = _axes(features, barcodes, matrix)
    sizes = (header.rows, header.columns)
    entries = _read_matrix(matrix)
    index = (entries.row, entries.col)
    counts = sparse.csr_matrix(
        (entries.data, (index[cell_axis], index[feature_axis])), shape=(sizes[cell_axis], sizes[feature_axis])
    )
    return LibraryCounts(
        matrix=counts,
        barcodes=_barcode_column(barcodes.values(sizes[cell_axis])),
        features=feature_columns(features.values(sizes[feature_axis])),
        used={matrix: "matrix", features.file: "features", barcodes.file: "barcodes"},
        decisions=[note] if note else [],
    )


def _recognise(files: LibraryFiles) -> Sequence[SniffedFile]:
    return files.of_kind(Kind.MATRIX_MARKET)


TRIPLET = Layout(
    name="10x_triplet",
    citation="CellRanger matrix exchange format; NIST Matrix Market (Boisvert et al. 1996)",
    needs="a MatrixMarket file, and text tables of features and of barcodes with as many rows as its dimensions",
    limits="one library per matrix; the matrix is held once as coordinates (16 to 24 bytes a non-zero)",
    recognise=_recognise,
    run=read_triplet,
)
