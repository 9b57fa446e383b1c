"""Scrublet: how many of a cell's nearest neighbours are doublets made of the library's own cells.

Wolock, Lopez & Klein 2019 (doi:10.1016/j.cels.2018.11.005): counts are normalised by their total, variable genes
standardised, and pairs of cells added up to simulated doublets; in the principal components of the observed cells, the
share of simulated doublets among a cell's neighbours gives the probability that it is one. The threshold is the
minimum between the two modes of the simulated doublets' own scores.

No standardised matrix is ever held: components come from the sparse matrix (centring is implicit), and simulated
doublets are made, projected and dropped in blocks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from immunomod.sample.doublets.calls import MIN_CELLS, DoubletCalls, no_calls, too_few_cells
from immunomod.sample.doublets.pairs import simulated_pairs
from immunomod.sample.sums import cell_sums

SIMULATED_PER_CELL = 2
N_COMPONENTS = 30
#: The score needs a prior of at least half a percent to spread; the order of cells does not depend on it.
MIN_PRIOR = 0.005
#: Prior of the scores whose modes give the threshold: one for all, so that calls do not depend on the expected rate.
_PRIOR_FOR_MODES = 0.05
#: Of fewer cells or genes than this many times the components, the covariance is quick.
_MANY_TIMES = 10
_TOLERANCE = 1e-6
#: Simulated doublets that are scored for the threshold; their distribution does not change with more.
_MAX_SCORED_SIMULATED = 10_000
_ROWS_AT_ONCE = 2048
_QUERIES_AT_ONCE = 64
_SAMPLED_DISTANCES = 8
_MIN_CELLS_WITH_GENE = 3
_MEAN_BINS = 20
_MEAN_RANGE = (0.0125, 3.0)
_MIN_DISPERSION = 0.5
_HISTOGRAM_BINS = 256
_MAX_SMOOTHINGS = 10_000


def run(counts: sparse.csr_matrix, expected_rate: float, seed: int) -> DoubletCalls:
    """Score and call the doublets of one library.

    Parameters
    ----------
    counts
        cells x genes, raw counts (CSR). A cell without counts of a variable gene is not judged.
    expected_rate
        Prior share of doublets: it scales scores and threshold, and changes neither the order nor the calls.
    seed
        Which cells make up the simulated doublets.
    """
    n_cells = counts.shape[0]
    totals = cell_sums(counts).astype(np.float64)
    if (totals > 0).sum() < MIN_CELLS:
        return too_few_cells(n_cells)
    genes = variable_genes(counts, totals)
    if len(genes) < 2:
        return no_calls(n_cells, "doublets not called: no gene varies between the cells")
    reduced = counts[:, genes]
    judged = cell_sums(reduced) > 0
    if judged.sum() < MIN_CELLS:
        return too_few_cells(n_cells)
    observed, simulated = _embed(reduced if judged.all() else reduced[judged], seed)
    del reduced
    share_observed, share_simulated = _simulated_shares(observed, simulated)
    score = np.full(n_cells, np.nan)
    score[judged] = doublet_probability(share_observed, max(expected_rate, MIN_PRIOR))
    lowest = minimum_between_modes(doublet_probability(share_simulated, _PRIOR_FOR_MODES))
    predicted = np.zeros(n_cells, dtype=bool)
    if lowest is None:
        note = "doublets scored, not called: no threshold between two modes"
        return DoubletCalls(score, predicted, np.nan, np.nan, note)
    share = simulated_share(lowest, _PRIOR_FOR_MODES)
    predicted[judged] = share_observed > share
    threshold = float(doublet_probability(np.array(share), max(expected_rate, MIN_PRIOR)))
    return DoubletCalls(score, predicted, threshold, float(np.mean(share_simulated > share)), "")


def _scaled(counts: sparse.csr_matrix, totals: NDArray[np.float64], target: float) -> sparse.csr_matrix:
    """Counts times ``target`` over the cell's total."""
    data = counts.data * np.repeat(target / totals, np.diff(counts.indptr))
    return sparse.csr_matrix((data, counts.indices, counts.indptr), shape=counts.shape)


def variable_genes(counts: sparse.csr_matrix, totals: NDArray[np.float64]) -> NDArray[np.int64]:
    """Positions of the variable genes of a library; ``totals``: counts of each cell.

    Dispersion (variance over mean of counts scaled to the median total) standardised within 20 bins of mean, as
    Satija et al. 2015 (doi:10.1038/nbt.3192) and, with these limits, ``scanpy.pp.highly_variable_genes`` choose them;
    one pass over blocks of rows. Genes in fewer than three cells are left out first.
    """
    n_cells, n_genes = counts.shape
    target = float(np.median(totals[totals > 0]))
    total, squares, detected = np.zeros(n_genes), np.zeros(n_genes), np.zeros(n_genes, dtype=np.int64)
    for start in range(0, n_cells, _ROWS_AT_ONCE):
        block = counts[start : start + _ROWS_AT_ONCE]
        values = _scaled(block, np.maximum(totals[start : start + _ROWS_AT_ONCE], 1.0), target).data
        total += np.bincount(block.indices, weights=values, minlength=n_genes)
        squares += np.bincount(block.indices, weights=values**2, minlength=n_genes)
        detected += np.bincount(block.indices, minlength=n_genes)
    mean = total / n_cells
    variance = (squares / n_cells - mean**2) * (n_cells / (n_cells - 1))
    candidates = np.flatnonzero((detected >= _MIN_CELLS_WITH_GENE) & (variance > 1e-9 * mean**2))
    if not len(candidates):
        return candidates
    log_mean = np.log1p(mean[candidates])
    dispersion = np.log(variance[candidates] / mean[candidates])
    standardised = _standardised_in_bins(dispersion, log_mean)
    low, high = _MEAN_RANGE
    variable: NDArray[np.int64] = candidates[(log_mean > low) & (log_mean < high) & (standardised > _MIN_DISPERSION)]
    return variable


def _standardised_in_bins(dispersion: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Dispersions less their bin's mean over its standard deviation; 1 for a gene alone in its bin, as in Seurat."""
    edges = np.linspace(mean.min(), mean.max(), _MEAN_BINS + 1)
    in_bin = np.clip(np.searchsorted(edges, mean, side="left") - 1, 0, _MEAN_BINS - 1)
    size = np.bincount(in_bin, minlength=_MEAN_BINS)
    centre = np.bincount(in_bin, weights=dispersion, minlength=_MEAN_BINS) / np.maximum(size, 1)
    off = dispersion - centre[in_bin]
    spread = np.sqrt(np.bincount(in_bin, weights=off**2, minlength=_MEAN_BINS) / np.maximum(size - 1, 1))
    standardised = np.divide(off, spread[in_bin], out=np.zeros_like(off), where=spread[in_bin] > 0)
    return np.where(size[in_bin] == 1, 1.0, standardised)


def _embed(counts: sparse.csr_matrix, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Observed cells and simulated doublets in the components of the observed cells (points x components).

    ``counts``: cells x variable genes. As in scanpy, totals are those of the variable genes.
    """
    totals = cell_sums(counts).astype(np.float64)
    target = float(np.median(totals))
    normalised = _scaled(counts, totals, target)
    mean = np.asarray(normalised.mean(axis=0)).ravel()
    squares = np.bincount(normalised.indices, weights=normalised.data**2, minlength=counts.shape[1]) / counts.shape[0]
    deviation = np.sqrt(np.maximum(squares - mean**2, 0))
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    normalised.data *= scale[normalised.indices]
    loadings = _loadings(normalised, mean * scale)
    projection = loadings * scale[:, None]
    origin = mean @ projection
    observed = np.asarray(normalised @ loadings - origin, dtype=np.float32)

    first, second = simulated_pairs(counts.shape[0], SIMULATED_PER_CELL * counts.shape[0], seed)
    simulated = np.empty((len(first), projection.shape[1]), dtype=np.float32)
    for start in range(0, len(first), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        doublets = _scaled(
            counts[first[part]] + counts[second[part]], totals[first[part]] + totals[second[part]], target
        )
        simulated[part] = doublets @ projection - origin
    return observed, simulated


def _loadings(matrix: sparse.csr_matrix, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Loadings (genes x k) of the leading principal components of cells x genes, whose means are ``mean``.

    Lanczos on the sparse matrix, to a relative error of a millionth and from a fixed start: the covariance of thousands
    of genes and its eigenvectors take three times as long. A small or degenerate matrix has them all the same.
    """
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    n_cells, n_genes = matrix.shape
    if min(n_cells, n_genes) > _MANY_TIMES * N_COMPONENTS:
        by_gene = matrix.T

        def times_covariance(vector: NDArray[np.float64]) -> NDArray[np.float64]:
            scores = matrix @ vector - mean @ vector
            return np.asarray(by_gene @ scores - mean * scores.sum())

        covariance = LinearOperator((n_genes, n_genes), matvec=times_covariance, dtype=np.float64)
        try:
            _, vectors = eigsh(covariance, k=N_COMPONENTS, v0=np.ones(n_genes), tol=_TOLERANCE)
            return np.asarray(vectors[:, ::-1])
        except ArpackError:
            pass
    from immunomod.atlas.components import principal_components

    return principal_components(matrix, N_COMPONENTS).loadings


def _simulated_shares(
    observed: NDArray[np.float32], simulated: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of simulated doublets around the observed cells and around (at most 10,000 of) the simulated doublets.

    Posterior means under a flat prior, with one neighbour that is not simulated counted on top, as in scanpy: shares
    close to 1 would stretch the histogram of scores, and move its valley up past half of the doublets.
    """
    n_observed, n_simulated = len(observed), len(simulated)
    n_neighbors = min(round(0.5 * np.sqrt(n_observed) * (1 + SIMULATED_PER_CELL)), n_observed + n_simulated - 1)
    n_scored = n_observed + min(n_simulated, _MAX_SCORED_SIMULATED)
    among = simulated_neighbors(np.vstack([observed, simulated]), n_observed, n_scored, n_neighbors)
    share = (among + 1.0) / (n_neighbors + 3.0)
    return share[:n_observed], share[n_observed:]


def simulated_neighbors(
    points: NDArray[np.float32], n_observed: int, n_scored: int, n_neighbors: int
) -> NDArray[np.int64]:
    """How many of the nearest neighbours of the first ``n_scored`` points, themselves left out, are simulated.

    Exact Euclidean neighbours of ``points`` (points x components), of which the first ``n_observed`` are cells. Only
    counts are wanted, in no order: a matrix product and a partial sort of the few points that a sample of the distances
    leaves in question take a third of the time of a flat faiss index.
    """
    n_points = len(points)
    # Subtracting the mean keeps float32 products accurate; |x|^2 - 2qx orders points as the distance to q does.
    centred = points - points[:n_observed].mean(axis=0)
    norms = np.einsum("ij,ij->i", centred, centred, dtype=np.float64).astype(np.float32)
    by_point = np.ascontiguousarray(np.vstack([-2 * centred.T, norms]))
    queries = np.hstack([centred, np.ones((n_points, 1), dtype=np.float32)])
    in_sample = n_neighbors / _SAMPLED_DISTANCES
    bound_rank = min(int(in_sample + 4 * np.sqrt(in_sample)) + 1, -(-n_points // _SAMPLED_DISTANCES) - 1)
    among = np.empty(n_scored, dtype=np.int64)
    for start in range(0, n_scored, _QUERIES_AT_ONCE):
        rows = np.arange(start, min(start + _QUERIES_AT_ONCE, n_scored))
        distances = queries[rows] @ by_point
        distances[np.arange(len(rows)), rows] = np.inf
        bounds = np.partition(distances[:, ::_SAMPLED_DISTANCES], bound_rank, axis=1)[:, bound_rank]
        for row, distance, bound in zip(rows, distances, bounds, strict=True):
            near = np.flatnonzero(distance <= bound)
            if len(near) < n_neighbors:  # the sample missed: a few points in a hundred thousand
                near = np.arange(n_points)
            nearest = near[np.argpartition(distance[near], n_neighbors - 1)[:n_neighbors]]
            among[row] = np.count_nonzero(nearest >= n_observed)
    return among


def doublet_probability(share: NDArray[np.float64], prior: float) -> NDArray[np.float64]:
    """Probability of a doublet where this share of the neighbours is simulated (Wolock et al. 2019).

    Bayes' rule with ``prior``, the expected share of doublets, where two doublets were simulated per observed cell.
    """
    odds = prior / SIMULATED_PER_CELL
    return np.asarray(share * odds / (1 - prior - share * (1 - prior - odds)))


def simulated_share(probability: float, prior: float) -> float:
    """The share of simulated neighbours at which :func:`doublet_probability` gives ``probability``."""
    odds = prior / SIMULATED_PER_CELL
    return probability * (1 - prior) / (odds + probability * (1 - prior - odds))


def minimum_between_modes(values: NDArray[np.float64]) -> float | None:
    """The lowest point between the two modes of a histogram that is smoothed until it has only two.

    Prewitt & Mendelsohn 1966 (doi:10.1111/j.1749-6632.1965.tb11715.x), the rule of Scrublet; None where smoothing ends
    in one mode.
    """
    from scipy.ndimage import uniform_filter1d

    counts, edges = np.histogram(values, bins=_HISTOGRAM_BINS)
    smooth = counts.astype(np.float32)
    for _ in range(_MAX_SMOOTHINGS):
        smooth = uniform_filter1d(smooth, 3)
        modes = _modes(smooth)
        if len(modes) < 3:
            break
    if len(modes) != 2:
        return None
    lowest = modes[0] + int(np.argmin(smooth[modes[0] : modes[1] + 1]))
    return float((edges[lowest] + edges[lowest + 1]) / 2)


def _modes(heights: NDArray[np.float32]) -> NDArray[np.int64]:
    """Last positions of the local maxima; a plateau counts once, a rise at the end not at all."""
    steps = np.sign(np.diff(heights))
    moves = np.flatnonzero(steps)
    before = np.concatenate([[1.0], steps[moves][:-1]])
    return np.asarray(moves[(steps[moves] < 0) & (before > 0)], dtype=np.int64)
