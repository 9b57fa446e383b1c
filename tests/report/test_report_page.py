"""The page: complete, self-contained, safe with hostile names, accessible, reproducible, sound on poor data."""

import re
import shutil
from collections.abc import Callable
from itertools import pairwise

import pandas as pd
import pytest
from report_helpers import Page

from immunomod.programs import load_programs
from immunomod.report.build import build_report
from immunomod.sample.summary import NOT_OF_THE_SAMPLE

SECTIONS = [
    "answer", "claims", "effects", "donors", "cells", "composition", "communication", "potency", "disease", "witness",
    "genes", "synthesis", "quality", "methods", "run",
]  # fmt: skip
ALL = [
    "nasty",
    "empty",
    "one_sample",
    "old",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("coculture", "pbmc", "untested", "many_samples")),
]
FETCHING = {"src", "srcset", "poster", "background", "action", "formaction", "data", "manifest", "ping"}


def page_of(built: Callable, name: str) -> Page:
    return Page.parse(built(name).html)


@pytest.mark.parametrize("name", ALL)
def test_sections_stand_in_order_and_every_contents_link_has_its_target(built, name):
    page = page_of(built, name)
    ids = [element.attributes["id"] for element in page.elements if "id" in element.attributes]
    assert [identifier for identifier in ids if identifier in SECTIONS] == SECTIONS
    assert len(ids) == len(set(ids))
    targets = [e.attributes["href"][1:] for e in page.named("a") if e.attributes.get("href", "").startswith("#")]
    assert targets and set(targets) <= set(ids)


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_fetched_from_anywhere(built, name):
    page = page_of(built, name)
    for element in page.elements:
        for attribute in FETCHING & element.attributes.keys():
            assert element.attributes[attribute].startswith("data:"), element
        href = element.attributes.get("href", "")
        if element.name == "a":
            assert href.startswith(("#", "data:", "https://doi.org/", "https://arxiv.org/")), href
        elif href:
            assert href == "data:,", element
    html = built(name).html
    assert not re.search(r"@import|url\((?!#)", html)
    policy = next(e for e in page.named("meta") if e.attributes.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy.attributes["content"]
    assert "unsafe-inline'; script-src 'sha256-" in policy.attributes["content"]


def test_hostile_names_stay_text(built):
    html = built("nasty").html
    page = Page.parse(html)
    assert len(page.named("script")) == 1
    assert "<script>alert" not in html and "<img src=x" not in html
    assert all("onerror" not in element.attributes for element in page.elements)
    escaped = "&lt;script&gt;alert(1)&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;&#34;&#39;$x_1$"
    for name in ("D1_coculture", "CXCL10", "M1"):
        assert f"{escaped}{name}" in html
    assert f"{escaped.replace('_', ' ')}own" in html
    known = """id class href title alt src style lang charset name content http-equiv rel scope download role tabindex
        open width height type hidden placeholder data-table data-label viewbox data-map data-zoom value
        aria-live preserveaspectratio x y x1 x2 y1 y2
        cx cy r d fill stroke stroke-width opacity overflow transform text-anchor aria-label aria-hidden aria-labelledby
        """
    assert {attribute for element in page.elements for attribute in element.attributes} <= set(known.split())


@pytest.mark.slow
def test_downloads_return_the_tables(built):
    study = built("coculture")
    files = Page.parse(study.html).downloads()
    written = pd.read_csv(study.inputs.contrasts["coculture_vs_alone"] / "program_effects.tsv", sep="\t")
    embedded = files["coculture_vs_alone_program_effects.tsv.gz"]
    assert list(embedded.columns) == list(written.columns)
    pd.testing.assert_series_equal(embedded["effect"], written["effect"], rtol=1e-5)
    genes = pd.read_csv(study.inputs.contrasts["coculture_vs_alone"] / "genes" / "MSC.tsv.gz", sep="\t")
    assert list(files["coculture_vs_alone_genes_MSC.tsv.gz"]["gene"]) == list(genes["gene"])
    assert len(files["qc.tsv"]) == 12


@pytest.mark.parametrize("name", ALL)
def test_figures_carry_alternative_text_and_headings_do_not_skip_levels(built, name):
    page = page_of(built, name)
    for image in page.named("img"):
        assert len(image.attributes["alt"]) > 30
    for element in page.elements:
        if element.attributes.get("role") == "img":
            assert element.attributes["aria-label"]
    levels = [int(e.name[1]) for e in page.elements if re.fullmatch(r"h[1-6]", e.name)]
    assert levels.count(1) == 1
    main = levels[levels.index(1) :]
    assert all(after <= before + 1 for before, after in pairwise(main))


@pytest.mark.slow
def test_every_row_of_effects_is_on_the_page_tested_or_with_its_reason(built):
    study = built("coculture")
    effects = pd.read_csv(study.inputs.contrasts["coculture_vs_alone"] / "program_effects.tsv", sep="\t")
    html = study.html
    n_tested = int((effects["status"] == "tested").sum())
    assert html.count('<td class="exp">') == n_tested
    assert f"{len(effects) - n_tested} rows</span>" in html
    assert len(pd.read_csv(study.inputs.qc, sep="\t")) == html.count('<td class="wide">')
    assert "3 genes detected, 5 needed" in html


@pytest.mark.parametrize("name", ["empty", "one_sample"])
def test_where_nothing_can_be_told_the_answer_says_so(built, name):
    assert "<dt>Cannot tell</dt>" in built(name).html


@pytest.mark.slow
def test_a_contrast_without_msc_is_not_held_against_coculture(built):
    html = built("pbmc").html
    assert "Expected signs do not apply here" in html
    assert "against expectation" not in html and "◆ control" not in html


@pytest.mark.parametrize("name", ["old", "empty", "one_sample"])
def test_a_section_without_its_table_says_so(built, name):
    text = page_of(built, name).text
    missing = {
        "old": [
            "wrote no table of ligands",
            "wrote no table of MSC donors",
            "wrote no table of disease",
            "not ask CAMERA",
        ],
        "empty": ["No pair could be tested", "no contrast of this run", "Nothing is pooled"],
        "one_sample": ["No pair could be tested", "No ranks: no MSC donor has two cultures", "could not be tested"],
    }[name]
    assert [said for said in missing if said.lower() not in text.lower()] == []


def test_no_cell_of_a_download_is_a_formula(built):
    page = page_of(built, "formula")
    for name, table in page.downloads().items():
        for column in table.select_dtypes(object):
            assert not table[column].astype(str).str.startswith("=").any(), (name, column)
    assert "'=cmd()D1" in set(page.downloads()["samples_sheet.tsv"]["donor"])
    for element in page.named("a"):
        assert not element.attributes.get("download", "").startswith(("=", "."))


def test_every_table_lies_once_in_the_page_and_links_lead_to_it(built):
    page = page_of(built, "nasty")
    holders = [element for element in page.named("a") if "download" in element.attributes]
    ids = [element.attributes["id"] for element in holders]
    assert len(set(ids)) == len(ids)
    links = {e.attributes["href"][1:] for e in page.named("a") if e.attributes.get("class") == "get"}
    assert links and links <= set(ids)


@pytest.mark.slow
def test_same_inputs_give_the_same_bytes(built, tmp_path):
    study = built("nasty")
    page = tmp_path / "again" / "index.html"
    build_report(study.inputs, load_programs(), page, page.parent / "figures")
    assert page.read_bytes() == study.page.read_bytes()
    names = sorted(path.name for path in study.figures.iterdir())
    assert names == sorted(path.name for path in (page.parent / "figures").iterdir())
    assert {path.suffix for path in study.figures.iterdir()} == {".png", ".svg"}
    for name in names:
        assert (study.figures / name).read_bytes() == (page.parent / "figures" / name).read_bytes()


@pytest.mark.slow
def test_methods_tell_the_numbers_of_this_run(built):
    study = built("coculture")
    text = Page.parse(study.html).text
    qc = pd.read_csv(study.inputs.qc, sep="\t")
    outside = qc[[name for reason in NOT_OF_THE_SAMPLE if (name := f"cells_{reason}") in qc]].sum().sum()
    entered = int(qc["cells_before"].sum() - outside)
    assert f"{entered:,} cells entered and {qc['cells_after'].sum():,} passed" in text
    assert "at least 10 cells" in text and "immunomod 0.1.0" in text
    assert "limits 4 median absolute deviations" in text


@pytest.mark.slow
def test_the_page_is_small(built):
    assert built("coculture").page.stat().st_size < 4_000_000


def test_files_that_an_optional_step_did_not_write_are_no_error(built, tmp_path):
    results = tmp_path / "copy"
    shutil.copytree(built("one_sample").inputs.qc.parents[2], results)
    source = built("one_sample").inputs
    inputs = type(source).from_results(
        results / "results",
        samples_sheet=source.samples_sheet,
        contrasts_sheet=source.contrasts_sheet,
        samples=source.cells,
        contrasts=source.contrasts,
        atlases=source.atlases,
    )
    for path in (inputs.synthesis, inputs.ledger, inputs.versions):
        path.unlink()
    for name in ("composition.tsv", "design.tsv", "program_scores.tsv"):
        (inputs.contrasts["coculture_vs_alone"] / name).unlink()
    build_report(inputs, load_programs(), tmp_path / "index.html", tmp_path / "figures")
    assert "Nothing is pooled" in (tmp_path / "index.html").read_text()
