"""Gene names: known renames by hand, the rules by which a name may be replaced, and the tables' own consistency."""

from __future__ import annotations

import gzip
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunomod.genes import SHIPPED, GeneNames, ensembl_species, name_species, species_of

HUMAN, MOUSE = GeneNames.load("human"), GeneNames.load("mouse")

#: Renames that the field knows, from the literature and HGNC's notices, not from the tables.
KNOWN_HUMAN = {
    "IL8": "CXCL8",  # interleukin 8
    "WARS": "WARS1",  # tryptophanyl-tRNA synthetase, once read as a word
    "DDX58": "RIGI",  # RIG-I
    "CTGF": "CCN2",  # connective tissue growth factor
    "CYR61": "CCN1",
    "NOV": "CCN3",
    "WISP1": "CCN4",
    "SEPT7": "SEPTIN7",
    "SEPT9": "SEPTIN9",
    "MARCH1": "MARCHF1",
    "MARCH9": "MARCHF9",
    "MARC1": "MTARC1",
    "DEC1": "DELEC1",
    "SEP15": "SELENOF",
    "FAM26F": "CALHM6",
    "MLF1IP": "CENPU",
    "FAM64A": "PIMREG",
    "HN1": "JPT1",
    "CCBL1": "KYAT1",
    "KIAA0101": "PCLAF",
    "H2AFZ": "H2AZ1",  # the histones' reform of 2019
    "HIST1H4C": "H4C3",
    "IGJ": "JCHAIN",
    "GNB2L1": "RACK1",
    "TMEM173": "STING1",
    "MB21D1": "CGAS",
    "C10orf54": "VSIR",  # VISTA
    "GPR44": "PTGDR2",
    "FAM46C": "TENT5C",
    "ATP5B": "ATP5F1B",
    "SELPLG": "SELPLG",  # unchanged
    "PVRL2": "NECTIN2",
    "LEPREL1": "P3H2",
    "MYCL1": "MYCL",
    "BAI1": "ADGRB1",
    "KIRREL": "KIRREL1",
    "TARS": "TARS1",
    "H1F0": "H1-0",
}
KNOWN_MOUSE = {
    "Wars": "Wars1",
    "Ddx58": "Rigi",
    "Ctgf": "Ccn2",
    "Cyr61": "Ccn1",
    "Sept7": "Septin7",
    "March1": "Marchf1",
    "Marc1": "Mtarc1",
    "Fam26f": "Calhm6",
    "Fam64a": "Pimreg",
    "2810417H13Rik": "Pclaf",
    "Hn1": "Jpt1",
    "H2afz": "H2az1",
    "Gnb2l1": "Rack1",
    "Tmem173": "Sting1",
    "Mb21d1": "Cgas",
    "Igj": "Jchain",
    "Atp5b": "Atp5f1b",
    "Pvrl2": "Nectin2",
}
IDS = {
    ("human", "ENSG00000141510"): "TP53",
    ("human", "ENSG00000169429"): "CXCL8",
    ("human", "ENSG00000131203"): "IDO1",
    ("human", "ENSG00000107201"): "RIGI",
    ("human", "ENSG00000198804"): "MT-CO1",
    ("mouse", "ENSMUSG00000059552"): "Trp53",
    ("mouse", "ENSMUSG00000020826"): "Nos2",
    ("mouse", "ENSMUSG00000064351"): "mt-Co1",
}


@pytest.mark.parametrize(("old", "current"), KNOWN_HUMAN.items())
def test_known_renames_of_human_genes(old, current):
    assert HUMAN.symbol(old) == current


@pytest.mark.parametrize(("old", "current"), KNOWN_MOUSE.items())
def test_known_renames_of_mouse_genes(old, current):
    assert MOUSE.symbol(old) == current


@pytest.mark.parametrize(("key", "symbol"), IDS.items())
def test_known_ids(key, symbol):
    organism, gene_id = key
    assert GeneNames.load(organism).symbol_of[gene_id] == symbol


@pytest.mark.parametrize("organism", ["human", "mouse"])
def test_outdated_names_are_nobodys_current_symbol_and_lead_to_one(organism):
    names = GeneNames.load(organism)
    assert not names.current & (names.outdated.keys() | names.ambiguous.keys())
    assert not names.outdated.keys() & names.ambiguous.keys()
    assert set(names.outdated.values()) <= names.current
    assert all(len(genes) > 1 for genes in names.ambiguous.values())
    assert names.aliases <= names.outdated.keys()
    assert len(names.current) > 50_000


@pytest.mark.parametrize("organism", ["human", "mouse"])
def test_tables_are_sorted_whole_and_small(organism):
    for name, width in ((f"{organism}.tsv.gz", 4), (f"{organism}_outdated.tsv.gz", 3)):
        lines = gzip.decompress((SHIPPED / name).read_bytes()).decode().splitlines()
        assert {line.count("\t") for line in lines} == {width - 1}
        firsts = [first for line in lines[1:] if (first := line.split("\t")[0])]
        assert firsts == sorted(firsts) and len(firsts) == len(set(firsts))
    assert sum(path.stat().st_size for path in SHIPPED.glob("*.gz")) < 2_500_000


def test_readme_names_every_package_that_the_tables_are_built_from():
    text = (SHIPPED / "README.md").read_text()
    build = (SHIPPED / "build.py").read_text()
    for version in ("7.1.2", "5.0.0", "3.0.0", "1.24.0"):
        assert version in text and version in build


def test_an_unknown_organism_is_refused():
    with pytest.raises(ValueError, match="organism 'rat'"):
        GeneNames.load("rat")


def test_loading_takes_no_heavy_import():
    """``check`` and every job load the names: anndata must not come with them."""
    code = "import sys, immunomod.genes; print([m for m in ('anndata', 'scanpy', 'numba') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("name", "current"),
    [
        ("7-Sep", "SEPTIN7"),
        ("07-Sep", "SEPTIN7"),
        ("Sep-07", "SEPTIN7"),
        ("2021-09-07", "SEPTIN7"),
        ("2021-09-07 00:00:00", "SEPTIN7"),
        ("X7.Sep", "SEPTIN7"),
        ("9/7/2021", "SEPTIN7"),
        ("7/9/21", "SEPTIN7"),
        ("15-Sep", "SELENOF"),
        ("3-Mar", "MARCHF3"),
        ("11-Mar", "MARCHF11"),
        ("1-Dec", "DELEC1"),
        ("1-Mar", "1-Mar"),  # MARCH1 or MARC1
        ("2-Mar", "2-Mar"),
        ("3/9/2021", "3/9/2021"),  # SEPT3 or MARCH9
        ("20-Sep", "20-Sep"),
        ("1-Apr", "1-Apr"),
    ],
)
def test_dates_that_a_spreadsheet_made_of_symbols(name, current):
    assert HUMAN.symbol(name) == current


def test_rows_with_a_known_id_take_its_symbol_and_others_theirs():
    resolution = HUMAN.resolve(
        ["IL8", "WARS", "ACTB", "nonsense", "", "7-Sep", "CD3D", "FOO;IDO1", "ENSG00000141510.9_TP53"],
        ["ENSG00000169429", "", "", "", "ENSG00000115415", "", "ENSG99999999999", "", ""],
    )
    assert list(resolution.symbols) == [
        "CXCL8", "WARS1", "ACTB", "nonsense", "STAT1", "SEPTIN7", "CD3D", "IDO1", "TP53",
    ]  # fmt: skip
    assert list(resolution.how) == [
        "id", "previous", "current", "unknown", "id", "date", "current", "joined", "joined",
    ]  # fmt: skip
    text = "; ".join(resolution.sentences())
    assert "IL8 -> CXCL8" in text and "WARS -> WARS1" in text and "7-Sep -> SEPTIN7" in text
    assert "named 1 genes by their Ensembl id" not in text  # it had no name at all, not an id as its name


def test_a_name_stays_where_another_row_has_its_gene():
    resolution = HUMAN.resolve(["IL8", "CXCL8", "WARS"])
    assert list(resolution.symbols) == ["IL8", "CXCL8", "WARS1"]
    assert resolution.how[0] == "taken"
    assert "left 1 outdated names as they are because they fit a gene that another row names (IL8)" in "; ".join(
        resolution.sentences()
    )


def test_of_two_rows_for_one_gene_the_previous_symbol_is_renamed_or_none():
    alias = next(old for old, new in HUMAN.outdated.items() if new == "CXCL8" and old in HUMAN.aliases)
    assert list(HUMAN.resolve([alias, "IL8"]).symbols) == [alias, "CXCL8"]
    two = sorted(old for old, new in HUMAN.outdated.items() if new == "CXCL8" and old in HUMAN.aliases)[:2]
    assert len(two) == 2
    assert list(HUMAN.resolve(two).symbols) == two


def test_equal_rows_are_renamed_alike():
    assert list(HUMAN.resolve(["IL8", "IL8"]).symbols) == ["CXCL8", "CXCL8"]


def test_ambiguous_names_stay():
    name, genes = next(iter(HUMAN.ambiguous.items()))
    assert HUMAN.resolve([name]).how[0] == "ambiguous"
    assert HUMAN.symbol(name) == name and name not in genes
    assert "fit several genes" in HUMAN.resolve([name]).sentences()[0]


def test_an_id_and_anothers_symbol_are_told():
    resolution = HUMAN.resolve(["IDO1"], ["ENSG00000141510"])
    assert resolution.symbols[0] == "TP53"
    assert resolution.other_gene.all()
    assert "the Ensembl id decides" in resolution.sentences()[-1]


NAMES = [*KNOWN_HUMAN, *KNOWN_HUMAN.values(), "7-Sep", "1-Mar", "x", "FOO;CXCL8", "IL8;FOO", *list(HUMAN.ambiguous)[:5]]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(NAMES), max_size=25), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_name(names, rng: random.Random):
    order = list(range(len(names)))
    rng.shuffle(order)
    straight = HUMAN.resolve(names).symbols
    shuffled = HUMAN.resolve([names[i] for i in order]).symbols
    assert [straight[i] for i in order] == list(shuffled)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(NAMES), max_size=25))
def test_two_names_never_become_one(names):
    resolved = HUMAN.resolve(names).symbols
    assert len(set(resolved)) == len(set(names))


@pytest.mark.parametrize(
    ("name", "species"),
    [
        ("ENSG00000141510", "human"),
        ("ENSMUSG00000059552.3", "mouse"),
        ("ENSRNOG00000010756", "rat"),
        ("ENSXYZG00000010756", "ENSXYZG"),
        ("ENSG", ""),
        ("TP53", ""),
    ],
)
def test_species_of_ensembl_ids(name, species):
    assert ensembl_species(name) == species


def test_species_of_names():
    assert (name_species("CD3D"), name_species("Cd3d"), name_species("foo")) == ("human", "mouse", "")
    assert species_of(["CD3D", "GAPDH", "x", "ACTB"]) == "human"
    assert species_of(["Cd3d", "Gapdh", "x", "Actb"]) == "mouse"
    assert species_of(["CD3D", "GAPDH", "Cd3d", "Actb"]) is None
    assert species_of(["a1", "b2"]) is None
    assert species_of([]) is None


def test_real_feature_tables_are_told_apart_and_known(shared: Path):
    """Symbols alone of a CellRanger 1.x table (hg19, 2012's names): nine in ten are known, all human."""
    path = shared / "geo_mirror/geo/series/GSE96nnn/GSE96583/suppl/GSE96583_batch2.genes.tsv.gz"
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode()
    symbols = [line.split("\t")[1] for line in text.splitlines()]
    assert species_of(symbols) == "human"
    assert sum(HUMAN.knows(symbol) for symbol in symbols) > 0.9 * len(symbols)
