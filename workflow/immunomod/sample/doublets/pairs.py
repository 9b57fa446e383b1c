"""Which cells make up simulated doublets."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def simulated_pairs(n_cells: int, n_pairs: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the two cells, always different ones, of each of ``n_pairs`` simulated doublets."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, n_cells, n_pairs)
    second = (first + rng.integers(1, n_cells, n_pairs)) % n_cells
    return first, second
