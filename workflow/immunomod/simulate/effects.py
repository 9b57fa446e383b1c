"""The planted responses to co-culture, gene by gene and donor by donor, and the truth that follows from them.

For gene g, donor d and class c the true log2 change from the reference arm (MSC alone or immune cells alone) to the
co-culture is

    change[d, g] = planted[g] + response[d, g] + sample[d, coculture, g] - sample[d, reference, g]

``planted`` is the same for all donors. A gene of a planted programme has the programme's mean (of the strongest
planted programme where it is in several), times its direction, times 1 + gene_sd x N(0, 1); all others have zero.
``response`` is the donors' variation, correlated within programmes: each programme that is tested in the class draws
N(0, donor_sd) per donor, and a gene takes the signed sum over its programmes divided by the square root of their
number. ``sample`` is N(0, sample_sd), independent for each gene and library.

Changes are of a gene's rate of transcription relative to genes that do not change, before leakage, doublets and
damage. Counts per million feel every gene's change through their common total; a normalisation that looks for the
unchanged majority (TMM, median of ratios) estimates what is defined here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from immunomod.errors import UserError
from immunomod.programs import ProgramSet
from immunomod.simulate.profiles import Profiles, applies_to, signed_weights
from immunomod.simulate.settings import REFERENCE_ARM, CellClass, SimulationSettings
from immunomod.simulate.streams import stream

EXPRESSED_CPM = 20.0


@dataclass(frozen=True)
class ClassEffects:
    """The responses of one class.

    Attributes
    ----------
    planted
        Genes: mean log2 change over all donors that could be drawn.
    change
        Donors x genes: log2 change of the donors that were drawn.
    log2_factor
        By (donor, arm): genes, what the class's profile is raised by (log2) in that library.
    """

    planted: np.ndarray
    change: np.ndarray
    log2_factor: dict[tuple[str, str], np.ndarray]


def planted_changes(cells: CellClass, weights: pd.DataFrame, settings: SimulationSettings) -> np.ndarray:
    """Mean log2 change of every gene of a class, shape (genes,)."""
    effects = [effect for effect in settings.effects if cells.lineage in effect.lineages]
    unknown = [effect.program for effect in effects if effect.program not in weights]
    if unknown:
        raise UserError(
            f"simulate: there is no programme {unknown[0]!r} to plant. Known are {', '.join(map(str, weights))}."
        )
    planted = np.zeros(len(weights))
    for effect in sorted(effects, key=lambda effect: abs(effect.log2_change)):  # the strongest comes last and stays
        direction = np.sign(weights[effect.program].to_numpy())
        planted = np.where(direction != 0, direction * effect.log2_change, planted)
    heterogeneity = stream(settings.seed, "planted", cells.name).normal(1.0, settings.gene_sd, len(planted))
    return settings.effect_scale * planted * heterogeneity


def donor_responses(donor: str, cells: CellClass, direction: np.ndarray, settings: SimulationSettings) -> np.ndarray:
    """A donor's deviation from the planted changes, shape (genes,); ``direction`` is genes x programmes in -1, 0, 1."""
    rng = stream(settings.seed, "response", donor, cells.name)
    programs = rng.normal(0.0, settings.donor_sd, direction.shape[1])
    shared: np.ndarray = direction @ programs / np.sqrt(np.maximum(np.abs(direction).sum(axis=1), 1.0))
    return shared


def draw_effects(
    cells: CellClass, programs: ProgramSet, weights: pd.DataFrame, settings: SimulationSettings
) -> ClassEffects:
    """Draw the responses of one class for all donors; ``weights`` as from :func:`signed_weights`."""
    planted = planted_changes(cells, weights, settings)
    tested = [name for name, row in programs.table.iterrows() if applies_to(row["compartment"], cells.lineage)]
    direction = np.sign(weights[tested].to_numpy())
    reference = REFERENCE_ARM[cells.compartment]
    log2_factor, change = {}, []
    for donor in settings.donors:
        baseline = stream(settings.seed, "baseline", donor, cells.compartment).normal(
            0.0, settings.baseline_sd, len(planted)
        )
        sample = {
            arm: stream(settings.seed, "sample", donor, arm, cells.name).normal(0.0, settings.sample_sd, len(planted))
            for arm in (reference, "coculture")
        }
        response = planted + donor_responses(donor, cells, direction, settings)
        log2_factor[donor, reference] = baseline + sample[reference]
        log2_factor[donor, "coculture"] = baseline + sample["coculture"] + response
        change.append(response + sample["coculture"] - sample[reference])
    return ClassEffects(planted=planted, change=np.array(change), log2_factor=log2_factor)


def gene_truth(effects: dict[str, ClassEffects], profiles: Profiles, settings: SimulationSettings) -> pd.DataFrame:
    """True changes of the expressed genes, one row per class and gene.

    A gene is expressed in a class where its mean level, in the reference or in the co-culture, is ``EXPRESSED_CPM``
    or more. Columns: ``cell_class, gene, reference_cpm, planted`` (bool), ``true_log2_change`` (mean over the donors
    drawn), ``population_log2_change`` (mean over all donors that could be drawn).
    """
    tables = []
    for name, drawn in effects.items():
        level = 1e6 * profiles.of(name, settings.stimulus)
        expressed = np.maximum(level, level * np.exp2(drawn.planted)) >= EXPRESSED_CPM
        table = pd.DataFrame(
            {
                "cell_class": name,
                "gene": profiles.symbols,
                "reference_cpm": level,
                "planted": drawn.planted != 0,
                "true_log2_change": drawn.change.mean(axis=0),
                "population_log2_change": drawn.planted,
            }
        )
        tables.append(table[expressed])
    truth: pd.DataFrame = pd.concat(tables, ignore_index=True)
    return truth


def program_truth(
    genes: pd.DataFrame, programs: ProgramSet, profiles: Profiles, settings: SimulationSettings
) -> pd.DataFrame:
    """True effects of every programme in every class where its compartment lets it be tested.

    Parameters
    ----------
    genes
        As from :func:`gene_truth`; leave out genes that a method did not find to get the truth of what it averaged.

    Returns
    -------
    One row per class and programme: ``cell_class, program, planted`` (bool), ``shares_gene_with_planted`` (bool: not
    planted, but a gene of it changes by design), ``genes_total`` (of the programme), ``genes_expressed``,
    ``true_effect`` and ``population_effect``: the weighted mean over the expressed genes of the signed log2 change,
    for the donors drawn and over all donors that could be drawn. Empty where no gene is expressed.
    """
    weights = signed_weights(programs, profiles)
    total = (programs.weights("human") != 0).sum()
    rows = []
    for cells in settings.cell_classes:
        own = genes[genes["cell_class"] == cells.name].set_index("gene")
        for program, compartment in zip(map(str, programs.table.index), programs.table["compartment"], strict=True):
            if not applies_to(compartment, cells.lineage):
                continue
            signed = weights.loc[weights[program] != 0, program]
            found = own.loc[own.index.intersection(signed.index)]
            signed = signed[found.index]
            scale = signed.abs().sum()
            planted = settings.effect_scale != 0 and any(
                effect.program == program and cells.lineage in effect.lineages and effect.log2_change != 0
                for effect in settings.effects
            )
            rows.append(
                {
                    "cell_class": cells.name,
                    "program": program,
                    "planted": planted,
                    "shares_gene_with_planted": not planted and bool(found["planted"].any()),
                    "genes_total": int(total[program]),
                    "genes_expressed": len(found),
                    "true_effect": (signed * found["true_log2_change"]).sum() / scale if scale else np.nan,
                    "population_effect": (signed * found["population_log2_change"]).sum() / scale if scale else np.nan,
                }
            )
    return pd.DataFrame(rows)
