"""The compiled loop of the map, in a module of its own because importing numba takes time."""

from __future__ import annotations

import numpy as np
from numba import njit, types

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@njit(types.uint64(types.uint64), nogil=True, cache=True, inline="always")
def _mixed(state):  # type: ignore[no-untyped-def]
    """SplitMix64's output function (Steele, Lea and Flood 2014): a counter becomes a random number."""
    state = (state ^ (state >> np.uint64(30))) * _MIX_1
    state = (state ^ (state >> np.uint64(27))) * _MIX_2
    return state ^ (state >> np.uint64(31))


@njit(
    types.void(
        types.float32[:, ::1], types.float32[:, ::1], types.int64[::1], types.int32[::1], types.float32[::1],
        types.int64, types.int64, types.int64, types.int64, types.float32, types.float32, types.uint64,
    ),
    nogil=True, cache=True, fastmath=True,
)  # fmt: skip
def move_cells(layout, moved, first_edge, other_end, rate, start, stop, epoch, negatives, a, step, seed):  # type: ignore[no-untyped-def]
    """One epoch of cells ``start`` to ``stop``: ``moved`` gets their places after all pulls and pushes in ``layout``.

    An edge is due whenever ``epoch x rate`` passes a whole number. Every edge stands in both cells' rows, so a cell
    need only move itself; no two threads write one place, and the result is the same for any number of them.
    """
    n_cells = np.uint64(layout.shape[0])
    one, two, four, tiny = np.float32(1), np.float32(2), np.float32(4), np.float32(1e-3)
    for cell in range(start, stop):
        x, y = layout[cell, 0], layout[cell, 1]
        move_x, move_y = np.float32(0), np.float32(0)
        for edge in range(first_edge[cell], first_edge[cell + 1]):
            if np.floor((epoch + 1) * rate[edge]) == np.floor(epoch * rate[edge]):
                continue
            other = other_end[edge]
            dx, dy = x - layout[other, 0], y - layout[other, 1]
            squared = dx * dx + dy * dy
            pull = np.float32(-4) * a / (one + a * squared)
            move_x += min(max(pull * dx, -four), four)
            move_y += min(max(pull * dy, -four), four)
            for draw in range(negatives):
                counter = np.uint64(edge) * np.uint64(negatives) + np.uint64(draw)
                random = _mixed(seed + _GOLDEN * (counter + np.uint64(1)))
                far = np.int64(((random >> np.uint64(32)) * n_cells) >> np.uint64(32))
                if far == cell:
                    continue
                dx, dy = x - layout[far, 0], y - layout[far, 1]
                squared = dx * dx + dy * dy
                push = two / ((tiny + squared) * (one + a * squared))
                move_x += min(max(push * dx, -four), four)
                move_y += min(max(push * dy, -four), four)
        moved[cell, 0] = x + step * min(max(move_x, -four), four)
        moved[cell, 1] = y + step * min(max(move_y, -four), four)
