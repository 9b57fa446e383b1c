"""No estimate of ambient RNA."""

from __future__ import annotations

import numpy as np
import pandas as pd

from immunomod.sample.ambient.method import GROUP_COLUMNS, AmbientInput, Contamination


def estimate(data: AmbientInput) -> Contamination:
    """Nothing is estimated, and counts stay as they are."""
    return Contamination(
        np.full(data.counts.shape[0], "", dtype=object),
        pd.DataFrame(columns=GROUP_COLUMNS),
        note="ambient RNA was not looked at (ambient.method: none)",
    )
