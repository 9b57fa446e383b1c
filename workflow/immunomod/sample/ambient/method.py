"""What every method of ambient correction takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.float64]
GROUP_COLUMNS = [
    *("group", "compartment", "n_cells", "counts", "ambient_fraction", "ambient_fraction_se"),
    *("partner_fraction", "partner_fraction_se", "n_exclusive_genes"),
]


@dataclass(frozen=True)
class Background:
    """What a rule of its own left of a library's counts, for the cells that are looked at.

    Attributes
    ----------
    counts
        Cells x genes without background, float32; None where the rule could not do it.
    is_cell
        (cells,) whether the rule, too, takes the droplet for a cell.
    note
        In words, why there are no counts.
    """

    counts: sparse.csr_matrix | None
    is_cell: NDArray[np.bool_]
    note: str = ""


@dataclass(frozen=True)
class AmbientInput:
    """One library after its cells are called.

    Attributes
    ----------
    counts
        Cells x genes, raw counts.
    symbols
        Gene symbol of each column.
    singlet
        Per cell, whether it takes part in the estimate (doublets hold two cells, which is not leakage).
    empty_counts
        Per gene, counts over droplets without a cell; None where the library holds none.
    exclusive
        Sets of exclusive genes, by group.
    background
        What a rule of its own left of the counts, for the methods that have one.
    """

    counts: sparse.csr_matrix
    symbols: pd.Series
    singlet: NDArray[np.bool_]
    empty_counts: NDArray[np.int64] | None
    exclusive: Mapping[str, set[str]]
    background: Background | None = None


@dataclass(frozen=True)
class Contamination:
    """What a method found.

    Attributes
    ----------
    group
        Kind of each cell, empty where unknown.
    table
        One row per kind, :data:`GROUP_COLUMNS`: shares of its molecules that are ambient, and that are the other
        compartment's, with standard errors; NaN where they cannot be told.
    ambient_fraction, partner_fraction
        The same over all cells of a known kind; NaN where they cannot be told. ``*_se`` are standard errors.
    corrected
        Cells x genes: counts without what leaked, float32; None where a method corrects nothing.
    profile_from
        ``empty droplets``, ``cells`` or empty.
    note
        In words, why something could not be estimated.
    """

    group: NDArray[np.object_]
    table: pd.DataFrame
    ambient_fraction: float = np.nan
    ambient_fraction_se: float = np.nan
    partner_fraction: float = np.nan
    partner_fraction_se: float = np.nan
    corrected: sparse.csr_matrix | None = None
    profile_from: str = ""
    note: str = ""


@dataclass(frozen=True)
class Method:
    """A way to estimate and remove ambient RNA."""

    name: str
    citation: str
    needs: str
    limits: str
    run: Callable[[AmbientInput], Contamination]
