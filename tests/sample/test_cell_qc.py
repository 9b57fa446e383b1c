"""Quality metrics against scanpy, limits against arithmetic done by hand, and libraries that limits must not hurt."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse, stats

from immunomod.errors import UserError
from immunomod.sample.qc import Limit, cell_metrics, failed_filter, gene_fractions, limits, mad_limit
from immunomod.sample.settings import SHEET_LIMITS, QcSettings, SampleSettings
from immunomod.sample.summary import FILTERS

SETTINGS = QcSettings()


def metrics_of(total, genes, mito=None, **others) -> pd.DataFrame:
    """Metrics of healthy cells, of which some are given; ``ribo`` and ``hb`` in percent, and ``complexity``."""
    n = len(total)
    rest = {"ribo": np.full(n, 20.0), "hb": np.full(n, 0.0), "complexity": np.full(n, 0.9)} | others
    return pd.DataFrame(
        {
            "total_counts": total,
            "n_genes_by_counts": genes,
            "pct_counts_mt": np.full(n, 2.0) if mito is None else mito,
            "pct_counts_ribo": rest["ribo"],
            "pct_counts_hb": rest["hb"],
            "complexity": rest["complexity"],
        }
    )


def limit_of(found, name):
    return next(limit for limit in found if limit.filter == name)


def test_metrics_agree_with_scanpy(kang_libraries):
    scanpy = pytest.importorskip("scanpy")
    adata = kang_libraries["GSM2560248"][0].copy()
    symbols = adata.var["gene_symbol"].astype(str).copy()
    symbols.iloc[:13] = [f"MT-{i}" for i in range(13)]  # this data set names no mitochondrial gene
    ours = cell_metrics(adata.X, symbols, "human")
    for kind, genes in gene_fractions(symbols, "human").items():
        assert genes.any()
        adata.var[kind] = genes
    scanpy.pp.calculate_qc_metrics(adata, qc_vars=["mt", "ribo", "hb"], percent_top=None, log1p=False, inplace=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        by_hand = np.log10(adata.obs["n_genes_by_counts"]) / np.log10(adata.obs["total_counts"])
    adata.obs["complexity"] = by_hand
    for column in ours:
        np.testing.assert_allclose(ours[column], adata.obs[column], rtol=1e-5, err_msg=column)


def test_a_cell_without_counts_has_no_share():
    counts = sparse.csr_matrix(np.array([[0, 0], [3, 1]], dtype=np.int32))
    metrics = cell_metrics(counts, pd.Series(["MT-CO1", "ACTB"]), "human")
    assert list(metrics["pct_counts_mt"]) == [0.0, 75.0]
    assert metrics["pct_counts_hb"].isna().all()


@pytest.mark.parametrize(
    ("symbol", "organism", "kind"),
    [
        ("MT-CO1", "human", "mt"),
        ("MT.CO1", "human", "mt"),
        ("mt-Co1", "mouse", "mt"),
        ("mt-Co1", "", "mt"),
        ("MT1A", "human", None),
        ("MTOR", "human", None),
        ("Mtor", "mouse", None),
        ("RPL13A", "human", "ribo"),
        ("RPS4X", "human", "ribo"),
        ("RPS4Y1", "human", "ribo"),
        ("RPL36AL", "human", "ribo"),
        ("RPL22L1", "human", "ribo"),
        ("RPS27A", "human", "ribo"),
        ("RPLP0", "human", "ribo"),
        ("RPSA", "human", "ribo"),
        ("Rplp2", "mouse", "ribo"),
        ("RPS6KA1", "human", None),
        ("RPS6KB2", "human", None),
        ("RPLP0P6", "human", None),
        ("HBB", "human", "hb"),
        ("HBA2", "human", "hb"),
        ("HBG1", "human", "hb"),
        ("Hbb-bs", "mouse", "hb"),
        ("HBEGF", "human", None),
        ("HBS1L", "human", None),
        ("HBP1", "human", None),
        ("Hbegf", "mouse", None),
    ],
)
def test_gene_patterns(symbol, organism, kind):
    kinds = [name for name, genes in gene_fractions(pd.Series([symbol]), organism).items() if genes[0]]
    assert kinds == ([kind] if kind else [])


@given(st.lists(st.floats(0, 1e5, allow_nan=False), min_size=1, max_size=60), st.floats(0.5, 8))
def test_mad_is_the_median_absolute_deviation(values, n_mads):
    values = np.array(values)
    spread = stats.median_abs_deviation(values, scale="normal")
    np.testing.assert_allclose(
        mad_limit(values, n_mads, "lower"), np.median(values) - n_mads * spread, rtol=1e-4, atol=0.1
    )
    np.testing.assert_allclose(
        mad_limit(values, n_mads, "upper"), np.median(values) + n_mads * spread, rtol=1e-4, atol=0.1
    )


def test_mad_is_not_the_mean_absolute_deviation():
    values = np.array([1.0, 2.0, 3.0, 4.0, 100.0])
    assert mad_limit(values, 1, "upper") == pytest.approx(3 + 1.4826 * 1)


def test_limits_by_hand():
    rng = np.random.default_rng(0)
    total = np.exp(rng.normal(7.5, 0.35, 2000)).round()
    genes = (total * 0.45).round()
    mito = rng.normal(10, 2, 2000).clip(0)
    found = limits(metrics_of(total, genes, mito), SETTINGS)

    def by_hand(values, sign):
        logged = np.log1p(values)
        median = np.median(logged)
        return np.expm1(median + sign * 5 * 1.4826 * np.median(np.abs(logged - median)))

    lower = limit_of(found, "low_counts")
    assert (lower.value, lower.origin) == (pytest.approx(by_hand(total, -1)), "mad")
    assert 200 < lower.value < 500
    upper = limit_of(found, "high_counts")
    assert by_hand(total, +1) < 100_000
    assert (upper.value, upper.origin) == (100_000, "spared")
    mt = limit_of(found, "high_mt")
    by_spread = np.median(mito) + 5 * 1.4826 * np.median(np.abs(mito - np.median(mito)))
    assert 15 < by_spread < 25
    assert (mt.value, mt.origin) == (pytest.approx(by_spread), "mad")


@pytest.mark.parametrize(
    ("median_log", "sd", "mito", "name", "expected"),
    [
        (6.0, 0.6, 2.0, "low_counts", (200, "min")),
        (10.0, 0.1, 2.0, "low_counts", (500, "enough")),
        (9.5, 0.1, 2.0, "high_counts", (100_000, "spared")),
        (8.0, 0.3, 2.0, "high_mt", (15.0, "spared")),
        (8.0, 0.3, 40.0, "high_mt", (25.0, "max")),
    ],
)
def test_fixed_values_hold_the_limits(median_log, sd, mito, name, expected):
    rng = np.random.default_rng(0)
    total = np.exp(rng.normal(median_log, sd, 1000))
    found = limits(metrics_of(total, total / 2, rng.normal(mito, 0.1, 1000)), SETTINGS)
    limit = limit_of(found, name)
    assert (limit.value, limit.origin) == expected


@pytest.mark.parametrize(
    ("kind", "median", "sd", "expected"),
    [
        ("ribo", 30.0, 1.0, (60.0, "spared")),
        ("ribo", 40.0, 6.0, "mad"),
        ("ribo", 60.0, 12.0, (100.0, "max")),
        ("hb", 0.1, 0.01, (10.0, "spared")),
        ("hb", 20.0, 4.0, "mad"),
        ("hb", 60.0, 15.0, (100.0, "max")),
        ("complexity", 0.9, 0.01, (0.7, "enough")),
        ("complexity", 0.8, 0.04, "mad"),
        ("complexity", 0.6, 0.1, (0.4, "min")),
    ],
)
def test_limits_on_ribosomes_haemoglobin_and_complexity_by_hand(kind, median, sd, expected):
    values = median + sd * stats.norm.ppf((np.arange(999) + 0.5) / 999)  # scaled MAD: sd
    metrics = metrics_of(np.full(999, 5000.0), np.full(999, 2000.0), **{kind: values})
    found = limits(metrics, SETTINGS)
    limit = limit_of(found, "low_complexity" if kind == "complexity" else f"high_{kind}")
    assert limit.side == ("lower" if kind == "complexity" else "upper")
    if expected == "mad":
        sign = -1 if kind == "complexity" else 1
        assert (limit.value, limit.origin) == (pytest.approx(median + sign * 5 * sd, rel=2e-3), "mad")
    else:
        assert (limit.value, limit.origin) == expected
    beyond = values < limit.value if kind == "complexity" else values > limit.value
    assert list(failed_filter(metrics, found) != "") == list(beyond)


def test_limits_stand_in_the_order_in_which_they_are_applied():
    found = limits(metrics_of(np.full(200, 5000.0), np.full(200, 2000.0)), SETTINGS)
    names = [limit.filter for limit in found]
    assert names == [name for name in FILTERS if name in names]
    assert len(names) == len(set(names)) == 8
    assert {filter_name for *_, filter_name in SHEET_LIMITS.values()} == set(names)


def cells_of_every_kind(rng: np.random.Generator, n: int) -> pd.DataFrame:
    return metrics_of(
        np.exp(rng.normal(7, 2, n)).round(),
        np.exp(rng.normal(6, 1.5, n)).round(),
        rng.uniform(0, 40, n),
        ribo=rng.uniform(0, 100, n),
        hb=rng.uniform(0, 30, n) if rng.random() < 0.7 else np.full(n, np.nan),
        complexity=rng.uniform(0.2, 1, n),
    )


@pytest.mark.parametrize("seed", range(25))
def test_the_first_filter_that_a_cell_fails_is_its_reason(seed):
    """Against a loop over cells and limits, with limits of the sheet drawn at random."""
    rng = np.random.default_rng(seed)
    metrics = cells_of_every_kind(rng, int(rng.integers(1, 300)))
    high = {"counts": 3000, "genes": 1000, "mt": 30, "ribo": 80, "hb": 20, "complexity": 0.9}
    own = {name: rng.uniform(0, high[name.split("_")[-1]]) for name in SHEET_LIMITS if rng.random() < 0.4}
    found = limits(metrics, SETTINGS, own)
    expected = []
    for _, cell in metrics.iterrows():
        failed = ""
        for name in FILTERS:
            for limit in found:
                value = cell[limit.metric]
                is_beyond = value < limit.value if limit.side == "lower" else value > limit.value
                if limit.filter == name and is_beyond and not failed:
                    failed = name
        expected.append(failed)
    assert list(failed_filter(metrics, found)) == expected


@pytest.mark.parametrize("n_cells", [5, 500])
@pytest.mark.parametrize("name", SHEET_LIMITS)
def test_a_limit_of_the_sheet_wins_and_leaves_the_others(name, n_cells):
    rng = np.random.default_rng(3)
    metrics = cells_of_every_kind(rng, n_cells)
    metrics["pct_counts_hb"] = np.nan  # none to find a limit from
    plain = limits(metrics, SETTINGS)
    own = limits(metrics, SETTINGS, {name: 0.5})
    metric, side, filter_name = SHEET_LIMITS[name]
    assert limit_of(own, filter_name) == Limit(metric, side, 0.5, "sheet", filter_name)
    assert repr([x for x in own if x.filter != filter_name]) == repr([x for x in plain if x.filter != filter_name])
    assert [limit.filter for limit in own] == [limit.filter for limit in plain]


def test_deep_libraries_have_an_upper_limit_from_their_spread():
    total = np.exp(np.random.default_rng(0).normal(11, 0.4, 1000))
    limit = limit_of(limits(metrics_of(total, total / 10), SETTINGS), "high_counts")
    assert limit.origin == "mad"
    assert limit.value > 100_000


def test_few_cells_have_fixed_limits():
    found = limits(metrics_of(np.full(99, 5000.0), np.full(99, 2000.0), np.full(99, 3.0)), SETTINGS)
    assert {limit.filter: limit.value for limit in found if limit.origin == "fixed"} == {
        "low_counts": 200,
        "low_genes": 100,
        "high_mt": 25.0,
    }
    assert {limit.origin for limit in found} == {"fixed", "none"}


def test_without_mitochondrial_genes_there_is_no_limit():
    found = limits(metrics_of(np.full(200, 5000.0), np.full(200, 2000.0), np.full(200, np.nan)), SETTINGS)
    limit = limit_of(found, "high_mt")
    assert limit.origin == "none"
    assert np.isnan(limit.value)
    assert not limit.fails(np.array([np.nan, 1.0])).any()


@pytest.mark.parametrize("stromal_share", [0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98])
def test_neither_side_of_a_coculture_is_removed(stromal_share):
    """Immune cells of 1,500 UMIs beside stromal cells of 12,000 with twice the mitochondrial share, in any mixture.

    The spread alone would remove a side: with one in ten stromal, three MADs cut most of them.
    """
    rng = np.random.default_rng(1)
    n = 3000
    stromal = rng.random(n) < stromal_share
    total = np.exp(np.where(stromal, rng.normal(np.log(12_000), 0.45, n), rng.normal(np.log(1500), 0.4, n)))
    genes = np.where(stromal, 3500, 600) * np.exp(rng.normal(0, 0.25, n))
    mito = np.where(stromal, rng.gamma(16, 0.5, n), rng.gamma(16, 0.25, n))
    debris = rng.random(n) < 0.02
    total[debris], genes[debris] = rng.uniform(20, 90, debris.sum()), rng.uniform(10, 70, debris.sum())
    dying = ~debris & (rng.random(n) < 0.02)
    mito[dying] = rng.uniform(40, 80, dying.sum())
    metrics = metrics_of(total, genes, mito)
    reason = failed_filter(metrics, limits(metrics, SETTINGS))
    healthy = ~debris & ~dying
    assert (reason[healthy & stromal] != "").mean() < 0.01
    assert (reason[healthy & ~stromal] != "").mean() < 0.01
    assert set(reason[debris]) == {"low_counts"}
    assert set(reason[dying]) <= {"high_mt", "low_counts"}
    assert (reason[dying] == "").sum() == 0


def test_the_coculture_test_can_fail():
    """Plain three-MAD limits, the usual recipe, remove the stromal side of the same library."""
    rng = np.random.default_rng(1)
    total = np.exp(np.r_[rng.normal(np.log(1500), 0.4, 2700), rng.normal(np.log(12_000), 0.45, 300)])
    naive = np.expm1(mad_limit(np.log1p(total), 3, "upper"))
    assert (total[2700:] > naive).mean() > 0.5


def test_a_cell_is_counted_under_the_first_filter_it_fails():
    metrics = metrics_of(np.array([10.0, 5000.0, 5000.0]), np.array([5.0, 50.0, 2000.0]), np.array([90.0, 90.0, 90.0]))
    found = limits(metrics, SETTINGS)
    assert list(failed_filter(metrics, found)) == ["low_counts", "low_genes", "high_mt"]


def test_a_value_on_the_limit_passes():
    metrics = metrics_of(np.array([200.0, 199.0]), np.array([100.0, 100.0]), np.array([25.0, 25.0]))
    assert list(failed_filter(metrics, limits(metrics, SETTINGS))) == ["", "low_counts"]


def test_real_low_depth_data_are_kept(kang_libraries):
    for adata, _ in kang_libraries.values():
        metrics = cell_metrics(adata.X, adata.var["gene_symbol"], "human")
        reason = failed_filter(metrics, limits(metrics, SETTINGS))
        assert (reason == "").mean() > 0.98


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"n_mad": 3}, "qc.n_mad is unknown; the keys are n_mads"),
        ({"n_mads": 0}, "qc.n_mads is 0; it must be above 0"),
        ({"min_genes": "200"}, "qc.min_genes is .200.; it must be a whole number"),
        ({"max_pct_mt": 120}, "qc.max_pct_mt is 120"),
        ({"spared_pct_mt": 30.0}, "qc.spared_pct_mt is 30.0; it must be at most max_pct_mt"),
        ({"enough_counts": 100}, "qc.enough_counts is 100"),
    ],
)
def test_wrong_settings_are_named(section, message):
    with pytest.raises(UserError, match=message):
        SampleSettings.from_config({"qc": section}, 1)


def test_a_strict_setting_moves_what_it_implies():
    settings = QcSettings.from_config({"max_pct_mt": 8, "min_genes": 400})
    assert (settings.spared_pct_mt, settings.enough_genes) == (8, 400)


def test_order_of_cells_does_not_matter(kang_libraries):
    adata: AnnData = kang_libraries["GSM2560249"][0]
    order = np.random.default_rng(0).permutation(adata.n_obs)
    one = cell_metrics(adata.X, adata.var["gene_symbol"], "human")
    other = cell_metrics(adata.X[order], adata.var["gene_symbol"], "human")
    assert limits(one, SETTINGS)[:4] == limits(other, SETTINGS)[:4]
