"""The tables behind the sheets, a lab's own among them: programmes, markers, disease signatures, interactions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from immunomod.atlas.markers import load_markers
from immunomod.atlas.overrides import read_overrides
from immunomod.atlas.settings import AnnotationSettings
from immunomod.atlas.witnesses import faults
from immunomod.diseases import load_diseases, table_path
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


def examine_markers(folder: str, annotation: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the tables of cell classes and their markers, and with what the config's section names beside
    them: the user's own classes, models, references."""
    problems = examine_table(Path(folder) / "cell_classes.tsv", "cell_classes", ("cell_class",)).problems
    problems += examine_table(Path(folder) / "markers.tsv", "markers").problems
    if problems:
        return problems
    try:
        markers = load_markers(Path(folder))
    except UserError as error:
        return [placed(str(error), folder)]
    for path in sorted(set(annotation["overrides"].values())):
        try:
            read_overrides(Path(path), markers)
        except UserError as error:
            problems.append(placed(str(error), path))
    settings = AnnotationSettings.from_config(annotation)
    problems += [placed(str(fault), folder) for fault in faults(settings, markers, Path(folder))]
    return problems


def examine_diseases(diseases: Mapping[str, Any], programs: ProgramSet | None) -> list[Problem]:
    """What is wrong with the tables of disease signatures and of fold changes; ``diseases``: the config's section."""
    problems: list[Problem] = []
    for table in diseases["tables"]:
        unique = ("disease", "signature", "program", "gene_human", "gene_mouse")
        problems += examine_table(table_path(table), "diseases", unique).problems
    for settings in diseases["fold_changes"].values():
        problems += examine_table(settings["table"], "fold_changes", ("gene",)).problems
    if problems or programs is None:
        return problems
    try:
        load_diseases(diseases["tables"], programs, diseases["fold_changes"])
    except UserError as error:
        return [placed(str(error), str(next(iter(diseases["tables"]), "diseases")))]
    return []


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
