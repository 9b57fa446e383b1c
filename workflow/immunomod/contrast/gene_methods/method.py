"""What every model of genes declares about itself, what it is given and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from immunomod.contrast.normalise import Floats


class NotFittedError(Exception):
    """A model could not be fitted; the message says why."""


@dataclass(frozen=True)
class GeneTask:
    """What a model works on: the units and genes of one stratum.

    Attributes
    ----------
    genes
        Names, sorted.
    counts
        Units x genes: the class's own molecules, what leaked taken out; at least 0, and whole where nothing leaked.
    log2
        Units x genes: log2 counts per million of the same (:mod:`immunomod.contrast.scores`).
    blurred
        Genes whose counts leakage blurs: by more than a fifth in some unit.
    library
        Effective library size of each unit.
    effect, nuisance
        The design: the effect's regressor (units), and the other terms (units x terms). For a trend within donors, of
        which ``log2`` then holds two rows a donor (:func:`immunomod.contrast.design.donor_slopes`), that of these rows.
    """

    genes: pd.Index
    counts: Floats
    log2: Floats
    blurred: NDArray[np.bool_]
    library: Floats
    effect: Floats
    nuisance: Floats


@dataclass(frozen=True)
class GeneFit:
    """Changes of genes, in the order of the task's; log2 units.

    Attributes
    ----------
    estimate, se
        The effect and its standard error.
    df
        Degrees of freedom of ``estimate / se``; infinite for a normal distribution.
    tested
        Genes that may have a p-value.
    counted
        Genes over which false discovery rates are taken.
    shrunken
        The effect's posterior mode under a Cauchy prior.
    prior_scale
        Scale of that prior, per gene.
    """

    estimate: Floats
    se: Floats
    df: float
    tested: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    shrunken: Floats
    prior_scale: Floats


@dataclass(frozen=True)
class GeneMethod:
    """A model of genes.

    Attributes
    ----------
    name
        Name in the configuration.
    citation, needs, limits
        For the report and the docs.
    run
        The model itself; raises :class:`NotFittedError`.
    """

    name: str
    citation: str
    needs: str
    limits: str
    run: Callable[[GeneTask], GeneFit]
