"""An atlas for Vitessce: a zarr store that a browser reads piece by piece, and the config of a view of it.

The store holds all cells, the columns that a view colours by, the map, and the expression of the markers, one chunk per
gene and 50,000 cells, so that a gene that is looked up is read by itself. The matrix of the atlas passes in blocks of
rows; what is in memory is cells x markers.
"""

from __future__ import annotations

import json
import shutil
import uuid
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from immunomod.atlas.sample_files import EXPRESSION, RowReader
from immunomod.files import read_obs, write_text
from immunomod.parallel import row_blocks

#: Columns of cells that a view colours by, with their names in it.
CELL_SETS = (
    ("Cell class", "cell_class"), ("Cluster", "cluster"), ("Condition", "condition"), ("Donor", "donor"),
    ("Sample", "sample"),
)  # fmt: skip
#: The version of the schema of the config.
SCHEMA_VERSION = "1.0.16"
_CHUNK_CELLS = 50_000
_ROWS_AT_ONCE = 4096


def export_vitessce(atlas: Path, store: Path, config: Path) -> None:
    """Write ``store`` (a folder, ``.zarr``) and ``config`` (JSON, beside it) of the atlas file ``atlas``.

    The config names the store by its own name: serve the folder that holds both.
    """
    import h5py
    from anndata import AnnData
    from anndata.io import read_elem

    with h5py.File(atlas, "r") as file:
        obs = read_obs(atlas)
        genes = read_elem(file["var"])
        var = genes[genes["marker"].to_numpy(dtype=bool)]
        places = np.full(len(genes), -1, dtype=np.int64)
        places[genes.index.get_indexer(var.index)] = np.arange(len(var))
        expression = np.zeros((len(obs), len(var)), dtype=np.float32)
        reader = RowReader(file, EXPRESSION)
        for block in row_blocks(len(obs), _ROWS_AT_ONCE):
            rows = reader.rows(block)
            of_cell = np.repeat(np.arange(len(rows.indptr) - 1), np.diff(rows.indptr)) + rows.start
            kept = places[rows.indices] >= 0
            expression[of_cell[kept], places[rows.indices[kept]]] = rows.data[kept]
        umap = np.asarray(file["obsm/X_umap"], dtype=np.float32)
    columns = [column for _, column in CELL_SETS if column in obs]
    view = AnnData(expression, obs[columns], var[["gene_symbol"]], obsm={"X_umap": umap})
    temporary = store.with_name(f".{uuid.uuid4().hex}.{store.name}")
    try:
        with _second_format():
            view.write_zarr(temporary, chunks=(max(1, min(_CHUNK_CELLS, len(obs))), 1))
        shutil.rmtree(store, ignore_errors=True)
        temporary.rename(store)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    write_text(json.dumps(view_config(atlas.stem, store.name, columns), indent=2) + "\n", config)


def _second_format() -> AbstractContextManager[None]:
    """Format 2 of zarr, which every Vitessce reads, whatever anndata writes by itself."""
    import anndata

    if not hasattr(anndata.settings, "zarr_write_format"):
        return nullcontext()
    chosen: AbstractContextManager[None] = anndata.settings.override(zarr_write_format=2)
    return chosen


def view_config(name: str, url: str, columns: list[str]) -> dict[str, Any]:
    """A view of the map, the cell sets, the markers and a heat map, as Vitessce's config."""
    sets = [{"name": title, "path": f"obs/{column}"} for title, column in CELL_SETS if column in columns]
    file = {
        "fileType": "anndata.zarr",
        "url": url,
        "coordinationValues": {"obsType": "cell", "featureType": "gene", "featureValueType": "expression"},
        "options": {
            "obsEmbedding": [{"path": "obsm/X_umap", "dims": [0, 1], "embeddingType": "UMAP"}],
            "obsSets": sets,
            "obsFeatureMatrix": {"path": "X"},
            "featureLabels": {"path": "var/gene_symbol"},
        },
    }
    scopes = {"dataset": "A", "obsType": "A", "featureType": "A", "featureValueType": "A"}
    views: list[tuple[str, tuple[int, int, int, int], dict[str, str]]] = [
        ("scatterplot", (0, 0, 6, 8), {"embeddingType": "A"}),
        ("obsSets", (6, 0, 3, 8), {}),
        ("featureList", (9, 0, 3, 8), {}),
        ("heatmap", (0, 8, 8, 4), {}),
        ("obsSetSizes", (8, 8, 4, 4), {}),
    ]
    return {
        "version": SCHEMA_VERSION,
        "name": f"immunomod: {name}",
        "description": "Expression of markers is log(1 + counts per 10,000). No effect is computed from the map.",
        "initStrategy": "auto",
        "coordinationSpace": {
            "dataset": {"A": "A"},
            "obsType": {"A": "cell"},
            "featureType": {"A": "gene"},
            "featureValueType": {"A": "expression"},
            "embeddingType": {"A": "UMAP"},
        },
        "datasets": [{"uid": "A", "name": name, "files": [file]}],
        "layout": [
            {"component": component, "x": x, "y": y, "w": w, "h": h, "coordinationScopes": {**scopes, **extra}}
            for component, (x, y, w, h), extra in views
        ],
    }
