"""Which files each row of the sheet means: chosen by names and listings, before anything large is fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from immunomod.acquire.archive import is_archive_name
from immunomod.acquire.geo import GeoSite, RemoteFile, accession_folder, is_accession, parse_accession
from immunomod.acquire.select import (
    COMPANIONS,
    ChoiceError,
    choose_for_sample,
    choose_for_series,
    counts_names,
    list_names,
    matches,
    role_of,
    split_patterns,
)
from immunomod.errors import UserError

#: What a file of a manifest is for; no reader opens metadata.
COUNTS, CELLS, METADATA = "counts", "cells", "metadata"


@dataclass(frozen=True)
class SheetRow:
    """What a row of the sample sheet says about where its sample's files are, and where the row stands."""

    sheet: str
    number: object
    sample: str
    source: str
    files: str = ""
    cells: str = ""
    cells_lane: str = ""
    barcodes: str = ""
    hashtags: str = ""

    @property
    def patterns(self) -> tuple[str, ...]:
        """The glob patterns of column ``files``."""
        return split_patterns(self.files)

    def error(self, column: str, problem: object) -> UserError:
        """A user's mistake in this row."""
        return UserError(f"{self.sheet} row {self.number}, column {column}: {problem}")


@dataclass(frozen=True)
class Pick:
    """A file chosen for a sample; ``source`` is where to get it. ``shared`` marks what samples may have in common."""

    row: SheetRow
    role: str
    source: RemoteFile | Path
    shared: bool


def sheet_rows(samples: pd.DataFrame, sheet: str) -> list[SheetRow]:
    """The rows of a sample sheet (all values str; index = row number in the file)."""
    columns = ("sample", "source", "files", "cells", "cells_lane", "barcodes", "hashtags")
    return [
        SheetRow(sheet, number, **{key: str(row[key]).strip() for key in columns if key in row.index})
        for number, row in samples.iterrows()
    ]


def _local(name: str, sheet_folder: Path) -> Path:
    return sheet_folder / Path(name).expanduser()


def split_sources(source: str, sheet_folder: Path) -> tuple[str, ...]:
    """What column ``source`` names: one place, or several separated by commas (a path may hold a comma itself)."""
    parts = tuple(part.strip() for part in source.split(",") if part.strip())
    return (source,) if len(parts) < 2 or _local(source, sheet_folder).exists() else parts


def series_of(source: str, dataset: str) -> str | None:
    """The series to ask about a source: itself, or else its dataset."""
    for text in (source, dataset):
        if is_accession(text) and parse_accession(text).startswith("GSE"):
            return parse_accession(text)
    return None


def pick_row(row: SheetRow, dataset: str, site: GeoSite, sheet_folder: Path) -> list[Pick]:
    """The files of one row, chosen but not fetched."""
    sources = split_sources(row.source, sheet_folder)
    if not row.source:
        raise row.error("source", "it is empty; write a path, a GSM or a GSE accession")
    counts: list[Pick] = []
    offered: list[RemoteFile] = []
    for source in sources:
        if is_accession(source):
            picked, listed = _pick_remote(row, source, dataset, site)
            offered += listed
        else:
            picked = _pick_local(row, source, sheet_folder)
        counts += picked
    series = series_of(sources[0], dataset)
    if row.cells and not offered and series and not _local(row.cells, sheet_folder).is_file():
        offered = _offered(row, site, series)
    cells = [_pick_cells(row, sheet_folder, offered, site, series)] if row.cells else []
    taken = {pick.source for pick in cells}
    counts = [pick for pick in dict.fromkeys(counts) if pick.source not in taken]
    if not counts:
        raise row.error("source", f"{row.source} offers no file that could hold counts")
    return [*counts, *cells]


def _pick_remote(row: SheetRow, source: str, dataset: str, site: GeoSite) -> tuple[list[Pick], list[RemoteFile]]:
    try:
        accession = parse_accession(source)
        series = series_of(source, dataset)
        listing = site.series_listing(series) if series else None
        own = () if accession.startswith("GSE") else site.sample_files(accession, series)
    except UserError as error:
        raise row.error("source", error) from error
    at_series = list(listing.own) if listing else []
    members = list(listing.members) if listing else []
    try:
        if accession.startswith("GSE"):
            chosen = choose_for_series(at_series, members, row.patterns, _known_as(row, site, accession))
        else:
            chosen = choose_for_sample(own, at_series, row.patterns)
    except ChoiceError as error:
        raise row.error("files", f"{source}: {error}") from None
    picks = [
        Pick(row, COUNTS, file, file.owner == series and role_of(file.name) in COMPANIONS)
        for file in dict.fromkeys(chosen)
    ]
    return picks, [*own, *at_series, *members]


def _known_as(row: SheetRow, site: GeoSite, series: str) -> tuple[str, ...]:
    """Accessions of the series' samples whose accession or title is the row's sample name."""
    return tuple(
        sample.accession for sample in site.series(series).samples if row.sample in (sample.accession, sample.title)
    )


def _offered(row: SheetRow, site: GeoSite, series: str) -> list[RemoteFile]:
    try:
        listing = site.series_listing(series)
    except UserError as error:
        raise row.error("cells", error) from error
    return [*listing.own, *listing.members]


def _soft_file(row: SheetRow, site: GeoSite, series: str | None) -> list[RemoteFile]:
    """The series' family SOFT file where the row names it as its per-cell table: one sample may be one cell."""
    name = f"{series}_family.soft.gz"
    if series is None or not row.cells.endswith(".soft.gz") or not matches(name, [row.cells]):
        return []
    if not site.series(series).samples:
        raise row.error("cells", f"{site.base_url} has no SOFT file of {series}, or one without samples")
    return [RemoteFile(name, site.url(accession_folder(series), "soft", name), None, series)]


def _pick_cells(
    row: SheetRow, sheet_folder: Path, listed: Sequence[RemoteFile], site: GeoSite, series: str | None
) -> Pick:
    path = _local(row.cells, sheet_folder)
    if path.is_file():
        return Pick(row, CELLS, path, shared=True)
    offered = [*listed, *_soft_file(row, site, series)]
    found = [file for file in offered if file.name == row.cells or matches(file.name, [row.cells])]
    if len(found) == 1:
        return Pick(row, CELLS, found[0], shared=True)
    if found:
        raise row.error("cells", f"{row.cells} fits several files: {list_names(file.name for file in found)}")
    series = f", and the series offers {list_names(file.name for file in offered)}" if offered else ""
    raise row.error("cells", f"there is no file {path}{series}")


def _pick_local(row: SheetRow, source: str, sheet_folder: Path) -> list[Pick]:
    path = _local(source, sheet_folder)
    if path.is_dir():
        names = _local_names(path)
        chosen = [name for name in names if matches(name, row.patterns)] if row.patterns else counts_names(names)
        if row.patterns and not chosen:
            chosen = [name for name in names if is_archive_name(name)]
        if not chosen:
            fits = f"fits {row.files}" if row.patterns else "could hold counts"
            raise row.error(
                "files" if row.patterns else "source", f"no file in {path} {fits}; there are {list_names(names)}"
            )
        return [Pick(row, COUNTS, path / name, shared=False) for name in chosen]
    if path.is_file():
        return [Pick(row, COUNTS, file, shared=False) for file in [path, *_triplet_siblings(path)]]
    raise row.error("source", f"there is no file or folder {path}, and {source!r} is no GEO accession")


def local_files(row: SheetRow, sheet_folder: Path) -> list[Path]:
    """Files on this machine that a row means; all files of its folder where it does not tell which."""
    files: list[Path] = []
    for source in split_sources(row.source, sheet_folder):
        if source and not is_accession(source):
            try:
                picked = [pick.source for pick in _pick_local(row, source, sheet_folder)]
                files += [path for path in picked if isinstance(path, Path)]
            except UserError:  # said in full when the study is checked
                folder = _local(source, sheet_folder)
                files += [folder / name for name in _local_names(folder)] if folder.is_dir() else []
    if row.cells and _local(row.cells, sheet_folder).is_file():
        files.append(_local(row.cells, sheet_folder))
    return sorted(set(files))


def is_local(row: SheetRow, sheet_folder: Path) -> bool:
    """Whether all files that a row means lie on this machine, so that no server is asked for any."""
    sources = split_sources(row.source, sheet_folder)
    cells = not row.cells or _local(row.cells, sheet_folder).is_file()
    return cells and not any(is_accession(source) for source in sources)


def _local_names(folder: Path) -> list[str]:
    """Paths of the files below a folder, relative to it, hidden ones left out."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))


def _triplet_siblings(matrix: Path) -> list[Path]:
    """The features and barcodes tables beside a lone mtx file: those with the same beginning of the name."""
    head, found, _ = matrix.name.partition("matrix.mtx")
    if not found:
        head, found, _ = matrix.name.partition(".mtx")
    if not found:
        return []
    beside = sorted(path for path in matrix.parent.iterdir() if path.is_file() and path != matrix)
    return [path for path in beside if path.name.startswith(head) and role_of(path.name) in COMPANIONS]


def refuse_same_matrix(picks: Sequence[Pick]) -> None:
    """One matrix cannot be all of two samples: file patterns, cell names, hashtags or a per-cell table's lane must tell
    them.
    """
    first: dict[tuple[RemoteFile | Path, str], SheetRow] = {}
    for pick in picks:
        if pick.role != COUNTS or pick.shared or pick.row.cells_lane or pick.row.barcodes:
            continue
        other = first.setdefault((pick.source, pick.row.files), pick.row)
        if other is not pick.row and not (other.hashtags and pick.row.hashtags):
            raise pick.row.error(
                "files",
                f"its source gives the same file ({pick.source.name}) as row {other.number}; say in column files "
                "which files are whose, in column barcodes which cells of one matrix (a pattern such as *-1), in "
                "column hashtags which of a pooled lane, or in column cells_lane which cells of a per-cell table",
            )
