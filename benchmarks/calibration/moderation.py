"""Rejection, coverage and power of ways to steady variances, on scores drawn from normal distributions.

Twenty programmes; paired differences vary by 0.08 log2 between donors, or 0.08 times a log-normal factor. Where a
programme changes, donors respond to different degrees. *Adversarial*: changes of 1 log2, responses with a standard
deviation of 0.3, more than three times that of the untouched programmes. *Proportional*: changes of 0.3 to 3 log2,
responses in proportion (0.3). *Constant*: the same changes, responses with 0.25. *Same variance*: changes as many
standard errors as stated, no variation of responses. *In both directions*: responses with 0.3 and a mean of zero, whose
coverage is the share that is not rejected. Unpaired donors vary by 0.2, responses in the test arm by 0.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from common import ALPHA, record
from scipy import special, stats

from immunomod.contrast.model import (
    LinearFit,
    VariancePrior,
    fit_variance_prior,
    inverse_trigamma,
    like_effects_posterior,
    moderate,
    moderate_among_like_effects,
    moderated_variance,
)

COUNT = 20


@dataclass(frozen=True)
class Setting:
    """What is drawn: ``changed`` of 20 programmes, ``kind`` of change, log-normal ``spread`` of noise."""

    name: str
    changed: int = 0
    kind: str = "none"
    spread: float = 0.3
    correlation: float = 0.0
    standard_errors: float = 0.0


SETTINGS = (
    Setting("null, equal variances", spread=0.0),
    Setting("null, spread 0.3"),
    Setting("null, spread 0.6", spread=0.6),
    Setting("null, spread 0.3, correlated 0.5", correlation=0.5),
    Setting("adversarial, 1 changed", 1, "adversarial"),
    Setting("adversarial, 2 changed", 2, "adversarial"),
    Setting("adversarial, 8 changed", 8, "adversarial"),
    Setting("adversarial, 14 changed", 14, "adversarial"),
    Setting("adversarial, 3 changed, correlated 0.5", 3, "adversarial", correlation=0.5),
    Setting("proportional, 6 changed", 6, "proportional"),
    Setting("constant, 6 changed", 6, "constant"),
    Setting("responses in both directions, 3 of 20", 3, "directions"),
    Setting("same variance, 2 changed by 4 se", 2, "same", 0.0, standard_errors=4),
    Setting("same variance, 4 changed by 5 se", 4, "same", 0.0, standard_errors=5),
    Setting("spread 0.3, 4 changed by 5 se", 4, "same", 0.3, standard_errors=5),
)
DESIGNS = (("2 pairs", 2, True), ("3 pairs", 3, True), ("4 pairs", 4, True), ("6 pairs", 6, True), ("8 pairs", 8, True))
UNPAIRED = (("3 v 3", 3, False), ("4 v 4", 4, False), ("6 v 6", 6, False))


def draw(rng: np.random.Generator, setting: Setting, n: int, paired: bool) -> tuple[LinearFit, np.ndarray, np.ndarray]:
    """A fit, the true effects, and the mean scores of the programmes (limma's abundance)."""
    noise = (0.08 if paired else 0.2) * np.exp(rng.normal(0, setting.spread, COUNT))
    changed = np.arange(COUNT) < setting.changed
    truth = np.where(changed & (setting.kind != "directions"), 1.0, 0.0)
    if setting.kind in ("proportional", "constant"):
        truth = changed * np.exp(rng.uniform(np.log(0.3), np.log(3), COUNT))
    if setting.kind == "same":
        truth = changed * setting.standard_errors * (0.08 if paired else 0.2) * np.sqrt((1 if paired else 2) / n)
    response = {"adversarial": 0.3 * changed, "proportional": 0.3 * truth, "constant": 0.25 * changed}
    response["directions"] = response["adversarial"]
    responses = response.get(setting.kind, np.zeros(COUNT))

    def units() -> np.ndarray:
        shared = np.sqrt(setting.correlation) * rng.normal(size=(n, 1))
        return shared + np.sqrt(1 - setting.correlation) * rng.normal(size=(n, COUNT))

    abundance = rng.uniform(4, 10, COUNT)
    test = units() * noise + truth + units() * responses
    if paired:
        return LinearFit(test.mean(axis=0), test.var(axis=0, ddof=1), n - 1, 1 / n), truth, abundance
    reference = units() * noise
    variance = (test.var(axis=0, ddof=1) + reference.var(axis=0, ddof=1)) / 2
    return LinearFit(test.mean(axis=0) - reference.mean(axis=0), variance, 2 * n - 2, 2 / n), truth, abundance


def limma_trend(variance: np.ndarray, df: int, abundance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """limma's ``squeezeVar`` with ``covariate``: a natural spline with one inner knot, as for 6 to 29 variances."""
    low, middle, high = np.quantile(abundance, [0, 0.5, 1])

    def bend(knot: float) -> np.ndarray:
        cubes = np.clip(abundance - knot, 0, None) ** 3 - np.clip(abundance - high, 0, None) ** 3
        return np.asarray(cubes / (high - knot))

    basis = np.linalg.qr(np.column_stack([np.ones(len(abundance)), abundance, bend(low) - bend(middle)]))[0]
    floor = np.maximum(variance, 1e-5 * np.median(variance))
    centred = np.log(floor) - special.digamma(df / 2) + np.log(df / 2)
    trend = basis @ (basis.T @ centred)
    spread = ((centred - trend) ** 2).sum() / (len(variance) - 3) - special.polygamma(1, df / 2)
    if spread <= 0:
        return np.exp(trend), np.full(len(variance), float(df * len(variance)))
    half = float(inverse_trigamma(np.array(spread)))
    prior = np.exp(trend + special.digamma(half) - np.log(half))
    squeezed = (df * variance + 2 * half * prior) / (df + 2 * half)
    return squeezed, np.full(len(variance), min(df + 2 * half, float(df * len(variance))))


def with_same_df(variance: np.ndarray, df: float) -> tuple[np.ndarray, np.ndarray]:
    return variance, np.full(len(variance), float(df))


RULES = {
    "none": lambda fit, abundance: with_same_df(fit.variance, fit.df),
    "limma": lambda fit, abundance: with_same_df(*moderate(fit.variance, fit.df, limma_prior(fit))),
    "limma-trend": lambda fit, abundance: limma_trend(fit.variance, fit.df, abundance),
    "restrained": lambda fit, abundance: with_same_df(*moderated_variance(fit.variance, fit.df)),
    "like effects": lambda fit, abundance: moderate_among_like_effects(
        fit.estimate, *with_same_df(fit.variance, fit.df), fit.unscaled
    ),
    "like effects, lowered too": lambda fit, abundance: like_effects_posterior(
        fit.estimate, *with_same_df(fit.variance, fit.df), fit.unscaled
    ),
}


def limma_prior(fit: LinearFit) -> VariancePrior:
    return fit_variance_prior(fit.variance, fit.df)


def moderation(repeats: int) -> list[dict]:
    """Per setting, design and rule: ``null_rejection``, ``coverage``, ``power_fdr`` and power at equal rejection.

    ``null_rejection_1`` is the share of untouched programmes with p < 0.01, ``false_discoveries`` the mean share of
    untouched programmes among those with fdr < 0.05 (0 where there are none), at most 0.05 if p-values hold.
    ``power_at_5`` and ``power_at_1`` are the shares of changed programmes below the p-value that the rule gives to 5%
    and 1% of the untouched ones: power at equal calibration.
    """
    rows = []
    designs = [(setting, *design) for setting in SETTINGS for design in DESIGNS]
    chosen = [setting for setting in SETTINGS if setting.kind in ("none", "adversarial") and not setting.correlation]
    designs += [(setting, *design) for setting in chosen for design in UNPAIRED]
    for setting, label, n, paired in designs:
        p_values: dict[str, list] = {rule: [] for rule in RULES}
        inside: dict[str, list] = {rule: [] for rule in RULES}
        for repeat in range(repeats):
            rng = np.random.default_rng([12, n, int(paired), repeat])
            fit, truth, abundance = draw(rng, setting, n, paired)
            for rule, apply in RULES.items():
                variance, df = apply(fit, abundance)
                error = np.sqrt(variance * fit.unscaled)
                p_values[rule].append(2 * stats.t.sf(np.abs(fit.estimate / error), df))
                inside[rule].append(np.abs(fit.estimate - truth) < stats.t.ppf(0.975, df) * error)
        changed = np.arange(COUNT) < setting.changed
        for rule in RULES:
            p = np.array(p_values[rule])
            where = f"{label}; {setting.name}; {rule}"
            rows.append(record("moderation", where, "null_rejection", p[:, ~changed] < ALPHA))
            rows.append(record("moderation", where, "null_rejection_1", p[:, ~changed] < ALPHA / 5))
            if setting.changed:
                called = stats.false_discovery_control(p, axis=1) < ALPHA
                rows.append(record("moderation", where, "coverage", np.array(inside[rule])[:, changed]))
                rows.append(record("moderation", where, "power_fdr", called[:, changed]))
                false = called[:, ~changed].sum(axis=1) / np.maximum(called.sum(axis=1), 1)
                rows.append(record("moderation", where, "false_discoveries", false))
                for level in (0.05, 0.01):
                    limit = np.quantile(p[:, ~changed], level)
                    rows.append(record("moderation", where, f"power_at_{100 * level:.0f}", p[:, changed] < limit))
    return rows
