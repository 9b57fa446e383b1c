"""Made-up results, and reports built from them once for all tests."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from immunomod.programs import load_programs
from immunomod.report.build import report_tables, write_page
from immunomod.report.figures import report_style, write_figures
from immunomod.report.inputs import ReportInputs, ReportTables, load_tables
from support.report_inputs import Study, make_results

NASTY = """<script>alert(1)</script><img src=x onerror=alert(1)>"'$x_1$"""
PBMC = ("CD4_T", "CD8_T", "NK", "B", "CD14_monocyte", "CD16_monocyte", "DC", "megakaryocyte")


@dataclass(frozen=True)
class Built:
    """A study's inputs and its report."""

    inputs: ReportInputs
    tables: ReportTables
    page: Path

    @cached_property
    def html(self) -> str:
        return self.page.read_text(encoding="utf-8")

    @cached_property
    def figures(self) -> Path:
        """Folder of the figures, drawn when they are first asked for: most tests look at the page alone."""
        folder = self.page.parent / "figures"
        folder.mkdir()
        with report_style():
            write_figures(self.tables, folder)
        return folder


STUDIES = {
    "coculture": Study(),
    "pbmc": Study(
        cell_classes=PBMC,
        arms=("ctrl", "stim"),
        contrasts=("ifnb",),
        donors=tuple(f"ind{number}" for number in range(1, 9)),
        n_genes=300,
    ),
    "nasty": Study(prefix=NASTY, n_genes=200, cells_per_sample=40),
    "formula": Study(prefix="=cmd()", n_genes=40, cells_per_sample=20),
    "old": Study(old=True, donors=("D1", "D2"), n_genes=40, cells_per_sample=20),
    "untested": Study(all_untested=True, cells_per_sample=20),
    "empty": Study(empty=True, donors=("D1",)),
    "one_sample": Study(arms=("coculture",), donors=("D1",), cells_per_sample=20, n_genes=40),
    "many_samples": Study(
        donors=tuple(f"D{number}" for number in range(1, 15)), cells_per_sample=25, n_genes=40, contrasts=("a", "b")
    ),
    # 60 samples, 12 questions
    "large": Study(
        donors=tuple(f"D{number}" for number in range(1, 21)),
        cells_per_sample=150,
        n_genes=2000,
        contrasts=tuple(f"question_{number:02d}" for number in range(1, 13)),
    ),
}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Built]:
    """Report of the study of a name, built at its first use."""
    done: dict[str, Built] = {}

    def build(name: str) -> Built:
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            inputs = make_results(folder, STUDIES[name])
            found = report_tables(inputs, load_programs())
            page = inputs.qc.parents[1] / "report" / "index.html"
            write_page(found, page)
            done[name] = Built(inputs, found, page)
        return done[name]

    return build


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> ReportTables:
    """Tables of the co-culture study."""
    return load_tables(make_results(tmp_path_factory.mktemp("tables"), Study(n_genes=60)), load_programs())


@pytest.fixture(scope="session")
def chromium() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs headless Chromium with the given arguments; skips where it is not installed."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("Chromium is not installed")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryDirectory() as profile:
            return subprocess.run(
                [
                    program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                    "--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND",
                    "--disable-component-update", "--disable-sync",
                    "--hide-scrollbars", "--enable-logging=stderr", f"--user-data-dir={profile}", *arguments,
                ],
                capture_output=True, text=True, timeout=120, check=True, env=os.environ | {"HOME": profile},
            )  # fmt: skip

    return run
