"""The tables of an atlas as the report shows them, also where a run wrote fewer columns."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from immunomod.report import atlas_views
from immunomod.report.inputs import Atlas, ReportTables
from immunomod.report.maps import name_places
from support.report_inputs import clustering_table, integration_table, marker_table


def columns(section: atlas_views.Section) -> dict[str, list[str]]:
    table = section.table
    return {name: [row[place] for row in table.rows] for place, name in enumerate(table.header)}


def test_methods_stand_in_the_order_of_their_score_with_the_choice_marked_and_explained() -> None:
    section = atlas_views.integration(integration_table())
    shown = columns(section)
    assert shown["method"] == ["✓ harmony", "bbknn", "none"]
    assert shown["score"] == ["0.735", "0.698", "0.622"]
    assert shown["effect kept"] == ["0.84", "", "1"]
    assert section.notes == [
        "Harmony over 12 batches (sample): the best score of 3 methods.",
        "Caution: every batch is one condition",
    ]


def test_a_table_of_an_older_run_keeps_what_it_has() -> None:
    old = pd.DataFrame({"method": ["none", "harmony"], "same_batch_neighbors": [0.8, 0.4], "chosen": [False, True]})
    section = atlas_views.integration(old)
    assert columns(section) == {"method": ["none", "✓ harmony"], "neighbours of the same batch": ["0.8", "0.4"]}
    assert section.notes == ["Harmony."]


def test_the_resolution_that_was_taken_is_marked_and_explained() -> None:
    section = atlas_views.clustering(clustering_table())
    shown = columns(section)
    assert shown["resolution"] == ["0.5", "✓ 1", "✓ 4"]
    assert shown["same in a part of the cells (ARI)"] == ["0.88", "0.93", ""]
    assert section.notes == [
        "Clusters: resolution 1: the finest that keeps its clusters.",
        "Groups that are named: resolution 4: fine, so that classes part.",
    ]


def test_a_class_that_the_user_gave_stands_beside_the_one_proposed() -> None:
    table = pd.DataFrame({"cluster": ["10", "2"], "cell_class": ["NK", "B"], "proposed_class": ["CD8_T", "B"]})
    shown = columns(atlas_views.clusters(table.assign(marks="", n_cells=[1, 2])))
    assert shown == {
        "cluster": ["2", "10"],
        "cell class": ["B cells", "NK cells (proposed: CD8 T cells)"],
        "cells": ["2", "1"],
    }
    assert columns(atlas_views.clusters(table.assign(marks=["doublets", np.nan])))["marks"] == ["", "doublets"]


def test_each_class_shows_its_first_genes_with_dots_by_share() -> None:
    table = marker_table(("B", "MSC"), np.random.default_rng(1)).sample(frac=1, random_state=1)
    table.loc[(table["group"] == "MSC") & (table["rank"] == 1), ["detected_in", "detected_out"]] = [1.0, 0.25]
    rows = atlas_views.marker_rows(table)
    assert [row.label for row in rows] == ["MSC", "B cells"]
    first = rows[0].genes[0]
    assert [gene.symbol for gene in rows[0].genes] == [f"MSC{rank}" for rank in range(1, 9)]
    inside, outside = (float(radius) for radius in re.findall(r'r="([\d.]+)"', first.drawing))
    assert inside**2 / outside**2 == pytest.approx(4, rel=0.05)
    assert first.detail == "detected in 100% of the class and 25% of the rest, +4.8 log2 units, AUC 0.98"


def test_clusters_stand_in_where_no_class_was_ranked_and_nothing_where_nothing_was() -> None:
    table = marker_table(("10", "2"), np.random.default_rng(1)).assign(grouping="cluster")
    assert [row.label for row in atlas_views.marker_rows(table)] == ["cluster 2", "cluster 10"]
    assert atlas_views.marker_rows(pd.DataFrame()) == []
    partial = table[["grouping", "group", "gene_symbol"]]
    assert atlas_views.marker_rows(partial)[0].genes[0].detail == ""


def test_an_atlas_without_tables_has_no_sections(tables: ReportTables) -> None:
    empty = pd.DataFrame()
    assert atlas_views.sections(Atlas("a", empty, empty, empty, empty)) == []
    assert [section.heading for section in atlas_views.sections(tables.atlases[0])] == [
        "Clusters and their names",
        "Integration",
        "Resolution of the clusters",
    ]


def test_a_name_on_the_map_lies_on_cells_of_its_own() -> None:
    """Of a class in two parts as well, whose median lies between them; a handful of strays moves no name."""
    rng = np.random.default_rng(0)
    parts = {
        "two": [((0, 0), 400), ((10, 0), 300)],
        "one": [((5, 8), 600)],
        "rare": [((5, 0.5), 2)],
        "few": [((9, 9), 9)],
    }
    levels = pd.Series([name for name, groups in parts.items() for _, n in groups for _ in range(n)])
    middles = np.concatenate([np.tile(middle, (n, 1)) for groups in parts.values() for middle, n in groups])
    cells = pd.DataFrame(middles + rng.normal(0, 0.4, middles.shape), columns=["umap_1", "umap_2"])
    cells.loc[:20, "umap_1"] = rng.uniform(-2, 12, 21)
    found = name_places(cells, levels)
    assert list(found) == ["two", "one", "few"]
    for name, middle in (("two", (0, 0)), ("one", (5, 8)), ("few", (9, 9))):
        assert np.hypot(*np.subtract(found[name], middle)) < 0.8
