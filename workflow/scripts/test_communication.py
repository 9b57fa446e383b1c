"""Compare the ligand-receptor pairs of one contrast."""

from pathlib import Path

from anndata import read_h5ad

from immunomod.contrast.communication import communication_effects
from immunomod.contrast.design import Contrast
from immunomod.contrast.settings import ContrastSettings
from immunomod.files import read_tsv, write_tsv
from immunomod.interactions import load_interactions
from immunomod.job import rule_job

with rule_job(snakemake):
    table = communication_effects(
        Contrast.from_row(snakemake.params.row),
        {Path(path).stem: read_h5ad(path) for path in snakemake.input.pseudobulks},
        {path.name.removesuffix(".tsv.gz"): read_tsv(path) for path in Path(snakemake.input.genes).glob("*.tsv.gz")},
        load_interactions(snakemake.params.interactions, snakemake.params.organisms),
        ContrastSettings.from_config(snakemake.params.contrast),
    )
    write_tsv(table, snakemake.output.communication)
