"""Sums in blocks equal sums over the dense matrix, whatever its type, and do not overflow."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from immunomod.sample import sums
from immunomod.sample.sums import cell_sums, detected_genes, entry_blocks, gene_set_sums, gene_sums, row_blocks


@pytest.fixture(params=[1, 7, 1 << 21])
def block_size(request, monkeypatch):
    monkeypatch.setattr(sums, "_ENTRIES_AT_ONCE", request.param)
    return request.param


@pytest.fixture(params=[np.int32, np.int64, np.uint16, np.float32])
def counts(request) -> sparse.csr_matrix:
    dense = np.random.default_rng(3).poisson(0.6, (23, 11)).astype(request.param)
    dense[[0, 5, 6, 22]] = 0
    return sparse.csr_matrix(dense)


def test_sums_equal_those_of_the_dense_matrix(counts, block_size):
    dense = counts.toarray().astype(np.float64)
    rng = np.random.default_rng(4)
    sets, cells = rng.random((11, 3)) < 0.4, rng.random(23) < 0.5
    np.testing.assert_array_equal(gene_set_sums(counts, sets), dense @ sets)
    np.testing.assert_array_equal(gene_set_sums(counts, sets[:, 0]), dense @ sets[:, 0])
    np.testing.assert_array_equal(cell_sums(counts), dense.sum(axis=1))
    np.testing.assert_array_equal(gene_sums(counts, cells), cells @ dense)
    np.testing.assert_array_equal(detected_genes(counts), dense.any(axis=0))


def test_blocks_cover_every_row_and_entry_once_without_a_copy(counts, block_size):
    rows, entries = list(row_blocks(counts)), list(entry_blocks(counts.nnz))
    np.testing.assert_array_equal(sparse.vstack([block for _, block in rows]).toarray(), counts.toarray())
    assert [part.start for part, _ in rows[1:]] == [part.stop for part, _ in rows[:-1]]
    assert all(np.may_share_memory(block.data, counts.data) for _, block in rows if block.nnz)
    np.testing.assert_array_equal(np.concatenate([counts.data[part] for part in entries]), counts.data)


def test_sums_beyond_the_matrix_type_are_exact():
    large = np.iinfo(np.int32).max
    counts = sparse.csr_matrix(np.full((3, 4), large, dtype=np.int32))
    np.testing.assert_array_equal(cell_sums(counts), np.full(3, 4 * large))
    np.testing.assert_array_equal(gene_sums(counts, np.ones(3, dtype=bool)), np.full(4, 3.0 * large))


@pytest.mark.parametrize("shape", [(0, 5), (4, 0), (0, 0), (3, 2)])
def test_nothing_to_sum(shape):
    empty = sparse.csr_matrix(shape, dtype=np.int32)
    assert cell_sums(empty).tolist() == [0] * shape[0]
    assert gene_sums(empty, np.ones(shape[0], dtype=bool)).tolist() == [0.0] * shape[1]
    assert gene_set_sums(empty, np.ones((shape[1], 2), dtype=bool)).shape == (shape[0], 2)
    assert not detected_genes(empty).any()
