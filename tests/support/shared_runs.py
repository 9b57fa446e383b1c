"""Runs of the workflow that several modules look at: made by the first that asks, in whichever worker it is."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from support.workflow import Outcome


def run_once(factory: pytest.TempPathFactory, name: str, run: Callable[[Path], Outcome]) -> Outcome:
    """What ``run`` left in its folder, made by this worker or another, which is waited for. Tests only read it."""
    base = factory.getbasetemp()
    # of pytest-xdist's workers each has a folder of its own in that of the session
    folder = (base.parent if base.name.startswith("popen-") else base) / f"shared_{name}"
    folder.mkdir(exist_ok=True)
    told = folder / "outcome.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not told.exists():
            outcome = run(folder)
            told.write_text(json.dumps([outcome.status, outcome.printed, str(outcome.results)]), encoding="utf-8")
    status, printed, results = json.loads(told.read_text(encoding="utf-8"))
    return Outcome(status, printed, Path(results)).check()
