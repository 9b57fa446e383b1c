"""A proposed row of the sample sheet: its values, which of them are guesses and from what, and remarks on it."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from immunomod.init.text import LONGEST_NOTE, as_level, clean, has_invisible, short_names

#: Columns in the order in which they are written.
COLUMNS = (
    *("sample", "dataset", "source", "condition", "donor", "culture", "stimulus", "msc_source", "msc_donor"),
    *("organism", "dose", "time_h", "batch", "files", "barcodes", "cells", "cells_lane", "guessed"),
)
#: Written even where no row has a value: somebody who edits the sheet should see them.
ALWAYS = ("sample", "dataset", "source", "condition", "donor", "culture", "stimulus", "organism", "guessed")
#: Columns whose values are levels that a contrast may name.
LEVELS = ("condition", "donor", "msc_donor", "batch")
#: A path or a list of names may be long; no other value is.
LONGEST_VALUE = {"source": 4000, "files": 8000, "barcodes": 4000, "cells": 1000, "cells_lane": 300}


@dataclass(frozen=True)
class Described:
    """What is said of a library: ``name`` is its accession or path; ``characteristics`` as SOFT gives them."""

    name: str
    title: str = ""
    source_name: str = ""
    characteristics: Mapping[str, str] = field(default_factory=dict)

    @property
    def told(self) -> str:
        """Title and source name, for whatever can be read from words."""
        return f"{self.title} ; {self.source_name}" if self.source_name else self.title


@dataclass
class Row:
    """A library on its way into the sheet.

    ``set_aside`` says why it is to be written as a comment; ``donor_by_cell``, that a per-cell table names the donors.
    """

    about: Described
    dataset: str = ""
    values: dict[str, str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    set_aside: str = ""
    donor_by_cell: bool = False

    def state(self, column: str, value: str) -> None:
        """Set a value that is certain."""
        self.values[column] = value
        self.origins.pop(column, None)

    def guess(self, column: str, value: str, origin: str) -> None:
        """Set a value that is a guess, unless cleaning leaves nothing of it."""
        kept = as_level(value) if column in LEVELS else clean(value, LONGEST_VALUE.get(column, LONGEST_NOTE))
        if kept:
            self.values[column] = kept
            self.origins[column] = clean(origin, LONGEST_NOTE)

    def mark(self, column: str, value: str, origin: str) -> None:
        """Set a path or pattern that is a guess, as it is; one that a sheet cannot hold is not set."""
        if value and not has_invisible(value):
            self.values[column] = value
            self.origins[column] = clean(origin, LONGEST_NOTE)

    def note(self, remark: str) -> None:
        """Add a remark, once."""
        if remark not in self.notes:
            self.notes.append(remark)

    def __getitem__(self, column: str) -> str:
        return self.values.get(column, "")

    @property
    def guessed(self) -> str:
        """What column ``guessed`` says."""
        kept = [column for column in COLUMNS if column in self.origins and self.values.get(column)]
        return "; ".join(f"{column}<-{self.origins[column].replace(';', ',')}" for column in kept)


@dataclass
class Proposal:
    """A study on its way to disk. ``cells_tables`` is the config's section; ``remarks`` are for whoever edits it."""

    name: str
    title: str
    rows: list[Row]
    base_url: str = ""
    cells_tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def active(self) -> list[Row]:
        """Rows that are not set aside."""
        return [row for row in self.rows if not row.set_aside]


def name_rows(rows: Sequence[Row]) -> None:
    """Column ``sample``: a short unique name from each title, or from the lane, which the authors named shorter."""
    active = [row for row in rows if not row.set_aside]
    titles = [row["cells_lane"].replace("|", " ") or row.about.title for row in active]
    names = short_names(titles, [row.about.name for row in active])
    for row, name in zip(active, names, strict=True):
        row.state("sample", name)
    aside = [row for row in rows if row.set_aside]
    others = short_names([row.about.title for row in aside], [row.about.name for row in aside])
    for row, name in zip(aside, others, strict=True):
        row.state("sample", f"{name}_left_out" if name in names else name)


def as_pattern(name: str) -> str:
    """``name`` as a pattern for column ``files``: what would separate patterns or trouble a table becomes ``?``."""
    pattern = re.sub(r'[,"]', "?", glob.escape(name))
    return re.sub(r"^[\s=+@#'-]|\s$", "?", pattern)
