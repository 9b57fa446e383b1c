"""How the share of cells in a state changes: regulatory T cells among CD4 T cells, cycling cells of each class.

FOXP3, IL2RA and CTLA4 rise in every activated human T cell, so a score does not tell more regulatory cells from more
activation; their share does. The share of cells in S, G2 or M is what a proliferation score stands for.

The counts of each replicate are compared by a quasi-binomial model (McCullagh and Nelder, Generalized Linear Models,
1989, section 4.5) on the design of the programmes: the dispersion between replicates is estimated, and the effect held
against a t distribution with the residual degrees of freedom. Cells are never the unit. A trend within donors over
three values or more has the variance that its donors' slopes tell (the jackknife over donors: Bell and McCaffrey 2002),
with a degree of freedom less than donors: donors respond to different degrees, of which the residuals of one slope hold
a part only. Rare states ask for this model: in studies of 4 pairs whose arms hold 40 and 320 cells a replicate, 1% of
them in the state in both, the paired t-test of empirical log odds rejects 14% to 15% at a nominal 5%, this model 2%
(``benchmarks/cell_fractions.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import special, stats

from immunomod.contrast.composition import UNIT, compartment_totals, fit_log_odds, log_odds, sizes_and_status
from immunomod.contrast.design import Contrast, Design, donor_slopes, stratum_design
from immunomod.contrast.model import benjamini_hochberg
from immunomod.contrast.normalise import Floats
from immunomod.contrast.settings import ContrastSettings

COLUMNS = [
    *("contrast", "dataset", "fraction", "cell_class"),
    *("n_test", "n_reference", "n_pairs", "cells_test", "cells_reference", "of_test", "of_reference"),
    *("effect", "se", "ci_low", "ci_high", "df", "p_value", "fdr", "status", "reason"),
]
#: Classes whose share of their parent is tested: the class, and its parent.
SUBSETS = {"Treg": "CD4_T"}
CYCLING = "cycling"
#: Cells that a replicate of an arm without any should have held, at the other arm's share, for their lack to mean much.
MIN_EXPECTED = 5.0
MAX_STEPS, MAX_STEP, TOLERANCE = 100, 3.0, 1e-10


def fraction_effects(
    contrast: Contrast, pseudobulks: Mapping[str, AnnData], settings: ContrastSettings
) -> pd.DataFrame:
    """Compare shares of cells between the arms.

    Returns
    -------
    One row per data set and share: ``fraction`` is ``Treg`` (of ``cell_class`` ``CD4_T``, the regulatory ones
    included) or ``cycling`` (of every class; of the cells whose phase is known). ``cells_test`` of ``of_test`` cells in
    the test arm are in it. ``effect`` is a difference of log odds (natural logarithm; for a trend, per unit of the
    variable); ``fdr`` is by Benjamini and Hochberg over the tested rows of a data set and fraction. A replicate needs
    ``min_cells`` cells of which the share is taken.
    """
    rows = []
    for dataset in contrast.datasets:
        obs = pseudobulks[dataset].obs.assign(n_cells=lambda table: table["n_cells"].astype(int))
        labels = {"contrast": contrast.name, "dataset": dataset}
        for subset, parent in SUBSETS.items():
            found = _compare_subset(contrast, obs, subset, parent, settings)
            rows.append(labels | {"fraction": subset, "cell_class": parent} | found)
        for cell_class in sorted(obs["cell_class"].astype(str).unique()):
            found = _compare_cycling(contrast, obs, cell_class, settings)
            rows.append(labels | {"fraction": CYCLING, "cell_class": cell_class} | found)
    table = pd.DataFrame(rows, columns=COLUMNS)
    for positions in table.groupby(["dataset", "fraction"], sort=False).indices.values():
        known = table["p_value"].to_numpy(dtype=np.float64)[positions]
        table.loc[positions, "fdr"] = benjamini_hochberg(known)
    return table


def _compare_subset(
    contrast: Contrast, obs: pd.DataFrame, subset: str, parent: str, settings: ContrastSettings
) -> dict[str, object]:
    cell_class = obs["cell_class"].astype(str)
    pooled = compartment_totals(obs.assign(compartment=cell_class.where(cell_class != subset, parent)))
    design = stratum_design(contrast, pooled, parent, settings.min_cells)
    of_subset = obs[cell_class == subset].set_index(UNIT[:2])["n_cells"]
    counts = of_subset.reindex(pd.MultiIndex.from_frame(pooled[UNIT[:2]])).fillna(0).to_numpy()
    counts = np.where(pooled["cell_class"] == parent, counts, 0)
    return _compare(contrast, design, np.asarray(design.membership @ counts), f"of class {subset}", settings)


def _compare_cycling(
    contrast: Contrast, obs: pd.DataFrame, cell_class: str, settings: ContrastSettings
) -> dict[str, object]:
    what = "in S, G2 or M"
    if "cells_with_phase" not in obs or not obs["cells_with_phase"].any():
        nothing = dict.fromkeys(("n_test", "n_reference", "n_pairs"), 0)
        nothing |= dict.fromkeys(("cells_test", "cells_reference", "of_test", "of_reference"), 0)
        reason = "no cell's phase is known: the matrices list too few genes of the cell cycle"
        if "cells_with_phase" not in obs:
            reason = "the pseudobulks do not say how many cells cycle: make them again (delete results/pseudobulk)"
        return nothing | {"status": "absent", "reason": reason}
    known = obs.assign(n_cells=obs["cells_with_phase"].astype(int))
    design = stratum_design(contrast, known, cell_class, settings.min_cells)
    counts = np.asarray(design.membership @ obs["cells_cycling"].to_numpy(dtype=np.float64))
    return _compare(contrast, design, counts, what, settings)


def _compare(
    contrast: Contrast, design: Design, counts: Floats, what: str, settings: ContrastSettings
) -> dict[str, object]:
    in_test, in_reference = design.sides(contrast)
    totals = design.units["n_cells"].to_numpy(dtype=np.float64)
    row = sizes_and_status(contrast, design, counts)
    row |= {"of_test": int(totals[in_test].sum()), "of_reference": int(totals[in_reference].sum())}
    if not design.has_estimate:
        return row
    if counts.sum() in (0, totals.sum()):
        share = "no" if counts.sum() == 0 else "every"
        return row | {"status": "absent", "reason": f"{share} cell of the contrast's replicates is {what}"}
    effect = float(fit_log_odds(design, counts, totals).estimate[0])
    if design.status != "tested":
        return row | {"effect": effect}
    for side, name, other in ((in_test, "test", in_reference), (in_reference, "reference", in_test)):
        for found, kind in ((counts, "no"), (totals - counts, "every")):
            if found[side].sum() == 0:
                expected = found[other].sum() / totals[other].sum() * totals[side].mean()
                return row | _without(
                    design, counts, totals, expected, f"{kind} cell of the {name} arm is {what}", settings
                )
    fit = fit_quasibinomial(
        *(counts, totals, design.effect, design.nuisance, design.units["block"].to_numpy(), design.is_paired),
        by_block=donor_slopes(design) is not None,
    )
    if fit is None:
        reason = f"too few cells {what}: replicates with some and without are too few to tell their scatter"
        return row | {"effect": effect, "status": "too_few_cells", "reason": reason}
    return row | _interval(fit.estimate, fit.se, fit.df, settings)


def _without(
    design: Design, counts: Floats, totals: Floats, expected: float, what: str, settings: ContrastSettings
) -> dict[str, object]:
    """The comparison where an arm holds none: a bound from below, by log odds with half a cell, if that means much."""
    fit = fit_log_odds(design, counts, totals)
    effect, se = float(fit.estimate[0]), float(np.sqrt(fit.variance[0] * fit.unscaled))
    if expected < MIN_EXPECTED or se == 0:
        reason = f"{what}, where {expected:.1f} a replicate were to be expected: too few to tell"
        return {"effect": effect, "status": "too_few_cells", "reason": reason}
    return _interval(effect, se, fit.df, settings)


def _interval(effect: float, se: float, df: int, settings: ContrastSettings) -> dict[str, object]:
    margin = float(stats.t.ppf((1 + settings.confidence) / 2, df)) * se
    p_value = float(2 * stats.t.sf(abs(effect / se), df))
    return {
        "effect": effect,
        "se": se,
        "ci_low": effect - margin,
        "ci_high": effect + margin,
        "df": df,
        "p_value": p_value,
    }


@dataclass(frozen=True)
class QuasiBinomialFit:
    """``estimate`` and ``se`` of the effect in log odds, ``df`` of the latter, and Pearson's ``dispersion``."""

    estimate: float
    se: float
    df: int
    dispersion: float


def fit_quasibinomial(
    counts: Floats,
    totals: Floats,
    effect: Floats,
    nuisance: Floats,
    block: NDArray[np.object_],
    is_paired: bool,
    by_block: bool = False,
) -> QuasiBinomialFit | None:
    """Logistic regression of ``counts`` of ``totals``, its variance scaled by Pearson's dispersion.

    In a paired model, blocks that hold none (or nothing else) say nothing on the effect and are left out. None where
    no residual degree of freedom is left, the effect is not told apart, or the fit does not settle.

    Parameters
    ----------
    counts, totals
        Cells in the state, and all cells, of each unit.
    effect, nuisance
        The design: units, and units x terms (independent).
    block, is_paired
        The block of each unit, and whether blocks are in the model.
    by_block
        Let the variance of the effect be told by how far each block moves it, not by the scatter of the units.
    """
    if is_paired:
        sums = pd.DataFrame({"n": counts, "of": totals}).groupby(block).transform("sum")
        kept = ((sums["n"] > 0) & (sums["n"] < sums["of"])).to_numpy()
        counts, totals, effect, nuisance = counts[kept], totals[kept], effect[kept], nuisance[kept]
        block = block[kept]
    nuisance = nuisance[:, _independent(nuisance)]
    columns = np.column_stack([nuisance, effect])
    df = len(counts) - columns.shape[1]
    if df < 1 or np.linalg.matrix_rank(columns) < columns.shape[1]:
        return None
    beta = np.linalg.lstsq(columns, log_odds(counts, totals), rcond=None)[0]
    for _ in range(MAX_STEPS):
        share = special.expit(columns @ beta)
        weight = totals * share * (1 - share)
        try:
            inverse = np.linalg.inv((columns.T * weight) @ columns)
        except np.linalg.LinAlgError:
            return None
        step = inverse @ (columns.T @ (counts - totals * share))
        beta = beta + np.clip(step, -MAX_STEP, MAX_STEP)
        if np.abs(step).max() < TOLERANCE:
            break
    else:
        return None
    dispersion = float(((counts - totals * share) ** 2 / weight).sum() / df)
    if not np.isfinite(dispersion) or dispersion <= 0:
        return None
    if not by_block:
        return QuasiBinomialFit(float(beta[-1]), float(np.sqrt(dispersion * inverse[-1, -1])), df, dispersion)
    regressor = (inverse @ columns.T)[-1]
    of_block = pd.DataFrame(
        {"change": regressor * (counts - totals * share), "information": weight * regressor**2 / inverse[-1, -1]}
    )
    of_block = of_block.groupby(block).sum()
    df, rest = len(of_block) - 1, 1 - of_block["information"].to_numpy()
    if df < 1 or rest.min() <= TOLERANCE:
        return None
    # what each block moves the estimate by: the jackknife's variance, in one step
    moved = of_block["change"].to_numpy() / rest
    return QuasiBinomialFit(float(beta[-1]), float(np.sqrt((moved**2).sum() * df / (df + 1))), df, dispersion)


def _independent(columns: Floats) -> list[int]:
    """Positions of columns that are not a combination of those before them."""
    kept: list[int] = []
    for position in range(columns.shape[1]):
        if np.linalg.matrix_rank(columns[:, [*kept, position]]) > len(kept):
            kept.append(position)
    return kept
