"""Witnesses that the user names beside the markers: CellTypist models and annotated references."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pandas as pd

from immunomod.atlas.celltypist import read_model, votes_of_model
from immunomod.atlas.class_names import classes_of, read_labels
from immunomod.atlas.markers import MarkerSet
from immunomod.atlas.reduce import Reduced
from immunomod.atlas.settings import AnnotationSettings
from immunomod.atlas.transfer import reference_labels, votes_of_reference
from immunomod.atlas.votes import Votes
from immunomod.errors import UserError


def label_tables(settings: AnnotationSettings, markers_folder: Path) -> list[Path]:
    """The tables that bring labels to classes, the user's first."""
    shipped = markers_folder / "labels.tsv"
    return [*([Path(settings.labels)] if settings.labels else []), *([shipped] if shipped.is_file() else [])]


def other_votes(
    reduced: Reduced, markers: MarkerSet, markers_folder: Path, settings: AnnotationSettings, seed: int, threads: int
) -> list[Votes]:
    """What the models and references of the config say of every cell of ``reduced``.

    Raises
    ------
    UserError
        A file is missing or cannot be read, or none of its labels is a class.
    """
    tables = label_tables(settings, markers_folder)
    votes = [
        votes_of_model(Path(path), name, reduced.samples, markers, tables, reduced.organism, threads)
        for name, path in settings.celltypist.items()
    ]
    votes += [
        votes_of_reference(
            Path(one["file"]), one["column"], name, reduced.expression, pd.Index(reduced.var["gene_symbol"]), markers,
            tables, reduced.organism, seed,
        )
        for name, one in settings.references.items()
    ]  # fmt: skip
    return votes


def faults(settings: AnnotationSettings, markers: MarkerSet, markers_folder: Path) -> Iterator[UserError]:
    """What is wrong with the files of the named witnesses, before anything runs."""
    tables = label_tables(settings, markers_folder)

    def model(path: Path) -> None:
        classes_of(read_model(path).labels, markers, tables, str(path))

    def reference(path: Path, column: str) -> None:
        classes_of(reference_labels(path, column), markers, tables, f"{path}, obs[{column!r}]")

    checks: list[Callable[[], object]] = [partial(read_labels, table, markers) for table in tables]
    checks += [partial(model, Path(path)) for path in settings.celltypist.values()]
    checks += [partial(reference, Path(one["file"]), one["column"]) for one in settings.references.values()]
    for check in checks:
        try:
            check()
        except UserError as error:
            yield error
