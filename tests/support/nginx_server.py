"""A real nginx on loopback for tests: its own config, logs and temporary files below a folder, no rights needed.

with NginxServer(tree, work, server="limit_rate 300k;") as server:
    ... fetch from server.base_url ...
    server.kill(); server.start()
    assert server.answers() == [(206, 12345), ...]
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

CONFIG = """
daemon off;
master_process off;
pid {work}/nginx.pid;
error_log {work}/error.log warn;
events {{ worker_connections 64; }}
http {{
    client_body_temp_path {work}/body;
    proxy_temp_path {work}/proxy;
    fastcgi_temp_path {work}/fastcgi;
    uwsgi_temp_path {work}/uwsgi;
    scgi_temp_path {work}/scgi;
    log_format answers "$status $body_bytes_sent $uri";
    access_log {work}/access.log answers;
    types {{ text/html html; }}
    default_type application/octet-stream;
    {http}
    server {{
        listen 127.0.0.1:{port}{tls};
        root {root};
        autoindex on;
        {server}
    }}
}}
"""


def find_nginx() -> str | None:
    """nginx's program, also where it is not on a plain user's path."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class NginxServer:
    """Serves a folder with the layout of GEO's server.

    Parameters
    ----------
    root
        Holds the folder ``geo``.
    work
        For the config, the logs and temporary files.
    http, server
        Lines for these blocks of the config.
    certificate
        A certificate and its key: serve https.
    """

    def __init__(
        self, root: Path, work: Path, http: str = "", server: str = "", certificate: tuple[Path, Path] | None = None
    ) -> None:
        self.work = work
        self.port = _free_port()
        self._scheme = "https" if certificate else "http"
        if certificate:
            server = f"ssl_certificate {certificate[0]}; ssl_certificate_key {certificate[1]}; {server}"
        work.mkdir(parents=True, exist_ok=True)
        tls = " ssl" if certificate else ""
        text = CONFIG.format(work=work, root=root, port=self.port, http=http, server=server, tls=tls)
        (work / "nginx.conf").write_text(text, encoding="utf-8")

    def __enter__(self) -> NginxServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it and wait until it answers."""
        program = find_nginx()
        assert program is not None
        self._process = subprocess.Popen(
            [program, "-p", str(self.work), "-e", str(self.work / "error.log"), "-c", str(self.work / "nginx.conf")],
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert self._process.poll() is None, (self.work / "error.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    @property
    def base_url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}/geo"

    def answers(self) -> list[tuple[int, int, str]]:
        """Status, bytes of the body and path of each answer that ended."""
        lines = (self.work / "access.log").read_text(encoding="utf-8").splitlines()
        fields = [line.split(" ", 2) for line in lines]
        return [(int(status), int(count), path) for status, count, path in fields]
