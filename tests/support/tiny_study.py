"""The smallest study that reaches every floor: three simulated libraries of one donor, and no search for the best."""

from __future__ import annotations

import hashlib
from pathlib import Path

import yaml

from immunomod.simulate.command import simulate_command

SETTINGS = {
    "contrast": {"n_random_sets": 20, "allow_unreplicated": True},
    "atlas": {"n_variable_genes": 300, "n_components": 10, "integration": "none", "leiden_resolution": 0.5},
    "doublets": {"method": "none"},
}


def write_tiny_study(folder: Path) -> Path:
    """Write the study into a new folder; returns the config's path."""
    simulate_command(folder, donors=1, cells_scale=0.15, seed=3)
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(config | SETTINGS), encoding="utf-8")
    return path


def final_tables(results: Path) -> dict[str, str]:
    """SHA-256 of every table that a run ends with, by path; paths and times of the run are not in them.

    Of ``integration.tsv`` the column that says how many seconds a method took is left out, and nothing else.
    """
    folders = ("contrasts", "synthesis", "pseudobulk", "atlas", "samples")
    tables = [path for folder in folders for path in (results / folder).rglob("*.tsv*")]
    return {
        path.relative_to(results).as_posix(): hashlib.sha256(_lasting(path)).hexdigest()
        for path in sorted(tables)
        if path.name != "read.tsv"  # says where the files lie and when they came
    }


def _lasting(path: Path) -> bytes:
    if path.name != "integration.tsv":
        return path.read_bytes()
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    column = lines[0].index("seconds")
    return "\n".join("\t".join([*line[:column], *line[column + 1 :]]) for line in lines).encode()
