"""Does a programme's licensing response tell how strongly an MSC donor suppresses? Held against measured values.

One value per donor on either side, so that no donor can stand in the data that a line is fitted to and in those it is
judged by. The line of measured suppression on response is fitted without each donor in turn and predicts that donor
(leave-one-donor-out); ``r2_cv`` compares its squared errors with those of the mean of the others, and is below zero
where the line predicts worse than no line. Both it and the correlation are held against exchanges of the measured
values between donors, each with its whole cross-validation: p is ``(b + 1) / (B + 1)`` (Phipson and Smyth, Statistical
Applications in Genetics and Molecular Biology 2010, 9:39). Errors of leaving one out follow from the fit to all by the
leverages (Allen, Technometrics 1974, 16:125).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

MIN_DONORS = 4


@dataclass(frozen=True)
class Association:
    """Suppression against the response of one programme.

    ``slope`` (units of suppression per log2 unit) with its interval (t, n - 2); ``correlation`` (Pearson) and
    ``p_value`` of its size by permutation, two-sided; ``r2_cv`` and ``p_value_cv``, one-sided; ``error_cv``: root mean
    square of the errors of prediction, in units of suppression.
    """

    slope: float
    ci_low: float
    ci_high: float
    correlation: float
    p_value: float
    r2_cv: float
    error_cv: float
    p_value_cv: float


def associate(
    response: Floats, suppression: Floats, n_permutations: int = 9_999, confidence: float = 0.95, seed: int = 1
) -> Association | None:
    """Hold measured suppression against responses; None where either does not vary, or one donor alone makes it vary.

    Parameters
    ----------
    response, suppression
        One value per donor, at least ``MIN_DONORS``; their order does not matter.
    n_permutations, confidence, seed
        Exchanges between donors; level of the slope's interval; of the exchanges.
    """
    order = np.lexsort((suppression, response))
    x, y = response[order] - response.mean(), suppression[order]
    n = len(x)
    spread = float(x @ x)
    if n < MIN_DONORS or spread <= 0 or np.ptp(y) == 0:
        return None
    leverage = 1 / n + x**2 / spread
    if leverage.max() > 1 - 1e-9:
        return None
    rng = np.random.default_rng(seed)
    exchanged = y[rng.permuted(np.tile(np.arange(n), (n_permutations, 1)), axis=1)].T
    correlation, r2 = _statistics(x, leverage, np.column_stack([y, exchanged]))
    slope = float(x @ y) / spread
    residual = y - y.mean() - slope * x
    half = float(stats.t.ppf((1 + confidence) / 2, n - 2)) * float(np.sqrt(residual @ residual / (n - 2) / spread))
    return Association(
        slope=slope,
        ci_low=slope - half,
        ci_high=slope + half,
        correlation=float(correlation[0]),
        p_value=_permutation_p(np.abs(correlation)),
        r2_cv=float(r2[0]),
        error_cv=float(np.sqrt(np.mean((residual / (1 - leverage)) ** 2))),
        p_value_cv=_permutation_p(r2),
    )


def _statistics(x: Floats, leverage: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Correlation and cross-validated R2 with each column of ``y`` (donors x columns); ``x`` is centred."""
    centred = y - y.mean(axis=0)
    squares = (centred**2).sum(axis=0)
    slope = x @ centred / (x @ x)
    error = (centred - np.outer(x, slope)) / (1 - leverage)[:, None]
    without = centred * len(x) / (len(x) - 1)  # a donor's distance from the mean of the others
    correlation = slope * np.sqrt((x @ x) / squares)
    return correlation, 1 - (error**2).sum(axis=0) / (without**2).sum(axis=0)


def _permutation_p(statistic: Floats) -> float:
    """(b + 1) / (B + 1), the observed value standing first; rounding must not push an equal value below it."""
    observed, exchanged = statistic[0], statistic[1:]
    return float((1 + (exchanged >= observed - 1e-9 * max(1.0, abs(observed))).sum()) / (1 + len(exchanged)))
