"""A made-up run with its record, and the interpreter that has roc-validator."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from immunomod.provenance.record import RunNames, write_record
from immunomod.tables import REPOSITORY
from support.report_inputs import Study, make_results

BENCHMARK = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


@dataclass(frozen=True)
class Recorded:
    """A run's results with their record, and the files that the run made."""

    results: Path
    made: list[Path]

    @property
    def folder(self) -> Path:
        return self.results / "provenance"


def benchmark(path: Path, values: str, ended: float) -> None:
    """A benchmark file as Snakemake writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(BENCHMARK + values + "\n")
    os.utime(path, (ended, ended))


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("recorded")
    inputs = make_results(folder, Study(n_genes=60, cells_per_sample=60))
    results = folder / "results"
    with (results / "provenance" / "config.yaml").open("a") as config:
        config.write(f"programs: [{REPOSITORY / 'resources' / 'programs'}]\n")
    (results / "report").mkdir()
    (results / "report" / "index.html").write_text("<html></html>")
    ten = "10.0\t0:00:10\t500.0\t0\t0\t0\t1.5\t2.5\t90\t8.0"
    benchmark(results / "benchmarks" / "build_atlas" / "demo.tsv", ten, 2000)
    benchmark(results / "benchmarks" / "filter_cells" / "D1_msc_alone.tsv", ten, 1500)
    benchmark(results / "benchmarks" / "filter_cells" / "D2_msc_alone.tsv", ten.replace("500", "700"), 1600)
    benchmark(results / "benchmarks" / "filter_cells" / "left_over.tsv", ten, 1000)
    benchmark(results / "benchmarks" / "acquire_sample" / "demo" / "D1_msc_alone.tsv", ten, 1400)
    benchmark(results / "benchmarks" / "gather_qc.tsv", "0.3\t0:00:00\tNA\tNA\tNA\tNA\tNA\tNA\tNA\tNA", 1700)
    names = RunNames(list(inputs.cells), ["demo"], list(inputs.contrasts), list(inputs.atlases))
    made = [results / "report" / "index.html", inputs.qc, next(iter(inputs.contrasts.values())) / "genes"]
    sheets = {"samples": inputs.samples_sheet, "contrasts": inputs.contrasts_sheet}
    write_record(results, sheets, names, made)
    return Recorded(results, made)


@pytest.fixture(scope="session")
def validator(repository: Path) -> Path:
    """An interpreter with roc-validator: ``IMMUNOMOD_CRATE_PYTHON``, or that of ``make env-crate``."""
    python = Path(os.environ.get("IMMUNOMOD_CRATE_PYTHON", repository / ".venv-crate" / "bin" / "python"))
    if not python.exists():
        pytest.skip("roc-validator is not installed (make env-crate)")
    return python
