"""Co-expression of gene pairs that the library's cells rather have one at a time (cxds).

Bais & Kostka 2020 (doi:10.1093/bioinformatics/btz698): a gene is on or off in a cell. For each pair of genes the number
of cells in which exactly one is on is held against a binomial of independent genes; minus the logarithm of its upper
tail is large for pairs that exclude each other, as markers of two classes do. A cell's score is the sum over the pairs
that are both on in it. No neighbours and no components: what fools Scrublet need not fool this.

The published method ranks cells and leaves the cut to the user. Here doublets made of the library's own cells are
scored with the same pairs, and the cut is where calling makes the fewest expected mistakes
(:func:`fewest_mistakes`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from immunomod.sample.doublets.calls import MIN_CELLS, DoubletCalls, no_calls, too_few_cells
from immunomod.sample.doublets.pairs import simulated_pairs

N_GENES = 500
_MAX_SIMULATED = 20_000
_ROWS_AT_ONCE = 4096
_LOG_UNDERFLOW = -600.0


def run(counts: sparse.csr_matrix, expected_rate: float, seed: int) -> DoubletCalls:
    """Score and call the doublets of one library.

    Parameters
    ----------
    counts
        cells x genes, raw counts (CSR, no explicit zeros). A cell without counts is not judged.
    expected_rate
        Share of doublets that the calls weigh their mistakes with; scores do not depend on it.
    seed
        Which cells make up the simulated doublets.
    """
    n_cells = counts.shape[0]
    judged = np.diff(counts.indptr) > 0
    n_judged = int(judged.sum())
    if n_judged < MIN_CELLS:
        return too_few_cells(n_cells)
    share = np.bincount(counts.indices, minlength=counts.shape[1]) / n_judged
    variance = share * (1 - share)
    genes = np.sort(np.argsort(-variance, kind="stable")[:N_GENES])
    genes = genes[variance[genes] > 0]
    if len(genes) < 2:
        return no_calls(n_cells, "doublets not called: fewer than two genes are on in some cells only")
    on = counts[:, genes][judged].astype(np.float32)
    on.data[:] = 1
    weights = exclusion_weights(on)
    observed = _scores(on, weights)
    simulated = _simulated_scores(on, weights, seed)
    score = np.full(n_cells, np.nan)
    score[judged] = observed
    threshold = fewest_mistakes(observed, simulated, expected_rate)
    if threshold is None:
        nothing = np.zeros(n_cells, dtype=bool)
        note = "doublets scored, not called: no cell is more likely a doublet than not"
        return DoubletCalls(score, nothing, np.nan, np.nan, note)
    predicted = np.nan_to_num(score, nan=-np.inf) > threshold
    return DoubletCalls(score, predicted, threshold, float(np.mean(simulated > threshold)), "")


def exclusion_weights(on: sparse.csr_matrix) -> NDArray[np.float64]:
    """Minus log p that so many cells have exactly one of two genes on, if genes were independent (genes x genes).

    ``on``: cells x genes, CSR of ones. The diagonal is 0.
    """
    n_cells = on.shape[0]
    both = np.zeros((on.shape[1], on.shape[1]))
    for start in range(0, n_cells, _ROWS_AT_ONCE):
        block = on[start : start + _ROWS_AT_ONCE].toarray()
        both += block.T @ block
    cells = np.diag(both)
    exactly_one = cells[:, None] + cells[None, :] - 2 * both
    share = cells / n_cells
    expected = share[:, None] * (1 - share[None, :]) + (1 - share[:, None]) * share[None, :]
    weights = -log_binomial_tail(exactly_one, n_cells, expected)
    np.fill_diagonal(weights, 0.0)
    return weights


def log_binomial_tail(
    successes: NDArray[np.float64], trials: int, probability: NDArray[np.float64]
) -> NDArray[np.float64]:
    """log P(X >= successes) of a binomial, also where the probability itself is below the smallest float."""
    from scipy.special import betainc, gammaln, xlog1py, xlogy

    k = np.asarray(successes, dtype=np.float64)
    with np.errstate(divide="ignore"):
        tail = np.log(np.where(k > 0, betainc(np.maximum(k, 1), trials - k + 1, probability), 1.0))
    far = tail < _LOG_UNDERFLOW
    if far.any():
        # far above the mean the tail's terms fall like a geometric series
        k, p = k[far], np.broadcast_to(probability, tail.shape)[far]
        first = gammaln(trials + 1) - gammaln(k + 1) - gammaln(trials - k + 1) + xlogy(k, p) + xlog1py(trials - k, -p)
        falls = (trials - k) / (k + 1) * p / (1 - p)
        tail[far] = first - np.log1p(-falls)
    return tail


def _scores(on: sparse.csr_matrix, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of the weights over the pairs of genes that are both on, each pair once (cells,)."""
    score = np.empty(on.shape[0])
    for start in range(0, on.shape[0], _ROWS_AT_ONCE):
        block = on[start : start + _ROWS_AT_ONCE]
        score[start : start + _ROWS_AT_ONCE] = np.asarray(block.multiply(block @ weights).sum(axis=1)).ravel() / 2
    return score


def _simulated_scores(on: sparse.csr_matrix, weights: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Scores of doublets made of the library's own cells: on where either cell has the gene on."""
    first, second = simulated_pairs(on.shape[0], min(2 * on.shape[0], _MAX_SIMULATED), seed)
    score = np.empty(len(first))
    for start in range(0, len(first), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        score[part] = _scores(on[first[part]].maximum(on[second[part]]), weights)
    return score


def fewest_mistakes(
    observed: NDArray[np.float64], simulated: NDArray[np.float64], expected_rate: float
) -> float | None:
    """The threshold above which calling makes the fewest expected mistakes; None where calling nobody makes fewer.

    Of the cells a share ``r`` are doublets that score like the simulated ones. A threshold ``t`` then misses
    ``r * P(simulated <= t)`` and wrongly calls ``P(observed > t) - r * P(simulated > t)``; their sum is lowest where
    ``P(observed > t) - 2 r P(simulated > t)`` is. No more than ``2 r`` of the cells can be called.
    """
    candidates = np.unique(observed)
    called = 1 - np.searchsorted(np.sort(observed), candidates, side="right") / len(observed)
    detected = 1 - np.searchsorted(np.sort(simulated), candidates, side="right") / len(simulated)
    mistakes = called - 2 * expected_rate * detected
    best = int(np.argmin(mistakes))
    return float(candidates[best]) if mistakes[best] < 0 else None
