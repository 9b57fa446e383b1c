"""The linear model on replicate-level scores: least squares with moderated variances, and exact permutations."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, product
from math import comb

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Floats = NDArray[np.float64]

# degrees of freedom that the prior of variances may have, per residual degree of freedom
PRIOR_WEIGHT = 0.5


@dataclass(frozen=True)
class LinearFit:
    """Least squares of each column of a response on one effect and nuisance columns.

    Attributes
    ----------
    estimate
        Coefficient of the effect, one per response.
    variance
        Residual variance, one per response; NaN without residual degrees of freedom.
    df
        Residual degrees of freedom.
    unscaled
        Variance of the estimate per unit of residual variance.
    """

    estimate: Floats
    variance: Floats
    df: int
    unscaled: float


def fit_linear(response: Floats, effect: Floats, nuisance: Floats) -> LinearFit:
    """Fit ``response`` (units x responses) on ``effect`` (units) and ``nuisance`` (units x terms, independent).

    The effect's regressor is cleared of the nuisance terms first (Frisch-Waugh-Lovell), so that a change of its sign
    changes the sign of the estimate and nothing else, to the last bit.
    """
    basis = np.linalg.qr(nuisance)[0]
    cleared = cleared_regressor(effect, nuisance)
    unscaled = 1 / float(cleared @ cleared)
    estimate = (cleared @ response) * unscaled
    df = len(effect) - nuisance.shape[1] - 1
    residual = response - basis @ (basis.T @ response) - np.outer(cleared, estimate)
    variance = (residual**2).sum(axis=0) / df if df > 0 else np.full(response.shape[1], np.nan)
    return LinearFit(estimate=estimate, variance=variance, df=df, unscaled=unscaled)


def cleared_regressor(effect: Floats, nuisance: Floats) -> Floats:
    """What of ``effect`` the ``nuisance`` terms do not span: the weights of units in an estimate, but for a factor."""
    basis = np.linalg.qr(nuisance)[0]
    return np.asarray(effect - basis @ (basis.T @ effect))


def residuals(response: Floats, effect: Floats, nuisance: Floats) -> Floats:
    """What :func:`fit_linear` leaves unexplained: units x responses."""
    basis = np.linalg.qr(np.column_stack([nuisance, effect]))[0]
    return np.asarray(response - basis @ (basis.T @ response))


def variance_of_slopes(
    response: Floats, effect: Floats, nuisance: Floats, blocks: NDArray[np.object_]
) -> tuple[Floats, float]:
    """Variance of a trend's estimate from how much the slopes of the blocks differ, and its degrees of freedom.

    Donors respond to a dose to different degrees, each all along its line. The residuals of one common slope hold that
    difference only in part, for three doses less than half of it, with more degrees of freedom than donors: with those,
    95% intervals of a slope held in 84% to 86% of simulated studies (``benchmarks/calibration``, experiment "trends").
    Here a donor counts once, as in the analysis of summary measures (Matthews, Altman, Campbell and Royston, BMJ 1990,
    300:230). The estimate is the mean of the slopes, weighted by the information in each; the variance is that of a
    weighted mean of slopes that vary alike.

    Parameters
    ----------
    response
        Units x responses.
    effect, nuisance
        Regressor (units) and other terms, as of :func:`fit_linear`; a mean per block among them.
    blocks
        The block of each unit; two or more in which the effect varies.
    """
    fit = fit_linear(response, effect, nuisance)
    basis = np.linalg.qr(nuisance)[0]
    cleared = cleared_regressor(effect, nuisance)
    residual = response - basis @ (basis.T @ response) - np.outer(cleared, fit.estimate)
    member = (blocks[:, None] == np.unique(blocks)).astype(np.float64)
    weight = member.T @ cleared**2 * fit.unscaled
    deviation = member.T @ (cleared[:, None] * residual) * fit.unscaled
    share = weight @ weight
    expected = float((weight**2 * (1 - 2 * weight + share)).sum())
    return np.asarray((deviation**2).sum(axis=0) * share / expected), float((weight > 0).sum() - 1)


@dataclass(frozen=True)
class VariancePrior:
    """Scaled inverse chi-squared prior of residual variances: ``df`` (0 to infinity) and ``variance``."""

    df: float
    variance: float


def fit_variance_prior(variance: Floats, df: float) -> VariancePrior:
    """Estimate the prior from a set of sample variances by moments of their logarithm.

    Smyth, Statistical Applications in Genetics and Molecular Biology 2004, 3:3, section 6.2; agrees with limma's
    ``fitFDist``, zeros included (they are raised to 1e-5 of the median). With fewer than two positive variances nothing
    can be learned, and the prior has no weight.
    """
    usable = variance[np.isfinite(variance) & (variance > -1e-15)]
    if len(usable) < 2 or df < 1 or not (usable > 0).any():
        return VariancePrior(df=0.0, variance=float(usable.mean()) if len(usable) else np.nan)
    usable = np.maximum(usable, 0.0)
    middle = np.median(usable)
    usable = np.maximum(usable, 1e-5 * (middle if middle > 0 else 1.0))
    centred = np.log(usable) - special.digamma(df / 2) + np.log(df / 2)
    mean, spread = centred.mean(), centred.var(ddof=1) - special.polygamma(1, df / 2)
    if spread <= 0:
        return VariancePrior(df=np.inf, variance=float(usable.mean()))
    half = float(inverse_trigamma(np.array(spread)))
    return VariancePrior(df=2 * half, variance=float(np.exp(mean + special.digamma(half) - np.log(half))))


def inverse_trigamma(values: Floats) -> Floats:
    """Inverse of the trigamma function by Newton's method on its reciprocal, as in the appendix of Smyth 2004.

    The reciprocal is convex and nearly linear, so that the steps, all upwards from below, cannot overshoot.
    """
    root = np.asarray(0.5 + 1 / values)
    for _ in range(50):
        height = special.polygamma(1, root)
        step = height * (1 - height / values) / special.polygamma(2, root)
        root = root + step
        if np.max(-step / root) < 1e-12:
            break
    return np.where(values > 1e7, 1 / np.sqrt(values), np.where(values < 1e-6, 1 / values, root))


def moderate(variance: Floats, df: float, prior: VariancePrior) -> tuple[Floats, float]:
    """Posterior variances and their degrees of freedom, limma's ``squeezeVar``.

    The total degrees of freedom never exceed those of all variances pooled.
    """
    if prior.df == 0:
        return variance, df
    if np.isinf(prior.df):
        squeezed = np.full_like(variance, prior.variance)
    else:
        squeezed = (df * variance + prior.df * prior.variance) / (df + prior.df)
    return squeezed, float(min(df + prior.df, df * np.isfinite(variance).sum()))


def moderated_variance(variance: Floats, df: int) -> tuple[Floats, float]:
    """Residual variances steadied by those of the other responses, where no sizes of effects are known.

    limma's moderation with two restraints: the prior has at most half of the data's degrees of freedom, and a variance
    may be raised towards the prior and never lowered below its own value. Where there are effects,
    :class:`immunomod.contrast.moderation.LikeEffects` is better calibrated.

    Returns
    -------
    The variances, and the degrees of freedom that all of them have.
    """
    prior = fit_variance_prior(variance, df)
    restrained = VariancePrior(df=min(prior.df, PRIOR_WEIGHT * df), variance=prior.variance)
    moderated, total = moderate(variance, df, restrained)
    return np.maximum(moderated, variance), total


def sign_flip_p(differences: Floats, max_permutations: int, seed: int) -> Floats:
    """Two-sided p of the mean of paired differences under all flips of their signs.

    Parameters
    ----------
    differences
        Pairs x responses.
    max_permutations
        Beyond this many flips, as many are drawn at random and p is (b + 1) / (B + 1).

    Returns
    -------
    One p per response; with n pairs none is below 2 / 2^n.
    """
    n = len(differences)
    if 2**n <= max_permutations:
        signs = np.array(list(product((1.0, -1.0), repeat=n)))
        return _share_as_extreme(signs @ differences, differences.sum(axis=0), drawn=False)
    signs = np.random.default_rng(seed).choice((1.0, -1.0), size=(max_permutations, n))
    return _share_as_extreme(signs @ differences, differences.sum(axis=0), drawn=True)


def relabelling_p(response: Floats, in_test: NDArray[np.bool_], max_permutations: int, seed: int) -> Floats:
    """Two-sided p of the difference of two groups' means under all exchanges of their labels.

    ``response`` is units x responses; beyond ``max_permutations`` labellings as many are drawn at random and p is
    (b + 1) / (B + 1).
    """
    n, n_test = len(in_test), int(in_test.sum())

    def difference(labels: Floats) -> Floats:
        return np.asarray(labels @ response / n_test - (1 - labels) @ response / (n - n_test))

    observed = difference(in_test.astype(np.float64))
    if comb(n, n_test) <= max_permutations:
        labels = np.zeros((comb(n, n_test), n))
        for row, chosen in enumerate(combinations(range(n), n_test)):
            labels[row, list(chosen)] = 1
        return _share_as_extreme(difference(labels), observed, drawn=False)
    order = np.random.default_rng(seed).random((max_permutations, n)).argsort(axis=1)
    return _share_as_extreme(difference((order < n_test).astype(np.float64)), observed, drawn=True)


def _share_as_extreme(permuted: Floats, observed: Floats, drawn: bool) -> Floats:
    # rounding must not push a permutation that equals the observed value below it
    extreme = np.abs(permuted) >= np.abs(observed) * (1 - 1e-9) - 1e-12
    hits = extreme.sum(axis=0)
    return np.asarray((hits + 1) / (len(permuted) + 1) if drawn else hits / len(permuted))


def hedges_correction(df: float) -> float:
    """Factor that makes a standardised mean difference unbiased: J(df), Hedges 1981, exact form."""
    return (
        float(np.exp(special.gammaln(df / 2) - special.gammaln((df - 1) / 2)) * np.sqrt(2 / df)) if df > 1 else np.nan
    )


def benjamini_hochberg(p_values: Floats) -> Floats:
    """False discovery rates; NaN stays NaN and does not count."""
    fdr = np.full(len(p_values), np.nan)
    known = np.isfinite(p_values)
    if known.any():
        fdr[known] = stats.false_discovery_control(p_values[known])
    return fdr
