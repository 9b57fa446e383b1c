"""Train scVI and scANVI on the counts of an atlas's variable genes (scvi-tools, in an environment of its own).

This module runs in two places: in the workflow's environment, from where it starts another interpreter when the config
names one, and in the environment that has scvi-tools. There it needs no more than anndata, scikit-learn and the like
(envs/scvi.yaml). Nothing is fetched from the network.

Training uses a graphics card where torch sees one. With the same seed, the same machine and the same number of threads
it gives the same latent space up to rounding; on another device, a space of the same structure.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from immunomod.atlas.integration.keys import choose_key
from immunomod.atlas.integration.labels import provisional_labels
from immunomod.atlas.integration.learned import write_learned
from immunomod.atlas.integration.settings import IntegrationSettings
from immunomod.atlas.markers import load_markers
from immunomod.atlas.reduce import Reduced, reduce_samples, variable_counts
from immunomod.errors import UserError

if TYPE_CHECKING:
    from anndata import AnnData

FEWEST_CELLS = 100
_MOST_EPOCHS, _FEWEST_EPOCHS = 400, 8
_CELLS_OF_MOST_EPOCHS = 20_000
_PATIENCE = 20
_SCANVI_EPOCHS = 20
_BATCH_SIZE = 128
_TRAINED_SHARE = 0.9
_UNKNOWN = "unknown"
_INSTALL = "Run with --sdm conda, or install scvi-tools somewhere and name its interpreter in atlas.scvi_python."


def train_models(
    sample_paths: Sequence[Path],
    markers_folder: Path,
    output: Path,
    settings: IntegrationSettings,
    n_variable_genes: int,
    seed: int,
    threads: int = 1,
) -> None:
    """Train what ``settings`` ask for and write the latent coordinates of all cells to ``output``.

    Runs in ``settings.scvi_python`` where that is set, else in this interpreter.

    Parameters
    ----------
    sample_paths
        ``filtered.h5ad`` of the atlas's samples.
    markers_folder
        Marker tables; scANVI takes its classes from them.
    output
        An h5ad for :func:`~immunomod.atlas.integration.learned.read_learned`.
    settings, n_variable_genes
        As those of the atlas.
    seed
        Of the initial weights, of the order of cells and of the cells held back to stop early.
    threads
        For torch on the processor.

    Raises
    ------
    UserError
        scvi-tools is missing, the interpreter does not start, or there are too few cells or classes.
    """
    if settings.scvi_python:
        request = {
            "sample_paths": [str(path) for path in sample_paths],
            "markers_folder": str(markers_folder),
            "output": str(output),
            "settings": settings.as_dict() | {"scvi_python": ""},
            "n_variable_genes": n_variable_genes,
            "seed": seed,
            "threads": threads,
        }
        _run_elsewhere(settings.scvi_python, request)
        return
    _require("scvi")
    reduced = reduce_samples(sample_paths, load_markers(markers_folder), n_variable_genes, threads)
    described = settings.as_dict() | {"seed": seed, "scvi_tools": version("scvi-tools"), "torch": version("torch")}
    if len(reduced.obs) < FEWEST_CELLS:
        if settings.integration != "auto":
            raise UserError(
                f"config: atlas.integration is {settings.integration!r}, but this atlas has {len(reduced.obs)} cells; "
                f"a model needs {FEWEST_CELLS} at the least. Use harmony."
            )
        write_learned(reduced.obs.index, {}, described, output)
        return
    adata = _training_data(reduced, settings, threads)
    labels = None
    if "scanvi" in settings.learned:
        labels = provisional_labels(reduced, load_markers(markers_folder), np.arange(len(reduced.obs)), seed)
    coordinates, epochs = learn(adata, settings, labels, seed, threads)
    write_learned(reduced.obs.index, coordinates, described | {"epochs": epochs, "key": adata.uns["key"]}, output)


def _training_data(reduced: Reduced, settings: IntegrationSettings, threads: int) -> AnnData:
    import pandas as pd
    from anndata import AnnData

    key = choose_key(reduced.obs, settings.integration_key)
    counts = variable_counts(reduced, threads)
    obs = pd.DataFrame({"batch": key.batches.astype(str)}, index=reduced.obs.index)
    return AnnData(counts, obs=obs, uns={"key": key.name})


def learn(
    adata: AnnData, settings: IntegrationSettings, labels: NDArray[np.object_] | None, seed: int, threads: int
) -> tuple[dict[str, NDArray[np.float32]], int]:
    """Train on raw counts (``adata.X``, with ``obs["batch"]``).

    ``labels``: classes for scANVI, ``""`` where unknown; ``None``: scVI alone.

    Returns
    -------
    Latent coordinates (cells x ``scvi_latent``) by method, and the epochs that scVI took.
    """
    scvi, torch = _require("scvi"), _require("torch")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    scvi.settings.seed = seed
    scvi.settings.verbosity = logging.WARNING
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    known = None
    if labels is not None:
        known = sorted(set(labels.astype(str)) - {""})
        if len(known) < 2:
            raise UserError(
                "config: atlas.integration is 'scanvi', but markers name fewer than two classes of cells here, and "
                "there is nothing to train towards. Use scvi or harmony."
            )
        adata.obs["label"] = np.where(labels == "", _UNKNOWN, labels).astype(str)
    scvi.model.SCVI.setup_anndata(adata, batch_key="batch", labels_key="label" if known else None)
    model = scvi.model.SCVI(
        adata,
        n_latent=settings.scvi_latent,
        n_layers=settings.scvi_layers,
        n_hidden=settings.scvi_hidden,
        gene_likelihood="nb",
    )
    training = _training_options(adata.n_obs)
    model.train(
        max_epochs=settings.scvi_epochs or epochs_for(adata.n_obs),
        early_stopping=True,
        early_stopping_patience=_PATIENCE,
        **training,
    )
    epochs = len(model.history["elbo_train"])
    coordinates = {"scvi": model.get_latent_representation()}
    if known:
        named = scvi.model.SCANVI.from_scvi_model(model, unlabeled_category=_UNKNOWN)
        named.train(max_epochs=min(settings.scvi_epochs or _SCANVI_EPOCHS, _SCANVI_EPOCHS), **training)
        coordinates["scanvi"] = named.get_latent_representation()
    return coordinates, epochs


def epochs_for(n_cells: int) -> int:
    """Passes over the cells: 400, and above 20,000 cells as many as make the same number of steps, 8 at the least."""
    return int(np.clip(round(_MOST_EPOCHS * _CELLS_OF_MOST_EPOCHS / max(n_cells, 1)), _FEWEST_EPOCHS, _MOST_EPOCHS))


def _training_options(n_cells: int) -> dict[str, Any]:
    """Options of every training; the batch size leaves no last batch of one cell, which has no variance to learn."""
    trained = int(np.ceil(_TRAINED_SHARE * n_cells))
    batch_size = next(size for size in range(_BATCH_SIZE, 1, -1) if trained % size != 1)
    return {
        "batch_size": batch_size,
        "train_size": _TRAINED_SHARE,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }


def _require(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(
            f"config: atlas.integration or atlas.scvi asks for scVI, but {sys.executable} cannot import scvi-tools "
            f"({error}). {_INSTALL}"
        ) from None


def _run_elsewhere(python: str, request: Mapping[str, Any]) -> None:
    """Run this module with another interpreter, the package on its path."""
    package = str(Path(__file__).resolve().parents[3])
    paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "request.json"
        file.write_text(json.dumps(request), encoding="utf-8")
        try:
            done = subprocess.run(
                [python, "-m", "immunomod.atlas.integration.train", str(file)],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))},
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        except OSError as error:
            raise UserError(f"config: atlas.scvi_python is {python!r}, which does not start: {error}.") from None
    logging.getLogger(__name__).info("%s", done.stderr)
    if done.returncode == 0:
        return
    lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    raise UserError(told[-1] if told else f"config: {python}: training failed: {lines[-1]}. {_INSTALL}")


def _main(file: Path) -> None:
    request = json.loads(file.read_text(encoding="utf-8"))
    try:
        train_models(
            [Path(path) for path in request["sample_paths"]],
            Path(request["markers_folder"]),
            Path(request["output"]),
            IntegrationSettings(**request["settings"]),
            request["n_variable_genes"],
            request["seed"],
            request["threads"],
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
