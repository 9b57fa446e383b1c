"""Loom files: one dense matrix, genes x cells, in HDF5, with names in row and column attributes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import h5py
import numpy as np
import pandas as pd

from immunomod.errors import UserError
from immunomod.sample.readers.h5ad import dense_place, table_features
from immunomod.sample.readers.hdf5 import dataset, has_dataset, names, open_hdf5, read_strings, subgroup
from immunomod.sample.readers.library import Layout, LibraryCounts, LibraryFiles, LibraryHead
from immunomod.sample.readers.places import Choice, Place, all_counts, begins_with_counts, choose, count_names
from immunomod.sample.readers.sniff import Kind, SniffedFile

_GENE_NAMES = ("gene", "gene_name", "genename", "gene_names", "genes", "symbol", "var_names", "feature", "features")
_CELL_NAMES = (
    "cellid",
    "cell_id",
    "cellids",
    "cell_names",
    "cellnames",
    "cell_name",
    "obs_names",
    "barcode",
    "barcodes",
)
_ADVICE = "give a loom whose matrix, or a layer named counts, holds the counts"


class _Attributes:
    """One-dimensional attributes of rows or columns, found by name in upper or lower case."""

    def __init__(self, handle: h5py.File, name: str, length: int) -> None:
        found = subgroup(handle, name)
        self._group = handle if found is None else found
        self._length = length
        plain = [] if found is None else [one for one in names(found) if has_dataset(found, one)]
        self._known = {one.lower(): one for one in reversed(plain) if self._group[one].ndim == 1}

    def find(self, candidates: tuple[str, ...]) -> np.ndarray | None:
        name = next((self._known[one] for one in candidates if one in self._known), None)
        if name is None:
            return None
        values = read_strings(dataset(self._group, name))
        if values.size != self._length:
            raise UserError(
                f"{self._group.file.filename}: {self._group.name}/{name} names {values.size:,} where the matrix has "
                f"{self._length:,}; write the file again"
            )
        return values

    def __str__(self) -> str:
        return ", ".join(self._known.values()) or "nothing"


def _named(attributes: _Attributes, candidates: tuple[str, ...], what: str, matrix: SniffedFile) -> np.ndarray:
    found = attributes.find(candidates)
    if found is None:
        raise UserError(
            f"{matrix.path}: the loom names no {what} (its attributes: {attributes}); one called {candidates[0]} is "
            "needed"
        )
    return found


def _choose(
    handle: h5py.File, judge: Callable[[Place], bool], matrix: SniffedFile
) -> tuple[Choice, pd.Index, tuple[int, int]]:
    main = dataset(handle, "matrix")
    if main.ndim != 2 or main.dtype.kind not in "iufb":
        raise UserError(f"{matrix.path}: the loom's matrix holds no table of numbers; the file is damaged")
    n_features, n_cells = main.shape
    rows, columns = _Attributes(handle, "row_attrs", n_features), _Attributes(handle, "col_attrs", n_cells)
    cells = pd.Index(_named(columns, _CELL_NAMES, "cells", matrix), dtype=object)
    gene_names = rows.find(_GENE_NAMES)
    index = rows.find(("accession", "gene_ids", "gene_id", "ensembl")) if gene_names is None else gene_names
    if index is None:
        index = _named(rows, _GENE_NAMES, "genes", matrix)
    features = table_features(index, rows.find)
    places = [dense_place("matrix", main, features, cell_axis=1)]
    layers = subgroup(handle, "layers")
    for name in count_names(names(layers)) if layers is not None else []:
        values = dataset(layers, name)
        if values.shape == main.shape and values.dtype.kind in "iufb":
            places.append(dense_place(f'layers["{name}"]', values, features, cell_axis=1))
    choice = choose(places, judge, str(matrix.path), _ADVICE)
    if layers is not None and {"spliced", "unspliced"} <= set(names(layers)):
        choice.decisions.append("velocyto's layers (spliced, unspliced) are not used: its matrix holds their sum")
    return choice, cells, (n_cells, n_features)


def read_loom(matrix: SniffedFile, _files: LibraryFiles) -> LibraryCounts:
    """Read the counts of a loom file a block of cells at a time."""
    with open_hdf5(matrix.path) as handle:
        choice, cells, _ = _choose(handle, all_counts, matrix)
        return LibraryCounts(
            matrix=choice.place.read(),
            barcodes=cells,
            features=choice.place.features,
            used={matrix: "matrix"},
            decisions=["loom, genes x cells", *choice.decisions],
        )


def peek_loom(matrix: SniffedFile, _files: LibraryFiles) -> LibraryHead:
    """Features and cells of a loom file; where its counts are is judged by the first cells."""
    with open_hdf5(matrix.path) as handle:
        choice, cells, (n_cells, n_features) = _choose(handle, begins_with_counts, matrix)
        return LibraryHead(
            n_cells=n_cells,
            n_features=n_features,
            features=choice.place.features,
            barcodes=cells,
            used={matrix: "matrix"},
            decisions=["loom, genes x cells", *choice.decisions],
        )


def _recognise(files: LibraryFiles) -> Sequence[SniffedFile]:
    return files.of_kind(Kind.LOOM)


LOOM = Layout(
    name="loom",
    citation="Linnarsson lab, loom file format specification 3.0; La Manno et al. 2018, Nature 560:494 (velocyto)",
    needs="a matrix of genes x cells, and attributes that name genes and cells (Gene, Accession, CellID)",
    limits="attributes of cells are not taken over (give a per-cell table); velocyto's layers are not used",
    recognise=_recognise,
    run=read_loom,
    peek=peek_loom,
)
