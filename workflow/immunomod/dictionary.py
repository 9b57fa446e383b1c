"""The dictionary of a run's tables: what a row is and what each column means, from ``resources/tables``.

``python -m immunomod.dictionary`` writes ``docs/tables.md`` from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from immunomod.files import read_tsv, write_text
from immunomod.tables import REPOSITORY

FOLDER = REPOSITORY / "resources" / "tables"
PAGE = REPOSITORY / "docs" / "tables.md"


def rows_of_tables() -> Mapping[str, str]:
    """Path under ``results/`` (with ``<sample>`` and the like) -> what a row of the table is."""
    table = read_tsv(FOLDER / "tables.tsv", dtype=str)
    return dict(zip(table["table"], table["row"], strict=True))


def columns_of_tables() -> pd.DataFrame:
    """Columns ``table, column, description, only_where``, in the order of the tables.

    ``only_where``: what a table has the column for alone; empty where it always has it.
    """
    columns = read_tsv(FOLDER / "columns.tsv", dtype=str)
    optional = read_tsv(FOLDER / "optional.tsv", dtype=str)
    return columns.merge(optional, on=["table", "column"], how="left").fillna({"only_where": ""})


def table_of(path: Path) -> str | None:
    """The table that a file is, by its path under ``results/``; None for a file that is none of them."""
    for name in rows_of_tables():
        pattern = re.sub("<[a-z_]+>", "[^/]+", re.escape(name))
        if re.fullmatch(pattern, path.as_posix()):
            return name
    return None


def page() -> str:
    """``docs/tables.md``."""
    columns = columns_of_tables()
    lines = [
        "# Tables of a run",
        "",
        "All tables are plain text: tab-separated, UTF-8, a header, empty where a value is missing; `.gz` where they",
        "are long. Effects and changes are in log2 units unless a column says otherwise. This page is made from",
        "`resources/tables/` by `python -m immunomod.dictionary`; [`results/README.md`](../results/README.md) says",
        "which table answers what.",
    ]
    for name, row in rows_of_tables().items():
        lines += ["", f"## `{name}`", "", f"One row per {row}.", "", "| column | meaning |", "|---|---|"]
        own = columns[columns["table"] == name]
        for column, text, where in zip(own["column"], own["description"], own["only_where"], strict=True):
            lines += [f"| `{column}` | {text}{f' (of {where} alone)' if where else ''} |"]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    write_text(page(), PAGE)
