"""This repository on a host, where git is told that the host's address is a folder of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from support.workflow import REPOSITORY

ADDRESS = "https://github.com/lab/immunomod"
TAG = "v1"


@dataclass(frozen=True)
class Host:
    """What a process needs to reach the host, and where Snakemake keeps what it took from there."""

    environment: dict[str, str]
    source_cache: Path

    def run(self, *command: str, folder: Path) -> str:
        """Run a command that must succeed; what it printed."""
        done = subprocess.run(command, cwd=folder, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
        return done.stdout + done.stderr


def host_repository(folder: Path, copy: Path | None = None) -> Host:
    """Put the files that git knows, as they are now, onto the host (or elsewhere) in a commit, tagged :data:`TAG`."""
    copy = copy or folder / "github.com" / "lab" / "immunomod"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        source = REPOSITORY / name
        if source.is_symlink() or source.exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy / name, follow_symlinks=False)
    settings = folder / "gitconfig"
    settings.write_text(
        f'[url "{(folder / "github.com").as_uri()}/"]\n\tinsteadOf = https://github.com/\n'
        "[protocol.file]\n\tallow = always\n[safe]\n\tdirectory = *\n[user]\n\tname = lab\n\temail = lab@example.org\n"
    )
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "GIT", "PYTHONPATH"))
    }
    environment |= {
        "GIT_CONFIG_GLOBAL": str(settings),
        "GIT_CONFIG_NOSYSTEM": "1",
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    host = Host(environment, folder / "cache" / "snakemake" / "snakemake" / "source-cache")
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "all"], ["tag", TAG]):
        host.run("git", *command, folder=copy)
    return host
