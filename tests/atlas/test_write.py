"""The streamed atlas file against the samples it is made of: equal after reading, whatever the genes and the order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from immunomod.atlas import compressed, write
from immunomod.atlas.build import build_atlas
from immunomod.atlas.flags import flag_clusters
from immunomod.atlas.ranks import rank_genes
from immunomod.atlas.settings import AtlasSettings
from immunomod.atlas.write import write_atlas
from immunomod.errors import UserError
from support.filtered_samples import GENES, draw, write_filtered


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    kept = [4, 1, 0, 33, 59]
    return [
        write_filtered(tmp_path, "b", draw(70, 1)[0], donor="D1", age=[np.nan] * 70),
        write_filtered(tmp_path, "a", draw(45, 2)[0], donor="D2", flagged=True),
        write_filtered(tmp_path, "c", draw(30, 3)[0][:, kept], [*(GENES[k] for k in kept[:4]), "OTHER"], donor="D1"),
        write_filtered(tmp_path, "empty", np.zeros((0, 60), dtype=int)),
    ]


def reduced(paths: list[Path]) -> ad.AnnData:
    """What the atlas holds in memory: some genes, coordinates, and cells in the order of the samples' names."""
    obs = pd.concat([ad.read_h5ad(path).obs for path in sorted(paths) if "empty" not in str(path)])
    var = pd.DataFrame(
        {"highly_variable": [True, False], "marker": [False, True], "variances_norm": [2.5, 0.5], "kind": ["x", "y"]},
        index=["G7", "G3"],
    )
    atlas = ad.AnnData(sparse.csr_matrix((len(obs), 2), dtype=np.float32), obs=obs, var=var)
    generator = np.random.default_rng(1)
    atlas.obsm["X_umap"] = generator.normal(size=(len(obs), 2)).astype(np.float32)
    atlas.varm["PCs"] = np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)
    atlas.uns["immunomod"] = {"floor": "atlas", "seed": 3, "table": pd.DataFrame({"a": [1]}, index=["r"])}
    return atlas


def together(paths: list[Path], cells: pd.Index, genes: pd.Index, layer: str | None) -> np.ndarray:
    """Dense cells x genes from the samples, by names."""
    table = pd.DataFrame(0.0, index=cells, columns=genes)
    for path in paths:
        sample = ad.read_h5ad(path)
        if sample.n_obs:
            table.loc[sample.obs_names, sample.var_names] = sample.to_df(layer)
    return table.to_numpy()


def same_as_samples(path: Path, paths: list[Path], atlas: ad.AnnData) -> ad.AnnData:
    found = ad.read_h5ad(path)
    assert found.obs_names.tolist() == atlas.obs_names.tolist()
    for matrix, layer, dtype in ((found.X, None, np.float32), (found.layers["counts"], "counts", np.int32)):
        assert isinstance(matrix, sparse.csr_matrix) and matrix.dtype == dtype
        assert matrix.has_sorted_indices and matrix.has_canonical_format
        np.testing.assert_array_equal(matrix.toarray(), together(paths, found.obs_names, found.var_names, layer))
    return found


def test_all_genes_of_all_cells(paths: list[Path], tmp_path: Path) -> None:
    atlas = reduced(paths)
    write_atlas(atlas, paths, tmp_path / "atlas.h5ad")
    found = same_as_samples(tmp_path / "atlas.h5ad", paths, atlas)
    assert set(found.var_names) == {*GENES, "OTHER"} and found.var_names.is_unique
    assert found.var.loc["OTHER", "n_samples"] == 1 and found.var.loc["G4", "n_samples"] == 3
    np.testing.assert_array_equal(found.obsm["X_umap"], atlas.obsm["X_umap"])
    assert found.uns["immunomod"]["seed"] == 3
    assert found.var["highly_variable"].dtype == bool and found.var.index[found.var["highly_variable"]].tolist() == [
        "G7"
    ]
    assert found.var["variances_norm"].notna().sum() == 2 and found.var.loc["G3", "variances_norm"] == 0.5
    assert found.var.loc["G3", "kind"] == "y" and found.var.loc["G4", "kind"] == ""
    assert not found.var["feature_is_filtered"].any()
    np.testing.assert_array_equal(found.varm["PCs"][found.var_names.get_loc("G3")], [3, 4])
    assert np.count_nonzero(found.varm["PCs"]) == 4
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == ["atlas.h5ad"]


def test_what_cellxgene_asks_of_a_file(paths: list[Path], tmp_path: Path) -> None:
    write_atlas(reduced(paths), paths, tmp_path / "atlas.h5ad")
    backed = ad.read_h5ad(tmp_path / "atlas.h5ad", backed="r")
    assert backed.isbacked and backed[3:5].to_memory().X.shape == (2, 61)
    for name in ("sample", "donor", "dataset"):
        assert isinstance(backed.obs[name].dtype, pd.CategoricalDtype), name
    assert backed.obs["total_counts"].dtype.kind in "if"
    assert backed.obsm["X_umap"].dtype == np.float32 and backed.obsm["X_umap"].shape == (145, 2)
    backed.file.close()
    with h5py.File(tmp_path / "atlas.h5ad", "r") as file:
        for name in ("X", "layers/counts"):
            assert file[name].attrs["encoding-type"] == "csr_matrix"
            assert file[f"{name}/indptr"].dtype == np.int64
            assert file[f"{name}/indices"].compression == "gzip" and file[f"{name}/data"].shuffle


def stored(path: Path) -> dict[str, object]:
    """What a file holds: attributes, values, and where chunks begin.

    Not their compressed bytes: isal's may differ between processes, though all of them unpack to the same.
    """
    found: dict[str, object] = {}

    def note(name: str, entry: h5py.Group | h5py.Dataset) -> None:
        attributes = {key: repr(np.asarray(value).tolist()) for key, value in entry.attrs.items()}
        if not isinstance(entry, h5py.Dataset):
            found[name] = attributes
        elif entry.chunks is None:
            found[name] = attributes, repr(np.asarray(entry[()]).tolist())  # nan is not nan, but it reads the same
        else:
            chunks = [entry.id.get_chunk_info(number).chunk_offset for number in range(entry.id.get_num_chunks())]
            found[name] = attributes, chunks, repr(np.asarray(entry[()]).tolist())

    with h5py.File(path) as file:
        file.visititems(note)
    return found


@pytest.mark.parametrize("chunk", [64, 1000])
def test_many_chunks_threads_and_orders_make_the_same_file(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(compressed, "CHUNK", chunk)
    monkeypatch.setattr(write, "_ROWS_AT_ONCE", 17)
    atlas = reduced(paths)
    write_atlas(atlas, paths, tmp_path / "one.h5ad", threads=1)
    write_atlas(atlas, paths[::-1], tmp_path / "four.h5ad", threads=4)
    assert stored(tmp_path / "one.h5ad") == stored(tmp_path / "four.h5ad")
    same_as_samples(tmp_path / "one.h5ad", paths, atlas)


def test_expression_of_corrected_counts_has_columns_of_its_own(paths: list[Path], tmp_path: Path) -> None:
    """Where ambient RNA was taken out, X lacks entries that the counts have."""
    sample = ad.read_h5ad(paths[1])
    sample.X.data[::3] = 0
    sample.X.eliminate_zeros()
    sample.write_h5ad(paths[1])
    atlas = reduced(paths)
    write_atlas(atlas, paths, tmp_path / "atlas.h5ad")
    found = same_as_samples(tmp_path / "atlas.h5ad", paths, atlas)
    assert found.X.nnz < found.layers["counts"].nnz


def test_dense_samples_and_float_counts(paths: list[Path], tmp_path: Path) -> None:
    sample = ad.read_h5ad(paths[0])
    sample.X = sample.X.toarray()
    sample.layers["counts"] = sample.layers["counts"].astype(np.float32)
    sample.write_h5ad(paths[0])
    atlas = reduced(paths)
    write_atlas(atlas, paths, tmp_path / "atlas.h5ad")
    same_as_samples(tmp_path / "atlas.h5ad", paths, atlas)
    sample.layers["counts"].data[5] = 0.5
    sample.write_h5ad(paths[0])
    with pytest.raises(UserError, match="no whole numbers"):
        write_atlas(atlas, paths, tmp_path / "atlas.h5ad")


def test_ids_beside_symbols(tmp_path: Path) -> None:
    names = [*GENES[:9], "G0"]  # two ids of the symbol G0, of which the second has the higher mean
    counts = draw(20, 4, n_genes=10)[0]
    counts[:, 9] += 5
    paths = [write_filtered(tmp_path, "a", counts, names), write_filtered(tmp_path, "b", draw(20, 5)[0])]
    sample = ad.read_h5ad(paths[0])
    sample.var_names = sample.var["gene_id"] = [f"ENSG{number:05d}" for number in range(10)]
    sample.write_h5ad(paths[0])
    obs = pd.concat([ad.read_h5ad(path).obs for path in paths])
    write_atlas(ad.AnnData(obs=obs), paths, tmp_path / "atlas.h5ad")
    found = ad.read_h5ad(tmp_path / "atlas.h5ad")
    assert sorted(found.var_names) == sorted(GENES)
    of_first = found[sample.obs_names]
    np.testing.assert_array_equal(of_first[:, "G0"].layers["counts"].toarray().ravel(), counts[:, 9])
    np.testing.assert_array_equal(of_first[:, GENES[1:9]].layers["counts"].toarray(), counts[:, 1:9])
    assert of_first[:, GENES[9:]].layers["counts"].nnz == 0
    assert found.layers["counts"].has_canonical_format


def test_a_failure_leaves_the_old_file(paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "atlas.h5ad").write_text("old")
    atlas = reduced(paths)
    sample = ad.read_h5ad(paths[2])
    del sample.layers["counts"]
    sample.write_h5ad(paths[2])
    with pytest.raises(UserError, match="layers/counts is missing"):
        write_atlas(atlas, paths, tmp_path / "atlas.h5ad")
    assert (tmp_path / "atlas.h5ad").read_text() == "old"
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == ["atlas.h5ad"]


def test_cells_that_do_not_fit(paths: list[Path], tmp_path: Path) -> None:
    atlas = reduced(paths)
    swapped = atlas[[1, 0, *range(2, atlas.n_obs)]].copy()
    with pytest.raises(ValueError, match="are not those of"):
        write_atlas(swapped, paths, tmp_path / "atlas.h5ad")
    with pytest.raises(ValueError, match="30 cells of the atlas are in no sample"):
        write_atlas(atlas, [paths[0], paths[1]], tmp_path / "atlas.h5ad")
    with pytest.raises(ValueError, match="are not those of"):
        write_atlas(atlas[:100].copy(), paths, tmp_path / "atlas.h5ad")
    atlas.var_names = ["G7", "absent"]
    with pytest.raises(ValueError, match="gene 'absent' of the atlas is in no sample"):
        write_atlas(atlas, paths, tmp_path / "atlas.h5ad")


def test_a_built_atlas_its_markers_and_marks(
    write_sample: Callable[..., Path], markers_folder: Path, tmp_path: Path
) -> None:
    """The whole way on two co-cultures: classes have their own markers, the file holds them, nothing is marked."""
    classes = ["MSC"] * 60 + ["CD4_T"] * 40 + ["B"] * 30 + ["CD14_monocyte"] * 30
    paths = [write_sample(tmp_path, name, classes, seed) for seed, name in enumerate(("one", "two"))]
    atlas = build_atlas(paths, markers_folder, AtlasSettings(n_variable_genes=150, n_components=10), seed=1).adata
    groupings = {"cluster": atlas.obs["cluster"], "cell_class": atlas.obs["cell_class"]}
    markers = rank_genes(paths, groupings, threads=2)
    of_class = markers[markers["grouping"] == "cell_class"].groupby("group")["gene_symbol"].apply(list)
    assert {"CD79A", "MS4A1"} <= set(of_class["B"][:10]) and "CD3D" in of_class["CD4_T"][:10]
    marks = flag_clusters(atlas.obs, markers=markers)
    assert set(marks["cluster"]) == set(atlas.obs["cluster"]) and (marks["marks"] == "").all()
    write_atlas(atlas, paths, tmp_path / "atlas.h5ad", threads=2)
    found = same_as_samples(tmp_path / "atlas.h5ad", paths, atlas)
    np.testing.assert_array_equal(found[:, atlas.var_names].X.toarray(), atlas.X.toarray())
    assert (found.obs["cell_class"].astype(str) == atlas.obs["cell_class"]).all()
    assert found.var["highly_variable"].sum() == atlas.var["highly_variable"].sum()
