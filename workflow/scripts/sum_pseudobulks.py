"""Sum the counts of a data set's annotated cells per replicate and cell class."""

from immunomod.contrast.pseudobulk import pseudobulk
from immunomod.files import read_obs, write_h5ad
from immunomod.job import rule_job

with rule_job(snakemake):
    cells = read_obs(snakemake.input.atlas)
    cells = cells[cells["dataset"] == snakemake.wildcards.dataset]
    write_h5ad(pseudobulk(snakemake.input.filtered, cells), snakemake.output.pseudobulk)
