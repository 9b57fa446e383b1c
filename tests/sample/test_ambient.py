"""Ambient RNA: kinds of cell, fractions near the truth, corrected counts, and nothing that crashes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from immunomod.errors import UserError
from immunomod.exclusive import COMPARTMENT_OF, load_exclusive_genes
from immunomod.files import write_h5ad
from immunomod.programs import load_programs
from immunomod.sample.ambient import GROUP_COLUMNS, REGISTRY, AmbientInput, Contamination
from immunomod.sample.ambient.cellbender import read_background, remove_background
from immunomod.sample.ambient.groups import cell_groups
from immunomod.sample.ambient.kinds import find_kinds
from immunomod.simulate.effects import draw_effects
from immunomod.simulate.profiles import load_profiles, signed_weights
from immunomod.simulate.settings import SimulationSettings
from immunomod.simulate.study import describe_libraries, draw_library

KIND_OF_CLASS = {"MSC": "MSC", "CD4_T": "T_NK", "CD8_T": "T_NK", "NK": "T_NK", "B": "B"}
KIND_OF_CLASS |= {"CD14_monocyte": "myeloid", "CD16_monocyte": "myeloid", "DC": "myeloid"}
REFERENCE = Path(__file__).parent / "reference" / "ambient"
LOWER = 100


@cache
def profiles():
    return load_profiles()


@cache
def effects_of(seed: int):
    settings = SimulationSettings(n_donors=1, seed=seed)
    weights = signed_weights(load_programs(), profiles())
    return {one.name: draw_effects(one, load_programs(), weights, settings) for one in settings.cell_classes}


@cache
def library(arm: str, seed: int, leakage: float = 0.0, ambient: float = 0.0, empty: int = 0):
    """Counts of all droplets (CSR) and their truth."""
    settings = SimulationSettings(n_donors=1, seed=seed, leakage=leakage, ambient=ambient, empty_droplets=empty)
    donor = describe_libraries(settings)["donor"].iloc[0]
    counts, table = draw_library(donor, arm, effects_of(seed), profiles(), settings)
    return counts.tocsr(), pd.DataFrame(table)


def as_input(counts, truth, organism: str = "human") -> AmbientInput:
    """The cells of a library, its empty droplets summed up where there are any."""
    is_empty = truth["empty"].to_numpy(dtype=bool)
    total = np.asarray(counts.sum(axis=1)).ravel()
    low = counts[is_empty & (total <= LOWER)]
    exclusive = load_exclusive_genes().of_groups(organism)
    return AmbientInput(
        counts[~is_empty],
        profiles().symbols.to_series().reset_index(drop=True),
        ~truth["true_doublet"].to_numpy()[~is_empty],
        np.asarray(low.sum(axis=0)).ravel() if is_empty.any() else None,
        exclusive,
    )


def cells_of(truth: pd.DataFrame) -> pd.DataFrame:
    return truth[~truth["empty"]].reset_index(drop=True)


def run(counts, truth, method: str = "soupx") -> tuple[Contamination, AmbientInput]:
    data = as_input(counts, truth)
    return REGISTRY[method].run(data), data


@pytest.mark.parametrize(("leakage", "ambient"), [(0, 0), (0.1, 0), (0.3, 0), (0, 0.3), (0.1, 0.1), (0.2, 0.1)])
def test_kinds_of_cell_are_named_right(leakage, ambient):
    for seed in (1, 2, 3):
        counts, truth = library("coculture", seed, leakage, ambient)
        data = as_input(counts, truth)
        named = cell_groups(data.counts, data.symbols, data.exclusive)
        true = cells_of(truth)["true_class"].map(KIND_OF_CLASS).to_numpy()
        assert (named[data.singlet] == true[data.singlet]).mean() > 0.95, seed
        for kind in set(true):
            one = data.singlet & (true == kind)
            assert (named[one] == kind).mean() > 0.85, (seed, kind)


FRACTIONS = [(leakage, ambient) for leakage in (0.0, 0.05, 0.1, 0.2, 0.3) for ambient in (0.0, 0.1, 0.3)]


@pytest.mark.parametrize("empty", [0, 2000])
@pytest.mark.parametrize(("leakage", "ambient"), FRACTIONS)
def test_fractions_are_within_three_points_of_the_truth(leakage, ambient, empty):
    """Without empty droplets, and with half of the counts leaked, a kind's own RNA in the soup is seen less well."""
    tolerance = 0.06 if leakage + ambient > 0.5 and not empty else 0.03
    for seed in (1, 2):
        counts, truth = library("coculture", seed, leakage, ambient, empty)
        found, data = run(counts, truth)
        cells, total = cells_of(truth), data.counts.sum()
        assert found.profile_from == ("empty droplets" if empty else "cells")
        assert found.ambient_fraction == pytest.approx(cells["ambient_counts"].sum() / total, abs=tolerance), seed
        assert found.partner_fraction == pytest.approx(cells["leaked_counts"].sum() / total, abs=tolerance), seed
        assert found.note == ""


@pytest.mark.parametrize("empty", [0, 2000])
def test_fractions_of_each_kind_follow_its_rna(empty):
    """A lymphocyte holds as much soup as an MSC and a quarter of the RNA, so its share is larger."""
    counts, truth = library("coculture", 2, 0.0, 0.1, empty)
    found, data = run(counts, truth)
    table = found.table.set_index("group")
    assert list(table.reset_index().columns) == GROUP_COLUMNS
    cells = cells_of(truth)
    totals = np.asarray(data.counts.sum(axis=1)).ravel()
    true = cells["true_class"].map(KIND_OF_CLASS).to_numpy()
    for kind, row in table.iterrows():
        one = data.singlet & (true == kind)
        for column, counted in {"ambient_fraction": "ambient_counts", "partner_fraction": "leaked_counts"}.items():
            assert row[column] == pytest.approx(cells[counted].to_numpy()[one].sum() / totals[one].sum(), abs=0.05)
            assert 0 < row[f"{column}_se"] < 0.05
    assert table.loc["T_NK", "ambient_fraction"] > 2 * table.loc["MSC", "ambient_fraction"]


@pytest.mark.parametrize("empty", [0, 2000])
def test_corrected_counts_lose_foreign_genes_and_keep_own(empty):
    counts, truth = library("coculture", 2, 0.1, 0.1, empty)
    found, data = run(counts, truth)
    corrected, raw = found.corrected, data.counts
    assert corrected.dtype == np.float32 and corrected.shape == raw.shape
    assert corrected.data.min() >= 0
    assert (corrected > raw).nnz == 0
    assert corrected.toarray()[raw.toarray() == 0].sum() == 0
    kinds = find_kinds(data)
    assert kinds.known == list(found.table["group"])
    for kind in kinds.known:
        cells = (found.group == kind) & data.singlet
        before, after = raw[cells].sum(), corrected[cells].sum()
        share = found.table.set_index("group").loc[kind, "ambient_fraction"]
        told = 1 - after / before
        # a gene cannot lose more than it has; without empty droplets the kind's own RNA in the soup has no profile
        assert told == pytest.approx(share, abs=0.015 if empty else 0.06)
        assert told <= share + 0.005
        side = COMPARTMENT_OF[kind]
        own = kinds.genes[kind]
        foreign = kinds.genes["MSC"] if side == "immune" else kinds.genes["T_NK"] | kinds.genes["myeloid"]
        assert corrected[cells][:, foreign].sum() < 0.2 * raw[cells][:, foreign].sum(), kind
        if not empty:
            assert corrected[cells][:, own].sum() > 0.95 * raw[cells][:, own].sum(), kind
    unknown = found.group == ""
    assert (corrected[unknown] != raw[unknown].astype(np.float32)).nnz == 0


def test_a_clean_library_stays_as_it_is():
    counts, truth = library("coculture", 2)
    found, data = run(counts, truth)
    assert found.ambient_fraction == pytest.approx(0, abs=0.01)
    assert found.corrected.sum() > 0.99 * data.counts.sum()


@pytest.mark.parametrize("arm", ["msc_alone", "immune_alone"])
def test_a_culture_of_one_compartment_has_no_partner(arm):
    counts, truth = library(arm, 2, 0.0, 0.1)
    found, _ = run(counts, truth)
    assert np.isnan(found.partner_fraction)
    if arm == "msc_alone":
        assert np.isnan(found.ambient_fraction)
        assert "cannot be seen" in found.note
    else:
        assert found.ambient_fraction == pytest.approx(0.1, abs=0.03)


def small(counts: sparse.csr_matrix, exclusive=None, organism: str = "human", symbols=None) -> AmbientInput:
    symbols = profiles().symbols.to_series().reset_index(drop=True) if symbols is None else symbols
    exclusive = load_exclusive_genes().of_groups(organism) if exclusive is None else exclusive
    singlet = np.ones(counts.shape[0], dtype=bool)
    return AmbientInput(sparse.csr_matrix(counts), symbols, singlet, None, exclusive)


STRANGE = ("no cell", "one cell", "nine cells", "no count", "no gene", "no cell and no gene", "one gene")
STRANGE += ("no exclusive genes", "genes of another species", "one kind")


def strange_libraries() -> dict[str, AmbientInput]:
    counts, truth = library("coculture", 2, 0.1)
    cells = counts[~truth["empty"].to_numpy(dtype=bool)]
    no_genes = pd.Series([], dtype=object)
    one_kind = cells[cells_of(truth)["true_class"].eq("CD8_T").to_numpy()]
    return {
        "no cell": small(cells[:0]),
        "one cell": small(cells[:1]),
        "nine cells": small(cells[:9]),
        "no count": small(cells * 0),
        "no gene": small(sparse.csr_matrix((30, 0), dtype=np.int32), symbols=no_genes),
        "no cell and no gene": small(sparse.csr_matrix((0, 0), dtype=np.int32), symbols=no_genes),
        "one gene": small(cells[:, :1], symbols=pd.Series(["COL1A1"])),
        "no exclusive genes": small(cells, exclusive={}),
        "genes of another species": small(cells, organism="mouse"),
        "one kind": small(one_kind),
    }


@pytest.mark.parametrize("method", ["soupx", "cellbender", "none"])
@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_library_gets_a_note_and_no_number(name, method):
    data = strange_libraries()[name]
    found = REGISTRY[method].run(data)
    assert np.isnan(found.ambient_fraction) and np.isnan(found.partner_fraction)
    assert found.note
    assert list(found.table.columns) == GROUP_COLUMNS
    assert len(found.group) == data.counts.shape[0]
    if found.corrected is not None:
        assert (found.corrected != data.counts.astype(np.float32)).nnz == 0


def test_mouse_genes_are_told_by_their_names():
    """The same library by the mouse symbols of its exclusive genes gives the same estimate."""
    counts, truth = library("coculture", 2, 0.1)
    table = load_exclusive_genes().table
    pairs = table[(table["gene_human"] != "") & (table["gene_mouse"] != "")]
    groups = {name: set(rows["gene_mouse"]) for name, rows in pairs.groupby("group")}
    human = {name: set(rows["gene_human"]) for name, rows in pairs.groupby("group")}
    names = dict(zip(pairs["gene_human"], pairs["gene_mouse"], strict=True))
    of_human = as_input(counts, truth)
    symbols = of_human.symbols.map(lambda symbol: names.get(symbol, symbol.capitalize()))
    mouse = REGISTRY["soupx"].run(AmbientInput(of_human.counts, symbols, of_human.singlet, None, groups))
    same = REGISTRY["soupx"].run(AmbientInput(of_human.counts, of_human.symbols, of_human.singlet, None, human))
    assert mouse.partner_fraction == pytest.approx(same.partner_fraction, abs=1e-12)
    assert mouse.partner_fraction == pytest.approx(0.1, abs=0.03)


# --- the tiny library that CellBender and pysoupx were run on (reference/ambient) ---


@pytest.fixture
def tiny() -> tuple[sparse.csr_matrix, pd.DataFrame, pd.DataFrame]:
    """Droplets x genes, and what is known of both."""
    droplets = pd.read_csv(REFERENCE / "droplets.tsv.gz", sep="\t", keep_default_na=False)
    return sparse.load_npz(REFERENCE / "counts.npz").tocsr(), droplets, pd.read_csv(REFERENCE / "genes.tsv", sep="\t")


def tiny_input(tiny, background=None) -> AmbientInput:
    counts, droplets, genes = tiny
    total = np.asarray(counts.sum(axis=1)).ravel()
    is_cell = (droplets["true_class"] != "").to_numpy()
    return AmbientInput(
        counts[is_cell],
        genes["gene_symbol"],
        np.ones(int(is_cell.sum()), dtype=bool),
        np.asarray(counts[total < LOWER].sum(axis=0)).ravel(),
        load_exclusive_genes().of_groups("human"),
        background,
    )


def test_fractions_agree_with_soupx(tiny):
    """SoupX's regression takes every gene that is told absent; ours leaves out those that the kind makes after all."""
    found = REGISTRY["soupx"].run(tiny_input(tiny)).table.set_index("group")
    for row in pd.read_csv(REFERENCE / "pysoupx.tsv", sep="\t").itertuples():
        ours = found.loc[row.group, "ambient_fraction"]
        assert ours == pytest.approx(row.fraction, abs=0.015), row.group
        assert row.low <= ours <= row.high, row.group


def test_corrected_counts_agree_with_soupx(tiny):
    data = tiny_input(tiny)
    found = REGISTRY["soupx"].run(data)
    theirs = pd.read_csv(REFERENCE / "pysoupx_corrected.tsv", sep="\t")
    assert list(theirs["gene"]) == list(data.symbols)
    for kind in ("MSC", "T_NK", "myeloid"):
        cells = found.group == kind
        ours = np.asarray(found.corrected[cells].sum(axis=0)).ravel()
        raw = np.asarray(data.counts[cells].sum(axis=0)).ravel()
        assert np.corrcoef(ours, theirs[kind])[0, 1] > 0.999
        removed, by_soupx = raw - ours, raw - theirs[kind].to_numpy()
        assert np.corrcoef(removed, by_soupx)[0, 1] > 0.98
        assert ours.sum() == pytest.approx(theirs[kind].sum(), rel=0.03)


def names_of(tiny) -> tuple[list[str], list[str]]:
    _, droplets, genes = tiny
    return droplets["name"].tolist(), genes["gene_id"].tolist()


def test_what_cellbender_wrote_is_read(tiny):
    """Held against a plain reading of the whole file by scipy."""
    import h5py

    counts, droplets, _ = tiny
    names, genes = names_of(tiny)
    with h5py.File(REFERENCE / "background.h5") as file:
        matrix = file["matrix"]
        parts = (matrix["data"][:], matrix["indices"][:], matrix["indptr"][:])
        whole = sparse.csc_matrix(parts, shape=tuple(matrix["shape"][:])).T.toarray()
        assert [name.decode() for name in matrix["barcodes"][:]] == names
    background = read_background(REFERENCE / "background.h5", names, genes)
    np.testing.assert_array_equal(background.counts.toarray(), whole)
    assert background.counts.dtype == np.float32 and background.counts.has_sorted_indices
    assert background.counts.sum() > 0
    assert (background.counts > counts).nnz == 0
    is_cell = (droplets["true_class"] != "").to_numpy()
    assert (background.is_cell == is_cell).mean() > 0.99
    assert background.counts[~background.is_cell].nnz == 0


def test_cells_are_read_in_the_order_they_are_asked_for(tiny, monkeypatch):
    names, genes = names_of(tiny)
    whole = read_background(REFERENCE / "background.h5", names, genes)
    chosen = [57, 3, 400, 4, 0]
    for block in (1, 40, 1 << 22):
        monkeypatch.setattr("immunomod.sample.ambient.cellbender._BLOCK", block)
        some = read_background(REFERENCE / "background.h5", [names[one] for one in chosen], genes[::-1])
        np.testing.assert_array_equal(some.counts.toarray(), whole.counts[chosen].toarray()[:, ::-1])
        np.testing.assert_array_equal(some.is_cell, whole.is_cell[chosen])
    nothing = read_background(REFERENCE / "background.h5", [], genes)
    assert nothing.counts.shape == (0, len(genes))


def test_a_file_of_another_library_is_refused(tiny, tmp_path):
    names, genes = names_of(tiny)
    with pytest.raises(UserError, match="lacks the droplet S9:AAAC"):
        read_background(REFERENCE / "background.h5", ["S9:AAAC"], genes)
    with pytest.raises(UserError, match="its genes are others"):
        read_background(REFERENCE / "background.h5", names, [*genes[1:], "ENSG0"])
    (tmp_path / "cellbender.h5").write_text("half a file")
    with pytest.raises(UserError, match="cannot be read as output of CellBender"):
        read_background(tmp_path / "cellbender.h5", names, genes)


def test_contamination_by_cellbender_is_what_it_removed(tiny):
    names, genes = names_of(tiny)
    is_cell = (tiny[1]["true_class"] != "").to_numpy()
    background = read_background(
        REFERENCE / "background.h5", [n for n, c in zip(names, is_cell, strict=True) if c], genes
    )
    data = tiny_input(tiny, background)
    found = REGISTRY["cellbender"].run(data)
    assert found.note == ""
    assert found.profile_from == "empty droplets"
    table = found.table.set_index("group")
    assert set(table.index) == {"MSC", "T_NK", "myeloid"}
    for kind, row in table.iterrows():
        cells = found.group == kind
        removed = 1 - background.counts[cells].sum() / data.counts[cells].sum()
        assert removed > 0.005
        assert row["ambient_fraction"] == pytest.approx(removed, rel=1e-6)
        assert 0 < row["partner_fraction"] < row["ambient_fraction"]
    assert np.isnan(table["ambient_fraction_se"].astype(float)).all()
    assert found.ambient_fraction == pytest.approx(1 - background.counts.sum() / data.counts.sum(), rel=0.01)
    assert (found.corrected != background.counts).nnz == 0


def test_cells_that_cellbender_calls_empty_keep_their_counts(tiny):
    names, genes = names_of(tiny)
    is_cell = (tiny[1]["true_class"] != "").to_numpy()
    background = read_background(
        REFERENCE / "background.h5", [n for n, c in zip(names, is_cell, strict=True) if c], genes
    )
    background.is_cell[:] = True
    background.is_cell[:3] = False
    data = tiny_input(tiny, background)
    found = REGISTRY["cellbender"].run(data)
    assert "takes 3 of the cells for empty droplets: they keep their counts" in found.note
    np.testing.assert_array_equal(found.corrected[:3].toarray(), data.counts[:3].toarray())
    np.testing.assert_array_equal(found.corrected[3:].toarray(), background.counts[3:].toarray())


def test_a_filtered_matrix_is_measured_and_not_corrected(tiny, tmp_path):
    from anndata import AnnData

    counts, droplets, genes = tiny
    cells = (droplets["true_class"] != "").to_numpy()
    obs, var = droplets[cells].set_index("name"), genes.set_index("gene_id")
    write_h5ad(AnnData(counts[cells], obs=obs, var=var), tmp_path / "counts.h5ad")
    output = tmp_path / "new" / "cellbender.h5"
    options = {"lower": 100, "epochs": 1, "false_positive_rate": 0.01, "threads": 1}
    note = remove_background(tmp_path / "counts.h5ad", output, **options)
    assert "without empty droplets" in note
    background = read_background(output, list(obs.index), list(var.index))
    found = REGISTRY["cellbender"].run(tiny_input(tiny, background))
    assert found.note.startswith("CellBender was not run: a matrix without empty droplets")
    assert found.corrected is None
    expected = REGISTRY["soupx"].run(tiny_input(tiny))
    assert found.ambient_fraction == expected.ambient_fraction > 0.05


def test_without_cellbender_the_user_is_told_what_to_do(tiny, tmp_path, monkeypatch):
    from anndata import AnnData

    counts, droplets, genes = tiny
    write_h5ad(AnnData(counts, obs=droplets.set_index("name"), var=genes.set_index("gene_id")), tmp_path / "c.h5ad")
    monkeypatch.setattr("immunomod.sample.ambient.cellbender.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"CellBender is not installed here\. Fix: run with `--sdm conda`"):
        remove_background(
            tmp_path / "c.h5ad", tmp_path / "out.h5", lower=100, epochs=1, false_positive_rate=0.01, threads=1
        )
    assert not (tmp_path / "out.h5").exists()


def test_a_sample_takes_the_counts_that_cellbender_left(tiny):
    from anndata import AnnData

    from immunomod.sample.process import process_sample
    from immunomod.sample.settings import SampleSettings

    counts, droplets, genes = tiny
    obs = droplets.set_index("name").drop(columns="true_class").assign(organism="human", dataset="D", donor="d1")
    sample = AnnData(counts, obs=obs, var=genes.set_index("gene_id", drop=False).rename_axis(None))
    qc = {"min_counts": 200, "min_genes": 10, "enough_genes": 10}
    sections = {"ambient": {"method": "cellbender"}, "doublets": {"method": "none", "partner": False}, "qc": qc}
    weights = pd.DataFrame({"alpha": 1.0}, index=genes["gene_symbol"].iloc[:20].tolist())
    settings = SampleSettings.from_config(sections, 1)
    result = process_sample(sample, weights, settings, background=REFERENCE / "background.h5")
    row, filtered = result.qc.iloc[0], result.filtered
    assert 50 <= filtered.n_obs <= 62
    expected = read_background(REFERENCE / "background.h5", filtered.obs_names, filtered.var_names)
    assert expected.is_cell.all()
    assert (filtered.layers["corrected"] != expected.counts).nnz == 0
    assert filtered.layers["counts"].sum() > filtered.layers["corrected"].sum()
    assert filtered.uns["immunomod"]["expression_from"] == "corrected"
    assert row["ambient_method"] == "cellbender"
    assert row["ambient_fraction"] > 0.01 and np.isnan(row["ambient_fraction_se"])
    without = process_sample(sample, weights, settings)
    assert "CellBender was not run; contamination is measured as by soupx" in without.qc.iloc[0]["reason"]
    assert "corrected" not in without.filtered.layers
