"""How far the intervals of potency can be trusted: repeated simulation with known responses, ranks and components.

Run from the repository: ``python benchmarks/potency.py``; about two minutes on one core. Writes
``benchmarks/results/potency.tsv``, one row per experiment, setting and measure, which the docs quote.

Experiments
    *response*: cultures of MSC donors, some alike; how often a donor's 95% interval holds its true response.
    *rank*: the same; how often the interval of a donor's rank holds every rank that ties allow it, and its mean width.
    *suppression*: measured suppression that responses do not tell; how often its p-values are below 0.05.
    *variance*: known components; how often the 95% intervals hold them, and the mean estimates.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "workflow"))

from scipy import stats  # noqa: E402

from immunomod.files import write_tsv  # noqa: E402
from immunomod.synthesis.ranks import rank_intervals  # noqa: E402
from immunomod.synthesis.responses import donor_responses  # noqa: E402
from immunomod.synthesis.suppression import associate  # noqa: E402
from immunomod.synthesis.variance_components import error_contrasts, variance_components  # noqa: E402

N_PROGRAMS = 20
Rows = list[tuple[str, str, str, float]]


def cultures(rng: np.random.Generator, truth: np.ndarray, n_test: int, n_reference: int, partner_sd: float):
    """Scores of one study: each MSC donor with the same immune donors, and alone."""
    shift = rng.normal(0, partner_sd, (n_test, N_PROGRAMS))
    rows = []
    for number, response in enumerate(truth):
        baseline = rng.normal(0, 1, N_PROGRAMS)
        for arm, n in (("test", n_test), ("reference", n_reference)):
            for one in range(n):
                noise = rng.normal(0, 0.3, N_PROGRAMS)
                level = baseline + noise + (response + shift[one] if arm == "test" else 0.0)
                donor = f"D{one}" if arm == "test" else f"M{number}"
                rows += [
                    (f"M{number}", f"{arm}{number}{one}", donor, arm, f"p{program:02d}", level[program], 0.0)
                    for program in range(N_PROGRAMS)
                ]
    return pd.DataFrame(rows, columns=["msc_donor", "sample", "donor", "arm", "program", "score", "common_se"])


def responses(n_studies: int, seed: int) -> Rows:
    """Intervals of responses and of ranks."""
    found: Rows = []
    truths = {"six donors alike": np.zeros(6), "0, 0, 0.2, 0.5, 0.5, 2": np.array([0.0, 0.0, 0.2, 0.5, 0.5, 2.0])}
    for name, truth in truths.items():
        best = np.array([1 + (truth > value).sum() for value in truth])
        worst = np.array([(truth >= value).sum() for value in truth])
        for n_test, n_reference, partner_sd in ((2, 1, 0.0), (3, 2, 0.0), (3, 2, 0.5)):
            rng = np.random.default_rng([seed, n_test, int(10 * partner_sd), len(name)])
            held, ranked, width = [], [], []
            for number in range(n_studies):
                fit = donor_responses(cultures(rng, truth, n_test, n_reference, partner_sd))
                half = stats.t.ppf(0.975, fit.df) * np.sqrt(fit.variance[0] * fit.unscaled)
                held.append(np.abs(fit.response[:, 0] - truth) <= half)
                between = fit.difference_variance[0] * fit.unscaled
                ranks = rank_intervals(fit.response[:, 0], between, fit.difference_df, n_draws=2000, seed=number)
                ranked.append((ranks.low <= best) & (ranks.high >= worst))
                width.append((ranks.high - ranks.low).mean())
            setting = f"{name}; {n_test} co-cultures, {n_reference} alone; immune donors differ by {partner_sd}"
            found.append(("response", setting, "coverage", float(np.mean(held))))
            found.append(("rank", setting, "coverage, worst donor", float(np.mean(ranked, axis=0).min())))
            found.append(("rank", setting, "mean width", float(np.mean(width))))
    return found


def suppression(n_studies: int, seed: int) -> Rows:
    """Rejections where suppression has nothing to do with the response."""
    found: Rows = []
    for n in (4, 6, 10):
        rng = np.random.default_rng([seed, n])
        drawn = [associate(rng.normal(size=n), rng.normal(size=n), 499, seed=number) for number in range(n_studies)]
        for name in ("p_value", "p_value_cv"):
            share = np.mean([getattr(one, name) <= 0.05 for one in drawn if one is not None])
            found.append(("suppression", f"{n} donors, unrelated", f"{name} <= 0.05", float(share)))
        r2 = np.median([one.r2_cv for one in drawn if one is not None])
        found.append(("suppression", f"{n} donors, unrelated", "median r2_cv", float(r2)))
    return found


def components(n_studies: int, seed: int) -> Rows:
    """Estimates and intervals of known components."""
    found: Rows = []
    settings = [
        (2, 4, 2, 0.5, 0.7, 0.5),
        (3, 4, 2, 1.0, 0.7, 0.5),
        (4, 5, 3, 0.5, 0.2, 0.5),
        (3, 4, 2, 0.0, 0.0, 0.5),
        (3, 4, 1, 0.5, 0.7, 0.5),
    ]
    for sources, donors, replicates, *deviations in settings:
        rng = np.random.default_rng([seed, sources, donors, replicates])
        truth = dict(zip(("source", "donor", "culture"), np.square(deviations), strict=True))
        if replicates == 1:
            truth = {"source": truth["source"], "donor": truth["donor"] + truth["culture"]}
        held: dict[str, list[bool]] = {name: [] for name in truth}
        estimates: dict[str, list[float]] = {name: [] for name in truth}
        of_source = np.repeat(np.arange(sources), donors)
        n = len(of_source)
        for number in range(n_studies):
            level = rng.normal(0, deviations[0], sources)[of_source] + rng.normal(0, deviations[1], n)
            drawn = level[:, None] + rng.normal(0, deviations[2], (n, replicates))
            means, df = drawn.mean(axis=1), n * (replicates - 1)
            square = float(((drawn - means[:, None]) ** 2).sum()) / df if df else 0.0
            contrasts, _ = error_contrasts(
                means,
                {"donor": range(n), "source": list(of_source)},
                "culture",
                np.full(n, 1 / replicates),
                square,
                df,
            )
            for name, one in variance_components(contrasts, n_bootstrap=1000, seed=number).items():
                held[name].append(one.low <= truth[name] <= one.high)
                estimates[name].append(one.variance)
        setting = f"{sources} sources x {donors} donors x {replicates} cultures"
        for name, value in truth.items():
            what = f"{name}, truth {value:.2f}"
            found.append(("variance", f"{setting}: {what}", "coverage", float(np.mean(held[name]))))
            found.append(("variance", f"{setting}: {what}", "mean estimate", float(np.mean(estimates[name]))))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=500, help="simulated studies per setting")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "potency.tsv")
    options = parser.parse_args()
    rows = [row for part in (responses, suppression, components) for row in part(options.studies, options.seed)]
    table = pd.DataFrame(rows, columns=["experiment", "setting", "measure", "value"]).round({"value": 4})
    write_tsv(table.assign(studies=options.studies), options.out)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
