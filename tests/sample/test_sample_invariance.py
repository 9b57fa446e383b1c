"""What the sample floor's results depend on: not on the order of droplets or genes, nor on the number of threads.

Not invariant, by design, and left out below: scrublet's scores under either order and the share of simulated doublets
that both methods would find, because pairs of cells are drawn by their position (a seed gives other pairs); the genes
that cxds takes where several vary alike; EmptyDrops' p-values under the order of genes, whose random draws come from a
table over the genes. Sums of floating point numbers differ in their last digits.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from immunomod.files import write_h5ad, write_tsv
from immunomod.programs import load_programs
from immunomod.sample.process import SampleResult, process_sample
from immunomod.sample.settings import SampleSettings
from immunomod.simulate.profiles import load_profiles
from immunomod.simulate.settings import SimulationSettings
from immunomod.simulate.study import simulate_study

SETTINGS = SampleSettings.from_config({}, 1)
WITHOUT_DRAWS = SampleSettings.from_config({"doublets": {"method": "none"}}, 1)


def coculture(**changes: object) -> AnnData:
    """A co-culture with leaked RNA as the reader gives it."""
    settings = {"n_donors": 1, "cells_scale": 0.7, "leakage": 0.05, "ambient": 0.05, "seed": 5} | changes
    study = simulate_study(SimulationSettings(**settings), load_programs(), load_profiles())  # type: ignore[arg-type]
    library = study.adata[(study.adata.obs["condition"] == "coculture").to_numpy()]
    n = library.n_obs
    obs = pd.DataFrame({"barcode": library.obs["barcode"].to_numpy(dtype=object)}, index=library.obs_names)
    for name, value in {"sample": "S1", "dataset": "D", "condition": "co", "donor": "d", "organism": "human"}.items():
        obs[name] = pd.Categorical.from_codes(np.zeros(n, dtype=int), categories=[value])
    symbols = library.var["gene_symbol"].astype(str).to_numpy(dtype=object)
    var = pd.DataFrame({"gene_id": "", "gene_symbol": symbols}, index=pd.Index(symbols))
    return AnnData(sparse.csr_matrix(library.X).astype(np.int32), obs=obs, var=var)


@pytest.fixture(scope="module")
def filtered_library() -> AnnData:
    return coculture()


@pytest.fixture(scope="module")
def unfiltered_library() -> AnnData:
    return coculture(empty_droplets=1500)


def same_but_for_order(one: SampleResult, other: SampleResult) -> None:
    """Equal results, cells and genes matched by name; floating point within its last digits."""
    cells = [result.cells.set_index("barcode") for result in (one, other)]
    pd.testing.assert_frame_equal(cells[0], cells[1].loc[cells[0].index], rtol=1e-6)
    pd.testing.assert_frame_equal(one.qc, other.qc, rtol=1e-6)
    pd.testing.assert_frame_equal(one.ambient, other.ambient, rtol=1e-6)
    pd.testing.assert_frame_equal(one.ranks, other.ranks)
    again = other.filtered[one.filtered.obs_names, one.filtered.var_names].copy()
    for layer in one.filtered.layers:
        np.testing.assert_allclose(one.filtered.layers[layer].toarray(), again.layers[layer].toarray(), atol=1e-4)
    np.testing.assert_allclose(one.filtered.X.toarray(), again.X.toarray(), atol=1e-4)
    pd.testing.assert_frame_equal(one.filtered.obs, again.obs, rtol=1e-4, atol=1e-4)
    ranks = [genes.pop("highly_variable_rank") for genes in (one.filtered.var.copy(), again.var)]
    assert ranks[0].corr(ranks[1], method="spearman") > 0.999  # equally variable genes stand in their order
    columns = list(again.var)
    pd.testing.assert_frame_equal(one.filtered.var[columns], again.var, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["filtered_library", "unfiltered_library"])
def test_the_order_of_droplets_changes_nothing(name, request):
    library = request.getfixturevalue(name)
    order = np.random.default_rng(0).permutation(library.n_obs)
    one = process_sample(library, load_programs(), WITHOUT_DRAWS)
    assert one.qc["ambient_fraction"].notna().item() and one.filtered.n_obs > 100
    same_but_for_order(one, process_sample(library[order].copy(), load_programs(), WITHOUT_DRAWS))


def test_the_order_of_cells_changes_no_score_of_cxds(filtered_library):
    settings = SampleSettings.from_config({"doublets": {"method": "cxds", "remove": False}}, 1)
    order = np.random.default_rng(0).permutation(filtered_library.n_obs)
    one, other = (
        process_sample(library, load_programs(), settings).cells.set_index("barcode")["doublet_score"]
        for library in (filtered_library, filtered_library[order].copy())
    )
    assert one.notna().sum() > 100
    pd.testing.assert_series_equal(one, other.loc[one.index])


def test_the_order_of_genes_changes_nothing(filtered_library):
    order = np.random.default_rng(0).permutation(filtered_library.n_vars)
    shuffled = filtered_library[:, order].copy()
    shuffled.X.sort_indices()
    one = process_sample(filtered_library, load_programs(), WITHOUT_DRAWS)
    same_but_for_order(one, process_sample(shuffled, load_programs(), WITHOUT_DRAWS))


def test_the_order_of_droplets_changes_nothing_before_doublets(unfiltered_library):
    """With scrublet: metrics, calls, limits and all reasons but its own."""
    order = np.random.default_rng(1).permutation(unfiltered_library.n_obs)
    results = [
        process_sample(library, load_programs(), SETTINGS)
        for library in (unfiltered_library, unfiltered_library[order].copy())
    ]
    one, other = (result.cells.set_index("barcode") for result in results)
    other = other.loc[one.index]
    for column in ("total_counts", "n_genes_by_counts", "complexity", "cell_p_value", "cell_fdr"):
        pd.testing.assert_series_equal(one[column], other[column])
    before = {"doublet": "", "partner_doublet": ""}
    pd.testing.assert_series_equal(one["reason"].replace(before), other["reason"].replace(before))
    assert one["doublet_score"].corr(other["doublet_score"], method="spearman") > 0.8


def digest(result: SampleResult, folder: Path) -> dict[str, str]:
    """What is written to disk, file by file."""
    folder.mkdir(exist_ok=True)
    write_h5ad(result.filtered, folder / "filtered.h5ad")
    for name in ("cells", "qc", "ambient", "ranks"):
        write_tsv(getattr(result, name), folder / f"{name}.tsv.gz")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_a_second_run_gives_the_same_bytes(unfiltered_library, tmp_path):
    one = digest(process_sample(unfiltered_library, load_programs(), SETTINGS), tmp_path / "one")
    other = digest(process_sample(unfiltered_library, load_programs(), SETTINGS), tmp_path / "other")
    assert len(one) == 5 and one == other


@pytest.mark.slow
def test_the_number_of_threads_changes_nothing(unfiltered_library, tmp_path):
    write_h5ad(unfiltered_library, tmp_path / "counts.h5ad")
    script = (
        "import sys; from pathlib import Path; from anndata import read_h5ad\n"
        "sys.path[:0] = sys.argv[2:]\n"
        "from sample.test_sample_invariance import SETTINGS, digest, load_programs, process_sample\n"
        "folder = Path(sys.argv[1])\n"
        "result = process_sample(read_h5ad(folder.parent / 'counts.h5ad'), load_programs(), SETTINGS)\n"
        "print(digest(result, folder))\n"
    )
    root = Path(__file__).resolve().parents[2]
    printed = []
    for threads in ("1", "2", "4"):
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
        environment = os.environ | dict.fromkeys(names, threads)
        command = [sys.executable, "-c", script, str(tmp_path / threads), str(root / "workflow"), str(root / "tests")]
        printed.append(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert "filtered.h5ad" in printed[0]
    assert printed[0] == printed[1] == printed[2]
