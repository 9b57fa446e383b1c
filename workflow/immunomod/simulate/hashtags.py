"""Simulated hashtag counts of a pooled lane, with what was in each droplet.

A droplet holds no stained cell, one, or two. Free antibody is in every droplet, in proportion to how well the droplet
captures (the same for all its tags); how strongly a cell is stained varies between tags, between cells, and with the
size of the cell: stromal cells carry several times a lymphocyte's antigen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from immunomod.simulate.streams import stream


@dataclass(frozen=True)
class HashtagPool:
    """What is pooled, and how well it is stained.

    Attributes
    ----------
    shares
        Share of the cells that each hashtag stains; 0 for a tag that was not used. They are scaled to sum to 1.
    signal, signal_spread
        Median counts of a stained lymphocyte's tag, and the standard deviation of their log between tags.
    background, background_spread
        The same for what a droplet catches of a tag that is not its cell's.
    cell_spread, capture_spread
        Standard deviation of log staining between cells, and of log capture between droplets.
    stain_shape
        Distribution of staining between cells: ``lognormal``, or ``gamma`` of the same variance of logs (nearly), which
        has a longer tail of weakly stained cells.
    doublets, unstained
        Share of droplets with two cells (of any tags), and of cells without a stain.
    large_cells, large_size
        Share of cells that are stained ``large_size`` times as strongly, as stromal cells are.
    """

    n_droplets: int = 3000
    shares: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    signal: float = 200.0
    signal_spread: float = 0.6
    background: float = 5.0
    background_spread: float = 0.6
    cell_spread: float = 0.5
    capture_spread: float = 0.35
    doublets: float = 0.08
    unstained: float = 0.04
    large_cells: float = 0.0
    large_size: float = 6.0
    stain_shape: str = "lognormal"


@dataclass(frozen=True)
class SimulatedHashtags:
    """Counts (droplets x hashtags, int32), and per droplet: ``hashtag`` (empty unless one tag alone stains it),
    ``status`` (``singlet``, ``doublet`` of two tags, ``negative``), ``donor`` (by genotype: also of cells without
    stain; empty for two donors), ``genotype`` (``singlet`` or ``doublet`` of two donors).
    """

    counts: pd.DataFrame
    truth: pd.DataFrame


def simulate_hashtags(pool: HashtagPool, seed: int, donors: Sequence[str] = ()) -> SimulatedHashtags:
    """Draw a lane of one donor per hashtag; ``donors`` names them (``D1``, ``D2``, ... where it is empty)."""
    random = stream(seed, "hashtags")
    shares = np.asarray(pool.shares, dtype=np.float64)
    n_tags, n = len(shares), pool.n_droplets
    of_tag = pool.signal * np.exp(random.normal(0, pool.signal_spread, n_tags))
    free = pool.background * np.exp(random.normal(0, pool.background_spread, n_tags))
    is_doublet = random.random(n) < pool.doublets
    cells = random.choice(n_tags, size=(n, 2), p=shares / shares.sum())
    is_there = np.column_stack([np.ones(n, dtype=bool), is_doublet])
    is_stained = is_there & (random.random((n, 2)) >= pool.unstained)
    size = np.where(random.random((n, 2)) < pool.large_cells, pool.large_size, 1.0)
    if pool.stain_shape == "gamma":
        between = random.gamma(1 / pool.cell_spread**2, pool.cell_spread**2, (n, 2))
    else:
        between = np.exp(random.normal(0, pool.cell_spread, (n, 2)))
    stain = of_tag[cells] * size * between * is_stained
    capture = np.exp(random.normal(0, pool.capture_spread, n))[:, None]
    expected = capture * free * random.gamma(4.0, 0.25, (n, n_tags))
    for place in range(2):
        expected[np.arange(n), cells[:, place]] += capture[:, 0] * stain[:, place]
    names = [f"HTO{number + 1}" for number in range(n_tags)]
    barcodes = pd.Index([f"{number:08d}" for number in range(n)]).map(_as_bases)
    counts = pd.DataFrame(random.poisson(expected).astype(np.int32), index=barcodes, columns=names)
    return SimulatedHashtags(counts, _truth(cells, is_there, is_stained, barcodes, names, donors))


def _truth(
    cells: NDArray[np.intp],
    is_there: NDArray[np.bool_],
    is_stained: NDArray[np.bool_],
    barcodes: pd.Index,
    names: Sequence[str],
    donors: Sequence[str],
) -> pd.DataFrame:
    tags = np.array(names, dtype=object)
    people = np.array(donors or [f"D{number + 1}" for number in range(len(names))], dtype=object)
    stained = is_stained.sum(axis=1)
    two_tags = (stained == 2) & (cells[:, 0] != cells[:, 1])
    first = np.where(is_stained[:, 0], cells[:, 0], cells[:, 1])
    status = np.where(stained == 0, "negative", np.where(two_tags, "doublet", "singlet")).astype(object)
    two_people = is_there.all(axis=1) & (cells[:, 0] != cells[:, 1])
    return pd.DataFrame(
        {
            "hashtag": np.where(status == "singlet", tags[first], ""),
            "status": status,
            "donor": np.where(two_people, "", people[cells[:, 0]]),
            "genotype": np.where(two_people, "doublet", "singlet").astype(object),
        },
        index=barcodes,
    )


def _as_bases(number: str) -> str:
    """A number as sixteen bases, unique for each."""
    digits = np.base_repr(int(number), 4).zfill(16)
    return "".join("ACGT"[int(digit)] for digit in digits) + "-1"
