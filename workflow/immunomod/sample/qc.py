"""Quality of cells: metrics in one pass over the sparse counts, limits from the sample's own spread, and a verdict.

Limits follow McCarthy et al. 2017 (doi:10.1093/bioinformatics/btw777): median plus or minus a number of scaled
*median* absolute deviations, counts and genes on the scale of log(1 + x). They are held between fixed values
(:class:`immunomod.sample.settings.QcSettings`), and every limit says where it came from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from immunomod.sample.settings import SHEET_LIMITS, QcSettings, Side
from immunomod.sample.sums import gene_set_sums

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
METRICS = ("total_counts", "n_genes_by_counts", "pct_counts_mt", "pct_counts_ribo", "pct_counts_hb", "complexity")


@dataclass(frozen=True)
class Limit:
    """One limit on one metric.

    ``value`` is NaN where there is no limit. ``origin``: ``mad`` (the sample's own spread); where a fixed value holds
    the spread's limit, the setting's first word (``min``, ``enough``, ``spared``, ``max``); ``fixed`` (too few cells
    for a spread); ``sheet``; ``none``. ``filter`` is the name under which cells beyond the limit are counted.
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
    no gene of the kind), ``complexity`` (log10 of genes over log10 of counts; 1 for cells of one count or none).
    """
    kinds = gene_fractions(symbols, organism)
    sums = gene_set_sums(counts, np.column_stack([np.ones(counts.shape[1], dtype=bool), *kinds.values()]))
    metrics = pd.DataFrame({"total_counts": sums[:, 0], "n_genes_by_counts": counts.getnnz(axis=1).astype(np.int64)})
    for column, (kind, genes) in enumerate(kinds.items(), start=1):
        share = 100 * np.divide(sums[:, column], sums[:, 0], out=np.zeros(len(sums)), where=sums[:, 0] > 0)
        metrics[f"pct_counts_{kind}"] = share if genes.any() else np.nan
    genes_found = np.log10(np.maximum(metrics["n_genes_by_counts"].to_numpy(dtype=np.float64), 1.0))
    molecules = np.log10(np.maximum(sums[:, 0], 1.0))
    metrics["complexity"] = np.divide(genes_found, molecules, out=np.ones(len(sums)), where=molecules > 0)
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


def limits(metrics: pd.DataFrame, settings: QcSettings, fixed: Mapping[str, float] | None = None) -> list[Limit]:
    """Limits for one sample, in the order in which they are applied.

    ``metrics`` holds the cells from which the spread is taken (droplets that an author already ruled out are not among
    them). Sums and genes are limited on both sides, mitochondrial, ribosomal and haemoglobin counts above, complexity
    below. ``fixed`` are the sample's own limits (:data:`SHEET_LIMITS`), which replace what is found.
    """
    chosen = {SHEET_LIMITS[name]: value for name, value in (fixed or {}).items()}
    return [
        Limit(*key[:2], chosen[key], "sheet", key[2]) if (key := (one.metric, one.side, one.filter)) in chosen else one
        for one in _found_limits(metrics, settings)
    ]


def _found_limits(metrics: pd.DataFrame, settings: QcSettings) -> list[Limit]:
    few = len(metrics) < max(1, settings.min_cells_for_mad)
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
    for kind in ("mt", "ribo", "hb"):
        metric = f"pct_counts_{kind}"
        values = metrics[metric].to_numpy(dtype=np.float64)
        spared, most = getattr(settings, f"spared_pct_{kind}"), getattr(settings, f"max_pct_{kind}")
        if np.isnan(values).all() or (few and kind != "mt"):
            value, origin = np.nan, "none"
        elif few:
            value, origin = most, "fixed"
        else:
            value, origin = _held(mad_limit(values, settings.n_mads, "upper"), (spared, "spared"), (most, "max"))
        found.append(Limit(metric, "upper", value, origin, f"high_{kind}"))
    value, origin = np.nan, "none"
    if not few:
        spread = mad_limit(metrics["complexity"].to_numpy(dtype=np.float64), settings.n_mads, "lower")
        value, origin = _held(spread, (settings.min_complexity, "min"), (settings.enough_complexity, "enough"))
    return [*found, Limit("complexity", "lower", value, origin, "low_complexity")]


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
