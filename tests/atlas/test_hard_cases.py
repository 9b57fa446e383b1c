"""Atlases at the edge: one sample, one class, a handful of cells, odd batches, data sets that name genes differently.

Each gives a whole atlas or one message that says what to do.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from immunomod.atlas.build import Atlas, build_atlas
from immunomod.atlas.settings import AtlasSettings
from immunomod.errors import UserError
from immunomod.files import read_tsv

Write = Callable[..., Path]
SMALL = AtlasSettings(n_variable_genes=150, n_components=10)
MIXED = ["CD4_T"] * 40 + ["B"] * 30 + ["CD14_monocyte"] * 30 + ["MSC"] * 40


def whole(atlas: Atlas, n_cells: int, folder: Path) -> pd.DataFrame:
    """The cells of an atlas in which nothing is missing, as they read back from its file."""
    atlas.write(folder / "atlas.h5ad", folder / "atlas")
    found = ad.read_h5ad(folder / "atlas.h5ad")
    assert found.n_obs == n_cells and found.obs_names.is_unique
    for name, coordinates in found.obsm.items():
        assert coordinates.shape[0] == n_cells and np.isfinite(coordinates).all(), name
    assert found.obsm["X_umap"].shape == (n_cells, 2)
    for column in ("cluster", "cell_class", "compartment", "lineage"):
        assert (found.obs[column].astype(str).str.len() > 0).all() and found.obs[column].notna().all()
    assert found.obs["cell_class_confidence"].between(0, 1).all()
    clusters = read_tsv(folder / "atlas" / "clusters.tsv", dtype={"cluster": str}).set_index("cluster")
    sizes = found.obs["cluster"].astype(str).value_counts()
    assert clusters["n_cells"].to_dict() == sizes.to_dict()
    for table in ("clustering", "integration"):
        assert len(read_tsv(folder / "atlas" / f"{table}.tsv")) > 0
    return found.obs


def renamed(path: Path, by_id: bool) -> Path:
    """Give the genes of a sample ids, as in a matrix of Ensembl ids and symbols, or leave it with symbols alone."""
    sample = ad.read_h5ad(path)
    symbols = sample.var["gene_symbol"].astype(str)
    if by_id:
        sample.var["gene_id"] = [f"ENSG{zlib.crc32(symbol.encode()):011d}" for symbol in symbols]
        sample.var_names = sample.var["gene_id"].to_numpy()
    sample.write_h5ad(path)
    return path


# --- few cells, few classes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_cells", [1, 2, 3, 4, 5])
def test_an_atlas_of_a_handful_of_cells(n_cells: int, write_sample: Write, markers_folder: Path, tmp_path: Path):
    path = write_sample(tmp_path, "few", ["MSC", "CD4_T", "B", "MSC", "NK"][:n_cells], 1)
    try:
        atlas = build_atlas([path], markers_folder, SMALL, seed=1)
    except UserError as refusal:
        assert "cell" in str(refusal) and len(str(refusal)) < 500
    else:
        whole(atlas, n_cells, tmp_path)


def test_cells_of_one_class(write_sample: Write, markers_folder: Path, tmp_path: Path):
    paths = [write_sample(tmp_path, name, ["B"] * 120, seed) for seed, name in enumerate("ab")]
    obs = whole(build_atlas(paths, markers_folder, SMALL, seed=1), 240, tmp_path)
    assert (obs["cell_class"] == "B").mean() > 0.9


def test_an_atlas_of_msc_alone(write_sample: Write, markers_folder: Path, tmp_path: Path):
    """Nothing else sets them off, and licensing must not make another class of a part of them."""
    paths = [
        write_sample(tmp_path, "resting", ["MSC"] * 100, 1),
        write_sample(tmp_path, "licensed", ["MSC_licensed"] * 100, 2),
    ]
    obs = whole(build_atlas(paths, markers_folder, SMALL, seed=1), 200, tmp_path)
    assert (obs["compartment"] == "MSC").mean() > 0.95


def test_two_cells_of_a_class(write_sample: Write, markers_folder: Path, tmp_path: Path):
    path = write_sample(tmp_path, "one", ["CD4_T"] * 150 + ["MSC"] * 150 + ["B"] * 2, 3)
    obs = whole(build_atlas([path], markers_folder, SMALL, seed=1), 302, tmp_path)
    many = obs[obs["truth"] != "B"]
    assert (many["cell_class"].astype(str) == many["truth"].astype(str)).mean() > 0.98
    assert (obs.loc[obs["truth"] == "B", "compartment"] == "immune").all()


def test_cells_that_are_all_alike(write_sample: Write, markers_folder: Path, tmp_path: Path):
    path = write_sample(tmp_path, "one", MIXED[:60], 4)
    sample = ad.read_h5ad(path)
    first = np.zeros(60, dtype=int)
    sample.X, sample.layers["counts"] = sample.X[first], sample.layers["counts"][first]
    sample.var["variances_norm"] = 0.0
    sample.write_h5ad(path)
    try:
        atlas = build_atlas([path], markers_folder, SMALL, seed=1)
    except UserError as refusal:
        assert "alike" in str(refusal) or "var" in str(refusal)
    else:
        obs = whole(atlas, 60, tmp_path)
        assert obs["cell_class"].nunique() == 1


# --- odd batches -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_cells", [1, 2, 20])
def test_a_small_batch_beside_a_large_one(n_cells: int, write_sample: Write, markers_folder: Path, tmp_path: Path):
    """A cell keeps its class, however few come with it."""
    large = write_sample(tmp_path, "large", MIXED * 4, 5)
    small = write_sample(tmp_path, "small", (["MSC", "CD4_T"] * 10)[:n_cells], 6)
    obs = whole(build_atlas([large, small], markers_folder, SMALL, seed=1), 4 * len(MIXED) + n_cells, tmp_path)
    few = obs[obs["sample"] == "small"]
    assert (few["cell_class"].astype(str) == few["truth"].astype(str)).mean() >= 0.9
    many = obs[obs["sample"] == "large"]
    assert (many["cell_class"].astype(str) == many["truth"].astype(str)).mean() > 0.98


def test_many_samples_of_one_cell_each(write_sample: Write, markers_folder: Path, tmp_path: Path):
    paths = [write_sample(tmp_path, f"s{number:02d}", [MIXED[number * 3]], number) for number in range(40)]
    try:
        atlas = build_atlas(paths, markers_folder, SMALL, seed=1)
    except UserError as refusal:
        assert "cells" in str(refusal)
    else:
        whole(atlas, 40, tmp_path)


# --- several data sets, and how they name genes ----------------------------------------------------------------------


@pytest.fixture
def two_datasets(write_sample: Write, tmp_path: Path) -> Callable[..., list[Path]]:
    """Two samples of each of the data sets A and B, whose genes a test may change."""

    def build(drop_a: tuple[str, ...] = (), drop_b: tuple[str, ...] = ()) -> list[Path]:
        return [
            write_sample(tmp_path, f"{dataset}{number}", MIXED, 10 * number + ord(dataset), drop=drop, dataset=dataset)
            for dataset, drop in (("A", drop_a), ("B", drop_b))
            for number in (1, 2)
        ]

    return build


def agree(obs: pd.DataFrame) -> float:
    return float((obs["cell_class"].astype(str) == obs["truth"].astype(str)).mean())


def test_data_sets_with_ids_and_with_symbols_alone(two_datasets, markers_folder: Path, tmp_path: Path):
    paths = two_datasets()
    symbols = build_atlas(paths, markers_folder, SMALL, seed=1)
    for path in paths[:2]:
        renamed(path, by_id=True)
    atlas = build_atlas(paths, markers_folder, SMALL, seed=1)
    assert agree(whole(atlas, 4 * len(MIXED), tmp_path)) > 0.98
    assert atlas.adata.n_vars == symbols.adata.n_vars
    assert set(atlas.adata.var["gene_symbol"]) == set(symbols.adata.var["gene_symbol"])
    for sample in ("A1", "B1"):
        given = ad.read_h5ad(paths[("A1", "A2", "B1", "B2").index(sample)])
        part = atlas.adata[given.obs_names]
        of_gene = dict(zip(given.var["gene_symbol"].astype(str), range(given.n_vars), strict=True))
        order = [of_gene[symbol] for symbol in part.var["gene_symbol"].astype(str)]
        np.testing.assert_array_equal(part.X.toarray(), given.X.toarray()[:, order])


def test_data_sets_that_share_a_part_of_their_genes(two_datasets, markers_folder: Path, tmp_path: Path):
    """What one laboratory never looked for does not tell its cells from the other's."""
    atlas = build_atlas(
        two_datasets(tuple(f"HK{n}" for n in range(0, 150)), tuple(f"HK{n}" for n in range(250, 400))),
        markers_folder,
        SMALL,
        seed=1,
    )
    assert agree(whole(atlas, 4 * len(MIXED), tmp_path)) > 0.98
    variable = set(atlas.adata.var.loc[atlas.adata.var["highly_variable"], "gene_symbol"])
    assert variable.isdisjoint({f"HK{n}" for n in (*range(150), *range(250, 400))})


def all_genes(path: Path) -> list[str]:
    return list(ad.read_h5ad(path).var_names)


def test_data_sets_without_a_common_gene_are_refused_by_name(two_datasets, markers_folder: Path):
    genes = all_genes(two_datasets()[0])
    paths = two_datasets(tuple(genes[::2]), tuple(genes[1::2]))
    with pytest.raises(UserError, match=r"data sets A .* and B .*share no gene") as refusal:
        build_atlas(paths, markers_folder, SMALL, seed=1)
    assert "atlases" in str(refusal.value) and genes[1] in str(refusal.value)


def test_samples_of_one_data_set_without_a_common_gene_are_refused_by_name(
    write_sample: Write, markers_folder, tmp_path
):
    genes = all_genes(write_sample(tmp_path, "whole", MIXED, 1))
    paths = [
        write_sample(tmp_path, "odd", MIXED, 2, drop=tuple(genes[::2])),
        write_sample(tmp_path, "even", MIXED, 3, drop=tuple(genes[1::2])),
    ]
    with pytest.raises(UserError, match=r"sample even .*shares no gene with"):
        build_atlas(paths, markers_folder, SMALL, seed=1)


def test_organisms_are_not_mixed(write_sample: Write, markers_folder: Path, tmp_path: Path):
    paths = [
        write_sample(tmp_path, "man", MIXED, 1, dataset="A"),
        write_sample(tmp_path, "mouse", MIXED, 2, dataset="B", organism="mouse"),
    ]
    with pytest.raises(UserError, match="mixes organisms"):
        build_atlas(paths, markers_folder, SMALL, seed=1)


@pytest.mark.parametrize("key", ["sample", "dataset"])
def test_the_order_of_data_sets_changes_nothing(key: str, two_datasets, markers_folder: Path):
    paths = two_datasets()
    settings = AtlasSettings(n_variable_genes=150, n_components=10, integration_key=key)
    atlas = build_atlas(paths, markers_folder, settings, seed=1)
    again = build_atlas(paths[::-1], markers_folder, settings, seed=1)
    pd.testing.assert_frame_equal(atlas.adata.obs.astype(str), again.adata.obs.astype(str))
    np.testing.assert_array_equal(atlas.adata.obsm["X_umap"], again.adata.obsm["X_umap"])
    assert set(atlas.integration["n_batches"]) == {4 if key == "sample" else 2}
