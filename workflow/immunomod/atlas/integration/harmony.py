"""Harmony: soft clusters of principal components, corrected towards equal batch shares."""

from __future__ import annotations

import numpy as np
import pandas as pd

from immunomod.atlas.integration.method import Aligned, IntegrationMethod, Task


def align(task: Task) -> Aligned:
    """Harmony on the components, seeded; the same result for any number of threads."""
    import harmonypy

    n_cells = len(task.components)
    result = harmonypy.run_harmony(
        task.components,
        pd.DataFrame({"batch": list(task.batches)}),
        "batch",
        nclust=max(2, min(round(n_cells / 30), 100)),
        random_state=task.seed,
        ncores=task.threads,
        verbose=False,
    )
    corrected = np.asarray(result.Z_corr, dtype=np.float32)
    # harmonypy 2 gives cells x k, earlier versions k x cells
    return Aligned(corrected if corrected.shape[0] == n_cells else np.ascontiguousarray(corrected.T))


METHOD = IntegrationMethod(
    name="harmony",
    citation="Korsunsky et al. 2019, Nature Methods 16:1289, doi:10.1038/s41592-019-0619-0",
    needs="two or more batches that share cell classes",
    limits=(
        "where a sample is a condition, aligning samples also takes away what the condition did: good for naming "
        "cells, never to be compared between conditions (effects come from raw counts)"
    ),
    run=align,
)
