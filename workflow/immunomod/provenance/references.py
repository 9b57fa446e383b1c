"""The cited works as BibTeX. Keys are those of :data:`immunomod.report.sources.SOURCES`, so that texts cite them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from immunomod.report.sources import SOURCES


@dataclass(frozen=True)
class Reference:
    """What a bibliography says of a work beyond its DOI, which the list of sources has."""

    authors: str
    title: str
    journal: str
    year: int


REFERENCES: Mapping[str, Reference] = {
    "snakemake": Reference(
        "Mölder, Felix and others", "Sustainable data analysis with {Snakemake}", "F1000Research", 2021
    ),
    "scanpy": Reference(
        "Wolf, F. Alexander and Angerer, Philipp and Theis, Fabian J.",
        "{SCANPY}: large-scale single-cell gene expression data analysis",
        "Genome Biology",
        2018,
    ),
    "mad": Reference(
        "Heumos, Lukas and others",
        "Best practices for single-cell analysis across modalities",
        "Nature Reviews Genetics",
        2023,
    ),
    "empty_drops": Reference(
        "Lun, Aaron T. L. and others",
        "{EmptyDrops}: distinguishing cells from empty droplets in droplet-based single-cell {RNA} sequencing data",
        "Genome Biology",
        2019,
    ),
    "soupx": Reference(
        "Young, Matthew D. and Behjati, Sam",
        "{SoupX} removes ambient {RNA} contamination from droplet-based single-cell {RNA} sequencing data",
        "GigaScience",
        2020,
    ),
    "cxds": Reference(
        "Bais, Abha S. and Kostka, Dennis",
        "scds: computational annotation of doublets in single-cell {RNA} sequencing data",
        "Bioinformatics",
        2020,
    ),
    "both_exceed": Reference(
        "Berger, Roger L.", "Multiparameter hypothesis testing and acceptance sampling", "Technometrics", 1982
    ),
    "mixture": Reference(
        "Klein, Hans-Ulrich",
        "demuxmix: demultiplexing oligonucleotide-barcoded single-cell {RNA} sequencing data with regression mixture "
        "models",
        "Bioinformatics",
        2023,
    ),
    "hashsolo": Reference(
        "Bernstein, Nicholas J. and others",
        "Solo: doublet identification in single-cell {RNA-Seq} via semi-supervised deep learning",
        "Cell Systems",
        2020,
    ),
    "species": Reference(
        "Bloom, Jesse D.",
        "Estimating the frequency of multiplets in single-cell {RNA} sequencing from cell-mixing experiments",
        "PeerJ",
        2018,
    ),
    "cell_cycle": Reference(
        "Tirosh, Itay and others",
        "Dissecting the multicellular ecosystem of metastatic melanoma by single-cell {RNA-seq}",
        "Science",
        2016,
    ),
    "scrublet": Reference(
        "Wolock, Samuel L. and Lopez, Romain and Klein, Allon M.",
        "Scrublet: computational identification of cell doublets in single-cell transcriptomic data",
        "Cell Systems",
        2019,
    ),
    "ulm": Reference(
        "Badia-i-Mompel, Pau and others",
        "{decoupleR}: ensemble of computational methods to infer biological activities from omics data",
        "Bioinformatics Advances",
        2022,
    ),
    "variable_genes": Reference(
        "Stuart, Tim and others", "Comprehensive integration of single-cell data", "Cell", 2019
    ),
    "harmony": Reference(
        "Korsunsky, Ilya and others",
        "Fast, sensitive and accurate integration of single-cell data with {Harmony}",
        "Nature Methods",
        2019,
    ),
    "leiden": Reference(
        "Traag, V. A. and Waltman, L. and {van Eck}, N. J.",
        "From {Louvain} to {Leiden}: guaranteeing well-connected communities",
        "Scientific Reports",
        2019,
    ),
    "celltypist": Reference(
        "{Dom{\\'\\i}nguez Conde}, C. and others",
        "Cross-tissue immune cell analysis reveals tissue-specific features in humans",
        "Science",
        2022,
    ),
    "singler": Reference(
        "Aran, Dvir and others",
        "Reference-based analysis of lung single-cell sequencing reveals a transitional profibrotic macrophage",
        "Nature Immunology",
        2019,
    ),
    "umap": Reference(
        "McInnes, Leland and Healy, John and Melville, James",
        "{UMAP}: uniform manifold approximation and projection for dimension reduction",
        "arXiv",
        2018,
    ),
    "pseudobulk": Reference(
        "Squair, Jordan W. and others",
        "Confronting false discoveries in single-cell differential expression",
        "Nature Communications",
        2021,
    ),
    "moderated": Reference(
        "Smyth, Gordon K.",
        "Linear models and empirical {Bayes} methods for assessing differential expression in microarray experiments",
        "Statistical Applications in Genetics and Molecular Biology",
        2004,
    ),
    "tmm": Reference(
        "Robinson, Mark D. and Oshlack, Alicia",
        "A scaling normalization method for differential expression analysis of {RNA-seq} data",
        "Genome Biology",
        2010,
    ),
    "permutation": Reference(
        "Phipson, Belinda and Smyth, Gordon K.",
        "Permutation p-values should never be zero: calculating exact p-values when permutations are randomly drawn",
        "Statistical Applications in Genetics and Molecular Biology",
        2010,
    ),
    "fdr": Reference(
        "Benjamini, Yoav and Hochberg, Yosef",
        "Controlling the false discovery rate: a practical and powerful approach to multiple testing",
        "Journal of the Royal Statistical Society: Series B",
        1995,
    ),
    "pydeseq2": Reference(
        "Muzellec, Boris and others",
        "{PyDESeq2}: a python package for bulk {RNA-seq} differential expression analysis",
        "Bioinformatics",
        2023,
    ),
    "deseq2": Reference(
        "Love, Michael I. and Huber, Wolfgang and Anders, Simon",
        "Moderated estimation of fold change and dispersion for {RNA-seq} data with {DESeq2}",
        "Genome Biology",
        2014,
    ),
    "hartung_knapp": Reference(
        "IntHout, Joanna and Ioannidis, John P. A. and Borm, George F.",
        "The {Hartung-Knapp-Sidik-Jonkman} method for random effects meta-analysis is straightforward and considerably "
        "outperforms the standard {DerSimonian-Laird} method",
        "BMC Medical Research Methodology",
        2014,
    ),
}


def bibtex(keys: Iterable[str]) -> str:
    """Entries of the works named by ``keys``, in that order, each once."""
    return "\n".join(_entry(key) for key in dict.fromkeys(keys))


def _entry(key: str) -> str:
    url = SOURCES[key].url
    known = REFERENCES.get(key)
    if known is None:  # a source that is newer than this table: what the report says of it
        authors, _, year = SOURCES[key].authors.rpartition(" ")
        fields = {"author": authors, "title": SOURCES[key].title, "year": year}
    else:
        fields = {"author": known.authors, "title": known.title, "journal": known.journal, "year": str(known.year)}
    doi = url.removeprefix("https://doi.org/")
    fields |= {"doi": doi} if doi != url else {}
    fields["url"] = url
    kind = "article" if "journal" in fields else "misc"
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@{kind}{{{key},", *lines, "}", ""])
