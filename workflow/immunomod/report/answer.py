"""The answer of each contrast in plain sentences, every number taken from ``program_effects.tsv``.

The sentences follow one rule: estimate, interval and number of donors first; ``cannot tell`` where that is the truth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from immunomod.report.inputs import Contrast, records
from immunomod.report.words import FDR_THRESHOLD, fold, in_class, interval, listing, plural, signed

READOUT_ROLES: tuple[str, ...] = ("readout", "capacity", "exploratory")
N_NAMED = 3
GOOD_SHARE, POOR_SHARE = 0.8, 0.5
STATUS_WORDS = {
    "unreplicated": "too few replicates",
    "too_few_cells": "too few cells",
    "low_coverage": "too few of the programme's genes detected",
    "confounded": "the design confounds the arms with something else",
    "absent": "cells or arms absent",
}


@dataclass(frozen=True)
class Sentence:
    """A lead word (``MSC``, ``How sure``), what it has to say, and the effects that it lists."""

    lead: str
    text: str
    effects: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """Whether the positive controls vouch for the contrast. ``level``: good, mixed, poor or neutral."""

    level: str
    headline: str
    text: str


@dataclass(frozen=True)
class Answer:
    """What the top of the page says of one contrast.

    ``headline``: MSC, immune cells, and how sure, in a sentence each.
    """

    contrast: str
    question: str
    headline: tuple[str, str, str]
    sentences: list[Sentence]
    verdict: Verdict


def answer(contrast: Contrast, samples: pd.DataFrame) -> Answer:
    """Sentences and verdict of one contrast; ``samples`` is the samples sheet."""
    effects = contrast.effects
    tested = effects[(effects["status"] == "tested") & np.isfinite(effects["effect"])]
    readouts = tested[tested["role"].isin(READOUT_ROLES)]
    in_msc = effects["cell_class"] == "MSC"
    sentences = []
    if readouts.empty:
        sentences.append(Sentence("Cannot tell", _nothing_tested(effects)))
    else:
        for lead, part in (("MSC", in_msc), ("Immune cells", ~in_msc)):
            if part.any():
                sentences.append(_what_moved(lead, readouts[part.reindex(readouts.index)], effects[part]))
        sentences.append(Sentence("How sure", _how_sure(readouts)))
        warning = _read_with_care(tested)
        if warning:
            sentences.append(Sentence("Read with care", warning))
    verdict = control_verdict(contrast, tested, samples)
    lines = (
        _headline("the MSC", readouts[readouts["cell_class"] == "MSC"], effects[in_msc]),
        _headline("the immune cells", readouts[readouts["cell_class"] != "MSC"], effects[~in_msc]),
        _trust(readouts, verdict),
    )
    return Answer(contrast.name, question(contrast), lines, sentences, verdict)


def _headline(who: str, readouts: pd.DataFrame, effects: pd.DataFrame) -> str:
    """One sentence on one side of the co-culture: how much moved and what most, or that it cannot be told and why."""
    if readouts.empty:
        why = _main_reasons(effects) if len(effects) else "none were found in both arms"
        return f"What happens to {who} cannot be told: {why}."
    moved = readouts[readouts["fdr"] < FDR_THRESHOLD]
    tests = plural(len(readouts), "programme") if who == "the MSC" else plural(len(readouts), "programme-by-class test")
    if moved.empty:
        half_width = float((readouts["ci_high"] - readouts["ci_low"]).median() / 2)
        limit = f"; half the intervals reach ±{half_width:.1f} log2 units or further" if half_width > 0 else ""
        return (
            f"Whether {who} change cannot be told: none of {tests} is told from zero (fdr < {FDR_THRESHOLD}) with "
            f"{_donors(readouts)}{limit}."
        )
    row = records(moved.loc[[moved["effect"].abs().idxmax()]])[0]
    where = "" if who == "the MSC" else f" in {in_class(str(row['cell_class']))}"
    span = interval(float(row["ci_low"]), float(row["ci_high"]))
    return (
        f"{who[0].upper()}{who[1:]} change: {len(moved)} of {tests} moved, most of all {row['title']}{where}, "
        f"{fold(float(row['effect']))} ({signed(float(row['effect']))} log2 units, 95% interval {span})."
    )


def _trust(readouts: pd.DataFrame, verdict: Verdict) -> str:
    """One sentence on how far to trust the other two."""
    controls = verdict.headline[:1].lower() + verdict.headline[1:]
    if readouts.empty:
        return f"How sure can we be? Not at all: nothing could be tested, and {controls}."
    pairs = readouts["n_pairs"].max()
    few = pairs >= 1 and 2.0 / 2.0**pairs > FDR_THRESHOLD
    lean = "; with so few, an exact test can never reach 0.05, so the calls lean on the model" if few else ""
    return f"How sure can we be? Everything rests on {_donors(readouts)}{lean}; {controls}."


def question(contrast: Contrast) -> str:
    """What was compared with what, in one line."""
    sheet = contrast.sheet
    variable = _plain(sheet.get("variable", ""))
    test, reference = _levels(sheet.get("test", "")), _levels(sheet.get("reference", ""))
    if not variable:
        return "The contrasts sheet has no row of this name."
    if not test:
        comparison = f"Trend with {variable} (effects are per unit of {variable})"
    else:
        against = listing([_plain(level) for level in reference], "or")
        comparison = f"{listing([_plain(level) for level in test])} against {against}"
        if len(reference) > 1:
            comparison += " (each cell class takes the control that contains it)"
    extras = [f"paired by {_plain(sheet.get('pair_by') or 'donor')} where both arms have it"]
    if sheet.get("where"):
        extras.append(f"only where {sheet['where']}")
    if sheet.get("covariates"):
        extras.append(f"adjusted for {sheet['covariates']}")
    return f"{comparison}; {'; '.join(extras)}; data: {sheet.get('dataset', '')}."


def is_trend(contrast: Contrast) -> bool:
    """Whether the contrast asks for a slope along a numeric variable."""
    return bool(contrast.sheet.get("variable", "")) and not contrast.sheet.get("test", "").strip()


def is_coculture(contrast: Contrast, samples: pd.DataFrame) -> bool:
    """Whether the test arm is a co-culture by the sheet's ``culture``; without that column, whether it holds MSC."""
    variable, levels = contrast.sheet.get("variable", ""), _levels(contrast.sheet.get("test", ""))
    datasets = _levels(contrast.sheet.get("dataset", ""))
    if variable in samples and "culture" in samples and levels:
        arm = samples[samples[variable].isin(levels) & samples["dataset"].isin(datasets)]
        if (arm["culture"] != "").any():
            return bool((arm["culture"] == "coculture").any())
    effects = contrast.effects
    return bool(((effects["cell_class"] == "MSC") & (effects["cells_test"] > 0)).any())


def with_fitting_expectations(contrast: Contrast, samples: pd.DataFrame) -> Contrast:
    """``contrast`` without expected signs and positive controls where it is no co-culture; else as it is."""
    if is_coculture(contrast, samples):
        return contrast
    return replace(contrast, effects=contrast.effects.assign(expected_sign="", positive_control=False))


def control_verdict(contrast: Contrast, tested: pd.DataFrame, samples: pd.DataFrame) -> Verdict:
    """Hold the signs of the positive controls against what the literature expects of a co-culture."""
    if not is_coculture(contrast, samples):
        return Verdict(
            "neutral",
            "Expected signs do not apply here",
            "They were written for co-culture with MSC against stimulated cells alone, and this contrast is something "
            "else. They are left out below.",
        )
    controls = tested[tested["positive_control"] & tested["expected_sign"].isin(["+", "-"])]
    if controls.empty:
        return Verdict(
            "neutral",
            "No positive control could be tested",
            "Nothing inside this data set can vouch for the contrast: read every effect below with that in mind.",
        )
    holds = np.sign(controls["effect"]) == controls["expected_sign"].map({"+": 1.0, "-": -1.0})
    excludes_zero = (controls["ci_low"] > 0) | (controls["ci_high"] < 0)
    n_controls, n_hold = len(controls), int(holds.sum())
    n_firm, n_against = int((holds & excludes_zero).sum()), int((~holds & excludes_zero).sum())
    share = n_hold / n_controls
    counts = (
        f"In {n_hold} of {plural(n_controls, 'test')} (programme by cell class) the sign is the expected one; "
        f"{n_firm} of these have an interval that excludes zero. "
        f"{n_against or 'None'} point{'s' if n_against <= 1 else ''} firmly the other way."
    )
    licensing = _licensing(controls)
    if share >= GOOD_SHARE and n_firm and not licensing:
        return Verdict("good", "The positive controls hold", counts)
    if share >= POOR_SHARE and not licensing:
        return Verdict("mixed", "The positive controls hold in part", f"{counts}{_first_misses(controls, holds)}")
    advice = (
        "Before reading further, check the reference and the stimulus: MSC must be held against MSC alone and immune "
        "cells against stimulated immune cells alone; with resting immune cells licensing is about zero."
    )
    return Verdict("poor", "The positive controls do not hold", f"{counts} {licensing}{advice}")


def _licensing(controls: pd.DataFrame) -> str:
    """A warning where MSC show no interferon-gamma licensing, the firmest sign of all; else nothing."""
    core = controls[(controls["program"] == "msc_ifng_core") & (controls["cell_class"] == "MSC")]
    if core.empty or (core["ci_low"] > 0).any():
        return ""
    row = core.iloc[0]
    return (
        f"Licensing of MSC by interferon-gamma, the firmest sign of all, is absent "
        f"({signed(row['effect'])}, 95% interval {interval(row['ci_low'], row['ci_high'])}). "
    )


def _first_misses(controls: pd.DataFrame, holds: pd.Series) -> str:
    misses = controls[~holds].sort_values("effect", key=np.abs, ascending=False).head(N_NAMED)
    if misses.empty:
        return ""
    named = [f"{row['title']} in {in_class(row['cell_class'])}" for row in records(misses)]
    return f" Against expectation: {listing(named)}."


def _what_moved(lead: str, readouts: pd.DataFrame, effects: pd.DataFrame) -> Sentence:
    if readouts.empty:
        return Sentence(lead, f"Cannot tell: {_main_reasons(effects)}.")
    moved = readouts[readouts["fdr"] < FDR_THRESHOLD].sort_values("effect", key=np.abs, ascending=False, kind="stable")
    classes = readouts["cell_class"].nunique()
    several = readouts["dataset"].nunique() > 1
    across = "" if lead == "MSC" else f" over {plural(classes, 'cell class', 'cell classes')}"
    if moved.empty:
        half_width = float((readouts["ci_high"] - readouts["ci_low"]).median() / 2)
        limit = f" Half the intervals reach ±{half_width:.1f} or further:" if math.isfinite(half_width) else ""
        return Sentence(
            lead,
            f"Cannot tell. None of {plural(len(readouts), 'test')}{across} reached fdr < {FDR_THRESHOLD} with "
            f"{_donors(readouts)}.{limit} a smaller change cannot be told from none."
            if limit
            else f"Cannot tell. None of {plural(len(readouts), 'test')}{across} reached fdr < {FDR_THRESHOLD}.",
        )
    named = tuple(_named_effect(row, lead, several) for row in records(moved.head(N_NAMED)))
    verb = "programme moved" if len(moved) == 1 else "programmes moved"
    if lead != "MSC":
        verb = "programme-by-class test moved" if len(moved) == 1 else "programme-by-class tests moved"
    largest = " The largest:" if len(moved) > N_NAMED else ""
    return Sentence(lead, f"{len(moved)} of {len(readouts)} {verb}{across}.{largest}", named)


def _named_effect(row: dict[str, Any], lead: str, several: bool) -> str:
    effect = float(row["effect"])
    where = "" if lead == "MSC" else f" in {in_class(str(row['cell_class']))}"
    where += f" ({row['dataset']})" if several else ""
    span = interval(float(row["ci_low"]), float(row["ci_high"]))
    pairs = _replicates(row)
    return f"{row['title']}{where}: {signed(effect)} log2, {fold(effect)} (95% interval {span}; {pairs})."


def _replicates(row: dict[str, Any]) -> str:
    pairs = _whole(row["n_pairs"])
    if pairs:
        return plural(pairs, "donor pair")
    return f"{_whole(row['n_test'])} against {plural(_whole(row['n_reference']), 'replicate')}"


def _donors(rows: pd.DataFrame) -> str:
    pairs = rows["n_pairs"].fillna(0).astype(int)
    if (pairs > 0).any():
        low, high = int(pairs[pairs > 0].min()), int(pairs.max())
        return plural(high, "donor pair") if low == high else f"{low} to {high} donor pairs"
    low, high = _whole(rows["n_test"].min()), _whole(rows["n_test"].max())
    return f"{low if low == high else f'{low} to {high}'} replicates in the test arm"


def _how_sure(readouts: pd.DataFrame) -> str:
    parts = [f"Everything rests on {_donors(readouts)}; cells are never counted as replicates."]
    moved = readouts[readouts["fdr"] < FDR_THRESHOLD]
    paired = moved[moved["n_pairs"] >= 2]
    if len(paired):
        floor = 2.0 / 2.0 ** paired["n_pairs"]
        unanimous = int((paired["p_sign_flip"] <= floor * 1.001).sum())
        parts.append(
            f"In {unanimous} of the {plural(len(paired), 'change')} called, every donor moved the same way "
            f"(the exact sign-flip p is at its floor of {float(floor.min()):.3g})."
        )
        if floor.min() > FDR_THRESHOLD:
            parts.append(
                "With so few donors that exact test can never reach 0.05: the calls lean on the model's assumptions."
            )
    return " ".join(parts)


def _read_with_care(tested: pd.DataFrame) -> str:
    moved = tested[~tested["role"].isin(READOUT_ROLES) & (tested["fdr"] < FDR_THRESHOLD)]
    if moved.empty:
        return ""
    moved = moved.sort_values("effect", key=np.abs, ascending=False, kind="stable")
    named = [
        f"{row['title']} in {in_class(row['cell_class'])} ({signed(row['effect'])})"
        for row in records(moved.head(N_NAMED))
    ]
    more = f", and {len(moved) - N_NAMED} more" if len(moved) > N_NAMED else ""
    text = f"Programmes that should stand still or explain other changes moved as well: {', '.join(named)}{more}."
    if moved["program"].str.startswith("qc_").any():
        text += " Partner RNA that leaked into the droplets may account for part of the effects."
    return text


def _nothing_tested(effects: pd.DataFrame) -> str:
    if effects.empty:
        return "The contrast has no rows: no cell class was found in both arms."
    return f"None of {plural(len(effects), 'row')} could be tested: {_main_reasons(effects)}."


def _main_reasons(effects: pd.DataFrame) -> str:
    untested = effects[effects["status"] != "tested"]
    if untested.empty:
        return "no readout programme applies to these cells"
    relevant = untested[untested["status"] != "absent"]
    counts = (relevant if len(relevant) else untested)["status"].value_counts()
    return listing([f"{STATUS_WORDS.get(str(status), str(status))} ({n:,} rows)" for status, n in counts.items()])


def _levels(value: str) -> list[str]:
    return [level.strip() for level in value.split(",") if level.strip()]


def _plain(level: str) -> str:
    return level.replace("_", " ")


def _whole(value: Any) -> int:
    number = float(value)
    return int(number) if math.isfinite(number) else 0


def total_donors(contrasts: Sequence[Contrast]) -> int:
    """Largest number of replicates in any tested stratum."""
    numbers = [c.effects.loc[c.effects["status"] == "tested", ["n_pairs", "n_test"]].max().max() for c in contrasts]
    return max((int(n) for n in numbers if np.isfinite(n)), default=0)
