"""Meta-analysis against metafor, brute force and simulation."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from immunomod.synthesis.meta import COLUMNS, pool_effects, pool_random_effects, pooled_variances, read_effects

REFERENCE = Path(__file__).parent / "reference" / "metafor.tsv"
STUDIES = [group for _, group in pd.read_csv(REFERENCE, sep="\t").groupby("study")]


def effects_table(values, se=0.2, pairs=3, **columns) -> pd.DataFrame:
    k = len(values)
    table = pd.DataFrame({"effect": values, "se": se, "df": pairs - 1.0, "n_pairs": pairs})
    table = table.assign(n_test=pairs, n_reference=pairs, dataset=[f"ds{i}" for i in range(k)], status="tested")
    return table.assign(contrast="q", program="p", cell_class="T", role="readout").assign(**columns)


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: f"study{study['study'].iloc[0]}")
def test_pooling_equals_metafor(study):
    expected = study.iloc[0]
    pooled = pool_random_effects(study["y"].to_numpy(), study["v"].to_numpy())
    assert pooled.tau2 == pytest.approx(expected["tau2"], abs=1e-6)
    assert pooled.effect == pytest.approx(expected["effect"], rel=1e-6)
    assert pooled.se == pytest.approx(expected["se"], rel=1e-6)
    assert pooled.i2 == pytest.approx(expected["i2"], abs=1e-4)


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: f"study{study['study'].iloc[0]}")
def test_table_equals_metafor_on_the_pooled_variances(study):
    # equal sizes make the pooled variance the mean of the squared standard errors
    study = study.assign(v=study["v"].mean())
    table = effects_table(study["y"].to_numpy(), se=np.sqrt(study["v"].to_numpy()))
    row = pool_effects(table).iloc[0]
    pooled = pool_random_effects(study["y"].to_numpy(), study["v"].to_numpy())
    quantile = stats.t.ppf(0.975, len(study) - 1)
    assert row["effect"] == pytest.approx(pooled.effect)
    np.testing.assert_allclose(row["ci_high"] - row["effect"], quantile * pooled.se)
    np.testing.assert_allclose(row["effect"] - row["prediction_low"], quantile * np.hypot(pooled.se, pooled.tau2**0.5))


def test_interval_and_prediction_equal_metafor():
    for study in STUDIES:
        expected = study.iloc[0]
        pooled = pool_random_effects(study["y"].to_numpy(), study["v"].to_numpy())
        quantile = stats.t.ppf(0.975, len(study) - 1)
        assert pooled.effect - quantile * pooled.se == pytest.approx(expected["ci_low"], rel=1e-5)
        reach = quantile * np.sqrt(pooled.tau2 + pooled.se**2)
        assert pooled.effect + reach == pytest.approx(expected["prediction_high"], rel=1e-5)


def test_pooled_variance_is_weighted_by_degrees_of_freedom():
    se, df = np.array([0.1, 0.3]), np.array([3.0, 1.0])
    variances = pooled_variances(se, df, np.array([4.0, 0.0]), np.array([4.0, 2.0]), np.array([4.0, 3.0]))
    c = np.array([1 / 4, 1 / 2 + 1 / 3])
    residual = (3 * 0.1**2 / c[0] + 1 * 0.3**2 / c[1]) / 4
    np.testing.assert_allclose(variances, residual * c)


def test_row_holds_agreement_and_leave_one_out():
    values = np.array([1.0, 0.8, -0.1, 1.3])
    row = pool_effects(effects_table(values)).iloc[0]
    assert (row["k"], row["status"], row["sign_agreement"]) == (4, "tested", 0.75)
    left_out = [pool_random_effects(np.delete(values, i), np.full(3, 0.04)).effect for i in range(4)]
    assert (row["loo_low"], row["loo_high"]) == pytest.approx((min(left_out), max(left_out)))
    assert row["prediction_low"] <= row["ci_low"] < row["effect"] < row["ci_high"] <= row["prediction_high"]


def test_nothing_is_pooled_below_three_data_sets():
    table = effects_table([1.0, 1.1, 1.2])
    table.loc[0, "status"] = "low_coverage"
    result = pool_effects(table)
    assert list(result.columns) == COLUMNS
    row = result.iloc[0]
    assert (row["k"], row["status"]) == (2, "too_few_datasets")
    assert "2 data sets" in row["reason"]
    assert row[["effect", "ci_low", "p_value", "tau2", "prediction_low", "loo_low", "fdr"]].isna().all()
    assert pool_effects(table.assign(status="absent")).iloc[0]["k"] == 0


def test_groups_are_kept_apart():
    tables = [effects_table([1.0, 1.2, 0.9], program="a"), effects_table([-1.0, -1.2, -0.9], program="b")]
    tables.append(effects_table([5.0, 5.5, 6.0], program="a", cell_class="B"))
    tables.append(effects_table([9.0, 9.5, 9.1], program="a", contrast="other"))
    result = pool_effects(pd.concat(tables, ignore_index=True)).set_index(["contrast", "program", "cell_class"])
    assert len(result) == 4
    assert result.loc[("q", "a", "T"), "effect"] == pytest.approx(1.033, abs=1e-3)
    assert result.loc[("q", "b", "T"), "effect"] == pytest.approx(-1.033, abs=1e-3)


def test_species_are_never_pooled():
    table = effects_table([1.0, 1.2, 0.9, 4.0, 5.0])
    result = pool_effects(table, organisms={"ds3": "mouse", "ds4": "mouse"}).set_index("organism")
    assert (result.loc["human", "k"], result.loc["mouse", "k"]) == (3, 2)
    assert result.loc["mouse", "status"] == "too_few_datasets"


def test_order_of_rows_does_not_matter():
    table = effects_table([1.0, 0.2, 0.7, 1.9], se=[0.1, 0.2, 0.3, 0.4])
    first, second = pool_effects(table), pool_effects(table.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(first, second)


def test_swapped_signs_flip_the_estimate():
    values = np.array([1.0, 0.2, 0.7])
    plain, flipped = pool_effects(effects_table(values)).iloc[0], pool_effects(effects_table(-values)).iloc[0]
    assert plain["effect"] == pytest.approx(-flipped["effect"])
    assert plain["p_value"] == pytest.approx(flipped["p_value"])
    assert plain["ci_low"] == pytest.approx(-flipped["ci_high"])


def test_no_row_gives_a_valid_empty_table():
    assert list(pool_effects(effects_table([1.0]).iloc[:0]).columns) == COLUMNS


@pytest.mark.parametrize(("k", "tau"), [(3, 0.0), (3, 0.3), (5, 0.0), (5, 0.3)])
def test_type_one_error_is_nominal(k, tau):
    rng = np.random.default_rng([k, int(10 * tau)])
    rejected = 0
    for _ in range(1000):
        sizes = rng.integers(2, 5, k)
        samples = [rng.normal(rng.normal(0, tau), 0.3, n) for n in sizes]
        n = sizes.astype(float)
        se = np.array([sample.std(ddof=1) / np.sqrt(len(sample)) for sample in samples])
        pooled = pool_random_effects(np.array([s.mean() for s in samples]), pooled_variances(se, n - 1, n, n, n))
        rejected += 2 * stats.t.sf(abs(pooled.effect) / pooled.se, k - 1) < 0.05
    assert 0.03 <= rejected / 1000 <= 0.07


def test_names_that_look_like_numbers_stay_names(tmp_path):
    table = effects_table([1.0, 1.2, 0.9]).assign(contrast="1e3")
    table["dataset"] = ["007", "008", "1e3"]
    table.to_csv(tmp_path / "effects.tsv", sep="\t", index=False)
    effects = read_effects([tmp_path / "effects.tsv"])
    assert list(effects["dataset"]) == ["007", "008", "1e3"]
    pooled = pool_effects(effects, organisms=dict.fromkeys(["007", "008", "1e3"], "mouse"))
    assert pooled[["contrast", "organism", "k"]].to_numpy().tolist() == [["1e3", "mouse", 3]]
