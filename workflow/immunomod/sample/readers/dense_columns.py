"""Which axis of a dense table holds genes, which columns are counts, and which text names genes or cells.

Accessions, lengths, coordinates, clusters and totals stand beside the counts in many tables. What is dropped is said in
words; a column of numbers that may be either is never guessed at.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
import pandas as pd

from immunomod.errors import UserError
from immunomod.sample.readers.dense_head import Content, TableHead, is_number
from immunomod.sample.readers.features import FEATURE_TYPES, is_ensembl, looks_like_barcodes, looks_like_genes

_NUMBERED = r"(_?\d+)?"
#: Headers (small letters and digits only) of columns that describe genes, in tables whose other columns are cells.
_ABOUT_GENES = re.compile(
    r"""(
      (gene|transcript|tx|exon|exonic|effective|union|merged|cds|cdna)?(length|len|lengths|width|size)(bp|kb)?
    | (gene|tx|cds|transcript|exon|transcription)?(start|end|stop)(s|site|bp|position|pos|positionbp)?
    | (gene)?(chr|chrom|chromosome|seqnames?|seqid|contig|scaffold)(name|scaffoldname|osomescaffoldname)?
    | strand | position | pos | coordinates? | locus | location | map | cytoband | karyotypeband
    | (ncbi)?(entrez|ncbi)(gene)?(id|ids)? | geneid | hgncid | mgiid | (gene)?version
    | (percent(age)?)?(gene)?gc(content|percent|pct|percentage)?
    | (n|num|number(of)?|no|nbr|total|sum|detected|expressed)?(in|of)?(cells?|samples?|counts?|umis?|reads?|exons?)
    | total | sum | mean | average | avg | median | max | min | sd | stdev | var | variance | cv2? | rank | index
    | (row)?(number|no|index|id)
    | (base|avg|average|log)?(mean|expr|expression|aveexpr|cpm) | aveexpr
    | (avg|average|mean)?(log2?|ln)?(2)?(fc|foldchange) | (avg|average)log(2)?fc | lfcse | stat | score
    | (raw|adj|adjusted)?p(val|value|values)?(adj|adjusted|adjust)? | padj | fdr | q(val|value) | adjpval | adjpvalue
    | pct[_.]?[12] | power | auc | auroc | myauc | avgdiff | lr | dispersions?(norm)? | highlyvariable
    )""",
    re.VERBOSE,
)
#: Headers of columns of text that describe genes and do not name them.
_TEXT_ABOUT_GENES = re.compile(
    r"""(
      (gene)?(chr|chrom|chromosome|seqnames?|seqid|contig|scaffold)(name|scaffoldname)? | strand | locus | map
    | position    | (gene|genomic)?(coordinates?|location|pos) | cytoband | karyotypeband | (gene|transcript)?(bio)?type
    | (gene)?(description|desc|definition|annotation|title|summary) | notes? | class | status | source | synonyms?
    | alias(es)? | (go|kegg)(ids?|terms?)?
    )""",
    re.VERBOSE,
)
#: Headers of columns that describe cells, in tables whose other columns are genes; none is a gene's symbol.
_ABOUT_CELLS = re.compile(
    r"""(
      (log|log1p|log10|log2)?(n|num|number(of)?|no|total|sum)
        (umis?|genes?|features?|counts?|reads?|transcripts?|molecules)(rna|adt|hto|sct|bycounts)?
    | (umi|gene|feature|read|transcript)counts? | (umis|reads|features|genes|transcripts)(per|in)?(cell)?
    | (total|mapped|unique|uniquely|aligned|raw|pf)(mapped|aligned)?reads | library(size)? | libsize | sizefactors?
    | depth | coverage | (un)?mappingrate
    | (percent|percentage|fraction|frac|pct|perc|proportion|prop|ratio)(of)?(counts?|umis?|reads?|genes?)?(in)?
        (mt|mito|mitochondrial|mitochondria|mitogenes|ribo|ribosomal|rp|rb|rrna|ercc|spikes?|hb|dropout)\w*
    | mito(chondrial)?(percent|percentage|fraction|ratio|content|pct) | (percent|pct)[a-z]*top\d+\w*
    | (seurat|louvain|leiden|kmeans|phenograph|sc3|graph|cell|sub|main|broad|fine|new|old|orig)?clusters?
        (id|ids|no|number|label)?"""
    + _NUMBERED
    + r"""
    | louvain | leiden | (rna|sct|integrated)?snnres\d+ | res\d+ | kmeans | celltypes?(id)? | class
    | cellclass | labels?
    | (tsne|umap|pca?|ic|dim|dc|diffmap|fdl|phate|harmony|tsnedim|umapdim|component|lsi)_?\d+ | (tsne|umap)[xy]? | [xy]
    | (sample|batch|donor|patient|individual|subject|animal|mouse|replicate|rep|lane|plate|well|run|chip|pool
        |library|lib)
        (id|no|number|index)?
    | row | column | col | age | sex | day | days | time | timepoint | hours? | dose | group | condition | treatment
    | stage | s(phase)?score | g2m(phase)?score | ccdifference | doubletscores? | scrublet(score)? | pann\w*
    | pseudotime
    | (row)?(number|no|index|id) | total | sum
    )""",
    re.VERBOSE,
)
#: Rows that STAR, htseq-count, featureCounts and CITE-seq-Count write below (or above) the genes.
_SUMMARY = re.compile(
    r"(N_(unmapped|multimapping|noFeature|ambiguous)"
    r"|_{0,2}(no_feature|ambiguous|too_low_aQual|not_aligned|alignment_not_unique)"
    r"|bad_struct|no_match|total_reads|unmapped)"
)
#: Headers of text columns that hold symbols.
_SYMBOL = re.compile(
    r"(hgnc|mgi|gene|official|external)?(symbols?|gene|genes|genesymbols?|genenames?|names?|shortname)"
)
#: Headers of the column that names rows, in tables whose other columns are named by numbers.
_LABEL = re.compile(
    r"((hgnc|mgi|gene|official|ensembl|external|probe|feature|cell|row|sample|entrez|transcript)s?)?"
    r"(barcodes?|symbols?|names?|ids?|index|accession|well|tags?|x|cells?|genes?|features?|unnamed0)?"
)
_CELL_NAME = re.compile(r"(cell|single)?(barcodes?|bc|cell|cells|cellids?|cellnames?|names?|index|id)")
_BASES, _LETTERS, _DIGITS = re.compile(r"[ACGTN]{8,}"), re.compile(r"[^\W\d_]+"), re.compile(r"\d+")
#: Among the headers that describe genes, those that are symbols, too.
_SYMBOLS_TOO = frozenset({"gc", "max"})
#: Symbols that look like the headers of columns about cells.
_GENES_TOO = frozenset({"PCA3"})
_LOOK_AHEAD = 5
_MAX_DOUBTFUL = 12
_MAX_TEXTS = 12
_ENOUGH_NAMES = 2000


@dataclass(frozen=True)
class ColumnPlan:
    """Which columns of a table are read.

    ``texts`` may name rows, ``values`` are counts, ``dropped`` are neither: why, by column. All are column numbers.
    """

    texts: tuple[int, ...]
    values: tuple[int, ...]
    dropped: dict[int, str] = field(default_factory=dict)


def plain(header: str) -> str:
    """A header in small letters and digits only."""
    return re.sub(r"[^a-z0-9]", "", header.lower())


def is_summary(name: str) -> bool:
    """Whether a name is one of the summary rows that read counters write beside genes."""
    return _SUMMARY.fullmatch(name) is not None


def describes_cells(name: str) -> bool:
    """Whether a name among those of genes is a property of cells (cluster, number of UMIs, percent mitochondrial)."""
    return name not in _GENES_TOO and _ABOUT_CELLS.fullmatch(plain(name)) is not None


def _shape(name: str) -> str:
    """What names of one making have in common: ``AB127_W22273`` gives ``a9_a9``."""
    return _DIGITS.sub("9", _LETTERS.sub("a", _BASES.sub("*", name)))


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def names_genes(names: pd.Series) -> bool:
    """Whether names are those of genes, told by up to 2,000 of them from all along the axis."""
    return looks_like_genes(names.iloc[:: len(names) // _ENOUGH_NAMES + 1])


def genes_are_rows(row_names: Sequence[pd.Series], column_names: pd.Series, cells: Sequence[str] = ()) -> bool | None:
    """Which axis holds genes, told by the names of both; None where they do not tell.

    Parameters
    ----------
    row_names
        The texts that may name the rows.
    column_names
        Names of the columns of numbers.
    cells
        The sheet's patterns of cell names, which decide where the names' looks do not.
    """
    # A column of few words (T for the cell type) is no name, even where T is a gene.
    row_names = [one for one in row_names if one.nunique() > 0.3 * len(one)] or list(row_names)
    rows_are_genes, columns_are_genes = any(names_genes(one) for one in row_names), names_genes(column_names)
    if rows_are_genes != columns_are_genes:
        return rows_are_genes
    rows_are_cells = any(looks_like_barcodes(one) for one in row_names)
    columns_are_cells = looks_like_barcodes(column_names)
    if rows_are_cells != columns_are_cells:
        return columns_are_cells
    telling = [pattern for pattern in cells if pattern.strip("*")]
    if telling:
        in_rows = any(_fits(name, telling) for one in row_names for name in one)
        in_columns = any(_fits(name, telling) for name in column_names)
        if in_rows != in_columns:
            return in_columns
    return None


class _Columns:
    """What is known of each column of one table while it is decided which ones are read."""

    def __init__(self, head: TableHead, genes_in_rows: bool | None, cells: Sequence[str] = ()) -> None:
        self.names = head.header
        self.width = len(head.header)
        self.contents = head.contents
        self.head = head
        self.genes_in_rows = genes_in_rows
        self.cells = () if genes_in_rows is False else tuple(cells)

    def is_text(self, number: int) -> bool:
        return self.contents[number] is Content.TEXT

    def vocabulary(self, number: int) -> str:
        """What a header says of its column if it is annotation by name."""
        name = plain(self.names[number])
        if self.is_text(number):
            return "describes genes" if self.genes_in_rows is not False and _TEXT_ABOUT_GENES.fullmatch(name) else ""
        if _fits(self.names[number], [pattern for pattern in self.cells if pattern.strip("*")]):
            return ""
        if self.genes_in_rows is not False and _ABOUT_GENES.fullmatch(name):
            return "" if self.genes_in_rows is None and name in _SYMBOLS_TOO else "describes genes"
        if self.genes_in_rows is not True and describes_cells(self.names[number]):
            return "describes cells"
        return ""

    def edges(self) -> tuple[int, int]:
        """Where the columns of numbers begin and end: texts and annotation by name lie outside."""
        end = self._walk(range(self.width - 1, 0, -1))
        last = end if end is not None else 0
        begin = self._walk(range(1, last + 1), from_left=True)
        return begin if begin is not None else last + 1, last

    def _is_annotation(self, number: int) -> bool:
        return self.is_text(number) or bool(self.vocabulary(number))

    def _walk(self, numbers: range, from_left: bool = False) -> int | None:
        """The first of the columns that is not annotation; from the left, no text may follow soon after it."""
        order = list(numbers)
        for place, number in enumerate(order):
            if self._is_annotation(number):
                continue
            soon = order[place + 1 : place + 1 + _LOOK_AHEAD] if from_left else []
            if not any(self.is_text(one) for one in soon):
                return number
        return None

    def outliers(self, begin: int, last: int) -> list[int]:
        """Columns at either edge of the numbers whose names are not made like the others', or that hold fractions."""
        numbers = list(range(begin, last + 1))
        names = [self.names[number] for number in numbers]
        if self.genes_in_rows is False or len(names) < 3:
            regular = np.ones(len(names), dtype=bool)
        else:
            shapes = [_shape(name) for name in names]
            common, count = Counter(shapes).most_common(1)[0]
            alike = count >= 3 and 3 * count >= 2 * len(names)
            regular = np.array([not alike or shape == common for shape in shapes])
        fractions = np.array([self.contents[number] is Content.FRACTION for number in numbers])
        few_fractions = 0 < fractions.sum() <= max(1, 0.1 * len(numbers))
        if self.genes_in_rows is False:
            regular = ~fractions if few_fractions else regular
        inside = np.flatnonzero(regular)
        if not inside.size:
            return []
        low, high = int(inside[0]), int(inside[-1])
        at_edge = [*range(low), *range(high + 1, len(numbers))]
        odd_inside = int((~regular[low : high + 1]).sum())
        if len(at_edge) > _MAX_DOUBTFUL or odd_inside > 0.05 * (high - low + 1):
            return []
        return [numbers[place] for place in at_edge]

    def fractions_among_counts(self, number: int, begin: int, last: int) -> bool:
        kinds = Counter(self.contents[one] for one in range(begin, last + 1))
        return self.contents[number] is Content.FRACTION and kinds[Content.WHOLE] >= 0.8 * (last - begin + 1)


def plan_columns(head: TableHead, genes_in_rows: bool | None, cells: Sequence[str], where: str) -> ColumnPlan:
    """Decide which columns are counts, which may name the rows, and which are dropped.

    Parameters
    ----------
    head
        Header and first rows.
    genes_in_rows
        Which axis holds genes, as far as the names tell.
    cells
        The sheet's patterns of cell names: they settle which columns are cells.
    where
        The file, for messages.

    Raises
    ------
    UserError
        Columns of numbers that may be cells or annotation; rows without names; no header.
    """
    columns = _Columns(head, genes_in_rows, cells)
    begin, last = columns.edges()
    texts, dropped, doubtful = [], {}, []
    for number in [*range(begin), *range(last + 1, columns.width)]:
        if columns.is_text(number):
            texts.append(number)
        elif number > 0 and (reason := columns.vocabulary(number)):
            dropped[number] = reason
        elif number > 0 and genes_in_rows is False:
            dropped[number] = "stands before the cells' names"
        elif number > 0:
            doubtful.append(number)
    values = list(range(begin, last + 1))
    for number in [*columns.outliers(begin, last), *(one for one in values if columns.vocabulary(one))]:
        if number not in values or _fits(head.header[number], columns.cells):
            continue
        if columns.fractions_among_counts(number, begin, last):
            dropped[number] = "fractions where the others hold whole numbers"
        elif genes_in_rows is False:
            dropped[number] = columns.vocabulary(number) or "not made like the others"
        elif cells:
            dropped[number] = "fits no pattern of the cells' names"
        else:
            doubtful.append(number)
        values.remove(number)
    if doubtful and cells:
        dropped |= dict.fromkeys(doubtful, "stands before the names and fits no pattern of the cells' names")
    elif doubtful:
        names = ", ".join(repr(head.header[number]) for number in sorted(doubtful))
        raise UserError(
            f"{where}: {names} may be {'cells' if genes_in_rows is not False else 'genes'} or annotation; give "
            "patterns of the cells' names in the sheet's column `barcodes` (* if all are cells), or remove the columns"
        )
    if genes_in_rows is False:
        for number in [one for one in values if is_summary(head.header[one])]:
            values.remove(number)
            dropped[number] = "summary of the read counter"
    if not values:
        why = "; ".join(dropped_in_words(dropped, head.header)) or "all hold text"
        raise UserError(f"{where}: no column holds numbers that could be counts ({why})")
    _check_header(head, values, where)
    naming, more = _row_names(columns, texts, where)
    return ColumnPlan(tuple(naming), tuple(values), dropped | more)


def _row_names(columns: _Columns, texts: Sequence[int], where: str) -> tuple[list[int], dict[int, str]]:
    """The columns that may name the rows: texts that are no annotation by their header, or the first column."""
    head = columns.head
    telling = [number for number in texts if not columns.vocabulary(number) or _holds_types(head.column(number))]
    if columns.is_text(0) and 0 not in telling and len(set(head.column(0))) > 0.5 * len(head.rows):
        telling = [0, *telling]
    if not telling:
        telling = list(texts[:1])
    dropped = {number: columns.vocabulary(number) for number in texts if number not in telling}
    if not telling:
        first = head.column(0)
        if len(set(first)) < len(first):
            raise UserError(
                f"{where}: its rows have no names: the first column ({head.header[0]!r}) holds numbers that repeat; "
                "a table of counts names genes and cells. Add the names"
            )
        return [0], {}
    if 0 not in texts:
        dropped[0] = "numbers of the rows"
    if len(telling) > _MAX_TEXTS:
        dropped |= dict.fromkeys(telling[_MAX_TEXTS:], "text")
    return telling[:_MAX_TEXTS], dropped


def _holds_types(fields: Sequence[str]) -> bool:
    return bool(fields) and all(one in FEATURE_TYPES for one in fields)


def _check_header(head: TableHead, values: Sequence[int], where: str) -> None:
    names = [head.header[number] for number in values]
    if len(names) > 1 and all(map(is_number, names)):
        numbered = names in ([str(n) for n in range(len(names))], [str(n + 1) for n in range(len(names))])
        labelled = _LABEL.fullmatch(plain(head.header[0])) is not None
        if len(set(names)) < len(names) or not (labelled or (numbered and len(names) >= 10)):
            raise UserError(
                f"{where}: has no header: its first line holds numbers. A table of counts names genes and cells; add "
                "the names as a first line"
            )
    if "" in names:
        raise UserError(f"{where}: column {values[names.index('')] + 1} has numbers but no name in the header; name it")


def is_matrix(head: TableHead) -> bool:
    """Whether a table may be a matrix of numbers, rather than a list of markers or a table about cells."""
    columns = _Columns(head, None)
    header = pd.Series(head.header, dtype=object)
    texts = [number for number in range(columns.width) if columns.is_text(number)]
    texts = [number for number in texts if not columns.vocabulary(number)] or texts[:1]
    names = [pd.Series(head.column(number), dtype=object) for number in texts or [0]]
    names = [one for one in names if one.nunique() > 0.3 * len(one)]
    genes_in_rows = any(names_genes(one) for one in names)
    columns_are_genes = names_genes(header)
    columns.genes_in_rows = None if genes_in_rows == columns_are_genes else genes_in_rows
    begin, last = columns.edges()
    numbers = [number for number in range(begin, last + 1) if not columns.is_text(number)]
    numbers = [number for number in numbers if not columns.vocabulary(number)]
    if len(numbers) < 2:
        return False
    if len(numbers) < 10 and all(is_number(head.header[number]) for number in numbers) and texts != [0]:
        return False
    if genes_in_rows or columns_are_genes:
        return True
    rows_are_cells = any(looks_like_barcodes(one) for one in names)
    fractions = sum(columns.contents[number] is Content.FRACTION for number in numbers)
    if rows_are_cells and 2 * fractions >= len(numbers):
        return False
    return len(numbers) > len(texts)


def is_one_sample(head: TableHead) -> bool:
    """Whether a table gives one number a gene: a bulk sample, or a single cell in a file of its own."""
    numbers = [kind for kind in head.contents[1:] if kind in (Content.WHOLE, Content.FRACTION)]
    if len(numbers) != 1:
        return False
    return any(
        names_genes(pd.Series(head.column(number), dtype=object))
        for number in range(len(head.header))
        if head.contents[number] is Content.TEXT
    )


def gene_names(texts: Sequence[pd.Series], headers: Sequence[str]) -> tuple[pd.DataFrame, dict[int, str]]:
    """Ids, symbols and types among the texts of a genes x cells table, in that order; why the others are dropped.

    Ids are Ensembl's. Other accessions are dropped where there are symbols: counts are summed by gene.
    """
    types = [k for k, text in enumerate(texts) if text.isin(FEATURE_TYPES).all()]
    unlike = {k: "the same few words" for k, text in enumerate(texts) if text.nunique() < 0.3 * len(text)}
    unlike |= {k: "sentences" for k, text in enumerate(texts) if (text.str.count(" ") >= 2).mean() > 0.5}
    names = [k for k in range(len(texts)) if k not in types and k not in unlike]
    names = names or [k for k in range(len(texts)) if k not in types][:1] or [0]
    ids = [k for k in names if float(is_ensembl(texts[k]).mean()) > 0.5][:1]
    others = [k for k in names if k not in ids]

    def rank(k: int) -> tuple[bool, bool, int]:
        return (not names_genes(texts[k]), not _SYMBOL.fullmatch(plain(headers[k])), k)

    symbols = sorted(others, key=rank)[:1] if ids or len(others) > 1 else others
    if ids and symbols and rank(symbols[0])[:2] == (True, True):
        symbols = []  # an accession of another kind is no symbol
    chosen = [*ids, *symbols, *types[:1]]
    dropped = {k: unlike.get(k, "a further name of the genes") for k in range(len(texts)) if k not in chosen}
    return pd.DataFrame({place: texts[k] for place, k in enumerate(chosen)}), dropped


def cell_names(texts: Sequence[pd.Series], headers: Sequence[str], cells: Sequence[str]) -> tuple[int, dict[int, str]]:
    """Which of the texts of a cells x genes table names the cells; why the others are dropped."""
    telling = [pattern for pattern in cells if pattern.strip("*")]

    def rank(k: int) -> tuple[bool, bool, bool, bool, int]:
        return (
            not any(_fits(name, telling) for name in texts[k]),
            not texts[k].is_unique,
            not looks_like_barcodes(texts[k]),
            k != 0 and not _CELL_NAME.fullmatch(plain(headers[k])),
            k,
        )

    chosen = min(range(len(texts)), key=rank)
    return chosen, {k: "describes cells" for k in range(len(texts)) if k != chosen}


def dropped_in_words(dropped: dict[int, str], headers: Sequence[str]) -> list[str]:
    """One sentence for the ledger on the columns that are neither counts nor names."""
    if not dropped:
        return []
    by_reason: dict[str, list[str]] = {}
    for number in sorted(dropped):
        by_reason.setdefault(dropped[number], []).append(headers[number] or f"column {number + 1}")
    reasons = "; ".join(
        f"{', '.join(names[:10])}{f' and {len(names) - 10:,} more' if len(names) > 10 else ''} ({reason})"
        for reason, names in by_reason.items()
    )
    return [f"dropped {len(dropped):,} columns that are no counts: {reasons}"]
