"""All tables of a contrast together: what must not change an answer, and what every odd study must end in."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from immunomod.contrast.run import ContrastResult, run_contrast
from immunomod.contrast.settings import GENE_METHODS, ContrastSettings

ROW = {"contrast": "q", "dataset": "ds", "variable": "condition", "test": "treated", "reference": "control"}
N_GENES = 300
SIGNED = ("effect", "effect_raw", "hedges_g", "log2_fold_change", "log2_fold_change_shrunk", "statistic", "log2_change")
#: Columns that are the other arm's, or mean the same seen from the other side.
MIRRORED = ("ci_low", "ci_high", "null_z", "agrees", "contrast", "arm", "model", "reason")
SIDES = ("n_test", "n_reference", "cells_test", "cells_reference", "of_test", "of_reference")


class Programmes:
    """Two programmes of the toy genes, and one of which the data hold no gene."""

    def meta_for(self, organism: str) -> pd.DataFrame:
        columns = {"compartment": "both", "role": "readout", "expected_sign": ["+", "?", "+"]}
        return pd.DataFrame(columns, index=["up", "mixed", "not listed"])

    def weights(self, organism: str) -> pd.DataFrame:
        names = [f"g{number:03d}" for number in range(24)] + [f"other{number}" for number in range(8)]
        table = pd.DataFrame(0.0, index=names, columns=["up", "mixed", "not listed"])
        table.iloc[:12, 0] = 1.0
        table.iloc[12:24, 1] = [1.0, -1.0] * 6
        table.iloc[24:, 2] = 1.0
        return table


def study(n_donors: int = 4, seed: int = 0, leaks: bool = True) -> AnnData:
    rng = np.random.default_rng(seed)
    rate = np.exp(rng.normal(0, 1, N_GENES))
    counts, rows = [], []
    for donor in range(n_donors):
        own = rate * np.exp(rng.normal(0, 0.2, N_GENES))
        for condition in ("control", "treated"):
            for cell_class, compartment, lineage, n_cells in (
                ("CD4_T", "immune", "T", 200),
                ("Treg", "immune", "T", 24),
                ("B", "immune", "B", 60),
                ("MSC", "MSC", "MSC", 120),
            ):
                expression = own * np.where((np.arange(N_GENES) < 12) & (condition == "treated"), 3, 1)
                mean = expression / expression.sum() * n_cells * 400 * np.exp(rng.normal(0, 0.2))
                counts.append(rng.negative_binomial(20, 20 / (20 + mean)))
                cells = int(n_cells * rng.uniform(0.6, 1.4))
                row = (f"{condition}{donor}", f"D{donor}", condition, cell_class, compartment, lineage)
                rows.append((*row, cells, int(rng.binomial(cells, 0.1)), cells, f"{donor % 2}", rng.normal()))
    names = ["sample", "donor", "condition", "cell_class", "compartment", "lineage"]
    names += ["n_cells", "cells_cycling", "cells_with_phase", "kit", "mean_S_score"]
    obs = pd.DataFrame(rows, columns=names, index=[f"u{number}" for number in range(len(rows))])
    data = AnnData(
        X=sparse.csr_matrix(np.array(counts)),
        obs=obs,
        var=pd.DataFrame(index=[f"g{number:03d}" for number in range(N_GENES)]),
    )
    if leaks:
        leaked = (
            0.05 * rng.permutation(rate)[None, :] / rate.mean() * (obs["condition"] == "treated").to_numpy()[:, None]
        )
        leaked = leaked * np.asarray(data.X.sum(axis=1)) / N_GENES
        data.layers["leaked"] = sparse.csr_matrix(leaked, dtype=np.float32)
        data.layers["leaked_variance"] = sparse.csr_matrix(leaked * 1.2, dtype=np.float32)
        data.obs["leaked_error"] = 0.05
    return data


def answer(data: AnnData, method: str = "deseq2", **changes: str) -> ContrastResult:
    settings = ContrastSettings(n_random_sets=20, gene_method=method)
    return run_contrast(ROW | changes, {"ds": data}, Programmes(), settings, 1)


def tables_of(result: ContrastResult) -> dict[str, pd.DataFrame]:
    tables = {entry.name: getattr(result, entry.name) for entry in dataclasses.fields(result) if entry.name != "genes"}
    return tables | {f"genes of {name}": table for name, table in result.genes.items()}


@pytest.mark.parametrize("method", GENE_METHODS)
@pytest.mark.parametrize("covariates", ["", "mean_S_score"])
def test_exchanged_arms_flip_every_sign_exactly(method, covariates):
    data = study()
    one = tables_of(answer(data, method, covariates=covariates))
    other = tables_of(answer(data, method, covariates=covariates, test="control", reference="treated"))
    for name, table in one.items():
        mirrored = other[name]
        if name == "program_scores":
            continue  # levels of replicates have no direction
        for column in table.columns:
            if column in SIDES:
                left = mirrored[
                    column.replace("test", "reference") if "test" in column else column.replace("reference", "test")
                ]
                assert (table[column] == left).all(), (name, column)
            elif column in SIGNED:
                values = table[column].to_numpy(dtype=float)
                np.testing.assert_array_equal(values, -mirrored[column].to_numpy(dtype=float), f"{name} {column}")
            elif column not in MIRRORED:
                pd.testing.assert_series_equal(
                    table[column], mirrored[column], check_exact=True, obj=f"{name} {column}"
                )
        if "ci_low" in table:
            np.testing.assert_array_equal(table["ci_low"].astype(float), -mirrored["ci_high"].astype(float))
    tested = one["program_effects"].query("status == 'tested'")
    assert len(tested) == 8 and len(one["genes of CD4_T"]) > 150


@pytest.mark.parametrize("method", GENE_METHODS)
def test_the_order_of_rows_genes_and_covariates_has_no_say(method):
    data = study()
    rng = np.random.default_rng(1)
    shuffled = data[rng.permutation(data.n_obs)][:, rng.permutation(data.n_vars)].copy()
    one = tables_of(answer(data, method, covariates="mean_S_score, kit"))
    other = tables_of(answer(shuffled, method, covariates="kit, mean_S_score"))
    for name, table in one.items():
        keys = [key for key in ("cell_class", "program", "fraction", "gene", "sample", "donor") if key in table]
        frames = [
            part.sort_values(keys, ignore_index=True).drop(columns=["model"], errors="ignore")
            for part in (table, other[name])
        ]
        pd.testing.assert_frame_equal(*frames, rtol=1e-5, atol=1e-9, obj=name)


def odd(fault: str) -> tuple[AnnData, dict[str, str]]:
    """A study with a fault, and what its row of ``contrasts.tsv`` says differently."""
    data = study()
    obs = data.obs
    if fault == "two donors per arm, unpaired":
        data = data[obs["condition"].eq("treated") == obs["donor"].isin(["D0", "D1"])].copy()
    if fault == "one donor":
        data = data[obs["donor"] == "D0"].copy()
    if fault == "one replicate per arm, different donors":
        keep = (obs["sample"] == "treated0") | (obs["sample"] == "control1")
        data = data[keep].copy()
    if fault == "an arm lacks a class":
        data = data[~((obs["cell_class"] == "CD4_T") & (obs["condition"] == "control"))].copy()
    if fault == "an arm is missing":
        data = data[obs["condition"] == "treated"].copy()
    if fault == "three cells":
        data.obs.loc[obs["cell_class"] == "CD4_T", ["n_cells", "cells_with_phase", "cells_cycling"]] = [3, 3, 0]
    if fault == "no counts":
        data.X = sparse.csr_matrix(data.shape, dtype=np.int64)
    if fault == "one count":
        one = np.zeros(data.shape, dtype=np.int64)
        one[0, 0] = 1
        data.X = sparse.csr_matrix(one)
    if fault == "all leaked":
        data.layers["leaked"] = sparse.csr_matrix(data.X, dtype=np.float32) * 2
    if fault == "one gene":
        data = data[:, :1].copy()
    if fault == "same counts everywhere":
        data.X = sparse.csr_matrix(np.tile(np.arange(N_GENES) + 1, (data.n_obs, 1)))
    if fault == "no cells at all":
        data = data[:0].copy()
    changes = {"covariates": "copy"} if fault == "a covariate is the condition" else {}
    data.obs["copy"] = data.obs["condition"]
    return data, changes


STATUSES = {
    "two donors per arm, unpaired": "tested",
    "one donor": "unreplicated",
    "one replicate per arm, different donors": "unreplicated",
    "an arm lacks a class": "absent",
    "an arm is missing": "absent",
    "three cells": "too_few_cells",
    "a covariate is the condition": "confounded",
    "no counts": "low_coverage",
    "one count": "low_coverage",
    "all leaked": "low_coverage",
    "one gene": "tested",
    "same counts everywhere": "tested",
    "no cells at all": "",
}


@pytest.mark.parametrize("method", GENE_METHODS)
@pytest.mark.parametrize("fault", STATUSES)
def test_every_odd_study_ends_in_a_status_and_a_sentence(fault, method):
    data, changes = odd(fault)
    result = answer(data, method, **changes)
    for name in ("program_effects", "gene_tests", "composition", "fractions", "design"):
        table = getattr(result, name)
        untested = table["status"] != "tested"
        assert table.loc[untested, "reason"].str.len().gt(15).all(), (name, table["reason"].tolist())
        if "p_value" in table:
            assert table.loc[untested, ["p_value", "fdr"]].isna().all().all(), name
            assert table.loc[~untested, "p_value"].notna().all(), name
    tests = result.gene_tests.set_index("cell_class")
    for cell_class, table in result.genes.items():
        assert (tests.at[cell_class, "status"] == "tested") == bool(len(table))
        assert tests.at[cell_class, "genes_tested"] == table["p_value"].notna().sum()
        assert table.loc[table["p_value"].isna(), "fdr"].isna().all()
    if fault == "no cells at all":
        assert tests.empty and result.program_effects.empty
        return
    expected = "not_fitted" if (fault, method) == ("one gene", "deseq2") else STATUSES[fault]
    assert tests.at["CD4_T", "status"] == expected, tests.at["CD4_T", "reason"]
    rows = result.program_effects[result.program_effects["cell_class"] == "CD4_T"].set_index("program")
    assert len(rows) == 3
    if (result.design.set_index("cell_class")["status"] == "tested")["CD4_T"]:
        assert rows.at["not listed", "status"] == "low_coverage"
        assert "0 of 8 genes" in rows.at["not listed", "reason"]
