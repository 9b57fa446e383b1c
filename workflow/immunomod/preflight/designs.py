"""What the sheets say of every comparison before any cell is read: arms, donors, pairs, rank and confounding.

The design that a test would use is laid out by :mod:`immunomod.contrast.design` itself, on replicates made from the
sheet: one per sample and donor, in the classes that its culture can hold. So nothing here can differ from what the run
would do, except where too few cells of a class are found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from immunomod.contrast.design import Contrast, Design, stratum_design
from immunomod.contrast.where import evaluate_where, is_level
from immunomod.errors import Problem, Severity
from immunomod.sample.demultiplex.names import sheet_donors
from immunomod.sample.settings import SHEET_LIMITS
from immunomod.sample.states import REPLICATE_MEANS
from immunomod.settings import Run

#: Cell classes that stand for a compartment, by the culture that holds them; a culture not named may hold any.
CLASSES = {"msc": ("MSC",), "immune": ("immune",), "coculture": ("MSC", "immune"), "": ("MSC", "immune")}
ANY_CLASS = "all cells"
#: Columns that say where files are, or what the design knows already.
NO_COVARIATES = frozenset(
    {"sample", "dataset", "source", "files", "cells", "cells_lane", "barcodes", "hashtags", "guessed"}
    | {"condition", "donor", "culture", "stimulus", "msc_donor", "organism", "dose"}
    | set(SHEET_LIMITS)
)
RESTING = frozenset({"none", "no", "resting", "unstimulated", "rest", "-"})
FEWEST_TREND_LEVELS = 3


@dataclass(frozen=True)
class Comparison:
    """What one contrast compares in one data set and class of cells."""

    contrast: str
    dataset: str
    cell_class: str
    design: Design

    def in_words(self) -> str:
        """Replicates and pairs, for the summary."""
        design = self.design
        size = f"{design.n_test} test, {design.n_reference} reference replicates"
        size += f", {design.n_pairs} pairs" if design.is_paired else ", unpaired"
        return size if design.status == "tested" else f"{size}: {design.status}"


@dataclass(frozen=True)
class Designs:
    """Every comparison, what is wrong with them, and what only a per-cell table can tell."""

    comparisons: tuple[Comparison, ...]
    problems: tuple[Problem, ...]
    unknown: tuple[str, ...]


def examine_designs(run: Run, donors: Mapping[str, Sequence[str]]) -> Designs:
    """Lay out every contrast in every data set.

    Parameters
    ----------
    run
        The study; contrasts that cannot be read are not among its contrasts.
    donors
        Donors of the samples whose per-cell table names them.
    """
    comparisons: list[Comparison] = []
    problems: list[Problem] = []
    unknown: list[str] = []
    donors = dict(donors) | _hashtag_donors(run.samples)
    for number, row in run.contrasts.iterrows():
        contrast = Contrast.from_row({str(key): str(value) for key, value in row.items()})
        place = _Place(run.config["contrasts"], int(str(number)))
        problems += _mixed_organisms(contrast, run, place)
        for dataset in contrast.datasets:
            rows = _samples(contrast, run.samples[run.samples["dataset"] == dataset])
            if rows.empty:
                continue
            nameless = rows.loc[(rows["donor"] == "") & ~rows["sample"].isin(list(donors)), "sample"]
            if len(nameless):
                unknown.append(f"replicates of {contrast.name} in {dataset}: donors stand in the per-cell table")
                continue
            found = _compare(contrast, dataset, rows, donors, run.config["contrast"]["min_cells"])
            comparisons += found
            is_lenient = bool(run.config["contrast"]["allow_unreplicated"])
            problems += _untestable(contrast, found, place, is_lenient)
            problems += _doubts(contrast, dataset, rows, found, donors, place)
    return Designs(tuple(comparisons), tuple(dict.fromkeys(problems)), tuple(unknown))


@dataclass(frozen=True)
class _Place:
    """A row of the contrasts sheet."""

    file: str
    row: int

    def problem(self, column: str, problem: str, fix: str) -> Problem:
        """An error that the results report in words, too."""
        return Problem(self.file, problem, fix, self.row, column, stops_run=False)

    def warning(self, column: str, problem: str, fix: str) -> Problem:
        """Something to know."""
        return Problem(self.file, problem, fix, self.row, column, Severity.WARNING)


def _hashtag_donors(samples: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Donors of the samples whose hashtags name them."""
    if "hashtags" not in samples:
        return {}
    tagged = samples[samples["hashtags"] != ""]
    found = {row["sample"]: sheet_donors(row["hashtags"], row["donor"]) for _, row in tagged.iterrows()}
    return {sample: donors for sample, donors in found.items() if donors}


def _samples(contrast: Contrast, rows: pd.DataFrame) -> pd.DataFrame:
    """Samples of the question, with their ``arm``: test or reference, empty for a trend."""
    rows = rows[evaluate_where(contrast.where, rows)]
    if contrast.is_trend:
        return rows[rows[contrast.variable] != ""].assign(arm="")
    arm = pd.Series("", index=rows.index)
    arm[is_level(rows[contrast.variable], list(contrast.reference))] = "reference"
    arm[is_level(rows[contrast.variable], list(contrast.test))] = "test"
    return rows.assign(arm=arm)[arm != ""]


def _compare(
    contrast: Contrast, dataset: str, rows: pd.DataFrame, donors: Mapping[str, Sequence[str]], min_cells: int
) -> list[Comparison]:
    replicates = _replicates(rows, donors, min_cells)
    classes = list(dict.fromkeys(replicates["cell_class"]))
    designs = {name: stratum_design(contrast, replicates, name, min_cells) for name in classes}
    present = {name: design for name, design in designs.items() if design.status != "absent"}
    return [Comparison(contrast.name, dataset, name, design) for name, design in (present or designs).items()]


def _replicates(rows: pd.DataFrame, donors: Mapping[str, Sequence[str]], n_cells: int) -> pd.DataFrame:
    """One row per sample, donor and class that the sample's culture can hold, with as many cells as a test needs.

    What will be measured in the cells is not known yet: random numbers take its place, which use up as many degrees of
    freedom and change together with nothing.
    """
    no_culture = bool((rows["culture"] == "").all())
    records = [
        row.to_dict() | {"donor": donor, "cell_class": name, "compartment": name, "n_cells": n_cells}
        for _, row in rows.iterrows()
        for donor in _donors(row, donors)
        for name in ((ANY_CLASS,) if no_culture else CLASSES.get(row["culture"], CLASSES[""]))
    ]
    measured = np.random.default_rng(0).normal(size=(len(records), len(REPLICATE_MEANS)))
    return pd.DataFrame(records).assign(**dict(zip(REPLICATE_MEANS, measured.T, strict=True)))


def _donors(row: pd.Series, donors: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """Donors of a sample: by its hashtags, else the row's, else those of its per-cell table."""
    if row["donor"] and not (row.get("hashtags", "") and row["sample"] in donors):
        return [str(row["donor"])]
    return donors[row["sample"]]


def _untestable(contrast: Contrast, found: Iterable[Comparison], place: _Place, is_lenient: bool) -> list[Problem]:
    """Comparisons without a p-value: an error where nothing of the data set can be tested."""
    lacking = [one for one in found if one.design.status != "tested"]
    is_hopeless = len(lacking) == len(list(found)) and not is_lenient
    problems: dict[tuple[str, str], list[str]] = {}
    for one in lacking:
        problems.setdefault((one.design.status, one.design.reason), []).append(one.cell_class)
    result = []
    for (status, reason), classes in problems.items():
        dataset = lacking[0].dataset
        what = "" if classes == [ANY_CLASS] else f" ({' and '.join(classes)})"
        column, fix = _remedy(contrast, status, reason)
        report = place.problem if is_hopeless else place.warning
        result.append(report(column, f"data set {dataset!r}{what} is {status}: {reason}", fix))
    return result


def _remedy(contrast: Contrast, status: str, reason: str) -> tuple[str, str]:
    if status == "confounded" and "batch" in reason and "batch" not in contrast.covariates:
        return "variable", "process samples of both arms in each batch; no analysis can mend it afterwards"
    if status == "confounded":
        return "covariates", "take the covariate out, or compare samples in which the two vary apart"
    if "degree of freedom" in reason:
        return "covariates", "take covariates out, or add donors"
    return ("variable" if contrast.is_trend else "test"), "add donors; estimates come without p-values"


def _doubts(
    contrast: Contrast,
    dataset: str,
    rows: pd.DataFrame,
    found: Sequence[Comparison],
    donors: Mapping[str, Sequence[str]],
    place: _Place,
) -> list[Problem]:
    problems = _idle_covariates(contrast, dataset, rows, place)
    if contrast.is_trend:
        values = pd.to_numeric(rows[contrast.variable], errors="coerce").nunique()
        if values < FEWEST_TREND_LEVELS:
            problem = (
                f"{contrast.variable} takes {values} values in data set {dataset!r}: a line through them has no shape"
            )
            problems.append(place.warning("variable", problem, "add a level, or compare the two in test and reference"))
    else:
        problems += _pairing(contrast, dataset, rows, found, place)
        problems += _stimulus(contrast, dataset, rows, place)
    return problems + _hidden_confounders(contrast, dataset, rows, found, donors, place)


def _idle_covariates(contrast: Contrast, dataset: str, rows: pd.DataFrame, place: _Place) -> list[Problem]:
    return [
        place.warning(
            "covariates",
            f"{name} is {rows[name].iloc[0]!r} in every sample of data set {dataset!r} that is compared",
            "take it out: it adjusts for nothing",
        )
        for name in contrast.covariates
        if name in rows and rows[name].nunique() == 1
    ]


def _pairing(
    contrast: Contrast, dataset: str, rows: pd.DataFrame, found: Sequence[Comparison], place: _Place
) -> list[Problem]:
    """Arms that could be paired and are not."""
    unpaired = [one for one in found if one.design.status == "tested" and not one.design.is_paired]
    if not unpaired:
        return []
    arms = unpaired[0].design.units
    blocks = {arm: set(arms.loc[arms["arm"] == arm, "block"]) for arm in ("test", "reference")}
    common = blocks["test"] & blocks["reference"]
    if contrast.pair_by not in rows or len(blocks["test"] | blocks["reference"]) < 2:
        return []
    who = ", ".join(one.cell_class for one in unpaired)
    words = f"no {contrast.pair_by} stands" if not common else f"only {', '.join(sorted(common))} stands"
    return [
        place.warning(
            "pair_by",
            f"data set {dataset!r} ({who}): {words} in both arms, so they are compared unpaired and the differences "
            "between donors stay in the error",
            f"correct column {contrast.pair_by} of the samples if the arms share donors; else read the intervals",
        )
    ]


def _stimulus(contrast: Contrast, dataset: str, rows: pd.DataFrame, place: _Place) -> list[Problem]:
    """MSC are licensed by stimulated immune cells alone, so what stimulated them must be the same in both arms."""
    if contrast.variable == "stimulus" or not (rows.loc[rows["arm"] == "test", "culture"] == "coculture").any():
        return []
    with_immune = rows[rows["culture"].isin(["immune", "coculture"]) & (rows["stimulus"] != "")]
    stimuli = {arm: set(with_immune.loc[with_immune["arm"] == arm, "stimulus"]) for arm in ("test", "reference")}
    if stimuli["test"] and stimuli["reference"] and stimuli["test"] != stimuli["reference"]:
        problem = (
            f"data set {dataset!r}: immune cells got {_listed(stimuli['test'])} in the test arm and "
            f"{_listed(stimuli['reference'])} in the reference: the effect of the stimulus is part of the effect"
        )
        return [place.warning("reference", problem, "compare like with like by column where, such as stimulus = PHA")]
    if stimuli["test"] and all(name.lower() in RESTING for name in stimuli["test"]):
        problem = f"data set {dataset!r}: the immune cells of the test arm are resting and hardly license MSC"
        return [place.warning("test", problem, "read the licensing programmes as a control, or add stimulated samples")]
    return []


def _hidden_confounders(
    contrast: Contrast,
    dataset: str,
    rows: pd.DataFrame,
    found: Sequence[Comparison],
    donors: Mapping[str, Sequence[str]],
    place: _Place,
) -> list[Problem]:
    """Columns outside the model that change together with the variable: the model with such a column has no answer."""
    testable = {one.cell_class for one in found if one.design.status == "tested"}
    named = {contrast.variable, contrast.pair_by, *contrast.covariates, "arm"}
    columns = [str(name) for name in rows if name not in named | NO_COVARIATES]
    replicates = _replicates(rows, donors, 1)
    problems = []
    for name in columns:
        of_class = [one for one in sorted(testable) if _tells_nothing_apart(name, replicates, one, contrast)]
        if of_class:
            what = "" if of_class == [ANY_CLASS] else f" ({' and '.join(of_class)})"
            problem = f"data set {dataset!r}{what}: {contrast.variable} and {name} change together"
            fix = f"say so beside the result: the effect may be that of {name}"
            problems.append(place.warning("variable", problem, fix))
    return problems


def _tells_nothing_apart(name: str, replicates: pd.DataFrame, cell_class: str, contrast: Contrast) -> bool:
    """Whether the effect lies in the span of a column that is filled in, and repeated, for every sample."""
    rows = replicates[replicates["cell_class"] == cell_class]
    levels = rows[name].nunique()
    if (rows[name] == "").any() or not 1 < levels < rows["sample"].nunique():
        return False
    with_column = replace(contrast, covariates=(*contrast.covariates, name))
    return stratum_design(with_column, replicates, cell_class, 1).status == "confounded"


def _mixed_organisms(contrast: Contrast, run: Run, place: _Place) -> list[Problem]:
    organisms = {dataset: run.organisms[dataset] for dataset in contrast.datasets if dataset in run.organisms}
    if len(set(organisms.values())) < 2:
        return []
    words = ", ".join(f"{dataset} ({organism})" for dataset, organism in organisms.items())
    problem = f"the data sets are of several organisms: {words}"
    return [place.warning("dataset", problem, "compare signs across species, never sizes; or ask one contrast each")]


def _listed(names: Iterable[str]) -> str:
    return " and ".join(repr(name) for name in sorted(names))
