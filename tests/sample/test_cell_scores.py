"""Programme scores against decoupler's and against ordinary regression, cell by cell."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from immunomod.programs import load_programs
from immunomod.sample.scores import MIN_GENES, REGISTRY, score_programs, univariate_linear_model


@pytest.fixture
def expression() -> sparse.csr_matrix:
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(0.5, 1.0, size=(1, 120)), size=(40, 120))
    return sparse.csr_matrix(np.log1p(counts).astype(np.float32))


@pytest.fixture
def symbols() -> pd.Series:
    return pd.Series([f"G{i}" for i in range(120)])


@pytest.fixture
def weights() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    table = pd.DataFrame(0.0, index=[f"G{i}" for i in range(200)], columns=["up", "signed", "graded", "elsewhere"])
    table.loc[rng.choice(table.index[:120], 12, replace=False), "up"] = 1
    genes = rng.choice(table.index[:120], 20, replace=False)
    table.loc[genes, "signed"] = np.repeat([1.0, -1.0], 10)
    table.loc[rng.choice(table.index[:120], 9, replace=False), "graded"] = rng.normal(size=9)
    table.loc[table.index[130:150], "elsewhere"] = 1
    return table


def test_agrees_with_regression(expression, symbols, weights):
    scores = score_programs(expression, symbols, weights)
    for program in ("up", "signed", "graded"):
        x = weights[program].reindex(symbols).to_numpy()
        for cell in range(expression.shape[0]):
            fit = stats.linregress(x, expression[cell].toarray().ravel())
            assert scores.loc[cell, program] == pytest.approx(fit.slope / fit.stderr, rel=1e-4), (program, cell)


def test_agrees_with_decoupler(expression, symbols, weights):
    decoupler = pytest.importorskip("decoupler")
    net = weights.rename_axis("target").reset_index().melt("target", var_name="source", value_name="weight")
    net = net[(net["weight"] != 0) & net["target"].isin(set(symbols))]
    dense = pd.DataFrame(expression.toarray().astype(float), columns=symbols)
    dense = dense.loc[:, dense.sum() > 0]
    reference, _ = decoupler.mt.ulm(dense, net, tmin=MIN_GENES)
    scores = score_programs(expression[:, np.isin(symbols, dense.columns)], pd.Series(dense.columns), weights)
    assert set(reference.columns) == {"up", "signed", "graded"}
    np.testing.assert_allclose(scores[reference.columns], reference, rtol=2e-4, atol=1e-5)


def test_few_detected_genes_give_no_score(expression, symbols, weights):
    scores = score_programs(expression, symbols, weights)
    assert scores["elsewhere"].isna().all()
    assert scores.drop(columns="elsewhere").notna().all().all()
    genes = weights.index[weights["up"] != 0]
    silent = expression.tolil()
    silent[:, np.flatnonzero(symbols.isin(genes[MIN_GENES - 1 :]))] = 0
    scores = score_programs(sparse.csr_matrix(silent), symbols, weights)
    assert scores["up"].isna().all()
    assert scores["signed"].notna().all()


def test_opposite_signs_give_opposite_scores(expression, symbols, weights):
    one = score_programs(expression, symbols, weights[["signed"]])
    other = score_programs(expression, symbols, -weights[["signed"]])
    np.testing.assert_allclose(one, -other, rtol=1e-5)


def test_order_of_genes_and_programmes_does_not_matter(expression, symbols, weights):
    order = np.random.default_rng(2).permutation(120)
    one = score_programs(expression, symbols, weights)
    other = score_programs(expression[:, order], symbols.iloc[order].reset_index(drop=True), weights.iloc[::-1, ::-1])
    np.testing.assert_allclose(one, other[one.columns], rtol=1e-5)


def test_blocks_of_cells_do_not_matter(symbols, weights, monkeypatch, expression):
    whole = score_programs(expression, symbols, weights)
    monkeypatch.setattr("immunomod.sample.scores._ROWS_AT_ONCE", 7)
    pd.testing.assert_frame_equal(score_programs(expression, symbols, weights), whole)


def test_of_columns_of_one_symbol_the_detected_one_counts(expression, symbols, weights):
    gene = weights.index[weights["up"] != 0][0]
    absent = sparse.csr_matrix((expression.shape[0], 1), dtype=np.float32)
    doubled = sparse.csr_matrix(sparse.hstack([absent, expression]))
    names = pd.concat([pd.Series([gene]), symbols], ignore_index=True)
    renamed = names.copy()
    renamed.iloc[0] = "OTHER"
    pd.testing.assert_frame_equal(
        score_programs(doubled, names, weights), score_programs(doubled, renamed, weights), check_exact=True
    )


def test_a_cell_without_expression_has_no_score(symbols, weights):
    matrix = sparse.csr_matrix(np.vstack([np.zeros(120), np.random.default_rng(0).random(120)]))
    scores = score_programs(matrix, symbols, weights[["up"]])
    assert np.isnan(scores.loc[0, "up"])
    assert np.isfinite(scores.loc[1, "up"])


def test_no_cells_and_no_programmes(symbols, weights, expression):
    assert score_programs(expression[:0], symbols, weights).shape == (0, 4)
    assert score_programs(expression, symbols, weights[[]]).shape == (40, 0)


def test_interferon_is_seen_in_real_cells(kang_libraries):
    from immunomod.programs import load_programs
    from immunomod.sample.process import log_normalise

    weights = load_programs().weights("human")
    medians = [
        score_programs(log_normalise(adata.X), adata.var["gene_symbol"].reset_index(drop=True), weights)[
            "imm_type1_ifn"
        ].median()
        for adata, _ in kang_libraries.values()
    ]
    assert medians[1] > medians[0] + 5


def test_registry_records_are_complete():
    record = REGISTRY["ulm"]
    assert record.run is univariate_linear_model
    assert all((record.citation, record.needs, record.limits))


def test_thinning_cells_moves_ulm_less_than_a_mean_of_log_expression(shared):
    """Co-culture changes how much RNA a cell holds: a score that moves with depth would make effects of it."""
    cells = anndata.read_h5ad(shared / "data" / "kang" / "kang2000_ctrl_stim_8donors.h5ad")
    counts = sparse.csr_matrix(cells[(cells.obs["condition"] == "ctrl").to_numpy()].X)
    thinned = counts.copy()
    thinned.data = np.random.default_rng(0).binomial(thinned.data, 0.25)
    symbols = pd.Series(cells.var_names)
    weights = load_programs().weights("human")
    full, shallow = (_cp10k(matrix) for matrix in (counts, thinned))
    ulm = _shift(score_programs(full, symbols, weights), score_programs(shallow, symbols, weights))
    signed = weights.reindex(symbols).fillna(0.0)
    means = [pd.DataFrame(matrix @ signed.to_numpy(), columns=signed.columns) for matrix in (full, shallow)]
    mean_log = _shift(*means)[ulm.index]
    assert len(ulm) > 30
    assert ulm.abs().median() < 0.15
    assert ulm.abs().median() < mean_log.abs().median() / 2


def _cp10k(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    depth = np.asarray(counts.sum(axis=1)).ravel()
    return sparse.csr_matrix(counts.multiply(1e4 / np.maximum(depth, 1)[:, None])).log1p().astype(np.float32)


def _shift(full: pd.DataFrame, shallow: pd.DataFrame) -> pd.Series:
    """Mean shift of each programme's score in units of its spread (Cohen's d)."""
    spread = np.sqrt((full.var() + shallow.var()) / 2)
    return ((shallow.mean() - full.mean()) / spread).dropna()
