"""Who is near whom in an integrated space, be it coordinates or a graph, within any group of cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from immunomod.atlas.integration.method import Aligned
from immunomod.atlas.neighbors import Neighbors, fuzzy_connectivities, nearest_neighbors

_MANY_EDGES = 15


@dataclass(frozen=True)
class Space:
    """A space in which neighbours can be looked up among any group of its cells.

    ``nearest`` and ``connectivities`` are its own neighbours and the graph of them. ``walk`` holds, for a graph, the
    probability to be at a cell after two or three steps along its edges (one more where edges are few); for coordinates
    it is ``None``.
    """

    points: NDArray[np.float32]
    nearest: Neighbors
    connectivities: sparse.csr_matrix
    walk: sparse.csr_matrix | None

    @classmethod
    def of(cls, aligned: Aligned, n_neighbors: int, threads: int = 1) -> Space:
        """The space that a method made; the graph that clusters are found on has ``n_neighbors`` a cell."""
        if aligned.neighbors is None:
            nearest = nearest_neighbors(aligned.coordinates, n_neighbors, threads)
            return cls(aligned.coordinates, nearest, fuzzy_connectivities(nearest), None)
        graph = fuzzy_connectivities(aligned.neighbors)
        out = np.maximum(np.asarray(graph.sum(axis=1)).ravel(), 1e-12)
        move = sparse.diags((0.5 / out).astype(np.float32)) @ graph
        # a walk that may stay, so that cells an odd and an even number of steps away are both reached
        step = sparse.csr_matrix(move + sparse.identity(graph.shape[0], dtype=np.float32) * np.float32(0.5))
        walk = step @ step
        if graph.nnz < _MANY_EDGES * graph.shape[0]:
            walk = walk @ step
        return cls(aligned.coordinates, aligned.neighbors, graph, sparse.csr_matrix(walk))

    def neighbors(self, members: NDArray[np.int64], k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The ``k`` nearest other cells among ``members``, for each of them.

        Returns
        -------
        Positions within ``members`` (members x k, -1 where there is none) and distances. On a graph the distance is the
        negative logarithm of the probability to walk there.
        """
        k = min(k, len(members) - 1)
        if self.walk is None:
            found = nearest_neighbors(self.points[members], k + 1)
            return found.indices[:, 1:], found.distances[:, 1:]
        among = self.walk[members][:, members].tocoo()
        other = among.row != among.col
        row, column, chance = among.row[other], among.col[other], among.data[other]
        order = np.lexsort((column, -chance, row))
        row, column, chance = row[order], column[order], chance[order]
        first = np.searchsorted(row, np.arange(len(members)))
        rank = np.arange(len(row)) - first[row]
        kept = rank < k
        indices = np.full((len(members), k), -1, dtype=np.int32)
        distances = np.full((len(members), k), np.inf, dtype=np.float32)
        indices[row[kept], rank[kept]] = column[kept]
        distances[row[kept], rank[kept]] = -np.log(np.maximum(chance[kept], 1e-30))
        return indices, distances
