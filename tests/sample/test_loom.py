"""Loom files: read by blocks into the same cells x genes, whatever the attributes are called."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from immunomod.errors import UserError
from immunomod.sample.readers import h5ad as blocks
from immunomod.sample.readers.library import LibraryCounts, LibraryFiles
from immunomod.sample.readers.loom import LOOM
from immunomod.sample.readers.sniff import Kind, sniff


def read(path: Path) -> LibraryCounts:
    file = sniff(path)
    files = LibraryFiles("S1", own=(file,))
    assert LOOM.recognise(files) == [file]
    library = LOOM.run(file, files)
    head = LOOM.peek(file, files)
    assert (head.n_cells, head.n_features) == library.matrix.shape
    assert list(head.barcodes) == list(library.barcodes)
    pd.testing.assert_frame_equal(head.features, library.features)
    assert head.decisions == library.decisions
    return library


@pytest.fixture
def write(tmp_path, counts, genes, barcodes):
    def make(rows=("Gene", "Accession"), cell="CellID", dtype="i4", change=lambda handle: None) -> Path:
        path = tmp_path / "a.loom"
        with h5py.File(path, "w") as handle:
            handle.create_dataset("matrix", data=counts.toarray().T.astype(dtype), chunks=(5, 2), compression="gzip")
            for name, values in zip(rows, (genes["gene_symbol"], genes["gene_id"]), strict=False):
                handle[f"row_attrs/{name}"] = np.array(values, dtype="S")
            handle.require_group("row_attrs")
            handle["row_attrs/loadings"] = np.zeros((12, 3))
            handle[f"col_attrs/{cell}"] = np.array(barcodes, dtype="S")
            handle["attrs/LOOM_SPEC_VERSION"] = "3.0.0"
            change(handle)
        return path

    return make


@pytest.mark.parametrize("cell", ["CellID", "cellid", "obs_names", "Barcode", "cell_names"])
@pytest.mark.parametrize(
    "rows", [("Gene", "Accession"), ("gene_name", "gene_id"), ("var_names", "gene_ids"), ("GENE",)]
)
def test_attributes_of_any_name(rows, cell, write, counts, genes, barcodes):
    library = read(write(rows, cell))
    np.testing.assert_array_equal(library.matrix.toarray(), counts.toarray())
    assert list(library.barcodes) == barcodes
    assert list(library.features["gene_symbol"]) == list(genes["gene_symbol"])
    assert list(library.features["gene_id"]) == (list(genes["gene_id"]) if len(rows) == 2 else [""] * 12)
    assert library.decisions == ["loom, genes x cells", "counts taken from matrix"]


def test_accessions_alone(write, genes):
    def drop(handle):
        del handle["row_attrs/Gene"]

    features = read(write(change=drop)).features
    assert list(features["gene_id"]) == list(genes["gene_id"])
    assert set(features["gene_symbol"]) == {""}


@pytest.mark.parametrize("cells", [1, 2, 3, 100])
@pytest.mark.parametrize("dtype", ["u2", "f4", "f8"])
def test_blocks_of_any_size_give_the_same(dtype, cells, write, counts, monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", cells * 12 * np.dtype(dtype).itemsize)
    library = read(write(dtype=dtype))
    assert library.matrix.dtype.kind in "iu"
    np.testing.assert_array_equal(library.matrix.toarray(), counts.toarray())


def test_velocytos_layers_are_said_not_to_be_used(write, counts):
    def layers(handle):
        for name in ("spliced", "unspliced", "ambiguous"):
            handle[f"layers/{name}"] = np.ones((12, 7), int)

    library = read(write(change=layers))
    np.testing.assert_array_equal(library.matrix.toarray(), counts.toarray())
    assert "velocyto's layers" in library.decisions[-1]


def test_counts_in_a_layer(write, counts):
    def change(handle):
        handle["layers/counts"] = counts.toarray().T
        handle["matrix"][:] = -1

    library = read(write(dtype="f4", change=change))
    np.testing.assert_array_equal(library.matrix.toarray(), counts.toarray())
    assert library.decisions[1] == 'counts taken from layers["counts"]'


def _replace(name, value):
    def change(handle):
        del handle[name]
        if value is not None:
            handle[name] = value

    return change


def _huge(handle):
    del handle["matrix"]
    handle.create_dataset("matrix", shape=(10**7, 10**7), dtype="f4", chunks=(64, 64))


LIES = {
    "no cells": (_replace("col_attrs/CellID", None), r"names no cells \(its attributes: nothing\)"),
    "too few names": (_replace("row_attrs/Gene", np.array([b"A"])), "names 1 where the matrix has 12"),
    "link": (_replace("row_attrs/Gene", h5py.ExternalLink("b.h5", "/x")), "names no genes"),
    "not stored": (_huge, "declares 400,000,000,000,000 bytes"),
    "text": (_replace("matrix", np.full((12, 7), b"a")), "no table of numbers"),
    "flat": (_replace("matrix", np.ones(5)), "no table of numbers"),
    "logged": (_replace("matrix", np.full((12, 7), 0.3)), "no raw counts in matrix"),
}


@pytest.mark.parametrize(("change", "words"), LIES.values(), ids=LIES)
def test_lies_are_refused_in_words(change, words, write):
    file = sniff(write(rows=("Gene",), change=change))
    assert file.kind is Kind.LOOM
    for act in (LOOM.run, LOOM.peek):
        with pytest.raises(UserError, match=words) as refused:
            act(file, LibraryFiles("S1", own=(file,)))
        assert "a.loom" in str(refused.value)
