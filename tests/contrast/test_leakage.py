"""Partner RNA in pseudobulks: the estimate against planted leaks, and what becomes of effects, intervals and genes."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse, stats

from immunomod.contrast.design import stratum_design
from immunomod.contrast.genes import fit_genes
from immunomod.contrast.leakage import (
    MIN_ERROR,
    Leakage,
    add_leakage,
    estimate_leakage,
    leakage_of,
    leakage_table,
    mixed_samples,
    no_leakage,
)
from immunomod.contrast.program_effects import program_effects
from immunomod.contrast.pseudobulk import failed_samples
from immunomod.contrast.scores import measure_expression
from immunomod.contrast.settings import ContrastSettings
from immunomod.exclusive import load_exclusive_genes
from immunomod.programs import load_programs
from immunomod.simulate.power import CONTRAST, true_pseudobulk
from immunomod.simulate.settings import PlantedEffect, SimulationSettings
from immunomod.simulate.study import simulate_study

N_GENES = 600
EXCLUSIVE = slice(0, 100)  # genes that the partner alone makes
INDUCED = slice(0, 25)


def toy(
    rng: np.random.Generator,
    leak: float,
    n_samples: int = 3,
    depth: int = 200_000,
    induced: float = 0.0,
    culture: bool = False,
) -> tuple[AnnData, np.ndarray]:
    """MSC alone, immune cells (two classes) alone, and both: Poisson counts; the second value is what leaked."""
    msc = rng.lognormal(0, 1.5, N_GENES)
    msc[EXCLUSIVE] = 0
    kinds = {"T": rng.lognormal(0, 1.5, N_GENES), "monocyte": rng.lognormal(0, 1.5, N_GENES)}
    for profile in kinds.values():
        profile[100:200] = 0  # genes of MSC alone
    msc = msc / msc.sum()
    kinds = {name: profile / profile.sum() for name, profile in kinds.items()}
    # monocytes leak more than their share
    lysed = 0.2 * kinds["T"] + 0.8 * kinds["monocyte"]
    answered = msc.copy()
    answered[INDUCED] += induced * lysed[INDUCED]
    rows, counts, leaked = [], [], []

    def add(sample: str, name: str, compartment: str, own: np.ndarray, foreign: np.ndarray) -> None:
        part = rng.poisson(depth * leak * foreign)
        counts.append(rng.poisson(depth * (1 - leak if foreign.any() else 1) * own) + part)
        leaked.append(part)
        rows.append((sample, sample[:2], name, compartment, compartment, 100, sample[3:] if culture else ""))

    nothing = np.zeros(N_GENES)
    for number in range(n_samples):
        add(f"D{number}_msc", "MSC", "MSC", msc, nothing)
        for name, profile in kinds.items():
            add(f"D{number}_immune", name, "immune", profile, nothing)
        add(f"D{number}_coculture", "MSC", "MSC", answered, lysed)
        for name, profile in kinds.items():
            add(f"D{number}_coculture", name, "immune", profile, msc)
    columns = ["sample", "donor", "cell_class", "compartment", "lineage", "n_cells", "culture"]
    obs = pd.DataFrame(rows, columns=columns, index=[str(number) for number in range(len(rows))])
    if not culture:
        obs = obs.drop(columns="culture")
    var = pd.DataFrame(index=[f"g{number:03d}" for number in range(N_GENES)])
    return AnnData(sparse.csr_matrix(np.array(counts, dtype=np.int64)), obs=obs, var=var), np.array(leaked)


@pytest.mark.parametrize("leak", [0.02, 0.1, 0.3])
def test_what_leaked_is_found_within_its_error(leak):
    sums, leaked = toy(np.random.default_rng(1), leak)
    found, table = estimate_leakage(sums, {}, {})
    truth = leaked.sum(axis=1) / np.asarray(sums.X.sum(axis=1)).ravel()
    assert table["leaked_fraction"].to_numpy() == pytest.approx(truth, abs=0.01 + 0.05 * leak)
    mixed = truth > 0
    # gene by gene: within the stated errors, which are no wider than they need be
    sd = np.sqrt(found.variance + (found.error[:, None] * found.expected) ** 2)[mixed]
    z = ((leaked - found.expected)[mixed] / np.maximum(sd, 1e-9))[found.expected[mixed] > 5]
    assert 0.7 < np.sqrt(np.median(z**2) / 0.4549) < 1.3


def test_the_partner_s_classes_get_the_weights_that_the_exclusive_genes_ask_for():
    """Monocytes lyse four times as often as T cells, though the library holds as many of both."""
    sums, leaked = toy(np.random.default_rng(2), 0.2)
    found, _ = estimate_leakage(sums, {}, {})
    msc = np.flatnonzero((sums.obs["cell_class"] == "MSC") & sums.obs["sample"].str.contains("coculture"))
    expected, truth = found.expected[msc].sum(axis=0), leaked[msc].sum(axis=0)
    pool = np.asarray(sums.X.todense())[
        (sums.obs["compartment"] == "immune").to_numpy() & sums.obs["sample"].str.contains("coculture").to_numpy()
    ].sum(axis=0)
    by_share = truth.sum() * pool / pool.sum()
    large = truth > 50
    assert np.abs(expected - truth)[large].sum() < 0.3 * np.abs(by_share - truth)[large].sum()


def test_induced_genes_do_not_pass_for_leakage():
    """A quarter of the exclusive genes is induced, to twice what leaks of them."""
    sums, leaked = toy(np.random.default_rng(3), 0.1, induced=0.2)
    _, table = estimate_leakage(sums, {}, {})
    msc = ((sums.obs["cell_class"] == "MSC") & sums.obs["sample"].str.contains("coculture")).to_numpy()
    truth = leaked[msc].sum() / sums.X[np.flatnonzero(msc)].sum()
    assert table.loc[msc, "leaked_fraction"].mean() == pytest.approx(truth, abs=0.01)
    # known to be inducible, they are not even looked at
    genes = list(sums.var_names[INDUCED])
    _, without = estimate_leakage(sums, {"MSC": genes}, {})
    assert without.loc[msc, "leaked_fraction"].mean() == pytest.approx(truth, abs=0.005)
    every, _ = estimate_leakage(sums, {"MSC": list(sums.var_names)}, {})
    assert not every.expected[msc].any()


def test_no_partner_no_leakage():
    sums, _ = toy(np.random.default_rng(4), 0.2)
    found, table = estimate_leakage(sums, {}, {})
    alone = ~sums.obs["sample"].str.contains("coculture").to_numpy()
    assert (found.expected[alone] == 0).all()
    assert (table.loc[alone, "leaked_fraction"] == 0).all()
    only = sums[alone].copy()
    assert not estimate_leakage(only, {}, {})[0].expected.any()


def test_nothing_leaked_is_next_to_nothing_found():
    sums, _ = toy(np.random.default_rng(5), 0.0)
    assert estimate_leakage(sums, {}, {})[1]["leaked_fraction"].max() < 1e-3


def test_without_a_control_arm_the_curated_genes_serve():
    sums, leaked = toy(np.random.default_rng(6), 0.2)
    mixed = sums[sums.obs["sample"].str.contains("coculture").to_numpy()].copy()
    truth = leaked[sums.obs["sample"].str.contains("coculture").to_numpy()].sum(axis=1)
    truth = truth / np.asarray(mixed.X.sum(axis=1)).ravel()
    curated = {"immune": list(sums.var_names[EXCLUSIVE]), "MSC": list(sums.var_names[100:200])}
    assert estimate_leakage(mixed, {}, curated)[1]["leaked_fraction"].to_numpy() == pytest.approx(truth, abs=0.02)
    notes = estimate_leakage(mixed, {}, {})[1]
    assert (notes["leaked_fraction"] == 0).all()
    assert notes["note"].str.contains("too few genes").all()


def test_misnamed_cells_make_no_coculture():
    sums, _ = toy(np.random.default_rng(7), 0.1)
    few = sums.obs.copy()
    few.loc[(few["compartment"] == "immune") & few["sample"].str.contains("coculture"), "n_cells"] = 1
    assert mixed_samples(few) == set()
    assert mixed_samples(sums.obs) == {"D0_coculture", "D1_coculture", "D2_coculture"}
    named, _ = toy(np.random.default_rng(7), 0.1, culture=True)
    named.obs.loc[named.obs["sample"] == "D0_coculture", "culture"] = "msc"
    assert mixed_samples(named.obs) == {"D1_coculture", "D2_coculture"}


def test_the_order_of_rows_and_genes_changes_nothing():
    sums, _ = toy(np.random.default_rng(8), 0.15)
    rng = np.random.default_rng(9)
    rows, genes = rng.permutation(sums.n_obs), rng.permutation(sums.n_vars)
    found, table = estimate_leakage(sums, {}, {})
    again, other = estimate_leakage(sums[rows][:, genes].copy(), {}, {})
    assert again.expected == pytest.approx(found.expected[np.ix_(rows, genes)], rel=1e-6, abs=1e-6)
    assert other["leaked_fraction"].to_numpy() == pytest.approx(table["leaked_fraction"].to_numpy()[rows], rel=1e-6)


def test_sums_of_rows_leak_sums():
    rng = np.random.default_rng(10)
    leakage = Leakage(rng.random((3, 4)), rng.random((3, 4)), np.array([0.1, 0.2, 0.4]))
    summed = leakage.summed(sparse.csr_matrix([[1.0, 1, 0], [0, 0, 1]]))
    assert summed.expected == pytest.approx(np.vstack([leakage.expected[:2].sum(axis=0), leakage.expected[2]]))
    assert summed.variance == pytest.approx(np.vstack([leakage.variance[:2].sum(axis=0), leakage.variance[2]]))
    weight = leakage.expected[:2].sum(axis=1)
    assert summed.error == pytest.approx([weight @ [0.1, 0.2] / weight.sum(), 0.4])


def test_without_leakage_expression_is_what_it_was():
    rng = np.random.default_rng(11)
    counts = rng.poisson(rng.lognormal(2, 1.5, (6, 300))).astype(float)
    arms = np.array(["a", "b"] * 3, dtype=object)
    plain, same = measure_expression(counts, arms, 3.0), measure_expression(counts, arms, 3.0, no_leakage(6, 300))
    assert (plain.log2 == same.log2).all()
    assert (plain.detected == same.detected).all()


def test_log2_levels_are_unbiased_where_leakage_blurs_them():
    """Own rates of 60 counts under 400 leaked ones: single counts scatter below zero, their mean does not move."""
    rng = np.random.default_rng(12)
    own, leaked, n, repeats = 60.0, 400.0, 4, 400
    arms = np.array(["test"] * n + ["reference"] * n, dtype=object)
    steady = np.full(200, 300.0)
    changes = []
    for _ in range(repeats):
        test = rng.poisson(np.r_[steady, own * 2 + leaked], (n, 201)).astype(float)
        reference = rng.poisson(np.r_[steady, own], (n, 201)).astype(float)
        expected = np.zeros((2 * n, 201))
        expected[:n, -1] = leaked
        leakage = Leakage(expected, expected.copy(), np.full(2 * n, MIN_ERROR))
        expression = measure_expression(np.vstack([test, reference]), arms, 3.0, leakage)
        if expression.detected[-1]:
            changes.append(expression.log2[:n, -1].mean() - expression.log2[n:, -1].mean())
    assert len(changes) > 0.9 * repeats
    assert np.mean(changes) == pytest.approx(1.0, abs=0.05)


def test_a_gene_that_leakage_hides_is_not_detected():
    counts = np.full((4, 101), 300.0)
    counts[2:, -1] = 2.0  # next to nothing in the reference, 500 in the test arm, all of it leaked
    counts[:2, -1] = 500.0
    arms = np.array(["test", "test", "reference", "reference"], dtype=object)
    expected = np.zeros_like(counts)
    expected[:2, -1] = 490.0
    leakage = Leakage(expected, expected.copy(), np.full(4, MIN_ERROR))
    assert not measure_expression(counts, arms, 3.0, leakage).detected[-1]
    assert measure_expression(counts, arms, 3.0).detected[-1]


# --- studies ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def programs():
    return load_programs()


@pytest.fixture(scope="module")
def exclusive():
    return load_exclusive_genes()


def effects_of(sums: AnnData, programs) -> pd.DataFrame:
    table = program_effects(CONTRAST, {"simulated": sums}, programs, ContrastSettings(n_random_sets=2), 1).effects
    return table.astype({"effect": float, "effect_raw": float, "fdr": float, "p_value": float})


@pytest.fixture(scope="module")
def leakage_only(programs):
    return true_pseudobulk(simulate_study(SimulationSettings(leakage=0.2, effect_scale=0.0, seed=77), programs))


def test_leakage_alone_is_no_answer(leakage_only, programs, exclusive):
    corrected = effects_of(add_leakage(leakage_only, programs, exclusive), programs)
    readouts = corrected[(corrected["status"] == "tested") & (corrected["role"] == "readout")]
    assert len(readouts) > 30
    assert not (readouts["fdr"] < 0.05).any()
    raw = effects_of(leakage_only, programs)
    assert (raw["effect_raw"] == raw["effect"])[raw["effect"].notna()].all()
    # the control: without the correction the same study gives answers
    assert (raw.loc[raw["role"] == "readout", "fdr"] < 0.05).sum() >= 5
    # and the uncorrected effects stand beside the corrected ones
    both = corrected.merge(raw, on=["cell_class", "program"], suffixes=("", "_uncorrected"))
    assert both["effect_raw"].to_numpy() == pytest.approx(both["effect_uncorrected"].to_numpy(), nan_ok=True)


def test_genes_that_leaked_are_suspects_and_not_called(leakage_only, programs, exclusive):
    sums = add_leakage(leakage_only, programs, exclusive)
    design = stratum_design(CONTRAST, sums.obs, "MSC", 10)
    counts = np.asarray((design.membership @ sums.X).todense(), dtype=float)
    table = fit_genes(counts, sums.var_names, design, leakage_of(sums, design.membership)).set_index("gene")
    raw = fit_genes(counts, sums.var_names, design).set_index("gene")
    assert (raw["fdr"] < 0.05).sum() > 50
    assert (table["fdr"] < 0.05).sum() <= 2
    foreign = raw.index[(raw["fdr"] < 0.05) & (raw["log2_fold_change"] > 1)]
    assert table.reindex(foreign)["ambient_suspect"].map(lambda value: value is True).mean() > 0.85
    steady = ["COL1A1", "COL1A2", "COL3A1", "LUM"]
    assert not table.reindex(steady).loc[steady, "ambient_suspect"].map(lambda value: value is True).any()


@pytest.mark.slow
@pytest.mark.parametrize("leakage", [0.1, 0.2])
def test_one_log2_unit_is_found_at_its_size_beside_leakage(leakage, programs, exclusive):
    """Also class II of MSC, of whose genes monocytes make a hundred times as much."""
    effects = (PlantedEffect("msc_mhc2", ("MSC",), 1.0), PlantedEffect("msc_ifng_core", ("MSC",), 1.0))
    errors, covered, found = [], [], []
    for seed in range(12):
        settings = SimulationSettings(leakage=leakage, effects=effects, seed=300 + seed)
        study = simulate_study(settings, programs)
        table = effects_of(add_leakage(true_pseudobulk(study), programs, exclusive), programs)
        table = study.truth_effects.merge(table, on=["cell_class", "program"])
        planted = table[table["planted"]]
        assert (planted["status"] == "tested").all()
        errors.append((planted["effect"] - planted["population_effect"]).to_numpy())
        covered.append(planted["population_effect"].between(planted["ci_low"], planted["ci_high"]).to_numpy())
        found.append((planted["p_value"] < 0.05).to_numpy())
    assert np.mean(errors, axis=0) == pytest.approx(0.0, abs=0.15)
    assert np.mean(covered) >= 0.85
    assert np.mean(found) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("leakage", [0.1, 0.2])
def test_leakage_alone_calls_no_more_than_chance_does(leakage, programs, exclusive):
    """One study of twenty without an effect has a call. Uncorrected leakage makes it all of them, corrected no more.

    The same donors are drawn with leakage and without, so that what leakage adds is told from chance.
    """
    called: dict[str, set[int]] = {"without": set(), "corrected": set(), "uncorrected": set()}
    for seed in range(500, 520):
        settings = SimulationSettings(leakage=leakage, effect_scale=0.0, seed=seed)
        leaked = true_pseudobulk(simulate_study(settings, programs))
        sums = {
            "without": true_pseudobulk(simulate_study(replace(settings, leakage=0.0), programs)),
            "corrected": add_leakage(leaked, programs, exclusive),
            "uncorrected": leaked,
        }
        for name, data in sums.items():
            table = effects_of(data, programs)
            if (table.loc[table["role"] == "readout", "fdr"] < 0.05).any():
                called[name].add(seed)
    assert len(called["uncorrected"]) == 20
    assert len(called["corrected"]) <= stats.binom.ppf(0.98, 20, 0.05), called
    assert len(called["corrected"] - called["without"]) <= 1, called


def test_the_table_has_a_row_per_replicate_and_class(leakage_only, programs, exclusive):
    sums = add_leakage(leakage_only, programs, exclusive)
    table = leakage_table(sums)
    assert len(table) == sums.n_obs
    mixed = table["sample"].str.contains("coculture")
    assert table.loc[mixed, "leaked_fraction"].between(0.15, 0.25).all()
    assert (table.loc[~mixed, "leaked_fraction"] == 0).all()
    assert leakage_table(leakage_only).empty


def test_failed_samples_and_their_reasons():
    qc = pd.DataFrame({"sample": ["a", "b"], "verdict": ["fail", "warn"], "reason": ["no cell passes", ""]})
    assert failed_samples(qc) == {"a": "no cell passes"}


def test_a_contrast_says_which_samples_were_left_out(leakage_only, programs):
    sums = leakage_only.copy()
    sums.uns["left_out"] = {"D9_coculture": "no cell passes"}
    result = program_effects(CONTRAST, {"simulated": sums}, programs, ContrastSettings(n_random_sets=2), 1)
    assert result.design["model"].str.contains("left out, failed quality control: D9_coculture").all()
