"""Which species a droplet of a mixed library holds: its own, the other, or a cell of each.

Counts of a species in droplets without its cells are a *background*: leaked molecules, about as many in every droplet
whatever cell it holds, and molecules mapped to the wrong genome, which grow with the cell (the flat and slanted arms of
a barnyard plot, Macosko et al. 2015, doi:10.1016/j.cell.2015.05.002). So a rule on a droplet's shares fails where the
species differ in RNA: beside mesenchymal stromal cells a lymphocyte may hold more of their molecules than of its own.

Each species is therefore looked for by itself: its counts come either from the background or from a cell. A mixture of
three kinds of droplets (own cell, other cell, one of each) is fitted by expectation maximisation, in which the counts
of a species are negative-binomial around its background (a constant plus a share of the other species' counts) where it
has no cell, and log-normal where it has one. Droplets of two cells of one species cannot be seen so; how many there are
follows from those of both species, which take a share 2pq of all (Bloom 2018, doi:10.7717/peerj.5578).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import gammaln

Floats = NDArray[np.float64]

OWN, OTHER, DOUBLET, UNDECIDED = "own", "other", "doublet", "undecided"
KINDS = (OWN, OTHER, DOUBLET)
#: Under which name a droplet that is not kept is counted.
REASONS = {OTHER: "other_species", DOUBLET: "species_doublet", UNDECIDED: "species_undecided"}
#: With fewer droplets the larger of the two counts decides, and nothing is estimated.
MIN_DROPLETS = 50
#: A droplet is given the most probable kind where its probability is at least this.
MIN_PROBABILITY = 0.6
#: In small libraries, the largest share of the smaller count that leaves no doubt.
_MAX_SMALL_SHARE = 0.2
#: A second species is believed where its typical cell holds this many counts, and this many times the background.
_MIN_TYPICAL_COUNTS, _MIN_TIMES_BACKGROUND = 50.0, 1.8
#: Counts from which a droplet may hold a cell of the other species, whatever the rest of the library looks like.
_MIN_CELL_COUNTS = 100
#: Width of the bins of log counts in which the valley between empty droplets and cells is looked for.
_LOG_BIN = 0.1
_MAX_ROUNDS, _TOLERANCE = 200, 1e-7
#: Weight, in cells, of the prior on the spread of log counts, and the spread; the smallest and largest dispersion.
_PRIOR_CELLS, _PRIOR_SPREAD, _MIN_SPREAD = 5.0, 0.6, 0.15
_MIN_DISPERSION, _MAX_DISPERSION = 1e-3, 1.0


@dataclass(frozen=True)
class SpeciesCalls:
    """Which species each droplet holds, and what leaked between them.

    Attributes
    ----------
    status
        Per droplet ``own``, ``other``, ``doublet`` (a cell of each), ``undecided``; empty for droplets not judged.
    probability
        Of the status (of the most probable kind where undecided); NaN where none was estimated.
    applied
        Whether cells of both species were found.
    other_leakage, own_leakage
        Share of the other species' counts in all counts of the own species' singlets, and the reverse.
    own_background, other_background
        Mean counts of a species in the singlets of the other one.
    doublet_rate, implied_doublet_rate
        Share of the decided droplets that hold both species, and the share that must hold two cells of any species.
    note
        What went otherwise, in words.
    """

    status: NDArray[np.object_]
    probability: Floats
    applied: bool
    other_leakage: float
    own_leakage: float
    own_background: float
    other_background: float
    doublet_rate: float
    implied_doublet_rate: float
    note: str

    def count(self, status: str) -> int:
        """How many droplets have a status."""
        return int((self.status == status).sum())

    @property
    def reasons(self) -> NDArray[np.object_]:
        """Per droplet, why it is left out of the own species' cells (:data:`REASONS`); empty where it is not."""
        return np.array([REASONS.get(status, "") for status in self.status], dtype=object)


def species_of_droplets(
    own: NDArray[np.integer], obs: pd.DataFrame, called: NDArray[np.bool_] | None = None
) -> SpeciesCalls | None:
    """:func:`assign_species` for a sample as it was read; None where its matrix counted one species.

    Parameters
    ----------
    own
        Counts of each droplet.
    obs
        Its columns; ``other_species_counts`` is there where two species were counted.
    called
        Droplets that cell calling on the own species' genes takes for cells; None where all are.
    """
    if "other_species_counts" not in obs:
        return None
    other = obs["other_species_counts"].to_numpy(dtype=np.int64)
    return assign_species(own, other, None if called is None else species_candidates(other, called))


def species_columns(calls: SpeciesCalls | None) -> dict[str, float]:
    """What ``qc.tsv`` says of the species; NaN where one was counted."""
    names = ("doublet_rate", "implied_doublet_rate", "other_leakage", "own_leakage", "own_background")
    values = {name: float(getattr(calls, name)) if calls is not None else np.nan for name in names}
    return {
        "species_doublet_rate": values["doublet_rate"],
        "species_implied_doublet_rate": values["implied_doublet_rate"],
        "other_species_leakage": values["other_leakage"],
        "leakage_into_other_species": values["own_leakage"],
        "own_counts_in_other_species": values["own_background"],
    }


def assign_species(
    own: NDArray[np.integer], other: NDArray[np.integer], candidates: NDArray[np.bool_] | None = None
) -> SpeciesCalls:
    """Decide which species each droplet of a mixed library holds.

    Parameters
    ----------
    own, other
        Counts of the own and of the other species' genes, one per droplet.
    candidates
        Droplets that hold a cell of either species (:func:`species_candidates`); the others are not judged, and their
        status is empty. None: all.

    Returns
    -------
    Calls that are the same, with the roles exchanged, if ``own`` and ``other`` are exchanged.
    """
    judged = (own + other) > 0
    if candidates is not None:
        judged &= candidates
    a, b = own[judged].astype(np.float64), other[judged].astype(np.float64)
    kinds, chance, applied, note = _judge(a, b)
    status = np.full(len(own), "", dtype=object)
    status[judged] = kinds
    probability = np.full(len(own), np.nan)
    probability[judged] = chance
    is_own, is_other = kinds == OWN, kinds == OTHER
    observed, implied = np.nan, np.nan
    if applied:
        observed, implied = _doublet_rates(int(is_own.sum()), int(is_other.sum()), int((kinds == DOUBLET).sum()))
    return SpeciesCalls(
        status=status,
        probability=probability,
        applied=applied,
        other_leakage=_share(b[is_own], a[is_own]),
        own_leakage=_share(a[is_other], b[is_other]),
        own_background=float(a[is_other].mean()) if is_other.any() else np.nan,
        other_background=float(b[is_own].mean()) if is_own.any() else np.nan,
        doublet_rate=observed,
        implied_doublet_rate=implied,
        note=note,
    )


def species_candidates(other: NDArray[np.integer], called: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Droplets that hold a cell of either species, where cells were called on the own species' genes alone.

    Cells of the other species look empty there. They are those with at least a tenth of a large cell's counts of it
    (the rule of CellRanger before version 3: a tenth of the 99th percentile of the cells, here until it holds of
    itself), and beyond the valley, if there is one, between that and the cells that hold half of all such counts:
    where much leaks, empty droplets can lie above the tenth.
    """
    cells = np.sort(other[other >= _MIN_CELL_COUNTS])
    if not len(cells):
        return called.copy()
    limit = 0.0
    while (new := max(_MIN_CELL_COUNTS, float(np.percentile(cells, 99)) / 10)) > limit:
        limit, cells = new, cells[cells >= new]
    sums = np.cumsum(cells, dtype=np.float64)
    half = float(cells[np.searchsorted(sums, sums[-1] / 2)])
    edges = np.arange(np.log(limit) - 2 * _LOG_BIN, np.log(half) + 3 * _LOG_BIN, _LOG_BIN)
    density = np.histogram(np.log(other[other >= np.exp(edges[0])]), edges)[0]
    smooth = np.convolve(density, [1, 2, 3, 2, 1], mode="valid")
    return np.asarray(called | (other >= np.exp(edges[2 + int(smooth.argmin())]) - 1e-9))


def _judge(a: Floats, b: Floats) -> tuple[NDArray[np.object_], Floats, bool, str]:
    """Status and its probability per droplet, whether both species were found, and a note."""
    unknown = np.full(len(a), np.nan)
    larger = np.where(a >= b, OWN, OTHER).astype(object)
    if len(a) < MIN_DROPLETS:
        share = np.minimum(a, b) / np.maximum(a + b, 1)
        kinds = np.where(share > _MAX_SMALL_SHARE, UNDECIDED, larger).astype(object)
        return (
            kinds,
            unknown,
            False,
            f"fewer than {MIN_DROPLETS} droplets: each is of the species of most of its counts",
        )
    fit = _best_fit(a, b)
    if fit is None:
        found = "own" if (larger == OWN).mean() > 0.5 else "other"
        note = f"cells of the {found} species only: no second kind of droplet stands out"
        return larger, unknown, False, note
    best = fit.posterior.argmax(axis=1)
    chance = fit.posterior.max(axis=1)
    kinds = np.array(KINDS, dtype=object)[best]
    kinds[chance < MIN_PROBABILITY] = UNDECIDED
    return kinds, chance, True, ""


@dataclass(frozen=True)
class _Axis:
    """Counts of one species: the cells' log-normal, and the background in droplets of the other species alone."""

    mean: float
    spread: float
    constant: float
    slope: float
    dispersion: float

    def cell(self, counts: Floats) -> Floats:
        """Log probability of the counts with a cell."""
        logged = np.log1p(counts)
        z = (logged - self.mean) / self.spread
        return np.asarray(-0.5 * z**2 - np.log(self.spread) - 0.5 * np.log(2 * np.pi) - logged)

    def background(self, counts: Floats, partner: Floats) -> Floats:
        """Log probability of the counts without a cell, beside ``partner`` counts of the other species."""
        expected = self.expected(partner)
        size = 1 / self.dispersion
        log_total = np.log(size + expected)
        return np.asarray(
            gammaln(counts + size)
            - gammaln(size)
            - gammaln(counts + 1)
            + size * (np.log(size) - log_total)
            + counts * (np.log(expected) - log_total)
        )

    def expected(self, partner: Floats) -> Floats:
        """Background counts."""
        return np.asarray(np.maximum(self.constant + self.slope * partner, 1e-2))


@dataclass(frozen=True)
class _Fit:
    """``posterior``: droplets x (own, other, doublet)."""

    own: _Axis
    other: _Axis
    posterior: Floats
    log_likelihood: float


def _best_fit(a: Floats, b: Floats) -> _Fit | None:
    """The most likely of the believable fits from several beginnings; None where there is none."""
    fits = [_fit(a, b, start) for start in _beginnings(a, b)]
    believed = [fit for fit in fits if _is_believable(fit, a, b)]
    return max(believed, key=lambda fit: fit.log_likelihood) if believed else None


def _beginnings(a: Floats, b: Floats) -> list[Floats]:
    """Responsibilities to begin with, from splits of the log ratio of the counts.

    Two means start from its ends, so that a rare species is seen too; the widest gaps are tried beside it.
    """
    ratio = np.log1p(a) - np.log1p(b)
    low, high = np.percentile(ratio, [0.5, 99.5])
    for _ in range(50):
        split = (low + high) / 2
        above = ratio > split
        if above.all() or not above.any():
            break
        low, high = ratio[~above].mean(), ratio[above].mean()
    edges = np.sort(ratio)
    gaps = np.diff(edges)
    few = max(2, len(ratio) // 200)
    gaps[:few], gaps[len(gaps) - few :] = 0, 0
    widest = np.argsort(gaps, kind="stable")[-2:]
    splits = {float((low + high) / 2), 0.0, *((edges[widest] + edges[widest + 1]) / 2).tolist()}
    starts = []
    for split in sorted(splits):
        is_own = ratio > split
        if 0 < is_own.sum() < len(ratio):
            starts.append(_start(a, b, is_own))
    return starts


def _start(a: Floats, b: Floats, is_own: NDArray[np.bool_]) -> Floats:
    """Responsibilities from a split: droplets beyond the middle of the gap on both axes are doublets."""
    logged_a, logged_b = np.log1p(a), np.log1p(b)
    middle_a = (np.median(logged_a[is_own]) + np.median(logged_a[~is_own])) / 2
    middle_b = (np.median(logged_b[is_own]) + np.median(logged_b[~is_own])) / 2
    both = (logged_a > middle_a) & (logged_b > middle_b)
    start = np.column_stack([is_own & ~both, ~is_own & ~both, both]).astype(np.float64)
    return np.asarray((start + 1e-3) / (start + 1e-3).sum(axis=1, keepdims=True))


def _fit(a: Floats, b: Floats, posterior: Floats) -> _Fit:
    """Expectation maximisation from some responsibilities."""
    last = -np.inf
    for _ in range(_MAX_ROUNDS):
        weight = posterior.sum(axis=0) + np.array([0.5, 0.5, 0.1])
        own = _axis(a, b, posterior[:, 0] + posterior[:, 2], posterior[:, 1])
        other = _axis(b, a, posterior[:, 1] + posterior[:, 2], posterior[:, 0])
        cell_a, cell_b = own.cell(a), other.cell(b)
        joint = np.column_stack([cell_a + other.background(b, a), own.background(a, b) + cell_b, cell_a + cell_b])
        joint += np.log(weight / weight.sum())
        top = joint.max(axis=1, keepdims=True)
        scaled = np.exp(joint - top)
        total = scaled.sum(axis=1, keepdims=True)
        posterior = scaled / total
        log_likelihood = float((top + np.log(total)).sum())
        if abs(log_likelihood - last) < _TOLERANCE * abs(log_likelihood):
            break
        last = log_likelihood
    return _Fit(own, other, posterior, log_likelihood)


def _axis(counts: Floats, partner: Floats, with_cell: Floats, without: Floats) -> _Axis:
    """The maximisation step for one species, from the droplets' weights with a cell and without."""
    logged = np.log1p(counts)
    n = with_cell.sum()
    mean = float((with_cell @ logged) / max(n, 1e-9))
    square = with_cell @ (logged - mean) ** 2 + _PRIOR_CELLS * _PRIOR_SPREAD**2
    spread = max(_MIN_SPREAD, float(np.sqrt(square / (n + _PRIOR_CELLS))))
    constant, slope = _line(counts, partner, without)
    expected = np.maximum(constant + slope * partner, 1e-2)
    excess = without @ ((counts - expected) ** 2 - expected)
    dispersion = float(np.clip(excess / max(without @ expected**2, 1e-9), _MIN_DISPERSION, _MAX_DISPERSION))
    return _Axis(mean, spread, constant, slope, dispersion)


def _line(counts: Floats, partner: Floats, weight: Floats) -> tuple[float, float]:
    """Constant and slope, neither below 0, of counts over the partner's, weighted for a variance that grows with it."""
    total = max(weight.sum(), 1e-9)
    level = float(weight @ counts) / total
    if level <= 0:
        return 0.0, 0.0
    center = float(weight @ partner) / total
    spread = weight @ (partner - center) ** 2
    slope = float(weight @ ((partner - center) * (counts - level)) / spread) if spread > 0 else 0.0
    slope = min(max(slope, 0.0), level / center if center > 0 else 0.0)
    return max(level - slope * center, 0.0), slope


def _is_believable(fit: _Fit, a: Floats, b: Floats) -> bool:
    """Whether both species have cells: each stands above its background, and most have a droplet to themselves.

    Of cells that meet by chance fewer share a droplet with the other species than have one alone; where the tail of a
    background was taken for cells, they nearly all seem to share.
    """
    kind = fit.posterior.argmax(axis=1)
    alone = [int((kind == number).sum()) for number in (0, 1)]
    if min(alone) < 2 or (kind == 2).sum() > min(alone):
        return False
    for axis, counts, partner, number in ((fit.own, a, b, 1), (fit.other, b, a, 0)):
        typical = np.expm1(axis.mean)
        background = float(counts[kind == number].mean())
        if typical < max(_MIN_TYPICAL_COUNTS, _MIN_TIMES_BACKGROUND * background):
            return False
        if typical < _MIN_TIMES_BACKGROUND * float(axis.expected(partner[kind == number]).mean()):
            return False
    return True


def _doublet_rates(own: int, other: int, both: int) -> tuple[float, float]:
    """Observed share of droplets with both species, and the implied share of droplets with two cells of any.

    With a share d of doublets and cells that are the own species' with chance p and the other's with q, the shares of
    droplets are p - dpq, q - dpq and 2dpq, so p is the own singlets' share plus half of the mixed ones'.
    """
    total = own + other + both
    p, q = (own + both / 2) / total, (other + both / 2) / total
    return both / total, both / total / (2 * p * q)


def _share(part: Floats, rest: Floats) -> float:
    total = part.sum() + rest.sum()
    return float(part.sum() / total) if total else np.nan
