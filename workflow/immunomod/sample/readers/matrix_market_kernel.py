"""The compiled loop that turns the text of MatrixMarket entries into arrays; :mod:`matrix_market` drives it.

It is a module of its own because importing numba takes half a second that only a reading need pay. There is one kernel
with one explicit signature, so that a fresh installation compiles once (a few seconds) and keeps the machine code.
"""

# mypy: disable-error-code="assignment, arg-type, return-value, no-untyped-call"
# (The loops mix Python's integers with machine integers of chosen widths, which are one type to numba's inference.)

from __future__ import annotations

import numpy as np
from numba import njit, types

# What the kernel does with an entry.
APPEND = 0  # entries come cell after cell: write each behind the last, and where cells begin
COUNT = 1  # only count the entries of each cell
PLACE = 2  # write each at its cell's next free position

# Places in the kernel's state, which lives from call to call.
LINE = 0  # number of the line that comes next, from 1
ENTRIES = 1  # entries read so far
CELL = 2  # cell of the last entry, -1 before the first
AFTER_CR = 3  # the text so far ended in CR: an LF that follows belongs to it
HAS_FRACTIONS = 4  # values go to the array of floats
OFFSET = 5  # where in the text the line starts at which the kernel stopped
STATE_SIZE = 6

# Why the kernel stopped.
DONE = 0
TOO_FEW_FIELDS = 1
TOO_MANY_FIELDS = 2
BAD_ROW = 3
BAD_COLUMN = 4
BAD_VALUE = 5
TOO_MANY_ENTRIES = 6
UNSORTED = 7  # an entry of an earlier cell came: its line is not yet read
FRACTION = 8  # a value that no int32 holds came: its line is not yet read
CHANGED = 9  # the second pass found other entries than the first
NO_ENTRY = 10  # of a line only: it is a comment, or blank

_TAB, _LF, _CR, _SPACE, _PERCENT = 9, 10, 13, 32, 37
_PLUS, _MINUS, _POINT, _ZERO, _NINE = 43, 45, 46, 48, 57
_LOWER = 32  # the bit by which a small letter differs from its capital
_A, _E, _F, _I, _N, _T, _Y = 97, 101, 102, 105, 110, 116, 121
_MAX_DIGITS = 18
_MAX_EXPONENT = 308
_POWERS = np.array([float(f"1e{power}") for power in range(_MAX_EXPONENT + 1)])
_INT32_MAX = 2147483647
_SHORT = np.uint64(9)  # digits that fit an int32, whatever they are

_TEXT = types.Array(types.uint8, 1, "C", readonly=True)
_INT64S = types.Array(types.int64, 1, "C")
_NUMBER_SIGNATURE = types.Tuple((types.float64, types.int64))(_TEXT, types.int64)
_LINE_SIGNATURE = types.Tuple((types.int64, types.int64, types.int64, types.float64, types.int64))(_TEXT, types.int64)
_ENTRIES_SIGNATURE = types.int64(
    _TEXT,
    types.int64,
    types.int64,
    types.boolean,
    types.int64,
    _INT64S,
    types.Array(types.int32, 1, "C"),
    types.Array(types.int32, 1, "C"),
    types.Array(types.float64, 1, "C"),
    _INT64S,
)


@njit(_NUMBER_SIGNATURE, nogil=True, cache=True)
def _number(text: np.ndarray, i: int) -> tuple[float, int]:
    """Value of the number at ``i`` and the position after it, or -1 where it is none.

    Takes ``12``, ``-1.50``, ``1e+05``, ``NaN``, ``NA``, ``Inf``, ``-Infinity``. Whole numbers that fit an int32 are
    exact, however many zeros follow the point, and so is what has up to 15 significant digits and a power of ten
    within 22 (Clinger 1990, PLDI 25:92); anything else may be off in the last place of a float64.
    """
    sign = 1.0
    if text[i] == _PLUS or text[i] == _MINUS:
        sign = -1.0 if text[i] == _MINUS else 1.0
        i += 1
    first = text[i] | _LOWER
    if first == _N:
        i += 1
        if text[i] | _LOWER != _A:
            return np.nan, -1
        i += 1
        return np.nan, i + 1 if text[i] | _LOWER == _N else i
    if first == _I:
        letters = (_I, _N, _F, _I, _N, _I, _T, _Y)
        n = 0
        while n < 8 and text[i] | _LOWER == letters[n]:
            n += 1
            i += 1
        return sign * np.inf, i if n == 3 or n == 8 else -1
    mantissa, exponent, digits, n_seen = 0, 0, 0, 0
    behind_point = False
    while True:
        c = np.int64(text[i])
        if _ZERO <= c <= _NINE:
            n_seen += 1
            if digits < _MAX_DIGITS:
                mantissa = mantissa * 10 + (c - _ZERO)
                if mantissa > 0:
                    digits += 1
                if behind_point:
                    exponent -= 1
            elif not behind_point:
                exponent += 1
        elif c == _POINT and not behind_point:
            behind_point = True
        else:
            break
        i += 1
    if n_seen == 0:
        return np.nan, -1
    if text[i] | _LOWER == _E:
        i += 1
        negative = text[i] == _MINUS
        if text[i] == _PLUS or text[i] == _MINUS:
            i += 1
        power, n_seen = 0, 0
        while _ZERO <= np.int64(text[i]) <= _NINE:
            if power < 100000:
                power = power * 10 + (np.int64(text[i]) - _ZERO)
            n_seen += 1
            i += 1
        if n_seen == 0:
            return np.nan, -1
        exponent += -power if negative else power
    value = float(mantissa)
    if mantissa > 0 and exponent > 0:
        value = value * _POWERS[exponent] if exponent <= _MAX_EXPONENT else np.inf
    elif mantissa > 0 and exponent < 0:
        value /= _POWERS[min(-exponent, _MAX_EXPONENT)]
        if exponent < -_MAX_EXPONENT:
            value /= _POWERS[min(-exponent - _MAX_EXPONENT, _MAX_EXPONENT)]
    return sign * value, i


@njit(inline="always")
def _ends_field(c: int) -> bool:
    return c in (_SPACE, _TAB, _LF, _CR)


@njit(inline="always")
def _digits(text: np.ndarray, i: int) -> tuple[int, int]:
    """Value of the digits from ``i`` on, and the position after them (unsigned, which spares checks at every byte).

    Meaningless above ``_SHORT`` digits.
    """
    value = np.uint32(0)
    digit = np.uint32(np.uint32(text[i]) - np.uint32(_ZERO))
    while digit <= np.uint32(9):
        value = np.uint32(value * np.uint32(10) + digit)
        i += np.uint64(1)
        digit = np.uint32(np.uint32(text[i]) - np.uint32(_ZERO))
    return value, i


@njit(_LINE_SIGNATURE, nogil=True, cache=True)
def _irregular_line(text: np.ndarray, i: int) -> tuple[int, int, int, float, int]:
    """Read a line that is not simply ``12 3 4``: code, row, column, value, and the position of its end.

    The code is ``NO_ENTRY`` for comments and blank lines. A row or column that is no whole number is 0.
    """
    row, column, number, n_fields = 0.0, 0.0, 0.0, 0
    while True:
        while text[i] == _SPACE or text[i] == _TAB:
            i += 1
        c = text[i]
        if c == _PERCENT and n_fields == 0:
            while text[i] != _LF and text[i] != _CR:
                i += 1
            return NO_ENTRY, 0, 0, 0.0, i
        if c in (_LF, _CR):
            code = NO_ENTRY if n_fields == 0 else TOO_FEW_FIELDS if n_fields < 3 else DONE
            break
        if n_fields == 3:
            code = TOO_MANY_FIELDS
            break
        value, end = _number(text, i)
        if end < 0 or not _ends_field(text[end]):
            code = BAD_ROW if n_fields == 0 else BAD_COLUMN if n_fields == 1 else BAD_VALUE
            break
        if n_fields < 2 and not (1 <= value <= _INT32_MAX and value == np.floor(value)):
            value = 0.0
        row, column, number = column, number, value
        n_fields += 1
        i = end
    return code, np.int64(row), np.int64(column), number, i


@njit(_ENTRIES_SIGNATURE, nogil=True, cache=True)
def parse_entries(
    text: np.ndarray,
    n_rows: int,
    n_columns: int,
    cells_are_rows: bool,
    mode: int,
    positions: np.ndarray,
    indices: np.ndarray,
    whole: np.ndarray,
    real: np.ndarray,
    state: np.ndarray,
) -> int:
    """Read the entries of ``text``, whole lines of which the last one ends, too, in CR or LF.

    Parameters
    ----------
    text
        Bytes (uint8).
    n_rows, n_columns
        Size of the matrix as the file has it; ``cells_are_rows`` says which of them is the cells.
    mode
        ``APPEND``: ``positions`` (cells + 1) is filled with where cells begin, up to the last cell seen. ``COUNT``:
        ``positions`` is raised by 1 at each entry's cell. ``PLACE``: ``positions`` holds the next free position of
        each cell, and behind it, as one block of the same length, where the next cell begins.
    indices, whole, real
        Features (from 0) and values; values go to ``whole``, or to ``real`` once the state says that there are
        fractions. In ``COUNT`` none is written.
    state
        See the names above; changed in place.

    Returns
    -------
    ``DONE``, or why it stopped; ``state[LINE]`` and ``state[OFFSET]`` then tell the line that it did not take.
    """
    one = np.uint64(1)
    stop = np.uint64(text.size)
    line, k, current = state[LINE], state[ENTRIES], state[CELL]
    fractions = state[HAS_FRACTIONS] == 1
    n_cells = n_rows if cells_are_rows else n_columns
    limit = indices.size
    code = DONE
    i = one if state[AFTER_CR] == 1 and text[0] == _LF else np.uint64(0)
    start = i
    while i < stop:
        start = i
        # Nearly every line is three short whole numbers, one blank apart. Where a blank lacks, nothing follows it.
        first, first_end = _digits(text, start)
        second_start = first_end + np.uint64(text[first_end] == _SPACE)
        second, second_end = _digits(text, second_start)
        third_start = second_end + np.uint64(text[second_end] == _SPACE)
        third, i = _digits(text, third_start)
        row, column, value = np.int64(first), np.int64(second), np.int64(third)
        number = 0.0
        kind = DONE
        if not (
            one <= first_end - start <= _SHORT
            and one <= second_end - second_start <= _SHORT
            and one <= i - third_start <= _SHORT
            and text[i] in (_LF, _CR)
        ):
            kind, row, column, number, end = _irregular_line(text, np.int64(start))
            i = np.uint64(end)
            value = np.int64(number) if abs(number) <= _INT32_MAX else np.int64(0)
            if kind == DONE and value != number and not fractions:
                if mode != COUNT:
                    code = FRACTION
                    break
                fractions = True
        elif fractions:
            number = float(value)
        if kind == DONE:
            if row < 1 or row > n_rows:
                code = BAD_ROW
                break
            if column < 1 or column > n_columns:
                code = BAD_COLUMN
                break
            if k >= limit:
                code = TOO_MANY_ENTRIES
                break
            cell, feature = (row - 1, column - 1) if cells_are_rows else (column - 1, row - 1)
            place = k
            if mode == APPEND:
                if cell < current:
                    code = UNSORTED
                    break
                while current < cell:
                    current += 1
                    positions[current] = k
            elif mode == COUNT:
                positions[cell] += 1
            else:
                place = positions[cell]
                if place >= positions[n_cells + cell]:
                    code = CHANGED
                    break
                positions[cell] += 1
            if mode != COUNT:
                indices[place] = feature
                if fractions:
                    real[place] = number
                else:
                    whole[place] = value
            k += 1
        elif kind != NO_ENTRY:
            code = kind
            break
        if text[i] == _CR and i + one < stop and text[i + one] == _LF:
            i += one
        i += one
        line += 1
    if code == DONE:
        state[AFTER_CR] = np.int64(text[text.size - 1] == _CR)
    state[LINE], state[ENTRIES], state[CELL] = line, k, current
    state[HAS_FRACTIONS] = np.int64(fractions)
    state[OFFSET] = start
    return code
