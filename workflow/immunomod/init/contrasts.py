"""Questions that a proposed sheet can answer: the arms of a co-culture, licensed against resting, test against control.

What cannot be decided, or has not two donors in each arm, is written as a comment with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from immunomod.init.guess import ARMS, LICENSED, RESTING, control_like
from immunomod.init.rows import Row
from immunomod.init.text import as_name
from immunomod.sheets import MIN_REPLICATES, count_replicates

MOST_PER_DATASET = 6


@dataclass(frozen=True)
class Question:
    """A row of ``contrasts.tsv``; ``doubt`` says why it is written as a comment (empty: it is not)."""

    contrast: str
    dataset: str
    test: str
    reference: str
    doubt: str = ""
    remark: str = ""
    variable: str = "condition"
    pair_by: str = "donor"

    @property
    def fields(self) -> tuple[str, ...]:
        """In the order of :data:`COLUMNS`."""
        return (self.contrast, self.dataset, self.variable, self.test, self.reference, self.pair_by, "", "")


COLUMNS = ("contrast", "dataset", "variable", "test", "reference", "pair_by", "where", "covariates")


def propose_contrasts(rows: Sequence[Row]) -> list[Question]:
    """Questions for each data set, from the levels of its condition; names are unique."""
    questions: list[Question] = []
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    for dataset in datasets:
        of_dataset = [row for row in rows if row["dataset"] == dataset]
        questions += _of_dataset(dataset, of_dataset, prefix=f"{dataset}_" if len(datasets) > 1 else "")
    return questions


def _of_dataset(dataset: str, rows: Sequence[Row], prefix: str) -> list[Question]:
    levels = [level for level, _ in Counter(row["condition"] for row in rows if row["condition"]).most_common()]
    if not levels:
        return [_undecided(dataset, prefix, "", "", "no condition is known: fill in column condition of samples.tsv")]
    if ARMS["coculture"] in levels:
        alone = [arm for arm in (ARMS["msc"], ARMS["immune"]) if arm in levels]
        if alone:
            return [_asked(prefix, dataset, rows, ARMS["coculture"], ",".join(alone), _remark_on_stimuli(rows))]
    if {LICENSED, RESTING} <= set(levels):
        return [_asked(prefix, dataset, rows, LICENSED, RESTING)]
    if len(levels) < 2:
        return [_undecided(dataset, prefix, "", levels[0], f"condition has one level only, {levels[0]}")]
    controls = control_like(levels)
    if len(controls) == 1:
        tests = [level for level in levels if level != controls[0]][:MOST_PER_DATASET]
        return [_asked(prefix, dataset, rows, test, controls[0]) for test in tests]
    reason = (
        f"several levels read like a control ({', '.join(controls)})" if controls else "no level reads like a control"
    )
    test, reference = (
        (next(level for level in levels if level not in controls), controls[0])
        if controls and len(controls) < len(levels)
        else (levels[1], levels[0])
    )
    return [_undecided(dataset, prefix, test, reference, f"{reason}: which is the reference?")]


def _asked(prefix: str, dataset: str, rows: Sequence[Row], test: str, reference: str, remark: str = "") -> Question:
    doubt = "; ".join(filter(None, (_doubt(rows, [test]), _doubt(rows, reference.split(",")))))
    name = as_name(f"{prefix}{test}_vs_{'alone' if '_alone' in reference else reference}")
    return Question(name or "question", dataset, test, reference, doubt, remark)


def _undecided(dataset: str, prefix: str, test: str, reference: str, doubt: str) -> Question:
    return Question(as_name(f"{prefix}{test or 'TEST'}_vs_{reference or 'REFERENCE'}"), dataset, test, reference, doubt)


def _doubt(rows: Sequence[Row], arm: Sequence[str]) -> str:
    """Why an arm cannot be tested yet: donors that are unknown, or fewer than two."""
    of_arm = [row for row in rows if row["condition"] in arm]
    lacking = [row for row in of_arm if not row["donor"] and not row.donor_by_cell]
    if lacking:
        return f"donor is empty in {len(lacking)} of the {len(of_arm)} samples of {', '.join(arm)}"
    told = pd.DataFrame([{name: row[name] for name in ("donor", "msc_donor")} for row in of_arm])
    replicates = count_replicates(told)
    if replicates is not None and replicates < MIN_REPLICATES:
        return f"{', '.join(arm)} has {replicates} donor: no p-value without a second one"
    return ""


def _remark_on_stimuli(rows: Sequence[Row]) -> str:
    stimuli = sorted({row["stimulus"] for row in rows if row["culture"] in ("immune", "coculture") and row["stimulus"]})
    if len(stimuli) < 2:
        return ""
    return (
        f"immune cells were stimulated differently ({', '.join(stimuli)}): compare like with like by a filter in "
        "where, such as stimulus = " + stimuli[-1]
    )
