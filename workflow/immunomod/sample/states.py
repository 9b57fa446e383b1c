"""Cell cycle and stress of single cells: kept beside the expression as covariates, never taken out of it.

Scores are those of the programmes (:mod:`immunomod.sample.scores`). Whether a cell cycles is not read from them,
because their size depends on how many genes a matrix lists, but from its counts: the share that genes of S phase, or of
G2 and M, take of all counts, against :data:`RESTING_CPM` by a Poisson test. Resting blood cells hold 10 to 50 counts
per million of such a gene (GSE96583), cycling cells some hundred.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import pdtrc

from immunomod.sample.scores import MIN_GENES
from immunomod.sample.sums import cell_sums, gene_set_sums

#: Programmes (Tirosh et al. 2016, doi:10.1126/science.aad0501) of each phase; those of the compartments share genes.
PHASE_PROGRAMS = {"S": ("imm_T_prolif_S", "msc_prolif_S"), "G2M": ("imm_T_prolif_G2M", "msc_prolif_G2M")}
STRESS_PROGRAMS = {"dissociation": ("conf_dissociation",), "hypoxia": ("conf_hypoxia",)}
SCORES = tuple(f"{name}_score" for name in (*PHASE_PROGRAMS, *STRESS_PROGRAMS))
#: Counts per million and gene of a phase above which a cell is in it, and the chance of calling one that is not.
RESTING_CPM, MAX_P = 40.0, 0.01
NOT_CYCLING, UNKNOWN = "G1", ""
#: Means over the cells of a replicate, which a contrast may name as covariates, and what they are means of.
REPLICATE_MEANS = {f"mean_{name}": name for name in SCORES} | {"cycling_fraction": "phase"}


def cell_states(
    counts: sparse.csr_matrix, symbols: pd.Series, weights: pd.DataFrame, scores: pd.DataFrame
) -> pd.DataFrame:
    """Cell cycle and stress of each cell.

    Parameters
    ----------
    counts
        cells x genes, raw counts (CSR).
    symbols
        Gene symbol of each column.
    weights
        Gene symbols x programmes, as :func:`immunomod.sample.scores.score_programs` took them.
    scores
        cells x programmes, as it gave them.

    Returns
    -------
    One row per cell, with the index of ``scores``: ``S_score``, ``G2M_score``, ``dissociation_score``,
    ``hypoxia_score`` (NaN where the programme is absent or too few of its genes were detected) and ``phase``: ``S``,
    ``G2M`` (where both, the one further above rest), ``G1`` (which stands for G0 too), or empty where the matrix lists
    fewer than :data:`MIN_GENES` genes of either phase or the cell has no count.
    """
    states = pd.DataFrame(index=scores.index)
    for name, programs in (PHASE_PROGRAMS | STRESS_PROGRAMS).items():
        states[f"{name}_score"] = _first_known(scores, programs)
    states["phase"] = _phase(counts, symbols, weights)
    return states


def state_columns(states: pd.DataFrame) -> dict[str, float]:
    """What ``qc.tsv`` says of the states of a sample's cells; NaN where nothing is known."""
    cycling = _cycling(states["phase"])
    return {
        "cycling_fraction": float(cycling.mean()),
        "median_dissociation_score": _median(states["dissociation_score"]),
        "median_hypoxia_score": _median(states["hypoxia_score"]),
    }


def replicate_means(cells: pd.DataFrame, unit: Sequence[str]) -> pd.DataFrame:
    """Means of the states over the cells of each replicate.

    Parameters
    ----------
    cells
        One row per cell, with columns of :func:`cell_states` or some of them.
    unit
        The columns that identify a replicate.

    Returns
    -------
    Indexed by ``unit``; the columns of :data:`REPLICATE_MEANS` whose measure ``cells`` has, over cells in which it is
    known (NaN where there is none).
    """
    measured = pd.DataFrame(
        {
            name: _cycling(cells[of]) if of == "phase" else cells[of].astype(np.float64)
            for name, of in REPLICATE_MEANS.items()
            if of in cells
        },
        index=cells.index,
    )
    grouped = measured.groupby([cells[name] for name in unit], observed=True, sort=False)
    means: pd.DataFrame = grouped.mean()
    return means


def replicate_counts(cells: pd.DataFrame, unit: Sequence[str]) -> pd.DataFrame:
    """Cells of each replicate that cycle, ``cells_cycling``, and whose phase is known, ``cells_with_phase``.

    Arguments as of :func:`replicate_means`. Indexed by ``unit``; no columns where ``cells`` has no ``phase``.
    """
    counted = pd.DataFrame(index=cells.index)
    if "phase" in cells:
        cycling = _cycling(cells["phase"])
        counted["cells_cycling"] = cycling.fillna(0).astype(np.int64)
        counted["cells_with_phase"] = cycling.notna().astype(np.int64)
    grouped = counted.groupby([cells[name] for name in unit], observed=True, sort=False)
    counts: pd.DataFrame = grouped.sum()
    return counts


def _median(values: pd.Series) -> float:
    known = values.dropna()
    return float(known.median()) if len(known) else float("nan")


def _first_known(scores: pd.DataFrame, programs: Sequence[str]) -> pd.Series:
    """The score of the first programme that has one."""
    for program in programs:
        if program in scores and scores[program].notna().any():
            return scores[program].astype(np.float32)
    return pd.Series(np.nan, index=scores.index, dtype=np.float32)


def _phase(counts: sparse.csr_matrix, symbols: pd.Series, weights: pd.DataFrame) -> NDArray[np.object_]:
    """The phase of each cell."""
    total = cell_sums(counts).astype(np.float64)
    phases = list(PHASE_PROGRAMS)
    above, in_phase = np.zeros((len(total), 2)), np.zeros((len(total), 2), dtype=bool)
    for column, phase in enumerate(phases):
        named = weights.index[(weights.reindex(columns=list(PHASE_PROGRAMS[phase])).fillna(0) > 0).any(axis=1)]
        genes = symbols.isin(named).to_numpy()
        if symbols[genes].nunique() < MIN_GENES:
            return np.full(len(total), UNKNOWN, dtype=object)
        seen = gene_set_sums(counts, genes)
        expected = total * symbols[genes].nunique() * RESTING_CPM * 1e-6
        in_phase[:, column] = (seen > 0) & (pdtrc(np.maximum(seen - 1, 0), expected) < MAX_P)
        above[:, column] = np.divide(seen, expected, out=np.zeros_like(seen), where=expected > 0)
    likeliest = np.where(in_phase, above, -1).argmax(axis=1)
    phase_of = np.where(in_phase.any(axis=1), np.array(phases, dtype=object)[likeliest], NOT_CYCLING)
    return np.where(total > 0, phase_of, UNKNOWN).astype(object)


def _cycling(phase: pd.Series) -> pd.Series:
    """1 for a cell in S, G2 or M, 0 for one that is not, NaN where that is unknown."""
    named = phase.astype(str)
    return named.isin(list(PHASE_PROGRAMS)).astype(np.float64).where(named.isin([*PHASE_PROGRAMS, NOT_CYCLING]))
