"""How many donors does an effect need? Power of the donor-paired test by simulation.

Studies of the largest size are drawn; since each donor has streams of its own, their first donors are the smaller
studies, and one drawing serves every size. Each is tested as a real one is (pseudobulks, moderated paired model), with
the true classes and without doublets and damaged cells: the power of a real study is this at best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from immunomod.contrast.design import Contrast
from immunomod.contrast.leakage import add_leakage
from immunomod.contrast.program_effects import ProgramEffects, program_effects
from immunomod.contrast.pseudobulk import pseudobulk
from immunomod.contrast.settings import ContrastSettings
from immunomod.errors import UserError
from immunomod.exclusive import load_exclusive_genes
from immunomod.files import write_tsv
from immunomod.programs import ProgramSet, load_programs
from immunomod.simulate.profiles import load_profiles
from immunomod.simulate.settings import SimulationSettings
from immunomod.simulate.study import Study, simulate_study

if TYPE_CHECKING:
    from anndata import AnnData

CONTRAST = Contrast("power", ("simulated",), "condition", ("coculture",), ("msc_alone", "immune_alone"))
ALPHA = 0.05


def true_pseudobulk(study: Study) -> AnnData:
    """Pseudobulks of a simulated study by its true classes, without doublets, damaged cells and empty droplets."""
    cells = study.adata.obs
    by_name = {cell_class.name: cell_class for cell_class in study.settings.cell_classes}
    cells = cells[~cells["true_doublet"] & ~cells["damaged"] & ~cells["empty"]]
    cells = cells.assign(
        cell_class=cells["true_class"],
        compartment=[by_name[name].compartment for name in cells["true_class"]],
        lineage=[by_name[name].lineage for name in cells["true_class"]],
    )
    return pseudobulk([study.adata], cells)


def programme_tables(pseudobulks: AnnData, programs: ProgramSet, seed: int) -> ProgramEffects:
    """All tables of programmes of one simulated study, partner RNA taken out."""
    settings = ContrastSettings(n_random_sets=2)
    pseudobulks = add_leakage(pseudobulks, programs, load_exclusive_genes())
    return program_effects(CONTRAST, {"simulated": pseudobulks}, programs, settings, seed)


def estimate_effects(pseudobulks: AnnData, programs: ProgramSet, seed: int) -> pd.DataFrame:
    """The table of programme effects of one simulated study, partner RNA taken out."""
    return programme_tables(pseudobulks, programs, seed).effects


@dataclass(frozen=True)
class SimulatedStudies:
    """Studies of several sizes.

    Attributes
    ----------
    rows
        ``program_effects.tsv`` of every study, for what is planted: with ``donors`` (size), ``study`` and
        ``population_effect`` (log2).
    scores
        ``program_scores.tsv`` of every study, with ``donors`` and ``study``.
    """

    rows: pd.DataFrame
    scores: pd.DataFrame


def draw_studies(settings: SimulationSettings, donors: Sequence[int], n_studies: int) -> SimulatedStudies:
    """Simulate and test studies.

    Parameters
    ----------
    settings
        The study, whose ``n_donors`` is not used; study i has the seed ``settings.seed + i``.
    donors
        Numbers of donors, 2 or more.
    n_studies
        Simulated studies.
    """
    if min(donors) < 2:
        raise UserError(f"simulate: {min(donors)} donors: power needs 2 or more, cells are no replicates.")
    if n_studies < 1:
        raise UserError(f"simulate: {n_studies} studies: at least 1 is needed.")
    programs, profiles = load_programs(), load_profiles()
    rows, scores = [], []
    for number in range(n_studies):
        drawn = replace(settings, n_donors=max(donors), seed=settings.seed + number)
        study = simulate_study(drawn, programs, profiles)
        sums = true_pseudobulk(study)
        truth = study.truth_effects.loc[study.truth_effects["planted"], ["cell_class", "program", "population_effect"]]
        for n in donors:
            chosen = sums[sums.obs["donor"].isin(drawn.donors[:n]).to_numpy()]
            found = programme_tables(chosen, programs, drawn.seed)
            labels = {"donors": n, "study": number}
            rows.append(truth.merge(found.effects, on=["cell_class", "program"], how="left").assign(**labels))
            scores.append(found.scores.assign(**labels))
    return SimulatedStudies(pd.concat(rows, ignore_index=True), pd.concat(scores, ignore_index=True))


def power_of(rows: pd.DataFrame, alpha: float = ALPHA) -> pd.DataFrame:
    """Power per number of donors, class and planted programme; ``rows`` as from :func:`draw_studies`."""
    p_value = pd.to_numeric(rows["p_value"])
    found = (p_value < alpha) & (np.sign(rows["effect"]) == np.sign(rows["population_effect"]))
    return (
        rows.assign(tested=p_value.notna(), found=found, half_width=(rows["ci_high"] - rows["ci_low"]) / 2)
        .groupby(["donors", "cell_class", "program"], sort=False)
        .agg(
            studies=("tested", "sum"),
            true_effect=("population_effect", "mean"),
            effect=("effect", "mean"),
            half_width=("half_width", "median"),
            power=("found", "mean"),
        )
        .reset_index()
    )


def power_table(
    settings: SimulationSettings, donors: Sequence[int] = (2, 3, 4, 6, 8), n_studies: int = 20
) -> pd.DataFrame:
    """Power of every planted programme for several numbers of donors; parameters as of :func:`draw_studies`.

    Returns
    -------
    One row per number of donors, class and planted programme: ``donors, cell_class, program, studies`` (in which the
    test could be made), ``true_effect`` and ``effect`` (log2, means over studies), ``half_width`` (of the 95% interval,
    median), ``power`` (share of all studies with p < 0.05 and the sign of the truth; its standard error is at most
    ``0.5 / sqrt(n_studies)``).
    """
    return power_of(draw_studies(settings, donors, n_studies).rows)


def power_command(
    out: Path,
    donors: Sequence[int] = (2, 3, 4, 6, 8),
    studies: int = 20,
    seed: int = 1,
    cells_scale: float = 1.0,
    effect_scale: float = 1.0,
    donor_sd: float = 0.25,
) -> str:
    """Write :func:`power_table` to the tab-separated file ``out``; return the power by class, programme and donors."""
    settings = SimulationSettings(cells_scale=cells_scale, effect_scale=effect_scale, donor_sd=donor_sd, seed=seed)
    table = power_table(settings, donors, studies)
    write_tsv(table.round(4), out)
    wide = table.pivot_table(index=["cell_class", "program"], columns="donors", values="power", sort=False)
    return f"power at p < {ALPHA}, by number of donors\n{wide.round(2).to_string()}"
