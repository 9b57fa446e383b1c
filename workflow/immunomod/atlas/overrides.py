"""The user's own word on what cells are: it beats every other evidence and survives a rerun that renumbers clusters.

A table of overrides is one of two. Either it names cells (``cell``, ``cell_class``); or it is an edited copy of an
atlas's ``clusters.tsv``, in which some rows have another ``cell_class`` than the ``proposed_class`` beside it. Such a
row finds its cells again by its ``anchor_cells``, cells in the middle of the cluster: a cluster of the new atlas gets
the class of the row that owns most of the anchors in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from immunomod.atlas.markers import MarkerSet
from immunomod.errors import UserError
from immunomod.files import read_tsv

N_ANCHORS = 20
_OF_CELLS = ("cell", "cell_class")
_OF_CLUSTERS = ("cluster", "cell_class", "proposed_class", "anchor_cells")


@dataclass(frozen=True)
class Overrides:
    """A checked table of overrides: its file, its rows, and whether they name clusters or cells."""

    path: Path
    table: pd.DataFrame
    of_clusters: bool


def read_overrides(path: Path, markers: MarkerSet) -> Overrides:
    """Read and check a table of overrides.

    Raises
    ------
    UserError
        The file or a column is missing, a class is unknown, or a cell is named twice with different classes.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist. Correct annotation.overrides in the config.")
    table = read_tsv(path, dtype=str).fillna("")
    of_clusters = "anchor_cells" in table
    wanted = _OF_CLUSTERS if of_clusters else _OF_CELLS
    missing = [column for column in wanted if column not in table]
    if missing:
        raise UserError(
            f"{path}: column {missing[0]} is missing. Give either {', '.join(_OF_CELLS)}, or an edited copy of an "
            f"atlas's clusters.tsv with {', '.join(_OF_CLUSTERS)}."
        )
    known = markers.classes.index
    for row, name in enumerate(table["cell_class"]):
        if name not in known:
            raise UserError(
                f"{path}, row {row + 2}, column cell_class: {name!r} is no class. Use one of {', '.join(known)}."
            )
    if not of_clusters:
        doubled = table.drop_duplicates()["cell"].duplicated()
        if doubled.any():
            name = table.drop_duplicates()["cell"][doubled].iloc[0]
            row = int(np.flatnonzero(table["cell"] == name)[-1])
            raise UserError(f"{path}, row {row + 2}, column cell: {name!r} has two classes. Keep one of its rows.")
    return Overrides(path, table, of_clusters)


def overridden(overrides: Overrides, cells: pd.Index, clusters: NDArray[np.object_]) -> pd.Series:
    """The class that the user gives each cell; empty where the user says nothing.

    Parameters
    ----------
    overrides
        See :func:`read_overrides`.
    cells
        Names of the atlas's cells.
    clusters
        Cluster of each of them.

    Raises
    ------
    UserError
        A row matches no cell or cluster of the atlas any more.
    """
    given = pd.Series("", index=cells, dtype=object)
    if not overrides.of_clusters:
        named = overrides.table.drop_duplicates().set_index("cell")["cell_class"]
        unknown = ~overrides.table["cell"].isin(cells)
        if unknown.any():
            row = int(np.flatnonzero(unknown)[0])
            raise UserError(
                f"{overrides.path}, row {row + 2}, column cell: {overrides.table['cell'].iloc[row]!r} is no cell of "
                "this atlas. Cells are named <sample>:<barcode>; take out rows of cells that were filtered."
            )
        given.loc[named.index] = named
        return given
    for row, found in _cluster_of_rows(overrides, cells, clusters).items():
        chosen = overrides.table.iloc[row]
        if chosen["cell_class"] == chosen["proposed_class"]:
            continue
        if not found:
            raise UserError(
                f"{overrides.path}, row {row + 2}, column anchor_cells: no cluster of the atlas is the one that this "
                f"row calls {chosen['cell_class']!r} any more. Look at the new clusters.tsv and edit a copy of that."
            )
        given[np.isin(clusters, found)] = chosen["cell_class"]
    return given


def _cluster_of_rows(overrides: Overrides, cells: pd.Index, clusters: NDArray[np.object_]) -> dict[int, list[str]]:
    """For every row of an edited ``clusters.tsv`` the clusters in which it owns most of the anchors."""
    anchors = overrides.table["anchor_cells"].str.split(",").explode()
    place = cells.get_indexer(pd.Index(anchors))
    known = place >= 0
    owners = pd.crosstab(clusters[place[known]], anchors.index.to_numpy()[known])
    owner_rows = owners.columns.to_numpy(dtype=np.int64)
    rows: dict[int, list[str]] = {row: [] for row in range(len(overrides.table))}
    for cluster, counts in zip(owners.index, owners.to_numpy(), strict=True):
        rows[int(owner_rows[counts.argmax()])].append(str(cluster))
    return rows


def anchor_cells(cells: pd.Index, clusters: NDArray[np.object_], connectivities: sparse.csr_matrix) -> pd.Series:
    """Names of up to :data:`N_ANCHORS` cells of each cluster (index) that are tied to it most, joined by commas."""
    codes, names = pd.factorize(clusters)
    row = np.repeat(np.arange(len(codes)), np.diff(connectivities.indptr))
    within = codes[row] == codes[connectivities.indices]
    tie = np.bincount(row[within], weights=connectivities.data[within], minlength=len(codes))
    order = np.lexsort((np.arange(len(codes)), -tie, codes))
    first = np.searchsorted(codes[order], np.arange(len(names)))
    last = np.append(first[1:], len(order))
    chosen = [
        ",".join(cells[order[begin : min(begin + N_ANCHORS, end)]]) for begin, end in zip(first, last, strict=True)
    ]
    return pd.Series(chosen, index=names)
