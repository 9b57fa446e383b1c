"""Responses of donors drawn towards their mean, as far as they are noise.

A donor that was cultured once reaches extremes more easily than one that was cultured five times. With the variance
between donors ``tau2`` (Paule and Mandel) and a donor's own sampling variance ``v``, the estimate with the smallest
expected error is ``mean + (response - mean) * tau2 / (tau2 + v)``: Efron and Morris, Journal of the American
Statistical Association 1975, 70:311.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from immunomod.synthesis.meta import pool_random_effects

Floats = NDArray[np.float64]


def shrink(values: Floats, variances: Floats) -> Floats:
    """Shrunken values, one per donor; a single donor's, and values without error, stay as they are."""
    if len(values) < 2 or not (variances > 0).all():
        return values.copy()
    pooled = pool_random_effects(values, variances)
    return np.asarray(pooled.effect + (values - pooled.effect) * pooled.tau2 / (pooled.tau2 + variances))
