"""R's serialised objects (saveRDS, save), parsed and never evaluated, in bounded memory.

The format's grammar is the `rdata` package's. What is added is for files from outside: the stream is read a block at a
time, no length is believed, and the number and depth of objects are bounded. Whole numbers are held as int32, texts as
bytes.
"""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
from rdata.parser import RObject, RObjectInfo, RObjectType
from rdata.parser._ascii import ParserASCII
from rdata.parser._parser import DEFAULT_ALTREP_MAP, Parser, format_float_with_scipen

from immunomod.errors import UserError
from immunomod.sample.readers.arrays import gather, slices
from immunomod.sample.readers.sniff import open_bytes, reading

_MAX_DEPTH = 5_000
_FRAMES_PER_OBJECT = 4
_MAX_OBJECTS = 5_000_000
_MAX_TEXTS = 50_000_000
_MAX_TEXT_BYTES = 1 << 24
#: A file may unpack to this, or by this factor; what deflate alone allows (1,032) is a bomb, not data.
_UNPACKED_BYTES = 4 << 30
_UNPACKED_RATIO = 100
_ASCII_BYTES = 1 << 30
#: Sequences that R stores as their ends (ALTREP) may expand to this in all.
_EXPANDED_BYTES = 1 << 30
_NA_INTEGER = int(np.iinfo(np.int32).min)

_BROKEN = (
    AssertionError, AttributeError, IndexError, KeyError, NotImplementedError, OverflowError, RecursionError,
    TypeError, ValueError, MemoryError, NameError,
)  # fmt: skip


class _RefusedError(Exception):
    """A file goes beyond a bound; the text completes "the R file"."""


class _Bounds(Parser):
    """What the parsers of both forms, binary and text, hold a file to."""

    def _start(self, limit: int) -> None:
        self._pushed: int | None = None
        self._left, self._expandable = limit, _EXPANDED_BYTES
        self._depth = self._objects = self._texts = 0
        self._known: dict[bytes, bytes] = {}
        self.altrep_constructor_dict = {
            **DEFAULT_ALTREP_MAP,
            b"compact_intseq": self._sequence,
            b"compact_realseq": self._sequence,
            b"deferred_string": self._deferred_text,
        }

    def _spend(self, size: int) -> None:
        if size < 0 or size > self._left:
            raise _RefusedError(f"declares {size:,} bytes where at most {self._left:,} are read")
        self._left -= size

    def _parse_array(self, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        return self._parse_array_values(dtype, self._length())

    def _length(self) -> int:
        length = self.parse_int()
        if length == -1:  # a long vector: two halves of its length follow
            high, low = self.parse_int(), self.parse_int()
            length = (high << 32) + (low & 0xFFFFFFFF)
        if length < 0:
            raise _RefusedError(f"declares a length of {length}")
        return length

    def parse_nullable_int_array(self, *, fill_value: int | np.int32 = _NA_INTEGER) -> npt.NDArray[np.int32]:
        return self._parse_array(np.int32)

    def parse_nullable_bool_array(self, *, fill_value: bool = True) -> npt.NDArray[Any]:
        return self._parse_array(np.int32)

    def _parse_vector_value(
        self, reference_list: list[RObject] | None, bytecode_rep_list: list[RObject | None] | None = None
    ) -> list[Any]:
        """Elements of a list, or of a vector of texts: those as bytes, each different one held once."""
        values: list[Any] = []
        for _ in range(self._length()):
            head = self.parse_int()
            if head & 0xFF == RObjectType.CHAR.value and not head & 0x200:
                values.append(self._text())
            else:
                self._pushed = head
                values.append(self.parse_R_object(reference_list, bytecode_rep_list))
        return values

    def _text(self) -> bytes | None:
        self._texts += 1
        length = self.parse_int()
        if length == -1:
            return None
        if self._texts > _MAX_TEXTS or not 0 <= length <= _MAX_TEXT_BYTES:
            raise _RefusedError(f"holds more than {_MAX_TEXTS:,} texts, or one of {length:,} bytes")
        text = self.parse_string(length)
        return self._known.setdefault(text, text)

    def parse_R_object(  # noqa: N802 (rdata's name)
        self,
        reference_list: list[RObject] | None = None,
        bytecode_rep_list: list[RObject | None] | None = None,
        info_int: int | None = None,
    ) -> RObject:
        self._objects += 1
        self._depth += 1
        if self._depth > _MAX_DEPTH or self._objects > _MAX_OBJECTS:
            raise _RefusedError(f"holds more than {_MAX_OBJECTS:,} objects, or {_MAX_DEPTH:,} in one another")
        if info_int is None:
            head = self.parse_int()
            if head & 0xFF == RObjectType.RAW.value:
                found = self._raw(head, reference_list)
                self._depth -= 1
                return found
            self._pushed = head
        found = super().parse_R_object(reference_list, bytecode_rep_list, info_int)
        self._depth -= 1
        return found

    def _raw(self, head: int, reference_list: list[RObject] | None) -> RObject:
        """Bytes, which rdata does not know: passed over, they are no counts."""
        for part in slices(self._length()):
            self.parse_string(part.stop - part.start)
        has_attributes = bool(head & 0x200)
        info = RObjectInfo(RObjectType.RAW, bool(head & 0x100), has_attributes, False, 0, 0)
        attributes = self.parse_R_object(reference_list) if has_attributes else None
        return RObject(info=info, value=None, attributes=attributes)

    def _sequence(self, state: RObject) -> tuple[RObjectInfo, Any]:
        size, start, step = (float(value) for value in state.value[:3])
        if not 0 <= size * 8 <= self._expandable:
            raise _RefusedError(f"holds a sequence of {size:,.0f} numbers")
        self._expandable -= int(size) * 8
        values = start + step * np.arange(int(size), dtype=np.float64)
        return _info(RObjectType.REAL), gather([values], values.size, values.dtype)

    def _deferred_text(self, state: RObject) -> tuple[RObjectInfo, Any]:
        numbers = state.value[0].value
        if numbers.size * 64 > self._expandable:
            raise _RefusedError(f"holds {numbers.size:,} numbers as texts")
        self._expandable -= numbers.size * 64
        if numbers.dtype.kind == "i":
            return _info(RObjectType.STR), [b"%d" % number for number in numbers]
        scipen = int(np.asarray(state.value[1].value).ravel()[0]) if isinstance(state.value[1], RObject) else 0
        return _info(RObjectType.STR), [format_float_with_scipen(number, scipen) for number in numbers]


def _info(kind: RObjectType) -> RObjectInfo:
    return RObjectInfo(kind, False, False, False, 0, 0)


class _BinaryParser(_Bounds):
    """XDR (big-endian) and native binary, from a stream."""

    def __init__(self, stream: io.BufferedIOBase, order: Literal["<", ">"], limit: int) -> None:
        super().__init__(expand_altrep=True, altrep_constructor_dict=DEFAULT_ALTREP_MAP)
        self._start(limit)
        self._stream, self._order = stream, order
        self._endian: Literal["big", "little"] = "big" if order == ">" else "little"

    def _take(self, size: int) -> bytes:
        self._spend(size)
        taken = self._stream.read(size)
        if len(taken) != size:
            raise _RefusedError("ends before what it declares")
        return taken

    def parse_int(self) -> int:
        if self._pushed is not None:
            value, self._pushed = self._pushed, None
            return value
        return int.from_bytes(self._take(4), self._endian, signed=True)

    def parse_string(self, length: int) -> bytes:
        return self._take(length)

    def _parse_array_values(self, dtype: npt.DTypeLike, length: int) -> npt.NDArray[Any]:
        stored = np.dtype(dtype).newbyteorder(self._order)
        if length * stored.itemsize > self._left:
            raise _RefusedError(f"declares {length:,} numbers where at most {self._left:,} bytes are read")
        blocks = (
            np.frombuffer(self._take((part.stop - part.start) * stored.itemsize), dtype=stored)
            for part in slices(length)
        )
        if stored.kind == "c":
            return np.zeros(sum(block.size for block in blocks), dtype=np.float64)
        return gather(blocks, length, np.dtype(dtype))


class _TextParser(_Bounds, ParserASCII):
    """R's text form, whole in memory: it is rare, and small."""

    def __init__(self, content: bytes) -> None:
        ParserASCII.__init__(self, memoryview(content), expand_altrep=True, altrep_constructor_dict=DEFAULT_ALTREP_MAP)
        self._start(_ASCII_BYTES)
        self._lines = content.count(b"\n")

    def parse_int(self) -> int:
        if self._pushed is not None:
            value, self._pushed = self._pushed, None
            return value
        line = self._readline()
        return _NA_INTEGER if line == "NA" else int(line)

    def _parse_array_values(self, dtype: npt.DTypeLike, length: int) -> npt.NDArray[Any]:
        if length > self._lines:
            raise _RefusedError(f"declares {length:,} numbers in {self._lines:,} lines")
        values = ParserASCII._parse_array_values(self, dtype, length)
        return values if values.dtype.kind == "c" else gather([values], values.size, values.dtype)


@contextmanager
def _deep_recursion() -> Iterator[None]:
    """Room for nested objects: a list of n elements nests n deep in this format."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, _MAX_DEPTH * _FRAMES_PER_OBJECT))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def read_r_objects(path: Path) -> tuple[RObject, bool]:
    """Parse a file of :func:`saveRDS` or :func:`save`, compressed or not.

    Returns
    -------
    The object, and whether it is a pairlist of named objects, as ``save`` writes.

    Raises
    ------
    UserError
        The file is damaged, beyond the bounds, or in a form that is unknown.
    """
    with reading(path), closing(open_bytes(path)) as plain:
        stream = io.BufferedReader(cast(io.RawIOBase, plain), 1 << 20)
        limit = max(_UNPACKED_BYTES, _UNPACKED_RATIO * path.stat().st_size)
        saved = stream.peek(5)[:2] == b"RD"
        if saved:
            stream.read(5)
        form = stream.readline(4).strip()
        try:
            with _deep_recursion(), warnings.catch_warnings(action="ignore"):
                if form == b"A":
                    return _TextParser(_whole(stream)).parse_all().object, saved
                if form not in (b"X", b"B"):
                    raise _RefusedError(f"is of an unknown form ({form!r})")
                order: Literal["<", ">"] = ">" if form == b"X" or stream.peek(4)[:1] == b"\0" else "<"
                return _BinaryParser(stream, order, limit).parse_all().object, saved
        except _RefusedError as error:
            raise UserError(f"{path}: the R file {error}; it is cut short or damaged: fetch it again") from None
        except _BROKEN as error:
            raise UserError(
                f"{path}: the R file is damaged, or holds what only R can read ({type(error).__name__}: {error})"
            ) from None


def _whole(stream: io.BufferedIOBase) -> bytes:
    content = stream.read(_ASCII_BYTES + 1)
    if len(content) > _ASCII_BYTES:
        raise _RefusedError(f"is a text of more than {_ASCII_BYTES:,} bytes (save it without ascii = TRUE)")
    return content


def resolved(item: RObject) -> RObject:
    """The object itself, where ``item`` refers to one."""
    for _ in range(_MAX_DEPTH):
        if item.info.type is not RObjectType.REF or item.referenced_object is None:
            break
        item = item.referenced_object
    return item


def as_text(value: object) -> str:
    """A text of R as str: UTF-8, or Latin-1 where it is none; NA is empty."""
    if not isinstance(value, bytes):
        return ""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def pairs(item: RObject | None) -> Iterator[tuple[str, RObject]]:
    """Names and values of a pairlist."""
    item = None if item is None else resolved(item)
    while item is not None and item.info.type is RObjectType.LIST and isinstance(item.value, tuple):
        tag = None if item.tag is None else resolved(item.tag)
        name = tag.value if tag is not None else None
        yield as_text(name.value if isinstance(name, RObject) else name), resolved(item.value[0])
        item = resolved(item.value[1])


def attributes(item: RObject) -> dict[str, RObject]:
    """Attributes of an object; of one of S4, its slots."""
    return dict(pairs(item.attributes))


def texts(item: RObject | None) -> list[str] | None:
    """Values of a vector of texts, or None where ``item`` is none."""
    if item is None or item.info.type is not RObjectType.STR or not isinstance(item.value, list):
        return None
    return [as_text(value) for value in item.value]


def numbers(item: RObject | None) -> np.ndarray | None:
    """Values of a vector of numbers; NA of whole numbers makes it float, with NaN. None where ``item`` is none."""
    kinds = (RObjectType.INT, RObjectType.REAL, RObjectType.LGL)
    if item is None or item.info.type not in kinds or not isinstance(item.value, np.ndarray):
        return None
    values = item.value
    if item.info.type is not RObjectType.REAL and values.dtype == np.int32 and bool(np.any(values == _NA_INTEGER)):
        return np.where(values == _NA_INTEGER, np.nan, values.astype(np.float64))
    return values


def classes(item: RObject) -> list[str]:
    """Class of an object, as its attribute says."""
    return texts(attributes(item).get("class")) or []


def package(item: RObject) -> str:
    """The package that an S4 class comes from; empty where unknown."""
    own = attributes(item).get("class")
    return (texts(attributes(own).get("package")) or [""])[0] if own is not None else ""


def elements(item: RObject | None) -> list[tuple[str, RObject]]:
    """Names (empty where there are none) and values of a list."""
    if item is None or item.info.type is not RObjectType.VEC or not isinstance(item.value, list):
        return []
    names = texts(attributes(item).get("names")) or [""] * len(item.value)
    return [
        (name, resolved(value)) for name, value in zip(names, item.value, strict=False) if isinstance(value, RObject)
    ]
