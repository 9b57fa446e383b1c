"""Sums over a library's counts, in blocks of rows: a wider copy of the whole matrix is never made.

scipy converts a matrix to the type of what it is multiplied with, and to 64 bits for a sum over an axis; of 20,000
cells either is a third of a gigabyte. Here a block keeps its type wherever no sum in it can overflow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

_ENTRIES_AT_ONCE = 1 << 21


def entry_blocks(n_entries: int) -> Iterator[slice]:
    """Slices that cover so many entries."""
    return (slice(begin, min(begin + _ENTRIES_AT_ONCE, n_entries)) for begin in range(0, n_entries, _ENTRIES_AT_ONCE))


def row_blocks(counts: sparse.csr_matrix) -> Iterator[tuple[slice, sparse.csr_matrix]]:
    """Consecutive rows of a matrix, as views that copy no entry, and which rows they are."""
    pointers, n_rows = counts.indptr, counts.shape[0]
    begin = 0
    while begin < n_rows:
        limit = int(pointers[begin]) + _ENTRIES_AT_ONCE
        end = max(begin + 1, int(np.searchsorted(pointers, limit, side="right")) - 1)
        entries = slice(int(pointers[begin]), int(pointers[end]))
        block = sparse.csr_matrix((end - begin, counts.shape[1]), dtype=counts.dtype)
        # set one by one, because the constructor copies a view of an array much larger than itself
        block.data, block.indices = counts.data[entries], counts.indices[entries]
        block.indptr = pointers[begin : end + 1] - pointers[begin]
        yield slice(begin, end), block
        begin = end


def gene_set_sums(counts: sparse.csr_matrix, sets: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Each cell's counts in some sets of genes.

    Parameters
    ----------
    counts
        cells x genes, integers (whole numbers of any type), CSR.
    sets
        genes x sets, or (genes,) for one.

    Returns
    -------
    cells x sets, or (cells,); exact.
    """
    sums = np.zeros((counts.shape[0], *sets.shape[1:]))
    for rows, block in row_blocks(counts):
        longest = int(np.diff(block.indptr).max())
        sums[rows] = block @ sets.astype(_exact_type(block, longest))
    return sums


def cell_sums(counts: sparse.csr_matrix) -> NDArray[np.int64]:
    """Sum of each row (cells,)."""
    return gene_set_sums(counts, np.ones(counts.shape[1], dtype=bool)).astype(np.int64)


def detected_genes(counts: sparse.csr_matrix) -> NDArray[np.bool_]:
    """Which columns hold an entry (genes,)."""
    detected = np.zeros(counts.shape[1], dtype=bool)
    for block in entry_blocks(counts.nnz):
        detected[counts.indices[block]] = True
    return detected


def gene_sums(counts: sparse.csr_matrix, cells: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Sum of each gene (genes,) over some cells; exact."""
    sums = np.zeros(counts.shape[1])
    for rows, block in row_blocks(counts):
        sums += block.T @ cells[rows].astype(_exact_type(block, block.shape[0]))
    return sums


def _exact_type(block: sparse.csr_matrix, n_terms: int) -> np.dtype[np.generic]:
    """The block's own type where a sum of so many of its values fits into it, else a wider one."""
    kind: np.dtype[Any] = block.dtype
    if kind.kind in "iu" and int(block.data.max(initial=0)) * n_terms <= np.iinfo(kind).max:
        return kind
    return np.dtype(np.float64)
