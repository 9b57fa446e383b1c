"""How much of what a condition does to cells can still be seen after integration.

Within one class and one donor, batch effects between donors play no part. There, a cell whose neighbours are mostly of
its own condition shows the effect of the condition. How far the share of such neighbours exceeds chance is measured in
the integrated space and in the principal components; the ratio is what was kept. Zero: conditions are mixed as if
nothing had happened; one: they are as apart as before.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from immunomod.atlas.integration.neighborhoods import Space

_FEWEST_CELLS = 15
_K = 15
# Below this excess over chance the principal components themselves show no effect that could be kept.
_VISIBLE = 0.1


def condition_strata(
    labels: NDArray[np.object_], donors: NDArray[np.object_], conditions: NDArray[np.object_]
) -> list[NDArray[np.int64]]:
    """Cells of one class and donor in conditions that each have 15 cells of them or more, where there are two."""
    strata = []
    frame = pd.DataFrame({"label": labels, "donor": donors, "condition": conditions})
    for (label, _), cells in frame.groupby(["label", "donor"], sort=False):
        sizes = cells["condition"].value_counts()
        large = sizes.index[sizes >= _FEWEST_CELLS]
        if label and len(large) > 1:
            strata.append(cells.index[cells["condition"].isin(large)].to_numpy(dtype=np.int64))
    return strata


def separation(
    space: Space, strata: Sequence[NDArray[np.int64]], conditions: NDArray[np.object_]
) -> NDArray[np.float64]:
    """Excess over chance of neighbours of a cell's own condition, 1 at most, one value per stratum.

    Conditions count equally, however many cells they have. Neighbours are looked for within the stratum.
    """
    found = []
    for members in strata:
        codes, _ = pd.factorize(conditions[members], sort=False)
        indices, _ = space.neighbors(members, _K)
        there = indices >= 0
        same = ((codes[indices] == codes[:, None]) & there).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
        sizes = np.bincount(codes)
        chance = (sizes[codes] - 1) / (len(codes) - 1)
        excess = np.where(there.any(axis=1), (same - chance) / (1 - chance), 0.0)
        found.append(float(np.mean([excess[codes == code].mean() for code in range(len(sizes))])))
    return np.array(found)


def effect_kept(before: NDArray[np.float64], after: NDArray[np.float64], strata: Sequence[NDArray[np.int64]]) -> float:
    """Share of the separation ``before`` that is left ``after``, over strata weighted by cells; NaN: none before."""
    if not len(strata):
        return float("nan")
    cells = np.array([len(members) for members in strata], dtype=np.float64)
    total = float(cells @ np.maximum(before, 0.0))
    if total / cells.sum() < _VISIBLE:
        return float("nan")
    return float(np.clip(cells @ np.maximum(after, 0.0) / total, 0.0, 1.0))
