"""Kill a small study at 50 random moments, resume it each time, and hold its tables against an undisturbed run.

Usage: ``python benchmarks/kills.py [--moments 50] [--seed 1]``; about 20 minutes on two cores. Each run is killed until
it ends; runs are begun until there were as many kills as asked for.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.kills import run_through_kills
from support.tiny_study import final_tables, write_tiny_study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = write_tiny_study(folder / "study")
        run_through_kills(folder / "whole", config, 0, asked.seed)
        whole = final_tables(folder / "whole" / "results")
        kills = runs = 0
        while kills < asked.moments:
            runs += 1
            place = folder / f"run{runs}"
            kills += run_through_kills(place, config, min(10, asked.moments - kills), asked.seed + runs)
            assert final_tables(place / "results") == whole, f"tables differ: seed {asked.seed + runs}"
            print(f"{kills} kills in {runs} runs: all {len(whole)} tables the same", flush=True)


if __name__ == "__main__":
    main()
