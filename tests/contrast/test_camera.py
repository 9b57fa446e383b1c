"""CAMERA: against limma, by hand, under a null in which genes of a set move together, and its table."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse, stats

from immunomod.contrast.camera import camera, normal_deviates
from immunomod.contrast.design import Contrast
from immunomod.contrast.program_effects import program_effects
from immunomod.contrast.program_enrichment import COLUMNS
from immunomod.contrast.settings import ContrastSettings

REFERENCE = Path(__file__).parent / "reference"
N_GENES, SIZE = 500, 30
AGE = np.array([31, 58, 44, 27, 31.5, 60, 41, 29])
EFFECT = np.repeat([-0.5, 0.5], 4)
DESIGNS = {
    "paired": np.tile(np.eye(4), (2, 1)),
    "covariate": np.column_stack([np.ones(8), AGE - AGE.mean()]),
}


@pytest.fixture(scope="module")
def log2() -> np.ndarray:
    return pd.read_csv(REFERENCE / "camera_expression.tsv", sep="\t", index_col="gene").to_numpy().T


@pytest.fixture(scope="module")
def sets() -> pd.DataFrame:
    return pd.read_csv(REFERENCE / "camera_sets.tsv", sep="\t", index_col="gene").astype(float)


@pytest.mark.parametrize("design", DESIGNS)
def test_equals_limma(log2, sets, design):
    limma = pd.read_csv(REFERENCE / "camera.tsv", sep="\t").set_index("design").loc[design]
    assert list(limma["set"]) == list(sets)
    tests = camera(log2, EFFECT, DESIGNS[design], sets.to_numpy())
    assert tests.df == (3 if design == "paired" else 5)
    np.testing.assert_array_equal(tests.n_genes, limma["n_genes"])
    np.testing.assert_allclose(tests.correlation, limma["correlation"], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(tests.p_value, limma["p_value"], rtol=1e-6)
    assert (np.where(tests.statistic > 0, "Up", "Down") == limma["direction"]).all()


def test_a_set_by_hand(log2, sets):
    """The inflation factor from all pairs of genes, one correlation at a time."""
    members = np.flatnonzero(sets["mixed"])
    x = np.column_stack([DESIGNS["paired"], EFFECT])
    residual = log2 - x @ np.linalg.lstsq(x, log2, rcond=None)[0]
    signs = sets["mixed"].to_numpy()
    turned = residual[:, members] * signs[members]
    pairs = np.corrcoef(turned.T)[np.triu_indices(len(members), 1)]
    assert camera(log2, EFFECT, DESIGNS["paired"], signs[:, None]).correlation[0] == pytest.approx(pairs.mean())


def test_exchanging_arms_or_signs_flips_the_statistic_alone(log2, sets):
    nuisance, signs = DESIGNS["paired"], sets.to_numpy()
    first = camera(log2, EFFECT, nuisance, signs)
    for second in (camera(log2, -EFFECT, nuisance, signs), camera(log2, EFFECT, nuisance, -signs)):
        np.testing.assert_allclose(second.correlation, first.correlation)
    flipped = camera(log2, -EFFECT, nuisance, signs)
    np.testing.assert_allclose(flipped.statistic, -first.statistic)
    np.testing.assert_allclose(flipped.p_value, first.p_value)


def test_order_of_genes_and_units_does_not_matter(log2, sets):
    rng = np.random.default_rng(2)
    genes, units = rng.permutation(log2.shape[1]), rng.permutation(8)
    first = camera(log2, EFFECT, DESIGNS["paired"], sets.to_numpy())
    second = camera(log2[units][:, genes], EFFECT[units], DESIGNS["paired"][units], sets.to_numpy()[genes])
    np.testing.assert_allclose(first.statistic, second.statistic)
    np.testing.assert_allclose(first.correlation, second.correlation)


def test_normal_deviates_have_the_tails_of_t():
    t = np.array([-30.0, -4.0, -1.0, 0.0, 0.5, 2.0, 10.0])
    for df, tolerance in ((3, 2e-2), (8, 1e-3), (30, 1e-5)):
        exact = -np.sign(t) * stats.norm.ppf(stats.t.sf(np.abs(t), df))
        np.testing.assert_allclose(normal_deviates(t, df), exact, rtol=tolerance, atol=1e-12)
    np.testing.assert_allclose(normal_deviates(t, np.inf), t)


def test_an_error_that_all_units_share_takes_weight_from_its_genes(log2, sets):
    signs = sets[["rising"]].to_numpy()
    error = np.where(signs[:, 0] != 0, 0.7, 0.0)
    plain = camera(log2, EFFECT, DESIGNS["paired"], signs)
    shared = camera(log2, EFFECT, DESIGNS["paired"], signs, error)
    assert 0 < shared.statistic[0] < 0.7 * plain.statistic[0]
    none = camera(log2, EFFECT, DESIGNS["paired"], signs, np.zeros(len(error)))
    assert none.statistic[0] == plain.statistic[0]


def test_what_cannot_be_tested(log2):
    nuisance = DESIGNS["paired"]
    nothing = camera(log2, EFFECT, nuisance, np.zeros((log2.shape[1], 1)))
    everything = camera(log2, EFFECT, nuisance, np.ones((log2.shape[1], 1)))
    assert np.isnan([nothing.p_value[0], nothing.statistic[0], everything.p_value[0]]).all()
    assert camera(log2, EFFECT, nuisance, np.zeros((log2.shape[1], 0))).p_value.shape == (0,)
    with pytest.raises(ValueError, match="three genes"):
        camera(log2[:, :2], EFFECT, nuisance, np.ones((2, 1)))
    with pytest.raises(ValueError, match="residual"):
        camera(log2[[0, 4]], EFFECT[[0, 4]], np.ones((2, 1)), np.ones((log2.shape[1], 1)))


def null_study(rng: np.random.Generator, n_pairs: int, correlation: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log2 expression without any effect, whose first genes move together in every unit, some the other way."""
    signs = np.zeros(N_GENES)
    signs[:SIZE] = np.where(np.arange(SIZE) % 3, 1, -1)
    noise = rng.normal(size=(2 * n_pairs, N_GENES))
    together = rng.normal(size=(2 * n_pairs, 1)) * signs[:SIZE]
    noise[:, :SIZE] = np.sqrt(1 - correlation) * noise[:, :SIZE] + np.sqrt(correlation) * together
    noise *= np.sqrt(5 / rng.chisquare(5, N_GENES))
    donors = rng.normal(size=(n_pairs, N_GENES))
    return noise + np.tile(donors, (2, 1)), np.repeat([-0.5, 0.5], n_pairs), signs


def gene_permutation_p(log2: np.ndarray, n_pairs: int, signs: np.ndarray, rng: np.random.Generator) -> float:
    """Share of 199 random sets, with the same signs, whose mean t is as far from zero: what CAMERA is to replace."""
    change = log2[n_pairs:] - log2[:n_pairs]
    t = change.mean(axis=0) / (change.std(axis=0, ddof=1) / np.sqrt(n_pairs))
    own = signs[signs != 0]
    drawn = np.array([rng.choice(t, size=len(own), replace=False) @ own for _ in range(199)])
    return float((1 + (np.abs(drawn) >= abs(t[signs != 0] @ own)).sum()) / 200)


def test_holds_its_level_where_genes_correlate_and_gene_permutation_does_not():
    """6 pairs, correlation 0.15: over 2,000 draws of the same kind CAMERA rejected 4.7%."""
    rng, n_pairs, draws = np.random.default_rng(5), 6, 600
    rejected = np.zeros(2)
    for _ in range(draws):
        log2, effect, signs = null_study(rng, n_pairs, 0.15)
        test = camera(log2, effect, np.tile(np.eye(n_pairs), (2, 1)), signs[:, None])
        rejected += [test.p_value[0] < 0.05, gene_permutation_p(log2, n_pairs, signs, rng) < 0.05]
    assert 0.03 <= rejected[0] / draws <= 0.07
    assert rejected[1] / draws > 0.25


@pytest.mark.parametrize(("n_pairs", "correlation"), [(3, 0.3), (4, 0.0), (4, 0.15), (4, 0.3)])
def test_few_pairs_never_reject_more_than_they_should(n_pairs, correlation):
    """With 2 or 3 residual degrees of freedom, or without correlation, it is cautious."""
    rng, rejected = np.random.default_rng(6), 0
    for _ in range(300):
        log2, effect, signs = null_study(rng, n_pairs, correlation)
        rejected += int(camera(log2, effect, np.tile(np.eye(n_pairs), (2, 1)), signs[:, None]).p_value[0] < 0.05)
    assert rejected / 300 <= 0.05


PROGRAMMES = {
    "up": {f"g{i:03d}": -1.0 if i < 2 else 1.0 for i in range(14)},
    "quiet": {f"g{i:03d}": 1.0 for i in range(100, 120)},
    "small": {f"g{i:03d}": 1.0 for i in range(200, 203)},
}


class Programmes:
    """One programme that rises (two of its genes fall), one that does not, one of few genes."""

    def meta_for(self, organism: str) -> pd.DataFrame:
        meta = {"compartment": "immune:all", "role": ["readout", "readout", "QC"], "expected_sign": ["+", "?", "-"]}
        return pd.DataFrame(meta, index=list(PROGRAMMES))

    def weights(self, organism: str) -> pd.DataFrame:
        names = sorted({gene for genes in PROGRAMMES.values() for gene in genes})
        return pd.DataFrame(PROGRAMMES, index=names).fillna(0.0)


def pseudobulk(n_donors: int = 5) -> AnnData:
    """Donors in both arms; the genes of "up" change by 1.5 log2, each with its sign."""
    rng = np.random.default_rng(3)
    rate = np.exp(rng.normal(0, 0.8, 400)) + 0.5
    counts, rows = [], []
    for donor in range(n_donors):
        own = rate * 2 ** rng.normal(0, 0.3, 400)
        for condition in ("control", "treated"):
            expression = own * 2 ** rng.normal(0, 0.2, 400)
            if condition == "treated":
                expression[2:14] *= 2**1.5
                expression[:2] /= 2**1.5
            counts.append(rng.poisson(expression / expression.sum() * 80_000))
            rows.append((f"{condition}{donor}", f"D{donor}", "T", "immune", "T", condition, 60))
    columns = ["sample", "donor", "cell_class", "compartment", "lineage", "condition", "n_cells"]
    obs = pd.DataFrame(rows, columns=columns, index=[f"u{number}" for number in range(len(rows))])
    return AnnData(
        X=sparse.csr_matrix(np.array(counts)), obs=obs, var=pd.DataFrame(index=[f"g{i:03d}" for i in range(400)])
    )


def enrichment(data: AnnData, **settings: int) -> pd.DataFrame:
    row = {"contrast": "q", "dataset": "ds", "variable": "condition", "test": "treated", "reference": "control"}
    question = Contrast.from_row(row)
    result = program_effects(question, {"ds": data}, Programmes(), ContrastSettings(**settings), 1)
    assert list(result.enrichment["program"]) == list(result.effects["program"])
    return result.enrichment.set_index("program")


def test_table_of_programmes():
    table = enrichment(pseudobulk())
    assert [table.index.name, *table.columns] == ["program", *(name for name in COLUMNS if name != "program")]
    up, quiet, small = table.loc["up"], table.loc["quiet"], table.loc["small"]
    assert up["statistic"] > 4 and up["fdr"] < 0.05 and up["agrees"] == "yes"
    assert up["df"] == 4 and up["genes_found"] == 14 and up["genes_outside"] > 300
    assert up["p_value"] == pytest.approx(2 * stats.t.sf(up["statistic"], 4))
    assert quiet["p_value"] > 0.05 and quiet["agrees"] == ""
    assert small["status"] == "low_coverage" and pd.isna(small["p_value"]) and "fewer than 5" in small["reason"]
    np.testing.assert_allclose(
        table.loc[["up", "quiet"], "fdr"], stats.false_discovery_control(table.loc[["up", "quiet"], "p_value"])
    )


def test_without_replicates_or_other_genes_there_is_a_reason_and_no_p_value():
    table = enrichment(pseudobulk(n_donors=1))
    assert set(table["status"]) == {"unreplicated"} and table[["statistic", "p_value", "fdr"]].isna().all(axis=None)
    table = enrichment(pseudobulk(), min_cells=1000)
    assert set(table["status"]) == {"too_few_cells"} and table["df"].isna().all()
    alone = pseudobulk()[:, [f"g{i:03d}" for i in range(14)]].copy()
    row = enrichment(alone).loc["up"]
    assert row["status"] == "low_coverage" and row["reason"].startswith("no detected genes outside")
