"""Train scVI or scANVI on the cells of an atlas; the environment holds no more than it needs."""

from pathlib import Path

from immunomod.atlas.integration.settings import IntegrationSettings
from immunomod.atlas.integration.train import train_models
from immunomod.atlas.settings import AtlasSettings
from immunomod.job import rule_job

with rule_job(snakemake):
    train_models(
        [Path(path) for path in snakemake.input.filtered],
        Path(snakemake.params.markers),
        Path(snakemake.output.latent),
        IntegrationSettings.from_config(snakemake.params.atlas),
        AtlasSettings.from_config(snakemake.params.atlas).n_variable_genes,
        snakemake.params.seed,
        snakemake.threads,
    )
