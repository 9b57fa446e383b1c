"""Which column's levels to align, and what is mixed up with them.

Aligning the levels of a column takes away every difference between them. Where each level is of one condition, that
includes what the condition did. So a column is wanted whose levels each span the conditions: a donor who gave all arms
of a study does, a library does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from immunomod.errors import UserError

#: Columns that ``auto`` looks at, the first that fits is taken.
CANDIDATES = ("batch", "donor", "lane", "dataset", "sample")
# A level with fewer cells cannot be aligned: Harmony leaves it where it is.
_SMALLEST_LEVEL = 10
_SPANS = 0.5


@dataclass(frozen=True)
class Key:
    """A column to align.

    Attributes
    ----------
    name
        The column; ``dataset+donor`` where names of donors count within their data set.
    batches
        Level of every cell.
    reason
        Why this one.
    caution
        What is confounded with it, in words; empty where nothing is.
    """

    name: str
    batches: NDArray[np.object_]
    reason: str
    caution: str

    @property
    def n_batches(self) -> int:
        """Levels."""
        return len(set(self.batches))


def choose_key(obs: pd.DataFrame, wanted: str = "auto") -> Key:
    """The column to align in an atlas.

    ``auto`` takes the first of :data:`CANDIDATES` that has two or more levels and whose levels each span conditions
    and compartments (for at least half of the cells). Where none does, the first with two levels is taken and the
    caution says what aligning it costs.

    Parameters
    ----------
    obs
        Cells: the columns of the samples sheet (``sample``, ``dataset``, ``donor``, ``condition``, ``culture``, …).
    wanted
        ``auto`` or a column.

    Raises
    ------
    UserError
        ``wanted`` is no column of the cells.
    """
    if wanted != "auto":
        if wanted not in obs:
            known = ", ".join(sorted(str(column) for column in obs if obs[column].dtype == object))
            raise UserError(
                f"config: atlas.integration_key is {wanted!r}, which is no column of the cells; use auto or one of "
                f"{known}."
            )
        batches = obs[wanted].astype(str).to_numpy(dtype=object)
        return Key(wanted, batches, "asked for", confounding(obs, batches, wanted))
    possible = [(name, levels_of(obs, name)) for name in CANDIDATES if name in obs]
    possible = [(name, levels) for name, levels in possible if _can_align(levels)]
    if not possible:
        return Key("sample", _column(obs, "sample"), "there is one batch only", "")
    for name, levels in possible:
        if not confounding(obs, levels, name):
            return Key(_shown(obs, name), levels, _praise(obs, name), "")
    name, levels = possible[0]
    return Key(
        _shown(obs, name), levels, "no column has levels that each span conditions and kinds of culture",
        confounding(obs, levels, name),
    )  # fmt: skip


def levels_of(obs: pd.DataFrame, name: str) -> NDArray[np.object_]:
    """Levels of a column, of every cell; within its data set where the atlas holds several (D1 of two is not one)."""
    levels = _column(obs, name)
    if name == "dataset" or not _several_datasets(obs):
        return levels
    return np.asarray(_column(obs, "dataset") + "/" + levels, dtype=object)


def replicates_of(obs: pd.DataFrame) -> NDArray[np.object_]:
    """Replicate of every cell: one donor in one sample."""
    parts = [_column(obs, name) for name in ("dataset", "sample", "donor") if name in obs]
    return np.array(["/".join(values) for values in zip(*parts, strict=True)], dtype=object)


def confounding(obs: pd.DataFrame, batches: Sequence[str] | NDArray[np.object_], name: str) -> str:
    """What the levels of a column are mixed up with (condition, kind of culture), in words; empty if nothing."""
    found = []
    for column, words, lost in (
        ("condition", "condition", "what the condition did"),
        ("culture", "kind of culture", "what differs between cultures of MSC, of immune cells and of both"),
    ):
        if column in obs and (share := nested_share(batches, _column(obs, column))) > _SPANS:
            every = "every" if share == 1 else f"{share:.0%} of the cells lie in a"
            found.append(f"{every} {name} is of one {words}" if share == 1 else f"{every} {name} of one {words}")
            found[-1] += f", so aligning also takes away {lost}"
            break
    if not found:
        return ""
    return f"{found[0]}: these coordinates name cells and are not compared between conditions"


def nested_share(batches: Sequence[str] | NDArray[np.object_], groups: NDArray[np.object_]) -> float:
    """Share of the cells whose batch is of one of several ``groups`` only; 0 where there is one group at all."""
    table = pd.crosstab(np.asarray(batches, dtype=str), np.asarray(groups, dtype=str))
    if table.shape[1] < 2 or table.shape[0] < 2:
        return 0.0
    single = (table > 0).sum(axis=1) < 2
    return float(table[single].to_numpy().sum() / table.to_numpy().sum())


def _can_align(levels: NDArray[np.object_]) -> bool:
    values, counts = np.unique(levels.astype(str), return_counts=True)
    return len(values) > 1 and "" not in values and int((counts >= _SMALLEST_LEVEL).sum()) > 1


def _column(obs: pd.DataFrame, name: str) -> NDArray[np.object_]:
    if name not in obs:
        return np.full(len(obs), "", dtype=object)
    return obs[name].astype(str).replace("nan", "").to_numpy(dtype=object)


def _several_datasets(obs: pd.DataFrame) -> bool:
    return "dataset" in obs and obs["dataset"].nunique() > 1


def _shown(obs: pd.DataFrame, name: str) -> str:
    return name if name == "dataset" or not _several_datasets(obs) else f"dataset+{name}"


def _praise(obs: pd.DataFrame, name: str) -> str:
    if "condition" in obs and obs["condition"].nunique() > 1:
        return f"each {name} spans conditions, so aligning leaves what a condition did"
    return f"the cells are of one condition, and {name} is the first column with two levels or more"
