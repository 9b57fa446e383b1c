"""The workflow as Snakemake sees it: it plans, it lints, and it can be read."""

import subprocess
import sys

import pytest

from support.workflow import snakemake

DEMO = "config/demo/config.yaml"


def test_the_demo_plans_every_floor(repository, tmp_path):
    plan = snakemake(tmp_path, repository / DEMO, "--dry-run").check().printed
    for rule in ("acquire_dataset", "read_counts", "filter_cells", "build_atlas", "sum_pseudobulks"):
        assert f"rule {rule}:" in plan
    for rule in ("test_contrast", "pool_effects", "build_report"):
        assert f"rule {rule}:" in plan
    assert plan.count("rule read_counts:") == 12


def test_results_follow_the_path_variable(repository, tmp_path):
    plan = snakemake(tmp_path, repository / DEMO, "--dry-run", "--config", "pathvars={results: results/demo}").check()
    assert "results/demo/report/index.html" in plan.printed
    assert "output: results/ledger.tsv" not in plan.printed


@pytest.mark.slow
def test_lint_is_clean(repository):
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--lint", "--configfile", DEMO],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_formatting_is_clean(repository):
    done = subprocess.run(
        [sys.executable, "-m", "snakefmt", "--check", "Snakefile", "workflow/rules"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
