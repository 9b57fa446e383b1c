"""Looking at a whole study: config, sheets, tables of programmes and markers, files, genes, designs, disk and memory.

Everything that can still be looked at is looked at when an earlier part is faulty, so that somebody who mends a study
sees all of it at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from immunomod.acquire import AcquireSettings
from immunomod.errors import Problem, Severity, list_problems, sort_problems
from immunomod.files import write_text, write_tsv
from immunomod.preflight.coverage import COLUMNS, examine_coverage
from immunomod.preflight.designs import Designs, examine_designs
from immunomod.preflight.libraries import Libraries, Library, client_for, examine_libraries, guesses
from immunomod.preflight.resources import Needs, estimate
from immunomod.preflight.tables import examine_diseases, examine_interactions, examine_markers, examine_programs
from immunomod.sample.demultiplex.names import sheet_donors
from immunomod.settings import Run, examine_run, read_config

if TYPE_CHECKING:
    from immunomod.programs import ProgramSet

#: Tries and waits of ``immunomod check``, which somebody sits before; the workflow's own are longer.
FEW_ATTEMPTS, SHORT_WAIT_S = 3, 5.0
PROBLEM_COLUMNS = ("severity", "file", "row", "column", "problem", "fix")


@dataclass(frozen=True)
class Findings:
    """What a check found: problems by file and row, coverage of the programmes, and a summary in words."""

    problems: tuple[Problem, ...]
    coverage: pd.DataFrame
    summary: str

    @property
    def has_errors(self) -> bool:
        """Whether anything is worse than a warning."""
        return any(problem.is_error for problem in self.problems)

    @property
    def stops_run(self) -> bool:
        """Whether a run must not begin."""
        return any(problem.is_error and problem.stops_run for problem in self.problems)

    def text(self) -> str:
        """The problems, then the summary."""
        parts = [self.summary, list_problems(self.problems)]
        return "\n\n".join(part for part in parts if part)

    def table(self) -> pd.DataFrame:
        """One row per problem; columns :data:`PROBLEM_COLUMNS`."""
        rows = [
            (one.severity.value, one.file, "" if one.row is None else str(one.row), one.column, one.problem, one.fix)
            for one in self.problems
        ]
        return pd.DataFrame(rows, columns=list(PROBLEM_COLUMNS), dtype=str)

    def write(self, folder: Path) -> None:
        """Write ``problems.tsv``, ``coverage.tsv`` and ``summary.txt`` into a folder."""
        write_tsv(self.table(), folder / "problems.tsv")
        write_tsv(self.coverage, folder / "coverage.tsv")
        write_text(f"{self.text()}\n", folder / "summary.txt")


def check_file(config: Path, results: Path | None = None, is_offline: bool = False) -> Findings:
    """:func:`check_study` on a config file, with little patience for a slow server.

    Parameters
    ----------
    config
        The config file.
    results
        The run's folder of results; from the config's ``pathvars``, else ``results``, where it is not given.
    is_offline
        Use no network.

    Raises
    ------
    UserError
        There is no config to read.
    """
    given = read_config(config)
    named = given.get("pathvars")
    folder = str(named.get("results", "results")) if isinstance(named, Mapping) else "results"
    return check_study(given, config.parent, str(config), results or Path(folder), is_offline, is_patient=False)


def check_study(
    config: Mapping[str, Any],
    folder: Path,
    name: str,
    results: Path,
    is_offline: bool = False,
    is_patient: bool = True,
) -> Findings:
    """Look at everything that a user edits and at the heads of the files that it names.

    Parameters
    ----------
    config, folder, name
        As :func:`immunomod.settings.load_run` takes them.
    results
        The run's folder of results; metadata and small tables that are fetched stay under ``acquire/`` there.
    is_offline
        Use no network; what it would have told is listed as not looked at.
    is_patient
        Try a server that does not answer as often as the run would.
    """
    examined = examine_run(config, folder, name)
    problems = list(examined.problems)
    programs, faults = examine_programs(examined.config["programs"])
    problems += faults
    annotation = examined.config["annotation"]
    problems += examine_diseases(examined.config["diseases"], programs)
    problems += examine_markers(annotation["markers"], annotation)
    run = examined.run
    if run is None or run.samples.empty:
        return Findings(tuple(sort_problems(problems)), pd.DataFrame(columns=list(COLUMNS)), "")
    problems += examine_interactions(examined.config["interactions"], run.organisms_of(run.datasets))
    problems += [*guesses(run), *_lonely_datasets(run), *_idle_suppression(run)]
    client = client_for(_transfer(run, is_patient), is_offline)
    skip = examined.samples.faulty_rows("sample", "dataset", "source", "files", "cells", "hashtags")
    libraries = examine_libraries(run, results, client, name, skip)
    problems += libraries.problems
    table = pd.DataFrame(columns=list(COLUMNS))
    if programs is not None:
        table, doubts = examine_coverage(run, programs, libraries)
        problems += doubts
    donors = {library.row.sample: library.donors for library in libraries.found if library.donors}
    designs = examine_designs(run, donors)
    problems += designs.problems
    needs = estimate(run, libraries, results)
    problems += needs.problems(name)
    summary = _summary(name, run, programs, libraries, designs, table, needs)
    return Findings(tuple(sort_problems(problems)), table, summary)


def _transfer(run: Run, is_patient: bool) -> AcquireSettings:
    settings = AcquireSettings.from_config(run.config["geo"])
    if is_patient:
        return settings
    transfer = settings.transfer
    hasty = replace(
        transfer,
        attempts=min(transfer.attempts, FEW_ATTEMPTS),
        longest_wait_s=min(transfer.longest_wait_s, SHORT_WAIT_S),
        timeout_s=min(transfer.timeout_s, 2 * SHORT_WAIT_S),
    )
    return replace(settings, transfer=hasty)


def _idle_suppression(run: Run) -> list[Problem]:
    """Measured suppression that no MSC donor is named for: it could be held against nothing."""
    rows = run.samples
    return [
        Problem(
            run.config["samples"],
            "suppression is given, and no msc_donor that it is of",
            "fill in msc_donor",
            int(str(number)),
            "suppression",
            Severity.WARNING,
        )
        for number in rows.index[(rows["suppression"] != "") & (rows["msc_donor"] == "")]
    ]


def _lonely_datasets(run: Run) -> list[Problem]:
    """Data sets of one sample: nothing can be compared within them."""
    counts = run.samples["dataset"].value_counts()
    return [
        Problem(
            run.config["samples"],
            f"data set {row['dataset']!r} has one sample, and comparisons are made within data sets",
            "add its other samples, or put it into the data set that it was made with",
            int(str(number)),
            "dataset",
            Severity.WARNING,
        )
        for number, row in run.samples.iterrows()
        if counts[row["dataset"]] == 1
    ]


def _summary(
    name: str,
    run: Run,
    programs: ProgramSet | None,
    libraries: Libraries,
    designs: Designs,
    coverage: pd.DataFrame,
    needs: Needs,
) -> str:
    lines = [
        name,
        f"  {len(run.samples)} samples of {len(run.datasets)} data sets, {len(run.atlases)} atlases, "
        f"{len(run.contrasts)} contrasts",
    ]
    for dataset in run.datasets:
        lines.append(f"  {dataset}: {_dataset_in_words(run, dataset, libraries)}")
    for one in designs.comparisons:
        lines.append(f"  {one.contrast} in {one.dataset}, {one.cell_class}: {one.in_words()}")
    if programs is not None:
        lines.append(f"  programmes: {_coverage_in_words(coverage, programs)}")
    lines += [f"  {line}" for line in needs.lines()]
    lines += [f"  {line}" for line in [*_unknown(libraries), *designs.unknown, *_sources_unknown(run)]]
    return "\n".join(lines)


def _dataset_in_words(run: Run, dataset: str, libraries: Libraries) -> str:
    rows = run.samples[run.samples["dataset"] == dataset]
    looked_at = libraries.of(dataset)
    donors = {name for _, row in rows.iterrows() for name in sheet_donors(row["hashtags"], row["donor"])}
    donors |= {name for one in looked_at for name in one.donors if not _is_named_by_hashtag(one)}
    heads = [one.head for one in looked_at if one.head is not None]
    cells = [head.n_cells for head in heads if head.n_cells is not None]
    parts = [f"{run.organisms[dataset]}", _plural(len(rows), "sample"), _plural(len(donors), "donor")]
    if cells:
        parts.append(f"{sum(cells):,} cells in {len(cells)} matrices")
    others = sorted(
        {
            str(kind)
            for head in heads
            if head.features is not None
            for kind in head.features["feature_type"].unique()
            if kind not in ("", "Gene Expression")
        }
    )
    return ", ".join([*parts, *([f"also {', '.join(others)}"] if others else [])])


def _is_named_by_hashtag(library: Library) -> bool:
    return bool(library.row.hashtags and sheet_donors(library.row.hashtags, ""))


def _coverage_in_words(coverage: pd.DataFrame, programs: ProgramSet) -> str:
    what = f"{len(programs.table)} programmes of {len(programs.genes)} genes"
    if coverage.empty:
        return f"{what}; which genes the data list is known after the download"
    words = []
    for dataset, rows in coverage[coverage["genes_total"] > 0].groupby("dataset", sort=False):
        complete = int((rows["genes_found"] == rows["genes_total"]).sum())
        words.append(f"{dataset}: {complete} of {len(rows)} complete, {int(rows['is_low'].sum())} low")
    return f"{what}; {'; '.join(words)}"


def _unknown(libraries: Libraries) -> list[str]:
    """Samples of which something is not known yet, by the reason."""
    waiting: dict[str, list[str]] = {}
    for library in libraries.found:
        if library.waits_for:
            waiting.setdefault(library.waits_for, []).append(library.row.sample)
    return [f"headers and cells {reason}: {_shortened(samples)}" for reason, samples in waiting.items()]


def _sources_unknown(run: Run) -> list[str]:
    """What stands in the way of comparing MSC by their tissue of origin."""
    lines = []
    rows = run.samples[(run.samples["culture"] == "msc") & (run.samples["msc_source"] == "")]
    if len(rows):
        lines.append(
            f"msc_source is empty for {_shortened(list(rows['sample']))}: tissues of origin cannot be compared"
        )
    known = run.samples[run.samples["msc_source"] != ""]
    if known["msc_source"].nunique() > 1 and (known.groupby("dataset")["msc_source"].nunique() == 1).all():
        lines.append("msc_source differs between data sets and never within one: tissue cannot be told from data set")
    return lines


def _shortened(names: list[str]) -> str:
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
