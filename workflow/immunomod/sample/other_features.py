"""Features that are no genes (antibodies, hashtags, guides), kept apart from the counts but with the same cells.

They may stand in the matrix of the genes, or in one of their own, often under another accession and with barcodes
written another way (``AAACCTGA`` for ``AAACCTGA-1``). Such a matrix is joined by barcode.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import sparse

from immunomod.errors import UserError
from immunomod.sample.readers.features import (
    ANTIBODIES,
    GENE_EXPRESSION,
    HASHTAG_NAME,
    HASHTAGS,
    SUMMARY_NAME,
    OtherFeatures,
)
from immunomod.sample.readers.library import LibraryCounts

_BASES = re.compile(r"[ACGTN]{8,}")


def kind_of_feature(name: str, feature_type: str) -> str:
    """Kind of a feature that is no gene, in snake case; ``summary`` for a row that a counting program added."""
    if SUMMARY_NAME.fullmatch(name):
        return "summary"
    if HASHTAG_NAME.fullmatch(name):
        return HASHTAGS
    if feature_type in ("", GENE_EXPRESSION):
        return ANTIBODIES
    return re.sub(r"[^a-z0-9]+", "_", feature_type.lower()).strip("_")


def other_features(library: LibraryCounts) -> dict[str, OtherFeatures]:
    """Features by kind of a matrix that holds no genes (cells x features, canonical int32 CSR).

    The kind is the type that the file gives; features without one are hashtags or, by what is left, antibodies.
    """
    names = library.features["gene_symbol"].where(library.features["gene_symbol"] != "", library.features["gene_id"])
    kinds = np.array(
        [kind_of_feature(name, kind) for name, kind in zip(names, library.features["feature_type"], strict=True)]
    )
    return {
        kind: OtherFeatures(list(names[kinds == kind]), sparse.csr_matrix(library.matrix[:, kinds == kind]))
        for kind in sorted(set(kinds) - {"summary"})
    }


def as_frames(other: Mapping[str, OtherFeatures], cells: pd.Index) -> dict[str, pd.DataFrame]:
    """A data frame per kind, cells x features (int32): what goes into ``obsm``."""
    return {
        kind: pd.DataFrame(features.matrix.toarray().astype(np.int32), index=cells, columns=features.names)
        for kind, features in other.items()
    }


def join_by_barcode(
    other: Mapping[str, OtherFeatures], names: pd.Index, barcodes: pd.Index, where: str
) -> tuple[dict[str, pd.DataFrame], str]:
    """Features of a matrix of their own, in the order of the library's cells.

    Parameters
    ----------
    other
        By kind; rows are the cells ``names``.
    names
        Cells of that matrix.
    barcodes
        Cells of the library. Names that differ in what stands around the bases are matched by the bases, where these
        are unique on both sides.
    where
        The matrix, for messages.

    Returns
    -------
    frames
        By kind, library's cells x features: int32, or float32 with NaN for cells that the matrix does not hold.
    decision
        How many cells were found, for the ledger.

    Raises
    ------
    UserError
        No cell of the library is in the matrix.
    """
    rows = names.get_indexer(barcodes) if names.is_unique else np.full(len(barcodes), -1)
    how = "by name"
    if (rows < 0).all():
        rows, how = _match_bases(names, barcodes), "by the bases of their barcodes"
    found = rows >= 0
    if not found.any():
        raise UserError(
            f"{where}: none of its {len(names):,} cells (first: {names[0] if len(names) else 'none'}) is a cell of the "
            f"library (first: {barcodes[0]}); it belongs to another library: name the right files in samples.tsv, "
            "column files or source"
        )
    frames = {}
    for kind, features in other.items():
        values = features.matrix.toarray().astype(np.int32)[np.where(found, rows, 0)]
        if not found.all():
            values = values.astype(np.float32)
            values[~found] = np.nan
        frames[kind] = pd.DataFrame(values, index=barcodes, columns=features.names)
    return frames, f"{found.sum():,} of {len(barcodes):,} cells found in it, {how}"


def _match_bases(names: pd.Index, barcodes: pd.Index) -> np.ndarray:
    """Row of ``names`` with the same bases, -1 where there is none or where bases stand more than once."""
    keys = [
        pd.Series(list(index), dtype=object).astype(str).str.extract(f"({_BASES.pattern})", expand=False)
        for index in (names, barcodes)
    ]
    unique = keys[0].dropna()
    unique = unique[~unique.duplicated(keep=False)]
    positions = pd.Series(unique.index, index=unique.to_numpy())
    rows = keys[1].map(positions).fillna(-1).to_numpy(dtype=np.int64)
    repeated = keys[1].duplicated(keep=False).to_numpy()
    return np.where(repeated, -1, rows)
