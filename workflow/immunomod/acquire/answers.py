"""What a server's answer means for a file that is wanted: status, headers, sizes, HTML pages, folder indexes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import urllib3

from immunomod.acquire.parts import Part
from immunomod.errors import UserError

TRANSIENT_STATUS = frozenset({403, 408, 425, 429, 500, 502, 503, 504})
MISSING_STATUS = frozenset({404, 410})
TOO_MANY_REQUESTS = 429


class NotFoundError(UserError):
    """The server says that there is no such file."""


@dataclass(frozen=True)
class Remote:
    """A file to fetch: its address, its size in bytes where a listing tells it, and whether a listing vouches for it.

    Where it does, a 404 is taken for one of the server's transient ones and retried.
    """

    url: str
    bytes: int | None = None
    listed: bool = False


@dataclass(eq=False)
class TransientError(Exception):
    """A failure worth another try.

    Attributes
    ----------
    message
        What happened, as half a sentence.
    most_tries
        Bounds how many failures of this kind are tolerated in a row.
    wait_s
        What the server asked to wait for, in seconds.
    final
        The error to end on.
    for_all
        Whether the server means all requests from here, not this file: other threads pause too.
    """

    message: str
    most_tries: int | None = None
    wait_s: float | None = None
    final: type[UserError] = UserError
    for_all: bool = False


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


def check_status(response: urllib3.BaseHTTPResponse, remote: Remote) -> None:
    """Pass 200 and 206; everything else becomes an error, transient or final."""
    status = response.status
    wait = retry_after_s(response.headers.get("Retry-After"))
    if status in (200, 206):
        return
    if status in MISSING_STATUS:
        # The server has transient 404s: an unlisted file is believed to be missing the second time.
        raise TransientError(
            f"there is no such file (status {status})", None if remote.listed else 2, wait, NotFoundError
        )
    if status in TRANSIENT_STATUS or status >= 500:
        busy = status == TOO_MANY_REQUESTS or (status == 503 and wait is not None)
        raise TransientError(f"it answered with status {status}", wait_s=wait, for_all=busy)
    raise UserError(f"cannot fetch {remote.url}: the server answered with status {status}. Check geo.base_url")


def refuse_html(response: urllib3.BaseHTTPResponse) -> None:
    """Raise if the answer says of itself that it is a page."""
    if response.headers.get("Content-Type", "").lower().startswith(("text/html", "application/xhtml")):
        raise html_error()


def html_error() -> TransientError:
    """The failure of a page where a file was asked for."""
    return TransientError("it answered with an HTML page (a captcha or an error page) in place of the file", 3)


def total_bytes(response: urllib3.BaseHTTPResponse, part: Part) -> int | None:
    """Size of the whole file according to the answer; readies ``part`` for the bytes that follow."""
    length = _header_number(response.headers.get("Content-Length"))
    if response.status == 200:
        part.restart(_validator(response.headers))
        return length
    first, total = _content_range(response.headers.get("Content-Range"))
    version = _validator(response.headers)
    if first != part.size or (version and version != part.validator):
        part.restart("")
        raise TransientError("the file changed on the server while it was being fetched")
    return total if total is not None or length is None else part.size + length


def check_size(remote: Remote, size: int | None, part: Part) -> None:
    """Hold the whole file's size against the listing's; a part that is too long already is emptied."""
    if remote.bytes is None or size is None or size == remote.bytes:
        return
    if part.size > remote.bytes:
        part.restart("")
    raise TransientError(
        f"the file has {size} bytes where the listing says {remote.bytes} (if it was replaced on purpose, fetch "
        "it by hand and name its local path in the sheet)",
        4,
    )


def _header_number(value: str | None) -> int | None:
    return int(value) if value and value.strip().isdecimal() and len(value) < 20 else None


def _content_range(value: str | None) -> tuple[int, int | None]:
    """First byte and total size (None when the server does not say) of a ``Content-Range`` header."""
    unit, _, rest = (value or "").partition(" ")
    span, _, total = rest.partition("/")
    first = _header_number(span.partition("-")[0])
    if unit != "bytes" or first is None:
        raise TransientError(f"it answered with an unreadable Content-Range ({value!r})")
    return first, _header_number(total)


def _validator(headers: urllib3.HTTPHeaderDict) -> str:
    """What ``If-Range`` may name: a strong ETag, else the modification time; empty where the server gives neither."""
    etag = headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return str(etag)
    return str(headers.get("Last-Modified", ""))


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
        try:
            parts = urlsplit(link)
        except ValueError:  # such as http://[half an address
            continue
        if parts.scheme or parts.netloc or parts.query or not parts.path or "/" in parts.path:
            continue
        names.append(unquote(parts.path))
    return list(dict.fromkeys(names))
