"""Names on synthetic cells whose class is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from immunomod.atlas.annotate import Annotation, annotate, class_scores, relative_levels, smooth
from immunomod.atlas.markers import MarkerSet, MarkerWeights
from immunomod.atlas.settings import AnnotationSettings
from immunomod.atlas.votes import ClassTree, Votes

Draw = Callable[..., tuple[sparse.csr_matrix, list[str]]]
COCULTURE = ["MSC", "MSC_licensed", "CD4_T", "CD8_T", "NK", "B", "CD14_monocyte", "CD16_monocyte", "DC", "plasma"]


def within_groups(groups: np.ndarray) -> sparse.csr_matrix:
    same = (groups[:, None] == groups[None, :]).astype(np.float32)
    np.fill_diagonal(same, 0)
    return sparse.csr_matrix(same)


def named(draw: Draw, markers: MarkerSet, classes: list[str], organism: str = "human", **options: float) -> Annotation:
    """Annotate 20 cells of each class, one group per class."""
    groups = np.repeat(np.arange(len(classes)), 20)
    counts, genes = draw([classes[group] for group in groups], seed=1, organism=organism)
    total = np.asarray(counts.sum(axis=1))
    expression = sparse.csr_matrix(np.log1p(counts.toarray() / total * 1e4), dtype=np.float32)
    settings = AnnotationSettings(**options)  # type: ignore[arg-type]
    return annotate(expression, pd.Index(genes), within_groups(groups), groups, markers, organism, settings, seed=1)


def test_every_class_of_a_coculture_gets_its_name(draw_counts: Draw, markers: MarkerSet) -> None:
    found = named(draw_counts, markers, COCULTURE)
    expected = [name.removesuffix("_licensed") for name in COCULTURE]
    assert found.groups["cell_class"].tolist() == expected
    assert (found.groups["confidence"] > 0.9).all()
    assert (found.cell_class == np.repeat(expected, 20)).all()
    assert found.cell_confidence.min() > 0.8


@pytest.mark.parametrize("only", ["MSC", "MSC_licensed", "CD4_T", "B"])
def test_an_atlas_of_one_class_is_named(draw_counts: Draw, markers: MarkerSet, only: str) -> None:
    found = named(draw_counts, markers, [only, only])
    assert set(found.cell_class) == {only.removesuffix("_licensed")}


def test_mouse_cells_are_named_by_mouse_symbols(draw_counts: Draw, markers: MarkerSet) -> None:
    classes = ["MSC", "CD4_T", "CD8_T", "NK", "B", "CD14_monocyte", "CD16_monocyte", "DC"]
    assert named(draw_counts, markers, classes, "mouse").groups["cell_class"].tolist() == classes


def test_cells_that_no_marker_knows_are_unassigned(draw_counts: Draw, markers: MarkerSet) -> None:
    found = named(draw_counts, markers, ["epithelium", "MSC", "CD4_T", "NK", "B"])
    assert found.groups["cell_class"].tolist() == ["unassigned", "MSC", "CD4_T", "NK", "B"]
    assert "no class's markers reach a score" in found.groups.loc[0, "reason"]


def test_t_cells_without_cd4_or_cd8_genes_are_t_cells(draw_counts: Draw, markers: MarkerSet) -> None:
    """With the genes that tell CD4 from CD8 T cells gone, only the lineage is sure."""
    shared_genes = {"CD3D", "CD3E", "CD3G", "TRAC", "CD2"}
    own = markers.markers["gene_human"].isin(shared_genes) | ~markers.markers["cell_class"].isin(["CD4_T", "CD8_T"])
    unspecific = MarkerSet(markers.classes, markers.markers[own])
    found = named(draw_counts, unspecific, ["CD4_T", "NK", "B", "MSC"])
    assert found.groups["cell_class"].tolist() == ["T", "NK", "B", "MSC"]
    assert found.groups.loc[0, "confidence"] > 0.95
    assert (found.cell_class[:20] == "T").all() and found.cell_confidence[:20].min() > 0.9


def test_ambiguous_groups_have_low_confidence(draw_counts: Draw, markers: MarkerSet) -> None:
    """Half CD4, half CD8 T cells in one group: the class is less sure than in pure groups, the lineage is sure."""
    classes = ["CD4_T"] * 10 + ["CD8_T"] * 10 + ["CD4_T"] * 20 + ["CD8_T"] * 20 + ["B"] * 20
    counts, genes = draw_counts(classes, seed=4)
    expression = sparse.csr_matrix(np.log1p(counts.toarray() / counts.sum(axis=1) * 1e4), dtype=np.float32)
    groups = np.repeat([0, 1, 2, 3], 20)
    found = annotate(
        expression, pd.Index(genes), within_groups(groups), groups, markers, "human",
        AnnotationSettings(min_confidence=0.9), seed=1,
    )  # fmt: skip
    assert found.groups["cell_class"].tolist() == ["T", "CD4_T", "CD8_T", "B"]
    assert "sure of the lineage only" in found.groups.loc[0, "reason"]


def active_cd4(draw: Draw, markers: MarkerSet, n_regulatory: int, n_active: int) -> Annotation:
    """CD4 T cells at rest, activated ones that make what regulatory ones make too, and regulatory ones."""
    classes = ["CD4_T"] * (60 + n_active) + ["Treg"] * n_regulatory + ["CD8_T"] * 40 + ["B"] * 40
    counts, genes = draw(classes, seed=6)
    counts, at = counts.toarray(), {gene: number for number, gene in enumerate(genes)}
    generator = np.random.default_rng(9)
    active = slice(60, 60 + n_active)
    for gene, mean in (
        ("IL2RA", 9),
        ("CTLA4", 9),
        ("TIGIT", 5),
        ("CD40LG", 12),
        ("IL2", 9),
        ("FOXP3", 3),
        ("IKZF2", 1),
    ):
        counts[active, at[gene]] = generator.poisson(mean, n_active)
    expression = sparse.csr_matrix(np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4), dtype=np.float32)
    groups = np.repeat([0, 1, 2, 3, 4], [60, n_active, n_regulatory, 40, 40])
    groups = np.unique(groups, return_inverse=True)[1]
    return annotate(
        expression, pd.Index(genes), within_groups(groups), groups, markers, "human", AnnotationSettings(), 1
    )


def test_regulatory_t_cells_are_told_from_activated_ones(draw_counts: Draw, markers: MarkerSet) -> None:
    found = active_cd4(draw_counts, markers, n_regulatory=30, n_active=40)
    assert found.groups["cell_class"].tolist() == ["CD4_T", "CD4_T", "Treg", "CD8_T", "B"]
    assert (found.cell_class[100:130] == "Treg").all()


def test_activated_t_cells_alone_are_not_regulatory(draw_counts: Draw, markers: MarkerSet) -> None:
    """No regulatory cell sets the highest level of FOXP3: activated cells do."""
    found = active_cd4(draw_counts, markers, n_regulatory=0, n_active=40)
    assert found.groups["cell_class"].tolist() == ["CD4_T", "CD4_T", "CD8_T", "B"]


def test_without_what_makes_them_so_no_cell_is_regulatory(draw_counts: Draw, markers: MarkerSet) -> None:
    counts, genes = draw_counts(["Treg"] * 30 + ["B"] * 30, seed=2)
    kept = ~np.isin(genes, ["FOXP3", "IKZF2", "RTKN2", "IL2RA"])
    counts = counts.toarray()[:, kept]
    expression = sparse.csr_matrix(np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4), dtype=np.float32)
    groups = np.repeat([0, 1], 30)
    found = annotate(
        expression, pd.Index(genes)[kept], within_groups(groups), groups, markers, "human", AnnotationSettings(), 1
    )
    assert found.groups["cell_class"].tolist() == ["CD4_T", "B"]


def votes_for(markers: MarkerSet, said: list[str], witness: str = "other", knows: tuple[str, ...] = ()) -> Votes:
    names = ClassTree.of(markers).names
    shares = np.array([[float(name == one) for name in names] for one in said], dtype=np.float32)
    return Votes(witness, shares, np.isin(names, [*said, *knows]))


def consensus(draw: Draw, markers: MarkerSet, classes: list[str], *others: Votes, **options: str) -> Annotation:
    groups = np.repeat(np.arange(len(classes)), 20)
    counts, genes = draw([classes[group] for group in groups], seed=1)
    expression = sparse.csr_matrix(np.log1p(counts.toarray() / counts.sum(axis=1) * 1e4), dtype=np.float32)
    return annotate(
        expression, pd.Index(genes), within_groups(groups), groups, markers, "human",
        AnnotationSettings(**options), 1, others,  # type: ignore[arg-type]
    )  # fmt: skip


def test_a_witness_of_blood_is_not_heard_on_stromal_cells(draw_counts: Draw, markers: MarkerSet) -> None:
    """A reference without MSC calls them something; that it cannot know."""
    said = ["CD14_monocyte"] * 20 + ["NK"] * 20 + ["B"] * 20
    found = consensus(draw_counts, markers, ["MSC", "NK", "B"], votes_for(markers, said))
    assert found.groups["cell_class"].tolist() == ["MSC", "NK", "B"]
    assert found.cell_confidence[:20].min() > 0.9
    heard = consensus(draw_counts, markers, ["MSC", "NK", "B"], votes_for(markers, said, knows=("MSC",)))
    assert heard.groups["cell_class"].tolist() == ["unassigned", "NK", "B"]
    assert "wins only" in heard.groups["reason"][0]


def test_a_witness_names_what_no_marker_knows(draw_counts: Draw, markers: MarkerSet) -> None:
    said = ["pDC"] * 20 + ["NK"] * 20
    found = consensus(draw_counts, markers, ["epithelium", "NK"], votes_for(markers, said))
    assert found.groups["cell_class"].tolist() == ["pDC", "NK"]
    assert set(found.said) == {"markers", "other"} and set(found.said["markers"][:20]) == {"unassigned"}


def test_two_witnesses_overrule_the_markers(draw_counts: Draw, markers: MarkerSet) -> None:
    said = ["CD8_T"] * 20 + ["B"] * 20
    votes = [votes_for(markers, said, witness, knows=("NK",)) for witness in ("one", "two")]
    found = consensus(draw_counts, markers, ["NK", "B"], *votes)
    assert found.groups["cell_class"].tolist() == ["CD8_T", "B"]
    assert found.groups["witnesses"][0] == "markers: NK 1.00; one: CD8_T 1.00; two: CD8_T 1.00"


def test_names_may_stop_at_the_lineage(draw_counts: Draw, markers: MarkerSet) -> None:
    found = consensus(draw_counts, markers, ["CD4_T", "CD16_monocyte", "plasma", "NK"], level="lineage")
    assert found.groups["cell_class"].tolist() == ["T", "monocyte", "B", "NK"]
    assert found.groups["reason"][0].startswith("annotation.level is lineage; CD4_T wins")


def test_nothing_to_go_by_is_unassigned(markers: MarkerSet) -> None:
    groups = np.array([0, 0, 1])
    found = annotate(
        sparse.csr_matrix((3, 1), dtype=np.float32), pd.Index(["ACTB"]), within_groups(groups), groups, markers,
        "human", AnnotationSettings(), seed=1,
    )  # fmt: skip
    assert set(found.cell_class) == {"unassigned"} and (found.cell_confidence == 0).all()


def test_scores_by_hand() -> None:
    weights = MarkerWeights(
        np.arange(3), ("A", "B"), np.array([[1.0, 0], [3.0, 0], [0, 2.0]]), np.array([[0, 1.0], [0, 1.0], [0, 0]])
    )
    levels = np.array([[1.0, 0.5, 0.2]])
    np.testing.assert_allclose(class_scores(levels, weights), [[(1 + 3 * 0.5) / 4, 0.2 - (1 + 0.5) / 2]])


def test_smoothing_averages_neighbors_and_keeps_constants() -> None:
    weights = sparse.csr_matrix(np.array([[0, 1.0, 0], [1.0, 0, 0], [0, 0, 0]], dtype=np.float32))
    values = np.array([[2.0, 5.0], [0.0, 5.0], [7.0, 5.0]], dtype=np.float32)
    np.testing.assert_allclose(smooth(values, weights, 1), [[1, 5], [1, 5], [7, 5]])


def test_levels_of_a_gene_that_no_cell_expresses_stay_near_zero() -> None:
    noise = np.zeros((100, 2), dtype=np.float32)
    noise[:3, 0] = 0.02
    noise[:50, 1] = 3.0
    levels = relative_levels(noise)
    assert levels[:, 0].max() < 0.1 and levels[:50, 1].min() > 0.9
