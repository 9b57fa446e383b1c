"""What models and annotated references call cells, brought to the classes of ``cell_classes.tsv``.

A label is a class if it is its name, its label or its Cell Ontology id, or stands in a table of labels
(``resources/markers/labels.tsv``, and one that the user gives, which goes first). Case and spaces do not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from immunomod.atlas.markers import UNASSIGNED, MarkerSet, read_columns
from immunomod.errors import UserError

_COLUMNS = ("label", "cell_class")


def read_labels(path: Path, markers: MarkerSet) -> dict[str, str]:
    """A table of labels: ``label`` and the ``cell_class`` that it stands for.

    Raises
    ------
    UserError
        The file or a column is missing, a class is unknown, or a label stands for two classes.
    """
    table = read_columns(path, _COLUMNS, (), "Correct annotation.labels in the config.")
    found: dict[str, str] = {}
    for row, (label, cell_class) in enumerate(zip(table["label"], table["cell_class"], strict=True)):
        if cell_class not in markers.classes.index:
            raise UserError(
                f"{path}, row {row + 2}, column cell_class: {cell_class!r} is no class. "
                f"Use one of {', '.join(markers.classes.index)}."
            )
        if found.setdefault(_plain(label), cell_class) != cell_class:
            raise UserError(f"{path}, row {row + 2}, column label: {label!r} has two classes. Keep one of its rows.")
    return found


def classes_of(labels: Sequence[str], markers: MarkerSet, tables: Sequence[Path], source: str) -> NDArray[np.int64]:
    """For every label the position of its class among ``markers.classes``; ``unassigned`` where it stands for none.

    Parameters
    ----------
    labels
        As a model or a reference has them.
    markers
        The classes.
    tables
        Tables of labels, the first of which to know a label decides.
    source
        Where the labels are from, for messages.

    Raises
    ------
    UserError
        No label stands for any class.
    """
    known: dict[str, str] = {}
    for path in tables:
        known = read_labels(path, markers) | known
    classes = markers.classes
    for column in ("ontology", "label"):
        known |= {_plain(value): str(name) for name, value in classes[column].items() if value}
    known |= {_plain(name): name for name in classes.index}
    names = [known.get(_plain(label), UNASSIGNED) for label in labels]
    if set(names) <= {UNASSIGNED}:
        shown = ", ".join(repr(str(label)) for label in labels[:5])
        raise UserError(
            f"{source}: none of its {len(labels)} labels is a known class (first: {shown}). List them with their "
            "classes in a table with the columns label and cell_class, and name it under annotation.labels."
        )
    return np.asarray(classes.index.get_indexer(pd.Index(names)), dtype=np.int64)


def _plain(label: object) -> str:
    return " ".join(str(label).split()).casefold()
