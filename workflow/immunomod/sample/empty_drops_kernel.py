"""The compiled loop behind the Monte Carlo p-values of :mod:`empty_drops`.

It is a module of its own because importing numba takes half a second that only an unfiltered library need pay. There is
one kernel with one explicit signature, so that a fresh installation compiles once and keeps the machine code. It takes
its random numbers from outside, and so does not depend on numba's own generator or on threads.
"""

# mypy: disable-error-code="assignment, arg-type, no-untyped-call"

from __future__ import annotations

import numpy as np
from numba import njit, types

_INT64S = types.Array(types.int64, 1, "C")
_FLOAT64S = types.Array(types.float64, 1, "C")
_SIGNATURE = types.void(
    types.Array(types.float64, 2, "C"),
    _FLOAT64S,
    _INT64S,
    _FLOAT64S,
    types.float64,
    _INT64S,
    _INT64S,
    _FLOAT64S,
    _INT64S,
)
#: Likelihoods this close are ties: the two sides add the same logarithms in different orders.
_TIE = 1e-9


@njit(_SIGNATURE, nogil=True, cache=True)
def count_lower(
    uniforms: np.ndarray,
    accept: np.ndarray,
    alias: np.ndarray,
    shares: np.ndarray,
    alpha: float,
    totals: np.ndarray,
    starts: np.ndarray,
    observed: np.ndarray,
    lower: np.ndarray,
) -> None:
    """Draw molecules one by one, and at every observed total count the draws at most as likely as the droplets of it.

    A droplet of the ambient profile grows by Pólya's urn (a gene drawn from the profile with probability
    ``alpha / (alpha + n)``, else that of one of the ``n`` molecules before), which is the Dirichlet-multinomial; so one
    draw serves the droplets of every total on its way.

    Parameters
    ----------
    uniforms
        draws x molecules, at least as many molecules as the largest total; uniform on [0, 1).
    accept, alias
        (genes,) Walker's tables of the profile.
    shares
        (genes,) the profile; positive.
    alpha
        Of the Dirichlet-multinomial; infinite for the multinomial.
    totals, starts
        Distinct totals (ascending), and where in ``observed`` the droplets of each begin (one more at the end).
    observed
        Log-likelihoods of the droplets, ascending within a total.
    lower
        Is added to: at the first droplet of a total that a draw is at most as likely as. The cumulative sum within a
        total is then each droplet's number.
    """
    n_genes = len(shares)
    is_multinomial = np.isinf(alpha)
    weights = shares if is_multinomial else shares * alpha
    first = np.log(weights)
    counts = np.zeros(n_genes, dtype=np.int64)
    drawn = np.zeros(uniforms.shape[1], dtype=np.int64)
    logs = np.log(np.arange(1, uniforms.shape[1] + 2).astype(np.float64))  # of 1, 2, ...
    for draw in range(uniforms.shape[0]):
        likelihood = 0.0
        group = 0
        n = 0
        while group < len(totals):
            u = uniforms[draw, n]
            from_profile = True
            if not is_multinomial:
                place = u * (alpha + n)
                if place >= alpha:
                    gene = drawn[min(int(place - alpha), n - 1)]
                    from_profile = False
                u = place / alpha
            if from_profile:
                slot = u * n_genes
                gene = min(int(slot), n_genes - 1)
                if slot - gene >= accept[gene]:
                    gene = alias[gene]
            count = counts[gene]
            if count == 0 or is_multinomial:
                likelihood += first[gene] - logs[count]
            else:
                likelihood += np.log(weights[gene] + count) - logs[count]
            counts[gene] = count + 1
            drawn[n] = gene
            n += 1
            if n == totals[group]:
                begin, end = starts[group], starts[group + 1]
                limit = likelihood - _TIE * abs(likelihood)
                while begin < end:
                    middle = (begin + end) // 2
                    if observed[middle] < limit:
                        begin = middle + 1
                    else:
                        end = middle
                if begin < starts[group + 1]:
                    lower[begin] += 1
                group += 1
        for molecule in range(n):
            counts[drawn[molecule]] = 0
