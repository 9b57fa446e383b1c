"""The compiled loops behind marker genes, in a module of their own because importing numba takes time.

An entry of the matrix is one 64-bit key: the bits of its float32 value above, the label of its cell below. Positive
floats are ordered as their bits, so sorting keys sorts values and carries the labels along.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, types

_I8, _I4, _U8, _U4 = types.int64[::1], types.int32[::1], types.uint64[::1], types.uint32[::1]
_F8, _F82, _I42 = types.float64[::1], types.float64[:, ::1], types.int32[:, ::1]
_STEPS, _LAST_STEP = 64.0, 88 * 64
_POWERS = np.exp(np.arange(_LAST_STEP) / _STEPS)
_INFINITY, _NEGATIVE_ZERO = np.uint32(0x7F800000), np.uint32(0x80000000)


@njit(types.void(_I4, types.int64, types.int64, _I8), nogil=True, cache=True)
def count_columns(indices, first, last, counts):  # type: ignore[no-untyped-def]
    """Add to ``counts`` how often each column from ``first`` to before ``last`` occurs."""
    for entry in range(len(indices)):
        column = indices[entry]
        if first <= column < last:
            counts[column - first] += 1


@njit(types.int64(_I8, _I4, _U4, _U4, types.int64, types.int64, _I8, _U8), nogil=True, cache=True)
def scatter_keys(indptr, indices, bits, labels, first, last, cursor, keys):  # type: ignore[no-untyped-def]
    """Put the entries of some rows to the keys of their columns; returns how many are negative or no number.

    ``bits``: the values' float32 bits; ``labels``: of the rows; ``cursor``: where the next key of each column from
    ``first`` to before ``last`` goes, moved on. Stored zeros become the smallest keys.
    """
    unfit = 0
    for row in range(len(indptr) - 1):
        label = np.uint64(labels[row])
        for entry in range(indptr[row], indptr[row + 1]):
            column = indices[entry]
            if column < first or column >= last:
                continue
            value = bits[entry]
            if value >= _INFINITY:
                if value != _NEGATIVE_ZERO:
                    unfit += 1
                value = np.uint32(0)
            place = cursor[column - first]
            keys[place] = (np.uint64(value) << np.uint64(32)) | label
            cursor[column - first] = place + 1
    return unfit


@njit(types.float64(types.float64), nogil=True, cache=True, inline="always")
def _exp(value):  # type: ignore[no-untyped-def]
    """exp of 0 to 88 to 11 digits: a tabled power and five terms of the series, a fifth of the library call's time."""
    step = np.int64(value * _STEPS)
    if step >= _LAST_STEP:
        return math.exp(value)
    rest = value - step / _STEPS
    return _POWERS[step] * (1.0 + rest * (1.0 + rest * (0.5 + rest * (1.0 / 6.0 + rest / 24.0))))


@njit(
    types.void(
        _U8, _I8, types.int64, types.int64, _I8, _I8, _I42, _I8,
        _F82, _F82, _F82, _F82, _F82, _F82, _F82, _F82, _F82,
    ),
    nogil=True,
    cache=True,
)  # fmt: skip
def add_rank_sums(  # type: ignore[no-untyped-def]
    keys, begin, start, stop, place, label_sizes, label_groups, group_sizes,
    deviation, variance, pairs, mean_in, mean_out, detected_in, detected_out, sums, counted,
):  # fmt: skip
    """Add one sample's rank statistics of the columns ``start`` to before ``stop`` to those of the atlas.

    ``keys`` are sorted within each column, which starts at ``begin``; ``place``: each column's row in the result arrays
    (genes x groups; -1: none). A cell's label stands for one group of every grouping, ``label_groups`` (labels x
    groupings), so that one walk serves all groupings. A sample weighs ``1 / (cells + 1)`` (van Elteren).

    Twice the ranks are whole numbers, so rank sums are exact. ``sums`` and ``counted`` are plain sums over the cells of
    each group: counts per 10,000, and cells in which the gene was found.
    """
    n_labels, n_groupings = label_groups.shape
    n_groups = len(group_sizes)
    cells = 0
    for label in range(n_labels):
        cells += label_sizes[label]
    weight = 1.0 / (cells + 1.0)
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    bits = np.empty(1, np.uint32)
    value = bits.view(np.float32)
    ranks2, found = np.empty(n_labels, np.int64), np.empty(n_labels, np.int64)
    amount = np.empty(n_labels)
    group_ranks2, group_found = np.empty(n_groups, np.int64), np.empty(n_groups, np.int64)
    group_amount = np.empty(n_groups)
    for column in range(start, stop):
        row = place[column]
        if row < 0:
            continue
        first, last = begin[column], begin[column + 1]
        while first < last and (keys[first] >> half) == 0:
            first += 1
        zeros = cells - (last - first)
        ranks2[:] = 0
        found[:] = 0
        amount[:] = 0.0
        ties = float(zeros) ** 3 - zeros
        entry = first
        while entry < last:
            high = keys[entry] >> half
            after = entry + 1
            while after < last and (keys[after] >> half) == high:
                after += 1
            run = after - entry
            if run > 1:
                ties += float(run) ** 3 - run
            rank2 = 2 * (zeros + entry - first) + run + 1
            bits[0] = np.uint32(high)
            per_10k = _exp(float(value[0])) - 1.0
            for tied in range(entry, after):
                of_cell = np.int64(keys[tied] & mask)
                ranks2[of_cell] += rank2
                found[of_cell] += 1
                amount[of_cell] += per_10k
            entry = after
        group_ranks2[:] = 0
        group_found[:] = 0
        group_amount[:] = 0.0
        all_found, all_amount = 0, 0.0
        for label in range(n_labels):
            if label_sizes[label] == 0:
                continue
            of_label = ranks2[label] + (label_sizes[label] - found[label]) * (zeros + 1)
            all_found += found[label]
            all_amount += amount[label]
            for grouping in range(n_groupings):
                group = label_groups[label, grouping]
                group_ranks2[group] += of_label
                group_found[group] += found[label]
                group_amount[group] += amount[label]
        spread = (cells + 1.0) - (ties / (float(cells) * (cells - 1.0)) if cells > 1 else 0.0)
        for group in range(n_groups):
            inside = group_sizes[group]
            outside = cells - inside
            if inside == 0:
                continue
            sums[row, group] += group_amount[group]
            counted[row, group] += group_found[group]
            if outside == 0:
                continue
            both = float(inside) * outside
            above = 0.5 * (group_ranks2[group] - inside * (inside + 1)) - 0.5 * both
            deviation[row, group] += weight * above
            variance[row, group] += weight * weight * both / 12.0 * spread
            pairs[row, group] += weight * both
            mean_in[row, group] += weight * outside * group_amount[group]
            mean_out[row, group] += weight * inside * (all_amount - group_amount[group])
            detected_in[row, group] += weight * outside * group_found[group]
            detected_out[row, group] += weight * inside * (all_found - group_found[group])
