"""Running the workflow as a user does: a `snakemake` process in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Outcome:
    """What a run printed and left."""

    status: int
    printed: str
    results: Path

    def check(self) -> Outcome:
        """This outcome, if the run succeeded."""
        assert self.status == 0, self.printed[-6000:]
        return self

    def job_count(self) -> int:
        """Jobs that the run started."""
        return self.printed.count("\nrule ") + self.printed.count("\nlocalrule ")


def snakemake(folder: Path, config: Path, *arguments: str) -> Outcome:
    """Run the workflow with outputs under ``folder/results``."""
    command = [sys.executable, "-m", "snakemake", "-s", str(REPOSITORY / "Snakefile"), "--directory", str(folder)]
    command += ["--configfile", str(config), "--cores", "2", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return Outcome(done.returncode, done.stdout + done.stderr, folder / "results")
