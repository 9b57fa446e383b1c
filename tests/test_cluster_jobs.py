"""What jobs ask of a cluster, and how a run tells which jobs a former one left; SLURM's programs are stand-ins here."""

from __future__ import annotations

import io
import logging
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import h5py
import pandas as pd
import pytest
import yaml
from snakemake.logging import DefaultFormatter
from snakemake_interface_logger_plugins.common import LogEvent

from immunomod import cluster
from immunomod.errors import UserError
from immunomod.files import write_tsv


class Slurm:
    """Stands in for squeue and scancel: lists jobs of folders until they are cancelled, or for ever."""

    def __init__(self, jobs: dict[str, str], obeys: bool = True) -> None:
        self.jobs, self.obeys, self.cancelled = jobs, obeys, []

    def __call__(self, *command: str) -> str:
        if command[0] == "squeue":
            return "".join(f"{number}|{place}\n" for number, place in self.jobs.items())
        self.cancelled += command[1:]
        if self.obeys:
            self.jobs = {number: place for number, place in self.jobs.items() if number not in command}
        return ""


def run_of(tmp_path: Path, logged: str, marked: str) -> SimpleNamespace:
    """A run with two unfinished jobs: one whose log names its SLURM job, one that never began."""
    began, waits = tmp_path / "began.log", tmp_path / "waits.log"
    began.write_text(f"2026-01-01 00:00:00,000 immunomod: SLURM job {logged} on n1\nmore\n")
    jobs = [SimpleNamespace(log=[str(began)], marks=[]), SimpleNamespace(log=[str(waits)], marks=[marked])]
    return SimpleNamespace(
        dag=SimpleNamespace(needrun_jobs=lambda: jobs),
        persistence=SimpleNamespace(external_jobids=lambda job: job.marks),
    )


def test_jobs_that_were_left_are_cancelled_and_no_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = str(tmp_path)
    slurm = Slurm({"11": here, "12": here, "13": here, "14": "/elsewhere"})
    monkeypatch.setattr(cluster, "_slurm", slurm)
    # 13 is of another study in this folder; 14 is a number that was used before
    assert cluster.cancel_left_jobs(run_of(tmp_path, "11", "12")) == ["11", "12"]
    assert slurm.cancelled == ["11", "12"] and set(slurm.jobs) == {"13", "14"}
    assert cluster.cancel_left_jobs(run_of(tmp_path, "14", "99")) == []


def test_what_is_said_of_a_group_that_failed_tells_slurms_reason(monkeypatch):
    """Through Snakemake's own formatter, as ``GroupJob.log_error`` calls it."""
    monkeypatch.setattr(cluster, "_slurm", lambda *command: "CANCELLED by 1000\n" if command[-1] == "-j17" else "")
    logger, said = logging.getLogger("groups"), io.StringIO()
    handler = logging.StreamHandler(said)
    handler.setFormatter(DefaultFormatter())
    monkeypatch.setattr(logger, "handlers", [handler])
    for _ in range(2):
        cluster.say_why_groups_fail(logger)
    for path in ("slurm_logs/group_read/17.log", "slurm_logs/group_read/18.log", "elsewhere"):
        extra = {"event": LogEvent.GROUP_ERROR, "groupid": "read", "aux_logs": [path], "job_error_info": []}
        logger.error("Error in group read", extra=extra)
    logger.error("another message")
    lines = [line.strip() for line in said.getvalue().splitlines()]
    assert [line for line in lines if "message" in line] == [
        "message: Error in group read: SLURM job 17 failed, SLURM status is: 'CANCELLED'",
        "message: Error in group read",
        "message: Error in group read",
        "another message",
    ]


def test_a_job_that_does_not_end_stops_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "_slurm", Slurm({"11": str(tmp_path)}, obeys=False))
    monkeypatch.setattr(cluster, "PATIENCE_S", 0.0)
    with pytest.raises(UserError, match=r"11.*scancel"):
        cluster.cancel_left_jobs(run_of(tmp_path, "11", "12"))


def test_without_slurm_there_is_nothing_to_cancel(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cluster.cancel_left_jobs(run_of(tmp_path, "11", "12")) == []


def test_memory_follows_the_files_of_a_sample(tmp_path):
    manifest = tmp_path / "manifest.tsv"
    with pytest.raises(FileNotFoundError):
        cluster.reading_memory_mb(manifest)
    write_tsv(pd.DataFrame({"bytes": [100_000_000, 50_000_000]}), manifest)
    assert cluster.reading_memory_mb(manifest) == 1500 + 12 * 150
    with h5py.File(tmp_path / "some.h5", "w") as file:
        file["x"] = [0] * 1000
    assert 0.008 < cluster.largest_mb([tmp_path / "some.h5", manifest]) < 0.02


def rules(repository: Path) -> dict[str, str]:
    """The text of every rule of the workflow, by name."""
    text = "".join(path.read_text() for path in sorted((repository / "workflow" / "rules").glob("*.smk")))
    return {part.split(":")[0]: part for part in re.split(r"^rule ", text, flags=re.MULTILINE)[1:]}


def test_every_rule_that_is_sent_asks_for_more_with_every_attempt(repository):
    for name, text in rules(repository).items():
        assert "retries:" not in text, f"{name} would be repeated within the allocation that was too small"
        if "localrule: True" not in text and "output:" in text:
            for resource in ("mem_mb", "runtime"):
                (line,) = re.findall(rf"^ +{resource}=(.*)$", text, flags=re.MULTILINE)
                assert re.search(r"attempt( - 1\))?,$", line), f"{name}: {line}"


def test_the_profile_leaves_the_site_its_keys_and_names_rules_that_there_are(repository):
    profile = yaml.safe_load((repository / "workflow" / "profiles" / "slurm" / "config.yaml").read_text())
    assert not {"default-resources", "set-resources", "slurm-account", "slurm-partition"} & set(profile)
    assert profile["slurm-no-requeue"] and profile["retries"] == 2 and profile["slurm-status-command"] == "squeue"
    grouped = dict(entry.split("=") for entry in profile["groups"])
    assert set(grouped) <= set(rules(repository))
    assert {entry.split("=")[0] for entry in profile["group-components"]} == set(grouped.values())


def test_where_nobody_is_root_the_tests_of_slurm_say_so_and_stop(repository):
    """``make test-slurm`` begins with this script."""
    stranger = ["unshare", "--user"]  # a user that is nobody
    if not shutil.which("unshare") or subprocess.run([*stranger, "true"], capture_output=True).returncode:
        pytest.skip("needs unshare, and a kernel that lets it make users")
    script = repository / "tests" / "slurm" / "install.sh"
    done = subprocess.run([*stranger, "bash", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == (
        "error: the tests of SLURM start its daemons, which takes root. Run them in a container, as root.\n"
    )
    recipe = (repository / "Makefile").read_text().split("\ntest-slurm:")[1].split("\n\n")[0]
    assert recipe.index("tests/slurm/install.sh") < recipe.index("pytest tests/slurm")


def test_what_ci_runs_installs_slurm_and_collects_its_tests(repository):
    """They skip where a program is missing, so every package that brings one is named."""
    ci = (repository / ".ci" / "run").read_text()
    wanted = re.search(r"packages=\((.*)\)", (repository / "tests" / "slurm" / "install.sh").read_text())
    installed = {name for part in re.findall(r"packages\+?=\((.*)\)", ci) for name in part.split()}
    assert wanted is not None and set(wanted[1].split()) <= installed and ci.rstrip().endswith("make test")
    recipe = (repository / "Makefile").read_text().split("\ntest: ")[1].split("\n\n")[0]
    assert re.search(r"pytest .*-m slow$", recipe, flags=re.MULTILINE) and "--ignore" not in recipe
    assert "pytest.mark.slow" in (repository / "tests" / "slurm" / "test_slurm.py").read_text()
