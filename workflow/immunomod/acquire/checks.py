"""Whether a file is what its name says and arrived whole: HTML in place of data, damaged compression, size, hash."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from immunomod.acquire.inflate import DamageError, Inflater, compression_of_name


@dataclass(frozen=True)
class Inspection:
    """Size in bytes, SHA-256 and, for a compressed file, what is wrong with it (empty when nothing is)."""

    bytes: int
    sha256: str
    damage: str = ""


def looks_like_html(head: bytes) -> bool:
    """Whether the first bytes of a body are those of an HTML page."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return text.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<title"))


class _StreamCheck:
    """Follows a compressed stream and notes the first thing wrong with it: magic, checksum, length, end, trailer."""

    def __init__(self, kind: str) -> None:
        self._inflater = Inflater(kind)
        self._begun = False
        self.damage = ""

    def feed(self, data: bytes) -> None:
        if not self._begun and looks_like_html(data[:512]):
            self.damage = "it is an HTML page (a captcha or an error page saved under this name)"
        self._begun = True
        if self.damage:
            return
        try:
            for _ in self._inflater.feed(data):
                pass
        except DamageError as error:
            self.damage = str(error)

    def close(self) -> str:
        if not self.damage:
            try:
                self._inflater.close()
            except DamageError as error:
                self.damage = str(error)
        return self.damage


def inspect_file(path: Path, name: str | None = None, go_on: Callable[[], None] = lambda: None) -> Inspection:
    """Size and SHA-256 of a file, in one pass with the integrity test if its ``name`` claims compression.

    ``go_on`` is called between blocks; what it raises ends the work.
    """
    digest = hashlib.sha256()
    kind = compression_of_name(name or path.name)
    check = _StreamCheck(kind) if kind else None
    size = 0
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            go_on()
            size += len(block)
            digest.update(block)
            if check:
                check.feed(block)
    return Inspection(size, digest.hexdigest(), check.close() if check else "")
