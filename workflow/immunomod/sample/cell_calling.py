"""Which droplets of an unfiltered library hold a cell: methods as rows of a registry, and the rank curve.

A filtered matrix is recognised by what it lacks, droplets that are nearly empty, and left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from immunomod.errors import UserError
from immunomod.sample.settings import CallingSettings
from immunomod.sample.sums import cell_sums

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

#: The highest ranks have steep steps by chance; DropletUtils leaves out as many.
_RANKS_LEFT_OUT = 50
# A gap parts cells from what lies below where, on the scale of log(total), droplets are at most this share as dense as
# somewhere above. Density is counted within a factor either way; the densest window holds at least so many droplets.
_GAP_SHARE = 0.25
_GAP_WINDOW = 1.25
_GAP_STEP = 0.05
_MIN_ABOVE_GAP = 20
#: Below so many times ``lower`` no gap is believed: debris leaves one just above ``lower``.
_GAP_TIMES_LOWER = 5
#: Without a gap no droplet with fewer than this many times ``lower`` counts is kept untested: a library of empty
#: droplets alone has a knee all the same, and one rich in ambient RNA has a second.
_RETAIN_TIMES_LOWER = 10
# A matrix is unfiltered where at least so many droplets, and such a share, hold at most `lower` counts, and they are no
# tail of small cells: they are very many, reach far down, or lie far below the largest droplets.
_MIN_EMPTY = 200
_MIN_EMPTY_SHARE = 0.2
_MANY_EMPTY = 20_000
_REACH_DOWN = 3.0
_REACH_UP = 20.0
# A matrix was probably cut off at a number of counts where most droplets have less than twice as many.
_MIN_DROPLETS_CUT_OFF = 1000
_SHARE_CUT_OFF = 0.5
_CURVE_POINTS = 300


@dataclass(frozen=True)
class CellCalls:
    """Which droplets hold cells.

    Attributes
    ----------
    method
        The method that was used; ``none`` where nothing was called.
    is_cell
        (droplets,) All of them where nothing was called.
    applied
        Whether droplets were told apart.
    total
        (droplets,) counts.
    p_value, fdr
        (droplets,) of the test against the ambient profile, NaN for untested droplets.
    knee, inflection
        Totals at these points of the rank curve, NaN where it has none.
    retain
        Droplets with at least this total are cells without a test; NaN where nothing was tested.
    lower
        Droplets with at most this total are empty.
    n_empty
        Droplets with counts from which the ambient profile was taken.
    ambient_counts
        (genes,) sum over these; None where there are none.
    alpha
        Of the ambient Dirichlet-multinomial: infinite for the multinomial, NaN where nothing was tested.
    note
        What was done and why, in words.
    """

    method: str
    is_cell: Bools
    applied: bool
    total: Ints
    p_value: Floats
    fdr: Floats
    knee: float
    inflection: float
    retain: float
    lower: int
    n_empty: int
    ambient_counts: Ints | None
    alpha: float
    note: str

    def rank_curve(self, n_points: int = _CURVE_POINTS) -> pd.DataFrame:
        """The rank curve, thinned to at most ``n_points`` on the scale of log(rank), for a knee plot.

        Returns
        -------
        ``rank`` (from 1, of the last droplet of a point), ``total`` (its counts), ``cell_share`` (of cells among the
        droplets since the point before), from the largest droplet to the smallest with a count.
        """
        order = np.argsort(-self.total, kind="stable")
        order = order[: int((self.total > 0).sum())]
        n = len(order)
        if n == 0:
            return pd.DataFrame({"rank": np.zeros(0, int), "total": np.zeros(0, int), "cell_share": np.zeros(0)})
        rank = np.unique(np.round(np.geomspace(1, n, min(n, n_points))).astype(np.int64))
        cells = np.cumsum(self.is_cell[order])[rank - 1]
        share = np.diff(cells, prepend=0) / np.diff(rank, prepend=0)
        return pd.DataFrame({"rank": rank, "total": self.total[order][rank - 1], "cell_share": share})


@dataclass(frozen=True)
class RankPoints:
    """``knee`` and ``inflection`` of a rank curve (totals), NaN where the curve is too short."""

    knee: float
    inflection: float


def rank_points(totals: Ints, lower: int) -> RankPoints:
    """Knee and inflection of the curve of log(total) over log(rank), as DropletUtils::barcodeRanks.

    Of the droplets above ``lower``, one point per distinct total at its mean rank, the inflection is where the curve
    falls steepest, and the plateau where it is flattest before that; the first 50 ranks are left out. The knee is the
    point furthest above the line from plateau to inflection, as in DropletUtils from version 1.27: the minimum of a
    smoothing spline's curvature, which it used before, was unstable.
    """
    distinct, n_droplets = np.unique(totals[totals > lower], return_counts=True)
    if len(distinct) < 3:
        return RankPoints(float("nan"), float("nan"))
    distinct, n_droplets = distinct[::-1], n_droplets[::-1]
    y = np.log10(distinct)
    x = np.log10(np.cumsum(n_droplets) - (n_droplets - 1) / 2)
    slope = np.diff(y) / np.diff(x)
    skip = min(len(slope) - 1, int((x <= np.log10(_RANKS_LEFT_OUT)).sum()))
    right = skip + int(np.argmin(slope[skip:]))
    left = skip + int(np.argmax(slope[skip : right + 1]))
    inflection = float(distinct[right])
    if right - left < 3:
        return RankPoints(float(distinct[left]), inflection)
    x, y = x[left : right + 1], y[left : right + 1]
    above_line = y - y[0] - (y[-1] - y[0]) / (x[-1] - x[0]) * (x - x[0])
    return RankPoints(float(distinct[left + int(np.argmax(above_line))]), inflection)


def retained_from(totals: Ints, lower: int, knee: float) -> float:
    """The total from which droplets are cells without a test.

    Lun et al. retain droplets above the knee, and the test must find the rest. Where all cells are of one type, empty
    droplets hold the same RNA as they do, and the test finds none of those below the knee, up to half of the cells. So
    where a gap parts the cells from what lies below, they are retained down to it; else from the knee.
    """
    floor = float(_GAP_TIMES_LOWER * lower)
    ascending = np.sort(totals[totals >= floor / _GAP_WINDOW])
    if knee > floor and len(ascending):
        total = np.exp(np.arange(np.log(floor), np.log(ascending[-1]) + _GAP_STEP, _GAP_STEP))
        begin, end = np.searchsorted(ascending, [total / _GAP_WINDOW, total * _GAP_WINDOW])
        density = end - begin
        densest_above = np.maximum.accumulate(density[::-1])[::-1]
        share = np.where(densest_above >= _MIN_ABOVE_GAP, density / np.maximum(densest_above, 1), 1.0)[total <= knee]
        if share.min() <= _GAP_SHARE:
            return float(np.round(total[int(np.argmin(share))]))
    return float(np.fmax(knee, _RETAIN_TIMES_LOWER * lower))


def holds_empty_droplets(totals: Ints, lower: int) -> bool:
    """Whether a matrix is unfiltered, from its droplets' totals.

    Small cells, however many, do not reach down to a few counts as empty droplets do, nor lie as far below the largest
    ones; barcodes without a count say nothing, since readers and authors drop them.
    """
    counted = totals[totals > 0]
    low = counted[counted <= lower]
    if len(low) < max(_MIN_EMPTY, _MIN_EMPTY_SHARE * len(counted)):
        return False
    reaches_down = lower / np.quantile(low, 0.1) >= _REACH_DOWN
    lies_far_below = np.quantile(counted, 0.99) / np.median(low) >= _REACH_UP
    return bool(len(low) >= _MANY_EMPTY or reaches_down or lies_far_below)


@dataclass(frozen=True)
class Method:
    """A way to call cells.

    ``run(counts, totals, settings, seed)`` takes droplets x genes counts (CSR) of one library and their row sums.
    """

    name: str
    citation: str
    needs: str
    limits: str
    run: Callable[[sparse.csr_matrix, Ints, CallingSettings, int], CellCalls]


def _leave_alone(totals: Ints, lower: int, note: str) -> CellCalls:
    unknown = np.full(len(totals), np.nan)
    nan = float("nan")
    every = np.ones(len(totals), dtype=bool)
    return CellCalls("none", every, False, totals, unknown, unknown, nan, nan, nan, lower, 0, None, nan, note)


def _run_none(_counts: sparse.csr_matrix, totals: Ints, settings: CallingSettings, _seed: int) -> CellCalls:
    return _leave_alone(totals, settings.lower, "cells not called: no method was asked for")


def _run_auto(counts: sparse.csr_matrix, totals: Ints, settings: CallingSettings, seed: int) -> CellCalls:
    """EmptyDrops for a matrix that holds empty droplets; any other one is left alone."""
    if holds_empty_droplets(totals, settings.lower):
        return _run_emptydrops(counts, totals, settings, seed)
    counted = totals[totals > 0]
    n_low = int((counted <= settings.lower).sum())
    said = (
        f"cells not called: a filtered matrix ({n_low:,} of {len(totals):,} droplets hold 1 to {settings.lower} counts)"
    )
    if len(counted) >= _MIN_DROPLETS_CUT_OFF:
        least = float(np.quantile(counted, 0.01))
        share = float((counted < 2 * least).mean())
        if share >= _SHARE_CUT_OFF:
            said = (
                f"cells not called: {100 * share:.0f}% of the droplets hold {least:.0f} to {2 * least:.0f} counts, so "
                f"this may be an unfiltered matrix cut off there, without empty droplets to learn from; fixed limits "
                f"alone apply (calling.method: knee cuts at the rank curve's steepest fall)"
            )
    return _leave_alone(totals, settings.lower, said)


def _run_knee(counts: sparse.csr_matrix, totals: Ints, settings: CallingSettings, _seed: int) -> CellCalls:
    """Cells are the droplets from the inflection up: the steepest fall is what parts the two populations."""
    from immunomod.sample.empty_drops import counts_of_counts

    points = rank_points(totals, settings.lower)
    if np.isnan(points.inflection):
        note = f"cells not called: too few droplets above {settings.lower} counts for a rank curve"
        return _leave_alone(totals, settings.lower, note)
    empty = (totals > 0) & (totals <= settings.lower)
    is_cell = totals >= points.inflection
    note = f"{is_cell.sum():,} cells called of {len(totals):,} droplets: {points.inflection:.0f} counts or more"
    return replace(
        _leave_alone(totals, settings.lower, note),
        method="knee",
        is_cell=is_cell,
        applied=True,
        knee=points.knee,
        inflection=points.inflection,
        n_empty=int(empty.sum()),
        ambient_counts=counts_of_counts(counts, empty).sum(axis=0) if empty.any() else None,
    )


def _run_emptydrops(counts: sparse.csr_matrix, totals: Ints, settings: CallingSettings, seed: int) -> CellCalls:
    """Droplets unlike the ambient profile, and those above the knee."""
    from immunomod.sample.empty_drops import ambient_model, compare_with_ambient

    lower = settings.lower
    n_empty = int(((totals > 0) & (totals <= lower)).sum())
    if n_empty == 0:
        note = (
            f"cells not called: no droplet with 1 to {lower} counts to learn the ambient profile from (calling.lower)"
        )
        return _leave_alone(totals, lower, note)
    points = rank_points(totals, lower)
    retain = settings.retain or retained_from(totals, lower, points.knee)
    retained = totals >= retain
    tested = (totals > lower) & ~retained
    n_retained, n_tested = int(retained.sum()), int(tested.sum())
    model = ambient_model(counts, totals, lower)
    result = compare_with_ambient(counts, tested, totals, model, n_retained, settings.fdr, settings.n_iterations, seed)
    p_value, fdr = np.full(len(totals), np.nan), np.full(len(totals), np.nan)
    p_value[tested], fdr[tested] = result.p_values, result.fdr
    is_cell = retained | (fdr <= settings.fdr)
    note = (
        f"{is_cell.sum():,} cells called of {len(totals):,} droplets: {n_retained:,} with {retain:.0f} counts or more, "
        f"and {is_cell.sum() - n_retained:,} of {n_tested:,} tested ones unlike the ambient profile of {n_empty:,} "
        f"empty droplets"
    )
    if result.n_limited:
        note += (
            f"; {result.n_limited:,} more may be called with more than {result.n_draws:,} draws (calling.n_iterations)"
        )
    return CellCalls(
        method="emptydrops",
        is_cell=is_cell,
        applied=True,
        total=totals,
        p_value=p_value,
        fdr=fdr,
        knee=points.knee,
        inflection=points.inflection,
        retain=retain,
        lower=lower,
        n_empty=n_empty,
        ambient_counts=model.counts,
        alpha=model.alpha,
        note=note,
    )


REGISTRY: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="auto",
            citation="",
            needs="nothing",
            limits="leaves a matrix alone from which droplets with few counts were removed",
            run=_run_auto,
        ),
        Method(
            name="emptydrops",
            citation="Lun et al. 2019, Genome Biol. 20:63, doi:10.1186/s13059-019-1662-y",
            needs="an unfiltered matrix, with droplets of at most `lower` counts",
            limits="calls debris unlike the ambient profile; misses small cells that are like it",
            run=_run_emptydrops,
        ),
        Method(
            name="knee",
            citation="the inflection of DropletUtils::barcodeRanks, Lun et al. 2019, doi:10.1186/s13059-019-1662-y",
            needs="an unfiltered matrix, empty droplets or not",
            limits="misses small cells, and calls the largest droplets of a library without cells",
            run=_run_knee,
        ),
        Method(
            name="none",
            citation="",
            needs="nothing",
            limits="leaves every empty droplet in",
            run=_run_none,
        ),
    )
}


def call_cells(counts: sparse.csr_matrix, settings: CallingSettings, seed: int) -> CellCalls:
    """Call cells by the method of the settings.

    Parameters
    ----------
    counts
        droplets x genes, canonical CSR of integers; barcodes without a count may be left out.
    seed
        Of the Monte Carlo draws; equal seeds give equal calls.

    Raises
    ------
    UserError
        There is no such method.
    """
    if settings.method not in REGISTRY:
        raise UserError(f"config: calling.method is {settings.method!r}; it must be one of {', '.join(REGISTRY)}.")
    totals = cell_sums(counts)
    return REGISTRY[settings.method].run(counts, totals, settings, seed)
