"""The environments say the same: pyproject, the conda file and the locks, and none of them holds an address."""

import re
import tomllib

import pytest
import yaml

CONDA_NAMES = {
    "igraph": "python-igraph",
    "isal": "python-isal",
    "matplotlib": "matplotlib-base",
    "snakemake": "snakemake-minimal",
}


@pytest.fixture
def required(repository):
    """Name -> lower bound of every dependency of the package."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    return dict(line.split(">=") for line in project["dependencies"])


def test_the_conda_file_asks_for_the_same(repository, required):
    listed = yaml.safe_load((repository / "envs" / "immunomod.yaml").read_text())["dependencies"]
    conda = dict(line.split(" >=") for line in listed)
    assert conda.pop("python") == "3.11"
    assert conda == {CONDA_NAMES.get(name, name): bound for name, bound in required.items()}


@pytest.mark.parametrize("lock", ["immunomod.lock", "dev.lock"])
def test_the_lock_pins_every_dependency_by_hash_and_names_no_address(repository, required, lock):
    text = (repository / "envs" / lock).read_text()
    pinned = dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", text, flags=re.MULTILINE))
    assert set(required) <= set(pinned)
    assert "://" not in text and "--index" not in text
    assert text.count("--hash=sha256:") >= len(pinned)


def test_the_development_lock_extends_the_other_without_changing_it(repository):
    pins = [
        set(re.findall(r"^([a-z0-9-]+==[^ ;\\]+)", (repository / "envs" / name).read_text(), flags=re.MULTILINE))
        for name in ("immunomod.lock", "dev.lock")
    ]
    assert pins[0] <= pins[1]
