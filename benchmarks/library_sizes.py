"""What the choice of library sizes does to genes where a response is strong and one-sided, with known truth.

Run from the repository: ``python benchmarks/library_sizes.py [--studies N]``; some minutes for 10. Writes
``benchmarks/results/library_sizes.tsv``.

The studies are drawn after the pseudobulks of two classes of GSE96583 (8 donors, interferon beta against none,
``tests/contrast/reference/gse96583``): every gene starts from its level in the controls, and the genes that an engine
of R called on the real sums change by what it found, those of DESeq2 with the library sizes of this package, or those
of DESeq2 and edgeR with their own. All other genes are untouched. Counts sum to what the real units hold, so that a
rise of some takes its share from all others. Donors differ by 0.3 log2 in every gene, units by 0.15; counts are
negative binomial with a dispersion of 0.05. The same model of genes (``deseq2``) is then given library sizes of four
makes: DESeq2's (median of ratios), edgeR's and limma's (TMM), this package's
(:func:`immunomod.contrast.scores.effective_library`) and the true ones.

On the real sums nobody knows the truth. But library sizes that are off between the arms by some factor shift all
untouched genes by it, and call some of them: so the right ones are near those that call the fewest. ``calls`` and
``calls_down`` are counted with this package's sizes, those of the test arm multiplied by factors around 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "workflow"))

from immunomod.contrast.gene_methods.method import GeneTask  # noqa: E402
from immunomod.contrast.genes import REGISTRY  # noqa: E402
from immunomod.contrast.model import benjamini_hochberg  # noqa: E402
from immunomod.contrast.normalise import tmm_factors  # noqa: E402
from immunomod.contrast.scores import effective_library  # noqa: E402
from immunomod.files import write_tsv  # noqa: E402

SUMS = REPOSITORY / "tests" / "contrast" / "reference" / "gse96583"
CLASSES = ("CD14_monocyte", "CD4_T")
PLANTED = (("deseq2", "given"), ("deseq2", "own"), ("edger", "own"))
DONOR_SD, UNIT_SD, DISPERSION = 0.3, 0.15, 0.05
FDR = 0.05
SHIFTS = (-0.3, -0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2, 0.3)


def planted_changes(cell_class: str, method: str, libraries: str, genes: pd.Index) -> np.ndarray:
    """log2 change of every gene: what an engine found where it called the gene, 0 elsewhere."""
    engines = pd.read_csv(SUMS / f"{cell_class}.engines.tsv.gz", sep="\t")
    found = engines[(engines["method"] == method) & (engines["libraries"] == libraries)].set_index("gene").loc[genes]
    return np.where(found["fdr"] < FDR, found["log2_fold_change"], 0.0)


def median_of_ratios(counts: np.ndarray) -> np.ndarray:
    """DESeq2's size factors (Anders and Huber 2010)."""
    logs = np.log(counts[:, (counts > 0).all(axis=0)])
    return np.asarray(np.exp(np.median(logs - logs.mean(axis=0), axis=1)))


def draw(
    rng: np.random.Generator, counts: np.ndarray, in_test: np.ndarray, donors: np.ndarray, change: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Counts (units x genes) and the true library sizes: what a molecule of an untouched gene is a share of."""
    level = np.log2(counts[~in_test].sum(axis=0) + 0.5)
    of_donor = rng.normal(0, DONOR_SD, (donors.max() + 1, counts.shape[1]))
    log2 = level + of_donor[donors] + rng.normal(0, UNIT_SD, counts.shape) + np.outer(in_test, change)
    share = np.exp2(log2) / np.exp2(log2).sum(axis=1, keepdims=True)
    mean = share * counts.sum(axis=1, keepdims=True)
    true = counts.sum(axis=1) / np.exp2(level + np.outer(in_test, change)).sum(axis=1)
    return rng.negative_binomial(1 / DISPERSION, 1 / (1 + DISPERSION * mean)).astype(float), true


def called(counts: np.ndarray, genes: pd.Index, library: np.ndarray, in_test: np.ndarray, donors: np.ndarray):
    """The estimates of the model ``deseq2`` and which genes it calls."""
    scaled = library * np.exp(np.log(counts.sum(axis=1)).mean() - np.log(library).mean())
    log2 = np.log2((counts + 0.5) / (scaled + 1)[:, None] * 1e6)
    blurred = np.zeros(len(genes), dtype=bool)
    blocks = np.eye(donors.max() + 1)[donors]
    fit = REGISTRY["deseq2"].run(GeneTask(genes, counts, log2, blurred, scaled, np.where(in_test, 0.5, -0.5), blocks))
    p_value = 2 * stats.norm.sf(np.abs(fit.estimate / fit.se))
    return fit.estimate, benjamini_hochberg(np.where(fit.tested & fit.counted, p_value, np.nan)) < FDR


def real_sums(cell_class: str) -> tuple[pd.DataFrame, np.ndarray, np.ndarray, np.ndarray]:
    """The table (genes x units), its counts (units x genes), which units are in the test arm, and their donors."""
    table = pd.read_csv(SUMS / f"{cell_class}.counts.tsv.gz", sep="\t", index_col="gene")
    units = pd.read_csv(SUMS / f"{cell_class}.units.tsv", sep="\t", dtype={"block": str})
    in_test, donors = (units["arm"] == "test").to_numpy(), pd.factorize(units["block"])[0]
    return table, table.to_numpy(dtype=float).T, in_test, donors


def measure(cell_class: str, method: str, libraries: str, studies: int) -> list[dict[str, object]]:
    """Per make of library sizes: ``false_calls`` (and those ``false_calls_down``), ``shift``, ``found``.

    ``shift`` is the median estimate of the untouched genes, log2; ``found`` the share of the changed genes that are
    called.
    """
    table, counts, in_test, donors = real_sums(cell_class)
    change = planted_changes(cell_class, method, libraries, table.index)
    untouched = change == 0
    found: dict[tuple[str, str], list[float]] = {}
    for study in range(studies):
        rng = np.random.default_rng([31, CLASSES.index(cell_class), study])
        drawn, true = draw(rng, counts, in_test, donors, change)
        arms = np.where(in_test, "test", "reference").astype(object)
        makes = {
            "median of ratios": median_of_ratios(drawn),
            "TMM": drawn.sum(axis=1) * tmm_factors(drawn),
            "this package's": effective_library(drawn, arms),
            "true": true,
        }
        for make, library in makes.items():
            estimate, hits = called(drawn, table.index, library, in_test, donors)
            for name, value in (
                ("false_calls", (hits & untouched).sum()),
                ("false_calls_down", (hits & untouched & (estimate < 0)).sum()),
                ("shift", np.median(estimate[untouched])),
                ("found", hits[~untouched].mean()),
            ):
                found.setdefault((make, name), []).append(float(value))
    origin = f"{method}, {'these' if libraries == 'given' else 'its own'} library sizes"
    return [
        {
            "cell_class": cell_class,
            "planted": f"{int((change > 0).sum())} up, {int((change < 0).sum())} down, as {origin}",
            "library": make,
            "measure": name,
            "value": float(f"{np.mean(values):.4g}"),
            "standard_error": float(f"{np.std(values, ddof=1) / np.sqrt(len(values)):.2g}"),
            "n": len(values),
        }
        for (make, name), values in found.items()
    ]


def calls_around(cell_class: str) -> list[dict[str, object]]:
    """Genes called in the real sums, with the test arm's library sizes off by some log2 units."""
    table, counts, in_test, donors = real_sums(cell_class)
    ours = effective_library(counts, np.where(in_test, "test", "reference").astype(object))
    rows = []
    for shift in SHIFTS:
        estimate, hits = called(counts, table.index, ours * np.where(in_test, 2**shift, 1.0), in_test, donors)
        named = {"cell_class": cell_class, "planted": "real sums", "library": f"this package's, {shift:+.2f} log2"}
        for name, value in (("calls", hits.sum()), ("calls_down", (hits & (estimate < 0)).sum())):
            rows.append(named | {"measure": name, "value": float(value), "standard_error": np.nan, "n": 1})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=10)
    options = parser.parse_args()
    rows = [
        row
        for name in CLASSES
        for method, libraries in PLANTED
        for row in measure(name, method, libraries, options.studies)
    ]
    rows += [row for name in CLASSES for row in calls_around(name)]
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    write_tsv(table, REPOSITORY / "benchmarks" / "results" / "library_sizes.tsv")


if __name__ == "__main__":
    main()
