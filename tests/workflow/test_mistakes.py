"""A user's mistake, made in front of the whole workflow: one message, exit status 1, nothing half-written."""

import gzip
import shutil
from pathlib import Path

import pytest
import yaml

from immunomod.files import read_tsv
from immunomod.preflight import check_file
from support.workflow import Outcome, snakemake

SAMPLES = "sample\tdataset\tsource\tcondition\tdonor\n"
CONTRASTS = "contrast\tdataset\tvariable\ttest\treference\n"
CONTRAST = "q\tstudy\tcondition\tb\ta\n"
BARCODES = [f"{'ACGT' * 3}{first}{second}{third}A" for first in "ACGT" for second in "ACGT" for third in "ACGT"]


def write_matrix(folder: Path, seed: int, broken: bool = False) -> None:
    """A small 10x triplet, other counts for another seed, its matrix cut off in the middle where ``broken``."""
    folder.mkdir(parents=True)
    genes = [f"ENSG{number:011d}\tGENE{number}" for number in range(1, 41)]
    entries = [f"{g} {c} {1 + (g * c + seed) % 7}" for c in range(1, 65) for g in range(1, 41) if (g + c) % 3]
    head = f"%%MatrixMarket matrix coordinate integer general\n40 64 {len(entries)}\n"
    matrix = gzip.compress((head + "\n".join(entries) + "\n").encode(), mtime=0)
    (folder / "matrix.mtx.gz").write_bytes(matrix[: len(matrix) // 2] if broken else matrix)
    (folder / "features.tsv.gz").write_bytes(gzip.compress(("\n".join(genes) + "\n").encode(), mtime=0))
    (folder / "barcodes.tsv.gz").write_bytes(gzip.compress(("\n".join(BARCODES) + "\n").encode(), mtime=0))


def run(folder: Path, rows: str, contrasts: str = CONTRAST, target: str = "all", **config: object) -> Outcome:
    (folder / "samples.tsv").write_text(SAMPLES + rows)
    (folder / "contrasts.tsv").write_text(CONTRASTS + contrasts)
    sheets = {"samples": "samples.tsv", "contrasts": "contrasts.tsv"}
    (folder / "config.yaml").write_text(yaml.safe_dump(sheets | config))
    return snakemake(folder / "run", folder / "config.yaml", *target.split(), "--quiet", "host")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    for seed, name in enumerate(("a1", "a2", "b1", "b2")):
        write_matrix(tmp_path / name, seed)
    return tmp_path


ROWS = "a1\tstudy\ta1\ta\tD1\na2\tstudy\ta2\ta\tD2\nb1\tstudy\tb1\tb\tD1\nb2\tstudy\tb2\tb\tD2\n"


def is_clean(outcome: Outcome) -> None:
    """No traceback, and no temporary file beside the results."""
    assert outcome.status == 1, outcome.printed
    assert "Traceback" not in outcome.printed, outcome.printed
    if outcome.results.exists():
        leftovers = [path for path in outcome.results.rglob(".*") if path.is_file() and ".part" not in path.name]
        assert not [path for path in leftovers if not path.name.endswith((".lock", ".json"))], leftovers


@pytest.mark.parametrize(
    ("rows", "contrasts", "message"),
    [
        (ROWS.replace("a2\tstudy", "a1\tstudy"), CONTRAST, "samples.tsv row 3, column sample: sample 'a1' stands"),
        (ROWS.replace("\ta2\t", "\tnowhere\t"), CONTRAST, "row 3, column source:"),
        (ROWS, CONTRAST.replace("condition", "arm"), "contrasts.tsv row 2, column variable: the samples sheet has no"),
        (ROWS.replace("D2", "D1"), CONTRAST, "contrasts.tsv row 2, column test: b has 1 donor in data set 'study'"),
    ],
    ids=["duplicate sample", "missing file", "unknown column", "no replicates"],
)
def test_sheet_mistakes_stop_before_the_first_job(study, rows, contrasts, message):
    outcome = run(study, rows, contrasts)
    is_clean(outcome)
    assert message in outcome.printed
    assert not outcome.results.exists()


def test_all_mistakes_of_the_sheets_are_told_at_once(study):
    outcome = run(study, ROWS.replace("\ta2\t", "\tnowhere\t"), CONTRAST.replace("condition", "arm"), sead=1)
    is_clean(outcome)
    for place in ("config.yaml", "samples.tsv row 3, column source", "contrasts.tsv row 2, column variable"):
        assert place in outcome.printed
    assert "3 errors" in outcome.printed
    assert not outcome.results.exists()


def stopped_at_the_check(outcome: Outcome) -> None:
    """Nothing was fetched or read, and the check left no file that would pass for its result."""
    is_clean(outcome)
    assert not (outcome.results / "acquire" / "study" / "samples").exists()
    assert not list((outcome.results / "check").glob("*")) if (outcome.results / "check").exists() else True
    assert not list(outcome.results.rglob("*.h5ad"))


@pytest.mark.slow
def test_an_unknown_accession_stops_at_the_check(study):
    (study / "geo" / "series").mkdir(parents=True)
    outcome = run(study, ROWS.replace("\ta1\t", "\tGSM99999999\t"), geo={"base_url": "geo"})
    stopped_at_the_check(outcome)
    assert "samples.tsv row 2, column source: GSM99999999" in outcome.printed


@pytest.mark.slow
def test_a_truncated_gzip_stops_at_the_check(study):
    shutil.rmtree(study / "b2")
    write_matrix(study / "b2", 3, broken=True)
    (study / "b2" / "matrix.mtx.gz").write_bytes((study / "b2" / "matrix.mtx.gz").read_bytes()[:40])
    outcome = run(study, ROWS)
    stopped_at_the_check(outcome)
    assert "samples.tsv row 5, column source: " in outcome.printed and "matrix.mtx.gz" in outcome.printed


@pytest.mark.slow
def test_an_edited_sheet_is_checked_again_and_fetches_nothing_again(study):
    target = "results/acquire/study/samples/a1.tsv results/check/problems.tsv"
    first = run(study, ROWS, target=target).check()
    assert first.job_count() == 2
    assert first.printed.index("rule check_study") < first.printed.index("rule acquire_sample")
    assert "lists few genes" in first.printed
    problems = read_tsv(first.results / "check" / "problems.tsv")
    assert problems["severity"].tolist() == ["warning"] and problems["row"].tolist() == [2]
    assert run(study, ROWS, target=target).check().job_count() == 0
    edited = run(study, ROWS.replace("D1", "D7"), target=target).check()
    assert edited.job_count() == 1 and "rule check_study" in edited.printed
    assert run(study, ROWS.replace("D1", "D7"), target=target).check().job_count() == 0


@pytest.mark.slow
def test_a_comparison_without_answer_stops_no_run(study):
    """It is an error of ``immunomod check``; the run reports it in words beside the other comparisons."""
    batch = SAMPLES.replace("donor\n", "donor\tbatch\n")
    rows = "".join(f"{line}\t{'x' if line[0] == 'a' else 'y'}\n" for line in ROWS.splitlines())
    (study / "samples.tsv").write_text(batch + rows)
    (study / "contrasts.tsv").write_text(CONTRASTS + CONTRAST)
    (study / "config.yaml").write_text(yaml.safe_dump({"samples": "samples.tsv", "contrasts": "contrasts.tsv"}))
    outcome = snakemake(study / "run", study / "config.yaml", "results/check/problems.tsv").check()
    problems = read_tsv(outcome.results / "check" / "problems.tsv")
    assert problems["severity"].tolist()[-1] == "error" and "batch" in problems["problem"].tolist()[-1]
    assert check_file(study / "config.yaml", study / "run" / "results").has_errors


@pytest.mark.slow
def test_a_limit_of_one_library_filters_that_library_again_and_reads_none(study):
    def again(rows: str) -> str:
        (study / "samples.tsv").write_text(SAMPLES.replace("donor\n", "donor\tmin_counts\tmin_genes\n") + rows)
        return snakemake(study / "run", study / "config.yaml", "results/samples/qc.tsv").check().printed

    run(study, ROWS, target="results/samples/qc.tsv").check()
    assert again(ROWS).count("rule read_counts:") == 0
    edited = again(ROWS.replace("a2\ta\tD2", "a2\ta\tD2\t20\t5"))
    assert edited.count("rule read_counts:") == 0 and edited.count("rule filter_cells:") == 1
    qc = read_tsv(study / "run" / "results" / "samples" / "qc.tsv").set_index("sample")
    assert (qc["n_genes_by_counts_lower_from"] == "sheet").tolist() == [False, True, False, False]
    assert (qc["cells_after"] > 0).tolist() == [False, True, False, False]
