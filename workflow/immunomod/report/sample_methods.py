"""What was done within each library, in words, with the run's own numbers and settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from immunomod.report.inputs import ReportTables
from immunomod.report.sources import Paragraph
from immunomod.report.values import numbers
from immunomod.report.words import plural
from immunomod.sample.settings import SECTIONS, SampleSettings
from immunomod.sample.summary import NOT_OF_THE_SAMPLE

_DOUBLET_SOURCES = {"scrublet": "scrublet", "cxds": "cxds"}
_HASHTAG_SOURCES = {"mixture": "mixture", "hashsolo": "hashsolo"}


def sample_paragraphs(tables: ReportTables) -> list[Paragraph]:
    """A paragraph per step that the run took; hashtags, species and cell calling only where a library had them."""
    qc, settings = tables.qc, _settings(tables.config)
    found = [
        _calling(qc, settings),
        _species(qc),
        _hashtags(qc, settings),
        _cells(qc, settings),
        _doublets(qc, settings),
        _ambient(qc, settings),
        _states(qc),
    ]
    return [paragraph for paragraph in found if paragraph is not None]


def _settings(config: Mapping[str, Any]) -> SampleSettings:
    sections = {name: config.get(name) or {} for name in SECTIONS}
    return SampleSettings.from_config(sections, int(config.get("seed", 1)))


def _total(qc: pd.DataFrame, *names: str) -> int:
    return int(sum(numbers(qc, name).sum() for name in names))


def _calling(qc: pd.DataFrame, settings: SampleSettings) -> Paragraph | None:
    methods = qc["calling_method"].fillna("none") if "calling_method" in qc else pd.Series("none", index=qc.index)
    unfiltered = qc[methods != "none"]
    if unfiltered.empty:
        return None
    calling = settings.calling
    how = {
        "emptydrops": "those with so many counts that they need no test, and those whose counts differ from the "
        f"ambient profile (Monte Carlo test of {calling.n_iterations:,} draws or more, false discovery rate at most "
        f"{calling.fdr:g}; droplets of {calling.lower:,} counts or fewer give the profile)",
        "knee": "those above the inflection of the rank curve",
    }
    used = [how.get(name, name) for name in dict.fromkeys(methods[unfiltered.index])]
    text = (
        f"{plural(len(unfiltered), 'library was', 'libraries were')} unfiltered: of "
        f"{_total(unfiltered, 'cells_before'):,} droplets {_total(unfiltered, 'cells_called'):,} were called cells, "
        f"{'; or '.join(used)}."
    )
    if len(unfiltered) < len(qc):
        text += " Filtered matrices were taken as they are."
    return Paragraph("Cell calling", text, ("empty_drops",))


def _species(qc: pd.DataFrame) -> Paragraph | None:
    mixed = qc[numbers(qc, "other_species_leakage").notna() | numbers(qc, "species_doublet_rate").notna()]
    if mixed.empty:
        return None
    text = (
        f"Droplets of {plural(len(mixed), 'library', 'libraries')} of two species were assigned by the counts of "
        f"either's genes: {_total(mixed, 'cells_other_species'):,} hold the other species, "
        f"{_total(mixed, 'cells_species_doublet'):,} both, and {_total(mixed, 'cells_species_undecided'):,} were left "
        "undecided; all of these were set aside. The rate of doublets of any two cells follows from those of both "
        "species."
    )
    return Paragraph("Species", text, ("species",))


def _hashtags(qc: pd.DataFrame, settings: SampleSettings) -> Paragraph | None:
    named = qc["hashtag_method"].fillna("").astype(str) if "hashtag_method" in qc else pd.Series("", index=qc.index)
    pooled = qc[named != ""]
    if pooled.empty:
        return None
    methods = list(dict.fromkeys(named[pooled.index]))
    text = (
        f"Cells of {plural(len(pooled), 'pooled library', 'pooled libraries')} were told apart by their hashtags "
        f"({', '.join(methods)}): {_total(pooled, 'cells_hashtag_doublet'):,} with two hashtags and "
        f"{_total(pooled, 'cells_hashtag_negative'):,} with none, or with one of a probability below "
        f"{settings.demultiplexing.min_probability:g}, were set aside."
    )
    return Paragraph("Hashtags", text, tuple(_HASHTAG_SOURCES[name] for name in methods if name in _HASHTAG_SOURCES))


def _cells(qc: pd.DataFrame, settings: SampleSettings) -> Paragraph:
    outside = _total(qc, *(f"cells_{name}" for name in NOT_OF_THE_SAMPLE))
    text = (
        f"Each sample was filtered by itself, at limits {settings.qc.n_mads:g} median absolute deviations (MAD) from "
        "its own median (molecules, genes, mitochondrial, ribosomal and haemoglobin shares, complexity), held between "
        f"fixed values; the table of samples gives every limit and where it came from. Samples of fewer than "
        f"{settings.qc.min_cells_for_mad} cells have fixed limits alone. "
        f"{_total(qc, 'cells_before') - outside:,} cells entered and {_total(qc, 'cells_after'):,} passed. "
        "Counts were scaled to 10,000 per cell and log-transformed; programme scores of single cells (for maps only) "
        "are t-values of a univariate linear model (ULM)."
    )
    failed = int((qc["verdict"] == "fail").sum()) if "verdict" in qc else 0
    if failed:
        fate = "stayed in" if settings.qc.keep_failed else "were left out of"
        text += f" Samples that failed ({failed}) {fate} the contrasts."
    return Paragraph("Cells", text, ("mad", "scanpy", "ulm"))


def _doublets(qc: pd.DataFrame, settings: SampleSettings) -> Paragraph | None:
    doublets = settings.doublets
    looked_for = numbers(qc, "partner_doublet_rate").notna().any()
    if doublets.method == "none" and not looked_for:
        return None
    text, sources = "", []
    if doublets.method != "none":
        text = (
            f"Doublets were called by {doublets.method} within each library. A library in which the calls imply more "
            f"than {100 * doublets.max_rate:g}% doublets (and three times the expected share) keeps them."
        )
        sources += [_DOUBLET_SOURCES[doublets.method]] if doublets.method in _DOUBLET_SOURCES else []
    if looked_for:
        text += (
            " In co-cultures, a droplet in which the genes that only MSC and those that only immune cells make both "
            f"exceed what leaks (false discovery rate at most {doublets.partner_max_fdr:g}) is a doublet of the two."
        )
        sources.append("both_exceed")
    n, n_partner = _total(qc, "cells_doublet"), _total(qc, "cells_partner_doublet")
    text += f" {n:,} doublets" + (f" and {n_partner:,} MSC-immune doublets" if looked_for else "") + " were removed."
    if not doublets.remove:
        text += " (doublets.remove is false: they are marked only.)"
    return Paragraph("Doublets", text.strip(), tuple(sources))


def _ambient(qc: pd.DataFrame, settings: SampleSettings) -> Paragraph | None:
    shares, partner = (numbers(qc, name).dropna() for name in ("ambient_fraction", "partner_fraction"))
    if settings.ambient.method == "none" or (shares.empty and partner.empty):
        return None
    text = (
        "The share of ambient RNA of each library was estimated from genes that only other kinds of cell make, as "
        f"SoupX does, and the partner's share from genes of the other compartment: {_spread('ambient', shares)}"
    )
    if len(partner):
        text += f"; {_spread('of the partner', partner)}"
    text += (
        f". Where either exceeds {100 * settings.ambient.min_fraction:g}%, maps and scores of single cells use "
        "corrected counts; raw counts are kept beside them, and the comparisons start from the raw ones."
    )
    return Paragraph("Ambient RNA", text, ("soupx",))


def _spread(words: str, shares: pd.Series) -> str:
    if shares.empty:
        return f"{words} unknown"
    low, middle, high = (100 * float(shares.quantile(at)) for at in (0.0, 0.5, 1.0))
    return f"{words} {middle:.1f}% in the median of {len(shares)} libraries ({low:.1f} to {high:.1f}%)"


def _states(qc: pd.DataFrame) -> Paragraph | None:
    cycling = numbers(qc, "cycling_fraction").dropna()
    if cycling.empty:
        return None
    text = (
        "A cell whose counts of genes of S phase, or of G2 and M, exceed those of resting cells (Poisson test) is "
        f"taken to cycle: {100 * float(cycling.median()):.0f}% of the cells of the median sample. Cell cycle and "
        "stress are kept beside the expression as covariates; nothing was regressed out of it."
    )
    return Paragraph("Cell cycle and stress", text, ("cell_cycle",))
