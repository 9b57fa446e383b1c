"""Sections of the config as data classes: one way to read them, with every mistake named by section and key.

A section's data class holds its defaults, so a default stands in one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from immunomod.errors import UserError

#: The annotations that a setting may have, in words, and which values from YAML fit them.
_KINDS: dict[str, tuple[str, tuple[type, ...]]] = {
    "int": ("a whole number", (int,)),
    "float": ("a number", (int, float)),
    "float | None": ("a number, or nothing", (int, float, type(None))),
    "float | str": ("a number, or a word", (int, float, str)),
    "bool": ("true or false", (bool,)),
    "str": ("text", (str,)),
    "tuple[str, ...]": ("a list", (list, tuple)),
}


def read_values(cls: type[Any], section: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The values of a config section that ``cls`` has fields for, checked against the fields' types.

    Raises
    ------
    UserError
        A key is unknown, or a value is of the wrong kind.
    """
    known = {entry.name: str(entry.type) for entry in fields(cls) if str(entry.type) in _KINDS}
    if unknown := sorted(set(section) - set(known)):
        raise UserError(f"config: {name}.{unknown[0]} is unknown; the keys are {', '.join(known)}.")
    values = {}
    for key, value in section.items():
        words, kinds = _KINDS[known[key]]
        is_right = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
        require(is_right, name, key, value, words)
        values[key] = tuple(map(str, value)) if isinstance(value, list) else value
    return values


def require(holds: bool, name: str, key: str, value: object, expected: str) -> None:
    """Raise a :class:`UserError` about a setting unless it ``holds``."""
    if not holds:
        raise UserError(f"config: {name}.{key} is {value!r}; it must be {expected}.")
