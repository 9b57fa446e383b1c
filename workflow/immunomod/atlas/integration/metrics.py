"""Single measures of an integration, as scib defines them (Luecken et al. 2022, doi:10.1038/s41592-021-01336-8).

The reference package, scib-metrics, compiles its functions anew in every process: half a minute and more for a study
that these few lines of numpy measure in a second. They give the same numbers, which the tests hold against it.
Cells are rows. Neighbours never hold the cell itself; an index of -1 stands for a neighbour that is missing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

_TOLERANCE = 1e-5
_TRIES = 50
_ROWS_AT_ONCE = 1024


def lisi(
    indices: NDArray[np.integer], distances: NDArray[np.floating], codes: NDArray[np.int64], perplexity: float
) -> NDArray[np.float64]:
    """Local inverse Simpson index of every cell: the effective number of ``codes`` around it.

    Parameters
    ----------
    indices, distances
        Neighbours of each cell (cells x k) and how far they are.
    codes
        Batch or class of every cell, numbered from 0.
    perplexity
        Effective number of neighbours that the kernel weighs.

    Returns
    -------
    Cells; 1 where all neighbours have one code. Korsunsky et al. 2019, doi:10.1038/s41592-019-0619-0.
    """
    return inverse_simpson(indices, neighbor_weights(indices, distances, perplexity), codes)


def inverse_simpson(
    indices: NDArray[np.integer], weights: NDArray[np.float64], codes: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Effective number of ``codes`` among the neighbours of every cell, weighted by ``weights`` (cells x k)."""
    share = np.zeros((len(indices), int(codes.max(initial=0)) + 1))
    rows = np.repeat(np.arange(len(indices)), indices.shape[1])
    np.add.at(share, (rows, codes[np.maximum(indices, 0)].ravel()), weights.ravel())
    simpson = (share**2).sum(axis=1)
    return np.asarray(1 / np.where(simpson > 0, simpson, 1.0), dtype=np.float64)


def neighbor_weights(
    indices: NDArray[np.integer], distances: NDArray[np.floating], perplexity: float
) -> NDArray[np.float64]:
    """Weights ``exp(-beta d)`` per row that sum to 1, with ``beta`` such that their entropy is ``log(perplexity)``."""
    distances = np.where(indices >= 0, distances, np.inf)
    finite = np.isfinite(distances)
    shifted = np.where(finite, distances, 0.0).astype(np.float64)
    # taking the nearest distance off changes no weight and keeps exp from underflowing
    nearest = np.where(finite, distances, np.inf).min(axis=1, initial=np.inf)
    shifted -= np.where(np.isfinite(nearest), nearest, 0.0)[:, None]
    beta, low, high = np.ones(len(shifted)), np.full(len(shifted), -np.inf), np.full(len(shifted), np.inf)
    weights = np.zeros_like(shifted)
    open_ = np.arange(len(shifted))
    for _ in range(_TRIES + 1):
        kernel = np.where(finite[open_], np.exp(-shifted[open_] * beta[open_, None]), 0.0)
        total = np.maximum(kernel.sum(axis=1), 1e-300)
        entropy = np.log(total) + beta[open_] * (shifted[open_] * kernel).sum(axis=1) / total
        weights[open_] = kernel / total[:, None]
        off = entropy - np.log(perplexity)
        keep = np.abs(off) >= _TOLERANCE
        open_, off = open_[keep], off[keep]
        if not len(open_):
            break
        wide = off > 0
        low[open_[wide]], high[open_[~wide]] = beta[open_[wide]], beta[open_[~wide]]
        now, least, most = beta[open_], low[open_], high[open_]
        with np.errstate(invalid="ignore"):
            middle = (least + most) / 2
        beta[open_] = np.where(
            wide, np.where(np.isinf(most), now * 2, middle), np.where(np.isinf(least), now / 2, middle)
        )
    return weights


def kbet_acceptance(indices: NDArray[np.integer], codes: NDArray[np.int64], alpha: float = 0.05) -> NDArray[np.bool_]:
    """Cells whose neighbours' batches pass a chi-squared test against the batches' shares among all cells.

    Büttner et al. 2019, doi:10.1038/s41592-018-0254-1. ``indices``: cells x k; ``codes``: batch of every cell.
    """
    from scipy.stats import chi2

    n_batches = int(codes.max(initial=0)) + 1
    expected = np.bincount(codes, minlength=n_batches) / len(codes)
    there = indices >= 0
    observed = np.stack([((codes[indices] == batch) & there).sum(axis=1) for batch in range(n_batches)], axis=1)
    n = there.sum(axis=1, keepdims=True)
    statistic = ((observed - n * expected) ** 2 / np.maximum(n * expected, 1e-12)).sum(axis=1)
    return np.asarray(chi2.sf(statistic, max(n_batches - 1, 1)) >= alpha)


def largest_component_share(indices: NDArray[np.integer], members: NDArray[np.bool_]) -> float:
    """Share of ``members`` in the largest strongly connected part of the neighbour graph among them."""
    from scipy.sparse.csgraph import connected_components

    n_cells, k = indices.shape
    rows, columns = np.repeat(np.arange(n_cells), k), indices.ravel()
    there = columns >= 0
    graph = sparse.csr_matrix((np.ones(int(there.sum())), (rows[there], columns[there])), shape=(n_cells, n_cells))
    _, part = connected_components(graph[members][:, members], connection="strong")
    return float(np.bincount(part).max() / len(part))


def silhouettes(points: NDArray[np.floating], codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Silhouette width of every cell (Euclidean); 0 for the only cell of its code. Equals scikit-learn's.

    Distances come from blocks of one matrix product, several times faster at 10,000 cells.
    """
    points = np.asarray(points, dtype=np.float32) - np.asarray(points, dtype=np.float32).mean(axis=0)
    n_codes = int(codes.max()) + 1
    sizes = np.bincount(codes, minlength=n_codes).astype(np.float64)
    member = np.zeros((len(points), n_codes), dtype=np.float32)
    member[np.arange(len(points)), codes] = 1.0
    square = np.einsum("ij,ij->i", points, points)
    width = np.zeros(len(points))
    for start in range(0, len(points), _ROWS_AT_ONCE):
        rows = np.arange(start, min(start + _ROWS_AT_ONCE, len(points)))
        distance = square[rows, None] + square[None, :] - 2 * (points[rows] @ points.T)
        distance[rows - start, rows] = 0.0
        sums = np.sqrt(np.maximum(distance, 0.0, out=distance), out=distance) @ member
        own = codes[rows]
        at = (np.arange(len(rows)), own)
        inside = sums[at] / np.maximum(sizes[own] - 1, 1)
        means = np.where(sizes > 0, sums / np.maximum(sizes, 1), np.inf)
        means[at] = np.inf
        outside = means.min(axis=1)
        scale = np.maximum(np.maximum(inside, outside), 1e-12)
        width[rows] = np.where((sizes[own] > 1) & np.isfinite(outside), (outside - inside) / scale, 0.0)
    return width


def explained_by(points: NDArray[np.floating], codes: NDArray[np.int64]) -> float:
    """Share of the variance of ``points`` (cells x d) that lies between the levels of ``codes``.

    Principal component regression of scib: components are mere rotations, so the share can be read off the coordinates
    as they are: R-squared of each axis, weighted by its variance.
    """
    points = np.asarray(points, dtype=np.float64)
    centred = points - points.mean(axis=0)
    total = float((centred**2).sum())
    sizes = np.maximum(np.bincount(codes), 1)
    sums = np.zeros((len(sizes), points.shape[1]))
    np.add.at(sums, codes, centred)
    return float(((sums**2).sum(axis=1) / sizes).sum() / total) if total > 0 else 0.0


def isolated_f1(
    labels: NDArray[np.int64], replicates: NDArray[np.int64], clusterings: Sequence[NDArray[np.int64]]
) -> float:
    """How well one cluster holds each of the classes that the fewest replicates have: best F1, mean over the classes.

    ``clusterings``: clusters of every cell, at several resolutions.
    """
    pairs = pd.DataFrame({"label": labels, "replicate": replicates}).drop_duplicates()
    present = pairs["label"].value_counts()
    scores = []
    for label in present.index[present == present.min()]:
        own = labels == label
        best = 0.0
        for clusters in clusterings:
            both, sizes = np.bincount(clusters[own], minlength=int(clusters.max()) + 1), np.bincount(clusters)
            best = max(best, float((2 * both / (sizes + own.sum())).max()))
        scores.append(best)
    return float(np.mean(scores))
