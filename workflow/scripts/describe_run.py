"""Write the record of the finished run: time and memory, software, methods, sources, and its RO-Crate."""

from pathlib import Path

from immunomod.job import rule_job
from immunomod.provenance.record import RunNames, write_record

with rule_job(snakemake):
    write_record(
        Path(snakemake.output.crate).parents[1],
        dict(zip(("samples", "contrasts"), map(Path, snakemake.input.sheets), strict=True)),
        RunNames(**snakemake.params.names),
        [Path(path) for path in snakemake.input.made],
    )
