"""The claims on co-culture, each held against the run's own tables: a verdict, a sentence, and the rows behind it.

The rule is the one that ``resources/claims/README.md`` states. Only contrasts of a co-culture speak to a claim; a trend
speaks to the claim on its variable.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from immunomod.claims import Claim, ClaimSet, Pointer
from immunomod.report.answer import is_coculture, is_trend
from immunomod.report.effect_rows import little_verified
from immunomod.report.inputs import Contrast, ReportTables, records
from immunomod.report.palette import class_label
from immunomod.report.values import number, text
from immunomod.report.views import replicates
from immunomod.report.words import FDR_THRESHOLD, in_class, interval, listing, plural, probability, signed

FOR, AGAINST, UNDECIDED, UNTESTED = "for", "against", "undecided", "not tested"
SUPPORTED, CONTRADICTED, CANNOT_TELL, NO_TRANSCRIPT = (
    "supported",
    "against",
    "cannot tell",
    "no transcript can tell",
)
#: From how many claims on that cannot be told for one reason are told of together.
MANY_ALIKE = 3
#: What a change of a share is called, by the table and its ``fraction``.
_SHARES = {
    ("composition", ""): "share of the compartment (log odds)",
    ("fractions", "Treg"): "share of regulatory T cells (log odds)",
    ("fractions", "cycling"): "share of dividing cells (log odds)",
}
#: Rows of a claim's table, the telling ones first.
_ORDER = {FOR: 0, AGAINST: 1, UNDECIDED: 2, UNTESTED: 3}


@dataclass(frozen=True)
class Evidence:
    """One result that speaks to a claim, as the table at ``path`` has it.

    ``toward`` is the estimate times the sign that the claim asks for: positive where it is on the claim's side.
    ``corrected`` is False where an interval alone speaks, with no correction for the number of looks; ``caution`` is
    what to say of a result that stands alone.
    """

    what: str
    where: str
    contrast: str
    asked: str
    effect: str
    interval: str
    fdr: str
    replicates: str
    says: str
    reason: str
    path: str
    toward: float = math.nan
    corrected: bool = True
    caution: str = ""


@dataclass(frozen=True)
class Judged:
    """A claim with its verdict, the sentence that gives the grounds, and the results behind it."""

    claim: Claim
    verdict: str
    sentence: str
    evidence: list[Evidence]


def judge_claims(tables: ReportTables, claims: ClaimSet) -> list[Judged]:
    """Hold every claim against the tables, in the order of the claims."""
    judged = []
    for claim in claims.claims:
        pointers = claims.evidence.get(claim.name, ())
        evidence = [found for pointer in pointers for found in _look_up(pointer, tables)]
        evidence.sort(key=lambda row: (_ORDER[row.says], -_size(row)))
        verdict, sentence = verdict_of(evidence, bool(pointers), _nothing_found(pointers, tables))
        judged.append(Judged(claim, verdict, sentence, evidence))
    return judged


def verdict_of(evidence: Iterable[Evidence], has_pointers: bool, nothing_found: str) -> tuple[str, str]:
    """Verdict and grounds. ``nothing_found``: the sentence where the run holds no result that could speak."""
    rows = list(evidence)
    if not has_pointers:
        return NO_TRANSCRIPT, ""
    tested = [row for row in rows if row.says != UNTESTED]
    if not tested:
        reasons = list(dict.fromkeys(row.reason for row in rows if row.reason))
        why = f"nothing that speaks to it could be tested ({reasons[0]})" if reasons else nothing_found
        return CANNOT_TELL, f"{_capital(why)}."
    pro = [row for row in tested if row.says == FOR]
    contra = [row for row in tested if row.says == AGAINST]
    toward = sum(row.toward > 0 for row in tested)
    away = sum(row.toward < 0 for row in tested)
    open_ones = len(tested) - len(pro) - len(contra)
    rest = f", {open_ones} cannot be told from zero" if open_ones else ""
    verb = "points" if len(pro) == 1 else "point"
    split = f"Of {plural(len(tested), 'test')}, {len(pro)} {verb} its way and {len(contra) or 'none'} the other{rest}"
    if pro and not any(row.corrected for row in pro) and 2 * len(pro) <= len(tested):
        return CANNOT_TELL, f"{split}. Intervals stand by themselves here, so less than half of them is not enough."
    if pro and not contra and toward > away:
        return SUPPORTED, f"{split}. {_clearest(pro)}{_caution(pro)}"
    if contra and not pro and away > toward:
        return CONTRADICTED, f"{split}. {_clearest(contra)}{_caution(contra)}"
    if pro and contra:
        return CANNOT_TELL, f"The results disagree. {split}. {_clearest(pro)} {_clearest(contra)}"
    if pro or contra:
        return CANNOT_TELL, f"{split}, and most estimates lie on the other side. {_clearest(pro or contra)}"
    count = "The one test cannot" if len(tested) == 1 else f"None of {plural(len(tested), 'test')} can"
    shared = {row.reason for row in tested}
    why = f" {_capital(shared.pop())}." if len(shared) == 1 and shared != {""} else ""
    return CANNOT_TELL, f"{count} be told from zero. {_clearest(tested, 'largest')}{why}"


def _clearest(rows: list[Evidence], word: str = "clearest") -> str:
    return f"The {word}: {_in_words(max(rows, key=_size))}."


def _caution(rows: list[Evidence]) -> str:
    """What to bear in mind where every row that decides has a caution of its own."""
    cautions = list(dict.fromkeys(row.caution for row in rows))
    return f" But {cautions[0]}." if all(cautions) else ""


def _in_words(row: Evidence) -> str:
    where = f" in {in_class(row.where)}" if row.where else ""
    span = f" (95% interval {row.interval}{', ' + row.replicates if row.replicates else ''})"
    return f"{row.what}{where}, {row.effect}{span}"


def _size(row: Evidence) -> float:
    return abs(row.toward) if math.isfinite(row.toward) else -1.0


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _nothing_found(pointers: Iterable[Pointer], tables: ReportTables) -> str:
    asked = {pointer.table: pointer.item for pointer in pointers}
    if "trend" in asked:
        return f"no contrast of this run asks for a trend over the sheet's column {asked['trend']}"
    if "variance" in asked:
        return "this run does not split the variance of the responses"
    if not any(_speaks(contrast, tables.samples) for contrast in tables.contrasts):
        return "no contrast of this run holds a co-culture against its controls"
    if "disease" in asked:
        return "this run holds no signature of the disease against co-culture"
    return "this run has no cells that the claim is about"


def _speaks(contrast: Contrast, samples: pd.DataFrame) -> bool:
    return not is_trend(contrast) and is_coculture(contrast, samples)


def _look_up(pointer: Pointer, tables: ReportTables) -> Iterator[Evidence]:
    if pointer.table == "variance":
        yield from _variance(pointer, tables)
        return
    for contrast in tables.contrasts:
        if pointer.table == "trend":
            if is_trend(contrast) and contrast.sheet["variable"] == pointer.item:
                yield from _rows(pointer, contrast, _of_readouts(contrast.effects), "program_effects", tables)
        elif _speaks(contrast, tables.samples):
            yield from _of_contrast(pointer, contrast, tables)


def _of_contrast(pointer: Pointer, contrast: Contrast, tables: ReportTables) -> Iterator[Evidence]:
    column, table = {
        "program_effects": ("program", contrast.effects),
        "composition": ("cell_class", contrast.composition),
        "fractions": ("fraction", contrast.fractions),
        "disease": ("disease", contrast.disease),
    }[pointer.table]
    if column not in table:
        return
    rows = table[(table[column] == pointer.item) & (table["status"] != "absent")]
    if pointer.cell_class:
        rows = rows[rows["cell_class"] == pointer.cell_class]
    if pointer.organism and "dataset" in rows:
        rows = rows[rows["dataset"].map(lambda name: tables.organisms.get(str(name), "human")) == pointer.organism]
    if pointer.table == "program_effects":
        pooled = _pooled(pointer, contrast.name, tables.synthesis)
        yield from _rows(pointer, contrast, pooled, "program_meta", tables)
        rows = rows[~rows["cell_class"].isin(pooled["cell_class"])] if len(pooled) else rows
    yield from _rows(pointer, contrast, rows, pointer.table, tables)


def _pooled(pointer: Pointer, contrast: str, synthesis: pd.DataFrame) -> pd.DataFrame:
    """Rows of ``program_meta.tsv`` that were pooled, of one programme and contrast."""
    if not {"contrast", "program", "cell_class", "effect", "status"} <= set(synthesis):
        return pd.DataFrame()
    own = (synthesis["program"] == pointer.item) & (synthesis["contrast"] == contrast)
    if pointer.organism and "organism" in synthesis:
        own &= synthesis["organism"] == pointer.organism
    effect = pd.to_numeric(synthesis["effect"], errors="coerce")
    return synthesis[own & effect.notna()].assign(status="tested")


def _of_readouts(effects: pd.DataFrame) -> pd.DataFrame:
    return effects[(effects["role"] == "readout") & (effects["status"] != "absent")]


def _rows(
    pointer: Pointer, contrast: Contrast, rows: pd.DataFrame, table: str, tables: ReportTables
) -> Iterator[Evidence]:
    titles = tables.programs.table["title"]
    several = rows["dataset"].nunique() > 1 if "dataset" in rows else False
    for row in records(rows):
        effect, fdr = number(row.get("effect")), number(row.get("fdr"))
        low, high = number(row.get("ci_low")), number(row.get("ci_high"))
        tested = row["status"] == "tested" and math.isfinite(effect)
        # What falls and what rises in a trend are both the effect that the claim speaks of.
        toward = abs(effect) if pointer.table == "trend" else effect * pointer.sign
        says = UNTESTED if not tested else UNDECIDED
        if tested and fdr < FDR_THRESHOLD:
            says = FOR if toward > 0 else AGAINST
        # A signature that is made of one programme goes by that programme's title.
        program = text(row.get("program")) or text(row.get("programs"))
        name = text(titles.get(program)) or text(row.get("signature")).replace("_", " ") or program
        path = f"synthesis/{table}.tsv" if table == "program_meta" else f"contrasts/{contrast.name}/{table}.tsv"
        k = number(row.get("k"))
        yield Evidence(
            what=_SHARES.get((pointer.table, text(row.get("fraction"))), name),
            where=class_label(text(row["cell_class"])),
            contrast=contrast.name + (f", {row['dataset']}" if several else ""),
            asked={1: "up", -1: "down"}[pointer.sign] if pointer.table != "trend" else "either way",
            effect=signed(effect),
            interval=interval(low, high),
            fdr=probability(fdr),
            replicates=plural(int(k), "data set") if math.isfinite(k) else replicates(row),
            says=says,
            reason=text(row.get("reason")) if says == UNTESTED else "",
            path=path,
            toward=toward,
            caution=little_verified(row),
        )


def _variance(pointer: Pointer, tables: ReportTables) -> Iterator[Evidence]:
    """Rows of one component. A part that also holds another's variation (``reason``) cannot vouch for its own."""
    table = tables.variance
    if not {"component", "program", "variance", "status"} <= set(table):
        return
    rows = table[table["component"] == pointer.item]
    titles = tables.programs.table["title"]
    for row in records(rows):
        value, low, high = (number(row.get(name)) for name in ("variance", "ci_low", "ci_high"))
        reason = text(row.get("reason"))
        tested = row["status"] == "tested" and math.isfinite(value)
        says = FOR if tested and low > 0 and not reason else UNDECIDED if tested else UNTESTED
        levels = number(row.get("levels"))
        yield Evidence(
            what=f"variance of {titles.get(row['program'], row['program'])}",
            where="",
            contrast=text(row.get("contrast")),
            asked="above 0",
            effect=f"{value:.2f}" if math.isfinite(value) else "–",
            interval=f"{low:.2f} to {high:.2f}" if np.isfinite([low, high]).all() else "–",
            fdr="–",
            replicates=plural(int(levels), pointer.item) if math.isfinite(levels) else "",
            says=says,
            reason=reason,
            path="synthesis/variance.tsv",
            toward=value if tested else math.nan,
            corrected=False,
        )


def fold_alike(judged: Sequence[Judged]) -> list[list[Judged]]:
    """The claims in their order, one by one; those of which nothing in the run speaks together, if many for one reason.

    Claims that cannot be told for lack of any result, :data:`MANY_ALIKE` or more with the same sentence, stand in the
    place of the first of them.
    """
    alike = Counter(one.sentence for one in judged if _is_silent(one))
    folded: dict[str | int, list[Judged]] = {}
    for place, one in enumerate(judged):
        together = _is_silent(one) and alike[one.sentence] >= MANY_ALIKE
        folded.setdefault(one.sentence if together else place, []).append(one)
    return list(folded.values())


def _is_silent(one: Judged) -> bool:
    return one.verdict == CANNOT_TELL and not one.evidence


def headline(judged: Iterable[Judged]) -> str:
    """How many claims got which verdict, in one sentence."""
    counts = Counter(one.verdict for one in judged)
    named = [
        f"{counts[verdict]} {words}"
        for verdict, words in (
            (SUPPORTED, "supported"),
            (CONTRADICTED, "contradicted"),
            (CANNOT_TELL, "that this run cannot tell"),
            (NO_TRANSCRIPT, "that no transcript can tell"),
        )
        if verdict in counts
    ]
    return f"Of {plural(counts.total(), 'claim')}: {listing(named)}." if named else ""
