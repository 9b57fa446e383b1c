"""From what several witnesses say of a cell to one class: lineage first, then as fine as the evidence goes.

Every witness (markers, a CellTypist model, an annotated reference) spreads at most one vote per cell over the classes.
The lineage with the most votes is taken where it has more than a given share of them; from its class without a parent
the way leads down to a child for as long as that child has more than this share of the votes. Left aside below a
class are the witnesses that cannot tell its children apart: one that knows T cells only speaks for CD4 as much as for
CD8 T cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from immunomod.atlas.markers import UNASSIGNED, MarkerSet

#: How far names may go: down to the finest class, or to the classes without a parent.
LEVELS = ("class", "lineage")
# Votes are sums of float32: two that are equal differ by less.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class ClassTree:
    """The classes and which belongs to which.

    Attributes
    ----------
    names
        All classes, in the order of the table of classes; votes have one column for each.
    parent
        Position of each class's parent; -1 for none.
    within
        Classes x classes, 1 where the row's class is the column's or below it.
    of_lineage
        Classes x lineages, 1 where the class is of the lineage.
    """

    names: tuple[str, ...]
    parent: NDArray[np.int64]
    within: NDArray[np.float32]
    of_lineage: NDArray[np.float32]

    @classmethod
    def of(cls, markers: MarkerSet) -> ClassTree:
        """The tree of a table of classes."""
        table = markers.classes
        parent = table.index.get_indexer(pd.Index(table["parent"]))
        within = np.eye(len(table), dtype=np.float32)
        above = parent.copy()
        while (above >= 0).any():
            rows = np.flatnonzero(above >= 0)
            within[rows, above[rows]] = 1
            above = np.where(above >= 0, parent[above], -1)
        lineage = pd.factorize(table["lineage"])[0]
        return cls(tuple(table.index), parent, within, np.eye(lineage.max() + 1, dtype=np.float32)[lineage])

    def related(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether one of two classes (positions) is the other or above it."""
        either = (self.within + self.within.T) > 0
        return np.asarray(either[first, second], dtype=bool)

    @property
    def unassigned(self) -> int:
        """Position of the class for cells that no class fits."""
        return self.names.index(UNASSIGNED)


@dataclass(frozen=True)
class Votes:
    """What one witness says of every row (a cell or a group of cells).

    Attributes
    ----------
    witness
        Its name.
    shares
        Rows x classes, float32, from 0; a row sums to at most 1, to 0 where the witness is silent.
    knows
        For every class whether this witness can name it.
    """

    witness: str
    shares: NDArray[np.float32]
    knows: NDArray[np.bool_]

    def heard_on(self, rows: NDArray[np.bool_]) -> Votes:
        """Silent but on ``rows``."""
        return Votes(self.witness, np.where(rows[:, None], self.shares, np.float32(0)), self.knows)


@dataclass(frozen=True)
class Decision:
    """For every row the position of its class in the tree, and the share of the votes behind it (0 to 1).

    ``lineage_share`` is that of the leading lineage, whether or not it was enough.
    """

    chosen: NDArray[np.int64]
    confidence: NDArray[np.float32]
    lineage_share: NDArray[np.float32]


def decide(votes: Sequence[Votes], tree: ClassTree, min_confidence: float, level: str = LEVELS[0]) -> Decision:
    """The class of every row.

    Parameters
    ----------
    votes
        One or more witnesses, on the same rows.
    tree
        The classes.
    min_confidence
        A lineage, and then a child, needs more than this share of the votes.
    level
        One of :data:`LEVELS`.
    """
    rows = np.arange(len(votes[0].shares))
    below = [one.shares @ tree.within for one in votes]
    support = np.sum(below, axis=0)
    contested = np.zeros_like(support)
    children = {int(p): np.flatnonzero(tree.parent == p) for p in np.unique(tree.parent) if p >= 0}
    for one, own in zip(votes, below, strict=True):
        for p, kids in children.items():
            if one.knows[kids].any():
                contested[:, p] += own[:, p]
    total = np.sum([one.shares.sum(axis=1) for one in votes], axis=0)
    lineages = np.sum([one.shares @ tree.of_lineage for one in votes], axis=0)
    leading = lineages.argmax(axis=1)
    of_leading = lineages[rows, leading]
    lineage_share = _ratio(of_leading, total)

    is_root = tree.parent < 0
    in_leading = tree.of_lineage[:, leading].T > 0
    chosen = np.where(in_leading & is_root, support, -1).argmax(axis=1)
    confidence = lineage_share * _ratio(support[rows, chosen], of_leading)
    while level == LEVELS[0]:
        before = chosen.copy()
        for p, kids in children.items():
            at = np.flatnonzero(before == p)
            child = kids[support[np.ix_(at, kids)].argmax(axis=1)]
            share = _ratio(support[at, child], contested[at, p])
            goes = confidence[at] * share > min_confidence + _ROUNDING
            chosen[at[goes]] = child[goes]
            confidence[at[goes]] *= np.minimum(share[goes], 1)
        if (chosen == before).all():
            break
    unsure = (lineage_share <= min_confidence + _ROUNDING) | (chosen == tree.unassigned)
    chosen[unsure] = tree.unassigned
    return Decision(chosen, confidence.astype(np.float32), lineage_share.astype(np.float32))


def _ratio(part: NDArray[np.floating], whole: NDArray[np.floating]) -> NDArray[np.float64]:
    """``part / whole``, 0 where there is nothing."""
    return np.asarray(np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0), dtype=np.float64)
