"""Droplets that caught two cells: methods as rows of a registry, the rate to expect, and a check for co-cultures.

A method is one file with a function ``run(counts, expected_rate, seed)`` and a row of
:data:`~immunomod.sample.doublets.judge.REGISTRY`.
"""

from immunomod.sample.doublets.calls import MIN_CELLS, DoubletCalls, Method, no_calls
from immunomod.sample.doublets.judge import (
    MAX_EXPECTED_RATE,
    RATE_PER_CELL,
    REGISTRY,
    JudgedCalls,
    JudgedPartners,
    call_doublets,
    expected_rate,
    judge_partner_doublets,
)
from immunomod.sample.doublets.partner import PartnerDoublets, partner_doublets

__all__ = [
    "MAX_EXPECTED_RATE",
    "MIN_CELLS",
    "RATE_PER_CELL",
    "REGISTRY",
    "DoubletCalls",
    "JudgedCalls",
    "JudgedPartners",
    "Method",
    "PartnerDoublets",
    "call_doublets",
    "expected_rate",
    "judge_partner_doublets",
    "no_calls",
    "partner_doublets",
]
