"""Our scrublet against scanpy's, part by part and as a whole, and against brute force."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import sparse
from scipy.special import ndtri

from immunomod.sample.doublets import REGISTRY, scrublet
from immunomod.sample.doublets.pairs import simulated_pairs
from support.doublet_libraries import (
    area_under_curve,
    four_types,
    kang_with_doublets,
    scanpy_scrublet,
    simulated,
)


def totals_of(counts: sparse.csr_matrix) -> np.ndarray:
    return np.asarray(counts.sum(axis=1), dtype=float).ravel()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_variable_genes_are_those_of_scanpy(seed):
    import scanpy as sc
    from anndata import AnnData

    rng = np.random.default_rng(seed)
    abundance = rng.lognormal(-1, 1.8, 800)
    factor = rng.gamma(1 / rng.uniform(0.05, 2, 800), size=(300, 800)) * rng.uniform(0.5, 2, (300, 1))
    counts = sparse.csr_matrix(rng.poisson(abundance * factor).astype(np.int32))
    adata = AnnData(counts.astype(np.float64))
    adata.var["position"] = np.arange(800)
    sc.pp.filter_genes(adata, min_cells=3)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata)
    expected = adata.var["position"].to_numpy()[adata.var["highly_variable"]]
    assert 50 < len(expected) < 600
    np.testing.assert_array_equal(scrublet.variable_genes(counts, totals_of(counts)), expected)


def test_components_are_those_of_the_dense_standardised_matrix():
    counts, _ = four_types(np.random.default_rng(3), 200, 10)
    counts = counts[:, np.asarray(counts.sum(axis=0)).ravel() > 0]
    totals = totals_of(counts)
    observed, made = scrublet._embed(counts, seed=5)
    dense = counts.toarray() / totals[:, None] * np.median(totals)
    mean, deviation = dense.mean(axis=0), dense.std(axis=0)
    _, _, axes = np.linalg.svd((dense - mean) / deviation, full_matrices=False)
    axes = axes[: scrublet.N_COMPONENTS].T
    expected = (dense - mean) / deviation @ axes
    signs = np.sign((expected * observed).sum(axis=0))
    np.testing.assert_allclose(observed, expected * signs, atol=1e-3)
    first, second = simulated_pairs(counts.shape[0], 2 * counts.shape[0], 5)
    summed = counts.toarray()[first] + counts.toarray()[second]
    summed = summed / summed.sum(axis=1, keepdims=True) * np.median(totals)
    np.testing.assert_allclose(made, ((summed - mean) / deviation @ axes) * signs, atol=1e-3)


def test_simulated_doublets_are_two_different_cells():
    first, second = simulated_pairs(7, 5000, 1)
    assert (first != second).all()
    counted = np.bincount(np.concatenate([first, second]), minlength=7)
    assert counted.min() > 0.9 * counted.mean()


@pytest.mark.parametrize(("n_observed", "n_neighbors"), [(60, 12), (400, 30), (400, 1199)])
def test_neighbours_are_counted_as_by_brute_force(n_observed, n_neighbors):
    rng = np.random.default_rng(n_neighbors)
    points = rng.normal(size=(3 * n_observed, 8)).astype(np.float32) + 100
    points[:n_observed] += rng.integers(0, 2, (n_observed, 1)) * 3
    counted = scrublet.simulated_neighbors(points, n_observed, 2 * n_observed, n_neighbors)
    squared = ((points[:, None, :].astype(float) - points[None, :, :]) ** 2).sum(axis=2)
    np.fill_diagonal(squared, np.inf)
    nearest = np.argsort(squared, axis=1)[: 2 * n_observed, :n_neighbors]
    np.testing.assert_array_equal(counted, (nearest >= n_observed).sum(axis=1))


def test_among_identical_points_no_more_neighbours_than_asked_for():
    points = np.zeros((300, 4), dtype=np.float32)
    counted = scrublet.simulated_neighbors(points, 100, 300, 20)
    assert counted.max() <= 20


def test_the_score_is_bayes_rule():
    """Where doublets have density d and singlets s, a share q = rd / (rd + s) of the neighbours is simulated."""
    prior, ratio = 0.06, scrublet.SIMULATED_PER_CELL
    for doublets, singlets in ((1.0, 1.0), (0.2, 3.0), (5.0, 0.1)):
        share = ratio * doublets / (ratio * doublets + singlets)
        truth = prior * doublets / (prior * doublets + (1 - prior) * singlets)
        assert scrublet.doublet_probability(np.array(share), prior) == pytest.approx(truth)
        assert scrublet.simulated_share(truth, prior) == pytest.approx(share)


def test_the_threshold_is_that_of_scikit_image():
    filters = pytest.importorskip("skimage.filters")
    rng = np.random.default_rng(0)
    draws = [
        np.concatenate([rng.normal(0.1, 0.03, rng.integers(100, 900)), rng.normal(rng.uniform(0.1, 0.6), 0.05, 300)])
        for _ in range(40)
    ]
    one_mode = ndtri(np.linspace(0.0005, 0.9995, 20_000))
    outcomes = []
    for values in [*draws, one_mode]:
        try:
            expected = float(filters.threshold_minimum(values))
        except RuntimeError:
            expected = None
        found = scrublet.minimum_between_modes(values)
        outcomes.append(expected is None)
        assert found == (expected if expected is None else pytest.approx(expected, rel=1e-9))
    assert 0 < sum(outcomes) < len(outcomes)


def test_scores_agree_with_scanpy_and_find_as_much():
    """Mean area under the curve over libraries; the draws of simulated doublets alone move one by 0.01 to 0.02."""
    ours, theirs, power = [], [], []
    for seed, leakage, arm in ((1, 0.002, "coculture"), (3, 0.1, "coculture"), (5, 0.002, "immune_alone")):
        library = simulated(seed, leakage, scale=4, arm=arm)
        judged = library.heterotypic | ~library.doublet
        for draw in (1, 2, 3):
            calls = REGISTRY["scrublet"].run(library.counts, 0.05, draw)
            score = calls.score
            reference, threshold = scanpy_scrublet(library.counts, 0.05, draw)
            power.append(
                [calls.predicted[library.heterotypic].mean(), (reference > threshold)[library.heterotypic].mean()]
            )
            assert calls.predicted[~library.doublet].mean() < 0.015
            assert np.corrcoef(score, reference)[0, 1] > 0.9
            ours.append(area_under_curve(score[judged], library.heterotypic[judged]))
            theirs.append(area_under_curve(reference[judged], library.heterotypic[judged]))
    assert np.mean(ours) > 0.9
    assert np.mean(power, axis=0)[0] > np.mean(power, axis=0)[1] - 0.1
    assert np.mean(ours) > np.mean(theirs) - 0.01


def test_real_cells_added_up_score_as_with_scanpy(shared):
    ours, theirs = [], []
    for draw in (1, 2):
        counts, planted = kang_with_doublets(shared, draw)
        score = REGISTRY["scrublet"].run(counts, 0.06, draw).score
        reference, _ = scanpy_scrublet(counts, 0.06, draw)
        assert np.corrcoef(score, reference)[0, 1] > 0.9
        ours.append(area_under_curve(score, planted))
        theirs.append(area_under_curve(reference, planted))
    assert np.mean(ours) > 0.83
    assert np.mean(ours) > np.mean(theirs) - 0.015


def test_scores_do_not_depend_on_the_order_of_genes():
    counts, _ = four_types(np.random.default_rng(1), 300, 15)
    order = np.random.default_rng(2).permutation(counts.shape[1])
    one, other = (REGISTRY["scrublet"].run(matrix, 0.05, 1).score for matrix in (counts, counts[:, order].tocsr()))
    assert np.mean(np.isclose(one, other)) > 0.98


def test_scores_do_not_depend_on_the_number_of_threads():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    counts, _ = four_types(np.random.default_rng(1), 700, 30)
    scores = []
    for threads in (1, 2):
        with threadpoolctl.threadpool_limits(threads):
            scores.append(REGISTRY["scrublet"].run(counts, 0.05, 1).score)
    np.testing.assert_array_equal(*scores)


def test_a_cell_without_counts_is_not_judged():
    counts, _ = four_types(np.random.default_rng(1), 200, 10)
    with_empty = sparse.vstack([counts, sparse.csr_matrix((3, counts.shape[1]), dtype=np.int32)], format="csr")
    for name in ("scrublet", "cxds"):
        calls = REGISTRY[name].run(with_empty, 0.05, 1)
        assert np.isfinite(calls.score[:-3]).all()
        assert np.isnan(calls.score[-3:]).all()
        assert not calls.predicted[-3:].any()


def test_no_heavy_package_is_imported():
    code = (
        "import sys, numpy as np\nfrom scipy import sparse\nfrom immunomod.sample.doublets import REGISTRY\n"
        "counts = sparse.csr_matrix(np.random.default_rng(0).poisson(1, (100, 50)).astype(np.int32))\n"
        "for name in REGISTRY: REGISTRY[name].run(counts, 0.05, 1)\n"
        "print(*[m for m in ('scanpy', 'anndata', 'numba', 'skimage', 'sklearn', 'scipy.stats') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.stdout.strip() == ""
