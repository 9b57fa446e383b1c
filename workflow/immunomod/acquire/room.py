"""How much room on disk the files of a data set will take, and a refusal to begin where there is less."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from immunomod.acquire.archive import is_archive_name, is_unpacked, unpacked_folder
from immunomod.acquire.disk import free_bytes, refuse_small_disk
from immunomod.acquire.geo import RemoteFile
from immunomod.acquire.parts import part_path
from immunomod.acquire.plan import Pick

__all__ = ["free_bytes", "refuse_if_too_large", "required_bytes"]


def fetched_path(file: RemoteFile, folder: Path) -> Path:
    """Where a remote file lies once it is fetched; ``folder`` is the ``files/`` of its data set."""
    return folder / file.owner / file.name


def required_bytes(picks: Iterable[Pick], folder: Path) -> int:
    """Bytes that are still to come for the chosen files: those of known size that are not in ``folder`` yet.

    An archive counts twice, packed and unpacked (those of GEO hold files that are compressed already). Files of unknown
    size count as nothing, and so do local ones, which are used where they lie.
    """
    remote = {pick.source: None for pick in picks if isinstance(pick.source, RemoteFile)}
    return sum(_still_to_come(file, fetched_path(file, folder)) for file in remote)


def refuse_if_too_large(dataset: str, picks: Iterable[Pick], folder: Path) -> None:
    """Raise a :class:`UserError` with both figures if the disk of ``folder`` has no room for the chosen files."""
    refuse_small_disk(dataset, required_bytes(picks, folder), folder)


def _still_to_come(file: RemoteFile, target: Path) -> int:
    if file.bytes is None:
        return 0
    there = max(_size(target), _size(part_path(target)))
    unpacked = is_archive_name(file.name) and not is_unpacked(unpacked_folder(target))
    return max(0, file.bytes - there) + (file.bytes if unpacked else 0)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
