"""The columns of the CELLxGENE schema, as far as a run can know them; everything else is the schema's ``unknown``.

Names are those of the schema, https://github.com/chanzuckerberg/single-cell-curation (5.x, where the organism stands in
``obs``). The tissue is the one that cells came from before they were cultured.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

import pandas as pd

from immunomod.files import read_tsv
from immunomod.tables import REPOSITORY

UNKNOWN = "unknown"
#: Column of the schema -> column of the samples sheet that may say it, by a word of ``resources/ontology`` or a term.
FROM_SHEET: Mapping[str, str] = {
    "organism_ontology_term_id": "organism",
    "tissue_ontology_term_id": "tissue",
    "assay_ontology_term_id": "assay",
    "disease_ontology_term_id": "disease",
    "sex_ontology_term_id": "sex",
    "development_stage_ontology_term_id": "development_stage",
    "self_reported_ethnicity_ontology_term_id": "self_reported_ethnicity",
}
_TERM = re.compile(r"[A-Za-z]+:[0-9]+")


@cache
def known_terms() -> Mapping[tuple[str, str], str]:
    """(column, word) -> term, of ``resources/ontology/terms.tsv``."""
    table = read_tsv(REPOSITORY / "resources" / "ontology" / "terms.tsv", dtype=str)
    return dict(zip(zip(table["column"], table["value"], strict=True), table["ontology_term_id"], strict=True))


def term_of(column: str, value: str) -> str:
    """The term that a sheet's ``value`` stands for: itself, that of a known word, or ``unknown``."""
    value = value.strip()
    if _TERM.fullmatch(value):
        return value
    return known_terms().get((column, re.sub(r"[\s-]+", "_", value.lower().replace("'", ""))), UNKNOWN)


def schema_columns(obs: pd.DataFrame, classes: pd.DataFrame) -> pd.DataFrame:
    """The schema's columns for the cells of ``obs``, categorical.

    Parameters
    ----------
    obs
        The sheet's columns, ``donor``, ``cell_class`` and ``compartment``.
    classes
        ``ontology`` of each cell class, by its name.
    """
    found = pd.DataFrame(index=obs.index)
    found["cell_type_ontology_term_id"] = _text(obs, "cell_class").map(classes["ontology"]).fillna("")
    for name, column in FROM_SHEET.items():
        given = _text(obs, name) if name in obs else _text(obs, column)
        found[name] = given.map({value: term_of(column, value) for value in given.unique()})
    msc = (_text(obs, "compartment") == "MSC") & (found["tissue_ontology_term_id"] == UNKNOWN)
    source = _text(obs, "msc_source")
    of_source = source.map({value: term_of("tissue", value) for value in source.unique()})
    found["tissue_ontology_term_id"] = found["tissue_ontology_term_id"].where(~msc, of_source)
    found["tissue_type"] = "tissue"
    found["suspension_type"] = _text(obs, "suspension_type").replace("", "cell")
    found["donor_id"] = _text(obs, "donor")
    found = found.replace("", UNKNOWN).astype("category")
    return found.assign(is_primary_data=False)


def _text(obs: pd.DataFrame, name: str) -> pd.Series:
    """A column as text; empty where it is missing or absent."""
    if name not in obs:
        return pd.Series("", index=obs.index, dtype=object)
    values = obs[name].astype(object)
    return values.where(values.notna(), "").astype(str)
