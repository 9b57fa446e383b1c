"""``immunomod simulate --power``: how many donors does an effect need, from a study's own variance or the simulator's.

*From a finished run* the variation between donors is that of its replicate scores (``program_scores.tsv``): the
residual variance of each programme in each data set and class, paired as the run paired it; for a trend within donors
it is that of their slopes. *From the simulator* it is the variance of simulated studies, and their own tests count how
often a study of each size finds the effect.

Numbers of donors follow in closed form (:mod:`.t_power`). A variance that few donors gave is itself uncertain, so each
number stands beside a cautious one, from the upper 80% limit of the standard deviation. The effect is asked for and
never taken from the data: the power for an effect that was just observed says no more than its p-value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from immunomod.contrast.design import REFERENCE, TEST
from immunomod.contrast.model import fit_linear
from immunomod.errors import UserError
from immunomod.files import read_tsv, write_tsv
from immunomod.simulate.power import ALPHA, draw_studies, power_of
from immunomod.simulate.settings import SimulationSettings
from immunomod.simulate.t_power import check_question, donors_needed, t_power, upper_sd

KEY = ["contrast", "dataset", "cell_class", "program"]
COLUMNS = [
    *("source", *KEY, "design", "donors_now", "sd", "df", "sd_upper", "common_se", "effect", "power_now"),
    *("donors", "donors_cautious", "donors_simulated", "status", "reason"),
]
TESTED, UNREPLICATED, TOO_MANY = "tested", "unreplicated", "too_many"
#: Sizes of simulated studies.
SIMULATED = (2, 3, 4, 6, 8)


def residual_sd(scores: pd.DataFrame) -> pd.DataFrame:
    """Standard deviation between donors of each programme, from replicate scores.

    Parameters
    ----------
    scores
        ``program_scores.tsv``: ``contrast, dataset, cell_class, program, block, arm, score, common_se``.

    Returns
    -------
    One row per contrast, data set, class and programme: ``design`` (``paired``, ``unpaired`` or ``trend``),
    ``donors_now`` (pairs, replicates of the smaller arm, or donors with a slope), ``sd`` (log2 units; of the
    differences between a pair's arms if paired, of the donors' slopes for a trend, else inside an arm; NaN where
    nothing is left to estimate it from), ``df``, ``common_se``.
    """
    rows = []
    for key, part in scores.groupby(KEY, sort=True):
        named = dict(zip(KEY, key, strict=True)) | {"common_se": float(part["common_se"].fillna(0.0).iloc[0])}
        if not part["arm"].isin([TEST, REFERENCE]).all():
            slopes = donor_slopes(part)
            sd = float(slopes.std()) if len(slopes) > 1 else np.nan
            rows.append(named | {"design": "trend", "donors_now": len(slopes), "sd": sd, "df": max(len(slopes) - 1, 0)})
            continue
        in_test = (part["arm"] == TEST).to_numpy()
        both = part.groupby("block")["arm"].nunique()
        paired = bool(len(both) >= 2 and (both == 2).all())
        nuisance = pd.get_dummies(part["block"]).to_numpy(dtype=np.float64) if paired else np.ones((len(part), 1))
        fit = fit_linear(part[["score"]].to_numpy(dtype=np.float64), np.where(in_test, 0.5, -0.5), nuisance)
        now = len(both) if paired else int(min(in_test.sum(), (~in_test).sum()))
        sd = float(np.sqrt((2 if paired else 1) * fit.variance[0]))
        design = "paired" if paired else "unpaired"
        rows.append(named | {"design": design, "donors_now": now, "sd": sd, "df": max(fit.df, 0)})
    return pd.DataFrame(rows, columns=[*KEY, "design", "donors_now", "sd", "df", "common_se"])


def donor_slopes(scores: pd.DataFrame) -> pd.Series:
    """Least-squares slope of each donor (``block``) that has two or more values of the variable (``arm``, as text).

    The workflow tests the mean of these; that of donors with one value each is not planned here.
    """
    values = scores.assign(value=scores["arm"].astype(float))
    centred = values["value"] - values.groupby("block")["value"].transform("mean")
    products = pd.DataFrame({"xy": centred * values["score"], "xx": centred**2}).groupby(values["block"]).sum()
    kept = products[products["xx"] > 0]
    return kept["xy"] / kept["xx"]


def donor_numbers(
    spread: pd.DataFrame, effects: Sequence[float], target: float = 0.8, alpha: float = ALPHA, max_donors: int = 100
) -> pd.DataFrame:
    """Donors that each effect needs, for every row of :func:`residual_sd`.

    Parameters
    ----------
    spread
        The standard deviations.
    effects
        Log2 changes, their signs of no matter; for a trend per unit of its variable.
    target, alpha, max_donors
        Power that is asked for; level of the test; the largest number that is looked at.

    Returns
    -------
    ``donors``: smallest number with the power at the estimated ``sd``; ``donors_cautious``: at ``sd_upper``;
    ``power_now``: with as many donors as there were. Empty where no number up to ``max_donors`` suffices (``status``
    ``too_many``), or nothing tells the variance (``unreplicated``); ``reason`` says so.
    """
    check_question(target, alpha, max_donors)
    columns = ["design", "sd", "df", "common_se", "donors_now"]
    rows = []
    for number, (design, sd, df, common, now) in enumerate(spread[columns].itertuples(index=False)):
        for effect in effects:
            row = {"effect": effect, "status": TESTED, "reason": ""}
            if design == "trend" and df < 1:
                reason = "no two donors have several values of the variable, so that nothing tells how slopes differ"
                row |= {"status": UNREPLICATED, "reason": reason}
            elif df < 1 or not np.isfinite(sd):
                reason = "too few replicates to tell how much donors differ; two donors in each arm are the least"
                row |= {"status": UNREPLICATED, "reason": reason}
            else:
                asked = _Question(effect, design != "unpaired", target, alpha, max_donors, common)
                row |= _numbers(asked, sd, df, now)
            rows.append({"row": number} | row)
    answers = pd.DataFrame(rows, columns=["row", *(name for name in COLUMNS if name not in (*spread, "source"))])
    return spread.reset_index(drop=True).loc[answers["row"]].reset_index(drop=True).join(answers.drop(columns="row"))


@dataclass(frozen=True)
class _Question:
    """What is asked of one programme: an effect, the design, and the terms of the answer."""

    effect: float
    paired: bool
    target: float
    alpha: float
    max_donors: int
    common_se: float

    def donors(self, sd: float, shared: bool = True) -> int | None:
        """Smallest number of donors, with the error that donors share or without it."""
        common = self.common_se if shared else 0.0
        return donors_needed(self.effect, sd, self.paired, self.target, self.alpha, self.max_donors, common)


def _numbers(asked: _Question, sd: float, df: int, now: int) -> dict[str, object]:
    high = upper_sd(sd, df)
    found, cautious = asked.donors(sd), asked.donors(high)
    power = t_power(asked.effect, sd, now, asked.paired, asked.alpha, asked.common_se) if now > 1 else np.nan
    numbers: dict[str, object] = {"sd_upper": high, "power_now": power, "donors": found, "donors_cautious": cautious}
    if found is None:
        reason = f"no number of donors up to {asked.max_donors} has a power of {asked.target:g}"
        if asked.donors(sd, shared=False):
            shared = f"the error that all donors share (partner RNA, {asked.common_se:.2f} log2)"
            reason += f": {shared} is not averaged out by more of them"
        return numbers | {"status": TOO_MANY, "reason": reason}
    if cautious is None:
        reason = f"cautiously, no number up to {asked.max_donors}: the standard deviation is hardly known"
        return numbers | {"reason": reason}
    return numbers


def read_scores(results: Path) -> pd.DataFrame:
    """Replicate scores of all contrasts of a finished run.

    Raises
    ------
    UserError
        The folder is missing or holds none, or they were written by a version that did not name pairs.
    """
    if not results.is_dir():
        raise UserError(f"--from-results {results} is no folder. Name the results folder of a finished run.")
    paths = sorted(results.glob("contrasts/*/program_scores.tsv"))
    if not paths:
        raise UserError(
            f"{results} holds no contrasts/*/program_scores.tsv. Name the results folder of a finished run."
        )
    tables = []
    for path in paths:
        table = read_tsv(path, dtype=dict.fromkeys([*KEY, "sample", "donor", "arm", "block"], str))
        lacking = [name for name in (*KEY, "arm", "block", "score", "common_se") if name not in table]
        if lacking:
            raise UserError(
                f"{path} row 1: there is no column {', '.join(lacking)}; an older version wrote it. Run the workflow "
                "again on this results folder, then ask."
            )
        faulty = pd.to_numeric(table["score"], errors="coerce").isna().to_numpy()
        if faulty.any():
            row = int(np.flatnonzero(faulty)[0]) + 2
            value = table["score"].iloc[row - 2]
            raise UserError(
                f"{path} row {row}, column score: {value!r} is no number. Delete the file, and run the workflow again."
            )
        tables.append(table.astype({"score": float, "common_se": float}))
    return pd.concat(tables, ignore_index=True)


def numbers_from_results(
    results: Path, effects: Sequence[float], target: float = 0.8, alpha: float = ALPHA, max_donors: int = 100
) -> pd.DataFrame:
    """:func:`donor_numbers` with the variance of a finished run's own donors."""
    table = donor_numbers(residual_sd(read_scores(results)), effects, target, alpha, max_donors)
    return table.assign(source="results").reindex(columns=COLUMNS)


def numbers_from_simulation(
    settings: SimulationSettings,
    effects: Sequence[float],
    target: float = 0.8,
    alpha: float = ALPHA,
    max_donors: int = 100,
    n_studies: int = 20,
    sizes: Sequence[int] = SIMULATED,
) -> pd.DataFrame:
    """:func:`donor_numbers` for the programmes that are planted, with the variance of simulated studies.

    Every planted programme changes by the effect, in its own direction. ``donors_simulated`` is the smallest of
    ``sizes`` from which on the workflow's own test, on simulated studies, has the power; empty where none has.
    """
    check_question(target, alpha, max_donors)
    parts = []
    for effect in effects:
        planted = tuple(
            replace(one, log2_change=float(np.copysign(effect, one.log2_change))) for one in settings.effects
        )
        studies = draw_studies(replace(settings, effects=planted, effect_scale=1.0), sizes, n_studies)
        largest = studies.scores[studies.scores["donors"] == max(sizes)]
        spread = _pooled(largest, n_studies)
        table = donor_numbers(spread, [effect], target, alpha, max_donors)
        power = power_of(studies.rows, alpha)
        enough = power[power["power"] >= target].groupby(["cell_class", "program"])["donors"]
        short = power[power["power"] < target].groupby(["cell_class", "program"])["donors"].max()
        simulated = {
            key: min((n for n in found if n > short.get(key, 0)), default=None) for key, found in enough
        }  # fmt: skip
        keys = list(zip(table["cell_class"], table["program"], strict=True))
        planted_rows = set(zip(power["cell_class"], power["program"], strict=True))
        table["donors_simulated"] = [simulated.get(key) for key in keys]
        parts.append(table[[key in planted_rows for key in keys]])
    return pd.concat(parts, ignore_index=True).assign(source="simulation").reindex(columns=COLUMNS)


def _pooled(scores: pd.DataFrame, n_studies: int) -> pd.DataFrame:
    """:func:`residual_sd` of several studies, their variances pooled by degrees of freedom."""
    single = pd.concat(
        [residual_sd(part).assign(study=number) for number, part in scores.groupby("study", sort=True)],
        ignore_index=True,
    )
    single["squares"] = single["sd"] ** 2 * single["df"]
    single["common"] = single["common_se"] ** 2
    pooled = single.groupby([*KEY, "design"], sort=True).agg(
        donors_now=("donors_now", "max"), squares=("squares", "sum"), df=("df", "sum"), common=("common", "mean")
    )
    pooled["sd"] = np.sqrt(pooled["squares"] / pooled["df"].where(pooled["df"] > 0))
    pooled["common_se"] = np.sqrt(pooled["common"])
    return pooled.reset_index()[[*KEY, "design", "donors_now", "sd", "df", "common_se"]]


def donors_command(
    out: Path,
    results: Path | None = None,
    effects: Sequence[float] = (1.0,),
    target: float = 0.8,
    alpha: float = ALPHA,
    max_donors: int = 100,
    studies: int = 20,
    settings: SimulationSettings | None = None,
) -> str:
    """Write the answer to the tab-separated file ``out``; return it in words, the hardest programmes first."""
    check_effects(effects)
    if results is not None:
        table = numbers_from_results(results, effects, target, alpha, max_donors)
    else:
        if studies < 1:
            raise UserError(f"--studies is {studies}: at least 1 is needed")
        settings = settings or SimulationSettings()
        table = numbers_from_simulation(settings, effects, target, alpha, max_donors, studies)
    if out.is_dir():
        raise UserError(f"{out} is a folder. Name a file to write the table to.")
    write_tsv(table.round(4), out)
    return "\n".join([_headline(results, target, alpha), *_lines(table), f"The whole table: {out}"])


def check_effects(effects: Iterable[float]) -> None:
    """Raise a :class:`UserError` unless every effect is a number other than zero."""
    for effect in effects:
        if not np.isfinite(effect) or effect == 0:
            raise UserError(f"--effect is {effect:g}: a log2 change other than 0 is needed, such as 1 (twice as much)")


def _headline(results: Path | None, target: float, alpha: float) -> str:
    whose = f"the donors of {results}" if results is not None else "simulated donors"
    return f"Donors for a power of {target:g} at p < {alpha:g}, from the variation between {whose}:"


def _lines(table: pd.DataFrame, n: int = 12) -> list[str]:
    """The answer per effect, in words."""
    lines = []
    for effect, part in table.groupby("effect", sort=True):
        answered = part[part["status"].isin([TESTED, TOO_MANY])]
        needed = answered["donors"].astype(float).fillna(np.inf).sort_values(ascending=False, kind="stable")
        columns = ["program", "cell_class", "dataset", "design", "donors", "donors_cautious", "reason"]
        for program, cell_class, dataset, design, donors, cautious, reason in answered.loc[
            needed.index[:n], columns
        ].to_numpy():
            what = f"  {effect:g} log2, {program} in {cell_class} ({dataset}, {design})"
            safe = "more than were looked at" if pd.isna(cautious) else f"{int(cautious)}"
            lines.append(
                f"{what}: {reason if pd.isna(donors) else f'{int(donors)} donors; {safe} to be on the safe side'}"
            )
        if len(answered) > n:
            lines.append(f"  {effect:g} log2: {len(answered) - n} more need no more donors than these")
        if silent := len(part) - len(answered):
            lines.append(f"  {effect:g} log2: {silent} without an answer; the table says why")
    return lines
