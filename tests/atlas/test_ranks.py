"""Marker genes against scipy, scanpy and brute force; order of samples and threads; differing genes; refusals."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import mannwhitneyu, rankdata

from immunomod.atlas import ranks
from immunomod.atlas.ranks import COLUMNS, RankStatistics, rank_genes, rank_statistics
from immunomod.errors import UserError
from support.filtered_samples import GENES, GROUPS, draw, write_filtered


def series(paths: list[Path], groups: list[np.ndarray]) -> pd.Series:
    return pd.concat(
        [pd.Series(of, index=ad.read_h5ad(path).obs_names) for path, of in zip(paths, groups, strict=True)]
    )


@pytest.fixture
def one(tmp_path: Path) -> tuple[Path, pd.Series]:
    counts, groups = draw(230, 1)
    path = write_filtered(tmp_path, "s", counts)
    return path, series([path], [groups])


def test_one_sample_equals_the_mann_whitney_test(one: tuple[Path, pd.Series]) -> None:
    path, groups = one
    found = rank_statistics([path], {"cluster": groups})
    values = ad.read_h5ad(path).to_df().to_numpy().astype(float)
    for column, group in enumerate(found.groups["group"]):
        inside = (groups == group).to_numpy()
        for row in range(len(GENES)):
            test = mannwhitneyu(values[inside, row], values[~inside, row], method="asymptotic", use_continuity=False)
            pairs = inside.sum() * (~inside).sum()
            assert found.auc[row, column] == pytest.approx(test.statistic / pairs, abs=1e-12)
            two_sided = 2 * float(_upper_tail(abs(found.z[row, column])))
            assert two_sided == pytest.approx(test.pvalue, rel=1e-9)
        per_10k = np.expm1(values)
        np.testing.assert_allclose(found.mean_in[:, column], per_10k[inside].mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(found.mean_out[:, column], per_10k[~inside].mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(found.detected_in[:, column], (values[inside] > 0).mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(found.detected_out[:, column], (values[~inside] > 0).mean(axis=0), rtol=1e-12)


def _upper_tail(z: float) -> float:
    from scipy.stats import norm

    return float(norm.sf(z))


def test_one_sample_equals_scanpy(one: tuple[Path, pd.Series]) -> None:
    import scanpy as sc

    path, groups = one
    adata = ad.read_h5ad(path)
    adata.obs["group"] = pd.Categorical(groups)
    sc.tl.rank_genes_groups(adata, "group", method="wilcoxon", tie_correct=True)
    found = rank_genes([path], {"cluster": groups}, n_genes=10)
    for group in GROUPS:
        theirs = sc.get.rank_genes_groups_df(adata, group).head(10)
        ours = found[found["group"] == group]
        np.testing.assert_allclose(ours["z"], theirs["scores"], rtol=1e-5)
        assert set(ours["gene"]) == set(theirs["names"])


def stratified(values: list[np.ndarray], inside: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """van Elteren's statistic and the stratified probability of superiority, written out."""
    statistic = variance = above = pairs = 0.0
    for sample, of in zip(values, inside, strict=True):
        n, n_in = len(of), of.sum()
        ranked = rankdata(sample, axis=0)
        weight = 1 / (n + 1)
        statistic = statistic + weight * (ranked[of].sum(axis=0) - n_in * (n + 1) / 2)
        # the variance of a sum of n_in ranks drawn without replacement
        variance = variance + weight**2 * n_in * (n - n_in) / n * ranked.var(axis=0, ddof=1)
        first, second = sample[of][:, None, :], sample[~of][None, :, :]
        above = above + weight * ((first > second).sum(axis=(0, 1)) + 0.5 * (first == second).sum(axis=(0, 1)))
        pairs = pairs + weight * n_in * (n - n_in)
    return statistic / np.sqrt(variance), above / pairs


@pytest.fixture
def three(tmp_path: Path) -> tuple[list[Path], pd.Series]:
    drawn = [draw(n, seed, shift=shift) for n, seed, shift in ((90, 2, 1.0), (33, 3, 3.0), (150, 4, 0.3))]
    paths = [write_filtered(tmp_path, f"s{number}", counts) for number, (counts, _) in enumerate(drawn)]
    return paths, series(paths, [groups for _, groups in drawn])


def test_samples_add_up_as_van_elteren_says(three: tuple[list[Path], pd.Series]) -> None:
    paths, groups = three
    found = rank_statistics(paths, {"cluster": groups})
    samples = [ad.read_h5ad(path) for path in paths]
    values = [sample.to_df().to_numpy().astype(float) for sample in samples]
    for column, group in enumerate(found.groups["group"]):
        inside = [(groups[sample.obs_names] == group).to_numpy() for sample in samples]
        z, auc = stratified(values, inside)
        np.testing.assert_allclose(found.z[:, column], z, rtol=1e-9)
        np.testing.assert_allclose(found.auc[:, column], auc, rtol=1e-9)
        assert found.groups["n_cells"][column] == sum(of.sum() for of in inside)


def test_two_groupings_at_once_equal_each_alone(three: tuple[list[Path], pd.Series]) -> None:
    paths, groups = three
    coarse = groups.map({"a": "x", "b": "x", "c": "y", "d": "z"})
    both = rank_genes(paths, {"cluster": groups, "cell_class": coarse}, n_genes=30)
    alone = [
        rank_genes(paths, {"cluster": groups}, n_genes=30),
        rank_genes(paths, {"cell_class": coarse}, n_genes=30),
    ]
    # means are summed per combination of groups, in another order
    pd.testing.assert_frame_equal(both, pd.concat(alone, ignore_index=True), rtol=1e-12)
    assert list(both.columns) == list(COLUMNS)


def test_order_threads_and_ranges_of_genes_change_nothing(
    three: tuple[list[Path], pd.Series], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, groups = three
    expected = rank_genes(paths, {"cluster": groups})
    pd.testing.assert_frame_equal(rank_genes(paths[::-1], {"cluster": groups[::-1]}, threads=4), expected)
    monkeypatch.setattr(ranks, "_KEYS_AT_ONCE", 700)
    monkeypatch.setattr(ranks, "ROWS_AT_ONCE", 16)
    monkeypatch.setattr(ranks, "_GENES_PER_BLOCK", 7)
    pd.testing.assert_frame_equal(rank_genes(paths, {"cluster": groups}, threads=2), expected)


def test_a_difference_between_samples_makes_no_marker(tmp_path: Path) -> None:
    """Both samples hold both groups in unlike shares, and one sample expresses half of the genes eightfold."""
    generator = np.random.default_rng(5)
    paths, groups = [], []
    for name, share, factor in (("s", 0.85, 8.0), ("t", 0.15, 1.0)):
        level = np.where(np.arange(40) < 20, 0.5 * factor, 4.0)
        level[39] = 1000 - level[:39].sum()  # the same total, so normalising does not undo the planted difference
        paths.append(write_filtered(tmp_path, name, generator.poisson(level, size=(600, 40)), GENES[:40]))
        groups.append(np.where(generator.random(600) < share, "a", "b"))
    found = rank_statistics(paths, {"cluster": series(paths, groups)})
    assert np.abs(found.z[:20, 0]).max() < 4
    assert np.abs(found.log2_fold_change(0)[:20]).max() < 0.25
    values = np.vstack([ad.read_h5ad(path).to_df().to_numpy() for path in paths])
    inside = np.concatenate(groups) == "a"
    pooled = mannwhitneyu(values[inside, 0], values[~inside, 0]).statistic / inside.sum() / (~inside).sum()
    assert pooled > 0.7  # what ranks across samples would say


def test_planted_markers_come_first(three: tuple[list[Path], pd.Series]) -> None:
    paths, groups = three
    found = rank_genes(paths, {"cluster": groups}, n_genes=6)
    own = [int(gene[1:]) % 4 == list(GROUPS).index(group) for gene, group in found[["gene", "group"]].to_numpy()]
    assert np.mean(own) > 0.9
    assert (found.groupby("group")["rank"].apply(list).map(lambda ranks: ranks == [1, 2, 3, 4, 5, 6])).all()
    assert (found["auc"] > 0.5).all()


def test_a_gene_counts_in_the_samples_that_list_it(tmp_path: Path) -> None:
    (first, of_first), (second, of_second) = draw(80, 6), draw(70, 7)
    kept = [5, 3, 59, 0, 20]
    names = [GENES[k] for k in kept]
    paths = [write_filtered(tmp_path, "s", first), write_filtered(tmp_path, "t", second[:, kept], names)]
    groups = series(paths, [of_first, of_second])
    found = rank_statistics(paths, {"cluster": groups})
    alone = rank_statistics(paths[:1], {"cluster": groups})
    assert found.genes.index.is_unique and len(found.genes) == 60
    assert found.genes["n_samples"].value_counts().to_dict() == {1: 55, 2: 5}
    values = [ad.read_h5ad(path)[:, names].to_df().to_numpy() for path in paths]
    place = found.genes.index.get_indexer(names)
    for column, group in enumerate(GROUPS):
        z, auc = stratified(values, [of_first == group, of_second == group])
        np.testing.assert_allclose(found.z[place, column], z, rtol=1e-9)
        np.testing.assert_allclose(found.auc[place, column], auc, rtol=1e-9)
    one_only = found.genes.index[found.genes["n_samples"] == 1]
    np.testing.assert_array_equal(
        found.z[found.genes.index.get_indexer(one_only)], alone.z[alone.genes.index.get_indexer(one_only)]
    )


def test_ids_beside_symbols_meet_by_symbol(tmp_path: Path) -> None:
    counts, groups = draw(60, 8)
    names = [*GENES[:-1], GENES[0]]  # two ids of one symbol: the one with the higher mean speaks for it
    counts[:, -1] = counts[:, 0] + 1
    both = [write_filtered(tmp_path, "s", counts, names, ids=False)]
    var = ad.read_h5ad(both[0])
    var.var_names = pd.Index([f"ENSG{number:05d}" for number in range(60)])
    var.var["gene_id"] = var.var_names
    var.write_h5ad(both[0])
    other, of_other = draw(50, 9)
    both.append(write_filtered(tmp_path, "t", other))
    found = rank_statistics(both, {"cluster": series(both, [groups, of_other])})
    assert set(found.genes.index) == set(GENES)
    assert found.genes["n_samples"].value_counts().to_dict() == {2: 59, 1: 1}
    row = found.genes.index.get_loc("G0")
    normalised = [ad.read_h5ad(path).to_df().to_numpy() for path in both]
    z, _ = stratified([normalised[0][:, [59]], normalised[1][:, [0]]], [groups == "a", of_other == "a"])
    assert found.z[row, 0] == pytest.approx(z[0], rel=1e-9)


def test_groups_that_never_meet_and_a_group_of_all(tmp_path: Path) -> None:
    """An atlas of two monocultures has markers by fold change, without a statistic; one cluster alone has none."""
    generator = np.random.default_rng(10)
    level = np.full(30, 2.0)
    paths = [
        write_filtered(tmp_path, "s", generator.poisson(np.where(np.arange(30) < 3, 12, level), size=(40, 30))),
        write_filtered(tmp_path, "t", generator.poisson(level, size=(30, 30))),
        write_filtered(tmp_path, "none", np.zeros((0, 30), dtype=int)),
    ]
    groups = series(paths[:2], [np.full(40, "MSC"), np.full(30, "T")])
    found = rank_genes(paths, {"cell_class": groups, "cluster": groups.map(lambda _: "0")}, n_genes=3)
    assert set(found["grouping"]) == {"cell_class"}
    msc = found[found["group"] == "MSC"]
    assert set(msc["gene"]) == {"G0", "G1", "G2"}
    assert found[["auc", "z"]].isna().all(axis=None) and (found["n_samples"] == 0).all()
    values = np.expm1(ad.read_h5ad(paths[0]).to_df())
    assert msc["mean_in"].to_numpy() == pytest.approx(values[msc["gene"]].mean().to_numpy(), rel=1e-5)
    assert (msc["detected_in"] == 1).all() and (msc["n_cells"] == 40).all()


def test_stored_zeros_are_zeros(one: tuple[Path, pd.Series]) -> None:
    path, groups = one
    expected = rank_genes([path], {"cluster": groups})
    adata = ad.read_h5ad(path)
    dense = adata.X.toarray()
    adata.X = sparse.csr_matrix((dense.ravel(), np.tile(np.arange(60), 230), np.arange(231) * 60), shape=dense.shape)
    adata.write_h5ad(path)
    pd.testing.assert_frame_equal(rank_genes([path], {"cluster": groups}), expected)
    adata.X = dense
    adata.write_h5ad(path)
    pd.testing.assert_frame_equal(rank_genes([path], {"cluster": groups}), expected)


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_values_that_cannot_be_ranked_are_refused(one: tuple[Path, pd.Series], value: float) -> None:
    path, groups = one
    adata = ad.read_h5ad(path)
    adata.X.data[7] = value
    adata.write_h5ad(path)
    with pytest.raises(UserError, match="1 values that are negative or no numbers"):
        rank_genes([path], {"cluster": groups})


def test_refusals(one: tuple[Path, pd.Series], tmp_path: Path) -> None:
    path, groups = one
    with pytest.raises(ValueError, match="'s:C3' has no group in the grouping 'cluster'"):
        rank_genes([path], {"cluster": groups.drop("s:C3")})
    with pytest.raises(UserError, match="does not exist"):
        rank_genes([tmp_path / "absent.h5ad"], {"cluster": groups})
    with pytest.raises(UserError, match="both named 's:C0'"):
        rank_genes([path, path], {"cluster": groups})
    adata = ad.read_h5ad(path)
    adata.X = sparse.csc_matrix(adata.X)
    adata.write_h5ad(path)
    with pytest.raises(UserError, match="stored as csc_matrix"):
        rank_genes([path], {"cluster": groups})


def test_one_cell_of_a_group_and_a_gene_that_is_never_found(tmp_path: Path) -> None:
    counts, _ = draw(12, 11, n_genes=5)
    counts[:, 4] = 0
    path = write_filtered(tmp_path, "s", counts)
    groups = series([path], [np.array(["a"] + ["b"] * 11)])
    found: RankStatistics = rank_statistics([path], {"cluster": groups})
    assert np.isfinite(found.z).all()
    assert found.auc[4].tolist() == [0.5, 0.5] and found.z[4].tolist() == [0, 0]
    assert found.auc[:, 0] == pytest.approx(1 - found.auc[:, 1])
