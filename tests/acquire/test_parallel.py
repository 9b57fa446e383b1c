"""Files of a data set at the same time: how many, in what order, at what rate, and how it ends on errors and Ctrl-C."""

import gzip
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from geo_server import Fault, GeoServer
from geo_tree import FAST, SAMPLES, Tree, acquired_files, noise

from immunomod.acquire.archive import UnpackLimits
from immunomod.acquire.dataset import AcquireSettings
from immunomod.acquire.download import TransferSettings
from immunomod.errors import UserError

Sheet = Callable[..., pd.DataFrame]
N_SAMPLES = 8
CONTENTS = {f"GSM{50001 + n}": gzip.compress(noise(n + 1, 120_000), mtime=0) for n in range(N_SAMPLES)}
ROWS = [{"sample": f"s{n}", "source": gsm} for n, gsm in enumerate(CONTENTS)]


def path_of(gsm: str) -> str:
    return f"{SAMPLES}/{gsm}/suppl/{gsm}.csv.gz"


@pytest.fixture
def many(tree: Tree) -> Tree:
    tree.offer({gsm: {f"{gsm}.csv.gz": content} for gsm, content in CONTENTS.items()})
    return tree


@pytest.fixture
def acquire(many: Tree, server: GeoServer, tmp_path: Path, sheet: Sheet) -> Callable[..., pd.DataFrame]:
    def run(*rows: dict[str, str], transfer: TransferSettings = FAST, folder: str = "out") -> pd.DataFrame:
        settings = AcquireSettings(transfer, UnpackLimits(members=1000, bytes=10**7))
        return acquired_files("GSE1234", sheet(*(rows or ROWS)), server.base_url, tmp_path / folder, tmp_path, settings)

    return run


def csv_requests(server: GeoServer) -> list[str]:
    return [name for name in server.requested() if name.endswith(".csv.gz")]


def slow_down(server: GeoServer, rate: float = 800_000) -> None:
    for gsm in CONTENTS:
        server.fault(path_of(gsm), Fault(rate=rate))


@pytest.mark.parametrize("parallel", [1, 4, 6])
def test_so_many_files_at_once_as_are_allowed(
    acquire: Callable[..., pd.DataFrame], server: GeoServer, parallel: int, caplog: pytest.LogCaptureFixture
) -> None:
    slow_down(server)
    acquire(transfer=replace(FAST, parallel_downloads=parallel))
    assert server.most_at_once == parallel
    assert "pool is full" not in caplog.text  # or connections are thrown away, not used again


def test_four_by_default() -> None:
    assert TransferSettings().parallel_downloads == 4
    with pytest.raises(UserError, match=r"geo\.parallel_downloads is 0; it must be from 1 to 16"):
        TransferSettings(parallel_downloads=0)
    with pytest.raises(UserError, match=r"geo\.parallel_downloads is 17"):
        AcquireSettings.from_config({"parallel_downloads": 17})
    with pytest.raises(UserError, match=r"geo\.parallel_downloads is 'many'; it must be a whole number"):
        AcquireSettings.from_config({"parallel_downloads": "many"})
    with pytest.raises(UserError, match=r"geo\.max_members is 1\.5; it must be a whole number"):
        AcquireSettings.from_config({"max_members": 1.5})


def test_the_manifest_does_not_depend_on_what_finishes_first(
    acquire: Callable[..., pd.DataFrame], server: GeoServer
) -> None:
    order = random.Random(1)
    manifests = []
    for number in range(2):
        for gsm in CONTENTS:
            server.fault(path_of(gsm), Fault(stall_s=order.choice([0.0, 0.1, 0.2])))
        manifests.append(acquire(folder=f"out{number}").drop(columns=["retrieved", "path"]))
        assert list(manifests[-1]["sample"]) == [row["sample"] for row in ROWS]
    for other in manifests[1:]:
        pd.testing.assert_frame_equal(manifests[0], other)


def test_a_file_that_several_samples_want_is_fetched_once(
    acquire: Callable[..., pd.DataFrame], server: GeoServer
) -> None:
    slow_down(server)
    rows = [{**row, "source": "GSM50001", "cells_lane": row["sample"]} for row in ROWS]
    manifest = acquire(*rows)
    assert csv_requests(server) == ["GSM50001.csv.gz"]
    assert list(manifest.loc[manifest["file"] == "GSM50001.csv.gz", "sample"]) == [row["sample"] for row in ROWS]


def test_an_archive_that_all_samples_need_is_fetched_once(
    acquire: Callable[..., pd.DataFrame], many: Tree, server: GeoServer
) -> None:
    """Four threads find at the same time that their sample's files are in RAW.tar only."""
    from geo_tree import SERIES, tar_bytes

    many.write(
        f"{SERIES}/suppl/GSE1234_RAW.tar", tar_bytes({f"{gsm}.csv.gz": content for gsm, content in CONTENTS.items()})
    )
    for gsm in CONTENTS:
        many.path(path_of(gsm)).unlink()
    many.series_files["GSE1234_RAW.tar"] = many.path(f"{SERIES}/suppl/GSE1234_RAW.tar").read_bytes()
    many.write_filelist()
    manifest = acquire()
    assert server.requested().count("GSE1234_RAW.tar") == 1
    assert sum(manifest["file"].str.endswith(".csv.gz")) == N_SAMPLES


@pytest.mark.parametrize("parallel", [1, 4, 8])
def test_one_rate_for_all_threads(acquire: Callable[..., pd.DataFrame], server: GeoServer, parallel: int) -> None:
    acquire(transfer=replace(FAST, requests_per_s=20, parallel_downloads=parallel))
    times = [request.at for request in server.requests]
    assert len(times) == 2 + N_SAMPLES
    assert times[-1] - times[0] >= (len(times) - 1) / 20 * 0.95
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) > 0.02  # 0.05 less the jitter


def test_a_429_pauses_every_thread(acquire: Callable[..., pd.DataFrame], server: GeoServer) -> None:
    first = path_of("GSM50002")
    server.fault(first, Fault(status=429, retry_after="1"))
    slow_down(server, rate=2_000_000)
    acquire()
    refused = next(request.at for request in server.requests if request.path == first)
    within = [request.path for request in server.requests if refused + 0.15 < request.at < refused + 0.95]
    assert within == []
    assert sum(request.at > refused + 0.95 for request in server.requests) >= N_SAMPLES - 3


def test_a_503_without_a_wait_pauses_only_its_own_file(acquire: Callable[..., pd.DataFrame], server: GeoServer) -> None:
    server.fault(path_of("GSM50001"), Fault(status=503), Fault(status=503))
    acquire(transfer=replace(FAST, backoff_s=0.5))
    times = {request.path: request.at for request in server.requests}
    assert max(times[path_of(gsm)] for gsm in list(CONTENTS)[1:]) < times[path_of("GSM50001")] - 0.5


def test_the_first_error_calls_the_others_off_and_a_later_run_resumes(
    acquire: Callable[..., pd.DataFrame], server: GeoServer, tmp_path: Path
) -> None:
    slow_down(server, rate=60_000)  # two seconds each
    server.forget()
    for gsm in ("GSM50001", "GSM50002", "GSM50004"):
        server.fault(path_of(gsm), Fault(rate=60_000))
    server.fault(path_of("GSM50003"), Fault(stall_s=0.3, drop_after=1000), Fault(status=451))
    begun = time.monotonic()
    with pytest.raises(UserError, match=r"^samples\.tsv row 4, column source: cannot fetch .*GSM50003.*status 451"):
        acquire()
    assert time.monotonic() - begun < 1.6
    files = tmp_path / "out" / "files"
    parts = {path.parent.name: path.stat().st_size for path in files.glob("GSM*/.*.part")}
    assert set(parts) == {"GSM50001", "GSM50002", "GSM50003", "GSM50004"}
    assert all(0 < size < len(CONTENTS[gsm]) for gsm, size in parts.items())
    assert not list(files.glob("GSM*/*.csv.gz"))
    assert len(set(csv_requests(server))) == 4  # no further file was begun
    server.forget()
    acquire()
    ranges = {Path(request.path).parts[-3]: request.range for request in server.requests if "GSM" in request.path}
    assert all(ranges[gsm] == (f"bytes={parts[gsm]}-" if gsm in parts else None) for gsm in CONTENTS)
    for gsm, content in CONTENTS.items():
        assert (files / gsm / f"{gsm}.csv.gz").read_bytes() == content
    assert not list(files.rglob("*.part*"))


def test_ctrl_c_stops_a_stalled_download_and_a_later_run_resumes(
    acquire: Callable[..., pd.DataFrame], many: Tree, server: GeoServer, tmp_path: Path
) -> None:
    for gsm in CONTENTS:
        server.fault(path_of(gsm), Fault(rate=20_000))
    program = (
        "import sys, pandas as pd; from pathlib import Path\n"
        "from immunomod.acquire.dataset import AcquireSettings, acquire_samples\n"
        f"rows = pd.DataFrame({ROWS!r})\n"
        f"acquire_samples('GSE1234', rows, {server.base_url!r}, Path({str(tmp_path / 'out')!r}), Path('.'))\n"
    )
    workflow = str(Path(__file__).resolve().parents[2] / "workflow")
    child = subprocess.Popen(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": workflow}, stderr=subprocess.PIPE
    )
    files = tmp_path / "out" / "files"
    deadline = time.monotonic() + 20
    while sum(path.stat().st_size > 0 for path in files.glob("GSM*/.*.part")) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    begun = time.monotonic()
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=10)
    assert time.monotonic() - begun < 3
    assert child.returncode != 0 and said.rstrip().endswith(b"KeyboardInterrupt")
    assert not list(files.glob("GSM*/*.csv.gz"))
    server.forget()
    acquire()
    assert sum(request.range is not None for request in server.requests) >= 3
    assert all((files / gsm / f"{gsm}.csv.gz").read_bytes() == content for gsm, content in CONTENTS.items())


def test_progress_is_said_for_files_and_bytes(
    acquire: Callable[..., pd.DataFrame],
    server: GeoServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("immunomod.acquire.progress.EVERY_S", 0.1)
    slow_down(server)
    acquire()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2
    assert all(line.startswith("GSE1234: ") and " of 8 files, " in line for line in lines)
    whole = sum(map(len, CONTENTS.values())) / 1e6
    assert lines[-1] == f"GSE1234: 8 of 8 files, {whole:.1f} of {whole:.1f} MB"
    acquire()
    assert capsys.readouterr().err.splitlines() == lines[-1:]  # nothing to fetch: the last line alone
