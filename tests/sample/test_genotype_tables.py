"""Tables of demuxlet, freemuxlet, vireo and souporcell: known by their headers, and their clusters never paired."""

from __future__ import annotations

import pandas as pd
import pytest

from immunomod.errors import UserError
from immunomod.sample.cells_table import CellsTableColumns, join_cells_table, rows_of_library
from immunomod.sample.demultiplex.genotypes import recognise_genotypes

A, B, C, D = "AAACATACAATGCC-1", "CCGGAGACTGTGAC-1", "TTTAGCTGCGAACT-1", "GGGAACTACCTTGG-1"
BARCODES = pd.Index([A, B, C, D])


def _table(header: str, *rows: str) -> str:
    return "\n".join(["\t".join(row.split(" ")) for row in (header, *rows)]) + "\n"


DEMUXLET = _table(
    "BARCODE RD.TOTL N.SNP BEST SNG.1ST SNG.LLK1 SNG.2ND DBL.1ST DBL.2ND PRB.DBL",
    f"{A} 90 40 SNG-1015 1015 -20.1 1256 1015 1256 1e-9",
    f"{B} 80 30 SNG-1256 1256 -18.2 1015 1015 1256 1e-8",
    f"{C} 190 70 DBL-1015-1256-0.500 1015 -60.4 1256 1015 1256 1",
    f"{D} 9 3 AMB-1015-1256-1015/1256 1015 -2.0 1256 1015 1256 0.4",
)
POPSCLE = _table(
    "INT_ID BARCODE NUM.SNPS NUM.READS DROPLET.TYPE BEST.GUESS BEST.LLK SNG.BEST.GUESS SNG.BEST.LLK DBL.BEST.GUESS",
    f"0 {A} 40 90 SNG 1015,1015,0.00 -20.1 1015 -20.1 1015,1256,0.50",
    f"1 {B} 30 80 SNG 1256,1256,0.00 -18.2 1256 -18.2 1015,1256,0.50",
    f"2 {C} 70 190 DBL 1015,1256,0.50 -60.4 1015 -70.4 1015,1256,0.50",
    f"3 {D} 3 9 AMB 1015,1015,0.00 -2.0 1015 -2.0 1015,1256,0.50",
)
FREEMUXLET = POPSCLE.replace("1015", "0").replace("1256", "1")
VIREO = _table(
    "cell donor_id prob_max prob_doublet n_vars best_singlet best_doublet doublet_logLikRatio",
    f"{A} donor0 1.00 1e-9 40 donor0 donor0,donor1 -9",
    f"{B} donor1 0.99 1e-8 30 donor1 donor0,donor1 -8",
    f"{C} doublet 0.01 0.99 70 donor0 donor0,donor1 20",
    f"{D} unassigned 0.55 0.1 3 donor0 donor0,donor1 0",
)
SOUPORCELL = _table(
    "barcode status assignment log_prob_singleton log_prob_doublet cluster0 cluster1",
    f"{A} singlet 0 -20 -40 -20 -90",
    f"{B} singlet 1 -18 -38 -80 -18",
    f"{C} doublet 0/1 -60 -30 -70 -66",
    f"{D} unassigned 0 -2 -2.1 -2 -3",
)
NAMED = {"a.best": DEMUXLET, "b.best": POPSCLE}
NUMBERED = {"lane.clust1.samples.gz": FREEMUXLET, "donor_ids.tsv": VIREO, "clusters.tsv": SOUPORCELL}
CLUSTERS = {"lane.clust1.samples.gz": ("0", "1"), "donor_ids.tsv": ("donor0", "donor1"), "clusters.tsv": ("0", "1")}


@pytest.mark.parametrize("name", [*NAMED, *NUMBERED])
def test_a_program_is_known_by_its_header(name, put):
    path = put(name, (NAMED | NUMBERED)[name])
    join = join_cells_table(BARCODES, path, CellsTableColumns(), "", "S1", f"lane1/{name}")
    assert list(join.cells["author_doublet"]) == ["singlet", "singlet", "doublet", "unassigned"]
    if name in NAMED:
        donors = ("1015", "1256")
        assert not join.listed.is_numbered
    else:
        donors = tuple(f"{cluster} (lane1/{name})" for cluster in CLUSTERS[name])
        assert join.listed.is_numbered and join.listed.clusters == CLUSTERS[name]
        assert "the same in no other table" in join.decision
    assert list(join.cells["donor"]) == [*donors, "", ""]
    assert join.decision.startswith("a table of ")


@pytest.mark.parametrize("name", NUMBERED)
def test_clusters_get_their_names_by_sample(name, put):
    path = put(name, NUMBERED[name])
    first, second = CLUSTERS[name]
    section = {"donors": {"lane1": {first: "P1", second: "P2"}, "lane2": {first: "P2", second: "P1"}}}
    columns = CellsTableColumns.from_config(section)
    for sample, donors in (("lane1", ["P1", "P2"]), ("lane2", ["P2", "P1"])):
        join = join_cells_table(BARCODES, path, columns, "", sample, name)
        assert list(join.cells["donor"]) == [*donors, "", ""]
        assert join.listed.is_numbered and join.listed.clusters == ()
    other = join_cells_table(BARCODES, path, columns, "", "lane3", name)
    assert list(other.cells["donor"])[:2] == [f"{first} ({name})", f"{second} ({name})"]


def test_the_same_cluster_of_two_lanes_is_no_pair(put):
    donors = [
        set(rows_of_library(put(name, VIREO), CellsTableColumns(), "", "S", name).rows["donor"]) - {""}
        for name in ("lane1/donor_ids.tsv", "lane2/donor_ids.tsv")
    ]
    assert len(donors[0]) == len(donors[1]) == 2 and not donors[0] & donors[1]


def test_numbers_in_yaml_name_clusters_too(put):
    columns = CellsTableColumns.from_config({"donors": {0: "P1", 1: 7}})
    assert columns.donors_of("any") == {"0": "P1", "1": "7"}
    join = join_cells_table(BARCODES, put("clusters.tsv", SOUPORCELL), columns, "", "S1")
    assert list(join.cells["donor"]) == ["P1", "7", "", ""]


def test_a_donor_that_the_table_lacks_is_a_mistake(put):
    columns = CellsTableColumns.from_config({"donors": {"donor2": "P3"}})
    with pytest.raises(UserError, match=r"donor_ids\.tsv has no donor 'donor2'; its donors are donor0, donor1"):
        join_cells_table(BARCODES, put("donor_ids.tsv", VIREO), columns, "", "S1")


def test_vireo_with_genotypes_names_its_donors(put):
    path = put("donor_ids.tsv", VIREO.replace("donor0", "Ann").replace("donor1", "Ben"))
    join = join_cells_table(BARCODES, path, CellsTableColumns(), "", "S1")
    assert list(join.cells["donor"]) == ["Ann", "Ben", "", ""] and not join.listed.is_numbered


def test_named_columns_win_over_recognition(put):
    columns = CellsTableColumns(barcode="cell", donor="best_singlet")
    join = join_cells_table(BARCODES, put("donor_ids.tsv", VIREO), columns, "", "S1")
    assert list(join.cells["donor"]) == ["donor0", "donor1", "donor0", "donor0"]
    assert "author_doublet" not in join.cells


def test_an_authors_table_is_no_programs(put):
    table = pd.DataFrame({"cell": [A], "donor_id": ["P1"], "cell_type": ["T"]})
    assert recognise_genotypes(table) is None
    assert recognise_genotypes(pd.DataFrame({"barcode": [A], "status": ["singlet"]})) is None
    renamed = join_cells_table(
        BARCODES, put("x.tsv", f"cell\tind\n{A}\td1\n"), CellsTableColumns(donor="ind", donors={"d1": "P1"}), "", "S"
    )
    assert renamed.cells["donor"].iloc[0] == "P1"
