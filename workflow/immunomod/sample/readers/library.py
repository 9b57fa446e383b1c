"""What every layout's reader takes and gives: the files of one library, and its counts with features and barcodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import pandas as pd
from scipy import sparse

from immunomod.sample.readers.sniff import Kind, SniffedFile


@dataclass(frozen=True)
class LibraryFiles:
    """The files among which one library's counts lie.

    ``own`` belong to the library alone, ``shared`` to the whole data set (a feature table given once per series).
    ``patterns`` of file names, from the sheet's column ``files``, decide where several files would do. ``cells`` are
    patterns of cell names, from its column ``barcodes``: which cells of a combined matrix are the library's.
    """

    sample: str
    own: tuple[SniffedFile, ...]
    shared: tuple[SniffedFile, ...] = ()
    patterns: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()

    def is_named(self, file: SniffedFile) -> bool:
        """Whether one of the patterns fits the file's name, or the end of its path."""
        path = file.path.as_posix()
        return any(fnmatchcase(file.name, one) or fnmatchcase(path, f"*/{one.lstrip('/')}") for one in self.patterns)

    def of_kind(self, *kinds: Kind) -> list[SniffedFile]:
        """Files that hold one of ``kinds``: the library's own where there are any, else the shared ones."""
        own = [file for file in self.own if file.kind in kinds]
        return own or [file for file in self.shared if file.kind in kinds]

    def describe(self) -> str:
        """The files and their contents in words, for messages."""
        return "; ".join(f"{file.name} ({file.kind})" for file in (*self.own, *self.shared)) or "no file at all"


@dataclass
class LibraryCounts:
    """Counts of one library as a layout's reader finds them.

    Parameters
    ----------
    matrix
        cells x features, CSR, any numeric type; checked and made int32 by
        :func:`immunomod.sample.readers.counts.integer_counts`.
    barcodes
        One name per cell.
    features
        One row per feature; columns ``gene_id``, ``gene_symbol``, ``feature_type`` (str, empty where unknown), and
        ``genome`` (such as ``mm10``) where one matrix holds several.
    used
        What each file served as, in reading order.
    decisions
        Sentences on everything that was decided on the way.
    """

    matrix: sparse.csr_matrix
    barcodes: pd.Index
    features: pd.DataFrame
    used: dict[SniffedFile, str]
    decisions: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class LibraryHead:
    """What can be said of a library without reading its counts, in seconds at most.

    Parameters
    ----------
    n_cells, n_features
        Size of the matrix; None where only a whole reading tells.
    features
        As in :class:`LibraryCounts`; None where only a whole reading tells.
    barcodes
        Names of the cells, perhaps the first ones only; None where only a whole reading tells.
    used, decisions
        As in :class:`LibraryCounts`.
    """

    n_cells: int | None
    n_features: int | None
    features: pd.DataFrame | None
    barcodes: pd.Index | None
    used: dict[SniffedFile, str]
    decisions: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Layout:
    """One way in which a library's counts are laid out in files.

    ``recognise`` returns the files that hold a matrix of this layout (empty: not this layout); ``run`` reads the one
    that is chosen, with whatever companions it needs from the rest; ``peek`` says what its headers tell, and raises
    what ``run`` would raise on them. A layout of ``last_resort`` is taken only where no other is found.
    """

    name: str
    citation: str
    needs: str
    limits: str
    recognise: Callable[[LibraryFiles], Sequence[SniffedFile]]
    run: Callable[[SniffedFile, LibraryFiles], LibraryCounts]
    peek: Callable[[SniffedFile, LibraryFiles], LibraryHead]
    last_resort: bool = False
