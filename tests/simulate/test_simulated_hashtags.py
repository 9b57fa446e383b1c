"""Simulated hashtags hold what was asked for, and their truth is that of their counts."""

import pytest

from immunomod.simulate.hashtags import HashtagPool, simulate_hashtags


def test_shares_are_those_of_the_pool():
    pool = HashtagPool(n_droplets=40_000, shares=(3, 1), doublets=0.1, unstained=0.05, background_spread=0)
    truth = simulate_hashtags(pool, 1).truth
    unlike = 0.1 * 2 * 0.75 * 0.25
    assert (truth["genotype"] == "doublet").mean() == pytest.approx(unlike, abs=0.004)
    assert (truth["status"] == "doublet").mean() == pytest.approx(unlike * 0.95**2, abs=0.004)
    assert (truth["status"] == "negative").mean() == pytest.approx(0.9 * 0.05 + 0.1 * 0.05**2, abs=0.004)
    assert (truth["donor"] == "D1").mean() == pytest.approx(0.9 * 0.75 + 0.1 * 0.75**2, abs=0.008)
    assert truth.index.is_unique


def test_stained_cells_carry_their_tag_and_others_the_background():
    pool = HashtagPool(n_droplets=20_000, shares=(1, 1), signal_spread=0, background_spread=0)
    lane = simulate_hashtags(pool, 2)
    own, other = (lane.counts[tag][lane.truth["hashtag"] == "HTO1"] for tag in ("HTO1", "HTO2"))
    assert own.median() == pytest.approx(208, rel=0.05)
    assert other.mean() == pytest.approx(5.3, rel=0.05)


def test_a_seed_gives_the_same_lane():
    first, again, other = (simulate_hashtags(HashtagPool(n_droplets=50), seed).counts for seed in (1, 1, 2))
    assert first.equals(again) and not first.equals(other)
    named = simulate_hashtags(HashtagPool(n_droplets=50), 1, ("Ann", "Ben", "Cyd", "Dan"))
    assert named.counts.equals(first) and set(named.truth["donor"]) <= {"Ann", "Ben", "Cyd", "Dan", ""}
