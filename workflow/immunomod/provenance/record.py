"""The record of a finished run, written into ``results/provenance/`` once everything else is there."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from immunomod import __version__
from immunomod.files import read_tsv, write_text, write_tsv
from immunomod.programs import load_programs
from immunomod.provenance.crate import METADATA, README, RunFacts, write_crate
from immunomod.provenance.jobs import job_table, rule_table
from immunomod.provenance.references import bibtex
from immunomod.provenance.seeds import seed_table
from immunomod.provenance.software import environment_text, git_revision, system, versions
from immunomod.report.inputs import ReportInputs, load_tables
from immunomod.report.methods import methods_text, versions_sentence
from immunomod.report.sources import SOURCES, Paragraph
from immunomod.tables import REPOSITORY

#: Files of the record -> what they are, as the crate says it.
PARTS: Mapping[str, str] = {
    "config.yaml": "the resolved config: every setting, defaults among them",
    "samples.tsv": "the sheet of samples as the run read it",
    "contrasts.tsv": "the sheet of contrasts as the run read it",
    "versions.tsv": "versions of the workflow and of the packages that it asks for",
    "environment.txt": "every Python package of the environment with its version",
    "system.tsv": "the machine that finished the run",
    "seeds.tsv": "the seed of every rule that draws random numbers",
    "jobs.tsv": "time and memory of every job",
    "rules.tsv": "time and memory by rule",
    "methods.md": "the methods in words, with the run's own numbers",
    "references.bib": "the works that the methods cite",
}
MAIN_WORKFLOW = "workflow/Snakefile"


@dataclass(frozen=True)
class RunNames:
    """What a run is made of, by name. Leftovers of older runs have other names, and stay out of the record."""

    samples: Sequence[str]
    datasets: Sequence[str]
    contrasts: Sequence[str]
    atlases: Sequence[str]

    def all(self) -> set[str]:
        """Every value that a wildcard of the workflow may have."""
        return {*self.samples, *self.datasets, *self.contrasts, *self.atlases}


def write_record(results: Path, sheets: Mapping[str, Path], names: RunNames, made: Iterable[Path]) -> None:
    """Write everything of :data:`PARTS`, a copy of the workflow's text, and the crate that describes them.

    Parameters
    ----------
    results
        The run's results; ``provenance/config.yaml`` and ``benchmarks/`` are there.
    sheets
        ``samples`` and ``contrasts``: the user's tables.
    names
        See :class:`RunNames`.
    made
        Results that the crate lists; of a folder, every file in it.
    """
    folder = results / "provenance"
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    for name, path in sheets.items():
        write_text(path.read_text(encoding="utf-8-sig"), folder / f"{name}.tsv")
    jobs = job_table(results / "benchmarks", names.all())
    software = versions()
    write_text(environment_text(), folder / "environment.txt")
    write_tsv(system(), folder / "system.tsv")
    write_tsv(seed_table(config, set(jobs["rule"])), folder / "seeds.tsv")
    write_tsv(jobs, folder / "jobs.tsv")
    write_tsv(rule_table(jobs), folder / "rules.tsv")
    paragraphs = _methods(results, sheets, names, config["programs"])
    write_text(methods_page(paragraphs, software), folder / "methods.md")
    write_text(bibtex(_cited(paragraphs)), folder / "references.bib")
    texts = copy_workflow(folder)
    version = dict(zip(software["name"], software["version"], strict=True))
    facts = RunFacts(
        title=str(config.get("title") or ", ".join(names.datasets)),
        version=__version__,
        revision=git_revision(),
        snakemake=version["snakemake"],
        started=str(jobs["started"].min()) if len(jobs) else "",
        ended=str(jobs["ended"].max()) if len(jobs) else "",
        seed=int(config["seed"]),
        software={name: at for name, at in version.items() if name in _packages(software)},
    )
    write_text(readme(texts), folder / README)
    parts = {README: "what the files of this folder are", **PARTS, **texts}
    write_crate(folder, parts, MAIN_WORKFLOW, read_tsv(results / "ledger.tsv", dtype=str), list(_files(made)), facts)


def methods_page(paragraphs: Sequence[Paragraph], software: pd.DataFrame) -> str:
    """The methods as Markdown; works are cited as ``[@key]``, as Pandoc and Quarto read it beside the BibTeX file."""
    lines = ["# Methods", ""]
    for paragraph in paragraphs:
        cited = f" [{'; '.join(f'@{key}' for key in paragraph.sources)}]" if paragraph.sources else ""
        lines += [f"**{paragraph.step}.** {paragraph.text}{cited}", ""]
    lines += [
        f"Versions: {versions_sentence(software)}; all others stand in `environment.txt`.",
        "",
        "## References",
        "",
    ]
    for key in _cited(paragraphs):
        source = SOURCES[key]
        lines.append(f"- `{key}`: {source.authors}. {source.title}. {source.url}")
    return "\n".join([*lines, ""])


def readme(texts: Mapping[str, str]) -> str:
    """What lies in the folder, in words."""
    rows = [f"| `{name}` | {what} |" for name, what in {**PARTS, **texts}.items()]
    crate = f"| `{METADATA}` | all of this as a Workflow Run RO-Crate: inputs and results by size and SHA-256 |"
    return "\n".join(["# Provenance of a run of immunomod", "", "| file | what |", "|---|---|", *rows, crate, ""])


def copy_workflow(folder: Path) -> dict[str, str]:
    """Copy the Snakefile, its rules and the lock of packages into ``folder``; their paths there and what they are."""
    copied = {MAIN_WORKFLOW: "the workflow's main file"}
    copied |= {f"workflow/{name}": "rules of the workflow" for name in _rules()}
    copied["workflow/envs/immunomod.lock"] = "pinned packages of the workflow, with hashes"
    for name in copied:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / Path(name).relative_to("workflow"), target)
    return copied


def _rules() -> list[str]:
    rules = REPOSITORY / "workflow" / "rules"
    return sorted(path.relative_to(REPOSITORY).as_posix() for path in rules.glob("*.smk"))


def _methods(results: Path, sheets: Mapping[str, Path], names: RunNames, programs: Sequence[str]) -> list[Paragraph]:
    """The report's own methods text. What single cells look like is not read: it says nothing of them."""
    inputs = ReportInputs.from_results(
        results,
        samples_sheet=sheets["samples"],
        contrasts_sheet=sheets["contrasts"],
        samples=[],
        contrasts=names.contrasts,
        atlases=names.atlases,
    )
    return methods_text(load_tables(inputs, load_programs(programs)))


def _cited(paragraphs: Sequence[Paragraph]) -> list[str]:
    return list(dict.fromkeys(key for paragraph in paragraphs for key in paragraph.sources))


def _packages(software: pd.DataFrame) -> set[str]:
    return set(software["name"]) - {"immunomod", "immunomod revision", "python", "system"}


def _files(made: Iterable[Path]) -> Iterable[Path]:
    for path in made:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        else:
            yield path
