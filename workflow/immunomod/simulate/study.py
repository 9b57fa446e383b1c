"""A simulated study: donors x (MSC alone, stimulated immune cells alone, co-culture), with its truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from immunomod.programs import ProgramSet, load_programs
from immunomod.simulate.counts import draw_barcodes, draw_cells, draw_leakage, draw_soup
from immunomod.simulate.effects import ClassEffects, draw_effects, gene_truth, program_truth
from immunomod.simulate.profiles import Profiles, load_profiles, signed_weights
from immunomod.simulate.settings import ARMS, CellClass, SimulationSettings
from immunomod.simulate.streams import stream

if TYPE_CHECKING:
    from anndata import AnnData

DAMAGED_DEPTH = 0.25
DAMAGED_MITOCHONDRIAL = 5.0


@dataclass(frozen=True)
class Study:
    """A simulated study.

    Attributes
    ----------
    adata
        All droplets x genes, int32 CSR; ``obs_names`` are ``<sample>:<barcode>``. ``obs``: ``barcode``, the columns of
        ``libraries``, and the truth: ``true_class``, ``true_doublet``, ``second_class`` (of a doublet), ``damaged``,
        ``leaked_counts`` (molecules of the other compartment's lysed cells), ``ambient_counts`` (molecules of lysed
        cells of either compartment) and ``empty`` (no cell; ``true_class`` is empty). ``var``: ``gene_id``,
        ``gene_symbol``.
    libraries
        One row per library: ``sample, condition, donor, culture, stimulus, msc_source, msc_donor, organism``.
    truth_effects, truth_genes, truth_composition
        See :func:`immunomod.simulate.effects.program_truth`, :func:`~immunomod.simulate.effects.gene_truth` and
        :func:`composition_truth`.
    """

    settings: SimulationSettings
    adata: AnnData
    libraries: pd.DataFrame
    truth_effects: pd.DataFrame
    truth_genes: pd.DataFrame
    truth_composition: pd.DataFrame

    @property
    def truth_cells(self) -> pd.DataFrame:
        """The truth of every droplet: ``sample, barcode, donor, condition, true_class, true_doublet, ...``."""
        columns = ["sample", "barcode", "donor", "condition"]
        truth = ["true_class", "true_doublet", "second_class", "damaged", "leaked_counts", "ambient_counts", "empty"]
        table: pd.DataFrame = self.adata.obs[columns + truth].reset_index(drop=True)
        return table


def simulate_study(
    settings: SimulationSettings | None = None,
    programs: ProgramSet | None = None,
    profiles: Profiles | None = None,
) -> Study:
    """Draw a study; the shipped programmes and profiles are taken where none are given."""
    from anndata import AnnData

    settings = settings or SimulationSettings()
    programs = programs or load_programs()
    profiles = profiles or load_profiles()
    weights = signed_weights(programs, profiles)
    effects = {cells.name: draw_effects(cells, programs, weights, settings) for cells in settings.cell_classes}
    libraries = describe_libraries(settings)
    matrices, tables = [], []
    for library in libraries.to_dict("records"):
        counts, table = draw_library(library["donor"], library["condition"], effects, profiles, settings)
        matrices.append(counts)
        columns: dict[str, object] = {"barcode": table.pop("barcode")}
        columns.update({str(name): value for name, value in library.items()})
        tables.append(pd.DataFrame({**columns, **table}))
    obs = pd.concat(tables, ignore_index=True)
    obs.index = pd.Index(obs["sample"] + ":" + obs["barcode"])
    var = profiles.genes.set_index("gene_id", drop=False).rename_axis(None)
    genes = gene_truth(effects, profiles, settings)
    return Study(
        settings=settings,
        adata=AnnData(sp.vstack(matrices, format="csr"), obs=obs, var=var),
        libraries=libraries,
        truth_effects=program_truth(genes, programs, profiles, settings),
        truth_genes=genes,
        truth_composition=composition_truth(settings),
    )


def describe_libraries(settings: SimulationSettings) -> pd.DataFrame:
    """The libraries of a study in the columns of the samples sheet, donor by donor."""
    culture = {"msc_alone": "msc", "immune_alone": "immune", "coculture": "coculture"}
    rows = []
    for number, donor in enumerate(settings.donors, start=1):
        for arm in ARMS:
            with_msc = arm != "immune_alone"
            rows.append(
                {
                    "sample": f"{donor}_{arm}",
                    "condition": arm,
                    "donor": donor,
                    "culture": culture[arm],
                    "stimulus": "" if arm == "msc_alone" else settings.stimulus,
                    "msc_source": settings.msc_source_of(donor) if with_msc else "",
                    "msc_donor": f"M{number}" if with_msc else "",
                    "organism": "human",
                }
            )
    return pd.DataFrame(rows)


def composition_truth(settings: SimulationSettings) -> pd.DataFrame:
    """True changes of composition by co-culture: ``cell_class, log_change, log_odds_ratio``.

    ``log_change`` is the natural logarithm of the change of the class's number of cells, ``log_odds_ratio`` that of
    the change of its odds among the cells of its compartment.
    """
    shift = dict(settings.composition_shift)
    rows = []
    for cells in settings.cell_classes:
        others = [
            other
            for other in settings.cell_classes
            if other.compartment == cells.compartment and other.name != cells.name
        ]
        before = sum(other.cells for other in others)
        after = sum(other.cells * np.exp(shift.get(other.name, 0.0)) for other in others)
        change = shift.get(cells.name, 0.0)
        odds = change - np.log(after / before) if before else np.nan
        rows.append({"cell_class": cells.name, "log_change": change, "log_odds_ratio": odds})
    return pd.DataFrame(rows)


def draw_library(
    donor: str, arm: str, effects: dict[str, ClassEffects], profiles: Profiles, settings: SimulationSettings
) -> tuple[sp.csr_matrix, dict[str, list[object]]]:
    """Draw the droplets of one library: counts (droplets x genes) and the columns of their truth."""
    rng = stream(settings.seed, "library", donor, arm)
    library_depth = settings.depth * np.exp(rng.normal(0.0, settings.library_sd))
    classes = settings.classes_of(arm)
    numbers = {cells.name: number_of_cells(cells, arm, settings, rng) for cells in classes}
    shares = {cells.name: library_share(cells.name, donor, arm, effects, profiles, settings) for cells in classes}
    by_name = {cells.name: cells for cells in classes}
    mitochondrial = profiles.symbols.str.startswith("MT-")

    def draw(cells: CellClass, n: int) -> tuple[np.ndarray, np.ndarray]:
        damaged = rng.random(n) < settings.damaged_rate
        spread = rng.normal(-(settings.depth_sd**2) / 2, settings.depth_sd, n)
        depth = library_depth * cells.rna_content * np.exp(spread) * np.where(damaged, DAMAGED_DEPTH, 1.0)
        own = np.exp(rng.normal(-(settings.mitochondrial_sd**2) / 2, settings.mitochondrial_sd, n))
        factor = np.where(mitochondrial, (own * np.where(damaged, DAMAGED_MITOCHONDRIAL, 1.0))[:, None], 1.0)
        return draw_cells(shares[cells.name], depth, factor, settings.dispersion, rng), damaged

    drawn = [draw(cells, numbers[cells.name]) for cells in classes]
    counts = np.vstack([part for part, _ in drawn])
    damaged = np.concatenate([part for _, part in drawn])
    names = np.repeat([cells.name for cells in classes], [numbers[cells.name] for cells in classes])

    second = np.full(len(names), "", dtype=object)
    doublets = np.flatnonzero(rng.random(len(names)) < settings.doublet_rate)
    second[doublets] = rng.choice(names, len(doublets))
    for name in numbers:
        rows = np.flatnonzero(second == name)
        counts[rows] += draw(by_name[name], len(rows))[0]

    leaked = np.zeros(len(names), dtype=int)
    for name, ambient in partner_profiles(classes, numbers, shares).items():
        rows = np.flatnonzero(names == name)
        own_depth = library_depth * by_name[name].rna_content
        part = draw_leakage(ambient, own_depth, settings.leakage, len(rows), rng)
        counts[rows] += part
        leaked[rows] = part.sum(axis=1)

    order = rng.permutation(len(names))
    barcodes = draw_barcodes(len(names), rng)
    cells = sp.csr_matrix(counts[order])
    names, second, damaged, leaked = names[order], second[order], damaged[order], leaked[order]
    # The soup has a stream of its own, so that cells stay as they are whatever it holds.
    soup_rng = stream(settings.seed, "soup", donor, arm)
    masses = compartment_masses(classes, numbers, shares)
    ambient_counts = leaked.copy()
    if settings.ambient > 0:
        per_droplet = cells.sum() / len(names) * settings.ambient / (1.0 - settings.ambient)
        own = {cells.name: cells.compartment for cells in classes}
        for compartment, mass in masses.items():
            part = draw_soup(mass, np.full(len(names), per_droplet), soup_rng)
            cells = cells + part
            molecules = np.asarray(part.sum(axis=1)).ravel()
            ambient_counts += molecules
            leaked += np.where([own[name] != compartment for name in names], molecules, 0)
    n_empty = settings.empty_droplets
    if n_empty:
        size = np.exp(soup_rng.normal(np.log(settings.empty_counts), settings.empty_sd, n_empty))
        empty = draw_soup(np.asarray(sum(masses.values())), size, soup_rng)
        known = set(barcodes)
        barcodes += [name for name in draw_barcodes(n_empty + len(known), soup_rng) if name not in known][:n_empty]
        cells = sp.vstack([cells, empty], format="csr")
    table: dict[str, list[object]] = {
        "barcode": list(barcodes),
        "true_class": [*names.tolist(), *[""] * n_empty],
        "true_doublet": [*(second != "").tolist(), *[False] * n_empty],
        "second_class": [*second.tolist(), *[""] * n_empty],
        "damaged": [*damaged.tolist(), *[False] * n_empty],
        "leaked_counts": [*leaked.tolist(), *[0] * n_empty],
        "ambient_counts": [*ambient_counts.tolist(), *[0] * n_empty],
        "empty": [*[False] * len(names), *[True] * n_empty],
    }
    return cells, table


def number_of_cells(cells: CellClass, arm: str, settings: SimulationSettings, rng: np.random.Generator) -> int:
    """Cells of a class in a library, at least 1."""
    shift = dict(settings.composition_shift).get(cells.name, 0.0) if arm == "coculture" else 0.0
    spread = float(np.exp(shift + rng.normal(0.0, settings.composition_sd)))
    return max(1, round(settings.cells_scale * cells.cells * spread))


def library_share(
    name: str,
    donor: str,
    arm: str,
    effects: dict[str, ClassEffects],
    profiles: Profiles,
    settings: SimulationSettings,
) -> np.ndarray:
    """Shares of the genes in the molecules of a class in one library, shape (genes,), sums to 1."""
    share = profiles.of(name, settings.stimulus) * np.exp2(effects[name].log2_factor[donor, arm])
    return np.asarray(share / share.sum())


def compartment_masses(
    classes: list[CellClass], numbers: dict[str, int], shares: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """For each compartment of a library, its share of the library's RNA, gene by gene; all of them add up to 1."""
    mass: dict[str, np.ndarray] = {}
    for cells in classes:
        own = numbers[cells.name] * cells.rna_content * shares[cells.name]
        mass[cells.compartment] = mass.get(cells.compartment, 0.0) + own
    total = sum(part.sum() for part in mass.values())
    return {compartment: part / total for compartment, part in mass.items()}


def partner_profiles(
    classes: list[CellClass], numbers: dict[str, int], shares: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """For each class that has a partner in its library, the mean profile of the partner's RNA, shape (genes,)."""
    mass = compartment_masses(classes, numbers, shares)
    partner = {"MSC": "immune", "immune": "MSC"}
    others = {cells.name: mass.get(partner[cells.compartment]) for cells in classes}
    return {name: other / other.sum() for name, other in others.items() if other is not None}
