"""Calibration of the pooling over data sets: type-I error, and what leaving a data set out does."""

from __future__ import annotations

import numpy as np
from common import ALPHA, record
from scipy import stats

from immunomod.synthesis.meta import pool_random_effects, pooled_variances


def draw_data_sets(rng: np.random.Generator, k: int, mean: float, tau: float) -> tuple[np.ndarray, np.ndarray]:
    """Effects and their pooled sampling variances, of 2 to 4 pairs with a standard deviation of 0.3."""
    sizes = rng.integers(2, 5, k)
    samples = [rng.normal(rng.normal(mean, tau), 0.3, n) for n in sizes]
    n = sizes.astype(float)
    error = np.array([sample.std(ddof=1) / np.sqrt(len(sample)) for sample in samples])
    return np.array([sample.mean() for sample in samples]), pooled_variances(error, n - 1, n, n, n)


def meta_analysis(repeats: int) -> list[dict]:
    """Type-I error of the pooled effect over k data sets of 2 to 4 pairs."""
    rows = []
    for k in (3, 4, 5):
        for tau in (0.0, 0.3):
            rng = np.random.default_rng([14, k, int(10 * tau)])
            rejected = []
            for _ in range(repeats):
                pooled = pool_random_effects(*draw_data_sets(rng, k, 0.0, tau))
                rejected.append(2 * stats.t.sf(abs(pooled.effect) / pooled.se, k - 1) < ALPHA)
            rows.append(record("meta-analysis", f"k {k}; tau {tau}; 2 to 4 pairs", "type_I_error", rejected))
    return rows


def leave_one_dataset(repeats: int) -> list[dict]:
    """Four data sets, each left out in turn: is every one of the four pooled effects of the truth's sign, and called?

    With a true mean of 1 and tau 0.3 none should turn; with a mean of 0, signs turn often and calls are rare.
    """
    rows = []
    for mean in (0.0, 1.0):
        rng = np.random.default_rng([22, int(mean)])
        same, called = [], []
        for _ in range(repeats):
            effects, variances = draw_data_sets(rng, 4, mean, 0.3)
            left = [pool_random_effects(np.delete(effects, i), np.delete(variances, i)) for i in range(4)]
            same.append(len({np.sign(pooled.effect) for pooled in left}) == 1)
            called += [2 * stats.t.sf(abs(pooled.effect) / pooled.se, 2) < ALPHA for pooled in left]
        setting = f"4 data sets of 2 to 4 pairs; mean {mean:.0f}; tau 0.3"
        rows.append(record("leave-one-dataset", setting, "one_sign_throughout", same))
        rows.append(record("leave-one-dataset", setting, "rejected_without_one", called))
    return rows
