"""One sample's way from counts to filtered, scored cells, with an account of every droplet that was left out."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from immunomod import __version__
from immunomod.exclusive import COMPARTMENT_OF, ExclusiveGenes, load_exclusive_genes
from immunomod.programs import ORGANISMS, ProgramSet
from immunomod.progress import Progress
from immunomod.sample.ambient import REGISTRY as AMBIENT_METHODS
from immunomod.sample.ambient import AmbientInput, Contamination
from immunomod.sample.ambient.cellbender import read_background
from immunomod.sample.cell_calling import CellCalls, call_cells
from immunomod.sample.demultiplex.calls import SINGLET
from immunomod.sample.demultiplex.cells import Demultiplexed, demultiplex
from immunomod.sample.doublets import (
    JudgedCalls,
    JudgedPartners,
    call_doublets,
    expected_rate,
    judge_partner_doublets,
    no_calls,
    partner_doublets,
)
from immunomod.sample.qc import METRICS, Limit, cell_metrics, failed_filter, limits
from immunomod.sample.scores import score_programs
from immunomod.sample.settings import SampleSettings
from immunomod.sample.species import REASONS as SPECIES_REASONS
from immunomod.sample.species import SpeciesCalls, species_of_droplets
from immunomod.sample.states import cell_states
from immunomod.sample.summary import qc_row, sheet_value
from immunomod.sample.sums import gene_set_sums, row_blocks
from immunomod.sample.variable_genes import sample_variances

if TYPE_CHECKING:
    from anndata import AnnData

COUNTS_PER_CELL = 1e4
EMPTY = "empty_droplet"
_RANK_COLUMNS = ["rank", "total", "cell_share"]


@dataclass(frozen=True)
class SampleResult:
    """What the sample floor makes of one sample.

    ``filtered``: cells that passed (``filtered.h5ad``). ``cells``: every droplet that may hold a cell, with its
    metrics, ``kept`` and ``reason`` (``cells.tsv.gz``). ``qc``: one row (``qc.tsv``). ``ambient``: contamination of
    each kind of cell (``ambient.tsv``). ``ranks``: droplets by their counts (``barcode_ranks.tsv``), empty for a matrix
    of cells alone.
    """

    filtered: AnnData
    cells: pd.DataFrame
    qc: pd.DataFrame
    ambient: pd.DataFrame
    ranks: pd.DataFrame


@dataclass
class Findings:
    """What the steps found in one sample, for its row of ``qc.tsv``."""

    calls: CellCalls
    species: SpeciesCalls | None
    hashtags: Demultiplexed
    limits: list[Limit]
    doublets: JudgedCalls
    contamination: Contamination
    partners: JudgedPartners | None
    n_genes: int


def process_sample(
    counts: AnnData,
    programs: ProgramSet | pd.DataFrame,
    settings: SampleSettings,
    exclusive: ExclusiveGenes | None = None,
    own_limits: Mapping[str, float] | None = None,
    background: str | Path | None = None,
) -> SampleResult:
    """Call cells, filter them, find doublets and leaked RNA, normalise, and score programmes in one sample.

    Parameters
    ----------
    counts
        As :func:`immunomod.sample.read.read_sample` gives it: raw counts (CSR int32), ``obs`` with the sheet's columns.
    programs
        The programmes, or their signed weights (gene symbols x programmes).
    settings
        Validated settings.
    exclusive
        Genes that only one kind of cell makes; the shipped ones where it is None.
    own_limits
        Limits that the sheet gives for this sample (:data:`immunomod.sample.qc.SHEET_LIMITS`), which win.
    background
        What :func:`immunomod.sample.ambient.cellbender.remove_background` wrote, for the method that reads it.

    Returns
    -------
    A result in any case: a sample of which no cell passes gives a valid ``filtered`` without cells and the verdict
    ``fail``.
    """
    progress = Progress("sample")
    matrix = sparse.csr_matrix(counts.X)
    calls = call_cells(matrix, settings.calling, settings.seed)
    species = species_of_droplets(calls.total, counts.obs, calls.is_cell if calls.applied else None)
    progress(f"{int(calls.is_cell.sum()):,} of {len(counts.obs):,} droplets called cells")
    # A droplet that nobody takes for a cell, and that holds next to nothing, has no row of its own.
    looked_at = np.flatnonzero(_may_hold_cell(calls, species))
    total_droplets = len(counts.obs)
    reason = np.full(len(looked_at), "", dtype=object)
    if calls.applied:
        reason[~calls.is_cell[looked_at]] = EMPTY
    if species is not None:
        of_species = species.reasons[looked_at]
        taken = (reason == "") | (of_species == SPECIES_REASONS["other"])
        reason[taken & (of_species != "")] = of_species[taken & (of_species != "")]
    if len(looked_at) < total_droplets:
        matrix = matrix[looked_at]
    obs = counts.obs.iloc[looked_at].copy()
    symbols = counts.var["gene_symbol"].astype(str)
    organism = sheet_value(counts.obs, "organism") or "human"

    hashtags = demultiplex(
        counts[looked_at], settings.demultiplexing, settings.seed, reason == "", settings.doublets.author_values
    )
    var = counts.var
    # Where the caller holds the object no longer, its matrix goes as soon as rows are taken from it; not before the
    # collector runs, as an AnnData refers to itself.
    del counts
    gc.collect()
    if hashtags.donor is not None:
        obs["donor"] = pd.Categorical(hashtags.donor)
    for named in (hashtags.reason, _ruled_out_by_author(obs, settings)):
        free = (reason == "") & (np.asarray(named) != "")
        reason[free] = np.asarray(named)[free]

    progress("hashtags and donors")
    metrics = cell_metrics(matrix, symbols, organism)
    remaining = reason == ""
    found = limits(metrics[remaining], settings.qc, own_limits)
    reason[remaining] = failed_filter(metrics[remaining], found)
    cells = metrics.assign(doublet_score=np.nan, predicted_doublet=False, partner_doublet_score=np.nan, cell_kind="")
    cells.insert(0, "barcode", obs["barcode"].to_numpy())
    _describe(cells, calls, species, hashtags, looked_at)

    progress("limits")
    tested = np.flatnonzero(reason == "")
    matrix = _rows(matrix, reason == "")
    doublets = _doublets(matrix, obs, reason, hashtags, settings)
    cells.loc[tested, "doublet_score"] = doublets.calls.score
    cells.loc[tested, "predicted_doublet"] = doublets.calls.predicted
    reason[tested[doublets.removed]] = "doublet"

    progress("doublets")
    left = np.flatnonzero(reason == "")
    groups = (exclusive or load_exclusive_genes()).of_groups(organism)
    matrix = _rows(matrix, ~doublets.removed)
    contamination = AMBIENT_METHODS[settings.ambient.method].run(
        AmbientInput(
            matrix,
            symbols,
            ~cells["predicted_doublet"].to_numpy()[left],
            calls.ambient_counts if calls.applied else None,
            groups,
            None if background is None else read_background(background, obs.index[left], var.index),
        )
    )
    cells.loc[left, "cell_kind"] = contamination.group
    partners = _partner_doublets(matrix, symbols, groups, contamination, doublets.expected_rate, settings)
    if partners is not None:
        cells.loc[left, "partner_doublet_score"] = partners.found.score
        reason[left[partners.removed]] = "partner_doublet"

    progress("leaked RNA")
    cells["kept"], cells["reason"] = reason == "", reason
    passed = reason[left] == ""
    corrected = _corrected(contamination, settings)
    contamination = replace(contamination, corrected=None)
    matrix, corrected = _rows_of_both(matrix, corrected, passed)
    weights = _weights(programs, organism)
    filtered = _filtered(var, obs.iloc[left[passed]], matrix, corrected, cells.iloc[left[passed]], weights, settings)
    progress(f"normalised and scored {filtered.n_obs:,} cells")
    findings = Findings(calls, species, hashtags, found, doublets, contamination, partners, len(var))
    row = qc_row(obs, cells, total_droplets, findings, filtered.obs, settings)
    ranks = calls.rank_curve() if calls.applied else pd.DataFrame(columns=_RANK_COLUMNS)
    sample = row["sample"]
    ambient = contamination.table.copy()
    ambient.insert(0, "sample", sample)
    ranks.insert(0, "sample", sample)
    return SampleResult(filtered, cells, pd.DataFrame([row]), ambient, ranks)


def _may_hold_cell(calls: CellCalls, species: SpeciesCalls | None) -> NDArray[np.bool_]:
    if not calls.applied:
        return np.ones(len(calls.total), dtype=bool)
    held: NDArray[np.bool_] = calls.is_cell | (calls.total > calls.lower)
    return held if species is None else held | (species.status != "")


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
    if (~without_donor).any():
        reason[without_donor & ~absent] = "no_donor"
        reason[without_donor & absent] = "not_in_cells_table"
    if "author_doublet" in obs:
        doublet_words = {value.lower() for value in settings.doublets.author_values}
        reason[obs["author_doublet"].astype(str).str.lower().isin(doublet_words).to_numpy()] = "author_doublet"
    return reason


def _describe(
    cells: pd.DataFrame,
    calls: CellCalls,
    species: SpeciesCalls | None,
    hashtags: Demultiplexed,
    looked_at: NDArray[np.intp],
) -> None:
    """Add what each step says of single droplets."""
    if calls.applied:
        cells["cell_p_value"], cells["cell_fdr"] = calls.p_value[looked_at], calls.fdr[looked_at]
    if species is not None:
        cells["species_status"] = species.status[looked_at]
    if hashtags.donor is not None:
        for name in ("hashtag", "status", "probability"):
            cells[name if name == "hashtag" else f"hashtag_{name}"] = getattr(hashtags.calls, name)


def _doublets(
    matrix: sparse.csr_matrix,
    obs: pd.DataFrame,
    reason: NDArray[np.object_],
    hashtags: Demultiplexed,
    settings: SampleSettings,
) -> JudgedCalls:
    """Doublets among the cells that passed so far; the rate follows from all droplets that hold cells.

    ``matrix`` holds the rows of these cells, ``obs`` and ``reason`` all droplets.
    Where hashtags or genotypes took out doublets of two donors, what is left are those within one.
    """
    tested = reason == ""
    donors = None
    if hashtags.donor is not None and (hashtags.calls.status == SINGLET).any():
        donors = np.asarray(hashtags.calls.hashtag)[tested].astype(object)
    elif "author_doublet" in obs and bool((reason == "author_doublet").any()):
        donors = obs["donor"].to_numpy()[tested].astype(object)
    in_library = int(np.isin(reason, ("", "author_doublet", "hashtag_doublet", "other_hashtag")).sum())
    rate = settings.doublets.expected_rate or expected_rate(in_library, donors)
    if not tested.any():
        return JudgedCalls(no_calls(0, ""), np.zeros(0, dtype=bool), rate, "", "")
    return call_doublets(matrix, rate, settings.doublets, settings.seed)


def _partner_doublets(
    matrix: sparse.csr_matrix,
    symbols: pd.Series,
    groups: dict[str, set[str]],
    contamination: Contamination,
    rate: float,
    settings: SampleSettings,
) -> JudgedPartners | None:
    """MSC-immune doublets; None in a library of one compartment."""
    compartment = np.array([COMPARTMENT_OF.get(str(kind), "") for kind in contamination.group], dtype=object)
    if not settings.doublets.partner or not {"MSC", "immune"} <= set(compartment):
        return None
    msc = symbols.isin(groups.get("MSC", set())).to_numpy()
    immune = symbols.isin(set().union(*(genes for name, genes in groups.items() if name != "MSC"))).to_numpy()
    # What leaks is about the same in every droplet: the cells' own background says it better than a share would.
    found = partner_doublets(
        matrix,
        msc,
        immune,
        compartment,
        max_fdr=settings.doublets.partner_max_fdr,
        min_score=settings.doublets.partner_min_score,
    )
    return judge_partner_doublets(found, rate, settings.doublets)


def _rows(matrix: sparse.csr_matrix, chosen: NDArray[np.bool_]) -> sparse.csr_matrix:
    """Chosen rows; no copy where that is all of them."""
    return matrix if chosen.all() else sparse.csr_matrix(matrix[chosen])


def _rows_of_both(
    matrix: sparse.csr_matrix, corrected: sparse.csr_matrix | None, chosen: NDArray[np.bool_]
) -> tuple[sparse.csr_matrix, sparse.csr_matrix | None]:
    """Chosen rows of two matrices, which share their places still where they did."""
    some = _rows(matrix, chosen)
    if corrected is None:
        return some, None
    other = _rows(corrected, chosen)
    if np.may_share_memory(matrix.indices, corrected.indices):
        other = sparse.csr_matrix((other.data, some.indices, some.indptr), shape=some.shape)
    return some, other


def _corrected(contamination: Contamination, settings: SampleSettings) -> sparse.csr_matrix | None:
    """Counts without ambient RNA; None where there is nothing to speak of."""
    known = [contamination.ambient_fraction, contamination.partner_fraction]
    largest = max((value for value in known if np.isfinite(value)), default=0.0)
    if contamination.corrected is None or largest < settings.ambient.min_fraction:
        return None
    return contamination.corrected


def log_normalise(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """log(1 + counts per 10,000), float32, with the sparsity of ``counts``; a cell without counts stays empty."""
    totals = gene_set_sums(counts, np.ones(counts.shape[1], dtype=bool))
    factor = np.divide(COUNTS_PER_CELL, totals, out=np.zeros_like(totals), where=totals > 0).astype(np.float32)
    data = np.empty(counts.nnz, dtype=np.float32)
    begin = 0
    for rows, block in row_blocks(counts):
        values = data[begin : begin + block.nnz]
        np.multiply(block.data, np.repeat(factor[rows], np.diff(block.indptr)), out=values, casting="same_kind")
        np.log1p(values, out=values)
        begin += block.nnz
    # the indices are shared, not copied: neither matrix is changed in place
    return sparse.csr_matrix((data, counts.indices, counts.indptr), shape=counts.shape)


def _filtered(
    var: pd.DataFrame,
    obs: pd.DataFrame,
    matrix: sparse.csr_matrix,
    corrected: sparse.csr_matrix | None,
    cells: pd.DataFrame,
    weights: pd.DataFrame,
    settings: SampleSettings,
) -> AnnData:
    from anndata import AnnData

    symbols = var["gene_symbol"].astype(str)
    expression = log_normalise(matrix if corrected is None else corrected)
    obs = obs.copy()
    described = ("doublet_score", "predicted_doublet", "partner_doublet_score", "cell_kind", "hashtag")
    for column in (*METRICS, *(name for name in described if name in cells)):
        obs[column] = cells[column].to_numpy()
    scores = score_programs(expression, symbols, weights)
    scores.index = obs.index
    states = cell_states(matrix, symbols, weights, scores)
    states = states[[name for name in states if name not in obs]]
    obs = pd.concat([obs, states, scores.add_prefix("score_")], axis=1)
    variances = sample_variances(matrix)
    variances.index = var.index
    filtered = AnnData(X=expression, obs=obs, var=pd.concat([var, variances], axis=1))
    filtered.layers["counts"] = matrix
    if corrected is not None:
        filtered.layers["corrected"] = corrected
    packages = ("anndata", "numpy", "scikit-misc", "scipy")
    filtered.uns["immunomod"] = {
        "settings": settings.as_dict(),
        "expression_from": "counts" if corrected is None else "corrected",
        "versions": {"immunomod": __version__, **{name: version(name) for name in packages}},
    }
    return filtered
