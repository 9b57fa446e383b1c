"""Tables of programs that tell pooled donors apart by genotype, recognised by their headers.

demuxlet (Kang et al. 2018, Nat. Biotechnol. 36:89), freemuxlet (its kin without genotypes, in popscle), vireo (Huang et
al. 2019, Genome Biol. 20:273) and souporcell (Heaton et al. 2020, Nat. Methods 17:615) write one row per droplet. Each
is read into the same three columns: ``barcode``, ``donor`` and ``doublet`` (``singlet``, ``doublet`` or
``unassigned``); a doublet and a droplet that could not be assigned have no donor.

Without genotypes of the donors a program numbers its clusters (``donor0``, ``0``), each lane anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

SINGLET, DOUBLET, UNASSIGNED = "singlet", "doublet", "unassigned"
_CLUSTER = re.compile(r"(?:donor|cluster)?[-_ ]?\d{1,2}", re.IGNORECASE)


@dataclass(frozen=True)
class GenotypeTable:
    """A program's table: the columns (in capitals) that tell it from any other, and how its rows are read."""

    program: str
    columns: frozenset[str]
    read: Callable[[pd.DataFrame], pd.DataFrame]


def _read_demuxlet(table: pd.DataFrame) -> pd.DataFrame:
    """The first form of ``.best``: ``BEST`` holds the type and the names, ``SNG.1ST`` the likeliest single donor."""
    kind = table["BEST"].str.split("-").str[0].str.upper()
    return _rows(table["BARCODE"], table["SNG.1ST"], kind)


def _read_popscle(table: pd.DataFrame) -> pd.DataFrame:
    """``.best`` of popscle's demuxlet and ``.clust1.samples.gz`` of freemuxlet."""
    return _rows(table["BARCODE"], table["SNG.BEST.GUESS"], table["DROPLET.TYPE"].str.upper())


def _read_vireo(table: pd.DataFrame) -> pd.DataFrame:
    donor = table["DONOR_ID"]
    kind = np.where(donor == DOUBLET, "DBL", np.where(donor.isin([UNASSIGNED, ""]), "AMB", "SNG"))
    return _rows(table["CELL"], donor, pd.Series(kind, index=table.index))


def _read_souporcell(table: pd.DataFrame) -> pd.DataFrame:
    kind = table["STATUS"].str.lower().map({SINGLET: "SNG", DOUBLET: "DBL"})
    return _rows(table["BARCODE"], table["ASSIGNMENT"], kind)


def _rows(barcode: pd.Series, donor: pd.Series, kind: pd.Series) -> pd.DataFrame:
    """Rows of a program under common names; ``kind`` is SNG, DBL or anything else for what could not be assigned."""
    called = kind.map({"SNG": SINGLET, "DBL": DOUBLET}).fillna(UNASSIGNED)
    columns = {"barcode": barcode, "donor": donor.where(called == SINGLET, ""), "doublet": called}
    return pd.DataFrame({name: values.to_numpy(dtype=object) for name, values in columns.items()})


TABLES = (
    GenotypeTable("demuxlet", frozenset({"BARCODE", "BEST", "SNG.1ST"}), _read_demuxlet),
    GenotypeTable("demuxlet or freemuxlet", frozenset({"BARCODE", "DROPLET.TYPE", "SNG.BEST.GUESS"}), _read_popscle),
    GenotypeTable("vireo", frozenset({"CELL", "DONOR_ID"}), _read_vireo),
    GenotypeTable("souporcell", frozenset({"BARCODE", "STATUS", "ASSIGNMENT"}), _read_souporcell),
)
#: Besides its columns, one of these tells vireo's table from an author's of the same two names.
_OF_VIREO = frozenset({"PROB_MAX", "PROB_DOUBLET", "BEST_SINGLET", "BEST_DOUBLET"})


def recognise_genotypes(table: pd.DataFrame) -> GenotypeTable | None:
    """The program whose table this is; None for any other per-cell table."""
    names = _capitals(table)
    for one in TABLES:
        if one.columns <= set(names) and (one.program != "vireo" or _OF_VIREO & set(names)):
            return one
    return None


def read_genotypes(table: pd.DataFrame, of: GenotypeTable) -> pd.DataFrame:
    """A program's rows, all str: ``barcode``, ``donor`` (empty but for singlets), ``doublet``."""
    rows = table.reset_index(drop=True).set_axis(_capitals(table), axis=1)
    rows = rows.loc[:, ~rows.columns.duplicated()]
    return of.read(rows.astype(str).apply(lambda column: column.str.strip()))


def _capitals(table: pd.DataFrame) -> list[str]:
    return [str(name).strip().upper() for name in table.columns]


def are_clusters(donors: pd.Series, of: GenotypeTable) -> bool:
    """Whether donors are numbers that a program gave its clusters, rather than names from genotypes.

    The first demuxlet always has genotypes. Numbers that leave none out, from 0 on, are clusters.
    """
    names = sorted(set(donors) - {""})
    if of.program == "demuxlet" or not names:
        return False
    if not all(_CLUSTER.fullmatch(name) for name in names):
        return False
    numbers = [int(re.sub(r"\D", "", name)) for name in names]
    return of.program != "demuxlet or freemuxlet" or max(numbers) < 2 * len(numbers)
