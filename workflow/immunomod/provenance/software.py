"""What a run was made with: the resolved config, and the versions of everything that shaped a result."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import tomllib
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import pandas as pd
import yaml

from immunomod import __version__
from immunomod.tables import REPOSITORY


def direct_dependencies() -> list[str]:
    """Names of the packages that this package asks for, in its own order."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in project["dependencies"]]


def git_revision() -> str:
    """The repository's commit, marked ``+changes`` where files differ from it; empty where nothing tells it.

    A copy that is no git checkout (taken from a host, or in a container) may have been given a file ``.revision``.
    """
    told = REPOSITORY / ".revision"
    if told.is_file():
        return told.read_text(encoding="utf-8").strip()
    try:
        described = subprocess.run(
            ["git", "-C", str(REPOSITORY), "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return described.stdout.strip()


def versions() -> pd.DataFrame:
    """Versions as a table ``name, version``: immunomod and its commit, Python, the system, every direct dependency."""
    rows = [
        ("immunomod", __version__),
        ("immunomod revision", git_revision()),
        ("python", platform.python_version()),
        ("system", f"{platform.system()} {platform.machine()}"),
    ]
    rows += [(name, _version_of(name)) for name in direct_dependencies()]
    return pd.DataFrame(rows, columns=["name", "version"])


def _version_of(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def config_text(config: Mapping[str, Any]) -> str:
    """The resolved config as YAML."""
    text: str = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
    return text


def environment_text() -> str:
    """Every distribution that can be imported here, ``name==version``, as ``pip install -r`` reads it."""
    found = {dist.metadata["Name"].lower(): dist.version for dist in metadata.distributions() if dist.metadata["Name"]}
    lines = [f"{name}=={version}" for name, version in sorted(found.items()) if name != "immunomod"]
    return "\n".join([f"# python {platform.python_version()}", *lines, ""])


def system() -> pd.DataFrame:
    """The machine that wrote the record, as a table ``name, value``. No name of a host or a user stands in it."""
    rows = [
        ("system", platform.system()),
        ("kernel", platform.release()),
        ("distribution", _distribution()),
        ("machine", platform.machine()),
        ("python", f"{platform.python_implementation()} {platform.python_version()}"),
        ("processors", str(os.cpu_count() or "")),
        ("memory_gb", _memory()),
    ]
    return pd.DataFrame(rows, columns=["name", "value"])


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.1f}"
    except (OSError, ValueError):
        return ""
