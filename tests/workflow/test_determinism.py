"""The same study gives the same tables: on one core and on two, run twice, with its samples and questions in any order.

Which rules draw random numbers is in ``immunomod.provenance.seeds``; all of them run here, but scVI, which has a test
in ``tests/atlas/test_integrate_scvi.py``. Numbers are held to the last bit.
"""

from __future__ import annotations

import re
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import yaml

from immunomod.files import read_tsv
from immunomod.provenance.seeds import DRAWS
from immunomod.simulate.command import simulate_command
from support.tiny_study import final_tables
from support.workflow import REPOSITORY, Outcome, snakemake

ATLAS = "atlas/GSE900000001.h5ad"
#: Their rows follow the sheet's.
OF_THE_SHEET = {"samples/qc.tsv"}


def rules() -> dict[str, str]:
    """The text of every rule that makes something, by name."""
    text = "".join(path.read_text() for path in sorted((REPOSITORY / "workflow" / "rules").glob("*.smk")))
    parts = re.split(r"^rule ", text, flags=re.MULTILINE)[1:]
    return {part.split(":")[0]: part for part in parts if "output:" in part}


def test_every_rule_is_labelled_as_deterministic_or_seeded():
    """In docs/development.md, as the rules are and as a run's own record says."""
    page = (REPOSITORY / "docs" / "development.md").read_text(encoding="utf-8")
    table = page.split("## The same tables again")[1].split("\n## ")[0]
    labels = {}
    rows = re.findall(r"^\| (`\w.*?) \| (deterministic|seeded by CellBender|seeded)\b", table, flags=re.MULTILINE)
    for names, label in rows:
        labels.update(dict.fromkeys(re.findall(r"`(\w+)`", names), label))
    expected = {name: "seeded" if name in DRAWS else "deterministic" for name in rules()}
    assert labels == expected | {"remove_background": "seeded by CellBender"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two donors, two questions, and every method that draws at its default; the config's path."""
    folder = tmp_path_factory.mktemp("determinism") / "study"
    simulate_command(folder, donors=2, cells_scale=0.3, seed=3)
    question = (folder / "contrasts.tsv").read_text().splitlines()
    second = question[1].replace("coculture_vs_alone", "again")
    (folder / "contrasts.tsv").write_text("\n".join([*question, second]) + "\n")
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    config |= {"contrast": {"n_random_sets": 20}, "atlas": {"n_variable_genes": 300, "n_components": 10}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder / "config.yaml"


@pytest.fixture(scope="module")
def first(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A run on one core."""
    return snakemake(tmp_path_factory.mktemp("first"), study, "--cores", "1").check()


@pytest.fixture(scope="module")
def second(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A run from nothing on two cores, with the rows of both sheets in reverse."""
    folder = tmp_path_factory.mktemp("second")
    config = yaml.safe_load(study.read_text(encoding="utf-8"))
    for name in ("samples", "contrasts"):
        header, *rows = (study.parent / f"{name}.tsv").read_text().splitlines()
        (study.parent / f"reversed_{name}.tsv").write_text("\n".join([header, *rows[::-1]]) + "\n")
        config[name] = f"reversed_{name}.tsv"
    turned = study.with_name("reversed.yaml")
    turned.write_text(yaml.safe_dump(config), encoding="utf-8")
    return snakemake(folder, turned, "--cores", "2").check()


@pytest.mark.slow
def test_the_tables_depend_neither_on_cores_nor_on_the_order_of_the_sheets(first, second):
    ours, theirs = final_tables(first.results), final_tables(second.results)
    assert len(ours) > 40 and ours.keys() == theirs.keys()
    assert {name for name in ours if ours[name] != theirs[name]} <= OF_THE_SHEET
    for name in OF_THE_SHEET:
        tables = [read_tsv(run.results / name, dtype=str) for run in (first, second)]
        assert tables[0]["sample"].tolist() == tables[1]["sample"].tolist()[::-1]
        pd.testing.assert_frame_equal(*(table.sort_values("sample", ignore_index=True) for table in tables))


@pytest.mark.slow
def test_the_atlas_depends_neither_on_cores_nor_on_the_order_of_the_sheets(first, second):
    ours, theirs = (anndata.read_h5ad(run.results / ATLAS) for run in (first, second))
    pd.testing.assert_frame_equal(ours.obs, theirs.obs)
    assert set(ours.obsm) == set(theirs.obsm) >= {"X_pca", "X_umap"}
    for name, values in ours.obsm.items():
        np.testing.assert_array_equal(values, theirs.obsm[name])
    for one, other in ((ours.X, theirs.X), (ours.layers["counts"], theirs.layers["counts"])):
        assert one.shape == other.shape and (one != other).nnz == 0


@pytest.mark.slow
def test_another_seed_is_asked_of_the_rules_that_draw_and_of_no_other(first, study):
    """What follows from their files is made again too, and nothing above them."""
    config = yaml.safe_load(study.read_text(encoding="utf-8"))
    other = study.with_name("seed.yaml")
    other.write_text(yaml.safe_dump(config | {"seed": int(config["seed"]) + 1}), encoding="utf-8")
    # not the reasons of a dry run, which names a job's own only where nothing above it is made again
    summary = snakemake(first.results.parent, other, "--summary").check().printed
    rows = [line.split("\t") for line in summary.splitlines() if line.count("\t") == 5]
    table = pd.DataFrame(rows[1:], columns=rows[0])
    changed = set(table.loc[table["status"] == "params changed", "rule"])
    # what shows the config itself is given all of it
    assert changed - {"check_study", "write_provenance"} == set(DRAWS) - {"train_scvi"}
    pending = set(table.loc[table["plan"] == "update pending", "rule"])
    assert changed < pending and not {"acquire_sample", "read_counts"} & pending
