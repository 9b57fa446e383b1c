"""The marker tables behind cell classes: read, checked, and turned into weights over an atlas's genes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from immunomod.errors import UserError
from immunomod.files import read_tsv
from immunomod.genes import GeneNames

UNASSIGNED = "unassigned"
COMPARTMENTS = ("MSC", "immune", "other")
_CLASS_COLUMNS = ("cell_class", "label", "lineage", "compartment", "ontology")
_MARKER_COLUMNS = ("cell_class", "gene_human", "gene_mouse", "direction", "weight", "source", "verified")
_FIX = "Set annotation.markers to a folder that holds it."
_GENE_COLUMNS = {"human": "gene_human", "mouse": "gene_mouse"}


@dataclass(frozen=True)
class MarkerWeights:
    """Marker genes found in an atlas and what each says for and against each class.

    Attributes
    ----------
    genes
        Positions of the found marker genes in the atlas's gene axis.
    classes
        Classes that compete: those with at least two markers found, and half of what tells them from their parent.
    positive, negative
        Genes x classes; 0 where a gene says nothing.
    """

    genes: NDArray[np.int64]
    classes: tuple[str, ...]
    positive: NDArray[np.float64]
    negative: NDArray[np.float64]


@dataclass(frozen=True)
class MarkerSet:
    """Cell classes (index ``cell_class``) and their markers, as in ``resources/markers``."""

    classes: pd.DataFrame
    markers: pd.DataFrame

    def symbols(self, organism: str) -> set[str]:
        """All marker symbols of an organism, older names included."""
        column = _gene_column(organism)
        names = set(self.markers[column])
        return (names | set(self.markers["alias_human"]) if organism == "human" else names) - {""}

    def weights(self, symbols: pd.Index, organism: str, tissues: Collection[str] = ()) -> MarkerWeights:
        """Weights over the genes of an atlas, given by their ``symbols``.

        A gene is looked up by its current symbol, then by its older one; markers that the atlas lacks are left out, and
        so are those of one tissue that is not among the atlas's ``tissues`` (values of ``msc_source``).
        """
        first = pd.Series(np.arange(len(symbols)), index=symbols)
        first = first[~first.index.duplicated()]
        column = _gene_column(organism)
        position = self.markers[column].map(first)
        if organism == "human":
            position = position.fillna(self.markers["alias_human"].map(first))
        applies = self.markers["tissue"].isin({"", *tissues}) & (self.markers[column] != "")
        found = self.markers.assign(position=position)[applies].dropna(subset=["position"])
        genes = np.unique(found["position"].to_numpy(dtype=np.int64))

        positives = found[found["direction"] == "+"].groupby("cell_class", sort=False)["position"].nunique()
        classes = tuple(
            str(name)
            for name in self.classes.index
            if positives.get(name, 0) >= 2 and self._tells_from_parent(str(name), found, column)
        )
        weights = {sign: np.zeros((len(genes), len(classes))) for sign in "+-"}
        found = found[found["cell_class"].isin(classes)]
        at = np.searchsorted(genes, found["position"].to_numpy(dtype=np.int64))
        for gene, name, sign, weight in zip(
            at, found["cell_class"], found["direction"], found["weight"].to_numpy(dtype=float), strict=True
        ):
            weights[sign][gene, classes.index(name)] = weight
        return MarkerWeights(genes, classes, weights["+"], weights["-"])

    def _tells_from_parent(self, cell_class: str, found: pd.DataFrame, column: str) -> bool:
        """Whether half of what speaks for a class and not for its parent is among the ``found`` markers.

        Without FOXP3 and its like, a regulatory T cell is any CD4 T cell.
        """

        def speaking_for(table: pd.DataFrame, name: str) -> pd.Series:
            rows = table[(table["cell_class"] == name) & (table["direction"] == "+") & (table["tissue"] == "")]
            return rows[rows[column] != ""].set_index(column)["weight"]

        of_parent = speaking_for(self.markers, str(self.classes.loc[cell_class, "parent"])).index
        if of_parent.empty:
            return True
        own, seen = (
            speaking_for(table, cell_class).drop(of_parent, errors="ignore") for table in (self.markers, found)
        )
        return bool(seen.sum() >= own.sum() / 2)

    def lineage(self, cell_class: str) -> str:
        """Lineage of a class."""
        return str(self.classes.loc[cell_class, "lineage"])


def _gene_column(organism: str) -> str:
    if organism not in _GENE_COLUMNS:
        raise UserError(
            f"samples: organism is {organism!r}; cell markers exist for {' and '.join(_GENE_COLUMNS)}. "
            "Correct the column `organism` of the samples table."
        )
    return _GENE_COLUMNS[organism]


def load_markers(folder: Path) -> MarkerSet:
    """Read ``cell_classes.tsv`` and ``markers.tsv`` of ``folder`` and check that they fit together.

    Optional columns: ``parent`` of a class (what its cells are called when the class is not sure); ``alias_human`` of a
    marker (an older symbol) and ``tissue`` (the one ``msc_source`` that it is a marker in). Genes are brought to their
    current symbols, as those of matrices are.

    Raises
    ------
    UserError
        A file or column is missing, a value is not one of those allowed, or a marker names an unknown class.
    """
    class_file, marker_file = folder / "cell_classes.tsv", folder / "markers.tsv"
    classes = read_columns(class_file, _CLASS_COLUMNS, ("parent",), _FIX)
    markers = read_columns(marker_file, _MARKER_COLUMNS, ("alias_human", "tissue"), _FIX)
    _check(class_file, "cell_class", classes["cell_class"], ~classes["cell_class"].duplicated(), "it appears twice")
    known = set(classes["cell_class"])
    if UNASSIGNED not in known:
        raise UserError(f"{class_file}: there is no class {UNASSIGNED!r}. Add it, with lineage {UNASSIGNED!r}.")
    _check(
        class_file, "compartment", classes["compartment"], classes["compartment"].isin(COMPARTMENTS),
        f"use one of {', '.join(COMPARTMENTS)}",
    )  # fmt: skip
    _check(class_file, "parent", classes["parent"], classes["parent"].isin(known | {""}), "no such class")
    _check(class_file, "parent", classes["parent"], ~_in_circle(classes), "it leads back to itself")
    lineage = classes.set_index("cell_class")["lineage"]
    same = classes["parent"].map(lineage).fillna(classes["lineage"]) == classes["lineage"]
    _check(class_file, "parent", classes["parent"], same, "its lineage is another one")
    _check(
        marker_file, "cell_class", markers["cell_class"], markers["cell_class"].isin(known),
        f"add it to {class_file.name}",
    )  # fmt: skip
    _check(marker_file, "direction", markers["direction"], markers["direction"].isin(["+", "-"]), "use + or -")
    weight = pd.to_numeric(markers["weight"], errors="coerce")
    _check(marker_file, "weight", markers["weight"], weight > 0, "use a number above 0")
    for organism, column in _GENE_COLUMNS.items():
        names = GeneNames.load(organism)
        markers[column] = [names.symbol(name) if name else "" for name in markers[column]]
    return MarkerSet(classes.set_index("cell_class"), markers.assign(weight=weight))


def _in_circle(classes: pd.DataFrame) -> pd.Series:
    """Whether a class is among its own ancestors."""
    parent = dict(zip(classes["cell_class"], classes["parent"], strict=True))

    def returns(name: str) -> bool:
        at = parent[name]
        for _ in parent:
            if at in ("", name):
                break
            at = parent[at]
        return bool(at != "")

    return classes["cell_class"].map(returns).astype(bool)


def read_columns(path: Path, columns: tuple[str, ...], optional: tuple[str, ...], fix: str) -> pd.DataFrame:
    """A table of text that has ``columns``; ``optional`` ones are empty where it lacks them.

    Raises
    ------
    UserError
        The file (then ``fix`` says what to do) or a column is missing.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist. {fix}")
    table = read_tsv(path, dtype=str).fillna("")
    missing = [column for column in columns if column not in table]
    if missing:
        raise UserError(f"{path}: column {missing[0]} is missing. It needs {', '.join(columns)}.")
    return table.assign(**{name: "" for name in optional if name not in table})


def _check(path: Path, column: str, values: pd.Series, holds: pd.Series, advice: str) -> None:
    if not holds.all():
        row = int(np.flatnonzero(~holds.to_numpy(dtype=bool))[0])
        raise UserError(f"{path}, row {row + 2}, column {column}: {values.iloc[row]!r}; {advice}.")
