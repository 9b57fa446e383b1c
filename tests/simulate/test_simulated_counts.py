import numpy as np
import pytest

from immunomod.simulate.counts import dispersion_trend, draw_barcodes, draw_cells, draw_leakage


def test_draw_cells_has_the_moments_of_the_negative_binomial():
    share = np.array([0.5, 0.3, 0.15, 0.05])
    depth, n = 40.0, 60_000
    counts = draw_cells(share, np.full(n, depth), np.float64(1.0), 0.3, np.random.default_rng(1))
    mean = depth * share
    phi = dispersion_trend(share, 0.3)
    variance = mean + phi * mean**2
    assert counts.dtype == np.int32
    np.testing.assert_allclose(counts.mean(axis=0), mean, atol=(4 * np.sqrt(variance / n)).max())
    np.testing.assert_allclose(counts.var(axis=0), variance, rtol=0.05)
    # P(0) of the negative binomial, (1 + phi mu)^(-1/phi)
    zero = (1 + phi * mean) ** (-1 / phi)
    np.testing.assert_allclose((counts == 0).mean(axis=0), zero, atol=0.01)


def test_without_dispersion_counts_are_poisson():
    counts = draw_cells(np.array([1.0]), np.full(50_000, 7.0), np.float64(1.0), 0.0, np.random.default_rng(2))
    assert counts.mean() == pytest.approx(7.0, abs=0.06)
    assert counts.var() == pytest.approx(7.0, rel=0.03)


def test_a_gene_without_expression_has_no_counts_and_a_factor_moves_its_genes_only():
    share = np.array([0.0, 0.5, 0.5])
    factor = np.array([[1.0, 3.0, 1.0]])
    counts = draw_cells(share, np.full(20_000, 10.0), factor, 0.1, np.random.default_rng(3))
    assert counts[:, 0].sum() == 0
    assert counts[:, 1].mean() == pytest.approx(15.0, rel=0.02)
    assert counts[:, 2].mean() == pytest.approx(5.0, rel=0.02)


def test_dispersion_falls_to_its_asymptote_and_doubles_at_fifty_per_million():
    trend = dispersion_trend(np.array([1e-9, 50e-6, 1e-2]), 0.2)
    assert trend[0] == pytest.approx(1.6)
    assert trend[1] == pytest.approx(0.4)
    assert trend[2] == pytest.approx(0.2, rel=0.1)


def test_leaked_molecules_are_the_share_that_was_asked_for():
    ambient = np.array([0.7, 0.3])
    leaked = draw_leakage(ambient, 1000.0, 0.2, 5000, np.random.default_rng(4))
    total = leaked.sum(axis=1).mean()
    assert total / (total + 1000) == pytest.approx(0.2, rel=0.01)
    assert leaked[:, 0].sum() / leaked.sum() == pytest.approx(0.7, abs=0.01)


def test_barcodes_are_distinct_and_look_like_cellrangers():
    barcodes = draw_barcodes(500, np.random.default_rng(5))
    assert len(set(barcodes)) == 500
    assert all(len(barcode) == 18 and set(barcode[:16]) <= set("ACGT") for barcode in barcodes)
    assert all(barcode.endswith("-1") for barcode in barcodes)
