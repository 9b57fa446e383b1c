"""What pysoupx, a port of the R package SoupX, says of the tiny library, after make_counts.py.

Needs pysoupx, which is no dependency of the project. Writes the fraction of each kind of cell by SoupX's Poisson
regression over genes that the kind does not make (pysoupx.tsv), and each gene's counts in each kind after subtraction
at those fractions (pysoupx_corrected.tsv). Run in this folder with `python make_pysoupx.py REPOSITORY`.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pysoupx
from scipy import sparse

HERE = Path(__file__).parent
KIND_OF = {"MSC": "MSC", "CD4_T": "T_NK", "CD14_monocyte": "myeloid"}
FOREIGN = {
    "MSC": ("T_NK", "B", "myeloid", "leukocyte"),
    "T_NK": ("MSC", "B", "myeloid"),
    "myeloid": ("MSC", "B", "T_NK"),
}

counts = sparse.load_npz(HERE / "counts.npz").T.tocsc()  # genes x droplets
droplets = pd.read_csv(HERE / "droplets.tsv.gz", sep="\t", keep_default_na=False)
genes = pd.read_csv(HERE / "genes.tsv", sep="\t")
exclusive = pd.read_csv(Path(sys.argv[1]) / "resources" / "markers" / "exclusive_genes.tsv", sep="\t", comment="#")
symbols = genes["gene_symbol"].tolist()
rows, corrected = [], {"gene": symbols}
for true_class, kind in KIND_OF.items():
    cells = np.flatnonzero(droplets["true_class"] == true_class)
    names = droplets["name"].iloc[cells].tolist()
    channel = pysoupx.SoupChannel(counts, counts[:, cells], symbols, names)
    chosen = set(exclusive.loc[exclusive["group"].isin(FOREIGN[kind]), "gene_human"])
    absent = [symbol for symbol in symbols if symbol in chosen]
    use = pd.DataFrame({"foreign": True}, index=names)
    pysoupx.calculate_contamination_fraction(channel, {"foreign": absent}, use, force_accept=True, verbose=False)
    fit = channel.fit
    rows.append({"group": kind, "fraction": fit["rhoEst"], "low": fit["rhoLow"], "high": fit["rhoHigh"]})
    left = pysoupx.adjust_counts(channel, clusters=dict.fromkeys(names, kind), verbose=0)
    corrected[kind] = np.asarray(left.sum(axis=1)).ravel()
pd.DataFrame(rows).to_csv(HERE / "pysoupx.tsv", sep="\t", index=False)
pd.DataFrame(corrected).to_csv(HERE / "pysoupx_corrected.tsv", sep="\t", index=False)
