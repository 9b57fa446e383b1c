"""Read one sample's raw counts."""

import pandas as pd

from immunomod.files import read_tsv, write_h5ad, write_tsv
from immunomod.job import rule_job
from immunomod.sample.cells_table import CellsTableColumns
from immunomod.sample.read import read_sample
from immunomod.sample.readers.counts import ReadingSettings

with rule_job(snakemake):
    counts, ledger = read_sample(
        pd.Series(snakemake.params.row),
        read_tsv(snakemake.input.manifest, dtype=str).fillna(""),
        CellsTableColumns.from_config(snakemake.params.cells_table),
        ReadingSettings.from_config(snakemake.params.reading),
    )
    write_h5ad(counts, snakemake.output.counts)
    write_tsv(ledger, snakemake.output.read)
