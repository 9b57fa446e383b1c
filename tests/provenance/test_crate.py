"""The run's RO-Crate: what the profiles demand, and that its checksums are those of the files."""

import hashlib
import json
import subprocess

import pytest

from support import crate_validator


@pytest.fixture(scope="module")
def entities(recorded):
    graph = json.loads((recorded.folder / "ro-crate-metadata.json").read_text())["@graph"]
    assert len({entity["@id"] for entity in graph}) == len(graph)
    return {entity["@id"]: entity for entity in graph}


def references(value):
    return [one["@id"] for one in (value if isinstance(value, list) else [value])]


def test_what_the_profiles_demand(entities):
    """The MUSTs of Process Run Crate 0.5, Workflow Run Crate 0.5 and Workflow RO-Crate 1.0, without their validator."""
    root, descriptor = entities["./"], entities["ro-crate-metadata.json"]
    assert descriptor["about"] == {"@id": "./"}
    assert "https://w3id.org/ro/crate/1.1" in references(descriptor["conformsTo"])
    assert {name.rsplit("/", 2)[-2] for name in references(root["conformsTo"])} == {
        "process", "workflow", "workflow-ro-crate"
    }  # fmt: skip
    assert all(entities[name]["@type"] == "CreativeWork" for name in references(root["conformsTo"]))
    assert root["name"] and root["description"] and root["datePublished"] and entities[root["license"]["@id"]]
    workflow = entities[root["mainEntity"]["@id"]]
    assert set(workflow["@type"]) == {"File", "SoftwareSourceCode", "ComputationalWorkflow"}
    assert entities[workflow["programmingLanguage"]["@id"]]["name"] == "Snakemake" and workflow["version"]
    (action,) = references(root["mentions"])
    assert entities[action]["@type"] == "CreateAction"
    assert references(entities[action]["instrument"]) == [workflow["@id"]]
    assert entities[action]["startTime"] < entities[action]["endTime"]


def test_every_reference_leads_somewhere(entities):
    for entity in entities.values():
        for value in entity.values():
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, dict) and not one["@id"].startswith("https://"):
                    assert one["@id"] in entities, one


def test_inputs_and_results_carry_the_checksums_of_their_files(entities, recorded):
    results = [entities[name] for name in references(entities["#run"]["result"])]
    names = {entity["name"] for entity in results}
    assert {"report/index.html", "samples/qc.tsv", "contrasts/coculture_vs_alone/genes/MSC.tsv.gz"} <= names
    for entity in results:
        path = recorded.results / entity["name"]
        assert entity["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert entity["contentSize"] == str(path.stat().st_size)
    objects = references(entities["#run"]["object"])
    assert {"config.yaml", "samples.tsv", "contrasts.tsv", "#seed"} <= set(objects)
    assert len(objects) > 4  # the files of the ledger


def test_the_parts_lie_in_the_crate(entities, recorded):
    parts = [name for name in references(entities["./"]["hasPart"]) if "://" not in name]
    assert {"workflow/Snakefile", "workflow/workflow/rules/atlas.smk", "references.bib"} <= set(parts)
    for name in parts:
        assert (recorded.folder / name).is_file(), name
    lying = {path.relative_to(recorded.folder).as_posix() for path in recorded.folder.rglob("*") if path.is_file()}
    assert lying - set(parts) == {"ro-crate-metadata.json"}


def test_terms_are_those_of_the_standard(entities):
    keys = {key for entity in entities.values() for key in entity if not key.startswith("@")}
    assert keys <= {*crate_validator.TERMS, "sha256"}


@pytest.mark.slow
def test_the_validator_passes_it(recorded, validator):
    command = [str(validator), crate_validator.__file__, str(recorded.folder), "REQUIRED"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
