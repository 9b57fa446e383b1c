from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from immunomod.errors import UserError
from immunomod.simulate.effects import draw_effects, gene_truth, planted_changes, program_truth
from immunomod.simulate.profiles import applies_to, signed_weights
from immunomod.simulate.settings import CELL_CLASSES, PlantedEffect, SimulationSettings

BY_NAME = {cells.name: cells for cells in CELL_CLASSES}


def draw_all(settings, programs, profiles):
    weights = signed_weights(programs, profiles)
    return {cells.name: draw_effects(cells, programs, weights, settings) for cells in settings.cell_classes}


def truths(settings, programs, profiles):
    genes = gene_truth(draw_all(settings, programs, profiles), profiles, settings)
    return genes, program_truth(genes, programs, profiles, settings)


def test_only_genes_of_planted_programmes_of_the_lineage_change(programs, profiles):
    weights = signed_weights(programs, profiles)
    settings = SimulationSettings(effects=(PlantedEffect("imm_T_prolif_S", ("T",), -1.0),))
    members = weights["imm_T_prolif_S"].to_numpy() != 0
    changed = planted_changes(BY_NAME["CD4_T"], weights, settings)
    assert members.sum() == 36
    np.testing.assert_array_equal(changed != 0, members)
    assert (planted_changes(BY_NAME["B"], weights, settings) == 0).all()


def test_gene_effects_have_the_mean_direction_and_spread_that_were_asked_for(programs, profiles):
    weights = signed_weights(programs, profiles)
    settings = SimulationSettings(effects=(PlantedEffect("msc_tlr_polarisation", ("MSC",), 2.0),), gene_sd=0.2)
    direction = np.sign(weights["msc_tlr_polarisation"].to_numpy())
    assert {-1.0, 1.0} <= set(direction)
    changes = [
        planted_changes(BY_NAME["MSC"], weights, replace(settings, seed=seed))[direction != 0] for seed in range(200)
    ]
    signed = np.array(changes) * direction[direction != 0]
    assert signed.mean() == pytest.approx(2.0, abs=0.03)
    assert signed.std() == pytest.approx(0.4, rel=0.1)


def test_a_gene_of_two_planted_programmes_takes_the_stronger(programs, profiles):
    weights = signed_weights(programs, profiles)
    effects = (PlantedEffect("msc_chemokine_T", ("MSC",), 2.5), PlantedEffect("msc_ifng_core", ("MSC",), 1.0))
    changed = planted_changes(BY_NAME["MSC"], weights, SimulationSettings(effects=effects, gene_sd=0.0))
    change = pd.Series(changed, index=weights.index)
    assert change["CXCL9"] == 2.5  # of both
    assert change["IDO1"] == 1.0


def test_no_effects_give_a_null_truth(programs, profiles):
    settings = SimulationSettings(effect_scale=0.0, n_donors=3)
    genes, effects = truths(settings, programs, profiles)
    assert (genes["population_log2_change"] == 0).all()
    assert not genes["planted"].any()
    assert not effects["planted"].any()
    assert not effects["shares_gene_with_planted"].any()
    assert (effects["population_effect"].dropna() == 0).all()
    assert effects["true_effect"].dropna().abs().max() > 0  # donors vary all the same
    still = replace(settings, donor_sd=0.0, sample_sd=0.0)
    assert (truths(still, programs, profiles)[0]["true_log2_change"] == 0).all()


def test_true_effect_is_the_signed_mean_of_the_drawn_changes(programs, profiles):
    settings = SimulationSettings(n_donors=3, seed=4)
    genes, effects = truths(settings, programs, profiles)
    rows = programs.genes
    checked = 0
    for cell_class, program in [("MSC", "msc_mhc2"), ("CD8_T", "imm_Th1"), ("MSC", "msc_tlr_polarisation")]:
        own = genes[genes["cell_class"] == cell_class].set_index("gene")["true_log2_change"]
        listed = rows[rows["program"] == program]
        values = [
            own[gene] * (1 if direction == "+" else -1)
            for gene, direction in zip(listed["gene_human"], listed["direction"], strict=True)
            if gene in own
        ]
        row = effects[(effects["cell_class"] == cell_class) & (effects["program"] == program)].iloc[0]
        assert row["genes_expressed"] == len(values) > 0
        assert row["true_effect"] == pytest.approx(np.mean(values))
        checked += 1
    assert checked == 3


def test_every_expected_sign_is_planted_and_shared_genes_are_marked(programs, profiles):
    _, effects = truths(SimulationSettings(), programs, profiles)
    planted = effects[effects["planted"]]
    assert len(planted) == 5 + 2 * 3 + 2
    assert (planted["genes_expressed"] == planted["genes_total"]).all()  # measurable where they are planted
    expected = programs.meta["expected_sign"][planted["program"]].map({"+": 1, "-": -1}).to_numpy()
    np.testing.assert_array_equal(np.sign(planted["population_effect"]), expected)
    shared = effects[effects["shares_gene_with_planted"]].set_index(["cell_class", "program"]).index
    assert ("MSC", "msc_potency_panel") in shared
    assert ("CD4_T", "imm_T_prolif_S") not in shared
    assert ("B", "imm_ifng_response") not in shared


def test_donors_vary_around_the_planted_effect_as_asked(programs, profiles):
    """The spread of a programme's effect over donors, for a programme that shares few genes with others."""
    settings = SimulationSettings(n_donors=300, donor_sd=0.5, sample_sd=0.0)
    weights = signed_weights(programs, profiles)
    drawn = draw_effects(BY_NAME["B"], programs, weights, settings)
    tested = [p for p, row in programs.table.iterrows() if applies_to(row["compartment"], "B")]
    alone = (weights[tested] != 0).sum(axis=1).to_numpy() == 1
    members = alone & (weights["imm_B_plasma"].to_numpy() != 0)
    deviations = (drawn.change - drawn.planted)[:, members]
    assert members.sum() >= 5
    np.testing.assert_allclose(deviations, deviations[:, :1] * np.ones(members.sum()))  # moves as one
    assert deviations[:, 0].std() == pytest.approx(0.5, rel=0.15)
    assert deviations[:, 0].mean() == pytest.approx(0.0, abs=0.1)


def test_change_is_what_separates_the_arms(programs, profiles):
    settings = SimulationSettings(n_donors=2)
    drawn = draw_all(settings, programs, profiles)["NK"]
    for number, donor in enumerate(settings.donors):
        difference = drawn.log2_factor[donor, "coculture"] - drawn.log2_factor[donor, "immune_alone"]
        np.testing.assert_allclose(difference, drawn.change[number])


@pytest.mark.parametrize(
    ("compartment", "lineage", "expected"),
    [
        ("MSC", "MSC", True),
        ("MSC", "T", False),
        ("both", "MSC", True),
        ("both", "NK", True),
        ("immune:all", "B", True),
        ("immune:all", "MSC", False),
        ("immune:mono/mac", "monocyte", True),
        ("immune:mono/mac", "T", False),
        ("immune:T", "T", True),
    ],
)
def test_programmes_apply_to_their_compartment(compartment, lineage, expected):
    assert applies_to(compartment, lineage) is expected


def test_an_unknown_programme_cannot_be_planted(programs, profiles):
    settings = SimulationSettings(effects=(PlantedEffect("msc_nonesuch", ("MSC",), 1.0),))
    with pytest.raises(UserError, match="msc_nonesuch"):
        draw_all(settings, programs, profiles)
