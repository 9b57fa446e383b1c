"""TMM factors and log2 CPM against edgeR; what TMM is for."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from immunomod.contrast.normalise import log2_cpm, tmm_factors

REFERENCE = Path(__file__).parent / "reference"


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    table = pd.read_csv(REFERENCE / "counts.tsv", sep="\t", index_col="gene")
    return table.to_numpy(dtype=float).T


@pytest.fixture(scope="module")
def edger_factors() -> np.ndarray:
    return pd.read_csv(REFERENCE / "edger_factors.tsv", sep="\t")["tmm"].to_numpy()


def test_factors_equal_edger(counts, edger_factors):
    np.testing.assert_allclose(tmm_factors(counts), edger_factors, rtol=1e-10)


def test_log2_cpm_equals_edger(counts, edger_factors):
    expected = pd.read_csv(REFERENCE / "edger_log_cpm.tsv", sep="\t").drop(columns=["gene", "kept"]).to_numpy().T
    np.testing.assert_allclose(log2_cpm(counts, counts.sum(axis=1) * edger_factors, 2.0), expected, rtol=1e-10)


def test_factors_do_not_depend_on_the_order_of_genes_or_units(counts):
    rng = np.random.default_rng(0)
    genes, units = rng.permutation(counts.shape[1]), rng.permutation(counts.shape[0])
    shuffled = tmm_factors(counts[units][:, genes])
    np.testing.assert_allclose(shuffled, tmm_factors(counts)[units], rtol=1e-12)


def test_factors_undo_a_composition_effect():
    rng = np.random.default_rng(1)
    rate = np.exp(rng.normal(4, 1, 2000))
    induced = rate.copy()
    induced[:100] *= 30
    counts = rng.poisson(np.vstack([rate / rate.sum(), induced / induced.sum()]) * 400_000).astype(float)
    effective = counts.sum(axis=1) * tmm_factors(counts)
    change = np.log2(counts[1, 100:].sum() / effective[1]) - np.log2(counts[0, 100:].sum() / effective[0])
    naive = np.log2(counts[1, 100:].sum() / counts[1].sum()) - np.log2(counts[0, 100:].sum() / counts[0].sum())
    assert naive < -0.5
    assert abs(change) < 0.05


@pytest.mark.parametrize("counts", [np.zeros((3, 5)), np.ones((1, 5)), np.eye(3), np.ones((3, 1))])
def test_factors_are_one_where_nothing_can_be_said(counts):
    np.testing.assert_allclose(tmm_factors(counts), 1)
