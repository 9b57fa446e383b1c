"""Trends over a dose: rejection and coverage, where donors' slopes differ.

Each donor has cultures at doses 0, 0.5 and 1. Scores of twenty programmes vary by 0.08 log2 between a donor's cultures;
slopes vary between donors by 0.1, and where a programme changes by 1 log2 per unit of dose by 0.3.
"""

from __future__ import annotations

import numpy as np
from common import ALPHA, record

from immunomod.contrast.model import fit_linear, residuals, variance_of_slopes
from immunomod.contrast.moderation import Effects, Moderation, Noise, infer

DOSES = (0.0, 0.5, 1.0)
COUNT = 20
NOISE, SLOPE_SD, CHANGED_SLOPE_SD = 0.08, 0.1, 0.3


def draw(rng: np.random.Generator, donors: int, changed: np.ndarray) -> np.ndarray:
    """Scores: donors x doses (units of a donor adjoin), programmes."""
    slope = changed + rng.normal(size=(donors, COUNT)) * np.where(changed, CHANGED_SLOPE_SD, SLOPE_SD)
    dose = np.tile(DOSES, donors)[:, None]
    return np.asarray(dose * slope.repeat(len(DOSES), axis=0) + rng.normal(0, NOISE, (donors * len(DOSES), COUNT)))


def trends(repeats: int) -> list[dict]:
    """By the variance of the donors' slopes, as the contrast floor does, and by the residuals of one common slope."""
    rows = []
    for donors in (3, 4, 6, 8):
        dose, donor = np.tile(DOSES, donors), np.arange(donors).repeat(len(DOSES))
        nuisance = np.eye(donors)[donor]
        for n_changed in (0, 4):
            changed = np.arange(COUNT) < n_changed
            rejected: dict[str, list] = {"slopes of donors": [], "residuals of one slope": []}
            covered: dict[str, list] = {name: [] for name in rejected}
            for repeat in range(repeats):
                scores = draw(np.random.default_rng([41, donors, n_changed, repeat]), donors, changed)
                fit = fit_linear(scores, dose, nuisance)
                of_slopes, df = variance_of_slopes(scores, dose, nuisance, donor)
                left = residuals(scores, dose, nuisance)
                for name, variance, freedom in (
                    ("slopes of donors", of_slopes / fit.unscaled, df),
                    ("residuals of one slope", fit.variance, float(fit.df)),
                ):
                    noise = Noise(name, left, variance, np.ones(COUNT), freedom, fit.unscaled)
                    moderation = Moderation([Effects(fit.estimate, (noise,))])
                    found = infer(fit.estimate, moderation.errors, 1 - ALPHA)
                    rejected[name].append((found.p_value < ALPHA)[~changed])
                    covered[name].append(((found.low < changed) & (found.high > changed))[changed])
            kind = f"{n_changed} of {COUNT} changed" if n_changed else "nothing changed"
            for name in rejected:
                where = f"{donors} donors, doses 0, 0.5, 1; {kind}; {name}"
                rows.append(record("trends", where, "null_rejection", rejected[name]))
                if n_changed:
                    rows.append(record("trends", where, "coverage", covered[name]))
    return rows
