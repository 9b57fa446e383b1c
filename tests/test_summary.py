"""What a run says at its end."""

import pandas as pd
import pytest

from immunomod.files import read_tsv, write_tsv
from immunomod.summary import run_summary
from support.report_inputs import Study, make_results


@pytest.fixture
def results(tmp_path):
    make_results(tmp_path, Study(n_genes=40, cells_per_sample=40))
    (tmp_path / "results" / "report").mkdir()
    (tmp_path / "results" / "report" / "index.html").write_text("<html></html>")
    return tmp_path / "results"


def summary(results):
    return run_summary(results, ["coculture_vs_alone"], ["demo"])


def test_the_report_comes_first_and_what_is_wrong_before_what_was_found(results):
    lines = summary(results).splitlines()
    assert lines[0] == f"The report is {results / 'report' / 'index.html'}"
    assert lines[1] == "Samples: 1 failed and 1 to look at, of 12 (samples/qc.tsv)."
    assert lines[2].startswith("  failed: D2_coculture: only 8 cells pass")
    assert lines[3] == "  look at: D1_coculture: few cells: 18% removed as doublets"
    assert any(line.startswith("Atlas demo: 1 of 16 clusters marked") for line in lines)


def test_refused_strata_are_named_with_the_reason(results):
    text = summary(results)
    assert "Contrast coculture_vs_alone: 1 cell class was refused." in text
    assert "  DC (demo): too_few_cells: fewer than 10 cells in every sample" in text


def test_effects_are_counted_by_why_they_were_not_tested(results):
    effects = read_tsv(results / "contrasts" / "coculture_vs_alone" / "program_effects.tsv")
    counts = effects["status"].value_counts()
    line = next(line for line in summary(results).splitlines() if "could be tested" in line)
    assert f"{counts['tested']} of {len(effects)} effects" in line and f"{counts['absent']} absent" in line
    readouts = effects[(effects["role"] == "readout") & (effects["fdr"] < 0.05)]
    largest = readouts.loc[readouts["effect"].abs().idxmax()]
    assert f"fdr below 0.05: {len(readouts)} readouts; the largest: {largest['program']} in " in summary(results)


def test_warnings_of_the_check_are_counted_and_the_first_named(results):
    rows = [("warning", "/lab/samples.tsv", number, "donor", f"problem {number}", "fix") for number in range(8)]
    columns = ["severity", "file", "row", "column", "problem", "fix"]
    write_tsv(pd.DataFrame(rows, columns=columns), results / "check" / "problems.tsv")
    text = summary(results)
    assert "gave 8 warnings" in text and "  samples.tsv: problem 0" in text and "  and 3 more" in text


def test_nothing_is_said_of_what_the_run_did_not_write(tmp_path):
    assert run_summary(tmp_path, ["a"], ["b"]) == "This run made no report."


@pytest.mark.parametrize("study", [Study(empty=True, donors=("D1",)), Study(all_untested=True, cells_per_sample=20)])
def test_empty_and_untested_studies(tmp_path, study):
    make_results(tmp_path, study)
    assert summary(tmp_path / "results").startswith("This run made no report.")
