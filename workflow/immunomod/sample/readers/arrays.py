"""Numbers and compressed sparse matrices from files that may lie about them: narrow, checked, a block at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from scipy import sparse

from immunomod.errors import UserError

#: Numbers that are read, checked or converted at a time.
BLOCK = 1 << 20
_INT32 = np.iinfo(np.int32)


def _fits_int32(values: np.ndarray) -> bool:
    if not values.size or values.dtype == np.int32:
        return True
    low, high = values.min(), values.max()
    if not (low >= _INT32.min and high <= _INT32.max):
        return False
    return values.dtype.kind in "iub" or bool(np.all(values == np.rint(values)))


def gather(blocks: Iterable[np.ndarray], size: int, dtype: np.dtype) -> np.ndarray:
    """Put ``blocks`` together: as int32 where every number fits, in ``dtype`` where one does not.

    Counts that were stored as 64-bit numbers take half the memory so, and no second copy is held.
    """
    values = np.empty(size, dtype=np.int32)
    filled = 0
    for block in blocks:
        if values.dtype == np.int32 and not _fits_int32(block):
            wide = np.empty(size, dtype=dtype.newbyteorder("="))
            wide[:filled] = values[:filled]
            values = wide
        values[filled : filled + block.size] = block
        filled += block.size
    return values[:filled]


def slices(size: int, step: int = BLOCK) -> Iterator[slice]:
    """Consecutive slices of at most ``step`` that cover ``size``."""
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def checked_csr(
    data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, shape: tuple[int, int], where: str
) -> sparse.csr_matrix:
    """A CSR matrix of arrays from a file, every index checked: a wrong one would read memory that is not the matrix's.

    Raises
    ------
    UserError
        The arrays contradict each other or ``shape``.
    """
    n_rows, n_columns = shape
    damage = ""
    if indices.dtype.kind not in "iu" or indptr.dtype.kind not in "iu":
        damage = "its indices are no whole numbers"
    elif indptr.size != n_rows + 1:
        damage = f"{indptr.size - 1:,} row pointers for {n_rows:,} rows"
    elif indices.size != data.size:
        damage = f"{data.size:,} values and {indices.size:,} indices"
    elif int(indptr[0]) != 0 or int(indptr[-1]) != data.size or bool(np.any(indptr[1:] < indptr[:-1])):
        damage = f"its row pointers do not run from 0 to {data.size:,}, the number of values"
    elif indices.size and (int(indices.min()) < 0 or int(indices.max()) >= n_columns):
        damage = f"an index lies outside the {n_columns:,} columns"
    if damage:
        raise UserError(f"{where}: the sparse matrix contradicts itself ({damage}); fetch or write the file again")
    index = np.int32 if max(data.size, n_columns) <= _INT32.max else np.int64
    return sparse.csr_matrix(
        (data, indices.astype(index, copy=False), indptr.astype(index, copy=False)), shape=shape, copy=False
    )


def csr_of_blocks(blocks: Iterable[np.ndarray], n_columns: int) -> sparse.csr_matrix:
    """A CSR matrix of dense blocks of rows, of which one is held at a time."""
    parts = [sparse.csr_matrix(block) for block in blocks]
    if not parts:
        return sparse.csr_matrix((0, n_columns), dtype=np.int32)
    for part in parts:
        if part.data.dtype != np.int32 and _fits_int32(part.data):
            part.data = part.data.astype(np.int32)
    return sparse.vstack(parts, format="csr")
