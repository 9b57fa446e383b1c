"""Hand-made series with the layout of GEO's server, and sheets read back as a run reads them."""

import gzip
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import io as scipy_io
from scipy import sparse

from immunomod.acquire.geo import accession_folder
from immunomod.init.command import init_command
from immunomod.tables import read_table

FTP = "ftp://ftp.ncbi.nlm.nih.gov/geo"
HUMAN, MOUSE = "Homo sapiens", "Mus musculus"
GENES = [
    "CD3D",
    "CD3E",
    "CD4",
    "CD8A",
    "CD8B",
    "CD14",
    "CD19",
    "CD27",
    "CD38",
    "CD40",
    "CD44",
    "CD68",
    "CD74",
    "CD79A",
    "CD80",
    "CD86",
    "CXCL9",
    "CXCL10",
    "CCL2",
    "IL6",
    "IL2RA",
    "TNF",
    "IFNG",
    "IDO1",
    "STAT1",
    "ACTB",
    "GAPDH",
    "B2M",
    "LYZ",
    "NKG7",
]


@dataclass
class Sample:
    """A sample of a hand-made SOFT file; ``characteristics`` are its lines as authors write them."""

    title: str
    characteristics: list[str] = field(default_factory=list)
    source: str = "cultured cells"
    organism: str = HUMAN
    strategy: str = "RNA-Seq"
    files: list[str] | None = None  # names behind the accession; None: a triplet


def triplet(seed: int = 0, barcodes: list[str] | None = None) -> dict[str, bytes]:
    """A matrix of 30 genes with its companions, by role."""
    names = barcodes or [
        f"{'ACGT' * 3}{'ACGT'[seed % 4]}{'ACGT'[number % 4]}{'ACGT'[number // 4]}A-1" for number in range(8)
    ]
    counts = sparse.random(len(GENES), len(names), 0.5, format="coo", random_state=seed)
    counts.data = np.ceil(5 * counts.data)
    buffer = io.BytesIO()
    scipy_io.mmwrite(buffer, counts.astype(int))
    return {
        "matrix.mtx": buffer.getvalue(),
        "barcodes.tsv": "".join(f"{name}\n" for name in names).encode(),
        "features.tsv": "".join(f"ENSG{n:011d}\t{gene}\tGene Expression\n" for n, gene in enumerate(GENES)).encode(),
    }


def dense(cells: list[str]) -> bytes:
    """A csv of counts, genes x cells."""
    lines = [",".join(["gene", *cells])]
    lines += [
        ",".join([gene, *(str((row * column) % 7) for column in range(len(cells)))]) for row, gene in enumerate(GENES)
    ]
    return ("\n".join(lines) + "\n").encode()


def write_series(
    root: Path,
    samples: list[Sample],
    title: str = "A study",
    accession: str = "GSE1234",
    at_series: Mapping[str, bytes] | None = None,
) -> str:
    """Write a series below ``root`` and return the address of the tree."""
    at_series = at_series or {}
    lines = ["^DATABASE = GeoMiame", f"^SERIES = {accession}", f"!Series_title = {title}", "!Series_summary = Text."]
    home = root / accession_folder(accession)
    for name, content in at_series.items():
        _write(home / "suppl" / name, content)
        lines.append(f"!Series_supplementary_file = {FTP}/{accession_folder(accession)}/suppl/{name}")
    listed = ["#Archive/File\tName\tTime\tSize\tType"]
    for number, sample in enumerate(samples):
        gsm = f"GSM{50001 + number}"
        content = triplet(number)
        names = {f"{gsm}_{name}.gz": content[name] for name in content} if sample.files is None else {}
        names |= {f"{gsm}_{name}": b"x" for name in sample.files or []}
        lines += [f"^SAMPLE = {gsm}", f"!Sample_title = {sample.title}", f"!Sample_source_name_ch1 = {sample.source}"]
        lines += [f"!Sample_organism_ch1 = {name}" for name in sample.organism.split(";") if name]
        lines += [f"!Sample_characteristics_ch1 = {line}" for line in sample.characteristics]
        lines.append(f"!Sample_library_strategy = {sample.strategy}")
        for place, (name, data) in enumerate(names.items(), 1):
            data = gzip.compress(data, mtime=0) if name.endswith(".gz") else data
            _write(root / accession_folder(gsm) / "suppl" / name, data)
            listed.append(f"File\t{name}\t03/15/2017 00:00:00\t{len(data)}\tX")
            lines.append(f"!Sample_supplementary_file_{place} = {FTP}/{accession_folder(gsm)}/suppl/{name}")
        if not names:
            lines.append("!Sample_supplementary_file_1 = NONE")
    if len(listed) > 1:
        _write(home / "suppl" / "filelist.txt", ("\n".join(listed) + "\n").encode())
    _write(home / "soft" / f"{accession}_family.soft.gz", gzip.compress("\n".join([*lines, ""]).encode(), mtime=0))
    return root.as_uri()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@dataclass
class Study:
    """What ``init`` wrote and said."""

    folder: Path
    said: str

    @property
    def samples(self) -> pd.DataFrame:
        """The sheet, as far as a run can read it: rows that lack what must be given are shown too."""
        header, *rows = [line.split("\t") for line in self.lines("samples.tsv") if not line.startswith("#")]
        return pd.DataFrame([dict(zip(header, row, strict=True)) for row in rows]).set_index("sample", drop=False)

    @property
    def contrasts(self) -> pd.DataFrame:
        """The questions that are asked."""
        return read_table(self.folder / "contrasts.tsv", "contrasts")

    def lines(self, name: str) -> list[str]:
        """Lines of a file, empty ones left out."""
        return [line for line in (self.folder / name).read_text(encoding="utf-8").split("\n") if line]

    def comments(self, name: str = "samples.tsv") -> str:
        """The comments below the header."""
        lines = self.lines(name)
        start = next(number for number, line in enumerate(lines) if not line.startswith("#"))
        return "\n".join(line for line in lines[start:] if line.startswith("#"))

    def guesses(self, sample: str) -> dict[str, str]:
        """What column ``guessed`` says of a sample, by column."""
        return dict(part.split("<-", 1) for part in self.samples.at[sample, "guessed"].split("; ") if part)


def init_series(tmp_path: Path, samples: list[Sample], **series: object) -> Study:
    """Write a series, propose from it, and return what came of it."""
    address = write_series(tmp_path / "geo", samples, **series)
    out = tmp_path / "study"
    return Study(out, init_command(str(series.get("accession", "GSE1234")), out, address))
