"""The test of Lun et al. 2019 (doi:10.1186/s13059-019-1662-y): does a droplet's profile differ from the ambient one?

The packages ``emptydrops`` (last release 2020) and ``cell-filter`` (0.1) follow Cell Ranger's variant, which tests only
droplets in a band of totals; the method of the paper is short enough to stand here and be held against DropletUtils.

The sums that the ambient model needs are kept as counts of counts: in how many empty droplets a gene has more than 0,
more than 1, ... counts. As log Gamma(a + x) - log Gamma(a) is the sum of log(a + j) over j < x, the likelihood of any
``alpha`` follows from a table of genes x counts, whatever the number of droplets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from immunomod.sample.sums import detected_genes

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_BLOCK_ENTRIES = 1 << 22
_BLOCK_UNIFORMS = 1 << 20
_LOG_ALPHA_RANGE = (np.log(0.01), np.log(1e6))
#: Overdispersion must raise the log-likelihood by this much (half of chi-squared's 95% point) to be believed: p-values
#: from too small an ``alpha`` are too small where the counts are multinomial.
_OVERDISPERSION_GAIN = 1.92
#: Confidence factor by which Gale & Sampson's estimator switches from counts of counts to their smoothed values.
_GOOD_TURING_CONFIDENCE = 1.96
#: More draws than asked for are made where they can decide, up to this many times as many.
_MOST_TIMES_ITERATIONS = 10


def good_turing(counts: Ints) -> Floats:
    """Shares of species from their counts by simple Good-Turing (Gale & Sampson 1995, doi:10.1080/09296179508590051).

    Unseen species share the probability of the unseen, which the number of singletons estimates, equally. Where there
    is no singleton, they share one molecule's worth, so that every share is positive.

    Parameters
    ----------
    counts
        (species,) at least one above 0.

    Returns
    -------
    (species,) positive, sum 1.
    """
    frequencies, place, n_species = np.unique(counts, return_inverse=True, return_counts=True)
    n_unseen = 0
    if frequencies[0] == 0:
        n_unseen = int(n_species[0])
        frequencies, n_species, place = frequencies[1:], n_species[1:], place - 1
    r, n = frequencies.astype(np.float64), n_species.astype(np.float64)
    total = float(r @ n)
    unseen = n[0] / total if r[0] == 1 else 0.0
    if unseen == 1:  # nothing but singletons, which leave nothing for the seen: Laplace's rule
        return np.asarray((counts + 1.0) / (total + len(counts)))
    below = np.concatenate([[0.0], r[:-1]])
    above = np.concatenate([r[1:], [2 * r[-1] - below[-1]]])
    density = np.log(2 * n / (above - below))
    log_r = np.log(r)
    spread = log_r - log_r.mean()
    slope = float(spread @ density / (spread @ spread)) if len(r) > 1 else -1.0
    smoothed: Floats = r * (1 + 1 / r) ** (1 + slope)
    raw = (r[:-1] + 1) * n[1:] / n[:-1]
    error = (r[:-1] + 1) / n[:-1] * np.sqrt(n[1:] * (1 + n[1:] / n[:-1]))
    is_smooth = (np.diff(r) != 1) | (np.abs(raw - smoothed[:-1]) <= _GOOD_TURING_CONFIDENCE * error)
    first_smooth = int(np.argmax(is_smooth)) if is_smooth.any() else len(r) - 1
    adjusted = np.concatenate([raw[:first_smooth], smoothed[first_smooth:]])
    seen = (1 - unseen) * adjusted / float(adjusted @ n)
    shares: Floats = np.where(counts > 0, seen[place], unseen / max(n_unseen, 1))
    if n_unseen == 0:
        shares /= shares.sum()
    elif unseen == 0:
        shares = np.where(counts > 0, shares * (1 - 1 / total), 1 / total / n_unseen)
    return shares


@dataclass(frozen=True)
class AmbientModel:
    """What empty droplets hold.

    Attributes
    ----------
    counts
        (genes,) sum over the empty droplets.
    shares
        (genes,) by Good-Turing; positive for every gene that the library has a count of, else 0.
    alpha
        Of the Dirichlet-multinomial: the smaller, the more droplets differ. Infinite for the multinomial.
    """

    counts: Ints
    shares: Floats
    alpha: float


def _entries(counts: sparse.csr_matrix, rows: NDArray[np.bool_]) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Entries of some rows in blocks: row (counted among the chosen), column and value."""
    pointers = counts.indptr.astype(np.int64)
    number = np.cumsum(rows) - 1
    begin = 0
    while begin < len(rows):
        end = max(begin + 1, int(np.searchsorted(pointers, pointers[begin] + _BLOCK_ENTRIES, side="right")) - 1)
        if rows[begin:end].any():
            lengths = np.diff(pointers[begin : end + 1])
            chosen = np.repeat(rows[begin:end], lengths)
            piece = slice(pointers[begin], pointers[end])
            yield (
                np.repeat(number[begin:end], np.where(rows[begin:end], lengths, 0)),
                counts.indices[piece][chosen],
                counts.data[piece][chosen],
            )
        begin = end


def counts_of_counts(counts: sparse.csr_matrix, rows: NDArray[np.bool_]) -> NDArray[np.int64]:
    """In how many of some rows a column has more than 0, more than 1, ... counts: levels x columns.

    Its sum over levels is each column's sum of counts.
    """
    levels: list[Ints] = []
    for _, columns, values in _entries(counts, rows):
        level = 0
        while len(values):
            if level == len(levels):
                levels.append(np.zeros(counts.shape[1], dtype=np.int64))
            levels[level] += np.bincount(columns, minlength=counts.shape[1])
            level += 1
            more = values > level
            columns, values = columns[more], values[more]
    return np.array(levels, dtype=np.int64).reshape(-1, counts.shape[1])


def estimate_alpha(gene_levels: Ints, totals: Ints, shares: Floats) -> float:
    """Maximum-likelihood ``alpha`` of the Dirichlet-multinomial; infinite unless overdispersion fits clearly better.

    Parameters
    ----------
    gene_levels
        :func:`counts_of_counts` of the droplets.
    totals
        (droplets,) their totals.
    shares
        (genes,) of the profile.
    """
    from scipy.optimize import minimize_scalar

    level, gene = np.nonzero(gene_levels)
    weights = gene_levels[level, gene].astype(np.float64)
    share = shares[gene]
    n_above = np.cumsum(np.bincount(totals)[::-1])[::-1][1:].astype(np.float64)  # droplets with more than 0, 1, ...
    steps = np.arange(len(n_above))

    def gain(log_alpha: float) -> float:
        """Log-likelihood beyond the multinomial's."""
        alpha = np.exp(log_alpha)
        return float(weights @ np.log1p(level / (alpha * share)) - n_above @ np.log1p(steps / alpha))

    best = minimize_scalar(
        lambda log_alpha: -gain(log_alpha), bounds=_LOG_ALPHA_RANGE, method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(best.x)) if -best.fun > _OVERDISPERSION_GAIN else float("inf")


def ambient_model(counts: sparse.csr_matrix, totals: Ints, lower: int) -> AmbientModel:
    """The ambient model from the droplets with ``1 <= total <= lower``; there must be one.

    Parameters
    ----------
    counts
        droplets x genes, canonical.
    totals
        (droplets,) its row sums.
    """
    empty = (totals > 0) & (totals <= lower)
    levels = counts_of_counts(counts, empty)
    sums: Ints = levels.sum(axis=0)
    detected = detected_genes(counts)
    shares = np.zeros(counts.shape[1])
    shares[detected] = good_turing(sums[detected])
    return AmbientModel(sums, shares, estimate_alpha(levels, totals[empty], shares))


def log_likelihoods(counts: sparse.csr_matrix, rows: NDArray[np.bool_], model: AmbientModel) -> Floats:
    """Log-probability of the counts of some rows under the ambient model, less what depends on the total alone."""
    from scipy.special import gammaln

    likelihood = np.zeros(int(rows.sum()))
    with np.errstate(divide="ignore"):
        log_shares = np.log(model.shares)
    weights = model.alpha * model.shares if np.isfinite(model.alpha) else model.shares
    with np.errstate(invalid="ignore", divide="ignore"):
        offset = gammaln(weights)
    for row, column, value in _entries(counts, rows):
        if np.isinf(model.alpha):
            terms = value * log_shares[column] - gammaln(value + 1.0)
        else:
            terms = gammaln(weights[column] + value) - offset[column] - gammaln(value + 1.0)
        first = row[0]
        likelihood[first : row[-1] + 1] += np.bincount(row - first, weights=terms)
    return likelihood


def walker_tables(shares: Floats) -> tuple[Floats, Ints]:
    """Tables of Walker's alias method (1977, doi:10.1145/355744.355749): accept a slot, or take its alias."""
    n = len(shares)
    accept = shares / shares.sum() * n
    alias = np.arange(n, dtype=np.int64)
    small, large = [int(i) for i in np.flatnonzero(accept < 1)], [int(i) for i in np.flatnonzero(accept >= 1)]
    while small and large:
        poor, rich = small.pop(), large[-1]
        alias[poor] = rich
        accept[rich] -= 1 - accept[poor]
        if accept[rich] < 1:
            small.append(large.pop())
    accept[[*small, *large]] = 1.0
    return accept, alias


class MonteCarlo:
    """Random droplets of the ambient model, shared by all observed totals as in the paper.

    ``n_lower`` counts, for each droplet, the draws of its total that were at most as likely.
    """

    def __init__(self, totals: Ints, likelihoods: Floats, model: AmbientModel, seed: int) -> None:
        self._order = np.lexsort((likelihoods, totals))
        self._observed = np.ascontiguousarray(likelihoods[self._order])
        distinct, starts = np.unique(totals[self._order], return_index=True)
        self._totals = distinct.astype(np.int64)
        self._starts = np.append(starts, len(totals)).astype(np.int64)
        drawn_from = np.flatnonzero(model.shares > 0)
        self._shares = np.ascontiguousarray(model.shares[drawn_from])
        self._accept, self._alias = walker_tables(self._shares)
        self._alpha = model.alpha
        self._rng = np.random.default_rng(seed)
        self._first = np.zeros(len(totals), dtype=np.int64)
        self.n_draws = 0

    def draw(self, n_draws: int) -> None:
        """Add so many draws."""
        self.n_draws += n_draws
        if not len(self._totals):
            return
        from immunomod.sample.empty_drops_kernel import count_lower

        size = int(self._totals[-1])
        per_block = max(1, _BLOCK_UNIFORMS // size)
        for begin in range(0, n_draws, per_block):
            uniforms = self._rng.random((min(per_block, n_draws - begin), size))
            count_lower(
                uniforms,
                self._accept,
                self._alias,
                self._shares,
                self._alpha,
                self._totals,
                self._starts,
                self._observed,
                self._first,
            )

    @property
    def n_lower(self) -> Ints:
        """(droplets,) draws that were at most as likely, in the order of the droplets."""
        running = np.cumsum(self._first)
        before = np.concatenate([[0], running])[self._starts[:-1]]
        counted = running - np.repeat(before, np.diff(self._starts))
        found: Ints = np.empty_like(counted)
        found[self._order] = counted
        return found

    @property
    def p_values(self) -> Floats:
        """(droplets,) (n_lower + 1) / (n_draws + 1)."""
        return np.asarray((self.n_lower + 1) / (self.n_draws + 1))


def benjamini_hochberg(p_values: Floats, n_certain: int = 0) -> Floats:
    """False discovery rates of ``p_values`` among these and ``n_certain`` further ones that are 0.

    Without scipy.stats, which takes a second to import in every sample's process.
    """
    n = len(p_values)
    order = np.argsort(p_values, kind="stable")
    scaled = p_values[order] * (n + n_certain) / (n_certain + np.arange(1, n + 1))
    adjusted = np.empty(n)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return adjusted


@dataclass(frozen=True)
class TestedDroplets:
    """``p_values`` and ``fdr`` (droplets,) after ``n_draws``; ``n_limited`` droplets could be called by more draws."""

    p_values: Floats
    fdr: Floats
    n_draws: int
    n_limited: int


def compare_with_ambient(
    counts: sparse.csr_matrix,
    rows: NDArray[np.bool_],
    totals: Ints,
    model: AmbientModel,
    n_certain: int,
    fdr: float,
    n_iterations: int,
    seed: int,
) -> TestedDroplets:
    """Test some droplets against the ambient model.

    The smallest p-value is 1 / (draws + 1), which among many tested droplets may be too large for any to be called,
    however unlike the ambient profile it is; up to ten times the draws are made where that decides.

    Parameters
    ----------
    rows
        (all droplets,) the tested ones.
    totals
        (all droplets,) row sums of ``counts``.
    n_certain
        Droplets that are called without a test; they count in the false discovery rate.
    """
    monte_carlo = MonteCarlo(totals[rows], log_likelihoods(counts, rows, model), model, seed)
    monte_carlo.draw(n_iterations)
    n_all = int(rows.sum()) + n_certain

    def lowest() -> int:
        return int((monte_carlo.n_lower == 0).sum())

    while n_lowest := lowest():
        needed = int(np.ceil(n_all / (fdr * (n_certain + n_lowest))))
        if not monte_carlo.n_draws < needed <= _MOST_TIMES_ITERATIONS * n_iterations:
            break
        # a draw may be less likely than one of these droplets: then the rest need a few more
        monte_carlo.draw(needed - monte_carlo.n_draws)
    adjusted = benjamini_hochberg(monte_carlo.p_values, n_certain)
    limited = int(((monte_carlo.n_lower == 0) & (adjusted > fdr)).sum())
    return TestedDroplets(monte_carlo.p_values, adjusted, monte_carlo.n_draws, limited)
