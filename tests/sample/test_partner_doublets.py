"""MSC-immune doublets: the tail and the fit against scipy and known truth, and calls in simulated co-cultures."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats

from immunomod.sample.doublets import REGISTRY, PartnerDoublets, judge_partner_doublets, partner_doublets
from immunomod.sample.doublets.partner import fit_background, negative_binomial_tail
from immunomod.sample.settings import DoubletSettings
from support.doublet_libraries import exclusive_genes, simulated


@pytest.mark.parametrize("overdispersion", [0.0, 0.02, 0.7])
def test_the_tail_is_that_of_scipy(overdispersion):
    rng = np.random.default_rng(1)
    mean, counts = rng.uniform(0.01, 300, 500), rng.integers(0, 600, 500).astype(float)
    found = negative_binomial_tail(counts, mean, overdispersion)
    if overdispersion:
        size = 1 / overdispersion
        expected = stats.nbinom.sf(counts - 1, size, size / (size + mean))
    else:
        expected = stats.poisson.sf(counts - 1, mean)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-290)


@pytest.mark.parametrize(("intercept", "slope"), [(400.0, 0.0), (0.0, 0.04), (60.0, 0.02)])
@pytest.mark.parametrize("overdispersion", [0.0, 0.03])
@pytest.mark.parametrize("doublets", [0.0, 0.25])
def test_the_fit_recovers_the_leakage_beside_doublets(intercept, slope, overdispersion, doublets):
    rng = np.random.default_rng(7)
    totals = rng.lognormal(8.8, 0.4, 1500)
    mean = intercept + slope * totals
    rate = mean * rng.gamma(1 / overdispersion, overdispersion, 1500) if overdispersion else mean
    partner = rng.poisson(250, 1500) * (rng.random(1500) < doublets)
    found = fit_background(rng.poisson(rate).astype(float) + partner, totals + 6 * partner)
    middle = np.median(totals)
    assert found.intercept + found.slope * middle == pytest.approx(intercept + slope * middle, rel=0.06)
    assert found.overdispersion == pytest.approx(overdispersion, abs=0.05 if doublets else 0.015)


@pytest.mark.slow
@pytest.mark.parametrize("leakage", [0.0, 0.002, 0.1, 0.2, 0.3])
def test_leakage_alone_calls_nobody(leakage):
    library = simulated(11, leakage, doublet_rate=0.0)
    found = partner_doublets(library.counts, *exclusive_genes(), library.compartment)
    assert found.note == ""
    assert found.predicted.mean() < 0.002


@pytest.mark.slow
@pytest.mark.parametrize(("leakage", "power"), [(0.002, 0.95), (0.1, 0.95), (0.2, 0.9), (0.3, 0.85)])
def test_most_doublets_that_scrublet_misses_are_found(leakage, power):
    """Only where an MSC's droplet caught an immune cell does the simulation leak the immune cells' RNA into it.

    The other half of the mixed doublets holds no leaked immune RNA, so at much leakage less of it than a single MSC.
    """
    library = simulated(12, leakage, scale=8)
    found = partner_doublets(library.counts, *exclusive_genes(), library.compartment)
    scrublet = REGISTRY["scrublet"].run(library.counts, 0.05, 1)
    missed = library.mixed & ~scrublet.predicted & (library.first_is_msc | (leakage < 0.15))
    assert missed.any()
    assert found.predicted[missed].mean() > 0.5
    assert found.predicted[library.mixed & library.first_is_msc].mean() >= power
    assert found.predicted[~library.mixed].mean() < 0.005


@pytest.fixture(scope="module")
def library():
    return simulated(21, 0.05, scale=3)


def test_a_doublet_without_a_compartment_is_found(library):
    found = partner_doublets(library.counts, *exclusive_genes(), library.compartment)
    open_ = np.where(library.mixed, "", library.compartment)
    without = partner_doublets(library.counts, *exclusive_genes(), open_)
    assert found.predicted[library.mixed].mean() > 0.6
    assert without.predicted[library.mixed].mean() >= found.predicted[library.mixed].mean()


def test_a_wrong_label_is_no_doublet(library):
    """Ten of each compartment stand in the other."""
    labels = library.compartment.copy()
    for side, other in (("MSC", "immune"), ("immune", "MSC")):
        labels[np.flatnonzero((library.compartment == side) & ~library.mixed)[:10]] = other
    found = partner_doublets(library.counts, *exclusive_genes(), labels)
    assert found.predicted[~library.mixed].mean() < 0.005
    assert found.predicted[library.mixed].mean() > 0.6


def test_what_is_known_of_leakage_only_raises_what_the_cells_show(library):
    arguments = (library.counts, *exclusive_genes(), library.compartment)
    free = partner_doublets(*arguments)
    low = partner_doublets(*arguments, expected_share={"MSC": 0.0, "immune": 0.0})
    high = partner_doublets(*arguments, expected_share={"MSC": 0.5, "immune": 0.5})
    each = partner_doublets(*arguments, expected_share=np.full(len(library.mixed), 0.5))
    np.testing.assert_array_equal(free.p_value, low.p_value)
    assert (high.p_value >= free.p_value - 1e-12).all()
    assert not high.predicted.any()
    assert not each.predicted.any()
    spread = partner_doublets(*arguments, overdispersion={"MSC": 2.0, "immune": 2.0})
    assert spread.predicted.sum() < free.predicted.sum()


def test_the_order_of_cells_does_not_matter(library):
    order = np.random.default_rng(0).permutation(len(library.mixed))
    one = partner_doublets(library.counts, *exclusive_genes(), library.compartment)
    other = partner_doublets(library.counts[order], *exclusive_genes(), library.compartment[order])
    np.testing.assert_allclose(other.p_value, one.p_value[order], rtol=1e-6)


def test_the_score_is_how_much_of_a_typical_cell_is_there():
    """MSC of 8,000 molecules, immune cells of 2,000, and MSC with a whole and with half an immune cell; no leakage."""
    rng = np.random.default_rng(1)
    msc, immune = np.r_[np.full(10, 0.05), np.zeros(10), 0.5], np.r_[np.zeros(10), np.full(10, 0.03), 0.7]
    whole_msc, whole_immune = (
        np.repeat([1.0, 0.0, 1.0, 1.0], [100, 100, 20, 20]),
        np.repeat([0, 1, 1, 0.5], [100, 100, 20, 20]),
    )
    counts = rng.poisson(8000 * whole_msc[:, None] * msc + 2000 * whole_immune[:, None] * immune)
    label = np.where(whole_msc > 0, "MSC", "immune")
    genes = np.arange(21)
    matrix = sparse.csr_matrix(counts.astype(np.int32))
    found = partner_doublets(matrix, genes < 10, (genes >= 10) & (genes < 20), label)
    assert np.median(found.score[200:220]) == pytest.approx(1.0, rel=0.05)
    assert np.median(found.score[220:]) == pytest.approx(0.5, rel=0.05)
    assert found.predicted[200:].all()
    assert not found.predicted[:200].any()


def test_one_compartment_alone_is_not_tested(library):
    found = partner_doublets(library.counts, *exclusive_genes(), np.full(len(library.mixed), "immune"))
    assert "0 MSC cells where 20 are needed" in found.note
    assert np.isnan(found.p_value).all()
    assert not found.predicted.any()


@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (60, 4), (60, 0)])
def test_odd_libraries_are_not_tested(shape):
    nothing = np.zeros(shape[1], dtype=bool)
    label = np.where(np.arange(shape[0]) % 2, "MSC", "immune")
    found = partner_doublets(sparse.csr_matrix(shape, dtype=np.int32), nothing, nothing, label)
    assert "not looked for" in found.note
    assert found.predicted.shape == (shape[0],)


def test_without_exclusive_genes_nothing_is_tested(library):
    none = np.zeros(library.counts.shape[1], dtype=bool)
    found = partner_doublets(library.counts, none, exclusive_genes()[1], library.compartment)
    assert "MSC cells show no genes of their own" in found.note


def test_masks_of_the_wrong_length_are_refused(library):
    with pytest.raises(ValueError, match="one value per gene"):
        partner_doublets(library.counts, np.ones(3, dtype=bool), np.ones(3, dtype=bool), library.compartment)


@pytest.mark.parametrize(("share", "remove", "outcome"), [(0.05, True, 5), (0.05, False, 0), (0.4, True, 0)])
def test_too_many_calls_are_kept(share, remove, outcome):
    predicted = np.arange(100) < 100 * share
    found = PartnerDoublets(np.zeros(100), np.zeros(100), np.zeros(100), predicted, {}, "")
    judged = judge_partner_doublets(found, 0.05, DoubletSettings(remove=remove))
    assert judged.removed.sum() == outcome
    assert ("40.0% called MSC-immune doublets" in judged.warning) == (share == 0.4)
