"""Does co-culture push immune cells against a disease's own signature?

The estimates are those of :mod:`.program_effects`, with signatures in the place of programmes: the signed (or weighted)
mean of their genes' log2 changes, partner RNA taken out, replicates as the unit. A negative effect pushes against the
disease. The rows of a data set are a multiple-testing family of their own. A signature is a correlate of the disease in
patients: pushing against it says nothing of a cure, and signatures that share genes are no independent witnesses.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from anndata import AnnData

from immunomod.contrast.design import Contrast
from immunomod.contrast.leakage import organism_of
from immunomod.contrast.program_effects import BESIDE, INTERVAL, KEY, SIZES, program_effects
from immunomod.contrast.settings import ContrastSettings
from immunomod.diseases import DiseaseSet

COLUMNS = [
    *(*KEY, "disease", "signature", "programs", *SIZES, "genes_found", "genes_total", "genes_verified"),
    *(*INTERVAL, "p_value", "fdr", *BESIDE, "effect_raw", "pushes", "status", "reason", "source"),
]
AGAINST, TOWARDS, UNDECIDED = "against", "towards", "undecided"


def disease_effects(
    row: Mapping[str, str],
    pseudobulks: Mapping[str, AnnData],
    diseases: DiseaseSet,
    settings: ContrastSettings,
    seed: int,
) -> pd.DataFrame:
    """Hold one contrast against every signature, in each class that it is of.

    Parameters
    ----------
    row
        The row of ``contrasts.tsv``, values as text.
    pseudobulks
        Data set -> pseudobulk, for each data set of the row.
    diseases
        The signatures.
    settings, seed
        The ``contrast`` section of the config, and the run's seed.

    Returns
    -------
    One row per data set, cell class and signature, with the columns of ``program_effects.tsv`` and ``pushes``:
    ``against`` where the interval lies below 0, ``towards`` where it lies above, ``undecided`` where it holds 0, empty
    where nothing was tested. ``genes_verified``: genes that were read in the source named, of ``genes_total``.

    Raises
    ------
    UserError
        The contrast names a column or writes a filter that cannot be used.
    """
    contrast = Contrast.from_row(row)
    found = program_effects(contrast, pseudobulks, diseases, settings, seed).effects
    table = found.rename(columns={"program": "name"}).join(diseases.table, on="name")
    organism = {dataset: organism_of(pseudobulks[dataset]) for dataset in contrast.datasets}
    table["organism"] = table["dataset"].map(organism)
    table["genes_verified"] = 0
    for one in set(organism.values()):
        rows = table["organism"] == one
        table.loc[rows, "genes_verified"] = table.loc[rows, "name"].map(diseases.genes_verified(one)).astype(int)
    nameless = (table["genes_total"] == 0) & (table["status"] == "low_coverage")
    table.loc[nameless, "reason"] = "the signature names no gene of " + table.loc[nameless, "organism"].astype(str)
    low, high = table["ci_low"].to_numpy(dtype=np.float64), table["ci_high"].to_numpy(dtype=np.float64)
    table["pushes"] = np.select([high < 0, low > 0, np.isfinite(low)], [AGAINST, TOWARDS, UNDECIDED], default="")
    return table[COLUMNS]
