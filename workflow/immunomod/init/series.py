"""A GEO series as a proposed sheet: which of its samples are libraries, where their counts lie, and what they are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from immunomod.acquire.geo import GeoSample, GeoSite, RemoteFile
from immunomod.errors import UserError
from immunomod.init.guess import guess_rows
from immunomod.init.lanes import use_cells_tables
from immunomod.init.libraries import group_files
from immunomod.init.locate import locate, series_matrices, settle_companions
from immunomod.init.rows import Proposal, Row, name_rows
from immunomod.init.single_cells import are_single_cells, propose_from_cells
from immunomod.init.source import LONGEST_TEXT, Source, describe, set_organism
from immunomod.init.text import clean
from immunomod.init.vocabulary import Modality, modality_of, without_modality

#: Libraries of features of the same cells as a library of RNA; they are read together.
JOINABLE = (Modality.HASHTAGS, Modality.ANTIBODIES, Modality.GUIDES)


def propose_series(accession: str, site: GeoSite, folder: Path) -> Proposal:
    """Propose a sheet for a series; small files (per-cell tables, barcodes) are fetched into ``folder``.

    Raises
    ------
    UserError
        The series is unknown, or offers no sample and no file.
    """
    series = site.series(accession)
    source = Source(series, site.series_listing(accession), site, folder)
    samples = list(series.samples) or _samples_of_files(source)
    if not samples:
        raise UserError(f"{accession} names no sample and no file of one at {site.base_url}: nothing to propose")
    proposal = Proposal(accession, clean(f"{series.title} ({accession})" if series.title else accession, 200), [])
    matrices = series_matrices(source)
    if are_single_cells(samples, len(source.listing.members), len(matrices)):
        proposal.rows = propose_from_cells(source, samples, matrices, proposal)
    else:
        _propose_libraries(proposal, source, samples)
        locate(proposal, source, matrices)
        use_cells_tables(proposal, source)
        settle_companions(proposal, source)
    name_rows(proposal.rows)
    _separate_organisms(proposal)
    if not proposal.active:
        proposal.remarks.append(
            "no sample of the series looks like a library of single-cell RNA: all rows are comments"
        )
    proposal.remarks += guess_rows(proposal.active, series.title[:LONGEST_TEXT])
    return proposal


def _samples_of_files(source: Source) -> list[GeoSample]:
    """Samples as their files tell, where the server has no SOFT."""
    owners = dict.fromkeys(file.owner for file in source.listing.members)
    return [GeoSample(owner, title=_title_of_files(owner, source.own_files(owner))) for owner in owners]


def _title_of_files(owner: str, files: Sequence[RemoteFile]) -> str:
    keys = [group.key for group in group_files(file.name for file in files)]
    return re.sub(rf"^{owner}[_.-]*", "", keys[0]) if keys else owner


def _propose_libraries(proposal: Proposal, source: Source, samples: Sequence[GeoSample]) -> None:
    """A row per sample; what holds no RNA is joined to its RNA where titles pair them uniquely, or set aside."""
    modalities = [_modality(sample, source) for sample in samples]
    rows = [_row(sample, source) for sample in samples]
    partners: dict[str, list[Row]] = {}
    for row, modality in zip(rows, modalities, strict=True):
        if modality is Modality.RNA and not row.set_aside:
            partners.setdefault(without_modality(row.about.title), []).append(row)
    for row, modality in zip(rows, modalities, strict=True):
        found = partners.get(without_modality(row.about.title) or "-", [])
        if modality is Modality.RNA or row.set_aside:
            proposal.rows.append(row)
        elif modality in JOINABLE and len(found) == 1:
            found[0].guess("source", f"{found[0]['source']},{row['source']}", "titles that name the same cells")
            found[0].note(f"{row['source']} ({clean(row.about.title, 80)}) joined: {modality} of the same cells")
        else:
            row.set_aside = f"{modality}, not single-cell RNA"
            if modality in JOINABLE:
                row.set_aside += "; titles do not say of whose cells. If you know, write RNA_GSM,THIS_GSM as source"
            proposal.rows.append(row)


def _row(sample: GeoSample, source: Source) -> Row:
    row = Row(describe(sample), source.accession)
    row.state("source", sample.accession)
    set_organism(row, sample.organism)
    return row


def _modality(sample: GeoSample, source: Source) -> Modality:
    """By title and strategy, or else by the names of its files, where all of them say the same."""
    modality = modality_of(describe(sample).title, sample.library_strategy)
    groups = group_files(file.name for file in source.own_files(sample.accession))
    if modality is Modality.RNA and groups and all(group.modality is not Modality.RNA for group in groups):
        return groups[0].modality
    return modality


def _separate_organisms(proposal: Proposal) -> None:
    """A data set is of one organism: the rarer one of a mixed series gets a data set of its own."""
    organisms = [row["organism"] for row in proposal.active if row["organism"]]
    for row in proposal.rows:
        row.state("dataset", row.dataset)
    if len(set(organisms)) < 2:
        return
    rarer = min(sorted(set(organisms)), key=organisms.count)
    for row in proposal.active:
        if row["organism"] == rarer:
            row.state("dataset", f"{rarer}_{row.dataset}")
    if row_tables := proposal.cells_tables.get(proposal.name):
        proposal.cells_tables[f"{rarer}_{proposal.name}"] = row_tables
    proposal.remarks.append(f"the series holds two organisms: the {rarer} samples are data set {rarer}_{proposal.name}")
