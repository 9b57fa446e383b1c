"""The compiled loops behind marker genes, in a module of their own because importing numba takes time."""

from __future__ import annotations

import numpy as np
from numba import njit, types

_U8, _F4, _F8 = types.uint64[::1], types.float32[::1], types.float64[::1]
_I4, _I8 = types.int32[::1], types.int64[::1]
#: Genes that share a call of the sort.
SORTED_TOGETHER = 64
_F82 = types.float64[:, ::1]


@njit(
    [
        types.int64(index[::1], types.int64, types.int64, types.int64) for index in (types.int32, types.int64)
    ],
    nogil=True, cache=True, inline="always",
)  # fmt: skip
def _lower_bound(indices, begin, end, gene):  # type: ignore[no-untyped-def]
    while begin < end:
        middle = (begin + end) >> 1
        if indices[middle] < gene:
            begin = middle + 1
        else:
            end = middle
    return begin


@njit(
    [types.void(_I8, index[::1], _F4, _I4, types.int64, types.int64, _I8) for index in (types.int32, types.int64)],
    nogil=True,
    cache=True,
)
def count_entries(indptr, indices, data, group, first, stop, start):  # type: ignore[no-untyped-def]
    """``start`` (genes + 1): where the entries of each gene from ``first`` to ``stop`` begin. Columns are sorted."""
    start[:] = 0
    for row in range(len(indptr) - 1):
        if group[row] < 0:
            continue
        end = indptr[row + 1]
        entry = _lower_bound(indices, indptr[row], end, first)
        while entry < end and indices[entry] < stop:
            if data[entry] > 0:
                start[indices[entry] - first + 1] += 1
            entry += 1
    for gene in range(len(start) - 1):
        start[gene + 1] += start[gene]


@njit(
    [types.void(_I8, index[::1], _F4, _I4, types.int64, types.int64, _I8, _U8) for index in (types.int32, types.int64)],
    nogil=True,
    cache=True,
)
def pack_entries(indptr, indices, data, group, first, stop, place, packed):  # type: ignore[no-untyped-def]
    """Gene by gene, every value above zero as one number: its gene (modulo 64), its bits, its cell's group.

    The 31 bits of positive float32 numbers rise with the numbers, so sorting the numbers of up to 64 consecutive genes
    (from a multiple of 64) sorts each gene's values. ``place`` starts
    as :func:`count_entries` left it and ends one gene further.
    """
    bits = data.view(np.uint32)
    for row in range(len(indptr) - 1):
        if group[row] < 0:
            continue
        end = indptr[row + 1]
        label = np.uint64(group[row])
        entry = _lower_bound(indices, indptr[row], end, first)
        while entry < end and indices[entry] < stop:
            if data[entry] > 0:
                gene = indices[entry] - first
                lead = np.uint64(gene % SORTED_TOGETHER) << np.uint64(58)
                packed[place[gene]] = lead | (np.uint64(bits[entry]) << np.uint64(27)) | label
                place[gene] += 1
            entry += 1


@njit(types.void(_U8, _I8, _I8, _F82, _F8, _F82, _F82), nogil=True, cache=True)
def rank_genes(packed, start, group_size, rank_sum, ties, total, detected):  # type: ignore[no-untyped-def]
    """Rank sums within one sample, from what is packed and sorted within genes.

    Filled per gene x group: ``rank_sum`` (ranks from 1, means over ties;
    the zeros are one tie), ``total`` (sum of exp(value) - 1), ``detected`` (values above zero); per gene: ``ties``, the
    sum of t^3 - t.
    """
    n_groups = len(group_size)
    n_cells = group_size.sum()
    low_bits, value_bits = np.uint64((1 << 27) - 1), np.uint64((1 << 31) - 1)
    value = np.empty(1, np.uint32)
    as_float = value.view(np.float32)
    for gene in range(len(start) - 1):
        begin, end = start[gene], start[gene + 1]
        n_zeros = n_cells - (end - begin)
        entries = packed[begin:end]
        of_ties = float(n_zeros) * n_zeros * n_zeros - n_zeros
        position = 0
        while position < len(entries):
            bits = (entries[position] >> np.uint64(27)) & value_bits
            last = position + 1
            while last < len(entries) and (entries[last] >> np.uint64(27)) & value_bits == bits:
                last += 1
            n_tied = last - position
            of_ties += float(n_tied) * n_tied * n_tied - n_tied
            rank = n_zeros + position + 0.5 * (n_tied + 1)
            value[0] = np.uint32(bits)
            linear = np.float64(np.expm1(as_float[0]))
            for entry in range(position, last):
                group = entries[entry] & low_bits
                rank_sum[gene, group] += rank
                total[gene, group] += linear
                detected[gene, group] += 1.0
            position = last
        ties[gene] = of_ties
        for group in range(n_groups):
            rank_sum[gene, group] += (group_size[group] - detected[gene, group]) * 0.5 * (n_zeros + 1)
