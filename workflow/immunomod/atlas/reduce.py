"""From per-sample matrices to one reduced matrix: only the columns of variable and marker genes of all cells.

No more than one block of one sample's matrix is in memory beside the reduced one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from immunomod.atlas.markers import MarkerSet
from immunomod.atlas.variable_genes import SampleGenes, combine_gene_statistics, shared_gene_axes
from immunomod.errors import UserError
from immunomod.parallel import for_each, row_blocks

if TYPE_CHECKING:
    import h5py

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


def reduce_samples(paths: Sequence[Path], markers: MarkerSet, n_variable_genes: int, threads: int = 1) -> Reduced:
    """Read the variable and marker genes of all samples.

    Samples are put in an order that follows from their cells alone (:func:`_fingerprint`), neither from the order given
    nor from their names, so that whatever depends on the order of cells is the same study's under other names too.

    Raises
    ------
    UserError
        No sample has cells, samples are of several organisms or share no gene, or cell names repeat.
    """
    read = _read_in_order(paths, threads)
    if not read:
        given = ", ".join(str(path) for path in paths) or "no file"
        raise UserError(
            f"No sample of this atlas has a cell that passed quality control (read: {given}). Look at samples/qc.tsv "
            "for the filter that removed them, or take the dataset out of the samples table."
        )
    organism = _organism({one.organism for one in read})
    obs = _joined_obs([one.obs for one in read])
    axes = shared_gene_axes([one.genes for one in read])
    table = combine_gene_statistics(axes, n_variable_genes)
    if not table["highly_variable"].any():
        raise UserError("The samples of this atlas share no gene. Check that they use the same gene ids or symbols.")
    is_marker = table["gene_symbol"].isin(markers.symbols(organism))
    kept = table[table["highly_variable"] | is_marker].assign(marker=is_marker)

    def columns(item: tuple[_Axes, SampleGenes]) -> sparse.csr_matrix:
        one, genes = item
        return read_gene_columns(one.path, _positions(genes, kept.index))

    blocks = for_each(list(zip(read, axes, strict=True)), columns, threads)
    return Reduced(_stacked(blocks, len(kept)), obs, kept, organism)


def variable_counts(paths: Sequence[Path], reduced: Reduced, threads: int = 1) -> sparse.csr_matrix:
    """Raw counts of the variable genes of ``reduced``, float32 CSR: its cells x its ``highly_variable`` genes.

    ``paths``: the files that ``reduced`` came from, in any order. Counts are read from ``layers["counts"]``.
    """
    read = _read_in_order(paths, threads)
    wanted = reduced.var.index[reduced.var["highly_variable"].to_numpy(dtype=bool)]
    axes = shared_gene_axes([one.genes for one in read])

    def columns(item: tuple[_Axes, SampleGenes]) -> sparse.csr_matrix:
        one, genes = item
        return read_gene_columns(one.path, _positions(genes, wanted), "layers/counts")

    return _stacked(for_each(list(zip(read, axes, strict=True)), columns, threads), len(wanted))


def _positions(genes: SampleGenes, wanted: pd.Index) -> NDArray[np.int64]:
    """Columns of a sample's file that hold the genes ``wanted``; -1 where it lacks one."""
    position = genes.var.index.get_indexer(wanted)
    if "_column" in genes.var:
        position = np.where(position >= 0, genes.var["_column"].to_numpy()[position], -1)
    return np.asarray(position, dtype=np.int64)


@dataclass(frozen=True)
class _Axes:
    """What is read of a sample before its matrix."""

    path: Path
    genes: SampleGenes
    obs: pd.DataFrame
    organism: str
    fingerprint: str


def _read_in_order(paths: Sequence[Path], threads: int) -> list[_Axes]:
    """Cells and genes of the samples that have cells, in the order of their fingerprints."""
    read = sorted(for_each(list(paths), _read_axes, threads), key=lambda one: (one.fingerprint, one.genes.sample))
    return [one for one in read if one.genes.n_cells > 0]


def _read_axes(path: Path) -> _Axes:
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
    return _Axes(path, SampleGenes(sample, dataset, var, len(obs)), obs, organism, _fingerprint(obs))


def _fingerprint(obs: pd.DataFrame) -> str:
    """A digest of a sample's cells: their barcodes and total counts, as far as the table has them."""
    digest = hashlib.sha256(str(len(obs)).encode())
    for name in ("barcode", "total_counts"):
        if name in obs:
            digest.update("\n".join(map(str, obs[name])).encode())
    return digest.hexdigest()


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
    """Columns of a matrix of one ``filtered.h5ad``, as float32 CSR (cells x ``len(columns)``), sorted within rows.

    ``columns`` are positions in the file's ``var``; -1 stands for a gene that the sample lacks and gives zeros. The
    matrix (``X``, or the ``element`` named) is read in blocks of rows, the others not at all.
    """
    import h5py

    with h5py.File(path, "r") as handle:
        if element not in handle:
            raise UserError(f"{path} has no {element}. Write the sample again.")
        group = handle[element]
        if not isinstance(group, h5py.Group):
            return _kept_columns_of_dense(group, columns)
        if group.attrs["encoding-type"] != "csr_matrix":
            stored = group.attrs["encoding-type"]
            raise UserError(f"{path}: {element} is stored as {stored}; the atlas reads CSR. Write the sample again.")
        place = np.full(int(group.attrs["shape"][1]), -1, dtype=np.int32)
        place[columns[columns >= 0]] = np.flatnonzero(columns >= 0)
        indptr = np.asarray(group["indptr"][:], dtype=np.int64)
        blocks = [
            _kept_columns(group, indptr[rows.start : rows.stop + 1], place, len(columns))
            for rows in row_blocks(len(indptr) - 1, _ROWS_AT_ONCE)
        ]
    return _stacked(blocks, len(columns))


def _kept_columns(
    group: h5py.Group, indptr: NDArray[np.int64], place: NDArray[np.int32], n_columns: int
) -> sparse.csr_matrix:
    from immunomod.atlas.reduce_kernel import keep_columns

    entries = slice(int(indptr[0]), int(indptr[-1]))
    indices, data = group["indices"][entries], group["data"][entries].astype(np.float32, copy=False)
    kept = np.zeros(len(indptr), dtype=np.int64)
    kept_indices, kept_data = np.empty(len(indices), dtype=np.int32), np.empty(len(indices), dtype=np.float32)
    keep_columns(indptr - indptr[0], indices, data, place, kept, kept_indices, kept_data)
    n_kept = int(kept[-1])
    shape = (len(indptr) - 1, n_columns)
    return sparse.csr_matrix((kept_data[:n_kept].copy(), kept_indices[:n_kept].copy(), kept), shape=shape)


def _kept_columns_of_dense(matrix: h5py.Dataset, columns: NDArray[np.int64]) -> sparse.csr_matrix:
    blocks = []
    for rows in row_blocks(matrix.shape[0], _ROWS_AT_ONCE):
        block = np.asarray(matrix[rows], dtype=np.float32)
        blocks.append(sparse.csr_matrix(np.where(columns >= 0, block[:, columns], 0)))
    return _stacked(blocks, len(columns))


def _stacked(blocks: Sequence[sparse.csr_matrix], n_columns: int) -> sparse.csr_matrix:
    if not blocks:
        return sparse.csr_matrix((0, n_columns), dtype=np.float32)
    return sparse.csr_matrix(sparse.vstack(blocks, format="csr"), dtype=np.float32)
