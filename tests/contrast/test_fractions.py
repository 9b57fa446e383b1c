"""Shares of regulatory and of cycling cells: against statsmodels, by hand, and on studies with known truth."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from anndata import AnnData
from scipy import sparse, stats

from immunomod.contrast.design import Contrast
from immunomod.contrast.fractions import COLUMNS, fit_quasibinomial, fraction_effects
from immunomod.contrast.settings import ContrastSettings

ROW = {"contrast": "q", "dataset": "ds", "variable": "condition", "test": "treated", "reference": "control"}
QUESTION = Contrast.from_row(ROW)
COUNTS = {
    # (condition, donor): CD4_T, Treg, B, MSC; then how many of each cycle
    ("control", "D1"): ((190, 10, 60, 400), (12, 1, 3, 80)),
    ("treated", "D1"): ((150, 30, 50, 20), (4, 1, 2, 2)),
    ("control", "D2"): ((280, 12, 80, 500), (20, 0, 6, 90)),
    ("treated", "D2"): ((260, 40, 90, 15), (9, 2, 6, 1)),
    ("control", "D3"): ((90, 6, 40, 300), (7, 1, 2, 50)),
    ("treated", "D3"): ((100, 16, 35, 30), (2, 0, 1, 4)),
}
CLASSES = ("CD4_T", "Treg", "B", "MSC")


def study(counts=None, **columns) -> AnnData:
    rows = []
    for (condition, donor), (numbers, cycling) in (counts or COUNTS).items():
        for cell_class, n_cells, n_cycling in zip(CLASSES, numbers, cycling, strict=True):
            compartment = "MSC" if cell_class == "MSC" else "immune"
            row = (
                f"{condition}{donor}",
                donor,
                condition,
                cell_class,
                compartment,
                "T",
                n_cells,
                min(n_cycling, n_cells),
                n_cells,
            )
            if n_cells:
                rows.append(row)
    names = ["sample", "donor", "condition", "cell_class", "compartment", "lineage", "n_cells"]
    names += ["cells_cycling", "cells_with_phase"]
    obs = pd.DataFrame(rows, columns=names, index=[f"u{i}" for i in range(len(rows))]).assign(**columns)
    return AnnData(X=sparse.csr_matrix((len(obs), 1)), obs=obs)


def result_of(data: AnnData, question: Contrast = QUESTION) -> pd.DataFrame:
    return fraction_effects(question, {"ds": data}, ContrastSettings()).set_index(["fraction", "cell_class"])


def expected_of(counts: list[int], totals: list[int]):
    """statsmodels' quasi-binomial fit; counts are control, treated of one donor after another."""
    n, of = np.array(counts, dtype=float), np.array(totals, dtype=float)
    columns = np.column_stack([np.kron(np.eye(len(n) // 2), np.ones((2, 1))), np.tile([0, 1], len(n) // 2)])
    return sm.GLM(n / of, columns, family=sm.families.Binomial(), var_weights=of).fit(scale="X2", tol=1e-12)


def check_row(row: pd.Series, expected, df: int) -> None:
    assert (row["status"], row["df"]) == ("tested", df)
    assert row["effect"] == pytest.approx(expected.params[-1], rel=1e-6)
    assert row["se"] == pytest.approx(expected.bse[-1], rel=1e-6)
    assert row["p_value"] == pytest.approx(2 * stats.t.sf(abs(expected.tvalues[-1]), df), rel=1e-5)
    margin = stats.t.ppf(0.975, df) * expected.bse[-1]
    np.testing.assert_allclose(
        [row["ci_low"], row["ci_high"]], expected.params[-1] + np.array([-margin, margin]), rtol=1e-5
    )


def test_regulatory_cells_among_cd4_t_cells_equal_statsmodels():
    row = result_of(study()).loc[("Treg", "CD4_T")]
    keys = [(condition, donor) for donor in ("D1", "D2", "D3") for condition in ("control", "treated")]
    counts, totals = zip(*((COUNTS[key][0][1], sum(COUNTS[key][0][:2])) for key in keys), strict=True)
    check_row(row, expected_of(counts, totals), 2)
    assert row["effect"] > 0.8
    assert (row["cells_test"], row["of_test"]) == (86, 596)
    assert (row["cells_reference"], row["of_reference"]) == (28, 588)
    assert (row["n_test"], row["n_reference"], row["n_pairs"]) == (3, 3, 3)
    assert row["fdr"] == row["p_value"]


def test_cycling_cells_of_each_class_equal_statsmodels():
    table = result_of(study())
    keys = [(condition, donor) for donor in ("D1", "D2", "D3") for condition in ("control", "treated")]
    for position, cell_class in enumerate(CLASSES):
        counts = [COUNTS[key][1][position] for key in keys]
        totals = [COUNTS[key][0][position] for key in keys]
        if cell_class == "Treg":
            continue  # two of its replicates have fewer than ten cells
        check_row(table.loc[("cycling", cell_class)], expected_of(counts, totals), 2)
    tested = table.loc["cycling"].query("status == 'tested'")
    np.testing.assert_allclose(tested["fdr"], stats.false_discovery_control(tested["p_value"]))


def test_unpaired_arms_with_a_covariate_equal_statsmodels():
    rng = np.random.default_rng(0)
    n, of = rng.integers(3, 20, 8).astype(float), rng.integers(50, 300, 8).astype(float)
    effect, nuisance = np.repeat([-0.5, 0.5], 4), np.column_stack([np.ones(8), rng.normal(size=8)])
    fit = fit_quasibinomial(n, of, effect, nuisance, np.arange(8).astype(object), False)
    model = sm.GLM(n / of, np.column_stack([nuisance, effect]), family=sm.families.Binomial(), var_weights=of)
    expected = model.fit(scale="X2", tol=1e-12)
    assert fit.df == 5
    assert fit.estimate == pytest.approx(expected.params[-1], rel=1e-6)
    assert fit.se == pytest.approx(expected.bse[-1], rel=1e-6)
    assert fit.dispersion == pytest.approx(expected.scale, rel=1e-6)


def test_donors_without_a_cell_in_the_state_say_nothing():
    of = np.array([100.0, 120, 80, 90, 100, 110, 70, 60])
    n = np.array([5.0, 9, 0, 0, 4, 10, 3, 4])
    blocks = np.repeat(np.arange(4), 2)
    nuisance, effect = np.eye(4)[blocks], np.tile([-0.5, 0.5], 4)
    kept = blocks != 1
    one = fit_quasibinomial(n, of, effect, nuisance, blocks.astype(object), True)
    other = fit_quasibinomial(n[kept], of[kept], effect[kept], nuisance[kept], blocks[kept].astype(object), True)
    assert one == other
    assert one.df == 2
    assert fit_quasibinomial(n * 0, of, effect, nuisance, blocks.astype(object), True) is None


def test_exchanged_arms_flip_the_sign_and_the_order_of_rows_has_no_say():
    data = study()
    first = result_of(data)
    swapped = result_of(data, Contrast.from_row(ROW | {"test": "control", "reference": "treated"}))
    np.testing.assert_allclose(first["effect"].astype(float), -swapped["effect"].astype(float), rtol=1e-9)
    np.testing.assert_allclose(first["p_value"].astype(float), swapped["p_value"].astype(float), rtol=1e-7)
    shuffled = data[np.random.default_rng(0).permutation(data.n_obs)].copy()
    pd.testing.assert_frame_equal(result_of(shuffled), first)


def test_every_share_has_a_row_and_a_status_with_a_reason():
    table = fraction_effects(QUESTION, {"ds": study()}, ContrastSettings())
    assert list(table.columns) == COLUMNS
    assert list(zip(table["fraction"], table["cell_class"], strict=True)) == [
        *(("Treg", "CD4_T"), ("cycling", "B"), ("cycling", "CD4_T"), ("cycling", "MSC"), ("cycling", "Treg")),
    ]
    untested = table[table["status"] != "tested"]
    assert untested[["p_value", "fdr", "se"]].isna().all().all()
    assert untested["reason"].str.len().gt(15).all()


def without(condition: str) -> dict:
    return {
        key: ((numbers[0] + numbers[1], 0, *numbers[2:]) if key[0] == condition else numbers, cycling)
        for key, (numbers, cycling) in COUNTS.items()
    }


def test_a_state_that_vanishes_is_a_result_where_many_were_to_be_expected():
    row = result_of(study(without("control"))).loc[("Treg", "CD4_T")]
    assert (row["status"], row["cells_reference"]) == ("tested", 0)
    assert row["effect"] > 3
    rare = {key: ((300, int(key[0] == "treated"), 50, 50), cycling) for key, (_, cycling) in COUNTS.items()}
    row = result_of(study(rare)).loc[("Treg", "CD4_T")]
    assert row["status"] == "too_few_cells"
    assert "no cell of the reference arm is of class Treg, where 1.0 a replicate" in row["reason"]


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        ("no Treg", "absent", "no cell of the contrast's replicates is of class Treg"),
        ("no CD4", "absent", "holds a cell of class CD4_T"),
        ("one donor", "unreplicated", "cells are not replicates"),
        ("one arm", "absent", "no reference sample"),
        ("few cells", "too_few_cells", "fewer than 10 cells"),
        ("batch", "confounded", "cannot be told from"),
    ],
)
def test_what_cannot_be_tested_says_why(fault, status, words):
    counts = dict(COUNTS)
    if fault == "no Treg":
        counts = without("control") | {key: value for key, value in without("treated").items() if key[0] == "treated"}
    if fault == "no CD4":
        counts = {key: ((0, 0, *numbers[2:]), cycling) for key, (numbers, cycling) in COUNTS.items()}
    if fault == "one donor":
        counts = {key: value for key, value in COUNTS.items() if key[1] == "D1"}
    if fault == "one arm":
        counts = {key: value for key, value in COUNTS.items() if key[0] == "treated"}
    if fault == "few cells":
        counts = {key: ((2, 1, 50, 50), cycling) for key, (_, cycling) in COUNTS.items()}
    data = study(counts)
    question = QUESTION
    if fault == "batch":
        data.obs["kit"] = data.obs["condition"]
        question = Contrast.from_row(ROW | {"covariates": "kit"})
    row = result_of(data, question).loc[("Treg", "CD4_T")]
    assert row["status"] == status
    assert words in row["reason"]
    assert np.isnan(row["p_value"]) and np.isnan(row["fdr"])


def test_without_a_known_phase_every_class_says_so():
    for data in (study(cells_with_phase=0), study()):
        if data.obs["cells_with_phase"].any():
            del data.obs["cells_with_phase"]
        words = "too few genes of the cell cycle" if "cells_with_phase" in data.obs else "make them again"
        table = result_of(data).loc["cycling"]
        assert set(table["status"]) == {"absent"}
        assert table["reason"].str.contains(words).all()


def draw(rng: np.random.Generator, share: float, change: float, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Cells in the state, and all cells, of 4 donors' control and treated samples of unequal size."""
    of = np.exp(rng.normal(5.3, 0.5, 8)).astype(int) + 10
    donor = np.repeat(rng.normal(0, 0.5, 4), 2)
    log_odds = np.log(share / (1 - share)) + donor + rng.normal(0, spread, 8) + change * np.tile([0, 1], 4)
    return rng.binomial(of, 1 / (1 + np.exp(-log_odds))).astype(float), of.astype(float)


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_known_truth_is_hit_and_the_null_rejected_at_its_level(spread):
    rng = np.random.default_rng(11)
    blocks = np.repeat(np.arange(4), 2)
    rejected, covered, estimates = [], [], []
    for change in (0.0, 1.0):
        for _ in range(1000):
            n, of = draw(rng, 0.08, change, spread)
            fit = fit_quasibinomial(n, of, np.tile([-0.5, 0.5], 4), np.eye(4)[blocks], blocks.astype(object), True)
            t = (fit.estimate - change) / fit.se
            covered.append(abs(t) < stats.t.ppf(0.975, fit.df))
            if change:
                estimates.append(fit.estimate)
            else:
                rejected.append(2 * stats.t.sf(abs(t), fit.df) < 0.05)
    assert 0.03 <= np.mean(rejected) <= 0.07
    assert 0.92 <= np.mean(covered) <= 0.98
    assert np.mean(estimates) == pytest.approx(1, abs=0.05)
