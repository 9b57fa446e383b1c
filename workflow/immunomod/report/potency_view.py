"""What tells MSC donors and sources apart, and the second witness to each programme: tables for the page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from immunomod.report.answer import READOUT_ROLES
from immunomod.report.inputs import Contrast, records
from immunomod.report.palette import class_colours, class_label, class_order, diverging, ink_on
from immunomod.report.values import number, numbers, text
from immunomod.report.views import HeatCell, PlainTable, natural_key, plain_table
from immunomod.report.words import FDR_THRESHOLD, interval, plural, probability, signed

#: Parts that the variance of responses is split into, with their colours.
COMPONENTS: Mapping[str, tuple[str, str]] = {
    "source": ("MSC source", "#0072B2"),
    "donor": ("MSC donor", "#E69F00"),
    "dataset": ("data set", "#CC79A7"),
    "culture": ("culture", "#999999"),
}


@dataclass(frozen=True)
class PotencyRow:
    """One programme: the response of each MSC donor, with the ranks that the data leave open."""

    title: str
    cells: list[tuple[HeatCell, str]]


@dataclass(frozen=True)
class Potency:
    """Responses of MSC donors in one contrast and data set. ``notes``: why ranks are missing, once each."""

    heading: str
    donors: list[tuple[str, str]]
    rows: list[PotencyRow]
    limit: float
    notes: list[str]


def potency_tables(potency: pd.DataFrame, titles: pd.Series) -> list[Potency]:
    """Per contrast and data set, programmes by MSC donor, the largest mean response first."""
    if not {"contrast", "dataset", "program", "msc_donor", "response", "status"} <= set(potency):
        return []
    table = potency.assign(response=numbers(potency, "response"))
    found = []
    for (contrast, dataset), part in table.groupby(["contrast", "dataset"], sort=True):
        known = part[np.isfinite(part["response"])]
        if known.empty:
            continue
        named = part.drop_duplicates("msc_donor")
        sources = dict(zip(named["msc_donor"].map(text), named.get("msc_source", named["msc_donor"]), strict=True))
        donors = sorted(sources, key=natural_key)
        size = known["response"].abs().quantile(0.98)
        limit = max(round(float(size), 1), 0.5)
        means = known.groupby("program")["response"].mean().sort_values(ascending=False, kind="stable")
        rows = []
        for program in means.index:
            own = {text(row["msc_donor"]): row for row in records(part[part["program"] == program])}
            cells = [_response(own.get(donor, {}), limit) for donor in donors]
            rows.append(PotencyRow(text(titles.get(program, program)), cells))
        reasons = known.loc[known["status"] != "tested", "reason"].map(text) if "reason" in known else pd.Series()
        notes = [reason for reason in dict.fromkeys(reasons) if reason]
        heading = f"{contrast}, {dataset}"
        shown = [(donor, text(sources[donor]).replace("_", " ")) for donor in donors]
        found.append(Potency(heading, shown, rows, limit, notes))
    return found


def _response(row: Mapping[str, object], limit: float) -> tuple[HeatCell, str]:
    value = number(row.get("response"))
    if not math.isfinite(value):
        return HeatCell("", "#ffffff", "#5b6770"), ""
    background = diverging(value, limit)
    rank, low, high = (number(row.get(name)) for name in ("rank", "rank_low", "rank_high"))
    said = ""
    if np.isfinite([rank, low, high]).all():
        said = f"rank {rank:.0f} ({low:.0f} to {high:.0f})"
    return HeatCell(signed(value), background, ink_on(background)), said


@dataclass(frozen=True)
class VarianceRow:
    """One programme: the share of each component (label, colour, percent), and the same in words with intervals."""

    title: str
    contrast: str
    segments: list[tuple[str, str, float]]
    description: str


@dataclass(frozen=True)
class Variance:
    """How the variance of responses splits; ``notes`` says what could not be told apart."""

    legend: list[tuple[str, str]]
    rows: list[VarianceRow]
    notes: list[str]


def variance_view(variance: pd.DataFrame, titles: pd.Series) -> Variance | None:
    """The split of every programme that has one; none where the run made none."""
    if not {"contrast", "program", "component", "variance", "share", "status"} <= set(variance):
        return None
    table = variance.assign(**{name: numbers(variance, name) for name in ("variance", "share", "ci_low", "ci_high")})
    tested = table[(table["status"] == "tested") & np.isfinite(table["share"])]
    rows = []
    for (contrast, program), part in tested.groupby(["contrast", "program"], sort=False):
        segments, words = [], []
        for row in records(part):
            label, colour = COMPONENTS.get(row["component"], (text(row["component"]), "#7a7a1f"))
            segments.append((label, colour, 100 * float(row["share"])))
            span = f", variance {row['variance']:.2f} ({row['ci_low']:.2f} to {row['ci_high']:.2f})"
            words.append(f"{label} {row['share']:.0%}{span}")
        rows.append(VarianceRow(text(titles.get(program, program)), str(contrast), segments, "; ".join(words)))
    present = [name for name in COMPONENTS if (tested["component"] == name).any()]
    asked = table[table["status"] != "absent"] if (table["status"] != "absent").any() else table
    notes = []
    if "reason" in asked:
        spoken = asked[asked["reason"].map(text) != ""].drop_duplicates(["component", "reason"])
        notes = [f"{_label(row['component'])}: {row['reason']}." for row in records(spoken)]
    return Variance([COMPONENTS[name] for name in present], rows, list(dict.fromkeys(notes)))


def _label(component: object) -> str:
    label = COMPONENTS.get(text(component), (text(component), ""))[0]
    return label[:1].upper() + label[1:]


def suppression_view(suppression: pd.DataFrame, titles: pd.Series) -> tuple[PlainTable | None, str]:
    """What was tested of the responses against measured suppression, or else why nothing was."""
    if not {"program", "status"} <= set(suppression):
        return None, ""
    tested = suppression[suppression["status"] == "tested"]
    if tested.empty:
        reasons = [text(reason) for reason in suppression.get("reason", pd.Series(dtype=object)).unique()]
        return None, "; ".join(reason for reason in reasons if reason)
    named = tested.assign(program=[text(titles.get(name, name)) for name in tested["program"]])
    columns = ("contrast", "dataset", "program", "n_donors", "slope", "ci_low", "ci_high", "correlation", "p_value")
    return plain_table(named, (*columns, "fdr", "r2_cv", "p_value_cv")), ""


@dataclass(frozen=True)
class WitnessRow:
    """One programme in one class: what its effect says, what CAMERA says, and whether they agree."""

    title: str
    where: str
    colour: str
    effect: str
    fdr: str
    camera: str
    camera_fdr: str
    says: str


@dataclass(frozen=True)
class Witness:
    """Rows that either witness calls, and a sentence that counts them."""

    rows: list[WitnessRow]
    summary: str


def second_witness(contrast: Contrast) -> Witness | None:
    """Hold the programme effects beside CAMERA; none where the run did not ask CAMERA."""
    keys = ["dataset", "cell_class", "program"]
    if not {*keys, "statistic", "fdr", "status"} <= set(contrast.enrichment):
        return None
    effects = contrast.effects
    own = effects[(effects["status"] == "tested") & effects["role"].isin(READOUT_ROLES)]
    camera = contrast.enrichment[contrast.enrichment["status"] == "tested"]
    camera = camera.assign(camera=numbers(camera, "statistic"), camera_fdr=numbers(camera, "fdr"))
    both = own.merge(camera[[*keys, "camera", "camera_fdr"]], on=keys, how="inner")
    called, confirmed = both["fdr"] < FDR_THRESHOLD, both["camera_fdr"] < FDR_THRESHOLD
    same = np.sign(both["effect"]) == np.sign(both["camera"])
    says = np.select(
        [called & confirmed & same, called & confirmed, called & same, called, confirmed],
        ["both", "they disagree", "the effect alone, same sign", "the effect alone, other sign", "CAMERA alone"],
        "neither",
    )
    both = both.assign(says=says)
    shown = both[both["says"] != "neither"]
    order = {name: position for position, name in enumerate(class_order(shown["cell_class"]))}
    shown = shown.assign(position=shown["cell_class"].map(order)).sort_values(
        ["position", "effect"], ascending=[True, False], kind="stable"
    )
    colours = class_colours(shown["cell_class"])
    rows = [
        WitnessRow(
            title=row["title"],
            where=class_label(row["cell_class"]),
            colour=colours[row["cell_class"]],
            effect=f"{signed(row['effect'])} ({interval(row['ci_low'], row['ci_high'])})",
            fdr=probability(row["fdr"]),
            camera=signed(row["camera"]),
            camera_fdr=probability(row["camera_fdr"]),
            says=row["says"],
        )
        for row in records(shown)
    ]
    n_called, n_both = int(called.sum()), int((called & confirmed & same).sum())
    n_sign, n_alone = int((called & same).sum()), int((~called & confirmed).sum())
    summary = (
        f"Of the {plural(n_called, 'programme test')} that moved, CAMERA calls {n_both} as well and puts {n_sign} on "
        f"the same side; it calls {n_alone} of its own, of {plural(len(both), 'test')} that both looked at."
    )
    return Witness(rows, summary)
