"""Dense tables in Excel workbooks (.xlsx): a twentieth of the series on GEO.

One sheet with a table of numbers is read by the same rules as a text table (:mod:`dense_columns`). A workbook is a zip
of XML from a stranger: its parts are inflated within bounds, and the extent of each sheet is measured, before the
library that reads it sees it, because that allots memory for the whole rectangle between the outermost cells.
"""

from __future__ import annotations

import datetime
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from immunomod.errors import UserError
from immunomod.sample.readers.dense import head_of_library, library_of, plan_of
from immunomod.sample.readers.dense_columns import ColumnPlan, is_matrix
from immunomod.sample.readers.dense_head import TableHead, head_of_rows, is_number
from immunomod.sample.readers.library import Layout, LibraryCounts, LibraryFiles, LibraryHead
from immunomod.sample.readers.sniff import Kind, SniffedFile, open_bytes, reading

if TYPE_CHECKING:
    from python_calamine import CalamineWorkbook

    from immunomod.sample.readers.dense_parse import ParsedTable

#: A workbook beyond these takes gigabytes to open. Excel itself ends at 17 thousand million cells a sheet.
MAX_FILE_BYTES = 256 << 20
MAX_INFLATED_BYTES = 1 << 30
MAX_CELLS = 30_000_000
_MAX_PARTS = 10_000
_CHUNK = 1 << 20
_HEAD_ROWS = 200
_BATCH_ROWS = 256
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DATE_NAME = re.compile(rf"\d{{1,2}}-({'|'.join(_MONTHS)})")
#: Excel's number of a day from 2000 to 2064, which a cell without a date's format shows.
_DAY_NUMBER = re.compile(r"(3[7-9]|[45]\d)\d{3}")
_REFERENCE = re.compile(rb"""\br\s*=\s*["']([A-Za-z]{1,4})([0-9]{1,8})["']""")
_ROW_NUMBER = re.compile(rb"""^[^>]*?\br\s*=\s*["']([0-9]{1,8})["']""")
_SAVE_AS_TEXT = "save the sheet as a tab-separated text file and use that"


def _text(value: Any) -> str:
    """A cell as Excel shows it: whole numbers without a point, dates as day and month (``1-Mar``)."""
    if isinstance(value, str):
        return value
    if isinstance(value, datetime.date):
        return f"{value.day}-{_MONTHS[value.month - 1]}"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).upper() if isinstance(value, bool) else str(value)


def _bytes_of(path: Path) -> bytes:
    with reading(path), closing(open_bytes(path)) as stream:
        content = stream.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise UserError(f"{path}: the workbook is larger than {MAX_FILE_BYTES >> 20} MB; {_SAVE_AS_TEXT}")
    return content


def _inflated(content: bytes, part: zipfile.ZipInfo) -> Iterator[bytes]:
    """The bytes of a part in pieces, however many it claims to have."""
    start = part.header_offset + 30
    name, extra = struct.unpack("<HH", content[start - 4 : start])
    start += name + extra
    raw = memoryview(content)[start : start + part.compress_size]
    if part.compress_type == zipfile.ZIP_STORED:
        yield bytes(raw)
        return
    if part.compress_type != zipfile.ZIP_DEFLATED:
        raise zipfile.BadZipFile(f"compression method {part.compress_type}")
    inflate = zlib.decompressobj(-15)
    for place in range(0, len(raw), _CHUNK):
        piece = inflate.decompress(raw[place : place + _CHUNK], _CHUNK)
        while piece:
            yield piece
            piece = inflate.decompress(inflate.unconsumed_tail, _CHUNK)


def _column_number(letters: bytes) -> int:
    number = 0
    for letter in letters.upper():
        number = 26 * number + letter - 64
    return number


def _whole_tags(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes cut before a ``<``, so that no tag of usual length is torn apart."""
    held = b""
    for piece in pieces:
        piece = held + piece
        cut = piece.rfind(b"<")
        if cut <= 0 or len(piece) - cut > _CHUNK:
            cut = len(piece)
        yield piece[:cut]
        held = piece[cut:]
    yield held


def _extent(pieces: Iterator[bytes]) -> int:
    """Cells in the rectangle from the first to the outermost one, by their references or by counting them."""
    height = width = n_rows = n_cells = 0
    for text in _whole_tags(pieces):
        for number, row in enumerate(text.split(b"<row")):
            if number:
                n_rows, n_cells = n_rows + 1, 0
                named = _ROW_NUMBER.match(row)
                height = max(height, n_rows, int(named[1]) if named else 0)
            n_cells += row.count(b"<c ") + row.count(b"<c>") + row.count(b":c ") + row.count(b":c>")
            width = max(width, n_cells)
        references = _REFERENCE.findall(text)
        if references:
            width = max(width, max(map(_column_number, {letters for letters, _ in references})))
            height = max(height, max(map(int, {digits for _, digits in references})))
    return height * width


def _check_bounds(path: Path, content: bytes) -> None:
    """Refuse a workbook that would take more memory than the bounds, whatever its directory claims."""
    with zipfile.ZipFile(io.BytesIO(content)) as book:
        parts = book.infolist()
    claimed = sum(part.file_size for part in parts)
    if len(parts) > _MAX_PARTS or claimed > MAX_INFLATED_BYTES:
        raise UserError(
            f"{path}: the workbook holds {len(parts):,} parts of {claimed / 1e9:.1f} GB in all once unpacked; that is "
            f"too much to open. {_SAVE_AS_TEXT.capitalize()}"
        )
    for part in parts:
        size = 0

        def counted(part: zipfile.ZipInfo = part) -> Iterator[bytes]:
            nonlocal size
            for piece in _inflated(content, part):
                size += len(piece)
                if size > part.file_size:
                    raise UserError(f"{path}: {part.filename} is larger than the workbook says; not opened")
                yield piece

        cells = _extent(counted())  # of every part: any may be named as a sheet
        if cells > MAX_CELLS:
            raise UserError(
                f"{path}: {part.filename} spans {cells:,} cells, more than the {MAX_CELLS:,} that can be opened; "
                f"{_SAVE_AS_TEXT}"
            )


@contextmanager
def _opened(path: Path) -> Iterator[CalamineWorkbook]:
    """The workbook; whatever is wrong with it is one message."""
    from python_calamine import CalamineError, CalamineWorkbook, PasswordError

    try:
        content = _bytes_of(path)
        _check_bounds(path, content)
        book = CalamineWorkbook.from_filelike(io.BytesIO(content))
        del content
        yield book
    except UserError:
        raise
    except PasswordError:
        raise UserError(f"{path}: the workbook is protected by a password; save it without one") from None
    except (CalamineError, zipfile.BadZipFile, zlib.error, struct.error, ValueError, OSError, EOFError) as error:
        raise UserError(
            f"{path}: the workbook is damaged and cannot be opened ({error}); fetch it again, or {_SAVE_AS_TEXT}"
        ) from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # a bug of the Rust library, met on bad input
            raise
        raise UserError(f"{path}: the workbook cannot be opened ({error}); {_SAVE_AS_TEXT}") from None


def _rows(book: CalamineWorkbook, sheet: str) -> Iterator[tuple[int, list[Any]]]:
    """Numbers (from 1) and cells of the rows that are not empty; empty columns at the left are cut off."""
    table = book.get_sheet_by_name(sheet)
    for number, row in enumerate(table.iter_rows(), start=1):
        cells = row[-table.width :]
        if any(cell != "" for cell in cells):
            yield number, cells


def _head_of_sheet(book: CalamineWorkbook, sheet: str, where: str) -> TableHead | None:
    rows = []
    for number, cells in _rows(book, sheet):
        rows.append((number, [_text(cell) for cell in cells]))
        if len(rows) == _HEAD_ROWS:
            break
    return head_of_rows(rows, "", [], where) if len(rows) > 1 else None


@lru_cache(maxsize=64)
def _heads(path: Path, _changed: int, _size: int) -> dict[str, TableHead]:
    """Heads of those sheets of a workbook that hold matrices of numbers."""
    found = {}
    with _opened(path) as book:
        for sheet in book.sheet_names:
            try:
                head = _head_of_sheet(book, sheet, f"{path}, sheet {sheet!r}")
            except UserError:
                continue
            if head is not None and is_matrix(head):
                found[sheet] = head
    return found


def _matrices(path: Path) -> dict[str, TableHead]:
    state = path.stat()
    return _heads(path, state.st_mtime_ns, state.st_size)


def _only_sheet(matrix: SniffedFile) -> tuple[str, TableHead]:
    if matrix.damage:
        raise UserError(matrix.damage)
    found = _matrices(matrix.path)
    if not found:
        raise UserError(f"{matrix.path}: no sheet holds a table with a header, names and counts")
    if len(found) > 1:
        names = ", ".join(repr(sheet) for sheet in found)
        raise UserError(
            f"{matrix.path}: {len(found)} sheets hold tables of numbers ({names}); save the one with this sample's raw "
            "counts as a workbook or text file of its own, and name it in the sheet's column `files`"
        )
    return next(iter(found.items()))


def _number(value: Any, where: str, column: str) -> float:
    """A cell's number; text that is one counts, anything else is a :class:`UserError` with its place."""
    from immunomod.sample.readers.dense_parse import refuse_value

    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    text = _text(value)
    if not is_number(text):
        refuse_value(where, column, text)
    return float(text)


def _parse(book: CalamineWorkbook, sheet: str, head: TableHead, plan: ColumnPlan, where: str) -> ParsedTable:
    from immunomod.sample.readers.dense_parse import ParsedTable

    table = ParsedTable(len(plan.values), [[] for _ in plan.texts])
    width = len(head.header)
    batch: list[np.ndarray] = []
    for number, cells in _rows(book, sheet):
        if number < head.first_line:
            continue
        place = f"{where}, row {number} ({_text(cells[plan.texts[0]])})"
        if any(cell != "" for cell in cells[width:]):
            raise UserError(f"{place} holds more cells than the {width:,} of the header; mend the row")
        values = [cells[column] for column in plan.values]
        try:
            if any(isinstance(value, (str, bool)) for value in values):
                raise TypeError
            row = np.array(values, dtype=np.float64)
        except TypeError:
            row = np.array(
                [_number(value, place, head.header[c]) for value, c in zip(values, plan.values, strict=True)]
            )
        for names, column in zip(table.texts, plan.texts, strict=True):
            names.append(_text(cells[column]))
        batch.append(row)
        if len(batch) == _BATCH_ROWS:
            _append(table, batch)
            batch = []
    if batch:
        _append(table, batch)
    return table


def _append(table: ParsedTable, batch: Sequence[np.ndarray]) -> None:
    values = np.vstack(batch)
    rows, columns = np.nonzero(values)
    table.tally += np.bincount(columns, minlength=table.n_columns)
    table.append(columns, values[rows, columns], np.cumsum(np.bincount(rows, minlength=len(batch))))


def dates_in_words(names: pd.Series) -> list[str]:
    """How many names Excel made dates, or the numbers of days; bringing them back is up to the names' clean-up."""
    dates = names.str.fullmatch(_DATE_NAME)
    days = names.str.fullmatch(_DAY_NUMBER) if names.str.fullmatch(r"\d+").mean() < 0.5 else dates & False
    notes = []
    if dates.any():
        notes.append(f"{int(dates.sum()):,} names of genes are dates that Excel made of them ({names[dates].iloc[0]})")
    if days.any():
        notes.append(f"{int(days.sum()):,} names of genes are Excel's numbers of days ({names[days].iloc[0]})")
    return notes


def read_xlsx(matrix: SniffedFile, files: LibraryFiles) -> LibraryCounts:
    """Read the one sheet of a workbook that holds a table of numbers."""
    sheet, head = _only_sheet(matrix)
    where = f"{matrix.path}, sheet {sheet!r}"
    plan, _ = plan_of(head, files, where)
    with _opened(matrix.path) as book:
        table = _parse(book, sheet, head, plan, where)
    library = library_of(table, head, plan, matrix, files, f"Excel sheet {sheet!r}")
    library.decisions += dates_in_words(library.features["gene_symbol"])
    return library


def peek_xlsx(matrix: SniffedFile, files: LibraryFiles) -> LibraryHead:
    """What the sheet's header and names tell."""
    sheet, head = _only_sheet(matrix)
    plan, _ = plan_of(head, files, f"{matrix.path}, sheet {sheet!r}")
    texts: list[list[str]] = [[] for _ in plan.texts]
    with _opened(matrix.path) as book:
        for number, cells in _rows(book, sheet):
            if number >= head.first_line:
                for names, column in zip(texts, plan.texts, strict=True):
                    names.append(_text(cells[column]))
    return head_of_library([pd.Series(one, dtype=object) for one in texts], True, head, plan, matrix, files)


def _recognise(files: LibraryFiles) -> Sequence[SniffedFile]:
    for candidates in (files.own, files.shared):
        found = [file for file in candidates if file.kind is Kind.XLSX and _may_hold_counts(file)]
        if found:
            return found
    return []


def _may_hold_counts(file: SniffedFile) -> bool:
    """Whether a sheet holds a matrix; a workbook that cannot be opened may, and says so when it is read."""
    try:
        return bool(_matrices(file.path))
    except UserError:
        return True


XLSX = Layout(
    name="xlsx",
    citation="ECMA-376, Office Open XML file formats (SpreadsheetML)",
    needs="one sheet with a header of cells (or genes), then names and counts",
    limits=f"up to {MAX_CELLS:,} cells; one sheet with a table of numbers per workbook; not the older .xls",
    recognise=_recognise,
    run=read_xlsx,
    peek=peek_xlsx,
    last_resort=True,
)
