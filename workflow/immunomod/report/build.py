"""Builds the report: one HTML file that needs no network, no neighbour files and no JavaScript to be read.

Every text from outside is escaped by the template engine; a content security policy in the page allows nothing to be
fetched and no script but the page's own, by its hash. The same inputs give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from immunomod.claims import ClaimSet, load_claims
from immunomod.files import write_text
from immunomod.programs import ProgramSet
from immunomod.report import atlas_views, effect_rows, potency_view, views
from immunomod.report.answer import Answer, answer, total_donors, with_fitting_expectations
from immunomod.report.claims_view import fold_alike, headline, judge_claims
from immunomod.report.downloads import Download, Downloads
from immunomod.report.figures import report_style, write_figures
from immunomod.report.inputs import Atlas, Contrast, ReportInputs, ReportTables, load_tables
from immunomod.report.map_data import MapData, map_data
from immunomod.report.maps import MAX_CELLS, CellMap, Colours, run_colours, static_map
from immunomod.report.methods import methods_text, settings_table, versions_sentence
from immunomod.report.palette import diverging
from immunomod.report.quality import quality
from immunomod.report.shown import cell_path, cell_table, donor_path, donor_table, write_shown_tables
from immunomod.report.sources import SOURCES
from immunomod.report.words import FDR_THRESHOLD, plural, slug

#: Ligand-receptor pairs in the table that can be searched; the download holds all.
N_PAIRS = 300


@dataclass(frozen=True)
class ContrastView:
    """Everything that the page shows of one contrast."""

    name: str
    anchor: str
    answer: Answer
    panels: list[views.ForestPanel]
    confounders: views.ForestPanel | None
    untested: list[views.Untested]
    heat_map: views.HeatMap | None
    genes: list[tuple[views.GenePanel, Download]]
    composition: effect_rows.EffectTable | None
    fractions: list[effect_rows.EffectTable]
    communication: list[effect_rows.EffectTable]
    pairs: views.PlainTable | None
    diseases: list[effect_rows.EffectTable]
    witness: potency_view.Witness | None
    downloads: Mapping[str, Download]


@dataclass(frozen=True)
class AtlasView:
    """Everything that the page shows of one atlas."""

    name: str
    anchor: str
    n_cells: int
    map: CellMap | None
    data: MapData | None
    compositions: list[views.Composition]
    sections: list[atlas_views.Section]
    markers: list[atlas_views.MarkerRow]
    downloads: Mapping[str, Download]


def build_report(
    inputs: ReportInputs, programs: ProgramSet, page: Path, figures: Path, claims: ClaimSet | None = None
) -> None:
    """Write the report, its figures, and the tables of what it works out (in ``tables`` beside the page).

    Parameters
    ----------
    inputs
        Where everything lies; see :meth:`ReportInputs.from_results`.
    programs
        The programmes of the run, for titles, caveats and positive controls.
    page
        The HTML file to write.
    figures
        Folder for the figures as PNG and SVG; made if absent.
    claims
        What is claimed of co-culture; the shipped claims if None.
    """
    tables = report_tables(inputs, programs)
    figures.mkdir(parents=True, exist_ok=True)
    with report_style():
        write_figures(tables, figures)
    write_page(tables, page, claims)


def report_tables(inputs: ReportInputs, programs: ProgramSet) -> ReportTables:
    """Everything that the report shows; without expected signs where a contrast is no co-culture."""
    tables = load_tables(inputs, programs)
    fitting = [with_fitting_expectations(contrast, tables.samples) for contrast in tables.contrasts]
    return replace(tables, contrasts=fitting)


def write_page(tables: ReportTables, page: Path, claims: ClaimSet | None = None) -> None:
    """Write the HTML file, and beside it the tables of what it works out; see :func:`build_report`."""
    with report_style():
        text = render(tables, claims or load_claims())
    write_shown_tables(tables, page.parent / "tables")
    write_text(text, page)


def render(tables: ReportTables, claims: ClaimSet) -> str:
    """The page as text."""
    environment = Environment(
        loader=PackageLoader("immunomod.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["rows"] = lambda number: plural(number, "row")
    return environment.get_template("page.html.j2").render(**_context(tables, claims))


def _context(tables: ReportTables, claims: ClaimSet) -> dict[str, Any]:
    downloads = Downloads()
    script = _template_text("page.js")
    titles = tables.programs.table["title"]
    anchors = _anchors([contrast.name for contrast in tables.contrasts])
    small = [_contrast_downloads(contrast, downloads) for contrast in tables.contrasts]
    run_tables = _run_downloads(tables, downloads)
    colours = run_colours(tables.samples, tables.atlases)
    # A page holds one atlas of 200,000 cells, or several smaller ones.
    most = max(MAX_CELLS // max(len(tables.atlases), 1), 20_000)
    atlases = [_atlas_view(atlas, downloads, colours, titles, most) for atlas in tables.atlases]
    contrasts = [
        _contrast_view(contrast, anchors[contrast.name], tables.samples, links, downloads)
        for contrast, links in zip(tables.contrasts, small, strict=True)
    ]
    judged = judge_claims(tables, claims)
    suppression, no_suppression = potency_view.suppression_view(tables.suppression, titles)
    methods = methods_text(tables)
    cited = list(dict.fromkeys(key for paragraph in methods for key in paragraph.sources))
    return {
        "title": str(tables.config.get("title") or "") or _default_title(tables),
        "contrasts": contrasts,
        "any_uncorrected": any(row.uncorrected for view in contrasts for row in _forest_rows(view)),
        "n_donors": total_donors(tables.contrasts),
        "n_samples": len(tables.samples),
        "n_cells": sum(len(atlas.cells) for atlas in tables.atlases),
        "datasets": tables.datasets,
        "claims": fold_alike(judged),
        "claims_headline": headline(judged),
        "quality": quality(tables),
        "atlases": atlases,
        "potency": potency_view.potency_tables(tables.potency, titles),
        "variance": potency_view.variance_view(tables.variance, titles),
        "suppression": suppression,
        "no_suppression": no_suppression,
        "pooled": effect_rows.pooled_tables(tables.synthesis, titles),
        "synthesis": _synthesis(tables.synthesis),
        "run_tables": run_tables,
        "methods": methods,
        "numbers": {key: number for number, key in enumerate(cited, start=1)},
        "sources": [SOURCES[key] for key in cited],
        "versions_sentence": versions_sentence(tables.versions),
        "settings": settings_table(tables.config),
        "ledger": views.plain_table(tables.ledger),
        "versions": views.plain_table(tables.versions),
        "files": downloads.embedded,
        "scale": [(share, diverging(share, 1.0)) for share in (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0)],
        "fdr_threshold": FDR_THRESHOLD,
        "style": Markup(_template_text("page.css")),
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }


def _run_downloads(tables: ReportTables, downloads: Downloads) -> dict[str, Download]:
    """The tables of the whole run; those that it did not write are left out, but for the oldest."""
    named = (
        ("qc", tables.qc, "samples/qc.tsv"),
        ("ambient", _joined(tables.ambient), "samples/<sample>/ambient.tsv"),
        ("leakage", _joined(tables.leakage), "pseudobulk/<dataset>.leakage.tsv"),
        ("program_meta", tables.synthesis, "synthesis/program_meta.tsv"),
        ("potency", tables.potency, "synthesis/potency.tsv"),
        ("suppression", tables.suppression, "synthesis/suppression.tsv"),
        ("variance", tables.variance, "synthesis/variance.tsv"),
        ("coverage", tables.coverage, "check/coverage.tsv"),
        ("samples_sheet", tables.samples, "the samples sheet"),
        ("ledger", tables.ledger, "ledger.tsv"),
        ("versions", tables.versions, "provenance/versions.tsv"),
    )
    return {name: downloads.embed(table, name, path) for name, table, path in named if len(table.columns)}


def _contrast_view(
    contrast: Contrast,
    anchor: str,
    samples: pd.DataFrame,
    links: Mapping[str, Download],
    downloads: Downloads,
) -> ContrastView:
    genes = [
        (
            panel,
            downloads.embed(
                contrast.genes[panel.cell_class],
                f"{slug(contrast.name)}_genes_{slug(panel.cell_class)}",
                f"contrasts/{contrast.name}/genes/{panel.cell_class}.tsv.gz",
            ),
        )
        for panel in views.gene_panels(contrast)
    ]
    return ContrastView(
        name=contrast.name,
        anchor=anchor,
        answer=answer(contrast, samples),
        panels=views.forest_panels(contrast),
        confounders=views.confounder_panel(contrast),
        untested=views.untested(contrast),
        heat_map=views.heat_map(contrast),
        genes=genes,
        composition=effect_rows.composition_table(contrast),
        fractions=effect_rows.fraction_tables(contrast),
        communication=effect_rows.communication_tables(contrast),
        pairs=_pairs(contrast.communication),
        diseases=effect_rows.disease_tables(contrast),
        witness=potency_view.second_witness(contrast),
        downloads=links,
    )


def _pairs(communication: pd.DataFrame) -> views.PlainTable | None:
    """The clearest ligand-receptor pairs as a table to sort and search; none where the run wrote none."""
    if not {"fdr", "p_value", "status"} <= set(communication):
        return None
    columns = (
        *("source", "target", "ligand", "receptor", "effect", "ci_low", "ci_high", "fdr", "fdr_both"),
        *("ligand_log2_fold_change", "receptor_log2_fold_change", "status"),
    )
    ordered = communication.sort_values(["fdr", "p_value"], kind="stable")
    return views.plain_table(ordered, columns, n_rows=N_PAIRS)


def _forest_rows(contrast: ContrastView) -> list[views.ForestRow]:
    panels = [*contrast.panels, *([contrast.confounders] if contrast.confounders else [])]
    return [row for panel in panels for row in panel.rows]


def _contrast_downloads(contrast: Contrast, downloads: Downloads) -> dict[str, Download]:
    extras = ["title", "caveat", "sign_confidence", "compartment", "positive_control_in", "positive_control"]
    effects = contrast.effects.drop(columns=extras)
    changes = donor_table(contrast)
    named = (
        ("program_effects", effects),
        ("program_scores", contrast.scores),
        ("program_enrichment", contrast.enrichment),
        ("program_genes", contrast.program_genes),
        ("msc_scores", contrast.msc_scores),
        ("composition", contrast.composition),
        ("fractions", contrast.fractions),
        ("communication", contrast.communication),
        ("disease", contrast.disease),
        ("design", contrast.design),
    )
    embedded = {
        name: downloads.embed(table, f"{slug(contrast.name)}_{name}", f"contrasts/{contrast.name}/{name}.tsv")
        for name, table in named
        if not table.empty
    }
    if len(changes):
        embedded["donors"] = downloads.embed(changes, f"{slug(contrast.name)}_donors", donor_path(contrast.name))
    return embedded


def _atlas_view(atlas: Atlas, downloads: Downloads, colours: Colours, titles: pd.Series, n_cells: int) -> AtlasView:
    held = cell_table(atlas)
    offered = (
        ("clusters", atlas.clusters),
        ("integration", atlas.integration),
        ("clustering", atlas.clustering),
        ("markers", atlas.markers),
    )
    embedded = {
        name: downloads.embed(table, f"{slug(atlas.name)}_{name}", f"atlas/{atlas.name}/{name}.tsv")
        for name, table in offered
        if len(table)
    }
    if len(held):
        embedded["cells"] = downloads.embed(held, f"{slug(atlas.name)}_cells", cell_path(atlas.name))
    return AtlasView(
        name=atlas.name,
        anchor=f"atlas-{slug(atlas.name)}",
        n_cells=len(atlas.cells),
        map=static_map(atlas, n_cells),
        data=map_data(atlas, colours, titles, n_cells),
        compositions=views.composition_bars(atlas.cells),
        sections=atlas_views.sections(atlas),
        markers=atlas_views.marker_rows(atlas.markers),
        downloads=embedded,
    )


def _synthesis(table: pd.DataFrame) -> views.PlainTable:
    """Pooled rows only: those with an effect."""
    column = next((name for name in ("effect", "pooled_effect", "estimate") if name in table), None)
    pooled = table[pd.to_numeric(table[column], errors="coerce").notna()] if column else table.iloc[:0]
    return views.plain_table(pooled)


def _default_title(tables: ReportTables) -> str:
    datasets = tables.datasets
    return f"Immunomodulation report: {', '.join(datasets[:4])}{' and others' if len(datasets) > 4 else ''}"


def _joined(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The samples' tables under one another; without columns where no sample has rows."""
    filled = [table for table in tables.values() if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame()


def _anchors(names: Iterable[str]) -> dict[str, str]:
    return {name: f"contrast-{slug(name)}" for name in names}


def _template_text(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")
