"""The workflow as a part of somebody else's, and how long a large study takes to plan."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
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


def outer(folder: Path, target: str, *arguments: str) -> str:
    """Run a workflow that imports this one and ends with one of its files; what it printed."""
    folder.mkdir()
    config = write_tiny_study(folder / "study")
    inner = yaml.safe_load(config.read_text(encoding="utf-8"))
    inner |= {name: f"study/{inner[name]}" for name in ("samples", "contrasts")}
    inner["geo"]["base_url"] = f"study/{inner['geo']['base_url']}"
    (folder / "config.yaml").write_text(yaml.safe_dump({"immunomod": inner}), encoding="utf-8")
    text = OUTER.format(snakefile=REPOSITORY / "Snakefile", target=target)
    (folder / "Snakefile").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "snakemake", "--directory", str(folder), "-s", str(folder / "Snakefile")]
    command += ["--cores", "2", *arguments]
    done = subprocess.run(command, cwd=folder, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout


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
