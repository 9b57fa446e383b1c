"""Marker genes and the atlas file side by side: this workflow, scanpy and illico on the same cells.

Run from the repository: ``python benchmarks/markers.py [--cells N] [--python OTHER]``; about five minutes at 20,000
cells, most of them scanpy's. ``OTHER`` is the interpreter of an environment that has scanpy and illico; a tool that it
lacks is left out. Writes ``benchmarks/results/markers.tsv``, one row per tool.

*markers*: one sample (so that the tools test the same), 30,000 genes, about 2,000 detected genes a cell, 15 classes; a
fresh process each, on two threads where a tool has threads. ``seconds`` from the file on disk to the statistics of all
genes and classes; ``peak_mb`` above the imports; ``z_difference``: largest difference of z from ours over all genes and
classes; ``top_overlap``: share of each class's 50 first genes that are ours too, in the mean. ``two groupings`` are
classes and, within them, two clusters each.

*atlas file*: the same cells with expression and counts; ``immunomod`` streams, the others hold both matrices and let
h5py compress. ``equal``: whether the file reads back as the sample.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "workflow"), str(REPOSITORY / "benchmarks" / "atlas")]
THREADS, TOP = 2, 50
MARKERS = ("immunomod", "immunomod, two groupings", "scanpy", "illico")
FILES = ("immunomod", "h5py none", "h5py lzf", "h5py gzip")


def make_sample(path: Path, n_cells: int) -> None:
    """One ``filtered.h5ad`` of simulated counts with ``obs["truth"]``."""
    import anndata as ad
    from counts import profiles, sample_counts

    from immunomod.files import write_h5ad
    from immunomod.sample.process import log_normalise

    genes, archetypes = profiles(seed=1)
    counts, of_cell = sample_counts(archetypes, n_cells, seed=2)
    counts.sort_indices()
    names = [f"S:{number}" for number in range(n_cells)]
    obs = pd.DataFrame({"barcode": names, "sample": "S", "truth": pd.Categorical(of_cell)}, index=names)
    adata = ad.AnnData(log_normalise(counts), obs=obs, var=genes.set_index("gene_id", drop=False).rename_axis(None))
    adata.layers["counts"] = counts
    write_h5ad(adata, path)


# --- what is measured, each in a process of its own ------------------------------------------------------------------


def measured(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """The result of ``work``, its wall and CPU time, and its peak memory above what the process held before."""
    from steps import Steps, resident_mb

    before = resident_mb()
    steps = Steps()
    result = work()
    steps("work")
    step = steps.rows[0]
    peak = float(step["peak_mb"]) - before
    return result, {"seconds": step["wall_s"], "cpu_seconds": step["cpu_s"], "peak_mb": peak}


def run_markers(tool: str, path: Path, table: Path) -> dict[str, Any]:
    """z of every gene and class by one tool, written to ``table``."""
    z, cost = measured({"scanpy": scanpy_z, "illico": illico_z}.get(tool, lambda path: our_z(path, tool))(path))
    z.to_csv(table, sep="\t")
    return cost


def our_z(path: Path, tool: str) -> Callable[[], pd.DataFrame]:
    from immunomod.atlas import ranks_kernel  # noqa: F401  (compiled code is loaded before the clock starts)
    from immunomod.atlas.ranks import rank_statistics
    from immunomod.files import read_obs

    truth = read_obs(path)["truth"].astype(str)
    groupings = {"cell_class": truth}
    if "two" in tool:
        groupings["cluster"] = truth + np.where(np.arange(len(truth)) % 2, "a", "b")

    def work() -> pd.DataFrame:
        found = rank_statistics([path], groupings, THREADS)
        of_class = (found.groups["grouping"] == "cell_class").to_numpy()
        return pd.DataFrame(found.z[:, of_class], found.genes.index, found.groups["group"][of_class])

    return work


def scanpy_z(path: Path) -> Callable[[], pd.DataFrame]:
    import anndata as ad
    import scanpy as sc

    def work() -> pd.DataFrame:
        adata = ad.read_h5ad(path)
        sc.tl.rank_genes_groups(adata, "truth", method="wilcoxon", tie_correct=True)
        found = adata.uns["rank_genes_groups"]
        columns = {name: pd.Series(found["scores"][name], found["names"][name]) for name in found["names"].dtype.names}
        return pd.DataFrame(columns).loc[adata.var_names]

    return work


def illico_z(path: Path) -> Callable[[], pd.DataFrame]:
    import anndata as ad
    from illico import asymptotic_wilcoxon

    def work() -> pd.DataFrame:
        adata = ad.read_h5ad(path)
        found = asymptotic_wilcoxon(
            adata, is_log1p=True, group_keys="truth", n_threads=THREADS, use_continuity=False, tie_correct=True
        )
        z: pd.DataFrame = found["z_score" if "z_score" in found else "z-score"].unstack(level=0)
        return z.loc[adata.var_names]

    return work


def run_file(tool: str, path: Path, out: Path) -> dict[str, Any]:
    """Write the sample as an atlas file and read it back."""
    import anndata as ad

    def hold_and_write() -> None:
        held = ad.read_h5ad(path)
        held.write_h5ad(out, compression=None if tool == "h5py none" else tool.removeprefix("h5py "))

    def stream() -> None:
        from immunomod.atlas.write import write_atlas

        write_atlas(ad.AnnData(obs=ad.read_h5ad(path, backed="r").obs), [path], out, THREADS)

    _, cost = measured(stream if tool == "immunomod" else hold_and_write)
    cost["file_mb"] = out.stat().st_size / 1e6
    wanted, found = ad.read_h5ad(path), ad.read_h5ad(out)
    pairs = [(wanted.X, found.X), (wanted.layers["counts"], found.layers["counts"])]
    cost["equal"] = all(a.dtype == b.dtype and a.shape == b.shape and (a != b).nnz == 0 for a, b in pairs)
    return cost


# --- the whole -------------------------------------------------------------------------------------------------------


def in_process(python: str, *arguments: str) -> dict[str, Any] | None:
    """One measurement in a fresh process; None where the interpreter lacks the tool."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [python, str(Path(__file__).resolve()), "--one", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode and "ModuleNotFoundError" in done.stderr:
        print(f"{arguments[1]} left out: {done.stderr.strip().splitlines()[-1]}", flush=True)
        return None
    if done.returncode:
        raise RuntimeError(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def compared(ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, float]:
    """Largest difference of z, and mean overlap of the first genes of each class."""
    theirs = theirs.loc[ours.index, ours.columns]
    overlap = [len(set(ours[name].nlargest(TOP).index) & set(theirs[name].nlargest(TOP).index)) for name in ours]
    difference = np.nanmax(np.abs(ours.to_numpy() - theirs.to_numpy()))
    return {"z_difference": float(difference), "top_overlap": float(np.mean(overlap)) / TOP}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--python", default=sys.executable, help="interpreter that has scanpy and illico")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        kind, tool, path, out = arguments.one
        print(json.dumps((run_markers if kind == "markers" else run_file)(tool, Path(path), Path(out))))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "S" / "filtered.h5ad"
        make_sample(path, arguments.cells)
        tables: dict[str, pd.DataFrame] = {}
        for kind, tools in (("markers", MARKERS), ("atlas file", FILES)):
            for tool in tools:
                out = Path(folder) / "out"
                python = arguments.python if tool in ("scanpy", "illico") else sys.executable
                cost = in_process(python, kind, tool, str(path), str(out))
                if cost is None:
                    continue
                row = {"experiment": kind, "tool": tool, "cells": arguments.cells, **cost}
                if kind == "markers":
                    tables[tool] = pd.read_csv(out, sep="\t", index_col=0)
                    row |= compared(tables["immunomod"], tables[tool])
                rows.append(row)
                print({key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()})
    result = REPOSITORY / "benchmarks" / "results" / "markers.tsv"
    pd.DataFrame(rows).to_csv(result, sep="\t", index=False, float_format="%.4g")
    print(f"written to {result.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
