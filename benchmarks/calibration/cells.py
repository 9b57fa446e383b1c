"""Cells as replicates, beside replicates, on the same draws; and controls split into halves.

Four pairs of pseudobulks of 30 cells a unit, 800 genes, 10 programmes of 15 genes, no true difference between the arms:
donors differ by 0.4 log2 in each gene, libraries by 0.2 in each gene and by 0.1 in each programme. A cell's score is
the mean log2 of counts per ten thousand, plus one, over the programme; cells are compared by Welch's t-test.
"""

from __future__ import annotations

import numpy as np
from common import ALPHA, as_weights, draw_programmes, draw_rates, programme_effects, record
from scipy import stats

PAIRS, CELLS, GENES, PROGRAMMES = 4, 30, 800, 10


def draw_cells(rng: np.random.Generator, sets: np.ndarray, rate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts (cells x genes) and the unit of each cell; units 2i and 2i + 1 are the arms of pair i."""
    counts = []
    for _ in range(PAIRS):
        donor = np.log2(rate) + rng.normal(0, 0.4, len(rate))
        for _ in range(2):
            own = donor + rng.normal(0, 0.2, len(rate))
            for genes in sets:
                own[genes] += rng.normal(0, 0.1)
            expression = 2**own
            depth = np.exp(rng.normal(np.log(2500), 0.3, (CELLS, 1)))
            mean = expression / expression.sum() * depth
            counts.append(rng.negative_binomial(1.0, 1 / (1 + mean)))
    return np.vstack(counts).astype(float), np.repeat(np.arange(2 * PAIRS), CELLS)


def by_replicates(counts: np.ndarray, unit: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """p-values of the contrast floor on the sums of each unit."""
    sums = np.array([counts[unit == number].sum(axis=0) for number in range(2 * PAIRS)])
    arms = np.array(["reference", "test"] * PAIRS, dtype=object)
    return programme_effects(sums, arms, weights, paired=True)[1].p_value


def by_cells(counts: np.ndarray, unit: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """p-values of Welch's t-test between all cells of the two arms."""
    scores = np.log2(counts / counts.sum(axis=1, keepdims=True) * 1e4 + 1) @ weights
    return np.asarray(stats.ttest_ind(scores[unit % 2 == 1], scores[unit % 2 == 0], equal_var=False).pvalue)


def cells_as_replicates(repeats: int) -> list[dict]:
    """Rejection at a nominal 5% of programmes that no arm changes, by both tests; halves: one sample's cells parted."""
    rejected: dict[tuple[str, str], list] = {}
    for repeat in range(repeats):
        rng = np.random.default_rng([26, repeat])
        rate = draw_rates(rng, GENES)
        sets = draw_programmes(rng, rate, PROGRAMMES)
        weights = as_weights(sets, GENES)
        counts, unit = draw_cells(rng, sets, rate)
        # halves of each control sample, in place of its two arms
        half = unit - unit % 2 + (rng.permuted(np.tile(np.arange(CELLS) % 2, (2 * PAIRS, 1)), axis=1)).ravel()
        control = unit % 2 == 0
        for kind, rows, number in (
            ("control against control", np.ones(len(unit), dtype=bool), unit),
            ("control cells split in halves", control, half),
        ):
            for name, test in (("replicates", by_replicates), ("cells as replicates", by_cells)):
                p = test(counts[rows], number[rows], weights)
                rejected.setdefault((kind, name), []).append(np.where(np.isfinite(p), p < ALPHA, np.nan))
    return [
        record("cells", f"{kind}, 4 pairs; {name}", "null_rejection", values)
        for (kind, name), values in rejected.items()
    ]
