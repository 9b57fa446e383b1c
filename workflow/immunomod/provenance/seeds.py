"""Where a run draws random numbers. One seed of the config feeds them all, and each rule that takes it is here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

#: Rule -> what it draws (a test holds the rules that are given a seed against this).
DRAWS: Mapping[str, str] = {
    "filter_cells": "simulated droplets of cell calling, simulated doublets, starts of mixture models",
    "build_atlas": "integration, Leiden clusters and their stability, map, bootstraps of cell classes",
    "train_scvi": "initial weights and batches of scVI",
    "test_contrast": "random gene sets, sign flips where there are too many to list",
    "test_diseases": "random gene sets, sign flips where there are too many to list",
    "rank_potency": "draws of ranks, permutations, bootstraps of variances",
}


def seed_table(config: Mapping[str, Any], rules: set[str]) -> pd.DataFrame:
    """Columns ``rule, seed, draws``, for those of ``rules`` that draw."""
    rows = [(rule, int(config["seed"]), draws) for rule, draws in DRAWS.items() if rule in rules]
    return pd.DataFrame(rows, columns=["rule", "seed", "draws"])
