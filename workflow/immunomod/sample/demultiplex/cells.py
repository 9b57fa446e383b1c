"""Whose each cell of a sample is, by the hashtags that the sheet names, held against genotypes where there are both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from immunomod.errors import UserError
from immunomod.sample.demultiplex.calls import (
    DOUBLET,
    NEGATIVE,
    SINGLET,
    HashtagCalls,
    call_hashtags,
    no_calls,
)
from immunomod.sample.demultiplex.names import find_hashtags, match_hashtags, parse_hashtags
from immunomod.sample.settings import DemultiplexSettings

if TYPE_CHECKING:
    from anndata import AnnData

#: Why a cell is not the sample's, or of no donor.
OTHER_HASHTAG, HASHTAG_DOUBLET, HASHTAG_NEGATIVE = "other_hashtag", "hashtag_doublet", "hashtag_negative"
DONOR_CONFLICT = "donor_conflict"
REASONS = (HASHTAG_DOUBLET, HASHTAG_NEGATIVE, OTHER_HASHTAG, DONOR_CONFLICT)
#: With fewer cells named by both, a share that agrees says nothing.
_FEW_CELLS = 20


@dataclass(frozen=True)
class Agreement:
    """Hashtags against genotypes.

    ``table``: cells that are singlets of both, donors by hashtag x donors by genotype. ``pairs``: which genotype's
    donor is which hashtag's; by name where they share names, else so that most cells agree. ``share`` of those cells
    that agree, NaN without any. ``doublets``: droplets that are doublets by ``both``, by ``hashtag`` or by ``genotype``
    alone.
    """

    table: pd.DataFrame
    pairs: dict[str, str]
    share: float
    doublets: dict[str, int]

    @property
    def n_cells(self) -> int:
        """Cells that are singlets of both."""
        return int(self.table.to_numpy().sum())


@dataclass(frozen=True)
class Demultiplexed:
    """What hashtags say of a sample's droplets.

    ``reason`` (droplets,): empty for the sample's own cells, else one of :data:`REASONS`. ``donor`` (droplets,): empty
    but for own cells; None where the sheet names no hashtag. ``calls``: of all droplets; those that were not judged
    are ``negative`` without a reason, their probability NaN. ``note`` and ``warning`` are empty where all is well.
    """

    donor: NDArray[np.object_] | None
    reason: NDArray[np.object_]
    calls: HashtagCalls
    agreement: Agreement | None
    summary: dict[str, Any]
    note: str
    warning: str


def demultiplex(
    counts: AnnData,
    settings: DemultiplexSettings,
    seed: int,
    droplets: NDArray[np.bool_] | None = None,
    doublet_values: Sequence[str] = (DOUBLET,),
) -> Demultiplexed:
    """Name the donor of each droplet by its hashtag.

    Parameters
    ----------
    counts
        As :func:`immunomod.sample.read.read_sample` gives it: features that are no genes in ``obsm`` by kind; in
        ``obs`` the sheet's ``hashtags`` and ``donor``, and a per-cell table's ``author_donor`` and ``author_doublet``.
    settings
        Method and limits.
    seed
        For methods that draw.
    droplets
        Which of them to judge, shape (droplets,); all where None. Empty droplets would be taken for unstained cells.
    doublet_values
        Values of ``author_doublet`` that mean a doublet, in any case.

    Raises
    ------
    UserError
        The sheet names a hashtag that the matrix does not list, or may list twice.
    """
    obs = counts.obs
    n = len(obs)
    judged = np.ones(n, dtype=bool) if droplets is None else np.asarray(droplets, dtype=bool)
    nobody = np.full(n, "", dtype=object)
    features = {str(kind): [str(name) for name in frame.columns] for kind, frame in _frames(counts).items()}
    tags = find_hashtags(features, settings.hashtags)
    text = _constant(obs, "hashtags")
    if not text.strip():
        note = f"hashtags in the matrix ({', '.join(tags)}) and none in the sheet" if tags else ""
        return Demultiplexed(
            None, nobody, no_calls(n, ""), None, _summary("", no_calls(n, ""), judged, 0, None), note, ""
        )
    named, names = _named(text, features, tags, _constant(obs, "sample"))
    unmarked = [name for name in names.values() if name not in tags]
    pool = _pool(counts, [*tags, *unmarked])
    calls = _spread(call_hashtags(pool.loc[judged], settings, seed), judged)
    own = dict(zip(names.values(), named.values(), strict=True))
    by_hashtag = np.array([own.get(tag, "") for tag in calls.hashtag], dtype=object)
    reason, donor = _assigned(calls, judged, own, obs)
    donor = np.where(by_hashtag == "", donor, by_hashtag).astype(object)
    agreement = None
    if any(named.values()) and "author_donor" in obs:
        both = _named_by_both(by_hashtag, obs, doublet_values)
        agreement = _agreement(by_hashtag, both, obs, judged & (calls.status == DOUBLET), judged, doublet_values)
        genotype = [agreement.pairs.get(one, "") for one in obs["author_donor"].astype(str)]
        conflict = both & (np.array(genotype, dtype=object) != by_hashtag)
        reason[conflict], donor[conflict] = DONOR_CONFLICT, ""
    notes = [calls.note] if calls.note else []
    if unmarked:
        notes.append(
            f"{', '.join(unmarked)} are not marked as hashtags in the matrix: others of the pool are not known "
            "(demultiplexing.hashtags)"
        )
    summary = _summary(settings.method, calls, judged, pool.shape[1], agreement)
    return Demultiplexed(donor, reason, calls, agreement, summary, "; ".join(notes), _warning(agreement, settings))


def _constant(obs: pd.DataFrame, column: str) -> str:
    return str(obs[column].iloc[0]) if column in obs and len(obs) else ""


def _frames(counts: AnnData) -> dict[str, pd.DataFrame]:
    return {kind: frame for kind, frame in counts.obsm.items() if isinstance(frame, pd.DataFrame)}


def _named(
    text: str, features: dict[str, list[str]], tags: list[str], sample: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Donors and the matrix's names of the hashtags that the sheet names."""
    where = f"samples.tsv, sample {sample}: column hashtags: "
    try:
        named = parse_hashtags(text)
        return named, match_hashtags(named, features, tags)
    except UserError as error:
        raise UserError(f"{where}{error}") from None


def _pool(counts: AnnData, tags: Sequence[str]) -> pd.DataFrame:
    """Droplets x hashtags of the pool; where two kinds list a tag, the first does."""
    columns: dict[str, pd.Series] = {}
    for frame in _frames(counts).values():
        for name in frame.columns:
            columns.setdefault(str(name), frame[name])
    return pd.DataFrame({tag: columns[tag].to_numpy() for tag in tags}, index=counts.obs_names)


def _spread(calls: HashtagCalls, judged: NDArray[np.bool_]) -> HashtagCalls:
    """Calls of some droplets among all of them."""
    every = no_calls(len(judged), calls.note)
    every.hashtag[judged], every.status[judged] = calls.hashtag, calls.status
    every.probability[judged] = calls.probability
    return every


def _assigned(
    calls: HashtagCalls, judged: NDArray[np.bool_], own: dict[str, str], obs: pd.DataFrame
) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    """Reason of each droplet, and for own cells the donor that the sheet or a per-cell table gives."""
    is_own = (calls.status == SINGLET) & np.isin(calls.hashtag, list(own))
    reason = np.full(len(obs), "", dtype=object)
    reason[judged & (calls.status == DOUBLET)] = HASHTAG_DOUBLET
    reason[judged & (calls.status == NEGATIVE)] = HASHTAG_NEGATIVE
    reason[judged & (calls.status == SINGLET) & ~is_own] = OTHER_HASHTAG
    otherwise = obs["donor"].astype(str).to_numpy(dtype=object) if "donor" in obs else np.full(len(obs), "", object)
    return reason, np.where(is_own, otherwise, "").astype(object)


def _is_author_doublet(obs: pd.DataFrame, values: Sequence[str]) -> NDArray[np.bool_]:
    if "author_doublet" not in obs:
        return np.zeros(len(obs), dtype=bool)
    words = {value.lower() for value in values}
    return obs["author_doublet"].astype(str).str.lower().isin(words).to_numpy(dtype=bool)


def _named_by_both(donor: NDArray[np.object_], obs: pd.DataFrame, values: Sequence[str]) -> NDArray[np.bool_]:
    genotype = obs["author_donor"].astype(str).to_numpy()
    named: NDArray[np.bool_] = (donor != "") & (genotype != "") & ~_is_author_doublet(obs, values)
    return named


def _agreement(
    by_hashtag: NDArray[np.object_],
    both: NDArray[np.bool_],
    obs: pd.DataFrame,
    hashtag_doublets: NDArray[np.bool_],
    judged: NDArray[np.bool_],
    doublet_values: Sequence[str],
) -> Agreement:
    genotype = obs["author_donor"].astype(str).to_numpy()
    table = pd.crosstab(pd.Series(by_hashtag[both], name="hashtag"), pd.Series(genotype[both], name="genotype"))
    pairs = pair_donors(table)
    agreeing = int((pd.Series(genotype[both], dtype=object).map(pairs) == by_hashtag[both]).sum())
    genotype_doublets = judged & _is_author_doublet(obs, doublet_values)
    doublets = {
        "both": int((hashtag_doublets & genotype_doublets).sum()),
        "hashtag": int((hashtag_doublets & ~genotype_doublets).sum()),
        "genotype": int((genotype_doublets & ~hashtag_doublets).sum()),
    }
    return Agreement(table, pairs, agreeing / int(both.sum()) if both.any() else float("nan"), doublets)


def pair_donors(table: pd.DataFrame) -> dict[str, str]:
    """Which of the genotype's donors (columns) is which of the hashtags' (rows): by name, else by most cells in common.

    The second is the assignment of most cells to pairs, each donor in one pair at most (Kuhn 1955).
    """
    if set(table.index) & set(table.columns):
        return {str(name): str(name) for name in table.columns}
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(-table.to_numpy())
    return {str(table.columns[column]): str(table.index[row]) for row, column in zip(rows, columns, strict=True)}


def _summary(
    method: str, calls: HashtagCalls, judged: NDArray[np.bool_], n_tags: int, agreement: Agreement | None
) -> dict[str, Any]:
    """Columns of ``qc.tsv``; the same for every sample."""
    is_called = bool(method) and bool(judged.any())
    of = {
        status: float(np.mean(calls.status[judged] == status)) if is_called else np.nan
        for status in (SINGLET, DOUBLET, NEGATIVE)
    }
    doublets = agreement.doublets if agreement else {}
    return {
        "hashtag_method": method,
        "n_hashtags": n_tags,
        **{f"hashtag_{status}_rate": rate for status, rate in of.items()},
        "hashtag_genotype_cells": agreement.n_cells if agreement else 0,
        "hashtag_genotype_agreement": agreement.share if agreement else np.nan,
        **{f"doublets_by_{who}": doublets.get(who, np.nan) for who in ("both", "hashtag", "genotype")},
    }


def _warning(agreement: Agreement | None, settings: DemultiplexSettings) -> str:
    """In words, where hashtags and genotypes name different people."""
    if agreement is None or agreement.n_cells < _FEW_CELLS or agreement.share >= settings.min_agreement:
        return ""
    by_name = all(theirs == mine for theirs, mine in agreement.pairs.items())
    how = "by name" if by_name else ", ".join(f"{theirs} as {mine}" for theirs, mine in agreement.pairs.items())
    return (
        f"hashtags and genotypes name the same donor for {100 * agreement.share:.0f}% of {agreement.n_cells:,} cells "
        f"({how}): look for donors that were swapped in the sheet or the table"
    )
