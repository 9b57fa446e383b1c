"""Doublet methods side by side: what they find, what they take, and the check for MSC-immune doublets.

Run from the repository: ``python benchmarks/doublets.py [--cells N] [--seeds N] [--shared FOLDER]``; about ten
minutes on two cores, most of them scanpy's. Writes ``benchmarks/results/doublets.tsv``, one row per experiment,
setting and measure.

Experiments
    *cost*: a library of 20,000 cells, 30,000 genes and about 2,000 detected genes a cell, ten classes, 6% doublets.
    Each method runs in a process of its own on one thread: ``import_seconds``, ``seconds``, ``cpu_seconds`` and
    ``peak_mb`` above the loaded counts (VmHWM, reset through ``/proc/self/clear_refs``), and ``auc``, ``power`` and
    ``false_positives`` against the truth.
    *finds*: simulated co-cultures and stimulated immune cells, and real singlets of GSE96583 (where ``--shared`` has
    them) added up in pairs: ``auc`` over heterotypic doublets, and ``power`` and ``false_positives`` of the calls,
    means over libraries and over three draws of simulated doublets.
    *partner*: co-cultures of about 1,150 cells with 0 to 30% leakage and no, 5% or 20% doublets. ``false_positives``
    among all but the mixed doublets (``false_positives_max``: in the worst library); ``power`` among the mixed ones,
    ``power_of_missed`` among those that scrublet misses, ``power_leaked`` among those that hold the leakage of a single
    MSC (in the simulation: whose first cell is an MSC; the others hold none of the immune cells').
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "workflow"), str(REPOSITORY / "tests")]

from support.doublet_libraries import (  # noqa: E402
    KANG,
    area_under_curve,
    exclusive_genes,
    kang_with_doublets,
    scanpy_scrublet,
    simulated,
)

N_GENES, N_CLASSES, RATE = 30_000, 10, 0.06
METHODS = ("scanpy", "scrublet", "cxds")


def draw_library(n_cells: int, seed: int) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray]:
    """Counts, which cells are doublets of two classes, and which are doublets of any kind."""
    rng = np.random.default_rng(seed)
    profiles = np.tile(rng.lognormal(-3.6, 2.2, N_GENES), (N_CLASSES, 1))
    for profile in profiles:
        profile[rng.choice(N_GENES, 600, replace=False)] *= np.exp(rng.normal(0.8, 1.0, 600))
    profiles /= profiles.sum(axis=1, keepdims=True)
    weight = rng.dirichlet(np.full(N_CLASSES, 3.0))
    first, second = rng.choice(N_CLASSES, (2, n_cells), p=weight)
    doublet = rng.random(n_cells) < RATE
    depth = rng.lognormal(np.log(3600), 0.35, (2, n_cells)) * np.array([np.ones(n_cells), doublet])
    parts = []
    for start in range(0, n_cells, 500):
        rows = slice(start, start + 500)
        rate = profiles[first[rows]] * depth[0, rows, None] + profiles[second[rows]] * depth[1, rows, None]
        parts.append(sparse.csr_matrix(rng.poisson(rate).astype(np.int32)))
    return sparse.vstack(parts, format="csr"), doublet & (first != second), doublet


def run(method: str, counts: sparse.csr_matrix, rate: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and calls."""
    if method == "scanpy":
        score, threshold = scanpy_scrublet(counts, rate, seed)
        return score, score > threshold if threshold is not None else np.zeros(len(score), dtype=bool)
    from immunomod.sample.doublets import REGISTRY

    calls = REGISTRY[method].run(counts, rate, seed)
    return np.nan_to_num(calls.score), calls.predicted


def found(score: np.ndarray, called: np.ndarray, planted: np.ndarray, doublet: np.ndarray) -> dict[str, float]:
    judged = planted | ~doublet
    return {
        "auc": area_under_curve(score[judged], planted[judged]),
        "power": float(called[planted].mean()),
        "false_positives": float(called[~doublet].mean()),
    }


def memory(field: str) -> float:
    text = Path("/proc/self/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith(field)).split()[1]) / 1e3


def measure(method: str, path: Path) -> None:
    """In a process of its own: print what one method takes and finds on the library in ``path``."""
    with np.load(path) as saved:
        parts = {name: saved[name] for name in saved.files}
    counts = sparse.csr_matrix((parts["data"], parts["indices"], parts["indptr"]), shape=tuple(parts["shape"]))
    Path("/proc/self/clear_refs").write_text("5")
    before, start = memory("VmRSS"), time.perf_counter()
    if method == "scanpy":
        import scanpy  # noqa: F401
    else:
        import immunomod.sample.doublets  # noqa: F401
    imported, cpu = time.perf_counter(), time.process_time()
    score, called = run(method, counts, RATE, 1)
    took = {
        "import_seconds": imported - start,
        "seconds": time.perf_counter() - imported,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mb": memory("VmHWM") - before,
    }
    print(json.dumps(took | found(score, called, parts["planted"], parts["doublet"])))


def cost(n_cells: int) -> list[tuple[str, str, str, float, int]]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "library.npz"
        counts, planted, doublet = draw_library(n_cells, 1)
        np.savez(
            path,
            data=counts.data,
            indices=counts.indices,
            indptr=counts.indptr,
            shape=counts.shape,
            planted=planted,
            doublet=doublet,
        )
        genes_per_cell = counts.nnz / n_cells
        del counts
        rows.append(("cost", "library", "detected_genes", genes_per_cell, 1))
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        for method in METHODS:
            command = [sys.executable, __file__, "--measure", method, str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | threads)
            values = json.loads(done.stdout.splitlines()[-1])
            rows += [("cost", method, name, value, 1) for name, value in values.items()]
    return rows


def finds(n_seeds: int, shared: Path) -> list[tuple[str, str, str, float, int]]:
    kinds: dict[str, list[tuple[sparse.csr_matrix, np.ndarray, np.ndarray]]] = {}
    for leakage, arm in ((0.002, "coculture"), (0.1, "coculture"), (0.3, "coculture"), (0.002, "immune_alone")):
        libraries = [simulated(seed, leakage, arm=arm) for seed in range(1, n_seeds + 1)]
        kinds[f"{arm}, leakage {leakage:g}"] = [(one.counts, one.heterotypic, one.doublet) for one in libraries]
    if (shared / KANG).exists():
        pairs = [kang_with_doublets(shared, seed) for seed in range(1, n_seeds + 1)]
        kinds["GSE96583 singlets added up"] = [(counts, planted, planted) for counts, planted in pairs]
    rows = []
    for kind, libraries in kinds.items():
        for method in METHODS:
            values = pd.DataFrame(
                [found(*run(method, counts, 0.05, draw), *truth) for counts, *truth in libraries for draw in (1, 2, 3)]
            )
            rows += [("finds", f"{kind}; {method}", str(k), float(v), len(values)) for k, v in values.mean().items()]
    return rows


def partner(n_seeds: int) -> list[tuple[str, str, str, float, int]]:
    from immunomod.sample.doublets import partner_doublets

    rows = []
    for rate in (0.0, 0.05, 0.2):
        for leakage in (0.0, 0.002, 0.05, 0.1, 0.2, 0.3):
            false, mixed, missed, leaked = [], [], [], []
            for seed in range(101, 101 + n_seeds):
                one = simulated(seed, leakage, rate, scale=4)
                called = partner_doublets(one.counts, *exclusive_genes(), one.compartment).predicted
                false.append(called[~one.mixed].mean())
                if rate:
                    _, by_scrublet = run("scrublet", one.counts, rate, 1)
                    mixed.append(called[one.mixed])
                    missed.append(called[one.mixed & ~by_scrublet])
                    leaked.append(called[one.mixed & one.first_is_msc])
            setting = f"doublets {rate:g}, leakage {leakage:g}"
            rows.append(("partner", setting, "false_positives", float(np.mean(false)), n_seeds))
            rows.append(("partner", setting, "false_positives_max", float(np.max(false)), n_seeds))
            for name, parts in (("power", mixed), ("power_of_missed", missed), ("power_leaked", leaked)):
                if parts:
                    together = np.concatenate(parts)
                    rows.append(("partner", setting, name, float(together.mean()), len(together)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--shared", type=Path, default=REPOSITORY.parent / "shared")
    parser.add_argument("--measure", nargs=2, metavar=("METHOD", "FILE"), help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=("cost", "finds", "partner"), help="one experiment; the others' rows stay")
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure[0], Path(arguments.measure[1]))
        return
    experiments = {
        "cost": lambda: cost(arguments.cells),
        "finds": lambda: finds(arguments.seeds, arguments.shared),
        "partner": lambda: partner(arguments.seeds),
    }
    path = REPOSITORY / "benchmarks" / "results" / "doublets.tsv"
    table = pd.read_csv(path, sep="\t") if path.exists() else pd.DataFrame()
    for name, experiment in experiments.items():
        if arguments.only not in (None, name):
            continue
        rows = pd.DataFrame(experiment(), columns=["experiment", "setting", "measure", "value", "n"])
        kept = table[table["experiment"] != name] if len(table) else table
        table = pd.concat([kept, rows.round({"value": 4})], ignore_index=True)
    table["value"] = table["value"].map("{:g}".format)
    table.to_csv(path, sep="\t", index=False)
    print(table.to_string())


if __name__ == "__main__":
    main()
