"""AnnData files: counts are found where they are, in every format that anndata wrote, and nothing else is believed."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from immunomod.errors import UserError
from immunomod.sample.readers import h5ad as module
from immunomod.sample.readers.counts import ReadingSettings, integer_counts
from immunomod.sample.readers.h5ad import H5AD
from immunomod.sample.readers.library import LibraryCounts, LibraryFiles
from immunomod.sample.readers.sniff import Kind, sniff


def read(path: Path) -> LibraryCounts:
    """Read by the layout, after the sniffer has told it, and hold the peek against the reading."""
    file = sniff(path)
    files = LibraryFiles("S1", own=(file,))
    assert H5AD.recognise(files) == [file]
    library = H5AD.run(file, files)
    head = H5AD.peek(file, files)
    assert (head.n_cells, head.n_features) == library.matrix.shape
    assert list(head.barcodes) == list(library.barcodes)
    pd.testing.assert_frame_equal(head.features, library.features)
    assert head.decisions == library.decisions
    return library


def logged(counts) -> sparse.csr_matrix:
    dense = np.asarray(counts.todense() if sparse.issparse(counts) else counts, dtype=float)
    return sparse.csr_matrix(np.log1p(dense / np.maximum(dense.sum(axis=1, keepdims=True), 1) * 1e4).astype(np.float32))


@pytest.fixture
def big() -> sparse.csr_matrix:
    """700 cells x 12 genes: more cells than a peek looks at."""
    return sparse.csr_matrix(np.random.default_rng(4).poisson(1.2, size=(700, 12)).astype(np.int32))


@pytest.fixture
def frame(genes):
    """obs and var of a matrix with any number of cells, by symbol with ids in a column."""

    def make(n_cells: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        return pd.DataFrame(index=[f"c{i}" for i in range(n_cells)]), genes.set_index("gene_symbol")[["gene_id"]]

    return make


FORMS = {
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "dense": lambda matrix: matrix.toarray(),
    "csr float": lambda matrix: sparse.csr_matrix(matrix, dtype=np.float32),
    "dense float64": lambda matrix: matrix.toarray().astype(np.float64),
    "csr array": lambda matrix: sparse.csr_array(matrix.astype(np.int64)),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("place", ["X", "layer", "raw"])
def test_counts_are_found(place, form, tmp_path, big, frame, genes):
    obs, var = frame(700)
    adata = ad.AnnData(form(big) if place == "X" else logged(big), obs=obs, var=var)
    if place == "layer":
        adata.layers["counts"] = form(big)
    if place == "raw":
        adata.raw = ad.AnnData(form(big), obs=obs, var=var)
        adata = adata[:, :5].copy()
    adata.write_h5ad(tmp_path / "a.h5ad")
    library = read(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(library.matrix.toarray(), big.toarray())
    assert sparse.isspmatrix_csr(library.matrix)
    assert library.matrix.dtype == np.int32
    assert list(library.barcodes) == list(obs.index)
    assert list(library.features["gene_id"]) == list(genes["gene_id"])
    assert list(library.features["gene_symbol"]) == list(genes["gene_symbol"])
    name = {"X": "X", "layer": 'layers["counts"]', "raw": "raw.X"}[place]
    assert library.decisions[0] == f"counts taken from {name}"
    if place == "raw":
        assert library.decisions[1].startswith("passed over X: the values are log1p of counts scaled")


@pytest.mark.parametrize("rows", [1, 7, 100, 10_000])
def test_dense_blocks_of_any_size_give_the_same(rows, tmp_path, big, frame, monkeypatch):
    obs, var = frame(700)
    ad.AnnData(big.toarray(), obs=obs, var=var).write_h5ad(tmp_path / "a.h5ad")
    monkeypatch.setattr(module, "_BLOCK_BYTES", rows * 12 * 4)
    np.testing.assert_array_equal(read(tmp_path / "a.h5ad").matrix.toarray(), big.toarray())


@pytest.mark.parametrize("name", ["counts", "raw_counts", "Raw Counts", "raw", "UMI-counts", "umis"])
def test_layers_of_counts_by_any_known_name(name, tmp_path, big, frame):
    obs, var = frame(700)
    adata = ad.AnnData(logged(big), obs=obs, var=var, layers={name: big, "scaled": logged(big)})
    adata.write_h5ad(tmp_path / "a.h5ad")
    library = read(tmp_path / "a.h5ad")
    assert library.decisions == [f'counts taken from layers["{name}"]']
    np.testing.assert_array_equal(library.matrix.toarray(), big.toarray())


def test_a_layer_called_counts_that_holds_none_is_passed_over(tmp_path, big, frame):
    obs, var = frame(700)
    ad.AnnData(big, obs=obs, var=var, layers={"counts": logged(big)}).write_h5ad(tmp_path / "a.h5ad")
    library = read(tmp_path / "a.h5ad")
    assert library.decisions[0] == "counts taken from X"
    assert library.decisions[1].startswith(
        'passed over layers["counts"]: the values are log1p of counts scaled to 1e+04'
    )
    np.testing.assert_array_equal(library.matrix.toarray(), big.toarray())


def test_raw_with_more_genes_wins_over_counts_of_variable_genes(tmp_path, big, frame):
    obs, var = frame(700)
    adata = ad.AnnData(big, obs=obs, var=var)
    adata.raw = adata
    adata[:, :5].copy().write_h5ad(tmp_path / "a.h5ad")
    library = read(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(library.matrix.toarray(), big.toarray())
    assert library.decisions == ["counts taken from raw.X, which has 12 features where X has 5"]


def test_no_x_at_all(tmp_path, big, frame):
    obs, var = frame(700)
    ad.AnnData(obs=obs, var=var, layers={"counts": big}).write_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(read(tmp_path / "a.h5ad").matrix.toarray(), big.toarray())


def test_no_counts_anywhere_names_each_place_and_what_it_holds(tmp_path, big, frame):
    obs, var = frame(700)
    adata = ad.AnnData(logged(big).toarray() - 0.4, obs=obs, var=var, layers={"spliced": big, "unspliced": big})
    adata.raw = ad.AnnData(logged(big), obs=obs, var=var)
    adata.write_h5ad(tmp_path / "a.h5ad")
    file = sniff(tmp_path / "a.h5ad")
    for act in (H5AD.run, H5AD.peek):
        with pytest.raises(UserError, match="no raw counts in X") as refused:
            act(file, LibraryFiles("S1", own=(file,)))
        assert "X (counts are never negative" in str(refused.value)
        assert "raw.X (the values are log1p of counts scaled to 1e+04 per cell" in str(refused.value)
        assert "other layers: spliced, unspliced" in str(refused.value)


def test_fractions_are_left_to_the_check_of_counts(tmp_path, big, frame):
    obs, var = frame(700)
    corrected = np.maximum(big.toarray() - 0.04, 0)
    adata = ad.AnnData(corrected, obs=obs, var=var)
    adata.raw = ad.AnnData(logged(big), obs=obs, var=var)
    adata.write_h5ad(tmp_path / "a.h5ad")
    library = read(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(library.matrix.toarray(), corrected)
    assert library.decisions[0].startswith("taken from X: the values are fractions of counts")
    integer_counts(library, "a", ReadingSettings(round_fractions=True))
    np.testing.assert_array_equal(library.matrix.toarray(), big.toarray())


def test_ids_as_names_and_symbols_in_a_categorical(tmp_path, counts, genes, barcodes):
    var = pd.DataFrame({"feature_name": pd.Categorical(genes["gene_symbol"])}, index=list(genes["gene_id"]))
    ad.AnnData(counts, obs=pd.DataFrame(index=barcodes), var=var).write_h5ad(tmp_path / "a.h5ad")
    features = read(tmp_path / "a.h5ad").features
    assert list(features["gene_id"]) == list(genes["gene_id"])
    assert list(features["gene_symbol"]) == list(genes["gene_symbol"])


def test_ids_alone_leave_the_symbol_empty(tmp_path, counts, genes, barcodes):
    adata = ad.AnnData(counts, obs=pd.DataFrame(index=barcodes), var=pd.DataFrame(index=list(genes["gene_id"])))
    adata.write_h5ad(tmp_path / "a.h5ad")
    features = read(tmp_path / "a.h5ad").features
    assert list(features["gene_id"]) == list(genes["gene_id"])
    assert set(features["gene_symbol"]) == {""}


def test_types_and_genomes_of_features(tmp_path, counts, genes, barcodes):
    kinds = ["Gene Expression"] * 10 + ["Antibody Capture"] * 2
    var = genes.set_index("gene_symbol").assign(feature_types=kinds, genome=["GRCh38"] * 6 + ["mm10"] * 6)
    ad.AnnData(counts, obs=pd.DataFrame(index=barcodes), var=var).write_h5ad(tmp_path / "a.h5ad")
    features = read(tmp_path / "a.h5ad").features
    assert list(features["feature_type"]) == kinds
    assert list(features["genome"]) == ["GRCh38"] * 6 + ["mm10"] * 6


def test_a_biotype_is_no_feature_type(tmp_path, counts, genes, barcodes):
    var = genes.set_index("gene_symbol").assign(feature_type="protein_coding")
    ad.AnnData(counts, obs=pd.DataFrame(index=barcodes), var=var).write_h5ad(tmp_path / "a.h5ad")
    assert set(read(tmp_path / "a.h5ad").features["feature_type"]) == {""}


def test_missing_symbols_are_empty(tmp_path, counts, genes, barcodes):
    symbols = pd.Categorical([None, *genes["gene_symbol"][1:]])
    var = pd.DataFrame({"gene_name": symbols}, index=list(genes["gene_id"]))
    ad.AnnData(counts, obs=pd.DataFrame(index=barcodes), var=var).write_h5ad(tmp_path / "a.h5ad")
    assert list(read(tmp_path / "a.h5ad").features["gene_symbol"]) == ["", *genes["gene_symbol"][1:]]


def test_useful_columns_of_obs_are_named(tmp_path, counts, genes, barcodes):
    obs = pd.DataFrame({"n_counts": 1, "donor_id": "d", "Cell type": "T"}, index=barcodes)
    ad.AnnData(counts, obs=obs, var=genes.set_index("gene_symbol")).write_h5ad(tmp_path / "a.h5ad")
    assert read(tmp_path / "a.h5ad").decisions[-1] == (
        "not taken over from obs, but of use in a per-cell table (sheet column cells): Cell type, donor_id"
    )


def _old_table(handle, name, index, **columns):
    """A data set of records, as anndata wrote tables before 0.7."""
    fields = [("index", "S24"), *((column, np.asarray(values).dtype) for column, values in columns.items())]
    table = np.zeros(len(index), dtype=fields)
    table["index"] = np.array(index, dtype="S")
    for column, values in columns.items():
        table[column] = values
    handle[name] = table


@pytest.mark.parametrize("raw", ["group", "dotted"])
def test_files_of_before_anndata_0_7(raw, tmp_path, counts, genes, barcodes):
    with h5py.File(tmp_path / "a.h5ad", "w") as handle:
        codes = np.arange(12, dtype=np.int8)[::-1]
        _old_table(handle, "var", genes["gene_id"], gene_name=codes)
        handle["uns/gene_name_categories"] = np.array(genes["gene_symbol"][::-1], dtype="S")
        _old_table(handle, "obs", barcodes, donor=np.zeros(7, np.int8))
        handle["X"] = logged(counts).toarray()
        name = "raw/" if raw == "group" else "raw."
        _old_table(handle, f"{name}var", genes["gene_id"], gene_name=codes)
        group = handle.create_group(f"{name}X")
        group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = b"csr", counts.shape
        for part in ("data", "indices", "indptr"):
            group[part] = getattr(counts, part)
    library = read(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(library.matrix.toarray(), counts.toarray())
    assert list(library.barcodes) == barcodes
    assert list(library.features["gene_id"]) == list(genes["gene_id"])
    assert list(library.features["gene_symbol"]) == list(genes["gene_symbol"])
    assert library.decisions[0] == "counts taken from raw.X"


def test_categories_of_anndata_0_7(tmp_path, counts, genes, barcodes):
    with h5py.File(tmp_path / "a.h5ad", "w") as handle:
        handle["X"] = counts.toarray()
        for name, index in (("obs", barcodes), ("var", genes["gene_id"])):
            handle[f"{name}/names"] = np.array(index, dtype="S")
            handle[name].attrs["_index"] = "names"
        handle["var/gene_name"] = np.arange(12, dtype=np.int8)[::-1]
        handle["var/__categories/gene_name"] = np.array(genes["gene_symbol"][::-1], dtype="S")
        handle["var/gene_name"].attrs["categories"] = handle["var/__categories/gene_name"].ref
    library = read(tmp_path / "a.h5ad")
    assert list(library.features["gene_symbol"]) == list(genes["gene_symbol"])
    assert list(library.barcodes) == barcodes
    np.testing.assert_array_equal(library.matrix.toarray(), counts.toarray())


def _replace(name, value):
    def change(handle):
        del handle[name]
        handle[name] = value

    return change


def _shape(size):
    return lambda handle: handle["X"].attrs.__setitem__("shape", size)


def _huge(handle):
    del handle["X"]
    handle.create_dataset("X", shape=(7, 12 * 10**10), dtype="f4", chunks=(7, 1 << 16))


LIES = {
    "X in another file": (_replace("X", h5py.ExternalLink("/etc/passwd", "/x")), "X is a link"),
    "values in another file": (_replace("X/data", h5py.ExternalLink("b.h5", "/x")), "data is a link"),
    "soft link": (_replace("X/data", h5py.SoftLink("/X/indices")), "data is a link"),
    "obs in another file": (_replace("obs", h5py.ExternalLink("b.h5", "/x")), "obs is a link"),
    "names in another file": (_replace("var/gene_symbol", h5py.ExternalLink("b.h5", "/x")), "is a link"),
    "shape": (_shape((7, 13)), "X is 7 x 13 where its tables name 7 cells and 12 features"),
    "huge shape": (_shape((10**12, 10**12)), "X is 1,000,000,000,000 x"),
    "three sizes": (_shape((7, 12, 1)), "no matrix that can be read"),
    "no encoding": (lambda handle: handle["X"].attrs.__delitem__("encoding-type"), "encoding unknown"),
    "values declared and not stored": (_huge, "declares"),
    "pointers fall": (_replace("X/indptr", np.array([0, 9, 3, 9, 20, 30, 39, 65])), "contradicts itself"),
    "pointers beyond": (_replace("X/indptr", np.array([0, 1, 3, 9, 20, 30, 39, 10**9])), "contradicts itself"),
    "indices outside": (lambda handle: handle["X/indices"].__setitem__(3, 12), "an index lies outside"),
    "codes outside": (lambda handle: handle["var/symbol/codes"].__setitem__(3, 100), "codes have no category"),
    "no obs": (lambda handle: handle.__delitem__("obs"), "has no obs"),
    "text for values": (_replace("X/data", np.array([b"a"] * 65)), "holds no numbers"),
    "text for a dense matrix": (_replace("X", np.full((7, 12), b"a")), "holds no numbers"),
    "column of another length": (_replace("var/gene_id", np.array([b"a"] * 5)), "5 of 12 rows"),
    "column of another kind": (
        lambda handle: (handle["var"].__delitem__("gene_id"), handle["var"].create_group("gene_id")),
        "of a kind that cannot be read",
    ),
}


@pytest.fixture
def plain(tmp_path, counts, genes, barcodes) -> Path:
    var = genes.set_index("gene_symbol").assign(symbol=pd.Categorical(genes["gene_symbol"].to_numpy()))
    ad.AnnData(counts, obs=pd.DataFrame(index=barcodes), var=var).write_h5ad(tmp_path / "a.h5ad")
    return tmp_path / "a.h5ad"


@pytest.mark.parametrize(("change", "words"), LIES.values(), ids=LIES)
def test_lies_are_refused_in_words(change, words, plain):
    with h5py.File(plain, "r+") as handle:
        change(handle)
    file = sniff(plain)
    assert file.kind is Kind.H5AD
    with pytest.raises(UserError, match=words) as refused:
        H5AD.run(file, LibraryFiles("S1", own=(file,)))
    assert str(plain) in str(refused.value)


def test_a_missing_value_is_named_by_gene_and_cell(plain, barcodes):
    with h5py.File(plain, "r+") as handle:
        values = handle["X/data"][:].astype(float)
        values[0] = np.nan
        _replace("X/data", values)(handle)
    library = read(plain)
    with pytest.raises(UserError, match=rf"nan for .* in cell {barcodes[0]}"):
        integer_counts(library, "a", ReadingSettings())


def test_the_rest_of_the_file_is_not_read(plain, counts):
    with h5py.File(plain, "r+") as handle:
        handle["uns/secret"] = h5py.ExternalLink("/etc/passwd", "/x")
        handle["obs/pickled"] = np.void(b"\x80\x04cos\nsystem\n.")
        _huge_layer = handle["layers"].create_dataset("scaled", shape=(10**9, 10**9), dtype="f8", chunks=(1, 1 << 16))
    np.testing.assert_array_equal(read(plain).matrix.toarray(), counts.toarray())


def test_damaged_bytes_give_a_message_or_a_sound_matrix(tmp_path, counts, genes, barcodes):
    """Names have a fixed width here: HDF5's own library may loop for ever over a damaged heap of strings."""
    plain = tmp_path / "a.h5ad"
    with h5py.File(plain, "w") as handle:
        group = handle.create_group("X")
        group.attrs["encoding-type"], group.attrs["shape"] = np.bytes_(b"csr_matrix"), counts.shape
        for part in ("data", "indices", "indptr"):
            group[part] = getattr(counts, part)
        for name, index in (("obs", barcodes), ("var", genes["gene_symbol"])):
            handle[f"{name}/names"] = np.array(index, dtype="S")
            handle[name].attrs["_index"] = np.bytes_(b"names")
    read(plain)
    whole = plain.read_bytes()
    rng = np.random.default_rng(1)
    outcomes = {"read": 0, "refused": 0}
    for turn in range(300):
        content = bytearray(whole)
        for place in rng.integers(0, len(content), size=rng.integers(1, 20)):
            content[place] = rng.integers(0, 256)
        plain.write_bytes(bytes(content[: rng.integers(1, len(content)) if turn % 10 == 0 else None]))
        try:
            file = sniff(plain)
            if file.kind is Kind.H5AD:
                library = H5AD.run(file, LibraryFiles("S1", own=(file,)))
                assert library.matrix.shape == (len(library.barcodes), len(library.features))
                library.matrix.check_format(full_check=True)
                outcomes["read"] += 1
        except UserError as error:
            assert "a.h5ad" in str(error)
            outcomes["refused"] += 1
    assert outcomes["read"] and outcomes["refused"], outcomes
