"""The compiled parser of dense tables against the csv module, with fields torn apart between blocks."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from immunomod.errors import UserError
from immunomod.sample.readers.dense_parse import ParsePlan, names_of, parse_table, whole_lines

LINE_ENDS = ["\n", "\r\n", "\r"]
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
NUMBERS = st.one_of(
    st.sampled_from(["0"] * 8 + ["1", "1.0", "0.0", "-0", "+3", "1e3", "2.5E+02", "1e-1", "0.25", "007", "-4", "1."]),
    st.integers(0, 10**15 - 1).map(str),
    st.integers(0, 300).map(lambda v: f"{v}.000000"),
    st.integers(0, 300).map(lambda v: f"{v:.8e}"),
    st.floats(-1e6, 1e6, allow_nan=False).map(lambda v: f"{v:.6g}"),
)
NAMES = st.text(st.sampled_from("abAC1 .;,\t|\"'-_é"), max_size=8)


def plan(delimiter, names, texts=(0,), values=None, first_line=2):
    return ParsePlan(delimiter, first_line, tuple(names), tuple(texts), tuple(values or range(1, len(names))))


def dense(table, genes_are_rows):
    return table.columns_as_cells(np.ones(table.n_rows, dtype=bool)) if genes_are_rows else table.rows_as_cells()


@st.composite
def tables(draw):
    delimiter = draw(st.sampled_from("\t,;"))
    n_rows, n_columns = draw(st.integers(1, 8)), draw(st.integers(1, 6))
    names = draw(st.lists(NAMES.filter(lambda n: n.strip(' \t,;"')), min_size=n_rows, max_size=n_rows))
    rows = [[name, *draw(st.lists(NUMBERS, min_size=n_columns, max_size=n_columns))] for name in names]
    buffer = io.StringIO()
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    writer = csv.writer(buffer, delimiter=delimiter, quoting=quoting, lineterminator=draw(st.sampled_from(LINE_ENDS)))
    writer.writerow(["", *(f"c{i}" for i in range(n_columns))])
    trailing = [""] * draw(st.integers(0, 2))
    for row in rows:
        writer.writerow(row + trailing)
    text = buffer.getvalue()
    if draw(st.booleans()):
        text = text.rstrip("\r\n")
    return delimiter, rows, text


@QUICK
@given(tables(), st.integers(1, 40), st.booleans())
def test_numbers_and_names_are_those_of_the_csv_module(tmp_path_factory, table, block_bytes, genes_are_rows):
    delimiter, rows, text = table
    path = tmp_path_factory.mktemp("t") / "m.txt"
    path.write_bytes(text.encode())
    reference = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))[1:]
    names = ["", *(f"c{i}" for i in range(len(rows[0]) - 1))]
    parsed = parse_table(path, plan(delimiter, names), block_bytes)
    assert parsed.texts == [[row[0] for row in reference]]
    assert names_of(path, plan(delimiter, names)) == parsed.texts
    expected = np.array([[float(field) for field in row[1 : len(names)]] for row in reference])
    matrix = dense(parsed, genes_are_rows)
    expected = expected.T if genes_are_rows else expected
    whole = bool(np.all(expected == np.floor(expected))) and np.abs(expected).max() < 2**31
    assert matrix.dtype == (np.int32 if whole else matrix.dtype)
    assert matrix.nnz == np.count_nonzero(expected)
    assert matrix.has_sorted_indices
    is_whole = expected == np.floor(expected)
    np.testing.assert_array_equal(matrix.toarray()[is_whole], expected[is_whole])
    np.testing.assert_allclose(matrix.toarray()[~is_whole], expected[~is_whole], rtol=2**-24, atol=2.0**-149)


@QUICK
@given(st.lists(st.lists(st.integers(0, 99), min_size=3, max_size=3), min_size=1, max_size=6), st.data())
def test_any_run_of_spaces_is_one_delimiter(tmp_path_factory, values, data):
    path = tmp_path_factory.mktemp("t") / "m.txt"
    blanks = st.integers(1, 4).map(lambda n: " " * n)
    lines = ["a b c"]
    for number, row in enumerate(values):
        fields = [f'"G {number}"', *map(str, row)]
        line = "".join(data.draw(blanks) + field for field in fields)
        lines.append(line[data.draw(st.sampled_from([0, 1])) :] + " " * data.draw(st.integers(0, 2)))
    path.write_text(data.draw(st.sampled_from(LINE_ENDS)).join(lines))
    table = parse_table(path, plan(" ", ["", "a", "b", "c"]), data.draw(st.integers(1, 30)))
    assert table.texts == [[f"G {number}" for number in range(len(values))]]
    np.testing.assert_array_equal(table.rows_as_cells().toarray(), values)


@QUICK
@given(st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"ab", b"c", b",", b""]), max_size=20), st.data())
def test_blocks_are_cut_at_line_ends_only(tmp_path_factory, pieces, data):
    content = b"".join(pieces)
    size = data.draw(st.integers(1, 5))
    blocks = [content[i : i + size] for i in range(0, len(content), size)]
    found = list(whole_lines(tmp_path_factory.getbasetemp(), iter(blocks)))
    assert b"".join(found) in (content, content + b"\n")
    assert [line for block in found for line in block.splitlines()] == content.splitlines()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("12", 12), (" 7 ", 7), ('"3"', 3), ('" 3 "', 3), ("1e3", 1000), ("1E+2", 100), ("5.000", 5), ("0.5", 0.5)],
        *[("-2", -2), ("+2", 2), (".5", 0.5), ("2147483648", 2**31), ("123456789012345678", 123456789012345678)],
        *[("0.1", 0.1), ("883.145697636109", 883.145697636109), ("1e-300", 1e-300), ("100e-2", 1), ("0e999", 0)],
    ],
)
def test_forms_of_numbers(tmp_path, text, value):
    path = tmp_path / "m.tsv"
    path.write_text(f"\ta\tb\nG\t{text}\t1\n")
    matrix = parse_table(path, plan("\t", ["", "a", "b"])).rows_as_cells()
    assert matrix.toarray()[0, 0] == matrix.dtype.type(value)
    assert matrix.toarray()[0, 1] == 1


@pytest.mark.parametrize(
    "text", ["x", "1x", "1,5", "1 2", "--1", "1e", "e5", "0x10", "1_000", ".", "-", "#N/A", "1.2.3"]
)
def test_what_is_no_number(tmp_path, text):
    path = tmp_path / "m.tsv"
    path.write_text(f"\ta\tb\nG\t1\t1\nH\t1\t{text}\nI\t1\t1\n")
    with pytest.raises(UserError, match=r"m\.tsv: line 3 \(H\), column 'b': '.*' is no number; counts are needed"):
        parse_table(path, plan("\t", ["", "a", "b"]))


@pytest.mark.parametrize("text", ["NA", "NaN", "nan", "N/A", "null", "Inf", '"NA"'])
def test_a_missing_value_is_never_a_zero(tmp_path, text):
    path = tmp_path / "m.tsv"
    path.write_text(f"\ta\tb\nG\t{text}\t1\nI\t1\t1\n")
    with pytest.raises(UserError, match=r"line 2 \(G\), column 'a': '.*' is no number; a missing count is not 0"):
        parse_table(path, plan("\t", ["", "a", "b"]))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("G,1,2\nH,,2\nI,1,2\n", r"line 3 \(H\), column 'a': the value is empty; a missing count is not 0"),
        ('G,1,2\nH,"",2\nI,1,2\n', r"line 3 \(H\), column 'a': the value is empty"),
        ("G,1,2\nH,1,\nI,1,2\n", r"line 3 \(H\), column 'b': the value is empty"),
        ("G,1,2\nH,1\nI,1,2\n", r"line 3 \(H\) holds 2 fields and the header 3; mend the line"),
        ("G,1,2\nH,1,2,3\nI,1,2\n", r"line 3 \(H\) holds more fields than the 3 of the header"),
        ('G,1,2\n"H,1,2\nI,1,2\n', r"line 3 \(.*\): a quotation mark is left open"),
        ("G,1,2\nH,1,2\nI,1", r"line 4 \(I\), the last one, holds 2 fields and the header 3: the file is cut short"),
        ("G,1,2\nH,1,2\nI,1,", r"line 4 \(I\), column 'b': the value is empty"),
        ("G,1,2\nH,1,2\nI,", r"line 4 \(I\), the last one, .*cut short"),
        ("G,1,2\nH,1,2\nI", r"line 4 \(I\), the last one, .*cut short"),
        ('G,1,2\nH,1,2\n"I', r"line 4 \(I\), the last one, .*cut short"),
        ("G,1,2\n\n\nH,1\nI,1,2\n", r"line 5 \(H\) holds 2 fields"),
    ],
)
@pytest.mark.parametrize("line_end", LINE_ENDS, ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("block_bytes", [3, 1 << 20])
def test_malformed_rows_are_named(tmp_path, body, message, line_end, block_bytes):
    path = tmp_path / "m.csv"
    path.write_bytes(("name,a,b\n" + body).replace("\n", line_end).encode())
    with pytest.raises(UserError, match=message):
        parse_table(path, plan(",", ["name", "a", "b"]), block_bytes)


def test_columns_that_are_not_wanted_may_hold_anything(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text('id,chr,a,odd,b,note\nE1,X,1,NA,0,"a, ""b"""\nE2,1,0,,7,\n')
    table = parse_table(path, ParsePlan(",", 2, ("id", "chr", "a", "odd", "b", "note"), (0, 5), (2, 4)))
    assert table.texts == [["E1", "E2"], ['a, "b"', ""]]
    np.testing.assert_array_equal(table.rows_as_cells().toarray(), [[1, 0], [0, 7]])


def test_rows_without_values_are_skipped_and_counted(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text('id,a,b\nE1,1,2\n,,\n\n"","",""\nE2,3,4\n,,,,\n')
    table = parse_table(path, plan(",", ["id", "a", "b"]))
    assert table.n_blank == 3
    np.testing.assert_array_equal(table.rows_as_cells().toarray(), [[1, 2], [3, 4]])


def test_rows_left_out_of_the_transposed_result(tmp_path):
    rng = np.random.default_rng(1)
    values = rng.poisson(0.7, size=(50, 9)) * rng.integers(1, 70_000, size=(50, 9))
    path = tmp_path / "m.tsv"
    path.write_text(
        "\t".join(f"c{i}" for i in range(9))
        + "\n"
        + "".join(f"G{i}\t" + "\t".join(map(str, row)) + "\n" for i, row in enumerate(values.tolist()))
    )
    keep = rng.random(50) < 0.6
    table = parse_table(path, plan("\t", ["", *(f"c{i}" for i in range(9))]), block_bytes=97)
    matrix = table.columns_as_cells(keep)
    assert matrix.dtype == np.int32
    np.testing.assert_array_equal(matrix.toarray(), values[keep].T)


def test_latin_1_names_are_kept(tmp_path):
    path = tmp_path / "m.tsv"
    path.write_bytes("\ta\nmüg\t1\n".encode("latin-1"))
    assert parse_table(path, plan("\t", ["", "a"])).texts == [["müg"]]


def test_a_line_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("immunomod.sample.readers.dense_parse.MAX_LINE_BYTES", 1 << 20)
    path = tmp_path / "m.tsv"
    path.write_bytes(b"\ta\n" + b"1\t" * (1 << 20))
    with pytest.raises(UserError, match="a line is longer than 1 MB"):
        parse_table(path, plan("\t", ["", "a"]), block_bytes=1 << 16)
