"""Quality of cells: metrics in one pass over the sparse counts, limits from the sample's own spread, and a verdict.

Limits follow McCarthy et al. 2017 (doi:10.1093/bioinformatics/btw777): median plus or minus a number of scaled
*median* absolute deviations, counts and genes on the scale of log(1 + x). They are held between fixed values
(:class:`immunomod.sample.settings.QcSettings`), and every limit says where it came from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from immunomod.sample.settings import QcSettings

#: Makes the median absolute deviation of normal values their standard deviation: 1 / the normal's upper quartile.
MAD_SCALE = 1.4826
#: Genes per fraction, by symbol. R's make.names turns ``MT-CO1`` into ``MT.CO1``. Ribosomal protein genes without the
#: kinases RPS6K*; haemoglobins without HBEGF and HBS1L.
GENE_PATTERNS = {
    "human": {
        "mt": re.compile(r"^MT[-.]"),
        "ribo": re.compile(r"^(RP[SL]\d+([AXL]L?|Y\d|L\d)?|RPLP[0-2]|RPSA)$"),
        "hb": re.compile(r"^HB([ABDMQZ]|A[12]|E1|G[12]|Q1)$"),
    },
    "mouse": {
        "mt": re.compile(r"^mt[-.]"),
        "ribo": re.compile(r"^(Rp[sl]\d+([axl]l?|y\d|l\d)?|Rplp[0-2]|Rpsa)$"),
        "hb": re.compile(r"^Hb[ab]-"),
    },
}
METRICS = ("total_counts", "n_genes_by_counts", "pct_counts_mt", "pct_counts_ribo", "pct_counts_hb")

Side = Literal["lower", "upper"]


@dataclass(frozen=True)
class Limit:
    """One limit on one metric.

    ``value`` is NaN where there is no limit. ``origin``: ``mad`` (the sample's own spread); where a fixed value holds
    the spread's limit, the setting's first word (``min``, ``enough``, ``spared``, ``max``); ``fixed`` (too few cells
    for a spread); ``none``. ``filter`` is the name under which cells beyond the limit are counted.
    """

    metric: str
    side: Side
    value: float
    origin: str
    filter: str

    def fails(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Cells beyond the limit; a value on it passes, and NaN on either side passes."""
        if self.side == "lower":
            return np.asarray(values < self.value)
        return np.asarray(values > self.value)


def gene_fractions(symbols: pd.Series, organism: str) -> dict[str, NDArray[np.bool_]]:
    """Which genes are mitochondrial, ribosomal and haemoglobin genes, for ``human``, ``mouse`` or (any) both."""
    species = [organism] if organism in GENE_PATTERNS else list(GENE_PATTERNS)
    return {
        name: np.array(
            [any(GENE_PATTERNS[one][name].match(symbol) for one in species) for symbol in symbols], dtype=bool
        )
        for name in ("mt", "ribo", "hb")
    }


def cell_metrics(counts: sparse.csr_matrix, symbols: pd.Series, organism: str) -> pd.DataFrame:
    """Metrics of each cell from one sparse product.

    Parameters
    ----------
    counts
        cells x genes, canonical CSR of integers.
    symbols
        Gene symbol of each column.
    organism
        ``human`` or ``mouse``; anything else tries both.

    Returns
    -------
    One row per cell: ``total_counts`` (sum), ``n_genes_by_counts`` (genes with a count), ``pct_counts_mt``,
    ``pct_counts_ribo``, ``pct_counts_hb`` (percent of the sum; 0 for a cell without counts, NaN where the sample names
    no gene of the kind).
    """
    kinds = gene_fractions(symbols, organism)
    indicator = np.column_stack([np.ones(counts.shape[1], dtype=bool), *kinds.values()]).astype(np.int64)
    sums = np.asarray(counts @ indicator, dtype=np.float64)
    metrics = pd.DataFrame({"total_counts": sums[:, 0], "n_genes_by_counts": counts.getnnz(axis=1).astype(np.int64)})
    for column, (kind, genes) in enumerate(kinds.items(), start=1):
        share = 100 * np.divide(sums[:, column], sums[:, 0], out=np.zeros(len(sums)), where=sums[:, 0] > 0)
        metrics[f"pct_counts_{kind}"] = share if genes.any() else np.nan
    return metrics


def mad_limit(values: NDArray[np.float64], n_mads: float, side: Side) -> float:
    """Median plus or minus ``n_mads`` scaled median absolute deviations."""
    median = np.median(values)
    spread = MAD_SCALE * np.median(np.abs(values - median))
    return float(median - n_mads * spread if side == "lower" else median + n_mads * spread)


def _held(value: float, low: tuple[float, str], high: tuple[float, str]) -> tuple[float, str]:
    """``value`` between two fixed values, and which of the three it is."""
    return max(low, min((value, "mad"), high, key=_first), key=_first)


def _first(pair: tuple[float, str]) -> float:
    return pair[0]


def limits(metrics: pd.DataFrame, settings: QcSettings) -> list[Limit]:
    """Limits for one sample, in the order in which they are applied.

    ``metrics`` holds the cells from which the spread is taken (droplets that an author already ruled out are not among
    them). Sums and genes are limited on both sides, mitochondrial counts above.
    """
    few = len(metrics) < settings.min_cells_for_mad
    found = []
    for metric, short in (("total_counts", "counts"), ("n_genes_by_counts", "genes")):
        floor = float(getattr(settings, f"min_{short}"))
        if few:
            found += [
                Limit(metric, "lower", floor, "fixed", f"low_{short}"),
                Limit(metric, "upper", np.nan, "none", f"high_{short}"),
            ]
            continue
        logged = np.log1p(metrics[metric].to_numpy(dtype=np.float64))
        lower = float(np.expm1(mad_limit(logged, settings.n_mads, "lower")))
        upper = float(np.expm1(mad_limit(logged, settings.n_mads, "upper")))
        enough, spared = getattr(settings, f"enough_{short}"), getattr(settings, f"spared_{short}")
        found += [
            Limit(metric, "lower", *_held(lower, (floor, "min"), (enough, "enough")), f"low_{short}"),
            Limit(metric, "upper", *_held(upper, (spared, "spared"), (np.inf, "max")), f"high_{short}"),
        ]
    mito = metrics["pct_counts_mt"].to_numpy(dtype=np.float64)
    if np.isnan(mito).all():
        value, origin = np.nan, "none"
    elif few:
        value, origin = settings.max_pct_mt, "fixed"
    else:
        spread = mad_limit(mito, settings.n_mads, "upper")
        value, origin = _held(spread, (settings.spared_pct_mt, "spared"), (settings.max_pct_mt, "max"))
    return [*found, Limit("pct_counts_mt", "upper", value, origin, "high_mt")]


def failed_filter(metrics: pd.DataFrame, found: Sequence[Limit]) -> NDArray[np.object_]:
    """For each cell the first filter that it fails, empty where it passes all."""
    reason = np.full(len(metrics), "", dtype=object)
    for limit in found:
        fails = limit.fails(metrics[limit.metric].to_numpy(dtype=np.float64))
        reason[fails & (reason == "")] = limit.filter
    return reason


@dataclass(frozen=True)
class Verdict:
    """``pass``, ``warn`` or ``fail``, and why, in words; notes without consequence stand in ``reason`` too."""

    verdict: Literal["pass", "warn", "fail"]
    reason: str


_FEW_CELLS = 50
_MOST_REMOVED = 0.5


def verdict(
    cells_before: int,
    cells_after: int,
    median_genes: float,
    found: Sequence[Limit],
    doublet_warning: str,
    notes: list[str],
) -> Verdict:
    """Judge a sample: it fails without a cell, and warns where what is left is little or looks wrong."""
    reasons = []
    if cells_after == 0:
        return Verdict("fail", "; ".join(["no cell passes", *notes]))
    if cells_after < _FEW_CELLS:
        reasons.append(f"only {cells_after} cells pass")
    if cells_after < (1 - _MOST_REMOVED) * cells_before:
        reasons.append(f"{100 * (1 - cells_after / cells_before):.0f}% of the droplets were removed")
    if median_genes < 2 * next(limit.value for limit in found if limit.filter == "low_genes"):
        reasons.append(f"shallow: {median_genes:.0f} genes in the median cell, close to the lower limit")
    if doublet_warning:
        reasons.append(doublet_warning)
    return Verdict("warn" if reasons else "pass", "; ".join([*reasons, *notes]))
