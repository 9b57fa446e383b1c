"""Disk and memory before a run: figures near those of a real run, and a word where there is too little."""

from pathlib import Path

import pytest

from immunomod.preflight import check_file, resources
from support.planted_study import PlantedStudy


@pytest.fixture
def study(tmp_path: Path) -> PlantedStudy:
    return PlantedStudy(tmp_path / "study")


def test_too_little_disk_is_an_error_and_enough_is_none(study, monkeypatch):
    config = study.write()
    monkeypatch.setattr(resources, "free_bytes", lambda path: 10_000_000)
    (problem,) = check_file(config, study.folder / "results").problems
    assert problem.is_error and problem.stops_run and Path(problem.file).name == "config.yaml"
    assert "10 MB are free" in problem.problem
    monkeypatch.setattr(resources, "free_bytes", lambda path: 10**12)
    assert check_file(config, study.folder / "results").problems == ()


def test_too_little_memory_is_a_warning_for_sample_and_atlas(study, monkeypatch):
    config = study.write()
    monkeypatch.setattr(resources, "available_memory", lambda: 100e6)
    found = check_file(config, study.folder / "results")
    assert len(found.problems) == 2 and not found.has_errors
    assert all("100 MB are available" in problem.problem for problem in found.problems)
    monkeypatch.setattr(resources, "available_memory", lambda: None)
    assert check_file(config, study.folder / "results").problems == ()


def test_available_memory_is_less_than_the_machine_has():
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    available = resources.available_memory()
    assert available is not None and 0 < available < 1024 * int(total.split()[1])


def test_the_estimate_of_a_real_series_is_right_within_a_factor_of_two(repository, shared, tmp_path):
    """GSE96583 in the mirror: a run wrote 34 MB of counts and filtered counts and 4 MB of atlas."""
    mirror = shared / "geo_mirror" / "geo"
    for name in ("samples.tsv", "contrasts.tsv", "config.yaml"):
        (tmp_path / name).write_text((repository / "config" / "examples" / "GSE96583" / name).read_text())
    with (tmp_path / "config.yaml").open("a") as handle:
        handle.write(f"geo: {{base_url: '{mirror.as_uri()}'}}\n")
    study = resources_of(tmp_path)
    assert 17e6 < study.disk - study.download - resources.REPORT_BYTES < 76e6
    assert study.download == sum(path.stat().st_size for path in (mirror / "samples").rglob("*.mtx.gz")) + sum(
        path.stat().st_size for path in (mirror / "samples").rglob("*barcodes.tsv.gz")
    )


def resources_of(folder: Path) -> resources.Needs:
    from immunomod.acquire import AcquireSettings
    from immunomod.preflight.libraries import client_for, examine_libraries
    from immunomod.settings import load_run_file

    run = load_run_file(folder / "config.yaml")
    client = client_for(AcquireSettings.from_config(run.config["geo"]), is_offline=True)
    libraries = examine_libraries(run, folder / "results", client, "config.yaml")
    return resources.estimate(run, libraries, folder / "results")
