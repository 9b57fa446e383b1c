"""Time and memory of a contestant's steps, and its results in one form. Needs numpy and pandas only."""

from __future__ import annotations

import json
import os
import resource
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

_SECONDS_BETWEEN_LOOKS = 0.1
# The system walks all pages of a process to tell its share of memory, and halts it meanwhile: a look is followed by a
# pause of this many times its length, or the meter would be a part of what it measures.
_PAUSE_PER_LOOK = 20


class Steps:
    """Wall and CPU seconds of each step and the peak of resident memory up to its end (MB), children included.

    The memory of processes that run at the same time is added up, pages that they share in equal parts (PSS).
    """

    def __init__(self) -> None:
        self._peak = 0
        threading.Thread(target=self._watch, daemon=True).start()
        self.rows: list[dict[str, float | str]] = []
        self._wall, self._cpu = time.monotonic(), _cpu()

    def __call__(self, name: str) -> None:
        """A step is done."""
        wall, cpu = time.monotonic(), _cpu()
        # The system's record of this process misses no short peak, looking at all processes may.
        peak = max(_highest(), self._peak, _resident(os.getpid()))
        row = {"step": name, "wall_s": wall - self._wall, "cpu_s": cpu - self._cpu, "peak_mb": peak / 2**20}
        self.rows.append(row)
        print(f"  {name}: {row['wall_s']:.1f} s, {row['peak_mb']:.0f} MB", flush=True)
        self._wall, self._cpu = wall, cpu

    def _watch(self) -> None:
        while True:
            start = time.monotonic()
            self._peak = max(self._peak, _resident(os.getpid()))
            time.sleep(max(_SECONDS_BETWEEN_LOOKS, _PAUSE_PER_LOOK * (time.monotonic() - start)))


def resident_mb() -> float:
    """Resident memory of this process and its children, now (MB)."""
    return _resident(os.getpid()) / 2**20


def _highest(file: str = "/proc/self/status", line: str = "VmHWM:") -> int:
    """Bytes on a line of a process's record, by default of this program's highest memory; 0 where there is none.

    Not ``getrusage``: its highest memory outlives ``exec``, so that a program starts with that of whoever started it.
    """
    try:
        record = Path(file).read_text()
    except OSError:
        return 0
    return next((int(row.split()[1]) * 1024 for row in record.splitlines() if row.startswith(line)), 0)


def _resident(process: int) -> int:
    """Bytes of resident memory of a process and all that it started, now. Linux only: 0 elsewhere."""
    tree = _with_children(process)
    if len(tree) == 1:
        return _highest(f"/proc/{process}/status", "VmRSS:")
    return sum(_highest(f"/proc/{one}/smaps_rollup", "Pss:") for one in tree)


def _with_children(process: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        children = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    except (OSError, ValueError):  # the process ended while it was looked at
        return [process]
    return [process, *(pid for child in children for pid in _with_children(child))]


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

    ``neighbors``: cells x k indices without the cell itself (the first 20,000 cells do), or an empty array;
    ``markers``: the first genes of every cluster; ``genes`` and ``loadings``: of the components.

    Raises
    ------
    ValueError
        ``components`` or ``neighbors`` are not one row per cell.
    """
    n_cells = len(np.asarray(cells))
    if len(components) != n_cells or (neighbors.size and len(neighbors) < min(n_cells, 20_000)):
        raise ValueError(f"{n_cells} cells, but components {components.shape} and neighbours {neighbors.shape}")
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
