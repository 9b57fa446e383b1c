"""Small drawings written as SVG by hand: one row of a forest, a histogram with limits, a volcano.

They are drawn in percent of their width, so the same drawing is legible on a wide screen, on a phone and on paper,
with the browser's own text around it. Nothing here takes outside text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from immunomod.report.palette import DOWN, KEPT, NEUTRAL, REMOVED, UP

VOLCANO_WIDTH, VOLCANO_HEIGHT = 340, 230


@dataclass(frozen=True)
class Axis:
    """A linear scale from ``low`` to ``high`` with a margin, in percent of the drawing's width."""

    low: float
    high: float
    margin: float = 3.0

    def percent(self, value: float) -> float:
        """Position of ``value``, held inside the scale."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.margin + share * (100 - 2 * self.margin), 2)

    def ticks(self, n_ticks: int = 6) -> list[float]:
        """Round values inside the scale, about ``n_ticks`` of them."""
        raw = (self.high - self.low) / n_ticks
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(index * step, 10) for index in range(first, last + 1)]


def effect_axis(effects: NDArray[np.float64], lows: NDArray[np.float64], highs: NDArray[np.float64]) -> Axis:
    """A scale that holds 0, every effect and every interval; one much wider than the effects ends in an arrow."""
    values = [0.0, *effects[np.isfinite(effects)]]
    reach = max(max(values) - min(values), 1.0)
    ends = np.concatenate([lows[np.isfinite(lows)], highs[np.isfinite(highs)]])
    held = [*values, *np.clip(ends, min(values) - reach, max(values) + reach)]
    low, high = min(held), max(held)
    pad = max(0.05 * (high - low), 0.05)
    return Axis(min(low - pad, -0.3), max(high + pad, 0.3))


def forest_axis(axis: Axis) -> Markup:
    """Tick labels above the rows of a forest."""
    labels = "".join(
        f'<text x="{axis.percent(tick)}%" y="14" text-anchor="middle" class="tick">{_tick(tick)}</text>'
        for tick in axis.ticks()
    )
    return Markup(f'<svg class="plot" width="100%" height="18" aria-hidden="true">{labels}</svg>')


def forest_row(
    axis: Axis,
    effect: float,
    low: float,
    high: float,
    *,
    significant: bool,
    control: bool,
    expected_sign: str,
    uncorrected: float = math.nan,
) -> Markup:
    """One row: grid, expected side (shaded), interval (arrow where it leaves the scale), and the effect.

    A circle is a programme, a diamond a positive control; filled means fdr below the threshold. A small hollow square
    stands at ``uncorrected``, the effect with leaked RNA left in, where that is given.
    """
    parts = [_expected_side(axis, expected_sign)]
    for tick in axis.ticks():
        css = "zero" if tick == 0 else "grid"
        x = axis.percent(tick)
        parts.append(f'<line x1="{x}%" x2="{x}%" y1="0" y2="100%" class="{css}"/>')
    if math.isfinite(effect):
        colour = (UP if effect > 0 else DOWN) if significant else NEUTRAL
        if math.isfinite(low) and math.isfinite(high):
            left, right = axis.percent(low), axis.percent(high)
            parts.append(f'<line x1="{left}%" x2="{right}%" y1="50%" y2="50%" stroke="{colour}" stroke-width="2"/>')
            if low < axis.low:
                parts.append(_at(left, f'<path d="M5-4 0 0 5 4" fill="none" stroke="{colour}"/>'))
            if high > axis.high:
                parts.append(_at(right, f'<path d="M-5-4 0 0-5 4" fill="none" stroke="{colour}"/>'))
        if math.isfinite(uncorrected):
            square = f'<rect x="-3" y="-3" width="6" height="6" fill="#fff" stroke="{NEUTRAL}"/>'
            parts.append(_at(axis.percent(uncorrected), square))
        shape = '<path d="M0-7 7 0 0 7-7 0z" {}/>' if control else '<circle r="5" {}/>'
        style = f'fill="{colour if significant else "#fff"}" stroke="{colour}" stroke-width="2"'
        parts.append(_at(axis.percent(effect), shape.format(style)))
    return Markup(f'<svg class="plot row" width="100%" height="100%" aria-hidden="true">{"".join(parts)}</svg>')


def histogram(
    values: NDArray[np.float64],
    kept: NDArray[np.bool_],
    axis: Axis,
    limits: Sequence[float],
    *,
    n_bins: int = 44,
    height: int = 40,
) -> Markup:
    """Counts of ``values`` (kept cells, and removed ones stacked upon them) over ``axis``, limits as dashed lines."""
    edges = np.linspace(axis.low, axis.high, n_bins + 1)
    clipped = np.clip(values, axis.low, axis.high)
    usable = np.isfinite(values)
    kept_counts = np.histogram(clipped[usable & kept], edges)[0]
    all_counts = np.histogram(clipped[usable], edges)[0]
    tallest = max(int(all_counts.max(initial=0)), 1)
    bars = [
        _outline(all_counts, tallest, height, REMOVED),
        _outline(kept_counts, tallest, height, KEPT),
    ]
    lines = "".join(
        f'<line x1="{axis.percent(limit)}%" x2="{axis.percent(limit)}%" y1="0" y2="{height}" class="limit"/>'
        for limit in limits
        if math.isfinite(limit) and axis.low <= limit <= axis.high
    )
    start, width = axis.margin, 100 - 2 * axis.margin
    return Markup(
        f'<svg class="hist" width="100%" height="{height}" aria-hidden="true">'
        f'<svg x="{start}%" width="{width}%" height="{height}" viewBox="0 0 {n_bins} {height}" '
        f'preserveAspectRatio="none">{"".join(bars)}</svg>{lines}</svg>'
    )


def fraction_bar(axis: Axis, ambient: tuple[float, float], partner: tuple[float, float]) -> Markup:
    """Two bars from 0: ambient RNA and below it the partner's, each a share with its standard error (as a line).

    A share that is NaN is not drawn.
    """
    parts = []
    for (share, error), top, colour in ((ambient, 1, NEUTRAL), (partner, 10, UP)):
        if not math.isfinite(share):
            continue
        start, end = axis.percent(0.0), axis.percent(share)
        parts.append(f'<rect x="{start}%" width="{end - start:.2f}%" y="{top}" height="7" fill="{colour}"/>')
        if math.isfinite(error):
            left, right = axis.percent(share - error), axis.percent(share + error)
            parts.append(f'<line x1="{left}%" x2="{right}%" y1="{top + 3.5}" y2="{top + 3.5}" class="zero"/>')
    base = f'<line x1="{axis.percent(0.0)}%" x2="{axis.percent(0.0)}%" y1="0" y2="18" class="zero"/>'
    return Markup(f'<svg class="hist" width="100%" height="18" aria-hidden="true">{"".join(parts)}{base}</svg>')


def tick_labels(ticks: Sequence[tuple[float, str]]) -> Markup:
    """Labels below a drawing, each at its percent of the width and held so that it stays inside."""
    labels = "".join(
        f'<text x="{percent}%" y="12" text-anchor="{_anchor(percent)}" class="tick">{label}</text>'
        for percent, label in ticks
    )
    return Markup(f'<svg class="hist" width="100%" height="15" aria-hidden="true">{labels}</svg>')


def volcano(log2_fold_change: NDArray[np.float64], p_value: NDArray[np.float64], fdr: NDArray[np.float64]) -> Markup:
    """Genes by log2 fold change and −log10 p; coloured where fdr is below 0.05. Equal positions are drawn once."""
    usable = np.isfinite(log2_fold_change) & np.isfinite(p_value)
    change, significance = log2_fold_change[usable], -np.log10(np.maximum(p_value[usable], 1e-300))
    called = np.nan_to_num(fdr[usable], nan=1.0) < 0.05
    if change.size == 0:
        return Markup("")
    reach = max(float(np.quantile(np.abs(change), 0.999)), 1.0)
    top = max(float(np.quantile(significance, 0.9995)), 3.0)
    left, right, bottom, upper = 38, VOLCANO_WIDTH - 8, VOLCANO_HEIGHT - 34, 10
    x = left + (np.clip(change, -reach, reach) + reach) / (2 * reach) * (right - left)
    y = bottom - np.clip(significance, 0, top) / top * (bottom - upper)
    parts = []
    for tick in Axis(-reach, reach).ticks(5):
        position = left + (tick + reach) / (2 * reach) * (right - left)
        parts.append(f'<line x1="{position:.0f}" x2="{position:.0f}" y1="{upper}" y2="{bottom}" class="grid"/>')
        parts.append(f'<text x="{position:.0f}" y="{bottom + 14}" text-anchor="middle">{_tick(tick)}</text>')
    for tick in Axis(0, top).ticks(4):
        position = bottom - tick / top * (bottom - upper)
        parts.append(f'<line x1="{left}" x2="{right}" y1="{position:.0f}" y2="{position:.0f}" class="grid"/>')
        parts.append(f'<text x="{left - 5}" y="{position + 4:.0f}" text-anchor="end">{tick:g}</text>')
    for mask, colour in ((~called, REMOVED), (called & (change < 0), DOWN), (called & (change > 0), UP)):
        parts.append(f'<path d="{_dots(x[mask], y[mask])}" stroke="{colour}" class="dots"/>')
    middle = (left + right) // 2
    parts.append(f'<text x="{middle}" y="{VOLCANO_HEIGHT - 4}" text-anchor="middle">log2 fold change</text>')
    parts.append(
        f'<text transform="translate(11 {(bottom + upper) // 2}) rotate(-90)" text-anchor="middle">−log10 p</text>'
    )
    return Markup(
        f'<svg class="volcano" viewBox="0 0 {VOLCANO_WIDTH} {VOLCANO_HEIGHT}" aria-hidden="true">{"".join(parts)}</svg>'
    )


def _dots(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    """A path of zero-length lines, drawn round: a few bytes per gene."""
    points = np.unique(np.column_stack([np.round(x), np.round(y)]).astype(int), axis=0)
    return "".join(f"M{a} {b}h0" for a, b in points)


def _outline(counts: NDArray[np.int64], tallest: int, height: int, colour: str) -> str:
    steps = "".join(
        f"V{height - value / tallest * (height - 2):.1f}H{position + 1}" for position, value in enumerate(counts)
    )
    return f'<path d="M0 {height}{steps}V{height}z" fill="{colour}"/>'


def _expected_side(axis: Axis, expected_sign: str) -> str:
    if expected_sign not in {"+", "-"}:
        return ""
    zero = axis.percent(0.0)
    start, width = (zero, 100 - zero) if expected_sign == "+" else (0.0, zero)
    return f'<rect x="{start:g}%" width="{width:g}%" y="0" height="100%" class="expected"/>'


def _at(percent: float, drawing: str) -> str:
    return f'<svg x="{percent}%" y="50%" overflow="visible">{drawing}</svg>'


def _tick(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def _anchor(percent: float) -> str:
    return "end" if percent > 88 else "start" if percent < 12 else "middle"
