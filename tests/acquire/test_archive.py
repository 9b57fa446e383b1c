"""Hostile and honest archives."""

import gzip
import io
import json
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from geo_tree import noise, tar_bytes, zip_bytes

from immunomod.acquire.archive import DamagedArchiveError, UnpackLimits, is_archive_name, member_path, unpack
from immunomod.errors import UserError
from immunomod.files import sha256

LIMITS = UnpackLimits(members=50, bytes=1_000_000)
FILES = {"a/matrix.mtx.gz": gzip.compress(noise(1, 5000)), "a/genes.tsv.gz": gzip.compress(b"g\n"), "b.csv": b"x,y\n"}


def run(tmp_path: Path, content: bytes, name: str = "x.tar", limits: UnpackLimits = LIMITS) -> dict[str, bytes]:
    archive = tmp_path / name
    archive.write_bytes(content)
    members = unpack(archive, tmp_path / "out", sha256(archive), limits)
    found = {member.name: (tmp_path / "out" / member.name).read_bytes() for member in members}
    assert [member.bytes for member in members] == [len(content) for content in found.values()]
    assert all(member.sha256 == sha256(tmp_path / "out" / member.name) for member in members)
    return found


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.tar", tar_bytes(FILES)),
        ("x.tar.gz", tar_bytes(FILES, "w:gz")),
        ("x.tgz", tar_bytes(FILES, "w:gz")),
        ("x.tar.bz2", tar_bytes(FILES, "w:bz2")),
        ("x.tar.xz", tar_bytes(FILES, "w:xz")),
        ("x.zip", zip_bytes(FILES)),
        ("zip named.tar", zip_bytes(FILES)),
        ("./dotted.tar", tar_bytes({f"./{name}": content for name, content in FILES.items()})),
    ],
)
def test_unpacks_every_kind(tmp_path: Path, name: str, content: bytes) -> None:
    assert is_archive_name(name)
    assert run(tmp_path, content, name) == FILES


def test_archives_in_archives_become_folders_of_their_name(tmp_path: Path) -> None:
    inner = tar_bytes(FILES, "w:gz")
    content = tar_bytes({"GSM1_s.tar.gz": inner, "d/GSM2_s.zip": zip_bytes({"deep.tar": tar_bytes({"c.csv": b"1\n"})})})
    assert run(tmp_path, content) == {
        **{f"GSM1_s.tar.gz/{name}": content for name, content in FILES.items()},
        "d/GSM2_s.zip/deep.tar/c.csv": b"1\n",
    }
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_hidden_files_and_finder_droppings_are_left_out(tmp_path: Path) -> None:
    noise_files = {"._b.csv": b"x", ".DS_Store": b"x", "__MACOSX/b.csv": b"x", "a/.hidden/b.csv": b"x"}
    assert run(tmp_path, tar_bytes({**noise_files, "b.csv": b"x,y\n"})) == {"b.csv": b"x,y\n"}


def entry(kind: bytes, name: str = "innocent", link: str = "/etc/passwd") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        tar.addfile(info)
    return buffer.getvalue()


def zip_link() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        bundle.writestr(info, "/etc/passwd")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (tar_bytes({"/etc/cron.d/x": b"x"}), "unsafe name"),
        (tar_bytes({"../x": b"x"}), "unsafe name"),
        (tar_bytes({"a/../../x": b"x"}), "unsafe name"),
        (tar_bytes({"a\\b": b"x"}), "unsafe name"),
        (tar_bytes({"C:x": b"x"}), "unsafe name"),
        (tar_bytes({"a\nb": b"x"}), "unsafe name"),
        (tar_bytes({"a" * 201: b"x"}), "unsafe name"),
        (zip_bytes({"../x": b"x"}), "unsafe name"),
        (tar_bytes({"in.tar": tar_bytes({"../../x": b"x"})}), "x.tar/in.tar holds a member with the unsafe name"),
        (entry(tarfile.SYMTYPE), "link"),
        (entry(tarfile.LNKTYPE), "link"),
        (entry(tarfile.CHRTYPE), "device"),
        (entry(tarfile.BLKTYPE), "device"),
        (entry(tarfile.FIFOTYPE), "device"),
        (zip_link(), "link"),
        (tar_bytes({f"f{i}": b"" for i in range(51)}), "more than 50 files"),
        (tar_bytes({f".hidden{i}": b"" for i in range(51)}), "more than 50 files"),
        (tar_bytes({"zeros": b"\0" * 1_000_001}, "w:gz"), "more than 1000000 bytes"),
        (zip_bytes({"zeros": b"\0" * 1_000_001}), "more than 1000000 bytes"),
        (
            tar_bytes({f"{i}.tar.gz": tar_bytes({"zeros": b"\0" * 400_000}, "w:gz") for i in range(3)}),
            "more than 1000000 bytes",
        ),
        (
            tar_bytes({"2.tar": tar_bytes({"3.tar": tar_bytes({"4.tar": tar_bytes({"f": b""})})})}),
            "deeper than 3 archives",
        ),
    ],
)
def test_refuses_what_could_do_harm(tmp_path: Path, content: bytes, problem: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(UserError, match=problem):
        run(inside, content)
    assert [path.name for path in inside.iterdir()] == ["x.tar"]
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]


def test_a_zip_that_lies_about_its_sizes_is_bounded_by_what_comes_out(tmp_path: Path) -> None:
    content = bytearray(zip_bytes({"zeros": b"\0" * 1_500_000}))
    size = (1_500_000).to_bytes(4, "little")
    for _ in range(2):  # in the local header and in the directory
        at = content.index(size)
        content[at : at + 4] = (10).to_bytes(4, "little")
    with pytest.raises(UserError):
        run(tmp_path, bytes(content), "x.zip")
    assert not (tmp_path / "out").exists()


def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for content in (b"first", b"other"):
            info = tarfile.TarInfo("a.csv")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    with pytest.raises(UserError, match=r"'a\.csv' twice"):
        run(tmp_path, buffer.getvalue())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.tar", tar_bytes(FILES)[:3000]),
        ("x.tar.gz", tar_bytes(FILES, "w:gz")[:-2000]),
        ("x.tar", noise(3, 5000)),
        ("x.tar", b""),
        ("x.zip", zip_bytes(FILES)[:-30]),
        ("x.tar", tar_bytes({"m.mtx.gz": FILES["a/matrix.mtx.gz"][:-100]})),
        ("x.tar", tar_bytes({"inner.tar.gz": tar_bytes(FILES, "w:gz")[:-2000]})),
    ],
)
def test_damage_is_told_from_danger(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(DamagedArchiveError):
        run(tmp_path, content, name)
    assert not (tmp_path / "out").exists()


def test_unpacks_once_and_again_only_if_something_is_amiss(tmp_path: Path) -> None:
    content = tar_bytes(FILES)
    run(tmp_path, content)
    out = tmp_path / "out"
    inode = out.stat().st_ino
    assert run(tmp_path, content) == FILES
    assert out.stat().st_ino == inode
    (out / "b.csv").write_bytes(b"x,z\n")
    assert run(tmp_path, content) == FILES
    (out / "b.csv").unlink()
    assert run(tmp_path, content) == FILES
    (out / ".unpacked.json").write_text("not json")
    assert run(tmp_path, content) == FILES
    assert run(tmp_path, tar_bytes({"c.csv": b"new"})) == {"c.csv": b"new"}
    assert json.loads((out / ".unpacked.json").read_text())["members"][0]["name"] == "c.csv"
    assert not (out / "b.csv").exists()


def test_member_paths() -> None:
    assert str(member_path("a/b c(1).gz", "x")) == "a/b c(1).gz"
    assert member_path("./", "x") is None
    with pytest.raises(UserError):
        member_path("bad\ud800", "x")


def test_limits_are_checked() -> None:
    with pytest.raises(UserError, match="max_members"):
        UnpackLimits(members=0)
