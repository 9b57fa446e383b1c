"""What a user may set about an atlas, checked once at the edge and trusted inside."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from immunomod.atlas.cluster import AUTO
from immunomod.atlas.flags import FlagSettings
from immunomod.atlas.integration.settings import IntegrationSettings
from immunomod.atlas.votes import LEVELS
from immunomod.sections import read_values, require

#: Stands for every atlas in ``annotation.overrides``.
EVERY_ATLAS = "*"
_TAKEN = ("markers", "user")


@dataclass(frozen=True)
class AnnotationSettings:
    """How clusters get their names; the marker tables themselves are an input file, not a setting.

    Attributes
    ----------
    min_confidence
        A class has to win in more than this share of the marker bootstraps (0 to below 1); otherwise its cells fall
        back to the parent class (``T`` for ``CD4_T`` against ``CD8_T``) or to ``unassigned``.
    min_score
        Lowest score (0 to 1; 1: all its markers at their highest) with which a cluster gets any name.
    n_bootstraps
        Bootstraps over marker genes behind the confidence.
    level
        ``class``: names as fine as the evidence goes; ``lineage``: classes without a parent only (``T``, not
        ``CD4_T``), for a study too small for more.
    celltypist
        CellTypist model files that are heard beside the markers, by the name under which they are.
    references
        Annotated ``.h5ad`` files that are heard too, by name: ``file``, and ``column`` of ``obs`` with the labels.
    labels
        A table of ``label`` and ``cell_class`` that says which class a label of theirs stands for, beside the shipped
        one; empty for none.
    overrides
        The user's own word on what cells are, by atlas (``*``: every one): a table (:mod:`immunomod.atlas.overrides`).
    """

    min_confidence: float = 0.5
    min_score: float = 0.2
    n_bootstraps: int = 200
    level: str = "class"
    celltypist: Mapping[str, str] = field(default_factory=dict)
    references: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    labels: str = ""
    overrides: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(0 <= self.min_confidence < 1, "annotation", "min_confidence", self.min_confidence, "from 0 to below 1")
        require(0 <= self.min_score <= 1, "annotation", "min_score", self.min_score, "from 0 to 1")
        require(self.level in LEVELS, "annotation", "level", self.level, " or ".join(LEVELS))
        require(self.n_bootstraps >= 10, "annotation", "n_bootstraps", self.n_bootstraps, "10 or more")

    @classmethod
    def from_config(cls, section: Mapping[str, Any]) -> Self:
        """Settings from the config's ``annotation`` section; ``markers`` names a folder, which is an input."""
        apart = ("markers", "overrides", "celltypist", "references")
        values = {name: value for name, value in section.items() if name not in apart}
        named = section.get("overrides") or {}
        named = {EVERY_ATLAS: named} if isinstance(named, str) else named
        is_right = isinstance(named, Mapping) and all(isinstance(part, str) for pair in named.items() for part in pair)
        require(is_right, "annotation", "overrides", named, "a file, or files by atlas such as {all: clusters.tsv}")
        models = section.get("celltypist") or {}
        models = {"celltypist": models} if isinstance(models, str) else models
        is_right = isinstance(models, Mapping) and all(isinstance(path, str) for path in models.values())
        require(is_right, "annotation", "celltypist", models, "a model file, or files by name such as {immune: m.pkl}")
        references = section.get("references") or {}
        is_right = isinstance(references, Mapping) and all(
            isinstance(one, Mapping) and set(one) == {"file", "column"} and set(map(type, one.values())) == {str}
            for one in references.values()
        )
        require(
            is_right, "annotation", "references", references,
            "files by name, such as {blood: {file: blood.h5ad, column: cell_type}}",
        )  # fmt: skip
        for name in (*models, *references):
            is_free = re.fullmatch(r"[A-Za-z0-9_]+", str(name)) is not None and name not in _TAKEN
            require(is_free, "annotation", "celltypist, references", name,
                    f"named by letters, digits and underscores, and not {' or '.join(_TAKEN)}")  # fmt: skip
        doubled = sorted(set(models) & set(references))
        require(not doubled, "annotation", "celltypist, references", ", ".join(doubled), "different names")
        return cls(
            **read_values(cls, values, "annotation"),
            celltypist=dict(models),
            references={name: dict(one) for name, one in references.items()},
            overrides=dict(named),
        )


@dataclass(frozen=True)
class AtlasSettings(IntegrationSettings):
    """How an atlas is made. Its integration is set by the keys of :class:`IntegrationSettings`.

    Attributes
    ----------
    n_variable_genes
        Genes that enter the principal components.
    n_components
        Principal components kept; fewer where there are fewer cells or genes.
    n_neighbors
        Neighbours of each cell in the graph, itself included.
    leiden_resolution
        ``auto``: of several resolutions the best separated one that is stable across seeds and subsamples; or a
        resolution, which is taken as it is.
    n_marker_genes
        Genes of each cluster and class in ``markers.tsv``, at most.
    mark_min_cells, mark_doublet_score, mark_doublet_rank, mark_doublet_max_share, mark_leaked_counts, mark_sample_share
        When a cluster is marked: see :class:`~immunomod.atlas.flags.FlagSettings`.
    annotation
        See :class:`AnnotationSettings`.
    """

    n_variable_genes: int = 2000
    n_components: int = 30
    n_neighbors: int = 15
    leiden_resolution: float | str = AUTO
    n_marker_genes: int = 50
    mark_min_cells: int = FlagSettings.min_cells
    mark_doublet_score: float = FlagSettings.doublet_score
    mark_doublet_rank: float = FlagSettings.doublet_rank
    mark_doublet_max_share: float = FlagSettings.doublet_max_share
    mark_leaked_counts: float = FlagSettings.leaked_counts
    mark_sample_share: float = FlagSettings.sample_share
    annotation: AnnotationSettings = field(default_factory=AnnotationSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.n_variable_genes >= 50, "atlas", "n_variable_genes", self.n_variable_genes, "50 or more")
        require(self.n_components >= 2, "atlas", "n_components", self.n_components, "2 or more")
        require(self.n_neighbors >= 3, "atlas", "n_neighbors", self.n_neighbors, "3 or more")
        wanted = self.leiden_resolution
        fits = wanted == AUTO if isinstance(wanted, str) else wanted > 0
        require(fits, "atlas", "leiden_resolution", wanted, "auto or a number above 0")
        require(self.n_marker_genes >= 1, "atlas", "n_marker_genes", self.n_marker_genes, "1 or more")
        _ = self.marks

    @property
    def marks(self) -> FlagSettings:
        """When a cluster is marked."""
        return FlagSettings(
            min_cells=self.mark_min_cells,
            doublet_score=self.mark_doublet_score,
            doublet_rank=self.mark_doublet_rank,
            doublet_max_share=self.mark_doublet_max_share,
            leaked_counts=self.mark_leaked_counts,
            sample_share=self.mark_sample_share,
        )

    @classmethod
    def from_config(cls, atlas: Mapping[str, Any], annotation: Mapping[str, Any] | None = None) -> Self:
        """Settings from the configuration's ``atlas`` and ``annotation`` sections."""
        return cls(**read_values(cls, atlas, "atlas"), annotation=AnnotationSettings.from_config(annotation or {}))

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values, for ``uns`` and provenance."""
        return asdict(self)
