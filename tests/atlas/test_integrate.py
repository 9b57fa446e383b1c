"""Integration: the registry, what is skipped, mixing counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from immunomod.atlas.integrate import REGISTRY, integrate, same_batch_share
from immunomod.atlas.neighbors import nearest_neighbors
from immunomod.errors import UserError


def shifted(seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Two classes in two batches, one batch moved aside."""
    generator = np.random.default_rng(seed)
    points = generator.normal(size=(240, 5)).astype(np.float32)
    points[:120, 0] += 12
    batch = np.tile([0, 1], 120)
    points[batch == 1, 1] += 6
    return points, [f"batch{value}" for value in batch]


def test_harmony_mixes_batches_and_keeps_classes_apart() -> None:
    points, batches = shifted()
    aligned = integrate(points, batches, "harmony", seed=1)
    before, chance = same_batch_share(nearest_neighbors(points, 15).indices, batches)
    after, _ = same_batch_share(nearest_neighbors(aligned.coordinates, 15).indices, batches)
    assert before > 0.95 and after < 0.8 and chance == pytest.approx(0.5)
    neighbors = nearest_neighbors(aligned.coordinates, 15).indices
    assert ((neighbors < 120) == (np.arange(240) < 120)[:, None]).mean() > 0.99
    np.testing.assert_array_equal(aligned.coordinates, integrate(points, batches, "harmony", seed=1).coordinates)


def test_one_batch_is_skipped_with_a_reason() -> None:
    points, _ = shifted()
    result = integrate(points, ["only"] * 240, "harmony", seed=1)
    assert result.method == "none" and "only one batch" in result.reason
    np.testing.assert_array_equal(result.coordinates, points)


def test_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="harmony, none"):
        integrate(*shifted(), "magic", seed=1)


def test_every_method_says_what_it_is() -> None:
    assert all(name == method.name and method.needs and method.limits for name, method in REGISTRY.items())


def test_same_batch_share_by_hand() -> None:
    indices = np.array([[0, 1, 2], [1, 0, 2], [2, 0, 1], [3, 2, 1]])
    share, chance = same_batch_share(indices, ["a", "a", "b", "b"])
    assert share == pytest.approx((1 / 2 + 1 / 2 + 0 + 1 / 2) / 4)
    assert chance == pytest.approx(0.5)
