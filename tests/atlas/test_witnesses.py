"""Models and references of the config, from its keys to the atlas's table of cells."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from immunomod.atlas.build import build_atlas
from immunomod.atlas.class_names import classes_of, read_labels
from immunomod.atlas.markers import MarkerSet
from immunomod.atlas.settings import AnnotationSettings, AtlasSettings
from immunomod.atlas.witnesses import faults
from immunomod.errors import UserError

WriteSample = Callable[..., Path]
KINDS = ["MSC"] * 25 + ["CD4_T"] * 30 + ["NK"] * 25 + ["B"] * 25


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, write_sample: WriteSample) -> Path:
    """A folder with a reference of blood (no MSC), a model, and a table of labels."""
    folder = tmp_path_factory.mktemp("witnesses")
    known = ad.read_h5ad(write_sample(folder, "reference", KINDS, seed=20))
    blood = known[(known.obs["truth"] != "MSC").to_numpy()].copy()
    blood.obs["kind"] = blood.obs["truth"].astype(str).map(lambda name: f"my {name}")
    blood.write_h5ad(folder / "blood.h5ad")
    scaler = StandardScaler().fit(known.X.toarray())
    model = LogisticRegression(max_iter=300).fit(scaler.transform(known.X.toarray()), known.obs["truth"].astype(str))
    model.features = np.array(known.var["gene_symbol"])
    (folder / "model.pkl").write_bytes(pickle.dumps({"Model": model, "Scaler_": scaler, "description": {}}))
    pd.DataFrame({"label": ["my CD4_T", "my NK", "MY  b"], "cell_class": ["CD4_T", "NK", "B"]}).to_csv(
        folder / "labels.tsv", sep="\t", index=False
    )
    return folder


def section(files: Path) -> dict[str, object]:
    return {
        "celltypist": {"model": str(files / "model.pkl")},
        "references": {"blood": {"file": str(files / "blood.h5ad"), "column": "kind"}},
        "labels": str(files / "labels.tsv"),
    }


def test_every_cell_says_who_agrees(
    tmp_path: Path, files: Path, write_sample: WriteSample, markers_folder: Path
) -> None:
    paths = [write_sample(tmp_path, name, KINDS, seed) for seed, name in enumerate("ab")]
    settings = AtlasSettings.from_config({"integration": "none"}, section(files))
    atlas = build_atlas(paths, markers_folder, settings, seed=1)
    obs = atlas.adata.obs
    assert (obs["cell_class"] == obs["truth"]).mean() > 0.97
    of_class = obs.groupby("cell_class", observed=True)["witnesses"].agg(lambda values: values.mode().iloc[0])
    assert of_class["MSC"] == "markers,model" and of_class["NK"] == "markers,model,blood"
    assert {"cell_class_markers", "cell_class_model", "cell_class_blood"} <= set(obs)
    assert set(obs.loc[obs["truth"] == "MSC", "cell_class_blood"]) == {"unassigned"}
    assert set(obs["cell_class_from"]) == {"evidence"}
    assert atlas.clusters["witnesses"].str.contains("model: ").all()
    atlas.write(tmp_path / "atlas.h5ad", tmp_path / "tables")
    written = ad.read_h5ad(tmp_path / "atlas.h5ad")
    assert (written.obs["witnesses"].astype(str) == obs["witnesses"].astype(str)[written.obs_names]).all()
    assert written.uns["immunomod"]["settings"]["annotation"]["references"]["blood"]["column"] == "kind"


def test_the_users_word_beats_all_witnesses(
    tmp_path: Path, files: Path, write_sample: WriteSample, markers_folder: Path
) -> None:
    path = write_sample(tmp_path, "a", KINDS, 1)
    (tmp_path / "mine.tsv").write_text("cell\tcell_class\na:C0\tpDC\na:C60\tNK\n")
    settings = AtlasSettings.from_config({"integration": "none"}, section(files))
    obs = build_atlas([path], markers_folder, settings, seed=1, overrides=tmp_path / "mine.tsv").adata.obs
    assert obs.loc["a:C0", ["cell_class", "witnesses", "cell_class_from"]].tolist() == ["pDC", "user", "user"]
    assert obs.loc["a:C60", "witnesses"] == "user,markers,model,blood"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"celltypist": 3}, "annotation.celltypist is 3"),
        ({"celltypist": {"markers": "m.pkl"}}, "named by letters, digits and underscores, and not markers or user"),
        ({"celltypist": {"a,b": "m.pkl"}}, "named by letters"),
        ({"references": {"blood": "blood.h5ad"}}, "such as {blood: {file: blood.h5ad, column: cell_type}}"),
        ({"references": {"blood": {"file": "x", "label": "y"}}}, "such as {blood:"),
        ({"celltypist": {"a": "m"}, "references": {"a": {"file": "f", "column": "c"}}}, "different names"),
        ({"level": "finest"}, "annotation.level is 'finest'; it must be class or lineage"),
    ],
)  # fmt: skip
def test_mistakes_in_the_config_have_one_message(given: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        AnnotationSettings.from_config(given)
    assert message in str(caught.value)


def test_a_file_alone_is_a_model_called_celltypist() -> None:
    assert AnnotationSettings.from_config({"celltypist": "m.pkl"}).celltypist == {"celltypist": "m.pkl"}


def test_faults_are_found_before_anything_runs(files: Path, markers: MarkerSet, markers_folder: Path) -> None:
    def found(**given: object) -> list[str]:
        settings = AnnotationSettings.from_config(section(files) | given)
        return [str(fault) for fault in faults(settings, markers, markers_folder)]

    assert found() == []
    assert "model.h5 does not exist" in found(celltypist=str(files / "model.h5"))[0]
    assert (
        "obs has no column 'type'" in found(references={"b": {"file": str(files / "blood.h5ad"), "column": "type"}})[0]
    )
    assert "none of its 3 labels is a known class" in found(labels="")[0]
    (files / "wrong.tsv").write_text("label\tcell_class\nx\tCD5_T\n")
    wrong = found(labels=str(files / "wrong.tsv"))
    assert any("wrong.tsv, row 2, column cell_class: 'CD5_T' is no class" in one for one in wrong)


def test_labels_are_met_by_name_label_ontology_and_table(tmp_path: Path, markers: MarkerSet) -> None:
    def names(*labels: str, tables: tuple[Path, ...] = ()) -> list[str]:
        return [markers.classes.index[place] for place in classes_of(labels, markers, tables, "here")]

    assert names("CD4_T", "cd8 t  CELL", "CL:0000236", "what") == ["CD4_T", "CD8_T", "B", "unassigned"]
    table = tmp_path / "mine.tsv"
    table.write_text("label\tcell_class\nwhat\tpDC\nCD4_T\tTreg\n")
    assert names("What", "CD4_T", tables=(table,)) == ["pDC", "CD4_T"]
    with pytest.raises(UserError, match=r"here: none of its 2 labels .*\(first: 'x', 'y'\)"):
        names("x", "y")


def test_a_table_of_labels_is_checked(tmp_path: Path, markers: MarkerSet, markers_folder: Path) -> None:
    shipped = read_labels(markers_folder / "labels.tsv", markers)
    assert shipped["regulatory t cells"] == "Treg" and shipped["cd14 mono"] == "CD14_monocyte"
    table = tmp_path / "t.tsv"
    table.write_text("label\tcell_class\na\tNK\nA\tB\n")
    with pytest.raises(UserError, match="row 3, column label: 'A' has two classes"):
        read_labels(table, markers)
    table.write_text("label\tclass\na\tNK\n")
    with pytest.raises(UserError, match="column cell_class is missing"):
        read_labels(table, markers)
    with pytest.raises(UserError, match=r"annotation\.labels"):
        read_labels(tmp_path / "none.tsv", markers)
