"""Leiden communities of the cell graph (Traag, Waltman and van Eck 2019, doi:10.1038/s41598-019-41695-z).

Up to ``DIRECT_CELLS`` cells the graph that is clustered is that of the cells. Above, Leiden at a high resolution makes
micro-clusters of some tens of cells first, and every resolution is clustered on the graph between these, as Leiden
itself aggregates: modularity is that of the cells, and sixty runs for the choice of a resolution cost as much as two on
the cells. At the chosen one Leiden goes on from there with the cells and finds what micro-clusters are too coarse for.
igraph holds Python's lock, so what runs side by side are processes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from immunomod.parallel import for_each_process

if TYPE_CHECKING:
    import igraph

DIRECT_CELLS = 5_000
AUTO = "auto"
#: Resolutions among which ``auto`` chooses.
RESOLUTIONS = (0.25, 0.5, 1.0, 1.5, 2.0)
_N_SEEDS = 5
_N_SUBSAMPLES = 5
_KEPT_NODES = 0.8
# A resolution is stable if its adjusted Rand index is no further than this below that of the most stable one; of
# these the best separated is chosen, and a silhouette that is less than this worse is no worse.
_LESS_STABLE = 0.05
_LESS_SEPARATED = 0.03
_SILHOUETTE_CELLS = 3_000


@dataclass(frozen=True)
class CellGraph:
    """What is clustered: ``graph`` (igraph, edge attribute ``weight``) and the node of every cell.

    ``of_cells``: the graph of the cells; the same one where they are the nodes.
    """

    graph: igraph.Graph
    node_of_cell: NDArray[np.int64]
    of_cells: igraph.Graph


def cell_graph(connectivities: sparse.csr_matrix, seed: int) -> CellGraph:
    """The graph of the cells (cells x cells, symmetric weights), or of their micro-clusters where cells are many."""
    graph = graph_of(connectivities)
    n_cells = connectivities.shape[0]
    if n_cells <= DIRECT_CELLS:
        return CellGraph(graph, np.arange(n_cells), graph)
    # the number of micro-clusters grows with the square root of the cells
    micro = leiden(graph, 100 * float(np.sqrt(n_cells / 100_000)), seed, n_iterations=1)
    member = sparse.csr_matrix((np.ones(n_cells), (micro, np.arange(n_cells))), shape=(micro.max() + 1, n_cells))
    between = sparse.csr_matrix(member @ connectivities.astype(np.float64) @ member.T)
    return CellGraph(graph_of(between), micro, graph)


def graph_of(connectivities: sparse.csr_matrix) -> igraph.Graph:
    """Symmetric weights (nodes x nodes) as an undirected igraph graph with edge attribute ``weight``.

    What stands on the diagonal counts both ends of the edges within a node and becomes a loop of half that weight.
    """
    import igraph

    upper = sparse.triu(connectivities).tocoo()
    graph = igraph.Graph(n=connectivities.shape[0], edges=np.column_stack([upper.row, upper.col]), directed=False)
    graph.es["weight"] = np.where(upper.row == upper.col, upper.data / 2, upper.data).astype(float)
    return graph


def leiden(
    graph: igraph.Graph,
    resolution: float,
    seed: int,
    n_iterations: int = -1,
    start: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Cluster of every node, numbered from the largest; weighted modularity, iterated until nothing improves.

    ``start``: clusters to begin with, else every node is one.

    igraph draws from one process-wide generator: it is set here and handed back to Python's own afterwards.
    """
    import igraph

    igraph.set_random_number_generator(random.Random(seed))
    try:
        parts = graph.community_leiden(
            objective_function="modularity",
            weights="weight",
            resolution=resolution,
            n_iterations=n_iterations,
            initial_membership=None if start is None else start.tolist(),
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


@dataclass(frozen=True)
class Clustering:
    """Clusters of the nodes at one resolution, and how far they can be trusted.

    ``labels``: of the seed with the highest modularity (the first such seed). ``stability_ari``: mean adjusted Rand
    index over all pairs of seeds. ``subsample_ari``: mean adjusted Rand index between the clusters and those of graphs
    that keep 80% of the nodes, over the nodes kept.
    """

    resolution: float
    labels: NDArray[np.int64]
    stability_ari: float
    subsample_ari: float
    modularity: float


def cluster_at(graph: igraph.Graph, resolution: float, seed: int) -> Clustering:
    """Cluster with several seeds and on subsamples; see :class:`Clustering`."""
    from sklearn.metrics import adjusted_rand_score

    runs = [leiden(graph, resolution, seed + offset) for offset in range(_N_SEEDS)]
    quality = [graph.modularity(run.tolist(), weights="weight", resolution=resolution) for run in runs]
    labels = runs[int(np.argmax(np.round(quality, 9)))]
    generator = np.random.default_rng(seed)
    n_nodes = graph.vcount()
    again = []
    for offset in range(_N_SUBSAMPLES):
        kept = np.sort(generator.choice(n_nodes, size=max(1, round(_KEPT_NODES * n_nodes)), replace=False))
        part = leiden(graph.induced_subgraph(kept.tolist()), resolution, seed + offset)
        again.append(adjusted_rand_score(labels[kept], part))
    return Clustering(
        resolution,
        labels,
        float(np.mean([adjusted_rand_score(one, other) for one, other in combinations(runs, 2)])),
        float(np.mean(again)),
        float(np.max(quality)),
    )


def choose_resolution(
    graph: CellGraph, coordinates: NDArray[np.float32], wanted: float | str, seed: int, threads: int = 1
) -> tuple[NDArray[np.int64], pd.DataFrame]:
    """Cluster at several resolutions and choose one; where nodes are micro-clusters, go on from it with the cells.

    Parameters
    ----------
    graph
        See :func:`cell_graph`.
    coordinates
        Cells x dimensions, by which separation is measured (silhouette of a seeded draw of 3,000 cells).
    wanted
        A resolution, which is taken as it is, with its half and its double measured beside it; or ``auto``: of the
        resolutions in :data:`RESOLUTIONS` that are stable across seeds and subsamples, the best separated one, the
        finer where separation is equal.

    Returns
    -------
    labels
        Cluster of every cell at the chosen resolution.
    table
        One row per resolution: ``resolution``, ``n_clusters``, ``smallest_cluster`` (cells), ``stability_ari``,
        ``subsample_ari``, ``silhouette`` (missing for a single cluster), ``modularity``, ``chosen``, ``reason``.
    """
    resolutions = RESOLUTIONS if wanted == AUTO else tuple(float(wanted) * factor for factor in (0.5, 1.0, 2.0))

    def attempt(resolution: float) -> tuple[Clustering, dict[str, float]]:
        tried = cluster_at(graph.graph, resolution, seed)
        return tried, _row(tried, tried.labels[graph.node_of_cell], coordinates, seed)

    tries = for_each_process(resolutions, attempt, threads)
    found = {tried.resolution: tried for tried, _ in tries}
    table = pd.DataFrame([row for _, row in tries])
    if wanted == AUTO:
        chosen, reason = _choice(table)
    else:
        chosen, reason = float(wanted), "asked for"
    table["chosen"] = table["resolution"] == chosen
    table["reason"] = np.where(table["chosen"], reason, "")
    labels = found[chosen].labels[graph.node_of_cell]
    if graph.of_cells is not graph.graph:
        labels = leiden(graph.of_cells, chosen, seed, start=labels)
        modularity = graph.of_cells.modularity(labels.tolist(), weights="weight", resolution=chosen)
        refined = _row(replace(found[chosen], modularity=modularity), labels, coordinates, seed)
        table.loc[table["chosen"], list(refined)] = list(refined.values())
        table = table.astype({"n_clusters": int, "smallest_cluster": int})
    return labels, table


def _row(
    clustering: Clustering, labels: NDArray[np.int64], coordinates: NDArray[np.float32], seed: int
) -> dict[str, float]:
    """``labels``: the cluster of every cell."""
    sizes = np.bincount(labels)
    return {
        "resolution": clustering.resolution,
        "n_clusters": len(sizes),
        "smallest_cluster": int(sizes.min()),
        "stability_ari": clustering.stability_ari,
        "subsample_ari": clustering.subsample_ari,
        "silhouette": _silhouette(coordinates, labels, seed),
        "modularity": clustering.modularity,
    }


def _silhouette(coordinates: NDArray[np.float32], labels: NDArray[np.int64], seed: int) -> float:
    """Mean silhouette of a draw of the cells; missing where the draw holds one cluster, or only clusters of one."""
    from sklearn.metrics import silhouette_score

    drawn = np.random.default_rng(seed).permutation(len(labels))[:_SILHOUETTE_CELLS]
    labels = labels[drawn]
    n_clusters = len(np.unique(labels))
    if not 2 <= n_clusters < len(labels):
        return float("nan")
    return float(silhouette_score(coordinates[drawn], labels))


def _choice(table: pd.DataFrame) -> tuple[float, str]:
    """The resolution that ``auto`` takes, and why."""
    stability = table[["stability_ari", "subsample_ari"]].min(axis=1)
    separated = table["silhouette"].notna()
    stable = stability >= stability[separated].max() - _LESS_STABLE if separated.any() else separated
    candidates = table[separated & stable]
    if candidates.empty:
        return float(table["resolution"].iloc[0]), "no resolution tells clusters apart"
    best = candidates["silhouette"].max()
    row = candidates[candidates["silhouette"] >= best - _LESS_SEPARATED].iloc[-1]
    compared = "the finest" if row["silhouette"] < best else "the best separated"
    return float(row["resolution"]), (
        f"{compared} of the stable resolutions (mean ARI {row['stability_ari']:.2f} across seeds, "
        f"{row['subsample_ari']:.2f} across subsamples; silhouette {row['silhouette']:.2f}, best {best:.2f})"
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


def cut_at_borders(
    groups: NDArray[np.int64], clusters: NDArray[np.int64], smallest: int, share: float
) -> NDArray[np.int64]:
    """Groups cut where they reach over a border of clusters; a part of fewer than ``smallest`` cells, or of less than
    ``share`` of its group, stays with the group's largest part."""
    counts = pd.crosstab(groups, clusters).to_numpy()
    largest = counts.max(axis=1, keepdims=True)
    apart = (counts >= max(smallest, 1)) & (counts >= share * counts.sum(axis=1, keepdims=True)) & (counts < largest)
    return by_size(
        np.unique(np.where(apart[groups, clusters], clusters + 1, 0) * len(counts) + groups, return_inverse=True)[1]
    )


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
