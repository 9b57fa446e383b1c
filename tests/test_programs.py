"""The shipped programmes load, keep their signs, and a user's own are added or refused by row."""

import shutil

import pandas as pd
import pytest

from immunomod.errors import UserError
from immunomod.genes import GeneNames
from immunomod.programs import SHIPPED, load_programs


def test_shipped_programmes_are_whole():
    programs = load_programs()
    assert len(programs.table) == 62
    assert len(programs.genes) == 847
    assert (~programs.genes["verified"]).sum() == 111
    assert set(programs.genes["program"]) == set(programs.table.index)
    assert not programs.table["source"].eq("").any()


def test_weights_carry_signs():
    weights = load_programs().weights("human")
    assert weights.at["TWIST1", "msc_clip_twist1"] != 0
    assert weights.at["IDO1", "msc_ifng_core"] == 1.0
    genes = load_programs().genes
    negative = genes[genes["direction"] == "-"].iloc[0]
    assert weights.at[negative["gene_human"], negative["program"]] == -1.0
    assert weights.abs().sum().sum() == len(genes)


def test_mouse_leaves_out_genes_without_orthologue_and_counts_shared_ones_once():
    programs = load_programs()
    weights = programs.weights("mouse")
    mouse = programs.genes[programs.genes["gene_mouse"] != ""]
    assert weights.abs().sum().sum() == len(mouse.drop_duplicates(["program", "gene_mouse"]))
    assert "Nos2" in weights.index and "IDO1" not in weights.index


def test_positive_controls_differ_by_species():
    programs = load_programs()
    human, mouse = programs.meta_for("human"), programs.meta_for("mouse")
    assert human.at["msc_kynurenine", "positive_control"] and not mouse.at["msc_kynurenine", "positive_control"]
    assert mouse.at["msc_no_axis", "positive_control"] and not human.at["msc_no_axis", "positive_control"]
    assert human.at["msc_no_axis", "expected_sign"] == "0"


def test_il6_is_never_in_the_m1_programme():
    """BIOLOGY: IL6 rises in monocytes educated by MSC, so it would cancel the fall of M1."""
    genes = load_programs().genes
    assert "IL6" not in set(genes.loc[genes["program"] == "imm_mac_M1", "gene_human"])


def test_unknown_organism_is_refused():
    with pytest.raises(ValueError, match="organism 'rat'"):
        load_programs().weights("rat")


def own_folder(tmp_path, gene_row, meta_row):
    (tmp_path / "programs.tsv").write_text(
        "program\tgene_human\tgene_mouse\tdirection\tweight\tsource\tevidence\tverified\n" + gene_row
    )
    (tmp_path / "programs_meta.tsv").write_text(
        "program\ttitle\tcompartment\trole\texpected_sign_human\tsource\n" + meta_row
    )
    return tmp_path


META_ROW = "mine\tMy programme\timmune:T\treadout\t+\tthis lab\n"


def test_a_user_adds_a_programme_in_a_folder_of_their_own(tmp_path):
    folder = own_folder(
        tmp_path, "mine\tIL2\tIl2\t+\t\tthis lab\t\tno\nmine\tGZMB\tGzmb\t-\t2\tthis lab\t\tno\n", META_ROW
    )
    programs = load_programs([SHIPPED, folder])
    assert len(programs.table) == 63
    assert programs.weights("human").at["GZMB", "mine"] == -2.0
    assert programs.weights("human").at["IL2", "mine"] == 1.0


@pytest.mark.parametrize(
    ("gene_row", "meta_row", "message"),
    [
        ("mine\tIL2\tIl2\tup\t\tlab\t\tno\n", META_ROW, "row 2, column direction: 'up' is not one of"),
        ("other\tIL2\tIl2\t+\t\tlab\t\tno\n", META_ROW, "row 2: programme 'other' has no row"),
        ("mine\tIL2\tIl2\t+\t\tlab\t\tno\n", META_ROW.replace("immune:T", "Tcell"), "row 2, column compartment"),
        ("mine\tIL2\tIl2\t+\t\tlab\t\tno\nmine\tIL2\tIl2\t-\t\tlab\t\tno\n", META_ROW, "row 3, column program"),
    ],
)
def test_a_mistake_in_a_programme_names_its_row(tmp_path, gene_row, meta_row, message):
    with pytest.raises(UserError, match=message):
        load_programs([own_folder(tmp_path, gene_row, meta_row)])


def test_genes_of_a_programme_are_brought_to_their_current_symbols(tmp_path):
    rows = "mine\tIL8\tCtgf\t+\t\tlab\t\tno\nmine\tSEPT7\t\t-\t\tlab\t\tno\nmine\tmade_up\t\t-\t\tlab\t\tno\n"
    programs = load_programs([own_folder(tmp_path, rows, META_ROW)])
    assert dict(programs.weights("human")["mine"]) == {"CXCL8": 1.0, "SEPTIN7": -1.0, "made_up": -1.0}
    assert dict(programs.weights("mouse")["mine"]) == {"Ccn2": 1.0}


def test_one_gene_under_two_names_is_refused(tmp_path):
    rows = "mine\tIL8\tIl2\t+\t\tlab\t\tno\nmine\tCXCL8\tIl4\t-\t\tlab\t\tno\n"
    with pytest.raises(UserError, match=r"row 3, column gene_human: 'CXCL8' is the same gene as 'IL8' of row 2"):
        load_programs([own_folder(tmp_path, rows, META_ROW)])


@pytest.mark.parametrize("organism", ["human", "mouse"])
def test_shipped_genes_and_markers_are_current_symbols(organism, repository):
    """A programme's gene that no matrix can name today would silently count as missing."""
    names = GeneNames.load(organism)
    for table in (SHIPPED / "programs.tsv", repository / "resources" / "markers" / "markers.tsv"):
        given = set(pd.read_csv(table, sep="\t", dtype=str, keep_default_na=False)[f"gene_{organism}"]) - {""}
        assert given <= names.current


def test_a_programme_may_not_stand_in_two_folders(tmp_path):
    for name in ("programs.tsv", "programs_meta.tsv"):
        shutil.copy(SHIPPED / name, tmp_path)
    with pytest.raises(UserError, match="stands in another folder"):
        load_programs([SHIPPED, tmp_path])
