"""Which genes change in a cell class: negative-binomial models of pseudobulk counts by PyDESeq2.

The design is that of the programmes (``~ donor + condition`` where donors are paired), so both speak of the same units.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import stats

from immunomod.contrast.design import Contrast, Design, stratum_design
from immunomod.contrast.leakage import Leakage, leakage_of
from immunomod.contrast.model import benjamini_hochberg, fit_linear
from immunomod.contrast.normalise import Floats
from immunomod.contrast.scores import effective_library, measure_expression
from immunomod.contrast.settings import ContrastSettings
from immunomod.progress import Progress

COLUMNS = ["gene", "base_mean", "log2_fold_change", "se", "statistic", "p_value", "fdr", "ambient_suspect"]

MIN_COUNT = 10.0
MIN_TOTAL_COUNT = 15.0
LARGE_GROUP = 10
SHARE_OF_LARGE_GROUP = 0.7
#: A rise of the uncorrected counts by less than this share asks for no explanation.
RISE = 0.1


def gene_effects(
    contrast: Contrast, pseudobulks: Mapping[str, AnnData], settings: ContrastSettings
) -> dict[str, pd.DataFrame]:
    """A table of genes per cell class; with several data sets, each row also names its ``dataset``.

    Every class that occurs in the data sets has a table, empty (with its columns) where nothing can be fitted; the
    contrast's design table says why.
    """
    tables: dict[str, list[pd.DataFrame]] = {}
    progress = Progress("genes")
    for dataset in contrast.datasets:
        stratum = pseudobulks[dataset]
        for cell_class in sorted(stratum.obs["cell_class"].astype(str).unique()):
            design = stratum_design(contrast, stratum.obs, cell_class, settings.min_cells)
            table = empty_table()
            if design.status == "tested":
                counts = np.asarray((design.membership @ stratum.X).todense(), dtype=np.float64)
                table = fit_genes(counts, stratum.var_names, design, leakage_of(stratum, design.membership))
            if len(contrast.datasets) > 1:
                table["dataset"] = dataset
            tables.setdefault(cell_class, []).append(table)
            progress(f"{cell_class} in {dataset}: {len(table):,} genes")
    return {name: _stack(parts) for name, parts in tables.items()}


def _stack(parts: list[pd.DataFrame]) -> pd.DataFrame:
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else parts[0]


def empty_table() -> pd.DataFrame:
    """A table of genes without rows."""
    return pd.DataFrame(columns=COLUMNS)


def fit_genes(counts: Floats, genes: pd.Index, design: Design, leakage: Leakage | None = None) -> pd.DataFrame:
    """Wald tests of the design's effect for every gene with enough counts.

    What leaked is taken out of the counts first. A gene's standard error is widened by the error of that which all
    units share (:class:`immunomod.contrast.leakage.Leakage`), and a gene that cannot be told from leakage has no
    p-value.

    Parameters
    ----------
    counts
        Units of the design x genes, whole numbers.
    genes
        Names of the genes.
    design
        A design with status ``tested``.
    leakage
        What leaked into the units; nothing where it is None.

    Returns
    -------
    One row per gene that passes :func:`expressed_genes`, by p-value then name. ``base_mean``: mean of normalised
    counts; ``log2_fold_change`` and ``se``: maximum-likelihood estimate of test over reference (for a trend per unit of
    the variable), unshrunken, log2; ``fdr`` by Benjamini and Hochberg after PyDESeq2's independent filtering (empty
    for genes that it, or Cook's distance, takes out). ``ambient_suspect``: whether what leaked, at its estimate plus
    two standard errors, explains the whole of a rise that the uncorrected counts show; empty where nothing leaked into
    the gene. Empty if no gene passes or the model cannot be fitted.

    Notes
    -----
    Size factors are effective library sizes (:func:`immunomod.contrast.scores.effective_library`), the same as behind
    the programme scores: the median of ratios has no gene to stand on when every gene is zero somewhere, which is the
    rule in small strata.
    """
    arms = design.units["arm"].to_numpy()
    leaks = leakage is not None and bool(leakage.expected.any())
    own = np.maximum(counts - leakage.expected, 0.0) if leaks and leakage is not None else counts
    kept = expressed_genes(counts, design)
    if not kept.any():
        return empty_table()
    order = np.argsort(genes[kept].to_numpy(dtype=str), kind="stable")
    chosen = np.flatnonzero(kept)[order]
    if not leaks or leakage is None:
        table = _deseq(own[:, chosen], genes[chosen], design, effective_library(counts, arms))
        return table.sort_values(["p_value", "gene"], kind="stable", ignore_index=True)[COLUMNS]
    expression = measure_expression(counts, arms, 1.0, leakage)
    usable = chosen[(own[:, chosen] >= 0.5).any(axis=0)]
    table = _deseq(own[:, usable], genes[usable], design, expression.library)
    if table.empty:
        return table
    error = fit_linear(expression.log2_error[:, usable], design.effect, design.nuisance).estimate
    table = _widened(table, np.abs(error), expression.detected[usable])
    # genes of which nothing is left have no model, but are suspects all the same
    nothing_left = pd.DataFrame({"gene": genes[np.setdiff1d(chosen, usable)], "base_mean": 0.0})
    table = pd.concat([table, nothing_left], ignore_index=True) if len(nothing_left) else table
    positions = genes.get_indexer(pd.Index(table["gene"]))
    table["ambient_suspect"] = _suspect(counts[:, positions], design, expression.library, leakage, positions)
    return table.sort_values(["p_value", "gene"], kind="stable", ignore_index=True)[COLUMNS]


def _widened(table: pd.DataFrame, error: Floats, detected: NDArray[np.bool_]) -> pd.DataFrame:
    """The table with ``error`` added to the standard errors, and no test for genes that leakage hides."""
    se = np.sqrt(table["se"].to_numpy(dtype=np.float64) ** 2 + error**2)
    known = table["p_value"].notna().to_numpy() & detected
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = table["log2_fold_change"].to_numpy(dtype=np.float64) / se
    p_value = np.where(known, 2 * stats.norm.sf(np.abs(statistic)), np.nan)
    # the genes that PyDESeq2's independent filtering left in
    filtered = np.where(table["fdr"].notna().to_numpy(), p_value, np.nan)
    return table.assign(se=se, statistic=statistic, p_value=p_value, fdr=benjamini_hochberg(filtered))


def _suspect(
    counts: Floats, design: Design, library: Floats, leakage: Leakage, genes: NDArray[np.intp]
) -> NDArray[np.object_]:
    """Per gene ``True`` where leakage can explain a rise, ``False`` where not, None where nothing leaked into it.

    The arms are compared by what the design's effect weighs up and down: for a trend, units above its mean and below.
    """
    expected, variance = leakage.expected[:, genes], leakage.variance[:, genes]
    common = leakage.error[:, None] * expected
    up = design.effect > design.effect.mean()
    raw, leaked, most = [], [], []
    for rows in (up, ~up):
        depth = library[rows].sum()
        raw.append(counts[rows].sum(axis=0) / depth)
        leaked.append(expected[rows].sum(axis=0) / depth)
        most.append(leaked[-1] + 2 * np.sqrt(variance[rows].sum(axis=0) + common[rows].sum(axis=0) ** 2) / depth)
    # the arm into which more leaked rises over the other, and falls back below it without all that may have leaked
    more = leaked[0] >= leaked[1]
    rise = np.where(more, raw[0] - raw[1], raw[1] - raw[0])
    left = np.where(more, raw[0] - most[0] - (raw[1] - leaked[1]), raw[1] - most[1] - (raw[0] - leaked[0]))
    explained = (rise > RISE * np.minimum(*raw)) & (left <= 0)
    suspect: NDArray[np.object_] = explained.astype(object)
    suspect[expected.sum(axis=0) < 0.5] = None
    return suspect


def expressed_genes(counts: Floats, design: Design) -> NDArray[np.bool_]:
    """Genes worth a test, by the rule of edgeR's ``filterByExpr`` with the arms as groups.

    A gene is kept if its CPM reaches ``10 / median library`` (in millions) in as many units as the smaller arm has
    (above ten: ten and 70% of the rest), and its total count is 15 or more. The rule does not look at which units
    these are, so it does not favour either sign. For a trend the smallest group is that of the rarest value.
    """
    library = np.maximum(counts.sum(axis=1), 1.0)
    smallest = float(design.units["arm"].value_counts().min())
    if smallest > LARGE_GROUP:
        smallest = LARGE_GROUP + (smallest - LARGE_GROUP) * SHARE_OF_LARGE_GROUP
    threshold = MIN_COUNT / np.median(library)
    reaching = (counts / library[:, None] >= threshold).sum(axis=0)
    return np.asarray((reaching >= smallest - 1e-14) & (counts.sum(axis=0) >= MIN_TOTAL_COUNT - 1e-14))


def _set_size_factors(data: AnnData, library: Floats) -> None:
    """What PyDESeq2's ``fit_size_factors`` stores, for factors proportional to ``library``."""
    factors = library / np.exp(np.log(library).mean())
    data.obs["size_factors"] = factors
    data.layers["normed_counts"] = data.X / factors[:, None]
    data.var["_normed_means"] = data.layers["normed_counts"].mean(axis=0)


def _deseq(counts: Floats, genes: pd.Index, design: Design, library: Floats) -> pd.DataFrame:
    from pydeseq2.dds import DeseqDataSet
    from pydeseq2.ds import DeseqStats

    columns = np.column_stack([design.nuisance, design.effect])
    units = [f"unit{number}" for number in range(len(columns))]
    matrix = pd.DataFrame(columns, index=units, columns=[f"term{number}" for number in range(columns.shape[1])])
    table = pd.DataFrame(np.rint(counts).astype(np.int64), index=units, columns=genes)
    contrast = np.zeros(columns.shape[1])
    contrast[-1] = 1.0
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            data = DeseqDataSet(counts=table, metadata=matrix.copy(), design=matrix, n_cpus=1, quiet=True)
            # deseq2() asks for size factors first, and would take them from medians of ratios
            data.fit_size_factors = lambda **_: _set_size_factors(data, library)
            data.deseq2()
            tests = DeseqStats(data, contrast=contrast, n_cpus=1, quiet=True)
            tests.summary()
        except (ValueError, FloatingPointError, np.linalg.LinAlgError, RuntimeError, IndexError) as error:
            logging.getLogger(__name__).warning("no gene table for this class: %s", error)
            return empty_table()
    result = tests.results_df
    return pd.DataFrame(
        {
            "gene": genes.to_numpy(),
            "base_mean": result["baseMean"].to_numpy(),
            "log2_fold_change": result["log2FoldChange"].to_numpy(),
            "se": result["lfcSE"].to_numpy(),
            "statistic": result["stat"].to_numpy(),
            "p_value": result["pvalue"].to_numpy(),
            "fdr": result["padj"].to_numpy(),
            "ambient_suspect": np.nan,
        }
    )
