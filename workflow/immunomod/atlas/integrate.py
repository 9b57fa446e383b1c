"""Align cells of different batches, so that a cluster is a cell class and not a sample, by the method that fits.

``auto`` runs every method that can be afforded on a sample of the cells, measures how far batches are mixed, classes
kept and the conditions' effect still visible, and runs the best on all cells. Nothing at all is done where that is as
good. The measures are in ``integration.tsv``, also where a method was named; where ``none`` was, nothing is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from immunomod.atlas.integration import bbknn, harmony, none, scanvi, scvi
from immunomod.atlas.integration.evaluate import (
    BATCH_MEASURES,
    CLASS_MEASURES,
    Judge,
    Panel,
    draw_cells,
    same_batch_share,
)
from immunomod.atlas.integration.keys import Key, choose_key, confounding, levels_of, replicates_of
from immunomod.atlas.integration.method import IntegrationMethod, Task
from immunomod.atlas.integration.settings import IntegrationSettings
from immunomod.atlas.neighbors import Neighbors
from immunomod.errors import UserError
from immunomod.parallel import one_blas_thread

__all__ = ["REGISTRY", "Integration", "IntegrationInput", "integrate", "same_batch_share"]

REGISTRY: dict[str, IntegrationMethod] = {
    method.name: method for method in (none.METHOD, harmony.METHOD, bbknn.METHOD, scvi.METHOD, scanvi.METHOD)
}
#: Batches up to which ``auto`` tries BBKNN (with more, many neighbours of a cell are in batches that lack its class),
#: and cells (its search grows with their square).
FEW_BATCHES = 8
MODERATE_CELLS = 100_000
# An integration has to be better than none by this much: it removes more than batches, and what it removes is gone.
_WORTH_IT = 0.01
COLUMNS = (
    "method", "key", "n_batches", *BATCH_MEASURES, "batch_asw", "pcr_comparison", *CLASS_MEASURES, "label_asw",
    "batch_score", "class_score", "effect_kept", "score", "same_batch_neighbors", "expected_by_chance", "seconds",
    "chosen", "reason", "caution", "citation",
)  # fmt: skip


@dataclass(frozen=True)
class IntegrationInput:
    """What integration works on.

    Attributes
    ----------
    components
        Principal components, float32, cells x k.
    obs
        Cells: ``sample``, and where the sheet has them ``dataset``, ``donor``, ``condition``, ``culture``, ``batch``,
        ``lane``.
    labels
        From positions of cells to their provisional classes (``""``: unknown), see
        :func:`~immunomod.atlas.integration.labels.provisional_labels`. Called once, for the cells that are measured.
    learned
        Coordinates that trained models wrote, by method: cells x latent dimensions.
    """

    components: NDArray[np.float32]
    obs: pd.DataFrame
    labels: Callable[[NDArray[np.int64]], NDArray[np.object_]]
    learned: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True)
class Integration:
    """What the graph is built on, and why.

    Attributes
    ----------
    method, key
        The method that really made the coordinates (``none`` where one was skipped), and the column it aligned.
    coordinates
        float32, cells x d.
    neighbors
        Where the method aligns the graph and not the coordinates: the neighbours to build the graph of.
    reason, caution
        Why this method and key; what is confounded with the key.
    table
        Rows of ``integration.tsv``: one per method and key that were tried. ``seconds`` are those on the cells that
        were measured.
    """

    method: str
    key: str
    coordinates: NDArray[np.float32]
    neighbors: Neighbors | None
    reason: str
    caution: str
    table: pd.DataFrame


@dataclass(frozen=True)
class _Candidate:
    method: IntegrationMethod
    key: Key


def integrate(data: IntegrationInput, settings: IntegrationSettings, seed: int, threads: int = 1) -> Integration:
    """Bring the cells of an atlas together.

    Raises
    ------
    UserError
        The method or the key is unknown, or a method needs coordinates that were not trained.
    """
    if settings.integration != "auto" and settings.integration not in REGISTRY:
        raise UserError(
            f"config: atlas.integration is {settings.integration!r}; known are auto, {', '.join(sorted(REGISTRY))}."
        )
    key = choose_key(data.obs, settings.integration_key)
    if settings.integration in REGISTRY and REGISTRY[settings.integration].is_learned:
        REGISTRY[settings.integration].run(_task(data, key, None, seed, threads))  # the error comes before the work
    if key.n_batches < 2:
        asked = "" if settings.integration in ("auto", "none") else f"{settings.integration} skipped: "
        return _untouched(data, key, f"{asked}only one batch")
    if settings.integration == "none":
        return _untouched(data, key, "no integration asked for")
    candidates = _candidates(data, settings, key)
    panel = _panel(data, settings, seed)
    judge = Judge(panel, data.components[panel.cells])
    results, rows = [], []
    for candidate in candidates:
        start = time.perf_counter()
        aligned = candidate.method.run(_task(data, candidate.key, panel.cells, seed, threads))
        seconds = time.perf_counter() - start
        results.append(aligned)
        with one_blas_thread():  # sums in another order could decide a tie otherwise
            measures = judge.measure(aligned, candidate.key.batches[panel.cells])
        rows.append(_row(candidate, measures, seconds))
    table = pd.DataFrame(rows)
    best, reason = _choice(table, settings)
    chosen = candidates[best]
    aligned = results[best]
    if len(panel.cells) < len(data.components):
        aligned = chosen.method.run(_task(data, chosen.key, None, seed, threads))
    caution = _caution(chosen, judge)
    table["chosen"] = np.arange(len(table)) == best
    table.loc[best, ["reason", "caution"]] = [reason, caution]
    return Integration(
        chosen.method.name, chosen.key.name, aligned.coordinates, aligned.neighbors, reason, caution,
        table[list(COLUMNS)],
    )  # fmt: skip


# --- what is tried ---------------------------------------------------------------------------------------------------


def _candidates(data: IntegrationInput, settings: IntegrationSettings, key: Key) -> list[_Candidate]:
    """No integration first; then the method asked for, or all that can be afforded."""
    tried = [_Candidate(REGISTRY["none"], key)]
    if settings.integration != "auto":
        return [*tried, _Candidate(REGISTRY[settings.integration], key)]
    tried.append(_Candidate(REGISTRY["harmony"], key))
    if settings.integration_key == "auto" and (finer := _by_sample(data.obs, key)):
        tried.append(_Candidate(REGISTRY["harmony"], finer))
    if key.n_batches <= FEW_BATCHES and len(data.components) <= MODERATE_CELLS:
        tried.append(_Candidate(REGISTRY["bbknn"], key))
    if "scvi" in data.learned:
        tried.append(_Candidate(REGISTRY["scvi"], key))
    return tried


def _by_sample(obs: pd.DataFrame, key: Key) -> Key | None:
    """Samples as the key, where that is another partition of the cells than ``key``."""
    samples = levels_of(obs, "sample")
    levels = pd.DataFrame({"sample": samples, "key": key.batches}).drop_duplicates()
    n_samples = len(set(samples))
    if n_samples < 2 or len(levels) == n_samples == key.n_batches:
        return None
    return Key("sample", samples, "every sample on its own", confounding(obs, samples, "sample"))


def _panel(data: IntegrationInput, settings: IntegrationSettings, seed: int) -> Panel:
    replicates = replicates_of(data.obs)
    cells = draw_cells(replicates, settings.metric_cells, seed)
    labels = np.asarray(data.labels(cells), dtype=object)
    if len(labels) != len(cells):
        raise ValueError(f"{len(cells)} cells were to be labelled, {len(labels)} labels came back")
    obs = data.obs.iloc[cells]
    columns = {name: levels_of(obs, name) for name in ("donor", "condition")}
    return Panel(cells, labels, replicates[cells], columns["donor"], columns["condition"], seed)


def _task(data: IntegrationInput, key: Key, cells: NDArray[np.int64] | None, seed: int, threads: int) -> Task:
    task = Task(data.components, list(key.batches), seed, threads, data.learned)
    if cells is None or len(cells) == len(data.components):
        return task
    return replace(
        task,
        components=np.ascontiguousarray(data.components[cells]),
        batches=list(key.batches[cells]),
        learned={name: values[cells] for name, values in data.learned.items()},
    )


# --- what is said about it -------------------------------------------------------------------------------------------


def _row(candidate: _Candidate, measures: Mapping[str, float], seconds: float) -> dict[str, object]:
    return {
        "method": candidate.method.name,
        "key": candidate.key.name,
        "n_batches": candidate.key.n_batches,
        **measures,
        "seconds": round(seconds, 2),
        "reason": "",
        "caution": candidate.key.caution if candidate.method.name != "none" else "",
        "citation": candidate.method.citation,
    }


def _choice(table: pd.DataFrame, settings: IntegrationSettings) -> tuple[int, str]:
    """Row of the method to use, and why."""
    if settings.integration != "auto":
        row = len(table) - 1
        return row, f"asked for; aligned {table['n_batches'].iloc[row]} batches"
    score = table["score"].round(6)
    if score.isna().all():
        return 1, "no measure could be taken, so what fits most studies: Harmony"
    best = int(score.fillna(-1).to_numpy().argmax())
    if best and score[best] < score[0] + _WORTH_IT:
        return 0, (
            f"no method is better than leaving the cells as they are (score {score[0]:.2f}; best of the others "
            f"{_name(table.iloc[best])}, {score[best]:.2f})"
        )
    top = table.iloc[best]
    parts = [
        f"{words} {top[name]:.2f}"
        for name, words in (("class_score", "classes kept"), ("batch_score", "batches mixed"),
                            ("effect_kept", "effect of the condition kept"))
        if np.isfinite(top[name])
    ]  # fmt: skip
    others = [f"{_name(row)} {row['score']:.2f}" for at, row in table.iterrows() if at != best]
    return best, f"highest score, {top['score']:.2f} ({', '.join(parts)}); {', '.join(others)}"


def _name(row: pd.Series) -> str:
    return str(row["method"]) if row["method"] == "none" else f"{row['method']} over {row['key']}"


def _caution(chosen: _Candidate, judge: Judge) -> str:
    if chosen.method.name == "none":
        return ""
    parts = [chosen.key.caution]
    if not judge.conditions_apart:
        parts.append("no condition has two replicates of a class, so mixing was measured across conditions")
    return "; ".join(part for part in parts if part)


def _untouched(data: IntegrationInput, key: Key, reason: str) -> Integration:
    row = dict.fromkeys(COLUMNS, float("nan")) | {
        "method": "none", "key": key.name, "n_batches": key.n_batches, "seconds": 0.0, "chosen": True,
        "reason": reason, "caution": "", "citation": "",
    }  # fmt: skip
    return Integration("none", key.name, data.components, None, reason, "", pd.DataFrame([row], columns=list(COLUMNS)))
