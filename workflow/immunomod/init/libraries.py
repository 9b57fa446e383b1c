"""Which files make a library, told by their names: triplets, filtered before raw, antibodies beside RNA.

The same rules serve a GEO sample's files, the members of an archive and the files of a folder.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from immunomod.acquire.archive import is_archive_name
from immunomod.acquire.select import COMPANIONS, Role, role_of
from immunomod.init.vocabulary import Modality, modality_of, without_modality

_SUFFIXES = re.compile(
    r"(\.(gz|bz2|xz|zip|tgz|tar|mtx|mat|tsv|txt|csv|tab|h5|h5ad|hdf5|loom|rds|rdata|rda|robj|xlsx?|dge))+$",
    re.IGNORECASE,
)
#: Words that every tool writes into names; what is left tells the libraries apart.
_FIXED = re.compile(
    r"(sample_)?(filtered|raw)_(feature|gene|peak)_bc_matri(x|ces)(_h5)?|(filtered|raw)_(gene_bc_)?matri(x|ces)(_h5)?"
    r"|(?<![a-z])(matrix|matrices|features|genes|barcodes|filtered|raw|unfiltered|counts?|umis?|expression|dge|mtx"
    r"|gene_names|cells)(?![a-z])",
    re.IGNORECASE,
)
_GENERIC_FOLDER = re.compile(
    r"outs|count|multi|per_sample_outs|(sample_)?(filtered|raw)_(feature|gene)_bc_matri(x|ces)(_mex|_h5)?"
    r"|(filtered|raw)_(gene_bc_)?matri(x|ces)|(solo)?gene(full)?|filtered|raw|matrix|counts?|hg19|hg38|GRCh3\d|mm10|mm9|GRCm3\d"
    r"|data|solo\.out",
    re.IGNORECASE,
)
#: What CellRanger writes beside its matrices.
_BY_PRODUCT = re.compile(
    r"(^|/)(analysis|SC_RNA_\w+_CS|spatial|crispr_analysis|antibody_analysis|vdj(_[bt])?|multiplexing_analysis)/"
    r"|molecule_info\.h5$|metrics_summary|(^|/)_\w+$|feature_reference|aggregation\.csv$|assignment_confidence_table"
    r"|cells_per_\w+\.(json|csv)|barcodes_compatible|clonotypes|contig|config\.csv$|protospacer_calls"
    r"|(^|/)filelist\.txt$",
    re.IGNORECASE,
)
_RAW = re.compile(r"(?<![a-z])(raw|unfiltered)(?![a-z])", re.IGNORECASE)
_FILTERED = re.compile(r"(?<![a-z])filtered(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class FileGroup:
    """A matrix with its companions.

    ``key`` is what its path says of the library; ``state`` is ``filtered``, ``raw`` or empty.
    """

    key: str
    matrix: str
    companions: tuple[str, ...] = ()
    triplet: bool = False
    state: str = ""
    modality: Modality = Modality.RNA

    @property
    def names(self) -> tuple[str, ...]:
        """All its files, the matrix first."""
        return (self.matrix, *self.companions)


@dataclass(frozen=True)
class LibraryGroup:
    """The files chosen for a library, and in words what was passed over."""

    key: str
    groups: tuple[FileGroup, ...]
    passed_over: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def names(self) -> tuple[str, ...]:
        """All its files."""
        return tuple(dict.fromkeys(name for group in self.groups for name in group.names))

    @property
    def modality(self) -> Modality:
        """RNA if one of its matrices holds RNA."""
        every = [group.modality for group in self.groups]
        return Modality.RNA if Modality.RNA in every else every[0]


def is_matrix_name(path: str) -> bool:
    """Whether a file of this name may hold a matrix of counts."""
    return role_of(path.rpartition("/")[2]) is Role.MATRIX and not _BY_PRODUCT.search(path)


def key_of(path: str) -> str:
    """What a path says of its library: folders and name without the words that every tool writes."""
    *folders, name = path.split("/")
    stem = _FIXED.sub("\0", _SUFFIXES.sub("", name))
    stem = re.sub(r"[\s_.-]*\0[\s_.\0-]*", "_", stem).strip("_ .-")
    kept = [folder for folder in folders if not _GENERIC_FOLDER.fullmatch(folder)]
    kept = [_SUFFIXES.sub("", folder) if is_archive_name(folder) else folder for folder in kept]
    return "/".join([*kept, stem] if stem else kept)


def group_files(names: Iterable[str], triplets: Collection[str] | None = None) -> list[LibraryGroup]:
    """Group paths into libraries.

    Parameters
    ----------
    names
        Paths with ``/``; those that cannot hold counts are passed over.
    triplets
        Which of them are MatrixMarket files, where contents are known; by default those named ``.mtx``.
    """
    every = list(names)
    known = {name for name in every if ".mtx" in name.lower()} if triplets is None else set(triplets)
    groups = [_group(name, every, name in known) for name in every if name in known or is_matrix_name(name)]
    by_library: dict[str, list[FileGroup]] = {}
    for group in groups:
        by_library.setdefault(_library_key(group), []).append(group)
    return [_choose(found) for found in by_library.values()]


def _library_key(group: FileGroup) -> str:
    folder, _, name = group.key.rpartition("/")
    return f"{folder}/{without_modality(name)}"


def _group(matrix: str, every: Sequence[str], triplet: bool) -> FileGroup:
    key = key_of(matrix)
    return FileGroup(
        key,
        matrix,
        tuple(_companions(matrix, key, every)) if triplet else (),
        triplet,
        _state(matrix),
        modality_of(matrix.rpartition("/")[2]),
    )


def _companions(matrix: str, key: str, every: Sequence[str]) -> Iterable[str]:
    """Of each role the table of the same folder and key, or the only one that could be meant there, or at all."""
    folder = matrix.rpartition("/")[0]
    for role in COMPANIONS:
        candidates = [name for name in every if role_of(name.rpartition("/")[2]) is role]
        beside = [name for name in candidates if name.rpartition("/")[0] == folder]
        same = [name for name in beside if key_of(name) == key and _state(name) == _state(matrix)]
        near = [name for name in beside if key.startswith(key_of(name) or "\0") and _state(name) == _state(matrix)]
        for found in (same, near, beside, candidates):
            if len(found) == 1:
                yield found[0]
                break
            if found:
                break


def _state(path: str) -> str:
    return "raw" if _RAW.search(path) else "filtered" if _FILTERED.search(path) else ""


def _choose(found: Sequence[FileGroup]) -> LibraryGroup:
    """Filtered rather than raw, and one of h5 and mtx."""
    kept = list(found)
    notes = []
    for modality in dict.fromkeys(group.modality for group in found):
        same = [group for group in kept if group.modality is modality]
        if any(group.state == "filtered" for group in same) and any(group.state == "raw" for group in same):
            kept = [group for group in kept if group.modality is not modality or group.state != "raw"]
            notes.append("filtered matrix taken, raw one left")
        same = [group for group in kept if group.modality is modality]
        h5 = [group for group in same if group.matrix.lower().endswith(".h5")]
        if len(h5) == 1 and any(group.triplet for group in same):
            kept = [group for group in kept if group.modality is not modality or not group.triplet]
            notes.append("h5 taken, mtx of the same cells left")
    names = {name for group in kept for name in group.names}
    passed = [name for group in found for name in group.names if name not in names]
    first = next((group for group in kept if group.modality is Modality.RNA), kept[0])
    rna = [group for group in kept if group.modality is Modality.RNA]
    if len(rna) > 1:
        notes.append(f"several matrices: {', '.join(group.matrix.rpartition('/')[2] for group in rna[:6])}")
    return LibraryGroup(first.key, tuple(kept), tuple(dict.fromkeys(passed)), tuple(notes))
