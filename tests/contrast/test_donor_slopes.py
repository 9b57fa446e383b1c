"""Trends within donors, for genes, sets of genes and shares of cells: by how much the donors' slopes differ."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse, stats

from immunomod.contrast.composition import composition_effects, log_odds
from immunomod.contrast.design import Contrast, donor_slopes, stratum_design
from immunomod.contrast.fractions import fit_quasibinomial, fraction_effects
from immunomod.contrast.genes import fit_genes, gene_effects
from immunomod.contrast.model import fit_linear
from immunomod.contrast.program_effects import program_effects
from immunomod.contrast.settings import ContrastSettings

QUESTION = Contrast.from_row({"contrast": "q", "dataset": "ds", "variable": "dose"})
DONORS, GENES, SLOPE_SD = 4, 400, 0.5


def study(doses: tuple[float, ...] = (0.0, 0.5, 1.0), seed: int = 0) -> AnnData:
    """Genes whose slopes differ between donors, and are zero on average; two classes of changing size."""
    rng = np.random.default_rng(seed)
    rate = np.exp(rng.normal(1, 0.6, GENES))
    counts, rows = [], []
    for donor in range(DONORS):
        slope = rng.normal(0, SLOPE_SD, GENES)
        for dose in doses:
            for number, cell_class in enumerate(("B", "T")):
                log2 = np.log2(rate) + dose * slope + rng.normal(0, 0.1, GENES)
                counts.append(rng.poisson(2**log2 / (2**log2).sum() * 60_000))
                n_cells = int(rng.integers(50, 150) * (1 + number * dose * (donor + 1)))
                rows.append((f"s{donor}-{dose}", f"D{donor}", cell_class, "immune", cell_class, str(dose), n_cells))
    columns = ["sample", "donor", "cell_class", "compartment", "lineage", "dose", "n_cells"]
    obs = pd.DataFrame(rows, columns=columns, index=[f"u{number}" for number in range(len(rows))])
    genes = pd.DataFrame(index=[f"g{number:03d}" for number in range(GENES)])
    return AnnData(sparse.csr_matrix(np.array(counts, dtype=float)), obs=obs, var=genes)


def test_a_donor_becomes_a_pair_of_its_mean_half_its_slope_up_and_down():
    data = study((0.0, 0.1, 1.0))
    design = stratum_design(QUESTION, data.obs, "T", 10)
    rows, effect, nuisance = donor_slopes(design)
    response = np.random.default_rng(1).normal(size=(len(design.units), 3))
    pairs = rows @ response
    blocks = design.units["block"].to_numpy()
    slopes = []
    for number, block in enumerate(sorted(set(blocks))):
        of_block = blocks == block
        slopes.append(np.polyfit(design.units["value"][of_block], response[of_block], 1)[0])
        mean = response[of_block].mean(axis=0)
        np.testing.assert_allclose(pairs[[number, number + DONORS]], [mean + slopes[-1] / 2, mean - slopes[-1] / 2])
    fit = fit_linear(pairs, effect, nuisance)
    np.testing.assert_allclose(fit.estimate, np.mean(slopes, axis=0))
    np.testing.assert_allclose(np.sqrt(fit.variance * fit.unscaled), stats.sem(slopes))
    assert fit.df == DONORS - 1


def test_other_designs_have_no_slopes_of_their_own():
    pairs = Contrast.from_row({"contrast": "q", "dataset": "ds", "variable": "dose", "test": "1.0", "reference": "0.0"})
    data = study()
    assert donor_slopes(stratum_design(pairs, data.obs, "T", 10)) is None
    assert donor_slopes(stratum_design(QUESTION, study((0.0, 1.0)).obs, "T", 10)) is None
    apart = data.obs.assign(donor=data.obs["sample"])
    assert donor_slopes(stratum_design(QUESTION, apart, "T", 10)) is None
    assert donor_slopes(stratum_design(QUESTION, data.obs, "NK", 10)) is None


def test_shares_of_cells_are_tested_by_the_donors_slopes():
    data = study()
    row = composition_effects(QUESTION, {"ds": data}, ContrastSettings()).set_index("cell_class").loc["T"]
    wide = data.obs.pivot(index=["donor", "dose"], columns="cell_class", values="n_cells")
    odds = pd.Series(log_odds(wide["T"].to_numpy(), wide.sum(axis=1).to_numpy()), index=wide.index)
    slopes = [np.polyfit([0, 0.5, 1], part, 1)[0] for _, part in odds.groupby("donor")]
    expected = stats.ttest_1samp(slopes, 0)
    assert (row["effect"], row["se"]) == (pytest.approx(np.mean(slopes)), pytest.approx(stats.sem(slopes)))
    assert (row["p_value"], row["df"]) == (pytest.approx(expected.pvalue), DONORS - 1)


def cells_in_state(
    rng: np.random.Generator, slope_sd: float, change: float, cells: float = 200
) -> tuple[np.ndarray, np.ndarray]:
    """Cells in the state, and all cells, of three doses in each of four donors."""
    block, dose = np.repeat(np.arange(DONORS), 3), np.tile([0.0, 0.5, 1.0], DONORS)
    of = np.floor(np.exp(rng.normal(np.log(cells), 0.5, len(block)))) + 10
    logit = -1.5 + rng.normal(0, 0.5, DONORS)[block] + rng.normal(change, slope_sd, DONORS)[block] * dose
    return rng.binomial(of.astype(int), 1 / (1 + np.exp(-logit))).astype(float), of


def fit_shares(counts: np.ndarray, of: np.ndarray, kept: np.ndarray | None = None, by_block: bool = True):
    block, dose = np.repeat(np.arange(DONORS), 3), np.tile([0.0, 0.5, 1.0], DONORS)
    kept = np.ones(len(block), dtype=bool) if kept is None else kept
    columns = (counts[kept], of[kept], dose[kept], np.eye(DONORS)[block][kept], block[kept].astype(object))
    return fit_quasibinomial(*columns, True, by_block)


def test_the_error_of_a_states_trend_is_the_jackknifes_over_donors():
    counts, of = cells_in_state(np.random.default_rng(5), 0.6, 1.0, 1e5)
    whole, block = fit_shares(counts, of), np.repeat(np.arange(DONORS), 3)
    without = np.array([fit_shares(counts, of, block != donor).estimate for donor in range(DONORS)])
    expected = np.sqrt(((without - whole.estimate) ** 2).sum() * (DONORS - 1) / DONORS)
    # ours takes one step of the refit
    assert whole.se == pytest.approx(expected, rel=0.02)
    assert whole.df == DONORS - 1
    assert whole.estimate == fit_shares(counts, of, by_block=False).estimate


def test_two_doses_have_the_same_error_by_donors_as_pairs_of_equal_weight():
    """Every donor has the same number of cells in the state, and so the same information."""
    of, counts = np.tile([200.0, 200.0], 3), np.array([40.0, 60, 30, 70, 55, 45])
    block, effect = np.repeat(np.arange(3), 2), np.tile([-0.5, 0.5], 3)
    fits = [
        fit_quasibinomial(counts, of, effect, np.eye(3)[block], block.astype(object), True, by_block)
        for by_block in (True, False)
    ]
    assert fits[0].df == fits[1].df == 2
    assert fits[0].se == pytest.approx(fits[1].se, rel=1e-8)


def test_a_states_trend_rejects_at_its_level_where_donors_go_either_way():
    rejected: dict[bool, list[bool]] = {True: [], False: []}
    covered = []
    for seed in range(400):
        for by_block, found in rejected.items():
            fit = fit_shares(*cells_in_state(np.random.default_rng(seed), 0.6, 0.0), by_block=by_block)
            found.append(2 * stats.t.sf(abs(fit.estimate / fit.se), fit.df) < 0.05)
        fit = fit_shares(*cells_in_state(np.random.default_rng(seed), 0.6, 1.0))
        covered.append(abs(fit.estimate - 1) < stats.t.ppf(0.975, fit.df) * fit.se)
    assert stats.binom.ppf(0.001, 400, 0.03) <= sum(rejected[True]) <= stats.binom.ppf(0.999, 400, 0.07)
    assert np.mean(rejected[False]) > 0.12
    assert 0.92 <= np.mean(covered) <= 0.98


def test_the_tables_shares_of_a_state_are_by_donors():
    data = study()
    rng = np.random.default_rng(6)
    data.obs["cells_with_phase"] = data.obs["n_cells"]
    data.obs["cells_cycling"] = rng.binomial(data.obs["n_cells"], 0.2)
    row = fraction_effects(QUESTION, {"ds": data}, ContrastSettings()).set_index(["fraction", "cell_class"])
    row = row.loc[("cycling", "T")]
    cells = data.obs[data.obs["cell_class"] == "T"].sort_values(["donor", "dose"])
    expected = fit_shares(cells["cells_cycling"].to_numpy(float), cells["n_cells"].to_numpy(float))
    assert (row["status"], row["df"]) == ("tested", DONORS - 1)
    assert (row["effect"], row["se"]) == (pytest.approx(expected.estimate), pytest.approx(expected.se))


def test_genes_whose_donors_go_either_way_are_not_called():
    """No gene changes on average; a model of counts with one slope for all donors calls many."""
    rejected: dict[str, list[float]] = {"slopes": [], "one slope": []}
    for seed in range(3):
        data = study(seed=seed)
        found = gene_effects(QUESTION, {"ds": data}, ContrastSettings())
        assert set(found.strata["method"]) == {"limma_trend"} and set(found.strata["status"]) == {"tested"}
        rejected["slopes"].append((found.tables["T"]["p_value"] < 0.05).mean())
        design = stratum_design(QUESTION, data.obs, "T", 10)
        # as if every unit were a donor's only one: what a model of counts makes of it
        log2 = np.log2(np.asarray((design.membership @ data.X).todense()) + 0.5)
        fit = fit_linear(log2, design.effect, design.nuisance)
        p_value = 2 * stats.t.sf(np.abs(fit.estimate) / np.sqrt(fit.variance * fit.unscaled), fit.df)
        rejected["one slope"].append((p_value < 0.05).mean())
    assert np.mean(rejected["slopes"]) < 0.075
    assert np.mean(rejected["one slope"]) > 0.15


def test_a_trend_over_two_values_keeps_the_chosen_model():
    found = gene_effects(QUESTION, {"ds": study((0.0, 1.0))}, ContrastSettings())
    assert set(found.strata["method"]) == {"deseq2"}


def test_fold_changes_are_the_mean_slopes_of_log2_expression():
    data = study()
    design = stratum_design(QUESTION, data.obs, "T", 10)
    counts = np.asarray((design.membership @ data.X).todense())
    table = fit_genes(counts, data.var_names, design, method="limma_trend").set_index("gene")
    doses, blocks = design.units["value"].to_numpy(), design.units["block"].to_numpy()
    log2 = np.log2(counts + 0.5) - np.log2(counts.sum(axis=1, keepdims=True))
    slopes = np.array([np.polyfit(doses[blocks == one], log2[blocks == one], 1)[0] for one in sorted(set(blocks))])
    expected = pd.Series(slopes.mean(axis=0), index=data.var_names)[table.index]
    # library sizes are adjusted, alike for all genes of a unit
    difference = table["log2_fold_change"] - expected
    assert difference.std() < 1e-6 and abs(difference.mean()) < 0.2


def test_sets_of_genes_have_as_many_degrees_of_freedom_as_donors_less_one():
    class Programmes:
        def meta_for(self, organism: str) -> pd.DataFrame:
            return pd.DataFrame({"compartment": "immune:all", "role": "readout", "expected_sign": "?"}, index=["p"])

        def weights(self, organism: str) -> pd.DataFrame:
            return pd.DataFrame({"p": 1.0}, index=[f"g{number:03d}" for number in range(20)])

    found = program_effects(QUESTION, {"ds": study()}, Programmes(), ContrastSettings(n_random_sets=2), 1)
    assert set(found.enrichment["df"]) == {DONORS - 1}
    assert (found.enrichment["status"] == "tested").all()
