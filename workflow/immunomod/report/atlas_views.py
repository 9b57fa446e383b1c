"""How an atlas was made, for a reader: the methods tried, the resolutions tried, the clusters, and their genes.

Each table keeps the columns that help to judge the choice, and says the choice and its reasons in sentences above it.
Columns that a run did not write are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pandas as pd
from markupsafe import Markup

from immunomod.report.inputs import Atlas, as_bool, records
from immunomod.report.palette import NEUTRAL, class_colours, class_label, class_order
from immunomod.report.values import number, numbers, text
from immunomod.report.views import PlainTable, natural_key, plain_table
from immunomod.report.words import count, signed

N_MARKERS = 8
#: Columns of each table by what the reader sees as their name, in order.
INTEGRATION = {
    "method": "method",
    "batch_score": "batches mixed",
    "class_score": "classes kept",
    "effect_kept": "effect kept",
    "score": "score",
    "same_batch_neighbors": "neighbours of the same batch",
    "expected_by_chance": "expected by chance",
    "seconds": "seconds",
}
CLUSTERING = {
    "purpose": "purpose",
    "resolution": "resolution",
    "n_clusters": "clusters",
    "smallest_cluster": "smallest",
    "stability_ari": "same with another seed (ARI)",
    "subsample_ari": "same in a part of the cells (ARI)",
    "silhouette": "silhouette",
    "modularity": "modularity",
}
CLUSTERS = {
    "cluster": "cluster",
    "cell_class": "cell class",
    "n_cells": "cells",
    "n_samples": "samples",
    "confidence": "confidence",
    "witnesses": "witnesses",
    "runner_up": "runner-up",
    "marks": "marks",
    "top_markers": "top markers",
}
CLASS_COLUMNS = ("cell_class", "runner_up", "proposed_class")
CHOSEN = "\N{CHECK MARK} "
_LARGEST_DOT = 7.0


@dataclass(frozen=True)
class Section:
    """A table of an atlas: its heading, what to say of it, its rows."""

    heading: str
    notes: list[str]
    table: PlainTable


@dataclass(frozen=True)
class MarkerGene:
    """A gene that tells a class from the rest: its name, two dots, and the figures behind them."""

    symbol: str
    drawing: Markup
    detail: str


@dataclass(frozen=True)
class MarkerRow:
    """The first genes of a class or cluster."""

    label: str
    colour: str
    n_cells: str
    genes: list[MarkerGene] = field(default_factory=list)


def sections(atlas: Atlas) -> list[Section]:
    """The tables of an atlas that have rows."""
    found = [clusters(atlas.clusters), integration(atlas.integration), clustering(atlas.clustering)]
    return [section for section in found if section.table.rows]


def integration(table: pd.DataFrame) -> Section:
    """The methods that were tried side by side, the best first, and what to know of the one that was taken."""
    ordered = table.sort_values("score", ascending=False, kind="stable") if "score" in table else table
    notes = []
    for row in records(ordered[_chosen(ordered)]):
        batches = number(row.get("n_batches"))
        over = f" over {count(batches)} batches ({text(row.get('key'))})" if math.isfinite(batches) else ""
        notes += [_sentence(f"{text(row.get('method'))}{over}", text(row.get("reason")))]
        notes += [f"Caution: {text(row['caution'])}"] if text(row.get("caution")) else []
    return Section("Integration", notes, _table(_marked(ordered, "method"), INTEGRATION))


def clustering(table: pd.DataFrame) -> Section:
    """Every resolution that was tried; how alike its clusters are with another seed and in a part of the cells."""
    notes = [
        _sentence(f"{text(row.get('purpose')) or 'clusters'}: resolution {number(row.get('resolution')):g}", reason)
        for row in records(table[_chosen(table)])
        if (reason := text(row.get("reason")))
    ]
    return Section("Resolution of the clusters", notes, _table(_marked(table, "resolution"), CLUSTERING))


def clusters(table: pd.DataFrame) -> Section:
    """What each cluster was named and why, in the order of its number, with the names of classes for a reader."""
    if table.empty:
        return Section("Clusters and their names", [], plain_table(table))
    ordered = table.sort_values("cluster", key=lambda column: column.map(natural_key), kind="stable")
    named = {
        name: ordered[name].map(lambda value: class_label(text(value))) for name in CLASS_COLUMNS if name in ordered
    }
    shown = ordered.assign(**named)
    if "proposed_class" in shown and "cell_class" in shown:
        differs = (shown["proposed_class"] != "") & (shown["proposed_class"] != shown["cell_class"])
        said = shown["cell_class"] + " (proposed: " + shown["proposed_class"] + ")"
        shown = shown.assign(cell_class=shown["cell_class"].where(~differs, said))
    if "marks" in shown and (shown["marks"].map(text) == "").all():
        shown = shown.drop(columns="marks")
    return Section("Clusters and their names", [], _table(shown, CLUSTERS))


def marker_rows(table: pd.DataFrame) -> list[MarkerRow]:
    """The first genes of each cell class, or of each cluster where no class was looked at."""
    if not {"grouping", "group", "gene_symbol"} <= set(table):
        return []
    groupings = table["grouping"].map(text)
    of_classes = bool((groupings == "cell_class").any())
    rows = table[groupings == ("cell_class" if of_classes else "cluster")]
    groups = rows["group"].map(text)
    names = class_order(groups) if of_classes else sorted(groups.unique(), key=natural_key)
    colours = class_colours(names) if of_classes else dict.fromkeys(names, NEUTRAL)
    found = []
    for name in names:
        own = rows[groups == name]
        own = own.assign(rank=numbers(own, "rank")).sort_values("rank", kind="stable").head(N_MARKERS)
        genes = [_marker_gene(row, colours[name]) for row in records(own)]
        label = class_label(name) if of_classes else f"cluster {name}"
        found.append(MarkerRow(label, colours[name], count(numbers(own, "n_cells").max()), genes))
    return found


def _marker_gene(row: dict[str, object], colour: str) -> MarkerGene:
    inside, outside = (number(row.get(name)) for name in ("detected_in", "detected_out"))
    said = [f"detected in {inside:.0%} of the class and {outside:.0%} of the rest"] if math.isfinite(inside) else []
    change, auc = number(row.get("log2_fold_change")), number(row.get("auc"))
    said += [f"{signed(change, 1)} log2 units"] if math.isfinite(change) else []
    said += [f"AUC {auc:.2f}"] if math.isfinite(auc) else []
    return MarkerGene(text(row.get("gene_symbol")), _dots(inside, outside, colour), ", ".join(said))


def _dots(inside: float, outside: float, colour: str) -> Markup:
    """A filled dot whose area is the share of the class that has the gene, and a hollow one for the rest."""
    parts = []
    for x, share, style in ((8, inside, f'fill="{colour}"'), (24, outside, f'fill="none" stroke="{NEUTRAL}"')):
        if math.isfinite(share):
            radius = _LARGEST_DOT * math.sqrt(min(max(share, 0.0), 1.0))
            parts.append(f'<circle cx="{x}" cy="8" r="{max(radius, 0.5):.1f}" {style}/>')
    return Markup(f'<svg width="32" height="16" aria-hidden="true">{"".join(parts)}</svg>')


def _chosen(table: pd.DataFrame) -> pd.Series:
    chosen = as_bool(table["chosen"]) if "chosen" in table else [False] * len(table)
    return pd.Series(chosen, index=table.index, dtype=bool)


def _marked(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """``table`` with a mark at the rows that were chosen."""
    if column not in table:
        return table
    shown = table[column].map(lambda value: f"{number(value):g}" if math.isfinite(number(value)) else text(value))
    return table.assign(**{column: shown.where(~_chosen(table), CHOSEN + shown)})


def _table(table: pd.DataFrame, names: dict[str, str]) -> PlainTable:
    """Columns that exist and hold something, under the names for a reader."""
    kept = [name for name in names if name in table and table[name].notna().any()]
    return plain_table(table[kept].rename(columns=names))


def _sentence(what: str, why: str) -> str:
    first = what[:1].upper() + what[1:]
    return f"{first}: {why}." if why else f"{first}."
