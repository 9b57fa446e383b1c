"""Series in which each cell is a sample of its own (Fluidigm C1, Smart-seq): libraries are what cells have in common.

The counts of all cells stand in one matrix; the series' own SOFT file serves as the per-cell table that says which
cell is whose, see :mod:`immunomod.sample.soft_table`.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence

from immunomod.acquire.geo import GeoSample
from immunomod.init.guess import is_arm_key, is_donor_key
from immunomod.init.libraries import LibraryGroup
from immunomod.init.rows import Described, Proposal, Row, as_pattern
from immunomod.init.source import Source, describe, set_organism
from immunomod.init.text import clean
from immunomod.init.vocabulary import Modality

FEWEST_CELLS = 40
CELLS_PER_LIBRARY = 5
MOST_KEYS = 5
#: Where in a sample's title its cell's name may stand; the first that fits all cells is proposed.
NAME_PATTERNS = (
    r"^(.+)$",
    r"\[([^]]+)\]",
    r"\(([^()]+)\)",
    r"(\S+)$",
    r"^(\S+)",
    r":\s*(.+)$",
    r"_([^_]+)$",
    r"^([^_]+)_",
)


def are_single_cells(samples: Sequence[GeoSample], n_files: int, n_matrices: int) -> bool:
    """Whether samples are cells: many of them, without files of their own, sharing few matrices."""
    return len(samples) >= FEWEST_CELLS and n_files < len(samples) / 10 and 0 < n_matrices <= len(samples) / 10


def propose_from_cells(
    source: Source, samples: Sequence[GeoSample], matrices: Sequence[LibraryGroup], proposal: Proposal
) -> list[Row]:
    """One row per combination of donor, treatment and whatever else groups the cells; the config's ``cells_tables``."""
    about = [describe(sample) for sample in samples]
    keys = grouping_keys(about)
    rna = [group for group in matrices if group.modality is Modality.RNA]
    table = f"{source.accession}_family.soft.gz"
    rows = []
    for values, members in _groups(about, keys).items():
        row = Row(_in_common(about, members, source.accession), source.accession)
        row.state("source", source.accession)
        set_organism(row, "; ".join(dict.fromkeys(samples[number].organism for number in members)))
        if len(rna) == 1:
            row.mark(
                "files", ",".join(as_pattern(name) for name in rna[0].names), "the only matrix of RNA in the series"
            )
        else:
            row.note(
                f"files left empty: which of {clean(', '.join(one.groups[0].matrix for one in matrices[:6]), 300)}?"
            )
        if keys:
            row.mark("cells", table, "one sample per cell")
            row.mark("cells_lane", " | ".join(values), f"characteristics {', '.join(keys)}")
        row.note(f"{len(members)} cells, each a sample of its own: {samples[members[0]].accession} and others")
        rows.append(row)
    if keys:
        section: dict[str, object] = {
            "barcode": "title",
            "lane": keys if len(keys) > 1 else keys[0],
            "listed_only": True,
        }
        pattern = _name_pattern(source, rna, [one.title for one in about])
        if pattern and pattern != NAME_PATTERNS[0]:
            section["barcode_pattern"] = pattern
        proposal.cells_tables[source.accession] = section
        if pattern is None:
            proposal.remarks.append(
                "whether samples' titles name the matrix' cells could not be looked up: if they hold more than the "
                "name, say in the config's cells_tables.barcode_pattern where it stands"
            )
    else:
        proposal.remarks.append("nothing in the cells' characteristics groups them into libraries: one row for all")
    proposal.remarks.append(f"{len(samples)} samples are single cells; a row is what {' x '.join(keys) or 'all'} share")
    return rows


def grouping_keys(about: Sequence[Described]) -> list[str]:
    """Characteristics by which cells make libraries: donors and arms with few levels, at most :data:`MOST_KEYS`."""
    names = Counter(name for one in about for name in one.characteristics)
    kept: list[str] = []
    for name in names:
        levels = {one.characteristics.get(name, "") for one in about}
        useful = is_donor_key(name) or is_arm_key(name) or re.search(r"passage|batch|time", name, re.IGNORECASE)
        if not useful or len(levels) < 2 or "" in levels or len(kept) == MOST_KEYS:
            continue
        if len(_groups(about, [*kept, name])) <= len(about) / CELLS_PER_LIBRARY:
            kept.append(name)
    return kept


def _groups(about: Sequence[Described], keys: Sequence[str]) -> dict[tuple[str, ...], list[int]]:
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, one in enumerate(about):
        groups.setdefault(tuple(one.characteristics.get(key, "") for key in keys), []).append(number)
    return groups


def _in_common(about: Sequence[Described], members: Sequence[int], series: str) -> Described:
    """What all cells of a library share: characteristics, source name, and the beginning of the title."""
    some = [about[number] for number in members]
    shared = {
        name: value
        for name, value in some[0].characteristics.items()
        if all(one.characteristics.get(name) == value for one in some)
    }
    sources = {one.source_name for one in some}
    title = common_title([one.title for one in some])
    return Described(series, title, sources.pop() if len(sources) == 1 else "", shared)


def common_title(titles: Sequence[str]) -> str:
    """The words with which all titles begin, without what leads on to a cell's number."""
    if len(titles) == 1:
        return titles[0]
    letters = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*titles, strict=False))
    start = "".join(column[0] for column in letters)
    if any(title[len(start) : len(start) + 1].isalnum() for title in titles):  # it ends within a word
        start = re.sub(r"\w*$", "", start)
    start = re.sub(r"\s*[(\[{][^)\]}]*$", "", start)
    return re.sub(r"([\s_.,;:#-]+(cells?|wells?|c|no)?)*$", "", start, flags=re.IGNORECASE)


def _name_pattern(source: Source, matrices: Sequence[LibraryGroup], titles: Sequence[str]) -> str | None:
    """Where in the titles the names of the matrix' cells stand; None if the matrix cannot be looked at or none fits."""
    if len(matrices) != 1:
        return None
    cells = set(source.cell_names(matrices[0].names))
    return next((pattern for pattern in NAME_PATTERNS if _fits(pattern, titles, cells)), None) if cells else None


def _fits(pattern: str, titles: Sequence[str], cells: set[str]) -> bool:
    """Whether the pattern finds nine in ten of the cells, each in one title."""
    found = [hit.group(1) for title in titles if (hit := re.search(pattern, title))]
    named = [name for name in found if name in cells]
    return len(named) == len(set(named)) and len(named) >= 0.9 * len(cells)
