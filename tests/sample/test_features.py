"""From features to genes: other kinds kept apart, species told, equal genes summed; against brute force."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from immunomod.errors import UserError
from immunomod.genes import GeneNames
from immunomod.sample.readers.features import (
    COMMON_GENES,
    gene_counts,
    is_ensembl,
    looks_like_barcodes,
    looks_like_genes,
)

HUMAN_GENES = ["ACTB", "GAPDH", "CD3D", "LYZ", "COL1A1", "IDO1", "CD74", "NKG7", "RPL3", "HBB"]
MOUSE_GENES = ["Actb", "Gapdh", "Cd3d", "Lyz2", "Col1a1", "Ido1", "Cd74", "Nkg7", "Rpl3", "Hba-a1"]
MOUSE_IDS = {symbol: gene_id for gene_id, symbol in GeneNames.load("mouse").symbol_of.items()}
HUMAN_IDS = {symbol: gene_id for gene_id, symbol in GeneNames.load("human").symbol_of.items()}


def table(symbols, ids=None, types=None, **more) -> pd.DataFrame:
    n = len(symbols)
    return pd.DataFrame(
        {"gene_id": ids or [""] * n, "gene_symbol": symbols, "feature_type": types or [""] * n, **more}, dtype=object
    )


def counted(n_features: int, n_cells: int = 5, seed: int = 0) -> sparse.csr_matrix:
    values = np.random.default_rng(seed).poisson(2, size=(n_cells, n_features)).astype(np.int32)
    return sparse.csr_matrix(values)


def brute_force(matrix: sparse.csr_matrix, names: list[str]) -> dict[str, list[int]]:
    sums: dict[str, list[int]] = defaultdict(lambda: [0] * matrix.shape[0])
    dense = matrix.toarray()
    for column, name in enumerate(names):
        for cell in range(matrix.shape[0]):
            sums[name][cell] += int(dense[cell, column])
    return dict(sums)


def as_dict(found) -> dict[str, list[int]]:
    return {name: found.matrix[:, [i]].toarray().ravel().tolist() for i, name in enumerate(found.var.index)}


# --- genes -----------------------------------------------------------------------------------------------------------


def test_symbols_become_current_and_equal_ones_are_summed():
    symbols = ["IL8", "ACTB", "WARS", "IL8", "GAPDH", "ACTB", "7-Sep"]
    matrix = counted(7)
    found = gene_counts(matrix, table(symbols), "m", "human")
    names = ["CXCL8", "ACTB", "WARS1", "CXCL8", "GAPDH", "ACTB", "SEPTIN7"]
    assert as_dict(found) == brute_force(matrix, names)
    assert list(found.var["gene_symbol"]) == list(found.var.index)
    assert list(found.var["gene_symbol_given"]) == ["IL8", "ACTB", "WARS", "GAPDH", "7-Sep"]
    assert found.matrix.dtype == np.int32 and found.matrix.has_sorted_indices
    assert "summed 2 columns into the gene of the same symbol" in found.decisions
    assert found.other == {} and found.other_species_counts is None


def test_versions_and_par_y_copies_are_summed_by_id():
    ids = ["ENSG00000182378.15", "ENSG00000182378.15_PAR_Y", "ENSG00000075624.3", "ENSG00000169429"]
    matrix = counted(4)
    found = gene_counts(matrix, table(["PLCXD1", "PLCXD1", "ACTB", "IL8"], ids), "m", "human")
    assert as_dict(found) == brute_force(matrix, [one.split(".")[0] for one in ids])
    assert list(found.var["gene_symbol"]) == ["PLCXD1", "ACTB", "CXCL8"]
    assert "removed the version of 3 Ensembl ids" in found.decisions
    assert "summed 1 columns into the gene of the same id" in found.decisions


def test_ids_alone_get_symbols():
    ids = [HUMAN_IDS[symbol] for symbol in HUMAN_GENES]
    found = gene_counts(counted(10), table(ids, ids), "m", "human")
    assert list(found.var["gene_symbol"]) == HUMAN_GENES
    assert list(found.var.index) == ids == list(found.var["gene_symbol_given"])
    assert "named 10 genes by their Ensembl id" in found.decisions


def test_names_made_unique_are_summed_where_no_gene_is_called_so():
    # NKX2-1 is a gene of its own; HBB.1 has its stem; TP53.1 has none.
    symbols = ["HBB", "HBB.1", "HBB-2", "NKX2-1", "NKX2", "TP53.1", "ACTB"]
    matrix = counted(7)
    found = gene_counts(matrix, table(symbols), "m", "human")
    names = ["HBB", "HBB", "HBB", "NKX2-1", "NKX2", "TP53.1", "ACTB"]
    assert as_dict(found) == brute_force(matrix, names)
    assert any("summed 2 columns into the gene whose name had been made unique" in one for one in found.decisions)


def test_two_ids_of_one_symbol_stay_two_genes():
    found = gene_counts(counted(2), table(["A.1", "A"], ["ENSG99000000001", "ENSG99000000002"]), "m", "human")
    assert list(found.var.index) == ["ENSG99000000001", "ENSG99000000002"]


def test_joined_names_are_split_only_where_one_gene_is_known():
    symbols = ["0610007C21Rik;Apr3", "Cd3d;Cd4", "Foo;Bar", "Nos2"]
    found = gene_counts(counted(4), table(symbols), "m", "mouse")
    assert list(found.var.index) == ["Atraid", "Cd3d;Cd4", "Foo;Bar", "Nos2"]


def test_entrez_numbers_are_translated_for_human():
    found = gene_counts(counted(3), table(["TP53", "IL8", "x"], ["7157", "3576", "999999999"]), "m", "human")
    assert list(found.var.index) == ["ENSG00000141510", "ENSG00000169429", "999999999"]
    assert list(found.var["gene_symbol"]) == ["TP53", "CXCL8", "x"]
    assert "translated 2 of 3 Entrez numbers to Ensembl ids" in found.decisions
    only = gene_counts(counted(3), table(["7157", "3576", "60"]), "m", "human")
    assert list(only.var["gene_symbol"]) == ["TP53", "CXCL8", "ACTB"]


def test_entrez_numbers_of_mouse_are_kept_beside_symbols_and_refused_alone():
    found = gene_counts(counted(2), table(["Trp53", "Actb"], ["22059", "11461"]), "m", "mouse")
    assert list(found.var.index) == ["22059", "11461"]
    assert any("Entrez numbers, which are kept" in one for one in found.decisions)
    with pytest.raises(UserError, match="cannot be translated for mouse"):
        gene_counts(counted(2), table(["22059", "11461"]), "m", "mouse")


@pytest.mark.parametrize("start", [0, 1])
def test_row_numbers_are_no_gene_names(start):
    with pytest.raises(UserError, match="numbered in order"):
        gene_counts(counted(50), table([str(i) for i in range(start, start + 50)]), "m", "human")


def test_ids_and_symbols_out_of_step_are_refused():
    names = GeneNames.load("human")
    pairs = [(gene_id, symbol) for gene_id, symbol in sorted(names.symbol_of.items()) if symbol][:60]
    ids, symbols = [one for one, _ in pairs], [two for _, two in pairs]
    gene_counts(counted(60), table(symbols, ids), "m", "human")
    with pytest.raises(UserError, match=rf"do not belong together in 60 of 60 rows \({ids[0]} is {symbols[0]}, not"):
        gene_counts(counted(60), table(symbols[1:] + symbols[:1], ids), "m", "human")


POOL = [*HUMAN_GENES, "IL8", "CXCL8", "WARS", "HBB.1", "HBB-1", "ACTB.1", "1-Mar", "7-Sep", "x", "FOO;LYZ"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(POOL), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_sum(symbols, rng):
    order = list(range(len(symbols)))
    rng.shuffle(order)
    matrix = counted(len(symbols))
    straight = gene_counts(matrix, table(symbols), "m", "human")
    shuffled = gene_counts(matrix[:, order], table([symbols[i] for i in order]), "m", "human")
    assert as_dict(straight) == as_dict(shuffled)
    assert straight.matrix.sum() == matrix.sum()
    assert straight.var.index.is_unique


# --- other kinds -----------------------------------------------------------------------------------------------------


def test_other_kinds_are_kept_apart_by_type_and_hashtags_by_name():
    symbols = ["ACTB", "CD3", "HTO1", "anti-human Hashtag 2", "sgTP53_1", "CMO301", "GAPDH", "my_gene", "CD3"]
    types = ["Gene Expression"] + ["Antibody Capture"] * 3 + ["CRISPR Guide Capture", "Multiplexing Capture"]
    types += ["Gene Expression", "Custom", "Antibody Capture"]
    ids = ["ENSG00000075624", "ab1", "HTO1", "ht2", "sg", "CMO301", "ENSG00000111640", "c", "ab2"]
    matrix = counted(9)
    found = gene_counts(matrix, table(symbols, ids, types), "m", "human")
    assert list(found.var["gene_symbol"]) == ["ACTB", "GAPDH"]
    kinds = {kind: one.names for kind, one in found.other.items()}
    assert kinds == {
        "antibody_capture": ["CD3 (ab1)", "CD3 (ab2)"],
        "hashtags": ["HTO1", "anti-human Hashtag 2"],
        "crispr_guide_capture": ["sgTP53_1"],
        "multiplexing_capture": ["CMO301"],
        "custom": ["my_gene"],
    }
    dense = matrix.toarray()
    np.testing.assert_array_equal(found.other["hashtags"].matrix.toarray(), dense[:, [2, 3]])
    np.testing.assert_array_equal(found.other["antibody_capture"].matrix.toarray(), dense[:, [1, 8]])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ERCC-00002", "spike_in"),
        ("ERCC_ERCC-00104", "spike_in"),
        ("ERCC.00130", "spike_in"),
        ("HTO-1", "hashtags"),
        ("HTO_A-ACCCACCAGTAAGAC", "hashtags"),
        ("Hashtag1_TotalA", "hashtags"),
        ("CMO301", "hashtags"),
        ("ADT_CD3", "antibody_capture"),
        ("CD3-ADT", "antibody_capture"),
        ("CD45RA_TotalSeqC", "antibody_capture"),
        ("tdTomato", "transgene"),
        ("EGFP", "transgene"),
        ("GFP-WPRE", "transgene"),
        ("__no_feature", None),
        ("N_unmapped", None),
        ("NA", None),
    ],
)
@pytest.mark.parametrize("feature_type", ["", "Gene Expression"])
def test_features_without_a_type_are_told_by_name(name, kind, feature_type):
    found = gene_counts(counted(3), table(["ACTB", name, "GAPDH"], types=[feature_type] * 3), "m", "human")
    assert list(found.var.index) == ["ACTB", "GAPDH"]
    assert list(found.other) == ([kind] if kind else [])
    assert "set aside" in found.decisions[0]


@pytest.mark.parametrize("name", ["ERCC1", "ERCC6L", "CD3D", "AB1", "HASPIN", "HTORY", "Venustas"])
def test_genes_are_not_taken_for_other_features(name):
    found = gene_counts(counted(3), table(["ACTB", name, "GAPDH"]), "m", "human")
    assert len(found.var) == 3


def test_every_shipped_symbol_is_a_gene():
    for organism in ("human", "mouse"):
        symbols = sorted(GeneNames.load(organism).current)
        found = gene_counts(sparse.csr_matrix((1, len(symbols)), dtype=np.int32), table(symbols), "m", organism)
        assert list(found.var.index) == symbols
        assert found.other == {}


def test_peaks_are_dropped_and_said():
    types = ["Gene Expression", "Peaks", "Peaks"]
    found = gene_counts(counted(3), table(["ACTB", "chr1:1-2", "chr1:3-4"], types=types), "m", "human")
    assert found.other == {}
    assert found.decisions[0] == "set aside features that are no genes: 2 Peaks"


def test_hashtags_alone_are_no_genes():
    with pytest.raises(UserError, match=r"holds no gene expression \(set aside .*2 hashtags"):
        gene_counts(counted(2), table(["HTO-1", "HTO-2"]), "m", "human")


# --- species ---------------------------------------------------------------------------------------------------------


def two_species(style: str) -> pd.DataFrame:
    """Ten human and ten mouse genes, told apart in one of the ways that are met."""
    both = HUMAN_GENES + MOUSE_GENES
    ids = [HUMAN_IDS[one] for one in HUMAN_GENES] + [MOUSE_IDS[one] for one in MOUSE_GENES]
    if style == "prefix":
        marks = ["GRCh38_"] * 10 + ["mm10___"] * 10
        return table(
            [m + s for m, s in zip(marks, both, strict=True)], [m + i for m, i in zip(marks, ids, strict=True)]
        )
    if style == "seurat":
        return table([f"{'hg19' if i < 10 else 'mm10'}-{s}" for i, s in enumerate(both)])
    if style == "premrna":
        return table([f"{'GRCh38' if i < 10 else 'mm10'}_premrna_{s}" for i, s in enumerate(both)])
    if style == "genome":
        return table([s.upper() for s in both], genome=["hg19_chr21"] * 10 + ["mm10_premrna"] * 10)
    if style == "ids":
        return table(both, ids)
    return table(both)


STYLES = ["prefix", "seurat", "premrna", "genome", "ids", "symbols"]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("organism", ["human", "mouse"])
def test_only_the_organisms_genes_stay_and_the_others_are_added_up(style, organism):
    dense = np.random.default_rng(1).poisson(1, size=(40, 20)).astype(np.int32)
    dense[:20, :10] *= 9  # human cells
    dense[20:, 10:] *= 9  # mouse cells
    dense[0] = 0  # an empty droplet is nobody's
    found = gene_counts(sparse.csr_matrix(dense), two_species(style), "m", organism)
    own, other = (dense[:, :10], dense[:, 10:]) if organism == "human" else (dense[:, 10:], dense[:, :10])
    np.testing.assert_array_equal(found.matrix.toarray(), own)
    np.testing.assert_array_equal(found.other_species_counts, other.sum(axis=1))
    assert found.var.shape[0] == 10
    assert not found.var["gene_symbol"].str.contains("_|hg19").any()
    other_name = "mouse" if organism == "human" else "human"
    assert f"set aside 10 genes of {other_name}" in found.decisions


def test_two_species_without_an_organism_are_refused():
    for style in STYLES:
        with pytest.raises(UserError, match="mixes genes of human and mouse"):
            gene_counts(counted(20), two_species(style), "m")


def test_cells_of_the_other_species_only_are_refused():
    dense = np.zeros((3, 20), dtype=np.int32)
    dense[:, 10:] = 1
    with pytest.raises(UserError, match="every cell holds more counts of mouse than of human"):
        gene_counts(sparse.csr_matrix(dense), two_species("prefix"), "m", "human")


def test_other_features_keep_the_cells_of_the_other_species():
    features = pd.concat([two_species("prefix"), table(["HTO1"], types=["Antibody Capture"])], ignore_index=True)
    dense = np.ones((4, 21), dtype=np.int32)
    dense[2, 10:20] = 5
    dense[:, 20] = [1, 2, 3, 4]
    found = gene_counts(sparse.csr_matrix(dense), features, "m", "human")
    assert found.other["hashtags"].matrix.toarray().ravel().tolist() == [1, 2, 3, 4]


def test_a_single_prefix_is_removed():
    found = gene_counts(counted(10), table([f"hg19_{one}" for one in HUMAN_GENES]), "m", "human")
    assert list(found.var.index) == HUMAN_GENES
    assert "removed the prefix hg19_" in found.decisions
    assert found.other_species_counts is None


@pytest.mark.parametrize(
    ("features", "organism", "looks"),
    [
        (table(MOUSE_GENES), "human", "mouse"),
        (table(HUMAN_GENES), "mouse", "human"),
        (table(MOUSE_GENES, [MOUSE_IDS[one] for one in MOUSE_GENES]), "human", "mouse"),
        (table(["a", "b", "c", "d", "e"], [f"ENSRNOG0000001075{i}" for i in range(5)]), "human", "rat"),
        (table([f"mm10_{one}" for one in MOUSE_GENES]), "human", "mouse"),
    ],
)
def test_another_species_than_the_sheet_says_is_refused(features, organism, looks):
    message = rf"column organism says {organism}, but \d+ of its \d+ genes are named like genes of {looks}"
    with pytest.raises(UserError, match=message):
        gene_counts(counted(len(features)), features, "m", organism)


def test_a_few_genes_of_a_transgene_do_not_change_the_species():
    features = table([*HUMAN_GENES, "Cd19"], [*(HUMAN_IDS[one] for one in HUMAN_GENES), MOUSE_IDS["Cd19"]])
    found = gene_counts(sparse.csr_matrix(np.ones((2, 11), dtype=np.int32)), features, "m", "human")
    assert list(found.var["gene_symbol"]) == HUMAN_GENES
    np.testing.assert_array_equal(found.other_species_counts, [1, 1])


def test_without_organism_one_species_is_named_by_its_own_table():
    assert list(gene_counts(counted(11), table([*MOUSE_GENES, "Ctgf"]), "m").var.index) == [*MOUSE_GENES, "Ccn2"]
    assert list(gene_counts(counted(11), table([*HUMAN_GENES, "CTGF"]), "m").var.index) == [*HUMAN_GENES, "CCN2"]


# --- what names are --------------------------------------------------------------------------------------------------


def test_gene_axes_are_told_from_cell_axes():
    assert looks_like_genes(pd.Series(HUMAN_GENES))
    assert looks_like_genes(pd.Series(MOUSE_GENES + [f"x{i}" for i in range(30)]))
    assert looks_like_genes(pd.Series([f"hg19_{one}" for one in HUMAN_GENES]))
    assert looks_like_genes(pd.Series(["ENSG00000075624.3", "ENSG00000111640.1"]))
    assert looks_like_genes(pd.Series(["ENSRNOG00000075624", "ENSRNOG00000111640"]))
    assert looks_like_genes(pd.Series(sorted(COMMON_GENES)))
    assert not looks_like_genes(pd.Series([], dtype=str))
    assert not looks_like_genes(pd.Series(["ACTB", *(f"cell{i}" for i in range(30))]))
    wells = [f"{row}{column}" for row in "ABCDEFGH" for column in range(1, 13)]
    assert not looks_like_genes(pd.Series(wells))
    assert not looks_like_genes(pd.Series([f"S{i}" for i in range(200)]))
    assert not looks_like_genes(pd.Series([str(i) for i in range(200)]))
    rng = np.random.default_rng(0)
    barcodes = pd.Series(["".join(rng.choice(list("ACGT"), 16)) + "-1" for _ in range(100)])
    assert not looks_like_genes(barcodes)
    assert looks_like_barcodes(barcodes) and not looks_like_barcodes(pd.Series(HUMAN_GENES))


def test_ids_are_told_with_and_without_prefix():
    names = pd.Series(["ENSG00000075624.3", "mm10___ENSMUSG00000059552", "ACTB", "GRCh38_ENSG00000075624_PAR_Y"])
    assert is_ensembl(names).tolist() == [True, True, False, True]


def test_real_tables_of_geo(shared):
    """A SMART-seq table of mouse with joined names, old symbols and spike-ins: every count is somewhere."""
    path = shared / "data" / "geo_verbatim" / "GSM3502579_AB127.txt.gz"
    reference = pd.read_csv(path, sep="\t", index_col=0)
    matrix = sparse.csr_matrix(reference.T.to_numpy(dtype=np.int32))
    found = gene_counts(matrix, table(list(reference.index)), "m", "mouse")
    assert found.matrix.sum() + found.other["spike_in"].matrix.sum() == matrix.sum()
    known = found.var["gene_symbol"].isin(GeneNames.load("mouse").current)
    assert known.mean() > 0.75 > found.var["gene_symbol_given"].isin(GeneNames.load("mouse").current).mean()
    with pytest.raises(UserError, match="named like genes of mouse"):
        gene_counts(matrix, table(list(reference.index)), "m", "human")


def test_features_alone_are_named_as_with_cells():
    """``check`` names genes from headers, without a count."""
    nothing = sparse.csr_matrix((0, 20), dtype=np.int32)
    found = gene_counts(nothing, two_species("prefix"), "m", "human")
    assert list(found.var["gene_symbol"]) == HUMAN_GENES
    assert found.matrix.shape == (0, 10)
