"""A study of which one library is empty and one tiny: both fail with a reason, and the rest goes on to the report."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import yaml

from immunomod.files import read_tsv
from immunomod.simulate.command import simulate_command
from support.layouts import Truth, gene_pairs, tenx_h5, triplet
from support.workflow import Outcome, snakemake

pytestmark = pytest.mark.slow

GENES = gene_pairs("ENSG00000081237 PTPRC;ENSG00000019582 CD74;ENSG00000075624 ACTB")
BARCODES = [f"{'ACGT' * 3}{letter}{letter}CA-1" for letter in "ACG"]


def add_rows(sheet: Path, rows: list[dict[str, str]]) -> None:
    """Add libraries to a sheet, in its first row's data set."""
    table = pd.read_csv(sheet, sep="\t", dtype=str, comment="#").fillna("")
    more = pd.DataFrame([{"dataset": table["dataset"].iloc[0], "organism": "human"} | row for row in rows])
    pd.concat([table, more]).fillna("").to_csv(sheet, sep="\t", index=False)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("odd") / "study"
    simulate_command(folder, donors=2, cells_scale=0.4, seed=3)
    triplet(folder / "empty", Truth(np.zeros((0, 3), dtype=int), GENES, []))
    tenx_h5(folder / "no_gene.h5", Truth(np.zeros((3, 0), dtype=int), GENES.iloc[:0], BARCODES))
    triplet(folder / "tiny", Truth(np.array([[400, 20, 90], [300, 30, 70]]), GENES, BARCODES[:2]))
    add_rows(
        folder / "samples.tsv",
        [
            {"sample": "empty", "source": "empty", "condition": "coculture", "culture": "coculture", "donor": "D8"},
            {
                "sample": "no_gene",
                "source": "no_gene.h5",
                "condition": "coculture",
                "culture": "coculture",
                "donor": "D9",
            },
            {"sample": "tiny", "source": "tiny", "condition": "immune_alone", "culture": "immune", "donor": "D8"},
        ],
    )
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    config |= {"contrast": {"n_random_sets": 20}, "atlas": {"n_variable_genes": 300, "n_components": 10}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return snakemake(folder, folder / "config.yaml").check()


def test_odd_libraries_fail_with_a_reason_and_the_others_do_not(outcome):
    qc = read_tsv(outcome.results / "samples" / "qc.tsv").set_index("sample")
    odd = ["empty", "no_gene", "tiny"]
    assert qc.loc[odd, "verdict"].tolist() == ["fail"] * 3
    assert not (qc["verdict"].drop(odd) == "fail").any() and len(qc) == 9
    assert qc.loc["empty", "reason"].startswith("the library is empty: no barcode has a count")
    assert qc.loc["no_gene", "reason"].startswith("the library is empty: its matrix lists no gene")
    assert qc.loc["tiny", "reason"].startswith("no cell passes: 2 low_genes")
    assert qc.loc[odd, "cells_before"].tolist() == [0, 0, 2]


def test_the_ledger_and_the_check_say_so_too(outcome):
    ledger = read_tsv(outcome.results / "ledger.tsv")
    said = ledger[ledger["sample"].isin(["empty", "no_gene"]) & ledger["decision"].str.startswith("matrix")]
    assert len(said) == 2 and said["decision"].str.contains("the library is empty: its sample fails").all()
    problems = read_tsv(outcome.results / "check" / "problems.tsv")
    warned = problems[problems["problem"].str.contains("the matrix is empty")]
    assert warned["severity"].tolist() == ["warning"] * 2 and (warned["column"] == "source").all()


def test_the_report_is_built_and_the_others_are_in_it(outcome):
    assert (outcome.results / "report" / "index.html").stat().st_size > 100_000
    obs = anndata.read_h5ad(outcome.results / "atlas" / "GSE900000001.h5ad", backed="r").obs
    assert obs["sample"].nunique() == 6
    effects = read_tsv(next((outcome.results / "contrasts").glob("*/program_effects.tsv")))
    assert (effects["status"] == "tested").any()
    assert effects["n_test"].max() == 2
