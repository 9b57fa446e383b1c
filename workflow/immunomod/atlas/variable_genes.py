"""Variable genes across samples, from statistics of each sample that add up.

The statistics are those that the sample floor wrote with each sample (variance normalised for the mean, the
``seurat_v3`` method of Stuart et al. 2019, doi:10.1016/j.cell.2019.05.031); ranks within samples add up to the choice
across samples, exactly as scanpy does with ``batch_key`` on the concatenated counts.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from immunomod.errors import UserError

# Genes that tell clones, reading depth or damage rather than cell classes: V, D and J segments of the T and B cell
# receptors (each clone its own), mitochondrially encoded and ribosomal protein genes. Cell-cycle genes stay in:
# cycling is a state that the programmes read out, its cells still carry their class's markers, and leaving out the
# listed genes does not take the signal out of the rest.
_LEFT_OUT = re.compile(
    r"^(TR[ABDG][VDJ]\d.*|IG[HKL][VDJ]\d.*|MT-.+|M?RP(S|L)(\d+[AXLY]*\d*|A|P\d)$)$",
    re.IGNORECASE,
)


def is_left_out(symbol: str) -> bool:
    """Whether a gene never counts as variable (receptor segments, mitochondrial and ribosomal protein genes)."""
    return _LEFT_OUT.match(symbol) is not None


@dataclass(frozen=True)
class SampleGenes:
    """The gene axis and gene statistics of one sample.

    Attributes
    ----------
    sample, dataset
        Names.
    var
        ``var`` of its ``filtered.h5ad``; the index is the name that genes are matched by across the atlas.
    n_cells
        Cells that passed; a sample without cells takes no part.
    """

    sample: str
    dataset: str
    var: pd.DataFrame
    n_cells: int


def shared_gene_axes(samples: Sequence[SampleGenes]) -> list[SampleGenes]:
    """Put the samples on one naming of genes: by id where all samples have ids, else by symbol.

    Where two ids of a sample share a symbol, the one with the higher mean keeps it.
    """
    ids = [_has_ids(sample.var) for sample in samples]
    if all(ids) or not any(ids):
        return list(samples)
    return [SampleGenes(s.sample, s.dataset, _by_symbol(s.var), s.n_cells) for s in samples]


def _has_ids(var: pd.DataFrame) -> bool:
    return "gene_id" in var and bool((var["gene_id"].astype(str) == var.index.astype(str)).mean() > 0.5)


def _by_symbol(var: pd.DataFrame) -> pd.DataFrame:
    renamed = var.assign(_column=np.arange(len(var)) if "_column" not in var else var["_column"])
    renamed.index = pd.Index(var["gene_symbol"].astype(str))
    order = renamed["mean"].fillna(-1).to_numpy() if "mean" in renamed else np.zeros(len(renamed))
    first = renamed.iloc[np.argsort(-order, kind="stable")]
    first = first[~first.index.duplicated()]
    return first.sort_values("_column")


def refuse_disjoint_genes(samples: Sequence[SampleGenes]) -> None:
    """Raise a :class:`UserError` where no gene is common to all data sets, or a sample has none with its data set.

    Nothing could be compared between them: every gene would tell where a cell comes from.
    """
    of_dataset: dict[str, pd.Index] = {}
    for dataset in sorted({sample.dataset for sample in samples}):
        members = sorted((one for one in samples if one.dataset == dataset), key=lambda one: one.sample)
        for sample in members:
            others = [one for one in members if one is not sample]
            if others and not any(sample.var.index.isin(one.var.index).any() for one in others):
                raise UserError(
                    f"sample {sample.sample} (genes such as {_examples(sample.var.index)}) shares no gene with the "
                    f"other samples of data set {dataset!r} (genes such as {_examples(others[0].var.index)}). Check "
                    "that its file is of the same organism and names genes likewise, or give it a data set of its own"
                )
        of_dataset[dataset] = pd.Index(np.unique(np.concatenate([one.var.index.to_numpy(str) for one in members])))
    common = None
    for dataset, genes in of_dataset.items():
        common = genes if common is None else common.intersection(genes)
        if not len(common):
            before = [name for name in of_dataset if name < dataset]
            named = [f"{name} (genes such as {_examples(of_dataset[name])})" for name in (*before, dataset)]
            raise UserError(
                f"data sets {', '.join(named[:-1])} and {named[-1]} share no gene. Check that they are of one organism "
                "and name genes likewise, or list them in different atlases (`atlases` in the config)"
            )


def _examples(genes: pd.Index) -> str:
    return ", ".join(map(str, genes[:3]))


def combine_gene_statistics(samples: Sequence[SampleGenes], n_variable_genes: int) -> pd.DataFrame:
    """Choose variable genes across samples from each sample's ``variances_norm``.

    Within each sample genes are ranked by normalised variance; a gene's rank across samples is the median over the
    samples in which it is among the first ``n_variable_genes``, ties broken by in how many samples that is. On equal
    gene axes the result equals ``scanpy.pp.highly_variable_genes(flavor="seurat_v3", batch_key="sample")``.

    Gene axes may differ. A gene is a candidate if at least one sample of **every** dataset has it: within a dataset
    one gene annotation was used, so a gene that a file leaves out was counted zero times there, while a gene that a
    whole dataset lacks was never looked for, and its zeros would be a difference between laboratories.

    Parameters
    ----------
    samples
        Samples with cells, on one naming of genes (:func:`shared_gene_axes`).
    n_variable_genes
        How many to choose; fewer come back if there are fewer candidates.

    Returns
    -------
    DataFrame
        Index gene (union over samples); columns ``gene_id``, ``gene_symbol``, ``n_samples``, ``variances_norm``
        (mean over samples), ``highly_variable_rank``, ``highly_variable_nbatches``, ``highly_variable``.

    Raises
    ------
    UserError
        See :func:`refuse_disjoint_genes`.
    """
    refuse_disjoint_genes(samples)
    genes = pd.Index(pd.unique(np.concatenate([sample.var.index.to_numpy(dtype=str) for sample in samples])))
    table = _gene_names(samples, genes)
    candidate = _in_every_dataset(samples, genes) & ~table["gene_symbol"].map(is_left_out).to_numpy(dtype=bool)

    normalised = np.full((len(samples), len(genes)), np.nan)
    for row, sample in enumerate(samples):
        normalised[row, genes.get_indexer(sample.var.index)] = _variability(sample.var)
    ranks = _ranks(np.where(candidate, normalised, np.nan))
    ranks[ranks >= n_variable_genes] = np.nan

    table["n_samples"] = np.sum([genes.isin(sample.var.index) for sample in samples], axis=0)
    table["variances_norm"] = _mean_of_known(normalised)
    table["highly_variable_rank"] = _median_of_known(ranks)
    table["highly_variable_nbatches"] = np.sum(~np.isnan(ranks), axis=0)
    ordered = table[candidate].sort_values(
        ["highly_variable_rank", "highly_variable_nbatches"], ascending=[True, False], na_position="last"
    )
    table["highly_variable"] = table.index.isin(ordered.index[:n_variable_genes])
    return table


def _variability(var: pd.DataFrame) -> NDArray[np.float64]:
    """``variances_norm``; plain ``variance`` for a sample with too few cells to fit the trend over the mean."""
    normalised = var["variances_norm"].to_numpy(dtype=float)
    if np.isnan(normalised).all() and "variance" in var:
        return np.asarray(var["variance"], dtype=np.float64)
    return normalised


def _gene_names(samples: Sequence[SampleGenes], genes: pd.Index) -> pd.DataFrame:
    names = pd.concat([sample.var.reindex(columns=["gene_id", "gene_symbol"]) for sample in samples])
    names = names[~names.index.duplicated()].reindex(genes)
    table = pd.DataFrame(index=genes)
    table["gene_id"] = names["gene_id"].astype(object).where(names["gene_id"].notna(), "").astype(str)
    table["gene_symbol"] = names["gene_symbol"].astype(object).where(names["gene_symbol"].notna(), genes).astype(str)
    return table


def _in_every_dataset(samples: Sequence[SampleGenes], genes: pd.Index) -> NDArray[np.bool_]:
    everywhere = np.ones(len(genes), dtype=bool)
    for dataset in {sample.dataset for sample in samples}:
        everywhere &= np.any([genes.isin(s.var.index) for s in samples if s.dataset == dataset], axis=0)
    return everywhere


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank within each row, 0 the largest; missing stays missing."""
    order = np.argsort(np.where(np.isnan(values), np.inf, -values), axis=1, kind="stable")
    ranks = np.argsort(order, axis=1, kind="stable").astype(float)
    return np.where(np.isnan(values), np.nan, ranks)


def _median_of_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        return np.asarray(np.nanmedian(values, axis=0), dtype=np.float64)


def _mean_of_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=0), dtype=np.float64)
