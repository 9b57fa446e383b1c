"""The tables of potency: statuses, known truth, invariances, and their way from pseudobulks."""

import numpy as np
import pandas as pd
import pytest

from immunomod.contrast.run import run_contrast
from immunomod.contrast.settings import ContrastSettings
from immunomod.errors import UserError
from immunomod.files import write_tsv
from immunomod.programs import load_programs
from immunomod.simulate.power import true_pseudobulk
from immunomod.simulate.settings import CELL_CLASSES, SimulationSettings
from immunomod.simulate.study import simulate_study
from immunomod.synthesis.potency import (
    POTENCY_COLUMNS,
    SUPPRESSION_COLUMNS,
    VARIANCE_COLUMNS,
    rank_potency,
    read_scores,
)
from immunomod.synthesis.settings import PotencySettings

SETTINGS = PotencySettings(n_draws=2_000, n_permutations=499, n_bootstrap=300)
PROGRAMS = pd.DataFrame({"compartment": ["MSC", "MSC", "MSC", "immune:T"]}, index=["up", "down", "quiet", "other"])
SIGNS = {"up": "+", "down": "-", "quiet": "?", "other": "-"}
ESTIMATES = ["se", "ci_low", "ci_high", "rank_low", "rank_high", "shrunken"]


def make(n_donors=6, cultures=3, datasets=("ds",), seed=0, culture_sd=0.2, donor_sd=0.6):
    """Scores, effects and sheet: donors ordered by true response in ``up``, the reverse of it in ``down``."""
    rng = np.random.default_rng(seed)
    scores, sheet, effects = [], [], []
    for dataset in datasets:
        truth = 1 + donor_sd * np.linspace(-1.5, 1.5, n_donors)
        for number in range(n_donors):
            source = "bone_marrow" if number % 2 else "adipose"
            for arm, n in (("test", cultures), ("reference", 1)):
                for one in range(n):
                    sample = f"{dataset}_{arm}{number}{one}"
                    sheet.append((sample, dataset, f"M{number}", source, "human", str(30 + 20 * truth[number])))
                    for program, slope in (("up", 1.0), ("down", -1.0), ("quiet", 0.0)):
                        score = 5 + slope * truth[number] * (arm == "test") + rng.normal(0, culture_sd)
                        scores.append(("q", dataset, "MSC", program, sample, f"D{one}", arm, score, 50, 0.05))
        effects += [
            ("q", dataset, "MSC" if program != "other" else "T", program, "readout", SIGNS[program], "tested", "")
            for program in SIGNS
        ]
    key = ["contrast", "dataset", "cell_class", "program"]
    return (
        pd.DataFrame(scores, columns=[*key, "sample", "donor", "arm", "score", "n_cells", "common_se"]),
        pd.DataFrame(effects, columns=[*key, "role", "expected_sign", "status", "reason"]),
        pd.DataFrame(
            sheet, columns=["sample", "dataset", "msc_donor", "msc_source", "organism", "suppression"], dtype=str
        ),
    )


def answer(scores, effects, sheet, settings=SETTINGS, **options):
    return rank_potency(scores, effects, sheet, PROGRAMS, settings, **options)


def of(table, **values) -> pd.DataFrame:
    for name, value in values.items():
        table = table[table[name] == value]
    return table


def test_donors_are_ranked_by_their_response_in_the_expected_direction():
    found = answer(*make(culture_sd=0.05)).potency
    assert list(found.columns) == POTENCY_COLUMNS
    assert set(found["program"]) == {"up", "down", "quiet"}
    assert (found["status"] == "tested").all()
    for program in ("up", "down"):
        rows = of(found, program=program).sort_values("msc_donor")
        assert rows["rank"].tolist() == [6, 5, 4, 3, 2, 1]
        assert rows["rank_low"].le(rows["rank"]).all() and rows["rank_high"].ge(rows["rank"]).all()
    assert (of(found, program="down")["response"] < 0.5).all()
    assert of(found, program="quiet").eval("rank_high - rank_low").mean() > 3
    assert (found["n_test"].eq(3) & found["n_reference"].eq(1)).all()
    assert found["ci_low"].lt(found["response"]).all() and found["ci_high"].gt(found["response"]).all()


def test_intervals_hold_the_true_responses():
    truth = 1 + 0.6 * np.linspace(-1.5, 1.5, 6)
    held = []
    for seed in range(60):
        scores, effects, sheet = make(seed=seed)
        rows = of(answer(scores.assign(common_se=0.0), effects, sheet).potency, program="up").sort_values("msc_donor")
        held += [(rows["ci_low"] <= truth) & (rows["ci_high"] >= truth)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.04)


def test_errors_that_all_donors_share_widen_intervals_and_leave_ranks():
    scores, effects, sheet = make()
    first = of(answer(scores, effects, sheet).potency, program="up")
    wider = of(answer(scores.assign(common_se=1.0), effects, sheet).potency, program="up")
    assert (wider["se"] > first["se"]).all()
    pd.testing.assert_frame_equal(wider[["rank", "rank_low", "rank_high"]], first[["rank", "rank_low", "rank_high"]])


def test_single_cultures_are_unreplicated_and_say_what_to_do():
    found = answer(*make(cultures=1))
    rows = found.potency
    assert (rows["status"] == "unreplicated").all()
    assert rows["reason"].str.contains("culture at least one of them twice").all()
    assert rows["response"].notna().all() and rows["rank"].notna().all()
    assert rows[ESTIMATES].isna().all().all()
    parts = of(found.variance, program="up").set_index("component")
    assert parts.at["culture", "status"] == "unreplicated"
    assert "cultures too" in parts.at["donor", "reason"]


def test_every_donor_of_the_sheet_has_a_row():
    scores, effects, sheet = make()
    lone = sheet.iloc[[0]].assign(sample="only", msc_donor="M9")
    half = sheet.iloc[[0]].assign(sample="half", msc_donor="M8")
    extra = scores[scores["sample"] == "ds_test00"].assign(sample="half")
    rows = answer(
        pd.concat([scores, extra], ignore_index=True), effects, pd.concat([sheet, lone, half], ignore_index=True)
    ).potency
    absent = of(rows, program="up").set_index("msc_donor")
    assert absent.at["M9", "status"] == absent.at["M8", "status"] == "absent"
    assert absent.at["M9", "reason"] == "no culture of M9 in the contrast with enough cells of the class"
    assert "beside its cultures in test" in absent.at["M8", "reason"]
    assert absent.at["M0", "status"] == "tested"


def test_a_sheet_without_msc_donors_says_so():
    scores, effects, sheet = make()
    found = answer(scores, effects, sheet.drop(columns=["msc_donor", "suppression", "msc_source"]))
    assert (found.potency["status"] == "absent").all() and len(found.potency) == 3
    assert found.potency["reason"].str.contains("names an msc_donor; fill").all()
    assert (found.suppression["status"] == "absent").all()
    assert (found.variance["status"] == "absent").all()


@pytest.mark.parametrize("status", ["low_coverage", "too_few_cells", "absent", "confounded"])
def test_what_the_contrast_could_not_tell_stays_untold(status):
    scores, effects, sheet = make()
    effects.loc[effects["program"] == "up", ["status", "reason"]] = [status, "for a reason"]
    if status != "confounded":
        scores = scores[scores["program"] != "up"]
    found = answer(scores, effects, sheet)
    for table in (found.potency, found.suppression):
        rows = of(table, program="up")
        assert len(rows) and (rows["status"] == status).all() and (rows["reason"] == "for a reason").all()
    assert of(found.potency, program="up")[ESTIMATES].isna().all().all()
    assert (of(found.potency, program="quiet")["status"] == "tested").all()
    assert (of(found.variance, program="up")["status"] == "absent").all()


def test_no_scores_at_all_give_rows_and_no_crash():
    scores, effects, sheet = make()
    effects["status"], effects["reason"] = "absent", "no sample"
    found = answer(scores.iloc[:0], effects, sheet)
    assert len(found.potency) == 18 and (found.potency["status"] == "absent").all()
    empty = answer(scores.iloc[:0], effects.iloc[:0], sheet)
    assert list(empty.suppression.columns) == SUPPRESSION_COLUMNS and empty.suppression.empty
    assert list(empty.variance.columns) == VARIANCE_COLUMNS and empty.variance.empty


def test_suppression_is_told_by_the_programmes_that_tell_it():
    found = answer(*make(n_donors=8, culture_sd=0.1)).suppression.set_index("program")
    assert found.at["up", "slope"] == pytest.approx(20, rel=0.2)
    assert found.at["down", "slope"] == pytest.approx(-20, rel=0.2)
    assert (found.loc[["up", "down"], "r2_cv"] > 0.9).all()
    assert found.at["quiet", "r2_cv"] < 0.5
    assert (found.loc[["up", "down"], "p_value"] == 1 / 500).all()
    assert (found["n_donors"] == 8).all()
    assert found.at["up", "fdr"] == pytest.approx(1.5 / 500)


def test_suppression_of_few_donors_is_not_judged():
    scores, effects, sheet = make()
    sheet.loc[~sheet["msc_donor"].isin(["M0", "M1", "M2"]), "suppression"] = ""
    rows = answer(scores, effects, sheet).suppression
    assert (rows["status"] == "unreplicated").all() and (rows["n_donors"] == 3).all()
    assert rows["reason"].eq("3 MSC donors with a response and a suppression; 4 are needed").all()


def test_variance_is_split_and_names_what_changes_together():
    found = answer(*make(datasets=("a", "b"), seed=2)).variance
    parts = of(found, program="up").set_index("component")
    assert parts["levels"].to_dict() == {"source": 2, "donor": 12, "dataset": 2, "culture": 48}
    assert (parts["status"] == "tested").all()
    assert parts["share"].sum() == pytest.approx(1)
    assert parts.at["culture", "variance"] == pytest.approx(2 * 0.04, rel=0.5)
    assert parts.at["donor", "share"] > 0.5
    assert (parts["ci_low"] <= parts["variance"]).all() and (parts["variance"] <= parts["ci_high"]).all()

    scores, effects, sheet = make(datasets=("a", "b"))
    sheet["msc_source"] = sheet["dataset"].map({"a": "adipose", "b": "bone_marrow"})
    parts = of(answer(scores, effects, sheet).variance, program="up").set_index("component")
    assert parts.at["source", "status"] == "confounded"
    assert parts.at["source", "reason"] == "cannot be told from dataset: they change together"
    assert "part of source" in parts.at["dataset", "reason"]

    sheet["msc_source"] = "adipose"
    sheet.loc[0, "msc_source"] = ""
    sheet.loc[sheet["msc_donor"] == "M1", "msc_source"] = ""
    parts = of(answer(scores, effects, sheet).variance, program="up").set_index("component")
    assert parts.at["source", "status"] == "absent"
    assert parts.at["source", "reason"].startswith("2 of 12 MSC donors have no msc_source")


def test_names_of_two_data_sets_are_two_persons_unless_it_is_said():
    tables = make(datasets=("a", "b"))
    apart = of(answer(*tables).variance, program="up", component="donor").iloc[0]
    shared = of(
        answer(*tables, settings=PotencySettings(n_draws=100, n_bootstrap=100, shared_donors=True)).variance,
        program="up",
        component="donor",
    ).iloc[0]
    assert (apart["levels"], shared["levels"]) == (12, 6)


def test_species_are_split_apart():
    scores, effects, sheet = make(datasets=("a", "b"))
    sheet.loc[sheet["dataset"] == "b", "organism"] = "mouse"
    found = answer(scores, effects, sheet).variance
    assert found.groupby("organism")["n_responses"].max().to_dict() == {"human": 6, "mouse": 6}


def test_order_of_rows_does_not_matter_and_swapped_arms_flip_signs():
    tables = make()
    plain = answer(*tables)
    shuffled = answer(*(table.sample(frac=1, random_state=3) for table in tables))
    for name in ("potency", "suppression", "variance"):
        pd.testing.assert_frame_equal(getattr(plain, name), getattr(shuffled, name), rtol=1e-4, atol=1e-6)
    scores, effects, sheet = tables
    swapped = answer(
        scores.assign(arm=scores["arm"].map({"test": "reference", "reference": "test"})), effects, sheet
    )  # fmt: skip
    np.testing.assert_allclose(plain.potency["response"], -swapped.potency["response"])
    np.testing.assert_allclose(plain.potency["se"], swapped.potency["se"])
    np.testing.assert_allclose(plain.suppression["slope"], -swapped.suppression["slope"])


def test_same_seed_same_numbers():
    tables = make()
    pd.testing.assert_frame_equal(answer(*tables, seed=4).potency, answer(*tables, seed=4).potency)


def test_names_that_look_like_numbers_stay_names(tmp_path):
    scores, _, _ = make()
    write_tsv(scores.assign(sample="007", contrast="1e3", donor="08"), tmp_path / "msc_scores.tsv")
    read = read_scores([tmp_path / "msc_scores.tsv"])
    assert read.loc[0, ["sample", "contrast", "donor"]].tolist() == ["007", "1e3", "08"]


@pytest.mark.parametrize("section", [{"n_draws": 5}, {"n_permutations": 0}, {"shared_donors": "yes"}, {"draws": 1}])
def test_senseless_settings_are_refused(section):
    with pytest.raises(UserError, match="potency"):
        PotencySettings.from_config(section)


@pytest.mark.slow
def test_a_simulated_study_is_ranked_from_its_pseudobulks():
    """MSC of four donors, each in two co-cultures: planted programmes respond, and each donor's truth is met."""
    cells = tuple(cells for cells in CELL_CLASSES if cells.name in ("MSC", "CD4_T"))
    settings = SimulationSettings(n_donors=8, cell_classes=cells, seed=3, leakage=0.0, donor_sd=0.6)
    study = simulate_study(settings)
    sums = true_pseudobulk(study)
    number = sums.obs["donor"].str[1:].astype(int)
    sums.obs["msc_donor"] = [f"M{one % 4}" for one in number]
    row = {"contrast": "q", "dataset": "d", "variable": "condition", "test": "coculture", "reference": "msc_alone"}
    programs = load_programs()
    found = run_contrast(row, {"d": sums}, programs, ContrastSettings(n_random_sets=2), 1)
    sheet = sums.obs[["sample", "msc_donor"]].assign(dataset="d").drop_duplicates("sample")
    rows = rank_potency(found.msc_scores, found.program_effects, sheet, programs.table, SETTINGS).potency
    rows = of(rows, program="msc_ifng_core")
    assert (rows["status"] == "tested").all() and len(rows) == 4
    assert (rows["n_test"].eq(2) & rows["n_reference"].eq(2)).all()
    assert rows["response"].between(0.5, 3.5).all()
