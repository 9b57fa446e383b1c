"""cxds: weights and scores against brute force, the tail against exact sums, and what it finds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, special, stats

from immunomod.sample.doublets import REGISTRY, coexpression
from support.doublet_libraries import area_under_curve, four_types, scanpy_scrublet, simulated


@pytest.mark.parametrize("trials", [50, 3000])
def test_the_tail_is_that_of_scipy(trials):
    rng = np.random.default_rng(trials)
    successes, probability = rng.integers(0, trials + 1, 400).astype(float), rng.uniform(0.01, 0.99, 400)
    found = coexpression.log_binomial_tail(successes, trials, probability)
    terms = [
        special.logsumexp(stats.binom.logpmf(np.arange(k, trials + 1), trials, p))
        for k, p in zip(successes, probability, strict=True)
    ]
    np.testing.assert_allclose(found, terms, rtol=1e-3, atol=1e-9)
    if trials == 3000:
        assert (np.array(terms) < -750).any()  # where the probability itself is below the smallest float


def test_weights_and_scores_by_brute_force():
    rng = np.random.default_rng(4)
    on = (rng.random((60, 6)) < rng.uniform(0.2, 0.8, 6)).astype(float)
    weights = coexpression.exclusion_weights(sparse.csr_matrix(on))
    share = on.mean(axis=0)
    expected = np.zeros((6, 6))
    for i in range(6):
        for j in range(6):
            if i != j:
                exactly_one = int((on[:, i] != on[:, j]).sum())
                chance = share[i] * (1 - share[j]) + share[j] * (1 - share[i])
                expected[i, j] = -stats.binom.logsf(exactly_one - 1, 60, chance)
    np.testing.assert_allclose(weights, expected, rtol=1e-9, atol=1e-9)
    scores = [sum(expected[i, j] for i in range(6) for j in range(i) if cell[i] and cell[j]) for cell in on]
    np.testing.assert_allclose(coexpression._scores(sparse.csr_matrix(on), weights), scores, rtol=1e-9)


def test_the_threshold_makes_the_fewest_mistakes():
    rng = np.random.default_rng(1)
    rate, n = 0.1, 4000
    truth = rng.random(n) < rate
    observed = rng.normal(np.where(truth, 3.0, 0.0), 1.0)
    made = rng.normal(3.0, 1.0, 4000)
    threshold = coexpression.fewest_mistakes(observed, made, rate)
    mistakes = ((observed > threshold) != truth).sum()
    fewest = min(((observed > t) != truth).sum() for t in observed)
    assert mistakes <= 1.15 * fewest
    # where both densities weigh the same: 3 t - 4.5 = log(0.9 / 0.1)
    assert threshold == pytest.approx((4.5 + np.log(9)) / 3, abs=0.25)


def test_nobody_is_called_where_doublets_look_like_cells():
    values = np.random.default_rng(1).normal(size=500)
    assert coexpression.fewest_mistakes(values, values, 0.05) is None


def test_planted_doublets_are_found():
    counts, planted = four_types(np.random.default_rng(0), 500, 25)
    calls = REGISTRY["cxds"].run(counts, 0.05, 1)
    assert area_under_curve(calls.score, planted) > 0.97
    assert calls.predicted[planted].mean() > 0.7
    assert calls.predicted[~planted].mean() < 0.02
    assert calls.share <= 0.1


def test_it_ranks_as_well_as_scrublet_does():
    cxds, scrublet = [], []
    for seed in (1, 2):
        library = simulated(seed, scale=4)
        judged = library.heterotypic | ~library.doublet
        score = REGISTRY["cxds"].run(library.counts, 0.05, 1).score
        reference, _ = scanpy_scrublet(library.counts, 0.05, 1)
        cxds.append(area_under_curve(score[judged], library.heterotypic[judged]))
        scrublet.append(area_under_curve(reference[judged], library.heterotypic[judged]))
    assert np.mean(cxds) > np.mean(scrublet) - 0.01


@pytest.mark.parametrize("n_genes", [1, 2])
def test_genes_that_are_on_everywhere_end_in_words(n_genes):
    calls = REGISTRY["cxds"].run(sparse.csr_matrix(np.ones((80, n_genes), dtype=np.int32)), 0.05, 1)
    assert not calls.predicted.any()
    assert "doublets not called: fewer than two genes" in calls.note
