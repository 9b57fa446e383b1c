"""The streaming MatrixMarket parser: the same matrix as scipy's at any block size, and a place for every fault."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import io as scipy_io
from scipy import sparse

from immunomod.errors import UserError
from immunomod.sample.readers.matrix_market import parse_header, read_matrix_market

BANNER = "%%MatrixMarket matrix coordinate integer general"


@pytest.fixture
def mtx(tmp_path: Path):
    """Write the text of a MatrixMarket file, as it stands."""

    def write(text: str | bytes, name: str = "m.mtx") -> Path:
        path = tmp_path / name
        raw = text.encode() if isinstance(text, str) else text
        path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
        return path

    return write


def body(*entries: str, size: str = "3 4 {n}", banner: str = BANNER, end: str = "\n") -> str:
    return end.join([banner, size.format(n=len(entries)), *entries]) + end


def assert_same(found: sparse.csr_matrix, expected: np.ndarray) -> None:
    found.check_format(full_check=True)
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found.toarray(), expected)


@st.composite
def files(draw) -> tuple[str, int]:
    """Text of a random file with all the freedom the format leaves, and a block size."""
    n_rows, n_columns = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    value = draw(
        st.sampled_from(
            [
                st.integers(0, 300).map(str),
                st.integers(-(2**31) + 1, 2**31 - 1).map(str),
                st.integers(0, 99_999).map(lambda v: f"{v}.0"),
                st.integers(0, 99_999).map(lambda v: f"{v}.{'0' * 18}"),
                st.integers(0, 99_999).map(lambda v: f"{v:e}"),
                st.integers(0, 9).map(lambda v: f"{v}E+3"),
                st.floats(1e-6, 1e6).map(lambda v: f"{v:.14e}"),
                st.floats(0, 100).map(lambda v: f"{v:.5f}"),
                st.sampled_from(["1", "0.5", "3000000000", "-2.25", "1e10", "7"]),
            ]
        )
    )
    entry = st.tuples(st.integers(1, n_rows), st.integers(1, n_columns), value)
    entries = draw(st.lists(entry, max_size=40, unique_by=lambda e: e[:2]))
    order = draw(st.sampled_from(["columns", "rows", "none"]))
    if order != "none":
        entries.sort(key=lambda e: (e[1], e[0]) if order == "columns" else e[:2])
    blank = st.sampled_from([" ", "\t", "  ", " \t"])
    lines = [BANNER.replace("integer", "real")]
    noise = st.sampled_from(["", "% said someone", "%", "   ", "\t", "% 1 1 1"])
    lines += draw(st.lists(noise, max_size=2))
    lines.append(f"{n_rows} {n_columns} {len(entries)}")
    for row, column, number in entries:
        if draw(st.integers(0, 9)) == 0:
            lines.append(draw(noise))
        plain = draw(st.booleans())
        a, b = (" ", " ") if plain else (draw(blank), draw(blank))
        lines.append(f"{'' if plain else ' '}{row}{a}{column}{b}{number}{'' if plain else ' '}")
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    last = draw(st.sampled_from([end, "", end + end]))
    return end.join(lines) + last, draw(st.integers(1, 50))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files())
def test_any_file_gives_what_scipy_reads(mtx, case):
    text, block_bytes = case
    plain = [line for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n") if line.strip()]
    plain = [line for n, line in enumerate(plain) if n == 0 or not line.startswith("%")]
    expected = sparse.coo_matrix(scipy_io.mmread(io.BytesIO(("\n".join(plain) + "\n").encode()))).toarray()
    path = mtx(text, name="m.mtx.gz" if block_bytes % 2 else "m.mtx")
    for cell_axis, matrix in ((0, expected), (1, expected.T)):
        found = read_matrix_market(path, cell_axis, block_bytes)
        assert_same(found, matrix)
        whole = all(float(line.split()[2]).is_integer() for line in plain[2:])
        fits = all(abs(float(line.split()[2])) < 2**31 for line in plain[2:])
        assert found.dtype == (np.int32 if whole and fits else np.float64)


@pytest.mark.parametrize("format_", ["csc", "csr", "coo"])
@pytest.mark.parametrize("block_bytes", [1, 2, 3, 7, 13, 50, 1000, 1 << 22])
def test_order_of_entries_and_size_of_blocks_change_nothing(format_, block_bytes, mtx):
    rng = np.random.default_rng(5)
    matrix = sparse.random(
        60, 25, density=0.2, format="coo", random_state=rng, data_rvs=lambda n: rng.integers(1, 999, n)
    )
    matrix = sparse.coo_matrix(matrix.asformat(format_).astype(np.int64))
    raw = io.BytesIO()
    scipy_io.mmwrite(raw, matrix, field="integer")
    path = mtx(raw.getvalue(), "m.mtx.gz")
    assert_same(read_matrix_market(path, 1, block_bytes), matrix.T.toarray())
    assert_same(read_matrix_market(path, 0, block_bytes), matrix.toarray())


def test_repeated_entries_are_kept_to_be_summed(mtx):
    path = mtx(body("1 1 2", "1 1 3", "2 4 1", "1 1 4"))
    found = read_matrix_market(path, 1)
    assert found.nnz == 4
    assert found[0, 0] == 9
    assert sorted(read_matrix_market(mtx(body("1 1 2", "1 1 3", "2 4 1")), 1).data) == [1, 2, 3]


@pytest.mark.parametrize("cell_axis", [0, 1])
def test_a_fraction_late_in_an_unsorted_file(cell_axis, mtx):
    entries = ["1 4 3", "2 1 5", "3 2 7", "1 1 2.5", "2 2 1"]
    expected = np.zeros((3, 4))
    for entry in entries:
        row, column, value = entry.split()
        expected[int(row) - 1, int(column) - 1] = float(value)
    found = read_matrix_market(mtx(body(*entries)), cell_axis, block_bytes=9)
    assert_same(found, expected if cell_axis == 0 else expected.T)
    assert found.dtype == np.float64


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("NaN", np.nan),
        ("nan", np.nan),
        ("NA", np.nan),
        ("Inf", np.inf),
        ("-inf", -np.inf),
        ("Infinity", np.inf),
        ("-3", -3),
        ("1e-400", 0),
        ("1e400", np.inf),
        ("0.1", 0.1),
        (".5", 0.5),
        ("+5E+3", 5000),
        ("5.", 5),
        ("2147483647", 2**31 - 1),
        ("2147483648", 2.0**31),
        ("00000000000000000000012", 12),
        ("123456789012345678901234567890", 1.2345678901234568e29),
        ("0.000000000000000000000000000001", 1e-30),
        ("4.9e-324", 4.9e-324),
    ],
)
def test_values_are_those_of_python(value, expected, mtx):
    found = read_matrix_market(mtx(body(f"2 2 {value}")), 0)
    np.testing.assert_allclose(found.data, [expected], rtol=1e-15)


def test_indices_as_r_prints_them(mtx):
    path = mtx(body("1e+05 1 3", "100000 2.0 4", size="100000 2 {n}"))
    found = read_matrix_market(path, 1)
    assert (found[0, 99_999], found[1, 99_999]) == (3, 4)


def test_no_entries_and_no_cells(mtx):
    assert read_matrix_market(mtx(body()), 1).shape == (4, 3)
    assert read_matrix_market(mtx(body().rstrip("\n")), 1).nnz == 0
    assert read_matrix_market(mtx(body(size="5 0 0")), 1).shape == (0, 5)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("1 2", "fewer than the three fields"),
        ("1", "fewer than the three fields"),
        ("1 2 ", "fewer than the three fields"),
        ("1 2 3 4", "more than the three fields"),
        ("1 2 3 % why", "more than the three fields"),
        ("0 1 5", "names no row from 1 to 3"),
        ("4 1 5", "names no row from 1 to 3"),
        ("-1 1 5", "names no row from 1 to 3"),
        ("1.5 1 5", "names no row from 1 to 3"),
        ("99999999999999999999999 1 5", "names no row from 1 to 3"),
        ("4294967297 1 5", "names no row from 1 to 3"),
        ("nan 1 5", "names no row from 1 to 3"),
        ("1x 1 5", "names no row from 1 to 3"),
        ("x 1 5", "names no row from 1 to 3"),
        ("1,1,5", "names no row from 1 to 3"),
        ("1 0 5", "names no column from 1 to 4"),
        ("1 5 5", "names no column from 1 to 4"),
        ("1 18446744073709551617 5", "names no column from 1 to 4"),
        ("1 - 5", "names no column from 1 to 4"),
        ("1 1 five", "a value that is no number"),
        ("1 1 5x", "a value that is no number"),
        ("1 1 1.2.3", "a value that is no number"),
        ("1 1 1e", "a value that is no number"),
        ("1 1 .", "a value that is no number"),
        ("1 1 -", "a value that is no number"),
        ("1 1 infinit", "a value that is no number"),
        ("1 1 0x10", "a value that is no number"),
        ("1 1 \x00", "a value that is no number"),
        ('"1" 1 5', "names no row from 1 to 3"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("block_bytes", [1, 5, 1 << 22])
def test_a_malformed_entry_is_named_by_its_line(entry, reason, end, block_bytes, mtx):
    path = mtx(body("1 1 1", "% a comment", "", "2 2 1", entry, "3 3 1", size="3 4 4", end=end))
    with pytest.raises(UserError) as caught:
        read_matrix_market(path, 1, block_bytes)
    message = str(caught.value)
    assert f"{path}: row 7 (" in message
    assert reason in message
    assert repr(entry)[1:20] in message


@pytest.mark.parametrize("said", [1, 3])
def test_other_numbers_of_entries_than_the_size_line_says(said, mtx):
    path = mtx(body("1 1 1", "2 2 1", size=f"3 4 {said}"))
    with pytest.raises(
        UserError, match=r"row 4 .*one more than the 1 entries" if said == 1 else r"2 entries.*says 3.*cut short"
    ):
        read_matrix_market(path, 1)


def test_a_last_line_without_end_that_is_no_entry_was_cut(mtx):
    assert read_matrix_market(mtx(body("1 1 1", "2 2 12").rstrip("\n")), 1)[1, 1] == 12
    with pytest.raises(UserError, match=r"ends within an entry \('2 2'\): the file was cut short"):
        read_matrix_market(mtx(body("1 1 1", "2 2 12")[:-4]), 1)


@pytest.mark.parametrize("entries", [10**6, 10**12, 10**18])
@pytest.mark.parametrize("name", ["m.mtx", "m.mtx.gz"])
def test_a_size_line_that_no_file_of_these_bytes_can_keep(entries, name, mtx):
    with pytest.raises(UserError, match=r"so many do not fit a file of \d+ bytes"):
        read_matrix_market(mtx(body("1 1 1", size=f"30000 5000 {entries}"), name), 1)


@pytest.mark.parametrize(
    ("banner", "reason"),
    [
        ("%%MatrixMarket matrix array real general", "`array`"),
        ("%%MatrixMarket matrix coordinate pattern general", "no numbers that could be counts"),
        ("%%MatrixMarket matrix coordinate complex general", "no numbers that could be counts"),
        ("%%MatrixMarket matrix coordinate real symmetric", "`symmetric`"),
        ("%%MatrixMarket matrix coordinate real skew-symmetric", "`skew-symmetric`"),
        ("%%MatrixMarket matrix coordinate complex hermitian", "no numbers"),
        ("%%MatrixMarket matrix coordinate", "no MatrixMarket banner"),
        ("gene\tcell", "no MatrixMarket banner"),
    ],
)
def test_other_kinds_of_matrices_are_refused(banner, reason, mtx):
    with pytest.raises(UserError, match=reason):
        read_matrix_market(mtx(body("1 1 1", banner=banner)), 1)


@pytest.mark.parametrize("size", ["3 4", "3 4 1 1", "3 4 x", "3 -4 1", "3.5 4 1", "٣ 4 1"])
def test_size_lines_that_are_none(size, mtx):
    with pytest.raises(UserError, match="row 2: the size line must be three whole numbers"):
        read_matrix_market(mtx(body("1 1 1", size=size)), 1)


def test_absurd_dimensions_are_refused_before_anything_is_allocated(mtx):
    with pytest.raises(UserError, match=r"row 2: .* is no size of a matrix"):
        read_matrix_market(mtx(body("1 1 1", size="3 1000000000000 1")), 1)


@pytest.mark.parametrize("text", ["", BANNER, BANNER + "\n% nothing\n"])
def test_no_size_line(text, mtx):
    with pytest.raises(UserError, match=r"no size line|no MatrixMarket banner"):
        read_matrix_market(mtx(text), 1)


def test_a_line_without_end_is_not_collected_for_ever(mtx):
    with pytest.raises(UserError, match="a line is longer than"):
        read_matrix_market(mtx(body("1 1 1") + "%" * (3 << 20), "m.mtx.gz"), 1, block_bytes=1 << 16)
    with pytest.raises(UserError, match="no size line"):
        read_matrix_market(mtx(BANNER + "\n%" + "x" * (3 << 20), "m.mtx.gz"), 1, block_bytes=1 << 16)


def test_a_file_that_changes_between_the_passes_is_no_matrix(mtx, monkeypatch):
    from immunomod.sample.readers import matrix_market

    versions = [body("1 2 1", "1 1 1", "2 2 1"), body("1 2 1", "1 3 1", "2 3 1")]
    monkeypatch.setattr(matrix_market, "read_blocks", lambda *_: (block for block in [versions.pop(0).encode()]))
    with pytest.raises(UserError, match=r"row 4 .*changed while it was read"):
        read_matrix_market(mtx(versions[0]), 1)


def test_cellrangers_comment_is_noticed(tmp_path):
    lines = (BANNER, '%metadata_json: {"software_version": "cellranger-7.1"}', "3 4 1")
    assert parse_header(lines, tmp_path).from_cellranger
    assert not parse_header((BANNER, "%", "3 4 1"), tmp_path).from_cellranger
