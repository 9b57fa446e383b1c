"""Maps of cells: which cells are drawn, in which colours, and the picture for readers without JavaScript.

One point per cell, drawn in a seeded random order so that no group lies on top of another.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from immunomod.report.inputs import Atlas
from immunomod.report.palette import NEUTRAL, class_colours, class_label, level_colours
from immunomod.report.views import natural_key
from immunomod.report.words import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

MAX_CELLS = 200_000
#: Columns whose levels are named on the map.
NAMED = ("cell_class", "cluster")
#: Parts of each side of a map, in which the cells of a level are counted.
_BINS = 24
#: A class keeps this many of its cells, or all that it has, however far a large atlas is thinned.
KEPT_OF_CLASS = 2_000
COLOURINGS: tuple[tuple[str, str], ...] = (
    ("cell_class", "cell class"),
    ("condition", "condition"),
    ("donor", "donor"),
    ("sample", "sample"),
    ("cluster", "cluster"),
)
#: Columns whose levels mean the same in every atlas of a run.
SHARED = ("condition", "donor", "sample", "dataset", "culture", "msc_donor", "msc_source")
Colours = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class CellMap:
    """A map as a picture: PNG as a data URI, its alternative text, and its legend (label, colour)."""

    href: str
    alt: str
    legend: list[tuple[str, str]]


def static_map(atlas: Atlas, n_cells: int = MAX_CELLS) -> CellMap | None:
    """The atlas by cell class, as a picture; none where no cell has a place on the map."""
    from immunomod.report.figures import new_figure

    cells = drawable(atlas, n_cells)
    if cells.empty or "cell_class" not in cells:
        return None
    colours = class_colours(cells["cell_class"].astype(str))
    figure = new_figure(6.4, 5.0)
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    draw_map(axes, cells, "cell_class", colours)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    alt = (
        f"Map (UMAP) of {plural(len(cells), 'cell')}{share_of(cells, atlas)} in atlas {atlas.name}, coloured by cell "
        f"class ({plural(len(colours), 'class', 'classes')})."
    )
    href = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return CellMap(href, alt, [(class_label(level), colour) for level, colour in colours.items()])


def share_of(cells: pd.DataFrame, atlas: Atlas) -> str:
    """What to say where a map does not draw every cell."""
    if len(cells) == len(atlas.cells):
        return ""
    return f" (of {plural(len(atlas.cells), 'cell')}; small classes whole, large ones thinned alike)"


def drawable(atlas: Atlas, n_cells: int = MAX_CELLS) -> pd.DataFrame:
    """Cells that have a place on the map, in a seeded random order.

    Where there are more than ``n_cells``, classes are thinned alike, but none below ``KEPT_OF_CLASS`` cells (or all
    that it has): a rare class is never thinned away.
    """
    cells = atlas.cells[np.isfinite(atlas.cells[["umap_1", "umap_2"]].to_numpy(dtype=float)).all(axis=1)]
    order = np.random.default_rng(1).permutation(len(cells))
    if len(cells) > n_cells:
        order = _thinned(cells, order, n_cells)
    drawn: pd.DataFrame = cells.iloc[order]
    return drawn


def _thinned(cells: pd.DataFrame, order: NDArray[np.int64], n_cells: int) -> NDArray[np.int64]:
    levels = cells["cell_class"].astype(str) if "cell_class" in cells else pd.Series("", index=cells.index)
    codes, names = pd.factorize(levels)
    counts = np.bincount(codes, minlength=len(names))
    kept = np.minimum(counts, min(KEPT_OF_CLASS, n_cells // max(len(names), 1)))
    rest = counts - kept
    quota = kept + np.floor(rest * (n_cells - kept.sum()) / max(rest.sum(), 1)).astype(int)
    shuffled = pd.Series(codes[order])
    place = shuffled.groupby(shuffled).cumcount().to_numpy()
    thinned: NDArray[np.int64] = order[place < quota[shuffled.to_numpy()]]
    return thinned


def run_colours(samples: pd.DataFrame, atlases: Sequence[Atlas]) -> Colours:
    """Colour of each condition, donor, sample and so on, the same in every atlas and figure of the run."""
    found: dict[str, Mapping[str, str]] = {}
    for column in SHARED:
        of_sheet = [samples[column]] if column in samples else []
        of_cells = [atlas.cells[column].astype(str) for atlas in atlases if column in atlas.cells]
        levels = {str(level) for levels in (*of_sheet, *of_cells) for level in levels.unique()} - {"", "nan"}
        found[column] = level_colours(sorted(levels, key=natural_key))
    return found


def colours_of(cells: pd.DataFrame, column: str, shared: Colours) -> dict[str, str]:
    """Colour of each level of ``column`` among ``cells``; classes have fixed ones, clusters are the atlas's own."""
    levels = cells[column].astype(str)
    if column == "cell_class":
        return class_colours(levels)
    ordered = sorted(levels.unique(), key=natural_key)
    if column not in shared:
        return level_colours(ordered)
    return {level: shared[column].get(level, NEUTRAL) for level in ordered}


def draw_map(axes: Axes, cells: pd.DataFrame, column: str, colours: Mapping[str, str]) -> None:
    """Scatter ``cells`` on ``axes``, coloured by ``column``; classes and clusters are named where they lie."""
    x, y = (cells[name].to_numpy(dtype=float) for name in ("umap_1", "umap_2"))
    levels = cells[column].astype(str)
    size = float(np.clip(16_000 / max(len(cells), 1), 0.3, 9.0))
    axes.scatter(x, y, s=size, c=levels.map(colours).tolist(), linewidths=0, alpha=0.85, rasterized=True)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xticks([])
    axes.set_yticks([])
    for side in ("top", "right", "bottom", "left"):
        axes.spines[side].set_visible(False)
    if column in NAMED:
        _name_levels(axes, cells, levels)


def _name_levels(axes: Axes, cells: pd.DataFrame, levels: pd.Series) -> None:
    from matplotlib import patheffects

    halo: list[Any] = [patheffects.withStroke(linewidth=2.5, foreground="white")]
    axes.apply_aspect()
    taken: list[Any] = []
    for level, position in name_places(cells, levels).items():
        label = literal(class_label(level).split(",")[0] if levels.name == "cell_class" else level)
        name = axes.annotate(
            label,
            position,
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8,
            fontweight="bold",
            path_effects=halo,
        )
        # the largest level has its name in place, and others make way downwards
        for lines in range(1, 8):
            if not any(name.get_window_extent().overlaps(other) for other in taken):
                break
            name.set_position((0, -9 * lines))
        taken.append(name.get_window_extent())


def name_places(cells: pd.DataFrame, levels: pd.Series) -> dict[str, tuple[float, float]]:
    """Where the name of each level stands: the middle of its fullest part, so that it lies on cells of its own.

    The largest level comes first. One of less than a cell in 500, or of fewer than three cells, has no name on the map.
    """
    places = cells[["umap_1", "umap_2"]].to_numpy(dtype=float)
    low, high = places.min(axis=0), places.max(axis=0)
    bins = np.minimum((places - low) / np.maximum(high - low, 1e-9) * _BINS, _BINS - 1).astype(int)
    found = {}
    for level, n_cells in levels.value_counts().items():
        if n_cells < max(3, len(cells) / 500):
            continue
        own = (levels == level).to_numpy()
        counts = np.zeros((_BINS, _BINS))
        np.add.at(counts, tuple(bins[own].T), 1.0)
        around = np.lib.stride_tricks.sliding_window_view(np.pad(counts, 1), (3, 3)).sum(axis=(2, 3))
        # of bins whose surroundings hold as many, the fullest itself
        fullest = np.array(np.unravel_index(np.argmax(around + counts / (1.0 + n_cells)), counts.shape))
        near = own & (np.abs(bins - fullest) <= 1).all(axis=1)
        x, y = np.median(places[near], axis=0)
        found[str(level)] = (float(x), float(y))
    return found


def literal(text: str) -> str:
    """``text`` that matplotlib draws as it is, never as mathematics."""
    return text.replace("$", r"\$")
