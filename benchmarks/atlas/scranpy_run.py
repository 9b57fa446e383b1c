"""scranpy (libscran) on the counts of all cells, its documented way. ``python scranpy_run.py STUDY OUT``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from steps import Steps, save

N_TOP, N_THREADS = 25, 2


def main(study: Path, out: Path) -> None:
    steps = Steps()
    import anndata as ad
    import knncolle
    import scranpy as scr

    steps("import")
    adata = ad.read_h5ad(study / "counts.h5ad")
    symbols = adata.var["gene_symbol"].astype(str).tolist()
    counts = adata.X.T.tocsc()  # genes x cells
    sample = adata.obs["sample"].astype(str).tolist()
    steps("read")
    metrics = scr.compute_rna_qc_metrics(
        counts, {"mt": [symbol.startswith("MT-") for symbol in symbols]}, num_threads=N_THREADS
    )
    thresholds = scr.suggest_rna_qc_thresholds(metrics, block=sample)
    kept = np.asarray(scr.filter_rna_qc_metrics(thresholds, metrics, block=sample), dtype=bool)
    counts = counts[:, kept]
    sample = np.array(sample)[kept].tolist()
    steps("quality control")
    factors = scr.center_size_factors(np.asarray(counts.sum(axis=0)).ravel(), block=sample)
    normalised = scr.normalize_counts(counts, factors)
    steps("normalise")
    variances = scr.model_gene_variances(normalised, block=sample, num_threads=N_THREADS)
    variable = scr.choose_highly_variable_genes(np.asarray(variances["statistics"].get_column("residual")), top=2000)
    steps("variable genes")
    pca = scr.run_pca(normalised, number=50, subset=variable, block=sample, num_threads=N_THREADS)
    components = np.asarray(pca["components"]).T
    steps("components")
    found = scr.run_all_neighbor_steps(
        np.ascontiguousarray(components.T), run_tsne_options=None,
        cluster_graph_options={"method": "leiden"}, num_threads=N_THREADS,
    )  # fmt: skip
    clusters = np.asarray(found["cluster_graph"]["membership"])
    steps("neighbours, clusters and map")
    scored = scr.score_markers(normalised, clusters.tolist(), block=sample, num_threads=N_THREADS)
    steps("markers")

    auc = scored["auc"]
    markers = {
        str(name): [symbols[i] for i in np.argsort(-np.nan_to_num(np.asarray(auc[name].get_column("mean"))))[:N_TOP]]
        for name in auc.get_names()
    }
    # one row per cell here, where scranpy's own functions take one column per cell
    index = knncolle.build_index(knncolle.AnnoyParameters(), np.ascontiguousarray(components, dtype=np.float64))
    near = knncolle.find_knn(index, 14)
    save(
        out, steps, adata.obs_names[kept], clusters, components, np.asarray(near.index),
        markers, [symbols[i] for i in np.asarray(variable)], np.asarray(pca["rotation"])[np.asarray(variable)],
    )  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
