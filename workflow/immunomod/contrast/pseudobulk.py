"""Sums of counts per replicate and cell class: the small table on which every test between conditions stands.

A replicate is one donor in one sample. Samples are visited one at a time, so memory is bounded by the largest of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from immunomod.progress import Progress
from immunomod.sample.states import replicate_counts, replicate_means

UNIT = ["sample", "donor", "cell_class"]
CLASS_COLUMNS = ["compartment", "lineage"]


def pseudobulk(samples: Iterable[str | Path | AnnData], cells: pd.DataFrame) -> AnnData:
    """Sum the counts of the annotated cells of each sample, donor and cell class.

    Parameters
    ----------
    samples
        ``filtered.h5ad`` files, or their contents, of one data set: raw counts in ``layers["counts"]`` (in ``X`` where
        there is no such layer), ``var["gene_symbol"]`` (the index where there is no such column).
    cells
        ``obs`` of the atlas: one row per cell, indexed like the samples' cells (``<sample>:<barcode>``), with
        ``sample, donor, cell_class, compartment, lineage`` and the sheet's columns. A cell that stands in only one of
        the two is left out.

    Returns
    -------
    AnnData with one row per replicate and cell class, ordered by name. ``obs``: ``sample, donor, cell_class,
    compartment, lineage, n_cells`` and every text column of ``cells`` that is constant inside each replicate: the
    sheet's columns (barcodes vary, and drop out; numbers are measurements of cells), and the means over its cells of
    cell cycle and stress (:data:`immunomod.sample.states.REPLICATE_MEANS`), with the cells that cycle and those whose
    phase is known (``cells_cycling``, ``cells_with_phase``). ``X``: int64 sums (CSR), units x
    gene symbols; features with the same symbol are added up, genes are the union over samples, and a gene that a
    sample's file does not list counts zero there. ``var["n_samples"]``: the number of samples that list the gene.

    Raises
    ------
    ValueError
        A required column is missing, or the counts are not whole numbers.
    """
    missing = [name for name in [*UNIT, *CLASS_COLUMNS] if name not in cells]
    if missing:
        raise ValueError(f"pseudobulk: the cells' table lacks the column(s) {', '.join(missing)}")
    cells = cells.assign(**{name: _text(cells[name]) for name in [*UNIT, *CLASS_COLUMNS]})
    progress = Progress("pseudobulk")
    parts = []
    for number, source in enumerate(samples, start=1):
        part = _sum_sample(source, cells)
        parts += [] if part is None else [part]
        progress(f"sample {number}: {0 if part is None else len(part.units)} replicates and classes")
    carried = [*CLASS_COLUMNS, *_replicate_columns(cells)]
    if not parts:
        empty = pd.DataFrame(columns=[*UNIT, *carried, "n_cells"], index=pd.Index([], dtype=str))
        return AnnData(X=sparse.csr_matrix((0, 0), dtype=np.int64), obs=empty)
    genes = pd.Index(sorted(set().union(*(part.symbols for part in parts))), name="gene_symbol")
    counts = sparse.vstack([_onto(part, genes) for part in parts]).tocsr()
    units = pd.concat([part.units for part in parts], ignore_index=True)
    first = cells.groupby(UNIT, observed=True, sort=False)[carried].first()
    described = first.reindex(pd.MultiIndex.from_frame(units[UNIT])).reset_index(drop=True).apply(_text)
    means = replicate_means(cells, UNIT).join(replicate_counts(cells, UNIT)).drop(columns=carried, errors="ignore")
    measured = means.reindex(pd.MultiIndex.from_frame(units[UNIT])).reset_index(drop=True)
    obs = pd.concat([units[UNIT], described, measured, units["n_cells"]], axis=1)
    obs.index = pd.Index(["|".join(unit) for unit in units[UNIT].itertuples(index=False)])
    order = units.sort_values(UNIT, kind="stable").index.to_numpy()
    n_samples = np.sum([genes.isin(part.symbols) for part in parts], axis=0)
    return AnnData(X=counts[order], obs=obs.iloc[order], var=pd.DataFrame({"n_samples": n_samples}, index=genes))


@dataclass(frozen=True)
class _SampleSums:
    """``counts[i, j]``: sum over the ``units.n_cells[i]`` cells of unit i of the features with symbol j."""

    units: pd.DataFrame
    symbols: pd.Index
    counts: sparse.csr_matrix


def _sum_sample(source: str | Path | AnnData, cells: pd.DataFrame) -> _SampleSums | None:
    """One product with a units x cells indicator matrix, one with a features x symbols one; None without cells."""
    sample = source if isinstance(source, AnnData) else _read_counts(Path(source))
    kept = sample.obs_names.isin(cells.index)
    if not kept.any():
        return None
    counts = sparse.csr_matrix(sample.layers.get("counts", sample.X))
    if not kept.all():
        counts = counts[kept]
    if np.any(counts.data != np.rint(counts.data)):
        name = "a sample" if isinstance(source, AnnData) else str(source)
        raise ValueError(f"pseudobulk: {name} holds values that are not whole counts")
    labels = cells.loc[sample.obs_names[kept], UNIT].reset_index(drop=True)
    units = labels.value_counts(sort=False).rename("n_cells").reset_index()
    rows = pd.MultiIndex.from_frame(units[UNIT]).get_indexer(pd.MultiIndex.from_frame(labels))
    per_unit = sparse.csr_matrix((np.ones(len(rows), np.int64), (rows, np.arange(len(rows)))), (len(units), len(rows)))
    symbols = sample.var["gene_symbol"] if "gene_symbol" in sample.var else sample.var_names.to_series()
    codes, names = pd.factorize(_text(symbols).to_numpy())
    ones = np.ones(len(codes), np.int64)
    per_symbol = sparse.csr_matrix((ones, (np.arange(len(codes)), codes)), (len(codes), len(names)))
    return _SampleSums(units, pd.Index(names), ((per_unit @ counts.astype(np.int64)) @ per_symbol).tocsr())


def _read_counts(path: Path) -> AnnData:
    """Raw counts of a ``filtered.h5ad``, without its other matrices."""
    import h5py
    from anndata.io import read_elem

    with h5py.File(path, "r") as file:
        counts = read_elem(file["layers/counts"] if "layers/counts" in file else file["X"])
        return AnnData(counts, obs=read_elem(file["obs"]), var=read_elem(file["var"]))


def failed_samples(qc: pd.DataFrame) -> dict[str, str]:
    """Samples whose verdict is ``fail``, and the reason; ``qc``: rows of ``qc.tsv``."""
    failed = qc[qc["verdict"].astype(str) == "fail"]
    return dict(zip(failed["sample"].astype(str), _text(failed["reason"]), strict=True))


def _onto(part: _SampleSums, genes: pd.Index) -> sparse.csr_matrix:
    """The counts of ``part`` with columns in the order of ``genes``."""
    entries = part.counts.tocoo()
    columns = genes.get_indexer(part.symbols)[entries.col]
    return sparse.csr_matrix((entries.data, (entries.row, columns)), (part.counts.shape[0], len(genes)))


def _replicate_columns(cells: pd.DataFrame) -> list[str]:
    """Text columns that hold one value in every replicate, as the sheet's do; measurements of cells are numbers."""
    replicate = cells.groupby(["sample", "donor"], observed=True, sort=False).ngroup().to_numpy()
    _, first = np.unique(replicate, return_index=True)
    texts = [str(name) for name in cells if not pd.api.types.is_numeric_dtype(cells[name])]
    names = [name for name in texts if name not in {*UNIT, *CLASS_COLUMNS, "n_cells"}]
    codes = {name: pd.factorize(cells[name])[0] for name in names}
    return [name for name in names if np.array_equal(codes[name], codes[name][first][replicate])]


def _text(values: pd.Series) -> pd.Series:
    return values.astype(object).where(values.notna(), "").astype(str)
