"""How far the tests of the contrast and synthesis floors can be trusted: repeated simulation with known truth.

Run from the repository: ``python benchmarks/calibration.py [--kang FILE]``; about two minutes on one core. Writes
``benchmarks/results/calibration.tsv``, one row per experiment, setting and measure, which the docs quote. ``--kang``
names an h5ad of GSE96583 with the authors' labels (``condition``, ``donor``, ``cell_type``) for controls on real data.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse, stats

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "workflow"))

from anndata import AnnData, read_h5ad  # noqa: E402

from immunomod.contrast.design import Contrast  # noqa: E402
from immunomod.contrast.model import fit_variance_prior, moderate, moderated_variance  # noqa: E402
from immunomod.contrast.normalise import log2_cpm  # noqa: E402
from immunomod.contrast.program_effects import program_effects  # noqa: E402
from immunomod.contrast.pseudobulk import pseudobulk  # noqa: E402
from immunomod.contrast.scores import effective_library, measure_expression  # noqa: E402
from immunomod.contrast.settings import ContrastSettings  # noqa: E402
from immunomod.files import write_tsv  # noqa: E402
from immunomod.programs import load_programs  # noqa: E402
from immunomod.synthesis.meta import pool_random_effects, pooled_variances  # noqa: E402

N_GENES = 6000
QUESTION = {"contrast": "q", "dataset": "simulated", "variable": "condition", "test": "treated", "reference": "control"}
PLANTED = {
    "MSC": ("MSC", "MSC", {"msc_ifng_core": 3.0, "msc_tnf_nfkb": 2.0}),
    "CD4_T": ("immune", "T", {"imm_T_prolif_S": -1.5, "imm_Th1": -1.0}),
    "CD14_monocyte": ("immune", "monocyte", {"imm_mac_M1": -1.5, "imm_ifng_response": -1.0}),
}
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


def draw_pairs(rng, rate, change, n_pairs, depth_ratio=1.0, dispersion=1.0, biology=0.2):
    """Counts (2 x pairs, genes; control first in each pair) and arms.

    ``rate``: expression of each gene; ``change``: log2 change, pairs x genes. 50 to 150 cells a pseudobulk, 1,500 to
    5,000 counts a cell; cells are negative-binomial, genes vary between donors (0.4 log2) and units (``biology``).
    """
    counts = []
    for pair in range(n_pairs):
        donor = np.log2(rate) + rng.normal(0, 0.4, len(rate))
        per_cell = np.exp(rng.uniform(np.log(1500), np.log(5000)))
        for treated in (0, 1):
            expression = 2 ** (donor + rng.normal(0, biology, len(rate)) + treated * change[pair])
            n_cells = rng.integers(50, 151)
            mean = expression / expression.sum() * n_cells * per_cell * (depth_ratio if treated else 1)
            shape = n_cells / dispersion
            counts.append(rng.negative_binomial(shape, shape / (shape + mean)))
    return np.array(counts, dtype=float), np.array(["reference", "test"] * n_pairs, dtype=object)


def draw_rates(rng, n_genes=N_GENES):
    """Expression as skewed as in blood cells: half of the genes below 30 counts per million."""
    return np.exp(rng.normal(0, 2, n_genes))


def draw_programmes(rng, rate, n_programmes=20, size=15):
    weight = np.sqrt(rate)
    return rng.choice(len(rate), size=n_programmes * size, replace=False, p=weight / weight.sum()).reshape(-1, size)


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


def moderation(repeats: int) -> list[dict]:
    """Coverage, rejection of untouched programmes and power under three ways of steadying variances."""
    rules = {
        "none": lambda variance, df: (variance, df),
        "limma": lambda variance, df: moderate(variance, df, fit_variance_prior(variance, df)),
        "restrained": moderated_variance,
    }
    rows = []
    for n_pairs, n_changed in ((4, 2), (4, 8), (3, 3), (2, 3), (8, 3)):
        values = {rule: {"coverage": [], "null_rejection": [], "power": []} for rule in rules}
        for repeat in range(repeats):
            rng = np.random.default_rng([12, n_pairs, n_changed, repeat])
            changed = np.arange(20) < n_changed
            # paired differences of scores: noise of measurement for all, response of donors where something changes
            noise = rng.normal(0, 0.08 * np.exp(rng.normal(0, 0.3, 20)), (n_pairs, 20))
            scores = noise + changed * rng.normal(1, 0.3, (n_pairs, 20))
            variance = scores.var(axis=0, ddof=1)
            for rule, apply in rules.items():
                steadied, df = apply(variance, n_pairs - 1)
                se, mean = np.sqrt(steadied / n_pairs), scores.mean(axis=0)
                p_value = 2 * stats.t.sf(np.abs(mean / se), df)
                values[rule]["coverage"] += list((np.abs(mean - 1) < stats.t.ppf(0.975, df) * se)[changed])
                values[rule]["null_rejection"] += list(p_value[~changed] < 0.05)
                values[rule]["power"] += list((stats.false_discovery_control(p_value) < 0.05)[changed])
        for rule, found in values.items():
            setting = f"{n_pairs} pairs; {n_changed} of 20 changed; {rule}"
            rows += [record("moderation", setting, measure, numbers) for measure, numbers in found.items()]
    return rows


def whole_floor(repeats: int) -> list[dict]:
    """The contrast floor as it runs, on the shipped programmes with planted effects in three cell classes."""
    programmes = load_programs()
    weights = programmes.weights("human")
    found: dict[str, list] = {
        name: [] for name in ("coverage", "sign", "null_rejection", "null_fdr", "bias", "found_fdr")
    }
    for repeat in range(repeats):
        rng = np.random.default_rng([13, repeat])
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
            counts, _ = draw_pairs(rng, rate, effect + variation, 4)
            blocks.append(counts)
            truths[cell_class] = pd.Series(effect, index=genes)
            for donor in range(4):
                for condition in ("control", "treated"):
                    obs.append((f"{condition}{donor}", f"D{donor}", cell_class, compartment, lineage, condition, 100))
        columns = ["sample", "donor", "cell_class", "compartment", "lineage", "condition", "n_cells"]
        table = pd.DataFrame(obs, columns=columns, index=[f"u{i}" for i in range(len(obs))])
        study = AnnData(X=sparse.csr_matrix(np.vstack(blocks)), obs=table, var=pd.DataFrame(index=genes))
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


def meta_analysis(repeats: int) -> list[dict]:
    """Type-I error of the pooled effect over k data sets of 2 to 4 pairs."""
    rows = []
    for k in (3, 4, 5):
        for tau in (0.0, 0.3):
            rng = np.random.default_rng([14, k, int(10 * tau)])
            rejected = []
            for _ in range(repeats):
                sizes = rng.integers(2, 5, k)
                samples = [rng.normal(rng.normal(0, tau), 0.3, n) for n in sizes]
                n = sizes.astype(float)
                se = np.array([sample.std(ddof=1) / np.sqrt(len(sample)) for sample in samples])
                pooled = pool_random_effects(
                    np.array([sample.mean() for sample in samples]), pooled_variances(se, n - 1, n, n, n)
                )
                rejected.append(2 * stats.t.sf(abs(pooled.effect) / pooled.se, k - 1) < 0.05)
            rows.append(record("meta-analysis", f"k {k}; tau {tau}; 2 to 4 pairs", "type_I_error", rejected))
    return rows


def real_controls(path: Path, repeats: int) -> list[dict]:
    """GSE96583: control cells against control cells rejects nothing; interferon is found; flipped labels lose it."""
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
    programmes = load_programs()
    settings = ContrastSettings(n_random_sets=2)
    question = Contrast.from_row(QUESTION | {"dataset": "GSE96583", "test": "stim", "reference": "ctrl"})
    rows = []

    effects = program_effects(question, {"GSE96583": pseudobulk([cells], cells.obs)}, programmes, settings, 1).effects
    interferon = effects[(effects["program"] == "imm_type1_ifn") & (effects["status"] == "tested")]
    for row in interferon.itertuples():
        setting = f"imm_type1_ifn in {row.cell_class}, {row.n_pairs} pairs"
        rows += [record("GSE96583", setting, name, [getattr(row, name)]) for name in ("effect", "p_value", "fdr")]

    control = cells[cells.obs["condition"] == "ctrl"].copy()
    rejected, nominal = [], []
    for repeat in range(repeats):
        rng = np.random.default_rng([15, repeat])
        half = np.where(rng.random(control.n_obs) < 0.5, "stim", "ctrl")
        split = control.copy()
        split.obs = control.obs.assign(condition=half, sample=half)
        effects = program_effects(
            question, {"GSE96583": pseudobulk([split], split.obs)}, programmes, settings, 1
        ).effects
        tested = effects[effects["status"] == "tested"]
        rejected += list(tested["fdr"] < 0.05)
        nominal += list(tested["p_value"] < 0.05)
    rows.append(record("GSE96583", "control cells split in halves", "rejected_fdr", rejected))
    rows.append(record("GSE96583", "control cells split in halves", "rejected_p", nominal))

    donors = sorted(cells.obs["donor"].unique())
    flipped = []
    for repeat in range(repeats):
        turned = np.random.default_rng([16, repeat]).permutation(donors)[: len(donors) // 2]
        condition = cells.obs["condition"]
        other = condition.map({"stim": "ctrl", "ctrl": "stim"})
        swapped = cells.copy()
        swapped.obs = cells.obs.assign(condition=condition.where(~cells.obs["donor"].isin(turned), other))
        swapped.obs["sample"] = swapped.obs["condition"]
        effects = program_effects(
            question, {"GSE96583": pseudobulk([swapped], swapped.obs)}, programmes, settings, 1
        ).effects
        tested = effects[(effects["status"] == "tested") & (effects["n_pairs"] >= 4)]
        flipped += list(tested["fdr"] < 0.05)
    rows.append(record("GSE96583", "arms exchanged in half of the donors", "rejected_fdr", flipped))
    return rows


def record(experiment: str, setting: str, measure: str, values: list) -> dict:
    """Mean of the values, its standard error and their number."""
    numbers = np.asarray(values, dtype=float)
    error = numbers.std(ddof=1) / np.sqrt(len(numbers)) if len(numbers) > 1 else np.nan
    return {
        "experiment": experiment,
        "setting": setting,
        "measure": measure,
        "value": float(f"{numbers.mean():.4g}") if len(numbers) else np.nan,
        "standard_error": float(f"{error:.2g}"),
        "n": len(numbers),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kang", type=Path, help="h5ad of GSE96583 with the authors' labels")
    parser.add_argument("--repeats", type=int, default=40, help="simulated studies per experiment")
    options = parser.parse_args()
    rows = detection(options.repeats) + moderation(10 * options.repeats)
    rows += whole_floor(options.repeats) + meta_analysis(75 * options.repeats)
    if options.kang:
        rows += real_controls(options.kang, max(options.repeats // 4, 2))
    table = pd.DataFrame(rows)
    write_tsv(table, REPOSITORY / "benchmarks" / "results" / "calibration.tsv")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
