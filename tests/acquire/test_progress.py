"""The line that says how far a data set is."""

import pytest

from immunomod.acquire.progress import Progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def progress(clock: Clock, said: list[str]) -> Progress:
    return Progress("GSE1", said.append, clock)


def test_files_bytes_and_time(progress: Progress, clock: Clock) -> None:
    files = [progress.add(40_000_000) for _ in range(12)]
    for file in files[:3]:
        file.begin(0, 40_000_000)
        file.add(40_000_000)
        file.finish(40_000_000)
    clock.now += 40  # 3 MB a second, 360 MB to come
    assert progress.line() == "GSE1: 3 of 12 files, 120 of 480 MB, about 2 min left"
    files[3].begin(0, 40_000_000)
    files[3].add(20_000_000)
    assert progress.line() == "GSE1: 3 of 12 files, 140 of 480 MB, about 2 min left"


def test_what_was_there_before_counts_as_done_but_not_as_speed(progress: Progress, clock: Clock) -> None:
    kept, resumed = progress.add(300_000_000), progress.add(100_000_000)
    kept.finish(300_000_000)
    assert progress.line() == "GSE1: 1 of 2 files, 300 of 400 MB"  # no speed yet
    resumed.begin(50_000_000, None)
    resumed.add(10_000_000)
    clock.now += 10  # 1 MB a second, 40 MB to come
    assert progress.line() == "GSE1: 1 of 2 files, 360 of 400 MB, about 40 s left"


def test_a_file_that_starts_again_is_not_counted_twice(progress: Progress) -> None:
    file = progress.add(100_000_000)
    file.begin(0, 100_000_000)
    file.add(60_000_000)
    file.begin(0, 100_000_000)
    assert progress.line() == "GSE1: 0 of 1 files, 0 of 100 MB, about 1 s left"
    file.add(20_000_000)
    assert progress.line().startswith("GSE1: 0 of 1 files, 20 of 100 MB")


def test_unknown_sizes_leave_the_whole_out_until_the_server_says(progress: Progress, clock: Clock) -> None:
    known, unknown = progress.add(20_000_000), progress.add(None)
    known.begin(0, None)
    known.add(10_000_000)
    clock.now += 1
    assert progress.line() == "GSE1: 0 of 2 files, 10 MB"
    unknown.begin(0, 30_000_000)
    assert progress.line() == "GSE1: 0 of 2 files, 10 of 50 MB, about 4 s left"


@pytest.mark.parametrize(
    ("have", "whole", "words"),
    [
        (300_000, 900_000, "0.3 of 0.9 MB"),
        (1_500_000_000, 9_000_000_000, "1,500 of 9,000 MB"),
        (1_000_000_000, 132_000_000_000, "1 of 132 GB"),
        (0, 12_000_000_000, "0 of 12 GB"),
    ],
)
def test_amounts_are_readable(progress: Progress, have: int, whole: int, words: str) -> None:
    progress.add(whole).begin(have, whole)
    assert progress.line() == f"GSE1: 0 of 1 files, {words}"


@pytest.mark.parametrize(("left_mb", "words"), [(59, "59 s"), (60, "1 min"), (61, "2 min"), (7200, "2 h")])
def test_times_are_readable(progress: Progress, clock: Clock, left_mb: int, words: str) -> None:
    file = progress.add((left_mb + 10) * 10**6)
    file.begin(0, None)
    file.add(10 * 10**6)
    clock.now += 10
    assert progress.line().endswith(f", about {words} left")


def test_at_most_one_line_in_ten_seconds_and_one_at_the_end(progress: Progress, clock: Clock, said: list[str]) -> None:
    file = progress.add(100)
    for _ in range(350):
        clock.now += 0.1
        progress.tick()
    assert len(said) == 3
    file.finish(100)
    progress.close()
    assert len(said) == 4 and said[-1].startswith("GSE1: 1 of 1 files")


def test_nothing_asked_for_nothing_said(progress: Progress, said: list[str]) -> None:
    progress.close()
    assert said == []
