"""What a finished run says at its end: where the report is, and what to look at first.

It reads the run's tables and adds nothing to them. What is wrong comes before what was found; a run in which nothing is
wrong says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import shorten

import pandas as pd

from immunomod.files import read_tsv
from immunomod.report.words import FDR_THRESHOLD, listing, plural, signed

#: Entries of a list that are named; the rest is counted.
_NAMED = 5
_WIDTH = 160
_READOUTS = ("readout",)


def run_summary(results: Path, contrasts: Sequence[str], atlases: Sequence[str]) -> str:
    """The summary, in lines; what the run did not write (a run of some targets alone) is not spoken of."""
    report = results / "report" / "index.html"
    blocks = [
        [f"The report is {report}" if report.is_file() else "This run made no report."],
        _samples(_read(results / "samples" / "qc.tsv")),
        _warnings(_read(results / "check" / "problems.tsv"), results),
        _clusters({name: _read(results / "atlas" / name / "clusters.tsv") for name in atlases}),
        *(_contrast(name, results / "contrasts" / name) for name in contrasts),
    ]
    lines = [line for block in blocks for line in block]
    if (results / "provenance" / "methods.md").is_file():
        lines.append(f"Methods and references of this run: {results / 'provenance'}")
    return "\n".join(lines)


def _samples(qc: pd.DataFrame) -> list[str]:
    if qc.empty:
        return []
    failed, warned = (qc[qc["verdict"] == verdict] for verdict in ("fail", "warn"))
    if failed.empty and warned.empty:
        return [f"Samples: all {len(qc)} pass."]
    lines = [f"Samples: {len(failed)} failed and {len(warned)} to look at, of {len(qc)} (samples/qc.tsv)."]
    lines += _named(f"failed: {row.sample}: {row.reason}" for row in failed.itertuples())
    lines += _named(f"look at: {row.sample}: {row.reason}" for row in warned.itertuples())
    return lines


def _warnings(problems: pd.DataFrame, results: Path) -> list[str]:
    if problems.empty:
        return []
    count = plural(len(problems), "warning")
    lines = [f"The check before the run gave {count} ({results / 'check' / 'problems.tsv'})."]
    return lines + _named(f"{Path(str(row.file)).name}: {row.problem}" for row in problems.itertuples())


def _clusters(atlases: dict[str, pd.DataFrame]) -> list[str]:
    lines = []
    for name, clusters in atlases.items():
        if clusters.empty or "marks" not in clusters:
            continue
        marked = clusters[clusters["marks"].fillna("") != ""]
        if len(marked):
            lines.append(f"Atlas {name}: {len(marked)} of {plural(len(clusters), 'cluster')} marked.")
            lines += _named(f"cluster {row.cluster} ({row.cell_class}): {row.marks}" for row in marked.itertuples())
    return lines


def _contrast(name: str, folder: Path) -> list[str]:
    effects, design = _read(folder / "program_effects.tsv"), _read(folder / "design.tsv")
    lines = []
    refused = design[design["status"] != "tested"] if len(design) else design
    if len(effects):
        tested = effects[effects["status"] == "tested"]
        why = effects.loc[effects["status"] != "tested", "status"].value_counts()
        rest = f" (not tested: {listing([f'{count} {status}' for status, count in why.items()])})" if len(why) else ""
        lines.append(f"Contrast {name}: {len(tested)} of {plural(len(effects), 'effect')} could be tested{rest}.")
        lines += _found(tested)
    if len(refused):
        lines.append(f"Contrast {name}: {plural(len(refused), 'cell class was', 'cell classes were')} refused.")
        lines += _named(f"{row.cell_class} ({row.dataset}): {row.status}: {row.reason}" for row in refused.itertuples())
    return lines


def _found(tested: pd.DataFrame) -> list[str]:
    """The readouts with the largest effects among those below the threshold."""
    readouts = tested[tested["role"].isin(_READOUTS)]
    below = readouts[pd.to_numeric(readouts["fdr"], errors="coerce") < FDR_THRESHOLD]
    if below.empty:
        return [f"  no readout has an fdr below {FDR_THRESHOLD}"]
    largest = below.reindex(below["effect"].abs().sort_values(ascending=False).index).head(3)
    named = [f"{row.program} in {row.cell_class} {signed(float(str(row.effect)))}" for row in largest.itertuples()]
    return [f"  fdr below {FDR_THRESHOLD}: {plural(len(below), 'readout')}; the largest: {listing(named)} (log2)"]


def _named(entries: Iterable[str]) -> list[str]:
    lines = [f"  {shorten(entry, _WIDTH, placeholder=' …')}" for entry in entries]
    more = len(lines) - _NAMED
    return lines[:_NAMED] + ([f"  and {more} more"] if more > 0 else [])


def _read(path: Path) -> pd.DataFrame:
    """A table of the run; without rows where the run wrote none."""
    try:
        return read_tsv(path)
    except (FileNotFoundError, pd.errors.EmptyDataError):
        return pd.DataFrame()
