"""A whole contrast on real data: GSE96583 with the authors' labels, interferon beta against none."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad

from immunomod.contrast.pseudobulk import pseudobulk
from immunomod.contrast.run import run_contrast
from immunomod.contrast.settings import ContrastSettings
from immunomod.errors import UserError
from immunomod.programs import load_programs

ROW = {"contrast": "ifnb", "dataset": "GSE96583", "variable": "condition", "test": "stim", "reference": "ctrl"}
LINEAGES = {
    "CD4 T cells": ("CD4_T", "T"),
    "CD8 T cells": ("CD8_T", "T"),
    "NK cells": ("NK", "NK"),
    "B cells": ("B", "B"),
    "Dendritic cells": ("DC", "DC"),
    "Megakaryocytes": ("megakaryocyte", "megakaryocyte"),
    "CD14+ Monocytes": ("CD14_monocyte", "monocyte"),
    "FCGR3A+ Monocytes": ("CD16_monocyte", "monocyte"),
}


@pytest.fixture(scope="module")
def cells(shared) -> AnnData:
    data = read_h5ad(shared / "data" / "kang" / "kang2000_ctrl_stim_8donors.h5ad")
    named = data.obs["cell_type"].astype(str).map(LINEAGES)
    data.obs = pd.DataFrame(
        {
            "sample": data.obs["condition"].astype(str),
            "condition": data.obs["condition"].astype(str),
            "donor": data.obs["donor"].astype(str),
            "cell_class": [name for name, _ in named],
            "compartment": "immune",
            "lineage": [lineage for _, lineage in named],
        },
        index=data.obs_names,
    )
    return data


def answer(cells: AnnData, obs: pd.DataFrame, **changes: str):
    labelled = AnnData(X=cells.X, obs=obs, var=cells.var)
    return run_contrast(
        ROW | changes, {"GSE96583": pseudobulk([labelled], obs)}, load_programs(), ContrastSettings(), 1
    )


@pytest.fixture(scope="module")
def result(cells):
    return answer(cells, cells.obs)


@pytest.mark.slow
def test_interferon_response_is_found_in_every_class_with_four_pairs(result):
    effects = result.program_effects
    rows = effects[(effects["program"] == "imm_type1_ifn") & (effects["n_pairs"] >= 4)]
    assert len(rows) >= 2
    assert (rows["fdr"] < 0.05).all()
    assert (rows["effect"] > 2).all()
    assert (rows["null_z"] > 4).all()
    assert rows.loc[rows["n_pairs"] == 8, "p_sign_flip"].eq(2 / 2**8).all()


@pytest.mark.slow
def test_camera_finds_the_interferon_response_too(result):
    """It must move more than the other genes do: hardest in CD14 monocytes, where its genes vary together."""
    table = result.program_enrichment
    assert list(table["program"]) == list(result.program_effects["program"])
    rows = table[(table["program"] == "imm_type1_ifn") & (table["df"] >= 2)].set_index("cell_class")
    assert set(rows.index) == {"B", "CD14_monocyte", "CD16_monocyte", "CD4_T", "NK"}
    assert (rows["p_value"] < 0.05).all() and (rows["statistic"] > 2).all()
    assert rows.at["CD14_monocyte", "inter_gene_correlation"] > 0.2
    assert rows.at["CD4_T", "p_value"] < 1e-3


@pytest.mark.slow
def test_every_class_is_in_every_table(result):
    classes = {name for name, _ in LINEAGES.values()}
    assert set(result.program_effects["cell_class"]) == classes
    assert set(result.design["cell_class"]) == set(result.composition["cell_class"]) == set(result.genes) == classes
    status = result.design.set_index("cell_class")["status"]
    assert status["megakaryocyte"] == status["DC"] == "too_few_cells"
    assert (result.design["status"].eq("tested") == result.design["reason"].eq("")).all()
    assert len(result.genes["CD14_monocyte"]) > 400
    assert result.genes["DC"].empty
    untested = result.program_effects[result.program_effects["status"] != "tested"]
    assert untested["reason"].str.len().gt(10).all()
    assert untested[["p_value", "fdr"]].isna().all().all()


@pytest.mark.slow
def test_scores_and_genes_of_programmes_fit_the_effects(result):
    effects = result.program_effects.set_index(["cell_class", "program"])
    tested = effects[(effects["status"] == "tested") & (effects["n_pairs"] > 0)]
    scores = result.program_scores.groupby(["cell_class", "program", "arm"])["score"].mean().unstack()
    difference = (scores["test"] - scores["reference"])[tested.index]
    np.testing.assert_allclose(difference, tested["effect"])
    detected = result.program_genes.groupby(["cell_class", "program"])["detected"].sum()
    assert (detected[tested.index] == tested["genes_found"]).all()


@pytest.mark.slow
def test_control_cells_against_control_cells_reject_nothing(cells):
    control = cells[cells.obs["condition"] == "ctrl"]
    rejected, tested = 0, 0
    for seed in range(3):
        half = np.where(np.random.default_rng(seed).random(control.n_obs) < 0.5, "stim", "ctrl")
        obs = control.obs.assign(condition=half, sample=half)
        found = answer(control, obs)
        rejected += sum(int((table["fdr"] < 0.05).sum()) for table in (found.program_effects, found.program_enrichment))
        tested += int((found.program_effects["status"] == "tested").sum())
    assert tested > 15
    assert rejected == 0


def test_unknown_column_is_the_users_mistake(cells):
    with pytest.raises(UserError, match="'sex'"):
        answer(cells, cells.obs, covariates="sex")
    with pytest.raises(UserError, match="cannot be read"):
        answer(cells, cells.obs, where="condition ==")
