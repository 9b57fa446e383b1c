"""Excel workbooks: the same rules as for text tables, dates among names, and workbooks made to exhaust memory."""

from __future__ import annotations

import gzip
import io
import zipfile
from xml.sax.saxutils import escape

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from immunomod.errors import UserError
from immunomod.sample.readers import xlsx
from immunomod.sample.readers.library import LibraryFiles
from immunomod.sample.readers.sniff import Kind, sniff
from immunomod.sample.readers.xlsx import XLSX

GENES = ["ACTB", "GAPDH", "CD3D", "B2M", "LYZ", "COL1A1", "IDO1", "CD74", "NKG7", "RPL3"]
CELLS = ["AAACCTGAGAAACCAT-1", "AAACCTGAGAAACCGC-1", "AAACCTGAGAAACCTA-1"]
COUNTS = np.random.default_rng(5).poisson(1.5, size=(10, 3))
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
KINDS = "application/vnd.openxmlformats-officedocument.spreadsheetml"
DATE = "date"


def cell(value, reference):
    """XML of a cell: a text, a number, nothing for None, a day of 2020 for (DATE, month, day)."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        day = (pd.Timestamp(2020, *value[1:]) - pd.Timestamp(1899, 12, 30)).days
        return f'<c r="{reference}" s="1"><v>{day}</v></c>'
    if isinstance(value, str):
        return f'<c r="{reference}" t="inlineStr"><is><t xml:space="preserve">{escape(value)}</t></is></c>'
    return f'<c r="{reference}"><v>{value}</v></c>'


def letters(number):
    name = ""
    while number:
        number, rest = divmod(number - 1, 26)
        name = chr(65 + rest) + name
    return name


def sheet_xml(rows, top=1, left=1):
    lines = []
    for number, row in enumerate(rows, start=top):
        cells = "".join(cell(value, f"{letters(column)}{number}") for column, value in enumerate(row, start=left))
        lines.append(f'<row r="{number}">{cells}</row>')
    return f'<worksheet xmlns="{MAIN}"><sheetData>{"".join(lines)}</sheetData></worksheet>'


def parts_of(sheets):
    """The parts of a workbook, written by hand; ``sheets`` are names and XML."""
    numbers = range(1, len(sheets) + 1)
    overrides = "".join(
        f'<Override PartName="/xl/worksheets/sheet{n}.xml" ContentType="{KINDS}.worksheet+xml"/>' for n in numbers
    )
    books = "".join(
        f'<sheet name="{name}" sheetId="{n}" r:id="rId{n}"/>' for n, name in zip(numbers, sheets, strict=True)
    )
    links = "".join(
        f'<Relationship Id="rId{n}" Type="{OFFICE}/worksheet" Target="worksheets/sheet{n}.xml"/>' for n in numbers
    )
    return {
        "[Content_Types].xml": f'<Types xmlns="{PACKAGE}/content-types"><Default Extension="rels" '
        f'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Override PartName="/xl/workbook.xml" '
        f'ContentType="{KINDS}.sheet.main+xml"/>{overrides}</Types>',
        "_rels/.rels": f'<Relationships xmlns="{PACKAGE}/relationships"><Relationship Id="rId1" '
        f'Type="{OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{OFFICE}"><sheets>{books}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{PACKAGE}/relationships">{links}<Relationship '
        f'Id="rIdS" Type="{OFFICE}/styles" Target="styles.xml"/></Relationships>',
        "xl/styles.xml": f'<styleSheet xmlns="{MAIN}"><cellXfs count="2"><xf numFmtId="0"/><xf numFmtId="16"/>'
        "</cellXfs></styleSheet>",
        **{f"xl/worksheets/sheet{n}.xml": xml for n, xml in zip(numbers, sheets.values(), strict=True)},
    }


def workbook(sheets, **changes):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as book:
        for name, text in (parts_of(sheets) | changes).items():
            book.writestr(name, text)
    return buffer.getvalue()


def counts_rows(names=GENES, cells=CELLS, counts=COUNTS):
    return [["gene", *cells], *([name, *map(int, row)] for name, row in zip(names, counts, strict=True))]


def files_of(path, cells=()):
    return LibraryFiles("S", (sniff(path),), cells=tuple(cells))


def read(path, cells=()):
    files = files_of(path, cells)
    assert XLSX.recognise(files) == list(files.own)
    return XLSX.run(files.own[0], files)


def assert_counts(library, cells=CELLS, names=GENES, counts=COUNTS):
    assert list(library.barcodes) == list(cells)
    assert list(library.features["gene_symbol"]) == list(names)
    assert library.matrix.dtype == np.int32
    np.testing.assert_array_equal(library.matrix.toarray(), np.asarray(counts).T)


@pytest.mark.parametrize("name", ["m.xlsx", "m.xlsx.gz", "m.txt"])
def test_a_workbook_is_told_by_its_content(name, put):
    path = put(name, workbook({"counts": sheet_xml(counts_rows())}))
    assert sniff(path).kind is Kind.XLSX
    library = read(path)
    assert_counts(library)
    assert library.decisions[0] == "Excel sheet 'counts', genes x cells"
    files = files_of(path)
    head = XLSX.peek(files.own[0], files)
    assert (head.n_cells, head.n_features) == (3, 10)
    assert list(head.barcodes) == CELLS
    assert list(head.features["gene_symbol"]) == GENES


def test_other_zips_are_archives_still(put):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        bundle.writestr("xl.txt", "xl/")
    assert sniff(put("a.zip", buffer.getvalue())).kind is Kind.ARCHIVE
    document = io.BytesIO()
    with zipfile.ZipFile(document, "w") as bundle:
        bundle.writestr("[Content_Types].xml", "x")
        bundle.writestr("word/document.xml", "x")
    assert sniff(put("a.docx", document.getvalue())).kind is Kind.ARCHIVE


@pytest.mark.parametrize("orientation", ["genes x cells", "cells x genes"])
def test_shared_strings_as_excel_writes_them(orientation, put):
    rows = counts_rows() if orientation == "genes x cells" else [list(row) for row in zip(*counts_rows(), strict=True)]
    words = [value for row in rows for value in row if isinstance(value, str)]
    xml = sheet_xml(rows)
    for number, word in enumerate(words):
        inline = f' t="inlineStr"><is><t xml:space="preserve">{word}</t></is></c>'
        assert inline in xml
        xml = xml.replace(inline, f' t="s"><v>{number}</v></c>', 1)
    strings = "".join(f"<si><t>{word}</t></si>" for word in words)
    parts = parts_of({"a": xml})
    types = parts["[Content_Types].xml"].replace(
        "</Types>", f'<Override PartName="/xl/sharedStrings.xml" ContentType="{KINDS}.sharedStrings+xml"/></Types>'
    )
    links = parts["xl/_rels/workbook.xml.rels"].replace(
        "</Relationships>",
        f'<Relationship Id="rIdT" Type="{OFFICE}/sharedStrings" Target="sharedStrings.xml"/></Relationships>',
    )
    changes = {
        "[Content_Types].xml": types,
        "xl/_rels/workbook.xml.rels": links,
        "xl/sharedStrings.xml": f'<sst xmlns="{MAIN}">{strings}</sst>',
    }
    assert_counts(read(put("m.xlsx", workbook({"a": xml}, **changes))))


@settings(max_examples=20, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(st.data())
def test_random_sheets(tmp_path_factory, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n_genes, n_cells = data.draw(st.sampled_from([8, 20, 300])), data.draw(st.integers(2, 8))
    genes = ["ACTB", "B2M", "CD74", "LYZ", *(f"GENE{i}" for i in range(n_genes - 4))]
    cells = ["".join(rng.choice(list("ACGT"), 12)) + f"-{i}" for i in range(n_cells)]
    counts = rng.poisson(0.8, size=(n_genes, n_cells)) * rng.choice([1, 200, 70_000], size=(n_genes, n_cells))
    rows = counts_rows(genes, cells, counts)
    if data.draw(st.booleans()):
        rows = [list(row) for row in zip(*rows, strict=True)]
    as_text = data.draw(st.booleans())
    rows[1:] = [[row[0], *(str(v) if as_text else v for v in row[1:])] for row in rows[1:]]
    if data.draw(st.booleans()):
        rows = [["Table S1: counts"], [], *rows]
    xml = sheet_xml(rows, top=data.draw(st.integers(1, 4)), left=data.draw(st.integers(1, 3)))
    path = tmp_path_factory.mktemp("t") / "m.xlsx"
    path.write_bytes(workbook({"a": xml}))
    assert_counts(read(path), cells=cells, names=genes, counts=counts)


def test_annotation_is_dropped_as_in_text_tables(put):
    rows = counts_rows()
    rows = [[row[0], extra, *row[1:]] for row, extra in zip(rows, ["length", *range(900, 910)], strict=True)]
    library = read(put("m.xlsx", workbook({"a": sheet_xml(rows)})))
    assert_counts(library)
    assert "length (describes genes)" in library.decisions[-1]


def test_names_that_excel_made_dates_are_counted(put):
    names = [*GENES[:6], (DATE, 3, 1), (DATE, 9, 12), "2-Sep", 44621]
    library = read(put("m.xlsx", workbook({"a": sheet_xml(counts_rows(names))})))
    assert_counts(library, names=[*GENES[:6], "1-Mar", "12-Sep", "2-Sep", "44621"])
    assert "3 names of genes are dates that Excel made of them (1-Mar)" in library.decisions
    assert "1 names of genes are Excel's numbers of days (44621)" in library.decisions


def test_dates_in_the_header_of_cells_x_genes(put):
    rows = [list(row) for row in zip(*counts_rows([*GENES[:9], (DATE, 3, 1)]), strict=True)]
    assert_counts(read(put("m.xlsx", workbook({"a": sheet_xml(rows)}))), names=[*GENES[:9], "1-Mar"])


def test_numbers_as_names_have_no_point(put):
    names = [60, 2597, 915, 567, 4069, 1277, 3620, 972, 4818, 6122]
    library = read(put("m.xlsx", workbook({"a": sheet_xml(counts_rows(names))})))
    assert_counts(library, names=[str(name) for name in names])


def test_the_one_sheet_with_a_table_is_read(put):
    sheets = {
        "read me": sheet_xml([["These are counts"], ["of cells"]]),
        "markers": sheet_xml([["gene", "p_val", "avg_logFC"], *([gene, 0.01, 1.5] for gene in GENES)]),
        "empty": sheet_xml([]),
        "counts": sheet_xml(counts_rows()),
    }
    library = read(put("m.xlsx", workbook(sheets)))
    assert_counts(library)
    assert "'counts'" in library.decisions[0]
    del sheets["counts"]
    assert XLSX.recognise(files_of(put("n.xlsx", workbook(sheets)))) == []


def test_several_sheets_with_tables_are_listed(put):
    path = put("m.xlsx", workbook({"P1": sheet_xml(counts_rows()), "P2": sheet_xml(counts_rows())}))
    with pytest.raises(UserError, match=r"m\.xlsx: 2 sheets hold tables of numbers \('P1', 'P2'\); save the one"):
        read(path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "the value is empty; a missing count is not 0"),
        ("NA", "'NA' is no number; a missing count"),
        ("x", "'x' is no number"),
    ],
)
def test_a_cell_without_a_number_is_named(value, message, put):
    rows = counts_rows()
    rows[4][2] = value
    path = put("m.xlsx", workbook({"a": sheet_xml(rows)}))
    with pytest.raises(UserError, match=rf"m\.xlsx, sheet 'a', row 5 \(B2M\), column '{CELLS[1]}': {message}"):
        read(path)


def test_a_row_too_long_is_named(put):
    rows = counts_rows()
    rows[4].append(5)
    with pytest.raises(UserError, match=r"row 5 \(B2M\) holds more cells than the 4 of the header"):
        read(put("m.xlsx", workbook({"a": sheet_xml(rows)})))


# ------------------------------------------------------------------------------------------ hostile workbooks


def refused(path, message):
    files = files_of(path)
    assert XLSX.recognise(files) == list(files.own)  # so that reading says what is wrong
    for reader in (XLSX.run, XLSX.peek):
        with pytest.raises(UserError, match=message) as caught:
            reader(files.own[0], files)
        assert path.name in str(caught.value)


def test_two_cells_at_the_ends_of_the_sheet(put):
    xml = f'<worksheet xmlns="{MAIN}"><sheetData><row r="1"><c r="A1"><v>1</v></c></row><row r="1048576">'
    xml += '<c r="XFD1048576"><v>1</v></c></row></sheetData></worksheet>'
    refused(put("m.xlsx", workbook({"a": xml})), "spans 17,179,869,184 cells, more than the 30,000,000")


def test_many_cells_without_references(put):
    xml = f'<worksheet xmlns="{MAIN}"><sheetData><row>{"<c><v>1</v></c>" * 16_000}</row>{"<row/>" * 500_000}'
    refused(put("m.xlsx", workbook({"a": xml + "</sheetData></worksheet>"})), "spans 8,000,016,000 cells")


def test_a_sheet_in_a_part_of_another_name(put):
    xml = f'<worksheet xmlns="{MAIN}"><sheetData><row r="1"><c r="A1"/></row><row r="1000000"><c r="ZZZ1000000"/></row>'
    links = f'<Relationships xmlns="{PACKAGE}/relationships"><Relationship Id="rId1" Type="{OFFICE}/worksheet" '
    changes = {"xl/_rels/workbook.xml.rels": links + 'Target="x.bin"/></Relationships>', "xl/x.bin": xml}
    refused(put("m.xlsx", workbook({"a": sheet_xml(counts_rows())}, **changes)), r"x\.bin spans")


def test_a_bomb_is_refused_by_what_it_claims_and_by_what_it_holds(put, monkeypatch):
    monkeypatch.setattr(xlsx, "MAX_INFLATED_BYTES", 1 << 20)
    content = workbook({"a": sheet_xml(counts_rows())}, **{"xl/x.xml": " " * (4 << 20)})
    refused(put("m.xlsx", content), r"holds 7 parts of 0\.0 GB in all once unpacked")
    liar = bytearray(content)
    place = liar.rfind(b"xl/x.xml") - 46  # its entry in the directory
    assert liar[place : place + 4] == b"PK\x01\x02"
    liar[place + 24 : place + 28] = (100).to_bytes(4, "little")
    refused(put("n.xlsx", bytes(liar)), r"xl/x\.xml is larger than the workbook says")


def test_a_workbook_too_large_to_hold(put, monkeypatch):
    monkeypatch.setattr(xlsx, "MAX_FILE_BYTES", 1000)
    refused(put("m.xlsx", workbook({"a": sheet_xml(counts_rows())})), "the workbook is larger than")


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.99])
def test_a_workbook_cut_short(cut, put):
    content = workbook({"a": sheet_xml(counts_rows())})
    refused(put("m.xlsx", content[: int(len(content) * cut)]), "the workbook is damaged and cannot be opened")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damage_gives_one_message_or_the_right_counts(tmp_path_factory, data):
    content = bytearray(workbook({"a": sheet_xml(counts_rows())}))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("t") / "m.xlsx"
    path.write_bytes(content if data.draw(st.booleans()) else gzip.compress(bytes(content)))
    files = files_of(path)
    if files.own[0].kind is not Kind.XLSX:
        return
    try:
        library = XLSX.run(files.own[0], files)
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert_counts(library)


def test_bad_xml(put):
    refused(put("m.xlsx", workbook({"a": "<worksheet><sheetData><row></c>"})), "no sheet holds|damaged")
