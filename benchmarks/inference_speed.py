"""How long the inference floor takes on a study of 8 donors, 12 cell classes and 3 contrasts, on two cores.

Run from the repository: ``python benchmarks/inference_speed.py [--method deseq2|limma_trend] [--profile]``. Writes
``benchmarks/results/inference_speed.tsv``, one row per step and model: seconds on the clock, and of processor time
(which other work on the machine does not lengthen). Contrasts run side by side on two cores, as Snakemake runs them.

The pseudobulks are drawn: 4 arms (three treatments and a control) of 8 donors, 20,000 genes with every gene of the
shipped programmes among them, 11 immune classes and MSC, negative binomial counts of 50,000 to 800,000 a replicate
(25 to 400 cells of 2,000 counts), so that 3,300 genes of a class are tested on average. Leaked RNA is estimated as in a
co-culture. The sums themselves are not timed here: they take as long as reading the samples' files.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from threadpoolctl import threadpool_limits

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "workflow"))

from immunomod.contrast.leakage import add_leakage  # noqa: E402
from immunomod.contrast.run import run_contrast  # noqa: E402
from immunomod.contrast.settings import GENE_METHODS, ContrastSettings  # noqa: E402
from immunomod.exclusive import load_exclusive_genes  # noqa: E402
from immunomod.files import read_tsv, write_tsv  # noqa: E402
from immunomod.programs import load_programs  # noqa: E402

RESULT = REPOSITORY / "benchmarks" / "results" / "inference_speed.tsv"
DONORS, GENES, CORES = 8, 20_000, 2
ARMS = ("control", "a", "b", "c")
IMMUNE = {
    **{"CD4_T": "T", "CD8_T": "T", "Treg": "T", "NK": "NK", "B": "B", "plasma": "B", "CD14_monocyte": "monocyte"},
    **{"CD16_monocyte": "monocyte", "macrophage": "monocyte", "DC": "DC", "pDC": "DC"},
}
CELLS = np.geomspace(400, 25, len(IMMUNE) + 1).astype(int)


def draw_study(seed: int) -> AnnData:
    """Pseudobulks of the study, the control without MSC in the library of the immune cells."""
    rng = np.random.default_rng(seed)
    named = sorted(load_programs().weights("human").index)
    genes = pd.Index([*named, *(f"gene{number:05d}" for number in range(GENES - len(named)))])
    base = np.exp(rng.normal(0, 1.8, GENES))
    donors = np.exp(rng.normal(0, 0.2, (DONORS, GENES)))
    counts, rows = [], []
    for (cell_class, lineage), n_cells in zip([("MSC", "MSC"), *IMMUNE.items()], CELLS, strict=True):
        profile = base * np.exp(rng.normal(0, 1.0, GENES))
        compartment = "MSC" if cell_class == "MSC" else "immune"
        for arm, donor in product(ARMS, range(DONORS)):
            rate = profile * donors[donor]
            if arm != "control":
                rate = rate * np.exp(np.where(np.arange(GENES) % 20 == ARMS.index(arm), 1.0, 0.0))
            mean = rate / rate.sum() * n_cells * 2000 * np.exp(rng.normal(0, 0.2))
            counts.append(sparse.csr_matrix(rng.negative_binomial(10, 10 / (10 + mean))))
            culture = "coculture" if arm != "control" else ("msc" if cell_class == "MSC" else "immune")
            sample = f"{arm}{donor}" if arm != "control" else f"{culture}{donor}"
            cells = (n_cells, n_cells // 12, n_cells)
            rows.append((sample, f"D{donor}", arm, culture, cell_class, compartment, lineage, *cells))
    names = ["sample", "donor", "condition", "culture", "cell_class", "compartment", "lineage"]
    names += ["n_cells", "cells_cycling", "cells_with_phase"]
    obs = pd.DataFrame(rows, columns=names, index=[f"u{number}" for number in range(len(rows))])
    return AnnData(sparse.vstack(counts).tocsr(), obs=obs, var=pd.DataFrame(index=genes))


def answer(test: str, study: AnnData, method: str) -> tuple[float, float, int]:
    """Seconds on the clock and of processor time for one contrast, and the genes that it tested."""
    row = {"contrast": test, "dataset": "drawn", "variable": "condition", "test": test, "reference": "control"}
    clock, processor = time.perf_counter(), time.process_time()
    result = run_contrast(row, {"drawn": study}, load_programs(), ContrastSettings(gene_method=method), 1)
    tested = int(result.gene_tests["genes_tested"].sum())
    return time.perf_counter() - clock, time.process_time() - processor, tested


def measured(work: Callable[[], Any]) -> tuple[Any, float, float]:
    clock, processor = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - clock, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=GENE_METHODS, default="deseq2")
    parser.add_argument("--profile", action="store_true", help="one contrast under the profiler; writes nothing")
    options = parser.parse_args()
    drawn = draw_study(1)
    study, clock, processor = measured(lambda: add_leakage(drawn, load_programs(), load_exclusive_genes()))
    if options.profile:
        profiler = cProfile.Profile()
        profiler.runcall(answer, "a", study, options.method)
        pstats.Stats(profiler).sort_stats("cumtime").print_stats(45)
        return
    rows = [("leaked RNA", options.method, clock, processor, 0)]
    start = time.perf_counter()
    # one thread a job, as Snakemake has it
    with ProcessPoolExecutor(CORES, initializer=threadpool_limits, initargs=(1,)) as pool:
        waiting = {test: pool.submit(answer, test, study, options.method) for test in ARMS[1:]}
        rows += [(f"contrast {test}", options.method, *future.result()) for test, future in waiting.items()]
    total = clock + time.perf_counter() - start
    rows.append(("all", options.method, total, sum(row[3] for row in rows), sum(row[4] for row in rows)))
    columns = ["step", "gene_method", "seconds", "processor_seconds", "genes_tested"]
    table = pd.DataFrame(rows, columns=columns).round(1)
    if RESULT.exists():
        before = read_tsv(RESULT)
        table = pd.concat([before[before["gene_method"] != options.method], table], ignore_index=True)
    write_tsv(table, RESULT)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
