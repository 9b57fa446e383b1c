"""Small text tables beside a matrix: their delimiter, number of rows, and columns as strings."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

import pandas as pd

from immunomod.errors import UserError
from immunomod.sample.readers.features import FEATURE_TYPES
from immunomod.sample.readers.sniff import open_text, reading
from immunomod.sample.readers.stream import read_blocks

_COUNTED_BYTES = 1 << 20
_MOSTLY = 0.8
_TELLING_ROWS = 50
_DELIMITERS = ("\t", ",", ";", " ")


def delimiter_of(lines: Sequence[str]) -> str:
    """The delimiter that splits most lines (after the first, which may be a short header) into the most equal parts.

    A table of one column has none; a tab is returned for it.
    """
    body = [line for line in lines[1:50] if line] or [line for line in lines[:1] if line]
    best, fields = "\t", 1
    for delimiter in _DELIMITERS:
        widths = [len(row) for row in csv.reader(body, delimiter=delimiter)]
        width = max(set(widths), key=widths.count) if widths else 1
        if width > fields and widths.count(width) >= 0.8 * len(widths):
            best, fields = delimiter, width
    return best


def count_rows(path: Path, limit: int, max_bytes: int) -> int | None:
    """Number of lines that are not blank; None where there are more than ``limit`` of them, or of ``max_bytes``."""
    n_rows, n_bytes, torn = 0, 0, b""
    with closing(read_blocks(path, _COUNTED_BYTES)) as blocks:
        for block in blocks:
            lines = (torn + block).splitlines()
            torn = lines.pop() if lines and not block.endswith((b"\n", b"\r")) else b""
            n_rows += sum(1 for line in lines if line.strip())
            n_bytes += len(block)
            if n_rows > limit or n_bytes > max_bytes:
                return None
    n_rows += bool(torn.strip())
    return n_rows if n_rows <= limit else None


def read_columns(path: Path, lines: Sequence[str]) -> pd.DataFrame:
    """All rows of a small table as strings, without any header logic; short rows are filled with empty strings.

    ``lines`` are its first lines, which tell the delimiter. A feature type that blanks or tabs have torn apart
    (``Gene<TAB>Expression``) is mended.
    """
    try:
        with reading(path), open_text(path) as handle:
            table = parse_columns(handle, delimiter_of(lines))
    except csv.Error as error:
        raise UserError(f"{path}: is no table of text ({error}); fetch it again") from None
    if table.empty:
        raise UserError(f"{path}: the table is empty")
    return table


def parse_columns(lines: Iterable[str], delimiter: str) -> pd.DataFrame:
    """Lines as a table of strings, as :func:`read_columns` gives it."""
    columns: list[list[str]] = []
    n_rows = 0
    for row in csv.reader(lines, delimiter=delimiter):
        if not any(row):
            continue
        if len(row) > len(columns):
            columns.extend([""] * n_rows for _ in range(len(row) - len(columns)))
        for k, column in enumerate(columns):
            column.append(row[k] if k < len(row) else "")
        n_rows += 1
    return _mend_torn_types(pd.DataFrame(dict(enumerate(columns)), dtype=object))


def _mend_torn_types(table: pd.DataFrame) -> pd.DataFrame:
    """Join neighbouring columns whose words make feature types in nearly every row."""
    width = table.shape[1]
    for first in range(width - 1):
        for last in (width, first + 2):
            if not _are_torn_types(table.tail(_TELLING_ROWS), first, last):
                continue
            if _are_torn_types(table, first, last):
                mended = table.drop(columns=range(first + 1, last))
                mended[first] = _joined(table, first, last)
                return mended.set_axis(range(mended.shape[1]), axis=1)
    return table


def _joined(table: pd.DataFrame, first: int, last: int) -> pd.Series:
    words = table[first]
    for k in range(first + 1, last):
        words = words + " " + table[k]
    return words.str.strip()


def _are_torn_types(table: pd.DataFrame, first: int, last: int) -> bool:
    whole = table[first].isin(FEATURE_TYPES).all()
    return not whole and float(_joined(table, first, last).isin(FEATURE_TYPES).mean()) > _MOSTLY


def read_labelled_table(path: Path, lines: Sequence[str]) -> pd.DataFrame:
    """A table with a header, as strings; ``NA`` and its kin become empty.

    R's ``write.table`` leaves the header one column short where rows have names: that first column becomes the index.
    Otherwise the index is the row number.
    """
    delimiter = delimiter_of(lines)
    with reading(path), open_text(path) as handle:
        rows = [row for row in csv.reader(handle, delimiter=delimiter) if any(row)]
    if len(rows) < 2:
        raise UserError(f"{path}: a table with a header and at least one row is needed; found {len(rows)} rows")
    header, body = rows[0], rows[1:]
    width = len(body[0])
    for number, row in enumerate(body, start=2):
        if len(row) != width:
            raise UserError(f"{path}: row {number} has {len(row)} columns where row 2 has {width}; mend the table")
    if len(header) not in (width, width - 1):
        raise UserError(f"{path}: the header names {len(header)} columns and the rows have {width}; mend the table")
    named_rows = len(header) == width - 1
    table = pd.DataFrame(body, columns=["", *header] if named_rows else header, dtype=object)
    table = table.replace({"NA": "", "NaN": "", "nan": "", "None": ""})
    return table.set_index("", drop=True) if named_rows else table
