"""docs/cluster.md as a user types it, up to the jobs that would be sent."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.tiny_study import write_tiny_study
from support.workflow import REPOSITORY


@pytest.fixture(scope="module")
def blocks() -> list[str]:
    """What stands in the page's code blocks."""
    page = (REPOSITORY / "docs" / "cluster.md").read_text(encoding="utf-8")
    return re.findall(r"^```\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)


def test_the_commands_of_the_page_plan_what_they_say(blocks, tmp_path):
    study = tmp_path / "study"
    write_tiny_study(study)
    (site,) = [block for block in blocks if "config.yaml <<" in block]
    environment = os.environ | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / ".config")}
    subprocess.run(["bash", "-euc", site], env=environment, check=True)
    plans = []
    for block in blocks:
        if ".venv/bin/snakemake" in block:
            typed = block.strip().replace(".venv/bin/snakemake", f"{sys.executable} -m snakemake --dry-run")
            typed = typed.replace("MY_STUDY", str(study))
            command = ["bash", "-euc", typed]
            done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
            plans.append(done.stdout)
    fetch, run = plans
    assert "rule acquire_sample:" in fetch and "rule check_study:" in fetch and "rule read_counts:" not in fetch
    assert "rule build_report:" in run and "slurm_account=lab" in run and "slurm_partition=main" in run


def test_the_page_says_what_the_rules_ask_for(blocks):
    page = (REPOSITORY / "docs" / "cluster.md").read_text(encoding="utf-8")
    asked = page.split("## What jobs ask for")[1].split("##")[0]
    rows = re.findall(r"^\| (`.*?) \|", asked, flags=re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    text = "".join(Path(path).read_text() for path in (REPOSITORY / "workflow" / "rules").glob("*.smk"))
    rules = re.split(r"^rule ", text, flags=re.MULTILINE)[1:]
    sent = {part.split(":")[0] for part in rules if "localrule" not in part and "output:" in part}
    # two rules of methods that a study asks for by name, and the look before a run
    assert named == sent - {"remove_background", "train_scvi", "check_study"}
