"""Small ``filtered.h5ad`` files of drawn counts, for what streams over all genes of an atlas."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

GENES = [f"G{number}" for number in range(60)]
GROUPS = np.array(["a", "b", "c", "d"])


def write_filtered(
    folder: Path, sample: str, counts: np.ndarray, genes: list[str] | None = None, ids: bool = False, **obs: object
) -> Path:
    """A ``filtered.h5ad`` with log-normalised X, as the sample floor writes it."""
    genes = GENES[: counts.shape[1]] if genes is None else genes
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    expression = np.log1p(counts * 1e4 / totals)
    names = [f"C{number}" for number in range(len(counts))]
    table = pd.DataFrame({"barcode": names, "sample": sample, "dataset": "toy", "total_counts": counts.sum(axis=1)})
    table = table.assign(**obs)
    table.index = pd.Index([f"{sample}:{name}" for name in names], dtype=str)
    var = pd.DataFrame({"gene_id": [f"ENSG_{gene}" if ids else "" for gene in genes], "gene_symbol": genes})
    var.index = pd.Index(var["gene_id"] if ids else genes, name=None)
    var["mean"] = counts.mean(axis=0) if len(counts) else 0.0
    adata = ad.AnnData(sparse.csr_matrix(expression, dtype=np.float32), obs=table, var=var)
    adata.layers["counts"] = sparse.csr_matrix(counts, dtype=np.int32)
    path = folder / sample / "filtered.h5ad"
    path.parent.mkdir(parents=True, exist_ok=True)
    adata.write_h5ad(path)
    return path


def draw(n_cells: int, seed: int, n_genes: int = len(GENES), shift: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Counts with many ties, and groups: gene g is up in group g modulo 4."""
    generator = np.random.default_rng(seed)
    group = generator.integers(0, 4, size=n_cells)
    level = generator.uniform(0.05, 2.0, size=n_genes) * shift
    up = np.where(np.arange(n_genes) % 4 == group[:, None], 2.5, 1.0)
    return generator.poisson(level * up), GROUPS[group]
