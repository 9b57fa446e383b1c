"""Names of features: which column holds ids, symbols and types, and their clean-up before counts meet gene sets."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from immunomod.errors import UserError

GENE_EXPRESSION = "Gene Expression"
#: Values of the third column of CellRanger's features.tsv, and of ``feature_types`` in h5 and h5ad files.
FEATURE_TYPES = frozenset(
    {
        GENE_EXPRESSION,
        "Antibody Capture",
        "Antigen Capture",
        "CRISPR Guide Capture",
        "Custom",
        "Multiplexing Capture",
        "Peaks",
        "VDJ",
        "VDJ-T",
        "VDJ-B",
    }
)
#: Genome names that CellRanger puts before ids and symbols, and the species they stand for.
GENOME_PREFIXES = {
    "GRCh38": "human",
    "GRCh37": "human",
    "hg38": "human",
    "hg19": "human",
    "GRCm39": "mouse",
    "GRCm38": "mouse",
    "mm39": "mouse",
    "mm10": "mouse",
}
_PREFIX = re.compile(rf"^({'|'.join(GENOME_PREFIXES)})_+")
_ENSEMBL = re.compile(r"^ENS[A-Z]*G\d{6,}(\.\d+)?(_PAR_Y)?$")
_VERSION = re.compile(r"^(ENS[A-Z]*G\d{6,})(?:\.\d+)?(?:_PAR_Y)?$")
_BARCODE = re.compile(r"(?:^|[^A-Za-z])[ACGTN]{8,}(?:[-_.]\w+)*$")
#: Genes that nearly every expression matrix names: they tell a gene axis from a cell axis.
_COMMON_GENES = frozenset(
    {
        "ACTB", "ACTG1", "B2M", "GAPDH", "EEF1A1", "TMSB4X", "TMSB10", "FTL", "FTH1",
        "TPT1", "PTMA", "MALAT1", "UBC", "UBB", "HSPA8", "HSP90AA1", "HSP90AB1", "NPM1",
        "PABPC1", "RPLP0", "RPLP1", "RPS3", "RPS6", "RPS18", "RPL3", "RPL5", "RPL10",
        "RPL13", "RPL13A", "VIM", "CFL1", "PFN1", "ENO1", "LDHA", "PGK1", "TUBA1B",
        "TUBB", "EIF4A1", "HNRNPA1", "MT-CO1", "MT-ND1", "MT-CYB", "CD74", "NOC2L", "HES4",
        "ISG15", "SAMD11", "AGRN", "APP", "SOD1",
    }
)  # fmt: skip


def is_ensembl(names: pd.Series) -> pd.Series:
    """Whether each name is an Ensembl gene id, with or without version and genome prefix."""
    return names.str.replace(_PREFIX, "", regex=True).str.match(_ENSEMBL)


def looks_like_barcodes(names: pd.Series) -> bool:
    """Whether most names end in a cell barcode (eight or more of A, C, G, T), maybe with a prefix or a suffix."""
    return bool(len(names)) and float(names.str.contains(_BARCODE).mean()) > 0.5


def looks_like_genes(names: pd.Series) -> bool:
    """Whether the names are Ensembl ids, or hold at least two genes that nearly every expression matrix names."""
    if not len(names):
        return False
    if float(is_ensembl(names).mean()) > 0.5:
        return True
    upper = names.str.replace(_PREFIX, "", regex=True).str.upper().str.split(";").str[0]
    return int(upper.isin(_COMMON_GENES).sum()) >= 2


def feature_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Find ids, symbols and types in a feature table of any number of columns.

    Parameters
    ----------
    table
        One row per feature, all values str. CellRanger's order (id, symbol, type) is assumed only where the content
        does not tell: ids are recognised as Ensembl's, types as CellRanger's.

    Returns
    -------
    Columns ``gene_id``, ``gene_symbol``, ``feature_type``, in the order of ``table``; empty where unknown.
    """
    columns = [table.iloc[:, i].astype(str) for i in range(table.shape[1])]
    types = [column for column in columns if column.isin(FEATURE_TYPES).all()]
    others = [column for column in columns if not any(column is one for one in types)]
    share = [float(is_ensembl(column).mean()) for column in others]
    empty = pd.Series("", index=table.index)
    if not others:
        raise UserError("a feature table names no genes: every column holds feature types")
    if max(share) > 0.5:
        gene_id = others[int(np.argmax(share))]
        rest = [column for column in others if column is not gene_id]
        gene_symbol = rest[0] if rest else gene_id
    elif len(others) >= 2 and not others[0].equals(others[1]):
        gene_id, gene_symbol = others[0], others[1]
    else:
        gene_id, gene_symbol = empty, others[0]
    return pd.DataFrame(
        {
            "gene_id": gene_id.to_numpy(dtype=object),
            "gene_symbol": gene_symbol.to_numpy(dtype=object),
            "feature_type": (types[0] if types else empty).to_numpy(dtype=object),
        }
    )


@dataclass
class GeneCounts:
    """Counts of genes only, with one column per gene.

    ``matrix`` cells x genes (CSR int32); ``var`` has one row per gene (index: gene id, or symbol where there is no id;
    columns ``gene_id``, ``gene_symbol``); ``decisions`` are sentences for the ledger.
    """

    matrix: sparse.csr_matrix
    var: pd.DataFrame
    decisions: list[str]


def gene_counts(matrix: sparse.csr_matrix, features: pd.DataFrame, where: str) -> GeneCounts:
    """Keep gene expression, clean the names, and sum the columns that name the same gene.

    Features of other types (antibodies, hashtags, guides) are set aside. Genome prefixes of a single species and the
    versions of Ensembl ids are removed. ``matrix`` is canonical int32 CSR, cells x features.

    Raises
    ------
    UserError
        Where no gene is left, or where the matrix mixes genes of two species.
    """
    decisions: list[str] = []
    types = features["feature_type"]
    genes = types.isin(["", GENE_EXPRESSION]).to_numpy()
    if not genes.all():
        aside = ", ".join(f"{count:,} {kind}" for kind, count in types[~genes].value_counts().items())
        decisions.append(f"set aside features that are no genes: {aside}")
        matrix, features = matrix[:, genes], features.loc[genes]
    if features.empty:
        raise UserError(f"{where}: holds no gene expression ({decisions[-1] if decisions else 'no feature'})")
    gene_id, id_note = _clean(features["gene_id"], where)
    gene_symbol, symbol_note = _clean(features["gene_symbol"], where)
    decisions += [note for note in dict.fromkeys((*id_note, *symbol_note)) if note]
    gene_symbol = gene_symbol.where(gene_symbol != "", gene_id)
    key = gene_id.where(gene_id != "", gene_symbol)
    codes, names = pd.factorize(key)
    if len(names) < len(key):
        decisions.append(f"summed {len(key) - len(names):,} columns into the gene of the same id")
        indicator = sparse.csr_matrix(
            (np.ones(len(key), dtype=np.int32), (np.arange(len(key)), codes)), shape=(len(key), len(names))
        )
        matrix = sparse.csr_matrix(matrix @ indicator)
        matrix.sort_indices()
    first = ~pd.Series(codes).duplicated().to_numpy()
    var = pd.DataFrame(
        {"gene_id": gene_id.to_numpy()[first], "gene_symbol": gene_symbol.to_numpy()[first]}, index=pd.Index(names)
    ).astype(object)
    return GeneCounts(matrix, var, decisions)


def _clean(names: pd.Series, where: str) -> tuple[pd.Series, list[str]]:
    """Remove the genome prefix of a single species and the versions of Ensembl ids; say which were found."""
    notes = []
    names = names.astype(str).str.strip().str.strip('"')
    prefix = names.str.extract(_PREFIX, expand=False)
    found = list(prefix.dropna().unique())
    if len({GENOME_PREFIXES[name] for name in found}) > 1:
        raise UserError(
            f"{where}: mixes genes of {' and '.join(sorted(found))}; cells of two species in one matrix cannot be told "
            "apart yet. Give one species' matrix, or leave the sample out"
        )
    if found:
        names = names.str.replace(_PREFIX, "", regex=True)
        notes.append(f"removed the prefix {', '.join(name + '_' for name in found)}")
    bare = names.str.replace(_VERSION, r"\1", regex=True)
    if (versions := int((bare != names).sum())) > 0:
        notes.append(f"removed the version of {versions:,} Ensembl ids")
    return bare, notes
