"""What a job costs beside its work: Snakemake's share, the start of Python, and the imports of each rule's script.

    python benchmarks/job_overhead.py [--jobs 20] [--repeats 3] [--out benchmarks/results/job_overhead.tsv]

Measures
    ``job``: a workflow of ``--jobs`` jobs that run one after another, each a script that does nothing within
    ``rule_job``, less the same workflow with one job, by the number of jobs between. ``python``: an interpreter that
    starts and ends. ``imports of <rule>``: an interpreter that imports what the rule's script imports, less the bare
    one. ``plan``: reading the Snakefile and planning the demo. Every process has one thread and warm caches: each is
    run once before it is timed. ``seconds`` by the clock, ``cpu_seconds`` computed in the process and what it started,
    which other users of the machine disturb less; medians over ``--repeats``.
"""

from __future__ import annotations

import argparse
import ast
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "workflow"))

SNAKEFILE = """
rule all:
    input: expand("done/{{number}}", number=range({jobs}))

rule nothing:
    output: "done/{{number}}"
    log: "logs/{{number}}.log"
    benchmark: "benchmarks/{{number}}.tsv"
    script: "nothing.py"
"""
SCRIPT = """
from pathlib import Path
from immunomod.job import rule_job

with rule_job(snakemake):
    Path(snakemake.output[0]).touch()
"""


def environment() -> dict[str, str]:
    """One thread, and the package on the path, as in a run."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    return os.environ | threads | {"PYTHONPATH": str(REPOSITORY / "workflow")}


def timed(command: list[str], folder: Path) -> tuple[float, float]:
    """Seconds by the clock and of the processor that a command took; it must succeed."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise SystemExit(done.stdout + done.stderr)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def medians(command: list[str], folder: Path, repeats: int) -> tuple[float, float]:
    """Medians of :func:`timed`, after one run that is not counted."""
    runs = [timed(command, folder) for _ in range(repeats + 1)][1:]
    return statistics.median(run[0] for run in runs), statistics.median(run[1] for run in runs)


def imports_of(script: Path) -> str:
    """The import statements of a script, as a program."""
    statements = [part for part in ast.parse(script.read_text()).body if isinstance(part, ast.Import | ast.ImportFrom)]
    return "; ".join(map(ast.unparse, statements))


def job(folder: Path, jobs: int, repeats: int) -> tuple[float, float]:
    """What one job more costs a run."""
    (folder / "nothing.py").write_text(SCRIPT)
    took = []
    for number in (1, jobs + 1):
        (folder / "Snakefile").write_text(SNAKEFILE.format(jobs=number))
        command = [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet", "--forceall"]
        took.append(medians(command, folder, repeats))
    return (took[1][0] - took[0][0]) / jobs, (took[1][1] - took[0][1]) / jobs


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "job_overhead.tsv")
    given = parser.parse_args()
    rows: list[tuple[str, float, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows.append(("job", *job(folder, given.jobs, given.repeats)))
        bare = medians([sys.executable, "-c", "pass"], folder, given.repeats)
        rows.append(("python", *bare))
        for script in sorted((REPOSITORY / "workflow" / "scripts").glob("*.py")):
            took = medians([sys.executable, "-c", imports_of(script)], folder, given.repeats)
            rows.append((f"imports of {script.stem}", took[0] - bare[0], took[1] - bare[1]))
        plan = [sys.executable, "-m", "snakemake", "-s", str(REPOSITORY / "Snakefile"), "--directory", name]
        plan += ["--configfile", str(REPOSITORY / "config/demo/config.yaml"), "--dry-run", "--quiet", "--cores", "1"]
        rows.append(("plan", *medians(plan, folder, given.repeats)))
    table = pd.DataFrame(rows, columns=["part", "seconds", "cpu_seconds"]).round(3)
    print(table.to_string(index=False))
    from immunomod.files import write_tsv

    write_tsv(table, given.out)


if __name__ == "__main__":
    main()
