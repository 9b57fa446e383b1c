"""Per-sample gene statistics equal scanpy's within one batch, and any sample, however small, has an answer."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from immunomod.sample.variable_genes import sample_variances


def assert_as_scanpy(counts: sparse.csr_matrix, n_top: int) -> None:
    scanpy = pytest.importorskip("scanpy")
    ours = sample_variances(counts)
    adata = AnnData(counts.astype(np.float64))
    scanpy.pp.highly_variable_genes(adata, flavor="seurat_v3", n_top_genes=n_top)
    np.testing.assert_allclose(ours["mean"], adata.var["means"], rtol=1e-10)
    np.testing.assert_allclose(ours["variance"], adata.var["variances"], rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(ours["variances_norm"], adata.var["variances_norm"], rtol=1e-8, atol=1e-12)
    chosen = (ours["highly_variable_rank"] < n_top).to_numpy()
    np.testing.assert_array_equal(chosen, adata.var["highly_variable"].to_numpy())


def test_equals_scanpy_on_real_cells(kang_libraries):
    for adata, _ in kang_libraries.values():
        assert_as_scanpy(adata.X, 2000)


def test_equals_scanpy_on_made_cells():
    rng = np.random.default_rng(0)
    mean = rng.gamma(0.4, 2.0, 600)
    counts = rng.poisson(mean * rng.gamma(2, 0.5, size=(150, 600)))
    counts[:, :5] = 0
    assert_as_scanpy(sparse.csr_matrix(counts.astype(np.int32)), 100)


def test_detection_is_counted(kang_libraries):
    adata = kang_libraries["GSM2560248"][0]
    ours = sample_variances(adata.X)
    np.testing.assert_array_equal(ours["n_cells"], (adata.X.toarray() > 0).sum(axis=0))
    assert sorted(ours["highly_variable_rank"]) == list(range(adata.n_vars))


@pytest.mark.parametrize("n_cells", [0, 1, 2, 3, 5, 20])
def test_tiny_samples(n_cells):
    counts = np.random.default_rng(0).poisson(1.0, size=(n_cells, 80)).astype(np.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = sample_variances(sparse.csr_matrix(counts, shape=(n_cells, 80)))
    assert len(table) == 80
    assert table["variances_norm"].isna().all() == (n_cells < 3)
    if n_cells:
        np.testing.assert_allclose(table["mean"], counts.mean(axis=0))
    if n_cells > 1:
        np.testing.assert_allclose(table["variance"], counts.var(axis=0, ddof=1), atol=1e-12)


def test_constant_genes_do_not_vary():
    counts = np.full((10, 6), 3, dtype=np.int32)
    assert sample_variances(sparse.csr_matrix(counts))["variances_norm"].isna().all()
    counts[0, 0] = 9
    table = sample_variances(sparse.csr_matrix(counts))
    assert table["highly_variable_rank"].iloc[0] == 0
    assert (table["variance"].iloc[1:] == 0).all()
