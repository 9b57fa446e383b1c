"""A small series with the layout of GEO's server, written to a folder, and settings that do not wait long."""

import gzip
import io
import random
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd

from immunomod.acquire import acquire_samples
from immunomod.acquire.download import TransferSettings

FAST = TransferSettings(
    attempts=4, backoff_s=0.01, longest_wait_s=3.0, timeout_s=0.4, requests_per_s=1000, progress_bytes=1000
)
SERIES = "/geo/series/GSE1nnn/GSE1234"
SAMPLES = "/geo/samples/GSM50nnn"


def acquired_files(*arguments: Any) -> pd.DataFrame:
    """What :func:`acquire_samples` brings for readers; the metadata stand in ``attrs``."""
    manifest = acquire_samples(*arguments)
    is_metadata = manifest["role"] == "metadata"
    files = manifest[~is_metadata].reset_index(drop=True)
    files.attrs["metadata"] = list(manifest.loc[is_metadata, "file"])
    return files


def noise(seed: int, size: int) -> bytes:
    """Bytes that do not compress, the same each time."""
    return random.Random(seed).randbytes(size)


def tar_bytes(files: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def zip_bytes(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as bundle:
        for name, content in files.items():
            bundle.writestr(name, content)
    return buffer.getvalue()


class Tree:
    """A folder with the layout of the public server, holding series GSE1234 with samples GSM50001 and GSM50002.

    Each sample has a matrix and barcodes; the genes table, a per-cell table and RAW.tar stand at series level.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sample_files = {
            gsm: {
                f"{gsm}_{letter}.mtx.gz": gzip.compress(noise(seed, 30_000), mtime=0),
                f"{gsm}_barcodes.tsv.gz": gzip.compress(b"ACGT-1\n" * seed, mtime=0),
            }
            for gsm, letter, seed in (("GSM50001", "a", 1), ("GSM50002", "b", 2))
        }
        self.series_files = {
            "GSE1234_all.genes.tsv.gz": gzip.compress(b"ENSG1\tA\n", mtime=0),
            "GSE1234_tsne.tsv.gz": gzip.compress(b"ind\tcell\n", mtime=0),
            "GSE1234_RAW.tar": tar_bytes({n: c for files in self.sample_files.values() for n, c in files.items()}),
        }
        for gsm, files in self.sample_files.items():
            for name, content in files.items():
                self.write(f"{SAMPLES}/{gsm}/suppl/{name}", content)
        for name, content in self.series_files.items():
            self.write(f"{SERIES}/suppl/{name}", content)
        self.write_filelist()
        self.write_soft()

    def offer(self, files: dict[str, dict[str, bytes]]) -> None:
        """Replace the samples' files, by accession and name; RAW.tar keeps what it held."""
        self.sample_files = files
        for gsm, named in files.items():
            for name, content in named.items():
                self.write(f"{SAMPLES}/{gsm}/suppl/{name}", content)
        self.write_filelist()
        self.write_soft()

    def write(self, path: str, content: bytes) -> Path:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file

    def path(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def write_filelist(self) -> None:
        rows = [("Archive", "GSE1234_RAW.tar", len(self.series_files["GSE1234_RAW.tar"]))]
        rows += [("File", n, len(c)) for files in self.sample_files.values() for n, c in files.items()]
        lines = ["#Archive/File\tName\tTime\tSize\tType"]
        lines += [f"{kind}\t{name}\t03/15/2017 00:00:00\t{size}\tX" for kind, name, size in rows]
        self.write(f"{SERIES}/suppl/filelist.txt", ("\n".join(lines) + "\n").encode())

    def write_soft(self) -> None:
        ftp = "ftp://ftp.ncbi.nlm.nih.gov"
        lines = ["^DATABASE = GeoMiame", "^SERIES = GSE1234", "!Series_title = A study", "!Series_summary = One."]
        lines += ["!Series_summary = Two."]
        for name in self.series_files:
            coded = name.replace("_", "%5F").replace(".", "%2E")
            lines.append(f"!Series_supplementary_file = {ftp}{SERIES}/suppl/{coded}")
        for gsm, files in self.sample_files.items():
            lines += [f"^SAMPLE = {gsm}", f"!Sample_title = donor {gsm[-1]}", "!Sample_organism_ch1 = Homo sapiens"]
            lines += ["!Sample_characteristics_ch1 = stimulation: IFN: beta", "!Sample_characteristics_ch1 = fresh"]
            for number, name in enumerate(files, 1):
                lines.append(f"!Sample_supplementary_file_{number} = {ftp}{SAMPLES}/{gsm}/suppl/{name}")
            lines += ["!Sample_data_row_count = 0", "!sample_table_begin", "ID_REF\tVALUE", "!sample_table_end"]
        lines += ["^SAMPLE = GSM50003", "!Sample_title = no files", "!Sample_supplementary_file_1 = NONE"]
        soft = gzip.compress("\n".join(lines).encode() + b"\n", mtime=0)
        self.write(f"{SERIES}/soft/GSE1234_family.soft.gz", soft)
