"""Provisional classes, to judge integrations by: from markers and each sample's own neighbours.

They must not come from any of the spaces that are judged. So every sample is looked at alone: its own components, its
own neighbours, the marker genes averaged along them. A cell gets the class with the highest score where that is clear
of the second; the others stay without a name and count in no measure of classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from immunomod.atlas.annotate import class_scores, relative_levels, smooth

if TYPE_CHECKING:
    from immunomod.atlas.markers import MarkerSet
    from immunomod.atlas.reduce import Reduced

_NEIGHBORS = 15
_COMPONENTS = 20
_FEWEST_CELLS = 5
_MIN_SCORE = 0.2
_MARGIN = 0.03


def provisional_labels(
    reduced: Reduced, markers: MarkerSet, cells: NDArray[np.int64], seed: int
) -> NDArray[np.object_]:
    """Class of each of ``cells`` (positions in ``reduced``); ``""`` where markers do not tell."""
    symbols = reduced.var["gene_symbol"]
    weights = markers.weights(pd.Index(symbols), reduced.organism)
    labels = np.full(len(cells), "", dtype=object)
    if len(weights.classes) < 2 or not len(cells):
        return labels
    variable = np.flatnonzero(reduced.var["highly_variable"].to_numpy(dtype=bool))
    expression = reduced.expression[cells]
    smoothed = expression[:, weights.genes].toarray()
    samples = reduced.obs["sample"].to_numpy()[cells]
    for sample in sorted(set(samples)):
        own = np.flatnonzero(samples == sample)
        if len(own) >= _FEWEST_CELLS:
            graph = _own_neighbors(expression[own][:, variable], seed)
            smoothed[own] = smooth(smoothed[own], graph, steps=2)
    scores = class_scores(relative_levels(smoothed), weights)
    parent = markers.classes["parent"].reindex(list(weights.classes)).to_numpy()
    for child in [number for number, name in enumerate(parent) if markers.classes["parent"].get(name, "")]:
        # a class two steps down (Treg) counts as its parent: it is too close to it to be clear of it
        above = weights.classes.index(parent[child]) if parent[child] in weights.classes else child
        if above != child:
            scores[:, above] = np.maximum(scores[:, above], scores[:, child])
            scores[:, child] = -1
    best = scores.argmax(axis=1)
    top = np.sort(scores, axis=1)
    sure = (top[:, -1] >= _MIN_SCORE) & (top[:, -1] - top[:, -2] >= _MARGIN)
    labels[sure] = np.array(weights.classes, dtype=object)[best[sure]]
    return labels


def _own_neighbors(expression: sparse.csr_matrix, seed: int) -> sparse.csr_matrix:
    """Symmetric neighbour graph of one sample (cells x cells) on its own principal components."""
    from sklearn.neighbors import NearestNeighbors
    from sklearn.utils.extmath import randomized_svd

    dense = expression.toarray()
    dense -= dense.mean(axis=0)
    n_cells = len(dense)
    n_components = max(1, min(_COMPONENTS, n_cells - 1, dense.shape[1]))
    left, size, _ = randomized_svd(dense, n_components, n_iter=4, random_state=seed)
    k = max(2, min(_NEIGHBORS, round(float(np.sqrt(n_cells)))))
    # scikit-learn's search: the cells of one sample are few
    graph = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(left * size).kneighbors_graph()
    return sparse.csr_matrix(graph.maximum(graph.T), dtype=np.float32)
