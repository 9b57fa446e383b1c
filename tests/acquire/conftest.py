"""A small GEO tree, a server of it, and a client that does not wait long."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from geo_server import GeoServer
from geo_tree import FAST, Tree

from immunomod.acquire.archive import UnpackLimits
from immunomod.acquire.dataset import AcquireSettings
from immunomod.acquire.download import Client


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "server")


@pytest.fixture
def server(tree: Tree) -> Iterator[GeoServer]:
    with GeoServer(tree.root) as running:
        yield running


@pytest.fixture
def client() -> Client:
    return Client(FAST)


@pytest.fixture
def settings() -> AcquireSettings:
    return AcquireSettings(FAST, UnpackLimits(members=1000, bytes=10**7))


@pytest.fixture
def sheet() -> Callable[..., pd.DataFrame]:
    """Sheet rows from dicts, with the row numbers that the file would have."""

    def build(*rows: dict[str, str]) -> pd.DataFrame:
        return pd.DataFrame(list(rows), index=range(2, len(rows) + 2)).fillna("")

    return build
