"""Answer one contrast: programmes, genes and composition."""

from pathlib import Path

from anndata import read_h5ad

from immunomod.contrast.run import run_contrast
from immunomod.contrast.settings import ContrastSettings
from immunomod.files import write_tsv
from immunomod.job import rule_job
from immunomod.programs import load_programs

with rule_job(snakemake):
    result = run_contrast(
        snakemake.params.row,
        {Path(path).stem: read_h5ad(path) for path in snakemake.input.pseudobulks},
        load_programs(snakemake.params.programs),
        ContrastSettings.from_config(snakemake.params.contrast),
        snakemake.params.seed,
    )
    names = (
        *("program_effects", "program_scores", "program_genes", "program_enrichment", "msc_scores"),
        *("composition", "fractions", "design", "gene_tests"),
    )
    for name in names:
        write_tsv(getattr(result, name), snakemake.output[name])
    for cell_class, table in result.genes.items():
        write_tsv(table, Path(snakemake.output.genes) / f"{cell_class}.tsv.gz")
