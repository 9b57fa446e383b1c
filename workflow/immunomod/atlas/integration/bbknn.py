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
from immunomod.atlas.integration.search import nearest_among
from immunomod.atlas.neighbors import Neighbors
from immunomod.parallel import one_blas_thread

_NEIGHBORS_WITHIN_BATCH = 3


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
            found = nearest_among(data, members, min(within_batch, len(members)), threads)
            found[members, 1:] = found[members, :-1]
            found[members, 0] = members
            parts.append(found)
    indices = np.concatenate(parts, axis=1)
    distances = np.stack([np.linalg.norm(data[column] - data, axis=1) for column in indices.T], axis=1)
    distances[indices == own[:, None]] = -1.0  # first also among identical cells
    order = np.lexsort((indices, distances), axis=1)
    indices, distances = np.take_along_axis(indices, order, 1), np.take_along_axis(distances, order, 1)
    return Neighbors(indices, np.maximum(distances, 0.0).astype(np.float32))


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
