"""The configured public series, each against a stand-in with its names, layout and quirks (support/stand_ins.py)."""

from __future__ import annotations

import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from immunomod.acquire import acquire_samples
from immunomod.cli import app
from immunomod.errors import UserError
from immunomod.files import read_tsv
from immunomod.sample.cells_table import CellsTableColumns
from immunomod.sample.read import read_sample
from immunomod.settings import Run, load_run_file
from support.stand_ins import ORDER_OF_GSE115149, STAND_INS, StandIn, write_stand_in
from support.workflow import Outcome, snakemake

SERIES = sorted(STAND_INS)
LICENSING = ("msc_ifng_core", "msc_mhc2", "msc_chemokine_T", "msc_tnf_nfkb")


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StandIn]:
    """Each series' tree, written when it is first asked for."""

    class Written(dict[str, StandIn]):
        def __missing__(self, series: str) -> StandIn:
            self[series] = write_stand_in(series, tmp_path_factory.mktemp(series) / "geo")
            return self[series]

    return Written()


@pytest.fixture
def example(repository: Path, tmp_path: Path, stand_ins: dict[str, StandIn]):
    """A copy of an example's folder whose config takes the series from the stand-in; returns the config's path."""
    return lambda series: _copy(repository, tmp_path / "study", stand_ins[series])


def _copy(repository: Path, folder: Path, stand_in: StandIn) -> Path:
    shutil.copytree(repository / "config" / "examples" / stand_in.series, folder)
    config = folder / "config.yaml"
    settings = yaml.safe_load(config.read_text(encoding="utf-8")) | {"geo": {"base_url": stand_in.base_url}}
    settings["contrast"] = settings.get("contrast", {}) | {"n_random_sets": 20}  # behind null_z alone; saves a minute
    config.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    return config


def _manifest(run: Run, series: str, stand_in: StandIn, folder: Path) -> pd.DataFrame:
    rows = run.samples[run.samples["dataset"] == series]
    return acquire_samples(series, rows, stand_in.base_url, folder, run.folder)


def _columns(run: Run, series: str) -> CellsTableColumns:
    return CellsTableColumns.from_config(run.config["cells_tables"].get(series, {}))


def test_every_series_with_a_stand_in_is_shipped_whole(repository):
    shipped = {path.name for path in (repository / "config" / "examples").iterdir() if path.is_dir()}
    assert shipped == {*SERIES, "GSE96583"}
    for series in shipped:
        folder = repository / "config" / "examples" / series
        assert {path.name for path in folder.iterdir()} == {"README.md", "config.yaml", "samples.tsv", "contrasts.tsv"}
        text = (folder / "README.md").read_text(encoding="utf-8")
        assert series in text and "not verified" in text.lower()


@pytest.mark.parametrize("series", SERIES)
def test_check_finds_no_mistake(series, example):
    result = CliRunner().invoke(app, ["check", "--config", str(example(series))])
    assert result.exit_code == 0, result.output


def test_tissues_of_gse182158_are_refused_as_confounded(example):
    """The question that the sheet holds as a comment, with the reason why it must not be asked."""
    config = example("GSE182158")
    sheet = config.parent / "contrasts.tsv"
    sheet.write_text(sheet.read_text(encoding="utf-8").replace("# bone_marrow", "bone_marrow"), encoding="utf-8")
    result = CliRunner().invoke(app, ["check", "--config", str(config)])
    assert result.exit_code == 1
    assert "confounded" in result.output and "'bone_marrow_protocol'" in result.output


#: Seven to eleven libraries each: more than five seconds.
MANY_LIBRARIES = ("GSE117837", "GSE182158", "GSE282806")


@pytest.mark.parametrize(
    "series", [pytest.param(name, marks=[pytest.mark.slow] * (name in MANY_LIBRARIES)) for name in SERIES]
)
def test_every_library_is_read_as_it_was_written(series, example, stand_ins, tmp_path):
    run = load_run_file(example(series))
    stand_in = stand_ins[series]
    manifest = _manifest(run, series, stand_in, tmp_path / "acquired").fillna("").astype(str)
    for _, row in run.samples.iterrows():
        counts, ledger = read_sample(row, manifest, _columns(run, series))
        expected = stand_in.libraries[row["sample"]]
        assert list(counts.obs["barcode"]) == expected.barcodes, row["sample"]
        wanted = pd.DataFrame(expected.counts.toarray(), columns=expected.symbols)
        given = "gene_symbol_given" if "gene_symbol_given" in counts.var else "gene_symbol"
        found = pd.DataFrame(counts.X.toarray(), columns=list(counts.var[given].astype(str)))
        assert set(found) <= set(wanted)
        only = [name for name in wanted if name not in set(found)]
        np.testing.assert_array_equal(found.sum(axis=1), wanted.sum(axis=1))  # nothing lost, nothing twice
        assert len(only) < 0.01 * wanted.shape[1]
        merged = found.columns[(found.to_numpy() != wanted[list(found)].to_numpy()).any(axis=0)]
        assert len(merged) <= len(only)  # two names of one gene today
        assert (ledger["decision"] != "").all()


def test_endothelial_samples_of_gse199071_are_left_out(example, stand_ins, tmp_path):
    run = load_run_file(example("GSE199071"))
    manifest = _manifest(run, "GSE199071", stand_ins["GSE199071"], tmp_path / "acquired")
    assert (manifest["role"] == "counts").sum() == 12
    assert not manifest["file"].str.contains("HUVEC").any()


def test_file_names_other_than_assumed_are_listed(example, stand_ins, tmp_path):
    """What the READMEs promise: where a pattern does not fit the real names, the names are shown."""
    run = load_run_file(example("GSE282806"))
    samples = run.samples.copy()
    samples["files"] = samples["files"].str.replace("Cc", "Zz")
    with pytest.raises(UserError, match=r"samples.tsv row \d+, column files: .*_HUVEC_matrix.mtx.gz"):
        acquire_samples("GSE282806", samples, stand_ins["GSE282806"].base_url, tmp_path / "acquired", run.folder)


def test_cells_of_gse117837_in_each_stratum(repository, stand_ins):
    cells = {name: len(library.barcodes) for name, library in stand_ins["GSE117837"].libraries.items()}
    numbers = {"D1P5": (52, 58), "D2P0": (50,), "D2P2": (50, 50), "D2P5": (51, 50)}
    assert cells == {
        f"{stratum}_{arm}": number
        for stratum, pair in numbers.items()
        for arm, number in zip(("resting", "licensed"), pair, strict=False)
    }
    assert sum(cells.values()) == 361


# --- from the accession to the report --------------------------------------------------------------------------------


def _run(config: Path) -> Outcome:
    return snakemake(config.parent, config).check()


def _effects(outcome: Outcome, contrast: str) -> pd.DataFrame:
    return read_tsv(outcome.results / "contrasts" / contrast / "program_effects.tsv")


def _of(effects: pd.DataFrame, cell_class: str, programs: tuple[str, ...]) -> pd.DataFrame:
    rows = effects[(effects["cell_class"] == cell_class) & effects["program"].isin(programs)]
    assert len(rows) == len(programs), effects[["cell_class", "program", "status"]].value_counts().head(20)
    return rows


def _classes(outcome: Outcome, series: str) -> pd.Series:
    return anndata.read_h5ad(outcome.results / "atlas" / f"{series}.h5ad").obs["cell_class"].astype(str)


@pytest.mark.slow
def test_gse117837_licensing_with_two_donors(repository, stand_ins, tmp_path):
    outcome = _run(_copy(repository, tmp_path / "study", stand_ins["GSE117837"]))
    assert (_classes(outcome, "GSE117837") == "MSC").mean() > 0.95
    for contrast, cells in (("licensing_passage_5", (108, 103)), ("licensing_both_passages", (158, 153))):
        rows = _of(_effects(outcome, contrast), "MSC", LICENSING)
        assert (rows["status"] == "tested").all()
        assert (rows["effect"] > 0.5).all()
        assert (rows[["n_test", "n_reference", "n_pairs"]] == 2).all(axis=None)  # donors, not passages, not cells
        assert (rows["df"] <= 4).all()  # of two pairs one, and at most three of the other programmes
        assert rows["p_sign_flip"].min() >= 0.5  # the most that two pairs can say without assumptions
        assert (rows["cells_test"].iloc[0], rows["cells_reference"].iloc[0]) <= cells
        assert rows["cells_test"].iloc[0] > 0.9 * cells[0]
    ledger = read_tsv(outcome.results / "ledger.tsv")
    assert ledger["url"].str.endswith("soft/GSE117837_family.soft.gz").any()


@pytest.mark.slow
def test_gse115149_once_the_order_is_known(repository, stand_ins, tmp_path):
    """The rows that the sheet holds as comments, uncommented: what a user does who knows the order."""
    config = _copy(repository, tmp_path / "study", stand_ins["GSE115149"])
    for sheet in ("samples.tsv", "contrasts.tsv"):
        path = config.parent / sheet
        header, *lines = path.read_text(encoding="utf-8").splitlines()
        rows = [line.removeprefix("# ") for line in lines if line.startswith("# ") and "\t" in line]
        path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    run = load_run_file(config)
    assert [tuple(name.split("_")) for name in run.samples["sample"]] == ORDER_OF_GSE115149
    rows = _of(_effects(_run(config), "licensing"), "MSC", LICENSING)
    assert (rows["status"] == "tested").all()
    assert (rows["effect"] > 0.5).all()
    assert (rows["n_pairs"] == 3).all()
    assert (rows["fdr"] < 0.05).all()


@pytest.mark.slow
def test_gse263397_mouse_without_replicates(repository, stand_ins, tmp_path):
    outcome = _run(_copy(repository, tmp_path / "study", stand_ins["GSE263397"]))
    effects = _effects(outcome, "after_msc_against_inflammatory")
    monocytes = _classes(outcome, "GSE263397").value_counts().index[0]
    rows = _of(effects, monocytes, ("imm_MDSC", "imm_mac_M1")).set_index("program")
    assert (rows["status"] == "unreplicated").all()
    assert rows[["p_value", "fdr"]].isna().all(axis=None)
    assert rows["reason"].str.contains("1 replicate in the test arm").all()
    assert rows.at["imm_MDSC", "effect"] > 0 > rows.at["imm_mac_M1", "effect"]
