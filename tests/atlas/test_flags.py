"""Marks of clusters: each planted and with its negative control."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from immunomod.atlas.flags import COLUMNS, FlagSettings, flag_clusters
from immunomod.atlas.ranks import rank_genes
from immunomod.errors import UserError
from support.filtered_samples import write_filtered

N_CLUSTERS, PER_CLUSTER = 6, 300


def ordinary(seed: int = 0) -> pd.DataFrame:
    """Six clusters over three samples of three donors and two conditions; nothing is wrong with any."""
    generator = np.random.default_rng(seed)
    n = N_CLUSTERS * PER_CLUSTER
    sample = generator.choice(["s1", "s2", "s3"], size=n, p=[0.2, 0.25, 0.55])
    depth = pd.Series(sample).map({"s1": 1.0, "s2": 2.0, "s3": 4.0}).to_numpy()
    cluster = np.repeat([str(number) for number in range(N_CLUSTERS)], PER_CLUSTER)
    total = generator.lognormal(8.5, 0.4, size=n) * depth
    return pd.DataFrame(
        {
            "cluster": pd.Categorical(cluster),
            "sample": sample,
            "donor": pd.Series(sample).map({"s1": "d1", "s2": "d1", "s3": "d3"}).to_numpy(),
            "condition": pd.Series(sample).map({"s1": "alone", "s2": "alone", "s3": "together"}).to_numpy(),
            "compartment": np.where(np.isin(cluster, ["0", "1"]), "MSC", "immune"),
            "cell_kind": np.where(np.isin(cluster, ["0", "1"]), "MSC", "T_NK"),
            "total_counts": total,
            "n_genes_by_counts": total**0.8,
            "pct_counts_mt": generator.gamma(4, 1.0, size=n),
            "doublet_score": generator.beta(2, 20, size=n),
            "partner_doublet_score": np.abs(generator.normal(0, 0.02, size=n)),
            "phase": generator.choice(["G1", "S", "G2M"], size=n, p=[0.9, 0.05, 0.05]),
        },
        index=[f"c{number}" for number in range(n)],
    )


def marks(obs: pd.DataFrame, **options: object) -> dict[str, str]:
    found = flag_clusters(obs, **options)  # type: ignore[arg-type]
    return {cluster: mark for cluster, mark in zip(found["cluster"], found["marks"], strict=True) if mark}


@pytest.mark.parametrize("seed", range(5))
def test_ordinary_clusters_get_no_mark(seed: int) -> None:
    found = flag_clusters(ordinary(seed))
    assert (found["marks"] == "").all() and (found["marks_reason"] == "").all()
    assert list(found.columns) == list(COLUMNS) and found["cluster"].tolist() == [str(k) for k in range(6)]


def shrink(obs: pd.DataFrame, cluster: str, n: int = 100) -> pd.DataFrame:
    """Fewer cells of one cluster."""
    of = np.flatnonzero(obs["cluster"] == cluster)
    return obs.drop(obs.index[of[n:]])


def test_doublets_by_their_score() -> None:
    obs = shrink(ordinary(), "3")
    obs.loc[obs["cluster"] == "3", ["doublet_score", "total_counts"]] += [0.25, 3000]
    assert marks(obs) == {"3": "doublets"}
    poor = obs.assign(total_counts=np.where(obs["cluster"] == "3", 0.3, 1) * obs["total_counts"])
    assert marks(poor) == {}  # two cells hold no less RNA than one
    large = ordinary()
    large.loc[large["cluster"] == "3", ["doublet_score", "total_counts"]] += [0.25, 3000]
    assert marks(large) == {}  # a sixth of all cells are no doublets


def test_doublet_scores_of_unlike_samples_are_not_compared() -> None:
    obs = ordinary()
    obs["doublet_score"] += obs["sample"].map({"s1": 0.5, "s2": 0.0, "s3": 0.0})
    obs = obs[(obs["cluster"] != "4") | (obs["sample"] == "s1")]
    assert "doublets" not in marks(obs).get("4", "")


def test_doublets_of_both_compartments() -> None:
    obs = shrink(ordinary(), "1")
    obs.loc[obs["cluster"] == "1", "partner_doublet_score"] += 0.7
    assert marks(obs) == {"1": "doublets"}
    assert "median score 0.7" in flag_clusters(obs).set_index("cluster").loc["1", "marks_reason"]
    large = ordinary()
    large.loc[large["cluster"] == "1", "partner_doublet_score"] += 0.7
    assert marks(large) == {}


def test_leakage_of_the_other_compartment() -> None:
    obs = ordinary()
    of = obs["cluster"] == "4"
    obs.loc[of, "total_counts"] *= 0.3
    assert marks(obs) == {}  # small cells of their own kind
    obs.loc[of, "cell_kind"] = "MSC"
    assert marks(obs) == {"4": "leakage"}
    obs.loc[of, "total_counts"] /= 0.3
    assert marks(obs) == {}  # cells with a wrong name, but whole cells


@pytest.mark.parametrize("kind", ["leaked", "platelets"])
def test_few_counts_without_a_gene_of_their_own(kind: str, tmp_path: Path) -> None:
    """Droplets of the sample's soup, drawn from all cells' mean; platelets are as small, but like nothing else."""
    generator = np.random.default_rng(3)
    n_genes = 120
    level = generator.lognormal(0, 1, size=(4, n_genes))
    for group in range(4):
        level[group, group * 5 : group * 5 + 5] *= 20
    level /= level.sum(axis=1, keepdims=True)
    soup = level[:3].mean(axis=0)
    cluster = np.repeat([0, 1, 2, 3], [150, 150, 150, 60])
    profile = np.vstack([level[:3], soup if kind == "leaked" else level[3]])[cluster]
    depth = np.where(cluster == 3, 300, 2000)[:, None]
    path = write_filtered(
        tmp_path, "s", generator.poisson(profile * depth), [f"G{number}" for number in range(n_genes)]
    )
    obs = pd.DataFrame(
        {
            "cluster": cluster.astype(str),
            "sample": "s",
            "compartment": "immune",
            "cell_kind": np.where(cluster == 3, "", "T_NK"),
            "total_counts": np.where(cluster == 3, 300, 2000) * generator.uniform(0.9, 1.1, size=len(cluster)),
        },
        index=[f"s:C{number}" for number in range(len(cluster))],
    )
    markers = rank_genes([path], {"cluster": obs["cluster"]})
    assert marks(obs, markers=markers) == ({"3": "leakage"} if kind == "leaked" else {})
    assert marks(obs) == {}  # unknown without markers


def test_low_quality() -> None:
    obs = ordinary()
    of = obs["cluster"] == "2"
    obs.loc[of, "pct_counts_mt"] += 12
    assert marks(obs) == {}  # a class that breathes more
    obs.loc[of, "n_genes_by_counts"] *= 0.3
    assert marks(obs) == {"2": "low quality"}
    obs.loc[of, "pct_counts_mt"] -= 12
    assert marks(obs) == {}  # small cells


def test_one_sample_alone() -> None:
    obs = ordinary()
    of = (obs["cluster"] == "5").to_numpy()
    obs.loc[of & (np.arange(len(obs)) % 50 != 0), ["sample", "donor", "condition"]] = ["s2", "d1", "alone"]
    obs = obs[obs["sample"] != "s1"]
    assert marks(obs) == {"5": "one sample"}
    reason = flag_clusters(obs).set_index("cluster").loc["5", "marks_reason"]
    assert reason.startswith("one sample: 99% of its cells are of s2, as are 3")
    assert "nothing else is of the condition alone" in reason
    # where comparable cells are of that sample everywhere, it is no reason
    mostly = obs[(obs["compartment"] == "MSC") | (obs["sample"] == "s2") | (np.arange(len(obs)) % 10 == 0)]
    assert marks(mostly) == {}


def test_a_compartment_that_one_sample_holds_is_no_sample_alone() -> None:
    obs = ordinary()
    obs = obs[(obs["compartment"] != "MSC") | (obs["sample"] == "s3")]
    assert marks(obs) == {}


def test_one_donor_alone() -> None:
    obs = ordinary()
    obs = obs[(obs["cluster"] != "3") | (obs["donor"] == "d1")]
    assert marks(obs) == {"3": "one donor"}


def test_cycling() -> None:
    obs = ordinary()
    obs.loc[(obs["cluster"] == "2") & (np.arange(len(obs)) % 4 != 0), "phase"] = "S"
    assert marks(obs) == {"2": "cycling"}


def test_two_marks_and_small_clusters() -> None:
    obs = shrink(ordinary(), "3", 40)
    of = obs["cluster"] == "3"
    obs.loc[of, ["doublet_score", "total_counts"]] += [0.25, 3000]
    obs.loc[of, "phase"] = "G2M"
    assert marks(obs) == {"3": "doublets,cycling"}
    assert marks(obs, settings=FlagSettings(min_cells=41)) == {}


def test_order_of_cells_changes_nothing_and_absent_columns_make_no_mark() -> None:
    obs = shrink(ordinary(), "3")
    obs.loc[obs["cluster"] == "3", ["doublet_score", "total_counts"]] += [0.25, 3000]
    shuffled = obs.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(flag_clusters(shuffled), flag_clusters(obs))
    bare = flag_clusters(obs[["cluster", "sample"]])
    assert (bare["marks"] == "").all() and bare["doublet_rank"].isna().all()
    one_cell = flag_clusters(obs.iloc[:1])
    assert one_cell["marks"].tolist() == [""]


def test_settings_are_checked() -> None:
    with pytest.raises(UserError, match=r"atlas\.mark_sample_share is 1\.5"):
        FlagSettings(sample_share=1.5)
