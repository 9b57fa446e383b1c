"""AnnData files, a lab's own or an author's: the raw counts are looked for where people keep them.

Only what is needed is read, by HDF5's own calls: nothing in the file is run, and a matrix of normalised values beside
the counts costs no memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from immunomod.errors import UserError
from immunomod.sample.readers.arrays import checked_csr, csr_of_blocks, slices
from immunomod.sample.readers.features import FEATURE_TYPES, is_ensembl
from immunomod.sample.readers.frames import Frame, as_text
from immunomod.sample.readers.hdf5 import dataset, has_dataset, member, names, open_hdf5, read_numbers, subgroup
from immunomod.sample.readers.library import Layout, LibraryCounts, LibraryFiles, LibraryHead
from immunomod.sample.readers.places import (
    SAMPLED_CELLS,
    Choice,
    Place,
    all_counts,
    begins_with_counts,
    choose,
    count_names,
)
from immunomod.sample.readers.sniff import Kind, SniffedFile

_ID_COLUMNS = ("gene_id", "gene_ids", "ensembl_id", "ensembl_ids", "ensembl", "feature_id", "accession")
_SYMBOL_COLUMNS = (
    "gene_symbol", "gene_symbols", "gene_name", "gene_names", "feature_name", "symbol", "symbols", "gene_short_name",
)  # fmt: skip
_TYPE_COLUMNS = ("feature_types", "feature_type")
_USEFUL = re.compile(
    r"donor|patient|subject|individual|sample|lane|batch|cell.?type|annotation|label|doublet|demux|hashtag|hto",
    re.IGNORECASE,
)
_BLOCK_BYTES = 16 << 20
_PEEKED_BARCODES = 1_000_000
_ADVICE = 'store the integer counts in layers["counts"], or give the file that holds them'


def table_features(index: np.ndarray, find: Callable[[tuple[str, ...]], np.ndarray | None]) -> pd.DataFrame:
    """Ids, symbols, types and genomes of features from a table: its row names, and a finder of its columns.

    A column of types counts only where one of its values is CellRanger's: others call the biotype so.
    """
    index_names = pd.Series(index.astype(str), dtype=object)
    named_by_id = bool(len(index_names)) and float(is_ensembl(index_names).mean()) > 0.5
    gene_id, gene_symbol, kind = (find(columns) for columns in (_ID_COLUMNS, _SYMBOL_COLUMNS, _TYPE_COLUMNS))
    if gene_id is None and named_by_id:
        gene_id = index_names.to_numpy()
    if gene_symbol is None and not named_by_id:
        gene_symbol = index_names.to_numpy()
    if kind is not None and not FEATURE_TYPES & set(kind):
        kind = None
    features = pd.DataFrame(
        {
            "gene_id": "" if gene_id is None else gene_id,
            "gene_symbol": "" if gene_symbol is None else gene_symbol,
            "feature_type": "" if kind is None else kind,
        },
        index=pd.RangeIndex(len(index_names)),
        dtype=object,
    )
    genome = find(("genome",))
    if genome is not None and len(set(genome) - {""}) > 1:
        features["genome"] = genome
    return features


def dense_place(name: str, values: h5py.Dataset, features: pd.DataFrame, cell_axis: int) -> Place:
    """A dense matrix in HDF5, read a block of cells at a time (``cell_axis`` 0: cells are rows)."""
    n_cells, n_features = values.shape[cell_axis], values.shape[1 - cell_axis]
    step = max(1, _BLOCK_BYTES // max(1, n_features * values.dtype.itemsize))
    if values.chunks:
        step = max(step - step % values.chunks[cell_axis], min(step, values.chunks[cell_axis]))

    def blocks(last: int) -> Iterator[np.ndarray]:
        for part in slices(last, step):
            yield values[part] if cell_axis == 0 else values[:, part].T

    return Place(
        name=name,
        features=features,
        n_cells=n_cells,
        values=lambda: (block.ravel() for block in blocks(n_cells)),
        sample=lambda: csr_of_blocks(blocks(min(n_cells, SAMPLED_CELLS)), n_features),
        read=lambda: csr_of_blocks(blocks(n_cells), n_features),
    )


def _declared(group: h5py.Group) -> tuple[int, ...]:
    return tuple(int(size) for size in group.attrs.get("shape", group.attrs.get("h5sparse_shape", ())))


def _sparse_place(name: str, group: h5py.Group, features: pd.DataFrame, matrix: SniffedFile) -> Place:
    layout = as_text(group.attrs.get("encoding-type", group.attrs.get("h5sparse_format", ""))).removesuffix("_matrix")
    shape = _declared(group)
    if layout not in ("csr", "csc") or len(shape) != 2:
        raise UserError(f"{matrix.path}: {name} is no matrix that can be read (encoding {layout or 'unknown'})")
    where = f"{matrix.path}: {name}"
    data = dataset(group, "data")
    if data.ndim != 1 or data.dtype.kind not in "iufb":
        raise UserError(f"{where} holds no numbers")

    def parts(last: int) -> sparse.csr_matrix:
        """The first ``last`` rows (of a CSC matrix: columns)."""
        indptr = dataset(group, "indptr")
        if last < shape[0]:
            starts = np.asarray(indptr[: last + 1])
            end = int(starts[-1]) if starts.size else 0
            if not 0 <= end <= data.shape[0]:
                raise UserError(f"{where}: the sparse matrix contradicts itself; fetch or write the file again")
            columns = np.asarray(dataset(group, "indices")[:end])
            return checked_csr(np.asarray(data[:end]), columns, starts, (last, shape[1]), where)
        values, indices, pointers = (read_numbers(dataset(group, one)) for one in ("data", "indices", "indptr"))
        if layout == "csr":
            return checked_csr(values, indices, pointers, (shape[0], shape[1]), where)
        columns_first = checked_csr(values, indices, pointers, (shape[1], shape[0]), where)
        return sparse.csr_matrix(columns_first.T)

    def sample() -> sparse.csr_matrix:
        return parts(min(shape[0], SAMPLED_CELLS) if layout == "csr" else shape[0])

    return Place(
        name=name,
        features=features,
        n_cells=shape[0],
        values=lambda: (data[part] for part in slices(int(data.shape[0]))),
        sample=sample,
        read=lambda: parts(shape[0]),
    )


def _place(
    name: str, parent: h5py.Group, key: str, features: pd.DataFrame, n_cells: int, matrix: SniffedFile
) -> Place | None:
    """The matrix ``key`` of ``parent``, or None where there is none (an AnnData may have no X)."""
    found = member(parent, key)
    if isinstance(found, h5py.Group) and has_dataset(found, "data"):
        place = _sparse_place(name, found, features, matrix)
        shape = _declared(found)
    elif isinstance(found, h5py.Dataset) and found.ndim == 2:
        values = dataset(parent, key)
        if values.dtype.kind not in "iufb":
            raise UserError(f"{matrix.path}: {name} holds no numbers")
        place, shape = dense_place(name, values, features, cell_axis=0), values.shape
    else:
        return None
    if shape != (n_cells, len(features)):
        raise UserError(
            f"{matrix.path}: {name} is {shape[0]:,} x {shape[1]:,} where its tables name {n_cells:,} cells and "
            f"{len(features):,} features; write the file again"
        )
    return place


def _places(handle: h5py.File, n_cells: int, matrix: SniffedFile) -> list[Place]:
    var = Frame(handle, "var")
    features = table_features(var.index(), var.find)
    found: list[Place | None] = []
    layers = subgroup(handle, "layers")
    if layers is not None:
        for name in count_names(names(layers)):
            found.append(_place(f'layers["{name}"]', layers, name, features, n_cells, matrix))
    found.append(_place("X", handle, "X", features, n_cells, matrix))
    raw = subgroup(handle, "raw")
    for parent, prefix in ((raw, ""), (handle, "raw.")):
        if (
            parent is not None
            and member(parent, f"{prefix}X") is not None
            and member(parent, f"{prefix}var") is not None
        ):
            raw_var = Frame(parent, f"{prefix}var")
            raw_features = table_features(raw_var.index(), raw_var.find)
            found.append(_place("raw.X", parent, f"{prefix}X", raw_features, n_cells, matrix))
    return [place for place in found if place is not None]


def _choose(handle: h5py.File, obs: Frame, judge: Callable[[Place], bool], matrix: SniffedFile) -> Choice:
    places = _places(handle, len(obs), matrix)
    layers = subgroup(handle, "layers")
    others = [name for name in (names(layers) if layers is not None else []) if not count_names([name])]
    advice = _ADVICE + (f" (other layers: {', '.join(others)})" if others else "")
    choice = choose(places, judge, str(matrix.path), advice)
    if useful := [column for column in obs.columns if _USEFUL.search(column)]:
        choice.decisions.append(
            f"not taken over from obs, but of use in a per-cell table (sheet column cells): {', '.join(useful[:10])}"
        )
    return choice


def read_h5ad(matrix: SniffedFile, _files: LibraryFiles) -> LibraryCounts:
    """Read raw counts from the first of the layers of counts, ``X`` and ``raw.X`` that holds counts."""
    with open_hdf5(matrix.path) as handle:
        obs = Frame(handle, "obs")
        choice = _choose(handle, obs, all_counts, matrix)
        return LibraryCounts(
            matrix=choice.place.read(),
            barcodes=pd.Index(obs.index(), dtype=object),
            features=choice.place.features,
            used={matrix: "matrix"},
            decisions=choice.decisions,
        )


def peek_h5ad(matrix: SniffedFile, _files: LibraryFiles) -> LibraryHead:
    """Features and cells of an AnnData file; where its counts are is judged by the first cells."""
    with open_hdf5(matrix.path) as handle:
        obs = Frame(handle, "obs")
        choice = _choose(handle, obs, begins_with_counts, matrix)
        return LibraryHead(
            n_cells=len(obs),
            n_features=len(choice.place.features),
            features=choice.place.features,
            barcodes=pd.Index(obs.index(_PEEKED_BARCODES), dtype=object),
            used={matrix: "matrix"},
            decisions=choice.decisions,
        )


def _recognise(files: LibraryFiles) -> Sequence[SniffedFile]:
    return files.of_kind(Kind.H5AD)


H5AD = Layout(
    name="h5ad",
    citation="Virshup et al. 2024, J. Open Source Softw. 9(101):4371 (anndata)",
    needs='integer counts in layers["counts"] (or a layer of a like name), X or raw.X',
    limits="obs columns are not taken over (give a per-cell table); no link into another file is followed",
    recognise=_recognise,
    run=read_h5ad,
    peek=peek_h5ad,
)
