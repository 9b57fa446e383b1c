"""Verdicts on claims: the rule at its edges, and the run's tables behind it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from immunomod.claims import Claim, ClaimSet, Pointer, load_claims
from immunomod.report.claims_view import (
    AGAINST,
    CANNOT_TELL,
    CONTRADICTED,
    FOR,
    NO_TRANSCRIPT,
    SUPPORTED,
    UNDECIDED,
    UNTESTED,
    Evidence,
    Judged,
    fold_alike,
    headline,
    judge_claims,
    verdict_of,
)
from immunomod.report.inputs import Atlas, ReportTables
from immunomod.report.maps import drawable


def result(says: str, toward: float, **other: object) -> Evidence:
    fields = {"what": "Th1", "where": "CD4 T cells", "contrast": "c", "asked": "down", "effect": "−1.00"}
    fields |= {"interval": "−2.00 to −0.50", "fdr": "0.01", "replicates": "4 pairs", "reason": "", "path": "x"}
    return Evidence(says=says, toward=toward, **(fields | other))


@pytest.mark.parametrize(
    ("results", "verdict", "words"),
    [
        ([(FOR, 1.0), (UNDECIDED, 0.2)], SUPPORTED, "Of 2 tests, 1 points its way and none the other, 1 cannot"),
        ([(AGAINST, -1.0), (UNDECIDED, -0.2)], CONTRADICTED, "0 point its way and 1 the other"),
        ([(FOR, 1.0), (AGAINST, -1.0)], CANNOT_TELL, "The results disagree"),
        ([(FOR, 1.0), (UNDECIDED, -0.1), (UNDECIDED, -0.2)], CANNOT_TELL, "most estimates lie on the other side"),
        ([(UNDECIDED, 0.1), (UNDECIDED, 0.2)], CANNOT_TELL, "None of 2 tests can be told from zero"),
        ([(UNDECIDED, 0.1)], CANNOT_TELL, "The one test cannot be told from zero"),
        ([], CANNOT_TELL, "No contrast at all."),
    ],
)
def test_the_rule(results, verdict, words):
    found = verdict_of([result(*one) for one in results], True, "no contrast at all")
    assert found[0] == verdict
    assert words in found[1]


def test_what_could_not_be_tested_gives_its_reason_and_no_pointer_means_no_transcript():
    untested = [result(UNTESTED, np.nan, reason="one replicate")]
    assert verdict_of(untested, True, "") == (
        CANNOT_TELL,
        "Nothing that speaks to it could be tested (one replicate).",
    )
    assert verdict_of([], False, "")[0] == NO_TRANSCRIPT


def test_intervals_without_correction_need_more_than_half():
    some = [result(FOR, 1.0, corrected=False), result(UNDECIDED, 0.1, corrected=False)]
    assert verdict_of(some, True, "")[0] == CANNOT_TELL
    assert verdict_of([*some, result(FOR, 1.0, corrected=False)], True, "")[0] == SUPPORTED


def test_a_signature_that_was_hardly_read_says_so_where_it_decides_alone():
    read, unread = result(FOR, 1.0), result(FOR, 1.0, caution="2 of its 22 genes were read in the source")
    assert "But 2 of its 22" in verdict_of([unread], True, "")[1]
    assert "But" not in verdict_of([unread, read], True, "")[1]


def test_claims_are_held_against_the_tables_of_the_run(tables: ReportTables):
    judged = {one.claim.name: one for one in judge_claims(tables, load_claims())}
    effects = tables.contrasts[0].effects
    core = effects[(effects["program"] == "msc_ifng_core") & (effects["cell_class"] == "MSC")].iloc[0]
    row = next(row for row in judged["modulation"].evidence if row.what.startswith("IFN-gamma licensing"))
    assert row.toward == core["effect"] and row.path == "contrasts/coculture_vs_alone/program_effects.tsv"
    assert judged["modulation"].verdict == SUPPORTED
    assert judged["patients"].verdict == NO_TRANSCRIPT and judged["patients"].evidence == []
    assert judged["dose"].sentence == "No contrast of this run asks for a trend over the sheet's column dose."
    assert judged["donors"].verdict == SUPPORTED and judged["sources"].verdict == CANNOT_TELL
    assert judged["crohns_disease"].sentence.endswith("But 2 of its 9 genes were read in the source.")
    assert headline(judged.values()).startswith(f"Of {len(judged)} claims: ")


def test_without_a_coculture_no_claim_is_told(tables: ReportTables):
    sheet = tables.samples.assign(culture="immune")
    for one in judge_claims(replace(tables, samples=sheet, variance=pd.DataFrame()), load_claims()):
        assert one.verdict in {CANNOT_TELL, NO_TRANSCRIPT}
        assert one.evidence == []


def test_claims_that_nothing_speaks_to_stand_together_where_they_are_many():
    def judged(name: str, verdict: str, sentence: str, evidence: list) -> Judged:
        return Judged(Claim(name, "MSC", f"{name} holds", ""), verdict, sentence, evidence)

    told = judged("told", SUPPORTED, "Yes.", [])
    silent = [judged(name, CANNOT_TELL, "Nothing was asked.", []) for name in "abc"]
    open_one = judged("open", CANNOT_TELL, "Nothing was asked.", [object()])
    rare = [judged(name, CANNOT_TELL, "No such cells.", []) for name in "de"]
    folded = fold_alike([silent[0], told, silent[1], open_one, rare[0], silent[2], rare[1]])
    assert folded == [silent, [told], [open_one], [rare[0]], [rare[1]]]
    assert fold_alike([]) == []


def test_a_pooled_effect_stands_for_those_of_the_data_sets(tables: ReportTables):
    pooled = pd.DataFrame(
        {"contrast": ["coculture_vs_alone"], "program": ["msc_trophic"], "cell_class": ["MSC"], "k": [3],
         "effect": [-0.9], "ci_low": [-1.2], "ci_high": [-0.6], "fdr": [0.01], "status": ["pooled"], "reason": [""]}
    )  # fmt: skip
    claims = ClaimSet([Claim("repair", "MSC", "x", "")], {"repair": [Pointer("program_effects", "msc_trophic", 1, "")]})
    one = judge_claims(replace(tables, synthesis=pooled), claims)[0]
    assert [row.path for row in one.evidence] == ["synthesis/program_meta.tsv"]
    assert one.verdict == CONTRADICTED and "3 data sets" in one.sentence


def test_a_trend_speaks_either_way(tables: ReportTables):
    contrast = tables.contrasts[0]
    trend = replace(contrast, sheet={**contrast.sheet, "variable": "dose", "test": ""})
    claims = ClaimSet([Claim("dose", "both", "x", "")], {"dose": [Pointer("trend", "dose", 1, "")]})
    one = judge_claims(replace(tables, contrasts=[trend]), claims)[0]
    assert one.verdict == SUPPORTED
    assert AGAINST not in {row.says for row in one.evidence}


def test_a_rare_class_is_never_thinned_away():
    rng = np.random.default_rng(0)
    names = np.repeat(["CD4_T", "MSC", "pDC"], [9000, 900, 7])
    cells = pd.DataFrame({"cell_class": names, "umap_1": rng.normal(size=9907), "umap_2": 0.0})
    atlas = Atlas("a", cells, *[pd.DataFrame()] * 3)
    drawn = drawable(atlas, 1000)["cell_class"].value_counts()
    assert drawn["pDC"] == 7 and drawn["MSC"] >= 300
    assert 990 <= drawn.sum() <= 1000
    assert len(drawable(atlas, 9907)) == 9907
