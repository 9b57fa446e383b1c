"""Disk and memory that a run will take, estimated from file sizes and headers, against what this machine has.

The figures behind the estimates were measured on runs of this workflow (GSE96583 and the demo) and on simulated
libraries of up to 100,000 cells; they are meant to be right within a factor of two.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from immunomod.acquire.disk import free_bytes, size_words
from immunomod.acquire.room import required_bytes
from immunomod.errors import Problem, Severity
from immunomod.preflight.libraries import Libraries, Library
from immunomod.settings import Run

#: Bytes on disk of one stored count: gzipped text or HDF5, and plain text.
PACKED_BYTES, PLAIN_BYTES = 3.0, 11.0
#: Stored counts of a cell, where only the size of its matrix is known.
COUNTS_PER_CELL = 2000
#: Bytes that a stored count takes in counts.h5ad (8), filtered.h5ad (16) and the atlas (4.4 of 2,000 counts a cell).
RESULT_BYTES, ATLAS_BYTES = 24, 4.4
#: Memory of a process before it reads anything, per stored count of the sample in it, and per cell of the atlas.
BASE_MEMORY, SAMPLE_MEMORY, ATLAS_MEMORY = 600e6, 40, 9_000
#: The report, tables and logs.
REPORT_BYTES = 50e6


@dataclass(frozen=True)
class Needs:
    """What a run takes and what there is, in bytes; ``largest`` is the sample that needs most memory."""

    download: float
    disk: float
    free_disk: float
    sample_memory: float
    largest: str
    atlas_memory: float
    atlas: str
    free_memory: float | None
    unknown_sizes: int
    unknown_samples: int
    folder: Path

    def lines(self) -> list[str]:
        """For the summary."""
        unknown = f", and {self.unknown_sizes} files of unknown size" if self.unknown_sizes else ""
        unknown += f"; nothing is known of {self.unknown_samples} samples" if self.unknown_samples else ""
        memory = "" if self.free_memory is None else f"; available: {size_words(self.free_memory)}"
        return [
            f"download: {size_words(self.download)} to fetch{unknown}",
            f"disk: about {size_words(self.disk)} in {self.folder}; free: {size_words(self.free_disk)}",
            f"memory: about {size_words(self.sample_memory)} for the largest sample ({self.largest}), "
            f"{size_words(self.atlas_memory)} for the atlas ({self.atlas}){memory}",
        ]

    def problems(self, config_name: str) -> list[Problem]:
        """Too little disk is an error, too little memory a warning: another machine may run the jobs."""
        found = []
        if self.disk > self.free_disk:
            problem = f"{self.folder} needs about {size_words(self.disk)}, and {size_words(self.free_disk)} are free"
            found.append(Problem(config_name, problem, "free some, or run in a folder on a larger disk"))
        for need, what in ((self.sample_memory, f"sample {self.largest}"), (self.atlas_memory, f"atlas {self.atlas}")):
            if self.free_memory is not None and need > self.free_memory:
                problem = (
                    f"about {size_words(need)} of memory are needed for {what}, and {size_words(self.free_memory)} "
                    "are available here"
                )
                fix = "run on a machine or a cluster node with more"
                found.append(Problem(config_name, problem, fix, severity=Severity.WARNING))
        return found


def stored_counts(library: Library) -> float:
    """Stored counts of a library's matrix, from the size of its file."""
    return library.stored_bytes / (PACKED_BYTES if library.is_packed else PLAIN_BYTES)


def n_cells(library: Library) -> float:
    """Cells of a library: as its header says, or else by the size of its matrix."""
    known = library.head.n_cells if library.head is not None else None
    return float(known) if known is not None else stored_counts(library) / COUNTS_PER_CELL


def estimate(run: Run, libraries: Libraries, results: Path) -> Needs:
    """What a run of the study takes."""
    users = Counter(_matrix_of(library) for library in libraries.found)
    share = {id(one): stored_counts(one) / users[_matrix_of(one)] for one in libraries.found}
    written = sum(
        max(0.0, RESULT_BYTES * share[id(one)] - _there(results / "samples" / one.row.sample))
        for one in libraries.found
    )
    cells = dict.fromkeys(run.atlases, 0.0)
    for library in libraries.found:
        cells[run.atlas_of(library.dataset)] += n_cells(library)
    download = sum(
        required_bytes(
            [pick for library in libraries.of(dataset) for pick in library.picks],
            results / "acquire" / dataset / "files",
        )
        for dataset in run.datasets
    )
    remote = {file for library in libraries.found for file in library.remote}
    largest = max(libraries.found, key=stored_counts, default=None)
    atlas = max(cells, key=lambda name: cells[name], default="")
    return Needs(
        download=download,
        disk=download + written + ATLAS_BYTES * sum(share.values()) + REPORT_BYTES,
        free_disk=free_bytes(results),
        sample_memory=BASE_MEMORY + SAMPLE_MEMORY * (stored_counts(largest) if largest else 0),
        largest=largest.row.sample if largest else "none",
        atlas_memory=BASE_MEMORY + ATLAS_MEMORY * cells.get(atlas, 0.0),
        atlas=atlas,
        free_memory=available_memory(),
        unknown_sizes=sum(file.bytes is None and not file.url.startswith("file:") for file in remote),
        unknown_samples=sum(not library.picks for library in libraries.found),
        folder=results,
    )


def _matrix_of(library: Library) -> object:
    return library.matrix or tuple(library.picks) or id(library)


def _there(folder: Path) -> int:
    """Bytes of a sample's results that an earlier run left."""
    return sum(path.stat().st_size for path in folder.glob("*.h5ad"))


def available_memory() -> float | None:
    """Bytes of memory that this process may still take: what the machine has free, or its control group allows."""
    limits = []
    try:
        meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
        limits += [1024.0 * int(line.split()[1]) for line in meminfo.splitlines() if line.startswith("MemAvailable")]
    except (OSError, ValueError, IndexError):
        pass
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(float(Path(name).read_text(encoding="ascii")))
        except (OSError, ValueError):  # "max", or no control group
            continue
    return min(limits, default=None)
