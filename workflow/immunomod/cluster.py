"""Jobs on a cluster: what they ask for, and what a run that was killed left there.

The process that manages a run on SLURM may die (the login node restarts, somebody logs out) while its jobs go
on. Whoever runs again would have each file written by two jobs. No reader meets half a file even then, because files
are renamed into place whole; but the job that was left may bring back what settings of yesterday gave, and Snakemake
removes the outputs of a job that fails. So a run first cancels what a former one left, and waits until it is gone.
"""

from __future__ import annotations

import csv
import logging
import os
import re
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from immunomod.errors import UserError

PATIENCE_S = 120.0
LOG_OF_A_JOB = re.compile(r"/(\d+)\.log$")
NAMED = re.compile(r"immunomod: SLURM job (\d+) on ")
STATES = "PENDING,CONFIGURING,RUNNING,SUSPENDED,STOPPED,COMPLETING,REQUEUED"

log = logging.getLogger(__name__)


def reading_memory_mb(manifest: str | Path) -> int:
    """Memory to ask for to read a sample, from the sizes of its files: 8 bytes a count, and a packed count takes 3.

    Raises
    ------
    FileNotFoundError
        The sample was not fetched yet; Snakemake asks again when it was.
    """
    # not by pandas, whose parser has crashed inside Snakemake's scheduler
    with Path(manifest).open(encoding="utf-8", newline="") as file:
        sizes = [float(row["bytes"] or 0) for row in csv.DictReader(file, delimiter="\t")]
    return int(1500 + 12 * sum(sizes) / 1e6)


def largest_mb(paths: Iterable[str | Path]) -> float:
    """Size of the largest of some files in MB; FileNotFoundError where one is not there yet."""
    return max((Path(path).stat().st_size / 1e6 for path in paths), default=0.0)


def cancel_left_jobs(workflow: Any) -> list[str]:
    """Cancel the SLURM jobs that a former run of these files left behind; returns their numbers.

    Their numbers stand in Snakemake's own marks of unfinished files until a job begins, and in the job's log from then
    on. Only those are touched that SLURM knows as this user's, waiting or running, with this working directory.

    Raises
    ------
    UserError
        They are still there after two minutes.
    """
    named: set[str] = set()
    for job in workflow.dag.needrun_jobs():
        named.update(map(str, workflow.persistence.external_jobids(job)))
        named.update(number for path in job.log if (number := job_of_log(path)))
    left = sorted(named & jobs_here(Path.cwd())) if named else []
    if left:
        log.warning("cancelling SLURM jobs that a former run left: %s", ", ".join(left))
        _slurm("scancel", *left)
        _wait_until_gone(set(left))
    return left


def say_why_groups_fail(logger: logging.Logger) -> None:
    """Have what ``logger`` says of a group of jobs that failed tell SLURM's reason, as it does of a single job.

    Snakemake is told why by its executor, but prints of a group no more than where its log lies.
    """
    if not any(isinstance(known, _GroupsReason) for known in logger.filters):
        logger.addFilter(_GroupsReason())


class _GroupsReason(logging.Filter):
    """Completes the message of a group's failure; lets every message through."""

    def filter(self, record: logging.LogRecord) -> bool:
        if str(getattr(record, "event", "")).endswith("group_error"):
            logs = (LOG_OF_A_JOB.search(str(path)) for path in getattr(record, "aux_logs", ()))
            for number in (found[1] for found in logs if found):
                # "CANCELLED by 1000" and the like
                state = _slurm("sacct", "--noheader", "--parsable2", "--allocations", "--format=State", f"-j{number}")
                if state.strip():
                    record.msg = f"{record.msg}: SLURM job {number} failed, SLURM status is: '{state.split()[0]}'"
        return True


def job_of_log(path: str | Path) -> str:
    """The SLURM job that wrote a rule's log last; empty where there is none."""
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as handle:
            found = NAMED.search(handle.readline())
    except OSError:
        return ""
    return found[1] if found else ""


def jobs_here(folder: Path) -> set[str]:
    """Numbers of this user's SLURM jobs that wait or run and were submitted from ``folder``; none without SLURM."""
    answer = _slurm("squeue", "--noheader", f"--user={os.getuid()}", f"--states={STATES}", "--format=%A|%Z")
    jobs = (line.strip().partition("|") for line in answer.splitlines())
    return {number for number, _, place in jobs if Path(place).resolve() == folder.resolve()}


def _slurm(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _wait_until_gone(numbers: set[str]) -> None:
    end = time.monotonic() + PATIENCE_S
    while still := numbers & jobs_here(Path.cwd()):
        if time.monotonic() > end:
            raise UserError(
                f"SLURM jobs of a former run do not end: {', '.join(sorted(still))}. Cancel them (scancel), wait until "
                "squeue lists them no more, then run again"
            )
        time.sleep(1)
