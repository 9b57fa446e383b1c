"""Shares of cell classes inside their compartment, against a calculation by hand."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse, stats

from immunomod.contrast.composition import COLUMNS, composition_effects, log_odds
from immunomod.contrast.design import Contrast
from immunomod.contrast.settings import ContrastSettings

QUESTION = Contrast.from_row(
    {"contrast": "q", "dataset": "ds", "variable": "condition", "test": "treated", "reference": "control"}
)
COUNTS = {
    # (condition, donor): T, B, NK, MSC
    ("control", "D1"): (60, 30, 10, 500),
    ("treated", "D1"): (30, 50, 5, 20),
    ("control", "D2"): (80, 35, 20, 400),
    ("treated", "D2"): (40, 70, 10, 10),
    ("control", "D3"): (55, 40, 12, 300),
    ("treated", "D3"): (20, 45, 0, 900),
}


def study(counts=None) -> AnnData:
    rows = []
    for (condition, donor), numbers in (counts or COUNTS).items():
        for cell_class, n_cells in zip(("T", "B", "NK", "MSC"), numbers, strict=True):
            if n_cells:
                compartment = "MSC" if cell_class == "MSC" else "immune"
                rows.append((f"{condition}{donor}", donor, condition, cell_class, compartment, cell_class, n_cells))
    columns = ["sample", "donor", "condition", "cell_class", "compartment", "lineage", "n_cells"]
    obs = pd.DataFrame(rows, columns=columns, index=[f"u{i}" for i in range(len(rows))])
    return AnnData(X=sparse.csr_matrix((len(obs), 1)), obs=obs)


def result_of(data: AnnData) -> pd.DataFrame:
    return composition_effects(QUESTION, {"ds": data}, ContrastSettings()).set_index("cell_class")


def test_effects_are_paired_differences_of_log_odds():
    table = result_of(study())
    for column, cell_class in enumerate(("T", "B", "NK")):
        odds = {
            key: np.log((numbers[column] + 0.5) / (sum(numbers[:3]) - numbers[column] + 0.5))
            for key, numbers in COUNTS.items()
        }
        difference = [odds[("treated", donor)] - odds[("control", donor)] for donor in ("D1", "D2", "D3")]
        row = table.loc[cell_class]
        expected = stats.ttest_1samp(difference, 0)
        assert row["effect"] == pytest.approx(np.mean(difference))
        assert row["se"] == pytest.approx(stats.sem(difference))
        assert row["p_value"] == pytest.approx(expected.pvalue)
        np.testing.assert_allclose([row["ci_low"], row["ci_high"]], expected.confidence_interval())
        assert (row["df"], row["n_pairs"], row["status"]) == (2, 3, "tested")
        assert row["cells_test"] == sum(COUNTS[("treated", donor)][column] for donor in ("D1", "D2", "D3"))
    tested = table[table["status"] == "tested"]
    np.testing.assert_allclose(tested["fdr"], stats.false_discovery_control(tested["p_value"]))


def test_what_is_measured_in_the_cells_is_averaged_over_the_compartment():
    data = study()
    rng = np.random.default_rng(1)
    data.obs["cycling_fraction"] = rng.random(len(data.obs))
    question = Contrast.from_row(
        {"contrast": "q", "dataset": "ds", "variable": "condition", "test": "treated", "reference": "control"}
        | {"covariates": "cycling_fraction"}
    )
    found = composition_effects(question, {"ds": data}, ContrastSettings()).set_index("cell_class").loc["B"]
    columns, odds = [], []
    for (condition, donor), numbers in COUNTS.items():
        of_unit = data.obs[(data.obs["donor"] == donor) & (data.obs["condition"] == condition)]
        immune = of_unit[of_unit["compartment"] == "immune"]
        cycling = np.average(immune["cycling_fraction"], weights=immune["n_cells"])
        columns.append([*(donor == one for one in ("D1", "D2", "D3")), cycling, condition == "treated"])
        odds.append(np.log((numbers[1] + 0.5) / (sum(numbers[:3]) - numbers[1] + 0.5)))
    expected = np.linalg.lstsq(np.array(columns, dtype=float), np.array(odds), rcond=None)[0][-1]
    assert (found["status"], found["df"]) == ("tested", 1)
    assert found["effect"] == pytest.approx(expected)


def test_the_mixing_ratio_of_compartments_does_not_matter():
    many = {key: (*numbers[:3], numbers[3] * 7) for key, numbers in COUNTS.items()}
    first, second = result_of(study()), result_of(study(many))
    pd.testing.assert_series_equal(first["effect"], second["effect"])
    assert first.loc["MSC", "status"] == "absent"
    assert "only class of its compartment" in first.loc["MSC", "reason"]


def test_a_class_that_vanishes_is_a_result():
    gone = {key: (numbers[0], numbers[1], 0 if key[0] == "treated" else 40, 5) for key, numbers in COUNTS.items()}
    row = result_of(study(gone)).loc["NK"]
    assert (row["status"], row["cells_test"]) == ("tested", 0)
    assert row["effect"] < -3


def test_columns_and_statuses():
    one_donor = {key: numbers for key, numbers in COUNTS.items() if key[1] == "D1"}
    table = composition_effects(QUESTION, {"ds": study(one_donor)}, ContrastSettings())
    assert list(table.columns) == COLUMNS
    assert set(table.loc[table["cell_class"] != "MSC", "status"]) == {"unreplicated"}
    assert table["p_value"].isna().all()
    assert table.loc[table["cell_class"] == "T", "effect"].notna().all()


def test_log_odds_are_finite():
    np.testing.assert_allclose(log_odds(np.array([0, 10]), np.array([10, 10])), [-np.log(21), np.log(21)])
