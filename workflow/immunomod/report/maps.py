"""Maps of cells as pictures: one point per cell, coloured by a column, drawn in a seeded order so that none hides."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from immunomod.report.inputs import Atlas
from immunomod.report.palette import class_colours, class_label, level_colours
from immunomod.report.views import natural_key
from immunomod.report.words import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_CELLS = 200_000
N_LEGEND = 40
COLOURINGS: tuple[tuple[str, str], ...] = (
    ("cell_class", "cell class"),
    ("condition", "condition"),
    ("donor", "donor"),
    ("sample", "sample"),
    ("cluster", "cluster"),
)


@dataclass(frozen=True)
class CellMap:
    """A map: picture (PNG as a data URI), its alternative text, and its legend (label, colour)."""

    column: str
    title: str
    href: str
    alt: str
    legend: list[tuple[str, str]]
    n_more: int


def cell_maps(atlas: Atlas) -> list[CellMap]:
    """A map for each colouring that the atlas has; none where it has no cells on the map."""
    if drawable(atlas).empty:
        return []
    return [
        _cell_map(atlas, column, title)
        for column, title in COLOURINGS
        if column in atlas.cells and atlas.cells[column].notna().any()
    ]


def drawable(atlas: Atlas) -> pd.DataFrame:
    """Cells that have a place on the map, at most ``MAX_CELLS`` (a seeded draw), in a seeded random order."""
    cells = atlas.cells[np.isfinite(atlas.cells[["umap_1", "umap_2"]].to_numpy(dtype=float)).all(axis=1)]
    order = np.random.default_rng(1).permutation(len(cells))[:MAX_CELLS]
    drawn: pd.DataFrame = cells.iloc[order]
    return drawn


def colours_of(cells: pd.DataFrame, column: str) -> dict[str, str]:
    """Colour of each level of ``column``: cell classes have fixed ones."""
    levels = cells[column].astype(str)
    if column == "cell_class":
        return class_colours(levels)
    return level_colours(sorted(levels.unique(), key=natural_key))


def draw_map(axes: Axes, cells: pd.DataFrame, column: str, colours: Mapping[str, str]) -> None:
    """Scatter ``cells`` on ``axes``, coloured by ``column``; classes and clusters are named at their median."""
    x, y = (cells[name].to_numpy(dtype=float) for name in ("umap_1", "umap_2"))
    levels = cells[column].astype(str)
    size = float(np.clip(16_000 / max(len(cells), 1), 0.3, 9.0))
    axes.scatter(x, y, s=size, c=levels.map(colours).tolist(), linewidths=0, alpha=0.85, rasterized=True)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xticks([])
    axes.set_yticks([])
    for side in ("top", "right", "bottom", "left"):
        axes.spines[side].set_visible(False)
    if column in {"cell_class", "cluster"}:
        _name_levels(axes, cells, levels)


def _name_levels(axes: Axes, cells: pd.DataFrame, levels: pd.Series) -> None:
    from matplotlib import patheffects

    halo: list[Any] = [patheffects.withStroke(linewidth=2.5, foreground="white")]
    medians = cells[["umap_1", "umap_2"]].astype(float).groupby(levels.to_numpy()).median()
    for level, position in medians.iterrows():
        label = literal(class_label(str(level)).split(",")[0] if levels.name == "cell_class" else str(level))
        axes.annotate(
            label, tuple(position), ha="center", va="center", fontsize=9, fontweight="bold", path_effects=halo
        )


def literal(text: str) -> str:
    """``text`` that matplotlib draws as it is, never as mathematics."""
    return text.replace("$", r"\$")


def _cell_map(atlas: Atlas, column: str, title: str) -> CellMap:
    from immunomod.report.figures import new_figure

    cells = drawable(atlas)
    colours = colours_of(cells, column)
    figure = new_figure(5.2, 4.4)
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    draw_map(axes, cells, column, colours)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    legend = [
        (class_label(level) if column == "cell_class" else level, colour)
        for level, colour in list(colours.items())[:N_LEGEND]
    ]
    drawn = plural(len(cells), "cell")
    note = "" if len(cells) == len(atlas.cells) else f" (a random draw of {plural(len(atlas.cells), 'cell')})"
    return CellMap(
        column=column,
        title=title,
        href=f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}",
        alt=f"UMAP of {drawn}{note} in atlas {atlas.name}, coloured by {title} ({plural(len(colours), 'level')}).",
        legend=legend,
        n_more=max(len(colours) - N_LEGEND, 0),
    )
