"""Reads a report's HTML without a browser."""

from __future__ import annotations

import base64
import gzip
import io
from dataclasses import dataclass, field
from html.parser import HTMLParser

import pandas as pd


@dataclass(frozen=True)
class Element:
    """A start tag."""

    name: str
    attributes: dict[str, str]


@dataclass
class Page:
    """All start tags of a page in order, and its text."""

    elements: list[Element] = field(default_factory=list)
    text: str = ""

    @classmethod
    def parse(cls, html: str) -> Page:
        page = cls()
        chunks: list[str] = []

        class Parser(HTMLParser):
            def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
                page.elements.append(Element(tag, {name: value or "" for name, value in attrs}))

            def handle_data(self, data: str) -> None:
                chunks.append(data)

        Parser().feed(html)
        page.text = " ".join("".join(chunks).split())
        return page

    def named(self, name: str) -> list[Element]:
        return [element for element in self.elements if element.name == name]

    def downloads(self) -> dict[str, pd.DataFrame]:
        """Every embedded table by its file name."""
        tables = {}
        for element in self.named("a"):
            if "download" not in element.attributes:
                continue
            content = base64.b64decode(element.attributes["href"].partition("base64,")[2])
            name = element.attributes["download"]
            raw = gzip.decompress(content) if name.endswith(".gz") else content
            tables[name] = pd.read_csv(io.BytesIO(raw), sep="\t") if raw.strip() else pd.DataFrame()
        return tables
