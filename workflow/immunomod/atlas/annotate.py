"""Name cells by published markers, group by group and then cell by cell, and say how sure the name is.

Expression of marker genes is first averaged along the cell graph: single cells of shallow libraries show one marker
in five, neighbourhoods show them all. A class's score is the weighted mean of its markers, each held against its
highest level in the atlas, less the mean of the markers that speak against it. Groups of cells (fine clusters) take
the class with the highest mean score; the confidence is how often that class still wins when the marker genes are
reweighted at random (Bayesian bootstrap, Rubin 1981, doi:10.1214/aos/1176345338): a name that hangs on one gene is
not sure. A cell takes the class with the highest mean of its group's score and its own, since a group may hold cells of
classes that lie close (CD4 and CD8 T cells). Scores are never standardised across cells, so an atlas of one class only
(MSC alone) is named as well as a mixed one. Labels that authors gave are never read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from immunomod.atlas.markers import UNASSIGNED, MarkerSet, MarkerWeights
from immunomod.atlas.settings import AnnotationSettings

_STEPS = 3
# Expression (log1p of counts per 10,000) that counts as present: keeps noise in genes that no cell expresses small.
_PRESENT = 0.2
# The level that counts as a marker's highest: not the maximum, which one odd cell sets.
_HIGHEST_PERCENTILE = 99.5
_CELLS_AT_ONCE = 20_000
_CELL_BOOTSTRAPS = 50


@dataclass(frozen=True)
class Annotation:
    """Names of groups and cells.

    Attributes
    ----------
    groups
        Index group; ``cell_class``, ``confidence``, ``score``, ``runner_up``, ``runner_up_score``, ``n_cells``,
        ``top_markers``, ``reason``.
    group_class
        Class of every cell's group.
    cell_class
        Class of every cell: its group's, unless its own neighbourhood speaks clearly for another.
    cell_confidence
        For every cell, in how many of the bootstraps its own neighbourhood alone gives the class (0 to 1).
    """

    groups: pd.DataFrame
    group_class: NDArray[np.object_]
    cell_class: NDArray[np.object_]
    cell_confidence: NDArray[np.float32]


def smooth(values: NDArray[np.float32], connectivities: sparse.csr_matrix, steps: int = _STEPS) -> NDArray[np.float32]:
    """Average ``values`` (cells x genes) over neighbourhoods: ``steps`` of a random walk that may stay."""
    walk = (connectivities + sparse.identity(connectivities.shape[0], dtype=np.float32, format="csr")).tocsr()
    walk = sparse.diags((1 / np.asarray(walk.sum(axis=1)).ravel()).astype(np.float32)) @ walk
    for _ in range(steps):
        values = np.asarray(walk @ values, dtype=np.float32)
    return values


def relative_levels(smoothed: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each gene against its highest level in the atlas, 0 to 1 (cells x genes); absent genes stay near 0."""
    highest = np.percentile(smoothed, _HIGHEST_PERCENTILE, axis=0)
    return np.minimum(smoothed / (highest + _PRESENT), 1).astype(np.float32)


def annotate(
    expression: sparse.csr_matrix,
    symbols: pd.Index,
    connectivities: sparse.csr_matrix,
    groups: NDArray[np.int64],
    markers: MarkerSet,
    organism: str,
    settings: AnnotationSettings,
    seed: int,
) -> Annotation:
    """Name every group of cells.

    Parameters
    ----------
    expression
        Log-normalised expression, cells x genes; only marker genes are looked at.
    symbols
        Gene symbols of its columns.
    connectivities
        Weights between cells, cells x cells.
    groups
        Group of every cell, numbered from 0: clusters fine enough to hold one class each.
    markers, organism
        Marker tables and the organism whose symbols to use.
    settings
        Thresholds.
    seed
        Of the bootstraps.
    """
    weights = markers.weights(symbols, organism)
    if not weights.classes:
        return _nothing_found(groups)
    levels = relative_levels(smooth(expression[:, weights.genes].toarray(), connectivities))
    means = _group_means(levels, groups)
    generator = np.random.default_rng(seed)
    named = _name_groups(means, groups, weights, symbols[weights.genes], markers, settings, generator)
    group_class = named["cell_class"].to_numpy(dtype=object)[groups]
    cell_class = _cell_classes(levels, means, groups, group_class, weights, markers, settings)
    confidence = _cell_confidence(levels, cell_class, weights, markers, generator)
    return Annotation(named, group_class, cell_class, confidence)


def class_scores(levels: NDArray[np.floating], weights: MarkerWeights) -> NDArray[np.float64]:
    """Weighted mean level of each class's markers less that of its negative markers (rows x classes, -1 to 1)."""
    return np.asarray(levels @ _signed(weights, np.ones(len(weights.genes))), dtype=np.float64)


def _signed(weights: MarkerWeights, gene_weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Genes x classes: positive part sums to 1, negative to -1 (or 0 where a class has none)."""
    positive = weights.positive * gene_weights[:, None]
    negative = weights.negative * gene_weights[:, None]
    against = negative.sum(axis=0)
    signed = positive / positive.sum(axis=0) - negative / np.where(against > 0, against, 1.0)
    return np.asarray(signed, dtype=np.float64)


def _cell_classes(
    levels: NDArray[np.float32],
    means: NDArray[np.float64],
    groups: NDArray[np.int64],
    group_class: NDArray[np.object_],
    weights: MarkerWeights,
    markers: MarkerSet,
    settings: AnnotationSettings,
) -> NDArray[np.object_]:
    """The class of every cell by its group's evidence and its own, half and half.

    A cell of an unassigned group stays so. Where the group is sure of no more than a parent class, its cells get no
    finer class of that parent either.
    """
    classes = np.array(weights.classes, dtype=object)
    parents = np.array([markers.less_resolved(name) for name in classes], dtype=object)
    of_group = class_scores(means, weights)
    cell_class = group_class.copy()
    for start in range(0, len(levels), _CELLS_AT_ONCE):
        block = slice(start, start + _CELLS_AT_ONCE)
        score = (of_group[groups[block]] + class_scores(levels[block], weights)) / 2
        winner = score.argmax(axis=1)
        within = (classes[winner] == group_class[block]) | (parents[winner] == group_class[block])
        moves = ~within & (group_class[block] != UNASSIGNED) & (score.max(axis=1) >= settings.min_score)
        cell_class[block] = np.where(moves, classes[winner], group_class[block])
    return cell_class


def _group_means(levels: NDArray[np.float32], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    size = np.bincount(groups)
    member = sparse.csr_matrix((1 / size[groups], (groups, np.arange(len(groups)))), shape=(len(size), len(groups)))
    return np.asarray(member @ levels, dtype=np.float64)


def _name_groups(
    means: NDArray[np.float64],
    groups: NDArray[np.int64],
    weights: MarkerWeights,
    symbols: pd.Index,
    markers: MarkerSet,
    settings: AnnotationSettings,
    generator: np.random.Generator,
) -> pd.DataFrame:
    classes = np.array(weights.classes, dtype=object)
    lineages = np.array([markers.lineage(name) for name in classes], dtype=object)
    scores = class_scores(means, weights)
    wins = _bootstrap_wins(means, weights, settings.n_bootstraps, generator)
    rows = []
    for group, (score, share) in enumerate(zip(scores, wins, strict=True)):
        order = np.argsort(-score, kind="stable")
        best, second = order[0], order[1] if len(order) > 1 else order[0]
        name, confidence, reason = _decide(classes, lineages, score, share, int(best), markers, settings)
        support = means[group] * weights.positive[:, best]
        rows.append(
            {
                "cell_class": name,
                "confidence": confidence,
                "score": score[best],
                "runner_up": classes[second] if second != best else "",
                "runner_up_score": score[second],
                "n_cells": int((groups == group).sum()),
                "top_markers": ",".join(symbols[i] for i in np.argsort(-support, kind="stable")[:5] if support[i] > 0),
                "reason": reason,
            }
        )
    return pd.DataFrame(rows).rename_axis("group")


def _decide(
    classes: NDArray[np.object_],
    lineages: NDArray[np.object_],
    score: NDArray[np.float64],
    share: NDArray[np.float64],
    best: int,
    markers: MarkerSet,
    settings: AnnotationSettings,
) -> tuple[str, float, str]:
    """Class, confidence and the reason in words, for one group."""
    name = str(classes[best])
    if score[best] < settings.min_score:
        return UNASSIGNED, float(share[best]), f"no class's markers reach a score of {settings.min_score:g}"
    if share[best] > settings.min_confidence:
        return name, float(share[best]), ""
    of_lineage = float(share[lineages == lineages[best]].sum())
    if of_lineage > settings.min_confidence:
        fallback = markers.less_resolved(name)
        if fallback != name:
            return fallback, of_lineage, f"sure of the lineage only; {name} wins {share[best]:.2f} of the bootstraps"
        return name, float(share[best]), f"sure of the lineage ({of_lineage:.2f} of the bootstraps), less of the class"
    return UNASSIGNED, float(share[best]), f"{name} wins only {share[best]:.2f} of the bootstraps"


def _bootstrap_wins(
    means: NDArray[np.float64], weights: MarkerWeights, n_bootstraps: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Share of the bootstraps in which each class scores highest (rows x classes); ties are shared out."""
    wins = np.zeros((len(means), len(weights.classes)))
    for _ in range(n_bootstraps):
        scores = means @ _signed(weights, generator.exponential(size=len(weights.genes)))
        first = scores >= scores.max(axis=1, keepdims=True) - 1e-9
        wins += first / first.sum(axis=1, keepdims=True)
    return wins / n_bootstraps


def _cell_confidence(
    levels: NDArray[np.float32],
    cell_class: NDArray[np.object_],
    weights: MarkerWeights,
    markers: MarkerSet,
    generator: np.random.Generator,
) -> NDArray[np.float32]:
    """Share of the bootstraps in which a cell's own levels give its class (or one that its class stands for)."""
    names = sorted(set(cell_class))
    stands_for = np.array(
        [[name == own or markers.less_resolved(name) == own for own in names] for name in weights.classes], dtype=bool
    )
    own = np.searchsorted(names, cell_class.astype(str))
    draws = [
        _signed(weights, generator.exponential(size=len(weights.genes))).astype(np.float32)
        for _ in range(_CELL_BOOTSTRAPS)
    ]
    confidence = np.zeros(len(levels), dtype=np.float32)
    for start in range(0, len(levels), _CELLS_AT_ONCE):
        block = slice(start, start + _CELLS_AT_ONCE)
        for draw in draws:
            winner = (levels[block] @ draw).argmax(axis=1)
            confidence[block] += stands_for[winner, own[block]]
    return np.asarray(confidence / _CELL_BOOTSTRAPS, dtype=np.float32)


def _nothing_found(groups: NDArray[np.int64]) -> Annotation:
    n_groups = int(groups.max()) + 1
    table = pd.DataFrame(
        {
            "cell_class": UNASSIGNED,
            "confidence": 0.0,
            "score": 0.0,
            "runner_up": "",
            "runner_up_score": 0.0,
            "n_cells": np.bincount(groups),
            "top_markers": "",
            "reason": "no class has two of its markers among the genes of this atlas",
        },
        index=pd.RangeIndex(n_groups, name="group"),
    )
    nothing = np.full(len(groups), UNASSIGNED, dtype=object)
    return Annotation(table, nothing, nothing.copy(), np.zeros(len(groups), dtype=np.float32))
