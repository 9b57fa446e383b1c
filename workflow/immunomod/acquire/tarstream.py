"""A tar read from front to back, plain or compressed, in bounded memory whatever its headers claim.

``tarfile`` reads extended headers (long names, pax records, sparse maps) whole, at the size that they give themselves,
ends quietly at a damaged header, and can be sent backwards by a negative size. Here its reads go through a stream that
allows so many bytes of headers for each member, moves forwards only, and knows whether the end was marked as one.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from immunomod.acquire.inflate import DamageError, compression_of_bytes, inflate
from immunomod.errors import UserError

BLOCK = tarfile.BLOCKSIZE
LARGEST_HEADERS = 1 << 20


class _ForwardStream:
    """The bytes of a tar for ``tarfile``: ``read``, ``tell``, and a ``seek`` that only goes on."""

    def __init__(self, handle: IO[bytes], kind: str, label: str) -> None:
        self._handle = handle
        self._blocks: Iterator[bytes] | None = inflate(handle, kind) if kind else None
        self._buffer = memoryview(b"")
        self._position = 0
        self._label = label
        self.headers_left: int | None = None
        self.last_block = b""

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        if position < self._position:
            raise DamageError("a header points backwards")
        if self._blocks is None:
            self._handle.seek(position)
            self._position = position
        else:
            while self._position < position and self._take(position - self._position):
                pass
            self._position = position  # past the end the next read finds nothing
        return position

    def read(self, size: int) -> bytes:
        if self.headers_left is not None:
            if size < 0 or size > self.headers_left:
                raise UserError(
                    f"{self._label} holds a member whose headers take more than {LARGEST_HEADERS} bytes: refused"
                )
            self.headers_left -= size
        if self._blocks is None:
            data = self._handle.read(size)
            self._position += len(data)
        else:
            pieces = []
            while size and (piece := self._take(size)):
                pieces.append(piece)
                size -= len(piece)
            data = b"".join(pieces)
        if self.headers_left is not None:
            self.last_block = data
        return data

    def _take(self, most: int) -> memoryview:
        """Up to ``most`` of the next decompressed bytes; none at the end."""
        if not self._buffer:
            assert self._blocks is not None
            self._buffer = memoryview(next(self._blocks, b""))
        piece = self._buffer[:most]
        self._buffer = self._buffer[most:]
        self._position += len(piece)
        return piece


class TarStream:
    """The members of a tar, in order; use :meth:`open`."""

    def __init__(self, tar: tarfile.TarFile, stream: _ForwardStream) -> None:
        self._tar = tar
        self._stream = stream

    @classmethod
    @contextmanager
    def open(cls, archive: Path, label: str) -> Iterator[TarStream]:
        """Open a tar, plain or compressed with gzip, bzip2 or xz; ``label`` names it in messages."""
        with archive.open("rb") as handle:
            kind = compression_of_bytes(handle.read(8))
            handle.seek(0)
            stream = _ForwardStream(handle, kind, label)
            stream.headers_left = LARGEST_HEADERS  # the first member is read at once
            with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r:") as tar:
                yield cls(tar, stream)

    def next(self) -> tarfile.TarInfo | None:
        """The header of the next member, or None at the archive's end.

        Raises
        ------
        DamageError
            The archive goes on after what cannot be read as a header, or ends without the mark of its end.
        UserError
            The headers of one member are beyond all measure.
        """
        self._stream.headers_left = LARGEST_HEADERS
        member = self._tar.next()
        self._stream.headers_left = None
        kept = vars(self._tar)  # it would keep every member, and every record about all members
        kept["members"].clear()
        kept["pax_headers"].clear()
        if member is None and self._stream.last_block != bytes(BLOCK):
            raise DamageError("a header is damaged" if self._stream.last_block else "it ends too early")
        return member

    def content(self, member: tarfile.TarInfo) -> IO[bytes]:
        """The content of the plain file whose header was read last."""
        content = self._tar.extractfile(member)
        assert content is not None
        return content
