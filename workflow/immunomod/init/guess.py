"""What a library is, guessed from its characteristics and its title; never a donor that nothing names.

Characteristics come first, since somebody chose their keys; titles and source names second. A replicate number is no
donor: two replicates may be two wells of one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from immunomod.init.rows import Described, Row
from immunomod.init.text import as_level, words_of
from immunomod.init.vocabulary import (
    LICENSING,
    MSC,
    POOLED,
    culture_of,
    is_control_level,
    msc_source_of,
    normalise,
    stimuli_in,
)

ARMS = {"msc": "msc_alone", "immune": "immune_alone", "coculture": "coculture"}
LICENSED, RESTING = "licensed", "resting"
_PERSON = r"(donor|patient|subject|individual|participant|proband|volunteer|person)"
_MSC_WORD = re.compile(r"\b(h?msc|mesenchymal|stromal|asc|line)s?\b")
_IMMUNE_WORD = re.compile(r"\b(pbmc|immune|t cell|blood|lymphocyte|monocyte|leu[ck]ocyte|cd\d+|nk|b cell)s?\b")
_DONOR_KEY = re.compile(
    rf"{_PERSON}( (id|identifier|number|no|code|name))?|(human|cell|sample|blood|biological) {_PERSON}( id)?"
    r"|(mouse|animal)( (id|number|no))?|genotype id|pt( id)?"
)
_REPLICATE = re.compile(r"\b(biological |technical |bio |tech )?(rep|repl|replicate|replica)s?[\s.#-]*(\d+|[a-c])\b")
_CONDITION_KEYS = (
    re.compile(r"condition|(treatment|culture|experimental|sample) condition|arm|treatment arm"),
    re.compile(r"treatment|treated with|treatment group|agent|compound|drug|exposure|intervention"),
    re.compile(
        r"(.* )?(stimulation|stimulus|stimuli|stimulated|licensing|priming|preconditioning|activation|cytokines?)( .*)?"
    ),
    re.compile(r"co ?culture(d)?( with)?|culture( type| system)?|group|experimental group|study group|subject group"),
    re.compile(r"disease|disease (state|status)|diagnosis|health (state|status)|phenotype|status|clinical status"),
    re.compile(r"genotype(/variation)?|genotype variation|perturbation|strain"),
)
_STIMULUS_KEYS = (_CONDITION_KEYS[2], _CONDITION_KEYS[1], _CONDITION_KEYS[0])
_CULTURE_KEY = re.compile(
    r"(.*)(co ?culture|culture|cell type|tissue|source|treatment|condition|sample type|cell population|group)(.*)"
)
_BATCH_KEY = re.compile(
    r"(processing |library |sequencing |experiment(al)? |10x )?batch( (id|number|no))?|(sequencing |10x )?run"
)
_TIME_KEY = re.compile(r"(.* )?(time|time ?point|duration|hours?|hrs?)( .*)?|(time|duration)\W.*")
_DOSE_KEY = re.compile(r"(.* )?(ratio|dose)( .*)?")
_HOURS = re.compile(r"(?<![\w.])(\d{1,4}(?:\.\d+)?)[\s-]*(?:h|hr|hrs|hours?)(?![a-z0-9])")
_DAYS = re.compile(r"(?<![\w.])(\d{1,3}(?:\.\d+)?)[\s-]*(?:d|days?)(?![a-z0-9])|\bday[\s-]*(\d{1,3})\b")
_RATIO = re.compile(r"(?<!\d)(\d+(?:\.\d+)?)\s*(?::|to)\s*(\d+(?:\.\d+)?)(?!\d)")
_DONOR_IN_TEXT = re.compile(
    rf"\b{_PERSON}(?:[\s_.#:-]+(?:id|no|number)?[\s_.#:-]*|(?=\d))([a-z]{{0,4}}-?\d+[a-c]?|[a-z])(?![a-z0-9])"
    r"(?!\s*(?:h|hr|hours?|days?|x)\b)|\b(?:pt|hd|hc|upn|mouse|animal)[\s_.#-]*(\d+)(?![a-z0-9])"
)
_SHORT_DONOR = re.compile(r"(?<![a-z0-9])(d|p)(\d{1,3})(?=p\d|[^a-z0-9]|$)")

_STUDY = "title of the study"
_READERS: tuple[tuple[Callable[[Row], str], str], ...] = (
    (lambda row: row.about.title, "title"),
    (lambda row: row.about.source_name, "source name"),
)


def guess_rows(rows: Sequence[Row], study: str = "") -> list[str]:
    """Fill in what can be guessed of each row, and return remarks on all of them.

    The rows are one study's: what tells its libraries apart is looked for among all of them. Columns ``culture``,
    ``stimulus``, ``msc_source``, ``donor``, ``msc_donor``, ``time_h``, ``dose``, ``batch`` and ``condition``; a value
    that a row has already is kept.
    """
    for row in rows:
        _guess_culture(row)
    if not any(row["culture"] for row in rows) and (told := culture_of(study)) in ("msc", "immune"):
        for row in rows:
            row.guess("culture", told, _STUDY)
    _guess_stimuli(rows)
    for row in rows:
        _guess_msc_source(row)
        if row["culture"] in ("msc", "coculture") and (tissue := msc_source_of(study)):
            _fill(row, "msc_source", tissue, _STUDY)
        _guess_time(row)
        _guess_dose(row)
        _guess_keyed(row, "batch", _BATCH_KEY)
    remarks = _guess_donors(rows)
    return remarks + _guess_conditions(rows)


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9/]+", " ", normalise(name)).strip()


def is_donor_key(name: str) -> bool:
    """Whether a characteristic of this name says who the cells come from."""
    return _DONOR_KEY.fullmatch(_key(name)) is not None


def is_arm_key(name: str) -> bool:
    """Whether a characteristic of this name says what was done to the cells."""
    return any(pattern.fullmatch(_key(name)) for pattern in _CONDITION_KEYS)


def _keyed(about: Described, pattern: re.Pattern[str]) -> list[tuple[str, str]]:
    """Characteristics whose key fits, as (key, value); those without a value left out."""
    return [
        (name, value)
        for name, value in about.characteristics.items()
        if value.strip() and pattern.fullmatch(_key(name)) and not _is_missing(value)
    ]


def _is_missing(value: str) -> bool:
    return normalise(value) in ("na", "n/a", "not applicable", "unknown", "not available", "missing", "-", "nd", "--")


def _from_key(name: str) -> str:
    return f'characteristics "{name}"'


def _fill(row: Row, column: str, value: str, origin: str) -> None:
    if not row[column]:
        row.guess(column, value, origin)


def _guess_keyed(row: Row, column: str, pattern: re.Pattern[str]) -> None:
    for name, value in _keyed(row.about, pattern):
        _fill(row, column, value, _from_key(name))


def _guess_culture(row: Row) -> None:
    """The characteristics that speak of cells or culture, then the title, then the source name.

    A co-culture named anywhere decides: its parts are named there as well.
    """
    told = [(_from_key(name), f"{name}: {value}") for name, value in _keyed(row.about, _CULTURE_KEY)]
    told = [(origin, _denied_in_value(text)) for origin, text in told]
    told = [("title", row.about.title), *told, ("source name", row.about.source_name)]
    found = [(culture_of(text), origin) for origin, text in told]
    for wanted in (("coculture",), ("msc", "immune")):
        hits = [(culture, origin) for culture, origin in found if culture in wanted]
        if len({culture for culture, _ in hits}) == 1:
            _fill(row, "culture", *hits[0])
            return
        if hits:
            row.note("both MSC and immune cells are named: culture left empty")
            return


def _denied_in_value(text: str) -> str:
    """``co-culture: no`` says the opposite of its key."""
    name, _, value = text.partition(":")
    plain = normalise(value)
    if plain in ("no", "none", "false", "-", "alone", "mono", "monoculture", "0"):
        return "alone" if "culture" in normalise(name) else value
    if plain in ("yes", "true", "+", "1"):
        return name
    return f"{name} {value}" if re.search(r"co-?\s?culture", normalise(name)) else value


def _guess_stimuli(rows: Sequence[Row]) -> None:
    """Column ``stimulus``; ``none`` from a title counts only where another library's title names a stimulus."""
    for row in rows:
        for pattern in _STIMULUS_KEYS:
            for name, value in _keyed(row.about, pattern):
                plain = normalise(value)
                names = stimuli_in(value) or (["none"] if plain in ("no", "false", "0", "naive") else [])
                if not names and pattern is _STIMULUS_KEYS[0] and not culture_of(value):
                    names = [_without_times(value)]
                if names:
                    _fill(row, "stimulus", "+".join(names), _from_key(name))
    for read, origin in _READERS:
        found = {id(row): stimuli_in(read(row)) for row in rows}
        if any(names and names != ["none"] for names in found.values()):
            for row in rows:
                if names := found[id(row)]:
                    _fill(row, "stimulus", "+".join(names), origin)


def _guess_msc_source(row: Row) -> None:
    if row["culture"] not in ("msc", "coculture"):
        return
    for name, value in row.about.characteristics.items():
        if _key(name) not in ("disease", "diagnosis") and (found := msc_source_of(value)):
            _fill(row, "msc_source", found, _from_key(name))
    for text, origin in ((row.about.title, "title"), (row.about.source_name, "source name")):
        if found := msc_source_of(text):
            _fill(row, "msc_source", found, origin)


def _without_times(text: str) -> str:
    """``IFN-beta, 6 h`` without its time."""
    return _HOURS.sub("", _DAYS.sub("", text)).strip(" ,;_-()") or text


def hours_in(text: str) -> str:
    """Hours that a text names in hours or days, as a number; empty if it names none, or several."""
    plain = normalise(text)
    found = {float(hours) for hours in _HOURS.findall(plain)}
    found |= {24 * float(a or b) for a, b in _DAYS.findall(plain)}
    return f"{found.pop():g}" if len(found) == 1 else ""


def _guess_time(row: Row) -> None:
    for name, value in _keyed(row.about, _TIME_KEY):
        unit = "h" if re.search(r"\b(h|hr|hrs|hours?)\b", _key(name)) and re.fullmatch(r"[\d.]+", value) else ""
        if found := hours_in(f"{value}{unit}"):
            _fill(row, "time_h", found, _from_key(name))
        elif re.fullmatch(r"[\d.]+", value.strip()):
            row.note(f'time_h left empty: characteristics "{name}" has no unit')
    for pattern in _STIMULUS_KEYS:
        for name, value in _keyed(row.about, pattern):
            if found := hours_in(value):
                _fill(row, "time_h", found, _from_key(name))
    if found := hours_in(row.about.title):
        _fill(row, "time_h", found, "title")


def _guess_dose(row: Row) -> None:
    """MSC per immune cell, where a ratio says which number is whose."""
    if row["culture"] != "coculture":
        return
    told = [(_from_key(name), f"{name}: {value}") for name, value in _keyed(row.about, _DOSE_KEY)]
    for origin, text in [*told, ("title", row.about.title)]:
        plain = normalise(text)
        hit = _RATIO.search(plain)
        if hit is None:
            continue
        first, second = float(hit.group(1)), float(hit.group(2))
        msc, immune = MSC.search(plain), _IMMUNE_WORD.search(plain)
        if msc is None or immune is None or not first or not second:
            row.note(f"dose left empty: {hit.group()} does not say which number is that of the MSC")
            continue
        _fill(row, "dose", f"{first / second if msc.start() < immune.start() else second / first:.6g}", origin)


def _guess_donors(rows: Sequence[Row]) -> list[str]:
    rows = [row for row in rows if not row.donor_by_cell]
    for row in rows:
        for name, value in row.about.characteristics.items():
            _donor_from_key(row, name, value)
        if not row["donor"]:
            _donor_from_words(row)
    _short_donors(rows)
    for row in rows:
        if not row["donor"] and row["culture"] == "msc" and row["msc_donor"]:
            row.guess("donor", row["msc_donor"], "msc_donor")
    return _remarks_on_donors(rows)


def _donor_from_key(row: Row, name: str, value: str) -> None:
    key = _key(name)
    if _is_missing(value) or not value.strip():
        return
    words = re.sub(r"\s+", " ", _IMMUNE_WORD.sub("", _MSC_WORD.sub("", key))).strip()
    if not (_DONOR_KEY.fullmatch(key) or _DONOR_KEY.fullmatch(words)):
        return
    if POOLED.search(normalise(value)):
        row.note(f'donor left empty: characteristics "{name}" says {value!r}')
        return
    of_msc = _MSC_WORD.search(key) is not None and _IMMUNE_WORD.search(key) is None
    _fill(row, "msc_donor" if of_msc else "donor", value, _from_key(name))


def _donor_from_words(row: Row) -> None:
    for text, origin in ((row.about.title, "title"), (row.about.source_name, "source name")):
        plain = normalise(text)
        for hit in _DONOR_IN_TEXT.finditer(plain):
            of_msc = re.search(r"\b\w*msc\W*$", plain[: hit.start()]) is not None and row["culture"] == "coculture"
            named = hit.group(2) or hit.group(3)
            prefix = "" if hit.group(2) and not hit.group(2).isdigit() else _initial(hit.group())
            _fill(row, "msc_donor" if of_msc else "donor", f"{prefix}{named.upper()}", f'{origin} "{hit.group()}"')
        if not row["donor"] and POOLED.search(plain):
            row.note(f"donor left empty: the {origin} speaks of several donors in one library")


def _initial(text: str) -> str:
    """``donor 3`` becomes D3, ``hd 2`` HD2, ``mouse 1`` M1."""
    word = re.match(r"[a-z]+", text)
    name = word.group() if word else ""
    return name.upper() if name in ("pt", "hd", "hc", "upn") else name[:1].upper()


def _short_donors(rows: Sequence[Row]) -> None:
    """D1, D2 and P1, P2: donors where each title has one and they count from 1 without a gap; else as likely days."""
    for letter, doubt in (("d", "a day"), ("p", "a passage")):
        hits = {id(row): _numbered(row.about.title, letter) for row in rows}
        numbers = set().union(*hits.values())
        lacking = [row for row in rows if not row["donor"]]
        if len(numbers) < 2 or not lacking:
            continue
        with_msc = any(MSC.search(normalise(row.about.told)) for row in rows)
        one_each = all(len(found) == 1 for found in hits.values())
        counted = one_each and numbers == set(range(1, len(numbers) + 1))
        if not counted or (letter == "p" and with_msc):
            for row in lacking:
                if hits[id(row)]:
                    row.note(f"donor left empty: {letter.upper()}{min(hits[id(row)])} in the title may be {doubt}")
            continue
        for row in lacking:
            for number in hits[id(row)]:
                name = f"{letter.upper()}{number}"
                row.guess("donor", name, f'title "{name}" (it may be {doubt})')


def _numbered(title: str, letter: str) -> set[int]:
    """The numbers that follow a letter in a title: D1, D2."""
    return {int(number) for sign, number in _SHORT_DONOR.findall(normalise(title)) if sign == letter}


def _remarks_on_donors(rows: Sequence[Row]) -> list[str]:
    numbered = [row for row in rows if not row["donor"] and _names_replicate(row)]
    for row in numbered:
        row.note("donor left empty: a replicate number is no donor (two replicates may be two wells of one)")
    if not numbered:
        return []
    return [
        f"{len(numbered)} libraries have replicate numbers and no donor. If each replicate is another donor, write so "
        "in column donor"
    ]


def _names_replicate(row: Row) -> bool:
    return bool(
        _REPLICATE.search(normalise(row.about.told))
        or any("replicate" in _key(name) or _key(name) == "rep" for name in row.about.characteristics)
    )


def _guess_conditions(rows: Sequence[Row]) -> list[str]:
    """Column ``condition``: a co-culture's arms, licensed against resting MSC, or whatever tells libraries apart."""
    lacking = [row for row in rows if not row["condition"]]
    if not lacking:
        return []
    for attempt in (_by_culture, _by_licensing, _by_characteristic, _by_stimulus, _by_words, _by_tissue):
        if attempt(lacking):
            return []
    for row in lacking:
        for pattern in _CONDITION_KEYS:
            for name, value in _keyed(row.about, pattern):
                _fill(row, "condition", _without_times(value), _from_key(name))
    return ["no condition was found that tells the libraries apart: fill in column condition"]


def _by_culture(rows: Sequence[Row]) -> bool:
    cultures = {row["culture"] for row in rows}
    if "coculture" not in cultures or not cultures & {"msc", "immune"}:
        return False
    for row in rows:
        if row["culture"]:
            row.guess("condition", ARMS[row["culture"]], "culture")
    return True


def _by_licensing(rows: Sequence[Row]) -> bool:
    stimuli = {row["stimulus"] for row in rows}
    parts = {part for stimulus in stimuli - {"none", ""} for part in stimulus.split("+")}
    if {row["culture"] for row in rows} != {"msc"} or len(stimuli) != 2 or "none" not in stimuli:
        return False
    if not parts or not parts <= LICENSING:
        return False
    for row in rows:
        row.guess("condition", RESTING if row["stimulus"] == "none" else LICENSED, "stimulus")
    return True


def _by_characteristic(rows: Sequence[Row]) -> bool:
    for pattern in _CONDITION_KEYS:
        keys = Counter(name for row in rows for name, _ in _keyed(row.about, pattern))
        for key, _ in keys.most_common():
            levels = {id(row): as_level(_without_times(row.about.characteristics.get(key, ""))) for row in rows}
            told_apart = set(levels.values()) - {""}
            if 2 <= len(told_apart) <= max(2, len(rows) // 2):
                for row in rows:
                    row.guess("condition", levels[id(row)], _from_key(key))
                return True
    return False


def _by_stimulus(rows: Sequence[Row]) -> bool:
    if len({row["stimulus"] for row in rows} - {""}) < 2:
        return False
    for row in rows:
        row.guess("condition", "control" if row["stimulus"] == "none" else row["stimulus"], "stimulus")
    return True


def _by_words(rows: Sequence[Row]) -> bool:
    """Words of the titles that some libraries share and others lack, numbers, donors and replicates left out."""
    for read, origin in _READERS:
        words = [_telling_words(read(row)) for row in rows]
        counts = Counter(word for found in words for word in dict.fromkeys(found))
        seldom = 1 if len(rows) > 3 else 0
        levels = ["_".join(word for word in found if seldom < counts[word] < len(rows)) for found in words]
        shown = {_numberless(normalise(word)): _numberless(word) for row in rows for word in words_of(read(row))}
        filled = set(levels) - {""}
        if 2 <= len(filled) <= max(2, len(rows) // 2) or (len(filled) == 1 and len(set(levels)) == 2):
            for row, level in zip(rows, levels, strict=True):
                row.guess("condition", "_".join(shown.get(word, word) for word in level.split("_")), origin)
            return True
    return False


def _by_tissue(rows: Sequence[Row]) -> bool:
    if len({row["msc_source"] for row in rows} - {""}) < 2:
        return False
    for row in rows:
        row.guess("condition", row["msc_source"], "msc_source")
    return True


def _numberless(word: str) -> str:
    """``stim1`` without its number; ``AB127`` is a name."""
    return re.sub(r"^(\w*[^\W\d])[-.]?\d$", r"\1", word)


def _telling_words(title: str) -> list[str]:
    plain = _REPLICATE.sub(" ", _DONOR_IN_TEXT.sub(" ", normalise(title)))
    plain = _HOURS.sub(" ", plain)
    words = [_numberless(word) for word in words_of(plain)]
    skip = re.compile(r"[\W\d]+|[dps]\d+(p\d+)?|[a-z]|gs[em]\d+|s?\d+|rep|sample|lane|library|well|run")
    return [word for word in words if not skip.fullmatch(word)]


def control_like(levels: Sequence[str]) -> list[str]:
    """Levels that read like a control, in the order given."""
    return [level for level in levels if is_control_level(level)]
