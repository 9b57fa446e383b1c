"""Run CellBender on the tiny library, after make_counts.py, in an environment that holds it (envs/cellbender.yaml).

PYTHONPATH=workflow python tests/sample/reference/ambient/make_cellbender.py
"""

from pathlib import Path

from immunomod.sample.ambient.cellbender import remove_background

HERE = Path(__file__).parent
remove_background(
    HERE / "counts.h5ad", HERE / "background.h5", lower=100, epochs=30, false_positive_rate=0.01, threads=1
)
