"""The workflow taken elsewhere: from a host, as snakedeploy and `github(...)` do, and to jobs that share no folder.

The tables are those of a run in a checkout.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.deployment import environment, program_of
from support.hosted import ADDRESS, TAG, Host, host_repository
from support.tiny_study import final_tables, write_tiny_study
from support.workflow import REPOSITORY, snakemake

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
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The tables of a run of the checkout."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return final_tables(snakemake(folder, write_tiny_study(folder / "study")).check().results)


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


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    """The address of a server that answers like S3."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with (tmp_path / "store.log").open("w") as log:
        server = subprocess.Popen([program_of("moto_server"), "-p", str(port)], stdout=log, stderr=log)
    try:
        for _ in range(240):
            try:
                request = urllib.request.Request(f"{address}/lab", method="PUT")
                urllib.request.urlopen(request, timeout=10).close()
                break
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait()


@pytest.mark.slow
def test_jobs_that_share_no_folder_reach_the_same_tables(store, undisturbed, tmp_path):
    """The profile for Kubernetes, with pods that are processes in empty folders."""
    plugins, pods, project = (tmp_path / name for name in ("plugins", "pods", "project"))
    plugins.mkdir()
    pods.mkdir()
    (packages,) = environment().glob("lib/python3*/site-packages")
    # these alone, so that the others stay those of this environment
    for name in ("snakemake_storage_plugin_s3", "boto3", "botocore", "s3transfer", "jmespath"):
        (plugins / name).symlink_to(packages / name)
    host = host_repository(tmp_path, project)
    write_tiny_study(project / "study")
    host.run("git", "add", "--all", folder=project)
    keys = {"AWS_ACCESS_KEY_ID": "lab", "AWS_SECRET_ACCESS_KEY": "lab"}
    keys |= {"SNAKEMAKE_STORAGE_S3_ACCESS_KEY": "lab", "SNAKEMAKE_STORAGE_S3_SECRET_KEY": "lab"}
    path = [str(REPOSITORY / "tests" / "support" / "pods"), str(plugins)]
    host.environment.update(keys, PODS=str(pods), PYTHONPATH=os.pathsep.join(path))
    # a pod looks python up in PATH
    host.environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [sys.executable, "-m", "snakemake", "--configfile", "study/config.yaml"]
    command += ["--workflow-profile", "workflow/profiles/kubernetes", "--executor", "pods", "--jobs", "2"]
    command += ["--default-storage-prefix", "s3://lab/run", "--storage-s3-endpoint-url", store]
    printed = host.run(*command, "--retries", "0", "--seconds-between-status-checks", "1", folder=project)
    assert "100%" in printed
    sent = {path.name.rpartition(".")[0] for path in pods.iterdir() if path.is_dir()}
    assert {"acquire_sample-read_counts", "filter_cells", "build_atlas", "test_contrast", "build_report"} <= sent
    fetch = """
import sys, boto3
from pathlib import Path
bucket = boto3.resource("s3", endpoint_url=sys.argv[1]).Bucket("lab")
for stored in bucket.objects.filter(Prefix="run/results/"):
    path = Path(stored.key)
    path.parent.mkdir(parents=True, exist_ok=True)
    bucket.download_file(stored.key, str(path))
"""
    host.run(program_of("python"), "-c", fetch, store, folder=tmp_path)
    results = tmp_path / "run" / "results"
    assert (results / "report" / "index.html").is_file()
    assert final_tables(results) == undisturbed
