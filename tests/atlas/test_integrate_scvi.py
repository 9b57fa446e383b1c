"""scVI and scANVI: real training on the processor, in an interpreter that has scvi-tools.

``IMMUNOMOD_SCVI_PYTHON`` names one, or ``.venv-scvi/`` beside the repository's own environment holds it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from immunomod.atlas.integration.learned import read_learned, write_learned
from immunomod.atlas.integration.settings import IntegrationSettings
from immunomod.atlas.integration.train import epochs_for, train_models
from immunomod.atlas.markers import load_markers
from immunomod.atlas.reduce import reduce_samples, variable_counts
from immunomod.errors import UserError
from immunomod.files import read_obs
from immunomod.simulate.batches import simulate_in_batches
from immunomod.simulate.settings import SimulationSettings
from support.batch_studies import MARKERS, design, write_samples

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = {"scvi_latent": 8, "scvi_layers": 1, "scvi_hidden": 64, "scvi_epochs": 120}


@pytest.fixture(scope="module")
def scvi_python() -> str:
    named = os.environ.get("IMMUNOMOD_SCVI_PYTHON")
    python = named or str(REPOSITORY / ".venv-scvi" / "bin" / "python")
    if not Path(python).is_file():
        pytest.skip(f"scvi-tools: {python} does not exist; `make env-scvi` makes it")
    return python


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two donors, six libraries, strong batch effects between the donors."""
    settings = SimulationSettings(n_donors=2, cells_scale=0.9, seed=3, doublet_rate=0.0, damaged_rate=0.0)
    study = simulate_in_batches(settings, design("donors", 0.6, n_donors=2))
    return write_samples(study, tmp_path_factory.mktemp("scvi"))


@pytest.mark.slow
def test_training_mixes_batches_keeps_classes_and_repeats(
    samples: list[Path], scvi_python: str, tmp_path: Path
) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    settings = IntegrationSettings(integration="scanvi", integration_key="donor", scvi_python=scvi_python, **SMALL)
    for name in ("first", "again"):
        train_models(samples, MARKERS, tmp_path / f"{name}.h5ad", settings, 500, seed=5, threads=1)
    obs = pd.concat([read_obs(path) for path in samples]).sample(frac=1, random_state=0)
    first, again = (read_learned(tmp_path / f"{name}.h5ad", obs.index) for name in ("first", "again"))
    other = IntegrationSettings(integration="scvi", integration_key="donor", scvi_python=scvi_python, **SMALL)
    train_models(samples, MARKERS, tmp_path / "other.h5ad", other, 500, seed=6, threads=1)
    differs = read_learned(tmp_path / "other.h5ad", obs.index)
    assert set(first) == {"scvi", "scanvi"} and set(differs) == {"scvi"}

    reduced = reduce_samples(samples, load_markers(MARKERS), 500)
    counts = variable_counts(reduced)[reduced.obs.index.get_indexer(obs.index)].toarray()
    unaligned = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)

    def found(points: np.ndarray, column: str) -> float:
        """Share of the cells of which a neighbour vote, themselves left out, gives the right level of a column."""
        vote = KNeighborsClassifier(16).fit(points, obs[column]).kneighbors(points, return_distance=False)[:, 1:]
        near = obs[column].to_numpy()[vote]
        return float((near == obs[column].to_numpy()[:, None]).mean())

    for method, latent in first.items():
        assert latent.shape == (len(obs), 8) and latent.std(axis=0).max() > 0.1
        np.testing.assert_allclose(latent, again[method], atol=1e-4)
        assert found(unaligned, "donor") > found(latent, "donor") + 0.1
        assert found(latent, "true_class") > 0.8
    assert np.abs(first["scvi"] - differs["scvi"]).max() > 0.1


def test_counts_of_variable_genes_are_those_of_the_files(samples: list[Path]) -> None:
    import anndata as ad

    reduced = reduce_samples(samples, load_markers(MARKERS), 200)
    counts = variable_counts(reduced)
    assert counts.shape == (len(reduced.obs), int(reduced.var["highly_variable"].sum()))
    genes = reduced.var.loc[reduced.var["highly_variable"], "gene_symbol"]
    for path in samples:
        whole = ad.read_h5ad(path)
        whole.var_names = whole.var["gene_symbol"].astype(str)
        rows = reduced.obs.index.get_indexer(whole.obs_names)
        expected = whole[:, list(genes)].layers["counts"].toarray()
        np.testing.assert_array_equal(counts[rows].toarray(), expected)


def test_latent_coordinates_are_joined_by_cell_name(tmp_path: Path) -> None:
    cells = pd.Index(["a:1", "a:2", "b:1"])
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    write_learned(cells, {"scvi": values}, {"seed": 1}, tmp_path / "latent.h5ad")
    back = read_learned(tmp_path / "latent.h5ad", cells[[2, 0]])
    np.testing.assert_array_equal(back["scvi"], values[[2, 0]])
    with pytest.raises(UserError, match=r"1 of 2 cells, 'c:9' among them"):
        read_learned(tmp_path / "latent.h5ad", pd.Index(["a:1", "c:9"]))


def test_without_scvi_tools_the_error_says_what_to_do(samples: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("anndata")
    if subprocess.run(["python", "-c", "import scvi"], capture_output=True, check=False).returncode == 0:
        pytest.skip("scvi-tools is installed here")
    with pytest.raises(UserError, match=r"atlas\.scvi_python"):
        train_models(samples, MARKERS, tmp_path / "latent.h5ad", IntegrationSettings(integration="scvi"), 200, 1)
    nowhere = IntegrationSettings(integration="scvi", scvi_python=str(tmp_path / "no-python"))
    with pytest.raises(UserError, match=r"does not start"):
        train_models(samples, MARKERS, tmp_path / "latent.h5ad", nowhere, 200, 1)
    assert not (tmp_path / "latent.h5ad").exists()


def test_an_interpreter_without_scvi_tools_is_named(samples: list[Path], tmp_path: Path) -> None:
    import sys

    settings = IntegrationSettings(integration="scvi", scvi_python=sys.executable)
    with pytest.raises(UserError, match=r"cannot import scvi-tools"):
        train_models(samples, MARKERS, tmp_path / "latent.h5ad", settings, 200, 1)


def test_epochs_make_the_same_number_of_steps() -> None:
    assert epochs_for(3_000) == epochs_for(20_000) == 400
    assert epochs_for(100_000) == 80 and epochs_for(1_000_000) == 8 and epochs_for(10_000_000) == 8
