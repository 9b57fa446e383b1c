"""Filter one sample's cells, find doublets and score programmes."""

from anndata import read_h5ad

from immunomod.files import write_h5ad, write_tsv
from immunomod.job import rule_job
from immunomod.programs import load_programs
from immunomod.sample.process import process_sample
from immunomod.sample.settings import SampleSettings

with rule_job(snakemake):
    params = snakemake.params
    result = process_sample(
        read_h5ad(snakemake.input.counts),
        load_programs(params.programs),
        SampleSettings.from_config(params.qc, params.doublets, params.seed, params.demultiplexing),
    )
    write_h5ad(result.filtered, snakemake.output.filtered)
    write_tsv(result.cells, snakemake.output.cells)
    write_tsv(result.qc, snakemake.output.qc)
