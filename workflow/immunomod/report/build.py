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

from immunomod.files import write_text
from immunomod.programs import ProgramSet
from immunomod.report import atlas_views, views
from immunomod.report.answer import Answer, answer, total_donors, with_fitting_expectations
from immunomod.report.downloads import Download, Downloads
from immunomod.report.figures import report_style, write_figures
from immunomod.report.inputs import Atlas, Contrast, ReportInputs, ReportTables, load_tables
from immunomod.report.maps import CellMap, cell_maps
from immunomod.report.methods import methods_text, settings_table, versions_sentence
from immunomod.report.palette import diverging
from immunomod.report.quality import quality
from immunomod.report.sources import SOURCES
from immunomod.report.words import FDR_THRESHOLD, plural, slug


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
    composition: list[views.CompositionRow]
    downloads: list[tuple[str, Download]]


@dataclass(frozen=True)
class AtlasView:
    """Everything that the page shows of one atlas."""

    name: str
    anchor: str
    n_cells: int
    maps: list[CellMap]
    compositions: list[views.Composition]
    sections: list[atlas_views.Section]
    markers: list[atlas_views.MarkerRow]
    downloads: list[tuple[str, Download]]


def build_report(inputs: ReportInputs, programs: ProgramSet, page: Path, figures: Path) -> None:
    """Write the report and its figures.

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
    """
    tables = load_tables(inputs, programs)
    fitting = [with_fitting_expectations(contrast, tables.samples) for contrast in tables.contrasts]
    tables = replace(tables, contrasts=fitting)
    figures.mkdir(parents=True, exist_ok=True)
    with report_style():
        write_figures(tables, figures)
        text = render(tables)
    write_text(text, page)


def render(tables: ReportTables) -> str:
    """The page as text."""
    environment = Environment(
        loader=PackageLoader("immunomod.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["rows"] = lambda number: plural(number, "row")
    return environment.get_template("page.html.j2").render(**_context(tables))


def _context(tables: ReportTables) -> dict[str, Any]:
    downloads = Downloads()
    script = _template_text("page.js")
    anchors = _anchors([contrast.name for contrast in tables.contrasts])
    small = [_contrast_downloads(contrast, downloads) for contrast in tables.contrasts]
    atlases = [_atlas_view(atlas, downloads) for atlas in tables.atlases]
    ambient = _joined(tables.ambient)
    run_tables = {
        name: downloads.embed(table, name)
        for name, table in (
            ("qc", tables.qc),
            ("ambient", ambient),
            ("ledger", tables.ledger),
            ("versions", tables.versions),
        )
    }
    synthesis_download = downloads.embed(tables.synthesis, "program_meta")
    contrasts = [
        _contrast_view(contrast, anchors[contrast.name], tables.samples, links, downloads)
        for contrast, links in zip(tables.contrasts, small, strict=True)
    ]
    methods = methods_text(tables)
    cited = list(dict.fromkeys(key for paragraph in methods for key in paragraph.sources))
    return {
        "title": str(tables.config.get("title") or "") or _default_title(tables),
        "contrasts": contrasts,
        "any_uncorrected": any(row.uncorrected for view in contrasts for row in _forest_rows(view)),
        "n_donors": total_donors(tables.contrasts),
        "n_samples": len(tables.samples),
        "n_cells": sum(len(atlas.cells) for atlas in tables.atlases),
        "datasets": sorted(set(tables.samples.get("dataset", pd.Series(dtype=str)))),
        "quality": quality(tables),
        "atlases": atlases,
        "synthesis": _synthesis(tables.synthesis),
        "synthesis_download": synthesis_download,
        "run_tables": run_tables,
        "methods": methods,
        "numbers": {key: number for number, key in enumerate(cited, start=1)},
        "sources": [SOURCES[key] for key in cited],
        "versions_sentence": versions_sentence(tables.versions),
        "settings": settings_table(tables.config),
        "ledger": views.plain_table(tables.ledger),
        "versions": views.plain_table(tables.versions),
        "scale": [(share, diverging(share, 1.0)) for share in (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0)],
        "fdr_threshold": FDR_THRESHOLD,
        "style": Markup(_template_text("page.css")),
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }


def _contrast_view(
    contrast: Contrast,
    anchor: str,
    samples: pd.DataFrame,
    links: list[tuple[str, Download]],
    downloads: Downloads,
) -> ContrastView:
    genes = [
        (
            panel,
            downloads.embed(
                contrast.genes[panel.cell_class],
                f"{slug(contrast.name)}_genes_{slug(panel.cell_class)}",
                complete_at=f"contrasts/{contrast.name}/genes/{panel.cell_class}.tsv.gz",
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
        composition=views.composition_rows(contrast),
        downloads=links,
    )


def _forest_rows(contrast: ContrastView) -> list[views.ForestRow]:
    panels = [*contrast.panels, *([contrast.confounders] if contrast.confounders else [])]
    return [row for panel in panels for row in panel.rows]


def _contrast_downloads(contrast: Contrast, downloads: Downloads) -> list[tuple[str, Download]]:
    extras = ["title", "caveat", "sign_confidence", "compartment", "positive_control_in", "positive_control"]
    effects = contrast.effects.drop(columns=extras)
    named = (
        ("program effects", "program_effects", effects),
        ("programme scores of replicates", "program_scores", contrast.scores),
        ("composition", "composition", contrast.composition),
        ("design", "design", contrast.design),
    )
    return [
        (label, downloads.embed(table, f"{slug(contrast.name)}_{name}", f"contrasts/{contrast.name}/{name}.tsv"))
        for label, name, table in named
        if not table.empty
    ]


def _atlas_view(atlas: Atlas, downloads: Downloads) -> AtlasView:
    offered = [("clusters", atlas.clusters), ("integration", atlas.integration), ("markers", atlas.markers)]
    return AtlasView(
        name=atlas.name,
        anchor=f"atlas-{slug(atlas.name)}",
        n_cells=len(atlas.cells),
        maps=cell_maps(atlas),
        compositions=views.composition_bars(atlas.cells),
        sections=atlas_views.sections(atlas),
        markers=atlas_views.marker_rows(atlas.markers),
        downloads=[
            (label, downloads.embed(table, f"{slug(atlas.name)}_{label}")) for label, table in offered if len(table)
        ],
    )


def _synthesis(table: pd.DataFrame) -> views.PlainTable:
    """Pooled rows only: those with an effect."""
    column = next((name for name in ("effect", "pooled_effect", "estimate") if name in table), None)
    pooled = table[pd.to_numeric(table[column], errors="coerce").notna()] if column else table.iloc[:0]
    return views.plain_table(pooled)


def _default_title(tables: ReportTables) -> str:
    datasets = sorted(set(tables.samples.get("dataset", pd.Series(dtype=str))))
    return f"Immunomodulation report: {', '.join(datasets[:4])}{' and others' if len(datasets) > 4 else ''}"


def _joined(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The samples' tables under one another; without columns where no sample has rows."""
    filled = [table for table in tables.values() if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame()


def _anchors(names: Iterable[str]) -> dict[str, str]:
    return {name: f"contrast-{slug(name)}" for name in names}


def _template_text(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")
