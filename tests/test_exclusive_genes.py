"""Genes that only one kind of cell makes: the table, and the arithmetic that measures leakage with them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import optimize

from immunomod.errors import UserError
from immunomod.exclusive import (
    COMPARTMENT_OF,
    LEUKOCYTE,
    SHIPPED,
    fraction_error,
    load_exclusive_genes,
    mixture_weights,
    robust_fraction,
)

# --- the fraction of one foreign profile ---


def test_a_fraction_without_outliers_is_a_ratio_of_sums():
    rng = np.random.default_rng(1)
    at_one = rng.gamma(2.0, 200.0, 60)
    own = rng.gamma(2.0, 5.0, 60)
    for fraction in (0.0, 0.01, 0.1, 0.5):
        observed = np.round(own + fraction * at_one)
        found, kept = robust_fraction(observed, at_one, own)
        assert kept.all()
        assert found == pytest.approx(max(0.0, (observed - own).sum() / at_one.sum()), abs=1e-12)


def brute_force(observed, at_one, own, kept):
    """The fraction that a fine grid finds most likely by the Poisson distribution, over the kept genes."""
    grid = np.linspace(0, 1, 100_001)
    mean = own[kept, None] + grid * at_one[kept, None]
    likelihood = (observed[kept, None] * np.log(np.maximum(mean, 1e-12)) - mean).sum(axis=0)
    return grid[likelihood.argmax()]


@pytest.mark.parametrize("fraction", [0.005, 0.05, 0.2, 0.5])
def test_a_fraction_is_the_most_likely_one(fraction):
    """Where a cell makes none of the genes, the ratio of sums is the Poisson maximum, found by brute force."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        at_one = rng.gamma(1.0, 300.0, 50) + 1
        own = np.zeros(50)
        observed = rng.poisson(fraction * at_one).astype(float)
        found, kept = robust_fraction(observed, at_one, own)
        assert found == pytest.approx(brute_force(observed, at_one, own, kept), abs=2e-5)
        assert found == pytest.approx(fraction, abs=4 * np.sqrt(fraction / at_one.sum()) + 1e-3)


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("share_induced", [0.1, 1 / 3])
def test_genes_that_the_culture_induced_do_not_count(fraction, share_induced):
    """A third of the genes are made by the cells after all, at 3 to 30 times what leaks."""
    errors, caught = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        at_one = rng.gamma(1.0, 2000.0, 45) + 50
        induced = np.zeros(45, dtype=bool)
        induced[rng.choice(45, int(45 * share_induced), replace=False)] = True
        level = fraction * at_one * np.where(induced, rng.uniform(3, 30, 45), 1.0)
        observed = rng.poisson(level).astype(float)
        found, kept = robust_fraction(observed, at_one, np.zeros(45))
        errors.append(found - fraction)
        sure = induced & (level > 50)
        caught.append((~kept[sure]).mean())
    assert np.abs(np.median(errors)) < 0.05 * fraction
    assert np.abs(errors).max() < 0.35 * fraction
    assert np.mean(caught) > 0.9
    plain = observed.sum() / at_one.sum()
    assert plain > fraction * (1.2 if share_induced < 0.2 else 2)


def test_a_fraction_of_nothing_is_nothing():
    at_one = np.full(5, 100.0)
    assert robust_fraction(np.zeros(5), at_one, np.zeros(5))[0] == 0
    assert robust_fraction(np.zeros(5), at_one, np.full(5, 3.0))[0] == 0
    one, kept = robust_fraction(np.array([10.0]), np.array([100.0]), np.zeros(1))
    assert one == pytest.approx(0.1) and kept.all()


def test_a_standard_error_is_the_spread_over_draws():
    rng = np.random.default_rng(2)
    at_one = rng.gamma(2.0, 100.0, 40)
    own = np.zeros(40)
    draws = rng.poisson(0.1 * at_one, size=(2000, 40)).astype(float)
    fractions = draws.sum(axis=1) / at_one.sum()
    errors = [fraction_error(one, at_one, own, fraction) for one, fraction in zip(draws, fractions, strict=True)]
    assert np.mean(errors) == pytest.approx(fractions.std(), rel=0.15)
    assert np.mean(errors) >= fractions.std() * 0.95
    # genes that scatter more than counts do widen it
    scattered = rng.poisson(0.1 * at_one * rng.gamma(2.0, 0.5, (2000, 40))).astype(float)
    wide = [fraction_error(one, at_one, own, one.sum() / at_one.sum()) for one in scattered]
    assert np.mean(wide) > 1.5 * np.mean(errors)


# --- weights of several ---


def test_mixture_weights_agree_with_bounded_least_squares():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        at_one = rng.gamma(0.5, 400.0, (3, 30))
        own = rng.gamma(1.0, 4.0, 30)
        prior = rng.uniform(0.01, 0.3, 3)
        true = prior * rng.choice([0.0, 0.5, 2.0], 3)
        observed = rng.poisson(own + true @ at_one).astype(float)
        found = mixture_weights(observed, at_one, own, prior)
        noise = np.sqrt(np.maximum(own + prior @ at_one, 0.5))
        rows = np.vstack([(at_one / noise).T, np.diag(1 / prior)])
        response = np.concatenate([(observed - own) / noise, np.ones(3)])
        bounded = optimize.lsq_linear(rows, response, bounds=(0, np.inf), method="bvls")
        np.testing.assert_allclose(found, bounded.x, atol=1e-7)
        assert (found >= 0).all()


def test_mixture_weights_find_the_truth_and_fall_back_on_the_prior():
    rng = np.random.default_rng(3)
    at_one = rng.gamma(0.5, 20_000.0, (3, 60))
    true = np.array([0.2, 0.0, 0.05])
    found = mixture_weights(rng.poisson(true @ at_one).astype(float), at_one, np.zeros(60), np.full(3, 0.1))
    np.testing.assert_allclose(found, true, atol=0.01)
    # a source whose genes say nothing stays at its prior
    at_one[2] = 0
    found = mixture_weights(rng.poisson(true @ at_one).astype(float), at_one, np.zeros(60), np.full(3, 0.1))
    assert found[2] == pytest.approx(0.1)


# --- the table ---


@pytest.mark.parametrize("organism", ["human", "mouse"])
def test_every_kind_has_genes_and_shares_none(organism):
    groups = load_exclusive_genes().of_groups(organism)
    assert set(groups) == {*COMPARTMENT_OF, LEUKOCYTE}
    names = list(groups)
    for number, one in enumerate(names):
        assert len(groups[one]) >= 8, one
        for other in names[number + 1 :]:
            assert not groups[one] & groups[other], (one, other)
    sides = load_exclusive_genes().of_compartments(organism)
    assert not sides["MSC"] & sides["immune"]
    assert sides["immune"] >= groups["T_NK"] | groups["B"] | groups["myeloid"] | groups[LEUKOCYTE]


def test_an_unknown_organism_is_read_as_human():
    genes = load_exclusive_genes()
    assert genes.of_groups("") == genes.of_groups("human")


def test_no_gene_that_co_culture_induces_is_exclusive():
    """Licensed MSC make MHC class II and its invariant chain, and they make what immune cells do: trap 3."""
    sides = load_exclusive_genes().of_compartments("human")
    for gene in ("HLA-DRA", "HLA-DRB1", "CD74", "IDO1", "CXCL9", "CXCL10", "IL6", "CD274"):
        assert gene not in sides["immune"] | sides["MSC"], gene


def test_a_folder_without_the_table_gets_the_shipped_one(tmp_path):
    pd.testing.assert_frame_equal(load_exclusive_genes(tmp_path).table, load_exclusive_genes(SHIPPED).table)
    (tmp_path / "exclusive_genes.tsv").write_text("group\tgene_human\nMSC\tCOL1A1\n")
    with pytest.raises(UserError, match="exclusive_genes"):
        load_exclusive_genes(tmp_path)


KIND_OF_LABEL = {
    "CD4 T cells": "T_NK",
    "CD8 T cells": "T_NK",
    "NK cells": "T_NK",
    "B cells": "B",
    "CD14+ Monocytes": "myeloid",
    "FCGR3A+ Monocytes": "myeloid",
    "Dendritic cells": "myeloid",
}


@pytest.fixture(scope="module")
def blood(shared):
    """2,000 real PBMC (GSE96583): counts, symbols, and the authors' kind of each cell."""
    from anndata import read_h5ad

    path = shared / "data" / "kang" / "kang2000_ctrl_stim_8donors.h5ad"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    cells = read_h5ad(path)
    cells = cells[cells.obs["cell_type"].isin(list(KIND_OF_LABEL))]
    return (
        cells.X.tocsr(),
        cells.var_names.to_series().reset_index(drop=True),
        cells.obs["cell_type"].map(KIND_OF_LABEL),
    )


def test_real_blood_cells_make_no_gene_of_msc(blood):
    counts, symbols, _ = blood
    msc = symbols.isin(load_exclusive_genes().of_groups("human")["MSC"]).to_numpy()
    assert counts[:, msc].sum() < 1e-4 * counts.sum()


def test_genes_of_a_lineage_are_specific_in_real_blood_cells(blood):
    """What other kinds show of them is the soup of a lane, a few hundredths of the share in the kind itself."""
    counts, symbols, kinds = blood
    total = np.asarray(counts.sum(axis=1)).ravel()
    groups = load_exclusive_genes().of_groups("human")
    for kind in ("T_NK", "B", "myeloid"):
        chosen = symbols.isin(groups[kind]).to_numpy()
        assert chosen.sum() >= 5, kind
        held = np.asarray(counts[:, chosen].sum(axis=1)).ravel()
        own = (kinds == kind).to_numpy()
        inside, outside = held[own].sum() / total[own].sum(), held[~own].sum() / total[~own].sum()
        assert outside < 0.12 * inside, (kind, outside / inside)


def test_real_blood_cells_are_named_as_their_authors_named_them(blood):
    from immunomod.sample.ambient.groups import cell_groups

    counts, symbols, kinds = blood
    named = cell_groups(counts, symbols, load_exclusive_genes().of_groups("human"))
    assert (named != "").mean() > 0.85
    told = named != ""
    assert (named[told] == kinds.to_numpy()[told]).mean() > 0.95
    assert (named == "MSC").sum() == 0
