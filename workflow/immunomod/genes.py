"""What genes are called today: from Ensembl ids, outdated symbols and dates that a spreadsheet made of symbols.

Matrices of different years call one gene by different names (IL8 became CXCL8, SEPT7 became SEPTIN7). Programmes,
markers and matrices are all brought to the current symbol by the tables of ``resources/genes``, so that they meet. An
outdated name is used only where it can mean one gene: a previous symbol goes before an alias, and a name that fits
several genes is left as it is.
"""

from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from immunomod.tables import REPOSITORY

SHIPPED = REPOSITORY / "resources" / "genes"
ORGANISMS = ("human", "mouse")
#: Beginnings of Ensembl's gene ids.
ENSEMBL_SPECIES = {
    "ENSG": "human",
    "ENSMUSG": "mouse",
    "ENSRNOG": "rat",
    "ENSMMUG": "rhesus macaque",
    "ENSMFAG": "crab-eating macaque",
    "ENSSSCG": "pig",
    "ENSBTAG": "cow",
    "ENSCAFG": "dog",
    "ENSOCUG": "rabbit",
    "ENSDARG": "zebrafish",
}
_ENSEMBL_ID = re.compile(r"(ENS[A-Z]*G)\d{6,}")
#: Symbols that a spreadsheet turns into dates: beginning, month, numbers. (SEP15 is SELENOF; SEPT15 never was.)
_DATE_FAMILIES = {
    "human": (
        ("SEPT", 9, range(1, 15)),
        ("SEP", 9, (15,)),
        ("MARCH", 3, range(1, 12)),
        ("MARC", 3, (1, 2)),
        ("DEC", 12, (1,)),
    ),
    "mouse": (("Sept", 9, range(1, 15)), ("Sep", 9, (15,)), ("March", 3, range(1, 12)), ("Marc", 3, (1, 2))),
}
_MONTHS = {"mar": 3, "sep": 9, "sept": 9, "dec": 12}
_DATE = re.compile(
    r"X?(?P<day>\d{1,2})[-.](?P<month>mar|sept?|dec)"
    r"|(?P<month_first>mar|sept?|dec)[-.](?P<day_last>\d{1,2})"
    r"|(?:19|20)\d\d-(?P<iso_month>\d\d)-(?P<iso_day>\d\d)(?:[ T]00:00:00(?:\.0+)?)?"
    r"|(?P<first>\d{1,2})/(?P<second>\d{1,2})/(?:19|20)?\d\d",
    re.IGNORECASE,
)
#: An Ensembl id and a symbol in one name, in either order.
_ID_AND_SYMBOL = re.compile(r"(ENS[A-Z]*G\d{6,})(?:\.\d+)?[_|:;,]+(.+)|(.+?)[_|:;,]+(ENS[A-Z]*G\d{6,})(?:\.\d+)?")

# How a row of a matrix got its symbol.
BY_ID = "id"
CURRENT = "current"
PREVIOUS = "previous"
ALIAS = "alias"
DATE = "date"
JOINED = "joined"
AMBIGUOUS = "ambiguous"
TAKEN = "taken"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Resolution:
    """Current symbols of the rows of a matrix.

    ``symbols`` and ``how`` (one of :data:`BY_ID`, :data:`CURRENT`, :data:`PREVIOUS`, :data:`ALIAS`, :data:`DATE`,
    :data:`JOINED`, :data:`AMBIGUOUS`, :data:`TAKEN`, :data:`UNKNOWN`) have one entry per row, as has ``given``.
    ``taken``: the name fits a gene that another row names already. ``other_gene``: rows whose id names one gene and
    whose symbol is today another one's; the id decides.
    """

    given: NDArray[np.object_]
    symbols: NDArray[np.object_]
    how: NDArray[np.object_]
    other_gene: NDArray[np.bool_]

    def count(self, *how: str) -> int:
        """How many rows got their symbol in one of these ways."""
        return int(np.isin(self.how, how).sum())

    def sentences(self) -> list[str]:
        """What was renamed and what was left, with examples, for the ledger."""
        changed = (self.symbols != self.given) & (self.given != "")
        is_id = np.array([bool(_ENSEMBL_ID.match(str(name))) for name in self.given], dtype=bool)
        by_id = (self.how == BY_ID) & changed
        told = [
            (by_id & ~is_id, "outdated symbols by their Ensembl id"),
            (self.how == PREVIOUS, "previous symbols"),
            (self.how == ALIAS, "aliases"),
            (self.how == DATE, "symbols that a spreadsheet had made dates"),
            (self.how == JOINED, "joined names that hold one gene"),
        ]
        notes = []
        if named := int((by_id & is_id).sum()):
            notes.append(f"named {named:,} genes by their Ensembl id")
        for rows, what in told:
            if number := int(rows.sum()):
                notes.append(f"brought up to date {number:,} {what} ({self._examples(rows)})")
        for how, why in ((AMBIGUOUS, "fit several genes"), (TAKEN, "fit a gene that another row names")):
            if number := self.count(how):
                names = ", ".join(sorted(set(self.given[self.how == how]))[:3])
                notes.append(f"left {number:,} outdated names as they are because they {why} ({names})")
        if number := int(self.other_gene.sum()):
            notes.append(f"{number:,} rows have a symbol that is now another gene's: the Ensembl id decides")
        return notes

    def _examples(self, rows: NDArray[np.bool_]) -> str:
        pairs = sorted({(str(old), str(new)) for old, new in zip(self.given[rows], self.symbols[rows], strict=True)})
        return ", ".join(f"{old} -> {new}" for old, new in pairs[:3]) + (", ..." if len(pairs) > 3 else "")


@dataclass(frozen=True)
class GeneNames:
    """The gene names of one organism.

    Attributes
    ----------
    organism
        ``human`` or ``mouse``.
    symbol_of
        Ensembl id without version -> current symbol; empty where the gene has no name.
    current
        All current symbols.
    outdated
        Names that were given to exactly one gene and are no current symbol -> that gene's current symbol.
    aliases
        Those of ``outdated`` that were never an official symbol.
    ambiguous
        Outdated names that fit several genes -> their current symbols.
    ensembl_of
        NCBI Gene (Entrez) number -> Ensembl id; human only.
    dates
        (month, day) -> current symbols of the genes whose name a spreadsheet reads as that date.
    """

    organism: str
    symbol_of: Mapping[str, str]
    current: frozenset[str]
    outdated: Mapping[str, str]
    aliases: frozenset[str]
    ambiguous: Mapping[str, tuple[str, ...]]
    ensembl_of: Mapping[str, str]
    dates: Mapping[tuple[int, int], tuple[str, ...]]

    @staticmethod
    def load(organism: str) -> GeneNames:
        """The shipped names of ``human`` or ``mouse``; read once per process.

        Raises
        ------
        ValueError
            There is no table for ``organism``.
        """
        if organism not in ORGANISMS:
            raise ValueError(f"no gene names for organism {organism!r}: one of {', '.join(ORGANISMS)} is needed")
        return _load(organism)

    def knows(self, name: str) -> bool:
        """Whether ``name`` is a symbol of today or of earlier, an alias, or an Ensembl id of the tables."""
        return name in self.current or name in self.outdated or name in self.ambiguous or name in self.symbol_of

    def symbol(self, name: str) -> str:
        """The current symbol of the gene that ``name`` means; ``name`` itself where that is not known for sure."""
        return name if name in self.current else self._meaning(name)[0] or name

    def resolve(self, symbols: Sequence[str], ids: Sequence[str] | None = None) -> Resolution:
        """Current symbols of the rows of one matrix.

        A row whose Ensembl id is known takes that gene's symbol. Else a current symbol stays. Else an outdated one, an
        alias, a date or several joined names (``A;B``, ``ENSG..._A``) are replaced where they can mean one gene only
        and no other row names that gene: of two rows that would, the one with the previous symbol is renamed, or none.

        Parameters
        ----------
        symbols
            Names as given, without genome prefix; empty where unknown.
        ids
            Ensembl ids without version, empty where unknown.
        """
        given = np.array(list(symbols), dtype=object)
        ids = [""] * len(given) if ids is None else ids
        named = given.copy()
        how = np.full(len(given), UNKNOWN, dtype=object)
        other_gene = np.zeros(len(given), dtype=bool)
        claims: dict[str, tuple[str, str]] = {}
        for row, (name, gene_id) in enumerate(zip(given, ids, strict=True)):
            if symbol := self.symbol_of.get(gene_id, ""):
                named[row], how[row] = symbol, BY_ID
                other_gene[row] = symbol != name and name in self.current
            elif name in self.current:
                how[row] = CURRENT
            elif name and name not in claims:
                claims[name] = self._meaning(name)
        certain = np.isin(how, (BY_ID, CURRENT))
        unfit = _contested(claims, set(named[certain]))
        for index in np.flatnonzero(~certain & (given != "")):
            row = int(index)
            symbol, kind = claims[given[row]]
            if given[row] in unfit:
                how[row] = TAKEN
            else:
                how[row] = kind
                named[row] = symbol or given[row]
        return Resolution(given, named, how, other_gene)

    def _meaning(self, name: str) -> tuple[str, str]:
        """The one gene that a name which is no current symbol means (empty where unsure), and how that is known."""
        if name in self.outdated:
            return self.outdated[name], ALIAS if name in self.aliases else PREVIOUS
        if name in self.ambiguous:
            return "", AMBIGUOUS
        if symbol := self.symbol_of.get(name, ""):
            return symbol, BY_ID
        if genes := {gene for date in _dates(name) for gene in self.dates.get(date, ())}:
            return (genes.pop(), DATE) if len(genes) == 1 else ("", AMBIGUOUS)
        if match := _ID_AND_SYMBOL.fullmatch(name):
            symbol = self.symbol_of.get(match[1] or match[4], "") or self.symbol(match[2] or match[3])
            return symbol, JOINED
        if ";" in name:
            parts = {part.strip() for part in name.split(";")}
            genes = parts & self.current or {self.outdated[part] for part in parts if part in self.outdated}
            return (genes.pop(), JOINED) if len(genes) == 1 else ("", AMBIGUOUS if genes else UNKNOWN)
        return "", UNKNOWN


def _contested(claims: Mapping[str, tuple[str, str]], present: set[str]) -> set[str]:
    """Names that must stay as given: their gene has a row already, or several names claim it on equal grounds."""
    claimants: dict[str, list[str]] = {}
    for name, (symbol, _) in claims.items():
        if symbol:
            claimants.setdefault(symbol, []).append(name)
    unfit: set[str] = set()
    for symbol, names in claimants.items():
        best = [name for name in names if claims[name][1] == PREVIOUS]
        chosen = names if len(names) == 1 else best if len(best) == 1 else []
        unfit.update(set(names) - set(chosen) if symbol not in present else names)
    return unfit


def _dates(name: str) -> list[tuple[int, int]]:
    """The (month, day) that a name may be read as: none for most, two for 3/9/2021."""
    match = _DATE.fullmatch(name)
    if match is None:
        return []
    part = match.groupdict()
    if part["first"]:
        first, second = int(part["first"]), int(part["second"])
        return [(first, second), (second, first)]
    if part["iso_month"]:
        return [(int(part["iso_month"]), int(part["iso_day"]))]
    month = _MONTHS[(part["month"] or part["month_first"]).lower()]
    return [(month, int(part["day"] or part["day_last"]))]


@cache
def _load(organism: str) -> GeneNames:
    ids, symbols, _, numbers = _columns(SHIPPED / f"{organism}.tsv.gz")
    old, new, kinds = _columns(SHIPPED / f"{organism}_outdated.tsv.gz")
    symbol_of = dict(zip(ids, symbols, strict=True))
    ensembl_of = dict(zip(numbers, ids, strict=True))
    outdated = dict(zip(old, new, strict=True))
    for table in (symbol_of, ensembl_of):
        table.pop("", None)
    current = frozenset(symbols) - {""}
    ambiguous = {name: tuple(genes.split("|")) for name, genes in outdated.items() if "|" in genes}
    for name in ambiguous:
        del outdated[name]
    if organism == "human":
        # Capitals throughout are common usage for human genes: C2ORF15.
        for symbol in current:
            if (capitals := symbol.upper()) not in current and capitals not in ambiguous:
                outdated.setdefault(capitals, symbol)
    dates: dict[tuple[int, int], set[str]] = {}
    for beginning, month, days in _DATE_FAMILIES[organism]:
        for day in days:
            name = f"{beginning}{day}"
            genes = (outdated[name],) if name in outdated else ambiguous.get(name, ())
            dates.setdefault((month, day), set()).update(genes)
    return GeneNames(
        organism=organism,
        symbol_of=symbol_of,
        current=current,
        outdated=outdated,
        aliases=frozenset(name for name, kind in zip(old, kinds, strict=True) if kind == ALIAS) - ambiguous.keys(),
        ambiguous=ambiguous,
        ensembl_of={number: gene_id for number, gene_id in ensembl_of.items() if gene_id},
        dates={date: tuple(sorted(genes)) for date, genes in dates.items()},
    )


def _columns(path: Path) -> list[list[str]]:
    """The columns of a table of ours, without its header."""
    header, _, rows = gzip.decompress(path.read_bytes()).decode().partition("\n")
    width = header.count("\t") + 1
    fields = rows.removesuffix("\n").replace("\n", "\t").split("\t")
    return [fields[column::width] for column in range(width)]


def ensembl_species(name: str) -> str:
    """The species of an Ensembl gene id (``human``, ``rat``, or the id's beginning where it is none of the usual ones).

    Empty for a name that is no Ensembl gene id.
    """
    match = _ENSEMBL_ID.match(name) if name.startswith("ENS") else None
    return ENSEMBL_SPECIES.get(match[1], match[1]) if match else ""


def name_species(name: str) -> str:
    """The species that a gene's id or symbol belongs to; empty where no species, or both human and mouse, know it.

    Symbols tell by their capitals: CD3D is human, Cd3d is mouse.
    """
    if species := ensembl_species(name):
        return species
    known = [organism for organism in ORGANISMS if GeneNames.load(organism).knows(name)]
    return known[0] if len(known) == 1 else ""


def species_of(names: Iterable[str]) -> str | None:
    """The species of a list of genes (ids or symbols), or None where it is mixed or too few names tell.

    Nine tenths of the names that tell must agree, and they must be at least two and a twentieth of all.
    """
    told = Counter(name_species(name) for name in names)
    total = told.total()
    told.pop("", None)
    if not told:
        return None
    species, number = told.most_common(1)[0]
    return species if number >= max(2, 0.9 * told.total(), 0.05 * total) else None
