"""Variances of programme effects, steadied by those of effects of like size in all cell classes of a data set.

With three donors a variance has two degrees of freedom; twenty programmes in eight classes have 320 between them. limma
treats the variances of one class as draws of one distribution. Programmes differ in kind: where a condition acts,
donors respond to different degrees, and the variance of the paired differences grows with the effect, while the many
programmes that nothing touches have small ones. Moderation among all of them lends that smallness to the programmes
with an effect, whose intervals then miss, and their largeness to the others, which are rejected too seldom. One class
does not tell how variances go with effects; all classes together do.

That there is no effect is another question than how large it is. The first is asked of the variance that an untouched
programme has, which many tell; the second of that of programmes with such an effect, which few or none may tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from immunomod.contrast.model import inverse_trigamma
from immunomod.contrast.normalise import Floats

#: Standard errors within which effects are of like size, whatever made them.
NEAR_ZERO = 3.0
#: Effects that differ in size by this factor or more tell nothing of each other's variance.
LIKE_WITHIN = 2.0
#: How far a variance may be lowered, as a share of the way on the logarithm; and each of two that are added.
LOWERED, LOWERED_OF_TWO = 0.85, 0.75
#: What is known beforehand of the power of the counting variance that variances go with, and its standard error.
POWER, POWER_ERROR = 0.5, 0.3
#: The same of the power of the effects' size: nothing but that it may be large.
SIZE_POWER, SIZE_POWER_ERROR = 0.0, 2.0
#: The largest squared correlation of two programmes that is believed.
MOST_CORRELATED = 0.95
#: Rounds in which the classes' levels and the relation of variances to effects are fitted in turn.
ROUNDS = 3
#: Of the way from zero to the estimate, to find an interval's end.
HALVINGS = 16


@dataclass(frozen=True)
class Noise:
    """What the variance of a class's effects comes from: all of it, or the part of one arm.

    Attributes
    ----------
    kind
        What varies: noise of one kind is moderated together.
    residual
        Units x programmes.
    variance
        Per programme.
    counting
        What of the variance is expected from counting molecules, per programme (any unit).
    df
        Degrees of freedom of each variance.
    share
        The part is ``share`` times ``variance``.
    """

    kind: str
    residual: Floats
    variance: Floats
    counting: Floats
    df: float
    share: float


@dataclass(frozen=True)
class Effects:
    """The ``estimate`` of each programme in a class, and its noise: independent parts whose variances add."""

    estimate: Floats
    noise: tuple[Noise, ...]


def arm_noise(scores: Floats, counting: Floats, in_test: NDArray[np.bool_]) -> tuple[Noise, ...]:
    """The noise of the difference of two independent groups' means, a variance for each group.

    Donors who respond to different degrees vary more in the arm that is treated. One variance for both arms hides that
    from the moderation, and is wrong where arms differ in size (Welch 1947).

    ``scores`` and ``counting`` (their variances from counting molecules) are units x programmes; either group has two
    units or more.
    """
    parts = []
    for kind, group in (("test", in_test), ("reference", ~in_test)):
        residual, df = scores[group] - scores[group].mean(axis=0), float(group.sum() - 1)
        variance, share = (residual**2).sum(axis=0) / df, 1 / float(group.sum())
        parts.append(Noise(kind, residual, variance, counting[group].mean(axis=0), df, share))
    return tuple(parts)


class Moderation:
    """Variances of the effects of all classes of a data set, moderated together.

    Effects are those of all classes, end to end. The degrees of freedom of a sum of variances are Satterthwaite's
    (1946).
    """

    def __init__(self, classes: Sequence[Effects]) -> None:
        """``classes`` has one or more."""
        self._parts: list[tuple[NDArray[np.intp], Floats, LikeEffects]] = []
        ends = np.cumsum([0, *(len(one.estimate) for one in classes)])
        self.estimate = np.concatenate([one.estimate for one in classes])
        self._most = np.repeat([sum(noise.df for noise in one.noise) for one in classes], np.diff(ends)).astype(float)
        for kind in sorted({noise.kind for one in classes for noise in one.noise}):
            found = [(at, noise) for at, one in enumerate(classes) for noise in one.noise if noise.kind == kind]
            sizes = [len(noise.variance) for _, noise in found]
            rows = np.concatenate([np.arange(ends[at], ends[at + 1]) for at, _ in found])
            like = LikeEffects(
                self.estimate[rows],
                np.concatenate([noise.variance for _, noise in found]),
                np.concatenate([noise.counting for _, noise in found]),
                np.repeat([noise.df for _, noise in found], sizes),
                np.repeat([sum(noise.share for noise in classes[at].noise) for at, _ in found], sizes),
                np.repeat(np.arange(len(found)), sizes),
                mean_squared_correlation([(noise.residual, noise.df) for _, noise in found]),
                LOWERED if all(len(classes[at].noise) == 1 for at, _ in found) else LOWERED_OF_TWO,
            )
            self._parts.append((rows, np.repeat([noise.share for _, noise in found], sizes), like))

    def errors(self, effects: Floats) -> tuple[Floats, Floats]:
        """Variances of the estimates, were the true effects these, and their degrees of freedom."""
        total, squares = np.zeros(len(effects)), np.zeros(len(effects))
        for rows, share, like in self._parts:
            variance, df = like.errors(effects[rows])
            total[rows] += share * variance
            squares[rows] += (share * variance) ** 2 / df
        return total, np.divide(total**2, squares, out=self._most.copy(), where=squares > 0)


class Inference(NamedTuple):
    """Per effect: standard error and its degrees of freedom, p-value of no effect, confidence interval."""

    se: Floats
    df: Floats
    p_value: Floats
    low: Floats
    high: Floats


def infer(estimate: Floats, errors: Callable[[Floats], tuple[Floats, Floats]], confidence: float) -> Inference:
    """Tests and intervals from variances that go with the size of the true effect.

    The test of no effect takes the variance that the estimate has if there is none, that of untouched programmes, as a
    score test does. The interval takes that of effects as large as the estimate, as Wald's does: ``estimate`` and
    ``se`` with ``df`` give it. Where the two disagree on zero the test is right about zero. Where it rejects, the
    interval ends at an effect that is not rejected with the variance of its own size; where it does not, the interval
    reaches as far as the test's variance takes it.

    Parameters
    ----------
    estimate
        One per effect.
    errors
        From supposed true effects, one per estimate: the estimates' variances and their degrees of freedom.
    confidence
        Of the intervals, 0 to 1.
    """
    size, sign = np.abs(estimate), np.where(estimate < 0, -1.0, 1.0)

    def margin(variance: Floats, df: Floats) -> Floats:
        return np.asarray(stats.t.ppf((1 + confidence) / 2, df) * np.sqrt(variance))

    variance, df = errors(estimate)
    null_variance, null_df = errors(0 * estimate)
    with np.errstate(divide="ignore", invalid="ignore"):
        p_value = 2 * stats.t.sf(size / np.sqrt(null_variance), null_df)
    half_width, from_zero = margin(variance, df), size - margin(null_variance, null_df)
    near = size - half_width
    near = np.where((from_zero <= 0) & (near > 0), from_zero, near)
    disagree = (from_zero > 0) & (near <= 0)
    if disagree.any():
        rejected, held = np.zeros(len(size)), np.ones(len(size))
        for _ in range(HALVINGS):
            middle = (rejected + held) / 2
            out = (1 - middle) * size > margin(*errors(middle * estimate))
            rejected, held = np.where(out, middle, rejected), np.where(out, held, middle)
        near = np.where(disagree, held * size, near)
    low, high = np.sort([sign * near, sign * (size + half_width)], axis=0)
    return Inference(np.sqrt(variance), df, p_value, low, high)


class LikeEffects:
    """Residual variances of programmes, each with a prior of its own from effects of like size.

    A class has a level of variance (its cells and donors decide on the noise). Around it variances go with what
    counting molecules adds to each programme, since few genes, or rare ones, make a noisy score, and with the size of
    effects; both alike in all classes. The first is limma-trend's idea (Law et al. 2014): variances are divided by a
    power, between 0 and 1, of the expected ones. It is fitted to the logarithms, with 0.5 and a standard error of 0.3
    as prior knowledge. For an effect of z standard errors by that level, the size is sqrt(1 + (z / c)^2),
    so that all effects that noise could make are alike; c is 3 times what e is to the power of the logarithms' spread
    (a standard deviation, below), since noisy programmes make larger ones. A programme's prior is made of the others:
    their logarithms of variance, less the level of their class, weighed by the tricube (1 - x^3)^3 of the distance of
    the effects, x = abs(log2(a / b)) for sizes a and b and 0 beyond x = 1, and by their degrees of freedom. By how much
    variances rise with the size is cleared from them first and added again, lest a large effect take its variance from
    the smaller ones around it: another power, fitted as the first one is, with 0 and a standard error of 2 as prior
    knowledge, and never below 0. From there on it is limma's prior (Smyth 2004, section 6.2: moments of the logarithm
    of variances) and limma's posterior, but for three things:

    - the spread of the logarithms is that between programmes of like effects;
    - to it are added the errors of the prior itself: of the weighted mean, of the powers, and of the level of the class
      where the mean is of other classes. A prior made of few programmes weighs little, and a programme whose effect is
      like no other has none. Where the programmes of a class have correlated residuals (they share genes, and donors
      have their days), their variances err together: by the mean squared correlation of two programmes, ``shared``, of
      the variance that the logarithm of one variance has;
    - a variance is lowered by ``lowered`` of the way only, on the logarithm. Variances have longer tails than limma's
      prior; and few changed programmes of three unpaired donors a side are not far enough from the others, with whose
      smaller variances their intervals would be too narrow.

    ``benchmarks/calibration`` measures it (experiment "moderation"), and ``benchmarks/demo_recovery.py`` on whole
    studies; docs/statistics.md has the tables.

    Parameters
    ----------
    estimate, variance, df
        Effects, residual variances and their degrees of freedom (1 or more), one per programme and class.
    counting
        What of each variance is expected from counting molecules; any unit, above 0.
    unscaled
        Variance of each effect per unit of variance.
    classes
        The class of each.
    shared
        :func:`mean_squared_correlation` of the residuals of two programmes of a class.
    lowered
        Share of the way, 0 to 1.
    """

    def __init__(
        self,
        estimate: Floats,
        variance: Floats,
        counting: Floats,
        df: Floats,
        unscaled: Floats,
        classes: NDArray[np.intp],
        shared: float = 0.0,
        lowered: float = LOWERED,
    ) -> None:
        self._variance, self._df = variance, df.astype(np.float64)
        usable = _with_noise(variance, classes)
        self._usable = usable
        if not usable.any():
            return
        self._shared, self._lowered = shared, lowered
        estimate, variance, counting, df, unscaled = (
            values[usable] for values in (estimate, variance, counting, df, unscaled)
        )
        classes = np.unique(classes[usable], return_inverse=True)[1]
        member = (classes[:, None] == np.arange(classes.max() + 1)).astype(np.float64)
        typical = np.array([np.median(variance[column > 0]) for column in member.T])
        # the logarithm of a sample variance is off by a known mean, and varies by chance
        logarithm = np.log(np.maximum(variance, 1e-5 * typical[classes])) - special.digamma(df / 2) + np.log(df / 2)
        chance = special.polygamma(1, df / 2)
        own_chance = (1 - self._shared) * chance
        worth = 1 / chance
        centre = member.T / (member.T @ worth)[:, None]
        excess_counting = np.log(counting) - member @ (centre @ (worth * np.log(counting)))

        spread = slope = 0.0
        size = np.zeros(len(variance))
        level, step = np.log(typical), np.zeros(len(typical))
        for _ in range(ROUNDS):
            level = level + step
            scatter = 1 - self._shared + spread * float(worth.mean())
            from_counting = worth * excess_counting
            power, power_variance = _coefficient(
                from_counting, excess_counting, logarithm - slope * size, scatter, POWER, POWER_ERROR
            )
            by_counting = float(np.clip(power, 0, 1)) * excess_counting
            near_zero = NEAR_ZERO * np.exp(np.sqrt(spread))
            alike = near_zero**2 * np.exp(level[classes] + by_counting) * unscaled
            size = _size(estimate, alike)
            weight = _likeness(size, size)
            others = weight @ worth
            known = others > 0
            from_mean = worth * (size - member @ (centre @ (worth * size)))
            slope, slope_variance = _coefficient(
                from_mean, size, logarithm - by_counting, scatter, SIZE_POWER, SIZE_POWER_ERROR
            )
            slope = max(slope, 0.0)
            relative = logarithm - level[classes] - by_counting - slope * size
            expected = np.divide(weight @ (worth * relative), others, out=np.zeros_like(others), where=known)
            if known.any():
                pair = weight * np.outer(worth, worth)
                excess = (relative[:, None] - relative) ** 2 - own_chance[:, None] - own_chance
                spread = max(float((pair * excess).sum() / (2 * pair.sum())), 0.0)
            told = worth * known
            left = told * (relative - expected)
            step = member.T @ left / np.maximum(member.T @ told, 1e-300)
        self._same, self._told, self._left = member @ member.T, told, left
        self._alike, self._of_others, self._relative, self._worth = alike, size, relative, worth
        self._spread, self._chance = spread, chance
        self._level, self._slope = level[classes] + by_counting, slope
        self._error, self._slope_variance = excess_counting**2 * power_variance, slope_variance

    def errors(self, effects: Floats) -> tuple[Floats, Floats]:
        """The variances and their degrees of freedom, were the true effects these.

        As they were given where nothing can be learned (no variance above zero in the class, or no other of a like
        effect); never with more degrees of freedom than those of all pooled.
        """
        moderated, total = self._variance.copy(), self._df.copy()
        if self._usable.any():
            moderated[self._usable], total[self._usable] = self._posterior(effects[self._usable])
        return moderated, total

    def _posterior(self, effects: Floats) -> tuple[Floats, Floats]:
        variance, df = self._variance[self._usable], self._df[self._usable]
        worth, same, told = self._worth, self._same, self._told
        own_chance = (1 - self._shared) * self._chance
        size = _size(effects, self._alike)
        weight = _likeness(size, self._of_others)
        others = weight @ worth
        known = others > 0
        # the class's programmes speak by themselves, those of other classes by its level, which its others tell
        share = np.divide((weight * same) @ worth, others, out=np.zeros_like(others), where=known)
        elsewhere = np.where(share < 1 - 1e-9, 1 - share, 0.0)
        rest = same @ told - told
        known &= (rest > 0) | (elsewhere == 0)
        if not known.any():
            return variance, df
        rest = np.where(rest > 0, rest, 1.0)
        expected = np.divide(weight @ (worth * self._relative), others, out=np.zeros_like(others), where=known)
        of_level = (same @ self._left - self._left) / rest
        mean = expected + self._level + self._slope * size + elsewhere * of_level

        noise = self._spread + own_chance
        error = np.divide(weight @ (worth**2 * noise), others**2, out=np.zeros_like(others), where=known)
        error += elsewhere**2 * (same @ (told**2 * noise) - told**2 * noise) / rest**2
        away = size - np.divide(weight @ (worth * self._of_others), others, out=size.copy(), where=known)
        error += away**2 * self._slope_variance + self._error
        half = inverse_trigamma((self._spread + self._shared * self._chance + error)[known])

        prior = np.exp(mean[known] + special.digamma(half) - np.log(half))
        moderated, total = variance.copy(), df.copy()
        posterior = (df[known] * variance[known] + 2 * half * prior) / (df[known] + 2 * half)
        moderated[known] = posterior**self._lowered * np.maximum(posterior, variance[known]) ** (1 - self._lowered)
        total[known] = np.minimum(df[known] + 2 * half, df.sum())
        return moderated, total


def _with_noise(variance: Floats, classes: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Programmes of the classes with two or more variances, most of them above zero."""
    usable = np.zeros(len(variance), dtype=bool)
    for one in np.unique(classes):
        members = classes == one
        usable[members] = members.sum() > 1 and np.median(variance[members]) > 0
    return usable


def _coefficient(
    from_mean: Floats, values: Floats, logarithm: Floats, scatter: float, expected: float, error: float
) -> tuple[float, float]:
    """Coefficient of the logarithms of variance over ``values``, and its variance: least squares and prior knowledge.

    ``from_mean`` is the distance of each value from its class's mean, times its weight; ``scatter`` the variance of a
    logarithm in units of one by weight, ``expected`` and ``error`` what is known beforehand and its standard error.
    """
    information, before = float(from_mean @ values) / scatter, 1 / error**2
    value = (float(from_mean @ logarithm) / scatter + before * expected) / (information + before)
    return value, 1 / (information + before)


def _size(effects: Floats, alike: Floats) -> Floats:
    """Logarithms of the effects' sizes; ``alike`` are the squares of the largest effects that noise could make."""
    return np.asarray(0.5 * np.log1p(effects**2 / alike))


def _likeness(size: Floats, of_others: Floats) -> Floats:
    """Weights of all programmes in the priors of each, by the logarithms of their effects' sizes; 0 on the diagonal."""
    distance = np.abs(size[:, None] - of_others) / np.log(LIKE_WITHIN)
    weight = np.clip(1 - distance**3, 0, None) ** 3
    np.fill_diagonal(weight, 0)
    return np.asarray(weight)


def mean_squared_correlation(residuals: Sequence[tuple[Floats, float]]) -> float:
    """Squared correlation of two programmes of a class, by their residuals: 0 to below 1.

    That which, were it the same for all pairs, would give the mean squared correlation of residuals that is found: few
    degrees of freedom add to it by chance, and take from it where it is high. It is the correlation of two variances,
    too (normal residuals).

    Parameters
    ----------
    residuals
        Per class: residuals (units x programmes) and their degrees of freedom. With one degree of freedom, or fewer
        than two programmes that vary, a class says nothing.
    """
    found = []
    for residual, df in residuals:
        length = np.sqrt((residual**2).sum(axis=0))
        unit = residual[:, length > 0] / length[length > 0]
        count = unit.shape[1]
        if df >= 2 and count >= 2:
            mean = (((unit.T @ unit) ** 2).sum() - count) / (count * (count - 1))
            found.append((count, df, mean))

    def excess(squared: float) -> float:
        return float(sum(count * (mean - _expected_squared_correlation(squared, df)) for count, df, mean in found))

    if excess(0.0) <= 0:
        return 0.0
    return float(optimize.brentq(excess, 0.0, MOST_CORRELATED)) if excess(MOST_CORRELATED) < 0 else MOST_CORRELATED


def _expected_squared_correlation(squared: float, df: float) -> float:
    """Mean of a sample's squared correlation, for a true one (e.g. Anderson 2003, section 4.2)."""
    series = float(special.hyp2f1(1, 1, df / 2 + 1, squared))
    return 1 - (df - 1) / df * (1 - squared) * series
