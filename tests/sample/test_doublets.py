"""Doublet methods: planted doublets score higher, and small or odd libraries end in words rather than a crash."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from immunomod.errors import UserError
from immunomod.sample.doublets import (
    MIN_CELLS,
    REGISTRY,
    DoubletCalls,
    Method,
    call_doublets,
    expected_rate,
    no_calls,
    scrublet,
)
from immunomod.sample.settings import DoubletSettings
from support.doublet_libraries import four_types


def test_expected_rate():
    assert expected_rate(1000) == pytest.approx(0.008)
    assert expected_rate(10_000) == pytest.approx(0.08)
    assert expected_rate(10**6) == 0.25
    donors = np.array(["a"] * 50 + ["b"] * 30 + ["c"] * 20, dtype=object)
    assert expected_rate(1000, donors) == pytest.approx(0.008 * (0.25 + 0.09 + 0.04))


def test_scrublet_finds_planted_doublets():
    counts, planted = four_types(np.random.default_rng(0), 500, 25)
    judged = call_doublets(counts, 0.05, DoubletSettings(), seed=1)
    score = judged.calls.score
    higher = (score[planted][:, None] > score[~planted]).mean()
    ties = (score[planted][:, None] == score[~planted]).mean()
    assert higher + ties / 2 > 0.95
    assert judged.calls.predicted[planted].mean() > 0.7
    assert judged.calls.predicted[~planted].mean() < 0.02
    assert (judged.removed == judged.calls.predicted).all()
    assert judged.warning == ""
    again = call_doublets(counts, 0.05, DoubletSettings(), seed=1)
    np.testing.assert_array_equal(again.calls.score, score)


def test_predicted_doublets_may_stay():
    counts, _ = four_types(np.random.default_rng(0), 300, 15)
    judged = call_doublets(counts, 0.05, DoubletSettings(remove=False), seed=1)
    assert judged.calls.predicted.any()
    assert not judged.removed.any()


@pytest.mark.parametrize("method", ["scrublet", "cxds"])
@pytest.mark.parametrize("n_cells", [0, 1, 2, MIN_CELLS - 1])
def test_tiny_libraries_are_not_judged(n_cells, method):
    counts = four_types(np.random.default_rng(0), max(n_cells, 4), 0)[0][:n_cells]
    calls = REGISTRY[method].run(counts, 0.01, 1)
    assert np.isnan(calls.score).all()
    assert not calls.predicted.any()
    assert "fewer than 50 cells" in calls.note


def test_no_variable_genes_end_in_words():
    counts = sparse.csr_matrix(np.ones((80, 20), dtype=np.int32))
    calls = REGISTRY["scrublet"].run(counts, 0.01, 1)
    assert not calls.predicted.any()
    assert "doublets not called" in calls.note


def test_no_threshold_ends_in_words(monkeypatch):
    monkeypatch.setattr(scrublet, "minimum_between_modes", lambda _scores: None)
    counts, _ = four_types(np.random.default_rng(0), 120, 0)
    calls = REGISTRY["scrublet"].run(counts, 0.01, 1)
    assert np.isfinite(calls.score).all()
    assert not calls.predicted.any()
    assert np.isnan(calls.threshold)
    assert "not called: no threshold" in calls.note


@pytest.mark.parametrize("method", ["scrublet", "cxds"])
@pytest.mark.parametrize(
    "counts",
    [
        np.zeros((80, 20)),
        np.zeros((80, 0)),
        np.ones((80, 1)),
        np.arange(80)[:, None] % 3,
        np.eye(80),
        np.eye(1),
        np.zeros((0, 5)),
    ],
    ids=["all zero", "no genes", "one gene", "one gene that varies", "a gene each", "one cell", "no cells"],
)
def test_odd_libraries_give_a_valid_result(counts, method):
    calls = REGISTRY[method].run(sparse.csr_matrix(counts.astype(np.int32)), 0.05, 1)
    assert calls.score.shape == calls.predicted.shape == (len(counts),)
    assert calls.note or np.isfinite(calls.score).any()
    assert not (calls.predicted & ~np.isfinite(calls.score)).any()


@pytest.mark.parametrize("n_cells", [60, 300, 1000])
def test_a_library_of_one_cell_type_loses_nobody(n_cells):
    """Scrublet's own threshold lies in noise there, and calls more cells the fewer there are."""
    rng = np.random.default_rng(0)
    profile = rng.gamma(1.0, 1.0, 600)
    depth = np.exp(rng.normal(8.0, 0.3, n_cells))
    counts = sparse.csr_matrix(rng.poisson(np.outer(depth, profile / profile.sum())).astype(np.int32))
    judged = call_doublets(counts, expected_rate(n_cells), DoubletSettings(), seed=1)
    assert not judged.removed.any()
    if judged.calls.predicted.any():
        assert "does not separate doublets" in judged.warning


def test_calls_do_not_depend_on_the_expected_rate():
    counts, _ = four_types(np.random.default_rng(0), 300, 15)
    one, other = (call_doublets(counts, rate, DoubletSettings(), seed=1).calls for rate in (0.006, 0.08))
    np.testing.assert_array_equal(one.predicted, other.predicted)
    assert one.detectable == other.detectable
    for calls in (one, other):
        np.testing.assert_array_equal(calls.predicted, calls.score > calls.threshold)


@pytest.mark.parametrize(
    ("share", "detectable", "rate", "outcome"),
    [
        (0.2, 0.3, 0.01, "kept"),  # implies 67%
        (0.2, 0.0, 0.01, "kept"),
        (0.05, 0.5, 0.01, "noted"),  # implies 10%
        (0.2, 0.5, 0.2, "removed"),  # implies 40% where 20% are expected
        (0.02, 0.5, 0.01, "removed"),
    ],
)
def test_calls_that_imply_too_many_doublets_are_kept(share, detectable, rate, outcome, monkeypatch):
    counts = sparse.csr_matrix(np.ones((100, 5), dtype=np.int32))
    predicted = np.arange(100) < 100 * share

    def run(matrix, _rate, _seed):
        return DoubletCalls(np.linspace(1, 0, matrix.shape[0]), predicted, 0.5, detectable, "")

    monkeypatch.setitem(REGISTRY, "made", Method("made", "c", "n", "l", run))
    judged = call_doublets(counts, rate, DoubletSettings(method="made"), seed=1)
    assert judged.removed.sum() == (0 if outcome == "kept" else predicted.sum())
    said = f"{100 * share:.1f}% called doublets where {100 * rate:.1f}% were expected"
    assert (said in judged.warning) == (outcome == "kept")
    assert (said in judged.note) == (outcome == "noted")


def test_none_calls_nothing():
    counts, _ = four_types(np.random.default_rng(0), 60, 3)
    judged = call_doublets(counts, 0.05, DoubletSettings(method="none"), seed=1)
    assert not judged.removed.any()
    assert np.isnan(judged.calls.score).all()
    assert no_calls(3, "x").note == "x"


def test_unknown_method_names_the_choices():
    with pytest.raises(UserError, match=r"doublets\.method is 'srublet'; it must be one of none, scrublet"):
        DoubletSettings(method="srublet")
