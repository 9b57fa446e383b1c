"""Faults while a study is computed on one machine; what it ends with is held against an undisturbed run.

Faults of a cluster are in ``tests/slurm``, those of a server that files are fetched from (downloads that are cut, among
them) in ``tests/acquire/test_faults.py``. ``benchmarks/kills.py`` kills the same study at 50 moments.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import pytest
import yaml

from support.geo_server import Fault, GeoServer
from support.kills import run_through_kills
from support.tiny_study import final_tables
from support.toy_workflow import SNAKEFILE, Toy
from support.workflow import REPOSITORY, Outcome, snakemake

pytestmark = pytest.mark.slow

SAMPLE = "D1_coculture"


@pytest.fixture(scope="module")
def config(whole: Outcome) -> Path:
    return whole.results.parent / "study" / "config.yaml"


@pytest.fixture(scope="module")
def whole(tiny_run: Outcome) -> Outcome:
    """An undisturbed run, on one core."""
    return tiny_run


def copy_of(whole: Outcome, folder: Path) -> Path:
    """A folder in which the study was run to its end."""
    shutil.copytree(whole.results.parent, folder)
    return folder


def messages(printed: str) -> list[str]:
    """What jobs said before they ended."""
    return re.findall(r"^error: .*", printed, flags=re.MULTILINE)


def check_nothing_temporary(results: Path) -> None:
    left = [path for path in results.rglob(".*") if re.match(r"\.[0-9a-f]{32}\.", path.name)]
    assert not left


def test_a_run_killed_again_and_again_ends_with_the_same_tables(whole, config, tmp_path):
    """On two cores, where the undisturbed run had one: the tables are the same on any number."""
    # moments so early that a fast machine is not done before the third
    kills = run_through_kills(tmp_path / "run", config, moments=3, seed=1, longest_s=8.0)
    assert len(kills) == 3
    assert final_tables(tmp_path / "run" / "results") == final_tables(whole.results)
    check_nothing_temporary(tmp_path / "run" / "results")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change(path: Path) -> None:
    """Flip one bit of one count, which HDF5 does not notice."""
    with h5py.File(path) as file:
        matrix = "layers/counts/data" if "layers/counts" in file else "X/data"
        first, place = file[matrix][0], file[matrix].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with h5py.File(path) as file:
        assert file[matrix][0] != first


@pytest.mark.parametrize(
    ("damage", "name", "reader"),
    [
        (cut, f"samples/{SAMPLE}/counts.h5ad", "filter_cells"),
        (change, f"samples/{SAMPLE}/filtered.h5ad", "sum_pseudobulks"),
        (change, "pseudobulk/GSE900000001.h5ad", "test_contrast"),
    ],
)
def test_an_intermediate_file_that_is_damaged_is_named_and_made_anew(whole, config, tmp_path, damage, name, reader):
    folder = copy_of(whole, tmp_path / "run")
    path = folder / "results" / name
    changed = path.stat().st_mtime_ns
    damage(path)
    os.utime(path, ns=(changed, changed))  # Snakemake sees nothing
    refused = snakemake(folder, config, "--forcerun", reader, "--until", reader)
    (message,) = set(messages(refused.printed))
    assert refused.status == 1 and f"{name} is damaged" in message and "delete it" in message
    assert "Traceback" not in refused.printed
    path.unlink()
    snakemake(folder, config).check()
    assert final_tables(folder / "results") == final_tables(whole.results)


def test_downloads_that_are_cut_end_with_the_same_tables(whole, config, tmp_path):
    """Every file of the samples comes from a server that drops the first two connections in the middle."""
    files = sorted((config.parent / "geo").rglob("*_matrix.mtx.gz"))
    assert len(files) == 3
    with GeoServer(config.parent) as server:
        for path in files:
            half = path.stat().st_size // 2
            server.fault(
                f"/{path.relative_to(config.parent)}", Fault(drop_after=half), Fault(drop_after=100, reset=True)
            )
        study = yaml.safe_load(config.read_text(encoding="utf-8"))
        study["geo"] = {"base_url": server.base_url, "requests_per_s": 1000.0}
        remote = config.with_name("remote.yaml")
        remote.write_text(yaml.safe_dump(study), encoding="utf-8")
        run = snakemake(tmp_path, remote).check()
        resumed = [request for request in server.requests if request.range is not None]
    assert {request.path.rpartition("/")[2] for request in resumed} == {path.name for path in files}
    assert final_tables(run.results) == final_tables(whole.results)
    check_nothing_temporary(run.results)


def test_a_job_killed_while_it_writes_leaves_nothing_that_is_taken_for_whole(tmp_path):
    toy = Toy(tmp_path, {"killed": "half", "fine": ""})
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--keep-going", "-s", str(SNAKEFILE)]
    command += ["--directory", str(toy.folder), "--config", *toy.config]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    job = toy.wait_until_at_work("killed")
    toy.wait_until_done("fine")
    os.kill(job, signal.SIGKILL)
    printed, _ = first.communicate()
    assert first.returncode == 1 and "Error in rule work" in printed
    assert toy.halves() and not (toy.folder / "work" / "killed.tsv").exists()
    subprocess.run(command, check=True, capture_output=True)
    toy.check_table()


def test_a_second_run_in_the_same_folder_is_refused_and_disturbs_nothing(whole, config, tmp_path):
    folder = copy_of(whole, tmp_path / "run")
    command = [sys.executable, "-m", "snakemake", "-s", str(REPOSITORY / "Snakefile"), "--directory", str(folder)]
    command += ["--configfile", str(config), "--cores", "1", "--forcerun", "filter_cells"]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not any((folder / ".snakemake" / "locks").glob("*")) and first.poll() is None:
        time.sleep(0.05)
    second = snakemake(folder, config)
    assert first.poll() is None, "the first run ended before the second began"
    assert second.status == 1 and "Directory cannot be locked" in second.printed
    assert second.job_count() == 0 and "Traceback" not in second.printed
    assert first.wait() == 0
    assert final_tables(folder / "results") == final_tables(whole.results)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own for results, too small for them."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small disk (root)")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


def test_a_disk_that_is_full_or_read_only_is_told_in_one_message(whole, config, tmp_path, small_disk):
    arguments = ("--until", "filter_cells", "--config", f"pathvars={{results: {small_disk}/results}}")
    full = snakemake(tmp_path, config, *arguments)
    assert full.status == 1 and "Traceback" not in full.printed
    # before a download, from what is free; later, from what the disk answers
    assert messages(full.printed) and all("free some" in message for message in messages(full.printed))
    assert not list(small_disk.rglob("filtered.h5ad"))
    remount(small_disk, "size=200m")
    remount(small_disk, "ro")
    refused = snakemake(tmp_path, config, *arguments)
    assert refused.status == 1 and refused.job_count() == 0 and "Traceback" not in refused.printed
    assert f"cannot write into {small_disk}" in refused.printed
    remount(small_disk, "rw")
    snakemake(tmp_path, config, *arguments).check()
    done = final_tables(small_disk / "results")
    cells = {name: value for name, value in final_tables(whole.results).items() if name in done}
    assert done == cells and any(name.endswith("qc.tsv") for name in done)
    check_nothing_temporary(small_disk)


def test_a_job_ends_soon_after_its_run_was_killed(tmp_path):
    """And not before: a job that lasts longer than the watch goes on where its run does."""
    (tmp_path / "Snakefile").write_text(
        'rule long:\n    output: "done"\n    log: "long.log"\n    script: "long.py"\n', encoding="utf-8"
    )
    (tmp_path / "long.py").write_text(
        "import os, time\nfrom pathlib import Path\nfrom immunomod.files import write_text\n"
        "from immunomod.job import rule_job\n"
        "with rule_job(snakemake):\n"
        "    Path('pid').write_text(str(os.getpid()))\n"
        "    time.sleep(4)\n"
        "    write_text('', snakemake.output[0])\n",
        encoding="utf-8",
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "workflow")}
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--directory", str(tmp_path)]
    command += ["-s", str(tmp_path / "Snakefile")]
    subprocess.run(command, env=environment, capture_output=True, check=True)
    for name in ("done", "pid"):
        (tmp_path / name).unlink()
    run = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.05)
    job = int((tmp_path / "pid").read_text())
    run.send_signal(signal.SIGKILL)
    run.wait()
    end = time.monotonic() + 3.5
    while Path(f"/proc/{job}").exists() and b"long.py" in Path(f"/proc/{job}/cmdline").read_bytes():
        assert time.monotonic() < end, "the job goes on"
        time.sleep(0.1)
    assert not (tmp_path / "done").exists()
