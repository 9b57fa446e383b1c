"""Run CellBender on one library; the environment holds no more than it needs."""

from pathlib import Path

from immunomod.job import rule_job
from immunomod.sample.ambient.cellbender import remove_background

with rule_job(snakemake):
    ambient = snakemake.params.ambient
    remove_background(
        Path(snakemake.input.counts),
        Path(snakemake.output.background),
        lower=snakemake.params.lower,
        epochs=ambient["cellbender_epochs"],
        false_positive_rate=ambient["cellbender_fpr"],
        threads=snakemake.threads,
    )
