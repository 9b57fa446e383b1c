"""What a user may set about integration, checked once at the edge. The keys stand in the config's section ``atlas``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from immunomod.sections import read_values, require

#: Names of the methods; :data:`immunomod.atlas.integrate.REGISTRY` holds one row for each but ``auto``.
METHODS = ("auto", "none", "harmony", "bbknn", "scvi", "scanvi")
LEARNED = ("scvi", "scanvi")


@dataclass(frozen=True)
class IntegrationSettings:
    """How cells of different batches are brought together.

    Attributes
    ----------
    integration
        A method, or ``auto``: try those that can be afforded and keep the best.
    integration_key
        The column of the cells whose levels are aligned, or ``auto``: the one that fits the study.
    scvi
        Whether ``auto`` also tries scVI, which is trained first. scANVI runs only when it is named: it is trained
        towards the provisional classes that ``auto`` judges by.
    scvi_python
        A Python interpreter that has scvi-tools; empty: the environment of the rule (``--sdm conda``).
    scvi_latent, scvi_layers, scvi_hidden
        Size of the latent space, hidden layers and their width.
    scvi_epochs
        Passes over the cells; 0: 400, fewer above 20,000 cells. Training stops earlier when nothing improves.
    metric_cells
        Cells that the measures of ``integration.tsv`` are taken on, drawn evenly over the replicates.
    """

    integration: str = "auto"
    integration_key: str = "auto"
    scvi: bool = False
    scvi_python: str = ""
    scvi_latent: int = 20
    scvi_layers: int = 2
    scvi_hidden: int = 128
    scvi_epochs: int = 0
    metric_cells: int = 8000

    def __post_init__(self) -> None:
        known = f"one of {', '.join(METHODS)}"
        require(self.integration in METHODS, "atlas", "integration", self.integration, known)
        require(bool(self.integration_key), "atlas", "integration_key", self.integration_key, "auto or a column")
        require(self.scvi_latent >= 2, "atlas", "scvi_latent", self.scvi_latent, "2 or more")
        require(self.scvi_layers >= 1, "atlas", "scvi_layers", self.scvi_layers, "1 or more")
        require(self.scvi_hidden >= 8, "atlas", "scvi_hidden", self.scvi_hidden, "8 or more")
        require(self.scvi_epochs >= 0, "atlas", "scvi_epochs", self.scvi_epochs, "0 or more")
        require(self.metric_cells >= 100, "atlas", "metric_cells", self.metric_cells, "100 or more")

    @classmethod
    def from_config(cls, atlas: Mapping[str, Any]) -> Self:
        """Settings from the keys of the config's ``atlas`` section that belong to integration; others are passed by."""
        own = {key: value for key, value in atlas.items() if key in cls.__dataclass_fields__}
        return cls(**read_values(cls, own, "atlas"))

    @property
    def learned(self) -> tuple[str, ...]:
        """Methods whose model has to be trained before the atlas is built."""
        if self.integration in LEARNED:
            return (self.integration,)
        return ("scvi",) if self.integration == "auto" and self.scvi else ()

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values, for ``uns`` and provenance."""
        return asdict(self)
