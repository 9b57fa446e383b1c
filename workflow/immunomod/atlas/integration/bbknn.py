"""BBKNN: a graph in which every cell has the same number of neighbours in every batch.

The package of that name needs annoy, which compiles C++ on installation; with exact neighbours the method is a search
per batch. Its trimming of hubs is left out: the package keeps ten times the neighbours of a cell, which hardly any
cell exceeds.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from immunomod.atlas.integration.method import Aligned, IntegrationMethod, Task
from immunomod.atlas.neighbors import Neighbors

_NEIGHBORS_WITHIN_BATCH = 3


def align(task: Task) -> Aligned:
    """Batch-balanced neighbours on the components; the coordinates stay as they are."""
    return Aligned(task.components, balanced_neighbors(task.components, task.batches, _NEIGHBORS_WITHIN_BATCH))


def balanced_neighbors(points: NDArray[np.float32], batches: object, within_batch: int) -> Neighbors:
    """The ``within_batch`` nearest cells of every batch (all of a smaller batch), for every row of ``points``.

    Exact and Euclidean; the cell itself counts among those of its own batch and stands first.
    """
    import faiss

    data = np.ascontiguousarray(points - points.mean(axis=0), dtype=np.float32)
    codes, _ = pd.factorize(np.asarray(batches, dtype=str), sort=True)
    n_cells = len(data)
    own = np.arange(n_cells)[:, None]
    parts = []
    for code in range(int(codes.max()) + 1):
        members = np.flatnonzero(codes == code)
        index = faiss.IndexFlatL2(data.shape[1])
        index.add(data[members])
        _, found = index.search(data, min(within_batch, len(members)))
        parts.append(members[found])
    indices = np.concatenate(parts, axis=1).astype(np.int64)
    # among identical cells a search may miss the cell itself: it takes the place of its own batch's last
    missing = ~(indices == own).any(axis=1)
    last = (codes[indices] == codes[:, None]).cumsum(axis=1).argmax(axis=1)
    indices[missing, last[missing]] = np.flatnonzero(missing)
    distances = np.stack(
        [np.linalg.norm(data[indices[:, column]] - data, axis=1) for column in range(indices.shape[1])], axis=1
    ).astype(np.float32)
    distances[indices == own] = -1.0  # first also among identical cells
    order = np.lexsort((indices, distances), axis=1)
    indices, distances = np.take_along_axis(indices, order, 1), np.take_along_axis(distances, order, 1)
    return Neighbors(indices, np.maximum(distances, 0.0))


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
