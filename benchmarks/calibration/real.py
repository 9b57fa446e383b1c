"""Controls on real data: GSE96583 with the authors' labels (``condition``, ``donor``, ``cell_type``)."""

from __future__ import annotations

from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData, read_h5ad
from common import ALPHA, QUESTION, record
from scipy import stats

from immunomod.contrast.design import Contrast
from immunomod.contrast.model import sign_flip_p
from immunomod.contrast.program_effects import ProgramEffects, program_effects
from immunomod.contrast.pseudobulk import pseudobulk
from immunomod.contrast.settings import ContrastSettings
from immunomod.programs import ProgramSet, load_programs

LINEAGES = {
    "CD4 T cells": "T",
    "CD8 T cells": "T",
    "NK cells": "NK",
    "B cells": "B",
    "Dendritic cells": "DC",
    "Megakaryocytes": "megakaryocyte",
    "CD14+ Monocytes": "monocyte",
    "FCGR3A+ Monocytes": "monocyte",
}


def load(path: Path) -> AnnData:
    """The cells, with the columns that a pseudobulk needs; counts are whole numbers."""
    cells = read_h5ad(path)
    labels = cells.obs["cell_type"].astype(str)
    cells.obs = pd.DataFrame(
        {
            "sample": cells.obs["condition"].astype(str),
            "condition": cells.obs["condition"].astype(str),
            "donor": cells.obs["donor"].astype(str),
            "cell_class": labels.str.replace(r"\W+", "_", regex=True),
            "compartment": "immune",
            "lineage": labels.map(LINEAGES),
        },
        index=cells.obs_names,
    )
    return cells


def effects_of(cells: AnnData, programmes: ProgramSet, **columns: object) -> ProgramEffects:
    """Stimulated against control, after ``columns`` of the cells' table are replaced."""
    question = Contrast.from_row(QUESTION | {"dataset": "GSE96583", "test": "stim", "reference": "ctrl"})
    labelled = AnnData(X=cells.X, obs=cells.obs.assign(**columns), var=cells.var)
    sums = {"GSE96583": pseudobulk([labelled], labelled.obs)}
    return program_effects(question, sums, programmes, ContrastSettings(n_random_sets=2), 1)


def is_tested(result: ProgramEffects) -> pd.DataFrame:
    return result.effects[result.effects["status"] == "tested"]


def interferon(cells: AnnData, programmes: ProgramSet) -> list[dict]:
    """The type-I response to IFN-beta; and the exact p over all flips of the donors' labels, which is uniform."""
    result = effects_of(cells, programmes)
    rows = []
    found = is_tested(result)
    for row in found[found["program"] == "imm_type1_ifn"].itertuples():
        setting = f"imm_type1_ifn in {row.cell_class}, {row.n_pairs} pairs"
        rows += [record("GSE96583", setting, name, [getattr(row, name)]) for name in ("effect", "p_value", "fdr")]
        if row.n_pairs < 3:
            continue
        scores = result.scores.query("cell_class == @row.cell_class and program == 'imm_type1_ifn'")
        wide = scores.pivot(index="donor", columns="arm", values="score").dropna()
        signs = np.array(list(product((1.0, -1.0), repeat=len(wide))))
        exact = sign_flip_p((signs * (wide["test"] - wide["reference"]).to_numpy()).T, len(signs), seed=0)
        grid = np.arange(1, len(signs) // 2 + 1) * 2 / len(signs)
        distance = np.abs((exact[:, None] <= grid + 1e-12).mean(axis=0) - grid).max()
        rows.append(record("GSE96583", f"{setting}, all flips; exact p", "distance_from_uniform", [distance]))
    return rows


def halves(cells: AnnData, programmes: ProgramSet, repeats: int) -> list[dict]:
    """Each donor's control cells parted in two: nothing differs."""
    control = cells[cells.obs["condition"] == "ctrl"].copy()
    nominal, called = [], []
    for repeat in range(repeats):
        rng = np.random.default_rng([15, repeat])
        half = np.where(rng.random(control.n_obs) < 0.5, "stim", "ctrl")
        found = is_tested(effects_of(control, programmes, condition=half, sample=half))
        nominal += list(found["p_value"] < ALPHA)
        called += list(found["fdr"] < ALPHA)
    setting = "control cells split in halves"
    return [record("GSE96583", setting, "rejected_p", nominal), record("GSE96583", setting, "rejected_fdr", called)]


def donors_against_donors(cells: AnnData, programmes: ProgramSet, repeats: int) -> list[dict]:
    """Control cells of four donors against those of the other four, by replicates and with cells as replicates.

    A cell's score is the mean log2 of counts per ten thousand, plus one, over the programme's genes; cells are compared
    by Welch's t-test, for the programmes and classes that the contrast floor tests.
    """
    control = cells[cells.obs["condition"] == "ctrl"].copy()
    donors = sorted(control.obs["donor"].unique())
    parted = [half for half in combinations(donors, 4) if donors[0] in half]
    order = np.random.default_rng(27).permutation(len(parted))[:repeats]
    weights = programmes.weights("human").reindex(control.var_names, fill_value=0.0)
    totals = np.asarray(control.X.sum(axis=1))
    scores = control.X.multiply(1e4 / totals).log1p().tocsr() @ weights.to_numpy()
    by_replicates, by_cells = [], []
    for number in order:
        arm = np.where(control.obs["donor"].isin(parted[number]), "stim", "ctrl")
        for row in is_tested(effects_of(control, programmes, condition=arm, sample=arm)).itertuples():
            of_class = (control.obs["cell_class"] == row.cell_class).to_numpy()
            column = scores[of_class, weights.columns.get_loc(row.program)]
            welch = stats.ttest_ind(column[arm[of_class] == "stim"], column[arm[of_class] == "ctrl"], equal_var=False)
            by_cells.append(welch.pvalue < ALPHA)
            by_replicates.append(row.p_value < ALPHA)
    setting = "control donors against control donors, unpaired"
    return [
        record("GSE96583", f"{setting}; replicates", "rejected_p", by_replicates),
        record("GSE96583", f"{setting}; cells as replicates", "rejected_p", by_cells),
    ]


def exchanged_arms(cells: AnnData, programmes: ProgramSet, repeats: int) -> list[dict]:
    """The labels of the arms exchanged in half of the donors: the strong effect must vanish into the error."""
    donors, condition = sorted(cells.obs["donor"].unique()), cells.obs["condition"]
    called = []
    for repeat in range(repeats):
        turned = np.random.default_rng([16, repeat]).permutation(donors)[: len(donors) // 2]
        other = condition.map({"stim": "ctrl", "ctrl": "stim"})
        labels = condition.where(~cells.obs["donor"].isin(turned), other)
        found = is_tested(effects_of(cells, programmes, condition=labels, sample=labels))
        called += list(found.loc[found["n_pairs"] >= 4, "fdr"] < ALPHA)
    return [record("GSE96583", "arms exchanged in half of the donors", "rejected_fdr", called)]


def real_controls(path: Path, repeats: int) -> list[dict]:
    """All controls on real data; ``path`` is the h5ad, ``repeats`` the number of random splits."""
    cells, programmes = load(path), load_programs()
    return [
        *interferon(cells, programmes),
        *halves(cells, programmes, repeats),
        *donors_against_donors(cells, programmes, repeats),
        *exchanged_arms(cells, programmes, max(repeats // 3, 2)),
    ]
