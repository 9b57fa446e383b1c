"""Pool the effects of each contrast over its data sets."""

from immunomod.files import write_tsv
from immunomod.job import rule_job
from immunomod.synthesis.meta import pool_effects, read_effects

with rule_job(snakemake):
    params = snakemake.params
    effects = read_effects(snakemake.input.effects)
    write_tsv(pool_effects(effects, params.organisms, params.confidence), snakemake.output.table)
