"""A workflow of seconds on the package's own machinery (``toy/``), in which every job can be told to go wrong."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from support.slurm_cluster import wait_for
from support.workflow import REPOSITORY

SNAKEFILE = Path(__file__).parent / "toy" / "Snakefile"


class Toy:
    """The workflow in a folder of its own; ``faults`` says by name which job goes wrong and how.

    ``memory``: holds more than its first attempt may; ``slow``: does not end within its first attempt's time; ``wait``:
    waits for what is done to it, before it writes; ``half``: the same with half of its output written; empty: nothing.
    """

    def __init__(self, folder: Path, faults: dict[str, str]) -> None:
        self.folder, self.faults, self._kinds = folder / "run", folder / "faults", faults
        for part in (self.faults, self.folder / "sources"):
            part.mkdir(parents=True)
        for start, (name, fault) in enumerate(faults.items()):
            numbers = "\n".join(map(str, range(start, start + 5)))
            (self.folder / "sources" / f"{name}.tsv").write_text(f"number\n{numbers}\n")
            if fault:
                (self.faults / name).write_text(fault)

    @property
    def config(self) -> list[str]:
        """What ``--config`` is given."""
        return [f"package={REPOSITORY / 'workflow'}", f"names={'+'.join(self._kinds)}", f"faults={self.faults}"]

    def wait_until_at_work(self, name: str) -> int:
        """The process of a job, once it is where its fault is."""
        note = self.faults / f"{name}.pid"
        wait_for(lambda: note.exists() and note.read_text(), f"job {name}", 900)
        if self._kinds[name] == "half":
            wait_for(lambda: not (self.faults / name).exists(), "half a file", 900)
            assert self.halves() and not (self.folder / "work" / f"{name}.tsv").exists()
        return int(note.read_text())

    def halves(self) -> list[Path]:
        """Files that are written and have no name yet."""
        return [path for path in (self.folder / "work").glob(".*") if path.stat().st_size]

    def wait_until_done(self, name: str) -> None:
        """Wait until a job has written its file."""
        wait_for(lambda: (self.folder / "work" / f"{name}.tsv").exists(), f"job {name}", 900)

    def check_table(self) -> None:
        """The final table is that of an undisturbed run, and nothing else was left."""
        numbers = [number for start in range(len(self._kinds)) for number in range(start, start + 5)]
        expected = pd.DataFrame({"number": numbers, "square": [number**2 for number in numbers]})
        assert (self.folder / "table.tsv").read_text() == expected.to_csv(sep="\t", index=False, lineterminator="\n")
        assert sorted(path.name for path in (self.folder / "work").iterdir()) == sorted(
            f"{name}.tsv" for name in self._kinds
        )
