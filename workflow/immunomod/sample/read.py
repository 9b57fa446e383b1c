"""From the files of one library to an AnnData of raw counts, and the ledger rows that say how it was read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from immunomod.acquire.plan import METADATA
from immunomod.acquire.select import split_patterns
from immunomod.errors import UserError
from immunomod.sample.cell_names import select_cells
from immunomod.sample.cells_table import CellsJoin, CellsTableColumns, join_cells_table, locate_cells_table
from immunomod.sample.choose import Matrix, choose_matrices
from immunomod.sample.other_features import as_frames, join_by_barcode, other_features
from immunomod.sample.readers import Layout
from immunomod.sample.readers.counts import ReadingSettings, integer_counts
from immunomod.sample.readers.features import GeneCounts, gene_counts
from immunomod.sample.readers.library import LibraryFiles
from immunomod.sample.readers.sniff import sniff

if TYPE_CHECKING:
    from anndata import AnnData

#: Columns of ``read.tsv``, and of ``results/ledger.tsv`` that is gathered from it.
LEDGER_COLUMNS = ("dataset", "sample", "url", "path", "bytes", "sha256", "retrieved", "parser", "decision")


def read_sample(
    row: pd.Series,
    manifest: pd.DataFrame,
    cells_columns: CellsTableColumns | None = None,
    settings: ReadingSettings | None = None,
) -> tuple[AnnData, pd.DataFrame]:
    """Read the counts of one library.

    Parameters
    ----------
    row
        The library's row of ``samples.tsv``; all values str, empty where absent. ``files`` (patterns
        separated by ``,``) decides where several matrices are found, ``barcodes`` (patterns) which cells of a matrix
        are the library's; ``cells`` names its per-cell table and ``cells_lane`` its lane.
    manifest
        Table of acquired files (columns dataset, sample, file, path, url, bytes, sha256, retrieved, role). Rows whose
        ``sample`` is empty are shared by the data set; those whose role is ``metadata`` are not for reading.
    cells_columns
        Columns of the data set's per-cell table; needed where ``row["cells"]`` is filled.
    settings
        Whether fractions are rounded.

    Returns
    -------
    counts
        cells x genes, ``X`` CSR int32, without barcodes that have no count; ``obs_names`` are ``<sample>:<barcode>``;
        ``obs`` holds ``barcode``, every sheet column, and from a per-cell table ``in_cells_table`` (bool),
        ``author_label``, ``author_doublet`` and the donor, which overrides the sheet's (and stands in ``author_donor``,
        too, where the sheet names hashtags). ``var`` (index: gene id, or
        symbol where there is none): ``gene_id``, ``gene_symbol`` (current), ``gene_symbol_given``. ``obsm``: a data
        frame per kind of feature that is no gene (``antibody_capture``, ``hashtags``, ...). Where two species are in
        the matrix, ``obs["other_species_counts"]`` (int) and ``obs["other_species_fraction"]`` (share of the droplet's
        counts); droplets of the other species are among the cells.
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
    files = library_files(row, manifest, cells_path)
    choice = choose_matrices(files)
    matrix = choice.genes.file
    library = choice.genes.layout.run(matrix, files)
    where = f"{matrix.path} (sample {sample})"
    columns = cells_columns or CellsTableColumns()
    # A table that lists the library's cells tells them apart, so their names need not.
    patterns = files.cells or (("*",) if cells_path is not None and columns.listed_only else ())
    barcodes = library.barcodes.astype(str).rename(None)
    mask, note = select_cells(barcodes, patterns, where)
    if mask.all():
        note = ""
    else:
        library.matrix, library.barcodes = library.matrix[mask], library.barcodes[mask]
        barcodes = barcodes[mask]
    decisions = [*library.decisions, note, *integer_counts(library, where, settings or ReadingSettings())]
    if repeated := int(barcodes.duplicated().sum()):
        raise UserError(
            f"{where}: {repeated:,} barcodes stand more than once (first: {barcodes[barcodes.duplicated()][0]}); the "
            "matrix holds several libraries: give each its own files"
        )
    genes = gene_counts(library.matrix, library.features, where, _value(row, "organism"))
    decisions += genes.decisions
    others = as_frames(genes.other, barcodes)
    served = {file.path: role for file, role in library.used.items()}
    for one in choice.others:
        frames, note = _read_other(one, files, barcodes)
        others |= frames
        served[one.file.path] = f"{', '.join(frames)}; {note}"
    join = None
    if cells_path is not None:
        named = _value(row, "cells")
        join = join_cells_table(barcodes, cells_path, columns, _value(row, "cells_lane"), sample, named)
    kept, notes = _cells_to_keep(genes, join)
    counts = _assemble(row, barcodes, genes, others, join, kept)
    size = f"{counts.n_obs:,} cells x {counts.n_vars:,} genes"
    empty = "the library is empty: its sample fails, and the rest goes on without it" if 0 in counts.shape else ""
    said = [size, *(one for one in (empty, *decisions, *notes) if one)]
    return counts, _ledger(row, manifest, files, choice.genes.layout, served, said, cells_path, join)


def _read_other(matrix: Matrix, files: LibraryFiles, barcodes: pd.Index) -> tuple[dict[str, pd.DataFrame], str]:
    """Features of the library's cells from a matrix that holds no genes."""
    library = matrix.layout.run(matrix.file, files)
    where = f"{matrix.file.path} (sample {files.sample})"
    integer_counts(library, where, ReadingSettings())
    other = other_features(library)
    return join_by_barcode(other, library.barcodes.astype(str), barcodes, where)


def _cells_to_keep(genes: GeneCounts, join: CellsJoin | None) -> tuple[NDArray[np.bool_], list[str]]:
    """Cells with a count of any species, and listed in the per-cell table where only those are wanted."""
    counted = np.diff(genes.matrix.indptr) > 0
    if genes.other_species_counts is not None:
        counted |= genes.other_species_counts > 0
    notes = []
    if not counted.all():
        notes.append(f"dropped {(~counted).sum():,} barcodes without a count")
    if join is None:
        return counted, notes
    if not join.kept.all():
        notes.append(f"dropped {(~join.kept).sum():,} cells that the per-cell table does not list")
    return counted & join.kept, notes


def _value(row: pd.Series, column: str) -> str:
    value = row.get(column, "")
    return "" if value is None or pd.isna(value) else str(value)


def _files_of(sample: str, manifest: pd.DataFrame) -> pd.DataFrame:
    owner = manifest["sample"].fillna("").astype(str)
    is_read = manifest["role"] != METADATA if "role" in manifest else True
    return manifest.loc[owner.isin([sample, ""]) & is_read].assign(sample=owner)


def library_files(row: pd.Series, manifest: pd.DataFrame, cells_path: Path | None) -> LibraryFiles:
    """Sniff the library's files and those that the data set shares; archives were unpacked when they were fetched."""
    paths = {
        owner: sorted(Path(path) for path in manifest.loc[manifest["sample"] == owner, "path"])
        for owner in ("", str(row["sample"]))
    }
    return LibraryFiles(
        sample=str(row["sample"]),
        own=tuple(sniff(path) for path in paths[str(row["sample"])] if path != cells_path),
        shared=tuple(sniff(path) for path in paths[""] if path != cells_path),
        patterns=split_patterns(_value(row, "files")),
        cells=split_patterns(_value(row, "barcodes")),
    )


def _assemble(
    row: pd.Series,
    barcodes: pd.Index,
    genes: GeneCounts,
    others: dict[str, pd.DataFrame],
    join: CellsJoin | None,
    kept: NDArray[np.bool_],
) -> AnnData:
    """The validated object of a library: its kept cells, with the sheet's columns."""
    from anndata import AnnData

    names = barcodes[kept]
    obs = pd.DataFrame({"barcode": names.to_numpy(dtype=object)}, index=f"{row['sample']}:" + names)
    for column in row.index:
        # a library without cells keeps what the sheet says of it, as categories
        everywhere = np.zeros(len(names), dtype=np.int8)
        obs[str(column)] = pd.Categorical.from_codes(everywhere, categories=pd.Index([_value(row, column)]))
    if join is not None:
        for column in join.cells.columns:
            values = join.cells[column].to_numpy()[kept]
            obs[column] = values if values.dtype == bool else pd.Categorical(values)
        if "donor" in join.cells and _value(row, "hashtags"):
            obs["author_donor"] = obs["donor"]
    if genes.other_species_counts is not None:
        other = genes.other_species_counts[kept]
        own = np.asarray(genes.matrix.sum(axis=1), dtype=np.int64).ravel()[kept]
        obs["other_species_counts"] = other
        obs["other_species_fraction"] = other / (own + other)
    obsm = {kind: frame[kept].set_axis(obs.index) for kind, frame in others.items()}
    return AnnData(X=genes.matrix if kept.all() else genes.matrix[kept], obs=obs, var=genes.var, obsm=obsm)


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
