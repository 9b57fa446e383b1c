"""The faults that a server was seen to have, each through the whole acquisition, alone and all at once.

While it runs, whatever appears under a final name must be whole at once; afterwards nothing but the files and their
receipts may be there.
"""

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from geo_server import Fault, GeoServer
from geo_tree import FAST, SAMPLES, SERIES, Tree, acquired_files, noise, tar_bytes

from immunomod.acquire.archive import UnpackLimits
from immunomod.acquire.dataset import AcquireSettings
from immunomod.errors import UserError

Sheet = Callable[..., pd.DataFrame]
SETTINGS = AcquireSettings(FAST, UnpackLimits(members=1000, bytes=10**7))
PAGE = "<!DOCTYPE html><html><body>Are you human?</body></html>"

#: What goes wrong with a file, one answer after the other; then it is served as it is.
RECOVERABLE: dict[str, list[Fault]] = {
    "dropped connection": [Fault(drop_after=30_000), Fault(drop_after=30_000)],
    "reset connection": [Fault(drop_after=50_000, reset=True)],
    "503 with Retry-After": [Fault(status=503, retry_after="1")],
    "429": [Fault(status=429), Fault(status=429, retry_after="1")],
    "transient 403": [Fault(status=403), Fault(status=403)],
    "transient 404": [Fault(status=404), Fault(status=404)],
    "stall before the body": [Fault(stall_s=1.0)],
    "slow server": [Fault(rate=150_000)],
    "truncated with an honest length": [Fault(truncate_to=40_000)],
    "corrupt bytes in a gzip": [Fault(corrupt_at=50_000)],
    "changed while resuming": [Fault(drop_after=40_000, etag="old"), Fault(etag="new")],
    "changed while resuming, If-Range ignored": [
        Fault(drop_after=40_000, etag="old"),
        Fault(etag="new", ignore_if_range=True),
    ],
    "no ranges": [Fault(drop_after=40_000), Fault(ignore_range=True)],
    "captcha page as 200": [Fault(page=PAGE)],
    "captcha page as gzip": [Fault(page=PAGE, content_type="application/x-gzip")],
    "redirect": [Fault(redirect="/elsewhere/GSM50001.csv.gz")],
}
CONTENT = {name: gzip.compress(noise(number + 1, 100_000), mtime=0) for number, name in enumerate(RECOVERABLE)}


@pytest.fixture
def faulty(tree: Tree, server: GeoServer) -> dict[str, str]:
    """A sample for each fault: its accession by the fault's name."""
    samples = {name: f"GSM{50001 + number}" for number, name in enumerate(RECOVERABLE)}
    tree.offer({gsm: {f"{gsm}.csv.gz": CONTENT[name]} for name, gsm in samples.items()})
    for name, gsm in samples.items():
        path = f"{SAMPLES}/{gsm}/suppl/{gsm}.csv.gz"
        faults = [
            Fault(redirect=f"/elsewhere/{gsm}.csv.gz") if fault.redirect else fault for fault in RECOVERABLE[name]
        ]
        server.fault(path, *faults)
        tree.write(f"/elsewhere/{gsm}.csv.gz", CONTENT[name])
    return samples


@contextmanager
def watched(folder: Path, whole: dict[str, bytes]) -> Iterator[list[str]]:
    """Look at every final name again and again; the list holds those that were seen with anything but the whole."""
    bad: list[str] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            for path in folder.rglob("*.csv.gz"):
                if not path.name.startswith(".") and path.read_bytes() != whole[path.name]:
                    bad.append(path.name)
            time.sleep(0.005)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield bad
    finally:
        ended.set()
        thread.join()


def assert_acquired(
    samples: dict[str, str], server: GeoServer, sheet: Callable[..., pd.DataFrame], folder: Path
) -> None:
    rows = [{"sample": gsm, "source": gsm} for gsm in samples.values()]
    whole = {f"{gsm}.csv.gz": CONTENT[name] for name, gsm in samples.items()}
    with watched(folder, whole) as bad:
        manifest = acquired_files("GSE1234", sheet(*rows), server.base_url, folder, folder, SETTINGS)
    assert bad == []
    assert {Path(path).name: Path(path).read_bytes() for path in manifest["path"]} == whole
    for gsm in samples.values():
        left = sorted(path.name for path in (folder / "files" / gsm).iterdir())
        assert left == [f".{gsm}.csv.gz.receipt.json", f"{gsm}.csv.gz"]


@pytest.mark.parametrize("name", RECOVERABLE)
def test_a_fault_is_recovered(
    name: str, faulty: dict[str, str], server: GeoServer, sheet: Sheet, tmp_path: Path
) -> None:
    assert_acquired({name: faulty[name]}, server, sheet, tmp_path / "out")
    path = f"{SAMPLES}/{faulty[name]}/suppl/{faulty[name]}.csv.gz"
    asked = sum(request.path == path for request in server.requests)
    answered = ("slow server", "redirect", "no ranges", "changed while resuming")  # the last fault brings the file
    assert asked == len(RECOVERABLE[name]) + (name not in answered)


def test_all_faults_at_once_are_recovered(
    faulty: dict[str, str], server: GeoServer, sheet: Sheet, tmp_path: Path
) -> None:
    assert_acquired(faulty, server, sheet, tmp_path / "out")


#: What cannot be recovered: the message, and how many times it was tried.
LASTING = {
    "gone": ([Fault(status=410)] * 9, "there is no such file", 2 + 4),
    "refused": ([Fault(status=451)] * 9, "status 451", 1),
    "damaged at its source": ([Fault(corrupt_at=50_000)] * 9, "damaged, twice in a row: not a whole gzip file", 2),
    "always cut short": ([Fault(truncate_to=40_000)] * 9, r"40000 bytes where the listing says \d+", 4),
    "always a captcha": ([Fault(page=PAGE)] * 9, "an HTML page", 3),
    "always busy": ([Fault(status=503)] * 9, "status 503", 4),
    "always silent": ([Fault(stall_s=0.6)] * 9, "the connection broke", 4),
    "redirected in a circle": ([Fault(redirect=f"{SAMPLES}/GSM50001/suppl/GSM50001.csv.gz")] * 40, "redirect", None),
}


@pytest.mark.parametrize("name", LASTING)
def test_a_fault_that_lasts_is_a_message_and_leaves_nothing_bad(
    name: str, faulty: dict[str, str], server: GeoServer, sheet: Sheet, tmp_path: Path
) -> None:
    faults, problem, tries = LASTING[name]
    server.forget()
    path = f"{SAMPLES}/GSM50001/suppl/GSM50001.csv.gz"
    server.fault(path, *faults)
    rows = sheet({"sample": "good", "source": "GSM50002"}, {"sample": "bad", "source": "GSM50001"})
    with pytest.raises(UserError, match=rf"^samples\.tsv row 3, column source: .*GSM50001.*{problem}"):
        acquired_files("GSE1234", rows, server.base_url, tmp_path / "out", tmp_path, SETTINGS)
    if tries is not None:
        assert sum(request.path == path for request in server.requests) == tries
    folder = tmp_path / "out" / "files" / "GSM50001"
    assert not (folder / "GSM50001.csv.gz").exists()
    left = {path.name for path in folder.iterdir()} if folder.exists() else set()
    assert left <= {".GSM50001.csv.gz.part", ".GSM50001.csv.gz.part.json"}


@pytest.mark.parametrize(
    ("harm", "tries"),
    [(lambda tar: tar[: len(tar) // 2], 2), (lambda tar: tar[:512] + b"harmed!!" * 64 + tar[1024:], 2)],
    ids=["cut", "corrupt"],
)
def test_a_tar_that_stays_damaged_is_tried_twice_and_not_kept(
    harm: Callable[[bytes], bytes], tries: int, tree: Tree, server: GeoServer, sheet: Sheet, tmp_path: Path
) -> None:
    """A plain tar has no checksum over its content: cut or with a damaged header it is seen, and fetched once more."""
    tar = tar_bytes({f"{n}/matrix.mtx.gz": gzip.compress(noise(n, 2000)) for n in (1, 2, 3)})
    tree.offer({"GSM50001": {"GSM50001_all.tar": harm(tar)}})
    rows = sheet({"sample": "s", "source": "GSM50001"})
    with pytest.raises(UserError, match=r"row 2, column source: GSM50001_all\.tar .*twice in a row: run again later"):
        acquired_files("GSE1234", rows, server.base_url, tmp_path / "out", tmp_path, SETTINGS)
    assert server.requested().count("GSM50001_all.tar") == tries
    assert list((tmp_path / "out" / "files" / "GSM50001").rglob("*.*")) == []
    tree.write(f"{SAMPLES}/GSM50001/suppl/GSM50001_all.tar", tar)
    tree.path(f"{SERIES}/suppl/filelist.txt").unlink()
    server.forget()
    manifest = acquired_files("GSE1234", rows, server.base_url, tmp_path / "again", tmp_path, SETTINGS)
    assert len(manifest) == 3


def test_corruption_where_nothing_tells_is_the_one_that_passes(
    tree: Tree, server: GeoServer, sheet: Sheet, tmp_path: Path
) -> None:
    """A plain file has no checksum, and GEO publishes none: a flipped byte of the right length cannot be seen."""
    tree.offer({"GSM50001": {"GSM50001.csv": b"gene,cell\nCD4,1\n"}})
    server.fault(f"{SAMPLES}/GSM50001/suppl/GSM50001.csv", Fault(corrupt_at=12))
    rows = sheet({"sample": "s", "source": "GSM50001"})
    manifest = acquired_files("GSE1234", rows, server.base_url, tmp_path / "out", tmp_path, SETTINGS)
    assert Path(manifest["path"].item()).read_bytes() != b"gene,cell\nCD4,1\n"


def test_the_shared_fault_server_is_survived_too(shared: Path, tmp_path: Path, sheet: Sheet) -> None:
    """Another hand's server, with the faults that ours has not: the same series, byte for byte."""
    import importlib.util
    import json
    import urllib.request

    spec = importlib.util.spec_from_file_location("shared_geo_mirror", shared / "tools" / "geo_mirror.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root = shared / "geo_mirror"
    running = module.serve(str(root))
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{running.server_address[1]}"
    try:
        gsm = "/geo/samples/GSM2560nnn/GSM2560248/suppl"
        faults = {
            f"{gsm}/GSM2560248_2.1.mtx.gz": [
                *({"drop_after": 100_000}, {"drop_after": 100_000, "rst": True}, {"status": 503, "retry_after": 1}),
                *({"truncate_to": 500}, {"corrupt_at": 70_000}, {"no_range": True, "rate": 3_000_000}),
            ],
            f"{gsm}/GSM2560248_barcodes.tsv.gz": [{"status": 429}, {"stall": 1}, {"etag": "other"}],
            "/geo/series/GSE96nnn/GSE96583/soft/GSE96583_family.soft.gz": [{"status": 403}, {"corrupt_at": 30}],
        }
        order = urllib.request.Request(f"{address}/__faults__", json.dumps(faults).encode(), method="PUT")
        urllib.request.urlopen(order).close()
        rows = sheet({"sample": "ctrl", "source": "GSM2560248"})
        manifest = acquired_files("GSE96583", rows, f"{address}/geo", tmp_path / "out", tmp_path, SETTINGS)
    finally:
        running.shutdown()
        running.server_close()
        thread.join()
    originals = {path.name: path.read_bytes() for path in root.rglob("*.gz")}
    assert len(manifest) == 3
    assert all(Path(row.path).read_bytes() == originals[row.file] for row in manifest.itertuples())
    assert not list((tmp_path / "out").rglob("*.part*"))
