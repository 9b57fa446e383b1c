"""Jobs of several samples side by side in one data set's folder: what they share arrives once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from geo_server import Fault, GeoServer
from geo_tree import FAST, SAMPLES, SERIES, Tree

from immunomod.acquire.dataset import AcquireSettings, acquire_samples
from immunomod.acquire.download import TransferSettings
from immunomod.acquire.lock import only_job
from immunomod.acquire.pace import StoppedError

WORKFLOW = str(Path(__file__).resolve().parents[2] / "workflow")


def job(server: GeoServer, folder: Path, gsm: str) -> subprocess.Popen[bytes]:
    program = (
        "import pandas as pd; from pathlib import Path\n"
        "from immunomod.acquire import acquire_samples\n"
        f"rows = pd.DataFrame([{{'sample': {gsm!r}, 'source': {gsm!r}}}])\n"
        f"acquire_samples('GSE1234', rows, {server.base_url!r}, Path({str(folder)!r}), Path('.'))"
        f".to_csv({str(folder / gsm)!r}, sep='\\t', index=False)\n"
    )
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": WORKFLOW}
    return subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.PIPE)


def test_an_archive_of_all_samples_is_fetched_by_one_of_their_jobs(
    tree: Tree, server: GeoServer, tmp_path: Path
) -> None:
    for gsm, files in tree.sample_files.items():
        for name in files:
            tree.path(f"{SAMPLES}/{gsm}/suppl/{name}").unlink()
    server.fault(f"{SERIES}/suppl/GSE1234_RAW.tar", Fault(rate=40_000))  # 1.5 s, so that both jobs want it at once
    jobs = [job(server, tmp_path / "out", gsm) for gsm in tree.sample_files]
    for one in jobs:
        _, said = one.communicate(timeout=60)
        assert one.returncode == 0, said
    shared = ["GSE1234_RAW.tar", "GSE1234_family.soft.gz", "filelist.txt", "GSE1234_all.genes.tsv.gz"]
    assert [server.requested().count(name) for name in shared] == [1] * 4
    for gsm, files in tree.sample_files.items():
        manifest = pd.read_csv(tmp_path / "out" / gsm, sep="\t", keep_default_na=False)
        counts = manifest[manifest["role"] == "counts"]
        assert set(counts["file"]) == {*files, "GSE1234_all.genes.tsv.gz"}
        for name, content in files.items():
            assert Path(counts.loc[counts["file"] == name, "path"].item()).read_bytes() == content
    left = [path.name for path in (tmp_path / "out").rglob(".*") if path.suffix in (".lock", ".part")]
    assert left == []


def test_a_killed_job_lets_go_of_what_it_was_fetching(tree: Tree, server: GeoServer, tmp_path: Path) -> None:
    server.fault(f"{SAMPLES}/GSM50001/suppl/GSM50001_a.mtx.gz", Fault(rate=2_000))
    first = job(server, tmp_path / "out", "GSM50001")
    lock = tmp_path / "out" / "files" / "GSM50001" / ".GSM50001_a.mtx.gz.lock"
    deadline = time.monotonic() + 30
    while not lock.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.kill()
    first.communicate()
    second = job(server, tmp_path / "out", "GSM50001")
    _, said = second.communicate(timeout=60)
    assert second.returncode == 0, said
    assert not lock.exists()


def test_one_thread_at_a_time_and_each_gets_its_turn(tmp_path: Path) -> None:
    inside, most, turns = 0, 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most, turns
        for _ in range(5):
            with only_job(tmp_path / "file"):
                with guard:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.002)
                with guard:
                    inside -= 1
                    turns += 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert (most, turns) == (1, 20)
    assert list(tmp_path.iterdir()) == []


def test_waiting_ends_when_the_run_is_called_off(tmp_path: Path) -> None:
    def stop() -> None:
        raise StoppedError

    with only_job(tmp_path / "file"):
        with pytest.raises(StoppedError), only_job(tmp_path / "file", stop):
            pytest.fail("two at once")
        with only_job(tmp_path / "other", stop):  # held by nobody
            pass


def test_a_row_alone_gives_the_files_that_it_gets_among_others(tree: Tree, server: GeoServer, tmp_path: Path) -> None:
    def acquire(rows: list[dict[str, str]], name: str) -> pd.DataFrame:
        frame = pd.DataFrame(rows)
        return acquire_samples("GSE1234", frame, server.base_url, tmp_path / name, tmp_path, AcquireSettings(FAST))

    rows = [{"sample": gsm, "source": gsm, "cells": "GSE1234_tsne.tsv.gz"} for gsm in tree.sample_files]
    together = acquire(rows, "together")
    columns = ["sample", "file", "bytes", "sha256", "url", "role"]
    for row in rows:
        alone = acquire([row], "alone")
        own = together[together["sample"].isin([row["sample"], ""])]
        pd.testing.assert_frame_equal(alone[columns], own[columns].reset_index(drop=True))


@pytest.mark.parametrize(("wanted", "jobs", "each"), [(1, 1, 1), (2, 1, 2), (3, 1, 2), (4, 2, 2), (16, 8, 2)])
def test_all_jobs_together_keep_to_the_limits(wanted: int, jobs: int, each: int) -> None:
    settings = AcquireSettings(TransferSettings(parallel_downloads=wanted, requests_per_s=6.0))
    share = settings.of_one_job().transfer
    assert (settings.jobs, share.parallel_downloads) == (jobs, each)
    assert share.parallel_downloads * jobs <= wanted
    assert share.requests_per_s * jobs == pytest.approx(6.0)
