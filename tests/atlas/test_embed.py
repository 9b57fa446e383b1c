"""The map: deterministic, and neighbours in the graph are neighbours on it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, sparse
from sklearn.metrics import silhouette_score

import immunomod.atlas.embed as umap
from immunomod.atlas.embed import umap_layout
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


def test_the_map_does_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("immunomod.atlas.embed._ROWS_AT_ONCE", 32)
    points, _ = groups()
    graph = fuzzy_connectivities(nearest_neighbors(points, 15))
    np.testing.assert_array_equal(umap_layout(graph, points, seed=1), umap_layout(graph, points, seed=1, threads=3))


def test_one_epoch_equals_the_sum_of_pulls_and_pushes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without negative samples a cell moves by the sum of its edges' gradients of UMAP's cross entropy, both ways."""
    monkeypatch.setattr("immunomod.atlas.embed._NEGATIVE_SAMPLES", 0)
    graph = sparse.csr_matrix(np.array([[0, 1, 0.5], [1, 0, 0], [0.5, 0, 0]], dtype=np.float32))
    start = np.array([[0, 0], [1, 0.2], [0.1, 2]], dtype=np.float32)
    before = umap._scaled_start(start, 3, np.random.default_rng(5)).astype(float)
    a = umap._curve(0.3)
    moved = before.copy()
    for cell, other in ((0, 1), (1, 0)):  # the edge of weight 0.5 is not due in the first of two epochs
        apart = before[cell] - before[other]
        gradient = -2 * a / (1 + a * apart @ apart)  # of log(1 / (1 + a d^2)), UMAP's attraction with b = 1
        moved[cell] += np.clip(2 * gradient * apart, -4, 4)
    np.testing.assert_allclose(umap_after_one_epoch(graph, start), moved, rtol=1e-5)


def umap_after_one_epoch(graph: sparse.csr_matrix, start: np.ndarray) -> np.ndarray:
    from immunomod.atlas.embed_kernel import move_cells

    layout = umap._scaled_start(start, 3, np.random.default_rng(5))
    moved = np.empty_like(layout)
    edges = graph.indptr.astype(np.int64), graph.indices.astype(np.int32), graph.data.astype(np.float32)
    move_cells(layout, moved, *edges, 0, 3, 0, 0, np.float32(umap._curve(0.3)), np.float32(1), np.uint64(1))
    return moved


def test_the_curve_follows_the_wanted_decay_nearly_as_well_as_two_parameters() -> None:
    distance = np.linspace(0, 3, 300)
    wanted = np.where(distance < 0.3, 1.0, np.exp(-(distance - 0.3)))
    both, _ = optimize.curve_fit(lambda d, a, b: 1 / (1 + a * d ** (2 * b)), distance, wanted)
    off = [np.abs(1 / (1 + a * distance ** (2 * b)) - wanted).max() for a, b in ((umap._curve(0.3), 1.0), tuple(both))]
    assert off[0] < off[1] + 0.03
