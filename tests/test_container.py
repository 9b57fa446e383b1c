"""The container recipe: what it copies is there, its steps do what they say, and nobody runs it as root.

No registry of images is reached where the tests run, so no image is built: the steps that install are carried out in a
folder instead.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from support.deployment import program_of

RECIPE = "Dockerfile"


@pytest.fixture(scope="module")
def steps(repository: Path) -> list[tuple[str, str]]:
    """Instructions and their arguments, comments and line ends taken out."""
    lines = [line for line in (repository / RECIPE).read_text().splitlines() if line and not line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    return [(line.split(" ", 1)[0], re.sub(r"\s+", " ", line.split(" ", 1)[1])) for line in text.splitlines()]


def arguments(steps: list[tuple[str, str]], name: str) -> list[str]:
    return [given for step, given in steps if step == name]


def test_the_base_is_pinned_and_small(steps):
    (python, revision) = arguments(steps, "ARG")
    assert re.fullmatch(r"PYTHON=python:3\.1[1-9]\.\d+-slim-\w+", python) and revision == "REVISION="
    assert arguments(steps, "FROM") == ["${PYTHON} AS packages", "${PYTHON}"]


def test_nobody_runs_it_as_root_and_snakemake_is_what_runs(steps):
    after = [step for step, _ in steps][[step for step, _ in steps].index("USER") :]
    assert arguments(steps, "USER") == ["1000"] and not {"RUN", "COPY", "ADD"} & set(after)
    assert arguments(steps, "ENTRYPOINT") == ['["snakemake"]']
    assert "chmod 1777 /home/immunomod" in " ".join(arguments(steps, "RUN"))
    (environment,) = arguments(steps, "ENV")
    # caches go to HOME, whichever user it is; the executor of Kubernetes looks python up in PATH
    assert "HOME=/home/immunomod" in environment and environment.startswith("PATH=/opt/venv/bin:")


def test_every_package_is_held_to_its_hash(steps):
    installs = [given for given in arguments(steps, "RUN") if "pip install" in given]
    assert len(installs) == 1 and "--require-hashes -r /opt/immunomod.lock" in installs[0]


def test_all_that_a_run_needs_is_in_the_context_and_nothing_else(repository, steps):
    listed = (repository / ".dockerignore").read_text().splitlines()
    taken = {line[1:] for line in listed if line.startswith("!")}
    assert listed[1] == "*" and all((repository / name).exists() for name in taken)
    assert {"Snakefile", "workflow", "resources", "envs", "config", "profiles", "pyproject.toml"} <= taken
    assert not {"tests", "docs", "benchmarks", "results", ".git", ".venv"} & taken
    for given in arguments(steps, "COPY"):
        if not given.startswith("--from"):
            assert (repository / given.split(" ")[0]).exists(), given


def test_the_linter_has_nothing_to_say(repository):
    hadolint = program_of("hadolint")
    done = subprocess.run([hadolint, RECIPE], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stdout, done.stdout + done.stderr


def carry_out(command: str, root: Path, **environment: str) -> None:
    """Run a step with /opt under another folder."""
    moved = re.sub(r"(?<![\w/])/opt/", f"{root}/opt/", command)
    done = subprocess.run(
        ["sh", "-euc", moved], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{moved}\n{(done.stdout + done.stderr)[-4000:]}"


@pytest.mark.slow
def test_its_steps_make_an_environment_in_which_a_study_is_planned(repository, steps, tmp_path):
    """With pip and the lock; what is copied is what the context holds."""
    root = tmp_path / "root"
    target = root / "opt" / "immunomod"
    target.mkdir(parents=True)
    listed = (repository / ".dockerignore").read_text().splitlines()
    for name in (line[1:] for line in listed if line.startswith("!")):
        subprocess.run(["cp", "-R", str(repository / name), str(target)], check=True)
    (root / "opt" / "immunomod.lock").write_bytes((repository / "envs" / "immunomod.lock").read_bytes())
    for given in arguments(steps, "RUN"):
        if "apt-get" not in given and "useradd" not in given:
            carry_out(given, root, REVISION="abc123", PYTHONPATH="")
    home = tmp_path / "home"
    home.mkdir()
    environment = {"HOME": str(home), "PATH": f"{root}/opt/venv/bin:{os.environ['PATH']}"}
    (entry,) = arguments(steps, "ENTRYPOINT")
    study = [
        "--directory",
        str(tmp_path / "study"),
        "--configfile",
        "config/demo/config.yaml",
        "--dry-run",
        "--cores",
        "1",
    ]
    for command in ([*shlex.split(entry.strip("[]").replace(",", " ")), *study], ["immunomod", "--help"]):
        done = subprocess.run(command, cwd=target, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        told = done.stdout + done.stderr
        assert "rule build_report:" in told or "simulate" in told
    revision = "from immunomod.provenance.software import git_revision; print(git_revision())"
    done = subprocess.run(
        ["python", "-c", revision], cwd=home, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "abc123"
