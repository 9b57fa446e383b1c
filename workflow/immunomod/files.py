"""Reading and writing files so that a reader never meets half of one.

Every writer of the package goes through :func:`atomic_path`: the bytes go to a name in the same folder that is
unique to the process, are flushed to disk, and are renamed. A killed job leaves no file under the final name, and two
jobs that write the same output (an orphan of an interrupted cluster run beside its successor) never share a file.

Intermediate HDF5 files end with a checksum of all bytes before it (:func:`seal`), since HDF5 itself notices a file that
was cut but not one in which bytes have changed. What is gzipped has a checksum by its format.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import logging
import os
import re
import sys
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from anndata import AnnData


HALF = re.compile(r"\.[0-9a-f]{32}\.")
#: The last bytes of a sealed file; HDF5 does not look beyond the end that its header names.
SEAL = re.compile(rb"\nimmunomod crc32 ([0-9a-f]{8})\n")
SEAL_LENGTH = 26
BYTES_AT_ONCE = 1 << 22


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success flush and rename it to ``path``, on failure delete it.

    The temporary name keeps the suffixes of ``path``, so writers that look at the name (gzip, h5ad) do the same.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}.{path.name}")
    try:
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_halves(paths: Iterable[str | Path]) -> None:
    """Remove what a killed job left of ``paths``: it could not remove its temporary files, which may be large."""
    for path in map(Path, paths):
        for half in path.parent.glob(f".*.{glob.escape(path.name)}"):
            if HALF.fullmatch(half.name.removesuffix(path.name)):
                half.unlink(missing_ok=True)


def write_text(text: str, path: str | Path) -> None:
    """Write ``text`` as UTF-8 under ``path``."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_tsv(table: pd.DataFrame, path: str | Path) -> None:
    """Write ``table`` without its index, tab-separated, empty for missing; gzipped (reproducibly) for ``.gz``."""
    with atomic_path(path) as temporary:
        if str(path).endswith(".gz"):
            # Neither the time nor the temporary name may stand in the header: the bytes follow from the table.
            with temporary.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as handle:
                table.to_csv(handle, sep="\t", index=False, lineterminator="\n")
        else:
            table.to_csv(temporary, sep="\t", index=False, lineterminator="\n")


def read_tsv(path: str | Path, **options: Any) -> pd.DataFrame:
    """Read a table written by :func:`write_tsv`. Only an empty field is missing: ``NA`` is a name like another."""
    table: pd.DataFrame = pd.read_csv(path, sep="\t", keep_default_na=False, na_values=[""], **options)
    return table


def write_h5ad(adata: AnnData, path: str | Path) -> None:
    """Write ``adata`` sealed, and uncompressed: it is read several times, and gzip costs more time than disk.

    Where the entries of a layer stand where those of ``X`` do, the file holds their places once, under two names (hard
    links of HDF5): of a filtered sample that is a quarter of the bytes. Readers see no difference.
    """
    import h5py
    from anndata.experimental import write_dispatched

    logging.getLogger("anndata").setLevel(logging.WARNING)  # it would print a line per text column

    def write(function, store, name, element, dataset_kwargs, **_):  # type: ignore[no-untyped-def]
        if store.name == "/layers" and _places_are_shared(element, adata.X):
            group = store.create_group(name)
            for attribute, value in store.file["X"].attrs.items():
                group.attrs[attribute] = value
            group.create_dataset("data", data=element.data, maxshape=(None,))
            for places in ("indices", "indptr"):
                group[places] = store.file[f"X/{places}"]
        else:
            function(store, name, element, dataset_kwargs=dataset_kwargs)

    adata.strings_to_categoricals()
    with atomic_path(path) as temporary:
        with h5py.File(temporary, "w") as file:
            write_dispatched(file, "/", adata, write)
        seal(temporary)


def _places_are_shared(one: Any, other: Any) -> bool:
    from scipy import sparse

    return (
        (sparse.issparse(one) and sparse.issparse(other))
        and one.format == other.format == "csr"
        and np.shares_memory(one.indices, other.indices)
        and np.shares_memory(one.indptr, other.indptr)
        and one.shape == other.shape
        and one.nnz == other.nnz
    )


def seal(path: str | Path) -> None:
    """Append to a finished HDF5 file the CRC-32 of its bytes, for :func:`is_damaged`.

    Readers of HDF5 do not see it; a program that changes the file in place removes it.
    """
    with Path(path).open("r+b") as handle:
        checksum = _checksum(handle, None)
        handle.write(b"\nimmunomod crc32 %08x\n" % checksum)


def is_damaged(path: str | Path) -> bool:
    """Whether bytes of a file have changed since it was sealed; a file without a seal tells nothing: False."""
    length = Path(path).stat().st_size - SEAL_LENGTH
    if length < 0:
        return False
    with Path(path).open("rb") as handle:
        handle.seek(length)
        found = SEAL.fullmatch(handle.read())
        handle.seek(0)
        return found is not None and _checksum(handle, length) != int(found[1], 16)


def _checksum(handle: IO[bytes], length: int | None) -> int:
    """CRC-32 of the next ``length`` bytes, or of all."""
    try:
        from isal.isal_zlib import crc32  # three times as fast
    except ImportError:  # in an environment of one method
        from zlib import crc32
    checksum, left = 0, sys.maxsize if length is None else length
    while block := handle.read(min(left, BYTES_AT_ONCE)):
        checksum = crc32(block, checksum)
        left -= len(block)
    return checksum


def read_obs(path: str | Path) -> pd.DataFrame:
    """The table of cells of an h5ad file; its matrices are not read."""
    import h5py
    from anndata.io import read_elem

    with h5py.File(path, "r") as file:
        obs: pd.DataFrame = read_elem(file["obs"])
    return obs


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
