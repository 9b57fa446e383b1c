"""What is free on a disk, and what to say when a file cannot be written."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from immunomod.errors import UserError


def free_bytes(path: Path) -> int:
    """Bytes that are free for this user on the disk that holds ``path``, which need not exist yet."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def size_words(count: float) -> str:
    """A number of bytes as people say it: ``480 MB``, ``0.3 MB``, ``132 GB``."""
    if count < 10e6:
        return f"{count / 1e6:.1f} MB"
    return f"{count / 1e6:,.0f} MB" if count < 10e9 else f"{count / 1e9:,.0f} GB"


def refuse_small_disk(what: str, needed: int, folder: Path) -> None:
    """Raise a :class:`UserError` with both figures if fewer than ``needed`` bytes are free where ``folder`` is."""
    free = free_bytes(folder)
    if needed > free:
        raise UserError(
            f"{what} needs {size_words(needed)} in {folder}, where {size_words(free)} are free: free some space, or "
            "run in a folder on a larger disk"
        )


def write_error(error: OSError, path: Path) -> UserError:
    """What to tell of a failure to write ``path``."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"no space left while writing {path}: free some, then run again; a download resumes")
    return UserError(f"cannot write {path}: {error.strerror or error}. Check the folder's permissions")
