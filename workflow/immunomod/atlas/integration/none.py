"""No integration: the principal components as they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from immunomod.atlas.integration.method import IntegrationMethod


def keep(components: NDArray[np.float32], batches: Sequence[str], seed: int) -> NDArray[np.float32]:
    """The components, unchanged."""
    return components


METHOD = IntegrationMethod(
    name="none",
    citation="",
    needs="nothing",
    limits="cells of one class cluster apart where batches, donors or stimuli differ",
    run=keep,
)
