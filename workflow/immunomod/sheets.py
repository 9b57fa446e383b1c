"""The two tables that a user edits: ``samples.tsv``, one row per library, and ``contrasts.tsv``, one row per question.

Each is checked against its schema, and the questions against the samples: every data set, column and level that a
contrast names must exist, and a contrast must be able to have replicates. Everything that is wrong is gathered, with
row, column and fix.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from immunomod.contrast.where import evaluate_where, is_level
from immunomod.errors import Problem, StudyError, UserError, split_fix
from immunomod.sample.demultiplex.names import parse_hashtags, sheet_donors
from immunomod.sample.states import REPLICATE_MEANS
from immunomod.tables import Examined, examine_table

MIN_REPLICATES = 2
UNREPLICATED_FIX = (
    "add donors, or set `contrast: {allow_unreplicated: true}` in the config for estimates without p-values"
)


def read_samples(path: str | Path) -> pd.DataFrame:
    """Read and validate ``samples.tsv``; the index is the row's number in the file."""
    return _faultless(examine_samples(path))


def read_contrasts(path: str | Path, samples: pd.DataFrame, allow_unreplicated: bool = False) -> pd.DataFrame:
    """Read and validate ``contrasts.tsv`` against the samples; the index is the row's number in the file."""
    return _faultless(examine_contrasts(path, samples, allow_unreplicated))


def _faultless(found: Examined) -> pd.DataFrame:
    if found.problems or found.rows is None:
        raise StudyError(found.problems)
    return found.rows


def examine_samples(path: str | Path) -> Examined:
    """``samples.tsv`` as far as it can be read; organisms are filled in."""
    found = examine_table(path, "samples", unique=("sample",))
    if found.rows is None:
        return found
    samples = found.rows
    samples["organism"] = samples["organism"].replace("", "human")
    found.problems += _hashtag_problems(str(path), samples)
    found.problems += _limit_problems(str(path), samples, found)
    known = samples[(samples["dataset"] != "") & samples["organism"].isin(["human", "mouse"])]
    for dataset, rows in known.groupby("dataset", sort=False):
        if rows["organism"].nunique() > 1:
            odd = rows.index[rows["organism"] != rows["organism"].mode().iloc[0]][0]
            problem = f"data set {dataset!r} holds {' and '.join(rows['organism'].unique())} samples"
            found.problems.append(
                Problem(str(path), problem, "give each organism a data set of its own", int(odd), "organism")
            )
    return found


def _limit_problems(file: str, samples: pd.DataFrame, found: Examined) -> list[Problem]:
    """Limits of a library's own that let no cell through."""
    problems = []
    for metric in ("counts", "genes"):
        low, high = f"min_{metric}", f"max_{metric}"
        faulty = found.faulty_rows(low, high)
        for number, row in samples[(samples[low] != "") & (samples[high] != "")].iterrows():
            if number not in faulty and float(row[low]) > float(row[high]):
                problem = f"{low} is {row[low]} and {high} is {row[high]}: no cell passes both"
                problems.append(Problem(file, problem, "lower it, or raise the other", int(str(number)), low))
    return problems


def _hashtag_problems(file: str, samples: pd.DataFrame) -> list[Problem]:
    """Hashtags that cannot be read, or whose donors nothing names."""
    problems = []
    for number, row in samples[samples["hashtags"] != ""].iterrows():
        problem, fix = "", ""
        try:
            named = parse_hashtags(row["hashtags"])
        except UserError as error:
            problem, fix = split_fix(str(error), "write HTO1=D1,HTO2=D2")
        else:
            nameless = [tag for tag, donor in named.items() if not donor]
            if nameless and not row["donor"] and not row["cells"]:
                problem = f"nothing names the donor of {', '.join(nameless)}"
                fix = f"write {nameless[0]}=D1, or fill in column donor or cells"
        if problem:
            problems.append(Problem(file, problem, fix, int(str(number)), "hashtags"))
    return problems


def examine_contrasts(path: str | Path, samples: pd.DataFrame | None, allow_unreplicated: bool = False) -> Examined:
    """``contrasts.tsv`` as far as it can be read, held against the samples.

    Where there are no samples to hold it against, only its own schema counts.
    """
    found = examine_table(path, "contrasts", unique=("contrast",))
    if found.rows is None:
        return found
    contrasts = found.rows
    contrasts["pair_by"] = contrasts["pair_by"].replace("", "donor")
    if samples is None:
        return found
    faulty = found.faulty_rows(*contrasts.columns)
    for number, row in contrasts.iterrows():
        if number not in faulty:
            found.problems += _Question(str(path), int(str(number)), row, samples, allow_unreplicated).problems()
    return found


def split_list(field: str) -> list[str]:
    """The parts of a comma-separated field."""
    return [part.strip() for part in field.split(",") if part.strip()]


class _Question:
    """One row of ``contrasts.tsv`` held against the samples."""

    def __init__(self, file: str, number: int, row: pd.Series, samples: pd.DataFrame, allow_unreplicated: bool) -> None:
        self.file = file
        self.number = number
        self.row = row
        self.samples = samples
        self.allow_unreplicated = allow_unreplicated

    def problems(self) -> list[Problem]:
        """What is wrong; a fault that makes the next question idle is the only one of its data set."""
        faults = self._unknown_columns()
        has_variable = not any(one.column == "variable" for one in faults)
        datasets = split_list(self.row["dataset"])
        if len(set(datasets)) < len(datasets):
            problem = f"{self.row['dataset']!r} names a data set twice; it would be pooled twice"
            faults.append(self._problem("dataset", problem, "name it once"))
        test, reference = split_list(self.row["test"]), split_list(self.row["reference"])
        overlap = [level for level in reference if is_level(pd.Series([level]), test)[0]] if test else []
        if overlap:
            problem = f"{overlap[0]!r} is also a test level"
            faults.append(self._problem("reference", problem, "a level can stand on one side only: take it out of one"))
        for dataset in dict.fromkeys(datasets):
            rows = self._rows(dataset, faults)
            if len(rows) and has_variable and not overlap:
                faults += self._trend(dataset, rows) if not test else self._arms(dataset, rows)
        return faults

    def _problem(self, column: str, problem: str, fix: str) -> Problem:
        return Problem(self.file, problem, fix, self.number, column)

    def _unknown_columns(self) -> list[Problem]:
        named = [("variable", self.row["variable"]), ("pair_by", self.row["pair_by"])]
        named += [("covariates", name) for name in split_list(self.row["covariates"])]
        measured = [
            self._problem(
                column,
                "'suppression' is what MSC donors are held against (synthesis/suppression.tsv), and no contrast's",
                "name another column; copy the values to a column of another name for a trend along them",
            )
            for column, name in named
            if name == "suppression"
        ]
        return measured + [
            self._problem(
                column,
                f"the samples sheet has no column {name!r}",
                f"add it there, or name one of {', '.join(self._columns_for(column))}",
            )
            for column, name in named
            if name not in self.samples and not (column == "covariates" and name in REPLICATE_MEANS)
        ]

    def _columns_for(self, column: str) -> list[str]:
        """What a column of the contrasts may name: the sheet's columns; as covariates also measurements of cells."""
        return [*map(str, self.samples.columns), *(REPLICATE_MEANS if column == "covariates" else ())]

    def _rows(self, dataset: str, faults: list[Problem]) -> pd.DataFrame:
        """Samples of a data set that pass the filter; what is wrong with either is added to ``faults``."""
        rows = self.samples[self.samples["dataset"] == dataset]
        if rows.empty:
            known = ", ".join(dict.fromkeys(self.samples["dataset"]))
            problem = f"no sample is of data set {dataset!r}"
            faults.append(self._problem("dataset", problem, f"name one of the samples sheet: {known}"))
            return rows
        try:
            passing = rows[evaluate_where(self.row["where"], rows)]
        except UserError as error:
            fault = self._problem("where", *split_fix(str(error), "correct the filter"))
            if fault not in faults:
                faults.append(fault)
            return rows.iloc[:0]
        if passing.empty:
            problem = f"no sample of data set {dataset!r} passes {self.row['where']!r}"
            faults.append(self._problem("where", problem, "correct the filter, or take the data set out"))
        return passing

    def _trend(self, dataset: str, rows: pd.DataFrame) -> list[Problem]:
        """A numeric variable of at least two values is needed."""
        variable = self.row["variable"]
        levels = rows[variable]
        values = pd.to_numeric(levels[levels != ""], errors="coerce")
        if values.isna().any():
            problem = (
                f"without test and reference a trend is asked for, and column {variable!r} of the samples sheet holds "
                f"{levels[levels != ''][values.isna()].iloc[0]!r}, no number"
            )
            return [self._problem("variable", problem, "name the levels to compare in test and reference")]
        if values.nunique() < 2:
            problem = f"{variable!r} takes {'one value only' if len(values) else 'no value'} in {dataset!r}"
            return [self._problem("variable", problem, "a trend needs two values: fill the column in")]
        return []

    def _arms(self, dataset: str, rows: pd.DataFrame) -> list[Problem]:
        """Every arm needs samples, and enough donors for a test."""
        levels = rows[self.row["variable"]]
        faults = []
        for column in ("test", "reference"):
            arm = split_list(self.row[column])
            unknown = [level for level in arm if not is_level(levels, [level]).any()]
            if unknown:
                problem = f"no sample of data set {dataset!r} has {self.row['variable']} = {unknown[0]!r}"
                known = ", ".join(sorted(set(levels) - {""}))
                faults.append(self._problem(column, problem, f"name one of {known}"))
                continue
            replicates = count_replicates(rows[is_level(levels, arm)])
            if replicates is not None and replicates < MIN_REPLICATES and not self.allow_unreplicated:
                problem = (
                    f"{', '.join(arm)} has {replicates} donor in data set {dataset!r}, so no p-value can be computed: "
                    "cells are not replicates"
                )
                faults.append(self._problem(column, problem, UNREPLICATED_FIX))
        return faults


def count_replicates(rows: pd.DataFrame) -> int | None:
    """Donors of some samples, by hashtag or by row; None where a per-cell table names them and the sheet cannot know.

    MSC have donors of their own: where ``msc_donor`` is filled in, several lines held against one donor of immune
    cells are replicates for the classes of the MSC, and the immune classes say that theirs are not.
    """
    tags = rows["hashtags"] if "hashtags" in rows else [""] * len(rows)
    donors = [sheet_donors(hashtags, donor) for hashtags, donor in zip(tags, rows["donor"], strict=True)]
    if not all(donors):
        return None
    lines = rows["msc_donor"][rows["msc_donor"] != ""].nunique() if "msc_donor" in rows else 0
    return max(len(set().union(*donors)), int(lines))
