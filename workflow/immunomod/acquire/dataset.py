"""The files of samples of one dataset: from the sheet's rows to bytes on disk and a manifest of them.

Each sample has a job of its own, so that a row that is added or edited touches no other sample; jobs that run side by
side share the dataset's folder, and what several samples need arrives once (:mod:`immunomod.acquire.lock`).

All choices are made, and all mistakes in them reported, before anything large is fetched. A local file is used where
it lies; what is fetched or unpacked lands under ``files/`` in the dataset's folder, several files at a time. The
manifest does not depend on which file arrives first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from immunomod.acquire.archive import UnpackLimits, is_archive_name, refuse_foreign
from immunomod.acquire.download import Client, TransferSettings
from immunomod.acquire.geo import GeoSite
from immunomod.acquire.plan import METADATA, Pick, pick_row, refuse_same_matrix, sheet_rows
from immunomod.acquire.progress import Progress
from immunomod.acquire.room import refuse_if_too_large
from immunomod.acquire.select import counts_names, list_names, matches
from immunomod.acquire.store import Acquired, Store
from immunomod.errors import UserError
from immunomod.sections import read_values, require

MANIFEST_COLUMNS = ["dataset", "sample", "file", "path", "url", "bytes", "sha256", "retrieved", "role"]
#: Files that the job of one sample fetches at once; as many jobs run at once as `geo.parallel_downloads` leaves.
MOST_PER_JOB = 2
#: The config's names of the bounds on archives.
LIMIT_KEYS = {
    "max_members": "members",
    "max_unpacked_bytes": "bytes",
    "max_archive_depth": "depth",
    "max_unpacked_ratio": "ratio",
}


@dataclass(frozen=True)
class AcquireSettings:
    """How files are fetched and unpacked."""

    transfer: TransferSettings = field(default_factory=TransferSettings)
    limits: UnpackLimits = field(default_factory=UnpackLimits)

    @classmethod
    def from_config(cls, geo: Mapping[str, Any]) -> AcquireSettings:
        """From the config's section ``geo``; ``base_url`` is not looked at."""
        transfer = {item.name for item in fields(TransferSettings)}
        unknown = set(geo) - set(LIMIT_KEYS) - transfer - {"base_url"}
        if unknown:
            raise UserError(f"config, section geo: unknown settings {', '.join(sorted(unknown))}")
        bounds = {key: value for key, value in geo.items() if key in LIMIT_KEYS}
        for key, value in bounds.items():
            require(isinstance(value, int) and not isinstance(value, bool), "geo", key, value, "a whole number")
        return cls(
            TransferSettings(**read_values(TransferSettings, {k: v for k, v in geo.items() if k in transfer}, "geo")),
            UnpackLimits(**{LIMIT_KEYS[key]: value for key, value in bounds.items()}),
        )

    @property
    def jobs(self) -> int:
        """Samples that are fetched at once."""
        return max(1, self.transfer.parallel_downloads // MOST_PER_JOB)

    def of_one_job(self) -> AcquireSettings:
        """The share of one of :attr:`jobs` in the downloads at once and the requests per second of the whole run."""
        shared = replace(
            self.transfer,
            parallel_downloads=min(self.transfer.parallel_downloads, MOST_PER_JOB),
            requests_per_s=self.transfer.requests_per_s / self.jobs,
        )
        return replace(self, transfer=shared)


def acquire_samples(
    dataset: str,
    samples: pd.DataFrame,
    base_url: str,
    folder: Path,
    sheet_folder: Path,
    settings: AcquireSettings | None = None,
    sheet: str = "samples.tsv",
) -> pd.DataFrame:
    """Bring the files of samples of one dataset to disk.

    Parameters
    ----------
    dataset
        Its name; where this is a GEO series, samples named by ``GSM…`` take shared files from it.
    samples
        Rows of the sheet that are of this dataset, all str: ``sample``, ``source`` (path, ``GSM…`` or ``GSE…``),
        optional ``files`` (glob patterns, comma-separated) and ``cells`` (a path, or the name or pattern of a file of
        the series). The index is the row number in the sheet, for messages.
    base_url
        GEO's address or a mirror's: https, http, file, or a plain path.
    folder
        The dataset's folder; ``files/`` is written in it.
    sheet_folder
        What relative paths in the sheet are relative to.

    Returns
    -------
    The manifest, one row per file: ``dataset, sample`` (empty: shared by all samples given, and no sample's own),
    ``file`` (base name), ``path`` (below ``folder`` as given, or the local file), ``url`` (empty for local files; the
    member follows ``#`` for one out of an archive), ``bytes, sha256, retrieved`` (UTC; of a local file its
    modification time) and ``role`` (``counts`` for matrices with their features and barcodes, ``cells`` for a
    per-cell table, ``metadata`` for what no reader opens: SOFT, listings, archives). Files that are already there,
    unharmed, are not fetched again.

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
    refuse_if_too_large(dataset, picks, folder / "files")
    store = Store(client, folder / "files", settings.limits, Progress(dataset))
    found = store.gather(picks)
    entries = [(pick, file) for pick in picks for file in _chosen(pick, found[pick.source])]
    manifest = _manifest(dataset, entries, {row.sample for row in rows})
    metadata = _metadata(dataset, site, store)
    return pd.concat([manifest, metadata], ignore_index=True) if len(metadata) else manifest


def base_address(base_url: str) -> str:
    """``base_url`` as an address: a plain path becomes ``file://``."""
    if "://" in base_url:
        return base_url.rstrip("/")
    return Path(base_url).expanduser().resolve().as_uri()


def _chosen(pick: Pick, files: list[Acquired]) -> list[Acquired]:
    """The files of a chosen source; of an archive, those that the row's patterns name."""
    source = pick.source
    patterns = pick.row.patterns
    if not is_archive_name(source.name) or (patterns and matches(source.name, patterns)):
        return files
    names = [file.inner for file in files]
    kept = {name for name in names if matches(name, patterns)} if patterns else set(counts_names(names))
    if not kept:
        fits = f"fits {pick.row.files}" if patterns else "could hold counts"
        raise pick.row.error("files", f"no file in {source.name} {fits}; there are {list_names(names)}")
    for name in sorted(kept):
        try:
            refuse_foreign(name)
        except UserError as error:
            raise pick.row.error("files", f"in {source.name}: {error}") from None
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


def _metadata(dataset: str, site: GeoSite, store: Store) -> pd.DataFrame:
    """Files that were fetched but are not for a reader: SOFT, listings, archives."""
    lines = [
        _line(dataset, "", Acquired(path, receipt.url, receipt.bytes, receipt.sha256, receipt.retrieved), METADATA)
        for path, receipt in sorted({**site.receipts, **store.archives}.items())
    ]
    return pd.DataFrame(lines, columns=MANIFEST_COLUMNS)
