"""No integration: the principal components as they are."""

from __future__ import annotations

from immunomod.atlas.integration.method import Aligned, IntegrationMethod, Task


def keep(task: Task) -> Aligned:
    """The components, unchanged."""
    return Aligned(task.components)


METHOD = IntegrationMethod(
    name="none",
    citation="",
    needs="nothing",
    limits="cells of one class cluster apart where batches, donors or stimuli differ",
    run=keep,
)
