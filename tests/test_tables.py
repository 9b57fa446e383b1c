"""Sheets are read row by row, and every fault names its row and column."""

from pathlib import Path

import pytest

from immunomod.errors import UserError
from immunomod.tables import read_table

HEADER = "sample\tdataset\tsource\tcondition\tdonor\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "samples.tsv"
    path.write_text(text, encoding="utf-8")
    return path


def test_reads_fields_as_stripped_strings_with_row_numbers(tmp_path):
    path = write(tmp_path, "\ufeff" + HEADER + "a\td\tGSM1\tx \t007\n\nb\td\tGSM2\ty\tNA\n")
    table = read_table(path, "samples")
    assert table.index.tolist() == [2, 4]
    assert table["donor"].tolist() == ["007", "NA"]
    assert table.at[2, "condition"] == "x"
    assert (table["stimulus"] == "").all()


def test_comments_may_stand_anywhere_and_row_numbers_stay_those_of_the_file(tmp_path):
    text = (
        '# what is what\n#\t"open\n\n'
        + HEADER
        + '# "\t\ta\n  # b\na\td\tGSM1\tx\tD1\n"#b"\td\tGSM2\nc\td\tGSM3\ty\tD2\n'
    )
    table = read_table(write(tmp_path, text), "samples")
    assert table["sample"].to_dict() == {7: "a", 9: "c"}
    with pytest.raises(UserError, match=r"row 3: the header lacks column source"):
        read_table(write(tmp_path, "#\n#\nsample\tdataset\tcondition\n"), "samples")


def test_lists_every_fault_with_row_and_column(tmp_path):
    path = write(tmp_path, HEADER + "../a\td\tGSM1\tx\tD1\nb\td\t\tx\tD1\nc\td\tGSM3\tx\n")
    with pytest.raises(UserError) as caught:
        read_table(path, "samples")
    message = str(caught.value)
    assert "row 2, column sample: '../a' is not allowed here" in message
    assert "row 3, column source: empty, and must be given" in message
    assert "row 4, column donor: one of donor, cells, hashtags must be given" in message


@pytest.mark.parametrize("row", [1, 2])
def test_an_open_quotation_mark_swallows_no_row(tmp_path, row):
    lines = ["sample\tdataset\tsource\tcondition\tdonor", "a\td\tGSM1\tx\tD1", "b\td\tGSM2\ty\tD2"]
    lines[row] = lines[row].replace("\td\t", '\t"d\t')
    with pytest.raises(UserError, match=f"row {row + 1}: a field begins with a quotation mark"):
        read_table(write(tmp_path, "\n".join(lines)), "samples")


def test_only_line_ends_end_a_row(tmp_path):
    text = 'sample\tdataset\tsource\tcondition\tdonor\r\na\td\tGSM1\tx\u2028y\t5" dish\x85z\r\n'
    (row,) = read_table(write(tmp_path, text), "samples").to_dict("records")
    assert (row["condition"], row["donor"]) == ("x\u2028y", '5" dish\x85z')


def test_duplicates_name_both_rows(tmp_path):
    path = write(tmp_path, HEADER + "a\td\tGSM1\tx\tD1\nb\td\tGSM2\tx\tD1\na\td\tGSM3\tx\tD2\n")
    with pytest.raises(UserError, match=r"row 4, column sample: sample 'a' stands already in row 2"):
        read_table(path, "samples", unique=("sample",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (HEADER, "no rows"),
        ("sample,dataset,source,condition,donor\na,b,c,d,e\n", "comma-separated. Fix: save the file tab-separated"),
        ("sample;dataset;source;condition;donor\n", "semicolon-separated. Fix: save the file tab-separated"),
        ("sample\tsample\n", "'sample' stands more than once"),
        (HEADER + "a\tb\tc\td\te\tf\n", "row 2: 6 fields where the header has 5"),
    ],
)
def test_a_broken_file_is_one_message(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read_table(write(tmp_path, text), "samples")


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.tsv does not exist"):
        read_table(tmp_path / "nowhere.tsv", "samples")


def test_text_in_another_encoding_is_refused(tmp_path):
    path = tmp_path / "samples.tsv"
    path.write_bytes(HEADER.encode() + "a\td\tGSM1\tü\tD1\n".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        read_table(path, "samples")
