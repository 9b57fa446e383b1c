"""A sample in one row: what each step removed, every limit and rate, and the verdict with its reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from immunomod.sample.qc import Verdict
from immunomod.sample.settings import SampleSettings
from immunomod.sample.species import species_columns
from immunomod.sample.states import state_columns

if TYPE_CHECKING:
    from immunomod.sample.process import Findings

#: Why droplets leave, in the order in which it is looked at; a droplet is counted under the first that holds.
FILTERS = (
    *("empty_droplet", "other_species", "species_doublet", "species_undecided"),
    *("hashtag_doublet", "hashtag_negative", "other_hashtag", "donor_conflict"),
    *("not_in_cells_table", "no_donor", "author_doublet"),
    *("low_counts", "high_counts", "low_genes", "high_genes", "high_mt", "high_ribo", "high_hb", "low_complexity"),
    *("doublet", "partner_doublet"),
)
#: Droplets that hold no cell of the sample: they are not what quality control removed.
NOT_OF_THE_SAMPLE = ("empty_droplet", "other_species", "other_hashtag", "not_in_cells_table")
_FEW_CELLS = 50
_MOST_REMOVED = 0.5


def qc_row(
    obs: pd.DataFrame,
    cells: pd.DataFrame,
    n_droplets: int,
    found: Findings,
    kept_obs: pd.DataFrame,
    settings: SampleSettings,
) -> dict[str, Any]:
    """The sample's row of ``qc.tsv``.

    Parameters
    ----------
    obs, cells
        Droplets that may hold a cell: the sheet's columns, and their metrics, ``kept`` and ``reason``.
    n_droplets
        All barcodes with a count.
    found
        What the steps found.
    kept_obs
        ``obs`` of the cells that stay.
    """
    kept = cells[cells["kept"]]
    removed = cells["reason"].value_counts()
    row: dict[str, Any] = {name: sheet_value(obs, name) for name in ("sample", "dataset")}
    row["cells_before"] = n_droplets
    row |= {f"cells_{name}": int(removed.get(name, 0)) for name in FILTERS}
    row["cells_empty_droplet"] += n_droplets - len(cells)
    row["cells_after"] = len(kept)
    row["calling_method"] = found.calls.method if found.calls.applied else "none"
    if found.calls.applied:
        row |= {
            "cells_called": int(found.calls.is_cell.sum()),
            "knee": found.calls.knee,
            "inflection": found.calls.inflection,
            "empty_droplets": found.calls.n_empty,
        }
    else:
        row |= {"cells_called": n_droplets, "knee": np.nan, "inflection": np.nan, "empty_droplets": 0}
    for limit in found.limits:
        row[f"{limit.metric}_{limit.side}"] = limit.value
        row[f"{limit.metric}_{limit.side}_from"] = limit.origin
    doublets, contamination = found.doublets, found.contamination
    row |= {
        "median_counts": _median(kept["total_counts"]),
        "median_genes": _median(kept["n_genes_by_counts"]),
        "median_pct_mt": _median(kept["pct_counts_mt"]),
        "doublet_method": settings.doublets.method,
        "doublet_rate": doublets.calls.share if np.isfinite(doublets.calls.score).any() else np.nan,
        "expected_doublet_rate": doublets.expected_rate,
        "doublet_threshold": doublets.calls.threshold,
        "detectable_doublet_fraction": doublets.calls.detectable,
        "partner_doublet_rate": float(found.partners.found.predicted.mean()) if found.partners else np.nan,
        "ambient_method": settings.ambient.method,
        "ambient_profile_from": contamination.profile_from,
        "ambient_fraction": contamination.ambient_fraction,
        "ambient_fraction_se": contamination.ambient_fraction_se,
        "partner_fraction": contamination.partner_fraction,
        "partner_fraction_se": contamination.partner_fraction_se,
        **found.hashtags.summary,
        **species_columns(found.species),
        **state_columns(kept_obs),
    }
    judged = verdict(cells, found, settings, n_droplets)
    return row | {"verdict": judged.verdict, "reason": judged.reason}


def verdict(cells: pd.DataFrame, found: Findings, settings: SampleSettings, n_droplets: int) -> Verdict:
    """Judge a sample.

    It fails with fewer than ``qc.min_cells`` cells or more ambient RNA than ``ambient.max_fraction``, and warns where
    what is left is little or looks wrong. Notes without consequence follow the reasons. ``n_droplets`` are all barcodes
    with a count, of which ``cells`` leaves out those that hold next to nothing.
    """
    n_cells = int((~cells["reason"].isin(NOT_OF_THE_SAMPLE)).sum())
    kept = cells[cells["kept"]]
    notes = _notes(cells, found, settings)
    failures, warnings = [], []
    if len(kept) < settings.qc.min_cells:
        failures.append(
            _why_none(cells, found, n_droplets) if kept.empty else f"only {_cells(len(kept))} (qc.min_cells)"
        )
    elif len(kept) < _FEW_CELLS:
        warnings.append(f"only {_cells(len(kept))}")
    ambient, partner = found.contamination.ambient_fraction, found.contamination.partner_fraction
    if np.isfinite(ambient) and ambient > settings.ambient.max_fraction:
        failures.append(f"{100 * ambient:.0f}% of the counts are ambient RNA (ambient.max_fraction)")
    elif np.isfinite(ambient) and ambient > settings.ambient.warn_fraction:
        of_partner = f", {100 * partner:.0f}% from the partner" if np.isfinite(partner) else ""
        warnings.append(f"{100 * ambient:.0f}% of the counts are ambient RNA{of_partner}")
    if n_cells and 0 < len(kept) < (1 - _MOST_REMOVED) * n_cells:
        warnings.append(f"{100 * (1 - len(kept) / n_cells):.0f}% of the cells were removed")
    lowest = next(limit.value for limit in found.limits if limit.filter == "low_genes")
    median_genes = _median(kept["n_genes_by_counts"])
    if median_genes < 2 * lowest:
        warnings.append(f"shallow: {median_genes:.0f} genes in the median cell, close to the lower limit")
    said = [found.doublets.warning, found.partners.warning if found.partners else "", found.hashtags.warning]
    warnings += [warning for warning in said if warning]
    level = "fail" if failures else "warn" if warnings else "pass"
    return Verdict(level, "; ".join([*failures, *warnings, *notes]))  # type: ignore[arg-type]


def _why_none(cells: pd.DataFrame, found: Findings, n_droplets: int) -> str:
    """Why a sample has no cell: what its library lacks, or where its droplets went."""
    if found.n_genes == 0:
        return "the library is empty: its matrix lists no gene"
    if n_droplets == 0:
        return "the library is empty: no barcode has a count"
    removed = cells["reason"].value_counts().to_dict()
    removed["empty_droplet"] = removed.get("empty_droplet", 0) + n_droplets - len(cells)
    return "no cell passes: " + ", ".join(f"{removed[name]:,} {name}" for name in FILTERS if removed.get(name))


def _notes(cells: pd.DataFrame, found: Findings, settings: SampleSettings) -> list[str]:
    """What went otherwise than usual, without consequence for the verdict."""
    notes = []
    if found.calls.note and (found.calls.applied or "cut off" in found.calls.note or "no droplet" in found.calls.note):
        notes.append(found.calls.note)
    if found.species is not None and found.species.note:
        notes.append(found.species.note)
    said = [found.hashtags.note, found.doublets.note, found.partners.note if found.partners else ""]
    notes += [note for note in said if note]
    judged = cells[~cells["reason"].isin(NOT_OF_THE_SAMPLE)]
    if len(judged) and judged["pct_counts_mt"].isna().all():
        notes.append("no mitochondrial gene in the matrix: no limit on their share")
    if len(judged) and any(limit.origin == "fixed" for limit in found.limits):
        notes.append(f"fewer than {settings.qc.min_cells_for_mad} cells: fixed limits")
    if own := [limit.filter for limit in found.limits if limit.origin == "sheet"]:
        notes.append(f"limits of the sheet: {', '.join(own)}")
    if cells["kept"].any() and found.contamination.note and settings.ambient.method != "none":
        notes.append(found.contamination.note)
    return notes


def _cells(number: int) -> str:
    return f"{number} cell{' passes' if number == 1 else 's pass'}"


def sheet_value(obs: pd.DataFrame, column: str) -> str:
    """A sheet column's value, empty where the sheet has no such column; a library without cells has it as category."""
    if column not in obs:
        return ""
    if len(obs):
        return str(obs[column].iloc[0])
    kind = obs[column].dtype
    known = list(kind.categories) if isinstance(kind, pd.CategoricalDtype) else []
    return str(known[0]) if len(known) == 1 else ""


def _median(values: pd.Series) -> float:
    """Median of the known values; NaN where there is none."""
    known = values.dropna()
    return float(known.median()) if len(known) else float("nan")
