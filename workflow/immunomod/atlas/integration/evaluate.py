"""All measures of one integration: batches mixed, classes kept, and what is left of the conditions' effect.

Batches are to mix among cells of one class **and one condition**: there, all that differs is donor and technique.
Mixing across conditions is no merit, since it may be the effect that was removed. What is measured are neighbourhoods,
because coordinates and graphs both have them; silhouettes and principal component regression are reported where there
are coordinates and do not enter the score (silhouettes mislead about integration: Rautenstrauch and Ohler 2025,
doi:10.1038/s41587-025-02743-4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from immunomod.atlas.cluster import graph_of, leiden
from immunomod.atlas.integration import metrics
from immunomod.atlas.integration.effect import condition_strata, effect_kept, separation
from immunomod.atlas.integration.method import Aligned
from immunomod.atlas.integration.neighborhoods import Space

BATCH_MEASURES = ("ilisi", "kbet", "graph_connectivity")
CLASS_MEASURES = ("clisi", "nmi", "ari", "isolated_f1")
OTHER_MEASURES = ("batch_asw", "pcr_comparison", "label_asw")
#: Weights of scib between classes and batches; the effect has a fifth of the whole.
CLASS_WEIGHT, BATCH_WEIGHT, EFFECT_WEIGHT = 0.6, 0.4, 0.2

_N_NEIGHBORS = 15
_LISI_NEIGHBORS = 90
_KBET_NEIGHBORS = 50
_KBET_ALPHA = 0.05
_SMALLEST_STRATUM = 40
_SMALLEST_CLASS = 10
_RESOLUTIONS = (0.4, 1.0, 2.0)


@dataclass(frozen=True)
class Panel:
    """The cells that integrations are judged on, and what is known of them.

    Attributes
    ----------
    cells
        Their positions in the atlas, sorted.
    labels
        Provisional class, ``""`` where unknown.
    replicates, donors, conditions
        Of every cell.
    seed
        Of the clusterings.
    """

    cells: NDArray[np.int64]
    labels: NDArray[np.object_]
    replicates: NDArray[np.object_]
    donors: NDArray[np.object_]
    conditions: NDArray[np.object_]
    seed: int

    @property
    def known(self) -> NDArray[np.int64]:
        """Cells of classes with ten cells or more; none where there are not two such classes."""
        sizes = pd.Series(self.labels).value_counts()
        large = [name for name in sizes.index if name and sizes[name] >= _SMALLEST_CLASS]
        if len(large) < 2:
            return np.zeros(0, dtype=np.int64)
        return np.flatnonzero(np.isin(self.labels.astype(str), large))

    def batch_strata(self) -> tuple[list[NDArray[np.int64]], bool]:
        """Cells of one class and condition from two replicates or more; whether conditions could be kept apart.

        Where no condition has two replicates, cells of one class are taken together.
        """
        for keys in (["label", "condition"], ["label"]):
            frame = pd.DataFrame({"label": self.labels, "condition": self.conditions, "replicate": self.replicates})
            strata = []
            for _, part in frame.groupby(keys, sort=False):
                sizes = part["replicate"].value_counts()
                large = part["replicate"].isin(sizes.index[sizes >= _SMALLEST_CLASS])
                if large.sum() >= _SMALLEST_STRATUM and part["replicate"][large].nunique() > 1:
                    strata.append(part.index[large].to_numpy(dtype=np.int64))
            if strata:
                return strata, len(keys) > 1
        return [], False


def draw_cells(replicates: NDArray[np.object_], n_cells: int, seed: int) -> NDArray[np.int64]:
    """Positions of at most ``n_cells`` cells, evenly over the replicates: small ones whole, large ones in part."""
    if len(replicates) <= n_cells:
        return np.arange(len(replicates))
    generator = np.random.default_rng(seed)
    codes, names = pd.factorize(replicates, sort=False)
    sizes = np.bincount(codes)
    low, high = 1, int(sizes.max())
    while low < high:  # the largest quota that fits
        middle = (low + high + 1) // 2
        low, high = (middle, high) if np.minimum(sizes, middle).sum() <= n_cells else (low, middle - 1)
    drawn = []
    for code in range(len(names)):
        own = np.flatnonzero(codes == code)
        drawn.append(own if len(own) <= low else generator.choice(own, low, replace=False))
    return np.sort(np.concatenate(drawn))


class Judge:
    """Measures integrations of one panel against the components that they started from."""

    def __init__(self, panel: Panel, components: NDArray[np.float32]) -> None:
        """``components``: those of the panel's cells."""
        self._panel = panel
        self._components = components
        self._batch_strata, self.conditions_apart = panel.batch_strata()
        self._effect_strata = condition_strata(panel.labels, panel.donors, panel.conditions)
        self._before: NDArray[np.float64] | None = None

    def measure(self, aligned: Aligned, batches: NDArray[np.object_]) -> dict[str, float]:
        """Every measure of an integration of the panel's cells, by column name; NaN where it does not apply.

        ``batches``: what was aligned, of every cell.
        """
        space = Space.of(aligned, min(_N_NEIGHBORS, max(2, round(float(np.sqrt(len(self._panel.cells)))))))
        same, by_chance = same_batch_share(space.nearest.indices, batches)
        found = self._batches(space) | self._classes(space)
        found["batch_score"] = _mean([found[name] for name in BATCH_MEASURES])
        found["class_score"] = _mean([found[name] for name in CLASS_MEASURES])
        found["effect_kept"] = self._effect(space)
        found |= {"same_batch_neighbors": same, "expected_by_chance": by_chance}
        found["score"] = total_score(found["batch_score"], found["class_score"], found["effect_kept"])
        return found

    def _batches(self, space: Space) -> dict[str, float]:
        rows, sizes = [], []
        generator = np.random.default_rng(self._panel.seed)
        for members in self._batch_strata:
            codes, _ = pd.factorize(self._panel.replicates[members], sort=False)
            k = max(10, min(_LISI_NEIGHBORS, len(members) // 4))
            indices, distances = space.neighbors(members, k)
            weights = metrics.neighbor_weights(indices, distances, k / 3)
            # what chance gives is as mixed as it gets: a graph that deals batches out evenly is no better than that
            mixed = metrics.inverse_simpson(indices, weights, generator.permutation(codes)).mean() - 1
            found = metrics.inverse_simpson(indices, weights, codes).mean() - 1
            accepted = metrics.kbet_acceptance(indices[:, :_KBET_NEIGHBORS], codes, _KBET_ALPHA).mean()
            row = {
                "ilisi": float(np.clip(found / max(mixed, 1e-9), 0, 1)),
                "kbet": min(1.0, float(accepted) / (1 - _KBET_ALPHA)),
                "graph_connectivity": metrics.largest_component_share(
                    indices[:, : _N_NEIGHBORS - 1], np.ones(len(members), dtype=bool)
                ),
            }
            if space.walk is None:
                row["batch_asw"] = float((1 - np.abs(metrics.silhouettes(space.points[members], codes))).mean())
            rows.append(row)
            sizes.append(len(members))
        table = pd.DataFrame(rows, columns=[*BATCH_MEASURES, "batch_asw"], dtype=float)
        means = {name: float(np.average(table[name], weights=sizes)) if rows else float("nan") for name in table}
        return {str(name): value for name, value in means.items()} | {"pcr_comparison": self._regression(space)}

    def _regression(self, space: Space) -> float:
        """How much less of the variance within classes and conditions lies between replicates than before."""
        if space.walk is not None or not self._batch_strata:
            return float("nan")
        before, after, codes = [], [], []
        for members in self._batch_strata:
            before.append(self._components[members] - self._components[members].mean(axis=0))
            after.append(space.points[members] - space.points[members].mean(axis=0))
            codes.append(self._panel.replicates[members])
        replicate, _ = pd.factorize(np.concatenate(codes), sort=False)
        first = metrics.explained_by(np.concatenate(before), replicate)
        second = metrics.explained_by(np.concatenate(after), replicate)
        return max(0.0, (first - second) / first) if first > 0 else 0.0

    def _classes(self, space: Space) -> dict[str, float]:
        from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

        known = self._panel.known
        if not len(known):
            return dict.fromkeys((*CLASS_MEASURES, "label_asw"), float("nan"))
        codes, names = pd.factorize(self._panel.labels[known], sort=False)
        k = max(5, min(_LISI_NEIGHBORS, len(known) // 4))
        indices, distances = space.neighbors(known, k)
        lisi = metrics.lisi(indices, distances, codes, max(2.0, k / 3))
        graph = graph_of(space.connectivities)
        clusterings = [leiden(graph, resolution, self._panel.seed)[known] for resolution in _RESOLUTIONS]
        nmi = [normalized_mutual_info_score(codes, clusters) for clusters in clusterings]
        replicate, _ = pd.factorize(self._panel.replicates[known], sort=False)
        asw = metrics.silhouettes(space.points[known], codes).mean() if space.walk is None else float("nan")
        return {
            "clisi": float((len(names) - lisi.mean()) / (len(names) - 1)),
            "nmi": float(max(nmi)),
            "ari": float(max(adjusted_rand_score(codes, clusters) for clusters in clusterings)),
            "isolated_f1": metrics.isolated_f1(codes, replicate, clusterings),
            "label_asw": float((asw + 1) / 2),
        }

    def _effect(self, space: Space) -> float:
        if self._before is None:
            unaligned = Space(self._components, space.nearest, space.connectivities, None)
            self._before = separation(unaligned, self._effect_strata, self._panel.conditions)
        after = separation(space, self._effect_strata, self._panel.conditions)
        return effect_kept(self._before, after, self._effect_strata)


def same_batch_share(
    neighbor_indices: NDArray[np.integer], batches: Sequence[str] | NDArray[np.object_]
) -> tuple[float, float]:
    """Mean share of a cell's neighbours that come from its own batch, and what chance would give.

    Near chance: batches are mixed. Near one: they stay apart, by technique or because they hold other cell classes.
    """
    codes, names = pd.factorize(np.asarray(batches, dtype=str))
    if neighbor_indices.shape[1] < 2:
        return 1.0, 1.0
    same = float((codes[neighbor_indices[:, 1:]] == codes[:, None]).mean())
    shares = np.bincount(codes, minlength=len(names)) / len(codes)
    return same, float((shares**2).sum())


def total_score(batch: float, classes: float, effect: float) -> float:
    """Classes 0.6 and batches 0.4, as in scib; then a fifth of the whole for the effect. Terms not known drop out."""
    scib = _weighted((classes, CLASS_WEIGHT), (batch, BATCH_WEIGHT))
    return _weighted((scib, 1 - EFFECT_WEIGHT), (effect, EFFECT_WEIGHT))


def _weighted(*terms: tuple[float, float]) -> float:
    known = [(value, weight) for value, weight in terms if np.isfinite(value)]
    if not known:
        return float("nan")
    return float(sum(value * weight for value, weight in known) / sum(weight for _, weight in known))


def _mean(values: list[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")
