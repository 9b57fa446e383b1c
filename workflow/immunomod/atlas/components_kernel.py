"""The compiled loop behind principal components, in a module of its own because importing numba takes time."""

from __future__ import annotations

import numpy as np
from numba import njit, types


@njit(
    types.void(types.int64[::1], types.uint32[::1], types.float32[::1], types.float64[:, ::1]), nogil=True, cache=True
)
def add_products(indptr, indices, data, products):  # type: ignore[no-untyped-def]
    """Add ``x x'`` of sparse rows to the upper triangle of ``products`` (genes x genes).

    Columns are sorted within a row, and unsigned: numba would test each for being negative.
    """
    n_genes = np.uint64(products.shape[1])
    flat = products.ravel()
    values = np.empty(products.shape[1], np.float64)
    for row in range(len(indptr) - 1):
        first = indptr[row]
        n_found = indptr[row + 1] - first
        for one in range(n_found):
            values[one] = data[first + one]
        for one in range(n_found):
            of_gene = np.uint64(indices[first + one]) * n_genes
            for other in range(one, n_found):
                flat[of_gene + np.uint64(indices[first + other])] += values[one] * values[other]
