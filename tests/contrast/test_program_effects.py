"""Programme effects: the table's shape, its numbers against a calculation by hand, statuses and invariances."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse, stats

from immunomod.contrast.design import Contrast
from immunomod.contrast.moderation import Effects, Moderation, Noise, arm_noise, infer
from immunomod.contrast.program_effects import COLUMNS, applies_to, program_effects
from immunomod.contrast.settings import ContrastSettings
from immunomod.errors import UserError

ROW = {"contrast": "q", "dataset": "ds", "variable": "condition", "test": "treated", "reference": "control"}
CONTRACT = [
    *("contrast", "dataset", "cell_class", "program", "role", "n_test", "n_reference", "n_pairs", "cells_test"),
    *("cells_reference", "genes_found", "genes_total", "effect", "se", "ci_low", "ci_high", "df", "p_value", "fdr"),
    *("hedges_g", "p_sign_flip", "null_z", "effect_raw", "expected_sign", "agrees", "status", "reason"),
]
N_GENES = 400


@dataclass(frozen=True)
class ToyProgrammes:
    genes: dict[str, dict[str, float]]
    meta: pd.DataFrame

    def meta_for(self, organism: str) -> pd.DataFrame:
        return self.meta

    def weights(self, organism: str) -> pd.DataFrame:
        names = sorted({gene for members in self.genes.values() for gene in members})
        return pd.DataFrame(self.genes, index=names).fillna(0.0)


@pytest.fixture
def programmes() -> ToyProgrammes:
    genes = {
        "up": {f"g{i:03d}": 1.0 for i in range(10)},
        "mixed": {f"g{i:03d}": 1.0 if i < 16 else -1.0 for i in range(10, 22)},
        "quiet": {f"g{i:03d}": 1.0 for i in range(30, 50)},
        "small": {f"g{i:03d}": 1.0 for i in range(60, 64)},
        "unseen": {f"none{i}": 1.0 for i in range(8)},
        "noise": {f"g{i:03d}": 1.0 for i in range(70, 90)},
        "quality": {f"g{i:03d}": 1.0 for i in range(100, 110)},
        "for_msc": {f"g{i:03d}": 1.0 for i in range(10)},
    }
    meta = pd.DataFrame(
        {
            "compartment": ["immune:T", "immune:T", "immune:all", *["immune:all"] * 4, "MSC"],
            "role": [*["readout"] * 6, "QC", "readout"],
            "expected_sign": ["+", "-", "?", "+", "-", "?", "0", "+"],
        },
        index=list(genes),
    )
    return ToyProgrammes(genes, meta)


def make_pseudobulk(n_donors: int = 4, seed: int = 0, classes: tuple[str, ...] = ("T", "B")) -> AnnData:
    """Donors in both arms; in T cells genes 0 to 15 rise by 2 log2 in the treated arm, genes 16 to 21 fall by 2."""
    rng = np.random.default_rng(seed)
    rate = np.exp(rng.normal(0, 1, N_GENES)) + 0.3
    counts, rows = [], []
    for donor in range(n_donors):
        own = rate * np.exp(rng.normal(0, 0.2, N_GENES))
        for condition in ("control", "treated"):
            for cell_class in classes:
                expression = own.copy()
                if condition == "treated" and cell_class == "T":
                    expression[:16] *= 2 ** rng.normal(2, 0.2)
                    expression[16:22] /= 4
                counts.append(rng.poisson(expression / expression.sum() * 60_000))
                rows.append((f"{condition}_{donor}", f"D{donor}", cell_class, "immune", cell_class, condition, 80))
    obs = pd.DataFrame(
        rows, columns=["sample", "donor", "cell_class", "compartment", "lineage", "condition", "n_cells"]
    )
    obs.index = [f"u{i}" for i in range(len(obs))]
    var = pd.DataFrame(index=[f"g{i:03d}" for i in range(N_GENES)])
    return AnnData(X=sparse.csr_matrix(np.array(counts)), obs=obs, var=var)


def run(pseudobulk, programmes, seed=1, settings=None, **changes):
    question = Contrast.from_row(ROW | changes)
    return program_effects(
        question, dict.fromkeys(question.datasets, pseudobulk), programmes, settings or ContrastSettings(), seed
    )


def row_of(result, program: str, cell_class: str = "T") -> pd.Series:
    effects = result.effects
    return effects[(effects["program"] == program) & (effects["cell_class"] == cell_class)].iloc[0]


def test_columns_are_the_contract():
    assert COLUMNS == CONTRACT


def test_one_row_per_class_and_applicable_programme(programmes):
    effects = run(make_pseudobulk(), programmes).effects
    assert list(effects.columns) == CONTRACT
    found = effects.groupby("cell_class")["program"].apply(set).to_dict()
    assert found["T"] == set(programmes.genes) - {"for_msc"}
    assert found["B"] == set(programmes.genes) - {"for_msc", "up", "mixed"}
    assert not effects.duplicated(["dataset", "cell_class", "program"]).any()


def test_numbers_equal_a_calculation_by_hand(programmes):
    pseudobulk = make_pseudobulk()
    result = run(pseudobulk, programmes)
    scores = result.scores[(result.scores["cell_class"] == "T")]
    wide = scores.pivot(index="donor", columns=["program", "arm"], values="score")
    for program in ("up", "mixed", "quiet", "noise", "quality"):
        difference = wide[program]["test"] - wide[program]["reference"]
        row = row_of(result, program)
        assert row["effect"] == pytest.approx(difference.mean())
        assert row["effect_raw"] == row["effect"]
        assert row["p_sign_flip"] >= 0.125
        spread = np.sqrt((wide[program]["test"].var() + wide[program]["reference"].var()) / 2)
        assert row["hedges_g"] == pytest.approx(0.7236 * difference.mean() / spread, rel=1e-3)
        half = stats.t.ppf(0.975, row["df"]) * row["se"]
        np.testing.assert_allclose([row["ci_low"], row["ci_high"]], [row["effect"] - half, row["effect"] + half])
    assert row_of(result, "up")["effect"] == pytest.approx(2, abs=0.3)
    assert row_of(result, "mixed")["effect"] == pytest.approx(2, abs=0.3)
    assert row_of(result, "up")["p_sign_flip"] == 0.125
    assert row_of(result, "up")["null_z"] > 5
    for program in ("quiet", "noise", "quality"):
        assert abs(row_of(result, program)["effect"]) < 0.15
        assert abs(row_of(result, program)["null_z"]) < 4


def counting_variances(data: AnnData, rows: pd.DataFrame, samples: pd.Index, programmes) -> np.ndarray:
    """What counting molecules adds to the variance of each sample's score: samples x rows, all genes being detected."""
    cell_class = rows["cell_class"].iloc[0]
    of_class = data[data.obs["cell_class"] == cell_class]
    counts = pd.DataFrame(of_class.X.toarray(), index=of_class.obs["sample"], columns=data.var_names).loc[samples]
    columns = []
    for program in rows["program"]:
        weights = pd.Series(programmes.genes[program])
        weights = weights / weights.abs().sum()
        columns.append((1 / counts[weights.index].clip(lower=1)) @ weights**2 / np.log(2) ** 2)
    return np.column_stack(columns)


def test_errors_are_moderated_over_all_classes(programmes):
    """The standard errors of both classes, from the written scores and the counts."""
    data = make_pseudobulk()
    result = run(data, programmes)
    tested = result.effects[result.effects["status"] == "tested"]
    classes = []
    for cell_class, rows in tested.groupby("cell_class"):
        scores = result.scores[result.scores["cell_class"] == cell_class]
        wide = scores.pivot(index="donor", columns=["arm", "program"], values="score")
        change = (wide["test"] - wide["reference"])[rows["program"]]
        # residuals of a fit to both arms: half of the difference's, with opposite signs
        half = ((change - change.mean()) / 2).to_numpy()
        samples = pd.Index([f"{arm}_{donor}" for arm in ("treated", "control") for donor in range(4)])
        counting = counting_variances(data, rows, samples, programmes).mean(axis=0)
        noise = Noise("pairs", np.concatenate([half, -half]), change.var().to_numpy() / 2, counting, 3.0, 0.5)
        classes.append(Effects(change.mean().to_numpy(), (noise,)))
        assert len(rows) > 1, cell_class
    moderation = Moderation(classes)
    expected = infer(moderation.estimate, moderation.errors, 0.95)._asdict()
    ordered = tested.sort_values("cell_class", kind="stable").rename(columns={"ci_low": "low", "ci_high": "high"})
    for name, values in expected.items():
        np.testing.assert_allclose(ordered[name], values, err_msg=name)
        assert (rows["df"] > 3).all()


def test_score_is_the_signed_mean_of_its_genes(programmes):
    result = run(make_pseudobulk(), programmes)
    genes = result.genes[(result.genes["program"] == "mixed") & (result.genes["cell_class"] == "T")]
    assert genes["detected"].all() and set(genes["direction"]) == {"+", "-"}
    signed = genes["log2_change"] * genes["direction"].map({"+": 1, "-": -1})
    assert row_of(result, "mixed")["effect"] == pytest.approx(signed.mean())


def test_agreement_with_the_expected_sign(programmes):
    result = run(make_pseudobulk(), programmes)
    assert row_of(result, "up")["agrees"] == "yes"
    assert row_of(result, "mixed")["agrees"] == "no"
    assert row_of(result, "quiet")["agrees"] == ""
    assert row_of(result, "quality")["agrees"] == ""


def test_low_coverage_names_the_genes(programmes):
    result = run(make_pseudobulk(), programmes)
    small, unseen = row_of(result, "small"), row_of(result, "unseen")
    assert small["status"] == unseen["status"] == "low_coverage"
    assert (small["genes_found"], small["genes_total"]) == (4, 4)
    assert (unseen["genes_found"], unseen["genes_total"]) == (0, 8)
    assert small["reason"] == "4 of 4 genes detected (g060, g061, g062, g063), fewer than 5"
    assert small[["effect", "p_value", "fdr"]].isna().all()


def test_fdr_is_within_data_set_and_role(programmes):
    effects = run(make_pseudobulk(), programmes).effects
    for role in ("readout", "QC"):
        rows = effects[(effects["role"] == role) & (effects["status"] == "tested")]
        np.testing.assert_allclose(rows["fdr"], stats.false_discovery_control(rows["p_value"]))
    assert effects.loc[effects["status"] != "tested", ["p_value", "fdr"]].isna().all().all()


def test_swapping_the_arms_flips_signs_and_nothing_else(programmes):
    plain = run(make_pseudobulk(), programmes).effects
    swapped = run(make_pseudobulk(), programmes, test="control", reference="treated").effects
    for name in ("effect", "effect_raw", "hedges_g"):
        assert (plain[name].dropna() == -swapped[name].dropna()).all()
    for name in ("se", "df", "p_value", "fdr", "p_sign_flip", "genes_found"):
        pd.testing.assert_series_equal(plain[name], swapped[name])
    np.testing.assert_allclose(plain["null_z"], -swapped["null_z"])


def test_order_and_names_do_not_matter(programmes):
    pseudobulk = make_pseudobulk()
    plain = run(pseudobulk, programmes).effects
    rng = np.random.default_rng(5)
    shuffled = pseudobulk[rng.permutation(pseudobulk.n_obs)][:, rng.permutation(pseudobulk.n_vars)].copy()
    pd.testing.assert_frame_equal(plain, run(shuffled, programmes).effects, rtol=1e-9)
    renamed = pseudobulk.copy()
    renamed.obs["donor"] = renamed.obs["donor"].map({"D0": "zeta", "D1": "a", "D2": "M", "D3": "0"})
    renamed.obs["condition"] = renamed.obs["condition"].map({"treated": "A", "control": "B"})
    renamed_result = run(renamed, programmes, test="A", reference="B").effects
    pd.testing.assert_frame_equal(plain, renamed_result, rtol=1e-9)


def test_other_classes_lend_their_variances_and_nothing_else(programmes):
    both = run(make_pseudobulk(), programmes)
    pseudobulk = make_pseudobulk()
    alone = run(pseudobulk[pseudobulk.obs["cell_class"] == "T"].copy(), programmes)
    lent = ["se", "ci_low", "ci_high", "df", "p_value", "fdr"]
    for program in ("up", "quiet"):
        first, second = row_of(both, program), row_of(alone, program)
        pd.testing.assert_series_equal(first.drop(lent), second.drop(lent), check_names=False)
        assert first["se"] != second["se"]
        assert first["se"] == pytest.approx(second["se"], rel=0.3)


def test_unpaired_arms_have_a_relabelling_p(programmes):
    pseudobulk = make_pseudobulk()
    pseudobulk.obs["donor"] = pseudobulk.obs["sample"]
    result = run(pseudobulk, programmes)
    row = row_of(result, "up")
    assert (row["n_test"], row["n_reference"], row["n_pairs"]) == (4, 4, 0)
    assert row["p_sign_flip"] == pytest.approx(2 / 70)
    scores = result.scores.query("cell_class == 'T' and program == 'up'")
    test, reference = (scores.loc[scores["arm"] == arm, "score"] for arm in ("test", "reference"))
    pooled = np.sqrt((test.var() + reference.var()) / 2)
    correction = np.exp(np.log(1 - 3 / (4 * 6 - 1)))
    assert row["hedges_g"] == pytest.approx(correction * (test.mean() - reference.mean()) / pooled, rel=5e-3)


def test_unpaired_arms_of_different_size_have_variances_of_their_own(programmes):
    pseudobulk = make_pseudobulk()
    pseudobulk.obs["donor"] = pseudobulk.obs["sample"]
    data = pseudobulk[pseudobulk.obs["sample"] != "treated_3"].copy()
    result = run(data, programmes)
    tested = result.effects[result.effects["status"] == "tested"].sort_values(["cell_class", "program"])
    classes = []
    for cell_class, rows in tested.groupby("cell_class"):
        scores = result.scores[result.scores["cell_class"] == cell_class]
        wide = scores.pivot(index="sample", columns="program", values="score")[rows["program"]]
        in_test = wide.index.str.startswith("treated")
        assert (in_test.sum(), (~in_test).sum()) == (3, 4)
        counting = counting_variances(data, rows, wide.index, programmes)
        classes.append(Effects(rows["effect"].to_numpy(), arm_noise(wide.to_numpy(), counting, in_test)))
    moderation = Moderation(classes)
    expected = infer(moderation.estimate, moderation.errors, 0.95)._asdict()
    ordered = tested.sort_values("cell_class", kind="stable").rename(columns={"ci_low": "low", "ci_high": "high"})
    for name, values in expected.items():
        np.testing.assert_allclose(ordered[name], values, err_msg=name)


def test_every_status_keeps_its_rows(programmes):
    everything = run(make_pseudobulk(), programmes).effects
    key = ["cell_class", "program"]

    one_donor = run(make_pseudobulk(n_donors=1), programmes).effects
    pd.testing.assert_frame_equal(one_donor[key], everything[key])
    scored = one_donor["genes_found"] >= 5
    assert set(one_donor["status"]) == {"unreplicated"}
    assert one_donor.loc[scored, "effect"].notna().all()
    assert one_donor[["p_value", "fdr", "se"]].isna().all().all()
    assert one_donor["reason"].str.contains("cells are not replicates").all()

    starved = make_pseudobulk()
    starved.obs["n_cells"] = 4
    effects = run(starved, programmes).effects
    pd.testing.assert_frame_equal(effects[key], everything[key])
    assert set(effects["status"]) == {"too_few_cells"}

    lone = make_pseudobulk()
    effects = run(lone[lone.obs["condition"] == "control"].copy(), programmes).effects
    pd.testing.assert_frame_equal(effects[key], everything[key])
    assert set(effects["status"]) == {"absent"}

    batched = make_pseudobulk()
    batched.obs["batch"] = batched.obs["condition"]
    effects = run(batched, programmes).effects
    pd.testing.assert_frame_equal(effects[key], everything[key])
    assert set(effects["status"]) == {"confounded"}
    assert effects["p_value"].isna().all()


def test_all_zero_counts_do_not_crash(programmes):
    pseudobulk = make_pseudobulk()
    pseudobulk.X = sparse.csr_matrix(pseudobulk.shape, dtype=np.int64)
    assert set(run(pseudobulk, programmes).effects["status"]) == {"low_coverage"}


def test_trend_recovers_a_slope(programmes):
    rng = np.random.default_rng(0)
    rate = np.exp(rng.normal(0, 1, N_GENES)) + 0.3
    rows, counts = [], []
    for donor in range(3):
        for dose in (0.0, 0.5, 1.0):
            expression = rate * np.where(np.arange(N_GENES) < 10, 2 ** (1.5 * dose), 1)
            counts.append(rng.poisson(expression / expression.sum() * 80_000))
            rows.append((f"s{donor}{dose}", f"D{donor}", "T", "immune", "T", str(dose), 60))
    columns = ["sample", "donor", "cell_class", "compartment", "lineage", "dose", "n_cells"]
    pseudobulk = AnnData(
        X=sparse.csr_matrix(np.array(counts)),
        obs=pd.DataFrame(rows, columns=columns, index=[f"u{i}" for i in range(len(rows))]),
        var=pd.DataFrame(index=[f"g{i:03d}" for i in range(N_GENES)]),
    )
    result = run(pseudobulk, programmes, variable="dose", test="", reference="")
    row = row_of(result, "up")
    assert row["status"] == "tested"
    assert row["effect"] == pytest.approx(1.5, abs=0.25)
    assert row["p_sign_flip"] == 0.25
    assert np.isnan(row["hedges_g"])


def test_several_data_sets_stand_below_each_other(programmes):
    effects = run(make_pseudobulk(), programmes, dataset="a,b").effects
    assert list(effects["dataset"].unique()) == ["a", "b"]
    first, second = (effects[effects["dataset"] == name].reset_index(drop=True) for name in ("a", "b"))
    assert (first["effect"].dropna() == second["effect"].dropna()).all()
    np.testing.assert_allclose(first["fdr"], second["fdr"])


def test_same_seed_same_numbers_other_seed_other_random_sets(programmes):
    first, again = (
        run(make_pseudobulk(), programmes, seed=3).effects,
        run(make_pseudobulk(), programmes, seed=3).effects,
    )
    pd.testing.assert_frame_equal(first, again)
    other = run(make_pseudobulk(), programmes, seed=4).effects
    assert not first["null_z"].equals(other["null_z"])
    pd.testing.assert_series_equal(first["p_value"], other["p_value"])


@pytest.mark.parametrize(
    ("program", "compartment", "lineage", "expected"),
    [
        ("MSC", "MSC", "MSC", True),
        ("MSC", "immune", "T", False),
        ("both", "MSC", "MSC", True),
        ("both", "immune", "B", True),
        ("both", "other", "endothelial", False),
        ("immune:all", "immune", "NK", True),
        ("immune:all", "MSC", "MSC", False),
        ("immune:T", "immune", "T", True),
        ("immune:T", "immune", "NK", False),
        ("immune:mono/mac", "immune", "monocyte", True),
        ("immune:mono/mac", "immune", "DC", False),
        ("immune:B", "immune", "B", True),
        ("immune:DC", "immune", "DC", True),
        ("immune:NK", "other", "NK", False),
    ],
)
def test_where_a_programme_is_tested(program, compartment, lineage, expected):
    assert applies_to(program, compartment, lineage) is expected


@pytest.mark.parametrize("section", [{"min_cells": 0}, {"confidence": 1.0}, {"min_count": 0}, {"n_random_sets": 1}])
def test_senseless_settings_are_refused(section):
    with pytest.raises(UserError, match=next(iter(section))):
        ContrastSettings.from_config(section)


def test_settings_of_others_are_passed_over():
    assert ContrastSettings.from_config({"allow_unreplicated": True, "min_cells": 20}).min_cells == 20


def make_msc(n_lines: int = 3, cultures: int = 2, seed: int = 0) -> AnnData:
    """MSC donors, each once alone and in several co-cultures with immune cells of other donors."""
    base = make_pseudobulk(n_donors=n_lines * (1 + cultures), seed=seed, classes=("MSC",))
    reference = [f"control_{i}" for i in range(n_lines)]
    rest = [f"treated_{i}" for i in range(n_lines, n_lines * (1 + cultures))]
    data = base[base.obs["sample"].isin([*reference, *rest])].copy()
    number = data.obs["sample"].str.split("_").str[1].astype(int)
    data.obs["msc_donor"] = [f"M{i % n_lines}" for i in number]
    return data.copy()


def test_libraries_of_an_msc_donor_are_scored_one_by_one(programmes):
    data = make_msc()
    data.obs["compartment"] = "MSC"
    result = run(data, programmes)
    assert set(result.scores["block"]) == {"M0", "M1", "M2"}
    assert result.scores.groupby("program").size().eq(6).all()
    single = result.msc_scores
    assert single.groupby("program").size().eq(9).all()
    assert set(single["sample"]) == set(data.obs["sample"])
    assert single["common_se"].eq(0).all()
    means = single[single["program"] == "for_msc"].groupby("arm")["score"].mean()
    assert means["test"] - means["reference"] == pytest.approx(row_of(result, "for_msc", "MSC")["effect"], abs=0.1)


def test_scores_of_libraries_are_those_of_the_model_where_nothing_is_added_up(programmes):
    data = make_msc(cultures=1)
    data.obs["compartment"] = "MSC"
    result = run(data, programmes)
    key = ["program", "sample"]
    both = result.scores.merge(result.msc_scores, on=key, suffixes=("", "_single"), validate="1:1")
    assert len(both) == len(result.scores)
    np.testing.assert_allclose(both["score"], both["score_single"])


def test_only_msc_have_scores_of_libraries(programmes):
    assert run(make_pseudobulk(), programmes).msc_scores.empty
