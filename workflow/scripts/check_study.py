"""Look at the whole study, and stop the run where it would fail or mislead."""

import sys
from pathlib import Path

from immunomod.errors import StudyError, list_problems
from immunomod.job import rule_job
from immunomod.preflight import check_study

with rule_job(snakemake):
    folder = Path(snakemake.output.problems).parent
    study = snakemake.params.study
    findings = check_study(study["config"], Path(study["folder"]), study["name"], folder.parent)
    if findings.stops_run:
        raise StudyError(findings.problems)
    if findings.problems:
        print(list_problems(findings.problems), file=sys.stderr)
    findings.write(folder)
