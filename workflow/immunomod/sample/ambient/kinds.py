"""What every method says of the kinds of cell in a library: the table, means over it, and whose RNA the soup is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from immunomod.exclusive import COMPARTMENT_OF, LEUKOCYTE, PARTNER, mixture_weights
from immunomod.sample.ambient.groups import MIN_CELLS, cell_groups
from immunomod.sample.ambient.method import GROUP_COLUMNS, AmbientInput
from immunomod.sample.sums import cell_sums, gene_sums

Floats = NDArray[np.float64]
MIN_GENES = 3
NO_KIND = "contamination not estimated: no kind of cell is told by its genes"


@dataclass(frozen=True)
class Kinds:
    """The kinds of cell in a library.

    Attributes
    ----------
    group
        (cells,) kind of each cell, empty where unknown.
    known
        Kinds with so many singlets that they can be looked at; the rows of ``sums`` and of the table.
    sums
        (kinds, genes) counts over each kind's singlets.
    n_singlets
        (kinds,) singlets of each kind.
    genes
        Set of exclusive genes -> (genes,) whether a gene is one of it.
    """

    group: NDArray[np.object_]
    known: list[str]
    sums: Floats
    n_singlets: NDArray[np.int64]
    genes: dict[str, NDArray[np.bool_]]


def find_kinds(data: AmbientInput) -> Kinds:
    """The kinds of cell in a library; those of fewer than :data:`MIN_CELLS` singlets stay unknown."""
    group = cell_groups(data.counts, data.symbols, data.exclusive)
    singlets = [(group == kind) & data.singlet for kind in COMPARTMENT_OF]
    known = [kind for kind, chosen in zip(COMPARTMENT_OF, singlets, strict=True) if chosen.sum() >= MIN_CELLS]
    group[~np.isin(group, known)] = ""
    genes = {name: data.symbols.isin(list(symbols)).to_numpy() for name, symbols in data.exclusive.items()}
    sums = [gene_sums(data.counts, chosen) for chosen in singlets if chosen.sum() >= MIN_CELLS]
    n_singlets = np.array([int(chosen.sum()) for chosen in singlets if chosen.sum() >= MIN_CELLS], dtype=np.int64)
    return Kinds(group, known, np.array(sums).reshape(len(known), data.counts.shape[1]), n_singlets, genes)


def empty_table(kinds: Kinds, counts: sparse.csr_matrix) -> pd.DataFrame:
    """The table of a library (:data:`GROUP_COLUMNS`): its kinds and their sizes; what is to be measured is NaN."""
    known, group = kinds.known, kinds.group
    total = cell_sums(counts)
    table = pd.DataFrame(
        {
            "group": known,
            "compartment": [COMPARTMENT_OF[kind] for kind in known],
            "n_cells": [int((group == kind).sum()) for kind in known],
            "counts": [int(total[group == kind].sum()) for kind in known],
        }
    )
    return table.reindex(columns=GROUP_COLUMNS).assign(n_exclusive_genes=0)


def exclusive_to(sources: list[str], genes: dict[str, NDArray[np.bool_]], with_leukocyte: bool) -> NDArray[np.bool_]:
    """Which genes (genes,) are in the sets of some kinds, and of all leukocytes where these are asked for."""
    names = [*sources, *([LEUKOCYTE] if with_leukocyte else [])]
    return np.asarray(np.any([genes[name] for name in names if name in genes], axis=0))


def partner_part(kinds: Kinds, soup: Floats) -> dict[str, Floats]:
    """Compartment -> the part of the soup's profile that is its partner's RNA (sums to that share of the soup).

    The soup is a mixture of the library's kinds of cell; its exclusive genes give their weights.
    """
    known, sums, genes = kinds.known, kinds.sums, kinds.genes
    total = soup.sum()
    chosen = exclusive_to(list(COMPARTMENT_OF), genes, with_leukocyte=True)
    profiles = sums / sums.sum(axis=1, keepdims=True)
    used = np.flatnonzero(chosen & (total * profiles.mean(axis=0) >= 1))
    shares = sums.sum(axis=1) / sums.sum()
    if len(used) < MIN_GENES or len(known) < 2:
        weights = shares
    else:
        weights = mixture_weights(soup[used], total * profiles[:, used], np.zeros(len(used)), shares)
        weights = weights / weights.sum() if weights.sum() > 0 else shares
    parts = weights[:, None] * profiles
    mixed = parts.sum(axis=0)
    result = {}
    for compartment, partner in PARTNER.items():
        rows = [row for row, kind in enumerate(known) if COMPARTMENT_OF[kind] == partner]
        of_partner = parts[rows].sum(axis=0)
        share = np.divide(of_partner, mixed, out=np.zeros_like(mixed), where=mixed > 0)
        result[compartment] = soup / total * share
    return result


def over_cells(table: pd.DataFrame, name: str) -> dict[str, float]:
    """Mean of a fraction over kinds, by their counts, and its standard error."""
    told = table[table[name].notna()]
    if told.empty:
        return {name: np.nan, f"{name}_se": np.nan}
    weight = told["counts"].to_numpy(dtype=np.float64)
    weight = weight / weight.sum()
    error = np.nan_to_num(told[f"{name}_se"].to_numpy(dtype=np.float64))
    return {
        name: float(weight @ told[name].to_numpy(dtype=np.float64)),
        f"{name}_se": float(np.sqrt((weight**2) @ error**2)),
    }
