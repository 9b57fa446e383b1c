"""Fixtures that every test may use."""

from pathlib import Path

import pytest

from support.shared_runs import run_once
from support.tiny_study import write_tiny_study
from support.workflow import REPOSITORY, Outcome, snakemake


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data that lies beside the checkout; the tests that hold results against it skip where it is absent."""
    folder = REPOSITORY.parent / "shared"
    if not (folder / "geo_mirror").is_dir():
        pytest.skip("needs the folder of real data ../shared, which is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The embedded demo, run to its end."""
    demo = REPOSITORY / "config" / "demo" / "config.yaml"
    return run_once(tmp_path_factory, "demo", lambda folder: snakemake(folder, demo))


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The smallest study (``support.tiny_study``), run to its end on one core; its config is ``study/config.yaml``."""
    return run_once(
        tmp_path_factory, "tiny", lambda folder: snakemake(folder, write_tiny_study(folder / "study"), "--cores", "1")
    )
