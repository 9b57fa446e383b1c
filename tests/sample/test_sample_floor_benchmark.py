"""The benchmark of the sample floor, small: it runs, and both sides agree on metrics, cells and variable genes."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

pytest.importorskip("scanpy")


@pytest.fixture
def benchmark(repository):
    path = repository / "benchmarks" / "sample_floor_speed.py"
    spec = importlib.util.spec_from_file_location("sample_floor_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_library_is_what_it_says(benchmark):
    counts, genes, truth = benchmark.draw_library(300, 2000, 1)
    assert counts.shape == (2000, benchmark.N_GENES)
    assert genes["gene_symbol"].is_unique
    assert genes["gene_id"].is_unique
    assert 1500 < np.diff(counts.indptr)[:300].mean() < 2800
    assert counts[300:].sum() / 1700 < 30
    assert 0.03 < truth["doublet"].mean() < 0.15
    assert len(set(benchmark.barcodes(2000))) == 2000


def test_auc_counts_ties_half(benchmark):
    assert benchmark._auc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1
    assert benchmark._auc(np.array([1.0]), np.array([1.0])) == 0.5


@pytest.mark.slow
def test_both_sides_run_and_agree(benchmark, tmp_path):
    out = tmp_path / "speed.tsv"
    options = ["--cells", "400", "--droplets", "3000", "--repeats", "1", "--out", str(out), "--folder", str(tmp_path)]
    table = benchmark.main(options)
    assert out.is_file()
    assert (table["seconds"] > 0).all()
    totals = table[(table["process"] == "all") & (table["library"] == "filtered")]
    assert set(totals["step"]) == set(benchmark.TOTALS)
    assert totals["ratio"].notna().all()
    assert set(table.loc[table["library"] == "unfiltered", "side"]) == {"immunomod"}
    agreed = benchmark.agreement(tmp_path / "filtered").set_index("measure")["value"]
    assert agreed["largest difference of a metric"] < 1e-3
    assert agreed["cells within the limits, share in common"] == 1
    assert agreed["variable genes, share of scanpy's"] > 0.8
