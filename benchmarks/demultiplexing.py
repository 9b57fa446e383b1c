"""How many cells of a pooled lane get their own hashtag: the default method and HashSolo on simulated lanes.

Run from the repository: ``python benchmarks/demultiplexing.py [--lanes N] [--droplets N]``; about a minute on one core.
Writes ``benchmarks/results/demultiplexing.tsv``, one row per condition, method and measure, with the mean and the
lowest value over lanes.

Truth is known as genotypes would tell it: *singlet_recall*, the share of stained singlets that are called with their
own tag; *singlet_precision*, the share of called singlets that are; *doublet_recall* and *doublet_precision* of
droplets with two tags; *negative_recall* of unstained cells. Singlets of either method are as sure as the
settings ask. Staining is drawn log-normal between cells, as the default method supposes; ``gamma staining`` draws
it otherwise.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "workflow"))

from immunomod.files import write_tsv  # noqa: E402
from immunomod.sample.demultiplex.calls import REGISTRY, HashtagCalls, call_hashtags  # noqa: E402
from immunomod.sample.settings import DemultiplexSettings  # noqa: E402
from immunomod.simulate.hashtags import HashtagPool, simulate_hashtags  # noqa: E402

EQUAL = (1.0,) * 8
CONDITIONS = {
    "2 tags": HashtagPool(shares=EQUAL[:2]),
    "2 tags, 4 to 1": HashtagPool(shares=(4, 1)),
    "4 tags": HashtagPool(shares=EQUAL[:4]),
    "4 tags, gamma staining": HashtagPool(shares=EQUAL[:4], stain_shape="gamma"),
    "4 tags, 5% doublets, 2% unstained": HashtagPool(shares=EQUAL[:4], doublets=0.05, unstained=0.02),
    "4 tags, 15% doublets, 10% unstained": HashtagPool(shares=EQUAL[:4], doublets=0.15, unstained=0.10),
    "8 tags, 15% doublets, 10% unstained": HashtagPool(shares=EQUAL, doublets=0.15, unstained=0.10),
    "8 tags, 16 to 1, unlike stains": HashtagPool(
        shares=(8, 4, 2, 1, 1, 1, 0.5, 0.5), signal_spread=0.8, background_spread=0.8, doublets=0.12
    ),
    "3 of 6 tags in use": HashtagPool(shares=(1, 1, 1, 0, 0, 0)),
    "4 tags, 30% stromal cells": HashtagPool(shares=EQUAL[:4], large_cells=0.3, cell_spread=0.6),
    "4 tags, 100 droplets": HashtagPool(shares=EQUAL[:4], n_droplets=100),
    "2 tags, low separation": HashtagPool(shares=EQUAL[:2], signal=40, background=8),
    "4 tags, low separation": HashtagPool(shares=EQUAL[:4], signal=40, background=8),
}


def accuracy(calls: HashtagCalls, truth: pd.DataFrame) -> dict[str, float]:
    """The measures of one lane; NaN where a share has no whole."""
    status, called = truth["status"].to_numpy(), calls.status
    right = (calls.hashtag == truth["hashtag"].to_numpy()) & (called == "singlet") & (status == "singlet")
    doublets = (called == "doublet") & (status == "doublet")
    return {
        "singlet_recall": _share(right, status == "singlet"),
        "singlet_precision": _share(right, called == "singlet"),
        "doublet_recall": _share(doublets, status == "doublet"),
        "doublet_precision": _share(doublets, called == "doublet"),
        "negative_recall": _share((called == "negative") & (status == "negative"), status == "negative"),
    }


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.sum() / whole.sum()) if whole.any() else float("nan")


def measure(n_lanes: int, n_droplets: int) -> pd.DataFrame:
    """One row per condition, method and measure."""
    rows = []
    for condition, given in CONDITIONS.items():
        pool = replace(given, n_droplets=min(n_droplets, given.n_droplets) if given.n_droplets < 1000 else n_droplets)
        lanes = [simulate_hashtags(pool, seed) for seed in range(n_lanes)]
        for method in REGISTRY:
            settings = DemultiplexSettings(method=method)
            start = time.perf_counter()
            called = [call_hashtags(lane.counts, settings, 1) for lane in lanes]
            seconds = (time.perf_counter() - start) / n_lanes
            found = pd.DataFrame([accuracy(calls, lane.truth) for calls, lane in zip(called, lanes, strict=True)])
            found["seconds"] = seconds
            for name in found:
                rows.append((condition, method, name, found[name].mean().round(4), found[name].min().round(4), n_lanes))
    return pd.DataFrame(rows, columns=["condition", "method", "measure", "mean", "lowest", "lanes"])


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lanes", type=int, default=10)
    parser.add_argument("--droplets", type=int, default=4000)
    arguments = parser.parse_args()
    table = measure(arguments.lanes, arguments.droplets)
    write_tsv(table, REPOSITORY / "benchmarks" / "results" / "demultiplexing.tsv")
    print(table.pivot_table(index=["condition", "method"], columns="measure", values="mean", sort=False).to_string())


if __name__ == "__main__":
    main()
