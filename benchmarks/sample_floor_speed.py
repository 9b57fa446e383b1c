"""Time and memory of the sample floor beside the same steps by plain scanpy calls, from files to a filtered h5ad.

    python benchmarks/sample_floor_speed.py [--droplets 1000000] [--out benchmarks/results/sample_floor_speed.tsv]

Library
    A co-culture of MSC and immune cells on disk as a gzipped 10x triplet: 20,000 cells and 30,000 genes with about
    2,000 detected ones a cell. About 3,500 genes have the profiles of ``resources/simulation``, the others a lognormal
    tail; names are real, so that programmes and mitochondrial genes are found. 8% of the cells are doublets, 3%
    damaged, and a twelfth of each cell's molecules is ambient. ``--droplets`` makes a second, unfiltered library of the
    same cells among so many barcodes, which immunomod alone reads.

Sides
    immunomod: the scripts of the rules ``read_counts`` and ``filter_cells``, each in a fresh process as the workflow
    runs them, from triplet to ``counts.h5ad`` and from there to ``filtered.h5ad`` and its tables; their seconds are
    added. scanpy: one fresh process (:func:`with_scanpy`), scrublet with exact neighbours, since its default,
    pynndescent, compiles for a minute or more and fails on scipy's sparse arrays. Scanpy has no cell calling,
    ambient RNA or MSC-immune doublets: they are in immunomod's time alone. Every process has one thread.

Measures
    ``seconds`` are from the start of a process to its end, imports and compilation with them; ``cpu_seconds`` what it
    computed in them, which other users of the machine disturb less; ``peak_mb`` its highest resident memory (VmHWM).
    ``cache``: ``warm``, with the bytecode and the machine code that Python and numba keep from a run before, or
    ``cold``, without, as in the first run after an installation (each side has its own). Steps are timed within the
    processes. ``total without programme scores`` lacks ``score_programs`` on one side, and both ``score_genes`` and
    ``score_genes_cell_cycle`` on the other; ``total without scores and doublets`` lacks scrublet, too. ``ratio`` is
    scanpy's seconds over immunomod's, ``cpu_ratio`` the same of ``cpu_seconds``. The sides take turns; medians over
    ``--repeats``.

A second table, ``sample_floor_agreement.tsv``, says how far results agree.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "workflow"))

N_GENES = 30_000
CELLS_OF = {
    "MSC": 0.25, "CD4_T": 0.25, "CD8_T": 0.12, "NK": 0.08, "B": 0.1, "CD14_monocyte": 0.15, "CD16_monocyte": 0.03,
    "DC": 0.02,
}  # fmt: skip
#: Molecules of a class's median cell.
DEPTH_OF = {"MSC": 6500.0, "CD14_monocyte": 3800.0, "CD16_monocyte": 3500.0, "DC": 4500.0}
DEPTH = 2700.0
TAIL_SHARE = 0.45
DOUBLETS, DAMAGED, AMBIENT = 0.08, 0.03, 1 / 12
EMPTY_COUNTS = 12.0
ROWS_AT_ONCE = 500
SAMPLE = "S1"
PROCESSES = {"immunomod": ("read_counts", "filter_cells"), "scanpy": ("scanpy",)}
SCORES = ("score_programs", "score_genes", "score_genes_cell_cycle")
TOTALS = {
    "total": (),
    "total without programme scores": SCORES,
    "total without scores and doublets": (*SCORES, "call_doublets", "scrublet"),
}
TIMES = ["seconds", "cpu_seconds"]
TABLES = ("filtered", "cells", "qc", "ambient", "ranks")
#: The aims: this many times faster, and this many MB at most.
MIN_RATIO, MAX_MB = 3.0, 2000.0
MB = 1e6


def draw_library(n_cells: int, n_droplets: int, seed: int) -> tuple[sparse.csr_matrix, pd.DataFrame, pd.DataFrame]:
    """Droplets x genes (int32; cells first), genes (id, symbol), and the truth of each cell."""
    rng = np.random.default_rng(seed)
    genes, shares = profiles(rng)
    kinds = list(CELLS_OF)
    kind = rng.choice(len(kinds), n_cells, p=list(CELLS_OF.values()))
    partner = rng.choice(len(kinds), n_cells, p=list(CELLS_OF.values()))
    doublet = rng.random(n_cells) < DOUBLETS
    damaged = ~doublet & (rng.random(n_cells) < DAMAGED)
    typical = np.array([DEPTH_OF.get(name, DEPTH) for name in kinds])
    depth = typical[kind] * rng.lognormal(0, 0.35, n_cells) * np.where(damaged, 0.4, 1.0)
    other = np.where(doublet, typical[partner] * rng.lognormal(0, 0.35, n_cells), 0.0)
    is_mitochondrial = genes["gene_symbol"].str.startswith("MT-").to_numpy()
    of_damaged = shares * np.where(is_mitochondrial, 12.0, 1.0)
    of_damaged /= of_damaged.sum(axis=1, keepdims=True)
    ambient = np.average(shares, axis=0, weights=np.array(list(CELLS_OF.values())) * typical)
    parts = []
    for begin in range(0, n_cells, ROWS_AT_ONCE):
        rows = slice(begin, begin + ROWS_AT_ONCE)
        own = np.where(damaged[rows, None], of_damaged[kind[rows]], shares[kind[rows]])
        mean = depth[rows, None] * own + other[rows, None] * shares[partner[rows]]
        mean += AMBIENT / (1 - AMBIENT) * (depth + other)[rows, None] * ambient
        parts.append(sparse.csr_matrix(rng.poisson(mean).astype(np.int32)))
    if n_droplets > n_cells:
        totals = rng.poisson(EMPTY_COUNTS * rng.lognormal(0, 0.7, n_droplets - n_cells))
        row = np.repeat(np.arange(len(totals)), totals)
        drawn = rng.choice(N_GENES, len(row), p=ambient).astype(np.int32)
        empty = sparse.coo_matrix((np.ones(len(row), np.int32), (row, drawn)), shape=(len(totals), N_GENES))
        parts.append(empty.tocsr())
    truth = pd.DataFrame({"kind": np.array(kinds, dtype=object)[kind], "doublet": doublet, "damaged": damaged})
    # two cells of one class are no doublet that a profile could tell
    truth["heterotypic"] = doublet & (kind != partner)
    return sparse.csr_matrix(sparse.vstack(parts, format="csr")), genes, truth


def profiles(rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    """Genes, and shares of each class's molecules (classes x genes): shipped profiles, and a lognormal tail."""
    from immunomod.files import read_tsv
    from immunomod.simulate.profiles import load_profiles

    shipped = load_profiles()
    named = read_tsv(REPOSITORY / "resources/genes/human.tsv.gz", dtype=str).fillna("")
    named = named.rename(columns={"symbol": "gene_symbol"}).drop_duplicates("gene_symbol")
    known = set(shipped.symbols) | {""}
    rest = named[~named["gene_symbol"].isin(known) & ~named["gene_id"].isin(set(shipped.genes["gene_id"]))]
    rest = rest[rest["biotype"].isin(["protein_coding", "lncRNA"])].head(N_GENES - len(shipped.genes))
    genes = pd.concat([shipped.genes, rest[["gene_id", "gene_symbol"]]], ignore_index=True)
    level = rng.lognormal(0, 1.8, len(rest))
    shares = np.empty((len(CELLS_OF), len(genes)))
    for row, name in enumerate(CELLS_OF):
        tail = level * rng.lognormal(0, 0.3, len(rest))
        shares[row] = np.concatenate([(1 - TAIL_SHARE) * shipped.of(name, ""), TAIL_SHARE * tail / tail.sum()])
    order = genes["gene_id"].argsort()
    return genes.iloc[order].reset_index(drop=True), shares[:, order]


def barcodes(n_droplets: int) -> list[str]:
    """Barcodes in no order; an odd factor permutes the numbers below 4^16."""
    numbers = (np.arange(n_droplets, dtype=np.uint64) * np.uint64(2_654_435_769)) % np.uint64(4**16)
    letters = np.array(list(b"ACGT"), dtype=np.uint8)
    bases = np.column_stack([letters[(numbers >> np.uint64(2 * k)) & np.uint64(3)] for k in range(16)])
    return [f"{name.decode()}-1" for name in np.ascontiguousarray(bases).view("S16").ravel()]


def benchmark_of_readers() -> ModuleType:
    """benchmarks/reading.py, for its writer of triplets."""
    spec = importlib.util.spec_from_file_location("reading_benchmark", REPOSITORY / "benchmarks" / "reading.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_library(folder: Path, n_cells: int, n_droplets: int, seed: int) -> None:
    """Triplet, truth and manifest under ``folder``; nothing that is there is written again."""
    from immunomod.files import write_tsv

    if (folder / "manifest.tsv").exists():
        return
    counts, genes, truth = draw_library(n_cells, n_droplets, seed)
    names = barcodes(counts.shape[0])
    lines = (genes["gene_id"] + "\t" + genes["gene_symbol"]).tolist()
    benchmark_of_readers().write_triplet(folder / "triplet", counts, names, lines)
    truth.insert(0, "barcode", names[: len(truth)])
    write_tsv(truth, folder / "truth.tsv")
    files = sorted((folder / "triplet").iterdir())
    manifest = pd.DataFrame({"path": [str(path) for path in files], "file": [path.name for path in files]})
    manifest = manifest.assign(dataset="D1", sample=SAMPLE, url="", sha256="", retrieved="")
    manifest["bytes"] = [path.stat().st_size for path in files]
    write_tsv(manifest, folder / "manifest.tsv")


# --- one process of a side --------------------------------------------------------------------------------------------


class Clock:
    """Seconds of steps, passed and computed."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def time(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        """``step``, whose seconds are added under ``name``."""

        def timed(*arguments: Any, **options: Any) -> Any:
            began, computed = time.perf_counter(), time.process_time()
            try:
                return step(*arguments, **options)
            finally:
                spent = self.seconds.setdefault(name, [0.0, 0.0])
                spent[0] += time.perf_counter() - began
                spent[1] += time.process_time() - computed

        return timed


def with_immunomod(process: str, folder: Path, clock: Clock) -> None:
    """Run a rule's script, as Snakemake does."""
    out = folder / "immunomod"
    if process == "read_counts":
        row = {"sample": SAMPLE, "dataset": "D1", "condition": "coculture", "donor": "d1", "organism": "human"}
        job = SimpleNamespace(
            input=_Named(manifest=folder / "manifest.tsv"),
            output=_Named(counts=out / "counts.h5ad", read=out / "read.tsv"),
            params=SimpleNamespace(row=row, reading={}, cells_table={}),
        )
    else:
        from immunomod.programs import SHIPPED
        from immunomod.sample import process as steps

        for name in ("call_cells", "cell_metrics", "call_doublets", "score_programs", "cell_states"):
            setattr(steps, name, clock.time(name, getattr(steps, name)))
        written = {name: out / ("filtered.h5ad" if name == "filtered" else f"{name}.tsv") for name in TABLES}
        written["cells"] = out / "cells.tsv.gz"
        params = {"programs": [SHIPPED], "markers": REPOSITORY / "resources" / "markers", "sections": {}, "seed": 1}
        job = SimpleNamespace(
            input=_Named(counts=out / "counts.h5ad"),
            output=_Named(written),
            params=SimpleNamespace(**params, own_limits={}),
        )
    job.log = [str(out / f"{process}.log")]
    script = REPOSITORY / "workflow" / "scripts" / f"{process}.py"
    runpy.run_path(str(script), init_globals={"snakemake": job})


class _Named(dict[str, Path]):
    """Files of a rule, by name or as attributes."""

    def __getattr__(self, name: str) -> Path:
        return self[name]

    def __iter__(self) -> Iterator[Path]:  # type: ignore[override]
        return iter(self.values())


def with_scanpy(_process: str, folder: Path, clock: Clock) -> None:
    """The same steps as a tutorial does them, with limits that are held between the same fixed values."""
    import scanpy as sc

    from immunomod.programs import load_programs
    from immunomod.sample.settings import QcSettings

    def run(step: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        return clock.time(step.__name__, step)(*arguments, **options)

    adata = run(sc.read_10x_mtx, folder / "triplet")
    adata.var["mt"] = adata.var_names.str.startswith("MT-")
    adata.var["ribo"] = adata.var_names.str.match(r"^(RP[SL]\d+([AXL]L?|Y\d|L\d)?|RPLP[0-2]|RPSA)$")
    adata.var["hb"] = adata.var_names.str.match(r"^HB([ABDMQZ]|A[12]|E1|G[12]|Q1)$")
    run(sc.pp.calculate_qc_metrics, adata, qc_vars=["mt", "ribo", "hb"], percent_top=None, inplace=True)
    adata.obs.to_csv(folder / "scanpy_metrics.tsv", sep="\t")
    adata = adata[passing(adata.obs, QcSettings())].copy()
    run(sc.pp.filter_genes, adata, min_cells=3)
    rate = min(0.008 * adata.n_obs / 1000, 0.25)
    run(sc.pp.scrublet, adata, expected_doublet_rate=rate, use_approx_neighbors=False, random_state=1)
    adata.obs[["doublet_score", "predicted_doublet"]].to_csv(folder / "scanpy_doublets.tsv", sep="\t")
    adata = adata[~adata.obs["predicted_doublet"].to_numpy(dtype=bool)].copy()
    adata.layers["counts"] = adata.X.copy()
    run(sc.pp.normalize_total, adata, target_sum=1e4)
    run(sc.pp.log1p, adata)
    run(sc.pp.highly_variable_genes, adata, flavor="seurat_v3", layer="counts", n_top_genes=2000)
    weights = load_programs().weights("human")
    phases = [list(weights.index[weights[f"imm_T_prolif_{phase}"] > 0]) for phase in ("S", "G2M")]
    run(sc.tl.score_genes_cell_cycle, adata, s_genes=phases[0], g2m_genes=phases[1])
    for program in weights:
        genes = [gene for gene in weights.index[weights[program] > 0] if gene in adata.var_names]
        if genes:
            run(sc.tl.score_genes, adata, genes, score_name=program)
    run(adata.write_h5ad, folder / "scanpy.h5ad")


def passing(obs: pd.DataFrame, settings: Any) -> np.ndarray:
    """Cells within the median absolute deviations of their sample, as in the tutorials."""
    keep = np.ones(len(obs), dtype=bool)
    for column, low, enough, spared in (
        ("total_counts", settings.min_counts, settings.enough_counts, settings.spared_counts),
        ("n_genes_by_counts", settings.min_genes, settings.enough_genes, settings.spared_genes),
    ):
        values = np.log1p(obs[column].to_numpy(dtype=np.float64))
        median = np.median(values)
        spread = settings.n_mads * 1.4826 * np.median(np.abs(values - median))
        keep &= values >= np.log1p(np.clip(np.expm1(median - spread), low, enough))
        keep &= values <= np.log1p(max(np.expm1(median + spread), spared))
    for kind in ("mt", "ribo", "hb"):
        values = obs[f"pct_counts_{kind}"].to_numpy(dtype=np.float64)
        median = np.median(values)
        limit = median + settings.n_mads * 1.4826 * np.median(np.abs(values - median))
        spared, most = getattr(settings, f"spared_pct_{kind}"), getattr(settings, f"max_pct_{kind}")
        keep &= values <= np.clip(limit, spared, most)
    return keep


def measure(side: str, process: str, folder: Path) -> dict[str, Any]:
    """Run a process of a side in this one."""
    clock = Clock()
    (with_immunomod if side == "immunomod" else with_scanpy)(process, folder, clock)
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024 / MB
    return {"peak_mb": peak, "steps": clock.seconds}


# --- the comparison ---------------------------------------------------------------------------------------------------


def in_fresh_process(side: str, process: str, folder: Path, cache: Path) -> list[dict[str, Any]]:
    """Seconds and memory of a process, and the seconds of its steps, as rows."""
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
    kept = {
        "NUMBA_CACHE_DIR": str(cache),
        "PYTHONPYCACHEPREFIX": str(cache / "bytecode"),
        "PYTHONDONTWRITEBYTECODE": "",
    }
    variables = os.environ | threads | kept
    command = [sys.executable, __file__, "--measure", side, process, str(folder)]
    used, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=variables, check=False, capture_output=True, text=True)
    seconds, now = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{side}, {process}: {done.stderr}")
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    found = json.loads(done.stdout.splitlines()[-1])
    row = {"side": side, "process": process}
    steps = [
        row | {"step": name, "seconds": wall, "cpu_seconds": spent} for name, (wall, spent) in found["steps"].items()
    ]
    whole = {"step": "process", "seconds": seconds, "cpu_seconds": cpu, "peak_mb": found["peak_mb"]}
    return [row | whole, *steps]


def run_sides(folder: Path, sides: list[str], cache: Path) -> pd.DataFrame:
    """Every process of some sides, with the totals of each."""
    (folder / "immunomod").mkdir(exist_ok=True)
    rows = []
    for side in sides:
        measured = [row for name in PROCESSES[side] for row in in_fresh_process(side, name, folder, cache / side)]
        table = pd.DataFrame(measured)
        whole = table[table["step"] == "process"]
        rows += measured
        for total, without in TOTALS.items():
            spent = whole[TIMES].sum() - table.loc[table["step"].isin(without), TIMES].sum()
            rows.append({"side": side, "process": "all", "step": total, **spent, "peak_mb": whole["peak_mb"].max()})
    return pd.DataFrame(rows)


def compare(folder: Path, library: str, sides: list[str], repeats: int) -> pd.DataFrame:
    """Medians over repeats, with machine code kept and without."""
    with tempfile.TemporaryDirectory(dir=folder) as warm:
        found = [run_sides(folder, sides, Path(warm)).assign(cache="cold")]
        found += [run_sides(folder, sides, Path(warm)).assign(cache="warm") for _ in range(repeats)]
    key = ["cache", "side", "process", "step"]
    table = pd.concat(found).groupby(key, sort=False)[[*TIMES, "peak_mb"]].median().reset_index()
    theirs = table[(table["side"] == "scanpy") & (table["process"] == "all")].set_index(["cache", "step"])[TIMES]
    of_scanpy = theirs.reindex(pd.MultiIndex.from_frame(table[["cache", "step"]])).reset_index(drop=True)
    of_scanpy = of_scanpy.where(table["process"] == "all")
    table["ratio"], table["cpu_ratio"] = (of_scanpy[name] / table[name] for name in TIMES)
    table.insert(0, "library", library)
    return table


def agreement(folder: Path) -> pd.DataFrame:
    """How far the two sides' results agree."""
    import h5py
    from anndata.io import read_elem

    from immunomod.files import read_tsv

    cells = read_tsv(folder / "immunomod" / "cells.tsv.gz").set_index("barcode")
    theirs = pd.read_csv(folder / "scanpy_metrics.tsv", sep="\t", index_col=0).loc[cells.index]
    scrublet = pd.read_csv(folder / "scanpy_doublets.tsv", sep="\t", index_col=0)
    truth = read_tsv(folder / "truth.tsv").set_index("barcode")
    metrics = ["total_counts", "n_genes_by_counts", "pct_counts_mt", "pct_counts_ribo", "pct_counts_hb"]
    off = float(np.nanmax(np.abs(cells[metrics].to_numpy(float) - theirs[metrics].to_numpy(float))))
    ours_passed = set(cells.index[cells["kept"] | cells["reason"].isin(["doublet", "partner_doublet"])])
    result: dict[str, float] = {
        "cells": len(cells),
        "genes detected in the mean cell": float(cells["n_genes_by_counts"].mean()),
        "largest difference of a metric": off,
        "cells within the limits, share in common": _jaccard(ours_passed, set(scrublet.index)),
    }
    both = scrublet.index.intersection(cells.index[cells["doublet_score"].notna()])
    for name, column in (("doublets", "doublet"), ("doublets of two classes", "heterotypic")):
        is_doublet = truth.loc[both, column].to_numpy(bool)
        single = ~truth.loc[both, "doublet"].to_numpy(bool)
        for side, score in (("immunomod", cells), ("scanpy", scrublet)):
            values = score.loc[both, "doublet_score"].to_numpy(float)
            result[f"AUC on {name}, {side}"] = _auc(values[is_doublet], values[single])
    kept = {}
    with h5py.File(folder / "scanpy.h5ad", "r") as file:
        var, obs = read_elem(file["var"]), read_elem(file["obs"])
    kept["scanpy"] = set(obs.index)
    kept["immunomod"] = set(cells.index[cells["kept"]])
    result["kept cells, share in common"] = _jaccard(kept["immunomod"], kept["scanpy"])
    with h5py.File(folder / "immunomod" / "filtered.h5ad", "r") as file:
        own = read_elem(file["var"])
    top = set(own.loc[own["highly_variable_rank"] < 2000, "gene_symbol"])
    variable = set(var.index[var["highly_variable"]])
    result["variable genes, share of scanpy's"] = len(top & variable) / len(variable)
    return pd.DataFrame({"measure": list(result), "value": list(result.values())})


def _jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / max(len(one | other), 1)


def _auc(high: np.ndarray, low: np.ndarray) -> float:
    """Chance that a value of ``high`` is above one of ``low``; ties count half."""
    if not len(high) or not len(low):
        return float("nan")
    rank = pd.Series(np.concatenate([high, low])).rank().to_numpy()
    return float((rank[: len(high)].sum() - len(high) * (len(high) + 1) / 2) / (len(high) * len(low)))


def main(arguments: list[str] | None = None) -> pd.DataFrame:
    from immunomod.files import write_tsv

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--droplets", type=int, default=1_000_000, help="of the unfiltered library; 0 for none")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="keep the files here, and take those that are here from before")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks/results/sample_floor_speed.tsv")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="sample_floor_") as scratch:
        folder = (options.folder or Path(scratch)).resolve()
        write_library(folder / "filtered", options.cells, 0, options.seed)
        tables = [compare(folder / "filtered", "filtered", list(PROCESSES), options.repeats)]
        agreed = agreement(folder / "filtered")
        if options.droplets:
            write_library(folder / "unfiltered", options.cells, options.droplets, options.seed)
            tables.append(compare(folder / "unfiltered", "unfiltered", ["immunomod"], 1))
    table = pd.concat(tables, ignore_index=True)
    write_tsv(table.round(3), options.out)
    write_tsv(agreed.round(4), options.out.with_name("sample_floor_agreement.tsv"))
    print(table.round(2).to_string(index=False))
    print(agreed.round(4).to_string(index=False))
    for row in table[(table["side"] == "immunomod") & table["ratio"].notna()].itertuples():
        print(f"{row.cache}, {row.step}: {row.ratio:.1f} times faster (aim of the first two: {MIN_RATIO:g})")
    most = table.loc[table["side"] == "immunomod", "peak_mb"].max()
    print(f"at most {most:.0f} MB (aim: {MAX_MB:g})")
    return table


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2], sys.argv[3], Path(sys.argv[4]))))
    else:
        main()
