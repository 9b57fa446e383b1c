"""A real SLURM of two nodes: a study through sbatch, and what can go wrong there.

The study runs in the background while a small workflow on the same machinery (``toy``) is troubled; what each ends with
is held against an undisturbed run.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from immunomod.files import read_tsv
from support.slurm_cluster import SlurmCluster, missing, wait_for
from support.tiny_study import final_tables, write_tiny_study
from support.workflow import REPOSITORY, snakemake

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing() or "SLURM is there")]

PROFILE = REPOSITORY / "workflow" / "profiles" / "slurm"
#: What a test cannot wait for, and what the site of the tests has.
SITE = ("--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "15", "--cores", "2")
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

    def end(self, seconds: float = 900) -> str:
        """What the run printed, once it ended well."""
        status = self.process.wait(seconds)
        printed = self.printed.read_text()
        assert status == 0, printed[-6000:]
        return printed


class Toy:
    """The small workflow in a folder of its own; ``faults`` says which job goes wrong and how."""

    def __init__(self, cluster: SlurmCluster, folder: Path, faults: dict[str, str]) -> None:
        self.cluster, self.folder, self.names = cluster, folder / "run", list(faults)
        self.faults = folder / "faults"
        for part in (self.faults, self.folder / "sources"):
            part.mkdir(parents=True)
        for start, (name, fault) in enumerate(faults.items()):
            numbers = "\n".join(map(str, range(start, start + 5)))
            (self.folder / "sources" / f"{name}.tsv").write_text(f"number\n{numbers}\n")
            if fault:
                (self.faults / name).write_text(fault)

    def start(self, *arguments: str) -> Run:
        config = [f"package={REPOSITORY / 'workflow'}", f"names={'+'.join(self.names)}", f"faults={self.faults}"]
        snakefile = Path(__file__).parent / "toy" / "Snakefile"
        return Run(self.cluster, snakefile, self.folder, *arguments, "--config", *config)

    def job(self, name: str, states: str = "RUNNING") -> str:
        """The SLURM number of the one job of a name."""
        jobs = self.cluster.jobs(states, self.folder)
        (number,) = [number for number, comment in jobs.items() if comment == f"rule_work_wildcards_{name}"]
        return number

    def wait_until_at_work(self, name: str) -> int:
        """The process of a job, once it is where its fault is."""
        note = self.faults / f"{name}.pid"
        wait_for(lambda: note.exists() and note.read_text(), f"job {name}", 300)
        return int(note.read_text())

    def states(self, name: str) -> list[str]:
        """How each of the jobs of a name ended."""
        rows = self.cluster.accounted("state", "comment", "workdir")
        comment = f"rule_work_wildcards_{name}"
        return [row[1].split()[0] for row in rows if row[2] == comment and row[3] == str(self.folder)]

    def check_table(self) -> None:
        """The final table is that of an undisturbed run, and nothing else was left."""
        numbers = [number for start in range(len(self.names)) for number in range(start, start + 5)]
        expected = pd.DataFrame({"number": numbers, "square": [number**2 for number in numbers]})
        pd.testing.assert_frame_equal(read_tsv(self.folder / "table.tsv"), expected)
        assert sorted(path.name for path in (self.folder / "work").iterdir()) == sorted(
            f"{name}.tsv" for name in self.names
        )


@pytest.fixture(scope="module")
def study(cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A study that runs on the cluster while other tests do."""
    folder = tmp_path_factory.mktemp("study")
    config = write_tiny_study(folder / "study")
    return Run(cluster, REPOSITORY / "Snakefile", folder / "run", "--configfile", str(config)), config


@pytest.fixture(scope="module")
def troubled(cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Toy, str]:
    """Four jobs, each of which goes wrong once; and what the run printed."""
    faults = {"memory": "memory", "time": "slow", "killed": "half", "cancelled": "wait"}
    toy = Toy(cluster, tmp_path_factory.mktemp("toy"), faults)
    run = toy.start()
    killed = toy.wait_until_at_work("killed")
    wait_for(lambda: not (toy.faults / "killed").exists(), "half a file")
    halves = [path for path in (toy.folder / "work").glob(".*") if path.stat().st_size]
    assert halves and not (toy.folder / "work" / "killed.tsv").exists()
    os.kill(killed, signal.SIGKILL)
    toy.wait_until_at_work("cancelled")
    cluster.call("scancel", toy.job("cancelled"))
    printed = run.end()
    return toy, printed


def test_a_study_is_sent(cluster, study):
    """It goes on while the tests below have their faults."""
    run, _ = study
    wait_for(lambda: cluster.jobs("all", run.folder), "the first job", 300)


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
    toy = Toy(cluster, tmp_path, {"left": "half", "fine": ""})
    run = toy.start()
    toy.wait_until_at_work("left")
    left = toy.job("left")
    wait_for(lambda: (toy.folder / "work" / "fine.tsv").exists(), "the other job", 300)
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


def test_a_study_through_sbatch_gives_the_tables_of_a_run_without(cluster, study, tmp_path):
    run, config = study
    printed = run.end()
    local = snakemake(tmp_path, config).check()
    assert final_tables(run.folder / "results") == final_tables(local.results)
    assert (run.folder / "results" / "report" / "index.html").is_file()
    rows = cluster.accounted("comment", "state", "workdir")
    jobs = [row[1] for row in rows if row[3] == str(run.folder)]
    # three libraries, and one job for each of the three steps that all of them take
    assert sorted(jobs) == sorted(
        [
            *("rule_check_study", "rule_acquire_acquire_sample", "rule_read_read_counts"),
            *("rule_filter_filter_cells", "rule_build_report", "rule_describe_run", "rule_rank_potency"),
            *(f"rule_build_atlas_wildcards_{name}" for name in ["GSE900000001"]),
            *(f"rule_sum_pseudobulks_wildcards_{name}" for name in ["GSE900000001"]),
            *(f"rule_test_{what}_wildcards_coculture_vs_alone" for what in ("contrast", "communication", "diseases")),
        ]
    )
    assert {row[2] for row in rows if row[3] == str(run.folder)} == {"COMPLETED"}
    log = (run.folder / "results" / "logs" / "filter_cells" / "D1_coculture.log").read_text()
    assert "SLURM job " in log.splitlines()[0] and "error" not in printed.lower().replace("0 errors", "")


def test_a_node_that_dies_has_its_job_run_once_on_another(cluster, tmp_path):
    toy = Toy(cluster, tmp_path, {"node": "half", "fine": ""})
    run = toy.start()
    toy.wait_until_at_work("node")
    wait_for(lambda: not (toy.faults / "node").exists(), "half a file")
    dead = cluster.node_of(toy.job("node"))
    cluster.kill_node(dead)
    printed = run.end()
    cluster.start_node(dead)
    assert "failed due to a node failure" in printed
    assert toy.states("node") == ["NODE_FAIL", "COMPLETED"]
    toy.check_table()
