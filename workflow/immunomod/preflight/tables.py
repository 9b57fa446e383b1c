"""The tables behind the sheets: gene programmes, cell markers and ligand-receptor pairs, a lab's own among them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from immunomod.atlas.markers import load_markers
from immunomod.atlas.overrides import read_overrides
from immunomod.errors import Problem, UserError, split_fix
from immunomod.interactions import table_of
from immunomod.programs import ProgramSet, load_programs
from immunomod.tables import examine_table

_PLACE = re.compile(r"(?P<file>[^\n]+?),? row (?P<row>\d+)(?:, column (?P<column>\w+))?: (?P<text>.*)", re.DOTALL)


def examine_programs(folders: Sequence[str]) -> tuple[ProgramSet | None, list[Problem]]:
    """The programmes of all folders, or None and what is wrong with them."""
    problems: list[Problem] = []
    for folder in map(Path, folders):
        unique = ("program", "gene_human", "gene_mouse")
        problems += examine_table(folder / "programs.tsv", "programs", unique).problems
        problems += examine_table(folder / "programs_meta.tsv", "programs_meta", ("program",)).problems
    if problems:
        return None, problems
    try:
        return load_programs(folders), []
    except UserError as error:
        return None, [placed(str(error), folders[0])]


def examine_markers(folder: str, overrides: Iterable[str] = ()) -> list[Problem]:
    """What is wrong with the tables of cell classes and their markers, and with those of the user's own classes."""
    problems = examine_table(Path(folder) / "cell_classes.tsv", "cell_classes", ("cell_class",)).problems
    problems += examine_table(Path(folder) / "markers.tsv", "markers").problems
    if problems:
        return problems
    try:
        markers = load_markers(Path(folder))
    except UserError as error:
        return [placed(str(error), folder)]
    for path in sorted(set(overrides)):
        try:
            read_overrides(Path(path), markers)
        except UserError as error:
            problems.append(placed(str(error), path))
    return problems


def examine_interactions(folder: str, organisms: Iterable[str]) -> list[Problem]:
    """What is wrong with the ligand-receptor pairs of the organisms that the study has."""
    tables = [examine_table(table_of(folder, organism), "interactions") for organism in organisms]
    return [problem for table in tables for problem in table.problems]


def placed(text: str, file: str) -> Problem:
    """A message as a problem; its file, row and column are taken from its beginning where they stand there."""
    text = " ".join(text.split())
    match = _PLACE.fullmatch(text)
    if match is None:
        return Problem(file, *split_fix(text, "correct the table"))
    problem, fix = split_fix(match["text"], "correct the row")
    return Problem(match["file"], problem, fix, int(match["row"]), match["column"] or "")
