"""``immunomod init``: propose, write, and say what was written, guessed and left open, and what to type next."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from immunomod.acquire.dataset import base_address
from immunomod.acquire.download import Client
from immunomod.acquire.geo import ACCESSION, GeoSite, is_accession, parse_accession
from immunomod.errors import UserError
from immunomod.init.contrasts import Question, propose_contrasts
from immunomod.init.rows import COLUMNS, Proposal, Row
from immunomod.init.text import as_name, clean
from immunomod.init.write import (
    CONFIG,
    CONTRASTS,
    SAMPLES,
    config_text,
    contrasts_text,
    refuse_existing,
    samples_text,
    write_study,
)
from immunomod.tables import REPOSITORY, load_schema

MOST_ROWS_SHOWN = 12


def init_command(source: str, out: Path | None = None, base_url: str = "") -> str:
    """Propose a study from a GEO series or a folder, and write it to ``out``.

    Parameters
    ----------
    source
        ``GSE…``, or a path to a folder with matrices (``./GSE96583`` for one named like an accession).
    out
        Where to write; by default a folder named after the series, or after the folder with ``_study`` behind it.
    base_url
        A mirror of GEO: an address, or a folder laid out as GEO's ``/geo/``. Empty: GEO.

    Returns
    -------
    What was written, guessed and left empty, and the commands to type next.

    Raises
    ------
    UserError
        There is nothing to propose from, or ``out`` holds a study already. Nothing is written then.
    """
    path = Path(source).expanduser()
    # A first init leaves a folder of the accession's name: the series is meant all the same.
    is_series = ACCESSION.fullmatch(source.strip().upper()) is not None
    if is_series or (is_accession(source) and not path.is_dir()):
        accession = parse_accession(source)
        if not accession.startswith("GSE"):
            raise UserError(
                f"{accession} is a sample. Name its series, GSE…, or write the sample into a sheet yourself."
            )
        folder = out or Path(accession)
        refuse_existing(folder)
        proposal = _propose_series(accession, base_url)
    elif path.is_dir():
        from immunomod.init.folder import propose_folder

        folder = out or Path(f"{as_name(path.resolve().name) or 'my'}_study")
        refuse_existing(folder)
        proposal = propose_folder(path, folder)
    else:
        raise UserError(f"{source!r} is neither a folder nor the accession of a GEO series, such as GSE96583.")
    questions = propose_contrasts(proposal.active)
    texts = {
        SAMPLES: samples_text(proposal),
        CONTRASTS: contrasts_text(questions),
        CONFIG: config_text(proposal),
    }
    write_study(folder, texts)
    return summary(proposal, questions, folder, texts[SAMPLES])


def _propose_series(accession: str, base_url: str) -> Proposal:
    from immunomod.init.series import propose_series

    default = load_schema("config")["properties"]["geo"]["properties"]["base_url"]["default"]
    address = base_address(base_url or default)
    with tempfile.TemporaryDirectory(prefix="immunomod_init_") as scratch:
        proposal = propose_series(accession, GeoSite(address, Client(), Path(scratch)), Path(scratch) / "files")
    proposal.base_url = "" if address == default else address
    return proposal


def summary(proposal: Proposal, questions: Sequence[Question], folder: Path, samples: str) -> str:
    """What was written, guessed and left open, and what to type next."""
    numbers = row_numbers(proposal, samples)
    active = proposal.active
    aside = len(proposal.rows) - len(active)
    asked = sum(not question.doubt for question in questions)
    lines = [
        f"{clean(proposal.title, 200)}",
        f"wrote {folder / CONFIG}",
        f"wrote {folder / SAMPLES}: {_counted(len(active), 'library', 'libraries')}"
        + (f", {_counted(aside, 'sample')} commented out" if aside else ""),
        f"wrote {folder / CONTRASTS}: {_counted(asked, 'question')}"
        + (f", {len(questions) - asked} commented out" if asked < len(questions) else ""),
        "",
    ]
    guessed = [
        f"{name} ({sum(name in row.origins for row in active)})" for name in COLUMNS if _is_guessed(name, active)
    ]
    if guessed:
        lines += [f"guessed, in how many rows: {', '.join(guessed)}", "  column guessed says from what", ""]
    lacking = [_lacking(name, active, numbers) for name in ("source", "condition", "donor", "organism")]
    if any(lacking):
        lines += [f"left empty, to be filled in {folder / SAMPLES}:", *(f"  {line}" for line in lacking if line), ""]
    doubts = [f"  {question.contrast}: {question.doubt}" for question in questions if question.doubt]
    if doubts:
        lines += [f"not asked yet in {folder / CONTRASTS}:", *doubts, ""]
    if proposal.remarks:
        lines += ["to know:", *(f"  {clean(remark, 600)}" for remark in proposal.remarks), ""]
    return "\n".join([*lines, *_next_steps(folder)])


def _counted(number: int, word: str, plural: str = "") -> str:
    return f"{number} {word if number == 1 else plural or word + 's'}"


def _is_guessed(name: str, rows: Sequence[Row]) -> bool:
    return any(name in row.origins for row in rows)


def row_numbers(proposal: Proposal, samples: str) -> dict[str, int]:
    """The row in the file of each sample that is not a comment."""
    named = {line.split("\t")[0]: number for number, line in enumerate(samples.splitlines(), start=1)}
    return {row["sample"]: named[row["sample"]] for row in proposal.active}


def _lacking(name: str, rows: Sequence[Row], numbers: dict[str, int]) -> str:
    empty = [numbers[row["sample"]] for row in rows if not row[name] and not (name == "donor" and row.donor_by_cell)]
    if not empty:
        return ""
    shown = ", ".join(map(str, empty[:MOST_ROWS_SHOWN])) + (", ..." if len(empty) > MOST_ROWS_SHOWN else "")
    return f"{name}: {'row' if len(empty) == 1 else 'rows'} {shown}"


def _next_steps(folder: Path) -> list[str]:
    """The commands as they can be pasted here."""
    config = shlex.quote(str(folder / CONFIG))
    snakefile = shlex.quote(_nearby(REPOSITORY / "Snakefile"))
    place = shlex.quote(str(folder))
    return [
        "next:",
        f"  1. edit {shlex.quote(str(folder / SAMPLES))} and {shlex.quote(str(folder / CONTRASTS))}",
        f"  2. {_program('immunomod')} check --config {config}",
        f"  3. {_program('snakemake')} -s {snakefile} --directory {place} --configfile {config} --cores 2",
        f"     the report is then {shlex.quote(str(folder / 'results' / 'report' / 'index.html'))}",
    ]


def _program(name: str) -> str:
    """How to call a program of this environment: by its name where that finds it, else by its path."""
    beside = Path(sys.executable).parent / name
    found = shutil.which(name)
    if not beside.exists() or (found and Path(found).absolute() == beside.absolute()):
        return name
    return shlex.quote(_nearby(beside))


def _nearby(path: Path) -> str:
    """A path relative to the current folder if it lies below it, else absolute."""
    here = Path(os.path.abspath(Path.cwd()))  # noqa: PTH100 (symbolic links of a virtual environment must stay)
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
