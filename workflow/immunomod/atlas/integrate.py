"""Align cells of different samples, so that a cluster is a cell class and not a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from immunomod.atlas.integration import harmony, none
from immunomod.atlas.integration.method import IntegrationMethod
from immunomod.errors import UserError

REGISTRY: dict[str, IntegrationMethod] = {method.name: method for method in (none.METHOD, harmony.METHOD)}


@dataclass(frozen=True)
class Integration:
    """Coordinates that the graph is built on, and which method really made them (``none`` where one was skipped)."""

    coordinates: NDArray[np.float32]
    method: str
    reason: str


def integrate(components: NDArray[np.float32], batches: Sequence[str], method: str, seed: int) -> Integration:
    """Run ``method`` on principal components (cells x k); skipped, with a reason, where there is one batch only."""
    if method not in REGISTRY:
        raise UserError(f"config: atlas.integration is {method!r}; known methods are {', '.join(sorted(REGISTRY))}.")
    n_batches = len(set(batches))
    if method == "none":
        return Integration(components, "none", "no integration asked for")
    if n_batches < 2:
        return Integration(components, "none", f"{method} skipped: only one batch")
    return Integration(REGISTRY[method].run(components, batches, seed), method, f"aligned {n_batches} batches")


def same_batch_share(neighbor_indices: NDArray[np.int32], batches: Sequence[str]) -> tuple[float, float]:
    """Mean share of a cell's neighbours that come from its own batch, and what chance would give.

    Near chance: batches are mixed. Near one: they stay apart, by technique or because they hold other cell classes.
    """
    codes, names = pd.factorize(np.asarray(batches, dtype=str))
    if neighbor_indices.shape[1] < 2:
        return 1.0, 1.0
    same = float((codes[neighbor_indices[:, 1:]] == codes[:, None]).mean())
    shares = np.bincount(codes, minlength=len(names)) / len(codes)
    return same, float((shares**2).sum())
