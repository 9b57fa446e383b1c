"""Put all tables into one."""

import pandas as pd

from immunomod.files import read_tsv, write_tsv
from immunomod.job import rule_job

with rule_job(snakemake):
    write_tsv(pd.concat(map(read_tsv, snakemake.input), ignore_index=True), snakemake.output[0])
