"""CellRanger's HDF5 files, genuine and made: every group layout gives the same cells, and no lie is believed."""

from __future__ import annotations

import gzip
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from immunomod.errors import UserError
from immunomod.sample.readers.library import LibraryCounts, LibraryFiles
from immunomod.sample.readers.sniff import Kind, sniff
from immunomod.sample.readers.tenx_h5 import TENX_H5

N_CELLS, N_GENES = 7, 12


def read(path: Path) -> LibraryCounts:
    """Read by the layout, after the sniffer has told it, and hold the peek against the reading."""
    file = sniff(path)
    files = LibraryFiles("S1", own=(file,))
    assert TENX_H5.recognise(files) == [file]
    library = TENX_H5.run(file, files)
    head = TENX_H5.peek(file, files)
    assert (head.n_cells, head.n_features) == library.matrix.shape
    assert list(head.barcodes) == list(library.barcodes)
    pd.testing.assert_frame_equal(head.features, library.features)
    assert head.decisions == library.decisions
    return library


def put_group(handle, name, counts, barcodes, genes, **tables):
    """A CellRanger group; ``tables`` are further columns of v3's features, and without any it is a v2 group."""
    group = handle.create_group(name) if name else handle
    columns = sparse.csc_matrix(counts.T)
    group["data"], group["indices"] = columns.data.astype(np.int32), columns.indices.astype(np.int64)
    group["indptr"], group["shape"] = columns.indptr.astype(np.int64), np.array(columns.shape, np.int32)
    group["barcodes"] = np.array(barcodes, dtype="S")
    if tables:
        group["features/id"] = np.array(genes["gene_id"], dtype="S")
        group["features/name"] = np.array(genes["gene_symbol"], dtype="S")
        for column, values in tables.items():
            group[f"features/{column}"] = np.array(values, dtype="S")
    else:
        group["genes"] = np.array(genes["gene_id"], dtype="S")
        group["gene_names"] = np.array(genes["gene_symbol"], dtype="S")
    return group


@pytest.fixture
def v3(tmp_path, counts, barcodes, genes):
    """Write a version 3 file, changed by a function of its group ``matrix``."""

    def write(change=lambda group: None, types=("Gene Expression",) * N_GENES, **tables) -> Path:
        path = tmp_path / "a.h5"
        with h5py.File(path, "w") as handle:
            change(put_group(handle, "matrix", counts, barcodes, genes, feature_type=types, **tables))
        return path

    return write


@pytest.mark.parametrize("name", ["1.2.0/filtered_gene_bc_matrices_h5.h5", "3.0.0/filtered_feature_bc_matrix.h5"])
def test_genuine_files_agree_with_scanpy(name, shared):
    scanpy = pytest.importorskip("scanpy")
    path = shared / "data" / "tenx" / name
    library = read(path)
    reference = scanpy.read_10x_h5(path, gex_only=False)
    assert list(library.barcodes) == list(reference.obs_names)
    ids, symbols = library.features["gene_id"], library.features["gene_symbol"]
    assert list(ids.where(ids != "", symbols)) == list(reference.var["gene_ids"])
    assert list(library.features["gene_symbol"]) == list(reference.var_names)
    assert library.matrix.dtype == np.int32
    assert library.matrix.indices.dtype == np.int32
    np.testing.assert_array_equal(library.matrix.toarray(), reference.X.toarray())


def test_genuine_file_of_two_genomes_agrees_with_scanpy_on_each(shared):
    scanpy = pytest.importorskip("scanpy")
    path = shared / "data" / "tenx" / "1.2.0" / "multiple_genomes.h5"
    library = read(path)
    assert set(library.features["genome"]) == {"hg19_chr21", "another_genome"}
    seen = set()
    for genome in ("hg19_chr21", "another_genome"):
        reference = scanpy.read_10x_h5(path, genome=genome)
        here = (library.features["genome"] == genome).to_numpy()
        found = pd.DataFrame(library.matrix[:, here].toarray(), index=library.barcodes)
        assert list(library.features.loc[here, "gene_symbol"]) == list(reference.var["gene_ids"])
        np.testing.assert_array_equal(found.loc[reference.obs_names].to_numpy(), reference.X.toarray())
        assert found.drop(reference.obs_names).to_numpy().sum() == 0
        seen |= set(reference.obs_names)
    assert set(library.barcodes) == seen
    assert len(library.barcodes) == len(seen)


def test_genomes_with_different_barcodes_are_joined_by_barcode(tmp_path, counts, barcodes, genes):
    dense = counts.toarray()
    here, there = [0, 1, 2, 3], [5, 3, 0, 6]
    with h5py.File(tmp_path / "two.h5", "w") as handle:
        put_group(handle, "hg19", dense[here], [barcodes[i] for i in here], genes)
        put_group(handle, "mm10", dense[there] + 1, [barcodes[i] for i in there], genes)
    library = read(tmp_path / "two.h5")
    assert list(library.barcodes) == [barcodes[i] for i in (0, 1, 2, 3, 5, 6)]
    expected = np.zeros((6, 24), dtype=int)
    expected[:4, :12] = dense[here]
    expected[[4, 3, 0, 5], 12:] = dense[there] + 1
    np.testing.assert_array_equal(library.matrix.toarray(), expected)
    assert list(library.features["genome"]) == ["hg19"] * 12 + ["mm10"] * 12
    assert library.decisions[0] == "joined the genomes hg19, mm10: 6 barcodes in any"


def test_genome_of_each_feature_is_kept_where_there_are_several(v3):
    genomes = ["GRCh38"] * 8 + ["mm10"] * 4
    library = read(v3(genome=genomes))
    assert list(library.features["genome"]) == genomes
    assert library.decisions == ["features of GRCh38 (8) and mm10 (4)"]
    assert "genome" not in read(v3(genome=["GRCh38"] * 12)).features


@pytest.mark.parametrize("tables", [{}, {"genome": ["GRCh38"] * N_GENES}, {"genome": ["GRCh38"] * 10 + [""] * 2}])
def test_one_genome_or_none(v3, counts, tables):
    library = read(v3(**tables))
    assert list(library.features.columns) == ["gene_id", "gene_symbol", "feature_type"]
    np.testing.assert_array_equal(library.matrix.toarray(), counts.toarray())


def test_feature_types_are_kept(v3):
    types = ["Gene Expression"] * 9 + ["Antibody Capture"] * 2 + ["Multiplexing Capture"]
    assert list(read(v3(types=types)).features["feature_type"]) == types


@pytest.mark.parametrize("name", ["GRCh38", "background_removed", ""], ids=["genome", "other name", "at the top"])
def test_groups_of_any_name(name, tmp_path, counts, barcodes, genes):
    with h5py.File(tmp_path / "a.h5", "w") as handle:
        put_group(handle, name, counts, barcodes, genes)
        handle["notes/x"] = 1
    library = read(tmp_path / "a.h5")
    np.testing.assert_array_equal(library.matrix.toarray(), counts.toarray())
    assert list(library.features["gene_id"]) == list(genes["gene_id"])
    assert library.decisions == ([f"group {name}"] if name else [])


def test_several_libraries_are_told_by_their_suffixes(tmp_path, counts, barcodes, genes):
    cells = [f"{one[:-2]}-{1 + i % 3}" for i, one in enumerate(barcodes)]
    with h5py.File(tmp_path / "aggr.h5", "w") as handle:
        put_group(handle, "matrix", counts, cells, genes, feature_type=["Gene Expression"] * 12)
    library = read(tmp_path / "aggr.h5")
    assert list(library.barcodes) == cells
    assert library.decisions == ["barcodes end in 3 different numbers: several libraries in one matrix"]


@pytest.mark.parametrize("place", ["droplet_latents/cell_probability", "matrix/latent_cell_probability"])
def test_cellbender_is_noted(place, v3, counts):
    library = read(v3(lambda group: group.file.__setitem__(place, np.ones(3))))
    assert library.decisions == ["the counts are CellBender's: corrected for ambient RNA by the authors"]
    np.testing.assert_array_equal(library.matrix.toarray(), counts.toarray())


@pytest.mark.parametrize("dtype", ["u1", "i2", ">i4", "<i8", "u8", "f4", "f8"])
def test_whole_numbers_of_any_type_become_int32(dtype, v3, counts):
    def change(group):
        for name in ("data", "indices", "indptr"):
            values = group[name][:]
            del group[name]
            group[name] = values.astype(dtype)

    library = read(v3(change))
    assert library.matrix.dtype == np.int32
    np.testing.assert_array_equal(library.matrix.toarray(), counts.toarray())


def test_fractions_stay_for_the_check_of_counts(v3, counts):
    def change(group):
        values = group["data"][:] + 0.25
        del group["data"]
        group["data"] = values

    np.testing.assert_array_equal(read(v3(change)).matrix.data, counts.tocsr().data + 0.25)


def test_names_that_are_ids_twice_leave_the_symbol_empty(tmp_path, counts, barcodes, genes):
    for column, empty in (("gene_id", "gene_symbol"), ("gene_symbol", "gene_id")):
        twice = pd.DataFrame({"gene_id": genes[column], "gene_symbol": genes[column]})
        with h5py.File(tmp_path / "a.h5", "w") as handle:
            put_group(handle, "GRCh38", counts, barcodes, twice)
        features = read(tmp_path / "a.h5").features
        assert list(features[column]) == list(genes[column])
        assert set(features[empty]) == {""}


def test_a_file_compressed_as_a_whole(v3, tmp_path, counts):
    path = tmp_path / "a.h5.gz"
    path.write_bytes(gzip.compress(v3().read_bytes()))
    np.testing.assert_array_equal(read(path).matrix.toarray(), counts.toarray())


def test_a_damaged_file_compressed_as_a_whole_is_named(v3, tmp_path):
    path = tmp_path / "a.h5.gz"
    path.write_bytes(gzip.compress(v3().read_bytes()[:4000]))
    assert sniff(path).kind is Kind.HDF5
    assert sniff(path).damage.startswith(f"{path}: the HDF5 file is truncated")


def _set(name, values):
    def change(group):
        del group[name]
        group[name] = values

    return change


def _link(name, link):
    def change(group):
        del group[name]
        group[name] = link

    return change


def _huge(group):
    del group["data"]
    group.create_dataset("data", shape=(10**12,), dtype="i4", chunks=(1 << 20,))


def _external_storage(group):
    del group["data"]
    group.create_dataset("data", shape=(10,), dtype="i4", external=[("/etc/hostname", 0, 40)])


def _virtual(group):
    del group["data"]
    layout = h5py.VirtualLayout(shape=(10,), dtype="i4")
    layout[:] = h5py.VirtualSource("other.h5", "x", shape=(10,))
    group.create_virtual_dataset("data", layout)


LIES = {
    "shape": (_set("shape", np.array([13, 7])), r"declares \(13, 7\) features and cells and names 12 features"),
    "huge shape": (_set("shape", np.array([10**12, 10**12])), "declares"),
    "negative shape": (_set("shape", np.array([-12, -7])), "declares"),
    "too few barcodes": (_set("barcodes", np.array([b"A"])), "declares"),
    "too many pointers": (_set("indptr", np.zeros(12, int)), r"holds \(12,\) pointers"),
    "pointers fall": (_set("indptr", np.array([0, 40, 3, 9, 20, 30, 39, 48])), "pointers do not run"),
    "pointers beyond": (_set("indptr", np.array([0, 1, 3, 9, 20, 30, 39, 10**9])), "pointers do not run"),
    "negative pointers": (_set("indptr", np.array([0, -1, 3, 9, 20, 30, 39, 48])), "pointers do not run"),
    "fewer values": (_set("data", np.ones(3, int)), r"\(3,\) values"),
    "text for values": (_set("data", np.array([b"x"] * 3)), "values"),
    "features of unequal length": (_set("features/name", np.array([b"A"] * 3)), "unequal length"),
    "no ids and names": (lambda group: group.__delitem__("features"), "names no features"),
    "link to another file": (_link("data", h5py.ExternalLink("/etc/passwd", "/x")), "data is a link to another place"),
    "soft link": (_link("data", h5py.SoftLink("/matrix/indices")), "data is a link to another place"),
    "features in another file": (_link("features", h5py.ExternalLink("b.h5", "/x")), "features is a link"),
    "values declared and not stored": (_huge, "declares 4,000,000,000,000 bytes and stores 0"),
    "values in another file": (_external_storage, "keeps its values in other files"),
    "virtual values": (_virtual, "keeps its values in other files"),
    "barcodes that are a group": (
        lambda group: (group.__delitem__("barcodes"), group.create_group("barcodes")),
        "barcodes is missing",
    ),
}


@pytest.mark.parametrize(("change", "words"), LIES.values(), ids=LIES)
def test_lies_are_refused_in_words(change, words, v3):
    file = sniff(v3(change))
    assert file.kind is Kind.TENX_H5
    with pytest.raises(UserError, match=words) as refused:
        TENX_H5.run(file, LibraryFiles("S1", own=(file,)))
    assert str(file.path) in str(refused.value)


@pytest.mark.parametrize("wrong", [-1, 12, 2**31])
def test_indices_outside_are_refused(wrong, v3):
    def change(group):
        group["indices"][4] = wrong

    file = sniff(v3(change))
    with pytest.raises(UserError, match="an index lies outside the 12 columns"):
        TENX_H5.run(file, LibraryFiles("S1", own=(file,)))


@pytest.mark.parametrize("link", [h5py.ExternalLink("b.h5", "/matrix"), h5py.SoftLink("/notes")])
def test_a_group_behind_a_link_is_not_seen(link, tmp_path, counts, barcodes, genes):
    with h5py.File(tmp_path / "b.h5", "w") as handle:
        put_group(handle, "matrix", counts, barcodes, genes)
    with h5py.File(tmp_path / "a.h5", "w") as handle:
        handle["matrix"] = link
        handle["notes/x"] = 1
    assert sniff(tmp_path / "a.h5").kind is Kind.HDF5


def test_damaged_bytes_give_a_message_or_the_same_shape(v3):
    whole = v3().read_bytes()
    path = v3()
    rng = np.random.default_rng(1)
    outcomes = {"read": 0, "refused": 0}
    for turn in range(300):
        content = bytearray(whole)
        for place in rng.integers(0, len(content), size=rng.integers(1, 6)):
            content[place] = rng.integers(0, 256)
        path.write_bytes(bytes(content[: rng.integers(1, len(content)) if turn % 10 == 0 else None]))
        try:
            file = sniff(path)
            if file.kind is Kind.TENX_H5:
                library = TENX_H5.run(file, LibraryFiles("S1", own=(file,)))
                assert library.matrix.shape == (len(library.barcodes), len(library.features))
                library.matrix.check_format(full_check=True)
                outcomes["read"] += 1
        except UserError as error:
            assert "a.h5" in str(error)
            outcomes["refused"] += 1
    assert outcomes["read"] and outcomes["refused"], outcomes
