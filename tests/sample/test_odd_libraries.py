"""Libraries that went wrong: each is read, and has a verdict and a reason, in every layout in which it can occur."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from immunomod.errors import UserError
from immunomod.files import read_tsv, write_h5ad, write_tsv
from immunomod.sample.process import SampleResult, process_sample
from immunomod.sample.read import read_sample
from immunomod.sample.settings import SampleSettings
from immunomod.sample.summary import FILTERS
from support.layouts import Truth, dense, legacy_group, market, put, tenx_h5, triplet

SETTINGS = SampleSettings.from_config({}, 1)
WEIGHTS = pd.DataFrame({"alpha": 1.0, "beta": -1.0}, index=["CD74", "B2M", "G1", "G2", "G3"])


def accounted(result: SampleResult, folder: Path) -> pd.Series:
    """The row of ``qc.tsv``, after every result was written and read again and every droplet counted once."""
    row = result.qc.iloc[0]
    assert row["cells_before"] - sum(row[f"cells_{name}"] for name in FILTERS) == row["cells_after"]
    assert row["cells_after"] == result.filtered.n_obs == result.cells["kept"].sum()
    write_h5ad(result.filtered, folder / "filtered.h5ad")
    filtered = ad.read_h5ad(folder / "filtered.h5ad")
    assert filtered.shape == result.filtered.shape == filtered.layers["counts"].shape
    assert {"total_counts", "complexity", "score_alpha"} <= set(filtered.obs)
    for name in ("cells", "qc", "ambient", "ranks"):
        write_tsv(getattr(result, name), folder / f"{name}.tsv")
    assert read_tsv(folder / "qc.tsv")["verdict"].item() == row["verdict"]
    return row


# --- from the files --------------------------------------------------------------------------------------------------

WHOLE = Truth.make()


def cut(n_cells: int | None = None, n_genes: int | None = None, times: int = 1) -> Truth:
    counts = WHOLE.counts[:n_cells, :n_genes] * times
    return Truth(counts, WHOLE.genes.iloc[: counts.shape[1]], WHOLE.barcodes[: counts.shape[0]])


ODD = {
    "no barcode": (cut(n_cells=0), "the library is empty: no barcode has a count"),
    "no feature": (cut(n_genes=0), "the library is empty: its matrix lists no gene"),
    "nothing": (cut(0, 0), "the library is empty: its matrix lists no gene"),
    "no count": (cut(times=0), "the library is empty: no barcode has a count"),
    "one cell": (cut(n_cells=1), "no cell passes: 1 low_counts"),
    "one gene": (Truth(WHOLE.counts[:, [11]], WHOLE.genes.iloc[[11]], WHOLE.barcodes), "no cell passes: 23 low_counts"),
    "one cell of one gene": (Truth(np.array([[9]]), WHOLE.genes.iloc[[11]], WHOLE.barcodes[:1]), "no cell passes: 1 l"),
    "8 cells": (cut(n_cells=8, times=20), "no cell passes: 8 low_genes"),
    "3 cells of 2 counts": (
        Truth(2 * np.eye(3, len(WHOLE.genes), dtype=int), WHOLE.genes, WHOLE.barcodes[:3]),
        "no cell passes: 3 low_counts",
    ),
}


def as_h5ad(matrix: Callable[[np.ndarray], object]) -> Callable[[Path, Truth], None]:
    def write(folder: Path, truth: Truth) -> None:
        folder.mkdir()
        var = pd.DataFrame(
            {"gene_ids": truth.genes["gene_id"].to_numpy()},
            index=pd.Index(truth.genes["gene_symbol"].to_numpy(), dtype=object),
        )
        counts = matrix(truth.counts.astype(np.float32))
        AnnData(counts, obs=pd.DataFrame(index=pd.Index(truth.barcodes, dtype=object)), var=var).write_h5ad(
            folder / "library.h5ad"
        )

    return write


def as_loom(folder: Path, truth: Truth) -> None:
    folder.mkdir()
    with h5py.File(folder / "library.loom", "w") as handle:
        handle["matrix"] = truth.counts.T.astype(np.int32)
        handle["row_attrs/Gene"] = truth.genes["gene_symbol"].to_numpy(dtype="S20")
        handle["row_attrs/Accession"] = truth.genes["gene_id"].to_numpy(dtype="S20")
        handle["col_attrs/CellID"] = np.array(truth.barcodes, dtype="S20")


def as_cellranger_2(folder: Path, truth: Truth) -> None:
    folder.mkdir()
    with h5py.File(folder / "library.h5", "w") as handle:
        legacy_group(handle, "GRCh38", truth)


WRITERS: dict[str, Callable[[Path, Truth], object]] = {
    "triplet": triplet,
    "triplet of CellRanger": lambda folder, truth: triplet(
        folder, truth, matrix=market(truth.counts.T, header='%metadata_json: {"software_version": "x"}')
    ),
    "triplet, transposed": lambda folder, truth: triplet(folder, truth, matrix=market(truth.counts)),
    "CellRanger 3 HDF5": lambda folder, truth: tenx_h5(folder / "library.h5", truth),
    "CellRanger 2 HDF5": as_cellranger_2,
    "h5ad, sparse": as_h5ad(sparse.csr_matrix),
    "h5ad, dense": as_h5ad(np.asarray),
    "loom": as_loom,
    "genes x cells": lambda folder, truth: put(folder / "library.csv.gz", dense(truth).to_csv()),
    "cells x genes": lambda folder, truth: put(folder / "library.tsv", dense(truth, transpose=True).to_csv(sep="\t")),
}
#: A dense table without one of its names, or of one column, is no table: refused in words.
REFUSED = {
    "genes x cells": ("no barcode", "nothing", "one cell", "one gene", "one cell of one gene"),
    "cells x genes": ("no feature", "nothing", "one gene", "one cell of one gene"),
}


def read_library(folder: Path, **values: str) -> tuple[AnnData, pd.DataFrame]:
    """A library's files as the acquire floor lists them, read for a row of the sheet."""
    listed = [
        {"dataset": "study", "sample": "S1", "file": path.name, "path": str(path), "url": "", "bytes": "1"}
        for path in sorted(folder.iterdir())
    ]
    sheet = {"sample": "S1", "dataset": "study", "condition": "a", "donor": "d", "organism": "human"} | values
    return read_sample(pd.Series(sheet), pd.DataFrame(listed).assign(sha256="x", retrieved=""))


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("layout", WRITERS)
def test_an_odd_library_has_a_verdict_in_every_layout(layout, odd, tmp_path):
    truth, reason = ODD[odd]
    WRITERS[layout](tmp_path / "data", truth)
    if odd in REFUSED.get(layout, ()):
        with pytest.raises(UserError, match=r"library\.|no matrix of counts"):
            read_library(tmp_path / "data")
        return
    counts, ledger = read_library(tmp_path / "data")
    assert counts.X.sum() == truth.counts.sum()
    decision = " ".join(ledger["decision"])
    assert ("the library is empty: its sample fails" in decision) == (truth.counts.sum() == 0)
    write_h5ad(counts, tmp_path / "counts.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = process_sample(ad.read_h5ad(tmp_path / "counts.h5ad"), WEIGHTS, SETTINGS)
    row = accounted(result, tmp_path)
    assert (row["sample"], row["dataset"], row["verdict"]) == ("S1", "study", "fail")
    assert row["reason"].startswith(reason)


def test_antibodies_alone_are_the_wrong_file(tmp_path):
    names = pd.DataFrame({"gene_id": ["CD3_TotalSeqB", "CD19_TotalSeqB"]}).assign(
        gene_symbol=lambda table: table["gene_id"]
    )
    features = "".join(f"{name}\t{name}\tAntibody Capture\n" for name in names["gene_id"])
    triplet(tmp_path / "data", Truth(WHOLE.counts[:, :2] + 1, names, WHOLE.barcodes), features=features)
    with pytest.raises(UserError, match=r"holds no gene expression .*; point source at the matrix of genes"):
        read_library(tmp_path / "data")


def test_an_empty_table_of_barcodes_beside_a_matrix_with_cells_is_a_mistake(tmp_path):
    triplet(tmp_path / "data", WHOLE)
    put(tmp_path / "data" / "barcodes.tsv.gz", "")
    with pytest.raises(UserError, match="no barcodes table beside this 31 x 23 matrix"):
        read_library(tmp_path / "data")


def test_normalised_values_are_refused_though_a_layer_is_empty(tmp_path):
    logged = np.log1p(WHOLE.counts / WHOLE.counts.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)
    adata = AnnData(logged, obs=pd.DataFrame(index=WHOLE.barcodes), var=pd.DataFrame(index=WHOLE.genes["gene_symbol"]))
    adata.layers["counts"] = np.zeros_like(logged)
    (tmp_path / "data").mkdir()
    adata.write_h5ad(tmp_path / "data" / "library.h5ad")
    with pytest.raises(UserError, match="no raw counts in layers"):
        read_library(tmp_path / "data")


# --- from the counts -------------------------------------------------------------------------------------------------

SYMBOLS = ["MT-CO1", "MT-ND1", "RPL3", "HBB", "CD74", *(f"G{number}" for number in range(600))]


def library(counts: np.ndarray, **columns: object) -> AnnData:
    """Cells x genes as the reader gives them."""
    n_cells = len(counts)
    symbols = SYMBOLS[: counts.shape[1]]
    barcodes = np.array([f"CELL{number}" for number in range(n_cells)], dtype=object)
    obs = pd.DataFrame({"barcode": barcodes}, index=[f"S1:{barcode}" for barcode in barcodes])
    for name, value in {"sample": "S1", "dataset": "D", "condition": "a", "donor": "d", "organism": "human"}.items():
        obs[name] = pd.Categorical.from_codes(np.zeros(n_cells, dtype=int), categories=[value])
    for name, values in columns.items():
        obs[name] = values
    var = pd.DataFrame({"gene_id": "", "gene_symbol": symbols}, index=pd.Index(symbols, dtype=object), dtype=object)
    return AnnData(sparse.csr_matrix(counts.astype(np.int32)), obs=obs, var=var)


def cells(n_cells: int, depth: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    profile = rng.gamma(1.0, 1.0, len(SYMBOLS))
    return rng.poisson(depth * profile / profile.sum(), size=(n_cells, len(SYMBOLS)))


OF_OTHER = {"other_species_counts": np.full(200, 3000), "other_species_fraction": np.ones(200)}
COUNTED: dict[str, tuple[AnnData, str]] = {
    "genes without a count": (library(cells(200, 3000) * 0), "no cell passes: 200 low_counts"),
    "cells of another species alone": (library(cells(200, 1) * 0, **OF_OTHER), "no cell passes: 200 other_species"),
    "every cell below a limit": (library(cells(200, 50)), "no cell passes: 200 low_counts"),
    "every cell dying": (
        library(cells(200, 2000) + np.eye(1, len(SYMBOLS), dtype=int) * 3000),
        "no cell passes: 200 high_mt",
    ),
    "doublets alone": (
        library(cells(60, 3000), in_cells_table=True, author_doublet="doublet"),
        "no cell passes: 60 author_doublet",
    ),
    "empty droplets alone": (library(cells(3000, 20)), "no cell passes: 3,000 empty_droplet"),
    "few counts in many droplets": (library(cells(3000, 1.5)), "no cell passes: "),
    "one gene in many cells": (library(cells(200, 3000)[:, :1] + 3000), "no cell passes: 200 low_genes"),
}


@pytest.mark.parametrize("name", COUNTED)
def test_a_library_of_which_no_cell_passes_says_where_they_went(name, tmp_path):
    counts, reason = COUNTED[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        row = accounted(process_sample(counts, WEIGHTS, SETTINGS), tmp_path)
    assert (row["sample"], row["dataset"]) == ("S1", "D")
    assert row["cells_before"] == counts.n_obs
    assert row["verdict"] == "fail"
    assert row["reason"].startswith(reason)


def test_cells_that_are_all_alike_pass_without_doublets(tmp_path):
    row = accounted(process_sample(library(np.tile(cells(1, 3000), (120, 1))), WEIGHTS, SETTINGS), tmp_path)
    assert row["cells_after"] == 120
    assert "doublets not called: no gene varies between the cells" in row["reason"]


@pytest.mark.parametrize("method", ["cxds", "scrublet", "none"])
@pytest.mark.parametrize("n_cells", [0, 1, 2, 8, 49, 50])
def test_any_number_of_cells_has_a_verdict_with_any_doublet_method(n_cells, method, tmp_path):
    settings = SampleSettings.from_config({"doublets": {"method": method}}, 1)
    row = accounted(process_sample(library(cells(n_cells, 3000)), WEIGHTS, settings), tmp_path)
    assert row["verdict"] in (("fail",) if n_cells < 10 else ("warn",) if n_cells < 50 else ("warn", "pass"))


@pytest.mark.parametrize("method", ["emptydrops", "knee", "none", "auto"])
@pytest.mark.parametrize("counts", [cells(0, 1), cells(5, 1) * 0, cells(1, 3000), cells(3000, 20), cells(120, 3000)])
def test_any_library_has_a_verdict_with_any_way_to_call_cells(counts, method, tmp_path):
    settings = SampleSettings.from_config({"calling": {"method": method}, "doublets": {"method": "none"}}, 1)
    row = accounted(process_sample(library(counts), WEIGHTS, settings), tmp_path)
    assert row["verdict"] in ("pass", "warn", "fail") and row["sample"] == "S1"
    assert (row["verdict"] == "fail") == (row["cells_after"] < 10)
