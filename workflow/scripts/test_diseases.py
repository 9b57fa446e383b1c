"""Hold one contrast against the signatures of diseases."""

from pathlib import Path

from anndata import read_h5ad

from immunomod.contrast.disease import disease_effects
from immunomod.contrast.settings import ContrastSettings
from immunomod.diseases import load_diseases
from immunomod.files import write_tsv
from immunomod.job import rule_job
from immunomod.programs import load_programs

with rule_job(snakemake):
    params = snakemake.params
    pseudobulks = {Path(path).stem: read_h5ad(path) for path in snakemake.input.pseudobulks}
    diseases = load_diseases(params.diseases["tables"], load_programs(params.programs), params.diseases["fold_changes"])
    settings = ContrastSettings.from_config(params.contrast)
    write_tsv(disease_effects(params.row, pseudobulks, diseases, settings, params.seed), snakemake.output.disease)
