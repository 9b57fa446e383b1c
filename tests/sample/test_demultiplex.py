"""From hashtags to donors and reasons, several rows of one lane, and hashtags held against genotypes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad

from immunomod.errors import UserError
from immunomod.sample.demultiplex.cells import REASONS, Demultiplexed, demultiplex, pair_donors
from immunomod.sample.settings import DemultiplexSettings
from immunomod.simulate.hashtags import HashtagPool, SimulatedHashtags, simulate_hashtags

SETTINGS = DemultiplexSettings()
EVERY = "HTO1=D1,HTO2=D2,HTO3=D3,HTO4=D4"


@pytest.fixture(scope="module")
def lane() -> SimulatedHashtags:
    return simulate_hashtags(HashtagPool(n_droplets=2000), 1)


def library(lane: SimulatedHashtags, hashtags: str, kind: str = "hashtags", **columns: object) -> AnnData:
    obs = pd.DataFrame({"sample": "S1", "hashtags": hashtags, "donor": ""}, index=lane.counts.index)
    for name, values in columns.items():
        obs[name] = pd.Categorical(values) if isinstance(values, pd.Series) else values
    return AnnData(np.zeros((len(obs), 1), dtype=np.float32), obs=obs, obsm={kind: lane.counts})


def genotyped(lane: SimulatedHashtags, hashtags: str, names: dict[str, str] | None = None) -> AnnData:
    donor = lane.truth["donor"].map(lambda one: (names or {}).get(one, one))
    return library(lane, hashtags, donor=donor, author_donor=donor, author_doublet=lane.truth["genotype"])


def test_donors_are_those_of_the_hashtags(lane):
    found = demultiplex(library(lane, EVERY), SETTINGS, 1)
    truth = lane.truth
    own = found.reason == ""
    assert (found.donor[own] == truth["donor"][own]).mean() > 0.99
    assert (found.donor[~own] == "").all() and own.mean() > 0.8
    assert set(found.reason) == {"", "hashtag_doublet", "hashtag_negative"} and set(found.reason) <= {"", *REASONS}
    for reason, status in (("hashtag_doublet", "doublet"), ("hashtag_negative", "negative")):
        assert list(found.reason == reason) == list(found.calls.status == status)
    assert found.summary["n_hashtags"] == 4 and found.summary["hashtag_method"] == "mixture"
    rates = [found.summary[f"hashtag_{status}_rate"] for status in ("singlet", "doublet", "negative")]
    assert sum(rates) == pytest.approx(1) and rates[0] == pytest.approx(own.mean())
    assert found.agreement is None and np.isnan(found.summary["hashtag_genotype_agreement"])


def test_rows_of_one_lane_share_its_droplets_out(lane):
    first = demultiplex(library(lane, "hto_1=D1,HTO2=D2"), SETTINGS, 1)
    second = demultiplex(library(lane, "HTO3,HTO4", donor="D9"), SETTINGS, 1)
    whole = demultiplex(library(lane, EVERY), SETTINGS, 1)
    own = [one.reason == "" for one in (first, second)]
    assert not (own[0] & own[1]).any()
    assert list(own[0] | own[1]) == list(whole.reason == "")
    assert list(first.reason == "other_hashtag") == list(own[1]) and list(second.reason == "other_hashtag") == list(
        own[0]
    )
    for reason in ("hashtag_doublet", "hashtag_negative"):
        assert list(first.reason == reason) == list(second.reason == reason)
    assert set(first.donor[own[0]]) == {"D1", "D2"} and set(second.donor[own[1]]) == {"D9"}


def test_hashtags_agree_with_genotypes(lane):
    found = demultiplex(genotyped(lane, EVERY), SETTINGS, 1)
    agreement = found.agreement
    called = found.calls.status == "singlet"
    by_hand = called & (lane.truth["genotype"] == "singlet").to_numpy()
    assert agreement.n_cells == by_hand.sum() == found.summary["hashtag_genotype_cells"]
    right = (found.calls.hashtag[by_hand] == "HTO" + lane.truth["donor"][by_hand].str[1:]).mean()
    assert agreement.share == pytest.approx(right) and right > 0.98
    both = (found.calls.status == "doublet") & (lane.truth["genotype"] == "doublet").to_numpy()
    assert agreement.doublets["both"] == both.sum() == found.summary["doublets_by_both"]
    assert agreement.doublets["hashtag"] == (found.calls.status == "doublet").sum() - both.sum()
    assert found.warning == ""
    conflict = found.reason == "donor_conflict"
    assert conflict.sum() == by_hand.sum() - round(right * by_hand.sum()) and (found.donor[conflict] == "").all()


def test_clusters_are_paired_with_the_donors_that_they_are(lane):
    names = {"D1": "donor2 (t)", "D2": "donor0 (t)", "D3": "donor3 (t)", "D4": "donor1 (t)"}
    found = demultiplex(genotyped(lane, EVERY, names), SETTINGS, 1)
    assert found.agreement.pairs == {theirs: mine for mine, theirs in names.items()}
    assert found.agreement.share > 0.98 and found.warning == ""
    assert set(found.donor) == {"D1", "D2", "D3", "D4", ""}


def test_swapped_donors_are_a_warning_and_their_cells_are_no_bodys(lane):
    swapped = demultiplex(genotyped(lane, "HTO1=D2,HTO2=D1,HTO3=D3,HTO4=D4"), SETTINGS, 1)
    assert 0.4 < swapped.agreement.share < 0.6
    assert "name the same donor for" in swapped.warning and "swapped" in swapped.warning
    assert np.isin(swapped.donor, ["D1", "D2"]).mean() < 0.01  # where the stain is wrong, too
    assert (swapped.reason == "donor_conflict").mean() > 0.35
    lenient = demultiplex(genotyped(lane, EVERY), DemultiplexSettings(min_agreement=1.0), 1)
    assert ("name the same donor" in lenient.warning) is (lenient.agreement.share < 1)


def test_hashtags_alone_leave_donors_to_the_table(lane):
    found = demultiplex(genotyped(lane, "HTO1,HTO2"), SETTINGS, 1)
    own = found.reason == ""
    assert found.agreement is None and not (found.reason == "donor_conflict").any()
    assert list(found.donor[own]) == list(lane.truth["donor"][own])


def test_pairs_of_donors_are_the_best_of_all():
    from itertools import permutations

    random = np.random.default_rng(1)
    for _ in range(20):
        table = pd.DataFrame(random.integers(0, 50, (4, 4)), index=list("ABCD"), columns=list("wxyz"))
        best = max(sum(table.iloc[row, column] for row, column in enumerate(order)) for order in permutations(range(4)))
        pairs = pair_donors(table)
        assert sum(table.loc[mine, theirs] for theirs, mine in pairs.items()) == best
    assert pair_donors(pd.DataFrame([[1, 9]], index=["A"], columns=["A", "B"])) == {"A": "A", "B": "B"}


def test_droplets_that_are_not_judged_have_no_call(lane):
    judged = np.arange(2000) % 2 == 0
    found = demultiplex(library(lane, EVERY), SETTINGS, 1, judged)
    assert (found.reason[~judged] == "").all() and np.isnan(found.calls.probability[~judged]).all()
    assert (found.donor[~judged] == "").all()
    assert found.summary["hashtag_singlet_rate"] == pytest.approx((found.reason[judged] == "").mean())


def test_hashtags_that_nobody_names_are_noted(lane):
    found = demultiplex(library(lane, ""), SETTINGS, 1)
    assert found.donor is None and not found.reason.any() and "HTO1, HTO2" in found.note
    bare = library(lane, "")
    del bare.obsm["hashtags"]
    nothing = demultiplex(bare, SETTINGS, 1)
    assert nothing.note == nothing.warning == "" and nothing.summary.keys() == found.summary.keys()


def test_hashtags_among_antibodies_are_found_by_their_names(lane):
    counts = library(lane, "HTO1=D1,HTO2=D2", "antibody_capture")
    found = demultiplex(counts, SETTINGS, 1)
    assert "HTO1, HTO2 are not marked as hashtags" in found.note and found.summary["n_hashtags"] == 2
    told = demultiplex(counts, DemultiplexSettings(hashtags=("hto*",)), 1)
    assert told.summary["n_hashtags"] == 4 and "not marked" not in told.note
    assert (told.reason == "other_hashtag").mean() > 0.3


def test_names_that_the_matrix_lacks_are_a_mistake_of_the_sheet(lane):
    words = r"samples\.tsv, sample S1: column hashtags: 'HTO9' is no hashtag of the matrix.*HTO1, HTO2, HTO3, HTO4"
    with pytest.raises(UserError, match=words):
        demultiplex(library(lane, "HTO9=D1"), SETTINGS, 1)


def test_from_files_to_donors(put, sheet_row, manifest_of):
    """A dense table with hashtags among its genes and vireo's calls, read, written, and read back by the next rule."""
    from immunomod.files import write_h5ad
    from immunomod.sample.read import read_sample

    pool = simulate_hashtags(HashtagPool(n_droplets=300, shares=(1, 1, 1)), 5)
    genes = pd.DataFrame(np.random.default_rng(1).poisson(2, (300, 4)) + 1, pool.counts.index)
    table = pd.concat([genes.set_axis(["ACTB", "GAPDH", "CD3D", "B2M"], axis=1), pool.counts], axis=1).T
    matrix = put("lane.csv.gz", table.to_csv())
    clusters = pool.truth["donor"].map({"D1": "donor1", "D2": "donor2", "D3": "donor0", "": "doublet"})
    calls = pd.DataFrame({"cell": clusters.index, "donor_id": clusters.to_numpy(), "prob_max": "0.99"})
    vireo = put("donor_ids.tsv", calls.to_csv(sep="\t", index=False))
    row = sheet_row(hashtags="hto-1=D1,HTO2=D2", donor="", cells="donor_ids.tsv")
    counts, ledger = read_sample(row, manifest_of([matrix], [vireo]))
    assert "donors are clusters (donor0, donor1, donor2)" in " ".join(ledger["decision"])
    write_h5ad(counts, matrix.parent / "counts.h5ad")
    found = demultiplex(read_h5ad(matrix.parent / "counts.h5ad"), SETTINGS, 1)
    own = found.reason == ""
    truth = pool.truth.loc[counts.obs["barcode"]]
    alone = own & (truth["genotype"] == "singlet").to_numpy()  # with one of two cells unstained only the table tells
    assert alone.sum() > 150 and (found.donor[alone] == truth["donor"].to_numpy()[alone]).all()
    assert found.agreement.share > 0.97
    assert found.agreement.pairs["donor1 (donor_ids.tsv)"] == "D1"
    assert (found.reason == "other_hashtag").sum() > 60


@pytest.mark.parametrize("n", [0, 1, 3, 20])
def test_small_libraries_give_a_result(n, lane):
    whole = genotyped(lane, EVERY)
    found: Demultiplexed = demultiplex(whole[:n].copy(), SETTINGS, 1)
    assert len(found.reason) == n
    if n:
        assert "alone" in found.note and found.warning == ""
    empty = genotyped(lane, EVERY)[:n].copy()
    empty.obsm["hashtags"] *= 0
    found = demultiplex(empty, SETTINGS, 1)
    assert (found.reason == "hashtag_negative").all()
    if n:
        assert "no hashtag has a count" in found.note and found.agreement.n_cells == 0
