"""Room on disk: what is still to come, what is free, and a refusal with both figures before anything is fetched."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from geo_server import Fault, GeoServer
from geo_tree import SERIES, Tree, acquired_files, noise, tar_bytes

from immunomod.acquire.dataset import AcquireSettings
from immunomod.acquire.disk import size_words
from immunomod.acquire.download import Client, Remote
from immunomod.acquire.geo import RemoteFile
from immunomod.acquire.plan import COUNTS, Pick, SheetRow
from immunomod.acquire.room import free_bytes, required_bytes
from immunomod.errors import UserError

ROW = SheetRow("samples.tsv", 2, "s", "GSM50001")


def pick(name: str, size: int | None) -> Pick:
    return Pick(ROW, COUNTS, RemoteFile(name, f"https://host/{name}", size, "GSM50001"), False)


def test_what_is_still_to_come(tmp_path: Path) -> None:
    picks = [pick("a.csv.gz", 1000), pick("a.csv.gz", 1000), pick("b.h5", 500), pick("c.mtx", None)]
    local = tmp_path / "mine.csv"
    local.write_bytes(bytes(7000))
    assert required_bytes([*picks, Pick(ROW, COUNTS, local, False)], tmp_path) == 1500
    folder = tmp_path / "GSM50001"
    folder.mkdir()
    (folder / ".b.h5.part").write_bytes(bytes(200))
    assert required_bytes(picks, tmp_path) == 1300
    (folder / "a.csv.gz").write_bytes(bytes(1000))
    assert required_bytes(picks, tmp_path) == 300


def test_an_archive_counts_packed_and_unpacked(tmp_path: Path) -> None:
    picks = [pick("all.tar", 1000)]
    assert required_bytes(picks, tmp_path) == 2000
    (tmp_path / "GSM50001").mkdir()
    (tmp_path / "GSM50001" / "all.tar").write_bytes(bytes(1000))
    assert required_bytes(picks, tmp_path) == 1000
    (tmp_path / "GSM50001" / "unpacked" / "all.tar").mkdir(parents=True)
    (tmp_path / "GSM50001" / "unpacked" / "all.tar" / ".unpacked.json").write_text("{}")
    assert required_bytes(picks, tmp_path) == 0


def test_free_bytes_of_a_folder_that_is_still_to_be_made(tmp_path: Path) -> None:
    import os

    disk = os.statvfs(tmp_path)
    assert free_bytes(tmp_path / "not" / "yet") == pytest.approx(disk.f_bavail * disk.f_frsize, rel=0.05)


@pytest.mark.parametrize(
    ("count", "words"),
    [(300_000, "0.3 MB"), (480_000_000, "480 MB"), (9_999_000_000, "9,999 MB"), (132 * 10**9, "132 GB")],
)
def test_sizes_in_words(count: int, words: str) -> None:
    assert size_words(count) == words


def test_a_small_disk_is_told_before_anything_is_fetched(
    tree: Tree,
    server: GeoServer,
    sheet: Callable[..., pd.DataFrame],
    settings: AcquireSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tree.offer({"GSM50001": {"GSM50001.tar": tar_bytes({"m.csv": noise(1, 2_000_000)})}})
    rows = sheet({"sample": "s", "source": "GSM50001"})
    free = 3_000_000
    monkeypatch.setattr("immunomod.acquire.disk.free_bytes", lambda path: free)
    with pytest.raises(UserError, match=r"^GSE1234 needs 4\.0 MB in .*out/files, where 3\.0 MB are free: free some"):
        acquired_files("GSE1234", rows, server.base_url, tmp_path / "out", tmp_path, settings)
    assert "GSM50001.tar" not in server.requested()
    free = 4_100_000
    assert len(acquired_files("GSE1234", rows, server.base_url, tmp_path / "out", tmp_path, settings)) == 1
    free = 0  # all is there: nothing more is needed
    assert len(acquired_files("GSE1234", rows, server.base_url, tmp_path / "out", tmp_path, settings)) == 1


def test_a_size_that_only_the_server_knows_is_held_against_the_disk(
    tree: Tree, server: GeoServer, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = noise(1, 500_000)
    path = f"{SERIES}/suppl/plain.mtx"
    tree.write(path, content)
    remote, target = Remote(server.root_url + path), tmp_path / "out" / "plain.mtx"
    monkeypatch.setattr("immunomod.acquire.disk.free_bytes", lambda path: 400_000)
    with pytest.raises(UserError, match=r"plain\.mtx needs 0\.5 MB in .*, where 0\.4 MB are free"):
        client.fetch(remote, target)
    assert not target.exists()
    monkeypatch.undo()
    server.fault(path, Fault(drop_after=200_000))
    client.fetch(remote, target)
    assert target.read_bytes() == content
