"""Put the cells of an atlas on one map and name them."""

from pathlib import Path

from immunomod.atlas.build import build_atlas
from immunomod.atlas.settings import AtlasSettings
from immunomod.job import rule_job

with rule_job(snakemake):
    atlas = build_atlas(
        [Path(path) for path in snakemake.input.filtered],
        Path(snakemake.params.annotation["markers"]),
        AtlasSettings.from_config(snakemake.params.atlas, snakemake.params.annotation),
        snakemake.params.seed,
        snakemake.threads,
        latent=Path(snakemake.input.latent) if snakemake.input.get("latent") else None,
        overrides=next(map(Path, snakemake.input.overrides), None),
        h5ad=Path(snakemake.output.atlas),
    )
    atlas.write(Path(snakemake.output.atlas), Path(snakemake.output.clusters).parent, snakemake.threads)
