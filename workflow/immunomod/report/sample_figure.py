"""One sample in one picture: every limit over its distribution, what each step removed, its rank curve, what leaked."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from immunomod.report.inputs import records
from immunomod.report.maps import literal
from immunomod.report.palette import KEPT, NEUTRAL, REMOVED, UP
from immunomod.report.quality import (
    KIND_LABELS,
    METRICS,
    Metric,
    doublet_lines,
    fate_of,
    kept_cells,
    limits_of,
    metric_values,
    of_sample,
    partner_lines,
    percent,
    reasons_of,
    steps_of,
)
from immunomod.report.values import number, numbers, text
from immunomod.report.words import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 11.0
_ROW, _GAP, _TITLE_LINE = 1.35, 0.95, 0.17
_LEFT, _RIGHT = 0.055, 0.978
_SMALL = 6.5
_LONGEST_NAME = 45
Panel = tuple[str, str, Callable[["Axes"], None]]


def sample_figure(
    row: Mapping[str, object],
    cells: pd.DataFrame,
    ambient: pd.DataFrame,
    ranks: pd.DataFrame,
    *,
    keeps_failed: bool = False,
) -> Figure:
    """The sample's figure; panels without anything to show are left out.

    Parameters
    ----------
    row
        The sample's row of ``qc.tsv``.
    cells, ambient, ranks
        Its ``cells.tsv.gz``, ``ambient.tsv`` and ``barcode_ranks.tsv``, any of them empty.
    keeps_failed
        Whether a failed sample stays in the contrasts.
    """
    from immunomod.report.figures import new_figure

    held = of_sample(cells)
    small = [_metric_panel(row, held, one) for one in METRICS if numbers(held, one.name).notna().any()]
    wide = _wide_panels(row, ambient, ranks)
    title = _title(row, keeps_failed)
    n_rows = -(-len(small) // 4) + (1 if wide else 0)
    header = 0.3 + _TITLE_LINE * len(title)
    height = header + max(n_rows, 1) * (_ROW + _GAP)
    figure = new_figure(WIDTH, height)
    for position, line in enumerate(title):
        weight, size = ("bold", 10) if position == 0 else ("normal", 7.5)
        y = 1 - (0.16 + _TITLE_LINE * position) / height
        figure.text(0.012, y, literal(line), weight=weight, size=size, va="center")
    if small:
        key = "teal: kept; grey: removed; dashed: limits of this sample"
        figure.text(_RIGHT, 1 - 0.16 / height, key, size=_SMALL, color=NEUTRAL, va="center", ha="right")
    top = height - header
    for start in range(0, len(small), 4):
        _place(figure, small[start : start + 4], 4, top, height)
        top -= _ROW + _GAP
    if wide:
        _place(figure, wide, max(len(wide), 2), top, height)
    return figure


def _title(row: Mapping[str, object], keeps_failed: bool) -> list[str]:
    """Name and verdict, then the reasons."""
    verdict = text(row.get("verdict"))
    fate = fate_of(verdict, keeps_failed=keeps_failed)
    said = {"warn": "passes with a warning", "fail": "failed"}.get(verdict, "passes" if verdict else "")
    name = text(row["sample"])
    name = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
    head = f"{name}: {said}" if said else name
    reasons = "; ".join(reasons_of(row))
    return [
        head + (f", {fate}" if fate else ""),
        *textwrap.wrap(reasons, 165, max_lines=4, placeholder=" …"),
    ]


def _place(figure: Figure, panels: list[Panel], n_columns: int, top: float, height: float) -> None:
    """Draw panels side by side, each below its title and a line of small print; ``top`` in inches."""
    gap = 0.05 if n_columns == 4 else 0.125
    left = _LEFT if n_columns == 4 else 0.12
    width = (_RIGHT - left - gap * (n_columns - 1)) / n_columns
    for column, (title, small_print, draw) in enumerate(panels):
        bottom = (top - 0.42 - _ROW) / height
        axes = figure.add_axes((left + column * (width + gap), bottom, width, _ROW / height))
        axes.tick_params(labelsize=_SMALL)
        axes.text(0, 1.16, title, transform=axes.transAxes, weight="bold", size=8, va="bottom")
        axes.text(0, 1.04, literal(small_print), transform=axes.transAxes, size=_SMALL, color=NEUTRAL, va="bottom")
        draw(axes)
        if n_columns == 4 and column == 0:
            axes.set_ylabel("cells", fontsize=_SMALL)


def _metric_panel(row: Mapping[str, object], cells: pd.DataFrame, metric: Metric) -> Panel:
    words = [limit.words for limit in limits_of(row, metric)]
    return (
        metric.title,
        ", ".join(words) or ("" if metric.name == "partner_doublet_score" else "no limit"),
        partial(_draw_metric, row=row, cells=cells, metric=metric),
    )


def _draw_metric(axes: Axes, row: Mapping[str, object], cells: pd.DataFrame, metric: Metric) -> None:
    """Kept cells, removed ones stacked upon them, and limits as dashed lines, each of them in view."""
    from matplotlib.ticker import MaxNLocator

    values, kept = metric_values(cells, metric), kept_cells(cells)
    usable = np.isfinite(values)
    limits = [limit.value for limit in limits_of(row, metric)]
    at = [math.log10(max(value, 1.0)) if metric.log else value for value in limits]
    low, high = min([*values[usable], *at]), max([*values[usable], *at])
    pad = max(0.03 * (high - low), (metric.narrowest - (high - low)) / 2)
    floor = low - pad if metric.log or low - pad > 0 else min(low, 0.0) - 0.02 * (high - low + pad)
    edges = np.linspace(floor, high + pad, min(60, max(15, int(2 * math.sqrt(usable.sum())))) + 1)
    for chosen, colour in ((usable, REMOVED), (usable & kept, KEPT)):
        axes.stairs(np.histogram(values[chosen], edges)[0], edges, fill=True, color=colour)
    for value in at:
        axes.axvline(value, color=UP, linewidth=1.0, linestyle=(0, (3, 2)))
    below = {
        "complexity": ["log10 genes / log10 molecules"],
        "doublet_score": doublet_lines(row),
        "partner_doublet_score": partner_lines(row),
    }
    axes.set_xlabel(", ".join(below.get(metric.name, [])), loc="left", fontsize=_SMALL)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    if metric.log:
        decades = np.arange(math.floor(edges[0]), math.ceil(edges[-1]) + 1)
        between = (0.0, math.log10(3)) if edges[-1] - edges[0] < 2.2 else (0.0,)
        ticks = [d + s for d in decades for s in between if edges[0] <= d + s <= edges[-1]]
        axes.set_xticks(ticks, [f"{10**tick:,.0f}" for tick in ticks])
    else:
        axes.locator_params(axis="x", nbins=6)


def _wide_panels(row: Mapping[str, object], ambient: pd.DataFrame, ranks: pd.DataFrame) -> list[Panel]:
    panels: list[Panel] = []
    if len(ranks):
        called, knee = count(number(row.get("cells_called"))), number(row.get("knee"))
        words = f"{called} called by {text(row.get('calling_method')) or 'the run'}"
        words += f", knee at {count(knee)}" if math.isfinite(knee) else ""
        panels.append(("Droplets by their molecules", words, partial(_draw_ranks, row=row, ranks=ranks)))
    before, after = number(row.get("cells_before")), number(row.get("cells_after"))
    if before > 0 and math.isfinite(after):
        outside = sum(step.n for step in steps_of(row) if not step.of_sample)
        words = f"{count(after)} of {count(before - outside)} cells kept" + (
            f"; {count(before)} droplets in all" if outside else ""
        )
        panels.append(("What each step removed", words, partial(_draw_steps, row=row)))
    known = [one for one in records(ambient) if math.isfinite(number(one.get("ambient_fraction")))]
    known += [
        one for one in records(ambient) if one not in known and math.isfinite(number(one.get("partner_fraction")))
    ]
    if known:
        panels.append(("Leaked RNA by kind of cell", _leaked_words(row), partial(_draw_leakage, kinds=known)))
    return panels


def _leaked_words(row: Mapping[str, object]) -> str:
    named = (("ambient_fraction", "ambient"), ("partner_fraction", "the partner's"))
    known = [(number(row.get(name)), words) for name, words in named]
    shares = ", ".join(f"{percent(share)} {words}" for share, words in known if math.isfinite(share))
    return f"all cells: {shares}" if shares else ""


def _draw_ranks(axes: Axes, row: Mapping[str, object], ranks: pd.DataFrame) -> None:
    """The rank curve, in teal as far as droplets were called cells."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import LinearSegmentedColormap

    rank, total, share = (numbers(ranks, name).to_numpy(dtype=float) for name in ("rank", "total", "cell_share"))
    points = np.column_stack([rank, total])
    axes.set_xscale("log")
    axes.set_yscale("log")
    if len(points) > 1:
        segments = np.stack([points[:-1], points[1:]], axis=1)
        colours = LinearSegmentedColormap.from_list("cells", [REMOVED, KEPT])(np.clip(share[1:], 0, 1))
        axes.add_collection(LineCollection(list(segments), colors=colours, linewidths=2.2))
    else:
        axes.plot(rank, total, "o", color=KEPT)
    axes.set_xlim(0.9, rank.max() * 1.2)
    axes.set_ylim(max(total.min() * 0.8, 0.8), total.max() * 1.5)
    for name, colour, side in (("knee", UP, "bottom"), ("inflection", NEUTRAL, "top")):
        value = number(row.get(name))
        if math.isfinite(value) and value > 0:
            axes.axhline(value, color=colour, linewidth=0.9, linestyle=(0, (3, 2)))
            axes.text(1.0, value, name, size=_SMALL, color=colour, va=side)
    axes.minorticks_off()
    axes.set_xlabel("rank of the droplet", fontsize=_SMALL)
    axes.set_ylabel("molecules", fontsize=_SMALL)


def _draw_steps(axes: Axes, row: Mapping[str, object]) -> None:
    """A waterfall from the droplets with a cell of the sample to the cells kept; other droplets are only named."""
    steps = steps_of(row)
    outside = [step for step in steps if not step.of_sample]
    left = int(number(row["cells_before"])) - sum(step.n for step in outside)
    bars = [("cells of the sample", 0, left, NEUTRAL)]
    for step in steps:
        if step.of_sample:
            left -= step.n
            bars.append((step.words, left, step.n, REMOVED))
    after = int(number(row["cells_after"]))
    bars.append(("kept", 0, after, KEPT))
    widest = max(bars[0][2], 1)
    for position, (_, start, length, colour) in enumerate(bars):
        axes.barh(position, length, left=start, color=colour, height=0.72)
        shown = f"{length:,}" if colour != REMOVED else f"−{length:,}"
        axes.text(start + length + 0.012 * widest, position, shown, size=_SMALL, va="center")
    axes.set_yticks(range(len(bars)), [name for name, *_ in bars])
    axes.set_ylim(max(len(bars), 4) - 0.5, -0.6)
    axes.set_xlim(0, 1.15 * widest)
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=5)
    if outside:
        named = ", ".join(f"{step.n:,} {step.words}" for step in outside)
        axes.set_xlabel(literal(textwrap.shorten(f"before: {named}", 70, placeholder=" …")), fontsize=_SMALL)


def _draw_leakage(axes: Axes, kinds: list[dict[str, object]]) -> None:
    """Ambient RNA and the partner's of each kind of cell, with 95% intervals."""
    for position, row in enumerate(kinds):
        for name, offset, colour in (("ambient", -0.19, NEUTRAL), ("partner", 0.19, UP)):
            share, error = 100 * number(row.get(f"{name}_fraction")), 100 * number(row.get(f"{name}_fraction_se"))
            if math.isfinite(share):
                xerr = [[min(1.96 * error, share)], [1.96 * error]] if math.isfinite(error) else None
                style = {"elinewidth": 0.9, "ecolor": "#17212b"}
                axes.barh(position + offset, share, height=0.34, color=colour, xerr=xerr, error_kw=style)
    labels = [
        f"{KIND_LABELS.get(text(row.get('group')), text(row.get('group')))} ({count(number(row.get('n_cells')))})"
        for row in kinds
    ]
    axes.set_yticks(range(len(kinds)), [literal(label) for label in labels])
    axes.set_ylim(max(len(kinds), 3) - 0.4, -0.6)
    axes.set_xlim(0, max(axes.get_xlim()[1], 1.0))
    axes.tick_params(axis="y", length=0)
    words = "% of molecules, with 95% intervals\ngrey: ambient; red: the partner's"
    axes.set_xlabel(words, loc="left", fontsize=_SMALL)
