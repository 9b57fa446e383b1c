"""Neighbours of cells and the weighted graph between them, without just-in-time compilation.

Nearest neighbours are exact (faiss, flat index); the graph's weights are the fuzzy simplicial set of UMAP (McInnes,
Healy and Melville 2018, arXiv:1802.03426) in vectorised numpy. The usual implementation compiles for one to two
minutes in every fresh process.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

_TOLERANCE = 1e-5
_SMALLEST_SCALE = 1e-3
_BISECTIONS = 64


@dataclass(frozen=True)
class Neighbors:
    """``indices`` and Euclidean ``distances``, both cells x k; column 0 is the cell itself at distance 0."""

    indices: NDArray[np.int64]
    distances: NDArray[np.float32]


def nearest_neighbors(points: NDArray[np.float32], n_neighbors: int) -> Neighbors:
    """Exact k nearest neighbours (Euclidean) of every row of ``points`` (cells x dimensions), itself included.

    ``k`` is the smaller of ``n_neighbors`` and the number of cells. Time grows with the square of the cells: about
    20 s for 100,000 cells on two cores.
    """
    import faiss

    data = np.ascontiguousarray(points, dtype=np.float32)
    # Subtracting the mean keeps the float32 products of faiss accurate; distances do not change.
    data = np.ascontiguousarray(data - data.mean(axis=0))
    n_cells = len(data)
    k = min(n_neighbors, n_cells)
    index = faiss.IndexFlatL2(data.shape[1])
    index.add(data)
    _, found = index.search(data, k)
    indices = _self_first(found.astype(np.int64))
    difference = data[indices] - data[:, None, :] if n_cells * k * data.shape[1] < 5e7 else None
    distances = (
        np.sqrt(np.einsum("ijk,ijk->ij", difference, difference))
        if difference is not None
        else np.stack([np.linalg.norm(data[indices[:, j]] - data, axis=1) for j in range(k)], axis=1)
    )
    order = np.lexsort((indices, distances), axis=1)
    # the cell itself stays first among cells at distance zero
    order = np.concatenate([np.zeros((n_cells, 1), dtype=order.dtype), order[order != 0].reshape(n_cells, k - 1)], 1)
    return Neighbors(np.take_along_axis(indices, order, 1), np.take_along_axis(distances, order, 1))


def _self_first(found: NDArray[np.int64]) -> NDArray[np.int64]:
    """Move each row's own index to column 0; among many identical cells it may be absent and replaces the last."""
    own = np.arange(len(found))[:, None]
    is_own = found == own
    is_own[~is_own.any(axis=1), -1] = True
    return np.concatenate([own, found[~is_own].reshape(len(found), -1)], axis=1)


def fuzzy_connectivities(neighbors: Neighbors) -> sparse.csr_matrix:
    """Symmetric weights between neighbours, each 0 to 1: a cells x cells CSR matrix without diagonal.

    Each cell's distances become ``exp(-(d - rho) / sigma)`` with ``rho`` the distance to the nearest other cell and
    ``sigma`` such that the weights sum to ``log2(k)``; two directions are joined by ``a + b - ab``. Equals
    ``umap.umap_.fuzzy_simplicial_set`` for the same neighbours.
    """
    n_cells, k = neighbors.indices.shape
    rho, sigma = _local_scales(neighbors.distances.astype(np.float64))
    excess = neighbors.distances - rho[:, None]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        weights = np.exp(-excess / sigma[:, None])
    weights = np.where((excess <= 0) | (sigma[:, None] == 0), 1.0, weights)
    weights[:, 0] = 0.0
    rows = np.repeat(np.arange(n_cells), k)
    directed = sparse.csr_matrix((weights.ravel(), (rows, neighbors.indices.ravel())), shape=(n_cells, n_cells))
    transposed = directed.T.tocsr()
    joined = (directed + transposed - directed.multiply(transposed)).tocsr().astype(np.float32)
    joined.eliminate_zeros()
    joined.sort_indices()
    return joined


def _local_scales(distances: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``rho`` and ``sigma`` of every cell, by bisection over all cells at once."""
    n_cells, k = distances.shape
    positive = np.where(distances > 0, distances, np.inf).min(axis=1)
    rho = np.where(np.isfinite(positive), positive, 0.0)
    target = np.log2(k) if k > 1 else 0.0
    excess = np.clip(distances[:, 1:] - rho[:, None], 0, None)
    low, high, middle = np.zeros(n_cells), np.full(n_cells, np.inf), np.ones(n_cells)
    open_ = np.ones(n_cells, dtype=bool)
    for _ in range(_BISECTIONS):
        total = np.exp(-excess[open_] / middle[open_, None]).sum(axis=1)
        off = np.abs(total - target) >= _TOLERANCE
        open_[np.flatnonzero(open_)[~off]] = False
        if not open_.any():
            break
        too_wide = (total > target)[off]
        now = middle[open_]
        high[open_] = np.where(too_wide, now, high[open_])
        low[open_] = np.where(too_wide, low[open_], now)
        unbounded = np.isinf(high[open_])
        middle[open_] = np.where(unbounded, now * 2, (low[open_] + np.where(unbounded, 0, high[open_])) / 2)
    floor = np.where(rho > 0, distances.mean(axis=1), distances.mean())
    return rho, np.maximum(middle, _SMALLEST_SCALE * floor)
