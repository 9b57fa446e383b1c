"""What the tests find of what the demo planted, and how often they call what it did not, over repeated simulation.

Run from the repository: ``python benchmarks/demo_recovery.py [--studies N] [--seed S]``; about three minutes on one
core. Writes ``benchmarks/results/demo_recovery.tsv``, one row per leakage, group of rows and measure.

Each study has the demo's settings and a seed of its own: the planted effects' variation over genes, donors, libraries
and cells are drawn anew. Classes are the true ones and doublets and damaged cells are left out, so what is measured is
the contrast floor alone. The same studies are drawn without leakage and with the demo's.

Groups of rows
    *planted*: programmes that co-culture moves by design, in the lineages where it does.
    *untouched*: tested programmes that are neither planted nor share a gene with a planted one in the class; their true
    effect is zero over all donors that could be drawn, and varies between donors like that of any programme.
    *partner RNA*: the untouched programmes ``qc_msc_in_immune`` and ``qc_immune_in_msc``. They measure leakage by
    design: where RNA leaks they are meant to reject, where none does they must not (most often they cannot be scored
    then, since hardly a gene of them is detected).

Standard errors are over studies, the rows of one study being correlated: programmes share genes, and all programmes of
a class share the sizes of its libraries. A standard error of 0 or NaN comes from a measure that is the same in all
studies or that a single study gave.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "workflow"))

from immunomod.files import write_tsv  # noqa: E402
from immunomod.programs import load_programs  # noqa: E402
from immunomod.simulate.power import estimate_effects, true_pseudobulk  # noqa: E402
from immunomod.simulate.profiles import load_profiles  # noqa: E402
from immunomod.simulate.settings import SimulationSettings  # noqa: E402
from immunomod.simulate.study import simulate_study  # noqa: E402

ALPHA = 0.05
PARTNER_RNA = ("qc_msc_in_immune", "qc_immune_in_msc")
NUMBERS = ["effect", "se", "ci_low", "ci_high", "df", "p_value", "fdr"]


def draw_rows(settings: SimulationSettings, n_studies: int) -> pd.DataFrame:
    """Estimates and truth of every class and programme; study i has the seed ``settings.seed + i``."""
    programs, profiles = load_programs(), load_profiles()
    parts = []
    for number in range(n_studies):
        study = simulate_study(replace(settings, seed=settings.seed + number), programs, profiles)
        estimated = estimate_effects(true_pseudobulk(study), programs, settings.seed + number)
        truth = study.truth_effects.merge(estimated, on=["cell_class", "program"], how="left")
        parts.append(truth.assign(study=number))
    rows = pd.concat(parts, ignore_index=True)
    rows[NUMBERS] = rows[NUMBERS].astype(float)
    rows["tested"] = rows["status"] == "tested"
    return rows


def untouched(rows: pd.DataFrame) -> pd.DataFrame:
    """The tested rows whose true effect is zero over all donors that could be drawn."""
    return rows[rows["tested"] & ~rows["planted"] & ~rows["shares_gene_with_planted"]]


def null_measures(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """Per untouched row: is it rejected, is it called, its estimate."""
    return {"rejected": rows["p_value"] < ALPHA, "called_fdr": rows["fdr"] < ALPHA, "mean_effect": rows["effect"]}


def planted_measures(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """Per planted row: was it tested, and, of those tested, sign, intervals, calls and error of the estimate.

    The interval is for the mean over all donors that could be drawn (``population``), to which the drawn donors' own
    mean (``donors``) is nearer than the estimate's error lets one expect; it is inside more often than 95%.
    """
    tested = rows[rows["tested"]]
    right = np.sign(tested["effect"]) == np.sign(tested["population_effect"])
    return {
        "tested": rows["tested"],
        "right_sign": right,
        "coverage_population": tested["population_effect"].between(tested["ci_low"], tested["ci_high"]),
        "coverage_donors": tested["true_effect"].between(tested["ci_low"], tested["ci_high"]),
        "found_fdr": right & (tested["fdr"] < ALPHA),
        "bias": tested["effect"] - tested["population_effect"],
        "half_width": (tested["ci_high"] - tested["ci_low"]) / 2,
    }


def mean_over_rows(values: pd.Series, studies: pd.Series) -> tuple[float, float]:
    """Mean over rows and its standard error, studies being the independent units (linearised ratio of totals)."""
    if values.empty:
        return np.nan, np.nan
    by_study = values.astype(float).groupby(studies.loc[values.index]).agg(["sum", "count"])
    mean = by_study["sum"].sum() / by_study["count"].sum()
    if len(by_study) < 2:
        return mean, np.nan
    excess = by_study["sum"] - mean * by_study["count"]
    error = np.sqrt(len(by_study) / (len(by_study) - 1) * (excess**2).sum()) / by_study["count"].sum()
    return mean, float(error)


def false_discovery_proportion(rows: pd.DataFrame) -> pd.Series:
    """Per study: among the called rows that are planted or untouched, the share of untouched ones; 0 where none is."""
    judged = rows[rows["tested"] & (rows["planted"] | ~rows["shares_gene_with_planted"])]
    called = judged[judged["fdr"] < ALPHA]
    false = (~called["planted"]).groupby(called["study"]).mean()
    return false.reindex(rows["study"].unique(), fill_value=0.0)


def groups_of(rows: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    for column in by:
        for name, group in rows.groupby(column):
            yield f"{column} {name}", group


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per group of rows and measure: ``rows, group, measure, value, standard_error, n, studies``."""
    null, planted = untouched(rows), rows[rows["planted"]]
    partner = null["program"].isin(PARTNER_RNA)
    kinds = [
        ("untouched", "all", null, null_measures),
        ("untouched", "all without partner RNA", null[~partner], null_measures),
        ("untouched", "partner RNA", null[partner], null_measures),
        *(("untouched", *found, null_measures) for found in groups_of(null, ["role", "cell_class"])),
        ("planted", "all", planted, planted_measures),
        *(
            ("planted", *found, planted_measures)
            for found in groups_of(
                planted.assign(programme=planted["cell_class"] + " " + planted["program"]), ["role", "programme"]
            )
        ),
    ]
    table = []
    for kind, group, chosen, measures in kinds:
        for measure, values in measures(chosen).items():
            value, error = mean_over_rows(values, rows["study"])
            n = len(values)
            table.append((kind, group, measure, value, error, n, rows.loc[values.index, "study"].nunique()))
    share = false_discovery_proportion(rows[rows["role"] == "readout"])
    table.append(("called", "role readout", "false_discoveries", share.mean(), share.sem(), len(share), len(share)))
    columns = ["rows", "group", "measure", "value", "standard_error", "n", "studies"]
    return pd.DataFrame(table, columns=columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=60, help="simulated studies per leakage")
    parser.add_argument("--seed", type=int, default=20_000, help="seed of the first study")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "demo_recovery.tsv")
    options = parser.parse_args()
    demo = SimulationSettings(seed=options.seed)
    parts = []
    for leakage in (0.0, demo.leakage):
        table = summarise(draw_rows(replace(demo, leakage=leakage), options.studies))
        table.insert(0, "leakage", leakage)
        parts.append(table)
    table = pd.concat(parts, ignore_index=True).round({"value": 4, "standard_error": 4})
    write_tsv(table, options.out)
    print(table[~table["group"].str.startswith(("programme", "cell_class"))].to_string(index=False))


if __name__ == "__main__":
    main()
