"""The shipped claims point at results that exist; a user's mistake in a table of claims is told by its row."""

import shutil

import pandas as pd
import pytest

from immunomod.claims import SHIPPED, load_claims
from immunomod.diseases import SHIPPED as SHIPPED_DISEASES
from immunomod.diseases import load_diseases
from immunomod.errors import UserError
from immunomod.programs import load_programs


def test_every_result_that_a_claim_asks_for_exists():
    claims, programs = load_claims(), load_programs()
    diseases = set(load_diseases((SHIPPED_DISEASES,), programs).table["disease"])
    known = {"program_effects": set(programs.table.index), "disease": diseases, "variance": {"source", "donor"}}
    for pointers in claims.evidence.values():
        for pointer in pointers:
            if pointer.table in known:
                assert pointer.item in known[pointer.table], pointer


def test_a_claim_asks_for_the_sign_that_biology_expects_where_there_is_one():
    claims, meta = load_claims(), load_programs().table
    for name, pointers in claims.evidence.items():
        for pointer in pointers:
            if pointer.table == "program_effects":
                expected = meta.loc[pointer.item, f"expected_sign_{pointer.organism or 'human'}"]
                assert expected in {"+-"[pointer.sign < 0], "?", "0"}, (name, pointer)


def test_a_claim_without_a_result_says_what_it_takes():
    claims = load_claims()
    untold = [claim for claim in claims.claims if claim.name not in claims.evidence]
    assert untold and all(claim.limit for claim in untold)
    assert not any(claim.statement.endswith(".") for claim in claims.claims)


def test_evidence_for_a_claim_that_is_not_there_is_told_by_its_row(tmp_path):
    shutil.copytree(SHIPPED, tmp_path, dirs_exist_ok=True)
    rows = pd.read_csv(tmp_path / "evidence.tsv", sep="\t", dtype=str, keep_default_na=False)
    rows.loc[3, "claim"] = "peace"
    rows.to_csv(tmp_path / "evidence.tsv", sep="\t", index=False)
    with pytest.raises(UserError, match=r"evidence\.tsv row 5: claim 'peace' has no row in claims\.tsv"):
        load_claims(tmp_path)
