"""Which kind of cell a droplet holds, as far as contamination needs it: MSC, T or NK, B, or myeloid.

Cells of a sample have no names yet when its ambient RNA is estimated. The exclusive genes tell these four kinds apart:
a cell's counts in its own kind's set are in proportion to its total, those in the other sets, which leaked, are as many
in each droplet of the kind. Both are negative binomial around that (CD4 T cells hold a quarter of the exclusive RNA of
NK cells), and means and dispersions are learned from the library itself (expectation maximisation, hard assignments).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse, special

from immunomod.exclusive import COMPARTMENT_OF, LEUKOCYTE
from immunomod.sample.sums import cell_sums, gene_set_sums

Floats = NDArray[np.float64]
#: A kind needs so many cells that clearly show it, and so large a share of the rate in its clearest cells, to be there.
MIN_CELLS = 10
_ROUNDS = 30
#: Share of a kind's own exclusive genes in its clear cells, at the least, and the percentile of cells that are clear.
_CLEAR_SHARE = {"MSC": 0.02, "T_NK": 0.003, "B": 0.003, "myeloid": 0.005}
_CLEAR_PERCENTILE = 95.0
_MSC = list(COMPARTMENT_OF).index("MSC")
_MIN_DISPERSION, _MAX_DISPERSION = 1e-4, 2.0
#: A cell starts unassigned where its fullest set holds less than this of a clear cell's.
_FOREIGN_SHARE = 0.25


def set_counts(
    counts: sparse.csr_matrix, symbols: pd.Series, groups: Mapping[str, set[str]]
) -> tuple[list[str], Floats]:
    """Each cell's counts in each set of exclusive genes: names of the sets, and cells x sets."""
    names = [*COMPARTMENT_OF, LEUKOCYTE]
    indicator = np.column_stack([symbols.isin(groups.get(name, set())).to_numpy() for name in names])
    return names, gene_set_sums(counts, indicator)


def _log_likelihood(observed: Floats, total: Floats, members: NDArray[np.bool_], own: int, rates: Floats) -> Floats:
    """Log-likelihood (cells,) of each cell's counts in every set, were it of the kind of ``members``.

    A cell makes its own set's counts in proportion to its total; what leaked is in every droplet in equal number.
    """
    result = np.zeros(len(total))
    leukocyte = observed.shape[1] - 1
    made = {own} if own == _MSC else {own, leukocyte}
    for number, counted in enumerate(observed.T):
        size = np.maximum(total, 1.0) if number in made else np.full(len(total), total[members].mean())
        mean = rates[number] * size
        result += _negative_binomial(counted, mean, _dispersion(counted[members], mean[members]))
    return result


def _dispersion(counted: Floats, mean: Floats) -> float:
    """Negative-binomial dispersion (variance = mean + dispersion x mean^2) by moments."""
    excess = float(((counted - mean) ** 2 - mean).sum() / (mean**2).sum())
    return min(max(excess, _MIN_DISPERSION), _MAX_DISPERSION)


def _negative_binomial(counted: Floats, mean: Floats, dispersion: float) -> Floats:
    """Log-probability of counts, less the terms that depend on the counts alone."""
    shape = 1 / dispersion
    log_odds = np.log(mean) - np.log(shape + mean)
    log_probability = special.gammaln(counted + shape) - special.gammaln(shape) + counted * log_odds
    return np.asarray(log_probability + shape * (np.log(shape) - np.log(shape + mean)))


def cell_groups(counts: sparse.csr_matrix, symbols: pd.Series, groups: Mapping[str, set[str]]) -> NDArray[np.object_]:
    """Kind of each cell (a key of :data:`immunomod.exclusive.COMPARTMENT_OF`), empty where nothing tells.

    Parameters
    ----------
    counts
        Cells x genes, raw counts.
    symbols
        Gene symbol of each column.
    groups
        Sets of exclusive genes (:meth:`immunomod.exclusive.ExclusiveGenes.of_groups`).
    """
    nothing = np.full(counts.shape[0], "", dtype=object)
    _, observed = set_counts(counts, symbols, groups)
    total = cell_sums(counts).astype(np.float64)
    if counts.shape[0] == 0 or not (total > 0).any():
        return nothing
    kinds = list(COMPARTMENT_OF)
    # Start: the set that is fullest, held against what a clear cell of the kind shows.
    share = observed[:, : len(kinds)] / np.maximum(total[:, None], 1.0)
    full = np.maximum(
        np.percentile(share[total > 0], _CLEAR_PERCENTILE, axis=0), [_CLEAR_SHARE[kind] for kind in kinds]
    )
    start = (share / full).argmax(axis=1)
    clear = (share / full)[np.arange(len(start)), start] >= _FOREIGN_SHARE
    assigned = np.where(clear & (total > 0), start, -1)
    present: list[int] = []
    for _ in range(_ROUNDS):
        present = [kind for kind in range(len(kinds)) if (assigned == kind).sum() >= MIN_CELLS]
        if not present:
            return nothing
        rates = np.array(
            [(observed[assigned == kind].sum(axis=0) + 0.5) / (total[assigned == kind].sum() + 1.0) for kind in present]
        )
        # A kind whose own set is no higher than another kind's is that other kind's contamination.
        own = rates[np.arange(len(present)), present]
        highest = rates[:, present].max(axis=0)
        lasting = [row for row in range(len(present)) if own[row] >= highest[row] * (1 - 1e-9)]
        if len(lasting) < len(present):
            assigned[~np.isin(assigned, [present[row] for row in lasting])] = -1
            present, rates = [present[row] for row in lasting], rates[lasting]
        likelihood = np.column_stack(
            [_log_likelihood(observed, total, assigned == kind, kind, rates[row]) for row, kind in enumerate(present)]
        )
        best = np.array(present)[likelihood.argmax(axis=1)]
        told = observed[np.arange(len(best)), best] + np.where(best == 0, 0.0, observed[:, -1]) > 0
        updated = np.where(told, best, -1)
        if (updated == assigned).all():
            break
        assigned = updated
    labels = np.array([*kinds, ""], dtype=object)
    return np.asarray(labels[assigned])
