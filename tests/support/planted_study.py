"""A small study without fault, and mistakes to plant in it, each with the place where it must be found."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from immunomod.programs import load_programs

ARMS = ("msc", "immune", "coculture")
DONORS = ("D1", "D2", "D3", "D4")
COLUMNS = (
    *("sample", "dataset", "source", "condition", "donor", "culture", "stimulus", "msc_source", "organism", "dose"),
    *("batch", "files", "barcodes", "guessed"),
)


@dataclass
class PlantedStudy:
    """Twelve dense matrices, the sheets and the config, as tables that a test may change before they are written.

    Rows are in the order of the sheet, so that the first one is row 2 of the file.
    """

    folder: Path
    samples: list[dict[str, str]] = field(default_factory=list)
    contrasts: list[dict[str, str]] = field(default_factory=list)
    config: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for donor in DONORS:
            for arm in ARMS:
                row = dict.fromkeys(COLUMNS, "") | {
                    "sample": f"{donor}_{arm}",
                    "dataset": "lab",
                    "source": f"{donor}_{arm}.csv.gz",
                    "condition": arm,
                    "donor": donor,
                    "culture": arm,
                    "stimulus": "" if arm == "msc" else "PHA",
                    "msc_source": "" if arm == "immune" else "adipose",
                    "organism": "human",
                    "batch": "B1" if donor in ("D1", "D2") else "B2",
                }
                self.samples.append(row)
                write_matrix(self.folder / row["source"], seed=len(self.samples))
        self.contrasts = [self.contrast("coculture", "msc,immune", "")]
        self.config = {"samples": "samples.tsv", "contrasts": "contrasts.tsv"}

    @staticmethod
    def contrast(test: str, reference: str, covariates: str, **columns: str) -> dict[str, str]:
        """A row of the contrasts sheet."""
        named = {"contrast": "q1", "dataset": "lab", "variable": "condition", "test": test, "reference": reference}
        return named | {"where": "", "covariates": covariates} | columns

    def write(self) -> Path:
        """Write the sheets and the config; returns the config's path."""
        for name, rows in (("samples", self.samples), ("contrasts", self.contrasts)):
            lines = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
            (self.folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(self.config))
        return path


@cache
def human_symbols() -> list[str]:
    """Genes of all programmes, as a matrix of human cells would list them."""
    genes = load_programs().genes
    return sorted(set(genes["gene_human"]) - {""})


@cache
def mouse_symbols() -> list[str]:
    """The same of mouse cells."""
    genes = load_programs().genes
    return sorted(set(genes["gene_mouse"]) - {""})


def write_matrix(path: Path, seed: int, genes: list[str] | None = None, cells: list[str] | None = None) -> None:
    """A gzipped dense table of counts, genes x cells; another seed gives other counts."""
    random = np.random.default_rng(seed)
    genes = genes or human_symbols()
    cells = cells or ["".join(random.choice(list("ACGT"), 12)) + "-1" for _ in range(6)]
    counts = random.poisson(1.0, (len(genes), len(cells)))
    lines = [",".join(["", *cells])]
    lines += [",".join([gene, *map(str, row)]) for gene, row in zip(genes, counts, strict=True)]
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0))


@dataclass(frozen=True)
class Mistake:
    """Something a user gets wrong, and the file, row and column where the check must name it."""

    name: str
    plant: Callable[[PlantedStudy], None]
    file: str
    row: int | None
    column: str
    words: str
    is_error: bool = True

    @property
    def place(self) -> tuple[str, int | None, str]:
        """File, row and column."""
        return self.file, self.row, self.column


def _set(row: int, **values: str) -> Callable[[PlantedStudy], None]:
    return lambda study: study.samples[row - 2].update(values)


def _ask(**columns: str) -> Callable[[PlantedStudy], None]:
    """Add a contrast; its row is told by how many there are."""

    def add(study: PlantedStudy) -> None:
        row = study.contrast("coculture", "msc,immune", "") | columns
        study.contrasts.append(row | {"contrast": f"q{len(study.contrasts) + 1}"})

    return add


def _cut(study: PlantedStudy) -> None:
    path = study.folder / "D3_msc.csv.gz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def _mouse(study: PlantedStudy) -> None:
    write_matrix(study.folder / "D4_msc.csv.gz", seed=99, genes=mouse_symbols())


def _twin(study: PlantedStudy) -> None:
    (study.folder / "copy.csv.gz").write_bytes((study.folder / "D1_msc.csv.gz").read_bytes())
    study.samples[11 - 2]["source"] = "copy.csv.gz"


def _libraries(study: PlantedStudy) -> None:
    cells = [f"{library}_{bases * 3}" for library in ("L1", "L2") for bases in ("ACGT", "CCGT", "GCGT", "TCGT")]
    write_matrix(study.folder / "D3_immune.csv.gz", seed=98, cells=cells)


def _stimulus(study: PlantedStudy) -> None:
    for row in study.samples:
        row["stimulus"] = "none" if row["condition"] == "immune" else row["stimulus"]


def _programme(study: PlantedStudy) -> None:
    folder = study.folder / "own"
    folder.mkdir()
    genes = ("program\tgene_human\tdirection\tsource\tverified", "mine\tIL2\tup\tthis lab\tno")
    meta = ("program\ttitle\tcompartment\trole\texpected_sign_human\tsource", "mine\tMine\tMSC\treadout\t+\tthis lab")
    for name, lines in (("programs", genes), ("programs_meta", meta)):
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    study.config["programs"] = ["shipped:programs", "own"]


def _pairs(study: PlantedStudy) -> None:
    folder = study.folder / "pairs"
    folder.mkdir()
    (folder / "human.tsv").write_text("ligand\treceptor\nIL2\tIL2RA+IL2RB\n")
    study.config["interactions"] = "pairs"


def mistakes() -> list[Mistake]:
    """Mistakes to plant, each alone or (but for two) all in one study."""
    samples, contrasts, config = "samples.tsv", "contrasts.tsv", "config.yaml"
    return [
        Mistake(
            "unknown setting",
            lambda study: study.config.update(qc={"min_count": 5}),
            config, None, "qc.min_count", "unknown",
        ),
        Mistake(
            "setting out of range",
            lambda study: study.config.update(annotation={"min_score": 7}),
            config, None, "annotation.min_score", "from 0 to 1",
        ),
        Mistake(
            "atlas of an unknown data set",
            lambda study: study.config.update(atlases={"all": ["lab", "elsewhere"]}),
            config, None, "atlases.all", "no data set 'elsewhere'",
        ),
        Mistake("sample named twice", _set(3, sample="D1_msc"), samples, 3, "sample", "stands already in row 2"),
        Mistake("unknown culture", _set(4, culture="cocultre"), samples, 4, "culture", "is not one of"),
        Mistake("missing file", _set(5, source="nowhere.csv.gz"), samples, 5, "source", "does not exist"),
        Mistake("no number", _set(6, dose="high"), samples, 6, "dose", "not allowed"),
        Mistake("guessed", _set(7, guessed="donor (title)"), samples, 7, "guessed", "donor (title)", False),
        Mistake("file cut short", _cut, samples, 8, "source", "truncated or corrupt"),
        Mistake("two libraries in a matrix", _libraries, samples, 9, "barcodes", "tell 2 libraries apart"),
        Mistake("genes of another species", _mouse, samples, 11, "organism", "mouse"),
        Mistake("the same counts twice", _twin, samples, 11, "source", "same bytes"),
        Mistake("unknown level", _ask(test="co-culture"), contrasts, 3, "test", "condition = 'co-culture'"),
        Mistake("unknown column", _ask(where='time == "24"'), contrasts, 3, "where", "'time'"),
        Mistake("idle covariate", _ask(covariates="dataset"), contrasts, 3, "covariates", "every sample", False),
        Mistake("complex of a receptor", _pairs, "human.tsv", 2, "receptor", "'IL2RA+IL2RB' is not allowed here"),
        Mistake("direction of a gene", _programme, "programs.tsv", 2, "direction", "'up' is not one of"),
        Mistake("stimulus differs", _stimulus, contrasts, 2, "reference", "stimulus", False),
    ]  # fmt: skip
