"""From per-sample matrices to one reduced matrix: only the columns of variable and marker genes of all cells.

No more than one block of one sample's matrix is in memory beside the reduced one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from immunomod.atlas.markers import MarkerSet
from immunomod.atlas.sample_files import SampleFile, open_samples
from immunomod.atlas.variable_genes import combine_gene_statistics
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
    genes
        As ``var``, for all genes of the samples (their union).
    samples
        The samples whose cells these are, in the order of their cells.
    """

    expression: sparse.csr_matrix
    obs: pd.DataFrame
    var: pd.DataFrame
    organism: str
    genes: pd.DataFrame
    samples: tuple[SampleFile, ...]


def reduce_samples(paths: Sequence[Path], markers: MarkerSet, n_variable_genes: int, threads: int = 1) -> Reduced:
    """Read the variable and marker genes of all samples.

    They stand in the order of :func:`~immunomod.atlas.sample_files.open_samples`.

    Raises
    ------
    UserError
        No sample has cells, samples are of several organisms or share no gene, or cell names repeat.
    """
    samples = open_samples(paths, threads)
    tables = for_each([sample.path for sample in samples], _read_obs, threads)
    organism = _organism({str(obs["organism"].iloc[0]) if "organism" in obs else "" for obs in tables})
    obs = _joined_obs(tables)
    axes = [sample.axis for sample in samples]
    table = combine_gene_statistics(axes, n_variable_genes)
    if not table["highly_variable"].any():
        raise UserError("The samples of this atlas share no gene. Check that they use the same gene ids or symbols.")
    is_marker = table["gene_symbol"].isin(markers.symbols(organism))
    table = table.assign(marker=is_marker)
    is_kept = (table["highly_variable"] | is_marker).to_numpy(dtype=bool)
    place = np.where(is_kept, np.cumsum(is_kept) - 1, -1)
    n_kept = int(is_kept.sum())

    def columns(file: SampleFile) -> sparse.csr_matrix:
        gene = file.places(table.index)
        return read_gene_columns(file.path, np.where(gene >= 0, place[gene], -1), n_kept)

    expression = _stacked(for_each(samples, columns, threads), n_kept)
    return Reduced(expression, obs, table[is_kept].copy(), organism, table, tuple(samples))


def variable_counts(reduced: Reduced, threads: int = 1) -> sparse.csr_matrix:
    """Raw counts, float32 CSR: the cells of ``reduced`` x its ``highly_variable`` genes, in the order of both.

    Read from ``layers["counts"]`` of the samples' files.
    """
    is_kept = reduced.genes["highly_variable"].to_numpy(dtype=bool)
    place = np.where(is_kept, np.cumsum(is_kept) - 1, -1)
    n_kept = int(is_kept.sum())

    def columns(file: SampleFile) -> sparse.csr_matrix:
        gene = file.places(reduced.genes.index)
        return read_gene_columns(file.path, np.where(gene >= 0, place[gene], -1), n_kept, "layers/counts")

    return _stacked(for_each(reduced.samples, columns, threads), n_kept)


def _read_obs(path: Path) -> pd.DataFrame:
    import h5py
    from anndata.io import read_elem

    with h5py.File(path, "r") as handle:
        obs: pd.DataFrame = read_elem(handle["obs"])
    categories = obs.select_dtypes("category").columns
    return obs.assign(**{str(name): obs[name].astype(str) for name in categories})


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
    for column in obs:
        if obs[column].dtype == object:
            obs[column] = obs[column].where(obs[column].notna(), "").astype(str).replace("nan", "")
    return obs


def read_gene_columns(path: Path, place: NDArray[np.int64], n_kept: int, layer: str = "X") -> sparse.csr_matrix:
    """Some columns of a matrix of one ``filtered.h5ad``, as float32 CSR (cells x ``n_kept``), sorted within rows.

    ``place`` is where each column of the file goes; -1 leaves it out, and places that no column goes to are zero. The
    file's ``layer`` (``X``, ``layers/counts``) is read in blocks of rows, nothing else of it at all.
    """
    import h5py

    with h5py.File(path, "r") as handle:
        group = handle[layer]
        if not isinstance(group, h5py.Group):
            return _kept_columns_of_dense(group, place, n_kept)
        indptr = csr_pointers(group, path)
        blocks = [
            _kept_columns(group, indptr[rows.start : rows.stop + 1], place.astype(np.int32), n_kept)
            for rows in row_blocks(len(indptr) - 1, _ROWS_AT_ONCE)
        ]
    return _stacked(blocks, n_kept)


def csr_pointers(group: h5py.Group, path: Path) -> NDArray[np.int64]:
    """``indptr`` of a stored sparse matrix, which has to be CSR."""
    stored = str(group.attrs["encoding-type"])
    if stored != "csr_matrix":
        raise UserError(f"{path}: {group.name} is stored as {stored}; the atlas reads CSR. Write the sample again.")
    return np.asarray(group["indptr"][:], dtype=np.int64)


def _kept_columns(
    group: h5py.Group, indptr: NDArray[np.int64], place: NDArray[np.int32], n_kept: int
) -> sparse.csr_matrix:
    from immunomod.atlas.reduce_kernel import keep_columns

    entries = slice(int(indptr[0]), int(indptr[-1]))
    indices = group["indices"][entries].astype(np.int32, copy=False)
    data = group["data"][entries].astype(np.float32, copy=False)
    kept = np.zeros(len(indptr), dtype=np.int64)
    kept_indices, kept_data = np.empty(len(indices), dtype=np.int32), np.empty(len(indices), dtype=np.float32)
    keep_columns(indptr - indptr[0], indices, data, place, kept, kept_indices, kept_data)
    stop = int(kept[-1])
    return sparse.csr_matrix(
        (kept_data[:stop].copy(), kept_indices[:stop].copy(), kept), shape=(len(indptr) - 1, n_kept)
    )


def _kept_columns_of_dense(matrix: h5py.Dataset, place: NDArray[np.int64], n_kept: int) -> sparse.csr_matrix:
    blocks, columns = [], np.flatnonzero(place >= 0)
    for rows in row_blocks(matrix.shape[0], _ROWS_AT_ONCE):
        block = np.zeros((rows.stop - rows.start, n_kept), dtype=np.float32)
        block[:, place[columns]] = np.asarray(matrix[rows])[:, columns]
        blocks.append(sparse.csr_matrix(block))
    return _stacked(blocks, n_kept)


def _stacked(blocks: Sequence[sparse.csr_matrix], n_columns: int) -> sparse.csr_matrix:
    if not blocks:
        return sparse.csr_matrix((0, n_columns), dtype=np.float32)
    return sparse.csr_matrix(sparse.vstack(blocks, format="csr"), dtype=np.float32)
