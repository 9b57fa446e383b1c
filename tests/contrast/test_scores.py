"""Scores of pseudobulks: detection, weights, and freedom from depth and composition effects."""

import numpy as np
import pandas as pd
import pytest

from immunomod.contrast.normalise import tmm_factors
from immunomod.contrast.scores import effective_library, measure_expression, programme_weights

ARMS = np.array(["reference", "test"] * 4, dtype=object)


def test_a_gene_induced_from_zero_is_detected_and_a_rare_one_is_not():
    counts = np.full((8, 100), 50.0)
    counts[:, 0] = np.where(ARMS == "test", 6, 0)
    counts[:, 1] = np.where(ARMS == "test", 0, 6)
    counts[:, 2] = [1, 0, 0, 0, 0, 1, 0, 0]
    counts[:, 3] = 0
    expression = measure_expression(counts, ARMS, min_count=3)
    assert list(expression.detected[:4]) == [True, True, False, False]
    assert expression.detected[4:].all()
    change = expression.log2[ARMS == "test"].mean(axis=0) - expression.log2[ARMS == "reference"].mean(axis=0)
    assert change[0] > 3 and change[1] < -3
    assert abs(change[4:]).max() < 0.1


def test_detection_is_by_the_depth_of_the_shallower_arm():
    counts = np.where(ARMS == "test", 400.0, 40.0)[:, None] * np.ones((1, 200))
    counts[:, 0] = np.where(ARMS == "test", 20, 2)
    assert not measure_expression(counts, ARMS, min_count=3).detected[0]
    assert measure_expression(counts, ARMS, min_count=1.5).detected[0]


def test_depth_alone_changes_no_score():
    rng = np.random.default_rng(0)
    rate = np.exp(rng.normal(0, 1.5, 3000))
    rate /= rate.sum()
    shifts = []
    for _ in range(20):
        depth = np.where(ARMS == "test", 25_000, 100_000)[:, None]
        expression = measure_expression(rng.poisson(rate * depth).astype(float), ARMS, min_count=3)
        change = expression.log2[ARMS == "test"].mean(axis=0) - expression.log2[ARMS == "reference"].mean(axis=0)
        shifts.append(change[expression.detected].mean())
    assert abs(np.mean(shifts)) < 0.02


def test_library_is_cleared_of_an_induced_programme():
    rng = np.random.default_rng(1)
    rate = np.exp(rng.normal(0, 1, 1000))
    rates = np.where(ARMS == "test", 1, 0)[:, None] * (np.arange(1000) < 60) * rate * 25 + rate
    counts = rng.poisson(rates / rates.sum(axis=1, keepdims=True) * 200_000).astype(float)
    ratio = counts[:, 60:].sum(axis=1) / effective_library(counts, ARMS)
    assert ratio[ARMS == "test"].mean() == pytest.approx(ratio[ARMS == "reference"].mean(), rel=0.02)


def test_a_one_sided_change_leaves_nothing_in_the_libraries_where_trimming_alone_does():
    rng = np.random.default_rng(3)
    left = []
    for _ in range(20):
        rate = np.exp(rng.normal(0, 1, 1000))
        change = np.where(np.arange(1000) < 60, 1.8, 0)[None] * (ARMS == "test")[:, None]
        donors = np.repeat(rng.normal(0, 0.3, (4, 1000)), 2, axis=0)
        rates = rate * 2 ** (change + donors + rng.normal(0, 0.2, (8, 1000)))
        counts = rng.poisson(rates / rates.sum(axis=1, keepdims=True) * 100_000).astype(float)
        true_library = counts.sum(axis=1) / rates.sum(axis=1)
        libraries = np.array([counts.sum(axis=1) * tmm_factors(counts), effective_library(counts, ARMS)])
        error = np.log2(libraries / true_library)
        left.append(error[:, ARMS == "test"].mean(axis=1) - error[:, ARMS == "reference"].mean(axis=1))
    by_trimming, ours = np.mean(left, axis=0)
    assert by_trimming > 0.04
    assert abs(ours) < 0.01


def test_the_arms_are_treated_alike():
    counts = (
        np.random.default_rng(4).poisson(np.exp(np.random.default_rng(5).normal(3, 1, 500)), (8, 500)).astype(float)
    )
    counts[ARMS == "test", :40] *= 4
    swapped = np.where(ARMS == "test", "reference", "test").astype(object)
    assert (effective_library(counts, ARMS) == effective_library(counts, swapped)).all()
    three = np.array(["0.0", "0.5", "1.0", "1.0"] * 2, dtype=object)
    assert np.isfinite(effective_library(counts, three)).all()


def test_few_measured_genes_leave_the_library_as_it_is():
    counts = np.random.default_rng(2).poisson(3, size=(8, 20)).astype(float)
    np.testing.assert_allclose(effective_library(counts, ARMS), counts.sum(axis=1))
    assert (effective_library(np.zeros((8, 20)), ARMS) > 0).all()


def test_weights_are_signed_means_over_detected_genes():
    weights = pd.DataFrame({"p": [1.0, -2.0, 1.0, 0.0], "q": [0.0, 0.0, 0.0, 1.0]}, index=["A", "B", "C", "D"])
    genes, detected = pd.Index(["D", "C", "B", "E"]), np.array([False, True, True, True])
    used = programme_weights(weights, genes, detected)
    assert used["p"].to_dict() == pytest.approx({"C": 1 / 3, "B": -2 / 3})
    assert "D" not in used.index
