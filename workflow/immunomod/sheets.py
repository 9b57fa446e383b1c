"""The two tables that a user edits: ``samples.tsv``, one row per library, and ``contrasts.tsv``, one row per question.

Reading them checks each alone against its schema, and the questions against the samples: every data set, column and
level that a contrast names must exist, and a contrast must be able to have replicates.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from immunomod.contrast.where import evaluate_where
from immunomod.errors import UserError
from immunomod.tables import read_table

MIN_REPLICATES = 2


def read_samples(path: str | Path) -> pd.DataFrame:
    """Read and validate ``samples.tsv``; the index is the row's number in the file."""
    samples = read_table(path, "samples", unique=("sample",))
    samples["organism"] = samples["organism"].replace("", "human")
    for dataset, rows in samples.groupby("dataset", sort=False):
        if rows["organism"].nunique() > 1:
            raise UserError(
                f"{path} row {rows.index[0]}, column organism: data set {dataset!r} holds "
                f"{' and '.join(rows['organism'].unique())} samples. Give each organism a data set of its own."
            )
    return samples


def read_contrasts(path: str | Path, samples: pd.DataFrame, allow_unreplicated: bool = False) -> pd.DataFrame:
    """Read and validate ``contrasts.tsv`` against the samples; the index is the row's number in the file."""
    contrasts = read_table(path, "contrasts", unique=("contrast",))
    contrasts["pair_by"] = contrasts["pair_by"].replace("", "donor")
    for number, row in contrasts.iterrows():
        place = f"{path} row {number}"
        for column, name in _columns_named(row):
            if name not in samples:
                known = ", ".join(samples.columns)
                raise UserError(f"{place}, column {column}: the samples sheet has no column {name!r}. It has {known}.")
        datasets = split_list(row["dataset"])
        if len(set(datasets)) < len(datasets):
            raise UserError(
                f"{place}, column dataset: {row['dataset']!r} names a data set twice; it would be pooled twice."
            )
        for dataset in datasets:
            rows = samples[samples["dataset"] == dataset]
            if rows.empty:
                known = ", ".join(dict.fromkeys(samples["dataset"]))
                raise UserError(f"{place}, column dataset: no sample is of data set {dataset!r}. There are {known}.")
            try:
                rows = rows[evaluate_where(row["where"], rows)]
            except UserError as error:
                raise UserError(f"{place}, column where: {error}") from None
            if rows.empty:
                raise UserError(f"{place}, column where: no sample of data set {dataset!r} passes {row['where']!r}.")
            _check_arms(place, row, dataset, rows, allow_unreplicated)
    return contrasts


def split_list(field: str) -> list[str]:
    """The parts of a comma-separated field."""
    return [part.strip() for part in field.split(",") if part.strip()]


def _columns_named(row: pd.Series) -> list[tuple[str, str]]:
    named = [("variable", row["variable"]), ("pair_by", row["pair_by"])]
    return named + [("covariates", name) for name in split_list(row["covariates"])]


def _check_arms(place: str, row: pd.Series, dataset: str, rows: pd.DataFrame, allow_unreplicated: bool) -> None:
    """Check that every arm has samples, and enough donors for a test."""
    levels = rows[row["variable"]]
    if not row["test"]:
        values = pd.to_numeric(levels[levels != ""], errors="coerce")
        if values.isna().any():
            raise UserError(
                f"{place}, column variable: without test and reference a trend is asked for, and column "
                f"{row['variable']!r} of the samples sheet holds {levels[levels != ''][values.isna()].iloc[0]!r}, no "
                "number. Name the levels to compare in test and reference."
            )
        if values.nunique() < 2:
            raise UserError(f"{place}, column variable: {row['variable']!r} takes one value only in {dataset!r}.")
        return
    overlap = set(split_list(row["test"])) & set(split_list(row["reference"]))
    if overlap:
        raise UserError(f"{place}, column reference: {sorted(overlap)[0]!r} is also a test level.")
    for column in ("test", "reference"):
        arm = split_list(row[column])
        unknown = [level for level in arm if level not in set(levels)]
        if unknown:
            raise UserError(
                f"{place}, column {column}: no sample of data set {dataset!r} has {row['variable']} = {unknown[0]!r}. "
                f"There are {', '.join(sorted(set(levels) - {''}))}."
            )
        replicates = count_replicates(rows[levels.isin(arm)])
        if replicates is not None and replicates < MIN_REPLICATES and not allow_unreplicated:
            raise UserError(
                f"{place}, column {column}: {', '.join(arm)} has {replicates} donor in data set {dataset!r}, so no "
                "p-value can be computed: cells are not replicates. Add donors, or set `contrast: {allow_unreplicated: "
                "true}` in the config for estimates without p-values."
            )


def count_replicates(rows: pd.DataFrame) -> int | None:
    """Donors of some samples; None where a per-cell table names them and the sheet cannot know.

    MSC have donors of their own: where ``msc_donor`` is filled in, several lines held against one donor of immune
    cells are replicates for the classes of the MSC, and the immune classes say that theirs are not.
    """
    if (rows["donor"] == "").any():
        return None
    lines = rows["msc_donor"][rows["msc_donor"] != ""].nunique() if "msc_donor" in rows else 0
    return int(max(rows["donor"].nunique(), lines))
