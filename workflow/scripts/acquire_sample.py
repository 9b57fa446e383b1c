"""Bring the files of one sample to disk and write its manifest."""

from pathlib import Path

import pandas as pd

from immunomod.acquire import AcquireSettings, acquire_samples
from immunomod.files import write_tsv
from immunomod.job import rule_job

with rule_job(snakemake):
    manifest = acquire_samples(
        snakemake.wildcards.dataset,
        pd.DataFrame([snakemake.params.row], index=[snakemake.params.row_number]),
        snakemake.params.base_url,
        Path(snakemake.output.manifest).parents[1],
        Path(snakemake.params.config_folder),
        AcquireSettings.from_config(snakemake.params.geo).of_one_job(),
        snakemake.params.sheet,
    )
    write_tsv(manifest, snakemake.output.manifest)
