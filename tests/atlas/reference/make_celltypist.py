"""Makes the reference that the reader of CellTypist models is held against, with the celltypist package itself.

    pip install celltypist==1.7.1 && python make_celltypist.py

Writes ``celltypist_model.pkl`` (a model of three cell types, trained here), ``celltypist_two.pkl`` (of two),
``celltypist_cells.tsv.gz`` (log-normalised expression of 40 cells, one column per gene) and
``celltypist_probabilities.tsv`` (what the package gives for them, by model).
"""

from pathlib import Path

import anndata
import celltypist
import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
KINDS = ("CD16+ NK cells", "Classical monocytes", "Regulatory T cells")


def drawn(generator: np.random.Generator, n_per_kind: int) -> anndata.AnnData:
    """Cells of three kinds: 60 genes, 15 of them higher in each."""
    level = np.full((3, 60), 0.5)
    for kind in range(3):
        level[kind, 15 * kind : 15 * (kind + 1)] = 4.0
    kind = np.repeat(np.arange(3), n_per_kind)
    counts = generator.poisson(level[kind] * generator.gamma(4, 0.25, (len(kind), 1)) + 0.05).astype(np.float32)
    counts[:, 59] += 1  # no cell is empty
    expression = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    genes = [f"G{number}" for number in range(60)]
    return anndata.AnnData(expression, pd.DataFrame({"kind": np.array(KINDS)[kind]}), pd.DataFrame(index=genes))


def main() -> None:
    generator = np.random.default_rng(1)
    training = drawn(generator, 60)
    training.obs_names = [f"t{number}" for number in range(training.n_obs)]
    cells = drawn(generator, 20)
    # in another order, without some of the model's genes, with one that it does not know
    cells = cells[generator.permutation(cells.n_obs)[:40], generator.permutation(60)[:52]].copy()
    cells.obs_names = [f"c{number}" for number in range(cells.n_obs)]
    found = []
    for name, part in (("model", training), ("two", training[training.obs["kind"] != KINDS[2]].copy())):
        model = celltypist.train(part, labels="kind", check_expression=False, n_jobs=1, max_iter=500)
        model.write(str(HERE / f"celltypist_{name}.pkl"))
        given = celltypist.annotate(cells, model=model).probability_matrix
        found.append(given.reset_index(names="cell").melt("cell", var_name="label", value_name="probability")
                     .assign(model=name))  # fmt: skip
    cells.to_df().round(6).rename_axis("cell").to_csv(HERE / "celltypist_cells.tsv.gz", sep="\t")
    pd.concat(found).to_csv(HERE / "celltypist_probabilities.tsv", sep="\t", index=False, float_format="%.8g")


if __name__ == "__main__":
    main()
