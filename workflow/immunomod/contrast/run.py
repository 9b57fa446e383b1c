"""One contrast, answered: programmes, genes and composition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from anndata import AnnData

from immunomod.contrast.composition import composition_effects
from immunomod.contrast.design import Contrast
from immunomod.contrast.fractions import fraction_effects
from immunomod.contrast.genes import gene_effects
from immunomod.contrast.program_effects import Programmes, program_effects
from immunomod.contrast.settings import ContrastSettings
from immunomod.progress import Progress


@dataclass(frozen=True)
class ContrastResult:
    """The tables of one contrast.

    Attributes
    ----------
    program_effects, program_enrichment
        ``program_effects.tsv`` and ``program_enrichment.tsv``: the same rows, by two tests.
    genes, gene_tests
        Cell class -> ``genes/<cell_class>.tsv.gz``; every class of the data sets has a table, empty where no model
        could be fitted. ``gene_tests.tsv``: one row per data set and class, with a status and why.
    composition, fractions, design
        ``composition.tsv``; ``fractions.tsv``, shares of regulatory and of cycling cells; one row per data set and cell
        class on what was compared, or why nothing was.
    program_scores, program_genes
        Replicate-level scores (for the heat map), and the log2 change of every gene of every programme.
    msc_scores
        Scores of single libraries of MSC, for how far an MSC donor's cultures agree.
    """

    program_effects: pd.DataFrame
    program_enrichment: pd.DataFrame
    genes: dict[str, pd.DataFrame]
    gene_tests: pd.DataFrame
    composition: pd.DataFrame
    fractions: pd.DataFrame
    design: pd.DataFrame
    program_scores: pd.DataFrame
    program_genes: pd.DataFrame
    msc_scores: pd.DataFrame


def run_contrast(
    row: Mapping[str, str],
    pseudobulks: Mapping[str, AnnData],
    programs: Programmes,
    settings: ContrastSettings,
    seed: int,
) -> ContrastResult:
    """Answer one row of ``contrasts.tsv``.

    Parameters
    ----------
    row
        The row, values as text.
    pseudobulks
        Data set -> pseudobulk, for each data set of the row.
    programs
        The gene programmes.
    settings, seed
        The ``contrast`` section of the config, and the run's seed.

    Raises
    ------
    UserError
        The row names a column or writes a filter that cannot be used.
    """
    contrast = Contrast.from_row(row)
    progress = Progress("contrast")
    effects = program_effects(contrast, pseudobulks, programs, settings, seed)
    progress(f"{len(effects.effects):,} programme effects of {len(effects.design)} cell classes")
    genes = gene_effects(contrast, pseudobulks, settings)
    progress(f"genes of {len(genes.tables)} cell classes")
    composition = composition_effects(contrast, pseudobulks, settings)
    fractions = fraction_effects(contrast, pseudobulks, settings)
    progress("composition")
    return ContrastResult(
        program_effects=effects.effects,
        program_enrichment=effects.enrichment,
        genes=genes.tables,
        gene_tests=genes.strata,
        composition=composition,
        fractions=fractions,
        design=effects.design,
        program_scores=effects.scores,
        program_genes=effects.genes,
        msc_scores=effects.msc_scores,
    )
