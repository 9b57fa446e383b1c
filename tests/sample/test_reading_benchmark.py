"""The benchmark of the readers, small: it runs, and finds the readers' matrices and names equal."""

from __future__ import annotations

import importlib.util

import pytest

pytest.importorskip("scanpy")


@pytest.fixture
def reading(repository):
    spec = importlib.util.spec_from_file_location("reading_benchmark", repository / "benchmarks" / "reading.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_streamed_and_scanpys_matrices_are_equal(reading, tmp_path):
    out = tmp_path / "reading.tsv"
    options = ["--cells", "300", "--dense-cells", "40", "--repeats", "1", "--out", str(out), "--folder", str(tmp_path)]
    table = reading.main(options)
    assert out.is_file()
    assert list(table["file"] + " " + table["reader"]) == [
        "triplet scanpy",
        "triplet immunomod",
        "dense scanpy",
        "dense immunomod",
    ]
    assert (table["seconds"] > 0).all()
    assert table.groupby("file")["result_mb"].nunique().eq(1).all()


def test_different_matrices_stop_the_benchmark(reading, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "in_fresh_process", lambda reader, *_: {"digest": reader, "first_seconds": 1.0})
    with pytest.raises(SystemExit, match="triplet: the readers' matrices or names differ"):
        reading.compare("triplet", tmp_path, 1)
