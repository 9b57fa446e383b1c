"""The ligand-receptor pairs: which gene's product is known to bind which receptor.

A folder of pairs holds ``human.tsv`` and ``mouse.tsv``. The shipped ones are liana's consensus
(``resources/interactions/README.md``), kept as text so that a run needs neither liana nor a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from immunomod.genes import ORGANISMS, GeneNames
from immunomod.tables import REPOSITORY, read_table

SHIPPED = REPOSITORY / "resources" / "interactions"
#: Between the subunits of a complex.
SUBUNIT_SEPARATOR = "_"


def load_interactions(folder: str | Path = SHIPPED, organisms: Sequence[str] = ORGANISMS) -> dict[str, pd.DataFrame]:
    """The pairs of each organism: columns ``ligand, receptor`` of current symbols, each pair once, sorted.

    Parameters
    ----------
    folder
        Where the tables are. Subunits of complexes are sorted, so that a complex has one name.
    organisms
        ``human``, ``mouse`` or both; tables of others are not read.

    Raises
    ------
    StudyError
        A table is missing, or a row breaks its schema.
    ValueError
        There is no such organism.
    """
    unknown = sorted(set(organisms) - set(ORGANISMS))
    if unknown:
        raise ValueError(f"no ligand-receptor pairs for organism {unknown[0]!r}: {' or '.join(ORGANISMS)} is needed")
    pairs = {}
    for organism in organisms:
        given, names = read_table(table_of(folder, organism), "interactions"), GeneNames.load(organism)
        current = given[["ligand", "receptor"]].map(lambda name, names=names: _current(name, names))
        pairs[organism] = current.drop_duplicates().sort_values(["ligand", "receptor"], ignore_index=True)
    return pairs


def table_of(folder: str | Path, organism: str) -> Path:
    """The table of an organism in a folder of pairs."""
    return Path(folder) / f"{organism}.tsv"


def subunits(complex_name: str) -> list[str]:
    """The genes of a complex; of a single gene, itself."""
    return complex_name.split(SUBUNIT_SEPARATOR)


def _current(complex_name: str, names: GeneNames) -> str:
    return SUBUNIT_SEPARATOR.join(sorted({names.symbol(gene) for gene in subunits(complex_name)}))
