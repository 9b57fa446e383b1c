"""From a row of ``contrasts.tsv`` to a linear model for one data set and cell class, or to the words why there is none.

The choices below depend on the design alone, never on expression:

*Units.* A replicate is one donor in one sample; libraries of the same donor and arm are one unit, their counts added
up. A unit with fewer than ``min_cells`` cells of the class is left out and counted. Where no donor is named, the
sample is the unit. The MSC of a co-culture have a donor of their own: for cell classes of the MSC compartment, with
``pair_by`` at its default, ``msc_donor`` takes the place of ``donor`` if it is filled in for every unit and at least
two MSC donors are in both arms.

*Reference.* With several reference levels (MSC alone and immune cells alone), a class takes its control from those
that contain it: levels where its share of the cells is at least a tenth of its share in the level where it is most
frequent. The rest hold misassigned cells.

*Pairing.* Blocks (``pair_by``) present in both arms are complete. With two or more complete blocks that hold at least
half of the units, the model is paired: one mean per block, and incomplete blocks, which carry no information then, are
left out. Otherwise the arms are compared as independent groups; the donor variance then stays in the error, which is
honest, and costs power only.

*Confounding.* The effect must not lie in the span of blocks and covariates. Covariates that are constant inside
complete blocks are absorbed by them. A ``batch`` column counts without being named as a covariate where all test units
were processed in one batch and all reference units in another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from immunomod.contrast.where import evaluate_where, is_level
from immunomod.errors import UserError

Floats = NDArray[np.float64]

MIN_SHARE_OF_REFERENCE = 0.1
MIN_REPLICATES = 2
TEST, REFERENCE = "test", "reference"


@dataclass(frozen=True)
class Contrast:
    """One question: a row of ``contrasts.tsv``. ``test`` and ``reference`` are empty for a trend."""

    name: str
    datasets: tuple[str, ...]
    variable: str
    test: tuple[str, ...] = ()
    reference: tuple[str, ...] = ()
    pair_by: str = "donor"
    where: str = ""
    covariates: tuple[str, ...] = ()

    @classmethod
    def from_row(cls, row: Mapping[str, str]) -> Contrast:
        """Read a row of the sheet; absent and empty columns take their defaults."""

        def parts(column: str) -> tuple[str, ...]:
            return tuple(part.strip() for part in (row.get(column) or "").split(",") if part.strip())

        contrast = cls(
            name=row["contrast"],
            datasets=parts("dataset"),
            variable=row["variable"],
            test=parts("test"),
            reference=parts("reference"),
            pair_by=row.get("pair_by") or "donor",
            where=row.get("where") or "",
            covariates=parts("covariates"),
        )
        if bool(contrast.test) != bool(contrast.reference):
            raise UserError(
                f"contrast {contrast.name!r}: test and reference must both name levels of {contrast.variable!r}, or "
                "both be empty for a trend."
            )
        return contrast

    @property
    def is_trend(self) -> bool:
        """Whether the effect is a slope along a numeric variable (dose, time)."""
        return not self.test


@dataclass(frozen=True)
class Design:
    """What is compared in one data set and cell class.

    Attributes
    ----------
    status, reason, model
        ``tested``, ``unreplicated``, ``too_few_cells``, ``confounded`` or ``absent``; why; the model. In words.
    units
        One row per unit in the model: ``replicate, block, arm`` (for a trend ``value``), ``sample, donor`` (joined by
        ``+`` where libraries were added up), ``n_cells``.
    membership
        Units x rows of the pseudobulk, 1 where a row belongs to a unit.
    effect, nuisance
        Columns of the design: the effect's regressor (test 0.5, reference -0.5; for a trend the value) and an
        independent set of the others (blocks or intercept, covariates). Empty where no estimate is possible.
    is_paired
        Whether blocks are in the model.
    """

    status: str
    reason: str
    model: str
    units: pd.DataFrame
    membership: sparse.csr_matrix
    effect: Floats
    nuisance: Floats
    is_paired: bool
    n_test: int
    n_reference: int
    n_pairs: int
    cells_test: int
    cells_reference: int

    @property
    def has_estimate(self) -> bool:
        """Whether a point estimate of the effect exists."""
        return len(self.effect) > 0

    @property
    def residual_df(self) -> int:
        """Residual degrees of freedom."""
        return len(self.effect) - self.nuisance.shape[1] - 1 if self.has_estimate else 0

    def sides(self, contrast: Contrast) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Units of the test arm and of the reference arm; for a trend those above the lowest value and those at it."""
        return _sides(contrast, self.units)


def donor_slopes(design: Design) -> tuple[sparse.csr_matrix, Floats, Floats] | None:
    """A trend within donors as pairs: the analysis of summary measures (Matthews et al., BMJ 1990, 300:230).

    Donors respond to a dose to different degrees. The residuals of one common slope hold that only in part, and with
    more degrees of freedom than donors; of pairs they hold all of it. So each donor becomes two rows, its mean half its
    slope up and half down, which a model of pairs compares.

    Returns
    -------
    A matrix (rows x units) to multiply responses by, and the columns of the design of these rows: the effect's
    regressor and a mean per donor. None for a design that is no trend within donors, has covariates, or takes two
    values only, where the units are such pairs.
    """
    if not (design.is_paired and "value" in design.units and design.has_estimate):
        return None
    block, value = design.units["block"].to_numpy(), design.units["value"].to_numpy(dtype=np.float64)
    names = np.unique(block)
    if design.nuisance.shape[1] != len(names) or len(np.unique(value)) < 3:
        return None
    member = (block == names[:, None]).astype(np.float64)
    mean = member / member.sum(axis=1, keepdims=True)
    centred = member * (value - (mean @ value)[:, None])
    slope = centred / (centred**2).sum(axis=1, keepdims=True)
    rows = sparse.csr_matrix(np.concatenate([mean + slope / 2, mean - slope / 2]))
    return rows, np.repeat([0.5, -0.5], len(names)), np.tile(np.eye(len(names)), (2, 1))


def stratum_design(contrast: Contrast, replicates: pd.DataFrame, cell_class: str, min_cells: int) -> Design:
    """Lay out the comparison for one cell class.

    Parameters
    ----------
    contrast
        The question.
    replicates
        ``obs`` of the data set's pseudobulk, all cell classes.
    cell_class
        The class.
    min_cells
        Units with fewer cells are left out.

    Raises
    ------
    UserError
        A column that the contrast names is missing, or a trend's variable holds no numbers.
    """
    _check_columns(contrast, replicates)
    arms = _arms(contrast, replicates)
    of_class = (replicates["cell_class"].astype(str) == cell_class).to_numpy() & (arms != "")
    notes: list[str] = []
    if not contrast.is_trend:
        of_class, levels = _containing_references(contrast, replicates, arms, of_class, cell_class)
        if levels:
            notes.append(f"reference taken from {', '.join(levels)}, where the class occurs")
    contrast = _with_msc_donors(contrast, replicates[of_class], arms[of_class])
    units, membership = _units(contrast, replicates, arms, of_class)
    enough = (units["n_cells"] >= min_cells).to_numpy()
    kept, kept_membership = units[enough], membership[np.flatnonzero(enough)]
    if (~enough).any():
        notes.append(f"{_count((~enough).sum(), 'replicate')} with fewer than {min_cells} cells left out")
    design = _layout(contrast, kept, kept_membership, notes)
    if design.status != "unreplicated":
        return design
    absent = _absence(contrast, units, cell_class)
    if absent:
        return replace(design, status="absent", reason=absent)
    loses_an_arm = not design.has_estimate and _layout(contrast, units, membership, []).has_estimate
    if loses_an_arm or _layout(contrast, units, membership, []).status != "unreplicated":
        few = f"{_count((~enough).sum(), 'replicate')} of {len(units)} with fewer than {min_cells} cells"
        return replace(design, status="too_few_cells", reason=f"{few}; {design.reason}")
    return design


def _check_columns(contrast: Contrast, replicates: pd.DataFrame) -> None:
    for name in (contrast.variable, contrast.pair_by, *contrast.covariates):
        if name not in replicates:
            raise UserError(
                f"contrast {contrast.name!r} names the column {name!r}, which the samples lack or which varies "
                f"inside a replicate. There are {', '.join(map(str, replicates.columns))}."
            )


def _arms(contrast: Contrast, replicates: pd.DataFrame) -> NDArray[np.object_]:
    """``test`` or ``reference`` (for a trend the value as text), empty for rows that are outside the question."""
    values = replicates[contrast.variable]
    arms = np.full(len(replicates), "", dtype=object)
    if contrast.is_trend:
        numbers = pd.to_numeric(values.astype(str), errors="coerce")
        faulty = values[numbers.isna().to_numpy() & (values.astype(str) != "").to_numpy()]
        if len(faulty):
            raise UserError(
                f"contrast {contrast.name!r} asks for a trend along {contrast.variable!r}, which holds "
                f"{faulty.iloc[0]!r}, no number. Name the levels to compare in test and reference."
            )
        known = numbers.notna().to_numpy()
        arms[known] = [repr(float(number)) for number in numbers[known]]
    else:
        arms[is_level(values, list(contrast.reference))] = REFERENCE
        arms[is_level(values, list(contrast.test))] = TEST
    arms[~evaluate_where(contrast.where, replicates)] = ""
    return arms


def _containing_references(
    contrast: Contrast,
    replicates: pd.DataFrame,
    arms: NDArray[np.object_],
    of_class: NDArray[np.bool_],
    cell_class: str,
) -> tuple[NDArray[np.bool_], list[str]]:
    """Drop reference levels that do not contain the class; also the levels kept, if any was dropped."""
    if len(contrast.reference) < 2:
        return of_class, []
    shares = {}
    for level in contrast.reference:
        in_level = is_level(replicates[contrast.variable], [level]) & (arms == REFERENCE)
        total = replicates.loc[in_level, "n_cells"].sum()
        shares[level] = replicates.loc[in_level & of_class, "n_cells"].sum() / total if total else 0.0
    largest = max(shares.values())
    kept = [level for level, share in shares.items() if share > 0 and share >= MIN_SHARE_OF_REFERENCE * largest]
    if not kept or len(kept) == len(contrast.reference):
        return of_class, []
    dropped = (arms == REFERENCE) & ~is_level(replicates[contrast.variable], kept)
    return of_class & ~dropped, kept


def _units(
    contrast: Contrast, replicates: pd.DataFrame, arms: NDArray[np.object_], chosen: NDArray[np.bool_]
) -> tuple[pd.DataFrame, sparse.csr_matrix]:
    """One unit per replicate and arm, with the rows of the pseudobulk that belong to it."""
    rows = replicates[chosen].astype(dict.fromkeys(("sample", "donor", contrast.pair_by), str))
    arm = arms[chosen]
    replicate = rows["donor"].where(rows["donor"] != "", rows["sample"])
    block = rows[contrast.pair_by]
    if contrast.pair_by == "msc_donor" and _is_msc(rows):
        replicate = block.where(block != "", replicate)
    block = block.where(block != "", "unpaired:" + rows["sample"] + ":" + replicate)
    table = pd.DataFrame(
        {
            "replicate": replicate,
            "block": block,
            "arm": arm,
            "sample": rows["sample"],
            "donor": rows["donor"],
            "n_cells": rows["n_cells"].astype(int),
        }
    )
    extra = [name for name in dict.fromkeys([*contrast.covariates, "batch"]) if name in rows]
    measured = [name for name in extra if pd.api.types.is_numeric_dtype(rows[name])]
    for name in extra:
        table[f"covariate:{name}"] = rows[name] if name in measured else rows[name].astype(str)
    table["row"] = np.flatnonzero(chosen)
    table = table.sort_values(["block", "replicate", "sample", "donor", "arm"], kind="stable")
    grouped = table.groupby(["block", "replicate", "arm"], sort=False)
    texts = [f"covariate:{name}" for name in extra if name not in measured]
    join = {name: (name, _joined) for name in ("sample", "donor", *texts)}
    units = grouped.agg(n_cells=("n_cells", "sum"), **join).reset_index()
    numbers = grouped.ngroup().to_numpy()
    for name in (f"covariate:{name}" for name in measured):
        units[name] = _mean_over_cells(table[name], table["n_cells"], numbers, len(units))
    membership = sparse.csr_matrix(
        (np.ones(len(table)), (numbers, table["row"].to_numpy())), shape=(len(units), len(replicates))
    )
    if contrast.is_trend:
        units["value"] = units["arm"].astype(float)
    return units, membership


def _with_msc_donors(contrast: Contrast, rows: pd.DataFrame, arm: NDArray[np.object_]) -> Contrast:
    """The contrast paired by ``msc_donor`` where the rows are MSC and their own donors are known and in both arms."""
    if contrast.pair_by != "donor" or "msc_donor" not in rows or not _is_msc(rows):
        return contrast
    lines = rows["msc_donor"].astype(str)
    in_both = set(lines[arm == TEST]) & set(lines[arm == REFERENCE])
    if (lines == "").any() or len(in_both) < MIN_REPLICATES:
        return contrast
    return replace(contrast, pair_by="msc_donor")


def _is_msc(rows: pd.DataFrame) -> bool:
    return "compartment" in rows and bool((rows["compartment"].astype(str) == "MSC").all())


def _joined(values: pd.Series) -> str:
    return "+".join(dict.fromkeys(values))


def _mean_over_cells(values: pd.Series, n_cells: pd.Series, unit: NDArray[np.integer], n_units: int) -> Floats:
    """Mean of a measured covariate over the cells of each unit; NaN where it was measured in none of its rows."""
    weight = n_cells.to_numpy(dtype=np.float64) * values.notna().to_numpy()
    total = np.bincount(unit, weights=weight * values.fillna(0).to_numpy(dtype=np.float64), minlength=n_units)
    cells = np.bincount(unit, weights=weight, minlength=n_units)
    return np.asarray(np.divide(total, cells, out=np.full(n_units, np.nan), where=cells > 0))


def _layout(contrast: Contrast, units: pd.DataFrame, membership: sparse.csr_matrix, notes: list[str]) -> Design:
    """Choose paired or unpaired, build the columns and check them."""
    notes = list(notes)
    varies = (
        units.groupby("block")["arm"].transform("nunique").to_numpy() > 1 if len(units) else np.zeros(0, dtype=bool)
    )
    n_blocks = units.loc[varies, "block"].nunique()
    is_paired = bool(n_blocks >= MIN_REPLICATES and 2 * varies.sum() >= len(units))
    if is_paired and not varies.all():
        notes.append(f"{_count((~varies).sum(), 'replicate')} without a partner left out")
        units, membership = units[varies], membership[np.flatnonzero(varies)]
    units = units.reset_index(drop=True)
    in_test, in_reference = _sides(contrast, units)
    design = Design(
        status="unreplicated",
        reason="",
        model="",
        units=units,
        membership=membership,
        effect=np.zeros(0),
        nuisance=np.zeros((0, 0)),
        is_paired=is_paired,
        n_test=int(in_test.sum()),
        n_reference=int(in_reference.sum()),
        n_pairs=int(n_blocks) if is_paired else 0,
        cells_test=int(units.loc[in_test, "n_cells"].sum()),
        cells_reference=int(units.loc[in_reference, "n_cells"].sum()),
    )
    reason = _lacking_replication(contrast, design)
    if not (in_test.any() and in_reference.any()):
        return replace(design, reason=reason, model=_words(contrast, design, (), notes))
    effect = units["value"].to_numpy() if contrast.is_trend else np.where(in_test, 0.5, -0.5)
    nuisance, used, absorbed = _nuisance(contrast, units, is_paired)
    if absorbed:
        notes.append(f"{', '.join(absorbed)} absorbed by the other terms")
    # a single test and reference unit have an estimate, without covariates that would use it up
    if reason and _is_spanned(effect, nuisance):
        nuisance, used = np.ones((len(units), 1)), ()
    design = replace(design, effect=effect, nuisance=nuisance, model=_words(contrast, design, used, notes))
    if reason:
        return replace(design, reason=reason)
    if _is_spanned(effect, nuisance):
        reason = _collinear(contrast, design)
        return replace(design, status="confounded", reason=reason, effect=np.zeros(0), nuisance=np.zeros((0, 0)))
    reason = _batch_per_arm(contrast, design)
    if reason:
        return replace(design, status="confounded", reason=reason)
    if design.residual_df < 1:
        return replace(design, reason="no residual degree of freedom is left by the terms of the model")
    return replace(design, status="tested")


def _sides(contrast: Contrast, units: pd.DataFrame) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Units of the test arm and of the reference arm; for a trend those above the lowest value and those at it."""
    if contrast.is_trend:
        values = units["value"].to_numpy()
        in_reference = values == values.min() if len(values) else np.zeros(0, dtype=bool)
        return ~in_reference, in_reference
    return (units["arm"] == TEST).to_numpy(), (units["arm"] == REFERENCE).to_numpy()


def _lacking_replication(contrast: Contrast, design: Design) -> str:
    """Why the effect cannot be tested; empty where it can."""
    if design.is_paired:
        return ""
    if contrast.is_trend:
        values, donors = design.units["value"].nunique(), design.units["replicate"].nunique()
        if values < 2:
            return f"{contrast.variable} takes {_count(values, 'value')}, and a trend needs two"
        if donors < MIN_REPLICATES or len(design.units) < 3:
            return f"{_count(donors, 'donor')}: cells are not replicates, and a trend needs 2 donors and 3 replicates"
        return ""
    for n, side, levels in (
        (design.n_test, TEST, contrast.test),
        (design.n_reference, REFERENCE, contrast.reference),
    ):
        if n < MIN_REPLICATES:
            return (
                f"{_count(n, 'replicate')} in the {side} arm ({', '.join(levels)}): cells are not replicates, and a "
                f"test needs {MIN_REPLICATES} in each arm"
            )
    return ""


def _absence(contrast: Contrast, units: pd.DataFrame, cell_class: str) -> str:
    if units.empty:
        return f"no sample of the contrast holds a cell of class {cell_class}"
    if contrast.is_trend:
        return ""
    for side, levels in ((TEST, contrast.test), (REFERENCE, contrast.reference)):
        if not (units["arm"] == side).any():
            return f"no {side} sample ({', '.join(levels)}) holds a cell of class {cell_class}"
    return ""


# formulaic would write these columns, but a covariate that blocks span (every one that is constant in a donor) must be
# found numerically and named all the same, and an unknown number or an empty level keeps its unit
def _nuisance(contrast: Contrast, units: pd.DataFrame, is_paired: bool) -> tuple[Floats, tuple[str, ...], list[str]]:
    """Independent columns beside the effect's, the covariates among them, and the covariates that add nothing."""
    base = _indicators(units["block"]) if is_paired else np.ones((len(units), 1))
    used: list[str] = []
    absorbed: list[str] = []
    columns = base
    for name in contrast.covariates:
        added = _independent(columns, _covariate(units[f"covariate:{name}"]))
        (used if added.shape[1] else absorbed).append(name)
        columns = np.column_stack([columns, added])
    return columns, tuple(used), absorbed


def _indicators(labels: pd.Series) -> Floats:
    return np.asarray(pd.get_dummies(labels).to_numpy(dtype=np.float64))


def _covariate(values: pd.Series) -> Floats:
    """One centred column for numbers, else indicators; an empty field is a level of its own.

    A measured covariate that is unknown in some units takes its mean there, and says nothing if it is in all.
    """
    if pd.api.types.is_numeric_dtype(values):
        return np.asarray((values - values.mean()).fillna(0.0).to_numpy(dtype=np.float64)[:, None])
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers.notna().all():
        return np.asarray((numbers - numbers.mean()).to_numpy(dtype=np.float64)[:, None])
    return _indicators(values)


def _independent(columns: Floats, added: Floats) -> Floats:
    """Those of the columns ``added`` that no combination of ``columns`` and their predecessors gives."""
    kept = columns
    for column in added.T:
        if not _is_spanned(column, kept):
            kept = np.column_stack([kept, column])
    return kept[:, columns.shape[1] :]


def _is_spanned(column: Floats, columns: Floats) -> bool:
    residual = column - columns @ np.linalg.lstsq(columns, column, rcond=None)[0]
    return bool(np.linalg.norm(residual) <= 1e-8 * max(1.0, float(np.linalg.norm(column))))


def _collinear(contrast: Contrast, design: Design) -> str:
    """The covariate that the effect cannot be told from, in words."""
    units = design.units
    base = _indicators(units["block"]) if design.is_paired else np.ones((len(units), 1))
    alone = [
        name
        for name in contrast.covariates
        if _is_spanned(design.effect, np.column_stack([base, _covariate(units[f"covariate:{name}"])]))
    ]
    names = " and ".join(alone[:1] or contrast.covariates)
    return f"the effect of {contrast.variable} cannot be told from that of {names}: they change together"


def _batch_per_arm(contrast: Contrast, design: Design) -> str:
    """In words, that each arm is a batch of its own; empty where that is not so."""
    units = design.units
    if contrast.is_trend or "covariate:batch" not in units:
        return ""
    in_test, in_reference = _sides(contrast, units)
    batches, other = set(units.loc[in_test, "covariate:batch"]), set(units.loc[in_reference, "covariate:batch"])
    if len(batches) == len(other) == 1 and batches != other and "" not in batches | other:
        return (
            f"all test replicates were processed in batch {batches.pop()!r} and all reference replicates in batch "
            f"{other.pop()!r}: the effect of {contrast.variable} cannot be told from that of the batch"
        )
    return ""


def _words(contrast: Contrast, design: Design, covariates: tuple[str, ...], notes: list[str]) -> str:
    terms = [*([contrast.pair_by] if design.is_paired else []), *covariates, contrast.variable]
    formula = f"score ~ {' + '.join(terms)}"
    if contrast.is_trend:
        size = f"{_count(len(design.units), 'replicate')}, slope per unit of {contrast.variable}"
        size += f", {_count(design.n_pairs, 'donor')} with a slope each" if design.is_paired else ""
    elif design.is_paired:
        size = f"{_count(design.n_pairs, 'pair')}"
    else:
        size = f"{design.n_test} test against {design.n_reference} reference replicates"
    kind = "paired" if design.is_paired else "unpaired"
    return "; ".join([f"{kind}: {formula}; {size}", *notes])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
