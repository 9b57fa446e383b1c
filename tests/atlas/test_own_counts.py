"""Votes shifted by a cell's own counts: cells that lie among others, counts that say nothing, classes too rare."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from immunomod.atlas.annotate import annotate
from immunomod.atlas.markers import MarkerSet
from immunomod.atlas.own_counts import with_own_counts
from immunomod.atlas.settings import AnnotationSettings
from immunomod.atlas.votes import Votes

# molecules of four genes per 10,000 counts in three classes
RATES = np.array([[20.0, 4, 0.5, 0.5], [0.5, 4, 20, 0.5], [0.5, 4, 0.5, 20]])
DEPTH = 0.3


def drawn(classes: list[int], seed: int = 1) -> tuple[sparse.csr_matrix, np.ndarray]:
    counts = np.random.default_rng(seed).poisson(RATES[classes] * DEPTH).astype(np.float32)
    return sparse.csr_matrix(counts), np.full(len(classes), DEPTH)


def ring(groups: np.ndarray) -> sparse.csr_matrix:
    """Every cell has all cells of its group for neighbours."""
    same = (groups[:, None] == groups[None, :]).astype(np.float32)
    np.fill_diagonal(same, 0)
    return sparse.csr_matrix(same)


def votes(shares: np.ndarray) -> Votes:
    return Votes("markers", shares.astype(np.float32), np.ones(shares.shape[1], dtype=bool))


def test_cells_among_those_of_another_class_are_told_by_their_counts() -> None:
    classes = np.repeat([0, 1, 0, 1], [60, 60, 30, 10])
    groups = np.repeat([0, 1, 2], [60, 60, 40])
    counts, depth = drawn(classes.tolist())
    first = np.eye(3)[groups % 2] * 0.96 + 0.02 * np.array([1, 1, 0])  # the ten lie among the thirty and pass for them
    found = with_own_counts(votes(first), counts, depth, ring(groups)).shares
    assert (first.argmax(axis=1) == classes).sum() == 150
    assert (found.argmax(axis=1) == classes).mean() > 0.97
    np.testing.assert_allclose(found.sum(axis=1), first.sum(axis=1), rtol=1e-5)


def test_counts_without_a_word_on_the_class_leave_unsure_cells_unsure() -> None:
    """Two classes with the same rates: no round makes a choice where there is none."""
    counts, depth = drawn([0] * 200)
    share = np.tile([0.55, 0.45, 0.0], (200, 1))
    share[100:] = [0.45, 0.55, 0.0]
    found = with_own_counts(votes(share), counts, depth, ring(np.zeros(200, dtype=int))).shares
    assert np.abs(found - share).max() < 0.15 and found[:, :2].min() > 0.35


def test_what_cannot_be_learned_stays_as_it_is() -> None:
    counts, depth = drawn([0] * 40 + [1] * 40 + [2] * 5 + [0] * 3)
    share = np.repeat(np.eye(3), [40, 40, 8], axis=0)
    share[85:] = 0
    found = with_own_counts(votes(share), counts, depth, ring(np.repeat([0, 1, 2], [40, 40, 8]))).shares
    np.testing.assert_allclose(found[80:85], share[80:85])  # five sure cells are too few for rates
    assert (found[85:] == 0).all()  # a silent cell stays silent
    one_class = votes(np.tile([1.0, 0, 0], (88, 1)))
    np.testing.assert_array_equal(
        with_own_counts(one_class, counts, depth, ring(np.zeros(88, dtype=int))).shares, one_class.shares
    )


def test_cells_without_counts_or_neighbours_keep_a_class() -> None:
    counts, depth = drawn([0] * 40 + [1] * 40)
    counts, depth = (
        sparse.csr_matrix(counts.multiply((np.arange(80) != 3)[:, None])),
        np.where(np.arange(80) == 3, 0, depth),
    )
    share = np.repeat(np.eye(3)[:2], 40, axis=0)
    found = with_own_counts(votes(share), counts, depth, sparse.csr_matrix((80, 80), dtype=np.float32)).shares
    assert np.isfinite(found).all() and (found.argmax(axis=1) == np.repeat([0, 1], 40)).all()


@pytest.mark.parametrize("n_killer", [15, 40])
def test_killer_cells_in_a_group_of_cd8_t_cells(
    draw_counts: Callable[..., tuple[sparse.csr_matrix, list[str]]], markers: MarkerSet, n_killer: int
) -> None:
    classes = ["CD8_T"] * 80 + ["NK"] * n_killer + ["NK"] * 40 + ["CD4_T"] * 40 + ["B"] * 40
    groups = np.repeat([0, 1, 2, 3], [80 + n_killer, 40, 40, 40])
    counts, genes = draw_counts(classes, seed=8)
    counts = counts.toarray()
    total = counts.sum(axis=1)
    expression = sparse.csr_matrix(np.log1p(counts / total[:, None] * 1e4), dtype=np.float32)
    given = (expression, pd.Index(genes), ring(groups), groups, markers, "human", AnnotationSettings(), 1)
    by_region = annotate(*given).cell_class == classes
    found = annotate(*given, total_counts=total).cell_class == classes
    assert by_region[80 : 80 + n_killer].mean() < 0.5
    assert found.mean() > 0.99
    # where one sample's file lacks all genes, nothing is learned from counts
    nowhere = annotate(*given, total_counts=total, is_everywhere=np.zeros(len(genes), dtype=bool))
    assert ((nowhere.cell_class == classes) == by_region).all()
