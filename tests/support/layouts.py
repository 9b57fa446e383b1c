"""One small matrix written in every layout in which counts are seen on GEO and on disk.

Each layout is a function that writes files below a folder and says which rows of a sheet read them, and what must come
out. A layout that needs the series' records writes a tree shaped like GEO's server.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from support.geo_tree import tar_bytes

HUMAN = """
ENSG00000187608 ISG15;ENSG00000081237 PTPRC;ENSG00000115415 STAT1;ENSG00000115414 FN1;ENSG00000169429 CXCL8
ENSG00000138755 CXCL9;ENSG00000169245 CXCL10;ENSG00000170458 CD14;ENSG00000019582 CD74;ENSG00000204287 HLA-DRA
ENSG00000135318 NT5E;ENSG00000075624 ACTB;ENSG00000131203 IDO1;ENSG00000106991 ENG;ENSG00000026025 VIM
ENSG00000244734 HBB;ENSG00000156738 MS4A1;ENSG00000251562 MALAT1;ENSG00000167286 CD3D;ENSG00000154096 THY1
ENSG00000111640 GAPDH;ENSG00000090382 LYZ;ENSG00000166710 B2M;ENSG00000108691 CCL2;ENSG00000108821 COL1A1
ENSG00000105329 TGFB1;ENSG00000087086 FTL;ENSG00000105374 NKG7;ENSG00000100316 RPL3;ENSG00000205542 TMSB4X
ENSG00000198804 MT-CO1
"""
MOUSE = """
ENSMUSG00000026395 Ptprc;ENSMUSG00000026728 Vim;ENSMUSG00000060802 B2m;ENSMUSG00000029580 Actb
ENSMUSG00000057666 Gapdh;ENSMUSG00000069516 Lyz2;ENSMUSG00000020826 Nos2;ENSMUSG00000001506 Col1a1
ENSMUSG00000060036 Rpl3;ENSMUSG00000024610 Cd74;ENSMUSG00000092341 Malat1;ENSMUSG00000064351 mt-Co1
"""
PROTEINS = ["CD3_TotalSeqB", "CD19_TotalSeqB", "CD14_TotalSeqB"]
HASHTAGS = ["HTO_1", "HTO_2"]
N_CELLS = 23
GENE_EXPRESSION = "Gene Expression"


def gene_pairs(text: str) -> pd.DataFrame:
    """Columns ``gene_id`` and ``gene_symbol``."""
    pairs = [pair.split() for pair in text.strip().replace("\n", ";").split(";")]
    return pd.DataFrame(pairs, columns=["gene_id", "gene_symbol"])


def make_barcodes(number: int, seed: int, prefix: str = "", suffix: str = "-1") -> list[str]:
    """Different 16-base barcodes."""
    bases = np.random.default_rng(seed).choice(list("ACGT"), size=(number, 16))
    return [f"{prefix}{''.join(row)}{suffix}" for row in bases]


@dataclass
class Truth:
    """A library as it is: counts (cells x genes, int), ids and symbols of the genes, names of the cells."""

    counts: np.ndarray
    genes: pd.DataFrame
    barcodes: list[str]

    @classmethod
    def make(cls, seed: int = 1, genes: str = HUMAN, **names: str) -> Truth:
        """A library of ``N_CELLS`` cells without an empty one; common genes are high, as in life."""
        table = gene_pairs(genes)
        rng = np.random.default_rng(seed)
        levels = np.where(table["gene_symbol"].str.upper().isin(["MALAT1", "ACTB", "B2M", "TMSB4X", "FTL"]), 9.0, 0.8)
        counts = rng.poisson(levels, size=(N_CELLS, len(table)))
        counts[:, 11] += 1
        return cls(counts, table, make_barcodes(N_CELLS, seed + 100, **names))

    def frame(self) -> pd.DataFrame:
        """Cells x genes, by barcode and symbol."""
        return pd.DataFrame(self.counts, index=self.barcodes, columns=self.genes["gene_symbol"])

    def features(self) -> pd.DataFrame:
        """Rows of a CellRanger v3 feature table."""
        return self.genes.assign(feature_type=GENE_EXPRESSION)


@dataclass
class Expected:
    """What reading a row of the sheet must give."""

    counts: pd.DataFrame
    ids: list[str] | None = None
    others: dict[str, pd.DataFrame] = field(default_factory=dict)


@dataclass
class Row:
    """A row of the sheet, and what it must give. ``config`` is the data set's section of ``cells_tables``."""

    values: dict[str, str]
    expected: Expected
    config: dict[str, object] = field(default_factory=dict)
    dataset: str = "study"


Layout = Callable[[Path], list[Row]]
LAYOUTS: dict[str, Layout] = {}


def layout(name: str) -> Callable[[Layout], Layout]:
    def add(function: Layout) -> Layout:
        assert name not in LAYOUTS
        LAYOUTS[name] = function
        return function

    return add


# ---------------------------------------------------------------------------------------------- writing


def put(path: Path, content: str | bytes) -> Path:
    """Write a file, compressed as its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = content.encode() if isinstance(content, str) else content
    pack = {".gz": lambda b: gzip.compress(b, mtime=0), ".bz2": bz2.compress, ".xz": lzma.compress}
    path.write_bytes(pack.get(path.suffix, bytes)(raw))
    return path


def market(matrix: np.ndarray, values: str = "integer", header: str = "", order: str = "columns") -> str:
    """A MatrixMarket text; entries sorted by column, as CellRanger does, by row, or shuffled."""
    entries = sparse.coo_matrix(matrix)
    keys = {"columns": (entries.row, entries.col), "rows": (entries.col, entries.row)}
    by = np.random.default_rng(0).permutation(entries.nnz) if order == "shuffled" else np.lexsort(keys[order])
    number = (lambda v: f"{v}.0") if values == "real" else str
    lines = [
        f"{r + 1} {c + 1} {number(v)}"
        for r, c, v in zip(entries.row[by], entries.col[by], entries.data[by], strict=True)
    ]
    size = f"{matrix.shape[0]} {matrix.shape[1]} {entries.nnz}"
    return "\n".join([f"%%MatrixMarket matrix coordinate {values} general", *header.splitlines(), size, *lines]) + "\n"


def table(rows: pd.DataFrame, separator: str = "\t", header: bool = False) -> str:
    return rows.to_csv(sep=separator, index=False, header=header)


def triplet(
    folder: Path,
    truth: Truth,
    names: tuple[str, str, str] = ("matrix.mtx.gz", "features.tsv.gz", "barcodes.tsv.gz"),
    features: str | None = None,
    matrix: str | None = None,
) -> None:
    """Write matrix, features and barcodes under three names (an empty name: not written)."""
    contents = (
        market(truth.counts.T) if matrix is None else matrix,
        table(truth.features()) if features is None else features,
        "".join(f"{name}\n" for name in truth.barcodes),
    )
    for name, content in zip(names, contents, strict=True):
        if name:
            put(folder / name, content)


def dense(truth: Truth, separator: str = ",", names: str = "gene_symbol", transpose: bool = False) -> pd.DataFrame:
    """Genes x cells (or cells x genes) with names as the index."""
    frame = pd.DataFrame(truth.counts.T, index=truth.genes[names].to_numpy(), columns=truth.barcodes)
    return frame.T if transpose else frame


def tenx_h5(path: Path, truth: Truth, genome: bool = True, group: str = "matrix") -> Path:
    """CellRanger's HDF5 matrix, version 3."""
    path.parent.mkdir(parents=True, exist_ok=True)
    csr = sparse.csr_matrix(truth.counts)
    with h5py.File(path, "w") as handle:
        put_h5_matrix(handle.create_group(group), csr, truth.barcodes)
        features = handle[group].create_group("features")
        features["id"] = truth.genes["gene_id"].to_numpy(dtype="S")
        features["name"] = truth.genes["gene_symbol"].to_numpy(dtype="S")
        features["feature_type"] = np.array([GENE_EXPRESSION] * len(truth.genes), dtype="S")
        if genome:
            features["genome"] = np.array(["GRCh38"] * len(truth.genes), dtype="S")
    return path


def put_h5_matrix(group: h5py.Group, csr: sparse.csr_matrix, barcodes: list[str]) -> None:
    group["barcodes"] = np.array(barcodes, dtype="S")
    group["data"] = csr.data.astype(np.int32)
    group["indices"] = csr.indices.astype(np.int64)
    group["indptr"] = csr.indptr.astype(np.int64)
    group["shape"] = np.array([csr.shape[1], csr.shape[0]], dtype=np.int32)


def legacy_group(handle: h5py.File, genome: str, truth: Truth) -> None:
    """A genome's group of CellRanger's HDF5 matrix, version 2."""
    group = handle.create_group(genome)
    put_h5_matrix(group, sparse.csr_matrix(truth.counts), truth.barcodes)
    group["genes"] = truth.genes["gene_id"].to_numpy(dtype="S")
    group["gene_names"] = truth.genes["gene_symbol"].to_numpy(dtype="S")


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def geo_series(root: Path, series: str, series_files: dict[str, bytes], samples: dict[str, dict[str, bytes]]) -> None:
    """A series in a tree shaped like the server's: SOFT and filelist, files of the series and of its samples."""
    ftp = "ftp://ftp.ncbi.nlm.nih.gov"
    base = f"/geo/series/{series[:-3]}nnn/{series}"
    soft = [f"^SERIES = {series}", "!Series_title = Layouts"]
    for name, content in series_files.items():
        put_plain(root / f"{base}/suppl/{name}".lstrip("/"), content)
        soft.append(f"!Series_supplementary_file = {ftp}{base}/suppl/{name}")
    for gsm, files in samples.items():
        below = f"/geo/samples/{gsm[:-3]}nnn/{gsm}/suppl"
        soft += [f"^SAMPLE = {gsm}", f"!Sample_title = {gsm} title", "!Sample_organism_ch1 = Homo sapiens"]
        for number, (name, content) in enumerate(files.items(), 1):
            put_plain(root / f"{below}/{name}".lstrip("/"), content)
            soft.append(f"!Sample_supplementary_file_{number} = {ftp}{below}/{name}")
        if not files:
            soft.append("!Sample_supplementary_file_1 = NONE")
    put(root / f"{base}/soft/{series}_family.soft.gz".lstrip("/"), "\n".join(soft) + "\n")


def put_plain(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def packed(text: str | bytes) -> bytes:
    return gzip.compress(text.encode() if isinstance(text, str) else text, mtime=0)


def one(folder: Path, truth: Truth, ids: bool = True, source: str = "", **values: str) -> list[Row]:
    """The single row of a layout whose files all lie in one folder."""
    expected = Expected(truth.frame(), list(truth.genes["gene_id"]) if ids else None)
    return [Row({"sample": "S1", "source": source or str(folder), **values}, expected)]


# ---------------------------------------------------------------------------------------------- triplets

TRIPLET_NAMES = {
    "v3": ("matrix.mtx.gz", "features.tsv.gz", "barcodes.tsv.gz"),
    "v2 plain": ("matrix.mtx", "genes.tsv", "barcodes.tsv"),
    "v2 gzipped": ("matrix.mtx.gz", "genes.tsv.gz", "barcodes.tsv.gz"),
    "GSM prefix with underscore": ("GSM1_a_matrix.mtx.gz", "GSM1_a_features.tsv.gz", "GSM1_a_barcodes.tsv.gz"),
    "GSM prefix with dot": ("GSM1.matrix.mtx.gz", "GSM1.features.tsv.gz", "GSM1.barcodes.tsv.gz"),
    "sample name after the fixed name": ("matrix_A.mtx.gz", "features_A.tsv.gz", "barcodes_A.tsv.gz"),
    "matrix named txt": ("counts.txt.gz", "genes.txt.gz", "cells.txt.gz"),
    "matrix named mat": ("GSM1_2.1.mat.gz", "GSM1_genes.tsv.gz", "GSM1_barcodes.tsv.gz"),
    "gzipped without saying so": ("matrix.mtx", "features.tsv", "barcodes.tsv"),
    "bzip2": ("matrix.mtx.bz2", "features.tsv.bz2", "barcodes.tsv.bz2"),
    "xz": ("matrix.mtx.xz", "features.tsv.xz", "barcodes.tsv.xz"),
}


def _named_triplet(name: str, names: tuple[str, str, str]) -> Layout:
    def write(folder: Path) -> list[Row]:
        truth = Truth.make()
        triplet(folder, truth, names, table(truth.genes) if "v2" in name else None)
        if name == "gzipped without saying so":
            for path in folder.iterdir():
                path.write_bytes(packed(path.read_bytes()))
        return one(folder, truth)

    return write


for _name, _names in TRIPLET_NAMES.items():
    LAYOUTS[f"triplet, {_name}"] = _named_triplet(_name, _names)

FEATURE_TABLES: dict[str, Callable[[Truth], tuple[str, bool]]] = {
    "one column of symbols": lambda t: ("".join(f"{s}\n" for s in t.genes["gene_symbol"]), False),
    "one column of ids": lambda t: ("".join(f"{s}\n" for s in t.genes["gene_id"]), True),
    "torn type": lambda t: ("".join(f"{g}\t{s}\tGene\tExpression\n" for g, s in t.genes.to_numpy()), True),
    "symbols before ids": lambda t: (table(t.genes[["gene_symbol", "gene_id"]]), True),
    "versioned ids": lambda t: ("".join(f"{g}.{i}\t{s}\n" for i, (g, s) in enumerate(t.genes.to_numpy())), True),
    "genome prefix": lambda t: ("".join(f"hg19_{g}\thg19_{s}\n" for g, s in t.genes.to_numpy()), True),
    "genome prefix GRCh38": lambda t: ("".join(f"GRCh38_{g}\tGRCh38_{s}\n" for g, s in t.genes.to_numpy()), True),
    "seven columns and a header": lambda t: (
        "chrom\tstart\tend\tid\tname\ttype\tx\n"
        + "".join(
            f"chr1\t{i}\t{i + 9}\t{g}\t{s}\t{GENE_EXPRESSION}\tq\n" for i, (g, s) in enumerate(t.genes.to_numpy())
        ),
        True,
    ),
    "comma separated with row numbers": lambda t: (t.genes.to_csv(), True),
    "quoted": lambda t: ("".join(f'"{g}","{s}"\n' for g, s in t.genes.to_numpy()), True),
    "Windows line ends": lambda t: (table(t.features()).replace("\n", "\r\n"), True),
    "old Mac line ends": lambda t: (table(t.features()).replace("\n", "\r"), True),
}


def _featured_triplet(make: Callable[[Truth], tuple[str, bool]]) -> Layout:
    def write(folder: Path) -> list[Row]:
        truth = Truth.make()
        text, ids = make(truth)
        triplet(folder, truth, features=text)
        return one(folder, truth, ids)

    return write


for _name, _make in FEATURE_TABLES.items():
    LAYOUTS[f"triplet, features: {_name}"] = _featured_triplet(_make)

MATRICES: dict[str, Callable[[Truth], str]] = {
    "transposed": lambda t: market(t.counts),
    "real values": lambda t: market(t.counts.T, "real"),
    "comments": lambda t: market(t.counts.T, header="%\n% written by hand"),
    "sorted by gene": lambda t: market(t.counts.T, order="rows"),
    "shuffled": lambda t: market(t.counts.T, order="shuffled"),
    "transposed and shuffled": lambda t: market(t.counts, order="shuffled"),
    "Windows line ends": lambda t: market(t.counts.T).replace("\n", "\r\n"),
    "CellRanger's metadata": lambda t: market(t.counts.T, header='%metadata_json: {"software_version": "x"}'),
}


def _matrix_triplet(make: Callable[[Truth], str]) -> Layout:
    def write(folder: Path) -> list[Row]:
        truth = Truth.make()
        triplet(folder, truth, matrix=make(truth))
        return one(folder, truth)

    return write


for _name, _matrix in MATRICES.items():
    LAYOUTS[f"triplet, matrix: {_name}"] = _matrix_triplet(_matrix)


def _square() -> Truth:
    truth = Truth.make()
    order = [11, 22, 17, 29, 26, *[i for i in range(len(truth.genes)) if i not in (11, 22, 17, 29, 26)]][:N_CELLS]
    return Truth(truth.counts[:, order], truth.genes.iloc[order].reset_index(drop=True), truth.barcodes)


@layout("triplet, square")
def square(folder: Path) -> list[Row]:
    truth = _square()
    triplet(folder, truth)
    return one(folder, truth)


@layout("triplet, square and transposed")
def square_transposed(folder: Path) -> list[Row]:
    truth = _square()
    triplet(folder, truth, matrix=market(truth.counts))
    return one(folder, truth)


@layout("triplet, barcodes with a header and further columns")
def barcode_table(folder: Path) -> list[Row]:
    truth = Truth.make()
    triplet(folder, truth, ("matrix.mtx.gz", "features.tsv.gz", ""))
    put(folder / "barcodes.tsv.gz", "barcode\tn\n" + "".join(f"{b}\t{i}\n" for i, b in enumerate(truth.barcodes)))
    return one(folder, truth)


@layout("triplets of two samples in one folder")
def two_in_a_folder(folder: Path) -> list[Row]:
    rows = []
    for seed, letter in ((1, "A"), (2, "B")):
        truth = Truth.make(seed)
        triplet(folder, truth, (f"matrix_{letter}.mtx.gz", f"features_{letter}.tsv.gz", f"barcodes_{letter}.tsv.gz"))
        values = {"sample": f"S{letter}", "source": str(folder), "files": f"*_{letter}.*"}
        rows.append(Row(values, Expected(truth.frame(), list(truth.genes["gene_id"]))))
    return rows


@layout("triplet, antibodies and hashtags in the same matrix")
def antibodies(folder: Path) -> list[Row]:
    truth = Truth.make()
    rng = np.random.default_rng(5)
    more = rng.poisson(20, size=(N_CELLS, len(PROTEINS) + len(HASHTAGS)))
    names = [*PROTEINS, *HASHTAGS]
    features = pd.concat(
        [
            truth.features(),
            pd.DataFrame({"gene_id": names, "gene_symbol": names, "feature_type": "Antibody Capture"}),
        ]
    )
    triplet(folder, truth, features=table(features), matrix=market(np.hstack([truth.counts, more]).T))
    rows = one(folder, truth)
    rows[0].expected.others = {
        "antibody_capture": pd.DataFrame(more[:, :3], index=truth.barcodes, columns=PROTEINS),
        "hashtags": pd.DataFrame(more[:, 3:], index=truth.barcodes, columns=HASHTAGS),
    }
    return rows


def _combined(folder: Path, names: dict[str, dict[str, str]], patterns: list[str]) -> list[Row]:
    """Two libraries in one triplet; the names of the cells alone tell them apart."""
    truths = [Truth.make(seed, **keys) for seed, keys in enumerate(names.values(), 1)]
    both = Truth(np.vstack([t.counts for t in truths]), truths[0].genes, [name for t in truths for name in t.barcodes])
    triplet(folder, both)
    return [
        Row(
            {"sample": sample, "source": str(folder), "barcodes": pattern},
            Expected(truth.frame(), list(truth.genes["gene_id"])),
        )
        for sample, pattern, truth in zip(names, patterns, truths, strict=True)
    ]


@layout("one triplet of two samples, told by suffix")
def combined_suffix(folder: Path) -> list[Row]:
    return _combined(folder, {"SA": {"suffix": "-1"}, "SB": {"suffix": "-2"}}, ["*-1", "*-2"])


@layout("one triplet of two samples, told by prefix")
def combined_prefix(folder: Path) -> list[Row]:
    return _combined(folder, {"SA": {"prefix": "D1_"}, "SB": {"prefix": "D2_"}}, ["D1_*", "D2_*"])


@layout("one triplet of two samples, told by a table")
def combined_table(folder: Path) -> list[Row]:
    rows = _combined(folder, {"SA": {"suffix": ""}, "SB": {"suffix": ""}}, ["", ""])
    lines = ["barcode\tlibrary"]
    lines += [f"{name}\t{row.values['sample']}" for row in rows for name in row.expected.counts.index]
    path = put(folder.parent / "which" / "cells.tsv", "\n".join(lines) + "\n")
    for row in rows:
        row.values |= {"barcodes": "*", "cells": str(path), "cells_lane": row.values["sample"]}
        row.config = {"barcode": "barcode", "lane": "library", "listed_only": True}
    return rows


def both_species(folder: Path, human: Truth, mouse: Truth) -> list[Row]:
    """A row for each species of a mixed matrix: its genes, in the droplets of both."""
    barcodes = [*human.barcodes, *mouse.barcodes]
    return [
        Row(
            {"sample": f"S{name}", "source": str(folder), "organism": name, "barcodes": "*"},
            Expected(truth.frame().reindex(barcodes, fill_value=0)),
        )
        for name, truth in (("human", human), ("mouse", mouse))
    ]


@layout("human and mouse in one triplet")
def two_species(folder: Path) -> list[Row]:
    human, mouse = Truth.make(1), Truth.make(2, genes=MOUSE)
    counts = np.block(
        [
            [human.counts, np.zeros((N_CELLS, len(mouse.genes)), dtype=int)],
            [np.zeros((N_CELLS, len(human.genes)), dtype=int), mouse.counts],
        ]
    )
    features = pd.concat(
        [
            human.features().assign(
                gene_id="GRCh38_" + human.genes["gene_id"], gene_symbol="GRCh38_" + human.genes["gene_symbol"]
            ),
            mouse.features().assign(
                gene_id="mm10___" + mouse.genes["gene_id"], gene_symbol="mm10___" + mouse.genes["gene_symbol"]
            ),
        ]
    )
    both = Truth(counts, human.genes, [*human.barcodes, *mouse.barcodes])
    triplet(folder, both, features=table(features), matrix=market(counts.T))
    return both_species(folder, human, mouse)


@layout("unfiltered triplet, most barcodes empty")
def unfiltered(folder: Path) -> list[Row]:
    truth = Truth.make()
    empty = make_barcodes(3000, 77)
    counts = np.vstack([truth.counts, np.zeros((len(empty), len(truth.genes)), dtype=int)])
    triplet(folder, Truth(counts, truth.genes, [*truth.barcodes, *empty]))
    return one(folder, truth)


# ---------------------------------------------------------------------------------------------- HDF5


@layout("h5, version 3")
def h5_v3(folder: Path) -> list[Row]:
    truth = Truth.make()
    tenx_h5(folder / "GSM1_filtered_feature_bc_matrix.h5", truth)
    return one(folder, truth)


@layout("h5, version 3 without genome")
def h5_no_genome(folder: Path) -> list[Row]:
    truth = Truth.make()
    tenx_h5(folder / "a.h5", truth, genome=False)
    return one(folder, truth)


@layout("h5, version 2")
def h5_v2(folder: Path) -> list[Row]:
    truth = Truth.make()
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "GSM1_raw_gene_bc_matrices_h5.h5", "w") as handle:
        legacy_group(handle, "GRCh38", truth)
    return one(folder, truth)


@layout("h5, version 2 with two genomes")
def h5_two_genomes(folder: Path) -> list[Row]:
    human, mouse = Truth.make(1), Truth.make(2, genes=MOUSE)
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "GSM1_matrices.h5", "w") as handle:
        legacy_group(handle, "GRCh38", human)
        legacy_group(handle, "mm10", mouse)
    return both_species(folder, human, mouse)


@layout("several samples in one h5")
def h5_aggregated(folder: Path) -> list[Row]:
    truths = [Truth.make(seed, suffix=f"-{seed}") for seed in (1, 2)]
    both = Truth(np.vstack([t.counts for t in truths]), truths[0].genes, truths[0].barcodes + truths[1].barcodes)
    tenx_h5(folder / "aggregated.h5", both)
    return [
        Row({"sample": f"S{i}", "source": str(folder), "barcodes": f"*-{i}"}, Expected(truth.frame()))
        for i, truth in enumerate(truths, 1)
    ]


def _h5ad(place: str) -> Layout:
    def write(folder: Path) -> list[Row]:
        import anndata

        truth = Truth.make()
        folder.mkdir(parents=True, exist_ok=True)
        counts = sparse.csr_matrix(truth.counts.astype(np.float32))
        logged = counts.copy()
        logged.data = np.log1p(logged.data * 1.7)
        obs = pd.DataFrame(index=truth.barcodes)
        var = truth.genes.set_index("gene_symbol")
        x = {"X": counts, "dense X": truth.counts.astype(np.float32), "csc X": counts.tocsc()}.get(place, logged)
        adata = anndata.AnnData(x, obs=obs, var=var)
        if place == "layer":
            adata.layers["counts"] = counts
        if place == "raw":
            adata.raw = anndata.AnnData(counts, obs=obs, var=var)
            adata = adata[:, :9].copy()
        adata.write_h5ad(folder / "lab.h5ad")
        return one(folder, truth)

    return write


for _name in ("X", "dense X", "csc X", "layer", "raw"):
    LAYOUTS[f"h5ad, counts in {_name}"] = _h5ad(_name)


@layout("loom")
def loom(folder: Path) -> list[Row]:
    truth = Truth.make()
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "cells.loom", "w") as handle:
        handle["matrix"] = truth.counts.T.astype(np.float32)
        handle["row_attrs/Gene"] = truth.genes["gene_symbol"].to_numpy(dtype="S")
        handle["row_attrs/Accession"] = truth.genes["gene_id"].to_numpy(dtype="S")
        handle["col_attrs/CellID"] = np.array(truth.barcodes, dtype="S")
        handle.create_group("layers")
    return one(folder, truth)


# ---------------------------------------------------------------------------------------------- dense tables

DENSE: dict[str, Callable[[Truth], tuple[str, str, bool]]] = {
    "csv, genes x cells": lambda t: ("m.csv.gz", dense(t).to_csv(), False),
    "csv, cells x genes": lambda t: ("m.csv.gz", dense(t, transpose=True).to_csv(), False),
    "tsv": lambda t: ("m.tsv.gz", dense(t).to_csv(sep="\t"), False),
    "txt with spaces": lambda t: ("m.txt", dense(t).to_csv(sep=" "), False),
    "semicolons": lambda t: ("m.csv", dense(t).to_csv(sep=";"), False),
    "header one column short": lambda t: ("m.txt.gz", dense(t).to_csv(sep="\t").removeprefix("\t"), False),
    "header one column short, cells x genes": lambda t: (
        "m.txt.gz",
        dense(t, transpose=True).to_csv(sep="\t").removeprefix("\t"),
        False,
    ),
    "everything quoted": lambda t: ("m.csv.gz", dense(t).astype(str).to_csv(quoting=1), False),
    "Windows line ends": lambda t: ("m.csv", dense(t).to_csv(lineterminator="\r\n"), False),
    "old Mac line ends": lambda t: ("m.csv", dense(t).to_csv(lineterminator="\r"), False),
    "byte-order mark": lambda t: ("m.csv", "\ufeff" + dense(t).to_csv(index_label="gene"), False),
    "comment lines": lambda t: ("m.tsv.gz", "# counts\n# of cells\n" + dense(t).to_csv(sep="\t"), False),
    "trailing empty column": lambda t: (
        "m.csv.gz",
        "".join(f"{line},\n" for line in dense(t).to_csv().splitlines()),
        False,
    ),
    "decimals": lambda t: ("m.csv.gz", dense(t).astype(float).to_csv(), False),
    "versioned ids": lambda t: (
        "m.tsv.gz",
        dense(t, names="gene_id").rename(lambda g: f"{g}.7").to_csv(sep="\t"),
        True,
    ),
    "ids, cells x genes": lambda t: ("m.csv.gz", dense(t, names="gene_id", transpose=True).to_csv(), True),
    "id and symbol columns": lambda t: (
        "m.tsv.gz",
        dense(t).reset_index(drop=True).pipe(lambda f: pd.concat([t.genes, f], axis=1)).to_csv(sep="\t", index=False),
        True,
    ),
    "accession, length and coordinates before the cells": lambda t: (
        "m.txt.gz",
        dense(t)
        .reset_index(names="gene")
        .pipe(
            lambda f: pd.concat(
                [
                    f[["gene"]],
                    pd.DataFrame(
                        {
                            "accession": [f"NM_{i:06d}" for i in range(len(f))],
                            "chr": "chr1",
                            "start": range(100, 100 + len(f)),
                            "end": range(900, 900 + len(f)),
                            "length": range(500, 500 + len(f)),
                        }
                    ),
                    f.drop(columns="gene"),
                ],
                axis=1,
            )
        )
        .to_csv(sep="\t", index=False),
        False,
    ),
    "cells x genes with a column of clusters": lambda t: (
        "m.csv.gz",
        dense(t, transpose=True).pipe(lambda f: f.assign(cluster="a")[["cluster", *f.columns]]).to_csv(),
        False,
    ),
    "genome prefix": lambda t: ("m.csv.gz", dense(t).rename(lambda g: f"hg19_{g}").to_csv(), False),
    "bzip2": lambda t: ("m.csv.bz2", dense(t).to_csv(), False),
    "barcodes without suffix, R's dots": lambda t: (
        "m.csv",
        dense(t).rename(columns=lambda b: b.replace("-", ".")).to_csv(),
        False,
    ),
}


def _dense_layout(make: Callable[[Truth], tuple[str, str, bool]], name: str) -> Layout:
    def write(folder: Path) -> list[Row]:
        truth = Truth.make()
        file, text, ids = make(truth)
        put(folder / file, text)
        if "R's dots" in name:
            truth.barcodes = [barcode.replace("-", ".") for barcode in truth.barcodes]
        return one(folder, truth, ids)

    return write


for _name, _text in DENSE.items():
    LAYOUTS[f"dense, {_name}"] = _dense_layout(_text, _name)


@layout("dense, duplicate rows of a gene")
def dense_duplicates(folder: Path) -> list[Row]:
    truth = Truth.make()
    frame = dense(truth)
    extra = frame.loc[["ACTB", "IDO1"]] * 3
    put(folder / "m.csv.gz", pd.concat([frame, extra]).to_csv())
    truth.counts[:, truth.genes["gene_symbol"].isin(["ACTB", "IDO1"])] *= 4
    return one(folder, truth, ids=False)


@layout("dense, outdated symbols")
def dense_outdated(folder: Path) -> list[Row]:
    truth = Truth.make()
    put(folder / "m.csv.gz", dense(truth).rename({"CXCL8": "IL8", "IDO1": "INDO"}).to_csv())
    return one(folder, truth, ids=False)


@layout("xlsx")
def xlsx(folder: Path) -> list[Row]:
    truth = Truth.make()
    folder.mkdir(parents=True, exist_ok=True)
    write_xlsx(folder / "m.xlsx", dense(truth))
    return one(folder, truth, ids=False)


def write_xlsx(path: Path, frame: pd.DataFrame) -> None:
    """A workbook of one sheet with inline strings, written by hand: no spreadsheet library is needed for a test."""
    from xml.sax.saxutils import escape

    def cell(value: object) -> str:
        if isinstance(value, str):
            return f'<c t="inlineStr"><is><t>{escape(value)}</t></is></c>'
        return f"<c><v>{value}</v></c>"

    rows = [
        ["", *frame.columns],
        *([name, *map(int, values)] for name, values in zip(frame.index, frame.to_numpy(), strict=True)),
    ]
    body = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows)
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    relations = "http://schemas.openxmlformats.org/package/2006/relationships"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    kinds = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    parts = {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/xl/workbook.xml" ContentType="{kinds}.sheet.main+xml"/>'
        f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{kinds}.worksheet+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{relations}"><Relationship Id="rId1" Type="{office}/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
        '<sheet name="counts" sheetId="1" r:id="rId1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{relations}"><Relationship Id="rId1" '
        f'Type="{office}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>{body}</sheetData></worksheet>',
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
        for name, text in parts.items():
            book.writestr(name, '<?xml version="1.0" encoding="UTF-8"?>' + text)


# ---------------------------------------------------------------------------------------------- GEO and archives


def _geo_row(truth: Truth, source: str, dataset: str, ids: bool = True, sample: str = "S1", **values: str) -> Row:
    expected = Expected(truth.frame(), list(truth.genes["gene_id"]) if ids else None)
    return Row({"sample": sample, "source": source, **values}, expected, dataset=dataset)


@layout("GEO: features at series level, shared by the samples")
def geo_shared_features(root: Path) -> list[Row]:
    truths = {"GSM7001": Truth.make(1), "GSM7002": Truth.make(2)}
    samples = {
        gsm: {
            f"{gsm}_2.1.mtx.gz": packed(market(truth.counts.T)),
            f"{gsm}_barcodes.tsv.gz": packed("".join(f"{b}\n" for b in truth.barcodes)),
        }
        for gsm, truth in truths.items()
    }
    genes = packed(table(truths["GSM7001"].genes))
    geo_series(root, "GSE7000", {"GSE7000_batch2.genes.tsv.gz": genes}, samples)
    return [_geo_row(truth, gsm, "GSE7000", sample=gsm) for gsm, truth in truths.items()]


@layout("GEO: no file per sample, a dense table each at series level")
def geo_series_level(root: Path) -> list[Row]:
    truths = {"D1": Truth.make(1), "D2": Truth.make(2)}
    files = {f"GSE7100_{name}_counts.csv.gz": packed(dense(truth).to_csv()) for name, truth in truths.items()}
    geo_series(root, "GSE7100", files, {"GSM7101": {}, "GSM7102": {}})
    return [
        _geo_row(truth, "GSE7100", "GSE7100", ids=False, sample=name, files=f"*_{name}_counts*")
        for name, truth in truths.items()
    ]


@layout("GEO: hashtags in a csv under another accession")
def geo_hashtags_apart(root: Path) -> list[Row]:
    truth = Truth.make()
    hashtags = np.random.default_rng(9).poisson(30, size=(len(HASHTAGS), N_CELLS))
    frame = pd.DataFrame(hashtags, index=HASHTAGS, columns=[name.removesuffix("-1") for name in truth.barcodes])
    with_names = {
        "GSM7201_rna_matrix.mtx.gz": packed(market(truth.counts.T)),
        "GSM7201_rna_features.tsv.gz": packed(table(truth.features())),
        "GSM7201_rna_barcodes.tsv.gz": packed("".join(f"{b}\n" for b in truth.barcodes)),
    }
    geo_series(root, "GSE7200", {}, {"GSM7201": with_names, "GSM7202": {"GSM7202_hto.csv.gz": packed(frame.to_csv())}})
    row = _geo_row(truth, "GSM7201,GSM7202", "GSE7200")
    row.expected.others = {"hashtags": pd.DataFrame(hashtags.T, index=truth.barcodes, columns=HASHTAGS)}
    return [row]


def _archive(kind: str) -> Layout:
    def write(folder: Path) -> list[Row]:
        truth = Truth.make()
        triplet(folder / "inside" / "S1", truth)
        files = bytes_of(folder / "inside")
        if kind == "tar of a directory":
            content, name = tar_bytes(files), "GSM1_S1.tar"
        elif kind == "tar.gz":
            content, name = tar_bytes(files, "w:gz"), "GSM1_S1.tar.gz"
        elif kind == "tar of tar.gz":
            content, name = tar_bytes({"S1.tar.gz": tar_bytes(files, "w:gz")}), "GSM1.tar"
        else:
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as bundle:
                for path, data in files.items():
                    bundle.writestr(path, data)
            content, name = buffer.getvalue(), "S1.zip"
            if kind == "tar with a zip inside":
                content, name = tar_bytes({"S1.zip": content}), "GSM1.tar"
        put_plain(folder / "outside" / name, content)
        return one(folder, truth, source=str(folder / "outside" / name))

    return write


for _name in ("tar of a directory", "tar.gz", "tar of tar.gz", "zip", "tar with a zip inside"):
    LAYOUTS[f"archive: {_name}"] = _archive(_name)
