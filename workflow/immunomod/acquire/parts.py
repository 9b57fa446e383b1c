"""What a transfer leaves on disk: the ``.part`` file that receives the bytes, and the receipt of a whole file.

A part file is hidden, locked while a process writes to it, and has a note beside it that says of what address and
version its bytes are, so that a later run can resume it. An orphan of an interrupted job may still hold the lock: its
successor then writes to a private part of its own.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from immunomod.acquire.disk import write_error
from immunomod.files import write_text

ANY_HEX_NAME = "[0-9a-f]" * 32


@dataclass(frozen=True)
class Receipt:
    """What arrived: address, bytes, SHA-256, UTC time, and the source's version tag (ETag, or size and mtime)."""

    url: str
    bytes: int
    sha256: str
    retrieved: str
    version: str = ""


def receipt_path(target: Path) -> Path:
    """Where the receipt of a fetched file lies."""
    return target.with_name(f".{target.name}.receipt.json")


def read_receipt(target: Path) -> Receipt | None:
    """The receipt of ``target``, or None if there is none that can be read."""
    try:
        return Receipt(**json.loads(receipt_path(target).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_receipt(receipt: Receipt, target: Path) -> None:
    """Write the receipt of ``target``."""
    write_text(json.dumps(asdict(receipt)), receipt_path(target))


def part_path(target: Path) -> Path:
    """Where the bytes of ``target`` lie until all of them are there."""
    return target.with_name(f".{target.name}.part")


@dataclass
class Part:
    """The open, locked file that receives the bytes. ``validator`` is the version tag of what is in it."""

    path: Path
    handle: IO[bytes]
    url: str
    validator: str = ""
    size: int = 0

    @property
    def note(self) -> Path:
        """The file beside it that says of what address and version its bytes are."""
        return self.path.with_name(f"{self.path.name}.json")

    def recall(self) -> None:
        """Take up what an earlier run left, if its note is about the same address and names a version."""
        self.size = self.handle.seek(0, os.SEEK_END)
        try:
            noted = json.loads(self.note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            noted = {}
        if isinstance(noted, dict) and noted.get("url") == self.url and isinstance(noted.get("validator"), str):
            self.validator = noted["validator"]
        if not self.validator:
            self.restart("")

    def restart(self, validator: str) -> None:
        """Empty the file; ``validator`` is the version that is about to be written."""
        self.handle.truncate(0)
        self.handle.seek(0)
        self.size = 0
        self.validator = validator
        write_text(json.dumps({"url": self.url, "validator": validator}), self.note)

    def write(self, block: bytes) -> None:
        """Append bytes."""
        left = memoryview(block)
        try:
            while left:  # unbuffered: a nearly full disk takes a part of the block
                left = left[self.handle.write(left) :]
        except OSError as error:
            raise write_error(error, self.path) from error
        finally:
            self.size += len(block) - len(left)

    def discard(self) -> None:
        """Remove it and its note."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def publish(self, target: Path) -> None:
        """Flush it to disk and give it the final name."""
        os.fsync(self.handle.fileno())
        self.path.replace(target)
        self.note.unlink(missing_ok=True)
        _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems cannot; the rename stands all the same
        pass
    finally:
        os.close(descriptor)


def _lock(handle: IO[bytes], path: Path) -> bool:
    """Whether ``handle`` is now the only owner of the file that ``path`` still names."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(handle.fileno()).st_ino == path.stat().st_ino
    except OSError:
        return False


@contextmanager
def open_part(target: Path, url: str) -> Iterator[Part]:
    """Yield the part file of ``target``; a private one if another process (an orphaned job) is writing to it.

    Raises
    ------
    UserError
        The folder cannot be written to.
    """
    shared = part_path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle = shared.open("ab+", buffering=0)
    except OSError as error:
        raise write_error(error, shared) from error
    try:
        if _lock(handle, shared):
            _clear_abandoned(target)
            part = Part(shared, handle, url)
            part.recall()
            try:
                yield part
            finally:
                if part.size == 0:
                    part.discard()
            return
    finally:
        handle.close()
    private = target.with_name(f".{uuid.uuid4().hex}.{target.name}.part")
    with private.open("ab+", buffering=0) as handle:
        _lock(handle, private)
        part = Part(private, handle, url)
        try:
            yield part
        finally:
            part.discard()


def _clear_abandoned(target: Path) -> None:
    """Remove the private parts of killed processes: those that nobody holds the lock of."""
    for path in target.parent.glob(f".{ANY_HEX_NAME}.{glob.escape(target.name)}.part"):
        with suppress(OSError), path.open("ab") as handle:
            if _lock(handle, path):
                path.unlink(missing_ok=True)
                path.with_name(f"{path.name}.json").unlink(missing_ok=True)
