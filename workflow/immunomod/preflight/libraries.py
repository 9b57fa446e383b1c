"""The files of every library, looked at as far as their names, headers and small tables tell.

What is on this machine already (a lab's own files, a mirror in a folder, an earlier download) is opened by the very
readers that the run will use, up to the counts. What is not is known by its listing; small tables of features and of
cells are fetched to where the run will look for them, so that nothing is fetched twice.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from immunomod.acquire import AcquireSettings
from immunomod.acquire.archive import is_archive_name
from immunomod.acquire.download import Client, NotFoundError, Receipt, Remote, file_url_path
from immunomod.acquire.geo import GeoSite, RemoteFile
from immunomod.acquire.parts import read_receipt
from immunomod.acquire.plan import CELLS, Pick, SheetRow, pick_row, refuse_same_matrix, sheet_rows
from immunomod.acquire.progress import FileProgress
from immunomod.acquire.select import Role, role_of, split_patterns
from immunomod.errors import Problem, Severity, UserError, split_fix
from immunomod.files import read_tsv, sha256
from immunomod.sample.cell_names import ALL, select_cells
from immunomod.sample.cells_table import CellsTableColumns, join_cells_table, rows_of_library
from immunomod.sample.choose import Choice, choose_matrices
from immunomod.sample.demultiplex.names import find_hashtags, match_hashtags, parse_hashtags, share_hashtag
from immunomod.sample.other_features import other_features
from immunomod.sample.readers.features import feature_columns, gene_counts
from immunomod.sample.readers.library import LibraryCounts, LibraryFiles, LibraryHead
from immunomod.sample.readers.sniff import sniff
from immunomod.sample.readers.tables import read_columns
from immunomod.settings import Run

#: Tables of features and of cells up to this size are fetched before the run.
SMALL_BYTES = 5 << 20
#: Feature tables that are fetched for a data set: its libraries were mapped to one annotation nearly always.
MOST_FEATURE_TABLES = 3
HEAD_BYTES = 1 << 16
_COLUMNS = ("source", "files", "barcodes", "cells", "cells_lane", "organism", "hashtags")
_AFTER_DOWNLOAD = "known after download"


class OfflineError(UserError):
    """Something would have to be fetched, and the network is not to be used."""


class KeptFiles(Client):
    """A client that transfers nothing over a network: what is there already, and trees on this machine, will do."""

    def fetch(self, remote: Remote, target: Path, progress: FileProgress | None = None) -> Receipt:
        """As :meth:`Client.fetch`; raises :class:`OfflineError` for what would have to be transferred."""
        if remote.url.startswith("file:"):
            return super().fetch(remote, target, progress)
        receipt = self.kept(remote, target)
        if receipt is None:
            raise OfflineError(f"{remote.url} was not fetched")
        return receipt

    def list_folder(self, url: str) -> list[str]:
        """As :meth:`Client.list_folder`, for folders on this machine."""
        if url.startswith("file:"):
            return super().list_folder(url)
        raise OfflineError(f"{url} was not listed")


@dataclass
class Library:
    """What is known of a library before its counts are read.

    ``symbols``: current gene symbols where its features are known; ``tags``: the matrix's names of its hashtags.
    ``donors``: those that its per-cell table names; ``is_numbered``: as clusters, and ``clusters`` are those without a
    name in the config.
    ``stored_bytes``: size of its matrix as it lies, ``is_packed`` where that is compressed. ``waits_for``: why
    something is not known; empty where all is. ``is_faulty``: something is wrong with its files.
    """

    row: SheetRow
    dataset: str
    organism: str
    picks: tuple[Pick, ...] = ()
    head: LibraryHead | None = None
    layout: str = ""
    matrix: Path | None = None
    symbols: pd.Index | None = None
    tags: tuple[str, ...] = ()
    donors: tuple[str, ...] = ()
    is_numbered: bool = False
    clusters: tuple[str, ...] = ()
    stored_bytes: int = 0
    is_packed: bool = True
    waits_for: str = ""
    is_faulty: bool = False

    @property
    def remote(self) -> list[RemoteFile]:
        """Files that GEO offers."""
        return [pick.source for pick in self.picks if isinstance(pick.source, RemoteFile)]


@dataclass
class Libraries:
    """All libraries of a study in the order of the sheet, and what is wrong with them."""

    found: list[Library] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def of(self, dataset: str) -> list[Library]:
        """The libraries of a data set."""
        return [library for library in self.found if library.dataset == dataset]


def examine_libraries(run: Run, results: Path, client: Client, config_name: str, skip: Iterable[int] = ()) -> Libraries:
    """Look at the files of every library.

    Parameters
    ----------
    run
        The study.
    results
        Where the run writes; what is fetched is kept there.
    client
        Fetches SOFT files, listings and small tables.
    config_name
        What to call the config in messages.
    skip
        Numbers of rows whose source is known to be wrong.
    """
    all_found = Libraries()
    wrong = set(skip)
    for dataset in run.datasets:
        rows = run.samples[(run.samples["dataset"] == dataset) & ~run.samples.index.isin(wrong)]
        look = _DatasetLook(run, dataset, results / "acquire" / dataset, client, config_name, all_found)
        for row, organism in zip(sheet_rows(rows, run.config["samples"]), rows["organism"], strict=True):
            all_found.found.append(look.library(row, organism))
        look.finish()
    all_found.problems += _same_counts(all_found.found)
    return all_found


class _DatasetLook:
    """The libraries of one data set."""

    def __init__(self, run: Run, dataset: str, folder: Path, client: Client, config_name: str, into: Libraries) -> None:
        self.run = run
        self.dataset = dataset
        self.folder = folder
        self.client = client
        self.config_name = config_name
        self.into = into
        self.site = GeoSite(run.config["geo"]["base_url"], client, folder / "files" / "metadata")
        self.columns = self._cells_columns()
        self.unreachable = ""
        self.libraries: list[Library] = []
        self.fetched_features: set[str] = set()

    def _cells_columns(self) -> CellsTableColumns:
        try:
            return CellsTableColumns.from_config(self.run.config["cells_tables"].get(self.dataset, {}))
        except UserError as error:
            self._report_config(str(error))
            return CellsTableColumns()

    def _report_config(self, text: str) -> None:
        text = re.sub(r"^config, cells_tables(, \w+)?: ", "", text)
        problem, fix = split_fix(text, "correct the name")
        column = f"cells_tables.{self.dataset}"
        self.into.problems.append(Problem(self.config_name, problem, fix, column=column))

    def library(self, row: SheetRow, organism: str) -> Library:
        """Everything that can be known of a row's library."""
        library = Library(row, self.dataset, organism)
        self.libraries.append(library)
        library.picks = self._picks(library)
        if library.picks:
            with self._reporting(library):
                self._open(library)
        return library

    def _picks(self, library: Library) -> tuple[Pick, ...]:
        if self.unreachable:
            library.waits_for = "not looked at: the server did not answer"
            return ()
        try:
            return tuple(pick_row(library.row, self.dataset, self.site, self.run.folder))
        except UserError as error:
            if _is_offline(error):
                library.waits_for = "not looked at: without the network, the files of an accession are unknown"
                return ()
            if str(error.__cause__ or error).startswith(("cannot fetch", "cannot list")) and not _is_missing(error):
                self.unreachable = str(error)
            self._report(library, error)
            return ()

    def _open(self, library: Library) -> None:
        """Look into the files that are here; without them, into the small tables that can be had."""
        counts = [pick for pick in library.picks if pick.role != CELLS]
        paths = {pick: self._on_disk(pick, library.row) for pick in counts}
        library.stored_bytes = sum(_stored(pick) for pick in counts)
        if all(paths.values()):
            self._peek(library, {pick: found for pick, found in paths.items() if found})
        else:
            archives = [pick for pick in counts if not paths[pick] and isinstance(pick.source, Path)]
            library.waits_for = "known after unpacking" if archives else _AFTER_DOWNLOAD
            self._look_at_features(library, counts)
        if cells := next((pick for pick in library.picks if pick.role == CELLS), None):
            with self._reporting(library, "cells"):
                self._look_at_cells(library, cells)

    def _on_disk(self, pick: Pick, row: SheetRow) -> list[Path] | None:
        """Where a chosen file, or what was unpacked of it, lies on this machine; None where it does not."""
        source = pick.source
        if isinstance(source, Path):
            return None if is_archive_name(source.name) else [source]
        if not is_archive_name(source.name):
            if source.url.startswith("file:"):
                path = file_url_path(source.url)
                if path.is_file():
                    return [path]
            target = self._target(source)
            receipt = read_receipt(target)
            if receipt and receipt.url == source.url and target.is_file() and target.stat().st_size == receipt.bytes:
                return [target]
        return self._unpacked(source, row)

    def _unpacked(self, source: RemoteFile, row: SheetRow) -> list[Path] | None:
        """Members of an archive that an earlier run of this row unpacked."""
        known = _read_manifest(self.folder / "samples" / f"{row.sample}.tsv")
        known = known[known["role"] != CELLS]
        url = known["url"]
        archive = source.archive_url
        from_here = url.str.startswith(f"{source.url}#")
        if archive:
            from_here |= url.str.startswith(f"{archive}#") & url.str.endswith(source.name)
        paths = [Path(path) for path in known.loc[from_here, "path"]]
        return paths if paths and all(path.is_file() for path in paths) else None

    def _target(self, file: RemoteFile) -> Path:
        """Where the acquire floor puts a file."""
        return self.folder / "files" / file.owner / file.name

    def _peek(self, library: Library, paths: dict[Pick, list[Path]]) -> None:
        """Let the layouts find the matrix among the files and read its headers."""
        row = library.row
        files = LibraryFiles(
            sample=row.sample,
            own=tuple(sniff(path) for pick, found in paths.items() if not pick.shared for path in found),
            shared=tuple(sniff(path) for pick, found in paths.items() if pick.shared for path in found),
            patterns=row.patterns,
            cells=split_patterns(row.barcodes),
        )
        choice = choose_matrices(files)
        head = choice.genes.peek(files)
        library.head, library.layout, library.matrix = head, choice.genes.layout.name, choice.genes.file.path
        library.stored_bytes, library.is_packed = choice.genes.file.path.stat().st_size, _is_packed(library.matrix)
        where = f"{choice.genes.file.path.name} (sample {row.sample})"
        if head.n_cells == 0 or head.n_features == 0:
            lacking = "cell" if head.n_cells == 0 else "gene"
            problem = f"{where}: the matrix is empty: it lists no {lacking}; the sample will fail"
            fix = "give the file that holds the counts, or take the row out"
            self.into.problems.append(
                Problem(row.sheet, problem, fix, int(str(row.number)), "source", Severity.WARNING)
            )
            return
        if head.features is None:
            library.waits_for = "known when it is read"
        else:
            library.symbols = self._symbols(library, head.features, where)
        self._check_cells(library, head, where)
        if row.hashtags:
            with self._reporting(library, "hashtags"):
                self._match_hashtags(library, choice, files)

    def _match_hashtags(self, library: Library, choice: Choice, files: LibraryFiles) -> None:
        """Whether the matrices list the hashtags that the row names, found as the run finds them."""
        features: dict[str, list[str]] = {}
        for matrix in (choice.genes, *choice.others):
            head = matrix.peek(files)
            if head.features is None:
                return
            nothing = sparse.csr_matrix((0, len(head.features)), dtype=np.int32)
            table = head.features.reset_index(drop=True)
            if matrix is choice.genes:
                other = gene_counts(nothing, table, matrix.file.name, library.organism).other
            else:
                other = other_features(LibraryCounts(nothing, pd.Index([]), table, {}))
            for kind, found in other.items():
                features.setdefault(kind, []).extend(found.names)
        tags = find_hashtags(features, self.run.config["demultiplexing"]["hashtags"])
        named = parse_hashtags(library.row.hashtags)
        try:
            library.tags = tuple(match_hashtags(named, features, tags).values())
        except UserError as error:
            raise library.row.error("hashtags", f"{choice.genes.file.name}: {error}") from None

    def _symbols(self, library: Library, features: pd.DataFrame, where: str) -> pd.Index | None:
        """Current symbols of the genes, found as the run finds them: from the features of a matrix without cells."""
        nothing = sparse.csr_matrix((0, len(features)), dtype=np.int32)
        try:
            var = gene_counts(nothing, features.reset_index(drop=True), where, library.organism).var
        except UserError as error:
            self._report(library, error)
            return None
        symbols: pd.Index = pd.Index(var["gene_symbol"].astype(str).unique())
        return symbols

    def _check_cells(self, library: Library, head: LibraryHead, where: str) -> None:
        """Whether the names of the cells tell several libraries apart, and which are this row's."""
        patterns = split_patterns(library.row.barcodes)
        whole = head.barcodes is not None and len(head.barcodes) == head.n_cells
        is_listed = bool(library.row.cells) and self.columns.listed_only
        if head.barcodes is None or (patterns and not whole) or (is_listed and not patterns):
            return
        try:
            mask, _ = select_cells(head.barcodes, patterns, where)
        except UserError as error:
            raise library.row.error("barcodes", str(error)) from None
        chosen = head.barcodes[mask]
        if whole and chosen.has_duplicates:
            problem = f"{where}: {chosen[chosen.duplicated()][0]} is the name of several cells"
            raise library.row.error("files", f"{problem}; name the file that holds this library alone")
        if whole:
            library.head = replace(head, n_cells=len(chosen), barcodes=chosen)

    def _look_at_features(self, library: Library, counts: Sequence[Pick]) -> None:
        """Fetch a small table of features for what is not here yet: its genes are known before the download."""
        tables = [pick.source for pick in counts if role_of(pick.source.name) is Role.FEATURES]
        table = next((one for one in tables if isinstance(one, RemoteFile)), None)
        if table is None:
            return
        if table.url not in self.fetched_features and len(self.fetched_features) >= MOST_FEATURE_TABLES:
            return
        path = self._fetch_small(table)
        if path is None:
            return
        self.fetched_features.add(table.url)
        file = sniff(path)
        if file.damage:
            raise library.row.error("source", file.damage)
        features = feature_columns(read_columns(path, file.lines))
        library.symbols = self._symbols(library, features, f"{table.name} (sample {library.row.sample})")

    def _fetch_small(self, file: RemoteFile) -> Path | None:
        """A small file, fetched to where the run expects it; None where it is large or cannot be had alone."""
        if file.bytes is None or file.bytes > SMALL_BYTES:
            return None
        target = self._target(file)
        try:
            self.client.fetch(Remote(file.url, file.bytes, listed=not file.archive_url), target)
        except (NotFoundError, OfflineError):
            return None
        return target

    def _look_at_cells(self, library: Library, pick: Pick) -> None:
        """Columns, lanes and donors of a per-cell table, and whether it names the library's cells."""
        row = library.row
        paths = self._on_disk(pick, row)
        path = paths[0] if paths else None
        if path is None and isinstance(pick.source, RemoteFile):
            path = self._fetch_small(pick.source)
        if path is None:
            library.waits_for = library.waits_for or _AFTER_DOWNLOAD
            return
        head = library.head
        if head is not None and head.barcodes is not None and len(head.barcodes) == head.n_cells:
            join = join_cells_table(head.barcodes, path, self.columns, row.cells_lane, row.sample, row.cells)
            rows = join.cells[join.kept]
            library.head = replace(head, n_cells=len(rows), barcodes=head.barcodes[join.kept])
            listed = join.listed
        else:
            listed = rows_of_library(path, self.columns, row.cells_lane, row.sample, row.cells)
            rows = listed.rows
        library.is_numbered, library.clusters = listed.is_numbered, listed.clusters
        library.donors = tuple(sorted(set(rows["donor"]) - {""})) if "donor" in rows else ()

    @contextmanager
    def _reporting(self, library: Library, column: str = "source") -> Iterator[None]:
        """Turn what the floors raise into problems of a library, in ``column`` where the message names none."""
        try:
            yield
        except UserError as error:
            if _is_offline(error):
                library.waits_for = "not looked at: without the network"
            else:
                self._report(library, error, column)

    def _report(self, library: Library, error: UserError, otherwise: str = "source") -> None:
        """A message of the floors as a problem with its place."""
        text = str(error)
        library.is_faulty = True
        if text.startswith("config, cells_tables"):
            self._report_config(text)
            return
        row = library.row
        found = re.match(rf"{re.escape(row.sheet)} row (\d+), column (\w+): (.*)", text, re.DOTALL)
        if found:
            number, column, text = int(found[1]), found[2], found[3]
        else:
            named = next((name for name in _COLUMNS if re.search(rf"(column |sheet's |, ){name}\b", text)), otherwise)
            number, column = int(str(row.number)), "cells_lane" if "cells_lane is" in text else named
        text = re.sub(r"^samples\.tsv, (sample [^:]+|column \w+): ", "", text)
        problem, fix = split_fix(text, f"correct column {column}")
        self.into.problems.append(Problem(row.sheet, problem, fix, number, column))

    def finish(self) -> None:
        """What needs all rows of the data set: one matrix taken by several of them."""
        kept: list[Pick] = []
        for library in self.libraries:
            try:
                refuse_same_matrix([*kept, *library.picks])
            except UserError as error:
                self._report(library, error)
            else:
                kept += library.picks
        if not self.columns.listed_only:
            self._refuse_lanes_of_one_matrix()
        self._refuse_shared_hashtags()
        self._refuse_clusters_of_several_tables()
        for first, second, cells in _overlaps(self.libraries):
            problem = f"{cells} are taken by row {first.row.number} too"
            fix = "write patterns that share no cell"
            self.into.problems.append(Problem(second.row.sheet, problem, fix, int(str(second.row.number)), "barcodes"))

    def _refuse_shared_hashtags(self) -> None:
        """Cells of one hashtag are one row's, unless the rows take other cells of the matrix."""
        for position, second in enumerate(self.libraries):
            for first in self.libraries[:position]:
                if not (first.row.hashtags and second.row.hashtags) or first.is_faulty or second.is_faulty:
                    continue
                if not _share_matrix(first, second) or not _may_share_cells(first, second, self.columns):
                    continue
                shared = _shared_hashtag(first, second)
                if shared:
                    problem = f"cells of {shared} are taken by row {first.row.number} too"
                    fix = "name in each row the hashtags that are its own"
                    number = int(str(second.row.number))
                    self.into.problems.append(Problem(second.row.sheet, problem, fix, number, "hashtags"))
                    break

    def _refuse_clusters_of_several_tables(self) -> None:
        """Clusters are numbered anew in each table: a name for all tables would make strangers of one donor, and
        without names nothing pairs the donors of two.
        """
        numbered = [library for library in self.libraries if library.is_numbered]
        tables = {(library.row.cells, library.row.cells_lane) for library in numbered}
        if len(tables) < 2:
            return
        column = f"cells_tables.{self.dataset}.donors"
        sample = numbered[0].row.sample
        fix = f"name them by sample, such as {{{sample}: {{{_first_cluster(numbered[0])}: D1}}}}"
        common = [name for name, donor in self.columns.donors.items() if isinstance(donor, str)]
        if common:
            problem = (
                f"{common[0]!r} is named for all samples, but each of {len(tables)} tables numbers its clusters anew"
            )
            self.into.problems.append(Problem(self.config_name, problem, fix, column=column))
        elif unnamed := [library for library in numbered if library.clusters]:
            problem = (
                f"donors of {len(unnamed)} samples are clusters that each table numbers anew: they cannot be paired "
                "across tables"
            )
            self.into.problems.append(Problem(self.config_name, problem, fix, None, column, Severity.WARNING))

    def _refuse_lanes_of_one_matrix(self) -> None:
        """A lane says what the table knows of a row's cells; which cells are the row's it says only if asked to."""
        for position, second in enumerate(self.libraries):
            for first in self.libraries[:position]:
                lanes = {first.row.cells_lane, second.row.cells_lane}
                chosen = first.row.barcodes != second.row.barcodes
                tagged = bool(first.row.hashtags and second.row.hashtags)
                told = len(lanes) == 1 or chosen or tagged
                if "" in lanes or told or first.is_faulty or not _share_matrix(first, second):
                    continue
                problem = f"row {first.row.number} takes every cell of this matrix too: a lane alone leaves none out"
                fix = f"set `listed_only: true` in the config, cells_tables.{self.dataset}, or fill column barcodes"
                number = int(str(second.row.number))
                self.into.problems.append(Problem(second.row.sheet, problem, fix, number, "cells_lane"))
                break


def _is_offline(error: BaseException) -> bool:
    return any(isinstance(one, OfflineError) for one in _causes(error))


def _is_missing(error: BaseException) -> bool:
    return any(isinstance(one, NotFoundError) for one in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _read_manifest(path: Path) -> pd.DataFrame:
    columns = ["sample", "url", "path", "role"]
    if not path.is_file():
        return pd.DataFrame(columns=columns, dtype=str)
    return read_tsv(path, dtype=str).fillna("").reindex(columns=columns, fill_value="")


def _stored(pick: Pick) -> int:
    if isinstance(pick.source, Path):
        return pick.source.stat().st_size
    is_counts = role_of(pick.source.name) in (Role.MATRIX, Role.ARCHIVE)
    return (pick.source.bytes or 0) if is_counts else 0


def _is_packed(path: Path) -> bool:
    """Whether a file is compressed, by its first bytes; HDF5 files are inside."""
    with path.open("rb") as handle:
        head = handle.read(8)
    return head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"PK\x03\x04", b"\x89HDF"))


def _overlaps(libraries: Sequence[Library]) -> Iterator[tuple[Library, Library, str]]:
    """Pairs of rows that take the same cells of one matrix."""
    for position, second in enumerate(libraries):
        patterns = split_patterns(second.row.barcodes)
        if not patterns or second.is_faulty:
            continue
        for first in libraries[:position]:
            if first.is_faulty or not first.row.barcodes or not _share_matrix(first, second):
                continue
            common = set(patterns) & set(split_patterns(first.row.barcodes))
            if first.row.cells_lane and second.row.cells_lane and first.row.cells_lane != second.row.cells_lane:
                continue
            if first.row.hashtags and second.row.hashtags:
                continue
            names = _common_cells(first, second)
            if names is not None and len(names):
                yield first, second, f"{len(names):,} cells ({names[0]}, ...)"
            elif names is None and (common or ALL in {*patterns, *split_patterns(first.row.barcodes)}):
                yield first, second, f"cells of {second.row.barcodes}"


def _may_share_cells(first: Library, second: Library, columns: CellsTableColumns) -> bool:
    """Whether two rows of one matrix may take the same cells of it, whatever their hashtags."""
    lanes = {first.row.cells_lane, second.row.cells_lane}
    if columns.listed_only and len(lanes) == 2 and "" not in lanes:
        return False
    if not (first.row.barcodes and second.row.barcodes):
        return True
    names = _common_cells(first, second)
    return bool(len(names)) if names is not None else first.row.barcodes == second.row.barcodes


def _shared_hashtag(first: Library, second: Library) -> str:
    """A hashtag of both rows: by the matrix's names where they are known, else by the sheet's."""
    if first.tags and second.tags:
        return next((tag for tag in second.tags if tag in first.tags), "")
    return share_hashtag(first.row.hashtags, second.row.hashtags)


def _first_cluster(library: Library) -> str:
    return library.clusters[0] if library.clusters else "donor0"


def _share_matrix(first: Library, second: Library) -> bool:
    if first.matrix is not None and second.matrix is not None:
        return first.matrix.resolve() == second.matrix.resolve()
    sources = {pick.source for pick in first.picks if pick.role != CELLS and not pick.shared}
    return any(pick.source in sources for pick in second.picks if pick.role != CELLS and not pick.shared)


def _common_cells(first: Library, second: Library) -> pd.Index | None:
    """Cells of both; None where the names of either are not all known."""
    known = []
    for library in (first, second):
        head = library.head
        if head is None or head.barcodes is None or len(head.barcodes) != head.n_cells:
            return None
        known.append(head.barcodes)
    return known[0].intersection(known[1])


def _same_counts(libraries: Sequence[Library]) -> list[Problem]:
    """Rows whose matrices are equal byte for byte though they are different files, or one file by two names."""
    seen: dict[tuple[int, str], list[Library]] = {}
    problems = []
    for library in libraries:
        if library.matrix is None:
            continue
        with library.matrix.open("rb") as handle:
            head = hashlib.sha256(handle.read(HEAD_BYTES)).hexdigest()
        rivals = seen.setdefault((library.matrix.stat().st_size, head), [])
        twin = next((one for one in rivals if _are_twins(one, library)), None)
        rivals.append(library)
        if twin is None:
            continue
        number = int(str(library.row.number))
        problem = (
            f"{library.matrix} holds the same bytes as {twin.matrix} of row {twin.row.number}: one library would count "
            "as two"
        )
        problems.append(Problem(library.row.sheet, problem, "name the file of this library", number, "source"))
    return problems


def _are_twins(first: Library, second: Library) -> bool:
    """Whether two rows read one matrix from two places; which of its cells they take may tell them apart.

    Rows of two organisms take the genes and the cells of each from a mixed matrix (one of a single species is refused
    by its genes).
    """
    assert first.matrix is not None and second.matrix is not None
    if first.organism != second.organism:
        return False
    if first.row.barcodes or second.row.barcodes or first.row.cells_lane != second.row.cells_lane:
        return False
    if first.row.hashtags and second.row.hashtags and not _shared_hashtag(first, second):
        return False
    if first.matrix.resolve() == second.matrix.resolve():
        return first.dataset != second.dataset or first.matrix != second.matrix
    return sha256(first.matrix) == sha256(second.matrix)


def guesses(run: Run) -> list[Problem]:
    """A warning for every row that still says what in it was guessed."""
    return [
        Problem(
            run.config["samples"],
            f"{row['guessed']}",
            "these are guesses: correct what is wrong, then empty column guessed",
            int(str(number)),
            "guessed",
            Severity.WARNING,
        )
        for number, row in run.samples.iterrows()
        if row["guessed"]
    ]


def client_for(settings: AcquireSettings, is_offline: bool) -> Client:
    """What fetches for the check."""
    return KeptFiles(settings.transfer) if is_offline else Client(settings.transfer)
