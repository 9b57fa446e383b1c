"""Exact principal components of a sparse matrix, without a dense or a centred copy of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from immunomod.parallel import for_each, one_blas_thread, row_blocks

_ROWS_AT_ONCE = 8192
# Parts of the rows that are summed apart and then together, in this order on any number of threads. Each needs a
# genes x genes matrix of its own.
_PARTS = 4
_ROWS_OF_PRODUCTS = 2048
# Genes found in this share of the cells or more are multiplied with each other as a dense matrix.
_OFTEN = 0.125
# So few cells are multiplied in dense blocks before numba is imported.
_FEW_CELLS = 5_000
_DENSE_ROWS = 1024


@dataclass(frozen=True)
class Components:
    """Principal components: ``scores`` (cells x k), ``loadings`` (genes x k) and ``variance_ratio`` (k)."""

    scores: NDArray[np.float32]
    loadings: NDArray[np.float64]
    variance_ratio: NDArray[np.float64]


def principal_components(matrix: sparse.csr_matrix, n_components: int, threads: int = 1) -> Components:
    """Exact PCA of a sparse cells x genes matrix, centred by gene and not scaled.

    The genes x genes covariance is ``X'X / (n - 1)`` less the means' share, in float64, and its leading eigenvectors
    are taken (LAPACK, no random start). Products of rare genes are summed over the non-zeros, those of genes that many
    cells express as of a dense matrix. Each component's sign makes its largest loading positive. At most
    ``min(cells - 1, genes)`` components come back. The result does not depend on ``threads``.
    """
    n_cells, n_genes = matrix.shape
    matrix = sparse.csr_matrix(matrix, dtype=np.float32)
    if not matrix.has_sorted_indices:
        matrix = matrix.sorted_indices()
    # (scipy's own sum would add float32 numbers, whatever dtype is asked for)
    mean = (matrix.T @ np.ones(n_cells)) / n_cells
    covariance = (_products(matrix, threads) - n_cells * np.outer(mean, mean)) / max(n_cells - 1, 1)

    kept = max(1, min(n_components, n_cells - 1, n_genes))
    with one_blas_thread():
        values, vectors = linalg.eigh(covariance, subset_by_index=(n_genes - kept, n_genes - 1))
    values, vectors = np.clip(values[::-1], 0, None), vectors[:, ::-1]
    largest = vectors[np.argmax(np.abs(vectors), axis=0), np.arange(kept)]
    vectors = np.ascontiguousarray(vectors * np.where(largest < 0, -1.0, 1.0))
    scores = np.empty((n_cells, kept), dtype=np.float32)

    def project(rows: slice) -> None:
        scores[rows] = matrix[rows] @ vectors - mean @ vectors

    for_each(row_blocks(n_cells, _ROWS_AT_ONCE), project, threads)
    total = float(np.trace(covariance))
    ratio = values / total if total > 0 else np.zeros(kept)
    return Components(scores, vectors, ratio)


def _products(matrix: sparse.csr_matrix, threads: int) -> NDArray[np.float64]:
    """``X'X``, both triangles."""
    n_cells, n_genes = matrix.shape
    if n_cells <= _FEW_CELLS:
        products = np.zeros((n_genes, n_genes))
        with one_blas_thread():
            for rows in row_blocks(n_cells, _DENSE_ROWS):
                block = matrix[rows].toarray().astype(np.float64)
                products += block.T @ block
        return products
    from immunomod.atlas.components_kernel import add_products

    # From the most to the least often detected gene. Most products are those of the first with each other, which are
    # fastest as of a dense matrix.
    n_found = np.bincount(matrix.indices, minlength=n_genes)
    order = np.argsort(-n_found, kind="stable")
    n_often = int((n_found >= _OFTEN * n_cells).sum())
    n_rare = n_genes - n_often
    place = np.empty(n_genes, dtype=np.int32)
    place[order] = np.arange(n_genes)

    def part(rows: slice) -> tuple[NDArray[np.float64], ...]:
        sums = np.zeros((n_often, n_often)), np.zeros((n_rare, n_often)), np.zeros((n_rare, n_rare))
        for within in row_blocks(rows.stop - rows.start, _ROWS_OF_PRODUCTS):
            begin = matrix.indptr[rows.start + within.start : rows.start + within.stop + 1]
            entries = slice(begin[0], begin[-1])
            found = (matrix.data[entries].copy(), place[matrix.indices[entries]], begin - begin[0])
            block = sparse.csr_matrix(found, shape=(len(begin) - 1, n_genes))
            block.sort_indices()
            often = np.zeros((block.shape[0], n_often))
            columns = block.indices.astype(np.uint32)
            add_products(block.indptr.astype(np.int64), columns, block.data, often, *sums[1:])
            sums[0][:] += often.T @ often
        return sums

    parts = row_blocks(n_cells, max(_ROWS_AT_ONCE, -(-n_cells // _PARTS)))
    with one_blas_thread():
        often, mixed, rare = (sum(sums) for sums in zip(*for_each(parts, part, threads), strict=True))
    products = np.block([[often, np.transpose(mixed)], [mixed, rare + np.triu(rare, 1).T]])
    return np.asarray(products[np.ix_(place, place)], dtype=np.float64)
