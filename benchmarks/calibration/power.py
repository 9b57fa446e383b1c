"""What is found of small changes on simulated pseudobulks, by the contrast floor and, on the same, by limma-trend."""

from __future__ import annotations

import numpy as np
from common import (
    ALPHA,
    as_weights,
    class_effects,
    columns_of,
    draw_groups,
    draw_pairs,
    draw_programmes,
    draw_rates,
    record,
)
from floor import DESIGNS
from moderation import limma_trend
from scipy import stats

from immunomod.contrast.model import fit_linear
from immunomod.contrast.moderation import Effects, Moderation, infer

#: Log2 change of the changed programmes times the root of the number of pairs, or of the donors of the smaller arm.
CHANGE = {True: 0.6, False: 0.9}
#: Cell classes of a study, and the draws of each as a share of the repeats.
STUDIES = ((1, 1.0), (6, 0.25))


def by_limma_trend(scores: np.ndarray, arms: np.ndarray, paired: bool) -> np.ndarray:
    """p-values of limma-trend on the scores (units x programmes) of one class."""
    fit = fit_linear(scores, *columns_of(arms, paired))
    variance, df = limma_trend(fit.variance, fit.df, scores.mean(axis=0))
    return np.asarray(2 * stats.t.sf(np.abs(fit.estimate) / np.sqrt(variance * fit.unscaled), df))


def draw(
    rng: np.random.Generator, n_test: int, n_reference: int, paired: bool, n_changed: int, size: float, spread: float
) -> tuple[Effects, np.ndarray, np.ndarray, np.ndarray]:
    """Effects of one class of 20 programmes, which of them change, the scores, and the arms of the units."""
    rate = draw_rates(rng, 2000)
    sets = draw_programmes(rng, rate)
    change = np.zeros((n_test, len(rate)))
    for number, genes in enumerate(sets):
        changes = number < n_changed
        change[:, genes] = changes * size + rng.normal(0, spread if changes else 0.05, (n_test, 1))
    if paired:
        counts, arms = draw_pairs(rng, rate, change, n_test)
    else:
        counts, arms = draw_groups(rng, rate, change, n_test, n_reference)
    effects, known, scores = class_effects(counts, arms, as_weights(sets, len(rate)), paired)
    return effects, np.flatnonzero(known) < n_changed, scores, arms


def power(repeats: int) -> list[dict]:
    """Share of the changed programmes with fdr < 0.05, and of untouched ones among the called.

    One or six classes of 20 programmes, of which 2, 4 or 10 change, drawn as ``floor.designs`` does. The responses of
    donors vary by 0.05 log2 as those of all programmes do, or by 0.3 of the change.
    """
    rows = []
    for classes, share in STUDIES:
        for label, n_test, n_reference, paired in DESIGNS:
            size = CHANGE[paired] / np.sqrt(min(n_test, n_reference))
            for spread, words in ((0.05, "alike"), (0.3 * size, "by 0.3 of it")):
                for n_changed in (2, 4, 10):
                    found: dict[str, list] = {"like effects": [], "limma-trend": []}
                    false: dict[str, list] = {name: [] for name in found}
                    for repeat in range(max(round(share * repeats), 2)):
                        rng = np.random.default_rng([28, classes, n_test, n_reference, int(paired), n_changed, repeat])
                        parts = [
                            draw(rng, n_test, n_reference, paired, n_changed, size, spread) for _ in range(classes)
                        ]
                        changed = np.concatenate([part[1] for part in parts])
                        moderation = Moderation([part[0] for part in parts])
                        p_values = {
                            "like effects": infer(moderation.estimate, moderation.errors, 1 - ALPHA).p_value,
                            "limma-trend": np.concatenate([by_limma_trend(*part[2:], paired) for part in parts]),
                        }
                        for name, p_value in p_values.items():
                            called = stats.false_discovery_control(p_value) < ALPHA
                            found[name].append(called[changed].mean())
                            false[name].append(called[~changed].sum() / max(called.sum(), 1))
                    where = f"{label}, {classes} class{'es' * (classes > 1)}"
                    setting = f"{where}; {n_changed} of 20 changed by {size:.2f}, donors vary {words}"
                    for name in found:
                        rows.append(record("power", f"{setting}; {name}", "power_fdr", found[name]))
                        rows.append(record("power", f"{setting}; {name}", "false_discoveries", false[name]))
    return rows
