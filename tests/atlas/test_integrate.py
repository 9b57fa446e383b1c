"""Integration: the registry, what is skipped, how `auto` chooses, and whether its choice is good in truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from immunomod.atlas.integrate import COLUMNS, REGISTRY, IntegrationInput, integrate, same_batch_share
from immunomod.atlas.integration.bbknn import balanced_neighbors
from immunomod.atlas.integration.settings import METHODS, IntegrationSettings
from immunomod.atlas.neighbors import fuzzy_connectivities, nearest_neighbors
from immunomod.errors import UserError
from support.batch_studies import BatchAtlas, batch_atlas, true_classes
from support.batch_truth import truth_of_methods


def shifted(seed: int = 0, n: int = 480, shift: float = 6) -> IntegrationInput:
    """Two classes of two donors in two conditions; donors are moved aside, conditions less and in another direction."""
    generator = np.random.default_rng(seed)
    label, donor, condition = np.arange(n) % 2, (np.arange(n) // 2) % 2, (np.arange(n) // 4) % 2
    points = generator.normal(size=(n, 5)).astype(np.float32)
    points[:, 0] += 12 * label
    points[:, 1] += shift * donor
    points[:, 2] += 4 * condition
    obs = pd.DataFrame(
        {
            "sample": [f"D{d}_{c}" for d, c in zip(donor, condition, strict=True)],
            "donor": [f"D{d}" for d in donor],
            "condition": [("alone", "coculture")[c] for c in condition],
        },
        index=[f"cell{number}" for number in range(n)],
    )
    names = np.array(["MSC", "B"], dtype=object)[label]
    return IntegrationInput(points, obs, lambda cells: names[cells])


def asked(method: str, key: str = "donor") -> IntegrationSettings:
    return IntegrationSettings(integration=method, integration_key=key)


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> BatchAtlas:
    return batch_atlas(tmp_path_factory.mktemp("atlas"), "donors", 0.6, seed=2)


def test_harmony_mixes_batches_and_keeps_classes_apart() -> None:
    data = shifted()
    donors = list(data.obs["donor"])
    aligned = integrate(data, asked("harmony"), seed=1)
    before, chance = same_batch_share(nearest_neighbors(data.components, 15).indices, donors)
    neighbors = nearest_neighbors(aligned.coordinates, 15).indices
    after, _ = same_batch_share(neighbors, donors)
    assert before > 0.95 and after < 0.8 and chance == pytest.approx(0.5)
    assert ((neighbors % 2) == (np.arange(480) % 2)[:, None]).mean() > 0.99
    again = integrate(data, asked("harmony"), seed=1, threads=2)
    np.testing.assert_array_equal(aligned.coordinates, again.coordinates)
    assert list(aligned.table["method"]) == ["none", "harmony"] and list(aligned.table["chosen"]) == [False, True]


def test_bbknn_gives_every_cell_the_nearest_of_every_batch() -> None:
    data = shifted(n=120)
    batches = data.obs["donor"].to_numpy()
    result = integrate(data, asked("bbknn"), seed=1)
    assert result.neighbors is not None and result.neighbors.indices.shape == (120, 6)
    apart = np.linalg.norm(data.components[:, None] - data.components[None], axis=2)
    for cell in range(120):
        expected = [c for name in ("D0", "D1") for c in np.flatnonzero(batches == name)[
            np.argsort(apart[cell][batches == name], kind="stable")[:3]]]  # fmt: skip
        assert set(result.neighbors.indices[cell]) == set(expected)
        assert result.neighbors.indices[cell, 0] == cell
        assert (np.diff(result.neighbors.distances[cell]) >= 0).all()
    threaded = balanced_neighbors(data.components, list(batches), 3, threads=2)
    np.testing.assert_array_equal(threaded.indices, result.neighbors.indices)


def test_bbknn_equals_the_package() -> None:
    """The package's own connectivities (``reference/make_bbknn.py``)."""
    reference = Path(__file__).parent / "reference"
    points = pd.read_csv(reference / "bbknn_points.tsv", sep="\t")
    given = pd.read_csv(reference / "bbknn.tsv", sep="\t")
    coordinates = points.drop(columns="batch").to_numpy(dtype=np.float32)
    upper = sparse.csr_matrix((given["weight"], (given["row"], given["column"])), shape=(len(points), len(points)))
    ours = fuzzy_connectivities(balanced_neighbors(coordinates, list(points["batch"]), 3))
    np.testing.assert_allclose(ours.toarray(), (upper + upper.T).toarray(), atol=1e-4)


def test_a_batch_smaller_than_the_neighbours_asked_of_it() -> None:
    points = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    found = balanced_neighbors(points, ["a", "a"] + ["b"] * 38, 3)
    assert found.indices.shape == (40, 5) and (found.indices >= 0).all()
    assert all(len(set(row)) == 5 for row in found.indices)
    same = balanced_neighbors(np.zeros((8, 2), dtype=np.float32), ["a"] * 4 + ["b"] * 4, 2)
    np.testing.assert_array_equal(same.indices[:, 0], np.arange(8))


def test_one_batch_is_skipped_with_a_reason() -> None:
    data = shifted()
    one = IntegrationInput(data.components, data.obs.assign(donor="D", sample="S", condition=""), data.labels)
    for method in ("harmony", "auto", "bbknn"):
        result = integrate(one, asked(method, "auto"), seed=1)
        assert result.method == "none" and "only one batch" in result.reason
        assert list(result.table.columns) == list(COLUMNS) and result.table["chosen"].tolist() == [True]
        np.testing.assert_array_equal(result.coordinates, one.components)


def test_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="auto, none, harmony, bbknn, scvi, scanvi"):
        asked("magic")


def test_a_learned_method_needs_its_coordinates_and_takes_them() -> None:
    data = shifted()
    with pytest.raises(UserError, match="train_scvi"):
        integrate(data, asked("scvi"), seed=1)
    latent = np.ascontiguousarray(data.components[:, [0, 2]])
    trained = IntegrationInput(data.components, data.obs, data.labels, {"scvi": latent})
    np.testing.assert_array_equal(integrate(trained, asked("scvi"), seed=1).coordinates, latent)
    assert "scvi" in set(integrate(trained, IntegrationSettings(), seed=1).table["method"])


def test_every_method_says_what_it_is() -> None:
    assert set(REGISTRY) | {"auto"} == set(METHODS)
    assert all(name == method.name and method.needs and method.limits for name, method in REGISTRY.items())


# --- auto ------------------------------------------------------------------------------------------------------------


def test_auto_aligns_donors_and_not_samples_which_would_take_the_effect() -> None:
    result = integrate(shifted(), IntegrationSettings(), seed=1)
    table = result.table.set_index(["method", "key"])
    assert result.key == "donor" and result.method != "none" and result.caution == ""
    kept = table["effect_kept"]
    assert kept["harmony", "donor"] > 0.8 and kept["harmony", "sample"] < 0.5
    assert "every sample is of one condition" in table["caution"]["harmony", "sample"]
    assert f"{table['score'].max():.2f}" in result.reason
    assert table["chosen"].sum() == 1 and table["score"][table["chosen"]].iloc[0] == table["score"].max()


def test_auto_leaves_cells_alone_where_batches_do_not_differ() -> None:
    result = integrate(shifted(shift=0), IntegrationSettings(), seed=1)
    assert result.method == "none" and "no method is better" in result.reason


def test_large_atlases_are_judged_on_a_part_and_aligned_as_a_whole() -> None:
    data = shifted(n=960)
    settings = IntegrationSettings(metric_cells=400)
    seen: list[int] = []

    def labels(cells: np.ndarray) -> np.ndarray:
        seen.append(len(cells))
        return data.labels(cells)

    result = integrate(IntegrationInput(data.components, data.obs, labels), settings, seed=1)
    assert seen == [400] and len(result.coordinates) == 960
    again = integrate(data, settings, seed=1, threads=2)
    np.testing.assert_array_equal(result.coordinates, again.coordinates)
    pd.testing.assert_frame_equal(result.table.drop(columns="seconds"), again.table.drop(columns="seconds"))


def test_without_known_classes_batches_alone_decide() -> None:
    data = shifted()
    nameless = IntegrationInput(data.components, data.obs, lambda cells: np.full(len(cells), "", dtype=object))
    result = integrate(nameless, IntegrationSettings(), seed=1)
    assert result.table["class_score"].isna().all() and result.table["score"].notna().all()


def test_names_of_samples_and_donors_change_nothing() -> None:
    data = shifted()
    other = data.obs.assign(
        sample=data.obs["sample"].map(lambda name: "z" + name[::-1]),
        donor=data.obs["donor"].map({"D0": "b", "D1": "a"}),
    )
    settings = IntegrationSettings(metric_cells=300)
    first = integrate(data, settings, seed=1)
    second = integrate(IntegrationInput(data.components, other, data.labels), settings, seed=1)
    np.testing.assert_allclose(first.coordinates, second.coordinates, atol=1e-4)
    assert first.method == second.method


def test_provisional_labels_are_right_where_they_are_given(atlas: BatchAtlas) -> None:
    labels = atlas.data.labels(np.arange(len(atlas.components)))
    true = true_classes(atlas).to_numpy()
    known = labels != ""
    assert known.mean() > 0.85
    assert (labels[known] == true[known]).mean() > 0.95


def test_a_study_of_a_few_cells_comes_through() -> None:
    for n in (8, 12, 24):
        result = integrate(shifted(n=n), IntegrationSettings(), seed=1)
        assert len(result.coordinates) == n and result.table["chosen"].sum() == 1


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "strength"), [("donors", 0.8), ("libraries", 0.6)])
def test_auto_is_within_five_percent_of_the_best_in_truth(tmp_path: Path, kind: str, strength: float) -> None:
    table = truth_of_methods(tmp_path, kind, strength, seed=21, depth=800)
    chosen = table[table["chosen"]].iloc[0]
    assert chosen["truth_score"] >= 0.95 * table["truth_score"].max()
    assert chosen["truth_score"] > table["truth_score"].min()
