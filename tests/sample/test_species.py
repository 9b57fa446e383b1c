"""Species of droplets, leakage and doublets against simulated libraries of which all is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from immunomod.acquire import AcquireSettings, acquire_samples
from immunomod.sample.read import read_sample
from immunomod.sample.species import (
    MIN_DROPLETS,
    assign_species,
    species_candidates,
    species_columns,
    species_of_droplets,
)
from immunomod.simulate.species import SpeciesMix, simulate_species_mix, simulate_species_totals
from support.layouts import put, table

LYMPHOID = {"CD4_T": (0.5, 1.0), "B": (0.3, 1.0), "CD14_monocyte": (0.2, 1.5)}


def mix_of(msc_content: float = 6.0, **values) -> SpeciesMix:
    return SpeciesMix(classes={"human": {"MSC": (1.0, msc_content)}, "mouse": LYMPHOID}, **values)


def as_status(truth: pd.Series) -> np.ndarray:
    return truth.map({"human": "own", "mouse": "other", "doublet": "doublet", "empty": ""}).to_numpy(dtype=object)


def calls_of(droplets: pd.DataFrame):
    return assign_species(droplets["human_counts"].to_numpy(), droplets["mouse_counts"].to_numpy())


@pytest.mark.parametrize("human_share", [1 / 21, 0.5, 20 / 21])
@pytest.mark.parametrize("ambient", [0.0, 0.3])
@pytest.mark.parametrize("msc_content", [4.0, 10.0])
@pytest.mark.parametrize("doublet_rate", [0.02, 0.15])
def test_species_and_doublets_are_found(human_share, ambient, msc_content, doublet_rate):
    """Pooled over libraries, so that a rate of 2% at 1 to 20 has doublets enough to count."""
    mix = mix_of(msc_content, n_droplets=20_000, human_share=human_share, ambient=ambient, doublet_rate=doublet_rate)
    libraries = [simulate_species_totals(mix, seed) for seed in range(1, 4)]
    truth = np.concatenate([as_status(one["true_species"]) for one in libraries])
    found = np.concatenate([calls_of(one).status for one in libraries])
    singlet = truth != "doublet"
    hits = ((found == "doublet") & ~singlet).sum()
    assert (found[singlet] == truth[singlet]).mean() > 0.99
    assert hits / (found == "doublet").sum() > 0.95
    assert hits / (~singlet).sum() > 0.95


@pytest.mark.parametrize(("msc_content", "at_most"), [(4.0, 0.95), (10.0, 0.6)])
def test_small_cells_are_told_where_the_larger_count_misleads(msc_content, at_most):
    """At 30% ambient most lymphocytes beside large cells hold more of those cells' molecules than of their own."""
    mix = mix_of(msc_content, n_droplets=4000, ambient=0.3)
    droplets = simulate_species_totals(mix, 2)
    singlets = (droplets["true_species"] != "doublet").to_numpy()
    truth = as_status(droplets["true_species"])[singlets]
    majority = np.where(droplets["human_counts"] >= droplets["mouse_counts"], "own", "other")[singlets]
    assert (majority == truth).mean() < at_most
    assert (calls_of(droplets).status[singlets] == truth).mean() > 0.995


@pytest.mark.parametrize("ambient", [0.0, 0.1, 0.3])
def test_leakage_is_that_of_the_true_singlets(ambient):
    droplets = simulate_species_totals(mix_of(n_droplets=10_000, ambient=ambient, doublet_rate=0.15), 3)
    calls = calls_of(droplets)
    total = droplets["human_counts"] + droplets["mouse_counts"]
    own, other = droplets["true_species"] == "human", droplets["true_species"] == "mouse"
    assert calls.other_leakage == pytest.approx(droplets["mouse_leaked"][own].sum() / total[own].sum(), rel=0.01)
    assert calls.own_leakage == pytest.approx(droplets["human_leaked"][other].sum() / total[other].sum(), rel=0.01)
    assert calls.own_background == pytest.approx(droplets["human_leaked"][other].mean(), rel=0.01)
    assert calls.other_background == pytest.approx(droplets["mouse_leaked"][own].mean(), rel=0.01)


@pytest.mark.parametrize("human_share", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("doublet_rate", [0.02, 0.15])
def test_the_doublets_of_both_species_imply_all(human_share, doublet_rate):
    droplets = simulate_species_totals(mix_of(n_droplets=40_000, human_share=human_share, doublet_rate=doublet_rate), 4)
    calls = calls_of(droplets)
    mixed = int((droplets["true_species"] == "doublet").sum())
    assert calls.doublet_rate == pytest.approx(mixed / len(droplets), rel=0.02)
    assert calls.implied_doublet_rate == pytest.approx(
        droplets["true_doublet"].mean(), abs=5 / np.sqrt(mixed) * doublet_rate
    )


def test_the_calls_are_the_same_from_the_other_side():
    droplets = simulate_species_totals(mix_of(n_droplets=3000, ambient=0.2, human_share=0.3), 5)
    human, mouse = droplets["human_counts"].to_numpy(), droplets["mouse_counts"].to_numpy()
    one, other = assign_species(human, mouse), assign_species(mouse, human)
    swapped = {"own": "other", "other": "own"}
    np.testing.assert_array_equal(one.status, [swapped.get(status, status) for status in other.status])
    np.testing.assert_allclose(one.probability, other.probability, rtol=1e-6)
    assert one.other_leakage == pytest.approx(other.own_leakage)


def test_the_order_of_droplets_does_not_matter():
    rng = np.random.default_rng(1)
    droplets = simulate_species_totals(mix_of(n_droplets=2000, ambient=0.3), 6)
    shuffled = droplets.iloc[rng.permutation(len(droplets))]
    np.testing.assert_array_equal(calls_of(droplets).status[shuffled.index], calls_of(shuffled).status)


@pytest.mark.parametrize("human_share", [0.0, 1.0])
@pytest.mark.parametrize("ambient", [0.0, 0.3])
@pytest.mark.parametrize("mismapped", [0.0, 0.002, 0.03])
def test_a_library_of_one_species_has_no_second_one(human_share, ambient, mismapped):
    mix = mix_of(n_droplets=3000, human_share=human_share, ambient=ambient, mismapped=mismapped, doublet_rate=0.1)
    calls = calls_of(simulate_species_totals(mix, 7))
    status = "own" if human_share else "other"
    assert not calls.applied and (calls.status == status).all()
    assert f"cells of the {status} species only" in calls.note
    assert np.isnan(calls.doublet_rate) and np.isnan(calls.implied_doublet_rate)


def test_a_transgene_of_another_species_makes_no_second_species():
    rng = np.random.default_rng(8)
    own = rng.poisson(rng.lognormal(8, 0.5, 1000))
    other = np.where(rng.random(1000) < 0.4, rng.poisson(300, 1000), 0)
    calls = assign_species(own, other)
    assert not calls.applied and (calls.status == "own").all()


@pytest.mark.parametrize("n_droplets", [0, 1, 2, MIN_DROPLETS - 1])
def test_few_droplets_go_by_their_larger_count(n_droplets):
    own = np.tile([900, 10, 500], n_droplets)[:n_droplets]
    other = np.tile([10, 900, 500], n_droplets)[:n_droplets]
    calls = assign_species(own, other)
    assert list(calls.status) == (["own", "other", "undecided"] * n_droplets)[:n_droplets]
    assert list(calls.reasons) == (["", "other_species", "species_undecided"] * n_droplets)[:n_droplets]
    assert not calls.applied and f"fewer than {MIN_DROPLETS} droplets" in calls.note


@pytest.mark.parametrize("n_droplets", [1, 60, 500])
def test_empty_droplets_and_equal_ones_are_survived(n_droplets):
    nothing = np.zeros(n_droplets, dtype=np.int32)
    assert (assign_species(nothing, nothing).status == "").all()
    for own, other in ((nothing + 5, nothing), (nothing, nothing + 5), (nothing + 700, nothing + 700)):
        calls = assign_species(own, other)
        assert not calls.applied and len(set(calls.status)) == 1


def test_a_minority_of_a_handful_is_found():
    droplets = simulate_species_totals(mix_of(n_droplets=2000, human_share=0.995, ambient=0.1, doublet_rate=0.0), 9)
    truth = as_status(droplets["true_species"])
    assert 3 < (truth == "other").sum() < 20
    np.testing.assert_array_equal(calls_of(droplets).status, truth)


# --- unfiltered matrices ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("human_share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("ambient", [0.02, 0.1, 0.2])
def test_cells_of_the_other_species_are_found_among_empty_droplets(human_share, ambient):
    """Cell calling sees own genes alone: it is given here as perfect for them, and blind for the other species."""
    mix = mix_of(n_droplets=3000, n_empty=100_000, human_share=human_share, ambient=ambient)
    droplets = simulate_species_totals(mix, 10)
    truth = as_status(droplets["true_species"])
    called = np.isin(truth, ["own", "doublet"])
    other = droplets["mouse_counts"].to_numpy()
    candidates = species_candidates(other, called)
    assert candidates[called].all()
    assert (candidates & (truth == "")).sum() <= 0.01 * candidates.sum()
    assert (candidates & (truth == "other")).sum() > 0.97 * (truth == "other").sum()
    calls = assign_species(droplets["human_counts"].to_numpy(), other, candidates)
    assert (calls.status[~candidates] == "").all()
    assert (calls.status[called] == truth[called]).mean() > 0.995


def test_without_other_counts_only_called_droplets_are_candidates():
    called = np.array([True, False, False])
    assert list(species_candidates(np.array([3, 2, 0]), called)) == [True, False, False]
    assert list(species_candidates(np.array([0, 5000, 0]), called)) == [True, True, False]


# --- from a mixed matrix on disk -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A mixed library as CellRanger writes it, its truth, and each species' row of it as it is read."""
    folder = tmp_path_factory.mktemp("mixed")
    truth = simulate_species_mix(mix_of(n_droplets=150, ambient=0.2, doublet_rate=0.08, depth=600.0), 11)
    entries = truth.X.T.tocoo()
    lines = [f"{g + 1} {c + 1} {n}" for g, c, n in zip(entries.row, entries.col, entries.data, strict=True)]
    head = f"%%MatrixMarket matrix coordinate integer general\n{truth.n_vars} {truth.n_obs} {len(lines)}\n"
    put(folder / "data" / "matrix.mtx.gz", (head + "\n".join(lines) + "\n").encode())
    put(folder / "data" / "features.tsv.gz", table(truth.var[["gene_id", "gene_symbol", "feature_type"]]))
    put(folder / "data" / "barcodes.tsv.gz", table(truth.obs[["barcode"]]))
    read = {}
    for number, organism in enumerate(("human", "mouse"), start=2):
        row = {"sample": f"S_{organism}", "source": str(folder / "data"), "organism": organism}
        sheet = pd.DataFrame([row | dict.fromkeys(("files", "cells", "cells_lane", "barcodes"), "")], index=[number])
        manifest = acquire_samples(
            organism, sheet, (folder / "geo").as_uri(), folder / organism, folder, AcquireSettings()
        )
        values = pd.concat([sheet.iloc[0], pd.Series({"dataset": organism, "condition": "a", "donor": "d"})])
        read[organism] = read_sample(values, manifest.astype(str))[0]
    return truth, read


def test_both_rows_of_a_mixed_matrix_keep_its_droplets_and_their_own_genes(library):
    truth, read = library
    for organism, prefix in (("human", "GRCh38_"), ("mouse", "mm10___")):
        counts = read[organism]
        of_organism = truth.var["gene_symbol"].str.startswith(prefix).to_numpy()
        assert list(counts.obs["barcode"]) == list(truth.obs["barcode"])
        assert list(counts.var["gene_id"]) == list(truth.var["gene_id"][of_organism].str.removeprefix(prefix))
        np.testing.assert_array_equal(counts.X.toarray(), truth.X[:, of_organism].toarray())
        other = "mouse" if organism == "human" else "human"
        np.testing.assert_array_equal(counts.obs["other_species_counts"], truth.obs[f"{other}_counts"])


def test_each_cell_is_kept_by_one_row(library):
    truth, read = library
    found = {}
    for organism, counts in read.items():
        total = np.asarray(counts.X.sum(axis=1)).ravel()
        calls = species_of_droplets(total, counts.obs)
        expected = np.array(["doublet" if s == "doublet" else "own" if s == organism else "other"
                             for s in truth.obs["true_species"]], dtype=object)  # fmt: skip
        assert (calls.status == expected).mean() > 0.99
        assert species_columns(calls)["other_species_leakage"] == calls.other_leakage > 0
        found[organism] = calls.status == "own"
    assert not (found["human"] & found["mouse"]).any()


def test_a_matrix_of_one_species_has_no_columns_of_species(library):
    _, read = library
    alone = read["human"].obs.drop(columns=["other_species_counts", "other_species_fraction"])
    assert species_of_droplets(np.ones(len(alone), dtype=int), alone) is None
    assert all(np.isnan(value) for value in species_columns(None).values())


# --- the simulation itself -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ambient", [0.0, 0.1, 0.3])
def test_simulated_shares_are_those_asked_for(ambient):
    mix = mix_of(n_droplets=20_000, human_share=0.3, ambient=ambient, mismapped=0.0, doublet_rate=0.1)
    droplets = simulate_species_totals(mix, 12)
    leaked = droplets["human_leaked"].sum() + droplets["mouse_leaked"].sum()
    counts = droplets["human_counts"].sum() + droplets["mouse_counts"].sum()
    assert leaked / counts == pytest.approx(ambient, abs=0.01)
    assert droplets["true_doublet"].mean() == pytest.approx(0.1, abs=0.01)
    singlets = droplets[~droplets["true_doublet"]]
    assert (singlets["true_species"] == "human").mean() == pytest.approx(0.3, abs=0.015)
    assert (droplets["true_species"] == "doublet").mean() == pytest.approx(0.1 * 2 * 0.3 * 0.7, abs=0.007)
    own = singlets.groupby("true_species")[["human_counts", "human_leaked", "mouse_counts", "mouse_leaked"]].mean()
    human, mouse = own.loc["human"], own.loc["mouse"]
    assert human["human_counts"] - human["human_leaked"] == pytest.approx(6.0 * 1700, rel=0.03)
    assert mouse["mouse_counts"] - mouse["mouse_leaked"] == pytest.approx(1.1 * 1700, rel=0.03)
    # what leaks does not depend on the cell beside it
    assert human["mouse_leaked"] == pytest.approx(mouse["mouse_leaked"], rel=0.03)
    if not ambient:
        assert leaked == 0


def test_simulated_genes_are_named_as_in_a_mixed_reference_and_drawn_by_species():
    mixed = simulate_species_mix(mix_of(n_droplets=150, n_empty=50, ambient=0.0, mismapped=0.0), 13)
    human = (mixed.var["genome"] == "GRCh38").to_numpy()
    assert mixed.var.loc[human, "gene_id"].str.match(r"GRCh38_ENSG\d{11}$").all()
    assert mixed.var.loc[~human, "gene_id"].str.match(r"mm10___ENSMUSG\d{11}$").all()
    assert {"mm10___Cd3d", "mm10___mt-Co1", "GRCh38_MT-CO1"} <= set(mixed.var["gene_symbol"])
    assert not mixed.var_names.has_duplicates and not mixed.obs_names.has_duplicates
    np.testing.assert_array_equal(mixed.obs["human_counts"], np.asarray(mixed.X[:, human].sum(axis=1)).ravel())
    counts = mixed.obs.groupby("true_species")[["human_counts", "mouse_counts"]].max()
    assert counts.loc["human", "mouse_counts"] == counts.loc["mouse", "human_counts"] == 0
    assert counts.loc["empty"].sum() == 0 and (counts.loc["doublet"] > 0).all()
    assert (
        mixed.X != simulate_species_mix(mix_of(n_droplets=150, n_empty=50, ambient=0.0, mismapped=0.0), 13).X
    ).nnz == 0
