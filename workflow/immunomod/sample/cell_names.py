"""Which cells of a matrix are one library's, told by their names.

Authors often merge libraries into one matrix and leave the library in the barcode alone: ``D1_AAACCTGA``,
``AAACCTGA-2``. Read as one library such a matrix would mix donors in silence, so it is an error until the sheet says
which cells are meant.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from immunomod.errors import UserError

#: Runs of bases this long are the barcode itself; what is left of the name is common to a library.
_BASES = re.compile(r"[ACGTN]{6,}")
_SHOWN_LIBRARIES = 12
ALL = "*"


def libraries_by_name(barcodes: pd.Index) -> pd.Series:
    """Libraries that the names of the cells tell apart, as patterns, with their numbers of cells.

    A name's pattern is the name with every run of bases replaced by ``*``: ``D1_AAACCTGA-1`` gives ``D1_*-1``. Names
    without bases (wells, plates), and parts that differ from cell to cell, tell nothing; one row is then returned.
    """
    names = pd.Series(barcodes, dtype=object).astype(str)
    patterns = names.str.replace(_BASES, ALL, regex=True)
    has_bases = patterns != names
    counted = patterns[has_bases].value_counts()
    if not len(names) or has_bases.mean() < 0.5 or has_bases.sum() < 2 * len(counted):
        return pd.Series([len(names)], index=[ALL])
    if not has_bases.all():
        counted["(others)"] = int((~has_bases).sum())
    return counted.sort_index()


def select_cells(barcodes: pd.Index, patterns: Sequence[str], where: str) -> tuple[NDArray[np.bool_], str]:
    """The cells that are the library's.

    Parameters
    ----------
    barcodes
        Names of all cells of the matrix.
    patterns
        From the sheet's column ``barcodes``; empty where the matrix is thought to hold one library.
    where
        The matrix, for messages.

    Returns
    -------
    mask
        Over ``barcodes``.
    decision
        A sentence for the ledger; empty where nothing was decided.

    Raises
    ------
    UserError
        The names tell several libraries apart and no pattern says which is meant, or a pattern fits no cell.
    """
    if not patterns:
        libraries = libraries_by_name(barcodes)
        if len(libraries) > 1:
            found = [f"{pattern} ({count:,} cells)" for pattern, count in libraries.items()]
            more = f", and {len(found) - _SHOWN_LIBRARIES} more" if len(found) > _SHOWN_LIBRARIES else ""
            raise UserError(
                f"{where}: the names of the cells tell {len(found)} libraries apart: "
                f"{', '.join(found[:_SHOWN_LIBRARIES])}{more}. Give each a row with its pattern in samples.tsv, column "
                f"barcodes; {ALL} takes all of them for one library"
            )
        return np.ones(len(barcodes), dtype=bool), ""
    mask = np.zeros(len(barcodes), dtype=bool)
    for pattern in patterns:
        fits = np.array([fnmatchcase(name, pattern) for name in barcodes], dtype=bool)
        if not fits.any():
            known = libraries_by_name(barcodes)
            hint = (
                f"; the names look like {', '.join(map(str, known.index[:_SHOWN_LIBRARIES]))}" if len(known) > 1 else ""
            )
            raise UserError(
                f"{where}: samples.tsv, column barcodes: {pattern!r} fits none of {len(barcodes):,} cells (first: "
                f"{barcodes[0] if len(barcodes) else 'none'}){hint}"
            )
        mask |= fits
    return mask, f"{mask.sum():,} of {len(mask):,} cells taken by the names {', '.join(patterns)}"
