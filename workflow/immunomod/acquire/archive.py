"""Unpacking tars and zips from strangers.

An archive may hold absolute names, ``..``, links, devices, or a bomb. Only plain files and folders are written, under
checked names, within bounds on their number, their bytes and the depth of archives inside archives, and into a
temporary folder that is renamed when all of it is there.
"""

from __future__ import annotations

import json
import shutil
import stat
import tarfile
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from immunomod.acquire.download import Inspection, inspect_file
from immunomod.errors import UserError
from immunomod.files import write_text

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
NOTE = ".unpacked.json"


@dataclass(frozen=True)
class UnpackLimits:
    """Bounds on one archive with all that is nested in it: files, bytes unpacked, levels of archives in archives."""

    members: int = 100_000
    bytes: int = 64 << 30
    depth: int = 3

    def __post_init__(self) -> None:
        if min(self.members, self.bytes, self.depth) < 1:
            raise UserError("geo.max_members, geo.max_unpacked_bytes and geo.max_archive_depth must be at least 1")


@dataclass(frozen=True)
class Member:
    """A file that came out of an archive: its path below the folder, bytes and SHA-256."""

    name: str
    bytes: int
    sha256: str


class DamagedArchiveError(UserError):
    """The archive cannot be read to its end."""


def is_archive_name(name: str) -> bool:
    """Whether a file of this name is a tar or zip (a lone ``.gz`` is not)."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


@dataclass
class _Budget:
    """What may still be unpacked; shared by an archive and all archives inside it."""

    archive: str
    limits: UnpackLimits
    members: int = 0
    bytes: int = 0

    def add_member(self, declared_bytes: int) -> None:
        """Count an entry of any kind; one that declares more bytes than are left is refused before it is read."""
        self.members += 1
        if self.bytes + declared_bytes > self.limits.bytes:
            self.add_bytes(declared_bytes)
        if self.members > self.limits.members:
            raise UserError(
                f"{self.archive} holds more than {self.limits.members} files: refused as a possible bomb. "
                "If it is genuine, raise geo.max_members"
            )

    def add_bytes(self, count: int) -> None:
        self.bytes += count
        if self.bytes > self.limits.bytes:
            raise UserError(
                f"{self.archive} unpacks to more than {self.limits.bytes} bytes: refused as a possible bomb. "
                "If it is genuine, raise geo.max_unpacked_bytes"
            )


def member_path(name: str, archive: str) -> PurePosixPath | None:
    """The checked relative path of a member; None for one to leave out (the archive's root, hidden files).

    Raises
    ------
    UserError
        The name is absolute, climbs with ``..``, or holds backslashes or control characters.
    """
    path = PurePosixPath(name)
    hostile = (
        path.is_absolute()
        or ".." in path.parts
        or "\\" in name
        or any(ord(letter) < 32 or ord(letter) == 127 for letter in name)
        or (len(name) > 1 and name[1] == ":" and name[0].isalpha())
        or any("\ud800" <= letter <= "\udfff" for letter in name)
        or any(len(part.encode("utf-8", "replace")) > 200 for part in path.parts)
    )
    if hostile:
        raise UserError(
            f"{archive} holds a member with the unsafe name {name[:200]!r}: refused. Unpack it by hand in a safe place "
            "if you trust it, and name that folder in the sheet's column source"
        )
    if not path.parts or any(part.startswith(".") or part == "__MACOSX" for part in path.parts):
        return None
    return path


def _refuse_kind(name: str, archive: str) -> UserError:
    return UserError(f"{archive} holds {name[:200]!r}, which is a link, a device or encrypted: refused")


def _write_member(source: IO[bytes], target: Path, budget: _Budget) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as handle:
        while block := source.read(1 << 20):
            budget.add_bytes(len(block))
            handle.write(block)


def _tar_members(archive: Path, label: str, budget: _Budget) -> Iterator[tuple[PurePosixPath, IO[bytes]]]:
    with tarfile.open(archive, mode="r|*") as tar:
        for entry in tar:
            budget.add_member(entry.size)
            if not (entry.isreg() or entry.isdir()) or entry.issparse():
                raise _refuse_kind(entry.name, label)
            path = member_path(entry.name, label)
            content = tar.extractfile(entry) if entry.isreg() else None
            if path is not None and content is not None:
                yield path, content


def _zip_members(archive: Path, label: str, budget: _Budget) -> Iterator[tuple[PurePosixPath, IO[bytes]]]:
    with zipfile.ZipFile(archive) as bundle:
        for entry in bundle.infolist():
            budget.add_member(entry.file_size)
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or entry.flag_bits & 1:
                raise _refuse_kind(entry.filename, label)
            path = member_path(entry.filename, label)
            if path is not None and not entry.is_dir():
                with bundle.open(entry) as content:
                    yield path, content


def _is_zip(archive: Path) -> bool:
    """By the first bytes: ``zipfile.is_zipfile`` looks at the end, where a tar may hold a zip as its last member."""
    with archive.open("rb") as handle:
        return handle.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def _unpack_level(archive: Path, folder: Path, label: str, budget: _Budget, depth: int) -> None:
    """Write the members of one archive below ``folder``; archives among them become folders of their own name."""
    if depth > budget.limits.depth:
        raise UserError(f"{label} lies deeper than {budget.limits.depth} archives in archives: refused")
    read_members = _zip_members if _is_zip(archive) else _tar_members
    nested = []
    try:
        for path, content in read_members(archive, label, budget):
            target = folder / path
            try:
                _write_member(content, target, budget)
            except (FileExistsError, NotADirectoryError):
                raise UserError(f"{label} holds the name {str(path)!r} twice: refused") from None
            if is_archive_name(path.name):
                nested.append(path)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError) as error:
        raise DamagedArchiveError(f"{label} is damaged or cut short ({error})") from error
    for path in nested:
        inner = folder / path
        parked = inner.with_name(f".{uuid.uuid4().hex}")
        inner.rename(parked)
        inner.mkdir()
        _unpack_level(parked, inner, f"{label}/{path}", budget, depth + 1)
        parked.unlink()


def _inspect_members(folder: Path, label: str) -> list[Member]:
    members = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        inspection: Inspection = inspect_file(path)
        if inspection.damage:
            raise DamagedArchiveError(f"{label} holds a damaged file, {name}: {inspection.damage}")
        members.append(Member(name, inspection.bytes, inspection.sha256))
    return members


@contextmanager
def _fresh_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``folder``; on success it takes that name, on failure it is removed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{uuid.uuid4().hex}.{folder.name}")
    temporary.mkdir()
    try:
        yield temporary
        if folder.exists():
            shutil.rmtree(folder)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _kept_members(folder: Path, archive_sha256: str) -> list[Member] | None:
    """The members that an earlier run unpacked from the same archive, if each is there unharmed."""
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        members = [Member(**entry) for entry in note["members"]]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if note.get("archive_sha256") != archive_sha256:
        return None
    for member in members:
        path = folder / member.name
        if not path.is_file() or path.stat().st_size != member.bytes or inspect_file(path).sha256 != member.sha256:
            return None
    return members


def unpack(archive: Path, folder: Path, archive_sha256: str, limits: UnpackLimits | None = None) -> list[Member]:
    """Unpack a tar (plain, gzip, bzip2, xz) or zip into ``folder`` and return its files, sorted by name.

    Archives among the members are unpacked in turn, into a folder that has the inner archive's name; hidden files are
    left out. If ``folder`` already holds what an archive with this ``archive_sha256`` gave, nothing is written.

    Raises
    ------
    DamagedArchiveError
        The archive, or a gzipped member, cannot be read to its end.
    UserError
        An unsafe name, a link or device, or a bound of ``limits`` is exceeded. Nothing is left in ``folder``.
    """
    kept = _kept_members(folder, archive_sha256)
    if kept is not None:
        return kept
    with _fresh_folder(folder) as temporary:
        _unpack_level(archive, temporary, archive.name, _Budget(archive.name, limits or UnpackLimits()), 1)
        members = _inspect_members(temporary, archive.name)
        note = {"archive_sha256": archive_sha256, "members": [asdict(member) for member in members]}
        write_text(json.dumps(note), temporary / NOTE)
    return members
