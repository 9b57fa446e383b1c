"""Names of features: which column holds ids, symbols and types, and their clean-up before counts meet gene sets."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from immunomod.errors import UserError
from immunomod.genes import ORGANISMS, GeneNames, ensembl_species, name_species, species_of

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
#: Genome names that CellRanger (or the author of a mixed reference) puts before ids and symbols, and their species.
GENOME_PREFIXES = {
    "GRCh38": "human",
    "GRCh37": "human",
    "hg38": "human",
    "hg19": "human",
    "GRCm39": "mouse",
    "GRCm38": "mouse",
    "mm39": "mouse",
    "mm10": "mouse",
    "HUMAN": "human",
    "MOUSE": "mouse",
}
#: Also with what some references add to the genome's name (``GRCh38_premrna_``), and with the dashes that Seurat makes
#: of underscores (``mm10---Actb``).
_PREFIX = re.compile(rf"^({'|'.join(GENOME_PREFIXES)})(?:[_-]pre-?m?rna)?(?:_+|-+)(?=.)", re.IGNORECASE)
_BEGINNINGS = frozenset(name[:2].lower() for name in GENOME_PREFIXES)
_GENOMES = {name.lower(): species for name, species in GENOME_PREFIXES.items()}
_ENSEMBL = re.compile(r"^ENS[A-Z]*G\d{6,}(\.\d+)?(_PAR_Y)?$")
_VERSION = re.compile(r"^(ENS[A-Z]*G\d{6,})(?:\.\d+)?(?:_PAR_Y)?$")
_WELL = re.compile(r"[A-Za-z]\d{1,3}")
#: What R's make.unique and scanpy's var_names_make_unique add to the second of two equal names.
_MADE_UNIQUE = re.compile(r"(?<=[A-Za-z0-9])[.-]\d{1,3}$")
_NAMELESS = frozenset({"", "NA", "nan", "NaN", "None", "null", "N/A"})
_BARCODE = re.compile(r"(?:^|[^A-Za-z])[ACGTN]{8,}(?:[-_.]\w+)*$")
#: Genes that nearly every expression matrix names: they tell a gene axis from a cell axis.
COMMON_GENES = frozenset(
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
    """Whether a fifth of the names (two at least) are known genes of human or mouse, or half are Ensembl ids.

    Names of one letter and a number (``C3``, ``A1``) say nothing: plates of cells are named so, and genes too.
    """
    if not len(names):
        return False
    if float(is_ensembl(names).mean()) > 0.5:
        return True
    bare = names.astype(str).str.strip().str.strip('"').str.replace(_PREFIX, "", regex=True)
    told = bare.str.split(";").str[0].str.replace(_MADE_UNIQUE, "", regex=True)
    tables = [GeneNames.load(organism) for organism in ORGANISMS]
    known = [not _WELL.fullmatch(name) and any(table.knows(name) for table in tables) for name in told]
    return sum(known) >= max(2, 0.2 * len(known))


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
    types = [column for column in columns if len(column) and column.isin(FEATURE_TYPES).all()]
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


#: Feature types that are genes, in lower case.
_GENE_TYPES = frozenset({"", "gene expression", "gene", "rna", "expression"})
#: Feature types that no later step uses, by their beginning in snake case.
_UNUSED_KINDS = ("peaks", "vdj")
SPIKE_IN, TRANSGENE, HASHTAGS, ANTIBODIES = "spike_in", "transgene", "hashtags", "antibody_capture"
_SPIKE_IN = re.compile(r"(?:.*_)?ERCC[-_.]\d{5}")
#: Names of hashtags, which are found among antibodies and among features without a type: HTO-1, HTO_A, Hashtag1_TotalA,
#: anti-human Hashtag 3, CMO301, MULTIseq4.
HASHTAG_NAME = re.compile(
    r"(?:.*[^A-Za-z])?(?:HTO[A-Z]?(?![A-Za-z])|hash[-_. ]?tag|cell[-_. ]?hash|CMO\d{3}|LMO\d|multi[-_. ]?seq).*",
    re.IGNORECASE,
)
#: Names of antibodies among features without a type: ADT_CD3, CD3-ADT, CD3_TotalSeqB, CD3-TotalA.
_ANTIBODY = re.compile(r"(?:ADT|AB)[-_. ].+|.+[-_. ](?:ADT|Total(?:Seq)?[-_. ]?[ABCD]\d*)", re.IGNORECASE)
_TRANSGENE = re.compile(
    r"(?:e?[gyrc]fp|t?d?tomato|m?(?:cherry|scarlet|venus|citrine|neongreen|turquoise\d?|kate\d?)|zsgreen\d?|dsred\d?"
    r"|tagbfp|i?cre(?:ert2?)?|rtta\d?|(?:sp)?d?cas9|wpre|luc\d|luciferase|lacz)(?:[-_. ].*)?",
    re.IGNORECASE,
)
#: Rows that counting programs (htseq-count, STAR, CITE-seq-Count) add below the genes.
SUMMARY_NAME = re.compile(
    r"_{0,2}(?:no_feature|ambiguous|too_low_aQual|not_aligned|alignment_not_unique)"
    r"|N_(?:unmapped|multimapping|noFeature|ambiguous)|unmapped"
)
#: From this share of rows (five at least) on, ids or symbols of a species are no accident.
_MIN_SHARE, _MIN_ROWS = 0.1, 5


@dataclass(frozen=True)
class OtherFeatures:
    """Features of one kind that are no genes: unique ``names`` and ``matrix``, cells x features (CSR int32)."""

    names: list[str]
    matrix: sparse.csr_matrix


@dataclass
class GeneCounts:
    """Counts of genes only, with one column per gene.

    Parameters
    ----------
    matrix
        cells x genes (CSR int32).
    var
        One row per gene; index gene id, or current symbol where there is no id. ``gene_id`` (empty where unknown),
        ``gene_symbol`` (current), ``gene_symbol_given`` (as in the file; that of the first of several summed columns).
    decisions
        Sentences for the ledger.
    other
        Features that are no genes, by kind: ``antibody_capture``, ``hashtags``, ``crispr_guide_capture``,
        ``multiplexing_capture``, ``custom``, ``spike_in``, ``transgene``, ...
    other_species_counts
        For each cell, its counts in genes of another species; None where one species was counted.
    """

    matrix: sparse.csr_matrix
    var: pd.DataFrame
    decisions: list[str]
    other: dict[str, OtherFeatures] = field(default_factory=dict)
    other_species_counts: NDArray[np.int64] | None = None


def gene_counts(matrix: sparse.csr_matrix, features: pd.DataFrame, where: str, organism: str = "") -> GeneCounts:
    """Keep gene expression, give genes their current symbols, and sum the columns that name the same gene.

    Genome prefixes and versions of Ensembl ids are removed. Features of other types are kept apart; hashtags among
    antibodies are told by name, and so are hashtags, antibodies, spike-ins and transgenes among features that have no
    type or all have the type of genes (as DropletUtils writes them). Where the matrix holds several species, only genes
    of ``organism`` stay, and each cell's counts in the others' are added up: which cells are whose is decided where the
    empty droplets are known (:mod:`immunomod.sample.species`).

    Columns are summed where they share a gene id; without ids, where they share a symbol, or where software made the
    second of two equal symbols unique (``A.1`` or ``A-1`` beside ``A``, and no gene is called so).

    Parameters
    ----------
    matrix
        cells x features, canonical int32 CSR.
    features
        Columns ``gene_id``, ``gene_symbol``, ``feature_type``, maybe ``genome``; str, empty where unknown.
    where
        The file and sample, for messages.
    organism
        The sheet's: ``human`` or ``mouse``. Empty: whatever species the matrix has, but one only.

    Raises
    ------
    UserError
        Where there are features and none is a gene, where the matrix is of another species than ``organism`` or mixes
        several and ``organism`` is not given, and where ids and symbols do not belong together. A matrix without cells
        raises what its features alone tell.
    """
    if features.empty:
        nameless = pd.DataFrame(
            columns=["gene_id", "gene_symbol", "gene_symbol_given"], index=pd.Index([], dtype=object), dtype=object
        )
        return GeneCounts(sparse.csr_matrix(matrix.shape, dtype=np.int32), nameless, ["no feature is listed"], {}, None)
    table, decisions = _cleaned(features)
    kinds = _kinds(table)
    is_gene = kinds == ""
    decisions += _said_of_kinds(kinds, table["feature_type"].to_numpy())
    if not is_gene.any():
        raise UserError(
            f"{where}: holds no gene expression ({decisions[-1]}); point source at the matrix of genes, and name "
            "this one beside it, behind a comma"
        )
    species = np.where(is_gene, _row_species(table, is_gene), "")
    own = _own_genes(species, is_gene, organism, where)
    spoken = organism if organism in ORGANISMS else _only_species(table[own], species[own])

    foreign_counts = None
    if (foreign := is_gene & ~own).any():
        foreign_counts = _foreign_counts(matrix, own, foreign, organism, species, where)
        decisions.append(f"set aside {foreign.sum():,} genes of {_listed_species(species[foreign])}")
    other = {
        kind: OtherFeatures(_unique_names(table[kinds == kind]), matrix[:, kinds == kind])
        for kind in sorted(set(kinds) - {""})
        if not kind.startswith(_UNUSED_KINDS) and kind not in ("summary", "nameless")
    }
    if not own.all():
        matrix, table = matrix[:, own], table.loc[own]
    var, codes, notes = _name_genes(table, spoken, where)
    return GeneCounts(_summed(matrix, codes, len(var)), var, decisions + notes, other, foreign_counts)


# --- names -----------------------------------------------------------------------------------------------------------


def _cleaned(features: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Bare ids and symbols, the genome that a prefix or the column ``genome`` names, and what was removed."""
    table = pd.DataFrame({"feature_type": features["feature_type"].astype(str).to_numpy(dtype=object)})
    table["genome"] = features["genome"].astype(str).to_numpy(dtype=object) if "genome" in features else ""
    table["given"] = features["gene_symbol"].astype(str).to_numpy(dtype=object)
    genome = table["genome"].tolist()
    prefixes: dict[str, None] = {}
    versions = 0
    for column in ("gene_id", "gene_symbol"):
        names = [str(name).strip().strip('"') for name in features[column]]
        for row, name in enumerate(names):
            if name[:2].lower() in _BEGINNINGS and (match := _PREFIX.match(name)):
                prefixes[match[1]] = None
                genome[row], names[row] = match[1], name[match.end() :]
        bare = [_VERSION.sub(r"\1", name) if name.startswith("ENS") else name for name in names]
        versions = max(versions, sum(one != other for one, other in zip(bare, names, strict=True)))
        table[column] = pd.Series(["" if name in _NAMELESS else name for name in bare], dtype=object)
    table["genome"] = pd.Series(genome, dtype=object)
    notes = []
    if prefixes:
        notes.append(f"removed the prefix {', '.join(f'{name}_' for name in prefixes)}")
    if versions:
        notes.append(f"removed the version of {versions:,} Ensembl ids")
    return table, notes


def _kinds(table: pd.DataFrame) -> NDArray[np.object_]:
    """What each feature is: empty for a gene, else a kind in snake case."""
    kinds = np.empty(len(table), dtype=object)
    tables = [GeneNames.load(organism) for organism in ORGANISMS]
    snake = {kind: re.sub(r"[^a-z0-9]+", "_", kind.lower()).strip("_") for kind in table["feature_type"].unique()}
    columns = (table[name] for name in ("gene_id", "gene_symbol", "feature_type"))
    for row, (gene_id, symbol, feature_type) in enumerate(zip(*columns, strict=True)):
        if feature_type.lower() not in _GENE_TYPES:
            kinds[row] = snake[feature_type]
            if kinds[row] == ANTIBODIES and (HASHTAG_NAME.fullmatch(symbol) or HASHTAG_NAME.fullmatch(gene_id)):
                kinds[row] = HASHTAGS
        elif ensembl_species(gene_id) or any(symbol in names.current for names in tables):
            kinds[row] = ""
        else:
            kinds[row] = _kind_by_name(symbol or gene_id)
            if kinds[row] == TRANSGENE and any(names.knows(symbol) for names in tables):
                kinds[row] = ""
    return kinds


def _kind_by_name(name: str) -> str:
    if not name:
        return "nameless"
    patterns = (
        (_SPIKE_IN, SPIKE_IN),
        (SUMMARY_NAME, "summary"),
        (HASHTAG_NAME, HASHTAGS),
        (_ANTIBODY, ANTIBODIES),
        (_TRANSGENE, TRANSGENE),
    )
    return next((kind for pattern, kind in patterns if pattern.fullmatch(name)), "")


def _said_of_kinds(kinds: NDArray[np.object_], types: NDArray[np.object_]) -> list[str]:
    """One sentence on the features that are no genes, by their type in the file, or the kind that their name tells."""
    words = {
        HASHTAGS: "hashtags",
        SPIKE_IN: "spike-ins",
        TRANSGENE: "transgenes",
        "summary": "summary rows of a counting program",
        "nameless": "features without a name",
    }
    said = [
        words.get(kind) or (feature_type if feature_type.lower() not in _GENE_TYPES else "antibodies by their name")
        for kind, feature_type in zip(kinds, types, strict=True)
        if kind
    ]
    counted = pd.Series(said, dtype=object).value_counts()
    aside = ", ".join(f"{number:,} {kind}" for kind, number in counted.items())
    return [f"set aside features that are no genes: {aside}"] if aside else []


def _unique_names(table: pd.DataFrame) -> list[str]:
    """Symbols, with the id behind those that stand twice, and a number where that does not help."""
    names = table["gene_symbol"].where(table["gene_symbol"] != "", table["gene_id"])
    twice = names.duplicated(keep=False) & (table["gene_id"] != names) & (table["gene_id"] != "")
    names = names.where(~twice, names + " (" + table["gene_id"] + ")")
    number = names.groupby(names).cumcount()
    return [f"{name} #{n + 1}" if n else str(name) for name, n in zip(names, number, strict=True)]


# --- species ---------------------------------------------------------------------------------------------------------


def _row_species(table: pd.DataFrame, is_gene: NDArray[np.bool_]) -> NDArray[np.object_]:
    """The species of each row: by genome, else by Ensembl id; by symbol only where a table of symbols mixes two."""
    genomes = {name: _genome_species(name) for name in table["genome"].unique()}
    species = np.array([genomes[name] for name in table["genome"]], dtype=object)
    gene_id, symbols = table["gene_id"].to_numpy(dtype=object), table["gene_symbol"].to_numpy(dtype=object)
    for row in np.flatnonzero(species == ""):
        species[row] = ensembl_species(gene_id[row]) or ensembl_species(symbols[row])
    untold = np.flatnonzero((species == "") & is_gene)
    if 2 * len(untold) <= is_gene.sum():
        return species
    told = np.array([name_species(name) for name in symbols[untold]], dtype=object)
    numbers = [int((told == organism).sum()) for organism in ORGANISMS]
    if min(numbers) >= max(_MIN_ROWS, _MIN_SHARE * sum(numbers)):
        by_case = ["human" if name == name.upper() else "mouse" for name in symbols[untold]]
        species[untold] = np.where(told == "", by_case, told)
    elif max(numbers) >= max(_MIN_ROWS, 9 * min(numbers)):
        species[untold] = ORGANISMS[int(np.argmax(numbers))]
    return species


def _genome_species(genome: str) -> str:
    """The species of a genome's name (``hg19_chr21``), empty where it names none, or several."""
    named = {species for name, species in _GENOMES.items() if name in genome.lower()}
    return named.pop() if len(named) == 1 else ""


def _own_genes(
    species: NDArray[np.object_], is_gene: NDArray[np.bool_], organism: str, where: str
) -> NDArray[np.bool_]:
    """Which rows are genes of the sheet's organism; a row that tells no species is."""
    told = pd.Series(species[is_gene & (species != "")], dtype=object).value_counts()
    if not organism:
        large = told[told >= max(1, _MIN_SHARE * told.sum())] if len(told) else told
        if len(large) > 1:
            raise UserError(
                f"{where}: mixes genes of {' and '.join(sorted(large.index))}; say in samples.tsv, column organism, "
                "whose genes are to be read"
            )
        organism = str(told.index[0]) if len(told) else ""
    elif told.drop(organism, errors="ignore").sum() >= _MIN_ROWS and told.get(organism, 0) < 0.01 * told.sum():
        raise UserError(
            f"{where}: samples.tsv, column organism says {organism}, but {told.iloc[0]:,} of its {is_gene.sum():,} "
            f"genes are named like genes of {told.index[0]}; correct the column, or point `source` at the right files"
        )
    return np.asarray(is_gene & np.isin(species, ("", organism)), dtype=bool)


def _only_species(table: pd.DataFrame, species: NDArray[np.object_]) -> str:
    """The organism whose gene names to use where the sheet does not say; empty for any that there is no table of."""
    told = [one for one in species if one]
    found = told[0] if told else species_of(table["gene_symbol"])
    return found if found in ORGANISMS else ""


def _foreign_counts(
    matrix: sparse.csr_matrix,
    own: NDArray[np.bool_],
    foreign: NDArray[np.bool_],
    organism: str,
    species: NDArray[np.object_],
    where: str,
) -> NDArray[np.int64]:
    """Each cell's counts in genes of another species; a matrix in which every cell has more of them is a mistake."""
    of_own = np.asarray(matrix @ own.astype(np.int64)).ravel()
    of_other = np.asarray(matrix @ foreign.astype(np.int64)).ravel()
    if len(of_own) and (of_other > of_own).all():
        raise UserError(
            f"{where}: every cell holds more counts of {_listed_species(species[foreign])} than of {organism}; correct "
            "column organism"
        )
    return of_other


def _listed_species(species: NDArray[np.object_]) -> str:
    return " and ".join(sorted(set(species)))


# --- genes -----------------------------------------------------------------------------------------------------------


def _name_genes(table: pd.DataFrame, organism: str, where: str) -> tuple[pd.DataFrame, NDArray[np.intp], list[str]]:
    """Genes under their current symbols, the gene of each column, and what was renamed and summed."""
    gene_id, symbol = table["gene_id"].to_numpy(dtype=object), table["gene_symbol"].to_numpy(dtype=object)
    notes: list[str] = []
    joined = 0
    if organism:
        names = GeneNames.load(organism)
        gene_id, symbol, numbers_note = _without_numbers(gene_id, symbol, names, where)
        symbol, joined = _without_made_unique(gene_id, symbol, names)
        resolution = names.resolve(list(symbol), list(gene_id))
        _refuse_shifted(resolution.other_gene, resolution.count("id"), symbol, resolution.symbols, gene_id, where)
        known = resolution.count("id", "current", "previous", "alias", "date", "joined")
        notes += numbers_note + resolution.sentences()
        notes.append(f"{known:,} of {len(symbol):,} rows name genes that are known today")
        symbol = resolution.symbols
    symbol = np.where(symbol == "", gene_id, symbol)
    codes, index = pd.factorize(np.where(gene_id == "", symbol, gene_id))
    repeated = pd.Series(codes).duplicated().to_numpy()
    if joined:
        notes.append(f"summed {joined:,} columns into the gene whose name had been made unique (A.1 beside A)")
    if by_id := int((repeated & (gene_id != "")).sum()):
        notes.append(f"summed {by_id:,} columns into the gene of the same id")
    if by_symbol := int((repeated & (gene_id == "")).sum()) - joined:
        notes.append(f"summed {by_symbol:,} columns into the gene of the same symbol")
    var = pd.DataFrame(
        {"gene_id": gene_id, "gene_symbol": symbol, "gene_symbol_given": table["given"].to_numpy()}, dtype=object
    )[~repeated]
    var.index = pd.Index(index, dtype=object)
    return var, codes, notes


def _without_numbers(
    gene_id: NDArray[np.object_], symbol: NDArray[np.object_], names: GeneNames, where: str
) -> tuple[NDArray[np.object_], NDArray[np.object_], list[str]]:
    """Ensembl ids in place of Entrez numbers, whether these stand as ids or as the only names."""
    ids_are_numbers = _share_of_numbers(gene_id) > 0.5
    if not ids_are_numbers and _share_of_numbers(symbol) <= 0.9:
        return gene_id, symbol, []
    if not ids_are_numbers:
        values = [int(name) for name in symbol if name.isdigit()]
        if values == list(range(values[0], values[0] + len(values))):
            raise UserError(
                f"{where}: its genes are numbered in order, not named; point `files` at one with their names"
            )
        if not names.ensembl_of:
            raise UserError(
                f"{where}: its genes are named by Entrez numbers, which cannot be translated for {names.organism}; "
                "give Ensembl ids or symbols"
            )
    elif not names.ensembl_of:
        return gene_id, symbol, ["gene ids are Entrez numbers, which are kept: genes are known by their symbols"]
    numbers = gene_id if ids_are_numbers else symbol
    # Two numbers of one Ensembl id would be summed: they stay numbers.
    ensembl = pd.Series([names.ensembl_of.get(name, "") for name in numbers], dtype=object)
    ensembl[ensembl.duplicated(keep=False) & ~pd.Series(numbers).duplicated(keep=False).to_numpy()] = ""
    found = (ensembl != "").to_numpy()
    notes = [f"translated {found.sum():,} of {len(numbers):,} Entrez numbers to Ensembl ids"]
    return np.where(found, ensembl, gene_id), symbol, notes


def _share_of_numbers(names: NDArray[np.object_]) -> float:
    return sum(1 for name in names if name.isdigit()) / max(len(names), 1)


def _without_made_unique(
    gene_id: NDArray[np.object_], symbol: NDArray[np.object_], names: GeneNames
) -> tuple[NDArray[np.object_], int]:
    """Take off what software added to the second of two equal symbols, where no gene has the longer name."""
    present = set(symbol[gene_id == ""])
    bare = symbol.copy()
    for row in np.flatnonzero(gene_id == ""):
        stem = _MADE_UNIQUE.sub("", symbol[row])
        if stem != symbol[row] and stem in present and not names.knows(symbol[row]):
            bare[row] = stem
    return bare, int((bare != symbol).sum())


def _refuse_shifted(
    other_gene: NDArray[np.bool_],
    by_id: int,
    given: NDArray[np.object_],
    named: NDArray[np.object_],
    gene_id: NDArray[np.object_],
    where: str,
) -> None:
    """Ids and symbols that name different genes in many rows come from a table that was sorted by one column."""
    if other_gene.sum() >= 20 and other_gene.sum() > 0.3 * by_id:
        row = int(np.flatnonzero(other_gene)[0])
        raise UserError(
            f"{where}: ids and symbols do not belong together in {other_gene.sum():,} of {by_id:,} rows "
            f"({gene_id[row]} is {named[row]}, not {given[row]}); one of their columns was sorted or shifted: "
            "mend it"
        )


def _summed(matrix: sparse.csr_matrix, codes: NDArray[np.intp], n_genes: int) -> sparse.csr_matrix:
    """Sum the columns of one gene."""
    if n_genes == matrix.shape[1]:
        return matrix
    indicator = sparse.csr_matrix(
        (np.ones(len(codes), dtype=np.int32), (np.arange(len(codes)), codes)), shape=(len(codes), n_genes)
    )
    summed = sparse.csr_matrix(matrix @ indicator)
    summed.sort_indices()
    return summed
