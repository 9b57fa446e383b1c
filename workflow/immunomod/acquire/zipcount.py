"""How many entries a zip lists, counted without keeping any: ``zipfile`` would hold them all in memory first."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO

from immunomod.acquire.inflate import DamageError

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LONGEST_COMMENT = (1 << 16) - 1
_ENTRY_BYTES = 46
_MOST_BYTES_PER_ENTRY = 1024
_SIGNATURE = b"PK\x05\x06"


def count_zip_entries(path: Path, most: int) -> int:
    """Entries of a zip's directory; counting ends one above ``most``.

    Raises
    ------
    DamageError
        There is no directory, or one that lies outside the file.
    """
    with path.open("rb") as handle:
        end, size = _directory(handle)
        if size > _MOST_BYTES_PER_ENTRY * (most + 1000):  # zipfile reads it at once
            raise DamageError("its directory is larger than its entries can be")
        handle.seek(end - size)
        left, count = size, 0
        while left >= _ENTRY_BYTES and count <= most:
            header = handle.read(_ENTRY_BYTES)
            if len(header) < _ENTRY_BYTES or header[:4] != b"PK\x01\x02":
                raise DamageError("its directory is damaged")
            beside = sum(struct.unpack_from("<3H", header, 28))
            handle.seek(beside, 1)
            left -= _ENTRY_BYTES + beside
            count += 1
    return count


def _directory(handle: IO[bytes]) -> tuple[int, int]:
    """Where the directory ends, and its size in bytes."""
    length = handle.seek(0, 2)
    start = max(0, length - _END.size - _LONGEST_COMMENT)
    handle.seek(start)
    tail = handle.read()
    found = len(tail) - _END.size  # as zipfile: the record at the very end first, then one with a comment
    if tail[-_END.size :][:4] != _SIGNATURE or tail[-2:] != b"\0\0":
        found = tail.rfind(_SIGNATURE)
    if found < 0 or len(tail) - found < _END.size:
        raise DamageError("its directory is missing")
    end = start + found
    size: int = _END.unpack_from(tail, found)[5]
    handle.seek(max(0, end - _LOCATOR.size))
    locator = handle.read(_LOCATOR.size)
    if locator[:4] == b"PK\x06\x07" and end >= _LOCATOR.size + _END64.size:
        end -= _LOCATOR.size + _END64.size
        handle.seek(end)
        record = handle.read(_END64.size)
        if record[:4] != b"PK\x06\x06":
            raise DamageError("its directory is damaged")
        size = _END64.unpack(record)[8]
    if size > end:
        raise DamageError("its directory lies outside the file")
    return end, size
