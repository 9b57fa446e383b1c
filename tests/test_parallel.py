"""Work on threads and on forked processes."""

from __future__ import annotations

import os
import signal

import pytest

from immunomod.errors import UserError
from immunomod.parallel import for_each, for_each_process, in_background


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("n_blocks", [0, 1, 2, 5])
def test_results_stand_in_the_order_of_the_blocks(threads: int, n_blocks: int) -> None:
    blocks = list(range(n_blocks))
    for way in (for_each, for_each_process):
        assert way(blocks, lambda block: block**2, threads) == [block**2 for block in blocks]


def test_background_work_is_another_process_and_goes_on_meanwhile() -> None:
    wait = in_background(lambda: (os.getpid(), "done"), threads=2)
    process, said = wait()
    assert said == "done" and process != os.getpid()
    assert in_background(os.getpid, threads=1)() == os.getpid()


def test_processes_may_start_processes() -> None:
    wait = in_background(lambda: for_each_process([1, 2, 3], lambda block: block + 1, 2), threads=2)
    assert wait() == [2, 3, 4]


def test_what_work_raises_is_raised_where_it_is_waited_for() -> None:
    def fail() -> None:
        raise UserError("samples.tsv, row 2: wrong. Correct it.")

    with pytest.raises(UserError, match="row 2: wrong"):
        in_background(fail, threads=2)()
    with pytest.raises(UserError, match="row 2: wrong"):
        for_each_process([0, 1], lambda _: fail(), threads=2)


def test_a_process_that_is_killed_is_an_error_and_no_wait_for_ever() -> None:
    wait = in_background(lambda: os.kill(os.getpid(), signal.SIGKILL), threads=2)
    with pytest.raises(RuntimeError, match="ended early"):
        wait()
