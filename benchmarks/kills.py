"""Kill a small study at 50 random moments, resume it each time, and hold its tables against an undisturbed run.

Usage: ``python benchmarks/kills.py [--moments 50] [--at-once 1]``; half an hour on two cores. A study is killed up to
ten times and then left to end; studies are begun until there were as many kills as asked for. Half of the kills take
the process that manages the run alone, the others its jobs too.

``benchmarks/results/kills.tsv`` has one row per kill: ``run``, ``kill``, ``after_s`` (since the run held its folder),
``killed`` (``run``, or ``run and jobs``), ``at_work`` (the jobs that ran; empty between jobs), ``half_written`` (files
that had no name yet), ``tables`` (of the run, once it was resumed to its end) and ``same`` (those of them that are the
undisturbed run's, byte for byte).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from pathlib import Path

import pandas as pd

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "workflow"))
sys.path.insert(0, str(REPOSITORY / "tests"))

from immunomod.files import HALF, write_tsv  # noqa: E402
from support.kills import Kill, run_through_kills  # noqa: E402
from support.tiny_study import final_tables, write_tiny_study  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--longest", type=float, default=25.0, help="seconds after which a run is killed at the latest")
    parser.add_argument("--at-once", type=int, default=1, help="studies that run side by side")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "kills.tsv")
    asked = parser.parse_args()
    rows: list[dict[str, object]] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(asked.at_once + 1) as pool:
        folder = Path(name)
        config = write_tiny_study(folder / "study")
        undisturbed = pool.submit(run_through_kills, folder / "whole", config, 0, asked.seed, cores=1)
        runs = count(1)
        while len(rows) < asked.moments:
            each = min(10, -(-(asked.moments - len(rows)) // asked.at_once))
            begun = {}
            for run in islice(runs, asked.at_once):
                place = folder / f"run{run}"
                begun[run] = pool.submit(run_through_kills, place, config, each, asked.seed + run, asked.longest)
            for number, kills in begun.items():
                undisturbed.result()
                rows += compared(number, folder, kills.result())
                write_tsv(pd.DataFrame(rows), asked.out)
                print(f"{len(rows)} kills in {number} runs, {time.monotonic() - started:.0f} s", flush=True)
                assert all(row["same"] == row["tables"] for row in rows), f"tables differ: {rows[-1]}"


def compared(run: int, folder: Path, kills: list[Kill]) -> list[dict[str, object]]:
    """A row for every kill of a run that was resumed to its end."""
    results = folder / f"run{run}" / "results"
    tables, whole = final_tables(results), final_tables(folder / "whole" / "results")
    assert tables.keys() == whole.keys(), sorted(tables.keys() ^ whole.keys())
    left = [path for path in results.rglob(".*") if HALF.match(path.name)]
    assert not left, f"left: {left}"
    same = sum(tables[table] == checksum for table, checksum in whole.items())
    return [
        {"run": run, "kill": number, "after_s": round(kill.after_s, 1), "killed": kill.killed,
         "at_work": ",".join(kill.at_work), "half_written": kill.half_written, "tables": len(tables), "same": same}
        for number, kill in enumerate(kills, start=1)
    ]  # fmt: skip


if __name__ == "__main__":
    main()
