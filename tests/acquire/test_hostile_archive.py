"""Archives made to do harm: each is refused in words, and nothing outside the target, nor in it, is touched."""

import contextlib
import gzip
import io
import random
import shutil
import struct
import tarfile
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from geo_tree import noise, tar_bytes, zip_bytes

from immunomod.acquire.archive import DamagedArchiveError, UnpackLimits, unpack
from immunomod.acquire.pace import StoppedError
from immunomod.acquire.tarstream import LARGEST_HEADERS
from immunomod.errors import UserError
from immunomod.files import sha256

LIMITS = UnpackLimits(members=50, bytes=1_000_000)
FILES = {"a/matrix.mtx.gz": gzip.compress(noise(1, 5000)), "a/genes.tsv.gz": gzip.compress(b"g\n"), "b.csv": b"x,y\n"}
END = bytes(2 * tarfile.BLOCKSIZE)
Unpack = Callable[..., dict[str, bytes]]


def snapshot(folder: Path) -> dict[str, tuple[str, bytes]]:
    return {
        str(path.relative_to(folder)): (oct(path.lstat().st_mode), path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def attack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Unpack]:
    """Unpack some bytes; afterwards all that lies around the target is as it was, and so is a target that failed."""
    for name in ("target", "cwd", "victim"):
        (tmp_path / name).mkdir()
    (tmp_path / "victim" / "precious.csv").write_bytes(b"precious")
    (tmp_path / "cwd" / "precious.csv").write_bytes(b"precious")
    monkeypatch.chdir(tmp_path / "cwd")
    archive = tmp_path / "archive"

    def run(
        content: bytes, limits: UnpackLimits = LIMITS, go_on: Callable[[], None] = lambda: None
    ) -> dict[str, bytes]:
        archive.write_bytes(content)
        out = tmp_path / "target" / "out"
        shutil.rmtree(out, ignore_errors=True)
        before = snapshot(tmp_path)
        try:
            members = unpack(archive, out, sha256(archive), limits, go_on)
        finally:
            after = snapshot(tmp_path)
            inside = {name: after.pop(name) for name in list(after) if name.startswith("target/out")}
            assert after == before
        assert inside
        return {member.name: (out / member.name).read_bytes() for member in members}

    yield run
    assert (tmp_path / "victim" / "precious.csv").read_bytes() == b"precious"


def tar_of(*entries: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for entry in entries:
            info, content = entry if isinstance(entry, tuple) else (entry, b"")
            if content:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def info(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    for key, value in fields.items():
        setattr(entry, key, value)
    return entry


def raw_header(name: bytes, size: int, kind: bytes, size_field: bytes | None = None) -> bytes:
    """A header that no library would write."""
    head = bytearray(512)
    head[: len(name)] = name
    head[100:108] = b"0000644\0"
    head[124:136] = size_field if size_field is not None else b"%011o\0" % size
    head[136:148] = b"00000000000\0"
    head[148:156] = b" " * 8
    head[156:157] = kind
    head[257:265] = b"ustar\x0000"
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def pax_record(key: str, value: str) -> bytes:
    body = f" {key}={value}\n".encode()
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length += 1
    return str(length).encode() + body


def pax_member(records: bytes, size: int = 0) -> bytes:
    padded = records + bytes(-len(records) % 512)
    return raw_header(b"pax", len(records), b"x") + padded + raw_header(b"f.csv", size, b"0") + END


def patched(content: bytes, signature: bytes, offset: int, value: bytes) -> bytes:
    """A field of every header with this signature, changed."""
    out, at = bytearray(content), -1
    while (at := content.find(signature, at + 1)) >= 0:
        out[at + offset : at + offset + len(value)] = value
    return bytes(out)


def test_an_honest_archive_passes_here(attack: Unpack) -> None:
    assert attack(tar_bytes(FILES)) == FILES
    assert attack(zip_bytes(FILES)) == FILES


@pytest.mark.parametrize("name", ["../victim/precious.csv", "/{}/victim/precious.csv", "a/../../precious.csv", "../x"])
@pytest.mark.parametrize("pack", [tar_bytes, zip_bytes], ids=["tar", "zip"])
def test_names_that_leave_the_target(attack: Unpack, tmp_path: Path, name: str, pack: Callable[..., bytes]) -> None:
    with pytest.raises(UserError, match="unsafe name"):
        attack(pack({"b.csv": b"x", name.format(str(tmp_path).lstrip("/")): b"overwritten"}))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("link", ["/{}/victim", "../../victim", "b.csv"])
def test_a_link_and_a_file_behind_it(attack: Unpack, tmp_path: Path, kind: bytes, link: str) -> None:
    target = link.format(str(tmp_path).lstrip("/"))
    with pytest.raises(UserError, match="a link or a device"):
        attack(tar_of((info("b.csv"), b"x"), info("d", kind, linkname=target), (info("d/precious.csv"), b"harm")))


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"V", b"Z", tarfile.CONTTYPE])
def test_devices_pipes_and_unknown_kinds(attack: Unpack, kind: bytes) -> None:
    archive = tar_of(info("b.csv", kind))
    if kind == tarfile.CONTTYPE:  # an old name for a plain file
        assert attack(archive) == {"b.csv": b""}
        return
    with pytest.raises(UserError, match="a link or a device"):
        attack(archive)


def test_a_sparse_file_of_a_terabyte(attack: Unpack) -> None:
    records = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "b.csv"}
    records["GNU.sparse.realsize"] = str(10**12)
    entry = info("b.csv")
    entry.pax_headers = records
    with pytest.raises(UserError):
        attack(tar_of((entry, b"1\n0\n1\n".ljust(512, b"\0") + b"x")))
    old = raw_header(b"b.csv", 512, b"S") + bytes(512) + END
    with pytest.raises(UserError):
        attack(old)


@pytest.mark.parametrize(
    "content",
    [
        raw_header(b"b.csv", 10**10, b"0") + END,
        raw_header(b"b.csv", 0, b"0", b"\x80" + b"\0" * 3 + (2**62).to_bytes(8, "big")) + END,
        pax_member(pax_record("size", str(10**12))),
        raw_header(b"x.tar.gz", 10**9, b"0") + END,
    ],
    ids=["octal", "base 256", "pax", "nested"],
)
def test_a_member_that_declares_more_than_all_may_have(attack: Unpack, content: bytes) -> None:
    with pytest.raises(UserError, match="unpacks to more than 1000000 bytes"):
        attack(content)
    with pytest.raises(UserError, match="unpacks to more than 1000000 bytes"):
        attack(gzip.compress(content))


@pytest.mark.parametrize(
    "content",
    [
        raw_header(b"b.csv", 0, b"0", b"\xff" * 12) + END,
        raw_header(b"b.csv", 0, b"0", b"\xff" * 10 + b"\xf0\x00") + END,
        pax_member(pax_record("size", "-1024")),
        pax_member(pax_record("size", "1e3")),
        pax_member(b"99999999999 path=x\n"),
        pax_member(b"0 path=x\n"),
        pax_member(b"path=x"),
        pax_member(pax_record("GNU.sparse.map", "1,x")),
        pax_member(pax_record("GNU.sparse.size", "x")),
        raw_header(b"b.csv", 100, b"0") + END[:600],
        raw_header(b"long", 100, b"L") + b"\0" * 512 + END,
        b"".join(raw_header(b"l", 1, b"L") + b"x".ljust(512, b"\0") for _ in range(900)) + END,
    ],
)
def test_headers_that_no_archiver_wrote(attack: Unpack, content: bytes) -> None:
    """Refused, or read as the plain empty file that is left when the nonsense is passed over."""
    for packed in (content, gzip.compress(content)):
        with contextlib.suppress(UserError):
            assert set(attack(packed).values()) <= {b""}


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g", b"X"])
def test_an_extended_header_beyond_measure_takes_no_memory(attack: Unpack, kind: bytes) -> None:
    size = 40 << 20
    content = raw_header(b"long", size, kind) + bytes(size) + raw_header(b"b.csv", 0, b"0") + END
    packed = gzip.compress(content, 1)
    del content
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=f"headers take more than {LARGEST_HEADERS} bytes"):
            attack(packed)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_records_about_all_members_do_not_pile_up(attack: Unpack) -> None:
    """Each member brings half a megabyte of records that would hold for all that follow."""
    pieces = []
    for number in range(30):
        records = pax_record(f"comment{number}", "x" * (1 << 19))
        pieces.append(raw_header(b"pax", len(records), b"g") + records + bytes(-len(records) % 512))
        pieces.append(raw_header(b"f%d.csv" % number, 0, b"0"))
    packed = gzip.compress(b"".join([*pieces, END]), 1)
    del pieces
    tracemalloc.start()
    try:
        assert len(attack(packed, UnpackLimits(members=1000))) == 30
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def million_member_tar() -> bytes:
    """A tar.gz of 1,000,000 empty files, of 100 times the same 10,000 names."""
    block = b"".join(raw_header(b"f%05d.csv" % number, 0, b"0") for number in range(10_000))
    return gzip.compress(block, 1) * 100 + gzip.compress(END)


def million_entry_zip() -> bytes:
    local = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 0, 0, 33, 0, 0, 0, 1, 0) + b"f"
    entry = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"f"
    size = 10**6 * len(entry)
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 10**6, 10**6, size, len(local))
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(local) + size, 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    return local + entry * 10**6 + end64 + locator + end


@pytest.mark.parametrize("make", [million_member_tar, million_entry_zip])
def test_a_million_members_are_refused_before_one_is_written(
    attack: Unpack, tmp_path: Path, make: Callable[[], bytes]
) -> None:
    content = make()
    begun = time.process_time()  # of other jobs' work it knows nothing
    with pytest.raises(UserError, match=r"more than 100000 files: refused as a possible bomb.*raise geo\.max_members"):
        attack(content, UnpackLimits())
    assert time.process_time() - begun < 15  # it takes three
    assert list((tmp_path / "target").iterdir()) == []


def test_members_are_not_kept_in_memory(attack: Unpack) -> None:
    """Ten thousand that are kept take eight megabytes; blocks and buffers take three at most."""
    block = b"".join(raw_header(b".hidden%05d" % number, 0, b"0") for number in range(10_000))
    packed = gzip.compress(block + END, 1)
    del block
    tracemalloc.start()
    try:
        assert attack(packed, UnpackLimits()) == {}
        assert tracemalloc.get_traced_memory()[1] < 4_500_000
    finally:
        tracemalloc.stop()


def test_what_grows_beyond_all_measure_is_refused_unread(attack: Unpack) -> None:
    bomb = gzip.compress(raw_header(b"zeros.csv", 2 << 30, b"0") + bytes(1 << 20))
    with pytest.raises(UserError, match=r"unpacks to more than 300 times as many.*raise geo\.max_unpacked_ratio"):
        attack(bomb, UnpackLimits())
    with pytest.raises(UserError, match="more than 300 times"):
        attack(tar_bytes({"in.tar.gz": bomb, "more.csv": noise(1, 10_000)}), UnpackLimits())


@pytest.mark.parametrize("pack", [lambda files: tar_bytes(files, "w:gz"), zip_bytes], ids=["tar.gz", "zip"])
def test_the_growth_of_nested_archives_is_counted_together(
    attack: Unpack, pack: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("immunomod.acquire.archive.RATIO_FROM_BYTES", 100_000)
    suffix = "tar.gz" if pack is not zip_bytes else "zip"
    inner = pack({"zeros.csv": bytes(300_000)})
    with pytest.raises(UserError, match="more than 100 times as many"):
        attack(pack({f"{n}.{suffix}": inner for n in range(3)}), UnpackLimits(ratio=100))
    assert len(attack(pack({f"{n}.{suffix}": inner for n in range(3)}), UnpackLimits(ratio=5000))) == 3


def test_archives_in_archives_without_end(attack: Unpack) -> None:
    content = zip_bytes({"b.csv": b"x"})
    for _ in range(60):
        content = zip_bytes({"again.zip": content})
    with pytest.raises(UserError, match=r"deeper than 3 archives in archives.*raise geo\.max_archive_depth"):
        attack(content)


def test_a_zip_whose_entries_share_their_bytes(attack: Unpack) -> None:
    """A directory that lists the same compressed bytes again and again, under one name or many."""
    content = zip_bytes({"b.csv": bytes(100_000)})
    at = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    entry = content[at:end]
    for entries in (entry * 9, entry + b"".join(entry.replace(b"b.csv", b"%d.csv" % n) for n in range(8))):
        last = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 9, 9, len(entries), at, 0)
        with pytest.raises(UserError):
            attack(content[:at] + entries + last)


@pytest.mark.parametrize("declared", [0, 10, 1_499_999, 1_500_001])
def test_a_zip_that_lies_about_its_sizes(attack: Unpack, declared: int) -> None:
    content = zip_bytes({"zeros.csv": bytes(1_500_000)})
    lies = content.replace((1_500_000).to_bytes(4, "little"), declared.to_bytes(4, "little"))
    with pytest.raises(UserError):
        attack(lies, UnpackLimits(members=50, bytes=1_400_000 if declared > 10 else 10**7))


def test_an_encrypted_zip_is_named_as_one(attack: Unpack) -> None:
    content = patched(zip_bytes({"b.csv": b"x" * 50}), b"PK\x01\x02", 8, b"\x01\x00")
    with pytest.raises(UserError, match=r"'b\.csv', which is encrypted: refused\. Unpack it by hand"):
        attack(content)


def test_a_rare_method_of_zip_is_named_as_one(attack: Unpack) -> None:
    with pytest.raises(UserError, match=r"a rare method \(number 14\)"):
        attack(zip_bytes({"b.csv": b"x" * 50}, zipfile.ZIP_LZMA))
    assert attack(zip_bytes(FILES, zipfile.ZIP_BZIP2)) == FILES


@pytest.mark.parametrize(
    ("head", "kind"),
    [(b"7z\xbc\xaf\x27\x1c", "7z"), (b"Rar!\x1a\x07\x01\x00", "rar"), (b"\x28\xb5\x2f\xfd", "zstd")],
)
def test_what_is_not_unpacked_here_says_so(attack: Unpack, head: bytes, kind: str) -> None:
    with pytest.raises(UserError, match=rf"packed as {kind}, which is not unpacked here.*by hand.*column source"):
        attack(head + noise(1, 500))


def test_names_that_are_no_utf8(attack: Unpack) -> None:
    with pytest.raises(UserError, match=r"unsafe name '\\udcdcberstand\.csv'"):
        attack(raw_header("Überstand.csv".encode("latin-1"), 0, b"0") + END)
    flagged = patched(zip_bytes({"Ue.csv": b"x"}), b"PK\x01\x02", 8, b"\x00\x08")
    with pytest.raises(UserError):
        attack(flagged.replace(b"Ue.csv", b"\xdce.csv"))
    assert attack(zip_bytes({"Überstand.csv": b"x"})) == {"Überstand.csv": b"x"}


def test_names_that_differ_by_case_stay_apart(attack: Unpack) -> None:
    assert attack(tar_bytes({"A.csv": b"1", "a.csv": b"2"})) == {"A.csv": b"1", "a.csv": b"2"}


@pytest.mark.parametrize(
    "names", [["a.csv", "a.csv"], ["a.csv", "./a.csv"], ["a.csv", "a.csv/b.csv"], ["a.csv/b.csv", "a.csv"]]
)
def test_a_name_that_stands_twice(attack: Unpack, names: list[str]) -> None:
    with pytest.raises(UserError, match=r"twice \(or as a file and as a folder\)"):
        attack(tar_of(*[(info(name), b"x") for name in names]))


@pytest.mark.parametrize("name", ["x" * 201, "/".join("x" * 51), "a\0b", "a\x7fb", "C:\\x", "a\\..\\b"])
def test_awkward_names(attack: Unpack, name: str) -> None:
    entry = info("placeholder")
    entry.pax_headers = {"path": name}
    try:
        found = attack(tar_of((entry, b"x")))
    except UserError as error:
        assert "unsafe name" in str(error) or "\0" in name
    else:
        assert "\0" in name and list(found) == ["a"]


def test_a_path_in_a_pax_record_is_checked_too(attack: Unpack) -> None:
    for records in (pax_record("path", "../../victim/precious.csv"), pax_record("path", "/etc/cron.d/x")):
        with pytest.raises(UserError, match="unsafe name"):
            attack(pax_member(records))


def test_a_page_in_place_of_a_gzip_is_named_as_one(attack: Unpack) -> None:
    with pytest.raises(DamagedArchiveError, match=r"a damaged file, m\.mtx\.gz: it is an HTML page"):
        attack(tar_bytes({"m.mtx.gz": b"<!DOCTYPE html><html>404</html>"}))


def test_no_cut_of_a_tar_goes_unseen(attack: Unpack) -> None:
    """``tarfile`` takes a cut between two members for the end, and so loses members without a word."""
    content = tar_bytes({f"{n}.csv": noise(n, 600) for n in range(4)})
    used = 4 * (512 + 1024)
    for end in [*range(0, used + 1, 256), *range(1, used, 997)]:
        with pytest.raises(DamagedArchiveError):
            attack(content[:end])
    assert len(attack(content[: used + 512])) == 4


def test_no_harm_to_a_tar_header_goes_unseen(attack: Unpack) -> None:
    """``tarfile`` takes a damaged header for the end as well."""
    content = tar_bytes({f"{n}.csv": noise(n, 600) for n in range(4)})
    order = random.Random(3)
    for header in range(0, 4 * 1536, 1536):
        for _ in range(12):
            harmed = bytearray(content)
            harmed[header + order.randrange(500)] ^= 1 << order.randrange(7)
            with pytest.raises(UserError):
                attack(bytes(harmed))


@pytest.mark.parametrize(
    "content",
    [
        *(tar_bytes(FILES, mode) for mode in ("w", "w:gz", "w:bz2", "w:xz")),
        zip_bytes(FILES),
        tar_bytes({"in.zip": zip_bytes(FILES), "in.tar.gz": tar_bytes(FILES, "w:gz")}),
    ],
    ids=["tar", "gz", "bz2", "xz", "zip", "nested"],
)
def test_harm_anywhere_ends_in_words(attack: Unpack, content: bytes) -> None:
    order = random.Random(4)
    refused = 0
    for _ in range(40):
        harmed = bytearray(content)
        for _ in range(order.choice([1, 1, 4, 40])):
            harmed[order.randrange(len(harmed))] = order.randrange(256)
        try:
            attack(bytes(harmed))
        except UserError:
            refused += 1
    assert refused > 15


def test_noise_ends_in_words(attack: Unpack) -> None:
    for seed, head in enumerate([b"", b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\x00"] * 5):
        with pytest.raises(UserError):
            attack(head + noise(seed, 1 + 700 * seed))


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    attack: Unpack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("immunomod.acquire.disk.free_bytes", lambda path: 600_000)
    with pytest.raises(UserError, match=r"unpacking archive needs 0\.9 MB in .*, where 0\.6 MB are free"):
        attack(tar_bytes({"b.csv": bytes(900_000)}))
    assert len(attack(tar_bytes({"b.csv": bytes(500_000)}))) == 1


def test_a_disk_that_fills_up_is_a_message(attack: Unpack, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    content = tar_bytes({"b.csv": bytes(900_000)}, "w:gz")
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot write .*b\.csv: File too large"):
            attack(content)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_an_interrupted_unpacking_leaves_nothing(attack: Unpack) -> None:
    calls = 0

    def stop() -> None:
        nonlocal calls
        calls += 1
        if calls > 5:
            raise StoppedError

    with pytest.raises(StoppedError):
        attack(tar_bytes(FILES), go_on=stop)


def test_what_a_killed_process_left_is_cleared_and_what_a_living_one_holds_is_not(
    attack: Unpack, tmp_path: Path
) -> None:
    import fcntl
    import os

    names = {kind: tmp_path / "target" / f".{number:032x}.out" for number, kind in enumerate(("dead", "held", "new"))}
    for kind, folder in names.items():
        folder.mkdir()
        (folder / "half.csv").write_bytes(b"half")
        if kind != "new":
            os.utime(folder, (0, 0))
    descriptor = os.open(names["held"], os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(AssertionError):  # the fixture sees that something outside changed: the dead one is gone
            attack(tar_bytes(FILES))
    finally:
        os.close(descriptor)
    assert {kind for kind, folder in names.items() if folder.exists()} == {"held", "new"}


def test_two_threads_may_unpack_different_archives_at_once(tmp_path: Path) -> None:
    archives = []
    for number in range(4):
        archives.append(tmp_path / f"{number}.tar")
        archives[-1].write_bytes(tar_bytes({f"{n}.csv": noise(number * 100 + n, 2000) for n in range(40)}))
    threads = [
        threading.Thread(target=unpack, args=(archive, tmp_path / "out" / archive.name, sha256(archive), LIMITS))
        for archive in archives
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        found = {path.name: path.read_bytes() for path in (tmp_path / "out" / f"{number}.tar").glob("*.csv")}
        assert found == {f"{n}.csv": noise(number * 100 + n, 2000) for n in range(40)}
