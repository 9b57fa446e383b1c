"""Runs contestants on the same simulated counts, each step in time and memory, and compares what they found.

    python benchmarks/atlas/run.py --cells 100000 --python /path/to/other/environment/bin/python

The contestants scanpy, scranpy and brisc need an environment of their own (``pip install scanpy leidenalg igraph
scikit-misc scranpy brisc``), named by ``--python``; this workflow runs in the environment that runs this script. Every
contestant starts as a fresh process with an empty numba cache. A contestant that is measured already, or failed, is
not run again unless ``--again`` names it. Results: benchmarks/results/atlas_speed.tsv, atlas_steps.tsv.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from agreement import agreement, principal_angle
from counts import write_study, write_together

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results"
OWN = "immunomod"
CONTESTANTS = {
    OWN: ["immunomod_run.py"],
    "brisc": ["brisc_run.py"],
    "scranpy": ["scranpy_run.py"],
    "scanpy_lean": ["scanpy_run.py", "--lean"],
    "scanpy_tutorial": ["scanpy_run.py"],
}


def run(name: str, study: Path, out: Path, python: str, seconds: int) -> dict[str, float | str]:
    """One contestant in a fresh process; its wall and CPU seconds and its peak memory."""
    script, *options = CONTESTANTS[name]
    with tempfile.TemporaryDirectory() as cache:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment |= {"NUMBA_CACHE_DIR": cache, "PYTHONPATH": str(HERE.parents[1] / "workflow")}
        command = [sys.executable if name == OWN else python, str(HERE / script), str(study), str(out), *options]
        start = time.monotonic()
        # a group of its own, so that its worker processes end with it
        process = subprocess.Popen(command, env=environment, cwd=HERE, start_new_session=True)
        try:
            status = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return {"wall_s": float(seconds), "status": f"stopped after {seconds} s"}
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    wall = time.monotonic() - start
    if status:
        return {"wall_s": wall, "status": f"exit status {status}"}
    steps = pd.DataFrame(json.loads((out / "steps.json").read_text()))
    return {"wall_s": steps["wall_s"].sum(), "cpu_s": steps["cpu_s"].sum(), "peak_mb": steps["peak_mb"].max(),
            "status": "ok"}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--tools", default=",".join(CONTESTANTS))
    parser.add_argument("--python", default=sys.executable, help="interpreter of the contestants' environment")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "immunomod_atlas_benchmark")
    parser.add_argument("--again", default="", help="contestants to run again")
    parser.add_argument("--seconds", type=int, default=3_600, help="time limit of a contestant")
    chosen = parser.parse_args()
    study = chosen.folder / str(chosen.cells) / "study"
    if not (study / "truth.tsv.gz").exists():
        write_study(study, chosen.cells, together=False)
    if chosen.tools != OWN and not (study / "counts.h5ad").exists():
        write_together(study)
    rows, steps = [], []
    for name in chosen.tools.split(","):
        out = chosen.folder / str(chosen.cells) / name
        measured = out / "measured.json"
        if name in chosen.again.split(","):
            measured.unlink(missing_ok=True)
        if not measured.exists():
            print(f"{name}, {chosen.cells:,} cells", flush=True)
            found = run(name, study, out, chosen.python, chosen.seconds)
            out.mkdir(parents=True, exist_ok=True)
            measured.write_text(json.dumps(found))
        row = {"tool": name, "cells": chosen.cells} | json.loads(measured.read_text())
        if row["status"] == "ok":
            row |= agreement(study, out)
            own = chosen.folder / str(chosen.cells) / OWN
            if (own / "loadings.npy").exists():
                row["angle_to_own_degrees"] = principal_angle(out, own)
            steps.append(
                pd.DataFrame(json.loads((out / "steps.json").read_text())).assign(tool=name, cells=chosen.cells)
            )
        rows.append(row)
    table = pd.DataFrame(rows)
    first = table.loc[table["tool"] == OWN, ["wall_s", "peak_mb"]]
    if len(first) and first.notna().all(axis=None):
        table["times_slower"] = table["wall_s"] / first["wall_s"].iloc[0]
        table["times_memory"] = table["peak_mb"] / first["peak_mb"].iloc[0]
    _merge(table, RESULTS / "atlas_speed.tsv", ["tool", "cells"])
    if steps:
        _merge(pd.concat(steps), RESULTS / "atlas_steps.tsv", ["tool", "cells", "step"])
    print(table.round(3).to_string(index=False))


def _merge(table: pd.DataFrame, path: Path, key: list[str]) -> None:
    """Rows of ``table`` replace those of the same key in the file."""
    if path.exists():
        table = pd.concat([pd.read_csv(path, sep="\t"), table]).drop_duplicates(key, keep="last")
    table = table.sort_values(key[:2][::-1], kind="stable")
    table.to_csv(path, sep="\t", index=False, float_format="%.4g")


if __name__ == "__main__":
    main()
