"""Where the counts of a series' samples lie: columns ``source``, ``files`` and ``barcodes``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from immunomod.acquire.select import ChoiceError, Role, choose_for_sample, list_names, role_of
from immunomod.init.cells import read_lines
from immunomod.init.libraries import LibraryGroup, group_files, is_matrix_name
from immunomod.init.rows import Proposal, Row, as_pattern
from immunomod.init.source import Source
from immunomod.init.text import clean
from immunomod.init.vocabulary import Modality, normalise, without_modality


def series_matrices(source: Source) -> list[LibraryGroup]:
    """Libraries among the files at series level; the archive of the samples' files is none."""
    return group_files(file.name for file in source.listing.own if not file.name.endswith("_RAW.tar"))


def locate(proposal: Proposal, source: Source, matrices: Sequence[LibraryGroup]) -> None:
    """Columns ``source``, ``files`` and ``barcodes``."""
    lacking = []
    for row in proposal.active:
        names = [file.name for file in source.own_files(row.about.name)]
        if any(is_matrix_name(name) or role_of(name) is Role.ARCHIVE for name in names):
            _choose_files(row, names)
        else:
            lacking.append(row)
    if not lacking:
        return
    raw = [file.name for file in source.listing.own if file.name.endswith("_RAW.tar")]
    rna = [group for group in matrices if group.modality is Modality.RNA]
    if rna:
        _shareseries_matrices(lacking, rna, source, proposal)
    elif raw and not source.listing.members:
        for row in lacking:
            row.mark("files", f"{row.about.name}*", f"{raw[0]}, whose members are not listed")
    else:
        for row in lacking:
            row.values.pop("source", None)
            row.note("source left empty: neither the sample nor the series offers a count matrix")
        offered = list_names(file.name for file in (*source.listing.own, *source.listing.members))
        proposal.remarks.append(
            f"{len(lacking)} samples have no count matrix on GEO (the series offers {offered}): make counts from the "
            "raw reads, or ask the authors, and write their path in column source"
        )


def _choose_files(row: Row, names: Sequence[str]) -> None:
    """Column ``files`` where a sample has several matrices."""
    groups = [group for group in group_files(names) if group.modality is Modality.RNA]
    if len(groups) > 1:
        told = ", ".join(group.groups[0].matrix for group in groups[:6])
        row.note(f"files left empty: several matrices with names of their own ({clean(told, 300)}); name one")
    elif groups and groups[0].passed_over:
        row.mark("files", ",".join(as_pattern(name) for name in groups[0].names), "; ".join(groups[0].notes))
    elif groups and groups[0].notes:
        row.note(f"files left empty: {clean('; '.join(groups[0].notes), 300)}")


def _shareseries_matrices(
    rows: Sequence[Row], matrices: Sequence[LibraryGroup], source: Source, proposal: Proposal
) -> None:
    """Rows whose counts stand at series level: a matrix each, told by titles, or one matrix for all of them."""
    for row in rows:
        row.state("source", source.accession)
    if len(matrices) == 1:
        (group,) = matrices
        if len(_all_matrices(source)) > 1:
            _name_files(rows, group, "the only matrix of RNA at series level")
        if len(rows) > 1:
            _tell_cells_apart(rows, group, source)
        return
    paired = _pair(
        [_compact(group.key.replace(source.accession, "")) for group in matrices],
        [_compact(f"{row.about.title} {row.about.name}") for row in rows],
    )
    for number, row in enumerate(rows):
        if number in paired:
            _name_files([row], matrices[paired[number]], "title")
        else:
            row.note(f"files left empty: which matrix is its own? {clean(_names(matrices), 300)}")
    if len(paired) < len(rows):
        proposal.remarks.append(f"{len(rows) - len(paired)} rows lack column files: the series has several matrices")


def _names(matrices: Sequence[LibraryGroup]) -> str:
    return list_names(group.groups[0].matrix for group in matrices)


def _all_matrices(source: Source) -> list[str]:
    return [file.name for file in source.listing.own if is_matrix_name(file.name)]


def _name_files(rows: Sequence[Row], group: LibraryGroup, origin: str) -> None:
    for row in rows:
        row.mark("files", ",".join(as_pattern(name) for name in group.names), origin)


def _compact(text: str) -> str:
    return re.sub(r"[^a-z0-9+]", "", normalise(without_modality(text)))


def _pair(keys: Sequence[str], texts: Sequence[str]) -> dict[int, int]:
    """For texts (by position) the one key that stands in it, where no other text takes the same key."""
    found: dict[int, int] = {}
    for number, text in enumerate(texts):
        inside = [key for key in keys if re.search("[a-z]", key) and key in text]
        longest = max(inside, key=len, default="")
        if longest and sum(key == longest for key in keys) == 1:
            found[number] = keys.index(longest)
    taken = list(found.values())
    return {number: key for number, key in found.items() if taken.count(key) == 1}


def _tell_cells_apart(rows: Sequence[Row], group: LibraryGroup, source: Source) -> None:
    """Column ``barcodes`` where one matrix holds several libraries and its cells are named after them."""
    labels = _cell_labels(group, source)
    if labels is None:
        remark = f"barcodes left empty: {group.groups[0].matrix} holds several libraries; which cells are whose?"
    else:
        paired = _pair(
            [_compact(label.replace(r"\0", " ")) for label in labels], [_compact(_told(row)) for row in rows]
        )
        if len(paired) == len(rows):
            for number, row in enumerate(rows):
                label = labels[paired[number]]
                row.mark("barcodes", as_pattern(label).replace(r"\0", "*"), "title and the names of the cells")
            return
        shown = ", ".join(label.replace(r"\0", "*") for label in labels[:12])
        remark = f"barcodes left empty: the cells are named {shown}; which are this library's?"
    for row in rows:
        row.note(clean(remark, 400))


def _told(row: Row) -> str:
    return f"{row.about.title} {row.about.name}"


def _cell_labels(group: LibraryGroup, source: Source) -> list[str] | None:
    r"""What stands around the bases in the names of a matrix' cells, ``\0`` for the bases; None if unknown."""
    by_name = {file.name: file for file in source.listing.own}
    tables = [name for name in group.names if role_of(name) is Role.BARCODES]
    path = source.fetch_small(by_name[tables[0]]) if tables else None
    names = read_lines(path) if path else source.cell_names(group.names)
    labels = list(dict.fromkeys(re.sub(r"[ACGT]{8,}", r"\\0", name) for name in names))
    return labels if 2 <= len(labels) <= 200 else None


def settle_companions(proposal: Proposal, source: Source) -> None:
    """Column ``files`` where several gene tables at series level could be a sample's."""
    for row in proposal.active:
        own = source.own_files(row.about.name)
        if row["source"].split(",")[0] != row.about.name or not own or row["files"]:
            continue
        try:
            choose_for_sample(own, source.listing.own, ())
        except ChoiceError as error:
            tables = [file.name for file in source.listing.own if role_of(file.name) is Role.FEATURES]
            near = _nearest(row["cells"], tables) if row["cells"] else ""
            if near:
                row.mark("files", as_pattern(near), f"its name is nearest to {row['cells']}")
            else:
                row.note(clean(f"files left empty: {error}", 400))


def _nearest(name: str, others: Sequence[str]) -> str:
    """The one of ``others`` that shares the longest beginning with ``name``; empty if two do."""
    shared = [_same_start(name, other) for other in others]
    best = max(shared, default=0)
    return others[shared.index(best)] if shared.count(best) == 1 else ""


def _same_start(a: str, b: str) -> int:
    """How many first letters two names share."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
