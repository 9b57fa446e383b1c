"""The compiled loop that keeps columns of sparse rows, in a module of its own because importing numba takes time."""

from __future__ import annotations

from numba import njit, types


@njit(
    types.void(
        types.int64[::1], types.int32[::1], types.float32[::1], types.int32[::1],
        types.int64[::1], types.int32[::1], types.float32[::1],
    ),
    nogil=True,
    cache=True,
)  # fmt: skip
def keep_columns(indptr, indices, data, place, kept_indptr, kept_indices, kept_data):  # type: ignore[no-untyped-def]
    """Copy the entries of CSR rows whose column has a new ``place`` (-1: none) and sort each row by it.

    ``indptr`` starts at 0; the three ``kept_`` arrays are filled, the latter two up to ``kept_indptr[-1]``.
    """
    written = 0
    kept_indptr[0] = 0
    for row in range(len(indptr) - 1):
        first = written
        for entry in range(indptr[row], indptr[row + 1]):
            column = place[indices[entry]]
            if column < 0:
                continue
            position = written
            while position > first and kept_indices[position - 1] > column:  # places mostly rise: rarely entered
                kept_indices[position] = kept_indices[position - 1]
                kept_data[position] = kept_data[position - 1]
                position -= 1
            kept_indices[position] = column
            kept_data[position] = data[entry]
            written += 1
        kept_indptr[row + 1] = written
