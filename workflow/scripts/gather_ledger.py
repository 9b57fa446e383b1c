"""Write the ledger: every file that the run acquired, and how it was read."""

from pathlib import Path

from immunomod.acquire import gather_ledger
from immunomod.files import write_tsv
from immunomod.job import rule_job

with rule_job(snakemake):
    ledger = gather_ledger(map(Path, snakemake.input.reads), map(Path, snakemake.input.acquired))
    write_tsv(ledger, snakemake.output.ledger)
