"""A run's settings: the config and the two sheets, validated at the door and trusted inside.

:func:`load_run` is called once, when Snakemake reads the ``Snakefile`` (and by the command line), so a mistake stops
the run before the first job. Its result also answers what the rules ask: which samples a data set has, which atlas a
data set is in, and the settings of each floor.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import yaml

from immunomod.acquire import AcquireSettings
from immunomod.acquire.plan import split_sources
from immunomod.atlas.settings import AtlasSettings
from immunomod.contrast.settings import ContrastSettings
from immunomod.errors import UserError
from immunomod.sample.settings import SampleSettings
from immunomod.sheets import read_contrasts, read_samples, split_list
from immunomod.tables import REPOSITORY, describe, load_schema

ACCESSION = re.compile(r"GS[EM][0-9]+", re.IGNORECASE)
#: Columns of the sheet that say where a sample's files are.
ACQUIRED_BY = ("sample", "dataset", "source", "files", "cells", "cells_lane", "barcodes")


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

    def dataset_rows(self, dataset: str) -> list[dict[str, Any]]:
        """What the sheet says of the files of a data set's samples, with each row's number in the file under ``row``.

        Nothing else stands in it, so that a donor or condition that is put right has no file fetched again.
        """
        rows = self.samples[self.samples["dataset"] == dataset]
        named = rows[[name for name in ACQUIRED_BY if name in rows]]
        return [
            {"row": int(str(number)), **{str(name): str(value) for name, value in row.items()}}
            for number, row in named.iterrows()
        ]

    def contrast_row(self, contrast: str) -> dict[str, str]:
        """A contrast's row of the sheet."""
        row = self.contrasts[self.contrasts["contrast"] == contrast].iloc[0]
        return {str(name): str(value) for name, value in row.items()}

    def datasets_of_contrast(self, contrast: str) -> list[str]:
        """Data sets that a contrast compares within."""
        return split_list(self.contrast_row(contrast)["dataset"])

    def local_sources(self, dataset: str) -> list[str]:
        """Files on this machine that a data set's rows name, those of a named folder among them."""
        rows = self.samples[self.samples["dataset"] == dataset]
        sources = [source for value in rows["source"] for source in split_sources(value, self.folder)]
        named = [local_path(self.folder, value) for value in (*sources, *rows["cells"]) if value]
        files = {file for path in named for file in (path, *path.rglob("*")) if file.is_file()}
        return sorted(map(str, files))


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


def resolve_config(config: Mapping[str, Any], folder: Path, name: str = "config") -> dict[str, Any]:
    """Validate a config, fill its defaults and make its paths absolute.

    Raises
    ------
    UserError
        Every fault, with its place in the config.
    """
    schema = load_schema("config")
    resolved = fill_defaults(copy.deepcopy(dict(config)), schema)
    validator = jsonschema.Draft202012Validator(schema)
    faults = [
        f"{'.'.join(map(str, error.absolute_path)) or 'top level'}: {describe(error)}"
        for error in sorted(validator.iter_errors(resolved), key=lambda e: list(map(str, e.absolute_path)))
    ]
    if faults:
        raise UserError(f"{name}:\n  " + "\n  ".join(faults))
    resolved |= _resolve_sections(resolved)
    for key in ("samples", "contrasts"):
        resolved[key] = str(folder / resolved[key])
    resolved["programs"] = [str(_shipped_or_own(path, folder)) for path in resolved["programs"]]
    resolved["annotation"]["markers"] = str(_shipped_or_own(resolved["annotation"]["markers"], folder))
    base_url = resolved["geo"]["base_url"]
    if "://" not in base_url:
        tree = (folder / base_url).resolve()
        if not tree.is_dir():
            raise UserError(
                f"{name}: geo.base_url: {tree} is no folder. Give a URL, or a folder laid out as GEO's /geo/."
            )
        base_url = tree.as_uri()
    resolved["geo"]["base_url"] = base_url.rstrip("/")
    return resolved


def _resolve_sections(config: Mapping[str, Any]) -> dict[str, Any]:
    """The floors' sections with every default filled in, from the data classes that the floors run on."""
    AcquireSettings.from_config(config["geo"])
    sample = SampleSettings.from_config(config["qc"], config["doublets"], config["seed"])
    atlas = AtlasSettings.from_config(config["atlas"], config["annotation"]).as_dict()
    annotation = atlas.pop("annotation")
    return {
        "qc": sample.as_dict()["qc"],
        "doublets": sample.as_dict()["doublets"],
        "atlas": atlas,
        "annotation": {"markers": config["annotation"]["markers"]} | annotation,
        "contrast": asdict(ContrastSettings.from_config(config["contrast"])),
    }


def _shipped_or_own(path: str, folder: Path) -> Path:
    """A folder as named in the config: ``shipped:NAME`` is one of the repository's resources."""
    if path.startswith("shipped:"):
        return REPOSITORY / "resources" / path.removeprefix("shipped:")
    return folder / path


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
    UserError
        Any fault, with file, row, column and what to do.
    """
    folder = Path(folder).resolve()
    resolved = resolve_config(config, folder, name)
    samples = read_samples(resolved["samples"])
    contrasts = read_contrasts(
        resolved["contrasts"], samples, allow_unreplicated=resolved["contrast"]["allow_unreplicated"]
    )
    run = Run(config=resolved, folder=folder, samples=samples, contrasts=contrasts)
    _check_atlases(run, name)
    _check_sources(run)
    return run


def load_run_file(path: str | Path) -> Run:
    """:func:`load_run` on a config file."""
    path = Path(path)
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. Name the config with --config.") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(config, dict):
        raise UserError(f"{path} must hold settings as `name: value`; see config/README.md.")
    return load_run(config, path.parent, str(path))


def _check_atlases(run: Run, name: str) -> None:
    seen: dict[str, str] = {}
    for atlas, datasets in run.config["atlases"].items():
        for dataset in datasets:
            if dataset not in run.datasets:
                raise UserError(f"{name}: atlases.{atlas}: no data set {dataset!r} in {run.config['samples']}.")
            if dataset in seen:
                raise UserError(f"{name}: atlases.{atlas}: {dataset!r} is in atlas {seen[dataset]!r} already.")
            seen[dataset] = atlas


def _check_sources(run: Run) -> None:
    """A source that is no accession must be there before the first job starts."""
    lacking = [
        f"row {number}, column source: {local_path(run.folder, source).resolve()} does not exist"
        for number, sources in run.samples["source"].items()
        for source in split_sources(sources, run.folder)
        if not ACCESSION.fullmatch(source) and not local_path(run.folder, source).exists()
    ]
    if lacking:
        raise UserError(
            f"{run.config['samples']}:\n  " + "\n  ".join(lacking) + "\n"
            f"Relative paths start at {run.folder}. A GEO source is written GSE… or GSM…, letters and digits only."
        )
