"""Potency: how strongly each MSC donor answers co-culture, and what that response says about donors and sources.

Three tables from the scores of single MSC libraries (``msc_scores.tsv``). *Potency*: per contrast, data set, class,
programme and MSC donor the response, its interval and its rank (:mod:`.responses`, :mod:`.shrink`, :mod:`.ranks`).
*Suppression*: whether responses tell the suppression that was measured (:mod:`.suppression`). *Variance*: how much of
the variation lies between sources, donors, data sets and cultures (:mod:`.variance_components`).

Programmes stay apart: a sum over them would contradict itself, since some capacities fall as licensing rises. Every
donor that the sheet names has a row for every programme of the MSC; where there is no estimate the row says why.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from immunomod.contrast.model import benjamini_hochberg
from immunomod.files import read_tsv
from immunomod.synthesis.ranks import rank_intervals, rank_of
from immunomod.synthesis.responses import DonorResponses, donor_responses
from immunomod.synthesis.settings import PotencySettings
from immunomod.synthesis.shrink import shrink
from immunomod.synthesis.suppression import MIN_DONORS, associate
from immunomod.synthesis.variance_components import error_contrasts, variance_components

Floats = NDArray[np.float64]

STRATUM = ["contrast", "dataset", "cell_class"]
KEY = [*STRATUM, "program"]
INTERVAL = ["response", "se", "ci_low", "ci_high", "df", "shrunken"]
RANK = ["rank", "rank_low", "rank_high", "n_ranked"]
POTENCY_COLUMNS = [
    *(*KEY, "role", "expected_sign", "msc_donor", "msc_source", "n_test", "n_reference"),
    *(*INTERVAL, *RANK, "status", "reason"),
]
ASSOCIATION = ["slope", "ci_low", "ci_high", "correlation", "p_value", "r2_cv", "error_cv", "p_value_cv"]
SUPPRESSION_COLUMNS = [*KEY, "role", "n_donors", *ASSOCIATION, "fdr", "status", "reason"]
SPLIT = ["contrast", "cell_class", "program"]
COMPONENTS = ["source", "donor", "dataset", "culture"]
VARIANCE_COLUMNS = [
    *(*SPLIT, "organism", "role", "component", "levels", "n_responses"),
    *("variance", "ci_low", "ci_high", "share", "status", "reason"),
]
TESTED, UNREPLICATED, ABSENT, CONFOUNDED = "tested", "unreplicated", "absent", "confounded"
#: Statuses of a programme's effect under which there are no scores.
NO_SCORES = ("absent", "too_few_cells", "low_coverage")
MIN_RESPONSES = 3
ONE_CULTURE = (
    "no MSC donor has two cultures in an arm, so how far a donor's response can be repeated is not known; culture at "
    "least one of them twice (with another immune donor, or on another day)"
)
TEXTS = [*KEY, "sample", "donor", "arm"]


@dataclass(frozen=True)
class Potency:
    """The tables ``potency.tsv``, ``suppression.tsv`` and ``variance.tsv``."""

    potency: pd.DataFrame
    suppression: pd.DataFrame
    variance: pd.DataFrame


@dataclass(frozen=True)
class _Stratum:
    """One contrast, data set and class: its effects' rows (one per programme), and the donors' responses, if any."""

    labels: dict[str, str]
    effects: pd.DataFrame
    fit: DonorResponses | None
    cultures: pd.DataFrame


def read_scores(paths: Iterable[str | Path]) -> pd.DataFrame:
    """``msc_scores.tsv`` of several contrasts, one below the other; names that look like numbers stay text."""
    return pd.concat([read_tsv(path, dtype=dict.fromkeys(TEXTS, str)) for path in paths], ignore_index=True)


def rank_potency(
    scores: pd.DataFrame,
    effects: pd.DataFrame,
    samples: pd.DataFrame,
    programs: pd.DataFrame,
    settings: PotencySettings,
    confidence: float = 0.95,
    seed: int = 1,
) -> Potency:
    """Answer all three questions.

    Parameters
    ----------
    scores
        ``msc_scores.tsv`` of all contrasts.
    effects
        ``program_effects.tsv`` of all contrasts: which programmes there are, and why some have no scores.
    samples
        The sheet, as text: ``sample, dataset``; and ``msc_donor, msc_source, organism, suppression``, which may be
        absent or empty.
    programs
        One row per programme, indexed by it: ``compartment``. Those of the MSC are looked at.
    settings, confidence, seed
        The ``potency`` section of the config; level of the intervals; of every random choice.
    """
    samples = samples.reindex(columns=["sample", "dataset", "msc_donor", "msc_source", "organism", "suppression"])
    samples = samples.fillna("").astype(str)
    donors = _donors(samples)
    of_msc = set(map(str, programs.index[programs["compartment"] == "MSC"]))
    strata = list(_strata(scores, effects, samples, of_msc))
    rows = [row for stratum in strata for row in _potency_rows(stratum, donors, settings, confidence, seed)]
    found = [row for stratum in strata for row in _suppression_rows(stratum, donors, settings, confidence, seed)]
    organisms = dict(zip(samples["dataset"], samples["organism"].replace("", "human"), strict=True))
    suppression = pd.DataFrame(found, columns=SUPPRESSION_COLUMNS)
    suppression["fdr"] = _fdr(suppression)
    return Potency(
        potency=pd.DataFrame(rows, columns=POTENCY_COLUMNS),
        suppression=suppression,
        variance=pd.DataFrame(
            _variance_rows(strata, donors, organisms, settings, confidence, seed), columns=VARIANCE_COLUMNS
        ),
    )


def _donors(samples: pd.DataFrame) -> pd.DataFrame:
    """Per data set and MSC donor: ``msc_source`` (several joined by ``+``), mean of its ``suppression`` values."""
    named = samples[samples["msc_donor"] != ""].sort_values(["dataset", "msc_donor", "sample"])
    rows = [
        {
            "dataset": dataset,
            "msc_donor": donor,
            "msc_source": "+".join(sorted(set(of_donor["msc_source"]) - {""})),
            "suppression": pd.to_numeric(of_donor["suppression"], errors="coerce").mean(),
        }
        for (dataset, donor), of_donor in named.groupby(["dataset", "msc_donor"], sort=True)
    ]
    return pd.DataFrame(rows, columns=["dataset", "msc_donor", "msc_source", "suppression"])


def _strata(
    scores: pd.DataFrame, effects: pd.DataFrame, samples: pd.DataFrame, programs: set[str]
) -> Iterator[_Stratum]:
    """The strata whose class runs programmes of the MSC, sorted."""
    line = dict(zip(samples["sample"], samples["msc_donor"], strict=True))
    scores = scores.assign(msc_donor=scores["sample"].map(line).fillna(""))
    parts = dict(list(scores.groupby(STRATUM, sort=True)))
    for key, rows in effects[effects["program"].isin(programs)].groupby(STRATUM, sort=True):
        part = parts.get(key, scores.iloc[:0])
        part = part[(part["msc_donor"] != "") & part["program"].isin(set(rows["program"]))]
        cultures = part.drop_duplicates(["sample", "donor"])[["msc_donor", "arm"]]
        fit = donor_responses(part) if len(part) else None
        labels = dict(zip(STRATUM, map(str, key), strict=True))
        yield _Stratum(labels, rows.sort_values("program"), fit if fit and fit.donors else None, cultures)


def _records(table: pd.DataFrame) -> list[dict[str, object]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _seed(seed: int, *names: str) -> int:
    return zlib.crc32("|".join([str(seed), *names]).encode())


def _potency_rows(
    stratum: _Stratum, donors: pd.DataFrame, settings: PotencySettings, confidence: float, seed: int
) -> Iterator[dict[str, object]]:
    own = donors[donors["dataset"] == stratum.labels["dataset"]]
    for effect in _records(stratum.effects):
        program = str(effect["program"])
        labels = {
            **stratum.labels,
            "program": program,
            "role": effect["role"],
            "expected_sign": effect["expected_sign"],
        }
        if own.empty:
            reason = f"no row of data set {stratum.labels['dataset']} names an msc_donor; fill the column in"
            yield labels | {"msc_donor": "", "msc_source": "", "status": ABSENT, "reason": reason}
            continue
        estimates = _estimates(stratum, program, str(effect["expected_sign"]), settings, confidence, seed)
        for donor, source in zip(own["msc_donor"], own["msc_source"], strict=True):
            found = estimates.get(donor)
            row = labels | {"msc_donor": donor, "msc_source": source}
            yield row | _settle(stratum, effect, donor, found)


def _settle(
    stratum: _Stratum, effect: Mapping[str, object], donor: str, found: dict[str, object] | None
) -> dict[str, object]:
    """A donor's estimates with their status, or the status and reason that stand in their place."""
    if effect["status"] in NO_SCORES or found is None:
        if effect["status"] in NO_SCORES:
            return {"status": effect["status"], "reason": effect["reason"]}
        arms = set(stratum.cultures.loc[stratum.cultures["msc_donor"] == donor, "arm"])
        missing = "in the contrast" if not arms else f"beside its cultures in {' and '.join(sorted(arms))}"
        return {"status": ABSENT, "reason": f"no culture of {donor} {missing} with enough cells of the class"}
    if effect["status"] == CONFOUNDED:
        kept = {name: found[name] for name in ("response", "n_test", "n_reference")}
        return kept | {"status": CONFOUNDED, "reason": effect["reason"]}
    return found


def _estimates(
    stratum: _Stratum, program: str, expected: str, settings: PotencySettings, confidence: float, seed: int
) -> dict[str, dict[str, object]]:
    """Per donor its response, interval and rank for one programme."""
    fit = stratum.fit
    if fit is None or program not in fit.programs:
        return {}
    column = fit.programs.index(program)
    response = fit.response[:, column]
    direction = -1.0 if expected == "-" else 1.0
    sizes = {"n_test": fit.n_test, "n_reference": fit.n_reference}
    table = pd.DataFrame({"response": response, **sizes, "n_ranked": len(response)}, index=fit.donors)
    if not fit.residual_df:
        table["rank"] = rank_of(direction * response)
        table["status"], table["reason"] = UNREPLICATED, ONE_CULTURE
        return {str(name): dict(row) for name, row in table.astype(object).iterrows()}
    own = fit.variance[column] * fit.unscaled
    common = fit.common[column]
    with np.errstate(divide="ignore", invalid="ignore"):
        df = np.where(own > 0, fit.df * ((own + common) / own) ** 2, fit.df)
    table["se"] = np.sqrt(own + common)
    table["df"] = np.minimum(df, 1e6)
    half = stats.t.ppf((1 + confidence) / 2, table["df"]) * table["se"]
    table["ci_low"], table["ci_high"] = response - half, response + half
    table["shrunken"] = shrink(response, own)
    drawn = _seed(seed, *stratum.labels.values(), program)
    between = fit.difference_variance[column] * fit.unscaled
    ranks = rank_intervals(direction * response, between, fit.difference_df, confidence, settings.n_draws, drawn)
    table["rank"], table["rank_low"], table["rank_high"] = ranks.rank, ranks.low, ranks.high
    table["status"], table["reason"] = TESTED, ""
    return {str(name): dict(row) for name, row in table.astype(object).iterrows()}


def _suppression_rows(
    stratum: _Stratum, donors: pd.DataFrame, settings: PotencySettings, confidence: float, seed: int
) -> Iterator[dict[str, object]]:
    own = donors[(donors["dataset"] == stratum.labels["dataset"]) & donors["suppression"].notna()]
    measured = dict(zip(own["msc_donor"], own["suppression"], strict=True))
    for effect in _records(stratum.effects):
        program = str(effect["program"])
        row = {**stratum.labels, "program": program, "role": effect["role"], "n_donors": 0}
        if not measured:
            reason = f"the samples sheet gives no suppression for data set {stratum.labels['dataset']}"
            yield row | {"status": ABSENT, "reason": reason}
            continue
        if effect["status"] in (*NO_SCORES, CONFOUNDED):
            yield row | {"status": effect["status"], "reason": effect["reason"]}
            continue
        fit = stratum.fit
        both = [donor for donor in fit.donors if donor in measured] if fit and program in fit.programs else []
        row["n_donors"] = len(both)
        if fit is None or len(both) < MIN_DONORS:
            reason = f"{len(both)} MSC donors with a response and a suppression; {MIN_DONORS} are needed"
            yield row | {"status": UNREPLICATED, "reason": reason}
            continue
        response = fit.response[[fit.donors.index(donor) for donor in both], fit.programs.index(program)]
        values = np.array([measured[donor] for donor in both], dtype=np.float64)
        drawn = _seed(seed, "suppression", *stratum.labels.values(), program)
        found = associate(response, values, settings.n_permutations, confidence, drawn)
        if found is None:
            reason = "response or suppression does not vary between donors, or through one donor alone"
            yield row | {"status": UNREPLICATED, "reason": reason}
            continue
        yield row | {name: getattr(found, name) for name in ASSOCIATION} | {"status": TESTED, "reason": ""}


def _fdr(table: pd.DataFrame) -> Floats:
    """Benjamini-Hochberg over the programmes of one contrast, data set and role."""
    fdr = np.full(len(table), np.nan)
    for rows in table.groupby(["contrast", "dataset", "role"], sort=False).indices.values():
        fdr[rows] = benjamini_hochberg(table["p_value"].to_numpy(dtype=np.float64)[rows])
    return fdr


def _variance_rows(
    strata: list[_Stratum],
    donors: pd.DataFrame,
    organisms: Mapping[str, str],
    settings: PotencySettings,
    confidence: float,
    seed: int,
) -> Iterator[dict[str, object]]:
    """One row per component, over the data sets of a contrast; species are kept apart."""
    groups: dict[tuple[str, str, str, str], list[tuple[_Stratum, Mapping[str, object]]]] = {}
    for stratum in strata:
        for effect in _records(stratum.effects):
            organism = organisms.get(stratum.labels["dataset"], "human")
            name = (stratum.labels["contrast"], stratum.labels["cell_class"], str(effect["program"]), organism)
            groups.setdefault(name, []).append((stratum, effect))
    source = {(row[0], row[1]): row[2] for row in donors[["dataset", "msc_donor", "msc_source"]].to_numpy()}
    for name in sorted(groups):
        labels = dict(zip([*SPLIT, "organism"], name, strict=True)) | {"role": groups[name][0][1]["role"]}
        usable = [
            (stratum, stratum.fit)
            for stratum, effect in groups[name]
            if effect["status"] not in (*NO_SCORES, CONFOUNDED)
            and stratum.fit is not None
            and str(effect["program"]) in stratum.fit.programs
        ]
        yield from _split(labels, usable, source, settings, confidence, _seed(seed, "variance", *name))


def _split(
    labels: dict[str, object],
    usable: list[tuple[_Stratum, DonorResponses]],
    source: Mapping[tuple[str, str], str],
    settings: PotencySettings,
    confidence: float,
    seed: int,
) -> Iterator[dict[str, object]]:
    program = str(labels["program"])
    units = [(stratum.labels["dataset"], donor) for stratum, fit in usable for donor in fit.donors]
    n = len(units)
    levels: dict[str, list[object]] = {
        "dataset": [dataset for dataset, _ in units],
        "donor": [donor if settings.shared_donors else (dataset, donor) for dataset, donor in units],
        "source": [source.get(unit, "") or ("unknown", *unit) for unit in units],
    }
    unknown = sum(isinstance(level, tuple) for level in levels["source"])
    if unknown:
        levels["source"] = ["" for _ in units]
    counts = {name: len(set(values)) for name, values in levels.items()}
    rows = {name: labels | {"component": name, "levels": counts.get(name, 0), "n_responses": n} for name in COMPONENTS}
    scatter_df = sum(fit.residual_df for _, fit in usable)
    rows["culture"]["levels"] = sum(int((fit.n_test + fit.n_reference).sum()) for _, fit in usable)
    if n < MIN_RESPONSES:
        reason = f"{n} MSC donors with a response; {MIN_RESPONSES} are needed"
        yield from (row | {"status": ABSENT if n == 0 else UNREPLICATED, "reason": reason} for row in rows.values())
        return
    at = [fit.programs.index(program) for _, fit in usable]
    response = np.concatenate([fit.response[:, k] for (_, fit), k in zip(usable, at, strict=True)])
    one_culture = float(np.mean([fit.one_culture for _, fit in usable]))
    unscaled = np.concatenate([fit.unscaled for _, fit in usable]) / one_culture
    squares = sum(fit.residual[k] * fit.residual_df for (_, fit), k in zip(usable, at, strict=True) if fit.residual_df)
    scatter = float(squares) / scatter_df * one_culture if scatter_df else 0.0
    contrasts, left_out = error_contrasts(
        response, {name: levels[name] for name in ("donor", "dataset", "source")}, "culture", unscaled, scatter,
        scatter_df,
    )  # fmt: skip
    found = variance_components(contrasts, confidence, settings.n_bootstrap, seed)
    total = sum(component.variance for component in found.values())
    for name in COMPONENTS:
        if name in found:
            one = found[name]
            notes = [f"holds the part of {other} too, which changes with it" for other, held in left_out.items()
                     if held and name in held.split("+")]  # fmt: skip
            if name == "donor" and not scatter_df:
                notes.append("holds the variation between cultures too: " + ONE_CULTURE)
            share = one.variance / total if total > 0 else np.nan
            numbers = {"variance": one.variance, "ci_low": one.low, "ci_high": one.high, "share": share}
            yield rows[name] | numbers | {"status": TESTED, "reason": "; ".join(notes)}
        elif name == "culture":
            yield rows[name] | {"status": UNREPLICATED, "reason": ONE_CULTURE}
        elif name == "source" and unknown:
            reason = f"{unknown} of {n} MSC donors have no msc_source in the samples sheet; fill the column in"
            yield rows[name] | {"levels": 0, "status": ABSENT, "reason": reason}
        elif left_out[name]:
            reason = f"cannot be told from {left_out[name].replace('+', ' and ')}: they change together"
            yield rows[name] | {"status": CONFOUNDED, "reason": reason}
        else:
            yield rows[name] | {"status": ABSENT, "reason": f"one {name} only: nothing to compare"}
