"""CellRanger's HDF5 matrices: version 3 (one group ``matrix``) and the older one group per genome.

The groups are told by what they hold, so files that other programs write in this layout are read too (CellBender,
DropletUtils). Their columns are cells, so their arrays are CSR over cells as they stand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from immunomod.errors import UserError
from immunomod.sample.readers.arrays import checked_csr
from immunomod.sample.readers.features import is_ensembl
from immunomod.sample.readers.hdf5 import (
    dataset,
    has_dataset,
    names,
    open_hdf5,
    read_numbers,
    read_strings,
    subgroup,
)
from immunomod.sample.readers.library import Layout, LibraryCounts, LibraryFiles, LibraryHead
from immunomod.sample.readers.sniff import Kind, SniffedFile

_ARRAYS = frozenset({"barcodes", "data", "indices", "indptr", "shape"})
#: Names that CellBender gives to what it inferred, in its second and third format.
_CELLBENDER = frozenset({"droplet_latents", "global_latents", "latent_cell_probability", "latent_RT_efficiency"})
_SUFFIX = re.compile(r"[-_.](\d+)$")
_PEEKED_BARCODES = 1_000_000


def _groups(handle: h5py.File, file: SniffedFile) -> list[h5py.Group]:
    """The groups that hold a matrix: ``matrix`` alone where it does, else all, one a genome."""
    own = names(handle)
    if set(handle) >= _ARRAYS - {"shape"}:
        return [handle]
    groups = [handle[name] for name in own if isinstance(handle[name], h5py.Group)]
    groups = [group for group in groups if set(group) >= _ARRAYS - {"shape"}]
    named = [group for group in groups if group.name == "/matrix"]
    if not groups:
        raise UserError(f"{file.path}: no group with barcodes, data, indices and indptr; the file is cut short")
    return named or groups


def _name_of(group: h5py.Group) -> str:
    return str(group.name).rsplit("/", 1)[-1]


def _feature_table(group: h5py.Group) -> pd.DataFrame:
    """Ids, symbols, types and genomes of a group's features; empty where the file does not say."""
    table = subgroup(group, "features")
    names_in = {
        "gene_id": ("id",) if table is not None else ("genes", "gene_ids", "features"),
        "gene_symbol": ("name",) if table is not None else ("gene_names", "gene_symbols"),
        "feature_type": ("feature_type", "feature_types"),
        "genome": ("genome",),
    }
    place = group if table is None else table
    columns = {}
    for column, candidates in names_in.items():
        found = next((name for name in candidates if has_dataset(place, name)), None)
        columns[column] = None if found is None else read_strings(dataset(place, found))
    sizes = {values.size for values in columns.values() if values is not None}
    if columns["gene_id"] is None and columns["gene_symbol"] is None:
        raise UserError(f"{group.file.filename}: {group.name} names no features; the file is cut short")
    if len(sizes) > 1:
        raise UserError(f"{group.file.filename}: {place.name} has columns of unequal length; the file is damaged")
    columns = {name: np.full(max(sizes), "", object) if one is None else one for name, one in columns.items()}
    features = pd.DataFrame(columns, dtype=object)
    if features["gene_id"].equals(features["gene_symbol"]):
        named_by_id = float(is_ensembl(features["gene_id"]).mean()) > 0.5
        features["gene_symbol" if named_by_id else "gene_id"] = ""
    return features


def _shape(group: h5py.Group, n_features: int, file: SniffedFile) -> tuple[int, int]:
    """Cells and features of a group, as all of its parts agree."""
    n_cells = int(dataset(group, "barcodes").shape[0])
    if has_dataset(group, "shape"):
        declared = tuple(int(size) for size in read_numbers(dataset(group, "shape")))
        if declared != (n_features, n_cells):
            raise UserError(
                f"{file.path}: {group.name} declares {declared} features and cells and names {n_features:,} features "
                f"and {n_cells:,} cells; fetch the file again"
            )
    pointers, values, indices = (dataset(group, name).shape for name in ("indptr", "data", "indices"))
    if pointers != (n_cells + 1,) or values != indices or len(values) != 1:
        raise UserError(
            f"{file.path}: {group.name} holds {pointers} pointers, {values} values and {indices} indices for "
            f"{n_cells:,} cells; fetch the file again"
        )
    return n_cells, n_features


def _features(groups: Sequence[h5py.Group]) -> tuple[pd.DataFrame, list[int]]:
    """Features of all groups, one below the other, and how many each has; ``genome`` only where there are several."""
    tables = [_feature_table(group) for group in groups]
    if len(groups) > 1:
        tables = [table.assign(genome=_name_of(group)) for table, group in zip(tables, groups, strict=True)]
    features = pd.concat(tables, ignore_index=True)
    if features.loc[features["genome"] != "", "genome"].nunique() < 2:
        features = features.drop(columns="genome")
    return features, [len(table) for table in tables]


def _decisions(handle: h5py.File, groups: Sequence[h5py.Group], features: pd.DataFrame, cells: pd.Index) -> list[str]:
    decisions = []
    if len(groups) > 1:
        decisions.append(
            f"joined the genomes {', '.join(_name_of(group) for group in groups)}: {len(cells):,} barcodes in any"
        )
    elif "genome" in features:
        genomes = features.loc[features["genome"] != "", "genome"].value_counts()
        decisions.append("features of " + " and ".join(f"{name} ({count:,})" for name, count in genomes.items()))
    if _name_of(groups[0]) not in ("matrix", "") and len(groups) == 1:
        decisions.append(f"group {_name_of(groups[0])}")
    inferred = {*names(handle), *(name for group in groups for name in names(group))}
    if inferred & _CELLBENDER:
        decisions.append("the counts are CellBender's: corrected for ambient RNA by the authors")
    suffixes = {match.group(1) for match in map(_SUFFIX.search, cells) if match}
    if len(suffixes) > 1:
        decisions.append(f"barcodes end in {len(suffixes)} different numbers: several libraries in one matrix")
    return decisions


def _union(barcodes: Sequence[pd.Index], file: SniffedFile) -> pd.Index:
    """Barcodes of all genomes, in order of first appearance."""
    for one in barcodes:
        if len(barcodes) > 1 and one.has_duplicates:
            raise UserError(
                f"{file.path}: barcode {one[one.duplicated()][0]} stands twice in one genome; fetch the file again"
            )
    cells = barcodes[0]
    for one in barcodes[1:]:
        cells = cells.append(one[~one.isin(cells)])
    return cells


def _csr(group: h5py.Group, shape: tuple[int, int], file: SniffedFile) -> sparse.csr_matrix:
    data, indices, indptr = (read_numbers(dataset(group, name)) for name in ("data", "indices", "indptr"))
    return checked_csr(data, indices, indptr, shape, f"{file.path}: {group.name}")


def _spread_rows(matrix: sparse.csr_matrix, rows: np.ndarray, n_rows: int) -> sparse.csr_matrix:
    """The same rows among ``n_rows``, at ``rows`` (unique)."""
    if np.array_equal(rows, np.arange(n_rows)):
        return matrix
    target = sparse.csr_matrix(
        (np.ones(rows.size, dtype=np.int32), (rows, np.arange(rows.size))), shape=(n_rows, rows.size)
    )
    return sparse.csr_matrix(target @ matrix)


def read_tenx_h5(matrix: SniffedFile, _files: LibraryFiles) -> LibraryCounts:
    """Read a CellRanger HDF5 matrix; several genomes stand side by side, over the cells that any of them has."""
    with open_hdf5(matrix.path) as handle:
        groups = _groups(handle, matrix)
        features, sizes = _features(groups)
        shapes = [_shape(group, size, matrix) for group, size in zip(groups, sizes, strict=True)]
        barcodes = [pd.Index(read_strings(dataset(group, "barcodes")), dtype=object) for group in groups]
        cells = _union(barcodes, matrix)
        parts = [_csr(group, shape, matrix) for group, shape in zip(groups, shapes, strict=True)]
        if len(parts) > 1:
            parts = [
                _spread_rows(part, cells.get_indexer(own), len(cells))
                for part, own in zip(parts, barcodes, strict=True)
            ]
        return LibraryCounts(
            matrix=parts[0] if len(parts) == 1 else sparse.hstack(parts, format="csr"),
            barcodes=cells,
            features=features,
            used={matrix: "matrix"},
            decisions=_decisions(handle, groups, features, cells),
        )


def peek_tenx_h5(matrix: SniffedFile, _files: LibraryFiles) -> LibraryHead:
    """Features and barcodes of a CellRanger HDF5 matrix, without its values."""
    with open_hdf5(matrix.path) as handle:
        groups = _groups(handle, matrix)
        features, sizes = _features(groups)
        shapes = [_shape(group, size, matrix) for group, size in zip(groups, sizes, strict=True)]
        barcodes = [
            pd.Index(read_strings(dataset(group, "barcodes"), _PEEKED_BARCODES), dtype=object) for group in groups
        ]
        cells = _union(barcodes, matrix)
        whole = all(shape[0] <= _PEEKED_BARCODES for shape in shapes)
        return LibraryHead(
            n_cells=len(cells) if whole else (shapes[0][0] if len(shapes) == 1 else None),
            n_features=len(features),
            features=features,
            barcodes=cells,
            used={matrix: "matrix"},
            decisions=_decisions(handle, groups, features, cells),
        )


def _recognise(files: LibraryFiles) -> Sequence[SniffedFile]:
    return files.of_kind(Kind.TENX_H5)


TENX_H5 = Layout(
    name="10x_h5",
    citation="CellRanger HDF5 feature-barcode matrix format, versions 2 and 3",
    needs="one HDF5 file with barcodes, features, data, indices, indptr and shape",
    limits="no link into another file is followed; which cells are the library's is told by the column `barcodes`",
    recognise=_recognise,
    run=read_tenx_h5,
    peek=peek_tenx_h5,
)
