"""Pooled lanes before a run: hashtags of the matrix, rows that share one, donors, and clusters of several tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from immunomod.acquire.plan import refuse_same_matrix
from immunomod.errors import Severity, UserError
from immunomod.preflight import Findings, check_file
from immunomod.settings import load_run_file
from support.planted_study import PlantedStudy, human_symbols, write_matrix

TAGS = ["HTO1", "HTO2", "HTO3", "HTO4"]
CELLS = [f"{bases * 3}-1" for bases in ("ACGT", "CCGT", "GCGT", "TCGT", "AAGT", "CAGT")]


@pytest.fixture
def study(tmp_path: Path) -> PlantedStudy:
    """Two donors, and both arms of each lane in one matrix: the co-culture has two hashtags, the control two."""
    study = PlantedStudy(tmp_path / "study")
    write_matrix(study.folder / "lane1.csv.gz", 71, [*human_symbols(), *TAGS], CELLS)
    row = study.samples[0] | {"source": "lane1.csv.gz", "donor": "", "batch": "", "hashtags": "", "cells": ""}
    row |= {"cells_lane": ""}
    study.samples = [
        row | {"sample": "co", "condition": "coculture", "culture": "coculture", "hashtags": "HTO1=D1,HTO2=D2"},
        row | {"sample": "im", "condition": "immune", "culture": "immune", "hashtags": "hto-3=D1,HTO4=D2"},
    ]
    study.contrasts = [study.contrast("coculture", "immune", "")]
    return study


def check(study: PlantedStudy) -> Findings:
    return check_file(study.write(), study.folder / "results")


def told(found: Findings) -> list[tuple[str, int | None, str]]:
    return [(Path(one.file).name, one.row, one.column) for one in found.problems]


def test_rows_of_one_lane_with_hashtags_of_their_own_are_right(study):
    found = check(study)
    assert found.problems == ()
    assert "2 donors" in found.summary
    assert "q1 in lab, immune: 2 test, 2 reference replicates, 2 pairs" in found.summary


@pytest.mark.parametrize("second", ["HTO2=D1,HTO3=D2", "hto_2=D1"])
def test_a_hashtag_of_two_rows_is_named(study, second):
    study.samples[1]["hashtags"] = second
    found = [one for one in check(study).problems if one.column == "hashtags"]
    assert [one.row for one in found] == [3] and "HTO2 are taken by row 2 too" in found[0].problem


def test_rows_with_and_without_hashtags_take_the_same_cells(study):
    study.samples[1] |= {"hashtags": "", "donor": "D1"}
    assert ("samples.tsv", 3, "files") in told(check(study))


def test_the_same_hashtags_in_other_cells_of_a_matrix_are_right(study):
    cells = [f"{name[:-2]}-{lane}" for lane in (1, 2) for name in CELLS]
    write_matrix(study.folder / "lane1.csv.gz", 72, [*human_symbols(), *TAGS], cells)
    for row, lane in zip(study.samples, ("*-1", "*-2"), strict=True):
        row |= {"barcodes": lane, "hashtags": "HTO1=D1,HTO2=D2"}
    assert check(study).problems == ()
    study.samples[1]["barcodes"] = "*-1"
    assert told(check(study)) == [("samples.tsv", 3, "hashtags")]
    study.samples[1]["hashtags"] = "HTO3=D1,HTO4=D2"
    assert check(study).problems == ()


def test_a_hashtag_that_the_matrix_lacks_is_named_with_those_that_it_has(study):
    study.samples[1]["hashtags"] = "HTO9=D1,HTO4=D2"
    (problem,) = check(study).problems
    assert (problem.row, problem.column) == (3, "hashtags")
    assert "'HTO9' is no hashtag of the matrix" in problem.problem and "HTO1, HTO2, HTO3, HTO4" in problem.fix


def test_hashtags_may_stand_in_a_matrix_of_their_own(study):
    write_matrix(study.folder / "lane1.csv.gz", 73, cells=CELLS)
    write_matrix(study.folder / "tags.csv.gz", 74, TAGS, CELLS)
    for row in study.samples:
        row["source"] = "lane1.csv.gz, tags.csv.gz"
    assert check(study).problems == ()
    study.samples[0]["hashtags"] = "HTO7=D1,HTO2=D2"
    assert told(check(study)) == [("samples.tsv", 2, "hashtags")]


@pytest.mark.parametrize(
    ("hashtags", "words"),
    [("HTO1=", "names no hashtag and donor"), ("HTO1,HTO2=D2", "nothing names the donor of HTO1")],
)
def test_hashtags_that_cannot_be_read_stop_a_run(study, hashtags, words):
    study.samples[0]["hashtags"] = hashtags
    with pytest.raises(UserError, match=rf"row 2, column hashtags: .*{words}"):
        load_run_file(study.write())
    assert ("samples.tsv", 2, "hashtags") in told(check(study))


def test_a_row_needs_donor_cells_or_hashtags(study):
    study.samples[0]["hashtags"] = ""
    with pytest.raises(UserError, match="one of donor, cells, hashtags must be given"):
        load_run_file(study.write())


def test_one_donor_in_all_hashtags_is_no_replicate(study):
    study.samples[0]["hashtags"] = "HTO1=D1,HTO2=D1"
    with pytest.raises(UserError, match="coculture has 1 donor"):
        load_run_file(study.write())


def test_a_donor_put_right_has_no_file_fetched_again(study):
    def rows() -> list[dict[str, str]]:
        run = load_run_file(study.write())
        return [run.acquire_row(sample) for sample in run.samples["sample"]]

    before = rows()
    study.samples[0]["hashtags"] = "HTO1=D7,HTO2=D8"
    assert rows() == before
    assert [row["hashtags"] for row in before] == ["HTO1,HTO2", "hto-3,HTO4"]


def _vireo(path: Path, cells: list[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    rows = [f"{cell}\tdonor{number % 2}\t0.9\t0.1" for number, cell in enumerate(cells)]
    path.write_text("\n".join(["cell\tdonor_id\tprob_max\tprob_doublet", *rows]) + "\n")


@pytest.fixture
def two_lanes(study) -> PlantedStudy:
    """Each arm in a lane of its own, with a vireo table of its own."""
    for row, lane in zip(study.samples, ("one", "two"), strict=True):
        row |= {"source": f"{lane}.csv.gz", "hashtags": "", "cells": f"{lane}/donor_ids.tsv"}
        write_matrix(study.folder / row["source"], len(lane) + ord(lane[0]), cells=CELLS)
        _vireo(study.folder / row["cells"], CELLS)
    return study


def test_clusters_of_two_lanes_are_no_pairs(two_lanes):
    found = check(two_lanes)
    numbered = next(one for one in found.problems if one.column == "cells_tables.lab.donors")
    assert numbered.severity is Severity.WARNING and "each table numbers anew" in numbered.problem
    assert "{co: {donor0: D1}}" in numbered.fix
    assert "2 test, 2 reference replicates, unpaired" in found.summary and "4 donors" in found.summary


def test_one_name_for_the_clusters_of_two_lanes_is_refused(two_lanes):
    two_lanes.config["cells_tables"] = {"lab": {"donors": {"donor0": "P1", "donor1": "P2"}}}
    (problem,) = check(two_lanes).problems
    assert problem.is_error and problem.column == "cells_tables.lab.donors" and "anew" in problem.problem


def test_names_by_sample_pair_the_lanes(two_lanes):
    names = {"co": {"donor0": "P1", "donor1": "P2"}, "im": {"donor0": "P2", "donor1": "P1"}}
    two_lanes.config["cells_tables"] = {"lab": {"donors": names}}
    found = check(two_lanes)
    assert found.problems == () and "2 donors" in found.summary
    assert "2 test, 2 reference replicates, 2 pairs" in found.summary


def test_one_table_of_two_rows_may_name_its_clusters_once(study):
    _vireo(study.folder / "t" / "donor_ids.tsv", CELLS)
    for row, tags in zip(study.samples, ("HTO1,HTO2", "HTO3,HTO4"), strict=True):
        row |= {"hashtags": tags, "cells": "t/donor_ids.tsv"}
    study.config["cells_tables"] = {"lab": {"donors": {"donor0": "P1", "donor1": "P2"}}}
    found = check(study)
    assert found.problems == () and "2 pairs" in found.summary


def test_the_plan_allows_one_matrix_for_rows_with_hashtags_alone():
    from immunomod.acquire.plan import COUNTS, Pick, sheet_rows

    sheet = pd.DataFrame(
        {"sample": ["a", "b", "c"], "source": "m.h5", "hashtags": ["HTO1", "HTO2", ""]}, index=pd.Index([2, 3, 4])
    )
    picks = [Pick(row, COUNTS, Path("m.h5"), shared=False) for row in sheet_rows(sheet, "samples.tsv")]
    refuse_same_matrix(picks[:2])
    for pair in (picks[1:], picks[:0:-1], picks):
        with pytest.raises(UserError, match="gives the same file"):
            refuse_same_matrix(pair)
