"""What a sample knows about its variable genes, so that genes can be chosen across samples without their counts.

``seurat_v3`` of Stuart et al. 2019 (doi:10.1016/j.cell.2019.05.031), computed as scanpy computes it within one batch:
the variance of counts standardised by the trend of variance on mean (loess on the log scale), clipped at the square
root of the number of cells. scanpy's own function compiles for seconds before its first use; this one needs no
compilation and gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from immunomod.sample.sums import entry_blocks

LOESS_SPAN = 0.3
_MIN_GENES_FOR_LOESS = 50


def sample_variances(counts: sparse.csr_matrix) -> pd.DataFrame:
    """Mean, variance and normalised variance of every gene of one sample.

    Parameters
    ----------
    counts
        cells x genes, canonical CSR of integers.

    Returns
    -------
    One row per gene: ``mean``, ``variance`` (of counts, n - 1), ``variances_norm``, ``highly_variable_rank`` (0 the
    most variable) and ``n_cells`` (cells with a count). With fewer than 3 cells ``variances_norm`` and the rank are
    NaN: such a sample takes no part in the choice.
    """
    n_cells, n_genes = counts.shape
    detected, total, squares = np.zeros(n_genes, dtype=np.int64), np.zeros(n_genes), np.zeros(n_genes)
    for genes, values in _entries(counts):
        detected += np.bincount(genes, minlength=n_genes)
        total += np.bincount(genes, weights=values, minlength=n_genes)
        squares += np.bincount(genes, weights=values**2, minlength=n_genes)
    table = pd.DataFrame(
        {"mean": 0.0, "variance": 0.0, "variances_norm": np.nan, "highly_variable_rank": np.nan, "n_cells": detected},
        index=pd.RangeIndex(n_genes),
    )
    if n_cells == 0:
        return table
    mean = total / n_cells
    variance = np.maximum(squares / n_cells - mean**2, 0) * (n_cells / max(n_cells - 1, 1))
    variance[detected == 0] = 0
    table["mean"], table["variance"] = mean, variance
    if n_cells < 3 or not (variance > 0).any():
        return table
    normalised = _normalised_variances(counts, mean, variance, total, squares)
    table["variances_norm"] = normalised
    table["highly_variable_rank"] = np.argsort(np.argsort(-normalised)).astype(np.float64)
    return table


def _entries(counts: sparse.csr_matrix) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float64]]]:
    """Genes and values of a matrix's entries, in blocks: both are wider than what the matrix stores."""
    for block in entry_blocks(counts.nnz):
        yield counts.indices[block].astype(np.intp), counts.data[block].astype(np.float64)


def _normalised_variances(
    counts: sparse.csr_matrix,
    mean: NDArray[np.float64],
    variance: NDArray[np.float64],
    total: NDArray[np.float64],
    squares: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Variance of the counts divided by the trend's standard deviation, large values clipped as Seurat does.

    ``total`` and ``squares`` are the genes' sums; what the few clipped values exceed the ceiling by is taken off them.
    """
    n_cells, n_genes = counts.shape
    varies = variance > 0
    log_variance = np.zeros(n_genes)
    log_variance[varies] = _trend(np.log10(mean[varies]), np.log10(variance[varies]))
    deviation = np.sqrt(10**log_variance)
    ceiling = deviation * np.sqrt(n_cells) + mean
    for genes, values in _entries(counts):
        above = values > ceiling[genes]
        genes, values = genes[above], values[above]
        total = total - np.bincount(genes, weights=values - ceiling[genes], minlength=n_genes)
        squares = squares - np.bincount(genes, weights=values**2 - ceiling[genes] ** 2, minlength=n_genes)
    return np.asarray((n_cells * mean**2 + squares - 2 * total * mean) / ((n_cells - 1) * deviation**2))


def _trend(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Local quadratic regression of ``y`` on ``x``; a plain quadratic where there are too few points for it."""
    if len(x) >= _MIN_GENES_FOR_LOESS:
        from skmisc.loess import loess

        try:
            model = loess(x, y, span=LOESS_SPAN, degree=2)
            model.fit()
            return np.asarray(model.outputs.fitted_values)
        except ValueError:  # many genes of one and the same mean, as in a handful of cells
            pass
    degree = min(2, len(np.unique(x)) - 1)
    return np.asarray(np.polyval(np.polyfit(x, y, degree), x))
