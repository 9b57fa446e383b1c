"""Tasks in threads: order of results, one error, the end; and the pace that they share."""

import threading
import time

import pytest

from immunomod.acquire import workers
from immunomod.acquire.pace import Pace, StoppedError
from immunomod.acquire.workers import run_together


def test_results_come_in_the_order_of_the_tasks() -> None:
    waits = [0.05, 0.0, 0.03, 0.01, 0.0]

    def task(number: int) -> int:
        time.sleep(waits[number])
        return number

    tasks = [lambda n=n: task(n) for n in range(5)]
    assert run_together(tasks, 3, lambda: None) == [0, 1, 2, 3, 4]
    assert run_together([], 4, lambda: None) == []


def test_the_earliest_of_the_tasks_that_failed_is_named() -> None:
    """Task 2 fails first, and task 1 before it is called off."""
    second_failed, called_off = threading.Event(), threading.Event()
    begun: list[int] = []

    def first() -> None:
        begun.append(0)
        called_off.wait(5)
        raise StoppedError

    def second() -> None:
        begun.append(1)
        second_failed.wait(5)
        raise ValueError("second")

    def third() -> None:
        begun.append(2)
        second_failed.set()
        raise ValueError("third")

    with pytest.raises(ValueError, match="second"):
        run_together([first, second, third, lambda: begun.append(3)], 3, called_off.set)
    assert sorted(begun) == [0, 1, 2]  # the fourth never began


def test_a_task_that_cannot_be_stopped_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "GRACE_S", 0.3)
    release = threading.Event()

    def fail() -> None:
        raise ValueError("no")

    begun = time.monotonic()
    with pytest.raises(ValueError, match="no"):
        run_together([lambda: release.wait(30), fail], 2, lambda: None)
    assert time.monotonic() - begun < 2
    release.set()


def test_an_interrupt_of_the_caller_calls_the_tasks_off() -> None:
    pace = Pace(1000)
    ended: list[str] = []

    def task() -> None:
        try:
            pace.sleep(30)
        except StoppedError:
            ended.append("stopped")
            raise

    def interrupt() -> None:
        raise KeyboardInterrupt

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_together([task, task], 2, pace.stop, interrupt)
    assert ended == ["stopped", "stopped"]
    assert time.monotonic() - begun < 2


def requests_of(pace: Pace, host: str, count: int, times: list[float]) -> threading.Thread:
    def ask() -> None:
        for _ in range(count):
            pace.wait(host)
            times.append(time.monotonic())

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def test_threads_share_one_rate() -> None:
    pace, times = Pace(100), []
    for thread in [requests_of(pace, host, 5, times) for host in ("a", "a", "b", "b")]:
        thread.join()
    assert len(times) == 20
    assert max(times) - min(times) >= 19 / 100 * 0.99


def test_a_pause_holds_one_host_only_and_can_grow() -> None:
    pace, held, free = Pace(1000), [], []
    begun = time.monotonic()
    pace.hold("held", 0.2)
    pace.hold("held", 0.1)  # a shorter one does not end it
    threads = [requests_of(pace, "held", 2, held), requests_of(pace, "free", 2, free)]
    pace.hold("held", 0.4)  # a longer one holds those that wait already
    for thread in threads:
        thread.join()
    assert min(held) - begun >= 0.4
    assert max(free) - begun < 0.2


def test_after_the_end_nobody_waits() -> None:
    pace = Pace(1000)
    pace.hold("host", 30)
    threading.Timer(0.1, pace.stop).start()
    begun = time.monotonic()
    with pytest.raises(StoppedError):
        pace.wait("host")
    with pytest.raises(StoppedError):
        pace.wait("other")
    assert time.monotonic() - begun < 2
