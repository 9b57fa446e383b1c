"""How much of the variation between responses lies between MSC sources, donors, data sets and cultures.

The responses of donors are normal around one mean with covariance ``sum(theta_k K_k)``: a component for each grouping
(``K = Z Z'``), and one for cultures, whose share in a donor's response falls with its number of cultures. The scatter
between cultures of one donor is evidence on that last component too; it enters as independent values with mean zero.
Donors' baselines are fixed effects that a response has cleared away, so what is left is the restricted likelihood of
all cultures; estimates maximise it (REML) with no component below zero.

A component is estimable only if its matrix is no combination of the others'. Where sources and data sets change
together, or every source has one donor, that is said and the component is left out: the others hold its part.

Intervals are by parametric bootstrap. Percentiles of re-estimated components are not used: a component whose estimate
is zero would be zero in all simulated studies too. Instead a limit is the value at which, in simulated studies, an
unbiased quadratic estimate (Rao's MINQUE with the fitted weights) comes out as far from it as it did, in 2.5% of them
(test inversion; Garthwaite and Buckland, Applied Statistics 1992, 41:159). The other components are held at their
estimates. With few groups intervals are wide: two sources leave one degree of freedom.

REML: Patterson and Thompson, Biometrika 1971, 58:545. MINQUE: Rao, Journal of Multivariate Analysis 1971, 1:257.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize

Floats = NDArray[np.float64]

#: Relative size below which a matrix is taken for a combination of others.
TOLERANCE = 1e-8
#: Largest variance that a limit is looked for at, as a multiple of all estimated components together.
HIGHEST = 1e4
BISECTIONS = 50


@dataclass(frozen=True)
class Component:
    """One variance component: its estimate and its interval (NaN where none could be given)."""

    variance: float
    low: float
    high: float


@dataclass(frozen=True)
class ErrorContrasts:
    """What is left of responses and scatter once the mean is taken out.

    ``values``: one per contrast. ``factors``: component -> matrix ``L`` (contrasts x levels) with ``L L'`` its
    covariance per unit of variance, estimable together, in the order that they were given.
    """

    values: Floats
    factors: dict[str, Floats]


def error_contrasts(
    response: Floats,
    groupings: Mapping[str, Sequence[object]],
    culture: str,
    unscaled: Floats,
    scatter: float,
    scatter_df: int,
) -> tuple[ErrorContrasts, dict[str, str]]:
    """Set up the restricted likelihood, and name the components that cannot be told from others.

    Parameters
    ----------
    response
        One per donor (and data set).
    groupings
        Component -> level of each response. Earlier ones go before later ones where they cannot be told apart.
    culture
        Name of the component of cultures. It is left out where ``scatter_df`` is 0.
    unscaled
        Variance of each response per unit of it.
    scatter, scatter_df
        Mean square between cultures of one donor, and its degrees of freedom.

    Returns
    -------
    The contrasts, and for each component that is left out the component (or components, joined by ``+``) that hold its
    part; ``""`` where it has one level only.
    """
    n = len(response)
    basis = linalg.null_space(np.ones((1, n))) if n > 1 else np.zeros((n, 0))
    factors: dict[str, Floats] = {}
    if scatter_df:
        factors[culture] = linalg.block_diag(basis.T * np.sqrt(unscaled), np.eye(scatter_df))
    left_out: dict[str, str] = {}
    for name, labels in groupings.items():
        codes = {label: number for number, label in enumerate(dict.fromkeys(labels))}
        if len(codes) < 2:
            left_out[name] = ""
            continue
        indicator = np.array([[float(codes[label] == number) for number in range(len(codes))] for label in labels])
        factor = np.vstack([basis.T @ indicator, np.zeros((scatter_df, len(codes)))])
        holders = _combination(factor @ factor.T, {one: L @ L.T for one, L in factors.items()})
        if holders:
            left_out[name] = "+".join(holders)
        else:
            factors[name] = factor
    # what of the scatter matters is its sum of squares: all of it stands in one value
    tail = np.zeros(scatter_df)
    tail[:1] = np.sqrt(scatter * scatter_df) if scatter_df else 0.0
    values = np.concatenate([basis.T @ response, tail])
    # equal responses leave rounding, which is no variance
    values[np.abs(values) < 1e-12 * np.abs(response).max(initial=0.0)] = 0.0
    return ErrorContrasts(values, factors), left_out


def _combination(matrix: Floats, known: Mapping[str, Floats]) -> list[str]:
    """Names of the matrices whose combination ``matrix`` is; none where it is not."""
    if not known:
        return []
    columns = np.column_stack([one.ravel() for one in known.values()])
    weights, *_ = np.linalg.lstsq(columns, matrix.ravel(), rcond=None)
    residual = matrix.ravel() - columns @ weights
    if np.linalg.norm(residual) > TOLERANCE * np.linalg.norm(matrix):
        return []
    return [name for name, weight in zip(known, weights, strict=True) if abs(weight) > TOLERANCE]


def reml(contrasts: ErrorContrasts) -> Floats:
    """Restricted maximum-likelihood estimates, one per component, none below zero."""
    matrices = [factor @ factor.T for factor in contrasts.factors.values()]
    y = contrasts.values
    scale = float(y @ y) / max(len(y), 1)
    if not matrices or scale <= 0:
        return np.zeros(len(matrices))
    y = y / np.sqrt(scale)
    size = np.array([max(np.trace(matrix) / len(y), 1e-12) for matrix in matrices])

    def loss(theta: Floats) -> tuple[float, Floats]:
        covariance = np.add.reduce([value * matrix for value, matrix in zip(theta, matrices, strict=True)])
        covariance = covariance + 1e-9 * (1 + np.trace(covariance) / len(y)) * np.eye(len(y))
        chol = linalg.cho_factor(covariance, lower=True)
        solved = linalg.cho_solve(chol, y)
        inverse = linalg.cho_solve(chol, np.eye(len(y)))
        value = np.log(np.diag(chol[0])).sum() + 0.5 * float(y @ solved)
        slope = [0.5 * float((inverse * matrix).sum() - solved @ matrix @ solved) for matrix in matrices]
        return float(value), np.array(slope)

    k = len(matrices)
    starts = [np.full(k, 1 / k), *(np.where(np.arange(k) == one, 0.9, 0.1 / k) for one in range(k))]
    found = [
        optimize.minimize(
            loss,
            start / size,
            jac=True,
            method="L-BFGS-B",
            bounds=[(0.0, None)] * k,
            options={"ftol": 1e-13, "gtol": 1e-9, "maxiter": 500},
        )
        for start in starts
    ]
    best = min(found, key=lambda fit: fit.fun)
    return np.asarray(best.x * scale)


def variance_components(
    contrasts: ErrorContrasts, confidence: float = 0.95, n_bootstrap: int = 2_000, seed: int = 1
) -> dict[str, Component]:
    """Estimate every component, with its interval.

    Parameters
    ----------
    contrasts
        From :func:`error_contrasts`.
    confidence
        Level of the intervals.
    n_bootstrap, seed
        Simulated studies.
    """
    estimates = reml(contrasts)
    names = list(contrasts.factors)
    total = float(estimates.sum())
    if total <= 0:
        return {name: Component(float(value), np.nan, np.nan) for name, value in zip(names, estimates, strict=True)}
    factors = list(contrasts.factors.values())
    forms = _quadratic_forms(factors, estimates)
    rng = np.random.default_rng(seed)
    noise = [rng.standard_normal((factor.shape[1], n_bootstrap)) for factor in factors]
    drawn = [factor @ values for factor, values in zip(factors, noise, strict=True)]
    result = {}
    for one, name in enumerate(names):
        others = [np.sqrt(estimates[k]) * drawn[k] for k in range(len(names)) if k != one]
        rest = np.add.reduce(others) if others else np.zeros_like(drawn[one])
        form = forms[one]
        observed = float(contrasts.values @ form @ contrasts.values)
        own, cross, fixed = (
            np.einsum("ib,ij,jb->b", a, form, b, optimize=True)
            for a, b in ((drawn[one], drawn[one]), (drawn[one], rest), (rest, rest))
        )
        low, high = _invert(observed, own, cross, fixed, (1 - confidence) / 2, HIGHEST * total)
        # the estimate is another statistic than the one that is inverted, and may lie outside by a little
        value = float(estimates[one])
        result[name] = Component(value, min(low, value), max(high, value))
    return result


def _quadratic_forms(factors: Sequence[Floats], weights: Floats) -> list[Floats]:
    """Matrices ``Q_k`` with ``E[y' Q_k y] = theta_k`` whatever the components are (MINQUE at these weights)."""
    matrices = [factor @ factor.T for factor in factors]
    covariance = np.add.reduce([value * matrix for value, matrix in zip(weights, matrices, strict=True)])
    ridge = 1e-6 * float(np.trace(covariance)) / len(covariance)
    inverse = np.linalg.inv(covariance + ridge * np.eye(len(covariance)))
    middle = [inverse @ matrix @ inverse for matrix in matrices]
    information = np.array([[float((a * b).sum()) for b in matrices] for a in middle])
    solved = np.linalg.pinv(information)
    return [
        np.asarray(np.add.reduce([value * matrix for value, matrix in zip(row, middle, strict=True)])) for row in solved
    ]


def _invert(
    observed: float, own: Floats, cross: Floats, fixed: Floats, tail: float, highest: float
) -> tuple[float, float]:
    """Limits of a component: the statistic at ``theta`` is ``theta own + 2 sqrt(theta) cross + fixed``."""

    def statistic(theta: float) -> Floats:
        return np.asarray(theta * own + 2 * np.sqrt(theta) * cross + fixed)

    def above(theta: float) -> float:
        return float((statistic(theta) >= observed).mean())

    def solve(share: float) -> float:
        """Smallest theta at which at least ``share`` of the simulated statistics reach the observed one."""
        if above(0.0) >= share:
            return 0.0
        if above(highest) < share:
            return highest
        left, right = 0.0, highest
        for _ in range(BISECTIONS):
            middle = (left + right) / 2 if left > 0 else right / 16
            left, right = (left, middle) if above(middle) >= share else (middle, right)
            if right <= highest * 1e-12 or (left > 0 and right - left < 1e-6 * right):
                break
        return right

    return solve(tail), solve(1 - tail)
