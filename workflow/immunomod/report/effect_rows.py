"""Rows of an estimate with its interval on one axis: shares of cells, diseases, communication, pooled effects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup

from immunomod.report import draw
from immunomod.report.inputs import Contrast, records
from immunomod.report.palette import NEUTRAL, class_colours, class_label, class_order
from immunomod.report.values import number, numbers, text
from immunomod.report.views import replicates
from immunomod.report.words import FDR_THRESHOLD, count, interval, plural, probability, signed

ESTIMATE = ("effect", "ci_low", "ci_high", "fdr")
N_PAIRS_SHOWN = 12
#: The two directions of ligand and receptor, and what a reader calls them.
DIRECTIONS = {"msc_to_immune": "From MSC to immune cells", "immune_to_msc": "From immune cells to MSC"}

#: Shares of cells: the heading of each, and what the counts are counts of.
FRACTIONS = {
    "Treg": ("Regulatory T cells among CD4 T cells", "regulatory"),
    "cycling": ("Cells that divide (in S, G2 or M), of each class", "dividing"),
}
#: Names of diseases that underscores alone do not make readable.
DISEASES = {"crohns_disease": "Crohn's disease", "graft_versus_host": "Graft-versus-host disease"}


@dataclass(frozen=True)
class EffectRow:
    """An estimate: what of, where (with the colour of the cell class), its drawing, and its numbers as text."""

    label: str
    sub: str
    colour: str
    drawing: Markup
    effect: str
    interval: str
    fdr: str
    significant: bool
    n: str
    note: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class EffectTable:
    """Estimates on one axis under a heading; ``unit`` names the axis, ``n_title`` the last column."""

    heading: str
    note: str
    unit: str
    axis: Markup
    rows: list[EffectRow]
    n_title: str = "Donors"


def composition_table(contrast: Contrast) -> EffectTable | None:
    """The composition test of each cell class (log odds), in the fixed order of classes; none without a test."""
    table = contrast.composition
    if table.empty or "effect" not in table:
        return None
    numeric = table.assign(**{name: numbers(table, name) for name in (*ESTIMATE, "se")})
    for end, sign in (("ci_low", -1.0), ("ci_high", 1.0)):
        numeric[end] = numeric[end].fillna(numeric["effect"] + sign * 1.96 * numeric["se"])
    order = {name: position for position, name in enumerate(class_order(table["cell_class"].astype(str)))}
    numeric = numeric.sort_values("cell_class", key=lambda column: column.map(order), kind="stable")
    axis = _axis(numeric)
    where = _where(table)
    rows = [_row(row, axis, class_label(text(row["cell_class"])), where(row)) for row in records(numeric)]
    return EffectTable(contrast.name, "", "log odds", draw.forest_axis(axis), rows)


def fraction_tables(contrast: Contrast) -> list[EffectTable]:
    """How the shares of cells in a state changed (log odds): a table for each share, its classes in their fixed order.

    The line below a class gives the cells behind the estimate; a row that could not be tested says why.
    """
    table = contrast.fractions
    if not {"fraction", "cell_class", "effect", "status"} <= set(table):
        return []
    numeric = table.assign(**{name: numbers(table, name) for name in ESTIMATE})
    order = {name: position for position, name in enumerate(class_order(table["cell_class"].astype(str)))}
    numeric = numeric.sort_values("cell_class", key=lambda column: column.map(order), kind="stable")
    axis, where = _axis(numeric), _where(table)
    found = []
    for fraction in [*FRACTIONS, *sorted(set(table["fraction"]) - set(FRACTIONS))]:
        own = numeric[numeric["fraction"] == fraction]
        if own.empty:
            continue
        heading, state = FRACTIONS.get(fraction, (f"{_capital(_plain(fraction))}, of each class", _plain(fraction)))
        rows = [
            _row(row, axis, class_label(text(row["cell_class"])), _line(where(row), _cells_behind(row, state)))
            for row in records(own)
        ]
        n_moved = int((own["fdr"] < FDR_THRESHOLD).sum())
        n_tested = int((own["status"] == "tested").sum())
        note = f"{n_moved} of {plural(n_tested, 'share')} moved at fdr < {FDR_THRESHOLD}" if n_tested else "none tested"
        found.append(EffectTable(heading, note, "log odds", draw.forest_axis(axis), rows))
    return found


def disease_tables(contrast: Contrast) -> list[EffectTable]:
    """Per disease, its signatures in every cell class that could be tested; the note counts the rows that could not."""
    table = contrast.disease
    if not {"disease", "signature", "cell_class", "effect", "status"} <= set(table):
        return []
    numeric = table.assign(**{name: numbers(table, name) for name in ESTIMATE})
    tested = numeric[(numeric["status"] == "tested") & np.isfinite(numeric["effect"])]
    axis, where = _axis(tested), _where(table)
    order = {name: position for position, name in enumerate(class_order(table["cell_class"].astype(str)))}
    found = []
    for disease, every in numeric.groupby("disease", sort=True):
        rows = tested[tested["disease"] == disease].assign(position=lambda part: part["cell_class"].map(order))
        rows = rows.sort_values(["signature", "position"], kind="stable")
        n_open = len(every) - len(rows)
        note = f"{plural(n_open, 'row')} could not be tested" if n_open else ""
        shown = [
            _row(
                row,
                axis,
                _plain(text(row["signature"])),
                _line(class_label(text(row["cell_class"])), where(row)),
                little_verified(row),
            )
            for row in records(rows)
        ]
        found.append(
            EffectTable(
                DISEASES.get(str(disease), _capital(_plain(str(disease)))),
                note,
                "log2 units",
                draw.forest_axis(axis),
                shown,
            )
        )
    return found


def communication_tables(contrast: Contrast) -> list[EffectTable]:
    """Per direction, the ligand-receptor pairs that changed (or else the clearest), at most 12."""
    table = contrast.communication
    if not {"direction", "ligand", "receptor", "effect", "status"} <= set(table):
        return []
    numeric = table.assign(**{name: numbers(table, name) for name in (*ESTIMATE, "p_value", "fdr_both")})
    tested = numeric[(numeric["status"] == "tested") & np.isfinite(numeric["effect"])]
    found = []
    for direction, heading in DIRECTIONS.items():
        every = tested[tested["direction"] == direction]
        if every.empty:
            continue
        n_moved, n_both = (int((every[name] < FDR_THRESHOLD).sum()) for name in ("fdr", "fdr_both"))
        rows = every.sort_values(["fdr", "p_value"], kind="stable").head(N_PAIRS_SHOWN)
        rows = rows.sort_values("effect", ascending=False, kind="stable")
        axis, where = _axis(rows), _where(table)
        note = (
            f"{n_moved} of {plural(len(every), 'expressed pair')} changed (fdr < {FDR_THRESHOLD}); in {n_both} both "
            f"ends changed" + ("" if len(every) <= N_PAIRS_SHOWN else f"; the {len(rows)} clearest are drawn")
        )
        shown = [
            _row(
                row,
                axis,
                _pair(row),
                _line(_between(row), where(row)),
                note=_ends(row),
                n=probability(number(row["fdr_both"])),
            )
            for row in records(rows)
        ]
        found.append(EffectTable(heading, note, "log2 units", draw.forest_axis(axis), shown, "Both ends"))
    return found


def pooled_tables(synthesis: pd.DataFrame, titles: pd.Series) -> list[EffectTable]:
    """Per contrast, the effects that were pooled over data sets, the largest rise first."""
    if not {"program", "cell_class", "effect"} <= set(synthesis):
        return []
    numeric = synthesis.assign(**{name: numbers(synthesis, name) for name in ESTIMATE})
    pooled = numeric[np.isfinite(numeric["effect"])]
    grouped = pooled.groupby("contrast", sort=True) if "contrast" in pooled else [("", pooled)]
    found = []
    for contrast, part in grouped:
        axis = _axis(part)
        rows = [
            _row(
                row,
                axis,
                text(titles.get(row["program"], row["program"])),
                class_label(text(row["cell_class"])),
                note=f"prediction interval {span}" if (span := _prediction(row)) else "",
                n=count(number(row.get("k"))),
            )
            for row in records(part.sort_values("effect", ascending=False, kind="stable"))
        ]
        found.append(EffectTable(str(contrast), "", "log2 units", draw.forest_axis(axis), rows, "Data sets"))
    return found


def _row(
    row: dict[str, object], axis: draw.Axis, label: str, sub: str, note: str | None = None, n: str | None = None
) -> EffectRow:
    effect, low, high, fdr = (number(row.get(name)) for name in ESTIMATE)
    significant = fdr < FDR_THRESHOLD
    cell_class = text(row.get("cell_class")) or _partner(row)
    return EffectRow(
        label=label,
        sub=sub,
        colour=class_colours([cell_class])[cell_class] if cell_class else NEUTRAL,
        drawing=draw.forest_row(axis, effect, low, high, significant=significant, control=False, expected_sign=""),
        effect=signed(effect),
        interval=interval(low, high),
        fdr=probability(fdr),
        significant=significant,
        n=replicates(row) if n is None else n,
        note=text(row.get("reason")) if note is None else note,
        value=effect,
        low=low,
        high=high,
    )


def _where(table: pd.DataFrame) -> Callable[[Mapping[str, object]], str]:
    """What names the data set of a row: nothing where the table holds one alone."""
    several = "dataset" in table and table["dataset"].nunique() > 1
    return lambda row: text(row.get("dataset")) if several else ""


def _cells_behind(row: Mapping[str, object], state: str) -> str:
    """``120 of 2,200 cells dividing against 90 of 2,100``, over all replicates; nothing where no cells are known."""
    test, of_test, reference, of_reference = (
        number(row.get(name)) for name in ("cells_test", "of_test", "cells_reference", "of_reference")
    )
    if not np.isfinite([test, of_test]).all() or of_test == 0:
        return ""
    said = f"{count(test)} of {count(of_test)} cells {state}"
    if not np.isfinite([reference, of_reference]).all() or of_reference == 0:
        return said
    return f"{said} against {count(reference)} of {count(of_reference)}"


def _axis(rows: pd.DataFrame) -> draw.Axis:
    return draw.effect_axis(*(numbers(rows, name).to_numpy(dtype=float) for name in ESTIMATE[:3]))


def _pair(row: Mapping[str, object]) -> str:
    return f"{text(row['ligand'])} \N{RIGHTWARDS ARROW} {text(row['receptor'])}"


def _between(row: Mapping[str, object]) -> str:
    source, target = (class_label(text(row.get(name))) for name in ("source", "target"))
    return f"{source} to {target}"


def _line(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _partner(row: dict[str, object]) -> str:
    """The immune side of a pair."""
    name = "target" if row.get("direction") == "msc_to_immune" else "source"
    return text(row.get(name))


def _ends(row: dict[str, object]) -> str:
    ligand, receptor = (number(row.get(f"{end}_log2_fold_change")) for end in ("ligand", "receptor"))
    return f"ligand {signed(ligand)}, receptor {signed(receptor)}"


def _prediction(row: dict[str, object]) -> str:
    low, high = number(row.get("prediction_low")), number(row.get("prediction_high"))
    return interval(low, high) if np.isfinite([low, high]).all() else ""


def little_verified(row: dict[str, object]) -> str:
    """What to say of a signature of which less than half of the genes were read in its source."""
    verified, total = number(row.get("genes_verified")), number(row.get("genes_total"))
    if not np.isfinite([verified, total]).all() or 2 * verified >= total:
        return ""
    return f"{count(verified) if verified else 'none'} of its {count(total)} genes were read in the source"


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]
