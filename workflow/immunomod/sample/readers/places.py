"""Which of the matrices in one file holds the counts: files of AnnData, Seurat and their kin hold several.

They are tried in the order in which people keep counts. What is passed over is said, and why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from immunomod.errors import UserError
from immunomod.sample.readers.counts import Diagnosis, diagnose, holds_counts

#: Cells from which a place is judged where its whole reading would take too long.
SAMPLED_CELLS = 300
#: Names that people give to counts among other matrices, in the order of trust (lower case, ``_`` for space and dash).
COUNT_NAMES = (
    "counts", "raw_counts", "rawcounts", "raw", "count", "raw_count", "umi_counts", "umi_count", "umis", "umi",
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A matrix in a file.

    ``values`` gives its stored values a block at a time, ``sample`` its first cells (cells x features), ``read`` all of
    it as CSR, cells x features.
    """

    name: str
    features: pd.DataFrame
    n_cells: int
    values: Callable[[], Iterator[np.ndarray]]
    sample: Callable[[], sparse.csr_matrix]
    read: Callable[[], sparse.csr_matrix]


@dataclass(frozen=True)
class Choice:
    """The place that holds the counts, and why it was taken, in sentences."""

    place: Place
    decisions: list[str]


def count_names(names: Sequence[str]) -> list[str]:
    """Those of ``names`` that are known for counts, most trusted first."""
    plain = {name: name.lower().replace(" ", "_").replace("-", "_").replace(".", "_") for name in names}
    return sorted((name for name in names if plain[name] in COUNT_NAMES), key=lambda n: COUNT_NAMES.index(plain[n]))


def all_counts(place: Place) -> bool:
    """Whether every value of a place is a count, and one is above 0."""
    filled = False
    for block in place.values():
        if not holds_counts(block):
            return False
        filled = filled or bool(block.any())
    return filled


def begins_with_counts(place: Place) -> bool:
    """Whether the first cells of a place hold counts: what can be known in a moment."""
    values = place.sample().data
    return bool(values.any()) and holds_counts(values)


def choose(places: Sequence[Place], judge: Callable[[Place], bool], where: str, advice: str) -> Choice:
    """The first place that ``judge`` says holds counts; a later one only if it holds counts of more features.

    Where none does, the first that holds fractions of counts is taken, or else one with missing values: whether those
    may be rounded is decided, and these are named by gene and cell, where counts are checked. Where all are empty, as
    in a library that failed, the first is taken.

    Raises
    ------
    UserError
        No place will do; each is named with what its values are. ``advice`` says what to do.
    """
    refused: list[tuple[Place, Diagnosis]] = []
    chosen: Place | None = None
    for place in places:
        if chosen is not None and len(place.features) <= len(chosen.features):
            continue
        if judge(place):
            note = f"counts taken from {place.name}"
            if chosen is not None:
                note += f", which has {len(place.features):,} features where {chosen.name} has {len(chosen.features):,}"
            chosen, taken = place, note
        elif chosen is None:
            refused.append((place, _diagnosis(place)))
    passed_over = [f"passed over {place.name}: {one.words}" for place, one in refused]
    if chosen is not None:
        return Choice(chosen, [taken, *passed_over])
    for place, one in sorted(refused, key=lambda pair: pair[1].gaps):
        if one.fractions_of_counts or one.gaps:
            others = [f"passed over {other.name}: {its.words}" for other, its in refused if other is not place]
            return Choice(place, [f"taken from {place.name}: {one.words}", *others])
    if refused and all(one.nothing for _, one in refused):
        place, one = refused[0]
        return Choice(place, [f"taken from {place.name}: {one.words}"])
    found = "; ".join(f"{place.name} ({one.words})" for place, one in refused) or "the file"
    raise UserError(f"{where}: no raw counts in {found}; {advice}")


def _diagnosis(place: Place) -> Diagnosis:
    sample = place.sample()
    return diagnose(sample) if sample.data.any() else Diagnosis("its first cells hold no value above 0", nothing=True)
