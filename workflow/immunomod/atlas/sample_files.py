"""The samples' ``filtered.h5ad`` as the atlas streams them: names first, then rows of one matrix at a time.

Whatever goes over all genes of all cells (marker genes, the atlas file) reads through here, so that no more than one
block of rows per thread is in memory and the samples stand in an order that follows from their cells alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from immunomod.atlas.variable_genes import SampleGenes, shared_gene_axes
from immunomod.errors import UserError
from immunomod.parallel import for_each

if TYPE_CHECKING:
    import h5py

#: Rows read at once: about 8 million entries of a cell with 2,000 detected genes.
ROWS_AT_ONCE = 4096
EXPRESSION, COUNTS = "X", "layers/counts"


@dataclass(frozen=True)
class SampleFile:
    """One sample on the atlas's naming of genes.

    Attributes
    ----------
    path
        Its ``filtered.h5ad``.
    rank
        Its place in the order that follows from the samples' cells.
    cells
        Names of its cells, in the order of its rows.
    axis
        Its genes, by the names by which they are matched across samples, with their statistics.
    columns
        Where the genes of ``axis`` stand in its matrices; a gene that another one of the same symbol stands for is in
        neither.
    n_columns
        Columns of its matrices.
    """

    path: Path
    rank: int
    cells: pd.Index
    axis: SampleGenes
    columns: NDArray[np.int64]
    n_columns: int

    @property
    def sample(self) -> str:
        """Its name."""
        return self.axis.sample

    @property
    def genes(self) -> pd.Index:
        """Names of its genes."""
        return self.axis.var.index.astype(str)

    @property
    def var(self) -> pd.DataFrame:
        """``gene_id`` and ``gene_symbol`` of its genes."""
        return self.axis.var.reindex(columns=["gene_id", "gene_symbol"])

    def places(self, axis: pd.Index) -> NDArray[np.int64]:
        """For every column of the sample's matrices its place in ``axis``; -1 for one that has none."""
        places = np.full(self.n_columns, -1, dtype=np.int64)
        places[self.columns] = axis.get_indexer(self.genes)
        return places


def open_samples(paths: Sequence[Path], threads: int = 1) -> list[SampleFile]:
    """Names of the cells and genes of all samples that have cells.

    Their order follows from their cells alone, neither from the order given nor from their names, so that whatever
    depends on the order of cells is the same study's under other names too.

    Raises
    ------
    UserError
        A file is missing, names a gene twice, or no sample has a cell; a cell stands in two samples.
    """
    found = sorted(for_each([Path(path) for path in paths], _read_names, threads), key=lambda one: one[:2])
    found = [one for one in found if len(one[3])]
    if not found:
        given = ", ".join(str(path) for path in paths) or "no file"
        raise UserError(
            f"No sample of this atlas has a cell that passed quality control (read: {given}). Look at samples/qc.tsv "
            "for the filter that removed them, or take the dataset out of the samples table."
        )
    axes = shared_gene_axes([genes for _, _, _, _, genes in found])
    samples = []
    for rank, ((_, _, path, cells, genes), axis) in enumerate(zip(found, axes, strict=True)):
        if axis.var.index.has_duplicates:
            gene = axis.var.index[axis.var.index.duplicated()][0]
            raise UserError(f"{path}: var names the gene {gene!r} twice. Run the sample floor for this sample again.")
        columns = axis.var["_column"] if "_column" in axis.var else pd.Series(np.arange(len(axis.var)))
        samples.append(SampleFile(path, rank, cells, axis, columns.to_numpy(dtype=np.int64), len(genes.var)))
    _refuse_repeated_cells(samples)
    return samples


def gene_table(samples: Sequence[SampleFile]) -> pd.DataFrame:
    """All genes of the samples (index), in the order in which the samples name them: ``gene_id``, ``gene_symbol`` and
    ``n_samples``, the number of samples whose files list the gene."""
    names = pd.concat([sample.var.set_axis(sample.genes) for sample in samples])
    table = names[~names.index.duplicated()].copy()
    table["gene_id"] = table["gene_id"].astype(object).where(table["gene_id"].notna(), "").astype(str)
    symbols = table["gene_symbol"].astype(object)
    table["gene_symbol"] = symbols.where(symbols.notna(), table.index.to_series()).astype(str)
    table["n_samples"] = names.index.value_counts().reindex(table.index).to_numpy()
    return table


def _refuse_repeated_cells(samples: Sequence[SampleFile]) -> None:
    cells = samples[0].cells.append([sample.cells for sample in samples[1:]])
    if cells.has_duplicates:
        name = cells[cells.duplicated()][0]
        raise UserError(f"Two cells are both named {name!r}. Give every library its own `sample` in the samples table.")


def _read_names(path: Path) -> tuple[str, str, Path, pd.Index, SampleGenes]:
    import h5py
    from anndata.io import read_elem

    if not path.is_file():
        raise UserError(f"{path} does not exist. Run the sample floor for this sample first.")
    with h5py.File(path, "r") as file:
        obs = file["obs"]
        cells = pd.Index(np.asarray(read_elem(obs[obs.attrs["_index"]]), dtype=object).astype(str), dtype=object)
        wanted = {
            name: np.asarray(read_elem(obs[name]))
            for name in ("sample", "dataset", "barcode", "total_counts")
            if name in obs
        }
        var: pd.DataFrame = read_elem(file["var"])
    sample = str(wanted["sample"][0]) if "sample" in wanted and len(cells) else path.parent.name
    dataset = str(wanted["dataset"][0]) if "dataset" in wanted and len(cells) else ""
    digest = hashlib.sha256(str(len(cells)).encode())
    for name in ("barcode", "total_counts"):
        if name in wanted:
            digest.update("\n".join(map(str, wanted[name])).encode())
    return digest.hexdigest(), sample, path, cells, SampleGenes(sample, dataset, var, len(cells))


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of a sparse matrix: ``indptr`` (int64) starts at 0, ``indices`` int32, ``data`` as stored."""

    start: int
    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    data: NDArray[Any]


class RowReader:
    """Rows of one matrix of one sample (``X`` or a layer), CSR or dense, read where they are asked for.

    Raises
    ------
    UserError
        The file lacks the matrix, or it is stored by columns.
    """

    def __init__(self, file: h5py.File, matrix: str) -> None:
        import h5py

        if matrix not in file:
            raise UserError(f"{file.filename}: {matrix} is missing. Run the sample floor for this sample again.")
        self._stored = file[matrix]
        self._sparse = isinstance(self._stored, h5py.Group)
        if self._sparse:
            encoding = self._stored.attrs["encoding-type"]
            if encoding != "csr_matrix":
                raise UserError(f"{file.filename}: {matrix} is stored as {encoding}; the atlas reads CSR. "
                                "Write the sample again.")  # fmt: skip
            self.shape = tuple(int(length) for length in self._stored.attrs["shape"])
            self._indptr = np.asarray(self._stored["indptr"][:], dtype=np.int64)
        else:
            self.shape = self._stored.shape

    @property
    def n_stored(self) -> int:
        """Stored entries; at most, for a dense matrix."""
        return int(self._indptr[-1]) if self._sparse else int(np.prod(self.shape))

    def column_indices(self, rows: slice) -> NDArray[np.int32]:
        """Columns of the stored entries of ``rows``; of a sparse matrix nothing else is read."""
        if not self._sparse:
            return self.rows(rows).indices
        first, last = int(self._indptr[rows.start]), int(self._indptr[rows.stop])
        return np.asarray(self._stored["indices"][first:last], dtype=np.int32)

    def rows(self, rows: slice) -> Rows:
        """The stored entries of ``rows``."""
        if not self._sparse:
            from scipy import sparse

            block = sparse.csr_matrix(self._stored[rows])
            return Rows(rows.start, block.indptr.astype(np.int64), block.indices.astype(np.int32), block.data)
        first, last = int(self._indptr[rows.start]), int(self._indptr[rows.stop])
        data = np.asarray(self._stored["data"][first:last])
        return Rows(rows.start, self._indptr[rows.start : rows.stop + 1] - first, self.column_indices(rows), data)
