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
    found = cluster.cluster_at(cluster.graph_of(connectivities), 0.5, seed=1)
    labels = found.labels
    weights = connectivities.toarray().astype(float)
    degree = weights.sum(axis=1)
    same = labels[:, None] == labels[None, :]
    expected = ((weights - 0.5 * np.outer(degree, degree) / degree.sum()) * same).sum() / degree.sum()
    assert found.modularity == pytest.approx(expected, abs=1e-6)
    assert found.stability_ari == pytest.approx(1.0)
    assert found.subsample_ari == pytest.approx(1.0)
    assert adjusted_rand_score(labels, TRUTH) == pytest.approx(1.0)


def measured(rows: list[tuple[float, float, float, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["resolution", "stability_ari", "subsample_ari", "silhouette"])


def test_auto_takes_the_best_separated_of_the_stable_resolutions() -> None:
    chosen, reason = cluster._choice(measured([(0.5, 1, 0.99, 0.2), (1.0, 0.98, 0.97, 0.3), (2.0, 0.6, 0.9, 0.5)]))
    assert chosen == 1.0 and "best separated" in reason


def test_of_equally_separated_resolutions_auto_takes_the_finest() -> None:
    chosen, reason = cluster._choice(measured([(0.5, 1, 1, 0.31), (1.0, 0.97, 0.98, 0.30), (2.0, 0.96, 0.96, 0.1)]))
    assert chosen == 1.0 and "finest" in reason


def test_stability_is_the_lesser_of_seeds_and_subsamples() -> None:
    chosen, _ = cluster._choice(measured([(0.5, 1, 1, 0.3), (1.0, 1, 0.5, 0.4)]))
    assert chosen == 0.5


def test_one_cluster_at_every_resolution_is_a_choice_too() -> None:
    chosen, reason = cluster._choice(measured([(0.5, 1, 1, np.nan), (1.0, 1, 1, np.nan)]))
    assert chosen == 0.5 and "no resolution" in reason


def cells_of_classes(n_cells: int, n_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.integers(n_classes, size=n_cells)
    centres = generator.normal(scale=4, size=(n_classes, 8))
    return (centres[truth] + generator.normal(size=(n_cells, 8))).astype(np.float32), truth


@pytest.mark.parametrize("seed", range(3))
def test_the_chosen_resolution_recovers_the_classes(seed: int) -> None:
    data, truth = cells_of_classes(800, 7, seed)
    graph = cluster.cell_graph(fuzzy_connectivities(nearest_neighbors(data, 15)), seed=1)
    chosen, table = cluster.choose_resolution(graph, data, "auto", seed=1)
    assert adjusted_rand_score(chosen, truth) > 0.95
    assert table["chosen"].sum() == 1


def test_noise_without_clusters_is_unstable() -> None:
    """The negative control: among cells without classes no resolution repeats itself on subsamples."""
    data = np.random.default_rng(0).normal(size=(800, 8)).astype(np.float32)
    graph = cluster.cell_graph(fuzzy_connectivities(nearest_neighbors(data, 15)), seed=1)
    assert cluster.cluster_at(graph.graph, 1.0, seed=1).subsample_ari < 0.7


def test_a_resolution_asked_for_is_taken(connectivities: sparse.csr_matrix) -> None:
    graph = cluster.cell_graph(connectivities, seed=1)
    points = np.random.default_rng(0).normal(size=(180, 3)).astype(np.float32)
    chosen, table = cluster.choose_resolution(graph, points, 2.0, seed=1)
    assert list(table["resolution"]) == [1.0, 2.0, 4.0] and list(table["chosen"]) == [False, True, False]
    np.testing.assert_array_equal(chosen, cluster.cluster_at(graph.graph, 2.0, seed=1).labels)


def test_micro_clusters_keep_modularity_and_find_the_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    data, truth = cells_of_classes(2_000, 6, seed=5)
    connectivities = fuzzy_connectivities(nearest_neighbors(data, 15))
    direct = cluster.cluster_at(cluster.graph_of(connectivities), 0.5, seed=1)
    monkeypatch.setattr(cluster, "DIRECT_CELLS", 100)
    graph = cluster.cell_graph(connectivities, seed=1)
    assert graph.graph.vcount() < 400
    found = cluster.cluster_at(graph.graph, 0.5, seed=1)
    labels = found.labels[graph.node_of_cell]
    of_cells = cluster.graph_of(connectivities).modularity(labels.tolist(), weights="weight", resolution=0.5)
    assert found.modularity == pytest.approx(of_cells, abs=1e-6)
    assert found.modularity > direct.modularity - 0.005
    assert adjusted_rand_score(labels, truth) > adjusted_rand_score(direct.labels, truth) - 0.01


def test_cells_leave_micro_clusters_that_are_too_coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every micro-cluster holds two classes: the clusters on the graph between them cannot tell these apart."""
    data, truth = cells_of_classes(1_200, 6, seed=5)
    connectivities = fuzzy_connectivities(nearest_neighbors(data, 15))
    coarse = truth // 2
    member = sparse.csr_matrix((np.ones(1_200), (coarse, np.arange(1_200))))
    between = cluster.graph_of(sparse.csr_matrix(member @ connectivities @ member.T))
    graph = cluster.CellGraph(between, coarse, cluster.graph_of(connectivities))
    chosen, table = cluster.choose_resolution(graph, data, 0.5, seed=1)
    row = table[table["chosen"]].iloc[0]
    assert adjusted_rand_score(chosen, truth) > 0.95 and row["n_clusters"] == 6
    expected = graph.of_cells.modularity(chosen.tolist(), weights="weight", resolution=0.5)
    assert row["modularity"] == pytest.approx(expected) and row["smallest_cluster"] == np.bincount(chosen).min()


def test_processes_change_nothing() -> None:
    data, _ = cells_of_classes(600, 5, seed=2)
    graph = cluster.cell_graph(fuzzy_connectivities(nearest_neighbors(data, 15)), seed=1)
    alone, several = (cluster.choose_resolution(graph, data, "auto", seed=1, threads=n) for n in (1, 3))
    np.testing.assert_array_equal(alone[0], several[0])
    pd.testing.assert_frame_equal(alone[1], several[1])


def test_small_groups_join_the_one_they_touch_most() -> None:
    weights = sparse.lil_matrix((9, 9))
    for i, j, weight in [(0, 8, 0.1), (4, 8, 0.9)]:
        weights[i, j] = weights[j, i] = weight
    groups = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2])
    np.testing.assert_array_equal(cluster.absorb_small(groups, weights.tocsr(), 3), [1, 1, 1, 1, 0, 0, 0, 0, 0])


def test_groups_are_cut_where_a_good_part_lies_in_another_cluster() -> None:
    groups = np.repeat([0, 1, 2], [10, 8, 6])
    clusters = np.array([0] * 6 + [1] * 4 + [1] * 7 + [0] + [2] * 6)
    np.testing.assert_array_equal(
        cluster.cut_at_borders(groups, clusters, smallest=3, share=0.1), [1] * 6 + [3] * 4 + [0] * 8 + [2] * 6
    )
    np.testing.assert_array_equal(cluster.cut_at_borders(groups, clusters, smallest=5, share=0.1), groups)
    np.testing.assert_array_equal(cluster.cut_at_borders(groups, clusters, smallest=3, share=0.5), groups)


def test_whole_groups_and_split_labels() -> None:
    clusters = cluster.whole_groups(np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 2]))
    np.testing.assert_array_equal(clusters, [0, 0, 1, 1, 1, 1])
    labels = cluster.split_by(clusters, np.array(["T", "T", "B", "NK", "NK", "NK"], dtype=object))
    assert list(labels) == ["0", "0", "1b", "1a", "1a", "1a"]
