"""The compiled loop behind principal components, in a module of its own because importing numba takes time."""

from __future__ import annotations

import numpy as np
from numba import njit, types


@njit(
    types.void(
        types.int64[::1],
        types.uint32[::1],
        types.float32[::1],
        types.float64[:, ::1],
        types.float64[:, ::1],
        types.float64[:, ::1],
    ),
    nogil=True,
    cache=True,
)
def add_products(indptr, indices, data, often, mixed, rare):  # type: ignore[no-untyped-def]
    """Add ``x x'`` of sparse rows, but for the products of often detected genes with each other.

    ``often`` (rows x often detected genes, zeros) is filled with the rows' first columns, for a product of its own.
    ``mixed`` (rare x often) takes each rare gene's products with all often detected ones, zeros among them, since a run
    of products is faster than a choice; ``rare`` (rare x rare, upper triangle) those of rare genes with each other.
    Columns are sorted within a row, and unsigned: numba would test each for being negative.
    """
    n_often, n_rare = np.uint64(often.shape[1]), np.uint64(rare.shape[1])
    flat = rare.ravel()
    values = np.empty(rare.shape[1], np.float64)
    columns = np.empty(rare.shape[1], np.uint64)
    for row in range(len(indptr) - 1):
        entry, last = indptr[row], indptr[row + 1]
        dense = often[row]
        while entry < last and np.uint64(indices[entry]) < n_often:
            dense[indices[entry]] = data[entry]
            entry += 1
        n_found = last - entry
        for one in range(n_found):
            values[one] = data[entry + one]
            columns[one] = np.uint64(indices[entry + one]) - n_often
        for one in range(n_found):
            value = values[one]
            sums = mixed[columns[one]]
            for gene in range(len(dense)):
                sums[gene] += value * dense[gene]
            of_gene = columns[one] * n_rare
            for other in range(one, n_found):
                flat[of_gene + columns[other]] += value * values[other]
