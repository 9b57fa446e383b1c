"""Hashtag calls: posteriors against enumeration, accuracy against known truth and against HashSolo, and small lanes."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from immunomod.errors import UserError
from immunomod.sample.demultiplex import mixture
from immunomod.sample.demultiplex.calls import REGISTRY, HashtagCalls, call_hashtags
from immunomod.sample.demultiplex.mixture import fit_mixture
from immunomod.sample.settings import DemultiplexSettings
from immunomod.simulate.hashtags import HashtagPool, simulate_hashtags

SETTINGS = DemultiplexSettings()
#: Conditions that a lane should meet, and what a lane of a co-culture meets besides.
NORMAL = {
    "four tags": HashtagPool(),
    "two tags": HashtagPool(shares=(1, 1), doublets=0.05, unstained=0.02),
    "two uneven tags": HashtagPool(shares=(4, 1), doublets=0.12),
    "eight tags, many doublets and unstained": HashtagPool(shares=(1,) * 8, doublets=0.15, unstained=0.1),
    "eight uneven tags, unlike stains": HashtagPool(
        shares=(8, 4, 2, 1, 1, 1, 0.5, 0.3), signal_spread=0.8, background_spread=0.8, doublets=0.12
    ),
    "three of six tags unused": HashtagPool(shares=(1, 1, 1, 0, 0, 0)),
    "stromal cells with six times the stain": HashtagPool(large_cells=0.3, cell_spread=0.6),
    "deeply sequenced": HashtagPool(signal=2000, background=60),
}


def accuracy(calls: HashtagCalls, truth: pd.DataFrame) -> dict[str, float]:
    """Recall and precision of singlets (with the right tag), recall of doublets and negatives."""
    status = truth["status"].to_numpy()
    right = (calls.hashtag == truth["hashtag"].to_numpy()) & (calls.status == "singlet") & (status == "singlet")
    found = {
        "recall": right.sum() / (status == "singlet").sum(),
        "precision": right.sum() / (calls.status == "singlet").sum(),
    }
    there = [kind for kind in ("doublet", "negative") if (status == kind).any()]
    return found | {kind: float((calls.status == kind)[status == kind].mean()) for kind in there}


@pytest.mark.parametrize("name", NORMAL)
def test_cells_get_their_own_tag(name):
    found = []
    for seed in (1, 2):
        lane = simulate_hashtags(NORMAL[name], seed)
        found.append(accuracy(call_hashtags(lane.counts, SETTINGS, 1), lane.truth))
    mean = pd.DataFrame(found).mean()
    assert mean["recall"] > 0.95 and mean["precision"] > 0.99, mean
    assert mean["doublet"] > 0.9 and mean["negative"] > 0.85, mean


def test_the_default_is_better_than_hashsolo():
    for name in ("four tags", "eight tags, many doublets and unstained", "three of six tags unused"):
        lane = simulate_hashtags(NORMAL[name], 3)
        ours, theirs = (
            accuracy(call_hashtags(lane.counts, DemultiplexSettings(method=method), 1), lane.truth)
            for method in ("mixture", "hashsolo")
        )
        assert ours["recall"] >= theirs["recall"] and ours["precision"] >= theirs["precision"], (name, ours, theirs)
        assert ours["negative"] > theirs["negative"] + 0.2, name
    assert DemultiplexSettings().method == "mixture"


def test_badly_stained_lanes_lose_cells_rather_than_mix_donors():
    pool = HashtagPool(signal=40, background=8)
    found, notes = [], []
    for seed in range(3):
        lane = simulate_hashtags(pool, seed)
        calls = call_hashtags(lane.counts, SETTINGS, 1)
        found.append(accuracy(calls, lane.truth)["precision"])
        notes.append(calls.note)
    assert min(found) > 0.95
    assert all("separate badly" in note and "too unsurely" in note for note in notes)


def test_posteriors_are_those_of_all_states_enumerated():
    random = np.random.default_rng(1)
    ratios = random.normal(0, 4, (50, 5))
    share = random.dirichlet(np.ones(5))
    fit = mixture._posterior(ratios, share, 0.04, 0.1, share, share)
    carried = fit.singlet + mixture._in_doublets(ratios, share, fit.doublet)
    pairs = list(combinations(range(5), 2))
    prior = np.array([share[i] * share[j] for i, j in pairs])
    prior /= prior.sum()
    for row, cell in enumerate(ratios):
        states = [0.04, *(0.86 * share * np.exp(cell))]
        states += [0.1 * p * np.exp(cell[i] + cell[j]) for p, (i, j) in zip(prior, pairs, strict=True)]
        posterior = np.array(states) / np.sum(states)
        assert fit.negative[row] == pytest.approx(posterior[0])
        assert fit.singlet[row] == pytest.approx(posterior[1:6])
        assert fit.doublet[row] == pytest.approx(posterior[6:].sum())
        with_tag = [
            posterior[1 + tag] + sum(posterior[6 + k] for k, p in enumerate(pairs) if tag in p) for tag in range(5)
        ]
        assert carried[row] == pytest.approx(with_tag)


def test_a_doublet_stays_one_however_strongly_its_first_tag_is_stained():
    lane = simulate_hashtags(HashtagPool(shares=(1, 1), large_cells=0), 1)
    counts = lane.counts.to_numpy(copy=True)
    counts[0] = (50_000, 150)
    fit = fit_mixture(counts)
    assert fit.doublet[0] > 0.99


def test_background_and_signal_are_found():
    pool = HashtagPool(n_droplets=6000, signal_spread=0, background_spread=0, capture_spread=0, shares=(1, 1, 1))
    fit = fit_mixture(simulate_hashtags(pool, 4).counts.to_numpy())
    assert fit.background == pytest.approx([5.0] * 3, rel=0.05)
    assert fit.signal == pytest.approx([205.0] * 3, rel=0.07)
    assert fit.share == pytest.approx([1 / 3] * 3, abs=0.03)
    assert fit.negative.mean() == pytest.approx(0.04 * 0.92, abs=0.01)
    assert fit.doublet.mean() == pytest.approx(0.08 * 2 / 3 * 0.96**2, abs=0.015)
    assert fit.negative + fit.doublet + fit.singlet.sum(axis=1) == pytest.approx(1)


def test_the_background_is_that_of_a_truncated_negative_binomial():
    random = np.random.default_rng(5)
    drawn = np.concatenate([random.negative_binomial(2.5, 2.5 / 10.5, 20_000), random.integers(100, 900, 400)])
    values, number = np.unique(drawn, return_counts=True)
    mean, size = mixture._negative_binomial(values.astype(float), number.astype(float))
    assert mean == pytest.approx(8.0, rel=0.04) and size == pytest.approx(2.5, rel=0.06)


@pytest.mark.parametrize("method", list(REGISTRY))
def test_neither_order_nor_seed_change_a_call(method):
    lane = simulate_hashtags(HashtagPool(n_droplets=600), 2)
    settings = DemultiplexSettings(method=method)
    calls = call_hashtags(lane.counts, settings, 1)
    order = np.random.default_rng(0).permutation(len(lane.counts))
    turned = call_hashtags(lane.counts.iloc[order, ::-1], settings, 99)
    assert list(turned.hashtag) == list(calls.hashtag[order])
    assert list(turned.status) == list(calls.status[order])
    assert turned.probability == pytest.approx(calls.probability[order], abs=1e-3)


def test_hashsolo_is_scanpys():
    import scanpy.external as sce
    from anndata import AnnData

    lane = simulate_hashtags(HashtagPool(n_droplets=400), 6)
    calls = call_hashtags(lane.counts, DemultiplexSettings(method="hashsolo", min_probability=0), 1)
    adata = AnnData(np.zeros((400, 1)), obs=lane.counts.astype(float))
    sce.pp.hashsolo(adata, list(lane.counts.columns))
    theirs = adata.obs["Classification"].astype(str).replace({"Doublet": "", "Negative": ""})
    assert list(calls.hashtag) == list(theirs)


def test_an_unsure_singlet_is_named_nobody():
    lane = simulate_hashtags(HashtagPool(signal=40, background=8), 1)
    loose, strict = (call_hashtags(lane.counts, DemultiplexSettings(min_probability=p), 1) for p in (0.0, 0.95))
    left = (loose.status == "singlet") & (strict.status != "singlet")
    assert left.sum() > 100 and (loose.probability[left] < 0.95).all() and (strict.status[left] == "negative").all()
    kept = strict.status == "singlet"
    assert (strict.probability[kept] >= 0.95).all() and (strict.hashtag[kept] == loose.hashtag[kept]).all()


def test_twenty_cells_are_called_with_a_note():
    right = []
    for seed in range(6):
        lane = simulate_hashtags(HashtagPool(n_droplets=20), seed)
        calls = call_hashtags(lane.counts, SETTINGS, 1)
        assert "20 droplets alone" in calls.note
        right.append(accuracy(calls, lane.truth)["precision"])
    assert np.mean(right) > 0.95


def test_one_tag_separates_stained_from_unstained():
    lane = simulate_hashtags(HashtagPool(shares=(1,), unstained=0.1), 1)
    calls = call_hashtags(lane.counts, SETTINGS, 1)
    assert (calls.status == lane.truth["status"]).mean() > 0.99
    assert "doublets cannot be seen" in calls.note
    everyone = simulate_hashtags(HashtagPool(shares=(1,), unstained=0.0), 1)
    calls = call_hashtags(everyone.counts, SETTINGS, 1)
    assert (calls.status == "singlet").all() and "one mode" in calls.note


@pytest.mark.parametrize("method", list(REGISTRY))
@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (np.zeros((5, 3)), "no hashtag has a count"),
        (np.zeros((0, 3)), "no droplet"),
        (np.zeros((4, 0)), "no hashtag has a count"),
        (np.array([[7, 0, 0]]), "no count of B, C"),
        (np.array([[3, 3], [3, 3], [3, 3]]), "droplets alone"),
        (np.array([[0, 900], [800, 0]]), "2 droplets alone"),
        (np.full((60, 2), np.nan), "60 droplets are not in the matrix"),
    ],
)
def test_lanes_that_tell_nothing_give_a_note(counts, words, method):
    table = pd.DataFrame(counts, columns=list("ABCD")[: counts.shape[1]])
    calls = call_hashtags(table, DemultiplexSettings(method=method), 1)
    assert len(calls.status) == len(calls.hashtag) == len(calls.probability) == len(table)
    assert words in calls.note
    assert set(calls.status) <= {"singlet", "doublet", "negative"}
    assert ((calls.hashtag != "") == (calls.status == "singlet")).all()


def test_droplets_without_hashtags_are_negative():
    lane = simulate_hashtags(HashtagPool(n_droplets=500), 1)
    table = lane.counts.astype(np.float32)
    table.iloc[:40] = np.nan
    calls = call_hashtags(table, SETTINGS, 1)
    rest = call_hashtags(lane.counts.iloc[40:], SETTINGS, 1)
    assert (calls.status[:40] == "negative").all() and list(calls.status[40:]) == list(rest.status)
    assert "40 droplets are not in the matrix of hashtags" in calls.note


def test_tags_of_no_cell_are_named():
    lane = simulate_hashtags(replace(NORMAL["three of six tags unused"], background=20.0), 1)
    calls = call_hashtags(lane.counts, SETTINGS, 1)
    strays = pd.Series(calls.hashtag).isin(["HTO4", "HTO5", "HTO6"]).mean()
    assert strays < 0.002


def test_an_unknown_method_is_a_mistake_of_the_config():
    with pytest.raises(UserError, match=r"demultiplexing\.method is 'magic'; it must be one of mixture, hashsolo"):
        call_hashtags(pd.DataFrame({"A": [1]}), DemultiplexSettings(method="magic"), 1)
    with pytest.raises(UserError, match="from 0 to 1"):
        DemultiplexSettings.from_config({"min_probability": 2})
