"""Bring the files of one data set to disk and write its manifest."""

from pathlib import Path

import pandas as pd

from immunomod.acquire import AcquireSettings, acquire_dataset
from immunomod.files import write_tsv
from immunomod.job import rule_job

with rule_job(snakemake):
    manifest = acquire_dataset(
        snakemake.wildcards.dataset,
        pd.DataFrame(snakemake.params.rows).set_index("row"),
        snakemake.params.geo["base_url"],
        Path(snakemake.output.manifest).parent,
        Path(snakemake.params.config_folder),
        AcquireSettings.from_config(snakemake.params.geo),
        snakemake.params.sheet,
    )
    write_tsv(manifest, snakemake.output.manifest)
