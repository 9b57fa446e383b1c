"""Simulated counts of any number of cells with real-like sparsity, for the benchmark of the atlas.

A cell is a mixture of its class's four archetypes (so classes are continua, not points), its molecules are drawn one
by one from that mixture, and every sample shifts the profiles a little. The profiles are the shipped ones of eight
classes (resources/simulation), seven classes derived from them, some close to their parent, and 26,500 further genes.
Cells detect about 2,000 of 30,000 genes.

    python benchmarks/atlas/counts.py FOLDER --cells 20000
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from numba import njit
from scipy import sparse

from immunomod.files import write_h5ad, write_tsv
from immunomod.parallel import for_each, row_blocks
from immunomod.simulate.profiles import load_profiles

N_GENES = 30_000
N_ARCHETYPES = 4
CELLS_PER_SAMPLE = 10_000
#: Class, its parent (empty: shipped profile), genes that differ from the parent, share of the cells.
CLASSES = (
    ("CD4_T", "", 0, 0.2), ("CD8_T", "", 0, 0.12), ("NK", "", 0, 0.08), ("B", "", 0, 0.09),
    ("CD14_monocyte", "", 0, 0.14), ("CD16_monocyte", "", 0, 0.03), ("DC", "", 0, 0.015), ("MSC", "", 0, 0.14),
    ("CD4_T_memory", "CD4_T", 120, 0.06), ("CD8_T_effector", "CD8_T", 120, 0.04), ("B_memory", "B", 120, 0.03),
    ("NK_bright", "NK", 120, 0.01), ("monocyte_activated", "CD14_monocyte", 200, 0.03),
    ("MSC_licensed", "MSC", 200, 0.01), ("pre_DC", "DC", 200, 0.005),
)  # fmt: skip


def profiles(seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Genes, and shares of molecules of every class's archetypes (classes x archetypes x genes)."""
    generator = np.random.default_rng(seed)
    shipped = load_profiles()
    n_shipped = len(shipped.genes)
    genes = pd.DataFrame(
        {
            "gene_id": [*shipped.genes["gene_id"], *(f"ENSG09{n:09d}" for n in range(N_GENES - n_shipped))],
            "gene_symbol": [*shipped.genes["gene_symbol"], *(f"SIM{n}" for n in range(N_GENES - n_shipped))],
        }
    )
    further = generator.lognormal(0, 2.4, size=N_GENES - n_shipped)
    further *= 0.55e6 / further.sum()
    levels: dict[str, np.ndarray] = {}
    for name, parent, n_differ, _ in CLASSES:
        if parent:
            level = levels[parent].copy()
            changed = generator.choice(np.flatnonzero(level > 20), size=n_differ, replace=False)
            level[changed] *= 2 ** (generator.choice([-1, 1], size=n_differ) * generator.uniform(1, 2.5, size=n_differ))
        else:
            own = shipped.of(name, "") * 0.45e6
            level = np.concatenate([own, further * np.exp(generator.normal(0, 0.25, size=len(further)))])
        levels[name] = level
    archetypes = np.empty((len(CLASSES), N_ARCHETYPES, N_GENES))
    for number, (name, *_) in enumerate(CLASSES):
        for archetype in range(N_ARCHETYPES):
            shift = np.zeros(N_GENES)
            moved = generator.choice(N_GENES, size=3_000, replace=False)
            shift[moved] = generator.normal(0, 0.7, size=len(moved))
            archetypes[number, archetype] = levels[name] * np.exp(shift)
    return genes, archetypes / archetypes.sum(axis=2, keepdims=True)


@njit(cache=True, nogil=True)
def _alias(shares, accept, alias):  # type: ignore[no-untyped-def]
    """Walker's alias table of each row of ``shares`` (rows sum to 1)."""
    n = shares.shape[1]
    small, large = np.empty(n, np.int64), np.empty(n, np.int64)
    for row in range(shares.shape[0]):
        n_small = n_large = 0
        for gene in range(n):
            accept[row, gene] = shares[row, gene] * n
            alias[row, gene] = gene
            if accept[row, gene] < 1:
                small[n_small] = gene
                n_small += 1
            else:
                large[n_large] = gene
                n_large += 1
        while n_small and n_large:
            low, high = small[n_small - 1], large[n_large - 1]
            n_small -= 1
            alias[row, low] = high
            accept[row, high] -= 1 - accept[row, low]
            if accept[row, high] < 1:
                n_large -= 1
                small[n_small] = high
                n_small += 1


@njit(cache=True, nogil=True)
def _draw(accept, alias, first_row, mixture, molecules, seed, indptr, indices, data):  # type: ignore[no-untyped-def]
    """Molecules of each cell from the mixture of its rows ``first_row ...``; returns how many entries were filled."""
    n = accept.shape[1]
    counts = np.zeros(n, np.int32)
    found = np.empty(n, np.int32)
    filled = 0
    state = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)
    for cell in range(len(molecules)):
        n_found = 0
        for _ in range(molecules[cell]):
            # xorshift64 (Marsaglia 2003), 32 bits for the archetype and 32 for the gene
            state ^= state << np.uint64(13)
            state ^= state >> np.uint64(7)
            state ^= state << np.uint64(17)
            u, row = np.float64(state >> np.uint64(32)) * 2.0**-32, first_row[cell]
            for archetype in range(mixture.shape[1] - 1):
                if u < mixture[cell, archetype]:
                    break
                row += 1
            v = np.float64(state & np.uint64(0xFFFFFFFF)) * 2.0**-32 * n
            gene = int(v)
            if v - gene >= accept[row, gene]:
                gene = alias[row, gene]
            if counts[gene] == 0:
                found[n_found] = gene
                n_found += 1
            counts[gene] += 1
        kept = np.sort(found[:n_found])
        for gene in kept:
            indices[filled] = gene
            data[filled] = counts[gene]
            counts[gene] = 0
            filled += 1
        indptr[cell + 1] = filled
    return filled


def sample_counts(archetypes: np.ndarray, n_cells: int, seed: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Counts (CSR int32, cells x genes) of one sample and the class of every cell."""
    generator = np.random.default_rng(seed)
    shift = np.exp(generator.normal(0, 0.15, size=N_GENES) * (generator.random(N_GENES) < 0.3))
    shares = (archetypes * shift).reshape(-1, N_GENES)
    shares /= shares.sum(axis=1, keepdims=True)
    accept, alias = np.empty(shares.shape, np.float32), np.empty(shares.shape, np.int32)
    _alias(shares, accept, alias)
    weights = np.array([share for *_, share in CLASSES])
    # drawn class by class, whose tables fit the cache, and shuffled afterwards
    of_class = np.sort(generator.choice(len(CLASSES), size=n_cells, p=weights / weights.sum()))
    mixture = np.cumsum(generator.dirichlet(np.full(N_ARCHETYPES, 0.7), size=n_cells), axis=1)
    molecules = np.maximum(600, generator.lognormal(np.log(5_200), 0.4, size=n_cells)).astype(np.int64)
    indptr = np.zeros(n_cells + 1, np.int64)
    room = int(np.minimum(molecules, N_GENES).sum())
    indices, data = np.empty(room, np.int32), np.empty(room, np.int32)
    filled = _draw(accept, alias, of_class * N_ARCHETYPES, mixture, molecules, seed, indptr, indices, data)
    matrix = sparse.csr_matrix((data[:filled].copy(), indices[:filled].copy(), indptr), shape=(n_cells, N_GENES))
    order = generator.permutation(n_cells)
    return matrix[order], np.array([name for name, *_ in CLASSES], dtype=object)[of_class[order]]


def write_study(folder: Path, n_cells: int, seed: int = 1, threads: int = 2, together: bool = True) -> None:
    """``samples/<sample>/counts.h5ad`` as the workflow writes them, ``truth.tsv.gz``, and ``counts.h5ad`` of all."""
    genes, archetypes = profiles(seed)
    var = genes.set_index(pd.Index(genes["gene_id"].to_numpy()))

    def write(numbered: tuple[int, slice]) -> pd.DataFrame:
        number, cells = numbered
        counts, classes = sample_counts(archetypes, cells.stop - cells.start, seed * 1_000 + number)
        name = f"S{number:03d}"
        obs = pd.DataFrame({"barcode": [f"C{cell:07d}-1" for cell in range(cells.start, cells.stop)]})
        columns = {"sample": name, "dataset": "simulated", "donor": f"D{number:03d}", "condition": "control"}
        obs = obs.assign(**columns, organism="human")
        obs.index = pd.Index(list(name + ":" + obs["barcode"]))
        obs[[*columns, "organism"]] = obs[[*columns, "organism"]].astype("category")
        write_h5ad(ad.AnnData(counts, obs=obs, var=var), folder / "samples" / name / "counts.h5ad")
        return pd.DataFrame({"cell": obs.index, "sample": name, "cell_class": classes})

    blocks = list(enumerate(row_blocks(n_cells, CELLS_PER_SAMPLE)))
    write_tsv(pd.concat(for_each(blocks, write, threads)), folder / "truth.tsv.gz")
    if together:
        write_together(folder)


def write_together(folder: Path) -> None:
    """``counts.h5ad`` of all samples' cells, passed on piece by piece; it appears when it is complete."""
    from anndata.experimental import concat_on_disk

    unfinished = folder / "unfinished.h5ad"  # by its ending the writer knows the format
    concat_on_disk(sorted(folder.glob("samples/*/counts.h5ad")), unfinished, merge="first")
    unfinished.replace(folder / "counts.h5ad")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--apart", action="store_true", help="do not write the one file of all cells")
    chosen = parser.parse_args()
    write_study(chosen.folder, chosen.cells, chosen.seed, chosen.threads, not chosen.apart)


if __name__ == "__main__":
    main()
