"""The sheets of a study, held against each other: every mistake at once, each at its row and column."""

from pathlib import Path

import pytest

from immunomod.errors import StudyError
from immunomod.sample.settings import SHEET_LIMITS
from immunomod.settings import Run
from immunomod.sheets import examine_contrasts, examine_samples, read_contrasts, read_samples
from immunomod.tables import Examined

SAMPLES = "sample\tdataset\tsource\tcondition\tdonor\tdose\n" + "".join(
    f"{arm}{donor}\td\tGSM1\t{arm}\tD{donor}\t{dose}\n"
    for arm, dose in (("a", "1"), ("b", "2.0"))
    for donor in (1, 2, 3)
)
HEADER = "contrast\tdataset\tvariable\ttest\treference\twhere\tcovariates\n"
CLEAN = "q\td\tcondition\tb\ta\t\t\n"


@pytest.fixture
def examine(tmp_path: Path):
    """A function that holds a contrasts sheet against a samples sheet."""

    def run(contrasts: str, samples: str = SAMPLES) -> Examined:
        (tmp_path / "samples.tsv").write_text(samples)
        (tmp_path / "contrasts.tsv").write_text(HEADER + contrasts)
        return examine_contrasts(tmp_path / "contrasts.tsv", examine_samples(tmp_path / "samples.tsv").rows)

    return run


def told(found: Examined) -> list[tuple[int | None, str]]:
    return [(one.row, one.column) for one in found.problems]


def test_what_is_measured_in_the_cells_is_a_covariate_and_nothing_else(examine):
    assert examine("q\td\tcondition\tb\ta\t\tmean_S_score,cycling_fraction\n").problems == []
    assert told(examine("q\td\tmean_S_score\tb\ta\t\t\n")) == [(2, "variable")]
    (problem,) = examine("q\td\tcondition\tb\ta\t\tsite\n").problems
    assert "mean_dissociation_score" in problem.fix


def test_sheets_without_mistake_are_read(examine, tmp_path):
    assert examine(CLEAN).problems == []
    samples = read_samples(tmp_path / "samples.tsv")
    assert (samples["organism"] == "human").all()
    assert read_contrasts(tmp_path / "contrasts.tsv", samples)["pair_by"].tolist() == ["donor"]


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ("q\td\tcondition\tb\ta\t\tsite\n", "covariates"),
        ("q\te\tcondition\tb\ta\t\t\n", "dataset"),
        ("q\td,d\tcondition\tb\ta\t\t\n", "dataset"),
        ("q\td\tarm\tb\ta\t\t\n", "variable"),
        ("q\td\tcondition\tc\ta\t\t\n", "test"),
        ("q\td\tcondition\tb\tc\t\t\n", "reference"),
        ("q\td\tcondition\tb\ta,b\t\t\n", "reference"),
        ("q\td\tcondition\tb\t\t\t\n", "reference"),
        ("q\td\tcondition\tb\ta\tdonor == \t\n", "where"),
        ("q\td\tcondition\tb\ta\tdonor = D9\t\n", "where"),
        ("q\td\tdonor\t\t\t\t\n", "variable"),
    ],
)
def test_one_mistake_is_one_problem_at_its_column(examine, row, column):
    assert told(examine(row)) == [(2, column)]
    assert told(examine(CLEAN + row.replace("q\t", "p\t", 1))) == [(3, column)]


def test_all_mistakes_are_told_at_once(examine):
    rows = CLEAN + "p\td\tcondition\tc\tz\t\t\nr\te\tarm\tb\ta\t\t\n"
    assert told(examine(rows)) == [(3, "test"), (3, "reference"), (4, "variable"), (4, "dataset")]


def test_levels_are_compared_as_numbers_where_both_are(examine):
    assert examine("q\td\tdose\t2\t1.0\t\t\n").problems == []
    assert told(examine("q\td\tdose\t2\t2.0\t\t\n")) == [(2, "reference")]


def test_questions_are_looked_at_although_samples_have_mistakes(examine):
    faulty = SAMPLES.replace("b3\td\tGSM1", "b3\td\t")
    assert told(examine("q\td\tcondition\tc\ta\t\t\n", faulty)) == [(2, "test")]


def test_without_samples_only_the_questions_own_form_counts(tmp_path):
    (tmp_path / "contrasts.tsv").write_text(HEADER + CLEAN + "q\te\tarm\tb\t\t\t\n")
    assert told(examine_contrasts(tmp_path / "contrasts.tsv", None)) == [(3, "reference"), (3, "contrast")]


def test_a_missing_sheet_is_one_problem(tmp_path):
    found = examine_samples(tmp_path / "samples.tsv")
    assert found.rows is None and len(found.problems) == 1 and "create it" in found.problems[0].fix
    with pytest.raises(StudyError, match="does not exist"):
        read_samples(tmp_path / "samples.tsv")


def test_a_header_that_lacks_columns_is_not_said_again_in_every_row(tmp_path):
    (tmp_path / "samples.tsv").write_text("sample\tdataset\tcondition\na\td\tx\nb\td\ty\n")
    found = examine_samples(tmp_path / "samples.tsv")
    assert told(found) == [(1, "")]
    assert "source, donor or cells" in found.problems[0].problem


def test_a_row_with_too_many_fields_or_an_open_quotation_mark_keeps_its_place(tmp_path):
    rows = SAMPLES.splitlines()
    rows[2] += "\textra"
    rows[3] = rows[3].replace("\td\t", '\t"d\t')
    (tmp_path / "samples.tsv").write_text("\n".join(rows) + "\n")
    found = examine_samples(tmp_path / "samples.tsv")
    assert told(found) == [(3, ""), (4, "")]
    assert found.rows is not None and found.rows.index.tolist() == [2, 3, 4, 5, 6, 7]
    assert found.rows.at[4, "dataset"] == "d"


def test_the_odd_organism_of_a_data_set_is_the_one_that_is_named(tmp_path):
    rows = [
        line.replace("\tdose", "\torganism").replace("\t2.0", "\t").replace("\t1", "\t")
        for line in SAMPLES.splitlines()
    ]
    rows[4] += "mouse"
    (tmp_path / "samples.tsv").write_text("\n".join(rows) + "\n")
    assert told(examine_samples(tmp_path / "samples.tsv")) == [(5, "organism")]


LIMITED = "sample\tdataset\tsource\tcondition\tdonor\t{}\na\td\tx\tc\tD1\t{}\nb\td\ty\tc\tD2\t\n"


@pytest.mark.parametrize(
    ("column", "right", "wrong"),
    [
        ("min_counts", ["0", "300", "99.5"], ["-1", "few", "1e3", "5%"]),
        ("max_counts", ["50000"], ["-1"]),
        ("min_genes", ["100"], ["-1"]),
        ("max_genes", ["9000"], ["a lot"]),
        ("max_pct_mt", ["0", "12.5", "100", "100.0"], ["100.5", "101", "-1", "12%"]),
        ("max_pct_ribo", ["60"], ["160"]),
        ("max_pct_hb", ["1"], ["one"]),
        ("min_complexity", ["0", "0.75", ".8", "1", "1.0"], ["1.1", "80", "-0.1"]),
    ],
)
def test_limits_of_a_library_are_numbers_in_their_range(tmp_path, column, right, wrong):
    for value in right:
        (tmp_path / "samples.tsv").write_text(LIMITED.format(column, value))
        assert told(examine_samples(tmp_path / "samples.tsv")) == []
    for value in wrong:
        (tmp_path / "samples.tsv").write_text(LIMITED.format(column, value))
        assert told(examine_samples(tmp_path / "samples.tsv")) == [(2, column)], value


@pytest.mark.parametrize("metric", ["counts", "genes"])
def test_a_lower_limit_above_the_upper_one_is_a_mistake(tmp_path, metric):
    columns = f"min_{metric}\tmax_{metric}"
    for values, places in (("500\t400", [(2, f"min_{metric}")]), ("400\t400", []), ("90\t1000", []), ("500\t", [])):
        (tmp_path / "samples.tsv").write_text(LIMITED.format(columns, values))
        found = examine_samples(tmp_path / "samples.tsv")
        assert told(found) == places, values
    (tmp_path / "samples.tsv").write_text(LIMITED.format(columns, "many\t400"))
    assert told(examine_samples(tmp_path / "samples.tsv")) == [(2, f"min_{metric}")]


def test_a_limit_goes_to_the_filter_and_not_to_the_reading(tmp_path):
    (tmp_path / "samples.tsv").write_text(LIMITED.format("max_pct_mt\tmin_genes", "9\t150").replace("D2\t", "D2\t\t"))
    samples = read_samples(tmp_path / "samples.tsv")
    run = Run(config={}, folder=tmp_path, samples=samples, contrasts=samples.iloc[:0])
    assert run.sample_limits("a") == {"max_pct_mt": 9.0, "min_genes": 150.0}
    assert run.sample_limits("b") == {}
    assert set(run.sample_row("a")) - set(run.read_row("a")) == {*SHEET_LIMITS, "guessed", "suppression"}
    assert run.read_row("a").items() <= run.sample_row("a").items()


def test_suppression_is_a_number_and_no_contrast_is_along_it(examine, tmp_path):
    with_values = SAMPLES.replace("\tdose\n", "\tsuppression\n")
    assert examine(CLEAN, with_values).problems == []
    (problem,) = examine("q\td\tsuppression\t\t\t\t\n", with_values).problems
    assert problem.column == "variable" and "MSC donors" in problem.problem
    (tmp_path / "faulty.tsv").write_text(with_values.replace("\t2.0\n", "\thigh\n", 1))
    (fault,) = examine_samples(tmp_path / "faulty.tsv").problems
    assert (fault.row, fault.column) == (5, "suppression") and "a number" in fault.fix
