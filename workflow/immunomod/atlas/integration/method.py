"""What every integration method declares about itself, what it is given and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from immunomod.atlas.neighbors import Neighbors


@dataclass(frozen=True)
class Task:
    """What a method works on.

    Attributes
    ----------
    components
        Principal components, float32, cells x k.
    batches
        Batch of every cell.
    learned
        Coordinates that a trained model wrote, by method: cells x latent dimensions.
    seed, threads
        Of the random choices; threads change the time and nothing else.
    """

    components: NDArray[np.float32]
    batches: Sequence[str]
    seed: int
    threads: int = 1
    learned: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True)
class Aligned:
    """Aligned ``coordinates`` (cells x d), and the ``neighbors`` themselves where a method aligns only the graph."""

    coordinates: NDArray[np.float32]
    neighbors: Neighbors | None = None


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
        The method itself.
    is_learned
        Its coordinates come from a model that was trained before, in an environment of its own.
    """

    name: str
    citation: str
    needs: str
    limits: str
    run: Callable[[Task], Aligned]
    is_learned: bool = False
