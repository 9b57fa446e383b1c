"""A run that is killed at random moments, and resumed each time as its user would."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from support.slurm_cluster import descendants
from support.workflow import REPOSITORY

#: What Snakemake calls the script of a job that it runs.
SCRIPT = re.compile(r"\.snakemake/scripts/tmp\w+\.(\w+)\.py")


@dataclass(frozen=True)
class Kill:
    """One kill of a run: when, what of it, and what was at work.

    ``after_s``: seconds since the run held its folder. ``killed``: ``run`` for the process that manages it alone, whose
    jobs have to notice; ``run and jobs`` for all at once, as when a machine loses power. ``at_work``: scripts of the
    jobs that ran; empty between jobs, while the run plans or ends. ``half_written``: files that had no name yet.
    """

    after_s: float
    killed: str
    at_work: tuple[str, ...]
    half_written: int


def run_through_kills(
    folder: Path, config: Path, moments: int, seed: int, longest_s: float = 25.0, cores: int = 2
) -> list[Kill]:
    """Run a study under ``folder`` and kill it up to ``moments`` times, ``longest_s`` after its start at most.

    Each time the run is unlocked and started again, and at last left to end. A kill that finds the run at its end does
    not count.
    """
    random_moment = random.Random(seed)
    command = [sys.executable, "-m", "snakemake", "-s", str(REPOSITORY / "Snakefile"), "--directory", str(folder)]
    command += ["--configfile", str(config), "--cores", str(cores)]
    folder.mkdir(parents=True, exist_ok=True)
    printed = folder / "printed"
    kills: list[Kill] = []
    with printed.open("ab") as out:
        while len(kills) < moments:
            run = subprocess.Popen(command, stdout=out, stderr=out)
            _wait_until_at_work(folder, run)
            started = time.monotonic()
            try:
                status = run.wait(random_moment.uniform(0.0, longest_s))
            except subprocess.TimeoutExpired:
                alone = random_moment.random() < 0.5
                kills.append(_kill(run, folder, alone, time.monotonic() - started))
                subprocess.run([*command, "--unlock"], stdout=out, stderr=out, check=True)
            else:
                assert status == 0, printed.read_text()[-6000:]
                return kills
        status = subprocess.run(command, stdout=out, stderr=out, check=False).returncode
    assert status == 0, printed.read_text()[-6000:]
    return kills


def _kill(run: subprocess.Popen[bytes], folder: Path, alone: bool, after_s: float) -> Kill:
    """Kill a run, alone or with its jobs; what is told of the moment was looked at just before."""
    processes = descendants(run.pid)
    scripts: set[str] = set()
    for process in processes:
        with suppress(OSError):
            scripts.update(SCRIPT.findall(Path(f"/proc/{process}/cmdline").read_text(errors="replace")))
    halves = sum(bool(re.match(r"\.[0-9a-f]{32}\.", path.name)) for path in (folder / "results").rglob(".*"))
    for process in processes[:1] if alone else processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    run.wait()
    return Kill(after_s, "run" if alone else "run and jobs", tuple(sorted(scripts)), halves)


def _wait_until_at_work(folder: Path, run: subprocess.Popen[bytes]) -> None:
    """Wait until the run plans or works, so that not every kill meets a process that only loads its modules."""
    while run.poll() is None and not any((folder / ".snakemake" / "locks").glob("*")):
        time.sleep(0.05)
