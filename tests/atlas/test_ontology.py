"""The columns of the CELLxGENE schema: what the sheet and the classes say, and ``unknown`` for the rest."""

import re

import pandas as pd
import pytest

from immunomod.atlas.markers import load_markers
from immunomod.atlas.ontology import FROM_SHEET, known_terms, schema_columns, term_of

#: Columns of obs that the schema asks a curator for (5.x).
CURATED = {
    "assay_ontology_term_id", "cell_type_ontology_term_id", "development_stage_ontology_term_id",
    "disease_ontology_term_id", "donor_id", "is_primary_data", "organism_ontology_term_id",
    "self_reported_ethnicity_ontology_term_id", "sex_ontology_term_id", "suspension_type",
    "tissue_ontology_term_id", "tissue_type",
}  # fmt: skip


@pytest.fixture
def classes(repository):
    return load_markers(repository / "resources" / "markers").classes


@pytest.fixture
def obs():
    return pd.DataFrame(
        {
            "donor": ["D1", "D1", "D2"], "cell_class": ["MSC", "CD4_T", "unassigned"],
            "compartment": ["MSC", "immune", "other"], "organism": "human", "msc_source": "bone_marrow",
            "assay": ["10x 3' v3", "EFO:0009922", "10x 3 v3"],
        },
        index=list("abc"),
    ).astype({"donor": "category", "cell_class": "category"})  # fmt: skip


def test_every_column_of_the_schema_is_there_and_filled(obs, classes):
    found = schema_columns(obs, classes)
    assert set(found) == CURATED and found.index.equals(obs.index)
    assert found.notna().all(axis=None) and not (found == "").any(axis=None)
    assert all(isinstance(found[name].dtype, pd.CategoricalDtype) for name in CURATED - {"is_primary_data"})
    assert found["cell_type_ontology_term_id"].tolist() == ["CL:0000134", "CL:0000624", "unknown"]
    assert set(found["organism_ontology_term_id"]) == {"NCBITaxon:9606"}
    assert found["tissue_ontology_term_id"].tolist() == ["UBERON:0002371", "unknown", "unknown"]
    assert found["assay_ontology_term_id"].tolist() == ["EFO:0009922"] * 3
    assert set(found["sex_ontology_term_id"]) == {"unknown"} and found["donor_id"].tolist() == ["D1", "D1", "D2"]


def test_a_tissue_of_the_sheet_goes_before_the_source_of_the_msc(obs, classes):
    found = schema_columns(obs.assign(tissue=["", "PBMC", "UBERON:0000955"]), classes)
    assert found["tissue_ontology_term_id"].tolist() == ["UBERON:0002371", "UBERON:0000178", "UBERON:0000955"]


def test_a_sheet_without_any_of_it(classes):
    found = schema_columns(pd.DataFrame({"cell_class": ["B"], "compartment": ["immune"]}, index=["x"]), classes)
    assert found["donor_id"].tolist() == ["unknown"] and found["organism_ontology_term_id"].tolist() == ["unknown"]
    assert len(schema_columns(pd.DataFrame({"cell_class": []}), classes)) == 0


def test_words_are_those_of_the_sheet():
    assert term_of("tissue", "Bone-marrow ") == term_of("tissue", "bone marrow") == "UBERON:0002371"
    assert term_of("tissue", "moon") == term_of("tissue", "") == "unknown"
    assert {column for column, _ in known_terms()} <= set(FROM_SHEET.values())
    assert all(re.fullmatch(r"(NCBITaxon|UBERON|EFO|PATO):\d+", term) for term in known_terms().values())


def test_every_class_but_the_unassigned_has_a_term(classes):
    named = classes["ontology"].drop("unassigned")
    assert named.str.fullmatch(r"CL:\d{7}").all()
