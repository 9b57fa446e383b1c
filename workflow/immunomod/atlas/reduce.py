"""From per-sample matrices to one reduced matrix: only the columns of variable and marker genes of all cells.

No more than one block of one sample's matrix is in memory beside the reduced one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from immunomod.atlas.markers import MarkerSet
from immunomod.atlas.variable_genes import SampleGenes, combine_gene_statistics, shared_gene_axes
from immunomod.errors import UserError

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Reduced:
    """Cells of an atlas on its variable and marker genes.

    Attributes
    ----------
    expression
        Log-normalised expression, float32 CSR, cells x kept genes.
    obs
        One row per cell, indexed ``<sample>:<barcode>``: the samples' columns, text as ``str``, missing text ``""``.
    var
        One row per kept gene: ``gene_id``, ``gene_symbol``, ``highly_variable``, ``marker`` and the statistics of
        :func:`~immunomod.atlas.variable_genes.combine_gene_statistics`.
    organism
        ``human`` or ``mouse``.
    """

    expression: sparse.csr_matrix
    obs: pd.DataFrame
    var: pd.DataFrame
    organism: str


def reduce_samples(paths: Sequence[Path], markers: MarkerSet, n_variable_genes: int) -> Reduced:
    """Read the variable and marker genes of all samples, which are put in the order of their names first.

    Raises
    ------
    UserError
        No sample has cells, samples are of several organisms or share no gene, or cell names repeat.
    """
    read = _read_in_order(paths)
    if not read:
        given = ", ".join(str(path) for path in paths) or "no file"
        raise UserError(
            f"No sample of this atlas has a cell that passed quality control (read: {given}). Look at samples/qc.tsv "
            "for the filter that removed them, or take the dataset out of the samples table."
        )
    organism = _organism({obs_organism for _, _, _, obs_organism in read})
    obs = _joined_obs([item[2] for item in read])
    axes = shared_gene_axes([item[1] for item in read])
    table = combine_gene_statistics(axes, n_variable_genes)
    if not table["highly_variable"].any():
        raise UserError("The samples of this atlas share no gene. Check that they use the same gene ids or symbols.")
    is_marker = table["gene_symbol"].isin(markers.symbols(organism))
    kept = table[table["highly_variable"] | is_marker].assign(marker=is_marker)
    blocks = []
    for (path, *_), axis in zip(read, axes, strict=True):
        blocks.append(read_gene_columns(path, _positions(axis, kept.index)))
    return Reduced(sparse.vstack(blocks, format="csr"), obs, kept, organism)


def variable_counts(paths: Sequence[Path], reduced: Reduced) -> sparse.csr_matrix:
    """Raw counts of the variable genes of ``reduced``, float32 CSR: its cells x its ``highly_variable`` genes.

    ``paths``: the files that ``reduced`` came from, in any order. Counts are read from ``layers["counts"]``, a block of
    one sample at a time.
    """
    read = _read_in_order(paths)
    genes = reduced.var.index[reduced.var["highly_variable"].to_numpy(dtype=bool)]
    axes = shared_gene_axes([item[1] for item in read])
    blocks = [
        read_gene_columns(path, _positions(axis, genes), "layers/counts")
        for (path, *_), axis in zip(read, axes, strict=True)
    ]
    return sparse.vstack(blocks, format="csr")


def _read_in_order(paths: Sequence[Path]) -> list[tuple[Path, SampleGenes, pd.DataFrame, str]]:
    """Cells and genes of the samples that have cells, in the order of their names."""
    read = sorted((_read_axes(path) for path in paths), key=lambda item: (item[1].sample, str(item[0])))
    return [item for item in read if item[1].n_cells > 0]


def _positions(axis: SampleGenes, genes: pd.Index) -> NDArray[np.int64]:
    """Columns of a sample's file that hold ``genes``; -1 where it lacks one."""
    position = axis.var.index.get_indexer(genes)
    if "_column" in axis.var:
        position = np.where(position >= 0, axis.var["_column"].to_numpy()[position], -1)
    return np.asarray(position, dtype=np.int64)


def _read_axes(path: Path) -> tuple[Path, SampleGenes, pd.DataFrame, str]:
    import h5py
    from anndata.io import read_elem

    if not path.is_file():
        raise UserError(f"{path} does not exist. Run the sample floor for this sample first.")
    with h5py.File(path, "r") as handle:
        obs, var = read_elem(handle["obs"]), read_elem(handle["var"])
    sample = str(obs["sample"].iloc[0]) if len(obs) else path.parent.name
    dataset = str(obs["dataset"].iloc[0]) if len(obs) and "dataset" in obs else ""
    organism = str(obs["organism"].iloc[0]) if len(obs) and "organism" in obs else ""
    obs = obs.assign(
        **{name: obs[name].astype(str) for name in obs if isinstance(obs[name].dtype, pd.CategoricalDtype)}
    )
    return path, SampleGenes(sample, dataset, var, len(obs)), obs, organism


def _organism(named: set[str]) -> str:
    found = {"human" if name in ("", "nan") else name for name in named}
    if len(found) > 1:
        raise UserError(
            f"This atlas mixes organisms ({', '.join(sorted(found))}); genes of one are not genes of another. "
            "List one atlas per organism under `atlases` in the config."
        )
    return found.pop()


def _joined_obs(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    obs = pd.concat(tables)
    if obs.index.has_duplicates:
        name = obs.index[obs.index.duplicated()][0]
        raise UserError(f"Two cells are both named {name!r}. Give every library its own `sample` in the samples table.")
    for column in obs:
        if obs[column].dtype == object:
            obs[column] = obs[column].where(obs[column].notna(), "").astype(str).replace("nan", "")
    return obs


def read_gene_columns(path: Path, columns: NDArray[np.int64], element: str = "X") -> sparse.csr_matrix:
    """Columns of ``X`` (or of another matrix, ``layers/counts``) of one ``filtered.h5ad``, as float32 CSR (cells x ``len(columns)``).

    ``columns`` are positions in the file's ``var``; -1 stands for a gene that the sample lacks and gives zeros. The
    matrix is read in blocks of rows, the file's other matrices not at all.
    """
    import h5py

    present = columns >= 0
    blocks = [block[:, columns[present]].astype(np.float32) for block in _row_blocks(h5py.File(path, "r"), path, element)]
    found = sparse.vstack(blocks, format="csr") if blocks else sparse.csr_matrix((0, int(present.sum())))
    place = sparse.csr_matrix(
        (np.ones(int(present.sum()), dtype=np.float32), (np.arange(present.sum()), np.flatnonzero(present))),
        shape=(int(present.sum()), len(columns)),
    )
    return sparse.csr_matrix(found @ place, dtype=np.float32)


def _row_blocks(handle, path: Path, element: str) -> Iterator[sparse.csr_matrix]:  # type: ignore[no-untyped-def]
    from anndata.io import sparse_dataset

    with handle:
        if element not in handle:
            raise UserError(f"{path} has no {element}. Write the sample again.")
        group = handle[element]
        is_sparse = hasattr(group, "keys")
        matrix = sparse_dataset(group) if is_sparse else group
        if is_sparse and matrix.format != "csr":
            raise UserError(f"{path}: {element} is stored as {matrix.format}; the atlas reads CSR. Write the sample again.")
        for start in range(0, matrix.shape[0], _ROWS_AT_ONCE):
            yield sparse.csr_matrix(matrix[start : start + _ROWS_AT_ONCE])
