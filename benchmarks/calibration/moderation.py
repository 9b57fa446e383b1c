"""Rejection, coverage and power of ways to steady variances, on scores drawn from normal distributions.

Twenty programmes in one cell class, or in each of eight; then what changes does so in all of them, or in four. Paired
differences vary by 0.08 log2 between donors, or 0.08 times a log-normal factor; the classes of a study differ in it by
a log-normal factor of 0.25. Where a programme changes, donors respond to different degrees. *Adversarial*: changes of 1
log2, responses with a standard deviation of 0.3, more than three times that of the untouched programmes.
*Proportional*: changes of 0.3 to 3 log2, responses in proportion (0.3). *Constant*: the same changes, responses with
0.25. *Same variance*: changes as many standard errors as stated, no variation of responses. *In both directions*:
responses with 0.3 and a mean of zero, whose coverage is the share that is not rejected. Unpaired donors vary by 0.2,
responses in the test arm by 0.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from common import ALPHA, record
from scipy import special, stats

from immunomod.contrast.model import fit_variance_prior, inverse_trigamma, moderate, moderated_variance
from immunomod.contrast.moderation import Effects, Moderation, Noise, arm_noise, infer

COUNT = 20
CLASS_SD = 0.25


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
#: Cell classes of a study, and in how many of them programmes change; the draws of each, as a share of the repeats.
STUDIES = (("1 class", 1, 1, 1.0), ("8 classes", 8, 8, 0.25), ("4 of 8 classes", 8, 4, 0.25))


@dataclass(frozen=True)
class Study:
    """Arrays are classes x programmes; ``abundance`` is the mean score (limma's), ``noise`` that of every class."""

    estimate: np.ndarray
    variance: np.ndarray
    df: int
    unscaled: float
    truth: np.ndarray
    changed: np.ndarray
    abundance: np.ndarray
    noise: list[tuple[Noise, ...]]

    def judge(self, variance: np.ndarray, df: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """p-values from variances of the effects and their degrees of freedom, and whether 95% intervals are right."""
        error = np.sqrt(variance)
        p_value = 2 * stats.t.sf(np.abs(self.estimate) / error, df)
        return p_value, np.abs(self.estimate - self.truth) < stats.t.ppf(0.975, df) * error


def draw(
    rng: np.random.Generator, setting: Setting, n: int, paired: bool, classes: int = 1, with_changes: int = 1
) -> Study:
    """A study, the classes with changes first."""
    parts = []
    df, unscaled = (n - 1, 1 / n) if paired else (2 * n - 2, 2 / n)
    for number in range(classes):
        level = (0.08 if paired else 0.2) * np.exp(rng.normal(0, CLASS_SD if classes > 1 else 0.0))
        noise = level * np.exp(rng.normal(0, setting.spread, COUNT))
        changed = (np.arange(COUNT) < setting.changed) & (number < with_changes)
        truth = np.where(changed & (setting.kind != "directions"), 1.0, 0.0)
        if setting.kind in ("proportional", "constant"):
            truth = changed * np.exp(rng.uniform(np.log(0.3), np.log(3), COUNT))
        if setting.kind == "same":
            truth = changed * setting.standard_errors * level * np.sqrt((1 if paired else 2) / n)
        response = {"adversarial": 0.3 * changed, "proportional": 0.3 * truth, "constant": 0.25 * changed}
        response["directions"] = response["adversarial"]
        responses = response.get(setting.kind, np.zeros(COUNT))

        def units() -> np.ndarray:
            shared = np.sqrt(setting.correlation) * rng.normal(size=(n, 1))
            return shared + np.sqrt(1 - setting.correlation) * rng.normal(size=(n, COUNT))

        arms = [units() * noise + truth + units() * responses]
        if not paired:
            arms.append(units() * noise)
        estimate = arms[0].mean(axis=0) - (0.0 if paired else arms[1].mean(axis=0))
        residual = np.concatenate([arm - arm.mean(axis=0) for arm in arms])
        variance = (residual**2).sum(axis=0) / df
        noise = (Noise("pairs", residual, variance, np.ones(COUNT), df, unscaled),)
        if not paired:
            noise = arm_noise(np.concatenate(arms), np.ones((2 * n, COUNT)), np.arange(2 * n) < n)
        parts.append((estimate, variance, truth, changed, rng.uniform(4, 10, COUNT), noise))
    estimates, variances, truths, changes, abundance, noises = zip(*parts, strict=True)
    return Study(
        *(np.array(estimates), np.array(variances), df, unscaled),
        *(np.array(truths), np.array(changes), np.array(abundance), list(noises)),
    )


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


def by_class(rule):
    """A study's p-values, and whether its intervals hold the truth, by a rule for one class.

    The rule takes variances, degrees of freedom and abundance.
    """

    def apply(study: Study) -> tuple[np.ndarray, np.ndarray]:
        parts = [rule(variance, study.df, mean) for variance, mean in zip(study.variance, study.abundance, strict=True)]
        variance = np.array([part[0] for part in parts]) * study.unscaled
        return study.judge(variance, np.array([np.broadcast_to(part[1], COUNT) for part in parts], dtype=float))

    return apply


def like_effects(study: Study) -> tuple[np.ndarray, np.ndarray]:
    """The workflow's rule."""
    moderation = Moderation([Effects(*one) for one in zip(study.estimate, study.noise, strict=True)])
    found = infer(moderation.estimate, moderation.errors, 0.95)
    truth = study.truth.ravel()
    return found.p_value, (found.low < truth) & (truth < found.high)


RULES = {
    "none": by_class(lambda variance, df, abundance: (variance, df)),
    "limma": by_class(lambda variance, df, abundance: moderate(variance, df, fit_variance_prior(variance, df))),
    "limma-trend": by_class(limma_trend),
    "restrained": by_class(lambda variance, df, abundance: moderated_variance(variance, df)),
    "like effects": like_effects,
}


def moderation(repeats: int) -> list[dict]:
    """Per setting, design and rule: ``null_rejection``, ``coverage``, ``power_fdr`` and power at equal rejection.

    ``null_rejection_1`` is the share of untouched programmes with p < 0.01, ``false_discoveries`` the mean share of
    untouched programmes among those with fdr < 0.05 (0 where there are none), at most 0.05 if p-values hold.
    ``power_at_5`` and ``power_at_1`` are the shares of changed programmes below the p-value that the rule gives to 5%
    and 1% of the untouched ones: power at equal calibration.
    """
    rows = []
    unpaired = [setting for setting in SETTINGS if setting.kind in ("none", "adversarial") and not setting.correlation]
    unpaired += [setting for setting in SETTINGS if setting.kind == "same"]
    designs = [(setting, *design) for setting in SETTINGS for design in DESIGNS]
    designs += [(setting, *design) for setting in unpaired for design in UNPAIRED]
    for words, classes, with_changes, share in STUDIES:
        for setting, label, n, paired in designs:
            if not setting.changed and with_changes < classes:
                continue
            p_values: dict[str, list] = {rule: [] for rule in RULES}
            inside: dict[str, list] = {rule: [] for rule in RULES}
            for repeat in range(max(round(share * repeats), 2)):
                rng = np.random.default_rng([12, n, int(paired), classes, with_changes, repeat])
                study = draw(rng, setting, n, paired, classes, with_changes)
                for rule, apply in RULES.items():
                    p_value, holds = apply(study)
                    p_values[rule].append(p_value.ravel())
                    inside[rule].append(holds.ravel())
            changed = study.changed.ravel()
            for rule in RULES:
                where = f"{label}, {words}; {setting.name}; {rule}"
                rows += _measures(where, np.array(p_values[rule]), np.array(inside[rule]), changed)
    return rows


def _measures(where: str, p: np.ndarray, inside: np.ndarray, changed: np.ndarray) -> list[dict]:
    """``p`` and ``inside`` are draws x programmes."""
    rows = [record("moderation", where, "null_rejection", p[:, ~changed] < ALPHA)]
    rows.append(record("moderation", where, "null_rejection_1", p[:, ~changed] < ALPHA / 5))
    if changed.any():
        called = stats.false_discovery_control(p, axis=1) < ALPHA
        rows.append(record("moderation", where, "coverage", inside[:, changed]))
        rows.append(record("moderation", where, "power_fdr", called[:, changed]))
        false = called[:, ~changed].sum(axis=1) / np.maximum(called.sum(axis=1), 1)
        rows.append(record("moderation", where, "false_discoveries", false))
        for level in (0.05, 0.01):
            limit = np.quantile(p[:, ~changed], level)
            rows.append(record("moderation", where, f"power_at_{100 * level:.0f}", p[:, changed] < limit))
    return rows
