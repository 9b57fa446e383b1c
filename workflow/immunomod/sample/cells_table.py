"""Joining a per-cell table (donor, label, doublet calls) to a library's cells by lane and barcode.

An author's software often made the barcodes of several lanes unique before it wrote the table: in GSE96583 the second
lane's ``AAACATACAATGCC-1`` became ``AAACATACAATGCC-11`` wherever the first lane held the same barcode, and stayed as it
was elsewhere. Joined by barcode alone, such a cell silently takes the donor and the label of the first lane's cell. So
rows are first restricted to the library's lane, then matched by exact name, and only what is left is matched after
removing such a suffix, where that is unambiguous.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pandas as pd

from immunomod.errors import UserError
from immunomod.sample.readers.sniff import Kind, sniff
from immunomod.sample.readers.tables import read_labelled_table

#: What make.unique (R), Seurat and scanpy append: digits, with or without a separator.
_UNIQUE_SUFFIX = re.compile(r"^[._-]?\d{1,3}$")
_LONGEST_SUFFIX = 4


@dataclass(frozen=True)
class CellsTableColumns:
    """Names of the columns of a per-cell table (config ``cells_tables: {<dataset>: {...}}``); empty where absent.

    ``barcode`` empty stands for the row names (a header one column short), else the first column. ``lane`` is the
    column whose value, given in the sheet's ``cells_lane``, marks a library's rows.
    """

    barcode: str = ""
    lane: str = ""
    donor: str = ""
    label: str = ""
    doublet: str = ""

    @classmethod
    def from_config(cls, section: Mapping[str, Any]) -> CellsTableColumns:
        """Build from a config section; an unknown key is a :class:`UserError`."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(section) - known):
            raise UserError(
                f"config, cells_tables: unknown key {', '.join(unknown)}; the keys are {', '.join(sorted(known))}"
            )
        return cls(**{key: str(value) for key, value in section.items() if value is not None})


def locate_cells_table(pattern: str, manifest: pd.DataFrame) -> Path:
    """Path of a per-cell table that a sheet names: a file of the data set (name or pattern), else a path on disk."""
    names = manifest["file"].astype(str)
    found = manifest.loc[[fnmatch(name, pattern) or name == Path(pattern).name for name in names], "path"]
    paths = sorted({str(path) for path in found})
    if len(paths) == 1:
        return Path(paths[0])
    if not paths and Path(pattern).is_file():
        return Path(pattern)
    trouble = "is no file of the data set and no path" if not paths else f"fits {len(paths)} files"
    raise UserError(
        f"samples.tsv, column cells: {pattern!r} {trouble}; the data set holds {', '.join(sorted(names)) or 'no file'}"
    )


@dataclass(frozen=True)
class CellsJoin:
    """What a per-cell table says of each of a library's cells.

    ``cells``: one row per barcode, in their order; columns ``in_cells_table`` (bool), ``donor``, ``author_label``,
    ``author_doublet`` (str, empty where unknown; only those that the table has). ``decision`` says how they were
    matched.
    """

    cells: pd.DataFrame
    decision: str


def join_cells_table(barcodes: pd.Index, path: Path, columns: CellsTableColumns, lane: str, sample: str) -> CellsJoin:
    """Join the per-cell table at ``path`` to the cells of one library.

    Parameters
    ----------
    barcodes
        The library's barcodes, unique.
    columns
        Which column of the table holds what.
    lane
        Value of the lane column that marks this library's rows; empty where the table has no lane column.
    sample
        Name of the library, for messages.

    Raises
    ------
    UserError
        For an absent column or lane, barcodes that match nothing, and every match that is not one to one.
    """
    table = _read(path, columns)
    rows = _rows_of_lane(table, path, columns, lane, sample)
    names = rows["barcode"]
    if repeated := list(names[names.duplicated()].unique()):
        raise UserError(
            f"{path}: sample {sample}: barcode {repeated[0]} stands in several rows"
            f"{f' of lane {lane}' if lane else ''}; name the column that tells lanes apart (config, cells_tables, "
            "lane) and the library's value of it (samples.tsv, cells_lane)"
        )
    match, stripped = _match(barcodes, names, path, sample)
    if not match:
        raise UserError(
            f"{path}: sample {sample}: none of the library's {len(barcodes):,} barcodes (first: {barcodes[0]}) is in "
            f"the table (first: {names.iloc[0]}){f', lane {lane}' if lane else ''}; check cells_lane and "
            "the barcode column"
        )
    positions = pd.Series([match.get(barcode, -1) for barcode in barcodes], index=barcodes)
    found = (positions >= 0).to_numpy()
    cells = pd.DataFrame({"in_cells_table": found}, index=barcodes)
    for role, name in (("donor", "donor"), ("label", "author_label"), ("doublet", "author_doublet")):
        if role in rows:
            values = pd.Series("", index=barcodes, dtype=object)
            values[found] = rows[role].to_numpy()[positions[found]]
            cells[name] = values
    decision = (
        f"{found.sum():,} of {len(barcodes):,} barcodes found{f' in lane {lane!r}' if lane else ''}: "
        f"{found.sum() - stripped:,} by name, {stripped:,} after removing the suffix that had made them unique"
    )
    return CellsJoin(cells, decision)


def _read(path: Path, columns: CellsTableColumns) -> pd.DataFrame:
    """The table's columns under the names of their roles, all str."""
    file = sniff(path)
    if file.damage:
        raise UserError(file.damage)
    if file.kind is not Kind.TABLE:
        raise UserError(f"{path}: a per-cell table must be a text table; this is a {file.kind}")
    table = read_labelled_table(path, file.lines)
    roles = {field.name: getattr(columns, field.name) for field in fields(columns) if getattr(columns, field.name)}
    for role, name in roles.items():
        if name not in table.columns:
            raise UserError(
                f"config, cells_tables, {role}: {path.name} has no column {name!r}; its columns are "
                f"{', '.join(str(column) for column in table.columns)}"
            )
    if "barcode" in roles:
        names = table[roles["barcode"]]
    elif table.index.dtype == object:
        names = table.index.to_series()
    else:
        names = table.iloc[:, 0]
    out = pd.DataFrame({"barcode": names.astype(str).to_numpy(dtype=object)})
    for role, name in roles.items():
        out[role] = table[name].to_numpy(dtype=object)
    return out


def _rows_of_lane(table: pd.DataFrame, path: Path, columns: CellsTableColumns, lane: str, sample: str) -> pd.DataFrame:
    if columns.lane:
        lanes = sorted(table["lane"].unique())
        if not lane:
            raise UserError(
                f"samples.tsv, sample {sample}: cells_lane is empty, and {path.name} holds the lanes "
                f"{', '.join(lanes)} in column {columns.lane!r}; say which of them is this library"
            )
        if lane not in lanes:
            raise UserError(
                f"samples.tsv, sample {sample}: cells_lane is {lane!r}, which is not in column {columns.lane!r} of "
                f"{path.name} ({', '.join(lanes)})"
            )
        return table.loc[table["lane"] == lane].reset_index(drop=True)
    if lane:
        raise UserError(
            f"samples.tsv, sample {sample}: cells_lane is {lane!r}, but the config names no lane column for this data "
            "set's per-cell table (cells_tables, lane)"
        )
    known = set(table["barcode"])
    made_unique = [name for name in table["barcode"] if any(stem in known for stem in _stems(name))]
    if made_unique:
        raise UserError(
            f"{path}: {len(made_unique):,} barcodes look as if a suffix had made them unique among several lanes "
            f"({made_unique[0]}); joined by barcode alone they would take another lane's cell. Name the column that "
            "tells lanes apart (config, cells_tables, lane) and fill cells_lane in samples.tsv"
        )
    return table


def _stems(name: str) -> list[str]:
    """What ``name`` may have been before a suffix made it unique; a stem keeps the eight bases of a cell barcode."""
    cuts = range(len(name) - 1, max(len(name) - 1 - _LONGEST_SUFFIX, 7), -1)
    return [name[:cut] for cut in cuts if _UNIQUE_SUFFIX.match(name[cut:])]


def _match(barcodes: pd.Index, names: pd.Series, path: Path, sample: str) -> tuple[dict[str, int], int]:
    """Row of the table for each barcode that has one, and how many were found by removing a suffix."""
    library = set(barcodes)
    exact = {name: row for row, name in enumerate(names) if name in library}
    stripped: dict[str, int] = {}
    for row, name in enumerate(names):
        if name in library:
            continue
        stems = [stem for stem in _stems(name) if stem in library]
        if not stems:
            continue
        rivals = stems[1:] + [str(names[known[stems[0]]]) for known in (exact, stripped) if stems[0] in known]
        if rivals:
            raise UserError(
                f"{path}: sample {sample}: row name {name} may stand for barcode {stems[0]}, and so may "
                f"{', '.join(rivals)}: the rows of this lane seem to hold several libraries. Give a lane column that "
                "tells them apart"
            )
        stripped[stems[0]] = row
    return {**exact, **stripped}, len(stripped)
