"""Settings of the sample floor, validated where the config enters and trusted after that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from immunomod.sections import read_values, require


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
    min_cells_for_mad
        With fewer cells the fixed limits alone are used (``min_*`` and ``max_pct_mt``).
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
    min_cells_for_mad: int = 100

    def __post_init__(self) -> None:
        require(self.n_mads > 0, "qc", "n_mads", self.n_mads, "above 0")
        for key in ("min_counts", "min_genes"):
            require(getattr(self, key) >= 0, "qc", key, getattr(self, key), "0 or more")
        for metric in ("counts", "genes"):
            low, high = getattr(self, f"min_{metric}"), getattr(self, f"enough_{metric}")
            require(low <= high, "qc", f"enough_{metric}", high, f"at least min_{metric} ({low})")
            spared = getattr(self, f"spared_{metric}")
            require(high <= spared, "qc", f"spared_{metric}", spared, f"at least enough_{metric} ({high})")
        require(0 <= self.max_pct_mt <= 100, "qc", "max_pct_mt", self.max_pct_mt, "from 0 to 100")
        require(self.spared_pct_mt <= self.max_pct_mt, "qc", "spared_pct_mt", self.spared_pct_mt, "at most max_pct_mt")

    @classmethod
    def from_config(cls, section: Mapping[str, Any]) -> Self:
        """Settings from the config's ``qc`` section. A ``max_pct_mt`` below the default ``spared_pct_mt`` lowers it."""
        values = read_values(cls, section, "qc")
        if "max_pct_mt" in values and "spared_pct_mt" not in values:
            values["spared_pct_mt"] = min(cls.spared_pct_mt, values["max_pct_mt"])
        for metric in ("counts", "genes"):
            floor = values.get(f"min_{metric}", 0)
            if f"enough_{metric}" not in values:
                values[f"enough_{metric}"] = max(getattr(cls, f"enough_{metric}"), floor)
        return cls(**values)


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
    """

    method: str = "scrublet"
    remove: bool = True
    expected_rate: float | None = None
    author_values: tuple[str, ...] = ("doublet", "multiplet", "dbl")
    max_rate: float = 0.25

    def __post_init__(self) -> None:
        rate = self.expected_rate
        require(rate is None or 0 < rate < 0.5, "doublets", "expected_rate", rate, "between 0 and 0.5")
        require(0 <= self.max_rate <= 1, "doublets", "max_rate", self.max_rate, "from 0 to 1")

    @classmethod
    def from_config(cls, section: Mapping[str, Any]) -> Self:
        """Settings from the config's ``doublets`` section."""
        return cls(**read_values(cls, section, "doublets"))


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
    """Settings of one sample's way from counts to scores."""

    qc: QcSettings = field(default_factory=QcSettings)
    doublets: DoubletSettings = field(default_factory=DoubletSettings)
    demultiplexing: DemultiplexSettings = field(default_factory=DemultiplexSettings)
    seed: int = 1

    @classmethod
    def from_config(
        cls,
        qc: Mapping[str, Any],
        doublets: Mapping[str, Any],
        seed: int,
        demultiplexing: Mapping[str, Any] | None = None,
    ) -> Self:
        """Settings from the config's sections.

        Raises
        ------
        UserError
            For an unknown key or a value out of range.
        """
        return cls(
            QcSettings.from_config(qc),
            DoubletSettings.from_config(doublets),
            DemultiplexSettings.from_config(demultiplexing or {}),
            seed,
        )

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values, for ``uns`` and provenance; absent values are left out."""
        plain = asdict(self)
        plain["doublets"] = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in plain["doublets"].items()
            if value is not None
        }
        plain["demultiplexing"]["hashtags"] = list(self.demultiplexing.hashtags)
        return plain
