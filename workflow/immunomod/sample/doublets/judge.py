"""The methods in a registry, the rate to expect, and what becomes of the cells that a method calls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from immunomod.sample.doublets import coexpression, scrublet
from immunomod.sample.doublets.calls import MIN_CELLS, DoubletCalls, Method, no_calls
from immunomod.sample.doublets.partner import PartnerDoublets
from immunomod.sample.settings import DoubletSettings

#: Doublets per recovered cell of a 10x Genomics lane: 0.8% for every 1,000 cells (10x user guide CG000183).
RATE_PER_CELL = 0.008 / 1000
MAX_EXPECTED_RATE = 0.25
_EXCESS = 3.0
_MIN_CALLS_TO_NOTE = 5


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


def _run_none(counts: sparse.csr_matrix, _expected_rate: float, _seed: int) -> DoubletCalls:
    return no_calls(counts.shape[0], "no doublet method was asked for")


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
            limits="sees doublets of unlike cells only; calls few where its scores have no valley between two modes",
            run=scrublet.run,
        ),
        Method(
            name="cxds",
            citation="Bais & Kostka 2020, Bioinformatics 36:1150, doi:10.1093/bioinformatics/btz698",
            needs=f"raw counts of one library, at least {MIN_CELLS} cells, and a rate to expect",
            limits="its score grows with the number of genes: in a library of one class it calls the deepest cells, at "
            "most twice the expected rate",
            run=coexpression.run,
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


@dataclass(frozen=True)
class JudgedPartners:
    """MSC-immune doublets with what became of them: ``removed`` (cells,) leave the sample.

    ``warning`` (calls that are not believed) and ``note`` (why none were looked for) are empty if all is well.
    """

    found: PartnerDoublets
    removed: NDArray[np.bool_]
    warning: str
    note: str


def judge_partner_doublets(found: PartnerDoublets, rate: float, settings: DoubletSettings) -> JudgedPartners:
    """Decide whether MSC-immune doublets leave, by the rule of :func:`call_doublets`.

    More than ``settings.max_rate`` of the cells (and than three times ``rate``) are no doublets but a class of cells
    that makes genes of both compartments, or that ate the other's: they are kept.
    """
    share = float(found.predicted.mean()) if found.predicted.size else 0.0
    warning = ""
    if share > max(settings.max_rate, _EXCESS * rate):
        warning = (
            f"{100 * share:.1f}% called MSC-immune doublets where {100 * rate:.1f}% doublets were expected: cells "
            "that express genes of both compartments were kept (doublets.max_rate)"
        )
    removed = found.predicted & (settings.remove and not warning)
    return JudgedPartners(found, removed, warning, found.note)
