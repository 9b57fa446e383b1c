"""Ligand-receptor changes: numbers by hand, complexes, statuses, invariances, and behaviour under null and truth."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse, stats

from immunomod.contrast.communication import (
    COLUMNS,
    communication_effects,
    complex_changes,
    intersection_union_p,
)
from immunomod.contrast.design import Contrast
from immunomod.contrast.genes import gene_effects
from immunomod.contrast.settings import ContrastSettings
from immunomod.files import read_tsv, write_tsv
from immunomod.interactions import load_interactions

ROW = {
    **{"contrast": "q", "dataset": "ds", "variable": "condition", "test": "co"},
    "reference": "msc_alone,immune_alone",
}
SETTINGS = ContrastSettings()
N_GENES = 300
#: (class, gene number) -> planted log2 change
CHANGES = {("MSC", 0): 3.0, ("T", 1): -2.0, ("MSC", 2): 1.5, ("T", 3): 1.5}
PAIRS = pd.DataFrame(
    [
        ("g000", "g050"),  # the ligand of MSC rises
        ("g051", "g001"),  # the receptor of T cells falls
        ("g002", "g003"),  # both rise
        ("g000", "g001"),  # they go against each other
        ("g060", "g061"),  # nothing
        ("g000", "g050_g003"),  # a complex of a steady and a rising receptor
        ("g000", "g299"),  # the receptor is hardly expressed
        ("g000", "nowhere"),
        ("g000_nowhere", "g050"),
    ],
    columns=["ligand", "receptor"],
)


def genes_of(numbers: int = N_GENES) -> list[str]:
    return [f"g{number:03d}" for number in range(numbers)]


def study(
    n_donors: int = 4,
    seed: int = 0,
    changes: dict[tuple[str, int], float] | None = None,
    classes: tuple[str, ...] = ("MSC", "T", "B"),
    depth: float = 60_000,
    donor_sd: float = 0.2,
    shared_sd: float = 0.0,
) -> AnnData:
    """Donors with MSC alone, immune cells alone and both together; donors differ, and so do their responses.

    ``shared_sd``: standard deviation between donors of a gene's response that is the same in all classes.
    """
    rng = np.random.default_rng(seed)
    shared = np.random.default_rng(seed + 1000).normal(0, shared_sd, (n_donors, N_GENES))
    changes = CHANGES if changes is None else changes
    counts, rows = [], []
    for cell_class in classes:
        compartment = "MSC" if cell_class == "MSC" else "immune"
        rate = np.exp(rng.normal(0, 0.8, N_GENES)) + 0.5
        rate[:10] = 2.0
        rate[299] = 1e-4
        for donor in range(n_donors):
            own = rate * 2 ** rng.normal(0, donor_sd, N_GENES)
            for condition in (f"{compartment.lower()}_alone", "co"):
                expression = own * 2 ** rng.normal(0, donor_sd, N_GENES)
                if condition == "co":
                    expression *= 2 ** shared[donor]
                for (name, gene), change in changes.items():
                    if name == cell_class and condition == "co":
                        expression[gene] *= 2**change
                counts.append(rng.poisson(expression / expression.sum() * depth))
                rows.append((f"{condition}{donor}", f"D{donor}", cell_class, compartment, cell_class, condition, 80))
    columns = ["sample", "donor", "cell_class", "compartment", "lineage", "condition", "n_cells"]
    obs = pd.DataFrame(rows, columns=columns, index=[f"u{number}" for number in range(len(rows))])
    return AnnData(X=sparse.csr_matrix(np.array(counts)), obs=obs, var=pd.DataFrame(index=genes_of()))


def run(
    pseudobulk: AnnData, pairs: pd.DataFrame = PAIRS, settings: ContrastSettings = SETTINGS, **changes: str
) -> pd.DataFrame:
    question = Contrast.from_row(ROW | changes)
    data = dict.fromkeys(question.datasets, pseudobulk)
    genes = gene_effects(question, data, settings).tables
    return communication_effects(question, data, genes, {"human": pairs, "mouse": pairs}, settings)


@pytest.fixture(scope="module")
def result() -> pd.DataFrame:
    return run(study())


def row_of(table: pd.DataFrame, ligand: str, receptor: str, source: str = "MSC", target: str = "T") -> pd.Series:
    chosen = (table["ligand"] == ligand) & (table["receptor"] == receptor)
    return table[chosen & (table["source"] == source) & (table["target"] == target)].iloc[0]


def test_columns_and_rows(result):
    assert list(result.columns) == COLUMNS
    ends = result[["direction", "source", "target"]].drop_duplicates()
    assert sorted(map(tuple, ends.to_numpy())) == [
        ("immune_to_msc", "B", "MSC"),
        ("immune_to_msc", "T", "MSC"),
        ("msc_to_immune", "MSC", "B"),
        ("msc_to_immune", "MSC", "T"),
    ]
    assert result["p_value"].dropna().is_monotonic_increasing
    assert (result["n_pairs"] > 0).all()


def test_every_pair_is_counted_once(result):
    assert result.groupby(["source", "target"])["n_pairs"].sum().eq(len(PAIRS)).all()
    low = result[result["status"] == "low_expression"]
    assert (low["n_pairs"] == 3).all() and low[["ligand", "receptor", "effect", "p_value", "fdr"]].isna().all(axis=None)
    assert low["reason"].str.contains("1 of 9 pairs: ligand or receptor below 10 counts per million").all()
    assert low["reason"].str.contains("2: a gene that the matrix does not list").all()


def test_numbers_equal_a_calculation_by_hand():
    """Gene tables with round numbers: ligand +2 (se 0.5), receptor -0.5 (se 0.25), and a second pair that agrees."""
    data = study()
    table = pd.DataFrame({"gene": genes_of(), "log2_fold_change": 0.0, "se": 1.0, "p_value": 1.0})
    table["ambient_suspect"] = np.nan
    msc, t = table.set_index("gene"), table.set_index("gene")
    msc.loc["g000", ["log2_fold_change", "se"]] = [2.0, 0.5]
    t.loc["g001", ["log2_fold_change", "se"]] = [-0.5, 0.25]
    t.loc["g002", ["log2_fold_change", "se"]] = [0.75, 0.25]
    pairs = pd.DataFrame([("g000", "g001"), ("g000", "g002")], columns=["ligand", "receptor"])
    genes = {"MSC": msc.reset_index(), "T": t.reset_index(), "B": table}
    got = communication_effects(Contrast.from_row(ROW), {"ds": data}, genes, {"human": pairs}, SETTINGS)
    against, along = row_of(got, "g000", "g001"), row_of(got, "g000", "g002")
    assert (against["effect"], against["se"]) == (0.75, 0.375)
    assert against["p_value"] == pytest.approx(0.0455003, abs=1e-7)  # z = 2
    assert against["p_both"] == 1
    assert (against["ci_low"], against["ci_high"]) == pytest.approx((0.75 - 1.959964 * 0.375, 0.75 + 1.959964 * 0.375))
    assert (along["effect"], along["se"]) == (1.375, 0.375)
    assert along["p_value"] == pytest.approx(2 * stats.norm.sf(11 / 3))
    assert along["p_both"] == pytest.approx(0.0026998, abs=1e-7)  # the receptor, z = 3, is the weaker side
    # two pairs, two classes, two directions: eight tests, of which these have the smallest p
    tested = got[got["status"] == "tested"]
    assert len(tested) == 8
    np.testing.assert_allclose(tested["fdr"], stats.false_discovery_control(tested["p_value"]))
    np.testing.assert_allclose(tested["fdr_both"], stats.false_discovery_control(tested["p_both"]))
    own = data[(data.obs["cell_class"] == "MSC").to_numpy() & (data.obs["condition"] == "co").to_numpy()]
    plain = own.X[:, 0].sum() / own.X.sum() * 1e6
    assert along["ligand_cpm_test"] == pytest.approx(plain, rel=0.15)  # effective library sizes, not plain ones


def test_sides_repeat_the_gene_tables():
    data, question = study(), Contrast.from_row(ROW)
    genes = gene_effects(question, {"ds": data}, SETTINGS).tables
    row = row_of(communication_effects(question, {"ds": data}, genes, {"human": PAIRS}, SETTINGS), "g002", "g003")
    for side, cell_class, gene in (("ligand", "MSC", "g002"), ("receptor", "T", "g003")):
        own = genes[cell_class].set_index("gene").loc[gene]
        for name in ("log2_fold_change", "se", "p_value"):
            assert row[f"{side}_{name}"] == own[name]
    assert row["p_both"] == pytest.approx(max(row["ligand_p_value"], row["receptor_p_value"]))


def test_planted_changes_are_found_by_the_null_that_asks_for_them(result):
    one, both, against = row_of(result, "g000", "g050"), row_of(result, "g002", "g003"), row_of(result, "g000", "g001")
    assert one["fdr"] < 0.05 and one["p_both"] > 0.05
    assert both["fdr"] < 0.05 and both["fdr_both"] < 0.05
    assert both["effect"] == pytest.approx(1.5, abs=0.3)
    assert against["p_both"] > 0.5 and against["effect"] == pytest.approx(0.5, abs=0.4)
    assert row_of(result, "g051", "g001")["effect"] == pytest.approx(-1.0, abs=0.3)
    assert row_of(result, "g060", "g061")["fdr"] > 0.05


def test_a_complex_is_its_subunit_of_least_evidence(result):
    row = row_of(result, "g000", "g050_g003")
    assert row["receptor_gene"] == "g050"
    assert row["effect"] == row_of(result, "g000", "g050")["effect"]
    genes = pd.DataFrame(
        {
            "log2_fold_change": [2.0, -1.0, 0.5, 9.0],
            "se": [0.5, 0.1, 0.05, 1.0],
            "p_value": [0.1, 0.01, 0.001, np.nan],
            **{"cpm_test": 50.0, "cpm_reference": 50.0},
            "ambient_suspect": [False, True, np.nan, np.nan],
            "obstacle": ["", "", "", "low_expression"],
        },
        index=["a", "b", "c", "low"],
    )
    names = pd.Series(["a_b", "a", "b_c", "a_b_c", "a_low", "a_b", "a_none"])
    table = complex_changes(names, genes)
    assert list(table["gene"]) == ["a", "a", "b", "a", "low", "a", "none"]  # |z| are 4, 10 and 10
    assert list(table["obstacle"]) == ["", "", "", "", "low_expression", "", "not_listed"]
    # suspect where any subunit is
    assert list(table["ambient_suspect"].astype(object).where(table["ambient_suspect"].notna(), None)) == [
        *(True, False, True, True, False, True, False)
    ]


def test_intersection_union():
    z = np.array([[3.0, 2.0], [3.0, -2.0], [-3.0, -2.0], [0.0, 0.0], [np.nan, 1.0]])
    p = intersection_union_p(z[:, 0], z[:, 1])
    two_sided = 2 * stats.norm.sf(2.0)
    assert p[0] == pytest.approx(two_sided) and p[2] == pytest.approx(two_sided)
    assert p[1] == 1 and p[3] == 1 and np.isnan(p[4])


def test_exchanging_the_arms_flips_signs_alone():
    data = study(classes=("MSC", "T"))
    data.obs["condition"] = data.obs["condition"].replace({"msc_alone": "alone", "immune_alone": "alone"})
    first = run(data, test="co", reference="alone").set_index(["source", "target", "ligand", "receptor"])
    second = run(data, test="alone", reference="co").set_index(["source", "target", "ligand", "receptor"])
    second = second.loc[first.index]
    for name in ("effect", "ligand_log2_fold_change", "receptor_log2_fold_change"):
        np.testing.assert_allclose(first[name], -second[name], atol=1e-3)
    for name in ("se", "p_value", "p_both", "fdr"):
        np.testing.assert_allclose(first[name], second[name], rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(first["ligand_cpm_test"], second["ligand_cpm_reference"])
    assert (first["status"] == second["status"]).all()


def test_order_of_rows_genes_and_pairs_does_not_matter(result):
    data, rng = study(), np.random.default_rng(1)
    shuffled = data[rng.permutation(data.n_obs)][:, rng.permutation(data.n_vars)].copy()
    again = run(shuffled, PAIRS.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(result, again, rtol=1e-6)


def with_leakage(data: AnnData, cell_class: str, gene: str, share: float, error: float = 0.02) -> AnnData:
    """The same with a share of a gene's molecules in the co-culture's cells of a class taken to have leaked in."""
    leaked = np.zeros(data.shape)
    rows = (data.obs["cell_class"] == cell_class).to_numpy() & (data.obs["condition"] == "co").to_numpy()
    column = data.var_names.get_loc(gene)
    leaked[rows, column] = share * data.X.toarray()[rows, column]
    changed = data.copy()
    changed.layers["leaked"] = sparse.csr_matrix(leaked, dtype=np.float32)
    changed.layers["leaked_variance"] = sparse.csr_matrix(leaked + (0.05 * leaked) ** 2, dtype=np.float32)
    changed.obs["leaked_error"] = np.where(rows, error, 0.0)
    return changed


def test_leakage_suspects_are_marked_on_either_side(result):
    assert result[["ligand_ambient_suspect", "receptor_ambient_suspect"]].isna().all(axis=None)
    explained = 1 - 2**-3.0  # of the molecules of g000 in MSC: its whole planted rise
    table = run(with_leakage(study(classes=("MSC", "T")), "MSC", "g000", explained))
    row = row_of(table, "g000", "g050")
    assert row["ligand_ambient_suspect"] is True and pd.isna(row["receptor_ambient_suspect"])
    assert row["effect"] < 0.5 and row["fdr"] > 0.05
    # expression is that of a class's own molecules
    everything = row_of(result, "g000", "g050")["ligand_cpm_test"]
    assert row["ligand_cpm_test"] == pytest.approx(everything * (1 - explained), rel=0.1)
    pairs = pd.DataFrame([("g050", "g000")], columns=["ligand", "receptor"])
    row = row_of(
        run(with_leakage(study(classes=("MSC", "T")), "MSC", "g000", explained), pairs), "g050", "g000", "T", "MSC"
    )
    assert row["receptor_ambient_suspect"] is True and pd.isna(row["ligand_ambient_suspect"])
    row = row_of(run(with_leakage(study(classes=("MSC", "T")), "MSC", "g000", 0.1)), "g000", "g050")
    assert row["ligand_ambient_suspect"] is False and row["fdr"] < 0.05


def test_what_leakage_hides_has_no_p_value():
    pairs = pd.DataFrame([("g004", "g050"), ("g050", "g060")], columns=["ligand", "receptor"])
    data = with_leakage(study(classes=("MSC", "T")), "MSC", "g004", 0.97, error=0.5)
    control = ((data.obs["cell_class"] == "MSC") & (data.obs["condition"] != "co")).to_numpy()
    counts = data.X.toarray()
    counts[control, 4] = 0
    data.X = sparse.csr_matrix(counts)
    row = row_of(run(data, pairs), "g004", "g050")
    assert row["status"] == "leakage"
    assert row["reason"] == "g004 cannot be told from leaked partner RNA in MSC"
    assert pd.isna(row["p_value"]) and pd.isna(row["fdr"]) and pd.isna(row["p_both"])


def test_a_class_that_is_absent_or_small_has_one_row_that_says_so():
    alone = run(study(classes=("T", "B")))
    assert set(alone["status"]) == {"absent"} and len(alone) == 4
    assert (alone["n_pairs"] == len(PAIRS)).all() and alone["p_value"].isna().all()
    assert alone["reason"].str.contains("MSC: no sample of the contrast holds a cell of class MSC").all()
    data = study()
    data.obs.loc[data.obs["cell_class"] == "B", "n_cells"] = 3
    table = run(data)
    few = table[(table["source"] == "B") | (table["target"] == "B")]
    assert set(few["status"]) == {"too_few_cells"} and len(few) == 2
    assert (table["status"] == "tested").any()
    gone = data[~((data.obs["cell_class"] == "B") & (data.obs["condition"] == "co")).to_numpy()].copy()
    few = run(gone).query("target == 'B'")
    assert set(few["status"]) == {"absent"}


def test_without_replicates_there_are_changes_and_no_p_values():
    table = run(study(n_donors=1, classes=("MSC", "T")))
    pairs = table[table["status"] == "unreplicated"]
    assert len(pairs) > 10
    assert pairs[["se", "p_value", "fdr", "p_both", "fdr_both", "ligand_p_value"]].isna().all(axis=None)
    assert pairs["reason"].str.contains("cells are not replicates").all()
    assert row_of(table, "g000", "g050")["ligand_log2_fold_change"] == pytest.approx(3, abs=1)
    assert table.groupby(["source", "target"])["n_pairs"].sum().eq(len(PAIRS)).all()


def test_a_trend_over_two_values_is_their_contrast():
    data = study(classes=("MSC", "T"))
    data.obs["dose"] = np.where(data.obs["condition"] == "co", "1", "0")
    trend = run(data, variable="dose", test="", reference="")
    arms = run(data)
    order = ["source", "ligand", "receptor"]
    trend, arms = (table.sort_values(order, ignore_index=True) for table in (trend, arms))
    np.testing.assert_allclose(trend["effect"], arms["effect"], atol=1e-3)
    np.testing.assert_allclose(trend["ligand_cpm_test"], arms["ligand_cpm_test"])
    assert (trend["status"] == arms["status"]).all()


def test_the_limit_of_expression_is_a_setting():
    strict = run(study(classes=("MSC", "T")), settings=ContrastSettings(communication_min_cpm=1e6))
    assert set(strict["status"]) == {"low_expression"} and len(strict) == 2
    assert (strict["n_pairs"] == len(PAIRS)).all()


def test_several_data_sets_have_families_of_their_own():
    question = Contrast.from_row(ROW | {"dataset": "a,b"})
    data = {"a": study(classes=("MSC", "T")), "b": study(n_donors=1, classes=("MSC", "T"))}
    genes = gene_effects(question, data, SETTINGS).tables
    table = communication_effects(question, data, genes, {"human": PAIRS}, SETTINGS)
    alone = run(study(classes=("MSC", "T")))
    first = table[table["dataset"] == "a"].reset_index(drop=True)
    pd.testing.assert_frame_equal(first.drop(columns="dataset"), alone.drop(columns="dataset"))
    assert set(table.loc[table["dataset"] == "b", "status"]) == {"unreplicated", "low_expression"}


def test_the_table_survives_its_file(result, tmp_path):
    write_tsv(result, tmp_path / "communication.tsv")
    back = read_tsv(tmp_path / "communication.tsv")
    assert list(back.columns) == COLUMNS and len(back) == len(result)
    np.testing.assert_allclose(back["p_value"], result["p_value"])
    # gene tables that went through a file say the same
    data, question = study(classes=("MSC", "T")), Contrast.from_row(ROW)
    genes = gene_effects(question, {"ds": with_leakage(data, "MSC", "g000", 0.5)}, SETTINGS).tables
    for name, table in genes.items():
        write_tsv(table, tmp_path / f"{name}.tsv.gz")
    read = {name: read_tsv(tmp_path / f"{name}.tsv.gz") for name in genes}
    leaked = {"ds": with_leakage(data, "MSC", "g000", 0.5)}
    first, second = (
        communication_effects(question, leaked, tables, {"human": PAIRS}, SETTINGS) for tables in (genes, read)
    )
    pd.testing.assert_frame_equal(first, second)


def random_pairs(seed: int, n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    drawn = rng.choice(N_GENES - 1, size=(n, 2))
    names = [tuple(f"g{number:03d}" for number in pair) for pair in drawn if pair[0] != pair[1]]
    return pd.DataFrame(sorted(set(names)), columns=["ligand", "receptor"])


@pytest.mark.slow
@pytest.mark.parametrize("n_donors", [3, 4])
def test_under_the_null_at_most_5_percent_are_rejected(n_donors):
    rejected, both, called, tested = 0, 0, 0, 0
    for seed in range(6):
        table = run(study(n_donors, seed, changes={}, classes=("MSC", "T")), random_pairs(seed))
        table = table[table["status"] == "tested"]
        rejected += int((table["p_value"] < 0.05).sum())
        both += int((table["p_both"] < 0.05).sum())
        called += int((table["fdr"] < 0.05).sum())
        tested += len(table)
    assert tested > 3000
    assert rejected / tested <= 0.05
    assert both / tested <= 0.05
    assert called / tested <= 0.005


@pytest.mark.slow
def test_both_sides_null_holds_where_one_side_surely_changes():
    """The hardest case of the intersection-union test: its size is then that of the other side's test alone."""
    changes = {("MSC", gene): 4.0 if gene % 2 else -4.0 for gene in range(10)}
    pairs = pd.DataFrame(
        [(f"g{ligand:03d}", f"g{receptor:03d}") for ligand in range(10) for receptor in range(20, 298)],
        columns=["ligand", "receptor"],
    )
    shares, product = [], []
    for seed in range(6):
        table = run(study(4, seed, changes=changes, classes=("MSC", "T")), pairs).query("direction == 'msc_to_immune'")
        table = table[table["status"] == "tested"]
        shares.append((table["p_both"] < 0.05).mean())
        product.append((table["p_value"] < 0.05).mean())
    # a receptor is either of the ligands' sign or not, so that half of the 5% is left
    assert np.mean(shares) <= 0.05
    assert np.mean(product) > 0.9


def test_standard_error_is_that_of_fully_correlated_sides():
    """Where both sides err by the same number, the p of a pair is that of one side; a root of squares halves it."""
    change = np.random.default_rng(0).normal(0, 1, N_GENES)
    table = pd.DataFrame({"gene": genes_of(), "log2_fold_change": change, "se": 1.0, "ambient_suspect": np.nan})
    table["p_value"] = 2 * stats.norm.sf(np.abs(change))
    pairs = pd.DataFrame({"ligand": genes_of(), "receptor": genes_of()})
    data = study(classes=("MSC", "T"))
    genes = {"MSC": table, "T": table}
    got = communication_effects(Contrast.from_row(ROW), {"ds": data}, genes, {"human": pairs}, SETTINGS)
    got = got[got["status"] == "tested"]
    assert len(got) > 500
    np.testing.assert_allclose(got["p_value"], got["ligand_p_value"])
    np.testing.assert_allclose(got["p_both"], got["ligand_p_value"])


@pytest.mark.slow
def test_donors_that_respond_alike_on_both_sides_do_not_make_pairs():
    """Where a donor's ligand and receptor go up together by chance, a root of squares takes it for evidence."""
    pairs = pd.DataFrame({"ligand": genes_of(), "receptor": genes_of()})
    ours, independent = [], []
    for seed in range(6):
        data = study(4, seed, changes={}, classes=("MSC", "T"), depth=200_000, donor_sd=0.05, shared_sd=0.5)
        table = run(data, pairs).query("status == 'tested' and direction == 'msc_to_immune'").astype({"effect": float})
        root = np.hypot(table["ligand_se"].astype(float), table["receptor_se"].astype(float)) / 2
        ours.append((table["p_value"] < 0.05).mean())
        independent.append((2 * stats.norm.sf(np.abs(table["effect"] / root)) < 0.05).mean())
    assert np.mean(ours) < 0.07  # the gene tables themselves reject 6% here
    assert np.mean(independent) > 0.12


def test_licensing_is_found_with_the_shipped_pairs():
    """CXCL9, CXCL10 and CD274 rise in MSC, as licensing makes them; their receptors on T cells stay."""
    data = study(changes={("MSC", gene): 4.0 for gene in range(3)}, classes=("MSC", "T"))
    names = [*("CXCL9", "CXCL10", "CD274", "CXCR3", "PDCD1", "IFNG", "IFNGR1", "IFNGR2"), *genes_of()[8:]]
    data.var_names = names
    table = run(data, load_interactions(organisms=["human"])["human"])
    for ligand, receptor in (("CXCL9", "CXCR3"), ("CXCL10", "CXCR3"), ("CD274", "PDCD1")):
        row = row_of(table, ligand, receptor)
        assert row["fdr"] < 0.05 and row["effect"] == pytest.approx(2, abs=0.5)
    steady = row_of(table, "IFNG", "IFNGR1_IFNGR2", "T", "MSC")
    assert steady["status"] == "tested" and steady["fdr"] > 0.05
    assert table.groupby(["source", "target"])["n_pairs"].sum().eq(4620).all()


def test_mouse_pairs_are_used_for_mouse():
    data = study(classes=("MSC", "T"))
    data.obs["organism"] = "mouse"
    question = Contrast.from_row(ROW)
    genes = gene_effects(question, {"ds": data}, SETTINGS).tables
    one = SimpleNamespace(mouse=PAIRS.iloc[:1], human=PAIRS.iloc[1:2])
    table = communication_effects(question, {"ds": data}, genes, vars(one), SETTINGS)
    assert set(table["ligand"].dropna()) == {"g000"}
