"""Time and memory of a contestant's steps, and its results in one form. Needs numpy and pandas only."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


class Steps:
    """Wall and CPU seconds of each step (children included) and the peak of resident memory up to its end (MB)."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float | str]] = []
        self._wall, self._cpu = time.monotonic(), _cpu()

    def __call__(self, name: str) -> None:
        """A step is done."""
        wall, cpu = time.monotonic(), _cpu()
        peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        row = {"step": name, "wall_s": wall - self._wall, "cpu_s": cpu - self._cpu, "peak_mb": peak / 1024}
        self.rows.append(row)
        print(f"  {name}: {row['wall_s']:.1f} s, {row['peak_mb']:.0f} MB", flush=True)
        self._wall, self._cpu = wall, cpu


def _cpu() -> float:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def save(
    folder: Path,
    steps: Steps,
    cells: Any,
    cluster: Any,
    components: np.ndarray,
    neighbors: np.ndarray,
    markers: dict[str, list[str]],
    genes: list[str],
    loadings: np.ndarray,
) -> None:
    """Write what :mod:`agreement` compares.

    ``neighbors``: cells x k indices without the cell itself, or an empty array; ``markers``: the first genes of every
    cluster; ``genes`` and ``loadings``: of the components.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "steps.json").write_text(json.dumps(steps.rows, indent=1))
    pd.DataFrame({"cell": np.asarray(cells, str), "cluster": np.asarray(cluster, str)}).to_csv(
        folder / "clusters.tsv.gz", sep="\t", index=False
    )
    np.save(folder / "components.npy", np.asarray(components, dtype=np.float32))
    np.save(folder / "neighbors.npy", np.asarray(neighbors, dtype=np.int64))
    np.save(folder / "loadings.npy", np.asarray(loadings, dtype=np.float64))
    (folder / "genes.json").write_text(json.dumps([str(gene) for gene in genes]))
    (folder / "markers.json").write_text(json.dumps(markers))
