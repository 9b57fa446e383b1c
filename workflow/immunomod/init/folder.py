"""A folder of matrices as a proposed sheet: its files grouped into libraries by content and name."""

from __future__ import annotations

import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

import pandas as pd

from immunomod.acquire.archive import is_archive_name, member_path
from immunomod.acquire.download import Client
from immunomod.acquire.geo import GeoSite, is_accession
from immunomod.acquire.plan import COUNTS, SheetRow, pick_row
from immunomod.acquire.select import COMPANIONS, Role, list_names, role_of
from immunomod.errors import UserError
from immunomod.init.cells import CellsTable, read_barcodes, read_cells_table
from immunomod.init.guess import guess_rows
from immunomod.init.lanes import assign_cells_tables
from immunomod.init.libraries import FileGroup, LibraryGroup, group_files, is_matrix_name, key_of
from immunomod.init.rows import Described, Proposal, Row, as_pattern, name_rows
from immunomod.init.text import as_name, clean, has_invisible
from immunomod.init.vocabulary import Modality
from immunomod.sample.readers.library import LibraryFiles
from immunomod.sample.readers.sniff import Kind, SniffedFile, sniff

MOST_FILES = 100_000
MOST_MEMBERS = 20_000
MOST_LIBRARIES_PEEKED = 4
MOST_GENES_READ = 5_000
LARGEST_TABLE_PEEKED = 64 << 20
UNFILTERED_CELLS = 200_000


@dataclass(frozen=True)
class Contents:
    """What lies below a folder: paths relative to it, what matrices hold, and which tables may be per-cell ones."""

    folder: Path
    names: tuple[str, ...]
    matrices: dict[str, SniffedFile]
    tables: tuple[str, ...]

    @property
    def archives(self) -> list[str]:
        """Tars and zips."""
        return [name for name in self.names if is_archive_name(name)]


def propose_folder(data: Path, out: Path) -> Proposal:
    """Propose a sheet, to be written into ``out``, for the matrices below ``data``.

    Raises
    ------
    UserError
        No file could hold counts.
    """
    contents = read_contents(data)
    name = as_name(data.resolve().name) or "study"
    proposal = Proposal(name, clean(data.resolve().name.replace("_", " ")), [])
    groups = _group(contents)
    places = [(group, "") for group in groups]
    for archive in contents.archives:
        try:
            places += [(group, archive) for group in _group_archive(data / archive)]
        except UserError as error:
            proposal.remarks.append(f"left out: {clean(str(error), 300)}")
    if not places:
        raise UserError(
            f"{data} holds no file that could be a matrix of counts; there are {list_names(contents.names)}. "
            "Name the folder that holds them"
        )
    proposal.rows = [_row(group, archive, data, out, _dataset(name)) for group, archive in places]
    name_rows(proposal.rows)
    _guess_organism(proposal, [group for group, archive in places if not archive], contents)
    _use_tables(proposal, places, contents, out, _dataset(name))
    proposal.remarks += guess_rows(proposal.active)
    return proposal


def read_contents(data: Path) -> Contents:
    """The files below a folder, hidden ones left out, and what those that may be matrices hold."""
    paths = (path for path in data.rglob("*") if path.is_file())
    names = [path.relative_to(data).as_posix() for path in islice(paths, MOST_FILES + 1)]
    if len(names) > MOST_FILES:
        raise UserError(f"{data} holds more than {MOST_FILES} files. Name the folder that holds the matrices")
    names = sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))
    matrices, tables = {}, []
    for name in names:
        role = role_of(name.rpartition("/")[2])
        if role is Role.MATRIX and is_matrix_name(name):
            file = _sniffed(data / name)
            if file and _is_matrix(file):
                matrices[name] = file
            elif file and file.kind is Kind.TABLE:
                tables.append(name)
        elif role is Role.ANNOTATION:
            tables.append(name)
    return Contents(data, tuple(names), matrices, tuple(tables))


def _sniffed(path: Path) -> SniffedFile | None:
    try:
        return sniff(path)
    except (UserError, OSError):
        return None


def _is_matrix(file: SniffedFile) -> bool:
    """Whether one of the readers knows it."""
    from immunomod.sample.readers import REGISTRY

    try:
        return any(layout.recognise(LibraryFiles("", (file,))) for layout in REGISTRY.values())
    except UserError:
        return False


def _group(contents: Contents) -> list[LibraryGroup]:
    companions = [name for name in contents.names if role_of(name.rpartition("/")[2]) in COMPANIONS]
    triplets = [name for name, file in contents.matrices.items() if file.kind is Kind.MATRIX_MARKET]
    return group_files([*contents.matrices, *companions], triplets)


def _group_archive(archive: Path) -> list[LibraryGroup]:
    """Libraries among an archive's members; an archive inside it is taken for one library."""
    members = _members(archive)
    nested = [name for name in members if is_archive_name(name)]
    groups = group_files(name for name in members if name not in nested)
    return groups + [LibraryGroup(key_of(name), (FileGroup(key_of(name), f"{name}/*"),)) for name in nested]


def _members(archive: Path) -> list[str]:
    """Checked names of an archive's members; nothing is unpacked."""
    try:
        if zipfile.is_zipfile(archive) and archive.name.lower().endswith(".zip"):
            with zipfile.ZipFile(archive) as bundle:
                entries: Iterable[str] = [entry.filename for entry in bundle.infolist() if not entry.is_dir()]
                return _checked(entries, archive)
        with tarfile.open(archive, mode="r|*") as tar:
            return _checked((entry.name for entry in tar if entry.isreg()), archive)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, OSError, NotImplementedError) as error:
        raise UserError(f"{archive} is damaged or no archive ({error})") from None


def _checked(names: Iterable[str], archive: Path) -> list[str]:
    found: list[PurePosixPath | None] = [member_path(name, archive.name) for name in islice(names, MOST_MEMBERS)]
    return [path.as_posix() for path in found if path is not None]


# --- rows ------------------------------------------------------------------------------------------------------------


def _dataset(name: str) -> str:
    """The folder's name, unless it would be taken for an accession."""
    return f"data_{name}" if is_accession(name) else name


def _row(group: LibraryGroup, archive: str, data: Path, out: Path, dataset: str) -> Row:
    title = " ".join(filter(None, [group.key.replace("/", " ")])) or archive or data.resolve().name
    row = Row(Described(f"{archive}#{group.key}" if archive else group.key or data.resolve().name, title), dataset)
    row.guess("dataset", dataset, "folder")
    for note in group.notes:
        row.note(note)
    if group.modality is not Modality.RNA:
        row.set_aside = f"{group.modality}, not single-cell RNA"
    if any(has_invisible(name) for name in (archive, *group.names)):
        row.set_aside = "a file's name holds control characters: rename it"
        return row
    if archive:
        row.state("source", relative(data / archive, out))
        row.state("files", ",".join(_member_pattern(name) for name in group.names))
    else:
        _place(row, group, data, out)
    return row


def _member_pattern(name: str) -> str:
    return f"{as_pattern(name[:-2])}/*" if name.endswith("/*") else as_pattern(name)


def relative(path: Path, folder: Path) -> str:
    """``path`` from ``folder``; it begins with a dot, so that nothing takes it for an accession or a formula."""
    text = Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    return text if text.startswith(".") else f"./{text}"


def _place(row: Row, group: LibraryGroup, data: Path, out: Path) -> None:
    """Columns ``source`` and ``files``: the shortest way to name exactly the library's files."""
    wanted = {(data / name).resolve() for name in group.names}
    homes = {path.parent for path in wanted}
    home = Path(os.path.commonpath(homes))
    exact = ",".join(as_pattern(path.relative_to(home).as_posix()) for path in sorted(wanted))
    matrix = (data / group.groups[0].matrix).resolve()
    ways = [(matrix, ""), (home, ""), (home, exact)] if len(wanted) == 1 else [(home, ""), (matrix, ""), (home, exact)]
    for place, files in ways:
        if _picked(place, files) == wanted:
            row.state("source", relative(place, out))
            if files:
                row.state("files", files)
            return
    row.state("source", relative(matrix, out))
    row.note("its companions could not be named: put the library's files into a folder of their own")


def _picked(place: Path, files: str) -> set[Path]:
    """The files that a row with this source and these patterns means."""
    site = GeoSite("file:///", Client(), Path())
    text = place.as_posix()
    try:
        picks = pick_row(SheetRow("", 0, "", text, files), "", site, Path("/"))
    except UserError:
        return set()
    return {pick.source.resolve() for pick in picks if pick.role == COUNTS and isinstance(pick.source, Path)}


# --- contents --------------------------------------------------------------------------------------------------------


def _guess_organism(proposal: Proposal, groups: Sequence[LibraryGroup], contents: Contents) -> None:
    """Column ``organism`` from the genes of the first libraries, where they agree; what cannot be read is noted."""
    found: dict[str, str] = {}
    seen = [(row, group) for row, group in zip(proposal.rows, groups, strict=False) if _is_quick(group, contents)]
    for row, group in seen[:MOST_LIBRARIES_PEEKED]:
        head = _peek(group, contents)
        if isinstance(head, str):
            row.note(f"it could not be looked into: {clean(head, 300)}")
            continue
        features, n_cells = head
        if n_cells is not None and n_cells > UNFILTERED_CELLS:
            row.note(f"{n_cells:,} barcodes: most are empty droplets")
        if features is not None and (organism := organism_of(features)):
            found.setdefault(organism, group.groups[0].matrix)
    if len(found) == 1:
        ((organism, name),) = found.items()
        for row in proposal.rows:
            row.guess("organism", organism, f"gene names of {name}")
    elif found:
        proposal.remarks.append("libraries of human and of mouse: give each organism a data set of its own")


def _is_quick(group: LibraryGroup, contents: Contents) -> bool:
    """Whether its headers are had in a moment: the gene names of a text table stand all through it."""
    matrices = [contents.matrices[one.matrix] for one in group.groups]
    tables = [file.path for file in matrices if file.kind is Kind.TABLE]
    return sum(path.stat().st_size for path in tables) <= LARGEST_TABLE_PEEKED


def _peek(group: LibraryGroup, contents: Contents) -> tuple[pd.DataFrame | None, int | None] | str:
    """Features and number of cells, or why they cannot be had."""
    from immunomod.sample.choose import choose_matrices

    try:
        files = tuple(sniff(contents.folder / name) for name in group.names)
        head = choose_matrices(LibraryFiles(group.key, files)).genes.peek(LibraryFiles(group.key, files))
    except UserError as error:
        return str(error)
    return head.features, head.n_cells


def organism_of(features: pd.DataFrame) -> str:
    """``human`` or ``mouse`` by Ensembl ids, or else by the case of symbols; empty if neither tells."""
    ids = features["gene_id"].head(MOST_GENES_READ).astype(str)
    symbols = features["gene_symbol"].head(MOST_GENES_READ).astype(str)
    names = pd.concat([ids, symbols])
    mouse, human = names.str.contains("ENSMUSG").mean(), names.str.contains(r"ENSG\d").mean()
    if max(mouse, human) > 0.2:
        return "" if min(mouse, human) > 0.05 else "mouse" if mouse > human else "human"
    words = names[names.str.fullmatch(r"[A-Za-z][A-Za-z0-9.-]{2,14}")]
    if len(words) < 20:
        return ""
    upper = words.str.fullmatch(r"[A-Z0-9.-]+").mean()
    titled = words.str.fullmatch(r"[A-Z][a-z0-9.-]+").mean()
    return "human" if upper > 0.8 else "mouse" if titled > 0.6 else ""


def _use_tables(
    proposal: Proposal, places: Sequence[tuple[LibraryGroup, str]], contents: Contents, out: Path, dataset: str
) -> None:
    """Per-cell tables among the files."""
    tables: list[CellsTable] = []
    for name in contents.tables[:20]:
        path = contents.folder / name
        found = read_cells_table(path, relative(path, out)) if not has_invisible(name) else None
        if found and found.columns.keys() & {"donor", "label", "doublet"}:
            tables.append(found)
    active = [
        (group, archive) for row, (group, archive) in zip(proposal.rows, places, strict=True) if not row.set_aside
    ]
    if tables and active:
        known = [None if archive else _barcodes(group, contents) for group, archive in active]
        assign_cells_tables(proposal, dataset, tables, known)


def _barcodes(group: LibraryGroup, contents: Contents) -> set[str] | None:
    tables = [name for name in group.names if role_of(name.rpartition("/")[2]) is Role.BARCODES]
    return read_barcodes(contents.folder / tables[0]) if tables else None
