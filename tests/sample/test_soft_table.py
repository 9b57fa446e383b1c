"""A series' SOFT file as a per-cell table: what is read of it, and what a hostile one can do."""

import gzip

import pandas as pd
import pytest

from immunomod.acquire.geo import parse_soft
from immunomod.errors import UserError
from immunomod.sample import soft_table
from immunomod.sample.cells_table import CellsTableColumns, join_cells_table
from immunomod.sample.readers.sniff import sniff
from immunomod.sample.soft_table import is_soft, read_soft_table

SOFT = """^DATABASE = GeoMiame
!Database_name = Gene Expression Omnibus (GEO)
^SERIES = GSE1
!Series_title = Cells one by one
^PLATFORM = GPL1
!Platform_title = Sequencer
^SAMPLE = GSM1
!Sample_title = Donor 1, naïve, cell 1 [D1.1]
!Sample_source_name_ch1 = umbilical cord
!Sample_organism_ch1 = Homo sapiens
!Sample_characteristics_ch1 = donor id: Donor1
!Sample_characteristics_ch1 = treatment: naïve
!Sample_characteristics_ch1 = organism: of a kind
!Sample_description = never kept
!sample_table_begin
ID_REF\tVALUE
!sample_table_end
^SAMPLE = GSM2
!Sample_title = Donor 2, licensed, cell 1 [D2.1]
!Sample_characteristics_ch1 = donor id: Donor2
!Sample_characteristics_ch1 = treatment: IFNγ+TNFα: 12 h
!Sample_characteristics_ch1 = batch: 1
!Sample_characteristics_ch1 = batch: 2
"""


def test_one_row_per_sample(put):
    table = read_soft_table(put("GSE1_family.soft.gz", SOFT))
    assert table.to_dict("list") == {
        "accession": ["GSM1", "GSM2"],
        "title": ["Donor 1, naïve, cell 1 [D1.1]", "Donor 2, licensed, cell 1 [D2.1]"],
        "source_name": ["umbilical cord", ""],
        "organism": ["Homo sapiens", ""],
        "donor id": ["Donor1", "Donor2"],
        "treatment": ["naïve", "IFNγ+TNFα: 12 h"],
        "organism (characteristic)": ["of a kind", ""],
        "batch": ["", "1; 2"],
    }


def test_the_same_as_the_records_that_files_are_found_by(put):
    """Independent of the table's code: what is read when files are chosen."""
    table = read_soft_table(put("GSE1_family.soft.gz", SOFT)).set_index("accession")
    for sample in parse_soft(SOFT.splitlines()).samples:
        assert table.at[sample.accession, "title"] == sample.title
        for name in ("donor id", "treatment", "batch"):
            assert table.at[sample.accession, name] == sample.characteristics.get(name, "")


def test_soft_is_told_by_its_content(put):
    assert is_soft(sniff(put("cells.txt", SOFT)))
    assert not is_soft(sniff(put("cells.soft.gz", "barcode\tdonor\nA\td1\n")))


def test_cells_are_joined_by_the_alias_in_the_title(put):
    columns = CellsTableColumns.from_config(
        {"barcode": "title", "barcode_pattern": r"\[([^]]+)\]", "lane": ["Donor ID", "treatment"], "listed_only": True}
    )
    path = put("GSE1_family.soft.gz", SOFT)
    join = join_cells_table(pd.Index(["D2.1", "D1.1"]), path, columns, "Donor2 | IFNγ+TNFα: 12 h", "licensed")
    assert list(join.kept) == [True, False]


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("MOST_SAMPLES", 1, "more than 1 samples"),
        ("MOST_COLUMNS", 3, "more characteristics than"),
        ("MOST_KEPT_CHARACTERS", 60, "more characteristics than"),
        ("MOST_BYTES", 200, "unpacks to more than 200 bytes"),
    ],
)
def test_more_than_a_series_can_hold_is_refused(limit, value, message, put, monkeypatch):
    monkeypatch.setattr(soft_table, limit, value)
    with pytest.raises(UserError, match=message):
        read_soft_table(put("GSE1_family.soft.gz", SOFT))


def test_long_titles_are_cut_and_odd_bytes_are_no_traceback(put):
    bad = (
        b"^SAMPLE = GSM1\n!Sample_title = "
        + b"\xff\x00" * 700_000
        + b"\n!Sample_characteristics_ch1 = : \x01\n!Sample_\n"
    )
    table = read_soft_table(put("GSE1_family.soft.gz", bad))
    assert len(table) == 1
    assert len(table.at[0, "title"]) == soft_table.LONGEST_VALUE


def test_a_damaged_or_empty_file_says_so(put, tmp_path):
    with pytest.raises(UserError, match="holds no sample"):
        read_soft_table(put("GSE1_family.soft.gz", "^SERIES = GSE1\n"))
    cut = tmp_path / "cut.soft.gz"
    cut.write_bytes(gzip.compress(SOFT.encode() * 50)[:-40])
    with pytest.raises(UserError, match="truncated or corrupt"):
        read_soft_table(cut)
