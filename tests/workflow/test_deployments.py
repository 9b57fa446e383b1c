"""The workflow taken elsewhere: from a host, as snakedeploy and `github(...)` do, and to jobs that share no folder.

The tables are those of a run in a checkout.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from support.deployment import environment, program_of
from support.hosted import ADDRESS, TAG, Host, host_repository
from support.tiny_study import final_tables, write_tiny_study
from support.workflow import REPOSITORY, Outcome

#: What snakedeploy 0.17 writes into `workflow/Snakefile`.
DEPLOYED = f"""
configfile: "config/config.yaml"

module immunomod:
    snakefile:
        github("lab/immunomod", path="workflow/Snakefile", tag="{TAG}")
    config:
        config

use rule * from immunomod
"""
RUN = [sys.executable, "-m", "snakemake", "--cores", "2"]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    return host_repository(tmp_path_factory.mktemp("host"))


@pytest.fixture(scope="module")
def undisturbed(tiny_run: Outcome) -> dict[str, str]:
    """The tables of a run of the checkout."""
    return final_tables(tiny_run.results)


@pytest.fixture(scope="module")
def snakedeploy() -> str:
    return program_of("snakedeploy")


def test_a_hosted_workflow_is_unpacked_once_and_plans_every_floor(host, tmp_path):
    """`github(...)` gives Snakemake single files; the package and its tables must be on disk all the same."""
    write_tiny_study(tmp_path / "config")
    (tmp_path / "workflow").mkdir()
    (tmp_path / "workflow" / "Snakefile").write_text(DEPLOYED, encoding="utf-8")
    printed = host.run(*RUN, "--dry-run", folder=tmp_path)
    for rule in ("acquire_sample", "filter_cells", "build_atlas", "test_contrast", "build_report", "all"):
        assert f"rule {rule}:" in printed
    (unpacked,) = (host.source_cache / "immunomod").iterdir()
    assert (unpacked / "resources" / "programs" / "programs.tsv").is_file()
    assert f"{unpacked}/resources/markers/markers.tsv" in printed and f"{REPOSITORY}/resources" not in printed
    changed = (unpacked / "workflow").stat().st_ctime_ns
    host.run(*RUN, "--dry-run", "--quiet", folder=tmp_path)
    assert [unpacked] == list((host.source_cache / "immunomod").iterdir())
    assert (unpacked / "workflow").stat().st_ctime_ns == changed


@pytest.mark.slow
def test_snakedeploy_deploys_a_workflow_that_runs_to_the_same_tables(host, snakedeploy, undisturbed, tmp_path):
    host.run(snakedeploy, "deploy-workflow", ADDRESS, "deployed", "--tag", TAG, folder=tmp_path)
    deployed = tmp_path / "deployed"
    written = (deployed / "workflow" / "Snakefile").read_text()
    assert f'github("lab/immunomod", path="workflow/Snakefile", tag="{TAG}")' in written
    for name in ("config.yaml", "samples.tsv", "contrasts.tsv", "README.md"):
        assert (deployed / "config" / name).read_bytes() == (REPOSITORY / "config" / name).read_bytes()
    assert (deployed / "profiles" / "slurm" / "config.yaml").is_file() and (deployed / "LICENSE").is_file()
    write_tiny_study(tmp_path / "study")
    shutil.copytree(tmp_path / "study", deployed / "config", dirs_exist_ok=True)
    printed = host.run(*RUN, folder=deployed)
    assert "100%" in printed
    assert (deployed / "results" / "report" / "index.html").is_file()
    assert final_tables(deployed / "results") == undisturbed


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("rsync"), reason="the storage plugin fs needs rsync")
def test_jobs_that_share_no_folder_reach_the_same_tables(undisturbed, tmp_path):
    """The profile for Kubernetes, with pods that are processes in empty folders, and a folder as the volume."""
    plugins, pods, project, store = (tmp_path / name for name in ("plugins", "pods", "project", "store"))
    plugins.mkdir()
    pods.mkdir()
    (packages,) = environment().glob("lib/python3*/site-packages")
    # these alone, so that the others stay those of this environment
    for name in ("snakemake_storage_plugin_fs", "sysrsync", "reretry", "toml"):
        (plugins / name).symlink_to(packages / name)
    host = host_repository(tmp_path, project)
    write_tiny_study(project / "study")
    host.run("git", "add", "--all", folder=project)
    path = [str(REPOSITORY / "tests" / "support" / "pods"), str(plugins)]
    host.environment.update(PODS=str(pods), PYTHONPATH=os.pathsep.join(path))
    # a pod looks python up in PATH
    host.environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [sys.executable, "-m", "snakemake", "--configfile", "study/config.yaml", "--jobs", "2"]
    command += ["--workflow-profile", "workflow/profiles/kubernetes", "--executor", "pods", "--retries", "0"]
    command += ["--default-storage-prefix", str(store), "--seconds-between-status-checks", "1"]
    assert "100%" in host.run(*command, folder=project)
    sent = {path.name.rpartition(".")[0] for path in pods.iterdir() if path.is_dir()}
    assert {"acquire_sample-read_counts", "filter_cells", "build_atlas", "test_contrast", "build_report"} <= sent
    assert (store / "results" / "report" / "index.html").is_file() and not (project / "results" / "report").exists()
    assert final_tables(store / "results") == undisturbed
