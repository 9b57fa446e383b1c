"""Cell cycle and stress: phases against cells with the programme on or off, resting blood, and brute force."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import read_h5ad
from scipy import sparse, stats

from immunomod.programs import load_programs
from immunomod.sample.process import log_normalise
from immunomod.sample.scores import score_programs
from immunomod.sample.states import (
    MAX_P,
    REPLICATE_MEANS,
    RESTING_CPM,
    SCORES,
    cell_states,
    replicate_means,
    state_columns,
)
from immunomod.simulate.counts import draw_cells
from immunomod.simulate.profiles import load_profiles

PROGRAMS = load_programs()


def states_of(counts: sparse.csr_matrix, symbols: pd.Series, organism: str = "human", weights=None) -> pd.DataFrame:
    weights = PROGRAMS.weights(organism) if weights is None else weights
    return cell_states(counts, symbols, weights, score_programs(log_normalise(counts), symbols, weights))


def draw(cell_class: str, on: str = "", cpm: float = 0.0, depth: float = 2000.0, n_cells: int = 500):
    """Cells of a shipped profile, a phase's genes at ``cpm`` or what they are; and the symbols."""
    profiles = load_profiles()
    share = profiles.of(cell_class, "")
    if on:
        weights = PROGRAMS.weights("human")
        genes = profiles.symbols.isin(weights.index[weights[f"imm_T_prolif_{on}"] > 0])
        share = np.where(genes, np.maximum(share, cpm * 1e-6), share)
    rng = np.random.default_rng(1)
    depths = depth * np.exp(rng.normal(0, 0.35, n_cells))
    counts = draw_cells(share / share.sum(), depths, np.ones((1, 1)), 0.2, rng)
    return sparse.csr_matrix(counts), pd.Series(profiles.symbols)


@pytest.mark.parametrize("cell_class", ["CD4_T", "CD8_T", "B", "CD14_monocyte"])
@pytest.mark.parametrize("depth", [800.0, 2000.0, 8000.0])
def test_resting_cells_do_not_cycle(cell_class, depth):
    assert (states_of(*draw(cell_class, depth=depth))["phase"] == "G1").mean() > 0.97


@pytest.mark.parametrize("phase", ["S", "G2M"])
@pytest.mark.parametrize("cell_class", ["CD4_T", "CD14_monocyte"])
@pytest.mark.parametrize(("cpm", "depth", "at_least"), [(400, 800, 0.85), (200, 2000, 0.85), (200, 8000, 0.99)])
def test_cycling_cells_are_told_in_their_phase(phase, cell_class, cpm, depth, at_least):
    found = states_of(*draw(cell_class, phase, cpm, depth))
    assert (found["phase"] == phase).mean() > at_least
    resting = states_of(*draw(cell_class, depth=depth))
    assert found[f"{phase}_score"].median() > resting[f"{phase}_score"].quantile(0.95)


def test_the_phase_does_not_depend_on_genes_that_nobody_expresses():
    counts, symbols = draw("CD4_T", "S", 150)
    wider = sparse.hstack([counts, sparse.csr_matrix((counts.shape[0], 20_000), dtype=np.int32)], format="csr")
    more = pd.concat([symbols, pd.Series([f"unknown{i}" for i in range(20_000)])], ignore_index=True)
    np.testing.assert_array_equal(states_of(counts, symbols)["phase"], states_of(wider, more)["phase"])


def test_phases_equal_a_loop_over_cells():
    counts, symbols = draw("CD4_T", "S", 120, n_cells=80)
    weights = PROGRAMS.weights("human")
    found = states_of(counts, symbols)["phase"]
    dense = counts.toarray()
    for cell, row in enumerate(dense):
        excess = {}
        for phase in ("S", "G2M"):
            genes = set(weights.index[(weights[f"imm_T_prolif_{phase}"] > 0) | (weights[f"msc_prolif_{phase}"] > 0)])
            listed = [gene for gene, symbol in enumerate(symbols) if symbol in genes]
            expected = row.sum() * len(listed) * RESTING_CPM / 1e6
            seen = row[listed].sum()
            if stats.poisson.sf(seen - 1, expected) < MAX_P:
                excess[phase] = seen / expected
        assert found.iloc[cell] == (max(excess, key=excess.get) if excess else "G1")
    assert found.nunique() > 1


def test_resting_blood_hardly_cycles_and_is_scored(shared):
    kang = read_h5ad(shared / "data" / "kang" / "kang2000_ctrl_stim_8donors.h5ad")
    symbols = kang.var_names.to_series().astype(str).reset_index(drop=True)
    states = states_of(sparse.csr_matrix(kang.X).astype(np.int32), symbols)
    columns = state_columns(states)
    assert 0 < columns["cycling_fraction"] < 0.02
    assert states[list(SCORES)].notna().all().all()
    assert columns["median_dissociation_score"] == pytest.approx(states["dissociation_score"].median())


def test_scores_are_those_of_the_programmes_whichever_compartment_has_them():
    counts, symbols = draw("MSC", n_cells=50)
    weights = PROGRAMS.weights("human")
    scores = score_programs(log_normalise(counts), symbols, weights)
    both = cell_states(counts, symbols, weights, scores)
    np.testing.assert_array_equal(both["S_score"], scores["imm_T_prolif_S"])
    np.testing.assert_array_equal(both["hypoxia_score"], scores["conf_hypoxia"])
    alone = weights.drop(columns=["imm_T_prolif_S", "imm_T_prolif_G2M", "conf_hypoxia"])
    one = cell_states(counts, symbols, alone, scores[alone.columns])
    pd.testing.assert_frame_equal(one.drop(columns="hypoxia_score"), both.drop(columns="hypoxia_score"))
    assert one["hypoxia_score"].isna().all()


def test_mouse_cells_have_phases_of_mouse_genes():
    counts, symbols = draw("CD4_T", "S", 400)
    assert (states_of(counts, symbols.str.capitalize(), "mouse")["phase"] == "S").mean() > 0.9
    assert (states_of(counts, symbols.str.capitalize(), "human")["phase"] == "").all()


def test_without_the_genes_or_the_programmes_nothing_is_known():
    counts, symbols = draw("CD4_T", n_cells=20)
    other = pd.Series([f"gene{i}" for i in range(len(symbols))])
    without = PROGRAMS.weights("human").filter(regex="^msc_ifng")
    for states in (states_of(counts, other), states_of(counts, symbols, weights=without)):
        assert states[list(SCORES)].isna().all().all() and (states["phase"] == "").all()
        assert all(np.isnan(value) for value in state_columns(states).values())


@pytest.mark.parametrize("n_cells", [0, 1, 2])
def test_few_and_empty_cells(n_cells):
    symbols = draw("CD4_T", n_cells=1)[1]
    states = states_of(sparse.csr_matrix((n_cells, len(symbols)), dtype=np.int32), symbols)
    assert len(states) == n_cells and (states["phase"] == "").all()
    assert np.isnan(state_columns(states)["cycling_fraction"])


def test_replicate_means_leave_out_what_is_unknown():
    cells = pd.DataFrame(
        {
            "sample": ["a", "a", "a", "b"],
            "donor": ["x", "x", "y", "x"],
            "S_score": [1.0, np.nan, 3.0, np.nan],
            "phase": pd.Categorical(["S", "G1", "G2M", ""]),
        }
    )
    means = replicate_means(cells, ["sample", "donor"])
    assert list(means) == ["mean_S_score", "cycling_fraction"] and set(means) <= set(REPLICATE_MEANS)
    assert means.loc[("a", "x")].tolist() == [1.0, 0.5] and means.loc[("a", "y")].tolist() == [3.0, 1.0]
    assert means.loc[("b", "x")].isna().all()
