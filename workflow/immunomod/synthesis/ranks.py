"""Ranks of donors, each with the range of ranks that its data leave open.

Drawing responses from their estimated distribution and counting how often a donor comes first is not enough: where
donors are alike the estimates are further apart than the truths, and the drawn ranks gather around chance positions. A
rank is therefore bounded by what can be told apart. A donor's differences to all other donors get simultaneous
intervals, their width drawn from the joint distribution of the estimates; donors whose interval excludes zero stand
above or below it, and all others may. The interval of its rank then holds the true one with the confidence asked for,
ties and near ties included.

Mogstad, Romano, Shaikh and Wilhelm, Review of Economic Studies 2024, 91:476 (confidence sets for the rank of one
population, with studentised differences).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]


@dataclass(frozen=True)
class Ranks:
    """``rank`` (1: the largest value; ties share the better rank), and its interval ``low`` to ``high``."""

    rank: Whole
    low: Whole
    high: Whole


def rank_of(values: Floats) -> Whole:
    """Rank of each value, 1 for the largest; equal values share the better rank."""
    return np.asarray(stats.rankdata(-values, method="min"), dtype=np.int64)


def rank_intervals(
    values: Floats, variances: Floats, df: float, confidence: float = 0.95, n_draws: int = 10_000, seed: int = 1
) -> Ranks:
    """Ranks of independent estimates, and the interval of each donor's rank.

    Parameters
    ----------
    values
        Estimates, one per donor; an error that all share does not matter, and is to be left out of ``variances``.
    variances
        Their sampling variances: known ratios times one estimated variance.
    df
        Degrees of freedom of that variance.
    confidence
        Of each donor's interval, taken alone.
    n_draws, seed
        Draws from the joint distribution: independent normal errors over a shared chi-squared scale.
    """
    n = len(values)
    rank = rank_of(values)
    if n < 2:
        return Ranks(rank, rank.copy(), rank.copy())
    rng = np.random.default_rng(seed)
    errors = rng.standard_normal((n_draws, n)) * np.sqrt(variances)
    scale = np.sqrt(rng.chisquare(df, n_draws) / df) if np.isfinite(df) else np.ones(n_draws)
    low, high = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    for donor in range(n):
        others = np.arange(n) != donor
        spread = np.sqrt(variances[donor] + variances[others])
        drawn = np.abs(errors[:, [donor]] - errors[:, others]) / spread
        limit = float(np.quantile(drawn.max(axis=1) / scale, confidence))
        difference = (values[others] - values[donor]) / spread
        low[donor] = 1 + int((difference > limit).sum())
        high[donor] = n - int((difference < -limit).sum())
    return Ranks(rank, low, high)
