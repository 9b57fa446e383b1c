"""Every number of the page stands in a table of the run, and a number that does not is found out."""

import re

import pandas as pd
import pytest

from immunomod.programs import load_programs
from immunomod.report.palette import class_label
from immunomod.report.words import signed
from support.page_numbers import PageNumbers

pytestmark = pytest.mark.slow


def numbers_of(study) -> PageNumbers:
    return PageNumbers(study.html, study.inputs.qc.parents[1], study.inputs.samples_sheet)


@pytest.mark.parametrize("name", ["coculture", "pbmc", "untested", "one_sample", "old"])
def test_every_row_of_the_page_stands_in_a_table_of_its_section(built, name):
    n_explained, unexplained = numbers_of(built(name)).check()
    assert unexplained == []
    assert n_explained > {"coculture": 400, "pbmc": 200}.get(name, 10)


def test_a_wrong_number_is_found_out(built):
    """Every estimate of the page moved by three: hardly a row that holds one stands in a table any more."""
    right = numbers_of(built("coculture"))
    body, files = right.html.split('<section id="run"')
    wrong = re.sub(r"(?<=[+−])(\d+)(\.\d\d)\b", lambda found: f"{int(found[1]) + 3}{found[2]}", body)
    found = list(PageNumbers(f'{wrong}<section id="run"{files}', right.results, right.samples_sheet).rows())
    estimates = [row for row in found if row[0] in {"effects", "communication", "disease", "witness", "genes"}]
    moved = [row for row in estimates if re.search(r"[+-]\d+\.\d\d\b", row[1])]
    assert len(moved) > 300
    assert sum(row[2] for row in moved) <= 0.02 * len(moved)


def test_the_heat_map_shows_the_changes_of_its_table(built):
    report = numbers_of(built("coculture"))
    program_of = {title: name for name, title in load_programs().table["title"].items()}
    changes = report.frame("report/tables/donors-coculture_vs_alone.tsv").set_index(["cell_class", "program", "donor"])
    labels = {class_label(name): name for name in changes.index.unique("cell_class")}
    cells = list(report.heat_maps())
    assert len(cells) > 100
    for _, heading, title, donor, shown in cells:
        change = float(changes.loc[(labels[heading], program_of[title], donor), "change"])
        assert shown == signed(change, 1).replace("\N{MINUS SIGN}", "-")


def test_the_map_counts_the_cells_of_its_table(built):
    report = numbers_of(built("coculture"))
    cells = report.frame("report/tables/cells-demo.tsv").assign(n_cells=lambda t: t["n_cells"].astype(int))
    levels = dict(report.map_levels())
    assert levels["sample"] == cells.groupby("sample")["n_cells"].sum().to_dict()
    by_class = cells.groupby("cell_class")["n_cells"].sum()
    assert levels["cell_class"] == {class_label(str(name)): n for name, n in by_class.items()}
    assert pd.to_numeric(cells["share"]).groupby([cells["sample"], cells["compartment"]]).sum().round(6).eq(1).all()
