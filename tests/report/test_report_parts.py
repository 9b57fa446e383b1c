"""Parts of the report against small tables whose answer is known."""

import base64
import gzip
import math

import numpy as np
import pandas as pd
import pytest

from immunomod.programs import load_programs
from immunomod.report import draw, palette, quality, views, words
from immunomod.report.answer import answer, control_verdict, is_coculture, with_fitting_expectations
from immunomod.report.downloads import Downloads, as_tsv, neutralise
from immunomod.report.inputs import Contrast, as_bool, load_tables
from support.report_inputs import Study, make_results

SHEET = {
    "contrast": "c", "dataset": "d", "variable": "condition", "test": "co", "reference": "alone", "pair_by": "donor",
}  # fmt: skip
SAMPLES = pd.DataFrame({"dataset": ["d", "d"], "condition": ["co", "alone"], "culture": ["coculture", "msc"]})


def effects(**columns) -> pd.DataFrame:
    base = {
        "dataset": "d", "cell_class": "MSC", "program": "p", "title": "Title", "role": "readout", "status": "tested",
        "reason": "", "effect": 1.0, "ci_low": 0.5, "ci_high": 1.5, "fdr": 0.01, "p_sign_flip": 0.125, "n_pairs": 4.0,
        "n_test": 4.0, "n_reference": 4.0, "cells_test": 90.0, "expected_sign": "+", "positive_control": True,
        "caveat": "",
    }  # fmt: skip
    n_rows = max(len(value) for value in columns.values()) if columns else 1
    return pd.DataFrame({name: columns.get(name, [value] * n_rows) for name, value in base.items()})


def contrast(table: pd.DataFrame, **parts) -> Contrast:
    empty = pd.DataFrame()
    parts = {"sheet": SHEET, "scores": empty, "composition": empty, "design": empty, "genes": {}} | parts
    return Contrast(name="c", effects=table, **parts)


def sentences(table: pd.DataFrame) -> dict[str, str]:
    return {s.lead: " ".join([s.text, *s.effects]) for s in answer(contrast(table), SAMPLES).sentences}


def test_answer_names_effect_interval_and_donors():
    told = sentences(effects(effect=[2.0, 0.1], fdr=[0.01, 0.9], title=["Licensing", "Other"]))
    assert "1 of 2 programmes moved" in told["MSC"] or "1 of 2 programme moved" in told["MSC"]
    assert "Licensing: +2.00 log2, about 4.0-fold up (95% interval +0.50 to +1.50; 4 donor pairs)." in told["MSC"]
    assert "Other" not in told["MSC"]


def test_answer_says_cannot_tell_when_nothing_reaches_the_threshold():
    told = sentences(effects(fdr=[0.2, 0.9], ci_low=[-1.0, -1.0], ci_high=[2.0, 2.0]))
    assert told["MSC"].startswith("Cannot tell. None of 2 tests")
    assert "±1.5" in told["MSC"]


def test_answer_says_cannot_tell_when_nothing_was_tested():
    told = sentences(effects(status=["unreplicated", "absent"], effect=[np.nan, np.nan]))
    assert told == {"Cannot tell": "None of 2 rows could be tested: too few replicates (1 rows)."}


@pytest.mark.parametrize(
    ("n_pairs", "p_sign_flip", "unanimous", "leans"),
    [(4.0, 0.125, 1, True), (4.0, 0.25, 0, True), (8.0, 0.0078125, 1, False)],
)
def test_answer_counts_the_changes_on_which_every_donor_agrees(n_pairs, p_sign_flip, unanimous, leans):
    told = sentences(effects(n_pairs=[n_pairs], p_sign_flip=[p_sign_flip]))["How sure"]
    assert f"In {unanimous} of the 1 change" in told
    assert ("lean on the model" in told) == leans


def test_answer_warns_of_confounders_and_leakage_but_never_counts_them_as_findings():
    table = effects(program=["p", "qc_immune_in_msc"], role=["readout", "QC"], title=["P", "Contamination"])
    told = sentences(table)
    assert "Contamination in MSC" in told["Read with care"] and "Partner RNA" in told["Read with care"]
    assert "1 of 1" in told["MSC"]


@pytest.mark.parametrize(
    ("values", "level"),
    [
        ([1.0] * 5, "good"),
        ([1.0, 1.0, 1.0, -1.0, -1.0], "mixed"),
        ([1.0, -1.0, -1.0, -1.0, -1.0], "poor"),
    ],
)
def test_verdict_follows_the_share_of_expected_signs(values, level):
    table = effects(effect=values, ci_low=[v - 0.5 for v in values], ci_high=[v + 0.5 for v in values])
    assert control_verdict(contrast(table), table, SAMPLES).level == level


def test_absent_licensing_condemns_a_contrast_whose_other_signs_hold():
    table = effects(program=["msc_ifng_core", *"abcdefghi"], ci_low=[-0.5] + [0.5] * 9)
    verdict = control_verdict(contrast(table), table, SAMPLES)
    assert verdict.level == "poor" and "resting immune cells" in verdict.text


def test_expected_signs_are_dropped_where_the_test_arm_is_no_coculture():
    samples = SAMPLES.assign(culture="immune")
    assert not is_coculture(contrast(effects()), samples)
    assert with_fitting_expectations(contrast(effects()), samples).effects["positive_control"].sum() == 0
    assert with_fitting_expectations(contrast(effects()), SAMPLES).effects["positive_control"].sum() == 1


def test_a_coculture_without_replicates_is_a_coculture_still():
    unsaid = SAMPLES.drop(columns="culture")
    assert is_coculture(contrast(effects(status=["unreplicated"])), unsaid)
    assert not is_coculture(contrast(effects(status=["absent"], cells_test=[0.0])), unsaid)


def test_an_effect_names_its_data_set_where_there_are_several():
    told = sentences(effects(dataset=["GSE1", "GSE2"], title=["Licensing", "Licensing"]))
    assert "Licensing (GSE1): +1.00" in told["MSC"] and "Licensing (GSE2): +1.00" in told["MSC"]


def test_donor_changes_equal_brute_force():
    rng = np.random.default_rng(3)
    scores = pd.DataFrame(
        [
            ("d", "T", "p", f"{donor}_{arm}", donor, arm, rng.normal())
            for donor, arms in {"A": ("test", "reference"), "B": ("test", "test", "reference"), "C": ("test",)}.items()
            for arm in arms
        ],
        columns=["dataset", "cell_class", "program", "sample", "donor", "arm", "score"],
    )
    found = views.donor_changes(scores).set_index("column")["change"]

    def mean(donor, arm):
        return np.mean(
            [s for d, a, s in zip(scores.donor, scores.arm, scores.score, strict=True) if (d, a) == (donor, arm)]
        )

    references = scores.loc[scores.arm == "reference", "score"].mean()
    expected = {d: mean(d, "test") - mean(d, "reference") for d in "AB"} | {"C": mean("C", "test") - references}
    assert found.to_dict() == pytest.approx(expected)


def test_donor_changes_of_a_trend_are_held_against_the_mean():
    scores = pd.DataFrame(
        {"dataset": "d", "cell_class": "T", "program": "p", "sample": ["s1", "s2"], "donor": "A", "arm": ["1", "2"],
         "score": [1.0, 3.0]}
    )  # fmt: skip
    assert views.donor_changes(scores).set_index("column")["change"].to_dict() == {"s1": -1.0, "s2": 1.0}


def test_forest_sorts_readouts_by_effect_before_exploratory_ones():
    table = effects(effect=[0.1, 2.0, 3.0], role=["readout", "readout", "exploratory"], title=["a", "b", "c"])
    (panel,) = views.forest_panels(contrast(table))
    assert [row.title for row in panel.rows] == ["b", "a", "c"]


def test_forest_marks_controls_significance_and_expected_side():
    against = {"fdr": [0.01], "expected_sign": ["-"], "effect": [1.0]}
    (panel,) = views.forest_panels(contrast(effects(**against, ci_low=[0.5], ci_high=[1.5])))
    (row,) = panel.rows
    assert row.agrees == "no" and row.expected == "down"
    (panel,) = views.forest_panels(contrast(effects(**against, ci_low=[-0.5], ci_high=[2.5])))
    assert panel.rows[0].agrees == ""
    assert "M0-7 7 0 0 7-7 0z" in row.drawing and f'fill="{palette.UP}"' in row.drawing
    (panel,) = views.forest_panels(contrast(effects(fdr=[0.5], positive_control=[False])))
    assert "circle" in panel.rows[0].drawing and 'fill="#fff"' in panel.rows[0].drawing


def test_forest_shows_the_uncorrected_effect_where_leakage_moved_it():
    moved = effects(effect=[1.0, 1.0], title=["moved", "hardly"]).assign(effect_raw=[1.5, 1.05])
    (panel,) = views.forest_panels(contrast(moved))
    by_title = {row.title: row for row in panel.rows}
    assert by_title["moved"].uncorrected == "+1.50" and by_title["moved"].drawing.count('width="6"') == 1
    assert by_title["hardly"].uncorrected == "" and 'width="6"' not in by_title["hardly"].drawing
    far = effects().assign(effect_raw=40.0)
    assert views.forest_panels(contrast(far))[0].rows[0].uncorrected == "+40.00"
    assert "40" in views.forest_panels(contrast(far))[0].axis


def test_interval_beyond_the_axis_becomes_an_arrow():
    axis = draw.Axis(-1, 1)
    inside = draw.forest_row(axis, 0.5, 0.2, 0.8, significant=True, control=False, expected_sign="?")
    beyond = draw.forest_row(axis, 0.5, 0.2, 9.0, significant=True, control=False, expected_sign="?")
    assert "path" not in inside and "path" in beyond


def test_axis_places_its_ends_inside_the_margins_and_ticks_are_round():
    axis = draw.Axis(-1.3, 4.1, margin=3)
    assert (axis.percent(-1.3), axis.percent(4.1), axis.percent(99)) == (3, 97, 97)
    assert axis.ticks() == [-1, 0, 1, 2, 3, 4]


def test_effect_axis_holds_zero_and_every_effect_even_without_values():
    axis = draw.effect_axis(np.array([1.0, 5.0, np.nan]), np.array([0.0, 4.0]), np.array([2.0, 6.0]))
    assert axis.low < 0 < 6 < axis.high
    far = draw.effect_axis(np.array([1.0]), np.array([-50.0]), np.array([52.0]))
    assert far.low > -3 and far.high < 4
    assert math.isfinite(draw.effect_axis(np.array([]), np.array([]), np.array([])).high)


def test_histogram_draws_kept_cells_within_all_cells_and_limits_inside_the_axis():
    values = np.array([1.0, 1.1, 5.0, np.nan])
    drawing = draw.histogram(values, np.array([True, True, False, True]), draw.Axis(0, 6), [2.0, 99.0])
    assert drawing.count('class="limit"') == 1
    assert palette.KEPT in drawing and palette.REMOVED in drawing


def test_volcano_draws_called_genes_in_colour_and_nothing_from_nothing():
    change, p_value = np.array([3.0, -3.0, 0.1, np.nan]), np.array([1e-9, 1e-9, 0.5, 0.1])
    drawing = draw.volcano(change, p_value, np.array([0.01, 0.01, 0.9, np.nan]))
    assert palette.UP in drawing and palette.DOWN in drawing
    assert drawing.count("h0") == 3
    assert draw.volcano(np.full(3, np.nan), np.full(3, np.nan), np.full(3, np.nan)) == ""


def test_limits_are_found_with_their_source():
    row = {"total_counts_lower": 500.0, "total_counts_lower_from": "mad", "total_counts_upper": np.nan}
    counts, genes = quality.METRICS[:2]
    assert quality.limits_of(row, counts) == [quality.Limit("lower", 500.0, "mad")]
    old = {"min_genes": 200, "pct_mt_max": "20"}
    assert quality.limits_of(old, genes) == [quality.Limit("lower", 200.0, "")]


def test_composition_bars_sum_to_the_whole():
    cells = pd.DataFrame(
        {"sample": ["s"] * 4, "condition": "c", "cell_class": ["NK", "NK", "B", "MSC"],
         "compartment": ["immune"] * 3 + ["MSC"]}
    )  # fmt: skip
    (part,) = views.composition_bars(cells)
    assert part.compartment == "immune"
    assert [round(share) for _, _, share in part.bars[0].segments] == [67, 33]
    assert part.bars[0].n_cells == "3"


@pytest.mark.parametrize("samples", [["ctrl", "stim1", "007", "x²"], ["D10_a", "ctrl", "D2_a", "²"]])
def test_samples_of_any_name_are_drawn_in_natural_order(samples):
    cells = pd.DataFrame({"sample": samples * 2, "cell_class": ["NK"] * 4 + ["B"] * 4, "compartment": "immune"})
    (part,) = views.composition_bars(cells)
    order = {"007": 0, "D2_a": 1, "D10_a": 2, "ctrl": 3, "stim1": 4, "x²": 5, "²": 6}
    assert [bar.sample for bar in part.bars] == sorted(samples, key=order.__getitem__)


def test_a_sheet_that_a_spreadsheet_saved_is_read_as_the_run_reads_it(tmp_path):
    source = make_results(tmp_path, Study(n_genes=20, cells_per_sample=20, donors=("D1", "D2")))
    plain = load_tables(source, load_programs())
    for path in (source.samples_sheet, source.contrasts_sheet):
        saved = "\r\n".join(f"{line}\t " for line in path.read_text().splitlines())
        path.write_bytes(f"\ufeff# what the columns are\r\n{saved}\r\n# note\r\n".encode())
    again = load_tables(source, load_programs())
    pd.testing.assert_frame_equal(again.samples[plain.samples.columns], plain.samples)
    assert [contrast.sheet["test"] for contrast in again.contrasts] == [c.sheet["test"] for c in plain.contrasts]


@pytest.mark.parametrize(
    ("value", "safe"),
    [
        ("=cmd()", "'=cmd()"), ("+A1", "'+A1"), ("-A1", "'-A1"), ("@SUM(1)", "'@SUM(1)"), ("\t=1", "'\t=1"),
        ("-1.5e-3", "-1.5e-3"), ("+2", "+2"), ("+", "+"), ("-", "-"), ("IDO1", "IDO1"), ("-1\n=1", "'-1\n=1"),
        (None, None),
    ],
)  # fmt: skip
def test_a_formula_is_neutralised_and_a_number_is_kept(value, safe):
    assert neutralise(value) == safe


def test_tsv_keeps_numbers_and_neutralises_headers():
    text = as_tsv(pd.DataFrame({"=x": ["=1+1", "a"], "n": [-0.5, np.nan], "k": pd.Categorical(["@b", "c"])}))
    assert text == "'=x\tn\tk\n'=1+1\t-0.5\t'@b\na\t\tc\n"


def test_a_download_beyond_the_budget_is_cut_and_says_where_the_rest_is():
    table = pd.DataFrame({"x": np.random.default_rng(1).random(5000)})
    size = Downloads()
    size.embed(table, "a", "here.tsv")
    downloads = Downloads(budget=int(1.5 * size.spent))
    first, second = downloads.embed(table, "a", "here.tsv"), downloads.embed(table, "b", "there.tsv")
    assert first.note == "5,000 rows"
    assert "first 300 of 5,000 rows" in second.note and "there.tsv" in second.note
    lines = base64.b64decode(second.href.partition("base64,")[2])
    assert len((gzip.decompress(lines) if second.file_name.endswith("gz") else lines).splitlines()) == 301


def test_levels_have_distinct_colours_however_many():
    for n_levels in (3, 14, 15, 60):
        colours = palette.level_colours([f"s{index}" for index in range(n_levels)])
        assert len(set(colours.values())) == n_levels


def test_a_class_keeps_its_colour_whatever_stands_beside_it():
    assert palette.class_colours(["NK", "B"])["NK"] == palette.class_colours(["NK", "mine", "MSC"])["NK"]
    assert palette.class_order(["unassigned", "mine", "NK", "MSC"]) == ["MSC", "NK", "mine", "unassigned"]


def test_diverging_scale_is_neutral_at_zero_and_saturates():
    assert palette.diverging(0.0, 2.0) == "#f7f7f7"
    assert palette.diverging(9.0, 2.0) == palette.diverging(2.0, 2.0) != palette.diverging(-2.0, 2.0)
    assert palette.ink_on("#ffffff") == "#000000" and palette.ink_on("#053061") == "#ffffff"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (words.signed(-0.004), "0.00"), (words.signed(1.234), "+1.23"), (words.signed(math.nan), "–"),
        (words.probability(0.00002), "<0.001"), (words.probability(0.0314), "0.031"),
        (words.fold(-1), "about 2.0-fold down"),
        (words.fold(11), "more than 1,000-fold up"), (words.listing(["a", "b", "c"]), "a, b and c"),
        (words.plural(1, "class", "classes"), "1 class"), (words.in_class("DC"), "dendritic cells"),
        (words.in_class("NK"), "NK cells"), (words.in_class("CD4_T"), "CD4 T cells"), (words.in_class("B"), "B cells"),
    ],
)  # fmt: skip
def test_words(text, expected):
    assert text == expected


def test_slugs_are_safe_and_distinct():
    assert words.slug("coculture_vs_alone") == "coculture_vs_alone"
    names = ["a/b", "a b", "../x", "<b>", '"', "'"]
    slugs = [words.slug(name) for name in names]
    assert len(set(slugs)) == len(names)
    assert not any(set(slug) & set("/<>\"' ") or slug.startswith(".") for slug in slugs)


def test_truth_of_a_column():
    assert list(as_bool(pd.Series([True, "False", "true", np.nan, 1.0]))) == [True, False, True, False, True]
