"""Unpacking tars and zips from strangers.

An archive may hold absolute names, ``..``, links, devices, or a bomb. Only plain files and folders are written, under
checked names, within bounds on their number, their bytes and the depth of archives inside archives. All headers are
checked before the first byte is written, and what is written goes into a temporary folder that is renamed when all of
it is there.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import re
import shutil
import stat
import struct
import tarfile
import time
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, TypeAlias

from immunomod.acquire.checks import Inspection, inspect_file
from immunomod.acquire.disk import refuse_small_disk, write_error
from immunomod.acquire.inflate import DamageError
from immunomod.acquire.parts import ANY_HEX_NAME
from immunomod.acquire.tarstream import TarStream
from immunomod.acquire.zipcount import count_zip_entries
from immunomod.errors import UserError
from immunomod.files import sha256, write_text

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".zip")
#: Archives and compressions that are known but not unpacked here, by suffix and by first bytes.
FOREIGN_SUFFIXES = (".7z", ".rar", ".zst", ".tzst", ".lz4", ".lz", ".lzma", ".z")
FOREIGN_MAGIC = {
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "rar",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"LZIP": "lzip",
    b"\x1f\x9d": "compress (.Z)",
}
#: Backslashes, control characters, what stands for bytes that are no UTF-8, a drive letter.
UNSAFE = re.compile(r"[\\\x00-\x1f\x7f\ud800-\udfff]|^[A-Za-z]:")
LONGEST_NAME, LONGEST_PATH = 200, 50
NOTE = ".unpacked.json"
#: A bomb is told from a table of zeros by the factor it grows by, once it is large enough to do harm.
RATIO_FROM_BYTES = 1 << 30
ABANDONED_AFTER_S = 60
#: What ``tarfile`` and ``zipfile`` raise on bytes that no archiver wrote (NotImplementedError is a RuntimeError).
UNREADABLE = (
    *(DamageError, tarfile.TarError, zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError),
    *(ValueError, ArithmeticError, LookupError, RuntimeError, TypeError, AttributeError),
)
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)

#: The checked path of a plain file and what opens its content.
Entry: TypeAlias = tuple[PurePosixPath, Callable[[], IO[bytes]]]


@dataclass(frozen=True)
class UnpackLimits:
    """Bounds on one archive with all that is nested in it.

    Parameters
    ----------
    members
        Files, folders and whatever else it lists.
    bytes
        Bytes unpacked.
    depth
        Levels of archives in archives.
    ratio
        How many times its own size it may unpack to, where that is more than 1 GiB.
    """

    members: int = 100_000
    bytes: int = 64 << 30
    depth: int = 3
    ratio: int = 300

    def __post_init__(self) -> None:
        if min(self.members, self.bytes, self.depth, self.ratio) < 1:
            raise UserError(
                "geo.max_members, geo.max_unpacked_bytes, geo.max_archive_depth and geo.max_unpacked_ratio must be "
                "at least 1"
            )


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


def refuse_foreign(name: str) -> None:
    """Raise a :class:`UserError` for a file whose name says that it is packed in a way that is not unpacked here."""
    if name.lower().endswith(FOREIGN_SUFFIXES):
        raise _foreign(name, PurePosixPath(name).suffix.lower())


def _foreign(name: str, kind: str) -> UserError:
    return UserError(
        f"{name} is packed as {kind}, which is not unpacked here (tar, zip, gz, bz2 and xz are): fetch and unpack it "
        "by hand, and name the folder or file in the sheet's column source"
    )


@dataclass
class _Budget:
    """What may still be unpacked; shared by an archive and all archives inside it."""

    archive: str
    archive_bytes: int
    limits: UnpackLimits
    go_on: Callable[[], None]
    members: int = 0
    bytes: int = 0

    def add_member(self, declared_bytes: int) -> None:
        """Count an entry of any kind; one that declares more bytes than are left is refused before it is read."""
        self.go_on()
        self.members += 1
        self._check_bytes(self.bytes + declared_bytes)
        self._check_members()

    def add_bytes(self, count: int) -> None:
        """Count bytes that came out."""
        self.go_on()
        self.bytes += count
        self._check_bytes(self.bytes)

    def add_members(self, count: int) -> None:
        """Refuse an archive that lists more entries than are left, before they are looked at."""
        replace(self, members=self.members + count)._check_members()

    def _check_members(self) -> None:
        if self.members > self.limits.members:
            raise UserError(
                f"{self.archive} holds more than {self.limits.members} files: refused as a possible bomb. "
                "If it is genuine, raise geo.max_members"
            )

    def _check_bytes(self, total: int) -> None:
        if total > self.limits.bytes:
            raise UserError(
                f"{self.archive} unpacks to more than {self.limits.bytes} bytes: refused as a possible bomb. "
                "If it is genuine, raise geo.max_unpacked_bytes"
            )
        if total > RATIO_FROM_BYTES and total > self.limits.ratio * self.archive_bytes:
            raise UserError(
                f"{self.archive} has {self.archive_bytes} bytes and unpacks to more than {self.limits.ratio} times as "
                "many: refused as a possible bomb. If it is genuine, raise geo.max_unpacked_ratio"
            )


class _DeclaredBudget(_Budget):
    """A budget that what the headers declare is charged to."""

    def add_member(self, declared_bytes: int) -> None:
        super().add_member(declared_bytes)
        self.bytes += declared_bytes


def member_path(name: str, archive: str) -> PurePosixPath | None:
    """The checked relative path of a member; None for one to leave out (the archive's root, hidden files).

    Raises
    ------
    UserError
        The name is absolute, climbs with ``..``, holds backslashes or control characters, or is not UTF-8.
    """
    path = PurePosixPath(name)
    hostile = (
        UNSAFE.search(name) is not None
        or path.is_absolute()
        or ".." in path.parts
        or len(path.parts) > LONGEST_PATH
        or (len(name) > LONGEST_NAME // 4 and any(len(part.encode()) > LONGEST_NAME for part in path.parts))
    )
    if hostile:
        raise UserError(
            f"{archive} holds a member with the unsafe name {name[:200]!r}: refused. Unpack it by hand in a safe place "
            "if you trust it, and name that folder in the sheet's column source"
        )
    if not path.parts or any(part.startswith(".") or part == "__MACOSX" for part in path.parts):
        return None
    return path


def _refuse_kind(name: str, archive: str, kind: str = "a link or a device") -> UserError:
    return UserError(
        f"{archive} holds {name[:200]!r}, which is {kind}: refused. Unpack it by hand if you trust it, and name that "
        "folder in the sheet's column source"
    )


def _tar_entries(archive: Path, label: str, budget: _Budget) -> Iterator[Entry]:
    with TarStream.open(archive, label) as tar:
        while (entry := tar.next()) is not None:
            if entry.size < 0:
                raise DamageError("a negative size")
            budget.add_member(entry.size)
            if not (entry.isreg() or entry.isdir()) or entry.issparse():
                raise _refuse_kind(entry.name, label)
            path = member_path(entry.name, label)
            if path is not None and entry.isreg():
                yield path, partial(tar.content, entry)


def _zip_entries(archive: Path, label: str, budget: _Budget) -> Iterator[Entry]:
    budget.add_members(count_zip_entries(archive, budget.limits.members))
    with zipfile.ZipFile(archive) as bundle:
        for entry in bundle.infolist():
            budget.add_member(entry.file_size)
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refuse_kind(entry.filename, label)
            if entry.flag_bits & 1:
                raise _refuse_kind(entry.filename, label, "encrypted")
            if entry.compress_type not in ZIP_METHODS:
                raise _refuse_kind(entry.filename, label, f"packed by a rare method (number {entry.compress_type})")
            path = member_path(entry.filename, label)
            if path is not None and not entry.is_dir():
                yield path, partial(bundle.open, entry)


def _entries(archive: Path, label: str, budget: _Budget) -> Iterator[Entry]:
    """The plain files of a tar or zip, in order; every entry is checked and counted in ``budget``.

    By the first bytes: ``zipfile.is_zipfile`` looks at the end, where a tar may hold a zip as its last member.
    """
    with archive.open("rb") as handle:
        head = handle.read(8)
    kind = next((name for magic, name in FOREIGN_MAGIC.items() if head.startswith(magic)), "")
    if kind:
        raise _foreign(label, kind)
    read = _zip_entries if head[:4] in (b"PK\x03\x04", b"PK\x05\x06") else _tar_entries
    return read(archive, label, budget)


@contextmanager
def _reading(label: str) -> Iterator[None]:
    """What the readers raise on a hostile or damaged archive, as one error."""
    try:
        yield
    except RecursionError:
        raise DamagedArchiveError(f"{label} is damaged: its headers are nested without end") from None
    except UNREADABLE as error:
        raise DamagedArchiveError(f"{label} is damaged or cut short ({error})") from error


def _write_member(source: IO[bytes], target: Path, label: str, budget: _Budget) -> None:
    """Writing errors end as :class:`UserError` here; any other is the reader's."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle = target.open("xb", buffering=0)
    except (FileExistsError, NotADirectoryError):
        raise UserError(
            f"{label} holds the name {target.name!r} twice (or as a file and as a folder): refused. Unpack it by hand, "
            "and name the folder in the sheet's column source"
        ) from None
    except OSError as error:
        raise write_error(error, target) from error
    with handle:
        while block := source.read(1 << 20):
            budget.add_bytes(len(block))
            left = memoryview(block)
            try:
                while left:  # unbuffered: a nearly full disk takes a part of the block
                    left = left[handle.write(left) :]
            except OSError as error:
                raise write_error(error, target) from error


def _unpack_level(archive: Path, folder: Path, label: str, budget: _Budget, depth: int) -> None:
    """Write the members of one archive below ``folder``; archives among them become folders of their own name."""
    if depth > budget.limits.depth:
        raise UserError(
            f"{label} lies deeper than {budget.limits.depth} archives in archives: refused as a possible bomb. "
            "If it is genuine, raise geo.max_archive_depth"
        )
    nested = []
    with _reading(label):
        _check_all(archive, folder, label, budget)
        for path, open_content in _entries(archive, label, budget):
            with open_content() as content:
                _write_member(content, folder / path, label, budget)
            if is_archive_name(path.name):
                nested.append(path)
    for path in nested:
        inner = folder / path
        parked = inner.with_name(f".{uuid.uuid4().hex}")
        inner.rename(parked)
        inner.mkdir()
        _unpack_level(parked, inner, f"{label}/{path}", budget, depth + 1)
        parked.unlink()


def _check_all(archive: Path, folder: Path, label: str, budget: _Budget) -> None:
    """Look at every header before anything is written: a bomb costs no disk, and what is too large says so at once."""
    declared = _DeclaredBudget(**vars(budget))
    for _ in _entries(archive, label, declared):
        pass
    refuse_small_disk(f"unpacking {label}", declared.bytes - budget.bytes, folder)


def _inspect_members(folder: Path, label: str, go_on: Callable[[], None]) -> list[Member]:
    members = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        inspection: Inspection = inspect_file(path, go_on=go_on)
        if inspection.damage:
            raise DamagedArchiveError(f"{label} holds a damaged file, {name}: {inspection.damage}")
        members.append(Member(name, inspection.bytes, inspection.sha256))
    return members


@contextmanager
def _fresh_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``folder``; on success it takes that name, on failure it is removed."""
    temporary = folder.with_name(f".{uuid.uuid4().hex}.{folder.name}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _clear_abandoned(folder)
        temporary.mkdir()
    except OSError as error:
        raise write_error(error, temporary) from error
    try:
        with _locked(temporary):
            yield temporary
            if folder.exists():
                shutil.rmtree(folder)
            temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether this process alone holds the lock of a folder; not where the file system has none for folders."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except OSError:
            held = False
        yield held
    finally:
        os.close(descriptor)


def _clear_abandoned(folder: Path) -> None:
    """Remove what killed processes left while unpacking into ``folder``: old enough, and locked by nobody."""
    for path in folder.parent.glob(f".{ANY_HEX_NAME}.{glob.escape(folder.name)}"):
        with suppress(OSError), _locked(path) as held:
            if held and time.time() - path.stat().st_mtime > ABANDONED_AFTER_S:
                shutil.rmtree(path, ignore_errors=True)


def unpacked_folder(archive: Path) -> Path:
    """Where the members of a fetched archive lie."""
    return archive.parent / "unpacked" / archive.name


def is_unpacked(folder: Path) -> bool:
    """Whether ``folder`` holds a whole unpacked archive, to the look."""
    return (folder / NOTE).is_file()


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
        if not path.is_file() or path.stat().st_size != member.bytes or sha256(path) != member.sha256:
            return None
    return members


def unpack(
    archive: Path,
    folder: Path,
    archive_sha256: str,
    limits: UnpackLimits | None = None,
    go_on: Callable[[], None] = lambda: None,
) -> list[Member]:
    """Unpack a tar (plain, gzip, bzip2, xz) or zip into ``folder`` and return its files, sorted by name.

    Archives among the members are unpacked in turn, into a folder that has the inner archive's name; hidden files are
    left out. If ``folder`` already holds what an archive with this ``archive_sha256`` gave, nothing is written.
    ``go_on`` is called between members and blocks; what it raises ends the work, and nothing is left.

    Raises
    ------
    DamagedArchiveError
        The archive, or a compressed member, cannot be read to its end.
    UserError
        An unsafe name, a link or device, a bound of ``limits`` is exceeded, or the disk is too small. Nothing is left
        in ``folder``.
    """
    kept = _kept_members(folder, archive_sha256)
    if kept is not None:
        return kept
    budget = _Budget(archive.name, archive.stat().st_size, limits or UnpackLimits(), go_on)
    with _fresh_folder(folder) as temporary:
        _unpack_level(archive, temporary, archive.name, budget, 1)
        members = _inspect_members(temporary, archive.name, go_on)
        note = {"archive_sha256": archive_sha256, "members": [asdict(member) for member in members]}
        write_text(json.dumps(note), temporary / NOTE)
    return members
