"""Made-up results of a whole run, written in the shapes of the floors above the report. Seeded; no science in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from immunomod.contrast.fractions import COLUMNS as FRACTION_COLUMNS
from immunomod.files import write_text, write_tsv
from immunomod.programs import load_programs
from immunomod.report.inputs import PROGRAM_EFFECT_COLUMNS, ReportInputs

LINEAGE = {
    "MSC": "MSC", "CD4_T": "T", "CD8_T": "T", "NK": "NK", "B": "B", "CD14_monocyte": "monocyte",
    "CD16_monocyte": "monocyte", "DC": "DC", "megakaryocyte": "megakaryocyte", "unassigned": "unassigned",
}  # fmt: skip
TESTED_IN = {
    "immune:T": {"T"}, "immune:NK": {"NK"}, "immune:B": {"B"}, "immune:DC": {"DC"}, "immune:mono/mac": {"monocyte"},
}  # fmt: skip


AMBIENT_COLUMNS = (
    "sample", "group", "compartment", "n_cells", "counts", "ambient_fraction", "ambient_fraction_se",
    "partner_fraction", "partner_fraction_se", "n_exclusive_genes",
)  # fmt: skip
#: The programme that leaked RNA moves.
LEAKING = "msc_ifng_core"
#: Numbers of the samples that are unfiltered, pooled by hashtags, and judged other than ``pass``.
UNFILTERED, HASHTAGGED = 0, 3
VERDICTS = {
    2: ("warn", "few cells: 18% removed as doublets"),
    5: ("fail", "only 8 cells pass (qc.min_cells); fewer than 100 cells: fixed limits"),
}


@dataclass(frozen=True)
class Study:
    """What to make up."""

    cell_classes: tuple[str, ...] = ("MSC", "CD4_T", "CD8_T", "NK", "B", "CD14_monocyte", "CD16_monocyte", "DC")
    arms: tuple[str, ...] = ("msc_alone", "immune_stim", "coculture")
    contrasts: tuple[str, ...] = ("coculture_vs_alone",)
    donors: tuple[str, ...] = ("D1", "D2", "D3", "D4")
    cells_per_sample: int = 225
    n_genes: int = 1500
    prefix: str = ""
    all_untested: bool = False
    empty: bool = False
    #: Whether the run is of an older version, which wrote none of the later tables.
    old: bool = False
    seed: int = 1


def make_results(folder: Path, study: Study = Study()) -> ReportInputs:
    """Write the made-up results under ``folder`` and name them."""
    rng = np.random.default_rng(study.seed)
    results = folder / "results"
    samples = pd.DataFrame(
        [
            {
                "sample": f"{study.prefix}{donor}_{arm}", "dataset": "demo", "source": "GSM0", "condition": arm,
                "donor": f"{study.prefix}{donor}", "culture": _culture(arm), "organism": "human",
                "stimulus": "aCD3_aCD28" if arm != "msc_alone" else "",
            }
            for donor in study.donors
            for arm in study.arms
        ]
    )  # fmt: skip
    sheet = pd.DataFrame(
        [
            {
                "contrast": name, "dataset": "demo", "variable": "condition", "test": study.arms[-1],
                "reference": ",".join(study.arms[:-1]), "pair_by": "donor", "where": "", "covariates": "",
            }
            for name in study.contrasts
        ]
    )  # fmt: skip
    write_tsv(samples, folder / "samples.tsv")
    write_tsv(sheet, folder / "contrasts.tsv")
    obs = _write_cells(results, samples, study, rng)
    _write_atlas(results, obs, study, rng)
    for name in study.contrasts:
        _write_contrast(results / "contrasts" / name, name, samples, study, rng)
    _write_run(results, samples, study)
    if not study.old:
        for name in study.contrasts:
            _write_later_tables(results / "contrasts" / name, name, study, rng)
        _write_synthesis(results, study, rng)
    return ReportInputs.from_results(
        results,
        samples_sheet=folder / "samples.tsv",
        contrasts_sheet=folder / "contrasts.tsv",
        samples=list(samples["sample"]),
        contrasts=study.contrasts,
        atlases=["demo"],
    )


def _culture(arm: str) -> str:
    return {"msc_alone": "msc", "coculture": "coculture"}.get(arm, "immune")


def _classes_in(arm: str, study: Study) -> list[str]:
    if arm == "msc_alone":
        return [name for name in study.cell_classes if name == "MSC"]
    if arm == "immune_stim":
        return [name for name in study.cell_classes if name != "MSC"]
    return list(study.cell_classes)


def _write_cells(results: Path, samples: pd.DataFrame, study: Study, rng: np.random.Generator) -> pd.DataFrame:
    rows, kept_cells = [], []
    for number, row in enumerate(samples.to_dict("records")):
        n_cells = 0 if study.empty else study.cells_per_sample
        counts = np.exp(rng.normal(8.4, 0.6, n_cells)).round()
        cells = pd.DataFrame(
            {
                "barcode": [f"BC{index:06d}-1" for index in range(n_cells)],
                "total_counts": counts,
                "n_genes_by_counts": (counts**0.85).round(),
                "pct_counts_mt": rng.gamma(3, 1.6, n_cells),
                "pct_counts_ribo": rng.normal(22, 5, n_cells),
                "pct_counts_hb": 0.0,
                "doublet_score": rng.beta(1.5, 12, n_cells),
            }
        )
        low_counts, high_mt = cells["total_counts"] < 1200, cells["pct_counts_mt"] > 11
        doublet = cells["doublet_score"] > 0.33
        cells["complexity"] = np.log10(cells["n_genes_by_counts"]) / np.log10(cells["total_counts"])
        in_coculture = row["culture"] == "coculture"
        cells["partner_doublet_score"] = rng.beta(1, 60, n_cells) if in_coculture else np.nan
        cells["kept"] = ~(low_counts | high_mt | doublet)
        cells["reason"] = np.select([low_counts, high_mt, doublet], ["low_counts", "high_mt", "doublet"], "")
        n_empty = 3000 if number == UNFILTERED and n_cells else 0
        verdict, reason = VERDICTS.get(number, ("pass", ""))
        kinds = ambient_table(row["sample"], row["culture"], n_cells)
        folder = results / "samples" / row["sample"]
        write_tsv(cells, folder / "cells.tsv.gz")
        write_tsv(kinds, folder / "ambient.tsv")
        write_tsv(rank_table(row["sample"], counts, n_empty), folder / "barcode_ranks.tsv")
        leaked = kinds.iloc[0] if len(kinds) else dict.fromkeys(kinds.columns, np.nan)
        rows.append(
            {
                "sample": row["sample"], "dataset": "demo", "cells_before": n_cells + n_empty,
                "cells_empty_droplet": n_empty, "cells_other_species": 0,
                "cells_low_counts": int(low_counts.sum()), "cells_high_mt": int(high_mt.sum()),
                "cells_doublet": int(doublet.sum()), "cells_partner_doublet": 0,
                "cells_after": int(cells["kept"].sum()),
                "calling_method": "emptydrops" if n_empty else "none", "cells_called": n_cells,
                "knee": 1900.0 if n_empty else np.nan, "inflection": 1300.0 if n_empty else np.nan,
                "total_counts_lower": 1200.0, "total_counts_lower_from": "mad", "total_counts_upper": np.nan,
                "total_counts_upper_from": "", "n_genes_by_counts_lower": 350.0,
                "n_genes_by_counts_lower_from": "min", "pct_counts_mt_upper": 11.0,
                "pct_counts_mt_upper_from": "mad", "pct_counts_ribo_upper": 60.0,
                "pct_counts_ribo_upper_from": "spared", "pct_counts_hb_upper": 10.0,
                "pct_counts_hb_upper_from": "sheet", "complexity_lower": 0.7, "complexity_lower_from": "enough",
                "median_counts": counts.mean() if n_cells else np.nan,
                "median_genes": 1300.0, "doublet_rate": doublet.mean() if n_cells else np.nan,
                "doublet_method": "scrublet", "doublet_threshold": 0.33, "expected_doublet_rate": 0.02,
                "partner_doublet_rate": 0.013 if in_coculture and n_cells else np.nan,
                **{name: leaked[name] for name in AMBIENT_COLUMNS[5:9]},
                "hashtag_method": "mixture" if number == HASHTAGGED and n_cells else "",
                "n_hashtags": 4 if number == HASHTAGGED else 0,
                **{f"hashtag_{name}_rate": rate if number == HASHTAGGED and n_cells else np.nan
                   for name, rate in (("singlet", 0.95), ("doublet", 0.03), ("negative", 0.02))},
                "hashtag_genotype_cells": 0, "hashtag_genotype_agreement": np.nan, "species_doublet_rate": np.nan,
                "cycling_fraction": 0.12 if n_cells else np.nan,
                "verdict": verdict, "reason": reason,
            }
        )  # fmt: skip
        cells = cells[cells["kept"]]
        kept_cells.append(
            pd.DataFrame(
                {
                    "barcode": cells["barcode"], "sample": row["sample"], "dataset": "demo", "donor": row["donor"],
                    "condition": row["condition"],
                    "cell_class": rng.choice(_classes_in(row["condition"], study) or ["unassigned"], len(cells)),
                }
            )
        )  # fmt: skip
    write_tsv(pd.DataFrame(rows), results / "samples" / "qc.tsv")
    return pd.concat(kept_cells, ignore_index=True)


def ambient_table(sample: str, culture: str, n_cells: int) -> pd.DataFrame:
    """Leaked RNA by kind of cell; immune cells of a co-culture hold more."""
    kinds = {"msc": ("MSC",), "immune": ("T_NK", "B"), "coculture": ("MSC", "T_NK", "B", "myeloid")}[culture]
    partner = 0.03 if culture == "coculture" else np.nan
    rows = [
        (sample, kind, "MSC" if kind == "MSC" else "immune", n_cells // len(kinds), 5e5, 0.04 + 0.02 * position,
         0.005, partner, 0.004 if culture == "coculture" else np.nan, 20)
        for position, kind in enumerate(kinds)
    ]  # fmt: skip
    return pd.DataFrame(rows if n_cells else [], columns=list(AMBIENT_COLUMNS))


def rank_table(sample: str, counts: NDArray[np.float64], n_empty: int) -> pd.DataFrame:
    """The rank curve of an unfiltered sample; without rows for a filtered one."""
    totals = np.sort(np.concatenate([counts, np.geomspace(300, 1, n_empty)]))[::-1] if n_empty else np.zeros(0)
    rank = np.unique(np.geomspace(1, len(totals), 100).round().astype(int)) if n_empty else np.zeros(0, dtype=int)
    share = (rank <= len(counts)).astype(float)
    return pd.DataFrame({"sample": sample, "rank": rank, "total": totals[rank - 1], "cell_share": share})


def _write_atlas(results: Path, obs: pd.DataFrame, study: Study, rng: np.random.Generator) -> None:
    obs = obs.copy()
    obs.index = pd.Index([f"{s}:{b}" for s, b in zip(obs["sample"], obs["barcode"], strict=True)], dtype=str)
    position = {name: index for index, name in enumerate([*study.cell_classes, "unassigned"])}
    number = obs["cell_class"].map(position).to_numpy(dtype=float)
    obs["cluster"] = (2 * number + rng.integers(0, 2, len(obs))).astype(int).astype(str)
    obs["compartment"] = np.where(obs["cell_class"] == "MSC", "MSC", "immune")
    obs["lineage"] = obs["cell_class"].map(LINEAGE).fillna("unassigned")
    obs["cell_class_confidence"] = rng.uniform(0.5, 1, len(obs))
    angle = 2 * np.pi * number / max(len(position), 1)
    umap = np.column_stack([6 * np.cos(angle), 6 * np.sin(angle)]) + rng.normal(0, 0.8, (len(obs), 2))
    for program in ("msc_ifng_core", "imm_T_prolif_S", "qc_msc_in_immune"):
        obs[f"score_{program}"] = rng.normal(0, 2, len(obs)).astype(np.float32)
    for column in ("sample", "donor", "condition", "cluster", "cell_class", "compartment", "lineage", "dataset"):
        obs[column] = pd.Categorical(obs[column])
    atlas = ad.AnnData(X=np.zeros((len(obs), 1), dtype=np.float32), obs=obs, obsm={"X_umap": umap})
    folder = results / "atlas" / "demo"
    folder.mkdir(parents=True)
    atlas.write_h5ad(results / "atlas" / "demo.h5ad")
    clusters = obs.groupby("cluster", observed=True).agg(cell_class=("cell_class", "first"), n_cells=("sample", "size"))
    clusters = clusters.reset_index().astype({"cell_class": str})
    clusters["compartment"] = np.where(clusters["cell_class"] == "MSC", "MSC", "immune")
    clusters["lineage"] = clusters["cell_class"].map(LINEAGE)
    clusters["confidence"] = rng.uniform(0.4, 1, len(clusters)).round(3)
    clusters["runner_up"] = "NK"
    clusters["top_markers"] = "CD3D,CD3E,IL7R,LTB,TRAC"
    clusters["marks"] = ["one sample alone", *[""] * (len(clusters) - 1)] if len(clusters) else ""
    clusters["witnesses"] = "3 of 3 agree"
    clusters["proposed_class"] = clusters["cell_class"]
    write_tsv(clusters, folder / "clusters.tsv")
    write_tsv(integration_table(), folder / "integration.tsv")
    write_tsv(clustering_table(), folder / "clustering.tsv")
    write_tsv(marker_table(study.cell_classes, rng), folder / "markers.tsv")


def integration_table() -> pd.DataFrame:
    """Three methods side by side, of which Harmony is taken."""
    columns = ["method", "batch_score", "class_score", "effect_kept", "score", "seconds", "chosen", "reason", "caution"]
    rows = [
        ("none", 0.412, 0.71, 1.0, 0.622, 0.0, False, "", ""),
        (
            "harmony",
            0.803,
            0.69,
            0.84,
            0.735,
            12.4,
            True,
            "the best score of 3 methods",
            "every batch is one condition",
        ),
        ("bbknn", 0.755, 0.66, np.nan, 0.698, 4.1, False, "", ""),
    ]
    return pd.DataFrame(rows, columns=columns).assign(key="sample", n_batches=12)


def clustering_table() -> pd.DataFrame:
    """Three resolutions and the finer groups that get named."""
    columns = ["purpose", "resolution", "n_clusters", "smallest_cluster", "stability_ari", "subsample_ari"]
    rows = [
        ("clusters", 0.5, 9, 60, 0.91, 0.88, 0.21, 0.8, False, ""),
        ("clusters", 1.0, 16, 31, 0.94, 0.93, 0.25, 0.78, True, "the finest that keeps its clusters"),
        ("groups that are named", 4.0, 41, 5, 0.62, np.nan, np.nan, 0.6, True, "fine, so that classes part"),
    ]
    return pd.DataFrame(rows, columns=[*columns, "silhouette", "modularity", "chosen", "reason"])


def marker_table(cell_classes: tuple[str, ...], rng: np.random.Generator, n_genes: int = 12) -> pd.DataFrame:
    """Ranked genes of each class."""
    rows = [
        {
            "grouping": "cell_class", "group": name, "rank": rank, "gene_symbol": f"{name[:4].upper()}{rank}",
            "auc": 1 - 0.02 * rank, "log2_fold_change": 5 - 0.2 * rank, "detected_in": rng.uniform(0.6, 1),
            "detected_out": rng.uniform(0, 0.3), "n_cells": 100,
        }
        for name in cell_classes
        for rank in range(1, n_genes + 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _write_contrast(folder: Path, contrast: str, samples: pd.DataFrame, study: Study, rng: np.random.Generator) -> None:
    meta = load_programs().meta
    n_donors = len(study.donors)
    effects, scores = [], []
    for cell_class in study.cell_classes:
        for program, row in meta.iterrows():
            tested = _is_tested(row["compartment"], cell_class)
            record, replicate = _effect(contrast, cell_class, str(program), row, study, tested, rng)
            effects.append(record)
            scores += replicate
    table = pd.DataFrame(effects, columns=list(PROGRAM_EFFECT_COLUMNS)) if effects else _no_rows(PROGRAM_EFFECT_COLUMNS)
    write_tsv(table.iloc[:0] if study.empty else table, folder / "program_effects.tsv")
    score_columns = (
        "contrast", "dataset", "cell_class", "program", "sample", "donor", "arm", "score", "n_cells",
    )  # fmt: skip
    score_table = pd.DataFrame(scores, columns=list(score_columns))
    write_tsv(score_table.iloc[:0] if study.empty else score_table, folder / "program_scores.tsv")
    composition, design = [], []
    for index, cell_class in enumerate(study.cell_classes):
        status, reason = ("tested", "") if index != 7 else ("too_few_cells", "fewer than 10 cells in every sample")
        value = rng.normal(0, 0.5)
        tested = status == "tested" and not study.all_untested
        composition.append(
            {
                "contrast": contrast, "dataset": "demo", "cell_class": cell_class,
                "compartment": "MSC" if cell_class == "MSC" else "immune",
                "n_test": n_donors, "n_reference": n_donors, "n_pairs": n_donors, "cells_test": 220,
                "cells_reference": 200, "effect": value if tested else np.nan, "se": 0.2 if tested else np.nan,
                "ci_low": value - 0.4 if tested else np.nan, "ci_high": value + 0.4 if tested else np.nan,
                "p_value": 0.03 if tested else np.nan, "fdr": 0.12 if tested else np.nan, "status": status,
                "reason": reason,
            }
        )  # fmt: skip
        design.append(
            {
                "contrast": contrast, "dataset": "demo", "cell_class": cell_class, "n_test": n_donors,
                "n_reference": n_donors, "n_pairs": n_donors, "model": "paired", "status": status, "reason": reason,
            }
        )  # fmt: skip
        if not study.all_untested:
            write_tsv(_genes(study, rng), folder / "genes" / f"{cell_class}.tsv.gz")
    write_tsv(pd.DataFrame(composition).iloc[: 0 if study.empty else None], folder / "composition.tsv")
    write_tsv(pd.DataFrame(design).iloc[: 0 if study.empty else None], folder / "design.tsv")


def _is_tested(compartment: str, cell_class: str) -> bool:
    if cell_class == "MSC":
        return compartment in {"MSC", "both"}
    return compartment in {"both", "immune:all"} or LINEAGE.get(cell_class) in TESTED_IN.get(compartment, set())


def _effect(
    contrast: str,
    cell_class: str,
    program: str,
    row: pd.Series,
    study: Study,
    tested: bool,
    rng: np.random.Generator,
) -> tuple[dict[str, object], list[dict[str, object]]]:
    n_donors = len(study.donors)
    record: dict[str, object] = {
        "contrast": contrast, "dataset": "demo", "cell_class": cell_class, "program": program, "role": row["role"],
        "n_test": n_donors, "n_reference": n_donors, "n_pairs": n_donors, "cells_test": 180, "cells_reference": 160,
        "genes_found": 12, "genes_total": 14, "expected_sign": row["expected_sign"],
    }  # fmt: skip
    if not tested:
        return record | {"status": "absent", "reason": "the programme is not defined in this cell class"}, []
    if study.all_untested or n_donors < 2:
        return record | {"status": "unreplicated", "reason": "fewer than two replicates per arm"}, []
    if rng.random() < 0.06:
        return record | {"status": "low_coverage", "reason": "3 genes detected, 5 needed", "genes_found": 3}, []
    truth = {"+": 1, "-": -1}.get(str(row["expected_sign"]), 0) * (3.2 if program == "msc_ifng_core" else 0.8)
    change = truth + rng.normal(0, 0.35) + rng.normal(0, 0.3, n_donors)
    effect, se = float(change.mean()), float(max(change.std(ddof=1), 0.12) / np.sqrt(n_donors))
    p_value = float(min(1.0, 2 * np.exp(-0.5 * abs(effect / se) ** 1.6)))
    scores = [
        {
            "contrast": contrast, "dataset": "demo", "cell_class": cell_class, "program": program,
            "sample": f"{study.prefix}{donor}_{arm}", "donor": f"{study.prefix}{donor}", "arm": arm,
            "score": 5.0 + (delta if arm == "test" else 0.0), "n_cells": 40,
        }
        for donor, delta in zip(study.donors, change, strict=True)
        for arm in ("test", "reference")
    ]  # fmt: skip
    return record | {
        "effect": effect, "se": se, "ci_low": effect - 3.18 * se, "ci_high": effect + 3.18 * se, "df": 3.0,
        "p_value": p_value, "fdr": min(1.0, 2 * p_value), "hedges_g": effect / 0.5, "null_z": effect * 3,
        "p_sign_flip": 2 / 2**n_donors if (change > 0).all() or (change < 0).all() else 0.5,
        "effect_raw": effect + (0.4 if program == LEAKING else 0.02),
        "agrees": (effect > 0) == (row["expected_sign"] == "+") if row["expected_sign"] in "+-" else "",
        "status": "tested", "reason": "",
    }, scores  # fmt: skip


def _genes(study: Study, rng: np.random.Generator) -> pd.DataFrame:
    columns = ("gene", "base_mean", "log2_fold_change", "se", "statistic", "p_value", "fdr", "ambient_suspect")
    if study.empty:
        return _no_rows(columns)
    n_genes = study.n_genes
    change = rng.normal(0, 0.5, n_genes) * (1 + 3 * (rng.random(n_genes) < 0.1))
    p_value = np.minimum(1.0, 2 * np.exp(-3 * np.abs(change)) * rng.random(n_genes))
    fdr = np.minimum(1.0, p_value * 8)
    table = pd.DataFrame(
        {
            "gene": [f"{study.prefix}GENE{index}" for index in range(n_genes)],
            "base_mean": rng.gamma(1, 50, n_genes),
            "log2_fold_change": change,
            "se": 0.3,
            "statistic": change / 0.3,
            "p_value": p_value,
            "fdr": fdr,
            "ambient_suspect": rng.random(n_genes) < 0.02,
        }
    )
    table.loc[:20, ["log2_fold_change", "p_value", "fdr"]] = np.nan
    return table[list(columns)]


def _no_rows(columns: tuple[str, ...]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(dtype=object) for name in columns})


def _write_run(results: Path, samples: pd.DataFrame, study: Study) -> None:
    ledger = pd.DataFrame(
        {
            "dataset": "demo", "sample": samples["sample"], "url": "https://example.org/GSM0_matrix.mtx.gz",
            "path": "", "bytes": 48213, "sha256": "ab" * 32, "retrieved": "2026-01-02T03:04:05Z",
            "parser": "tenx_triplet", "decision": "matrix.mtx.gz with features.tsv.gz: CellRanger 3 triplet",
        }
    )  # fmt: skip
    write_tsv(ledger, results / "ledger.tsv")
    synthesis = ("program", "cell_class", "k", "effect", "ci_low", "ci_high", "tau2", "i2", "status", "reason")
    write_tsv(_no_rows(synthesis), results / "synthesis" / "program_meta.tsv")
    config = {
        "seed": 1, "samples": "samples.tsv", "contrasts": "contrasts.tsv", "qc": {"n_mads": 4, "max_pct_mt": 20},
        "doublets": {"method": "scrublet", "remove": True},
        "atlas": {
            "n_variable_genes": 2000, "n_components": 30, "integration": "harmony", "integration_key": "sample",
            "n_neighbors": 15, "leiden_resolution": 1.0,
        },
        "contrast": {"min_cells": 10, "min_genes": 5, "n_random_sets": 200},
    }  # fmt: skip
    write_text(yaml.safe_dump(config, sort_keys=False), results / "provenance" / "config.yaml")
    versions = pd.DataFrame({"name": ["immunomod", "python", "scanpy"], "version": ["0.1.0", "3.11.2", "1.11.5"]})
    write_tsv(versions, results / "provenance" / "versions.tsv")


def _write_later_tables(folder: Path, contrast: str, study: Study, rng: np.random.Generator) -> None:
    """Enrichment, communication and diseases; nothing tested where the study has no replicates."""
    effects = pd.read_csv(folder / "program_effects.tsv", sep="\t")
    columns = ["contrast", "dataset", "cell_class", "program", "role", "expected_sign", "status", "reason"]
    tested = effects["status"] == "tested"
    statistic = (pd.to_numeric(effects["effect"]) * 4).where(tested)
    enrichment = effects[columns].assign(statistic=statistic, df=3.0, p_value=effects["p_value"], fdr=effects["fdr"])
    write_tsv(enrichment, folder / "program_enrichment.tsv")
    no_test = study.all_untested or study.empty or len(study.donors) < 2
    pairs, classes = [], [name for name in study.cell_classes if name != "MSC"]
    for number, (ligand, receptor) in enumerate((("CXCL10", "CXCR3"), ("TNF", "FAS"), ("COL1A1", "CD44"))):
        for cell_class in classes:
            to_immune = number != 1
            effect = rng.normal(1 - number, 0.3)
            row = {
                "contrast": contrast, "dataset": "demo", "direction": "msc_to_immune" if to_immune else "immune_to_msc",
                "source": "MSC" if to_immune else cell_class, "target": cell_class if to_immune else "MSC",
                "ligand": f"{study.prefix}{ligand}", "receptor": receptor, "n_pairs": 1,
                "ligand_log2_fold_change": 2 * effect, "receptor_log2_fold_change": 0.1,
            }  # fmt: skip
            if no_test or number == 2:
                row |= {"status": "leakage", "reason": "cannot be told from leaked partner RNA"}
            else:
                row |= {"effect": effect, "se": 0.3, "ci_low": effect - 0.6, "ci_high": effect + 0.6,
                        "p_value": 0.001, "fdr": 0.01 if number == 0 else 0.4, "p_both": 0.5, "fdr_both": 1.0,
                        "status": "tested", "reason": ""}  # fmt: skip
            pairs.append(row)
    estimate = ["effect", "se", "ci_low", "ci_high", "p_value", "fdr"]
    columns = [*dict.fromkeys([*pairs[0], *estimate, "p_both", "fdr_both"])]
    write_tsv(pd.DataFrame(pairs, columns=columns), folder / "communication.tsv")
    signatures = (("multiple_sclerosis", "th17", "imm_Th17"), ("crohns_disease", "own", ""))
    rows = [
        {
            "contrast": contrast, "dataset": "demo", "cell_class": cell_class, "disease": disease,
            "signature": f"{study.prefix}{signature}", "programs": programs, "n_test": 4, "n_reference": 4,
            "n_pairs": 4, "genes_found": 8, "genes_total": 9, "genes_verified": 2 if not programs else 9,
            **({"status": "unreplicated", "reason": "one replicate"} if no_test else
               {"effect": -0.8, "se": 0.1, "ci_low": -1.1, "ci_high": -0.5, "p_value": 0.001, "fdr": 0.004,
                "pushes": "against", "status": "tested", "reason": ""}),
        }
        for disease, signature, programs in signatures
        for cell_class in classes[:2]
    ]  # fmt: skip
    columns = [*dict.fromkeys([*rows[0], *estimate, "pushes"])]
    write_tsv(pd.DataFrame(rows, columns=columns), folder / "disease.tsv")
    write_tsv(fraction_table(contrast, study, no_test=no_test), folder / "fractions.tsv")


def fraction_table(contrast: str, study: Study, *, no_test: bool) -> pd.DataFrame:
    """Shares of regulatory and of dividing cells: the first falls for certain, the last class holds too few."""
    wanted = [("Treg", "CD4_T"), *(("cycling", name) for name in study.cell_classes)]
    n_donors = len(study.donors)
    rows = []
    for number, (fraction, cell_class) in enumerate([] if study.empty else wanted):
        row = {
            "contrast": contrast, "dataset": "demo", "fraction": fraction, "cell_class": cell_class,
            "n_test": n_donors, "n_reference": n_donors, "n_pairs": n_donors,
            "cells_test": 31 + number, "cells_reference": 64, "of_test": 1210, "of_reference": 1180,
        }  # fmt: skip
        if no_test:
            row |= {"status": "unreplicated", "reason": "one replicate"}
        elif cell_class == study.cell_classes[-1]:
            row |= {"cells_test": 0, "status": "too_few_cells", "reason": "no cell of the test arm is in S, G2 or M"}
        else:
            effect = -0.75 + 0.2 * number
            row |= {"effect": effect, "se": 0.2, "ci_low": effect - 0.6, "ci_high": effect + 0.6, "df": 3.0,
                    "p_value": 0.004 if number < 2 else 0.5, "fdr": 0.02 if number < 2 else 0.6,
                    "status": "tested", "reason": ""}  # fmt: skip
        rows.append(row)
    return pd.DataFrame(rows, columns=list(FRACTION_COLUMNS))


def _write_synthesis(results: Path, study: Study, rng: np.random.Generator) -> None:
    """Responses of MSC donors, the split of their variance, and the leaked share of the pseudobulks."""
    ranked = len(study.donors) > 1 and not study.empty
    potency = [
        {
            "contrast": contrast, "dataset": "demo", "cell_class": "MSC", "program": program, "role": "readout",
            "msc_donor": f"{study.prefix}M{number}", "msc_source": "bone_marrow", "response": float(rng.normal(2, 1)),
            **({"rank": number, "rank_low": 1, "rank_high": len(study.donors), "status": "tested", "reason": ""}
               if ranked else {"status": "unreplicated", "reason": "no MSC donor has two cultures in an arm"}),
        }
        for contrast in study.contrasts
        for program in ("msc_ifng_core", "msc_trophic")
        for number in range(1, len(study.donors) + 1)
    ]  # fmt: skip
    write_tsv(pd.DataFrame(potency), results / "synthesis" / "potency.tsv")
    split = [
        {
            "contrast": contrast, "cell_class": "MSC", "program": "msc_ifng_core", "organism": "human",
            "role": "readout", "component": component, "levels": 2, "n_responses": 4, "variance": variance,
            "ci_low": low, "ci_high": 1.5, "share": variance, "status": "tested", "reason": "",
        }
        for contrast in study.contrasts
        for component, variance, low in (("source", 0.2, 0.0), ("donor", 0.8, 0.3))
    ]  # fmt: skip
    write_tsv(pd.DataFrame(split), results / "synthesis" / "variance.tsv")
    suppression = {"contrast": study.contrasts[0], "program": "msc_ifng_core", "status": "absent",
                   "reason": "the samples sheet gives no suppression for data set demo"}  # fmt: skip
    write_tsv(pd.DataFrame([suppression]), results / "synthesis" / "suppression.tsv")
    leakage = {"sample": "s", "donor": study.donors[0], "cell_class": "MSC", "leaked_fraction": 0.03}
    write_tsv(pd.DataFrame([leakage]), results / "pseudobulk" / "demo.leakage.tsv")
