"""Numbers and names as a reader wants them: signs, intervals, folds, lists, plurals."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence

from immunomod.report.palette import class_label

MINUS = "\N{MINUS SIGN}"
FDR_THRESHOLD = 0.05


def signed(value: float, digits: int = 2) -> str:
    """``+1.20``, ``−0.30`` or, for a missing value, an en dash."""
    if not math.isfinite(value):
        return "–"
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return ("+" if value > 0 else MINUS) + text


def interval(low: float, high: float) -> str:
    """``+0.80 to +1.60``; an en dash where an end is missing."""
    return f"{signed(low)} to {signed(high)}" if math.isfinite(low) and math.isfinite(high) else "–"


def probability(value: float) -> str:
    """A p-value or fdr with two significant digits, ``<0.001`` below that; an en dash for a missing one."""
    if not math.isfinite(value):
        return "–"
    if value < 1e-3:
        return "<0.001"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def fold(log2_change: float) -> str:
    """A log2 change in words: ``about 4-fold up``."""
    direction = "up" if log2_change > 0 else "down"
    size = 2.0 ** min(abs(log2_change), 40.0)
    if size >= 1000:
        return f"more than 1,000-fold {direction}"
    return f"about {size:.0f}-fold {direction}" if size >= 10 else f"about {size:.1f}-fold {direction}"


def count(number: float) -> str:
    """A whole number with thousands separators; an en dash for a missing one."""
    return f"{int(number):,}" if math.isfinite(number) else "–"


def plural(number: int, noun: str, nouns: str = "") -> str:
    """``1 donor``, ``4 donors``."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def listing(items: Sequence[str], conjunction: str = "and") -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    if len(items) <= 1:
        return "".join(items)
    return f"{', '.join(items[:-1])} {conjunction} {items[-1]}"


def in_class(cell_class: str) -> str:
    """Cell class inside a sentence."""
    label = class_label(cell_class)
    starts_as_acronym = len(label) > 1 and (label[1].isupper() or label[1].isdigit() or label[1] == " ")
    return label if starts_as_acronym else label[0].lower() + label[1:] if label else "(no class)"


def slug(name: str) -> str:
    """A name that is safe in a path, an id and a file name of a download; distinct names stay distinct."""
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")
    return safe if safe == name else f"{safe or 'x'}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
