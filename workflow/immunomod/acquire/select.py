"""Which of the files that a source offers are one sample's counts: by their names, and by the sheet's patterns.

Nothing is opened here. What a name leaves open is not guessed: :class:`ChoiceError` lists the candidates, and the
sheet's column ``files`` decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from fnmatch import fnmatchcase

from immunomod.acquire.archive import is_archive_name
from immunomod.acquire.geo import RemoteFile

TABLE = re.compile(r"\.(tsv|txt|csv|tab)$")
COUNTS_WORD = re.compile(r"matrix|mtx|counts?(?![a-z])|umi|express|dge|tpm|rpkm|fpkm|cpm")
FEATURES_WORD = re.compile(r"(^|[._-])(genes?|features?|gene_?(names?|ids?|symbols?|list|info))([._-]|$)")
ANNOTATION_WORD = re.compile(r"meta_?data|annot|cluster|t-?sne|umap|cell_?types?|clinical|readme|identit(y|ies)")
NEVER_COUNTS = (
    *(".bam", ".bai", ".cram", ".sam", ".fastq", ".fq", ".fa", ".fasta", ".gtf", ".gff", ".bw", ".bigwig", ".bed"),
    *(".bedgraph", ".wig", ".tbi", ".vcf", ".cel", ".idat", ".cloupe", ".html", ".htm", ".pdf", ".doc", ".docx"),
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".svg", ".json", ".yaml", ".yml", ".log", ".md", ".r", ".py", ".sh"),
)
SHOWN_CANDIDATES = 12


class Role(StrEnum):
    """What a file is for, by its name."""

    MATRIX = "matrix"
    FEATURES = "features"
    BARCODES = "barcodes"
    ANNOTATION = "annotation"
    ARCHIVE = "archive"
    OTHER = "other"


COMPANIONS = (Role.FEATURES, Role.BARCODES)


class ChoiceError(Exception):
    """The names do not settle which files belong to the sample; the text lists the candidates."""


def role_of(name: str) -> Role:
    """What a file is for, by its base name; a count matrix unless the name says otherwise."""
    if is_archive_name(name):
        return Role.ARCHIVE
    plain = re.sub(r"\.(gz|bz2|xz)$", "", name.lower())
    if plain.endswith(NEVER_COUNTS) or re.search(r"fragments\.tsv$", plain):
        return Role.OTHER
    if TABLE.search(plain):
        if "barcode" in plain:
            return Role.BARCODES
        if COUNTS_WORD.search(plain):
            return Role.MATRIX
        if ANNOTATION_WORD.search(plain):
            return Role.ANNOTATION
        if FEATURES_WORD.search(plain):
            return Role.FEATURES
    return Role.MATRIX


def split_patterns(files: str) -> tuple[str, ...]:
    """The glob patterns of the sheet's column ``files``, which may hold several separated by commas."""
    return tuple(pattern.strip() for pattern in files.split(",") if pattern.strip())


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether a path or its base name fits one of the patterns (``*``, ``?``, ``[...]``; case matters)."""
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in (path, path.rpartition("/")[2]))


def list_names(names: Iterable[str]) -> str:
    """Names for a message, cut where they are too many."""
    every = sorted(names)
    more = f" and {len(every) - SHOWN_CANDIDATES} more" if len(every) > SHOWN_CANDIDATES else ""
    return ", ".join(every[:SHOWN_CANDIDATES]) + more if every else "no files"


def counts_names(names: Iterable[str]) -> list[str]:
    """The names that may hold counts or their row and column names."""
    kept = [(name, role_of(name.rpartition("/")[2])) for name in names]
    counts = [name for name, role in kept if role in (Role.MATRIX, Role.ARCHIVE, *COMPANIONS)]
    if any(role in (Role.MATRIX, Role.ARCHIVE) for _, role in kept):
        return counts
    return [name for name, role in kept if role is not Role.OTHER]


def _counts(files: Iterable[RemoteFile]) -> list[RemoteFile]:
    files = list(files)
    kept = set(counts_names(file.name for file in files))
    return [file for file in files if file.name in kept]


def _is_raw(file: RemoteFile) -> bool:
    return file.name.endswith("_RAW.tar")


def _has_matrix(files: Iterable[RemoteFile]) -> bool:
    return any(role_of(file.name) in (Role.MATRIX, Role.ARCHIVE) for file in files)


def _matrices(files: Iterable[RemoteFile]) -> list[RemoteFile]:
    return [file for file in files if role_of(file.name) is Role.MATRIX]


def companions(chosen: Sequence[RemoteFile], offered: Sequence[RemoteFile]) -> list[RemoteFile]:
    """The features and barcodes tables that ``chosen`` lacks and ``offered`` (series level) has one each of.

    Raises
    ------
    ChoiceError
        More than one table could be meant.
    """
    roles = [role_of(file.name) for file in chosen]
    triplet = Role.BARCODES in roles or any(".mtx" in file.name.lower() for file in chosen)
    if not triplet or Role.ARCHIVE in roles:
        return []
    found = []
    for role in COMPANIONS:
        candidates = [file for file in offered if role_of(file.name) is role]
        if role in roles or not candidates:
            continue
        if len(candidates) > 1:
            raise ChoiceError(
                f"several files could be its {role} table: {list_names(file.name for file in candidates)}. "
                "Name the right one in column files"
            )
        found.append(candidates[0])
    return found


def choose_for_sample(
    own: Sequence[RemoteFile], series: Sequence[RemoteFile], patterns: Sequence[str]
) -> list[RemoteFile]:
    """Files of a sample named by its own accession: its own, and from series level what they lack.

    ``patterns`` choose among both; where they name nothing but features or barcodes tables, the sample's own files
    come with them. A sample without files of its own falls back to the series.

    Raises
    ------
    ChoiceError
        The patterns fit nothing, or the names leave the choice open.
    """
    if not own:
        return choose_for_series(series, [], patterns, ())
    chosen = _counts(own)
    if patterns:
        offered = [*own, *(file for file in series if not _is_raw(file))]
        chosen = [file for file in offered if matches(file.name, patterns)]
        if not chosen:  # it may fit members of the sample's archives
            chosen = [file for file in own if is_archive_name(file.name)]
        elif not _has_matrix(chosen):
            names = {file.name for file in chosen}
            chosen += [file for file in _counts(own) if file.name not in names]
        if not chosen:
            raise ChoiceError(
                f"no file fits {', '.join(patterns)}; there are {list_names(file.name for file in offered)}"
            )
    return [*chosen, *companions(chosen, series)]


def choose_for_series(
    own: Sequence[RemoteFile], members: Sequence[RemoteFile], patterns: Sequence[str], names: Sequence[str]
) -> list[RemoteFile]:
    """Files of a sample whose source is a whole series: what ``patterns`` choose, or the only matrix there is.

    Parameters
    ----------
    own, members
        The series' files at series level and those of its samples.
    patterns
        Of the sheet's column ``files``.
    names
        Accessions by which the row's sample name is known, tried where there are no patterns.

    Raises
    ------
    ChoiceError
        The patterns fit nothing or files of several samples, or without patterns there are several matrices.
    """
    if patterns:
        return _matching(own, members, patterns)
    groups = _groups(own, members)
    chosen = next((groups[name] for name in names if name in groups), None)
    if chosen is None:
        candidates = [file for group in groups.values() for file in _matrices(group) or group]
        if len(groups) != 1 or len(candidates) != 1:
            raise ChoiceError(
                f"the series holds {list_names(file.name for file in candidates)}. "
                "Say in column files which are this sample's, by a pattern such as GSM123_*"
            )
        chosen = next(iter(groups.values()))
    return [*chosen, *companions(chosen, own)]


def _groups(own: Sequence[RemoteFile], members: Sequence[RemoteFile]) -> dict[str, list[RemoteFile]]:
    """Files that may hold counts by the accession they belong to; RAW.tar counts only if its members are unknown."""
    groups: dict[str, list[RemoteFile]] = {}
    for file in _counts([*(file for file in own if not (members and _is_raw(file))), *members]):
        groups.setdefault(file.owner, []).append(file)
    return {owner: files for owner, files in groups.items() if _has_matrix(files)}


def _matching(own: Sequence[RemoteFile], members: Sequence[RemoteFile], patterns: Sequence[str]) -> list[RemoteFile]:
    offered = [*(file for file in own if not _is_raw(file)), *members]
    chosen = [file for file in offered if matches(file.name, patterns)]
    if not chosen:
        archives = [file for file in own if is_archive_name(file.name) and not (members and _is_raw(file))]
        if not archives:
            raise ChoiceError(
                f"no file fits {', '.join(patterns)}; there are {list_names(file.name for file in offered)}"
            )
        return archives
    for pattern in patterns:
        fitting = [file for file in _matrices(chosen) if matches(file.name, [pattern])]
        if len({file.owner for file in fitting}) > 1:
            raise ChoiceError(
                f"{pattern} fits matrices of several samples: {list_names(file.name for file in fitting)}. "
                "Write a pattern that fits one (or, if they are one library, a pattern for each, separated by commas)"
            )
    for owner in dict.fromkeys(file.owner for file in chosen):
        beside = [file for file in members if file.owner == owner and file not in chosen]
        chosen += companions([file for file in chosen if file.owner == owner], beside)
    return [*chosen, *companions(chosen, [file for file in own if file not in chosen])]
