"""What every doublet method gives back, and the record by which the registry knows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

#: With fewer cells neither neighbours nor modes of a distribution mean anything.
MIN_CELLS = 50


@dataclass(frozen=True)
class DoubletCalls:
    """Scores and calls for the cells that a method saw.

    ``score`` (cells,) is NaN and ``predicted`` (cells,) False where the method could not judge; ``threshold`` is NaN
    where none was found; ``detectable`` is the share of simulated doublets above it; ``note`` says what went otherwise.
    """

    score: NDArray[np.float64]
    predicted: NDArray[np.bool_]
    threshold: float
    detectable: float
    note: str

    @property
    def share(self) -> float:
        """Called share of the cells."""
        return float(self.predicted.mean()) if self.predicted.size else 0.0

    @property
    def implied_rate(self) -> float:
        """Share of doublets that the calls imply: called over detectable, Scrublet's overall doublet rate."""
        if not self.predicted.any():
            return 0.0
        return self.share / self.detectable if self.detectable > 0 else float("inf")


@dataclass(frozen=True)
class Method:
    """A way to find doublets. ``run(counts, expected_rate, seed)`` takes cells x genes counts (CSR) of one library."""

    name: str
    citation: str
    needs: str
    limits: str
    run: Callable[[sparse.csr_matrix, float, int], DoubletCalls]


def no_calls(n_cells: int, note: str) -> DoubletCalls:
    """Calls of a method that did not judge."""
    return DoubletCalls(np.full(n_cells, np.nan), np.zeros(n_cells, dtype=bool), np.nan, np.nan, note)


def too_few_cells(n_cells: int) -> DoubletCalls:
    """Calls of a method that saw fewer than :data:`MIN_CELLS` cells with counts."""
    return no_calls(n_cells, f"doublets not called: fewer than {MIN_CELLS} cells")
