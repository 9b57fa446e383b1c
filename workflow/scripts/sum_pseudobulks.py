"""Sum the counts of a data set's annotated cells per replicate and cell class, and estimate what leaked into them."""

from pathlib import Path

import pandas as pd

from immunomod.contrast.leakage import add_leakage, leakage_table
from immunomod.contrast.pseudobulk import failed_samples, pseudobulk
from immunomod.exclusive import load_exclusive_genes
from immunomod.files import read_obs, read_tsv, write_h5ad, write_tsv
from immunomod.job import rule_job
from immunomod.programs import load_programs

with rule_job(snakemake):
    params = snakemake.params
    cells = read_obs(snakemake.input.atlas)
    qc = pd.concat([read_tsv(path) for path in snakemake.input.qc], ignore_index=True)
    left_out = {} if params.keep_failed else failed_samples(qc)
    cells = cells[(cells["dataset"] == snakemake.wildcards.dataset) & ~cells["sample"].isin(list(left_out))]
    sums = pseudobulk(snakemake.input.filtered, cells)
    sums.uns["left_out"] = left_out
    if params.correct_leakage:
        exclusive = load_exclusive_genes(Path(params.markers))
        sums = add_leakage(sums, load_programs(params.programs), exclusive)
    write_h5ad(sums, snakemake.output.pseudobulk)
    write_tsv(leakage_table(sums), snakemake.output.leakage)
