"""Programme scores of single cells, for maps and heterogeneity (inference is on replicates, elsewhere).

The univariate linear model of Badia-i-Mompel et al. 2022 (decoupler): per cell, expression of all genes is regressed
on a programme's signed weights, and the score is the t value of the slope. In closed form it needs, besides constants
of the programme, the cell's sum, its sum of squares and its product with the weights, so all programmes of all cells
come from one sparse product and nothing is made dense but cells x programmes. Signs are honoured, and thinning the
counts moves it less than any other score (docs, scoring).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from immunomod.sample.sums import detected_genes

MIN_GENES = 5
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Method:
    """A way to score programmes in cells.

    ``run(expression, weights)`` takes cells x genes log-normalised expression (CSR) and genes x programmes signed
    weights (dense, same gene order), and gives cells x programmes.
    """

    name: str
    citation: str
    needs: str
    limits: str
    run: Callable[[sparse.csr_matrix, NDArray[np.float64]], NDArray[np.float64]]


def univariate_linear_model(expression: sparse.csr_matrix, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """T value of the slope of expression on weights, for each cell (rows) and programme (columns).

    NaN where a cell's expression or a programme's weights do not vary over the genes.
    """
    n_genes = weights.shape[0]
    weight_mean = weights.mean(axis=0)
    weight_ss = np.square(weights - weight_mean).sum(axis=0)
    scores = np.full((expression.shape[0], weights.shape[1]), np.nan)
    weighted = np.flatnonzero((weights != 0).any(axis=1))  # few of all genes: the product needs no others
    ones = np.ones(n_genes)
    for start in range(0, expression.shape[0], _ROWS_AT_ONCE):
        block = expression[start : start + _ROWS_AT_ONCE].astype(np.float64)
        total = (block @ ones).reshape(-1, 1)
        squared = sparse.csr_matrix((block.data**2, block.indices, block.indptr), shape=block.shape)
        squares = (squared @ ones).reshape(-1, 1)
        cell_ss = squares - total**2 / n_genes
        covariation = block[:, weighted] @ weights[weighted] - total * weight_mean
        with np.errstate(divide="ignore", invalid="ignore"):
            r = np.clip(covariation / np.sqrt(cell_ss * weight_ss), -1, 1)
            scores[start : start + _ROWS_AT_ONCE] = r * np.sqrt((n_genes - 2) / (1 - r**2))
    return scores


REGISTRY: dict[str, Method] = {
    "ulm": Method(
        name="ulm",
        citation="Badia-i-Mompel et al. 2022, Bioinform. Adv. 2:vbac016, doi:10.1093/bioadv/vbac016",
        needs="log-normalised expression of all genes; signed weights",
        limits=f"no score below {MIN_GENES} detected genes; depends on which genes the matrix holds, so compare scores "
        "within a data set",
        run=univariate_linear_model,
    )
}


def aligned_weights(weights: pd.DataFrame, symbols: pd.Series, detected: NDArray[np.bool_]) -> pd.DataFrame:
    """Weights on the columns of a matrix.

    Parameters
    ----------
    weights
        Gene symbols x programmes, signed, 0 where a gene is not of a programme.
    symbols
        Gene symbol of each column; where several columns share one, the first detected one carries the weight.
    detected
        Whether each column holds any count.

    Returns
    -------
    Columns of the matrix x programmes; a programme with fewer than :data:`MIN_GENES` detected genes is NaN throughout.
    """
    order = pd.DataFrame({"symbol": symbols.to_numpy(), "absent": ~detected}).sort_values("absent", kind="stable")
    carrier = order.index[~order["symbol"].duplicated()]
    aligned = np.zeros((len(symbols), weights.shape[1]))
    aligned[carrier] = weights.reindex(order.loc[carrier, "symbol"]).fillna(0.0).to_numpy()
    enough = (aligned[detected] != 0).sum(axis=0) >= MIN_GENES
    aligned[:, ~enough] = np.nan
    return pd.DataFrame(aligned, columns=weights.columns)


def score_programs(
    expression: sparse.csr_matrix, symbols: pd.Series, weights: pd.DataFrame, method: str = "ulm"
) -> pd.DataFrame:
    """Score every programme in every cell.

    Parameters
    ----------
    expression
        cells x genes, log(1 + counts per 10,000), CSR.
    symbols
        Gene symbol of each column.
    weights
        Gene symbols x programmes, signed (:meth:`immunomod.programs.ProgramSet.weights`).
    method
        A name of :data:`REGISTRY`.

    Returns
    -------
    cells x programmes (float32), in the order of ``weights``; NaN for programmes with fewer than :data:`MIN_GENES`
    genes detected in the sample.
    """
    detected = detected_genes(expression)
    aligned = aligned_weights(weights, symbols, detected)
    scored = aligned.notna().all(axis=0).to_numpy()
    scores = np.full((expression.shape[0], weights.shape[1]), np.nan, dtype=np.float32)
    if scored.any() and expression.shape[0]:
        scores[:, scored] = REGISTRY[method].run(expression, aligned.to_numpy()[:, scored])
    return pd.DataFrame(scores, columns=weights.columns)
