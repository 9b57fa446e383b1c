"""The environments say the same: pyproject, the conda file and the locks, and none of them holds an address."""

import os
import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.specifiers import SpecifierSet

CONDA_FILES = ("cellbender.yaml", "immunomod.yaml", "scvi.yaml")
#: A conda requirement as this repository writes them: a name and bounds, and nothing that a solver may read otherwise.
REQUIREMENT = re.compile(r"[a-z0-9][a-z0-9._-]*( (>=|<)[0-9]+(\.[0-9]+)*(,(>=|<)[0-9]+(\.[0-9]+)*)*)?")
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


def test_the_environment_of_cellbender_asks_for_the_same_bounds(repository, required):
    listed = yaml.safe_load((repository / "envs" / "cellbender.yaml").read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in listed if isinstance(entry, dict)]
    assert [re.split("[>=]", line)[0] for line in pip] == ["cellbender"]
    conda = dict(line.split(" >=") for line in listed if isinstance(line, str) and line != "pip")
    assert conda.pop("python").startswith("3.11")
    assert conda == {CONDA_NAMES.get(name, name): required[name] for name in conda}


def test_the_script_around_cellbender_runs_on_what_its_environment_holds(repository, required, tmp_path):
    """Every package of ours that the environment does not name is out of reach here."""
    listed = yaml.safe_load((repository / "envs" / "cellbender.yaml").read_text())["dependencies"]
    held = {line.split(" >=")[0] for line in listed if isinstance(line, str)}
    modules = {"scikit-learn": "sklearn", "scikit-misc": "skmisc", "scikit-image": "skimage"}
    absent = sorted(modules.get(name, name.replace("-", "_")) for name in set(required) - held)
    assert {"numba", "scanpy", "snakemake"} <= set(absent)
    program = f"""
import sys

class OutOfReach:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, OutOfReach())
from pathlib import Path
import anndata, numpy, scipy.sparse
from immunomod.sample.ambient.cellbender import remove_background

folder = Path({str(tmp_path)!r})
anndata.AnnData(scipy.sparse.csr_matrix(numpy.full((5, 4), 900))).write_h5ad(folder / "counts.h5ad")
note = remove_background(
    folder / "counts.h5ad", folder / "cellbender.h5", lower=100, epochs=1, false_positive_rate=0.01, threads=1
)
assert "without empty droplets" in note and (folder / "cellbender.h5").is_file()
"""
    path = {"PYTHONPATH": str(repository / "workflow")}
    done = subprocess.run([sys.executable, "-c", program], env=os.environ | path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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


def test_the_environment_of_scvi_asks_for_the_same_bounds(repository, required):
    listed = yaml.safe_load((repository / "envs" / "scvi.yaml").read_text())["dependencies"]
    (pip,) = [entry["pip"] for entry in listed if isinstance(entry, dict)]
    assert [re.split("[>=]", line)[0] for line in pip] == ["scvi-tools"]
    conda = dict(line.split(" >=") for line in listed if isinstance(line, str) and line != "pip")
    assert conda.pop("python").startswith("3.11")
    assert conda == {name: required[name] for name in conda}


def test_the_lock_of_scvi_holds_versions_alone(repository):
    lines = (repository / "envs" / "scvi.lock").read_text().splitlines()
    assert any(line.startswith("scvi-tools==") for line in lines)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+-]+", line) for line in lines)


def locked(repository, name):
    """Package -> version of a lock."""
    text = (repository / "envs" / name).read_text()
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\\n]+)", text, flags=re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", package).lower(): version for package, version in found}


def test_every_rule_names_an_environment_that_there_is_and_every_environment_is_named(repository):
    folder = repository / "workflow" / "rules"
    (shared,) = re.findall(r'^ENVIRONMENT = "(.*)"$', (folder / "common.smk").read_text(), flags=re.MULTILINE)
    named = set()
    for path in folder.glob("*.smk"):
        for rule in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            if "script:" not in rule:
                continue
            (given,) = re.findall(r"^    conda:\n        (.*)$", rule, flags=re.MULTILINE)
            named.add((folder / (shared if given == "ENVIRONMENT" else given.strip('"'))).resolve())
    assert named == {repository / "envs" / name for name in CONDA_FILES}
    assert {path.name for path in (repository / "envs").glob("*.yaml")} == set(CONDA_FILES)


@pytest.mark.parametrize("name", CONDA_FILES)
def test_conda_can_read_the_file(repository, name):
    """No channel is reached where the tests run, so what can be seen without one: keys, channels, requirements."""
    content = yaml.safe_load((repository / "envs" / name).read_text())
    assert list(content) == ["channels", "dependencies"]
    # with strict priorities a package is taken from the first channel that has it
    assert content["channels"] == ["conda-forge", "bioconda", "nodefaults"]
    *listed, last = content["dependencies"]
    if isinstance(last, str):
        listed.append(last)
    else:
        assert list(last) == ["pip"] and "pip" in listed
        assert all(re.fullmatch(r"[a-z-]+>=[0-9.]+", line) for line in last["pip"])
    assert all(REQUIREMENT.fullmatch(line) for line in listed), listed
    names = [line.split(" ")[0] for line in listed]
    assert names[0] == "python" and names[1:] == sorted(set(names[1:]))


@pytest.mark.parametrize(("name", "lock"), [("immunomod.yaml", "immunomod.lock"), ("scvi.yaml", "scvi.lock")])
def test_what_is_locked_is_what_conda_may_choose(repository, name, lock):
    listed = yaml.safe_load((repository / "envs" / name).read_text())["dependencies"]
    lines = [line for line in listed if isinstance(line, str)]
    lines += [line for entry in listed if isinstance(entry, dict) for line in entry["pip"]]
    pinned = locked(repository, lock)
    of_pypi = {conda: package for package, conda in CONDA_NAMES.items()}
    for line in lines:
        package, bounds = re.fullmatch(r"([a-z0-9-]+) ?(.*)", line).groups()
        if package not in ("python", "pip"):
            version = pinned[of_pypi.get(package, package)]
            assert SpecifierSet(bounds).contains(version), f"{name} asks for {line}, {lock} holds {version}"


def test_the_heavy_parts_stay_out_of_the_common_environment(repository):
    heavy = {"torch", "scvi-tools", "lightning", "jax", "cellbender", "pyro-ppl"}
    for lock in ("immunomod.lock", "dev.lock"):
        assert not heavy & set(locked(repository, lock))
    assert "scvi-tools" in locked(repository, "scvi.lock")


def test_make_env_scvi_installs_what_the_conda_file_lists(repository):
    listed = yaml.safe_load((repository / "envs" / "scvi.yaml").read_text())["dependencies"]
    conda = {line.split(" ")[0] for line in listed if isinstance(line, str)} - {"python", "pip"}
    (line,) = re.findall(r"pip install .*-c envs/scvi.lock (.*)$", (repository / "Makefile").read_text(), re.MULTILINE)
    installed = set(line.replace('"$(TORCH)"', "").split())
    # scvi-tools brings numpy, pandas and scipy itself
    assert installed == conda - {"numpy", "pandas", "scipy"} | {"scvi-tools"}
