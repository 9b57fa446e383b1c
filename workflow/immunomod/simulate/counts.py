"""Counts of single cells: negative-binomial molecules, doublets and leaked RNA."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp


def dispersion_trend(share: np.ndarray, dispersion: float) -> np.ndarray:
    """Dispersion of each gene of a class from its share of the molecules.

    Highly expressed genes have ``dispersion``; it doubles at 50 counts per million and grows with the inverse square
    root below, to at most eight times: the shape of the trend in droplet data (Townes et al. 2019 find counts close
    to multinomial; what is above that falls with expression).
    """
    with np.errstate(divide="ignore"):
        trend: np.ndarray = dispersion * np.minimum(1.0 + np.sqrt(50e-6 / share), 8.0)
    return trend


def draw_cells(
    share: np.ndarray, depth: np.ndarray, factor: np.ndarray, dispersion: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw cells of one class as a gamma-Poisson mixture.

    Parameters
    ----------
    share
        Shares of the genes, shape (genes,).
    depth
        Expected molecules of each cell, shape (cells,).
    factor
        What each cell's rates are multiplied by on top, of a shape that broadcasts to (cells, genes).
    dispersion
        See :func:`dispersion_trend`.

    Returns
    -------
    Counts, int32, shape (cells, genes).
    """
    counts = np.zeros((len(depth), len(share)), dtype=np.int32)
    expressed = np.flatnonzero(share > 0)
    rate = depth[:, None] * share[None, expressed] * np.broadcast_to(factor, counts.shape)[:, expressed]
    if dispersion > 0:
        phi = dispersion_trend(share[expressed], dispersion)
        rate *= rng.standard_gamma(1.0 / phi, size=rate.shape) * phi
    counts[:, expressed] = rng.poisson(rate)
    return counts


def draw_leakage(
    ambient: np.ndarray, own_depth: float, leakage: float, n_droplets: int, rng: np.random.Generator
) -> np.ndarray:
    """Molecules that leaked into droplets, int32, shape (droplets, genes).

    Every droplet of a class holds on average the same number of them, ``leakage`` of the class's molecules in all, so
    a cell with little RNA has a larger share. ``ambient``: shares of the leaked molecules, shape (genes,).
    """
    expected = own_depth * leakage / (1.0 - leakage) * ambient
    drawn: np.ndarray = rng.poisson(expected, size=(n_droplets, len(ambient)))
    return drawn.astype(np.int32)


def draw_soup(
    ambient: np.ndarray, molecules: np.ndarray, rng: np.random.Generator, at_once: int = 2000
) -> sp.csr_matrix:
    """Droplets that hold soup alone: Poisson counts around ``molecules`` (droplets,) times ``ambient`` (genes,)."""
    blocks = [
        sp.csr_matrix(rng.poisson(molecules[start : start + at_once, None] * ambient).astype(np.int32))
        for start in range(0, len(molecules), at_once)
    ]
    return sp.vstack(blocks, format="csr") if blocks else sp.csr_matrix((0, len(ambient)), dtype=np.int32)


def draw_barcodes(n: int, rng: np.random.Generator) -> list[str]:
    """``n`` distinct 16-base barcodes with the suffix of their lane."""
    barcodes: dict[str, None] = {}
    while len(barcodes) < n:
        barcodes["".join(rng.choice(list("ACGT"), 16)) + "-1"] = None
    return list(barcodes)
