"""Small libraries written to disk in the layouts that readers must know, and the real data set's manifest."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import io, sparse

from support.layouts import HUMAN, gene_pairs

SYMBOLS = ["ACTB", "GAPDH", "CD3D", "MT-CO1", "B2M", "LYZ", "COL1A1", "IDO1", "CD74", "NKG7", "RPL3", "HBB"]
IDS = [75624, 111640, 167286, 198804, 166710, 90382, 108821, 131203, 19582, 105374, 100316, 244734]


@pytest.fixture
def counts() -> sparse.csr_matrix:
    """7 cells x 12 genes, with empty entries."""
    return sparse.csr_matrix(np.random.default_rng(1).poisson(1.2, size=(7, 12)).astype(np.int32))


@pytest.fixture
def barcodes() -> list[str]:
    bases = np.array(list("ACGT"))
    rng = np.random.default_rng(2)
    return ["".join(bases[rng.integers(0, 4, 16)]) + "-1" for _ in range(7)]


@pytest.fixture
def genes() -> pd.DataFrame:
    table = gene_pairs(HUMAN).set_index("gene_symbol").loc[SYMBOLS].reset_index()
    return table[["gene_id", "gene_symbol"]]


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """Write text or bytes to a file under the test's folder, gzipped where the name says so."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(raw, mtime=0) if name.endswith(".gz") else raw)
        return path

    return write


@pytest.fixture
def matrix_market(tmp_path: Path) -> Callable[..., bytes]:
    """The bytes of a MatrixMarket file."""

    def write(matrix: sparse.spmatrix, field: str = "integer") -> bytes:
        path = tmp_path / "made.mtx"
        io.mmwrite(path, sparse.coo_matrix(matrix), field=field)
        content = path.read_bytes()
        path.unlink()
        return content

    return write


@pytest.fixture
def triplet(put, matrix_market, counts, barcodes, genes) -> Callable[..., list[Path]]:
    """Write the library as a 10x triplet under any three names; returns matrix, features and barcodes."""

    def write(
        matrix: str = "matrix.mtx.gz",
        features: str = "features.tsv.gz",
        cells: str = "barcodes.tsv.gz",
        third: str = "\tGene Expression",
    ) -> list[Path]:
        rows = [f"{one.gene_id}\t{one.gene_symbol}{third}\n" for one in genes.itertuples()]
        return [
            put(matrix, matrix_market(counts.T)),
            put(features, "".join(rows)),
            put(cells, "".join(f"{one}\n" for one in barcodes)),
        ]

    return write


@pytest.fixture
def manifest_of() -> Callable[..., pd.DataFrame]:
    """A manifest as the acquire floor writes it; ``shared`` files belong to the data set, not to sample S1."""

    def make(own: list[Path], shared: list[Path] | None = None) -> pd.DataFrame:
        rows = [("S1", path) for path in own] + [("", path) for path in shared or []]
        return pd.DataFrame(
            [
                {
                    "dataset": "D",
                    "sample": sample,
                    "file": path.name,
                    "path": str(path),
                    "url": path.as_uri(),
                    "bytes": str(path.stat().st_size),
                    "sha256": "0" * 64,
                    "retrieved": "2026-01-01T00:00:00Z",
                }
                for sample, path in rows
            ]
        )

    return make


@pytest.fixture
def sheet_row() -> Callable[..., pd.Series]:
    def make(**values: str) -> pd.Series:
        row = {"sample": "S1", "dataset": "D", "source": "x", "condition": "a", "donor": "d1", "organism": "human"}
        return pd.Series(row | {"files": "", "cells": "", "cells_lane": ""} | values)

    return make


LANES = {"GSM2560248": "ctrl", "GSM2560249": "stim"}
TABLE = "GSE96583_batch2.total.tsne.df.tsv.gz"


@pytest.fixture(scope="session")
def kang_libraries(shared: Path) -> dict[str, tuple]:
    """Both lanes of GSE96583 as the reader reads them: counts and ledger by GSM."""
    from immunomod.sample.cells_table import CellsTableColumns
    from immunomod.sample.read import read_sample

    tree = shared / "geo_mirror" / "geo"
    rows = [(gsm, path) for gsm in LANES for path in (tree / "samples/GSM2560nnn" / gsm / "suppl").iterdir()]
    rows += [("", path) for path in (tree / "series/GSE96nnn/GSE96583/suppl").glob("*.gz")]
    manifest = pd.DataFrame(
        [
            {
                "dataset": "GSE96583",
                "sample": sample,
                "file": path.name,
                "path": str(path),
                "url": path.as_uri(),
                "bytes": str(path.stat().st_size),
                "sha256": "",
                "retrieved": "",
            }
            for sample, path in rows
        ]
    )
    columns = CellsTableColumns(lane="stim", donor="ind", label="cell", doublet="multiplets")
    libraries = {}
    for gsm, lane in LANES.items():
        row = pd.Series(
            {
                "sample": gsm,
                "dataset": "GSE96583",
                "condition": lane,
                "donor": "",
                "organism": "human",
                "cells": TABLE,
                "cells_lane": lane,
            }
        )
        libraries[gsm] = read_sample(row, manifest, columns)
    return libraries
