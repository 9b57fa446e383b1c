"""Leiden: known communities, determinism, the choice of a resolution, and the helpers that relabel."""

from __future__ import annotations

import random

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

from immunomod.atlas import cluster
from immunomod.atlas.neighbors import fuzzy_connectivities, nearest_neighbors

TRUTH = np.repeat([0, 1, 2], [90, 60, 30])


@pytest.fixture(scope="module")
def connectivities() -> sparse.csr_matrix:
    generator = np.random.default_rng(0)
    centres = generator.normal(scale=8, size=(3, 6))
    data = (centres[TRUTH] + generator.normal(size=(180, 6))).astype(np.float32)
    return fuzzy_connectivities(nearest_neighbors(data, 12))


def test_leiden_finds_separate_groups_largest_first(connectivities: sparse.csr_matrix) -> None:
    labels = cluster.leiden(cluster.graph_of(connectivities), 0.3, seed=1)
    np.testing.assert_array_equal(labels, TRUTH)


def test_leiden_is_the_same_for_the_same_seed_whatever_was_drawn_before(connectivities: sparse.csr_matrix) -> None:
    graph = cluster.graph_of(connectivities)
    first = cluster.leiden(graph, 3.0, seed=7)
    random.random()
    np.testing.assert_array_equal(cluster.leiden(graph, 3.0, seed=7), first)


def test_leiden_modularity_equals_its_definition(connectivities: sparse.csr_matrix) -> None:
    labels, stability, modularity = cluster.leiden_stability(cluster.graph_of(connectivities), 0.5, seed=1)
    weights = connectivities.toarray().astype(float)
    degree = weights.sum(axis=1)
    same = labels[:, None] == labels[None, :]
    expected = ((weights - 0.5 * np.outer(degree, degree) / degree.sum()) * same).sum() / degree.sum()
    assert modularity == pytest.approx(expected, abs=1e-6)
    assert stability == pytest.approx(1.0)
    assert adjusted_rand_score(labels, TRUTH) == pytest.approx(1.0)


def test_the_wanted_resolution_stays_unless_another_is_clearly_more_stable() -> None:
    stable, reason = cluster._choice(pd.Series({0.5: 1.0, 1.0: 0.95, 2.0: 0.4}), 1.0)
    assert stable == 1.0 and "asked for" in reason
    kept, _ = cluster._choice(pd.Series({0.5: 0.72, 1.0: 0.7, 2.0: 0.4}), 1.0)
    assert kept == 1.0
    moved, reason = cluster._choice(pd.Series({0.5: 0.97, 1.0: 0.7, 2.0: 0.4}), 1.0)
    assert moved == 0.5 and "most stable" in reason


def test_small_groups_join_the_one_they_touch_most() -> None:
    weights = sparse.lil_matrix((9, 9))
    for i, j, weight in [(0, 8, 0.1), (4, 8, 0.9)]:
        weights[i, j] = weights[j, i] = weight
    groups = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2])
    np.testing.assert_array_equal(cluster.absorb_small(groups, weights.tocsr(), 3), [1, 1, 1, 1, 0, 0, 0, 0, 0])


def test_whole_groups_and_split_labels() -> None:
    clusters = cluster.whole_groups(np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 2]))
    np.testing.assert_array_equal(clusters, [0, 0, 1, 1, 1, 1])
    labels = cluster.split_by(clusters, np.array(["T", "T", "B", "NK", "NK", "NK"], dtype=object))
    assert list(labels) == ["0", "0", "1b", "1a", "1a", "1a"]
