"""Leiden communities of the cell graph (Traag, Waltman and van Eck 2019, doi:10.1038/s41598-019-41695-z)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

if TYPE_CHECKING:
    import igraph

_N_SEEDS = 5
# Above this many cells three seeds have to do: a run takes seconds there, and sampling noise is small.
_MANY_CELLS = 20_000
_FEWER_SEEDS = 3
STABLE = 0.9


def graph_of(connectivities: sparse.csr_matrix) -> igraph.Graph:
    """The symmetric weights (cells x cells) as an undirected igraph graph with edge attribute ``weight``."""
    import igraph

    upper = sparse.triu(connectivities, k=1).tocoo()
    graph = igraph.Graph(n=connectivities.shape[0], edges=np.column_stack([upper.row, upper.col]), directed=False)
    graph.es["weight"] = upper.data.astype(float)
    return graph


def leiden(graph: igraph.Graph, resolution: float, seed: int) -> NDArray[np.int64]:
    """Cluster of every cell, numbered from the largest; weighted modularity, iterated until nothing improves.

    igraph draws from one process-wide generator: it is set here and handed back to Python's own afterwards.
    """
    import igraph

    igraph.set_random_number_generator(random.Random(seed))
    try:
        parts = graph.community_leiden(
            objective_function="modularity", weights="weight", resolution=resolution, n_iterations=-1
        )
    finally:
        igraph.set_random_number_generator(random)
    return by_size(np.asarray(parts.membership))


def by_size(membership: NDArray[np.int64]) -> NDArray[np.int64]:
    """Renumber groups from the largest to the smallest; equal sizes by their first cell."""
    _, first, inverse, counts = np.unique(membership, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((first, -counts))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank[inverse]


def leiden_stability(graph: igraph.Graph, resolution: float, seed: int) -> tuple[NDArray[np.int64], float, float]:
    """Cluster with several seeds.

    Returns
    -------
    labels
        Of the seed with the highest modularity at this resolution (the first such seed).
    stability
        Mean adjusted Rand index over all pairs of seeds; 1 when all agree.
    modularity
        Of ``labels``.
    """
    from sklearn.metrics import adjusted_rand_score

    n_seeds = _N_SEEDS if graph.vcount() <= _MANY_CELLS else _FEWER_SEEDS
    runs = [leiden(graph, resolution, seed + offset) for offset in range(n_seeds)]
    quality = [graph.modularity(run.tolist(), weights="weight", resolution=resolution) for run in runs]
    pairs = [adjusted_rand_score(runs[i], runs[j]) for i in range(n_seeds) for j in range(i)]
    best = int(np.argmax(np.round(quality, 9)))
    return runs[best], float(np.mean(pairs)), float(quality[best])


def choose_resolution(
    graph: igraph.Graph, resolutions: Sequence[float], wanted: float, seed: int
) -> tuple[NDArray[np.int64], pd.DataFrame]:
    """Cluster at every resolution and keep the wanted one unless it is unstable and another is not.

    Returns
    -------
    labels
        Cluster of every cell at the chosen resolution.
    table
        One row per resolution: ``resolution``, ``n_clusters``, ``smallest_cluster`` (cells), ``stability_ari``,
        ``modularity``, ``chosen``, ``reason``.
    """
    labels: dict[float, NDArray[np.int64]] = {}
    rows = []
    for resolution in sorted({*resolutions, wanted}):
        labels[resolution], stability, modularity = leiden_stability(graph, resolution, seed)
        sizes = np.bincount(labels[resolution])
        rows.append([resolution, len(sizes), int(sizes.min()), stability, modularity])
    table = pd.DataFrame(rows, columns=["resolution", "n_clusters", "smallest_cluster", "stability_ari", "modularity"])
    chosen, reason = _choice(table.set_index("resolution")["stability_ari"], wanted)
    table["chosen"] = table["resolution"] == chosen
    table["reason"] = np.where(table["chosen"], reason, "")
    return labels[chosen], table


def _choice(stability: pd.Series, wanted: float) -> tuple[float, str]:
    if stability[wanted] >= STABLE:
        return wanted, f"asked for, and stable across seeds (mean ARI {stability[wanted]:.2f})"
    best = max(stability.index, key=lambda resolution: (stability[resolution], -abs(np.log(resolution / wanted))))
    if best == wanted or stability[best] < stability[wanted] + 0.05:
        return wanted, f"asked for; mean ARI {stability[wanted]:.2f} across seeds, and no other is clearly more stable"
    return float(best), (
        f"most stable (mean ARI {stability[best]:.2f}); the one asked for, {wanted:g}, has {stability[wanted]:.2f}"
    )


def absorb_small(groups: NDArray[np.int64], connectivities: sparse.csr_matrix, smallest: int) -> NDArray[np.int64]:
    """Join each group of fewer than ``smallest`` cells to the larger group it is connected to most; renumber by size.

    A small group without connection to a larger one stays.
    """
    size = np.bincount(groups)
    if size.min() >= smallest:
        return by_size(groups)
    member = sparse.csr_matrix((np.ones(len(groups)), (groups, np.arange(len(groups)))))
    between = (member @ connectivities @ member.T).toarray()
    between[:, size < smallest] = 0.0
    nearest = np.where(between.max(axis=1) > 0, between.argmax(axis=1), np.arange(len(size)))
    return by_size(np.where(size < smallest, nearest, np.arange(len(size)))[groups])


def whole_groups(clusters: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Clusters (coarse) moved so that each of the finer groups lies in one: that of most of its cells."""
    counts = pd.crosstab(groups, clusters)
    return np.asarray(counts.idxmax(axis=1).to_numpy(dtype=np.int64)[groups])


def split_by(clusters: NDArray[np.int64], names: NDArray[np.object_]) -> NDArray[np.object_]:
    """Cluster labels as text, ``"3"``; a cluster whose cells have several names becomes ``"3a"``, ``"3b"``, ….

    Parts are lettered from the largest.
    """
    frame = pd.DataFrame({"cluster": clusters, "name": names})
    label = frame["cluster"].astype(str).to_numpy(dtype=object)
    sizes = frame.value_counts(["cluster", "name"], sort=False).reset_index(name="n")
    sizes = sizes.sort_values(["cluster", "n", "name"], ascending=[True, False, True])
    for cluster, parts in sizes.groupby("cluster"):
        if len(parts) > 1:
            for letter, name in zip(_letters(len(parts)), parts["name"], strict=True):
                label[(clusters == cluster) & (names == name)] = f"{cluster}{letter}"
    return label


def _letters(count: int) -> list[str]:
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    return [alphabet[i] if i < 26 else f"{alphabet[i // 26 - 1]}{alphabet[i % 26]}" for i in range(count)]
