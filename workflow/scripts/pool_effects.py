"""Pool the effects of each contrast over its data sets."""

import pandas as pd

from immunomod.files import read_tsv, write_tsv
from immunomod.job import rule_job
from immunomod.synthesis.meta import pool_effects

with rule_job(snakemake):
    effects = pd.concat([read_tsv(path) for path in snakemake.input.effects], ignore_index=True)
    write_tsv(pool_effects(effects, snakemake.params.organisms), snakemake.output.table)
