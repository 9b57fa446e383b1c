"""RDS and RData files: matrices, Seurat and SingleCellExperiment objects, read without R.

The parser is imported when a file is read: it brings two seconds of imports that most runs do not need.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from immunomod.sample.readers.library import Layout, LibraryCounts, LibraryFiles, LibraryHead
from immunomod.sample.readers.places import all_counts, choose
from immunomod.sample.readers.sniff import Kind, SniffedFile

#: Files up to this size are read whole for a first look; a larger one tells nothing before it is.
_PEEKED_BYTES = 8 << 20


def read_rds(matrix: SniffedFile, _files: LibraryFiles) -> LibraryCounts:
    """Read the counts of an R object: a matrix, or the counts of a Seurat or SingleCellExperiment object."""
    from immunomod.sample.readers.r_libraries import library_of

    library = library_of(matrix)
    choice = choose(library.places, all_counts, str(matrix.path), f"save the raw counts: {library.recipe}")
    return LibraryCounts(
        matrix=choice.place.read(),
        barcodes=pd.Index(library.cells, dtype=object),
        features=choice.place.features,
        used={matrix: "matrix"},
        decisions=[*library.decisions, *choice.decisions],
    )


def peek_rds(matrix: SniffedFile, files: LibraryFiles) -> LibraryHead:
    """Features and cells of a small R file; of a large one, nothing is known before it is read."""
    if matrix.path.stat().st_size > _PEEKED_BYTES:
        note = "an R object is known only once it is read whole"
        return LibraryHead(None, None, None, None, used={matrix: "matrix"}, decisions=[note])
    library = read_rds(matrix, files)
    n_cells, n_features = library.matrix.shape
    return LibraryHead(n_cells, n_features, library.features, library.barcodes, library.used, library.decisions)


def _recognise(files: LibraryFiles) -> Sequence[SniffedFile]:
    return files.of_kind(Kind.R_OBJECT)


RDS = Layout(
    name="r_object",
    citation="R Core Team, R Internals (serialization formats 2 and 3); Hao et al. 2024, Nat. Biotechnol. 42:293 "
    "(Seurat); Amezquita et al. 2020, Nat. Methods 17:137 (SingleCellExperiment)",
    needs="one matrix (package Matrix, or plain), data frame, Seurat (2 to 5) or SingleCellExperiment object",
    limits="one library per file; of a Seurat object the assay RNA; values that lie in other files are refused",
    recognise=_recognise,
    run=read_rds,
    peek=peek_rds,
)
