"""Least squares, moderation, permutations: against limma, statsmodels, scipy and brute force."""

from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats
from scipy.special import gamma, polygamma
from statsmodels.stats.multitest import multipletests

from immunomod.contrast.model import (
    VariancePrior,
    benjamini_hochberg,
    fit_linear,
    fit_variance_prior,
    hedges_correction,
    inverse_trigamma,
    moderate,
    moderated_variance,
    relabelling_p,
    residuals,
    sign_flip_p,
    variance_of_slopes,
)

REFERENCE = Path(__file__).parent / "reference"


@pytest.fixture(scope="module")
def scores() -> np.ndarray:
    return pd.read_csv(REFERENCE / "scores.tsv", sep="\t").to_numpy().T


@pytest.fixture(scope="module")
def limma() -> pd.DataFrame:
    return pd.read_csv(REFERENCE / "limma.tsv", sep="\t")


def paired_design(n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat([-0.5, 0.5], n), np.tile(np.eye(n), (2, 1))


def test_fit_and_moderation_equal_limma(scores, limma):
    fit = fit_linear(scores, *paired_design(4))
    np.testing.assert_allclose(fit.estimate, limma["estimate"], rtol=1e-10)
    np.testing.assert_allclose(fit.variance, limma["sigma2"], rtol=1e-10)
    prior = fit_variance_prior(fit.variance, fit.df)
    np.testing.assert_allclose([prior.df, prior.variance], limma[["df_prior", "s2_prior"]].iloc[0], rtol=1e-6)
    variance, df = moderate(fit.variance, fit.df, prior)
    np.testing.assert_allclose(variance, limma["s2_post"], rtol=1e-6)
    np.testing.assert_allclose(df, limma["df_total"].iloc[0], rtol=1e-6)
    t = fit.estimate / np.sqrt(variance * fit.unscaled)
    np.testing.assert_allclose(t, limma["t"], rtol=1e-6)
    np.testing.assert_allclose(2 * stats.t.sf(abs(t), df), limma["p_value"], rtol=1e-5)


def test_prior_is_infinitely_sure_where_variances_spread_less_than_chance():
    reference = pd.read_csv(REFERENCE / "limma_tight.tsv", sep="\t").iloc[0]
    prior = fit_variance_prior(np.array([1.0, 1.1, 0.9, 1.05]), 10)
    assert np.isinf(prior.df) and np.isinf(reference["df2"])
    assert prior.variance == pytest.approx(reference["scale"])
    variance, df = moderate(np.array([1.0, 2.0]), 3, VariancePrior(np.inf, 1.5))
    np.testing.assert_allclose(variance, 1.5)
    assert df == 6


@pytest.mark.parametrize("variance", [[], [1.0], [np.nan, 2.0], [0.0, 0.0]])
def test_too_few_variances_give_no_prior(variance):
    assert fit_variance_prior(np.array(variance, dtype=float), 3).df == 0


def test_inverse_trigamma_inverts_trigamma():
    values = np.geomspace(1e-5, 1e6, 40)
    np.testing.assert_allclose(polygamma(1, inverse_trigamma(values)), values, rtol=1e-9)


def test_own_moderation_is_restrained(scores):
    fit = fit_linear(scores, *paired_design(4))
    variance, df = moderated_variance(fit.variance, fit.df)
    assert (variance >= fit.variance).all()
    assert (variance > fit.variance).any()
    assert fit.df < df <= 2 * fit.df


def test_least_squares_equals_statsmodels_with_covariates():
    rng = np.random.default_rng(0)
    response, effect = rng.normal(size=(9, 3)), np.repeat([0.5, -0.5], [4, 5])
    nuisance = np.column_stack([np.ones(9), rng.normal(size=9), np.tile([0, 0, 1], 3)])
    fit = fit_linear(response, effect, nuisance)
    for column in range(3):
        expected = sm.OLS(response[:, column], np.column_stack([effect, nuisance])).fit()
        assert fit.estimate[column] == pytest.approx(expected.params[0])
        assert fit.variance[column] == pytest.approx(expected.scale)
        assert np.sqrt(fit.variance[column] * fit.unscaled) == pytest.approx(expected.bse[0])
    assert fit.df == 5


def test_paired_fit_is_the_paired_t_test():
    rng = np.random.default_rng(1)
    response = rng.normal(size=(10, 2))
    fit = fit_linear(response, *paired_design(5))
    expected = stats.ttest_rel(response[5:], response[:5])
    np.testing.assert_allclose(fit.estimate / np.sqrt(fit.variance * fit.unscaled), expected.statistic)


def test_residuals_are_what_the_fit_leaves():
    rng = np.random.default_rng(9)
    response, design = rng.normal(size=(8, 3)), paired_design(4)
    fit, left = fit_linear(response, *design), residuals(response, *design)
    np.testing.assert_allclose((left**2).sum(axis=0) / fit.df, fit.variance)
    np.testing.assert_allclose(np.column_stack(design).T @ left, 0, atol=1e-12)


def test_negated_regressor_flips_the_estimate_to_the_last_bit():
    rng = np.random.default_rng(2)
    response, (effect, nuisance) = rng.normal(size=(8, 20)), paired_design(4)
    fit, flipped = fit_linear(response, effect, nuisance), fit_linear(response, -effect, nuisance)
    assert (fit.estimate == -flipped.estimate).all()
    assert (fit.variance == flipped.variance).all()


@pytest.mark.parametrize("n", [2, 3, 4, 6, 8])
def test_exact_p_is_uniform_on_its_grid_over_all_flips(n):
    """Its null: the signs of the donors' changes are as likely as their opposites, however strong the changes are."""
    differences = np.random.default_rng(n).normal(5, 1, n)
    flipped = np.array(list(product([1, -1], repeat=n))) * differences
    p_values = sign_flip_p(flipped.T, 2**n, seed=0)
    # 2^(n-1) values, each from a pattern and its mirror image
    expected = np.repeat(np.arange(1, 2 ** (n - 1) + 1), 2) / 2 ** (n - 1)
    np.testing.assert_allclose(np.sort(p_values), expected)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_sign_flips_equal_brute_force_and_have_their_floor(n):
    differences = np.random.default_rng(n).normal(1, 1, size=(n, 4))
    expected = []
    for column in differences.T:
        observed = abs(column.mean())
        flips = [abs(np.mean(np.array(signs) * column)) for signs in product([1, -1], repeat=n)]
        expected.append(np.mean([flip >= observed - 1e-12 for flip in flips]))
    p_values = sign_flip_p(differences, 10_000, seed=0)
    np.testing.assert_allclose(p_values, expected)
    assert sign_flip_p(np.ones((n, 1)), 10_000, seed=0)[0] == 2 / 2**n


def test_relabelling_equals_brute_force_and_scipy():
    rng = np.random.default_rng(3)
    response, in_test = rng.normal(size=(7, 3)), np.array([1, 0, 1, 0, 0, 1, 0], dtype=bool)
    p_values = relabelling_p(response, in_test, 10_000, seed=0)
    for column in range(3):
        values = response[:, column]
        observed = abs(values[in_test].mean() - values[~in_test].mean())
        hits = []
        for chosen in combinations(range(7), 3):
            rest = np.setdiff1d(range(7), chosen)
            hits.append(abs(values[list(chosen)].mean() - values[rest].mean()) >= observed - 1e-12)
        assert p_values[column] == pytest.approx(np.mean(hits))
        independent = stats.permutation_test(
            (values[in_test], values[~in_test]), lambda x, y: abs(x.mean() - y.mean()), alternative="greater"
        )
        assert p_values[column] == pytest.approx(independent.pvalue)


def test_drawn_permutations_are_never_zero_and_near_the_exact_ones():
    differences = np.random.default_rng(4).normal(0.4, 1, size=(12, 1))
    exact, drawn = sign_flip_p(differences, 2**12, seed=0)[0], sign_flip_p(differences, 4000, seed=1)[0]
    assert drawn == pytest.approx(exact, abs=0.03)
    assert sign_flip_p(np.ones((40, 1)), 99, seed=0)[0] == pytest.approx(1 / 100)
    response = np.concatenate([np.zeros((20, 1)), np.ones((20, 1))])
    assert relabelling_p(response, np.arange(40) >= 20, 99, seed=0)[0] == pytest.approx(1 / 100)


def test_permutations_are_seeded():
    differences = np.random.default_rng(5).normal(size=(20, 3))
    assert (sign_flip_p(differences, 500, seed=8) == sign_flip_p(differences, 500, seed=8)).all()


@pytest.mark.parametrize("df", [2, 3, 6, 20])
def test_hedges_correction_is_the_gamma_form_and_near_its_approximation(df):
    assert hedges_correction(df) == pytest.approx(gamma(df / 2) / (np.sqrt(df / 2) * gamma((df - 1) / 2)))
    assert hedges_correction(df) == pytest.approx(1 - 3 / (4 * df - 1), abs=0.01)


def test_benjamini_hochberg_equals_statsmodels_and_passes_over_missing_values():
    p_values = np.array([0.01, np.nan, 0.04, 0.03, 0.5, np.nan])
    known = np.isfinite(p_values)
    fdr = benjamini_hochberg(p_values)
    np.testing.assert_allclose(fdr[known], multipletests(p_values[known], method="fdr_bh")[1])
    assert np.isnan(fdr[~known]).all()


def test_slopes_of_donors_with_two_values_are_pairs():
    rng = np.random.default_rng(3)
    response, effect = rng.normal(size=(10, 4)), np.tile([0.0, 2.0], 5)
    blocks = np.repeat(np.arange(5), 2)
    variance, df = variance_of_slopes(response, effect, np.eye(5)[blocks], blocks)
    fit = fit_linear(response, effect, np.eye(5)[blocks])
    np.testing.assert_allclose(variance, fit.variance * fit.unscaled)
    assert df == fit.df == 4


def test_slopes_of_donors_are_summary_measures():
    """At the same doses the test is the t test of the donors' own slopes."""
    rng = np.random.default_rng(4)
    dose, donor = np.tile([0.0, 0.1, 1.0], 4), np.repeat(np.arange(4), 3)
    response = rng.normal(size=(12, 3)) + np.outer(dose, [0.0, 1.0, 2.0])
    variance, df = variance_of_slopes(response, dose, np.eye(4)[donor], donor)
    slopes = np.array([np.polyfit(dose[:3], response[donor == one], 1)[0] for one in range(4)])
    np.testing.assert_allclose(variance, slopes.var(axis=0, ddof=1) / 4)
    np.testing.assert_allclose(fit_linear(response, dose, np.eye(4)[donor]).estimate, slopes.mean(axis=0))
    assert df == 3


@pytest.mark.parametrize("spans", [(1.0, 1.0, 1.0, 1.0), (0.5, 1.0, 1.0, 2.0)])
def test_the_variance_of_slopes_is_unbiased_where_slopes_vary(spans):
    rng = np.random.default_rng(5)
    dose = np.concatenate([np.array([0.0, 0.5, 1.0]) * span for span in spans])
    donor = np.repeat(np.arange(4), 3)
    response = dose[:, None] * rng.normal(size=(4, 20_000))[donor]
    variance, _ = variance_of_slopes(response, dose, np.eye(4)[donor], donor)
    estimate = fit_linear(response, dose, np.eye(4)[donor]).estimate
    assert variance.mean() == pytest.approx(estimate.var(), rel=0.03)
