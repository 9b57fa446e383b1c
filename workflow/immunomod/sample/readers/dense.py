"""Dense text tables, genes x cells or cells x genes: half of the series on GEO.

The table is streamed: memory is bounded by the non-zeros, not by the table. Which axis holds genes is told by the
names on both, and columns that are no counts are told by content and header (:mod:`dense_columns`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from immunomod.errors import UserError
from immunomod.sample.readers.dense_columns import (
    ColumnPlan,
    cell_names,
    describes_cells,
    dropped_in_words,
    gene_names,
    genes_are_rows,
    is_matrix,
    is_one_sample,
    is_summary,
    names_genes,
    plan_columns,
)
from immunomod.sample.readers.dense_head import TableHead, read_head, read_lone_header
from immunomod.sample.readers.features import feature_columns, looks_like_barcodes
from immunomod.sample.readers.library import Layout, LibraryCounts, LibraryFiles, LibraryHead
from immunomod.sample.readers.sniff import Kind, SniffedFile, reading

if TYPE_CHECKING:
    from immunomod.sample.readers.dense_parse import ParsedTable, ParsePlan

#: Tables up to this size (compressed) are looked through for the names of their rows before the counts are read.
PEEK_BYTES = 300 << 20
ANTIBODY = "Antibody Capture"
_DELIMITER_WORDS = {"\t": "tabs", ",": "commas", ";": "semicolons", " ": "spaces"}
_MAX_ANTIBODIES = 500
#: Names that only antibodies and hashtags have: a kind before or behind the name, or the oligonucleotide's sequence.
_ANTIBODY_NAME = re.compile(
    r"^(?:ADT|HTO|AB|CITE|CMO)[._-]|^(?:ADT|HTO|CMO)[._-]?\d+$|hashtag|totalseq|isotype|^anti[._ -](?:human|mouse)"
    r"|[._-](?:ADT|HTO|CMO|protein|antibody)\d*$|[-_][ACGT]{12,15}$",
    re.IGNORECASE,
)
_ANTIBODY_FILE = re.compile(
    r"(?:^|[._-])(?:adts?|htos?|hashtags?|hashing|antibod(?:y|ies)|protein|cite)(?:[._-]|$)", re.I
)


def axis_of(row_names: Sequence[pd.Series], column_names: pd.Series, files: LibraryFiles, where: str) -> bool:
    """Whether genes are the rows.

    Raises
    ------
    UserError
        The names of neither axis tell.
    """
    rows_are_genes = genes_are_rows(row_names, column_names, files.cells)
    if rows_are_genes is None:
        raise UserError(
            f"{where}: neither rows ({', '.join(row_names[0][:3])}, ...) nor columns "
            f"({', '.join(column_names[:3])}, ...) can be told to be genes or cells; name genes by symbol or Ensembl "
            "id, or give patterns of the cells' names in the sheet's column `barcodes`"
        )
    return rows_are_genes


def plan_of(head: TableHead, files: LibraryFiles, where: str) -> tuple[ColumnPlan, bool | None]:
    """Which columns are read, and which axis holds genes as far as the first rows tell."""
    hint = _axis_of_head(head, files)
    return plan_columns(head, hint, files.cells, where), hint


def _axis_of_head(head: TableHead, files: LibraryFiles) -> bool | None:
    columns = [pd.Series(head.column(number), dtype=object) for number in range(min(len(head.header), 8))]
    texts = [one for number, one in enumerate(columns) if number == 0 or names_genes(one) or looks_like_barcodes(one)]
    return genes_are_rows(texts, pd.Series(head.header[1:], dtype=object), files.cells)


def library_of(
    table: ParsedTable, head: TableHead, plan: ColumnPlan, matrix: SniffedFile, files: LibraryFiles, kind: str
) -> LibraryCounts:
    """Counts with features and barcodes of a parsed table, whichever axis they are on."""
    texts = [pd.Series(names, dtype=object) for names in table.texts]
    if not table.n_rows:
        raise UserError(f"{matrix.path}: has a header and no rows; the file may be cut short: fetch it again")
    columns = pd.Series([head.header[number] for number in plan.values], dtype=object)
    in_rows = axis_of(texts, columns, files, str(matrix.path))
    headers = [head.header[number] for number in plan.texts]
    decisions = [f"{kind}, {'genes x cells' if in_rows else 'cells x genes'}", *head.notes]
    dropped = dict(plan.dropped)
    if in_rows:
        names, unused = gene_names(texts, headers)
        keep = ~names.apply(lambda column: column.map(is_summary)).any(axis=1).to_numpy()
        about = names.iloc[:, -1].map(describes_cells).to_numpy() if names.shape[1] == 1 else np.zeros(len(names), bool)
        decisions += _rows_in_words(names.iloc[:, 0], ~keep, about & keep)
        keep &= ~about
        features = feature_columns(names.loc[keep].reset_index(drop=True))
        counts, barcodes = table.columns_as_cells(keep), pd.Index(columns)
    else:
        chosen, unused = cell_names(texts, headers, files.cells)
        counts, barcodes = table.rows_as_cells(), pd.Index(texts[chosen])
        features = feature_columns(pd.DataFrame({0: columns}))
    dropped |= {plan.texts[k]: why for k, why in unused.items()}
    features, note = with_types(features, barcodes, matrix.name)
    decisions += [*dropped_in_words(dropped, head.header), *note]
    if table.n_blank:
        decisions.append(f"skipped {table.n_blank:,} rows without any value")
    return LibraryCounts(counts, barcodes.rename(None), features, {matrix: "matrix"}, decisions)


def _rows_in_words(names: pd.Series, summaries: np.ndarray, about_cells: np.ndarray) -> list[str]:
    kinds = ((summaries, "summaries of the read counter"), (about_cells, "descriptions of cells"))
    return [
        f"dropped {int(rows.sum())} rows that are no genes but {what}: {', '.join(names[rows][:10])}"
        for rows, what in kinds
        if rows.any()
    ]


def with_types(features: pd.DataFrame, barcodes: pd.Index, file_name: str) -> tuple[pd.DataFrame, list[str]]:
    """Mark antibodies and hashtags among features that no column of types describes.

    A name that only antibodies have marks its feature. All are antibodies where the file says so, or where a short
    list names no gene at all while the cells are barcodes.
    """
    if (features["feature_type"] != "").any():
        return features, []
    names = features["gene_symbol"].where(features["gene_symbol"] != "", features["gene_id"])
    by_name = names.str.contains(_ANTIBODY_NAME).to_numpy(dtype=bool)
    short = len(names) <= _MAX_ANTIBODIES
    no_gene = short and not names_genes(names) and looks_like_barcodes(pd.Series(barcodes, dtype=object))
    by_file = short and _ANTIBODY_FILE.search(file_name) is not None
    if by_file or no_gene:
        why = "the file's name says so" if by_file else "none is a known gene"
        note = [f"took all {len(names):,} features for antibodies: {why}"]
        return features.assign(feature_type=ANTIBODY), note
    if not by_name.any():
        return features, []
    if by_name.mean() > 0.5 and not short:
        return features, []
    note = [f"took {int(by_name.sum()):,} features for antibodies by their names, such as {names[by_name].iloc[0]}"]
    return features.assign(feature_type=np.where(by_name, ANTIBODY, "Gene Expression")), note


def _without_rows(matrix: SniffedFile) -> LibraryCounts | None:
    """A table that is a header alone, of genes or of barcodes: a library without cells, or without genes."""
    header = read_lone_header(matrix.path)
    names = pd.Series(header or [], dtype=object)
    of_cells = looks_like_barcodes(names)
    if not of_cells and not names_genes(names):
        return None
    nothing = pd.Series([], dtype=object)
    features, barcodes = (nothing, names) if of_cells else (names, nothing)
    counts = sparse.csr_matrix((len(barcodes), len(features)), dtype=np.int32)
    said = f"a dense table that is a header of {len(names):,} {'cells' if of_cells else 'genes'} without rows"
    return LibraryCounts(
        counts, pd.Index(barcodes), feature_columns(pd.DataFrame({0: features})), {matrix: "matrix"}, [said]
    )


def _head_of(matrix: SniffedFile) -> TableHead:
    if matrix.damage:
        raise UserError(matrix.damage)
    head = read_head(matrix.path)
    if head is None:
        raise UserError(f"{matrix.path}: is no table with a header, names and numbers")
    if is_one_sample(head) and not is_matrix(head):
        raise UserError(
            f"{matrix.path}: holds one number a gene: a bulk sample, or one cell in a file of its own. That is no "
            "matrix of cells; join the cells' files into one table (genes x cells), or leave the sample out"
        )
    return head


def _parse_plan(head: TableHead, plan: ColumnPlan) -> ParsePlan:
    from immunomod.sample.readers.dense_parse import ParsePlan

    return ParsePlan(head.delimiter, head.first_line, head.header, plan.texts, plan.values)


def _kind_in_words(head: TableHead) -> str:
    return f"dense table split at {_DELIMITER_WORDS[head.delimiter]}"


def read_dense(matrix: SniffedFile, files: LibraryFiles) -> LibraryCounts:
    """Read a dense table; which axis holds genes is told by their names."""
    from immunomod.sample.readers.dense_parse import parse_table

    with reading(matrix.path):
        if (empty := _without_rows(matrix)) is not None:
            return empty
        head = _head_of(matrix)
        plan, _ = plan_of(head, files, str(matrix.path))
        table = parse_table(matrix.path, _parse_plan(head, plan))
    return library_of(table, head, plan, matrix, files, _kind_in_words(head))


def peek_dense(matrix: SniffedFile, files: LibraryFiles) -> LibraryHead:
    """What header and names tell; the names of the rows are read where the file is not too large for it."""
    from immunomod.sample.readers.dense_parse import names_of

    with reading(matrix.path):
        if (empty := _without_rows(matrix)) is not None:
            sizes = len(empty.barcodes), len(empty.features)
            return LibraryHead(*sizes, empty.features, empty.barcodes, empty.used, empty.decisions)
        head = _head_of(matrix)
        plan, _ = plan_of(head, files, str(matrix.path))
        whole = matrix.path.stat().st_size <= PEEK_BYTES
        texts = names_of(matrix.path, _parse_plan(head, plan)) if whole else [head.column(n) for n in plan.texts]
    return head_of_library([pd.Series(one, dtype=object) for one in texts], whole, head, plan, matrix, files)


def head_of_library(
    texts: Sequence[pd.Series],
    whole: bool,
    head: TableHead,
    plan: ColumnPlan,
    matrix: SniffedFile,
    files: LibraryFiles,
) -> LibraryHead:
    """The same as :func:`library_of` without counts; ``whole`` says whether ``texts`` cover all rows."""
    columns = pd.Series([head.header[number] for number in plan.values], dtype=object)
    in_rows = axis_of(texts, columns, files, str(matrix.path))
    headers = [head.header[number] for number in plan.texts]
    decisions = ["genes x cells" if in_rows else "cells x genes", *dropped_in_words(plan.dropped, head.header)]
    if in_rows:
        names, _ = gene_names(texts, headers)
        rows = names.iloc[:, 0]
        keep = ~rows.map(is_summary)
        features, note = with_types(
            feature_columns(names.loc[keep].reset_index(drop=True)), pd.Index(columns), matrix.name
        )
        n_features = int(keep.sum()) if whole else None
        return LibraryHead(
            len(columns), n_features, features if whole else None, pd.Index(columns), {matrix: "matrix"},
            [*decisions, *note],
        )  # fmt: skip
    chosen, _ = cell_names(texts, headers, files.cells)
    barcodes = pd.Index(texts[chosen])
    features, note = with_types(feature_columns(pd.DataFrame({0: columns})), barcodes, matrix.name)
    n_cells = len(barcodes) if whole else None
    return LibraryHead(n_cells, len(columns), features, barcodes, {matrix: "matrix"}, [*decisions, *note])


def _recognise(files: LibraryFiles) -> Sequence[SniffedFile]:
    """Tables of numbers among the library's own files, else among the shared ones.

    Where there is none, what might have been one is claimed, so that reading it says what is wrong.
    """
    for candidates in (files.own, files.shared):
        tables, faulty, lone = [], [], []
        for file in candidates:
            if file.kind is not Kind.TABLE or file.damage:
                continue
            try:
                with reading(file.path):
                    head = read_head(file.path)
                    if head is None and _without_rows(file) is not None:
                        lone.append(file)
            except UserError:
                faulty.append(file)
                continue
            if head is not None:
                tables.append((file, head))
        found = [file for file, head in tables if is_matrix(head)]
        if found := found or [file for file, head in tables if is_one_sample(head)] or faulty or lone:
            return found
    return []


DENSE = Layout(
    name="dense_table",
    citation="Edgar et al. 2002, Nucleic Acids Res. 30:207 (GEO; free-form supplementary tables)",
    needs="a header of cells (or genes), then names and counts; tab, comma, semicolon or spaces; annotation beside "
    "the counts is told and dropped",
    limits="one value per cell and gene, none missing; names of genes must be symbols or Ensembl ids, or those of "
    "cells barcodes",
    recognise=_recognise,
    run=read_dense,
    peek=peek_dense,
    last_resort=True,
)
