"""A run's settings: the config and the two sheets, validated at the door and trusted inside.

:func:`load_run` is called once, when Snakemake reads the ``Snakefile`` (and by the command line), so a mistake stops
the run before the first job. Its result also answers what the rules ask: which samples a data set has, which atlas a
data set is in, and the settings of each floor.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import jsonschema
import pandas as pd
import yaml

from immunomod.acquire import AcquireSettings
from immunomod.acquire.download import TransferSettings
from immunomod.acquire.plan import SheetRow, is_local, local_files, sheet_rows, split_sources
from immunomod.atlas.settings import EVERY_ATLAS, AnnotationSettings, AtlasSettings
from immunomod.contrast.settings import ContrastSettings
from immunomod.diseases import table_path
from immunomod.errors import Problem, StudyError, UserError
from immunomod.genes import ORGANISMS
from immunomod.interactions import table_of
from immunomod.sample.demultiplex.names import without_donors
from immunomod.sample.readers.counts import ReadingSettings
from immunomod.sample.settings import SECTIONS, SHEET_LIMITS, SampleSettings
from immunomod.sections import read_values
from immunomod.sheets import examine_contrasts, examine_samples, split_list
from immunomod.synthesis.settings import PotencySettings
from immunomod.tables import REPOSITORY, Examined, describe, load_schema

T = TypeVar("T")

ACCESSION = re.compile(r"GS[EM][0-9]+", re.IGNORECASE)
#: Columns of the sheet that speak to who edits it, and say nothing of the sample.
NOTES = ("guessed",)
#: Columns of the sheet that a later floor reads from the sheet itself: filling them in has no sample read again.
MEASURED = ("suppression",)
#: Columns of the sheet that say where a sample's files are.
ACQUIRED_BY = ("sample", "dataset", "source", "files", "cells", "cells_lane", "barcodes", "hashtags")


@dataclass(frozen=True)
class Run:
    """Everything that a user said, with defaults filled in and paths made absolute.

    Attributes
    ----------
    config
        The resolved config.
    folder
        The config's folder: relative paths in the config and in the sheets start there.
    samples, contrasts
        The sheets, all fields strings, indexed by the row's number in the file.
    """

    config: dict[str, Any]
    folder: Path
    samples: pd.DataFrame
    contrasts: pd.DataFrame

    @cached_property
    def datasets(self) -> list[str]:
        """Data sets in the order of the sheet."""
        return list(dict.fromkeys(self.samples["dataset"]))

    @cached_property
    def atlases(self) -> dict[str, list[str]]:
        """Data sets of each atlas; each data set is in one atlas, of its own name unless the config says otherwise."""
        named: dict[str, list[str]] = dict(self.config["atlases"])
        taken = {dataset for datasets in named.values() for dataset in datasets}
        return named | {dataset: [dataset] for dataset in self.datasets if dataset not in taken}

    @cached_property
    def organisms(self) -> dict[str, str]:
        """Organism of each data set."""
        return dict(zip(self.samples["dataset"], self.samples["organism"], strict=True))

    def organisms_of(self, datasets: Sequence[str]) -> list[str]:
        """The organisms of some data sets, by name."""
        return sorted({self.organisms[dataset] for dataset in datasets} & set(ORGANISMS))

    def atlas_of(self, dataset: str) -> str:
        """The atlas that holds a data set."""
        return next(atlas for atlas, datasets in self.atlases.items() if dataset in datasets)

    def samples_of(self, datasets: Sequence[str]) -> list[str]:
        """Samples of some data sets, in the order of the sheet."""
        return list(self.samples.loc[self.samples["dataset"].isin(list(datasets)), "sample"])

    def sample_row(self, sample: str) -> dict[str, str]:
        """A sample's row of the sheet."""
        row = self.samples[self.samples["sample"] == sample].iloc[0]
        return {str(name): str(value) for name, value in row.items()}

    def dataset_of(self, sample: str) -> str:
        """The data set that a sample is of."""
        return self.sample_row(sample)["dataset"]

    def read_row(self, sample: str) -> dict[str, str]:
        """A sample's row without its limits, notes and assays, so that one that is changed has no file read again."""
        left_out = {*SHEET_LIMITS, *NOTES, *MEASURED}
        return {name: value for name, value in self.sample_row(sample).items() if name not in left_out}

    def sample_limits(self, sample: str) -> dict[str, float]:
        """Limits of quality control that the sheet gives for a sample."""
        return {name: float(value) for name, value in self.sample_row(sample).items() if name in SHEET_LIMITS and value}

    def acquire_row(self, sample: str) -> dict[str, str]:
        """What the sheet says of a sample's files.

        Nothing else stands in it, so that a donor or condition that is put right has no file fetched again. Nor does
        the number of the row: one that is added above would change it.
        """
        row = {name: value for name, value in self.sample_row(sample).items() if name in ACQUIRED_BY}
        if "hashtags" in row:
            row["hashtags"] = without_donors(row["hashtags"])
        return row

    def row_number(self, sample: str) -> int:
        """Where a sample's row stands in the sheet, for messages."""
        return int(str(self.samples.index[self.samples["sample"] == sample][0]))

    def base_url(self, sample: str) -> str:
        """Where a sample's files are fetched from; empty if all lie on this machine."""
        return "" if is_local(self._files_row(sample), self.folder) else str(self.config["geo"]["base_url"])

    def local_files(self, sample: str) -> list[str]:
        """Files on this machine that a sample is read from."""
        return [str(path) for path in local_files(self._files_row(sample), self.folder)]

    def _files_row(self, sample: str) -> SheetRow:
        rows = self.samples[self.samples["sample"] == sample]
        return sheet_rows(rows, self.config["samples"])[0]

    @cached_property
    def msc_rows(self) -> list[dict[str, str]]:
        """What the sheet says of each library's MSC: its donor, source and measured suppression."""
        columns = ["sample", "dataset", "organism", "msc_donor", "msc_source", "suppression"]
        return [
            {str(name): str(value) for name, value in row.items()} for row in self.samples[columns].to_dict("records")
        ]

    @cached_property
    def acquire_settings(self) -> AcquireSettings:
        """How files are fetched: the section ``geo`` for all jobs together."""
        return AcquireSettings.from_config(self.config["geo"])

    def contrast_row(self, contrast: str) -> dict[str, str]:
        """A contrast's row of the sheet."""
        row = self.contrasts[self.contrasts["contrast"] == contrast].iloc[0]
        return {str(name): str(value) for name, value in row.items()}

    def datasets_of_contrast(self, contrast: str) -> list[str]:
        """Data sets that a contrast compares within."""
        return split_list(self.contrast_row(contrast)["dataset"])

    @cached_property
    def tables(self) -> list[str]:
        """Tables of programmes, markers, disease signatures and ligand-receptor pairs that the config names."""
        folders = [Path(folder) for folder in self.config["programs"]]
        paths = [folder / name for folder in folders for name in ("programs.tsv", "programs_meta.tsv")]
        markers = Path(self.config["annotation"]["markers"])
        pairs = [table_of(self.config["interactions"], organism) for organism in self.organisms_of(self.datasets)]
        own = (*paths, markers / "cell_classes.tsv", markers / "markers.tsv", *pairs)
        return [*map(str, own), *self.disease_tables]

    @cached_property
    def disease_tables(self) -> list[str]:
        """Tables of disease signatures and of fold changes that the config names."""
        diseases = self.config["diseases"]
        own = [settings["table"] for settings in diseases["fold_changes"].values()]
        return [*(str(table_path(path)) for path in diseases["tables"]), *own]

    @property
    def witnesses(self) -> list[str]:
        """Files that are heard on what cells are, beside the markers."""
        annotation = self.config["annotation"]
        references = [given["file"] for given in annotation["references"].values()]
        return [*annotation["celltypist"].values(), *references, *filter(None, [annotation["labels"]])]

    def overrides_of(self, atlas: str) -> list[str]:
        """The table of the user's own classes for an atlas, if there is one."""
        named: dict[str, str] = self.config["annotation"]["overrides"]
        return [path for path in (named.get(atlas, named.get(EVERY_ATLAS)),) if path]

    def local_sources(self, dataset: str) -> list[str]:
        """Files on this machine that a data set's rows name, those of a named folder among them."""
        rows = self.samples[self.samples["dataset"] == dataset]
        sources = [source for value in rows["source"] for source in split_sources(value, self.folder)]
        named = [local_path(self.folder, value) for value in (*sources, *rows["cells"]) if value]
        files = {file for path in named for file in (path, *path.rglob("*")) if file.is_file()}
        return sorted(map(str, files))


def _without(rows: pd.DataFrame, numbers: set[int]) -> pd.DataFrame:
    return rows[~rows.index.isin(numbers)]


def local_path(folder: Path, name: str) -> Path:
    """A file or folder as the sheet names it: from the config's folder, or from the user's own (``~``)."""
    return folder / Path(name).expanduser()


def fill_defaults(value: dict[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """``value`` with the defaults of a JSON schema's ``properties``, at every depth."""
    filled = dict(value)
    for name, part in schema.get("properties", {}).items():
        if name not in filled and "default" in part:
            filled[name] = copy.deepcopy(part["default"])
        if isinstance(filled.get(name), dict):
            filled[name] = fill_defaults(filled[name], part)
    return filled


@dataclass
class Examination:
    """What can be read of a study, and everything that is wrong with it.

    ``config`` is resolved, with defaults in place of what is faulty; the sheets are None where they cannot be read.
    """

    config: dict[str, Any]
    folder: Path
    samples: Examined
    contrasts: Examined
    problems: list[Problem]

    @property
    def run(self) -> Run | None:
        """The study, without the rows that cannot be used; None where there is no sample to read."""
        if self.samples.rows is None:
            return None
        samples = _without(self.samples.rows, self.samples.faulty_rows("sample", "dataset"))
        contrasts = pd.DataFrame(columns=list(load_schema("contrasts")["properties"]), dtype=str)
        if self.contrasts.rows is not None:
            faulty = self.contrasts.faulty_rows(*self.contrasts.rows.columns)
            contrasts = _without(self.contrasts.rows, faulty)
        return Run(config=self.config, folder=self.folder, samples=samples, contrasts=contrasts)


def examine_config(
    config: Mapping[str, Any], folder: Path, name: str = "config"
) -> tuple[dict[str, Any], list[Problem]]:
    """A config with its defaults filled in and its paths absolute, and what is wrong with it.

    A setting that is wrong is taken out, so that its default stands in its place while the rest is looked at.
    """
    schema = load_schema("config")
    given = copy.deepcopy(dict(config))
    resolved = fill_defaults(given, schema)
    problems = []
    validator = jsonschema.Draft202012Validator(schema)
    for error in sorted(validator.iter_errors(resolved), key=lambda e: list(map(str, e.absolute_path))):
        path = list(error.absolute_path)
        problems.append(Problem(name, *describe(error), column=".".join(map(str, path))))
        unknown = [key for key in given if key not in schema["properties"]] if not path else [path[0]]
        for key in unknown:
            given.pop(key, None)
    resolved = fill_defaults(given, schema)
    resolved |= _resolve_sections(resolved, name, problems)
    for key in ("samples", "contrasts"):
        resolved[key] = str(folder / resolved[key])
    resolved["programs"] = [str(_shipped_or_own(path, folder)) for path in resolved["programs"]]
    diseases = resolved["diseases"]
    diseases["tables"] = [str(_shipped_or_own(path, folder)) for path in diseases["tables"]]
    diseases["fold_changes"] = {
        signature: {**settings, "table": str(folder / settings["table"])}
        for signature, settings in diseases["fold_changes"].items()
    }
    resolved["interactions"] = str(_shipped_or_own(resolved["interactions"], folder))
    resolved["annotation"]["markers"] = str(_shipped_or_own(resolved["annotation"]["markers"], folder))
    overrides = resolved["annotation"]["overrides"]
    interpreter = resolved["atlas"]["scvi_python"]
    if "/" in interpreter:  # else a name that is looked up in PATH
        resolved["atlas"]["scvi_python"] = str(folder / interpreter)
    annotation = resolved["annotation"]
    annotation["overrides"] = {atlas: str(folder / path) for atlas, path in overrides.items()}
    annotation["celltypist"] = {one: str(folder / path) for one, path in annotation["celltypist"].items()}
    annotation["references"] = {
        one: given | {"file": str(folder / given["file"])} for one, given in annotation["references"].items()
    }
    annotation["labels"] = str(folder / annotation["labels"]) if annotation["labels"] else ""
    base_url = resolved["geo"]["base_url"]
    if "://" not in base_url:
        tree = (folder / base_url).resolve()
        if not tree.is_dir():
            fix = "give a URL, or a folder laid out as GEO's /geo/"
            problems.append(Problem(name, f"{tree} is no folder", fix, column="geo.base_url"))
        base_url = tree.as_uri()
    resolved["geo"]["base_url"] = base_url.rstrip("/")
    return resolved, problems


def resolve_config(config: Mapping[str, Any], folder: Path, name: str = "config") -> dict[str, Any]:
    """:func:`examine_config`, where nothing may be wrong.

    Raises
    ------
    StudyError
        Every fault, with its place in the config.
    """
    resolved, problems = examine_config(config, folder, name)
    if problems:
        raise StudyError(problems)
    return resolved


def _resolve_sections(config: Mapping[str, Any], name: str, problems: list[Problem]) -> dict[str, Any]:
    """The floors' sections with every default filled in, from the data classes that the floors run on."""

    def read(key: str, from_config: Callable[[Mapping[str, Any]], T]) -> T:
        return _read_section(key, dict(config[key]), from_config, name, problems)

    seed = config["seed"]
    read("geo", _read_geo)
    sample = {key: read(key, partial(_sample_section, key, seed)).as_dict()[key] for key in SECTIONS}
    atlas = read("atlas", AtlasSettings.from_config).as_dict()
    annotation = asdict(read("annotation", AnnotationSettings.from_config))
    return {
        "reading": asdict(read("reading", ReadingSettings.from_config)),
        **sample,
        "atlas": {key: value for key, value in atlas.items() if key != "annotation"},
        "annotation": {"markers": config["annotation"]["markers"]} | annotation,
        "contrast": asdict(read("contrast", ContrastSettings.from_config)),
        "potency": asdict(read("potency", PotencySettings.from_config)),
    }


def _sample_section(key: str, seed: int, section: Mapping[str, Any]) -> SampleSettings:
    return SampleSettings.from_config({key: section}, seed)


def _read_geo(section: Mapping[str, Any]) -> AcquireSettings:
    """The section ``geo``, the kinds of its values checked first."""
    known = {entry.name for entry in fields(TransferSettings)}
    read_values(TransferSettings, {key: value for key, value in section.items() if key in known}, "geo")
    return AcquireSettings.from_config(section)


def _read_section(
    key: str,
    section: dict[str, Any],
    from_config: Callable[[Mapping[str, Any]], T],
    name: str,
    problems: list[Problem],
) -> T:
    """A section's settings; each one that is wrong is reported and taken out, until the rest can be read."""
    for _ in range(len(section) + 1):
        try:
            return from_config(section)
        except UserError as error:
            text = str(error).removeprefix("config: ")
            found = re.search(rf"\b{key}\.(\w+)", text)
            named = [found[1]] if found and found[1] in section else [one for one in section if one in text][:1]
            problem, _, fix = re.sub(rf"^{key}\.\w+ ", "it ", text).partition("; ")
            problems.append(Problem(name, problem, fix or "correct it", column=".".join([key, *named])))
            for one in named or list(section):
                section.pop(one)
    return from_config({})


def _shipped_or_own(path: str, folder: Path) -> Path:
    """A folder as named in the config: ``shipped:NAME`` is one of the repository's resources."""
    if path.startswith("shipped:"):
        return REPOSITORY / "resources" / path.removeprefix("shipped:")
    return folder / path


def examine_run(config: Mapping[str, Any], folder: str | Path, name: str = "config") -> Examination:
    """Look at a config, its sheets, and how they fit together; see :func:`load_run` for the parameters."""
    folder = Path(folder).resolve()
    resolved, problems = examine_config(config, folder, name)
    samples = examine_samples(resolved["samples"])
    usable = None if samples.rows is None else samples.rows
    contrasts = examine_contrasts(resolved["contrasts"], usable, resolved["contrast"]["allow_unreplicated"])
    found = Examination(resolved, folder, samples, contrasts, problems)
    if samples.rows is not None:
        known = list(dict.fromkeys(samples.rows["dataset"]))
        problems += _atlas_problems(resolved, known, name)
        problems += _cells_tables_problems(resolved, known, name)
        samples.problems += _source_problems(samples, resolved["samples"], folder)
    problems += [*samples.problems, *contrasts.problems]
    return found


def load_run(config: Mapping[str, Any], folder: str | Path, name: str = "config") -> Run:
    """Validate a config and its sheets, and check that they fit together.

    Parameters
    ----------
    config
        The config as read from YAML, with what the command line changed in it.
    folder
        The config file's folder.
    name
        What to call the config in messages.

    Raises
    ------
    StudyError
        Every fault of the config and the sheets, with file, row, column and what to do.
    """
    found = examine_run(config, folder, name)
    run = found.run
    if run is None or any(problem.stops_run for problem in found.problems if problem.is_error):
        raise StudyError(found.problems)
    return run


def load_run_file(path: str | Path) -> Run:
    """:func:`load_run` on a config file."""
    return load_run(read_config(path), Path(path).parent, str(path))


def read_config(path: str | Path) -> dict[str, Any]:
    """A config file as it stands.

    Raises
    ------
    UserError
        It is missing, or no YAML.
    """
    path = Path(path)
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. Name the config with --config.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}). Name the config file with --config.") from None
    if not isinstance(config, dict):
        raise UserError(f"{path} must hold settings as `name: value`; see config/README.md.")
    return config


def _atlas_problems(config: Mapping[str, Any], known: Sequence[str], name: str) -> list[Problem]:
    seen: dict[str, str] = {}
    problems = []
    for atlas, datasets in config["atlases"].items():
        column = f"atlases.{atlas}"
        for dataset in datasets:
            if dataset not in known:
                fix = f"name one of {', '.join(known)}"
                problems.append(Problem(name, f"no data set {dataset!r} in {config['samples']}", fix, column=column))
            elif dataset in seen:
                problem = f"{dataset!r} is in atlas {seen[dataset]!r} already"
                problems.append(Problem(name, problem, "a data set is in one atlas: take it out of one", column=column))
            seen.setdefault(dataset, atlas)
    return problems


def _cells_tables_problems(config: Mapping[str, Any], known: Sequence[str], name: str) -> list[Problem]:
    return [
        Problem(
            name,
            f"no data set {dataset!r} in {config['samples']}",
            f"name one of {', '.join(known)}",
            column=f"cells_tables.{dataset}",
        )
        for dataset in config["cells_tables"]
        if dataset not in known
    ]


def _source_problems(samples: Examined, sheet: str, folder: Path) -> list[Problem]:
    """A source that is no accession must be there before the first job starts."""
    assert samples.rows is not None
    return [
        Problem(
            sheet,
            f"{local_path(folder, source).resolve()} does not exist",
            f"correct the path (relative ones start at {folder}); a GEO source is written GSE… or GSM…",
            int(str(number)),
            "source",
        )
        for number, sources in samples.rows["source"].items()
        for source in split_sources(sources, folder)
        if source and not ACCESSION.fullmatch(source) and not local_path(folder, source).exists()
    ]
