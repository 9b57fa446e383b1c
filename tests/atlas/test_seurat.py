"""The documented way into R: what a Seurat object holds is what the atlas file holds."""

import shutil
import subprocess

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

PROGRAM = """
library(Matrix)
source(commandArgs(TRUE)[1])
object <- read_atlas(commandArgs(TRUE)[2])
get <- function(name) tryCatch(SeuratObject::GetAssayData(object, layer = name),
                               error = function(e) SeuratObject::GetAssayData(object, slot = name))
table <- data.frame(
  cell = colnames(object), counts = Matrix::colSums(object[["RNA"]]@counts),
  data = Matrix::colSums(object[["RNA"]]@data), g3 = object[["RNA"]]@counts["G3", ],
  umap = SeuratObject::Embeddings(object, "umap")[, 2], class = object$cell_class, ident = SeuratObject::Idents(object),
  flag = object$predicted_doublet, score = object$doublet_score
)
write.table(table, commandArgs(TRUE)[3], sep = "\\t", row.names = FALSE, quote = FALSE)
part <- read_atlas(commandArgs(TRUE)[2], cells = c(11, 20))
stopifnot(identical(colnames(part), colnames(object)[11:20]))
stopifnot(all(part[["RNA"]]@counts == object[["RNA"]]@counts[, 11:20]))
symbols <- read_atlas(commandArgs(TRUE)[2], symbols = TRUE)
stopifnot(identical(rownames(symbols)[1:2], c("S0", "S1")))
"""


@pytest.fixture
def rscript():
    if shutil.which("Rscript") is None:
        pytest.skip("R is not installed")
    test = "all(sapply(c('SeuratObject', 'hdf5r'), requireNamespace, quietly = TRUE))"
    if subprocess.run(["Rscript", "-e", f"q(status = !({test}))"], capture_output=True).returncode:
        pytest.skip("needs R's SeuratObject and hdf5r (Debian: r-cran-seuratobject, r-cran-hdf5r)")
    return "Rscript"


@pytest.mark.slow
def test_a_seurat_object_holds_what_the_atlas_does(rscript, repository, tmp_path):
    rng = np.random.default_rng(1)
    counts = sparse.csr_matrix(rng.poisson(0.4, (40, 12)).astype(np.int32))
    counts[3] = 0  # a cell without counts
    counts.eliminate_zeros()
    obs = pd.DataFrame(
        {
            "cell_class": pd.Categorical(["MSC", "B"] * 20), "predicted_doublet": [True, False] * 20,
            "doublet_score": rng.random(40), "barcode": [f"BC{number}" for number in range(40)],
        },
        index=[f"s:{number}" for number in range(40)],
    )  # fmt: skip
    var = pd.DataFrame({"gene_symbol": [f"S{n}" for n in range(12)]}, index=[f"G{n}" for n in range(12)])
    atlas = ad.AnnData(counts.astype(np.float32).log1p(), obs, var, layers={"counts": counts})
    atlas.obsm["X_umap"] = rng.normal(size=(40, 2)).astype(np.float32)
    atlas.obsm["X_pca"] = rng.normal(size=(40, 5)).astype(np.float32)
    atlas.write_h5ad(tmp_path / "atlas.h5ad")
    (tmp_path / "program.R").write_text(PROGRAM)
    reader = repository / "resources" / "r" / "read_atlas.R"
    command = [rscript, "program.R", str(reader), "atlas.h5ad", "out.tsv"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = pd.read_csv(tmp_path / "out.tsv", sep="\t")
    assert found["cell"].tolist() == atlas.obs_names.tolist()
    np.testing.assert_array_equal(found["counts"], counts.sum(axis=1).A1)
    np.testing.assert_allclose(found["data"], atlas.X.sum(axis=1).A1, rtol=1e-5)
    np.testing.assert_array_equal(found["g3"], counts[:, 3].toarray().ravel())
    np.testing.assert_allclose(found["umap"], atlas.obsm["X_umap"][:, 1], rtol=1e-5)
    assert (found["class"] == obs["cell_class"].to_numpy()).all() and (found["class"] == found["ident"]).all()
    assert (found["flag"] == obs["predicted_doublet"].to_numpy()).all()
    np.testing.assert_allclose(found["score"], obs["doublet_score"])
