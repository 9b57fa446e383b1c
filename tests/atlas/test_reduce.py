"""Variable genes against scanpy, columns against slices, and PCA against scikit-learn."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import linalg, sparse
from sklearn.decomposition import PCA

from immunomod.atlas.components import principal_components
from immunomod.atlas.reduce import read_gene_columns
from immunomod.atlas.variable_genes import SampleGenes, combine_gene_statistics, is_left_out, shared_gene_axes


def genes_of(sample: str, statistics: dict[str, float], dataset: str = "d", ids: bool = False) -> SampleGenes:
    symbols = list(statistics)
    index = [f"ENSG{symbol}" for symbol in symbols] if ids else symbols
    var = pd.DataFrame(
        {"gene_id": index if ids else "", "gene_symbol": symbols, "variances_norm": list(statistics.values())},
        index=index,
    )
    return SampleGenes(sample, dataset, var, 10)


def test_variable_genes_equal_scanpy_with_batch_key() -> None:
    generator = np.random.default_rng(0)
    means = generator.gamma(2.0, 3.0, size=600)  # high enough that no two genes tie
    blocks = [
        ad.AnnData(sparse.csr_matrix(generator.negative_binomial(2, 2 / (2 + means * scale), size=(n, 600))))
        for n, scale in [(150, 1.0), (220, 0.7), (90, 1.6)]
    ]
    for block in blocks:
        block.var_names = [f"G{number}" for number in range(600)]
        block.X = block.X.astype(np.float32)
    whole = ad.concat(blocks, label="sample", keys=["a", "b", "c"], index_unique="-")
    expected = sc.pp.highly_variable_genes(
        whole, flavor="seurat_v3", batch_key="sample", n_top_genes=120, inplace=False
    )

    samples = []
    for name, block in zip("abc", blocks, strict=True):
        var = sc.pp.highly_variable_genes(block, flavor="seurat_v3", n_top_genes=120, inplace=False)
        var = var.assign(gene_id="", gene_symbol=block.var_names)
        samples.append(SampleGenes(name, "d", var, block.n_obs))
    found = combine_gene_statistics(samples, 120)

    assert found["highly_variable"].sum() == 120
    assert set(found.index[found["highly_variable"]]) == set(expected.index[expected["highly_variable"]])
    np.testing.assert_allclose(found["variances_norm"], expected["variances_norm"], rtol=1e-10)
    np.testing.assert_array_equal(found["highly_variable_rank"], expected["highly_variable_rank"])
    np.testing.assert_array_equal(found["highly_variable_nbatches"], expected["highly_variable_nbatches"])


@pytest.mark.slow
def test_variable_genes_of_real_lanes_equal_scanpy(kang_paths: list[Path]) -> None:
    lanes = [ad.read_h5ad(path) for path in kang_paths]
    whole = ad.concat(lanes, label="lane", keys=["a", "b"])
    expected = sc.pp.highly_variable_genes(
        whole, flavor="seurat_v3", layer="counts", batch_key="lane", n_top_genes=2000, inplace=False
    )
    kept = ~whole.var_names.map(is_left_out).to_numpy(dtype=bool)
    samples = [
        SampleGenes(name, "d", lane.var.assign(gene_symbol=lane.var_names), lane.n_obs)
        for name, lane in zip("ab", lanes, strict=True)
    ]
    found = combine_gene_statistics(samples, 2000)
    np.testing.assert_allclose(found["variances_norm"], expected["variances_norm"], rtol=1e-6)
    agree = found["highly_variable"].to_numpy() == expected["highly_variable"].to_numpy()
    # leaving out receptor and ribosomal genes makes room for others; ties make up the rest
    assert agree[kept].mean() > 0.98
    assert expected.loc[found.index[found["highly_variable"]], "highly_variable"].mean() > 0.95


def test_tiny_samples_fall_back_to_plain_variance() -> None:
    sample = genes_of("a", {"G1": np.nan, "G2": np.nan, "G3": np.nan})
    sample.var["variance"] = [0.1, 3.0, 2.0]
    found = combine_gene_statistics([sample], 2)
    assert found.index[found["highly_variable"]].tolist() == ["G2", "G3"]


def test_a_gene_that_a_whole_dataset_lacks_is_no_candidate_but_one_that_a_file_lacks_is() -> None:
    samples = [
        genes_of("a", {"G1": 1, "G2": 9, "G3": 8}, "first"),
        genes_of("b", {"G1": 2, "G3": 7}, "first"),
        genes_of("c", {"G1": 1, "G2": 5}, "second"),
    ]
    found = combine_gene_statistics(samples, 2)
    assert found["highly_variable"].to_dict() == {"G1": True, "G2": True, "G3": False}
    assert found["n_samples"].to_dict() == {"G1": 3, "G2": 2, "G3": 2}


@pytest.mark.parametrize("symbol", ["TRAV1-2", "TRBV20-1", "TRDJ1", "IGHV3-23", "IGKJ1", "MT-CO1", "mt-Nd1", "RPL13A",
                                    "RPS4Y1", "Rps27a", "RPLP0", "RPSA", "Igkv1-110", "RPL36AL"])  # fmt: skip
def test_clone_and_depth_genes_are_left_out(symbol: str) -> None:
    assert is_left_out(symbol)


@pytest.mark.parametrize("symbol", ["TRAC", "TRBC1", "TRDC", "IGHM", "IGHG1", "IGKC", "MTOR", "RPS6KA1", "MKI67",
                                    "TRADD", "TRAF1", "RPSAP9X"])  # fmt: skip
def test_class_genes_stay(symbol: str) -> None:
    assert not is_left_out(symbol)


def test_samples_with_and_without_ids_meet_by_symbol() -> None:
    first = genes_of("a", {"G1": 1, "G2": 2}, ids=True)
    doubled = SampleGenes("a", "d", pd.concat([first.var, first.var.iloc[[1]].rename(index=lambda n: n + "b")]), 5)
    doubled = SampleGenes("a", "d", doubled.var.assign(gene_id=doubled.var.index, mean=[1.0, 0.1, 3.0]), 5)
    with_ids, without = shared_gene_axes([doubled, genes_of("b", {"G2": 1, "G1": 2})])
    assert list(with_ids.var.index) == ["G1", "G2"]
    assert with_ids.var.loc["G2", "_column"] == 2
    assert set(without.var.index) == {"G1", "G2"}


def test_columns_are_read_in_blocks_and_absent_genes_are_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("immunomod.atlas.reduce._ROWS_AT_ONCE", 7)
    matrix = sparse.random(40, 30, density=0.3, format="csr", random_state=1, dtype=np.float32)
    ad.AnnData(matrix).write_h5ad(tmp_path / "s.h5ad")
    columns = np.array([5, -1, 0, 29, -1])
    place = np.full(30, -1)
    place[columns[columns >= 0]] = np.flatnonzero(columns >= 0)
    found = read_gene_columns(tmp_path / "s.h5ad", place, len(columns))
    expected = matrix.toarray()[:, columns]
    expected[:, columns < 0] = 0
    assert found.has_sorted_indices
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.toarray(), expected)


@pytest.mark.parametrize("few_cells", [5_000, 0])
def test_components_equal_dense_pca(few_cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("immunomod.atlas.components._ROWS_AT_ONCE", 64)
    monkeypatch.setattr("immunomod.atlas.components._DENSE_ROWS", 64)
    monkeypatch.setattr("immunomod.atlas.components._FEW_CELLS", few_cells)
    generator = np.random.default_rng(3)
    low_rank = generator.normal(size=(300, 8)) * np.arange(8, 0, -1) @ generator.normal(size=(8, 90))
    dense = np.where(generator.random((300, 90)) < 0.4, np.abs(low_rank), 0).astype(np.float32)
    found = principal_components(sparse.csr_matrix(dense), 6)
    expected = PCA(6, svd_solver="full").fit(dense.astype(float))
    assert linalg.subspace_angles(found.loadings, expected.components_.T).max() < 1e-6
    np.testing.assert_allclose(found.variance_ratio, expected.explained_variance_ratio_, rtol=1e-8)
    np.testing.assert_allclose(np.abs(found.scores), np.abs(expected.transform(dense)), atol=1e-3)
    largest = found.loadings[np.abs(found.loadings).argmax(axis=0), np.arange(6)]
    assert (largest > 0).all()


def test_components_of_few_cells_are_fewer() -> None:
    found = principal_components(sparse.csr_matrix(np.eye(4, 9, dtype=np.float32)), 30)
    assert found.scores.shape == (4, 3)
