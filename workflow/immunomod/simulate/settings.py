"""What a simulated co-culture study is made of: cell classes, planted effects, and the sizes of every variation."""

from __future__ import annotations

from dataclasses import dataclass, fields

from immunomod.errors import UserError

ARMS = ("msc_alone", "immune_alone", "coculture")
REFERENCE_ARM = {"MSC": "msc_alone", "immune": "immune_alone"}
COMPARTMENTS_OF_ARM = {"msc_alone": ("MSC",), "immune_alone": ("immune",), "coculture": ("immune", "MSC")}


@dataclass(frozen=True)
class CellClass:
    """A class of cells in the simulated cultures.

    ``rna_content`` is the mean number of molecules of a cell relative to a lymphocyte's, ``cells`` the expected number
    of cells in a library that holds the class.
    """

    name: str
    lineage: str
    compartment: str
    rna_content: float
    cells: int


CELL_CLASSES = (
    CellClass("MSC", "MSC", "MSC", 3.6, 50),
    CellClass("CD4_T", "T", "immune", 1.0, 60),
    CellClass("CD8_T", "T", "immune", 1.0, 42),
    CellClass("NK", "NK", "immune", 1.0, 32),
    CellClass("B", "B", "immune", 1.0, 32),
    CellClass("CD14_monocyte", "monocyte", "immune", 1.5, 42),
    CellClass("CD16_monocyte", "monocyte", "immune", 1.6, 16),
    CellClass("DC", "DC", "immune", 2.0, 16),
)


@dataclass(frozen=True)
class PlantedEffect:
    """A programme that co-culture moves in some lineages by ``log2_change`` on average over its genes and donors."""

    program: str
    lineages: tuple[str, ...]
    log2_change: float


PLANTED_EFFECTS = (
    PlantedEffect("msc_ifng_core", ("MSC",), 1.8),
    PlantedEffect("msc_mhc2", ("MSC",), 1.6),
    PlantedEffect("msc_chemokine_T", ("MSC",), 2.4),
    PlantedEffect("msc_kynurenine", ("MSC",), 1.2),
    PlantedEffect("msc_tnf_nfkb", ("MSC",), 1.3),
    PlantedEffect("imm_T_prolif_S", ("T",), -1.1),
    PlantedEffect("imm_T_prolif_G2M", ("T",), -1.2),
    PlantedEffect("imm_Th1", ("T",), -1.2),
    PlantedEffect("imm_mac_M1", ("monocyte",), -1.2),
)


@dataclass(frozen=True)
class SimulationSettings:
    """Settings of a simulated study. Standard deviations are in log2 units unless said otherwise.

    Attributes
    ----------
    n_donors
        Donors; each gives one library per arm, and immune cells and MSC that the three libraries share.
    cell_classes
        Classes with their numbers of cells; ``cells_scale`` multiplies all numbers.
    depth
        Mean molecules of a lymphocyte (other classes: times their ``rna_content``); ``depth_sd`` is the standard
        deviation of its natural logarithm over cells, ``library_sd`` that over libraries.
    effects, effect_scale
        Planted effects, and a factor on all of them (0: nothing is planted).
    donor_sd
        Donor-to-donor variation of the response of every programme, planted or not (those not planted vary around
        zero).
    gene_sd
        Variation of the planted effect over the genes of a programme, relative to the programme's mean.
    sample_sd
        Variation of every gene over the samples of one donor, independent between genes, per arm.
    baseline_sd
        Variation of every gene's level between donors, shared by a donor's arms (pairing takes it out).
    leakage
        Share of a co-culture droplet's molecules that come from lysed cells of the other compartment.
    ambient
        Share of a library's molecules in droplets with cells that come from the soup, the RNA of all cells of the
        library (by their mass). Every droplet holds the same number of them on average, so that cells with little RNA
        have a larger share.
    empty_droplets, empty_counts, empty_sd
        Droplets without a cell per library; the median of their molecules of soup, and the standard deviation of its
        natural logarithm.
    doublet_rate, damaged_rate
        Share of droplets that hold two cells; share of cells that are damaged (a quarter of the molecules, five times
        the mitochondrial share).
    dispersion
        Negative-binomial dispersion (variance = mean + dispersion x mean^2) of a highly expressed gene; it grows as
        expression falls, see :func:`immunomod.simulate.counts.dispersion_trend`.
    mitochondrial_sd
        Standard deviation of the natural logarithm of a cell's mitochondrial share.
    composition_shift, composition_sd
        Natural logarithm of the change of a class's number of cells in co-culture, by class name; and its standard
        deviation over libraries.
    stimulus
        What the immune cells and the co-cultures are stimulated with; empty for resting cells, in which the effects of
        co-culture are then to be set near zero by the caller.
    msc_sources
        Tissues of the MSC donors, in turn over blocks of donors of equal size.
    seed
        Every random number follows from it. Each donor draws from streams of its own, so the first donors of a larger
        study are those of a smaller one.
    """

    n_donors: int = 4
    cell_classes: tuple[CellClass, ...] = CELL_CLASSES
    cells_scale: float = 1.0
    depth: float = 1700.0
    depth_sd: float = 0.35
    library_sd: float = 0.1
    effects: tuple[PlantedEffect, ...] = PLANTED_EFFECTS
    effect_scale: float = 1.0
    donor_sd: float = 0.25
    gene_sd: float = 0.3
    sample_sd: float = 0.1
    baseline_sd: float = 0.3
    leakage: float = 0.05
    ambient: float = 0.0
    empty_droplets: int = 0
    empty_counts: float = 30.0
    empty_sd: float = 0.8
    doublet_rate: float = 0.04
    damaged_rate: float = 0.02
    dispersion: float = 0.2
    mitochondrial_sd: float = 0.3
    composition_shift: tuple[tuple[str, float], ...] = (("CD4_T", -0.25), ("CD8_T", -0.25))
    composition_sd: float = 0.1
    stimulus: str = "PHA"
    msc_sources: tuple[str, ...] = ("bone_marrow", "umbilical_cord")
    seed: int = 1

    def __post_init__(self) -> None:
        if self.n_donors < 1:
            raise UserError(f"simulate: {self.n_donors} donors: at least 1 is needed.")
        if self.depth <= 0 or self.cells_scale <= 0:
            raise UserError("simulate: depth and the number of cells must be above 0.")
        for name in ("leakage", "ambient", "doublet_rate", "damaged_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"simulate: {name} is {getattr(self, name)}: a share from 0 to below 1 is needed.")
        for name in (field.name for field in fields(self) if field.name.endswith("_sd") or field.name == "dispersion"):
            if getattr(self, name) < 0:
                raise UserError(f"simulate: {name} is {getattr(self, name)}: it must be 0 or more.")
        if self.empty_droplets < 0 or self.empty_counts <= 0:
            raise UserError("simulate: empty_droplets must be 0 or more, and empty_counts above 0.")
        if self.seed < 0:
            raise UserError(f"simulate: seed is {self.seed}: it must be 0 or more.")

    @property
    def donors(self) -> list[str]:
        """Names of the donors."""
        return [f"D{number}" for number in range(1, self.n_donors + 1)]

    def classes_of(self, arm: str) -> list[CellClass]:
        """The classes that a library of ``arm`` holds."""
        return [cells for cells in self.cell_classes if cells.compartment in COMPARTMENTS_OF_ARM[arm]]

    def msc_source_of(self, donor: str) -> str:
        """Tissue of the MSC of a donor."""
        block = -(-self.n_donors // len(self.msc_sources))
        return self.msc_sources[self.donors.index(donor) // block]
