"""How the make-up of a compartment changes: log odds of each cell class per replicate, compared like any other score.

A class is counted against the other cells of its compartment. The ratio of MSC to immune cells in a co-culture is set
by hand, so fractions across compartments mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import stats

from immunomod.contrast.design import Contrast, Design, donor_slopes, stratum_design
from immunomod.contrast.model import LinearFit, benjamini_hochberg, fit_linear
from immunomod.contrast.normalise import Floats
from immunomod.contrast.settings import ContrastSettings
from immunomod.sample.states import REPLICATE_MEANS

COLUMNS = [
    *("contrast", "dataset", "compartment", "cell_class"),
    *("n_test", "n_reference", "n_pairs", "cells_test", "cells_reference"),
    *("effect", "se", "ci_low", "ci_high", "df", "p_value", "fdr", "status", "reason"),
]
UNIT = ["sample", "donor", "compartment"]
PSEUDO_COUNT = 0.5


def composition_effects(
    contrast: Contrast, pseudobulks: Mapping[str, AnnData], settings: ContrastSettings
) -> pd.DataFrame:
    """Compare the share of every cell class in its compartment between the arms.

    Per replicate the response is ``log((n + 0.5) / (N - n + 0.5))``, natural logarithm, for n cells of the class among
    N of the compartment (Haldane's and Anscombe's half keeps it finite and nearly unbiased). It is compared by the same
    design as programme scores, with ordinary residual variances; a replicate needs ``min_cells`` cells of the
    *compartment*, so a class that vanishes in one arm is a result and no gap. A trend within donors is tested by how
    much their slopes differ (:func:`immunomod.contrast.design.donor_slopes`). ``effect`` is a difference of log odds
    (for a trend, per unit of the variable). Shares of one compartment add up to 1: when one class grows the others
    shrink, and a compartment with one class only has nothing to compare.

    Returns
    -------
    One row per data set and cell class. ``fdr`` is by Benjamini and Hochberg over a data set's tested rows.
    """
    rows = []
    for dataset in contrast.datasets:
        obs = pseudobulks[dataset].obs.assign(n_cells=lambda table: table["n_cells"].astype(int))
        totals = compartment_totals(obs)
        for compartment, members in obs.groupby(obs["compartment"].astype(str), sort=True):
            design = stratum_design(contrast, totals, str(compartment), settings.min_cells)
            for cell_class in sorted(members["cell_class"].astype(str).unique()):
                labels = {"contrast": contrast.name, "dataset": dataset, "compartment": compartment}
                counts = _count_class(design, totals, members, cell_class)
                rows.append(labels | {"cell_class": cell_class} | _compare(contrast, design, counts, settings))
    table = pd.DataFrame(rows, columns=COLUMNS)
    for positions in table.groupby("dataset", sort=False).indices.values():
        known = table["p_value"].to_numpy(dtype=np.float64)[positions]
        table.loc[positions, "fdr"] = benjamini_hochberg(known)
    return table


def compartment_totals(obs: pd.DataFrame) -> pd.DataFrame:
    """One row per replicate and compartment, whose cells are counted together as one class of that name.

    What was measured in the cells is averaged over all of them.
    """
    sums = obs.groupby(UNIT, observed=True, sort=False)
    first = obs.drop_duplicates(UNIT).set_index(UNIT)
    for name in REPLICATE_MEANS:
        if name in obs and pd.api.types.is_numeric_dtype(obs[name]):
            cells = obs["n_cells"].where(obs[name].notna(), 0)
            both = obs[UNIT].assign(cells=cells, value=obs[name].fillna(0) * cells)
            over = both.groupby(UNIT, observed=True, sort=False)[["value", "cells"]].sum()
            first[name] = over["value"] / over["cells"].where(over["cells"] > 0)
    return (
        first.assign(n_cells=sums["n_cells"].sum())
        .reset_index()
        .assign(cell_class=lambda table: table["compartment"].astype(str))
    )


def _count_class(design: Design, totals: pd.DataFrame, members: pd.DataFrame, cell_class: str) -> NDArray[np.int64]:
    """Cells of the class in each unit of the design."""
    of_class = members[members["cell_class"].astype(str) == cell_class].set_index(UNIT)["n_cells"]
    counts = of_class.reindex(pd.MultiIndex.from_frame(totals[UNIT])).fillna(0).to_numpy(dtype=np.int64)
    return np.asarray(design.membership @ counts, dtype=np.int64)


def log_odds(counts: NDArray[np.number], totals: NDArray[np.number]) -> Floats:
    """``log((n + 0.5) / (N - n + 0.5))`` for n of N."""
    return np.asarray(np.log((counts + PSEUDO_COUNT) / (totals - counts + PSEUDO_COUNT)))


def fit_log_odds(design: Design, counts: NDArray[np.number], totals: NDArray[np.number]) -> LinearFit:
    """The effect on the log odds of each unit; of a trend within donors, by the donors' slopes."""
    response = log_odds(counts, totals)[:, None]
    if (slopes := donor_slopes(design)) is None:
        return fit_linear(response, design.effect, design.nuisance)
    rows, effect, nuisance = slopes
    return fit_linear(rows @ response, effect, nuisance)


def sizes_and_status(contrast: Contrast, design: Design, counts: NDArray[np.number]) -> dict[str, object]:
    """How many replicates are compared, how many of their cells are counted (``counts``, by unit), and the status."""
    in_test, in_reference = design.sides(contrast)
    return {
        "n_test": design.n_test,
        "n_reference": design.n_reference,
        "n_pairs": design.n_pairs,
        "cells_test": int(counts[in_test].sum()),
        "cells_reference": int(counts[in_reference].sum()),
        "status": design.status,
        "reason": design.reason,
    }


def _compare(
    contrast: Contrast, design: Design, counts: NDArray[np.int64], settings: ContrastSettings
) -> dict[str, object]:
    row = sizes_and_status(contrast, design, counts)
    totals = design.units["n_cells"].to_numpy()
    if not design.has_estimate:
        return row
    if counts.sum() == 0:
        return row | {"status": "absent", "reason": "no replicate of the contrast holds a cell of the class"}
    if (counts == totals).all():
        return row | {"status": "absent", "reason": "the only class of its compartment: there is no share to compare"}
    fit = fit_log_odds(design, counts, totals)
    effect = float(fit.estimate[0])
    row["effect"] = effect
    if design.status != "tested":
        return row
    se = float(np.sqrt(fit.variance[0] * fit.unscaled))
    if se == 0:
        reason = "the share is the same in all replicates of an arm: no variance to test against"
        return row | {"status": "too_few_cells", "reason": reason}
    margin = float(stats.t.ppf((1 + settings.confidence) / 2, fit.df)) * se
    p_value = float(2 * stats.t.sf(abs(effect / se), fit.df))
    return row | {
        "se": se,
        "ci_low": effect - margin,
        "ci_high": effect + margin,
        "df": fit.df,
        "p_value": p_value,
    }
