"""Stand-ins for public series that the tests cannot download: small, generated, in the layout of GEO's server.

Names of samples, files, columns and values are the real ones where they could be verified (each example's README says
which); accessions of samples that could not be are fictitious (``GSM90…``). The counts are drawn from the simulator's
profiles, so cells are recognisable, with a known response planted: MSC of the licensed arms respond to interferon and
tumour necrosis factor.

    stand_in = write_stand_in("GSE117837", folder)
    stand_in.libraries["D1P5_licensed"].counts      # what must be read for that row of the example's sheet
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from urllib.parse import quote

import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from immunomod.acquire.geo import accession_folder
from immunomod.files import read_tsv
from immunomod.programs import load_programs
from immunomod.simulate.counts import draw_barcodes, draw_cells
from immunomod.simulate.effects import draw_effects
from immunomod.simulate.geo_layout import Library, file_list, triplet_v2, triplet_v3
from immunomod.simulate.profiles import Profiles, load_profiles, signed_weights
from immunomod.simulate.settings import CellClass, PlantedEffect, SimulationSettings
from immunomod.simulate.streams import stream
from immunomod.tables import REPOSITORY
from support.geo_tree import tar_bytes

FTP = "ftp://ftp.ncbi.nlm.nih.gov/geo"
MARKERS = REPOSITORY / "resources" / "markers" / "markers.tsv"
N_CELLS = 60
DONORS = ("D1", "D2", "D3", "D4")
CLASSES = {
    "MSC": CellClass("MSC", "MSC", "MSC", 3.6, N_CELLS),
    "endothelial": CellClass("endothelial", "endothelial", "immune", 2.5, N_CELLS),
    "CD4_T": CellClass("CD4_T", "T", "immune", 1.0, N_CELLS),
    "B": CellClass("B", "B", "immune", 1.0, N_CELLS),
    "CD14_monocyte": CellClass("CD14_monocyte", "monocyte", "immune", 1.5, N_CELLS),
}
SETTINGS = SimulationSettings(
    n_donors=len(DONORS),
    cell_classes=tuple(CLASSES.values()),
    effects=(
        PlantedEffect("msc_ifng_core", ("MSC",), 1.8),
        PlantedEffect("msc_mhc2", ("MSC",), 1.6),
        PlantedEffect("msc_chemokine_T", ("MSC",), 2.4),
        PlantedEffect("msc_tnf_nfkb", ("MSC",), 1.3),
        PlantedEffect("imm_mac_M1", ("monocyte",), -1.2),
        PlantedEffect("imm_MDSC", ("monocyte",), 1.2),
    ),
    seed=7,
)
RESTING, RESPONDING = "resting", "responding"


@dataclass(frozen=True)
class Drawn:
    """Cells of a culture: counts (cells x genes of :func:`profiles`, CSR) and names."""

    counts: sparse.csr_matrix
    barcodes: list[str]

    def named(self, barcodes: list[str]) -> Drawn:
        """The same cells by other names."""
        return replace(self, barcodes=barcodes)


@dataclass(frozen=True)
class Truth:
    """What must be read for a row of a sheet: cells x genes, as they stand in the file."""

    counts: sparse.csr_matrix
    barcodes: list[str]
    symbols: pd.Index


@dataclass(frozen=True)
class GeoSampleFiles:
    """A sample as it stands in SOFT, with its supplementary files."""

    accession: str
    title: str
    characteristics: Mapping[str, str]
    files: Mapping[str, bytes] = field(default_factory=dict)
    source: str = "cultured cells"


@dataclass(frozen=True)
class StandIn:
    """A series below ``root`` (the equivalent of the server's ``/geo``), and the truth by the sheet's sample."""

    series: str
    root: Path
    libraries: Mapping[str, Truth]

    @property
    def base_url(self) -> str:
        """What to write as ``geo.base_url``."""
        return self.root.resolve().as_uri()


# --- cells -----------------------------------------------------------------------------------------------------------


@cache
def profiles() -> Profiles:
    """The simulator's profiles, and one of endothelial cells: the MSC's, with markers exchanged."""
    shipped = load_profiles()
    markers = read_tsv(MARKERS)
    names = shipped.symbols
    own = markers[(markers["cell_class"] == "endothelial") & (markers["direction"] == "+")]["gene_human"]
    msc = markers[(markers["cell_class"] == "MSC") & (markers["direction"] == "+")]["gene_human"]
    level = shipped.levels["MSC"].where(~names.isin(msc), 0.5).where(~names.isin(own), 600.0)
    return replace(shipped, levels=shipped.levels.assign(endothelial=level))


@cache
def mouse_genes() -> pd.DataFrame:
    """The profiles' genes as mouse genes: ids are placeholders, symbols those of the programmes and markers."""
    tables = [read_tsv(MARKERS), read_tsv(REPOSITORY / "resources" / "programs" / "programs.tsv")]
    pairs = pd.concat([table[["gene_human", "gene_mouse"]] for table in tables]).dropna()
    known = dict(zip(pairs["gene_human"], pairs["gene_mouse"], strict=True))
    symbols = pd.Series([known.get(name, _in_mouse(name)) for name in profiles().symbols])
    symbols = symbols.where(~symbols.duplicated(), symbols + "_second")
    ids = [f"ENSMUSG99{number:09d}" for number in range(1, len(symbols) + 1)]
    return pd.DataFrame({"gene_id": ids, "gene_symbol": symbols})


def _in_mouse(symbol: str) -> str:
    return f"mt-{symbol[3:].capitalize()}" if symbol.startswith("MT-") else symbol.capitalize()


@cache
def _responses(name: str) -> dict[tuple[str, str], np.ndarray]:
    """Log2 factors of a class by donor and state."""
    programs = load_programs()
    cells = CLASSES[name]
    drawn = draw_effects(cells, programs, signed_weights(programs, profiles()), SETTINGS)
    reference = "msc_alone" if cells.compartment == "MSC" else "immune_alone"
    arms = {RESTING: reference, RESPONDING: "coculture"}
    return {(donor, state): drawn.log2_factor[donor, arm] for donor in DONORS for state, arm in arms.items()}


def draw(library: str, donor: str, cells: Mapping[str, tuple[int, str]], depth: float = SETTINGS.depth) -> Drawn:
    """Draw a library: ``cells`` are the number and the state of each class; ``library`` is its own random stream."""
    rng = stream(SETTINGS.seed, "stand-in", library)
    parts = []
    for name, (number, state) in cells.items():
        share = profiles().of(name, "") * np.exp2(_responses(name)[donor, state])
        spread = np.exp(rng.normal(0.0, SETTINGS.depth_sd, number))
        expected = depth * CLASSES[name].rna_content * spread
        parts.append(draw_cells(share / share.sum(), expected, np.ones(1), SETTINGS.dispersion, rng))
    counts = np.vstack(parts)[rng.permutation(sum(number for number, _ in cells.values()))]
    return Drawn(sparse.csr_matrix(counts), list(draw_barcodes(len(counts), rng)))


def truth(drawn: Drawn, genes: pd.DataFrame | None = None) -> Truth:
    """The truth of a library whose file holds what was drawn."""
    symbols = profiles().symbols if genes is None else pd.Index(genes["gene_symbol"])
    return Truth(drawn.counts, drawn.barcodes, symbols)


# --- the server's tree -----------------------------------------------------------------------------------------------


def write_series(
    root: Path,
    series: str,
    title: str,
    samples: list[GeoSampleFiles],
    series_files: Mapping[str, bytes] | None = None,
    organism: str = "Homo sapiens",
) -> None:
    """Write a series: SOFT, ``filelist.txt``, the files of the series and of each sample, and their RAW.tar."""
    own = dict(series_files or {})
    members = {name: body for sample in samples for name, body in sample.files.items()}
    archive = f"{series}_RAW.tar"
    home = root / accession_folder(series)
    if members:
        _write(home / "suppl" / archive, tar_bytes(members))
    for name, body in own.items():
        _write(home / "suppl" / name, body)
    for sample in samples:
        for name, body in sample.files.items():
            _write(root / accession_folder(sample.accession) / "suppl" / name, body)
    sizes = {name: len(body) for name, body in members.items()}
    if members:
        listed = file_list(sizes, {archive: (home / "suppl" / archive).stat().st_size})
        _write(home / "suppl" / "filelist.txt", listed.encode())
    soft = _soft(series, title, samples, [*([archive] if members else []), *own], organism)
    _write(home / "soft" / f"{series}_family.soft.gz", gzip.compress(soft.encode(), mtime=0))


def _soft(series: str, title: str, samples: list[GeoSampleFiles], series_files: list[str], organism: str) -> str:
    def link(accession: str, name: str) -> str:
        coded = quote(name).replace("_", "%5F").replace(".", "%2E")
        return f"{FTP}/{accession_folder(accession)}/suppl/{coded}"

    lines = ["^DATABASE = GeoMiame", "!Database_name = Gene Expression Omnibus (GEO)", f"^SERIES = {series}"]
    lines += [f"!Series_title = {title}", "!Series_summary = GENERATED STAND-IN for tests, not the series' data."]
    lines += [f"!Series_sample_id = {sample.accession}" for sample in samples]
    lines += [f"!Series_supplementary_file = {link(series, name)}" for name in series_files]
    for sample in samples:
        lines += [f"^SAMPLE = {sample.accession}", f"!Sample_title = {sample.title}"]
        lines += [f"!Sample_geo_accession = {sample.accession}", f"!Sample_source_name_ch1 = {sample.source}"]
        lines += [f"!Sample_organism_ch1 = {organism}"]
        lines += [f"!Sample_characteristics_ch1 = {name}: {value}" for name, value in sample.characteristics.items()]
        files = [link(sample.accession, name) for name in sample.files] or ["NONE"]
        lines += [f"!Sample_supplementary_file_{number} = {url}" for number, url in enumerate(files, 1)]
        lines += [f"!Sample_series_id = {series}"]
    return "\n".join(lines) + "\n"


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _triplet(
    accession: str, name: str, drawn: Drawn, layout: Callable[[Library], dict[str, bytes]], genes: pd.DataFrame
) -> dict[str, bytes]:
    return layout(Library(accession, name, drawn.barcodes, genes, drawn.counts))


# --- the series ------------------------------------------------------------------------------------------------------


def gse117837(root: Path) -> StandIn:
    """One sample per cell; one csv at series level, genes x cells, with rows of one gene twice; names in the titles.

    Donor, passage, treatment, numbers of cells, names of columns and of the file: verified. The wording of a title
    around the alias is not.
    """
    strata = {
        ("Donor1", 5, "naïve"): 52,
        ("Donor1", 5, "IFNγ+TNFα"): 58,
        ("Donor2", 0, "naïve"): 50,
        ("Donor2", 2, "naïve"): 50,
        ("Donor2", 2, "IFNγ+TNFα"): 50,
        ("Donor2", 5, "naïve"): 51,
        ("Donor2", 5, "IFNγ+TNFα"): 50,
    }
    symbols = profiles().symbols
    samples: list[GeoSampleFiles] = []
    libraries, columns = {}, []
    for (donor, passage, treatment), number in strata.items():
        licensed = treatment != "naïve"
        sample = f"D{donor[-1]}P{passage}_{'licensed' if licensed else 'resting'}"
        state = RESPONDING if licensed else RESTING
        drawn = draw(f"GSE117837 {sample}", f"D{donor[-1]}", {"MSC": (number, state)}, depth=6000.0)
        drawn = drawn.named([f"C{donor[-1]}{passage}{'s' if licensed else 'n'}.{n:02d}" for n in range(number)])
        libraries[sample] = truth(drawn)
        columns.append(pd.DataFrame(drawn.counts.toarray().T, index=symbols, columns=drawn.barcodes))
        for alias in drawn.barcodes:
            characteristics = {"donor id": donor, "passage": str(passage), "treatment": treatment}
            title = f"{donor} passage {passage} {treatment} [{alias}]"
            samples.append(GeoSampleFiles(f"GSM90{1000 + len(samples):07d}", title, characteristics))
    table = pd.concat(columns, axis=1)
    order = np.random.default_rng(3).permutation(table.shape[1])  # the libraries' columns are mixed
    table = table.iloc[:, order]
    for sample, whole in libraries.items():
        own = [name for name in table.columns if name in set(whole.barcodes)]
        rows = pd.Index(whole.barcodes).get_indexer(own)
        libraries[sample] = replace(whole, counts=whole.counts[rows], barcodes=own)
    twice = table.iloc[::40] // 3
    table.iloc[::40] -= twice.to_numpy()
    table = pd.concat([table, twice])
    name = "GSE117837_Transcriptional_single_cell_analysis_of_hUC_MSCs.csv.gz"
    text = table.rename_axis(None).to_csv(lineterminator="\n")
    title = "Transcriptional single cell analysis of hUC MSCs"
    write_series(root, "GSE117837", title, samples, {name: gzip.compress(text.encode(), 4, mtime=0)})
    return StandIn("GSE117837", root, libraries)


#: The order of the libraries in the stand-in's file; no public source says the real one.
ORDER_OF_GSE115149 = [(donor, arm) for donor in ("EM1", "EM17", "EM18") for arm in ("resting", "licensed")]


def gse115149(root: Path) -> StandIn:
    """Six libraries in one HDF5 file of CellRanger 2 (a group named after the genome), told by suffixes alone."""
    parts, libraries = [], {}
    for number, (donor, arm) in enumerate(ORDER_OF_GSE115149, start=1):
        state = RESPONDING if arm == "licensed" else RESTING
        line = DONORS[(number - 1) // 2]
        drawn = draw(f"GSE115149 {number}", line, {"MSC": (N_CELLS, state)})
        drawn = drawn.named([name.replace("-1", f"-{number}") for name in drawn.barcodes])
        libraries[f"suffix_{number}"] = libraries[f"{donor}_{arm}"] = truth(drawn)
        parts.append(drawn)
    counts = sparse.vstack([drawn.counts for drawn in parts], format="csr")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        content = {
            "barcodes": np.array([name for drawn in parts for name in drawn.barcodes], dtype="S"),
            "data": counts.data.astype(np.int32),
            "gene_names": profiles().genes["gene_symbol"].to_numpy(dtype="S"),
            "genes": profiles().genes["gene_id"].to_numpy(dtype="S"),
            "indices": counts.indices.astype(np.int64),
            "indptr": counts.indptr.astype(np.int64),
            "shape": np.array(counts.shape[::-1], dtype=np.int32),
        }
        for name, values in content.items():
            file.create_dataset(f"hg19/{name}", data=values, compression="gzip", track_times=False)
    samples = [
        GeoSampleFiles(f"GSM900200000{number}", f"MSC {word}", {"cell type": "MSC"})
        for number, word in enumerate(("unlicensed", "licensed"), start=1)
    ]
    files = {"GSE115149_filtered_gene_bc_matrices_h5.h5": buffer.getvalue()}
    write_series(root, "GSE115149", "MSC with and without inflammatory licensing", samples, files)
    return StandIn("GSE115149", root, libraries)


def gse182158(root: Path) -> StandIn:
    """Eleven donors, a triplet of CellRanger 2 each; accessions, titles and names of files verified."""
    tissues = {"D": "Dermis", "B": "Bone marrow", "U": "Umbilical cord", "A": "Adipose"}
    names = ["D01", "D02", "D03", "B01", "B02", "B03", "U01", "U02", "A01", "A02", "A03"]
    samples, libraries = [], {}
    for number, name in enumerate(names):
        drawn = draw(f"GSE182158 {name}", DONORS[number % len(DONORS)], {"MSC": (N_CELLS, RESTING)})
        libraries[name] = truth(drawn)
        accession = f"GSM{5519456 + number}"
        files = _triplet(accession, name, drawn, triplet_v2, profiles().genes)
        samples.append(GeoSampleFiles(accession, name, {"tissue": tissues[name[0]]}, files))
    write_series(root, "GSE182158", "MSC of four tissues", samples)
    return StandIn("GSE182158", root, libraries)


def gse199071(root: Path) -> StandIn:
    """Four donors of MSC, and endothelial cells in two more samples that the sheet leaves out."""
    samples, libraries = [], {}
    for number in range(1, 5):
        sample = f"HUCMSC{number}"
        drawn = draw(f"GSE199071 {sample}", DONORS[number - 1], {"MSC": (N_CELLS, RESTING)})
        libraries[sample] = truth(drawn)
        passage, sex = ("3", "female") if number == 1 else ("6", "male")
        accession = f"GSM{5963748 + number}"
        files = _triplet(accession, sample, drawn, triplet_v3, profiles().genes)
        characteristics = {"passage": passage, "cell type": "HUCMSC", "Sex": sex}
        samples.append(GeoSampleFiles(accession, f"{sample}_scRNAseq", characteristics, files))
    for number in (1, 2):
        drawn = draw(f"GSE199071 HUVEC{number}", DONORS[number], {"endothelial": (N_CELLS, RESTING)})
        accession = f"GSM900300000{number}"
        files = _triplet(accession, f"HUVEC{number}", drawn, triplet_v3, profiles().genes)
        samples.append(GeoSampleFiles(accession, f"HUVEC{number}_scRNAseq", {"cell type": "HUVEC"}, files))
    write_series(root, "GSE199071", "Umbilical cord MSC beside HUVEC", samples)
    return StandIn("GSE199071", root, libraries)


def gse263397(root: Path) -> StandIn:
    """Mouse: two sorted populations, one library each."""
    samples, libraries = [], {}
    populations = {"after_msc": ("CD11bmidLy6Cmid", RESPONDING), "inflammatory": ("CD11bhiLy6Chi", RESTING)}
    for number, (sample, (name, state)) in enumerate(populations.items(), start=1):
        drawn = draw(f"GSE263397 {sample}", "D1", {"CD14_monocyte": (3 * N_CELLS, state)})
        libraries[sample] = truth(drawn, mouse_genes())
        accession = f"GSM900400000{number}"
        files = _triplet(accession, name, drawn, triplet_v3, mouse_genes())
        samples.append(GeoSampleFiles(accession, f"{name} cells", {"tissue": "bone marrow"}, files))
    write_series(root, "GSE263397", "Marrow cells after MSC", samples, organism="Mus musculus")
    return StandIn("GSE263397", root, libraries)


def gse282806(root: Path) -> StandIn:
    """MSC, endothelial cells, both, and both with the leukaemia of six patients: T-ALL licenses the MSC here."""
    cultures: dict[str, dict[str, tuple[int, str]]] = {
        "MSC": {"MSC": (N_CELLS, RESTING)},
        "HUVEC": {"endothelial": (N_CELLS, RESTING)},
        "MSC_HUVEC": {"MSC": (N_CELLS, RESTING), "endothelial": (N_CELLS // 2, RESTING)},
    }
    for number in range(1, 7):
        blasts, state = ("CD4_T", RESPONDING) if number > 4 else ("B", RESTING)
        supporting = {"MSC": (N_CELLS // 2, state), "endothelial": (N_CELLS // 2, RESTING)}
        cultures[f"CO{number}"] = {**supporting, blasts: (N_CELLS, RESTING)}
    samples, libraries = [], {}
    for number, (name, cells) in enumerate(cultures.items(), start=1):
        drawn = draw(f"GSE282806 {name}", "D1", cells)
        libraries[name] = truth(drawn)
        accession = f"GSM90050000{number:02d}"
        files = _triplet(accession, name, drawn, triplet_v3, profiles().genes)
        samples.append(GeoSampleFiles(accession, name, {"culture": "3D hydrogel"}, files))
    write_series(root, "GSE282806", "A 3D model of the leukaemic niche", samples)
    return StandIn("GSE282806", root, libraries)


STAND_INS: dict[str, Callable[[Path], StandIn]] = {
    "GSE115149": gse115149,
    "GSE117837": gse117837,
    "GSE182158": gse182158,
    "GSE199071": gse199071,
    "GSE263397": gse263397,
    "GSE282806": gse282806,
}


def write_stand_in(series: str, root: Path) -> StandIn:
    """Write the stand-in of a series below ``root``."""
    return STAND_INS[series](root)
