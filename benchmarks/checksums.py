"""What the checksums of intermediate files cost, in processor time, beside writing and reading the files themselves.

Usage: ``python benchmarks/checksums.py [--cells 10000]``; writes ``benchmarks/results/checksums.tsv``: a made-up
library as ``filtered.h5ad`` (two matrices of 2,000 entries a cell), the least of five times.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData, read_h5ad
from scipy import sparse

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "workflow"))

from immunomod.files import is_damaged, seal, sha256, write_tsv  # noqa: E402

GENES, ENTRIES, REPEATS = 30_000, 2_000, 5


def library(cells: int) -> AnnData:
    """Counts of ``cells`` cells, with a layer of the same shape."""
    rng = np.random.default_rng(1)
    indices = np.concatenate([np.sort(rng.choice(GENES, ENTRIES, replace=False)) for _ in range(cells)])
    indptr = np.arange(cells + 1, dtype=np.int64) * ENTRIES
    counts = sparse.csr_matrix((rng.poisson(2, len(indices)).astype(np.int32) + 1, indices, indptr), (cells, GENES))
    return AnnData(counts.astype(np.float32), layers={"counts": counts})


def least(work: Callable[[], object]) -> float:
    """The least processor time of some repeats, in seconds."""
    times = []
    for _ in range(REPEATS):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "checksums.tsv")
    asked = parser.parse_args()
    adata = library(asked.cells)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "filtered.h5ad"
        found = {"write the file": least(lambda: adata.write_h5ad(path))}
        found["seal it (CRC-32)"] = least(lambda: seal(path))
        found["read the file"] = least(lambda: read_h5ad(path))
        found["look at its seal"] = least(lambda: is_damaged(path))
        found["its SHA-256, for comparison"] = least(lambda: sha256(path))
        megabytes = path.stat().st_size / 1e6
    table = pd.DataFrame({"step": found.keys(), "cpu_seconds": found.values()})
    table["seconds_per_gb"] = table["cpu_seconds"] / megabytes * 1000
    table = table.round(3).assign(cells=asked.cells, megabytes=round(megabytes))
    write_tsv(table, asked.out)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
