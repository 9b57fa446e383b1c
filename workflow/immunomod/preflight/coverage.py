"""How many genes of every programme the data sets list, before anything is read in full."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from immunomod.errors import Problem, Severity
from immunomod.preflight.libraries import Libraries
from immunomod.programs import ProgramSet
from immunomod.settings import Run

COLUMNS = ("dataset", "program", "role", "compartment", "genes_total", "genes_found", "missing", "is_low")
#: A programme of which fewer are listed says little of what it is named after.
LOWEST_SHARE = 0.5
MOST_WARNINGS = 5
MOST_GENES_SHOWN = 12


def examine_coverage(run: Run, programs: ProgramSet, libraries: Libraries) -> tuple[pd.DataFrame, list[Problem]]:
    """Coverage of every programme in every data set whose genes are known, and a warning for each that is low.

    A data set has a gene that any of its libraries lists: one that a library's file does not list counts zero there.

    Returns
    -------
    Table with columns :data:`COLUMNS`, and the warnings.
    """
    tables = []
    problems: list[Problem] = []
    for dataset in run.datasets:
        known = [library.symbols for library in libraries.of(dataset) if library.symbols is not None]
        if not known:
            continue
        symbols = known[0]
        for other in known[1:]:
            symbols = symbols.union(other, sort=False)
        table = coverage(programs, symbols, run.organisms[dataset]).assign(dataset=dataset)
        table["is_low"] = is_low(table, run.config["contrast"]["min_genes"])
        tables.append(table.reindex(columns=list(COLUMNS)))
        row = int(str(run.samples.index[run.samples["dataset"] == dataset][0]))
        problems += _warnings(run.config["samples"], row, dataset, table[table["is_low"]], len(table))
    whole = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(COLUMNS))
    return whole, problems


def is_low(table: pd.DataFrame, min_genes: int) -> pd.Series:
    """Programmes that get no score for lack of genes, or keep less than half of theirs."""
    total, found = table["genes_total"], table["genes_found"]
    return (total > 0) & ((found < total.clip(upper=min_genes)) | (found < LOWEST_SHARE * total))


def _warnings(sheet: str, row: int, dataset: str, low: pd.DataFrame, n_programs: int) -> list[Problem]:
    fix = "check that the matrix lists all genes of the organism; its rows will say low_coverage or rest on few genes"
    if len(low) > MOST_WARNINGS:
        names = ", ".join(low["program"])
        problem = f"data set {dataset!r} lists few genes of {len(low)} of {n_programs} programmes: {names}"
        return [Problem(sheet, problem, fix, row, "dataset", Severity.WARNING)]
    return [
        Problem(
            sheet,
            f"data set {dataset!r} lists {one['genes_found']} of {one['genes_total']} genes of {one['program']}; "
            f"missing: {_shortened(one['missing'])}",
            fix,
            row,
            "dataset",
            Severity.WARNING,
        )
        for one in low.to_dict("records")
    ]


def _shortened(missing: str | Sequence[str]) -> str:
    names = [name.strip() for name in missing.split(",")] if isinstance(missing, str) else list(missing)
    more = f" and {len(names) - MOST_GENES_SHOWN} more" if len(names) > MOST_GENES_SHOWN else ""
    return ", ".join(names[:MOST_GENES_SHOWN]) + more


def coverage(programs: ProgramSet, symbols: pd.Index, organism: str) -> pd.DataFrame:
    """How many genes of each programme are among ``symbols``.

    Columns ``program, role, compartment, genes_total, genes_found, missing`` (names joined by ``, ``).
    """
    weights = programs.weights(organism)
    listed = weights.index.isin(symbols)
    rows = []
    for program, meta in programs.table.iterrows():
        genes = (weights[program] != 0).to_numpy()
        missing = sorted(weights.index[genes & ~listed])
        rows.append(
            (
                program,
                meta["role"],
                meta["compartment"],
                int(genes.sum()),
                int((genes & listed).sum()),
                ", ".join(missing),
            )
        )
    return pd.DataFrame(rows, columns=["program", "role", "compartment", "genes_total", "genes_found", "missing"])
