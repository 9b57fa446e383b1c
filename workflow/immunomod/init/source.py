"""A series with its files, as the modules that propose rows see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from immunomod.acquire.download import Remote
from immunomod.acquire.geo import GeoSample, GeoSeries, GeoSite, RemoteFile, SeriesListing
from immunomod.errors import UserError
from immunomod.init.cells import LARGEST_BYTES
from immunomod.init.rows import Described, Row
from immunomod.init.text import clean

ORGANISMS = {"homo sapiens": "human", "mus musculus": "mouse"}
#: Longer titles and values are cut before they are searched: an accession's record is written by a stranger.
LONGEST_TEXT = 300
MOST_CHARACTERISTICS = 100


@dataclass
class Source:
    """A series, its files, and where small ones may be fetched to."""

    series: GeoSeries
    listing: SeriesListing
    site: GeoSite
    folder: Path

    @property
    def accession(self) -> str:
        """Of the series."""
        return self.series.accession

    def own_files(self, accession: str) -> list[RemoteFile]:
        """Files of one of its samples."""
        return [file for file in self.listing.members if file.owner == accession]

    def fetch_small(self, file: RemoteFile, limit: int = LARGEST_BYTES) -> Path | None:
        """The file on disk; None if it is large, of unknown size, or cannot be had."""
        size = file.bytes if file.bytes is not None else self.site.client.size(file.url)
        if size is None or size > limit:
            return None
        target = self.folder / file.owner / file.name
        try:
            self.site.client.fetch(Remote(file.url, file.bytes), target)
        except UserError:
            return None
        return target

    def cell_names(self, names: Sequence[str]) -> list[str]:
        """Names of the cells of a small matrix at series level, perhaps the first ones only; empty if unknown."""
        from immunomod.sample.choose import choose_matrices
        from immunomod.sample.readers.library import LibraryFiles
        from immunomod.sample.readers.sniff import sniff

        files = {file.name: file for file in self.listing.own}
        paths = [self.fetch_small(files[name]) for name in names if name in files]
        try:
            own = LibraryFiles(self.accession, tuple(sniff(path) for path in paths if path), cells=("*",))
            head = choose_matrices(own).genes.peek(own)
        except UserError:
            return []
        return [] if head.barcodes is None else [str(name)[:LONGEST_TEXT] for name in head.barcodes]


def describe(sample: GeoSample) -> Described:
    """What SOFT says of a sample, within bounds."""
    pairs = list(sample.characteristics.items())[:MOST_CHARACTERISTICS]
    return Described(
        sample.accession,
        sample.title[:LONGEST_TEXT],
        sample.source_name[:LONGEST_TEXT],
        {name[:LONGEST_TEXT]: value[:LONGEST_TEXT] for name, value in pairs},
    )


def set_organism(row: Row, organism: str) -> None:
    """Column ``organism`` from SOFT's; a row of another organism is set aside."""
    named = [part.strip() for part in organism.split(";") if part.strip()]
    known = [ORGANISMS[part.lower()] for part in named if part.lower() in ORGANISMS]
    if len(named) == 1 and known:
        row.state("organism", known[0])
    elif known:
        row.guess("organism", known[0], f"one of SOFT's {clean(organism)}")
    elif named:
        row.set_aside = f"organism {clean(organism)}, neither human nor mouse"
