"""Write the tiny unfiltered library that CellBender and pysoupx were run on: 60 cells and 500 empty droplets of a
simulated co-culture with 20% of soup, by genes that tell the kinds of cell apart and the 60 most abundant others.

Run with the project's own environment: PYTHONPATH=workflow python tests/sample/reference/ambient/make_counts.py
"""

from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from immunomod.exclusive import load_exclusive_genes
from immunomod.files import write_h5ad, write_tsv
from immunomod.simulate.settings import SimulationSettings
from immunomod.simulate.study import simulate_study

HERE = Path(__file__).parent
CELLS = {"MSC": 24, "CD4_T": 20, "CD14_monocyte": 16}
N_EMPTY, N_OTHER_GENES, MIN_COUNTS = 500, 60, 30

study = simulate_study(
    SimulationSettings(n_donors=1, leakage=0.0, ambient=0.2, empty_droplets=3000, empty_counts=60, seed=3)
)
library = study.adata[study.adata.obs["sample"] == "D1_coculture"]
rng = np.random.default_rng(1)
total = np.asarray(library.X.sum(axis=0)).ravel()
exclusive = set().union(*load_exclusive_genes().of_groups("human").values())
telling = library.var["gene_symbol"].isin(exclusive).to_numpy()
others = np.flatnonzero(~telling)[np.argsort(-total[~telling], kind="stable")[:N_OTHER_GENES]]
genes = np.sort(np.concatenate([np.flatnonzero(telling & (total > MIN_COUNTS)), others]))
true_class, is_empty = library.obs["true_class"].to_numpy(), library.obs["empty"].to_numpy()
single = ~library.obs["true_doublet"].to_numpy()
cells = [rng.choice(np.flatnonzero((true_class == kind) & single), n, replace=False) for kind, n in CELLS.items()]
droplets = np.concatenate([*cells, rng.choice(np.flatnonzero(is_empty), N_EMPTY, replace=False)])
counts = sparse.csr_matrix(library.X[droplets][:, genes])
filled = np.diff(counts.indptr) > 0
counts, droplets = counts[filled], droplets[filled]
obs = library.obs.iloc[droplets][["barcode", "sample", "true_class"]]
var = library.var.iloc[genes][["gene_id", "gene_symbol"]]

sparse.save_npz(HERE / "counts.npz", counts)
write_tsv(obs.rename_axis("name").reset_index(), HERE / "droplets.tsv.gz")
write_tsv(pd.DataFrame(var), HERE / "genes.tsv")
write_h5ad(AnnData(counts, obs=obs, var=var), HERE / "counts.h5ad")  # for CellBender; not kept
