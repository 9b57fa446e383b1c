"""The gene programmes: signed gene sets with a role, an expected sign and the evidence for every gene.

A folder of programmes holds ``programs.tsv`` (one row per gene) and ``programs_meta.tsv`` (one row per programme). A
user adds a programme by adding rows to the shipped tables or by naming a second folder in the config. Genes may stand
there under any name they ever had: they are brought to the current symbol, as the genes of every matrix are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from immunomod.errors import UserError
from immunomod.genes import ORGANISMS, GeneNames
from immunomod.tables import REPOSITORY, read_table

__all__ = ["ORGANISMS", "SHIPPED", "ProgramSet", "load_programs"]

SHIPPED = REPOSITORY / "resources" / "programs"


@dataclass(frozen=True)
class ProgramSet:
    """All programmes of a run.

    Attributes
    ----------
    genes
        One row per programme and gene: ``program, compartment, gene_human, gene_mouse`` (current symbols),
        ``direction`` (``+`` or ``-``), ``weight`` (float), ``source, evidence, verified`` (bool).
    table
        One row per programme, as in ``programs_meta.tsv``, indexed by ``program``.
    """

    genes: pd.DataFrame
    table: pd.DataFrame

    @property
    def meta(self) -> pd.DataFrame:
        """:meth:`meta_for` human data."""
        return self.meta_for("human")

    def meta_for(self, organism: str) -> pd.DataFrame:
        """``table`` with ``expected_sign`` (``+``, ``-``, ``0``, ``?``) and ``positive_control`` (bool) resolved."""
        _check_organism(organism)
        meta = self.table.copy()
        meta["expected_sign"] = meta[f"expected_sign_{organism}"]
        meta["positive_control"] = [organism in value.split(",") for value in meta["positive_control_in"]]
        return meta

    def weights(self, organism: str) -> pd.DataFrame:
        """Signed weights, gene symbols x programmes, 0 where a gene is not of the programme.

        Genes without an orthologue in ``organism`` are left out; a gene that stands twice (two human genes with one
        mouse orthologue) counts once.
        """
        _check_organism(organism)
        column = f"gene_{organism}"
        genes = self.genes[self.genes[column] != ""].drop_duplicates(["program", column])
        signed = genes["weight"].where(genes["direction"] == "+", -genes["weight"])
        weights = genes.assign(signed=signed).pivot(index=column, columns="program", values="signed").fillna(0.0)
        weights = weights.reindex(columns=self.table.index, fill_value=0.0).rename_axis(index="gene", columns="program")
        return weights

    def responsive_genes(self, organism: str) -> dict[str, set[str]]:
        """Compartment (``MSC``, ``immune``) -> genes of all programmes but quality controls that its cells may run."""
        weights = self.weights(organism)
        genes: dict[str, set[str]] = {"MSC": set(), "immune": set()}
        for program, compartment, role in zip(
            self.table.index, self.table["compartment"], self.table["role"], strict=True
        ):
            members = set(weights.index[weights[program] != 0]) if role != "QC" else set()
            for side in genes:
                if compartment == "both" or compartment.split(":")[0] == side:
                    genes[side] |= members
        return genes


def _check_organism(organism: str) -> None:
    if organism not in ORGANISMS:
        raise ValueError(f"no programmes for organism {organism!r}: one of {', '.join(ORGANISMS)} is needed")


def load_programs(folders: Sequence[str | Path] = (SHIPPED,)) -> ProgramSet:
    """Read and validate the programmes of one or several folders.

    Raises
    ------
    UserError
        A table breaks its schema, a programme lacks its row in the other table or stands in two folders, or one gene
        stands in a programme under two names.
    """
    genes: list[pd.DataFrame] = []
    tables: list[pd.DataFrame] = []
    for folder in map(Path, folders):
        gene_path, meta_path = folder / "programs.tsv", folder / "programs_meta.tsv"
        gene = read_table(gene_path, "programs", unique=("program", "gene_human", "gene_mouse"))
        meta = read_table(meta_path, "programs_meta", unique=("program",))
        for number, program in gene["program"].items():
            if program not in set(meta["program"]):
                raise UserError(f"{gene_path} row {number}: programme {program!r} has no row in {meta_path}. Add one.")
        for number, program in meta["program"].items():
            if program not in set(gene["program"]):
                raise UserError(f"{meta_path} row {number}: programme {program!r} has no genes in {gene_path}.")
            if any(program in set(other["program"]) for other in tables):
                raise UserError(f"{meta_path} row {number}: programme {program!r} stands in another folder already.")
        genes.append(_with_current_symbols(gene, gene_path))
        tables.append(meta)
    gene_table = pd.concat(genes, ignore_index=True)
    gene_table["weight"] = gene_table["weight"].replace("", "1").astype(float)
    gene_table["verified"] = gene_table["verified"] == "yes"
    table = pd.concat(tables, ignore_index=True).set_index("program")
    gene_table["compartment"] = gene_table["program"].map(table["compartment"])
    return ProgramSet(genes=gene_table, table=table)


def _with_current_symbols(genes: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Replace outdated symbols, where they mean one gene. Several human genes may share one orthologue of the mouse."""
    current = genes.copy()
    for organism in ORGANISMS:
        column, names = f"gene_{organism}", GeneNames.load(organism)
        current[column] = [names.symbol(name) if name else "" for name in genes[column]]
        given: dict[tuple[str, str], tuple[str, int]] = {}
        rows = zip(genes.index, genes["program"], genes[column], current[column], strict=True)
        for number, program, name, symbol in rows:
            other, row = given.setdefault((program, symbol), (name, number))
            if symbol and other != name:
                raise UserError(
                    f"{path} row {number}, column {column}: {name!r} is the same gene as {other!r} of row {row} (today "
                    f"{symbol}); keep one of them."
                )
    return current
