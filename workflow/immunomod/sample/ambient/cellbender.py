"""Counts without background by CellBender (Fleming et al. 2023, doi:10.1038/s41592-023-01943-7).

CellBender learns the profile of the soup, the size of every droplet and the cells' own profiles with a neural network
from an unfiltered matrix. It needs PyTorch and, for a library of thousands of cells, a graphics card, so it is a rule
of its own with an environment of its own (``remove_background``); what it left is read here, for the cells alone.

:func:`remove_background` runs in that environment, which has no more of this package's dependencies than anndata,
numpy, pandas, scipy and h5py. :func:`read_background` and :func:`estimate` run where every other step does.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from immunomod.errors import UserError
from immunomod.exclusive import COMPARTMENT_OF
from immunomod.files import atomic_path, seal
from immunomod.sample.ambient import soupx
from immunomod.sample.ambient.kinds import (
    NO_KIND,
    empty_table,
    find_kinds,
    over_cells,
    partner_part,
)
from immunomod.sample.ambient.method import AmbientInput, Background, Contamination
from immunomod.sample.cell_calling import holds_empty_droplets
from immunomod.sample.sums import gene_sums

if TYPE_CHECKING:
    import h5py

#: Attribute of a file that CellBender did not write, because the library gives it nothing to learn from.
_NOT_RUN = "not_run"
#: CellBender takes a droplet for a cell above this probability, and leaves an empty one no counts.
_CELL_PROBABILITY = 0.5
_MODULE = "cellbender"
_LAST_WORDS = 2000
_BLOCK = 1 << 22


def remove_background(
    counts: Path, output: Path, *, lower: int, epochs: int, false_positive_rate: float, threads: int
) -> str:
    """Run CellBender on one library, on a graphics card where PyTorch finds one, else on the processor.

    Parameters
    ----------
    counts
        ``counts.h5ad`` of the library.
    output
        Where CellBender's output goes, all droplets; where the library holds no empty droplets, a file that says so.
    lower
        A droplet with so many counts or fewer is empty (``calling.lower``).
    epochs, false_positive_rate
        CellBender's ``--epochs`` and ``--fpr``.
    threads
        On the processor.

    Returns
    -------
    Why CellBender was not run, in words; empty where it was.

    Raises
    ------
    UserError
        CellBender is not installed, or it failed.
    """
    import h5py
    from anndata.io import read_elem

    with h5py.File(counts, "r") as file:
        totals = np.asarray(read_elem(file["X"]).sum(axis=1, dtype=np.int64), dtype=np.int64).ravel()
    if not holds_empty_droplets(totals, lower):
        note = "a matrix without empty droplets, from which CellBender learns the background"
        with atomic_path(output) as temporary:
            with h5py.File(temporary, "w") as file:
                file.attrs[_NOT_RUN] = note
            seal(temporary)
        return note
    if find_spec(_MODULE) is None:
        raise UserError(
            "CellBender is not installed here. Fix: run with `--sdm conda`, which makes its environment "
            "(envs/cellbender.yaml), or set ambient.method to soupx"
        )
    # Checkpoints and reports go to the working folder, by the same names for every library.
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=output.parent, prefix=".cellbender_") as folder:
        made = Path(folder) / "background.h5"
        command = [sys.executable, "-m", "cellbender.base_cli", "remove-background"]
        command += ["--input", str(counts.resolve()), "--output", str(made.resolve())]
        command += ["--epochs", str(epochs), "--fpr", str(false_positive_rate), "--cpu-threads", str(threads)]
        if _has_graphics_card():
            command.append("--cuda")
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        print(done.stdout)
        if done.returncode != 0 or not made.is_file():
            raise UserError(
                f"{counts}: CellBender failed (exit status {done.returncode}). Fix: see its last words below; "
                f"ambient.method: soupx needs no training\n{done.stdout[-_LAST_WORDS:]}"
            )
        with atomic_path(output) as temporary:
            made.replace(temporary)
            seal(temporary)
    return ""


def _has_graphics_card() -> bool:
    import torch  # type: ignore[import-not-found, unused-ignore]

    return bool(torch.cuda.is_available())


def read_background(path: str | Path, cells: Sequence[str], genes: Sequence[str]) -> Background:
    """What CellBender left of some cells' counts.

    Only these cells are read from the file, which holds all droplets.

    Parameters
    ----------
    path
        Output of :func:`remove_background`.
    cells, genes
        ``obs_names`` of the cells and ``var_names`` of all genes, as in the counts that CellBender was given.

    Returns
    -------
    Counts in the order of ``cells`` and ``genes``, and which droplets CellBender takes for cells.

    Raises
    ------
    UserError
        The file is none of CellBender's, or of another library.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if _NOT_RUN in file.attrs:
                return Background(None, np.zeros(len(cells), dtype=bool), str(file.attrs[_NOT_RUN]))
            return _read(file, path, cells, genes)
    except (OSError, KeyError) as error:
        raise UserError(
            f"{path} cannot be read as output of CellBender ({error}). Fix: delete it and run again"
        ) from None


def _read(file: h5py.File, path: str | Path, cells: Sequence[str], genes: Sequence[str]) -> Background:
    matrix = file["matrix"]
    columns = pd.Index(_text(matrix["barcodes"][:])).get_indexer(pd.Index(cells))
    place = pd.Index(genes).get_indexer(pd.Index(_text(matrix["features/name"][:])))
    missing = [name for name, column in zip(cells, columns, strict=True) if column < 0]
    if missing or (np.sort(place) != np.arange(len(genes))).any():
        what = f"it lacks the droplet {missing[0]}" if missing else "its genes are others"
        raise UserError(f"{path} was not made from these counts: {what}. Fix: delete it and run again")
    pointer = matrix["indptr"][:].astype(np.int64)
    sizes = pointer[columns + 1] - pointer[columns]
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    indices, data = np.empty(indptr[-1], dtype=np.int32), np.empty(indptr[-1], dtype=np.float32)
    # Droplets lie one after the other: the file is read once from front to back, and those that are asked for are kept.
    order = np.argsort(pointer[columns], kind="stable")
    first = 0
    while first < len(order):
        begin = int(pointer[columns[order[first]]])
        last = first
        while last < len(order) and pointer[columns[order[last]] + 1] - begin <= max(_BLOCK, sizes[order[first]]):
            last += 1
        end = int(pointer[columns[order[last - 1]] + 1])
        rows, values = matrix["indices"][begin:end], matrix["data"][begin:end]
        for cell in order[first:last]:
            start = int(pointer[columns[cell]]) - begin
            taken = slice(start, start + int(sizes[cell]))
            put = slice(int(indptr[cell]), int(indptr[cell + 1]))
            indices[put], data[put] = place[rows[taken]], values[taken]
        first = last
    counts = sparse.csr_matrix((data, indices, indptr), shape=(len(cells), len(genes)))
    counts.sort_indices()
    probability = np.zeros(len(matrix["barcodes"]))
    latents = file["droplet_latents"]
    probability[latents["barcode_indices_for_latents"][:]] = latents["cell_probability"][:]
    return Background(counts, probability[columns] > _CELL_PROBABILITY, "")


def _text(names: NDArray[np.generic]) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names.tolist()]


def estimate(data: AmbientInput) -> Contamination:
    """Contamination as what CellBender removed from each kind of cell, and the counts that it left.

    Where it did not run, contamination is measured as by ``soupx`` and nothing is corrected. A cell that CellBender
    takes for an empty droplet keeps its counts: whether it is a cell was decided by ``calling``. There are no standard
    errors. What came from the partner follows from whose RNA the soup is, gene by gene.
    """
    background = data.background
    if background is None or background.counts is None:
        why = "CellBender was not run" + (f": {background.note}" if background is not None else "")
        found = soupx.estimate(data)
        measured = f"{why}; contamination is measured as by soupx, counts are not corrected"
        return replace(found, corrected=None, note="; ".join(filter(None, [measured, found.note])))
    lost = ~background.is_cell
    corrected = _or_raw(background.counts, data.counts, lost)
    kinds = find_kinds(data)
    table = empty_table(kinds, data.counts)
    notes = [f"CellBender takes {lost.sum():,} of the cells for empty droplets: they keep their counts"] * bool(
        lost.any()
    )
    if not kinds.known:
        return Contamination(kinds.group, table, corrected=corrected, note="; ".join([*notes, NO_KIND]))
    looked_at = data.singlet & background.is_cell
    removed = np.zeros_like(kinds.sums)
    before = np.zeros(len(kinds.known))
    for row, kind in enumerate(kinds.known):
        chosen = looked_at & (kinds.group == kind)
        raw = gene_sums(data.counts, chosen)
        removed[row], before[row] = np.maximum(raw - gene_sums(corrected, chosen), 0.0), raw.sum()
    share = np.divide(removed, before[:, None], out=np.full_like(removed, np.nan), where=before[:, None] > 0)
    empty = data.empty_counts
    soup = removed.sum(axis=0) if empty is None or not empty.any() else empty.astype(np.float64)
    from_partner = np.zeros_like(share)
    if soup.sum() > 0:
        parts = partner_part(kinds, soup)
        profile = soup / soup.sum()
        for row, kind in enumerate(kinds.known):
            part = parts[COMPARTMENT_OF[kind]]
            of_soup = np.divide(part, profile, out=np.zeros_like(part), where=profile > 0)
            # a gene that no empty droplet showed is shared out as the soup as a whole is
            from_partner[row] = share[row] * np.where(profile > 0, of_soup, part.sum())
    table["ambient_fraction"] = share.sum(axis=1)
    table["partner_fraction"] = from_partner.sum(axis=1)
    return Contamination(
        group=kinds.group,
        table=table,
        ambient_fraction=over_cells(table, "ambient_fraction")["ambient_fraction"],
        partner_fraction=over_cells(table, "partner_fraction")["partner_fraction"],
        corrected=corrected,
        profile_from="empty droplets",
        note="; ".join(notes),
    )


def _or_raw(cleaned: sparse.csr_matrix, raw: sparse.csr_matrix, keeps: NDArray[np.bool_]) -> sparse.csr_matrix:
    """``cleaned``, with the rows of ``raw`` for the cells that keep their counts (float32)."""
    if not keeps.any():
        return cleaned
    chosen = sparse.diags(keeps.astype(np.float32), format="csr")
    others = sparse.diags((~keeps).astype(np.float32), format="csr")
    return sparse.csr_matrix(others @ cleaned + chosen @ raw.astype(np.float32))
