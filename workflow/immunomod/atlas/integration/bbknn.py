"""BBKNN: a graph in which every cell has the same number of neighbours in every batch.

The package of that name needs annoy, which compiles C++ on installation; with exact neighbours the method is a search
per batch. Its trimming of hubs is left out: the package keeps ten times the neighbours of a cell, which hardly any
cell exceeds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from immunomod.atlas.integration.method import Aligned, IntegrationMethod, Task
from immunomod.atlas.neighbors import Neighbors
from immunomod.parallel import for_each, one_blas_thread, row_blocks

_NEIGHBORS_WITHIN_BATCH = 3
_ROWS_AT_ONCE = 2048


def align(task: Task) -> Aligned:
    """Batch-balanced neighbours on the components; the coordinates stay as they are."""
    neighbors = balanced_neighbors(task.components, task.batches, _NEIGHBORS_WITHIN_BATCH, task.threads)
    return Aligned(task.components, neighbors)


def balanced_neighbors(
    points: NDArray[np.float32], batches: Sequence[str], within_batch: int, threads: int = 1
) -> Neighbors:
    """The ``within_batch`` nearest cells of every batch (all of a smaller batch), for every row of ``points``.

    Exact and Euclidean; the cell itself counts among those of its own batch and stands first. Time grows with the
    square of the cells; the result does not depend on ``threads``.
    """
    data = np.asarray(points, dtype=np.float32)
    data = np.ascontiguousarray(data - data.mean(axis=0, dtype=np.float64).astype(np.float32))
    codes, _ = pd.factorize(np.asarray(batches, dtype=str), sort=False)
    own = np.arange(len(data), dtype=np.int32)
    parts = []
    with one_blas_thread():
        for code in range(int(codes.max()) + 1):
            members = np.flatnonzero(codes == code).astype(np.int32)
            found = _nearest_among(data, members, min(within_batch, len(members)), threads)
            found[members, 1:] = found[members, :-1]
            found[members, 0] = members
            parts.append(found)
    indices = np.concatenate(parts, axis=1)
    distances = np.stack([np.linalg.norm(data[column] - data, axis=1) for column in indices.T], axis=1)
    distances[indices == own[:, None]] = -1.0  # first also among identical cells
    order = np.lexsort((indices, distances), axis=1)
    indices, distances = np.take_along_axis(indices, order, 1), np.take_along_axis(distances, order, 1)
    return Neighbors(indices, np.maximum(distances, 0.0).astype(np.float32))


def _nearest_among(data: NDArray[np.float32], members: NDArray[np.int32], k: int, threads: int) -> NDArray[np.int32]:
    """The ``k`` nearest ``members`` of every row of ``data``, itself left out, the nearest first."""
    from immunomod.atlas.neighbors_kernel import keep_nearest

    squares, numbers = np.einsum("ij,ij->i", data, data), np.arange(len(data), dtype=np.int32)
    best = np.full((len(data), k), np.inf, dtype=np.float32)
    found = np.full((len(data), k), -1, dtype=np.int32)

    def search(rows: slice) -> None:
        for block in row_blocks(len(members), _ROWS_AT_ONCE):
            among = members[block]
            products = data[rows] @ data[among].T
            keep_nearest(products, squares[among], among, numbers[rows], best[rows], found[rows])

    for_each(row_blocks(len(data), _ROWS_AT_ONCE), search, threads)
    return found


METHOD = IntegrationMethod(
    name="bbknn",
    citation="Polański et al. 2020, Bioinformatics 36:964, doi:10.1093/bioinformatics/btz625",
    needs="a few batches, each with the same cell classes",
    limits=(
        "a cell gets neighbours in every batch, whether the batch holds its class or not: where MSC are in some "
        "batches only, it links them to immune cells; the graph is aligned, the coordinates are not"
    ),
    run=align,
)
