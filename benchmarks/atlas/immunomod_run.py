"""This workflow on the counts of every sample: the light steps of the sample floor, then the atlas.

    python immunomod_run.py STUDY OUT [--threads 2] [--integration none]

Of the sample floor only what the contestants do too: limits of quality control, normalisation, gene statistics.
Doublets, ambient RNA, cell calling and programme scores are off (benchmarks/sample_floor_speed.py measures the floor).
"""

from __future__ import annotations

import argparse
import multiprocessing
from pathlib import Path

from steps import Steps, save

N_TOP = 25


def prepare(paths: tuple[Path, Path]) -> None:
    """``counts.h5ad`` of one sample to its ``filtered.h5ad``."""
    import anndata as ad
    import pandas as pd

    from immunomod.files import write_h5ad
    from immunomod.sample.process import process_sample
    from immunomod.sample.settings import SampleSettings

    source, target = paths
    counts = ad.read_h5ad(source)
    off = {
        "calling": {"method": "none"},
        "doublets": {"method": "none", "partner": False},
        "ambient": {"method": "none"},
    }
    settings = SampleSettings.from_config(off, seed=1)
    write_h5ad(process_sample(counts, pd.DataFrame(index=counts.var["gene_symbol"]), settings).filtered, target)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("study", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--integration", default="none")
    chosen = parser.parse_args()
    steps = Steps()
    sources = sorted(chosen.study.glob("samples/*/counts.h5ad"))
    targets = [chosen.out / "samples" / path.parent.name / "filtered.h5ad" for path in sources]
    with multiprocessing.get_context("spawn").Pool(chosen.threads) as pool:
        pool.map(prepare, zip(sources, targets, strict=True), chunksize=1)
    steps("sample floor")

    import logging

    from immunomod.atlas.build import build_atlas
    from immunomod.atlas.settings import AtlasSettings
    from immunomod.tables import REPOSITORY

    logging.basicConfig(level=logging.INFO, format="    %(message)s")
    steps("import")
    settings = AtlasSettings.from_config({"integration": chosen.integration})
    folder = chosen.out / "atlas"
    file = folder.with_suffix(".h5ad")
    markers_folder = REPOSITORY / "resources" / "markers"
    atlas = build_atlas(targets, markers_folder, settings, seed=1, threads=chosen.threads, h5ad=file)
    steps("atlas")
    atlas.write(file, folder, chosen.threads)
    steps("write")

    from immunomod.atlas.neighbors import nearest_neighbors

    obs, var = atlas.adata.obs, atlas.adata.var
    markers: dict[str, list[str]] = {}
    if hasattr(atlas, "markers"):
        table = atlas.markers[(atlas.markers["grouping"] == "cluster") & (atlas.markers["rank"] <= N_TOP)]
        markers = {str(group): list(part["gene_symbol"]) for group, part in table.groupby("group")}
    coordinates = atlas.adata.obsm["X_pca"]
    variable = var["highly_variable"].to_numpy(dtype=bool)
    save(
        chosen.out, steps, obs.index, obs["cluster"], coordinates,
        nearest_neighbors(coordinates, 15, chosen.threads).indices[:20_000, 1:], markers,
        list(var["gene_symbol"][variable]), atlas.adata.varm["PCs"][variable],
    )  # fmt: skip
    obs[["cluster", "cell_class"]].rename_axis("cell").reset_index().to_csv(
        chosen.out / "classes.tsv.gz", sep="\t", index=False
    )


if __name__ == "__main__":
    main()
