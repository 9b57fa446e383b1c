"""The atlas file with all genes of all cells, for CELLxGENE and other programs, written without ever holding it.

The samples' matrices pass through in blocks of rows. What is in memory beside the table of cells and the coordinates
is a few blocks and the chunks that wait for their compression.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from immunomod.atlas.compressed import GrowingArray
from immunomod.atlas.sample_files import COUNTS, EXPRESSION, RowReader, Rows, SampleFile, gene_table, open_samples
from immunomod.errors import UserError
from immunomod.files import seal
from immunomod.parallel import in_background, row_blocks

if TYPE_CHECKING:
    import h5py
    from anndata import AnnData

# Few enough that the two matrices' chunks are made side by side.
_ROWS_AT_ONCE = 256
_LARGEST_COUNT = np.iinfo(np.int32).max


class AtlasFile:
    """An h5ad file whose matrices are written while the rest of the atlas is still being made.

    Nothing in ``X`` and the counts depends on clusters or names, so a process of its own streams them from the samples'
    files into a file beside the final one. :meth:`finish` adds the rest and gives the file its name.

    Parameters
    ----------
    samples
        In the order of the atlas's cells.
    path
        The final h5ad file: ``X`` log(1 + counts per 10,000), float32 CSR; ``layers["counts"]`` int32 CSR; 64-bit
        ``indptr``; both compressed as HDF5's own gzip does.
    threads
        For the compression; what is stored does not depend on it. With one, everything is written at the end.
    """

    def __init__(self, samples: Sequence[SampleFile], path: Path, threads: int = 1) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = path.with_name(f".{uuid.uuid4().hex}.{path.name}")
        self._samples = samples
        self._genes = gene_table(sorted(samples, key=lambda sample: sample.rank))
        self._threads = threads
        self._is_at_work = threads > 1
        self._wait = in_background(self._write_matrices, threads)

    def finish(self, atlas: AnnData) -> None:
        """Add everything but the matrices, and give the file its name.

        ``atlas``: ``obs``, ``obsm``, ``varm``, ``obsp`` and ``uns`` as they shall stand in the file; ``X`` and layers
        are not looked at. Text about cells becomes categorical. ``var`` may list some of the genes: what it says of
        them is kept, other genes have ``False``, missing or empty. The file's lists the genes of any sample:
        ``gene_id``, ``gene_symbol``, ``n_samples`` (whose files list the gene: elsewhere it was not looked for, and its
        zeros mean nothing), ``feature_is_filtered`` (as CELLxGENE has it: no gene is left out of ``X``).

        Raises
        ------
        UserError
            A sample's counts are none.
        ValueError
            The cells of the atlas are not those of the samples.
        """
        import h5py
        from anndata.io import write_elem

        try:
            _check_cells(atlas, self._samples)
            frame = _frame(atlas, _gene_columns(atlas, self._genes))
            self._is_at_work = False
            self._wait()
            with h5py.File(self._temporary, "r+") as file:
                file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
                file["layers"].attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})
                for name in ("obs", "var", "obsm", "varm", "obsp", "varp", "uns"):
                    stored = getattr(frame, name)
                    write_elem(file, name, stored if name in ("obs", "var") else dict(stored))
            seal(self._temporary)
            with self._temporary.open("rb+") as handle:
                os.fsync(handle.fileno())
            self._temporary.replace(self.path)
        finally:
            self.discard()

    def discard(self) -> None:
        """Delete what was written under no name yet, once nobody writes there any more."""
        if self._is_at_work:
            self._is_at_work = False
            with suppress(Exception):
                self._wait()
        self._temporary.unlink(missing_ok=True)

    def _write_matrices(self) -> None:
        import h5py

        shape = (sum(len(sample.cells) for sample in self._samples), len(self._genes))
        with h5py.File(self._temporary, "w") as file, ThreadPoolExecutor(self._threads) as pool:
            expression = _GrowingMatrix(file, EXPRESSION, np.float32, shape, pool)
            counts = _GrowingMatrix(file, COUNTS, np.int32, shape, pool, expression)
            for sample in self._samples:
                _append_sample(sample, self._genes.index, expression, counts)
            expression.close()
            counts.close()


def write_atlas(atlas: AnnData, sample_paths: Sequence[Path], path: Path, threads: int = 1) -> None:
    """Write ``atlas`` with the expression and counts of all genes of its samples; see :class:`AtlasFile`."""
    samples = open_samples(sample_paths, threads)
    first = atlas.obs_names.get_indexer([sample.cells[0] for sample in samples])
    ordered = [samples[position] for position in np.argsort(first, kind="stable")]
    _check_cells(atlas, ordered)
    AtlasFile(ordered, path, threads).finish(atlas)


def _check_cells(atlas: AnnData, samples: Sequence[SampleFile]) -> None:
    """The cells of the atlas are those of the samples, in their order."""
    start = 0
    for sample in samples:
        stop = start + len(sample.cells)
        if not sample.cells.equals(atlas.obs_names[start:stop].astype(object)):
            raise ValueError(f"cells {start} to {stop} of the atlas are not those of {sample.path}, in its order")
        start = stop
    if start != atlas.n_obs:
        raise ValueError(f"{atlas.n_obs - start} cells of the atlas are in no sample")


# --- tables ----------------------------------------------------------------------------------------------------------


def _gene_columns(atlas: AnnData, genes: pd.DataFrame) -> pd.DataFrame:
    """All genes, with what the atlas says of some."""
    unknown = atlas.var_names.difference(genes.index)
    if len(unknown):
        raise ValueError(f"gene {unknown[0]!r} of the atlas is in no sample")
    genes = genes.assign(feature_is_filtered=False)
    for name in atlas.var:
        if name in genes:
            continue
        values = atlas.var[name].reindex(genes.index)
        if atlas.var[name].dtype == bool:
            values = values.eq(True)
        elif not pd.api.types.is_numeric_dtype(atlas.var[name]):
            values = values.astype(object).where(values.notna(), "").astype(str)
        genes[name] = values
    return genes


def _frame(atlas: AnnData, genes: pd.DataFrame) -> AnnData:
    """Everything but the matrices."""
    from anndata import AnnData

    obs = atlas.obs.copy()
    for name in obs:
        if obs[name].dtype == object or pd.api.types.is_string_dtype(obs[name]):
            text = obs[name].astype(object).where(obs[name].notna(), "").astype(str)
            # a text that is another one for each cell is no category
            obs[name] = text if text.is_unique and len(text) > 1 else pd.Categorical(text)
    frame = AnnData(obs=obs, var=genes, uns=dict(atlas.uns), obsm=dict(atlas.obsm), obsp=dict(atlas.obsp))
    places = genes.index.get_indexer(atlas.var_names)
    for name, values in atlas.varm.items():
        values = np.asarray(values)
        filled = np.zeros((len(genes), *values.shape[1:]), dtype=values.dtype)
        filled[places] = values
        frame.varm[name] = filled
    return frame


# --- matrices --------------------------------------------------------------------------------------------------------


class _GrowingMatrix:
    """A CSR matrix in an h5ad file, to which rows are appended."""

    def __init__(
        self,
        file: h5py.File,
        name: str,
        dtype: Any,
        shape: tuple[int, int],
        pool: ThreadPoolExecutor,
        twin: _GrowingMatrix | None = None,
    ) -> None:
        self._group = file.create_group(name)
        self._group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
        self._group.attrs["shape"] = np.asarray(shape, dtype=np.int64)
        self._indices: GrowingArray = GrowingArray(
            self._group, "indices", np.int32, pool, None if twin is None else twin._indices
        )
        self._data = GrowingArray(self._group, "data", dtype, pool)
        self._ends: list[NDArray[np.int64]] = [np.zeros(1, dtype=np.int64)]

    def append(self, rows: Rows) -> None:
        self._ends.append(rows.indptr[1:] + self._indices.size)
        self._indices.append(rows.indices)
        self._data.append(rows.data)

    def close(self) -> None:
        self._indices.close()
        self._data.close()
        self._group.create_dataset("indptr", data=np.concatenate(self._ends), compression="gzip", shuffle=True)


def _append_sample(sample: SampleFile, axis: pd.Index, expression: _GrowingMatrix, counts: _GrowingMatrix) -> None:
    import h5py

    places = sample.places(axis).astype(np.int32)
    with h5py.File(sample.path, "r") as file:
        readers = RowReader(file, EXPRESSION), RowReader(file, COUNTS)
        for reader in readers:
            if reader.shape != (len(sample.cells), sample.n_columns):
                raise UserError(f"{sample.path}: its matrices differ in shape. Run the sample floor for it again.")
        for block in row_blocks(len(sample.cells), _ROWS_AT_ONCE):
            expression.append(_moved(readers[0].rows(block), places))
            found = _moved(readers[1].rows(block), places)
            counts.append(Rows(found.start, found.indptr, found.indices, _whole(found.data, sample)))


def _whole(values: NDArray[Any], sample: SampleFile) -> NDArray[np.int32]:
    if values.dtype == np.int32:
        return values
    with np.errstate(invalid="ignore"):
        whole = values.astype(np.int32)
    if not np.array_equal(whole, values):
        raise UserError(
            f"{sample.path}: layers/counts holds values that are no whole numbers up to {_LARGEST_COUNT:,}. "
            "Run the sample floor for this sample again."
        )
    return whole


def _moved(rows: Rows, places: NDArray[np.int32]) -> Rows:
    """Rows on the atlas's genes: columns at their ``places``, without those that have none, sorted."""
    steps = np.diff(places)
    if len(places) and places[0] == 0 and (steps == 1).all():
        return rows
    indices, data, indptr = places[rows.indices], rows.data, rows.indptr
    if (places < 0).any():
        kept = indices >= 0
        before = np.concatenate([[0], np.cumsum(kept)])
        indices, data, indptr = indices[kept], data[kept], before[indptr]
    if (np.diff(places[places >= 0]) < 0).any():
        block = sparse.csr_matrix((data, indices, indptr), shape=(len(indptr) - 1, int(places.max()) + 1))
        block.sort_indices()
        indices, data = block.indices, block.data
    return Rows(rows.start, indptr.astype(np.int64), indices.astype(np.int32, copy=False), data)
