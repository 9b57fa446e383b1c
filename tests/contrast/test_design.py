"""Which replicates are compared, how, and the words for those that cannot be."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from immunomod.contrast.design import Contrast, stratum_design
from immunomod.contrast.model import fit_linear
from immunomod.errors import UserError

ROW = {"contrast": "q", "dataset": "ds", "variable": "condition", "test": "treated", "reference": "control"}


def contrast(**changes: str) -> Contrast:
    return Contrast.from_row(ROW | changes)


def replicates(*rows: tuple[str, str, int], cell_class: str = "T", compartment: str = "immune", **columns: list[str]):
    """(condition, donor, cells) per replicate, each in a sample of its own."""
    table = pd.DataFrame(rows, columns=["condition", "donor", "n_cells"])
    table["sample"] = [f"s{i}" for i in range(len(table))]
    table["cell_class"], table["compartment"], table["lineage"] = cell_class, compartment, cell_class
    return table.assign(**columns)


PAIRS = [(condition, donor, 50) for donor in ("D1", "D2", "D3") for condition in ("control", "treated")]


def design_of(table: pd.DataFrame, question: Contrast | None = None, cell_class: str = "T"):
    return stratum_design(question or contrast(), table, cell_class, min_cells=10)


def test_row_is_read_with_defaults():
    question = Contrast.from_row(
        ROW | {"dataset": "a, b", "reference": "x,y", "covariates": "sex , age", "pair_by": ""}
    )
    assert question.datasets == ("a", "b")
    assert question.reference == ("x", "y")
    assert question.covariates == ("sex", "age")
    assert question.pair_by == "donor"
    assert not question.is_trend
    assert Contrast.from_row({"contrast": "q", "dataset": "d", "variable": "dose"}).is_trend
    with pytest.raises(UserError, match="both"):
        Contrast.from_row(ROW | {"reference": ""})


def test_pairs_give_a_paired_model():
    design = design_of(replicates(*PAIRS))
    assert design.status == "tested"
    assert design.is_paired
    assert (design.n_test, design.n_reference, design.n_pairs, design.residual_df) == (3, 3, 3, 2)
    assert (design.cells_test, design.cells_reference) == (150, 150)
    assert design.model == "paired: score ~ donor + condition; 3 pairs"
    assert (design.effect[(design.units["arm"] == "test").to_numpy()] == 0.5).all()


def test_different_donors_give_an_unpaired_model():
    table = replicates(*[("treated", f"A{i}", 20) for i in range(3)], *[("control", f"B{i}", 20) for i in range(4)])
    design = design_of(table)
    assert (design.status, design.is_paired, design.residual_df) == ("tested", False, 5)
    assert (design.n_test, design.n_reference, design.n_pairs) == (3, 4, 0)
    assert "3 test against 4 reference replicates" in design.model


def test_incomplete_pairs_are_left_out_of_a_paired_model():
    design = design_of(replicates(*PAIRS, ("treated", "D9", 50)))
    assert (design.n_test, design.n_reference, design.n_pairs) == (3, 3, 3)
    assert "1 replicate without a partner left out" in design.model


def test_few_pairs_among_many_unpaired_give_an_unpaired_model():
    singles = [("treated", f"A{i}", 50) for i in range(4)] + [("control", f"B{i}", 50) for i in range(4)]
    design = design_of(replicates(*PAIRS[:4], *singles))
    assert (design.is_paired, design.n_pairs, design.n_test, design.n_reference) == (False, 0, 6, 6)


def test_two_libraries_of_a_donor_and_arm_are_one_replicate():
    table = replicates(*PAIRS, ("treated", "D1", 7))
    design = design_of(table)
    assert (design.n_test, design.cells_test) == (3, 157)
    unit = design.units.query("replicate == 'D1' and arm == 'test'")
    assert unit["n_cells"].item() == 57
    assert unit["sample"].item() == "s1+s6"
    row = design.membership[unit.index[0]].toarray().ravel()
    assert list(np.flatnonzero(row)) == [1, 6]


def test_units_without_donor_are_samples():
    table = replicates(*[(condition, "", 30) for condition in ["treated", "control"] * 3])
    design = design_of(table)
    assert (design.status, design.is_paired, design.n_test) == ("tested", False, 3)


def test_small_replicates_are_left_out_and_counted():
    table = replicates(*PAIRS, ("control", "D4", 50), ("treated", "D4", 9))
    design = design_of(table)
    assert (design.status, design.n_pairs) == ("tested", 3)
    assert "1 replicate with fewer than 10 cells left out" in design.model


def test_too_few_cells():
    table = replicates(*[(condition, donor, 9 if donor != "D1" else 50) for condition, donor, _ in PAIRS])
    design = design_of(table)
    assert design.status == "too_few_cells"
    assert design.reason.startswith("4 replicates of 6 with fewer than 10 cells")
    assert design.has_estimate
    none_left = design_of(replicates(*[(condition, donor, 3) for condition, donor, _ in PAIRS]))
    assert (none_left.status, none_left.has_estimate, none_left.n_test) == ("too_few_cells", False, 0)
    one_donor = design_of(replicates(("control", "D1", 4), ("treated", "D1", 80)))
    assert one_donor.status == "too_few_cells"


def test_unreplicated_keeps_its_estimate():
    design = design_of(replicates(*PAIRS[:2]))
    assert design.status == "unreplicated"
    assert design.has_estimate
    assert "1 replicate in the test arm (treated)" in design.reason
    lopsided = design_of(replicates(*PAIRS[:2], ("control", "D7", 50), ("control", "D8", 50)))
    assert (lopsided.status, lopsided.n_reference) == ("unreplicated", 3)


def test_absent():
    table = replicates(*[row for row in PAIRS if row[0] == "control"])
    assert design_of(table).status == "absent"
    assert "no test sample (treated) holds a cell of class T" in design_of(table).reason
    assert design_of(replicates(*PAIRS), cell_class="B").status == "absent"


def test_filter_restricts_both_arms():
    table = replicates(*PAIRS, *PAIRS, stimulus=["PHA"] * 6 + ["none"] * 6)
    design = design_of(table, contrast(where='stimulus == "PHA"'))
    assert set("+".join(design.units["sample"]).split("+")) == {f"s{i}" for i in range(6)}


def test_each_class_takes_its_control_from_the_reference_that_contains_it():
    rows = [
        (condition, donor, cells)
        for donor in ("D1", "D2", "D3")
        for condition, cells in (("coculture", 80), ("msc_alone", 200), ("immune_alone", 12))
    ]
    msc = replicates(*rows, cell_class="MSC", compartment="MSC")
    immune = replicates(*[(c, d, {80: 70, 200: 11, 12: 300}[n]) for c, d, n in rows])
    table = pd.concat([msc, immune], ignore_index=True)
    question = contrast(test="coculture", reference="msc_alone,immune_alone")
    for cell_class, cells in (("MSC", 600), ("T", 900)):
        design = design_of(table, question, cell_class)
        assert (design.status, design.n_pairs, design.cells_reference) == ("tested", 3, cells)
    assert "reference taken from msc_alone" in design_of(table, question, "MSC").model


def test_reference_levels_that_both_contain_the_class_are_both_used():
    rows = [(c, d, 50) for d in ("D1", "D2") for c in ("treated", "control", "vehicle")]
    design = design_of(replicates(*rows), contrast(reference="control,vehicle"))
    assert (design.n_reference, design.cells_reference) == (2, 200)
    assert "reference taken" not in design.model


def test_msc_are_paired_by_their_own_donors():
    rows = [
        ("treated", "D1", 50),
        ("treated", "D2", 50),
        ("treated", "D3", 50),
        ("control", "M1", 50),
        ("control", "M2", 50),
    ]
    lines = ["M1", "M1", "M2", "M1", "M2"]
    msc = design_of(replicates(*rows, cell_class="MSC", compartment="MSC", msc_donor=lines), cell_class="MSC")
    assert (msc.is_paired, msc.n_pairs, msc.n_test) == (True, 2, 2)
    assert "msc_donor" in msc.model
    immune = design_of(replicates(*rows, msc_donor=lines))
    assert (immune.is_paired, immune.n_test) == (False, 3)
    one_line = replicates(*PAIRS, cell_class="MSC", compartment="MSC", msc_donor=["M1"] * 6)
    assert design_of(one_line, cell_class="MSC").n_pairs == 3


def test_pair_by_another_column_is_a_block():
    rows = [("treated", f"A{i}", 50) for i in range(4)] + [("control", f"B{i}", 50) for i in range(4)]
    design = design_of(replicates(*rows, plate=["P1", "P1", "P2", "P2"] * 2), contrast(pair_by="plate"))
    assert (design.is_paired, design.n_pairs, design.n_test, design.residual_df) == (True, 2, 4, 5)


def test_covariates_enter_and_constant_ones_are_absorbed():
    rows = [("treated", f"A{i}", 50) for i in range(4)] + [("control", f"B{i}", 50) for i in range(4)]
    age = ["20", "30", "40", "50", "22", "33", "44", "55"]
    design = design_of(replicates(*rows, sex=["f", "m"] * 4, age=age), contrast(covariates="sex,age"))
    assert (design.status, design.residual_df) == ("tested", 4)
    assert "score ~ sex + age + condition" in design.model
    paired = design_of(replicates(*PAIRS, sex=["f", "f", "m", "m", "f", "f"]), contrast(covariates="sex"))
    assert (paired.status, paired.residual_df) == ("tested", 2)
    assert "sex absorbed" in paired.model


def test_confounded_covariate_is_named():
    rows = [("treated", f"A{i}", 50) for i in range(3)] + [("control", f"B{i}", 50) for i in range(3)]
    table = replicates(*rows, kit=["v3"] * 3 + ["v2"] * 3, sex=["f", "m"] * 3)
    design = design_of(table, contrast(covariates="sex,kit"))
    assert design.status == "confounded"
    assert "cannot be told from that of kit" in design.reason
    assert not design.has_estimate
    jointly = replicates(*rows, a=["x", "x", "y", "y", "y", "y"], b=["p", "p", "q", "p", "p", "p"])
    assert "of a and b" in design_of(jointly, contrast(covariates="a,b")).reason


def test_batch_that_is_the_arm_is_confounded_without_being_asked():
    batch = ["B1", "B2"] * 3
    design = design_of(replicates(*PAIRS, batch=batch))
    assert design.status == "confounded"
    assert "batch 'B2'" in design.reason
    assert design_of(replicates(*PAIRS, batch=["B1", "B1", "B2", "B2", "B3", "B3"])).status == "tested"
    assert design_of(replicates(*PAIRS, batch=["", ""] * 3)).status == "tested"
    assert design_of(replicates(*PAIRS, batch=["B1"] * 6)).status == "tested"


def test_covariates_may_use_up_all_degrees_of_freedom():
    rows = [("treated", "A1", 50), ("treated", "A2", 50), ("control", "B1", 50), ("control", "B2", 50)]
    design = design_of(
        replicates(*rows, age=["1", "2", "1", "3"], sex=["f", "m", "m", "m"]), contrast(covariates="age,sex")
    )
    assert design.status == "unreplicated"
    assert "degree of freedom" in design.reason


def test_trend_within_donors():
    rows = [("x", donor, 50) for donor in ("D1", "D2") for _ in range(3)]
    table = replicates(*rows, dose=["0", "0.1", "0.5"] * 2)
    design = design_of(table, Contrast.from_row({"contrast": "t", "dataset": "ds", "variable": "dose"}))
    assert (design.status, design.is_paired, design.n_pairs, design.residual_df) == ("tested", True, 2, 3)
    assert (design.n_test, design.n_reference) == (4, 2)
    assert sorted(design.effect) == [0, 0, 0.1, 0.1, 0.5, 0.5]
    assert "slope per unit of dose" in design.model


def test_trend_needs_donors_and_numbers():
    trend = Contrast.from_row({"contrast": "t", "dataset": "ds", "variable": "dose"})
    one = replicates(*[("x", "D1", 50)] * 4, dose=["0", "1", "2", "3"])
    assert design_of(one, trend).status == "unreplicated"
    across = replicates(*[("x", f"D{i}", 50) for i in range(4)], dose=["0", "1", "2", ""])
    assert (design_of(across, trend).status, len(design_of(across, trend).units)) == ("tested", 3)
    with pytest.raises(UserError, match="no number"):
        design_of(replicates(*PAIRS, dose=["low"] * 6), trend)


def test_a_measured_covariate_is_averaged_over_the_cells_of_a_unit():
    rows = [*PAIRS, ("treated", "D1", 150)]
    values = [0.1, 0.2, 0.4, 0.3, 0.7, 0.5, 0.5]
    design = design_of(replicates(*rows, mean_S_score=values), contrast(covariates="mean_S_score"))
    treated = design.units[(design.units["replicate"] == "D1") & (design.units["arm"] == "test")]
    cells = [n for (arm, donor, n) in rows if (arm, donor) == ("treated", "D1")]
    of_both = [v for (arm, donor, _), v in zip(rows, values, strict=True) if (arm, donor) == ("treated", "D1")]
    expected = np.average(of_both, weights=cells)
    assert treated["covariate:mean_S_score"].item() == pytest.approx(expected)
    assert design.nuisance.shape[1] == 4 and "mean_S_score" in design.model
    units = design.units["covariate:mean_S_score"]
    np.testing.assert_allclose(design.nuisance[:, 3], units - units.mean())


def test_a_measured_covariate_that_is_unknown_says_nothing():
    nothing = design_of(replicates(*PAIRS, mean_S_score=[np.nan] * 6), contrast(covariates="mean_S_score"))
    assert nothing.status == "tested" and nothing.nuisance.shape[1] == 3
    assert "mean_S_score absorbed" in nothing.model
    partly = design_of(
        replicates(*PAIRS, mean_S_score=[0.1, 0.4, np.nan, 0.2, 0.8, 0.1]), contrast(covariates="mean_S_score")
    )
    assert partly.nuisance.shape[1] == 4 and np.isfinite(partly.nuisance).all()
    assert (partly.nuisance[:, 3] == 0).sum() == 1


def test_unknown_column_is_named():
    with pytest.raises(UserError, match="'sex'"):
        design_of(replicates(*PAIRS), contrast(covariates="sex"))


def test_numeric_levels_match_however_they_are_written():
    table = replicates(*PAIRS, time_h=["24.0", "48"] * 3)
    design = design_of(table, contrast(variable="time_h", test="48.0", reference="24"))
    assert design.n_pairs == 3


def test_order_of_rows_does_not_matter():
    table = replicates(*PAIRS, ("treated", "D9", 50), sex=list("ffmmffm"))
    plain = design_of(table)
    shuffled = design_of(table.iloc[::-1].reset_index(drop=True))
    pd.testing.assert_frame_equal(plain.units, shuffled.units)
    assert (plain.effect == shuffled.effect).all() and (plain.nuisance == shuffled.nuisance).all()


def test_swapped_arms_negate_the_effect_column_only():
    plain = design_of(replicates(*PAIRS))
    swapped = design_of(replicates(*PAIRS), contrast(test="control", reference="treated"))
    assert (plain.effect == -swapped.effect).all()
    assert (plain.nuisance == swapped.nuisance).all()
    assert (plain.membership != swapped.membership).nnz == 0


@pytest.mark.parametrize(
    ("formula", "paired", "changes"),
    [
        ("score ~ C(donor) + treated", True, {}),
        ("score ~ C(donor) + treated + C(batch)", True, {"covariates": "batch"}),
        ("score ~ treated", False, {}),
        ("score ~ treated + C(sex) + age", False, {"covariates": "sex, age"}),
        ("score ~ C(donor) + dose", True, {"variable": "dose", "test": "", "reference": ""}),
        ("score ~ treated + C(batch) + C(sex) + age", False, {"covariates": "batch, sex, age"}),
    ],
)
def test_estimate_and_error_are_those_of_the_formula(formula, paired, changes):
    """By statsmodels, which builds its columns from the formula."""
    rng = np.random.default_rng(21)
    treated = np.tile([0, 1], 8)
    table = replicates(
        *((("control", "treated")[arm], f"D{unit // 2 if paired else unit}", 50) for unit, arm in enumerate(treated))
    )
    table = table.assign(
        dose=[f"{value:g}" for value in treated + rng.integers(0, 3, 16)],
        batch=rng.choice(["a", "b", "c"], 16),
        sex=rng.choice(["f", "m"], 16),
        age=[str(age) for age in rng.integers(20, 70, 16)],
    )
    design = design_of(table, contrast(**changes))
    assert design.is_paired == paired and design.status == "tested"
    given = table.set_index("sample").loc[design.units["sample"]].astype({"age": float, "dose": float})
    given["score"], given["treated"] = rng.normal(size=len(given)), (given["condition"] == "treated").astype(float)
    expected = smf.ols(formula, given).fit()
    term = "dose" if "dose" in formula else "treated"
    fit = fit_linear(given[["score"]].to_numpy(), design.effect, design.nuisance)
    assert fit.estimate[0] == pytest.approx(expected.params[term])
    assert np.sqrt(fit.variance[0] * fit.unscaled) == pytest.approx(expected.bse[term])
    assert fit.df == design.residual_df == expected.df_resid
