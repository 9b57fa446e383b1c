"""Tables as downloads inside the page, safe to open in a spreadsheet.

A table is embedded as a ``data:`` link, so the file needs no neighbour. A text cell that a spreadsheet could take for
a formula (it begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return, and is neither a number nor a bare
sign) is given a leading apostrophe; every other value is kept.
"""

from __future__ import annotations

import base64
import gzip
import re
from dataclasses import dataclass, field

import pandas as pd

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\Z|[+-]?(inf|nan)\Z", re.IGNORECASE)
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
GZIP_ABOVE = 60_000
N_HEAD = 300


@dataclass(frozen=True)
class Download:
    """A table inside the page: ``href`` is a data URI, ``note`` what to know about it.

    ``anchor`` is the id of the one link that holds the data; ``path`` where the run keeps the table.
    """

    file_name: str
    href: str
    note: str
    anchor: str
    path: str


@dataclass
class Downloads:
    """Embeds tables until ``budget`` bytes are spent; later ones are cut to their first rows, and say so.

    ``embedded`` holds them in order: the page lists them once, and links there from wherever a table is spoken of.
    """

    budget: int = 8_000_000
    spent: int = field(default=0, init=False)
    embedded: list[Download] = field(default_factory=list, init=False)

    def embed(self, table: pd.DataFrame, name: str, path: str) -> Download:
        """Embed ``table`` as ``<name>.tsv``, gzipped when large.

        ``path`` is where the run keeps the same table, for the reader of one that had to be cut.
        """
        download = _encode(table, name, f"{len(table):,} row{'' if len(table) == 1 else 's'}", path)
        if self.spent + len(download.href) > self.budget and len(table) > N_HEAD:
            note = f"first {N_HEAD} of {len(table):,} rows; the complete table is {path}"
            download = _encode(table.head(N_HEAD), name, note, path)
        self.spent += len(download.href)
        self.embedded.append(download)
        return download


def neutralise(value: object) -> object:
    """``value`` with a leading apostrophe where a spreadsheet could run it as a formula."""
    if not isinstance(value, str) or not value.startswith(_FORMULA_STARTS):
        return value
    if value in {"+", "-"} or _NUMBER.match(value):
        return value
    return f"'{value}"


def as_tsv(table: pd.DataFrame) -> str:
    """Tab-separated text of ``table``, neutralised, numbers to six significant digits."""
    safe = table.copy()
    for column in safe.columns:
        if not pd.api.types.is_numeric_dtype(safe[column]):
            safe[column] = safe[column].astype(object).map(neutralise)
    safe.columns = pd.Index([neutralise(str(column)) for column in safe.columns])
    text: str = safe.to_csv(sep="\t", index=False, lineterminator="\n", float_format="%.6g")
    return text


def _encode(table: pd.DataFrame, name: str, note: str, path: str) -> Download:
    content = as_tsv(table).encode()
    file_name, media_type = f"{name}.tsv", "text/tab-separated-values;charset=utf-8"
    if len(content) > GZIP_ABOVE:
        content, file_name, media_type = gzip.compress(content, mtime=0), f"{name}.tsv.gz", "application/gzip"
    href = f"data:{media_type};base64,{base64.b64encode(content).decode()}"
    return Download(file_name, href, note, f"file-{name}", path)
