"""Write the report and its figures."""

from pathlib import Path

from immunomod.job import rule_job
from immunomod.programs import load_programs
from immunomod.report.build import build_report
from immunomod.report.inputs import ReportInputs

with rule_job(snakemake):
    inputs = ReportInputs.from_results(
        Path(snakemake.output.page).parents[1],
        samples_sheet=Path(snakemake.params.samples_sheet),
        contrasts_sheet=Path(snakemake.params.contrasts_sheet),
        samples=snakemake.params.samples,
        contrasts=snakemake.params.contrasts,
        atlases=snakemake.params.atlases,
    )
    programs = load_programs(snakemake.params.programs)
    build_report(inputs, programs, Path(snakemake.output.page), Path(snakemake.output.figures))
