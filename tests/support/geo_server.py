"""A loopback stand-in for GEO's server: ranges, ETags, folder indexes, and faults on demand.

    with GeoServer(tree) as server:
        server.fault("/geo/series/…/file.gz", Fault(status=503, retry_after="1"), Fault(drop_after=1000))
        ... fetch from server.base_url ...
        assert server.requests == [...]

Each fault is used up by one GET of its path, in order; afterwards the file is served as it is. ``tree`` holds a folder
``geo`` with the public server's layout. Run as a program (``python geo_server.py TREE [PORT]``) it serves until killed.
"""

from __future__ import annotations

import html
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from types import TracebackType
from urllib.parse import quote, unquote, urlsplit

BLOCK_BYTES = 8192


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one answer.

    ``drop_after``: the connection ends after so many bytes of the body (with ``reset``, by a TCP reset);
    ``truncate_to``: a short body under an honest Content-Length; ``corrupt_at``: the byte at this offset of the file
    is flipped; ``stall_s``: silence before the body; ``etag``: another version tag, which ``If-Range`` is held
    against; ``page``: an HTML page as status 200, with ``content_type``; ``rate``: bytes of the body a second.
    """

    status: int = 0
    retry_after: str = ""
    drop_after: int | None = None
    reset: bool = False
    truncate_to: int | None = None
    corrupt_at: int | None = None
    stall_s: float = 0.0
    rate: float = 0.0
    etag: str = ""
    ignore_range: bool = False
    ignore_if_range: bool = False
    page: str = ""
    content_type: str = ""
    redirect: str = ""


@dataclass(frozen=True)
class Request:
    """A request that the server saw."""

    path: str
    range: str | None
    if_range: str | None
    at: float


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        with self.server.counted():
            self._answer_get(path)

    def _answer_get(self, path: str) -> None:
        fault = self.server.take(path, self.headers.get("Range"), self.headers.get("If-Range"))
        file = (self.server.root / path.lstrip("/")).resolve()
        if not file.is_relative_to(self.server.root):
            self._answer(403, b"")
        elif fault.redirect:
            self._answer(302, b"", Location=fault.redirect)
        elif fault.status:
            self._answer(fault.status, b"busy\n", **({"Retry-After": fault.retry_after} if fault.retry_after else {}))
        elif fault.page:
            self._answer(200, fault.page.encode(), **{"Content-Type": fault.content_type or "text/html"})
        elif file.is_dir() and path.endswith("/"):
            self._answer(200, _index(path, file), **{"Content-Type": "text/html;charset=UTF-8"})
        elif file.is_dir():
            self._answer(301, b"", Location=quote(path) + "/")
        elif file.is_file():
            self._send(file, fault)
        else:
            self._answer(404, b"not here\n")

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _send(self, file: Path, fault: Fault) -> None:
        content = bytearray(file.read_bytes())
        if fault.corrupt_at is not None:
            content[fault.corrupt_at] ^= 0xFF
        stat = file.stat()
        etag = f'"{fault.etag or f"{stat.st_mtime_ns:x}-{stat.st_size:x}"}"'
        first = self._first_byte(etag, fault)
        if first is not None and first >= len(content):
            self._answer(416, b"", **{"Content-Range": f"bytes */{len(content)}"})
            return
        body = bytes(content[first or 0 :])[: fault.truncate_to]
        self.send_response(200 if first is None else 206)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", etag)
        self.send_header("Last-Modified", formatdate(stat.st_mtime, usegmt=True))
        self.send_header("Content-Type", fault.content_type or "application/octet-stream")
        if first is not None:
            self.send_header("Content-Range", f"bytes {first}-{first + len(body) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.flush()
        time.sleep(fault.stall_s)
        self._write_body(body, fault)

    def _first_byte(self, etag: str, fault: Fault) -> int | None:
        asked = self.headers.get("Range", "")
        if fault.ignore_range or not (asked.startswith("bytes=") and asked.endswith("-")):
            return None
        if not fault.ignore_if_range and self.headers.get("If-Range", etag) != etag:
            return None
        return int(asked.removeprefix("bytes=").removesuffix("-"))

    def _write_body(self, body: bytes, fault: Fault) -> None:
        end = len(body) if fault.drop_after is None else min(fault.drop_after, len(body))
        try:
            for start in range(0, end, BLOCK_BYTES):
                self.wfile.write(body[start : min(start + BLOCK_BYTES, end)])
                if fault.rate:
                    time.sleep(BLOCK_BYTES / fault.rate)
            self.wfile.flush()
        except OSError:  # the client has left
            self.close_connection = True
            return
        if fault.drop_after is not None:
            self.close_connection = True
            if fault.reset:
                time.sleep(0.05)  # a reset overtakes bytes that are still under way
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()


def _index(path: str, folder: Path) -> bytes:
    """A folder's page as Apache writes it: sort links, the parent folder, then the entries."""
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in folder.iterdir())
    links = "".join(f'<a href="{quote(name)}">{html.escape(name)}</a>  2017-03-15 00:00  3.3M\n' for name in names)
    head = f"<title>Index of {path}</title></head><body><h1>Index of {path}</h1>"
    sort = '<a href="?C=N;O=D">Name</a> <a href="/geo/">Parent Directory</a>'
    return f"<!DOCTYPE HTML>\n<html><head>{head}<pre>{sort}\n{links}</pre></body></html>".encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, root: Path, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.root = root.resolve()
        self.faults: dict[str, list[Fault]] = {}
        self.requests: list[Request] = []
        self.at_once = self.most_at_once = 0
        self.lock = Lock()

    @contextmanager
    def counted(self) -> Iterator[None]:
        with self.lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            yield
        finally:
            with self.lock:
                self.at_once -= 1

    def take(self, path: str, asked: str | None, if_range: str | None) -> Fault:
        with self.lock:
            self.requests.append(Request(path, asked, if_range, time.monotonic()))
            waiting = self.faults.get(path)
            return waiting.pop(0) if waiting else Fault()

    def handle_error(self, request: object, client_address: object) -> None:
        pass


class GeoServer:
    """Serves a tree on a free loopback port while the context is open."""

    def __init__(self, root: Path, port: int = 0) -> None:
        self._server = _Server(root, port)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> GeoServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def root_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def base_url(self) -> str:
        """What ``geo.base_url`` is set to."""
        return f"{self.root_url}/geo"

    @property
    def requests(self) -> list[Request]:
        with self._server.lock:
            return list(self._server.requests)

    @property
    def most_at_once(self) -> int:
        """Most requests that were being answered at the same time."""
        with self._server.lock:
            return self._server.most_at_once

    def requested(self) -> list[str]:
        """Base names of the paths asked for, in order (a folder's name ends in ``/``)."""
        return [
            request.path.rstrip("/").rpartition("/")[2] + "/" * request.path.endswith("/") for request in self.requests
        ]

    def fault(self, path: str, *faults: Fault) -> None:
        """Queue faults for a path (percent-decoded, from the root of the server)."""
        with self._server.lock:
            self._server.faults.setdefault(path, []).extend(faults)

    def forget(self) -> None:
        """Clear the record of requests and the faults that were not used."""
        with self._server.lock:
            self._server.requests.clear()
            self._server.faults.clear()
            self._server.most_at_once = 0


if __name__ == "__main__":
    with GeoServer(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0) as running:
        print(running.base_url, flush=True)
        while True:
            time.sleep(3600)
