"""The batch key: which column is aligned, and what is said where it is mixed up with the question."""

from __future__ import annotations

import pandas as pd
import pytest

from immunomod.atlas.integration.keys import choose_key, nested_share, replicates_of
from immunomod.errors import UserError


def cells(rows: list[dict[str, str]], n: int = 20) -> pd.DataFrame:
    """``n`` cells of each library."""
    return pd.DataFrame([row for row in rows for _ in range(n)])


def paired() -> list[dict[str, str]]:
    return [
        {"sample": f"{donor}_{arm}", "dataset": "A", "donor": donor, "condition": arm, "culture": arm}
        for donor in ("D1", "D2")
        for arm in ("msc", "immune", "coculture")
    ]


def test_donors_that_span_conditions_go_before_samples() -> None:
    key = choose_key(cells(paired()))
    assert (key.name, key.n_batches, key.caution) == ("donor", 2, "")
    assert "spans conditions" in key.reason


def test_a_batch_that_spans_conditions_goes_first_and_one_that_does_not_is_passed_over() -> None:
    rows = [row | {"batch": "1" if row["donor"] == "D1" else "2"} for row in paired()]
    assert choose_key(cells(rows)).name == "batch"
    rows = [row | {"batch": row["condition"]} for row in paired()]
    assert choose_key(cells(rows)).name == "donor"


def test_samples_asked_for_are_taken_and_their_cost_is_told() -> None:
    key = choose_key(cells(paired()), "sample")
    assert key.name == "sample" and key.n_batches == 6
    assert "every sample is of one condition" in key.caution and "what the condition did" in key.caution


def test_a_study_without_pairs_says_what_aligning_costs() -> None:
    rows = [
        {"sample": f"S{number}", "donor": f"D{number}", "condition": "treated" if number > 2 else "control"}
        for number in range(1, 5)
    ]
    key = choose_key(cells(rows))
    assert key.name == "donor" and "no column" in key.reason and "of one condition" in key.caution


def test_kinds_of_culture_count_where_conditions_are_the_same() -> None:
    rows = [{"sample": f"S{kind}", "condition": "x", "culture": kind} for kind in ("msc", "immune")]
    assert "one kind of culture" in choose_key(cells(rows)).caution


def test_several_data_sets_keep_their_donors_apart() -> None:
    other = [row | {"dataset": "B", "sample": row["sample"] + "b"} for row in paired()]
    key = choose_key(cells(paired() + other))
    assert key.name == "dataset+donor" and set(key.batches) == {"A/D1", "A/D2", "B/D1", "B/D2"}


def test_lanes_of_many_donors_are_replicates_by_donor() -> None:
    rows = [{"sample": lane, "donor": donor, "condition": lane} for lane in ("ctrl", "stim") for donor in ("1", "2")]
    table = cells(rows)
    assert choose_key(table).name == "donor"
    assert set(replicates_of(table)) == {"ctrl/1", "ctrl/2", "stim/1", "stim/2"}


def test_one_library_has_one_batch() -> None:
    assert choose_key(cells([{"sample": "S", "donor": "", "condition": ""}])).n_batches == 1


def test_a_column_that_is_not_there_is_named_beside_those_that_are() -> None:
    with pytest.raises(UserError, match=r"atlas\.integration_key is 'plate'.*donor"):
        choose_key(cells(paired()), "plate")


def test_nested_share_by_hand() -> None:
    batches, groups = ["a", "a", "b", "c", "c"], pd.Series(["x", "y", "x", "y", "y"]).to_numpy(dtype=object)
    assert nested_share(batches, groups) == pytest.approx(3 / 5)
    assert nested_share(batches, pd.Series(["x"] * 5).to_numpy(dtype=object)) == 0
