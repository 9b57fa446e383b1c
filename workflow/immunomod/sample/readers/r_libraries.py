"""Libraries inside R objects: matrices, Seurat and SingleCellExperiment objects.

What is in an object's slots is found by the names that its class gives them; nothing is evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import pandas as pd
from rdata.parser import RObject, RObjectType
from scipy import sparse

from immunomod.errors import UserError
from immunomod.sample.readers.arrays import checked_csr, csr_of_blocks, slices
from immunomod.sample.readers.features import looks_like_barcodes, looks_like_genes
from immunomod.sample.readers.h5ad import table_features
from immunomod.sample.readers.places import SAMPLED_CELLS, Place, count_names
from immunomod.sample.readers.r_objects import (
    attributes,
    classes,
    elements,
    numbers,
    package,
    pairs,
    read_r_objects,
    texts,
)
from immunomod.sample.readers.sniff import SniffedFile

_SPARSE = frozenset({"dgCMatrix", "lgCMatrix", "dgTMatrix", "lgTMatrix", "dgRMatrix", "dgeMatrix"})
_ON_DISK = re.compile(r"BPCells|DelayedArray|HDF5Array|TileDBArray|DelayedMatrixStats")
_FRAME_BLOCK = 256


@dataclass(frozen=True)
class _Table:
    """A matrix of an R object: its CSR (cells x features) on demand, and the names of both."""

    n_features: int
    n_cells: int
    genes: list[str] | None
    cells: list[str] | None
    read: Callable[[], sparse.csr_matrix]


@dataclass(frozen=True)
class RLibrary:
    """Places of one R object that may hold its counts, and the names of its cells."""

    places: list[Place]
    cells: list[str]
    decisions: list[str]
    recipe: str


def _describe(item: RObject) -> str:
    """What an object is, in words."""
    known = classes(item)
    if known:
        own = package(item)
        return f"{known[0]} (package {own})" if own not in ("", ".GlobalEnv") else known[0]
    words = {
        RObjectType.CLO: "a function",
        RObjectType.ENV: "an environment",
        RObjectType.VEC: "a list",
        RObjectType.STR: "texts",
        RObjectType.NILVALUE: "NULL",
        RObjectType.EXTPTR: "a pointer into R's memory",
    }
    numeric = numbers(item)
    return words.get(item.info.type, f"{numeric.size:,} numbers" if numeric is not None else item.info.type.name)


def _recipe(expression: str, file: SniffedFile) -> str:
    """Two lines of R that write the counts in a layout that is read."""
    return (
        f"in R: x <- readRDS({file.name!r}) (or load it); "
        f"DropletUtils::write10xCounts('counts.h5', {expression}, version = '3')"
    )


def _size(item: RObject | None, where: str) -> tuple[int, int]:
    values = numbers(item)
    if values is None or values.size != 2 or values.dtype.kind != "i" or int(values.min()) < 0:
        raise UserError(f"{where}: a matrix without its two dimensions; the file is damaged")
    return int(values[0]), int(values[1])


def _names(item: RObject | None, size: tuple[int, int], where: str) -> tuple[list[str] | None, list[str] | None]:
    found = [texts(value) for _, value in elements(item)] or [None, None]
    for axis, one in enumerate(found[:2]):
        if one is not None and len(one) != size[axis]:
            raise UserError(f"{where}: {len(one):,} names for {size[axis]:,} rows or columns; the file is damaged")
    return found[0], found[1] if len(found) > 1 else None


def _slot(slots: dict[str, RObject], name: str, where: str) -> np.ndarray:
    values = numbers(slots.get(name))
    if values is None:
        raise UserError(f"{where}: a sparse matrix without its slot {name}; the file is damaged")
    return values


def _sparse_matrix(kind: str, slots: dict[str, RObject], size: tuple[int, int], where: str) -> sparse.csr_matrix:
    """Slots of package Matrix, genes x cells, as cells x genes."""
    n_genes, n_cells = size
    values = _slot(slots, "x", where)
    if kind == "dgeMatrix":
        return _dense_matrix(values, size, where)
    if kind.endswith("CMatrix"):
        return checked_csr(values, _slot(slots, "i", where), _slot(slots, "p", where), (n_cells, n_genes), where)
    if kind.endswith("RMatrix"):
        rows = checked_csr(values, _slot(slots, "j", where), _slot(slots, "p", where), (n_genes, n_cells), where)
        return sparse.csr_matrix(rows.T)
    genes, cells = _slot(slots, "i", where), _slot(slots, "j", where)
    for index, length in ((genes, n_genes), (cells, n_cells)):
        outside = index.size and (int(index.min()) < 0 or int(index.max()) >= length)
        if index.size != values.size or index.dtype.kind != "i" or outside:
            raise UserError(f"{where}: the sparse matrix contradicts itself; fetch or write the file again")
    return sparse.csr_matrix(sparse.coo_matrix((values, (cells, genes)), shape=(n_cells, n_genes)))


def _dense_matrix(values: np.ndarray, size: tuple[int, int], where: str) -> sparse.csr_matrix:
    n_genes, n_cells = size
    if values.size != n_genes * n_cells:
        raise UserError(f"{where}: {values.size:,} values in a matrix of {n_genes:,} x {n_cells:,}; it is damaged")
    by_cell = values.reshape(n_cells, n_genes)
    step = max(1, (1 << 23) // max(1, n_genes))
    return csr_of_blocks((by_cell[part] for part in slices(n_cells, step)), n_genes)


def _frame(item: RObject, where: str) -> _Table | None:
    """A data frame of numbers, genes x cells; the names of genes are its row names, or its one column of texts."""
    columns = elements(item)
    named = [(name, texts(value)) for name, value in columns if texts(value) is not None]
    numeric = [(name, values) for name, value in columns if (values := numbers(value)) is not None]
    if not numeric or len(named) > 1 or len(named) + len(numeric) < len(columns):
        return None
    n_genes = numeric[0][1].size
    if any(values.size != n_genes for _, values in numeric):
        raise UserError(f"{where}: a data frame with columns of unequal length; the file is damaged")
    genes = named[0][1] if named else texts(attributes(item).get("row.names"))

    def blocks() -> Iterator[np.ndarray]:
        for part in slices(len(numeric), _FRAME_BLOCK):
            yield np.array([values for _, values in numeric[part]])

    cells = [name for name, _ in numeric]
    return _Table(n_genes, len(cells), genes, cells, lambda: csr_of_blocks(blocks(), n_genes))


def _table(item: RObject, where: str) -> _Table | None:
    """The matrix that an R object is, or None where it is none that can be read."""
    kinds, slots = classes(item), attributes(item)
    kind = next((one for one in kinds if one in _SPARSE), "")
    if kind:
        size = _size(slots.get("Dim"), where)
        genes, cells = _names(slots.get("Dimnames"), size, where)
        return _Table(*size, genes, cells, lambda: _sparse_matrix(kind, slots, size, where))
    if "data.frame" in kinds:
        return _frame(item, where)
    values = numbers(item)
    dim = numbers(slots.get("dim"))
    if values is not None and dim is not None and dim.size == 2:
        size = _size(slots["dim"], where)
        genes, cells = _names(slots.get("dimnames"), size, where)
        found = values
        return _Table(*size, genes, cells, lambda: _dense_matrix(found, size, where))
    return None


def _place(name: str, table: _Table, features: pd.DataFrame) -> Place:
    held: list[sparse.csr_matrix] = []

    def whole() -> sparse.csr_matrix:
        if not held:
            held.append(table.read())
        return held[0]

    return Place(
        name=name,
        features=features,
        n_cells=table.n_cells,
        values=lambda: (whole().data[part] for part in slices(whole().nnz)),
        sample=lambda: whole()[:SAMPLED_CELLS],
        read=whole,
    )


def _refuse_on_disk(item: RObject, name: str, recipe: str, where: str) -> None:
    if _ON_DISK.search(package(item)):
        raise UserError(f"{where}: {name} is {_describe(item)}, which keeps its values in another file; {recipe}")


def _no_names(where: str, what: str, recipe: str) -> UserError:
    return UserError(f"{where}: the matrix has no names of {what}; set its dimnames and save it again: {recipe}")


def _by_name(names: list[str]) -> pd.DataFrame:
    return table_features(np.array(names, dtype=object), lambda _: None)


def _plain(name: str, table: _Table, where: str, recipe: str) -> RLibrary:
    """A matrix or data frame by itself: genes x cells as R's packages keep them, unless its names say otherwise."""
    genes, cells, decisions = table.genes, table.cells, []
    first, second = (pd.Series(names or [], dtype=object) for names in (genes, cells))
    turned = (looks_like_barcodes(first) and not looks_like_barcodes(second)) or (
        looks_like_genes(second) and not looks_like_genes(first)
    )
    if turned:
        read = table.read
        table = _Table(table.n_cells, table.n_features, cells, genes, lambda: sparse.csr_matrix(read().T))
        genes, cells = cells, genes
        decisions.append("the matrix is cells x genes (its names say so)")
    if not genes:
        raise _no_names(where, "genes", recipe)
    if not cells:
        cells = [f"cell{number}" for number in range(1, table.n_cells + 1)]
        decisions.append("the cells have no names in the file: numbered")
    return RLibrary([_place(name, table, _by_name(genes))], cells, decisions, recipe)


def _seurat_2(item: RObject, where: str, recipe: str) -> RLibrary:
    slots = attributes(item)
    places, cells = [], []
    for name in ("raw.data", "data"):
        found = slots.get(name)
        table = None if found is None else _table(found, f"{where}: {name}")
        if table is not None and table.genes and table.cells and table.n_cells:
            places.append(_place(name, table, _by_name(table.genes)))
            cells.append(table.cells)
    return _same_cells(places, cells, ["Seurat object, version 2"], where, recipe)


def _same_cells(places: list[Place], cells: list[list[str]], decisions: list[str], where: str, recipe: str) -> RLibrary:
    """Places of one object that name the same number of cells as the first (Seurat 2 kept more in raw.data)."""
    if not places:
        raise UserError(f"{where}: the object holds no matrix with names of genes and cells; {recipe}")
    same = [place for place, names in zip(places, cells, strict=True) if names == cells[0]]
    return RLibrary(same, cells[0], decisions, recipe)


def _assay_places(prefix: str, assay: RObject, where: str, recipe: str) -> tuple[list[Place], list[list[str]]]:
    """Matrices of a Seurat assay (versions 3 to 5), counts before the rest."""
    slots = attributes(assay)
    if "layers" in slots:
        return _layers_of_assay(prefix, slots, where, recipe)
    places, cells = [], []
    for name in ("counts", "data"):
        found = slots.get(name)
        if found is None:
            continue
        _refuse_on_disk(found, f"{prefix}@{name}", recipe, where)
        table = _table(found, f"{where}: {prefix}@{name}")
        if table is not None and table.genes and table.cells:
            places.append(_place(f"{prefix}@{name}", table, _by_name(table.genes)))
            cells.append(table.cells)
    return places, cells


def _log_map(item: RObject | None, where: str) -> tuple[list[str], dict[str, np.ndarray]]:
    """Seurat 5's record of which features or cells each layer has: all names, and places of a layer's own."""
    table = None if item is None else _table(item, where)
    if table is None or not table.genes:
        raise UserError(f"{where}: a Seurat assay without the names of its features or cells; the file is damaged")
    matrix = table.read()
    layers = table.cells or []
    return table.genes, {name: np.sort(matrix[i].indices) for i, name in enumerate(layers)}


def _layers_of_assay(
    prefix: str, slots: dict[str, RObject], where: str, recipe: str
) -> tuple[list[Place], list[list[str]]]:
    """Layers of a Seurat 5 assay; those that one matrix was split into (counts.1, counts.2) are put together."""
    features, features_of = _log_map(slots.get("features"), f"{where}: {prefix}@features")
    all_cells, cells_of = _log_map(slots.get("cells"), f"{where}: {prefix}@cells")
    layers = elements(slots.get("layers"))
    if not layers:
        layers = list(pairs(slots.get("layers")))
    places, cells = [], []
    for stem in ("counts", "data"):
        parts = [(name, item) for name, item in layers if name == stem or name.startswith(f"{stem}.")]
        tables: list[tuple[_Table, np.ndarray]] = []
        names: list[str] = []
        for name, item in parts:
            _refuse_on_disk(item, f"{prefix} layer {name}", recipe, where)
            table = _table(item, f"{where}: {prefix} layer {name}")
            if table is None:
                raise UserError(f"{where}: {prefix} layer {name} is {_describe(item)}, not a matrix; {recipe}")
            own_features, own_cells = features_of.get(name), cells_of.get(name)
            if (
                own_features is None
                or own_cells is None
                or (own_features.size, own_cells.size) != (table.n_features, table.n_cells)
            ):
                raise UserError(f"{where}: {prefix} layer {name} does not fit the names of its cells; it is damaged")
            tables.append((table, own_features))
            names += [all_cells[i] for i in own_cells]
        if not tables:
            continue
        title = f"{prefix} layer{'s' if len(parts) > 1 else ''} {', '.join(name for name, _ in parts)}"
        joined = _Table(len(features), len(names), features, names, _joining(tables, len(features)))
        places.append(_place(title, joined, _by_name(features)))
        cells.append(names)
    return places, cells


def _joining(tables: Sequence[tuple[_Table, np.ndarray]], n_features: int) -> Callable[[], sparse.csr_matrix]:
    """Layers of different cells, each with its own of ``n_features`` features, below one another."""

    def read() -> sparse.csr_matrix:
        parts = []
        for table, own in tables:
            part = table.read()
            index = own.astype(part.indices.dtype, copy=False)[part.indices]
            parts.append(sparse.csr_matrix((part.data, index, part.indptr), shape=(part.shape[0], n_features)))
        return parts[0] if len(parts) == 1 else sparse.vstack(parts, format="csr")

    return read


def _seurat(item: RObject, where: str, file: SniffedFile) -> RLibrary:
    slots = attributes(item)
    assays = [(name, assay) for name, assay in elements(slots.get("assays")) if attributes(assay)]
    names = [name for name, _ in assays]
    chosen = [pair for pair in assays if pair[0].upper() == "RNA"] or (assays if len(assays) == 1 else [])
    if not chosen:
        raise UserError(
            f"{where}: the Seurat object has the assays {', '.join(names) or 'none'} and none is called RNA; which "
            f"holds the genes cannot be told: {_recipe('x@assays$<name>@counts', file)}"
        )
    name, assay = chosen[0]
    split = "layers" in attributes(assay)
    recipe = _recipe(
        f"as(SeuratObject::LayerData(SeuratObject::JoinLayers(x[['{name}']]), 'counts'), 'dgCMatrix')"
        if split
        else f"x@assays${name}@counts",
        file,
    )
    places, cells = _assay_places(f"assays${name}", assay, where, recipe)
    decisions = [f"Seurat object, {classes(assay)[0] if classes(assay) else 'assay'} {name}"]
    if others := [other for other in names if other != name]:
        decisions.append(f"assays not read: {', '.join(others)}")
    return _same_cells(places, cells, decisions, where, recipe)


def _data_frame_s4(item: RObject | None) -> tuple[list[str] | None, dict[str, RObject]]:
    """Row names and columns of Bioconductor's DataFrame."""
    if item is None:
        return None, {}
    slots = attributes(item)
    return texts(slots.get("rownames")), dict(elements(slots.get("listData")))


def _range_names(item: RObject | None) -> list[str] | None:
    """Names of genomic ranges, by which a RangedSummarizedExperiment names its rows."""
    if item is None:
        return None
    slots = attributes(item)
    for holder in ("partitioning", "ranges"):
        if holder in slots:
            return texts(attributes(slots[holder]).get("NAMES"))
    return None


def _experiment(item: RObject, where: str, recipe: str) -> RLibrary:
    """A SummarizedExperiment or one of its kin (SingleCellExperiment)."""
    slots = attributes(item)
    holder = slots.get("assays")
    data = None if holder is None else attributes(holder).get("data", attributes(holder).get(".xData"))
    assays = elements(data) or elements(attributes(data).get("listData") if data is not None else None)
    _, rows = _data_frame_s4(slots.get("elementMetadata"))
    ranges = slots.get("rowRanges")
    if not rows and ranges is not None:
        _, rows = _data_frame_s4(attributes(ranges).get("elementMetadata"))
    cell_names, columns = _data_frame_s4(slots.get("colData"))
    gene_names = texts(slots.get("NAMES")) or _range_names(ranges)
    barcodes = next((texts(value) for name, value in columns.items() if name.lower() == "barcode"), None)
    assays = [(name or str(number), assay) for number, (name, assay) in enumerate(assays, start=1)]
    order = count_names([name for name, _ in assays])
    places, cells = [], []
    for name, assay in sorted(assays, key=lambda pair: order.index(pair[0]) if pair[0] in order else len(order)):
        _refuse_on_disk(assay, f"assay {name}", recipe, where)
        table = _table(assay, f"{where}: assay {name}")
        if table is None:
            continue
        genes, own = table.genes or gene_names, table.cells or cell_names or barcodes
        known = _finder(rows, table.n_features)
        genes = genes or (lambda ids: None if ids is None else list(ids))(known(("id", "gene_id", "symbol")))
        if not genes or len(genes) != table.n_features:
            raise _no_names(f"{where}: assay {name}", "genes", recipe)
        if not own or len(own) != table.n_cells:
            raise _no_names(f"{where}: assay {name}", "cells", recipe)
        places.append(_place(f"assay {name}", table, table_features(np.array(genes, dtype=object), known)))
        cells.append(own)
    return _same_cells(places, cells, [f"{classes(item)[0]} object"], where, recipe)


def _finder(columns: dict[str, RObject], length: int) -> Callable[[tuple[str, ...]], np.ndarray | None]:
    """Columns of texts of a table by name (DropletUtils calls them ID, Symbol and Type)."""
    known = {name.lower(): values for name, value in columns.items() if (values := _column(value)) is not None}
    other = {"gene_id": "id", "feature_types": "type"}

    def find(candidates: tuple[str, ...]) -> np.ndarray | None:
        wanted = [*candidates, *(other[one] for one in candidates if one in other)]
        found = next((known[one] for one in wanted if one in known and len(known[one]) == length), None)
        return None if found is None else np.array(found, dtype=object)

    return find


def _column(item: RObject) -> list[str] | None:
    """A column of texts, or a factor as texts."""
    levels, codes = texts(attributes(item).get("levels")), numbers(item)
    if levels is not None and codes is not None and codes.dtype.kind == "i":
        inside = (codes >= 1) & (codes <= len(levels))
        return [levels[code - 1] if ok else "" for code, ok in zip(codes, inside, strict=True)]
    return texts(item)


def _as_library(name: str, item: RObject, file: SniffedFile) -> RLibrary | None:
    """The library that an object is, or None where it is of no kind that is read."""
    where, kinds, slots = str(file.path), classes(item), attributes(item)
    if "Seurat" in kinds:
        return _seurat(item, where, file)
    if "seurat" in kinds:
        return _seurat_2(item, where, _recipe("x@raw.data", file))
    if {"assays", "colData"} <= set(slots):
        return _experiment(item, where, _recipe("as(SummarizedExperiment::assay(x, 'counts'), 'dgCMatrix')", file))
    table = _table(item, where)
    if table is not None and table.n_cells and table.n_features:
        return _plain(name or "the matrix", table, where, _recipe("as(x, 'dgCMatrix')", file))
    return None


def _is_library(item: RObject) -> bool:
    kinds = set(classes(item))
    return bool(
        kinds & (_SPARSE | {"Seurat", "seurat", "data.frame"})
        or {"assays", "colData"} <= set(attributes(item))
        or (numbers(item) is not None and "dim" in attributes(item))
    )


def library_of(file: SniffedFile) -> RLibrary:
    """The one object of an R file that is a library.

    Raises
    ------
    UserError
        None is, or several are: no column of the sheet can say which.
    """
    item, saved = read_r_objects(file.path)
    objects = list(pairs(item)) if saved else [("", item)]
    if not saved and not classes(item) and elements(item):
        objects = elements(item)
    candidates = [(name, one) for name, one in objects if _is_library(one)]
    if len(candidates) > 1:
        named = ", ".join(f"{name or 'unnamed'} ({_describe(one)})" for name, one in candidates)
        raise UserError(
            f"{file.path}: holds several matrices: {named}; which is the library's cannot be told. Save one of them "
            "alone: saveRDS(<name>, 'counts.rds')"
        )
    library = _as_library(*candidates[0], file) if candidates else None
    if library is None:
        _refuse(file, objects)
    if saved and len(objects) > 1:
        others = ", ".join(name for name, one in objects if one is not candidates[0][1])
        library.decisions.append(f"objects not used: {others}")
    return library


def _refuse(file: SniffedFile, objects: Sequence[tuple[str, RObject]]) -> NoReturn:
    named = ", ".join(f"{name} ({_describe(one)})" if name else _describe(one) for name, one in objects[:10])
    for name, one in objects:
        _refuse_on_disk(one, name or "the object", _recipe("as(x, 'dgCMatrix')", file), str(file.path))
    raise UserError(
        f"{file.path}: holds no matrix of counts that can be read without R; found {named or 'nothing'}. Read are "
        "sparse and plain matrices, data frames of numbers, Seurat and SingleCellExperiment objects; write the counts "
        f"of this one so: {_recipe('<its matrix of counts, genes x cells>', file)}"
    )
