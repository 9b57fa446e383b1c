"""Label transfer from an annotated reference of another laboratory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from immunomod.atlas.markers import MarkerSet
from immunomod.atlas.transfer import reference_labels, votes_of_reference
from immunomod.errors import UserError

LABELS = Path(__file__).resolve().parents[2] / "resources" / "markers" / "labels.tsv"
Draw = Callable[..., tuple[sparse.csr_matrix, list[str]]]
TRUTH = {"CD4_T": "CD4 Naive", "CD8_T": "CD8 TEM", "NK": "NK", "B": "B memory", "CD14_monocyte": "CD14 Mono",
         "CD16_monocyte": "CD16 Mono", "epithelium": "Keratinocyte"}  # fmt: skip


@pytest.fixture
def reference(tmp_path: Path, draw_counts: Draw) -> Path:
    """Thirty cells a class; every gene is captured up to four times better or worse than in the atlas."""
    kinds = [kind for kind in TRUTH for _ in range(30)]
    counts, genes = draw_counts(kinds, seed=11, depth=6000)
    capture = np.exp(np.random.default_rng(5).uniform(-1.4, 1.4, counts.shape[1]))
    counts = sparse.csr_matrix(np.random.default_rng(6).poisson(counts.toarray() * capture), dtype=np.float32)
    obs = pd.DataFrame({"celltype": [TRUTH[kind] for kind in kinds]}, index=[f"r{i}" for i in range(len(kinds))])
    path = tmp_path / "reference.h5ad"
    ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=genes)).write_h5ad(path)
    return path


def query(draw_counts: Draw, kinds: list[str], seed: int = 3) -> tuple[sparse.csr_matrix, pd.Index]:
    counts, genes = draw_counts(kinds, seed=seed)
    expression = np.log1p(counts.toarray() / counts.sum(axis=1) * 1e4)
    order = np.random.default_rng(7).permutation(len(genes))
    return sparse.csr_matrix(np.asarray(expression)[:, order], dtype=np.float32), pd.Index(genes)[order]


def transferred(path: Path, expression: sparse.csr_matrix, symbols: pd.Index, markers: MarkerSet, seed: int = 1):
    return votes_of_reference(path, "celltype", "blood", expression, symbols, markers, [LABELS], "human", seed)


def test_cells_take_the_labels_of_their_class(draw_counts: Draw, reference: Path, markers: MarkerSet) -> None:
    kinds = [kind for kind in TRUTH for _ in range(15)]
    expression, symbols = query(draw_counts, kinds)
    votes = transferred(reference, expression, symbols, markers)
    names = np.array(markers.classes.index)
    expected = np.array(["unassigned" if kind == "epithelium" else kind for kind in kinds])
    found = names[votes.shares.argmax(axis=1)]
    assert (found == expected).mean() > 0.97
    np.testing.assert_allclose(votes.shares.sum(axis=1), 1, atol=1e-5)
    assert set(names[votes.knows]) == set(expected)


def test_shuffled_labels_transfer_nothing(
    tmp_path: Path, draw_counts: Draw, reference: Path, markers: MarkerSet
) -> None:
    """The negative control: a reference whose labels mean nothing gives classes no better than chance."""
    adata = ad.read_h5ad(reference)
    adata.obs["celltype"] = np.random.default_rng(1).permutation(adata.obs["celltype"].to_numpy(str))
    path = tmp_path / "shuffled.h5ad"
    adata.write_h5ad(path)
    kinds = [kind for kind in TRUTH for _ in range(15)]
    expression, symbols = query(draw_counts, kinds)
    found = np.array(markers.classes.index)[transferred(path, expression, symbols, markers).shares.argmax(axis=1)]
    assert (found == np.array(kinds)).mean() < 0.45


def test_the_same_for_counts_logs_columns_and_orders(
    tmp_path: Path, draw_counts: Draw, reference: Path, markers: MarkerSet
) -> None:
    expression, symbols = query(draw_counts, ["NK"] * 6 + ["B"] * 6)
    plain = transferred(reference, expression, symbols, markers).shares
    adata = ad.read_h5ad(reference)
    counts = adata.X.copy()
    logs = sparse.csr_matrix(np.log1p(counts.toarray() / counts.sum(axis=1) * 1e4))
    variants = {
        "logs": ad.AnnData(logs, adata.obs, adata.var),
        "columns": ad.AnnData(sparse.csc_matrix(counts), adata.obs, adata.var),
        "dense": ad.AnnData(counts.toarray(), adata.obs, adata.var),
        "layer": ad.AnnData(
            sparse.csr_matrix(counts.shape, dtype=np.float32), adata.obs, adata.var, layers={"counts": counts}
        ),
        "shuffled": adata[np.random.default_rng(2).permutation(adata.n_obs)].copy(),
    }
    for name, variant in variants.items():
        path = tmp_path / f"{name}.h5ad"
        variant.write_h5ad(path)
        found = transferred(path, expression, symbols, markers).shares
        np.testing.assert_allclose(found, plain, atol=0.05, err_msg=name)
        assert (found.argmax(axis=1) == plain.argmax(axis=1)).all(), name


def test_mistakes_have_one_message(tmp_path: Path, draw_counts: Draw, reference: Path, markers: MarkerSet) -> None:
    expression, symbols = query(draw_counts, ["NK"] * 5)
    assert set(reference_labels(reference, "celltype")) == set(TRUTH.values())
    with pytest.raises(UserError, match=r"obs has no column 'kind'. Name one of celltype"):
        reference_labels(reference, "kind")
    with pytest.raises(UserError, match="does not exist"):
        reference_labels(tmp_path / "none.h5ad", "celltype")
    (tmp_path / "text.h5ad").write_text("text")
    with pytest.raises(UserError, match=r"is no readable \.h5ad"):
        reference_labels(tmp_path / "text.h5ad", "celltype")
    with pytest.raises(UserError, match="only 0 of its genes"):
        transferred(reference, expression, pd.Index([f"other{i}" for i in range(len(symbols))]), markers)
    adata = ad.read_h5ad(reference)
    adata.obs["celltype"] = "what nobody knows " + adata.obs["celltype"].astype(str)
    adata.write_h5ad(tmp_path / "unknown.h5ad")
    with pytest.raises(UserError, match=r"none of its 7 labels is a known class"):
        transferred(tmp_path / "unknown.h5ad", expression, symbols, markers)
    adata = ad.read_h5ad(reference)
    adata.X.data = adata.X.data - 5
    adata.write_h5ad(tmp_path / "scaled.h5ad")
    with pytest.raises(UserError, match="negative or missing values"):
        transferred(tmp_path / "scaled.h5ad", expression, symbols, markers)
