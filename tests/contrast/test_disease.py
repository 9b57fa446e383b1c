"""Co-culture against disease signatures: known truth, the same machinery as programmes, statuses and invariances."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse, stats

from immunomod.contrast.design import Contrast
from immunomod.contrast.disease import COLUMNS, disease_effects
from immunomod.contrast.program_effects import program_effects
from immunomod.contrast.settings import ContrastSettings
from immunomod.diseases import SHIPPED, DiseaseSet, load_diseases
from immunomod.programs import load_programs

ROW = {"contrast": "q", "dataset": "ds", "variable": "condition", "test": "treated", "reference": "control"}
SETTINGS = ContrastSettings(n_random_sets=20)
N_GENES = 300


def make_diseases() -> DiseaseSet:
    """Signatures of which co-culture lowers one, raises one, and leaves the rest."""
    signatures = {
        "sick/lowered": {f"g{i:03d}": 1.0 for i in range(10)},
        "sick/raised": {f"g{i:03d}": -1.0 for i in range(10)},
        "sick/weighted": {"g000": 3.0, "g001": 1.0, "g200": 1.0, "g201": 1.0, "g202": -2.0},
        "well/quiet": {f"g{i:03d}": 1.0 for i in range(100, 120)},
        "well/small": {f"g{i:03d}": 1.0 for i in range(120, 123)},
        "well/b_cells": {f"g{i:03d}": 1.0 for i in range(130, 140)},
    }
    table = pd.DataFrame(
        {
            "disease": [name.split("/")[0] for name in signatures],
            "signature": [name.split("/")[1] for name in signatures],
            "compartment": [*["immune:T"] * 5, "immune:B"],
            "programs": "",
            "source": "doi:x",
        },
        index=pd.Index(list(signatures), name="name"),
    )
    members = [
        (name, "human", gene, weight, weight > 0)
        for name, genes in signatures.items()
        for gene, weight in genes.items()
    ]
    return DiseaseSet(table, pd.DataFrame(members, columns=["name", "organism", "gene", "weight", "verified"]))


def make_pseudobulk(n_donors=4, seed=0, organism="human") -> AnnData:
    """In T cells genes 0 to 9 fall by 1.5 log2 in the treated arm; nothing else changes."""
    rng = np.random.default_rng(seed)
    rate = np.exp(rng.normal(0, 0.5, N_GENES)) + 0.5
    rows, counts = [], []
    for donor in range(n_donors):
        own = rate * np.exp(rng.normal(0, 0.2, N_GENES))
        for condition in ("control", "treated"):
            for cell_class, compartment in (("T", "immune"), ("B", "immune"), ("MSC", "MSC")):
                level = own.copy()
                if condition == "treated" and cell_class == "T":
                    level[:10] *= 2 ** rng.normal(-1.5, 0.1)
                counts.append(rng.poisson(level / level.sum() * 80_000))
                sample = f"{condition}_{donor}"
                rows.append((sample, f"D{donor}", cell_class, compartment, cell_class, condition, 60, organism))
    columns = ["sample", "donor", "cell_class", "compartment", "lineage", "condition", "n_cells", "organism"]
    obs = pd.DataFrame(rows, columns=columns, index=[f"u{i}" for i in range(len(rows))])
    return AnnData(
        sparse.csr_matrix(np.array(counts)), obs=obs, var=pd.DataFrame(index=[f"g{i:03d}" for i in range(N_GENES)])
    )


def answer(pseudobulk, diseases=None, **changes) -> pd.DataFrame:
    row = ROW | changes
    return disease_effects(row, {"ds": pseudobulk}, diseases or make_diseases(), SETTINGS, 1)


def of(table, signature) -> pd.Series:
    return table[table["signature"] == signature].iloc[0]


def test_a_negative_effect_pushes_against_the_disease():
    table = answer(make_pseudobulk())
    assert list(table.columns) == COLUMNS
    lowered, raised, quiet = (of(table, name) for name in ("lowered", "raised", "quiet"))
    assert lowered["effect"] == pytest.approx(-1.5, abs=0.15) and lowered["pushes"] == "against"
    assert raised["effect"] == pytest.approx(1.5, abs=0.15) and raised["pushes"] == "towards"
    assert quiet["pushes"] == "undecided" and abs(quiet["effect"]) < 0.1
    assert (lowered["genes_found"], lowered["genes_total"], lowered["genes_verified"]) == (10, 10, 10)
    assert raised["genes_verified"] == 0
    assert (lowered["disease"], lowered["source"]) == ("sick", "doi:x")


def test_weights_weigh():
    """3/8 + 1/8 of the weight lies on genes that fall by 1.5, the rest on genes that stay."""
    effect = of(answer(make_pseudobulk()), "weighted")["effect"]
    assert effect == pytest.approx(-1.5 * 4 / 8, abs=0.15)


def test_the_numbers_are_those_of_programme_effects():
    pseudobulk, diseases = make_pseudobulk(), make_diseases()
    plain = program_effects(Contrast.from_row(ROW), {"ds": pseudobulk}, diseases, SETTINGS, 1).effects
    table = answer(pseudobulk)
    for name in ("effect", "se", "ci_low", "ci_high", "p_value", "null_z", "p_sign_flip", "effect_raw"):
        np.testing.assert_array_equal(plain[name], table[name])


def test_signatures_are_a_family_of_their_own():
    table = answer(make_pseudobulk())
    tested = table[table["status"] == "tested"]
    np.testing.assert_allclose(tested["fdr"], stats.false_discovery_control(tested["p_value"]))


def test_signatures_are_tested_in_their_own_cells():
    table = answer(make_pseudobulk())
    assert set(table.loc[table["cell_class"] == "B", "signature"]) == {"b_cells"}
    assert "MSC" not in set(table["cell_class"])


def test_rows_that_cannot_be_tested_say_why():
    table = answer(make_pseudobulk())
    small = of(table, "small")
    assert small["status"] == "low_coverage" and small["pushes"] == ""
    assert small["reason"] == "3 of 3 genes detected (g120, g121, g122), fewer than 5"
    single = answer(make_pseudobulk(n_donors=1))
    assert set(single["status"]) == {"unreplicated"} and (single["pushes"] == "").all()
    assert of(single, "lowered")["effect"] == pytest.approx(-1.5, abs=0.3)
    lone = make_pseudobulk()
    assert set(answer(lone[lone.obs["condition"] == "control"].copy())["status"]) == {"absent"}
    mouse = answer(make_pseudobulk(organism="mouse"))
    assert set(mouse["status"]) == {"low_coverage"}
    assert mouse["reason"].eq("the signature names no gene of mouse").all()


def test_no_signature_and_no_class_give_an_empty_table():
    none = DiseaseSet(make_diseases().table.iloc[:0], make_diseases().members.iloc[:0])
    assert list(answer(make_pseudobulk(), none).columns) == COLUMNS
    data = make_pseudobulk()
    assert answer(data[data.obs["cell_class"] == "MSC"].copy()).empty


def test_swapped_arms_flip_the_sign_and_order_does_not_matter():
    data = make_pseudobulk()
    plain, swapped = answer(data), answer(data, test="control", reference="treated")
    np.testing.assert_array_equal(plain["effect"], -swapped["effect"])
    assert of(swapped, "lowered")["pushes"] == "towards"
    rng = np.random.default_rng(2)
    shuffled = data[rng.permutation(data.n_obs)][:, rng.permutation(data.n_vars)].copy()
    diseases = make_diseases()
    mixed = DiseaseSet(diseases.table, diseases.members.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(plain, answer(shuffled, mixed), rtol=1e-9)


def test_untouched_signatures_are_seldom_called():
    called = [of(answer(make_pseudobulk(seed=seed)), "quiet")["pushes"] != "undecided" for seed in range(40)]
    assert np.mean(called) <= 0.15


def test_the_shipped_signatures_run_on_real_symbols():
    programs = load_programs()
    diseases = load_diseases([SHIPPED], programs)
    data = make_pseudobulk()
    named = diseases.weights("human").index[:N_GENES]
    data = data[:, : len(named)].copy()
    data.var_names = named
    table = answer(data, diseases)
    assert {"type1_interferon", "plasmablast"} <= set(table["signature"])
    assert table["status"].isin(["tested", "low_coverage"]).all()
    assert (table["genes_verified"] <= table["genes_total"]).all()
