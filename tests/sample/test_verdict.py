"""A sample's verdict, branch by branch, from findings written by hand; and every reason counted once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from immunomod.sample.ambient import Contamination
from immunomod.sample.cell_calling import call_cells
from immunomod.sample.demultiplex.calls import HashtagCalls
from immunomod.sample.demultiplex.cells import Demultiplexed
from immunomod.sample.doublets import JudgedCalls, no_calls
from immunomod.sample.process import Findings
from immunomod.sample.qc import limits
from immunomod.sample.settings import CallingSettings, SampleSettings
from immunomod.sample.summary import FILTERS, NOT_OF_THE_SAMPLE, qc_row, verdict

SETTINGS = SampleSettings()


def made_cells(reasons: Sequence[str], genes: float = 2000.0) -> pd.DataFrame:
    """One row per droplet; those without a reason are kept."""
    n = len(reasons)
    reason = np.array(reasons, dtype=object)
    return pd.DataFrame(
        {
            "total_counts": np.full(n, 5000.0),
            "n_genes_by_counts": np.full(n, genes),
            "pct_counts_mt": np.full(n, 3.0),
            "pct_counts_ribo": np.full(n, 20.0),
            "pct_counts_hb": np.full(n, 0.0),
            "complexity": np.full(n, 0.9),
            "kept": reason == "",
            "reason": reason,
        }
    )


def made_findings(cells: pd.DataFrame, **changes: object) -> Findings:
    """Findings of a library in which nothing stands out."""
    n = len(cells)
    passed = int(cells["kept"].sum())
    nothing = np.full(n, "", dtype=object)
    usual: dict[str, object] = {
        "calls": call_cells(sparse.csr_matrix(np.full((n, 1), 5000, dtype=np.int32)), CallingSettings(), 1),
        "species": None,
        "hashtags": Demultiplexed(
            None, nothing, HashtagCalls(nothing, nothing, np.full(n, np.nan), ""), None, {}, "", ""
        ),
        "limits": limits(cells, SETTINGS.qc),
        "doublets": JudgedCalls(no_calls(passed, ""), np.zeros(passed, dtype=bool), 0.01, "", ""),
        "contamination": Contamination(np.full(passed, "", dtype=object), pd.DataFrame(), ambient_fraction=0.02),
        "partners": None,
        "n_genes": 100,
    }
    return Findings(**(usual | changes))  # type: ignore[arg-type]


def judge(reasons: Sequence[str], genes: float = 2000.0, n_droplets: int | None = None, **changes: object):
    cells = made_cells(reasons, genes)
    settings = changes.pop("settings", SETTINGS)
    found = made_findings(cells, **changes)
    return verdict(cells, found, settings, len(cells) if n_droplets is None else n_droplets)


def contaminated(ambient: float, partner: float = np.nan, note: str = "") -> Contamination:
    return Contamination(
        np.zeros(0, dtype=object), pd.DataFrame(), ambient_fraction=ambient, partner_fraction=partner, note=note
    )


def test_a_usual_sample_passes_without_a_word():
    judged = judge([""] * 200)
    assert (judged.verdict, judged.reason) == ("pass", "")


@pytest.mark.parametrize(
    ("n_kept", "level", "reason"),
    [
        (0, "fail", "no cell passes: 100 low_counts"),
        (1, "fail", "only 1 cell passes (qc.min_cells)"),
        (9, "fail", "only 9 cells pass (qc.min_cells)"),
        (10, "warn", "only 10 cells pass"),
        (49, "warn", "only 49 cells pass"),
        (50, "pass", ""),
    ],
)
def test_few_cells(n_kept, level, reason):
    judged = judge([""] * n_kept or ["low_counts"] * 100)
    assert judged.verdict == level
    fixed = [] if n_kept == 0 else ["fewer than 100 cells: fixed limits"]
    assert judged.reason.split("; ") == [*([reason] if reason else []), *fixed]


def test_the_least_number_of_cells_is_a_setting():
    strict = SampleSettings.from_config({"qc": {"min_cells": 100}}, 1)
    assert judge([""] * 99, settings=strict).verdict == "fail"
    assert judge([""] * 100, settings=strict).verdict == "pass"


def test_an_empty_library_says_what_it_lacks():
    assert judge([], n_genes=0).reason == "the library is empty: its matrix lists no gene"
    assert judge([]).reason == "the library is empty: no barcode has a count"
    assert judge([], n_droplets=70).reason.startswith("no cell passes: 70 empty_droplet")
    mixed = judge(["low_counts"] * 3 + ["doublet"] + ["other_species"] * 2, n_droplets=9).reason
    assert mixed.startswith("no cell passes: 3 empty_droplet, 2 other_species, 3 low_counts, 1 doublet")


@pytest.mark.parametrize(
    ("contamination", "level", "reason"),
    [
        (contaminated(np.nan), "pass", ""),
        (contaminated(0.2), "pass", ""),
        (contaminated(0.21), "warn", "21% of the counts are ambient RNA"),
        (contaminated(0.3, 0.11), "warn", "30% of the counts are ambient RNA, 11% from the partner"),
        (contaminated(0.5), "warn", "50% of the counts are ambient RNA"),
        (contaminated(0.51, 0.3), "fail", "51% of the counts are ambient RNA (ambient.max_fraction)"),
        (contaminated(np.nan, note="not estimated"), "pass", "not estimated"),
    ],
)
def test_ambient_rna(contamination, level, reason):
    judged = judge([""] * 200, contamination=contamination)
    assert (judged.verdict, judged.reason) == (level, reason)


def test_ambient_rna_is_not_spoken_of_without_a_method():
    settings = SampleSettings.from_config({"ambient": {"method": "none"}}, 1)
    assert judge([""] * 200, contamination=contaminated(np.nan, note="none"), settings=settings).reason == ""


@pytest.mark.parametrize("reason", FILTERS)
def test_only_what_quality_control_removed_counts_as_lost(reason):
    few = judge([""] * 200 + [reason] * 190)
    many = judge([""] * 200 + [reason] * 210)
    assert few.verdict == "pass"
    if reason in NOT_OF_THE_SAMPLE:
        assert many.verdict == "pass"
    else:
        assert (many.verdict, many.reason) == ("warn", "51% of the cells were removed")


@pytest.mark.parametrize(("genes", "level"), [(199.0, "warn"), (200.0, "pass")])
def test_shallow_cells(genes, level):
    """The lower limit of a small sample is 100 genes."""
    judged = judge([""] * 60, genes=genes)
    assert judged.verdict == level
    assert ("shallow: 199 genes in the median cell" in judged.reason) == (level == "warn")


@pytest.mark.parametrize("step", ["doublets", "hashtags"])
def test_warnings_and_notes_of_the_steps(step):
    usual = made_findings(made_cells([""] * 200))
    warned = judge([""] * 200, **{step: replace(getattr(usual, step), warning="looks wrong")})
    assert (warned.verdict, warned.reason) == ("warn", "looks wrong")
    noted = judge([""] * 200, **{step: replace(getattr(usual, step), note="was so")})
    assert (noted.verdict, noted.reason) == ("pass", "was so")


def test_reasons_stand_from_grave_to_slight():
    cells = [""] * 20 + ["high_mt"] * 30
    judged = judge(cells, contamination=contaminated(0.6))
    assert judged.verdict == "fail"
    failure, few, lost, note = judged.reason.split("; ")
    assert failure.startswith("60% of the counts")
    assert few == "only 20 cells pass"
    assert lost == "60% of the cells were removed"
    assert note == "fewer than 100 cells: fixed limits"


def test_limits_of_the_sheet_are_named():
    cells = made_cells([""] * 200)
    own = limits(cells, SETTINGS.qc, {"min_genes": 300, "max_pct_hb": 1})
    assert judge([""] * 200, limits=own).reason == "limits of the sheet: low_genes, high_hb"


def test_limits_of_the_sheet_do_not_hide_that_the_others_are_fixed():
    cells = made_cells([""] * 60)
    own = limits(cells, SETTINGS.qc, {"min_counts": 300})
    assert judge([""] * 60, limits=own).reason == "fewer than 100 cells: fixed limits; limits of the sheet: low_counts"


def test_a_matrix_without_mitochondrial_genes_says_so():
    cells = made_cells([""] * 200).assign(pct_counts_mt=np.nan)
    judged = verdict(cells, made_findings(cells), SETTINGS, 200)
    assert (judged.verdict, judged.reason) == ("pass", "no mitochondrial gene in the matrix: no limit on their share")


@pytest.mark.parametrize("seed", range(20))
def test_every_droplet_is_counted_once(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 400))
    some = rng.choice(FILTERS, size=int(rng.integers(1, len(FILTERS))), replace=False)
    reasons = [str(one) for one in rng.choice([*some, "", ""], size=n)]
    unseen = int(rng.integers(0, 1000))
    cells = made_cells(reasons)
    obs = pd.DataFrame({"sample": pd.Categorical.from_codes(np.zeros(n, dtype=int), categories=["S1"])})
    kept = cells[cells["kept"]].assign(phase="G1", dissociation_score=0.1, hypoxia_score=0.1)
    row = qc_row(obs, cells, n + unseen, made_findings(cells), kept, SETTINGS)
    assert row["sample"] == "S1"
    assert row["cells_before"] == n + unseen
    for name in FILTERS:
        assert row[f"cells_{name}"] == reasons.count(name) + (unseen if name == "empty_droplet" else 0)
    assert (
        row["cells_before"] - sum(row[f"cells_{name}"] for name in FILTERS) == row["cells_after"] == reasons.count("")
    )
