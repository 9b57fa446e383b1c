"""A library of human and mouse cells with known truth: who is in each droplet, and what leaked into it.

A cell's molecules follow its class's profile and size; a droplet also takes up molecules of lysed cells of both
species, about as many whatever cell it holds, and a few molecules of one species are mapped to the other's genes. So a
small cell's share of the other species is far above a large cell's, as in the barnyard plots of real mixtures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from immunomod.errors import UserError
from immunomod.genes import GeneNames
from immunomod.programs import load_programs
from immunomod.simulate.counts import draw_barcodes, draw_cells
from immunomod.simulate.profiles import Profiles, load_profiles
from immunomod.simulate.streams import stream

if TYPE_CHECKING:
    from anndata import AnnData

HUMAN, MOUSE, DOUBLET, EMPTY = "human", "mouse", "doublet", "empty"
#: What CellRanger writes before ids and symbols of a mixed reference (its pads the shorter genome's name).
PREFIX = {HUMAN: "GRCh38_", MOUSE: "mm10___"}
_DROPLETS_AT_ONCE = 1000


@dataclass(frozen=True)
class SpeciesMix:
    """A mixed library.

    Attributes
    ----------
    n_droplets, n_empty
        Droplets with a cell or two, and without.
    human_share
        Share of the cells that are human.
    classes
        By species, class of the shipped profiles -> (share of the species' cells, molecules relative to a
        lymphocyte's).
    depth, depth_sd, capture_sd
        Mean molecules of a lymphocyte; standard deviations of the natural logarithm over cells, and over droplets
        (capture acts on cells and leaked molecules alike).
    ambient
        Share of the molecules of all droplets with cells that leaked from other cells.
    mismapped
        Share of a cell's molecules that is counted for the other species.
    doublet_rate
        Share of the droplets with cells that hold two, of any species.
    empty_scale
        Leaked molecules of an empty droplet, relative to one with a cell: the exponential of a uniform number
        between the logarithms of these two.
    dispersion
        As in :class:`immunomod.simulate.settings.SimulationSettings`.
    """

    n_droplets: int = 2000
    n_empty: int = 0
    human_share: float = 0.5
    classes: Mapping[str, Mapping[str, tuple[float, float]]] = field(
        default_factory=lambda: {
            HUMAN: {"MSC": (1.0, 6.0)},
            MOUSE: {"CD4_T": (0.5, 1.0), "B": (0.3, 1.0), "CD14_monocyte": (0.2, 1.5)},
        }
    )
    depth: float = 1700.0
    depth_sd: float = 0.4
    capture_sd: float = 0.2
    ambient: float = 0.05
    mismapped: float = 0.002
    doublet_rate: float = 0.05
    empty_scale: tuple[float, float] = (0.01, 1.0)
    dispersion: float = 0.2

    def __post_init__(self) -> None:
        for name in ("human_share", "ambient", "mismapped", "doublet_rate"):
            value = getattr(self, name)
            if not 0 <= value <= 1 or (value == 1 and name != "human_share"):
                raise UserError(f"simulate: {name} is {value}: a share from 0 to below 1 is needed.")


def simulate_species_totals(mix: SpeciesMix, seed: int = 1) -> pd.DataFrame:
    """The droplets of a mixed library without their genes.

    Returns
    -------
    One row per droplet in random order: ``true_species`` (``human``, ``mouse``, ``doublet`` of both, ``empty``),
    ``true_doublet`` (two cells of any species), ``true_class``, ``second_class``, ``human_counts``, ``mouse_counts``,
    and of these ``human_leaked``, ``mouse_leaked`` (from other cells, or mapped to the wrong species).
    """
    rng = stream(seed, "species totals")
    table = _droplets(mix, rng)
    for species in (HUMAN, MOUSE):
        leaked = rng.poisson(table[f"{species}_leaked"])
        table[f"{species}_leaked"] = leaked
        table[f"{species}_counts"] = rng.poisson(table.pop(f"{species}_cell")) + leaked
    return table.drop(columns=[f"{HUMAN}_class", f"{MOUSE}_class"])


def simulate_species_mix(mix: SpeciesMix | None = None, seed: int = 1, profiles: Profiles | None = None) -> AnnData:
    """A mixed library as CellRanger counts it.

    Returns
    -------
    Droplets x genes of both species, int32 CSR. ``var``: ``gene_id``, ``gene_symbol`` with the genome's prefix,
    ``feature_type``, ``genome``; ``obs``: ``barcode`` and the columns of :func:`simulate_species_totals`.
    """
    from anndata import AnnData

    mix, profiles = mix or SpeciesMix(), profiles or load_profiles()
    rng = stream(seed, "species mix")
    table = _droplets(mix, rng)
    blocks, genes = [], []
    for species in (HUMAN, MOUSE):
        rows, named = _genes_of(species, profiles)
        shares = {name: profiles.of(name, "")[rows] for name in mix.classes[species]}
        shares = {name: share / share.sum() for name, share in shares.items()}
        cells, leaked = _draw(table, species, mix, shares, rng)
        table[f"{species}_leaked"] = leaked
        table[f"{species}_counts"] = np.asarray(cells.sum(axis=1)).ravel()
        blocks.append(cells)
        genes.append(named)
    barcodes = draw_barcodes(len(table), rng)
    hidden = [f"{species}_{what}" for species in (HUMAN, MOUSE) for what in ("cell", "class")]
    obs = table.drop(columns=hidden).assign(barcode=barcodes)
    counts = sparse.hstack(blocks, format="csr", dtype=np.int32)
    var = pd.concat(genes, ignore_index=True)
    return AnnData(counts, obs=obs.set_axis(barcodes), var=var.set_index("gene_id", drop=False).rename_axis(None))


def _droplets(mix: SpeciesMix, rng: np.random.Generator) -> pd.DataFrame:
    """Who is in each droplet, and the expected molecules of each species: of its cells, and leaked."""
    n, total = mix.n_droplets, mix.n_droplets + mix.n_empty
    names = [(species, name) for species in (HUMAN, MOUSE) for name in mix.classes[species]]
    share = {HUMAN: mix.human_share, MOUSE: 1 - mix.human_share}
    chance = np.array([share[species] * mix.classes[species][name][0] for species, name in names])
    content = np.array([mix.classes[species][name][1] for species, name in names])
    of_species = np.array([species for species, _ in names], dtype=object)
    of_class = np.array([name for _, name in names], dtype=object)

    first, second = rng.choice(len(names), size=(2, n), p=chance / chance.sum())
    is_doublet = rng.random(n) < mix.doublet_rate
    size = content[np.stack([first, second])] * mix.depth
    size = size * np.exp(rng.normal(-(mix.depth_sd**2) / 2, mix.depth_sd, size=(2, n)))
    size[1] *= is_doublet
    capture = np.exp(rng.normal(-(mix.capture_sd**2) / 2, mix.capture_sd, total))
    cells = {
        species: capture * np.append((size * (of_species[np.stack([first, second])] == species)).sum(axis=0),
                                     np.zeros(mix.n_empty))
        for species in (HUMAN, MOUSE)
    }  # fmt: skip
    lysed = {species: cells[species].sum() / max(n, 1) for species in cells}
    scale = np.append(
        np.ones(n), np.exp(rng.uniform(np.log(mix.empty_scale[0]), np.log(mix.empty_scale[1]), mix.n_empty))
    )
    odds = mix.ambient / (1 - mix.ambient)
    both = is_doublet & (of_species[first] != of_species[second])
    table = pd.DataFrame(
        {
            "true_species": np.append(np.where(both, DOUBLET, of_species[first]), np.full(mix.n_empty, EMPTY)),
            "true_doublet": np.append(is_doublet, np.zeros(mix.n_empty, dtype=bool)),
            "true_class": np.append(of_class[first], np.full(mix.n_empty, "")),
            "second_class": np.append(np.where(is_doublet, of_class[second], ""), np.full(mix.n_empty, "")),
        }
    )
    for species, partner in ((HUMAN, MOUSE), (MOUSE, HUMAN)):
        is_first = of_species[first] == species
        of_own = np.where(is_first, of_class[first], np.where(is_doublet, of_class[second], ""))
        table[f"{species}_class"] = np.append(of_own, np.full(mix.n_empty, ""))
        table[f"{species}_cell"] = cells[species] * (1 - mix.mismapped)
        table[f"{species}_leaked"] = capture * scale * odds * lysed[species] + cells[partner] * mix.mismapped
    return table.iloc[rng.permutation(total)].reset_index(drop=True)


def _draw(
    table: pd.DataFrame, species: str, mix: SpeciesMix, shares: dict[str, NDArray[np.float64]], rng: np.random.Generator
) -> tuple[sparse.csr_matrix, NDArray[np.int64]]:
    """Counts of one species' genes, and how many of each droplet's are not of its own cells.

    The droplet's cells of the species are drawn from the profile of its first cell of that species.
    """
    lysed = sum(weight * size * shares[name] for name, (weight, size) in mix.classes[species].items())
    lysed = np.asarray(lysed / np.sum(lysed))
    first = table[f"{species}_class"].to_numpy()
    cell, leak = table[f"{species}_cell"].to_numpy(), table[f"{species}_leaked"].to_numpy()
    blocks, leaked = [sparse.csr_matrix((0, len(lysed)), dtype=np.int32)], np.zeros(len(table), dtype=np.int64)
    for start in range(0, len(table), _DROPLETS_AT_ONCE):
        rows = slice(start, start + _DROPLETS_AT_ONCE)
        extra = rng.poisson(leak[rows, None] * lysed)
        leaked[rows] = extra.sum(axis=1)
        counts = extra.astype(np.int32)
        for name, share in shares.items():
            of_class = np.flatnonzero((first[rows] == name) & (cell[rows] > 0))
            if len(of_class):
                counts[of_class] += draw_cells(share, cell[rows][of_class], np.ones((1, 1)), mix.dispersion, rng)
        blocks.append(sparse.csr_matrix(counts))
    return sparse.vstack(blocks, format="csr"), leaked


def _genes_of(species: str, profiles: Profiles) -> tuple[NDArray[np.intp], pd.DataFrame]:
    """Rows of the profiles that a species has a gene for, and the genes as a mixed reference names them."""
    ids, symbols = profiles.genes["gene_id"].to_numpy(dtype=object), profiles.symbols.to_numpy(dtype=object)
    rows = np.arange(len(symbols))
    if species == MOUSE:
        id_of = {symbol: gene_id for gene_id, symbol in GeneNames.load(MOUSE).symbol_of.items()}
        curated = load_programs().genes
        orthologue = dict(zip(curated["gene_human"], curated["gene_mouse"], strict=True))
        symbols = np.array([orthologue.get(name) or _mouse_style(name) for name in symbols], dtype=object)
        known = pd.Series(symbols).isin(list(id_of)) & ~pd.Series(symbols).duplicated()
        rows = np.flatnonzero(known.to_numpy())
        ids, symbols = np.array([id_of.get(name, "") for name in symbols], dtype=object)[rows], symbols[rows]
    prefix = PREFIX[species]
    table = pd.DataFrame({"gene_id": prefix + ids, "gene_symbol": prefix + symbols})
    return rows, table.assign(feature_type="Gene Expression", genome=prefix.rstrip("_"))


def _mouse_style(symbol: str) -> str:
    """A human symbol in the capitals of the mouse: Cd3d, mt-Co1."""
    return f"mt-{symbol[3:].capitalize()}" if symbol.startswith("MT-") else symbol.capitalize()
