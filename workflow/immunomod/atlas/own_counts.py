"""A cell's own counts against its neighbourhood: where classes lie side by side in the graph, each cell decides.

Averages along the graph name regions. Natural killer cells that lie among effector CD8 T cells share most of what the
map is made of; what tells them apart (CD3 genes, receptors) shows in their own counts only. The votes of the markers
are therefore taken for the first guess of a mixture of the classes (expectation maximisation, Dempster, Laird and Rubin
1977, doi:10.1111/j.2517-6161.1977.tb01600.x): rates of the marker genes in every class are learned from the atlas, and
a cell's counts shift its votes by what they are worth under these rates. How common a class is in the mixture is told
by the cell's first votes and by its neighbours', half and half, as in hidden Markov random fields (Zhang, Brady and
Smith 2001, doi:10.1109/42.906424). Counts without a word on the class leave votes as they are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from immunomod.atlas.votes import Votes

_ROUNDS = 5
# A class has rates of its own from so many cells that have more than half of their votes for it.
_FEWEST_CELLS, _SURE = 10, 0.5
# Share of a cell's prior that is spread over the classes, so that strong counts may name what no neighbour is.
_UNFORESEEN = 0.05
# Rates are drawn to those of all cells by so many cells of 10,000 counts, and no gene is impossible.
_PRIOR_CELLS, _LOWEST_RATE = 2.0, 1e-4


def with_own_counts(
    votes: Votes, counts: sparse.csr_matrix, depth: NDArray[np.float64], connectivities: sparse.csr_matrix
) -> Votes:
    """Votes shifted by what each cell's own counts say.

    Parameters
    ----------
    votes
        First votes, averaged along the graph. A row that is silent stays so; votes for a class of which too few cells
        are sure stay as they are.
    counts
        Cells x marker genes, molecules.
    depth
        Counts of each cell in all genes, in 10,000.
    connectivities
        Weights between cells, cells x cells.
    """
    first = votes.shares.astype(np.float64)
    walk = _walk(connectivities)
    shares = first
    for _ in range(_ROUNDS):
        classes = np.flatnonzero((shares > _SURE).sum(axis=0) >= _FEWEST_CELLS)
        if len(classes) < 2:
            break
        likelihood = _log_likelihood(counts, depth, shares[:, classes])
        prior = (first[:, classes] + walk @ shares[:, classes]) / 2
        prior += _UNFORESEEN / len(classes) * prior.sum(axis=1, keepdims=True)
        log = np.log(np.maximum(prior, 1e-12)) + likelihood
        after = np.exp(log - log.max(axis=1, keepdims=True))
        after *= first[:, classes].sum(axis=1, keepdims=True) / after.sum(axis=1, keepdims=True)
        shares = first.copy()
        shares[:, classes] = after
    return Votes(votes.witness, shares.astype(np.float32), votes.knows)


def _log_likelihood(
    counts: sparse.csr_matrix, depth: NDArray[np.float64], shares: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Quasi-Poisson log likelihood of each cell under each class (cells x classes), but for what classes share.

    A gene's variance within the classes, over its mean, divides what it says: one that varies more than counting does
    (in one batch, in one state) decides less.
    """
    mass = shares.T @ depth
    overall = np.asarray(counts.sum(axis=0)).ravel() / max(depth.sum(), 1e-9)
    rates = ((counts.T @ shares).T + _PRIOR_CELLS * overall) / (mass[:, None] + _PRIOR_CELLS)
    rates = np.maximum(rates, _LOWEST_RATE)
    squares = sparse.csr_matrix((counts.data**2, counts.indices, counts.indptr), shape=counts.shape)
    deviance = (
        (squares.T @ shares).T
        - 2 * rates * (counts.T @ (shares * depth[:, None])).T
        + rates**2 * (shares.T @ depth**2)[:, None]
    ).sum(axis=0)
    dispersion = np.maximum(deviance / np.maximum((rates * mass[:, None]).sum(axis=0), 1e-9), 1)
    likelihood = counts @ (np.log(rates) / dispersion).T - depth[:, None] * (rates / dispersion).sum(axis=1)
    return np.asarray(likelihood, dtype=np.float64)


def _walk(connectivities: sparse.csr_matrix) -> sparse.csr_matrix:
    """Weights to each cell's neighbours, which sum to 1 (0 for a cell without any)."""
    total = np.asarray(connectivities.sum(axis=1), dtype=np.float64).ravel()
    return sparse.csr_matrix(
        sparse.diags(np.divide(1, total, out=np.zeros_like(total), where=total > 0)) @ connectivities
    )
