"""Settings of the contrast floor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from immunomod.sections import read_values, require

#: Names in :data:`immunomod.contrast.genes.REGISTRY`, which is not imported for a look at the config.
GENE_METHODS = ("deseq2", "limma_trend")


@dataclass(frozen=True)
class ContrastSettings:
    """The ``contrast`` section of the config.

    Attributes
    ----------
    min_cells
        A replicate (donor and arm) with fewer cells of the class is left out.
    min_genes
        A programme with fewer detected genes gets no score.
    min_count
        A gene is detected when its mean count per replicate, at the depth of the shallower arm, reaches this in the
        arm that expresses it more; ``scores`` gives the evidence for the number.
    n_random_sets
        Matched random gene sets behind ``null_z``.
    max_permutations
        Sign flips or relabellings are enumerated up to this many, and drawn at random beyond.
    confidence
        Level of the intervals.
    communication_min_cpm
        A ligand or receptor is expressed where it reaches this many counts per million in the arm that expresses it
        more.
    correct_leakage
        Take the expected leaked partner RNA out of the pseudobulks; without it ``effect`` equals ``effect_raw``.
    gene_method
        The model of genes: ``deseq2`` or ``limma_trend`` (:data:`immunomod.contrast.genes.REGISTRY`).
    allow_unreplicated
        Run a contrast although the sheet gives an arm one donor only: estimates without p-values. It is a mistake
        otherwise, found before the run.
    """

    min_cells: int = 10
    min_genes: int = 5
    min_count: float = 3.0
    n_random_sets: int = 500
    max_permutations: int = 10_000
    confidence: float = 0.95
    communication_min_cpm: float = 10.0
    correct_leakage: bool = True
    gene_method: str = "deseq2"
    allow_unreplicated: bool = False

    def __post_init__(self) -> None:
        for name, lowest in (("min_cells", 1), ("min_genes", 1), ("n_random_sets", 2), ("max_permutations", 1)):
            require(getattr(self, name) >= lowest, "contrast", name, getattr(self, name), f"{lowest} or more")
        require(0 < self.confidence < 1, "contrast", "confidence", self.confidence, "between 0 and 1")
        for name in ("min_count", "communication_min_cpm"):
            require(getattr(self, name) > 0, "contrast", name, getattr(self, name), "above 0")
        known = " or ".join(GENE_METHODS)
        require(self.gene_method in GENE_METHODS, "contrast", "gene_method", self.gene_method, known)

    @classmethod
    def from_config(cls, section: Mapping[str, Any]) -> ContrastSettings:
        """The settings in a config's section."""
        return cls(**read_values(cls, section, "contrast"))
