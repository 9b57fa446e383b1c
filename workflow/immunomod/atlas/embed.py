"""A two-dimensional map of the cell graph: UMAP's layout.

The attraction, repulsion and edge schedule are those of UMAP (McInnes, Healy and Melville 2018, arXiv:1802.03426), with
the exponent b of its curve held at 1, as ``tumap`` of the R package uwot does: no power has to be computed. Within an
epoch all cells move at once instead of one after another, from the places that the epoch before left: the result does
not depend on the number of threads. umap-learn compiles for 20 to 40 s in a fresh process, draws another picture each
time on several threads, and takes minutes for 100,000 cells where this takes seconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse

from immunomod.parallel import for_each, row_blocks

_NEGATIVE_SAMPLES = 5
_ROWS_AT_ONCE = 4096


def umap_layout(
    connectivities: sparse.csr_matrix,
    start: NDArray[np.float32],
    seed: int,
    threads: int = 1,
    *,
    min_dist: float = 0.3,
    n_epochs: int | None = None,
) -> NDArray[np.float32]:
    """Coordinates (cells x 2, float32) in which connected cells lie close.

    Parameters
    ----------
    connectivities
        Symmetric weights, cells x cells (:func:`immunomod.atlas.neighbors.fuzzy_connectivities`).
    start
        Cells x at least 2; its first two columns are the start, so that the coarse order of the map is that of the
        principal components.
    seed
        For the negative samples. The same input and seed give the same map, on any number of ``threads``.
    min_dist
        How close two cells may come.
    n_epochs
        300 up to 10,000 cells, 150 above.
    """
    from immunomod.atlas.embed_kernel import move_cells

    n_cells = connectivities.shape[0]
    epochs = n_epochs or (300 if n_cells <= 10_000 else 150)
    generator = np.random.default_rng(seed)
    a = np.float32(_curve(min_dist))
    layout = _scaled_start(start, n_cells, generator)
    if connectivities.nnz == 0:
        return layout
    edges = sparse.csr_matrix(connectivities, dtype=np.float32, copy=True)
    edges.data /= edges.data.max()
    edges.data[edges.data < 1 / epochs] = 0  # never due
    edges.eliminate_zeros()
    first_edge, other_end = edges.indptr.astype(np.int64), edges.indices.astype(np.int32)
    moved = np.empty_like(layout)
    blocks = row_blocks(n_cells, _ROWS_AT_ONCE)
    seeds = generator.integers(2**63, size=epochs, dtype=np.uint64)
    for epoch in range(epochs):
        state = (layout, moved, first_edge, other_end, edges.data)

        rest = (epoch, _NEGATIVE_SAMPLES, a, np.float32(1 - epoch / epochs), seeds[epoch])

        def move(rows: slice, state: Any = state, rest: Any = rest) -> None:
            move_cells(*state, rows.start, rows.stop, *rest)  # type: ignore[call-arg]

        for_each(blocks, move, threads)
        layout, moved = moved, layout
    return layout


def _scaled_start(start: NDArray[np.float32], n_cells: int, generator: np.random.Generator) -> NDArray[np.float32]:
    layout = np.zeros((n_cells, 2))
    layout[:, : min(2, start.shape[1])] = start[:, :2]
    spread = layout.std(axis=0)
    layout = (layout - layout.mean(axis=0)) / np.where(spread > 0, spread, 1.0) * 5
    # identical cells need a push apart
    return np.asarray(layout + generator.normal(scale=1e-3, size=layout.shape), dtype=np.float32)


def _curve(min_dist: float, spread: float = 1.0) -> float:
    """``a`` of ``1 / (1 + a d^2)`` that best follows UMAP's wanted decay with distance."""
    distance = np.linspace(0, 3 * spread, 300)
    wanted = np.where(distance < min_dist, 1.0, np.exp(-(distance - min_dist) / spread))
    (a,), _ = optimize.curve_fit(lambda d, a: 1 / (1 + a * d**2), distance, wanted, p0=[1.0])
    return float(a)
