"""What a file really holds, told from its bytes: names on GEO are no guide (``.txt.gz`` may be a MatrixMarket file).

:func:`sniff` looks at the first kilobytes only. :func:`open_text` and :func:`open_bytes` undo gzip and its kin by
their magic numbers, never by the name, and :func:`reading` turns the many ways in which a damaged file fails into one
message.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, cast

from isal import igzip, isal_zlib

from immunomod.errors import UserError

if TYPE_CHECKING:
    import h5py

_HEAD_BYTES = 1 << 16
_MAGIC_GZIP = b"\x1f\x8b"
_MAGIC_HDF5 = b"\x89HDF\r\n\x1a\n"
_MAGIC_ZIP = b"PK\x03\x04"
_MAGIC_BZIP2 = b"BZh"
_MAGIC_XZ = b"\xfd7zXZ"
#: First parts of the zips that office programs write; those of a workbook lie under xl/.
_OFFICE_PARTS = (b"[Content_Types].xml", b"_rels/", b"docProps/", b"customXml/", b"xl/")
_DAMAGED: tuple[type[Exception], ...] = (
    EOFError,
    gzip.BadGzipFile,
    zlib.error,
    cast(type[Exception], isal_zlib.error),
    lzma.LZMAError,
)
#: Serialised R: saveRDS and save, as XDR, native binary and text. A text table may begin with a line ``A``.
_R_HEAD = re.compile(
    rb"(RD[XAB][23]\n)?(X\n\x00\x00\x00[\x02\x03]|B\n[\x00\x02\x03]\x00\x00[\x00\x02\x03]|A\r?\n[23]\r?\n)"
)


class Kind(StrEnum):
    """Contents that the sniffer tells apart."""

    MATRIX_MARKET = "MatrixMarket matrix"
    TENX_H5 = "10x Genomics HDF5 matrix"
    H5AD = "AnnData h5ad"
    LOOM = "loom matrix"
    HDF5 = "HDF5 file of another kind"
    TABLE = "text table"
    XLSX = "Excel workbook"
    HTML = "web page"
    ARCHIVE = "archive"
    R_OBJECT = "R object"
    BINARY = "binary file"
    EMPTY = "empty file"


@dataclass(frozen=True)
class SniffedFile:
    """A file and what it holds.

    ``lines`` are the first complete lines of a text file (no line ends). ``damage`` is the message of a file that could
    not be opened as what it claims to be: it matters only when the file turns out to be needed.
    """

    path: Path
    kind: Kind
    lines: tuple[str, ...] = ()
    damage: str = ""

    @property
    def name(self) -> str:
        """Base name, as messages give it."""
        return self.path.name


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the errors of a damaged or missing file into a :class:`UserError` that names it."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; check the path, or delete the data set's manifest and run again"
        ) from None
    except _DAMAGED as error:
        raise UserError(
            f"{path}: the compressed data are truncated or corrupt ({error}); delete this file and fetch it again"
        ) from None
    except (OSError, ValueError, OverflowError, KeyError) as error:
        raise UserError(f"{path}: cannot be read ({error}); the file may be cut short: fetch it again") from None


def open_bytes(path: Path) -> io.BufferedReader:
    """Open ``path`` for reading decompressed bytes: gzip, bzip2, xz or plain, told by the first bytes.

    gzip goes through ISA-L, which inflates several times faster than zlib.
    """
    with path.open("rb") as handle:
        head = handle.read(6)
    if head.startswith(_MAGIC_GZIP):
        return cast(io.BufferedReader, igzip.IGzipFile(path, "rb"))  # type: ignore[no-untyped-call]
    if head.startswith(_MAGIC_BZIP2):
        return cast(io.BufferedReader, bz2.open(path, "rb"))
    return cast(io.BufferedReader, lzma.open(path, "rb")) if head.startswith(_MAGIC_XZ) else path.open("rb")


def open_text(path: Path) -> io.TextIOWrapper:
    """Open ``path`` for reading lines: UTF-8 with or without a mark, any of the three line ends (old Macs' CR too)."""
    return io.TextIOWrapper(open_bytes(path), encoding="utf-8-sig", errors="replace", newline=None)


def _complete_lines(head: bytes, whole: bool) -> tuple[str, ...]:
    text = head.decode("utf-8-sig", errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    if lines and (not whole or lines[-1] == ""):
        lines = lines[:-1] if len(lines) > 1 else lines
    return tuple(lines)


def _sniff_hdf5(path: Path) -> SniffedFile:
    from immunomod.sample.readers.hdf5 import open_hdf5

    try:
        with open_hdf5(path) as handle:
            return SniffedFile(path, _kind_of_hdf5(handle))
    except UserError as error:
        return SniffedFile(path, Kind.HDF5, damage=f"{path}: the HDF5 file is truncated or corrupt ({error})")


def _kind_of_hdf5(handle: h5py.File) -> Kind:
    """What the groups at the top hold; a link is not followed, and a group behind one is not seen."""
    from immunomod.sample.readers.hdf5 import names, subgroup

    own = names(handle)
    if handle.attrs.get("encoding-type") == "anndata" or {"X", "var", "obs"} <= set(own):
        return Kind.H5AD
    groups = [handle, *filter(None, (subgroup(handle, name) for name in own))]
    if any({"barcodes", "data", "indices", "indptr"} <= set(group) for group in groups):
        return Kind.TENX_H5
    return Kind.LOOM if {"matrix", "row_attrs", "col_attrs"} <= set(own) else Kind.HDF5


def sniff(path: Path) -> SniffedFile:
    """Say what ``path`` holds from its first 64 KiB (decompressed).

    A file that is damaged within those bytes is returned with ``damage`` set; a missing one is a :class:`UserError`.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the path, or delete the data set's manifest and run again")
    with path.open("rb") as handle:
        if handle.read(8) == _MAGIC_HDF5:
            return _sniff_hdf5(path)
    damage = ""
    head = b""
    try:
        with open_bytes(path) as stream:
            while len(head) < _HEAD_BYTES and (part := stream.read1(_HEAD_BYTES - len(head))):
                head += part
    except _DAMAGED as error:
        damage = f"{path}: the compressed data are truncated or corrupt ({error}); delete this file and fetch it again"
    if head.startswith(_MAGIC_HDF5):
        return _sniff_hdf5(path)
    kind = _kind_of(head)
    lines = _complete_lines(head, whole=len(head) < _HEAD_BYTES) if kind in (Kind.TABLE, Kind.MATRIX_MARKET) else ()
    return SniffedFile(path, kind, lines, damage)


def _kind_of(head: bytes) -> Kind:
    if not head.strip():
        return Kind.EMPTY
    if head.startswith(_MAGIC_ZIP) and head[30:].startswith(_OFFICE_PARTS) and b"xl/" in head:
        return Kind.XLSX
    if head.startswith((_MAGIC_ZIP, _MAGIC_XZ, _MAGIC_GZIP)) or head[257:262] == b"ustar":
        return Kind.ARCHIVE
    if _R_HEAD.match(head):
        return Kind.R_OBJECT
    if head.lower().startswith(b"%%matrixmarket"):
        return Kind.MATRIX_MARKET
    if re.match(rb"\s*(<!doctype html|<html|<head|<\?xml)", head, re.IGNORECASE):
        return Kind.HTML
    return Kind.BINARY if b"\x00" in head else Kind.TABLE
