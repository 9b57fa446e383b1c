"""One small matrix in every layout: from a row of the sheet to the counts, exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from immunomod.acquire import AcquireSettings, acquire_samples
from immunomod.sample.cells_table import CellsTableColumns
from immunomod.sample.read import read_sample
from support.layouts import LAYOUTS, Row


def read_row(row: Row, rows: list[Row], folder: Path, base_url: str) -> tuple:
    """A row's counts and ledger, by way of the acquire floor, as the workflow goes."""
    columns = ["sample", "source", "files", "cells", "cells_lane", "barcodes", "organism"]
    sheet = pd.DataFrame([dict.fromkeys(columns, "") | {"organism": "human"} | one.values for one in rows])
    sheet.index += 2
    manifest = acquire_samples(row.dataset, sheet, base_url, folder / "acquire", folder, AcquireSettings())
    values = sheet[sheet["sample"] == row.values["sample"]].iloc[0]
    values = pd.concat([values, pd.Series({"dataset": row.dataset, "condition": "a", "donor": "d"})])
    columns_of_table = CellsTableColumns.from_config(row.config) if row.config else None
    return read_sample(values, manifest.astype(str), columns_of_table)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_the_same_counts(name, tmp_path):
    rows = LAYOUTS[name](tmp_path / "data")
    for row in rows:
        adata, ledger = read_row(row, rows, tmp_path, (tmp_path / "data" / "geo").as_uri())
        expected = row.expected
        assert sparse.isspmatrix_csr(adata.X)
        assert adata.X.dtype == np.int32
        assert list(adata.obs["barcode"]) == list(expected.counts.index)
        assert list(adata.var["gene_symbol"]) == list(expected.counts.columns)
        np.testing.assert_array_equal(adata.X.toarray(), expected.counts.to_numpy())
        if expected.ids is not None:
            assert list(adata.var["gene_id"]) == expected.ids
        assert set(adata.obsm) == set(expected.others)
        for kind, frame in expected.others.items():
            pd.testing.assert_frame_equal(
                adata.obsm[kind].set_axis(adata.obs["barcode"].astype(str).to_numpy()),
                frame,
                check_dtype=False,
                check_names=False,
            )
        assert (ledger["parser"] != "").any()
        assert ledger.loc[ledger["parser"] != "", "decision"].str.len().gt(0).all()


def test_there_are_as_many_layouts_as_promised():
    assert len(LAYOUTS) >= 40
