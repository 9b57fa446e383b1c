"""Time and memory of a run, from the ``benchmark:`` files that Snakemake writes for every job."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from immunomod.files import read_tsv

JOB_COLUMNS = ("rule", "job", "started", "ended", "seconds", "cpu_seconds", "max_rss_mb", "mb_read", "mb_written")
RULE_COLUMNS = ("rule", "jobs", "seconds", "longest_seconds", "cpu_seconds", "max_rss_mb", "mb_read", "mb_written")


def job_table(benchmarks: Path, names: Iterable[str]) -> pd.DataFrame:
    """One row per job, in the order in which they began.

    Parameters
    ----------
    benchmarks
        The run's folder ``benchmarks/``: ``<rule>.tsv``, or ``<rule>/<wildcard>/…/<wildcard>.tsv``.
    names
        Samples, data sets, atlases and contrasts of the run; files of other names are left over from older runs.

    Returns
    -------
    Columns :data:`JOB_COLUMNS`. A job that Snakemake could not measure (shorter than a second or so) has no memory. The
    time at which a job ended is that of its file; both times are UTC.
    """
    known = set(names)
    rows = []
    for path in sorted(benchmarks.rglob("*.tsv")):
        rule, *wildcards = path.relative_to(benchmarks).with_suffix("").parts
        if not known.issuperset(wildcards):
            continue
        measured = pd.to_numeric(read_tsv(path, dtype=str).iloc[-1], errors="coerce")
        ended = path.stat().st_mtime
        rows.append(
            {
                "rule": rule,
                "job": "/".join(wildcards),
                "started": utc(ended - float(measured["s"])),
                "ended": utc(ended),
                "seconds": measured["s"],
                "cpu_seconds": measured.get("cpu_time"),
                "max_rss_mb": measured.get("max_rss"),
                "mb_read": measured.get("io_in"),
                "mb_written": measured.get("io_out"),
            }
        )
    table = pd.DataFrame(rows, columns=list(JOB_COLUMNS))
    return table.sort_values(["started", "rule", "job"], ignore_index=True)


def rule_table(jobs: pd.DataFrame) -> pd.DataFrame:
    """One row per rule, in the order in which they began: the sums of its jobs' times, and the largest memory."""
    grouped = jobs.groupby("rule", sort=False)
    table = grouped.agg(
        jobs=("job", "size"),
        seconds=("seconds", "sum"),
        longest_seconds=("seconds", "max"),
        cpu_seconds=("cpu_seconds", "sum"),
        max_rss_mb=("max_rss_mb", "max"),
        mb_read=("mb_read", "sum"),
        mb_written=("mb_written", "sum"),
    ).reset_index()
    return table[list(RULE_COLUMNS)].round(3)


def utc(seconds: float) -> str:
    """A time since the epoch as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
