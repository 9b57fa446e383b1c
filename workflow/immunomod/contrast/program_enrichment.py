"""Whether a programme's genes change more than the other genes of their class: a second witness beside its effect.

:mod:`.program_effects` asks whether the programme's mean change differs from zero; CAMERA (:mod:`.camera`) whether it
differs from that of all other detected genes, which may move too. A programme that passes both is more than part of a
general shift. Both stand on the same log2 expression, the same design and the same genes, of which those that leakage
hides are none; what all replicates share of the error of leakage adds to each gene's variance.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from immunomod.contrast.camera import CameraTests, camera
from immunomod.contrast.design import Design, donor_slopes
from immunomod.contrast.model import fit_linear
from immunomod.contrast.normalise import Floats
from immunomod.contrast.scores import Expression

COLUMNS = [
    *("contrast", "dataset", "cell_class", "program", "role", "genes_found", "genes_total", "genes_outside"),
    *("inter_gene_correlation", "statistic", "df", "p_value", "fdr", "expected_sign", "agrees", "status", "reason"),
]
MIN_GENES = 3


def program_enrichment(
    effects: pd.DataFrame, design: Design, expression: Expression | None, scored: pd.DataFrame, genes: pd.Index
) -> pd.DataFrame:
    """Test the programmes of one data set and cell class by CAMERA.

    Parameters
    ----------
    effects
        Rows of ``program_effects.tsv`` of this data set and class, whose statuses are taken over.
    design
        Their design.
    expression
        log2 expression of the design's units; None where there is no estimate.
    scored
        Signed weights, genes x programmes: the detected genes of the programmes that have a score.
    genes
        Genes of ``expression``.

    Returns
    -------
    One row per row of ``effects``: :data:`COLUMNS` but for ``fdr``, which is the caller's to fill. ``statistic`` is
    CAMERA's t: positive where the programme rises over the other genes, each gene taken with its sign. Empty where the
    status is not ``tested``.
    """
    table = effects.reindex(columns=COLUMNS)
    table[["df", "p_value"]] = np.nan
    table["genes_outside"] = table["genes_outside"].astype("Int64")
    table["agrees"] = ""
    if expression is None or design.status != "tested" or scored.empty:
        return table
    tests, n_detected = _test(design, expression, scored, genes)
    rows = table.index[table["program"].isin(scored.columns) & (table["status"] == "tested")]
    at = scored.columns.get_indexer(table.loc[rows, "program"])
    table.loc[rows, "genes_outside"] = n_detected - tests.n_genes[at].astype(np.int64)
    table.loc[rows, "inter_gene_correlation"] = tests.correlation[at]
    table.loc[rows, "statistic"], table.loc[rows, "p_value"] = tests.statistic[at], tests.p_value[at]
    table.loc[rows, "df"] = tests.df
    nothing = table.index[table["statistic"].isna() & (table["status"] == "tested")]
    table.loc[nothing, ["status", "reason"]] = [
        "low_coverage",
        "no detected genes outside the programme to compare with",
    ]
    table.loc[nothing, "df"] = np.nan
    expected = table["expected_sign"].map({"+": 1.0, "-": -1.0})
    judged = expected.notna() & table["statistic"].notna()
    table.loc[judged, "agrees"] = np.where(np.sign(table["statistic"]) == expected, "yes", "no")[judged]
    return table


def _test(design: Design, expression: Expression, scored: pd.DataFrame, genes: pd.Index) -> tuple[CameraTests, int]:
    """CAMERA over the detected genes, and their number."""
    detected = np.flatnonzero(expression.detected)
    signs = np.sign(scored.reindex(genes[detected]).fillna(0.0).to_numpy(dtype=np.float64))
    if len(detected) < MIN_GENES:
        nothing = np.full(scored.shape[1], np.nan)
        return CameraTests((signs != 0).sum(axis=0), nothing, nothing, nothing, 0), len(detected)
    log2, error_log2 = expression.log2[:, detected], expression.log2_error[:, detected]
    effect, nuisance = design.effect, design.nuisance
    if (slopes := donor_slopes(design)) is not None:
        rows, effect, nuisance = slopes
        log2, error_log2 = rows @ log2, rows @ error_log2
    error: Floats = fit_linear(error_log2, effect, nuisance).estimate
    return camera(log2, effect, nuisance, signs, error), len(detected)
