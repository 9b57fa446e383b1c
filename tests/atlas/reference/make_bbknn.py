"""Makes ``bbknn.tsv``, which the balanced neighbours are held against, with the bbknn package itself.

    pip install bbknn==1.6.0 umap-learn==0.5.9.post2 numba==0.61.2 && python make_bbknn.py

(with numba 0.68 that umap-learn gives weights of 1 only)

200 points of two batches in eight dimensions (written to ``bbknn_points.tsv``), three neighbours in each batch; the
connectivities above the diagonal.
"""

from pathlib import Path

import bbknn
import numpy as np
import pandas as pd
from scipy import sparse

HERE = Path(__file__).resolve().parent


def main() -> None:
    generator = np.random.default_rng(3)
    batch = np.repeat(["D0", "D1"], [120, 80])
    points = generator.normal(size=(200, 8)) + np.where(batch == "D1", 2.0, 0.0)[:, None]
    table = pd.DataFrame(points).round(5).assign(batch=batch)
    table.to_csv(HERE / "bbknn_points.tsv", sep="\t", index=False)
    points = table.drop(columns="batch").to_numpy(dtype=np.float32)
    _, connectivities, _ = bbknn.matrix.bbknn(points, batch, neighbors_within_batch=3, computation="cKDTree", trim=200)
    upper = sparse.triu(connectivities).tocoo()
    found = pd.DataFrame({"row": upper.row, "column": upper.col, "weight": upper.data}).sort_values(["row", "column"])
    found.to_csv(HERE / "bbknn.tsv", sep="\t", index=False, float_format="%.7g")


if __name__ == "__main__":
    main()
