"""The user's own classes: by cell, or by an edited clusters.tsv that finds its clusters again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from immunomod.atlas.build import build_atlas
from immunomod.atlas.markers import MarkerSet
from immunomod.atlas.overrides import anchor_cells, overridden, read_overrides
from immunomod.atlas.settings import AtlasSettings
from immunomod.errors import UserError
from immunomod.files import write_tsv

CLASSES = ["MSC"] * 80 + ["CD14_monocyte"] * 60 + ["B"] * 40
SETTINGS = AtlasSettings(n_variable_genes=200, n_components=10, integration="none")
CELLS = pd.Index([f"s:c{number}" for number in range(6)])


def written(tmp_path: Path, table: pd.DataFrame) -> Path:
    path = tmp_path / "own.tsv"
    write_tsv(table, path)
    return path


def test_named_cells_get_their_class_and_others_none(tmp_path: Path, markers: MarkerSet) -> None:
    path = written(tmp_path, pd.DataFrame({"cell": ["s:c4", "s:c1"], "cell_class": ["NK", "B"]}))
    given = overridden(read_overrides(path, markers), CELLS, np.array(list("001122"), dtype=object))
    assert list(given) == ["", "B", "", "", "NK", ""]


def test_an_edited_row_finds_its_cluster_under_another_number(tmp_path: Path, markers: MarkerSet) -> None:
    table = pd.DataFrame(
        {
            "cluster": ["0", "1"],
            "cell_class": ["NK", "B"],
            "proposed_class": ["T", "B"],
            "anchor_cells": ["s:c0,s:c1,s:c2", "s:c3,s:c4,s:gone"],
        }
    )
    given = overridden(read_overrides(written(tmp_path, table), markers), CELLS, np.array(list("111000"), dtype=object))
    assert list(given) == ["NK", "NK", "NK", "", "", ""]


def test_a_cluster_that_split_keeps_the_class_in_every_part(tmp_path: Path, markers: MarkerSet) -> None:
    table = pd.DataFrame({"cluster": ["0"], "cell_class": ["NK"], "proposed_class": ["T"],
                          "anchor_cells": [",".join(CELLS)]})  # fmt: skip
    given = overridden(read_overrides(written(tmp_path, table), markers), CELLS, np.array(list("001122"), dtype=object))
    assert set(given) == {"NK"}


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"cell": ["s:c0"], "cell_class": ["Tcell"]}, "row 2, column cell_class: 'Tcell' is no class"),
        ({"cell": ["s:c0", "s:c0"], "cell_class": ["B", "NK"]}, "row 3, column cell: 's:c0' has two classes"),
        ({"cell": ["s:c0"], "label": ["B"]}, "column cell_class is missing"),
        ({"cell": ["s:c1", "x:c9"], "cell_class": ["B", "B"]}, "row 3, column cell: 'x:c9' is no cell"),
        (
            {"cluster": ["0"], "cell_class": ["B"], "proposed_class": ["T"], "anchor_cells": ["x:1,x:2"]},
            "row 2, column anchor_cells: no cluster",
        ),
    ],
)
def test_mistakes_name_their_place(table: dict[str, list[str]], words: str, tmp_path: Path, markers: MarkerSet) -> None:
    path = written(tmp_path, pd.DataFrame(table))
    with pytest.raises(UserError, match=words) as error:
        overridden(read_overrides(path, markers), CELLS, np.array(list("001122"), dtype=object))
    assert str(path) in str(error.value)


def test_anchors_are_the_cells_that_are_tied_to_their_cluster_most() -> None:
    weights = sparse.csr_matrix(np.array([[0, 1, 1, 0], [1, 0, 0, 0.9], [1, 0, 0, 0], [0, 0.9, 0, 0]]))
    found = anchor_cells(pd.Index(list("abcd")), np.array(["0", "0", "0", "1"], dtype=object), weights)
    assert found["0"] == "a,b,c" and found["1"] == "d"


@pytest.fixture(scope="module")
def paths(write_sample: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("overridden")
    return [write_sample(folder, name, CLASSES, seed) for name, seed in (("one", 1), ("two", 2))]


def test_an_edited_clusters_table_survives_a_rerun_with_another_sample(
    paths: list[Path], write_sample: Callable[..., Path], markers_folder: Path, tmp_path: Path
) -> None:
    first = build_atlas(paths, markers_folder, SETTINGS, seed=1)
    edited = first.clusters.copy()
    assert (edited["cell_class"] == edited["proposed_class"]).all()
    edited.loc[edited["cell_class"] == "B", "cell_class"] = "plasma"
    own = written(tmp_path, edited)

    again = build_atlas(
        [*paths, write_sample(tmp_path, "three", CLASSES, 3)], markers_folder, SETTINGS, 2, overrides=own
    )
    obs = again.adata.obs
    assert (obs.loc[obs["cell_class"] == "plasma"].groupby("sample", observed=True).size() > 35).all()
    assert not (obs["cell_class"] == "B").any()
    assert set(obs.loc[obs["cell_class"] == "plasma", "cell_class_from"]) == {"user"}
    row = again.clusters[again.clusters["cell_class"] == "plasma"].iloc[0]
    assert row["proposed_class"] == "B" and row["lineage"] == "B" and row["reason"] == "set by the user"


def test_without_overrides_nothing_is_from_the_user(paths: list[Path], markers_folder: Path) -> None:
    atlas = build_atlas(paths, markers_folder, SETTINGS, seed=1)
    assert set(atlas.adata.obs["cell_class_from"]) == {"evidence"}
