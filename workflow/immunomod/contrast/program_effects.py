"""What a condition changes in each gene programme, cell class by cell class, with replicates as the unit of evidence.

For every cell class: pseudobulk counts are added up per unit (design), turned into log2 expression and into one score
per unit and programme (scores), and compared by a linear model (model), whose variances are steadied by those of all
classes of the data set (moderation). Every combination of data set, cell class and programme that could be asked for
has a row; where no test is possible the row says why.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from immunomod.contrast.design import TEST, Contrast, Design, stratum_design
from immunomod.contrast.leakage import leakage_of, organism_of
from immunomod.contrast.model import (
    LinearFit,
    benjamini_hochberg,
    cleared_regressor,
    fit_linear,
    hedges_correction,
    relabelling_p,
    residuals,
    sign_flip_p,
    variance_of_slopes,
)
from immunomod.contrast.moderation import Effects, Moderation, Noise, arm_noise, infer
from immunomod.contrast.normalise import Floats
from immunomod.contrast.program_enrichment import COLUMNS as ENRICHMENT_COLUMNS
from immunomod.contrast.program_enrichment import program_enrichment
from immunomod.contrast.scores import Expression, counting_variance, measure_expression, programme_weights
from immunomod.contrast.settings import ContrastSettings

KEY = ["contrast", "dataset", "cell_class"]
SIZES = ["n_test", "n_reference", "n_pairs", "cells_test", "cells_reference"]
INTERVAL = ["effect", "se", "ci_low", "ci_high", "df"]
BESIDE = ["hedges_g", "p_sign_flip", "null_z"]
ESTIMATES = [*INTERVAL, "p_value", *BESIDE]
OUTCOME = ["effect_raw", "expected_sign", "agrees", "status", "reason"]
COLUMNS = [
    *(*KEY, "program", "role", *SIZES, "genes_found", "genes_total"),
    *(*INTERVAL, "p_value", "fdr", *BESIDE, *OUTCOME),
]
SCORE_COLUMNS = [*KEY, "program", "sample", "donor", "arm", "score", "n_cells", "block", "common_se"]
GENE_COLUMNS = [*KEY, "program", "gene", "direction", "log2_change", "detected"]
DESIGN_COLUMNS = [*KEY, *SIZES, "model", "status", "reason"]

# lineages in which a programme of "immune:<name>" is tested
LINEAGES = {"T": "T", "NK": "NK", "B": "B", "DC": "DC", "mono/mac": "monocyte"}


class Programmes(Protocol):
    """What is needed of :class:`immunomod.programs.ProgramSet`."""

    def meta_for(self, organism: str) -> pd.DataFrame:
        """One row per programme: ``compartment, role, expected_sign``."""

    def weights(self, organism: str) -> pd.DataFrame:
        """Signed weights, gene symbols x programmes."""


@dataclass(frozen=True)
class ProgramEffects:
    """Tables of one contrast.

    ``effects``, ``enrichment`` over other genes, replicate-level ``scores``, per-gene ``genes`` and the ``design``s.
    ``scores`` has one row per unit of the model, with the ``block`` that pairs it; ``msc_scores`` has, for classes of
    the MSC compartment, one row per library and donor, before libraries of the same MSC donor are added up.
    """

    effects: pd.DataFrame
    enrichment: pd.DataFrame
    scores: pd.DataFrame
    msc_scores: pd.DataFrame
    genes: pd.DataFrame
    design: pd.DataFrame


@dataclass(frozen=True)
class _Fit:
    """What the errors of a class's effects are made of, for these ``rows`` of its ``table``.

    ``common`` is the variance of the effects that replicates do not show.
    """

    table: pd.DataFrame
    rows: NDArray[np.bool_]
    effects: Effects
    common: Floats


def applies_to(program_compartment: str, compartment: str, lineage: str) -> bool:
    """Whether a programme of ``program_compartment`` is tested in a class of this compartment and lineage."""
    if program_compartment == "MSC":
        return compartment == "MSC"
    if program_compartment == "both":
        return compartment in ("MSC", "immune")
    scope = program_compartment.removeprefix("immune:")
    if scope in ("all", "immune"):
        return compartment == "immune"
    return compartment == "immune" and lineage == LINEAGES.get(scope, scope)


def program_effects(
    contrast: Contrast,
    pseudobulks: Mapping[str, AnnData],
    programmes: Programmes,
    settings: ContrastSettings,
    seed: int,
) -> ProgramEffects:
    """Test every programme in every cell class that it applies to, in each data set of the contrast.

    Parameters
    ----------
    contrast
        The question.
    pseudobulks
        Data set -> :func:`immunomod.contrast.pseudobulk.pseudobulk`. The organism comes from ``obs["organism"]``, and
        is human where there is no such column.
    programmes
        The gene programmes.
    settings, seed
        Thresholds, and the seed of random gene sets and of drawn permutations.

    Notes
    -----
    ``fdr``, of effects and of enrichment, is by Benjamini and Hochberg over the tested rows of one data set and one
    role: the readouts of a contrast are one family, over all cell classes; confounders, quality controls, capacity and
    exploratory programmes are families of their own, so that they neither dilute nor borrow from the readouts.
    """
    parts: list[ProgramEffects] = []
    for dataset in contrast.datasets:
        fits: list[_Fit] = []
        stratum = pseudobulks[dataset]
        organism = organism_of(stratum)
        meta, weights = programmes.meta_for(organism), programmes.weights(organism)
        classes = stratum.obs[["cell_class", "compartment", "lineage"]].astype(str).drop_duplicates("cell_class")
        for cell_class, compartment, lineage in classes.sort_values("cell_class").itertuples(index=False):
            chosen = [
                name for name in meta.index if applies_to(str(meta.at[name, "compartment"]), compartment, lineage)
            ]
            design = _with_left_out(stratum_design(contrast, stratum.obs, cell_class, settings.min_cells), stratum)
            key = [seed, zlib.crc32(f"{contrast.name}|{dataset}|{cell_class}".encode())]
            labels = {"contrast": contrast.name, "dataset": dataset, "cell_class": cell_class}
            part, fit = _stratum(labels, design, stratum, meta.loc[chosen], weights[chosen], settings, key)
            parts.append(part)
            fits += [fit] if fit is not None else []
        _add_errors(fits, settings.confidence)
    effects = _concat([part.effects for part in parts], COLUMNS)
    enrichment = _concat([part.enrichment for part in parts], ENRICHMENT_COLUMNS)
    effects["fdr"], enrichment["fdr"] = _fdr(effects), _fdr(enrichment)
    return ProgramEffects(
        effects=effects,
        enrichment=enrichment,
        scores=_concat([part.scores for part in parts], SCORE_COLUMNS),
        msc_scores=_concat([part.msc_scores for part in parts], SCORE_COLUMNS),
        genes=_concat([part.genes for part in parts], GENE_COLUMNS),
        design=_concat([part.design for part in parts], DESIGN_COLUMNS),
    )


def _with_left_out(design: Design, stratum: AnnData) -> Design:
    """The design, its words naming the samples that failed quality control and take no part."""
    left_out = sorted(str(sample) for sample in stratum.uns.get("left_out", {}))
    if not left_out:
        return design
    note = f"left out, failed quality control: {', '.join(left_out)}"
    reason = f"{design.reason}; {note}" if design.reason else ""
    return replace(design, model="; ".join(part for part in (design.model, note) if part), reason=reason)


def _concat(tables: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True)[list(columns)] if filled else pd.DataFrame(columns=list(columns))


def _fdr(effects: pd.DataFrame) -> Floats:
    fdr = np.full(len(effects), np.nan)
    if len(effects):
        for rows in effects.groupby(["contrast", "dataset", "role"], sort=False).indices.values():
            fdr[rows] = benjamini_hochberg(effects["p_value"].to_numpy(dtype=np.float64)[rows])
    return fdr


def _stratum(
    labels: dict[str, str],
    design: Design,
    stratum: AnnData,
    meta: pd.DataFrame,
    weights: pd.DataFrame,
    settings: ContrastSettings,
    key: list[int],
) -> tuple[ProgramEffects, _Fit | None]:
    """All programmes of one data set and cell class; errors are for :func:`_add_errors` to fill in, from the fit."""
    sizes = {name: getattr(design, name) for name in SIZES}
    described = pd.DataFrame(
        [labels | sizes | {"model": design.model, "status": design.status, "reason": design.reason}]
    )
    table = pd.DataFrame({"program": meta.index, "role": meta["role"].to_numpy()}).assign(**labels, **sizes)
    table["expected_sign"] = meta["expected_sign"].to_numpy()
    table["genes_total"] = (weights != 0).sum(axis=0).reindex(meta.index).to_numpy(dtype=int)
    table[["genes_found", *ESTIMATES, "effect_raw", "fdr"]] = [0, *[np.nan] * (len(ESTIMATES) + 2)]
    table["genes_found"] = table["genes_found"].astype(int)
    table["agrees"], table["status"], table["reason"] = "", design.status, design.reason
    if not design.has_estimate or table.empty:
        empty = pd.DataFrame()
        enrichment = program_enrichment(table, design, None, empty, stratum.var_names)
        nothing = ProgramEffects(
            effects=table, enrichment=enrichment, scores=empty, msc_scores=empty, genes=empty, design=described
        )
        return nothing, None

    counts = np.asarray((design.membership @ stratum.X).todense(), dtype=np.float64)
    arms = design.units["arm"].to_numpy()
    leakage = leakage_of(stratum, design.membership)
    expression = measure_expression(counts, arms, settings.min_count, leakage)
    gene_fit = fit_linear(expression.log2, design.effect, design.nuisance)
    used = programme_weights(weights, stratum.var_names, expression.detected)
    table["genes_found"] = (used != 0).sum(axis=0).reindex(meta.index).to_numpy(dtype=int)
    enough = (table["genes_found"] >= settings.min_genes).to_numpy()
    scored = used.loc[:, used.columns.isin(table.loc[enough, "program"])].reindex(columns=table.loc[enough, "program"])
    positions = stratum.var_names.get_indexer(scored.index)
    scores = expression.log2[:, positions] @ scored.to_numpy()
    common = _common_variance(design, expression.log2_error[:, positions], scored.to_numpy())
    fit = fit_linear(scores, design.effect, design.nuisance)
    table.loc[enough, "effect"] = fit.estimate
    table.loc[enough, "null_z"] = _null_z(fit.estimate, scored, gene_fit, expression, stratum.var_names, settings, key)
    to_judge = None
    if design.status == "tested" and scores.shape[1]:
        table.loc[enough, "hedges_g"] = hedges_g(design, scores, fit)
        table.loc[enough, "p_sign_flip"] = permutation_p(design, scores, settings.max_permutations, key[1] ^ key[0])
        counting = counting_variance(expression, positions, scored.to_numpy())
        to_judge = _Fit(table, enough, Effects(fit.estimate, noise(design, scores, counting, fit)), common)
    _settle(table, enough, design, weights, used, settings)
    table["effect_raw"] = table["effect"]
    if leakage is not None and leakage.expected.any():
        table["effect_raw"] = _raw_effect(design, counts, arms, weights, stratum.var_names, settings, table)
    result = ProgramEffects(
        effects=table,
        enrichment=program_enrichment(table, design, expression, scored, stratum.var_names),
        scores=_score_table(labels, design.units, scores, scored.columns, common),
        msc_scores=_msc_scores(labels, design, stratum, scored, common, settings),
        genes=_gene_table(labels, weights, stratum.var_names, gene_fit, expression),
        design=described,
    )
    return result, to_judge


def _common_variance(design: Design, error: Floats, weights: Floats) -> Floats:
    """Variance of each programme's effect from errors that all units share; genes err independently.

    ``error`` is units x genes, ``weights`` genes x programmes.
    """
    per_gene = fit_linear(error, design.effect, design.nuisance).estimate
    return np.asarray(per_gene**2 @ weights**2)


def _raw_effect(
    design: Design,
    counts: Floats,
    arms: NDArray[np.object_],
    weights: pd.DataFrame,
    genes: pd.Index,
    settings: ContrastSettings,
    table: pd.DataFrame,
) -> Floats:
    """Effects of the counts as they are, leaked molecules included, in the order of ``table``."""
    expression = measure_expression(counts, arms, settings.min_count)
    used = programme_weights(weights, genes, expression.detected)
    scores = expression.log2[:, genes.get_indexer(used.index)] @ used.to_numpy()
    effect = pd.Series(fit_linear(scores, design.effect, design.nuisance).estimate, index=used.columns)
    effect[(used != 0).sum(axis=0) < settings.min_genes] = np.nan
    return np.asarray(effect.reindex(table["program"]), dtype=np.float64)


def _add_errors(fits: Sequence[_Fit], confidence: float) -> None:
    """Fill errors, intervals and p-values of a data set into its tables: variances are moderated over all classes.

    The variance of the effects that replicates do not show adds to that of the model, with degrees of freedom after
    Satterthwaite (1946), its own being taken for known.
    """
    if not fits:
        return
    moderation = Moderation([one.effects for one in fits])
    common = np.concatenate([one.common for one in fits])

    def errors(effects: Floats) -> tuple[Floats, Floats]:
        between, df = moderation.errors(effects)
        with np.errstate(divide="ignore", invalid="ignore"):
            df = np.where(common > 0, df * ((between + common) / between) ** 2, df)
        return between + common, np.minimum(df, MAX_DF)

    found = infer(moderation.estimate, errors, confidence)
    columns = {"se": found.se, "df": found.df, "p_value": found.p_value, "ci_low": found.low, "ci_high": found.high}
    ends = np.cumsum([len(one.common) for one in fits])[:-1]
    for name, values in columns.items():
        for one, of_class in zip(fits, np.split(values, ends), strict=True):
            one.table.loc[one.rows, name] = of_class


def noise(design: Design, scores: Floats, counting: Floats, fit: LinearFit) -> tuple[Noise, ...]:
    """What the variances of a class's effects come from.

    Pairs: their differences. Unpaired arms: each arm, with a variance of its own. Trends within donors: how much the
    donors' slopes differ. Other models (covariates, unpaired trends): the residuals. ``counting`` is the variance of
    each unit's score that counting molecules adds, units x programmes.
    """
    left = residuals(scores, design.effect, design.nuisance)
    # on the scale of a residual variance
    of_effect = cleared_regressor(design.effect, design.nuisance) ** 2 @ counting * fit.unscaled
    if design.is_paired and "value" in design.units:
        blocks = design.units["block"].to_numpy()
        of_slopes, slope_df = variance_of_slopes(scores, design.effect, design.nuisance, blocks)
        return (Noise("slopes", left, of_slopes / fit.unscaled, of_effect, slope_df, fit.unscaled),)
    if design.is_paired or "value" in design.units or design.nuisance.shape[1] > 1:
        kind = "pairs" if design.is_paired else "residuals"
        return (Noise(kind, left, fit.variance, of_effect, float(fit.df), fit.unscaled),)
    return arm_noise(scores, counting, (design.units["arm"] == TEST).to_numpy())


def hedges_g(design: Design, scores: Floats, fit: LinearFit) -> Floats:
    """Standardised mean difference with Hedges' small-sample correction; NaN for trends.

    Independent arms: difference of means over the pooled standard deviation, J(n1 + n2 - 2). Pairs: mean difference
    over the root mean square of the two arms' standard deviations, J(n - 1), so that it is on the scale of independent
    arms whatever the correlation inside pairs (Cumming's d_av). With covariates: adjusted difference over the residual
    standard deviation, J(residual df), in unpaired models.
    """
    if "value" in design.units:
        return np.full(scores.shape[1], np.nan)
    in_test = (design.units["arm"] == TEST).to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        if design.is_paired:
            n_pairs = design.n_pairs
            spread = np.sqrt((scores[in_test].var(axis=0, ddof=1) + scores[~in_test].var(axis=0, ddof=1)) / 2)
            return np.asarray(hedges_correction(n_pairs - 1) * fit.estimate / spread)
        return np.asarray(hedges_correction(fit.df) * fit.estimate / np.sqrt(fit.variance))


def permutation_p(design: Design, scores: Floats, max_permutations: int, seed: int) -> Floats:
    """Exact p that trusts exchangeability alone; NaN where the design has no exact permutation.

    Pairs: sign flips of the differences between a block's arm means (for a trend, of each block's slope). Independent
    arms without covariates: exchanges of the arms' labels.
    """
    if design.is_paired:
        return sign_flip_p(block_effects(design, scores), max_permutations, seed)
    if "value" in design.units or design.nuisance.shape[1] > 1:
        return np.full(scores.shape[1], np.nan)
    return relabelling_p(scores, (design.units["arm"] == TEST).to_numpy(), max_permutations, seed)


def block_effects(design: Design, scores: Floats) -> Floats:
    """The effect inside each block (difference of arm means, or slope): blocks x programmes."""
    rows = []
    for members in design.units.groupby("block", sort=False).indices.values():
        effect = design.effect[members] - design.effect[members].mean()
        rows.append(effect @ scores[members] / (effect @ effect))
    return np.array(rows)


def _null_z(
    effects: Floats,
    used: pd.DataFrame,
    gene_fit: LinearFit,
    expression: Expression,
    genes: pd.Index,
    settings: ContrastSettings,
    key: list[int],
) -> Floats:
    """How far each effect lies from those of random sets of like genes, in standard deviations of the latter.

    Every gene of the programme is replaced by a random detected gene from outside of it, among the
    ``MATCHES`` closest in expression of the same detection stratum (seen in every unit, or not), keeping its weight.
    A control, not a p-value: real programmes are correlated, random sets are not.
    """
    pool = np.flatnonzero(expression.detected)
    names = genes[pool]
    # sorted by detection stratum, expression and name, so that the order of the matrix has no say
    everywhere = expression.share_nonzero[pool] >= 1
    order = np.lexsort((names.to_numpy(dtype=str), expression.abundance[pool], everywhere))
    pool, names = pool[order], names[order]
    change = gene_fit.estimate[pool]
    result = np.full(used.shape[1], np.nan)
    for column, program in enumerate(used.columns):
        weights = used[program].to_numpy()
        members = used.index[weights != 0]
        outside = np.flatnonzero(~names.isin(members))
        if len(outside) < MATCHES:
            continue
        rng = np.random.default_rng([*key, zlib.crc32(str(program).encode())])
        at = np.searchsorted(outside, names.get_indexer(members))
        start = np.clip(at - MATCHES // 2, 0, len(outside) - MATCHES)
        drawn = outside[start + rng.integers(0, MATCHES, size=(settings.n_random_sets, len(members)))]
        null = change[drawn] @ weights[weights != 0]
        spread = null.std(ddof=1)
        result[column] = (effects[column] - null.mean()) / spread if spread > 0 else np.nan
    return result


MATCHES = 50
MAX_DF = 1e6


def _settle(
    table: pd.DataFrame,
    enough: NDArray[np.bool_],
    design: Design,
    weights: pd.DataFrame,
    used: pd.DataFrame,
    settings: ContrastSettings,
) -> None:
    """Fill what follows from the estimates: raw effect, agreement with the expected sign, low coverage."""
    expected = table["expected_sign"].map({"+": 1.0, "-": -1.0})
    judged = expected.notna() & table["effect"].notna()
    table.loc[judged, "agrees"] = np.where(np.sign(table["effect"]) == expected, "yes", "no")[judged]
    for row in np.flatnonzero(~enough):
        program = str(table.at[row, "program"])
        detected = list(used.index[used[program] != 0])
        found = f"{len(detected)} of {int(table['genes_total'].iloc[row])} genes detected"
        found += f" ({', '.join(detected)})" if detected else ""
        reason = f"{found}, fewer than {settings.min_genes}"
        if design.status == "tested":
            table.loc[row, ["status", "reason"]] = ["low_coverage", reason]
        else:
            table.loc[row, "reason"] = f"{design.reason}; {reason}"


def _score_table(
    labels: dict[str, str], units: pd.DataFrame, scores: Floats, programs: pd.Index, common: Floats
) -> pd.DataFrame:
    """One row per programme and unit; ``common_se``: error of the programme's effect that all units share (leakage)."""
    described = units[["sample", "donor", "arm", "n_cells", "block"]]
    tables = [
        described.assign(program=program, score=scores[:, column], common_se=np.sqrt(common[column]))
        for column, program in enumerate(programs)
    ]
    return pd.concat(tables, ignore_index=True).assign(**labels) if tables else pd.DataFrame()


def _msc_scores(
    labels: dict[str, str],
    design: Design,
    stratum: AnnData,
    scored: pd.DataFrame,
    common: Floats,
    settings: ContrastSettings,
) -> pd.DataFrame:
    """Scores of single libraries of MSC, over the genes that the model's units detect; empty for other cells.

    A unit of the model is all that an MSC donor has in an arm; how far a donor's cultures agree is told by its
    libraries. Those with too few cells are left out.
    """
    unit, row = design.membership.nonzero()
    rows = stratum.obs.iloc[row]
    kept = ((rows["compartment"].astype(str) == "MSC") & (rows["n_cells"] >= settings.min_cells)).to_numpy()
    if not kept.any() or scored.empty:
        return pd.DataFrame()
    unit, row, rows = unit[kept], row[kept], rows[kept]
    single = sparse.csr_matrix((np.ones(len(row)), (np.arange(len(row)), row)), shape=(len(row), stratum.n_obs))
    counts = np.asarray((single @ stratum.X).todense(), dtype=np.float64)
    arms = design.units["arm"].to_numpy()[unit]
    expression = measure_expression(counts, arms, settings.min_count, leakage_of(stratum, single))
    scores = expression.log2[:, stratum.var_names.get_indexer(scored.index)] @ scored.to_numpy()
    units = rows[["sample", "donor", "n_cells"]].assign(arm=arms, block=design.units["block"].to_numpy()[unit])
    return _score_table(labels, units.reset_index(drop=True), scores, scored.columns, common)


def _gene_table(
    labels: dict[str, Any], weights: pd.DataFrame, genes: pd.Index, fit: LinearFit, expression: Expression
) -> pd.DataFrame:
    """Every gene of every programme, with its log2 change where the data set lists it."""
    rows, columns = np.nonzero(weights.to_numpy().T)
    entries = pd.DataFrame(
        {
            "program": weights.columns[rows],
            "gene": weights.index[columns],
            "weight": weights.to_numpy()[columns, rows],
        }
    )
    at = genes.get_indexer(pd.Index(entries["gene"]))
    change = np.where(at >= 0, fit.estimate[at], np.nan)
    return entries.assign(
        **labels,
        direction=np.where(entries["weight"] > 0, "+", "-"),
        log2_change=change,
        detected=(at >= 0) & expression.detected[at],
    )
