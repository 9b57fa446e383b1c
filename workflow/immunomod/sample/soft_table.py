"""A GEO series' family SOFT file as a table with one row per sample.

In series of single cells that were sequenced one by one (Fluidigm C1, Smart-seq), each cell is a sample of its own:
its title names the column of the matrix, its characteristics the donor and the treatment. The file then serves as the
per-cell table.

Everything in it comes from outside: lines, values, columns and rows are bounded, and read as text only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from immunomod.errors import UserError
from immunomod.sample.readers.sniff import SniffedFile, open_bytes, reading

#: Columns that every sample has; its characteristics follow.
FIELDS = {
    "Sample_title": "title",
    "Sample_source_name_ch1": "source_name",
    "Sample_organism_ch1": "organism",
}
CHARACTERISTICS = "Sample_characteristics_ch1"
MOST_SAMPLES = 1_000_000
MOST_COLUMNS = 1_000
MOST_BYTES = 4 << 30
LONGEST_LINE = 1 << 20
LONGEST_VALUE = 1_000
MOST_KEPT_CHARACTERS = 1 << 28


def is_soft(file: SniffedFile) -> bool:
    """Whether a text file is SOFT: its first line opens a record (``^DATABASE``, ``^SERIES``)."""
    return bool(file.lines) and file.lines[0].startswith("^")


def read_soft_table(path: Path) -> pd.DataFrame:
    """Read the samples of a family SOFT file, plain or compressed.

    Returns
    -------
    One row per sample, all str and empty where a sample lacks a field; columns ``accession``, ``title``,
    ``source_name``, ``organism`` and each characteristic under its name (``title (characteristic)`` where that is
    taken). A characteristic that a sample has several times is joined by ``; ``. The index is the row number.

    Raises
    ------
    UserError
        The file is damaged, holds no sample, or more than can be a series' samples.
    """
    with reading(path):
        rows = _samples(path, _lines(path))
    if not rows:
        raise UserError(f"{path}: the SOFT file holds no sample; fetch it again, or name another table in column cells")
    names = dict.fromkeys(["accession", *FIELDS.values(), *(name for row in rows for name in row)])
    return pd.DataFrame(rows, columns=list(names), dtype=object).fillna("")


def _lines(path: Path) -> Iterator[str]:
    """Lines of the file, each cut at :data:`LONGEST_LINE` bytes; stops a decompression bomb."""
    done = 0
    with open_bytes(path) as stream:
        while line := stream.readline(LONGEST_LINE):
            done += len(line)
            if done > MOST_BYTES:
                raise UserError(f"{path}: unpacks to more than {MOST_BYTES:,} bytes; this is no series' SOFT file")
            yield line.decode("utf-8", "replace").rstrip("\r\n")


def _samples(path: Path, lines: Iterable[str]) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    columns: set[str] = set()
    kept = 0
    in_sample = False
    for line in lines:
        if line.startswith("^"):
            in_sample = line.startswith("^SAMPLE")
            if in_sample:
                rows.append({"accession": line.partition("=")[2].strip()[:LONGEST_VALUE]})
                if len(rows) > MOST_SAMPLES:
                    raise UserError(f"{path}: holds more than {MOST_SAMPLES:,} samples; this is no series' SOFT file")
            continue
        if not (in_sample and line.startswith("!Sample_")):
            continue
        name, value = _field(line)
        if not name:
            continue
        row = rows[-1]
        value = (f"{row[name]}; {value}" if name in row else value)[:LONGEST_VALUE]
        kept += len(value)
        columns.add(name)
        if len(columns) > MOST_COLUMNS or kept > MOST_KEPT_CHARACTERS:
            raise UserError(f"{path}: its samples have more characteristics than a series' can; refused")
        row[name] = value
    return rows


def _field(line: str) -> tuple[str, str]:
    """Column and value of a line of a sample's record; an empty column for what is not kept."""
    key, _, text = line[1:].partition("=")
    key, text = key.strip(), text.strip()
    if key in FIELDS:
        return FIELDS[key], text
    if key != CHARACTERISTICS:
        return "", ""
    name, colon, value = text.partition(":")
    if not colon:
        return "characteristics", text
    name = name.strip()[:LONGEST_VALUE]
    taken = name in ("accession", *FIELDS.values())
    return (f"{name} (characteristic)" if taken else name or "characteristics"), value.strip()
