"""Clusters that are no class of cells: doublets, leaked RNA, damage, or one sample alone.

Single cells were judged on the sample floor. What slipped through often gathers in a cluster of its own, and there it
shows better than in any cell. Cells are held against others of their own sample (and compartment, where it has enough),
so a sample of another depth is no reason. A mark is a hint to look, with its reason in words; no cell is removed by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from immunomod.exclusive import COMPARTMENT_OF, PARTNER
from immunomod.sections import require

DOUBLETS, LEAKAGE, LOW_QUALITY = "doublets", "leakage", "low quality"
ONE_SAMPLE, ONE_DONOR, CYCLING = "one sample", "one donor", "cycling"
COLUMNS = (
    *("cluster", "marks", "marks_reason", "top_sample", "top_sample_share", "doublet_rank", "partner_doublet_score"),
    *("counts_rank", "genes_rank", "mt_rank", "relative_counts", "other_kind_share", "own_gene_auc", "cycling_share"),
)
_RANKED = {
    "counts_rank": "total_counts",
    "genes_rank": "n_genes_by_counts",
    "mt_rank": "pct_counts_mt",
}


@dataclass(frozen=True)
class FlagSettings:
    """When a cluster is marked; those that the config gives are there named ``atlas.mark_<name>``.

    Attributes
    ----------
    min_cells
        Smaller clusters get no mark: ten cells say little.
    doublet_score
        Median of ``partner_doublet_score`` (about 1 in a doublet of an MSC and an immune cell) that makes doublets.
    doublet_rank
        Median share of the same sample's other cells with a lower doublet score, which makes doublets too.
    doublet_max_share
        Doublets are few: a larger cluster (share of all cells) is none, whatever its scores.
    leaked_counts
        Counts, over the median of the sample, up to which a droplet may hold leaked RNA alone.
    sample_share
        One sample (donor) alone: it has at least this share of the cluster's cells, but at most ``max_elsewhere`` of
        the comparable cells of other clusters.
    high_rank, low_rank
        Median share of comparable cells that are lower, which counts as high (mitochondrial RNA), as low (genes).
    own_gene_auc
        A gene that reaches this and is doubled makes a cluster one of its own kind.
    max_elsewhere
        See ``sample_share``.
    cycling_share
        Share of cells in S, G2 or M.
    """

    min_cells: int = 20
    doublet_score: float = 0.25
    doublet_rank: float = 0.9
    doublet_max_share: float = 0.1
    leaked_counts: float = 0.5
    sample_share: float = 0.9
    high_rank: float = 0.9
    low_rank: float = 0.25
    own_gene_auc: float = 0.7
    max_elsewhere: float = 0.5
    cycling_share: float = 0.5

    def __post_init__(self) -> None:
        require(self.min_cells >= 1, "atlas", "mark_min_cells", self.min_cells, "1 or more")
        for name, value in asdict(self).items():
            if name != "min_cells":
                require(0 < value <= 1, "atlas", f"mark_{name}", value, "above 0 and up to 1")


def flag_clusters(
    obs: pd.DataFrame, settings: FlagSettings | None = None, markers: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Mark the clusters that are no class of cells.

    Parameters
    ----------
    obs
        One row per cell: ``cluster`` and ``sample``; and as far as they are known ``donor``, ``condition``,
        ``compartment`` and what the sample floor writes (``total_counts``, ``n_genes_by_counts``, ``pct_counts_mt``,
        ``doublet_score``, ``partner_doublet_score``, ``cell_kind``, ``phase``). What is absent makes no mark.
    settings
        Limits.
    markers
        Marker genes of the grouping ``cluster`` (:func:`immunomod.atlas.ranks.rank_genes`).

    Returns
    -------
    DataFrame
        One row per cluster, columns :data:`COLUMNS`: ``marks`` (joined by ``,``, empty for none), ``marks_reason`` in
        words, and the numbers behind them, NaN where unknown. ``*_rank``: for the cluster's median cell, the share of
        other clusters' cells of its sample that are lower. ``relative_counts``: median of counts over the sample's
        median. ``other_kind_share``: cells whose exclusive genes are not those of the cluster's compartment.
        ``own_gene_auc``: the best gene's among those at least twice as high as elsewhere.
    """
    settings = settings or FlagSettings()
    measures = _measures(obs, markers)
    rows = []
    for cluster, measured in measures.iterrows():
        found: list[tuple[str, str]] = []
        if measured["n_cells"] >= settings.min_cells:
            found = list(_marks(measured, obs, obs["cluster"].to_numpy() == cluster, len(obs), settings))
        rows.append(
            {
                "cluster": cluster,
                "marks": ",".join(mark for mark, _ in found),
                "marks_reason": "; ".join(f"{mark}: {reason}" for mark, reason in found),
                **{name: measured[name] for name in COLUMNS if name in measures},
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _marks(
    measured: pd.Series[Any], obs: pd.DataFrame, inside: NDArray[np.bool_], n_cells: int, settings: FlagSettings
) -> Iterator[tuple[str, str]]:
    share = measured["n_cells"] / n_cells
    if measured["partner_doublet_score"] >= settings.doublet_score and share <= settings.doublet_max_share:
        yield (
            DOUBLETS,
            "its cells hold the genes of MSC and of immune cells beyond what leaks (median score "
            f"{measured['partner_doublet_score']:.2f}; a doublet has about 1), which phagocytes may do too",
        )
    elif (
        measured["doublet_rank"] >= settings.doublet_rank
        and not measured["counts_rank"] < 0.5
        and share <= settings.doublet_max_share
    ):
        yield (
            DOUBLETS,
            f"the median cell's doublet score is higher than that of {measured['doublet_rank']:.0%} of its sample, and "
            "its counts are no fewer than others'",
        )
    if measured["relative_counts"] <= settings.leaked_counts and (reason := _leaked(measured, settings)):
        yield LEAKAGE, f"{measured['relative_counts']:.0%} of the counts of its sample's median cell, and {reason}"
    if measured["mt_rank"] >= settings.high_rank and measured["genes_rank"] <= settings.low_rank:
        yield (
            LOW_QUALITY,
            f"more mitochondrial RNA than {measured['mt_rank']:.0%} and fewer genes than "
            f"{1 - measured['genes_rank']:.0%} of comparable cells of its sample",
        )
    yield from _alone(obs, inside, settings)
    if measured["cycling_share"] >= settings.cycling_share:
        yield CYCLING, f"{measured['cycling_share']:.0%} of its cells are in S, G2 or M: a state that classes share"


def _leaked(measured: pd.Series[Any], settings: FlagSettings) -> str:
    """Why droplets of few counts hold leaked RNA alone; empty where they do not."""
    if measured["contrary_kind_share"] >= 0.5:
        return f"the exclusive genes of {measured['contrary_kind_share']:.0%} are the other compartment's"
    unlike = not measured["other_kind_share"] < 0.5
    if unlike and measured["own_gene_auc"] < settings.own_gene_auc:
        return "no gene of its own"
    return ""


def _alone(obs: pd.DataFrame, inside: NDArray[np.bool_], settings: FlagSettings) -> Iterator[tuple[str, str]]:
    """One sample or donor alone, though comparable cells of other clusters are of several."""
    comparable = ~inside
    if "compartment" in obs:
        own = obs["compartment"].to_numpy() == obs["compartment"][inside].mode().iloc[0]
        comparable &= own
    if comparable.sum() < settings.min_cells:
        return
    for mark, column in ((ONE_SAMPLE, "sample"), (ONE_DONOR, "donor")):
        if column not in obs:
            continue
        values = obs[column].astype(str).to_numpy()
        names, counts = np.unique(values[inside], return_counts=True)
        top = names[counts.argmax()]
        share, elsewhere = counts.max() / inside.sum(), float((values[comparable] == top).mean())
        if not top or share < settings.sample_share or elsewhere > settings.max_elsewhere:
            continue
        yield (
            mark,
            f"{share:.0%} of its cells are of {top}, as are {elsewhere:.0%} of the comparable cells of other clusters"
            f"{_confounded(obs, values == top)}",
        )
        return  # a sample alone is a donor alone


def _confounded(obs: pd.DataFrame, of_top: NDArray[np.bool_]) -> str:
    if "condition" not in obs:
        return ""
    condition = obs["condition"].astype(str).to_numpy()
    own = set(condition[of_top])
    if len(own) == 1 and own.isdisjoint(condition[~of_top]) and not of_top.all():
        return f"; nothing else is of the condition {own.pop()}, so it may be what the condition does"
    return ""


# --- measures --------------------------------------------------------------------------------------------------------


def _measures(obs: pd.DataFrame, markers: pd.DataFrame | None) -> pd.DataFrame:
    """What is known of every cluster."""
    clusters = obs["cluster"]
    per_cell = pd.DataFrame(index=pd.RangeIndex(len(obs)))
    sample = obs["sample"].astype(str).to_numpy()
    alike = _comparable_within_sample(obs, sample)
    if "doublet_score" in obs:
        per_cell["doublet_rank"] = _ranks(obs["doublet_score"], sample, _labels(clusters))
    for name, column in _RANKED.items():
        if column in obs:
            per_cell[name] = _ranks(obs[column], alike, _labels(clusters))
    if "partner_doublet_score" in obs:
        per_cell["partner_doublet_score"] = obs["partner_doublet_score"].to_numpy(dtype=float)
    if "total_counts" in obs:
        total = obs["total_counts"].astype(float).reset_index(drop=True)
        per_cell["relative_counts"] = total / total.groupby(sample).transform("median")
    by_cluster = per_cell.groupby(_labels(clusters), observed=True)
    measures = by_cluster.median()
    measures = measures.reindex(_in_order(clusters))
    measures["n_cells"] = by_cluster.size()
    for name, values in _shares(obs):
        measures[name] = pd.Series(values).groupby(_labels(clusters), observed=True).mean()
    counts = pd.crosstab(_labels(clusters), sample)
    measures["top_sample"] = counts.idxmax(axis=1)
    measures["top_sample_share"] = counts.max(axis=1) / counts.sum(axis=1)
    if markers is not None:
        of_clusters = markers[markers["grouping"] == "cluster"].astype({"group": str})
        best = of_clusters[of_clusters["log2_fold_change"] >= 1].groupby("group")["auc"].max()
        # a cluster without any such gene has none; one that was never compared is not known
        unknown = set(of_clusters.loc[of_clusters["auc"].isna(), "group"])
        measures["own_gene_auc"] = [np.nan if name in unknown else best.get(name, 0.5) for name in measures.index]
    for name in ("contrary_kind_share", *COLUMNS[5:]):
        if name not in measures:
            measures[name] = np.nan
    return measures


def _labels(clusters: pd.Series) -> NDArray[np.object_]:
    return clusters.astype(str).to_numpy(dtype=object)


def _in_order(clusters: pd.Series) -> list[str]:
    known: Iterable[Any] = (
        clusters.cat.remove_unused_categories().cat.categories
        if isinstance(clusters.dtype, pd.CategoricalDtype)
        else sorted(clusters.unique())
    )
    return [str(cluster) for cluster in known]


def _comparable_within_sample(obs: pd.DataFrame, sample: NDArray[np.object_], enough: int = 50) -> NDArray[np.object_]:
    """Cells of a sample, by compartment where the sample has enough cells of it."""
    if "compartment" not in obs:
        return sample
    names = pd.Series(sample) + "\t" + obs["compartment"].astype(str).to_numpy()
    large = names.groupby(names).transform("size") >= enough
    return np.where(large, names, sample)


def _ranks(values: pd.Series, groups: NDArray[np.object_], clusters: NDArray[np.object_]) -> NDArray[np.float64]:
    """Share of the group's cells of other clusters that are lower, ties half; NaN where there are none.

    What a cell's rank among all exceeds its rank in its own cluster by are the others below it.
    """
    values = values.astype(float).reset_index(drop=True)
    everyone, own = values.groupby(groups), values.groupby([groups, clusters])
    others = (everyone.transform("count") - own.transform("count")).astype(float)
    return np.asarray((everyone.rank() - own.rank()) / others.where(others > 0), dtype=np.float64)


def _shares(obs: pd.DataFrame) -> Iterator[tuple[str, NDArray[np.float64]]]:
    if "cell_kind" in obs and "compartment" in obs and (obs["cell_kind"].astype(str) != "").any():
        kind = obs["cell_kind"].astype(str).map(COMPARTMENT_OF).fillna("").to_numpy()
        own = obs["compartment"].astype(str)
        yield "other_kind_share", (kind != own.to_numpy()).astype(float)
        partner = own.map(PARTNER).fillna("nothing").to_numpy()
        yield "contrary_kind_share", (kind == partner).astype(float)
    if "phase" in obs and (obs["phase"].astype(str) != "").any():
        yield "cycling_share", obs["phase"].astype(str).isin(["S", "G2M"]).to_numpy().astype(float)
