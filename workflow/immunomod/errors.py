"""What a user can mend: problems with their place and fix, and the one exception that a user's mistake becomes.

A program ends on it with one message, no traceback, and exit status 1. The message may hold many problems: a study is
looked at as a whole, so that somebody who mends it need not run it once per mistake.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

#: What to do begins with one of these, in the messages of this package.
_VERBS = (
    "add|ask|check|choose|copy|correct|create|delete|export|fetch|fill|free|give|keep|leave|list|lower|mend|move|name|"
    "point|put|raise|remove|rename|replace|run|save|say|set|split|store|take|tell|use|write"
)
_FIX = re.compile(rf"[.;] (?=(?:{_VERBS})\b)", re.IGNORECASE)


class Severity(StrEnum):
    """Whether a study can be run as it is."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a study.

    Parameters
    ----------
    file
        The file to mend: a sheet, the config, a table of programmes.
    problem, fix
        What is wrong and what to do, in words.
    row
        Row of the file, where the first line is 1; None where no row can be named.
    column
        Column of the file, or setting of the config; empty where none can be named.
    severity
        Errors make ``immunomod check`` fail.
    stops_run
        Whether a workflow run must not begin. An error that the results themselves report in words (a comparison that
        is confounded) does not stop the comparisons beside it.
    """

    file: str
    problem: str
    fix: str = ""
    row: int | None = None
    column: str = ""
    severity: Severity = Severity.ERROR
    stops_run: bool = True

    @property
    def is_error(self) -> bool:
        """Whether it is more than a warning."""
        return self.severity is Severity.ERROR

    @property
    def place(self) -> str:
        """File (base name), row and column, such as ``samples.tsv row 4, column donor``."""
        row = "" if self.row is None else f" row {self.row}"
        column = "" if not self.column else f", {'' if self.row is None else 'column '}{self.column}"
        return f"{Path(self.file).name}{row}{column}"

    def __str__(self) -> str:
        return f"{self.place}: {in_words(self.problem, self.fix)}"


def in_words(problem: str, fix: str) -> str:
    """A problem and its fix as sentences."""
    first = f"{problem.rstrip()}{'' if problem.rstrip().endswith(('.', ':')) else '.'}"
    if not fix:
        return first
    fix = fix.strip()
    return f"{first} Fix: {fix}{'' if fix.endswith('.') else '.'}"


def split_fix(text: str, otherwise: str = "") -> tuple[str, str]:
    """What is wrong and what to do, of a message that says both; ``otherwise`` where it says the first alone."""
    found = next((match for match in _FIX.finditer(text) if match.start() > 0), None)
    if found is None:
        return text.strip(), otherwise
    return text[: found.start()].strip(), text[found.end() :].strip()


class UserError(Exception):
    """Something the user can mend. The text says what is wrong, where (file, row, column) and what to do."""


class StudyError(UserError):
    """Several problems at once; the text lists them by file and row."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sort_problems(problems))
        super().__init__(list_problems(self.problems))


class RowError(UserError):
    """A user's mistake in one row of a sheet; the text names it."""

    def __init__(self, file: str, row: object, column: str, problem: object) -> None:
        self.file, self.row, self.column, self.problem = file, row, column, str(problem)
        super().__init__(f"{file} row {row}, column {column}: {problem}")


def sort_problems(problems: Iterable[Problem]) -> list[Problem]:
    """Without repeats, by file (in order of appearance), row and column; what concerns a whole file comes first."""
    unique = list(dict.fromkeys(problems))
    files = {file: place for place, file in enumerate(dict.fromkeys(problem.file for problem in unique))}
    return sorted(unique, key=lambda one: (files[one.file], -1 if one.row is None else one.row, not one.is_error))


def list_problems(problems: Sequence[Problem]) -> str:
    """Problems under the names of their files, one a line, and how many there are."""
    lines: list[str] = []
    file = None
    for problem in problems:
        if problem.file != file:
            file = problem.file
            lines.append(f"{file}:")
        lines.append(f"  {'' if problem.is_error else 'warning: '}{problem}")
    return "\n".join([*lines, count_problems(problems)])


def count_problems(problems: Sequence[Problem]) -> str:
    """How many errors and warnings, in words."""
    errors = sum(problem.is_error for problem in problems)
    warnings = len(problems) - errors
    words = [f"{n} {word}{'' if n == 1 else 's'}" for n, word in ((errors, "error"), (warnings, "warning")) if n]
    return ", ".join(words) or "no problem found"


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Print a :class:`UserError` as one message on standard error and exit with status 1."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
