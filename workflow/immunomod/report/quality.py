"""The samples as the page shows them: their limits over their distributions, what each step removed, what leaked.

No statistic is computed here. Results of older runs lack some columns and files: what is absent is not shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from immunomod.report import draw
from immunomod.report.inputs import ReportTables, as_bool, records
from immunomod.report.values import number, numbers, text
from immunomod.report.words import count, listing, plural
from immunomod.sample.summary import FILTERS, NOT_OF_THE_SAMPLE

Row = Mapping[str, object]
PASS, WARN, FAIL = "pass", "warn", "fail"
LEFT_OUT = "left out of every contrast"
KEPT_ALL_THE_SAME = "kept in the contrasts all the same (qc.keep_failed)"


@dataclass(frozen=True)
class Metric:
    """A measure of single cells.

    ``log``: shown on a scale of log10. ``narrowest``: least width of its axis. ``aliases``: how columns of its limits
    may be named. ``main``: stands in the first table.
    """

    name: str
    title: str
    log: bool = False
    narrowest: float = 1.0
    aliases: tuple[str, ...] = ()
    main: bool = False


METRICS: tuple[Metric, ...] = (
    Metric("total_counts", "RNA molecules per cell", True, 0.5, ("counts",), main=True),
    Metric("n_genes_by_counts", "Genes per cell", True, 0.5, ("n_genes", "genes"), main=True),
    Metric("pct_counts_mt", "Mitochondrial %", False, 5.0, ("pct_mt", "mt"), main=True),
    Metric("doublet_score", "Doublet score", False, 0.1, ("doublet",), main=True),
    Metric("pct_counts_ribo", "Ribosomal %", False, 5.0),
    Metric("pct_counts_hb", "Haemoglobin %", False, 1.0),
    Metric("complexity", "Complexity", False, 0.1),
    Metric("partner_doublet_score", "Partner's RNA beyond leakage", False, 0.1),
)
#: Where a limit came from, in a word or two.
LIMIT_SOURCES: Mapping[str, str] = {
    "mad": "own spread",
    "min": "floor",
    "enough": "held down",
    "spared": "held up",
    "max": "ceiling",
    "fixed": "fixed, too few cells",
    "sheet": "your sheet",
    "none": "",
}
#: Why droplets left, after their number.
STEP_WORDS: Mapping[str, str] = {
    "empty_droplet": "empty droplets",
    "other_species": "other species",
    "species_doublet": "two species",
    "species_undecided": "species undecided",
    "hashtag_doublet": "two hashtags",
    "hashtag_negative": "no sure hashtag",
    "other_hashtag": "another sample's hashtag",
    "donor_conflict": "hashtag against genotype",
    "not_in_cells_table": "not in the per-cell table",
    "no_donor": "no donor",
    "author_doublet": "the authors' doublets",
    "low_counts": "few molecules",
    "high_counts": "many molecules",
    "low_genes": "few genes",
    "high_genes": "many genes",
    "high_mt": "mitochondrial",
    "high_ribo": "ribosomal",
    "high_hb": "haemoglobin",
    "low_complexity": "low complexity",
    "doublet": "doublets",
    "partner_doublet": "MSC-immune doublets",
}
KIND_LABELS: Mapping[str, str] = {"MSC": "MSC", "T_NK": "T and NK", "B": "B", "myeloid": "Myeloid"}
_NOT_STEPS = {"cells_before", "cells_after", "cells_called"}


@dataclass(frozen=True)
class Limit:
    """One limit on a metric: ``side`` is ``lower`` or ``upper``; ``origin`` as in ``qc.tsv``, maybe empty."""

    side: str
    value: float
    origin: str

    @property
    def words(self) -> str:
        """``≥ 350 (floor)``."""
        sign = "≥" if self.side == "lower" else "≤"
        shown = f"{self.value:,.0f}" if self.value >= 100 else f"{self.value:.3g}"
        source = LIMIT_SOURCES.get(self.origin, self.origin)
        return f"{sign} {shown}" + (f" ({source})" if source else "")


@dataclass(frozen=True)
class Step:
    """Droplets that one step took. ``of_sample``: whether they held a cell of the sample as far as was known then."""

    name: str
    words: str
    n: int
    of_sample: bool


@dataclass(frozen=True)
class Histogram:
    """A metric of one sample: its drawing and the lines below it."""

    title: str
    drawing: Markup
    ticks: Markup
    lines: list[str]


@dataclass(frozen=True)
class SampleQuality:
    """One sample. ``fate`` is empty unless it failed; ``reasons`` are one clause each."""

    sample: str
    verdict: str
    fate: str
    reasons: list[str]
    main: list[Histogram]
    further: list[Histogram]
    kept: str
    kept_percent: str
    steps: list[str]


@dataclass(frozen=True)
class LeakageCell:
    """Leaked RNA in one kind of cell: a bar, and the two shares in words."""

    drawing: Markup
    ambient: str
    partner: str
    n_cells: str


@dataclass(frozen=True)
class Leakage:
    """Leaked RNA of all samples on one axis: the kinds of cell (columns), and per sample a cell for each."""

    kinds: list[str]
    axis: Markup
    rows: list[tuple[str, list[LeakageCell | None]]]


@dataclass(frozen=True)
class Quality:
    """All samples on shared axes.

    ``failed``: failed samples with their reasons; ``fate``: what became of these. ``facts``: header and rows of what
    else is known of the samples.
    """

    summary: str
    failed: list[str]
    fate: str
    main_titles: list[str]
    further_titles: list[str]
    samples: list[SampleQuality]
    leakage: Leakage | None
    facts: tuple[list[str], list[list[str]]]


def quality(tables: ReportTables) -> Quality:
    """QC of every sample, in the order of ``qc``."""
    qc = tables.qc
    cells = {sample: of_sample(table) for sample, table in tables.cells.items()}
    known = [one for one in METRICS if any(numbers(table, one.name).notna().any() for table in cells.values())]
    known = known or [one for one in METRICS if one.main]
    axes = {one.name: _metric_axis(one, [metric_values(table, one) for table in cells.values()]) for one in known}
    keeps_failed = keep_failed(tables.config)
    samples = [
        _sample_quality(row, cells.get(str(row["sample"]), pd.DataFrame()), known, axes, keeps_failed)
        for row in records(qc)
    ]
    return Quality(
        summary=_summary(samples),
        failed=[f"{s.sample}: {'; '.join(s.reasons)}" for s in samples if s.verdict == FAIL],
        fate=fate_of(FAIL, keeps_failed=keeps_failed),
        main_titles=[one.title for one in known if one.main],
        further_titles=[one.title for one in known if not one.main],
        samples=samples,
        leakage=leakage(qc, tables.ambient),
        facts=_facts(qc),
    )


def keep_failed(config: Mapping[str, object]) -> bool:
    """Whether failed samples take part in the contrasts all the same."""
    section = config.get("qc")
    return bool(section.get("keep_failed", False)) if isinstance(section, Mapping) else False


def fate_of(verdict: str, *, keeps_failed: bool) -> str:
    """What became of a failed sample, in words; empty for any other."""
    if verdict != FAIL:
        return ""
    return KEPT_ALL_THE_SAME if keeps_failed else LEFT_OUT


def of_sample(cells: pd.DataFrame) -> pd.DataFrame:
    """Droplets that held a cell of the sample: the limits were found among these, without empty droplets."""
    if "reason" not in cells:
        return cells
    return cells[~cells["reason"].isin(NOT_OF_THE_SAMPLE)]


def kept_cells(cells: pd.DataFrame) -> NDArray[np.bool_]:
    """Which cells stayed; all where the table does not say."""
    return as_bool(cells["kept"]) if "kept" in cells else np.ones(len(cells), dtype=bool)


def metric_values(cells: pd.DataFrame, metric: Metric) -> NDArray[np.float64]:
    """A metric of each cell on the scale on which it is shown."""
    values: NDArray[np.float64] = numbers(cells, metric.name).to_numpy(dtype=float)
    return np.log10(np.maximum(values, 1.0)) if metric.log else values


def limits_of(row: Row, metric: Metric) -> list[Limit]:
    """Limits of ``metric`` in a row of ``qc.tsv``; the threshold of the doublet score is one of them."""
    found = []
    for side, words in (("lower", ("lower", "min")), ("upper", ("upper", "max"))):
        names = [name for one in (metric.name, *metric.aliases) for w in words for name in (f"{one}_{w}", f"{w}_{one}")]
        present = [name for name in names if math.isfinite(number(row.get(name)))]
        if present:
            name = present[0]
            origins = (text(row.get(f"{name}_{word}")) for word in ("from", "source", "origin"))
            found.append(Limit(side, number(row[name]), next((origin for origin in origins if origin), "")))
    threshold = number(row.get("doublet_threshold"))
    if metric.name == "doublet_score" and not found and math.isfinite(threshold):
        found.append(Limit("upper", threshold, text(row.get("doublet_method"))))
    return found


def steps_of(row: Row) -> list[Step]:
    """The steps that took droplets, in their order; steps of which this report knows nothing come last."""
    named = [name.removeprefix("cells_") for name in row if name.startswith("cells_") and name not in _NOT_STEPS]
    ordered = [*(name for name in FILTERS if name in named), *(name for name in named if name not in FILTERS)]
    taken = [(name, number(row[f"cells_{name}"])) for name in ordered]
    return [
        Step(name, STEP_WORDS.get(name, name.replace("_", " ")), int(n), name not in NOT_OF_THE_SAMPLE)
        for name, n in taken
        if n > 0
    ]


def reasons_of(row: Row) -> list[str]:
    """The verdict's reasons and notes, one clause each."""
    return [clause for clause in text(row.get("reason")).split("; ") if clause]


def doublet_lines(row: Row) -> list[str]:
    """Called doublets against those expected."""
    called, expected = number(row.get("doublet_rate")), number(row.get("expected_doublet_rate"))
    if not math.isfinite(called):
        return []
    return [f"{percent(called)} called" + (f", {percent(expected)} expected" if math.isfinite(expected) else "")]


def partner_lines(row: Row) -> list[str]:
    """Called MSC-immune doublets."""
    called = number(row.get("partner_doublet_rate"))
    return [f"{percent(called)} MSC-immune doublets"] if math.isfinite(called) else []


def percent(share: float) -> str:
    """A share in percent with one digit; an en dash for a missing one."""
    return f"{100 * share:.1f}%" if math.isfinite(share) else "–"


def leakage(qc: pd.DataFrame, ambient: Mapping[str, pd.DataFrame]) -> Leakage | None:
    """Ambient and partner fractions per sample and kind of cell; None where none was estimated."""
    overall = {str(row["sample"]): row for row in records(qc)}
    of_kind = {
        sample: {text(row.get("group")): row for row in records(table)}
        for sample, table in ambient.items()
        if "group" in table
    }
    every = [*overall.values(), *(row for rows in of_kind.values() for row in rows.values())]
    ends = [_upper_end(row, name) for row in every for name in ("ambient_fraction", "partner_fraction")]
    finite = [end for end in ends if math.isfinite(end)]
    if not finite:
        return None
    found = {name for rows in of_kind.values() for name in rows if name}
    kinds = [*(name for name in KIND_LABELS if name in found), *sorted(found - set(KIND_LABELS))]
    axis = draw.Axis(0.0, max(*finite, 0.05), margin=1.0)
    rows = [
        (
            sample,
            [
                _leakage_cell(row | {"n_cells": row.get("cells_after")}, axis),
                *(_leakage_cell(of_kind.get(sample, {}).get(kind), axis) for kind in kinds),
            ],
        )
        for sample, row in overall.items()
    ]
    labels = ["All cells", *(KIND_LABELS.get(kind, kind) for kind in kinds)]
    ticks = [tick for tick in axis.ticks(3) if axis.percent(tick) <= 92]
    return Leakage(labels, draw.tick_labels([(axis.percent(tick), f"{100 * tick:g}%") for tick in ticks]), rows)


def _leakage_cell(row: Row | None, axis: draw.Axis) -> LeakageCell | None:
    if row is None:
        return None
    ambient, partner = number(row.get("ambient_fraction")), number(row.get("partner_fraction"))
    if not math.isfinite(ambient) and not math.isfinite(partner):
        return None
    errors = [number(row.get(f"{name}_fraction_se")) for name in ("ambient", "partner")]
    return LeakageCell(
        drawing=draw.fraction_bar(axis, (ambient, errors[0]), (partner, errors[1])),
        ambient=_with_error(ambient, errors[0]),
        partner=_with_error(partner, errors[1]) if math.isfinite(partner) else "",
        n_cells=count(number(row.get("n_cells"))),
    )


def _with_error(share: float, error: float) -> str:
    return percent(share) + (f" ± {100 * error:.1f}" if math.isfinite(error) else "")


def _upper_end(row: Row, name: str) -> float:
    error = number(row.get(f"{name}_se"))
    return number(row.get(name)) + (error if math.isfinite(error) else 0.0)


def _sample_quality(
    row: Row,
    cells: pd.DataFrame,
    known: Sequence[Metric],
    axes: Mapping[str, draw.Axis],
    keeps_failed: bool,
) -> SampleQuality:
    steps = steps_of(row)
    before, after = number(row.get("cells_before")), number(row.get("cells_after"))
    held = before - sum(step.n for step in steps if not step.of_sample)
    verdict = text(row.get("verdict"))
    kept = kept_cells(cells)
    histograms = {one.name: _histogram(row, cells, kept, one, axes[one.name]) for one in known}
    return SampleQuality(
        sample=str(row["sample"]),
        verdict=verdict,
        fate=fate_of(verdict, keeps_failed=keeps_failed),
        reasons=reasons_of(row),
        main=[histograms[one.name] for one in known if one.main],
        further=[histograms[one.name] for one in known if not one.main],
        kept=f"{count(after)} of {count(held)}",
        kept_percent=f"{100 * after / held:.0f}% kept" if held > 0 else "",
        steps=[
            f"{count(before)} {'droplets' if held < before else 'cells'}",
            *(f"− {count(step.n)} {step.words}" for step in steps),
            f"= {count(after)} kept",
        ],
    )


def _histogram(row: Row, cells: pd.DataFrame, kept: NDArray[np.bool_], metric: Metric, axis: draw.Axis) -> Histogram:
    limits, values = limits_of(row, metric), metric_values(cells, metric)
    if not np.isfinite(values).any():
        return Histogram(metric.title, Markup(""), Markup(""), ["not measured"])
    at = [math.log10(max(limit.value, 1.0)) if metric.log else limit.value for limit in limits]
    lines = [", ".join(limit.words for limit in limits)]
    if metric.name == "doublet_score":
        lines += [*doublet_lines(row), *partner_lines(row)]
    return Histogram(
        metric.title,
        draw.histogram(values, kept, axis, at),
        _metric_ticks(axis, metric.log),
        [line for line in lines if line],
    )


def _summary(samples: Sequence[SampleQuality]) -> str:
    """``12 samples: 10 pass, 1 passes with a warning, 1 failed.``"""
    numbers_of = {level: sum(sample.verdict == level for sample in samples) for level in (PASS, WARN, FAIL)}
    if not sum(numbers_of.values()):
        return ""
    n_pass, n_warn, n_fail = numbers_of.values()
    parts = [
        (n_pass, "passes" if n_pass == 1 else "pass"),
        (n_warn, f"{'passes' if n_warn == 1 else 'pass'} with a warning"),
        (n_fail, "failed"),
    ]
    return f"{plural(len(samples), 'sample')}: {listing([f'{n} {words}' for n, words in parts if n])}."


def _facts(qc: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Header and rows of what is known of any sample besides: cells called, hashtags, genotypes, species, cycling."""
    columns: dict[str, Callable[[Row], str]] = {
        "Cells called": _calling_words,
        "Hashtags": _hashtag_words,
        "Genotypes": _genotype_words,
        "Species": _species_words,
        "Cycling cells": _cycling_words,
    }
    rows = records(qc)
    written = {title: [words(row) for row in rows] for title, words in columns.items()}
    shown = [title for title, values in written.items() if any(values)]
    if not shown:
        return [], []
    return ["Sample", *shown], [
        [str(row["sample"]), *(written[title][position] or "–" for title in shown)] for position, row in enumerate(rows)
    ]


def _calling_words(row: Row) -> str:
    method = text(row.get("calling_method"))
    if method in {"", "none"}:
        return ""
    words = f"{count(number(row.get('cells_called')))} of {count(number(row.get('cells_before')))} by {method}"
    knee = number(row.get("knee"))
    return words + (f"; knee at {count(knee)} molecules" if math.isfinite(knee) else "")


def _hashtag_words(row: Row) -> str:
    rates = {name: number(row.get(f"hashtag_{name}_rate")) for name in ("singlet", "doublet", "negative")}
    if not text(row.get("hashtag_method")) or not math.isfinite(rates["singlet"]):
        return ""
    n_tags = number(row.get("n_hashtags"))
    tags = f" of {n_tags:.0f}" if math.isfinite(n_tags) else ""
    return (
        f"{percent(rates['singlet'])} one tag{tags}, {percent(rates['doublet'])} two, "
        f"{percent(rates['negative'])} none ({text(row['hashtag_method'])})"
    )


def _genotype_words(row: Row) -> str:
    share, n_cells = number(row.get("hashtag_genotype_agreement")), number(row.get("hashtag_genotype_cells"))
    return f"agree with the hashtags in {percent(share)} of {count(n_cells)} cells" if math.isfinite(share) else ""


def _species_words(row: Row) -> str:
    both, implied = number(row.get("species_doublet_rate")), number(row.get("species_implied_doublet_rate"))
    leaked = number(row.get("other_species_leakage"))
    parts = []
    if math.isfinite(both):
        parts.append(f"{percent(both)} of droplets hold both species, which implies {percent(implied)} doublets")
    if math.isfinite(leaked):
        parts.append(f"{percent(leaked)} of a cell's molecules leaked from the other species")
    return "; ".join(parts)


def _cycling_words(row: Row) -> str:
    share = number(row.get("cycling_fraction"))
    return percent(share) if math.isfinite(share) else ""


def _metric_axis(metric: Metric, values: Sequence[NDArray[np.float64]]) -> draw.Axis:
    together = np.concatenate([array[np.isfinite(array)] for array in values]) if values else np.zeros(0)
    if together.size == 0:
        return draw.Axis(0.0, max(1.0, metric.narrowest))
    low, high = np.quantile(together, [0.001, 0.999])
    return draw.Axis(float(low), float(max(high, low + metric.narrowest)))


def _metric_ticks(axis: draw.Axis, log: bool) -> Markup:
    if log:
        decades = range(math.floor(axis.low), math.ceil(axis.high) + 1)
        values = [power + step for power in decades for step in (0.0, math.log10(3))]
        ticks = [(value, f"{10**value:,.0f}") for value in values if 8 <= axis.percent(value) <= 92]
        if len(ticks) > 3:
            ticks = ticks[:: math.ceil(len(ticks) / 3)]
    else:
        ticks = [(value, f"{value:g}") for value in axis.ticks(3)]
    return draw.tick_labels([(axis.percent(value), label) for value, label in ticks])
