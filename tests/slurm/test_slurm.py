"""A real SLURM of two nodes: the demo through sbatch, and what can go wrong there.

The demo runs in the background while a small workflow on the same machinery (``support/toy``) is troubled; what each
ends with is held against an undisturbed run.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.slurm_cluster import SlurmCluster, missing, wait_for
from support.tiny_study import final_tables
from support.toy_workflow import SNAKEFILE, Toy
from support.workflow import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing() or "SLURM is there")]

DEMO = REPOSITORY / "config" / "demo" / "config.yaml"
PROFILE = REPOSITORY / "workflow" / "profiles" / "slurm"
#: What a test cannot wait for, and what the site of the tests has.
SITE = ("--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "15", "--cores", "2")
#: Within which everything ends, on a machine that is busy with other things too.
LONGEST_S = 3600.0
RESOURCES = ("--default-resources", "slurm_account=lab", "slurm_partition=main", "mem_mb=700", "runtime=10")


@pytest.fixture(scope="module")
def cluster() -> Iterator[SlurmCluster]:
    with SlurmCluster() as running:
        yield running


class Run:
    """A `snakemake` that sends its jobs to the cluster."""

    def __init__(self, cluster: SlurmCluster, snakefile: Path, folder: Path, *arguments: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.printed = folder.parent / f"{folder.name}.printed"
        command = [sys.executable, "-m", "snakemake", "-s", str(snakefile), "--directory", str(folder)]
        command += ["--workflow-profile", str(PROFILE), *SITE, *RESOURCES, *arguments]
        with self.printed.open("a") as out:
            self.process = cluster.start(*command, out=out)

    def end(self, seconds: float = LONGEST_S) -> str:
        """What the run printed, once it ended well."""
        status = self.process.wait(seconds)
        printed = self.printed.read_text()
        assert status == 0, printed[-6000:]
        return printed


class SentToy(Toy):
    """The small workflow, whose jobs are sent to the cluster."""

    def __init__(self, cluster: SlurmCluster, folder: Path, faults: dict[str, str]) -> None:
        super().__init__(folder, faults)
        self.cluster = cluster

    def start(self, *arguments: str) -> Run:
        return Run(self.cluster, SNAKEFILE, self.folder, *arguments, "--config", *self.config)

    def job(self, name: str, states: str = "RUNNING") -> str:
        """The SLURM number of the one job of a name."""
        jobs = self.cluster.jobs(states, self.folder)
        (number,) = [number for number, comment in jobs.items() if comment == f"rule_work_wildcards_{name}"]
        return number

    def states(self, name: str) -> list[str]:
        """How each of the jobs of a name ended."""
        rows = self.cluster.accounted("state", "comment", "workdir")
        comment = f"rule_work_wildcards_{name}"
        return [row[1].split()[0] for row in rows if row[2] == comment and row[3] == str(self.folder)]


@pytest.fixture(scope="module")
def demo(cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The demo, which runs on the cluster while other tests do."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    return Run(cluster, REPOSITORY / "Snakefile", folder, "--configfile", str(DEMO))


@pytest.fixture(scope="module")
def troubled(cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[SentToy, str]:
    """Four jobs, each of which goes wrong once; and what the run printed."""
    faults = {"memory": "memory", "time": "slow", "killed": "half", "cancelled": "wait"}
    toy = SentToy(cluster, tmp_path_factory.mktemp("toy"), faults)
    run = toy.start()
    killed = toy.wait_until_at_work("killed")
    os.kill(killed, signal.SIGKILL)
    toy.wait_until_at_work("cancelled")
    cluster.call("scancel", toy.job("cancelled"))
    printed = run.end()
    return toy, printed


def test_the_demo_is_sent_and_loses_a_job(cluster, demo):
    """It goes on while the tests below have their faults."""

    def reading() -> str:
        jobs = cluster.jobs("RUNNING", demo.folder)
        return next((number for number, comment in jobs.items() if comment == "rule_read_read_counts"), "")

    wait_for(reading, "a job that reads", LONGEST_S)
    cluster.call("scancel", reading())


def test_a_run_with_four_faults_ends_with_the_tables_of_one_without(troubled):
    toy, _ = troubled
    toy.check_table()


def test_out_of_memory_is_tried_again_with_twice_as_much(troubled, cluster):
    toy, _ = troubled
    assert toy.states("memory") in (["OUT_OF_MEMORY", "COMPLETED"], ["FAILED", "COMPLETED"])
    rows = cluster.accounted("comment", "reqmem", "workdir")
    asked = [row[2] for row in rows if row[1] == "rule_work_wildcards_memory" and row[3] == str(toy.folder)]
    assert asked == ["700M", "1400M"]


def test_a_time_limit_is_tried_again_with_more(troubled):
    toy, printed = troubled
    assert toy.states("time") == ["TIMEOUT", "COMPLETED"]
    assert "SLURM status is: 'TIMEOUT'" in printed


def test_a_job_killed_while_it_writes_is_tried_again(troubled):
    toy, printed = troubled
    assert toy.states("killed") == ["FAILED", "COMPLETED"]
    assert "SLURM status is: 'FAILED'" in printed


def test_scancel_is_seen_and_the_job_sent_again(troubled):
    toy, printed = troubled
    assert toy.states("cancelled") == ["CANCELLED", "COMPLETED"]
    assert "SLURM status is: 'CANCELLED'" in printed


def test_a_run_cancels_what_a_killed_one_left(cluster, tmp_path):
    toy = SentToy(cluster, tmp_path, {"left": "half", "fine": ""})
    run = toy.start()
    toy.wait_until_at_work("left")
    left = toy.job("left")
    toy.wait_until_done("fine")
    run.process.kill()
    run.process.wait()
    assert toy.job("left") == left
    refused = toy.start()
    assert refused.process.wait(300) == 1
    assert "Directory cannot be locked" in refused.printed.read_text() and toy.job("left") == left
    toy.start("--unlock").end()
    printed = toy.start().end()
    assert f"cancelling SLURM jobs that a former run left: {left}" in printed
    assert toy.states("left") == ["CANCELLED", "COMPLETED"]
    toy.check_table()


def test_the_demo_through_sbatch_gives_the_tables_of_a_run_without(cluster, demo, demo_run):
    printed = demo.end()
    assert final_tables(demo.folder / "results") == final_tables(demo_run.results)
    assert (demo.folder / "results" / "report" / "index.html").is_file()
    rows = [row for row in cluster.accounted("comment", "state", "workdir") if row[3] == str(demo.folder)]
    # of twelve libraries up to ten are fetched in a job, four are read and four filtered
    assert Counter(row[1] for row in rows) == {
        "rule_check_study": 1, "rule_acquire_acquire_sample": 2,
        "rule_read_read_counts": 3 + 1, "rule_filter_filter_cells": 3,
        "rule_build_atlas_wildcards_GSE900000001": 1, "rule_sum_pseudobulks_wildcards_GSE900000001": 1,
        "rule_test_contrast_wildcards_coculture_vs_alone": 1,
        "rule_test_communication_wildcards_coculture_vs_alone": 1,
        "rule_test_diseases_wildcards_coculture_vs_alone": 1,
        "rule_rank_potency": 1, "rule_build_report": 1, "rule_describe_run": 1,
    }  # fmt: skip
    ended = Counter((row[1], row[2].split()[0]) for row in rows if row[2] != "COMPLETED")
    assert ended == {("rule_read_read_counts", "CANCELLED"): 1}
    log = (demo.folder / "results" / "logs" / "filter_cells" / "D1_coculture.log").read_text()
    assert "SLURM job " in log.splitlines()[0]
    assert "SLURM status is: 'CANCELLED'" in printed
    assert "Traceback" not in printed


def test_a_node_that_dies_has_its_job_run_once_on_another(cluster, tmp_path):
    toy = SentToy(cluster, tmp_path, {"node": "half", "fine": ""})
    run = toy.start()
    toy.wait_until_at_work("node")
    dead = cluster.node_of(toy.job("node"))
    cluster.kill_node(dead)
    printed = run.end()
    cluster.start_node(dead)
    assert "failed due to a node failure" in printed
    assert toy.states("node") == ["NODE_FAIL", "COMPLETED"]
    toy.check_table()
