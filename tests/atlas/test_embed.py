"""The map: deterministic, and neighbours in the graph are neighbours on it."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from sklearn.metrics import silhouette_score

from immunomod.atlas.embed import _curve, umap_layout
from immunomod.atlas.neighbors import fuzzy_connectivities, nearest_neighbors


def groups() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    truth = np.repeat(np.arange(4), 60)
    centres = generator.normal(scale=6, size=(4, 10))
    return (centres[truth] + generator.normal(size=(240, 10))).astype(np.float32), truth


def test_layout_is_deterministic_and_keeps_neighborhoods() -> None:
    points, truth = groups()
    graph = fuzzy_connectivities(nearest_neighbors(points, 15))
    layout = umap_layout(graph, points, seed=1)
    np.testing.assert_array_equal(layout, umap_layout(graph, points, seed=1))
    assert layout.shape == (240, 2) and layout.dtype == np.float32 and np.isfinite(layout).all()
    near = nearest_neighbors(layout, 15).indices[:, 1:]
    assert (truth[near] == truth[:, None]).mean() > 0.98
    assert silhouette_score(layout, truth) > 0.5
    nearest_in_space = nearest_neighbors(points, 15).indices[:, 1:]
    kept = np.mean([len(set(a) & set(b)) / 14 for a, b in zip(near.tolist(), nearest_in_space.tolist(), strict=True)])
    assert kept > 0.3  # by chance 14 of 59 within a group


def test_layout_survives_a_graph_without_edges_and_a_flat_start() -> None:
    assert umap_layout(sparse.csr_matrix((5, 5)), np.zeros((5, 1), dtype=np.float32), seed=1).shape == (5, 2)


def test_curve_has_the_published_parameters() -> None:
    """umap-learn documents a = 1.58, b = 0.90 for its default min_dist of 0.1."""
    a, b = _curve(0.1)
    np.testing.assert_allclose([a, b], [1.577, 0.895], atol=2e-3)
