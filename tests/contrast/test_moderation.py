"""Variances moderated among like effects: against a hand calculation, a slow one, Welch's test and simulated truth;
and the tests and intervals that follow from variances which go with the size of effects."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from scipy.special import digamma, polygamma

from immunomod.contrast.model import inverse_trigamma
from immunomod.contrast.moderation import (
    Effects,
    LikeEffects,
    Moderation,
    Noise,
    arm_noise,
    infer,
    mean_squared_correlation,
)


def moderate_among_like_effects(estimate, *others, **named) -> tuple[np.ndarray, np.ndarray]:
    """Variances and degrees of freedom, were the true effects the estimates."""
    return LikeEffects(estimate, *others, **named).errors(estimate)


def moderated_errors(classes: list[Effects]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The same of the effects of every class."""
    moderation = Moderation(classes)
    ends = np.cumsum([len(one.estimate) for one in classes])[:-1]
    return list(zip(*(np.split(part, ends) for part in moderation.errors(moderation.estimate)), strict=True))


def draw(seed: int, classes: int = 3, count: int = 12, df: int = 3) -> dict[str, np.ndarray]:
    """Variances that rise with the effect, from classes of different noise."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(classes), count)
    noise = 0.02 * np.exp(rng.normal(0, 0.5, classes))[label]
    truth = np.where(np.arange(classes * count) % count < 4, rng.uniform(0.3, 2, classes * count), 0)
    variance = noise + (0.3 * truth) ** 2
    return {
        "estimate": truth + rng.normal(size=len(label)) * np.sqrt(variance / 4),
        "variance": variance * rng.chisquare(df, len(label)) / df,
        "counting": np.exp(rng.normal(0, 0.5, len(label))),
        "df": np.full(len(label), float(df)),
        "unscaled": np.full(len(label), 0.25),
        "classes": label,
    }


def test_without_effects_it_is_limmas_prior_of_the_others_widened_by_its_error():
    """By hand: one class and effects of zero, where all weights are 1 and there is no slope."""
    variance = np.array([0.5, 1.0, 0.2, 4.0, 0.9, 1.3, 0.05])
    count, df = len(variance), np.full(len(variance), 3.0)
    nothing, one = np.zeros(count), np.zeros(count, dtype=int)
    for shared in (0.0, 0.25):
        moderated, total = moderate_among_like_effects(nothing, variance, np.ones(count), df, df / 12, one, shared)
        logarithm = np.log(variance) - digamma(1.5) + np.log(1.5)
        chance = polygamma(1, 1.5)
        own = chance * (1 - shared)
        spread = max(np.var(logarithm, ddof=1) - own, 0)
        half = inverse_trigamma(np.array(spread + shared * chance + (spread + own) / (count - 1)))
        for row in range(count):
            prior = np.exp(np.delete(logarithm, row).mean() + digamma(half) - np.log(half))
            posterior = (3 * variance[row] + 2 * half * prior) / (3 + 2 * half)
            expected = posterior if posterior > variance[row] else posterior**0.85 * variance[row] ** 0.15
            assert moderated[row] == pytest.approx(expected)
            assert total[row] == pytest.approx(min(3 + 2 * half, 3 * count))


def likeness(sizes, of_others):
    """Tricube weights of the programmes in each other's priors; none in one's own."""
    n = len(sizes)
    distance = [[abs(sizes[i] - of_others[j]) / np.log(2) for j in range(n)] for i in range(n)]
    return [[max(1 - distance[i][j] ** 3, 0) ** 3 * (i != j) for j in range(n)] for i in range(n)]


def slow(estimate, variance, counting, df, unscaled, classes, shared=0.0, lowered=0.85, supposed=None):
    """The method written down programme by programme; ``supposed`` are the true effects, else the estimates."""
    n = len(estimate)
    supposed = estimate if supposed is None else supposed
    y = [np.log(variance[i]) - digamma(df[i] / 2) + np.log(df[i] / 2) for i in range(n)]
    chance = [polygamma(1, df[i] / 2) for i in range(n)]
    level = {c: np.log(np.median(variance[classes == c])) for c in set(classes)}
    rare = []
    for i in range(n):
        members = [j for j in range(n) if classes[j] == classes[i]]
        mean = sum(np.log(counting[j]) / chance[j] for j in members) / sum(1 / chance[j] for j in members)
        rare.append(np.log(counting[i]) - mean)
    spread = slope = 0.0
    size = [0.0] * n
    for turn in range(3):
        noise = 1 - shared + spread * sum(1 / chance[i] for i in range(n)) / n
        known = sum(rare[i] ** 2 / chance[i] for i in range(n)) / noise + 1 / 0.3**2
        power = sum(rare[i] * (y[i] - slope * size[i]) / chance[i] for i in range(n)) / noise + 0.5 / 0.3**2
        power = min(max(power / known, 0), 1)
        alike = []
        for i in range(n):
            level_of_i = np.exp(level[classes[i]] + power * rare[i])
            alike.append((3 * np.exp(spread**0.5)) ** 2 * level_of_i * unscaled[i])
        size = [np.log(np.sqrt(1 + estimate[i] ** 2 / alike[i])) for i in range(n)]
        weight = likeness(size, size)
        apart = []
        for i in range(n):
            members = [j for j in range(n) if classes[j] == classes[i]]
            mean = sum(size[j] / chance[j] for j in members) / sum(1 / chance[j] for j in members)
            apart.append((size[i] - mean) / chance[i])
        information = sum(apart[i] * size[i] for i in range(n)) / noise + 1 / 2**2
        slope = max(sum(apart[i] * (y[i] - power * rare[i]) for i in range(n)) / noise / information, 0)
        relative = [y[i] - level[classes[i]] - power * rare[i] - slope * size[i] for i in range(n)]
        sums = [sum(weight[i][j] / chance[j] for j in range(n)) for i in range(n)]
        expected = [sum(weight[i][j] / chance[j] * relative[j] for j in range(n)) / sums[i] for i in range(n)]
        pairs = [(i, j, weight[i][j] / chance[i] / chance[j]) for i in range(n) for j in range(n)]
        excess = sum(
            w * ((relative[i] - relative[j]) ** 2 - (1 - shared) * (chance[i] + chance[j])) for i, j, w in pairs
        )
        spread = max(excess / 2 / sum(w for *_, w in pairs), 0)
        if turn < 2:
            for c in level:
                members = [i for i in range(n) if classes[i] == c]
                step = sum((relative[i] - expected[i]) / chance[i] for i in members)
                level[c] += step / sum(1 / chance[i] for i in members)
    noise = [spread + (1 - shared) * chance[i] for i in range(n)]
    of_others, size = size, [np.log(np.sqrt(1 + supposed[i] ** 2 / alike[i])) for i in range(n)]
    told_at_estimates = expected
    weight = likeness(size, of_others)
    sums = [sum(weight[i][j] / chance[j] for j in range(n)) for i in range(n)]
    expected = [sum(weight[i][j] / chance[j] * relative[j] for j in range(n)) / sums[i] for i in range(n)]
    moderated, total = [], []
    for i in range(n):
        rest = [j for j in range(n) if classes[j] == classes[i] and j != i]
        elsewhere = sum(weight[i][j] / chance[j] for j in range(n) if classes[j] != classes[i]) / sums[i]
        worth = sum(1 / chance[j] for j in rest)
        correction = sum((relative[j] - told_at_estimates[j]) / chance[j] for j in rest) / worth
        mean = expected[i] + power * rare[i] + slope * size[i] + level[classes[i]] + elsewhere * correction
        away = size[i] - sum(weight[i][j] / chance[j] * of_others[j] for j in range(n)) / sums[i]
        total_error = sum(weight[i][j] / chance[j] ** 2 * noise[j] for j in range(n)) / sums[i] ** 2
        total_error += elsewhere**2 * sum(noise[j] / chance[j] ** 2 for j in rest) / worth**2 + away**2 / information
        total_error += rare[i] ** 2 / known
        half = float(inverse_trigamma(np.array(spread + shared * chance[i] + total_error)))
        prior = np.exp(mean + digamma(half) - np.log(half))
        posterior = (df[i] * variance[i] + 2 * half * prior) / (df[i] + 2 * half)
        moderated.append(posterior**lowered * max(posterior, variance[i]) ** (1 - lowered))
        total.append(min(df[i] + 2 * half, sum(df)))
    return moderated, total


@pytest.mark.parametrize(("classes", "shared", "lowered"), [(1, 0.0, 0.85), (3, 0.0, 1.0), (4, 0.2, 0.75)])
def test_it_equals_the_method_written_programme_by_programme(classes, shared, lowered):
    study = draw(classes, classes)
    study["df"] = study["df"] + study["classes"] % 2
    like = LikeEffects(**study, shared=shared, lowered=lowered)
    for supposed in (study["estimate"], 0 * study["estimate"], 0.4 * study["estimate"]):
        by_hand = slow(**study, shared=shared, lowered=lowered, supposed=supposed)
        np.testing.assert_allclose(like.errors(supposed), by_hand, rtol=1e-9)


def test_noisy_scores_take_their_variance_from_noisy_scores():
    """Variances that are those of counting: programmes of rare genes have a larger prior."""
    rng = np.random.default_rng(12)
    counting = np.exp(rng.normal(0, 0.8, 120))
    variance = 0.1 * counting * rng.chisquare(2, 120) / 2
    classes, twos = np.repeat(np.arange(6), 20), np.full(120, 2.0)
    told = moderate_among_like_effects(np.zeros(120), variance, counting, twos, twos / 6, classes)
    untold = moderate_among_like_effects(np.zeros(120), variance, np.ones(120), twos, twos / 6, classes)
    error = [np.std(np.log(found / (0.1 * counting))) for found, _ in (told, untold)]
    assert error[0] < 0.75 * error[1]
    assert np.median(told[1]) > 1.25 * np.median(untold[1])


def test_variances_are_nearer_to_the_truth_and_raised_as_often_as_lowered():
    """True variances go with effects; moderated ones err less, on the logarithm, than the data's and than limma's."""
    own, moderated, limma = [], [], []
    for seed in range(40):
        study = draw(seed, classes=8, count=20, df=2)
        rng = np.random.default_rng(seed)
        label = study["classes"]
        noise = 0.02 * np.exp(rng.normal(0, 0.5, 8))[label]
        truth = np.where(np.arange(160) % 20 < 4, rng.uniform(0.3, 2, 160), 0)
        true = np.log(noise + (0.3 * truth) ** 2)
        own.append(np.log(study["variance"]) - true)
        moderated.append(np.log(moderate_among_like_effects(**study)[0]) - true)
        of_class = np.array([np.log(study["variance"][label == c]).mean() for c in range(8)])[label]
        limma.append(of_class - digamma(1) - true)
    assert np.std(moderated) < 0.6 * np.std(limma) < 0.6 * np.std(own)
    assert abs(np.mean(moderated)) < 0.1


def test_a_programme_whose_effect_is_like_no_other_keeps_its_own_variance():
    study = draw(6, classes=2)
    study["estimate"][:] = np.random.default_rng(6).normal(0, 0.05, 24)
    study["estimate"][0], study["variance"][0] = 40.0, 0.2
    moderated, total = moderate_among_like_effects(**study)
    assert (moderated[0], total[0]) == (0.2, 3)
    assert (moderated[1:] != study["variance"][1:]).all() and (total[1:] > 3).all()


def test_it_heeds_neither_sign_nor_order_nor_units():
    study = draw(7)
    plain = moderate_among_like_effects(**study)
    turned = moderate_among_like_effects(**study | {"estimate": -study["estimate"]})
    assert (plain[0] == turned[0]).all() and (plain[1] == turned[1]).all()
    order = np.random.default_rng(7).permutation(len(plain[0]))
    shuffled = moderate_among_like_effects(**{name: values[order] for name, values in study.items()})
    np.testing.assert_allclose(shuffled, [part[order] for part in plain])
    # the noise of one class in other units
    factor = np.where(study["classes"] == 1, 3.0, 1.0)
    scaled = study | {"estimate": study["estimate"] * factor, "variance": study["variance"] * factor**2}
    moderated, total = moderate_among_like_effects(**scaled)
    np.testing.assert_allclose(moderated, plain[0] * factor**2, rtol=1e-6)
    np.testing.assert_allclose(total, plain[1], rtol=1e-6)


@pytest.mark.parametrize("variance", [[], [1.0], [0.0, 0.0, 0.0], [0.0, 2.0, 0.0], [1.0, 2.0]])
def test_what_tells_nothing_changes_nothing(variance):
    """No other programme, no noise, or every class with one programme."""
    variance = np.array(variance)
    df = np.full(len(variance), 3.0)
    apart = np.arange(len(variance)) if len(variance) == 2 else np.zeros(len(variance), dtype=int)
    ones = np.ones(len(variance))
    moderated, total = moderate_among_like_effects(ones, variance, ones, df, df / 12, apart)
    np.testing.assert_array_equal(moderated, variance)
    np.testing.assert_array_equal(total, df)


def test_a_variance_of_zero_among_others_is_raised():
    moderated, total = moderate_among_like_effects(
        *(np.zeros(5), np.array([0.0, 1.0, 2.0, 0.5, 1.0]), np.ones(5)),
        *(np.full(5, 3.0), np.full(5, 0.25), np.zeros(5, dtype=int)),
    )
    assert moderated[0] > 0 and np.isfinite(total).all()


def test_correlation_of_residuals_is_told_from_chance():
    rng = np.random.default_rng(8)

    def residuals(correlation: float, df: int) -> list[tuple[np.ndarray, float]]:
        tables = []
        for _ in range(200):
            shared = np.sqrt(correlation) * rng.normal(size=(df + 1, 1))
            values = shared + np.sqrt(1 - correlation) * rng.normal(size=(df + 1, 20))
            tables.append((values - values.mean(axis=0), df))
        return tables

    for df in (2, 7):
        assert mean_squared_correlation(residuals(0.0, df)) < 0.03
        assert mean_squared_correlation(residuals(0.5, df)) == pytest.approx(0.25, abs=0.04)
    assert mean_squared_correlation(residuals(0.5, 1)) == 0
    one = rng.normal(size=(4, 1))
    assert mean_squared_correlation([(one - one.mean() + np.zeros(5), 3)]) == 0.95
    assert mean_squared_correlation([(np.zeros((4, 3)), 3)]) == 0
    assert mean_squared_correlation([]) == 0


def test_arms_with_a_variance_each_are_welchs_test():
    """A single programme has nobody to learn from."""
    rng = np.random.default_rng(9)
    scores, in_test = rng.normal(size=(8, 1)), np.arange(8) < 3
    scores[in_test] *= 4
    estimate = scores[in_test].mean(axis=0) - scores[~in_test].mean(axis=0)
    ((variance, df),) = moderated_errors([Effects(estimate, arm_noise(scores, np.ones_like(scores), in_test))])
    expected = stats.ttest_ind(scores[in_test], scores[~in_test], equal_var=False)
    np.testing.assert_allclose(estimate / np.sqrt(variance), expected.statistic)
    np.testing.assert_allclose(df, expected.df)
    ((variance, df),) = moderated_errors([Effects(np.zeros(1), arm_noise(np.ones((8, 1)), np.ones((8, 1)), in_test))])
    assert (variance[0], df[0]) == (0, 6)


def test_exchanged_arms_have_the_same_errors_to_the_last_bit():
    rng = np.random.default_rng(10)
    classes = [(rng.normal(size=(7, 9)), np.arange(7) < n) for n in (3, 4)]

    def errors(sign: int) -> list[tuple[np.ndarray, np.ndarray]]:
        found = []
        for scores, in_test in classes:
            effect = sign * (scores[in_test].mean(axis=0) - scores[~in_test].mean(axis=0))
            found.append(Effects(effect, arm_noise(scores, np.ones_like(scores), in_test if sign > 0 else ~in_test)))
        return moderated_errors(found)

    for one, other in zip(errors(1), errors(-1), strict=True):
        assert (one[0] == other[0]).all() and (one[1] == other[1]).all()


def test_kinds_of_noise_are_moderated_apart():
    """Paired and unpaired classes of a data set do not lend each other variances."""
    rng = np.random.default_rng(11)
    scores = rng.normal(size=(8, 6))
    arms = Effects(np.zeros(6), arm_noise(scores, np.ones_like(scores), np.arange(8) < 4))
    pairs = Effects(np.zeros(6), (Noise("pairs", scores[:4], scores[:4].var(axis=0, ddof=1), np.ones(6), 3.0, 0.25),))
    together = moderated_errors([pairs, arms])
    for one, (variance, df) in zip((pairs, arms), together, strict=True):
        ((alone, alone_df),) = moderated_errors([one])
        assert (variance == alone).all() and (df == alone_df).all()
    other = replace(pairs, noise=(replace(pairs.noise[0], variance=pairs.noise[0].variance * 9),))
    assert (moderated_errors([pairs, other])[0][0] != together[0][0]).all()


def test_each_of_two_variances_that_are_added_is_lowered_less():
    scores = np.random.default_rng(11).normal(size=(8, 6))
    ((found, _),) = moderated_errors([Effects(np.zeros(6), arm_noise(scores, np.ones_like(scores), np.arange(8) < 4))])

    def moderated(arm: np.ndarray, lowered: float) -> np.ndarray:
        shared = mean_squared_correlation([(arm - arm.mean(axis=0), 3.0)])
        told = (
            np.zeros(6),
            arm.var(axis=0, ddof=1),
            np.ones(6),
            np.full(6, 3.0),
            np.full(6, 0.5),
            np.zeros(6, dtype=int),
        )
        return moderate_among_like_effects(*told, shared, lowered)[0]

    arms = scores[:4], scores[4:]
    np.testing.assert_allclose(found, sum(moderated(arm, 0.75) for arm in arms) / 4)
    assert (found > sum(moderated(arm, 0.85) for arm in arms) / 4).any()


def test_constant_variances_give_the_usual_test_and_interval():
    values = np.random.default_rng(13).normal(0.5, 1, size=(5, 40))
    variance, df = values.var(axis=0, ddof=1) / 5, np.full(40, 4.0)
    found = infer(values.mean(axis=0), lambda effects: (variance, df), 0.9)
    expected = stats.ttest_1samp(values, 0)
    interval = expected.confidence_interval(0.9)
    np.testing.assert_allclose(found.p_value, expected.pvalue)
    np.testing.assert_allclose((found.low, found.high), (interval.low, interval.high))
    np.testing.assert_allclose(found.se, np.sqrt(variance))
    assert (found.df == 4).all()


def rising(effects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The error and the doubt about it rise with the effect: 0.1 and 30 degrees of freedom at zero, 0.5 and 3 at 1."""
    return (0.1 + 0.4 * np.abs(effects)) ** 2, 3 + 27 * np.exp(-10 * np.abs(effects))


def falling(effects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (0.3 - 0.2 * np.minimum(np.abs(effects), 1)) ** 2, np.full(len(effects), 8.0)


@pytest.mark.parametrize("errors", [rising, falling])
def test_an_interval_holds_zero_where_the_test_does_not_reject_and_only_there(errors):
    estimate = np.linspace(-3, 3, 1201)
    found = infer(estimate, errors, 0.95)
    null_variance, null_df = errors(np.zeros(len(estimate)))
    np.testing.assert_allclose(found.p_value, 2 * stats.t.sf(np.abs(estimate) / np.sqrt(null_variance), null_df))
    holds_zero = (found.low <= 0) & (found.high >= 0)
    np.testing.assert_array_equal(holds_zero, found.p_value >= 0.05)
    assert (found.low <= estimate).all() and (estimate <= found.high).all()
    np.testing.assert_allclose(found.low, -found.high[::-1], atol=1e-12)
    np.testing.assert_allclose(found.p_value, found.p_value[::-1])
    # the plain interval, where it agrees with the test
    half = stats.t.ppf(0.975, found.df) * found.se
    plain = (np.abs(estimate) > half) == (found.p_value < 0.05)
    assert 0.05 < plain.mean() < 1
    np.testing.assert_allclose(found.low[plain], (estimate - half)[plain])
    np.testing.assert_allclose(found.high[plain], (estimate + half)[plain])
    # away from zero always
    np.testing.assert_allclose(np.maximum(-found.low, found.high), np.abs(estimate) + half)


def test_past_zero_the_interval_ends_at_an_effect_that_is_on_the_verge_of_rejection():
    estimate = np.array([0.4, 0.9])
    found = infer(estimate, rising, 0.95)
    assert (estimate - stats.t.ppf(0.975, found.df) * found.se < 0).all() and (found.p_value < 0.05).all()
    variance, df = rising(found.low)
    np.testing.assert_allclose(estimate - found.low, stats.t.ppf(0.975, df) * np.sqrt(variance), rtol=1e-3)
    assert (found.low > 0).all()


def test_what_does_not_vary_has_no_width():
    found = infer(np.array([0.0, 1.0]), lambda effects: (np.zeros(2), np.full(2, 3.0)), 0.95)
    assert np.isnan(found.p_value[0]) and found.p_value[1] == 0
    np.testing.assert_array_equal((found.low, found.high), ([0, 1], [0, 1]))


def test_a_lone_effect_is_tested_by_the_variance_of_the_untouched_and_keeps_a_wide_interval():
    """Nobody tells how much donors differ in it; that it is none is told by all others."""
    rng = np.random.default_rng(14)
    scores = rng.normal(0, 0.1, (3, 30))
    scores[:, 0] += 0.3
    left = scores - scores.mean(axis=0)
    noise = Noise("pairs", left, scores.var(axis=0, ddof=1), np.ones(30), 2.0, 1 / 3)
    moderation = Moderation([Effects(scores.mean(axis=0), (noise,))])
    found = infer(moderation.estimate, moderation.errors, 0.95)
    assert found.p_value[0] < 0.001
    assert found.df[0] < 8 and moderation.errors(np.zeros(30))[1][0] > 15
    assert 0 < found.low[0] < 0.3 < 0.45 < found.high[0]
