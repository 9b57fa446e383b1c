"""The data behind the map that a reader can recolour: coordinates, levels and scores of every cell drawn, packed small.

Each array is gzipped and written in base64 into an element of its own; the page unpacks one when it is asked for. Cells
stand in the order of their class and sample, which packs best; the page draws them in a mixed order.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from immunomod.report.inputs import Atlas
from immunomod.report.maps import COLOURINGS, MAX_CELLS, NAMED, Colours, colours_of, drawable, name_places, share_of
from immunomod.report.palette import class_label
from immunomod.report.words import plural

#: Further columns that colour the map where they have two levels or more.
FURTHER = (
    ("culture", "culture"),
    ("dataset", "data set"),
    ("msc_donor", "MSC donor"),
    ("msc_source", "MSC source"),
    ("phase", "cell cycle phase"),
)
SCORE = "score_"
N_STEPS = 63
MISSING = 255
GRID = 65_535


@dataclass(frozen=True)
class MapData:
    """``spec`` describes the arrays (JSON); ``arrays`` holds them as base64, by the number that ``spec`` gives."""

    spec: str
    arrays: list[str]
    n_cells: int
    note: str


def map_data(atlas: Atlas, colours: Colours, titles: pd.Series, n_cells: int = MAX_CELLS) -> MapData | None:
    """Pack the map of an atlas; none where no cell has a place on it.

    ``titles``: title of each programme. ``n_cells``: how many cells are drawn at most.
    """
    cells = drawable(atlas, n_cells)
    if cells.empty:
        return None
    by = [name for name in ("cell_class", "sample") if name in cells]
    cells = cells.sort_values(by, kind="stable") if by else cells
    arrays = [_pack(_on_grid(cells)[:, 0]), _pack(_on_grid(cells)[:, 1])]
    groups = []
    for column, title in (*COLOURINGS, *FURTHER):
        if column not in cells or cells[column].isna().all():
            continue
        levels = cells[column].astype(str)
        palette = colours_of(cells, column, colours)
        if len(palette) < 2 and column != "cell_class":
            continue
        codes = levels.map({level: code for code, level in enumerate(palette)}).to_numpy()
        counts = np.bincount(codes, minlength=len(palette))
        names = name_places(cells, levels) if column in NAMED else {}
        arrays.append(_pack(codes.astype("<u2")))
        groups.append(
            {
                "column": column,
                "title": title,
                "array": len(arrays) - 1,
                # in which order levels are named, and where
                "names": [[list(palette).index(level), *_grid_place(cells, at)] for level, at in names.items()],
                "levels": [
                    {"label": _label(column, level), "colour": colour, "n": int(n)}
                    for (level, colour), n in zip(palette.items(), counts, strict=True)
                ],
            }
        )
    scores = []
    for column in _score_columns(cells.columns, titles):
        values = pd.to_numeric(cells[column], errors="coerce").to_numpy(dtype=float)
        if not np.isfinite(values).any():
            continue
        low, high = (float(value) for value in np.nanquantile(values, (0.01, 0.99)))
        if high <= low:
            continue
        program = column.removeprefix(SCORE)
        arrays.append(_pack(_in_steps(values, low, high)))
        title = str(titles.get(program, program))
        side = "MSC" if program.startswith("msc_") else "immune cells" if program.startswith("imm_") else "quality"
        scores.append({"title": title, "side": side, "array": len(arrays) - 1, "low": low, "high": high})
    spec: dict[str, Any] = {
        "n": len(cells),
        "aspect": _aspect(cells),
        "groups": groups,
        "scores": scores,
        "ramp": _ramp(),
        "steps": N_STEPS,
    }
    drawn = f"{plural(len(cells), 'cell')}{share_of(cells, atlas)}"
    return MapData(json.dumps(spec, ensure_ascii=False), arrays, len(cells), drawn)


def _label(column: str, level: str) -> str:
    return class_label(level) if column == "cell_class" else level


def _score_columns(columns: Iterable[object], titles: pd.Series) -> list[str]:
    """Columns of scores, in the order of the programmes."""
    order = {f"{SCORE}{program}": number for number, program in enumerate(titles.index)}
    found = [str(name) for name in columns if str(name).startswith(SCORE)]
    return sorted(found, key=lambda name: (order.get(name, len(order)), name))


def _extent(cells: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    places = cells[["umap_1", "umap_2"]].to_numpy(dtype=float)
    low, high = places.min(axis=0), places.max(axis=0)
    return places, low, np.maximum(high - low, 1e-9)


def _grid_place(cells: pd.DataFrame, at: tuple[float, float]) -> list[int]:
    _, low, span = _extent(cells)
    return [int(value) for value in np.round((np.array(at) - low) / span * GRID)]


def _on_grid(cells: pd.DataFrame) -> NDArray[np.uint16]:
    places, low, span = _extent(cells)
    grid: NDArray[np.uint16] = np.round((places - low) / span * GRID).astype("<u2")
    return grid


def _aspect(cells: pd.DataFrame) -> float:
    """Width of the map over its height."""
    _, _, span = _extent(cells)
    return round(float(np.clip(span[0] / span[1], 0.5, 2.0)), 4)


def _in_steps(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.uint8]:
    scaled = np.clip((values - low) / (high - low), 0.0, 1.0) * N_STEPS
    steps: NDArray[np.uint8] = np.where(np.isfinite(values), np.round(scaled), MISSING).astype(np.uint8)
    return steps


def _pack(values: NDArray[Any]) -> str:
    return base64.b64encode(gzip.compress(np.ascontiguousarray(values).tobytes(), 6, mtime=0)).decode()


def _ramp() -> list[str]:
    """Dark to light, readable by every eye and in grey (viridis)."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["viridis"](step / N_STEPS)) for step in range(N_STEPS + 1)]
