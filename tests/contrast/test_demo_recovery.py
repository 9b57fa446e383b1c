"""The demo's promise, over repeated simulation with fixed seeds: planted effects are found, untouched ones are not.

The same measures over more studies, with and without leakage: ``benchmarks/demo_recovery.py``.

Every limit can fail. Measured on studies of these settings with 0.2% leakage, not corrected, and with the contrast
floor broken on purpose:

==================================  ========  ========  =============  =======================
what is done                        rejected  coverage  called, fdr    MSC, CD4 and CD8 T shift
==================================  ========  ========  =============  =======================
as it is                            5.5%      96.8%     1.7%           -0.01, 0.00, +0.02
own variance alone                  6.9%      95.8%     1.8%           as it is
limma's moderation, unrestrained    8.1%      97.8%     3.1%           as it is
own variance, limma's df            14.3%     91.3%     9.1%           as it is
own variance, normal quantiles      16.0%     88.5%     11.5%          as it is
library sizes are sums of counts    9.0%      89.7%     3.4%           -0.17, +0.01, +0.04
differing genes stay in the TMM     5.9%      96.2%     1.5%           -0.04, +0.03, +0.05
==================================  ========  ========  =============  =======================

Each but the first breaks a limit below. There, 5.5% is 5% within its standard error of 0.7: over more studies the rate
is lower (benchmarks/results/demo_recovery.tsv).
"""

import importlib.util

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from immunomod.simulate.settings import SimulationSettings

N_STUDIES = 24

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def benchmark(repository):
    spec = importlib.util.spec_from_file_location("demo_recovery", repository / "benchmarks" / "demo_recovery.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows(benchmark) -> pd.DataFrame:
    """Estimates and truth of studies with the demo's settings, its leakage included."""
    return benchmark.draw_rows(SimulationSettings(seed=500), N_STUDIES)


@pytest.fixture(scope="module")
def measures(benchmark, rows) -> pd.DataFrame:
    return benchmark.summarise(rows).set_index(["rows", "group", "measure"]).sort_index()


def test_the_planted_programmes_are_tested_and_their_signs_are_right(measures):
    planted = measures.loc["planted", "all"]["value"]
    assert planted["tested"] == 1
    assert planted["right_sign"] == 1
    assert planted["found_fdr"] > 0.95
    assert abs(planted["bias"]) < 0.02


def test_the_truth_is_inside_95_percent_intervals_as_often_as_it_should(measures):
    """The programmes' donor responses are drawn independently, so the number of hits is binomial."""
    hits = measures.loc["planted", "all", "coverage_population"]
    low, high = stats.binom.interval(0.99, hits["n"], 0.95)
    assert low <= hits["value"] * hits["n"] <= high


def test_untouched_programmes_are_rejected_in_at_most_5_percent(measures):
    """Within 1.645 standard errors, so that a test of exactly 5% passes for 95% of the seeds."""
    null = measures.loc["untouched", "all"]
    rejected = null.loc["rejected"]
    assert rejected["n"] > 40 * N_STUDIES
    assert rejected["standard_error"] < 0.01
    assert rejected["value"] <= 0.05 + stats.norm.ppf(0.95) * rejected["standard_error"]
    assert null.loc["called_fdr", "value"] <= 0.02
    discoveries = measures.loc["called", "role readout", "false_discoveries"]
    assert discoveries["value"] <= 0.05 + stats.norm.ppf(0.95) * discoveries["standard_error"]


@pytest.mark.parametrize("cell_class", ["MSC", "CD4_T", "CD8_T"])
def test_planted_effects_do_not_shift_the_untouched_programmes_of_their_class(measures, cell_class):
    shift = measures.loc["untouched", f"cell_class {cell_class}", "mean_effect"]
    assert abs(shift["value"]) < 0.03


def test_standard_errors_are_over_studies(benchmark):
    """Rows that repeat within a study bring no evidence; studies of one row each give the usual standard error."""
    values, studies = pd.Series([1.0, 0.0, 0.0, 1.0, 0.0]), pd.Series(range(5))
    mean, error = benchmark.mean_over_rows(values, studies)
    assert (mean, error) == pytest.approx((0.4, values.sem()))
    repeated = pd.Series(np.repeat(values.to_numpy(), 3)), pd.Series(np.repeat(studies.to_numpy(), 3))
    assert benchmark.mean_over_rows(*repeated) == pytest.approx((mean, error))
