"""Fetching one file over https, http or from a ``file://`` tree, so that what arrives is whole or does not arrive.

The bytes go to a hidden ``.part`` file beside the target. A connection that breaks is resumed with ``Range`` and
``If-Range`` (the server's ETag is kept beside the part, so a file that changed meanwhile starts again). Busy answers
are retried after ``Retry-After`` or with exponential backoff; 429, and 503 with ``Retry-After``, pause the requests of
all threads to that host. An HTML body is refused: the public server may answer a program with a captcha page as HTTP
200. Sizes are held against the listing and ``Content-Length``, compressed files against their own checksums; then the
file is hashed, flushed and renamed, and a receipt beside it lets the next run see that nothing needs fetching.

A :class:`Client` may be used by several threads at once; they share its rate of requests.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass, url2pathname

import urllib3

from immunomod import __version__
from immunomod.acquire.answers import (
    NotFoundError,
    Remote,
    TransientError,
    check_size,
    check_status,
    html_error,
    index_names,
    refuse_html,
    total_bytes,
)
from immunomod.acquire.checks import inspect_file, looks_like_html
from immunomod.acquire.disk import refuse_small_disk
from immunomod.acquire.pace import Pace
from immunomod.acquire.parts import Part, Receipt, open_part, read_receipt, write_receipt
from immunomod.acquire.progress import FileProgress
from immunomod.errors import UserError
from immunomod.files import sha256

__all__ = ["Client", "NotFoundError", "Receipt", "Remote", "TransferSettings", "file_url_path", "utc_time"]

CHUNK_BYTES = 1 << 16
LARGEST_INDEX_BYTES = 64 << 20
MOST_PARALLEL = 16

# Everything but redirects is retried here, where what has arrived is known.
REDIRECTS_ONLY = urllib3.Retry(5, connect=0, read=0, status=0, other=0, redirect=5, respect_retry_after_header=False)

T = TypeVar("T")


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
        Upper bound of one process, all its threads together; the public server refuses above 50 from all of a user's
        processes.
    parallel_downloads
        Files that are fetched at once, 1 to 16.
    """

    attempts: int = 8
    backoff_s: float = 1.0
    longest_wait_s: float = 120.0
    timeout_s: float = 60.0
    requests_per_s: float = 5.0
    progress_bytes: int = 1 << 20
    parallel_downloads: int = 4

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise UserError(f"geo.attempts is {self.attempts}; it must be at least 1")
        if min(self.timeout_s, self.requests_per_s) <= 0 or self.backoff_s < 0:
            raise UserError("geo.timeout_s and geo.requests_per_s must be above 0, geo.backoff_s not below 0")
        if not 1 <= self.parallel_downloads <= MOST_PARALLEL:
            raise UserError(
                f"geo.parallel_downloads is {self.parallel_downloads}; it must be from 1 to {MOST_PARALLEL}"
            )


def utc_time(seconds: float | None = None) -> str:
    """ISO 8601 time in UTC to the second; now when ``seconds`` since the epoch are not given."""
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def file_url_path(url: str) -> Path:
    """The local path that a ``file://`` address names."""
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise UserError(f"{url} names a host; write file:///absolute/path, with three slashes")
    return Path(url2pathname(parts.path))


def _stat_version(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_size}-{stat.st_mtime_ns}"


class Client:
    """Fetches files and folder listings from https, http and ``file://`` addresses; one per process."""

    def __init__(self, settings: TransferSettings | None = None) -> None:
        self.settings = settings or TransferSettings()
        self._pace = Pace(self.settings.requests_per_s)
        self._lock = threading.Lock()
        self._managers: dict[str, urllib3.PoolManager] = {}
        self._responses: set[urllib3.BaseHTTPResponse] = set()

    def stop(self) -> None:
        """Call off all transfers, in whichever thread: they raise ``StoppedError`` and keep their part files."""
        self._pace.stop()
        with self._lock:
            for response in self._responses:
                with suppress(Exception):  # it may be closing at this moment
                    response.shutdown()

    def go_on(self) -> None:
        """Raise ``StoppedError`` if :meth:`stop` was called."""
        self._pace.go_on()

    def fetch(self, remote: Remote, target: Path, progress: FileProgress | None = None) -> Receipt:
        """Bring the file of ``remote`` to ``target`` and return its receipt.

        Nothing is transferred if ``target`` is there with a receipt of the same address whose size and SHA-256 it
        matches (for ``file://`` also the source's size and time).

        Raises
        ------
        NotFoundError
            The server has no such file.
        UserError
            The file cannot be had whole after all retries, or not be written.
        StoppedError
            :meth:`stop` was called.
        """
        progress = progress or FileProgress()
        receipt = self.kept(remote, target) or self._fetch(remote, target, progress)
        progress.finish(receipt.bytes)
        return receipt

    def _fetch(self, remote: Remote, target: Path, progress: FileProgress) -> Receipt:
        damage = ""
        for _ in range(2):  # a damaged file is fetched once more from scratch
            with open_part(target, remote.url) as part:
                version = self._transfer(remote, part, progress)
                inspection = inspect_file(part.path, target.name, self.go_on)
                damage = inspection.damage
                if damage:
                    part.discard()
                    continue
                receipt = Receipt(remote.url, inspection.bytes, inspection.sha256, utc_time(), version)
                write_receipt(receipt, target)
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

    def size(self, url: str) -> int | None:
        """Bytes of a file as its source declares them; None where it does not, or has no such file."""
        if url.startswith("file:"):
            path = file_url_path(url)
            return path.stat().st_size if path.is_file() else None
        remote = Remote(url)

        def ask() -> int | None:
            with self._request(remote, {}) as response:
                check_status(response, remote)
                length = response.headers.get("Content-Length", "")
                return int(length) if length.isdecimal() else None

        try:
            return self._persist(url, ask, lambda: 0)
        except NotFoundError:
            return None

    def _transfer(self, remote: Remote, part: Part, progress: FileProgress) -> str:
        """Fill ``part`` with the whole file; returns the source's version tag."""
        scheme = urlsplit(remote.url).scheme
        if scheme == "file":
            return self._copy(remote, part, progress)
        if scheme not in ("http", "https"):
            raise UserError(f"cannot fetch {remote.url}: only https, http and file addresses are known")
        self._persist(remote.url, lambda: self._attempt(remote, part, progress), lambda: part.size)
        return part.validator

    def _persist(self, url: str, attempt: Callable[[], T], position: Callable[[], int]) -> T:
        """Repeat ``attempt`` until it succeeds, or fails too often without bringing the transfer further."""
        tries = 0
        while True:
            before = position()
            try:
                return attempt()
            except TransientError as error:
                self.go_on()
                grown = position() - before
                tries = 1 if grown >= self.settings.progress_bytes else tries + 1
                if tries >= min(error.most_tries or self.settings.attempts, self.settings.attempts):
                    count = "once" if tries == 1 else f"{tries} times"
                    raise error.final(
                        f"cannot fetch {url}, tried {count}: {error.message}. "
                        "Check the accession, geo.base_url and the network; a later run resumes where this one stopped"
                    ) from error.__cause__
                wait = self.settings.backoff_s * 2 ** (tries - 1) if error.wait_s is None else error.wait_s
                wait = min(wait, self.settings.longest_wait_s)
                if error.for_all:
                    self._pace.hold(_host(url), wait)
            self._pace.sleep(wait)

    def _attempt(self, remote: Remote, part: Part, progress: FileProgress) -> None:
        headers = {}
        if part.size and part.validator:
            headers = {"Range": f"bytes={part.size}-", "If-Range": part.validator}
        elif part.size:
            part.restart("")
        with self._request(remote, headers) as response:
            if response.status == 416:
                part.restart("")
                raise TransientError("the server has fewer bytes than were already fetched")
            check_status(response, remote)
            refuse_html(response)
            total = total_bytes(response, part)
            self._receive(response, remote, total, part, progress)
        if total is not None and part.size != total:
            raise TransientError(f"the connection ended after {part.size} of {total} bytes")
        check_size(remote, part.size, part)

    def _receive(
        self,
        response: urllib3.BaseHTTPResponse,
        remote: Remote,
        total: int | None,
        part: Part,
        progress: FileProgress,
    ) -> None:
        block = response.read1(CHUNK_BYTES, decode_content=False)
        if part.size == 0 and looks_like_html(block[:512]):
            raise html_error()
        check_size(remote, total, part)
        if total is not None:
            refuse_small_disk(remote.url, total - part.size, part.path.parent)
        progress.begin(part.size, total)
        while block:
            self.go_on()
            part.write(block)
            progress.add(len(block))
            block = response.read1(CHUNK_BYTES, decode_content=False)
        self.go_on()  # a transfer that was called off looks like one that ended

    def _read_index(self, remote: Remote) -> list[str]:
        with self._request(remote, {}) as response:
            check_status(response, remote)
            page = response.read(LARGEST_INDEX_BYTES, decode_content=False).decode("utf-8", "replace")
        if not looks_like_html(page[:512].encode()):
            raise TransientError("it answered with something that is no HTML index", 3)
        return index_names(page)

    def _copy(self, remote: Remote, part: Part, progress: FileProgress) -> str:
        source = file_url_path(remote.url)
        if not source.is_file():
            raise NotFoundError(f"cannot fetch {remote.url}: there is no such file")
        version = _stat_version(source)
        part.restart("")
        progress.begin(0, source.stat().st_size)
        with source.open("rb") as handle:
            if looks_like_html(handle.read(512)):
                raise UserError(f"{source} is an HTML page, not data: replace it in the mirror by the real file")
            handle.seek(0)
            while block := handle.read(1 << 20):
                self.go_on()
                part.write(block)
                progress.add(len(block))
        if remote.bytes is not None and part.size != remote.bytes:
            raise UserError(
                f"{source} has {part.size} bytes where its listing says {remote.bytes}: mend the mirror, or its listing"
            )
        return version

    @contextmanager
    def _request(self, remote: Remote, headers: dict[str, str]) -> Iterator[urllib3.BaseHTTPResponse]:
        """One GET; connection errors, stalls and broken bodies become transient errors."""
        self._pace.wait(_host(remote.url))
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
            with self._lock:
                self._responses.add(response)
            self.go_on()
            yield response
        except (urllib3.exceptions.LocationValueError, urllib3.exceptions.URLSchemeUnknown) as error:
            raise UserError(f"cannot fetch {remote.url}: no usable address. Check geo.base_url") from error
        except urllib3.exceptions.MaxRetryError as error:
            raise TransientError(f"no connection ({error.reason})", 5) from error
        except urllib3.exceptions.HTTPError as error:
            raise TransientError(f"the connection broke ({error})") from error
        finally:
            if response is not None:
                with self._lock:
                    self._responses.discard(response)
                response.close()

    def _manager(self, url: str) -> urllib3.PoolManager:
        proxy = _proxy(url)
        with self._lock:
            if proxy not in self._managers:
                timeout = urllib3.Timeout(connect=self.settings.timeout_s, read=self.settings.timeout_s)
                size = self.settings.parallel_downloads
                self._managers[proxy] = (
                    urllib3.ProxyManager(proxy, timeout=timeout, maxsize=size)
                    if proxy
                    else urllib3.PoolManager(timeout=timeout, maxsize=size)
                )
            return self._managers[proxy]


def _host(url: str) -> str:
    return urlsplit(url).netloc.lower()


def _proxy(url: str) -> str:
    """The proxy that the environment (``https_proxy``, ``no_proxy``) names for an address; empty for none."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host == "localhost" or host.startswith("127.") or host == "::1" or proxy_bypass(host):
        return ""
    return getproxies().get(parts.scheme, "")
