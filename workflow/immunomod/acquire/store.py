"""Where the files of a data set lie: each is fetched once, several at a time, and archives are unpacked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from immunomod.acquire.archive import (
    DamagedArchiveError,
    Member,
    UnpackLimits,
    is_archive_name,
    refuse_foreign,
    unpack,
    unpacked_folder,
)
from immunomod.acquire.checks import inspect_file
from immunomod.acquire.download import Client, NotFoundError, Receipt, Remote, utc_time
from immunomod.acquire.geo import RemoteFile
from immunomod.acquire.lock import only_job
from immunomod.acquire.parts import receipt_path
from immunomod.acquire.plan import CELLS, Pick
from immunomod.acquire.progress import FileProgress, Progress
from immunomod.acquire.room import fetched_path
from immunomod.acquire.workers import run_together
from immunomod.errors import UserError


@dataclass(frozen=True)
class Acquired:
    """A file on disk that a reader can open. ``inner`` is its path inside the archive it came from."""

    path: Path
    url: str
    bytes: int
    sha256: str
    retrieved: str
    inner: str = ""


@dataclass
class _Once:
    """Results by the path they are about, each made by the thread that asks first; others wait for it."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _made: dict[Path, Future[list[Acquired]]] = field(default_factory=dict)

    def get(self, path: Path, make: Callable[[], list[Acquired]]) -> list[Acquired]:
        with self._lock:
            future = self._made.get(path)
            if mine := future is None:
                future = self._made[path] = Future()
        assert future is not None
        if mine:
            try:
                future.set_result(make())
            except BaseException as error:  # raised again in every thread that asked
                future.set_exception(error)
        return future.result()


class Store:
    """The folder of a data set's files.

    Parameters
    ----------
    client
        Fetches; its settings say how many files at once.
    folder
        Where they land, in a folder for each accession.
    limits
        Bounds on what an archive may unpack to.
    progress
        Is told of files and bytes.

    Attributes
    ----------
    archives
        Receipts of the archives that were fetched, by path.
    """

    def __init__(self, client: Client, folder: Path, limits: UnpackLimits, progress: Progress) -> None:
        self.client = client
        self.folder = folder
        self.limits = limits
        self.progress = progress
        self.archives: dict[Path, Receipt] = {}
        self._once = _Once()

    def gather(self, picks: Sequence[Pick]) -> dict[RemoteFile | Path, list[Acquired]]:
        """Bring all sources of ``picks`` to disk: for each the file, or the files in it if it is an archive.

        Raises
        ------
        UserError
            A source cannot be had; the text names the sheet's row and column. What was fetched stays, and so do the
            part files of the others, for the next run.
        """
        first: dict[RemoteFile | Path, Pick] = {}
        for pick in picks:
            first.setdefault(pick.source, pick)
        tasks = [partial(self._bring, pick, self.progress.add(_known_size(source))) for source, pick in first.items()]
        found = run_together(tasks, self.client.settings.parallel_downloads, self.client.stop, self.progress.tick)
        self.progress.close()
        return dict(zip(first, found, strict=True))

    def _bring(self, pick: Pick, progress: FileProgress) -> list[Acquired]:
        try:
            refuse_foreign(pick.source.name)
            if isinstance(pick.source, Path):
                files = self._local(pick.source)
                progress.finish(pick.source.stat().st_size)
                return files
            files = self._remote(pick.source, progress)
            progress.finish(progress.have)
            return files
        except UserError as error:
            raise pick.row.error("cells" if pick.role == CELLS else "source", error) from error

    def _remote(self, file: RemoteFile, progress: FileProgress) -> list[Acquired]:
        target = fetched_path(file, self.folder)
        return self._once.get(target, lambda: self._fetch_alone(file, target, progress))

    def _fetch_alone(self, file: RemoteFile, target: Path, progress: FileProgress) -> list[Acquired]:
        with only_job(target, self.client.go_on):
            return self._fetch(file, target, progress)

    def _fetch(self, file: RemoteFile, target: Path, progress: FileProgress) -> list[Acquired]:
        if not file.archive_url:
            return self._fetch_whole(Remote(file.url, file.bytes, listed=True), target, progress)
        try:  # what RAW.tar holds too is not insisted on
            return self._fetch_whole(Remote(file.url, file.bytes), target, progress)
        except NotFoundError:
            found = self._from_archive(file)
        # In neither place: either the listing is wrong, or the server is for a while.
        return found or self._fetch_whole(Remote(file.url, file.bytes, listed=True), target, progress)

    def _fetch_whole(self, remote: Remote, target: Path, progress: FileProgress) -> list[Acquired]:
        """Fetch a file, and unpack it if it is an archive; one that turns out to be damaged is fetched once more."""
        damage: DamagedArchiveError | None = None
        for _ in range(2):
            receipt = self.client.fetch(remote, target, progress)
            if not is_archive_name(target.name):
                return [Acquired(target, remote.url, receipt.bytes, receipt.sha256, receipt.retrieved)]
            try:
                return self._unpacked(target, receipt)
            except DamagedArchiveError as error:
                damage = error
                receipt_path(target).unlink(missing_ok=True)
                target.unlink()
        raise UserError(
            f"{damage}. It arrived so twice in a row: run again later; if it stays so it is damaged at its source, so "
            "name the samples' own files in column files, or ask its authors for a whole one"
        )

    def _unpacked(self, archive: Path, receipt: Receipt) -> list[Acquired]:
        folder = unpacked_folder(archive)
        members = unpack(archive, folder, receipt.sha256, self.limits, self.client.go_on)
        self.archives[archive] = receipt
        return [_member(folder, member, receipt.url, receipt.retrieved) for member in members]

    def _from_archive(self, file: RemoteFile) -> list[Acquired]:
        """The file out of its series' RAW.tar; none if that holds no file of its name."""
        name = file.archive_url.rpartition("/")[2]
        owner = file.archive_url.split("/")[-3]
        archive = RemoteFile(name, file.archive_url, None, owner)
        target = fetched_path(archive, self.folder)
        members = self._once.get(target, lambda: self._fetch_alone(archive, target, self.progress.add(None)))
        return [member for member in members if file.name in member.inner.split("/")]

    def _local(self, path: Path) -> list[Acquired]:
        try:
            inspection = inspect_file(path, go_on=self.client.go_on)
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): check its permissions") from error
        if inspection.damage:
            raise UserError(f"{path} is damaged: {inspection.damage}. Replace it by a whole copy")
        changed = utc_time(path.stat().st_mtime)
        if not is_archive_name(path.name):
            return [Acquired(path, "", inspection.bytes, inspection.sha256, changed)]
        folder = self.folder / "local" / f"{inspection.sha256[:12]}_{path.name}"

        def unpacked() -> list[Acquired]:
            with only_job(folder, self.client.go_on):
                members = unpack(path, folder, inspection.sha256, self.limits, self.client.go_on)
            return [_member(folder, member, "", changed) for member in members]

        return self._once.get(folder, unpacked)


def _known_size(source: RemoteFile | Path) -> int | None:
    return source.stat().st_size if isinstance(source, Path) else source.bytes


def _member(folder: Path, member: Member, url: str, retrieved: str) -> Acquired:
    address = f"{url}#{member.name}" if url else ""
    return Acquired(folder / member.name, address, member.bytes, member.sha256, retrieved, member.name)
