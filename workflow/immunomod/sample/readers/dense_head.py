"""The first lines of a dense table: comments, delimiter, header, width, and what each column holds.

Nothing here is told by the file's name, and nothing beyond the first megabytes is read. The same logic serves the rows
of a spreadsheet.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path

from immunomod.errors import UserError
from immunomod.sample.readers.stream import read_blocks

#: A header of a million cells is 40 MB; a longer line is no table.
MAX_LINE_BYTES = 256 << 20
_HEAD_LINES = 200
_HEAD_BYTES = 4 << 20
_BLOCK_BYTES = 1 << 18
_TYPED_FIELDS = 500_000
_DELIMITERS = ("\t", ",", ";", " ")
_MISSING = frozenset({"", "na", "nan", "n/a", "null", "none"})
_BOM = b"\xef\xbb\xbf"


class Content(Enum):
    """What most fields of a column are, as far as the first rows tell."""

    WHOLE = "whole numbers"
    FRACTION = "numbers with fractions"
    TEXT = "text"
    EMPTY = "nothing"


@dataclass(frozen=True)
class TableHead:
    """A table's header and first rows.

    Parameters
    ----------
    delimiter
        Empty for a spreadsheet.
    header
        One name per column of the rows; empty where R's ``write.table`` left the first one unnamed.
    rows
        The first rows, each as long as the header.
    first_line
        Number of the line (or row), from 1, in which the data begin.
    notes
        Sentences on what was skipped.
    """

    delimiter: str
    header: tuple[str, ...]
    rows: list[list[str]]
    first_line: int
    notes: tuple[str, ...] = ()

    def column(self, number: int) -> list[str]:
        """The first fields of a column."""
        return [row[number] for row in self.rows]

    @cached_property
    def contents(self) -> tuple[Content, ...]:
        """What each column holds, as far as the first rows tell."""
        return tuple(content_of(fields) for fields in zip(*self.rows, strict=True))


def decode(raw: bytes) -> str:
    """Text of a name: UTF-8, or Latin-1 where it is none."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def unquote(field: str) -> str:
    """A field without the quotation marks around it, as the csv module reads it."""
    if not field.startswith('"'):
        return field
    if len(field) > 1 and field.endswith('"') and '"' not in field[1:-1]:
        return field[1:-1]
    return next(csv.reader([field], delimiter="\x1f"), [""])[0] if len(field) < 100_000 else field


def split_line(line: str, delimiter: str) -> list[str]:
    """Fields of one line as the csv module reads it; ``" "`` splits at any run of spaces."""
    if '"' not in line:
        fields = line.split(delimiter)
        return [field for field in fields if field] if delimiter == " " else fields
    collapse = delimiter == " "
    try:
        return next(csv.reader([line.strip(" ") if collapse else line], delimiter=delimiter, skipinitialspace=collapse))
    except (csv.Error, StopIteration):
        return [line]


def is_missing(text: str) -> bool:
    """Whether a field is empty or a word for a missing value."""
    return text.strip().lower() in _MISSING


def is_number(text: str) -> bool:
    """Whether a field is a number (of infinity and the like: no)."""
    try:
        return math.isfinite(float(text)) and "_" not in text
    except ValueError:
        return False


def content_of(fields: Sequence[str]) -> Content:
    """What most of the fields are."""
    if all(map(str.isdecimal, fields)):
        return Content.WHOLE
    present = [field for field in fields if not is_missing(field)]
    if not present:
        return Content.EMPTY
    numbers = [float(field) for field in present if is_number(field)]
    if 2 * len(numbers) < len(present):
        return Content.TEXT
    return Content.WHOLE if all(value.is_integer() for value in numbers) else Content.FRACTION


def _first_lines(path: Path, n_lines: int) -> list[str]:
    """The first complete lines: ``n_lines``, or as many as the first megabytes hold, but two at least."""
    blocks: list[bytes] = []
    size, ends, whole = 0, 0, True
    with closing(read_blocks(path, _BLOCK_BYTES)) as stream:
        for block in stream:
            blocks.append(block)
            size += len(block)
            ends += block.count(b"\n") or block.count(b"\r")
            if ends > n_lines or (size > _HEAD_BYTES and ends > 2) or size > MAX_LINE_BYTES:
                whole = False
                break
    lines = b"".join(blocks).removeprefix(_BOM).splitlines(keepends=True)
    if lines and not whole:
        lines = lines[:-1]
    return [decode(line).rstrip("\r\n") for line in lines[:n_lines]]


def _delimiter(lines: Sequence[str]) -> str:
    """The delimiter that splits most lines into the same, greatest number of fields."""
    best, most = "\t", 1
    for delimiter in _DELIMITERS:
        widths = Counter(len(split_line(line, delimiter)) for line in lines)
        width, count = widths.most_common(1)[0]
        if width > most and count >= 0.8 * len(lines):
            best, most = delimiter, width
    return best


def read_head(path: Path) -> TableHead | None:
    """Header and first rows of a text table; None where the file holds no table of several columns.

    Raises
    ------
    UserError
        The file is damaged, or header and rows do not fit each other.
    """
    for n_lines in (_HEAD_LINES, 100 * _HEAD_LINES):
        lines = _first_lines(path, n_lines)
        top = 0
        while top < len(lines) and (not lines[top].strip() or lines[top].startswith(("#", "%"))):
            top += 1
        if top < len(lines) - 2:
            break
    numbered = [(number, line) for number, line in enumerate(lines[top:], start=top + 1) if line.strip(' \t,;"')]
    if len(numbered) < 2:
        return None
    delimiter = _delimiter([line for _, line in numbered[1:20]])
    rows = [(number, split_line(line, delimiter)) for number, line in numbered]
    comment = split_line(lines[top - 1].lstrip("#% "), delimiter) if top else []
    return head_of_rows(rows, delimiter, comment, str(path), n_comments=top)


def read_lone_header(path: Path) -> list[str] | None:
    """Names in the only line of a table without rows; None where the file holds more, or no names."""
    lines = [line for line in _first_lines(path, _HEAD_LINES) if line.strip() and not line.startswith(("#", "%"))]
    if len(lines) != 1:
        return None
    names = [name.strip() for name in split_line(lines[0], _delimiter(lines))]
    return names[1:] if len(names) > 2 and not any(map(is_number, names)) else None


def head_of_rows(
    rows: Sequence[tuple[int, list[str]]], delimiter: str, comment: Sequence[str], where: str, n_comments: int = 0
) -> TableHead | None:
    """Find header and width among the first rows.

    Parameters
    ----------
    rows
        Numbers and fields of the first rows that are neither empty nor comments.
    delimiter
        As in :class:`TableHead`.
    comment
        Fields of the last comment before them: it is the header where the rows begin at once.
    where, n_comments
        For messages.

    Raises
    ------
    UserError
        Header and rows have different lengths.
    """
    sizes = Counter(len(fields) for _, fields in rows[1:])
    width = sizes.most_common(1)[0][0]
    if width < 2:
        return None
    notes = [f"skipped {n_comments} lines of comments"] if n_comments else []
    titles = 0
    while titles < min(10, len(rows) - 2) and len(_stripped(rows[titles][1])) < 2 < width:
        titles += 1
    if titles:
        notes = [f"skipped {n_comments + titles} lines of comments or titles before the header"]
    header, body = rows[titles][1], rows[titles + 1 :]
    if len(comment) in (width, width - 1) and _mostly_numbers(header) and not _mostly_numbers(comment):
        header, body = list(comment), rows[titles:]
        notes = ["took the last comment for the header"]
    typical = [fields for _, fields in body if len(fields) == width]
    lengths = [len(_stripped(fields)) for fields in typical]
    # A sheet's rows are all as long as its longest one.
    filled = max(lengths) if delimiter else Counter(lengths).most_common(1)[0][0]
    names = _stripped(header)
    if len(names) in (filled, filled - 1):
        width = filled
    elif len(header) in (width, width - 1):
        names = list(header)
    elif not any(_mostly_numbers(fields[1:]) for fields in typical):
        return None
    elif not filled < len(names) <= width:
        raise UserError(
            f"{where}: the header (line {rows[titles][0]}) names {len(names):,} columns and the rows have {filled:,} "
            f"(line {body[0][0]}); a header has as many names as a row has fields, or one fewer; mend the table"
        )
    else:
        width = len(names)
    names = names if len(names) == width else ["", *names]
    n_rows = max(3, min(len(body), _TYPED_FIELDS // width))
    fitted = [(fields + [""] * (width - len(fields)))[:width] for _, fields in body[:n_rows]]
    return TableHead(delimiter, tuple(names), fitted, body[0][0], tuple(notes))


def _stripped(fields: Sequence[str]) -> list[str]:
    """Fields without the empty ones at the end."""
    stop = len(fields)
    while stop and not fields[stop - 1].strip():
        stop -= 1
    return list(fields[:stop])


def _mostly_numbers(fields: Sequence[str]) -> bool:
    return sum(is_number(field) for field in fields) > 0.5 * len(fields)
