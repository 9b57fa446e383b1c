"""scVI: the latent space of a variational autoencoder of the counts, trained by the rule ``train_scvi``."""

from __future__ import annotations

import numpy as np

from immunomod.atlas.integration.method import Aligned, IntegrationMethod, Task
from immunomod.errors import UserError


def align(task: Task) -> Aligned:
    """The latent space that was learned."""
    return learned(task, "scvi")


def learned(task: Task, method: str) -> Aligned:
    """Coordinates that training wrote for ``method``; it is an error where there are none."""
    if method not in task.learned:
        raise UserError(
            f"config: atlas.integration is {method!r}, but no trained coordinates were given. The rule train_scvi "
            "makes them; it needs scvi-tools (--sdm conda, or atlas.scvi_python)."
        )
    return Aligned(np.ascontiguousarray(task.learned[method], dtype=np.float32))


METHOD = IntegrationMethod(
    name="scvi",
    citation="Lopez et al. 2018, Nature Methods 15:1053, doi:10.1038/s41592-018-0229-2",
    needs="scvi-tools in an environment of its own; a graphics card from about 50,000 cells on",
    limits="needs some thousand cells to learn from; minutes to hours without a graphics card",
    run=align,
    is_learned=True,
)
