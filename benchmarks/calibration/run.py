"""How far the tests of the contrast and synthesis floors can be trusted: the calibration battery.

Run from the repository: ``python benchmarks/calibration/run.py [--kang FILE] [--only EXPERIMENT ...]``; about an
hour on one core. Writes ``benchmarks/results/calibration.tsv``, one row per experiment, setting and measure, which
the docs quote; with ``--only``, the other experiments keep their rows. ``--kang`` names an h5ad of GSE96583 with the
authors' labels (``condition``, ``donor``, ``cell_type``) for the controls on real data.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from cells import cells_as_replicates
from common import REPOSITORY
from controls import leakage_only, programme_controls, sign_flips, thinned_arm
from floor import designs, detection, whole_floor
from moderation import moderation
from power import power
from real import real_controls
from trends import trends

from immunomod.files import read_tsv, write_tsv
from synthesis import leave_one_dataset, meta_analysis

TABLE = REPOSITORY / "benchmarks" / "results" / "calibration.tsv"
REAL = "real"
#: The draws of each experiment per unit of ``--repeats``.
EXPERIMENTS: dict[str, tuple[Callable[[int], list[dict]], float]] = {
    "moderation": (moderation, 20),
    "designs": (designs, 25),
    "power": (power, 10),
    "trends": (trends, 20),
    "detection": (detection, 1),
    "whole_floor": (whole_floor, 1),
    "cells": (cells_as_replicates, 5),
    "sign_flips": (sign_flips, 1),
    "thinned_arm": (thinned_arm, 5),
    "programme_controls": (programme_controls, 1),
    "leakage_only": (leakage_only, 0.25),
    "meta_analysis": (meta_analysis, 75),
    "leave_one_dataset": (leave_one_dataset, 25),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kang", type=Path, help="h5ad of GSE96583 with the authors' labels")
    parser.add_argument("--repeats", type=int, default=40, help="scales the number of draws of every experiment")
    parser.add_argument("--only", nargs="+", choices=[*EXPERIMENTS, REAL], help="experiments to run")
    options = parser.parse_args()
    chosen = options.only or [*EXPERIMENTS, *([REAL] if options.kang else [])]
    parts = []
    for name in chosen:
        if name == REAL:
            if options.kang is None:
                parser.error("the controls on real data need --kang")
            rows = real_controls(options.kang, max(3 * options.repeats // 4, 2))
        else:
            experiment, draws = EXPERIMENTS[name]
            rows = experiment(max(round(draws * options.repeats), 2))
        part = pd.DataFrame(rows)
        print(part.to_string(index=False), flush=True)
        parts.append(part)
    table = pd.concat(parts, ignore_index=True)
    if options.only and TABLE.exists():
        before = read_tsv(TABLE)
        table = pd.concat([before[~before["experiment"].isin(table["experiment"])], table], ignore_index=True)
    write_tsv(table, TABLE)


if __name__ == "__main__":
    main()
