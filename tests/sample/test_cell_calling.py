"""Cells among empty droplets: planted cells are found, DropletUtils agrees, and filtered matrices are left alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from immunomod.errors import UserError
from immunomod.sample.cell_calling import (
    REGISTRY,
    CellCalls,
    call_cells,
    holds_empty_droplets,
    rank_points,
    retained_from,
)
from immunomod.sample.settings import CallingSettings
from immunomod.simulate.profiles import load_profiles

IMMUNE = ("CD4_T", "NK", "B", "CD14_monocyte", "DC")


def droplets(rng: np.random.Generator, shares: np.ndarray, totals: np.ndarray) -> sparse.csr_matrix:
    """Multinomial counts of one profile: one row per total."""
    gene = np.searchsorted(np.cumsum(shares) / shares.sum(), rng.random(totals.sum()))
    row = np.repeat(np.arange(len(totals)), totals)
    ones = np.ones(len(gene), dtype=np.int32)
    return sparse.coo_matrix((ones, (row, gene)), shape=(len(totals), len(shares))).tocsr()


def coculture(
    seed: int, classes: tuple[str, ...] = (*IMMUNE, "MSC"), n_cells: int = 600, n_small: int = 60, n_empty: int = 2500
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """An unfiltered library and each droplet's kind: ``empty``, ``debris``, ``cell`` or ``small``.

    Empty droplets hold 1 to 100 counts, debris 101 to 500 of the same ambient profile, which is that of all cells; MSC
    hold ten times an immune cell's RNA. Small cells (300 to 600 counts) are immune cells.
    """
    rng = np.random.default_rng(seed)
    profiles = load_profiles()
    per_class = {name: n_cells // len(classes) for name in classes}
    sizes = {name: 10.0 if name == "MSC" and len(classes) > 1 else 1.0 for name in classes}
    totals = {name: (sizes[name] * rng.lognormal(7.6, 0.4, n)).astype(int) for name, n in per_class.items()}
    ambient = sum(float(sizes[name]) * profiles.of(name, "") for name in classes)
    ambient = ambient / ambient.sum()
    empty = np.clip(rng.lognormal(3, 0.8, n_empty), 1, 100).astype(int)
    parts = [droplets(rng, ambient, empty), droplets(rng, ambient, rng.integers(101, 501, n_empty // 10))]
    kinds = ["empty"] * n_empty + ["debris"] * (n_empty // 10)
    small = [name for name in classes if name != "MSC"]
    for name in classes:
        shares = 0.95 * profiles.of(name, "") + 0.05 * ambient
        parts.append(droplets(rng, shares, totals[name]))
        kinds += ["cell"] * per_class[name]
        if name in small:
            parts.append(droplets(rng, shares, rng.integers(300, 601, n_small // len(small))))
            kinds += ["small"] * (n_small // len(small))
    order = rng.permutation(len(kinds))
    return sparse.vstack(parts, format="csr")[order], np.array(kinds)[order]


def row_sums(counts: sparse.csr_matrix) -> np.ndarray:
    return np.asarray(counts.sum(axis=1)).ravel().astype(np.int64)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_planted_cells_are_called(seed):
    counts, kind = coculture(seed)
    calls = call_cells(counts, CallingSettings(), seed=1)
    planted = np.isin(kind, ("cell", "small"))
    assert calls.applied
    assert calls.method == "emptydrops"
    assert calls.is_cell[planted].mean() > 0.95
    assert planted[calls.is_cell].mean() > 0.95
    assert calls.is_cell[kind == "cell"].mean() > 0.99
    assert calls.is_cell[kind == "small"].mean() > 0.7
    assert calls.is_cell[kind == "debris"].mean() < 0.02
    assert not calls.is_cell[kind == "empty"].any()


def test_what_is_said_of_the_calls():
    counts, kind = coculture(1)
    calls = call_cells(counts, CallingSettings(), seed=1)
    total = row_sums(counts)
    np.testing.assert_array_equal(calls.total, total)
    assert calls.n_empty == (total <= 100).sum() == (kind == "empty").sum()
    np.testing.assert_array_equal(calls.ambient_counts, np.asarray(counts[total <= 100].sum(axis=0)).ravel())
    assert calls.ambient_counts.dtype == np.int64
    tested = (total > 100) & (total < calls.retain)
    np.testing.assert_array_equal(np.isnan(calls.p_value), ~tested)
    np.testing.assert_array_equal(np.isnan(calls.fdr), ~tested)
    np.testing.assert_array_equal(calls.is_cell, (total >= calls.retain) | (calls.fdr <= 0.001))
    retained = int((total >= calls.retain).sum())
    assert calls.note == (
        f"{calls.is_cell.sum()} cells called of {len(kind):,} droplets: {retained} with {calls.retain:.0f} counts or "
        f"more, and {calls.is_cell.sum() - retained} of {tested.sum()} tested ones unlike the ambient profile of 2,500 "
        "empty droplets"
    )


def test_calls_depend_on_the_seed_alone():
    counts, _ = coculture(1, n_cells=120, n_empty=1000)
    calls = call_cells(counts, CallingSettings(), seed=1)
    again = call_cells(counts, CallingSettings(), seed=1)
    np.testing.assert_array_equal(again.p_value, calls.p_value)
    other = call_cells(counts, CallingSettings(), seed=2)
    assert not np.array_equal(other.p_value, calls.p_value, equal_nan=True)
    order = np.random.default_rng(0).permutation(counts.shape[0])
    shuffled = call_cells(counts[order], CallingSettings(), seed=1)
    np.testing.assert_allclose(shuffled.p_value, calls.p_value[order], rtol=1e-9)
    np.testing.assert_array_equal(shuffled.is_cell, calls.is_cell[order])


def test_a_library_of_empty_droplets_has_no_cell():
    for seed in range(5):
        counts, _ = coculture(seed, n_cells=0, n_small=0)
        calls = call_cells(counts, CallingSettings(), seed=1)
        assert calls.applied
        assert calls.is_cell.sum() <= 1
        assert calls.note.startswith(f"{calls.is_cell.sum()} cells called of 2,750 droplets")


def test_cells_of_one_type_are_found_though_the_ambient_rna_is_theirs():
    """The test has no power there, and half of the cells lie below the knee."""
    counts, kind = coculture(1, classes=("CD4_T",), n_small=0)
    calls = call_cells(counts, CallingSettings(), seed=1)
    assert (calls.total[kind == "cell"] < calls.knee).mean() > 0.3
    assert calls.is_cell[kind == "cell"].mean() > 0.97
    assert calls.is_cell[kind == "debris"].mean() < 0.02


def test_retain_and_lower_can_be_set():
    counts, _ = coculture(1, n_cells=120, n_empty=1000)
    calls = call_cells(counts, CallingSettings(retain=450, lower=60), seed=1)
    assert calls.is_cell[calls.total >= 450].all()
    assert calls.retain == 450
    assert calls.n_empty == (calls.total <= 60).sum()
    assert np.isfinite(calls.p_value[calls.total == 61]).all()


def test_more_draws_are_made_where_they_decide():
    """Few cells among many tested droplets: no p-value of 2,000 draws is small enough."""
    counts, kind = coculture(1, n_cells=0, n_small=25, n_empty=4000)
    settings = CallingSettings(n_iterations=2000)
    calls = call_cells(counts, settings, seed=1)
    assert 0 < np.nanmin(calls.p_value) < 1 / 2001
    assert (calls.is_cell & (kind == "small")).sum() > 5
    one = call_cells(counts, CallingSettings(n_iterations=1000, fdr=1e-6), seed=1)
    assert not one.is_cell.any()
    assert "more may be called with more than 1,000 draws (calling.n_iterations)" in one.note


def test_debris_leaves_no_gap_and_cells_do():
    rng = np.random.default_rng(0)
    empty = np.clip(rng.lognormal(3, 0.8, 20_000), 1, 100)
    debris = np.exp(rng.uniform(np.log(100), np.log(600), 1500))
    cells = rng.lognormal(8, 0.4, 1000)
    without = np.concatenate([empty, debris]).astype(np.int64)
    assert retained_from(without, 100, rank_points(without, 100).knee) >= 1000
    with_cells = np.concatenate([without, cells]).astype(np.int64)
    knee = rank_points(with_cells, 100).knee
    assert 600 < retained_from(with_cells, 100, knee) < np.quantile(cells, 0.02) < knee
    slope = np.concatenate([without, np.exp(rng.uniform(np.log(100), np.log(5000), 4000)), cells]).astype(np.int64)
    assert retained_from(slope, 100, 2500.0) == 2500.0  # no gap: the knee


FILTERED = {
    "cells": lambda rng: rng.lognormal(8, 0.6, 5000),
    "small cells": lambda rng: rng.lognormal(np.log(300), 0.6, 5000),
    "very small cells": lambda rng: rng.lognormal(np.log(160), 0.6, 5000),
    "mostly below 100 counts": lambda rng: rng.lognormal(np.log(100), 0.6, 3000),
    "small cells and MSC": lambda rng: np.append(rng.lognormal(np.log(300), 0.6, 5000), rng.lognormal(10, 0.4, 500)),
    "a pool of lanes": lambda rng: rng.lognormal(np.log(700), 0.7, 60_000),
    "cells, and barcodes with a count or two": lambda rng: np.append(rng.lognormal(8, 0.6, 3000), np.ones(150)),
    "a plate": lambda rng: rng.lognormal(12, 0.5, 96),
    "a plate with empty wells": lambda rng: np.append(rng.lognormal(12, 0.5, 300), rng.integers(1, 50, 84)),
    "50 cells": lambda rng: rng.lognormal(7, 0.5, 50),
    "1 cell": lambda rng: np.array([900.0]),
    "no counts": lambda rng: np.zeros(3000),
    "no droplets": lambda rng: np.zeros(0),
}
UNFILTERED = {
    "3,000 droplets": lambda rng: np.append(rng.lognormal(3, 0.8, 2600), rng.lognormal(8, 0.5, 400)),
    "more cells than empty droplets": lambda rng: np.append(rng.lognormal(3, 0.8, 1000), rng.lognormal(8, 0.5, 2000)),
    "even empty droplets": lambda rng: np.append(rng.normal(70, 8, 2600), rng.lognormal(8.5, 0.5, 400)),
    "much ambient RNA": lambda rng: np.append(rng.lognormal(np.log(80), 0.3, 90_000), rng.lognormal(9, 0.5, 5000)),
    "cut off at 10 counts": lambda rng: np.append(10 + rng.exponential(20, 30_000), rng.lognormal(8, 0.5, 3000)),
    "cut off at 50 counts": lambda rng: np.append(50 + rng.exponential(20, 30_000), rng.lognormal(8, 0.5, 3000)),
    "no cells": lambda rng: rng.lognormal(3, 0.8, 5000),
    "all barcodes": lambda rng: np.append(np.zeros(50_000), rng.geometric(0.3, 60_000)),
}


@pytest.mark.parametrize("kind", FILTERED)
def test_a_filtered_matrix_is_left_alone(kind):
    for seed in range(3):
        total = FILTERED[kind](np.random.default_rng(seed)).astype(np.int64)
        assert not holds_empty_droplets(total, 100)
        counts = sparse.csr_matrix(total[:, None].astype(np.int32))
        calls = call_cells(counts, CallingSettings(), seed=1)
        assert calls.is_cell.all()
        assert calls.is_cell.shape == total.shape
        assert not calls.applied
        assert calls.method == "none"
        assert calls.ambient_counts is None
        assert "cells not called: a filtered matrix" in calls.note


@pytest.mark.parametrize("kind", UNFILTERED)
def test_an_unfiltered_matrix_is_recognised(kind):
    for seed in range(3):
        assert holds_empty_droplets(UNFILTERED[kind](np.random.default_rng(seed)).astype(np.int64), 100)


def test_a_matrix_without_empty_droplets_is_left_alone_and_said_to_be_cut_off():
    rng = np.random.default_rng(0)
    total = np.append(101 + rng.exponential(50, 20_000), rng.lognormal(8, 0.4, 2000)).astype(np.int32)
    counts = sparse.csr_matrix(total[:, None])
    calls = call_cells(counts, CallingSettings(), seed=1)
    assert calls.is_cell.all()
    assert "may be an unfiltered matrix cut off there" in calls.note
    forced = call_cells(counts, CallingSettings(method="emptydrops"), seed=1)
    assert forced.is_cell.all()
    assert "no droplet with 1 to 100 counts to learn the ambient profile from" in forced.note
    knee = call_cells(counts, CallingSettings(method="knee"), seed=1)
    assert knee.applied
    assert knee.ambient_counts is None
    assert knee.is_cell[20_000:].mean() > 0.97
    assert knee.is_cell[:20_000].mean() < 0.01


def test_the_knee_cuts_at_the_steepest_fall():
    counts, kind = coculture(1, n_small=0)
    calls = call_cells(counts, CallingSettings(method="knee"), seed=1)
    np.testing.assert_array_equal(calls.is_cell, calls.total >= calls.inflection)
    assert calls.is_cell[kind == "cell"].mean() > 0.95
    assert calls.is_cell[kind == "debris"].mean() < 0.02
    assert calls.n_empty == (kind == "empty").sum()
    assert calls.ambient_counts.sum() == calls.total[kind == "empty"].sum()


@pytest.mark.parametrize("method", REGISTRY)
@pytest.mark.parametrize("shape", [(0, 5), (1, 5), (3, 0), (0, 0), (300, 1), (2, 2)])
@pytest.mark.parametrize("value", [0, 1, 150])
def test_tiny_libraries_get_a_result(method, shape, value):
    counts = sparse.csr_matrix(np.full(shape, value, dtype=np.int32))
    calls = call_cells(counts, CallingSettings(method=method), seed=1)
    assert isinstance(calls, CellCalls)
    assert calls.is_cell.shape == calls.total.shape == calls.p_value.shape == (shape[0],)
    assert calls.note
    assert len(calls.rank_curve()) <= shape[0]


def test_one_gene_decides_nothing():
    total = np.append(np.arange(1, 101).repeat(5), [200, 300, 5000]).astype(np.int32)
    calls = call_cells(sparse.csr_matrix(total[:, None]), CallingSettings(), seed=1)
    assert calls.applied
    np.testing.assert_array_equal(np.flatnonzero(calls.is_cell), [502])
    np.testing.assert_array_equal(calls.p_value[500:502], [1, 1])


def test_rank_curve():
    counts, _ = coculture(1)
    calls = call_cells(counts, CallingSettings(), seed=1)
    curve = calls.rank_curve()
    assert list(curve.columns) == ["rank", "total", "cell_share"]
    assert 150 < len(curve) <= 300
    assert curve["rank"].iloc[0] == 1
    assert curve["rank"].iloc[-1] == (calls.total > 0).sum()
    assert curve["rank"].is_monotonic_increasing
    assert curve["total"].is_monotonic_decreasing
    assert curve["total"].iloc[0] == calls.total.max()
    assert curve["cell_share"].between(0, 1).all()
    width = np.diff(curve["rank"], prepend=0)
    assert (curve["cell_share"] * width).sum() == pytest.approx(calls.is_cell.sum())
    descending = np.sort(calls.total)[::-1]
    np.testing.assert_array_equal(curve["total"], descending[curve["rank"] - 1])
    whole = calls.rank_curve(n_points=10**6)
    assert whole["rank"].is_unique


def test_unknown_method_names_the_choices():
    counts = sparse.csr_matrix(np.ones((3, 2), dtype=np.int32))
    with pytest.raises(UserError, match=r"calling\.method is 'knees'; it must be one of auto, emptydrops, knee, none"):
        call_cells(counts, CallingSettings(method="knees"), seed=1)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"lower": 0}, r"calling\.lower is 0; it must be from 1 to 1000"),
        ({"fdr": 0}, r"calling\.fdr is 0; it must be between 0 and 1"),
        ({"n_iterations": 10}, r"calling\.n_iterations is 10; it must be from 1000 to 1000000"),
        ({"retain": 100}, r"calling\.retain is 100; it must be above lower \(100\)"),
        ({"lower": "100"}, r"calling\.lower is '100'; it must be a whole number"),
        ({"knee": 3}, r"calling\.knee is unknown; the keys are method, lower, fdr, n_iterations, retain"),
    ],
)
def test_wrong_settings_are_named(section, message):
    with pytest.raises(UserError, match=message):
        CallingSettings.from_config(section)


@pytest.mark.parametrize("limits", [(0, 3), (3, 3)])
def test_too_short_a_curve_has_no_knee(limits):
    total = np.array([1, 1, 2, 2, 5, 6])
    points = rank_points(total, limits[1])
    assert np.isnan(points.knee)
    assert pd.isna(points.inflection)
