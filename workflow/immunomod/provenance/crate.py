"""A run as a Workflow Run RO-Crate: which workflow made which results of which inputs, when and with what.

The crate is the folder ``provenance/`` itself, so that it can be deposited or mailed without gigabytes of matrices: the
config, the sheets, the versions and the workflow's text lie in it; inputs and results are described by where they lie,
their size and their SHA-256, by which anybody who has them can tell that they are the run's.

Profiles: Process Run Crate 0.5, Workflow Run Crate 0.5, Workflow RO-Crate 1.0, on RO-Crate 1.1 (Leo and others 2024,
https://doi.org/10.1371/journal.pone.0309210).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from immunomod.files import sha256, write_text

METADATA = "ro-crate-metadata.json"
README = "README.md"
_PROFILES = (
    ("https://w3id.org/ro/wfrun/process/0.5", "Process Run Crate", "0.5"),
    ("https://w3id.org/ro/wfrun/workflow/0.5", "Workflow Run Crate", "0.5"),
    ("https://w3id.org/workflowhub/workflow-ro-crate/1.0", "Workflow RO-Crate", "1.0"),
)
_FORMATS = {
    ".yaml": "application/yaml",
    ".tsv": "text/tab-separated-values",
    ".gz": "application/gzip",
    ".h5ad": "application/x-hdf5",
    ".html": "text/html",
    ".md": "text/markdown",
    ".bib": "application/x-bibtex",
    ".txt": "text/plain",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
# RO-Crate 1.1 has no term for it; the profiles of runs do.
_SHA256 = "https://w3id.org/ro/terms/workflow-run#sha256"
_LICENSE = (
    "The workflow's code is under the MIT licence. What it read and made is under the terms of whoever provided the "
    "data: see each file of ledger.tsv."
)


@dataclass(frozen=True)
class RunFacts:
    """What a crate says of a run beyond its files.

    Attributes
    ----------
    title
        Of the study.
    version, revision
        Of the workflow; the revision is empty outside a git checkout.
    snakemake
        Version of Snakemake.
    started, ended
        ISO 8601, UTC.
    software
        Name -> version of the packages that the run used.
    seed
        The seed of the config.
    """

    title: str
    version: str
    revision: str
    snakemake: str
    started: str
    ended: str
    seed: int
    software: Mapping[str, str] = field(default_factory=dict)


def write_crate(
    folder: Path,
    parts: Mapping[str, str],
    workflow: str,
    ledger: pd.DataFrame,
    results: Sequence[Path],
    facts: RunFacts,
) -> None:
    """Write ``ro-crate-metadata.json`` into ``folder``.

    Parameters
    ----------
    folder
        ``results/provenance``.
    parts
        Path within ``folder`` -> what the file is; ``config.yaml`` and the sheets are inputs of the run as well.
    workflow
        Which of ``parts`` is the workflow's main file.
    ledger
        ``ledger.tsv``: every file that was read.
    results
        Files that the run made, under the folder above ``folder``.
    """
    from rocrate.model.contextentity import ContextEntity
    from rocrate.rocrate import ROCrate

    crate = ROCrate(version="1.1")
    crate.metadata.extra_terms["sha256"] = _SHA256

    def add(identifier: str, kind: str, **properties: Any) -> Any:
        return crate.add(ContextEntity(crate, identifier, properties={"@type": kind, **properties}))

    crate.name = f"Run of immunomod: {facts.title}"
    crate.description = (
        "What co-culture with mesenchymal stromal cells does to immune cells, and back: settings, software, inputs and "
        "results of one run of the workflow immunomod, with their checksums."
    )
    crate.datePublished = facts.ended
    crate.license = add("#license", "CreativeWork", name="Terms of use", description=_LICENSE)
    files = {}
    for name, description in parts.items():
        properties = {"name": name, "description": description, **_of_file(folder / name)}
        if name == workflow:
            version = f"{facts.version} ({facts.revision})" if facts.revision else facts.version
            properties |= {"name": "immunomod", "version": version}
            files[name] = crate.add_workflow(
                folder / name, name, main=True, lang="snakemake", lang_version=facts.snakemake, properties=properties
            )
        else:
            files[name] = crate.add_file(folder / name, name, properties=properties)
    crate.root_dataset["conformsTo"] = [
        add(identifier, "CreativeWork", name=name, version=version) for identifier, name, version in _PROFILES
    ]
    software = [
        add(f"pkg:pypi/{quote(name)}@{quote(version)}", "SoftwareApplication", name=name, softwareVersion=version)
        for name, version in facts.software.items()
    ]
    files[workflow]["softwareRequirements"] = software
    if README in files:
        files[README]["about"] = crate.root_dataset
    inputs = [
        add(f"#input/{quote(row['path'] or row['url'])}", "CreativeWork", **_described(row))
        if _is_local(row)
        else crate.add_file(row["url"], properties=_described(row) | {"sdDatePublished": row["retrieved"]})
        for row in _records(ledger)
    ]
    settings = [files[name] for name in ("config.yaml", "samples.tsv", "contrasts.tsv") if name in files]
    seed = add("#seed", "PropertyValue", name="seed", value=facts.seed)
    made = [
        add(f"#results/{quote(name)}", "CreativeWork", name=name, **_of_file(path))
        for name, path in ((path.relative_to(folder.parent).as_posix(), path) for path in results)
    ]
    action = crate.add_action(
        files[workflow],
        identifier="#run",
        object=[*settings, seed, *inputs],
        result=made,
        properties={
            "name": crate.name,
            "description": "One run of the workflow, or the last of several that completed the same results.",
            "startTime": _offset(facts.started),
            "endTime": _offset(facts.ended),
            "actionStatus": "http://schema.org/CompletedActionStatus",
        },
    )
    crate.root_dataset["mentions"] = action
    write_text(json.dumps(crate.metadata.generate(), indent=2, ensure_ascii=False) + "\n", folder / METADATA)


def _of_file(path: Path) -> dict[str, Any]:
    return {
        "contentSize": str(path.stat().st_size),
        "sha256": sha256(path),
        "encodingFormat": _FORMATS.get(path.suffix, "text/plain"),
    }


def _offset(time: str) -> str:
    """ISO 8601 with the offset written out, as the profile's checks ask for."""
    return time.replace("Z", "+00:00")


def _records(ledger: pd.DataFrame) -> Iterable[dict[str, str]]:
    """Each file of the ledger once, fields as text."""
    unique = ledger.drop_duplicates(["url", "path", "sha256"]).fillna("")
    return ({str(name): str(value) for name, value in row.items()} for row in unique.to_dict("records"))


def _is_local(row: Mapping[str, str]) -> bool:
    return not row["url"].startswith(("https://", "http://", "ftp://"))


def _described(row: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": Path(row["path"] or row["url"]).name,
        "description": f"{row['sample'] or row['dataset']}: {row['decision']}",
        "contentSize": row["bytes"],
        "sha256": row["sha256"],
    }
