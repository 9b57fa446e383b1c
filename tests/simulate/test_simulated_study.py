from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from immunomod.errors import UserError
from immunomod.simulate.settings import CELL_CLASSES, SimulationSettings
from immunomod.simulate.study import composition_truth, simulate_study


def matrix_of(study, sample):
    return study.adata[(study.adata.obs["sample"] == sample).to_numpy()].X.toarray()


def test_arms_hold_their_compartments(small_study):
    obs = small_study.adata.obs
    assert len(small_study.libraries) == 6
    assert small_study.libraries["sample"].is_unique
    assert set(obs.loc[obs["condition"] == "msc_alone", "true_class"]) == {"MSC"}
    assert "MSC" not in set(obs.loc[obs["condition"] == "immune_alone", "true_class"])
    assert set(obs.loc[obs["condition"] == "coculture", "true_class"]) == {cells.name for cells in CELL_CLASSES}
    assert small_study.adata.obs_names.is_unique
    assert small_study.adata.X.dtype == np.int32
    assert (small_study.libraries.query("condition == 'msc_alone'")["stimulus"] == "").all()
    assert list(small_study.truth_cells["barcode"]) == list(obs["barcode"])


def test_the_same_seed_gives_the_same_counts_and_another_does_not(small_study, programs, profiles):
    again = simulate_study(small_study.settings, programs, profiles)
    assert (again.adata.X != small_study.adata.X).nnz == 0
    pd.testing.assert_frame_equal(again.adata.obs, small_study.adata.obs)
    other = simulate_study(replace(small_study.settings, seed=8), programs, profiles)
    assert other.adata.obs["barcode"].tolist() != small_study.adata.obs["barcode"].tolist()


def test_the_first_donors_of_a_larger_study_are_those_of_a_smaller_one(small_study, programs, profiles):
    larger = simulate_study(replace(small_study.settings, n_donors=3), programs, profiles)
    for sample in small_study.libraries["sample"]:
        np.testing.assert_array_equal(matrix_of(larger, sample), matrix_of(small_study, sample))


def test_donors_are_independent(small_study):
    first = small_study.adata.obs["donor"] == "D1"
    assert set(small_study.adata.obs.loc[first, "barcode"]).isdisjoint(small_study.adata.obs.loc[~first, "barcode"])


def test_doublets_damage_and_leakage_come_at_the_rates_asked_for(programs, profiles):
    settings = SimulationSettings(n_donors=2, cells_scale=2, doublet_rate=0.1, damaged_rate=0.05, leakage=0.2)
    study = simulate_study(settings, programs, profiles)
    obs = study.adata.obs.assign(total=np.asarray(study.adata.X.sum(axis=1)).ravel())
    n = len(obs)
    assert obs["true_doublet"].mean() == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / n))
    assert obs["damaged"].mean() == pytest.approx(0.05, abs=4 * np.sqrt(0.0475 / n))
    assert (obs.loc[obs["condition"] != "coculture", "leaked_counts"] == 0).all()
    clean = obs[~obs["true_doublet"] & ~obs["damaged"] & (obs["condition"] == "coculture")]
    for _, rows in clean.groupby(clean["true_class"] == "MSC"):
        assert rows["leaked_counts"].sum() / rows["total"].sum() == pytest.approx(0.2, abs=0.02)
    # a doublet is two cells
    lymphocytes = obs[(obs["condition"] == "immune_alone") & ~obs["damaged"] & (obs["true_class"] == "CD4_T")]
    singlets = lymphocytes[~lymphocytes["true_doublet"]]["total"].mean()
    doublets = lymphocytes[lymphocytes["second_class"].isin(["CD4_T", "CD8_T", "NK", "B"])]["total"].mean()
    assert doublets / singlets == pytest.approx(2.0, rel=0.25)


def test_leaked_molecules_are_of_the_partner(programs, profiles):
    """Genes that MSC alone express turn up in immune cells of the co-culture, and only with leakage."""
    settings = SimulationSettings(n_donors=1, doublet_rate=0.0, leakage=0.0)
    stromal = [list(profiles.symbols).index(gene) for gene in ("COL1A1", "COL3A1", "TAGLN", "POSTN")]

    def stromal_share(leakage):
        study = simulate_study(replace(settings, leakage=leakage), programs, profiles)
        immune = (study.adata.obs["true_class"] != "MSC") & (study.adata.obs["condition"] == "coculture")
        counts = study.adata[immune.to_numpy()].X
        return counts[:, stromal].sum() / counts.sum()

    alone = profiles.levels["MSC"].iloc[stromal].sum() / 1e6
    leaked = stromal_share(0.1) - stromal_share(0.0)
    assert leaked == pytest.approx(0.1 * alone, rel=0.35)  # a donor's baseline differs from the profile


def test_cells_look_real_to_quality_control(programs, profiles):
    study = simulate_study(SimulationSettings(n_donors=2, damaged_rate=0.0, doublet_rate=0.0), programs, profiles)
    symbols = study.adata.var["gene_symbol"]
    total = np.asarray(study.adata.X.sum(axis=1)).ravel()
    obs = study.adata.obs.assign(
        total=total,
        mitochondrial=np.asarray(study.adata.X[:, symbols.str.startswith("MT-").to_numpy()].sum(axis=1)).ravel()
        / total,
        ribosomal=np.asarray(study.adata.X[:, symbols.str.match("RP[LS]").to_numpy()].sum(axis=1)).ravel() / total,
    )
    by_class = obs.groupby("true_class")
    assert by_class["mitochondrial"].median().between(0.02, 0.08).all()
    assert by_class["ribosomal"].median().between(0.08, 0.45).all()
    assert 1400 < by_class["total"].mean()["CD4_T"] < 2200
    assert 3 < by_class["total"].mean()["MSC"] / by_class["total"].mean()["CD4_T"] < 8
    assert np.log(obs.loc[obs["true_class"] == "CD4_T", "total"]).std() == pytest.approx(0.37, abs=0.06)


@pytest.mark.slow
def test_large_studies_show_their_true_gene_changes(programs, profiles):
    """Pooled cells of one donor: log2 ratios, relative to unchanged genes, against the truth of that donor."""
    settings = SimulationSettings(
        n_donors=1, cells_scale=12, leakage=0.0, doublet_rate=0.0, damaged_rate=0.0, depth=3000, library_sd=0.0
    )
    study = simulate_study(settings, programs, profiles)
    for name, reference in (("MSC", "msc_alone"), ("CD4_T", "immune_alone")):
        rows = {
            arm: ((study.adata.obs["true_class"] == name) & (study.adata.obs["condition"] == arm)).to_numpy()
            for arm in (reference, "coculture")
        }
        sums = {arm: np.asarray(study.adata.X[chosen].sum(axis=0)).ravel() for arm, chosen in rows.items()}
        truth = study.truth_genes[study.truth_genes["cell_class"] == name].set_index("gene")
        truth = truth[truth["reference_cpm"] > 150]
        at = pd.Index(study.adata.var["gene_symbol"]).get_indexer(truth.index)
        observed = np.log2((sums["coculture"][at] + 0.5) / (sums[reference][at] + 0.5))
        unchanged = ~truth["planted"].to_numpy()
        observed -= np.median((observed - truth["true_log2_change"].to_numpy())[unchanged])
        error = observed - truth["true_log2_change"].to_numpy()
        assert np.abs(error).mean() < 0.08
        assert np.corrcoef(observed, truth["true_log2_change"])[0, 1] > 0.97
        assert error[~unchanged].mean() == pytest.approx(0.0, abs=0.03)


def test_composition_follows_its_truth(programs, profiles):
    settings = SimulationSettings(n_donors=1, cells_scale=20, composition_sd=0.0, depth=10)
    study = simulate_study(settings, programs, profiles)
    counts = study.adata.obs.groupby(["condition", "true_class"]).size().unstack(fill_value=0)
    truth = composition_truth(settings).set_index("cell_class")
    immune = [cells.name for cells in CELL_CLASSES if cells.compartment == "immune"]
    odds = counts[immune].div(counts[immune].sum(axis=1), axis=0).pipe(lambda share: np.log(share / (1 - share)))
    np.testing.assert_allclose(
        odds.loc["coculture"] - odds.loc["immune_alone"], truth.loc[immune, "log_odds_ratio"], atol=0.01
    )
    assert truth.at["CD4_T", "log_odds_ratio"] < 0 < truth.at["B", "log_odds_ratio"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_donors": 0}, "0 donors"),
        ({"leakage": 1.0}, "leakage"),
        ({"doublet_rate": -0.1}, "doublet_rate"),
        ({"donor_sd": -1.0}, "donor_sd"),
        ({"depth": 0.0}, "depth"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_out_of_range_are_refused(change, said):
    with pytest.raises(UserError, match=said):
        SimulationSettings(**change)


def test_msc_donors_are_split_over_sources_in_blocks():
    settings = SimulationSettings(n_donors=4)
    assert [settings.msc_source_of(donor) for donor in settings.donors] == ["bone_marrow"] * 2 + ["umbilical_cord"] * 2
    assert SimulationSettings(n_donors=5).msc_source_of("D5") == "umbilical_cord"
