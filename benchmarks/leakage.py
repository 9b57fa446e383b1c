"""What leaked partner RNA does to the answer, with and without the correction, over repeated simulation.

Run from the repository: ``python benchmarks/leakage.py [--studies N] [--seed S] [--classes true|own]``; about a minute
per ten studies with true classes, eight minutes with the workflow's own. Writes ``benchmarks/results/leakage.tsv`` (or
``leakage_own_classes.tsv``), one row per kind of study, leakage, correction and measure.

*Leakage only*: the arms differ by nothing but partner RNA. Nothing may be called.
*Planted*: every programme of the demo changes by one log2 unit, among them class II of MSC, whose genes (HLA-DRA, CD74)
monocytes, B and dendritic cells make a hundred times as much of.

With ``--classes true`` the cells bear their true names, and doublets and damaged cells are left out: the contrast floor
alone. With ``--classes own`` samples go through the sample floor and the atlas first, as in a run. Studies have the
demo's settings, 4 donors.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "workflow"))

from immunomod.atlas.build import build_atlas  # noqa: E402
from immunomod.atlas.settings import AtlasSettings  # noqa: E402
from immunomod.contrast.design import Contrast, stratum_design  # noqa: E402
from immunomod.contrast.genes import fit_genes  # noqa: E402
from immunomod.contrast.leakage import add_leakage, leakage_of  # noqa: E402
from immunomod.contrast.program_effects import program_effects  # noqa: E402
from immunomod.contrast.pseudobulk import pseudobulk  # noqa: E402
from immunomod.contrast.settings import ContrastSettings  # noqa: E402
from immunomod.exclusive import load_exclusive_genes  # noqa: E402
from immunomod.files import write_h5ad, write_tsv  # noqa: E402
from immunomod.programs import ProgramSet, load_programs  # noqa: E402
from immunomod.sample.process import process_sample  # noqa: E402
from immunomod.sample.settings import SampleSettings  # noqa: E402
from immunomod.simulate.power import true_pseudobulk  # noqa: E402
from immunomod.simulate.settings import PLANTED_EFFECTS, SimulationSettings  # noqa: E402
from immunomod.simulate.study import Study, simulate_study  # noqa: E402

ALPHA = 0.05
LEAKAGES = (0.0, 0.1, 0.2)
CONTRAST = Contrast("leakage", ("simulated",), "condition", ("coculture",), ("msc_alone", "immune_alone"))
CLASS_II = ("HLA-DRA", "HLA-DRB1", "HLA-DPA1", "HLA-DPB1")
ONE_UNIT = tuple(replace(effect, log2_change=float(np.sign(effect.log2_change))) for effect in PLANTED_EFFECTS)


def own_pseudobulk(study: Study, programs: ProgramSet, folder: Path) -> AnnData:
    """Pseudobulks of a study as a run makes them: quality control, doublets, atlas and names of its own."""
    paths = []
    for sample, obs in study.adata.obs.groupby("sample", observed=True, sort=False):
        library = study.adata[obs.index].copy()
        truth = ["true_class", "true_doublet", "second_class", "damaged", "leaked_counts", "ambient_counts", "empty"]
        library.obs = obs.drop(columns=truth).assign(dataset="simulated")
        result = process_sample(library, programs, SampleSettings())
        paths.append(folder / f"{sample}.h5ad")
        write_h5ad(result.filtered, paths[-1])
    atlas = build_atlas(paths, REPOSITORY / "resources" / "markers", AtlasSettings(), seed=1)
    return pseudobulk(paths, atlas.adata.obs)


def class_ii_change(sums: AnnData) -> float:
    """Mean log2 fold change of class II genes in MSC, by the gene model."""
    design = stratum_design(CONTRAST, sums.obs, "MSC", ContrastSettings().min_cells)
    counts = np.asarray((design.membership @ sums.X).todense(), dtype=np.float64)
    genes = fit_genes(counts, sums.var_names, design, leakage_of(sums, design.membership))
    return float(genes.set_index("gene")["log2_fold_change"].reindex(CLASS_II).mean())


def results(kind: str, leakage: float, classes: str, n_studies: int, seed: int) -> Iterator[pd.DataFrame]:
    """Programme effects with their truth, of each study and with and without correction."""
    programs, exclusive = load_programs(), load_exclusive_genes()
    settings = SimulationSettings(
        leakage=leakage, effects=ONE_UNIT, effect_scale=0.0 if kind == "leakage only" else 1.0
    )
    for number in range(n_studies):
        study = simulate_study(replace(settings, seed=seed + number), programs)
        with tempfile.TemporaryDirectory() as folder:
            sums = true_pseudobulk(study) if classes == "true" else own_pseudobulk(study, programs, Path(folder))
        for corrected in (True, False):
            stratum = {"simulated": add_leakage(sums, programs, exclusive) if corrected else sums}
            tests = ContrastSettings(n_random_sets=2)
            effects = program_effects(CONTRAST, stratum, programs, tests, seed + number).effects
            table = study.truth_effects.merge(effects, on=["cell_class", "program"], how="left")
            class_ii = np.nan if kind == "leakage only" else class_ii_change(stratum["simulated"])
            yield table.assign(study=number, corrected=corrected, class_ii_genes=class_ii)


def summarise(rows: pd.DataFrame, kind: str) -> list[tuple[str, float, int]]:
    """Measures of the rows of one kind of study, leakage and correction."""
    tested = rows[rows["status"] == "tested"].astype({"effect": float, "p_value": float, "fdr": float})
    untouched = tested[~tested["planted"] & ~tested["shares_gene_with_planted"]]
    readouts = untouched[untouched["role"] == "readout"]
    n_studies = rows["study"].nunique()
    called = readouts[readouts["fdr"] < ALPHA]
    found: list[tuple[str, float, int]] = [
        ("untouched readouts with p < 0.05", float((readouts["p_value"] < ALPHA).mean()), len(readouts)),
        ("untouched readouts called per study", len(called) / n_studies, n_studies),
        ("studies with an untouched readout called", float(called["study"].nunique() / n_studies), n_studies),
        ("largest untouched effect called", float(called["effect"].abs().max()) if len(called) else 0.0, len(called)),
    ]
    if kind == "leakage only":
        return found
    for name, planted in (
        ("planted", tested[tested["planted"]]),
        ("MSC class II", tested[tested["planted"] & (tested["program"] == "msc_mhc2")]),
    ):
        inside = planted["population_effect"].between(planted["ci_low"].astype(float), planted["ci_high"].astype(float))
        calls = (planted["fdr"] < ALPHA) & (np.sign(planted["effect"]) == np.sign(planted["population_effect"]))
        error = (planted["effect"] - planted["population_effect"]) * np.sign(planted["population_effect"])
        found += [
            (f"{name}: mean error of the effect", float(error.mean()), len(planted)),
            (f"{name}: truth inside the 95% interval", float(inside.mean()), len(planted)),
            (f"{name}: found at fdr < 0.05", float(calls.mean()), len(planted)),
        ]
    genes = rows.drop_duplicates("study")["class_ii_genes"].astype(float)
    found.append(("MSC class II genes: mean log2 fold change", float(genes.mean()), int(genes.notna().sum())))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=40, help="simulated studies per kind and leakage")
    parser.add_argument("--seed", type=int, default=3000)
    parser.add_argument("--leakage", type=float, nargs="+", default=LEAKAGES)
    parser.add_argument("--classes", choices=("true", "own"), default="true")
    options = parser.parse_args()
    table = []
    for kind in ("leakage only", "planted"):
        for leakage in options.leakage:
            rows = pd.concat(results(kind, leakage, options.classes, options.studies, options.seed))
            for corrected, chosen in rows.groupby("corrected", sort=False):
                words = "corrected" if corrected else "uncorrected"
                table += [(kind, leakage, words, *measured) for measured in summarise(chosen, kind)]
            print(pd.DataFrame(table[-20:]).to_string(header=False), flush=True)
    columns = ["study", "leakage", "counts", "measure", "value", "n"]
    name = "leakage.tsv" if options.classes == "true" else "leakage_own_classes.tsv"
    write_tsv(pd.DataFrame(table, columns=columns).round(4), REPOSITORY / "benchmarks" / "results" / name)


if __name__ == "__main__":
    main()
