"""A real series, from the accession to the report: 8 donors, IFN-beta against none, two lanes of pooled donors."""

import shutil
import subprocess
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from immunomod.contrast.design import Contrast, stratum_design
from immunomod.contrast.gene_methods.method import GeneTask
from immunomod.contrast.genes import REGISTRY, expressed_genes
from immunomod.contrast.model import benjamini_hochberg
from immunomod.contrast.scores import effective_library
from immunomod.files import read_tsv
from support.geo_server import GeoServer
from support.gse96583 import AUTHORS_CLASSES
from support.workflow import Outcome, snakemake

pytestmark = pytest.mark.slow

CONFIG = "config/examples/GSE96583/config.yaml"
LINEAGES = {"CD4_T": "T", "CD8_T": "T", "CD14_monocyte": "monocyte", "CD16_monocyte": "monocyte"}
EDGER = """
suppressMessages(library(edgeR))
arguments <- commandArgs(trailingOnly = TRUE)
counts <- as.matrix(read.delim(arguments[1], row.names = 1, check.names = FALSE))
units <- read.delim(arguments[2], colClasses = "character")
design <- model.matrix(~ units$donor + factor(units$condition, levels = c("ctrl", "stim")))
y <- DGEList(counts)
y <- y[filterByExpr(y, group = units$condition), , keep.lib.sizes = FALSE]
y <- estimateDisp(calcNormFactors(y), design)
found <- topTags(glmQLFTest(glmQLFit(y, design)), n = Inf, sort.by = "none")$table
write.table(data.frame(gene = rownames(found), found), arguments[3], sep = "\\t", quote = FALSE, row.names = FALSE)
"""


@pytest.fixture(scope="module")
def from_files(repository: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    mirror = (shared / "geo_mirror" / "geo").as_uri()
    folder = tmp_path_factory.mktemp("files")
    return snakemake(folder, repository / CONFIG, "--config", f"geo={{base_url: '{mirror}'}}").check()


@pytest.fixture(scope="module")
def read_cells(from_files: Outcome) -> pd.DataFrame:
    """The cells as read, in the order of the files."""
    samples = from_files.results / "samples"
    return pd.concat([anndata.read_h5ad(samples / name / "counts.h5ad").obs for name in ("ctrl", "stim")]).astype(str)


@pytest.fixture(scope="module")
def authors_cells(shared: Path, read_cells: pd.DataFrame) -> pd.DataFrame:
    """The author's donor, condition and label of the same 2,000 cells, joined independently of this package.

    That table lists the cells in the order of the files; its barcodes are the author's, made unique over the lanes.
    """
    cells = anndata.read_h5ad(shared / "data" / "kang" / "kang2000_ctrl_stim_8donors.h5ad").obs.astype(str)
    assert cells["gsm"].tolist() == read_cells["source"].tolist()
    assert cells["barcode"].str[:16].tolist() == read_cells["barcode"].str[:16].tolist()
    return cells.set_index(read_cells.index)


def test_all_donors_conditions_and_labels_are_the_authors(read_cells, authors_cells):
    assert len(read_cells) == 2000 and read_cells.index.is_unique
    assert (read_cells["donor"] == authors_cells["donor"]).all()
    assert (read_cells["condition"] == authors_cells["condition"]).all()
    assert (read_cells["author_label"] == authors_cells["cell_type"]).all()


def test_classes_agree_with_the_authors(from_files, authors_cells):
    obs = anndata.read_h5ad(from_files.results / "atlas" / "GSE96583.h5ad").obs.astype(str)
    wanted = authors_cells.loc[obs.index, "cell_type"].map(AUTHORS_CLASSES)
    found = obs["cell_class"].replace({"Treg": "CD4_T"})  # the author has no class for them
    lineage = wanted.replace(LINEAGES)
    assert len(obs) > 1900
    assert (found == wanted).mean() >= 0.88
    assert (obs["lineage"] == lineage).mean() >= 0.95
    for name in ("T", "NK", "B"):
        assert (obs["lineage"][lineage == name] == name).mean() >= 0.9, name
    assert (found[wanted == "CD14_monocyte"] == "CD14_monocyte").mean() >= 0.9


def test_type_1_interferon_response_is_up_wherever_four_pairs_are(from_files):
    effects = read_tsv(from_files.results / "contrasts" / "ifn_beta" / "program_effects.tsv")
    response = effects[(effects["program"] == "imm_type1_ifn") & (effects["n_pairs"] >= 4)]
    assert set(response["cell_class"]) >= {"CD4_T", "CD14_monocyte", "B"}
    assert (response["status"] == "tested").all()
    assert (response["effect"] > 0).all()
    assert (response["fdr"] < 0.05).all()


def test_every_class_and_programme_has_a_row_with_a_status(from_files):
    effects = read_tsv(from_files.results / "contrasts" / "ifn_beta" / "program_effects.tsv")
    untested = effects[effects["status"] != "tested"]
    assert untested["p_value"].isna().all() and untested["fdr"].isna().all()
    assert untested["reason"].notna().all()
    classes = anndata.read_h5ad(from_files.results / "atlas" / "GSE96583.h5ad").obs
    immune = set(classes.loc[classes["compartment"] == "immune", "cell_class"])
    assert immune <= set(effects["cell_class"])


def test_gene_changes_agree_with_edger(from_files, tmp_path):
    if shutil.which("Rscript") is None:
        pytest.skip("needs R with edgeR (Debian: r-bioc-edger)")
    bulk = anndata.read_h5ad(from_files.results / "pseudobulk" / "GSE96583.h5ad")
    bulk = bulk[(bulk.obs["cell_class"] == "CD14_monocyte") & (bulk.obs["n_cells"] >= 10)]
    names = [f"u{number}" for number in range(bulk.n_obs)]
    counts = np.asarray(bulk.X.todense()).T
    pd.DataFrame(counts, index=bulk.var_names, columns=names).to_csv(tmp_path / "counts.tsv", sep="\t")
    bulk.obs[["donor", "condition"]].to_csv(tmp_path / "units.tsv", sep="\t", index=False)
    (tmp_path / "edger.R").write_text(EDGER)
    paths = [str(tmp_path / name) for name in ("edger.R", "counts.tsv", "units.tsv", "edger.tsv")]
    subprocess.run(["Rscript", *paths], check=True, capture_output=True)
    edger = pd.read_csv(tmp_path / "edger.tsv", sep="\t").set_index("gene")
    ours = read_tsv(from_files.results / "contrasts" / "ifn_beta" / "genes" / "CD14_monocyte.tsv.gz").set_index("gene")
    common = edger.index.intersection(ours.index[ours["log2_fold_change"].notna()])
    assert len(common) > 0.95 * len(edger)
    correlation = np.corrcoef(edger.loc[common, "logFC"], ours.loc[common, "log2_fold_change"])[0, 1]
    assert correlation > 0.98


@pytest.mark.parametrize("cell_class", ["CD14_monocyte", "CD4_T"])
def test_as_many_genes_change_as_deseq2_edger_and_limma_find(from_files, tmp_path, cell_class):
    """On the same sums, with the same library sizes, and each with its own: DESeq2's for our model too.

    ``benchmarks/library_sizes.py`` says why the workflow has library sizes of its own.
    """
    script = Path(__file__).parents[1] / "contrast" / "reference" / "gene_engines.R"
    needed = 'for (name in c("DESeq2", "edgeR", "limma")) if (!requireNamespace(name, quietly = TRUE)) quit(status = 3)'
    if shutil.which("Rscript") is None or subprocess.run(["Rscript", "-e", needed], check=False).returncode:
        pytest.skip("needs R with DESeq2, edgeR and limma (Debian: r-bioc-deseq2, r-bioc-edger)")
    bulk = anndata.read_h5ad(from_files.results / "pseudobulk" / "GSE96583.h5ad")
    row = {"contrast": "q", "dataset": "d", "variable": "condition", "test": "stim", "reference": "ctrl"}
    design = stratum_design(Contrast.from_row(row), bulk.obs, cell_class, 10)
    counts = np.asarray((design.membership @ bulk.X).todense())
    units = design.units[["block", "arm"]].assign(library=effective_library(counts, design.units["arm"].to_numpy()))
    pd.DataFrame(counts.T.astype(int), index=bulk.var_names).to_csv(tmp_path / "counts.tsv", sep="\t")
    units.to_csv(tmp_path / "units.tsv", sep="\t", index=False)
    paths = [str(tmp_path / name) for name in ("counts.tsv", "units.tsv", "engines.tsv")]
    subprocess.run(["Rscript", str(script), *paths], check=True, capture_output=True)
    engines = pd.read_csv(tmp_path / "engines.tsv", sep="\t")
    found = (engines["fdr"] < 0.05).groupby([engines["libraries"], engines["method"]]).sum()
    ours = read_tsv(from_files.results / "contrasts" / "ifn_beta" / "genes" / f"{cell_class}.tsv.gz")
    n_changed = int((ours["fdr"].astype(float) < 0.05).sum())
    assert found["given"].min() <= n_changed <= found["given"].max()
    kept = expressed_genes(counts, design)
    with np.errstate(divide="ignore"):
        logs = np.log(counts[:, kept])
    logs = logs[:, np.isfinite(logs).all(axis=0)]
    factors = np.exp(np.median(logs - logs.mean(axis=0), axis=1))
    nothing_blurred = np.zeros(kept.sum(), dtype=bool)
    log2 = np.log2(counts[:, kept] + 0.5)
    task = GeneTask(
        bulk.var_names[kept], counts[:, kept], log2, nothing_blurred, factors, design.effect, design.nuisance
    )
    fit = REGISTRY["deseq2"].run(task)
    p_value = 2 * stats.norm.sf(np.abs(fit.estimate / fit.se))
    with_theirs = int((benjamini_hochberg(np.where(fit.tested & fit.counted, p_value, np.nan)) < 0.05).sum())
    assert found["own"].min() <= with_theirs <= found["own"].max()
    theirs = engines[(engines["libraries"] == "given") & (engines["method"] == "deseq2")].set_index("gene")
    difference = ours.set_index("gene")["log2_fold_change"] - theirs["log2_fold_change"]
    assert difference.abs().quantile(0.95) < 0.02


def test_the_ledger_names_every_file_with_its_checksum(from_files):
    ledger = read_tsv(from_files.results / "ledger.tsv")
    names = {Path(path).name for path in ledger["path"]}
    assert {"GSM2560248_2.1.mtx.gz", "GSE96583_batch2.genes.tsv.gz", "GSE96583_batch2.total.tsne.df.tsv.gz"} <= names
    assert ledger["sha256"].str.fullmatch("[0-9a-f]{64}").all()


def test_a_server_gives_what_a_folder_gives(from_files, repository, shared, tmp_path):
    with GeoServer(shared / "geo_mirror") as server:
        config = f"geo={{base_url: '{server.base_url}'}}"
        served = snakemake(tmp_path, repository / CONFIG, "--config", config).check()
    for table in ("contrasts/ifn_beta/program_effects.tsv", "contrasts/ifn_beta/composition.tsv", "samples/qc.tsv"):
        assert (served.results / table).read_bytes() == (from_files.results / table).read_bytes(), table
    ours, theirs = (read_tsv(outcome.results / "ledger.tsv") for outcome in (from_files, served))
    assert theirs["sha256"].tolist() == ours["sha256"].tolist()
    assert (served.results / "report" / "index.html").stat().st_size > 100_000


def test_a_second_run_has_nothing_to_do(from_files, repository, shared):
    mirror = (shared / "geo_mirror" / "geo").as_uri()
    folder = from_files.results.parent
    again = snakemake(folder, repository / CONFIG, "--config", f"geo={{base_url: '{mirror}'}}").check()
    assert again.job_count() == 0
    assert "Nothing to be done" in again.printed
