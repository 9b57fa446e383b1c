"""The test against the ambient profile, held against DropletUtils, exact enumeration, and draws of known truth."""

from __future__ import annotations

from itertools import product
from math import lgamma
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from immunomod.sample import empty_drops
from immunomod.sample.cell_calling import call_cells, rank_points
from immunomod.sample.empty_drops import (
    AmbientModel,
    MonteCarlo,
    ambient_model,
    benjamini_hochberg,
    counts_of_counts,
    estimate_alpha,
    good_turing,
    log_likelihoods,
    walker_tables,
)
from immunomod.sample.settings import CallingSettings

REFERENCE = Path(__file__).parent / "reference"
LOWER = 100


def table(name: str) -> pd.DataFrame:
    return pd.read_csv(REFERENCE / f"{name}.tsv.gz", sep="\t")


@pytest.fixture(scope="module")
def expected() -> pd.DataFrame:
    return table("droplet_utils")


@pytest.fixture(scope="module")
def values() -> pd.Series:
    return table("values").set_index("name")["value"]


@pytest.fixture(scope="module")
def library(expected) -> sparse.csr_matrix:
    entries = table("droplets")
    place = (entries["droplet"], entries["gene"])
    shape = (len(expected), len(table("ambient_shares")))
    return sparse.csr_matrix((entries["count"].to_numpy(dtype=np.int32), place), shape=shape)


@pytest.fixture(scope="module")
def total(library) -> np.ndarray:
    return np.asarray(library.sum(axis=1)).ravel().astype(np.int64)


def test_knee_and_inflection_are_those_of_droplet_utils(total, expected, values):
    np.testing.assert_array_equal(total, expected["total"])
    points = rank_points(total, LOWER)
    assert points.inflection == values["inflection"]
    assert points.knee == values["knee_line"]
    assert 0.5 < points.knee / values["knee_spline"] < 2


def test_good_turing_is_that_of_edger():
    for _, vector in table("good_turing").groupby("vector"):
        shares = good_turing(vector["count"].to_numpy())
        assert shares.sum() == pytest.approx(1)
        np.testing.assert_allclose(shares, vector["share"] / vector["share"].sum(), rtol=1e-10)


@pytest.mark.parametrize("counts", [[1, 1, 1], [0, 1, 1], [0, 7], [5], [1], [0, 0, 3, 3], [2, 2, 2]])
def test_good_turing_of_odd_counts_is_a_positive_profile(counts):
    shares = good_turing(np.array(counts))
    assert (shares > 0).all()
    assert shares.sum() == pytest.approx(1)
    order = np.argsort(counts, kind="stable")
    assert (np.diff(shares[order]) >= -1e-12).all()


def test_ambient_profile_and_alpha_are_those_of_droplet_utils(library, total, values):
    model = ambient_model(library, total, LOWER)
    np.testing.assert_allclose(model.shares, table("ambient_shares")["share"], rtol=1e-10)
    assert model.alpha == pytest.approx(values["alpha"], rel=1e-4)
    np.testing.assert_array_equal(model.counts, np.asarray(library[total <= LOWER].sum(axis=0)).ravel())


@pytest.mark.parametrize("kind", ["estimated", "infinite"])
def test_likelihoods_and_p_values_are_those_of_droplet_utils(kind, library, total, expected, values):
    alpha = values["alpha"] if kind == "estimated" else np.inf
    model = AmbientModel(np.zeros(0, np.int64), table("ambient_shares")["share"].to_numpy(), alpha)
    rows = total > LOWER
    ours = log_likelihoods(library, rows, model)
    rest = np.array([lgamma(t + 1) + (lgamma(alpha) - lgamma(t + alpha) if alpha < np.inf else 0) for t in total[rows]])
    np.testing.assert_allclose(ours + rest, expected[f"log_prob_{kind}"][rows], rtol=1e-9)
    monte_carlo = MonteCarlo(total[rows], ours, model, seed=1)
    monte_carlo.draw(20_000)
    theirs = expected[f"p_value_{kind}"][rows].to_numpy()
    middle = (theirs + monte_carlo.p_values) / 2
    error = np.sqrt(middle * (1 - middle) * 2 / 20_000)
    assert (np.abs(monte_carlo.p_values - theirs) <= 4.5 * error + 1e-4).all()
    assert np.corrcoef(np.log(monte_carlo.p_values), np.log(theirs))[0, 1] > 0.995


def test_called_cells_are_those_of_droplet_utils(library, expected, values):
    theirs = (expected["fdr_estimated"] <= 0.001).to_numpy()
    same_knee = call_cells(library, CallingSettings(retain=values["knee_spline"]), seed=1).is_cell
    assert (same_knee & theirs).sum() / (same_knee | theirs).sum() > 0.98
    ours = call_cells(library, CallingSettings(), seed=1)
    assert (ours.is_cell & theirs).sum() / (ours.is_cell | theirs).sum() > 0.97


@pytest.mark.parametrize("alpha", [np.inf, 3.0])
def test_p_values_are_those_of_enumeration(alpha):
    """All outcomes of three genes and two totals, each with its exact probability."""
    shares = np.array([0.6, 0.3, 0.1])

    def log_weight(counts: tuple[int, ...]) -> float:
        if alpha == np.inf:
            return sum(x * np.log(p) - lgamma(x + 1) for x, p in zip(counts, shares, strict=True))
        terms = ((x, alpha * p) for x, p in zip(counts, shares, strict=True))
        return sum(lgamma(a + x) - lgamma(a) - lgamma(x + 1) for x, a in terms)

    rows = [counts for counts in product(range(7), repeat=3) if sum(counts) in (4, 6)]
    weights = np.array([log_weight(counts) for counts in rows])
    totals = np.array([sum(counts) for counts in rows])
    exact = np.zeros(len(rows))
    for size in (4, 6):
        of_size = totals == size
        probability = np.exp(weights[of_size]) / np.exp(weights[of_size]).sum()
        at_most = weights[of_size][None, :] <= weights[of_size][:, None] + 1e-9
        exact[of_size] = np.minimum(at_most @ probability, 1)
    model = AmbientModel(np.zeros(3, np.int64), shares, alpha)
    likelihoods = log_likelihoods(sparse.csr_matrix(np.array(rows, np.int32)), np.ones(len(rows), bool), model)
    np.testing.assert_allclose(likelihoods, weights, atol=1e-12)
    monte_carlo = MonteCarlo(totals, likelihoods, model, seed=3)
    monte_carlo.draw(30_000)
    monte_carlo.draw(30_000)
    assert monte_carlo.n_draws == 60_000
    error = np.sqrt(exact * (1 - exact) / 60_000)
    assert (np.abs(monte_carlo.n_lower / 60_000 - exact) <= 4.5 * error + 5 / 60_000).all()


def urn(rng: np.random.Generator, shares: np.ndarray, totals: np.ndarray, alpha: float) -> sparse.csr_matrix:
    """Dirichlet-multinomial droplets."""
    if np.isinf(alpha):
        return sparse.csr_matrix(rng.multinomial(totals, shares).astype(np.int32))
    profiles = rng.dirichlet(alpha * shares, size=len(totals))
    return sparse.csr_matrix(np.array([rng.multinomial(n, p) for n, p in zip(totals, profiles, strict=True)], np.int32))


@pytest.mark.parametrize("alpha", [np.inf, 150.0])
def test_ambient_droplets_have_uniform_p_values(alpha):
    rng = np.random.default_rng(5)
    shares = rng.dirichlet(np.full(200, 0.5)) + 1e-6
    shares /= shares.sum()
    empty = np.clip(rng.lognormal(3.3, 0.7, 3000), 1, LOWER).astype(np.int64)
    totals = np.concatenate([empty, rng.integers(101, 600, 400)])
    counts = urn(rng, shares, totals, alpha)
    calls = call_cells(counts, CallingSettings(method="emptydrops", retain=1e6), seed=1)
    assert calls.alpha == np.inf if np.isinf(alpha) else calls.alpha == pytest.approx(alpha, rel=0.2)
    tested = calls.p_value[~np.isnan(calls.p_value)]
    assert len(tested) == 400
    assert stats.kstest(tested, "uniform").pvalue > 0.01
    assert not calls.is_cell.any()


def test_alpha_is_the_likeliest_one():
    """Against the likelihood summed over droplets and genes one by one."""
    rng = np.random.default_rng(2)
    shares = rng.dirichlet(np.full(30, 1.0))
    totals = rng.integers(5, 80, 150)
    counts = urn(rng, shares, totals, 60.0)
    found = estimate_alpha(counts_of_counts(counts, np.ones(150, bool)), totals, shares)

    def likelihood(alpha: float) -> float:
        dense = counts.toarray()
        gene_terms = sum(
            lgamma(alpha * p + x) - lgamma(alpha * p) for row in dense for x, p in zip(row, shares, strict=True) if x
        )
        return gene_terms + sum(lgamma(alpha) - lgamma(alpha + total) for total in totals)

    best = likelihood(found)
    assert best > likelihood(found * 1.02)
    assert best > likelihood(found / 1.02)


def test_walker_tables_hold_the_shares():
    rng = np.random.default_rng(0)
    for shares in (np.array([1.0]), np.array([0.5, 0.5]), rng.dirichlet(np.full(50, 0.2)) + 1e-9):
        shares = shares / shares.sum()
        accept, alias = walker_tables(shares)
        held = accept / len(shares)
        np.add.at(held, alias, (1 - accept) / len(shares))
        np.testing.assert_allclose(held, shares, atol=1e-12)


def test_counts_of_counts_by_brute_force(monkeypatch, library, total):
    rows = total <= LOWER
    dense = library.toarray()[rows]
    brute = np.array([(dense > level).sum(axis=0) for level in range(dense.max())])
    whole = counts_of_counts(library, rows)
    np.testing.assert_array_equal(whole, brute)
    model = ambient_model(library, total, LOWER)
    likelihoods = log_likelihoods(library, ~rows, model)
    monkeypatch.setattr(empty_drops, "_BLOCK_ENTRIES", 100)
    np.testing.assert_array_equal(counts_of_counts(library, rows), brute)
    np.testing.assert_allclose(log_likelihoods(library, ~rows, model), likelihoods, rtol=1e-12)


def test_blocks_of_draws_change_nothing(monkeypatch, library, total):
    model = ambient_model(library, total, LOWER)
    rows = (total > LOWER) & (total < 400)
    likelihoods = log_likelihoods(library, rows, model)
    found = []
    for size in (1 << 20, 5000):
        monkeypatch.setattr(empty_drops, "_BLOCK_UNIFORMS", size)
        monte_carlo = MonteCarlo(total[rows], likelihoods, model, seed=1)
        monte_carlo.draw(500)
        found.append(monte_carlo.n_lower)
    np.testing.assert_array_equal(*found)


def test_false_discovery_rates_are_those_of_scipy():
    p_values = np.random.default_rng(0).beta(0.3, 2, 200)
    np.testing.assert_allclose(benjamini_hochberg(p_values), stats.false_discovery_control(p_values))
    with_zeros = stats.false_discovery_control(np.append(p_values, np.zeros(30)))
    np.testing.assert_allclose(benjamini_hochberg(p_values, n_certain=30), with_zeros[:200])
    assert len(benjamini_hochberg(np.zeros(0), 3)) == 0
