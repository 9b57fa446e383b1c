"""Call one sample's cells, filter them, find doublets and leaked RNA, and score programmes."""

from pathlib import Path

from anndata import read_h5ad

from immunomod.exclusive import load_exclusive_genes
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
        SampleSettings.from_config(params.sections, params.seed),
        load_exclusive_genes(Path(params.markers)),
        params.own_limits,
        snakemake.input.get("background") or None,
    )
    write_h5ad(result.filtered, snakemake.output.filtered)
    for name in ("cells", "qc", "ambient", "ranks"):
        write_tsv(getattr(result, name), snakemake.output[name])
