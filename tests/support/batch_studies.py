"""Multi-batch studies with known classes, as the atlas floor meets them: reduced, with components and labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from immunomod.atlas.components import principal_components
from immunomod.atlas.integrate import IntegrationInput
from immunomod.atlas.integration.labels import provisional_labels
from immunomod.atlas.markers import MarkerSet, load_markers
from immunomod.atlas.reduce import Reduced, reduce_samples
from immunomod.files import write_h5ad
from immunomod.sample.process import log_normalise
from immunomod.sample.variable_genes import sample_variances
from immunomod.simulate.batches import BatchDesign, BatchStudy, simulate_in_batches
from immunomod.simulate.settings import ARMS, SimulationSettings

MARKERS = Path(__file__).resolve().parents[2] / "resources" / "markers"
DESIGNS = ("donors", "days", "libraries", "arms", "unpaired")


@dataclass(frozen=True)
class BatchAtlas:
    """A simulated study up to its components."""

    study: BatchStudy
    reduced: Reduced
    markers: MarkerSet
    components: np.ndarray
    seed: int

    @property
    def data(self) -> IntegrationInput:
        """What integration is given."""
        return IntegrationInput(
            self.components,
            self.reduced.obs,
            lambda cells: provisional_labels(self.reduced, self.markers, cells, self.seed),
        )


def design(kind: str, sd: float, n_donors: int = 4) -> BatchDesign:
    """Libraries of ``n_donors`` and which were made together.

    ``donors``: all of a donor's on one day; ``days``: two days, half the donors each; ``libraries``: each on its own;
    ``arms``: each arm on its own day; ``unpaired``: half the donors gave the references, half the co-cultures, each
    donor on a day.
    """
    donors = [f"D{number}" for number in range(1, n_donors + 1)]
    batch_of = {}
    for number, donor in enumerate(donors):
        for arm in ARMS:
            first = number < n_donors / 2
            if kind == "unpaired" and first == (arm == "coculture"):
                continue
            batch_of[donor, arm] = {
                "donors": donor, "days": f"day{1 + (not first)}", "libraries": f"{donor}_{arm}", "arms": arm,
                "unpaired": donor,
            }[kind]  # fmt: skip
    return BatchDesign(batch_of, sd, sd / 3)


def write_samples(study: BatchStudy, folder: Path, with_batch: bool = True) -> list[Path]:
    """The libraries as ``filtered.h5ad``; single cells only, as after quality control."""
    paths = []
    cells = study.adata[~study.adata.obs["true_doublet"].to_numpy() & ~study.adata.obs["damaged"].to_numpy()]
    for sample in sorted(set(cells.obs["sample"])):
        part = cells[(cells.obs["sample"] == sample).to_numpy()].copy()
        counts = sparse.csr_matrix(part.X, dtype=np.int32)
        part.obs = part.obs[
            ["barcode", "sample", "donor", "condition", "culture", "organism", "true_class"] + ["batch"] * with_batch
        ].assign(dataset="simulated")
        part.layers["counts"] = counts
        part.var = part.var.join(sample_variances(counts))
        part.X = log_normalise(counts)
        paths.append(folder / sample / "filtered.h5ad")
        write_h5ad(part, paths[-1])
    return paths


def batch_atlas(
    folder: Path, kind: str, sd: float, seed: int, *, cells_scale: float = 1.0, effect_scale: float = 1.0,
    depth: float = 1700.0, n_genes: int = 2000, with_batch: bool = True,
) -> BatchAtlas:  # fmt: skip
    """Simulate, write, reduce: everything before integration."""
    settings = SimulationSettings(
        n_donors=4,
        cells_scale=cells_scale,
        effect_scale=effect_scale,
        depth=depth,
        seed=seed,
        doublet_rate=0.0,
        damaged_rate=0.0,
    )
    study = simulate_in_batches(settings, design(kind, sd))
    paths = write_samples(study, folder, with_batch)
    markers = load_markers(MARKERS)
    reduced = reduce_samples(paths, markers, n_genes)
    variable = reduced.var["highly_variable"].to_numpy(dtype=bool)
    components = principal_components(sparse.csr_matrix(reduced.expression[:, variable]), 30)
    return BatchAtlas(study, reduced, markers, components.scores, seed)


def true_classes(atlas: BatchAtlas) -> pd.Series:
    """The class that each cell was drawn from."""
    return atlas.reduced.obs["true_class"].astype(str)
