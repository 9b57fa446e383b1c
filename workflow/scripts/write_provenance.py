"""Write the resolved config and the versions of everything that shapes a result."""

from immunomod.files import write_text, write_tsv
from immunomod.job import rule_job
from immunomod.provenance import config_text, versions

with rule_job(snakemake):
    write_text(config_text(snakemake.params.config), snakemake.output.config)
    write_tsv(versions(), snakemake.output.versions)
