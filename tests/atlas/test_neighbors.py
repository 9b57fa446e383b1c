"""Neighbours against brute force, weights against umap-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from immunomod.atlas.neighbors import Neighbors, fuzzy_connectivities, nearest_neighbors


def points(n_cells: int = 300, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n_cells, 12)).astype(np.float32)


def test_neighbors_equal_brute_force() -> None:
    data = points() + 50
    found = nearest_neighbors(data, 15)
    distance = cdist(data.astype(float), data.astype(float))
    np.testing.assert_array_equal(found.indices, np.argsort(distance, axis=1)[:, :15])
    np.testing.assert_allclose(found.distances, np.sort(distance, axis=1)[:, :15], atol=1e-4)


def test_a_cell_is_its_own_first_neighbor_among_identical_cells() -> None:
    found = nearest_neighbors(np.ones((30, 4), dtype=np.float32), 5)
    np.testing.assert_array_equal(found.indices[:, 0], np.arange(30))
    assert all(len(set(row)) == 5 for row in found.indices.tolist())
    assert np.isfinite(fuzzy_connectivities(found).data).all()


def test_fewer_cells_than_neighbors() -> None:
    assert nearest_neighbors(points(4), 15).indices.shape == (4, 4)


@pytest.mark.slow
@pytest.mark.parametrize("duplicated", [False, True])
def test_weights_equal_umap_learn(duplicated: bool) -> None:
    umap_ = pytest.importorskip("umap.umap_")
    data = points(400, seed=2)
    if duplicated:
        data[:20] = data[0]
    found = nearest_neighbors(data, 15)
    expected, _, _ = umap_.fuzzy_simplicial_set(
        data, 15, random_state=0, metric="euclidean", knn_indices=found.indices, knn_dists=found.distances
    )
    weights = fuzzy_connectivities(found)
    np.testing.assert_allclose(weights.toarray(), expected.toarray(), atol=2e-4)
    assert weights.diagonal().sum() == 0
    assert abs(weights - weights.T).max() < 1e-6


def test_directed_weights_sum_to_log2_k() -> None:
    """The definition of sigma, checked on a graph in which no edge is mutual (a + b - ab = a)."""
    n, k = 64, 5
    distances = np.sort(np.random.default_rng(1).gamma(3.0, size=(n, k)), axis=1).astype(np.float32)
    distances[:, 0] = 0
    indices = (np.arange(n)[:, None] + np.array([0, 1, 3, 7, 12])) % n
    weights = fuzzy_connectivities(Neighbors(indices, distances)).toarray()
    sums = np.array([weights[i, indices[i, 1:]].sum() for i in range(n)])
    np.testing.assert_allclose(sums, np.log2(k), atol=1e-4)
