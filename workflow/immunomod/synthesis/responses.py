"""What each MSC donor answers co-culture with: one response per donor and programme, and how far cultures agree.

A donor's response is the least-squares slope of its cultures' scores on the contrast's variable: the difference between
its co-cultures and its MSC alone, or the slope along dose or time. Donors share one residual variance per programme,
that between cultures of one donor in one arm, pooled over donors by degrees of freedom and then moderated over the
programmes with the restraint of :func:`immunomod.contrast.model.moderated_variance`. Where no donor has a second
culture there is no such variance: how far a response could be repeated is then unknown.

Where every MSC donor met the same immune donors, what an immune donor changes in all of them alike says nothing about
their order. Differences between MSC donors then have a variance of their own, from the residuals of donor plus partner.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from immunomod.contrast.design import REFERENCE, TEST
from immunomod.contrast.model import moderated_variance

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DonorResponses:
    """Responses of the donors of one data set and cell class.

    Attributes
    ----------
    donors
        Names, sorted, of the donors that have a response.
    programs
        Names of the programmes.
    response
        Donors x programmes, log2 units (for a trend, per unit of the variable).
    unscaled
        Per donor: variance of its response per unit of residual variance.
    n_test, n_reference
        Per donor: its cultures in the arms (for a trend, above the lowest value and at it).
    residual
        Per programme: variance between cultures of one donor in one arm; NaN where ``residual_df`` is 0.
    residual_df
        Its degrees of freedom.
    variance, df
        The same, moderated over the programmes.
    difference_variance, difference_df
        The same for comparisons between donors: where all met the same immune donors, cleared of these.
    common
        Per programme: variance of every donor's response from errors that all cultures share.
    one_culture
        Variance, per unit of residual variance, of a response that one culture per arm tells (for a trend, the mean of
        ``unscaled``).
    is_trend
        Whether responses are slopes.
    """

    donors: list[str]
    programs: list[str]
    response: Floats
    unscaled: Floats
    n_test: NDArray[np.int64]
    n_reference: NDArray[np.int64]
    residual: Floats
    residual_df: int
    variance: Floats
    df: float
    difference_variance: Floats
    difference_df: float
    common: Floats
    one_culture: float
    is_trend: bool


def donor_responses(scores: pd.DataFrame) -> DonorResponses:
    """Fit the responses of the donors of one data set and cell class.

    Parameters
    ----------
    scores
        One row per programme and culture: ``program, sample, donor, msc_donor, arm, score, common_se``; every culture
        has all programmes. ``arm`` is ``test`` or ``reference``, or for a trend the variable's value. Donors that do
        not differ in ``arm`` have no response, and are left out.
    """
    culture = ["msc_donor", "sample", "donor", "arm"]
    wide = scores.set_index([*culture, "program"])["score"].unstack("program").sort_index()
    cultures = wide.index.to_frame(index=False)
    is_trend = not cultures["arm"].isin([TEST, REFERENCE]).all()
    value = cultures["arm"].astype(float) if is_trend else cultures["arm"].map({TEST: 0.5, REFERENCE: -0.5})
    at, y = value.to_numpy(dtype=np.float64), wide.to_numpy(dtype=np.float64)
    donors, response, unscaled, n_test, n_reference = [], [], [], [], []
    squares, residual_df = np.zeros(y.shape[1]), 0
    for donor, rows in sorted(cultures.groupby("msc_donor", sort=True).indices.items()):
        centred = at[rows] - at[rows].mean()
        spread = float(centred @ centred)
        if spread <= 0:
            continue
        slope = centred @ y[rows] / spread
        error = y[rows] - y[rows].mean(axis=0) - np.outer(centred, slope)
        squares += (error**2).sum(axis=0)
        residual_df += len(rows) - 2
        low = at.min() if is_trend else -0.5
        donors.append(str(donor))
        response.append(slope)
        unscaled.append(1 / spread)
        n_test.append(int((at[rows] > low).sum()))
        n_reference.append(int((at[rows] == low).sum()))
    residual = squares / residual_df if residual_df else np.full(y.shape[1], np.nan)
    variance, df = moderated_variance(residual, residual_df) if residual_df else (residual, 0.0)
    difference = (np.asarray(variance), df)
    chosen = cultures["msc_donor"].isin(donors).to_numpy()
    if residual_df and not is_trend:
        difference = _cleared_of_partners(cultures[chosen], y[chosen]) or difference
    common = scores.groupby("program")["common_se"].first().reindex(wide.columns).to_numpy(dtype=np.float64) ** 2
    return DonorResponses(
        donors=donors,
        programs=[str(name) for name in wide.columns],
        response=np.array(response).reshape(len(donors), y.shape[1]),
        unscaled=np.array(unscaled),
        n_test=np.array(n_test, dtype=np.int64),
        n_reference=np.array(n_reference, dtype=np.int64),
        residual=residual,
        residual_df=residual_df,
        variance=np.asarray(variance),
        df=df,
        difference_variance=difference[0],
        difference_df=difference[1],
        common=np.nan_to_num(common),
        one_culture=(float(np.mean(unscaled)) if unscaled else np.nan) if is_trend else 2.0,
        is_trend=is_trend,
    )


def _cleared_of_partners(cultures: pd.DataFrame, y: Floats) -> tuple[Floats, float] | None:
    """Moderated variance between cultures without what immune donors change in all MSC donors alike, and its df.

    None unless every MSC donor was co-cultured equally often with each of two or more immune donors: only then do the
    immune donors drop out of every difference between donors' means.
    """
    in_test = (cultures["arm"] == TEST).to_numpy()
    grid = cultures[in_test].value_counts(["msc_donor", "donor"]).unstack("donor")
    n_donors, n_partners = grid.shape
    if n_donors < 2 or n_partners < 2 or grid.isna().any(axis=None) or grid.to_numpy().min() < grid.to_numpy().max():
        return None
    squares, df = np.zeros(y.shape[1]), 0
    for rows, groupings in ((in_test, ("msc_donor", "donor")), (~in_test, ("msc_donor",))):
        scores = pd.DataFrame(y[rows])
        error = scores + (len(groupings) - 1) * scores.mean()
        n_terms = 1
        for name in groupings:
            labels = cultures.loc[rows, name].to_numpy()
            error = error - scores.groupby(labels).transform("mean")
            n_terms += len(set(labels)) - 1
        squares += (error**2).sum(axis=0).to_numpy()
        df += int(rows.sum()) - n_terms
    return moderated_variance(squares / df, df) if df > 0 else None
