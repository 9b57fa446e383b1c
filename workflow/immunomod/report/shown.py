"""Tables of the numbers that the page works out from others, so that each of them can be looked up as well.

They lie in ``report/tables`` beside the page, which holds them as downloads like every other table.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from immunomod.files import write_tsv
from immunomod.report.inputs import Atlas, Contrast, ReportTables
from immunomod.report.values import text
from immunomod.report.views import donor_changes, natural_key
from immunomod.report.words import slug

DONOR_COLUMNS = ["contrast", "dataset", "cell_class", "program", "donor", "change"]
CELL_COLUMNS = ["sample", "condition", "compartment", "cell_class", "n_cells", "share"]


def donor_table(contrast: Contrast) -> pd.DataFrame:
    """Change of every programme in every donor (of a trend: in every sample), in log2 units."""
    changes = donor_changes(contrast.scores).rename(columns={"column": "donor"})
    return changes.assign(contrast=contrast.name)[DONOR_COLUMNS]


def cell_table(atlas: Atlas) -> pd.DataFrame:
    """Cells of each class in each sample, and their share of the sample's cells of that compartment (0 to 1)."""
    keys = ["sample", "compartment", "cell_class"]
    if atlas.cells.empty or not set(keys) <= set(atlas.cells):
        return pd.DataFrame(columns=CELL_COLUMNS)
    cells = atlas.cells[keys].astype(str)
    cells["condition"] = atlas.cells["condition"].map(text).astype(str) if "condition" in atlas.cells else ""
    found = cells.groupby(keys, sort=True).agg(condition=("condition", "first"), n_cells=("condition", "size"))
    found = found.reset_index()
    found["share"] = found["n_cells"] / found.groupby(keys[:2])["n_cells"].transform("sum")
    ordered = found.sort_values("sample", key=lambda column: column.map(natural_key), kind="stable")
    return ordered[CELL_COLUMNS].reset_index(drop=True)


def donor_path(contrast: str) -> str:
    """Where the changes of a contrast's donors lie under ``results``."""
    return f"report/tables/donors-{slug(contrast)}.tsv"


def cell_path(atlas: str) -> str:
    """Where the cells of an atlas's samples lie under ``results``."""
    return f"report/tables/cells-{slug(atlas)}.tsv"


def write_shown_tables(tables: ReportTables, folder: Path) -> list[Path]:
    """Write them all into ``folder`` (``report/tables``); returns the files."""
    found = {donor_path(contrast.name): donor_table(contrast) for contrast in tables.contrasts}
    found |= {cell_path(atlas.name): cell_table(atlas) for atlas in tables.atlases}
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for path, table in found.items():
        target = folder / Path(path).name
        write_tsv(table, target)
        written.append(target)
    return written
