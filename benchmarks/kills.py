"""Kill a small study at 50 random moments, resume it each time, and hold its tables against an undisturbed run.

Usage: ``python benchmarks/kills.py [--moments 50] [--seed 1]``; half an hour on two cores. A study is killed up to
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
from pathlib import Path

import pandas as pd

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "workflow"))
sys.path.insert(0, str(REPOSITORY / "tests"))

from immunomod.files import HALF, write_tsv  # noqa: E402
from support.kills import run_through_kills  # noqa: E402
from support.tiny_study import final_tables, write_tiny_study  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--longest",
        type=float,
        default=0.5,
        help="a run is killed after so much of an undisturbed run's time at the latest",
    )
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "kills.tsv")
    asked = parser.parse_args()
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = write_tiny_study(folder / "study")
        started = time.monotonic()
        run_through_kills(folder / "whole", config, 0, asked.seed, cores=1)
        whole = final_tables(folder / "whole" / "results")
        longest_s = asked.longest * (time.monotonic() - started)
        print(f"undisturbed: {len(whole)} tables; kills within {longest_s:.0f} s", flush=True)
        run = 0
        while len(rows) < asked.moments:
            run += 1
            place = folder / f"run{run}"
            moments = min(10, asked.moments - len(rows))
            kills = run_through_kills(place, config, moments, asked.seed + run, longest_s)
            tables = final_tables(place / "results")
            same = sum(tables.get(table) == checksum for table, checksum in whole.items())
            for number, kill in enumerate(kills, start=1):
                rows.append({"run": run, "kill": number, "after_s": round(kill.after_s, 1), "killed": kill.killed,
                             "at_work": ",".join(kill.at_work), "half_written": kill.half_written,
                             "tables": len(tables), "same": same})  # fmt: skip
            write_tsv(pd.DataFrame(rows), asked.out)
            print(f"{len(rows)} kills in {run} runs: {same} of {len(tables)} tables the same", flush=True)
            assert tables == whole, f"tables differ: {place}, seed {asked.seed + run}"
            left = [path for path in (place / "results").rglob(".*") if HALF.match(path.name)]
            assert not left, f"left: {left}"
    print(f"{time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
