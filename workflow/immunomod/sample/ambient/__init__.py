"""Ambient RNA: methods as rows of a registry. Raw counts are never overwritten; corrected ones stand beside them."""

from __future__ import annotations

from immunomod.sample.ambient import cellbender, none, soupx
from immunomod.sample.ambient.method import GROUP_COLUMNS, AmbientInput, Background, Contamination, Method

__all__ = ["GROUP_COLUMNS", "REGISTRY", "AmbientInput", "Background", "Contamination", "Method"]

REGISTRY: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="none",
            citation="",
            needs="nothing",
            limits="leakage is neither measured nor removed in single cells; inference has its own correction",
            run=none.estimate,
        ),
        Method(
            name="soupx",
            citation="after Young & Behjati 2020, GigaScience 9:giaa151, doi:10.1093/gigascience/giaa151",
            needs="cells of two kinds at least that the exclusive genes tell apart; empty droplets where there are any",
            limits="one fraction per kind of cell and library; cannot see RNA of a cell's own kind",
            run=soupx.estimate,
        ),
        Method(
            name="cellbender",
            citation="Fleming et al. 2023, Nat. Methods 20:1323, doi:10.1038/s41592-023-01943-7",
            needs="an unfiltered matrix; an environment of its own with PyTorch (`--sdm conda`); a graphics card, or "
            "hours per library",
            limits="leaves soup in where cells are few or training is short; gives no standard errors",
            run=cellbender.estimate,
        ),
    )
}
