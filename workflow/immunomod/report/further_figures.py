"""Figures for papers beside the forest, the heat map and the maps: each shows what a drawing of the page shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from immunomod.report import effect_rows, views
from immunomod.report.inputs import Atlas, Contrast, ReportTables, records
from immunomod.report.maps import literal
from immunomod.report.palette import (
    DOWN,
    NEUTRAL,
    REMOVED,
    UP,
    class_colours,
    class_label,
    class_order,
)
from immunomod.report.potency_view import Potency, Variance, potency_tables, variance_view
from immunomod.report.values import number, numbers, text
from immunomod.report.words import FDR_THRESHOLD, slug

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: A bar or heat map of more rows than this is no figure any more.
N_ROWS = 120
N_MARKERS = 6
Bars = Sequence[tuple[str, Sequence[tuple[str, str, float]]]]


def further_figures(tables: ReportTables) -> Iterator[tuple[str, Figure]]:
    """Stem of the file name, and figure, of everything that has something to show."""
    titles = tables.programs.table["title"]
    for contrast in tables.contrasts:
        yield from _of_contrast(contrast)
    for atlas in tables.atlases:
        yield from _of_atlas(atlas)
    for potency in potency_tables(tables.potency, titles):
        yield f"potency_{slug(potency.heading.replace(', ', '_'))}", potency_figure(potency)
    variance = variance_view(tables.variance, titles)
    if variance is not None and variance.rows:
        yield "variance_programs", variance_figure(variance)
    pooled = effect_rows.pooled_tables(tables.synthesis, titles)
    if any(table.rows for table in pooled):
        yield "pooled_effects", effects_figure(pooled)


def _of_contrast(contrast: Contrast) -> Iterator[tuple[str, Figure]]:
    composition = effect_rows.composition_table(contrast)
    named = (
        ("composition", [composition] if composition else []),
        ("fractions", effect_rows.fraction_tables(contrast)),
        ("communication", effect_rows.communication_tables(contrast)),
        ("disease", effect_rows.disease_tables(contrast)),
    )
    for stem, found in named:
        filled = [table for table in found if any(np.isfinite(row.value) for row in table.rows)]
        if filled:
            yield f"{stem}_{slug(contrast.name)}", effects_figure(filled)
    volcanoes = {name: genes for name in class_order(contrast.genes) if _has_tests(genes := contrast.genes[name])}
    if volcanoes:
        yield f"volcano_{slug(contrast.name)}", volcano_figure(volcanoes)


def _of_atlas(atlas: Atlas) -> Iterator[tuple[str, Figure]]:
    for part in views.composition_bars(atlas.cells):
        bars = [(f"{bar.sample} ({bar.n_cells})", bar.segments) for bar in part.bars]
        figure = bars_figure(bars, part.legend, f"% of {part.compartment} cells")
        yield f"composition_{slug(atlas.name)}_{slug(part.compartment)}", figure
    if {"grouping", "group", "gene_symbol", "detected_in", "detected_out", "rank"} <= set(atlas.markers):
        classes = atlas.markers[atlas.markers["grouping"].map(text) == "cell_class"]
        if len(classes):
            yield f"markers_{slug(atlas.name)}", markers_figure(classes)


def effects_figure(found: Sequence[effect_rows.EffectTable]) -> Figure:
    """Estimates with their intervals, a panel for each table; filled where fdr is below the threshold."""
    from immunomod.report.figures import new_figure

    shown = [[row for row in table.rows if np.isfinite(row.value)][:N_ROWS] for table in found]
    heights = [0.24 * len(rows) + 0.15 for rows in shown]
    height = sum(heights) + 0.75 * len(shown) + 0.3
    figure = new_figure(7.0, height)
    top = height - 0.3
    for table, rows, panel in zip(found, shown, heights, strict=True):
        axes = figure.add_axes((0.44, (top - panel) / height, 0.53, panel / height))
        _draw_effects(axes, rows)
        axes.set_title(literal(table.heading))
        axes.set_xlabel(f"{table.unit} (95% interval)", fontsize=7)
        top -= panel + 0.75
    figure.text(0.01, 0.02 / height, f"filled: fdr < {FDR_THRESHOLD}", fontsize=6.5)
    return figure


def _draw_effects(axes: Axes, rows: Sequence[effect_rows.EffectRow]) -> None:
    axes.axvline(0, color="#333333", linewidth=0.8)
    values = [row.value for row in rows]
    reach = max(max([*values, 0.0]) - min([*values, 0.0]), 0.5)
    low, high = min([*values, 0.0]) - reach, max([*values, 0.0]) + reach
    for position, row in enumerate(rows):
        colour = (UP if row.value > 0 else DOWN) if row.significant else NEUTRAL
        axes.plot(np.clip([row.low, row.high], low, high), [position, position], color=colour, linewidth=1.2)
        face = colour if row.significant else "white"
        axes.plot(row.value, position, marker="o", markersize=4.5, color=colour, markerfacecolor=face)
    labels = [literal(f"{row.label}, {row.sub}" if row.sub else row.label) for row in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=6.5)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def bars_figure(bars: Bars, legend: Sequence[tuple[str, str]], unit: str) -> Figure:
    """Stacked bars of shares that add up to 100."""
    from matplotlib.patches import Patch

    from immunomod.report.figures import new_figure

    shown = bars[:N_ROWS]
    height = 0.2 * len(shown) + 1.3
    figure = new_figure(7.0, height)
    axes = figure.add_axes((0.34, 0.45 / height, 0.64, 0.2 * len(shown) / height))
    for position, (_, segments) in enumerate(shown):
        left = 0.0
        for _, colour, share in segments:
            axes.barh(position, share, left=left, height=0.8, color=colour, edgecolor="white", linewidth=0.4)
            left += share
    axes.set_yticks(range(len(shown)), [literal(label) for label, _ in shown], fontsize=6.5)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(unit, fontsize=7)
    handles = [Patch(color=colour, label=literal(label)) for label, colour in legend]
    figure.legend(handles=handles, loc="upper center", ncols=4, frameon=False, fontsize=6.5)
    return figure


def variance_figure(variance: Variance) -> Figure:
    """The split of the variance of each programme's response."""
    several = len({row.contrast for row in variance.rows}) > 1
    bars = [(f"{row.title}, {row.contrast}" if several else row.title, row.segments) for row in variance.rows]
    return bars_figure(bars, variance.legend, "% of the variance of the responses")


def potency_figure(potency: Potency) -> Figure:
    """Responses of MSC donors, with the ranks that the data leave open."""
    from matplotlib.patches import Rectangle

    from immunomod.report.figures import new_figure

    rows = potency.rows[:N_ROWS]
    width, height = 3.4 + 0.85 * len(potency.donors), 0.3 * len(rows) + 1.1
    figure = new_figure(width, height)
    axes = figure.add_axes((3.2 / width, 0.2 / height, 0.85 * len(potency.donors) / width, 0.3 * len(rows) / height))
    for line, row in enumerate(rows):
        for column, (cell, rank) in enumerate(row.cells):
            box = Rectangle((column - 0.5, line - 0.5), 1, 1, facecolor=cell.background, edgecolor="white")
            axes.add_patch(box)
            said = f"{cell.text}\n{rank}" if rank else cell.text
            axes.text(column, line, said, ha="center", va="center", fontsize=5.5, color=cell.ink)
    axes.set_xlim(-0.5, len(potency.donors) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [literal(row.title) for row in rows], fontsize=6.5)
    names = [literal(f"{donor}\n{source}" if source else donor) for donor, source in potency.donors]
    axes.set_xticks(range(len(names)), names, fontsize=6.5)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xlabel(f"{potency.heading}: response, log2 units", fontsize=7)
    return figure


def volcano_figure(genes: Mapping[str, pd.DataFrame]) -> Figure:
    """Genes by change and p-value, a panel for each cell class."""
    from immunomod.report.figures import new_figure

    n_rows = -(-len(genes) // 3)
    figure = new_figure(8.4, 2.5 * n_rows)
    for place, (cell_class, table) in enumerate(genes.items(), start=1):
        axes = figure.add_subplot(n_rows, 3, place)
        change, p_value, fdr = (
            numbers(table, name).to_numpy(dtype=float) for name in ("log2_fold_change", "p_value", "fdr")
        )
        usable = np.isfinite(change) & np.isfinite(p_value)
        height = -np.log10(np.maximum(p_value, 1e-300))
        called = usable & (np.nan_to_num(fdr, nan=1.0) < FDR_THRESHOLD)
        for mask, colour in ((usable & ~called, REMOVED), (called & (change < 0), DOWN), (called & (change > 0), UP)):
            axes.scatter(change[mask], height[mask], s=4, color=colour, linewidths=0, rasterized=True)
        axes.set_title(literal(class_label(cell_class)))
        axes.set_xlabel("log2 fold change", fontsize=7)
        axes.set_ylabel("−log10 p", fontsize=7)
    figure.tight_layout()
    return figure


def markers_figure(markers: pd.DataFrame) -> Figure:
    """The first genes of each class: the filled dot is the share of it that has the gene, the hollow one the rest's."""
    from immunomod.report.figures import new_figure

    groups = markers["group"].map(text)
    names = class_order(groups)
    colours = class_colours(names)
    figure = new_figure(7.0, 0.5 * len(names) + 0.6)
    axes = figure.add_axes((0.22, 0.08, 0.76, 0.86))
    for line, name in enumerate(names):
        own = markers[groups == name].assign(rank=lambda part: numbers(part, "rank")).sort_values("rank")
        for column, row in enumerate(records(own.head(N_MARKERS))):
            for shift, key, face in ((-0.1, "detected_in", colours[name]), (0.1, "detected_out", "none")):
                share = max(number(row[key]), 0.0) if np.isfinite(number(row[key])) else 0.0
                edge = colours[name] if key == "detected_in" else NEUTRAL
                axes.scatter(column + shift, line - 0.12, s=90 * share, facecolor=face, edgecolor=edge, linewidths=0.7)
            axes.text(column, line + 0.32, literal(text(row["gene_symbol"])), ha="center", fontsize=6, style="italic")
    axes.set_yticks(range(len(names)), [literal(class_label(name)) for name in names], fontsize=7)
    axes.set_xticks([])
    axes.set_xlim(-0.5, N_MARKERS - 0.5)
    axes.set_ylim(len(names) - 0.45, -0.5)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    figure.text(
        0.01, 0.01, "filled: share of the class in which the gene is detected; hollow: of all others", fontsize=6
    )
    return figure


def _has_tests(genes: pd.DataFrame) -> bool:
    return bool(np.isfinite(numbers(genes, "p_value")).any())
