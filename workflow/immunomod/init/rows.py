"""A proposed row of the sample sheet: its values, which of them are guesses and from what, and remarks on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from immunomod.init.text import LONGEST_NOTE, as_level, clean

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
    """A library on its way into the sheet. ``set_aside`` says why it is to be written as a comment."""

    about: Described
    dataset: str = ""
    values: dict[str, str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    set_aside: str = ""

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
