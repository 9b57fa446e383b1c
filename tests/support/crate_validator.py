"""`roc-validator` without a network: ``python crate_validator.py CRATE SEVERITY`` prints its failures as JSON.

The validator asks the standard's server for the JSON-LD context of RO-Crate 1.1. Here it is given the terms below,
which are all that our crates may use; a term that is not among them fails, as it would if the standard did not have it.
"""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

CONTEXT = "https://w3id.org/ro/crate/1.1/context"
_SCHEMA = (
    "CreateAction", "CreativeWork", "Dataset", "PropertyValue", "SoftwareApplication", "SoftwareSourceCode",
    "ComputerLanguage", "CompletedActionStatus", "about", "actionStatus", "contentSize", "datePublished",
    "description", "encodingFormat", "endTime", "hasPart", "identifier", "instrument", "license", "mainEntity",
    "mentions", "name", "object", "programmingLanguage", "result", "sdDatePublished", "softwareRequirements",
    "softwareVersion", "startTime", "url", "value", "version",
)  # fmt: skip
TERMS = {name: f"http://schema.org/{name}" for name in _SCHEMA} | {
    "File": "http://schema.org/MediaObject",
    "ComputationalWorkflow": "https://bioschemas.org/ComputationalWorkflow",
    "conformsTo": "http://purl.org/dc/terms/conformsTo",
}


def answer(url: str, **_: Any) -> SimpleNamespace:
    """What the server would say."""
    if url != CONTEXT:
        raise OSError(f"no network: {url}")
    document = {"@context": TERMS}
    headers = {"Content-Type": "application/ld+json"}
    return SimpleNamespace(status_code=200, headers=headers, text=json.dumps(document), json=lambda: document)


def failures(crate: str, severity: str) -> list[dict[str, str]]:
    """Each failed check of the crate and of the profiles that it names."""
    import rdflib.plugins.shared.jsonld.context as jsonld
    from rocrate_validator import services
    from rocrate_validator.utils.http import HttpRequester

    jsonld.source_to_json = lambda source, *_, **__: (answer(str(source)).json(), None)
    HttpRequester.get = HttpRequester.head = staticmethod(answer)
    found = []
    for profile in ("ro-crate-1.1", "process-run-crate", "workflow-ro-crate", "workflow-run-crate"):
        settings = services.ValidationSettings(
            rocrate_uri=crate, profile_identifier=profile, requirement_severity=severity
        )
        for issue in services.validate(settings).get_issues():
            check = f"{profile}: {issue.check.identifier}"
            found.append({"check": check, "severity": issue.severity.name, "message": str(issue.message)})
    return found


if __name__ == "__main__":
    print(json.dumps(failures(*sys.argv[1:3])))
