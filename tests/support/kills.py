"""A run that is killed at random moments, and resumed each time as its user would."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

from support.workflow import REPOSITORY


def run_through_kills(folder: Path, config: Path, moments: int, seed: int, longest_s: float = 25.0) -> int:
    """Run a study under ``folder``; kill the process that manages it up to ``moments`` times; returns how often.

    Each time the run is unlocked and started again, and at last left to end. A kill that finds the run at its end does
    not count.
    """
    random_moment = random.Random(seed)
    command = [sys.executable, "-m", "snakemake", "-s", str(REPOSITORY / "Snakefile"), "--directory", str(folder)]
    command += ["--configfile", str(config), "--cores", "2"]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "printed").open("ab") as out:
        for kill in range(moments):
            run = subprocess.Popen(command, stdout=out, stderr=out)
            _wait_until_at_work(folder, run)
            try:
                status = run.wait(random_moment.uniform(0.0, longest_s))
            except subprocess.TimeoutExpired:
                run.kill()
                run.wait()
                subprocess.run([*command, "--unlock"], stdout=out, stderr=out, check=True)
            else:
                assert status == 0, (folder / "printed").read_text()[-6000:]
                return kill
        status = subprocess.run(command, stdout=out, stderr=out, check=False).returncode
    assert status == 0, (folder / "printed").read_text()[-6000:]
    return moments


def _wait_until_at_work(folder: Path, run: subprocess.Popen[bytes]) -> None:
    """Wait until the run plans or works, so that not every kill meets a process that only loads its modules."""
    while run.poll() is None and not any((folder / ".snakemake" / "locks").glob("*")):
        time.sleep(0.05)
