"""The contrast floor on simulated pseudobulks: rejection and coverage by design, detection, the shipped programmes."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from common import (
    ALPHA,
    N_GENES,
    QUESTION,
    as_weights,
    draw_groups,
    draw_pairs,
    draw_programmes,
    draw_rates,
    programme_effects,
    record,
)
from scipy import sparse, stats

from immunomod.contrast.design import Contrast
from immunomod.contrast.normalise import log2_cpm
from immunomod.contrast.program_effects import program_effects
from immunomod.contrast.scores import effective_library, measure_expression
from immunomod.contrast.settings import ContrastSettings
from immunomod.programs import load_programs

PLANTED = {
    "MSC": ("MSC", "MSC", {"msc_ifng_core": 3.0, "msc_tnf_nfkb": 2.0}),
    "CD4_T": ("immune", "T", {"imm_T_prolif_S": -1.5, "imm_Th1": -1.0}),
    "CD14_monocyte": ("immune", "monocyte", {"imm_mac_M1": -1.5, "imm_ifng_response": -1.0}),
}
DESIGNS = (
    *((f"{n} pairs", n, n, True) for n in (2, 3, 4, 6, 8)),
    *((f"{n} v {m}, unpaired", n, m, False) for n, m in ((3, 3), (4, 4), (6, 6), (3, 5), (8, 4))),
)
CHANGED = 4


def designs(repeats: int) -> list[dict]:
    """Control against control, and 4 of 20 programmes changed by 1 log2 with a donor SD of 0.3, in every design.

    2,000 genes; every programme also varies between donors, by 0.05 log2.
    """
    rows = []
    for label, n_test, n_reference, paired in DESIGNS:
        for n_changed in (0, CHANGED):
            rejected, covered = [], []
            for repeat in range(repeats):
                rng = np.random.default_rng([21, n_test, n_reference, int(paired), n_changed, repeat])
                rate = draw_rates(rng, 2000)
                sets = draw_programmes(rng, rate)
                change = np.zeros((n_test, len(rate)))
                for number, genes in enumerate(sets):
                    response = rng.normal(0, 0.3 if number < n_changed else 0.05, (n_test, 1))
                    change[:, genes] = response + (number < n_changed)
                counts, arms = (
                    draw_pairs(rng, rate, change, n_test)
                    if paired
                    else draw_groups(rng, rate, change, n_test, n_reference)
                )
                _, found = programme_effects(counts, arms, as_weights(sets, len(rate)), paired)
                rejected.append(np.where(np.isfinite(found.se), found.p_value < ALPHA, np.nan)[n_changed:])
                inside = (found.low < 1) & (found.high > 1)
                covered.append(np.where(np.isfinite(found.se), inside, np.nan)[:n_changed])
            kind = f"{n_changed} of 20 changed" if n_changed else "control against control"
            rows.append(record("designs", f"{label}; {kind}", "null_rejection", rejected))
            if n_changed:
                rows.append(record("designs", f"{label}; {kind}", "coverage", covered))
    return rows


def detection(repeats: int) -> list[dict]:
    """Bias of programme effects and rejection of untouched programmes, by prior count and detection threshold."""
    rows = []
    settings = [("fixed 0.5", count) for count in (1, 2, 3, 5)] + [("edgeR 0.5", 3), ("edgeR 2", 3)]
    for label, size, ratio in (("up", 1.5, 1.0), ("down", -1.5, 1.0), ("shallow test arm", 1.0, 0.25)):
        values = {setting: {"estimate": [], "rejected": [], "scored": []} for setting in settings}
        for repeat in range(repeats):
            rng = np.random.default_rng([11, repeat])
            rate = draw_rates(rng)
            sets = draw_programmes(rng, rate)
            change = np.zeros((4, len(rate)))
            for number, genes in enumerate(sets):
                change[:, genes] = rng.normal(size if number < 2 else 0, 0.2 if number < 2 else 0.05, (4, 1))
            counts, arms = draw_pairs(rng, rate, change, 4, depth_ratio=ratio)
            library = effective_library(counts, arms)
            for prior, threshold in settings:
                expression = measure_expression(counts, arms, threshold)
                log2 = expression.log2 if prior == "fixed 0.5" else log2_cpm(counts, library, float(prior.split()[1]))
                difference = log2[1::2] - log2[::2]
                kept = [genes[expression.detected[genes]] for genes in sets]
                scored = np.array([len(genes) >= 5 for genes in kept])
                scores = np.array(
                    [
                        difference[:, g].mean(axis=1) if ok else np.full(4, np.nan)
                        for g, ok in zip(kept, scored, strict=True)
                    ]
                ).T
                p_value = stats.ttest_1samp(scores, 0).pvalue
                found = values[(prior, threshold)]
                found["estimate"] += list(scores.mean(axis=0)[:2][scored[:2]] - size)
                found["rejected"] += list(p_value[2:][scored[2:]] < 0.05)
                found["scored"] += list(scored)
        for (prior, threshold), found in values.items():
            setting = f"{label}; prior {prior}; min_count {threshold}"
            for measure, name in (("bias", "estimate"), ("null_rejection", "rejected"), ("scored", "scored")):
                rows.append(record("detection", setting, measure, found[name]))
    return rows


def draw_study(rng: np.random.Generator, weights: pd.DataFrame) -> tuple[AnnData, dict[str, pd.Series]]:
    """Pseudobulks of 4 pairs and three classes with planted effects, and the true log2 change of every gene by class.

    ``weights``: genes x programmes, signed. Donors respond with a standard deviation of 0.25 log2 to what is planted.
    """
    genes = pd.Index([*weights.index, *(f"filler{i}" for i in range(N_GENES - len(weights)))])
    blocks, obs, truths = [], [], {}
    for cell_class, (compartment, lineage, planted) in PLANTED.items():
        rate = draw_rates(rng)
        rate[: len(weights)] = np.exp(rng.normal(0.5, 1.5, len(weights)))
        effect = np.zeros(len(genes))
        variation = rng.normal(0, 0.05, (4, len(genes)))
        for program, size in planted.items():
            members = weights.index[weights[program] != 0]
            at = genes.get_indexer(members)
            effect[at] = size * np.sign(weights.loc[members, program])
            variation[:, at] += rng.normal(0, 0.25, (4, 1)) * np.sign(weights.loc[members, program].to_numpy())
        blocks.append(draw_pairs(rng, rate, effect + variation, 4)[0])
        truths[cell_class] = pd.Series(effect, index=genes)
        for donor in range(4):
            for condition in ("control", "treated"):
                obs.append((f"{condition}{donor}", f"D{donor}", cell_class, compartment, lineage, condition, 100))
    columns = ["sample", "donor", "cell_class", "compartment", "lineage", "condition", "n_cells"]
    table = pd.DataFrame(obs, columns=columns, index=[f"u{i}" for i in range(len(obs))])
    return AnnData(X=sparse.csr_matrix(np.vstack(blocks)), obs=table, var=pd.DataFrame(index=genes)), truths


def whole_floor(repeats: int) -> list[dict]:
    """The contrast floor as it runs, on the shipped programmes with planted effects in three cell classes."""
    programmes = load_programs()
    weights = programmes.weights("human")
    found: dict[str, list] = {
        name: [] for name in ("coverage", "sign", "null_rejection", "null_fdr", "bias", "found_fdr")
    }
    for repeat in range(repeats):
        study, truths = draw_study(np.random.default_rng([13, repeat]), weights)
        result = program_effects(
            Contrast.from_row(QUESTION), {"simulated": study}, programmes, ContrastSettings(n_random_sets=2), repeat
        )
        effects = result.effects[result.effects["status"] == "tested"]
        used = result.genes[result.genes["detected"]]
        for row in effects.itertuples():
            members = used[(used["cell_class"] == row.cell_class) & (used["program"] == row.program)]
            truth = truths[row.cell_class][members["gene"]].to_numpy() * members["direction"].map({"+": 1, "-": -1})
            if row.program in PLANTED[row.cell_class][2]:
                found["coverage"].append(row.ci_low <= truth.mean() <= row.ci_high)
                found["sign"].append(np.sign(row.effect) == np.sign(truth.mean()))
                found["bias"].append(row.effect - truth.mean())
                found["found_fdr"].append(row.fdr < 0.05)
            elif (truth == 0).all():
                found["null_rejection"].append(row.p_value < 0.05)
                found["null_fdr"].append(row.fdr < 0.05)
    return [
        record("whole floor", "4 pairs, shipped programmes", measure, numbers) for measure, numbers in found.items()
    ]
