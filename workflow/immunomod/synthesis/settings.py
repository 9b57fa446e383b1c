"""Settings of potency: the donor-by-donor part of the synthesis floor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from immunomod.sections import read_values, require


@dataclass(frozen=True)
class PotencySettings:
    """The ``potency`` section of the config.

    Attributes
    ----------
    n_draws
        Draws from the joint distribution of the donors' responses, behind the intervals of their ranks.
    n_permutations
        Exchanges of the measured suppression between donors, behind its p-values.
    n_bootstrap
        Simulated studies behind the intervals of the variance components.
    shared_donors
        An MSC donor that two data sets name alike is one person. Otherwise names are taken to be of a data set's own:
        ``M1`` of two GEO series are two strangers.
    """

    n_draws: int = 10_000
    n_permutations: int = 9_999
    n_bootstrap: int = 2_000
    shared_donors: bool = False

    def __post_init__(self) -> None:
        for name, lowest in (("n_draws", 100), ("n_permutations", 99), ("n_bootstrap", 100)):
            require(getattr(self, name) >= lowest, "potency", name, getattr(self, name), f"{lowest} or more")

    @classmethod
    def from_config(cls, section: Mapping[str, Any]) -> PotencySettings:
        """The settings in a config's section."""
        return cls(**read_values(cls, section, "potency"))
