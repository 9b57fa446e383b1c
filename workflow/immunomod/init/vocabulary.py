"""The words by which authors name what a sheet has columns for: stimuli, cultures, tissues of MSC, kinds of library."""

from __future__ import annotations

import itertools
import re
import unicodedata
from enum import StrEnum

from immunomod.init.text import spell_greek


def normalise(text: str) -> str:
    """``text`` for matching: lower case, no accents, Greek spelled out, underscores as blanks."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return re.sub(r"[\s_]+", " ", spell_greek(plain)).lower().strip()


def _patterns(table: dict[str, str]) -> dict[str, re.Pattern[str]]:
    return {name: re.compile(pattern) for name, pattern in table.items()}


STIMULI = _patterns(
    {
        "IFN-gamma": r"\bifn[\s-]*(g|gamma)(?![a-z])|interferon[\s-]*gamma",
        "IFN-beta": r"\bifn[\s-]*(b|beta)(?![a-z])|interferon[\s-]*beta",
        "IFN-alpha": r"\bifn[\s-]*(a|alpha)(?![a-z])|interferon[\s-]*alpha",
        "TNF": r"\btnf([\s-]*(a|alpha))?(?![a-z-])|tumou?r necrosis factor",
        "IL-1beta": r"\bil[\s-]*1[\s-]*(b|beta)(?![a-z])",
        "IL-17": r"\bil[\s-]*17a?(?![0-9a-z])",
        "PHA": r"\bpha(?![a-z])|phytoh(a)?emagglutinin",
        "anti-CD3/CD28": r"cd3\s*(e\s*)?([/+,&-]|and)?\s*(anti|a|alpha)?[\s-]*cd28|dynabeads?|immunocult",
        "anti-CD3": r"\b(anti|alpha)[\s-]*cd3e?(?![0-9])(?!\s*([/+,&-]|and)?\s*(anti|a|alpha)?[\s-]*cd28)",
        "LPS": r"\blps(?![a-z])|lipopolysaccharide",
        "PMA/ionomycin": r"\bpma(?![a-z])|ionomycin",
        "ConA": r"\bcon[\s-]?a(?![a-z])|concanavalin",
        "SEB": r"\bseb(?![a-z])|enterotoxin",
        "poly(I:C)": r"\bpoly[\s-]*\(?i[\s:]*c\b",
        "CpG": r"\bcpg(?![a-z])",
    }
)
#: Stimuli that are known to license MSC.
LICENSING = {"IFN-gamma", "TNF", "IL-1beta", "IL-17", "LPS", "poly(I:C)"}
_NEGATION = re.compile(r"(\bno|\bnot|\bwithout|w/o|\bminus|\bnon|\bwo)[\s-]*$")
_CONTROL = (
    r"ctrl|ctr|ctl|cntrl|control|unstim\w*|un-stim\w*|non-?\s?stim\w*|not stimulated|untreated|"
    r"non-?treated|not treated|"
    r"resting|rest|none|no (stim\w*|treatment|cytokines?)|mock|vehicle|dmso|pbs|baseline|medium|media|"
    r"unlicensed|non-?licensed|unprimed|unactivated|non-?activated"
)
CONTROL = re.compile(rf"\b({_CONTROL})\b")
#: A level that can be a reference though it is no untreated control: the state before or without a disease.
_CONTROL_LEVEL = re.compile(
    rf"({_CONTROL}|no|false|naive|healthy|normal|wt|wild-?\s?type|nc|hc|hd|alone|0|sham|pre|before|day\s?0)"
    r"(\W?(only|alone|group|cells?|sample|donors?|\d+\s?h(ours?)?))*"
)
COCULTURE = re.compile(r"\bco-?\s?cult\w*|\bcoculture\w*|\bmixed cultures?\b|\btranswell\b")
NO_COCULTURE = re.compile(
    r"\b(no|not|without|w/o|before|non)[\s-]+(co-?\s?cult\w*)|\bmono-?\s?cultur\w*|\bcultured? alone\b|\balone\b"
)
MSC = re.compile(
    r"\bh?(u|m)?(bm|uc|wj|ad|at|ucb|p)?[\s-]?(d[\s-]?)?mscs?\b|\b(a|ad|da)scs?\b"
    r"|\bmesenchymal (stem|stroma\w*|progenitor)|\bstromal cells?\b|\badscs?\b|\bdpscs?\b"
)
IMMUNE = re.compile(
    r"\bpbmcs?\b|\bmononuclear\b|\bleu[ck]ocytes?\b|\blymphocytes?\b|\bsplenocytes?\b|\bmonocytes?\b|\bmacrophages?\b"
    r"|\b(cd4|cd8)(\s?\+)?|\b(t|b|nk|dendritic|immune|th1|th17|treg|t reg|mait)[\s-]?cells?\b|\btregs?\b|\bnk\b"
    r"|\bneutrophils?\b|\bmo-?dcs?\b|\bblood\b|\bcd14|\bcd3(\s?\+)?\s?t\b|\bmicroglia\b"
)
MSC_WITH_IMMUNE = re.compile(r"[+:/&]|\bwith\b|\band\b|\bplus\b|\bx\b")
WITHOUT_MSC = re.compile(r"\b(no|without|w/o|minus|non)[\s-]*(\w+[\s-]+)?mscs?\b|\bmscs?\s*\(?-\)?$")
#: In this order: cord blood is no cord.
MSC_SOURCES = _patterns(
    {
        "cord_blood": r"cord blood|\bucb",
        "umbilical_cord": r"umbilical|\bh?uc[\s-]?(d[\s-]?)?mscs?\b|wharton|\bh?wj",
        "bone_marrow": r"bone[\s-]?marrow|\b[hm]?bm[\s-]?(d[\s-]?)?mscs?\b|\bbm\b",
        "adipose": r"adipos\w*|\bad[\s-]?mscs?\b|\bat[\s-]?mscs?\b|\bh?adscs?\b|\bascs?\b|\blipoaspirat\w*|\bfat\b",
        "dental_pulp": r"dental pulp|\bdpscs?\b",
        "placenta": r"placent\w*|\bchori\w+|\bdecidua\w*",
        "amnion": r"\bamnio\w*",
        "menstrual_blood": r"menstrual",
        "synovium": r"synovi\w*",
        "dermis": r"\bderm(is|al)\b|\bskin\b",
    }
)
POOLED = re.compile(r"\bpool\w*|\bmultiplex\w*|\bmixed donors?\b|\b\d+ (donors|patients|subjects|individuals|mice)\b")


class Modality(StrEnum):
    """What a library measures."""

    RNA = "RNA"
    HASHTAGS = "hashtags"
    ANTIBODIES = "antibodies"
    GUIDES = "guide RNAs"
    RECEPTORS = "immune receptors (V(D)J)"
    ATAC = "chromatin (ATAC)"
    BULK = "bulk RNA"
    OTHER = "no RNA"


_MODALITIES = {
    Modality.HASHTAGS: re.compile(
        r"\bhtos?\b|\bhash(ing|tags?|ed)?\b|\bhashtag\w*|cell ?hash\w*|\bmulti-?seq barcodes?\b"
    ),
    Modality.ANTIBODIES: re.compile(
        r"\badts?\b|\bantibod(y|ies)([\s-]*(derived|capture|tags?|library|barcodes?|counts?))\w*|\bsurface proteins?\b"
        r"|\bprotein (library|expression|counts?)\b|\bfeature barcod\w+|\bcite(-seq)? (antibod\w+|protein)"
    ),
    Modality.GUIDES: re.compile(r"\b(s?g|guide ?)rnas?\b( library| capture)?|\bcrispr (guide )?(capture|library)"),
    Modality.RECEPTORS: re.compile(
        r"\bv-?\(?d\)?-?j\b|\b(sc)?[tb]cr(-?seq|[\s-]*(library|repertoire|enrich\w*|clonotypes?|sequencing|amplicon)|$)"
        r"|\bclonotypes?\b|\bcontigs?\b|\bimmune repertoire|^[tb]cr\b"
    ),
    Modality.ATAC: re.compile(r"\b(sc|sn)?atac\b|atac-?seq|\bpeaks?\b|\bfragments\b"),
    Modality.BULK: re.compile(r"\bbulk\b"),
}
_RNA = re.compile(r"\b(m|sc|sn)?rna(-?seq)?\b|\bgex\b|\bgene expression\b|\btranscriptom\w*|\bgene\b")
#: How SOFT names the strategy of a library that holds no RNA counts; OTHER says nothing.
_STRATEGIES = {"atac-seq": Modality.ATAC, "chip-seq": Modality.OTHER, "bisulfite-seq": Modality.OTHER}
_STRATEGIES |= {"wgs": Modality.OTHER, "wxs": Modality.OTHER, "amplicon": Modality.OTHER, "hi-c": Modality.OTHER}


def modality_of(text: str, strategy: str = "") -> Modality:
    """What a library of this title, or a file of this name, measures; RNA unless something else is named alone."""
    plain = re.sub(r"[.]", " ", normalise(text))
    found = next((modality for modality, pattern in _MODALITIES.items() if pattern.search(plain)), None)
    if found is not None:
        rest = _MODALITIES[found].sub(" ", plain)
        return Modality.RNA if found is not Modality.BULK and _RNA.search(rest) else found
    return _STRATEGIES.get(strategy.strip().lower(), Modality.RNA)


def without_modality(text: str) -> str:
    """``text`` without the words that say what is measured, to find which libraries are of the same cells."""
    plain = re.sub(r"[.]", " ", normalise(text))
    for pattern in (*_MODALITIES.values(), _RNA):
        plain = pattern.sub(" ", plain)
    plain = re.sub(r"\b(library|libraries|counts?|matrix|cite-?seq|umi|\d* ?prime|seq)\b", " ", plain)
    return re.sub(r"[^\w+]+", " ", plain).strip()


def is_control_level(level: str) -> bool:
    """Whether a level reads like the one to compare with."""
    plain = normalise(level).strip(" .-+")
    return _CONTROL_LEVEL.fullmatch(plain) is not None or CONTROL.search(plain) is not None


def stimuli_in(text: str) -> list[str]:
    """The stimuli that a text names, in our spelling; ``none`` for a control that names none; empty if neither."""
    plain = normalise(text)
    found = []
    denied = False
    for name, pattern in STIMULI.items():
        for hit in pattern.finditer(plain):
            if _NEGATION.search(plain[: hit.start()]):
                denied = True
            elif name not in found:
                found.append(name)
    return found or (["none"] if denied or CONTROL.search(plain) else [])


def culture_of(text: str) -> str:
    """``msc``, ``immune`` or ``coculture`` where a text says so, else empty."""
    plain = normalise(text)
    without = WITHOUT_MSC.search(plain)
    msc = MSC.search(WITHOUT_MSC.sub(" ", plain)) is not None
    immune = IMMUNE.search(plain) is not None
    if without or NO_COCULTURE.search(plain):
        if msc != immune:
            return "msc" if msc else "immune"
        return ""
    if COCULTURE.search(plain):
        return "coculture"
    if msc and immune:
        hits = sorted([*MSC.finditer(plain), *IMMUNE.finditer(plain)], key=lambda hit: hit.start())
        joined = any(
            (MSC.fullmatch(a.group()) is None) != (MSC.fullmatch(b.group()) is None)
            and MSC_WITH_IMMUNE.search(plain[a.end() : b.start()])
            for a, b in itertools.pairwise(hits)
        )
        return "coculture" if joined else ""
    return "msc" if msc else "immune" if immune else ""


def msc_source_of(text: str) -> str:
    """The tissue of MSC that a text names, else empty."""
    plain = normalise(text)
    return next((name for name, pattern in MSC_SOURCES.items() if pattern.search(plain)), "")
