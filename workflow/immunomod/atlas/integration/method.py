"""What every integration method declares about itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Run = Callable[[NDArray[np.float32], Sequence[str], int], NDArray[np.float32]]


@dataclass(frozen=True)
class IntegrationMethod:
    """A way to align cells of different batches.

    Attributes
    ----------
    name
        Name in the configuration; coordinates land in ``obsm["X_<name>"]``.
    citation, needs, limits
        For the report and the docs.
    run
        From principal components (cells x k), each cell's batch and a seed to aligned coordinates (cells x k).
    """

    name: str
    citation: str
    needs: str
    limits: str
    run: Run
