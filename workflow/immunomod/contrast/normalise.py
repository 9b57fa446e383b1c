"""Library sizes and log2 expression of pseudobulks.

Counts are units x genes throughout, as AnnData has them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

LOG_RATIO_TRIM = 0.3
ABUNDANCE_TRIM = 0.05


def tmm_factors(counts: NDArray[np.number]) -> Floats:
    """Scaling factors of library sizes by the trimmed mean of M values, geometric mean 1.

    A strongly induced programme takes its share from all other genes; without this correction those would seem to
    fall, and programmes that nothing touched would be called. Follows Robinson and Oshlack, Genome Biology 2010,
    11:R25, and agrees with edgeR's ``calcNormFactors`` (M trimmed by 30% at each end, A by 5%, weights by the inverse
    of the asymptotic variance, the reference being the library whose upper quartile is closest to the mean).

    Parameters
    ----------
    counts
        Units x genes.

    Returns
    -------
    One factor per unit; the effective library size is the factor times the sum of counts. 1 where nothing can be said
    (one unit, or a unit without counts).
    """
    counts = np.asarray(counts, dtype=np.float64)
    factors = np.ones(counts.shape[0])
    library = counts.sum(axis=1)
    usable = np.flatnonzero(library > 0)
    counts = counts[:, (counts > 0).any(axis=0)]
    if len(usable) < 2 or counts.shape[1] < 2:
        return factors
    quartile = np.quantile(counts[usable], 0.75, axis=1) / library[usable]
    if np.median(quartile) < 1e-20:
        reference = usable[np.argmax(np.sqrt(counts[usable]).sum(axis=1))]
    else:
        reference = usable[np.argmin(np.abs(quartile - quartile.mean()))]
    for unit in usable:
        factors[unit] = _tmm_factor(counts[unit], counts[reference], library[unit], library[reference])
    factors[usable] /= np.exp(np.log(factors[usable]).mean())
    return factors


def _tmm_factor(observed: Floats, reference: Floats, library: float, reference_library: float) -> float:
    both = (observed > 0) & (reference > 0)
    if not both.any():
        return 1.0
    share, reference_share = observed[both] / library, reference[both] / reference_library
    log_ratio = np.log2(share / reference_share)
    if np.abs(log_ratio).max() < 1e-6:
        return 1.0
    abundance = np.log2(share * reference_share) / 2
    variance = (1 - share) / observed[both] + (1 - reference_share) / reference[both]
    n = len(log_ratio)
    kept = _inside(log_ratio, n, LOG_RATIO_TRIM) & _inside(abundance, n, ABUNDANCE_TRIM)
    if not kept.any():
        return 1.0
    return float(2 ** (np.sum(log_ratio[kept] / variance[kept]) / np.sum(1 / variance[kept])))


def _inside(values: Floats, n: int, trim: float) -> NDArray[np.bool_]:
    lowest = np.floor(n * trim) + 1
    ranks = stats.rankdata(values)
    return np.asarray((ranks >= lowest) & (ranks <= n + 1 - lowest))


def log2_cpm(counts: NDArray[np.number], library: Floats, prior_count: float = 2.0) -> Floats:
    """log2 counts per million with a prior count proportional to the library size: edgeR's ``cpm(log=TRUE)``.

    ``log2((y + p_u) / (L_u + 2 p_u) * 1e6)``, ``p_u = prior_count * L_u / mean(L)``, for count ``y`` and effective
    library size ``L_u`` of unit u. A gene without counts has the same value in every unit. Programme scores do not use
    it (:mod:`.scores` says why); ``benchmarks/calibration`` holds them against it.
    """
    prior = prior_count * library / library.mean()
    return np.asarray(np.log2((counts + prior[:, None]) / (library + 2 * prior)[:, None] * 1e6))
