"""Marker genes of clusters and classes: a Wilcoxon rank-sum test within each sample, streamed over all genes.

Cells are ranked within their sample only and the samples' statistics add up (the stratified test of van Elteren 1960,
Bull. Inst. Int. Stat. 37:351; with one sample it is the plain test, with ties as in Mann & Whitney), so a difference
between samples makes no marker. No more than one sample is in memory, and all groupings share one sort per gene.

The table describes clusters. Cells are no replicates, and clusters were made from the same expression: there is no
p-value in it, and nothing between conditions is ever read from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from immunomod.atlas.sample_files import (
    EXPRESSION,
    ROWS_AT_ONCE,
    RowReader,
    SampleFile,
    gene_table,
    open_samples,
)
from immunomod.errors import UserError
from immunomod.parallel import for_each, row_blocks

Floats = NDArray[np.float64]
COLUMNS = (
    *("grouping", "group", "rank", "gene", "gene_symbol", "auc", "log2_fold_change", "mean_in", "mean_out"),
    *("detected_in", "detected_out", "z", "n_cells", "n_samples"),
)
#: Added to means before their ratio is taken: one count per million.
PSEUDOCOUNT = 0.01
#: Keys (8 bytes each) of one sample that are held at once; a larger sample is taken in ranges of genes.
_KEYS_AT_ONCE = 150_000_000
_GENES_PER_BLOCK = 512


@dataclass(frozen=True)
class RankStatistics:
    """Rank statistics of every gene in every group.

    Attributes
    ----------
    genes
        Index gene; ``gene_id``, ``gene_symbol``, ``n_samples``.
    groups
        One row per group: ``grouping``, ``group``, ``n_cells``, ``n_samples`` (samples in which the group stands beside
        other cells).
    auc, z
        genes x groups: chance that a cell of the group expresses the gene higher than another cell of its sample (ties
        count half), and the statistic in standard deviations. NaN where no sample compares.
    mean_in, mean_out, detected_in, detected_out
        genes x groups: mean counts per 10,000 and share of cells with the gene, in the group and in the other cells of
        the same samples, each sample with its weight in the test. Where no sample compares: over all cells.
    """

    genes: pd.DataFrame
    groups: pd.DataFrame
    auc: Floats
    z: Floats
    mean_in: Floats
    mean_out: Floats
    detected_in: Floats
    detected_out: Floats

    def log2_fold_change(self, group: int) -> Floats:
        """Of every gene in one group (number of its row), of mean counts per 10,000 with :data:`PSEUDOCOUNT` added."""
        inside, outside = self.mean_in[:, group], self.mean_out[:, group]
        return np.asarray(np.log2((inside + PSEUDOCOUNT) / (outside + PSEUDOCOUNT)))


def rank_genes(
    sample_paths: Sequence[Path], groupings: Mapping[str, pd.Series], threads: int = 1, n_genes: int = 50
) -> pd.DataFrame:
    """The genes that tell each group from the other cells of the same samples.

    Parameters
    ----------
    sample_paths
        ``filtered.h5ad`` files; ``X`` is log(1 + counts per 10,000).
    groupings
        Name of a grouping (``cluster``, ``cell_class``) -> group of each cell, indexed by the cells' names. Every cell
        of the files needs a group.
    threads
        The result does not depend on it, nor on the order of the files.
    n_genes
        Rows per group at most; genes with ``auc`` above 0.5 only.

    Returns
    -------
    DataFrame
        Columns :data:`COLUMNS`, by grouping, group and rank (by ``z``, then ``auc``). A group that never stands beside
        other cells in a sample (an atlas of monocultures) has ``auc`` and ``z`` empty, and its genes by fold change
        over all other cells, which is a difference between samples too. A group of all cells has no rows.

    Raises
    ------
    UserError
        See :func:`~immunomod.atlas.sample_files.open_samples`; or ``X`` holds negative values or no numbers.
    ValueError
        A cell of the files has no group.
    """
    return top_genes(rank_statistics(sample_paths, groupings, threads), n_genes)


def rank_statistics(
    sample_paths: Sequence[Path], groupings: Mapping[str, pd.Series], threads: int = 1
) -> RankStatistics:
    """As :func:`rank_genes`, of all genes and groups."""
    samples = open_samples(sample_paths, threads)
    genes = gene_table(samples)
    labels = _Labels.of(groupings, samples)
    totals = _Totals.empty(len(genes), len(labels.groups))
    for sample, of_cells in zip(samples, labels.of_cells, strict=True):
        _add_sample(sample, sample.places(genes.index), of_cells, labels, totals, threads)
    return totals.statistics(genes, labels.groups)


def top_genes(found: RankStatistics, n_genes: int) -> pd.DataFrame:
    """The first ``n_genes`` of every group as :func:`rank_genes` orders them."""
    tables = [_top_of_group(found, column, n_genes) for column in range(len(found.groups))]
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True)[list(COLUMNS)] if filled else pd.DataFrame(columns=list(COLUMNS))


def _top_of_group(found: RankStatistics, column: int, n_genes: int) -> pd.DataFrame:
    names = found.genes.index.to_numpy(dtype=str)
    by_name = np.argsort(names, kind="stable")
    group = found.groups.iloc[column]
    of_grouping = int(found.groups.loc[found.groups["grouping"] == group["grouping"], "n_cells"].sum())
    fold = found.log2_fold_change(column)
    if group["n_samples"] > 0:
        z, auc = found.z[by_name, column], found.auc[by_name, column]
        order = np.lexsort((-auc, -z))
        chosen = by_name[order[auc[order] > 0.5]][:n_genes]
    elif group["n_cells"] < of_grouping:
        order = by_name[np.argsort(-fold[by_name], kind="stable")]
        chosen = order[fold[order] > 0][:n_genes]
    else:
        chosen = by_name[:0]
    return pd.DataFrame(
        {
            "grouping": group["grouping"],
            "group": group["group"],
            "rank": np.arange(len(chosen)) + 1,
            "gene": names[chosen],
            "gene_symbol": found.genes["gene_symbol"].to_numpy(dtype=str)[chosen],
            "auc": found.auc[chosen, column],
            "log2_fold_change": fold[chosen],
            "mean_in": found.mean_in[chosen, column],
            "mean_out": found.mean_out[chosen, column],
            "detected_in": found.detected_in[chosen, column],
            "detected_out": found.detected_out[chosen, column],
            "z": found.z[chosen, column],
            "n_cells": group["n_cells"],
            "n_samples": group["n_samples"],
        }
    )


# --- groups ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Labels:
    """Groups of all groupings in a row, and labels: the combinations of one group per grouping that occur.

    ``of_cells``: per sample the label of each cell (uint32); ``groups_of_label``: labels x groupings, rows of
    ``groups``.
    """

    groups: pd.DataFrame
    of_cells: list[NDArray[np.uint32]]
    groups_of_label: NDArray[np.int32]

    @classmethod
    def of(cls, groupings: Mapping[str, pd.Series], samples: Sequence[SampleFile]) -> _Labels:
        cells = samples[0].cells.append([sample.cells for sample in samples[1:]])
        codes = np.zeros((len(cells), len(groupings)), dtype=np.int32)
        groups: list[tuple[str, str]] = []
        for column, (name, of_cell) in enumerate(groupings.items()):
            place = of_cell.index.get_indexer(cells)
            values = pd.Categorical(of_cell)
            code = np.where(place >= 0, values.codes[place], -1)
            if (code < 0).any():
                raise ValueError(f"cell {cells[int(np.argmin(code))]!r} has no group in the grouping {name!r}")
            codes[:, column] = code + len(groups)
            groups += [(name, str(group)) for group in values.categories]
        combinations, label = np.unique(codes, axis=0, return_inverse=True)
        bounds = np.cumsum([len(sample.cells) for sample in samples])[:-1]
        of_cells = np.split(label.ravel().astype(np.uint32), bounds)
        table = pd.DataFrame(groups, columns=["grouping", "group"])
        found = cls(table, of_cells, np.ascontiguousarray(combinations, dtype=np.int32))
        sizes = np.array([found.group_sizes(found.label_sizes(part)) for part in of_cells]).reshape(-1, len(table))
        beside_others = (sizes > 0) & (sizes < np.array([[len(part)] for part in of_cells]))
        return replace(found, groups=table.assign(n_cells=sizes.sum(axis=0), n_samples=beside_others.sum(axis=0)))

    def label_sizes(self, of_cells: NDArray[np.uint32]) -> NDArray[np.int64]:
        """How many of some cells have each label."""
        return np.bincount(of_cells, minlength=len(self.groups_of_label)).astype(np.int64)

    def group_sizes(self, label_sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many of them are of each group."""
        sizes = np.zeros(len(self.groups), dtype=np.int64)
        for groups in self.groups_of_label.T:
            np.add.at(sizes, groups, label_sizes)
        return sizes


# --- statistics ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Totals:
    """Sums over samples, genes x groups; the first eight in the order that the compiled loop takes them.

    ``deviation`` and ``variance`` of U from its expectation, ``pairs`` of a cell inside and one outside, all weighted;
    weighted means times ``pairs``; plain sums; and the cells (of the group, of all) in files that list the gene.
    """

    deviation: Floats
    variance: Floats
    pairs: Floats
    mean_in: Floats
    mean_out: Floats
    detected_in: Floats
    detected_out: Floats
    sums: Floats
    counted: Floats
    cells: Floats

    @classmethod
    def empty(cls, n_genes: int, n_groups: int) -> _Totals:
        return cls(*(np.zeros((n_genes, n_groups)) for _ in fields(cls)))

    def statistics(self, genes: pd.DataFrame, groups: pd.DataFrame) -> RankStatistics:
        """Means and statistics of the sums."""
        with np.errstate(divide="ignore", invalid="ignore"):
            auc = np.where(self.pairs > 0, 0.5 + self.deviation / self.pairs, np.nan)
            # all values of a gene tied: no deviation and no variance
            z = np.where(
                self.variance > 0, self.deviation / np.sqrt(self.variance), np.where(self.pairs > 0, 0.0, np.nan)
            )
            compared = [
                part / self.pairs for part in (self.mean_in, self.mean_out, self.detected_in, self.detected_out)
            ]
            plain = []
            for part in (self.sums, self.counted):
                of_all, all_cells = self._of_all(part, groups), self._of_all(self.cells, groups)
                plain += [part / self.cells, (of_all - part) / (all_cells - self.cells)]
        means = [
            np.nan_to_num(np.where(self.pairs > 0, one, other)) for one, other in zip(compared, plain, strict=True)
        ]
        return RankStatistics(genes, groups, auc, z, *means)

    @staticmethod
    def _of_all(sums: Floats, groups: pd.DataFrame) -> Floats:
        """Sums over all groups of the grouping that each group belongs to."""
        result = np.empty_like(sums)
        for name in groups["grouping"].unique():
            of = (groups["grouping"] == name).to_numpy()
            result[:, of] = sums[:, of].sum(axis=1, keepdims=True)
        return result


def _add_sample(
    sample: SampleFile,
    places: NDArray[np.int64],
    labels_of_cells: NDArray[np.uint32],
    labels: _Labels,
    totals: _Totals,
    threads: int,
) -> None:
    import h5py

    from immunomod.atlas.ranks_kernel import add_rank_sums

    label_sizes = labels.label_sizes(labels_of_cells)
    group_sizes = labels.group_sizes(label_sizes)
    totals.cells[places[places >= 0]] += group_sizes
    sums = [getattr(totals, field.name) for field in fields(totals) if field.name != "cells"]
    with h5py.File(sample.path, "r") as file:
        reader = RowReader(file, EXPRESSION)
        n_ranges = max(1, -(-reader.n_stored // _KEYS_AT_ONCE))
        width = -(-sample.n_columns // n_ranges)
        for first in range(0, sample.n_columns, width):
            columns = slice(first, min(first + width, sample.n_columns))
            begin, keys = _keys_of_columns(sample, reader, columns, labels_of_cells, threads)

            def rank(block: slice, begin=begin, keys=keys, first=first) -> None:  # type: ignore[no-untyped-def]
                for column in range(block.start, block.stop):
                    keys[begin[column] : begin[column + 1]].sort()
                add_rank_sums(
                    keys, begin, block.start, block.stop, places[first:], label_sizes, labels.groups_of_label,
                    group_sizes, *sums,
                )  # fmt: skip

            for_each(row_blocks(columns.stop - columns.start, _GENES_PER_BLOCK), rank, threads)
            del keys


def _keys_of_columns(
    sample: SampleFile, reader: RowReader, columns: slice, labels_of_cells: NDArray[np.uint32], threads: int
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """The entries of some columns as keys, column by column, and where each column begins.

    Rows are counted first, so that every block of rows knows its places and blocks can be filled side by side.
    """
    from immunomod.atlas.ranks_kernel import count_columns, scatter_keys

    blocks = row_blocks(len(sample.cells), ROWS_AT_ONCE)
    counts = np.zeros((len(blocks), columns.stop - columns.start), dtype=np.int64)

    def count(number: int) -> None:
        count_columns(reader.column_indices(blocks[number]), columns.start, columns.stop, counts[number])

    for_each(range(len(blocks)), count, threads)
    begin = np.concatenate([[0], np.cumsum(counts.sum(axis=0))]).astype(np.int64)
    cursors = begin[:-1] + np.cumsum(counts, axis=0) - counts
    keys = np.empty(int(begin[-1]), dtype=np.uint64)

    def fill(number: int) -> int:
        block = reader.rows(blocks[number])
        bits = np.ascontiguousarray(block.data, dtype=np.float32).view(np.uint32)
        of_rows = labels_of_cells[blocks[number]]
        unfit: int = scatter_keys(
            block.indptr, block.indices, bits, of_rows, columns.start, columns.stop, cursors[number], keys
        )
        return unfit

    if unfit := sum(for_each(range(len(blocks)), fill, threads)):
        raise UserError(
            f"{sample.path}: X holds {unfit:,} values that are negative or no numbers; the atlas needs "
            "log(1 + counts per 10,000). Run the sample floor for this sample again."
        )
    return begin, keys
