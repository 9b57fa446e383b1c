"""How far a data set is, in files, bytes and time: a line on standard error now and then, and one at the end."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

EVERY_S = 10.0


@dataclass
class FileProgress:
    """How far one file is; only the thread that fetches it writes here.

    Attributes
    ----------
    expected
        Its size in bytes, or None where neither a listing nor the server says.
    have
        Bytes of it on disk.
    arrived
        Of those, bytes that came in this run: what the speed is measured by.
    """

    expected: int | None = None
    have: int = 0
    arrived: int = 0
    done: bool = False

    def begin(self, have: int, expected: int | None) -> None:
        """A server begins to send, from the byte ``have`` on."""
        self.have = have
        self.expected = expected if expected is not None else self.expected

    def add(self, count: int) -> None:
        """So many bytes arrived."""
        self.have += count
        self.arrived += count

    def finish(self, size: int) -> None:
        """The file is there, with ``size`` bytes."""
        self.have = self.expected = size
        self.done = True


class Progress:
    """The files of one data set.

    Parameters
    ----------
    name
        What the lines begin with.
    say
        Takes a line; prints it on standard error unless told otherwise.
    clock
        Seconds; for tests.
    """

    def __init__(
        self,
        name: str,
        say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._say = say
        self._clock = clock
        self._begun = self._said = clock()
        self._files: list[FileProgress] = []

    def add(self, expected: int | None) -> FileProgress:
        """One more file, of this size in bytes where it is known."""
        file = FileProgress(expected)
        self._files.append(file)
        return file

    def tick(self) -> None:
        """Say how far it is, if nothing was said for ten seconds."""
        if self._clock() - self._said >= EVERY_S:
            self._said = self._clock()
            self._say(self.line())

    def close(self) -> None:
        """Say what there is in the end; nothing if no file was asked for."""
        if self._files:
            self._say(self.line())

    def line(self) -> str:
        """How far it is: ``GSE1: 3 of 12 files, 120 of 480 MB, about 2 min left``.

        The whole and the time are left out while the size of a file is unknown.
        """
        files = list(self._files)
        have = sum(file.have for file in files)
        sizes = [file.expected for file in files if file.expected is not None]
        whole = sum(sizes) if len(sizes) == len(files) else None
        text = f"{self.name}: {sum(file.done for file in files)} of {len(files)} files, {_amount(have, whole)}"
        arrived = sum(file.arrived for file in files)
        if whole is None or have >= whole or not arrived:
            return text
        left = (whole - have) * (self._clock() - self._begun) / arrived
        return f"{text}, about {_duration(left)} left"


def _amount(have: int, whole: int | None) -> str:
    largest = have if whole is None else max(have, whole)
    unit, scale = ("GB", 1e9) if largest >= 10e9 else ("MB", 1e6)
    digits = 1 if largest < 10 * scale else 0
    return f"{have / scale:,.{digits}f}" + ("" if whole is None else f" of {whole / scale:,.{digits}f}") + f" {unit}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{max(1, math.ceil(seconds))} s"
    return f"{math.ceil(seconds / 60)} min" if seconds < 5400 else f"{math.ceil(seconds / 3600)} h"
