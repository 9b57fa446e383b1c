"""Words of authors and what they mean; what is in doubt stays empty."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunomod.init.cells import CellsTable, find_lanes, read_cells_table
from immunomod.init.contrasts import propose_contrasts
from immunomod.init.guess import guess_rows, hours_in
from immunomod.init.libraries import group_files, key_of
from immunomod.init.rows import Described, Row, as_pattern
from immunomod.init.text import as_level, as_name, clean, has_invisible, short_names
from immunomod.init.vocabulary import (
    Modality,
    culture_of,
    is_control_level,
    modality_of,
    msc_source_of,
    stimuli_in,
    without_modality,
)


def guessed(*titles: str, **characteristics: list[str]) -> list[Row]:
    """Rows of these titles after guessing; characteristics by key, one value per title."""
    rows = []
    for number, title in enumerate(titles):
        about = {key.replace("_", " "): values[number] for key, values in characteristics.items()}
        rows.append(Row(Described(f"GSM{number}", title, "", about), "GSE1"))
    guess_rows(rows)
    return rows


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("PBMC + IFN-γ", ["IFN-gamma"]),
        ("IFNg_TNFa 24h", ["IFN-gamma", "TNF"]),
        ("anti-CD3/CD28 beads", ["anti-CD3/CD28"]),
        ("αCD3αCD28", ["anti-CD3/CD28"]),
        ("anti-CD3 only", ["anti-CD3"]),
        ("CD3+ T cells", []),
        ("PHA-stimulated PBMC", ["PHA"]),
        ("alpha cells", []),
        ("unstimulated", ["none"]),
        ("without LPS", ["none"]),
        ("no IFN-beta", ["none"]),
        ("control", ["none"]),
        ("IL-1β", ["IL-1beta"]),
        ("IL-10", []),
        ("TNFAIP3 knock-out", []),
        ("forest", []),
        ("interest in rest", ["none"]),
    ],
)
def test_stimuli(text, names):
    assert stimuli_in(text) == names


@pytest.mark.parametrize(
    ("text", "culture"),
    [
        ("BM-MSC", "msc"),
        ("hUC-MSCs, passage 4", "msc"),
        ("mesenchymal stromal cells", "msc"),
        ("adipose-derived ASC", "msc"),
        ("PBMC", "immune"),
        ("CD4+ T cells", "immune"),
        ("PBMC + MSC", "coculture"),
        ("MSC with activated T cells", "coculture"),
        ("PBMC co-cultured with MSC", "coculture"),
        ("PBMC cocultured", "coculture"),
        ("PBMC without MSC", "immune"),
        ("PBMC alone", "immune"),
        ("MSC alone", "msc"),
        ("MSC monoculture", "msc"),
        ("before co-culture, T cells", "immune"),
        ("HEK293", ""),
        ("mascot", ""),
    ],
)
def test_cultures(text, culture):
    assert culture_of(text) == culture


@pytest.mark.parametrize(
    ("text", "tissue"),
    [
        ("bone marrow MSC", "bone_marrow"),
        ("BM-MSC", "bone_marrow"),
        ("hUC_MSC", "umbilical_cord"),
        ("Wharton's jelly", "umbilical_cord"),
        ("cord blood MSC", "cord_blood"),
        ("ASCs", "adipose"),
        ("MSC", ""),
        ("basic medium", ""),
    ],
)
def test_tissues_of_msc(text, tissue):
    assert msc_source_of(text) == tissue


@pytest.mark.parametrize(
    ("title", "strategy", "modality"),
    [
        ("PBMC, CITE-seq", "RNA-Seq", Modality.RNA),
        ("PBMC ADT", "OTHER", Modality.ANTIBODIES),
        ("PBMC_HTO", "OTHER", Modality.HASHTAGS),
        ("PBMC GEX and ADT", "RNA-Seq", Modality.RNA),
        ("donor1 scTCR-seq", "RNA-Seq", Modality.RECEPTORS),
        ("T cells, TCR stimulation", "RNA-Seq", Modality.RNA),
        ("multiome ATAC", "ATAC-seq", Modality.ATAC),
        ("MSC", "ATAC-seq", Modality.ATAC),
        ("MSC bulk RNA-seq", "RNA-Seq", Modality.BULK),
        ("MSC", "OTHER", Modality.RNA),
    ],
)
def test_modalities(title, strategy, modality):
    assert modality_of(title, strategy) is modality


def test_titles_of_the_same_cells_are_equal_without_their_modality():
    assert without_modality("Donor 1_resting GEX") == without_modality("donor 1 resting, ADT library")
    assert without_modality("donor 1 GEX") != without_modality("donor 2 ADT")


@pytest.mark.parametrize("level", ["ctrl", "Control_1h", "unstimulated", "healthy", "WT", "PBS", "day 0", "none"])
def test_levels_that_read_like_a_control(level):
    assert is_control_level(level)


@pytest.mark.parametrize("level", ["stim", "IFN-beta", "knockout", "arrested", "lupus", "nonesuch"])
def test_levels_that_do_not(level):
    assert not is_control_level(level)


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("IFN, 6 h", "6"),
        ("24hr", "24"),
        ("3 days", "72"),
        ("day 2", "48"),
        ("6 h and 24 h", ""),
        ("12 weeks", ""),
        ("P3", ""),
    ],
)
def test_hours(text, hours):
    assert hours_in(text) == hours


@pytest.mark.parametrize(
    ("titles", "donors"),
    [
        (["donor 1 ctrl", "donor 2 ctrl"], ["D1", "D2"]),
        (["patient_A1", "patient_A2"], ["A1", "A2"]),
        (["Subject-3, PBMC", "PBMC of subject 12"], ["S3", "S12"]),
        (["HD1 PBMC", "HD2 PBMC"], ["HD1", "HD2"]),
        (["D1 MSC", "D2 MSC"], ["D1", "D2"]),
        (["MSC D1P5 resting", "MSC D2P5 resting"], ["D1", "D2"]),
        (["D0 PBMC", "D7 PBMC"], ["", ""]),
        (["D3 PBMC", "D7 PBMC"], ["", ""]),
        (["D1 PBMC", "B2 PBMC"], ["", ""]),
        (["MSC P1", "MSC P2"], ["", ""]),
        (["PBMC rep1", "PBMC rep2"], ["", ""]),
        (["PBMC replicate 1", "PBMC replicate 2"], ["", ""]),
        (["pool of 8 patients, control", "pool of 8 patients, stimulated"], ["", ""]),
        (["patients 1", "donors"], ["", ""]),
        (["PBMC 1", "PBMC 2"], ["", ""]),
        (["donor 24h", "donor 48h"], ["", ""]),
        (["M1 macrophages", "M2 macrophages"], ["", ""]),
    ],
)
def test_donors_in_titles(titles, donors):
    assert [row["donor"] for row in guessed(*titles)] == donors


def test_donors_in_characteristics():
    rows = guessed("a", "b", donor_id=["BM12", "BM13"], age=["30", "40"])
    assert [row["donor"] for row in rows] == ["BM12", "BM13"]
    assert guessed("a", patient=["unknown"])[0]["donor"] == ""
    assert guessed("a", donor=["pool of 4 donors"])[0]["donor"] == ""
    assert guessed("a", biological_replicate=["1"])[0]["donor"] == ""
    (both,) = guessed("PBMC with MSC", pbmc_donor=["P1"], msc_donor=["M1"])
    assert (both["donor"], both["msc_donor"]) == ("P1", "M1")
    (alone,) = guessed("MSC alone", msc_donor=["M1"])
    assert (alone["donor"], alone.origins["donor"]) == ("M1", "msc_donor")


def test_a_ratio_counts_only_if_it_says_whose_numbers_these_are():
    (named,) = guessed("co-culture of PBMC with MSC", ratio=["PBMC:MSC 10:1"])
    assert named["dose"] == "0.1"
    (open_,) = guessed("co-culture", ratio=["1:10"])
    assert open_["dose"] == "" and "does not say" in open_.notes[-1]


def test_conditions_come_from_what_varies():
    rows = guessed("x1", "x2", "x3", "x4", treatment=["Drug A", "vehicle"] * 2, tissue=["blood"] * 4)
    assert [row["condition"] for row in rows] == ["Drug_A", "vehicle"] * 2
    assert rows[0].origins["condition"] == 'characteristics "treatment"'
    rows = guessed("healthy PBMC 1", "healthy PBMC 2", "Lupus PBMC 1", "Lupus PBMC 2")
    assert [row["condition"] for row in rows] == ["healthy", "healthy", "Lupus", "Lupus"]
    rows = guessed("a", "b", "c", "d")
    assert [row["condition"] for row in rows] == [""] * 4


def test_a_contrast_is_asked_only_with_two_donors_in_each_arm():
    rows = guessed("donor 1 ctrl", "donor 2 ctrl", "donor 1 LPS", "donor 2 LPS")
    for row in rows:
        row.state("dataset", "GSE1")
    (question,) = propose_contrasts(rows)
    assert (question.test, question.reference, question.doubt) == ("LPS", "control", "")
    (question,) = propose_contrasts(rows[:3])
    assert question.doubt == "LPS has 1 donor: no p-value without a second one"
    rows[0].values["donor"] = ""
    assert "donor is empty in 1 of the 2 samples of control" in propose_contrasts(rows)[0].doubt


def test_without_a_level_like_a_control_the_user_decides():
    rows = guessed(*(f"donor {n} {arm}" for n in (1, 2) for arm in ("alpha", "gamma")), group=["X", "Y"] * 2)
    (question,) = propose_contrasts(rows)
    assert "which is the reference?" in question.doubt


# --- names of files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("S1/outs/filtered_feature_bc_matrix/matrix.mtx.gz", "S1"),
        ("S1/outs/filtered_feature_bc_matrix.h5", "S1"),
        ("outs/per_sample_outs/S1/count/sample_filtered_feature_bc_matrix.h5", "S1"),
        ("GSM1_S1_matrix.mtx.gz", "GSM1_S1"),
        ("matrix_S1.mtx.gz", "S1"),
        ("S1.counts.csv.gz", "S1"),
        ("a/S1/genes.tsv", "a/S1"),
        ("discounts.csv", "discounts"),
    ],
)
def test_keys_of_paths(path, key):
    assert key_of(path) == key


def test_companions_follow_their_matrix():
    groups = group_files(
        ["GSM1_2.1.mtx.gz", "GSM1_barcodes.tsv.gz", "GSM2_2.2.mtx.gz", "GSM2_barcodes.tsv.gz", "g.genes.tsv"]
    )
    assert [group.names for group in groups] == [
        ("GSM1_2.1.mtx.gz", "g.genes.tsv", "GSM1_barcodes.tsv.gz"),
        ("GSM2_2.2.mtx.gz", "g.genes.tsv", "GSM2_barcodes.tsv.gz"),
    ]


# --- per-cell tables -------------------------------------------------------------------------------------------------

BARCODES = [f"ACGTACGTACGTAC{a}{b}" for a in "ACGT" for b in "ACGT"]


def table_of(tmp_path, text: str) -> CellsTable | None:
    path = tmp_path / "cells.tsv"
    path.write_text(text)
    return read_cells_table(path, "cells.tsv")


def test_columns_of_a_per_cell_table(tmp_path):
    body = "\n".join(f"{name}-1\t{k % 2 + 1}\tP{k % 3}\t{'TB'[k % 2]}\tsinglet" for k, name in enumerate(BARCODES))
    body = body.replace("singlet", "doublet", 1)
    assert table_of(tmp_path, f"lane\tdonor\tcell_type\tdroplet.type\n{body}\n").columns == {
        "donor": "donor",
        "label": "cell_type",
        "doublet": "droplet.type",
    }
    table = table_of(tmp_path, f"id\tcluster\tind\tcelltype\tcall\n{body}\n")
    assert table.columns == {"donor": "ind", "label": "celltype"} and list(table.levels) == ["cluster", "call"]


@pytest.mark.parametrize(
    "text",
    ["gene\ta\tb\nCD4\t1\t2\nCD8A\t3\t4\n", "id\tage\nP1\t30\n", "", "ACGTACGT\n", "a\tb\nACGTACGTAA\t1\nACGTACGTAC\n"],
)
def test_other_tables_are_no_per_cell_tables(tmp_path, text):
    assert table_of(tmp_path, text) is None


def test_lanes_by_titles_only_where_no_barcodes_are_known(tmp_path):
    body = "\n".join(f"{name}\t{'early' if k % 2 else 'late'}\tP{k % 3}" for k, name in enumerate(BARCODES))
    table = table_of(tmp_path, f"stage\tdonor\n{body}\n")
    lanes = find_lanes(table, [None, None], ["late PBMC", "early PBMC"])
    assert (lanes.column, dict(lanes.of_library)) == ("stage", {0: "late", 1: "early"})
    assert find_lanes(table, [None, None], ["late PBMC", "late PBMC"]) is None
    strangers = [{f"TTTTTTTT{name}" for name in BARCODES}, {f"GGGGGGGG{name}" for name in BARCODES}]
    assert find_lanes(table, strangers, ["late PBMC", "early PBMC"]) is None
    everything = [set(BARCODES), set(BARCODES)]
    assert find_lanes(table, everything, ["late PBMC", "early PBMC"]) is None


# --- text ------------------------------------------------------------------------------------------------------------


def test_short_names_tell_libraries_apart():
    assert short_names(["PBMC of donor 1, ctrl", "PBMC of donor 1, LPS"], ["a", "b"]) == ["ctrl", "LPS"]
    assert short_names(["S 1", "S 2"], ["a", "b"]) == ["S_1", "S_2"]
    assert short_names(["same", "same"], ["GSM1", "GSM2"]) == ["same_GSM1", "same_GSM2"]
    assert short_names(["患", ""], ["GSM1", "GSM2"]) == ["GSM1", "GSM2"]


@given(st.text(max_size=300))
@settings(max_examples=300, deadline=None)
def test_cleaned_text_is_harmless(text):
    cleaned = clean(text, 80)
    assert len(cleaned) <= 80 and not has_invisible(cleaned) and "<" not in cleaned
    assert cleaned == cleaned.strip() and cleaned[:1] not in tuple("=+-@\"'#`|%")
    level, name = as_level(text), as_name(text)
    assert "," not in level and level[:1] not in tuple("=+-@\"'#.") and not has_invisible(level)
    assert name == "" or (name[0].isalnum() and name.isascii() and "/" not in name)


@given(st.lists(st.text(max_size=60), min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_names_are_unique_whatever_the_titles(titles):
    names = short_names(titles, [f"GSM{number}" for number in range(len(titles))])
    assert len({name.lower() for name in names}) == len(titles) and all(names)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30))
@settings(max_examples=200, deadline=None)
def test_a_pattern_fits_its_name(name):
    from fnmatch import fnmatchcase

    pattern = as_pattern(name)
    assert fnmatchcase(name, pattern) and "," not in pattern and pattern[0] not in "=+@-#\"'"


@pytest.mark.parametrize(
    "text", ["co" * 150, "donor " * 50, "(" * 300, "a b " * 75, "1:" * 150, "msc " * 75, "-" * 300]
)
def test_long_and_odd_text_takes_no_time(text):
    start = time.process_time()
    guessed(text, f"{text} ctrl", treatment=[text, text], **{text: [text, text]})
    assert time.process_time() - start < 2
