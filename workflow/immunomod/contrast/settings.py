"""Settings of the contrast floor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from immunomod.errors import UserError


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
    """

    min_cells: int = 10
    min_genes: int = 5
    min_count: float = 3.0
    n_random_sets: int = 500
    max_permutations: int = 10_000
    confidence: float = 0.95

    def __post_init__(self) -> None:
        for name, lowest in (("min_cells", 1), ("min_genes", 1), ("n_random_sets", 2), ("max_permutations", 1)):
            if getattr(self, name) < lowest:
                raise UserError(f"config, contrast: {name} is {getattr(self, name)}, and must be {lowest} or more.")
        if not 0 < self.confidence < 1:
            raise UserError(f"config, contrast: confidence is {self.confidence}, and must lie between 0 and 1.")
        if self.min_count <= 0:
            raise UserError(f"config, contrast: min_count is {self.min_count}, and must be above 0.")

    @classmethod
    def from_config(cls, section: Mapping[str, Any]) -> ContrastSettings:
        """The settings in a config's section; keys that belong to others (``allow_unreplicated``) are passed over."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in section.items() if name in known})
