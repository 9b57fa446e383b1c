"""Draws of pseudobulks with known truth, and the rows of the result table."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "workflow"))

from immunomod.contrast.model import fit_linear, residuals  # noqa: E402
from immunomod.contrast.moderation import Effects, Inference, Moderation, Noise, arm_noise, infer  # noqa: E402
from immunomod.contrast.scores import counting_variance, measure_expression  # noqa: E402

ALPHA = 0.05
N_GENES = 6000
QUESTION = {"contrast": "q", "dataset": "simulated", "variable": "condition", "test": "treated", "reference": "control"}


def record(experiment: str, setting: str, measure: str, values: object) -> dict:
    """Mean of the values, its standard error and their number.

    Values of two dimensions are draws x programmes: the standard error is over draws then, as the programmes of one
    draw share its libraries. NaN counts as no value.
    """
    numbers = np.asarray(values, dtype=float)
    count = int(np.isfinite(numbers).sum())
    mean = np.nanmean(numbers) if count else np.nan
    if numbers.ndim == 2 and count:
        excess = np.nansum(numbers - mean, axis=1)
        error = np.sqrt((excess**2).sum() * len(excess) / max(len(excess) - 1, 1)) / count
    else:
        error = np.nanstd(numbers, ddof=1) / np.sqrt(count) if count > 1 else np.nan
    return {
        "experiment": experiment,
        "setting": setting,
        "measure": measure,
        "value": float(f"{mean:.4g}"),
        "standard_error": float(f"{error:.2g}"),
        "n": count,
    }


def draw_rates(rng: np.random.Generator, n_genes: int = N_GENES) -> np.ndarray:
    """Expression as skewed as in blood cells: half of the genes below 30 counts per million."""
    return np.exp(rng.normal(0, 2, n_genes))


def draw_programmes(rng: np.random.Generator, rate: np.ndarray, n_programmes: int = 20, size: int = 15) -> np.ndarray:
    """Genes of each programme (programmes x size), none in two, the better expressed ones likelier."""
    weight = np.sqrt(rate)
    return rng.choice(len(rate), size=n_programmes * size, replace=False, p=weight / weight.sum()).reshape(-1, size)


def draw_unit(
    rng: np.random.Generator, donor: np.ndarray, change: np.ndarray | float, depth: float, dispersion: float = 1.0
) -> np.ndarray:
    """Counts of one pseudobulk: 50 to 150 cells of ``depth`` counts, ``donor`` log2 rates, ``change`` in log2.

    Cells are negative-binomial; genes vary between units by 0.2 log2.
    """
    expression = 2 ** (donor + rng.normal(0, 0.2, len(donor)) + change)
    n_cells = rng.integers(50, 151)
    mean = expression / expression.sum() * n_cells * depth
    shape = n_cells / dispersion
    return np.asarray(rng.negative_binomial(shape, shape / (shape + mean)), dtype=float)


def draw_pairs(
    rng: np.random.Generator, rate: np.ndarray, change: np.ndarray, n_pairs: int, depth_ratio: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Counts (2 x pairs, genes; control first in each pair) and arms.

    ``change``: log2 change, pairs x genes. Donors differ by 0.4 log2 in each gene, and have 1,500 to 5,000 counts a
    cell; ``depth_ratio`` is that of the treated arm to the control arm.
    """
    counts = []
    for pair in range(n_pairs):
        donor = np.log2(rate) + rng.normal(0, 0.4, len(rate))
        depth = np.exp(rng.uniform(np.log(1500), np.log(5000)))
        counts += [draw_unit(rng, donor, 0.0, depth), draw_unit(rng, donor, change[pair], depth * depth_ratio)]
    return np.array(counts), np.array(["reference", "test"] * n_pairs, dtype=object)


def draw_groups(
    rng: np.random.Generator, rate: np.ndarray, change: np.ndarray, n_test: int, n_reference: int
) -> tuple[np.ndarray, np.ndarray]:
    """Counts and arms of unpaired donors, reference first; ``change`` is test units x genes."""
    counts = []
    for unit in range(n_reference + n_test):
        donor = np.log2(rate) + rng.normal(0, 0.4, len(rate))
        depth = np.exp(rng.uniform(np.log(1500), np.log(5000)))
        own = change[unit - n_reference] if unit >= n_reference else 0.0
        counts.append(draw_unit(rng, donor, own, depth))
    return np.array(counts), np.array(["reference"] * n_reference + ["test"] * n_test, dtype=object)


def columns_of(arms: np.ndarray, paired: bool) -> tuple[np.ndarray, np.ndarray]:
    """The effect's regressor and the nuisance columns: one mean per pair (units of a pair adjoin), or an intercept."""
    effect = np.where(arms == "test", 0.5, -0.5)
    nuisance = np.repeat(np.eye(len(arms) // 2), 2, axis=0) if paired else np.ones((len(arms), 1))
    return effect, nuisance


def class_effects(
    counts: np.ndarray, arms: np.ndarray, weights: np.ndarray, paired: bool
) -> tuple[Effects, np.ndarray, np.ndarray]:
    """Effects from pseudobulks, as the contrast floor makes them; which programmes have one; the scores of all units.

    ``weights`` is genes x programmes, any scale; programmes with fewer than 5 detected genes have none.
    """
    expression = measure_expression(counts, arms, 3.0)
    used = weights * expression.detected[:, None]
    known = (used != 0).sum(axis=0) >= 5
    used = (used / np.maximum(np.abs(used).sum(axis=0), 1e-12))[:, known]
    scores = expression.log2 @ used
    columns = columns_of(arms, paired)
    fit = fit_linear(scores, *columns)
    counting = counting_variance(expression, np.arange(len(used)), used)
    left = residuals(scores, *columns)
    noise = (Noise("pairs", left, fit.variance, counting.mean(axis=0), float(fit.df), fit.unscaled),)
    if not paired:
        noise = arm_noise(scores, counting, arms == "test")
    return Effects(fit.estimate, noise), known, scores


def programme_effects(
    counts: np.ndarray, arms: np.ndarray, weights: np.ndarray, paired: bool
) -> tuple[np.ndarray, Inference]:
    """Estimates with their 95% intervals and p-values, of one class; programmes without an effect get NaN."""
    effects, known, _ = class_effects(counts, arms, weights, paired)
    found = np.full((6, weights.shape[1]), np.nan)
    found[:, known] = (effects.estimate, *infer(effects.estimate, Moderation([effects]).errors, 1 - ALPHA))
    return found[0], Inference(*found[1:])


def as_weights(sets: np.ndarray, n_genes: int, signs: np.ndarray | float = 1.0) -> np.ndarray:
    """Genes x programmes from programmes x genes of each."""
    weights = np.zeros((n_genes, len(sets)))
    for column, genes in enumerate(sets):
        weights[genes, column] = signs if np.isscalar(signs) else signs[column]
    return weights
