"""Gene tables: PyDESeq2 on the contrast's design, held against edgeR on real data."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from scipy import sparse

from immunomod.contrast.design import Contrast, stratum_design
from immunomod.contrast.genes import COLUMNS, expressed_genes, fit_genes, gene_effects
from immunomod.contrast.pseudobulk import pseudobulk
from immunomod.contrast.settings import ContrastSettings

REFERENCE = Path(__file__).parent / "reference"
QUESTION = Contrast.from_row(
    {"contrast": "q", "dataset": "ds", "variable": "condition", "test": "stim", "reference": "ctrl"}
)
EDGER = """
suppressMessages(library(edgeR))
counts <- as.matrix(read.delim("counts.tsv", row.names = 1, check.names = FALSE))
units <- read.delim("units.tsv", colClasses = "character")
arm <- factor(units$arm, levels = c("reference", "test"))
y <- DGEList(counts, group = arm)
y <- calcNormFactors(y[filterByExpr(y), , keep.lib.sizes = FALSE])
design <- model.matrix(~ factor(units$block) + arm)
fit <- glmQLFit(estimateDisp(y, design), design)
table <- glmQLFTest(fit)$table
write.table(data.frame(gene = rownames(table), table), "edger.tsv", sep = "\\t", quote = FALSE, row.names = FALSE)
"""


def toy(n_donors: int = 4, n_genes: int = 400, depth: float = 50_000, seed: int = 0) -> AnnData:
    rng = np.random.default_rng(seed)
    rate = np.exp(rng.normal(0, 1, n_genes))
    counts, rows = [], []
    for donor in range(n_donors):
        own = rate * np.exp(rng.normal(0, 0.1, n_genes))
        for condition in ("ctrl", "stim"):
            expression = own * np.where((np.arange(n_genes) < 10) & (condition == "stim"), 8, 1)
            mean = expression / expression.sum() * depth
            counts.append(rng.negative_binomial(20, 20 / (20 + mean)))
            rows.append((f"{condition}{donor}", f"D{donor}", "T", "immune", "T", condition, 50))
    columns = ["sample", "donor", "cell_class", "compartment", "lineage", "condition", "n_cells"]
    obs = pd.DataFrame(rows, columns=columns, index=[f"u{i}" for i in range(len(rows))])
    var = pd.DataFrame(index=[f"g{i:03d}" for i in range(n_genes)])
    return AnnData(X=sparse.csr_matrix(np.array(counts)), obs=obs, var=var)


def test_filter_equals_edger():
    counts = pd.read_csv(REFERENCE / "counts.tsv", sep="\t", index_col="gene").to_numpy(dtype=float).T
    expected = pd.read_csv(REFERENCE / "edger_log_cpm.tsv", sep="\t")["kept"].to_numpy(dtype=bool)
    design = stratum_design(QUESTION, toy(n_donors=3).obs, "T", 10)
    assert 0 < expected.sum() < len(expected)
    assert (expressed_genes(counts, design) == expected).all()


def test_planted_genes_are_found_and_the_table_is_complete():
    table = gene_effects(QUESTION, {"ds": toy()}, ContrastSettings()).tables["T"]
    assert list(table.columns) == COLUMNS
    planted = table["gene"].isin([f"g{i:03d}" for i in range(10)])
    assert planted.sum() >= 8
    assert (table.loc[planted, "fdr"] < 0.05).all()
    assert table.loc[planted, "log2_fold_change"].mean() == pytest.approx(3, abs=0.2)
    assert abs(table.loc[~planted, "log2_fold_change"].mean()) < 0.15
    assert (table.loc[~planted, "fdr"] < 0.05).mean() < 0.05
    assert table["p_value"].is_monotonic_increasing
    np.testing.assert_allclose(table["statistic"], table["log2_fold_change"] / table["se"])


def test_order_of_genes_and_units_does_not_matter():
    data = toy()
    rng = np.random.default_rng(1)
    shuffled = data[rng.permutation(data.n_obs)][:, rng.permutation(data.n_vars)].copy()
    first = gene_effects(QUESTION, {"ds": data}, ContrastSettings()).tables["T"]
    second = gene_effects(QUESTION, {"ds": shuffled}, ContrastSettings()).tables["T"]
    pd.testing.assert_frame_equal(first, second, rtol=1e-6)


@pytest.mark.parametrize("fault", ["one donor", "few cells", "no counts", "sparse"])
def test_what_cannot_be_fitted_gives_an_empty_table(fault):
    data = toy(n_donors=1) if fault == "one donor" else toy(depth=60 if fault == "sparse" else 50_000)
    if fault == "few cells":
        data.obs["n_cells"] = 3
    if fault == "no counts":
        data.X = sparse.csr_matrix(data.shape, dtype=np.int64)
    table = gene_effects(QUESTION, {"ds": data}, ContrastSettings()).tables["T"]
    assert table.empty
    assert list(table.columns) == COLUMNS


def test_every_gene_zero_somewhere_still_fits():
    data = toy(n_donors=3)
    counts = data.X.toarray()
    for gene in range(counts.shape[1]):
        counts[gene % 6, gene] = 0
    data.X = sparse.csr_matrix(counts)
    table = gene_effects(QUESTION, {"ds": data}, ContrastSettings()).tables["T"]
    assert len(table) > 50
    assert table["log2_fold_change"].notna().all()


def test_several_data_sets_name_their_rows():
    question = Contrast.from_row(
        {"contrast": "q", "dataset": "a,b", "variable": "condition", "test": "stim", "reference": "ctrl"}
    )
    table = gene_effects(question, {"a": toy(), "b": toy(n_donors=1)}, ContrastSettings()).tables["T"]
    assert list(table.columns) == [*COLUMNS, "dataset"]
    assert set(table["dataset"]) == {"a"}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("Rscript") is None, reason="needs R with edgeR (Debian: r-bioc-edger)")
def test_fold_changes_in_cd14_monocytes_correlate_with_edger(shared, tmp_path):
    cells = read_h5ad(shared / "data" / "kang" / "kang2000_ctrl_stim_8donors.h5ad")
    obs = cells.obs.assign(sample=cells.obs["condition"], cell_class=cells.obs["cell_type"], compartment="immune")
    cells.obs = obs.assign(lineage=obs["cell_class"]).drop(columns=["barcode"])
    data = pseudobulk([cells], cells.obs)
    design = stratum_design(QUESTION, data.obs, "CD14+ Monocytes", 10)
    assert design.n_pairs == 8
    counts = np.asarray((design.membership @ data.X).todense())
    ours = fit_genes(counts, data.var_names, design).set_index("gene")

    pd.DataFrame(counts.T.astype(int), index=data.var_names).to_csv(tmp_path / "counts.tsv", sep="\t")
    design.units[["block", "arm"]].to_csv(tmp_path / "units.tsv", sep="\t", index=False)
    (tmp_path / "edger.R").write_text(EDGER)
    run = subprocess.run(["Rscript", "edger.R"], cwd=tmp_path, capture_output=True, text=True, check=False)
    if "there is no package called" in run.stderr:
        pytest.skip("needs R's package edgeR (Debian: r-bioc-edger)")
    assert run.returncode == 0, run.stderr
    edger = pd.read_csv(tmp_path / "edger.tsv", sep="\t").set_index("gene")
    assert set(ours.index) == set(edger.index)
    assert len(ours) > 400
    assert ours["log2_fold_change"].corr(edger["logFC"]) > 0.995
    assert ours["log2_fold_change"].corr(edger["logFC"], method="spearman") > 0.995
