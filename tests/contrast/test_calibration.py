"""Rejection, coverage and the parts of the calibration battery that take seconds; ``benchmarks/calibration`` has all.

Seeds are fixed. Limits are binomial at 99.9%, over the draws or over programmes that are drawn independently, around
the range that the tests must keep: 3 to 7% of untouched programmes rejected, 93 to 97% of planted effects covered.
"""

import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats

N_DRAWS = 250


@pytest.fixture(scope="module")
def battery(repository):
    """The scripts of benchmarks/calibration, which import each other by their plain names."""
    folder = str(repository / "benchmarks" / "calibration")
    names = ("cells", "common", "controls", "floor", "moderation", "power", "real", "run", "synthesis", "trends")
    sys.path.insert(0, folder)
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    try:
        import run

        yield {name: sys.modules[name] for name in names if name in sys.modules} | {"run": run}
    finally:
        sys.path.remove(folder)
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def assert_between(hits: int, n: int, low: float, high: float) -> None:
    """A share in the range, but for what chance adds in 99.9% of the draws."""
    assert stats.binom.ppf(0.0005, n, low) <= hits <= stats.binom.ppf(0.9995, n, high), (hits / n, n)


def draws(battery, name: str, n: int, paired: bool, classes: int = 1, rule: str = "like effects"):
    """p-values, whether intervals cover, and which programmes change, of all draws of a setting of the battery."""
    module = battery["moderation"]
    setting = next(setting for setting in module.SETTINGS if setting.name == name)
    p_values, covered = [], []
    for number in range(N_DRAWS // classes):
        study = module.draw(np.random.default_rng([99, number]), setting, n, paired, classes, classes)
        p_value, holds = module.RULES[rule](study)
        p_values.append(p_value.ravel())
        covered.append(holds.ravel())
    return np.array(p_values), np.array(covered), study.changed.ravel()


@pytest.mark.parametrize(("n", "paired"), [(3, True), (4, True), (6, True), (8, True), (3, False), (4, False)])
@pytest.mark.parametrize("name", ["null, equal variances", "null, spread 0.6"])
@pytest.mark.parametrize("classes", [1, 5])
def test_where_nothing_changes_3_to_7_percent_are_rejected(battery, name, n, paired, classes):
    p_values, _, _ = draws(battery, name, n, paired, classes)
    assert_between((p_values < 0.05).sum(), p_values.size, 0.03, 0.07)


@pytest.mark.parametrize(("n", "paired"), [(3, True), (4, True), (6, True), (8, True), (3, False), (4, False)])
@pytest.mark.parametrize("name", ["adversarial, 2 changed", "adversarial, 8 changed"])
@pytest.mark.parametrize("classes", [1, 5])
def test_intervals_hold_where_donors_respond_differently_and_the_untouched_are_rejected_as_often(
    battery, name, n, paired, classes
):
    p_values, covered, changed = draws(battery, name, n, paired, classes)
    assert_between(covered[:, changed].sum(), covered[:, changed].size, 0.93, 0.97)
    assert_between((p_values[:, ~changed] < 0.05).sum(), p_values[:, ~changed].size, 0.03, 0.07)


def test_the_range_excludes_limmas_intervals_and_the_restraint_before(battery):
    """The limits can fail: limma's intervals miss by far, and a pooled prior with little weight rejects too seldom."""
    _, covered, changed = draws(battery, "adversarial, 8 changed", 4, True, rule="limma")
    assert covered[:, changed].sum() < stats.binom.ppf(0.0005, covered[:, changed].size, 0.93)
    p_values, _, _ = draws(battery, "adversarial, 8 changed", 4, True, rule="restrained")
    assert (p_values[:, ~changed] < 0.05).sum() < stats.binom.ppf(0.0005, p_values[:, ~changed].size, 0.03)


@pytest.mark.parametrize(("n", "paired"), [(3, True), (4, True), (8, True), (3, False)])
@pytest.mark.parametrize("name", ["same variance, 4 changed by 5 se", "spread 0.3, 4 changed by 5 se"])
def test_power_is_no_less_than_limma_trends_where_limmas_intervals_hold(battery, name, n, paired):
    """Where both reject the same share of untouched programmes, and of five classes at a false discovery rate, too."""
    found = {}
    for rule in ("like effects", "limma-trend"):
        p_values, _, changed = draws(battery, name, n, paired, 5, rule)
        limit = np.quantile(p_values[:, ~changed], 0.01)
        called = stats.false_discovery_control(p_values, axis=1) < 0.05
        found[rule] = (p_values[:, changed] < limit).mean(), called[:, changed].mean()
    # one point for chance: 1,000 changed programmes, the same for both
    assert found["like effects"][0] >= found["limma-trend"][0] - 0.01
    assert found["like effects"][1] >= found["limma-trend"][1] - 0.01


@pytest.mark.parametrize(
    ("classes", "n", "paired"),
    [(1, 4, True), (1, 8, True), (1, 3, False), (1, 4, False), (5, 3, True), (5, 4, True), (5, 8, True), (5, 3, False)],
)
def test_effects_that_stand_alone_are_called_as_often_as_by_limma_trend(battery, classes, n, paired):
    """Two changed programmes of twenty, where all vary alike: limma's own model. No more of its calls are wrong."""
    found = {}
    for rule in ("like effects", "limma-trend"):
        p_values, _, changed = draws(battery, "same variance, 2 changed by 4 se", n, paired, classes, rule)
        called = stats.false_discovery_control(p_values, axis=1) < 0.05
        false = called[:, ~changed].sum(axis=1) / np.maximum(called.sum(axis=1), 1)
        found[rule] = called[:, changed].mean(), false.mean()
    # 500 changed programmes, the same for both: two standard errors of the difference
    assert found["like effects"][0] >= found["limma-trend"][0] - 0.03
    assert found["like effects"][1] <= found["limma-trend"][1]


@pytest.mark.parametrize(("n", "paired", "size"), [(4, True, 0.3), (3, False, 0.5)])
def test_small_changes_are_found_as_often_as_by_limma_trend_on_the_same_pseudobulks(battery, n, paired, size):
    """Counts of four classes with four changed programmes each, donors responding alike: limma's own model."""
    power, found = battery["power"], {"like effects": [], "limma-trend": []}
    for number in range(60):
        rng = np.random.default_rng([98, number])
        parts = [power.draw(rng, n, n, paired, 4, size, 0.05) for _ in range(4)]
        changed = np.concatenate([part[1] for part in parts])
        moderation = power.Moderation([part[0] for part in parts])
        own = power.infer(moderation.estimate, moderation.errors, 0.95).p_value
        limma = np.concatenate([power.by_limma_trend(*part[2:], paired) for part in parts])
        for name, p_value in (("like effects", own), ("limma-trend", limma)):
            found[name].append((stats.false_discovery_control(p_value) < 0.05)[changed].mean())
    assert 0.5 < np.mean(found["limma-trend"]) < 0.95
    assert np.mean(found["like effects"]) >= np.mean(found["limma-trend"]) - 0.01


def test_the_battery_knows_limmas_trend(battery, repository):
    """limma-trend, which power is held against, is limma's own to 1e-6."""
    folder = repository / "tests" / "contrast" / "reference"
    own, trend = (pd.read_csv(folder / f"{name}.tsv", sep="\t") for name in ("limma", "limma_trend_scores"))
    variance, df = battery["moderation"].limma_trend(own["sigma2"].to_numpy(), 3, trend["abundance"].to_numpy())
    np.testing.assert_allclose(variance, trend["s2_post"], rtol=1e-6)
    np.testing.assert_allclose(df, trend["df_total"], rtol=1e-6)


def test_cells_as_replicates_reject_what_replicates_do_not(battery):
    rows = pd.DataFrame(battery["cells"].cells_as_replicates(40)).set_index("setting")["value"]
    kind = "control against control, 4 pairs"
    assert rows[f"{kind}; cells as replicates"] > 0.1 > rows[f"{kind}; replicates"]


def test_every_experiment_of_the_battery_runs(battery):
    for name, (experiment, _) in battery["run"].EXPERIMENTS.items():
        if name in ("moderation", "power", "leakage_only", "detection", "whole_floor"):
            continue
        rows = pd.DataFrame(experiment(2))
        assert list(rows.columns) == ["experiment", "setting", "measure", "value", "standard_error", "n"], name
        assert not rows.duplicated(["experiment", "setting", "measure"]).any(), name


def test_standard_errors_are_over_draws(battery):
    record = battery["common"].record
    draws = np.array([[1.0, 1.0], [0.0, 0.0], [1.0, 1.0], [0.0, np.nan]])
    row = record("e", "s", "m", draws)
    assert (row["n"], row["value"]) == (7, pytest.approx(4 / 7, rel=1e-3))
    single = record("e", "s", "m", [1.0, 0.0, 1.0, 0.0])
    assert single["standard_error"] == pytest.approx(np.std([1, 0, 1, 0], ddof=1) / 2, rel=0.02)
