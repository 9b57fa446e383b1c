"""From the files of one library to an AnnData of raw counts, and the ledger rows that say how it was read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from immunomod.errors import UserError
from immunomod.sample.cells_table import CellsJoin, CellsTableColumns, join_cells_table, locate_cells_table
from immunomod.sample.readers import REGISTRY, Layout
from immunomod.sample.readers.features import gene_counts
from immunomod.sample.readers.library import LibraryFiles, integer_counts
from immunomod.sample.readers.sniff import Kind, SniffedFile, sniff

if TYPE_CHECKING:
    from anndata import AnnData

#: Columns of ``read.tsv``, and of ``results/ledger.tsv`` that is gathered from it.
LEDGER_COLUMNS = ("dataset", "sample", "url", "path", "bytes", "sha256", "retrieved", "parser", "decision")


def read_sample(
    row: pd.Series, manifest: pd.DataFrame, cells_columns: CellsTableColumns | None = None
) -> tuple[AnnData, pd.DataFrame]:
    """Read the counts of one library.

    Parameters
    ----------
    row
        The library's row of ``samples.tsv``; all values str, empty where absent. ``files`` (patterns
        separated by ``,``) decides where several matrices are found; ``cells`` names its per-cell table and
        ``cells_lane`` its lane.
    manifest
        Table of acquired files (columns dataset, sample, file, path, url, bytes, sha256, retrieved). Rows whose
        ``sample`` is empty are shared by the data set.
    cells_columns
        Columns of the data set's per-cell table; needed where ``row["cells"]`` is filled.

    Returns
    -------
    counts
        cells x genes, ``X`` CSR int32; ``obs_names`` are ``<sample>:<barcode>``; ``obs`` holds ``barcode``, every sheet
        column, and from a per-cell table ``in_cells_table`` (bool), ``author_label``, ``author_doublet`` and the donor,
        which overrides the sheet's. ``var`` (index: gene id, or symbol where there is none): ``gene_id``,
        ``gene_symbol``.
    ledger
        One row per file of the library and per shared file that was used; columns :data:`LEDGER_COLUMNS`.

    Raises
    ------
    UserError
        For damaged, missing or ambiguous files, values that are not counts, and a per-cell table that does not fit.
    """
    sample = str(row["sample"])
    manifest = _files_of(sample, manifest)
    cells_path = locate_cells_table(_value(row, "cells"), manifest) if _value(row, "cells") else None
    files = _library_files(row, manifest, cells_path)
    layout, matrix = _choose_matrix(files)
    library = layout.run(matrix, files)
    where = f"{matrix.path} (sample {sample})"
    library.matrix = integer_counts(library, where)
    genes = gene_counts(library.matrix, library.features, where)
    decisions = [*library.decisions, *genes.decisions]
    barcodes = library.barcodes.astype(str).rename(None)
    if repeated := int(barcodes.duplicated().sum()):
        raise UserError(
            f"{where}: {repeated:,} barcodes stand more than once (first: {barcodes[barcodes.duplicated()][0]}); the "
            "matrix holds several libraries: give each its own files"
        )
    join = None
    if cells_path is not None:
        columns = cells_columns or CellsTableColumns()
        join = join_cells_table(barcodes, cells_path, columns, _value(row, "cells_lane"), sample)
    counts = _assemble(row, barcodes, genes.matrix, genes.var, join)
    if 0 in counts.shape:
        raise UserError(f"{where}: the matrix is empty ({counts.n_obs} cells x {counts.n_vars} genes)")
    decisions.insert(0, f"{counts.n_obs:,} cells x {counts.n_vars:,} genes")
    served = {file.path: role for file, role in library.used.items()}
    ledger = _ledger(row, manifest, files, layout, served, decisions, cells_path, join)
    return counts, ledger


def _value(row: pd.Series, column: str) -> str:
    value = row.get(column, "")
    return "" if value is None or pd.isna(value) else str(value)


def _files_of(sample: str, manifest: pd.DataFrame) -> pd.DataFrame:
    owner = manifest["sample"].fillna("").astype(str)
    return manifest.loc[owner.isin([sample, ""])].assign(sample=owner)


def _library_files(row: pd.Series, manifest: pd.DataFrame, cells_path: Path | None) -> LibraryFiles:
    """Sniff the library's files and those that the data set shares; archives were unpacked when they were fetched."""
    paths = {
        owner: sorted(Path(path) for path in manifest.loc[manifest["sample"] == owner, "path"])
        for owner in ("", str(row["sample"]))
    }
    return LibraryFiles(
        sample=str(row["sample"]),
        own=tuple(sniff(path) for path in paths[str(row["sample"])] if path != cells_path),
        shared=tuple(sniff(path) for path in paths[""] if path != cells_path),
        patterns=tuple(pattern.strip() for pattern in _value(row, "files").split(",") if pattern.strip()),
    )


def _choose_matrix(files: LibraryFiles) -> tuple[Layout, SniffedFile]:
    """The one matrix among the library's files; shared ones count only where it has none of its own."""
    for candidates in (replace(files, shared=()), replace(files, own=())):
        found = [(layout, file) for layout in REGISTRY.values() for file in layout.recognise(candidates)]
        first_choice = [pair for pair in found if not pair[0].last_resort]
        found = first_choice or found
        if len(found) > 1:
            found = [pair for pair in found if files.is_named(pair[1])] or found
        if len(found) > 1:
            raise UserError(
                f"sample {files.sample}: {len(found)} matrices among its files: "
                f"{', '.join(file.name for _, file in found)}; say in samples.tsv, column files, which is to be read "
                "(a pattern of file names)"
            )
        if found:
            return found[0]
        _refuse_damaged(candidates.own)
    raise UserError(
        f"sample {files.sample}: no matrix of counts among its files: {files.describe()}. Readable layouts: "
        f"{', '.join(REGISTRY)}"
    )


def _refuse_damaged(files: Sequence[SniffedFile]) -> None:
    for file in files:
        if file.damage:
            raise UserError(file.damage)
        if file.kind is Kind.HTML:
            raise UserError(
                f"{file.path}: is a web page, not data (the server answered with a message); fetch it again"
            )
        if file.kind is Kind.R_OBJECT:
            raise UserError(
                f"{file.path}: is an R object; save its counts as a 10x triplet (DropletUtils::write10xCounts) or h5ad"
            )


def _assemble(row: pd.Series, barcodes: pd.Index, matrix: object, var: pd.DataFrame, join: CellsJoin | None) -> AnnData:
    from anndata import AnnData

    sample = str(row["sample"])
    obs = pd.DataFrame({"barcode": barcodes.to_numpy(dtype=object)}, index=sample + ":" + barcodes)
    for column in row.index:
        obs[str(column)] = pd.Categorical([_value(row, column)] * len(barcodes))
    if join is not None:
        for column in join.cells.columns:
            values = join.cells[column].to_numpy()
            obs[column] = values if values.dtype == bool else pd.Categorical(values)
    return AnnData(X=matrix, obs=obs, var=var)


def _ledger(
    row: pd.Series,
    manifest: pd.DataFrame,
    files: LibraryFiles,
    layout: Layout,
    served: dict[Path, str],
    decisions: Sequence[str],
    cells_path: Path | None,
    join: CellsJoin | None,
) -> pd.DataFrame:
    """Ledger rows: the library's own files, used or not, and the shared files that it used."""
    kinds = {file.path: file.kind for file in (*files.own, *files.shared)}
    rows = []
    for entry in manifest.to_dict("records"):
        path = Path(str(entry["path"]))
        if path == cells_path and join is not None:
            parser, decision = "cells_table", join.decision
        elif path in served:
            role = served[path]
            parser, decision = layout.name, "; ".join([role, *decisions]) if role == "matrix" else role
        elif entry["sample"]:
            parser, decision = "", f"not used ({kinds[path]})" if path in kinds else "not used"
        else:
            continue
        rows.append(
            {
                **{column: entry.get(column, "") for column in LEDGER_COLUMNS},
                "sample": row["sample"],
                "parser": parser,
                "decision": decision,
            }
        )
    if cells_path is not None and join is not None and str(cells_path) not in set(manifest["path"].astype(str)):
        from immunomod.files import sha256

        rows.append(
            {
                **dict.fromkeys(LEDGER_COLUMNS, ""),
                "dataset": _value(row, "dataset"),
                "sample": row["sample"],
                "path": str(cells_path),
                "bytes": cells_path.stat().st_size,
                "sha256": sha256(cells_path),
                "parser": "cells_table",
                "decision": join.decision,
            }
        )
    return pd.DataFrame(rows, columns=list(LEDGER_COLUMNS))
