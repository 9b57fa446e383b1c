"""Decompression in bounded memory of bytes from strangers: gzip, bzip2 and xz, with as many members as there are."""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable, Iterator
from typing import IO, Any, cast

from isal import igzip_lib

BLOCK_BYTES = 1 << 20
ISAL_ERROR = cast(type[Exception], igzip_lib.IsalError)  # its stub takes it for an instance
#: What xz may take for its dictionary; ``xz -9`` asks for 65 MiB, a hostile header for 4 GiB.
LARGEST_XZ_MEMORY = 256 << 20

_NEW: dict[str, Callable[[], Any]] = {
    "gzip": lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP),
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(memlimit=LARGEST_XZ_MEMORY),
}
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
_FIRST_BYTES = {kind: magic for magic, kind in _MAGIC.items()}
_SUFFIXES = {
    **dict.fromkeys((".gz", ".tgz"), "gzip"),
    **dict.fromkeys((".bz2", ".tbz", ".tbz2"), "bzip2"),
    **dict.fromkeys((".xz", ".txz"), "xz"),
}


class DamageError(Exception):
    """What is wrong with a compressed stream, as half a sentence."""


def compression_of_name(name: str) -> str:
    """The compression (``gzip``, ``bzip2``, ``xz``) that a file of this name claims to have; empty for none."""
    lower = name.lower()
    return next((kind for suffix, kind in _SUFFIXES.items() if lower.endswith(suffix)), "")


def compression_of_bytes(head: bytes) -> str:
    """The compression that a file beginning with ``head`` has; empty for none."""
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "")


class Inflater:
    """Takes compressed bytes as they come and gives decompressed ones in blocks of at most ``BLOCK_BYTES``.

    Parameters
    ----------
    kind
        ``gzip``, ``bzip2`` or ``xz``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._member: Any = None
        self._members = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decompressed blocks of ``data``; exhaust it before feeding more.

        Raises
        ------
        DamageError
            A wrong header, checksum or length, or bytes that follow the end.
        """
        while True:
            if self._member is None:
                data = data.lstrip(b"\0") if self._members else data  # between members zero padding is legal
                if not data:
                    return
                magic = _FIRST_BYTES[self.kind]
                if data[: len(magic)] != magic[: len(data)]:
                    where = "follows its end" if self._members else "begins it"
                    raise DamageError(f"not a whole {self.kind} file (something else {where})")
                self._member = _NEW[self.kind]()
            try:
                block = self._member.decompress(data, BLOCK_BYTES)
            except (ISAL_ERROR, OSError, lzma.LZMAError, EOFError, ValueError) as error:
                raise DamageError(f"not a whole {self.kind} file ({error})") from None
            data = b""
            if block:
                yield block
            if self._member.eof:
                data = self._member.unused_data
                self._member = None
                self._members += 1
            elif self._member.needs_input:
                return

    def close(self) -> None:
        """Say that no more bytes follow.

        Raises
        ------
        DamageError
            The stream is not at its end.
        """
        if self._member is not None or not self._members:
            raise DamageError("it ends too early")


def inflate(handle: IO[bytes], kind: str) -> Iterator[bytes]:
    """The decompressed bytes of an open file, in blocks.

    Raises
    ------
    DamageError
        It cannot be decompressed to its end.
    """
    inflater = Inflater(kind)
    while data := handle.read(BLOCK_BYTES):
        yield from inflater.feed(data)
    inflater.close()
