"""The sheet's column ``hashtags``: which of a lane's hashtags are a row's, and whose cells they stain.

``HTO1=D1,HTO2=D2`` names the donor of each tag; ``HTO3`` alone says that the row's donor (or a per-cell table) does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from immunomod.errors import UserError

#: Kinds of features that are hashtags as they stand, and those among which named ones are looked for, too.
HASHTAG_KINDS = ("hashtags", "multiplexing_capture")
OTHER_KINDS = ("antibody_capture", "custom")
_SHOWN = 30
#: The tag's bases, which counting programs write behind its name: HTO1-ACCCACCAGTAAGAC.
_SEQUENCE = re.compile(r"[-_. ]+[ACGT]{8,}$")


def parse_hashtags(text: str) -> dict[str, str]:
    """Donor of each hashtag that a field names, in its order; empty where it names none.

    Raises
    ------
    UserError
        A part without a tag, or without a donor behind its equals sign; a tag that stands twice.
    """
    named: dict[str, str] = {}
    seen: dict[str, str] = {}
    for part in text.split(","):
        tag, equals, donor = (one.strip() for one in part.partition("="))
        if not part.strip():
            continue
        if not tag or (equals and not donor) or "=" in donor:
            raise UserError(f"{part.strip()!r} names no hashtag and donor; write HTO1=D1,HTO2=D2, or HTO1 alone")
        if bare(tag) in seen:
            raise UserError(f"{tag!r} stands twice ({seen[bare(tag)]!r}, {tag!r}); name each hashtag once")
        seen[bare(tag)] = tag
        named[tag] = donor
    if text.strip() and not named:
        raise UserError(f"{text!r} names no hashtag; write HTO1=D1,HTO2=D2, or HTO1 alone")
    return named


def sheet_donors(hashtags: str, donor: str) -> tuple[str, ...]:
    """Donors that a row of the sheet names: those of its hashtags, and the row's own for tags without one.

    Empty where the row leaves them to a per-cell table, or where its hashtags cannot be read.
    """
    try:
        named = parse_hashtags(hashtags)
    except UserError:
        return (donor,) if donor else ()
    found = [of_tag or donor for of_tag in named.values()] or [donor]
    return tuple(dict.fromkeys(found)) if all(found) else ()


def without_donors(text: str) -> str:
    """The hashtags of a field alone; as it stands where they cannot be read."""
    try:
        return ",".join(parse_hashtags(text))
    except UserError:
        return text


def bare(name: str) -> str:
    """A name without case and separators."""
    return re.sub(r"[^a-z0-9]+", "", name.casefold())


def find_hashtags(features: Mapping[str, Sequence[str]], patterns: Iterable[str] = ()) -> list[str]:
    """Names of a matrix's hashtags.

    Parameters
    ----------
    features
        Names of the features that are no genes, by kind.
    patterns
        Further features that are hashtags.
    """
    tags = [name for kind in HASHTAG_KINDS for name in features.get(kind, ())]
    others = [name for kind, names in features.items() if kind not in HASHTAG_KINDS for name in names]
    tags += [name for name in others if any(fnmatchcase(name.casefold(), one.casefold()) for one in patterns)]
    return list(dict.fromkeys(tags))


def match_hashtags(wanted: Iterable[str], features: Mapping[str, Sequence[str]], tags: Sequence[str]) -> dict[str, str]:
    """The matrix's name of each hashtag that the sheet names.

    A name is matched as it stands, else without case and separators, else as the beginning or the end of one name alone
    (``HTO1`` of ``HTO1-ACCCACCAGTAAGAC``, ``Hashtag3`` of ``anti-human_Hashtag_3``; never of ``HTO10``). What is no
    hashtag by its name or type may be one that the sheet names.

    Raises
    ------
    UserError
        A name fits no feature, or several; two names are one feature.
    """
    named = [name for kind in OTHER_KINDS for name in features.get(kind, ()) if name not in tags]
    known = ", ".join(tags[:_SHOWN]) or ", ".join(named[:_SHOWN]) or "none"
    found: dict[str, str] = {}
    for tag in wanted:
        fits = _fitting(tag, tags) or _fitting(tag, named)
        if len(fits) != 1:
            trouble = f"may be {', '.join(fits)}" if fits else "is no hashtag of the matrix"
            raise UserError(f"{tag!r} {trouble}; name one of its hashtags: {known}")
        taken = [other for other, name in found.items() if name == fits[0]]
        if taken:
            raise UserError(f"{taken[0]!r} and {tag!r} are both {fits[0]}; name each hashtag once, of: {known}")
        found[tag] = fits[0]
    return found


def _fitting(tag: str, names: Sequence[str]) -> list[str]:
    """Names that a tag may mean, by the strictest rule that finds any."""
    if tag in names:
        return [tag]
    wanted = bare(tag)
    if not wanted:
        return []
    plain = {name: bare(_SEQUENCE.sub("", name)) for name in names}
    exact = [name for name in names if wanted in (plain[name], bare(name))]
    return exact or [name for name in names if _is_part(wanted, plain[name])]


def _is_part(wanted: str, name: str) -> bool:
    """Whether a name begins or ends with another, and no number is cut in two where they part."""
    begins = name.startswith(wanted) and not (wanted[-1].isdigit() and name[len(wanted) : len(wanted) + 1].isdigit())
    rest = name[: -len(wanted)]
    ends = name.endswith(wanted) and not (wanted[0].isdigit() and rest[-1:].isdigit())
    return begins or ends


def share_hashtag(first: str, second: str) -> str:
    """A hashtag that two rows' fields name both; empty where there is none."""
    names = {bare(tag): tag for tag in parse_hashtags(first)}
    return next((tag for tag in parse_hashtags(second) if bare(tag) in names), "")
