"""Measures of integrations against scikit-learn, brute force, cases counted by hand, and scib-metrics where it is."""

from __future__ import annotations

import numpy as np
import pytest

from immunomod.atlas.integration import metrics
from immunomod.atlas.integration.effect import condition_strata, effect_kept, separation
from immunomod.atlas.integration.evaluate import Judge, Panel, draw_cells, same_batch_share, total_score
from immunomod.atlas.integration.method import Aligned
from immunomod.atlas.integration.neighborhoods import Space
from immunomod.atlas.neighbors import Neighbors, nearest_neighbors


def blobs(seed: int = 0, n: int = 300, shift: float = 1.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three classes in two batches of unequal size, batches a little apart."""
    generator = np.random.default_rng(seed)
    labels, batches = np.arange(n) % 3, (generator.random(n) < 0.3).astype(np.int64)
    points = generator.normal(size=(n, 6)).astype(np.float32)
    points[np.arange(n), labels] += 4
    points[:, 5] += shift * batches
    return points, labels, batches


def test_lisi_counts_the_kinds_around_a_cell() -> None:
    indices = np.array([[1, 2, 3, 4]] * 5)
    distances = np.ones((5, 4))
    assert metrics.lisi(indices, distances, np.array([0, 0, 0, 0, 0]), 2) == pytest.approx(1)
    assert metrics.lisi(indices, distances, np.array([0, 0, 1, 2, 3]), 4) == pytest.approx(4)
    assert metrics.lisi(indices, distances, np.array([0, 0, 0, 0, 1]), 4) == pytest.approx(1 / (0.75**2 + 0.25**2))
    # a missing neighbour weighs nothing
    some = np.array([[1, 2, -1, -1]] * 5)
    assert metrics.lisi(some, distances, np.array([0, 0, 1, 2, 2]), 2) == pytest.approx(2)


def test_lisi_weights_by_distance_as_brute_force_does() -> None:
    points, labels, _ = blobs()
    found = nearest_neighbors(points, 31)
    got = metrics.lisi(found.indices[:, 1:], found.distances[:, 1:], labels, 10)
    from scipy.optimize import brentq

    for cell in range(0, len(points), 29):
        away = found.distances[cell, 1:].astype(float)

        def entropy(beta: float, away: np.ndarray = away) -> float:
            weights = np.exp(-(away - away.min()) * beta)
            weights /= weights.sum()
            return float(-(weights * np.log(np.maximum(weights, 1e-300))).sum() - np.log(10))

        weights = np.exp(-(away - away.min()) * brentq(entropy, 1e-6, 1e3))
        weights /= weights.sum()
        shares = np.bincount(labels[found.indices[cell, 1:]], weights, minlength=3)
        assert got[cell] == pytest.approx(1 / (shares**2).sum(), rel=1e-3)


def test_kbet_accepts_nineteen_of_twenty_well_mixed_neighbourhoods() -> None:
    generator = np.random.default_rng(1)
    codes = generator.integers(0, 3, 4000)
    mixed = generator.integers(0, 4000, (4000, 50))
    assert metrics.kbet_acceptance(mixed, codes).mean() == pytest.approx(0.95, abs=0.02)
    own = np.stack([generator.choice(np.flatnonzero(codes == code), 50) for code in codes])
    assert metrics.kbet_acceptance(own, codes).mean() == 0


def test_component_share_by_hand() -> None:
    # 0 <-> 1 <-> 2, and 3 points at 0 while nobody points at 3
    indices = np.array([[1], [2], [0], [0]])
    assert metrics.largest_component_share(indices, np.ones(4, dtype=bool)) == pytest.approx(3 / 4)
    assert metrics.largest_component_share(indices, np.array([True, True, False, False])) == pytest.approx(1 / 2)


def test_silhouettes_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import silhouette_samples

    points, labels, batches = blobs(n=1500)
    for codes in (labels, batches, np.r_[3, labels[1:]]):
        np.testing.assert_allclose(metrics.silhouettes(points, codes), silhouette_samples(points, codes), atol=2e-4)


def test_explained_variance_is_that_of_regression() -> None:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LinearRegression

    points, labels, _ = blobs()
    model = PCA().fit(points)
    scores, dummies = model.transform(points), np.eye(3)[labels]
    r2 = [LinearRegression().fit(dummies, axis).score(dummies, axis) for axis in scores.T]
    expected = float(np.dot(r2, model.explained_variance_) / model.explained_variance_.sum())
    assert metrics.explained_by(points, labels) == pytest.approx(expected, rel=1e-5)


def test_isolated_f1_by_hand() -> None:
    labels, replicates = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 1, 0, 1, 0, 0])
    # class 1 is in one replicate; its best cluster holds both its cells and one other: 2 * 2 / (3 + 2)
    assert metrics.isolated_f1(labels, replicates, [np.array([0, 0, 0, 1, 1, 1])]) == pytest.approx(0.8)
    assert metrics.isolated_f1(labels, replicates, [np.zeros(6, dtype=int), labels]) == pytest.approx(1)


def test_same_batch_share_by_hand() -> None:
    indices = np.array([[0, 1, 2], [1, 0, 2], [2, 0, 1], [3, 2, 1]])
    share, chance = same_batch_share(indices, ["a", "a", "b", "b"])
    assert share == pytest.approx((1 / 2 + 1 / 2 + 0 + 1 / 2) / 4)
    assert chance == pytest.approx(0.5)


def test_measures_equal_those_of_scib_metrics() -> None:
    """Runs where scib-metrics is installed; otherwise its numbers for these points, as it gave them once."""
    points, labels, batches = blobs(n=600)
    found = nearest_neighbors(points, 91)
    others, away = found.indices[:, 1:], found.distances[:, 1:]
    fewer = nearest_neighbors(points, 15)
    component = [metrics.largest_component_share(fewer.indices[:, 1:], labels == label) for label in range(3)]
    ours = {
        "ilisi": float(np.median(metrics.lisi(others, away, batches, 30))) - 1,
        "clisi": (3 - float(np.median(metrics.lisi(others, away, labels, 30)))) / 2,
        "kbet": float(metrics.kbet_acceptance(found.indices[:, :50], batches).mean()),
        "graph": float(np.mean(component)),
        "label_asw": (float(metrics.silhouettes(points, labels).mean()) + 1) / 2,
        "pcr": metrics.explained_by(points, batches),
    }
    expected = dict(EXPECTED)
    try:
        import scib_metrics
        from scib_metrics.nearest_neighbors import NeighborsResults
        from scib_metrics.utils import principal_component_regression
    except ImportError:
        pass
    else:
        wide = NeighborsResults(indices=found.indices, distances=found.distances)
        narrow = NeighborsResults(indices=fewer.indices, distances=fewer.distances)
        fifty = NeighborsResults(indices=found.indices[:, :50], distances=found.distances[:, :50])
        expected = {
            "ilisi": scib_metrics.ilisi_knn(wide, batches, perplexity=30),
            "clisi": scib_metrics.clisi_knn(wide, labels, perplexity=30),
            "kbet": scib_metrics.kbet(fifty, batches)[0],
            "graph": scib_metrics.graph_connectivity(narrow, labels),
            "label_asw": scib_metrics.silhouette_label(points, labels),
            "pcr": principal_component_regression(points, batches, categorical=True),
        }
    for name, value in expected.items():
        assert ours[name] == pytest.approx(float(value), abs=2e-3), name


EXPECTED = {
    "ilisi": 0.41088, "clisi": 1.0, "kbet": 0.52167, "graph": 0.98833, "label_asw": 0.71872, "pcr": 0.02531,
}  # fmt: skip


# --- effect ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_effect_kept_falls_as_an_integration_takes_the_effect_away(share: float) -> None:
    """A planted shift between conditions of which a known share is taken back."""
    generator = np.random.default_rng(2)
    n = 800
    condition, donor = np.arange(n) % 2, (np.arange(n) // 2) % 2
    points = generator.normal(size=(n, 8)).astype(np.float32)
    points[:, 0] += 3 * condition
    points[:, 1] += 6 * donor  # batches, to be removed without touching the effect
    after = points.copy()
    after[:, 0] -= 3 * share * condition
    after[:, 1] -= 6 * donor
    names = np.array(["control", "treated"], dtype=object)[condition]
    strata = condition_strata(np.full(n, "MSC", dtype=object), donor.astype(str).astype(object), names)
    assert len(strata) == 2
    before = separation(Space.of(Aligned(points), 15), strata, names)
    left = separation(Space.of(Aligned(after), 15), strata, names)
    kept = effect_kept(before, left, strata)
    assert {0.0: kept > 0.95, 0.5: 0.3 < kept < 0.9, 1.0: kept < 0.1}[share], kept


def test_without_an_effect_there_is_nothing_to_keep() -> None:
    points, labels, _ = blobs(n=600, shift=0)
    names = np.array(["control", "treated"], dtype=object)[np.random.default_rng(3).integers(0, 2, 600)]
    strata = condition_strata(labels.astype(str).astype(object), np.full(600, "D1", dtype=object), names)
    space = Space.of(Aligned(points), 15)
    before = separation(space, strata, names)
    assert np.abs(before).max() < 0.1
    assert np.isnan(effect_kept(before, before, strata))
    assert np.isnan(effect_kept(np.zeros(0), np.zeros(0), []))


# --- panel and score -------------------------------------------------------------------------------------------------


def test_cells_are_drawn_evenly_over_replicates_and_small_ones_stay_whole() -> None:
    replicates = np.repeat(np.array(["a", "b", "c"], dtype=object), [1000, 30, 500])
    drawn = draw_cells(replicates, 230, seed=1)
    assert {name: int((replicates[drawn] == name).sum()) for name in "abc"} == {"a": 100, "b": 30, "c": 100}
    assert (np.diff(drawn) > 0).all()
    np.testing.assert_array_equal(drawn, draw_cells(replicates, 230, seed=1))
    np.testing.assert_array_equal(draw_cells(replicates, 5000, seed=1), np.arange(1530))


def test_score_leaves_out_what_is_not_known() -> None:
    nothing = float("nan")
    assert total_score(0.5, 1.0, 0.0) == pytest.approx(0.8 * (0.6 + 0.2))
    assert total_score(0.5, 1.0, nothing) == pytest.approx(0.8)
    assert total_score(0.5, nothing, 1.0) == pytest.approx(0.8 * 0.5 + 0.2)
    assert np.isnan(total_score(nothing, nothing, nothing))


def test_neighbours_among_members_on_a_graph_are_those_most_easily_walked_to() -> None:
    # a line 0 - 1 - 2 - 3 with equal weights, looked at among cells 0, 2 and 3
    indices = np.array([[0, 1, 1], [1, 0, 2], [2, 1, 3], [3, 2, 2]], dtype=np.int32)
    graph = Neighbors(indices, np.array([[0, 1, 1]] * 4, dtype=np.float32))
    space = Space.of(Aligned(np.zeros((4, 2), dtype=np.float32), graph), 3)
    found, distances = space.neighbors(np.array([0, 2, 3]), 2)
    assert space.walk is not None and set(found[1]) == {0, 2}
    finite = np.isfinite(distances)
    assert ((found >= 0) == finite).all() and (np.diff(np.where(finite, distances, 1e9), axis=1) >= 0).all()


def test_mixing_is_measured_within_conditions() -> None:
    """Two conditions far apart, donors mixed in each: batches count as mixed."""
    generator = np.random.default_rng(4)
    n = 1200
    condition, donor, label = np.arange(n) % 2, (np.arange(n) // 2) % 3, (np.arange(n) // 6) % 2
    points = generator.normal(size=(n, 6)).astype(np.float32)
    points[:, 0] += 8 * condition
    points[:, 1] += 8 * label
    text = [np.array([f"{name}{value}" for value in values], dtype=object) for name, values in
            (("class", label), ("donor", donor), ("condition", condition))]  # fmt: skip
    replicates = text[1] + "/" + text[2]
    judge = Judge(Panel(np.arange(n), text[0], replicates, text[1], text[2], 1), points)
    assert judge.conditions_apart
    apart = judge.measure(Aligned(points), text[1])
    assert apart["batch_score"] > 0.85 and apart["effect_kept"] == pytest.approx(1)
    merged = points.copy()
    merged[:, 0] -= 8 * condition
    taken = judge.measure(Aligned(merged), text[1])
    assert taken["effect_kept"] < 0.1
    assert taken["batch_score"] == pytest.approx(apart["batch_score"], abs=0.05)
    assert taken["score"] < apart["score"]
