"""The workflow as a part of somebody else's, and how long a large study takes to plan."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from support.tiny_study import write_tiny_study
from support.workflow import REPOSITORY, snakemake

OUTER = """
configfile: "config.yaml"

module immunomod:
    snakefile: "{snakefile}"
    config: config["immunomod"]
    prefix: "coculture"

use rule * from immunomod as immunomod_*

rule summary:
    default_target: True
    input: {target}
    output: "summary.txt"
    shell: "cp {{input}} {{output}}"
"""


def outer(
    folder: Path, target: str, *arguments: str, added: str = "", environment: Mapping[str, str] = os.environ
) -> str:
    """Run a workflow that imports this one, with something added, and ends with one of its files; what it printed."""
    folder.mkdir(exist_ok=True)
    config = write_tiny_study(folder / "study")
    inner = yaml.safe_load(config.read_text(encoding="utf-8"))
    inner |= {name: f"study/{inner[name]}" for name in ("samples", "contrasts")}
    inner["geo"]["base_url"] = f"study/{inner['geo']['base_url']}"
    (folder / "config.yaml").write_text(yaml.safe_dump({"immunomod": inner}), encoding="utf-8")
    text = OUTER.format(snakefile=REPOSITORY / "Snakefile", target=target) + added
    (folder / "Snakefile").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "snakemake", "--directory", str(folder), "-s", str(folder / "Snakefile")]
    command += ["--cores", "2", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout + done.stderr


def test_an_outer_workflow_plans_every_floor_under_its_own_names(tmp_path):
    printed = outer(tmp_path / "outer", "rules.immunomod_pool_effects.output.table", "--dry-run")
    for rule in ("acquire_sample", "read_counts", "filter_cells", "build_atlas", "test_contrast", "pool_effects"):
        assert f"rule immunomod_{rule}:" in printed
    assert "output: coculture/results/synthesis/program_meta.tsv" in printed
    assert "\nrule summary:" in printed and "output: results/" not in printed


@pytest.mark.slow
def test_jobs_run_within_an_outer_workflow(tmp_path):
    folder = tmp_path / "outer"
    outer(folder, '"coculture/results/acquire/GSE900000001/samples/D1_coculture.tsv"')
    assert "D1_coculture" in (folder / "summary.txt").read_text()
    assert not (folder / "results").exists()


#: Stands in for SLURM's squeue and scancel: a file holds the numbers of the jobs that run.
STAND_IN = """#!/bin/sh
jobs="{jobs}"
case "$(basename "$0")" in
  squeue) while read -r number; do echo "$number|$PWD"; done < "$jobs" ;;
  scancel) for number in "$@"; do sed -i "/^$number$/d" "$jobs"; done ;;
esac
"""


@pytest.mark.slow
def test_jobs_that_a_killed_run_left_are_cancelled_as_the_page_says(tmp_path):
    """Snakemake calls no ``onstart`` of a module, so the outer workflow has lines of its own."""
    page = (REPOSITORY / "docs" / "module.md").read_text(encoding="utf-8")
    (lines,) = [block for block in re.findall(r"^```\n(.*?)^```", page, re.MULTILINE | re.DOTALL) if "onstart" in block]
    jobs, programs, folder = tmp_path / "jobs", tmp_path / "programs", tmp_path / "outer"
    jobs.write_text("4711\n4712\n")
    programs.mkdir()
    for name in ("squeue", "scancel"):
        (programs / name).write_text(STAND_IN.format(jobs=jobs))
        (programs / name).chmod(0o755)
    log = folder / "coculture" / "results" / "logs" / "acquire_sample" / "GSE900000001" / "D1_coculture.log"
    log.parent.mkdir(parents=True)
    log.write_text("2026-01-01 00:00:00,000 immunomod: SLURM job 4711 on n1\n")
    environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    target = '"coculture/results/acquire/GSE900000001/samples/D1_coculture.tsv"'
    printed = outer(folder, target, added=lines, environment=environment)
    assert "cancelling SLURM jobs that a former run left: 4711" in printed
    # 4712 is a job of something else in this folder
    assert jobs.read_text() == "4712\n" and (folder / "summary.txt").is_file()


def test_the_catalog_knows_how_it_is_used(repository):
    """The keys that the catalog reads, and the files that it looks for."""
    catalog = yaml.safe_load((repository / ".snakemake-workflow-catalog.yml").read_text())
    assert set(catalog) == {"usage"}
    usage = catalog["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert set(usage["mandatory-flags"]) == {"desc", "flags"} and usage["report"] is True
    # rules name conda environments and no images
    deployment = {"conda": True, "apptainer": False, "apptainer+conda": False}
    assert usage["software-stack-deployment"] == deployment
    # it looks for workflow/Snakefile, where there is a folder workflow/, and for these two words in the README
    readme = (repository / "README.md").read_text().lower()
    assert "snakemake" in readme and "workflow" in readme
    for name in ("Snakefile", "workflow/Snakefile", "config/config.yaml", "config/README.md", "README.md", "LICENSE"):
        assert (repository / name).is_file()


@pytest.mark.slow
def test_a_study_of_500_samples_is_planned_within_a_minute(tmp_path):
    """Ten series of 50 libraries; measured in time of the processor, which does not depend on who else uses it."""
    arms = (("msc_alone", "msc"), ("immune_alone", "immune"), ("coculture", "coculture"))
    series = [f"GSE90000000{number}" for number in range(10)]
    rows = ["sample\tdataset\tsource\tcondition\tdonor\tculture"]
    for number in range(500):
        condition, culture = arms[number % 3]
        rows.append(f"S{number}\t{series[number // 50]}\tGSM{1000 + number}\t{condition}\tD{number // 3}\t{culture}")
    question = f"q\t{','.join(series)}\tcondition\tcoculture\tmsc_alone,immune_alone"
    (tmp_path / "samples.tsv").write_text("\n".join(rows) + "\n")
    (tmp_path / "contrasts.tsv").write_text(f"contrast\tdataset\tvariable\ttest\treference\n{question}\n")
    (tmp_path / "config.yaml").write_text("{samples: samples.tsv, contrasts: contrasts.tsv}\n")
    before = os.times()
    started = time.monotonic()
    plan = snakemake(tmp_path, tmp_path / "config.yaml", "--dry-run", "--quiet", "rules").check()
    took = os.times().children_user + os.times().children_system - before.children_user - before.children_system
    assert took < 60, f"{took:.0f} s of the processor, {time.monotonic() - started:.0f} s by the clock"
    planned = re.search(r"^total\s+(\d+)", plan.printed, re.MULTILINE)
    assert planned is not None and planned[1] == "1532"  # three of every sample, and 32 of the whole
