"""The whole way of one sample: every droplet is accounted for, and no sample crashes."""

from __future__ import annotations

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from immunomod.files import read_tsv, write_h5ad, write_tsv
from immunomod.programs import load_programs
from immunomod.sample.process import log_normalise, process_sample
from immunomod.sample.settings import SampleSettings
from immunomod.sample.summary import FILTERS

SETTINGS = SampleSettings.from_config({}, 1)
WITHOUT_DOUBLETS = SampleSettings.from_config({"doublets": {"method": "none"}}, 1)


def made_sample(n_cells: int, seed: int = 0, **columns: list) -> AnnData:
    """Healthy cells of 1,200 genes and 3,000 UMIs, with the obs and var that the reader gives."""
    rng = np.random.default_rng(seed)
    symbols = [f"MT-{i}" for i in range(5)] + ["RPL3", "HBB"] + [f"G{i}" for i in range(1193)]
    profile = rng.gamma(1.0, 1.0, 1200)
    profile[:5] *= 3
    depth = np.exp(rng.normal(8.0, 0.3, n_cells))
    counts = sparse.csr_matrix(rng.poisson(np.outer(depth, profile / profile.sum())).astype(np.int32))
    barcodes = [f"CELL{i}" for i in range(n_cells)]
    obs = pd.DataFrame({"barcode": barcodes}, index=[f"S1:{barcode}" for barcode in barcodes])
    for name, value in {"sample": "S1", "dataset": "D", "condition": "a", "donor": "d1", "organism": "human"}.items():
        obs[name] = pd.Categorical([value] * n_cells)
    for name, values in columns.items():
        obs[name] = values
    var = pd.DataFrame({"gene_id": "", "gene_symbol": symbols}, index=symbols)
    return AnnData(counts, obs=obs, var=var)


@pytest.fixture
def weights() -> pd.DataFrame:
    return pd.DataFrame({"alpha": 1.0, "beta": -1.0}, index=[f"G{i}" for i in range(10)])


def assert_accounted(result, n_cells: int) -> None:
    row = result.qc.iloc[0]
    assert row["cells_before"] == n_cells
    assert row["cells_before"] - sum(row[f"cells_{name}"] for name in FILTERS) == row["cells_after"]
    assert row["cells_after"] == result.filtered.n_obs == result.cells["kept"].sum()
    assert len(result.cells) == n_cells
    removed = result.cells.loc[~result.cells["kept"], "reason"]
    assert set(removed) <= set(FILTERS)
    assert (result.cells.loc[result.cells["kept"], "reason"] == "").all()


def test_every_droplet_is_accounted_for(weights):
    sample = made_sample(
        300,
        in_cells_table=[True] * 298 + [False] * 2,
        author_doublet=["singlet"] * 290 + ["Doublet"] * 3 + ["ambs"] * 7,
        donor=["d1"] * 297 + [""] * 3,
    )
    sample.X[0] = sample.X[0].multiply(0)
    few_genes = sample.X[1].copy()
    few_genes.data[20:] = 0
    few_genes.data[:20] += 100
    sample.X[1] = few_genes
    dying = sample.X[2].tolil()
    dying[0, 0] = 9000
    sample.X[2] = dying
    sample.X.eliminate_zeros()
    result = process_sample(sample, weights, WITHOUT_DOUBLETS)
    assert_accounted(result, 300)
    row = result.qc.iloc[0]
    expected = {
        "not_in_cells_table": 2,
        "no_donor": 1,
        "author_doublet": 3,
        "low_counts": 1,
        "low_genes": 1,
        "high_mt": 1,
    }
    assert {name: row[f"cells_{name}"] for name in FILTERS if row[f"cells_{name}"]} == expected
    assert list(result.cells["reason"].iloc[:3]) == ["low_counts", "low_genes", "high_mt"]
    assert (result.filtered.obs["author_doublet"] == "ambs").sum() == 4  # the other three have no donor


def test_ambiguous_cells_leave_when_the_config_says_so(weights):
    sample = made_sample(120, in_cells_table=[True] * 120, author_doublet=["ambs"] * 20 + ["singlet"] * 100)
    settings = SampleSettings.from_config({"doublets": {"method": "none", "author_values": ["doublet", "ambs"]}}, 1)
    result = process_sample(sample, weights, settings)
    assert result.qc["cells_author_doublet"].item() == 20


def test_a_table_of_labels_alone_removes_nobody(weights):
    sample = made_sample(120, in_cells_table=[True] * 100 + [False] * 20, author_label=["T"] * 100 + [""] * 20)
    result = process_sample(sample, weights, WITHOUT_DOUBLETS)
    assert result.qc["cells_not_in_cells_table"].item() == 0


def test_filtered_cells_carry_what_later_floors_read(weights, tmp_path):
    sample = made_sample(150)
    result = process_sample(sample, weights, WITHOUT_DOUBLETS)
    write_h5ad(result.filtered, tmp_path / "filtered.h5ad")
    filtered = ad.read_h5ad(tmp_path / "filtered.h5ad")
    assert sparse.isspmatrix_csr(filtered.X)
    assert filtered.X.dtype == np.float32
    assert filtered.layers["counts"].dtype == np.int32
    assert {"mean", "variance", "variances_norm", "highly_variable_rank", "n_cells"} <= set(filtered.var)
    assert {"score_alpha", "score_beta", "doublet_score", "predicted_doublet", "pct_counts_hb"} <= set(filtered.obs)
    counts = sample[filtered.obs_names].X.toarray()
    np.testing.assert_array_equal(filtered.layers["counts"].toarray(), counts)
    expected = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    np.testing.assert_allclose(filtered.X.toarray(), expected, rtol=1e-5)
    assert filtered.uns["immunomod"]["settings"]["seed"] == 1
    assert "scikit-misc" in filtered.uns["immunomod"]["versions"]


def test_places_that_layers_share_with_expression_are_stored_once(weights, tmp_path):
    filtered = process_sample(made_sample(150), weights, WITHOUT_DOUBLETS).filtered
    filtered.layers["other"] = sparse.csr_matrix(np.eye(*filtered.shape, dtype=np.float32))
    write_h5ad(filtered, tmp_path / "filtered.h5ad")
    with h5py.File(tmp_path / "filtered.h5ad") as file:
        for places in ("indices", "indptr"):
            assert file[f"layers/counts/{places}"] == file[f"X/{places}"] != file[f"layers/other/{places}"]
    stored = ad.read_h5ad(tmp_path / "filtered.h5ad")
    for one, other in (
        (stored.X, filtered.X),
        *((stored.layers[name], filtered.layers[name]) for name in stored.layers),
    ):
        assert one.dtype == other.dtype and one.indices.dtype == other.indices.dtype
        np.testing.assert_array_equal(one.toarray(), other.toarray())
    assert list(stored.layers) == ["counts", "other"] and "settings" in stored.uns["immunomod"]


def test_counts_read_from_disk_give_the_same(weights, tmp_path):
    sample = made_sample(150, in_cells_table=[True] * 149 + [False], author_doublet=["singlet"] * 149 + [""])
    sample.var["gene_symbol"] = sample.var["gene_symbol"].replace("G7", "G8")  # a repeated symbol is stored as category
    sample.obs["donor"] = pd.Categorical(["d1"] * 100 + ["d2"] * 49 + [""])
    write_h5ad(sample, tmp_path / "counts.h5ad")
    one = process_sample(sample, weights, SETTINGS)
    other = process_sample(ad.read_h5ad(tmp_path / "counts.h5ad"), weights, SETTINGS)
    pd.testing.assert_frame_equal(one.cells, other.cells)
    pd.testing.assert_frame_equal(one.qc, other.qc)
    assert one.qc["cells_not_in_cells_table"].item() == 1
    assert (one.filtered.X != other.filtered.X).nnz == 0


def test_input_is_left_as_it_was(weights):
    sample = made_sample(120)
    before = sample.copy()
    process_sample(sample, weights, WITHOUT_DOUBLETS)
    assert (sample.X != before.X).nnz == 0
    pd.testing.assert_frame_equal(sample.obs, before.obs)
    pd.testing.assert_frame_equal(sample.var, before.var)


@pytest.mark.parametrize("n_cells", [1, 2, 3, 10, 49, 60, 99])
def test_tiny_samples_pass_through(n_cells, weights, tmp_path):
    result = process_sample(made_sample(n_cells), weights, SETTINGS)
    assert_accounted(result, n_cells)
    row = result.qc.iloc[0]
    assert row["cells_after"] == n_cells
    assert row["total_counts_lower_from"] == "fixed"
    assert "fewer than 100 cells: fixed limits" in row["reason"]
    assert row["verdict"] == ("fail" if n_cells < 10 else "warn")
    few = "1 cell passes" if n_cells == 1 else "cells pass"
    assert (few if n_cells < 50 else "does not separate doublets") in row["reason"]
    write_h5ad(result.filtered, tmp_path / "filtered.h5ad")
    assert ad.read_h5ad(tmp_path / "filtered.h5ad").n_obs == row["cells_after"]


@pytest.mark.parametrize("n_cells", [1, 200])
def test_a_sample_of_which_no_cell_passes(n_cells, weights, tmp_path):
    sample = made_sample(n_cells)
    sample.X = sparse.csr_matrix(sample.X.shape, dtype=np.int32)
    result = process_sample(sample, weights, SETTINGS)
    assert_accounted(result, n_cells)
    assert result.filtered.shape == (0, 1200)
    assert result.qc["verdict"].item() == "fail"
    assert result.qc["reason"].item().startswith(f"no cell passes: {n_cells} low_counts")
    write_h5ad(result.filtered, tmp_path / "filtered.h5ad")
    filtered = ad.read_h5ad(tmp_path / "filtered.h5ad")
    assert filtered.shape == (0, 1200)
    assert filtered.layers["counts"].shape == (0, 1200)
    assert {"score_alpha", "total_counts"} <= set(filtered.obs)
    write_tsv(result.qc, tmp_path / "qc.tsv")
    assert read_tsv(tmp_path / "qc.tsv")["cells_after"].item() == 0


def test_a_table_that_knows_no_cell(weights):
    sample = made_sample(30, in_cells_table=[False] * 29 + [True], donor=[""] * 29 + ["d1"])
    result = process_sample(sample, weights, SETTINGS)
    assert result.qc["cells_not_in_cells_table"].item() == 29
    assert_accounted(result, 30)


def test_a_library_that_lost_most_droplets_gets_a_warning(weights):
    sample = made_sample(300)
    sample.X[:200] = sparse.csr_matrix(np.minimum(sample.X[:200].toarray(), 0))
    sample.X.eliminate_zeros()
    row = process_sample(sample, weights, WITHOUT_DOUBLETS).qc.iloc[0]
    assert row["verdict"] == "warn"
    assert "67% of the cells were removed" in row["reason"]


def test_limits_of_the_sheet_win_over_those_found(weights):
    sample = made_sample(300)
    plain = process_sample(sample, weights, WITHOUT_DOUBLETS)
    assert plain.qc["cells_low_counts"].item() == 0
    totals = plain.cells["total_counts"]
    own = process_sample(sample, weights, WITHOUT_DOUBLETS, own_limits={"min_counts": 2500, "max_pct_mt": 0.5})
    row = own.qc.iloc[0]
    assert_accounted(own, 300)
    assert (row["total_counts_lower"], row["total_counts_lower_from"]) == (2500, "sheet")
    assert row["cells_low_counts"] == (totals < 2500).sum() > 0
    left = plain.cells[totals >= 2500]
    assert row["cells_high_mt"] == (left["pct_counts_mt"] > 0.5).sum() > 0
    assert "limits of the sheet: low_counts, high_mt" in row["reason"]
    assert row["n_genes_by_counts_lower"] == plain.qc["n_genes_by_counts_lower"].item()


def test_log_normalise_of_an_empty_cell():
    matrix = sparse.csr_matrix(np.array([[0, 0], [1, 3]], dtype=np.int32))
    np.testing.assert_allclose(log_normalise(matrix).toarray(), [[0, 0], np.log1p([2500, 7500])], rtol=1e-6)


@pytest.mark.slow
def test_real_lanes(kang_libraries):
    programs = load_programs()
    for sample, (adata, _) in kang_libraries.items():
        result = process_sample(adata, programs, SETTINGS)
        assert_accounted(result, 1000)
        row = result.qc.iloc[0]
        assert row["sample"] == sample
        assert row["verdict"] == "pass"
        assert row["cells_after"] > 970
        assert row["doublet_rate"] < 0.02
        assert "no mitochondrial gene" in row["reason"]
        assert result.filtered.obs["score_imm_type1_ifn"].notna().all()
        again = process_sample(adata, programs, SETTINGS)
        pd.testing.assert_frame_equal(again.cells, result.cells)
        pd.testing.assert_frame_equal(again.qc, result.qc)
