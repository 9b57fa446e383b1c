"""Several tasks at once in threads, with one error, results in the order of the tasks, and a Ctrl-C that works."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from immunomod.acquire.pace import StoppedError

GRACE_S = 5.0

T = TypeVar("T")


def run_together(
    tasks: Sequence[Callable[[], T]],
    threads: int,
    stop: Callable[[], None],
    tick: Callable[[], None] = lambda: None,
) -> list[T]:
    """The results of ``tasks``, of which up to ``threads`` run at once, in the order of the tasks.

    At the first failure no further task begins and ``stop`` is called; the running ones have five seconds to end. They
    are threads of a daemon's kind, because one that waits for a silent server can only be left behind.

    Parameters
    ----------
    stop
        Makes running tasks raise :class:`StoppedError`.
    tick
        Called in this thread several times a second.

    Raises
    ------
    Exception
        The failure of the earliest task among those that failed; or KeyboardInterrupt.
    """
    waiting = deque(enumerate(tasks))
    results: dict[int, T] = {}
    failures: dict[int, BaseException] = {}

    def call_off() -> None:
        waiting.clear()
        stop()

    def work() -> None:
        while waiting:
            try:
                number, task = waiting.popleft()
            except IndexError:  # another thread took the last one
                return
            try:
                results[number] = task()
            except BaseException as error:  # raised again in the caller's thread
                failures[number] = error
                call_off()

    crew = [threading.Thread(target=work, daemon=True, name=f"fetch {n}") for n in range(min(threads, len(tasks)))]
    deadline = None
    try:
        for worker in crew:
            worker.start()
        while running := [worker for worker in crew if worker.is_alive()]:
            running[0].join(0.2)
            tick()
            if failures:
                deadline = deadline or time.monotonic() + GRACE_S
                if time.monotonic() > deadline:
                    break
    except BaseException:
        call_off()
        deadline = time.monotonic() + GRACE_S
        for worker in crew:
            if worker.is_alive():
                worker.join(max(0.0, deadline - time.monotonic()))
        raise
    if failures:
        first = [number for number, error in sorted(failures.items()) if not isinstance(error, StoppedError)]
        raise failures[first[0] if first else min(failures)]
    return [results[number] for number in range(len(tasks))]
