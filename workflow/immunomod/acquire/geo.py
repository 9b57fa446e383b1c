"""What GEO holds for an accession: SOFT, ``filelist.txt``, folder indexes, and the addresses that follow from them.

Everything hangs below one base address that has the layout of the public server's ``/geo/`` (``series/GSE96nnn/
GSE96583/{soft,suppl}/``, ``samples/GSM2560nnn/GSM2560248/suppl/``), so a mirror over http or a local tree serves as
well. Names that come from outside are taken for hostile until checked.
"""

from __future__ import annotations

import gzip
import json
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from immunomod.acquire.download import Client, NotFoundError, Receipt, Remote
from immunomod.acquire.lock import only_job
from immunomod.acquire.parts import read_receipt
from immunomod.errors import UserError
from immunomod.files import write_text

ACCESSION = re.compile(r"(GSE|GSM)([1-9]\d{0,9})")
LOOKS_LIKE_ACCESSION = re.compile(r"(GSE|GSM|GPL|GDS)\s*\d[^/.\\]*", re.IGNORECASE)
LARGEST_SOFT_BYTES = 4 << 30
NO_FILE = "NONE"


@dataclass(frozen=True)
class GeoSample:
    """A sample record of a SOFT file; ``links`` are its supplementary files as GEO writes them."""

    accession: str
    title: str = ""
    source_name: str = ""
    organism: str = ""
    characteristics: dict[str, str] = field(default_factory=dict)
    links: tuple[str, ...] = ()
    library_strategy: str = ""
    description: str = ""


@dataclass(frozen=True)
class GeoSeries:
    """A series record with its samples; ``links`` are the series-level supplementary files as GEO writes them."""

    accession: str
    title: str = ""
    summary: str = ""
    samples: tuple[GeoSample, ...] = ()
    links: tuple[str, ...] = ()

    def sample(self, accession: str) -> GeoSample | None:
        """The sample of this accession, or None."""
        return next((sample for sample in self.samples if sample.accession == accession), None)


@dataclass(frozen=True)
class RemoteFile:
    """A file that GEO offers: its base name, address, size in bytes where known, and the accession it belongs to.

    ``archive_url`` names the series' RAW.tar if the file can also be had as a member of it.
    """

    name: str
    url: str
    bytes: int | None
    owner: str
    archive_url: str = ""


@dataclass(frozen=True)
class SeriesListing:
    """The files of a series: those at series level, and those of its samples (the members of RAW.tar)."""

    own: tuple[RemoteFile, ...]
    members: tuple[RemoteFile, ...]


def is_accession(text: str) -> bool:
    """Whether ``text`` means a GEO accession rather than a path (well-formed or not)."""
    return bool(LOOKS_LIKE_ACCESSION.fullmatch(text.strip()))


def parse_accession(text: str) -> str:
    """The accession in GEO's own spelling.

    Raises
    ------
    UserError
        It is neither ``GSE`` nor ``GSM`` followed by a number.
    """
    accession = text.strip().upper()
    if not ACCESSION.fullmatch(accession):
        raise UserError(f"{text!r} is no accession of a GEO series (GSE96583) or sample (GSM2560248)")
    return accession


def stub(accession: str) -> str:
    """The folder above an accession's own: its last one to three digits become ``nnn``."""
    prefix, digits = accession[:3], accession[3:]
    return f"{prefix}{digits[:-3]}nnn"


def accession_folder(accession: str) -> str:
    """Path of an accession's folder below the base address."""
    kind = "series" if accession.startswith("GSE") else "samples"
    return f"{kind}/{stub(accession)}/{accession}"


def safe_name(name: str) -> str:
    """``name`` if it can be the base name of a file here.

    Raises
    ------
    UserError
        It is empty, hidden, overlong, holds a separator or a control character, or begins like a spreadsheet formula.
    """
    hostile = (
        not name
        or name[0] in ".=+@-"
        or "/" in name
        or "\\" in name
        or len(name.encode("utf-8", "replace")) > 200
        or any(unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") for letter in name)
    )
    if hostile:
        raise UserError(f"the server lists a file with the unsafe name {name[:200]!r}: refused")
    return name


def _is_hidden(name: str) -> bool:
    """Whether a name is that of a hidden file, such as macOS leaves behind; those are passed over, not refused."""
    return re.fullmatch(r"\.[^./\\][^/\\]*", name) is not None


def link_path(link: str) -> list[str] | None:
    """The checked parts of a supplementary link's path below ``/geo/``, percent-decoded; None for a link elsewhere."""
    if link == NO_FILE:
        return None
    path = urlsplit(link).path if "//" in link else ""
    _, found, below = path.partition("/geo/")
    if not found or not below or below.endswith("/"):
        return None
    return [safe_name(unquote(part)) for part in below.split("/")]


def _fields(line: str) -> tuple[str, str]:
    key, _, value = line[1:].partition("=")
    return key.strip(), value.strip()


def parse_soft(lines: Iterable[str]) -> GeoSeries:
    """Read a family SOFT file's series and sample records; data tables and platforms are passed over.

    Raises
    ------
    UserError
        There is no series record.
    """
    series: dict[str, list[str]] = {}
    samples: list[dict[str, list[str]]] = []
    record: dict[str, list[str]] | None = None
    for line in lines:
        if line.startswith("^"):
            kind, name = _fields(line)
            record = None
            if kind == "SERIES":
                record = series
                record["accession"] = [name]
            elif kind == "SAMPLE":
                record = {"accession": [name]}
                samples.append(record)
        elif line.startswith("!") and record is not None:
            key, value = _fields(line)
            record.setdefault(key, []).append(value)
    if not series:
        raise UserError("the SOFT file holds no series record")
    return GeoSeries(
        accession=parse_accession(series["accession"][0]),
        title=_first(series, "Series_title"),
        summary="\n".join(series.get("Series_summary", [])),
        samples=tuple(_soft_sample(sample) for sample in samples),
        links=_links(series, "Series_supplementary_file"),
    )


def _first(record: dict[str, list[str]], key: str) -> str:
    return record.get(key, [""])[0]


def _links(record: dict[str, list[str]], key: str) -> tuple[str, ...]:
    numbered = re.compile(rf"{key}(_\d+)?")
    values = [value for name, found in record.items() if numbered.fullmatch(name) for value in found]
    return tuple(value for value in values if value and value.upper() != NO_FILE)


def _soft_sample(record: dict[str, list[str]]) -> GeoSample:
    characteristics: dict[str, list[str]] = {}
    for key, values in record.items():
        if key.startswith("Sample_characteristics_ch"):
            for value in values:
                name, colon, text = value.partition(":")
                characteristics.setdefault(name.strip() if colon else "", []).append((text if colon else name).strip())
    return GeoSample(
        accession=parse_accession(record["accession"][0]),
        title=_first(record, "Sample_title"),
        source_name=_first(record, "Sample_source_name_ch1"),
        organism="; ".join(dict.fromkeys(record.get("Sample_organism_ch1", []))),
        characteristics={name: "; ".join(values) for name, values in characteristics.items()},
        links=_links(record, "Sample_supplementary_file"),
        library_strategy=_first(record, "Sample_library_strategy"),
        description="; ".join(record.get("Sample_description", [])),
    )


def _soft_lines(path: Path) -> Iterator[str]:
    """Lines of a gzipped SOFT file; stops a decompression bomb."""
    done = 0
    with gzip.open(path, "rb") as handle:
        while line := handle.readline(1 << 20):
            done += len(line)
            if done > LARGEST_SOFT_BYTES:
                raise UserError(f"{path} unpacks to more than {LARGEST_SOFT_BYTES} bytes: refused")
            yield line.decode("utf-8", "replace").rstrip("\r\n")


def read_soft(path: Path) -> GeoSeries:
    """Read a ``<GSE>_family.soft.gz``."""
    try:
        return parse_soft(_soft_lines(path))
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read as gzipped SOFT ({error}): delete it and run again") from error


@dataclass(frozen=True)
class FilelistRow:
    """A row of ``filelist.txt``: whether it is an archive or a file, its name, its size in bytes."""

    kind: str
    name: str
    bytes: int | None


def parse_filelist(text: str) -> list[FilelistRow]:
    """Read a series' ``filelist.txt`` (``#Archive/File, Name, Time, Size, Type``, tab-separated)."""
    rows = []
    for line in text.splitlines():
        parts = line.split("\t")
        if line.startswith("#") or len(parts) < 2 or _is_hidden(parts[1]):
            continue
        size = int(parts[3]) if len(parts) > 3 and parts[3].strip().isdecimal() else None
        rows.append(FilelistRow(parts[0].strip().lower(), safe_name(parts[1].strip()), size))
    return rows


class GeoSite:
    """A GEO server, mirror or local tree, and the folder that keeps what was read about accessions.

    Parameters
    ----------
    base_url
        Address that ends in the equivalent of the public server's ``/geo``: https, http or file.
    client
        Fetches.
    folder
        Where SOFT files and listings are kept; a second run reads them from here.
    """

    def __init__(self, base_url: str, client: Client, folder: Path) -> None:
        self.base_url = base_url.rstrip("/")
        self.client = client
        self.folder = folder
        self.receipts: dict[Path, Receipt] = {}
        self._series: dict[str, GeoSeries] = {}
        self._listings: dict[str, SeriesListing] = {}

    def url(self, *parts: str) -> str:
        """Address of a path below the base, percent-encoded."""
        return "/".join([self.base_url, *(quote(part) for part in parts)])

    def series(self, accession: str) -> GeoSeries:
        """The series' records from its family SOFT file; one with no samples if the server has the series but no SOFT.

        Raises
        ------
        UserError
            The accession is malformed, or the server has no such series.
        """
        if accession not in self._series:
            self._series[accession] = self._read_series(accession)
        return self._series[accession]

    def series_listing(self, accession: str) -> SeriesListing:
        """All files of a series, from SOFT and ``filelist.txt``, or else from the folder's index."""
        if accession not in self._listings:
            kept = self._kept_listing(accession)
            self._listings[accession] = kept or self._read_series_listing(accession)
        return self._listings[accession]

    def sample_files(self, accession: str, series: str | None) -> tuple[RemoteFile, ...]:
        """The files of one sample; empty if its supplementary files stand at series level only.

        Raises
        ------
        UserError
            The sample is not in ``series``; or there is no ``series`` to ask and no folder for the sample.
        """
        if series is not None:
            records = self.series(series)
            if records.samples and records.sample(accession) is None:
                known = ", ".join(sample.accession for sample in records.samples[:8])
                more = ", ..." if len(records.samples) > 8 else ""
                raise UserError(f"{accession} is not a sample of {series}, which holds {known}{more}")
            files = tuple(file for file in self.series_listing(series).members if file.owner == accession)
            if files or records.samples:
                return files
        try:
            return self._index(accession)
        except NotFoundError:
            raise UserError(
                f"{accession} has no files at {self.base_url}: the accession is unknown, or its data stand with its "
                "series (name the series in the sheet's column dataset)"
            ) from None

    def _read_series(self, accession: str) -> GeoSeries:
        name = f"{accession}_family.soft.gz"
        try:
            path = self._keep(name, Remote(self.url(accession_folder(accession), "soft", name)))
        except NotFoundError:
            try:
                self.client.list_folder(self.url(accession_folder(accession), "suppl"))
            except NotFoundError:
                raise UserError(
                    f"{accession} is unknown at {self.base_url}: check the accession, and that the series is public"
                ) from None
            return GeoSeries(accession)
        return read_soft(path)

    def _keep(self, name: str, remote: Remote) -> Path:
        path = self.folder / name
        with only_job(path, self.client.go_on):
            self.receipts[path] = self.client.fetch(remote, path)
        return path

    def _kept_listing(self, accession: str) -> SeriesListing | None:
        try:
            kept = json.loads(self._listing_path(accession).read_text(encoding="utf-8"))
            if kept["base_url"] != self.base_url or self.base_url.startswith("file:"):
                return None
            own, members = (tuple(RemoteFile(**entry) for entry in kept[part]) for part in ("own", "members"))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        self._recall(f"{accession}_filelist.txt")
        return SeriesListing(own, members)

    def _recall(self, name: str) -> None:
        """Take up the receipt of a file that an earlier look at the series fetched, for the ledger."""
        path = self.folder / name
        receipt = read_receipt(path)
        if receipt is not None and path.is_file():
            self.receipts[path] = receipt

    def _listing_path(self, accession: str) -> Path:
        return self.folder / f"{accession}_listing.json"

    def _read_series_listing(self, accession: str) -> SeriesListing:
        series = self.series(accession)
        rows = self._filelist(accession)
        own, members = self._soft_files(series)
        archives = [*own, *(row.name for row in rows if row.kind == "archive")]
        archive = next((name for name in archives if name.endswith("_RAW.tar")), "")
        archive_url = self._suppl_url(accession, archive) if archive else ""
        for row in rows:
            owner = _owner(row.name)
            if row.name in own:
                own[row.name] = replace(own[row.name], bytes=row.bytes)
            elif row.name in members:
                members[row.name] = replace(members[row.name], bytes=row.bytes, archive_url=archive_url)
            elif owner:
                url = self._suppl_url(owner, row.name)
                members[row.name] = RemoteFile(row.name, url, row.bytes, owner, archive_url)
            else:
                inside = archive_url if row.kind == "file" else ""
                own[row.name] = RemoteFile(row.name, self._suppl_url(accession, row.name), row.bytes, accession, inside)
        if not series.samples or not (own or members):  # no SOFT, or one that names no file
            own = {file.name: file for file in self._index_or_nothing(accession)} | own
        listing = SeriesListing(tuple(own.values()), tuple(members.values()))
        kept = {"base_url": self.base_url, "own": [asdict(f) for f in own.values()]}
        write_text(
            json.dumps({**kept, "members": [asdict(f) for f in members.values()]}, indent=1),
            self._listing_path(accession),
        )
        return listing

    def _suppl_url(self, accession: str, name: str) -> str:
        return self.url(accession_folder(accession), "suppl", name)

    def _filelist(self, accession: str) -> list[FilelistRow]:
        name = "filelist.txt"
        try:
            path = self._keep(f"{accession}_{name}", Remote(self._suppl_url(accession, name)))
        except NotFoundError:
            return []
        return parse_filelist(path.read_text(encoding="utf-8", errors="replace"))

    def _soft_files(self, series: GeoSeries) -> tuple[dict[str, RemoteFile], dict[str, RemoteFile]]:
        own = {file.name: file for file in self._linked(series.links, series.accession, "")}
        archive_url = next((file.url for name, file in own.items() if name.endswith("_RAW.tar")), "")
        members = {
            file.name: file
            for sample in series.samples
            for file in self._linked(sample.links, sample.accession, archive_url)
        }
        return own, members

    def _linked(self, links: Iterable[str], owner: str, archive_url: str) -> Iterator[RemoteFile]:
        for link in links:
            parts = link_path(link)
            if parts is not None:
                yield RemoteFile(parts[-1], self.url(*parts), None, owner, archive_url)

    def _index(self, accession: str) -> tuple[RemoteFile, ...]:
        names = self.client.list_folder(self.url(accession_folder(accession), "suppl"))
        kept = [safe_name(name) for name in names if name != "filelist.txt" and not _is_hidden(name)]
        return tuple(RemoteFile(name, self._suppl_url(accession, name), None, accession) for name in kept)

    def _index_or_nothing(self, accession: str) -> tuple[RemoteFile, ...]:
        try:
            return self._index(accession)
        except NotFoundError:
            return ()


def _owner(name: str) -> str | None:
    """The sample accession that a file name begins with, or None."""
    found = re.match(r"GSM[1-9]\d{0,9}(?!\d)", name)
    return found.group() if found else None
