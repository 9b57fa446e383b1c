"""A proposal as three files that explain themselves, written all or none, and never over somebody's own."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from immunomod.errors import UserError
from immunomod.files import write_text
from immunomod.init.contrasts import COLUMNS as CONTRAST_COLUMNS
from immunomod.init.contrasts import Question
from immunomod.init.rows import ALWAYS, COLUMNS, Proposal, Row
from immunomod.init.text import clean

CONFIG, SAMPLES, CONTRASTS = "config.yaml", "samples.tsv", "contrasts.tsv"
LONGEST_COMMENT = 500
SAMPLES_HEAD = """\
# One row per library, tab-separated. Lines that begin with # are comments: not read.
# Written by `immunomod init {name}`. What is empty is not known; what is a guess stands in column guessed with what it
# came from: look at it, put it right, then empty the field. `immunomod check` warns while a field is filled.
#
# sample      required: a unique name; letters, digits, . _ -
# dataset     required: libraries that were made together; contrasts are within a data set
# source      required: a file, a folder, a GSM or a GSE accession; several separated by commas
# condition   required: the arm, in your own words; contrasts.tsv names its levels
# donor       required (unless cells names donors): who the cells come from. Donors are the replicates: the same name in
#             two arms pairs them. A replicate number is no donor
# culture     msc, immune or coculture
# stimulus    what stimulated the cells, or none
# msc_source, msc_donor   tissue and donor of the MSC
# organism    human or mouse
# dose        MSC per immune cell; time_h: hours of culture; batch: processing batch
# files       file name patterns, where a source holds several matrices
# barcodes    patterns of cell names, where one matrix holds several libraries
# cells       a table with one row per cell (donor, label, doublet call); cells_lane: its value for this library
# guessed     which fields of the row are guesses, and from what. Any further column may be used by a contrast
"""
CONTRASTS_HEAD = """\
# One row per question, tab-separated. Lines that begin with # are comments: not read.
# Remove the # before a question to ask it.
#
# contrast    required: a unique name
# dataset     required: one data set of samples.tsv, or several separated by commas
# variable    required: the column of samples.tsv to compare
# test, reference   levels of it, several separated by commas; both empty: a trend over numbers (dose, time_h).
#             With reference msc_alone,immune_alone each cell class takes its control from the arm that contains it
# pair_by     the column that pairs test and reference: donor
# where       a filter, such as stimulus = PHA; time_h = 24
# covariates  columns to adjust for
"""


def samples_text(proposal: Proposal) -> str:
    """``samples.tsv``: the columns in words, then each row with what is said of it above."""
    rows = proposal.rows
    with_msc = any(row["culture"] in ("msc", "coculture") for row in rows)
    columns = [
        name
        for name in COLUMNS
        if name in ALWAYS or (name == "msc_source" and with_msc) or any(row[name] for row in rows)
    ]
    lines = [SAMPLES_HEAD.format(name=clean(proposal.name, 60)), "\t".join(columns)]
    lines += [line for row in rows for line in _row_lines(row, columns)]
    return "\n".join(lines) + "\n"


def _row_lines(row: Row, columns: Sequence[str]) -> list[str]:
    fields = "\t".join(row.guessed if name == "guessed" else row[name] for name in columns)
    title = clean(" | ".join(filter(None, (row.about.name, row.about.title, row.about.source_name))), LONGEST_COMMENT)
    lines = [f"# {title}"]
    lines += [f"#   {clean(note, LONGEST_COMMENT)}" for note in row.notes]
    if row.set_aside:
        return [*lines, f"#   left out: {clean(row.set_aside, LONGEST_COMMENT)}", f"#{fields}"]
    return [*lines, fields]


def contrasts_text(questions: Sequence[Question]) -> str:
    """``contrasts.tsv``: the columns in words, then the questions; those in doubt as comments."""
    lines = [CONTRASTS_HEAD, "\t".join(CONTRAST_COLUMNS)]
    for question in questions:
        if question.remark:
            lines.append(f"# {clean(question.remark, LONGEST_COMMENT)}")
        if question.doubt:
            lines.append(f"# not asked yet: {clean(question.doubt, LONGEST_COMMENT)}")
        lines.append(("#" if question.doubt else "") + "\t".join(question.fields))
    return "\n".join(lines) + "\n"


def config_text(proposal: Proposal) -> str:
    """``config.yaml``: what differs from the defaults."""
    lines = [
        f"# Written by `immunomod init {clean(proposal.name, 60)}`. Paths are relative to this file.",
        "# Every setting that is not here has a default; config/README.md explains them.",
        f"title: {json.dumps(clean(proposal.title, 200), ensure_ascii=False)}",
        f"samples: {SAMPLES}",
        f"contrasts: {CONTRASTS}",
    ]
    settings: dict[str, object] = {}
    if proposal.base_url:
        settings["geo"] = {"base_url": proposal.base_url}
    if proposal.cells_tables:
        lines.append(
            "# cells_tables: which columns of the per-cell table hold what, guessed by their names: look at them."
        )
        settings["cells_tables"] = proposal.cells_tables
    body = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=1000) if settings else ""
    return "\n".join(lines) + "\n" + body


def refuse_existing(folder: Path) -> None:
    """Never write over a file.

    Raises
    ------
    UserError
        One of the three files is there, or the folder cannot be one.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file. Name a folder with --out.")
    there = [name for name in (CONFIG, SAMPLES, CONTRASTS) if (folder / name).exists() or (folder / name).is_symlink()]
    if there:
        raise UserError(
            f"{folder} holds {', '.join(there)} already, and init never overwrites. Name another folder with --out, or "
            "move them away."
        )


def write_study(folder: Path, texts: Mapping[str, str]) -> None:
    """Write all files or none: a new folder appears at once; in one that exists, what was written goes on a failure."""
    refuse_existing(folder)
    try:
        if not folder.exists():
            _write_new_folder(folder, texts)
            return
        written: list[Path] = []
        try:
            for name, text in texts.items():
                written.append(folder / name)
                write_text(text, folder / name)
        except BaseException:
            for path in written:
                path.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error}). Name another folder with --out.") from None


def _write_new_folder(folder: Path, texts: Mapping[str, str]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{uuid.uuid4().hex}.{folder.name}")
    try:
        for name, text in texts.items():
            write_text(text, temporary / name)
        temporary.rename(folder)
    except BaseException:
        for name in texts:
            (temporary / name).unlink(missing_ok=True)
        if temporary.exists():
            temporary.rmdir()
        raise
