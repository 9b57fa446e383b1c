"""Partner RNA in pseudobulks: how many molecules of each gene leaked in from the cells of the other compartment.

Free RNA of the partner is in every droplet of a co-culture and in none of its control, so it is confounded with
treatment: MSC seem to gain CD74, T cells collagens. What leaked is estimated per sample and cell class from genes that
the class does not make, as SoupX does it (Young and Behjati 2020, doi:10.1093/gigascience/giaa151), with three
differences that few donors and two compartments ask for:

*Exclusive genes are told by the control arm.* A gene is exclusive to the partner where the class, cultured without it,
has less than 2% of the partner's level. Genes of any programme that the class may answer with (licensing, interferon)
are never among them, and genes that co-culture induces all the same stand out as outliers and are dropped. Without a
control arm the genes of the QC programmes are taken.

*The leaked profile is a mixture of the partner's classes* in that library, weighted as the exclusive genes ask for
(non-negative, held near the classes' share of RNA): monocytes may lyse more than T cells. The partner's profile is
itself cleared of what leaked into it, in turns.

*It is estimated for sums, with its error.* Leaked molecules are counted with Poisson noise; the profile has the noise
of the partner's counts; and the lysed cells' profile differs from that of the living ones gene by gene, by a relative
error that the scatter of the exclusive genes around the fit tells. The last is the same in all samples, so that
replicates do not show it: :mod:`.program_effects` adds it to the variance of an effect.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import optimize, sparse

from immunomod.contrast.normalise import Floats
from immunomod.exclusive import PARTNER, ExclusiveGenes, fraction_error, robust_mixture
from immunomod.programs import ProgramSet

TABLE_COLUMNS = [
    *("sample", "donor", "cell_class", "leaked_fraction", "leaked_fraction_se", "leaked_error", "n_exclusive_genes"),
    "note",
]
#: A sample with fewer cells of a compartment, or a smaller share, is taken to hold misnamed cells of it.
MIN_PARTNER_CELLS, MIN_PARTNER_SHARE = 10, 0.02
#: Highest level of an exclusive gene in the class without partner, as a share of the partner's.
MAX_OWN_SHARE = 0.02
#: Molecules of a gene that a leak of ``EXPECTED_AT`` would bring for the gene to be looked at.
MIN_EXPECTED, EXPECTED_AT = 2.0, 0.1
MIN_GENES = 5
MAX_GENES = 400
#: Leaked molecules of a gene, over all samples, for its scatter to tell the profile's error.
MIN_SEEN = 20.0
#: The profile of lysed cells is never known better than this, relative.
MIN_ERROR = 0.02
ROUNDS = 3


@dataclass(frozen=True)
class Leakage:
    """Leaked molecules of each unit (row) and gene.

    Attributes
    ----------
    expected
        Units x genes: molecules that leaked in.
    variance
        Their variance around ``expected`` that is independent between samples: counting noise, that of the profile,
        and the standard error of the leaked fraction.
    error
        Per unit: relative error of ``expected`` that is common to all samples, gene by gene.
    """

    expected: Floats
    variance: Floats
    error: Floats

    def summed(self, membership: sparse.csr_matrix) -> Leakage:
        """The same for sums of rows; ``membership`` is sums x rows."""
        expected = np.asarray(membership @ self.expected)
        weight = self.expected.sum(axis=1)
        total = np.asarray(membership @ weight).ravel()
        error = np.asarray(membership @ (weight * self.error)).ravel()
        return Leakage(
            expected=expected,
            variance=np.asarray(membership @ self.variance),
            error=np.divide(error, total, out=np.zeros_like(total), where=total > 0),
        )


def no_leakage(n_units: int, n_genes: int) -> Leakage:
    """Nothing leaked, and nothing is uncertain."""
    nothing = np.zeros((n_units, n_genes))
    return Leakage(nothing, nothing, np.zeros(n_units))


def leakage_of(pseudobulk: AnnData, membership: sparse.csr_matrix) -> Leakage | None:
    """What leaked into sums of a pseudobulk's rows (``membership``: sums x rows); None where nothing was estimated."""
    if "leaked" not in pseudobulk.layers:
        return None
    leaked, variance = (
        np.asarray(pseudobulk.layers[name].todense(), dtype=np.float64) for name in ("leaked", "leaked_variance")
    )
    return Leakage(leaked, variance, pseudobulk.obs["leaked_error"].to_numpy(dtype=np.float64)).summed(membership)


@dataclass(frozen=True)
class _Target:
    """One class in one sample, and its rows in the pseudobulk."""

    rows: NDArray[np.intp]
    cell_class: str
    compartment: str
    sample: str


@dataclass(frozen=True)
class _Fit:
    """Share of leaked molecules, its standard error, and the leaked profile (sums to ``fraction``)."""

    fraction: float
    standard_error: float
    profile: Floats
    profile_counts: Floats
    used: NDArray[np.intp]


def estimate_leakage(
    pseudobulk: AnnData, responsive: Mapping[str, Collection[str]], exclusive: Mapping[str, Collection[str]]
) -> tuple[Leakage, pd.DataFrame]:
    """Estimate what leaked into every row of a data set's pseudobulk from the partner compartment.

    Parameters
    ----------
    pseudobulk
        As :func:`immunomod.contrast.pseudobulk.pseudobulk` gives it: ``obs`` with ``sample, donor, cell_class,
        compartment, n_cells`` and maybe the sheet's ``culture``.
    responsive
        Compartment -> genes that its cells may answer with, never taken for exclusive to the partner.
    exclusive
        Compartment -> genes that it alone makes, by curation; used where no control arm shows the class without its
        partner.

    Returns
    -------
    leakage
        Rows of the pseudobulk x genes; zero for rows without a partner in their library.
    table
        One row per row of the pseudobulk: :data:`TABLE_COLUMNS`. ``note`` says why nothing was estimated.
    """
    counts = np.asarray(pseudobulk.X.todense() if sparse.issparse(pseudobulk.X) else pseudobulk.X, dtype=np.float64)
    obs, genes = pseudobulk.obs, pseudobulk.var_names
    table = obs[["sample", "donor", "cell_class"]].astype(str).reset_index(drop=True)
    table = table.assign(leaked_fraction=0.0, leaked_fraction_se=0.0, leaked_error=0.0, n_exclusive_genes=0, note="")
    leakage = no_leakage(*counts.shape)
    mixed = mixed_samples(obs)
    targets = _targets(obs, mixed)
    if not targets:
        return leakage, table[TABLE_COLUMNS]
    own = {
        (target.cell_class, target.compartment): _own_rate(counts, obs, mixed, target.cell_class, target.compartment)
        for target in targets
    }
    expected = np.zeros_like(counts)
    fits: list[_Fit | None] = []
    for _ in range(ROUNDS):
        cleared = np.maximum(counts - expected, 0.0)
        fits = []
        for target in targets:
            sources = _sources(cleared, obs, target)
            allowed = ~genes.isin(list(responsive.get(target.compartment, ())))
            rate, depth = own[target.cell_class, target.compartment]
            if rate is None:
                allowed &= genes.isin(list(exclusive.get(PARTNER[target.compartment], ())))
            fits.append(_fit(counts[target.rows].sum(axis=0), sources, rate, depth, allowed))
        for target, fit in zip(targets, fits, strict=True):
            if fit is not None:
                expected[target.rows] = np.outer(counts[target.rows].sum(axis=1), fit.profile)
    error = _common_error(counts, expected, targets, fits)
    variance = np.zeros_like(counts)
    errors = np.zeros(len(counts))
    for target, fit in zip(targets, fits, strict=True):
        if fit is None:
            table.loc[target.rows, "note"] = (
                "partner RNA could not be estimated: too few genes that the partner alone makes"
            )
            continue
        leaked = expected[target.rows]
        relative = (fit.standard_error / fit.fraction) ** 2 if fit.fraction > 0 else 0.0
        noise = relative + 1 / np.maximum(fit.profile_counts, 1.0)
        variance[target.rows] = leaked + leaked**2 * noise
        errors[target.rows] = error[target.compartment]
        table.loc[target.rows, "leaked_fraction"] = fit.fraction
        table.loc[target.rows, "leaked_fraction_se"] = fit.standard_error
        table.loc[target.rows, "leaked_error"] = error[target.compartment]
        table.loc[target.rows, "n_exclusive_genes"] = len(fit.used)
    return Leakage(expected, variance, errors), table[TABLE_COLUMNS]


def add_leakage(pseudobulk: AnnData, programs: ProgramSet, exclusive: ExclusiveGenes) -> AnnData:
    """The pseudobulk with layers ``leaked`` and ``leaked_variance`` (CSR float32), and the table in ``obs``.

    See :func:`estimate_leakage`; genes of ``programs`` are those that cells may answer with.
    """
    if not pseudobulk.n_obs:
        return pseudobulk
    organism = organism_of(pseudobulk)
    leakage, table = estimate_leakage(
        pseudobulk, programs.responsive_genes(organism), exclusive.of_compartments(organism)
    )
    described = pseudobulk.copy()
    described.layers["leaked"] = sparse.csr_matrix(leakage.expected, dtype=np.float32)
    described.layers["leaked_variance"] = sparse.csr_matrix(leakage.variance, dtype=np.float32)
    for column in TABLE_COLUMNS[3:]:
        described.obs["leaked_note" if column == "note" else column] = table[column].to_numpy()
    return described


def leakage_table(pseudobulk: AnnData) -> pd.DataFrame:
    """One row per replicate and class: :data:`TABLE_COLUMNS`; no rows where nothing was estimated."""
    if "leaked_fraction" not in pseudobulk.obs:
        return pd.DataFrame(columns=TABLE_COLUMNS)
    named = pseudobulk.obs.rename(columns={"leaked_note": "note"})
    table: pd.DataFrame = named[TABLE_COLUMNS].reset_index(drop=True)
    return table


def organism_of(pseudobulk: AnnData) -> str:
    """The organism that the sheet names; human where it names none or several."""
    values = set(pseudobulk.obs["organism"].astype(str)) - {""} if "organism" in pseudobulk.obs else set()
    return values.pop() if len(values) == 1 else "human"


def mixed_samples(obs: pd.DataFrame) -> set[str]:
    """Samples that hold cells of both compartments, unless the sheet's ``culture`` says that they do not."""
    cells = (
        obs.assign(n=obs["n_cells"].astype(int))
        .groupby([obs["sample"].astype(str), obs["compartment"].astype(str)], observed=True)["n"]
        .sum()
        .unstack(fill_value=0)
    )
    cells = cells.reindex(columns=list(PARTNER), fill_value=0)
    fewer, total = cells.min(axis=1), cells.sum(axis=1)
    both = (fewer >= MIN_PARTNER_CELLS) & (fewer >= MIN_PARTNER_SHARE * total)
    if "culture" in obs:
        culture = obs.groupby(obs["sample"].astype(str), observed=True)["culture"].first().astype(str)
        both &= ~culture.reindex(cells.index).isin(["msc", "immune"])
    return set(cells.index[both])


def _targets(obs: pd.DataFrame, mixed: set[str]) -> list[_Target]:
    frame = obs[["sample", "cell_class", "compartment"]].astype(str).reset_index(drop=True)
    frame = frame[frame["sample"].isin(mixed) & frame["compartment"].isin(list(PARTNER))]
    return [
        _Target(rows.index.to_numpy(), str(cell_class), str(compartment), str(sample))
        for (sample, compartment, cell_class), rows in frame.groupby(["sample", "compartment", "cell_class"], sort=True)
    ]


def _own_rate(
    counts: Floats, obs: pd.DataFrame, mixed: set[str], cell_class: str, compartment: str
) -> tuple[Floats | None, float]:
    """A class's rates without its partner, and the counts behind them; None where no sample shows them.

    A class that no control holds takes the highest rate among the other classes of its compartment.
    """
    alone = (
        ~obs["sample"].astype(str).isin(mixed).to_numpy() & (obs["compartment"].astype(str) == compartment).to_numpy()
    )
    of_class = alone & (obs["cell_class"].astype(str) == cell_class).to_numpy()
    if counts[of_class].sum() > 0:
        total = counts[of_class].sum(axis=0)
        return total / total.sum(), float(total.sum())
    rates, depth = [], 0.0
    for _, rows in obs[alone].groupby(obs["cell_class"].astype(str)[alone], observed=True).indices.items():
        total = counts[np.flatnonzero(alone)[rows]].sum(axis=0)
        if total.sum() > 0:
            rates.append(total / total.sum())
            depth = max(depth, float(total.sum()))
    return (np.max(rates, axis=0), depth) if rates else (None, 0.0)


def _sources(cleared: Floats, obs: pd.DataFrame, target: _Target) -> Floats:
    """Counts of the partner's classes in the target's sample: classes x genes."""
    chosen = (obs["sample"].astype(str) == target.sample) & (
        obs["compartment"].astype(str) == PARTNER[target.compartment]
    )
    rows = np.flatnonzero(chosen.to_numpy())
    names, codes = np.unique(obs["cell_class"].astype(str).to_numpy()[rows], return_inverse=True)
    sums = np.zeros((len(names), cleared.shape[1]))
    np.add.at(sums, codes, cleared[rows])
    return np.asarray(sums[sums.sum(axis=1) > 0])


def _fit(
    observed: Floats, sources: Floats, own_rate: Floats | None, own_depth: float, allowed: NDArray[np.bool_]
) -> _Fit | None:
    """Leaked fraction and profile of one class in one sample; None without enough exclusive genes."""
    total = observed.sum()
    mass = sources.sum()
    if total == 0 or mass == 0:
        return None
    partner = sources.sum(axis=0) / mass
    own = np.zeros_like(partner) if own_rate is None else own_rate
    # One count more than was seen: a gene that a shallow control arm happens to miss is not proven absent.
    bound = own + (1 / own_depth if own_depth > 0 else 0.0)
    exclusive = allowed & (total * partner * EXPECTED_AT >= MIN_EXPECTED)
    if own_rate is not None:
        exclusive &= bound <= MAX_OWN_SHARE * partner
    used = np.flatnonzero(exclusive)
    if len(used) < MIN_GENES:
        return None
    if len(used) > MAX_GENES:
        used = np.sort(used[np.argsort(-partner[used], kind="stable")[:MAX_GENES]])
    y, p, r = observed[used], partner[used], own[used]
    shares = sources.sum(axis=1) / mass
    profiles = sources / sources.sum(axis=1, keepdims=True)
    weights, kept = robust_mixture(y, total * profiles[:, used], total * r, shares)
    profile = weights @ profiles
    fraction = float(profile.sum())
    error = fraction_error(y[kept], total * p[kept], total * r[kept], fraction)
    return _Fit(fraction, error, profile, sources.sum(axis=0), used[kept])


def _common_error(
    counts: Floats, expected: Floats, targets: list[_Target], fits: list[_Fit | None]
) -> dict[str, float]:
    """Per compartment: relative error of the leaked profile that all samples share, from the exclusive genes' scatter.

    Each class is looked at over all samples together: what is independent between them averages out.
    """
    errors = {}
    for compartment in PARTNER:
        deviations, known = [], []
        fitted = [(target, fit) for target, fit in zip(targets, fits, strict=True) if fit is not None]
        for cell_class in sorted({target.cell_class for target, _ in fitted if target.compartment == compartment}):
            of_class = [(target, fit) for target, fit in fitted if target.cell_class == cell_class]
            used = np.unique(np.concatenate([fit.used for _, fit in of_class]))
            rows = np.concatenate([target.rows for target, _ in of_class])
            mean, seen = expected[rows][:, used].sum(axis=0), counts[rows][:, used].sum(axis=0)
            behind = np.sum([fit.profile_counts[used] for _, fit in of_class], axis=0)
            enough = (mean >= MIN_SEEN) & (behind > 0)
            deviations.append(seen[enough] / mean[enough] - 1)
            known.append(1 / mean[enough] + 1 / behind[enough])
        deviation = np.concatenate([*deviations, np.zeros(0)])
        enough_genes = len(deviation) >= MIN_GENES
        errors[compartment] = _excess_spread(deviation, np.concatenate(known)) if enough_genes else MIN_ERROR
    return errors


def _excess_spread(deviation: Floats, known: Floats) -> float:
    """Standard deviation beyond the ``known`` variances, from the median of squares (normal), at least MIN_ERROR."""
    median_of_square = 0.4549364

    def excess(variance: float) -> float:
        return float(np.median(deviation**2 / (known + variance))) - median_of_square

    low, high = MIN_ERROR**2, 4.0
    if excess(low) <= 0:
        return MIN_ERROR
    if excess(high) >= 0:
        return 2.0
    return float(np.sqrt(optimize.brentq(excess, low, high)))
