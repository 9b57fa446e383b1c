"""Small atlases with known classes: counts drawn from profiles that hold the shipped markers at known levels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

from immunomod.atlas.markers import MarkerSet, load_markers

MARKERS = Path(__file__).resolve().parents[2] / "resources" / "markers"
LICENSED = ("HLA-DRA", "HLA-DQA1", "HLA-DPB1", "CD74", "CD274", "CXCL9", "CXCL10", "IDO1")
HOUSEKEEPING = [f"HK{number}" for number in range(400)]


@pytest.fixture(scope="session")
def markers_folder() -> Path:
    return MARKERS


@pytest.fixture(scope="session")
def markers() -> MarkerSet:
    return load_markers(MARKERS)


def profile(markers: MarkerSet, cell_class: str, genes: list[str], organism: str = "human") -> np.ndarray:
    """Relative expression of a class: its positive markers high, everything else low."""
    name = cell_class.removesuffix("_licensed")
    level = np.full(len(genes), 0.02)
    level[[gene.startswith("HK") for gene in genes]] = np.geomspace(0.2, 20, len(HOUSEKEEPING))
    column = "gene_human" if organism == "human" else "gene_mouse"
    table = markers.markers
    own = table.loc[(table["cell_class"] == name) & (table["direction"] == "+"), column]
    level[np.isin(genes, own)] = 8.0
    if name != "MSC":
        level[np.isin(genes, ["PTPRC", "Ptprc"])] = 4.0
    if cell_class.endswith("_licensed"):
        level[np.isin(genes, LICENSED)] = 25.0
    if name not in markers.classes.index:
        level[[gene.startswith("EPI") for gene in genes]] = 15.0
    return level


@pytest.fixture(scope="session")
def draw_counts(markers: MarkerSet) -> Callable[..., tuple[sparse.csr_matrix, list[str]]]:
    """Poisson counts of cells of given classes; ``epithelium`` is a class that no marker knows."""

    def draw(
        classes: list[str], seed: int, depth: float = 2500, organism: str = "human"
    ) -> tuple[sparse.csr_matrix, list[str]]:
        generator = np.random.default_rng(seed)
        genes = sorted(markers.symbols(organism) | set(LICENSED) | {"PTPRC"})
        genes += [f"EPI{number}" for number in range(20)] + HOUSEKEEPING
        shares = {name: profile(markers, name, genes, organism) for name in set(classes)}
        rows = [generator.poisson(depth * shares[name] / shares[name].sum()) for name in classes]
        return sparse.csr_matrix(np.array(rows).reshape(len(classes), len(genes)), dtype=np.int32), genes

    return draw


@pytest.fixture(scope="session")
def write_sample(draw_counts: Callable[..., tuple[sparse.csr_matrix, list[str]]]) -> Callable[..., Path]:
    """Write a ``filtered.h5ad`` of known classes; ``drop`` leaves genes out of the file."""

    def write(
        folder: Path,
        sample: str,
        classes: list[str],
        seed: int,
        *,
        drop: tuple[str, ...] = (),
        organism: str = "human",
        dataset: str = "toy",
        condition: str = "",
    ) -> Path:
        counts, genes = draw_counts(classes, seed, organism=organism)
        obs = pd.DataFrame(
            {
                "barcode": [f"C{number}" for number in range(len(classes))],
                "sample": sample,
                "dataset": dataset,
                "condition": condition or sample,
                "donor": "D1",
                "organism": organism,
                "truth": classes,
                "total_counts": np.asarray(counts.sum(axis=1)).ravel(),
                "score_imm_Th1": np.linspace(-1, 1, len(classes)),
            }
        ).astype({"truth": str})
        obs.index = pd.Index([f"{sample}:{barcode}" for barcode in obs["barcode"]], dtype=str)
        adata = ad.AnnData(counts, obs=obs, var=pd.DataFrame({"gene_id": "", "gene_symbol": genes}, index=genes))
        adata = adata[:, ~np.isin(genes, drop)].copy()
        return save_filtered(adata, folder / sample / "filtered.h5ad")

    return write


def save_filtered(adata: ad.AnnData, path: Path) -> Path:
    """Add gene statistics and log-normalised expression to raw counts and write them as the sample floor does."""
    adata.layers["counts"] = adata.X.copy()
    if adata.n_obs >= 10:
        table = sc.pp.highly_variable_genes(
            adata, flavor="seurat_v3", layer="counts", n_top_genes=min(2000, adata.n_vars), inplace=False
        )
        adata.var["mean"], adata.var["variances_norm"] = table["means"], table["variances_norm"]
    else:
        # too few cells for a trend of the variance over the mean
        adata.var["mean"], adata.var["variances_norm"] = 0.0, np.nan
    adata.X = sparse.csr_matrix(adata.X, dtype=np.float32)
    if adata.n_obs:
        sc.pp.normalize_total(adata, target_sum=1e4)
        sc.pp.log1p(adata)
    adata.uns.clear()
    path.parent.mkdir(parents=True, exist_ok=True)
    adata.write_h5ad(path)
    return path


def kang_samples(shared: Path, folder: Path) -> list[Path]:
    """The two lanes of the Kang excerpt as filtered samples; ``obs["author"]`` is for the test's eyes only."""
    kang = ad.read_h5ad(shared / "data" / "kang" / "kang2000_ctrl_stim_8donors.h5ad")
    paths = []
    for arm in ("ctrl", "stim"):
        lane = kang[(kang.obs["condition"] == arm).to_numpy()].copy()
        lane.obs = pd.DataFrame(
            {
                "barcode": lane.obs["barcode"].astype(str),
                "sample": arm,
                "dataset": "GSE96583",
                "condition": arm,
                "donor": lane.obs["donor"].astype(str),
                "organism": "human",
                "author": lane.obs["cell_type"].astype(str),
            }
        )
        lane.obs_names = [f"{arm}:{barcode}" for barcode in lane.obs["barcode"]]
        lane.var = pd.DataFrame({"gene_id": "", "gene_symbol": lane.var_names}, index=lane.var_names)
        lane.X = sparse.csr_matrix(lane.X, dtype=np.int32)
        paths.append(save_filtered(lane, folder / arm / "filtered.h5ad"))
    return paths


@pytest.fixture(scope="session")
def kang_paths(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return kang_samples(shared, tmp_path_factory.mktemp("kang"))
