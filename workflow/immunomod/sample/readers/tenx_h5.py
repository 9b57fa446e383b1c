"""CellRanger's HDF5 matrices: version 3 (one group ``matrix``) and the older one group per genome."""

from __future__ import annotations

from collections.abc import Sequence

import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from immunomod.errors import UserError
from immunomod.sample.readers.library import Layout, LibraryCounts, LibraryFiles
from immunomod.sample.readers.sniff import Kind, SniffedFile, reading


def _strings(dataset: h5py.Dataset) -> np.ndarray:
    return np.array([value.decode() if isinstance(value, bytes) else str(value) for value in dataset[:]], dtype=object)


def _genome_group(handle: h5py.File, file: SniffedFile) -> h5py.Group:
    if "matrix" in handle:
        return handle["matrix"]
    genomes = [name for name in handle if {"barcodes", "data", "indices", "indptr"} <= set(handle[name])]
    if len(genomes) > 1:
        raise UserError(
            f"{file.path}: holds the genomes {', '.join(sorted(genomes))}; cells of several genomes in one file cannot "
            "be told apart yet. Give one genome's matrix, or leave the sample out"
        )
    return handle[genomes[0]]


def _features(group: h5py.Group) -> pd.DataFrame:
    if "features" in group:
        features = group["features"]
        kind = _strings(features["feature_type"]) if "feature_type" in features else ""
        return pd.DataFrame(
            {"gene_id": _strings(features["id"]), "gene_symbol": _strings(features["name"]), "feature_type": kind}
        )
    return pd.DataFrame(
        {"gene_id": _strings(group["genes"]), "gene_symbol": _strings(group["gene_names"]), "feature_type": ""}
    )


def read_tenx_h5(matrix: SniffedFile, _files: LibraryFiles) -> LibraryCounts:
    """Read a CellRanger HDF5 matrix. Its columns are cells, so its arrays are already CSR over cells."""
    with reading(matrix.path), h5py.File(matrix.path, "r") as handle:
        group = _genome_group(handle, matrix)
        n_features, n_cells = (int(size) for size in group["shape"][:])
        counts = sparse.csr_matrix(
            (group["data"][:], group["indices"][:], group["indptr"][:]), shape=(n_cells, n_features)
        )
        features = _features(group)
        same = (features["gene_id"] == features["gene_symbol"]).all()
        return LibraryCounts(
            matrix=counts,
            barcodes=pd.Index(_strings(group["barcodes"])),
            features=features.assign(gene_id="") if same else features,
            used={matrix: "matrix"},
        )


def _recognise(files: LibraryFiles) -> Sequence[SniffedFile]:
    return files.of_kind(Kind.TENX_H5)


TENX_H5 = Layout(
    name="10x_h5",
    citation="CellRanger HDF5 feature-barcode matrix format, versions 2 and 3",
    needs="one HDF5 file with barcodes, features, data, indices, indptr and shape",
    limits="one genome and one library per file",
    recognise=_recognise,
    run=read_tenx_h5,
)
