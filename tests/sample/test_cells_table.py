"""The per-cell table: real lanes whose barcodes were made unique, and every match that is not one to one."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from immunomod.errors import UserError
from immunomod.sample.cells_table import CellsTableColumns, join_cells_table, locate_cells_table

TABLE = "GSE96583_batch2.total.tsne.df.tsv.gz"
COLUMNS = CellsTableColumns(lane="lane", donor="donor", label="cell")
A, B, C = "AAACATACAATGCC-1", "CCGGAGACTGTGAC-1", "TTTAGCTGCGAACT-1"


@pytest.fixture
def table(put):
    def write(rows: list[tuple[str, str, str, str]]):
        return put("cells.tsv.gz", "lane\tdonor\tcell\n" + "".join("\t".join(row) + "\n" for row in rows))

    return write


def test_every_cell_of_gse96583_gets_its_donor_condition_and_label(kang_libraries, shared):
    truth = ad.read_h5ad(shared / "data" / "kang" / "kang2000_ctrl_stim_8donors.h5ad")
    joined = 0
    for gsm, (adata, _) in kang_libraries.items():
        own = truth[truth.obs["gsm"] == gsm]
        difference = own.X.astype(np.int64) - adata.X.astype(np.int64)
        assert abs(difference).sum() == 0  # the same cells in the same order
        for ours, theirs in (
            ("donor", "donor"),
            ("condition", "condition"),
            ("author_label", "cell_type"),
            ("author_doublet", "multiplets"),
        ):
            assert list(adata.obs[ours].astype(str)) == list(own.obs[theirs].astype(str)), (gsm, ours)
        joined += adata.n_obs
    assert joined == 2000


def test_joined_by_barcode_alone_gse96583_would_be_wrong(kang_libraries, shared):
    folder = shared / "geo_mirror/geo/series/GSE96nnn/GSE96583/suppl"
    table = pd.read_csv(folder / TABLE, sep="\t", dtype=str)
    adata, ledger = kang_libraries["GSM2560249"]
    naive = table.loc[adata.obs["barcode"]]
    wrong_lane = (naive["stim"] == "ctrl").to_numpy()
    assert wrong_lane.sum() == 26
    assert (naive["ind"].to_numpy() != adata.obs["donor"].astype(str).to_numpy())[wrong_lane].sum() > 15
    decision = ledger.loc[ledger["parser"] == "cells_table", "decision"].item()
    assert "1,000 of 1,000 barcodes found in lane 'stim': 974 by name, 26 after removing" in decision


def test_suffixes_are_removed_within_the_lane_only(table):
    path = table([(A, "ctrl", "d1", "T"), (A + "1", "stim", "d2", "B"), (B, "stim", "d3", "NK")])
    join = join_cells_table(pd.Index([A, B]), path, COLUMNS, "stim", "S1")
    assert list(join.cells["donor"]) == ["d2", "d3"]
    assert list(join.cells["author_label"]) == ["B", "NK"]
    join = join_cells_table(pd.Index([A, B]), path, COLUMNS, "ctrl", "S1")
    assert list(join.cells["donor"]) == ["d1", ""]
    assert list(join.cells["in_cells_table"]) == [True, False]


@pytest.mark.parametrize("suffix", ["1", "2", ".1", "_1", "-1", "12"])
def test_suffixes_of_every_software(suffix, table):
    path = table([(B, "x", "d1", "T"), (A + suffix, "x", "d2", "B")])
    join = join_cells_table(pd.Index([A, B]), path, COLUMNS, "x", "S1")
    assert list(join.cells["donor"]) == ["d2", "d1"]


def test_two_claims_on_one_barcode(table):
    path = table([(A, "x", "d1", "T"), (A + "1", "x", "d2", "B")])
    with pytest.raises(UserError, match=f"{A}1 may stand for barcode {A}, and so may {A}"):
        join_cells_table(pd.Index([A]), path, COLUMNS, "x", "S1")
    path = table([(A + ".1", "x", "d1", "T"), (A + "1", "x", "d2", "B")])
    with pytest.raises(UserError, match="several libraries"):
        join_cells_table(pd.Index([A]), path, COLUMNS, "x", "S1")


def test_one_name_that_may_stand_for_two_barcodes(table):
    barcodes = pd.Index(["AAACATACAATGCC-1", "AAACATACAATGCC-11"])
    path = table([("AAACATACAATGCC-111", "x", "d1", "T")])
    with pytest.raises(UserError, match="and so may"):
        join_cells_table(barcodes, path, COLUMNS, "x", "S1")


def test_without_lanes_made_unique_names_are_refused(table):
    path = table([(A, "ctrl", "d1", "T"), (A + "1", "stim", "d2", "B"), (B, "stim", "d3", "NK")])
    with pytest.raises(UserError, match=r"look as if a suffix had made them unique.*cells_lane"):
        join_cells_table(pd.Index([A]), path, CellsTableColumns(donor="donor"), "", "S1")


def test_without_lanes_repeated_barcodes_are_refused(table):
    path = table([(A, "ctrl", "d1", "T"), (A, "stim", "d2", "B")])
    with pytest.raises(UserError, match="stands in several rows"):
        join_cells_table(pd.Index([A]), path, CellsTableColumns(donor="donor"), "", "S1")


def test_one_lane_needs_no_lane_column(put):
    path = put("cells.csv", f"cell_id,ind,call\n{B},d2,doublet\n{A},d1,NA\n")
    columns = CellsTableColumns(barcode="cell_id", donor="ind", doublet="call")
    join = join_cells_table(pd.Index([A, B, C]), path, columns, "", "S1")
    assert list(join.cells["donor"]) == ["d1", "d2", ""]
    assert list(join.cells["author_doublet"]) == ["", "doublet", ""]
    assert "author_label" not in join.cells
    same = join_cells_table(pd.Index([A, B, C]), path, CellsTableColumns(donor="ind"), "", "S1")
    assert list(same.cells["donor"]) == ["d1", "d2", ""]  # the first column is the barcode unless another is named


@pytest.mark.parametrize(
    ("columns", "lane", "message"),
    [
        (COLUMNS, "", "cells_lane is empty.*ctrl, stim"),
        (COLUMNS, "late", "cells_lane is 'late'.*ctrl, stim"),
        (CellsTableColumns(donor="donor"), "stim", "names no lane column"),
        (
            CellsTableColumns(lane="lane", donor="person"),
            "stim",
            "no column 'person'; its columns are lane, donor, cell",
        ),
    ],
)
def test_faults_name_sheet_and_column(columns, lane, message, table):
    path = table([(A, "ctrl", "d1", "T"), (B, "stim", "d3", "NK")])
    with pytest.raises(UserError, match=message):
        join_cells_table(pd.Index([A]), path, columns, lane, "S1")


def test_no_barcode_in_common(table):
    path = table([(A, "x", "d1", "T")])
    with pytest.raises(UserError, match=f"none of the library's 1 barcodes .first: {B}"):
        join_cells_table(pd.Index([B]), path, COLUMNS, "x", "S1")


def test_ragged_table_names_its_row(put):
    path = put("cells.tsv", f"bc\tdonor\n{A}\td1\n{B}\n")
    with pytest.raises(UserError, match="row 3 has 1 columns"):
        join_cells_table(pd.Index([A]), path, CellsTableColumns(donor="donor"), "", "S1")


def test_table_is_found_by_name_pattern_or_path(put, manifest_of):
    path = put("GSE1_meta.tsv.gz", "x")
    other = put("GSE1_more.tsv.gz", "x")
    manifest = manifest_of([], [path, other])
    assert locate_cells_table("GSE1_meta.tsv.gz", manifest) == path
    assert locate_cells_table("*meta*", manifest) == path
    assert locate_cells_table(str(other), manifest_of([], [path])) == other
    with pytest.raises(UserError, match="fits 2 files"):
        locate_cells_table("GSE1_*", manifest)
    with pytest.raises(UserError, match=r"column cells: 'no.tsv' is no file.*GSE1_meta.tsv.gz"):
        locate_cells_table("no.tsv", manifest)


def test_unknown_config_key():
    with pytest.raises(UserError, match="unknown key labels; the keys are barcode, barcode_pattern, donor"):
        CellsTableColumns.from_config({"labels": "cell"})


STRATA = (
    "cell,who,passage,call\n"
    f"{A},d1,5,\n"
    f"{B},d1,2,T\x07x\n"
    f"{C},d2,5,\n"
)  # fmt: skip


def test_a_lane_may_be_told_by_several_columns(put):
    columns = CellsTableColumns.from_config({"barcode": "cell", "lane": ["who", "passage"], "label": "call"})
    join = join_cells_table(pd.Index([A, B, C]), put("cells.csv", STRATA), columns, "d1|2", "S1")
    assert list(join.cells["in_cells_table"]) == [False, True, False]
    assert "1 of 3 barcodes found in lane 'd1|2'" in join.decision
    with pytest.raises(UserError, match=r"cells_lane is 'd2 \| 2'.* column 'who' and 'passage' of cells.csv \(d1 \| 2"):
        join_cells_table(pd.Index([A, B, C]), put("cells.csv", STRATA), columns, "d2 | 2", "S1")


def test_control_characters_do_not_get_into_labels(put):
    columns = CellsTableColumns(barcode="cell", lane="passage", label="call")
    join = join_cells_table(pd.Index([B]), put("cells.csv", STRATA), columns, "2", "S1")
    assert list(join.cells["author_label"]) == ["T x"]


def test_only_listed_cells_are_kept_where_asked(put):
    path = put("cells.csv", STRATA)
    barcodes = pd.Index([C, A, "GATTACAGATTACA-1", B])
    of_passage = CellsTableColumns(barcode="cell", lane="passage")
    assert join_cells_table(barcodes, path, of_passage, "5", "S1").kept.all()
    listed = CellsTableColumns.from_config({"barcode": "cell", "lane": "passage", "listed_only": True})
    join = join_cells_table(barcodes, path, listed, "5", "S1")
    assert list(join.kept) == [True, True, False, False]
    assert "only listed cells kept: 2 left out" in join.decision


def test_a_pattern_takes_the_barcode_out_of_its_column(put):
    table = f"title,who\ncell one [{A}],d1\nbulk control,d9\ncell two [{B}],d2\n"
    columns = CellsTableColumns(barcode="title", barcode_pattern=r"\[([^]]+)\]", donor="who")
    join = join_cells_table(pd.Index([B, A]), put("cells.csv", table), columns, "", "S1")
    assert list(join.cells["donor"]) == ["d2", "d1"]
    assert "1 rows of the table without a barcode left out" in join.decision
    wrong = CellsTableColumns(barcode="title", barcode_pattern=r"<(.+)>", donor="who")
    with pytest.raises(UserError, match=r"fits no barcode of cells.csv \(first: 'cell one"):
        join_cells_table(pd.Index([A]), put("cells.csv", table), wrong, "", "S1")


@pytest.mark.parametrize(
    ("pattern", "message"), [("[", "not a regular"), ("a", "has 0 groups"), ("(a)(b)", "2 groups")]
)
def test_a_pattern_has_one_group(pattern, message):
    with pytest.raises(UserError, match=message):
        CellsTableColumns(barcode_pattern=pattern)
