"""Every fault that a server was seen to have, and what must be on disk afterwards."""

import gzip
import itertools
import time
from email.utils import formatdate
from pathlib import Path

import pytest
from geo_server import Fault, GeoServer
from geo_tree import FAST, SERIES, Tree, noise

from immunomod.acquire.answers import index_names, retry_after_s
from immunomod.acquire.checks import inspect_file, looks_like_html
from immunomod.acquire.download import Client, NotFoundError, Remote, TransferSettings
from immunomod.acquire.parts import read_receipt
from immunomod.errors import UserError
from immunomod.files import sha256

PATH = f"{SERIES}/suppl/GSE1234_big.gz"
CONTENT = gzip.compress(noise(7, 200_000), mtime=0)


@pytest.fixture
def big(tree: Tree, server: GeoServer) -> Remote:
    tree.write(PATH, CONTENT)
    return Remote(server.root_url + PATH, len(CONTENT), listed=True)


def assert_whole(target: Path, remote: Remote, client: Client) -> None:
    receipt = client.fetch(remote, target)
    assert target.read_bytes() == CONTENT
    assert (receipt.bytes, receipt.sha256, receipt.url) == (len(CONTENT), sha256(target), remote.url)
    assert read_receipt(target) == receipt
    assert sorted(path.name for path in target.parent.iterdir()) == [f".{target.name}.receipt.json", target.name]


@pytest.mark.parametrize(
    ("fault", "resumed_at"),
    [
        (Fault(), None),
        (Fault(status=500), None),
        (Fault(status=503), None),
        (Fault(status=429), None),
        (Fault(status=403), None),
        (Fault(status=404), None),
        (Fault(drop_after=0), None),
        (Fault(drop_after=100_000), 100_000),
        (Fault(drop_after=100_000, reset=True), 100_000),
        (Fault(truncate_to=5_000), None),
        (Fault(corrupt_at=150_000), None),
        (Fault(corrupt_at=0), None),
        (Fault(stall_s=1.0), None),
        (Fault(page="<!DOCTYPE html><html>captcha</html>"), None),
        (Fault(page=" \n<HTML>captcha</HTML>", content_type="application/x-gzip"), None),
    ],
    ids=repr,
)
def test_a_fault_is_survived_and_the_file_is_whole(
    server: GeoServer, big: Remote, client: Client, tmp_path: Path, fault: Fault, resumed_at: int | None
) -> None:
    server.fault(PATH, fault)
    assert_whole(tmp_path / "out" / "big.gz", big, client)
    assert len(server.requests) == (1 if fault == Fault() else 2)
    last = server.requests[-1].range
    assert (server.requests[-1].if_range is None) == (resumed_at is None)
    if resumed_at is None:
        assert last is None
    elif fault.reset:  # a reset may overtake the last bytes
        assert last is not None and 0 < int(last[6:-1]) <= resumed_at
    else:
        assert last == f"bytes={resumed_at}-"


def test_a_row_of_faults_is_survived_as_long_as_bytes_arrive(
    server: GeoServer, big: Remote, client: Client, tmp_path: Path
) -> None:
    server.fault(PATH, *[Fault(drop_after=2000)] * 20)  # more faults than attempts, each with progress
    assert_whole(tmp_path / "out" / "big.gz", big, client)
    assert len(server.requests) == 21


def test_gives_up_after_the_attempts_and_a_later_run_resumes(
    server: GeoServer, big: Remote, client: Client, tmp_path: Path
) -> None:
    target = tmp_path / "out" / "big.gz"
    server.fault(PATH, Fault(drop_after=90_000), *[Fault(status=503)] * FAST.attempts)
    with pytest.raises(UserError, match=r"tried 4 times: it answered with status 503") as caught:
        client.fetch(big, target)
    assert big.url in str(caught.value)
    assert not target.exists()
    server.forget()
    assert_whole(target, big, Client(FAST))
    assert [request.range for request in server.requests] == ["bytes=90000-"]


def test_a_file_that_changed_while_resuming_starts_again(
    tree: Tree, server: GeoServer, client: Client, tmp_path: Path
) -> None:
    """Old and new bytes must not be joined, whether or not the server honours If-Range; no size is known here."""
    for fault in (Fault(etag="new"), Fault(etag="new", ignore_if_range=True)):
        old, new = noise(1, 50_000), noise(2, 50_000)
        file = tree.write(f"{SERIES}/suppl/plain.mtx", old)
        remote, target = Remote(f"{server.base_url}{SERIES[4:]}/suppl/plain.mtx"), tmp_path / "plain.mtx"
        server.fault(f"{SERIES}/suppl/plain.mtx", Fault(drop_after=20_000), *[Fault(status=500)] * 4)
        with pytest.raises(UserError):
            client.fetch(remote, target)
        file.write_bytes(new)
        server.forget()
        server.fault(f"{SERIES}/suppl/plain.mtx", fault)
        client.fetch(remote, target)
        assert target.read_bytes() == new
        assert server.requests[0].range == "bytes=20000-"
        target.unlink()


def test_a_server_without_ranges_sends_the_whole_again(
    server: GeoServer, big: Remote, client: Client, tmp_path: Path
) -> None:
    server.fault(PATH, Fault(drop_after=90_000), Fault(ignore_range=True))
    assert_whole(tmp_path / "out" / "big.gz", big, client)


def test_a_part_longer_than_the_file_is_thrown_away(
    tree: Tree, server: GeoServer, client: Client, tmp_path: Path
) -> None:
    file = tree.write(f"{SERIES}/suppl/plain.mtx", noise(1, 50_000))
    remote = Remote(f"{server.base_url}{SERIES[4:]}/suppl/plain.mtx")
    same = [Fault(drop_after=40_000, etag="same"), *[Fault(status=500)] * 4, Fault(etag="same")]
    server.fault(f"{SERIES}/suppl/plain.mtx", *same)
    with pytest.raises(UserError):
        client.fetch(remote, tmp_path / "plain.mtx")
    file.write_bytes(b"short now")
    client.fetch(remote, tmp_path / "plain.mtx")
    assert (tmp_path / "plain.mtx").read_bytes() == b"short now"
    assert [request.range for request in server.requests[-2:]] == ["bytes=40000-", None]


def test_retry_after_is_waited_for(server: GeoServer, big: Remote, client: Client, tmp_path: Path) -> None:
    server.fault(PATH, Fault(status=503, retry_after="1"))
    assert_whole(tmp_path / "out" / "big.gz", big, client)
    first, second = server.requests
    assert second.at - first.at >= 1.0


def test_retry_after_reads_seconds_and_dates() -> None:
    assert retry_after_s("120") == 120.0
    assert retry_after_s(formatdate(time.time() + 60, usegmt=True)) == pytest.approx(60, abs=2)
    assert retry_after_s(formatdate(time.time() - 60, usegmt=True)) == 0.0
    assert retry_after_s("soon") is None
    assert retry_after_s(None) is None


def test_a_file_damaged_at_its_source_is_named(tree: Tree, server: GeoServer, client: Client, tmp_path: Path) -> None:
    tree.write(PATH, CONTENT[:100_000])
    target = tmp_path / "big.gz"
    with pytest.raises(UserError, match=r"big\.gz.*damaged, twice in a row: it ends too early"):
        client.fetch(Remote(server.root_url + PATH), target)
    assert list(tmp_path.glob("*.gz")) == [] and list(tmp_path.glob(".big*")) == []
    assert len(server.requests) == 2


def test_a_size_that_never_fits_the_listing_is_refused(
    server: GeoServer, big: Remote, client: Client, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"{len(CONTENT)} bytes where the listing says 17"):
        client.fetch(Remote(big.url, 17), tmp_path / "big.gz")
    assert not (tmp_path / "big.gz").exists()


def test_html_that_stays_is_refused(server: GeoServer, big: Remote, client: Client, tmp_path: Path) -> None:
    server.fault(PATH, *[Fault(page="<html>are you human?</html>")] * 9)
    with pytest.raises(UserError, match="HTML page"):
        client.fetch(big, tmp_path / "big.gz")
    assert not (tmp_path / "big.gz").exists()
    assert len(server.requests) == 3


def test_a_page_is_refused_by_its_content_type_too(
    tree: Tree, server: GeoServer, client: Client, tmp_path: Path
) -> None:
    tree.write("/geo/notes.txt", b"notes")
    server.fault("/geo/notes.txt", Fault(page="please wait", content_type="text/html; charset=utf-8"))
    client.fetch(Remote(f"{server.base_url}/notes.txt"), tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_bytes() == b"notes"


def test_a_captcha_behind_a_redirect_is_refused(
    tree: Tree, server: GeoServer, big: Remote, client: Client, tmp_path: Path
) -> None:
    tree.write("/captcha.gz", b"<html>are you human?</html>")
    server.fault(PATH, *[Fault(redirect="/captcha.gz")] * 9)
    with pytest.raises(UserError, match="HTML page"):
        client.fetch(big, tmp_path / "big.gz")


def test_a_missing_file_is_believed_the_second_time(server: GeoServer, client: Client, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        client.fetch(Remote(f"{server.base_url}/nothing.gz"), tmp_path / "nothing.gz")
    assert len(server.requests) == 2
    server.forget()
    with pytest.raises(NotFoundError):
        client.fetch(Remote(f"{server.base_url}/nothing.gz", listed=True), tmp_path / "nothing.gz")
    assert len(server.requests) == FAST.attempts
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []


def test_no_server_and_no_address_are_clear(client: Client, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9/x.*no connection"):
        client.fetch(Remote("http://127.0.0.1:9/x"), tmp_path / "x")
    with pytest.raises(UserError, match="only https, http and file"):
        client.fetch(Remote("ftp://host/x"), tmp_path / "x")
    with pytest.raises(UserError, match="three slashes"):
        client.fetch(Remote("file://host/x"), tmp_path / "x")


def test_nothing_is_fetched_twice(server: GeoServer, big: Remote, client: Client, tmp_path: Path) -> None:
    target = tmp_path / "big.gz"
    first = client.fetch(big, target)
    server.forget()
    assert Client(FAST).fetch(big, target) == first
    assert server.requests == []


@pytest.mark.parametrize("harm", ["flip", "cut", "other address", "no receipt"])
def test_a_file_that_is_not_the_one_fetched_is_fetched_again(
    tree: Tree, server: GeoServer, big: Remote, client: Client, tmp_path: Path, harm: str
) -> None:
    target = tmp_path / "big.gz"
    client.fetch(big, target)
    remote = big
    if harm == "flip":
        target.write_bytes(CONTENT[:-1] + b"x")
    elif harm == "cut":
        target.write_bytes(CONTENT[:-1])
    elif harm == "other address":
        tree.write("/geo/copy.gz", CONTENT)
        remote = Remote(f"{server.base_url}/copy.gz")
    else:
        (tmp_path / ".big.gz.receipt.json").write_text("{}")
    server.forget()
    client.fetch(remote, target)
    assert target.read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_file_tree_and_http_give_the_same(tree: Tree, big: Remote, client: Client, tmp_path: Path) -> None:
    local = Remote(tree.path(PATH).as_uri(), len(CONTENT))
    receipts = [client.fetch(remote, tmp_path / str(i) / "big.gz") for i, remote in enumerate((big, local))]
    assert receipts[0].sha256 == receipts[1].sha256
    assert (tmp_path / "0" / "big.gz").read_bytes() == (tmp_path / "1" / "big.gz").read_bytes()


def test_a_file_tree_is_checked_as_a_server_is(tree: Tree, client: Client, tmp_path: Path) -> None:
    file, target = tree.write(PATH, CONTENT), tmp_path / "big.gz"
    with pytest.raises(NotFoundError):
        client.fetch(Remote(file.with_name("no.gz").as_uri()), target)
    with pytest.raises(UserError, match="listing says 17"):
        client.fetch(Remote(file.as_uri(), 17), target)
    client.fetch(Remote(file.as_uri()), target)
    file.write_bytes(CONTENT[:-4])
    with pytest.raises(UserError, match="ends too early"):  # the source changed, so it is read again
        client.fetch(Remote(file.as_uri()), target)
    file.write_bytes(b"<html>no</html>")
    with pytest.raises(UserError, match="HTML page"):
        client.fetch(Remote(file.as_uri()), target)
    assert target.read_bytes() == CONTENT  # what was whole stays


def test_two_processes_never_share_a_part(server: GeoServer, big: Remote, tmp_path: Path) -> None:
    """While another process holds the part, a private one is used and the other's bytes are left alone."""
    import fcntl

    shared = tmp_path / ".big.gz.part"
    shared.write_bytes(b"the orphan's bytes")
    with shared.open("ab+") as orphan:
        fcntl.flock(orphan, fcntl.LOCK_EX)
        Client(FAST).fetch(big, tmp_path / "big.gz")
        assert shared.read_bytes() == b"the orphan's bytes"
    assert (tmp_path / "big.gz").read_bytes() == CONTENT
    assert sorted(path.name for path in tmp_path.glob("*big.gz*")) == [
        ".big.gz.part",
        ".big.gz.receipt.json",
        "big.gz",
    ]


def test_private_parts_of_killed_processes_are_cleared(server: GeoServer, big: Remote, tmp_path: Path) -> None:
    import fcntl

    dead, living = (tmp_path / f".{number:032x}.big.gz.part" for number in (1, 2))
    for path in (dead, living):
        path.write_bytes(b"half")
        path.with_name(f"{path.name}.json").write_text("{}")
    with living.open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        Client(FAST).fetch(big, tmp_path / "big.gz")
    left = {path.name for path in tmp_path.glob(".*part*")}
    assert left == {living.name, f"{living.name}.json"}


def test_a_folder_that_cannot_be_written_is_a_message(server: GeoServer, big: Remote, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"a file where the folder should be")
    with pytest.raises(UserError, match=r"cannot write .*big\.gz\.part: .*permissions"):
        Client(FAST).fetch(big, tmp_path / "out" / "big.gz")


def test_a_folder_is_listed_alike_from_tree_and_server(tree: Tree, server: GeoServer, client: Client) -> None:
    tree.write(f"{SERIES}/suppl/odd name%5F&.txt", b"x")
    tree.path(f"{SERIES}/suppl/folder").mkdir()
    over_http = client.list_folder(f"{server.base_url}{SERIES[4:]}/suppl")
    from_tree = client.list_folder(tree.path(f"{SERIES}/suppl").as_uri())
    assert over_http == from_tree
    assert "odd name%5F&.txt" in over_http and "filelist.txt" in over_http and "folder" not in over_http
    for url in (f"{server.base_url}/no", tree.path("/geo/no").as_uri()):
        with pytest.raises(NotFoundError):
            client.list_folder(url)


def test_index_names_stay_in_the_folder() -> None:
    page = '<a href="?C=N">s</a><a href="/geo/">up</a><a href="../x">u</a><a href="http://h/y">e</a><a name="n">n</a>'
    assert index_names(page + '<a href="a%2Fb.gz">1</a><a href="c.gz">2</a><a href="c.gz">2</a><a href="d/">3</a>') == [
        "a/b.gz",
        "c.gz",
    ]


@pytest.mark.parametrize(
    ("content", "damage"),
    [
        (CONTENT, ""),
        (CONTENT + gzip.compress(b"second member", mtime=0), ""),
        (CONTENT + b"\0" * 1000, ""),
        (gzip.compress(b"\0" * 50_000_000, mtime=0), ""),
        (gzip.compress(b"", mtime=0), ""),
        (CONTENT[:-1], "ends too early"),
        (CONTENT[:-9], "ends too early"),
        (CONTENT + CONTENT[:500], "ends too early"),
        (b"", "ends too early"),
        (CONTENT[:-8] + b"\0\0\0\0" + CONTENT[-4:], "not a whole gzip file"),
        (CONTENT + b"trailing", "not a whole gzip file"),
        (b"plain text", "not a whole gzip file"),
    ],
)
def test_gzip_damage_is_seen(tmp_path: Path, content: bytes, damage: str) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(content)
    inspection = inspect_file(path)
    assert inspection.damage.startswith(damage) if not damage else damage in inspection.damage
    assert (inspection.damage == "") == (damage == "")
    assert (inspection.bytes, inspection.sha256) == (len(content), sha256(path))


def test_html_is_told_from_data() -> None:
    assert looks_like_html(b"\xef\xbb\xbf\n <!doctype HTML>")
    assert looks_like_html(b"<html lang='en'>")
    assert not looks_like_html(b"%%MatrixMarket matrix coordinate")
    assert not looks_like_html(b"\x1f\x8b\x08<html>")


def test_requests_keep_their_distance(server: GeoServer, big: Remote, tmp_path: Path) -> None:
    client = Client(TransferSettings(requests_per_s=20))
    for number in range(4):
        client.fetch(big, tmp_path / str(number))
    times = [request.at for request in server.requests]
    assert all(later - earlier >= 0.04 for earlier, later in itertools.pairwise(times))


def test_settings_are_checked() -> None:
    with pytest.raises(UserError, match="attempts"):
        TransferSettings(attempts=0)
    with pytest.raises(UserError, match="timeout_s"):
        TransferSettings(timeout_s=0)
