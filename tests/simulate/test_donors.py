"""Numbers of donors: the closed form against simulation and statsmodels, and answers from replicate scores."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

from immunomod.cli import app
from immunomod.contrast.model import fit_linear, variance_of_slopes
from immunomod.errors import UserError
from immunomod.files import read_tsv, write_tsv
from immunomod.simulate.donors import (
    COLUMNS,
    donor_numbers,
    donors_command,
    numbers_from_results,
    numbers_from_simulation,
    residual_sd,
)
from immunomod.simulate.settings import CELL_CLASSES, PlantedEffect, SimulationSettings
from immunomod.simulate.t_power import donors_needed, t_power, upper_sd

KEY = ["contrast", "dataset", "cell_class", "program"]


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(("n", "effect", "sd"), [(2, 2.0, 0.5), (4, 0.5, 0.3), (12, 0.3, 0.4)])
def test_the_closed_form_equals_statsmodels(paired, n, effect, sd):
    power = pytest.importorskip("statsmodels.stats.power")
    if paired:
        expected = power.TTestPower().power(effect / sd, n, 0.05, alternative="two-sided")
    else:
        expected = power.TTestIndPower().power(effect / sd, n, 0.05, alternative="two-sided")
    # statsmodels also counts rejections with the wrong sign
    assert t_power(effect, sd, n, paired) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("paired", [True, False])
def test_the_closed_form_equals_t_tests_of_simulated_studies(paired):
    rng = np.random.default_rng(1)
    n, effect, sd, size = 5, 0.5, 0.35, 40_000
    if paired:
        found = stats.ttest_1samp(rng.normal(effect, sd, (n, size)), 0)
    else:
        found = stats.ttest_ind(rng.normal(effect, sd, (n, size)), rng.normal(0, sd, (n, size)))
    share = np.mean((found.pvalue < 0.05) & (found.statistic > 0))
    assert t_power(effect, sd, n, paired) == pytest.approx(share, abs=0.01)


def test_a_shared_error_is_met_by_simulation_and_bounds_the_power():
    rng = np.random.default_rng(2)
    n, effect, sd, common, size = 6, 0.8, 0.4, 0.15, 40_000
    draws = rng.normal(effect, sd, (n, size)) + rng.normal(0, common, size)
    between = draws.var(axis=0, ddof=1) / n
    error = np.sqrt(between + common**2)
    df = (n - 1) * ((between + common**2) / between) ** 2
    share = np.mean(2 * stats.t.sf(draws.mean(axis=0) / error, df) < 0.05)
    assert t_power(effect, sd, n, True, common_se=common) == pytest.approx(share, abs=0.03)
    assert donors_needed(0.3, 0.2, True, max_donors=10_000) is not None
    assert donors_needed(0.3, 0.2, True, max_donors=10_000, common_se=0.2) is None


def test_power_grows_with_donors_and_effect_and_falls_with_the_spread():
    for paired in (True, False):
        by_n = [t_power(0.5, 0.6, n, paired) for n in range(2, 200)]
        assert (np.diff(by_n) >= 0).all() and by_n[-1] > 0.99
        by_effect = [t_power(effect, 0.6, 4, paired) for effect in np.linspace(0.01, 60, 300)]
        assert (np.diff(by_effect) >= -1e-12).all() and by_effect[-1] == pytest.approx(1)
        by_sd = [t_power(0.5, sd, 4, paired) for sd in np.linspace(0.01, 3, 100)]
        assert (np.diff(by_sd) <= 1e-12).all()
    assert t_power(-0.5, 0.3, 5, True) == t_power(0.5, 0.3, 5, True)
    assert (t_power(1.0, 0.0, 2, True), t_power(0.0, 0.0, 2, True)) == (1.0, 0.025)


def test_the_number_is_the_smallest_that_suffices():
    for paired in (True, False):
        for effect in (0.2, 0.5, 1.0, 3.0):
            n = donors_needed(effect, 0.5, paired, max_donors=300)
            assert t_power(effect, 0.5, n, paired) >= 0.8
            assert n == 2 or t_power(effect, 0.5, n - 1, paired) < 0.8
    needed = [donors_needed(effect, 0.5, True, max_donors=10_000) for effect in (0.1, 0.2, 0.4, 0.8)]
    assert needed == sorted(needed, reverse=True)
    assert donors_needed(0.01, 1.0, True, max_donors=50) is None


def test_the_cautious_spread_holds_in_four_studies_of_five():
    rng = np.random.default_rng(3)
    for df in (1, 3, 9):
        estimated = np.sqrt(rng.chisquare(df, 20_000) / df)
        above = np.mean([upper_sd(one, df) >= 1 for one in estimated[:4000]])
        assert above == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("options", [{"target": 1.0}, {"target": 0}, {"alpha": 0}, {"max_donors": 1}])
def test_senseless_questions_are_refused(options):
    with pytest.raises(UserError, match="--" + next(iter(options)).replace("_", "-")):
        donors_needed(1.0, 1.0, True, **options)


def scores(n=4, sd=0.3, seed=0, paired=True, program="p", arms=("test", "reference")) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(n):
        baseline = rng.normal(0, 1)
        for arm in arms:
            level = baseline if paired else rng.normal(0, sd)
            noise = rng.normal(0, sd / np.sqrt(2)) if paired else 0.0
            block = f"D{number}" if paired else f"D{number}{arm}"
            rows.append(("q", "d", "MSC", program, f"{arm}{number}", block, arm, level + (arm == "test") + noise, 0.0))
    return pd.DataFrame(rows, columns=[*KEY, "sample", "block", "arm", "score", "common_se"])


def test_spread_is_that_of_the_differences_or_of_the_arms():
    paired = scores()
    wide = paired.pivot(index="block", columns="arm", values="score")
    row = residual_sd(paired).iloc[0]
    assert (row["design"], row["donors_now"], row["df"]) == ("paired", 4, 3)
    assert row["sd"] == pytest.approx((wide["test"] - wide["reference"]).std())

    unpaired = scores(paired=False).iloc[1:]
    row = residual_sd(unpaired).iloc[0]
    within = unpaired.groupby("arm")["score"].agg(["var", "count"])
    assert (row["design"], row["donors_now"], row["df"]) == ("unpaired", 3, 5)
    assert row["sd"] ** 2 == pytest.approx((within["var"] * (within["count"] - 1)).sum() / 5)


def test_spread_is_recovered_without_bias_and_whatever_the_order():
    found = [residual_sd(scores(seed=seed)).iloc[0]["sd"] ** 2 for seed in range(800)]
    assert np.mean(found) == pytest.approx(0.09, rel=0.08)
    table = pd.concat([scores(program="a"), scores(program="b", seed=5)])
    pd.testing.assert_frame_equal(residual_sd(table), residual_sd(table.sample(frac=1, random_state=1)))
    swapped = table.assign(arm=table["arm"].map({"test": "reference", "reference": "test"}))
    pd.testing.assert_frame_equal(residual_sd(table), residual_sd(swapped))


def test_the_spread_of_a_trend_is_that_of_the_donors_slopes():
    rng = np.random.default_rng(2)
    rows = [
        ("q", "d", "MSC", "p", f"s{donor}{dose}", f"D{donor}", str(dose), rng.normal() + dose, 0.0)
        for donor in range(5)
        for dose in (0.0, 0.1, 1.0)
    ]
    table = pd.DataFrame(rows, columns=[*KEY, "sample", "block", "arm", "score", "common_se"])
    row = residual_sd(table).iloc[0]
    slopes = [np.polyfit([0.0, 0.1, 1.0], part["score"], 1)[0] for _, part in table.groupby("block")]
    assert (row["design"], row["donors_now"], row["df"]) == ("trend", 5, 4)
    assert row["sd"] == pytest.approx(np.std(slopes, ddof=1))
    one_each = residual_sd(table.groupby("block").head(1))
    assert donor_numbers(one_each, [1.0])["status"].tolist() == ["unreplicated"]


def test_donors_for_a_trend_find_it_as_often_as_planned():
    """The number for 80% power, on simulated studies tested as the workflow tests trends, without moderation."""
    rng = np.random.default_rng(6)
    doses, noise, spread = np.array([0.0, 0.5, 1.0]), 0.1, 0.5
    sd = np.sqrt(spread**2 + noise**2 / ((doses - doses.mean()) ** 2).sum())
    n = donors_needed(1.0, sd, True)
    donor = np.repeat(np.arange(n), 3)
    slope = 1.0 + rng.normal(0, spread, (n, 4000))
    response = np.tile(doses, n)[:, None] * slope[donor] + rng.normal(0, noise, (3 * n, 4000))
    effect, nuisance = np.tile(doses, n), np.eye(n)[donor]
    variance, df = variance_of_slopes(response, effect, nuisance, donor)
    found = fit_linear(response, effect, nuisance).estimate / np.sqrt(variance) > stats.t.isf(0.025, df)
    assert found.mean() == pytest.approx(t_power(1.0, sd, n, True), abs=0.02)


def test_every_programme_has_an_answer_or_the_words_why_not():
    table = pd.concat(
        [
            scores(program="fine"),
            scores(program="lone", n=1),
            scores(program="dose", arms=("0.0", "1.0")),
            scores(program="wild", sd=5.0),
            scores(program="leaky").assign(common_se=0.9),
            scores(program="two", n=2, seed=3),
        ]
    )
    found = donor_numbers(residual_sd(table), [1.0], max_donors=20).set_index("program")
    assert found["status"].to_dict() == {
        "fine": "tested", "lone": "unreplicated", "dose": "tested", "wild": "too_many", "leaky": "too_many",
        "two": "tested",
    }  # fmt: skip
    assert found.at["wild", "reason"] == "no number of donors up to 20 has a power of 0.8"
    assert "partner RNA, 0.90 log2" in found.at["leaky", "reason"]
    assert found.loc[["lone", "wild", "leaky"], "donors"].isna().all()
    assert found.at["dose", "donors"] == donors_needed(1.0, found.at["dose", "sd"], True)
    assert found.at["fine", "donors"] == donors_needed(1.0, found.at["fine", "sd"], True)
    assert found.at["fine", "donors_cautious"] >= found.at["fine", "donors"]
    assert found.at["fine", "power_now"] == pytest.approx(t_power(1.0, found.at["fine", "sd"], 4, True))
    assert (found.loc[found["status"] != "tested", "reason"] != "").all()


def write_results(folder: Path, table: pd.DataFrame) -> Path:
    write_tsv(table, folder / "contrasts" / "q" / "program_scores.tsv")
    return folder


def test_answers_come_from_a_results_folder(tmp_path):
    results = write_results(tmp_path / "results", scores())
    table = numbers_from_results(results, [0.5, 1.0])
    assert list(table.columns) == COLUMNS
    assert table["effect"].tolist() == [0.5, 1.0] and (table["source"] == "results").all()
    assert table["donors"].is_monotonic_decreasing
    said = donors_command(tmp_path / "power.tsv", results, [0.5])
    assert "p in MSC (d, paired)" in said and "on the safe side" in said
    assert read_tsv(tmp_path / "power.tsv")["donors"].iloc[0] == table["donors"].iloc[0]


def test_it_is_said_when_no_number_suffices(tmp_path):
    results = write_results(tmp_path / "results", scores(sd=4.0))
    said = donors_command(tmp_path / "power.tsv", results, [0.1], max_donors=30)
    assert "no number of donors up to 30 has a power of 0.8" in said
    table = read_tsv(tmp_path / "power.tsv")
    assert pd.isna(table.loc[0, "donors"]) and table.loc[0, "status"] == "too_many"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="block"), "program_scores.tsv row 1: there is no column block; an older version"),
        (lambda t: t.astype({"score": object}).replace({"score": {t["score"].iloc[2]: "x"}}), "row 4, column score"),
    ],
)
def test_faulty_scores_are_named(tmp_path, change, message):
    results = write_results(tmp_path / "results", change(scores()))
    with pytest.raises(UserError, match=message):
        numbers_from_results(results, [1.0])


def run(*arguments: str):
    return CliRunner().invoke(app, ["simulate", *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--power", "--from-results", "nowhere"], "is no folder"),
        (["--power", "--from-results", "."], "holds no contrasts"),
        (["--from-results", "."], "Add --power"),
        (["--power", "--effect", "big"], "--effect 'big'"),
        (["--power", "--effect", "0"], "--effect is 0"),
        (["--power", "--target", "2"], "--target is 2"),
        (["--power", "--studies", "0"], "--studies is 0"),
    ],
)
def test_mistakes_end_in_one_message(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    found = run("power.tsv", *arguments)
    assert found.exit_code == 1
    assert message in found.output and "Traceback" not in found.output
    assert list(tmp_path.iterdir()) == []


def test_the_command_answers_from_results(tmp_path):
    results = write_results(tmp_path / "results", scores())
    found = run(str(tmp_path / "out.tsv"), "--power", "--from-results", str(results), "--effect", "1,-0.5")
    assert found.exit_code == 0, found.output
    assert "1 log2, p in MSC" in found.output and "-0.5 log2" in found.output


@pytest.mark.slow
def test_the_simulator_lies_between_the_closed_form_and_known_variances():
    """The workflow's test lends a programme the variances of others: more than its own donors tell, less than all."""
    settings = SimulationSettings(
        cell_classes=tuple(cells for cells in CELL_CLASSES if cells.name in ("MSC", "CD4_T")),
        effects=(PlantedEffect("msc_ifng_core", ("MSC",), 1.5), PlantedEffect("imm_T_prolif_G2M", ("T",), -0.3)),
        composition_shift=(),
    )
    table = numbers_from_simulation(settings, [0.5, 2.0], n_studies=5)
    assert list(table.columns) == COLUMNS and len(table) == 4
    small = table[table["effect"] == 0.5]
    known = np.ceil(((stats.norm.isf(0.025) + stats.norm.isf(0.2)) * small["sd"] / 0.5) ** 2)
    assert (small["donors_simulated"] <= small["donors"]).all()
    # one donor for chance: five studies
    assert (small["donors_simulated"] >= known - 1).all() and (known >= 2).all()
    large = table[table["effect"] == 2.0]
    assert (large["donors"].to_numpy() <= small["donors"].to_numpy()).all()
    assert (large["donors_simulated"] <= 3).all()
