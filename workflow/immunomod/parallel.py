"""Blocks of work on several threads, with results that do not depend on how many there are.

The work is cut into blocks whose bounds follow from the data alone, every block writes its own part of the result, and
the linear algebra inside a block is held to one thread: numpy, the compiled kernels and HDF5 let go of Python's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

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


def row_blocks(n_rows: int, rows_at_once: int) -> list[slice]:
    """Consecutive slices of ``rows_at_once`` rows that cover ``n_rows``."""
    return [slice(start, min(start + rows_at_once, n_rows)) for start in range(0, n_rows, rows_at_once)]
