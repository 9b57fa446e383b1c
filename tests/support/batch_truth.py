"""What integration methods are worth on simulated studies, against the truth that they do not see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from immunomod.atlas.annotate import annotate
from immunomod.atlas.cluster import absorb_small, graph_of, leiden
from immunomod.atlas.integrate import REGISTRY, integrate
from immunomod.atlas.integration.keys import choose_key, levels_of
from immunomod.atlas.integration.method import Aligned, Task
from immunomod.atlas.integration.settings import IntegrationSettings
from immunomod.atlas.neighbors import fuzzy_connectivities, nearest_neighbors
from immunomod.atlas.settings import AnnotationSettings
from immunomod.simulate.settings import REFERENCE_ARM
from support.batch_studies import BatchAtlas, batch_atlas, true_classes


def truth_of_methods(folder: Path, kind: str, sd: float, seed: int, **options: float) -> pd.DataFrame:
    """The rows of ``integration.tsv`` of one simulated study, with the truth beside them."""
    atlas = batch_atlas(folder, kind, sd, seed, **options)  # type: ignore[arg-type]
    table = integrate(atlas.data, IntegrationSettings(), seed).table
    key = choose_key(atlas.reduced.obs)
    rows = []
    for row in table.to_dict("records"):
        batches = levels_of(atlas.reduced.obs, "sample") if row["key"] == "sample" else key.batches
        aligned = REGISTRY[row["method"]].run(Task(atlas.components, list(batches), seed))
        rows.append({"design": kind, "batch_sd": sd, "seed": seed} | row | truth(atlas, aligned))
    result = pd.DataFrame(rows)
    best = result["truth_score"].max()
    result["within_5_percent"] = result["truth_score"] >= 0.95 * best
    return result.drop(columns=["citation"])


def truth(atlas: BatchAtlas, aligned: Aligned) -> dict[str, float]:
    """How well classes and planted effects are found on the graph of an integration."""
    from sklearn.metrics import adjusted_rand_score

    neighbors = aligned.neighbors or nearest_neighbors(aligned.coordinates, 15)
    connectivities = fuzzy_connectivities(neighbors)
    graph = graph_of(connectivities)
    fine = absorb_small(leiden(graph, 4.0, atlas.seed), connectivities, 5)
    named = annotate(
        atlas.reduced.expression, pd.Index(atlas.reduced.var["gene_symbol"]), connectivities, fine, atlas.markers,
        "human", AnnotationSettings(), atlas.seed,
    ).cell_class  # fmt: skip
    true = true_classes(atlas).to_numpy()
    error = effect_error(atlas, named)
    ari = float(adjusted_rand_score(true, named.astype(str)))
    return {
        "ari_classes": ari,
        "ari_leiden": float(adjusted_rand_score(true, leiden(graph, 1.0, atlas.seed))),
        "effect_error": error,
        "truth_score": (ari + 1 - min(error, 1.0)) / 2,
    }


def effect_error(atlas: BatchAtlas, named: np.ndarray) -> float:
    """Error of log2 changes of planted genes, relative to the changes; a class that is not found has changes of 0."""
    cells = atlas.study.adata[atlas.reduced.obs.index]
    obs = cells.obs
    truth_genes = atlas.study.truth_genes
    planted = truth_genes[truth_genes["planted"]]
    errors, sizes = [], []
    for name, genes in planted.groupby("cell_class"):
        reference = REFERENCE_ARM["MSC" if name == "MSC" else "immune"]
        columns = pd.Index(atlas.study.adata.var["gene_symbol"]).get_indexer(pd.Index(genes["gene"]))
        changes = []
        if obs.groupby("donor")["condition"].nunique().min() == 3:
            groups = [obs["donor"].to_numpy() == donor for donor in sorted(set(obs["donor"]))]
        else:  # donors gave one arm or the other: their means are compared
            groups = [np.ones(len(obs), dtype=bool)]
        for own in groups:
            arms = [own & (named == name) & (obs["condition"] == arm).to_numpy() for arm in (reference, "coculture")]
            if min(int(arm.sum()) for arm in arms) < 5:
                continue
            before, after = (_log_cpm(cells.X[arm].sum(axis=0), columns) for arm in arms)
            changes.append(after - before)
        estimate = np.mean(changes, axis=0) if changes else np.zeros(len(genes))
        true = genes["true_log2_change"].to_numpy()
        errors.append((estimate - true) ** 2)
        sizes.append(true**2)
    return float(np.sqrt(np.concatenate(errors).mean() / np.concatenate(sizes).mean()))


def _log_cpm(total: np.ndarray, columns: np.ndarray) -> np.ndarray:
    counts = np.asarray(total, dtype=float).ravel()
    return np.asarray(np.log2((counts[columns] + 0.5) / counts.sum() * 1e6))
