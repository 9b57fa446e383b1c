"""Fetching one file over https, http or from a ``file://`` tree, so that what arrives is whole or does not arrive.

The bytes go to a hidden ``.part`` file beside the target. A connection that breaks is resumed with ``Range`` and
``If-Range`` (the server's ETag is kept beside the part, so a file that changed meanwhile starts again). Busy answers
are retried after ``Retry-After`` or with exponential backoff. An HTML body is refused: the public server may answer a
program with a captcha page as HTTP 200. Sizes are held against the listing and ``Content-Length``, gzip members
against their own checksums; then the file is hashed, flushed and renamed, and a receipt beside it lets the next run
see that nothing needs fetching.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import sys
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import IO, TypeVar
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass, url2pathname

import urllib3

from immunomod import __version__
from immunomod.errors import UserError
from immunomod.files import sha256, write_text

CHUNK_BYTES = 1 << 16
LARGE_BYTES = 50 * 10**6
PROGRESS_EVERY_S = 10.0
LARGEST_INDEX_BYTES = 64 << 20
TRANSIENT_STATUS = frozenset({403, 408, 425, 429, 500, 502, 503, 504})
MISSING_STATUS = frozenset({404, 410})

# Everything but redirects is retried here, where what has arrived is known.
REDIRECTS_ONLY = urllib3.Retry(5, connect=0, read=0, status=0, other=0, redirect=5, respect_retry_after_header=False)

T = TypeVar("T")


class NotFoundError(UserError):
    """The server says that there is no such file."""


@dataclass(frozen=True)
class TransferSettings:
    """How patient and how polite a download is.

    Parameters
    ----------
    attempts
        Tries in a row that bring less than ``progress_bytes`` before giving up; progress sets the count back, so an
        archive of 132 GB whose connection dies every 175 MB still arrives.
    backoff_s, longest_wait_s
        First wait after a failure and the longest one, in seconds; waits double. ``Retry-After`` is honoured up to
        the longest wait.
    timeout_s
        Seconds without a byte that count as a stall.
    requests_per_s
        Upper bound of one process; the public server refuses above 50 from all of a user's processes together.
    """

    attempts: int = 8
    backoff_s: float = 1.0
    longest_wait_s: float = 120.0
    timeout_s: float = 60.0
    requests_per_s: float = 5.0
    progress_bytes: int = 1 << 20

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise UserError(f"geo.attempts is {self.attempts}; it must be at least 1")
        if min(self.timeout_s, self.requests_per_s) <= 0 or self.backoff_s < 0:
            raise UserError("geo.timeout_s and geo.requests_per_s must be above 0, geo.backoff_s not below 0")


@dataclass(frozen=True)
class Remote:
    """A file to fetch: its address, its size in bytes where a listing tells it, and whether a listing vouches for it.

    Where it does, a 404 is taken for one of the server's transient ones and retried.
    """

    url: str
    bytes: int | None = None
    listed: bool = False


@dataclass(frozen=True)
class Receipt:
    """What arrived: address, bytes, SHA-256, UTC time, and the source's version tag (ETag, or size and mtime)."""

    url: str
    bytes: int
    sha256: str
    retrieved: str
    version: str = ""


@dataclass(frozen=True)
class Inspection:
    """Size, SHA-256 and, for a gzip file, what is wrong with it (empty when nothing is)."""

    bytes: int
    sha256: str
    damage: str = ""


@dataclass(eq=False)
class _TransientError(Exception):
    """A failure worth another try; ``most_tries`` bounds how many failures of this kind are tolerated in a row."""

    message: str
    most_tries: int | None = None
    wait_s: float | None = None
    final: type[UserError] = UserError


class _RateLimit:
    """Keeps a minimum distance between requests."""

    def __init__(self, requests_per_s: float) -> None:
        self._interval = 1.0 / requests_per_s
        self._next = 0.0

    def wait(self) -> None:
        now = time.monotonic()
        if now < self._next:
            time.sleep(self._next - now)
        self._next = max(now, self._next) + self._interval


def utc_time(seconds: float | None = None) -> str:
    """ISO 8601 time in UTC to the second; now when ``seconds`` since the epoch are not given."""
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def is_gzip_name(name: str) -> bool:
    """Whether a file of this name claims to be gzipped."""
    return name.lower().endswith((".gz", ".tgz"))


def looks_like_html(head: bytes) -> bool:
    """Whether the first bytes of a body are those of an HTML page."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return text.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<title"))


class _GzipCheck:
    """Follows a gzip stream and notes the first thing wrong with it: magic, checksum, length, end, trailing bytes."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)
        self._pending = False
        self._members = 0
        self.damage = ""

    def feed(self, data: bytes) -> None:
        while data and not self.damage:
            if not self._pending and self._members:  # between members zero padding is legal
                data = data.lstrip(b"\0")
                if not data:
                    return
            self._pending = True
            try:
                while data:
                    self._member.decompress(data, 1 << 22)
                    data = self._member.unconsumed_tail
            except zlib.error as error:
                self.damage = f"not a whole gzip file ({error})"
                return
            if self._member.eof:
                data = self._member.unused_data
                self._member = zlib.decompressobj(wbits=31)
                self._pending = False
                self._members += 1

    def close(self) -> str:
        if not self.damage and (self._pending or not self._members):
            self.damage = "it ends too early"
        return self.damage


def inspect_file(path: Path, name: str | None = None) -> Inspection:
    """Size and SHA-256 of a file, in one pass with the integrity test if its ``name`` claims gzip."""
    digest = hashlib.sha256()
    check = _GzipCheck() if is_gzip_name(name or path.name) else None
    size = 0
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            size += len(block)
            digest.update(block)
            if check:
                check.feed(block)
    return Inspection(size, digest.hexdigest(), check.close() if check else "")


def receipt_path(target: Path) -> Path:
    """Where the receipt of a fetched file lies."""
    return target.with_name(f".{target.name}.receipt.json")


def read_receipt(target: Path) -> Receipt | None:
    """The receipt of ``target``, or None if there is none that can be read."""
    try:
        return Receipt(**json.loads(receipt_path(target).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def file_url_path(url: str) -> Path:
    """The local path that a ``file://`` address names."""
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise UserError(f"{url} names a host; write file:///absolute/path, with three slashes")
    return Path(url2pathname(parts.path))


def _stat_version(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_size}-{stat.st_mtime_ns}"


@dataclass
class _Part:
    """The open, locked file that receives the bytes, and the note beside it that says of what."""

    path: Path
    handle: IO[bytes]
    url: str
    validator: str = ""
    size: int = 0

    @property
    def note(self) -> Path:
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
        try:
            self.handle.write(block)
        except OSError as error:
            raise _disk_error(error, self.path) from error
        self.size += len(block)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def publish(self, target: Path) -> None:
        self.handle.flush()
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
def _open_part(target: Path, url: str) -> Iterator[_Part]:
    """Yield the part file of ``target``; a private one if another process (an orphaned job) is writing to it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shared = target.with_name(f".{target.name}.part")
    handle = shared.open("ab+", buffering=0)
    try:
        if _lock(handle, shared):
            part = _Part(shared, handle, url)
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
        part = _Part(private, handle, url)
        try:
            yield part
        finally:
            part.discard()


@dataclass
class _Progress:
    """A line on standard error now and then while a large file arrives."""

    name: str
    total: int | None
    _next: float = field(default_factory=time.monotonic)

    def show(self, done: int) -> None:
        now = time.monotonic()
        if now < self._next or max(self.total or 0, done) < LARGE_BYTES:
            return
        self._next = now + PROGRESS_EVERY_S
        whole = f" of {self.total / 1e6:,.0f}" if self.total else ""
        print(f"{self.name}: {done / 1e6:,.0f}{whole} MB", file=sys.stderr, flush=True)


class _IndexParser(HTMLParser):
    """Collects the targets of links."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links.extend(value for key, value in attrs if key == "href" and value)


def index_names(page: str) -> list[str]:
    """File names in a server's HTML folder index: links to something in the same folder, percent-decoded.

    Folders, sort links and links elsewhere are left out.
    """
    parser = _IndexParser()
    parser.feed(page)
    names = []
    for link in parser.links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc or parts.query or not parts.path or "/" in parts.path:
            continue
        names.append(unquote(parts.path))
    return list(dict.fromkeys(names))


def _header_number(value: str | None) -> int | None:
    return int(value) if value and value.strip().isdecimal() else None


def _content_range(value: str | None) -> tuple[int, int | None]:
    """First byte and total size (None when the server does not say) of a ``Content-Range`` header."""
    unit, _, rest = (value or "").partition(" ")
    span, _, total = rest.partition("/")
    first = span.partition("-")[0]
    if unit != "bytes" or not first.isdecimal():
        raise _TransientError(f"it answered with an unreadable Content-Range ({value!r})")
    return int(first), _header_number(total)


def retry_after_s(value: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header (seconds or an HTTP date) asks for; None when there is none."""
    if not value:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - time.time())


def _validator(headers: urllib3.HTTPHeaderDict) -> str:
    """What ``If-Range`` may name: a strong ETag, else the modification time; empty where the server gives neither."""
    etag = headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return str(etag)
    return str(headers.get("Last-Modified", ""))


def _total_bytes(response: urllib3.BaseHTTPResponse, part: _Part) -> int | None:
    """Size of the whole file according to the answer; readies ``part`` for the bytes that follow."""
    length = _header_number(response.headers.get("Content-Length"))
    if response.status == 200:
        part.restart(_validator(response.headers))
        return length
    first, total = _content_range(response.headers.get("Content-Range"))
    version = _validator(response.headers)
    if first != part.size or (version and version != part.validator):
        part.restart("")
        raise _TransientError("the file changed on the server while it was being fetched")
    return total if total is not None or length is None else part.size + length


def _refuse_html(response: urllib3.BaseHTTPResponse) -> None:
    if response.headers.get("Content-Type", "").lower().startswith(("text/html", "application/xhtml")):
        raise _html_error()


def _html_error() -> _TransientError:
    return _TransientError("it answered with an HTML page (a captcha or an error page) in place of the file", 3)


def _check_status(response: urllib3.BaseHTTPResponse, remote: Remote) -> None:
    """Pass 200 and 206; everything else becomes an error, transient or final."""
    status = response.status
    wait = retry_after_s(response.headers.get("Retry-After"))
    if status in (200, 206):
        return
    if status in MISSING_STATUS:
        # The server has transient 404s: an unlisted file is believed to be missing the second time.
        raise _TransientError(
            f"there is no such file (status {status})", None if remote.listed else 2, wait, NotFoundError
        )
    if status in TRANSIENT_STATUS or status >= 500:
        raise _TransientError(f"it answered with status {status}", wait_s=wait)
    raise UserError(f"cannot fetch {remote.url}: the server answered with status {status}. Check geo.base_url")


def _check_size(remote: Remote, size: int | None, part: _Part) -> None:
    """Hold the whole file's size against the listing's; a part that is too long already is emptied."""
    if remote.bytes is None or size is None or size == remote.bytes:
        return
    if part.size > remote.bytes:
        part.restart("")
    raise _TransientError(
        f"the file has {size} bytes where the listing says {remote.bytes} (if it was replaced on purpose, fetch "
        "it by hand and name its local path in the sheet)",
        4,
    )


def _disk_error(error: OSError, path: Path) -> UserError:
    if error.errno == errno.ENOSPC:
        return UserError(f"no space left while writing {path}: free some, then run again; the download resumes")
    return UserError(f"cannot write {path}: {error.strerror or error}. Check the folder's permissions")


class Client:
    """Fetches files and folder listings from https, http and ``file://`` addresses; one per process."""

    def __init__(self, settings: TransferSettings | None = None) -> None:
        self.settings = settings or TransferSettings()
        self._limit = _RateLimit(self.settings.requests_per_s)
        self._managers: dict[str, urllib3.PoolManager] = {}

    def fetch(self, remote: Remote, target: Path) -> Receipt:
        """Bring the file of ``remote`` to ``target`` and return its receipt.

        Nothing is transferred if ``target`` is there with a receipt of the same address whose size and SHA-256 it
        matches (for ``file://`` also the source's size and time).

        Raises
        ------
        NotFoundError
            The server has no such file.
        UserError
            The file cannot be had whole after all retries, or not be written.
        """
        kept = self.kept(remote, target)
        if kept:
            return kept
        damage = ""
        for _ in range(2):  # a damaged file is fetched once more from scratch
            with _open_part(target, remote.url) as part:
                version = self._transfer(remote, part)
                inspection = inspect_file(part.path, target.name)
                damage = inspection.damage
                if damage:
                    part.discard()
                    continue
                receipt = Receipt(remote.url, inspection.bytes, inspection.sha256, utc_time(), version)
                write_text(json.dumps(asdict(receipt)), receipt_path(target))
                part.publish(target)
                return receipt
        raise UserError(
            f"{target.name} from {remote.url} is damaged, twice in a row: {damage}. "
            "Run again later; if it stays so the file is damaged at its source: ask its authors or GEO for a whole one"
        )

    def kept(self, remote: Remote, target: Path) -> Receipt | None:
        """The receipt of ``target`` if it is already the file that ``remote`` names, unharmed."""
        receipt = read_receipt(target)
        if receipt is None or receipt.url != remote.url or not target.is_file():
            return None
        if target.stat().st_size != receipt.bytes or (remote.bytes is not None and remote.bytes != receipt.bytes):
            return None
        if remote.url.startswith("file:"):
            source = file_url_path(remote.url)
            if not source.is_file() or _stat_version(source) != receipt.version:
                return None
        return receipt if sha256(target) == receipt.sha256 else None

    def list_folder(self, url: str) -> list[str]:
        """Names of the files in a folder, from the tree itself or from the server's HTML index.

        Raises
        ------
        NotFoundError
            There is no such folder.
        """
        if url.startswith("file:"):
            folder = file_url_path(url)
            if not folder.is_dir():
                raise NotFoundError(f"cannot list {url}: there is no such folder")
            return sorted(entry.name for entry in folder.iterdir() if entry.is_file())
        remote = Remote(url.rstrip("/") + "/")
        return self._persist(remote.url, lambda: self._read_index(remote), lambda: 0)

    def _transfer(self, remote: Remote, part: _Part) -> str:
        """Fill ``part`` with the whole file; returns the source's version tag."""
        scheme = urlsplit(remote.url).scheme
        if scheme == "file":
            return self._copy(remote, part)
        if scheme not in ("http", "https"):
            raise UserError(f"cannot fetch {remote.url}: only https, http and file addresses are known")
        self._persist(remote.url, lambda: self._attempt(remote, part), lambda: part.size)
        return part.validator

    def _persist(self, url: str, attempt: Callable[[], T], progress: Callable[[], int]) -> T:
        """Repeat ``attempt`` until it succeeds, or fails too often without bringing the transfer further."""
        tries = 0
        while True:
            before = progress()
            try:
                return attempt()
            except _TransientError as error:
                grown = progress() - before
                tries = 1 if grown >= self.settings.progress_bytes else tries + 1
                if tries >= min(error.most_tries or self.settings.attempts, self.settings.attempts):
                    count = "once" if tries == 1 else f"{tries} times"
                    raise error.final(
                        f"cannot fetch {url}, tried {count}: {error.message}. "
                        "Check the accession, geo.base_url and the network; a later run resumes where this one stopped"
                    ) from error.__cause__
                wait = self.settings.backoff_s * 2 ** (tries - 1) if error.wait_s is None else error.wait_s
            time.sleep(min(wait, self.settings.longest_wait_s))

    def _attempt(self, remote: Remote, part: _Part) -> None:
        headers = {}
        if part.size and part.validator:
            headers = {"Range": f"bytes={part.size}-", "If-Range": part.validator}
        elif part.size:
            part.restart("")
        with self._request(remote, headers) as response:
            if response.status == 416:
                part.restart("")
                raise _TransientError("the server has fewer bytes than were already fetched")
            _check_status(response, remote)
            _refuse_html(response)
            total = _total_bytes(response, part)
            self._receive(response, remote, total, part)
        if total is not None and part.size != total:
            raise _TransientError(f"the connection ended after {part.size} of {total} bytes")
        _check_size(remote, part.size, part)

    def _receive(self, response: urllib3.BaseHTTPResponse, remote: Remote, total: int | None, part: _Part) -> None:
        block = response.read1(CHUNK_BYTES, decode_content=False)
        if part.size == 0 and looks_like_html(block[:512]):
            raise _html_error()
        _check_size(remote, total, part)
        progress = _Progress(_last_name(remote.url), total)
        while block:
            part.write(block)
            progress.show(part.size)
            block = response.read1(CHUNK_BYTES, decode_content=False)

    def _read_index(self, remote: Remote) -> list[str]:
        with self._request(remote, {}) as response:
            _check_status(response, remote)
            page = response.read(LARGEST_INDEX_BYTES, decode_content=False).decode("utf-8", "replace")
        if not looks_like_html(page[:512].encode()):
            raise _TransientError("it answered with something that is no HTML index", 3)
        return index_names(page)

    def _copy(self, remote: Remote, part: _Part) -> str:
        source = file_url_path(remote.url)
        if not source.is_file():
            raise NotFoundError(f"cannot fetch {remote.url}: there is no such file")
        version = _stat_version(source)
        part.restart("")
        with source.open("rb") as handle:
            if looks_like_html(handle.read(512)):
                raise UserError(f"{source} is an HTML page, not data: replace it in the mirror by the real file")
            handle.seek(0)
            while block := handle.read(1 << 20):
                part.write(block)
        if remote.bytes is not None and part.size != remote.bytes:
            raise UserError(
                f"{source} has {part.size} bytes where its listing says {remote.bytes}: mend the mirror, or its listing"
            )
        return version

    @contextmanager
    def _request(self, remote: Remote, headers: dict[str, str]) -> Iterator[urllib3.BaseHTTPResponse]:
        """One GET; connection errors, stalls and broken bodies become transient errors."""
        self._limit.wait()
        response = None
        try:
            response = self._manager(remote.url).request(
                "GET",
                remote.url,
                headers={"User-Agent": f"immunomod/{__version__}", "Accept-Encoding": "identity", **headers},
                preload_content=False,
                decode_content=False,
                retries=REDIRECTS_ONLY,
            )
            yield response
        except (urllib3.exceptions.LocationValueError, urllib3.exceptions.URLSchemeUnknown) as error:
            raise UserError(f"cannot fetch {remote.url}: no usable address. Check geo.base_url") from error
        except urllib3.exceptions.MaxRetryError as error:
            raise _TransientError(f"no connection ({error.reason})", 5) from error
        except urllib3.exceptions.HTTPError as error:
            raise _TransientError(f"the connection broke ({error})") from error
        finally:
            if response is not None:
                response.close()

    def _manager(self, url: str) -> urllib3.PoolManager:
        proxy = _proxy(url)
        if proxy not in self._managers:
            timeout = urllib3.Timeout(connect=self.settings.timeout_s, read=self.settings.timeout_s)
            self._managers[proxy] = (
                urllib3.ProxyManager(proxy, timeout=timeout) if proxy else urllib3.PoolManager(timeout=timeout)
            )
        return self._managers[proxy]


def _last_name(url: str) -> str:
    return unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2])


def _proxy(url: str) -> str:
    """The proxy that the environment (``https_proxy``, ``no_proxy``) names for an address; empty for none."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host == "localhost" or host.startswith("127.") or host == "::1" or proxy_bypass(host):
        return ""
    return getproxies().get(parts.scheme, "")
