"""From per-sample matrices to one reduced matrix: variable genes across samples, their columns, and their PCA.

No more than one sample's matrix is in memory beside the reduced one. Variable genes are chosen from statistics that
the sample floor wrote with each sample (variance normalised for the mean, the ``seurat_v3`` method of Stuart et al.
2019, doi:10.1016/j.cell.2019.05.031); ranks within samples add up to the choice across samples, exactly as scanpy
does with ``batch_key`` on the concatenated counts.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import linalg, sparse

from immunomod.errors import UserError

# Genes that tell clones, reading depth or damage rather than cell classes: V, D and J segments of the T and B cell
# receptors (each clone its own), mitochondrially encoded and ribosomal protein genes. Cell-cycle genes stay in:
# cycling is a state that the programmes read out, its cells still carry their class's markers, and leaving out the
# listed genes does not take the signal out of the rest.
_LEFT_OUT = re.compile(
    r"^(TR[ABDG][VDJ]\d.*|IG[HKL][VDJ]\d.*|MT-.+|M?RP(S|L)(\d+[AXLY]*\d*|A|P\d)$)$",
    re.IGNORECASE,
)
_ROWS_AT_ONCE = 4096


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
    """
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


def read_gene_columns(path: Path, columns: NDArray[np.int64]) -> sparse.csr_matrix:
    """Columns of ``X`` of one ``filtered.h5ad``, as float32 CSR (cells x ``len(columns)``).

    ``columns`` are positions in the file's ``var``; -1 stands for a gene that the sample lacks and gives zeros. The
    file's matrix is read in blocks of rows, its count layer not at all.
    """
    import h5py

    present = columns >= 0
    blocks = [block[:, columns[present]].astype(np.float32) for block in _row_blocks(h5py.File(path, "r"), path)]
    found = sparse.vstack(blocks, format="csr") if blocks else sparse.csr_matrix((0, int(present.sum())))
    place = sparse.csr_matrix(
        (np.ones(int(present.sum()), dtype=np.float32), (np.arange(present.sum()), np.flatnonzero(present))),
        shape=(int(present.sum()), len(columns)),
    )
    return sparse.csr_matrix(found @ place, dtype=np.float32)


def _row_blocks(handle, path: Path) -> Iterator[sparse.csr_matrix]:  # type: ignore[no-untyped-def]
    from anndata.io import sparse_dataset

    with handle:
        group = handle["X"]
        is_sparse = hasattr(group, "keys")
        matrix = sparse_dataset(group) if is_sparse else group
        if is_sparse and matrix.format != "csr":
            raise UserError(f"{path}: X is stored as {matrix.format}; the atlas reads CSR. Write the sample again.")
        for start in range(0, matrix.shape[0], _ROWS_AT_ONCE):
            yield sparse.csr_matrix(matrix[start : start + _ROWS_AT_ONCE])


@dataclass(frozen=True)
class Components:
    """Principal components: ``scores`` (cells x k), ``loadings`` (genes x k) and ``variance_ratio`` (k)."""

    scores: NDArray[np.float32]
    loadings: NDArray[np.float64]
    variance_ratio: NDArray[np.float64]


def principal_components(matrix: sparse.csr_matrix, n_components: int) -> Components:
    """Exact PCA of a sparse cells x genes matrix, centred by gene and not scaled.

    The genes x genes covariance is summed over blocks of rows, so the matrix is never dense as a whole, and its
    leading eigenvectors are taken (LAPACK, no random start). Each component's sign makes its largest loading
    positive. At most ``min(cells - 1, genes)`` components come back.
    """
    n_cells, n_genes = matrix.shape
    mean = np.asarray(matrix.mean(axis=0), dtype=np.float64).ravel()
    covariance = np.zeros((n_genes, n_genes))
    for start in range(0, n_cells, _ROWS_AT_ONCE):
        centred = matrix[start : start + _ROWS_AT_ONCE].toarray().astype(np.float64) - mean
        covariance += centred.T @ centred
    covariance /= max(n_cells - 1, 1)

    kept = max(1, min(n_components, n_cells - 1, n_genes))
    values, vectors = linalg.eigh(covariance, subset_by_index=(n_genes - kept, n_genes - 1))
    values, vectors = np.clip(values[::-1], 0, None), vectors[:, ::-1]
    largest = vectors[np.argmax(np.abs(vectors), axis=0), np.arange(kept)]
    vectors = vectors * np.where(largest < 0, -1.0, 1.0)
    scores = np.asarray(matrix @ vectors) - mean @ vectors
    total = float(np.trace(covariance))
    ratio = values / total if total > 0 else np.zeros(kept)
    return Components(scores.astype(np.float32), vectors, ratio)
