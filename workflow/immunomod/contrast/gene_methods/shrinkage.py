"""Fold changes drawn towards zero by what their uncertainty asks for: a Cauchy prior on the effect.

Zhu, Ibrahim and Love, Bioinformatics 2019, 35:2084 (apeGLM). The prior's scale is learned from all genes; a Cauchy
distribution hardly moves what is large and well measured. Here the likelihood is normal, with a known standard error;
PyDESeq2 has the same prior on its negative binomial likelihood.
"""

from __future__ import annotations

import numpy as np
from scipy import optimize

from immunomod.contrast.normalise import Floats

LOG2_E = float(np.log2(np.e))
MIN_VARIANCE, MAX_VARIANCE = 1e-6, 400.0


def cauchy_scale(estimate: Floats, se: Floats) -> float:
    """Scale of the prior in log2 units: the spread of true effects, at most 1 in natural logarithms.

    The variance ``a`` of normal effects solves ``sum(w (b^2 - s^2)) / sum(w) = a`` with ``w = 1 / (a + s^2)^2``, for
    estimates b with standard errors s, as in apeGLM and PyDESeq2 (there and here between 1e-6 and 400).
    """
    known = np.isfinite(estimate) & np.isfinite(se) & (se > 0)
    squared, noise = (estimate[known] / LOG2_E) ** 2, (se[known] / LOG2_E) ** 2
    if not known.any():
        return LOG2_E

    def excess(variance: float) -> float:
        weight = 1 / (variance + noise) ** 2
        return float(((squared - noise) * weight).sum() / weight.sum() - variance)

    if excess(MIN_VARIANCE) <= 0:
        return float(np.sqrt(MIN_VARIANCE)) * LOG2_E
    if excess(MAX_VARIANCE) >= 0:
        return LOG2_E
    variance = float(optimize.brentq(excess, MIN_VARIANCE, MAX_VARIANCE))
    return min(float(np.sqrt(variance)), 1.0) * LOG2_E


def posterior_mode(estimate: Floats, se: Floats, scale: Floats) -> Floats:
    """Mode of each effect, given a normal estimate and a Cauchy prior of its scale; NaN where ``se`` is unknown.

    It is a root of ``b^3 - e b^2 + (c^2 + 2 s^2) b - e c^2`` for estimate e, standard error s and scale c; of two modes
    the likelier, and of two as likely the one nearer to zero.
    """
    size = np.abs(estimate)
    result = np.full(len(size), np.nan)
    known = np.isfinite(size) & np.isfinite(se)
    e, s, c = size[known], se[known], scale[known]
    companion = np.zeros((len(e), 3, 3))
    companion[:, 1, 0] = companion[:, 2, 1] = 1.0
    companion[:, 0, 2], companion[:, 1, 2], companion[:, 2, 2] = e * c**2, -(c**2 + 2 * s**2), e
    roots = np.linalg.eigvals(companion)
    # a double root may come out with a small imaginary part; what it adds to the loss keeps others from being taken
    real = np.clip(roots.real, 0.0, e[:, None])
    with np.errstate(divide="ignore", invalid="ignore"):
        loss = np.where(s[:, None] > 0, (real - e[:, None]) ** 2 / (2 * s[:, None] ** 2), 0.0)
    loss += np.log1p((real / c[:, None]) ** 2)
    loss = np.where(np.abs(roots.imag) < 1e-6 * (c + e)[:, None], loss, np.inf)
    best = np.take_along_axis(real, loss.argmin(axis=1)[:, None], axis=1)[:, 0]
    result[known] = np.where(s > 0, best, e)
    return np.asarray(np.copysign(result, estimate))
