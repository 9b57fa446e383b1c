"""Holds the numbers of a report against the tables of its run, reading the page as a reader does.

Nothing of the package's own views is used: a row of the page is explained when all of its numbers stand, rounded as
shown, in one row of a table that its section links to.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd

from immunomod.programs import load_programs
from immunomod.report.palette import class_label
from immunomod.sample.summary import NOT_OF_THE_SAMPLE

_VOID = {"meta", "link", "input", "img", "br", "col"}
_NUMBER = re.compile(r"(?<![\w.-])[+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?(?![\w])%?", re.IGNORECASE)
_SPAN = re.compile(
    r"([+-]?\d+\.\d+)(?: log2 units?)?[^()]{0,40}?\(?(?:[^()]*, )?95% interval ([+-]?\d+\.\d+) to ([+-]?\d+\.\d+)"
)
#: Tables of the page in which every cell is a row of its own in the run's table.
_BY_CELL = {"heat", "markers", "leaks"}


@dataclass
class Node:
    """An element: its tag, attributes, children (elements and text)."""

    name: str
    attributes: dict[str, str]
    parent: Node | None = None
    children: list[Node | str] = field(default_factory=list)

    @property
    def classes(self) -> set[str]:
        return set(self.attributes.get("class", "").split())

    def walk(self) -> Iterator[Node]:
        yield self
        for child in self.children:
            if isinstance(child, Node):
                yield from child.walk()

    def all(self, name: str, css: str = "") -> list[Node]:
        return [node for node in self.walk() if node.name == name and (not css or css in node.classes)]

    def text(self, skip: tuple[str, ...] = ("svg", "script", "style", "button")) -> str:
        """What a reader sees, without drawings; minus signs as hyphens."""
        parts = [child if isinstance(child, str) else child.text(skip) for child in self.children]
        own = "" if self.name in skip else " ".join("".join(f" {part} " for part in parts).split())
        return own.replace("\N{MINUS SIGN}", "-")

    def ancestors(self) -> Iterator[Node]:
        node = self.parent
        while node is not None:
            yield node
            node = node.parent


class _Tree(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = self.at = Node("root", {})

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs}, self.at)
        self.at.children.append(node)
        if tag not in _VOID:
            self.at = node

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.at.children.append(Node(tag, {name: value or "" for name, value in attrs}, self.at))

    def handle_endtag(self, tag: str) -> None:
        for node in (self.at, *self.at.ancestors()):
            if node.name == tag and node.parent is not None:
                self.at = node.parent
                return

    def handle_data(self, data: str) -> None:
        self.at.children.append(data)


def tree(html: str) -> Node:
    """The page as elements."""
    parser = _Tree()
    parser.feed(html)
    return parser.root


class Table:
    """A table of the run: per row its numbers, and its texts."""

    def __init__(self, frame: pd.DataFrame) -> None:
        if {"cells_before", "cells_after"} <= set(frame):
            outside = [name for step in NOT_OF_THE_SAMPLE if (name := f"cells_{step}") in frame]
            taken = frame[outside].apply(pd.to_numeric, errors="coerce").fillna(0).sum(axis=1)
            frame = frame.assign(held=pd.to_numeric(frame["cells_before"]) - taken)
        numeric = frame.apply(pd.to_numeric, errors="coerce")
        self.numbers = numeric.to_numpy(dtype=float) if frame.size else np.zeros((len(frame), 0))
        self.texts = np.array([" | ".join(row) for row in frame.fillna("").astype(str).to_numpy()], dtype=str)
        self._found: dict[str, np.ndarray] = {}

    def explains(self, tokens: Iterable[str], words: str = "") -> bool:
        """Whether one row holds every number of ``tokens`` and, if given, the text ``words``."""
        fitting = self._says(words)
        for token in tokens:
            if token not in self._found:
                self._found[token] = self._near(token) | self._says(token.strip("+%"))
            fitting = fitting & self._found[token]
        return bool(fitting.any())

    def _says(self, words: str) -> np.ndarray:
        if not len(self.texts):
            return np.zeros(0, dtype=bool)
        return np.char.find(self.texts, words) >= 0

    def _near(self, token: str) -> np.ndarray:
        value, allowed, scale = read(token)
        if self.numbers.shape[1] == 0:
            return np.zeros(len(self.texts), dtype=bool)
        if token.startswith("<"):
            return (self.numbers < value).any(axis=1)
        scales = (100.0, 1.0) if scale else (1.0,)
        return np.any([(np.abs(self.numbers * by - value) <= allowed).any(axis=1) for by in scales], axis=0)


def read(token: str) -> tuple[float, float, bool]:
    """Value of a number as shown, how far the true one may lie from it, and whether it is a percentage."""
    bare = token.lstrip("<±").rstrip("%").replace(",", "")
    mantissa, _, exponent = bare.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    allowed = 0.5 * 10.0 ** (int(exponent or 0) - decimals)
    return float(bare), allowed * (1 + 1e-6) + 1e-9, token.endswith("%") or token.startswith("±")


def numbers_in(text: str) -> list[str]:
    """Numbers of a text, with the signs ``<``, ``±`` and ``%`` that belong to them."""
    found = []
    for match in _NUMBER.finditer(text):
        before = text[: match.start()].rstrip()[-1:]
        prefix = "<" if text[: match.start()].endswith("<") else before if before == "±" else ""
        found.append(prefix + match.group().rstrip(","))
    return found


@dataclass
class PageNumbers:
    """A report and the results that it was made from."""

    html: str
    results: Path
    samples_sheet: Path

    @cached_property
    def page(self) -> Node:
        return tree(self.html)

    @cached_property
    def paths(self) -> dict[str, str]:
        """Anchor of every download -> the path of its table under ``results``."""
        found = {}
        files = next(node for node in self.page.all("table") if node.attributes.get("id") == "files-table")
        for row in files.all("tr"):
            link = next((node for node in row.all("a") if "id" in node.attributes), None)
            if link is not None:
                found[link.attributes["id"]] = "".join(
                    part for part in row.all("td")[2].children if isinstance(part, str)
                )
        return found

    def frame(self, path: str) -> pd.DataFrame:
        """The table at a path of the page, whose ``<sample>`` and the like stand for all."""
        if path == "the samples sheet":
            files = [self.samples_sheet]
        elif re.search("<[a-z_]+>", path):
            files = sorted(self.results.glob(re.sub("<[a-z_]+>", "*", path)))
        else:
            files = [self.results / path]
        assert files and all(file.exists() for file in files), path
        read_files = [pd.read_csv(file, sep="\t", dtype=str, keep_default_na=False, comment=None) for file in files]
        return pd.concat(read_files, ignore_index=True)

    @cached_property
    def _tables(self) -> dict[str, Table]:
        return {}

    def table(self, path: str) -> Table:
        if path not in self._tables:
            self._tables[path] = Table(self.frame(path))
        return self._tables[path]

    def linked(self, section: Node) -> list[str]:
        """Paths of the tables that a section links to."""
        links = [node.attributes["href"][1:] for node in section.all("a", "get")]
        return list(dict.fromkeys(self.paths[anchor] for anchor in links))

    @cached_property
    def sections(self) -> list[Node]:
        main = next(iter(self.page.all("main")))
        return [child for child in main.children if isinstance(child, Node) and child.name == "section"]

    def rows(self) -> Iterator[tuple[str, str, bool]]:
        """Section, text, and whether a table explains it, of every row, sentence and bar that holds numbers."""
        for section in self.sections:
            name = section.attributes["id"]
            if name not in {"methods", "run"}:
                for what, is_explained in (*self._rows(section), *self._spans(section), *self._bars(section)):
                    yield name, what, is_explained

    def check(self) -> tuple[int, list[str]]:
        """How many rows of the page were explained, and those that were not, by section."""
        found = list(self.rows())
        unexplained = [f"{name}: {what}" for name, what, is_explained in found if not is_explained]
        return len(found) - len(unexplained), unexplained

    def _candidates(self, section: Node, row: Node) -> list[Table]:
        if section.attributes["id"] == "claims":
            path = row.all("td")[-1].text()
            return [self.table(path)]
        paths = self.linked(section)
        if section.attributes["id"] == "witness":
            return [self._witnesses(path) for path in paths]
        near = next(node for node in row.ancestors() if node is section or node.all("a", "get"))
        return [self.table(path) for path in self.linked(near)]

    def _witnesses(self, path: str) -> Table:
        if path not in self._tables:
            keys = ["dataset", "cell_class", "program"]
            effects = self.frame(path.replace("program_enrichment", "program_effects"))
            self._tables[path] = Table(effects.merge(self.frame(path), on=keys, suffixes=("", "_camera")))
        return self._tables[path]

    def _rows(self, section: Node) -> Iterator[tuple[str, bool]]:
        for row in section.all("tr"):
            if row.all("td") == [] or any(node.name == "thead" for node in row.ancestors()):
                continue
            css = set().union(*(node.classes for node in row.ancestors() if node.name == "table"))
            if _headings(row)[-2:] == ["Reason", "Programmes"]:
                yield row.text()[:160], self._counted(section, row)
                continue
            in_header = [node for node in row.all("span", "sub") if any(a.name == "th" for a in node.ancestors())]
            parts = [node.text() for node in (*row.all("td"), *in_header)]
            groups = [[part] for part in parts] if css & _BY_CELL else [parts]
            genes = any("genes" in node.classes for node in row.ancestors())
            for group in groups:
                tokens = [token for part in group for token in numbers_in(_without_titles(part))]
                tokens = _without_shares(tokens)
                if not tokens:
                    continue
                words = (
                    group[0].replace("†", "").replace("may be leaked RNA of other cells", "").strip() if genes else ""
                )
                ok = any(table.explains(tokens, words) for table in self._candidates(section, row))
                yield row.text()[:160], ok

    def _counted(self, section: Node, row: Node) -> bool:
        """Whether as many rows of the tables give a reason as the page says."""
        cell_class, _, reason, programs = (node.text() for node in row.all("td"))
        near = next(node for node in row.ancestors() if node is section or node.all("a", "get"))
        frame = pd.concat([self.frame(path) for path in self.linked(near) if path.endswith("program_effects.tsv")])
        same = frame["reason"].str.split().str.join(" ").str.replace("\N{MINUS SIGN}", "-") == reason
        same &= frame["cell_class"].map(class_label) == cell_class
        return int(same.sum()) == int(programs.partition(":")[0])

    def _spans(self, section: Node) -> Iterator[tuple[str, bool]]:
        """Estimates with their intervals inside sentences."""
        paths = [
            path
            for path in self.paths.values()
            if "/program_effects" in path
            or path.endswith(("program_meta.tsv", "disease.tsv", "fractions.tsv", "composition.tsv", "variance.tsv"))
        ]
        for node in (*section.all("p"), *section.all("li")):
            if any(a.name in {"table", "li"} for a in node.ancestors()) or node.all("p"):
                continue
            for match in _SPAN.finditer(node.text()):
                yield match.group(), any(self.table(path).explains(match.groups()) for path in paths)

    def _bars(self, section: Node) -> Iterator[tuple[str, bool]]:
        """Bars of shares, each segment against the row of the table of cells."""
        if section.attributes["id"] != "composition":
            return
        tables = [self.table(path) for path in self.linked(section) if "/cells-" in path]
        for bar in section.all("span", "bar"):
            for segment in bar.all("i"):
                share = segment.attributes["title"].rsplit(" ", 1)[-1]
                sample = bar.attributes["aria-label"].rsplit(": ", 1)[0]
                yield f"{sample} {share}", any(table.explains([share], sample) for table in tables)

    def heat_maps(self) -> Iterator[tuple[str, str, str, str, str]]:
        """Contrast, cell class, title, donor and number of every cell of the donors' heat maps."""
        section = next(node for node in self.sections if node.attributes["id"] == "donors")
        contrast = ""
        for node in section.walk():
            if node.name == "h3":
                contrast = node.text()
            if node.name == "table" and "heat" in node.classes:
                heading, *donors = [cell.text() for cell in node.all("thead")[0].all("th")]
                for row in node.all("tbody")[0].all("tr"):
                    title = row.all("th")[0].text().removesuffix("◆").strip()
                    for donor, cell in zip(donors, row.all("td"), strict=True):
                        yield contrast, heading, title, donor, cell.text()

    def map_levels(self) -> Iterator[tuple[str, dict[str, int]]]:
        """Column and number of cells by level of every map."""
        for figure in self.page.all("figure"):
            if "data-map" in figure.attributes:
                for group in json.loads(figure.attributes["data-map"])["groups"]:
                    yield group["column"], {level["label"]: level["n"] for level in group["levels"]}


def _without_titles(text: str) -> str:
    """``text`` without titles of programmes: numbers in a name are no results."""
    for title in _titles():
        text = text.replace(title, "")
    return text


@cache
def _titles() -> list[str]:
    return [title for title in load_programs().table["title"] if re.search(r"\d", title)]


def _headings(row: Node) -> list[str]:
    table = next(node for node in row.ancestors() if node.name == "table")
    return [node.text() for head in table.all("thead") for node in head.all("th")]


def _without_shares(tokens: list[str]) -> list[str]:
    """``tokens`` without whole percentages that two others make up: what is shown beside what it is worked out from."""
    counts = [read(token)[0] for token in tokens if not token.endswith("%")]
    kept = []
    for token in tokens:
        value, allowed, percent = read(token)
        made = (
            percent
            and "." not in token
            and any(b > 0 and math.isclose(100 * a / b, value, abs_tol=allowed) for a in counts for b in counts)
        )
        if not made:
            kept.append(token)
    return kept
