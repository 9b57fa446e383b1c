"""Sums per replicate and cell class against a loop over cells."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from immunomod.contrast.pseudobulk import pseudobulk

CLASSES = {"T": ("immune", "T"), "MSC": ("MSC", "MSC")}


def make_sample(name: str, donors: list[str], n_cells: int, genes: list[str], seed: int) -> AnnData:
    rng = np.random.default_rng(seed)
    counts = sparse.csr_matrix(rng.poisson(0.7, size=(n_cells, len(genes))).astype(np.int32))
    obs = pd.DataFrame(
        {
            "sample": name,
            "donor": rng.choice(donors, n_cells),
            "cell_class": rng.choice(list(CLASSES), n_cells),
            "condition": f"condition of {name}",
            "time_h": "24",
            "cluster": rng.choice(["0", "1"], n_cells),
            "total_counts": np.asarray(counts.sum(axis=1)).ravel().astype(float),
        },
        index=[f"{name}:cell{i}" for i in range(n_cells)],
    )
    obs["compartment"] = [CLASSES[cell_class][0] for cell_class in obs["cell_class"]]
    obs["lineage"] = [CLASSES[cell_class][1] for cell_class in obs["cell_class"]]
    var = pd.DataFrame({"gene_symbol": genes}, index=[f"ENSG{i}" for i in range(len(genes))])
    return AnnData(X=sparse.csr_matrix(counts.astype(np.float32) * 0.5), obs=obs, var=var, layers={"counts": counts})


@pytest.fixture
def samples() -> list[AnnData]:
    return [
        make_sample("s1", ["D1", "D2"], 40, ["CD3E", "IDO1", "CD3E", "GAPDH"], 1),
        make_sample("s2", ["D2"], 30, ["GAPDH", "CXCL9", "IDO1", "CD3E"], 2),
    ]


@pytest.fixture
def cells(samples) -> pd.DataFrame:
    return pd.concat([sample.obs for sample in samples])


def brute_force(samples: list[AnnData], cells: pd.DataFrame) -> dict[tuple[str, str, str, str], int]:
    sums: dict[tuple[str, str, str, str], int] = {}
    for sample in samples:
        dense = sample.layers["counts"].toarray()
        for i, name in enumerate(sample.obs_names):
            if name not in cells.index:
                continue
            unit = tuple(cells.loc[name, ["sample", "donor", "cell_class"]])
            for j, symbol in enumerate(sample.var["gene_symbol"]):
                sums[(*unit, symbol)] = sums.get((*unit, symbol), 0) + int(dense[i, j])
    return sums


def check(result: AnnData, samples: list[AnnData], cells: pd.DataFrame) -> None:
    expected = brute_force(samples, cells)
    for i, unit in enumerate(result.obs[["sample", "donor", "cell_class"]].itertuples(index=False)):
        for j, gene in enumerate(result.var_names):
            assert result.X[i, j] == expected.get((*unit, gene), 0), (unit, gene)
    assert result.X.sum() == sum(expected.values())


def test_sums_equal_a_loop_over_cells(samples, cells):
    result = pseudobulk(samples, cells)
    check(result, samples, cells)
    assert list(result.var_names) == ["CD3E", "CXCL9", "GAPDH", "IDO1"]
    assert list(result.var["n_samples"]) == [2, 1, 2, 2]
    assert result.X.dtype == np.int64
    counted = cells.value_counts(["sample", "donor", "cell_class"])
    for unit in result.obs.itertuples():
        assert unit.n_cells == counted[(unit.sample, unit.donor, unit.cell_class)]


def test_order_of_cells_samples_and_genes_does_not_matter(samples, cells):
    rng = np.random.default_rng(0)
    plain = pseudobulk(samples, cells)
    shuffled = [
        sample[rng.permutation(sample.n_obs)][:, rng.permutation(sample.n_vars)].copy() for sample in samples[::-1]
    ]
    other = pseudobulk(shuffled, cells.iloc[rng.permutation(len(cells))])
    assert (plain.X != other.X).nnz == 0
    pd.testing.assert_frame_equal(plain.obs, other.obs)
    pd.testing.assert_frame_equal(plain.var, other.var)


def test_only_cells_of_the_atlas_count_and_under_its_labels(samples, cells):
    chosen = cells.iloc[::3].copy()
    chosen["cell_class"] = "T"
    chosen["compartment"], chosen["lineage"] = "immune", "T"
    result = pseudobulk(samples, chosen)
    check(result, samples, chosen)
    assert set(result.obs["cell_class"]) == {"T"}


def test_columns_that_are_constant_in_replicates_are_carried_as_text(samples, cells):
    cells["dose"] = np.where(cells["sample"] == "s1", "0.1", "")
    cells["pct_counts_mt"] = np.nan  # a measurement of cells, though it holds one value
    obs = pseudobulk(samples, cells.astype({"sample": "category", "donor": "category", "cell_class": "category"})).obs
    assert set(obs.columns) == {
        *("sample", "donor", "cell_class", "compartment", "lineage", "n_cells", "condition", "time_h", "dose")
    }
    assert set(obs["condition"]) == {"condition of s1", "condition of s2"}
    assert dict(zip(obs["sample"], obs["dose"], strict=True)) == {"s1": "0.1", "s2": ""}


def test_cell_cycle_and_stress_are_averaged_over_the_cells_of_a_unit(samples, cells, tmp_path):
    rng = np.random.default_rng(3)
    cells["S_score"] = rng.normal(size=len(cells)).astype(np.float32)
    cells.loc[cells.index[::7], "S_score"] = np.nan
    cells["dissociation_score"] = np.where(cells["sample"] == "s2", np.nan, rng.normal(size=len(cells)))
    cells["phase"] = rng.choice(["S", "G2M", "G1", ""], len(cells))
    result = pseudobulk(samples, cells)
    for unit in result.obs.itertuples():
        of_unit = [one for one in cells.itertuples() if (one.sample, one.donor, one.cell_class) == unit[1:4]]
        scores = [one.S_score for one in of_unit if one.S_score == one.S_score]
        assert unit.mean_S_score == pytest.approx(sum(scores) / len(scores), rel=1e-5)
        known = [one.phase in ("S", "G2M") for one in of_unit if one.phase]
        assert unit.cycling_fraction == pytest.approx(sum(known) / len(known))
        assert (unit.cells_cycling, unit.cells_with_phase) == (sum(known), len(known))
        assert np.isnan(unit.mean_dissociation_score) == (unit.sample == "s2")
    assert "mean_G2M_score" not in result.obs
    result.write_h5ad(tmp_path / "pseudobulk.h5ad")


def test_a_sheet_column_keeps_its_name_from_a_measurement(samples, cells):
    obs = pseudobulk(samples, cells.assign(phase="G1", cycling_fraction="0.5")).obs
    assert list(obs["cycling_fraction"]) == ["0.5"] * len(obs)


def test_files_are_read_and_survive_writing(samples, cells, tmp_path):
    paths = []
    for sample in samples:
        paths.append(tmp_path / f"{sample.obs['sample'].iloc[0]}.h5ad")
        sample.write_h5ad(paths[-1])
    result = pseudobulk(paths, cells)
    check(result, samples, cells)
    result.write_h5ad(tmp_path / "pseudobulk.h5ad")


def test_counts_without_a_layer_and_symbols_without_a_column(samples, cells):
    plain = AnnData(
        X=samples[0].layers["counts"], obs=samples[0].obs, var=pd.DataFrame(index=["CD3E", "IDO1", "CD8A", "GAPDH"])
    )
    result = pseudobulk([plain], cells)
    assert list(result.var_names) == ["CD3E", "CD8A", "GAPDH", "IDO1"]
    assert result.X.sum() == samples[0].layers["counts"].sum()


def test_no_cell_gives_a_valid_empty_table(samples, cells, tmp_path):
    result = pseudobulk(samples, cells.iloc[:0])
    assert result.shape == (0, 0)
    assert {"sample", "donor", "cell_class", "n_cells"} <= set(result.obs.columns)
    result.write_h5ad(tmp_path / "empty.h5ad")


def test_normalised_values_are_refused(samples, cells):
    del samples[0].layers["counts"]
    with pytest.raises(ValueError, match="whole counts"):
        pseudobulk(samples, cells)


def test_a_missing_column_is_named(samples, cells):
    with pytest.raises(ValueError, match="lineage"):
        pseudobulk(samples, cells.drop(columns="lineage"))
