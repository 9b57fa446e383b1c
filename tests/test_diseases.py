"""Disease signatures: the shipped table is whole and sourced, a user's own are added or refused by row."""

import re
from pathlib import Path

import pandas as pd
import pytest

from immunomod.diseases import SHIPPED, load_diseases
from immunomod.errors import UserError
from immunomod.genes import GeneNames
from immunomod.preflight.tables import examine_diseases
from immunomod.programs import load_programs

PROGRAMS = load_programs()
HEADER = "disease\tsignature\tcompartment\tprogram\tgene_human\tgene_mouse\tdirection\tweight\tsource\tverified\n"


def shipped():
    return load_diseases([SHIPPED], PROGRAMS)


def own(tmp_path: Path, *rows: str):
    path = tmp_path / "mine.tsv"
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return load_diseases([path], PROGRAMS)


def gene(
    human: str, direction: str = "+", weight: str = "", signature: str = "s", compartment: str = "immune:T"
) -> str:
    return f"d\t{signature}\t{compartment}\t\t{human}\t\t{direction}\t{weight}\tdoi:x\tno"


def test_every_disease_of_the_claim_has_a_signature():
    table = shipped().table
    assert set(table["disease"]) == {
        "systemic_lupus", "multiple_sclerosis", "rheumatoid_arthritis", "crohns_disease", "allergy",
        "graft_versus_host",
    }  # fmt: skip
    assert len(table) == 16
    named = set("+".join(table["programs"]).split("+"))
    assert {"imm_type1_ifn", "imm_Th17", "imm_mac_M1", "imm_Th2"} <= named


def test_every_row_has_its_source_and_current_symbols():
    rows = pd.read_csv(SHIPPED / "diseases.tsv", sep="\t", dtype=str, keep_default_na=False)
    assert rows["source"].str.contains(r"doi:10\.\d{4,}/|PMC\d+|article \d+").all()
    assert rows["evidence"].str.len().gt(20).all()
    unread = rows[rows["verified"] == "no"]
    assert unread["evidence"].str.contains("not read").all()
    for organism in ("human", "mouse"):
        names = GeneNames.load(organism)
        assert all(names.knows(one) and names.symbol(one) == one for one in rows[f"gene_{organism}"] if one)


def test_a_programme_is_named_and_its_genes_are_not_written_again():
    rows = pd.read_csv(SHIPPED / "diseases.tsv", sep="\t", dtype=str, keep_default_na=False)
    axes = {"multiple_sclerosis": "imm_Th17", "allergy": "imm_Th2", "crohns_disease": "imm_mac_M1"}
    axes["rheumatoid_arthritis"] = "imm_mac_M1"
    for disease, program in axes.items():
        written = set(rows.loc[(rows["disease"] == disease) & (rows["gene_human"] != ""), "gene_human"])
        axis = set(PROGRAMS.genes.loc[PROGRAMS.genes["program"] == program, "gene_human"])
        assert not (written & axis) - {"KLRB1"}
    weights = shipped().weights("human")
    expected = PROGRAMS.weights("human")["imm_type1_ifn"]
    found = weights["systemic_lupus/type1_interferon"]
    pd.testing.assert_series_equal(found[found != 0], expected[expected != 0], check_names=False)


def test_il6_is_in_no_signature_of_macrophages():
    weights = shipped().weights("human")
    assert "IL6" not in weights.index


def test_the_page_counts_what_the_table_holds():
    text = (SHIPPED / "README.md").read_text()
    rows = pd.read_csv(SHIPPED / "diseases.tsv", sep="\t", dtype=str, keep_default_na=False)
    table = shipped().table
    assert int(re.search(r"(\d+)\nsignatures of six", text)[1]) == len(table)
    assert int(re.search(r"(\d+) name one", text)[1]) == (table["programs"] != "").sum()
    assert (rows["verified"] == "no").sum() == 20 + 1


def test_directions_and_weights_are_signed(tmp_path):
    diseases = own(tmp_path, gene("CD8A"), gene("CD4", "-", "2"), gene("CD19", signature="b", compartment="immune:B"))
    weights = diseases.weights("human")
    assert (weights.at["CD8A", "d/s"], weights.at["CD4", "d/s"], weights.at["CD19", "d/s"]) == (1.0, -2.0, 0.0)
    assert diseases.meta_for("human").loc["d/b", ["compartment", "role"]].tolist() == ["immune:B", "disease"]
    assert diseases.weights("mouse").shape == (0, 2)
    assert diseases.genes_verified("human").tolist() == [0, 0]


def test_a_programme_may_stand_against_a_disease(tmp_path):
    diseases = own(tmp_path, "d\ts\timmune:T\timm_Treg\t\t\t-\t\tdoi:x\tyes")
    expected = PROGRAMS.weights("human")["imm_Treg"]
    found = diseases.weights("human")["d/s"]
    pd.testing.assert_series_equal(found, -expected[expected != 0], check_names=False)
    read = PROGRAMS.genes[(PROGRAMS.genes["program"] == "imm_Treg") & (PROGRAMS.genes["gene_human"] != "")]["verified"]
    assert diseases.genes_verified("human")["d/s"] == read.sum()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([gene("CD8A"), gene("CD8A", "-")], "row 3"),
        ([gene("MAL2"), gene("RIGI"), gene("DDX58")], "row 4, column gene_human: RIGI stands in d/s already, by row 3"),
        ([gene("CD8A"), gene("CD4", compartment="immune:B")], "row 3, column compartment: 'immune:B'"),
        (["d\ts\timmune:T\timm_Nothing\t\t\t+\t\tdoi:x\tno"], "row 2, column program: there is no programme"),
        (["d\ts\timmune:T\timm_Th2\t\t\t+\t\tdoi:x\tno", gene("IL4")], "row 3, column gene_human: IL4 stands in"),
        (["d\ts\timmune:X\t\tIL4\t\t+\t\tdoi:x\tno"], "row 2, column compartment"),
        (["d\ts\timmune:T\t\t\t\t+\t\tdoi:x\tno"], "row 2"),
        (["d\ts\timmune:T\t\tIL4\t\tup\t\tdoi:x\tno"], "row 2, column direction"),
        (["d\ts\timmune:T\t\tIL4\t\t+\t-1\tdoi:x\tno"], "row 2, column weight"),
        (["d\ts\timmune:T\t\tIL4\t\t+\t\t\tno"], "row 2, column source"),
        ([], "no rows"),
    ],
)
def test_mistakes_are_named_by_row_and_column(tmp_path, rows, message):
    with pytest.raises(UserError, match=re.escape(message)):
        own(tmp_path, *rows)


def test_a_signature_stands_in_one_table(tmp_path):
    (tmp_path / "mine.tsv").write_text(HEADER + gene("IL4").replace("d\ts", "allergy\tth2") + "\n")
    with pytest.raises(UserError, match="allergy/th2 stands in another table already"):
        load_diseases([SHIPPED, tmp_path / "mine.tsv"], PROGRAMS)


def changes(tmp_path: Path, text: str, **settings: str):
    (tmp_path / "fc.tsv").write_text(text)
    described = {"mine": {"table": str(tmp_path / "fc.tsv"), "compartment": "immune:T"} | settings}
    return load_diseases([], PROGRAMS, described)


def test_fold_changes_are_weights(tmp_path):
    text = "gene\tlog2_fold_change\tpadj\nCD8A\t1.5\t0.01\nCD4\t-3e-1\t0.2\nCD19\t0\t1\nDDX58\t2\t0\n"
    diseases = changes(tmp_path, text, disease="sjogren", source="doi:10.1/x")
    weights = diseases.weights("human")["sjogren/mine"]
    assert weights.to_dict() == {"CD8A": 1.5, "CD4": -0.3, "RIGI": 2.0}
    assert diseases.table.at["sjogren/mine", "source"] == "doi:10.1/x"
    assert changes(tmp_path, text).table.index.tolist() == ["mine/mine"]
    mouse = changes(tmp_path, "gene\tlog2_fold_change\nCd8a\t1\n", organism="mouse")
    assert mouse.weights("mouse").index.tolist() == ["Cd8a"] and mouse.weights("human").empty


def test_a_gene_under_two_names_counts_by_its_current_one(tmp_path):
    diseases = changes(tmp_path, "gene\tlog2_fold_change\nDDX58\t2\nRIGI\t1\n")
    assert diseases.weights("human")["mine/mine"].to_dict() == {"RIGI": 1.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gene\tlogFC\nCD4\t1\n", "lacks column log2_fold_change"),
        ("gene\tlog2_fold_change\nCD4\tlots\n", "row 2, column log2_fold_change"),
        ("gene\tlog2_fold_change\nCD4\t\n", "row 2, column log2_fold_change"),
        ("gene\tlog2_fold_change\nCD4\t1\nCD4\t2\n", "row 3, column gene"),
        ("gene\tlog2_fold_change\nCD4\t1e999\n", "row 2, column log2_fold_change"),
        ("gene\tlog2_fold_change\nCD4\t0\n", "other than 0"),
        ("gene,log2_fold_change\nCD4,1\n", "comma-separated"),
        ("", "is empty"),
    ],
)
def test_faulty_fold_changes_are_named(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        changes(tmp_path, text)


def test_the_check_names_what_is_wrong(tmp_path):
    section = {"tables": [str(SHIPPED), str(tmp_path / "none.tsv")], "fold_changes": {}}
    (problem,) = examine_diseases(section, PROGRAMS)
    assert "does not exist" in str(problem)
    (tmp_path / "none.tsv").write_text(HEADER + "d\ts\timmune:T\timm_Nothing\t\t\t+\t\tdoi:x\tno\n")
    (problem,) = examine_diseases(section, PROGRAMS)
    assert (problem.row, problem.column, Path(problem.file).name) == (2, "program", "none.tsv")
    assert examine_diseases({"tables": [str(SHIPPED)], "fold_changes": {}}, PROGRAMS) == []
