"""What is claimed of co-culture with MSC, and which results speak to each claim (``resources/claims``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from immunomod.errors import UserError
from immunomod.tables import REPOSITORY, read_table

SHIPPED = REPOSITORY / "resources" / "claims"
CLAIMS, EVIDENCE = "claims.tsv", "evidence.tsv"


@dataclass(frozen=True)
class Claim:
    """A claim: its ``name``, whose change it is about (``MSC``, ``immune``, ``both``), and what it says.

    ``limit`` is what no transcript can tell of it.
    """

    name: str
    side: str
    statement: str
    limit: str


@dataclass(frozen=True)
class Pointer:
    """A result that speaks to a claim: an ``item`` of a ``table``, and the sign (+1 or -1) that the claim asks for.

    ``organism`` and ``cell_class`` are empty where the result counts for every organism and class.
    """

    table: str
    item: str
    sign: int
    organism: str
    cell_class: str = ""


@dataclass(frozen=True)
class ClaimSet:
    """All claims, in the order of the report; claims without pointers are absent from ``evidence``."""

    claims: Sequence[Claim]
    evidence: Mapping[str, Sequence[Pointer]]


def load_claims(folder: Path = SHIPPED) -> ClaimSet:
    """Read and validate the claims of a folder.

    Raises
    ------
    UserError
        A table breaks its schema, or evidence speaks to a claim that is not there.
    """
    claims = read_table(folder / CLAIMS, "claims", unique=("claim",))
    rows = read_table(folder / EVIDENCE, "claims_evidence", unique=("claim", "table", "item", "cell_class"))
    known = set(claims["claim"])
    evidence: dict[str, list[Pointer]] = {}
    for number, row in rows.iterrows():
        if row["claim"] not in known:
            raise UserError(
                f"{folder / EVIDENCE} row {number}: claim {row['claim']!r} has no row in {CLAIMS}. Add one."
            )
        sign = 1 if row["direction"] == "+" else -1
        evidence.setdefault(row["claim"], []).append(
            Pointer(row["table"], row["item"], sign, row["organism"], row["cell_class"])
        )
    named = zip(claims["claim"], claims["side"], claims["statement"], claims["limit"], strict=True)
    return ClaimSet([Claim(*map(str, row)) for row in named], evidence)
