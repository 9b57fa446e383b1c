"""CellTypist models: the package's own probabilities, and pickles that want more than numbers."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from immunomod.atlas.celltypist import Model, probabilities, read_model, votes_of_model
from immunomod.atlas.markers import MarkerSet
from immunomod.atlas.sample_files import open_samples
from immunomod.errors import UserError

REFERENCE = Path(__file__).parent / "reference"
LABELS = Path(__file__).resolve().parents[2] / "resources" / "markers" / "labels.tsv"
WriteSample = Callable[..., Path]


@pytest.mark.parametrize("name", ["model", "two"])
def test_probabilities_are_those_of_the_package(name: str) -> None:
    cells = pd.read_csv(REFERENCE / "celltypist_cells.tsv.gz", sep="\t", index_col="cell")
    given = pd.read_csv(REFERENCE / "celltypist_probabilities.tsv", sep="\t").query("model == @name")
    expected = given.pivot(index="cell", columns="label", values="probability").loc[cells.index]
    model = read_model(REFERENCE / f"celltypist_{name}.pkl")
    assert model.labels == tuple(expected.columns)
    found = probabilities(model, sparse.csr_matrix(cells.to_numpy()), list(cells.columns))
    np.testing.assert_allclose(found, expected.to_numpy(), atol=1e-6)
    assert expected.to_numpy().max() > 0.9 and expected.to_numpy().min() < 0.1


def test_high_values_are_cut_as_in_dense_arithmetic() -> None:
    """Against the plain formula on a dense matrix, with values far beyond ten standard deviations."""
    generator = np.random.default_rng(4)
    model = Model(
        ("a", "b", "c"), tuple("vwxyz"), generator.normal(size=(3, 5)), generator.normal(size=3),
        generator.uniform(0, 1, 5), generator.uniform(0.05, 0.5, 5),
    )  # fmt: skip
    values = generator.choice([0.0, 0.3, 2.0, 9.0], size=(50, 5))
    standard = np.minimum((values - model.mean) / model.scale, 10)
    expected = 1 / (1 + np.exp(-(standard @ model.coefficients.T + model.intercept)))
    assert ((values - model.mean) / model.scale > 10).any()
    np.testing.assert_allclose(probabilities(model, sparse.csr_matrix(values), tuple("vwxyz")), expected)


def trained(labels: list[str], rows: np.ndarray, genes: list[str]) -> bytes:
    """A model file as celltypist writes it, made by scikit-learn."""
    scaler = StandardScaler().fit(rows)
    model = LogisticRegression(max_iter=200).fit(scaler.transform(rows), labels)
    model.features = np.array(genes)
    return pickle.dumps({"Model": model, "Scaler_": scaler, "description": {"details": "test"}})


def test_every_cell_of_every_sample_is_judged(
    tmp_path: Path, write_sample: WriteSample, draw_counts: Callable[..., tuple[sparse.csr_matrix, list[str]]],
    markers: MarkerSet,
) -> None:  # fmt: skip
    kinds = ["CD4_T", "NK", "MSC", "epithelium"]
    named = {
        "CD4_T": "Tcm/Naive helper T cells",
        "NK": "CD16+ NK cells",
        "MSC": "fibroblasts",
        "epithelium": "Keratinocytes",
    }
    counts, genes = draw_counts([kind for kind in kinds for _ in range(60)], seed=8)
    rows = np.asarray(np.log1p(counts.toarray() / counts.sum(axis=1) * 1e4))
    path = tmp_path / "model.pkl"
    path.write_bytes(trained([named[kind] for kind in kinds for _ in range(60)], rows, genes))
    paths = [
        write_sample(tmp_path, "s1", ["CD4_T"] * 12 + ["MSC"] * 9, seed=1, drop=("CD3D", "HK3")),
        write_sample(tmp_path, "s2", ["epithelium"] * 5 + ["NK"] * 10, seed=2),
    ]
    samples = open_samples(paths)
    votes = votes_of_model(path, "model", samples, markers, [LABELS], "human", threads=2)
    truth = {"s1": ["CD4_T"] * 12 + ["MSC"] * 9, "s2": ["unassigned"] * 5 + ["NK"] * 10}
    expected = [name for sample in samples for name in truth[sample.sample]]
    names = np.array(markers.classes.index)
    assert names[votes.shares.argmax(axis=1)].tolist() == expected
    assert (votes.shares.sum(axis=1) <= 1 + 1e-6).all() and votes.shares.max(axis=1).min() > 0.5
    assert set(names[votes.knows]) == {"CD4_T", "NK", "MSC", "unassigned"}


class _Hostile:
    def __init__(self, call: Callable[..., object], *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call, self.arguments


@pytest.mark.parametrize(
    "hostile",
    [
        lambda there: _Hostile(os.system, f"touch {there}"),
        lambda there: _Hostile(eval, f"open({str(there)!r}, 'w')"),
        lambda there: _Hostile(io.open, str(there), "w"),
        lambda there: {"Model": _Hostile(os.mkdir, str(there)), "Scaler_": None},
        lambda there: _Hostile(pickle.loads, pickle.dumps(_Hostile(os.mkdir, str(there)))),
    ],
    ids=["system", "eval", "open", "inside", "nested"],
)  # fmt: skip
def test_a_model_that_wants_to_run_something_is_refused(tmp_path: Path, hostile: Callable[[Path], object]) -> None:
    path, there = tmp_path / "m.pkl", tmp_path / "there"
    path.write_bytes(pickle.dumps(hostile(there)))
    with pytest.raises(UserError, match=r"m\.pkl is no CellTypist model that can be read safely"):
        read_model(path)
    assert not there.exists()


@pytest.mark.parametrize(
    "content", [b"", b"not a pickle", pickle.dumps([1, 2]), pickle.dumps({"Model": 1, "Scaler_": 2})],
    ids=["empty", "text", "list", "numbers"],
)  # fmt: skip
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(content)
    with pytest.raises(UserError, match="is no CellTypist model"):
        read_model(path)


def test_a_missing_model_and_one_of_other_genes_are_named(
    tmp_path: Path, write_sample: WriteSample, markers: MarkerSet
) -> None:
    with pytest.raises(UserError, match=r"annotation\.celltypist"):
        read_model(tmp_path / "none.pkl")
    generator = np.random.default_rng(1)
    path = tmp_path / "other.pkl"
    genes = [f"other{number}" for number in range(60)]
    path.write_bytes(trained(["NK cells", "B cells"] * 20, generator.normal(size=(40, 60)), genes))
    samples = open_samples([write_sample(tmp_path, "s1", ["NK"] * 5, seed=1)])
    with pytest.raises(UserError, match="only 0 of the model's 60 genes"):
        votes_of_model(path, "m", samples, markers, [LABELS], "human")
