"""The samples on the page and in their figures: what is said of them is what the tables hold."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from report_helpers import Page

from immunomod.programs import load_programs
from immunomod.report import quality
from immunomod.report.build import build_report
from immunomod.report.draw import Axis, fraction_bar
from immunomod.report.figures import report_style, save_figure
from immunomod.report.inputs import ReportTables, records
from immunomod.report.methods import methods_text
from immunomod.report.sample_figure import sample_figure
from immunomod.sample.qc import SHEET_LIMITS
from immunomod.sample.summary import FILTERS
from support.report_inputs import LEAKING, UNFILTERED, Study, ambient_table, make_results

ROW = {
    "sample": "s", "cells_before": 1130, "cells_empty_droplet": 1000, "cells_doublet": 5, "cells_low_counts": 20,
    "cells_high_mt": 0, "cells_after": 105, "cells_called": 130, "verdict": "pass", "reason": "",
}  # fmt: skip


def tables_of(tables: ReportTables, **changes) -> ReportTables:
    return replace(tables, **changes)


def page_quality(tables: ReportTables, **changes) -> quality.Quality:
    return quality.quality(tables_of(tables, **changes))


def test_steps_stand_in_the_order_of_the_run_and_add_up():
    steps = quality.steps_of(ROW)
    assert [(step.name, step.n, step.of_sample) for step in steps] == [
        ("empty_droplet", 1000, False), ("low_counts", 20, True), ("doublet", 5, True),
    ]  # fmt: skip
    assert ROW["cells_before"] - sum(step.n for step in steps) == ROW["cells_after"]


def test_every_step_and_every_limit_of_the_run_has_words():
    assert set(FILTERS) == set(quality.STEP_WORDS)
    assert {metric for metric, *_ in SHEET_LIMITS.values()} <= {metric.name for metric in quality.METRICS}
    unknown = quality.steps_of({"cells_some_new_step": 3})
    assert [step.words for step in unknown] == ["some new step"]


@pytest.mark.parametrize(
    ("row", "metric", "words"),
    [
        ({"pct_counts_hb_upper": 10.0, "pct_counts_hb_upper_from": "sheet"}, "pct_counts_hb", ["≤ 10 (your sheet)"]),
        ({"complexity_lower": 0.7, "complexity_lower_from": "enough"}, "complexity", ["≥ 0.7 (held down)"]),
        ({"doublet_threshold": 0.25, "doublet_method": "scrublet"}, "doublet_score", ["≤ 0.25 (scrublet)"]),
        ({"total_counts_lower": 1234.5, "total_counts_upper": np.nan}, "total_counts", ["≥ 1,234"]),
        ({"doublet_threshold": np.nan}, "doublet_score", []),
    ],
)
def test_limits_are_told_with_their_origin(row, metric, words):
    (chosen,) = (one for one in quality.METRICS if one.name == metric)
    assert [limit.words for limit in quality.limits_of(row, chosen)] == words


def test_droplets_without_a_cell_of_the_sample_are_not_drawn():
    cells = pd.DataFrame({"total_counts": [5.0, 900.0, 30.0], "reason": ["empty_droplet", None, "low_counts"]})
    assert list(quality.of_sample(cells)["total_counts"]) == [900.0, 30.0]
    assert len(quality.of_sample(cells.drop(columns="reason"))) == 3


def test_a_failed_sample_is_left_out_unless_the_config_keeps_it(tables):
    left_out = page_quality(tables)
    assert left_out.failed == ["D2_coculture: only 8 cells pass (qc.min_cells); fewer than 100 cells: fixed limits"]
    assert [s.fate for s in left_out.samples if s.verdict == "fail"] == ["left out of every contrast"]
    assert {s.fate for s in left_out.samples if s.verdict != "fail"} == {""}
    kept = page_quality(tables, config={"qc": {"keep_failed": True}})
    assert "keep_failed" in kept.fate and "left out" not in kept.fate
    assert left_out.summary == "12 samples: 10 pass, 1 passes with a warning and 1 failed."


def test_share_kept_is_of_the_cells_not_of_the_empty_droplets(tables):
    sample = page_quality(tables).samples[UNFILTERED]
    row = tables.qc.iloc[UNFILTERED]
    assert sample.kept == f"{row['cells_after']:,} of 225"
    assert sample.kept_percent == f"{100 * row['cells_after'] / 225:.0f}% kept"
    assert sample.steps[:2] == ["3,225 droplets", "− 3,000 empty droplets"]


def test_leakage_gives_every_kind_of_cell_its_shares_and_errors(tables):
    found = page_quality(tables).leakage
    assert found.kinds == ["All cells", "MSC", "T and NK", "B", "Myeloid"]
    cells = dict(found.rows)["D1_coculture"]
    expected = ambient_table("D1_coculture", "coculture", 225)
    assert [cell.ambient for cell in cells[1:]] == [
        f"{100 * share:.1f}% ± 0.5" for share in expected["ambient_fraction"]
    ]
    assert {cell.partner for cell in cells} == {"3.0% ± 0.4"}
    alone = dict(found.rows)["D1_msc_alone"]
    assert alone[1].partner == "" and alone[2:] == [None, None, None]


def test_bars_of_fractions_are_to_scale():
    axis = Axis(0, 0.2, margin=0)
    widths = [float(w) for w in re.findall(r'width="([\d.]+)%" y=', fraction_bar(axis, (0.1, 0.01), (0.05, np.nan)))]
    assert widths == [50.0, 25.0]
    assert "rect" not in fraction_bar(axis, (np.nan, np.nan), (np.nan, np.nan))


def test_facts_name_only_what_is_known(tables):
    header, rows = page_quality(tables).facts
    assert header == ["Sample", "Cells called", "Hashtags", "Cycling cells"]
    assert rows[UNFILTERED][1:] == ["225 of 3,225 by emptydrops; knee at 1,900 molecules", "–", "12.0%"]
    assert rows[3][2] == "95.0% one tag of 4, 3.0% two, 2.0% none (mixture)"
    mixed = tables.qc.assign(species_doublet_rate=0.02, species_implied_doublet_rate=0.05, other_species_leakage=0.011)
    header, rows = page_quality(tables, qc=mixed).facts
    assert "2.0% of droplets hold both species, which implies 5.0% doublets" in rows[0][header.index("Species")]


def test_results_of_an_older_run_are_shown_as_far_as_they_go(tmp_path):
    inputs = make_results(tmp_path, Study(n_genes=20, cells_per_sample=30, donors=("D1", "D2")))
    for path in (*inputs.ambient.values(), *inputs.ranks.values()):
        path.unlink()
    old = ["sample", "dataset", "cells_before", "cells_low_counts", "cells_after", "verdict", "reason"]
    qc = pd.read_csv(inputs.qc, sep="\t")
    qc[old].to_csv(inputs.qc, sep="\t", index=False)
    for path in inputs.cells.values():
        cells = pd.read_csv(path, sep="\t")
        cells[["barcode", "total_counts", "kept"]].to_csv(path, sep="\t", index=False)
    build_report(inputs, load_programs(), tmp_path / "index.html", tmp_path / "figures")
    html = (tmp_path / "index.html").read_text()
    assert "Not estimated in any sample" in html and "What else is known" not in html
    assert (tmp_path / "figures" / "sample_D1_coculture.svg").exists()


def test_methods_name_the_steps_that_the_run_took_and_no_others(tables):
    said = {paragraph.step: paragraph for paragraph in methods_text(tables)}
    assert "of 3,225 droplets 225 were called cells" in said["Cell calling"].text
    assert said["Cell calling"].sources == ("empty_drops",)
    assert "1 pooled library" in said["Hashtags"].text and said["Hashtags"].sources == ("mixture",)
    assert "Species" not in said
    ambient = tables.qc["ambient_fraction"]
    assert (
        f"{100 * ambient.median():.1f}% in the median of {ambient.notna().sum()} libraries" in said["Ambient RNA"].text
    )
    assert "soupx" in said["Ambient RNA"].sources and said["Doublets"].sources == ("scrublet", "both_exceed")
    assert f"{tables.qc['cells_doublet'].sum():,} doublets and 0 MSC-immune doublets" in said["Doublets"].text
    effects = pd.concat([contrast.effects for contrast in tables.contrasts])
    n_moved = int((effects["program"].eq(LEAKING) & effects["status"].eq("tested")).sum())
    assert f"It moved {n_moved} of" in said["Leaked RNA in the comparisons"].text and n_moved > 0
    filtered = tables.qc.drop(columns=["calling_method", "hashtag_method"]).assign(species_doublet_rate=0.02)
    said = {paragraph.step for paragraph in methods_text(tables_of(tables, qc=filtered))}
    assert "Species" in said and not {"Cell calling", "Hashtags"} & said
    none = tables_of(tables, qc=filtered, config={"doublets": {"method": "none"}, "ambient": {"method": "none"}})
    assert "Ambient RNA" not in {paragraph.step for paragraph in methods_text(none)}


def test_methods_name_the_witnesses_that_were_heard(tables):
    def atlas(annotation):
        paragraphs = methods_text(tables_of(tables, config={"annotation": annotation}))
        return next(paragraph for paragraph in paragraphs if paragraph.step == "Atlas")

    assert "one vote each" not in atlas({}).text and "celltypist" not in atlas({}).sources
    heard = atlas({"celltypist": {"immune": "m.pkl"}, "references": {"blood": {"file": "b.h5ad", "column": "c"}}})
    assert "for the CellTypist models immune and the annotated references blood." in heard.text
    assert {"celltypist", "singler"} <= set(heard.sources)


def figure_of(tables: ReportTables, number: int, **changes):
    row = records(tables.qc)[number] | changes
    sample = row["sample"]
    with report_style():
        return sample_figure(row, tables.cells[sample], tables.ambient[sample], tables.ranks[sample])


def texts(figure) -> list[str]:
    own = [text.get_text() for text in figure.texts]
    return own + [text.get_text() for axes in figure.axes for text in axes.texts]


def test_figure_draws_every_limit_in_view_and_every_kept_cell(tables):
    figure = figure_of(tables, 2)
    cells = tables.cells["D1_coculture"]
    n_limits = 0
    for metric, axes in zip(quality.METRICS, figure.axes, strict=False):
        lines = [line.get_xdata()[0] for line in axes.lines]
        limits = quality.limits_of(records(tables.qc)[2], metric)
        n_limits += len(limits)
        assert lines == pytest.approx([np.log10(one.value) if metric.log else one.value for one in limits])
        low, high = axes.get_xlim()
        assert all(low <= line <= high for line in lines)
        everyone, kept = (patch.get_data().values.sum() for patch in axes.patches)
        assert (everyone, kept) == (len(cells), int(cells["kept"].sum()))
    assert n_limits == 7
    assert texts(figure)[0] == "D1_coculture: passes with a warning"


def test_waterfall_and_ranks_show_what_the_tables_hold(tables):
    figure = figure_of(tables, UNFILTERED)
    ranks, steps, leaked = figure.axes[-3:]
    assert ranks.get_xscale() == "log" and "knee" in [text.get_text() for text in ranks.texts]
    row = records(tables.qc)[UNFILTERED]
    widths = [bar.get_width() for bar in steps.patches]
    assert widths[0] == 225 and widths[-1] == row["cells_after"] and sum(widths[1:]) == 225
    ends = [bar.get_x() for bar in steps.patches[1:-1]]
    assert ends == sorted(ends, reverse=True) and ends[-1] == row["cells_after"]
    assert "3,000 empty droplets" in steps.get_xlabel()
    assert leaked.patches[0].get_width() == pytest.approx(4.0)


def test_a_failed_sample_says_so_in_its_title(tables):
    assert texts(figure_of(tables, 5))[0] == "D2_coculture: failed, left out of every contrast"
    with report_style():
        figure = sample_figure({"sample": "x" * 300, "verdict": "fail"}, *[pd.DataFrame()] * 3)
    assert texts(figure)[0] == f"{'x' * 44}…: failed, left out of every contrast"


@pytest.mark.parametrize("n_cells", [0, 1, 8])
def test_figure_of_next_to_nothing(tables, tmp_path, n_cells):
    row = {"sample": "$x^{", "cells_before": n_cells, "cells_after": 0, "verdict": "fail", "reason": "no cell $passes"}
    cells = tables.cells["D1_coculture"].head(n_cells).assign(kept=False)
    nothing = pd.DataFrame()
    with report_style():
        figure = sample_figure(row, cells, nothing, nothing)
        written = save_figure(figure, tmp_path / "sample", margins=None)
    assert all(path.stat().st_size > 1000 for path in written)
    assert texts(figure)[:2] == [r"\$x^{: failed, left out of every contrast", r"no cell \$passes"]


def test_nothing_of_a_figure_is_cut_off(tables):
    ranks = tables.ranks | {"D1_coculture": tables.ranks[tables.qc["sample"].iloc[UNFILTERED]]}
    tables = tables_of(tables, ranks=ranks)
    worst = {
        "reason": "; ".join(["some long reason that goes on and on"] * 12), "ambient_fraction": 0.371,
        "partner_fraction": 0.168, "doublet_threshold": 0.00789, "cells_partner_doublet": 1234,
        "total_counts_upper": 100_000.0, "total_counts_upper_from": "enough", "calling_method": "emptydrops",
        "knee": 12_345.0, "cells_empty_droplet": 1_000_000, "cells_before": 1_000_225,
    }  # fmt: skip
    for number in (UNFILTERED, 2, 5):
        figure = figure_of(tables, number, **worst)
        width, height = figure.get_size_inches()
        box = figure.get_tightbbox(figure.canvas.get_renderer())
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


@pytest.mark.slow
def test_the_page_holds_what_leaked_and_a_figure_of_every_sample(built):
    study = built("coculture")
    page = Page.parse(study.html)
    assert "Failed, left out of every contrast" in page.text
    assert "Effects are estimated after the expected leaked counts are taken out" in page.text
    assert len(page.downloads()["ambient.tsv"]) == sum(
        len(pd.read_csv(p, sep="\t")) for p in study.inputs.ambient.values()
    )
    names = {path.name for path in study.figures.iterdir()}
    assert {f"sample_{name}.{kind}" for name in study.inputs.cells for kind in ("png", "svg")} <= names
    assert "uncorrected +" in page.text
