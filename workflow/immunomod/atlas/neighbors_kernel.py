"""The compiled loops behind neighbours and their weights, in a module of their own because importing numba takes time.

Squared distances are compared less the query's own squared length: ``|c|^2 - 2 q.c`` orders candidates just as well.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types

_F2, _F1, _I2, _I1 = types.float32[:, ::1], types.float32[::1], types.int32[:, ::1], types.int32[::1]
_STRIP = 16


@njit(types.void(_F1, _I1, types.float32, types.int32), nogil=True, cache=True, inline="always")
def _insert(best, best_index, value, index):  # type: ignore[no-untyped-def]
    """Put a candidate into a row sorted upwards, whose last entry falls out."""
    position = best.shape[0] - 1
    while position > 0 and best[position - 1] > value:
        best[position] = best[position - 1]
        best_index[position] = best_index[position - 1]
        position -= 1
    best[position] = value
    best_index[position] = index


@njit(types.void(_F2, _F1, _I1, _I1, _F2, _I2), nogil=True, cache=True)
def keep_nearest(products, squares, candidates, queries, best, best_index):  # type: ignore[no-untyped-def]
    """Keep the nearest candidates of each query.

    ``products``: queries x candidates, their scalar products; ``squares``: squared lengths of the candidates;
    ``candidates`` and ``queries``: their numbers, a query is not its own candidate; ``best`` (sorted upwards) and
    ``best_index``: queries x k, changed in place.
    """
    n_candidates = products.shape[1]
    last = best.shape[1] - 1
    two = np.float32(2)
    for row in range(products.shape[0]):
        limit = best[row, last]
        for start in range(0, n_candidates, _STRIP):
            stop = min(n_candidates, start + _STRIP)
            nearest = np.float32(np.inf)
            for column in range(start, stop):
                nearest = min(nearest, squares[column] - two * products[row, column])
            if nearest < limit:  # rare once the row is filled: the strip above runs without a branch
                for column in range(start, stop):
                    value = squares[column] - two * products[row, column]
                    if value < limit and candidates[column] != queries[row]:
                        _insert(best[row], best_index[row], value, candidates[column])
                        limit = best[row, last]


@njit(types.void(_F2, _F1, _I2, types.int64, types.int64, _F2, _I2), nogil=True, cache=True)
def look_around(points, squares, known, start, stop, best, best_index):  # type: ignore[no-untyped-def]
    """For rows ``start`` to ``stop``: is a neighbour of a neighbour (table ``known``) nearer than those kept?"""
    k = known.shape[1]
    seen = np.full(points.shape[0], -1, np.int32)
    two = np.float32(2)
    for row in range(start, stop):
        limit = best[row, k - 1]
        seen[row] = row
        for a in range(k):
            seen[known[row, a]] = row
        for a in range(k):
            for b in range(k):
                other = known[known[row, a], b]
                if seen[other] == row:
                    continue
                seen[other] = row
                product = np.float32(0)
                for axis in range(points.shape[1]):
                    product += points[row, axis] * points[other, axis]
                value = squares[other] - two * product
                if value < limit:
                    _insert(best[row], best_index[row], value, other)
                    limit = best[row, k - 1]


@njit(types.void(_F2, _I2, types.int64, types.int64, _F2), nogil=True, cache=True)
def measure_and_sort(points, indices, start, stop, distances):  # type: ignore[no-untyped-def]
    """Euclidean ``distances`` of rows ``start`` to ``stop`` to their ``indices``, both sorted (distance, index).

    Differences are taken before squaring: the products above lose the small distances of near twins.
    """
    k = indices.shape[1]
    for row in range(start, stop):
        for a in range(k):
            other = indices[row, a]
            total = np.float32(0)
            for axis in range(points.shape[1]):
                difference = points[row, axis] - points[other, axis]
                total += difference * difference
            distance = np.sqrt(total)
            position = a
            while position > 0 and (
                distances[row, position - 1] > distance
                or (distances[row, position - 1] == distance and indices[row, position - 1] > other)
            ):
                distances[row, position] = distances[row, position - 1]
                indices[row, position] = indices[row, position - 1]
                position -= 1
            distances[row, position] = distance
            indices[row, position] = other


@njit(types.void(_F2, types.float64, types.int64, types.int64, _F2), nogil=True, cache=True)
def directed_weights(distances, mean_distance, start, stop, weights):  # type: ignore[no-untyped-def]
    """Weights ``exp(-(d - rho) / sigma)`` of rows ``start`` to ``stop``; column 0 is the cell itself and gets 0.

    ``rho`` is the smallest distance above zero; ``sigma`` makes the weights sum to ``log2(k)`` (bisection) and is at
    least a thousandth of the row's mean distance.
    """
    k = distances.shape[1]
    target = np.log2(k)
    for row in range(start, stop):
        rho = 0.0
        total_distance = 0.0
        for a in range(k):
            distance = distances[row, a]
            total_distance += distance
            if distance > 0 and (rho == 0.0 or distance < rho):
                rho = distance
        low, high, sigma = 0.0, np.inf, 1.0
        for _ in range(64):
            total = 0.0
            for a in range(1, k):
                excess = distances[row, a] - rho
                total += np.exp(-excess / sigma) if excess > 0 else 1.0
            if abs(total - target) < 1e-5:
                break
            if total > target:
                high = sigma
                sigma = (low + high) / 2
            else:
                low = sigma
                sigma = sigma * 2 if high == np.inf else (low + high) / 2
        floor = 1e-3 * (total_distance / k if rho > 0 else mean_distance)
        sigma = max(sigma, floor)
        weights[row, 0] = 0.0
        for a in range(1, k):
            excess = distances[row, a] - rho
            weights[row, a] = 1.0 if excess <= 0 or sigma == 0 else np.exp(-excess / sigma)
