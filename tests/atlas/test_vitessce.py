"""The zarr store and the view that Vitessce opens: the atlas's own numbers, and a config whose every path is there."""

import json
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import zarr
from scipy import sparse

from immunomod.atlas import vitessce
from immunomod.atlas.vitessce import export_vitessce, view_config

#: View types, coordination types and the file type, as version 1.0.16 of the schema of the config names them.
COMPONENTS = {"scatterplot", "obsSets", "featureList", "heatmap", "obsSetSizes"}
COORDINATION = {"dataset", "obsType", "featureType", "featureValueType", "embeddingType"}


@pytest.fixture
def atlas():
    rng = np.random.default_rng(2)
    expression = sparse.csr_matrix(rng.poisson(0.4, (50, 12)).astype(np.float32))
    obs = pd.DataFrame({"cell_class": pd.Categorical(["MSC", "B"] * 25), "donor": pd.Categorical(["D1"] * 50)})
    obs.index = [f"s:{number}" for number in range(50)]
    var = pd.DataFrame({"gene_symbol": [f"S{n}" for n in range(12)], "marker": [n % 3 == 1 for n in range(12)]})
    var.index = [f"G{n}" for n in range(12)]
    return ad.AnnData(expression, obs, var, obsm={"X_umap": rng.normal(size=(50, 2)).astype(np.float32)})


@pytest.fixture
def exported(atlas, tmp_path, monkeypatch):
    monkeypatch.setattr(vitessce, "_ROWS_AT_ONCE", 7)
    atlas.write_h5ad(tmp_path / "lab.h5ad")
    export_vitessce(tmp_path / "lab.h5ad", tmp_path / "lab" / "vitessce.zarr", tmp_path / "lab" / "vitessce.json")
    return tmp_path / "lab"


def test_the_store_holds_the_atlas(exported, atlas):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = ad.read_zarr(exported / "vitessce.zarr")
    assert found.var_names.tolist() == ["G1", "G4", "G7", "G10"]
    np.testing.assert_array_equal(found.X, atlas[:, found.var_names].X.toarray())
    np.testing.assert_array_equal(found.obsm["X_umap"], atlas.obsm["X_umap"])
    assert found.obs["cell_class"].tolist() == atlas.obs["cell_class"].tolist()
    assert zarr.open(exported / "vitessce.zarr", mode="r")["X"].chunks[1] == 1
    assert sorted(path.name for path in exported.iterdir()) == ["vitessce.json", "vitessce.zarr"]


def test_the_view_names_what_is_there(exported):
    config = json.loads((exported / "vitessce.json").read_text())
    store = zarr.open(exported / "vitessce.zarr", mode="r")
    (file,) = config["datasets"][0]["files"]
    assert file["fileType"] == "anndata.zarr" and (exported / file["url"]).is_dir()
    options = file["options"]
    paths = [one["path"] for one in (*options["obsEmbedding"], *options["obsSets"])]
    for path in (*paths, options["obsFeatureMatrix"]["path"], options["featureLabels"]["path"]):
        assert path in store, path
    assert [one["path"] for one in options["obsSets"]] == ["obs/cell_class", "obs/donor"]


def test_the_view_follows_the_schema():
    config = view_config("lab", "vitessce.zarr", ["cell_class"])
    assert set(config["coordinationSpace"]) == COORDINATION
    assert {view["component"] for view in config["layout"]} == COMPONENTS
    for view in config["layout"]:
        assert view["x"] + view["w"] <= 12 and view["y"] + view["h"] <= 12
        for name, scope in view["coordinationScopes"].items():
            assert scope in config["coordinationSpace"][name]
    assert config["coordinationSpace"]["dataset"]["A"] == config["datasets"][0]["uid"]


def test_writing_again_replaces_the_store(exported):
    (exported / "vitessce.zarr" / "old").write_text("old")
    export_vitessce(exported.parent / "lab.h5ad", exported / "vitessce.zarr", exported / "vitessce.json")
    assert not (exported / "vitessce.zarr" / "old").exists()
