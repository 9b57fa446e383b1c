"""Exact principal components of a sparse matrix, without a dense copy of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Components:
    """Principal components: ``scores`` (cells x k), ``loadings`` (genes x k) and ``variance_ratio`` (k)."""

    scores: NDArray[np.float32]
    loadings: NDArray[np.float64]
    variance_ratio: NDArray[np.float64]


def principal_components(matrix: sparse.csr_matrix, n_components: int) -> Components:
    """Exact PCA of a sparse cells x genes matrix, centred by gene and not scaled.

    The genes x genes covariance is summed over blocks of rows, so the matrix is never dense as a whole, and its
    leading eigenvectors are taken (LAPACK, no random start). Each component's sign makes its largest loading
    positive. At most ``min(cells - 1, genes)`` components come back.
    """
    n_cells, n_genes = matrix.shape
    mean = np.asarray(matrix.mean(axis=0), dtype=np.float64).ravel()
    covariance = np.zeros((n_genes, n_genes))
    for start in range(0, n_cells, _ROWS_AT_ONCE):
        centred = matrix[start : start + _ROWS_AT_ONCE].toarray().astype(np.float64) - mean
        covariance += centred.T @ centred
    covariance /= max(n_cells - 1, 1)

    kept = max(1, min(n_components, n_cells - 1, n_genes))
    values, vectors = linalg.eigh(covariance, subset_by_index=(n_genes - kept, n_genes - 1))
    values, vectors = np.clip(values[::-1], 0, None), vectors[:, ::-1]
    largest = vectors[np.argmax(np.abs(vectors), axis=0), np.arange(kept)]
    vectors = vectors * np.where(largest < 0, -1.0, 1.0)
    scores = np.asarray(matrix @ vectors) - mean @ vectors
    total = float(np.trace(covariance))
    ratio = values / total if total > 0 else np.zeros(kept)
    return Components(scores.astype(np.float32), vectors, ratio)
