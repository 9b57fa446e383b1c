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


def clustered(n_cells: int, seed: int = 3) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centres = generator.normal(scale=4, size=(12, 20))
    spread = np.linspace(1.5, 0.5, 20)
    return (centres[generator.integers(12, size=n_cells)] + generator.normal(size=(n_cells, 20)) * spread).astype("f4")


def test_lists_find_the_neighbors_of_many_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    data = clustered(12_000)
    exact = nearest_neighbors(data, 15)
    monkeypatch.setattr("immunomod.atlas.neighbors.EXACT_CELLS", 5_000)
    monkeypatch.setattr("immunomod.atlas.neighbors._COMPARED_CELLS", 2_500)
    found = nearest_neighbors(data, 15)
    recall = np.mean([len(set(a) & set(b)) / 15 for a, b in zip(exact.indices, found.indices, strict=True)])
    assert recall > 0.99
    assert all(len(set(row)) == 15 for row in found.indices.tolist())
    np.testing.assert_allclose(
        found.distances, np.linalg.norm(data[found.indices] - data[:, None], axis=2), rtol=1e-4, atol=1e-5
    )
    assert (np.diff(found.distances, axis=1) >= 0).all()


@pytest.mark.parametrize("exact_cells", [100, 10_000])
def test_neighbors_do_not_depend_on_threads(exact_cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("immunomod.atlas.neighbors.EXACT_CELLS", exact_cells)
    monkeypatch.setattr("immunomod.atlas.neighbors._ROWS_AT_ONCE", 500)
    data = clustered(4_000)
    one, three = nearest_neighbors(data, 15), nearest_neighbors(data, 15, threads=3)
    np.testing.assert_array_equal(one.indices, three.indices)
    np.testing.assert_array_equal(one.distances, three.distances)
    np.testing.assert_array_equal(fuzzy_connectivities(one).data, fuzzy_connectivities(three, threads=3).data)


def test_thousands_of_identical_cells_are_compared_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """They all fall into one list; each is held against a window of cells beside it, not against every one."""
    monkeypatch.setattr("immunomod.atlas.neighbors.EXACT_CELLS", 1_000)
    monkeypatch.setattr("immunomod.atlas.neighbors._COMPARED_CELLS", 1_000)
    data = np.concatenate([np.ones((5_000, 8)), clustered(2_000)[:, :8]]).astype(np.float32)
    found = nearest_neighbors(data, 10)
    assert (found.distances[:5_000] == 0).all() and (found.indices[:5_000] < 5_000).all()
    assert all(len(set(row)) == 10 for row in found.indices.tolist())


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
