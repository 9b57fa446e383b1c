"""Designs before a run: what is counted, what is warned of, and what is left alone, each with its control."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from immunomod.preflight.designs import Designs, examine_designs
from immunomod.settings import Run

SHEET = (
    "sample",
    "dataset",
    "condition",
    "donor",
    "culture",
    "stimulus",
    "msc_source",
    "msc_donor",
    "batch",
    "guessed",
)


def run_of(samples: pd.DataFrame, *contrasts: dict[str, str], lenient: bool = False) -> Run:
    """A study from a table of samples; contrasts default to coculture against both alone."""
    samples = samples.reindex(columns=[*dict.fromkeys([*SHEET, *samples.columns])], fill_value="").astype(str)
    if "organism" not in samples:
        samples["organism"] = "human"
    samples.index = pd.RangeIndex(2, len(samples) + 2)
    base = {
        "contrast": "q", "dataset": "d", "variable": "condition", "test": "coculture", "reference": "msc,immune",
        "pair_by": "donor", "where": "", "covariates": "",
    }  # fmt: skip
    rows = pd.DataFrame([base | contrast for contrast in contrasts or ({},)])
    rows.index = pd.RangeIndex(2, len(rows) + 2)
    config = {
        "samples": "samples.tsv",
        "contrasts": "contrasts.tsv",
        "contrast": {"min_cells": 10, "allow_unreplicated": lenient},
    }
    return Run(config=config, folder=Path(), samples=samples, contrasts=rows)


def cultures(n_donors: int = 4, **columns: object) -> pd.DataFrame:
    """MSC alone, immune cells alone and both, of each donor; ``columns`` are made from donor number and arm."""
    rows = []
    for number in range(n_donors):
        for arm in ("msc", "immune", "coculture"):
            row = {
                "sample": f"D{number}_{arm}",
                "dataset": "d",
                "condition": arm,
                "donor": f"D{number}",
                "culture": arm,
                "stimulus": "" if arm == "msc" else "PHA",
            }
            rows.append(row | {key: make(number, arm) for key, make in columns.items()})
    return pd.DataFrame(rows)


def told(found: Designs) -> list[tuple[int | None, str, bool]]:
    return [(one.row, one.column, one.is_error) for one in found.problems]


def words(found: Designs) -> str:
    return " ".join(str(one) for one in found.problems)


def test_a_paired_design_is_counted_and_not_complained_of():
    found = examine_designs(run_of(cultures()), {})
    assert found.problems == () and found.unknown == ()
    sizes = {
        one.cell_class: (one.design.n_test, one.design.n_reference, one.design.n_pairs) for one in found.comparisons
    }
    assert sizes == {"MSC": (4, 4, 4), "immune": (4, 4, 4)}


@pytest.mark.parametrize("seed", range(8))
def test_arms_and_pairs_are_those_of_a_count_by_hand(seed):
    random = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "sample": [f"s{i}" for i in range(14)],
            "dataset": "d",
            "condition": random.choice(["a", "b"], 14),
            "donor": random.choice([f"D{i}" for i in range(6)], 14),
        }
    )
    found = examine_designs(run_of(table, {"test": "b", "reference": "a"}, lenient=True), {})
    (one,) = found.comparisons
    arms = {arm: set(table.loc[table["condition"] == arm, "donor"]) for arm in "ab"}
    pairs = arms["a"] & arms["b"]
    is_paired = len(pairs) >= 2 and 4 * len(pairs) >= len(arms["a"]) + len(arms["b"])
    assert one.design.is_paired is is_paired
    assert one.design.n_pairs == (len(pairs) if is_paired else 0)
    assert (one.design.n_test, one.design.n_reference) == (
        (len(pairs), len(pairs)) if is_paired else (len(arms["b"]), len(arms["a"]))
    )


def test_a_batch_per_arm_is_an_error_that_stops_no_run():
    found = examine_designs(run_of(cultures(batch=lambda number, arm: "2" if arm == "coculture" else "1")), {})
    assert told(found) == [(2, "variable", True)]
    assert "batch" in words(found) and not found.problems[0].stops_run
    crossed = cultures(batch=lambda number, arm: str(number % 2))
    assert examine_designs(run_of(crossed), {}).problems == ()


def test_a_covariate_that_changes_with_the_variable_is_named():
    medium = cultures(medium=lambda number, arm: "new" if arm == "coculture" else "old")
    found = examine_designs(run_of(medium, {"covariates": "medium"}), {})
    assert told(found) == [(2, "covariates", True)]
    assert "cannot be told from that of medium" in words(found)
    crossed = cultures(medium=lambda number, arm: "new" if (number + len(arm)) % 2 else "old")
    assert examine_designs(run_of(crossed, {"covariates": "medium"}), {}).problems == ()


def test_a_column_beside_the_model_that_changes_with_the_variable_is_a_doubt():
    medium = cultures(protocol=lambda number, arm: "new" if arm == "coculture" else "old")
    found = examine_designs(run_of(medium), {})
    assert told(found) == [(2, "variable", False)]
    assert "condition and protocol change together" in words(found)


def test_covariates_that_use_up_the_replicates_are_named():
    table = pd.DataFrame(
        {
            "sample": [f"s{i}" for i in range(4)], "dataset": "d", "condition": list("aabb"),
            "donor": [f"D{i}" for i in range(4)], "sex": list("fmfm"), "age": ["20", "30", "41", "52"],
        }
    )  # fmt: skip
    contrast = {"test": "b", "reference": "a", "covariates": "sex,age"}
    found = examine_designs(run_of(table, contrast), {})
    assert (2, "covariates", True) in told(found)
    assert "no residual degree of freedom" in words(found)
    fewer = examine_designs(run_of(table, contrast | {"covariates": "sex"}), {})
    assert not [one for one in fewer.problems if one.is_error]


def test_what_is_measured_in_the_cells_may_be_a_covariate_and_takes_a_degree_of_freedom():
    contrast = {"covariates": "mean_S_score", "reference": "immune", "where": "culture != 'msc'"}
    assert examine_designs(run_of(cultures(4), contrast), {}).problems == ()
    found = examine_designs(run_of(cultures(2), contrast), {})
    assert "degree of freedom" in words(found) and all("change together" not in one.problem for one in found.problems)


def test_an_idle_covariate_is_named():
    site = cultures(site=lambda number, arm: "here")
    assert told(examine_designs(run_of(site, {"covariates": "site"}), {})) == [(2, "covariates", False)]


def test_arms_without_a_common_donor_are_said_to_be_unpaired():
    table = pd.DataFrame(
        {
            "sample": [f"s{i}" for i in range(6)], "dataset": "d", "condition": list("aaabbb"),
            "donor": [f"D{i}" for i in range(6)],
        }
    )  # fmt: skip
    contrast = {"test": "b", "reference": "a"}
    found = examine_designs(run_of(table, contrast), {})
    assert told(found) == [(2, "pair_by", False)] and "no donor stands in both arms" in words(found)
    paired = table.assign(donor=["D0", "D1", "D2"] * 2)
    assert examine_designs(run_of(paired, contrast), {}).problems == ()


def test_a_trend_wants_three_levels():
    table = pd.DataFrame(
        {
            "sample": [f"s{i}" for i in range(9)], "dataset": "d", "donor": [f"D{i // 3}" for i in range(9)],
            "dose": ["0.1", "1", "10"] * 3, "condition": "x",
        }
    )  # fmt: skip
    trend = {"variable": "dose", "test": "", "reference": ""}
    assert examine_designs(run_of(table, trend), {}).problems == ()
    two = table.assign(dose=["0.1", "1", "1.0"] * 3)
    found = examine_designs(run_of(two, trend), {})
    assert told(found) == [(2, "variable", False)] and "takes 2 values" in words(found)


@pytest.mark.parametrize(
    ("stimulus", "column"),
    [
        (lambda number, arm: "" if arm == "msc" else "PHA", ""),
        (lambda number, arm: "none" if arm == "immune" else "PHA", "reference"),
        (lambda number, arm: "none", "test"),
        (lambda number, arm: "", ""),
    ],
    ids=["the same", "resting reference", "resting throughout", "not said"],
)
def test_the_reference_must_be_stimulated_as_the_coculture_is(stimulus, column):
    found = examine_designs(run_of(cultures(stimulus=stimulus)), {})
    assert told(found) == ([(2, column, False)] if column else [])


def test_without_msc_a_stimulus_may_be_the_question():
    table = pd.DataFrame(
        {
            "sample": ["ctrl", "stim"], "dataset": "d", "condition": ["ctrl", "stim"], "culture": "immune",
            "stimulus": ["none", "IFN-beta"],
        }
    )  # fmt: skip
    donors = {"ctrl": ["1", "2", "3"], "stim": ["2", "3", "4"]}
    found = examine_designs(run_of(table, {"test": "stim", "reference": "ctrl"}), donors)
    assert found.problems == ()
    assert [one.design.n_pairs for one in found.comparisons] == [2]


def test_donors_that_only_a_table_names_are_waited_for():
    table = pd.DataFrame({"sample": ["a", "b"], "dataset": "d", "condition": ["a", "b"]})
    contrast = {"test": "b", "reference": "a"}
    found = examine_designs(run_of(table, contrast), {"a": ["1"]})
    assert found.comparisons == () and found.problems == () and len(found.unknown) == 1
    single = examine_designs(run_of(table, contrast), {"a": ["1"], "b": ["1"]})
    assert told(single) == [(2, "test", True)] and "cells are not replicates" in words(single)
    lenient = examine_designs(run_of(table, contrast, lenient=True), {"a": ["1"], "b": ["1"]})
    assert [one.is_error for one in lenient.problems] == [False]


def test_organisms_are_not_mixed_unheard():
    human = cultures()
    mouse = cultures().assign(dataset="m", sample=lambda rows: "m" + rows["sample"])
    both = pd.concat([human.assign(organism="human"), mouse.assign(organism="mouse")])
    found = examine_designs(run_of(both, {"dataset": "d,m"}), {})
    assert told(found) == [(2, "dataset", False)] and "m (mouse)" in words(found)
    alone = examine_designs(run_of(both, {"dataset": "d"}, {"contrast": "p", "dataset": "m"}), {})
    assert alone.problems == ()


def test_what_cannot_be_tested_in_one_class_is_a_warning_where_the_other_can():
    table = cultures()
    table = table[(table["condition"] != "msc") | (table["donor"] == "D0")]
    found = examine_designs(run_of(table), {})
    assert (2, "test", False) in told(found)
    assert "(MSC) is unreplicated" in words(found)
