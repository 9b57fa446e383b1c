"""What the ligand-receptor table and CAMERA say of simulated studies with known truth, with and without leakage.

Run from the repository: ``python benchmarks/communication.py [--studies N] [--seed S]``; about 20 seconds a study
on one core, most of them for the gene tables. Writes ``benchmarks/results/communication.tsv``, one row per kind of
study, leakage, correction and measure.

*Leakage only*: the arms differ by nothing but partner RNA; no pair and no programme may be called.
*Planted*: the demo's effects. The true change of a pair is the mean of the population's log2 changes of the two genes
that decide it; a pair is steady where both are zero, and changed where their mean is at least half a log2 unit.

Studies have the demo's settings, 4 donors, and true classes. The matrices list the simulation's 3,500 genes, both sides
of a tenth of the pairs. Rows of one study are not independent: one ligand or receptor is in many of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "workflow"))

from immunomod.contrast.communication import communication_effects  # noqa: E402
from immunomod.contrast.design import Contrast  # noqa: E402
from immunomod.contrast.genes import gene_effects  # noqa: E402
from immunomod.contrast.leakage import add_leakage  # noqa: E402
from immunomod.contrast.program_effects import program_effects  # noqa: E402
from immunomod.contrast.settings import ContrastSettings  # noqa: E402
from immunomod.exclusive import load_exclusive_genes  # noqa: E402
from immunomod.files import write_tsv  # noqa: E402
from immunomod.interactions import load_interactions  # noqa: E402
from immunomod.programs import load_programs  # noqa: E402
from immunomod.simulate.power import true_pseudobulk  # noqa: E402
from immunomod.simulate.settings import SimulationSettings  # noqa: E402
from immunomod.simulate.study import Study, simulate_study  # noqa: E402

ALPHA = 0.05
CHANGED = 0.5
CONTRAST = Contrast("benchmark", ("simulated",), "condition", ("coculture",), ("msc_alone", "immune_alone"))
NUMBERS = ["effect", "ci_low", "ci_high", "p_value", "fdr", "p_both", "fdr_both"]


@dataclass(frozen=True)
class Case:
    """One kind of study."""

    kind: str
    leakage: float
    corrected: bool


CASES = (
    Case("leakage only", 0.0, True),
    Case("leakage only", 0.1, True),
    Case("leakage only", 0.2, True),
    Case("leakage only", 0.2, False),
    Case("planted", 0.0, True),
    Case("planted", 0.05, True),
)


def pair_truth(study: Study, pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs with the true changes of the genes that decide them; genes without one are steady."""
    truth = study.truth_genes.set_index(["cell_class", "gene"])["population_log2_change"]
    sides = {}
    for side, end in (("ligand", "source"), ("receptor", "target")):
        keys = pd.MultiIndex.from_frame(pairs[[end, f"{side}_gene"]])
        sides[side] = truth.reindex(keys).fillna(0.0).to_numpy()
    return pairs.assign(
        is_steady=(sides["ligand"] == 0) & (sides["receptor"] == 0), truth=(sides["ligand"] + sides["receptor"]) / 2
    )


def draw(case: Case, n_studies: int, seed: int) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Tested pairs and tested programmes, with their truth, of each study."""
    programs, exclusive, pairs = load_programs(), load_exclusive_genes(), load_interactions(organisms=["human"])
    settings = SimulationSettings(leakage=case.leakage, effect_scale=0.0 if case.kind == "leakage only" else 1.0)
    tests = ContrastSettings(n_random_sets=2)
    for number in range(n_studies):
        study = simulate_study(replace(settings, seed=seed + number), programs)
        sums = true_pseudobulk(study)
        stratum = {"simulated": add_leakage(sums, programs, exclusive) if case.corrected else sums}
        genes = gene_effects(CONTRAST, stratum, tests).tables
        table = communication_effects(CONTRAST, stratum, genes, pairs, tests)
        found = pair_truth(study, table[table["status"] == "tested"]).assign(study=number)
        enrichment = program_effects(CONTRAST, stratum, programs, tests, seed + number).enrichment
        programmes = study.truth_effects.merge(
            enrichment[enrichment["status"] == "tested"], on=["cell_class", "program"]
        )
        yield found.astype(dict.fromkeys(NUMBERS, float)), programmes.assign(study=number)


def summarise(pairs: pd.DataFrame, programmes: pd.DataFrame, n_studies: int) -> Iterator[tuple[str, float, int]]:
    """Name, value and number of rows of each measure."""
    steady, changed = pairs[pairs["is_steady"]], pairs[pairs["truth"].abs() >= CHANGED]
    for name, rows, column in (
        ("steady pairs with p < 0.05", steady, "p_value"),
        ("steady pairs with fdr < 0.05", steady, "fdr"),
        ("steady pairs with p_both < 0.05", steady, "p_both"),
        ("steady pairs with fdr_both < 0.05", steady, "fdr_both"),
    ):
        yield name, float((rows[column] < ALPHA).mean()), len(rows)
    called = steady.loc[steady["fdr"] < ALPHA, "study"].nunique()
    yield "studies with a steady pair called", called / n_studies, n_studies
    if len(changed):
        right = (changed["fdr"] < ALPHA) & (np.sign(changed["effect"]) == np.sign(changed["truth"]))
        yield "changed pairs found at fdr < 0.05", float(right.mean()), len(changed)
        inside = changed["truth"].between(changed["ci_low"], changed["ci_high"])
        yield "changed pairs, truth inside the 95% interval", float(inside.mean()), len(changed)
        error = (changed["effect"] - changed["truth"]) * np.sign(changed["truth"])
        yield "changed pairs, mean error of the effect", float(error.mean()), len(changed)
    untouched = programmes[~programmes["planted"] & ~programmes["shares_gene_with_planted"]]
    yield "CAMERA: untouched programmes with p < 0.05", float((untouched["p_value"] < ALPHA).mean()), len(untouched)
    yield "CAMERA: untouched programmes with fdr < 0.05", float((untouched["fdr"] < ALPHA).mean()), len(untouched)
    correlation = programmes["inter_gene_correlation"].astype(float)
    yield "CAMERA: median correlation in a programme", float(correlation.median()), len(programmes)
    planted = programmes[programmes["planted"] & (programmes["population_effect"] != 0)]
    if len(planted):
        yield "CAMERA: planted programmes with p < 0.05", float((planted["p_value"] < ALPHA).mean()), len(planted)
        yield "CAMERA: planted programmes with fdr < 0.1", float((planted["fdr"] < 2 * ALPHA).mean()), len(planted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=10, help="simulated studies per case")
    parser.add_argument("--seed", type=int, default=7000)
    options = parser.parse_args()
    rows = []
    for case in CASES:
        pairs, programmes = (pd.concat(parts) for parts in zip(*draw(case, options.studies, options.seed), strict=True))
        for measure, value, n in summarise(pairs, programmes, options.studies):
            rows.append((case.kind, case.leakage, case.corrected, measure, round(value, 4), n, options.studies))
            print(*rows[-1], sep="\t", flush=True)
    columns = ["kind", "leakage", "corrected", "measure", "value", "n", "studies"]
    write_tsv(pd.DataFrame(rows, columns=columns), REPOSITORY / "benchmarks" / "results" / "communication.tsv")


if __name__ == "__main__":
    main()
