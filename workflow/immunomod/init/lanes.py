"""Pooled lanes: per-cell tables of a series, and which of their rows are which library's."""

from __future__ import annotations

import re
from collections.abc import Sequence

from immunomod.acquire.select import Role, role_of
from immunomod.init.cells import CellsTable, Lanes, find_lanes, read_barcodes, read_cells_table
from immunomod.init.rows import Proposal, Row
from immunomod.init.source import Source
from immunomod.init.text import clean
from immunomod.init.vocabulary import culture_of, is_control_level, stimuli_in

MOST_CELLS_TABLES = 6
MOST_BARCODES_FETCHED = 24
LARGEST_BARCODES = 8 << 20


def use_cells_tables(proposal: Proposal, source: Source) -> None:
    """Use the per-cell tables of a series, see :func:`assign_cells_tables`."""
    tables = _cells_tables(source, [row["source"] for row in proposal.active])
    if tables and proposal.active:
        assign_cells_tables(proposal, source.accession, tables, _known_barcodes(proposal.active, source))


def assign_cells_tables(
    proposal: Proposal, dataset: str, tables: Sequence[CellsTable], barcodes: Sequence[set[str] | None]
) -> None:
    """Columns ``cells`` and ``cells_lane``, and with them the condition where lanes are named by it.

    ``barcodes`` are the bases of the barcodes of each active row, where they are known.
    """
    rows = proposal.active
    matched = [(table, find_lanes(table, barcodes, [row.about.told for row in rows])) for table in tables]
    for table, lanes in sorted(matched, key=lambda match: _rank(*match)):
        if lanes is None:
            proposal.remarks.append(
                f"{table.name} looks like a per-cell table ({_roles_in_words(table)}), and nothing tells which of "
                "its rows are which library's: name it in column cells if it should be used"
            )
            continue
        section = dict(table.columns) | ({"lane": lanes.column} if lanes.column else {})
        if proposal.cells_tables.setdefault(dataset, section) != section:
            for position in lanes.of_library:
                rows[position].note(
                    f"cells left empty: {table.name} describes it, but its columns ({_roles_in_words(table)}) are not "
                    "those of the data set's other per-cell table"
                )
            continue
        free = {position: lane for position, lane in lanes.of_library.items() if not rows[position]["cells"]}
        for position, lane in free.items():
            _use_lane(rows[position], table, lane, lanes.origin)
        if lanes.column:
            _conditions_of_lanes([rows[position] for position in free], table, lanes.column)


def _rank(table: CellsTable, lanes: Lanes | None) -> tuple[bool, bool, bool]:
    """Tables that say more come first: those with donors, and with lanes that read like arms."""
    return lanes is None, "donor" not in table.columns, lanes is None or not _are_arms(list(lanes.of_library.values()))


def _use_lane(row: Row, table: CellsTable, lane: str, origin: str) -> None:
    row.mark("cells", table.reference, origin)
    if lane:
        row.mark("cells_lane", lane, origin)
    if "donor" in table.columns:
        row.donor_by_cell = True
        row.note(f'donor left empty: column "{clean(table.columns["donor"])}" of {table.name} says it cell by cell')


def _conditions_of_lanes(rows: Sequence[Row], table: CellsTable, column: str) -> None:
    """Lanes that read like arms (one of them a control) name the condition in the author's words."""
    if _are_arms([row["cells_lane"] for row in rows]):
        for row in rows:
            row.guess("condition", row["cells_lane"], f'column "{column}" of {table.name}')


def _are_arms(lanes: Sequence[str]) -> bool:
    named = any(is_control_level(lane) or stimuli_in(lane) or culture_of(lane) for lane in lanes)
    return named and len(set(lanes)) > 1


def _roles_in_words(table: CellsTable) -> str:
    return ", ".join(f"{role}: {clean(name, 40)}" for role, name in table.columns.items()) or "barcodes only"


def _cells_tables(source: Source, sources: Sequence[str]) -> list[CellsTable]:
    """Per-cell tables at series level, those with donors first."""
    at_series = any(place == source.accession for place in sources)
    found = []
    candidates = [file for file in source.listing.own if _may_be_cells_table(file.name, matrices_too=not at_series)]
    for file in candidates[: 4 * MOST_CELLS_TABLES]:
        path = source.fetch_small(file)
        table = read_cells_table(path, file.name) if path else None
        if table and (table.columns.keys() & {"donor", "label", "doublet"}):
            found.append(table)
    return found[:MOST_CELLS_TABLES]


def _may_be_cells_table(name: str, matrices_too: bool) -> bool:
    table = re.search(r"\.(tsv|txt|csv|tab)(\.(gz|bz2|xz))?$", name.lower()) is not None
    return table and role_of(name) in ((Role.ANNOTATION, Role.MATRIX) if matrices_too else (Role.ANNOTATION,))


def _known_barcodes(rows: Sequence[Row], source: Source) -> list[set[str] | None]:
    """Bases of each row's barcodes, where it has a small table of them."""
    if len(rows) > MOST_BARCODES_FETCHED:
        return [None] * len(rows)
    found: list[set[str] | None] = []
    for row in rows:
        tables = [file for file in source.own_files(row.about.name) if role_of(file.name) is Role.BARCODES]
        path = source.fetch_small(tables[0], LARGEST_BARCODES) if len(tables) == 1 else None
        found.append(read_barcodes(path) if path else None)
    return found
