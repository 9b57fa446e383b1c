"""Programme scores of pseudobulks: the signed mean over a programme's detected genes of log2 expression.

Two choices decide whether such a mean estimates the true log2 change. Both were made by simulation with 4 donors, 50
to 150 cells a pseudobulk and 1,500 to 5,000 counts a cell (``benchmarks/calibration``, experiment "detection";
true effects +1.5 and -1.5 log2, and an arm thinned to a quarter of its depth):

*A prior count of 0.5 in every unit.* For counts with mean m, the expectation of log(y + c) is log(m) + (c - 1/2) / m
and terms of order 1 / m^2; c = 1/2 removes the leading one, whatever the depth. edgeR's default of 2, in proportion
to the library, is made for ranking genes and shrinks: its bias was -0.10 and +0.13 where 0.5 had -0.02 and 0.00.

*A gene is detected if it can be measured in the shallower arm at the level of the arm that expresses it more*: rate
in that arm times the depth of the shallower arm of at least ``min_count``. Genes induced from nothing count, and so
do genes that vanish; the rule is blind to the sign of the change, so it favours neither. The remaining terms die out
by a mean of about 2 counts. Untouched programmes were rejected, at a nominal 5% with one arm at a quarter of the
depth, in 7.4%, 6.7%, 6.4% and 5.5% at thresholds of 1, 2, 3 and 5; a higher threshold loses programmes of sparsely
expressed genes to ``low_coverage``. The default is 3. The change of a gene that has next to no counts in one arm
cannot be known; it enters as log2 of the other arm over half a count, a bound from below on its size.

*Libraries are compared over genes that do not differ between the arms.* Trimming alone leaves part of a one-sided
change in the factors: a trimmed mean of a skewed distribution lies towards its tail. In the simulated study of the
demo, where a few per cent of the measured genes change, all mostly upwards in MSC and downwards in T cells, plain TMM
shifted every untouched programme of MSC by -0.03 log2 and of CD8 T cells by +0.04, a quarter of a standard error
each, and the planted effects with them. Without the genes whose difference between the arms is an outlier the shifts
are below 0.01 (``benchmarks/demo_recovery.py``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from immunomod.contrast.leakage import Leakage
from immunomod.contrast.normalise import Floats, tmm_factors

PRIOR_COUNT = 0.5
WELL_MEASURED = 5.0
MIN_GENES_FOR_TMM = 50
OUTLIER = 2.5
#: Leakage noise up to which a count keeps its own logarithm, relative to the count.
KNOWN_WITHIN = 0.2
MAX_PRIOR = 5.0
#: How far above leakage noise a gene's level must lie: in an arm without much of it, and in one that has it.
TIMES_NOISE_CLEAN, TIMES_NOISE = 2.0, 5.0
SIGMA_PER_MAD = 1.4826


@dataclass(frozen=True)
class Expression:
    """log2 expression of the units of one stratum.

    Attributes
    ----------
    log2
        Units x genes, log2 counts per million.
    detected
        Per gene, whether it counts towards scores.
    abundance
        Per gene, log2 of the mean count per replicate that ``detected`` looks at.
    share_nonzero
        Per gene, share of the units with at least one count.
    log2_error
        Units x genes: standard error of ``log2`` that is the same in all units of a gene, sign included (what leaked
        may be over- or underestimated in all samples alike); 0 where nothing leaked.
    library
        Per unit, the library size behind ``log2``.
    """

    log2: Floats
    detected: NDArray[np.bool_]
    abundance: Floats
    share_nonzero: Floats
    log2_error: Floats
    library: Floats


def measure_expression(
    counts: Floats, arms: NDArray[np.object_], min_count: float, leakage: Leakage | None = None
) -> Expression:
    """log2 expression and detection of every gene; see the module's docstring for the reasons.

    Parameters
    ----------
    counts
        Units x genes, whole numbers.
    arms
        The arm of each unit (any labels).
    min_count
        Threshold of detection.
    leakage
        What leaked into the units, to be taken out; nothing where it is None.
    """
    if leakage is None or not leakage.expected.any():
        library = effective_library(counts, arms)
        log2 = np.log2((counts + PRIOR_COUNT) / (library + 2 * PRIOR_COUNT)[:, None] * 1e6)
        error = np.zeros_like(counts)
        separable = np.ones(counts.shape[1], dtype=bool)
        highest = _highest_rate(counts, library, arms)
    else:
        own = counts - leakage.expected
        library = effective_library(np.maximum(own, 0.0), arms, well_known(own, leakage))
        levels = {arm: _arm_level(arms == arm, counts, own, library, leakage) for arm in sorted(set(arms))}
        separable = _separable(list(levels.values()))
        log2, error = _own_log2(arms, counts, own, library, leakage, levels)
        highest = np.max([level.rate for level in levels.values()], axis=0)
    depth = min(_harmonic_mean(library[arms == arm]) for arm in set(arms))
    expected = highest * depth
    return Expression(
        log2=log2,
        detected=np.asarray((expected >= min_count) & separable),
        abundance=np.log2(np.maximum(expected, 1e-9)),
        share_nonzero=(counts > 0).mean(axis=0),
        log2_error=error,
        library=library,
    )


@dataclass(frozen=True)
class _ArmLevel:
    """Per gene, over the units of an arm: the ``rate`` of own molecules, and standard errors that leakage gives it.

    ``noise``: of all leakage noise, the arm's mean over units; ``unit_noise``: of a single unit of the mean size.
    """

    rate: Floats
    noise: Floats
    unit_noise: Floats
    counting: Floats


def _arm_level(chosen: NDArray[np.bool_], counts: Floats, own: Floats, library: Floats, leakage: Leakage) -> _ArmLevel:
    total = library[chosen].sum()
    common = (leakage.error[chosen, None] * leakage.expected[chosen]).sum(axis=0)
    independent = leakage.variance[chosen].sum(axis=0)
    return _ArmLevel(
        rate=own[chosen].sum(axis=0) / total,
        noise=np.sqrt(independent + common**2) / total,
        unit_noise=np.sqrt(independent * chosen.sum() + common**2) / total,
        counting=np.maximum(counts[chosen].sum(axis=0) - leakage.expected[chosen].sum(axis=0), 0.0) / total**2,
    )


def well_known(own: Floats, leakage: Leakage) -> NDArray[np.bool_]:
    """Genes whose own counts leakage hardly blurs, in every unit: those by which libraries may be compared."""
    blur = np.sqrt(leakage.variance + (leakage.error[:, None] * leakage.expected) ** 2)
    return np.asarray((blur <= KNOWN_WITHIN * np.maximum(own, 0.0) + (leakage.expected < 0.5)).all(axis=0))


def _separable(levels: list[_ArmLevel]) -> NDArray[np.bool_]:
    """Genes that can be told from leakage.

    A gene must stand out of the noise that leakage adds in the noisiest arm, at its level in an arm whose own noise is
    much smaller (its control), or further out at the level of a noisy arm itself: there the noise is in the level too,
    and taking genes that it happened to raise would find rises where there are none.
    """
    noise = np.max([level.noise for level in levels], axis=0)
    found = noise <= 0
    for level in levels:
        times = np.where(level.noise <= noise / 3, TIMES_NOISE_CLEAN, TIMES_NOISE)
        found |= level.rate >= times * noise
    return np.asarray(found)


def _own_log2(
    arms: NDArray[np.object_],
    counts: Floats,
    own: Floats,
    library: Floats,
    leakage: Leakage,
    levels: dict[object, _ArmLevel],
) -> tuple[Floats, Floats]:
    """log2 rates of own molecules, and their common error.

    Where leakage blurs a unit's count little, it is the logarithm of the count less what leaked, with the prior that
    cancels the leading bias of a logarithm: half the ratio of variance and mean, which is 1/2 where nothing leaked.
    Where it blurs it more, single counts have no usable logarithm (they may be negative). Then the logarithm is taken
    of the arm's mean, and the units lie on its tangent: their mean is the arm's, and their scatter is what it was.
    """
    scale = (library + 2 * PRIOR_COUNT)[:, None]
    variance = np.maximum(counts, own) + leakage.variance - leakage.expected
    positive = np.maximum(own, 0.0)
    prior = np.clip(variance / np.maximum(2 * positive, 1.0), PRIOR_COUNT, None)
    log2 = np.log2((positive + np.where(leakage.expected > 0, np.minimum(prior, MAX_PRIOR), PRIOR_COUNT)) / scale * 1e6)
    blurred = np.zeros(counts.shape[1], dtype=bool)
    for level in levels.values():
        blurred |= level.unit_noise > KNOWN_WITHIN * np.maximum(level.rate, 1e-12)
    error = np.zeros_like(log2)
    for arm, level in levels.items():
        rows = np.flatnonzero(arms == arm)
        total = library[rows].sum()
        squared = level.noise**2 + level.counting
        # never below its own standard error (or half a count): an upper bound where nothing stands out
        rate = np.maximum(level.rate, np.maximum(np.sqrt(squared), PRIOR_COUNT / total))
        centre = rate + np.maximum(squared, PRIOR_COUNT / total * rate) / (2 * rate)
        tangent = (np.log2(centre) + (own[rows] / library[rows, None] - level.rate) / rate / np.log(2)) + np.log2(1e6)
        log2[np.ix_(rows, np.flatnonzero(blurred))] = tangent[:, blurred]
        error[rows] = leakage.error[rows, None] * leakage.expected[rows] / (library[rows, None] * rate * np.log(2))
    return log2, error


def effective_library(counts: Floats, arms: NDArray[np.object_], comparable: NDArray[np.bool_] | None = None) -> Floats:
    """Library sizes cleared of composition effects by TMM factors, same geometric mean as the plain ones.

    ``comparable`` (genes,) are the genes by which units may be compared; all of them where it is None.

    The factors are taken over genes that would be well measured in the shallowest unit. Among sparse genes only those
    with a chance count in the shallower of two libraries are compared, which would make it seem richer than it is.
    They are taken twice, the second time without the genes that differ between the arms by the first: eliminating
    differential genes before normalising, Kadota et al., Algorithms for Molecular Biology 2012, 7:5.
    """
    library: Floats = np.maximum(counts.sum(axis=1), 1.0)
    is_measured = _highest_rate(counts, library, arms) * library.min() >= WELL_MEASURED
    measured = np.flatnonzero(is_measured if comparable is None else is_measured & comparable)
    if len(measured) < MIN_GENES_FOR_TMM or not counts[:, measured].sum(axis=1).all():
        return library
    compared = counts[:, measured]
    first = compared.sum(axis=1) * tmm_factors(compared)
    steady = compared[:, _do_not_differ(compared, first, arms)]
    enough = steady.shape[1] >= MIN_GENES_FOR_TMM and steady.sum(axis=1).all()
    effective = steady.sum(axis=1) * tmm_factors(steady) if enough else first
    return np.asarray(effective * np.exp(np.log(library).mean() - np.log(effective).mean()))


def _do_not_differ(counts: Floats, library: Floats, arms: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Per gene, whether every arm's log2 level, relative to the mean of all arms, is like that of most genes.

    Like means within ``OUTLIER`` standard deviations of the median, the deviation being that of a normal distribution
    with the median absolute deviation found. Arms and directions are treated alike, so that no sign is favoured; an
    arm's counts are added up first, as the logarithms of small counts are skewed, more so in a shallower arm.
    """
    sums = [(counts[arms == arm].sum(axis=0), library[arms == arm].sum()) for arm in sorted(set(arms))]
    level = np.log2([(total + PRIOR_COUNT) / depth for total, depth in sums])
    distance = level - level.mean(axis=0)
    distance = np.abs(distance - np.median(distance, axis=1, keepdims=True))
    limit = OUTLIER * SIGMA_PER_MAD * np.median(distance, axis=1, keepdims=True)
    # rounding must not part genes that have the same distance
    return np.asarray((distance <= limit + 1e-9).all(axis=0))


def _highest_rate(counts: Floats, library: Floats, arms: NDArray[np.object_]) -> Floats:
    """Per gene, its share of an arm's counts in the arm where that is highest."""
    return np.asarray(np.max([counts[arms == a].sum(axis=0) / library[arms == a].sum() for a in set(arms)], axis=0))


def _harmonic_mean(values: Floats) -> float:
    return float(len(values) / (1 / values).sum())


def counting_variance(expression: Expression, genes: NDArray[np.intp], weights: Floats) -> Floats:
    """Variance of each unit's score that counting molecules adds: units x programmes.

    A logarithm of a count with mean m varies by about 1 / m (natural); counts below one are taken for one.

    Parameters
    ----------
    expression
        log2 expression of the units.
    genes, weights
        Positions of genes in it, and their weights (genes x programmes).
    """
    counts = np.exp2(expression.log2[:, genes]) / 1e6 * (expression.library + 2 * PRIOR_COUNT)[:, None] - PRIOR_COUNT
    return np.asarray((1 / np.maximum(counts, 1.0)) @ weights**2 / np.log(2) ** 2)


def programme_weights(weights: pd.DataFrame, genes: pd.Index, detected: NDArray[np.bool_]) -> pd.DataFrame:
    """Weights of the detected genes of each programme, absolute values summing to 1: genes, by name, x programmes.

    A programme without a detected gene has zeros only.

    Parameters
    ----------
    weights
        Signed weights, gene symbols x programmes, 0 for genes that are not of the programme.
    genes
        The genes of the expression matrix.
    detected
        Per gene of ``genes``.
    """
    chosen = weights[weights.index.isin(genes[detected]) & (weights != 0).any(axis=1).to_numpy()].sort_index()
    return pd.DataFrame(chosen / chosen.abs().sum().replace(0, 1.0))
