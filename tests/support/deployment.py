"""Programs with which the workflow is taken elsewhere, in an environment of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.workflow import REPOSITORY


def environment() -> Path:
    """The environment; the test skips where there is none."""
    folder = Path(os.environ.get("IMMUNOMOD_DEPLOYMENT", REPOSITORY / ".venv-deployment"))
    if not (folder / "bin" / "python").exists():
        pytest.skip(
            "needs snakedeploy, hadolint and a storage plugin in an environment of their own: make env-deployment"
        )
    return folder


def program_of(name: str) -> str:
    """A program of the environment."""
    return str(environment() / "bin" / name)
