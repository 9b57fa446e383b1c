"""Genes that only one kind of cell makes, and how much of a mixture they betray.

RNA of other cells in a droplet shows in genes that the droplet's own cell does not make. The sample floor asks with
curated genes (``resources/markers/exclusive_genes.tsv``), the contrast floor with genes that the control arm proves
absent; both measure with the two functions here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from immunomod.genes import ORGANISMS, GeneNames
from immunomod.tables import REPOSITORY, read_table

Floats = NDArray[np.float64]
SHIPPED = REPOSITORY / "resources" / "markers"
FILE = "exclusive_genes.tsv"
PARTNER = {"MSC": "immune", "immune": "MSC"}
#: The kinds of cell that are told apart within a library, each with its compartment.
COMPARTMENT_OF = {"MSC": "MSC", "T_NK": "immune", "B": "immune", "myeloid": "immune"}
#: Genes of all leukocytes: they tell immune cells from MSC, not from each other.
LEUKOCYTE = "leukocyte"
#: Residuals beyond this many standard deviations (of the bulk of the genes) are genes that the cell makes after all.
OUTLIER = 3.5
_LARGEST = 50
#: A source's weight is fitted where it has so many genes to its name.
_GENES_PER_SOURCE, _MIXTURE_ROUNDS = 5, 10


@dataclass(frozen=True)
class ExclusiveGenes:
    """The table of exclusive genes: ``group, gene_human, gene_mouse, source, verified``; current symbols."""

    table: pd.DataFrame

    def of_groups(self, organism: str) -> dict[str, set[str]]:
        """Group -> its symbols: MSC, T_NK, B, myeloid and leukocyte."""
        column = f"gene_{organism if organism in ORGANISMS else 'human'}"
        named = self.table[self.table[column] != ""]
        return {str(group): set(rows[column]) for group, rows in named.groupby("group")}

    def of_compartments(self, organism: str) -> dict[str, set[str]]:
        """Compartment -> symbols that none of the other compartment's cells makes."""
        groups = self.of_groups(organism)
        immune = [LEUKOCYTE, *(name for name, compartment in COMPARTMENT_OF.items() if compartment == "immune")]
        return {"MSC": groups.get("MSC", set()), "immune": set().union(*(groups.get(name, set()) for name in immune))}


def load_exclusive_genes(folder: str | Path = SHIPPED) -> ExclusiveGenes:
    """Read the exclusive genes of a folder of markers; the shipped ones where it has no such table.

    Raises
    ------
    UserError
        The table breaks its schema.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        path = SHIPPED / FILE
    table = read_table(path, "exclusive_genes", unique=("group", "gene_human", "gene_mouse"))
    for organism in ORGANISMS:
        names = GeneNames.load(organism)
        table[f"gene_{organism}"] = [names.symbol(name) if name else "" for name in table[f"gene_{organism}"]]
    return ExclusiveGenes(table)


def robust_fraction(observed: Floats, at_one: Floats, own: Floats) -> tuple[float, NDArray[np.bool_]]:
    """Fraction f of ``observed ~ own + f x at_one`` by counts, without genes that stand out.

    Parameters
    ----------
    observed
        Counts of each gene, shape (genes,).
    at_one
        Counts to expect if all molecules were foreign, above 0.
    own
        Counts to expect of the cell's own making.

    Returns
    -------
    f, 0 or more, and which genes were used: a gene whose Pearson residual is an outlier among the genes is one that the
    cell makes after all, or that its culture induced. The start is a weighted median of ratios, which half of the genes
    may miss.
    """
    order = np.argsort(-at_one, kind="stable")[:_LARGEST]
    start = _weighted_median((observed[order] - own[order]) / at_one[order], np.sqrt(at_one[order]))
    fraction, kept = max(0.0, start), np.ones(len(observed), dtype=bool)
    for _ in range(20):
        now = _like_most(observed, own + fraction * at_one)
        if not now.any():
            break
        updated = max(0.0, float((observed[now] - own[now]).sum() / at_one[now].sum()))
        stop = bool((now == kept).all()) and abs(updated - fraction) <= 1e-9
        fraction, kept = updated, now
        if stop:
            break
    return fraction, kept


def fraction_error(observed: Floats, at_one: Floats, own: Floats, fraction: float) -> float:
    """Standard error of a fraction: counting noise, widened where genes scatter more than counts do."""
    mean = np.maximum(own + fraction * at_one, 0.5)
    spread = max(1.0, float(np.mean((observed - own - fraction * at_one) ** 2 / mean)))
    return float(np.sqrt(spread * max(float(observed.sum()), 1.0)) / at_one.sum())


def _weighted_median(values: Floats, weights: Floats) -> float:
    order = np.argsort(values, kind="stable")
    cumulated = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(cumulated, cumulated[-1] / 2)])


def robust_mixture(observed: Floats, at_one: Floats, own: Floats, shares: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Weights of several sources in ``observed ~ own + w @ at_one`` without genes that stand out.

    Parameters
    ----------
    observed, own
        As for :func:`robust_fraction`.
    at_one
        Sources x genes: counts to expect if all molecules were a source's.
    shares
        Of the sources in what could leak, summing to 1: where the weights start, and what holds them.

    Returns
    -------
    Weights, 0 or more, and which genes were used. Outliers are judged anew by each fit: where sources leak unlike their
    shares, genes scatter around the first one, and an induced gene does not stand out of that.
    """
    pooled = shares @ at_one
    fraction, kept = robust_fraction(observed, pooled, own)
    if len(shares) == 1 or fraction == 0:
        return fraction * shares, kept
    weights = fraction * shares
    for _ in range(_MIXTURE_ROUNDS):
        if kept.sum() < _GENES_PER_SOURCE * len(shares):
            break
        weights = mixture_weights(observed[kept], at_one[:, kept], own[kept], fraction * shares)
        now = _like_most(observed, own + weights @ at_one)
        if (now == kept).all():
            break
        kept = now
    return weights, kept


def _like_most(observed: Floats, mean: Floats) -> NDArray[np.bool_]:
    """Genes whose Pearson residual is within :data:`OUTLIER` standard deviations of the bulk's."""
    residual = (observed - mean) / np.sqrt(np.maximum(mean, 0.5))
    return np.asarray(np.abs(residual) <= OUTLIER * max(1.0, 1.4826 * float(np.median(np.abs(residual)))))


def mixture_weights(observed: Floats, at_one: Floats, own: Floats, prior: Floats) -> Floats:
    """Weights w of ``observed ~ own + w @ at_one``, none below 0, each held near ``prior`` as by one observation of it.

    ``at_one``: sources x genes. Genes weigh by the inverse of their counting noise.
    """
    from scipy.optimize import nnls  # half a second to import

    scale = 1 / np.sqrt(np.maximum(own + prior @ at_one, 0.5))
    rows = np.vstack([(at_one * scale).T, np.diag(1 / np.maximum(prior, 1e-12))])
    response = np.concatenate([(observed - own) * scale, np.ones(len(prior))])
    weights, _ = nnls(rows, response)
    return np.asarray(weights)
