"""HDF5 files from outside: no link out of the file is followed, and no declared size is believed.

An HDF5 file may name other files (external links, external storage, virtual data sets), and may declare a data set of
any size while storing next to nothing. Both are refused in words.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import h5py
import numpy as np

from immunomod.errors import UserError
from immunomod.sample.readers.arrays import BLOCK, gather, slices
from immunomod.sample.readers.sniff import open_bytes, reading

#: Data sets up to this size are read whatever they declare; above it, deflate explains a ratio of 1,032 at most.
_BELIEVED_BYTES = 64 << 20
_MAX_RATIO = 1_100
_MAGIC = b"\x89HDF\r\n\x1a\n"
#: A whole file that was compressed may grow to this, or by this factor: its data are mostly compressed already.
_UNPACKED_BYTES = 1 << 30
_UNPACKED_RATIO = 100


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open a file for reading, without a lock (a cluster's shared disks often know none).

    One that was compressed as a whole (``.h5.gz`` on GEO) is unpacked into a temporary file first.
    """
    with reading(path), _unpacked(path) as plain:
        try:
            with h5py.File(plain, "r", locking=False) as handle:
                yield handle
        except UserError as error:
            raise UserError(str(error).replace(str(plain), str(path))) from None
        except (RuntimeError, TypeError, AttributeError, IndexError, MemoryError, RecursionError) as error:
            raise UserError(
                f"{path}: cannot be read ({type(error).__name__}: {error}); the HDF5 file may be damaged: fetch it "
                "again"
            ) from None


@contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    with path.open("rb") as handle:
        if handle.read(len(_MAGIC)) == _MAGIC:
            yield path
            return
    limit = max(_UNPACKED_BYTES, _UNPACKED_RATIO * path.stat().st_size)
    with tempfile.NamedTemporaryFile(prefix="immunomod-", suffix=".h5") as target, closing(open_bytes(path)) as source:
        written = 0
        while block := source.read(1 << 22):
            written += target.write(block)
            if written > limit:
                raise UserError(f"{path}: unpacks to more than {limit:,} bytes, which no HDF5 file does; not read")
        target.flush()
        yield Path(target.name)


def file_of(item: h5py.Group | h5py.Dataset) -> str:
    """Name of the file that ``item`` lies in, for messages."""
    return str(item.file.filename)


def member(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | None:
    """The member of a group, or None where it has none of that name.

    Raises
    ------
    UserError
        The member is a link: what it leads to may be any file of this machine.
    """
    link = group.get(name, getlink=True) if name in group.keys() else None  # noqa: SIM118 (`in group` follows links)
    if link is None:
        return None
    if not isinstance(link, h5py.HardLink):
        raise UserError(
            f"{file_of(group)}: {group.name.rstrip('/')}/{name} is a link to another place or file, which is not "
            "followed; write the matrix itself into one file"
        )
    found = group[name]
    return found if isinstance(found, h5py.Group | h5py.Dataset) else None


def names(group: h5py.Group) -> list[str]:
    """Names of the members that are no links."""
    return [str(name) for name in group if isinstance(group.get(name, getlink=True), h5py.HardLink)]


def subgroup(group: h5py.Group, name: str) -> h5py.Group | None:
    """The member of that name where it is a group, else None."""
    found = member(group, name)
    return found if isinstance(found, h5py.Group) else None


def has_dataset(group: h5py.Group, name: str) -> bool:
    """Whether a data set of that name is there, link or not."""
    return isinstance(member(group, name), h5py.Dataset)


def dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    """The data set of that name, safe to read.

    Raises
    ------
    UserError
        It is missing, lies in other files, or declares a size that what is stored cannot explain.
    """
    found = member(group, name)
    place = f"{file_of(group)}: {group.name.rstrip('/')}/{name}"
    if not isinstance(found, h5py.Dataset):
        raise UserError(f"{place} is missing; the file is cut short or of another kind")
    if found.is_virtual or found.external:
        raise UserError(f"{place} keeps its values in other files, which are not read; write one file")
    declared = int(np.prod([float(size) for size in found.shape or ()])) * found.dtype.itemsize
    if declared > max(_BELIEVED_BYTES, _MAX_RATIO * found.id.get_storage_size()):
        raise UserError(
            f"{place} declares {declared:,} bytes and stores {found.id.get_storage_size():,}: no data give that; fetch "
            "or write the file again"
        )
    return found


def read_strings(data: h5py.Dataset, limit: int | None = None) -> np.ndarray:
    """The values of a one-dimensional data set as str (at most ``limit``); numbers are written out."""
    if data.ndim != 1 or data.dtype.kind not in "OSUiufb":
        raise UserError(f"{file_of(data)}: {data.name} is no list of names; the file is of another kind or damaged")
    values = data[: data.shape[0] if limit is None else limit]
    return np.array(
        [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values], dtype=object
    )


def read_numbers(data: h5py.Dataset) -> np.ndarray:
    """The values of a one-dimensional data set of numbers: int32 where all fit, else as they are stored."""
    if data.ndim != 1 or data.dtype.kind not in "iufb":
        raise UserError(f"{file_of(data)}: {data.name} is no list of numbers; the file is of another kind or damaged")
    size = int(data.shape[0])
    return gather((data[part] for part in slices(size, BLOCK)), size, data.dtype)
