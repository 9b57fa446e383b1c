"""The compiled loop that turns the text of a dense table into its non-zero entries, and those into CSR over cells.

A module of its own because importing numba takes half a second that only a reading need pay. Blocks of whole lines go
through one kernel; what it finds is kept in the smallest types that hold it (two bytes for a column, one or two for a
count), and a counting sort writes the result while those parts are let go, so memory stays near that of the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numba import njit, types
from scipy import sparse

from immunomod.errors import UserError
from immunomod.sample.readers.dense_head import MAX_LINE_BYTES, decode, split_line, unquote
from immunomod.sample.readers.stream import read_blocks

BLOCK_BYTES = 1 << 21

# Places in the kernel's state. LINE lives from call to call.
_LINE, _FIRST_LINE, _ROWS, _ENTRIES, _COLUMN, _BEGIN, _END, _ROW_BEGIN, _BLANK_ROWS, _STATE_SIZE = range(10)
# Why the kernel stopped.
_DONE, _BAD_NUMBER, _TOO_FEW, _TOO_MANY, _OPEN_QUOTE = range(5)

_TAB, _LF, _CR, _SPACE, _QUOTE = 9, 10, 13, 32, 34
_PLUS, _MINUS, _POINT, _ZERO = 43, 45, 46, 48
_UPPER_E, _LOWER_E = 69, 101
_EXACT_DIGITS = 15
_MAX_DIGITS = 18
_MAX_EXPONENT = 308
_POWERS = np.array([float(f"1e{power}") for power in range(_MAX_EXPONENT + 1)])

_TEXT = types.Array(types.uint8, 1, "C", readonly=True)
_INT32S = types.Array(types.int32, 1, "C")
_INT64S = types.Array(types.int64, 1, "C")
_FLOAT64S = types.Array(types.float64, 1, "C")


@njit(types.int64(_TEXT, types.int64, types.int64), nogil=True, cache=True)
def _field_end(text: np.ndarray, i: int, delimiter: int) -> int:
    """Where the field at ``i`` ends; below 0 where a quotation mark is still open at the end of the line."""
    quoted, inside = text[i] == _QUOTE, False
    while True:
        c = np.int64(text[i])
        if c in (_LF, _CR):
            return -i - 1 if inside else i
        if quoted and c == _QUOTE:
            inside = not inside
        elif c == delimiter and not inside:
            return i
        i += 1


@njit(types.float64(_TEXT, types.int64, types.int64), nogil=True, cache=True)
def _number(text: np.ndarray, i: int, end: int) -> float:
    """The number that fills ``text[i:end]`` but for blanks and a pair of quotation marks around it; NaN where none.

    Up to 15 significant digits give the nearest float64 (Clinger 1990, PLDI 25:92); longer ones may be off in the
    last place.
    """
    while i < end and (text[i] == _SPACE or text[i] == _TAB):
        i += 1
    while end > i and (text[end - 1] == _SPACE or text[end - 1] == _TAB):
        end -= 1
    if end > i + 1 and text[i] == _QUOTE and text[end - 1] == _QUOTE:  # a pair; a lone one is damage
        i += 1
        end -= 1
        while i < end and (text[i] == _SPACE or text[i] == _TAB):
            i += 1
        while end > i and (text[end - 1] == _SPACE or text[end - 1] == _TAB):
            end -= 1
    negative = i < end and text[i] == _MINUS
    if i < end and (text[i] == _MINUS or text[i] == _PLUS):
        i += 1
    mantissa: Any = np.int64(0)
    exponent: Any = np.int64(0)
    digits, seen = 0, 0
    behind_point = False
    while i < end:
        c = np.int64(text[i])
        if _ZERO <= c <= _ZERO + 9:
            seen += 1
            if digits < _MAX_DIGITS:
                mantissa = mantissa * 10 + (c - _ZERO)
                digits += 1 if mantissa > 0 else 0
                exponent -= 1 if behind_point else 0
            elif not behind_point:
                exponent += 1
        elif c == _POINT and not behind_point:
            behind_point = True
        else:
            break
        i += 1
    if seen == 0:
        return np.nan
    if i < end and (text[i] == _UPPER_E or text[i] == _LOWER_E):
        i += 1
        down = i < end and text[i] == _MINUS
        if i < end and (text[i] == _MINUS or text[i] == _PLUS):
            i += 1
        power, seen = np.int64(0), 0
        while i < end and _ZERO <= np.int64(text[i]) <= _ZERO + 9:
            power = min(power * 10 + (np.int64(text[i]) - _ZERO), np.int64(100_000))
            seen += 1
            i += 1
        if seen == 0:
            return np.nan
        exponent += -power if down else power
    if i < end:
        return np.nan
    while behind_point and exponent < 0 and mantissa > 0 and mantissa % 10 == 0:  # 5.000 is exactly 5
        mantissa //= 10
        exponent += 1
    value = float(mantissa)
    if mantissa > 0 and exponent > 0:
        value = value * _POWERS[exponent] if exponent <= _MAX_EXPONENT else np.inf
    elif mantissa > 0 and exponent < 0:
        value /= _POWERS[min(-exponent, _MAX_EXPONENT)]
        if exponent < -_MAX_EXPONENT:
            value /= _POWERS[min(-exponent - _MAX_EXPONENT, _MAX_EXPONENT)]
    return -value if negative else value


@njit(
    types.int64(
        _TEXT, types.int64, types.boolean, types.int64, types.int64, _INT32S, _INT64S,
        _INT32S, _FLOAT64S, _INT64S, types.Array(types.int64, 2, "C"), _INT64S, _INT64S,
    ),
    nogil=True,
    cache=True,
)  # fmt: skip
def _parse_lines(
    text: np.ndarray,
    delimiter: int,
    collapse: bool,
    first: int,
    last: int,
    target: np.ndarray,
    slot: np.ndarray,
    columns: np.ndarray,
    values: np.ndarray,
    row_ends: np.ndarray,
    bounds: np.ndarray,
    tally: np.ndarray,
    state: np.ndarray,
) -> int:
    """Read whole lines of a table, the last of which ends in CR or LF, too.

    Parameters
    ----------
    text
        Bytes (uint8).
    delimiter, collapse
        The byte between fields; whether a run of it counts as one (spaces).
    first, last
        The columns from ``first`` to ``last`` hold all the numbers that are wanted.
    target, slot
        By column: its number in the result (-1: not wanted), and which text it gives (-1: none).
    columns, values, row_ends, bounds
        Filled with the non-zero entries, the number of entries up to the end of each row, and where each text begins
        and ends.
    tally
        Raised at each entry's column.
    state
        See the names above; changed in place.

    Returns
    -------
    ``_DONE``, or why it stopped; the state then tells line, column and field.
    """
    width = target.size
    stop = text.size
    i, rows, entries = 0, 0, 0
    code = _DONE
    while i < stop and code == _DONE:
        row_begin = i
        c = np.int64(text[i])
        j = i
        while c in (delimiter, _SPACE, _TAB, _QUOTE):
            j += 1
            c = np.int64(text[j])
        blank = c in (_LF, _CR)
        if blank or state[_LINE] < state[_FIRST_LINE]:
            while c != _LF and c != _CR:
                j += 1
                c = np.int64(text[j])
            if j > i and state[_LINE] >= state[_FIRST_LINE]:
                state[_BLANK_ROWS] += 1
            i = j
        else:
            while collapse and text[i] == delimiter:
                i += 1
            column = 0
            while True:
                if first <= column <= last:
                    c = np.int64(text[i])
                    if c == _ZERO and not collapse and text[i + 1] == delimiter:
                        i += 2
                        column += 1
                        continue
                    begin, whole = i, np.int64(0)
                    digit = c - _ZERO
                    while 0 <= digit <= 9:
                        whole = whole * 10 + digit
                        i += 1
                        digit = np.int64(text[i]) - _ZERO
                    c = np.int64(text[i])
                    value = float(whole)
                    if i == begin or i > begin + _EXACT_DIGITS or (c != delimiter and c != _LF and c != _CR):
                        i = _field_end(text, begin, delimiter)
                        if i < 0:
                            code = _OPEN_QUOTE
                            i = -i - 1
                        value = 0.0
                        if target[column] >= 0 and code == _DONE:
                            value = _number(text, begin, i)
                            if np.isnan(value):
                                ended = i == begin and text[i] != delimiter and column + 1 < width
                                code = _TOO_FEW if ended else _BAD_NUMBER
                    if value != 0.0 and target[column] >= 0 and code == _DONE:
                        columns[entries] = target[column]
                        values[entries] = value
                        tally[target[column]] += 1
                        entries += 1
                else:
                    begin = i
                    i = _field_end(text, i, delimiter)
                    if i < 0:
                        code = _OPEN_QUOTE
                        i = -i - 1
                    elif column < width:
                        if slot[column] >= 0:
                            bounds[rows, 2 * slot[column]] = begin
                            bounds[rows, 2 * slot[column] + 1] = i
                    elif i > begin and not (i == begin + 2 and text[begin] == _QUOTE):
                        code = _TOO_MANY
                if code != _DONE:
                    state[_BEGIN], state[_END] = begin, i
                    break
                if text[i] != delimiter:
                    break
                i += 1
                while collapse and text[i] == delimiter:
                    i += 1
                if collapse and (text[i] == _LF or text[i] == _CR):
                    break
                column += 1
            if code == _DONE and column + 1 < width:
                code = _TOO_FEW
            if code != _DONE:
                state[_COLUMN] = column
                state[_ROW_BEGIN] = row_begin
                break
            row_ends[rows] = entries
            rows += 1
        c = np.int64(text[i])
        i += 1
        if c == _CR and i < stop and text[i] == _LF:
            i += 1
        state[_LINE] += 1
    state[_ROWS], state[_ENTRIES] = rows, entries
    return code


_NUMBERS = [types.Array(number, 1, "C") for number in (types.int32, types.float32, types.float64)]


@njit(
    [types.void(_INT32S, _INT64S, _INT32S, numbers, _INT64S, _INT32S, numbers) for numbers in _NUMBERS],
    nogil=True,
    cache=True,
)
def _place(
    columns: np.ndarray,
    row_ends: np.ndarray,
    row_numbers: np.ndarray,
    values: np.ndarray,
    free: np.ndarray,
    indices: np.ndarray,
    data: np.ndarray,
) -> None:
    """Write each entry at the next free position of its column, as the counting sort of a transposition does."""
    k = 0
    for row in range(row_ends.size):
        number = row_numbers[row]
        while k < row_ends[row]:
            if number >= 0:
                place = free[columns[k]]
                indices[place] = number
                data[place] = values[k]
                free[columns[k]] = place + 1
            k += 1


@dataclass(frozen=True)
class ParsePlan:
    """How the lines of a table are to be read.

    ``delimiter`` (one space: any run of spaces), the number of the ``first_line`` that holds data (from 1), the
    ``names`` of all columns, and which columns are wanted: ``texts`` as they are, ``values`` as numbers.
    """

    delimiter: str
    first_line: int
    names: tuple[str, ...]
    texts: tuple[int, ...]
    values: tuple[int, ...]


@dataclass
class _Part:
    """Entries of some rows: column and value of each, and the number of them up to the end of each row."""

    columns: np.ndarray
    values: np.ndarray
    row_ends: np.ndarray


@dataclass
class ParsedTable:
    """Non-zero numbers of a table and its texts, before it is decided which axis holds cells.

    Parameters
    ----------
    n_columns
        Columns of numbers.
    texts
        One list of names per wanted text column, one name per row.
    parts
        Entries, in the order of the rows; :meth:`rows_as_cells` and :meth:`columns_as_cells` consume them.
    tally
        Entries in each column.
    """

    n_columns: int
    texts: list[list[str]]
    parts: list[_Part] = field(default_factory=list)
    tally: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    n_blank: int = 0

    def __post_init__(self) -> None:
        self.tally = np.zeros(self.n_columns, dtype=np.int64)

    @property
    def n_rows(self) -> int:
        """Rows read so far."""
        return len(self.texts[0])

    def append(self, columns: np.ndarray, values: np.ndarray, row_ends: np.ndarray) -> None:
        """Keep the entries of further rows in the smallest types that hold them."""
        position = np.uint16 if self.n_columns <= 1 << 16 else np.int32
        self.parts.append(_Part(columns.astype(position), _compact(values), row_ends.astype(np.int64)))

    def _result(self, n_entries: int) -> tuple[np.ndarray, np.ndarray]:
        kinds = [part.values.dtype for part in self.parts]
        whole = all(kind.kind != "f" for kind in kinds)
        kind = np.dtype(np.int32) if whole else np.result_type(*kinds)
        return np.empty(n_entries, dtype=np.int32), np.empty(n_entries, dtype=kind)

    def rows_as_cells(self) -> sparse.csr_matrix:
        """CSR of rows x columns."""
        sizes = [int(part.row_ends[-1]) if part.row_ends.size else 0 for part in self.parts]
        indices, data = self._result(sum(sizes))
        indptr = np.zeros(self.n_rows + 1, dtype=np.int64)
        row, start = 0, 0
        while self.parts:
            part = self.parts.pop(0)
            stop = start + part.columns.size
            indices[start:stop], data[start:stop] = part.columns, part.values
            indptr[row + 1 : row + 1 + part.row_ends.size] = part.row_ends + start
            row, start = row + part.row_ends.size, stop
        return _csr(data, indices, indptr, (self.n_rows, self.n_columns))

    def columns_as_cells(self, keep_rows: np.ndarray) -> sparse.csr_matrix:
        """CSR of columns x those rows for which ``keep_rows`` (bool) holds, by a counting sort."""
        numbers = np.where(keep_rows, np.cumsum(keep_rows) - 1, -1).astype(np.int32)
        starts = np.cumsum([0, *(part.row_ends.size for part in self.parts)])
        for part, start in zip(self.parts, starts, strict=False):
            for row in np.flatnonzero(~keep_rows[start : start + part.row_ends.size]):
                begin = part.row_ends[row - 1] if row else 0
                np.subtract.at(self.tally, part.columns[begin : part.row_ends[row]], 1)
        indptr = np.concatenate([[0], np.cumsum(self.tally)])
        indices, data = self._result(int(indptr[-1]))
        free = indptr[:-1].copy()
        for start in starts[:-1]:
            part = self.parts.pop(0)
            chosen = numbers[start : start + part.row_ends.size]
            values = part.values.astype(data.dtype)
            _place(part.columns.astype(np.int32), part.row_ends, chosen, values, free, indices, data)
        return _csr(data, indices, indptr, (self.n_columns, int(keep_rows.sum())))


def _csr(data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    if indptr[-1] <= np.iinfo(np.int32).max:
        indptr = indptr.astype(np.int32)
    matrix = sparse.csr_matrix((data, indices, indptr), shape=shape, copy=False)
    matrix.has_canonical_format = True
    return matrix


def _compact(values: np.ndarray) -> np.ndarray:
    """The same numbers in the smallest type: whole ones exactly, fractions as float32 unless that made one whole."""
    largest = float(np.abs(values).max()) if values.size else 0.0
    whole = values == np.floor(values)
    if not whole.all() or largest > np.iinfo(np.int32).max:
        short = values.astype(np.float32)
        same = largest < 1 << 24 and np.array_equal(short == np.floor(short), whole)
        return short if same else values.copy()
    if values.size and float(values.min()) < 0:
        return values.astype(np.int32)
    return values.astype(np.uint8 if largest < 1 << 8 else np.uint16 if largest < 1 << 16 else np.int32)


def whole_lines(path: Path, blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Regroup blocks so that each ends at a line end (LF, CRLF or CR); a missing last one is added.

    Raises
    ------
    UserError
        A line is longer than any table's.
    """
    held: list[bytes] = []
    n_held = 0
    for block in blocks:
        # A CR at the very end may be half of a CRLF.
        cut = max(block.rfind(b"\n"), block.rfind(b"\r", 0, len(block) - 1)) + 1
        if n_held and held[-1].endswith(b"\r"):
            cut = max(cut, 1 if block.startswith(b"\n") else 0)
            if not cut:
                yield b"".join(held)
                held, n_held = [], 0
        if cut:
            yield b"".join([*held, block[:cut]])
            held, n_held = [], 0
        if cut < len(block):
            held.append(block[cut:])
            n_held += len(held[-1])
        if n_held > MAX_LINE_BYTES:
            raise UserError(
                f"{path}: a line is longer than {MAX_LINE_BYTES >> 20} MB; this is no table, or its line ends are lost"
            )
    if n_held:
        rest = b"".join(held)
        yield rest if rest.endswith((b"\n", b"\r")) else rest + b"\n"


def parse_table(path: Path, plan: ParsePlan, block_bytes: int = BLOCK_BYTES) -> ParsedTable:
    """Read the numbers and names of a table in one pass.

    Raises
    ------
    UserError
        With line and column: a field that is no number, rows of another length than the header's, a quotation mark
        left open, a file that is cut short or damaged.
    """
    width = len(plan.names)
    target, slot = np.full(width, -1, dtype=np.int32), np.full(width, -1, dtype=np.int64)
    target[list(plan.values)] = np.arange(len(plan.values))
    slot[list(plan.texts)] = np.arange(len(plan.texts))
    table = ParsedTable(len(plan.values), [[] for _ in plan.texts])
    state = np.zeros(_STATE_SIZE, dtype=np.int64)
    state[_LINE], state[_FIRST_LINE] = 1, plan.first_line
    columns, values = np.empty(0, dtype=np.int32), np.empty(0)
    blocks = whole_lines(path, read_blocks(path, block_bytes))
    for text in blocks:
        if columns.size < len(text) // 2 + 1:
            columns, values = np.empty(len(text) // 2 + 1, dtype=np.int32), np.empty(len(text) // 2 + 1)
        n_rows = len(text) // width + 2
        row_ends = np.empty(n_rows, dtype=np.int64)
        bounds = np.zeros((n_rows, 2 * len(plan.texts)), dtype=np.int64)
        code = _parse_lines(
            np.frombuffer(text, dtype=np.uint8), ord(plan.delimiter), plan.delimiter == " ", min(plan.values),
            max(plan.values), target, slot, columns, values, row_ends, bounds, table.tally, state,
        )  # fmt: skip
        if code != _DONE:
            _refuse(path, plan, code, text, state, blocks)
        rows, entries = int(state[_ROWS]), int(state[_ENTRIES])
        for k, names in enumerate(table.texts):
            names.extend(unquote(decode(text[a:b])) for a, b in bounds[:rows, 2 * k : 2 * k + 2].tolist())
        table.append(columns[:entries], values[:entries], row_ends[:rows])
    table.n_blank = int(state[_BLANK_ROWS])
    return table


def _refuse(path: Path, plan: ParsePlan, code: int, text: bytes, state: np.ndarray, following: Iterator[bytes]) -> None:
    """Say in words why the kernel stopped, where, and what to do."""
    line, column = int(state[_LINE]), int(state[_COLUMN])
    rest = text[int(state[_ROW_BEGIN]) :].splitlines()
    name = split_line(decode(rest[0][:1000]), plan.delimiter)[0][:60]
    at_end = len(rest) == 1 and next(following, None) is None
    where = f"{path}: line {line} ({name})"
    if code in (_TOO_FEW, _OPEN_QUOTE) and at_end:
        raise UserError(
            f"{where}, the last one, holds {column + 1:,} fields and the header {len(plan.names):,}: the file is cut "
            "short; fetch it again"
        )
    if code == _OPEN_QUOTE:
        raise UserError(f"{where}: a quotation mark is left open; mend the line")
    if code == _TOO_FEW:
        raise UserError(f"{where} holds {column + 1:,} fields and the header {len(plan.names):,}; mend the line")
    if code == _TOO_MANY:
        raise UserError(f"{where} holds more fields than the {len(plan.names):,} of the header; mend the line")
    refuse_value(where, plan.names[column], decode(text[int(state[_BEGIN]) : int(state[_END])])[:60])


def refuse_value(where: str, column: str, value: str) -> None:
    """Raise for a value that is no number: a missing one is never taken for 0, and text may be annotation."""
    plain = unquote(value).strip()
    missing = plain.lower() in {"", "na", "nan", "n/a", "null", "none", "inf", "-inf"}
    what = "the value is empty" if not plain else f"{plain!r} is no number"
    advice = (
        "a missing count is not 0: mend the table, or leave the sample out"
        if missing
        else "counts are needed. If the column is no cell (or gene), give patterns of the cells' names in the sheet's "
        "column `barcodes`, or remove it from the table"
    )
    raise UserError(f"{where}, column {column!r}: {what}; {advice}")


def names_of(path: Path, plan: ParsePlan) -> list[list[str]]:
    """The texts alone, one list per text column; numbers are not looked at."""
    texts: list[list[str]] = [[] for _ in plan.texts]
    last = max(plan.texts)
    line = 0
    for text in whole_lines(path, read_blocks(path)):
        for raw in text.splitlines():
            line += 1
            if line < plan.first_line or not raw.strip(b' \t,;"'):
                continue
            fields = split_line(decode(raw[: 2000 * (last + 1)]), plan.delimiter)
            for names, column in zip(texts, plan.texts, strict=True):
                names.append(fields[column] if column < len(fields) else "")
    return texts


def text_frame(texts: Sequence[Sequence[str]]) -> list[pd.Series]:
    """The texts as columns of strings."""
    return [pd.Series(one, dtype=object) for one in texts]
