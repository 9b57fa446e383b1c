"""Batch effects on top of a simulated study: every gene of a batch's libraries is raised or lowered by a factor.

For gene g, class c and batch b the profile of c is multiplied by 2 to the power of ``shared[b, g] + own[b, c, g]``. The
shared part is technique that all cells feel alike (capture, ambient temperature of the lab); the own part is what
methods that subtract one vector per batch cannot take out. Truth about planted effects stays that of the study: where
batches and arms coincide, the two cannot be told apart, and no method can know better.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from immunomod.errors import UserError
from immunomod.programs import load_programs
from immunomod.simulate.effects import ClassEffects, draw_effects, gene_truth
from immunomod.simulate.profiles import load_profiles, signed_weights
from immunomod.simulate.settings import ARMS, SimulationSettings
from immunomod.simulate.streams import stream
from immunomod.simulate.study import describe_libraries, draw_library

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class BatchDesign:
    """Which libraries were made together, and how much batches differ.

    Attributes
    ----------
    batch_of
        Batch of each library, by donor and arm; a library that is not named was not made.
    sd
        Standard deviation, in log2 units, of the part that all classes share.
    own_sd
        That of the part of each class.
    """

    batch_of: Mapping[tuple[str, str], str]
    sd: float
    own_sd: float = 0.0

    def __post_init__(self) -> None:
        if not self.batch_of:
            raise UserError("simulate: a design without a library.")
        if self.sd < 0 or self.own_sd < 0:
            raise UserError("simulate: the standard deviations of batch effects must be 0 or more.")


@dataclass(frozen=True)
class BatchStudy:
    """Cells (``adata``, as those of a :class:`~immunomod.simulate.study.Study`, with ``batch``) and true changes."""

    adata: AnnData
    truth_genes: pd.DataFrame


def simulate_in_batches(settings: SimulationSettings, design: BatchDesign) -> BatchStudy:
    """Draw the libraries of ``design`` with the shipped programmes and profiles."""
    from anndata import AnnData

    unknown = sorted(set(design.batch_of) - {(donor, arm) for donor in settings.donors for arm in ARMS})
    if unknown:
        raise UserError(f"simulate: there is no library of donor and arm {unknown[0]}.")
    programs, profiles = load_programs(), load_profiles()
    weights = signed_weights(programs, profiles)
    effects = {cells.name: draw_effects(cells, programs, weights, settings) for cells in settings.cell_classes}
    shifted = {name: _shifted(name, drawn, design, settings.seed) for name, drawn in effects.items()}
    matrices, tables = [], []
    for library in describe_libraries(settings).to_dict("records"):
        place = (library["donor"], library["condition"])
        if place not in design.batch_of:
            continue
        counts, table = draw_library(*place, shifted, profiles, settings)
        matrices.append(counts)
        columns: dict[str, object] = {"barcode": table.pop("barcode"), "batch": design.batch_of[place]}
        columns.update({str(name): value for name, value in library.items()})
        tables.append(pd.DataFrame({**columns, **table}))
    obs = pd.concat(tables, ignore_index=True)
    obs.index = pd.Index(obs["sample"] + ":" + obs["barcode"])
    var = profiles.genes.set_index("gene_id", drop=False).rename_axis(None)
    adata = AnnData(sp.vstack(matrices, format="csr"), obs=obs, var=var)
    return BatchStudy(adata, gene_truth(effects, profiles, settings))


def _shifted(name: str, drawn: ClassEffects, design: BatchDesign, seed: int) -> ClassEffects:
    factors = dict(drawn.log2_factor)
    n_genes = len(drawn.planted)
    for place, batch in design.batch_of.items():
        if place in factors:
            shared = stream(seed, "batch", batch).normal(0.0, 1.0, n_genes)
            own = stream(seed, "batch", batch, name).normal(0.0, 1.0, n_genes)
            factors[place] = np.asarray(factors[place] + design.sd * shared + design.own_sd * own)
    return replace(drawn, log2_factor=factors)
