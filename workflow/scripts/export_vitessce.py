"""Write an atlas for Vitessce."""

from pathlib import Path

from immunomod.atlas.vitessce import export_vitessce
from immunomod.job import rule_job

with rule_job(snakemake):
    export_vitessce(Path(snakemake.input.atlas), Path(snakemake.output.store), Path(snakemake.output.config))
