"""Put the quality rows of all samples into one table."""

import pandas as pd

from immunomod.files import read_tsv, write_tsv
from immunomod.job import rule_job

with rule_job(snakemake):
    rows = [read_tsv(path, dtype=str) for path in snakemake.input.rows]
    write_tsv(pd.concat(rows, ignore_index=True), snakemake.output.table)
