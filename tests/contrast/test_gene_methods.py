"""Models of genes: limma-trend against R, the fits of all genes at once against PyDESeq2's own, shrinkage by grid."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydeseq2.dds import DeseqDataSet
from pydeseq2.default_inference import DefaultInference
from pydeseq2.ds import DeseqStats
from pydeseq2.utils import nb_nll

from immunomod.contrast.gene_methods import deseq2, limma_trend
from immunomod.contrast.gene_methods.limma_trend import fit_trended_prior, natural_spline
from immunomod.contrast.gene_methods.method import GeneTask
from immunomod.contrast.gene_methods.negative_binomial import AllGenes
from immunomod.contrast.gene_methods.shrinkage import LOG2_E, cauchy_scale, posterior_mode
from immunomod.contrast.genes import REGISTRY
from immunomod.contrast.settings import GENE_METHODS, ContrastSettings
from immunomod.errors import UserError

REFERENCE = Path(__file__).parent / "reference"
SIGN = np.tile([-0.5, 0.5], 4)
BLOCKS = np.kron(np.eye(4), np.ones((2, 1)))
DESIGN = np.column_stack([BLOCKS, SIGN])


def task(counts: np.ndarray, effect: np.ndarray = SIGN, nuisance: np.ndarray = BLOCKS) -> GeneTask:
    library = counts.sum(axis=1)
    genes = pd.Index([f"g{number:04d}" for number in range(counts.shape[1])])
    log2 = np.log2((counts + 0.5) / (library + 1)[:, None] * 1e6)
    return GeneTask(genes, counts, log2, np.zeros(len(genes), dtype=bool), library, effect, nuisance)


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    """8 units (4 pairs) x some 700 genes, the first twentieth of which changes tenfold."""
    rng = np.random.default_rng(0)
    rate = np.exp(rng.normal(2.5, 1.5, 800))[None, :] * np.exp(rng.normal(0, 0.1, (8, 800)))
    rate[1::2, :40] *= 10
    drawn = rng.negative_binomial(15, 15 / (15 + rate)).astype(float)
    return drawn[:, drawn.sum(axis=0) > 20]


def test_the_registry_is_complete():
    assert tuple(REGISTRY) == GENE_METHODS
    for name, method in REGISTRY.items():
        assert method.name == name
        assert min(map(len, (method.citation, method.needs, method.limits))) > 10
    with pytest.raises(UserError, match=r"contrast\.gene_method is 'edger'; it must be deseq2 or limma_trend"):
        ContrastSettings.from_config({"gene_method": "edger"})


@pytest.mark.parametrize(
    ("name", "rows"), [("limma_trend", 300), ("limma_trend_12_genes", 12), ("limma_trend_4_genes", 4)]
)
def test_limma_trend_equals_r(name, rows):
    expected = pd.read_csv(REFERENCE / f"{name}.tsv", sep="\t")
    log2 = pd.read_csv(REFERENCE / "edger_log_cpm.tsv", sep="\t")[[f"u{n}" for n in range(1, 7)]].to_numpy().T[:, :rows]
    effect, blocks = np.repeat([-0.5, 0.5], 3), np.tile(np.eye(3), (2, 1))
    given = GeneTask(
        pd.Index(expected["gene"]), np.exp2(log2), log2, np.zeros(rows, dtype=bool), np.ones(6), effect, blocks
    )
    fit = limma_trend.fit(given)
    np.testing.assert_allclose(fit.estimate, expected["estimate"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(fit.estimate / fit.se, expected["t"], rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(fit.df, expected["df_total"], rtol=1e-6)
    residual = limma_trend.fit_linear(log2, effect, blocks)
    prior = fit_trended_prior(residual.variance, residual.df, log2.mean(axis=0))
    np.testing.assert_allclose(prior.variance, expected["s2_prior"], rtol=1e-6)
    np.testing.assert_allclose(prior.df, expected["df_prior"], rtol=1e-6)
    np.testing.assert_allclose(fit.se**2 / residual.unscaled, expected["s2_post"], rtol=1e-6)


def test_a_trend_needs_levels_that_differ():
    variance = np.array([1.0, 2.0, 0.5, 3.0])
    assert len(set(fit_trended_prior(variance, 3, np.ones(4)).variance)) == 1
    assert fit_trended_prior(np.array([1.0]), 3, np.array([2.0])).df == 0
    tied = np.array([1.0] * 20 + [2.0] * 15)
    assert np.isfinite(fit_trended_prior(np.linspace(0.5, 2, 35), 3, tied).variance).all()


def test_natural_splines_are_straight_beyond_their_knots_and_smooth():
    x = np.linspace(-2, 5, 2001)
    basis = natural_spline(x, 4)
    assert np.linalg.matrix_rank(basis) == 4
    second = np.diff(basis, 2, axis=0)
    np.testing.assert_allclose(second[[0, -1]], 0, atol=1e-5)
    assert np.abs(np.diff(second, axis=0)).max() < 1e-6


def test_limma_trend_of_one_gene_is_a_paired_t_test(counts):
    fit = limma_trend.fit(task(counts[:, :1]))
    difference = task(counts[:, :1]).log2[1::2] - task(counts[:, :1]).log2[::2]
    assert fit.estimate[0] == pytest.approx(difference.mean())
    assert fit.se[0] == pytest.approx(difference.std(ddof=1) / 2)
    assert fit.df == 3


@pytest.mark.parametrize("prior", [None, 0.5])
def test_dispersions_are_likelier_than_pydeseq2s_own(counts, prior):
    size, disp = np.exp(np.linspace(-0.5, 0.5, 8)), np.full(counts.shape[1], 0.15)
    mu = np.maximum(AllGenes().irls(counts, size, DESIGN, disp, 0.5, 1e-8)[1], 0.5)
    arguments = (counts, DESIGN, mu, disp, 1e-8, 10.0, prior, True, prior is not None)

    def loss(alpha: np.ndarray) -> np.ndarray:
        weight = mu / (1 + mu * alpha)
        fit = [nb_nll(counts[:, gene], mu[:, gene], alpha[gene]) for gene in range(len(alpha))]
        adjustment = [np.linalg.slogdet((DESIGN.T * column) @ DESIGN)[1] / 2 for column in weight.T]
        return np.add(fit, adjustment) + ((np.log(alpha / disp) ** 2) / (2 * prior) if prior else 0)

    ours = AllGenes().alpha_mle(*arguments)[0]
    theirs = np.clip(DefaultInference(n_cpus=1).alpha_mle(*arguments)[0], 1e-8, 10)
    assert (loss(ours) <= loss(theirs) + 1e-9).all()
    np.testing.assert_allclose(loss(ours), loss(theirs), atol=1e-3)
    if prior:
        np.testing.assert_allclose(ours, theirs, rtol=1e-3)


def test_coefficients_and_wald_tests_equal_pydeseq2s_own(counts):
    size, disp = np.exp(np.linspace(-0.5, 0.5, 8)), np.full(counts.shape[1], 0.15)
    counts = counts.copy()
    counts[1::2, 7] = 0  # a gene without counts in an arm
    arguments = (counts, size, DESIGN, disp, 0.5, 1e-8)
    ours, theirs = AllGenes().irls(*arguments), DefaultInference(n_cpus=1).irls(*arguments)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine.astype(float), other.astype(float), rtol=1e-6, atol=1e-9)
    tests = [
        inference.wald_test(DESIGN, disp, ours[0], ours[1], np.eye(5) * 1e-6, np.eye(5)[4], 0.0)
        for inference in (AllGenes(), DefaultInference(n_cpus=1))
    ]
    for mine, other in zip(*tests, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-9)


def test_diverging_coefficients_go_to_the_optimiser(counts):
    rare = np.zeros((8, 1))
    rare[0] = 40
    ours, theirs = (
        inference.irls(rare, np.ones(8), DESIGN, np.array([1e-8]), 1e-20, 1e-8, -5, 5)
        for inference in (AllGenes(), DefaultInference(n_cpus=1))
    )
    assert np.abs(ours[0]).max() <= 5
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6)


def test_shrunken_changes_are_likelier_than_pydeseq2s_own(counts):
    size = np.full(counts.shape[1], 5.0)
    arguments = (DESIGN, counts, size, np.linspace(-0.5, 0.5, 8), 15, 0.4, "L-BFGS-B", 4)
    ours, theirs = (
        inference.lfc_shrink_nbinom_glm(*arguments)[0] for inference in (AllGenes(), DefaultInference(n_cpus=1))
    )
    np.testing.assert_allclose(ours[:, 4], theirs[:, 4], atol=0.005)
    assert AllGenes().lfc_shrink_nbinom_glm(*arguments)[2].all()


def test_the_whole_model_agrees_with_pydeseq2_as_it_comes(counts):
    fit = deseq2.fit(task(counts))
    units = [f"u{n}" for n in range(8)]
    matrix = pd.DataFrame(DESIGN, index=units, columns=[f"t{n}" for n in range(5)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = DeseqDataSet(
            counts=pd.DataFrame(counts.astype(int), index=units), metadata=matrix, design=matrix, n_cpus=1
        )
        data.fit_size_factors = lambda **_: deseq2._set_size_factors(data, counts.sum(axis=1))
        data.deseq2()
        tests = DeseqStats(data, contrast=np.eye(5)[4], n_cpus=1)
        tests.summary()
    theirs = tests.results_df
    difference = np.abs(fit.estimate - theirs["log2FoldChange"])
    assert np.quantile(difference, 0.99) < 0.05 and difference.max() < 0.2
    assert np.quantile(np.abs(np.log(fit.se / theirs["lfcSE"])), 0.95) < 0.1
    assert np.corrcoef(fit.estimate / fit.se, theirs["stat"])[0, 1] > 0.999


@pytest.mark.parametrize("name", GENE_METHODS)
def test_exchanged_arms_flip_every_sign_and_change_no_digit(counts, name):
    one, other = (REGISTRY[name].run(task(counts, effect)) for effect in (SIGN, -SIGN))
    assert (one.estimate == -other.estimate).all()
    assert (one.shrunken == -other.shrunken).all()
    assert (one.se == other.se).all()
    assert one.df == other.df and (one.prior_scale == other.prior_scale).all()
    assert (one.tested == other.tested).all() and (one.counted == other.counted).all()


@pytest.mark.parametrize("name", GENE_METHODS)
def test_shrinkage_spares_what_is_large_and_sure(counts, name):
    fit = REGISTRY[name].run(task(counts))
    clear = np.abs(fit.estimate / fit.se) > 1
    assert (np.abs(fit.shrunken) <= np.abs(fit.estimate) + 1e-6)[clear].all()
    assert (np.sign(fit.shrunken) == np.sign(fit.estimate))[clear].all()
    sure = (np.abs(fit.estimate) > 1) & (np.abs(fit.estimate / fit.se) > 8)
    assert sure.any()
    assert (fit.shrunken / fit.estimate)[sure].min() > 0.9
    unsure = np.abs(fit.estimate / fit.se) < 1
    assert np.median(np.abs(fit.shrunken / fit.estimate)[unsure]) < 0.8


@pytest.mark.parametrize("scale", [0.05, 0.5, 1.4])
def test_posterior_modes_equal_a_grid_search(scale):
    rng = np.random.default_rng(1)
    estimate, se = rng.normal(0, 2, 200), np.exp(rng.normal(-1, 1, 200))
    grid = np.linspace(0, 1, 200_001)
    for mode, value, error in zip(posterior_mode(estimate, se, np.full(200, scale)), estimate, se, strict=True):
        points = grid * value
        loss = (points - value) ** 2 / (2 * error**2) + np.log1p((points / scale) ** 2)
        reached = (mode - value) ** 2 / (2 * error**2) + np.log1p((mode / scale) ** 2)
        assert reached <= loss.min() + 1e-9


def test_posterior_modes_at_the_edges():
    np.testing.assert_array_equal(posterior_mode(np.array([2.0, 0.0]), np.array([0.0, 1.0]), np.ones(2)), [2.0, 0.0])
    assert np.isnan(posterior_mode(np.array([1.0, np.nan]), np.array([np.nan, 1.0]), np.ones(2))).all()


def test_the_priors_scale_is_the_spread_of_true_effects():
    rng = np.random.default_rng(2)
    truth, se = rng.normal(0, 0.5, 20_000), np.full(20_000, 0.3)
    assert cauchy_scale(truth + rng.normal(0, 0.3, 20_000), se) == pytest.approx(0.5, rel=0.05)
    assert cauchy_scale(rng.normal(0, 0.3, 20_000), se * 2) < 0.01
    assert cauchy_scale(rng.normal(0, 30, 2000), se[:2000]) == pytest.approx(LOG2_E)
    assert cauchy_scale(np.array([np.nan]), np.array([np.nan])) == pytest.approx(LOG2_E)


def test_models_do_not_depend_on_the_order_of_terms_and_units(counts):
    order = np.random.default_rng(3).permutation(8)
    for method in REGISTRY.values():
        given = task(counts)
        first = method.run(given)
        second = method.run(
            replace(
                given,
                counts=counts[order],
                log2=given.log2[order],
                library=given.library[order],
                effect=SIGN[order],
                nuisance=BLOCKS[order][:, ::-1],
            )
        )
        np.testing.assert_allclose(first.estimate, second.estimate, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(first.se, second.se, rtol=1e-5)


def test_genes_that_leakage_blurs_lend_their_scatter_to_no_other(counts):
    rng = np.random.default_rng(4)
    noisy = rng.permuted(counts, axis=1) * np.exp(rng.normal(0, 1.5, counts.shape))
    both = np.column_stack([counts, np.rint(noisy)])
    blurred = np.arange(both.shape[1]) >= counts.shape[1]
    order = rng.permutation(both.shape[1])
    alone = replace(task(counts), library=both.sum(axis=1))
    apart = REGISTRY["deseq2"].run(replace(task(both[:, order]), blurred=blurred[order]))
    kept = np.argsort(order)[: counts.shape[1]]
    expected = REGISTRY["deseq2"].run(alone)
    np.testing.assert_allclose(apart.estimate[kept], expected.estimate)
    np.testing.assert_allclose(apart.se[kept], expected.se)
