"""PyDESeq2's fits for all genes at once.

PyDESeq2 fits one gene after another, a hundred microseconds to some milliseconds of Python each. Its steps are an
interface (:class:`pydeseq2.inference.Inference`) made to be replaced; this replaces them by the same equations on
arrays of genes, and leaves everything else (trend, prior, Cook's distances, refits, independent filtering) to it.

Two things are better than in the steps replaced: a dispersion is taken to the maximum of its likelihood, where theirs
stops as soon as the gradient is small, which for a gene without overdispersion is far from the boundary; and nothing
here has a preferred sign, so that exchanging the arms changes the sign of every result and not one digit of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydeseq2.default_inference import DefaultInference
from scipy import special

Floats = NDArray[np.float64]
Optimizer = Literal["BFGS", "L-BFGS-B"]
RIDGE = 1e-6
#: Width of the interval that holds a logarithm of a dispersion when the search ends.
LOG_DISPERSION_TOLERANCE = 1e-7
SHRINK_TOLERANCE = 1e-8
MAX_SHRINK_STEPS = 200


class AllGenes(DefaultInference):
    """Fits of arrays of genes. Counts and means are units x genes, coefficients genes x terms.

    Methods have the arguments and returns of :class:`pydeseq2.inference.Inference`.
    """

    def __init__(self) -> None:
        super().__init__(n_cpus=1)

    def lin_reg_mu(self, counts: Floats, size_factors: Floats, design_matrix: Floats, min_mu: float) -> Floats:
        """Means by least squares, at least ``min_mu``."""
        scaled = counts / size_factors[:, None]
        fitted = design_matrix @ np.linalg.lstsq(design_matrix, scaled, rcond=None)[0]
        return np.asarray(np.maximum(size_factors[:, None] * fitted, min_mu))

    def irls(
        self,
        counts: Floats,
        size_factors: Floats,
        design_matrix: Floats,
        disp: Floats,
        min_mu: float,
        beta_tol: float,
        min_beta: float = -30,
        max_beta: float = 30,
        optimizer: Optimizer = "L-BFGS-B",
        maxiter: int = 250,
    ) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
        """Coefficients by iterated least squares; genes that diverge go to the optimiser of the original."""
        n_genes, terms = counts.shape[1], design_matrix.shape[1]
        counts, disp = np.asarray(counts, dtype=np.float64), np.asarray(disp, dtype=np.float64)
        size = size_factors[:, None]
        beta = _start(counts, size, design_matrix)
        products = _products(design_matrix)
        constant = _likelihood_constant(counts, disp)
        deviance = np.full(n_genes, 1000.0)
        converged = np.ones(n_genes, dtype=bool)
        lost = np.zeros(n_genes, dtype=bool)
        active = np.arange(n_genes)
        for _ in range(maxiter - 1):
            if not len(active):
                break
            y, alpha = counts[:, active], disp[active]
            mu = np.maximum(size * np.exp(design_matrix @ beta[active].T), min_mu)
            weight = mu / (1.0 + mu * alpha)
            response = np.log(mu / size) + (y - mu) / mu
            new = _solve(_gram(weight, products, terms, RIDGE), (weight * response).T @ design_matrix)
            diverged = ~(np.abs(new) <= max_beta).all(axis=1)
            lost[active[diverged]] = True
            beta[active] = new
            mu = np.maximum(size * np.exp(design_matrix @ np.clip(new, -max_beta, max_beta).T), min_mu)
            now = -2 * (constant[active] + _likelihood_of_means(y, mu, alpha))
            done = np.abs(now - deviance[active]) / (np.abs(now) + 0.1) <= beta_tol
            deviance[active] = now
            active = active[~done & ~diverged]
        lost[active] = True
        mu = size * np.exp(design_matrix @ np.where(lost[:, None], 0.0, beta).T)
        hat = _hat_diagonal(np.maximum(mu, min_mu), disp, design_matrix, products)
        if lost.any():
            options = (min_mu, beta_tol, min_beta, max_beta, optimizer, maxiter)
            again = super().irls(counts[:, lost], size_factors, design_matrix, disp[lost], *options)
            beta[lost], mu[:, lost], hat[:, lost], converged[lost] = again
        return beta, mu, hat, converged

    def alpha_mle(
        self,
        counts: Floats,
        design_matrix: Floats,
        mu: Floats,
        alpha_hat: Floats,
        min_disp: float,
        max_disp: float,
        prior_disp_var: float | None = None,
        cr_reg: bool = True,
        prior_reg: bool = False,
        optimizer: Optimizer = "L-BFGS-B",
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """Dispersions: the maximum downhill of ``alpha_hat`` of the adjusted profile likelihood, with its prior."""
        counts, mu = np.asarray(counts, dtype=np.float64), np.asarray(mu, dtype=np.float64)
        start = np.log(np.asarray(alpha_hat, dtype=np.float64))
        products, terms = _products(design_matrix), design_matrix.shape[1]

        def slope(log_alpha: Floats, genes: NDArray[np.intp]) -> Floats:
            y, mean, alpha = counts[:, genes], mu[:, genes], np.exp(log_alpha)
            inverse = 1 / alpha
            sums = special.digamma(inverse) - special.digamma(y + inverse) + np.log1p(mean * alpha)
            total = -inverse * (sums + (y - mean) / (mean + inverse)).sum(axis=0)
            if cr_reg:
                weight = mean / (1 + mean * alpha)
                information = _gram(weight, products, terms, 0.0)
                change = _gram(-(weight**2), products, terms, 0.0)
                total += 0.5 * alpha * np.trace(np.linalg.solve(information, change), axis1=1, axis2=2)
            if prior_reg and prior_disp_var is not None:
                total += (log_alpha - start[genes]) / prior_disp_var
            return np.asarray(total)

        found = _descend(slope, start, float(np.log(min_disp)), float(np.log(max_disp)))
        return np.exp(found), np.ones(len(found), dtype=bool)

    def wald_test(
        self,
        design_matrix: Floats,
        disp: Floats,
        lfc: Floats,
        mu: Floats,
        ridge_factor: Floats,
        contrast: Floats,
        lfc_null: Any,
        alt_hypothesis: Any = None,
    ) -> tuple[Floats, Floats, Floats]:
        """Two-sided Wald tests; one-sided ones go to the original."""
        if alt_hypothesis is not None:
            result: tuple[Floats, Floats, Floats] = super().wald_test(
                design_matrix, disp, lfc, mu, ridge_factor, contrast, lfc_null, alt_hypothesis
            )
            return result
        known = np.isfinite(mu).all(axis=0) & np.isfinite(disp)
        information = _gram(mu[:, known] / (1 + mu[:, known] * disp[known]), _products(design_matrix), len(contrast), 0)
        solved = _solve(information + ridge_factor, np.broadcast_to(contrast, (int(known.sum()), len(contrast))))
        se = np.full(len(disp), np.nan)
        se[known] = np.sqrt(np.einsum("gj,gjk,gk->g", solved, information, solved))
        statistic = ((lfc - lfc_null) @ contrast) / se
        return np.asarray(2 * special.ndtr(-np.abs(statistic))), np.asarray(statistic), se

    def lfc_shrink_nbinom_glm(
        self,
        design_matrix: Floats,
        counts: Floats,
        size: Floats,
        offset: Floats,
        prior_no_shrink_scale: float,
        prior_scale: float,
        optimizer: str,
        shrink_index: int,
    ) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Posterior modes under a Cauchy prior of one coefficient (Zhu, Ibrahim and Love 2019).

        The mode is looked for from the unshrunken estimate and from zero; of two modes the likelier is taken.
        """
        counts, size = np.asarray(counts, dtype=np.float64), np.asarray(size, dtype=np.float64)
        model = _Shrinkage(design_matrix, counts, size, offset, prior_no_shrink_scale, prior_scale, shrink_index)
        start = _start(counts, np.exp(offset)[:, None], design_matrix)
        from_zero = start.copy()
        from_zero[:, shrink_index] = 0.0
        fits = [model.climb(start), model.climb(from_zero)]
        first, second = (model.loss(beta, np.arange(len(size))) for beta, _ in fits)
        # a tie goes to the mode nearer to zero, whatever rounding says
        take_second = second <= first + 1e-9
        beta = np.where(take_second[:, None], fits[1][0], fits[0][0])
        converged = np.where(take_second, fits[1][1], fits[0][1])
        inverse = np.linalg.inv(model.hessian(beta, np.arange(len(size)), exact=True))
        return np.asarray(beta), np.asarray(inverse), np.asarray(converged)


class _Shrinkage:
    """The penalised likelihood of all genes; ``beta`` is genes x terms."""

    def __init__(
        self, design: Floats, counts: Floats, size: Floats, offset: Floats, wide: float, scale: float, index: int
    ) -> None:
        self.design, self.counts, self.size, self.offset = design, counts, size, offset
        self.wide, self.scale, self.index = wide, scale, index
        self.products = _products(design)

    def loss(self, beta: Floats, genes: NDArray[np.intp]) -> Floats:
        y, size = self.counts[:, genes], self.size[genes]
        linear = self.design @ beta.T
        likelihood = (y * linear - (y + size) * np.logaddexp(linear + self.offset[:, None], np.log(size))).sum(axis=0)
        others = np.delete(beta, self.index, axis=1)
        prior = (others**2).sum(axis=1) / (2 * self.wide**2) + np.log1p((beta[:, self.index] / self.scale) ** 2)
        return np.asarray(prior - likelihood)

    def gradient(self, beta: Floats, genes: NDArray[np.intp]) -> Floats:
        y, size = self.counts[:, genes], self.size[genes]
        linear = self.design @ beta.T + self.offset[:, None]
        of_likelihood = (y - (y + size) * special.expit(linear - np.log(size))).T @ self.design
        prior = beta / self.wide**2
        effect = beta[:, self.index]
        prior[:, self.index] = 2 * effect / (self.scale**2 + effect**2)
        return np.asarray(prior - of_likelihood)

    def hessian(self, beta: Floats, genes: NDArray[np.intp], exact: bool) -> Floats:
        """Second derivatives; not ``exact``: with the prior's curvature raised to a bound that is positive."""
        y, size = self.counts[:, genes], self.size[genes]
        share = special.expit(self.design @ beta.T + self.offset[:, None] - np.log(size))
        matrix = _gram((y + size) * share * (1 - share), self.products, beta.shape[1], 1 / self.wide**2)
        effect = beta[:, self.index]
        squared = self.scale**2 + effect**2
        curvature = 2 * (self.scale**2 - effect**2) / squared**2
        if not exact:
            curvature = np.where(curvature > 0, curvature, 2 / squared)
        matrix[:, self.index, self.index] += curvature - 1 / self.wide**2
        return matrix

    def climb(self, beta: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Damped Newton steps."""
        beta = beta.copy()
        active = np.arange(len(beta))
        for _ in range(MAX_SHRINK_STEPS):
            here = self.loss(beta[active], active)
            step = _solve(self.hessian(beta[active], active, exact=False), -self.gradient(beta[active], active))
            factor = np.ones(len(active))
            for _ in range(30):
                worse = self.loss(beta[active] + factor[:, None] * step, active) > here + 1e-10 * np.abs(here)
                if not worse.any():
                    break
                factor[worse] /= 2
            beta[active] += factor[:, None] * step
            active = active[np.abs(factor[:, None] * step).max(axis=1) > SHRINK_TOLERANCE]
            if not len(active):
                break
        converged = np.ones(len(beta), dtype=bool)
        converged[active] = False
        return beta, converged


def _start(counts: Floats, size: Floats, design: Floats) -> Floats:
    """Least squares of logarithms: genes x terms."""
    q, r = np.linalg.qr(design)
    return np.ascontiguousarray(np.linalg.solve(r, q.T @ np.log(counts / size + 0.1)).T)


def _products(design: Floats) -> Floats:
    """Products of every two terms: units x terms squared."""
    return np.asarray((design[:, :, None] * design[:, None, :]).reshape(len(design), -1))


def _gram(weight: Floats, products: Floats, terms: int, ridge: float) -> Floats:
    """``X' W X`` of every gene, genes x terms x terms; ``weight`` is units x genes."""
    matrix = (weight.T @ products).reshape(-1, terms, terms)
    matrix[:, np.arange(terms), np.arange(terms)] += ridge
    return np.asarray(matrix)


def _solve(matrices: Floats, right: Floats) -> Floats:
    return np.asarray(np.linalg.solve(matrices, right[:, :, None])[:, :, 0])


def _likelihood_constant(counts: Floats, alpha: Floats) -> Floats:
    """The part of a gene's log-likelihood that its means do not enter."""
    inverse = 1 / alpha
    binomial = special.gammaln(counts + inverse) - special.gammaln(counts + 1) - special.gammaln(inverse)
    return np.asarray((binomial - inverse * np.log(alpha)).sum(axis=0))


def _likelihood_of_means(counts: Floats, mu: Floats, alpha: Floats) -> Floats:
    inverse = 1 / alpha
    return np.asarray((counts * np.log(mu) - (counts + inverse) * np.log(mu + inverse)).sum(axis=0))


def _hat_diagonal(mu: Floats, alpha: Floats, design: Floats, products: Floats) -> Floats:
    """Leverages, units x genes."""
    weight = mu / (1.0 + mu * alpha)
    inverse = np.linalg.inv(_gram(weight, products, design.shape[1], RIDGE))
    return np.asarray(weight * (products @ inverse.reshape(len(inverse), -1).T))


def _descend(slope: Callable[[Floats, NDArray[np.intp]], Floats], start: Floats, low: float, high: float) -> Floats:
    """From each start downhill to a root of the slope between the bounds, or to the bound; Chandrupatla 1997."""
    x = np.clip(start, low, high)
    genes = np.arange(len(x))
    at_start = slope(x, genes)
    direction = -np.sign(at_start)
    # a first interval: steps that double until the slope changes its sign
    near, near_slope, far = x.copy(), at_start.copy(), x.copy()
    far_slope = at_start.copy()
    width = np.ones(len(x))
    open_ = genes[direction != 0]
    while len(open_):
        far[open_] = np.clip(near[open_] + direction[open_] * width[open_], low, high)
        far_slope[open_] = slope(far[open_], open_)
        downhill = np.sign(far_slope[open_]) == -direction[open_]
        moving = open_[downhill & (far[open_] > low) & (far[open_] < high)]
        near[moving], near_slope[moving] = far[moving], far_slope[moving]
        width[moving] *= 2
        open_ = moving
    result = far.copy()
    between = genes[np.sign(far_slope) * np.sign(near_slope) < 0]
    result[between] = _roots(slope, between, near[between], near_slope[between], far[between], far_slope[between])
    return result


def _roots(
    slope: Callable[[Floats, NDArray[np.intp]], Floats],
    genes: NDArray[np.intp],
    a: Floats,
    slope_a: Floats,
    b: Floats,
    slope_b: Floats,
) -> Floats:
    """Roots between ``a`` and ``b``, where slopes differ in sign: bisection, or inverse quadratic where that fits."""
    a, b, fa, fb = a.copy(), b.copy(), slope_a.copy(), slope_b.copy()
    t = fa / (fa - fb)
    result = np.where(np.abs(fa) < np.abs(fb), a, b)
    rows = np.arange(len(genes))
    for _ in range(100):
        if not len(rows):
            break
        t = np.clip(t, 0.01, 0.99)
        x = a + t * (b - a)
        fx = slope(x, genes[rows])
        same = np.sign(fx) == np.sign(fa)
        c, fc = np.where(same, a, b), np.where(same, fa, fb)
        b, fb = np.where(same, b, a), np.where(same, fb, fa)
        a, fa = x, fx
        result[rows] = np.where(np.abs(fa) < np.abs(fb), a, b)
        going = (np.abs(b - a) > LOG_DISPERSION_TOLERANCE) & (fa != 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            xi, phi = (a - b) / (c - b), (fa - fb) / (fc - fb)
            fits = (phi**2 < xi) & ((1 - phi) ** 2 < 1 - xi)
            quadratic = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
        t = np.where(fits & np.isfinite(quadratic), quadratic, 0.5)
        a, b, fa, fb, t, rows = (values[going] for values in (a, b, fa, fb, t, rows))
    return np.asarray(result)
