"""Labels of an annotated reference as a witness: each cell by the class whose profile it correlates with most.

After SingleR (Aran et al. 2019, doi:10.1038/s41590-018-0276-y): the genes are, for every pair of classes, those whose
mean log expression differs most; a cell takes the class with the highest Spearman correlation over them, first among
all, then within the lineage over the genes that tell its classes apart. Ranks make it deaf to a gene's scale and to
depth, which differ between laboratories. How sure it is shows by reweighting genes at random, as with markers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import rankdata

from immunomod.atlas.class_names import classes_of
from immunomod.atlas.markers import MarkerSet
from immunomod.atlas.votes import ClassTree, Votes
from immunomod.errors import UserError
from immunomod.genes import GeneNames
from immunomod.parallel import row_blocks

if TYPE_CHECKING:
    import h5py

_ROWS_AT_ONCE = 4096
_CELLS_AT_ONCE = 5_000
_BOOTSTRAPS = 50
_FEWEST_GENES = 50
# A class of fewer cells has no profile to hold anything against.
_FEWEST_CELLS = 5


def votes_of_reference(
    path: Path,
    column: str,
    name: str,
    expression: sparse.csr_matrix,
    symbols: pd.Index,
    markers: MarkerSet,
    tables: Sequence[Path],
    organism: str,
    seed: int,
) -> Votes:
    """What an annotated ``.h5ad`` says of every cell.

    Parameters
    ----------
    path, column
        The reference, and the column of its ``obs`` that holds the labels. Its ``layers["counts"]``, ``raw`` or ``X``
        (the first there is) holds counts, or the log of normalised ones.
    name
        Of the witness.
    expression, symbols
        The atlas's log-normalised expression, cells x genes, averaged over neighbourhoods or not, and its genes.
    markers, tables
        The classes, and tables that bring labels to them. Labels that stand for none take part and vote for
        ``unassigned``.
    organism
        Whose older gene symbols to bring up to date.
    seed
        Of the bootstraps.

    Raises
    ------
    UserError
        The file or column is missing, no label is a known class, or it shares too few genes with the atlas.
    """
    profiles, genes, of_profile = _profiles(path, column, markers, tables, organism)
    at = pd.Series(np.arange(len(symbols)), index=pd.Index(symbols))
    at = at[~at.index.duplicated()]
    shared = genes.isin(at.index) & ~genes.duplicated()
    if shared.sum() < _FEWEST_GENES:
        raise UserError(
            f"{path}: only {int(shared.sum())} of its genes are among the {len(symbols)} that the atlas looks at. "
            "Give a reference of the same organism with gene symbols as var names or in var['gene_symbol']."
        )
    profiles = profiles[:, shared]
    columns = at[genes[shared]].to_numpy(dtype=np.int64)
    tree = ClassTree.of(markers)
    lineage = tree.of_lineage.argmax(axis=1)[of_profile]
    generator = np.random.default_rng(seed)
    stages = [(np.arange(len(profiles)), lineage)]
    stages += [(np.flatnonzero(lineage == one), np.arange(len(profiles))) for one in np.unique(lineage)]
    prepared = []
    for members, kind in stages:
        if len(members) < 2:
            continue
        chosen = _telling_genes(profiles[members], kind[members])
        if len(chosen) >= 2:
            ranks = rankdata(profiles[np.ix_(members, chosen)], axis=1)
            weights = generator.exponential(size=(_BOOTSTRAPS, len(chosen)))
            prepared.append((members, chosen, _projections(ranks, weights)))
    shares = np.zeros((expression.shape[0], len(tree.names)), dtype=np.float32)
    for rows in row_blocks(expression.shape[0], _CELLS_AT_ONCE):
        values = expression[rows][:, columns].toarray()
        shares[rows] = _shares(values, prepared, lineage, len(profiles)) @ np.eye(len(tree.names))[of_profile]
    knows = np.zeros(len(tree.names), dtype=bool)
    knows[of_profile] = True
    return Votes(name, shares, knows)


def _shares(
    values: NDArray[np.float32],
    prepared: Sequence[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]],
    lineage: NDArray[np.int64],
    n_profiles: int,
) -> NDArray[np.float64]:
    """Cells x profiles: how often a lineage wins, shared out by how often each of its classes wins within it."""
    won: dict[int, NDArray[np.float64]] = {}
    overall = np.full((len(values), n_profiles), 1 / n_profiles)
    within = np.ones((len(values), n_profiles))
    for members, chosen, projections in prepared:
        ranks = rankdata(values[:, chosen], axis=1).astype(np.float32)
        wins = np.zeros((len(values), len(members)))
        for projection in projections.astype(np.float32):
            wins[np.arange(len(values)), (ranks @ projection).argmax(axis=1)] += 1
        wins /= len(projections)
        if len(members) == n_profiles and not won:
            won[-1], overall = wins, wins
            if len(set(lineage)) == 1:
                return wins
        else:
            within[:, members] = wins
    of_lineage = np.zeros_like(overall)
    for one in np.unique(lineage):
        of_lineage[:, lineage == one] = overall[:, lineage == one].sum(axis=1, keepdims=True)
    several = np.bincount(lineage)[lineage] > 1
    return np.where(several, of_lineage * within, overall)


def _projections(ranks: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each draw of gene weights a matrix (genes x profiles) by which ranks become weighted correlations.

    Up to a factor of the cell alone, which changes no order among the profiles.
    """
    drawn = []
    for weight in weights:
        centred = ranks - (ranks @ weight / weight.sum())[:, None]
        size = np.sqrt((centred**2 * weight).sum(axis=1))
        drawn.append((centred * weight / np.where(size > 0, size, 1)[:, None]).T)
    return np.asarray(drawn)


def _telling_genes(profiles: NDArray[np.float64], kind: NDArray[np.int64]) -> NDArray[np.int64]:
    """Genes that differ most between any two profiles of different ``kind``, in SingleR's number per pair."""
    n_per_pair = max(5, round(500 * (2 / 3) ** np.log2(max(2, len(set(kind))))))
    chosen: set[int] = set()
    for first in range(len(profiles)):
        for second in range(len(profiles)):
            if kind[first] != kind[second]:
                difference = profiles[first] - profiles[second]
                top = np.argsort(-difference, kind="stable")[:n_per_pair]
                chosen.update(top[difference[top] > 0].tolist())
    return np.array(sorted(chosen), dtype=np.int64)


def reference_labels(path: Path, column: str) -> list[str]:
    """The labels of a reference; only its table of cells is read.

    Raises
    ------
    UserError
        The file or the column is missing.
    """
    with _opened(path) as file:
        return [str(label) for label in pd.unique(_labels(file, path, column).dropna())]


def _opened(path: Path) -> h5py.File:
    import h5py

    if not path.is_file():
        raise UserError(f"{path} does not exist. Correct annotation.references in the config.")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"{path} is no readable .h5ad ({error}). Give an AnnData file.") from error


def _labels(file: h5py.File, path: Path, column: str) -> pd.Series:
    from anndata.io import read_elem

    if "obs" not in file:
        raise UserError(f"{path} has no table of cells. Give an AnnData file.")
    obs: pd.DataFrame = read_elem(file["obs"])
    if column not in obs:
        raise UserError(f"{path}: obs has no column {column!r}. Name one of {', '.join(map(str, obs.columns))} "
                        "under annotation.references.")  # fmt: skip
    given = obs[column].astype(object)
    return given.where(given.notna(), None)


def _profiles(
    path: Path, column: str, markers: MarkerSet, tables: Sequence[Path], organism: str
) -> tuple[NDArray[np.float64], pd.Index, NDArray[np.int64]]:
    """Mean log-normalised expression of the reference's labels (labels x genes), gene symbols, class of each label."""
    import h5py
    from anndata.io import read_elem, sparse_dataset

    with _opened(path) as file:
        labels, names = pd.factorize(_labels(file, path, column))
        where = next((one for one in ("layers/counts", "raw/X", "X") if one in file), "")
        if not where:
            raise UserError(f"{path} holds no matrix. Give an AnnData file with counts.")
        var = read_elem(file["raw/var" if where == "raw/X" else "var"])
        stored = file[where]
        matrix = sparse_dataset(stored) if isinstance(stored, h5py.Group) else stored
        if isinstance(stored, h5py.Group) and stored.attrs["encoding-type"] == "csc_matrix":
            matrix = matrix.to_memory().tocsr()
        counts = np.bincount(labels[labels >= 0], minlength=len(names))
        sums = np.zeros((len(names), matrix.shape[1]))
        for rows in row_blocks(matrix.shape[0], _ROWS_AT_ONCE):
            block = _log_normalised(sparse.csr_matrix(matrix[rows]), path)
            own = labels[rows]
            member = sparse.csr_matrix(
                (np.ones((own >= 0).sum()), (own[own >= 0], np.flatnonzero(own >= 0))), shape=(len(names), len(own))
            )
            sums += (member @ block).toarray()
    kept = counts >= _FEWEST_CELLS
    if kept.sum() < 2:
        raise UserError(f"{path}: fewer than two labels of {column!r} have {_FEWEST_CELLS} cells. Give a larger "
                        "reference.")  # fmt: skip
    symbols = var["gene_symbol"] if "gene_symbol" in var else var.get("feature_name", var.index.to_series())
    current = GeneNames.load(organism)
    genes = pd.Index([current.symbol(str(symbol)) for symbol in symbols])
    of_label = classes_of([str(name) for name in names[kept]], markers, tables, f"{path}, obs[{column!r}]")
    return sums[kept] / counts[kept, None], genes, of_label


def _log_normalised(block: sparse.csr_matrix, path: Path) -> sparse.csr_matrix:
    """Counts as log of 1 + counts per 10,000; what is log-normalised already as it is."""
    values = block.data
    if len(values) and (values.min() < 0 or not np.isfinite(values).all()):
        raise UserError(f"{path}: its matrix holds negative or missing values. Give counts or log-normalised ones.")
    if (values == np.round(values)).all():
        total = np.asarray(block.sum(axis=1)).ravel()
        block = sparse.diags(1e4 / np.where(total > 0, total, 1)) @ block
        return sparse.csr_matrix(block.log1p())
    if values.max() > 50:
        raise UserError(f"{path}: its matrix is neither counts nor their log. Put counts into layers['counts'].")
    return block
