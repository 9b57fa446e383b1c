"""Marker genes of clusters and classes: a Wilcoxon rank-sum test of each against all other cells, streamed.

Ranks are taken within each sample and the samples' statistics are added up (van Elteren 1960, Bulletin de l'Institut
International de Statistique 37:351): ranks never cross samples, so a difference between samples makes no marker, and no
more than one sample is in memory. Of one sample it is the plain test. Values are sorted once per gene with the cells'
groups packed beside them, for all groups of all groupings at once, where the usual implementations sort once per group.

These tables describe. Cells are no replicates, so no p-value is written, and nothing here compares conditions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from immunomod.parallel import for_each, row_blocks

# Genes whose entries are sorted together: few enough that they stay in the cache.
_GENES_AT_ONCE = 1024
_PSEUDOCOUNT = 0.01  # counts per 10,000
COLUMNS = (
    "grouping", "group", "rank", "gene", "gene_symbol", "auc", "log2_fold_change", "mean_in", "mean_out", "detected_in",
    "detected_out", "z", "n_cells",
)  # fmt: skip


@dataclass(frozen=True)
class _SampleRanks:
    """Genes x groups (``ties``: genes) of one sample; ``group_size``: its cells in each group."""

    rank_sum: NDArray[np.float64]
    ties: NDArray[np.float64]
    total: NDArray[np.float64]
    detected: NDArray[np.float64]
    group_size: NDArray[np.int64]


class MarkerRanks:
    """Adds up rank statistics sample by sample.

    Parameters
    ----------
    n_genes
        Genes of the atlas, all of them.
    groupings
        For each grouping (``cluster``, ``cell_class``) the level of every group of cells: levels are unions of groups.
    """

    def __init__(self, n_genes: int, groupings: Mapping[str, NDArray[np.object_]]) -> None:
        self._levels = {name: pd.Categorical(levels) for name, levels in groupings.items()}
        self._sums = {
            name: {key: np.zeros((n_genes, len(levels.categories))) for key in _SUMS}
            for name, levels in self._levels.items()
        }

    def add(
        self,
        expression: sparse.csr_matrix,
        gene_of_column: NDArray[np.int64],
        group: NDArray[np.int32],
        threads: int = 1,
    ) -> None:
        """Add one sample.

        Parameters
        ----------
        expression
            log(1 + counts per 10,000), float32 CSR, cells x genes of the sample; nothing below zero.
        gene_of_column
            The atlas's gene of each column; -1 leaves a column out.
        group
            Group of every cell; -1 leaves a cell out.
        """
        n_groups = len(next(iter(self._levels.values())))
        columns = np.flatnonzero(gene_of_column >= 0)
        genes = gene_of_column[columns]
        for block, found in _ranked(expression, group, n_groups, threads):
            inside = (columns >= block.start) & (columns < block.stop)
            of_atlas, of_sample = genes[inside], columns[inside] - block.start
            for name, levels in self._levels.items():
                member = np.zeros((n_groups, len(levels.categories)))
                member[np.arange(n_groups), levels.codes] = 1
                for key, values in _statistics(found, of_sample, member).items():
                    self._sums[name][key][of_atlas] += values

    def table(self, genes: pd.DataFrame, n_top: int) -> pd.DataFrame:
        """The first ``n_top`` genes of every level of every grouping, by z and then by AUC: :data:`COLUMNS`.

        ``genes``: ``gene_symbol`` of every gene, index the gene's name. ``auc``: chance that a cell of the group has
        more of the gene than another cell of its sample; means are counts per 10,000.
        """
        parts = []
        for name, levels in self._levels.items():
            sums = self._sums[name]
            with np.errstate(divide="ignore", invalid="ignore"):
                auc = sums["above"] / sums["pairs"]
                z = sums["shift"] / np.sqrt(sums["variance"])
                mean_in, mean_out = sums["total_in"] / sums["cells_in"], sums["total_out"] / sums["cells_out"]
                detected_in = sums["detected_in"] / sums["cells_in"]
                detected_out = sums["detected_out"] / sums["cells_out"]
            for level, label in enumerate(levels.categories):
                known = np.flatnonzero(np.isfinite(z[:, level]))
                order = known[np.lexsort((known, -auc[known, level], -z[known, level]))][:n_top]
                first, second = mean_in[order, level], mean_out[order, level]
                table = pd.DataFrame(
                    {
                        "grouping": name,
                        "group": str(label),
                        "rank": np.arange(1, len(order) + 1),
                        "gene": genes.index[order],
                        "gene_symbol": genes["gene_symbol"].to_numpy()[order],
                        "auc": auc[order, level],
                        "log2_fold_change": np.log2((first + _PSEUDOCOUNT) / (second + _PSEUDOCOUNT)),
                        "mean_in": first,
                        "mean_out": second,
                        "detected_in": detected_in[order, level],
                        "detected_out": detected_out[order, level],
                        "z": z[order, level],
                        "n_cells": sums["cells_in"][order, level].astype(int),
                    }
                )
                parts.append(table)
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))


_SUMS = (
    "above", "pairs", "shift", "variance",
    "total_in", "total_out", "detected_in", "detected_out", "cells_in", "cells_out",
)  # fmt: skip


def _statistics(
    found: _SampleRanks, columns: NDArray[np.int64], member: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """What a sample adds, genes x levels; a level that holds no or all of the sample's cells adds no comparison."""
    size = found.group_size @ member
    n_cells = float(found.group_size.sum())
    rest = n_cells - size
    rank_sum, total, detected = (values[columns] @ member for values in (found.rank_sum, found.total, found.detected))
    pairs = size * rest
    above = rank_sum - size * (size + 1) / 2
    spread = (n_cells + 1) - found.ties[columns] / (n_cells * (n_cells - 1)) if n_cells > 1 else np.zeros(len(columns))
    weight = (pairs > 0) / (n_cells + 1)  # van Elteren's weights
    ones = np.ones((len(columns), 1))
    return {
        "above": np.where(pairs > 0, above, 0.0),
        "pairs": ones * pairs,
        "shift": weight * (above - pairs / 2),
        "variance": weight**2 * pairs / 12 * spread[:, None],
        "total_in": total,
        "total_out": found.total[columns].sum(axis=1, keepdims=True) - total,
        "detected_in": detected,
        "detected_out": found.detected[columns].sum(axis=1, keepdims=True) - detected,
        "cells_in": ones * size,
        "cells_out": ones * rest,
    }


def _ranked(
    expression: sparse.csr_matrix, group: NDArray[np.int32], n_groups: int, threads: int
) -> list[tuple[slice, _SampleRanks]]:
    """Rank statistics of a sample, by blocks of its genes."""
    from immunomod.atlas.ranks_kernel import SORTED_TOGETHER, count_entries, pack_entries, rank_genes

    if not expression.has_sorted_indices:
        expression = expression.sorted_indices()
    entries = (
        np.asarray(expression.indptr, dtype=np.int64), expression.indices,
        np.asarray(expression.data, dtype=np.float32), np.asarray(group, dtype=np.int32),
    )  # fmt: skip
    group_size = np.bincount(group[group >= 0], minlength=n_groups).astype(np.int64)

    def rank(genes: slice) -> tuple[slice, _SampleRanks]:
        n_genes = genes.stop - genes.start
        start = np.zeros(n_genes + 1, dtype=np.int64)
        count_entries(*entries, genes.start, genes.stop, start)
        packed = np.empty(int(start[-1]), dtype=np.uint64)
        pack_entries(*entries, genes.start, genes.stop, start[:-1].copy(), packed)
        for together in row_blocks(n_genes, SORTED_TOGETHER):  # numpy's sort is four times as fast as a compiled one
            packed[start[together.start] : start[together.stop]].sort()
        of_groups = [np.zeros((n_genes, n_groups)) for _ in range(3)]
        found = _SampleRanks(of_groups[0], np.zeros(n_genes), of_groups[1], of_groups[2], group_size)
        rank_genes(packed, start, group_size, found.rank_sum, found.ties, found.total, found.detected)
        return genes, found

    return for_each(row_blocks(expression.shape[1], _GENES_AT_ONCE), rank, threads)
