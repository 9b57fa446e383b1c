"""Doublets of an MSC and an immune cell: both compartments' own genes in one droplet, beyond what leaks.

In a co-culture the partner's RNA is in every droplet, so a few of its molecules say nothing. What says something is
more of them than the other cells of the same compartment hold. Per compartment the partner-exclusive molecules of a
cell with ``n`` counts are modelled as negative binomial with mean ``a + b n`` (a droplet catches some RNA however small
its cell, and lanes are sequenced to different depths) and an overdispersion that takes in whatever else varies from
cell to cell. Both are fitted robustly to the compartment's own cells, the doublets among them.

A droplet is called where **both** compartments' genes exceed what leaks into the other: the larger of the two one-sided
p-values (an intersection-union test, Berger 1982, doi:10.1080/00401706.1982.10487790), adjusted for the number of cells
(Benjamini & Hochberg 1995), and where the excess is at least a quarter of what a typical cell of that side holds. So a
cell whose compartment is open, as a doublet's often is, is tested as any other, and one that merely got the wrong label
is not called.

Not told from a doublet: a class of cells that makes genes of both compartments, and a phagocyte that ate its partner.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from immunomod.exclusive import PARTNER
from immunomod.sample.empty_drops import benjamini_hochberg

#: With fewer cells of a compartment there is nothing to hold a cell against.
MIN_CELLS_PER_COMPARTMENT = 20
_KEPT_SHARE = 0.7
_KEPT_VARIANCE = 0.30956  # of the middle 70% of a standard normal
_MAX_ROUNDS = 50
_MAX_OVERDISPERSION = 10.0


@dataclass(frozen=True)
class Background:
    """Leaked partner-exclusive molecules of a cell with ``n`` counts: negative binomial, mean ``intercept + slope n``.

    Variance is ``mean + overdispersion * mean**2``.
    """

    intercept: float
    slope: float
    overdispersion: float

    def mean(self, totals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Expected molecules of cells with these counts (cells,)."""
        return self.intercept + self.slope * totals


@dataclass(frozen=True)
class PartnerDoublets:
    """What :func:`partner_doublets` finds, in the order of the cells.

    Attributes
    ----------
    score
        How much of a typical cell of either side is in the droplet beyond leakage: exclusive molecules over those of
        the median cell of that compartment, the smaller of both sides. About 1 for a doublet, 0 for a single cell; NaN
        where nothing was tested.
    p_value, fdr
        One-sided, NaN where nothing was tested.
    predicted
        Called doublets: about ``2 p (1 - p)`` of a lane's doublets where ``p`` of its cells are MSC.
    backgrounds
        By compartment, the leakage into its cells; empty where nothing was tested.
    note
        Why nothing was tested, in words; else empty.
    """

    score: NDArray[np.float64]
    p_value: NDArray[np.float64]
    fdr: NDArray[np.float64]
    predicted: NDArray[np.bool_]
    backgrounds: Mapping[str, Background]
    note: str


def partner_doublets(
    counts: sparse.csr_matrix,
    msc_genes: NDArray[np.bool_],
    immune_genes: NDArray[np.bool_],
    compartment: NDArray[np.object_] | NDArray[np.str_],
    expected_share: Mapping[str, float] | NDArray[np.float64] | None = None,
    overdispersion: Mapping[str, float] | None = None,
    max_fdr: float = 0.001,
    min_score: float = 0.25,
) -> PartnerDoublets:
    """Find droplets that hold an MSC and an immune cell.

    Parameters
    ----------
    counts
        cells x genes, raw counts of one library (CSR).
    msc_genes, immune_genes
        Which genes only one compartment makes (genes,).
    compartment
        ``"MSC"``, ``"immune"`` or ``""`` (open) for each cell (cells,).
    expected_share
        Share of a cell's counts that are leaked partner-exclusive counts, from an estimate of leakage: by compartment,
        or for each cell (cells,; NaN where it is not known). It raises what the compartment's own cells show, and never
        lowers it: most of them cannot be doublets.
    overdispersion
        Of the leaked counts, by compartment; raises the fitted one in the same way.
    max_fdr, min_score
        Limits of a call: false discovery rate, and score.

    Returns
    -------
    A result in any case: one compartment alone, or without exclusive genes, is not tested and says why.

    Raises
    ------
    ValueError
        If an argument does not fit the shape of ``counts``.
    """
    n_cells, n_genes = counts.shape
    label = np.asarray(compartment).astype(str)
    if len(msc_genes) != n_genes or len(immune_genes) != n_genes or len(label) != n_cells:
        raise ValueError("masks need one value per gene and compartment one per cell")
    own = {
        "MSC": _molecules(counts, np.asarray(msc_genes, dtype=bool)),
        "immune": _molecules(counts, np.asarray(immune_genes, dtype=bool)),
    }
    totals = _molecules(counts, np.ones(n_genes, dtype=bool))
    members = {side: (label == side) & (totals > 0) for side in PARTNER}
    typical = {side: float(np.median(own[side][cells])) if cells.any() else 0.0 for side, cells in members.items()}
    note = _why_not(members, typical)
    if note:
        unknown = np.full(n_cells, np.nan)
        return PartnerDoublets(unknown, unknown, unknown, np.zeros(n_cells, dtype=bool), {}, note)

    p_value, score = np.zeros(n_cells), np.full(n_cells, np.inf)
    backgrounds: dict[str, Background] = {}
    for side, partner in PARTNER.items():
        cells, leaked = members[side], own[partner]
        background = fit_background(leaked[cells], totals[cells])
        spread = max(background.overdispersion, (overdispersion or {}).get(side, 0.0))
        mean = np.maximum(background.mean(totals), _known_mean(expected_share, side, cells, totals))
        mean = np.maximum(mean, totals / totals[cells].sum())  # one molecule more could have leaked unseen
        p_value = np.maximum(p_value, negative_binomial_tail(leaked, mean, spread))
        score = np.minimum(score, np.maximum(leaked - mean, 0.0) / typical[partner])
        backgrounds[side] = background
    tested = totals > 0
    p_value[~tested], score[~tested] = np.nan, np.nan
    fdr = np.full(n_cells, np.nan)
    fdr[tested] = benjamini_hochberg(p_value[tested])
    predicted = np.zeros(n_cells, dtype=bool)
    predicted[tested] = (fdr[tested] <= max_fdr) & (score[tested] >= min_score)
    return PartnerDoublets(score, p_value, fdr, predicted, backgrounds, "")


def _known_mean(
    expected_share: Mapping[str, float] | NDArray[np.float64] | None,
    side: str,
    cells: NDArray[np.bool_],
    totals: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Leaked molecules that the caller expects in a cell of ``side``; 0 where the caller expects nothing."""
    if expected_share is None:
        return np.zeros(len(totals))
    if isinstance(expected_share, Mapping):
        return expected_share.get(side, 0.0) * totals
    return np.where(cells, np.nan_to_num(expected_share), 0.0) * totals


def _molecules(counts: sparse.csr_matrix, genes: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Counts of some genes in each cell; the vector has the matrix's type, so that nothing is copied."""
    return np.asarray(counts @ genes.astype(counts.dtype), dtype=np.float64)


def _why_not(members: Mapping[str, NDArray[np.bool_]], typical: Mapping[str, float]) -> str:
    few = [f"{int(cells.sum())} {side}" for side, cells in members.items() if cells.sum() < MIN_CELLS_PER_COMPARTMENT]
    if few:
        needed = f"cells where {MIN_CELLS_PER_COMPARTMENT} are needed"
        return f"MSC-immune doublets not looked for: {' and '.join(few)} {needed}"
    silent = [side for side, molecules in typical.items() if molecules == 0]
    if silent:
        return f"MSC-immune doublets not looked for: {' and '.join(silent)} cells show no genes of their own"
    return ""


def fit_background(leaked: NDArray[np.float64], totals: NDArray[np.float64]) -> Background:
    """Leakage into the cells of one compartment, of which three in ten may be doublets or otherwise unlike the rest.

    Doublets lie above the leakage, and at much leakage not far above: fitted with the rest they would hide themselves.
    Line and overdispersion are therefore those of the seven in ten cells that fit best (least trimmed squares, by
    concentration steps from the median share; Rousseeuw 1984, doi:10.1080/01621459.1984.10477105); fewer would leave
    out whole cell classes into which a little more leaks.

    Parameters
    ----------
    leaked, totals
        Partner-exclusive and all counts of the compartment's cells (cells,), totals above 0.
    """
    one_more = totals / totals.sum()
    background = Background(0.0, float(np.median(leaked / totals)), 0.0)
    n_kept = int(np.ceil(_KEPT_SHARE * len(leaked)))
    kept = np.zeros(0, dtype=np.int64)
    for _ in range(_MAX_ROUNDS):
        mean = np.maximum(background.mean(totals), one_more)
        variance = mean + background.overdispersion * mean**2
        now = np.sort(np.argsort((leaked - mean) ** 2 / variance, kind="stable")[:n_kept])
        if np.array_equal(now, kept):
            break
        kept = now
        line = _non_negative_line(totals[kept], leaked[kept], 1 / variance[kept])
        mean = np.maximum(line[0] + line[1] * totals, one_more)
        background = Background(*line, _overdispersion(leaked[kept], mean[kept]))
    return background


def _non_negative_line(
    x: NDArray[np.float64], y: NDArray[np.float64], weight: NDArray[np.float64]
) -> tuple[float, float]:
    """Intercept and slope, both at least 0, of the weighted least squares line."""
    total = weight.sum()
    mean_x, mean_y = (weight @ x) / total, (weight @ y) / total
    spread = weight @ (x - mean_x) ** 2
    slope = float((weight @ ((x - mean_x) * (y - mean_y))) / spread) if spread > 0 else 0.0
    intercept = float(mean_y - slope * mean_x)
    if slope < 0:
        return float(mean_y), 0.0
    if intercept < 0:
        return 0.0, float((weight @ (x * y)) / (weight @ x**2))
    return intercept, slope


def _overdispersion(counts: NDArray[np.float64], mean: NDArray[np.float64]) -> float:
    """The overdispersion, at least 0, at which Pearson's statistic is that of a normal's middle part (bisection)."""

    def excess(phi: float) -> float:
        return float(np.mean((counts - mean) ** 2 / (mean + phi * mean**2))) - _KEPT_VARIANCE

    low, high = 0.0, _MAX_OVERDISPERSION
    if excess(low) <= 0:
        return low
    if excess(high) >= 0:
        return high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return (low + high) / 2


def negative_binomial_tail(
    counts: NDArray[np.float64], mean: NDArray[np.float64], overdispersion: float
) -> NDArray[np.float64]:
    """P(X >= counts) of negative binomials with these means (above 0) and one overdispersion; Poisson where it is 0."""
    from scipy.special import betainc, gammainc

    at_least_one = np.maximum(counts, 1.0)
    if overdispersion > 0:
        size = 1 / overdispersion
        tail = betainc(at_least_one, size, mean / (mean + size))
    else:
        tail = gammainc(at_least_one, mean)
    return np.asarray(np.where(counts > 0, tail, 1.0))
