"""Joining a per-cell table (donor, label, doublet calls) to a library's cells by lane and barcode.

An author's software often made the barcodes of several lanes unique before it wrote the table: in GSE96583 the second
lane's ``AAACATACAATGCC-1`` became ``AAACATACAATGCC-11`` wherever the first lane held the same barcode, and stayed as it
was elsewhere. Joined by barcode alone, such a cell silently takes the donor and the label of the first lane's cell. So
rows are first restricted to the library's lane, then matched by exact name, and only what is left is matched after
removing such a suffix, where that is unambiguous.

Tables of demuxlet, freemuxlet, vireo and souporcell need no columns named
(:mod:`immunomod.sample.demultiplex.genotypes`). Their clusters are numbered anew in each lane, so without names from
the config a cluster's donor carries the table's name: ``donor0`` of two lanes never becomes a pair.

Where each cell is a GEO sample of its own, the series' family SOFT file is the table: one row per sample, see
:mod:`immunomod.sample.soft_table`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from immunomod.errors import UserError
from immunomod.sample.demultiplex.genotypes import GenotypeTable, are_clusters, read_genotypes, recognise_genotypes
from immunomod.sample.readers.sniff import Kind, sniff
from immunomod.sample.readers.tables import read_labelled_table
from immunomod.sample.soft_table import is_soft, read_soft_table

#: What make.unique (R), Seurat and scanpy append: digits, with or without a separator.
_UNIQUE_SUFFIX = re.compile(r"^[._-]?\d{1,3}$")
_LONGEST_SUFFIX = 4
MOST_LANES_SHOWN = 30


#: What a cell of a table holds besides text that can be written to HDF5 and shown on a page.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
#: Between the values of several lane columns, in the sheet's ``cells_lane``.
LANE_SEPARATOR = "|"
_ROLES = ("donor", "label", "doublet")


@dataclass(frozen=True)
class CellsTableColumns:
    """Names of the columns of a per-cell table (config ``cells_tables: {<dataset>: {...}}``); empty where absent.

    Attributes
    ----------
    barcode
        Empty stands for the row names (a header one column short), else the first column.
    barcode_pattern
        A regular expression with one group: what of the barcode column is the barcode. Rows that it does not fit are
        left out.
    lane
        The column, or columns, whose value marks a library's rows. The sheet's ``cells_lane`` gives the value, or the
        values in the same order with ``|`` between them.
    listed_only
        Keep only cells that the table lists (for the library's lane): a combined matrix split by a table, or an
        author's own choice of cells.
    donors
        Names of donors by what the table calls them: ``{donor0: P1}``. Clusters are numbered anew in each lane; where
        a data set has several such tables, by sample: ``{lane1: {donor0: P1}, lane2: {donor0: P3}}``.
    """

    barcode: str = ""
    barcode_pattern: str = ""
    lane: str | tuple[str, ...] = ""
    donor: str = ""
    label: str = ""
    doublet: str = ""
    listed_only: bool = False
    donors: Mapping[str, str | Mapping[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.barcode_pattern:
            return
        try:
            groups = re.compile(self.barcode_pattern).groups
        except re.error as error:
            raise UserError(f"config, cells_tables, barcode_pattern: not a regular expression ({error})") from None
        if groups != 1:
            raise UserError(
                f"config, cells_tables, barcode_pattern: {self.barcode_pattern!r} has {groups} groups; put brackets "
                "around what is the barcode, once"
            )

    def donors_of(self, sample: str) -> dict[str, str]:
        """Names of donors that hold for a sample: those of its own beside those given for all."""
        own = self.donors.get(sample, {})
        common = {name: donor for name, donor in self.donors.items() if isinstance(donor, str)}
        return common | (dict(own) if isinstance(own, Mapping) else {})

    @property
    def lanes(self) -> tuple[str, ...]:
        """The lane columns; empty where the table has none."""
        return self.lane if isinstance(self.lane, tuple) else (self.lane,) if self.lane else ()

    @classmethod
    def from_config(cls, section: Mapping[str, Any]) -> CellsTableColumns:
        """Build from a config section; an unknown key is a :class:`UserError`."""
        known = {entry.name for entry in fields(cls)}
        if unknown := sorted(set(section) - known):
            raise UserError(
                f"config, cells_tables: unknown key {', '.join(unknown)}; the keys are {', '.join(sorted(known))}"
            )
        values: dict[str, Any] = {key: value for key, value in section.items() if value is not None}
        listed_only = bool(values.pop("listed_only", False))
        lane = values.pop("lane", "")
        lane = tuple(map(str, lane)) if isinstance(lane, list | tuple) else str(lane)
        donors = {
            str(key): {str(name): str(donor) for name, donor in value.items()}
            if isinstance(value, Mapping)
            else str(value)
            for key, value in values.pop("donors", {}).items()
        }
        named = {key: str(value) for key, value in values.items()}
        return cls(**named, lane=lane, listed_only=listed_only, donors=donors)


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
class LibraryRows:
    """A library's rows of a per-cell table.

    ``rows``: ``barcode``, and ``donor``, ``label``, ``doublet`` where given, all str. ``unnamed``: rows without a
    barcode. ``program``: which wrote the table, where it was recognised. ``is_numbered``: its donors are numbers of
    clusters; ``clusters`` are those that the config does not name.
    """

    rows: pd.DataFrame
    unnamed: int
    program: str = ""
    is_numbered: bool = False
    clusters: tuple[str, ...] = ()


@dataclass(frozen=True)
class CellsJoin:
    """What a per-cell table says of each of a library's cells.

    ``cells``: one row per barcode, in their order; columns ``in_cells_table`` (bool), ``donor``, ``author_label``,
    ``author_doublet`` (str, empty where unknown; only those that the table has). ``decision`` says how they were
    matched. ``kept``: which of the library's cells stay, shape (cells,); all of them unless only listed ones do.
    ``listed``: the library's rows of the table.
    """

    cells: pd.DataFrame
    decision: str
    kept: NDArray[np.bool_]
    listed: LibraryRows


def join_cells_table(
    barcodes: pd.Index, path: Path, columns: CellsTableColumns, lane: str, sample: str, name: str = ""
) -> CellsJoin:
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
        Name of the library, for messages and for the config's names of donors.
    name
        The table as the sheet names it; the file's name where it is empty.

    Raises
    ------
    UserError
        For an absent column or lane, names of donors that the table does not hold, barcodes that match nothing, and
        every match that is not one to one.
    """
    library = rows_of_library(path, columns, lane, sample, name)
    rows, unnamed = library.rows, library.unnamed
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
    for role, column in (("donor", "donor"), ("label", "author_label"), ("doublet", "author_doublet")):
        if role in rows:
            values = pd.Series("", index=barcodes, dtype=object)
            values[found] = rows[role].to_numpy()[positions[found]]
            cells[column] = values
    parts = [
        f"{found.sum():,} of {len(barcodes):,} barcodes found{f' in lane {lane!r}' if lane else ''}: "
        f"{found.sum() - stripped:,} by name, {stripped:,} after removing the suffix that had made them unique"
    ]
    if library.program:
        parts.insert(0, f"a table of {library.program}")
    if library.clusters:
        parts.append(
            f"its donors are clusters ({', '.join(library.clusters)}), the same in no other table unless the config "
            "names them (cells_tables, donors)"
        )
    if unnamed:
        parts.append(f"{unnamed:,} rows of the table without a barcode left out")
    if lacking := len(names) - len(match):
        parts.append(f"{lacking:,} rows{' of the lane' if lane else ''} name no cell of the library")
    if columns.listed_only:
        parts.append(f"only listed cells kept: {(~found).sum():,} left out")
    kept = found if columns.listed_only else np.ones(len(barcodes), dtype=bool)
    return CellsJoin(cells, "; ".join(parts), kept, library)


def rows_of_library(path: Path, columns: CellsTableColumns, lane: str, sample: str, name: str = "") -> LibraryRows:
    """Rows of a per-cell table that are a library's; see :func:`join_cells_table` for the parameters.

    Raises
    ------
    UserError
        For an absent column or lane, and for names of donors that the table does not hold.
    """
    table = _read_table(path)
    is_told = bool(columns.barcode or columns.donor or columns.doublet)
    program = None if is_told else recognise_genotypes(table)
    every, unnamed = _read(table, path, columns, program)
    rows = _rows_of_lane(every, path, columns, lane, sample)
    if "donor" not in rows:
        return LibraryRows(rows, unnamed)
    names = columns.donors_of(sample)
    held = sorted(set(every["donor"]) - {""})
    if unknown := [one for one in names if one not in held]:
        raise UserError(
            f"config, cells_tables, donors: {path.name} has no donor {unknown[0]!r}; its donors are {', '.join(held)}"
        )
    is_numbered = program is not None and are_clusters(every["donor"], program)
    clusters: tuple[str, ...] = ()
    if is_numbered:
        clusters = tuple(one for one in held if one not in names)
        of = f"{name or path.name}{f', {lane}' if lane else ''}"
        names |= {one: f"{one} ({of})" for one in clusters}
    rows = rows.assign(donor=rows["donor"].map(lambda donor: names.get(donor, donor)).to_numpy(dtype=object))
    return LibraryRows(rows, unnamed, program.program if program else "", is_numbered, clusters)


def _read(
    table: pd.DataFrame, path: Path, columns: CellsTableColumns, program: GenotypeTable | None
) -> tuple[pd.DataFrame, int]:
    """The table's columns under the names of their roles, all str, and how many rows had no barcode.

    ``lane`` holds the values of all lane columns, joined as :func:`_lane_name` does.
    """
    known = read_genotypes(table, program) if program else None
    if known is not None:
        names = known["barcode"]
    elif columns.barcode:
        names = _column(table, path, "barcode", columns.barcode)
    elif table.index.dtype == object:
        names = table.index.to_series()
    else:
        names = table.iloc[:, 0]
    names = names.astype(str).reset_index(drop=True)
    if columns.barcode_pattern:
        names = names.str.extract(columns.barcode_pattern, expand=False).fillna("")
        if not (names != "").any():
            raise UserError(
                f"config, cells_tables, barcode_pattern: {columns.barcode_pattern!r} fits no barcode of {path.name} "
                f"(first: {_shown(table, columns)})"
            )
    out = pd.DataFrame({"barcode": names.to_numpy(dtype=object)})
    for role in _ROLES:
        if name := getattr(columns, role):
            out[role] = _clean(_column(table, path, role, name))
        elif known is not None and role in known:
            out[role] = _clean(known[role])
    if columns.lanes:
        parts = [_clean(_column(table, path, "lane", name)) for name in columns.lanes]
        out["lane"] = [_lane_name(values) for values in zip(*parts, strict=True)]
    named = (out["barcode"] != "").to_numpy()
    return out[named].reset_index(drop=True), int((~named).sum())


def _read_table(path: Path) -> pd.DataFrame:
    file = sniff(path)
    if file.damage:
        raise UserError(file.damage)
    if file.kind is not Kind.TABLE:
        raise UserError(f"{path}: a per-cell table must be a text table; this is a {file.kind}")
    return read_soft_table(path) if is_soft(file) else read_labelled_table(path, file.lines)


def _column(table: pd.DataFrame, path: Path, role: str, name: str) -> pd.Series:
    """The column of this name, or the one that differs from it by case alone."""
    alike = [column for column in table.columns if str(column).casefold() == name.casefold()]
    if name in table.columns:
        alike = [name]
    if len(alike) != 1:
        raise UserError(
            f"config, cells_tables, {role}: {path.name} has {'several columns' if alike else 'no column'} {name!r}; "
            f"its columns are {', '.join(str(column) for column in table.columns)}"
        )
    return table[alike[0]]


def _clean(values: pd.Series) -> NDArray[np.object_]:
    """Values from outside as one line of text each."""
    return np.array([_CONTROL.sub(" ", str(value)).strip() for value in values], dtype=object)


def _shown(table: pd.DataFrame, columns: CellsTableColumns) -> str:
    values = table[columns.barcode] if columns.barcode in table else table.index.to_series()
    return repr(_CONTROL.sub(" ", str(values.iloc[0])))[:200]


def _lane_name(values: tuple[str, ...] | list[str]) -> str:
    """One name for the values of several lane columns: ``Donor1 | 5``."""
    return f" {LANE_SEPARATOR} ".join(values)


def _rows_of_lane(table: pd.DataFrame, path: Path, columns: CellsTableColumns, lane: str, sample: str) -> pd.DataFrame:
    if columns.lanes:
        lanes = sorted(table["lane"].unique())
        given = lane
        if len(columns.lanes) > 1:
            lane = _lane_name([part.strip() for part in lane.split(LANE_SEPARATOR)]) if lane else ""
        shown = ", ".join(lanes[:MOST_LANES_SHOWN]) + (
            f" and {len(lanes) - MOST_LANES_SHOWN:,} more" if len(lanes) > MOST_LANES_SHOWN else ""
        )
        wording = " and ".join(map(repr, columns.lanes))
        if not lane:
            raise UserError(
                f"samples.tsv, sample {sample}: cells_lane is empty, and {path.name} holds the lanes "
                f"{shown} in column {wording}; say which of them is this library"
            )
        if lane not in lanes:
            raise UserError(
                f"samples.tsv, sample {sample}: cells_lane is {given!r}, which is not in column {wording} of "
                f"{path.name} ({shown})"
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
