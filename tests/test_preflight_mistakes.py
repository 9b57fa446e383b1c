"""Planted mistakes: each is found alone at its place, all of them are found together, and a clean study has none."""

from collections import Counter
from pathlib import Path

import pytest

from immunomod.errors import Problem
from immunomod.preflight import check_file
from support.planted_study import Mistake, PlantedStudy, mistakes

#: Two of them touch a row that another touches, or show in every contrast.
TOGETHER = [one for one in mistakes() if one.name not in ("genes of another species", "stimulus differs")]
MOVED = {"unknown level": 3, "unknown column": 4, "idle covariate": 5}


@pytest.fixture
def study(tmp_path: Path) -> PlantedStudy:
    return PlantedStudy(tmp_path / "study")


def problems_of(study: PlantedStudy) -> tuple[Problem, ...]:
    return check_file(study.write(), study.folder / "results").problems


def place(problem: Problem) -> tuple[str, int | None, str]:
    return Path(problem.file).name, problem.row, problem.column


def test_a_study_without_mistake_has_no_problem(study):
    found = check_file(study.write(), study.folder / "results")
    assert found.problems == ()
    assert not found.has_errors and not found.stops_run
    assert "12 samples of 1 data sets" in found.summary
    assert "q1 in lab, MSC: 4 test, 4 reference replicates, 4 pairs" in found.summary
    assert "72 cells in 12 matrices" in found.summary


@pytest.mark.parametrize("mistake", mistakes(), ids=lambda mistake: mistake.name)
def test_a_mistake_is_named_by_file_row_and_column(study: PlantedStudy, mistake: Mistake):
    mistake.plant(study)
    (problem,) = problems_of(study)
    assert place(problem) == mistake.place
    assert mistake.words in f"{problem.problem} {problem.fix}"
    assert problem.fix
    assert problem.is_error is mistake.is_error


def test_sixteen_mistakes_are_sixteen_problems(study):
    for mistake in TOGETHER:
        mistake.plant(study)
    expected = Counter((one.file, MOVED.get(one.name, one.row), one.column) for one in TOGETHER)
    found = check_file(study.write(), study.folder / "results")
    assert len(expected) == 16
    assert Counter(map(place, found.problems)) == expected
    text = found.text()
    assert text.endswith("14 errors, 2 warnings")
    assert "samples.tsv row 5, column source: " in text and "does not exist. Fix: correct the path" in text
    rows = [problem.row for problem in found.problems if place(problem)[0] == "samples.tsv"]
    assert rows == sorted(rows)
