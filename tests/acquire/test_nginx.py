"""Downloads from a real nginx: resuming over a restart, its own 429s, slow transfers, its folder index, https."""

import gzip
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from geo_server import GeoServer
from geo_tree import FAST, SERIES, Tree, acquired_files, noise
from nginx_server import NginxServer, find_nginx

from immunomod.acquire.archive import UnpackLimits
from immunomod.acquire.dataset import AcquireSettings
from immunomod.acquire.download import Client, NotFoundError, Remote, TransferSettings
from immunomod.errors import UserError

pytestmark = pytest.mark.skipif(find_nginx() is None, reason="needs nginx (Debian's package nginx-light)")

Sheet = Callable[..., pd.DataFrame]
PATIENT = replace(FAST, backoff_s=0.2, timeout_s=5.0, attempts=8)
LIMITS = UnpackLimits(members=1000, bytes=10**8)
CONTENTS = {f"GSM{50001 + n}": gzip.compress(noise(n + 1, 300_000), mtime=0) for n in range(6)}


@pytest.fixture
def many(tree: Tree) -> Tree:
    tree.offer({gsm: {f"{gsm}.csv.gz": content} for gsm, content in CONTENTS.items()})
    return tree


def acquire(server: NginxServer, sheet: Sheet, folder: Path, transfer: TransferSettings = PATIENT) -> pd.DataFrame:
    rows = sheet(*[{"sample": gsm, "source": gsm} for gsm in CONTENTS])
    return acquired_files("GSE1234", rows, server.base_url, folder, folder, AcquireSettings(transfer, LIMITS))


def assert_whole(folder: Path) -> None:
    found = {path.name: path.read_bytes() for path in (folder / "files").glob("GSM*/*.csv.gz")}
    assert found == {f"{gsm}.csv.gz": content for gsm, content in CONTENTS.items()}
    assert not list(folder.rglob("*.part*"))


def test_a_transfer_goes_on_where_it_was_when_the_server_was_killed(many: Tree, tmp_path: Path) -> None:
    content = noise(9, 3_000_000)
    many.write(f"{SERIES}/suppl/big.mtx", content)
    with NginxServer(many.root, tmp_path / "nginx", server="limit_rate 1500k;") as server:
        remote, target = Remote(f"{server.base_url}{SERIES[4:]}/suppl/big.mtx"), tmp_path / "out" / "big.mtx"
        fetching = threading.Thread(target=lambda: Client(PATIENT).fetch(remote, target))
        fetching.start()
        part = target.with_name(".big.mtx.part")
        while not part.exists() or part.stat().st_size < 1_000_000:
            time.sleep(0.01)
        server.kill()
        time.sleep(0.1)
        assert not target.exists()
        arrived = part.stat().st_size
        server.start()
        fetching.join(20)
        assert target.read_bytes() == content
        status, count, _ = next(answer for answer in reversed(server.answers()) if answer[2].endswith("big.mtx"))
    assert (status, count) == (206, len(content) - arrived)
    assert sorted(path.name for path in target.parent.iterdir()) == [".big.mtx.receipt.json", "big.mtx"]


def test_the_servers_own_429s_are_survived(many: Tree, tmp_path: Path, sheet: Sheet) -> None:
    limits = "limit_req_zone $binary_remote_addr zone=all:1m rate=10r/s;"
    refuse = "limit_req zone=all burst=1 nodelay; limit_req_status 429;"
    with NginxServer(many.root, tmp_path / "nginx", http=limits, server=refuse) as server:
        acquire(server, sheet, tmp_path / "out", replace(PATIENT, parallel_downloads=6))
        statuses = [status for status, _, _ in server.answers()]
    assert 429 in statuses  # or the test proves nothing
    assert statuses.count(200) == 2 + len(CONTENTS)
    assert_whole(tmp_path / "out")


def test_within_the_rate_the_server_never_refuses(many: Tree, tmp_path: Path, sheet: Sheet) -> None:
    limits = "limit_req_zone $binary_remote_addr zone=all:1m rate=20r/s;"
    refuse = "limit_req zone=all burst=1 nodelay; limit_req_status 429;"
    with NginxServer(many.root, tmp_path / "nginx", http=limits, server=refuse) as server:
        acquire(server, sheet, tmp_path / "out", replace(PATIENT, parallel_downloads=6, requests_per_s=15))
        assert {status for status, _, _ in server.answers()} == {200}
    assert_whole(tmp_path / "out")


def test_slow_transfers_run_side_by_side(many: Tree, tmp_path: Path, sheet: Sheet) -> None:
    """nginx limits the rate of each connection: six of half a second each take half a second together."""
    seconds: dict[int, float] = {}
    with NginxServer(many.root, tmp_path / "nginx", server="limit_rate 600k;") as server:
        for parallel in (1, 6):
            begun = time.monotonic()
            acquire(server, sheet, tmp_path / str(parallel), replace(PATIENT, parallel_downloads=parallel))
            seconds[parallel] = time.monotonic() - begun
            assert_whole(tmp_path / str(parallel))
    assert seconds[6] < seconds[1] / 3


def test_its_index_and_ours_say_the_same(many: Tree, tmp_path: Path, server: GeoServer) -> None:
    many.write(f"{SERIES}/suppl/odd name%5F&+#.txt", b"x")
    many.path(f"{SERIES}/suppl/folder").mkdir()
    with NginxServer(many.root, tmp_path / "nginx") as nginx:
        client = Client(FAST)
        listed = client.list_folder(f"{nginx.base_url}{SERIES[4:]}/suppl")
        assert sorted(listed) == sorted(client.list_folder(f"{server.base_url}{SERIES[4:]}/suppl"))
        assert "odd name%5F&+#.txt" in listed and "folder" not in listed
        with pytest.raises(NotFoundError):
            client.list_folder(f"{nginx.base_url}/no")


def test_a_series_known_by_its_index_alone(many: Tree, tmp_path: Path, sheet: Sheet) -> None:
    many.path(f"{SERIES}/suppl/filelist.txt").unlink()
    many.path(f"{SERIES}/soft/GSE1234_family.soft.gz").unlink()
    with NginxServer(many.root, tmp_path / "nginx") as server:
        acquire(server, sheet, tmp_path / "out")
    assert_whole(tmp_path / "out")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_https_and_a_certificate_that_is_not_trusted(
    many: Tree, tmp_path: Path, sheet: Sheet, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    with NginxServer(many.root, tmp_path / "nginx", certificate=(certificate, key)) as server:
        with pytest.raises(UserError, match="certificate verify failed"):
            acquire(server, sheet, tmp_path / "refused", FAST)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        acquire(server, sheet, tmp_path / "out")
    assert_whole(tmp_path / "out")
    assert not list((tmp_path / "refused").rglob("*.gz"))
