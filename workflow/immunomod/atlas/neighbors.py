"""Neighbours of cells and the weighted graph between them.

Up to ``EXACT_CELLS`` cells neighbours are exact: all distances, by blocks of scalar products. Above, cells are put into
lists around k-means centres (an inverted file, Jegou et al. 2011, doi:10.1109/TPAMI.2010.57), a list's cells are
compared with the cells of the nearest lists in one product, and each cell then looks at its neighbours' neighbours
(Dong et al. 2011, doi:10.1145/1963405.1963487). The graph's weights are the fuzzy simplicial set of UMAP (McInnes,
Healy and Melville 2018, arXiv:1802.03426).

Why not a library: what the field uses (pynndescent) compiles for one to two minutes in every fresh process and finds 93
of 100 neighbours among 100,000 cells; faiss's flat index takes five times as long, its inverted file compares cells one
query after another. benchmarks/atlas measures them side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from immunomod.parallel import for_each, one_blas_thread, row_blocks

EXACT_CELLS = 30_000
_CELLS_PER_LIST = 250
_COMPARED_CELLS = 20_000
_COMPARED_SHARE = 0.1
_TRAINING_CELLS_PER_LIST = 24
_KMEANS_ROUNDS = 6
_QUERIES_AT_ONCE = 512
_CANDIDATES_AT_ONCE = 2048
_ROWS_AT_ONCE = 16_384


@dataclass(frozen=True)
class Neighbors:
    """``indices`` (int32) and Euclidean ``distances`` (float32), both cells x k; column 0 is the cell at distance 0."""

    indices: NDArray[np.int32]
    distances: NDArray[np.float32]


def nearest_neighbors(points: NDArray[np.float32], n_neighbors: int, threads: int = 1) -> Neighbors:
    """Nearest neighbours (Euclidean) of every row of ``points`` (cells x dimensions), itself included.

    ``k`` is the smaller of ``n_neighbors`` and the number of cells. The result does not depend on ``threads``. Among
    identical cells any of them may be neighbours.
    """
    n_cells = len(points)
    k = min(n_neighbors, n_cells)
    if k < 2:
        own = np.arange(n_cells, dtype=np.int32)[:, None]
        return Neighbors(own, np.zeros(own.shape, dtype=np.float32))
    # Subtracting the mean keeps float32 products accurate; distances do not change.
    data = np.asarray(points, dtype=np.float32)
    data = np.ascontiguousarray(data - data.mean(axis=0, dtype=np.float64).astype(np.float32))
    with one_blas_thread():
        others = (_exact if n_cells <= EXACT_CELLS else _by_lists)(data, k - 1, threads)
        distances = _measured(data, others, threads)
    own = np.arange(n_cells, dtype=np.int32)[:, None]
    return Neighbors(
        np.concatenate([own, others], axis=1), np.concatenate([np.zeros_like(distances[:, :1]), distances], axis=1)
    )


def _exact(data: NDArray[np.float32], k: int, threads: int) -> NDArray[np.int32]:
    from immunomod.atlas.neighbors_kernel import keep_nearest

    n_cells = len(data)
    squares, numbers = np.einsum("ij,ij->i", data, data), np.arange(n_cells, dtype=np.int32)
    best, found = _no_neighbors(n_cells, k)

    def search(rows: slice) -> None:
        for columns in row_blocks(n_cells, _CANDIDATES_AT_ONCE):
            products = data[rows] @ data[columns].T
            keep_nearest(products, squares[columns], numbers[columns], numbers[rows], best[rows], found[rows])

    for_each(row_blocks(n_cells, _QUERIES_AT_ONCE), search, threads)
    return found


def _by_lists(data: NDArray[np.float32], k: int, threads: int) -> NDArray[np.int32]:
    from immunomod.atlas.neighbors_kernel import keep_nearest, look_around

    n_cells = len(data)
    centres, member = _lists(data, n_cells // _CELLS_PER_LIST, threads)
    order = np.argsort(member, kind="stable").astype(np.int32)
    data = data[order]  # cells of a list lie side by side
    squares, numbers = np.einsum("ij,ij->i", data, data), np.arange(n_cells, dtype=np.int32)
    start = np.searchsorted(member[order], np.arange(len(centres) + 1))
    size = np.diff(start)
    best, found = _no_neighbors(n_cells, k)
    n_compared = max(_COMPARED_CELLS, int(_COMPARED_SHARE * n_cells))

    def search(number: int) -> None:
        apart = np.einsum("ij,ij->i", centres, centres) - 2 * centres @ centres[number]
        apart[number] = -np.inf
        nearest = np.argsort(apart, kind="stable")
        nearest = nearest[: int(np.searchsorted(np.cumsum(size[nearest]), n_compared)) + 1]
        if size[number] > n_compared:  # nearly identical cells by the thousand: only those beside each other
            candidates = None
        else:
            candidates = np.concatenate([numbers[start[other] : start[other + 1]] for other in nearest])
        for rows in row_blocks(int(size[number]), _QUERIES_AT_ONCE):
            rows = slice(start[number] + rows.start, start[number] + rows.stop)
            beside = candidates
            if beside is None:
                first = max(0, min(rows.start - n_compared // 2, n_cells - n_compared))
                beside = numbers[first : first + n_compared]
            for columns in row_blocks(len(beside), _CANDIDATES_AT_ONCE):
                chosen = beside[columns]
                products = data[rows] @ data[chosen].T
                keep_nearest(products, squares[chosen], chosen, numbers[rows], best[rows], found[rows])

    for_each([number for number in range(len(centres)) if size[number]], search, threads)
    known = found.copy()
    for_each(
        row_blocks(n_cells, _ROWS_AT_ONCE),
        lambda rows: look_around(data, squares, known, rows.start, rows.stop, best, found),
        threads,
    )
    result = np.empty_like(found)
    result[order] = order[found]
    return result


def _lists(data: NDArray[np.float32], n_lists: int, threads: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """k-means centres, trained on evenly spaced cells, and the list of every cell."""
    training = data[:: max(1, len(data) // (n_lists * _TRAINING_CELLS_PER_LIST))]
    centres = training[np.linspace(0, len(training) - 1, n_lists).astype(int)].copy()
    for _ in range(_KMEANS_ROUNDS):
        member = _nearest_centre(training, centres, threads)
        weights = sparse.csr_matrix(
            (np.ones(len(training), dtype=np.float32), (member, np.arange(len(training)))),
            shape=(n_lists, len(training)),
        )
        size = np.bincount(member, minlength=n_lists)[:, None]
        centres = np.where(size > 0, (weights @ training) / np.maximum(size, 1), centres).astype(np.float32)
    return centres, _nearest_centre(data, centres, threads)


def _nearest_centre(data: NDArray[np.float32], centres: NDArray[np.float32], threads: int) -> NDArray[np.int32]:
    half = np.einsum("ij,ij->i", centres, centres) / 2
    member = np.empty(len(data), dtype=np.int32)

    def assign(rows: slice) -> None:
        products = data[rows] @ centres.T
        products -= half
        member[rows] = products.argmax(axis=1)

    for_each(row_blocks(len(data), _CANDIDATES_AT_ONCE), assign, threads)
    return member


def _no_neighbors(n_cells: int, k: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    return np.full((n_cells, k), np.inf, dtype=np.float32), np.zeros((n_cells, k), dtype=np.int32)


def _measured(data: NDArray[np.float32], indices: NDArray[np.int32], threads: int) -> NDArray[np.float32]:
    """Distances to ``indices``, both sorted in place."""
    from immunomod.atlas.neighbors_kernel import measure_and_sort

    distances = np.empty(indices.shape, dtype=np.float32)
    for_each(
        row_blocks(len(data), _ROWS_AT_ONCE),
        lambda rows: measure_and_sort(data, indices, rows.start, rows.stop, distances),
        threads,
    )
    return distances


def fuzzy_connectivities(neighbors: Neighbors, threads: int = 1) -> sparse.csr_matrix:
    """Symmetric weights between neighbours, each 0 to 1: a cells x cells float32 CSR matrix without diagonal.

    Each cell's distances become ``exp(-(d - rho) / sigma)`` with ``rho`` the distance to the nearest other cell and
    ``sigma`` such that the weights sum to ``log2(k)``; two directions are joined by ``a + b - ab``. Equals
    ``umap.umap_.fuzzy_simplicial_set`` for the same neighbours.
    """
    from immunomod.atlas.neighbors_kernel import directed_weights

    n_cells, k = neighbors.indices.shape
    distances = np.ascontiguousarray(neighbors.distances, dtype=np.float32)
    weights = np.zeros(distances.shape, dtype=np.float32)
    if k > 1:
        mean = float(distances.mean(dtype=np.float64))
        for_each(
            row_blocks(n_cells, _ROWS_AT_ONCE),
            lambda rows: directed_weights(distances, mean, rows.start, rows.stop, weights),
            threads,
        )
    rows = np.arange(0, n_cells * k + 1, k, dtype=np.int64 if n_cells * k > 2**31 - 1 else np.int32)
    columns = neighbors.indices.astype(rows.dtype).ravel()
    directed = sparse.csr_matrix((weights.ravel(), columns, rows), shape=(n_cells, n_cells))
    directed.eliminate_zeros()
    directed.sort_indices()
    transposed = directed.T.tocsr()
    joined = directed + transposed
    joined = joined - directed.multiply(transposed)
    joined.eliminate_zeros()
    joined.sort_indices()
    return sparse.csr_matrix(joined, dtype=np.float32)
