"""One sample's way from counts to filtered, scored cells, with an account of every droplet that was left out."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from immunomod import __version__
from immunomod.programs import ORGANISMS, ProgramSet
from immunomod.sample.doublets import JudgedCalls, call_doublets, expected_rate, no_calls
from immunomod.sample.qc import METRICS, Limit, cell_metrics, failed_filter, limits, verdict
from immunomod.sample.scores import score_programs
from immunomod.sample.settings import SampleSettings
from immunomod.sample.variable_genes import sample_variances

if TYPE_CHECKING:
    from anndata import AnnData

#: Filters in the order in which they are applied; a cell is counted under the first that it fails.
FILTERS = (
    "not_in_cells_table",
    "no_donor",
    "author_doublet",
    "low_counts",
    "high_counts",
    "low_genes",
    "high_genes",
    "high_mt",
    "doublet",
)
COUNTS_PER_CELL = 1e4


@dataclass(frozen=True)
class SampleResult:
    """What the sample floor makes of one sample.

    ``filtered``: cells that passed (``filtered.h5ad``). ``cells``: every droplet with its metrics, ``doublet_score``,
    ``kept`` and ``reason`` (``cells.tsv.gz``). ``qc``: one row (``qc.tsv``).
    """

    filtered: AnnData
    cells: pd.DataFrame
    qc: pd.DataFrame


def process_sample(counts: AnnData, programs: ProgramSet | pd.DataFrame, settings: SampleSettings) -> SampleResult:
    """Filter, find doublets, normalise, and score programmes in one sample.

    Parameters
    ----------
    counts
        As :func:`immunomod.sample.read.read_sample` gives it: raw counts (CSR int32), ``obs`` with the sheet's columns.
    programs
        The programmes, or their signed weights (gene symbols x programmes).
    settings
        Validated settings.

    Returns
    -------
    A result in any case: a sample of which no cell passes gives a valid ``filtered`` without cells and the verdict
    ``fail``.
    """
    obs = counts.obs
    matrix = sparse.csr_matrix(counts.X)
    symbols = counts.var["gene_symbol"].astype(str)
    organism = _constant(obs, "organism") or "human"
    metrics = cell_metrics(matrix, symbols, organism)
    reason = _ruled_out_by_author(obs, settings)
    remaining = reason == ""
    found = limits(metrics[remaining], settings.qc)
    reason[remaining] = failed_filter(metrics[remaining], found)
    doublets = _doublets(matrix, obs, reason, settings)
    tested = np.flatnonzero(reason == "")
    reason[tested[doublets.removed]] = "doublet"
    cells = metrics.assign(doublet_score=np.nan, predicted_doublet=False, kept=reason == "", reason=reason)
    cells.loc[tested, "doublet_score"] = doublets.calls.score
    cells.loc[tested, "predicted_doublet"] = doublets.calls.predicted
    cells.insert(0, "barcode", obs["barcode"].to_numpy())
    kept = reason == ""
    filtered = _filtered(counts, matrix[kept], cells[kept], _weights(programs, organism), settings)
    row = _qc_row(obs, cells, found, doublets, settings)
    return SampleResult(filtered, cells, pd.DataFrame([row]))


def _constant(obs: pd.DataFrame, column: str) -> str:
    """A sheet column's value, empty where the sheet has no such column."""
    return str(obs[column].iloc[0]) if column in obs and len(obs) else ""


def _weights(programs: ProgramSet | pd.DataFrame, organism: str) -> pd.DataFrame:
    if isinstance(programs, pd.DataFrame):
        return programs
    return programs.weights(organism if organism in ORGANISMS else "human")


def _ruled_out_by_author(obs: pd.DataFrame, settings: SampleSettings) -> NDArray[np.object_]:
    """Cells that a per-cell table rules out: absent from it, without a donor, or called a doublet in it."""
    reason = np.full(len(obs), "", dtype=object)
    if "in_cells_table" not in obs:
        return reason
    without_donor = (obs["donor"].astype(str) == "").to_numpy() if "donor" in obs else np.zeros(len(obs), dtype=bool)
    absent = ~obs["in_cells_table"].to_numpy(dtype=bool)
    if "author_doublet" in obs:
        doublet_words = {value.lower() for value in settings.doublets.author_values}
        reason[obs["author_doublet"].astype(str).str.lower().isin(doublet_words).to_numpy()] = "author_doublet"
    if (~without_donor).any():
        reason[without_donor & ~absent] = "no_donor"
        reason[without_donor & absent] = "not_in_cells_table"
    return reason


def _doublets(
    matrix: sparse.csr_matrix, obs: pd.DataFrame, reason: NDArray[np.object_], settings: SampleSettings
) -> JudgedCalls:
    """Doublets among the cells that passed so far; the rate follows from all droplets that hold cells."""
    tested = reason == ""
    genotyped = "author_doublet" in obs and bool((reason == "author_doublet").any())
    donors = obs["donor"].to_numpy()[tested].astype(object) if genotyped else None
    in_library = int(np.isin(reason, ("", "author_doublet")).sum())
    rate = settings.doublets.expected_rate or expected_rate(in_library, donors)
    if not tested.any():
        return JudgedCalls(no_calls(0, ""), np.zeros(0, dtype=bool), rate, "", "")
    return call_doublets(matrix[tested], rate, settings.doublets, settings.seed)


def log_normalise(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """log(1 + counts per 10,000), float32, with the sparsity of ``counts``; a cell without counts stays empty."""
    totals = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    factor = np.divide(COUNTS_PER_CELL, totals, out=np.zeros_like(totals), where=totals > 0)
    data = np.log1p(counts.data * np.repeat(factor, np.diff(counts.indptr))).astype(np.float32)
    return sparse.csr_matrix((data, counts.indices.copy(), counts.indptr.copy()), shape=counts.shape)


def _filtered(
    counts: AnnData, matrix: sparse.csr_matrix, cells: pd.DataFrame, weights: pd.DataFrame, settings: SampleSettings
) -> AnnData:
    from anndata import AnnData

    expression = log_normalise(matrix)
    obs = counts.obs.iloc[cells.index].copy()
    for column in (*METRICS, "doublet_score", "predicted_doublet"):
        obs[column] = cells[column].to_numpy()
    scores = score_programs(expression, counts.var["gene_symbol"].astype(str), weights)
    scores.index = obs.index
    obs = pd.concat([obs, scores.add_prefix("score_")], axis=1)
    variances = sample_variances(matrix)
    variances.index = counts.var_names
    filtered = AnnData(X=expression, obs=obs, var=pd.concat([counts.var, variances], axis=1))
    filtered.layers["counts"] = matrix
    packages = ("anndata", "numpy", "scanpy", "scikit-misc", "scipy")
    filtered.uns["immunomod"] = {
        "settings": settings.as_dict(),
        "versions": {"immunomod": __version__, **{name: version(name) for name in packages}},
    }
    return filtered


def _median(values: pd.Series) -> float:
    """Median of the known values; NaN where there is none."""
    known = values.dropna()
    return float(known.median()) if len(known) else float("nan")


def _qc_row(
    obs: pd.DataFrame, cells: pd.DataFrame, found: list[Limit], doublets: JudgedCalls, settings: SampleSettings
) -> dict[str, Any]:
    kept = cells[cells["kept"]]
    row: dict[str, Any] = {
        "sample": _constant(obs, "sample"),
        "dataset": _constant(obs, "dataset"),
        "cells_before": len(cells),
    }
    removed = cells["reason"].value_counts()
    row |= {f"cells_{name}": int(removed.get(name, 0)) for name in FILTERS}
    row["cells_after"] = len(kept)
    for limit in found:
        row[f"{limit.metric}_{limit.side}"] = limit.value
        row[f"{limit.metric}_{limit.side}_from"] = limit.origin
    called = doublets.calls.predicted
    notes = [doublets.note] if doublets.note else []
    if cells["pct_counts_mt"].isna().all():
        notes.append("no mitochondrial gene in the matrix: no limit on their share")
    if (cells["reason"].isin(("", "doublet"))).sum() and found[0].origin == "fixed":
        notes.append(f"fewer than {settings.qc.min_cells_for_mad} cells: fixed limits")
    judged = verdict(len(cells), len(kept), _median(kept["n_genes_by_counts"]), found, doublets.warning, notes)
    return row | {
        "median_counts": _median(kept["total_counts"]),
        "median_genes": _median(kept["n_genes_by_counts"]),
        "median_pct_mt": _median(kept["pct_counts_mt"]),
        "doublet_method": settings.doublets.method,
        "doublet_rate": float(called.mean()) if np.isfinite(doublets.calls.score).any() else np.nan,
        "expected_doublet_rate": doublets.expected_rate,
        "doublet_threshold": doublets.calls.threshold,
        "detectable_doublet_fraction": doublets.calls.detectable,
        "ambient_fraction": np.nan,
        "partner_fraction": np.nan,
        "verdict": judged.verdict,
        "reason": judged.reason,
    }
