"""A simulated study as a GEO series: the tree that a mirror of the server's ``/geo/`` serves, SOFT and file list
included, with the sheets and the config of a run on it and the truth beside them.

Accessions are fictitious on purpose: nine digits from 900000001 on, a hundred times beyond what GEO has given out.
All bytes follow from the study, so a tree can be checked against the checksums of another one.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from immunomod.errors import UserError
from immunomod.files import atomic_path, write_text, write_tsv
from immunomod.simulate.study import Study

SERIES = "GSE900000001"
FIRST_SAMPLE = 900000001
DATE = "01/01/2026 00:00:00"
FTP = "ftp://ftp.ncbi.nlm.nih.gov/geo"
GENOME = "GRCh38"


@dataclass(frozen=True)
class Library:
    """One library as a GEO sample: its accession, name, barcodes, genes and counts (cells x genes, CSR)."""

    accession: str
    sample: str
    barcodes: list[str]
    genes: pd.DataFrame
    counts: sp.csr_matrix

    @property
    def prefix(self) -> str:
        """What the names of its files start with."""
        return f"{self.accession}_{self.sample}"


def gzip_bytes(text: bytes) -> bytes:
    """``text`` gzipped without a time stamp."""
    return gzip.compress(text, compresslevel=9, mtime=0)


def barcodes_file(library: Library) -> bytes:
    """``barcodes.tsv``: one barcode a line."""
    return gzip_bytes("".join(f"{barcode}\n" for barcode in library.barcodes).encode())


def matrix_file(library: Library) -> bytes:
    """``matrix.mtx``: genes x cells, 1-based, sorted by cell and gene, as CellRanger writes it."""
    counts = library.counts.tocsr()
    counts.sort_indices()
    cells = np.repeat(np.arange(1, counts.shape[0] + 1), np.diff(counts.indptr))
    head = (
        "%%MatrixMarket matrix coordinate integer general\n"
        '%metadata_json: {"software_version": "immunomod simulate", "format_version": 2}\n'
        f"{counts.shape[1]} {counts.shape[0]} {counts.nnz}\n"
    )
    entries = pd.DataFrame({"gene": counts.indices + 1, "cell": cells, "count": counts.data})
    return gzip_bytes((head + entries.to_csv(sep=" ", header=False, index=False, lineterminator="\n")).encode())


def triplet_v3(library: Library) -> dict[str, bytes]:
    """CellRanger 3 and later: barcodes, features (id, symbol, type) and matrix, gzipped."""
    genes = library.genes[["gene_id", "gene_symbol"]].assign(feature_type="Gene Expression")
    features = genes.to_csv(sep="\t", header=False, index=False, lineterminator="\n").encode()
    return {
        f"{library.prefix}_barcodes.tsv.gz": barcodes_file(library),
        f"{library.prefix}_features.tsv.gz": gzip_bytes(features),
        f"{library.prefix}_matrix.mtx.gz": matrix_file(library),
    }


def triplet_v2(library: Library) -> dict[str, bytes]:
    """CellRanger 2: ``genes.tsv`` has two columns, and GEO's submitters gzip all three files."""
    genes = library.genes[["gene_id", "gene_symbol"]]
    features = genes.to_csv(sep="\t", header=False, index=False, lineterminator="\n").encode()
    return {
        f"{library.prefix}_barcodes.tsv.gz": barcodes_file(library),
        f"{library.prefix}_genes.tsv.gz": gzip_bytes(features),
        f"{library.prefix}_matrix.mtx.gz": matrix_file(library),
    }


def h5(library: Library) -> dict[str, bytes]:
    """CellRanger 3 HDF5, one file."""
    import h5py

    counts = library.counts.tocsr()
    counts.sort_indices()
    n_genes = len(library.genes)
    datasets: dict[str, object] = {
        "barcodes": np.array(library.barcodes, dtype="S"),
        "data": counts.data.astype(np.int32),
        "indices": counts.indices.astype(np.int64),
        "indptr": counts.indptr.astype(np.int64),
        "shape": np.array([n_genes, counts.shape[0]], dtype=np.int32),
        "features/id": library.genes["gene_id"].to_numpy(dtype="S"),
        "features/name": library.genes["gene_symbol"].to_numpy(dtype="S"),
        "features/feature_type": np.full(n_genes, b"Gene Expression"),
        "features/genome": np.full(n_genes, GENOME.encode()),
        "features/_all_tag_keys": np.array([b"genome"]),
    }
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, values in datasets.items():
            file.create_dataset(f"matrix/{name}", data=values, compression="gzip", track_times=False)
    return {f"{library.prefix}_filtered_feature_bc_matrix.h5": buffer.getvalue()}


def dense_csv(library: Library) -> dict[str, bytes]:
    """One comma-separated table, gene symbols x barcodes, a header with an empty first field."""
    table = pd.DataFrame(library.counts.T.toarray(), index=library.genes["gene_symbol"], columns=library.barcodes)
    text = table.rename_axis(None).to_csv(lineterminator="\n").encode()
    return {f"{library.prefix}_counts.csv.gz": gzip_bytes(text)}


LAYOUTS: dict[str, Callable[[Library], dict[str, bytes]]] = {
    layout.__name__: layout for layout in (triplet_v3, triplet_v2, h5, dense_csv)
}


def accession_stub(accession: str) -> str:
    """The folder of an accession on the server: its last three digits (or fewer) are ``nnn``."""
    prefix, digits = accession[:3], accession[3:]
    return f"{prefix}{digits[:-3]}nnn"


def study_libraries(study: Study) -> list[Library]:
    """The study's libraries with their accessions, in order."""
    libraries = []
    for number, sample in enumerate(study.libraries["sample"]):
        rows = study.adata[(study.adata.obs["sample"] == sample).to_numpy()]
        libraries.append(Library(f"GSM{FIRST_SAMPLE + number}", sample, rows.obs["barcode"].tolist(), rows.var, rows.X))
    return libraries


def write_geo_tree(study: Study, folder: str | Path, layout: str = "triplet_v3", series: str = SERIES) -> None:
    """Write the study under ``folder`` as the server's ``/geo/`` tree: ``series/`` and ``samples/``.

    The files stand in the folders of their samples. The file list of the series names them as GEO does; the archive
    that GEO makes of them is left out (see :func:`write_archive`), for it would double the size.

    Raises
    ------
    UserError
        ``layout`` is none of :data:`LAYOUTS`.
    """
    if layout not in LAYOUTS:
        raise UserError(f"simulate: layout {layout!r} is not known. There are {', '.join(LAYOUTS)}.")
    folder = Path(folder)
    files: dict[str, dict[str, bytes]] = {}
    for library in study_libraries(study):
        files[library.accession] = LAYOUTS[layout](library)
        supplement = folder / "samples" / accession_stub(library.accession) / library.accession / "suppl"
        for name, content in files[library.accession].items():
            _write_bytes(content, supplement / name)
    home = series_folder(folder, series)
    _write_bytes(gzip_bytes(family_soft(study, series, files).encode()), home / "soft" / f"{series}_family.soft.gz")
    write_text(file_list({name: len(body) for part in files.values() for name, body in part.items()}), _list(home))


def series_folder(folder: Path, series: str = SERIES) -> Path:
    """The folder of a series in a tree."""
    return folder / "series" / accession_stub(series) / series


def write_archive(folder: str | Path, series: str = SERIES) -> Path:
    """Add ``<series>_RAW.tar`` of all samples' files to a tree that :func:`write_geo_tree` wrote; return its path."""
    folder = Path(folder)
    home = series_folder(folder, series)
    archive = home / "suppl" / f"{series}_RAW.tar"
    members = sorted(folder.glob("samples/*/*/suppl/*"))
    with atomic_path(archive) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member in members:
            entry = tarfile.TarInfo(member.name)
            entry.size = member.stat().st_size
            tar.addfile(entry, io.BytesIO(member.read_bytes()))
    sizes = {member.name: member.stat().st_size for member in members}
    write_text(file_list(sizes, {archive.name: archive.stat().st_size}), _list(home))
    soft = home / "soft" / f"{series}_family.soft.gz"
    text = gzip.decompress(soft.read_bytes()).decode()
    link = f"!Series_supplementary_file = {FTP}/{archive.relative_to(folder).as_posix()}\n"
    text = text.replace("!Series_supplementary_file = NONE\n", link, 1)
    _write_bytes(gzip_bytes(text.encode()), soft)
    return archive


def file_list(files: dict[str, int], archives: dict[str, int] | None = None) -> str:
    """``filelist.txt``: archives and their members with sizes in bytes."""
    lines = ["#Archive/File\tName\tTime\tSize\tType"]
    for kind, sizes in (("Archive", archives or {}), ("File", files)):
        for name, size in sizes.items():
            suffix = name.removesuffix(".gz").rsplit(".", 1)[-1].upper()
            lines.append(f"{kind}\t{name}\t{DATE}\t{size}\t{suffix}")
    return "\n".join(lines) + "\n"


def family_soft(study: Study, series: str, files: dict[str, dict[str, bytes]]) -> str:
    """The series' family file; ``files`` are the supplementary files of each sample accession."""
    accessions = list(files)
    n = study.settings.n_donors
    lines = [
        "^DATABASE = GeoMiame",
        "!Database_name = Gene Expression Omnibus (GEO)",
        f"^SERIES = {series}",
        f"!Series_title = Simulated co-culture of MSC with stimulated immune cells, {n} donors",
        f"!Series_geo_accession = {series}",
        "!Series_summary = SIMULATED DATA with a fictitious accession, written by immunomod simulate: no such series "
        "exists in GEO.",
        f"!Series_overall_design = {n} donors, each with MSC alone, immune cells alone and their co-culture.",
        "!Series_type = Expression profiling by high throughput sequencing",
        *(f"!Series_sample_id = {accession}" for accession in accessions),
        "!Series_supplementary_file = NONE",
    ]
    source = {"msc": "MSC alone", "immune": "PBMC alone", "coculture": "MSC with PBMC"}
    for accession, library in zip(accessions, study.libraries.to_dict("records"), strict=True):
        characteristics = {
            "donor": library["donor"],
            "condition": library["condition"],
            "culture": library["culture"],
            "stimulus": library["stimulus"] or "none",
            "msc donor": library["msc_donor"],
            "tissue": library["msc_source"].replace("_", " ") or "peripheral blood",
        }
        supplement = f"{FTP}/samples/{accession_stub(accession)}/{accession}/suppl"
        lines += [
            f"^SAMPLE = {accession}",
            f"!Sample_title = {library['sample']}",
            f"!Sample_geo_accession = {accession}",
            "!Sample_type = SRA",
            "!Sample_channel_count = 1",
            f"!Sample_source_name_ch1 = {source[library['culture']]}",
            "!Sample_organism_ch1 = Homo sapiens",
            "!Sample_taxid_ch1 = 9606",
            *(f"!Sample_characteristics_ch1 = {name}: {value}" for name, value in characteristics.items() if value),
            "!Sample_molecule_ch1 = total RNA",
            "!Sample_library_strategy = RNA-Seq",
            "!Sample_library_source = transcriptomic single cell",
            *(
                f"!Sample_supplementary_file_{number} = {supplement}/{name}"
                for number, name in enumerate(files[accession], start=1)
            ),
            f"!Sample_series_id = {series}",
        ]
    return "\n".join(lines) + "\n"


def write_truth(study: Study, folder: str | Path) -> None:
    """Write the truth: ``truth_effects.tsv``, ``truth_genes.tsv.gz``, ``truth_cells.tsv.gz``,
    ``truth_composition.tsv``, and the settings of the simulation in ``settings.tsv``.
    """
    folder = Path(folder)
    write_tsv(study.truth_effects.round(4), folder / "truth_effects.tsv")
    write_tsv(study.truth_genes.round(4), folder / "truth_genes.tsv.gz")
    write_tsv(study.truth_cells, folder / "truth_cells.tsv.gz")
    write_tsv(study.truth_composition.round(4), folder / "truth_composition.tsv")
    settings = pd.Series(vars(study.settings)).map(str).rename_axis("setting").reset_index(name="value")
    write_tsv(settings, folder / "settings.tsv")


def write_run(study: Study, folder: str | Path, base_url: str, series: str = SERIES) -> None:
    """Write ``config.yaml``, ``samples.tsv`` and ``contrasts.tsv`` of a run that takes the study from ``base_url``."""
    folder = Path(folder)
    sheet = study.libraries.copy()
    sheet.insert(1, "dataset", series)
    sheet.insert(2, "source", [library.accession for library in study_libraries(study)])
    write_tsv(sheet, folder / "samples.tsv")
    contrast = {
        "contrast": "coculture_vs_alone",
        "dataset": series,
        "variable": "condition",
        "test": "coculture",
        "reference": "msc_alone,immune_alone",
        "pair_by": "donor",
    }
    write_tsv(pd.DataFrame([contrast]), folder / "contrasts.tsv")
    write_text(
        "# A simulated co-culture study; paths are relative to this file.\n"
        f'title: "Simulated co-culture of {study.settings.n_donors} donors"\n'
        "samples: samples.tsv\n"
        "contrasts: contrasts.tsv\n"
        f"seed: {study.settings.seed}\n"
        "geo:\n"
        f"  base_url: {base_url}\n",
        folder / "config.yaml",
    )


def _list(home: Path) -> Path:
    return home / "suppl" / "filelist.txt"


def _write_bytes(content: bytes, path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
