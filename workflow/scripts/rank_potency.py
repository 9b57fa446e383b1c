"""Rank MSC donors by their response, hold it against measured suppression, and split its variance."""

import pandas as pd

from immunomod.files import write_tsv
from immunomod.job import rule_job
from immunomod.programs import load_programs
from immunomod.synthesis.meta import read_effects
from immunomod.synthesis.potency import rank_potency, read_scores
from immunomod.synthesis.settings import PotencySettings

with rule_job(snakemake):
    params, tables = snakemake.params, snakemake.input
    settings = PotencySettings.from_config(params.potency)
    data = (read_scores(tables.scores), read_effects(tables.effects), pd.DataFrame(params.samples))
    found = rank_potency(*data, load_programs(params.programs).table, settings, params.confidence, params.seed)
    for name in ("potency", "suppression", "variance"):
        write_tsv(getattr(found, name), snakemake.output[name])
