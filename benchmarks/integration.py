"""Integration methods against the truth, and whether `auto` picks a good one.

Run from the repository: ``python benchmarks/integration.py [--draws N]``; about six minutes on one core. Writes
``benchmarks/results/integration.tsv``, one row per simulated study and method.

Each draw is a study of four donors and three arms (MSC alone, immune cells alone, co-culture) with planted effects, in
one of five designs and with gene-wise batch effects of 0 to 1.2 log2 units (``simulate/batches.py``), most of them
shallow. Batches are donors; two days of two donors each; single libraries; arms (confounded with what is asked); or
donors who gave either the references or the co-cultures. Every method is then taken to where a user meets it: graph,
fine clusters, classes named by markers, pseudobulks.

``ari_classes``
    adjusted Rand index of the named classes with the true ones.
``ari_leiden``
    the same of Leiden clusters at resolution 1. It counts the split of a class by condition as a fault, which is what
    a co-culture that changes cells looks like; it is reported and is no part of the score.
``effect_error``
    root mean squared error of the log2 changes of planted genes, from pseudobulks per donor and named class, as a share
    of the root mean square of the true changes.
``truth_score``
    mean of ``ari_classes`` and ``1 - effect_error``.
``within_5_percent``
    of the chosen row: its ``truth_score`` is at least 0.95 of the best of all rows of its draw.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "workflow"), str(REPOSITORY / "tests")]

from support.batch_truth import truth_of_methods  # noqa: E402

#: Design, strength of batch effects and mean molecules of a lymphocyte of each draw.
DRAWS = (
    ("donors", 0.0, 600.0), ("donors", 0.4, 600.0), ("donors", 0.8, 600.0), ("donors", 1.2, 1700.0),
    ("days", 0.5, 600.0), ("days", 1.0, 900.0), ("libraries", 0.4, 600.0), ("libraries", 0.8, 900.0),
    ("arms", 0.6, 600.0), ("unpaired", 0.6, 600.0),
)  # fmt: skip


def main() -> None:
    """Measure all draws, print them and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--draws", type=int, default=len(DRAWS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "benchmarks" / "results" / "integration.tsv")
    options = parser.parse_args()
    tables = []
    for number in range(options.draws):
        kind, sd, depth = DRAWS[number % len(DRAWS)]
        seed = options.seed + number
        with tempfile.TemporaryDirectory() as folder:
            table = truth_of_methods(Path(folder), kind, sd, seed, depth=depth)
        table.insert(0, "draw", number + 1)
        tables.append(table)
        columns = ["method", "key", "score", "ari_classes", "ari_leiden", "effect_error", "truth_score", "chosen"]
        print(
            f"draw {number + 1}: batches are {kind}, {sd:g} log2 units, depth {depth:g}\n{table[columns].to_string()}",
            flush=True,
        )
    result = pd.concat(tables, ignore_index=True)
    chosen = result[result["chosen"]]
    print(f"within 5% of the best: {int(chosen['within_5_percent'].sum())} of {len(chosen)} draws")
    numbers = result.select_dtypes("number").columns
    result[numbers] = result[numbers].astype(float).round(4)
    from immunomod.files import write_tsv

    write_tsv(result.drop(columns=["seconds"]).replace({np.nan: None}), options.output)


if __name__ == "__main__":
    main()
