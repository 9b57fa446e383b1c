"""scanpy on the counts of all cells: as its tutorial has it, or (``--lean``) without scaling and with igraph's Leiden.

python scanpy_run.py STUDY OUT [--lean]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from steps import Steps, save

N_TOP = 25


def main(study: Path, out: Path, lean: bool) -> None:
    steps = Steps()
    import scanpy as sc

    steps("import")
    adata = sc.read_h5ad(study / "counts.h5ad")
    adata.var_names = adata.var["gene_symbol"].astype(str)
    steps("read")
    adata.var["mt"] = adata.var_names.str.startswith("MT-")
    sc.pp.calculate_qc_metrics(adata, qc_vars=["mt"], inplace=True, log1p=True)
    sc.pp.filter_cells(adata, min_genes=200)
    sc.pp.filter_genes(adata, min_cells=3)
    steps("quality control")
    adata.layers["counts"] = adata.X.copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    steps("normalise")
    sc.pp.highly_variable_genes(adata, n_top_genes=2000, batch_key="sample")
    steps("variable genes")
    part = adata[:, adata.var["highly_variable"]].copy()
    if not lean:
        sc.pp.scale(part, max_value=10)
        steps("scale")
    sc.pp.pca(part, n_comps=50)
    steps("components")
    sc.pp.neighbors(part)
    steps("neighbours")
    sc.tl.umap(part)
    steps("map")
    if lean:
        sc.tl.leiden(part, flavor="igraph", n_iterations=2, directed=False)
    else:
        sc.tl.leiden(part, flavor="leidenalg")
    steps("clusters")
    adata.obs["leiden"] = part.obs["leiden"]
    sc.tl.rank_genes_groups(adata, "leiden", method="wilcoxon")
    steps("markers")
    adata.obsm["X_pca"], adata.obsm["X_umap"] = part.obsm["X_pca"], part.obsm["X_umap"]
    adata.write_h5ad(out.with_suffix(".h5ad"))
    steps("write")

    names = adata.uns["rank_genes_groups"]["names"]
    markers = {group: [str(gene) for gene in names[group][:N_TOP]] for group in names.dtype.names}
    distances = part.obsp["distances"]
    k = int(np.diff(distances.indptr).min())
    near = np.array([row.indices[np.argsort(row.data)][:k] for row in distances[:20_000]])
    save(
        out, steps, adata.obs_names, part.obs["leiden"], part.obsm["X_pca"], near, markers,
        list(part.var_names), part.varm["PCs"],
    )  # fmt: skip
    out.with_suffix(".h5ad").unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), "--lean" in sys.argv)
