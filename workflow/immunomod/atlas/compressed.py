"""Arrays that grow in an HDF5 file, compressed by threads of our own.

HDF5 compresses inside its one lock, by zlib, chunk after chunk (benchmarks/markers.py). Here chunks are shuffled and
deflated outside of it, by isal, and written as they are: the file holds what HDF5's own shuffle and gzip filters would
have made, so any reader opens it, and the values in each chunk do not depend on the number of threads.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import h5py

#: Entries per chunk: 1 MiB of float32.
CHUNK = 1 << 18
_LEVEL = 1
_GROWTH = 64
#: Chunks of one array that may wait for their compression; what bounds the memory. The same for any number of threads,
#: as the order of writing decides where chunks lie in the file.
_PENDING = 12


class GrowingArray:
    """A one-dimensional dataset of 4-byte values that is appended to; call :meth:`close` at the end.

    Parameters
    ----------
    group, name, dtype
        Where the dataset is made.
    pool
        Runs the compression.
    twin
        An array that often holds the same at the same places (columns of the expression and of the counts): where a
        chunk of it is the same, its compressed bytes are taken.
    """

    def __init__(
        self,
        group: h5py.Group,
        name: str,
        dtype: Any,
        pool: Executor,
        twin: GrowingArray | None = None,
    ) -> None:
        self._dataset = group.create_dataset(
            name,
            shape=(0,),
            maxshape=(None,),
            chunks=(CHUNK,),
            dtype=dtype,
            shuffle=True,
            compression="gzip",
            compression_opts=_LEVEL,
        )
        self._pool, self._twin = pool, twin
        self._waiting: deque[Future[bytes]] = deque()
        self._recent: deque[tuple[int, NDArray[Any], Future[bytes]]] = deque(maxlen=_PENDING)
        self._chunk = np.empty(CHUNK, dtype=dtype)
        self._filled = self._given = self._written = self.size = 0

    def append(self, values: NDArray[Any]) -> None:
        """Add values at the end; they are copied."""
        self.size += len(values)
        while len(values):
            part = values[: CHUNK - self._filled]
            self._chunk[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            values = values[len(part) :]
            if self._filled == CHUNK:
                self._give()

    def close(self) -> None:
        """Write what is left."""
        if self._filled:
            self._chunk[self._filled :] = 0
            self._give()
        self._write(0)
        self._dataset.resize((self.size,))

    def _give(self) -> None:
        chunk, number = self._chunk, self._given
        self._chunk = np.empty(CHUNK, dtype=chunk.dtype)
        self._filled, self._given = 0, number + 1
        future = self._twin._made(number, chunk) if self._twin is not None else None
        if future is None:
            future = self._pool.submit(_compress, chunk)
        self._recent.append((number, chunk, future))
        self._waiting.append(future)
        self._write(_PENDING)

    def _made(self, number: int, chunk: NDArray[Any]) -> Future[bytes] | None:
        for known, values, future in self._recent:
            if known == number and values.dtype == chunk.dtype and np.array_equal(values, chunk):
                return future
        return None

    def _write(self, left: int) -> None:
        while len(self._waiting) > left:
            packed = self._waiting.popleft().result()
            if (self._written + 1) * CHUNK > self._dataset.shape[0]:
                self._dataset.resize(((self._written + _GROWTH) * CHUNK,))
            self._dataset.id.write_direct_chunk((self._written * CHUNK,), packed)
            self._written += 1


def _compress(chunk: NDArray[Any]) -> bytes:
    from isal import isal_zlib

    from immunomod.atlas.compressed_kernel import shuffle_bytes

    planes = np.empty((4, len(chunk)), dtype=np.uint8)
    shuffle_bytes(chunk.view(np.uint32), planes)
    packed: bytes = isal_zlib.compress(planes, _LEVEL)
    return packed
