"""Which of a library's files holds its counts, and which hold other features of the same cells.

A library may come with several matrices: gene expression beside a table of hashtags or antibodies, often under an
accession of its own. The one with genes is the library's; the others are joined to it by barcode. Two with genes are
an error that lists them, never a guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from immunomod.errors import UserError
from immunomod.sample.readers import REGISTRY, Layout
from immunomod.sample.readers.features import GENE_EXPRESSION, looks_like_genes
from immunomod.sample.readers.library import LibraryFiles, LibraryHead
from immunomod.sample.readers.sniff import Kind, SniffedFile


@dataclass(frozen=True)
class Matrix:
    """A file that holds a matrix, and the layout that reads it."""

    layout: Layout
    file: SniffedFile

    def peek(self, files: LibraryFiles) -> LibraryHead:
        """What its headers tell."""
        return self.layout.peek(self.file, files)


@dataclass(frozen=True)
class Choice:
    """The matrix of a library's genes, and matrices of other features (antibodies, hashtags) of the same cells."""

    genes: Matrix
    others: tuple[Matrix, ...] = ()


def choose_matrices(files: LibraryFiles) -> Choice:
    """The matrices of one library among its files; shared ones count only where it has none of its own.

    Raises
    ------
    UserError
        There is none, or several hold genes and the patterns of the sheet's column ``files`` do not settle which.
    """
    for candidates in (replace(files, shared=()), replace(files, own=())):
        every = [Matrix(layout, file) for layout in REGISTRY.values() for file in layout.recognise(candidates)]
        found = [one for one in every if not one.layout.last_resort] or every
        if len(found) > 1:
            found = [one for one in found if files.is_named(one.file)] or found
        if len(found) == 1:
            beside = [one for one in every if one not in found and one.layout.last_resort]
            return Choice(found[0], tuple(one for one in beside if _holds_other_features(one, files)))
        if found:
            return _split_by_content(found, files)
        _refuse_damaged(candidates.own)
    raise UserError(
        f"sample {files.sample}: no matrix of counts among its files: {files.describe()}. Readable layouts: "
        f"{', '.join(REGISTRY)}"
    )


def _split_by_content(found: Sequence[Matrix], files: LibraryFiles) -> Choice:
    """The one matrix with genes among several; the rest must hold features of other kinds."""
    with_genes = [one for one in found if _holds_genes(one.peek(files))]
    if len(with_genes) == 1:
        return Choice(with_genes[0], tuple(one for one in found if one is not with_genes[0]))
    rivals = with_genes or found
    raise UserError(
        f"sample {files.sample}: {len(rivals)} matrices {'with genes ' if with_genes else ''}among its files: "
        f"{', '.join(one.file.name for one in rivals)}; say in samples.tsv, column files, which is to be read (a "
        "pattern of file names)"
    )


def _holds_genes(head: LibraryHead) -> bool:
    """Whether features are genes; a matrix whose features only a whole reading tells is taken for one."""
    if head.features is None:
        return True
    genes = head.features[head.features["feature_type"].isin(["", GENE_EXPRESSION])]
    return any(looks_like_genes(genes[column]) for column in ("gene_symbol", "gene_id"))


def _holds_other_features(matrix: Matrix, files: LibraryFiles) -> bool:
    """Whether a table beside the library's matrix holds antibodies or hashtags; any other table is left alone."""
    try:
        head = matrix.peek(files)
    except UserError:
        return False
    if head.features is None or head.features.empty:
        return False
    return not head.features["feature_type"].isin(["", GENE_EXPRESSION]).any()


def _refuse_damaged(files: Sequence[SniffedFile]) -> None:
    for file in files:
        if file.damage:
            raise UserError(file.damage)
        if file.kind is Kind.HTML:
            raise UserError(
                f"{file.path}: is a web page, not data (the server answered with a message); fetch it again"
            )
