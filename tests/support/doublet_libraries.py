"""Libraries with known doublets, for tests and benchmarks of doublet methods."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

KANG = Path("data/kang/kang2000_ctrl_stim_8donors.h5ad")


def four_types(rng: np.random.Generator, n_cells: int, n_doublets: int) -> tuple[sparse.csr_matrix, NDArray[np.bool_]]:
    """Cells of four unlike types over 400 genes; the last ``n_doublets`` rows are sums of two of unlike types."""
    profiles = rng.gamma(0.3, 1.0, size=(4, 400))
    profiles /= profiles.sum(axis=1, keepdims=True)
    kind = rng.integers(0, 4, n_cells)
    depth = np.exp(rng.normal(7.3, 0.25, n_cells))
    counts = rng.poisson(profiles[kind] * depth[:, None])
    first = rng.integers(0, n_cells, n_doublets)
    second = np.array([rng.choice(np.flatnonzero(kind != kind[i])) for i in first], dtype=int)
    if n_doublets:
        counts = np.vstack([counts, counts[first] + counts[second]])
    return sparse.csr_matrix(counts.astype(np.int32)), np.arange(len(counts)) >= n_cells


@dataclass(frozen=True)
class Coculture:
    """A simulated library with its truth; ``compartment`` is what a typing by expression sees.

    ``heterotypic``: doublets of two classes; ``mixed``: of MSC and immune cell, which look like the MSC, the larger.
    """

    counts: sparse.csr_matrix
    doublet: NDArray[np.bool_]
    heterotypic: NDArray[np.bool_]
    mixed: NDArray[np.bool_]
    first_is_msc: NDArray[np.bool_]
    compartment: NDArray[np.object_]
    genes: pd.DataFrame


def simulated(
    seed: int, leakage: float = 0.002, doublet_rate: float = 0.05, scale: float = 5.0, arm: str = "coculture"
) -> Coculture:
    """One library of a simulated study (290 cells times ``scale`` in a co-culture)."""
    from immunomod.simulate.settings import SimulationSettings
    from immunomod.simulate.study import simulate_study

    settings = SimulationSettings(n_donors=1, cells_scale=scale, doublet_rate=doublet_rate, leakage=leakage, seed=seed)
    adata = simulate_study(settings).adata
    adata = adata[(adata.obs["condition"] == arm).to_numpy()]
    first = adata.obs["true_class"].astype(str).to_numpy()
    second = adata.obs["second_class"].astype(str).to_numpy()
    doublet = adata.obs["true_doublet"].to_numpy(dtype=bool)
    is_msc = first == "MSC"
    mixed = doublet & (is_msc != (second == "MSC"))
    return Coculture(
        counts=adata.X.tocsr(),
        doublet=doublet,
        heterotypic=doublet & (first != second),
        mixed=mixed,
        first_is_msc=is_msc,
        compartment=np.where(is_msc | mixed, "MSC", "immune").astype(object),
        genes=adata.var,
    )


def exclusive_genes() -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Genes of the simulation's profiles that only MSC, and that only immune classes make."""
    from immunomod.simulate.profiles import load_profiles

    levels = load_profiles().levels
    msc = levels["MSC"].to_numpy()
    immune = levels[[name for name in levels if name != "MSC"]].max(axis=1).to_numpy()
    return (msc > 50) & (immune < msc / 50), (immune > 50) & (msc < immune / 200)


def kang_with_doublets(shared: Path, seed: int, rate: float = 0.06) -> tuple[sparse.csr_matrix, NDArray[np.bool_]]:
    """Real singlets of GSE96583 (Kang et al. 2018), ``rate`` of them added up in pairs (the last rows)."""
    import anndata

    adata = anndata.read_h5ad(shared / KANG)
    adata = adata[(adata.obs["multiplets"].astype(str) == "singlet").to_numpy()]
    counts = sparse.csr_matrix(adata.X).astype(np.int32)
    order = np.random.default_rng(seed).permutation(counts.shape[0])
    n = int(rate * counts.shape[0])
    first, second, alone = order[:n], order[n : 2 * n], order[2 * n :]
    stacked = sparse.vstack([counts[alone], counts[first] + counts[second]], format="csr")
    return stacked, np.arange(stacked.shape[0]) >= len(alone)


def area_under_curve(score: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Chance that a positive outscores a negative, ties counted half."""
    from scipy.stats import rankdata

    ranks = rankdata(score)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def scanpy_scrublet(counts: sparse.csr_matrix, expected_rate: float, seed: int) -> tuple[NDArray[np.float64], object]:
    """Scores and threshold of scanpy's scrublet with exact neighbours."""
    import warnings

    import scanpy as sc
    from anndata import AnnData

    adata = AnnData(counts.astype(np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sc.pp.scrublet(
            adata,
            expected_doublet_rate=expected_rate,
            use_approx_neighbors=False,
            verbose=False,
            random_state=seed,
        )
    return adata.obs["doublet_score"].to_numpy(dtype=np.float64), adata.uns["scrublet"].get("threshold")
