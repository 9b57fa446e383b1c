"""The workflow as Snakemake sees it: it plans, it lints, and it can be read."""

import re
import shutil
import subprocess
import sys

import pytest
import yaml

from support.workflow import snakemake

DEMO = "config/demo/config.yaml"


def test_the_demo_plans_every_floor(repository, tmp_path):
    plan = snakemake(tmp_path, repository / DEMO, "--dry-run").check().printed
    for rule in ("acquire_sample", "read_counts", "filter_cells", "build_atlas", "sum_pseudobulks"):
        assert f"rule {rule}:" in plan
    for rule in (
        "test_contrast",
        "test_communication",
        "test_diseases",
        "pool_effects",
        "rank_potency",
        "build_report",
    ):
        assert f"rule {rule}:" in plan
    assert plan.count("rule read_counts:") == 12


def test_every_table_of_the_contract_is_a_target(repository, tmp_path):
    """A table that is deleted comes back with the next run, and the report never leaves one out in silence."""
    plan = snakemake(tmp_path, repository / DEMO, "--dry-run").check().printed
    targets = next(line for line in plan.split("rule all:")[1].splitlines() if "input:" in line)
    report = next(line for line in plan.split("rule build_report:")[1].splitlines() if "input:" in line)
    contrast = ("composition", "communication", "program_scores", "design", "program_effects", "program_enrichment")
    for table in (*contrast, "clusters", "clustering", "genes"):
        assert re.search(rf"/{table}(\.tsv)?\b", targets), table
        assert re.search(rf"/{table}(\.tsv)?\b", report), table
    for table in ("disease", "potency", "suppression", "variance"):
        assert re.search(rf"/{table}\.tsv\b", targets), table


def test_the_default_profile_loads_by_itself(repository, tmp_path):
    """It lets a run that was killed go on with the same command."""
    plan = snakemake(tmp_path, repository / DEMO, "--dry-run").check()
    assert "workflow specific profile" in plan.printed and "profiles/default" in plan.printed
    assert yaml.safe_load((repository / "profiles" / "default" / "config.yaml").read_text()) == {
        "rerun-incomplete": True
    }


def test_results_follow_the_path_variable(repository, tmp_path):
    plan = snakemake(tmp_path, repository / DEMO, "--dry-run", "--config", "pathvars={results: results/demo}").check()
    assert "results/demo/report/index.html" in plan.printed
    assert "output: results/ledger.tsv" not in plan.printed


def test_cellbender_is_part_of_a_run_only_where_the_config_says_so(repository, tmp_path):
    config = yaml.safe_load((repository / DEMO).read_text())
    (tmp_path / "demo").mkdir()
    for name in ("samples", "contrasts"):
        shutil.copy(repository / "config" / "demo" / config[name], tmp_path / "demo")
    config["geo"] = {"base_url": "."}
    plans = {}
    for method in ("soupx", "cellbender"):
        path = tmp_path / "demo" / "config.yaml"
        path.write_text(yaml.safe_dump(config | {"ambient": {"method": method}}))
        plans[method] = snakemake(tmp_path, path, "--dry-run").check().printed
    assert "remove_background" not in plans["soupx"]
    plan = plans["cellbender"]
    assert plan.count("rule remove_background:") == plan.count("rule filter_cells:") == 12
    job = plan.split("rule filter_cells:")[1]
    inputs = next(line for line in job.splitlines() if "input:" in line)
    assert re.search(r"samples/(\w+)/counts\.h5ad, results/samples/\1/cellbender\.h5$", inputs), inputs


def test_the_rule_of_cellbender_has_an_environment_of_its_own(repository):
    rules = (repository / "workflow" / "rules" / "sample.smk").read_text()
    rule = rules.split("rule remove_background:")[1].split("\nrule ")[0]
    named = re.search(r'conda:\s+"(.*)"', rule)[1]
    assert (repository / "workflow" / "rules" / named).resolve() == repository / "envs" / "cellbender.yaml"


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
        [sys.executable, "-m", "snakefmt", "--check", "Snakefile", "workflow/Snakefile", "workflow/rules"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
