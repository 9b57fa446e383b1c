"""The methods text, with the run's own numbers, and the sources that it cites.

Settings come from the resolved config through each floor's own settings, so a default that the user never wrote down
is named as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from immunomod.report.inputs import ReportTables
from immunomod.report.words import plural


@dataclass(frozen=True)
class Source:
    """A cited work."""

    authors: str
    title: str
    url: str


SOURCES: Mapping[str, Source] = {
    "snakemake": Source(
        "Mölder and others 2021",
        "Sustainable data analysis with Snakemake",
        "https://doi.org/10.12688/f1000research.29032.2",
    ),
    "scanpy": Source("Wolf and others 2018", "SCANPY", "https://doi.org/10.1186/s13059-017-1382-0"),
    "mad": Source(
        "Heumos and others 2023",
        "Best practices for single-cell analysis across modalities",
        "https://doi.org/10.1038/s41576-023-00586-w",
    ),
    "scrublet": Source("Wolock and others 2019", "Scrublet", "https://doi.org/10.1016/j.cels.2018.11.005"),
    "ulm": Source(
        "Badia-i-Mompel and others 2022",
        "decoupleR: univariate linear model of a signed gene set",
        "https://doi.org/10.1093/bioadv/vbac016",
    ),
    "variable_genes": Source(
        "Stuart and others 2019",
        "Comprehensive integration of single-cell data (variance-stabilised variable genes)",
        "https://doi.org/10.1016/j.cell.2019.05.031",
    ),
    "harmony": Source("Korsunsky and others 2019", "Harmony", "https://doi.org/10.1038/s41592-019-0619-0"),
    "leiden": Source("Traag and others 2019", "From Louvain to Leiden", "https://doi.org/10.1038/s41598-019-41695-z"),
    "umap": Source("McInnes and others 2018", "UMAP", "https://arxiv.org/abs/1802.03426"),
    "pseudobulk": Source(
        "Squair and others 2021",
        "Confronting false discoveries in single-cell differential expression",
        "https://doi.org/10.1038/s41467-021-25960-2",
    ),
    "moderated": Source(
        "Smyth 2004", "Linear models and empirical Bayes methods", "https://doi.org/10.2202/1544-6115.1027"
    ),
    "tmm": Source(
        "Robinson and Oshlack 2010",
        "Scaling normalization of RNA-seq (TMM)",
        "https://doi.org/10.1186/gb-2010-11-3-r25",
    ),
    "permutation": Source(
        "Phipson and Smyth 2010", "Permutation p-values should never be zero", "https://doi.org/10.2202/1544-6115.1585"
    ),
    "fdr": Source(
        "Benjamini and Hochberg 1995",
        "Controlling the false discovery rate",
        "https://doi.org/10.1111/j.2517-6161.1995.tb02031.x",
    ),
    "pydeseq2": Source("Muzellec and others 2023", "PyDESeq2", "https://doi.org/10.1093/bioinformatics/btad547"),
    "deseq2": Source("Love and others 2014", "DESeq2", "https://doi.org/10.1186/s13059-014-0550-8"),
    "hartung_knapp": Source(
        "IntHout and others 2014",
        "The Hartung-Knapp-Sidik-Jonkman method for random effects meta-analysis",
        "https://doi.org/10.1186/1471-2288-14-25",
    ),
}


@dataclass(frozen=True)
class Paragraph:
    """One step of the methods: its name, its text, and the keys of the works it cites."""

    step: str
    text: str
    sources: tuple[str, ...]


def methods_text(tables: ReportTables) -> list[Paragraph]:
    """One paragraph per floor of the workflow."""
    config = tables.config
    return [
        _acquire(tables),
        _sample(tables, config),
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
        text += f" from {plural(len(ledger), 'file')} ({megabytes:,.1f} MB), each with its SHA-256 in the ledger below"
    return Paragraph("Data", f"{text}. The workflow runs under Snakemake.", ("snakemake",))


def _sample(tables: ReportTables, config: Mapping[str, Any]) -> Paragraph:
    qc = tables.qc
    before, after = (
        int(pd.to_numeric(qc[name], errors="coerce").sum()) if name in qc else 0
        for name in ("cells_before", "cells_after")
    )
    limits = config.get("qc") or {}
    n_mads = f"{limits['n_mads']:g} " if isinstance(limits.get("n_mads"), int | float) else "a set number of "
    doublets = config.get("doublets") or {}
    method = str(doublets.get("method", "scrublet"))
    text = (
        f"Each sample was filtered by itself, at limits {n_mads}median absolute deviations (MAD) from its own median "
        f"and never beyond fixed floors; the table of samples gives every limit and where it came from. "
        f"{before:,} cells entered and {after:,} passed. Doublets were called by {method}. Counts were scaled to "
        f"10,000 per cell and log-transformed; programme scores of single cells (for maps only) are t-values of a "
        f"univariate linear model (ULM)."
    )
    return Paragraph("Cells", text, ("mad", "scanpy", *(("scrublet",) if method == "scrublet" else ()), "ulm"))


def _atlas(tables: ReportTables, config: Mapping[str, Any]) -> Paragraph:
    from immunomod.atlas.settings import AtlasSettings

    settings = AtlasSettings.from_config(config.get("atlas") or {})
    n_cells = sum(len(atlas.cells) for atlas in tables.atlases)
    aligned = (
        "without integration"
        if settings.integration == "none"
        else f"aligned over {settings.integration_key} by {settings.integration}"
    )
    text = (
        f"{plural(len(tables.atlases), 'atlas', 'atlases')} of {n_cells:,} cells: {settings.n_variable_genes:,} genes "
        f"variable across samples, {settings.n_components} principal components {aligned}, a graph of "
        f"{settings.n_neighbors} neighbours, Leiden clusters at resolution {settings.leiden_resolution:g} and a UMAP "
        f"for display. Clusters were named from a sourced table of markers. No effect is computed from the map."
    )
    sources = ("variable_genes", *(("harmony",) if settings.integration == "harmony" else ()), "leiden", "umap")
    return Paragraph("Atlas", text, sources)


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
        f"of scores between arms from a linear model, paired by donor where donors are paired, with "
        f"empirical-Bayes moderated variance; intervals are {100 * settings.confidence:g}%. Beside it stand an exact "
        f"sign-flip p-value over donors and a z-value against {settings.n_random_sets:,} random gene sets matched for "
        f"size and expression. False discovery rates are Benjamini-Hochberg's. {len(tables.programs.table)} "
        f"programmes gave {n_rows:,} rows, of which {n_tested:,} could be tested; no row is left out for its result."
    )
    genes = (
        "Gene by gene, the same sums were compared by PyDESeq2's negative binomial model. Composition was compared on "
        "the replicate's log odds of a cell class within its compartment."
    )
    return [
        Paragraph("Programme effects", programs, ("pseudobulk", "tmm", "moderated", "permutation", "fdr")),
        Paragraph("Genes and composition", genes, ("pydeseq2", "deseq2")),
    ]
