"""Signatures of diseases: what rises and falls in patients' immune cells, to hold co-culture against.

A signature is a set of signed genes with their sources (``resources/diseases/diseases.tsv``). Where a gene programme is
the disease's axis, a row names the programme and its genes are not written again. A user adds a disease by adding rows,
in a table beside the shipped one, or by naming a table of fold changes, whose genes then weigh as much as they change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from immunomod.errors import RowError, UserError
from immunomod.genes import ORGANISMS, GeneNames
from immunomod.programs import ProgramSet
from immunomod.tables import REPOSITORY, read_table

SHIPPED = REPOSITORY / "resources" / "diseases"
TABLE = "diseases.tsv"
#: What a config may say of a table of fold changes.
FOLD_CHANGE_KEYS = ("table", "compartment", "disease", "organism", "source")


@dataclass(frozen=True)
class DiseaseSet:
    """All signatures of a run; what :mod:`immunomod.contrast.program_effects` asks of programmes.

    Attributes
    ----------
    table
        One row per signature, indexed by ``<disease>/<signature>``: ``disease, signature, compartment, programs`` (that
        it refers to, joined by ``+``), ``source`` (joined by ``; ``).
    members
        One row per signature, organism and gene: ``name, organism, gene, weight`` (signed), ``verified`` (bool).
    """

    table: pd.DataFrame
    members: pd.DataFrame

    def meta_for(self, organism: str) -> pd.DataFrame:
        """``table`` with a ``role`` of their own and no expected sign: what co-culture does is the question."""
        return self.table.assign(role="disease", expected_sign="?")

    def weights(self, organism: str) -> pd.DataFrame:
        """Signed weights, gene symbols x signatures, 0 where a gene is not of the signature."""
        own = self.members[self.members["organism"] == organism]
        weights = own.pivot(index="gene", columns="name", values="weight").fillna(0.0)
        weights = weights.reindex(columns=self.table.index, fill_value=0.0).rename_axis(index="gene", columns=None)
        return pd.DataFrame(weights, dtype=float)

    def genes_verified(self, organism: str) -> pd.Series:
        """Per signature, how many of its genes somebody read in the source named."""
        own = self.members[(self.members["organism"] == organism) & self.members["verified"]]
        return own["name"].value_counts().reindex(self.table.index, fill_value=0)


def load_diseases(
    tables: Sequence[str | Path],
    programs: ProgramSet,
    fold_changes: Mapping[str, Mapping[str, Any]] | None = None,
) -> DiseaseSet:
    """Read and validate tables of signatures and of fold changes.

    Parameters
    ----------
    tables
        Folders that hold a ``diseases.tsv``, or such files.
    programs
        The programmes that rows may refer to.
    fold_changes
        Signature -> ``table`` (path), ``compartment`` (as in ``diseases.tsv``), and optional ``disease`` (the
        signature's own name otherwise), ``organism`` (``human`` otherwise) and ``source``.

    Raises
    ------
    UserError
        A table breaks its schema, a row names a programme that there is none of, or a signature holds a gene twice,
        stands in two tables or is tested in two compartments.
    """
    described: list[dict[str, str]] = []
    members: list[dict[str, Any]] = []
    for path in map(table_path, tables):
        rows = read_table(path, "diseases", unique=("disease", "signature", "program", "gene_human", "gene_mouse"))
        rows = rows.assign(name=rows["disease"] + "/" + rows["signature"])
        for name, own in rows.groupby("name", sort=False):
            number = int(str(own.index[0]))
            _check_new(str(name), described, path, number)
            _check_one_compartment(own, path)
            described.append(_described(str(name), own))
            members += _members(str(name), own, programs, path)
    for signature, settings in (fold_changes or {}).items():
        row, own_members = _from_fold_changes(signature, settings)
        _check_new(row["name"], described, Path(settings["table"]), 1)
        described.append(row)
        members += own_members
    table = pd.DataFrame(described, columns=["name", "disease", "signature", "compartment", "programs", "source"])
    columns = ["name", "organism", "gene", "weight", "verified"]
    return DiseaseSet(table.set_index("name"), pd.DataFrame(members, columns=columns))


def table_path(path: str | Path) -> Path:
    """The table that a folder holds, or the file itself."""
    path = Path(path)
    return path / TABLE if path.is_dir() or path.suffix == "" else path


def _check_new(name: str, known: Sequence[Mapping[str, str]], path: Path, row: int) -> None:
    if any(one["name"] == name for one in known):
        raise RowError(str(path), row, "signature", f"{name} stands in another table already. Give it another name.")


def _check_one_compartment(own: pd.DataFrame, path: Path) -> None:
    first = own["compartment"].iloc[0]
    for number, compartment in own["compartment"].items():
        if compartment != first:
            problem = f"{compartment!r}, and {first!r} in row {own.index[0]}. Give each a signature of its own."
            raise RowError(str(path), number, "compartment", problem)


def _described(name: str, own: pd.DataFrame) -> dict[str, str]:
    return {
        "name": name,
        "disease": str(own["disease"].iloc[0]),
        "signature": str(own["signature"].iloc[0]),
        "compartment": str(own["compartment"].iloc[0]),
        "programs": "+".join(one for one in own["program"] if one),
        "source": "; ".join(dict.fromkeys(own["source"])),
    }


def _members(name: str, own: pd.DataFrame, programs: ProgramSet, path: Path) -> list[dict[str, Any]]:
    """Genes of one signature in both organisms; each may stand once."""
    members: list[dict[str, Any]] = []
    seen: dict[tuple[str, str], int] = {}
    for number, row in own.iterrows():
        sign = (1.0 if row["direction"] == "+" else -1.0) * float(row["weight"] or 1)
        verified = row["verified"] == "yes"
        for organism in ORGANISMS:
            if row["program"]:
                found = _of_program(row["program"], programs, organism, path, int(str(number)))
            else:
                gene = row[f"gene_{organism}"]
                found = [(GeneNames.load(organism).symbol(gene), 1.0, True)] if gene else []
            for gene, weight, is_read in found:
                if (organism, gene) in seen:
                    first = seen[organism, gene]
                    if organism == "mouse" and first != number:
                        continue  # two human genes may share an orthologue: it counts once
                    column = "program" if row["program"] else f"gene_{organism}"
                    problem = f"{gene} stands in {name} already, by row {first}. Take one of them out."
                    raise RowError(str(path), number, column, problem)
                seen[organism, gene] = int(str(number))
                members.append(
                    {
                        "name": name,
                        "organism": organism,
                        "gene": gene,
                        "weight": sign * weight,
                        "verified": verified and is_read,
                    }
                )
    return members


def _of_program(
    program: str, programs: ProgramSet, organism: str, path: Path, row: int
) -> list[tuple[str, float, bool]]:
    """Genes of a programme with their signed weights, and whether each was read in its source."""
    if program not in programs.table.index:
        close = ", ".join(sorted(map(str, programs.table.index))[:3])
        problem = f"there is no programme {program!r}. Name one of resources/programs, such as {close}."
        raise RowError(str(path), row, "program", problem)
    weights = programs.weights(organism)[program]
    genes = programs.genes[programs.genes["program"] == program]
    is_read = dict(zip(genes[f"gene_{organism}"], genes["verified"], strict=True))
    return [(str(gene), float(weight), bool(is_read[gene])) for gene, weight in weights[weights != 0].items()]


def _from_fold_changes(signature: str, settings: Mapping[str, Any]) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """One signature whose weights are the fold changes of a table.

    An outdated symbol gives way where another row names the gene by its current one.
    """
    path = Path(settings["table"])
    rows = read_table(path, "fold_changes", unique=("gene",))
    organism = str(settings.get("organism", "human"))
    names = GeneNames.load(organism)
    rows = rows.assign(
        change=rows["log2_fold_change"].astype(float), symbol=[names.symbol(one) for one in rows["gene"]]
    )
    faulty = rows.index[~np.isfinite(rows["change"])]
    if len(faulty):
        raise RowError(str(path), faulty[0], "log2_fold_change", "too large a number. Take the gene out.")
    rows = rows[rows["change"] != 0].assign(is_current=lambda table: table["gene"] == table["symbol"])
    rows = rows.sort_values("is_current", ascending=False, kind="stable").drop_duplicates("symbol").sort_index()
    if rows.empty:
        raise UserError(f"{path}: no gene has a log2_fold_change other than 0. Fill the column in.")
    disease = str(settings.get("disease", signature))
    name = f"{disease}/{signature}"
    described = {
        "name": name,
        "disease": disease,
        "signature": signature,
        "compartment": str(settings["compartment"]),
        "programs": "",
        "source": str(settings.get("source", path.name)),
    }
    members = [
        {"name": name, "organism": organism, "gene": gene, "weight": float(change), "verified": True}
        for gene, change in zip(rows["symbol"], rows["change"], strict=True)
    ]
    return described, members
