"""Small text tables beside a matrix: their delimiter, number of rows, and columns as strings."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from immunomod.errors import UserError
from immunomod.sample.readers.sniff import open_text, reading

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


def count_rows(path: Path, limit: int) -> int:
    """Number of lines that are not empty, reading no further than ``limit`` of them."""
    with reading(path), open_text(path) as handle:
        return sum(1 for _ in itertools.islice((line for line in handle if line.strip()), limit))


def read_columns(path: Path, lines: Sequence[str]) -> pd.DataFrame:
    """All rows of a small table as strings, without any header logic; short rows are filled with empty strings.

    ``lines`` are its first lines, which tell the delimiter. ``Gene<TAB>Expression``, a feature type that a tab has
    torn apart, is mended.
    """
    delimiter = delimiter_of(lines)
    with reading(path), open_text(path) as handle:
        rows = [row for row in csv.reader(handle, delimiter=delimiter) if any(row)]
    if not rows:
        raise UserError(f"{path}: the table is empty")
    width = max(len(row) for row in rows)
    table = pd.DataFrame([row + [""] * (width - len(row)) for row in rows], dtype=object)
    for column in range(1, width - 1):
        if (table[column] == "Gene").mean() > 0.5 and (table[column + 1] == "Expression").mean() > 0.5:
            table[column] = table[column] + " " + table[column + 1]
            table = table.drop(columns=column + 1)
            table.columns = pd.RangeIndex(table.shape[1])
            break
    return table


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
