"""Blocks of work on several threads, with results that do not depend on how many there are.

The work is cut into blocks whose bounds follow from the data alone, every block writes its own part of the result, and
the linear algebra inside a block is held to one thread: numpy, the compiled kernels and HDF5 let go of Python's lock.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

Block = TypeVar("Block")
Result = TypeVar("Result")


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS and OpenMP to one thread: sums in another order are other sums."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


def for_each(blocks: Sequence[Block], work: Callable[[Block], Result], threads: int) -> list[Result]:
    """``work`` of every block, on at most ``threads`` threads; results in the order of ``blocks``."""
    if threads <= 1 or len(blocks) <= 1:
        return [work(block) for block in blocks]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, blocks))


def in_background(work: Callable[[], Result], threads: int) -> Callable[[], Result]:
    """Begin ``work`` in a forked process, since it holds Python's lock; the function returned waits for its result.

    With one thread, or where processes cannot be forked, it runs when its result is asked for. What ``work`` raises is
    raised there. Fork rather than spawn: nothing is imported or copied again, and what runs need not be importable.
    """
    if threads <= 1 or "fork" not in multiprocessing.get_all_start_methods():
        return work
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)

    def run() -> None:
        try:
            answer: tuple[bool, Any] = (True, work())
        except Exception as error:
            answer = (False, error)
        sending.send(answer)
        sending.close()

    process = context.Process(target=run)
    process.start()
    sending.close()

    def wait() -> Result:
        try:
            succeeded, answer = receiving.recv()
        except EOFError:
            process.join()
            raise RuntimeError(f"a process of this job ended early (exit status {process.exitcode})") from None
        process.join()
        if not succeeded:
            raise answer
        result: Result = answer
        return result

    return wait


def for_each_process(blocks: Sequence[Block], work: Callable[[Block], Result], threads: int) -> list[Result]:
    """As :func:`for_each`, on forked processes: this one takes every ``threads``-th block, its children the others."""
    n = min(threads, len(blocks))
    waiting = [in_background(lambda k=k: [work(block) for block in blocks[k::n]], n) for k in range(1, n)]  # type: ignore[misc]
    parts = [[work(block) for block in blocks[:: max(n, 1)]], *(wait() for wait in waiting)]
    return [parts[number % n][number // n] for number in range(len(blocks))]


def row_blocks(n_rows: int, rows_at_once: int) -> list[slice]:
    """Consecutive slices of ``rows_at_once`` rows that cover ``n_rows``."""
    return [slice(start, min(start + rows_at_once, n_rows)) for start in range(0, n_rows, rows_at_once)]
