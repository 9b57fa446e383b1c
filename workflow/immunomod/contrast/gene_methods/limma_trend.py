"""limma-trend: linear models of log2 expression, variances moderated towards a trend with the mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from immunomod.contrast.gene_methods.method import GeneFit, GeneMethod, GeneTask
from immunomod.contrast.gene_methods.shrinkage import cauchy_scale, posterior_mode
from immunomod.contrast.model import fit_linear, fit_variance_prior, inverse_trigamma
from immunomod.contrast.normalise import Floats

#: Variances from which a trend is fitted by so many terms: limma's ``fitFDist``.
TERMS_FROM = (3, 6, 30)


@dataclass(frozen=True)
class TrendedPrior:
    """Prior of residual variances: ``df`` (0 to infinity), and the ``variance`` expected of each gene."""

    df: float
    variance: Floats


def fit_trended_prior(variance: Floats, df: int, level: Floats) -> TrendedPrior:
    """Prior of variances whose logarithm follows a natural cubic spline of ``level``.

    limma's ``fitFDist`` with a covariate (Phipson et al., Annals of Applied Statistics 2016, 10:946; Smyth 2004): as
    many spline terms as :data:`TERMS_FROM` allows, knots at quantiles, zeros raised to 1e-5 of the median. With fewer
    than three variances, or one level for all, there is no trend.

    Parameters
    ----------
    variance
        One residual variance per gene, finite.
    df
        Their residual degrees of freedom.
    level
        Mean log2 expression of each gene.
    """
    terms = min(1 + sum(len(variance) >= least for least in TERMS_FROM), len(np.unique(level)))
    if terms < 2:
        prior = fit_variance_prior(variance, df)
        return TrendedPrior(prior.df, np.full(len(variance), prior.variance))
    positive = np.maximum(variance, 0.0)
    middle = float(np.median(positive))
    positive = np.maximum(positive, 1e-5 * (middle if middle > 0 else 1.0))
    centred = np.log(positive) - special.digamma(df / 2) + np.log(df / 2)
    basis = np.linalg.qr(natural_spline(level, terms))[0]
    trend = basis @ (basis.T @ centred)
    left = len(centred) - basis.shape[1]
    spread = float(((centred - trend) ** 2).sum() / left - special.polygamma(1, df / 2)) if left > 0 else 0.0
    if spread <= 0:
        return TrendedPrior(np.inf, np.exp(trend))
    half = float(inverse_trigamma(np.array(spread)))
    return TrendedPrior(2 * half, np.exp(trend + special.digamma(half) - np.log(half)))


def natural_spline(x: Floats, terms: int) -> Floats:
    """A basis of the natural cubic splines with ``terms`` parameters: len(x) x terms, the constant first.

    Boundary knots at the range, inner knots at evenly spaced quantiles, as R's ``ns(x, df=terms, intercept=TRUE)``,
    which spans the same functions. Truncated powers: Hastie, Tibshirani and Friedman, The Elements of Statistical
    Learning, equations 5.4 and 5.5.
    """
    z = (x - x.min()) / (x.max() - x.min())
    # ties may put two knots in one place, which are one
    knots = np.unique(np.quantile(z, np.linspace(0, 1, terms)))
    cubes = np.maximum(z[:, None] - knots, 0.0) ** 3
    slopes = (cubes[:, :-1] - cubes[:, -1:]) / (knots[-1] - knots[:-1])
    return np.column_stack([np.ones_like(z), z, *(slopes[:, k] - slopes[:, -1] for k in range(len(knots) - 2))])


def fit(task: GeneTask) -> GeneFit:
    """limma's ``lmFit`` and ``eBayes(trend=TRUE)`` of the stratum's log2 expression."""
    linear = fit_linear(task.log2, task.effect, task.nuisance)
    prior = fit_trended_prior(linear.variance, linear.df, task.log2.mean(axis=0))
    variance = linear.variance
    if np.isinf(prior.df):
        variance = prior.variance
    elif prior.df > 0:
        variance = (linear.df * linear.variance + prior.df * prior.variance) / (linear.df + prior.df)
    se = np.sqrt(variance * linear.unscaled)
    scale = np.full(len(se), cauchy_scale(linear.estimate, se))
    everywhere = np.ones(len(se), dtype=bool)
    return GeneFit(
        estimate=linear.estimate,
        se=se,
        df=float(min(linear.df + prior.df, linear.df * len(se))),
        tested=everywhere,
        counted=everywhere,
        shrunken=posterior_mode(linear.estimate, se, scale),
        prior_scale=scale,
    )


METHOD = GeneMethod(
    name="limma_trend",
    citation="Law et al. 2014, Genome Biology 15:R29, doi:10.1186/gb-2014-15-2-r29 (limma-trend); Smyth 2004",
    needs="replicates whose library sizes differ by less than about threefold",
    limits=(
        "a logarithm of small counts is biased where arms differ in depth, and does not know how sure a count is: "
        "genes with few counts, and libraries of very unequal size, are better left to a count model"
    ),
    run=fit,
)
