"""The shipped marker tables, and what a user's own tables may get wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from immunomod.atlas.markers import MarkerSet, load_markers
from immunomod.errors import UserError

CLASSES = {"CD4_T", "CD8_T", "Treg", "T", "monocyte", "NK", "B", "plasma", "CD14_monocyte", "CD16_monocyte",
           "macrophage", "DC", "pDC", "megakaryocyte", "erythroid", "MSC", "endothelial", "unassigned"}  # fmt: skip
ISCT = {"NT5E": "+", "THY1": "+", "ENG": "+", "PTPRC": "-", "CD34": "-", "CD14": "-", "CD19": "-"}


def test_classes_are_those_of_the_design(markers: MarkerSet) -> None:
    assert set(markers.classes.index) == CLASSES
    assert markers.classes.loc["MSC", "compartment"] == "MSC"
    parent = markers.classes["parent"]
    assert [parent[name] for name in ("Treg", "CD8_T", "CD16_monocyte", "NK")] == ["CD4_T", "T", "monocyte", ""]


def test_msc_follow_isct_and_hla_dr_is_not_held_against_them(markers: MarkerSet) -> None:
    msc = markers.markers[markers.markers["cell_class"] == "MSC"].set_index("gene_human")["direction"]
    assert {gene: msc[gene] for gene in ISCT} == ISCT
    assert not any(gene.startswith("HLA-") or gene in ("CD74", "CD274", "CXCL9", "CXCL10") for gene in msc.index)


def test_no_gene_is_both_for_and_against_or_listed_twice(markers: MarkerSet) -> None:
    for column in ("gene_human", "gene_mouse"):
        named = markers.markers[markers.markers[column] != ""]
        assert not named.duplicated(["cell_class", column, "tissue"]).any()
    assert set(markers.markers["verified"]) == {"yes", "no"}
    assert (markers.markers["source"] != "").all()


def test_every_class_with_cells_has_markers_for_both_organisms(markers: MarkerSet) -> None:
    for organism, column in (("human", "gene_human"), ("mouse", "gene_mouse")):
        symbols = pd.Index(sorted(markers.symbols(organism)))
        assert set(markers.weights(symbols, organism).classes) == CLASSES - {"T", "monocyte", "unassigned"}, column


def test_weights_find_genes_by_old_names_and_leave_absent_ones_out(markers: MarkerSet) -> None:
    symbols = pd.Index(["IGJ", "LILRA4", "X", "IL3RA", "CD3D"])
    weights = markers.weights(symbols, "human")
    assert weights.classes == ("pDC",)
    assert list(weights.genes) == [0, 1, 3, 4]
    np.testing.assert_array_equal(weights.positive[:, 0], [1, 1, 1, 0])
    np.testing.assert_array_equal(weights.negative[:, 0], [0, 0, 0, 1])


def test_markers_under_outdated_names_meet_current_ones(tmp_path: Path, markers_folder: Path) -> None:
    folder = tmp_path / "markers"
    shutil.copytree(markers_folder, folder)
    text = (folder / "markers.tsv").read_text()
    assert "\tJCHAIN\tJchain\t" in text
    (folder / "markers.tsv").write_text(text.replace("\tJCHAIN\tJchain\t", "\tIGJ\tIgj\t"))
    old, new = load_markers(folder), load_markers(markers_folder)
    pd.testing.assert_frame_equal(old.markers, new.markers)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("markers.tsv", "\tNKG7\t", "\tNKG7\t", None),
        ("markers.tsv", "CD8_T\tCD3D", "CD8_Q\tCD3D", r"markers.tsv, row \d+, column cell_class: 'CD8_Q'"),
        ("markers.tsv", "\tCd3d\t+\t1", "\tCd3d\t*\t1", r"column direction: '\*'; use \+ or -"),
        ("markers.tsv", "\tCd3d\t+\t1", "\tCd3d\t+\tx", "column weight: 'x'"),
        ("markers.tsv", "\tdirection\t", "\tsign\t", "column direction is missing"),
        ("cell_classes.tsv", "\tNK\timmune", "\tNK\timune", r"row \d+, column compartment: 'imune'"),
        ("cell_classes.tsv", "unassigned\tunassigned", "unknown\tunassigned", "no class 'unassigned'"),
    ],
)
def test_mistakes_in_a_users_tables(
    tmp_path: Path, markers_folder: Path, file: str, old: str, new: str, message: str | None
) -> None:
    folder = tmp_path / "markers"
    shutil.copytree(markers_folder, folder)
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1))
    if message is None:
        load_markers(folder)
    else:
        with pytest.raises(UserError, match=message):
            load_markers(folder)


def test_absent_folder_and_unknown_organism(tmp_path: Path, markers: MarkerSet) -> None:
    with pytest.raises(UserError, match=r"cell_classes\.tsv does not exist"):
        load_markers(tmp_path)
    with pytest.raises(UserError, match="organism is 'pig'"):
        markers.symbols("pig")
