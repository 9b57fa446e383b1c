"""Figures for papers: the report's pictures once more, as PNG (300 dpi) and SVG under ``report/figures``.

They carry their own legends and titles. Letters are drawn as outlines, so a figure looks the same on every machine, and
ids and metadata hold neither dates nor random numbers, so the same results give the same bytes.
"""

from __future__ import annotations

import textwrap
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from immunomod.files import atomic_path
from immunomod.report.answer import READOUT_ROLES
from immunomod.report.draw import Axis
from immunomod.report.further_figures import further_figures
from immunomod.report.inputs import Atlas, Contrast, ReportTables, records
from immunomod.report.maps import COLOURINGS, Colours, colours_of, draw_map, drawable, literal, run_colours
from immunomod.report.palette import DOWN, KEPT, NEUTRAL, UP, class_label, class_order, diverging, ink_on
from immunomod.report.quality import keep_failed
from immunomod.report.sample_figure import sample_figure
from immunomod.report.views import donor_changes, natural_key, uncorrected
from immunomod.report.words import FDR_THRESHOLD, signed, slug

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

N_FOREST_ROWS = 40
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    "svg.fonttype": "path",
    "svg.hashsalt": "immunomod",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}


def report_style() -> AbstractContextManager[None]:
    """The report's style for figures made and saved inside the block; nothing of it stays behind."""
    import matplotlib as mpl

    style: AbstractContextManager[None] = mpl.rc_context(STYLE)
    return style


def new_figure(width: float, height: float) -> Figure:
    """A figure in inches that belongs to no window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path, margins: str | None = "tight") -> list[Path]:
    """Write ``<path>.png`` and ``<path>.svg``; ``path`` has no suffix.

    ``margins``: ``tight`` cuts them to what is drawn, which takes a second drawing; None leaves a figure that minds its
    own as it is.
    """
    written = []
    for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None, "Creator": None})):
        target = path.with_name(path.name + suffix)
        with atomic_path(target) as temporary:
            figure.savefig(temporary, dpi=200, bbox_inches=margins, metadata=metadata)
        written.append(target)
    return written


def write_figures(tables: ReportTables, folder: Path) -> list[Path]:
    """Write every figure that has something to show; returns the files."""
    written: list[Path] = []
    for contrast in tables.contrasts:
        for stem, figure in (("forest", forest_figure(contrast)), ("heatmap", heat_map_figure(contrast))):
            if figure is not None:
                written += save_figure(figure, folder / f"{stem}_{slug(contrast.name)}")
    colours = run_colours(tables.samples, tables.atlases)
    for atlas in tables.atlases:
        figure = map_figure(atlas, colours)
        if figure is not None:
            written += save_figure(figure, folder / f"umap_{slug(atlas.name)}")
    for stem, figure in further_figures(tables):
        written += save_figure(figure, folder / stem)
    nothing = pd.DataFrame()
    for row in records(tables.qc):
        sample = str(row["sample"])
        parts = (table.get(sample, nothing) for table in (tables.cells, tables.ambient, tables.ranks))
        figure = sample_figure(row, *parts, keeps_failed=keep_failed(tables.config))
        written += save_figure(figure, folder / f"sample_{slug(sample)}", margins=None)
    return written


def forest_figure(contrast: Contrast) -> Figure | None:
    """Readouts by cell class, at most 40 rows a class (the largest); none where nothing was tested."""
    effects = contrast.effects
    rows = effects[(effects["status"] == "tested") & np.isfinite(effects["effect"])]
    rows = rows[rows["role"].isin(READOUT_ROLES)]
    classes = class_order(rows["cell_class"])
    if not classes:
        return None
    parts = [_largest(rows[rows["cell_class"] == name]) for name in classes]
    panel_heights = [0.21 * len(part) + 0.1 for part in parts]
    height = sum(panel_heights) + 0.55 * len(parts) + 0.45
    figure = new_figure(7.0, height)
    top = height - 0.3
    for name, part, panel_height in zip(classes, parts, panel_heights, strict=True):
        axes = figure.add_axes((0.42, (top - panel_height) / height, 0.55, panel_height / height))
        _draw_forest(axes, part, _axis_of(rows, name))
        axes.set_title(literal(class_label(name)))
        top -= panel_height + 0.55
    axes.set_xlabel(
        f"effect, log2 units (95% interval)\nfilled: fdr < {FDR_THRESHOLD}; diamond: positive control; "
        "shaded: expected side;\nsmall square: with leaked RNA left in, where that differs by more than 0.1",
        fontsize=7,
    )
    return figure


def _axis_of(rows: pd.DataFrame, cell_class: str) -> Axis:
    """The scale of a panel: one for the MSC, one for all other cells; every interval lies inside."""
    same = rows[(rows["cell_class"] == "MSC") == (cell_class == "MSC")]
    ends = np.column_stack([same[["effect", "ci_low", "ci_high"]].to_numpy(dtype=float), uncorrected(same)])
    low, high = min(float(np.nanmin(ends)), 0.0), max(float(np.nanmax(ends)), 0.0)
    pad = max(0.04 * (high - low), 0.05)
    return Axis(low - pad, high + pad)


def heat_map_figure(contrast: Contrast) -> Figure | None:
    """Change of each donor for the programmes called, or else the 40 largest; none without replicate-level scores."""
    changes = donor_changes(contrast.scores)
    effects = contrast.effects
    rows = effects[(effects["status"] == "tested") & effects["role"].isin(READOUT_ROLES)]
    rows = rows[np.isfinite(rows["effect"])].assign(called=rows["fdr"] < FDR_THRESHOLD, size=rows["effect"].abs())
    rows = rows.sort_values(["called", "size"], ascending=False, kind="stable").head(N_FOREST_ROWS)
    if changes.empty or rows.empty:
        return None
    order = {name: position for position, name in enumerate(class_order(rows["cell_class"]))}
    rows = rows.assign(position=rows["cell_class"].map(order)).sort_values(
        ["position", "effect"], ascending=[True, False], kind="stable"
    )
    donors = sorted(changes["column"].unique(), key=natural_key)
    table = changes.pivot_table(index=["dataset", "cell_class", "program"], columns="column", values="change")
    keys = list(zip(rows["dataset"], rows["cell_class"], rows["program"], strict=True))
    values = table.reindex(index=pd.MultiIndex.from_tuples(keys), columns=donors).to_numpy(dtype=float)
    limit = max(float(np.nanquantile(np.abs(values), 0.95)) if np.isfinite(values).any() else 1.0, 0.5)
    figure = new_figure(3.6 + 0.45 * len(donors), 0.24 * len(rows) + 1.0)
    axes = figure.add_axes((0.5, 0.08, 0.48, 0.86))
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            if np.isfinite(value):
                colour = diverging(float(value), limit)
                axes.add_patch(_cell(column, row, colour))
                axes.text(
                    column, row, signed(float(value), 1), ha="center", va="center", fontsize=6, color=ink_on(colour)
                )
    axes.set_xlim(-0.5, len(donors) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    labels = [_wrap(f"{class_label(c)}: {t}") for c, t in zip(rows["cell_class"], rows["title"], strict=True)]
    axes.set_yticks(range(len(rows)), labels, fontsize=6.5)
    axes.set_xticks(range(len(donors)), [literal(str(donor)) for donor in donors], rotation=60, ha="right")
    axes.tick_params(length=0)
    axes.set_title(f"change per donor, log2 units (colour saturates at ±{limit:.1f})", fontsize=8)
    return figure


def map_figure(atlas: Atlas, shared: Colours) -> Figure | None:
    """All maps of an atlas, each with its legend; none where no cell has a place on the map."""
    from matplotlib.lines import Line2D

    cells = drawable(atlas)
    shown = [(column, title) for column, title in COLOURINGS if column in cells and cells[column].notna().any()]
    if cells.empty or not shown:
        return None
    n_rows = -(-len(shown) // 2)
    figure = new_figure(11.0, 4.0 * n_rows)
    # names are set by where the axes lie
    figure.subplots_adjust(wspace=0.5, left=0.02, right=0.86, bottom=0.02, top=0.95)
    for position, (column, title) in enumerate(shown):
        axes = figure.add_subplot(n_rows, 2, position + 1)
        colours = colours_of(cells, column, shared)
        draw_map(axes, cells, column, colours)
        axes.set_title(title)
        handles = [
            Line2D([], [], marker="o", linestyle="", color=colour, label=literal(_label(column, level)))
            for level, colour in list(colours.items())[:30]
        ]
        axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=6.5)
    return figure


def _label(column: str, level: str) -> str:
    return class_label(level) if column == "cell_class" else level


def _largest(rows: pd.DataFrame) -> pd.DataFrame:
    largest = rows.sort_values("effect", key=np.abs, ascending=False, kind="stable").head(N_FOREST_ROWS)
    return largest.sort_values("effect", kind="stable")


def _draw_forest(axes: Axes, rows: pd.DataFrame, axis: Axis) -> None:
    axes.set_xlim(axis.low, axis.high)
    axes.plot(uncorrected(rows), range(len(rows)), "s", markersize=3.2, color=NEUTRAL, markerfacecolor="white")
    for position, row in enumerate(rows.to_dict("records")):
        significant = row["fdr"] < FDR_THRESHOLD
        colour = (UP if row["effect"] > 0 else DOWN) if significant else NEUTRAL
        marker = "D" if row["positive_control"] else "o"
        axes.plot([row["ci_low"], row["ci_high"]], [position, position], color=colour, linewidth=1.2)
        face = colour if significant else "white"
        axes.plot(row["effect"], position, marker=marker, markersize=4.5, color=colour, markerfacecolor=face)
    axes.axvline(0, color="#333333", linewidth=0.8)
    _shade_expected(axes, rows)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_yticks(range(len(rows)), [_wrap(str(title)) for title in rows["title"]], fontsize=6.5)
    axes.tick_params(axis="y", length=0)


def _shade_expected(axes: Axes, rows: pd.DataFrame) -> None:
    low, high = axes.get_xlim()
    for position, sign in enumerate(rows["expected_sign"]):
        if sign in {"+", "-"}:
            edge = high if sign == "+" else low
            axes.fill_betweenx([position - 0.45, position + 0.45], 0, edge, color=KEPT, alpha=0.08, linewidth=0)
    axes.set_xlim(low, high)


def _cell(column: int, row: int, colour: str) -> Rectangle:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, edgecolor="white", linewidth=0.6)


def _wrap(text: str) -> str:
    return literal("\n".join(textwrap.wrap(text, 58, break_long_words=True)[:2]))
