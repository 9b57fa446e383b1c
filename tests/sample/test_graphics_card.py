"""CellBender and scVI take a graphics card where PyTorch finds one, and run without where it does not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anndata
import numpy as np
import pytest
from scipy import sparse

from immunomod.atlas.integration import train
from immunomod.files import SEAL, is_damaged
from immunomod.sample.ambient import cellbender

#: Stands in for the program: writes what it was asked for, and a file where the result is due.
PROGRAM = """
import json, sys
from pathlib import Path
asked = sys.argv[1:]
Path(asked[asked.index("--output") + 1]).write_text("result")
Path({told!r}).write_text(json.dumps(asked))
"""


@pytest.fixture
def asked_of_cellbender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs the rule's function with stand-ins of PyTorch and CellBender; what CellBender was asked for."""

    def run(has_card: bool) -> list[str]:
        folder = tmp_path / f"packages_{has_card}"
        told = tmp_path / "told.json"
        (folder / "cellbender").mkdir(parents=True)
        (folder / "cellbender" / "__init__.py").touch()
        (folder / "cellbender" / "base_cli.py").write_text(PROGRAM.format(told=str(told)))
        (folder / "torch.py").write_text(f"class cuda:\n    is_available = staticmethod(lambda: {has_card})\n")
        monkeypatch.delitem(sys.modules, "torch", raising=False)
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setenv("PYTHONPATH", str(folder))
        droplets = np.vstack([np.full((20, 5), 300), np.full((400, 5), 2)])
        anndata.AnnData(sparse.csr_matrix(droplets)).write_h5ad(tmp_path / "counts.h5ad")
        cellbender.remove_background(
            tmp_path / "counts.h5ad", tmp_path / "out.h5", lower=100, epochs=3, false_positive_rate=0.01, threads=2
        )
        # at once: monkeypatch would put the stand-in back, for all tests that follow
        sys.modules.pop("torch", None)
        assert not is_damaged(tmp_path / "out.h5")
        assert SEAL.sub(b"", (tmp_path / "out.h5").read_bytes()) == b"result"
        asked: list[str] = json.loads(told.read_text())
        return asked

    return run


@pytest.mark.parametrize("has_card", [True, False])
def test_cellbender_takes_a_card_where_there_is_one(asked_of_cellbender, has_card):
    asked = asked_of_cellbender(has_card)
    assert ("--cuda" in asked) == has_card
    assert asked[asked.index("--cpu-threads") + 1] == "2"


@pytest.mark.parametrize("n_cells", [100, 50_000])
def test_scvi_is_left_to_choose(n_cells):
    """scvi-tools trains on a card where there is one unless it is told otherwise; nothing here tells it."""
    assert not {"accelerator", "devices", "device"} & set(train._training_options(n_cells))
