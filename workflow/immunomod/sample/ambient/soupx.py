"""Contamination from genes that a kind of cell does not make, after SoupX (Young and Behjati 2020,
doi:10.1093/gigascience/giaa151), for libraries of two compartments.

SoupX assumes one soup. Here what leaked is told apart by where it came from, because in a co-culture RNA of the partner
matters and RNA of one's own kind does not:

*With empty droplets* their counts are the profile of the soup, own and partner's parts together. The share of it in a
kind of cell follows from the exclusive genes of all other kinds. Cells that stick together or burst in a droplet leak
more of the partner than the soup holds: where the exclusive genes of other kinds of its own compartment explain less of
a kind's contamination than the partner's do, the rest is the partner's own profile.

*Without them* each source (MSC; T and NK, B, myeloid cells) leaks its own profile, taken from its cells in the library
and cleared in turn of what leaked into them. A kind's RNA in its own cells cannot be seen. As many molecules of it are
taken to be in each of its droplets as in the droplets of the other kinds of its compartment; where there is none (MSC),
as in its partner's droplets, if the other compartment shows that soup is shared.

The fraction is that of a kind of cell as a whole, as SoupX does with clusters: the leaked counts of a gene are removed
from its cells in proportion to their counts of it, so sums are right and zeros stay zeros.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from immunomod.exclusive import COMPARTMENT_OF, PARTNER, fraction_error, robust_mixture
from immunomod.sample.ambient.kinds import (
    MIN_GENES,
    NO_KIND,
    Kinds,
    empty_table,
    exclusive_to,
    find_kinds,
    over_cells,
    partner_part,
)
from immunomod.sample.ambient.method import AmbientInput, Contamination

Floats = NDArray[np.float64]
#: Counts of a gene that 10% of contamination must bring for the gene to be looked at, and of all genes together.
MIN_EXPECTED, MIN_TOTAL_EXPECTED = 0.5, 20.0
ROUNDS = 4
MIN_EMPTY_COUNTS = 2000
#: Leakage beyond the soup is believed where it is so many of its standard errors.
_CLEARLY = 3.0


@dataclass(frozen=True)
class _Leak:
    """What leaked into one kind of cell, as a share of its molecules: in all, its error, and gene by gene."""

    fraction: float
    error: float
    profile: Floats
    n_genes: int


def estimate(data: AmbientInput) -> Contamination:
    """Estimate contamination, and the counts without it."""
    kinds = find_kinds(data)
    table = empty_table(kinds, data.counts)
    known, sums = kinds.known, kinds.sums
    if not known:
        return Contamination(kinds.group, table, note=NO_KIND)
    from_empty = data.empty_counts is not None and data.empty_counts.sum() >= MIN_EMPTY_COUNTS
    if from_empty:
        assert data.empty_counts is not None
        found = _by_soup(kinds, data.empty_counts.astype(np.float64))
    else:
        found = _by_sources(known, sums, kinds.n_singlets, kinds.genes)
    for row, kind in enumerate(known):
        for name, value in found[kind].items():
            if name in table:
                table.loc[row, name] = value
    return Contamination(
        group=kinds.group,
        table=table,
        **over_cells(table, "ambient_fraction"),
        **over_cells(table, "partner_fraction"),
        corrected=_corrected(data.counts, kinds.group, known, sums, found),
        profile_from="empty droplets" if from_empty else "cells",
        note=_note(table),
    )


def _leak(
    target: Floats, sources: Floats, exclusive: NDArray[np.bool_], explained: Floats | None = None
) -> _Leak | None:
    """What leaked into a kind from some others (sources x genes), beyond the counts that are ``explained`` (genes,).

    None where too little tells.
    """
    total, mass = target.sum(), sources.sum()
    if total == 0 or mass == 0:
        return None
    partner = sources.sum(axis=0) / mass
    used = np.flatnonzero(exclusive & (0.1 * total * partner >= MIN_EXPECTED))
    if len(used) < MIN_GENES or 0.1 * total * partner[used].sum() < MIN_TOTAL_EXPECTED:
        return None
    own = np.zeros(len(used)) if explained is None else explained[used]
    profiles = sources / np.maximum(sources.sum(axis=1, keepdims=True), 1.0)
    weights, kept = robust_mixture(target[used], total * profiles[:, used], own, sources.sum(axis=1) / mass)
    profile = np.asarray(weights @ profiles)
    fraction = float(profile.sum())
    error = fraction_error(target[used[kept]], total * partner[used[kept]], own[kept], fraction)
    return _Leak(fraction, error, profile, int(kept.sum()))


def _by_sources(
    known: list[str], sums: Floats, cells: NDArray[np.int64], genes: dict[str, NDArray[np.bool_]]
) -> dict[str, dict[str, Any]]:
    """Contamination without empty droplets; see the module's docstring."""
    compartment = [COMPARTMENT_OF[kind] for kind in known]
    leaks: dict[tuple[int, str], _Leak | None] = {}
    expected = np.zeros_like(sums)
    for _ in range(ROUNDS):
        cleared = np.maximum(sums - expected, 0.0)
        leaks = {}
        for row, kind in enumerate(known):
            partners = [other for other in range(len(known)) if compartment[other] != compartment[row]]
            if partners:
                names = [known[other] for other in partners]
                exclusive = exclusive_to(names, genes, with_leukocyte=kind == "MSC")
                leaks[row, "partner"] = _leak(sums[row], cleared[partners], exclusive)
            for other in range(len(known)):
                if other != row and compartment[other] == compartment[row]:
                    leaks[row, known[other]] = _leak(sums[row], cleared[[other]], genes[known[other]])
        for row in range(len(known)):
            profiles = [leak.profile for (target, _), leak in leaks.items() if target == row and leak is not None]
            expected[row] = sums[row].sum() * np.sum(profiles, axis=0) if profiles else 0.0
    per_droplet = sums.sum(axis=1) / cells
    found: dict[str, dict[str, Any]] = {}
    for row, kind in enumerate(known):
        of_own = [leak for (target, source), leak in leaks.items() if target == row and source != "partner"]
        partner = leaks.get((row, "partner"))
        seen = [leak for leak in of_own if leak is not None]
        parts = [*seen, *([partner] if partner is not None else [])]
        hidden = _hidden_molecules(row, known, compartment, leaks, per_droplet, cells)
        ambient = np.nan
        if parts and np.isfinite(hidden):
            ambient = sum(leak.fraction for leak in parts) + hidden / per_droplet[row]
        found[kind] = {
            "profile": np.sum([leak.profile for leak in parts], axis=0) if parts else np.zeros(sums.shape[1]),
            "ambient_fraction": min(float(ambient), 1.0),
            "ambient_fraction_se": float(np.sqrt(sum(leak.error**2 for leak in parts))) if parts else np.nan,
            "partner_fraction": partner.fraction if partner is not None else np.nan,
            "partner_fraction_se": partner.error if partner is not None else np.nan,
            "n_exclusive_genes": sum(leak.n_genes for leak in parts),
        }
    return found


def _hidden_molecules(
    row: int,
    known: list[str],
    compartment: list[str],
    leaks: dict[tuple[int, str], _Leak | None],
    per_droplet: Floats,
    cells: NDArray[np.int64],
) -> float:
    """Molecules of a kind's own soup in its droplets, told from other kinds' droplets; NaN where none tells."""

    def molecules(target: int, source: str) -> float | None:
        leak = leaks.get((target, source))
        return None if leak is None else leak.fraction * per_droplet[target]

    own = [other for other in range(len(known)) if other != row and compartment[other] == compartment[row]]
    told = [(value, cells[other]) for other in own if (value := molecules(other, known[row])) is not None]
    if told:
        return float(np.average([value for value, _ in told], weights=[size for _, size in told]))
    partners = [other for other in range(len(known)) if compartment[other] != compartment[row]]
    told = [(value, cells[other]) for other in partners if (value := molecules(other, "partner")) is not None]
    if not told:
        return float("nan")
    in_partner = float(np.average([value for value, _ in told], weights=[size for _, size in told]))
    back = molecules(row, "partner")
    # Shared soup: as much of the partner's RNA in its own other kinds as in this kind.
    among = [
        sum(value for source in partners if source != other and (value := molecules(other, known[source])) is not None)
        for other in partners
    ]
    if len(partners) < 2 or back is None or back <= 0:
        return in_partner
    # what the kinds of the partner compartment see of each other lacks their own part: scale it up
    seen_share = (len(partners) - 1) / len(partners)
    return in_partner * min(1.0, float(np.average(among, weights=cells[partners])) / (seen_share * back))


def _by_soup(kinds: Kinds, soup: Floats) -> dict[str, dict[str, Any]]:
    """Contamination with the profile of empty droplets; see the module's docstring."""
    known, sums = kinds.known, kinds.sums
    profile = soup / soup.sum()
    total = sums.sum(axis=1)
    by_all = [_leak(sums[row], soup[None, :], _foreign_to(kind, kinds)) for row, kind in enumerate(known)]
    soups: list[_Leak | None] = by_all
    extras: list[_Leak | None] = []
    from_partner = partner_part(kinds, soup)
    cleared = sums
    for _ in range(ROUNDS):
        soups, extras = _beyond_soup(kinds, soup, by_all, cleared)
        profiles = [
            (leak.fraction * profile if leak is not None else 0.0) + (extra.profile if extra is not None else 0.0)
            for leak, extra in zip(soups, extras, strict=True)
        ]
        cleared = np.maximum(sums - total[:, None] * np.array([np.broadcast_to(one, len(soup)) for one in profiles]), 0)
        if not any(extras):
            break
        from_partner = partner_part(replace(kinds, sums=cleared), soup)
    found: dict[str, dict[str, Any]] = {}
    for kind, leak, extra in zip(known, soups, extras, strict=True):
        part = from_partner[COMPARTMENT_OF[kind]]
        fraction, error = (leak.fraction, leak.error) if leak is not None else (np.nan, np.nan)
        beyond, beyond_error = (extra.fraction, extra.error) if extra is not None else (0.0, 0.0)
        more = extra.profile if extra is not None else np.zeros_like(profile)
        share = float(part.sum())
        found[kind] = {
            "profile": np.nan_to_num(fraction) * profile + more,
            "ambient_fraction": min(fraction + beyond, 1.0),
            "ambient_fraction_se": float(np.hypot(error, beyond_error)),
            "partner_fraction": min(fraction * share + beyond, 1.0),
            "partner_fraction_se": float(np.hypot(error * share, beyond_error)),
            "n_exclusive_genes": sum(one.n_genes for one in (leak, extra) if one is not None),
        }
    return found


def _foreign_to(kind: str, kinds: Kinds) -> NDArray[np.bool_]:
    others = [other for other in COMPARTMENT_OF if other != kind]
    return exclusive_to(others, kinds.genes, with_leukocyte=kind == "MSC")


def _beyond_soup(
    kinds: Kinds, soup: Floats, by_all: list[_Leak | None], cleared: Floats
) -> tuple[list[_Leak | None], list[_Leak | None]]:
    """What leaked into each kind as the soup is, and what leaked from the partner beyond that (None: nothing).

    The soup alone is measured by the genes of a kind's own compartment's other kinds. A kind without such (MSC) is
    taken to hold as many molecules of soup in a droplet as the others, or as many as its exclusive genes allow.
    """
    known, sums = kinds.known, kinds.sums
    total = sums.sum(axis=1)
    per_droplet = total / kinds.n_singlets
    alone: dict[int, _Leak] = {}
    for row, kind in enumerate(known):
        own = [one for one, side in COMPARTMENT_OF.items() if side == COMPARTMENT_OF[kind] and one != kind]
        leak = _leak(sums[row], soup[None, :], exclusive_to(own, kinds.genes, with_leukocyte=False)) if own else None
        if leak is not None:
            alone[row] = leak
    soups, extras = list(by_all), list[_Leak | None]([None] * len(known))
    if not alone:
        return soups, extras  # nothing tells the soup from what leaked beyond it

    def beyond(row: int, leak: _Leak) -> _Leak | None:
        partners = [
            other for other in range(len(known)) if COMPARTMENT_OF[known[other]] == PARTNER[COMPARTMENT_OF[known[row]]]
        ]
        if not partners:
            return None
        names = [known[other] for other in partners]
        chosen = exclusive_to(names, kinds.genes, with_leukocyte=known[row] == "MSC")
        extra = _leak(sums[row], cleared[partners], chosen, total[row] * leak.profile)
        if extra is None:
            return None
        # an error of the soup moves the rest the other way, by as much as the two show the partner's genes
        of_partner = cleared[partners].sum(axis=0)
        exchange = (
            leak.profile[chosen].sum() / max(leak.fraction, 1e-12) / (of_partner[chosen].sum() / of_partner.sum())
        )
        extra = replace(extra, error=float(np.hypot(extra.error, exchange * leak.error)))
        return extra if extra.fraction > _CLEARLY * extra.error else None

    for row, leak in alone.items():
        extra = beyond(row, leak)
        if extra is not None:
            soups[row], extras[row] = leak, extra
    if not any(extras):
        return soups, extras
    weights = kinds.n_singlets[list(alone)]
    molecules = float(np.average([leak.fraction * per_droplet[row] for row, leak in alone.items()], weights=weights))
    for row, leak in enumerate(by_all):
        if row not in alone and leak is not None and molecules / per_droplet[row] < leak.fraction:
            fraction = molecules / per_droplet[row]
            shared = replace(leak, fraction=fraction, profile=fraction * soup / soup.sum())
            extra = beyond(row, shared)
            if extra is not None:
                soups[row], extras[row] = shared, extra
    return soups, extras


def _corrected(
    counts: sparse.csr_matrix,
    group: NDArray[np.object_],
    known: list[str],
    sums: Floats,
    found: dict[str, dict[str, Any]],
) -> sparse.csr_matrix:
    """Counts less what leaked: each gene of a kind loses the share of its counts that is expected to be foreign."""
    shares = np.zeros((len(known) + 1, counts.shape[1]), dtype=np.float32)
    for row, kind in enumerate(known):
        expected = sums[row].sum() * np.asarray(found[kind]["profile"])
        shares[row] = np.clip(np.divide(expected, sums[row], out=np.zeros_like(expected), where=sums[row] > 0), 0, 1)
    rows = np.array([known.index(kind) if kind else len(known) for kind in group])
    data = counts.data.astype(np.float32)
    for start in range(0, counts.shape[0], 4096):
        stop = min(start + 4096, counts.shape[0])
        entries = slice(counts.indptr[start], counts.indptr[stop])
        of_entry = np.repeat(rows[start:stop], np.diff(counts.indptr[start : stop + 1]))
        data[entries] *= 1 - shares[of_entry, counts.indices[entries]]
    corrected = sparse.csr_matrix((data, counts.indices.copy(), counts.indptr.copy()), shape=counts.shape)
    corrected.eliminate_zeros()
    return corrected


def _note(table: pd.DataFrame) -> str:
    if table["ambient_fraction"].notna().any():
        return ""
    if len(table) == 1:
        return "contamination cannot be seen: the library holds one kind of cell, whose own RNA it would be"
    return "contamination not estimated: too few counts of genes that only some of its cells make"
