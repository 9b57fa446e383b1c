"""How far a contestant's result agrees with the truth and with exact methods.

Neighbours: the share of a cell's 14 nearest neighbours in the contestant's own components that it found (recall against
brute force), and the share of what it found that is of the cell's true class, beside that of the exact neighbours.
Components: the largest principal angle (degrees) between the contestant's first ten and those of this workflow, where
both saved loadings, over the genes that both chose. Clusters: adjusted Rand index with the true classes. Markers: the
share of the first genes of each cluster that are truly higher in the class that most of its cells belong to.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from counts import CLASSES, profiles
from scipy.linalg import subspace_angles
from sklearn.metrics import adjusted_rand_score

N_QUERIES = 2_000
N_NEIGHBORS = 14
N_MARKERS = 10


def truly_higher(seed: int = 1) -> dict[str, set[str]]:
    """Genes at least 1.3 times as high in a class as in the mean of the others."""
    genes, archetypes = profiles(seed)
    levels, weights = archetypes.mean(axis=1), np.array([share for *_, share in CLASSES])
    symbols = genes["gene_symbol"].to_numpy()
    higher = {}
    for number, (name, *_) in enumerate(CLASSES):
        others = np.arange(len(CLASSES)) != number
        rest = np.average(levels[others], axis=0, weights=weights[others])
        higher[name] = set(symbols[levels[number] > 1.3 * rest])
    return higher


def agreement(study: Path, out: Path, seed: int = 1) -> dict[str, float]:
    """The figures of one contestant."""
    truth = pd.read_csv(study / "truth.tsv.gz", sep="\t").set_index("cell")["cell_class"]
    found = pd.read_csv(out / "clusters.tsv.gz", sep="\t", dtype=str)
    known = truth.reindex(found["cell"]).to_numpy(dtype=str)
    clusters = found["cluster"].fillna("").to_numpy(dtype=str)
    components, neighbors = np.load(out / "components.npy"), np.load(out / "neighbors.npy")
    markers = json.loads((out / "markers.json").read_text())
    queries = np.random.default_rng(seed).choice(min(len(known), 20_000), size=N_QUERIES, replace=False)
    exact = _exact_neighbors(components, queries)
    figures = {
        "n_cells": len(known),
        "n_clusters": len(set(clusters)),
        "ari": adjusted_rand_score(known, clusters),
        "exact_neighbors_of_class": float((known[exact] == known[queries][:, None]).mean()),
        "neighbor_recall": np.nan,
        "neighbors_of_class": np.nan,
        "markers_higher": _markers_higher(markers, clusters, known, truly_higher()),
    }
    if neighbors.ndim == 2 and neighbors.shape[1] > 0:
        got = neighbors[queries][:, :N_NEIGHBORS]
        both = zip(exact[:, : got.shape[1]], got, strict=True)
        figures["neighbor_recall"] = float(np.mean([len(set(a) & set(b)) / len(b) for a, b in both]))
        figures["neighbors_of_class"] = float((known[got] == known[queries][:, None]).mean())
    return figures


def _exact_neighbors(components: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """By brute force, in float64."""
    data = components.astype(np.float64)
    squares = (data**2).sum(axis=1)
    rows = []
    for query in queries:
        distance = squares - 2 * data @ data[query]
        distance[query] = np.inf
        near = np.argpartition(distance, N_NEIGHBORS)[:N_NEIGHBORS]
        rows.append(near[np.argsort(distance[near])])
    return np.array(rows)


def _markers_higher(
    markers: dict[str, list[str]], clusters: np.ndarray, known: np.ndarray, higher: dict[str, set[str]]
) -> float:
    shares = []
    for cluster, genes in markers.items():
        cells = known[clusters == cluster]
        if len(cells) and genes:
            main = pd.Series(cells).mode()[0]
            shares.append(np.mean([gene in higher[main] for gene in genes[:N_MARKERS]]))
    return float(np.mean(shares)) if shares else np.nan


def principal_angle(out: Path, other: Path, n_components: int = 10) -> float:
    """Largest angle (degrees) between two contestants' leading components over the genes that both chose."""
    spaces = []
    for folder in (out, other):
        loadings = np.load(folder / "loadings.npy")
        genes = json.loads((folder / "genes.json").read_text())
        if loadings.shape[0] != len(genes):
            return float("nan")
        spaces.append(pd.DataFrame(loadings[:, :n_components], index=genes).groupby(level=0).first())
    shared = spaces[0].index.intersection(spaces[1].index)
    return float(np.degrees(subspace_angles(*(space.loc[shared].to_numpy() for space in spaces)).max()))
