"""The command line says what it did, or ends with one message and status 1."""

import pytest
from typer.testing import CliRunner

from immunomod import __version__
from immunomod.cli import app
from immunomod.files import read_tsv
from immunomod.settings import load_run_file

run = CliRunner().invoke


def test_version():
    assert run(app, ["version"]).stdout.strip() == __version__


def test_check_sums_up_a_study_without_mistake(repository, tmp_path):
    config = repository / "config" / "demo" / "config.yaml"
    done = run(app, ["check", "--config", str(config), "--results", str(tmp_path), "--out", str(tmp_path / "check")])
    assert done.exit_code == 0, done.stdout
    assert "12 samples of 1 data sets" in done.stdout
    assert "coculture_vs_alone in GSE900000001, MSC: 4 test, 4 reference replicates, 4 pairs" in done.stdout
    assert done.stdout.rstrip().endswith("no problem found")
    assert read_tsv(tmp_path / "check" / "problems.tsv").empty


def test_check_names_a_mistake(repository, tmp_path):
    config = repository / "config" / "config.yaml"
    done = run(app, ["check", "--config", str(config), "--results", str(tmp_path)])
    assert done.exit_code == 1
    assert "samples.tsv row 2, column source: " in done.stdout
    assert "D3_coculture does not exist. Fix: correct the path" in done.stdout
    assert "9 errors. Mend what is listed" in done.stderr
    assert "Traceback" not in done.stderr


def test_simulate_writes_a_study_that_can_be_run(tmp_path):
    out = tmp_path / "study"
    done = run(app, ["simulate", str(out), "--donors", "2", "--cells-scale", "0.3", "--layout", "dense_csv"])
    assert done.exit_code == 0, done.stderr
    study = load_run_file(out / "config.yaml")
    assert len(study.samples) == 6
    truth = read_tsv(out / "truth" / "truth_effects.tsv")
    assert truth["planted"].any()


def test_simulate_never_overwrites(tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    done = run(app, ["simulate", str(tmp_path)])
    assert done.exit_code == 1
    assert "is not an empty folder" in done.stderr
    assert (tmp_path / "mine.txt").read_text() == "kept"


@pytest.mark.slow
def test_power_rises_with_donors(tmp_path):
    done = run(app, ["power", str(tmp_path / "power.tsv"), "--donors", "2,5", "--studies", "4", "--cells-scale", "0.6"])
    assert done.exit_code == 0, done.stderr
    power = read_tsv(tmp_path / "power.tsv").groupby("donors")["power"].mean()
    assert power[5] > power[2]


def test_power_names_a_wrong_option(tmp_path):
    done = run(app, ["power", str(tmp_path / "power.tsv"), "--donors", "few"])
    assert done.exit_code == 1 and "--donors 'few'" in done.stderr
