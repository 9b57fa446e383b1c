"""The shipped demo is what its recorded command writes, and what its README says.

Compression libraries and processors differ in the last bit, and one random number that falls otherwise moves all that
follow in its library: where the tables must agree to rounding, the counts must agree as two drawings of one study do.
"""

import gzip

import numpy as np
import pandas as pd
import pytest

from immunomod.files import read_tsv
from immunomod.simulate.command import simulate_command
from immunomod.tables import REPOSITORY

DEMO = REPOSITORY / "resources" / "demo"
CONFIG = REPOSITORY / "config" / "demo"


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "demo"
    simulate_command(out, seed=1)
    return out


def relative_files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def gene_sums(path):
    with gzip.open(path, "rt") as handle:
        entries = pd.read_csv(handle, sep=" ", comment="%", header=None, names=["gene", "cell", "count"])
    n_genes, n_cells, nnz = entries.iloc[0]
    assert nnz == len(entries) - 1
    body = entries.iloc[1:]
    return np.bincount(body["gene"], weights=body["count"], minlength=n_genes + 1), n_cells


def test_the_demo_is_small():
    assert sum(path.stat().st_size for path in DEMO.rglob("*") if path.is_file()) < 6e6


def test_the_command_writes_the_same_files(again):
    for part in ("geo", "truth"):
        assert relative_files(again / part) == relative_files(DEMO / part)
    for sheet in ("samples.tsv", "contrasts.tsv"):
        assert (again / sheet).read_text() == (CONFIG / sheet).read_text()


@pytest.mark.parametrize("name", ["truth_effects.tsv", "truth_genes.tsv.gz", "truth_composition.tsv", "settings.tsv"])
def test_the_command_writes_the_same_truth(again, name):
    pd.testing.assert_frame_equal(read_tsv(again / "truth" / name), read_tsv(DEMO / "truth" / name), atol=2e-4)


def test_the_command_draws_the_same_counts(again):
    pattern = "geo/samples/*/*/suppl/*_matrix.mtx.gz"
    shipped = sorted(DEMO.glob(pattern))
    assert len(shipped) == 12
    for path in shipped:
        sums, n_cells = gene_sums(path)
        new_sums, new_cells = gene_sums(again / path.relative_to(DEMO))
        assert new_cells == n_cells
        assert new_sums.sum() == pytest.approx(sums.sum(), rel=0.15)
        assert np.corrcoef(np.log1p(sums), np.log1p(new_sums))[0, 1] > 0.95


def test_the_demo_has_enough_cells_of_the_main_classes():
    cells = read_tsv(DEMO / "truth" / "truth_cells.tsv.gz")
    clean = cells[~cells["true_doublet"] & ~cells["damaged"]]
    numbers = clean.groupby(["condition", "donor", "true_class"]).size().unstack("true_class")
    main = ["MSC", "CD4_T", "CD8_T", "NK", "B", "CD14_monocyte"]
    assert numbers[main].min().min() >= 20
    assert set(cells["donor"]) == {"D1", "D2", "D3", "D4"}
