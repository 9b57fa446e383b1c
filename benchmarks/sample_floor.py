"""What the sample floor finds of what a simulated library holds: ambient and partner RNA, cells, and species.

Run from the repository: ``python benchmarks/sample_floor.py [--repeats N] [--seed S]``; about four minutes on one core.
Writes ``benchmarks/results/sample_floor.tsv``, one row per experiment, setting and measure, which the docs quote.
Doublets, hashtags and speed have scripts of their own beside this one.

*contamination*: co-cultures of 1,200 cells, whose droplets hold partner RNA (``leakage``) or soup of the whole library
(``soup``), with and without empty droplets; estimate less truth, over all cells, in percentage points.
*cells*: the same with 8,000 empty droplets of a median of 30 counts: precision and recall of the called cells, doublets
and damaged cells among them.
*species*: 5,000 droplets of human MSC and mouse immune cells at 1:1 and 1:20.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "workflow"))

from immunomod.files import write_tsv  # noqa: E402
from immunomod.programs import load_programs  # noqa: E402
from immunomod.sample.process import process_sample  # noqa: E402
from immunomod.sample.settings import SampleSettings  # noqa: E402
from immunomod.sample.species import assign_species  # noqa: E402
from immunomod.simulate.settings import SimulationSettings  # noqa: E402
from immunomod.simulate.species import SpeciesMix, simulate_species_totals  # noqa: E402
from immunomod.simulate.study import simulate_study  # noqa: E402

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3)
Row = tuple[str, str, str, float]


def coculture(settings: SimulationSettings) -> list[Row]:
    """Contamination and called cells of one simulated co-culture."""
    study = simulate_study(settings)
    truth = study.adata.obs[study.adata.obs["condition"] == "coculture"]
    library = study.adata[truth.index].copy()
    library.obs = truth[["barcode", "sample", "condition", "donor", "culture", "organism"]].assign(dataset="simulated")
    held = np.asarray(library.X.sum(axis=1)).ravel() > 0
    result = process_sample(library[held].copy(), load_programs(), SampleSettings())
    row = result.qc.iloc[0]
    kind = "leakage" if settings.leakage else "soup"
    share = settings.leakage or settings.ambient
    setting = f"{kind} {share:.0%}, {'with' if settings.empty_droplets else 'without'} empty droplets"
    total = np.asarray(library.X.sum(axis=1)).ravel()
    cells = (~truth["empty"]).to_numpy()
    found: list[Row] = []
    for measure, column in (("ambient_fraction", "ambient_counts"), ("partner_fraction", "leaked_counts")):
        true = truth[column].to_numpy()[cells].sum() / total[cells].sum()
        found.append(("contamination", setting, f"{measure}, error in points", 100 * abs(float(row[measure]) - true)))
    if settings.empty_droplets:
        called = set(result.cells.loc[result.cells["reason"] != "empty_droplet", "barcode"])
        real = set(truth.loc[cells, "barcode"])
        found += [
            ("cells", setting, "precision", len(called & real) / len(called)),
            ("cells", setting, "recall", len(called & real) / len(real)),
        ]
    return found


def species(mix: SpeciesMix, setting: str, seed: int) -> list[Row]:
    """Assignment of the droplets of a mixed library, and what leaked."""
    table = simulate_species_totals(mix, seed)
    calls = assign_species(table["human_counts"].to_numpy(), table["mouse_counts"].to_numpy())
    truth = table["true_species"].to_numpy()
    single = np.isin(truth, ("human", "mouse"))
    right = np.where(truth == "human", "own", "other") == calls.status
    doublet = truth == "doublet"
    called = calls.status == "doublet"
    return [
        ("species", setting, "singlets assigned right", float(right[single].mean())),
        ("species", setting, "doublets, precision", float(doublet[called].mean()) if called.any() else np.nan),
        ("species", setting, "doublets, recall", float(called[doublet].mean())),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="libraries per setting")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    base = SimulationSettings(n_donors=1, cells_scale=4.0, leakage=0.0)
    rows: list[Row] = []
    for repeat in range(options.repeats):
        for empty in (0, 8000):
            for share in SHARES:
                changes = [{"ambient": share}] if share == 0 else [{"ambient": share}, {"leakage": share}]
                for change in changes:
                    rows += coculture(replace(base, empty_droplets=empty, seed=options.seed + repeat, **change))
        for ratio in (0.5, 1 / 21):
            for ambient in (0.0, 0.1, 0.3):
                mix = SpeciesMix(human_share=ratio, ambient=ambient, n_droplets=5000)
                words = f"human share {ratio:.0%}, ambient {ambient:.0%}"
                rows += species(mix, words, options.seed + repeat)
        print(f"{repeat + 1} of {options.repeats}", flush=True)
    table = pd.DataFrame(rows, columns=["experiment", "setting", "measure", "value"])
    grouped = table.groupby(["experiment", "setting", "measure"], sort=False)["value"]
    summary = grouped.agg(mean="mean", smallest="min", largest="max", libraries="count").reset_index().round(4)
    write_tsv(summary, REPOSITORY / "benchmarks" / "results" / "sample_floor.tsv")
    print(summary.to_string())


if __name__ == "__main__":
    main()
