"""Droplets that caught two cells: methods as rows of a registry, and the rate to expect."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from immunomod.errors import UserError
from immunomod.sample.settings import DoubletSettings

#: Doublets per recovered cell of a 10x Genomics lane: 0.8% for every 1,000 cells (10x user guide CG000183).
RATE_PER_CELL = 0.008 / 1000
MAX_EXPECTED_RATE = 0.25
MIN_CELLS = 50
_EXCESS = 3.0
_MIN_CALLS_TO_NOTE = 5


@dataclass(frozen=True)
class DoubletCalls:
    """Scores and calls for the cells that a method saw.

    ``score`` (cells,) is NaN and ``predicted`` (cells,) False where the method could not judge; ``threshold`` is NaN
    where none was found; ``detectable`` is the share of simulated doublets above it; ``note`` says what went otherwise.
    """

    score: NDArray[np.float64]
    predicted: NDArray[np.bool_]
    threshold: float
    detectable: float
    note: str

    @property
    def share(self) -> float:
        """Called share of the cells."""
        return float(self.predicted.mean()) if self.predicted.size else 0.0

    @property
    def implied_rate(self) -> float:
        """Share of doublets that the calls imply: called over detectable, Scrublet's overall doublet rate."""
        if not self.predicted.any():
            return 0.0
        return self.share / self.detectable if self.detectable > 0 else float("inf")


@dataclass(frozen=True)
class Method:
    """A way to find doublets. ``run(counts, expected_rate, seed)`` takes cells x genes counts (CSR) of one library."""

    name: str
    citation: str
    needs: str
    limits: str
    run: Callable[[sparse.csr_matrix, float, int], DoubletCalls]


def expected_rate(n_cells: int, donors_left: NDArray[np.object_] | None = None) -> float:
    """Share of doublets to expect in a library of ``n_cells`` recovered cells.

    Parameters
    ----------
    donors_left
        Donor of each cell, where an author's genotypes already took out the doublets of two donors: what is left are
        doublets within a donor, the sum of the donors' squared shares.
    """
    rate = min(RATE_PER_CELL * n_cells, MAX_EXPECTED_RATE)
    if donors_left is not None and len(donors_left):
        _, cells = np.unique(donors_left.astype(str), return_counts=True)
        rate *= float(np.sum((cells / cells.sum()) ** 2))
    return rate


def no_calls(n_cells: int, note: str) -> DoubletCalls:
    """Calls of a method that did not judge."""
    return DoubletCalls(np.full(n_cells, np.nan), np.zeros(n_cells, dtype=bool), np.nan, np.nan, note)


def _run_none(counts: sparse.csr_matrix, _expected_rate: float, _seed: int) -> DoubletCalls:
    return no_calls(counts.shape[0], "no doublet method was asked for")


def _run_scrublet(counts: sparse.csr_matrix, expected_rate: float, seed: int) -> DoubletCalls:
    """Scrublet through scanpy, with exact neighbours: the approximate search compiles for a minute at its first use.

    The Bayesian score needs a prior of at least half a percent to spread; the order of cells does not depend on it.
    """
    n_cells = counts.shape[0]
    if n_cells < MIN_CELLS:
        return no_calls(n_cells, f"doublets not called: fewer than {MIN_CELLS} cells")
    import scanpy as sc
    from anndata import AnnData

    adata = AnnData(counts.astype(np.float32))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sc.pp.scrublet(
                adata,
                expected_doublet_rate=max(expected_rate, 0.005),
                n_prin_comps=min(30, n_cells - 2),
                use_approx_neighbors=False,
                verbose=False,
                random_state=seed,
            )
    except ValueError as error:
        return no_calls(n_cells, f"doublets not called: scrublet stopped ({error})")
    score = adata.obs["doublet_score"].to_numpy(dtype=np.float64)
    threshold = adata.uns["scrublet"].get("threshold")
    if threshold is None:
        nothing = np.zeros(n_cells, dtype=bool)
        return DoubletCalls(
            score, nothing, np.nan, np.nan, "doublets scored, not called: no threshold between two modes"
        )
    detectable = float(np.mean(adata.uns["scrublet"]["doublet_scores_sim"] > threshold))
    return DoubletCalls(score, adata.obs["predicted_doublet"].to_numpy(dtype=bool), float(threshold), detectable, "")


REGISTRY: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="none",
            citation="",
            needs="nothing",
            limits="leaves every doublet in",
            run=_run_none,
        ),
        Method(
            name="scrublet",
            citation="Wolock, Lopez & Klein 2019, Cell Syst. 8:281, doi:10.1016/j.cels.2018.11.005",
            needs=f"raw counts of one library, at least {MIN_CELLS} cells",
            limits="sees doublets of unlike cells only; holds three times the cells x variable genes densely",
            run=_run_scrublet,
        ),
    )
}


@dataclass(frozen=True)
class JudgedCalls:
    """Calls with what became of them: ``removed`` (cells,) leave the sample.

    ``warning`` (calls that are not believed) and ``note`` (more than expected, or no calls) are empty if all is well.
    """

    calls: DoubletCalls
    removed: NDArray[np.bool_]
    expected_rate: float
    warning: str
    note: str


def call_doublets(counts: sparse.csr_matrix, rate: float, settings: DoubletSettings, seed: int) -> JudgedCalls:
    """Call doublets by the method of the settings, and decide whether they leave.

    Calls that imply more doublets than ``settings.max_rate`` (and than three times ``rate``) are kept: the threshold
    then lies in the noise of a library of one cell type, or takes a minor population as a whole, and removing cells by
    it would be worse than leaving the doublets in. (Calls do not depend on ``rate``, only the scale of scores does.)
    """
    if settings.method not in REGISTRY:
        raise UserError(f"config: doublets.method is {settings.method!r}; it must be one of {', '.join(REGISTRY)}.")
    calls = REGISTRY[settings.method].run(counts, rate, seed)
    warning, note = "", calls.note
    counted = f"{100 * calls.share:.1f}% called doublets where {100 * rate:.1f}% were expected"
    if calls.implied_rate > max(settings.max_rate, _EXCESS * rate):
        warning = (
            f"{counted}, which implies {100 * min(calls.implied_rate, 1):.0f}% doublets: the threshold does not "
            "separate doublets, so the called cells were kept (doublets.max_rate)"
        )
    elif calls.predicted.sum() >= _MIN_CALLS_TO_NOTE and calls.share > _EXCESS * rate:
        note = counted
    removed = calls.predicted & (settings.remove and not warning)
    return JudgedCalls(calls, removed, rate, warning, note)
