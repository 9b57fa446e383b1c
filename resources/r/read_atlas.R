# Read atlas/<atlas>.h5ad into a Seurat object, without Python. Needs SeuratObject, hdf5r and Matrix:
#   Debian and Ubuntu: apt install r-cran-seuratobject r-cran-hdf5r
#   elsewhere:         install.packages(c("SeuratObject", "hdf5r"))
#
#   source("resources/r/read_atlas.R")
#   atlas <- read_atlas("results/atlas/GSE900000001.h5ad")
#
# counts are the raw counts, data is log(1 + counts per 10,000), meta data are the columns of obs, and every map and
# space of obsm is a reduction (umap, pca, harmony). A cell stands in the file as it stands here: rows of a compressed
# matrix of cells x genes are columns of one of genes x cells, so nothing is transposed. One matrix may hold 2^31 - 1
# values; of a larger atlas, read a part: cells = c(1, 200000).

read_atlas <- function(path, symbols = FALSE, cells = NULL) {
  file <- hdf5r::H5File$new(path, mode = "r")
  on.exit(file$close_all())
  obs <- read_frame(file[["obs"]])
  var <- read_frame(file[["var"]])
  genes <- if (symbols) make.unique(as.character(var$gene_symbol)) else rownames(var)
  range <- if (is.null(cells)) c(1, nrow(obs)) else cells
  obs <- obs[range[1]:range[2], , drop = FALSE]
  counts <- read_rows(file[["layers/counts"]], range, genes, rownames(obs))
  object <- SeuratObject::CreateSeuratObject(counts, meta.data = obs)
  expression <- read_rows(file[["X"]], range, rownames(object), rownames(obs))
  if (utils::packageVersion("SeuratObject") >= "5.0.0") {
    object <- SeuratObject::SetAssayData(object, layer = "data", new.data = expression)
  } else {
    object <- SeuratObject::SetAssayData(object, slot = "data", new.data = expression)
  }
  for (name in names(file[["obsm"]])) {
    values <- t(file[["obsm"]][[name]][, range[1]:range[2]])
    key <- sub("^X_", "", name)
    dimnames(values) <- list(rownames(obs), paste0(toupper(key), "_", seq_len(ncol(values))))
    object[[key]] <- SeuratObject::CreateDimReducObject(values, key = paste0(toupper(key), "_"), assay = "RNA")
  }
  if ("cell_class" %in% colnames(obs)) SeuratObject::Idents(object) <- "cell_class"
  object
}

# Some rows of a compressed matrix, as genes x cells.
read_rows <- function(group, range, genes, names) {
  ends <- as.numeric(group[["indptr"]][range[1]:(range[2] + 1)])
  if (diff(range(ends)) >= 2^31) stop("the matrix holds 2^31 values or more; read a part of it: cells = c(1, 200000)")
  part <- if (diff(range(ends)) > 0) (ends[1] + 1):ends[length(ends)] else integer(0)
  take <- function(name) if (length(part)) group[[name]][part] else numeric(0)
  methods::new(
    methods::getClass("dgCMatrix", where = asNamespace("Matrix")),
    i = as.integer(take("indices")), p = as.integer(ends - ends[1]), x = as.numeric(take("data")),
    Dim = c(length(genes), length(names)), Dimnames = list(genes, names)
  )
}

# obs or var: texts, numbers, truth values and factors.
read_frame <- function(group) {
  index <- hdf5r::h5attr(group, "_index")
  columns <- hdf5r::h5attr(group, "column-order")
  values <- lapply(columns, function(name) read_column(group[[name]]))
  frame <- as.data.frame(stats::setNames(values, columns), check.names = FALSE, stringsAsFactors = FALSE)
  rownames(frame) <- as.character(read_column(group[[index]]))
  frame
}

read_column <- function(item) {
  if (!inherits(item, "H5Group")) {
    values <- item[]
    if (is.factor(values)) return(as.character(values) == "TRUE")
    return(if (inherits(values, "integer64")) as.numeric(values) else values)
  }
  if ("codes" %in% names(item)) {
    return(factor(item[["codes"]][] + 1, levels = seq_along(item[["categories"]][]), labels = item[["categories"]][]))
  }
  values <- item[["values"]][]
  values[as.logical(as.character(item[["mask"]][]) == "TRUE")] <- NA
  values
}
