"""What a finished study computes again when something of it is edited: what depends on the edit, and nothing else."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from immunomod.files import read_obs, read_tsv
from immunomod.simulate.command import simulate_command
from support.geo_server import GeoServer
from support.workflow import snakemake

pytestmark = pytest.mark.slow

REMOTE, LOCAL = "GSE900000001", "lab"
#: Run again whenever a sheet or the config changes: the look at the whole study, and what gathers all of it.
ALWAYS = {"all", "check_study", "build_report", "describe_run"}
POOLED = {"pool_effects", "rank_potency"}
#: What answers a contrast.
ANSWERS = ("test_contrast", "test_communication", "test_diseases")
GATHERED = {"gather_qc", "gather_ledger"}
SMALL = {
    "contrast": {"n_random_sets": 20},
    "atlas": {"n_variable_genes": 300, "n_components": 10},
}


@dataclass
class Study:
    """A study of two data sets, one on a server and one on disk, of which the first has a donor in reserve."""

    folder: Path
    config: dict[str, object]
    samples: list[dict[str, str]]
    contrasts: list[dict[str, str]]
    reserve: list[dict[str, str]]

    def write(self, folder: Path) -> Path:
        """Write config and sheets into ``folder``, beside the local data set."""
        for name in ("samples", "contrasts"):
            rows = getattr(self, name)
            lines = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
            (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
        (folder / "config.yaml").write_text(yaml.safe_dump(self.config))
        return folder / "config.yaml"


def rows_of(path: Path) -> list[dict[str, str]]:
    return read_tsv(path, dtype=str).fillna("").to_dict("records")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("remote") / "study"
    simulate_command(folder, donors=3, cells_scale=0.3, seed=3, archive=True)
    for sample in (folder / "geo" / "samples").rglob("suppl"):
        shutil.rmtree(sample)  # as where GEO holds an archive of all samples alone
    with GeoServer(folder) as running:
        yield folder, running


@pytest.fixture(scope="module")
def finished(server, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study, run to its end."""
    remote, running = server
    folder = tmp_path_factory.mktemp("finished")
    simulate_command(folder / "lab", donors=2, cells_scale=0.3, seed=4)
    rows = rows_of(remote / "samples.tsv")
    local = [
        row | {"dataset": LOCAL, "sample": f"lab_{row['sample']}", "source": str(path.relative_to(folder))}
        for row in rows_of(folder / "lab" / "samples.tsv")
        if (path := next((folder / "lab" / "geo").rglob(row["source"])) / "suppl")
    ]
    samples = [row | {"dose": "1"} for row in [*rows, *local]]
    question = rows_of(remote / "contrasts.tsv")[0]
    config = yaml.safe_load((remote / "config.yaml").read_text()) | SMALL
    config["geo"] = {"base_url": running.base_url, "requests_per_s": 1000.0}
    study = Study(
        folder,
        config,
        [row for row in samples if not (row["dataset"] == REMOTE and row["donor"] == "D3")],
        [question | {"contrast": "remote"}, question | {"contrast": "local", "dataset": LOCAL}],
        [row for row in samples if row["dataset"] == REMOTE and row["donor"] == "D3"],
    )
    snakemake(folder, study.write(folder)).check()
    return study


def planned(folder: Path, config: Path) -> set[tuple[str, str]]:
    """Rule and wildcards (values alone) of every job that a run would start."""
    plan = snakemake(folder, config, "--dry-run").check().printed
    jobs = set()
    for block in re.split(r"\n(?=rule |localrule )", plan)[1:]:
        rule = re.match(r"(?:local)?rule (\w+):", block)
        wildcards = re.search(r"\n +wildcards: (.*)", block.split("\n\n")[0])
        assert rule is not None
        named = "" if wildcards is None else ",".join(sorted(part.split("=")[1] for part in wildcards[1].split(", ")))
        jobs.add((rule[1], named))
    return jobs


@pytest.fixture
def plan(finished: Study, tmp_path: Path) -> Callable[[Callable[[Study], None]], set[tuple[str, str]]]:
    """The jobs of a run after an edit; the study itself stays as it is."""

    def after(edit: Callable[[Study], None]) -> set[tuple[str, str]]:
        study = Study(
            finished.folder,
            yaml.safe_load(yaml.safe_dump(finished.config)),
            [dict(row) for row in finished.samples],
            [dict(row) for row in finished.contrasts],
            finished.reserve,
        )
        edit(study)
        try:
            return planned(finished.folder, study.write(finished.folder))
        finally:
            finished.write(finished.folder)

    return after


def of_samples(*names: str, dataset: str = REMOTE) -> set[tuple[str, str]]:
    """The jobs that fetch, read and filter samples."""
    found = {("acquire_sample", ",".join(sorted((dataset, name)))) for name in names}
    return found | {(rule, name) for rule in ("read_counts", "filter_cells") for name in names}


def of_dataset(dataset: str, *contrasts: str) -> set[tuple[str, str]]:
    """The jobs below the samples of a data set that has an atlas of its own."""
    return {("build_atlas", dataset), ("sum_pseudobulks", dataset)} | answers(*contrasts)


def answers(*contrasts: str) -> set[tuple[str, str]]:
    """The jobs of contrasts."""
    return {(rule, name) for rule in ANSWERS for name in contrasts}


def alone(*rules: str) -> set[tuple[str, str]]:
    return {(rule, "") for rule in rules}


def test_a_second_run_does_nothing(plan):
    assert plan(lambda study: None) == set()


def test_samples_that_are_added_touch_no_other(plan, finished):
    new = [row["sample"] for row in finished.reserve]
    # in front, so that every other row of the sheet gets another number
    jobs = plan(lambda study: study.samples.__setitem__(slice(0, 0), study.reserve))
    assert jobs == of_samples(*new) | of_dataset(REMOTE, "remote") | alone(*ALWAYS, *POOLED, *GATHERED)


def test_a_sample_that_is_taken_out_has_none_read_again(plan):
    def edit(study: Study) -> None:
        study.samples = [row for row in study.samples if row["sample"] != "lab_D1_msc_alone"]

    assert plan(edit) == of_dataset(LOCAL, "local") | alone(*ALWAYS, *POOLED, *GATHERED)


@pytest.mark.parametrize(("column", "value"), [("donor", "D9"), ("dose", "2")])
def test_a_row_that_is_edited_has_its_own_sample_read_again(plan, column, value):
    """Its files carry the columns of the sheet. Nothing is fetched."""

    def edit(study: Study) -> None:
        next(row for row in study.samples if row["sample"] == "D1_coculture")[column] = value

    sample = of_samples("D1_coculture") - {("acquire_sample", f"D1_coculture,{REMOTE}")}
    assert plan(edit) == sample | of_dataset(REMOTE, "remote") | alone(*ALWAYS, *POOLED, *GATHERED)


def test_a_source_that_is_edited_is_fetched_for_its_sample_alone(plan):
    def edit(study: Study) -> None:
        next(row for row in study.samples if row["sample"] == "D1_coculture")["source"] = study.reserve[0]["source"]

    jobs = of_samples("D1_coculture") | of_dataset(REMOTE, "remote")
    assert plan(edit) == jobs | alone(*ALWAYS, *POOLED, *GATHERED)


def test_a_question_that_is_added_is_answered_alone(plan):
    def edit(study: Study) -> None:
        study.contrasts.append(study.contrasts[0] | {"contrast": "again", "dataset": LOCAL})

    assert plan(edit) == answers("again") | alone(*ALWAYS, *POOLED)


def test_a_suppression_that_is_measured_later_has_no_sample_read_again(plan):
    def edit(study: Study) -> None:
        for row in study.samples:
            row["suppression"] = "40" if row["culture"] == "coculture" else ""

    assert plan(edit) == alone(*ALWAYS, "rank_potency")


def test_a_disease_that_is_added_tests_no_programme_again(plan, finished):
    def edit(study: Study) -> None:
        table = "gene\tlog2_fold_change\nCD4\t1\n"
        (finished.folder / "mine.tsv").write_text(table)
        mine = {"table": "mine.tsv", "compartment": "immune:T"}
        study.config["diseases"] = {"fold_changes": {"mine": mine}}

    jobs = plan(edit)
    assert jobs == {("test_diseases", name) for name in ("remote", "local")} | alone(*ALWAYS, "write_provenance")


def test_a_resolution_filters_no_sample_again(plan):
    jobs = plan(lambda study: study.config["atlas"].__setitem__("leiden_resolution", 0.7))
    below = of_dataset(REMOTE, "remote") | of_dataset(LOCAL, "local")
    assert jobs == below | alone(*ALWAYS, *POOLED, "write_provenance")


def test_how_files_are_fetched_changes_no_result(plan):
    jobs = plan(lambda study: study.config["geo"].__setitem__("parallel_downloads", 16))
    assert jobs == alone(*ALWAYS, "write_provenance")


def test_another_server_is_asked_for_what_lies_on_one(plan, server):
    """Data on disk are left alone."""
    remote, _ = server
    jobs = plan(lambda study: study.config["geo"].__setitem__("base_url", str(remote / "geo")))
    assert {name for rule, name in jobs if rule == "filter_cells"} == {
        f"D{donor}_{arm}" for donor in (1, 2) for arm in ("msc_alone", "immune_alone", "coculture")
    }
    assert of_dataset(LOCAL, "local").isdisjoint(jobs)


def test_a_file_on_disk_that_changes_has_its_sample_read_again(plan, finished):
    row = next(row for row in finished.samples if row["sample"] == "lab_D1_coculture")
    path = next((finished.folder / row["source"]).glob("*matrix.mtx.gz"))
    whole, changed = path.read_bytes(), path.stat().st_mtime_ns
    try:
        path.write_bytes(whole + whole)  # a gzip of two members
        jobs = plan(lambda study: None)
    finally:
        path.write_bytes(whole)
        os.utime(path, ns=(changed, changed))
    sample = of_samples("lab_D1_coculture", dataset=LOCAL)
    assert jobs == sample | of_dataset(LOCAL, "local") | alone(*ALWAYS, *POOLED, *GATHERED)


def test_samples_that_are_added_are_computed_and_what_is_there_is_not_fetched_again(finished, server):
    """From here on the study changes, test by test."""
    _, running = server
    assert sum(name.endswith("_RAW.tar") for name in running.requested()) == 1  # by jobs side by side
    before = {path: path.stat().st_mtime_ns for path in (finished.folder / "results" / "samples").glob("*/*")}
    running.forget()
    finished.samples = [*finished.reserve, *finished.samples]
    config = finished.write(finished.folder)
    outcome = snakemake(finished.folder, config).check()
    # the new samples' own files, which the server lacks; the archive that holds them is there
    assert {name[:12] for name in running.requested()} <= {row["source"] for row in finished.reserve}
    assert all(path.stat().st_mtime_ns == moment for path, moment in before.items())
    qc = read_tsv(outcome.results / "samples" / "qc.tsv")
    assert list(qc["sample"]) == [row["sample"] for row in finished.samples]
    effects = read_tsv(outcome.results / "contrasts" / "remote" / "program_effects.tsv")
    assert effects["n_test"].max() == 3
    ledger = read_tsv(outcome.results / "ledger.tsv", dtype=str)
    assert ledger["path"].str.endswith("_RAW.tar").sum() == 1
    assert planned(finished.folder, config) == set()


def test_data_sets_that_share_an_atlas_run_again_together_and_no_sample_does(finished):
    finished.config["atlases"] = {"all": [REMOTE, LOCAL]}
    config = finished.write(finished.folder)
    below = {("build_atlas", "all"), ("sum_pseudobulks", REMOTE), ("sum_pseudobulks", LOCAL)}
    below |= answers("remote", "local")
    assert planned(finished.folder, config) == below | alone(*ALWAYS, *POOLED, "write_provenance")
    outcome = snakemake(finished.folder, config).check()
    obs = read_obs(outcome.results / "atlas" / "all.h5ad")
    assert set(obs["dataset"].astype(str)) == {REMOTE, LOCAL}
    assert set(obs["sample"].astype(str)) == {row["sample"] for row in finished.samples}
    for contrast, n_donors in (("remote", 3), ("local", 2)):
        effects = read_tsv(outcome.results / "contrasts" / contrast / "program_effects.tsv")
        assert effects["n_test"].max() == n_donors and (effects["status"] == "tested").any()
    # one sample less changes the map of both
    finished.samples = [row for row in finished.samples if row["sample"] != "lab_D1_msc_alone"]
    jobs = planned(finished.folder, finished.write(finished.folder))
    assert jobs == below | alone(*ALWAYS, *POOLED, *GATHERED)
