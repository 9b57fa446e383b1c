"""brisc on the counts of all cells, its documented way. ``python brisc_run.py STUDY OUT``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from steps import Steps, save

N_TOP = 25


def main(study: Path, out: Path) -> None:
    steps = Steps()
    from brisc import SingleCell

    steps("import")
    cells = SingleCell(study / "counts.h5ad", num_threads=2)
    steps("read")
    cells = cells.qc(nonzero_MALAT1=False, min_genes=200, max_mito_fraction=None, subset=True, allow_float=True)
    steps("quality control")
    cells = cells.hvg(batch_column="sample")
    steps("variable genes")
    cells = cells.normalize()
    steps("normalise")
    cells = cells.pca()
    steps("components")
    cells = cells.neighbors()
    steps("neighbours")
    cells = cells.shared_neighbors()
    cells = cells.cluster(resolution=1)
    steps("clusters")
    cells = cells.umap()
    steps("map")
    found = cells.find_markers("cluster")
    steps("markers")
    cells.save(out.with_suffix(".h5ad"), overwrite=True)
    steps("write")

    symbol = dict(zip(cells.var_names.to_list(), cells.var["gene_symbol"].to_list(), strict=True))
    markers: dict[str, list[str]] = {}
    for group, gene in zip(found["cell_type"].to_list(), found["gene"].to_list(), strict=True):
        markers.setdefault(str(group), []).append(str(symbol.get(gene, gene)))
    variable = cells.var["highly_variable"].to_numpy()
    loadings = cells.varm.get("pca") if hasattr(cells.varm, "get") else None
    save(
        out, steps, cells.obs_names.to_list(), cells.obs["cluster"].to_list(), np.asarray(cells.obsm["pca"]),
        np.asarray(cells.obsm["neighbors"]) if "neighbors" in cells.obsm else np.empty((0, 0)),
        {group: genes[:N_TOP] for group, genes in markers.items()},
        [str(name) for name, yes in zip(cells.var["gene_symbol"].to_list(), variable, strict=True) if yes],
        np.empty((0, 0)) if loadings is None else np.asarray(loadings),
    )  # fmt: skip
    out.with_suffix(".h5ad").unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
