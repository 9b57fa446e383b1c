"""Fixtures that every test may use."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


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
