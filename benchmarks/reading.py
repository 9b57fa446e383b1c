"""Time and memory of the streaming readers against scanpy's, on the same files in the same run.

Run from the repository: ``python benchmarks/reading.py [--cells N] [--dense-cells N] [--repeats N]``; about five
minutes on two cores. Writes ``benchmarks/results/reading.tsv``, one row per file and reader.

Files
    *triplet*: a gzipped CellRanger v3 triplet of 20,000 cells, 25,000 genes and about 2,300 detected genes a cell.
    *dense*: a gzipped csv, genes x cells, of 5,000 such cells.
    Counts are Poisson, abundance of genes and depth of cells log-normal. A tenth of the triplet's cells are drawn; the
    others repeat them, far outside the window of gzip.

Measures
    Every reading is a process of its own, which has imported its reader and read a tiny file before the clock starts;
    readers take turns, and the median over repeats is given. ``first_seconds`` is import and tiny reading in a
    fresh installation, whose machine code has yet to be compiled: what is paid once. ``peak_mb`` is the highest
    resident memory above that at the start (VmHWM, reset through ``/proc/self/clear_refs``), so it holds the result.
    ``result_mb`` is the matrix as CSR with int32 values, the same for both; ``own_result_mb`` the matrix as the reader
    returns it (scanpy: float32, and dense for a csv). ``above_mb`` and ``above_own_mb`` are the peak less these.
    ``speedup`` and ``memory_ratio`` are against scanpy's: its seconds over the reader's, and the reader's
    ``above_own_mb`` over its.

The matrices and the names of cells and genes must be equal, or the run fails.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from isal import igzip
from scipy import io as scipy_io
from scipy import sparse

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "workflow"))

N_GENES = 25_000
DRAWN_SHARE = 10
ENTRIES_AT_ONCE = 2_000_000
TINY_CELLS = 20
MB = 1e6
#: As PERFORMANCE goals have it: this many times faster, at this share of the memory above the result.
MIN_SPEEDUP, MAX_MEMORY_RATIO = 8.0, 0.2
Result = tuple[sparse.csr_matrix, pd.Index, pd.Index, int]


def draw_counts(n_cells: int, drawn: int, seed: int) -> sparse.csr_matrix:
    """cells x genes, int32, about 2,300 detected genes a cell; ``drawn`` cells, over and over."""
    rng = np.random.default_rng(seed)
    abundance = rng.lognormal(-3.3, 2.2, N_GENES)
    parts = []
    for begin in range(0, drawn, 500):
        depth = rng.lognormal(-0.58, 0.3, (min(500, drawn - begin), 1))
        parts.append(sparse.csr_matrix(rng.poisson(depth * abundance).astype(np.int32)))
    some = sparse.vstack(parts, format="csr")
    return sparse.vstack([some] * -(-n_cells // drawn), format="csr")[:n_cells]


def cell_names(n_cells: int) -> list[str]:
    return ["".join("ACGT"[(cell >> (2 * k)) & 3] for k in range(16)) + "-1" for cell in range(n_cells)]


def gene_ids() -> list[str]:
    return [f"ENSG{gene:011d}" for gene in range(1, N_GENES + 1)]


def write_triplet(
    folder: Path, counts: sparse.csr_matrix, cells: Sequence[str] | None = None, genes: Sequence[str] | None = None
) -> None:
    """A CellRanger v3 triplet, entries sorted by cell; ``genes``: id and symbol, tab-separated."""
    folder.mkdir(parents=True)
    n_cells, n_genes = counts.shape
    with igzip.open(folder / "matrix.mtx.gz", "wb", compresslevel=2) as out:
        out.write(b"%%MatrixMarket matrix coordinate integer general\n%\n")
        out.write(f"{n_genes} {n_cells} {counts.nnz}\n".encode())
        begin = 0
        while begin < n_cells:
            end = begin + max(
                1, int(np.searchsorted(counts.indptr[begin + 1 :], counts.indptr[begin] + ENTRIES_AT_ONCE))
            )
            part = counts[begin:end].tocoo()
            entries = sparse.coo_matrix((part.data, (part.col, part.row + begin)), shape=(n_genes, n_cells))
            text = io.BytesIO()
            scipy_io.mmwrite(text, entries, field="integer")
            out.write(text.getvalue().split(b"\n", 1)[1].split(f"{part.nnz}\n".encode(), 1)[1])
            begin = end
    with igzip.open(folder / "barcodes.tsv.gz", "wt") as out:
        out.writelines(f"{name}\n" for name in cells or cell_names(n_cells))
    named = genes or [f"{name}\tGENE{k}" for k, name in enumerate(gene_ids())]
    with igzip.open(folder / "features.tsv.gz", "wt") as out:
        out.writelines(f"{name}\tGene Expression\n" for name in named)


def write_dense(path: Path, counts: sparse.csr_matrix) -> None:
    """A csv, genes x cells."""
    by_gene = counts.tocsc()
    words = [str(value) for value in range(int(counts.max()) + 1)]
    with igzip.open(path, "wt", compresslevel=2) as out:
        out.write(",".join(["", *cell_names(counts.shape[0])]) + "\n")
        for gene, name in enumerate(gene_ids()):
            row = np.zeros(counts.shape[0], dtype=np.int64)
            place = slice(by_gene.indptr[gene], by_gene.indptr[gene + 1])
            row[by_gene.indices[place]] = by_gene.data[place]
            out.write(",".join([name, *(words[value] for value in row.tolist())]) + "\n")


def bytes_of(matrix: object) -> int:
    if sparse.issparse(matrix):
        return int(matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes)  # type: ignore[attr-defined]
    return int(np.asarray(matrix).nbytes)


def with_scanpy(kind: str, folder: Path) -> Callable[[], object]:
    import scanpy as sc

    if kind == "triplet":
        return lambda: sc.read_10x_mtx(folder / "triplet", var_names="gene_ids")
    return lambda: sc.read_csv(folder / "dense.csv.gz")


def with_immunomod(kind: str, folder: Path) -> Callable[[], object]:
    from immunomod.sample.readers import REGISTRY
    from immunomod.sample.readers.library import LibraryFiles
    from immunomod.sample.readers.sniff import sniff

    layout = REGISTRY["10x_triplet" if kind == "triplet" else "dense_table"]

    def read() -> object:
        paths = sorted((folder / "triplet").iterdir()) if kind == "triplet" else [folder / "dense.csv.gz"]
        files = LibraryFiles("benchmark", tuple(sniff(path) for path in paths))
        return layout.run(layout.recognise(files)[0], files)

    return read


READERS = {"scanpy": with_scanpy, "immunomod": with_immunomod}


def as_counts(read: object, kind: str) -> Result:
    """cells x genes as canonical int32 CSR, names of cells and genes, and the bytes of the matrix as it was read."""
    if hasattr(read, "barcodes"):
        matrix, cells, genes = read.matrix, read.barcodes, pd.Index(read.features["gene_id"])
    else:
        matrix, cells, genes = read.X, read.obs_names, read.var_names  # type: ignore[attr-defined]
    n_bytes = bytes_of(matrix)
    if not hasattr(read, "barcodes") and kind == "dense":
        matrix, cells, genes = matrix.T, genes, cells
    counts = sparse.csr_matrix(matrix).astype(np.int32)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    return counts, cells, genes, n_bytes


def memory_mb(what: str) -> float:
    """A line of ``/proc/self/status`` in kB, as MB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith(what)).split()[1]) * 1024 / MB


def measure(reader: str, kind: str, folder: Path) -> dict[str, object]:
    """Read a file in this process, after a tiny one."""
    began = time.perf_counter()
    READERS[reader](kind, folder / "tiny")()
    first = time.perf_counter() - began
    read = READERS[reader](kind, folder)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    start = memory_mb("VmRSS")
    began = time.perf_counter()
    result = read()
    seconds = time.perf_counter() - began
    peak = memory_mb("VmHWM") - start
    counts, cells, genes, own = as_counts(result, kind)
    digest = hashlib.sha256()
    for array in (counts.indptr.astype(np.int64), counts.indices.astype(np.int32), counts.data):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update("\n".join([*cells, "", *genes]).encode())
    return {
        "seconds": seconds,
        "first_seconds": first,
        "peak_mb": peak,
        "result_mb": bytes_of(counts) / MB,
        "own_result_mb": own / MB,
        "digest": digest.hexdigest(),
    }


def in_fresh_process(reader: str, kind: str, folder: Path, cache: Path | None = None) -> dict[str, object]:
    """:func:`measure` in a process of its own; with an empty ``cache`` of machine code where one is named."""
    settings = os.environ | ({"NUMBA_CACHE_DIR": str(cache)} if cache else {})
    command = [sys.executable, __file__, "--measure", reader, kind, str(folder)]
    done = subprocess.run(command, env=settings, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(kind: str, folder: Path, repeats: int) -> pd.DataFrame:
    """One row per reader of a file; raises where the matrices differ."""
    first = {reader: in_fresh_process(reader, kind, folder, Path(tempfile.mkdtemp(dir=folder))) for reader in READERS}
    runs = [(reader, in_fresh_process(reader, kind, folder)) for _ in range(repeats) for reader in READERS]
    if len({run["digest"] for _, run in [*runs, *first.items()]}) != 1:
        raise SystemExit(f"{kind}: the readers' matrices or names differ")
    rows = []
    for reader in READERS:
        numbers = pd.DataFrame([run for name, run in runs if name == reader]).drop(columns="digest")
        row = numbers.median().to_dict() | {"first_seconds": first[reader]["first_seconds"]}
        rows.append({"file": kind, "reader": reader, "seconds_min": numbers["seconds"].min(), **row})
    table = pd.DataFrame(rows)
    table["above_mb"] = table["peak_mb"] - table["result_mb"]
    table["above_own_mb"] = table["peak_mb"] - table["own_result_mb"]
    scanpy = table[table["reader"] == "scanpy"].iloc[0]
    table["speedup"] = scanpy["seconds"] / table["seconds"]
    table["memory_ratio"] = table["above_own_mb"] / scanpy["above_own_mb"]
    return table


def write_files(folder: Path, kinds: list[str], n_cells: dict[str, int], seed: int) -> None:
    """The files of each kind, and tiny ones; none that is there is written again."""
    for place, size in ((folder, n_cells), (folder / "tiny", dict.fromkeys(kinds, TINY_CELLS))):
        place.mkdir(exist_ok=True, parents=True)
        if "triplet" in kinds and not (place / "triplet").exists():
            write_triplet(
                place / "triplet", draw_counts(size["triplet"], max(TINY_CELLS, size["triplet"] // DRAWN_SHARE), seed)
            )
        if "dense" in kinds and not (place / "dense.csv.gz").exists():
            write_dense(place / "dense.csv.gz", draw_counts(size["dense"], size["dense"], seed))


def main(arguments: list[str] | None = None) -> pd.DataFrame:
    from immunomod.files import write_tsv

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=20_000, help="cells of the triplet")
    parser.add_argument("--dense-cells", type=int, default=5_000, help="cells of the csv")
    parser.add_argument("--files", default="triplet,dense", help="which files to read")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep the files here, and take those that are here from before")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks/results/reading.tsv")
    options = parser.parse_args(arguments)
    kinds = options.files.split(",")
    with tempfile.TemporaryDirectory(prefix="reading_") as scratch:
        folder = options.folder or Path(scratch)
        write_files(folder, kinds, {"triplet": options.cells, "dense": options.dense_cells}, options.seed)
        table = pd.concat([compare(kind, folder, options.repeats) for kind in kinds], ignore_index=True)
    write_tsv(table.round(3), options.out)
    print(table.round(2).to_string(index=False))
    for row in table[table["reader"] == "immunomod"].itertuples():
        reached = row.speedup >= MIN_SPEEDUP and row.memory_ratio <= MAX_MEMORY_RATIO
        print(f"{row.file}: {row.speedup:.1f} times faster, {row.memory_ratio:.3f} of the memory", end="")
        print("" if reached else f"; the aims are {MIN_SPEEDUP:g} and {MAX_MEMORY_RATIO:g}")
    return table


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2], sys.argv[3], Path(sys.argv[4]))))
    else:
        main()
