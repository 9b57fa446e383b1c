"""Settings of the sample floor, validated where the config enters and trusted after that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from immunomod.sections import read_values, require

Side = Literal["lower", "upper"]
#: Columns of the sheet that set a limit for one sample: the metric and the side, and the filter's name.
SHEET_LIMITS: dict[str, tuple[str, Side, str]] = {
    "min_counts": ("total_counts", "lower", "low_counts"),
    "max_counts": ("total_counts", "upper", "high_counts"),
    "min_genes": ("n_genes_by_counts", "lower", "low_genes"),
    "max_genes": ("n_genes_by_counts", "upper", "high_genes"),
    "max_pct_mt": ("pct_counts_mt", "upper", "high_mt"),
    "max_pct_ribo": ("pct_counts_ribo", "upper", "high_ribo"),
    "max_pct_hb": ("pct_counts_hb", "upper", "high_hb"),
    "min_complexity": ("complexity", "lower", "low_complexity"),
}


@dataclass(frozen=True)
class QcSettings:
    """Which droplets pass as cells (config section ``qc``).

    A limit is the sample's median plus or minus ``n_mads`` scaled median absolute deviations, held between two fixed
    values. One library may hold small immune cells and mesenchymal stromal cells with ten times their RNA: limits from
    the spread of the whole library would remove whichever are fewer, so no cell of ``enough_counts`` is removed for
    being small, and none below ``spared_counts`` for being large (doublets have a method of their own).

    Attributes
    ----------
    n_mads
        Five, as Germain et al. 2020 (doi:10.1186/s13059-020-02136-7) and the single-cell best practices: only droplets
        far outside are removed, because a stricter limit removes cell types before it removes damage.
    min_counts, min_genes
        Floors: a droplet below is never a cell.
    enough_counts, enough_genes
        A lower limit is never above these.
    spared_counts, spared_genes
        An upper limit is never below these.
    spared_pct_mt, max_pct_mt
        The upper limit on the percentage of mitochondrial counts lies between these: cultured stromal cells carry more
        than lymphocytes do, and above the second a cell is dying whatever the library looks like.
    spared_pct_ribo, max_pct_ribo, spared_pct_hb, max_pct_hb
        The same for ribosomal proteins, of which resting lymphocytes hold up to half, and for haemoglobins: red cells
        are removed from a sample that holds few of them, and stay in marrow, where the spread is wide.
    min_complexity, enough_complexity
        The lower limit on log10(genes) / log10(counts) lies between these: a droplet below holds many molecules of few
        genes.
    min_cells_for_mad
        With fewer cells the fixed limits alone are used (``min_counts``, ``min_genes`` and ``max_pct_mt``).
    min_cells
        A sample of which fewer cells pass has failed.
    keep_failed
        Whether failed samples take part in the contrasts all the same.
    """

    n_mads: float = 5.0
    min_counts: int = 200
    min_genes: int = 100
    enough_counts: int = 500
    enough_genes: int = 250
    spared_counts: int = 100_000
    spared_genes: int = 10_000
    spared_pct_mt: float = 15.0
    max_pct_mt: float = 25.0
    spared_pct_ribo: float = 60.0
    max_pct_ribo: float = 100.0
    spared_pct_hb: float = 10.0
    max_pct_hb: float = 100.0
    min_complexity: float = 0.4
    enough_complexity: float = 0.7
    min_cells_for_mad: int = 100
    min_cells: int = 10
    keep_failed: bool = False

    def __post_init__(self) -> None:
        require(self.n_mads > 0, "qc", "n_mads", self.n_mads, "above 0")
        for key in ("min_counts", "min_genes"):
            require(getattr(self, key) >= 0, "qc", key, getattr(self, key), "0 or more")
        for metric in ("counts", "genes"):
            low, high = getattr(self, f"min_{metric}"), getattr(self, f"enough_{metric}")
            require(low <= high, "qc", f"enough_{metric}", high, f"at least min_{metric} ({low})")
            spared = getattr(self, f"spared_{metric}")
            require(high <= spared, "qc", f"spared_{metric}", spared, f"at least enough_{metric} ({high})")
        for kind in ("mt", "ribo", "hb"):
            spared, most = getattr(self, f"spared_pct_{kind}"), getattr(self, f"max_pct_{kind}")
            require(0 <= most <= 100, "qc", f"max_pct_{kind}", most, "from 0 to 100")
            require(spared <= most, "qc", f"spared_pct_{kind}", spared, f"at most max_pct_{kind}")
        low, high = self.min_complexity, self.enough_complexity
        require(0 <= low <= high <= 1, "qc", "enough_complexity", high, f"from min_complexity ({low}) to 1")

    @classmethod
    def from_config(cls, section: Mapping[str, Any]) -> Self:
        """Settings from the config's ``qc`` section. A ``max_pct_mt`` below the default ``spared_pct_mt`` lowers it."""
        values = read_values(cls, section, "qc")
        for kind in ("mt", "ribo", "hb"):
            if f"max_pct_{kind}" in values and f"spared_pct_{kind}" not in values:
                values[f"spared_pct_{kind}"] = min(getattr(cls, f"spared_pct_{kind}"), values[f"max_pct_{kind}"])
        for metric in ("counts", "genes"):
            floor = values.get(f"min_{metric}", 0)
            if f"enough_{metric}" not in values:
                values[f"enough_{metric}"] = max(getattr(cls, f"enough_{metric}"), floor)
        return cls(**values)


@dataclass(frozen=True)
class CallingSettings:
    """How droplets that hold a cell are told from empty ones (config section ``calling``).

    Attributes
    ----------
    method
        A name of :data:`immunomod.sample.cell_calling.REGISTRY`.
    lower
        A droplet with so many counts or fewer is empty: such droplets give the ambient profile. 100 as DropletUtils;
        ambient RNA in plenty needs more.
    fdr
        Highest false discovery rate of a called cell, 0.1% as in the paper: tested droplets are many, cells few.
    n_iterations
        Monte Carlo draws of the ambient model.
    retain
        Droplets with so many counts are cells without a test; from the knee of the rank curve where it is absent.
    """

    method: str = "auto"
    lower: int = 100
    fdr: float = 0.001
    n_iterations: int = 10_000
    retain: float | None = None

    def __post_init__(self) -> None:
        require(1 <= self.lower <= 1000, "calling", "lower", self.lower, "from 1 to 1000")
        require(0 < self.fdr < 1, "calling", "fdr", self.fdr, "between 0 and 1")
        few, many = 1000, 1_000_000
        is_right = few <= self.n_iterations <= many
        require(is_right, "calling", "n_iterations", self.n_iterations, f"from {few} to {many}")
        retain = self.retain
        require(retain is None or retain > self.lower, "calling", "retain", retain, f"above lower ({self.lower})")

    @classmethod
    def from_config(cls, section: Mapping[str, Any]) -> Self:
        """Settings from the config's ``calling`` section."""
        return cls(**read_values(cls, section, "calling"))


@dataclass(frozen=True)
class DoubletSettings:
    """How doublets are found (config section ``doublets``).

    Attributes
    ----------
    method
        A name of :data:`immunomod.sample.doublets.REGISTRY`.
    remove
        Whether predicted doublets leave the sample; they are marked in any case.
    expected_rate
        Share of doublets among the library's cells; from the number of cells where it is absent.
    author_values
        Values of a per-cell table's doublet column that mean a doublet; such cells are removed. demuxlet's ``ambs`` is
        not among them: it marks droplets with too few reads over variants to decide (in GSE96583 they hold a fifth
        fewer UMIs than singlets, where doublets hold more), and each still has its most likely donor. Add it to leave
        them out.
    max_rate
        Highest share of doublets that is believed. The share implied by the calls is the called one over the share of
        simulated doublets that pass the same threshold; in a library of one cell type the threshold lies in noise and
        it comes out at 0.4 to 2.3, where real mixtures give 0.02 to 0.06. Above this value (or three times the expected
        rate) the calls are marked but kept, and the sample gets a warning.
    partner
        Whether droplets of an MSC and an immune cell are looked for in a library that holds both
        (:func:`immunomod.sample.doublets.partner_doublets`).
    partner_max_fdr, partner_min_score
        Limits of such a call: the false discovery rate, and how much of a typical MSC and of a typical immune cell must
        be in the droplet beyond what leaks.
    """

    method: str = "scrublet"
    remove: bool = True
    expected_rate: float | None = None
    author_values: tuple[str, ...] = ("doublet", "multiplet", "dbl")
    max_rate: float = 0.25
    partner: bool = True
    partner_max_fdr: float = 0.001
    partner_min_score: float = 0.25

    def __post_init__(self) -> None:
        from immunomod.sample.doublets import REGISTRY

        require(self.method in REGISTRY, "doublets", "method", self.method, f"one of {', '.join(REGISTRY)}")
        rate = self.expected_rate
        require(rate is None or 0 < rate < 0.5, "doublets", "expected_rate", rate, "between 0 and 0.5")
        for key in ("max_rate", "partner_max_fdr", "partner_min_score"):
            require(0 <= getattr(self, key) <= 1, "doublets", key, getattr(self, key), "from 0 to 1")

    @classmethod
    def from_config(cls, section: Mapping[str, Any]) -> Self:
        """Settings from the config's ``doublets`` section."""
        return cls(**read_values(cls, section, "doublets"))


@dataclass(frozen=True)
class AmbientSettings:
    """How ambient RNA is estimated (config section ``ambient``).

    Attributes
    ----------
    method
        A name of :data:`immunomod.sample.ambient.REGISTRY`.
    warn_fraction, max_fraction
        A sample with a larger share of ambient molecules gets a warning, or has failed.
    min_fraction
        With less there is nothing to correct in single cells.
    cellbender_epochs, cellbender_fpr
        CellBender's rounds of training, and the share of a cell's own counts that it may take for background; its own
        defaults.
    """

    method: str = "soupx"
    warn_fraction: float = 0.2
    max_fraction: float = 0.5
    min_fraction: float = 0.005
    cellbender_epochs: int = 150
    cellbender_fpr: float = 0.01

    def __post_init__(self) -> None:
        from immunomod.sample.ambient import REGISTRY

        require(self.method in REGISTRY, "ambient", "method", self.method, f"one of {', '.join(REGISTRY)}")
        low, high = self.warn_fraction, self.max_fraction
        require(0 <= low <= 1, "ambient", "warn_fraction", low, "from 0 to 1")
        require(low <= high <= 1, "ambient", "max_fraction", high, f"from warn_fraction ({low}) to 1")
        require(0 <= self.min_fraction <= 1, "ambient", "min_fraction", self.min_fraction, "from 0 to 1")
        require(self.cellbender_epochs >= 1, "ambient", "cellbender_epochs", self.cellbender_epochs, "1 or more")
        rate = self.cellbender_fpr
        require(0 <= rate < 1, "ambient", "cellbender_fpr", rate, "from 0 to below 1")

    @classmethod
    def from_config(cls, section: Mapping[str, Any]) -> Self:
        """Settings from the config's ``ambient`` section."""
        return cls(**read_values(cls, section, "ambient"))


@dataclass(frozen=True)
class DemultiplexSettings:
    """How pooled cells are told apart by hashtags (config section ``demultiplexing``).

    Attributes
    ----------
    method
        A name of :data:`immunomod.sample.demultiplex.calls.REGISTRY`.
    min_probability
        A cell whose hashtag is less sure is set aside as if it had none: a cell less costs little, a cell of another
        donor or condition dilutes the effect.
    hashtags
        Patterns of feature names that are hashtags though neither their name nor their type says so (``B025*``).
    min_agreement
        Where cells are named by hashtag and by genotype, a sample in which fewer agree gets a warning.
    """

    method: str = "mixture"
    min_probability: float = 0.8
    hashtags: tuple[str, ...] = ()
    min_agreement: float = 0.9

    def __post_init__(self) -> None:
        for key in ("min_probability", "min_agreement"):
            require(0 <= getattr(self, key) <= 1, "demultiplexing", key, getattr(self, key), "from 0 to 1")

    @classmethod
    def from_config(cls, section: Mapping[str, Any]) -> Self:
        """Settings from the config's ``demultiplexing`` section."""
        return cls(**read_values(cls, section, "demultiplexing"))


@dataclass(frozen=True)
class SampleSettings:
    """Settings of one sample's way from counts to scores: a section of the config each, and the seed."""

    qc: QcSettings = field(default_factory=QcSettings)
    calling: CallingSettings = field(default_factory=CallingSettings)
    demultiplexing: DemultiplexSettings = field(default_factory=DemultiplexSettings)
    doublets: DoubletSettings = field(default_factory=DoubletSettings)
    ambient: AmbientSettings = field(default_factory=AmbientSettings)
    seed: int = 1

    @classmethod
    def from_config(cls, sections: Mapping[str, Mapping[str, Any]], seed: int) -> Self:
        """Settings from the config's sections (:data:`SECTIONS`), of which any may be absent.

        Raises
        ------
        UserError
            For an unknown key or a value out of range.
        """
        read = {name: SECTIONS[name].from_config(section) for name, section in sections.items()}
        return cls(**read, seed=seed)

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values, for ``uns`` and provenance; absent values are left out."""
        plain = asdict(self)
        for name in SECTIONS:
            plain[name] = {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in plain[name].items()
                if value is not None
            }
        return plain


#: The sections of the config that the sample floor reads.
SECTIONS: dict[str, type[Any]] = {
    "qc": QcSettings,
    "calling": CallingSettings,
    "demultiplexing": DemultiplexSettings,
    "doublets": DoubletSettings,
    "ambient": AmbientSettings,
}
