"""The check before a run: config, sheets, programmes and settings, in seconds and without touching any data."""

from __future__ import annotations

from pathlib import Path

from immunomod.programs import load_programs
from immunomod.settings import load_run_file


def check_study(config: Path) -> str:
    """Read everything that a user edits; returns a summary of what would be run.

    Raises
    ------
    UserError
        Any mistake, with file, row, column and what to do.
    """
    run = load_run_file(config)
    programs = load_programs(run.config["programs"])
    lines = [
        f"{config}: no mistake found",
        f"  {len(run.samples)} samples of {len(run.datasets)} data sets, {len(run.atlases)} atlases",
        f"  {len(run.contrasts)} contrasts: {', '.join(run.contrasts['contrast'])}",
        f"  {len(programs.table)} programmes of {len(programs.genes)} genes",
    ]
    return "\n".join(lines)
