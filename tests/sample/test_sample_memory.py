"""What the sample floor does to spend less time and memory changes no number."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from immunomod.sample.doublets import scrublet
from immunomod.sample.process import _rows_of_both, log_normalise
from immunomod.sample.scores import univariate_linear_model


@pytest.fixture
def library() -> sparse.csr_matrix:
    """500 cells of three kinds x 400 genes, the last two of which hold no count."""
    rng = np.random.default_rng(5)
    profile = rng.gamma(0.4, 1.0, (3, 400))
    profile[:, -2:] = 0
    kind = rng.integers(0, 3, 500)
    depth = rng.lognormal(0, 0.3, (500, 1))
    return sparse.csr_matrix(rng.poisson(depth * profile[kind]).astype(np.int32))


def test_components_of_the_sparse_matrix_are_those_of_the_covariance(library):
    values = library.astype(np.float64)
    dense = values.toarray() - values.toarray().mean(axis=0)
    loadings = scrublet._loadings(values, np.asarray(values.mean(axis=0)).ravel())
    _, vectors = np.linalg.eigh(dense.T @ dense)
    expected = vectors[:, ::-1][:, : scrublet.N_COMPONENTS]
    assert np.linalg.svd(loadings.T @ expected, compute_uv=False).min() > 1 - 1e-6
    np.testing.assert_allclose(np.abs((loadings * expected).sum(axis=0))[:2], 1, atol=1e-6)
    again = scrublet._loadings(values, np.asarray(values.mean(axis=0)).ravel())
    np.testing.assert_array_equal(loadings, again)


def test_components_of_a_matrix_without_variance_are_found_all_the_same():
    constant = sparse.csr_matrix(np.ones((400, 350)))
    assert np.isfinite(scrublet._loadings(constant, np.ones(350))).all()


def test_scores_that_look_at_weighted_genes_alone_are_least_squares_t_values(library):
    expression = log_normalise(library)
    weights = np.zeros((400, 2))
    weights[3:20, 0], weights[10:40, 1] = 1.0, np.where(np.arange(30) % 2, 1.0, -0.5)
    scores = univariate_linear_model(expression, weights)
    dense = expression.toarray().astype(np.float64)
    for cell in (0, 7, 499):
        for program in range(2):
            design = np.column_stack([np.ones(400), weights[:, program]])
            slope, residual, *_ = np.linalg.lstsq(design, dense[cell], rcond=None)
            error = np.sqrt(residual[0] / 398 * np.linalg.inv(design.T @ design)[1, 1])
            np.testing.assert_allclose(scores[cell, program], slope[1] / error, rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_normalised_counts_are_float32_and_share_places(library, dtype):
    counts = library.astype(dtype)
    found = log_normalise(counts)
    assert found.dtype == np.float32
    assert np.may_share_memory(found.indices, counts.indices)
    dense = counts.toarray().astype(np.float64)
    np.testing.assert_allclose(found.toarray(), np.log1p(1e4 * dense / dense.sum(axis=1, keepdims=True)), rtol=1e-5)


@pytest.mark.parametrize("share", [True, False])
def test_rows_of_two_matrices(library, share):
    corrected = sparse.csr_matrix((library.data * np.float32(0.9), library.indices, library.indptr), library.shape)
    if not share:
        corrected.data[::3] = 0
        corrected = corrected.copy()
        corrected.eliminate_zeros()
    chosen = np.arange(500) % 3 > 0
    one, other = _rows_of_both(library, corrected, chosen)
    assert np.may_share_memory(one.indices, other.indices) == share
    np.testing.assert_array_equal(one.toarray(), library.toarray()[chosen])
    np.testing.assert_array_equal(other.toarray(), corrected.toarray()[chosen])
    whole, same = _rows_of_both(library, corrected, np.ones(500, dtype=bool))
    assert whole is library
    np.testing.assert_array_equal(same.toarray(), corrected.toarray())
    assert _rows_of_both(library, None, chosen)[1] is None
