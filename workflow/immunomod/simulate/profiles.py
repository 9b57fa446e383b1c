"""Expression profiles of the simulated classes, and the programmes as matrices on their genes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from immunomod.errors import UserError
from immunomod.files import read_tsv
from immunomod.programs import ProgramSet
from immunomod.tables import REPOSITORY

PROFILES = REPOSITORY / "resources" / "simulation" / "profiles.tsv.gz"


@dataclass(frozen=True)
class Profiles:
    """Mean expression of each class.

    Attributes
    ----------
    genes
        ``gene_id`` and ``gene_symbol``, one row per gene, index 0, 1, ...
    levels
        Genes x classes, counts per million; a class under a stimulus stands in ``<class>_stimulated``.
    """

    genes: pd.DataFrame
    levels: pd.DataFrame

    @property
    def symbols(self) -> pd.Index:
        """Gene symbols, in the order of ``levels``."""
        symbols: pd.Index = pd.Index(self.genes["gene_symbol"])
        return symbols

    def of(self, cell_class: str, stimulus: str) -> np.ndarray:
        """Shares of a class's molecules (float64, sums to 1), stimulated if there is a ``stimulus``."""
        name = f"{cell_class}_stimulated" if stimulus and f"{cell_class}_stimulated" in self.levels else cell_class
        if name not in self.levels:
            known = ", ".join(name for name in map(str, self.levels) if not name.endswith("_stimulated"))
            raise UserError(f"simulate: there is no profile of class {cell_class!r}. There are {known}.")
        level = self.levels[name].to_numpy(dtype=float)
        return np.asarray(level / level.sum())


def load_profiles(path: str | Path = PROFILES) -> Profiles:
    """Read the shipped table (resources/simulation/README.md) or another one of its form."""
    table = read_tsv(path)
    return Profiles(
        genes=table[["gene_id", "gene_symbol"]],
        levels=table.drop(columns=["gene_id", "gene_symbol"]),
    )


def signed_weights(programs: ProgramSet, profiles: Profiles) -> pd.DataFrame:
    """Signed weights of the human programmes on the profiles' genes: gene symbols x programmes."""
    return programs.weights("human").reindex(profiles.symbols).fillna(0.0)


def applies_to(compartment: str, lineage: str) -> bool:
    """Whether a programme of ``compartment`` (column of the programmes' table) is tested in a lineage."""
    if compartment == "both":
        return True
    if lineage == "MSC" or compartment == "MSC":
        return compartment == "MSC" and lineage == "MSC"
    kind = compartment.removeprefix("immune:")
    return kind == "all" or lineage == {"mono/mac": "monocyte"}.get(kind, kind)
