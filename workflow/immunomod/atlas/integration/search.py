"""Exact nearest cells among some of the cells: the many small searches behind BBKNN and the measures.

The atlas's own search looks up the threads of the linear algebra on every call, which costs more than a search among a
few hundred cells; here that is the caller's to do, once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from immunomod.parallel import for_each, row_blocks

_ROWS_AT_ONCE = 2048


def nearest_among(data: NDArray[np.float32], members: NDArray[np.int32], k: int, threads: int = 1) -> NDArray[np.int32]:
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
