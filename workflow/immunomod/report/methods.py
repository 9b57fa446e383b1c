"""The methods text, with the run's own numbers, and the sources that it cites.

Settings come from the resolved config through each floor's own settings, so a default that the user never wrote down
is named as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from immunomod.report.answer import is_trend
from immunomod.report.inputs import Atlas, ReportTables
from immunomod.report.sample_methods import sample_paragraphs
from immunomod.report.sources import Paragraph
from immunomod.report.views import NOTABLE_CORRECTION, uncorrected
from immunomod.report.words import plural


def methods_text(tables: ReportTables) -> list[Paragraph]:
    """One paragraph per floor of the workflow."""
    config = tables.config
    return [
        _acquire(tables),
        *sample_paragraphs(tables),
        _atlas(tables, config),
        *_contrast(tables, config),
        Paragraph(
            "Synthesis",
            "Effects of three data sets or more are pooled by random effects with the Hartung-Knapp interval on a "
            "pooled within-data-set variance; below three nothing is pooled.",
            ("hartung_knapp",),
        ),
    ]


def versions_sentence(versions: pd.DataFrame) -> str:
    """``immunomod 0.1.0, python 3.11.2, …`` of the first entries of the versions table."""
    if versions.empty:
        return ""
    pairs = [f"{name} {version}" for name, version in versions.iloc[:, :2].head(3).itertuples(index=False)]
    return ", ".join(pairs)


def settings_table(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The resolved config as flat rows: dotted key, value."""
    rows: list[tuple[str, str]] = []
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            rows += [(f"{key}.{inner}", text) for inner, text in settings_table(value)]
        elif isinstance(value, Mapping | list) and not value:
            rows.append((str(key), "(defaults)" if isinstance(value, Mapping) else "(none)"))
        else:
            rows.append((str(key), ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return rows


def _acquire(tables: ReportTables) -> Paragraph:
    ledger, samples = tables.ledger, tables.samples
    n_datasets = samples["dataset"].nunique() if "dataset" in samples else 0
    text = f"{plural(len(samples), 'library', 'libraries')} of {plural(n_datasets, 'data set')} were read"
    if len(ledger) and "bytes" in ledger:
        megabytes = pd.to_numeric(ledger["bytes"], errors="coerce").sum() / 1e6
        text += f" from {plural(len(ledger), 'file')} ({megabytes:,.1f} MB), each with its SHA-256 in ledger.tsv"
    return Paragraph("Data", f"{text}. The workflow runs under Snakemake.", ("snakemake",))


def _atlas(tables: ReportTables, config: Mapping[str, Any]) -> Paragraph:
    from immunomod.atlas.settings import AtlasSettings

    settings = AtlasSettings.from_config(config.get("atlas") or {})
    n_cells = sum(len(atlas.cells) for atlas in tables.atlases)
    aligned = sorted({_aligned(atlas) for atlas in tables.atlases})
    resolutions = sorted({value for atlas in tables.atlases for value in _resolutions(atlas)})
    chosen = f" at resolution {' and '.join(f'{value:g}' for value in resolutions)}" if resolutions else ""
    by_auto = (
        ", chosen among several by stability under seeds and subsamples and by separation"
        if settings.leiden_resolution == "auto"
        else ""
    )
    text = (
        f"{plural(len(tables.atlases), 'atlas', 'atlases')} of {n_cells:,} cells: {settings.n_variable_genes:,} genes "
        f"variable across samples, {settings.n_components} principal components {' or '.join(aligned)}, a graph of "
        f"{settings.n_neighbors} neighbours, Leiden clusters{chosen}{by_auto}, and a UMAP for display. Cells were "
        f"named from a sourced table of markers, by their group's expression and their own{_heard(config)}. A "
        "cell's own counts then shifted these votes (expectation maximisation over the classes). No effect is computed "
        "from the map."
    )
    methods = {str(name) for atlas in tables.atlases for name in _chosen(atlas.integration, "method")}
    named = config.get("annotation") or {}
    sources = (
        *("variable_genes", *(("harmony",) if "harmony" in methods else ()), "leiden", "umap"),
        *(name for name, key in (("celltypist", "celltypist"), ("singler", "references")) if named.get(key)),
    )
    return Paragraph("Atlas", text, sources)


def _heard(config: Mapping[str, Any]) -> str:
    """The witnesses beside the markers, in words."""
    named = config.get("annotation") or {}
    parts = [
        f"{word} {', '.join(named[key])}"
        for key, word in (("celltypist", "the CellTypist models"), ("references", "the annotated references"))
        if named.get(key)
    ]
    return f", with one vote each for {' and '.join(parts)}" if parts else ""


def _chosen(table: pd.DataFrame, column: str) -> list[Any]:
    """Values of the chosen rows; none where the table lacks the columns."""
    if not {"chosen", column} <= set(table):
        return []
    return list(table.loc[table["chosen"].astype(str) == "True", column])


def _aligned(atlas: Atlas) -> str:
    methods, keys = _chosen(atlas.integration, "method"), _chosen(atlas.integration, "key")
    if not methods or methods[0] == "none":
        return "without integration"
    return f"aligned over {keys[0]} by {methods[0]}"


def _resolutions(atlas: Atlas) -> list[float]:
    table = atlas.clustering
    clusters = table[table["purpose"] == "clusters"] if "purpose" in table else table
    return [float(value) for value in _chosen(clusters, "resolution")]


_GENE_MODELS = {
    "deseq2": "PyDESeq2's negative binomial model",
    "limma_trend": "linear models of log2 counts per million, variances moderated towards a trend (limma-trend)",
}
_GENE_REFERENCES = {"deseq2": ("pydeseq2", "deseq2"), "limma_trend": ("moderated",)}


def _gene_trends(tables: ReportTables, gene_method: str) -> str:
    if gene_method == "limma_trend" or not any(is_trend(contrast) for contrast in tables.contrasts):
        return ""
    return " (trends over three or more values within donors: each donor's slope, by limma-trend)"


def _contrast(tables: ReportTables, config: Mapping[str, Any]) -> list[Paragraph]:
    from immunomod.contrast.settings import ContrastSettings

    settings = ContrastSettings.from_config(config.get("contrast") or {})
    effects = [contrast.effects for contrast in tables.contrasts]
    n_rows = sum(len(table) for table in effects)
    n_tested = sum(int((table["status"] == "tested").sum()) for table in effects)
    programs = (
        f"A replicate is one donor in one sample; its counts were summed over the cells of each class (at least "
        f"{settings.min_cells} cells). The score of a programme is the signed mean, over its detected genes (at least "
        f"{settings.min_genes}), of log2 counts per million, library sizes adjusted by TMM over genes that do not "
        "differ between the arms. Effects are differences "
        f"of scores between arms from a linear model, paired by donor where donors are paired, with variances "
        f"moderated (empirical Bayes) over all classes of the data set: p-values rest on those of programmes without "
        f"an effect, {100 * settings.confidence:g}% intervals on those of effects of like size. Beside them stand an "
        f"exact sign-flip p-value over donors and a z-value against {settings.n_random_sets:,} random gene sets, "
        "matched for size and expression. False discovery rates are Benjamini-Hochberg's. "
        f"{len(tables.programs.table)} programmes gave {n_rows:,} rows, of which {n_tested:,} could be tested; no row "
        "is left out for its result."
    )
    corrected = pd.concat([table[table["status"] == "tested"] for table in effects]) if effects else pd.DataFrame()
    n_moved = int(np.isfinite(uncorrected(corrected)).sum()) if len(corrected) else 0
    differs = len(corrected) > 0 and bool((corrected["effect_raw"] - corrected["effect"]).abs().gt(1e-9).any())
    leaked = (
        "In libraries of both compartments, the molecules of every gene that are expected to have leaked from the "
        "partner were taken out of the sums before anything was compared. Their number follows from genes that the "
        "class does not make in the control arm, and its uncertainty is part of every interval and p-value; "
        f"effect_raw keeps the effect without that. It moved {n_moved:,} of "
        f"{plural(len(corrected), 'tested effect')} by more than {NOTABLE_CORRECTION:g}."
        if differs
        else "No leaked RNA was taken out of the sums: no library that was compared shows any, so effect is effect_raw."
    )
    genes = (
        f"Gene by gene, the same sums were compared by {_GENE_MODELS[settings.gene_method]}"
        f"{_gene_trends(tables, settings.gene_method)}; fold changes drawn towards zero have a Cauchy prior "
        "(apeGLM's). Composition was compared on the replicate's log odds of a cell class within its "
        "compartment; the shares of regulatory T cells among CD4 T cells, and of cells in S, G2 or M "
        "in each class, by quasi-binomial models of the replicates' counts."
    )
    return [
        Paragraph("Programme effects", programs, ("pseudobulk", "tmm", "moderated", "permutation", "fdr")),
        Paragraph("Leaked RNA in the comparisons", leaked, ("soupx",) if differs else ()),
        Paragraph("Genes and composition", genes, _GENE_REFERENCES[settings.gene_method]),
    ]
