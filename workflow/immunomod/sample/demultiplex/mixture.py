"""Hashtag calls by one mixture model over all tags of a lane.

Each tag's counts come from two distributions: what a droplet catches of free antibody (negative binomial), and what a
stained cell carries (log-normal). A droplet is negative, holds one tag, or two; the shares of these, of the tags among
the singlets, and all parameters are found together by expectation maximisation. That the number of tags in a droplet is
part of the model is what separates it from thresholds tag by tag: with two tags, half of all cells are above either
threshold, and a cell above both is rare all the same.

The background as a negative binomial and posterior probabilities follow demuxmix (Klein 2023, Bioinformatics
39:btad481, doi:10.1093/bioinformatics/btad481), the log-normal signal HashSolo (Bernstein et al. 2020, Cell Syst.
11:95, doi:10.1016/j.cels.2020.05.010).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import betainc, gammaln

Floats = NDArray[np.float64]

MOST_ROUNDS = 200
#: Rounds end where no droplet's probability of carrying a tag changes by more.
_TOLERANCE = 0.005
#: A tag's parameters begin at those of all tags, with the weight of so many cells: a tag that few cells carry has a
#: signal like the others', and one that none carries cannot make a signal of its background.
_PRIOR_CELLS = 5.0
_PRIOR_SIZE, _PRIOR_SPREAD = 3.0, 0.7
_SIZES, _SPREADS = (0.3, 200.0), (0.2, 1.5)
_LEAST_BACKGROUND = 0.02
#: The background is fitted to so much of its counts, and to counts up to this in any case.
_BULK, _LEAST_LAST = 0.97, 3.0
#: A cell is first taken to carry its highest tag where that lies so far above the tag's background.
_FIRST_FOLD = 2.5
#: The median signal is at least so many times the background (and a count more).
_LEAST_FOLD = 2.0
#: Log ratios end here: a tag that is certain must not make its neighbour's ratio vanish beside it in exponents.
_SURE = 100.0
_FEW_CELLS, _FEW_SHARE = 3.0, 0.002
_PRIOR_SHARE = 0.05
_PRIOR_DROPLETS = 20.0


@dataclass(frozen=True)
class MixtureFit:
    """Posterior probabilities of each droplet, and what was estimated.

    ``negative``, ``doublet`` (droplets,); ``singlet`` (droplets, tags): the droplet holds this tag alone. The three sum
    to 1. ``background`` and ``signal`` (tags,): mean background and median signal, in counts. ``share`` (tags,): of the
    singlets.
    """

    negative: Floats
    singlet: Floats
    doublet: Floats
    background: Floats
    signal: Floats
    share: Floats


@dataclass(frozen=True)
class _Tag:
    """A tag's distinct counts, their logs, and which of them each droplet has."""

    values: Floats
    logs: Floats
    inverse: NDArray[np.intp]

    def weights(self, carried: Floats) -> Floats:
        """Weight of each distinct count."""
        return np.bincount(self.inverse, weights=carried, minlength=len(self.values)).astype(np.float64)


def fit_mixture(counts: NDArray[np.integer]) -> MixtureFit:
    """Fit the mixture to one lane.

    Parameters
    ----------
    counts
        Droplets x tags, one of each at least, no tag without a count.
    """
    n, n_tags = counts.shape
    tags = []
    for column in counts.T:
        values, inverse = np.unique(column, return_inverse=True)
        tags.append(_Tag(values.astype(np.float64), np.log1p(values), inverse))
    logs = np.log1p(counts)
    carried = _first_guess(tags, logs)
    share = np.full(n_tags, 1 / n_tags)
    negative, doublet = _PRIOR_SHARE, _PRIOR_SHARE if n_tags > 1 else 0.0
    for _ in range(MOST_ROUNDS):
        ratios, background, signal = _log_ratios(tags, logs, carried)
        fit = _posterior(ratios, share, negative, doublet, background, signal)
        before, carried = carried, fit.singlet + _in_doublets(ratios, share, fit.doublet)
        share = fit.singlet.sum(axis=0) + 0.5
        share /= share.sum()
        negative = (fit.negative.sum() + 1) / (n + _PRIOR_DROPLETS)
        doublet = (fit.doublet.sum() + 1) / (n + _PRIOR_DROPLETS) if n_tags > 1 else 0.0
        if np.abs(carried - before).max() < _TOLERANCE:
            break
    return fit


def _first_guess(tags: list[_Tag], logs: Floats) -> Floats:
    """One tag for each droplet in which its highest one stands out, measured from each tag's background."""
    background = np.array([_lower_mean(tag, column) for tag, column in zip(tags, logs.T, strict=True)])
    above = logs - background
    top = above.argmax(axis=1)
    rows = np.arange(len(logs))
    carried = np.zeros_like(logs)
    carried[rows, top] = above[rows, top] > np.log(_FIRST_FOLD)
    return carried


def _lower_mean(tag: _Tag, logs: Floats) -> float:
    """Mean of the lower of two groups: the split of log counts with the largest variance between (two means, exactly).

    All droplets are the lower group where they have one count.
    """
    if len(tag.values) < 2:
        return float(tag.logs[0])
    number = np.bincount(tag.inverse).astype(np.float64)
    below, sums = np.cumsum(number)[:-1], np.cumsum(number * tag.logs)[:-1]
    n, total = number.sum(), float(number @ tag.logs)
    between = below * (n - below) * (sums / below - (total - sums) / (n - below)) ** 2
    cut = int(between.argmax())
    return float(sums[cut] / below[cut])


def _log_ratios(tags: list[_Tag], logs: Floats, carried: Floats) -> tuple[Floats, Floats, Floats]:
    """For each droplet and tag the log of signal over background density; mean background and median signal of a tag.

    The ratio never falls as counts rise above the background's mean, and a count below it speaks no more for a signal
    than the mean does: where the tails of the two distributions cross again, they say nothing about cells.
    """
    n = carried.sum(axis=0)
    sums = np.einsum("ij,ij->j", carried, logs)
    told = n >= max(_FEW_CELLS, _FEW_SHARE * len(logs))
    if told.any():
        common = float(sums[told].sum() / n[told].sum())
        centred = logs[:, told] - sums[told] / n[told]
        squares = float(np.einsum("ij,ij,ij->", carried[:, told], centred, centred))
        spread = np.sqrt((squares + 2 * _PRIOR_SPREAD**2) / (n[told].sum() + 2))
    else:
        common, spread = float(np.log1p(4 * np.expm1(logs).mean() + 5)), _PRIOR_SPREAD
    ratios, background, signal = np.empty_like(logs), np.empty(len(tags)), np.empty(len(tags))
    for j, tag in enumerate(tags):
        with_tag, without = tag.weights(carried[:, j]), tag.weights(1 - carried[:, j])
        mean, size = _negative_binomial(tag.values, without)
        centre = (with_tag @ tag.logs + _PRIOR_CELLS * common) / (with_tag.sum() + _PRIOR_CELLS)
        centre = max(centre, float(np.log1p(_LEAST_FOLD * mean + 1)))
        variance = with_tag @ (tag.logs - centre) ** 2 + _PRIOR_CELLS * spread**2
        width = float(np.clip(np.sqrt(variance / (with_tag.sum() + _PRIOR_CELLS)), *_SPREADS))
        log_signal = -0.5 * ((tag.logs - centre) / width) ** 2 - np.log(width * np.sqrt(2 * np.pi)) - tag.logs
        ratio = log_signal - _log_negative_binomial(tag.values, mean, size)
        at = min(int(np.searchsorted(tag.values, mean)), len(ratio) - 1)
        ratio[:at] = np.minimum(ratio[:at], ratio[at])
        ratio[at:] = np.maximum.accumulate(ratio[at:])
        ratios[:, j] = np.clip(ratio, -_SURE, _SURE)[tag.inverse]
        background[j], signal[j] = mean, np.expm1(centre)
    return ratios, background, signal


def _negative_binomial(values: Floats, weights: Floats) -> tuple[float, float]:
    """Mean and size of weighted counts, the most likely given a prior on the log of the size.

    The distribution is fitted to the lower nine tenths of the counts, truncated there: a doublet that is still taken
    for background would else widen it until it explains every doublet.
    """
    within = np.cumsum(weights) <= _BULK * weights.sum()
    last = max(float(values[within][-1]) if within.any() else 0.0, _LEAST_LAST)
    values, weights = values[values <= last], weights[values <= last]
    n = float(weights.sum())
    start = max(float(weights @ values) / max(n, 1e-12), _LEAST_BACKGROUND)

    def cost(at: Floats) -> float:
        mean, size = float(np.exp(at[0])), float(np.exp(at[1]))
        likelihood = weights @ _log_negative_binomial(values, mean, size)
        likelihood -= n * np.log(max(betainc(size, last + 1, size / (size + mean)), 1e-300))
        return float(0.5 * _PRIOR_CELLS * (at[1] - np.log(_PRIOR_SIZE)) ** 2 - likelihood)

    bounds = [(np.log(_LEAST_BACKGROUND), np.log(2 * last)), np.log(_SIZES)]
    found = minimize(
        cost,
        np.array([np.log(start), np.log(_PRIOR_SIZE)]),
        method="Nelder-Mead",
        bounds=bounds,
        options={"xatol": 0.005, "fatol": 0.01},
    )
    return float(np.exp(found.x[0])), float(np.exp(found.x[1]))


def _log_negative_binomial(values: Floats, mean: float, size: float) -> Floats:
    density: Floats = gammaln(values + size) - gammaln(size) - gammaln(values + 1)
    density += size * np.log(size / (size + mean)) + values * np.log(mean / (size + mean))
    return density


def _scaled(ratios: Floats, share: Floats) -> tuple[Floats, Floats]:
    """Likelihood of each tag times its share, relative to the droplet's highest; and the log of that."""
    weighted = ratios + np.log(share)
    highest = weighted.max(axis=1, keepdims=True)
    return np.exp(weighted - highest), highest[:, 0]


def _others(scaled: Floats) -> Floats:
    """For each tag the sum over the others. Sums from either side: a difference would lose what is small."""
    ahead = np.cumsum(scaled, axis=1)
    behind = np.cumsum(scaled[:, ::-1], axis=1)[:, ::-1]
    others = np.zeros_like(scaled)
    others[:, 1:] += ahead[:, :-1]
    others[:, :-1] += behind[:, 1:]
    return others


def _pairs(scaled: Floats) -> Floats:
    """Sum over all pairs of tags of the product."""
    pairs: Floats = 0.5 * (scaled * _others(scaled)).sum(axis=-1)
    return pairs


def _posterior(
    ratios: Floats, share: Floats, negative: float, doublet: float, background: Floats, signal: Floats
) -> MixtureFit:
    """Probabilities of a droplet's states.

    Two cells meet at random, so a pair's share among the doublets is the product of its tags' shares, scaled.
    """
    scaled, highest = _scaled(ratios, share)
    singlets = np.log(1 - negative - doublet) + highest
    with np.errstate(divide="ignore"):
        pairs = np.log(_pairs(scaled)) + 2 * highest
        pairs += np.log(doublet) - np.log(_pairs(share[None])[0]) if len(share) > 1 else 0.0
        one = np.log(scaled.sum(axis=1)) + singlets
    none = np.full(len(ratios), np.log(negative))
    parts = np.stack([none, one, pairs])
    top = parts.max(axis=0)
    total = np.log(np.exp(parts - top).sum(axis=0)) + top
    with_one = scaled * (np.exp(one - total) / scaled.sum(axis=1))[:, None]
    return MixtureFit(np.exp(none - total), with_one, np.exp(pairs - total), background, signal, share)


def _in_doublets(ratios: Floats, share: Floats, doublet: Floats) -> Floats:
    """Probability that a droplet is a doublet in which each tag has a part."""
    scaled, _ = _scaled(ratios, share)
    parts = scaled * _others(scaled)
    total = np.maximum(_pairs(scaled), np.finfo(float).tiny)
    in_doublets: Floats = parts / total[:, None] * doublet[:, None]
    return in_doublets
