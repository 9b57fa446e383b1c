"""AnnData files, a lab's own or an author's: the raw counts are looked for where people keep them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from immunomod.errors import UserError
from immunomod.sample.readers.features import is_ensembl
from immunomod.sample.readers.library import Layout, LibraryCounts, LibraryFiles
from immunomod.sample.readers.sniff import Kind, SniffedFile, reading

_ID_COLUMNS = ("gene_id", "gene_ids", "ensembl_id", "ensembl_ids", "feature_id")
_SYMBOL_COLUMNS = ("gene_symbol", "gene_symbols", "gene_name", "gene_names", "feature_name", "symbol")
_TYPE_COLUMNS = ("feature_types", "feature_type")
_LAYERS = ("counts", "raw_counts", "raw")


def _is_counts(matrix: Any) -> bool:
    values = matrix.data if sparse.issparse(matrix) else np.asarray(matrix).ravel()
    return bool(values.size) and float(values.min()) >= 0 and bool(np.all(np.mod(values, 1) == 0))


def _column(var: pd.DataFrame, names: Sequence[str]) -> np.ndarray | None:
    found = next((name for name in names if name in var), None)
    return None if found is None else var[found].astype(str).to_numpy(dtype=object)


def _features(var: pd.DataFrame) -> pd.DataFrame:
    names = pd.Series(var.index.astype(str), dtype=object)
    by_name_id = bool(len(names)) and float(is_ensembl(names).mean()) > 0.5
    gene_id = _column(var, _ID_COLUMNS)
    gene_symbol = _column(var, _SYMBOL_COLUMNS)
    kind = _column(var, _TYPE_COLUMNS)
    if gene_id is None and by_name_id:
        gene_id = names.to_numpy()
    if gene_symbol is None:
        gene_symbol = names.to_numpy()
    return pd.DataFrame(
        {
            "gene_id": "" if gene_id is None else gene_id,
            "gene_symbol": gene_symbol,
            "feature_type": "" if kind is None else kind,
        }
    )


def read_h5ad(matrix: SniffedFile, _files: LibraryFiles) -> LibraryCounts:
    """Read raw counts from the first of ``layers["counts"]``, ``X`` and ``raw.X`` that holds counts."""
    import anndata

    with reading(matrix.path):
        adata = anndata.read_h5ad(matrix.path)
    places: list[tuple[str, Any, pd.DataFrame]] = [
        (f'layers["{name}"]', adata.layers[name], adata.var) for name in _LAYERS if name in adata.layers
    ]
    if adata.X is not None:
        places.append(("X", adata.X, adata.var))
    if adata.raw is not None:
        places.append(("raw.X", adata.raw.X, adata.raw.var))
    for place, values, var in places:
        if _is_counts(values):
            return LibraryCounts(
                matrix=sparse.csr_matrix(values),
                barcodes=pd.Index(adata.obs_names.astype(str)),
                features=_features(var),
                used={matrix: "matrix"},
                decisions=[f"counts taken from {place}"],
            )
    raise UserError(
        f"{matrix.path}: no raw counts in {', '.join(place for place, _, _ in places) or 'the file'} (values are "
        'normalised, negative or all zero); store the integer counts in layers["counts"]'
    )


def _recognise(files: LibraryFiles) -> Sequence[SniffedFile]:
    return files.of_kind(Kind.H5AD)


H5AD = Layout(
    name="h5ad",
    citation="Virshup et al. 2024, J. Open Source Softw. 9(101):4371 (anndata)",
    needs='integer counts in layers["counts"], X or raw.X',
    limits="one library per file; obs columns are not taken over (give a per-cell table)",
    recognise=_recognise,
    run=read_h5ad,
)
