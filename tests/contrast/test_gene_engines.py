"""Models of genes on real data, held against R's DESeq2, edgeR and limma on the same sums and library sizes.

``reference/gse96583`` holds the pseudobulks of two classes of GSE96583 (8 donors, interferon beta against none), genes
that pass edgeR's filter, and what ``reference/gene_engines.R`` says of them (R 4.2, DESeq2 1.38, edgeR 3.40, limma
3.54). ``tests/workflow/test_gse96583.py`` runs that script on a run of the whole workflow.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from immunomod.contrast.gene_methods.method import GeneFit, GeneTask
from immunomod.contrast.genes import REGISTRY
from immunomod.contrast.model import benjamini_hochberg

FOLDER = Path(__file__).parent / "reference" / "gse96583"
CLASSES = ("CD14_monocyte", "CD4_T")


def task_of(cell_class: str, library: str = "given") -> GeneTask:
    counts = pd.read_csv(FOLDER / f"{cell_class}.counts.tsv.gz", sep="\t", index_col="gene")
    units = pd.read_csv(FOLDER / f"{cell_class}.units.tsv", sep="\t", dtype={"block": str})
    values, sizes = counts.to_numpy(dtype=float).T, units["library"].to_numpy()
    if library == "median of ratios":
        with np.errstate(divide="ignore"):
            logs = np.log(values)[:, (values > 0).all(axis=0)]
        sizes = np.exp(np.median(logs - logs.mean(axis=0), axis=1)) * sizes.mean()
    log2 = np.log2((values + 0.5) / (sizes + 1)[:, None] * 1e6)
    effect = np.where(units["arm"] == "test", 0.5, -0.5)
    blocks = pd.get_dummies(units["block"]).to_numpy(dtype=float)
    return GeneTask(counts.index, values, log2, np.zeros(len(counts), dtype=bool), sizes, effect, blocks)


def engines(cell_class: str, libraries: str) -> dict[str, pd.DataFrame]:
    table = pd.read_csv(FOLDER / f"{cell_class}.engines.tsv.gz", sep="\t")
    return {
        str(name): part.set_index("gene") for name, part in table[table["libraries"] == libraries].groupby("method")
    }


def changed(fit: GeneFit) -> np.ndarray:
    p_value = 2 * stats.t.sf(np.abs(fit.estimate / fit.se), fit.df)
    return benjamini_hochberg(np.where(fit.tested & fit.counted, p_value, np.nan)) < 0.05


@pytest.mark.parametrize("cell_class", CLASSES)
def test_as_many_genes_change_as_rs_three_find(cell_class):
    n_changed = {name: int((table["fdr"] < 0.05).sum()) for name, table in engines(cell_class, "given").items()}
    ours = {name: int(changed(method.run(task_of(cell_class))).sum()) for name, method in REGISTRY.items()}
    for name, number in ours.items():
        assert min(n_changed.values()) <= number <= max(n_changed.values()), name


@pytest.mark.parametrize("cell_class", CLASSES)
def test_with_its_own_size_factors_deseq2_is_inside_the_range_of_rs_defaults(cell_class):
    n_changed = [int((table["fdr"] < 0.05).sum()) for table in engines(cell_class, "own").values()]
    ours = int(changed(REGISTRY["deseq2"].run(task_of(cell_class, "median of ratios"))).sum())
    assert min(n_changed) <= ours <= max(n_changed)


@pytest.mark.parametrize("cell_class", CLASSES)
def test_fold_changes_and_calls_are_deseq2s(cell_class):
    task = task_of(cell_class)
    fit = REGISTRY["deseq2"].run(task)
    theirs = engines(cell_class, "given")["deseq2"].loc[task.genes]
    difference = np.abs(fit.estimate - theirs["log2_fold_change"])
    assert difference.median() < 0.005 and difference.quantile(0.95) < 0.01 and difference.max() < 0.1
    assert np.corrcoef(fit.estimate, theirs["log2_fold_change"])[0, 1] > 0.9999
    assert (changed(fit) == (theirs["fdr"] < 0.05)).mean() > 0.985


@pytest.mark.parametrize("cell_class", CLASSES)
def test_what_is_not_called_is_nearer_zero_with_our_library_sizes(cell_class):
    """Why our library sizes differ from R's: those leave a part of a one-sided response in the untouched genes."""
    own = engines(cell_class, "own")["edger"]
    given = engines(cell_class, "given")["edger"]
    rest = {
        name: table.loc[table["fdr"] > 0.05, "log2_fold_change"].median()
        for name, table in (("own", own), ("given", given))
    }
    assert abs(rest["given"]) <= abs(rest["own"])


@pytest.mark.parametrize("method", ["deseq2", "edger"])
def test_the_genes_that_rs_library_sizes_add_are_untouched_ones(repository, method):
    """With R's own calls for the truth, ours call fewer untouched genes, and shift those less."""
    sys.path.insert(0, str(repository / "benchmarks"))
    try:
        import library_sizes
    finally:
        sys.path.remove(str(repository / "benchmarks"))
    table = pd.DataFrame(library_sizes.measure("CD14_monocyte", method, "own", 4))
    found = table.pivot(index="library", columns="measure", values="value")
    for theirs in ("median of ratios", "TMM"):
        assert found.at["this package's", "false_calls"] < found.at[theirs, "false_calls"]
        assert abs(found.at["this package's", "shift"]) < abs(found.at[theirs, "shift"])
    assert found.at["this package's", "found"] == pytest.approx(found.at["true", "found"], abs=0.03)
