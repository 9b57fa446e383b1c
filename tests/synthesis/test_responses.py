"""Responses, shrinkage and ranks of donors: against fits by hand, and simulations with known truth."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from immunomod.synthesis.ranks import rank_intervals, rank_of
from immunomod.synthesis.responses import donor_responses
from immunomod.synthesis.shrink import shrink

PROGRAMS = ("a", "b", "c")


def cultures(sizes=((2, 1), (3, 2), (1, 1)), seed=0, effect=1.0, common=0.0) -> pd.DataFrame:
    """Scores of donors with (co-cultures, MSC alone) cultures each."""
    rng = np.random.default_rng(seed)
    rows = []
    for number, (n_test, n_reference) in enumerate(sizes):
        baseline, response = rng.normal(0, 2), rng.normal(effect, 0.5)
        for arm, n in (("test", n_test), ("reference", n_reference)):
            for one in range(n):
                for program in PROGRAMS:
                    score = baseline + response * (arm == "test") + rng.normal(0, 0.3)
                    rows.append((f"M{number}", f"{arm}{number}{one}", f"D{one}", arm, program, score, common))
    return pd.DataFrame(rows, columns=["msc_donor", "sample", "donor", "arm", "program", "score", "common_se"])


def test_responses_equal_differences_of_arm_means():
    scores = cultures()
    fit = donor_responses(scores)
    means = scores.groupby(["msc_donor", "program", "arm"])["score"].mean().unstack()
    expected = (means["test"] - means["reference"]).unstack()
    np.testing.assert_allclose(fit.response, expected.loc[fit.donors, fit.programs])
    np.testing.assert_allclose(fit.unscaled, [1 / 2 + 1, 1 / 3 + 1 / 2, 2])
    assert (fit.n_test.tolist(), fit.n_reference.tolist()) == ([2, 3, 1], [1, 2, 1])
    within = scores.groupby(["msc_donor", "program", "arm"])["score"]
    squares = (scores["score"] - within.transform("mean")).pow(2).groupby(scores["program"]).sum()
    assert fit.residual_df == 10 - 6
    np.testing.assert_allclose(fit.residual, squares[fit.programs] / 4)
    assert (fit.variance >= fit.residual).all() and 4 <= fit.df <= 6
    assert (fit.one_culture, fit.is_trend) == (2.0, False)


def test_trends_are_slopes_of_each_donor():
    rng = np.random.default_rng(1)
    rows = [
        (f"M{m}", f"s{m}{dose}", "D", repr(dose), program, (1 + m) * dose + rng.normal(0, 0.1), 0.0)
        for m in range(3)
        for dose in (0.0, 0.5, 1.0, 2.0)
        for program in PROGRAMS
    ]
    scores = pd.DataFrame(rows, columns=["msc_donor", "sample", "donor", "arm", "program", "score", "common_se"])
    fit = donor_responses(scores)
    for number, donor in enumerate(fit.donors):
        own = scores[(scores["msc_donor"] == donor) & (scores["program"] == "b")]
        line = stats.linregress(own["arm"].astype(float), own["score"])
        assert fit.response[number, 1] == pytest.approx(line.slope)
        assert (fit.n_test[number], fit.n_reference[number]) == (3, 1)
    assert fit.is_trend and fit.residual_df == 6


def test_donors_without_both_arms_have_no_response():
    fit = donor_responses(cultures(sizes=((2, 1), (2, 0), (0, 2))))
    assert fit.donors == ["M0"]
    assert donor_responses(cultures(sizes=((2, 0),))).donors == []


def test_order_does_not_matter_and_swapped_arms_flip_the_sign():
    scores = cultures()
    plain, shuffled = donor_responses(scores), donor_responses(scores.sample(frac=1, random_state=2))
    np.testing.assert_allclose(plain.response, shuffled.response)
    np.testing.assert_allclose(plain.variance, shuffled.variance)
    swapped = donor_responses(scores.assign(arm=scores["arm"].map({"test": "reference", "reference": "test"})))
    np.testing.assert_allclose(plain.response, -swapped.response)
    np.testing.assert_allclose(plain.variance, swapped.variance)


def test_single_cultures_leave_the_variance_unknown():
    fit = donor_responses(cultures(sizes=((1, 1), (1, 1))))
    assert fit.residual_df == 0 and np.isnan(fit.variance).all()
    assert np.isfinite(fit.response).all()


def crossed(seed=0, partner_sd=1.0, partners=3, lines=5, spread=0.0) -> pd.DataFrame:
    """Every MSC donor with every immune donor, and once alone; immune donors differ in what they do to all MSC."""
    rng = np.random.default_rng(seed)
    shift = rng.normal(0, partner_sd, partners)
    rows = []
    for number in range(lines):
        for program in PROGRAMS:
            alone = rng.normal(0, 0.2)
            rows.append((f"M{number}", f"alone{number}", f"M{number}", "reference", program, alone, 0.0))
            for one in range(partners):
                score = spread * number + shift[one] + rng.normal(0, 0.2)
                rows.append((f"M{number}", f"co{number}{one}", f"D{one}", "test", program, score, 0.0))
    return pd.DataFrame(rows, columns=["msc_donor", "sample", "donor", "arm", "program", "score", "common_se"])


def test_differences_are_cleared_of_shared_immune_donors():
    scores = crossed()
    fit = donor_responses(scores)
    own = scores[(scores["program"] == "a") & (scores["arm"] == "test")]
    table = own.pivot(index="msc_donor", columns="donor", values="score").to_numpy()
    left = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0, keepdims=True) + table.mean()
    assert fit.residual_df == 10 and 8 <= fit.difference_df <= 12
    assert fit.difference_variance[0] >= (left**2).sum() / 8 - 1e-12
    assert 2 * fit.difference_variance[0] < fit.variance[0]
    short = scores[scores["sample"] != "co00"]
    assert (donor_responses(short).difference_variance == donor_responses(short).variance).all()


def test_crossed_designs_tell_more_donors_apart_and_still_hold_the_true_rank():
    truth, held, wide, narrow = np.arange(5) * 0.5, [], 0, 0
    for seed in range(150):
        fit = donor_responses(crossed(seed=seed, spread=0.5))
        values = fit.response[:, 0]
        plain = rank_intervals(values, fit.variance[0] * fit.unscaled, fit.df, n_draws=500, seed=seed)
        cleared = rank_intervals(
            values, fit.difference_variance[0] * fit.unscaled, fit.difference_df, n_draws=500, seed=seed
        )  # fmt: skip
        held.append((cleared.low <= rank_of(truth)) & (cleared.high >= rank_of(truth)))
        wide, narrow = wide + (plain.high - plain.low).sum(), narrow + (cleared.high - cleared.low).sum()
    assert np.mean(held, axis=0).min() >= 0.93
    assert narrow < 0.75 * wide


def test_ranks_of_two_donors_follow_the_t_test():
    variances = np.array([0.04, 0.09])
    limit = stats.t.ppf(0.975, 5) * np.sqrt(0.13)
    apart = rank_intervals(np.array([0.0, limit * 1.1]), variances, 5, n_draws=100_000)
    assert (apart.low.tolist(), apart.high.tolist()) == ([2, 1], [2, 1])
    close = rank_intervals(np.array([0.0, limit * 0.9]), variances, 5, n_draws=100_000)
    assert (close.low.tolist(), close.high.tolist()) == ([1, 1], [2, 2])
    assert close.rank.tolist() == [2, 1]


@pytest.mark.parametrize(
    "truth",
    [np.zeros(6), np.array([0.0, 0.0, 0.1, 0.5, 0.5, 2.0]), np.array([3.0, 0.0, 1.0, 2.0])],
    ids=["all alike", "near ties", "apart"],
)
@pytest.mark.parametrize("df", [2, 8])
def test_intervals_of_ranks_hold_the_true_rank(truth, df):
    """Of a tied donor every rank that the tie allows is to be covered."""
    rng = np.random.default_rng([len(truth), df])
    unscaled = np.array([0.5, 1.0, 0.5, 1.5, 1.0, 0.5])[: len(truth)]
    best = np.array([1 + (truth > value).sum() for value in truth])
    worst = np.array([(truth >= value).sum() for value in truth])
    held = np.zeros(len(truth))
    n = 400
    for number in range(n):
        sigma2 = 0.25
        values = truth + rng.normal(0, np.sqrt(sigma2 * unscaled))
        estimated = sigma2 * rng.chisquare(df) / df
        found = rank_intervals(values, estimated * unscaled, df, n_draws=1_000, seed=number)
        held += (found.low <= best) & (found.high >= worst)
        assert (found.low <= found.rank).all() and (found.rank <= found.high).all()
    assert (held / n >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / n)).all(), held / n


def test_drawn_ranks_alone_would_miss():
    """Why differences are tested: percentiles of drawn ranks hold all ranks that a tie allows far too rarely."""
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        values = rng.normal(0, 1, 6)
        drawn = np.apply_along_axis(rank_of, 1, values + rng.normal(0, 1, (300, 6)))
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        held += (low[0] <= 1) and (high[0] >= 6)
    assert held / 200 < 0.8


def test_ranks_do_not_depend_on_order_or_scale():
    values, variances = np.array([1.0, 0.2, 2.0, 1.1]), np.array([0.1, 0.2, 0.1, 0.4])
    plain = rank_intervals(values, variances, 6, n_draws=50_000)
    order = np.array([2, 0, 3, 1])
    moved = rank_intervals(values[order], variances[order], 6, n_draws=50_000, seed=9)
    for name in ("rank", "low", "high"):
        assert (getattr(plain, name)[order] == getattr(moved, name)).all()
    scaled = rank_intervals(5 + 3 * values, 9 * variances, 6, n_draws=50_000)
    assert (scaled.low == plain.low).all() and (scaled.high == plain.high).all()
    assert rank_of(np.array([2.0, 3.0, 3.0, 1.0])).tolist() == [3, 1, 1, 4]
    assert rank_intervals(np.array([1.0]), np.array([0.1]), 3).high.tolist() == [1]


def test_shrinking_is_closer_to_the_truth():
    rng = np.random.default_rng(4)
    raw, shrunken = 0.0, 0.0
    for _ in range(400):
        truth = rng.normal(2, 0.4, 8)
        variances = rng.choice([0.05, 0.2, 0.6], 8)
        values = truth + rng.normal(0, np.sqrt(variances))
        raw += ((values - truth) ** 2).sum()
        shrunken += ((shrink(values, variances) - truth) ** 2).sum()
    assert shrunken < 0.8 * raw


def test_shrinking_leaves_what_it_must():
    values = np.array([1.0, 3.0])
    assert shrink(values[:1], np.array([0.2])).tolist() == [1.0]
    assert shrink(values, np.zeros(2)).tolist() == [1.0, 3.0]
    drawn = shrink(values, np.array([0.1, 0.4]))
    assert values[0] <= drawn[0] <= drawn[1] <= values[1]
    np.testing.assert_allclose(shrink(-values, np.array([0.1, 0.4])), -drawn)
