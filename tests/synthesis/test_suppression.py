"""Measured suppression against responses: cross-validation by brute force, permutations by enumeration."""

from itertools import permutations

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import LeaveOneGroupOut

from immunomod.synthesis.suppression import associate

RNG = np.random.default_rng(0)
RESPONSE = RNG.normal(2, 1, 9)
SUPPRESSION = 40 + 12 * RESPONSE + RNG.normal(0, 8, 9)


def test_line_and_correlation_equal_scipy():
    found = associate(RESPONSE, SUPPRESSION)
    line = stats.linregress(RESPONSE, SUPPRESSION)
    assert found.slope == pytest.approx(line.slope)
    assert found.correlation == pytest.approx(line.rvalue)
    assert found.ci_high - found.slope == pytest.approx(stats.t.ppf(0.975, 7) * line.stderr)
    assert found.slope - found.ci_low == pytest.approx(stats.t.ppf(0.975, 7) * line.stderr)


def test_cross_validation_equals_refitting_without_each_donor():
    predicted, mean = np.empty(9), np.empty(9)
    for train, test in LeaveOneGroupOut().split(RESPONSE[:, None], SUPPRESSION, groups=np.arange(9)):
        assert not set(train) & set(test)
        predicted[test] = (
            LinearRegression().fit(RESPONSE[train, None], SUPPRESSION[train]).predict(RESPONSE[test, None])
        )
        mean[test] = SUPPRESSION[train].mean()
    errors = (SUPPRESSION - predicted) ** 2
    found = associate(RESPONSE, SUPPRESSION)
    assert found.r2_cv == pytest.approx(1 - errors.sum() / ((SUPPRESSION - mean) ** 2).sum())
    assert found.error_cv == pytest.approx(np.sqrt(errors.mean()))


def test_permutation_p_approaches_that_of_all_exchanges():
    x, y = RESPONSE[:6], np.array([3.0, 5.0, 2.0, 8.0, 4.0, 6.5])
    observed = abs(np.corrcoef(x, y)[0, 1])
    exact = np.mean([abs(np.corrcoef(x, order)[0, 1]) >= observed - 1e-12 for order in permutations(y)])
    found = associate(x, y, n_permutations=20_000)
    assert found.p_value == pytest.approx(exact, abs=0.012)


def test_p_is_never_zero_and_counts_the_observed_arrangement():
    found = associate(np.arange(12.0), np.arange(12.0), n_permutations=199)
    assert found.p_value == found.p_value_cv == 1 / 200
    assert found.r2_cv == pytest.approx(1.0)


def test_unrelated_values_are_rejected_as_often_as_they_should():
    rng = np.random.default_rng(5)
    found = [associate(rng.normal(size=6), rng.normal(size=6), 199, seed=number) for number in range(600)]
    for name in ("p_value", "p_value_cv"):
        assert np.mean([getattr(one, name) <= 0.05 for one in found]) == pytest.approx(0.05, abs=0.03)
    assert np.mean([one.r2_cv for one in found]) < 0


def test_order_does_not_matter_and_signs_flip():
    plain = associate(RESPONSE, SUPPRESSION)
    order = np.random.default_rng(1).permutation(9)
    assert associate(RESPONSE[order], SUPPRESSION[order]) == plain
    flipped = associate(-RESPONSE, SUPPRESSION, n_permutations=9_999)
    assert (flipped.slope, flipped.correlation) == pytest.approx((-plain.slope, -plain.correlation))
    assert flipped.r2_cv == pytest.approx(plain.r2_cv)


@pytest.mark.parametrize(
    ("response", "suppression"),
    [
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]),
        ([1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0]),
        ([1.0, 2.0, 3.0, 4.0], [5.0, 5.0, 5.0, 5.0]),
        ([1.0, 1.0, 1.0, 2.0], [1.0, 2.0, 3.0, 4.0]),
    ],
    ids=["three donors", "no response", "no suppression", "one donor's doing"],
)
def test_what_cannot_be_told_has_no_association(response, suppression):
    assert associate(np.array(response), np.array(suppression)) is None
