"""Every colour of the report, so that a cell class, a condition or a direction looks the same in each figure.

The base is the colour-blind safe set of Okabe and Ito, widened with Tol's muted set; more levels than it holds are
spread over hue and lightness. Colours never stand alone: figures also carry labels, signs or marker shapes.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Sequence
from itertools import pairwise

CELL_CLASSES: dict[str, tuple[str, str]] = {
    "MSC": ("MSC", "#332288"),
    "CD4_T": ("CD4 T cells", "#0072B2"),
    "CD8_T": ("CD8 T cells", "#56B4E9"),
    "Treg": ("Regulatory T cells", "#1F3A5F"),
    "T": ("T cells, subset unresolved", "#88AACC"),
    "NK": ("NK cells", "#009E73"),
    "B": ("B cells", "#CC79A7"),
    "plasma": ("Plasma cells", "#882255"),
    "CD14_monocyte": ("CD14 monocytes", "#D55E00"),
    "CD16_monocyte": ("CD16 monocytes", "#E69F00"),
    "monocyte": ("Monocytes or macrophages, unresolved", "#E8B48A"),
    "macrophage": ("Macrophages", "#8C4A00"),
    "DC": ("Dendritic cells", "#C7B200"),
    "pDC": ("Plasmacytoid dendritic cells", "#7A7A1F"),
    "megakaryocyte": ("Megakaryocytes", "#AA4499"),
    "erythroid": ("Erythroid cells", "#5E1208"),
    "endothelial": ("Endothelial cells", "#44AA99"),
    "unassigned": ("Unassigned", "#B4B4B4"),
}
"""Label and colour of each known cell class, in the order in which the report shows them."""

QUALITATIVE: tuple[str, ...] = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#332288", "#999933",
    "#882255", "#44AA99", "#AA4499", "#8C4A00", "#7F7F7F", "#C7B200",
)  # fmt: skip
"""Colours for levels that have no fixed one (conditions, donors, samples, clusters)."""

UP = "#B2182B"
DOWN = "#2166AC"
NEUTRAL = "#5B6770"
KEPT = "#1C7C7D"
REMOVED = "#B9C2C9"

_DIVERGING: tuple[tuple[float, tuple[int, int, int]], ...] = (
    (-1.0, (5, 48, 97)),
    (-0.6, (67, 147, 195)),
    (0.0, (247, 247, 247)),
    (0.6, (214, 96, 77)),
    (1.0, (103, 0, 31)),
)


def class_label(cell_class: str) -> str:
    """Name of a cell class for a reader; an unknown class keeps its own name."""
    return CELL_CLASSES[cell_class][0] if cell_class in CELL_CLASSES else cell_class.replace("_", " ")


def class_order(cell_classes: Iterable[str]) -> list[str]:
    """Unique cell classes: MSC first, then the fixed order, then unknown ones by name; ``unassigned`` last."""
    known = [name for name in CELL_CLASSES if name != "unassigned"]
    rank = {name: position for position, name in enumerate(known)} | {"unassigned": 10_000}
    return sorted(set(cell_classes), key=lambda name: (rank.get(name, 5_000), name))


def class_colours(cell_classes: Iterable[str]) -> dict[str, str]:
    """Colour of each cell class: the fixed one, or for a class of the user's own a spread one that is not in use."""
    ordered = class_order(cell_classes)
    unknown = [name for name in ordered if name not in CELL_CLASSES]
    spare = dict(zip(unknown, _spread(len(unknown), lightness=0.38), strict=True))
    return {name: CELL_CLASSES[name][1] if name in CELL_CLASSES else spare[name] for name in ordered}


def level_colours(levels: Sequence[str]) -> dict[str, str]:
    """Colour of each level in the given order; distinct for any number of levels."""
    unique = list(dict.fromkeys(levels))
    if len(unique) <= len(QUALITATIVE):
        return dict(zip(unique, QUALITATIVE, strict=False))
    return dict(zip(unique, _spread(len(unique), lightness=0.5), strict=True))


def diverging(value: float, limit: float) -> str:
    """Colour of a signed value on a scale centred at 0 that saturates at ``limit``: blue below, red above."""
    position = 0.0 if limit <= 0 else max(-1.0, min(1.0, value / limit))
    for (start, left), (end, right) in pairwise(_DIVERGING):
        if position <= end:
            share = (position - start) / (end - start)
            return _hex([round(a + share * (b - a)) for a, b in zip(left, right, strict=True)])
    raise AssertionError(position)


def ink_on(colour: str) -> str:
    """Black or white, whichever has the higher contrast (WCAG relative luminance) on ``colour``."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "#ffffff"


def _spread(n_levels: int, lightness: float) -> list[str]:
    """``n_levels`` distinct colours: hue by the golden angle, lightness in three steps around ``lightness``."""
    colours: list[str] = []
    for index in range(n_levels):
        step = lightness + (index % 3 - 1) * 0.14
        rgb = colorsys.hls_to_rgb((0.58 + index * 0.381966) % 1.0, step, 0.62)
        colours.append(_hex([round(255 * channel) for channel in rgb]))
    return colours


def _hex(channels: Sequence[int]) -> str:
    return "#" + "".join(f"{channel:02x}" for channel in channels)
