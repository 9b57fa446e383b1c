"""From votes to classes: small cases by hand, and a brute force of the rule over random votes."""

from __future__ import annotations

import numpy as np
import pytest

from immunomod.atlas.markers import MarkerSet
from immunomod.atlas.votes import ClassTree, Votes, decide


@pytest.fixture(scope="module")
def tree(markers: MarkerSet) -> ClassTree:
    return ClassTree.of(markers)


def said(tree: ClassTree, *, knows: tuple[str, ...] = (), witness: str = "w", **shares: float) -> Votes:
    """One row of votes; a witness knows what it votes for, and ``knows``."""
    row = np.array([[shares.get(name, 0.0) for name in tree.names]], dtype=np.float32)
    return Votes(witness, row, np.array([name in shares or name in knows for name in tree.names]))


def named(tree: ClassTree, *votes: Votes, level: str = "class", least: float = 0.5) -> tuple[str, float]:
    found = decide(votes, tree, least, level)
    return tree.names[found.chosen[0]], round(float(found.confidence[0]), 3)


def test_the_tree_is_that_of_the_table(tree: ClassTree) -> None:
    below = {name for name, own in zip(tree.names, tree.within[:, tree.names.index("T")], strict=True) if own}
    assert below == {"T", "CD4_T", "CD8_T", "Treg"}
    assert tree.within.sum() == len(tree.names) + 7 + 1  # itself, seven with a parent, one with a grandparent


def test_one_witness_leads_as_deep_as_it_is_sure(tree: ClassTree) -> None:
    assert named(tree, said(tree, CD4_T=0.9, CD8_T=0.1)) == ("CD4_T", 0.9)
    assert named(tree, said(tree, CD4_T=0.5, CD8_T=0.5)) == ("T", 1.0)
    assert named(tree, said(tree, Treg=0.7, CD4_T=0.2, CD8_T=0.1)) == ("Treg", 0.7)
    assert named(tree, said(tree, Treg=0.4, CD4_T=0.5, CD8_T=0.1)) == ("CD4_T", 0.9)
    assert named(tree, said(tree, B=0.4, plasma=0.6)) == ("plasma", 0.6)
    assert named(tree, said(tree, B=0.3, plasma=0.4, pDC=0.3))[0] == "B"


def test_without_most_of_the_votes_no_lineage_is_given(tree: ClassTree) -> None:
    assert named(tree, said(tree, CD4_T=0.4, NK=0.3, B=0.3))[0] == "unassigned"
    assert named(tree, said(tree, knows=("NK",))) == ("unassigned", 0.0)


def test_a_witness_that_knows_the_parent_only_is_silent_below(tree: ClassTree) -> None:
    fine = said(tree, CD4_T=0.9, CD8_T=0.1)
    assert named(tree, fine, said(tree, T=1.0)) == ("CD4_T", 0.9)
    # one that could have said CD8 and says T is not sure of either
    assert named(tree, fine, said(tree, T=1.0, knows=("CD8_T",))) == ("T", 1.0)


def test_two_against_one(tree: ClassTree) -> None:
    one, two = said(tree, NK=1.0), said(tree, CD8_T=0.8, NK=0.2)
    assert named(tree, one, two)[0] == "NK"
    assert named(tree, one, two, said(tree, CD8_T=1.0)) == ("CD8_T", 0.6)
    assert named(tree, one, said(tree, CD8_T=1.0))[0] == "unassigned"


def test_votes_for_no_class_count(tree: ClassTree) -> None:
    assert named(tree, said(tree, unassigned=0.9, B=0.1))[0] == "unassigned"
    assert named(tree, said(tree, unassigned=0.9), said(tree, B=1.0)) == ("B", 0.526)


def test_names_may_stop_at_the_lineage(tree: ClassTree) -> None:
    assert named(tree, said(tree, CD4_T=0.9, CD8_T=0.1), level="lineage") == ("T", 1.0)
    assert named(tree, said(tree, pDC=1.0), level="lineage") == ("pDC", 1.0)


def test_of_a_lineage_without_a_common_class_the_likelier_is_named(tree: ClassTree) -> None:
    assert named(tree, said(tree, DC=0.45, pDC=0.35, B=0.2)) == ("DC", 0.45)


def test_rows_are_judged_alone(tree: ClassTree) -> None:
    generator = np.random.default_rng(2)
    rows = generator.dirichlet(np.full(len(tree.names), 0.15), size=300).astype(np.float32)
    everything = np.ones(len(tree.names), dtype=bool)
    together = decide([Votes("w", rows, everything)], tree, 0.5)
    for number, row in enumerate(rows):
        alone = decide([Votes("w", row[None], everything)], tree, 0.5)
        assert alone.chosen[0] == together.chosen[number]
    assert len(set(together.chosen)) > 8


def test_a_named_class_has_most_of_the_votes_within_it(tree: ClassTree) -> None:
    """By brute force over one witness that knows everything: the deepest class with more than half, if any."""
    generator = np.random.default_rng(3)
    everything = np.ones(len(tree.names), dtype=bool)
    for row in generator.dirichlet(np.full(len(tree.names), 0.1), size=400).astype(np.float32):
        within = row @ tree.within
        deep = [c for c in range(len(tree.names)) if within[c] > 0.5001 and c != tree.unassigned]
        expected = max(deep, key=lambda c: tree.within[c].sum()) if deep else None
        found = decide([Votes("w", row[None], everything)], tree, 0.5).chosen[0]
        if expected is not None:
            assert found == expected
        else:  # a lineage of several classes without a common one (DC and pDC) may still be sure
            lineage = tree.of_lineage[found].argmax()
            assert found == tree.unassigned or (row @ tree.of_lineage)[lineage] > 0.5
