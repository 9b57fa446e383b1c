"""How often shares of cells are called changed when nothing changed, and when something did.

Run from the repository: ``python benchmarks/cell_fractions.py [--studies N] [--seed S]``; minutes for 2,000. Writes
``benchmarks/results/cell_fractions.tsv``: with 4 pairs, the quasi-binomial model of
:mod:`immunomod.contrast.fractions` against the paired t-test of empirical log odds, over shares, donors' scatter and
sizes of samples (200 cells each; log-normal; 40 in the control and 320 in the treated arm). With doses of 0, 0.5 and 1
in each of 4 or 8 donors, whose slopes have a standard deviation of ``scatter``, its variance by donors against that by
the scatter of the replicates.
"""

from __future__ import annotations

import argparse
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "workflow"))

from immunomod.contrast.composition import log_odds  # noqa: E402
from immunomod.contrast.fractions import fit_quasibinomial  # noqa: E402
from immunomod.contrast.model import fit_linear  # noqa: E402
from immunomod.files import write_tsv  # noqa: E402

PAIRS = 4
EFFECT, BLOCK = np.tile([-0.5, 0.5], PAIRS), np.repeat(np.arange(PAIRS), 2)
NUISANCE = np.eye(PAIRS)[BLOCK]


def sizes(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Cells of each sample, control and treated of one donor after another."""
    if kind == "log-normal":
        return np.floor(np.exp(rng.normal(5.3, 0.8, 2 * PAIRS))) + 10
    return np.tile([200.0, 200.0] if kind == "equal" else [40.0, 320.0], PAIRS)


def measure(
    share: float, spread: float, kind: str, change: float, n_studies: int, seed: int
) -> list[dict[str, object]]:
    """Rejections at 5%, coverage and mean error of both models, where a share changes by ``change`` in log odds."""
    rng = np.random.default_rng(seed)
    found: dict[str, list[tuple[float, float, int]]] = {"quasi-binomial": [], "log odds, t-test": []}
    for _ in range(n_studies):
        of = sizes(kind, rng)
        donor = rng.normal(0, 0.5, PAIRS)[BLOCK]
        logit = np.log(share / (1 - share)) + donor + rng.normal(0, spread, 2 * PAIRS) + change * (EFFECT + 0.5)
        counts = rng.binomial(of.astype(int), 1 / (1 + np.exp(-logit))).astype(float)
        if (counts[::2] == 0).all() or (counts[1::2] == 0).all():
            continue
        fit = fit_quasibinomial(counts, of, EFFECT, NUISANCE, BLOCK.astype(object), True)
        if fit is not None:
            found["quasi-binomial"].append((fit.estimate, fit.se, fit.df))
        plain = fit_linear(log_odds(counts, of)[:, None], EFFECT, NUISANCE)
        se = float(np.sqrt(plain.variance[0] * plain.unscaled))
        if se > 0:
            found["log odds, t-test"].append((float(plain.estimate[0]), se, plain.df))
    labels = {"share": share, "scatter": spread, "cells": kind, "change": change}
    return summarise(found, labels, n_studies)


def measure_trend(share: float, spread: float, donors: int, change: float, n_studies: int, seed: int) -> list[dict]:
    """The same of trends over three doses: ``change`` in log odds per unit of dose on average over donors."""
    rng = np.random.default_rng(seed)
    block, nuisance = np.repeat(np.arange(donors), 3), np.eye(donors)[np.repeat(np.arange(donors), 3)]
    dose = np.tile([0.0, 0.5, 1.0], donors)
    found: dict[str, list[tuple[float, float, int]]] = {"by donors": [], "by replicates": []}
    for _ in range(n_studies):
        of = np.floor(np.exp(rng.normal(5.3, 0.5, 3 * donors))) + 10
        level, slope = rng.normal(0, 0.5, donors), rng.normal(change, spread, donors)
        logit = np.log(share / (1 - share)) + level[block] + slope[block] * dose
        counts = rng.binomial(of.astype(int), 1 / (1 + np.exp(-logit))).astype(float)
        for model, fits in found.items():
            fit = fit_quasibinomial(counts, of, dose, nuisance, block.astype(object), True, model == "by donors")
            if fit is not None:
                fits.append((fit.estimate, fit.se, fit.df))
    labels = {"share": share, "scatter": spread, "cells": f"log-normal, {donors} donors, 3 doses", "change": change}
    return summarise(found, labels, n_studies)


def summarise(found: dict[str, list[tuple[float, float, int]]], labels: dict, n_studies: int) -> list[dict]:
    """A row per model, from estimates, their errors and degrees of freedom."""
    rows = []
    for model, fits in found.items():
        estimate, se, df = np.array(fits).T
        change = labels["change"]
        rows.append(
            labels
            | {
                "model": model,
                "studies": n_studies,
                "tested": len(fits),
                "rejected": np.mean(2 * stats.t.sf(np.abs(estimate / se), df) < 0.05),
                "covered": np.mean(np.abs(estimate - change) < stats.t.ppf(0.975, df) * se),
                "mean_error": np.mean(estimate) - change,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    cases = product((0.01, 0.05, 0.2), (0.0, 0.3), ("equal", "log-normal", "40 and 320"), (0.0, 1.0))
    rows = [row for case in cases for row in measure(*case, options.studies, options.seed)]
    trends = product((0.02, 0.2), (0.0, 0.6), (4, 8), (0.0, 1.0))
    rows += [row for case in trends for row in measure_trend(*case, options.studies, options.seed)]
    table = pd.DataFrame(rows).round(4)
    write_tsv(table, REPOSITORY / "benchmarks" / "results" / "cell_fractions.tsv")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
