"""scANVI: scVI that is told the classes which marker genes give within each sample, trained by ``train_scvi``."""

from __future__ import annotations

from immunomod.atlas.integration import scvi
from immunomod.atlas.integration.method import Aligned, IntegrationMethod, Task


def align(task: Task) -> Aligned:
    """The latent space that was learned."""
    return scvi.learned(task, "scanvi")


METHOD = IntegrationMethod(
    name="scanvi",
    citation="Xu et al. 2021, Molecular Systems Biology 17:e9620, doi:10.15252/msb.20209620",
    needs="what scVI needs, and markers that name part of the cells",
    limits=(
        "it is trained towards the provisional classes, so measures of class conservation flatter it; classes without "
        "markers may be drawn into others"
    ),
    run=align,
    is_learned=True,
)
