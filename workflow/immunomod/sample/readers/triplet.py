"""Matrix, barcodes and features in three files (CellRanger v2 and v3, and all that GEO makes of their names).

Roles are told by content: the matrix by its MatrixMarket header, the tables by what their first rows hold and by their
number of rows against the matrix's two dimensions. Among several tables that fit, the one whose name goes with the
matrix's is taken; what names leave open is an error that lists them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby, takewhile
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from scipy import sparse

from immunomod.errors import UserError
from immunomod.sample.readers.features import feature_columns, is_ensembl, looks_like_barcodes, looks_like_genes
from immunomod.sample.readers.library import Layout, LibraryCounts, LibraryFiles, LibraryHead
from immunomod.sample.readers.matrix_market import Header, parse_header, read_matrix_market
from immunomod.sample.readers.sniff import Kind, SniffedFile
from immunomod.sample.readers.tables import count_rows, delimiter_of, parse_columns, read_columns

Role = Literal["barcodes", "features"]

_EXTENSIONS = re.compile(r"(\.(gz|bz2|xz|txt|tsv|csv|tab|mtx|mat|mm|tbl))+$")
_ROLE_WORDS = re.compile(
    r"filtered|raw|feature_bc_matrix|gene_bc_matrices|matri(x|ces)|barcodes?|features?|genes?|counts?|cells?|umis?|mtx"
)
_HEADER_WORD = re.compile(
    r"(gene|feature|cell|ensembl|hgnc|mgi|barcode|bar|symbol|name|id|s|type|short|x|v\d|index|row|n|chr|chrom|_|\W)*",
    re.IGNORECASE,
)
_HEAD_ROWS = 500
_MAX_COLUMNS = 60
#: A companion's lines are short: this many bytes each, or a few times as many as its first ones have.
_MIN_BYTES_A_ROW = 256
#: Genes that every kind of cell expresses strongly; they tell which sums over a square matrix are those of genes.
_STRONG_GENE = re.compile(
    r"MALAT1|ACTB|ACTG1|B2M|TMSB4X|TMSB10|FTL|FTL1|FTH1|EEF1A1|TPT1|PTMA|VIM|GAPDH|UBC|UBA52|FAU|HSPA8|CFL1|PFN1|NACA"
    r"|RP[LS]\d+[AXY]?L?|RPL[AP]\d?|RPSA|MT-(CO[123]|ATP6|CYB|ND[1-5])",
    re.IGNORECASE,
)
#: Strong genes' mean rank, in standard errors above that of genes drawn by chance, and by how much it must win.
_MIN_RANK_Z, _MIN_RANK_LEAD = 2.5, 2.0


@dataclass(frozen=True)
class _Companion:
    """A table that may go with the matrix, known by its first rows."""

    file: SniffedFile
    role: Role | None
    own: bool

    @cached_property
    def table(self) -> pd.DataFrame:
        if self.file.kind is Kind.EMPTY:
            return pd.DataFrame({0: pd.Series(dtype=object)})
        return _without_row_numbers(read_columns(self.file.path, self.file.lines))

    def values(self, length: int) -> tuple[pd.DataFrame, list[str]]:
        """The table's last ``length`` rows, and its header (empty strings where it has none)."""
        surplus = len(self.table) - length
        header = self.table.iloc[0].astype(str).tolist() if surplus else [""] * self.table.shape[1]
        return self.table.iloc[surplus:].reset_index(drop=True), header


@dataclass(frozen=True)
class _Axes:
    """Which dimension of the file's matrix is which; ``told`` False where the matrix is square and nothing tells."""

    features: int
    cells: int
    told: bool = True


@dataclass
class _Triplet:
    """The three files of a library, before its counts are read."""

    matrix: SniffedFile
    header: Header
    features: _Companion
    barcodes: _Companion
    axes: _Axes
    decisions: list[str] = field(default_factory=list)

    @property
    def used(self) -> dict[SniffedFile, str]:
        return {self.matrix: "matrix", self.features.file: "features", self.barcodes.file: "barcodes"}

    def size(self, axis: int) -> int:
        return self.header.columns if axis else self.header.rows

    def feature_table(self) -> pd.DataFrame:
        table, header = self.features.values(self.size(self.axes.features))
        try:
            return feature_columns(_naming_columns(table, header, self.decisions))
        except UserError as error:
            raise UserError(f"{self.features.file.path}: {error}") from None

    def cell_names(self) -> pd.Index:
        table, header = self.barcodes.values(self.size(self.axes.cells))
        names: pd.Index = pd.Index(table[_barcode_column(table, header)].astype(str).to_numpy(dtype=object))
        return names


def _header(file: SniffedFile) -> Header:
    if file.damage and len(file.lines) < 2:
        raise UserError(file.damage)
    return parse_header(file.lines, file.path)


def _role(file: SniffedFile, head: pd.DataFrame) -> Role | None:
    """What a companion holds: by its content, and by its name where the content does not tell."""
    columns = [head.iloc[:, i].astype(str) for i in range(head.shape[1])]
    if any(looks_like_barcodes(column) for column in columns):
        return "barcodes"
    if any(looks_like_genes(column) for column in columns):
        return "features"
    return _role_by_name(file)


def _role_by_name(file: SniffedFile) -> Role | None:
    if re.search(r"barcode|cells?[._]", file.name, re.IGNORECASE):
        return "barcodes"
    return "features" if re.search(r"gene|feature", file.name, re.IGNORECASE) else None


def _companions(matrix: SniffedFile, files: LibraryFiles) -> list[_Companion]:
    """Tables that may go with a matrix, by their first rows alone."""
    found = []
    header = _header(matrix)
    lacks_a_dimension = 0 in (header.rows, header.columns)
    for file in (*files.own, *files.shared):
        own = file in files.own
        if file.kind not in (Kind.TABLE, Kind.EMPTY) or file.path == matrix.path:
            continue
        if file.damage and own:
            raise UserError(file.damage)
        if file.kind is Kind.EMPTY and lacks_a_dimension and (role := _role_by_name(file)) is not None:
            found.append(_Companion(file, role, own))
        if file.damage or file.kind is Kind.EMPTY:
            continue
        lines = file.lines[:_HEAD_ROWS]
        delimiter = delimiter_of(lines)
        if max((line.count(delimiter) for line in lines), default=0) < _MAX_COLUMNS:
            found.append(_Companion(file, _role(file, parse_columns(lines, delimiter)), own))
    return found


def _stem(file: SniffedFile) -> Counter[str]:
    """The words of a name that tell a sample, without those that tell what kind of file it is."""
    plain = _ROLE_WORDS.sub(" ", _EXTENSIONS.sub("", file.name.lower()))
    return Counter(re.findall(r"[^\W_]+", plain))


def _distance(one: Path, other: Path) -> int:
    """Steps up and down from one folder to the other."""
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one.parts, other.parts, strict=False)))
    return len(one.parts) + len(other.parts) - 2 * shared


def _fits(one: _Companion, header: Header) -> frozenset[int]:
    """The dimensions of the matrix that a table has the rows of, with or without a header: 0 rows, 1 columns."""
    lines = one.file.lines
    a_row = 4 * max(1, sum(map(len, lines)) // max(1, len(lines)))
    limit = max(header.rows, header.columns) + 1
    n_rows = count_rows(one.file.path, limit, (limit + 1) * max(_MIN_BYTES_A_ROW, a_row) + (1 << 20))
    return frozenset(axis for axis, size in enumerate((header.rows, header.columns)) if n_rows in (size, size + 1))


def _choose(
    role: Role, candidates: Sequence[_Companion], matrix: SniffedFile, files: LibraryFiles, decisions: list[str]
) -> tuple[_Companion, frozenset[int]]:
    """The companion of a role, and the dimensions it fits.

    Those named by ``files`` come first, then the library's own, those in the nearest folder, and those whose name has
    least that the matrix's has not. Rows are counted of the first that may do, not of all.
    """
    header = _header(matrix)
    mine = _stem(matrix)
    others = [_stem(file) for file in (*files.own, *files.shared) if file.kind is Kind.MATRIX_MARKET and file != matrix]

    def rank(one: _Companion) -> tuple[int, ...]:
        stem = _stem(one.file)
        return (
            one.role != role,
            not files.is_named(one.file),
            not one.own,
            stem != mine and bool(stem) and stem in others,
            _distance(one.file.path.parent, matrix.path.parent),
            (stem - mine).total(),
            (mine - stem).total(),
        )

    fitting = [one for one in candidates if one.role in (role, None)]
    for _, group in groupby(sorted(fitting, key=rank), key=rank):
        fits = {one: axes for one in group if (axes := _fits_or_damaged(one, header))}
        if not fits:
            continue
        best = next(iter(fits))
        if role == "barcodes" and rank(best)[3]:
            break  # the cells of another matrix, though as many
        if len(fits) > 1:
            names = ", ".join(one.file.name for one in fits)
            if not all(one.table.equals(best.table) for one in fits):
                raise UserError(
                    f"{matrix.path}: several tables could be its {role}: {names}; "
                    "keep one, or name the library's files by a pattern in the column `files`"
                )
            decisions.append(f"{role} from {best.file.name}; {names} hold the same")
        return best, fits[best]
    raise UserError(
        f"{matrix.path}: no {role} table beside this {header.rows:,} x {header.columns:,} matrix; a text table "
        f"with as many rows as one of its dimensions is needed. Found: {files.describe()}. Put the missing file "
        "beside the matrix, or name it in `files`"
    )


def _fits_or_damaged(one: _Companion, header: Header) -> frozenset[int]:
    """As :func:`_fits`; a damaged file that the data set shares is passed over, the library's own is not."""
    try:
        return _fits(one, header)
    except UserError:
        if one.own:
            raise
        return frozenset()


def _axes(
    features: tuple[_Companion, frozenset[int]],
    barcodes: tuple[_Companion, frozenset[int]],
    header: Header,
    matrix: SniffedFile,
) -> _Axes:
    """Which dimension holds features and which cells, as far as rows and headers of the tables tell."""
    sizes = (header.rows, header.columns)
    options = [_Axes(f, c) for f in sorted(features[1]) for c in sorted(barcodes[1]) if f != c]
    if not options:
        raise UserError(
            f"{matrix.path}: {features[0].file.name} and {barcodes[0].file.name} fit the same dimension of the matrix; "
            "the other has no table"
        )
    if len(options) == 1:
        return options[0]
    if header.from_cellranger:
        return next(one for one in options if one.features == 0)
    if sizes[0] == sizes[1]:
        return _Axes(0, 1, told=False)
    tables = features[0].table, barcodes[0].table
    for one in options:
        surplus = len(tables[0]) - sizes[one.features], len(tables[1]) - sizes[one.cells]
        if surplus == (_has_header(tables[0]), _has_header(tables[1])):
            return one
    raise UserError(
        f"{matrix.path}: both tables fit both dimensions of this {sizes[0]:,} x {sizes[1]:,} matrix, one with a header "
        "and one without; take the headers away"
    )


def _has_header(table: pd.DataFrame) -> bool:
    """Whether the first row names columns: it is no barcode or Ensembl id where the rest are, or says so in words."""
    for k in range(table.shape[1]):
        first, rest = table[k].iloc[:1].astype(str), table[k].iloc[1:].astype(str)
        for told in (looks_like_barcodes, lambda names: float(is_ensembl(names).mean()) > 0.5):
            if told(rest):
                return not told(first)
    return all(_HEADER_WORD.fullmatch(str(value)) for value in table.iloc[0])


def _without_row_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """Take away a first column that only counts the rows from 0 or 1, as R and pandas write it."""
    if table.shape[1] < 2:
        return table
    for surplus in (0, 1):
        numbers = table[0].iloc[surplus:]
        first = str(numbers.iloc[0]) if len(numbers) else ""
        if first in ("0", "1") and numbers.tolist() == [str(int(first) + k) for k in range(len(numbers))]:
            return table.drop(columns=0).set_axis(range(table.shape[1] - 1), axis=1)
    return table


def _naming_columns(table: pd.DataFrame, header: Sequence[str], decisions: list[str]) -> pd.DataFrame:
    """The columns that name features, of a table that may say more; up to three are taken for CellRanger's own."""
    from immunomod.sample.readers.dense_columns import dropped_in_words, gene_names

    if table.shape[1] <= 3:
        return table
    names, dropped = gene_names([table[k].astype(str) for k in range(table.shape[1])], header)
    titles = [title or f"column {k + 1}" for k, title in enumerate(header)]
    decisions += [f"feature table: {sentence}" for sentence in dropped_in_words(dropped, titles)]
    return names


def _barcode_column(table: pd.DataFrame, header: Sequence[str]) -> int:
    """The column with the cells' names: barcodes, different ones if there are such, else a header that says so."""
    like = [k for k in range(table.shape[1]) if looks_like_barcodes(table[k].astype(str))]
    if like:
        return next((k for k in like if table[k].is_unique), like[0])
    return next((k for k, title in enumerate(header) if re.search(r"barcode|cell", title, re.IGNORECASE)), 0)


def _find(matrix: SniffedFile, files: LibraryFiles) -> _Triplet:
    header = _header(matrix)
    decisions: list[str] = []
    companions = _companions(matrix, files)
    features = _choose("features", companions, matrix, files, decisions)
    rest = [one for one in companions if one.file != features[0].file]
    barcodes = _choose("barcodes", rest, matrix, files, decisions)
    axes = _axes(features, barcodes, header, matrix)
    if axes.features == 1:
        decisions.append("the matrix is cells x features (transposed)")
    elif len(features[1] & barcodes[1]) == 2 and axes.told:
        decisions.append("the matrix is square: its features are rows, as CellRanger's comment in it tells")
    return _Triplet(matrix, header, features[0], barcodes[0], axes, decisions)


def _rank_z(symbols: pd.Series, totals: np.ndarray) -> float:
    """How far strong genes rank above chance among ``totals``, in standard errors of their mean rank."""
    strong = symbols.str.fullmatch(_STRONG_GENE).to_numpy(dtype=bool)
    n, total = int(strong.sum()), len(strong)
    if n < 2 or n == total:
        return 0.0
    expected, variance = (total + 1) / 2, (total + 1) * (total - n) / (12 * n)
    return float((pd.Series(totals).rank()[strong].mean() - expected) / np.sqrt(variance))


def _tell_square(triplet: _Triplet, counts: sparse.csr_matrix, features: pd.DataFrame) -> sparse.csr_matrix:
    """Turn a square matrix, read as if columns were cells, so that genes which all cells express come out strong.

    Raises
    ------
    UserError
        Neither way round do they stand out.
    """
    symbols = features["gene_symbol"].str.replace(r"^(GRCh38|hg19|GRCm39|mm10)_+", "", regex=True)
    rows = _rank_z(symbols, np.asarray(counts.sum(axis=0)).ravel())
    columns = _rank_z(symbols, np.asarray(counts.sum(axis=1)).ravel())
    if counts.nnz == 0 or counts.shape == (1, 1):
        return counts  # the same either way
    if max(rows, columns) < _MIN_RANK_Z or abs(rows - columns) < _MIN_RANK_LEAD:
        raise UserError(
            f"{triplet.matrix.path}: has as many rows as columns ({triplet.header.rows:,}), and its counts do not tell "
            "which are genes (ubiquitous genes such as ACTB and MALAT1 stand out neither way). If its rows are "
            "features, add the line `%metadata_json: {}` below its first line; if its columns are, write it transposed"
        )
    told = "genes that all cells express rank high only that way"
    if rows > columns:
        triplet.decisions.append(f"the matrix is square: its rows are features, for {told}")
        return counts
    triplet.decisions.append(f"the matrix is square and cells x features (transposed), for {told}")
    return sparse.csr_matrix(counts.T)


def read_triplet(matrix: SniffedFile, files: LibraryFiles) -> LibraryCounts:
    """Read a MatrixMarket file with its barcodes and features, wherever among the library's files they are.

    Raises
    ------
    UserError
        A companion is missing, damaged or ambiguous; the matrix is malformed; nothing tells the axes of a square one.
    """
    triplet = _find(matrix, files)
    features, barcodes = triplet.feature_table(), triplet.cell_names()
    counts = read_matrix_market(matrix.path, triplet.axes.cells)
    if not triplet.axes.told:
        counts = _tell_square(triplet, counts, features)
    return LibraryCounts(counts, barcodes, features, triplet.used, triplet.decisions)


def peek_triplet(matrix: SniffedFile, files: LibraryFiles) -> LibraryHead:
    """Size, features and barcodes of a library, without its counts; raises what :func:`read_triplet` would."""
    triplet = _find(matrix, files)
    features, barcodes = triplet.feature_table(), triplet.cell_names()
    return LibraryHead(len(barcodes), len(features), features, barcodes, triplet.used, triplet.decisions)


def _recognise(files: LibraryFiles) -> Sequence[SniffedFile]:
    return files.of_kind(Kind.MATRIX_MARKET)


TRIPLET = Layout(
    name="10x_triplet",
    citation="CellRanger matrix exchange format; NIST Matrix Market (Boisvert et al. 1996)",
    needs="a MatrixMarket file, and text tables of features and of barcodes with as many rows as its dimensions",
    limits="general coordinate matrices; files not sorted by cell are read twice",
    recognise=_recognise,
    run=read_triplet,
    peek=peek_triplet,
)
