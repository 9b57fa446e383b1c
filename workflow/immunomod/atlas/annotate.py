"""Name cells by published markers, and by further witnesses where there are any; say how sure the name is.

Expression of marker genes is first averaged along the cell graph: single cells of shallow libraries show one marker
in five, neighbourhoods show them all. A class's score is the weighted mean of its markers, each held against its
highest level in the atlas, less the mean of the markers that speak against it. A cell's evidence is half its own and
half that of its group (fine clusters), since a group may hold cells of classes that lie close (CD4 and CD8 T cells).
Its own counts shift the votes at last (:mod:`immunomod.atlas.own_counts`).
Markers vote by how often a class scores highest when the marker genes are reweighted at random (Bayesian bootstrap,
Rubin 1981, doi:10.1214/aos/1176345338): a name that hangs on one gene is not sure. How votes become a class is in
:mod:`immunomod.atlas.votes`. Scores are never standardised across cells, so an atlas of one class only (MSC alone) is
named as well as a mixed one. Labels that authors gave are never read, but for a reference that the user names.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from immunomod.atlas.markers import MarkerSet, MarkerWeights
from immunomod.atlas.own_counts import with_own_counts
from immunomod.atlas.settings import AnnotationSettings
from immunomod.atlas.votes import LEVELS, ClassTree, Decision, Votes, decide
from immunomod.parallel import for_each, row_blocks

#: Name of the witness that is always heard.
MARKERS = "markers"
_STEPS = 3
# Expression (log1p of counts per 10,000) that counts as present: keeps noise in genes that no cell expresses small.
_PRESENT = 0.2
# The level that counts as a marker's highest: not the maximum, which one odd cell sets.
_HIGHEST_PERCENTILE = 99.5
_CELLS_AT_ONCE = 20_000
# Each has a score for every class and bootstrap.
_VOTERS_AT_ONCE = 2_000
_CELL_BOOTSTRAPS = 50
# What expression is normalised to.
_COUNTS_PER_CELL = 1e4


@dataclass(frozen=True)
class Annotation:
    """Names of groups and cells.

    Attributes
    ----------
    groups
        Index group; ``cell_class``, ``confidence``, ``score``, ``runner_up``, ``runner_up_score``, ``n_cells``,
        ``top_markers``, ``witnesses`` (what each says), ``reason``.
    group_class
        Class of every cell's group.
    cell_class
        Class of every cell.
    cell_confidence
        For every cell, the share of all votes behind its class (0 to 1).
    said
        By witness, the class that it alone would give every cell.
    """

    groups: pd.DataFrame
    group_class: NDArray[np.object_]
    cell_class: NDArray[np.object_]
    cell_confidence: NDArray[np.float32]
    said: dict[str, NDArray[np.object_]]


def smooth(
    values: NDArray[np.float32], connectivities: sparse.csr_matrix, steps: int = _STEPS, threads: int = 1
) -> NDArray[np.float32]:
    """Average ``values`` (cells x genes) over neighbourhoods: ``steps`` of a random walk that may stay."""
    walk = (connectivities + sparse.identity(connectivities.shape[0], dtype=np.float32, format="csr")).tocsr()
    walk = sparse.diags((1 / np.asarray(walk.sum(axis=1)).ravel()).astype(np.float32)) @ walk
    for _ in range(steps):
        before, values = values, np.empty(values.shape, dtype=np.float32)

        def step(rows: slice, before: NDArray[np.float32] = before, after: NDArray[np.float32] = values) -> None:
            after[rows] = walk[rows] @ before

        for_each(row_blocks(len(values), _CELLS_AT_ONCE), step, threads)
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
    others: Sequence[Votes] = (),
    tissues: Collection[str] = (),
    threads: int = 1,
    total_counts: NDArray[np.floating] | None = None,
    is_everywhere: NDArray[np.bool_] | None = None,
) -> Annotation:
    """Name every group of cells and every cell.

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
    others
        Votes of further witnesses, cell by cell. They are averaged along the graph as expression is. One is not heard
        on cells whose markers show a lineage that it does not know: a reference of blood says nothing of MSC.
    tissues
        Sources of the atlas's MSC; markers of other sources do not count.
    threads
        The result does not depend on them.
    total_counts
        Counts of every cell in all genes; where they are unknown, a cell's own counts are not looked at.
    is_everywhere
        Of every gene whether all samples' files list it; where one does not, its zeros say nothing. Missing: all do.
    """
    tree = ClassTree.of(markers)
    weights = markers.weights(symbols, organism, tissues)
    generator = np.random.default_rng(seed)
    n_groups = int(groups.max()) + 1
    if weights.classes:
        levels = relative_levels(smooth(expression[:, weights.genes].toarray(), connectivities, threads=threads))
        means = _group_means(levels, groups)
        of_groups = _marker_votes(means, means, np.arange(n_groups), weights, tree, settings.n_bootstraps, settings,
                                  generator, 1)  # fmt: skip
        of_cells = _marker_votes(levels, means, groups, weights, tree, _CELL_BOOTSTRAPS, settings, generator, threads)
        if total_counts is not None:
            genes = weights.genes if is_everywhere is None else weights.genes[is_everywhere[weights.genes]]
            depth = np.asarray(total_counts, dtype=np.float64) / _COUNTS_PER_CELL
            of_cells = with_own_counts(of_cells, _counts(expression[:, genes], depth), depth, connectivities)
        scores = pd.DataFrame(class_scores(means, weights), columns=list(weights.classes))
        found = _marker_table(scores, means, weights, symbols[weights.genes])
    else:
        nothing = np.zeros(len(tree.names), dtype=bool)
        of_groups, of_cells = (
            Votes(MARKERS, np.zeros((n, len(tree.names)), dtype=np.float32), nothing) for n in (n_groups, len(groups))
        )
        found = pd.DataFrame({"score": 0.0, "runner_up": "", "runner_up_score": 0.0, "top_markers": ""},
                             index=pd.RangeIndex(n_groups))  # fmt: skip

    heard = [of_cells]
    shown = decide([of_cells], tree, settings.min_confidence)
    for one in others:
        knows_lineage = (one.knows @ tree.of_lineage) > 0
        lineage = tree.of_lineage[shown.chosen].argmax(axis=1)
        smoothed = Votes(one.witness, smooth(one.shares, connectivities, threads=threads), one.knows)
        heard.append(smoothed.heard_on(knows_lineage[lineage] | (shown.chosen == tree.unassigned)))
    named = decide(heard, tree, settings.min_confidence, settings.level)
    group_votes = [of_groups, *(_of_groups(one, groups) for one in heard[1:])]
    named_groups = decide(group_votes, tree, settings.min_confidence, settings.level)

    names = np.array(tree.names, dtype=object)
    alone = {one.witness: decide([one], tree, settings.min_confidence).chosen for one in heard}
    table = _group_table(named_groups, group_votes, found, np.bincount(groups), tree, bool(weights.classes), settings)
    return Annotation(
        table,
        names[named_groups.chosen][groups],
        names[named.chosen],
        named.confidence,
        {witness: names[chosen] for witness, chosen in alone.items()},
    )


def class_scores(levels: NDArray[np.floating], weights: MarkerWeights) -> NDArray[np.float64]:
    """Weighted mean level of each class's markers less that of its negative markers (rows x classes, -1 to 1)."""
    return np.asarray(levels @ _signed(weights, np.ones(len(weights.genes))), dtype=np.float64)


def _counts(expression: sparse.csr_matrix, depth: NDArray[np.float64]) -> sparse.csr_matrix:
    """Molecules behind log-normalised expression."""
    data = np.expm1(expression.data) * np.repeat(depth, np.diff(expression.indptr)).astype(np.float32)
    return sparse.csr_matrix((data, expression.indices, expression.indptr), shape=expression.shape)


def _signed(weights: MarkerWeights, gene_weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Genes x classes: positive part sums to 1, negative to -1 (or 0 where a class has none)."""
    positive = weights.positive * gene_weights[:, None]
    negative = weights.negative * gene_weights[:, None]
    against = negative.sum(axis=0)
    signed = positive / positive.sum(axis=0) - negative / np.where(against > 0, against, 1.0)
    return np.asarray(signed, dtype=np.float64)


def _marker_votes(
    levels: NDArray[np.floating],
    means: NDArray[np.float64],
    groups: NDArray[np.int64],
    weights: MarkerWeights,
    tree: ClassTree,
    n_bootstraps: int,
    settings: AnnotationSettings,
    generator: np.random.Generator,
    threads: int,
) -> Votes:
    """Share of the bootstraps in which each class scores highest, by a row's own levels and its group's, half and half.

    Ties are shared out. Rows in which no class reaches the lowest score are silent.
    """
    columns = np.array([tree.names.index(name) for name in weights.classes])
    shares = np.zeros((len(levels), len(tree.names)), dtype=np.float32)
    draws = [_signed(weights, generator.exponential(size=len(weights.genes))) for _ in range(n_bootstraps)]
    plain = _signed(weights, np.ones(len(weights.genes)))
    of_draws = np.concatenate([plain, *draws], axis=1).astype(np.float32)
    n_classes = len(columns)

    def vote(block: slice) -> None:
        mixed = ((levels[block] + means[groups[block]]) / 2).astype(np.float32)
        scores = (mixed @ of_draws).reshape(len(mixed), -1, n_classes)
        first = scores[:, 1:] >= scores[:, 1:].max(axis=2, keepdims=True) - 1e-6
        wins = (first / first.sum(axis=2, keepdims=True)).mean(axis=1)
        wins[scores[:, 0].max(axis=1) < settings.min_score] = 0
        shares[block, columns] = wins

    for_each(row_blocks(len(levels), _VOTERS_AT_ONCE), vote, threads)
    knows = np.zeros(len(tree.names), dtype=bool)
    knows[columns] = True
    return Votes(MARKERS, shares, knows)


def _group_means(levels: NDArray[np.float32], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    size = np.bincount(groups)
    member = sparse.csr_matrix((1 / size[groups], (groups, np.arange(len(groups)))), shape=(len(size), len(groups)))
    return np.asarray(member @ levels, dtype=np.float64)


def _of_groups(votes: Votes, groups: NDArray[np.int64]) -> Votes:
    return Votes(votes.witness, _group_means(votes.shares, groups).astype(np.float32), votes.knows)


def _marker_table(
    scores: pd.DataFrame, means: NDArray[np.float64], weights: MarkerWeights, symbols: pd.Index
) -> pd.DataFrame:
    """By group: the highest score, the class with the second, and the markers of the first that are seen most."""
    rows = []
    for group, score in enumerate(scores.to_numpy()):
        order = np.argsort(-score, kind="stable")
        best, second = order[0], order[1] if len(order) > 1 else order[0]
        support = means[group] * weights.positive[:, best]
        rows.append(
            {
                "best": scores.columns[best],
                "score": score[best],
                "runner_up": scores.columns[second] if second != best else "",
                "runner_up_score": score[second],
                "top_markers": ",".join(symbols[i] for i in np.argsort(-support, kind="stable")[:5] if support[i] > 0),
            }
        )
    return pd.DataFrame(rows)


def _group_table(
    named: Decision,
    votes: Sequence[Votes],
    found: pd.DataFrame,
    sizes: NDArray[np.int64],
    tree: ClassTree,
    has_markers: bool,
    settings: AnnotationSettings,
) -> pd.DataFrame:
    rows = []
    for group, chosen in enumerate(named.chosen):
        said = [(one.witness, int(one.shares[group].argmax()), float(one.shares[group].max())) for one in votes]
        rows.append(
            {
                "cell_class": tree.names[chosen],
                "confidence": float(named.confidence[group]),
                **found.loc[group, ["score", "runner_up", "runner_up_score"]],
                "n_cells": int(sizes[group]),
                "top_markers": found.loc[group, "top_markers"],
                "witnesses": "; ".join(
                    f"{witness}: {tree.names[top]} {share:.2f}" for witness, top, share in said if share > 0
                ),
                "reason": _reason(group, named, votes, found, tree, has_markers, settings),
            }
        )
    return pd.DataFrame(rows).rename_axis("group")


def _reason(
    group: int,
    named: Decision,
    votes: Sequence[Votes],
    found: pd.DataFrame,
    tree: ClassTree,
    has_markers: bool,
    settings: AnnotationSettings,
) -> str:
    """Why a group has no finer name, in words; empty where it has the finest."""
    chosen = int(named.chosen[group])
    shares = np.sum([one.shares[group] for one in votes], axis=0)
    best = int(shares.argmax())
    share = float(shares[best] / shares.sum()) if shares.sum() > 0 else 0.0
    of_what = "the bootstraps" if len(votes) == 1 else "the votes"
    if not shares.sum():
        if not has_markers:
            return "no class has enough of its markers among the genes of this atlas"
        return f"no class's markers reach a score of {settings.min_score:g}"
    if chosen == tree.unassigned:
        if best == tree.unassigned:
            return f"{share:.2f} of {of_what} are for no class"
        return f"{tree.names[best]} wins only {share:.2f} of {of_what}"
    if best != chosen and tree.within[best, chosen]:
        if settings.level != LEVELS[0]:
            return f"annotation.level is {settings.level}; {tree.names[best]} wins {share:.2f} of {of_what}"
        return f"sure of the lineage only; {tree.names[best]} wins {share:.2f} of {of_what}"
    if named.confidence[group] <= settings.min_confidence:
        return f"sure of the lineage ({named.lineage_share[group]:.2f} of {of_what}), less of the class"
    return ""
