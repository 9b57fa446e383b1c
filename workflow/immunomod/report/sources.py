"""The works that the methods text may cite, and a paragraph of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """A cited work."""

    authors: str
    title: str
    url: str


SOURCES: Mapping[str, Source] = {
    "snakemake": Source(
        "Mölder and others 2021",
        "Sustainable data analysis with Snakemake",
        "https://doi.org/10.12688/f1000research.29032.2",
    ),
    "scanpy": Source("Wolf and others 2018", "SCANPY", "https://doi.org/10.1186/s13059-017-1382-0"),
    "mad": Source(
        "Heumos and others 2023",
        "Best practices for single-cell analysis across modalities",
        "https://doi.org/10.1038/s41576-023-00586-w",
    ),
    "empty_drops": Source(
        "Lun and others 2019",
        "EmptyDrops: distinguishing cells from empty droplets",
        "https://doi.org/10.1186/s13059-019-1662-y",
    ),
    "soupx": Source(
        "Young and Behjati 2020",
        "SoupX removes ambient RNA contamination",
        "https://doi.org/10.1093/gigascience/giaa151",
    ),
    "cxds": Source(
        "Bais and Kostka 2020",
        "scds: computational annotation of doublets",
        "https://doi.org/10.1093/bioinformatics/btz698",
    ),
    "both_exceed": Source(
        "Berger 1982",
        "Multiparameter hypothesis testing (both of two p-values must be small)",
        "https://doi.org/10.1080/00401706.1982.10487790",
    ),
    "mixture": Source(
        "Klein 2023", "demuxmix: demultiplexing with mixture models", "https://doi.org/10.1093/bioinformatics/btad481"
    ),
    "hashsolo": Source("Bernstein and others 2020", "Solo and HashSolo", "https://doi.org/10.1016/j.cels.2020.05.010"),
    "species": Source(
        "Bloom 2018",
        "Estimating the frequency of multiplets from cell-mixing experiments",
        "https://doi.org/10.7717/peerj.5578",
    ),
    "cell_cycle": Source(
        "Tirosh and others 2016",
        "Dissecting the multicellular ecosystem of metastatic melanoma (genes of the cell cycle)",
        "https://doi.org/10.1126/science.aad0501",
    ),
    "scrublet": Source("Wolock and others 2019", "Scrublet", "https://doi.org/10.1016/j.cels.2018.11.005"),
    "ulm": Source(
        "Badia-i-Mompel and others 2022",
        "decoupleR: univariate linear model of a signed gene set",
        "https://doi.org/10.1093/bioadv/vbac016",
    ),
    "variable_genes": Source(
        "Stuart and others 2019",
        "Comprehensive integration of single-cell data (variance-stabilised variable genes)",
        "https://doi.org/10.1016/j.cell.2019.05.031",
    ),
    "harmony": Source("Korsunsky and others 2019", "Harmony", "https://doi.org/10.1038/s41592-019-0619-0"),
    "leiden": Source("Traag and others 2019", "From Louvain to Leiden", "https://doi.org/10.1038/s41598-019-41695-z"),
    "celltypist": Source(
        "Dominguez Conde and others 2022",
        "Cross-tissue immune cell analysis (CellTypist)",
        "https://doi.org/10.1126/science.abl5197",
    ),
    "singler": Source(
        "Aran and others 2019",
        "Reference-based analysis of lung single-cell sequencing (SingleR)",
        "https://doi.org/10.1038/s41590-018-0276-y",
    ),
    "umap": Source("McInnes and others 2018", "UMAP", "https://arxiv.org/abs/1802.03426"),
    "pseudobulk": Source(
        "Squair and others 2021",
        "Confronting false discoveries in single-cell differential expression",
        "https://doi.org/10.1038/s41467-021-25960-2",
    ),
    "moderated": Source(
        "Smyth 2004", "Linear models and empirical Bayes methods", "https://doi.org/10.2202/1544-6115.1027"
    ),
    "tmm": Source(
        "Robinson and Oshlack 2010",
        "Scaling normalization of RNA-seq (TMM)",
        "https://doi.org/10.1186/gb-2010-11-3-r25",
    ),
    "permutation": Source(
        "Phipson and Smyth 2010", "Permutation p-values should never be zero", "https://doi.org/10.2202/1544-6115.1585"
    ),
    "fdr": Source(
        "Benjamini and Hochberg 1995",
        "Controlling the false discovery rate",
        "https://doi.org/10.1111/j.2517-6161.1995.tb02031.x",
    ),
    "pydeseq2": Source("Muzellec and others 2023", "PyDESeq2", "https://doi.org/10.1093/bioinformatics/btad547"),
    "deseq2": Source("Love and others 2014", "DESeq2", "https://doi.org/10.1186/s13059-014-0550-8"),
    "hartung_knapp": Source(
        "IntHout and others 2014",
        "The Hartung-Knapp-Sidik-Jonkman method for random effects meta-analysis",
        "https://doi.org/10.1186/1471-2288-14-25",
    ),
}


@dataclass(frozen=True)
class Paragraph:
    """One step of the methods: its name, its text, and the keys of the works it cites."""

    step: str
    text: str
    sources: tuple[str, ...]
