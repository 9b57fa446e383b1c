"""Text from strangers, made fit for a sheet: no control characters, markup, formulas or paths, and not too long."""

from __future__ import annotations

import html
import itertools
import re
import unicodedata
from collections.abc import Sequence

LONGEST_NAME = 40
LONGEST_LEVEL = 60
LONGEST_NOTE = 160
_GREEK = str.maketrans({"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "κ": "kappa", "µ": "u", "μ": "u"})
_SEPARATORS = re.compile(r"[\s_,;:|()\[\]{}/]+")


def clean(text: str, longest: int = LONGEST_NOTE) -> str:
    """``text`` as one harmless line, for a field or a comment of a sheet.

    Markup goes, control and invisible characters become blanks, paths that climb are cut, and it begins with nothing
    that a spreadsheet takes for a formula or a reader of tables for a quotation or a comment.
    """
    text = re.sub(r"<[^<>]*>", " ", html.unescape(text[: 100 * longest]))
    text = unicodedata.normalize("NFC", text.replace("<", " ").replace(">", " "))
    text = "".join(" " if _is_invisible(letter) else letter for letter in text)
    text = re.sub(r"(\.\.+[/\\])+", "", text)
    text = re.sub(r"\s+", " ", text).lstrip("=+-@\"'#`|%, ").rstrip()
    return text if len(text) <= longest else f"{text[: longest - 3].rstrip()}..."


def has_invisible(text: str) -> bool:
    """Whether a text holds control characters or others that nobody sees."""
    return any(_is_invisible(letter) for letter in text)


def _is_invisible(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def spell_greek(text: str) -> str:
    """``text`` with the Greek letters of cytokines spelled out."""
    return text.translate(_GREEK)


def as_level(text: str) -> str:
    """``text`` as a level of a column: one word, no commas (they separate levels), letters of any script."""
    words = re.sub(r"[^\w.+-]+", "_", clean(spell_greek(text), LONGEST_LEVEL * 2))
    return re.sub(r"_+", "_", words).strip("_.-+")[:LONGEST_LEVEL].rstrip("_.-+")


def as_name(text: str) -> str:
    """``text`` as the name of a sample: ASCII letters, digits, ``.``, ``_`` and ``-``; empty if nothing is left."""
    plain = unicodedata.normalize("NFKD", clean(spell_greek(text.replace("+", " ")), LONGEST_NAME * 4))
    words = re.sub(r"[^A-Za-z0-9._-]+", "_", plain.encode("ascii", "ignore").decode())
    return re.sub(r"_+", "_", re.sub(r"\.\.+", ".", words)).strip("_.-")[:LONGEST_NAME].rstrip("_.-")


def words_of(text: str) -> list[str]:
    """The words of a title; hyphens and plus signs belong to words (``IFN-g``, ``CD4+``)."""
    return [word for word in _SEPARATORS.split(text) if word.strip(".-+#")]


def _common_start(split: Sequence[Sequence[str]]) -> int:
    """How many first words all titles share; none where there is one title."""
    if len(split) < 2:
        return 0
    return sum(1 for _ in itertools.takewhile(lambda words: len(set(words)) == 1, zip(*split, strict=False)))


def short_names(titles: Sequence[str], fallbacks: Sequence[str]) -> list[str]:
    """A short unique name for each title: what tells it from the others, or else all of it, or else its fallback."""
    split = [words_of(title) for title in titles]
    head = _common_start(split)
    tail = _common_start([words[head:][::-1] for words in split])
    names = [as_name("_".join(words[head : len(words) - tail])) for words in split]
    if not all(re.search("[A-Za-z]", name) for name in names):
        names = [as_name("_".join(words)) for words in split]
    names = [name or as_name(fallback) or "sample" for name, fallback in zip(names, fallbacks, strict=True)]
    repeated = {name.lower() for name in names if sum(name.lower() == other.lower() for other in names) > 1}
    taken: set[str] = set()
    out = []
    for name, fallback in zip(names, fallbacks, strict=True):
        if name.lower() in repeated:
            name = f"{name[:LONGEST_NAME]}_{as_name(fallback)}".strip("_")
        stem, number = name, 2
        while name.lower() in taken:
            name, number = f"{stem}_{number}", number + 1
        taken.add(name.lower())
        out.append(name)
    return out
