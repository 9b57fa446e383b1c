"""Per-cell tables of strangers: which of their columns say what, and which of their lanes is which library."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from immunomod.errors import UserError
from immunomod.init.vocabulary import is_control_level, normalise, stimuli_in
from immunomod.sample.readers.sniff import Kind, open_bytes, open_text, reading, sniff
from immunomod.sample.readers.tables import read_labelled_table

LARGEST_BYTES = 30 << 20
LARGEST_UNPACKED_BYTES = 256 << 20
MOST_COLUMNS = 200
LONGEST_NAME = 200
MOST_LEVELS = 200
ENOUGH_OVERLAP = 0.5
_BARCODE = re.compile(r"[ACGT]{8,}")
_ROLES = {
    "donor": re.compile(
        r"ind(ividual)?|donor([ _.]?(id|name))?|patient([ _.]?(id|name))?|subject([ _.]?id)?|demuxlet([ _.]?\w*)?"
        r"|best|snp[ _.]?\w*|genotype|sng[ _.]?1st|assignment|mouse([ _.]?id)?"
    ),
    "label": re.compile(
        r"(author[ _.]?)?cell[ _.]?(type|label|class|identity|annotation)s?([ _.]?\w{0,12})?|cell|annotations?"
        r"|annot[ _.]?\w*|labels?|cluster[ _.]?(name|label|annotation)s?|ident(ity)?|predicted[ _.]?\w*type\w*"
    ),
    "doublet": re.compile(
        r"multiplets?|doublets?([ _.]?\w*)?|is[ _.]?doublet|droplet([ _.]?type)?|scrublet([ _.]?\w*)?"
        r"|\w*doubletfinder\w*|df[ _.]classifications?\w*|hto[ _.]classification[ _.]global|\w*singlet\w*|status"
    ),
}
_DOUBLET_LEVEL = re.compile(r"(doublet|multiplet|dbl|singlet|sng)s?")
_LANE = re.compile(r"stim\w*|condition|lane|sample\w*|orig[ _.]?ident|library\w*|batch|channel|group|treatment|gsm\w*")


@dataclass(frozen=True)
class CellsTable:
    """A per-cell table. ``reference`` is how the sheet names it, ``columns`` the roles as the config names them.

    ``cores`` are the bases of each cell's barcode; ``levels`` the columns that may tell lanes apart.
    """

    reference: str
    columns: Mapping[str, str]
    cores: pd.Series
    levels: pd.DataFrame

    @property
    def name(self) -> str:
        """Base name, as messages give it."""
        return self.reference.rpartition("/")[2]


@dataclass(frozen=True)
class Lanes:
    """Which value of a column marks which library (by its position); ``column`` is empty where one library has all."""

    column: str
    of_library: Mapping[int, str]
    origin: str


def bases(name: str) -> str:
    """The longest run of bases in a cell's name, eight at least; else nothing."""
    found = _BARCODE.findall(name)
    return max(found, key=len) if found else ""


def is_bounded(path: Path, limit: int = LARGEST_UNPACKED_BYTES) -> bool:
    """Whether a file unpacks to no more than ``limit`` bytes."""
    done = 0
    with reading(path), open_bytes(path) as stream:
        while block := stream.read(1 << 20):
            done += len(block)
            if done > limit:
                return False
    return True


def read_cells_table(path: Path, reference: str) -> CellsTable | None:
    """Peek at a text table: None if it is not one of cells with barcodes, too large, or damaged."""
    try:
        file = sniff(path)
        if file.damage or file.kind is not Kind.TABLE or not _may_name_cells(file.lines) or not is_bounded(path):
            return None
        table = read_labelled_table(path, file.lines)
    except UserError:
        return None
    if table.shape[1] > MOST_COLUMNS or table.columns.duplicated().any():
        return None
    column, names = _cell_names(table)
    if names is None:
        return None
    columns = {"barcode": column} if column else {}
    columns |= _role_columns(table, column)
    taken = set(columns.values())
    if not column and table.index.dtype != object:
        taken.add(table.columns[0])
    counts = table.nunique()
    kept = [name for name in table.columns if name not in taken and 2 <= counts[name] <= MOST_LEVELS]
    return CellsTable(reference, columns, names.map(bases), table[kept].reset_index(drop=True))


def _may_name_cells(lines: Sequence[str]) -> bool:
    return sum(1 for line in lines[1:50] if _BARCODE.search(line)) >= 0.8 * max(1, len(lines[1:50]))


def _cell_names(table: pd.DataFrame) -> tuple[str, pd.Series | None]:
    """The column that holds barcodes (empty: row names, or the first column) and its values."""
    if table.index.dtype == object:
        names = table.index.to_series().astype(str).reset_index(drop=True)
        if _are_barcodes(names):
            return "", names
    for position, column in enumerate(table.columns):
        names = table[column].astype(str).reset_index(drop=True)
        if _are_barcodes(names):
            return ("" if position == 0 and table.index.dtype != object else str(column)), names
    return "", None


def _are_barcodes(names: pd.Series) -> bool:
    some = names.head(1000)
    return len(some) > 0 and some.str.contains(_BARCODE).mean() >= 0.8 and some.nunique() >= 0.5 * len(some)


def _role_columns(table: pd.DataFrame, barcode: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for role, pattern in _ROLES.items():
        for column in table.columns:
            if column == barcode or column in found.values() or not pattern.fullmatch(normalise(str(column))):
                continue
            if _serves_as(role, table[column]):
                found[role] = str(column)
                break
    return found


def _serves_as(role: str, values: pd.Series) -> bool:
    levels = [str(level) for level in values.unique() if level != ""]
    if not 2 <= len(levels) <= MOST_LEVELS or len(levels) > max(2, len(values) // 2):
        return False
    if role == "doublet":
        return any(_DOUBLET_LEVEL.fullmatch(normalise(level)) for level in levels)
    numbers = pd.to_numeric(pd.Series(levels), errors="coerce").notna()
    if role == "label":
        return not numbers.any()
    return not any(_DOUBLET_LEVEL.fullmatch(normalise(level)) for level in levels)


def read_lines(path: Path) -> list[str]:
    """Lines of a barcodes table, without quotes; empty if it is damaged or too large."""
    try:
        if not is_bounded(path):
            return []
        with reading(path), open_text(path) as lines:
            return [line.strip().strip('"')[:LONGEST_NAME] for line in lines if line.strip()]
    except UserError:
        return []


def read_barcodes(path: Path) -> set[str] | None:
    """Bases of a library's barcodes, from its barcodes table; None if there are none."""
    return {core for line in read_lines(path) if (core := bases(line))} or None


def find_lanes(table: CellsTable, barcodes: Sequence[set[str] | None], titles: Sequence[str]) -> Lanes | None:
    """Which of a table's lanes is which library: by the barcodes that they share, or else by titles.

    Parameters
    ----------
    barcodes
        Bases of each library's barcodes; None where they are not known.
    titles
        What is said of each library.
    """
    if any(known is not None for known in barcodes):
        return _lanes_by_barcodes(table, barcodes)
    return Lanes("", {0: ""}, "the only library") if len(titles) == 1 else _lanes_by_titles(table, titles)


def _overlap(lane: set[str], library: set[str]) -> float:
    smaller = min(len(lane), len(library))
    return len(lane & library) / smaller if smaller else 0.0


def _lanes_by_barcodes(table: CellsTable, barcodes: Sequence[set[str] | None]) -> Lanes | None:
    whole = set(table.cores) - {""}
    known = {number: names for number, names in enumerate(barcodes) if names}
    near = {number: names for number, names in known.items() if _overlap(whole, names) >= ENOUGH_OVERLAP}
    if len(near) == 1 and len(known) == len(barcodes):
        return Lanes("", {next(iter(near)): ""}, "barcodes that it shares with the library")
    best: Lanes | None = None
    for column in sorted(table.levels.columns, key=lambda name: not _LANE.fullmatch(normalise(str(name)))):
        lanes = {str(level): set(cores) for level, cores in table.cores.groupby(table.levels[column]) if level != ""}
        matched: dict[int, str] = {}
        for number, names in near.items():
            ranked = sorted(((_overlap(cores, names), level) for level, cores in lanes.items()), reverse=True)
            if ranked[0][0] >= ENOUGH_OVERLAP and (len(ranked) == 1 or ranked[1][0] < ranked[0][0] / 2):
                matched[number] = ranked[0][1]
        one_to_one = len(set(matched.values())) == len(matched) >= 2
        if one_to_one and (best is None or len(matched) > len(best.of_library)):
            best = Lanes(str(column), matched, f'barcodes shared with column "{column}"')
    return best


def _lanes_by_titles(table: CellsTable, titles: Sequence[str]) -> Lanes | None:
    for column in sorted(table.levels.columns, key=lambda name: not _LANE.fullmatch(normalise(str(name)))):
        levels = [str(level) for level in table.levels[column].unique() if level != ""]
        if len(levels) != len(titles) or len(levels) < 2:
            continue
        named = [[level for level in levels if _names(level, title)] for title in titles]
        if all(len(found) == 1 for found in named) and len({found[0] for found in named}) == len(levels):
            return Lanes(str(column), {n: found[0] for n, found in enumerate(named)}, f'titles and column "{column}"')
        resting = [level for level in levels if is_control_level(level)]
        controls = [n for n, title in enumerate(titles) if stimuli_in(title) == ["none"]]
        if len(levels) == 2 and len(resting) == len(controls) == 1:
            other = next(level for level in levels if level != resting[0])
            matched = {n: resting[0] if n in controls else other for n in range(2)}
            return Lanes(str(column), matched, f'titles and column "{column}"')
    return None


def _names(level: str, title: str) -> bool:
    return re.search(rf"(?<![a-z0-9]){re.escape(normalise(level))}(?![a-z0-9])", normalise(title)) is not None
