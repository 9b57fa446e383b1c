"""Dense text tables, genes x cells or cells x genes: half of the series on GEO.

Lines are parsed one at a time into a sparse matrix, so memory is bounded by the non-zeros, not by the table.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from immunomod.errors import UserError
from immunomod.sample.readers.features import feature_columns, looks_like_barcodes, looks_like_genes
from immunomod.sample.readers.library import Layout, LibraryCounts, LibraryFiles
from immunomod.sample.readers.sniff import Kind, SniffedFile, open_text, reading
from immunomod.sample.readers.tables import delimiter_of

_MIN_NUMERIC_COLUMNS = 2


@dataclass(frozen=True)
class _Parsed:
    matrix: sparse.csr_matrix
    row_names: pd.Series
    column_names: pd.Series


def _split(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _body_lines(file: SniffedFile) -> list[str]:
    return [line for line in file.lines if line and not line.startswith("#")]


def _is_dense(file: SniffedFile) -> bool:
    """A header, then a name and at least two numbers a line."""
    lines = _body_lines(file)
    if file.kind is not Kind.TABLE or len(lines) < 2:
        return False
    fields = _split(lines[1], delimiter_of(lines))
    return len(fields) > _MIN_NUMERIC_COLUMNS and all(_is_number(field) for field in fields[1:])


def _numbers(text: str, delimiter: str) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        return np.fromstring(text, dtype=np.float64, sep=delimiter)


def _row_values(line: str, delimiter: str, number: int, columns: Sequence[str], file: SniffedFile) -> np.ndarray:
    """The numbers of a line after its name; a field that is no number is a :class:`UserError` with its place."""
    _, _, text = line.partition(delimiter)
    if '"' not in line:
        try:
            values = _numbers(text, delimiter)
        except (DeprecationWarning, ValueError):
            values = np.empty(0)
        if values.size == len(columns):
            return values
    fields = _split(line, delimiter)[1:]
    if len(fields) == len(columns) + 1 and fields[-1] == "":
        fields = fields[:-1]
    if len(fields) != len(columns):
        raise UserError(
            f"{file.path}: row {number} holds {len(fields)} values and the header names {len(columns)} cells or genes; "
            "the file may be cut short"
        )
    for name, field in zip(columns, fields, strict=True):
        if not _is_number(field):
            raise UserError(f"{file.path}: row {number}, column {name!r}: {field!r} is no number; counts are needed")
    return np.array([float(field) for field in fields])


def _lines(file: SniffedFile) -> Iterator[tuple[int, str]]:
    with open_text(file.path) as handle:
        for number, line in enumerate(handle, start=1):
            line = line.rstrip("\n")
            if line and not line.startswith("#"):
                yield number, line


def _parse(file: SniffedFile) -> _Parsed:
    head = _body_lines(file)
    delimiter = delimiter_of(head)
    width = len(_split(head[1], delimiter))
    names: list[str] = []
    columns: list[str] = []
    data: list[np.ndarray] = []
    indices: list[np.ndarray] = []
    indptr = [0]
    with reading(file.path):
        for number, line in _lines(file):
            if not columns:
                header = _split(line, delimiter)
                columns = header[1:] if len(header) == width else header
                columns = columns[:-1] if columns and columns[-1] == "" else columns
                continue
            values = _row_values(line, delimiter, number, columns, file)
            nonzero = np.flatnonzero(values)
            names.append(_split(line.partition(delimiter)[0], delimiter)[0])
            indices.append(nonzero.astype(np.int32))
            data.append(values[nonzero].astype(np.float32) if np.all(values[nonzero] < 2**24) else values[nonzero])
            indptr.append(indptr[-1] + nonzero.size)
    matrix = sparse.csr_matrix(
        (np.concatenate(data), np.concatenate(indices), np.array(indptr)), shape=(len(names), len(columns))
    )
    return _Parsed(matrix, pd.Series(names, dtype=object), pd.Series(columns, dtype=object))


def _genes_are_rows(parsed: _Parsed, file: SniffedFile) -> bool:
    rows_are_genes, columns_are_genes = looks_like_genes(parsed.row_names), looks_like_genes(parsed.column_names)
    if rows_are_genes != columns_are_genes:
        return rows_are_genes
    rows_are_cells, columns_are_cells = (
        looks_like_barcodes(parsed.row_names),
        looks_like_barcodes(parsed.column_names),
    )
    if rows_are_cells != columns_are_cells:
        return columns_are_cells
    raise UserError(
        f"{file.path}: neither rows ({', '.join(parsed.row_names[:3])}, ...) nor columns "
        f"({', '.join(parsed.column_names[:3])}, ...) can be told to be genes or cell barcodes; name genes by symbol "
        "or Ensembl id"
    )


def read_dense(matrix: SniffedFile, _files: LibraryFiles) -> LibraryCounts:
    """Read a dense table; which axis holds genes is told by their names."""
    if matrix.damage:
        raise UserError(matrix.damage)
    parsed = _parse(matrix)
    genes_are_rows = _genes_are_rows(parsed, matrix)
    genes, cells = parsed.row_names, parsed.column_names
    counts = parsed.matrix
    if genes_are_rows:
        counts = sparse.csr_matrix(counts.T)
    else:
        genes, cells = cells, genes
    return LibraryCounts(
        matrix=counts,
        barcodes=pd.Index(cells),
        features=feature_columns(pd.DataFrame({0: genes})),
        used={matrix: "matrix"},
        decisions=[f"dense table, {'genes x cells' if genes_are_rows else 'cells x genes'}"],
    )


def _recognise(files: LibraryFiles) -> Sequence[SniffedFile]:
    own = [file for file in files.own if _is_dense(file)]
    return own or [file for file in files.shared if _is_dense(file)]


DENSE = Layout(
    name="dense_table",
    citation="Edgar et al. 2002, Nucleic Acids Res. 30:207 (GEO; free-form supplementary tables)",
    needs="a header of cells (or genes), then one name and its counts a line; tab, comma, semicolon or space",
    limits="no extra columns between names and counts; names of genes must be symbols or Ensembl ids",
    recognise=_recognise,
    run=read_dense,
    last_resort=True,
)
