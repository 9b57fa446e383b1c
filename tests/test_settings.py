"""A mistake in the config or the sheets stops a run before its first job, with one message."""

import re
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from immunomod.acquire.download import TransferSettings
from immunomod.errors import UserError
from immunomod.sample.cells_table import CellsTableColumns
from immunomod.sample.readers import REGISTRY
from immunomod.settings import Run, load_run, load_run_file
from immunomod.tables import load_schema

SAMPLES = """sample\tdataset\tsource\tcondition\tdonor\tstimulus\tdose\torganism
m1\td\tGSM1\tmsc\tD1\tnone\t0\t
m2\td\tGSM2\tmsc\tD2\tnone\t0\t
c1\td\tGSM3\tco\tD1\tPHA\t0.1\t
c2\td\tGSM4\tco\tD2\tPHA\t1\t
"""
CONTRASTS = "contrast\tdataset\tvariable\ttest\treference\twhere\nq\td\tcondition\tco\tmsc\t\n"


@pytest.fixture
def study(tmp_path: Path):
    """A function that writes a study, with texts replaced, and loads it."""

    def load(samples: str = SAMPLES, contrasts: str = CONTRASTS, **config: object):
        (tmp_path / "samples.tsv").write_text(samples)
        (tmp_path / "contrasts.tsv").write_text(contrasts)
        sheets = {"samples": "samples.tsv", "contrasts": "contrasts.tsv"}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(sheets | config))
        return load_run_file(tmp_path / "config.yaml")

    return load


def test_defaults_are_filled_and_paths_are_absolute(study, tmp_path, repository):
    run = study()
    assert run.config["geo"]["base_url"] == "https://ftp.ncbi.nlm.nih.gov/geo"
    assert run.config["samples"] == str(tmp_path / "samples.tsv")
    assert run.config["programs"] == [str(repository / "resources" / "programs")]
    assert run.atlases == {"d": ["d"]}
    assert run.samples_of(["d"]) == ["m1", "m2", "c1", "c2"]
    assert run.contrast_row("q")["pair_by"] == "donor"
    assert run.sample_row("m1")["organism"] == "human"
    assert [run.row_number(sample) for sample in run.samples_of(["d"])] == [2, 3, 4, 5]


def test_a_resolved_config_resolves_to_itself(study, tmp_path):
    resolved = study(qc={"min_counts": 900}).config
    assert resolved["qc"]["min_counts"] == resolved["qc"]["enough_counts"] == 900
    assert resolved["contrast"]["min_cells"] == 10
    again = load_run(yaml.safe_load(yaml.safe_dump(resolved)), tmp_path).config
    assert again == resolved


def test_the_same_config_gives_the_same_run_twice(study):
    assert study().config == study().config


def test_a_mirror_may_be_a_folder_beside_the_config(study, tmp_path):
    (tmp_path / "mirror").mkdir()
    assert study(geo={"base_url": "mirror"}).config["geo"]["base_url"] == (tmp_path / "mirror").as_uri()
    with pytest.raises(UserError, match=r"geo\.base_url: .*nowhere is no folder"):
        study(geo={"base_url": "nowhere"})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"sead": 1}, "'sead' was unexpected.*known are"),
        ({"seed": "one"}, "seed: 'one' is not of type 'integer'"),
        ({"qc": {"n_mad": 3}}, r"qc\.n_mad: it is unknown\. Fix: the keys are n_mads"),
        ({"atlas": {"n_neighbors": "many"}}, r"atlas\.n_neighbors: it is 'many'\. Fix: it must be a whole number"),
        ({"atlas": {"n_marker_genes": 0}}, r"atlas\.n_marker_genes: it is 0\. Fix: it must be 1 or more"),
        (
            {"atlas": {"mark_sample_share": 90}},
            r"atlas\.mark_sample_share: it is 90\. Fix: it must be above 0 and up to 1",
        ),
        ({"annotation": {"min_score": 7}}, r"annotation\.min_score: it is 7\. Fix: it must be from 0 to 1"),
        ({"contrast": {"min_cells": 0}}, r"contrast\.min_cells: it is 0\. Fix: it must be 1 or more"),
        ({"calling": {"lower": 0}}, r"calling\.lower: it is 0\. Fix: it must be from 1 to 1000"),
        ({"calling": {"retain": 50}}, r"calling\.retain: it is 50\. Fix: it must be above lower \(100\)"),
        ({"doublets": {"remove": "no"}}, r"doublets\.remove: it is 'no'\. Fix: it must be true or false"),
        (
            {"doublets": {"method": "srublet"}},
            r"doublets\.method: it is 'srublet'\. Fix: it must be one of none, scrublet",
        ),
        ({"ambient": {"method": "decontx"}}, r"ambient\.method: it is 'decontx'\. Fix: it must be one of none"),
        ({"ambient": {"cellbender_fpr": 1.0}}, r"ambient\.cellbender_fpr: it is 1\.0\. Fix: it must be from 0"),
        ({"ambient": {"cellbender_epochs": 0}}, r"ambient\.cellbender_epochs: it is 0\. Fix: it must be 1 or more"),
        ({"geo": {"speed": 1}}, "unknown settings speed"),
        ({"atlases": {"all": ["e"]}}, "atlases.all: no data set 'e'"),
        ({"atlases": {"a": ["d"], "b": ["d"]}}, "'d' is in atlas 'a' already"),
    ],
)
def test_a_mistake_in_the_config_is_named(study, config, message):
    with pytest.raises(UserError, match=message):
        study(**config)


@pytest.mark.parametrize(
    ("contrasts", "message"),
    [
        (
            CONTRASTS.replace("condition", "treatment"),
            "row 2, column variable: .* has no column 'treatment'",
        ),
        (
            CONTRASTS.replace("\tmsc\t", "\talone\t"),
            "row 2, column reference: .* condition = 'alone'.*co, msc",
        ),
        (CONTRASTS.replace("\tmsc\t", "\tco\t"), "'co' is also a test level"),
        (CONTRASTS.replace("q\td\t", "q\te\t"), "row 2, column dataset: no sample is of data set 'e'"),
        (CONTRASTS + "q\td\tcondition\tco\tmsc\t\n", "row 3, column contrast: contrast 'q' stands already in row 2"),
        (CONTRASTS.replace("msc\t\n", 'msc\tstim == "PHA"\n'), "row 2, column where: .*stim"),
        (CONTRASTS.replace("msc\t\n", 'msc\tdonor == "D1"\n'), "row 2, column test: co has 1 donor"),
        (CONTRASTS.replace("\tmsc\t\n", "\t\t\n"), "reference"),
        ("contrast\tdataset\tvariable\nq\td\tcondition\n", "row 2, column variable: .*holds 'msc', no number"),
    ],
)
def test_a_mistake_in_a_contrast_names_its_row_and_column(study, contrasts, message):
    with pytest.raises(UserError, match=message):
        study(contrasts=contrasts)


def test_a_contrast_without_replicates_runs_only_where_the_user_says_so(study):
    alone = SAMPLES.replace("D2", "D1")
    with pytest.raises(UserError, match="co has 1 donor in data set 'd', so no p-value"):
        study(samples=alone)
    assert study(samples=alone, contrast={"allow_unreplicated": True}).contrast_row("q")["test"] == "co"


def test_a_trend_takes_a_numeric_column(study):
    assert study(contrasts="contrast\tdataset\tvariable\nq\td\tdose\n").contrast_row("q")["test"] == ""


def test_two_organisms_in_one_data_set_are_refused(study):
    with pytest.raises(UserError, match="human and mouse"):
        study(samples=SAMPLES.replace("\t1\t\n", "\t1\tmouse\n"))


def test_what_decides_on_files_is_all_that_fetching_depends_on(study):
    told = SAMPLES.replace("PHA", "IL2").replace("\tD2\t", "\tD3\t")
    assert acquire_rows(study(told)) == acquire_rows(study())
    moved = acquire_rows(study(SAMPLES.replace("GSM4", "GSM5")))
    assert [row["source"] for row in moved] == ["GSM1", "GSM2", "GSM3", "GSM5"]


def acquire_rows(run: Run) -> list[dict[str, str]]:
    return [run.acquire_row(sample) for sample in run.samples_of(["d"])]


def test_a_source_may_start_at_the_users_own_folder(study, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "counts.h5").touch()
    assert study(SAMPLES.replace("GSM1", "~/counts.h5")).local_sources("d") == [str(tmp_path / "counts.h5")]


def test_a_data_set_named_twice_would_be_pooled_twice(study):
    with pytest.raises(UserError, match="row 2, column dataset: 'd, d' names a data set twice"):
        study(contrasts=CONTRASTS.replace("\td\t", "\td, d\t"))


def test_lines_of_msc_are_replicates_beside_one_donor_of_immune_cells(study):
    one_donor = SAMPLES.replace("D2", "D1")
    with pytest.raises(UserError, match="has 1 donor"):
        study(one_donor)
    head, *rows = one_donor.splitlines()
    lines = ["\t".join([head, "msc_donor"]), *(f"{row}\tM{number % 2}" for number, row in enumerate(rows))]
    assert len(study("\n".join(lines) + "\n").samples) == 4


def test_a_duplicate_sample_is_named(study):
    with pytest.raises(UserError, match="row 5, column sample: sample 'c1' stands already in row 4"):
        study(samples=SAMPLES.replace("c2\t", "c1\t"))


def test_a_missing_source_is_named(study):
    with pytest.raises(UserError, match=r"row 3, column source: .*data/m2 does not exist"):
        study(samples=SAMPLES.replace("GSM2", "data/m2"))


def test_the_shipped_template_says_where_to_put_data(repository, tmp_path):
    shutil.copytree(repository / "config", tmp_path / "config")
    with pytest.raises(UserError, match=r"row 2, column source: .*D1_msc does not exist"):
        load_run_file(tmp_path / "config" / "config.yaml")


def test_a_broken_or_absent_config_is_one_message(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_run_file(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text("samples: [")
    with pytest.raises(UserError, match="not valid YAML"):
        load_run_file(tmp_path / "config.yaml")
    with pytest.raises(UserError, match="config"):
        load_run({"sample": "x"}, tmp_path)


def test_the_documented_defaults_are_the_real_ones(study, repository):
    documented = {}
    text = (repository / "config" / "README.md").read_text(encoding="utf-8")
    for line in text.split("## config.yaml")[1].splitlines():
        if match := re.match(r"\| `([a-z_.]+)` \| `(.*?)` \|", line):
            documented[match[1]] = yaml.safe_load(match[2])
    resolved = study().config
    sections = (
        "reading", "qc", "calling", "ambient", "doublets", "demultiplexing", "atlas", "annotation", "contrast",
        "potency",
    )  # fmt: skip
    real = {f"{name}.{key}": value for name in sections for key, value in resolved[name].items()}
    real |= {key: resolved[key] for key in ("title", "seed", "atlases", "cells_tables")}
    real["diseases.fold_changes"] = resolved["diseases"]["fold_changes"]
    real["geo.base_url"] = resolved["geo"]["base_url"]
    shown = ("parallel_downloads", "requests_per_s", "attempts", "timeout_s")
    real |= {f"geo.{key}": getattr(TransferSettings(), key) for key in shown}
    shipped = {
        "programs": ["shipped:programs"],
        "diseases.tables": ["shipped:diseases"],
        "interactions": "shipped:interactions",
        "annotation.markers": "shipped:markers",
    }
    assert documented == real | shipped


def test_the_files_of_a_source_folder_are_inputs_of_the_run(study, tmp_path):
    (tmp_path / "m1").mkdir()
    (tmp_path / "m1" / "matrix.mtx").write_text("")
    run = study(samples=SAMPLES.replace("GSM1", "m1").replace("GSM2", "gsm2"))
    assert run.local_sources("d") == [str(tmp_path / "m1" / "matrix.mtx")]


def test_the_documented_columns_and_layouts_are_the_real_ones(repository):
    text = (repository / "config" / "README.md").read_text(encoding="utf-8")
    sheets = {"samples": text.split("## samples.tsv")[1].split("###")[0]}
    sheets["contrasts"] = text.split("## contrasts.tsv")[1].split("## config.yaml")[0]
    for name, part in sheets.items():
        documented = {
            column
            for row in re.findall(r"^\| (`[^|]*`) \|", part, re.MULTILINE)
            for column in re.findall(r"`(\w+)`", row)
        }
        assert documented == set(load_schema(name)["properties"])
    layouts = text.split("### What can be read")[1].split("## ")[0]
    assert set(re.findall(r"\| `(\w+)` \|$", layouts, re.MULTILINE)) == set(REGISTRY)
    keys = text.split("### Per-cell tables")[1].split("### ")[0]
    known = load_schema("config")["properties"]["cells_tables"]["additionalProperties"]["properties"]
    assert all(key in keys for key in known)
    assert set(known) == {entry.name for entry in fields(CellsTableColumns)}


def test_every_mistake_of_config_and_sheets_is_told_at_once(study):
    with pytest.raises(UserError) as caught:
        study(
            SAMPLES.replace("m2\td\tGSM2", "m2\td\tnowhere"),
            CONTRASTS.replace("condition", "treatment"),
            qc={"n_mad": 3, "max_pct_mt": 300},
            atlases={"all": ["e"]},
        )
    lines = str(caught.value).splitlines()
    places = [line.split(": ")[0].strip() for line in lines if line.startswith("  ")]
    assert places == [
        "config.yaml, qc.n_mad",
        "config.yaml, qc.max_pct_mt",
        "config.yaml, atlases.all",
        "samples.tsv row 3, column source",
        "contrasts.tsv row 2, column variable",
    ]
    assert all(" Fix: " in line for line in lines if line.startswith("  "))
    assert lines[-1] == "5 errors"


def test_a_sample_depends_on_its_own_files_of_a_shared_folder(study, tmp_path):
    for name in ("a_matrix.mtx.gz", "a_barcodes.tsv.gz", "b.h5", "cells.tsv"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / name).touch()
    sheet = "sample\tdataset\tsource\tcondition\tdonor\tfiles\tcells\tcells_lane\n" + "".join(
        f"{row}\n"
        for row in (
            "m1\td\tdata\tmsc\tD1\ta_*\t\t",
            "m2\td\tdata\tmsc\tD2\t*.h5\tdata/cells.tsv\tL1",
            "c1\td\tdata/a_matrix.mtx.gz\tco\tD1\t\t\t",
            "c2\td\tGSM4\tco\tD2\t\t\t",
        )
    )

    def files(run: Run, sample: str) -> list[str]:
        return [str(Path(path).relative_to(tmp_path / "data")) for path in run.local_files(sample)]

    run = study(sheet)
    assert files(run, "m1") == files(run, "c1") == ["a_barcodes.tsv.gz", "a_matrix.mtx.gz"]
    assert files(run, "m2") == ["b.h5", "cells.tsv"]
    assert run.local_files("c2") == []
    assert [bool(run.base_url(sample)) for sample in ("m1", "m2", "c1", "c2")] == [False, False, False, True]
    (tmp_path / "data" / "c.h5ad").touch()
    assert files(study(sheet), "m1") == ["a_barcodes.tsv.gz", "a_matrix.mtx.gz"]
    # a folder that does not say which file is meant: all of it, and the check asks
    unclear = study(sheet.replace("\ta_*\t", "\tz_*\t"))
    assert files(unclear, "m1") == ["a_barcodes.tsv.gz", "a_matrix.mtx.gz", "b.h5", "c.h5ad", "cells.tsv"]


def test_a_note_that_is_emptied_has_no_sample_read_again(study):
    def noted(text: str) -> list[dict[str, str]]:
        lines = SAMPLES.splitlines()
        rows = [f"{lines[0]}\tguessed", *(f"{line}\t{text}" for line in lines[1:])]
        run = study("\n".join(rows) + "\n")
        return [run.read_row(sample) for sample in run.samples_of(["d"])]

    assert noted("donor (title)") == noted("")
