"""Which genes change in a cell class: a model of each gene's pseudobulk counts, of the user's choice.

The design is that of the programmes (``~ donor + condition`` where donors are paired), so both speak of the same units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import stats

from immunomod.contrast.design import Contrast, Design, donor_slopes, stratum_design
from immunomod.contrast.gene_methods import deseq2, limma_trend
from immunomod.contrast.gene_methods.method import GeneFit, GeneMethod, GeneTask, NotFittedError
from immunomod.contrast.gene_methods.shrinkage import posterior_mode
from immunomod.contrast.leakage import Leakage, leakage_of
from immunomod.contrast.model import benjamini_hochberg, fit_linear
from immunomod.contrast.normalise import Floats
from immunomod.contrast.scores import PRIOR_COUNT, Expression, measure_expression, well_known
from immunomod.contrast.settings import ContrastSettings
from immunomod.progress import Progress

REGISTRY: dict[str, GeneMethod] = {method.name: method for method in (deseq2.METHOD, limma_trend.METHOD)}
COLUMNS = ["gene", "base_mean", "log2_fold_change", "se", "statistic", "p_value", "fdr", "ambient_suspect"]
COLUMNS += ["log2_fold_change_shrunk"]
STRATUM_COLUMNS = ["contrast", "dataset", "cell_class", "method", "n_test", "n_reference", "n_pairs"]
STRATUM_COLUMNS += ["genes_fitted", "genes_tested", "genes_changed", "status", "reason"]
#: False discovery rate below which ``genes_changed`` counts a gene.
CHANGED = 0.05

MIN_COUNT = 10.0
MIN_TOTAL_COUNT = 15.0
LARGE_GROUP = 10
SHARE_OF_LARGE_GROUP = 0.7
#: Molecules of a gene that leaked into a replicate, above which its counts are corrected.
MIN_LEAKED = 0.5
#: A rise of the uncorrected counts by less than this share asks for no explanation.
RISE = 0.1


@dataclass(frozen=True)
class GeneEffects:
    """Genes of one contrast.

    Attributes
    ----------
    tables
        Cell class -> its table of genes; empty (with its columns) where nothing can be fitted. With several data sets,
        each row also names its ``dataset``.
    strata
        One row per data set and cell class: the model, how many genes were fitted, tested and changed, and a status:
        that of the design, ``low_coverage`` where no gene has enough counts, or ``not_fitted`` where the model failed.
        ``reason`` says why in words wherever the status is not ``tested``.
    """

    tables: dict[str, pd.DataFrame]
    strata: pd.DataFrame


def gene_effects(contrast: Contrast, pseudobulks: Mapping[str, AnnData], settings: ContrastSettings) -> GeneEffects:
    """Test every gene in every cell class that occurs in the data sets, by :func:`gene_model`."""
    tables: dict[str, list[pd.DataFrame]] = {}
    rows = []
    progress = Progress("genes")
    for dataset in contrast.datasets:
        stratum = pseudobulks[dataset]
        for cell_class in sorted(stratum.obs["cell_class"].astype(str).unique()):
            design = stratum_design(contrast, stratum.obs, cell_class, settings.min_cells)
            status, reason = design.status, design.reason
            table, method = empty_table(), gene_model(design, settings.gene_method)
            if status == "tested":
                counts = np.asarray((design.membership @ stratum.X).todense(), dtype=np.float64)
                leakage = leakage_of(stratum, design.membership)
                try:
                    table = fit_genes(counts, stratum.var_names, design, leakage, method)
                except NotFittedError as error:
                    status, reason = "not_fitted", f"the model of {method} could not be fitted: {error}"
                if status == "tested" and table.empty:
                    status, reason = "low_coverage", _too_few_counts(counts, design)
            rows.append(
                {
                    **{"contrast": contrast.name, "dataset": dataset, "cell_class": cell_class},
                    **{"method": method, "status": status, "reason": reason},
                    **{name: getattr(design, name) for name in ("n_test", "n_reference", "n_pairs")},
                    "genes_fitted": int(table["log2_fold_change"].notna().sum()),
                    "genes_tested": int(table["p_value"].notna().sum()),
                    "genes_changed": int((table["fdr"].astype(float) < CHANGED).sum()),
                }
            )
            if len(contrast.datasets) > 1:
                table["dataset"] = dataset
            tables.setdefault(cell_class, []).append(table)
            progress(f"{cell_class} in {dataset}: {len(table):,} genes")
    return GeneEffects(
        tables={name: _stack(parts) for name, parts in tables.items()},
        strata=pd.DataFrame(rows, columns=STRATUM_COLUMNS),
    )


def gene_model(design: Design, chosen: str) -> str:
    """The ``chosen`` model; for a trend within donors limma-trend, since a model of counts has one slope for all."""
    return limma_trend.METHOD.name if donor_slopes(design) is not None else chosen


def _too_few_counts(counts: Floats, design: Design) -> str:
    if not expressed_genes(counts, design).any():
        return (
            f"no gene reaches {MIN_COUNT:g} counts in as many replicates as the smaller arm has: {counts.sum():,.0f} "
            f"counts in {len(counts)} replicates"
        )
    return "once the partner RNA that leaked in is taken out, nothing is left of the genes with enough counts"


def _stack(parts: list[pd.DataFrame]) -> pd.DataFrame:
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else parts[0]


def empty_table() -> pd.DataFrame:
    """A table of genes without rows."""
    return pd.DataFrame(columns=COLUMNS)


def fit_genes(
    counts: Floats, genes: pd.Index, design: Design, leakage: Leakage | None = None, method: str = "deseq2"
) -> pd.DataFrame:
    """Tests of the design's effect for every gene with enough counts.

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
    method
        Name of a model in :data:`REGISTRY`; of a trend within donors the slopes are compared, by one that works on
        ``log2`` (:func:`gene_model`).

    Returns
    -------
    One row per gene that passes :func:`expressed_genes`, by p-value then name. ``base_mean``: mean of normalised
    counts; ``log2_fold_change`` and ``se``: estimate of test over reference (for a trend per unit of the variable),
    unshrunken, log2; ``fdr`` by Benjamini and Hochberg over the genes that the model counts (PyDESeq2 takes some out by
    independent filtering and by Cook's distance). ``ambient_suspect``: whether what leaked, at its estimate plus two
    standard errors, explains the whole of a rise that the uncorrected counts show; empty where nothing leaked into the
    gene. ``log2_fold_change_shrunk``: the change drawn towards zero by what its uncertainty asks for, for ranking and
    plots. Empty if no gene passes.

    Raises
    ------
    NotFittedError
        The model could not be fitted.
    """
    arms = design.units["arm"].to_numpy()
    leaks = leakage is not None and bool(leakage.expected.any())
    kept = expressed_genes(counts, design)
    if not kept.any():
        return empty_table()
    order = np.argsort(genes[kept].to_numpy(dtype=str), kind="stable")
    chosen = np.flatnonzero(kept)[order]
    expression = measure_expression(counts, arms, 1.0, leakage)
    own = own_counts(counts, expression, leakage) if leaks and leakage is not None else counts
    left = counts - leakage.expected if leaks and leakage is not None else counts
    usable = chosen[(left[:, chosen] >= 0.5).any(axis=0)]
    if not len(usable):
        return empty_table()
    blurred = np.zeros(counts.shape[1], dtype=bool)
    if leaks and leakage is not None:
        blurred = ~well_known(left, leakage)
    task = GeneTask(
        blurred=blurred[usable],
        genes=genes[usable],
        counts=own[:, usable],
        log2=expression.log2[:, usable],
        library=expression.library,
        effect=design.effect,
        nuisance=design.nuisance,
    )
    error = expression.log2_error[:, usable]
    if (slopes := donor_slopes(design)) is not None:
        rows, effect, nuisance = slopes
        task = replace(task, log2=rows @ task.log2, effect=effect, nuisance=nuisance)
        error = rows @ error
    leaked = bool(expression.log2_error.any())
    table = _table(task, REGISTRY[method].run(task), error, expression.detected[usable], leaked)
    if leaks and leakage is not None:
        # genes of which nothing is left have no model, but are suspects all the same
        nothing_left = pd.DataFrame({"gene": genes[np.setdiff1d(chosen, usable)], "base_mean": 0.0})
        positions = np.concatenate([usable, np.setdiff1d(chosen, usable)])
        table = pd.concat([table, nothing_left], ignore_index=True) if len(nothing_left) else table
        table["ambient_suspect"] = _suspect(counts[:, positions], design, expression.library, leakage, positions)
    return table.sort_values(["p_value", "gene"], kind="stable", ignore_index=True)[COLUMNS]


def own_counts(counts: Floats, expression: Expression, leakage: Leakage) -> Floats:
    """A class's own molecules, for models of counts: those that ``expression.log2`` stands for, where anything leaked.

    The count less what leaked may be negative, and cut at zero its logarithm is drawn down wherever leakage is as large
    as the count: the class II genes of MSC, which double in truth, seemed to rise by 0.87 and 0.69 log2 at 10% and 20%
    leakage, 0.91 without (20 simulated studies). :mod:`immunomod.contrast.scores` puts such units on the tangent of
    their arm's mean; with the counts behind that they rise by 0.95 and 1.01.
    """
    behind = np.exp2(expression.log2) / 1e6 * (expression.library + 2 * PRIOR_COUNT)[:, None] - PRIOR_COUNT
    # to six digits: what depends on the order of sums must not decide how a half is rounded
    rounded = np.maximum(behind, 0.0).round(6)
    return np.where((leakage.expected >= MIN_LEAKED).any(axis=0), rounded, counts)


def _table(task: GeneTask, fit: GeneFit, log2_error: Floats, detected: NDArray[np.bool_], leaks: bool) -> pd.DataFrame:
    """The fit as a table, the common error of leakage added to its standard errors.

    ``log2_error`` is that of ``task.log2``. No test for genes that leakage hides (``detected`` says so where it blurs a
    gene). Degrees of freedom with the error after Satterthwaite (1946), the error being taken for known.
    """
    error = np.abs(fit_linear(log2_error, task.effect, task.nuisance).estimate)
    se = np.sqrt(fit.se**2 + error**2) if leaks else fit.se
    known = fit.tested & detected if leaks else fit.tested
    with np.errstate(divide="ignore", invalid="ignore"):
        df = fit.df * (se / fit.se) ** 4 if leaks else np.full(len(se), fit.df)
        statistic = fit.estimate / se
    p_value = np.where(known, 2 * stats.t.sf(np.abs(statistic), df), np.nan)
    shrunken = np.where(error > 0, posterior_mode(fit.estimate, se, fit.prior_scale), fit.shrunken)
    factors = task.library / np.exp(np.log(task.library).mean())
    return pd.DataFrame(
        {
            "gene": task.genes.to_numpy(),
            "base_mean": (task.counts / factors[:, None]).mean(axis=0),
            "log2_fold_change": fit.estimate,
            "se": se,
            "statistic": statistic,
            "p_value": p_value,
            "fdr": benjamini_hochberg(np.where(fit.counted, p_value, np.nan)),
            "ambient_suspect": np.nan,
            "log2_fold_change_shrunk": shrunken,
        }
    )


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
