"""The files of one dataset: from the sheet's rows to bytes on disk and a manifest of them.

All choices are made, and all mistakes in them reported, before anything large is fetched. A local file is used where
it lies; what is fetched or unpacked lands under ``files/`` in the dataset's folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd

from immunomod.acquire.archive import DamagedArchiveError, Member, UnpackLimits, is_archive_name, unpack
from immunomod.acquire.download import (
    Client,
    NotFoundError,
    Receipt,
    Remote,
    TransferSettings,
    inspect_file,
    receipt_path,
    utc_time,
)
from immunomod.acquire.geo import GeoSite, RemoteFile
from immunomod.acquire.plan import CELLS, Pick, pick_row, refuse_same_matrix, sheet_rows
from immunomod.acquire.select import counts_names, list_names, matches
from immunomod.errors import UserError
from immunomod.files import write_tsv

MANIFEST_COLUMNS = ["dataset", "sample", "file", "path", "url", "bytes", "sha256", "retrieved", "role"]
METADATA = "metadata"


@dataclass(frozen=True)
class AcquireSettings:
    """How files are fetched and unpacked."""

    transfer: TransferSettings = field(default_factory=TransferSettings)
    limits: UnpackLimits = field(default_factory=UnpackLimits)

    @classmethod
    def from_config(cls, geo: Mapping[str, Any]) -> AcquireSettings:
        """From the config's section ``geo``; ``base_url`` is not looked at."""
        bounds = {"max_members": "members", "max_unpacked_bytes": "bytes", "max_archive_depth": "depth"}
        transfer = {item.name for item in fields(TransferSettings)}
        unknown = set(geo) - set(bounds) - transfer - {"base_url"}
        if unknown:
            raise UserError(f"config, section geo: unknown settings {', '.join(sorted(unknown))}")
        return cls(
            TransferSettings(**{key: value for key, value in geo.items() if key in transfer}),
            UnpackLimits(**{bounds[key]: value for key, value in geo.items() if key in bounds}),
        )


@dataclass(frozen=True)
class Acquired:
    """A file on disk that a reader can open. ``inner`` is its path inside the archive it came from."""

    path: Path
    url: str
    bytes: int
    sha256: str
    retrieved: str
    inner: str = ""


def acquire_dataset(
    dataset: str,
    samples: pd.DataFrame,
    base_url: str,
    folder: Path,
    sheet_folder: Path,
    settings: AcquireSettings | None = None,
    sheet: str = "samples.tsv",
) -> pd.DataFrame:
    """Bring the files of one dataset's samples to disk.

    Parameters
    ----------
    dataset
        Its name; where this is a GEO series, samples named by ``GSM…`` take shared files from it.
    samples
        The sheet's rows of this dataset, all str: ``sample``, ``source`` (path, ``GSM…`` or ``GSE…``), optional
        ``files`` (glob patterns, comma-separated) and ``cells`` (a path, or the name or pattern of a file of the
        series). The
        index is the row number in the sheet, for messages.
    base_url
        GEO's address or a mirror's: https, http, file, or a plain path.
    folder
        The dataset's folder; ``files/`` and ``metadata.tsv`` (SOFT, listings, archives) are written in it.
    sheet_folder
        What relative paths in the sheet are relative to.

    Returns
    -------
    The manifest, one row per file for a reader: ``dataset, sample`` (empty: shared by all samples of the dataset),
    ``file`` (base name), ``path`` (below ``folder`` as given, or the local file), ``url`` (empty for local files; the
    member follows ``#`` for one out of an archive), ``bytes, sha256, retrieved`` (UTC; of a local file its
    modification time) and ``role`` (``counts`` for matrices with their features and barcodes, ``cells`` for a
    per-cell table). Files that are already there, unharmed, are not fetched again.

    Raises
    ------
    UserError
        A source that does not exist, is ambiguous, or cannot be had whole; the text names the sheet's row and column.
    """
    settings = settings or AcquireSettings()
    rows = sheet_rows(samples, sheet)
    client = Client(settings.transfer)
    site = GeoSite(base_address(base_url), client, folder / "files" / "metadata")
    picks = [pick for row in rows for pick in pick_row(row, dataset, site, sheet_folder)]
    refuse_same_matrix(picks)
    store = _Store(client, folder / "files", settings.limits)
    entries = [(pick, file) for pick in picks for file in _collect(pick, store)]
    write_tsv(_metadata(dataset, site, store), folder / "metadata.tsv")
    return _manifest(dataset, entries, {row.sample for row in rows})


def base_address(base_url: str) -> str:
    """``base_url`` as an address: a plain path becomes ``file://``."""
    if "://" in base_url:
        return base_url.rstrip("/")
    return Path(base_url).expanduser().resolve().as_uri()


class _Store:
    """Where fetched and unpacked files lie; fetches each one once."""

    def __init__(self, client: Client, folder: Path, limits: UnpackLimits) -> None:
        self.client = client
        self.folder = folder
        self.limits = limits
        self.archives: dict[Path, Receipt] = {}
        self._have: dict[RemoteFile | Path, list[Acquired]] = {}

    def remote(self, file: RemoteFile) -> list[Acquired]:
        """The file, or the files in it if it is an archive."""
        if file not in self._have:
            self._have[file] = self._remote(file)
        return self._have[file]

    def local(self, path: Path) -> list[Acquired]:
        """A user's own file, or the files in it if it is an archive."""
        if path not in self._have:
            self._have[path] = self._local(path)
        return self._have[path]

    def _remote(self, file: RemoteFile) -> list[Acquired]:
        target = self.folder / file.owner / file.name
        # What RAW.tar holds too is not insisted on.
        remote = Remote(file.url, file.bytes, listed=not file.archive_url)
        try:
            receipt = self.client.fetch(remote, target)
        except NotFoundError:
            if not file.archive_url:
                raise
            return self._from_archive(file)
        if not is_archive_name(file.name):
            return [Acquired(target, file.url, receipt.bytes, receipt.sha256, receipt.retrieved)]
        try:
            return self._unpacked(target, receipt)
        except DamagedArchiveError:  # fetched once more from scratch
            target.unlink()
            receipt_path(target).unlink(missing_ok=True)
            return self._unpacked(target, self.client.fetch(remote, target))

    def _unpacked(self, archive: Path, receipt: Receipt) -> list[Acquired]:
        self.archives[archive] = receipt
        folder = archive.parent / "unpacked" / archive.name
        members = unpack(archive, folder, receipt.sha256, self.limits)
        return [_member(folder, member, receipt.url, receipt.retrieved) for member in members]

    def _from_archive(self, file: RemoteFile) -> list[Acquired]:
        name = file.archive_url.rpartition("/")[2]
        owner = file.archive_url.split("/")[-3]
        found = [
            member
            for member in self.remote(RemoteFile(name, file.archive_url, None, owner))
            if file.name in member.inner.split("/")
        ]
        if not found:
            raise NotFoundError(f"{file.name} is neither at {file.url} nor in {name}: the server's listing is wrong")
        return found

    def _local(self, path: Path) -> list[Acquired]:
        inspection = inspect_file(path)
        if inspection.damage:
            raise UserError(f"{path} is damaged: {inspection.damage}. Replace it by a whole copy")
        changed = utc_time(path.stat().st_mtime)
        if not is_archive_name(path.name):
            return [Acquired(path, "", inspection.bytes, inspection.sha256, changed)]
        folder = self.folder / "local" / f"{inspection.sha256[:12]}_{path.name}"
        members = unpack(path, folder, inspection.sha256, self.limits)
        return [_member(folder, member, "", changed) for member in members]


def _member(folder: Path, member: Member, url: str, retrieved: str) -> Acquired:
    address = f"{url}#{member.name}" if url else ""
    return Acquired(folder / member.name, address, member.bytes, member.sha256, retrieved, member.name)


def _collect(pick: Pick, store: _Store) -> list[Acquired]:
    """Bring a chosen file to disk; of an archive, the files that the row's patterns name."""
    source = pick.source
    try:
        files = store.local(source) if isinstance(source, Path) else store.remote(source)
    except UserError as error:
        column = "cells" if pick.role == CELLS else "source"
        raise pick.row.error(column, error) from error
    patterns = pick.row.patterns
    if not is_archive_name(source.name) or (patterns and matches(source.name, patterns)):
        return files
    names = [file.inner for file in files]
    kept = {name for name in names if matches(name, patterns)} if patterns else set(counts_names(names))
    if not kept:
        fits = f"fits {pick.row.files}" if patterns else "could hold counts"
        raise pick.row.error("files", f"no file in {source.name} {fits}; there are {list_names(names)}")
    return [file for file in files if file.inner in kept]


def _line(dataset: str, sample: str, file: Acquired, role: str) -> dict[str, object]:
    return {
        "dataset": dataset,
        "sample": sample,
        "file": file.path.name,
        "path": str(file.path),
        "url": file.url,
        "bytes": file.bytes,
        "sha256": file.sha256,
        "retrieved": file.retrieved,
        "role": role,
    }


def _manifest(dataset: str, entries: Sequence[tuple[Pick, Acquired]], samples: set[str]) -> pd.DataFrame:
    users: dict[tuple[str, Path], set[str]] = {}
    for pick, file in entries:
        users.setdefault((pick.role, file.path), set()).add(pick.row.sample)
    lines = []
    for pick, file in entries:
        common = pick.shared and users[pick.role, file.path] == samples
        lines.append(_line(dataset, "" if common else pick.row.sample, file, pick.role))
    table = pd.DataFrame(lines, columns=MANIFEST_COLUMNS).drop_duplicates()
    return table.sort_values(["sample", "role", "path"], kind="stable", ignore_index=True)


def _metadata(dataset: str, site: GeoSite, store: _Store) -> pd.DataFrame:
    """Files that were fetched but are not for a reader: SOFT, listings, archives."""
    lines = [
        _line(dataset, "", Acquired(path, receipt.url, receipt.bytes, receipt.sha256, receipt.retrieved), METADATA)
        for path, receipt in {**site.receipts, **store.archives}.items()
    ]
    return pd.DataFrame(lines, columns=MANIFEST_COLUMNS)
