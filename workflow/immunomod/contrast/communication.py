"""How the ligand-receptor pairs between MSC and immune cells change, by both sides' own gene statistics.

For every pair of an MSC class and an immune class, in both directions, the change of the ligand in the class that sends
it is put beside the change of the receptor in the class that receives it. Both are the rows of the contrast's gene
tables (:mod:`.genes`): estimated from replicates, each side against its own control (MSC alone, immune cells alone),
after leaked partner RNA was taken out. Nothing is computed from cells, and no model is fitted here. With a control arm
in which the sides were never together, a change is one of the *capacity* to signal, not of signals received.

*Effect.* ``effect`` is the mean of the two log2 fold changes, half the log2 change of the product of ligand and
receptor: the score by mass action that most methods use (Dimitrov et al. 2022, doi:10.1038/s41467-022-30755-0), and how
liana joins gene statistics to pairs. The sides share donors and cultures, and their errors correlate by an amount that
three or four donors cannot tell. So its standard error is ``(se_ligand + se_receptor) / 2``, the largest that any
correlation gives (Cauchy-Schwarz); the usual root of squares presumes independence. Between independent sides the price
is a standard error up to 1.4 times too large. Rejected at a nominal 5%, 300 pairs in each of 6 studies of 4 donors in
which nothing changes on average and donors' responses (SD 0.5 log2) correlate between the sides:

===========  =====================  ===============  ========  ============================
correlation  mean of the errors     root of squares  p_both    one side's gene table alone
===========  =====================  ===============  ========  ============================
0            0.9%                   5%               0.2%      6%
0.5          3%                     13%              1.3%      6%
1            6%                     18%              5%        6%
===========  =====================  ===============  ========  ============================

*Two nulls.* ``p_value`` (normal, as the gene tables' Wald tests are) asks whether the *product* changes. It is the one
that the question needs: licensing raises CXCL10 in MSC a thousandfold while CXCR3 on T cells stays, and that is a
change of this axis. But one changed gene moves all of its pairs, so ``p_value`` is no evidence that a pair changed *as
a pair*. That is asked by ``p_both``: both sides change, in the same direction. Its null is the union of "the ligand
does not" and "the receptor does not", and the intersection-union test rejects it where each side alone is rejected
(Berger, Technometrics 1982, 24:295): for either direction the larger of the two one-sided p, and twice the smaller of
both directions. Where the signs agree that is ``max(ligand_p_value, receptor_p_value)``; where they do not, it is 1.
It holds under any correlation between the sides.

*Complexes.* A complex needs all of its subunits: it is measured where all are, and its statistic is that of the subunit
with the least evidence of change (lowest ``|log2 fold change / se|``), as in liana's ``df_to_lr``.

*Expression.* A gene counts as expressed where it has a row in its class's gene table (edgeR's rule for enough counts)
and reaches ``communication_min_cpm`` counts per million of its own molecules in the arm that expresses it more. That
favours neither sign. At 10,000 molecules a cell, 10 per million is one molecule in ten cells, which is liana's usual
limit of 10% of cells; unlike that share, it does not depend on depth.

*Rows.* Pairs with both sides expressed have a row each. All others of a pair of classes share one row without ligand
and receptor, whose ``n_pairs`` says how many it stands for: over the rows of two classes and a direction, ``n_pairs``
adds up to the size of the resource.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import stats

from immunomod.contrast.design import Contrast, Design, stratum_design
from immunomod.contrast.leakage import Leakage, leakage_of, organism_of
from immunomod.contrast.model import benjamini_hochberg, fit_linear
from immunomod.contrast.normalise import Floats
from immunomod.contrast.scores import Expression, measure_expression
from immunomod.contrast.settings import ContrastSettings
from immunomod.interactions import subunits

SIDE = ["gene", "log2_fold_change", "se", "p_value", "cpm_test", "cpm_reference", "ambient_suspect"]
COLUMNS = [
    *("contrast", "dataset", "direction", "source", "target", "ligand", "receptor", "n_pairs"),
    *(f"ligand_{name}" for name in SIDE),
    *(f"receptor_{name}" for name in SIDE),
    *("effect", "se", "ci_low", "ci_high", "p_value", "fdr", "p_both", "fdr_both", "status", "reason"),
]
MSC_TO_IMMUNE, IMMUNE_TO_MSC = "msc_to_immune", "immune_to_msc"
COMPARTMENTS = ("MSC", "immune")

# what keeps a gene, and with it a complex, from being compared; the last goes before the others
OUTLIER, LEAKAGE, LOW_EXPRESSION, NOT_LISTED = "outlier", "leakage", "low_expression", "not_listed"
OBSTACLES = ["", OUTLIER, LEAKAGE, LOW_EXPRESSION, NOT_LISTED]
# of two sides that cannot be tested, the one that says more
STATUSES = ["tested", "unreplicated", "confounded", "too_few_cells", "absent"]


@dataclass(frozen=True)
class ClassChanges:
    """What the genes of one class do.

    Attributes
    ----------
    cell_class, status, reason
        The class, and the status of its design.
    has_estimate
        Whether there are changes, be they tested or not.
    genes
        Gene -> :data:`SIDE` without ``gene``, and ``obstacle``: one row per gene of the matrix.
    """

    cell_class: str
    status: str
    reason: str
    has_estimate: bool
    genes: pd.DataFrame


def communication_effects(
    contrast: Contrast,
    pseudobulks: Mapping[str, AnnData],
    genes: Mapping[str, pd.DataFrame],
    interactions: Mapping[str, pd.DataFrame],
    settings: ContrastSettings,
) -> pd.DataFrame:
    """Compare every ligand-receptor pair between every MSC class and every immune class of each data set.

    Parameters
    ----------
    contrast
        The question.
    pseudobulks
        Data set -> pseudobulk, with its leakage.
    genes
        Cell class -> gene table of this contrast (:func:`immunomod.contrast.genes.gene_effects`).
    interactions
        Organism -> pairs (:func:`immunomod.interactions.load_interactions`).
    settings
        ``min_cells``, ``min_count``, ``confidence`` and ``communication_min_cpm``.

    Returns
    -------
    Rows of :data:`COLUMNS`, per data set by p-value, then by name. ``source`` sends the ligand, ``target`` holds the
    receptor; ``ligand_gene`` and ``receptor_gene`` are the subunits that decide. All changes are in log2 units of test
    over reference (for a trend, per unit of the variable). ``fdr`` and ``fdr_both`` are by Benjamini and Hochberg over
    the tested rows of a data set. ``status``:

    - ``tested``;
    - ``unreplicated``, ``confounded``: as the design of a class says; changes without p-values where there are any;
    - ``too_few_cells``, ``absent``: a class cannot be compared; one row for all pairs;
    - ``low_expression``: one row for all pairs of which a side is not expressed, or not in the matrix;
    - ``leakage``: a side that cannot be told from leaked partner RNA;
    - ``outlier``: a side without a p-value because of a count that fits no other (Cook's distance).
    """
    parts = []
    for dataset in contrast.datasets:
        stratum = pseudobulks[dataset]
        pairs = interactions[organism_of(stratum)]
        sides = {name: _sides_of(contrast, stratum, dataset, name, genes, settings) for name in COMPARTMENTS}
        table = pd.concat(
            [
                _between(pairs, source, target, settings).assign(direction=direction)
                for msc in sides["MSC"]
                for immune in sides["immune"]
                for source, target, direction in ((msc, immune, MSC_TO_IMMUNE), (immune, msc, IMMUNE_TO_MSC))
            ],
            ignore_index=True,
        ).assign(dataset=dataset)
        table["fdr"] = benjamini_hochberg(table["p_value"].to_numpy(dtype=np.float64))
        table["fdr_both"] = benjamini_hochberg(table["p_both"].to_numpy(dtype=np.float64))
        order = ["p_value", "source", "target", "ligand", "receptor", "status"]
        parts.append(table.sort_values(order, kind="stable", na_position="last"))
    return pd.concat(parts, ignore_index=True).assign(contrast=contrast.name)[COLUMNS]


def _sides_of(
    contrast: Contrast,
    stratum: AnnData,
    dataset: str,
    compartment: str,
    genes: Mapping[str, pd.DataFrame],
    settings: ContrastSettings,
) -> list[ClassChanges]:
    """The classes of a compartment; where the data set has none, one of the compartment's name that is absent."""
    of_compartment = (stratum.obs["compartment"].astype(str) == compartment).to_numpy()
    classes = sorted(stratum.obs["cell_class"].astype(str)[of_compartment].unique()) or [compartment]
    return [class_changes(contrast, stratum, dataset, name, genes.get(name), settings) for name in classes]


def class_changes(
    contrast: Contrast,
    stratum: AnnData,
    dataset: str,
    cell_class: str,
    table: pd.DataFrame | None,
    settings: ContrastSettings,
) -> ClassChanges:
    """The changes of all genes of a class: by its gene table where it was tested, else by the mean log2 expression.

    Parameters
    ----------
    contrast, stratum, dataset, cell_class
        The question, the data set's pseudobulk and name, and the class.
    table
        Gene table of the class; its column ``dataset``, if there is one, names the rows of each data set.
    settings
        Thresholds.
    """
    design = stratum_design(contrast, stratum.obs, cell_class, settings.min_cells)
    if not design.has_estimate:
        return ClassChanges(cell_class, design.status, design.reason, False, pd.DataFrame())
    counts = np.asarray((design.membership @ stratum.X).todense(), dtype=np.float64)
    leakage = leakage_of(stratum, design.membership)
    expression = measure_expression(counts, design.units["arm"].to_numpy(), settings.min_count, leakage)
    changes = pd.DataFrame(index=stratum.var_names)
    if design.status == "tested":
        own = pd.DataFrame() if table is None else table
        own = own[own["dataset"] == dataset] if "dataset" in own else own
        columns = ["log2_fold_change", "se", "p_value", "ambient_suspect"]
        changes = (
            own.set_index("gene")[columns].reindex(changes.index) if len(own) else changes.reindex(columns=columns)
        )
        enough = changes["log2_fold_change"].notna().to_numpy()
    else:
        changes["log2_fold_change"] = fit_linear(expression.log2, design.effect, design.nuisance).estimate
        changes[["se", "p_value", "ambient_suspect"]] = np.nan
        enough = expression.detected
    per_million = _own_cpm(contrast, design, counts, expression, leakage)
    changes["cpm_test"], changes["cpm_reference"] = per_million
    enough &= np.max(per_million, axis=0) >= settings.communication_min_cpm
    leaked = np.zeros(len(changes), dtype=bool) if leakage is None else leakage.expected.sum(axis=0) >= 0.5
    no_p = design.status == "tested" and changes["p_value"].isna().to_numpy()
    hidden = leaked & ~expression.detected
    changes["obstacle"] = np.select([~enough, no_p & hidden, no_p], [LOW_EXPRESSION, LEAKAGE, OUTLIER], default="")
    return ClassChanges(cell_class, design.status, design.reason, True, changes)


def _own_cpm(
    contrast: Contrast, design: Design, counts: Floats, expression: Expression, leakage: Leakage | None
) -> tuple[Floats, Floats]:
    """Counts per million of every gene in the test and the reference arm, without the molecules that leaked in."""
    own = counts if leakage is None else counts - leakage.expected

    def level(units: NDArray[np.bool_]) -> Floats:
        return np.asarray(np.maximum(own[units].sum(axis=0), 0.0) / expression.library[units].sum() * 1e6)

    in_test, in_reference = design.sides(contrast)
    return level(in_test), level(in_reference)


def complex_changes(names: pd.Series, genes: pd.DataFrame) -> pd.DataFrame:
    """The change of each complex, by its subunit of least evidence.

    Parameters
    ----------
    names
        Complexes, ``A_B``; repeats are allowed.
    genes
        As in :class:`ClassChanges`.

    Returns
    -------
    One row per entry of ``names``, in their order: :data:`SIDE`, and ``obstacle``: the worst of the subunits'.
    ``ambient_suspect`` is true where any subunit is suspect.
    """
    unique = pd.Index(names.unique())
    members = pd.Series([subunits(name) for name in unique], index=unique).explode()
    rows = genes.reindex(members.to_numpy())
    rows["gene"] = members.to_numpy()
    rows["obstacle"] = rows["obstacle"].fillna(NOT_LISTED)
    rows["complex"] = members.index
    rank = rows["obstacle"].map(OBSTACLES.index)
    suspect = (
        rows["ambient_suspect"].map({True: 1.0, False: 0.0}).astype(float).groupby(rows["complex"].to_numpy()).max()
    )
    rows["evidence"] = (rows["log2_fold_change"] / rows["se"].fillna(1.0)).abs()
    rows["rank"] = -rank
    # the subunit that keeps the complex from being compared speaks for it, then the one of least evidence
    first = (
        rows.sort_values(["rank", "evidence", "gene"], kind="stable").drop_duplicates("complex").set_index("complex")
    )
    first["ambient_suspect"] = suspect.map({1.0: True, 0.0: False}).reindex(first.index)
    chosen: pd.DataFrame = first.loc[names, [*SIDE, "obstacle"]].reset_index(drop=True)
    return chosen


def _between(
    pairs: pd.DataFrame, source: ClassChanges, target: ClassChanges, settings: ContrastSettings
) -> pd.DataFrame:
    """All pairs of one sending and one receiving class, without what is the same for the data set."""
    status = max(source.status, target.status, key=STATUSES.index)
    reasons = [f"{side.cell_class}: {side.reason}" for side in (source, target) if side.status != "tested"]
    ends = {"source": source.cell_class, "target": target.cell_class}
    if not (source.has_estimate and target.has_estimate):
        return _collective(len(pairs), ends, status, "; ".join(reasons))
    ligand = complex_changes(pairs["ligand"], source.genes).add_prefix("ligand_")
    receptor = complex_changes(pairs["receptor"], target.genes).add_prefix("receptor_")
    table = pd.concat([pairs[["ligand", "receptor"]].reset_index(drop=True), ligand, receptor], axis=1)
    obstacles = [table.pop(f"{side}_obstacle").to_numpy() for side in ("ligand", "receptor")]
    is_listed = np.logical_and(*[obstacle != NOT_LISTED for obstacle in obstacles])
    is_expressed = is_listed & np.logical_and(*[obstacle != LOW_EXPRESSION for obstacle in obstacles])
    table = _joined(table, settings)
    table["status"], table["reason"] = status, "; ".join(reasons)
    if status == "tested":
        for side, obstacle in zip(("ligand", "receptor"), obstacles, strict=True):
            _set_obstacle(table, side, obstacle, ends)
    untested = (table["status"] != "tested").to_numpy()
    table.loc[untested, ["se", "ci_low", "ci_high", "p_value", "p_both"]] = np.nan
    expressed: pd.DataFrame = table[is_expressed].assign(n_pairs=1, **ends)
    if is_expressed.all():
        return expressed
    reason = _why_low(is_listed, is_expressed, settings)
    collective = _collective(int((~is_expressed).sum()), ends, LOW_EXPRESSION, reason)
    return pd.concat([expressed, collective], ignore_index=True) if len(expressed) else collective


def _why_low(is_listed: NDArray[np.bool_], is_expressed: NDArray[np.bool_], settings: ContrastSettings) -> str:
    """How many pairs lack the expression, and how many a gene; both masks are over all pairs."""
    low, unlisted = int((is_listed & ~is_expressed).sum()), int((~is_listed).sum())
    words = (
        f"{low:,} of {len(is_listed):,} pairs: ligand or receptor below {settings.communication_min_cpm:g} counts per "
        "million in both arms, or with too few counts for a model"
    )
    return words + (f"; {unlisted:,}: a gene that the matrix does not list" if unlisted else "")


def _collective(n_pairs: int, ends: Mapping[str, str], status: str, reason: str) -> pd.DataFrame:
    """One row for many pairs."""
    row = {**ends, "n_pairs": n_pairs, "status": status, "reason": reason}
    return pd.DataFrame([row]).reindex(columns=COLUMNS)


def _set_obstacle(table: pd.DataFrame, side: str, obstacle: NDArray[np.object_], ends: Mapping[str, str]) -> None:
    """Say of the pairs of which this side has no p-value why; leakage goes before an outlier of the other side."""
    cell_class = ends["source" if side == "ligand" else "target"]
    words = {
        OUTLIER: f"has no p-value in {cell_class}: a count that fits no other",
        LEAKAGE: f"cannot be told from leaked partner RNA in {cell_class}",
    }
    for status, why in words.items():
        rows = (obstacle == status) & (table["status"] != LEAKAGE).to_numpy()
        table.loc[rows, "status"] = status
        table.loc[rows, "reason"] = table.loc[rows, f"{side}_gene"] + " " + why


def _joined(table: pd.DataFrame, settings: ContrastSettings) -> pd.DataFrame:
    """The table with effect, standard error, interval and both p-values; see the module's docstring."""
    change = [table[f"{side}_log2_fold_change"].to_numpy(dtype=np.float64) for side in ("ligand", "receptor")]
    errors = [table[f"{side}_se"].to_numpy(dtype=np.float64) for side in ("ligand", "receptor")]
    effect, se = (change[0] + change[1]) / 2, (errors[0] + errors[1]) / 2
    half_width = stats.norm.ppf((1 + settings.confidence) / 2) * se
    with np.errstate(divide="ignore", invalid="ignore"):
        p_value = 2 * stats.norm.sf(np.abs(effect / se))
        p_both = intersection_union_p(change[0] / errors[0], change[1] / errors[1])
    return table.assign(
        effect=effect,
        se=se,
        ci_low=effect - half_width,
        ci_high=effect + half_width,
        p_value=p_value,
        p_both=p_both,
    )


def intersection_union_p(first: Floats, second: Floats) -> Floats:
    """Two-sided p of "both change, in the same direction", from the z-values of two tests of any dependence.

    Berger, Technometrics 1982, 24:295: a union of nulls is rejected at a level where each of them is. NaN stays NaN.
    """
    up = np.maximum(stats.norm.sf(first), stats.norm.sf(second))
    down = np.maximum(stats.norm.cdf(first), stats.norm.cdf(second))
    return np.asarray(np.minimum(2 * np.minimum(up, down), 1.0))
