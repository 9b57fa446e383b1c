"""Counts of one library: every layout gives the same cells x genes, and every fault one clear message."""

from __future__ import annotations

import gzip

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from immunomod.errors import UserError
from immunomod.sample.read import LEDGER_COLUMNS, read_sample
from immunomod.sample.readers import REGISTRY


def assert_library(adata, counts, barcodes, genes):
    assert sparse.isspmatrix_csr(adata.X)
    assert adata.X.dtype == np.int32
    assert list(adata.obs["barcode"]) == list(barcodes)
    assert list(adata.obs_names) == [f"S1:{barcode}" for barcode in barcodes]
    assert list(adata.var["gene_symbol"]) == list(genes["gene_symbol"])
    np.testing.assert_array_equal(adata.X.toarray(), counts.toarray())


NAMES = {
    "v3": ("matrix.mtx.gz", "features.tsv.gz", "barcodes.tsv.gz"),
    "v2 plain": ("matrix.mtx", "genes.tsv", "barcodes.tsv"),
    "prefix with underscore": ("GSM1_a_matrix.mtx.gz", "GSM1_a_features.tsv.gz", "GSM1_a_barcodes.tsv.gz"),
    "prefix with dot": ("GSM1.matrix.mtx.gz", "GSM1.genes.tsv.gz", "GSM1.barcodes.tsv.gz"),
    "suffix": ("matrix_a.mtx.gz", "features_a.tsv.gz", "barcodes_a.tsv.gz"),
    "no telling name": ("GSM1_2.1.mtx.gz", "x.tsv.gz", "y.tsv.gz"),
    "matrix named txt": ("counts.txt.gz", "x.txt.gz", "y.txt.gz"),
    "names that lie": ("a_barcodes.tsv.gz", "a_matrix.mtx.gz", "a_genes.tsv.gz"),
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("third", ["", "\tGene Expression", "\tGene\tExpression"], ids=["v2", "v3", "torn type"])
def test_triplets_are_told_by_content(names, third, triplet, manifest_of, sheet_row, counts, barcodes, genes):
    adata, ledger = read_sample(sheet_row(), manifest_of(triplet(*names, third=third)))
    assert_library(adata, counts, barcodes, genes)
    assert list(adata.var_names) == list(genes["gene_id"])
    assert set(ledger["parser"]) == {"10x_triplet"}


def test_features_shared_by_the_data_set(triplet, put, manifest_of, sheet_row, counts, barcodes, genes):
    matrix, features, cells = triplet("GSM1_2.1.mtx.gz", "GSE1_batch2.genes.tsv.gz", "GSM1_barcodes.tsv.gz")
    table = put("GSE1_tsne.tsv.gz", "x\ty\n" + "".join(f"c{i}\t1\t2\n" for i in range(30)))
    adata, ledger = read_sample(sheet_row(), manifest_of([matrix, cells], [features, table]))
    assert_library(adata, counts, barcodes, genes)
    assert list(ledger.columns) == list(LEDGER_COLUMNS)
    assert set(ledger["path"]) == {str(matrix), str(features), str(cells)}
    assert set(ledger["sample"]) == {"S1"}


def test_own_barcodes_win_over_anothers_of_the_same_length(triplet, put, manifest_of, sheet_row, barcodes):
    own = triplet()
    other = put("other_barcodes.tsv", "".join(f"{'ACGT' * 4}{'A' * i}-1\n" for i in range(7)))
    adata, _ = read_sample(sheet_row(), manifest_of(own, [other]))
    assert list(adata.obs["barcode"]) == barcodes


def test_transposed_matrix(triplet, put, matrix_market, manifest_of, sheet_row, counts, barcodes, genes):
    files = triplet()
    files[0] = put("matrix.mtx.gz", matrix_market(counts))
    adata, ledger = read_sample(sheet_row(), manifest_of(files))
    assert_library(adata, counts, barcodes, genes)
    assert ledger["decision"].str.contains("transposed").any()


def test_square_matrix_does_not_pass_silently(put, matrix_market, manifest_of, sheet_row, counts, barcodes, genes):
    square = counts[:, :7]
    rows = "".join(f"{one.gene_id}\t{one.gene_symbol}\n" for one in genes.iloc[:7].itertuples())
    text = matrix_market(square.T)
    files = [put("m.mtx", text), put("a.tsv", "".join(f"{b}\n" for b in barcodes)), put("b.tsv", rows)]
    with pytest.raises(UserError, match=r"as many rows as columns \(7\).*add the line `%metadata_json"):
        read_sample(sheet_row(), manifest_of(files))
    put("m.mtx", text.replace(b"\n", b"\n%metadata_json: {}\n", 1))
    adata, ledger = read_sample(sheet_row(), manifest_of(files))
    assert_library(adata, square, barcodes, genes.iloc[:7])
    assert ledger["decision"].str.contains("square").any()


def test_feature_table_with_header_and_seven_columns(triplet, put, manifest_of, sheet_row, counts, barcodes, genes):
    files = triplet()
    rows = "".join(f"chr1\t{i}\t{g.gene_id}.{i}\t{g.gene_symbol}\tGene Expression\tx\ty\n" for i, g in genes.iterrows())
    files[1] = put("features.tsv.gz", "chrom\tstart\tid\tname\ttype\tp\tq\n" + rows)
    adata, ledger = read_sample(sheet_row(), manifest_of(files))
    assert list(adata.var_names) == list(genes["gene_id"])
    assert "removed the version of 12 Ensembl ids" in "".join(ledger["decision"])
    np.testing.assert_array_equal(adata.X.toarray(), counts.toarray())


def test_one_column_of_symbols(triplet, put, manifest_of, sheet_row, counts, barcodes, genes):
    files = triplet()
    files[1] = put("features.tsv.gz", "".join(f"{symbol}\n" for symbol in genes["gene_symbol"]))
    adata, _ = read_sample(sheet_row(), manifest_of(files))
    assert_library(adata, counts, barcodes, genes)
    assert list(adata.var_names) == list(genes["gene_symbol"])
    assert set(adata.var["gene_id"]) == {""}


def test_antibodies_are_set_aside_and_duplicate_genes_summed(put, matrix_market, manifest_of, sheet_row, barcodes):
    counts = np.random.default_rng(3).poisson(2, size=(7, 6)).astype(np.int32)
    features = [
        ("hg19_ENSG00000075624.3", "hg19_ACTB", "Gene Expression"),
        ("hg19_ENSG00000166710.1", "hg19_B2M", "Gene Expression"),
        ("hg19_ENSG00000075624.4", "hg19_ACTB", "Gene Expression"),
        ("CD3", "CD3_TotalSeq", "Antibody Capture"),
        ("hg19_ENSG00000090382", "hg19_LYZ", "Gene Expression"),
        ("HTO1", "HTO1", "Antibody Capture"),
    ]
    files = [
        put("m.mtx.gz", matrix_market(sparse.csr_matrix(counts.T))),
        put("f.tsv.gz", "".join("\t".join(one) + "\n" for one in features)),
        put("b.tsv.gz", "".join(f"{b}\n" for b in barcodes)),
    ]
    adata, ledger = read_sample(sheet_row(), manifest_of(files))
    expected = np.column_stack([counts[:, 0] + counts[:, 2], counts[:, 1], counts[:, 4]])
    np.testing.assert_array_equal(adata.X.toarray(), expected)
    assert list(adata.var_names) == ["ENSG00000075624", "ENSG00000166710", "ENSG00000090382"]
    assert list(adata.var["gene_symbol"]) == ["ACTB", "B2M", "LYZ"]
    decision = ledger.loc[ledger["decision"].str.startswith("matrix"), "decision"].item()
    assert "1 Antibody Capture, 1 hashtags" in decision
    assert "summed 1 columns" in decision
    assert "removed the prefix hg19_" in decision


@pytest.mark.parametrize("folder", ["1.2.0/filtered_gene_bc_matrices/hg19_chr21", "3.0.0/filtered_feature_bc_matrix"])
def test_real_cellranger_output_agrees_with_scanpy(folder, shared, manifest_of, sheet_row):
    scanpy = pytest.importorskip("scanpy")
    path = shared / "data" / "tenx" / folder
    adata, _ = read_sample(sheet_row(), manifest_of(sorted(path.iterdir())))
    reference = scanpy.read_10x_mtx(path, var_names="gene_ids" if "3.0.0" in folder else "gene_symbols")
    assert list(adata.obs["barcode"]) == list(reference.obs_names)
    np.testing.assert_array_equal(adata.X.toarray(), reference.X.toarray())


@pytest.mark.parametrize("name", ["1.2.0/filtered_gene_bc_matrices_h5.h5", "3.0.0/filtered_feature_bc_matrix.h5"])
def test_real_cellranger_h5_agrees_with_scanpy(name, shared, manifest_of, sheet_row):
    scanpy = pytest.importorskip("scanpy")
    path = shared / "data" / "tenx" / name
    adata, ledger = read_sample(sheet_row(), manifest_of([path]))
    reference = scanpy.read_10x_h5(path)
    assert list(adata.obs["barcode"]) == list(reference.obs_names)
    assert list(adata.var["gene_symbol_given"]) == list(reference.var_names)
    np.testing.assert_array_equal(adata.X.toarray(), reference.X.toarray())
    assert ledger["parser"].item() == "10x_h5"


def test_numeric_gene_ids_stay_names(shared, manifest_of, sheet_row):
    folder = shared / "data" / "tenx" / "int-ids"
    adata, _ = read_sample(sheet_row(organism="mouse"), manifest_of(sorted(folder.iterdir())))
    assert list(adata.var_names)[:2] == ["574405", "574404"]
    assert list(adata.var["gene_symbol"])[:2] == ["Pwwp4b", "Pwwp4a"]
    assert adata.X.dtype == np.int32


@pytest.mark.parametrize("place", ["X", "layer", "raw"])
def test_h5ad_counts_are_found(place, tmp_path, manifest_of, sheet_row, counts, barcodes, genes):
    var = genes.set_index("gene_symbol")[["gene_id"]]
    obs = pd.DataFrame(index=barcodes)
    normalised = sparse.csr_matrix(np.log1p(counts.toarray() * 1.7).astype(np.float32))
    raw = counts.astype(np.float32)
    adata = ad.AnnData(raw if place == "X" else normalised, obs=obs, var=var)
    if place == "layer":
        adata.layers["counts"] = raw
    if place == "raw":
        adata.raw = ad.AnnData(raw, obs=obs, var=var)
        adata = adata[:, :5].copy()
    adata.write_h5ad(tmp_path / "lab.h5ad")
    found, ledger = read_sample(sheet_row(), manifest_of([tmp_path / "lab.h5ad"]))
    assert_library(found, counts, barcodes, genes)
    assert list(found.var_names) == list(genes["gene_id"])
    assert {"X": "from X", "layer": 'layers["counts"]', "raw": "raw.X"}[place] in ledger["decision"].item()


def test_h5ad_without_counts_is_refused(tmp_path, manifest_of, sheet_row, counts, barcodes):
    ad.AnnData(np.log1p(counts.toarray() * 1.7), obs=pd.DataFrame(index=barcodes)).write_h5ad(tmp_path / "lab.h5ad")
    with pytest.raises(UserError, match="no raw counts in X"):
        read_sample(sheet_row(), manifest_of([tmp_path / "lab.h5ad"]))


@pytest.mark.parametrize("delimiter", [",", "\t", ";", " "], ids=["comma", "tab", "semicolon", "space"])
@pytest.mark.parametrize("orientation", ["genes x cells", "cells x genes"])
@pytest.mark.parametrize("header", ["full", "short", "quoted"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
def test_dense_tables(delimiter, orientation, header, line_end, put, manifest_of, sheet_row, counts, barcodes, genes):
    table = pd.DataFrame(counts.toarray(), index=barcodes, columns=genes["gene_symbol"])
    table = table.T if orientation == "genes x cells" else table
    quote = '"' if header == "quoted" else ""
    first = [] if header == "short" else [f"{quote}{quote}"]
    lines = [delimiter.join([*first, *(f"{quote}{name}{quote}" for name in table.columns)])]
    lines += [delimiter.join([f"{quote}{name}{quote}", *map(str, row)]) for name, row in table.T.items()]
    path = put("GSM1_expression.txt.gz", line_end.join(lines) + line_end)
    adata, ledger = read_sample(sheet_row(), manifest_of([path]))
    assert_library(adata, counts, barcodes, genes)
    assert orientation in ledger["decision"].item()


def test_dense_table_of_geo_with_a_short_header(shared, manifest_of, sheet_row):
    path = shared / "data" / "geo_verbatim" / "GSM3502579_AB127.txt.gz"
    adata, _ = read_sample(sheet_row(organism="mouse"), manifest_of([path]))
    reference = pd.read_csv(path, sep="\t", index_col=0)
    assert list(adata.obs["barcode"]) == list(reference.columns)
    spikes = reference.index.str.startswith("ERCC-")
    np.testing.assert_array_equal(adata.X.toarray(), reference[~spikes].T.to_numpy())
    np.testing.assert_array_equal(adata.obsm["spike_in"].to_numpy(), reference[spikes].T.to_numpy())


def test_dense_table_with_text_in_a_cell_names_its_place(put, manifest_of, sheet_row):
    path = put("m.csv", "gene,c1,c2,c3\nACTB,1,2,3\nB2M,4,five,6\n")
    with pytest.raises(UserError, match=r"line 3 \(B2M\), column 'c2': 'five' is no number"):
        read_sample(sheet_row(), manifest_of([path]))


def test_dense_table_cut_short_names_its_row(put, manifest_of, sheet_row):
    path = put("m.csv", "gene,c1,c2,c3\n" + "ACTB,1,2,3\n" * 9 + "B2M,4\n")
    with pytest.raises(
        UserError, match=r"line 11 \(B2M\), the last one, holds 2 fields and the header 4: the file is cut short"
    ):
        read_sample(sheet_row(), manifest_of([path]))


@pytest.mark.parametrize("value", [0.5, -1.0, np.nan])
def test_normalised_values_are_refused(value, put, matrix_market, triplet, manifest_of, sheet_row, counts):
    files = triplet()
    matrix = counts.astype(np.float64).tolil()
    matrix[2, 3] = value
    files[0] = put("matrix.mtx.gz", matrix_market(matrix.tocsr().T, field="real"))
    with pytest.raises(UserError, match=r"not counts \(\S+ for MT-CO1 in cell .*normalised"):
        read_sample(sheet_row(), manifest_of(files))


def test_whole_numbers_written_as_decimals_are_counts(put, matrix_market, triplet, manifest_of, sheet_row, counts):
    files = triplet()
    files[0] = put("matrix.mtx.gz", matrix_market(counts.astype(np.float64).T, field="real"))
    adata, _ = read_sample(sheet_row(), manifest_of(files))
    np.testing.assert_array_equal(adata.X.toarray(), counts.toarray())


@pytest.mark.parametrize("which", [0, 1, 2], ids=["matrix", "features", "barcodes"])
def test_truncated_gzip_names_the_file(which, triplet, manifest_of, sheet_row):
    files = triplet()
    files[which].write_bytes(files[which].read_bytes()[:-12])
    with pytest.raises(UserError, match=f"{files[which].name}: .*(truncated|corrupt|cut short)"):
        read_sample(sheet_row(), manifest_of(files))


def test_large_matrix_truncated_far_behind_its_head(put, matrix_market, manifest_of, sheet_row, triplet):
    files = triplet()
    big = sparse.random(3000, 7, density=0.9, random_state=1, data_rvs=lambda n: np.arange(1, n + 1)).astype(int)
    content = matrix_market(big)
    assert len(content) > 2**17
    files[1] = put("features.tsv.gz", "".join(f"ENSG{i:011d}\tG{i}\n" for i in range(3000)))
    files[0] = put("matrix.mtx.gz", content)
    files[0].write_bytes(files[0].read_bytes()[: files[0].stat().st_size // 2])
    with pytest.raises(UserError, match=r"matrix\.mtx\.gz: .*(truncated|cut short)"):
        read_sample(sheet_row(), manifest_of(files))
    files[0] = put("matrix.mtx", content[: len(content) * 2 // 3])
    with pytest.raises(UserError, match=r"matrix\.mtx: .*cut short"):
        read_sample(sheet_row(), manifest_of(files))


def test_damaged_bits_inside_a_gzip(triplet, manifest_of, sheet_row):
    files = triplet()
    content = bytearray(files[0].read_bytes())
    content[len(content) // 2] ^= 0xFF
    files[0].write_bytes(bytes(content))
    with pytest.raises(UserError, match="matrix"):
        read_sample(sheet_row(), manifest_of(files))


def test_damaged_h5_names_the_file(tmp_path, manifest_of, sheet_row):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as handle:
        handle["matrix/data"] = np.arange(10_000)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UserError, match=r"a\.h5: the HDF5 file is truncated"):
        read_sample(sheet_row(), manifest_of([path]))


@pytest.mark.parametrize(("missing", "named"), [(1, "features"), (2, "barcodes")])
def test_missing_companion_says_what_was_found(missing, named, triplet, manifest_of, sheet_row):
    files = triplet()
    del files[missing]
    with pytest.raises(UserError, match=rf"no {named} table beside this 12 x 7 matrix.*Found: .*{files[1].name}"):
        read_sample(sheet_row(), manifest_of(files))


def test_missing_matrix_says_what_was_found(triplet, manifest_of, sheet_row):
    files = triplet()[1:]
    with pytest.raises(UserError, match=r"no matrix of counts.*barcodes\.tsv\.gz"):
        read_sample(sheet_row(), manifest_of(files))


def test_missing_file_is_named(triplet, manifest_of, sheet_row):
    files = triplet()
    manifest = manifest_of(files)
    files[0].unlink()
    with pytest.raises(UserError, match=r"matrix\.mtx\.gz: no such file"):
        read_sample(sheet_row(), manifest)


def test_html_instead_of_data(put, manifest_of, sheet_row):
    path = put("matrix.mtx.gz", "<!DOCTYPE html><html>Are you a robot?</html>")
    with pytest.raises(UserError, match="web page"):
        read_sample(sheet_row(), manifest_of([path]))


def test_several_matrices_need_a_pattern(triplet, manifest_of, sheet_row, barcodes):
    files = triplet("a/matrix.mtx.gz", "a/features.tsv.gz", "a/barcodes.tsv.gz")
    files += triplet("b_matrix.mtx.gz", "b_features.tsv.gz", "b_barcodes.tsv.gz")
    with pytest.raises(UserError, match="2 matrices with genes among its files"):
        read_sample(sheet_row(), manifest_of(files))
    adata, ledger = read_sample(sheet_row(files="b_*"), manifest_of(files))
    assert list(adata.obs["barcode"]) == barcodes
    read = ledger[ledger["parser"] != ""]
    assert sorted(path.rsplit("/", 1)[1] for path in read["path"]) == sorted(path.name for path in files[3:])
    assert ledger.loc[ledger["parser"] == "", "decision"].str.startswith("not used").all()


def test_duplicate_barcodes_are_refused(triplet, put, manifest_of, sheet_row, barcodes):
    files = triplet()
    files[2] = put("barcodes.tsv.gz", "".join(f"{b}\n" for b in [*barcodes[:6], barcodes[0]]))
    with pytest.raises(UserError, match="1 barcodes stand more than once"):
        read_sample(sheet_row(), manifest_of(files))


def test_counts_of_the_other_species_are_added_up_beside_the_own(
    triplet, put, manifest_of, sheet_row, genes, counts, barcodes
):
    files = triplet()
    prefixes = ["GRCh38_"] * 6 + ["mm10___"] * 6
    names = [g.gene_symbol if i < 6 else g.gene_symbol.capitalize() for i, g in enumerate(genes.itertuples())]
    files[1] = put("features.tsv.gz", "".join(f"{p}{n}\t{p}{n}\n" for p, n in zip(prefixes, names, strict=True)))
    human, mouse = counts[:, :6].sum(axis=1).A1, counts[:, 6:].sum(axis=1).A1
    adata, ledger = read_sample(sheet_row(), manifest_of(files))
    kept = (human + mouse) > 0
    assert list(adata.obs["barcode"]) == [name for name, keep in zip(barcodes, kept, strict=True) if keep]
    np.testing.assert_array_equal(adata.X.toarray(), counts[kept][:, :6].toarray())
    np.testing.assert_array_equal(adata.obs["other_species_counts"], mouse[kept])
    np.testing.assert_allclose(adata.obs["other_species_fraction"], (mouse / (human + mouse))[kept])
    assert "set aside 6 genes of mouse" in "".join(ledger["decision"])


def test_hashtags_alone_are_refused(triplet, manifest_of, sheet_row):
    with pytest.raises(UserError, match=r"no gene expression.*12 Antibody Capture"):
        read_sample(sheet_row(), manifest_of(triplet(third="\tAntibody Capture")))


def test_sheet_columns_are_on_every_cell(triplet, manifest_of, sheet_row, tmp_path):
    adata, _ = read_sample(sheet_row(culture="msc", dose="0.1"), manifest_of(triplet()))
    assert set(adata.obs["culture"]) == {"msc"}
    assert set(adata.obs["dose"]) == {"0.1"}
    assert set(adata.obs["sample"]) == {"S1"}
    adata.write_h5ad(tmp_path / "counts.h5ad")
    assert (ad.read_h5ad(tmp_path / "counts.h5ad").X != adata.X).nnz == 0


def test_registry_records_are_complete():
    for name, layout in REGISTRY.items():
        assert layout.name == name
        assert all((layout.citation, layout.needs, layout.limits))


def test_gzip_is_told_by_content_not_by_name(triplet, manifest_of, sheet_row, counts):
    files = triplet()
    plain = files[0].with_name("matrix.gz.mtx")
    plain.write_bytes(files[0].read_bytes())
    assert gzip.decompress(plain.read_bytes()).startswith(b"%%MatrixMarket")
    adata, _ = read_sample(sheet_row(), manifest_of([plain, *files[1:]]))
    np.testing.assert_array_equal(adata.X.toarray(), counts.toarray())
