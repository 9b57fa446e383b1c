"""What the templates are given: tables turned into rows, labels and drawings. No statistic is computed here."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from immunomod.report import draw
from immunomod.report.answer import READOUT_ROLES, STATUS_WORDS
from immunomod.report.inputs import Contrast, records
from immunomod.report.palette import class_colours, class_label, class_order, diverging, ink_on
from immunomod.report.values import number, numbers, text
from immunomod.report.words import FDR_THRESHOLD, count, interval, plural, probability, signed

N_TOP_GENES = 12
N_HEAT_ROWS = 60
TEST_ARM, REFERENCE_ARM = "test", "reference"
#: An effect that the correction for leaked RNA moved by more (log2 units) is shown beside what it was.
NOTABLE_CORRECTION = 0.1


@dataclass(frozen=True)
class ForestRow:
    """One programme in one cell class. ``uncorrected``: the effect with leaked RNA left in, where it differs much."""

    title: str
    program: str
    caveat: str
    tag: str
    control: bool
    drawing: Markup
    effect: str
    interval: str
    fdr: str
    significant: bool
    n: str
    expected: str
    agrees: str
    uncorrected: str


@dataclass(frozen=True)
class ForestPanel:
    """The tested programmes of one cell class, on one axis."""

    heading: str
    colour: str
    axis: Markup
    rows: list[ForestRow]
    summary: str


@dataclass(frozen=True)
class Untested:
    """Programmes of one cell class that share a reason for not being tested."""

    cell_class: str
    status: str
    reason: str
    programs: str
    n_programs: int


def forest_panels(contrast: Contrast) -> list[ForestPanel]:
    """One panel per cell class (and data set, where there are several) of its readouts, sorted by effect.

    Panels of the MSC share one axis and panels of all other cells another, so that rows can be compared across classes.
    """
    rows = _tested(contrast.effects)
    rows = rows[rows["role"].isin(READOUT_ROLES)]
    several = rows["dataset"].nunique() > 1
    in_msc = rows["cell_class"] == "MSC"
    axes = {True: _axis(rows[in_msc]), False: _axis(rows[~in_msc])}
    colours = class_colours(rows["cell_class"])
    panels = []
    for cell_class in class_order(rows["cell_class"]):
        for dataset, part in rows[rows["cell_class"] == cell_class].groupby("dataset", sort=True):
            axis = axes[cell_class == "MSC"]
            ordered = part.assign(is_readout=part["role"] == "readout").sort_values(
                ["is_readout", "effect"], ascending=False, kind="stable"
            )
            n_moved = int((part["fdr"] < FDR_THRESHOLD).sum())
            heading = class_label(cell_class) + (f" — {dataset}" if several else "")
            panels.append(
                ForestPanel(
                    heading=heading,
                    colour=colours[cell_class],
                    axis=draw.forest_axis(axis),
                    rows=[_forest_row(row, axis) for row in records(ordered)],
                    summary=f"{n_moved} of {plural(len(part), 'programme')} moved at fdr < {FDR_THRESHOLD}",
                )
            )
    return panels


def confounder_panel(contrast: Contrast) -> ForestPanel | None:
    """Confounder and quality programmes of all cell classes, the largest first; none where none was tested."""
    rows = _tested(contrast.effects)
    rows = rows[~rows["role"].isin(READOUT_ROLES)]
    if rows.empty:
        return None
    axis = _axis(rows)
    rows = rows.sort_values("effect", key=np.abs, ascending=False, kind="stable")
    several = rows["dataset"].nunique() > 1
    labelled = [
        row
        | {
            "title": f"{class_label(row['cell_class'])}: {row['title']}" + (f" ({row['dataset']})" if several else ""),
        }
        for row in records(rows)
    ]
    n_moved = int((rows["fdr"] < FDR_THRESHOLD).sum())
    return ForestPanel(
        heading="Confounders and quality checks",
        colour="#5b6770",
        axis=draw.forest_axis(axis),
        rows=[_forest_row(row, axis) for row in labelled],
        summary=f"{n_moved} of {plural(len(rows), 'row')} moved at fdr < {FDR_THRESHOLD}",
    )


def untested(contrast: Contrast) -> list[Untested]:
    """Rows that were not tested, gathered by cell class and reason; those that lack data before undefined ones."""
    rows = contrast.effects[contrast.effects["status"] != "tested"]
    gathered = [
        Untested(
            cell_class=class_label(str(cell_class)),
            status=STATUS_WORDS.get(str(status), str(status)),
            reason=str(reason),
            programs=", ".join(dict.fromkeys(part["title"])),
            n_programs=len(part),
        )
        for (cell_class, status, reason), part in rows.groupby(["cell_class", "status", "reason"], sort=True)
    ]
    return sorted(gathered, key=lambda row: (row.status == STATUS_WORDS["absent"], row.cell_class))


@dataclass(frozen=True)
class HeatCell:
    """One donor's change: its colours and what to read."""

    text: str
    background: str
    ink: str


@dataclass(frozen=True)
class HeatRow:
    """One programme in one cell class over donors."""

    title: str
    program: str
    control: bool
    significant: bool
    cells: list[HeatCell]


@dataclass(frozen=True)
class HeatMap:
    """Replicate-level changes: donors by name, and the rows of each cell class."""

    donors: list[str]
    groups: list[tuple[str, str, list[HeatRow]]]
    limit: float
    n_hidden: int


def donor_changes(scores: pd.DataFrame) -> pd.DataFrame:
    """Change of each donor, one row per dataset, cell class, programme and donor (columns ``column``, ``change``).

    Paired donors: their mean test score minus their mean reference score. A test donor without a reference of its own
    is held against the mean of all reference replicates. Where arms are not test and reference (a trend), each
    replicate is held against the mean of all.
    """
    keys = ["dataset", "cell_class", "program"]
    columns = [*keys, "column", "change"]
    if scores.empty or not {"score", "arm", "donor", *keys} <= set(scores.columns):
        return pd.DataFrame(columns=columns)
    scores = scores.assign(score=pd.to_numeric(scores["score"], errors="coerce"), donor=scores["donor"].fillna(""))
    if not {TEST_ARM, REFERENCE_ARM} & set(scores["arm"]):
        centred = scores["score"] - scores.groupby(keys)["score"].transform("mean")
        return scores.assign(column=scores["sample"], change=centred)[columns]
    by_donor = scores.groupby([*keys, "arm", "donor"], sort=False)["score"].mean().unstack("arm")
    by_donor = by_donor.reindex(columns=[TEST_ARM, REFERENCE_ARM])
    overall = scores[scores["arm"] == REFERENCE_ARM].groupby(keys)["score"].mean().rename("overall")
    joined = by_donor.reset_index().merge(overall.reset_index(), on=keys, how="left")
    change = joined[TEST_ARM] - joined[REFERENCE_ARM].fillna(joined["overall"])
    return joined.assign(column=joined["donor"], change=change).dropna(subset=["change"])[columns]


def heat_map(contrast: Contrast) -> HeatMap | None:
    """Programmes by donor; the rows called first, then positive controls, then the largest, at most 60 rows."""
    changes = donor_changes(contrast.scores)
    rows = _tested(contrast.effects)
    rows = rows[rows["role"].isin(READOUT_ROLES)]
    if changes.empty or rows.empty:
        return None
    priority = np.select([rows["fdr"] < FDR_THRESHOLD, rows["positive_control"]], [2, 1], 0)
    ranked = rows.assign(priority=priority, size=rows["effect"].abs())
    ranked = ranked.sort_values(["priority", "size"], ascending=False, kind="stable")
    shown = ranked.head(N_HEAT_ROWS)
    donors = sorted(changes["column"].unique(), key=natural_key)
    table = changes.pivot_table(index=["dataset", "cell_class", "program"], columns="column", values="change")
    table = table.reindex(columns=donors)
    by_row = dict(zip(table.index, table.to_numpy(dtype=float), strict=True))
    magnitudes = np.abs(table.to_numpy(dtype=float))
    limit = float(np.nanquantile(magnitudes, 0.98)) if np.isfinite(magnitudes).any() else 1.0
    limit = max(round(limit, 1), 0.5)
    colours = class_colours(shown["cell_class"])
    groups = []
    for cell_class in class_order(shown["cell_class"]):
        part = shown[shown["cell_class"] == cell_class].sort_values("effect", ascending=False, kind="stable")
        heat_rows = []
        for row in records(part):
            key = (row["dataset"], cell_class, row["program"])
            values = by_row.get(key, np.full(len(donors), np.nan))
            heat_rows.append(
                HeatRow(
                    title=row["title"],
                    program=row["program"],
                    control=row["positive_control"],
                    significant=row["fdr"] < FDR_THRESHOLD,
                    cells=[_heat_cell(value, limit) for value in values],
                )
            )
        groups.append((class_label(cell_class), colours[cell_class], heat_rows))
    return HeatMap(donors, groups, limit, len(rows) - len(shown))


@dataclass(frozen=True)
class GeneRow:
    """One gene of a top table."""

    gene: str
    log2_fold_change: str
    fdr: str
    base_mean: str
    ambient_suspect: bool


@dataclass(frozen=True)
class GenePanel:
    """Genes of one cell class: counts, a volcano, the top up and the top down."""

    cell_class: str
    heading: str
    colour: str
    n_up: int
    n_down: int
    n_genes: int
    n_tested: int
    volcano: Markup
    up: list[GeneRow]
    down: list[GeneRow]


def gene_panels(contrast: Contrast) -> list[GenePanel]:
    """A panel per cell class with a gene table; a table without rows or without p-values says so."""
    colours = class_colours(contrast.genes)
    return [_gene_panel(name, contrast.genes[name], colours[name]) for name in class_order(contrast.genes)]


def _gene_panel(cell_class: str, genes: pd.DataFrame, colour: str) -> GenePanel:
    columns = ("log2_fold_change", "p_value", "fdr", "base_mean")
    numeric = genes.assign(**{name: numbers(genes, name) for name in columns})
    called = numeric[numeric["fdr"] < FDR_THRESHOLD]
    ranked = numeric[np.isfinite(numeric["fdr"])].sort_values(["fdr", "p_value"], kind="stable")
    change, p_value, fdr = (numeric[name].to_numpy(dtype=float) for name in columns[:3])
    return GenePanel(
        cell_class=cell_class,
        heading=class_label(cell_class),
        colour=colour,
        n_up=int((called["log2_fold_change"] > 0).sum()),
        n_down=int((called["log2_fold_change"] < 0).sum()),
        n_genes=len(numeric),
        n_tested=len(ranked),
        volcano=draw.volcano(change, p_value, fdr),
        up=_top(ranked[ranked["log2_fold_change"] > 0]),
        down=_top(ranked[ranked["log2_fold_change"] < 0]),
    )


@dataclass(frozen=True)
class Bar:
    """One sample's composition within a compartment: label, cells, and segments (class label, colour, percent)."""

    sample: str
    condition: str
    n_cells: str
    segments: list[tuple[str, str, float]]
    description: str


@dataclass(frozen=True)
class Composition:
    """One compartment: the legend of its classes and a bar per sample."""

    compartment: str
    legend: list[tuple[str, str]]
    bars: list[Bar]


def composition_bars(cells: pd.DataFrame) -> list[Composition]:
    """Stacked bars of each compartment with two classes or more: the share of each class among a sample's cells."""
    if cells.empty or not {"sample", "cell_class", "compartment"} <= set(cells.columns):
        return []
    colours = class_colours(cells["cell_class"].astype(str))
    result = []
    compartments = cells["compartment"].astype(str).unique()
    for compartment in sorted(compartments, key=lambda name: (name == "other", name != "immune", name)):
        part = cells[cells["compartment"].astype(str) == compartment]
        classes = class_order(part["cell_class"].astype(str))
        if len(classes) < 2:
            continue
        table = pd.crosstab(part["sample"].astype(str), part["cell_class"].astype(str)).reindex(columns=classes)
        conditions = part.groupby(part["sample"].astype(str))["condition"].first() if "condition" in part else {}
        bars = []
        for sample, row in table.loc[sorted(table.index, key=natural_key)].iterrows():
            shares = row / row.sum() * 100
            segments = [(class_label(name), colours[name], float(shares[name])) for name in classes if row[name] > 0]
            description = ", ".join(f"{label} {share:.0f}%" for label, _, share in segments)
            condition = str(conditions[sample]) if len(conditions) else ""
            bars.append(Bar(str(sample), condition, count(float(row.sum())), segments, description))
        bars.sort(key=lambda bar: bar.condition)
        legend = [(class_label(name), colours[name]) for name in classes]
        result.append(Composition(compartment, legend, bars))
    return result


@dataclass(frozen=True)
class PlainTable:
    """A table to print as it is: header and cells as text, which columns are numbers."""

    header: list[str]
    rows: list[list[str]]
    numeric: list[bool]


def plain_table(table: pd.DataFrame, columns: Sequence[str] = (), n_rows: int = 2000) -> PlainTable:
    """``table`` as text: numbers shortened, nothing for missing; ``columns`` picks and orders those that exist."""
    picked = table[[name for name in columns if name in table]] if columns else table
    picked = picked.head(n_rows)
    numeric = [
        bool(pd.api.types.is_numeric_dtype(picked[name])) and not pd.api.types.is_bool_dtype(picked[name])
        for name in picked
    ]
    rows = [[_cell_text(value) for value in row] for row in picked.itertuples(index=False, name=None)]
    return PlainTable([str(name).replace("_", " ") for name in picked], rows, numeric)


def replicates(row: Mapping[str, object]) -> str:
    """``4 pairs`` where donors are paired, else ``4 v 3``."""
    pairs = number(row.get("n_pairs"))
    if pairs > 0:
        return plural(int(pairs), "pair")
    return f"{count(number(row.get('n_test')))} v {count(number(row.get('n_reference')))}"


def _tested(effects: pd.DataFrame) -> pd.DataFrame:
    tested: pd.DataFrame = effects[(effects["status"] == "tested") & np.isfinite(effects["effect"])]
    return tested


def uncorrected(rows: pd.DataFrame) -> NDArray[np.float64]:
    """Per row, the effect with leaked RNA left in where it differs by more than 0.1, else NaN."""
    raw, effect = (numbers(rows, name).to_numpy(dtype=float) for name in ("effect_raw", "effect"))
    shown: NDArray[np.float64] = np.where(np.abs(raw - effect) > NOTABLE_CORRECTION, raw, np.nan)
    return shown


def _axis(rows: pd.DataFrame) -> draw.Axis:
    effect, low, high = (rows[name].to_numpy(dtype=float) for name in ("effect", "ci_low", "ci_high"))
    return draw.effect_axis(np.concatenate([effect, uncorrected(rows)]), low, high)


def _forest_row(row: Mapping[str, object], axis: draw.Axis) -> ForestRow:
    effect, low, high, fdr = (number(row[name]) for name in ("effect", "ci_low", "ci_high", "fdr"))
    expected, control = str(row["expected_sign"]), bool(row["positive_control"])
    raw = float(uncorrected(pd.DataFrame([row]))[0])
    significant = fdr < FDR_THRESHOLD
    agrees = ""
    # A mark beside an effect that may be zero would read as a finding.
    if expected in {"+", "-"} and (low > 0 or high < 0):
        agrees = "yes" if (effect > 0) == (expected == "+") else "no"
    return ForestRow(
        title=str(row["title"]),
        program=str(row["program"]),
        caveat=str(row["caveat"]),
        tag="" if row["role"] == "readout" else str(row["role"]),
        control=control,
        drawing=draw.forest_row(
            axis, effect, low, high, significant=significant, control=control, expected_sign=expected, uncorrected=raw
        ),
        effect=signed(effect),
        interval=interval(low, high),
        fdr=probability(fdr),
        significant=significant,
        n=replicates(row),
        expected={"+": "up", "-": "down", "0": "no change", "": "–"}.get(expected, "either way"),
        agrees=agrees,
        uncorrected=signed(raw) if math.isfinite(raw) else "",
    )


def _heat_cell(value: float, limit: float) -> HeatCell:
    if not math.isfinite(value):
        return HeatCell("", "#ffffff", "#5b6770")
    background = diverging(value, limit)
    return HeatCell(signed(value, 1), background, ink_on(background))


def _top(genes: pd.DataFrame) -> list[GeneRow]:
    return [
        GeneRow(
            gene=str(row["gene"]),
            log2_fold_change=signed(row["log2_fold_change"]),
            fdr=probability(row["fdr"]),
            base_mean=f"{row['base_mean']:,.0f}" if math.isfinite(row["base_mean"]) else "–",
            ambient_suspect=str(row.get("ambient_suspect", "")).lower() in {"true", "1", "1.0"},
        )
        for row in records(genes.head(N_TOP_GENES))
    ]


def _cell_text(value: object) -> str:
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return f"{value:,.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:.4g}"
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return f"{int(value):,}"
    return text(value)


def natural_key(name: object) -> tuple[tuple[int, int, str], ...]:
    """Sort key in which D2 stands before D10."""
    pieces = re.split(r"(\d+)", str(name))
    return tuple((0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in pieces)
