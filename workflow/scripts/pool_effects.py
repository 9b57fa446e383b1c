"""Pool the effects of each contrast over its data sets."""

from immunomod.files import write_tsv
from immunomod.job import rule_job
from immunomod.synthesis.meta import pool_effects, read_effects

with rule_job(snakemake):
    effects = read_effects(snakemake.input.effects)
    write_tsv(pool_effects(effects, snakemake.params.organisms), snakemake.output.table)
