"""Coordinates that trained models wrote, joined to the cells of an atlas by their names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from immunomod.errors import UserError
from immunomod.files import write_h5ad


def write_learned(
    cells: pd.Index, coordinates: Mapping[str, NDArray[np.float32]], described: Mapping[str, Any], path: Path
) -> None:
    """Write ``coordinates`` (by method: cells x d) as an h5ad without a matrix.

    They land in ``obsm["X_<method>"]``, with ``described`` (settings, seed, versions) in ``uns["immunomod"]``.
    """
    from anndata import AnnData

    adata = AnnData(obs=pd.DataFrame(index=pd.Index(cells.astype(str))))
    for method, values in coordinates.items():
        adata.obsm[f"X_{method}"] = np.asarray(values, dtype=np.float32)
    adata.uns["immunomod"] = dict(described)
    write_h5ad(adata, path)


def read_learned(path: Path, cells: pd.Index) -> dict[str, NDArray[np.float32]]:
    """Coordinates by method, in the order of ``cells``.

    Raises
    ------
    UserError
        The file lacks some of the cells: it belongs to other samples or to other thresholds.
    """
    import h5py
    from anndata.io import read_elem

    with h5py.File(path, "r") as file:
        names = pd.Index(read_elem(file["obs"]).index.astype(str))
        found = {str(name): read_elem(file[f"obsm/{name}"]) for name in file["obsm"]}
    row = names.get_indexer(pd.Index(cells.astype(str)))
    if len(row) and row.min() < 0:
        missing = cells[int(np.flatnonzero(row < 0)[0])]
        raise UserError(
            f"{path} holds no coordinates of {int((row < 0).sum())} of {len(cells)} cells, {missing!r} among them: the "
            "model was trained on other cells. Delete the file; the next run trains again."
        )
    return {
        name.removeprefix("X_"): np.ascontiguousarray(values[row], dtype=np.float32) for name, values in found.items()
    }
