"""The benchmark of the atlas measures what it says: counts like real ones, figures that hold for known answers."""

from __future__ import annotations

import gzip
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

from immunomod.atlas.build import build_atlas
from immunomod.atlas.settings import AtlasSettings
from immunomod.tables import REPOSITORY

MODULES = ("counts", "steps", "agreement", "immunomod_run", "run")
N_CELLS, N_PER_SAMPLE = 1_500, 750


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    """The scripts of benchmarks/atlas, which import each other by their plain names."""
    folder = str(REPOSITORY / "benchmarks" / "atlas")
    sys.path.insert(0, folder)
    try:
        yield {name: importlib.import_module(name) for name in MODULES}
    finally:
        sys.path.remove(folder)
        for name in MODULES:
            sys.modules.pop(name, None)


def write(modules: dict[str, ModuleType], folder: Path, **options: Any) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modules["counts"], "CELLS_PER_SAMPLE", N_PER_SAMPLE)
        modules["counts"].write_study(folder, N_CELLS, **options)
    return folder


@pytest.fixture(scope="module")
def study(modules: dict[str, ModuleType], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(modules, tmp_path_factory.mktemp("study"), seed=1, threads=2)


@pytest.fixture(scope="module")
def counts(study: Path) -> ad.AnnData:
    return ad.read_h5ad(study / "counts.h5ad")


@pytest.fixture(scope="module")
def truth(study: Path) -> pd.DataFrame:
    return pd.read_csv(study / "truth.tsv.gz", sep="\t").set_index("cell")


def test_counts_are_as_sparse_as_real_ones(counts: ad.AnnData) -> None:
    matrix = sparse.csr_matrix(counts.X)
    assert counts.shape == (N_CELLS, 30_000)
    assert matrix.dtype == np.int32
    assert matrix.data.min() >= 1
    assert matrix.has_sorted_indices
    assert 1_600 < np.median(np.diff(matrix.indptr)) < 2_400
    assert 4_800 < np.median(np.asarray(matrix.sum(axis=1)).ravel()) < 5_600
    assert counts.var["gene_id"].is_unique


def test_samples_lie_as_the_workflow_writes_them(study: Path, counts: ad.AnnData, truth: pd.DataFrame) -> None:
    paths = sorted(study.glob("samples/*/counts.h5ad"))
    samples = [ad.read_h5ad(path) for path in paths]
    assert [path.parent.name for path in paths] == [sample.obs["sample"].iloc[0] for sample in samples]
    assert all(sample.n_obs == N_PER_SAMPLE for sample in samples)
    assert all((sample.obs_names == sample.obs["sample"].astype(str) + ":" + sample.obs["barcode"]).all()
               for sample in samples)  # fmt: skip
    assert {"gene_id", "gene_symbol"} <= set(samples[0].var)
    # the one file of all cells is the samples one below the other
    joined = sparse.vstack([sample.X for sample in samples])
    assert (joined != counts.X).nnz == 0
    assert list(counts.obs_names) == [name for sample in samples for name in sample.obs_names] == list(truth.index)


def test_marker_genes_of_the_shipped_table_are_among_the_genes(counts: ad.AnnData) -> None:
    markers = pd.read_csv(REPOSITORY / "resources" / "markers" / "markers.tsv", sep="\t", comment="#")
    everywhere = markers[markers["tissue"].isna()]
    classes = everywhere[everywhere["cell_class"].isin(["CD4_T", "CD8_T", "NK", "B", "CD14_monocyte", "MSC"])]
    assert len(classes) > 20
    human = classes["gene_human"].dropna()  # some are known of the mouse only
    assert set(human) - set(counts.var["gene_symbol"]) == set()


def test_counts_repeat_with_their_seed_on_any_number_of_threads(
    modules: dict[str, ModuleType], study: Path, tmp_path: Path
) -> None:
    again = write(modules, tmp_path / "again", seed=1, threads=1, together=False)
    other = write(modules, tmp_path / "other", seed=2, threads=1, together=False)
    with gzip.open(study / "truth.tsv.gz") as one, gzip.open(again / "truth.tsv.gz") as two:
        assert one.read() == two.read()
    first, repeated, changed = (
        ad.read_h5ad(folder / "samples" / "S001" / "counts.h5ad").X for folder in (study, again, other)
    )
    assert (first != repeated).nnz == 0
    assert (first != changed).nnz > 0
    assert not (again / "counts.h5ad").exists()


def test_molecules_follow_the_shares_they_are_drawn_from(modules: dict[str, ModuleType]) -> None:
    """Genes' totals of many cells of one archetype against the multinomial they should come from."""
    drawn = modules["counts"]
    generator = np.random.default_rng(3)
    shares = generator.lognormal(0, 2, size=(1, 500))
    shares /= shares.sum()
    accept, alias = np.empty(shares.shape, np.float32), np.empty(shares.shape, np.int32)
    drawn._alias(shares, accept, alias)
    n_cells, n_molecules = 400, 5_000
    indptr = np.zeros(n_cells + 1, np.int64)
    indices, data = np.empty(n_cells * 500, np.int32), np.empty(n_cells * 500, np.int32)
    filled = drawn._draw(
        accept, alias, np.zeros(n_cells, np.int64), np.ones((n_cells, 1)), np.full(n_cells, n_molecules), 7,
        indptr, indices, data,
    )  # fmt: skip
    found = np.bincount(indices[:filled], weights=data[:filled], minlength=500)
    expected = shares[0] * n_cells * n_molecules
    assert found.sum() == n_cells * n_molecules
    often = expected > 20
    chi_square = ((found - expected)[often] ** 2 / expected[often]).sum()
    assert abs(chi_square - often.sum()) < 5 * np.sqrt(2 * often.sum())


@pytest.fixture(scope="module")
def atlas(modules: dict[str, ModuleType], study: Path, tmp_path_factory: pytest.TempPathFactory) -> ad.AnnData:
    """Through the sample floor's light steps, as the benchmark runs this workflow."""
    folder = tmp_path_factory.mktemp("atlas")
    targets = []
    for path in sorted(study.glob("samples/*/counts.h5ad")):
        targets.append(folder / path.parent.name / "filtered.h5ad")
        modules["immunomod_run"].prepare((path, targets[-1]))
    settings = AtlasSettings.from_config({"integration": "none"})
    return build_atlas(targets, REPOSITORY / "resources" / "markers", settings, seed=1, threads=2).adata


def test_the_atlas_reads_the_counts_and_recovers_the_classes(atlas: ad.AnnData, truth: pd.DataFrame) -> None:
    known = truth["cell_class"].reindex(atlas.obs_names)
    assert known.notna().all()
    assert atlas.n_obs > 0.9 * N_CELLS
    # a state derived from a class counts as that class: what few cells tell apart
    parents = {"CD4_T_memory": "CD4_T", "CD8_T_effector": "CD8_T", "B_memory": "B", "NK_bright": "NK",
               "monocyte_activated": "CD14_monocyte", "MSC_licensed": "MSC", "pre_DC": "DC"}  # fmt: skip
    assert adjusted_rand_score(known.replace(parents), atlas.obs["cell_class"].astype(str)) > 0.7


def leading_variances(modules: dict[str, ModuleType], archetypes: np.ndarray) -> np.ndarray:
    """Of one class's cells, over the largest of the same genes shuffled apart (parallel analysis, Horn 1965)."""
    drawn, classes = modules["counts"].sample_counts(archetypes, 4_000, 11)
    cells = drawn[classes == "CD4_T"]
    strong = np.argsort(-archetypes[0].mean(axis=0))[:1_500]
    totals = np.asarray(cells.sum(axis=1)).ravel()
    level = np.log1p(cells[:, strong].toarray() / totals[:, None] * 5_000)
    level = (level - level.mean(axis=0)) / level.std(axis=0)
    shuffled = np.random.default_rng(5).permuted(level, axis=0)
    own, by_chance = (np.linalg.svd(values, compute_uv=False) ** 2 for values in (level, shuffled))
    return own[:8] / by_chance[0]


def test_classes_are_continua_of_few_dimensions(modules: dict[str, ModuleType]) -> None:
    """Four archetypes span three dimensions; a class that is one point has at most that of its cells' depths."""
    _, archetypes = modules["counts"].profiles(1)
    continuum = leading_variances(modules, archetypes)
    point = leading_variances(modules, np.repeat(archetypes.mean(axis=1, keepdims=True), archetypes.shape[1], axis=1))
    assert (continuum[:3] > 1.5).all()
    assert (continuum[4:] < 1.3).all()
    assert (point[1:] < 1.3).all()


def saved(modules: dict[str, ModuleType], folder: Path, cells: pd.Index, clusters: Any, neighbors: Any,
          components: np.ndarray, markers: dict[str, list[str]]) -> Path:  # fmt: skip
    steps = modules["steps"].Steps()
    steps("all")
    modules["steps"].save(folder, steps, cells, clusters, components, neighbors, markers, [], np.empty((0, 0)))
    return folder


def test_agreement_tells_a_right_answer_from_a_wrong_one(
    modules: dict[str, ModuleType], study: Path, truth: pd.DataFrame, tmp_path: Path
) -> None:
    agreement, generator = modules["agreement"], np.random.default_rng(0)
    known = truth["cell_class"].to_numpy(dtype=str)
    names, codes = np.unique(known, return_inverse=True)
    components = (np.eye(len(names))[codes] * 50 + generator.normal(size=(len(known), len(names)))).astype(np.float32)
    distance = ((components[:, None, :].astype(float) - components[None, :, :]) ** 2).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    exact = np.argsort(distance, axis=1)[:, : agreement.N_NEIGHBORS]
    higher = agreement.truly_higher()
    right = saved(modules, tmp_path / "right", truth.index, known, exact, components,
                  {name: sorted(higher[name])[:10] for name in names})  # fmt: skip
    shuffled = generator.permutation(known)
    never = sorted(set(modules["counts"].profiles(1)[0]["gene_symbol"]) - set.union(*higher.values()))
    wrong = saved(modules, tmp_path / "wrong", truth.index, shuffled, generator.permutation(exact), components,
                  dict.fromkeys(names, never[:10]))  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreement, "N_QUERIES", 300)
        good, bad = agreement.agreement(study, right), agreement.agreement(study, wrong)
    assert good["ari"] == good["neighbor_recall"] == good["markers_higher"] == 1
    assert good["neighbors_of_class"] == good["exact_neighbors_of_class"]
    assert abs(bad["ari"]) < 0.02
    assert bad["neighbor_recall"] < 0.1
    assert bad["markers_higher"] == 0


def test_results_that_are_not_one_row_per_cell_are_refused(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    cells, components, neighbors = pd.Index(list("abcde")), np.zeros((5, 2)), np.zeros((2, 3))
    with pytest.raises(ValueError, match="5 cells, but"):
        saved(modules, tmp_path, cells, list("aabbb"), neighbors, components, {})
    with pytest.raises(ValueError, match="5 cells, but"):
        saved(modules, tmp_path, cells, list("aabbb"), np.zeros((5, 3)), components.T, {})


def test_principal_angle_is_the_angle_between_the_planes(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    tilt = np.radians(30)
    one = np.array([[1.0, 0], [0, 1], [0, 0], [0, 0]])
    two = np.array([[1.0, 0], [0, np.cos(tilt)], [0, np.sin(tilt)], [0, 0]])
    for name, loadings, genes in (("one", one, list("abcd")), ("two", two[::-1], list("dcba"))):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "loadings.npy", loadings)
        (tmp_path / name / "genes.json").write_text(json.dumps(genes))
    assert modules["agreement"].principal_angle(tmp_path / "one", tmp_path / "two") == pytest.approx(30)


def test_memory_of_processes_at_work_together_is_added_up(modules: dict[str, ModuleType]) -> None:
    code = "import sys; held = bytearray(b'1') * int(sys.argv[1]); print('ready', flush=True); input()"
    workers, seen = [], []
    try:
        for size in (1, 200_000_000, 200_000_000):
            command = [sys.executable, "-c", code, str(size)]
            workers.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            assert workers[-1].stdout is not None
            assert workers[-1].stdout.readline() == b"ready\n"
            seen.append(modules["steps"]._resident(os.getpid()))
    finally:
        for worker in workers:
            worker.communicate(b"\n", timeout=60)
    assert 2 * 200_000_000 < seen[2] - seen[0] < 2 * 250_000_000


def test_pages_that_processes_share_count_once(modules: dict[str, ModuleType]) -> None:
    code = (
        "import os; from steps import _resident; held = bytearray(b'1') * 300_000_000\n"
        "if os.fork(): print(_resident(os.getpid())); os.wait()\n"
        "else: import time; time.sleep(2); os._exit(0)"
    )
    folder = Path(str(modules["steps"].__file__)).parent
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert 300_000_000 < int(done.stdout) < 500_000_000


def test_memory_of_a_contestant_is_not_that_of_whoever_starts_it(modules: dict[str, ModuleType]) -> None:
    held = bytearray(b"1") * 1_000_000_000
    code = "from steps import Steps; steps = Steps(); steps('none'); print(steps.rows[0]['peak_mb'])"
    folder = Path(str(modules["steps"].__file__)).parent
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    peak = float(done.stdout.splitlines()[-1])
    assert 20 < peak < 500 < len(held) / 2**20


def test_a_contestant_out_of_time_ends_with_all_its_processes(
    modules: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "endless.py"
    script.write_text(
        "import subprocess, sys, time, pathlib\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "pathlib.Path(sys.argv[2]).write_text(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    monkeypatch.setitem(modules["run"].CONTESTANTS, "endless", [str(script)])
    found = modules["run"].run("endless", tmp_path, tmp_path / "pid", sys.executable, 3)
    assert found["status"] == "stopped after 3 s"
    state = Path("/proc") / (tmp_path / "pid").read_text() / "stat"
    assert not state.exists() or state.read_text().split()[2] == "Z"
