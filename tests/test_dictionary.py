"""The dictionary of the tables, against its page and against the columns that the code writes."""

from pathlib import Path

from immunomod.dictionary import FOLDER, PAGE, columns_of_tables, page, rows_of_tables, table_of
from immunomod.files import read_tsv
from immunomod.report.inputs import PROGRAM_EFFECT_COLUMNS


def test_the_page_is_made_from_the_tables():
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m immunomod.dictionary"


def test_every_column_is_described_once():
    columns = columns_of_tables()
    assert set(columns["table"]) == set(rows_of_tables())
    assert not columns.duplicated(["table", "column"]).any() and columns.notna().all(axis=None)
    assert not columns["description"].str.contains("[|?]").any()


def test_the_contract_stands_in_it():
    columns = columns_of_tables()
    effects = columns[columns["table"] == "contrasts/<contrast>/program_effects.tsv"]
    assert tuple(effects["column"]) == PROGRAM_EFFECT_COLUMNS


def test_a_file_is_told_by_its_path():
    assert table_of(Path("samples/qc.tsv")) == "samples/qc.tsv"
    assert table_of(Path("contrasts/a.b/genes/CD4_T.tsv.gz")) == "contrasts/<contrast>/genes/<cell_class>.tsv.gz"
    assert table_of(Path("samples/D1/cells.tsv.gz")) == "samples/<sample>/cells.tsv.gz"
    assert table_of(Path("samples/D1/more/cells.tsv.gz")) is None


def test_what_is_optional_is_a_column_that_is_described():
    columns, optional = columns_of_tables(), read_tsv(FOLDER / "optional.tsv", dtype=str)
    known = set(zip(columns["table"], columns["column"], strict=True))
    assert set(zip(optional["table"], optional["column"], strict=True)) <= known
    assert (columns["only_where"] != "").sum() == len(optional) > 0
